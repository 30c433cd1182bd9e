// SPDX-License-Identifier: GPL-2.0-or-later
/* The state of an HMC's session, in memory and in its file. The format of the file is in state.h. */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "spapr_hvpipe_link.h"

#define HEADER_SIZE 40
#define RECORD_SIZE 40
#define RECORD_MAX  (RECORD_SIZE + HVPIPE_LINK_MAX_PAYLOAD)

/* The file is written anew when it has grown beyond this, and beyond four times what it must hold. */
#define COMPACT_SIZE (1024 * 1024)

static const char header_magic[16] = "hvpipe-hmc 1\n";
static const char record_magic[4] = { 'H', 'M', 'C', 'r' };

/* What one record says. */
struct progress {
	uint32_t source;
	uint64_t taken;
	uint64_t acknowledged;
	uint64_t queued;
};

struct hmc_state {
	uint64_t session;
	struct progress progress;
	GQueue pending;	       /* of GBytes: the messages acknowledged + 1 .. queued */
	uint64_t pending_size; /* of their records */

	char *path; /* NULL: memory only */
	int fd;
	uint64_t size; /* of the file, whole records only */
	uint64_t compact_at;
	uint64_t cut;
	bool dirty;  /* something was appended since the last sync */
	bool broken; /* an append failed and could not be taken back */
};

static bool fail_errno(GError **error, const char *path, const char *what, int err)
{
	g_set_error(error, G_IO_ERROR, g_io_error_from_errno(err), "%s: %s: %s", path, what, g_strerror(err));
	return false;
}

/* Damage is never repaired by guessing: the sequences decide what the partition gets once, twice or never. */
static bool G_GNUC_PRINTF(3, 4) fail_damaged(GError **error, const char *path, const char *format, ...)
{
	char *what;
	va_list args;

	va_start(args, format);
	what = g_strdup_vprintf(format, args);
	va_end(args);
	g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
		    "%s: damaged state file: %s. Move the file away to begin a "
		    "new session; messages in it that wait for the partition are not sent then",
		    path, what);
	g_free(what);
	return false;
}

static void put_header(uint8_t *header, uint64_t session, uint64_t base)
{
	memset(header, 0, HEADER_SIZE);
	memcpy(header, header_magic, sizeof(header_magic));
	hvpipe_link_put64(header + 16, session);
	hvpipe_link_put64(header + 24, base);
	hvpipe_link_put32(header + 36, crc32(0, header, 36));
}

static void put_record(GByteArray *out, const struct progress *progress, GBytes *message)
{
	size_t len = message ? g_bytes_get_size(message) : 0;
	uint8_t record[RECORD_MAX];

	memcpy(record, record_magic, sizeof(record_magic));
	hvpipe_link_put16(record + 8, len);
	hvpipe_link_put16(record + 10, 0);
	hvpipe_link_put32(record + 12, progress->source);
	hvpipe_link_put64(record + 16, progress->taken);
	hvpipe_link_put64(record + 24, progress->acknowledged);
	hvpipe_link_put64(record + 32, progress->queued);
	if (len)
		memcpy(record + RECORD_SIZE, g_bytes_get_data(message, NULL), len);
	hvpipe_link_put32(record + 4, crc32(0, record + 8, RECORD_SIZE - 8 + len));
	g_byte_array_append(out, record, RECORD_SIZE + len);
}

/* The size of the whole record at @p, or 0 when there is none. */
static size_t whole_record(const uint8_t *p, size_t left)
{
	size_t len;

	if (left < RECORD_SIZE || memcmp(p, record_magic, sizeof(record_magic)))
		return 0;
	len = hvpipe_link_get16(p + 8);
	if (len > HVPIPE_LINK_MAX_PAYLOAD || len > left - RECORD_SIZE ||
	    hvpipe_link_get32(p + 4) != crc32(0, p + 8, RECORD_SIZE - 8 + len))
		return 0;
	return RECORD_SIZE + len;
}

static bool pwrite_all(int fd, const uint8_t *data, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t n = pwrite(fd, data, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		data += n;
		len -= n;
		offset += n;
	}
	return true;
}

/* Forget the pending messages up to the sequence; progress->acknowledged is still the old one. */
static void drop_pending(struct hmc_state *state, uint64_t sequence)
{
	for (uint64_t n = sequence - state->progress.acknowledged; n > 0; n--) {
		GBytes *message = g_queue_pop_head(&state->pending);

		state->pending_size -= RECORD_SIZE + g_bytes_get_size(message);
		g_bytes_unref(message);
	}
}

