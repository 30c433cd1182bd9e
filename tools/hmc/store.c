// SPDX-License-Identifier: GPL-2.0-or-later
/* The state file, see store.h. */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spapr_hvpipe_link.h"
#include "store-private.h"

#define APPLICATION_ID 0x68766d63 /* "hvmc" */
#define FORMAT	       3	  /* 1 was a log of our own, 2 had no files */
#define OLD_MAGIC      "hvpipe-hmc 1\n"

/* How long another process may read the file in a way that keeps us out, as sqlite3(1) does when it opens it. */
#define BUSY_MS 200

/* The statements as SQLite keeps them: a file with any other schema is not ours. */
static const char create_link[] =
	"CREATE TABLE link (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, session TEXT NOT NULL, "
	"source INTEGER NOT NULL, epoch TEXT NOT NULL, taken INTEGER NOT NULL, acknowledged INTEGER NOT NULL, "
	"queued INTEGER NOT NULL)";
static const char create_message[] =
	"CREATE TABLE message (link INTEGER NOT NULL REFERENCES link, sequence INTEGER NOT NULL, data BLOB NOT NULL, "
	"PRIMARY KEY (link, sequence))";
static const char create_file[] =
	"CREATE TABLE file (link INTEGER NOT NULL REFERENCES link, number INTEGER NOT NULL, id TEXT NOT NULL, "
	"sha256 TEXT NOT NULL, PRIMARY KEY (link, number))";

static const char *const statement_texts[STATEMENTS] = {
	/* Others that read the file may hold a lock for a moment; another hvpipe-hmc holds it for as long as it runs.
	 */
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[INSERT_LINK] = "INSERT INTO link VALUES (NULL, ?, ?, 0, '0000000000000000', 0, 0, 0)",
	[UPDATE_LINK] =
		"UPDATE link SET source = ?2, taken = ?3, acknowledged = ?4, queued = ?5, epoch = ?6 WHERE id = ?1",
	[SELECT_LINK] = "SELECT id, session, epoch, source, taken, acknowledged, queued FROM link WHERE name = ?",
	[INSERT_MESSAGE] = "INSERT INTO message (link, sequence, data) VALUES (?, ?, ?)",
	[DELETE_MESSAGES] = "DELETE FROM message WHERE link = ? AND sequence <= ?",
	[SELECT_MESSAGES] = "SELECT sequence, data FROM message WHERE link = ? ORDER BY sequence",
	[INSERT_FILE] = "INSERT INTO file (link, number, id, sha256) VALUES (?, ?, ?, ?)",
	[DELETE_FILES] = "DELETE FROM file WHERE link = ? AND number <= ?",
	[SELECT_FILES] = "SELECT number, id, sha256 FROM file WHERE link = ? ORDER BY number",
};

/* SQLite keeps these beside the file. */
static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };

static bool G_GNUC_PRINTF(3, 4) set_error(GError **error, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (error)
		*error = g_error_new_valist(G_IO_ERROR, code, format, args);
	va_end(args);
	return false;
}

/* A file that cannot be used: what it is, and the way out. */
static bool G_GNUC_PRINTF(3, 4) set_unusable(GError **error, const struct hmc_store *store, const char *format, ...)
{
	char *what;
	va_list args;

	va_start(args, format);
	what = g_strdup_vprintf(format, args);
	va_end(args);
	set_error(
		error, G_IO_ERROR_INVALID_DATA,
		"%s: %s. Move the file away to begin a new session; messages in it that wait for the partition are not "
		"sent then",
		store->path, what);
	g_free(what);
	return false;
}

