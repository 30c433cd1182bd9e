// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpiped: the spool of one source. */
#include "spool.h"

#include <sqlite3.h>
#include <string.h>

#include "hvpipe.h"

#define PAGE 4096

struct spool {
	char *path;
	uint64_t max_bytes;
	sqlite3 *db; /* NULL while it is not open */
	sqlite3_stmt *append, *first, *remove;
	int64_t next_id;
	uint64_t nr_messages, bytes;
};

G_DEFINE_QUARK(spool - error - quark, spool_error)

struct spool *spool_new(const char *directory, const char *name, uint64_t max_bytes)
{
	struct spool *spool = g_new0(struct spool, 1);

	spool->path = g_strdup_printf("%s/%s.db", directory, name);
	spool->max_bytes = max_bytes;
	return spool;
}

static void close_file(struct spool *spool)
{
	sqlite3_finalize(spool->append);
	sqlite3_finalize(spool->first);
	sqlite3_finalize(spool->remove);
	sqlite3_close(spool->db);
	spool->append = spool->first = spool->remove = NULL;
	spool->db = NULL;
}

void spool_free(struct spool *spool)
{
	if (!spool)
		return;
	close_file(spool);
	g_free(spool->path);
	g_free(spool);
}

/* Name the error, and close the file: a disk that works again has it opened again. */
static bool fail(struct spool *spool, const char *what, GError **error)
{
	g_set_error(error, SPOOL_ERROR, SPOOL_ERROR_DISK, "spool %s: %s: %s", spool->path, what,
		    spool->db ? sqlite3_errmsg(spool->db) : "no memory");
	close_file(spool);
	return false;
}

/* The result of a statement with one row of numbers. */
static bool read_counts(struct spool *spool, GError **error)
{
	sqlite3_stmt *count;
	bool ok = sqlite3_prepare_v2(spool->db,
				     "SELECT count(*), coalesce(sum(length(data)), 0), coalesce(max(id), 0) "
				     "FROM message",
				     -1, &count, NULL) == SQLITE_OK &&
		  sqlite3_step(count) == SQLITE_ROW;

	if (ok) {
		spool->nr_messages = sqlite3_column_int64(count, 0);
		spool->bytes = sqlite3_column_int64(count, 1) + spool->nr_messages * SPOOL_OVERHEAD;
		/* Never smaller than before, also where the last message was removed meanwhile. */
		if (spool->next_id <= sqlite3_column_int64(count, 2))
			spool->next_id = sqlite3_column_int64(count, 2) + 1;
	}
	sqlite3_finalize(count);
	return ok || fail(spool, "count", error);
}

static bool open_file(struct spool *spool, GError **error)
{
	/*
	 * One process has the file, so that two daemons cannot share it. A message is on the disk when it was
	 * appended. The file cannot grow beyond what the quota needs, whatever the pages are filled with.
	 */
	g_autofree char *settings = g_strdup_printf("PRAGMA page_size = %d;"
						    "PRAGMA locking_mode = EXCLUSIVE;"
						    "PRAGMA journal_mode = WAL;"
						    "PRAGMA synchronous = FULL;"
						    "PRAGMA cache_size = -256;"
						    "PRAGMA wal_autocheckpoint = 256;"
						    "PRAGMA journal_size_limit = 1048576;"
						    "PRAGMA max_page_count = %" G_GUINT64_FORMAT ";"
						    "CREATE TABLE IF NOT EXISTS message "
						    "(id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;",
						    PAGE, spool->max_bytes / PAGE * 2 + 64);

	if (sqlite3_open_v2(spool->path, &spool->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		return fail(spool, "open", error);
	if (sqlite3_exec(spool->db, settings, NULL, NULL, NULL) != SQLITE_OK)
		return fail(spool, "open", error);
	if (sqlite3_prepare_v2(spool->db, "INSERT INTO message VALUES (?1, ?2)", -1, &spool->append, NULL) ||
	    sqlite3_prepare_v2(spool->db, "SELECT id, data FROM message ORDER BY id LIMIT 1", -1, &spool->first,
			       NULL) ||
	    sqlite3_prepare_v2(spool->db, "DELETE FROM message WHERE id = ?1", -1, &spool->remove, NULL))
		return fail(spool, "open", error);
	return read_counts(spool, error);
}

bool spool_open(struct spool *spool, GError **error)
{
	return spool->db || open_file(spool, error);
}

bool spool_has_room(const struct spool *spool, size_t len)
{
	return spool->bytes + len + SPOOL_OVERHEAD <= spool->max_bytes;
}

bool spool_append(struct spool *spool, const void *data, size_t len, GError **error)
{
	if (!spool_open(spool, error))
		return false;
	if (!spool_has_room(spool, len)) {
		g_set_error(error, SPOOL_ERROR, SPOOL_ERROR_FULL,
			    "spool %s: full, %" G_GUINT64_FORMAT " messages of %" G_GUINT64_FORMAT " bytes wait",
			    spool->path, spool->nr_messages, spool->bytes);
		return false;
	}
	sqlite3_bind_int64(spool->append, 1, spool->next_id);
	sqlite3_bind_blob(spool->append, 2, len ? data : "", (int)len, SQLITE_STATIC);
	if (sqlite3_step(spool->append) != SQLITE_DONE)
		return fail(spool, "append", error);
	sqlite3_reset(spool->append);
	spool->next_id++;
	spool->nr_messages++;
	spool->bytes += len + SPOOL_OVERHEAD;
	return true;
}

int64_t spool_next_id(struct spool *spool, GError **error)
{
	return spool_open(spool, error) ? spool->next_id : -1;
}

ssize_t spool_first(struct spool *spool, int64_t *id, void *data, GError **error)
{
	int result;
	size_t len;

	if (!spool_open(spool, error) || !spool->nr_messages)
		return -1;
	result = sqlite3_step(spool->first);
	if (result != SQLITE_ROW) {
		fail(spool, result == SQLITE_DONE ? "messages are missing" : "read", error);
		return -1;
	}
	*id = sqlite3_column_int64(spool->first, 0);
	len = sqlite3_column_bytes(spool->first, 1);
	if (len > HVPIPE_MAX_RECEIVE)
		len = HVPIPE_MAX_RECEIVE;
	if (len)
		memcpy(data, sqlite3_column_blob(spool->first, 1), len);
	sqlite3_reset(spool->first);
	return len;
}

bool spool_remove(struct spool *spool, int64_t id, GError **error)
{
	uint64_t bytes = 0;
	int64_t first;
	char data[HVPIPE_MAX_RECEIVE];
	ssize_t len;

	/* It is the oldest one, always: only so are its bytes known. */
	len = spool_first(spool, &first, data, error);
	if (len < 0)
		return false;
	if (first == id)
		bytes = len + SPOOL_OVERHEAD;
	sqlite3_bind_int64(spool->remove, 1, id);
	if (sqlite3_step(spool->remove) != SQLITE_DONE)
		return fail(spool, "remove", error);
	sqlite3_reset(spool->remove);
	if (bytes) {
		spool->nr_messages--;
		spool->bytes -= bytes;
	}
	return true;
}

uint64_t spool_messages(const struct spool *spool)
{
	return spool->nr_messages;
}

uint64_t spool_bytes(const struct spool *spool)
{
	return spool->bytes;
}

uint64_t spool_max_bytes(const struct spool *spool)
{
	return spool->max_bytes;
}