/* Make memory what the record says; @message, if any, was queued by it. */
static void apply(struct hmc_state *state, const struct progress *progress, GBytes *message)
{
	if (message) {
		g_queue_push_tail(&state->pending, g_bytes_ref(message));
		state->pending_size += RECORD_SIZE + g_bytes_get_size(message);
	}
	drop_pending(state, progress->acknowledged);
	state->progress = *progress;
}

/*
 * Open and lock the file. Between the two somebody may have renamed another one over it: then the lock is on a file
 * without a name, and the open has to be done again.
 */
static int open_locked(const char *path, int flags, GError **error)
{
	for (;;) {
		struct stat ours, now;
		int fd = open(path, flags | O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);

		if (fd < 0) {
			fail_errno(error, path, "open", errno);
			return -1;
		}
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			if (errno == EWOULDBLOCK)
				g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
					    "%s: in use by another hvpipe-hmc; "
					    "end that one, or use a state file of your own",
					    path);
			else
				fail_errno(error, path, "lock", errno);
			close(fd);
			return -1;
		}
		if (fstat(fd, &ours)) {
			fail_errno(error, path, "stat", errno);
			close(fd);
			return -1;
		}
		if (!S_ISREG(ours.st_mode)) {
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_REGULAR_FILE,
				    "%s: not a regular file, and a state file must be one", path);
			close(fd);
			return -1;
		}
		if (!stat(path, &now) && now.st_dev == ours.st_dev && now.st_ino == ours.st_ino)
			return fd;
		close(fd);
	}
}

static bool sync_directory(const char *path, GError **error)
{
	char *dir = g_path_get_dirname(path);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && !fsync(fd);

	if (!ok)
		fail_errno(error, dir, "sync", errno);
	if (fd >= 0)
		close(fd);
	g_free(dir);
	return ok;
}

/*
 * Make the new file and lock it. What stands under its name is never written to: it may be a link that somebody
 * planted, or have another mode. Left over by an earlier process it is removed, unless its lock shows that the process
 * still lives.
 */
static int make_new(const char *path, GError **error)
{
	int old = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	bool in_use;

	if (old < 0 && errno != ENOENT) {
		g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
			    "%s: %s; it is in the way of the new state file, "
			    "remove it",
			    path, errno == ELOOP ? "a symbolic link" : g_strerror(errno));
		return -1;
	}
	if (old >= 0) {
		in_use = flock(old, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
		if (!in_use)
			unlink(path);
		close(old);
		if (in_use) {
			g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
				    "%s: in use by another hvpipe-hmc; "
				    "end that one, or use a state file of your own",
				    path);
			return -1;
		}
	}
	return open_locked(path, O_CREAT | O_EXCL | O_NOFOLLOW, error);
}

/* Write the whole state to a new file and rename it over the old one, if any. On failure the old one stays. */
static bool write_anew(struct hmc_state *state, GError **error)
{
	struct progress progress = state->progress;
	char *path = g_strconcat(state->path, ".new", NULL);
	GByteArray *out = g_byte_array_new();
	uint8_t header[HEADER_SIZE] = { 0 };
	bool ok = false;
	int fd;

	fd = make_new(path, error);
	if (fd < 0)
		goto out;

	/* Without a file, and so without its lock, another process may just have made it from the same .new file. */
	if (state->fd < 0 && !access(state->path, F_OK)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%s: made by another process just now; try again",
			    state->path);
		unlink(path);
		close(fd);
		goto out;
	}

	g_byte_array_append(out, header, sizeof(header));
	progress.queued = progress.acknowledged;
	put_record(out, &progress, NULL);
	for (const GList *l = state->pending.head; l; l = l->next) {
		progress.queued++;
		put_record(out, &progress, l->data);
	}
	put_header(out->data, state->session, out->len);

	if (!pwrite_all(fd, out->data, out->len, 0) || fsync(fd) || rename(path, state->path)) {
		fail_errno(error, path, "write", errno);
		unlink(path);
		close(fd);
		goto out;
	}
	if (state->fd >= 0)
		close(state->fd);
	state->fd = fd;
	state->size = out->len;
	state->dirty = false;
	state->broken = false;
	ok = sync_directory(state->path, error);
out:
	g_byte_array_unref(out);
	g_free(path);
	return ok;
}