/* The error of the last call on the database. */
static bool set_sqlite_error(GError **error, const struct hmc_store *store, const char *what)
{
	int code = sqlite3_errcode(store->db), err = sqlite3_system_errno(store->db);
	const char *text = sqlite3_errmsg(store->db);

	switch (code) {
	case SQLITE_BUSY:
		return set_error(error, G_IO_ERROR_BUSY,
				 "%s: in use by another hvpipe-hmc; end that one, or use a state file of your own",
				 store->path);
	case SQLITE_NOTADB:
		return set_unusable(error, store, "not a state file of hvpipe-hmc, or a damaged one (%s)", text);
	case SQLITE_CORRUPT:
		return set_unusable(error, store, "damaged state file: %s", text);
	default:
		return set_error(error, G_IO_ERROR_FAILED, "%s: %s: %s%s%s", store->path, what, text, err ? ": " : "",
				 err ? g_strerror(err) : "");
	}
}

static bool run(struct hmc_store *store, const char *sql, GError **error)
{
	return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK || set_sqlite_error(error, store, "write");
}

/* Run a statement that returns no rows. */
static bool step(struct hmc_store *store, enum statement statement, GError **error)
{
	bool ok = sqlite3_step(store->statements[statement]) == SQLITE_DONE || set_sqlite_error(error, store, "write");

	sqlite3_reset(store->statements[statement]);
	sqlite3_clear_bindings(store->statements[statement]);
	return ok;
}

/* What a query of one value returns; -1 when it returns none. */
static int64_t query(struct hmc_store *store, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	int64_t value = -1;

	if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) == SQLITE_OK &&
	    sqlite3_step(statement) == SQLITE_ROW)
		value = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return value;
}

/*
 * Before SQLite opens the file
 */

/* A file that somebody planted, to have us write elsewhere or to read along. */
static bool check_file(const char *path, GError **error)
{
	struct stat st;

	if (lstat(path, &st)) {
		if (errno == ENOENT)
			return true;
		return set_error(error, g_io_error_from_errno(errno), "%s: %s", path, g_strerror(errno));
	}
	if (S_ISLNK(st.st_mode))
		return set_error(error, G_IO_ERROR_NOT_REGULAR_FILE,
				 "%s: a symbolic link, and a state file is not written through one; remove it, or name "
				 "the file itself",
				 path);
	if (!S_ISREG(st.st_mode))
		return set_error(error, G_IO_ERROR_NOT_REGULAR_FILE,
				 "%s: not a regular file, and a state file must be one", path);
	if (st.st_nlink > 1)
		return set_error(error, G_IO_ERROR_NOT_REGULAR_FILE,
				 "%s: has %lu names (hard links), and a state file has one; remove it", path,
				 (unsigned long)st.st_nlink);
	if (st.st_uid != geteuid())
		return set_error(error, G_IO_ERROR_PERMISSION_DENIED,
				 "%s: belongs to user %u, not to %u who runs this; remove it", path,
				 (unsigned int)st.st_uid, (unsigned int)geteuid());
	return true;
}

static bool check_directory(const char *path, GError **error)
{
	struct stat st;

	if (stat(path, &st))
		return set_error(error, g_io_error_from_errno(errno), "%s: %s", path, g_strerror(errno));
	if (st.st_mode & S_IWOTH)
		return set_error(error, G_IO_ERROR_PERMISSION_DENIED,
				 "%s: everybody may write there, and could plant files in place of the state; use "
				 "another directory",
				 path);
	return true;
}

/* The real name of the file's directory, and the file's own name in it: later checks see through no link. */
static char *real_path(const char *path, GError **error)
{
	char *dir = g_path_get_dirname(path), *name = g_path_get_basename(path), *real = realpath(dir, NULL);
	char *result = NULL;

	if (!real)
		set_error(error, g_io_error_from_errno(errno), "%s: %s: %s", path, dir, g_strerror(errno));
	else if (check_directory(real, error))
		result = g_build_filename(real, name, NULL);
	free(real);
	g_free(name);
	g_free(dir);
	return result;
}

static bool sync_directory(const char *path, GError **error)
{
	char *dir = g_path_get_dirname(path);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && !fsync(fd);

	if (!ok)
		set_error(error, g_io_error_from_errno(errno), "%s: sync: %s", dir, g_strerror(errno));
	if (fd >= 0)
		close(fd);
	g_free(dir);
	return ok;
}

/* Make the file, or see that it may be one of ours. */
static bool prepare_file(const char *path, GError **error)
{
	char magic[sizeof(OLD_MAGIC)] = { 0 };
	struct stat st;
	bool ok = false;
	int fd;

	for (size_t i = 0; i < G_N_ELEMENTS(suffixes); i++) {
		char *one = g_strconcat(path, suffixes[i], NULL);

		ok = check_file(one, error);
		g_free(one);
		if (!ok)
			return false;
	}
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd >= 0) {
		close(fd);
		return sync_directory(path, error);
	}
	if (errno == EEXIST)
		fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return set_error(error, g_io_error_from_errno(errno), "%s: open: %s", path, g_strerror(errno));
	if (pread(fd, magic, sizeof(magic) - 1, 0) < 0 || fstat(fd, &st))
		ok = set_error(error, g_io_error_from_errno(errno), "%s: read: %s", path, g_strerror(errno));
	else if (!strcmp(magic, OLD_MAGIC))
		ok = set_error(
			error, G_IO_ERROR_INVALID_DATA,
			"%s: a state file in the format of an older hvpipe-hmc (a log, version 1), which this one "
			"cannot read. Send what waits in it with the older one, or move the file away to begin a "
			"new session; messages in it that wait for the partition are not sent then",
			path);
	else if ((st.st_mode & 07177) && fchmod(fd, 0600))
		ok = set_error(error, g_io_error_from_errno(errno), "%s: chmod: %s", path, g_strerror(errno));
	close(fd);
	return ok;
}

/*
 * The database
 */

static bool is_ours(struct hmc_store *store)
{
	char *sql = sqlite3_mprintf("SELECT count(*) = 3 AND total(sql IN (%Q, %Q, %Q)) = 3 FROM sqlite_schema "
				    "WHERE sql NOT NULL",
				    create_link, create_message, create_file);
	bool same = query(store, sql) == 1;

	sqlite3_free(sql);
	return same;
}

/* Make the tables in an empty database, or see that it is one of ours. Within the transaction. */
static bool check_schema(struct hmc_store *store, GError **error)
{
	int64_t format;

	if (query(store, "SELECT count(*) FROM sqlite_schema") == 0 && query(store, "PRAGMA application_id") == 0) {
		char *pragmas =
			g_strdup_printf("PRAGMA application_id = %d; PRAGMA user_version = %d", APPLICATION_ID, FORMAT);
		bool ok = run(store, create_link, error) && run(store, create_message, error) &&
			  run(store, create_file, error) && run(store, pragmas, error);

		g_free(pragmas);
		store->dirty = true;
		return ok;
	}
	if (sqlite3_errcode(store->db) == SQLITE_CORRUPT || sqlite3_errcode(store->db) == SQLITE_NOTADB)
		return set_sqlite_error(error, store, "read");
	format = query(store, "PRAGMA user_version");
	if (query(store, "PRAGMA application_id") != APPLICATION_ID)
		return set_error(error, G_IO_ERROR_INVALID_DATA,
				 "%s: a database, but not a state file of hvpipe-hmc; give --state a name that does "
				 "not exist yet to begin a new one",
				 store->path);
	if (format != FORMAT)
		return set_unusable(error, store,
				    "a state file of format %" PRId64 ", and this hvpipe-hmc knows format %d only",
				    format, FORMAT);
	if (!is_ours(store))
		return set_unusable(error, store, "damaged state file: its tables are other ones");
	return true;
}