/* Check one whole record against what came before it, and apply it. */
static bool load_record(struct hmc_state *state, const uint8_t *p, uint64_t offset, bool first, GError **error)
{
	const struct progress *before = &state->progress;
	size_t len = hvpipe_link_get16(p + 8);
	struct progress progress = {
		.source = hvpipe_link_get32(p + 12),
		.taken = hvpipe_link_get64(p + 16),
		.acknowledged = hvpipe_link_get64(p + 24),
		.queued = hvpipe_link_get64(p + 32),
	};
	GBytes *message;

	if (progress.taken > INT64_MAX || progress.queued > INT64_MAX)
		return fail_damaged(error, state->path, "sequence beyond 2^63 at byte %" PRIu64, offset);
	if (first) {
		if (len || progress.acknowledged != progress.queued)
			return fail_damaged(error, state->path, "the first record has a message");
		state->progress = progress;
		return true;
	}
	if ((before->source && progress.source != before->source) || progress.taken < before->taken ||
	    progress.acknowledged < before->acknowledged || progress.queued != before->queued + (len > 0) ||
	    progress.acknowledged > progress.queued)
		return fail_damaged(error, state->path,
				    "the record at byte %" PRIu64 " does not follow from the one before", offset);
	message = len ? g_bytes_new(p + RECORD_SIZE, len) : NULL;
	apply(state, &progress, message);
	g_clear_pointer(&message, g_bytes_unref);
	return true;
}

static bool parse(struct hmc_state *state, const uint8_t *data, size_t size, GError **error)
{
	uint64_t base, offset = HEADER_SIZE;
	size_t len;

	if (size < sizeof(header_magic) || memcmp(data, header_magic, sizeof(header_magic))) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
			    "%s: not a state file of hvpipe-hmc (%zu bytes that do "
			    "not begin with \"hvpipe-hmc 1\"); give --state a name that does not exist yet to begin a "
			    "new one",
			    state->path, size);
		return false;
	}
	if (size < HEADER_SIZE)
		return fail_damaged(error, state->path, "cut off after %zu bytes, within the header", size);
	if (hvpipe_link_get32(data + 36) != crc32(0, data, 36))
		return fail_damaged(error, state->path, "wrong CRC of the header");
	state->session = hvpipe_link_get64(data + 16);
	base = hvpipe_link_get64(data + 24);
	if (!state->session || base < HEADER_SIZE + RECORD_SIZE)
		return fail_damaged(error, state->path, "impossible header");
	if (size < base)
		return fail_damaged(error, state->path, "cut off after %zu of at least %" PRIu64 " bytes", size, base);

	while ((len = whole_record(data + offset, size - offset))) {
		if (!load_record(state, data + offset, offset, offset == HEADER_SIZE, error))
			return false;
		offset += len;
	}
	if (offset < base)
		return fail_damaged(error, state->path, "no whole record at byte %" PRIu64, offset);

	/* What is left is an append that did not finish only if it is no longer than one, and nothing whole follows. */
	if (size - offset > RECORD_MAX)
		return fail_damaged(error, state->path, "no whole record at byte %" PRIu64 " of %zu", offset, size);
	for (uint64_t o = offset + 1; o < size; o++)
		if (whole_record(data + o, size - o))
			return fail_damaged(error, state->path,
					    "no whole record at byte %" PRIu64 ", but one behind it", offset);
	state->size = offset;
	state->cut = size - offset;
	return true;
}

static bool load(struct hmc_state *state, GError **error)
{
	GByteArray *data = g_byte_array_new();
	uint8_t chunk[65536];
	bool ok = false;
	ssize_t n;

	do {
		n = pread(state->fd, chunk, sizeof(chunk), data->len);
		if (n < 0 && errno != EINTR) {
			fail_errno(error, state->path, "read", errno);
			goto out;
		}
		if (n > 0)
			g_byte_array_append(data, chunk, n);
	} while (n);

	ok = parse(state, data->data, data->len, error);
	if (ok && state->cut && ftruncate(state->fd, state->size))
		ok = fail_errno(error, state->path, "truncate", errno);
	/* What an earlier process appended may not be on stable storage yet. */
	state->dirty = true;
out:
	g_byte_array_unref(data);
	return ok;
}

struct hmc_state *hmc_state_open(const char *path, GError **error)
{
	struct hmc_state *state = g_new0(struct hmc_state, 1);
	GError *why = NULL;
	char *real;

	state->fd = -1;
	state->compact_at = COMPACT_SIZE;
	g_queue_init(&state->pending);
	while (!state->session) {
		if (getrandom(&state->session, sizeof(state->session), 0) != sizeof(state->session) && errno != EINTR)
			g_error("getrandom: %s", g_strerror(errno));
	}
	if (!path)
		return state;

	/* A file that is renamed over a symbolic link would replace the link. */
	real = realpath(path, NULL);
	state->path = g_strdup(real ? real : path);
	free(real);

	state->fd = open_locked(state->path, 0, &why);
	if (state->fd >= 0) {
		if (!load(state, error))
			goto fail;
	} else if (g_error_matches(why, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
		g_clear_error(&why);
		if (!write_anew(state, error))
			goto fail;
	} else {
		g_propagate_error(error, why);
		goto fail;
	}
	return state;

fail:
	hmc_state_close(state);
	return NULL;
}

void hmc_state_close(struct hmc_state *state)
{
	if (state->fd >= 0)
		close(state->fd);
	g_queue_clear_full(&state->pending, (GDestroyNotify)g_bytes_unref);
	g_free(state->path);
	g_free(state);
}

const char *hmc_state_path(const struct hmc_state *state)
{
	return state->path;
}

uint64_t hmc_state_cut(const struct hmc_state *state)
{
	return state->cut;
}

uint64_t hmc_state_session(const struct hmc_state *state)
{
	return state->session;
}

uint32_t hmc_state_source(const struct hmc_state *state)
{
	return state->progress.source;
}

uint64_t hmc_state_taken(const struct hmc_state *state)
{
	return state->progress.taken;
}

uint64_t hmc_state_acknowledged(const struct hmc_state *state)
{
	return state->progress.acknowledged;
}

uint64_t hmc_state_queued(const struct hmc_state *state)
{
	return state->progress.queued;
}

const GQueue *hmc_state_pending(const struct hmc_state *state)
{
	return &state->pending;
}

/* Append one record, then apply it: the file is never behind memory. */
static bool append_and_apply(struct hmc_state *state, const struct progress *progress, GBytes *message, GError **error)
{
	GByteArray *out;
	bool ok;

	if (!state->path) {
		apply(state, progress, message);
		return true;
	}
	if (state->broken) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
			    "%s: an earlier write failed and could not be taken back; "
			    "see to the file system and start again",
			    state->path);
		return false;
	}

	out = g_byte_array_new();
	put_record(out, progress, message);
	ok = pwrite_all(state->fd, out->data, out->len, state->size);
	if (ok) {
		state->size += out->len;
		state->dirty = true;
		apply(state, progress, message);
	} else {
		fail_errno(error, state->path, "write", errno);
		state->broken = ftruncate(state->fd, state->size) != 0;
	}
	g_byte_array_unref(out);

	/* Failing to make the file smaller loses nothing; it is tried again when the file has doubled. */
	if (ok && state->size > state->compact_at && state->size / 4 > state->pending_size) {
		write_anew(state, NULL);
		state->compact_at = MAX(COMPACT_SIZE, 2 * state->size);
	}
	return ok;
}

bool hmc_state_bind(struct hmc_state *state, uint32_t source, GError **error)
{
	struct progress progress = state->progress;

	if (progress.source == source)
		return true;
	g_assert(!progress.source);
	progress.source = source;
	return append_and_apply(state, &progress, NULL, error);
}

bool hmc_state_queue(struct hmc_state *state, GBytes *message, GError **error)
{
	struct progress progress = state->progress;

	g_assert(g_bytes_get_size(message) >= 1 && g_bytes_get_size(message) <= HVPIPE_LINK_MAX_PAYLOAD);
	progress.queued++;
	return append_and_apply(state, &progress, message, error);
}

bool hmc_state_take(struct hmc_state *state, GBytes *reply, GError **error)
{
	struct progress progress = state->progress;

	g_assert(!reply || (g_bytes_get_size(reply) >= 1 && g_bytes_get_size(reply) <= HVPIPE_LINK_MAX_PAYLOAD));
	progress.taken++;
	if (reply)
		progress.queued++;
	return append_and_apply(state, &progress, reply, error);
}

bool hmc_state_acknowledge(struct hmc_state *state, uint64_t sequence, GError **error)
{
	struct progress progress = state->progress;

	g_assert(sequence >= progress.acknowledged && sequence <= progress.queued);
	if (sequence == progress.acknowledged)
		return true;
	progress.acknowledged = sequence;
	return append_and_apply(state, &progress, NULL, error);
}

bool hmc_state_sync(struct hmc_state *state, GError **error)
{
	if (!state->dirty || !state->path)
		return true;
	if (fdatasync(state->fd))
		return fail_errno(error, state->path, "sync", errno);
	state->dirty = false;
	return true;
}