static bool check_pages(struct hmc_store *store, GError **error)
{
	sqlite3_stmt *statement = NULL;
	bool ok = sqlite3_prepare_v2(store->db, "PRAGMA quick_check(1)", -1, &statement, NULL) == SQLITE_OK &&
		  sqlite3_step(statement) == SQLITE_ROW;
	const char *text = ok ? (const char *)sqlite3_column_text(statement, 0) : NULL;

	if (!ok)
		set_sqlite_error(error, store, "read");
	else if (g_strcmp0(text, "ok"))
		ok = set_unusable(error, store, "damaged state file: %s", text ? text : "no answer");
	sqlite3_finalize(statement);
	return ok;
}

static bool open_database(struct hmc_store *store, GError **error)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_NOMUTEX;
	sqlite3_stmt *statement = NULL;
	bool wal;

	if (sqlite3_open_v2(store->path, &store->db, flags, NULL) != SQLITE_OK)
		return set_sqlite_error(error, store, "open");
	sqlite3_busy_timeout(store->db, BUSY_MS);
	/* The file may be made by somebody who wants us to run his code. */
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
	if (!run(store, "PRAGMA cell_size_check = ON; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY", error))
		return false;
	if (sqlite3_prepare_v2(store->db, "PRAGMA journal_mode = WAL", -1, &statement, NULL) != SQLITE_OK ||
	    sqlite3_step(statement) != SQLITE_ROW) {
		set_sqlite_error(error, store, "open");
		sqlite3_finalize(statement);
		return false;
	}
	wal = !g_strcmp0((const char *)sqlite3_column_text(statement, 0), "wal");
	sqlite3_finalize(statement);
	if (!wal)
		return set_error(
			error, G_IO_ERROR_NOT_SUPPORTED,
			"%s: this file system cannot keep a write-ahead log of SQLite (no shared memory, as on "
			"a network); use another one",
			store->path);
	if (!run(store, statement_texts[BEGIN], error) || !check_schema(store, error) || !check_pages(store, error))
		return false;
	for (int i = 0; i < STATEMENTS; i++)
		if (sqlite3_prepare_v3(store->db, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &store->statements[i], NULL) != SQLITE_OK)
			return set_sqlite_error(error, store, "open");
	return hmc_store_commit(store, error);
}

struct hmc_store *hmc_store_open(const char *path, GError **error)
{
	struct hmc_store *store = g_new0(struct hmc_store, 1);

	store->changed = g_ptr_array_new();
	if (!path)
		return store;
	store->path = real_path(path, error);
	if (!store->path || !prepare_file(store->path, error) || !open_database(store, error)) {
		hmc_store_close(store);
		return NULL;
	}
	return store;
}

void hmc_store_close(struct hmc_store *store)
{
	for (int i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(store->statements[i]);
	/* This ends the transaction and, with the last connection, removes the log. */
	sqlite3_close(store->db);
	g_ptr_array_unref(store->changed);
	g_free(store->path);
	g_free(store);
}

/*
 * Sessions
 */

static bool insert_link(struct hmc_state *state, const char *name, GError **error)
{
	sqlite3_stmt *insert = state->store->statements[INSERT_LINK];
	char session[17];
	bool ok;

	g_snprintf(session, sizeof(session), "%016" PRIx64, state->session);
	sqlite3_bind_text(insert, 1, name, -1, SQLITE_TRANSIENT);
	sqlite3_bind_text(insert, 2, session, -1, SQLITE_TRANSIENT);
	ok = step(state->store, INSERT_LINK, error);
	state->row = sqlite3_last_insert_rowid(state->store->db);
	state->store->dirty = true;
	return ok;
}

/* Damage is never repaired by guessing: the sequences decide what the partition gets once, twice or never. */
static bool set_damaged(GError **error, const struct hmc_state *state, const char *name, const char *what)
{
	return set_unusable(error, state->store, "damaged state file: link %s: %s", name, what);
}

static bool load_messages(struct hmc_state *state, const char *name, GError **error)
{
	sqlite3_stmt *select = state->store->statements[SELECT_MESSAGES];
	int64_t next = state->progress.acknowledged + 1;
	bool ok = true;
	int result;

	sqlite3_bind_int64(select, 1, state->row);
	while (ok && (result = sqlite3_step(select)) == SQLITE_ROW) {
		int len = sqlite3_column_bytes(select, 1);

		if (sqlite3_column_int64(select, 0) != next || sqlite3_column_type(select, 1) != SQLITE_BLOB ||
		    len < 1 || len > HVPIPE_LINK_MAX_PAYLOAD) {
			ok = set_damaged(error, state, name, "its messages do not fit to its sequences");
			break;
		}
		g_queue_push_tail(&state->pending, g_bytes_new(sqlite3_column_blob(select, 1), len));
		next++;
	}
	if (ok && result != SQLITE_DONE)
		ok = set_sqlite_error(error, state->store, "read");
	if (ok && next != (int64_t)state->progress.queued + 1)
		ok = set_damaged(error, state, name, "messages are missing");
	sqlite3_reset(select);
	return ok;
}

static bool read_hex(sqlite3_stmt *select, int column, uint64_t *number)
{
	const char *text = (const char *)sqlite3_column_text(select, column);
	guint64 value = 0;
	bool ok = text && strlen(text) == 16 && g_ascii_string_to_unsigned(text, 16, 0, G_MAXUINT64, &value, NULL);

	*number = value;
	return ok;
}

static bool load_files(struct hmc_state *state, const char *name, GError **error)
{
	sqlite3_stmt *select = state->store->statements[SELECT_FILES];
	bool ok = true;
	int result;

	sqlite3_bind_int64(select, 1, state->row);
	while (ok && (result = sqlite3_step(select)) == SQLITE_ROW) {
		int64_t number = sqlite3_column_int64(select, 0);
		const char *sha256 = (const char *)sqlite3_column_text(select, 2);
		struct hmc_stored_file *file = g_new(struct hmc_stored_file, 1);

		g_queue_push_tail(&state->files, file);
		if (number <= (int64_t)state->progress.files || !read_hex(select, 1, &file->id) || !sha256 ||
		    strspn(sha256, "0123456789abcdef") != sizeof(file->sha256) - 1 ||
		    g_strlcpy(file->sha256, sha256, sizeof(file->sha256)) >= sizeof(file->sha256)) {
			ok = set_damaged(error, state, name, "a stored file has impossible values");
			break;
		}
		state->progress.files = number;
	}
	if (ok && result != SQLITE_DONE)
		ok = set_sqlite_error(error, state->store, "read");
	sqlite3_reset(select);
	return ok;
}

bool hmc_store_load(struct hmc_state *state, const char *name, GError **error)
{
	sqlite3_stmt *select = state->store->statements[SELECT_LINK];
	int64_t number[4];
	uint64_t session, epoch;
	int result;
	bool good;

	sqlite3_bind_text(select, 1, name, -1, SQLITE_TRANSIENT);
	result = sqlite3_step(select);
	if (result != SQLITE_ROW) {
		sqlite3_reset(select);
		return result == SQLITE_DONE ? insert_link(state, name, error) :
					       set_sqlite_error(error, state->store, "read");
	}
	state->row = sqlite3_column_int64(select, 0);
	good = read_hex(select, 1, &session) && session && read_hex(select, 2, &epoch);
	for (int i = 0; i < 4; i++)
		number[i] = sqlite3_column_int64(select, 3 + i);
	sqlite3_reset(select);
	if (!good)
		return set_damaged(error, state, name, "its session or epoch is not 16 hexadecimal digits");
	if (number[0] < 0 || number[0] > UINT32_MAX || number[1] < 0 || number[2] < 0 || number[3] < number[2])
		return set_damaged(error, state, name, "impossible numbers");
	state->session = session;
	state->progress = (struct progress){ number[0], epoch, number[1], number[2], number[3], 0 };
	if (!load_messages(state, name, error) || !load_files(state, name, error))
		return false;
	state->written = state->progress;
	return true;
}

static bool write_files(struct hmc_state *state, GError **error)
{
	struct hmc_store *store = state->store;
	uint64_t number = state->progress.files;
	sqlite3_stmt *statement;
	char id[17];

	if (state->written.files == number)
		return true;
	/* New ones are at the end. */
	for (const GList *l = state->files.tail; l && number > state->written.files; l = l->prev, number--) {
		const struct hmc_stored_file *file = l->data;

		g_snprintf(id, sizeof(id), "%016" PRIx64, file->id);
		statement = store->statements[INSERT_FILE];
		sqlite3_bind_int64(statement, 1, state->row);
		sqlite3_bind_int64(statement, 2, number);
		sqlite3_bind_text(statement, 3, id, -1, SQLITE_STATIC);
		sqlite3_bind_text(statement, 4, file->sha256, -1, SQLITE_STATIC);
		if (!step(store, INSERT_FILE, error))
			return false;
	}
	statement = store->statements[DELETE_FILES];
	sqlite3_bind_int64(statement, 1, state->row);
	sqlite3_bind_int64(statement, 2, (int64_t)state->progress.files - HMC_STATE_FILES);
	return step(store, DELETE_FILES, error);
}

/* Write what has changed since the last time to the open transaction. */
static bool write_state(struct hmc_state *state, GError **error)
{
	struct hmc_store *store = state->store;
	const struct progress *now = &state->progress;
	char epoch[17];
	uint64_t sequence = now->queued;
	sqlite3_stmt *statement;

	if (state->written.acknowledged < now->acknowledged && state->written.acknowledged < state->written.queued) {
		statement = store->statements[DELETE_MESSAGES];
		sqlite3_bind_int64(statement, 1, state->row);
		sqlite3_bind_int64(statement, 2, now->acknowledged);
		if (!step(store, DELETE_MESSAGES, error))
			return false;
	}
	/* New messages are at the end of the pending ones. */
	for (const GList *l = state->pending.tail; l && sequence > state->written.queued; l = l->prev, sequence--) {
		gsize len;
		const void *data = g_bytes_get_data(l->data, &len);

		statement = store->statements[INSERT_MESSAGE];
		sqlite3_bind_int64(statement, 1, state->row);
		sqlite3_bind_int64(statement, 2, sequence);
		sqlite3_bind_blob(statement, 3, data, len, SQLITE_STATIC);
		if (!step(store, INSERT_MESSAGE, error))
			return false;
	}
	statement = store->statements[UPDATE_LINK];
	sqlite3_bind_int64(statement, 1, state->row);
	sqlite3_bind_int64(statement, 2, now->source);
	sqlite3_bind_int64(statement, 3, now->taken);
	sqlite3_bind_int64(statement, 4, now->acknowledged);
	sqlite3_bind_int64(statement, 5, now->queued);
	g_snprintf(epoch, sizeof(epoch), "%016" PRIx64, now->epoch);
	sqlite3_bind_text(statement, 6, epoch, -1, SQLITE_STATIC);
	if (!step(store, UPDATE_LINK, error) || !write_files(state, error))
		return false;
	state->written = *now;
	return true;
}

bool hmc_store_commit(struct hmc_store *store, GError **error)
{
	bool ok = true;

	if (store->broken)
		return set_error(error, G_IO_ERROR_FAILED,
				 "%s: an earlier write failed; see to the file system and start again", store->path);
	if (!store->changed->len && !store->dirty)
		return true;
	for (unsigned int i = 0; ok && i < store->changed->len; i++)
		ok = write_state(store->changed->pdata[i], error);
	ok = ok && step(store, COMMIT, error) && step(store, BEGIN, error);
	for (unsigned int i = 0; i < store->changed->len; i++)
		((struct hmc_state *)store->changed->pdata[i])->changed = false;
	g_ptr_array_set_size(store->changed, 0);
	store->dirty = false;
	store->broken = !ok;
	return ok;
}
