// SPDX-License-Identifier: GPL-2.0-or-later
/* File messages; docs/file-messages.md has their format. */
#include "file-message.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

#define ID_LEN 16

static const char *const refusal_words[] = { "malformed", "name", "gap", "storage", "unwanted" };

static int fail(struct file_message_error *error, int err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(struct file_message_error *error, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error->text, sizeof(error->text), format, args);
	va_end(args);
	errno = err;
	return -1;
}

static int check_name(const char *name, size_t len, struct file_message_error *error)
{
	if (len == 0)
		return fail(error, EILSEQ, "file message without a name");
	if (len > FILE_MESSAGE_NAME_MAX)
		return fail(error, EILSEQ, "file name of %zu bytes: at most %d can be sent", len,
			    FILE_MESSAGE_NAME_MAX);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = name[i];

		/* U+0080 to U+009F are 0xc2 and one more byte in UTF-8. */
		if (c < ' ' || c == 0x7f || (c == 0xc2 && i + 1 < len && (unsigned char)name[i + 1] < 0xa0))
			return fail(error, EILSEQ, "control character 0x%02x at byte %zu of a file name", c, i);
	}
	if (memchr(name, '/', len))
		return fail(error, EILSEQ, "'/' in file name '%.*s'", (int)len, name);
	if (name[0] == '.')
		return fail(error, EILSEQ, "file name '%.*s' begins with a dot", (int)len, name);
	return 0;
}

/* Digits and a space: no sign, no leading zero, INT64_MAX at most, so that each number has one spelling. */
static int take_number(const char **pos, const char *end, const char *what, uint64_t *number,
		       struct file_message_error *error)
{
	const char *start = *pos, *p = start;
	uint64_t n = 0;

	for (; p < end && *p >= '0' && *p <= '9'; p++) {
		if (n > (uint64_t)(INT64_MAX - (*p - '0')) / 10)
			return fail(error, EBADMSG, "%s of a file message beyond %" PRId64, what, INT64_MAX);
		n = n * 10 + (*p - '0');
	}
	if (p == start || p == end || *p != ' ' || (*start == '0' && p - start > 1))
		return fail(error, EBADMSG, "%s of a file message is not a decimal number and a space", what);

	*number = n;
	*pos = p + 1;
	return 0;
}

/* The ID of a file, 16 hexadecimal digits in lower case, and the character behind it. */
static bool parse_id(const char **pos, const char *end, char behind, uint64_t *id)
{
	uint64_t n = 0;

	if (end - *pos < ID_LEN + 1 || (*pos)[ID_LEN] != behind)
		return false;
	for (int i = 0; i < ID_LEN; i++) {
		char c = (*pos)[i];

		if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f'))
			return false;
		n = n << 4 | (c <= '9' ? c - '0' : c - 'a' + 10);
	}
	*id = n;
	*pos += ID_LEN + 1;
	return true;
}

int file_message_parse(struct file_message *msg, const void *message, size_t len, struct file_message_error *error)
{
	static const char magic[] = "FILE ";
	const char *p = message;
	const char *end;

	memset(msg, 0, sizeof(*msg));
	if (len > FILE_MESSAGE_MAX)
		return fail(error, EBADMSG, "message of %zu bytes: at most %d are possible", len, FILE_MESSAGE_MAX);
	end = len ? memchr(p, '\n', len) : NULL;
	if (len < sizeof(magic) - 1 || memcmp(p, magic, sizeof(magic) - 1))
		return fail(error, EBADMSG, "not a file message: it does not begin with 'FILE '");
	if (!end)
		return fail(error, EBADMSG, "file message whose first line has no end");

	p += sizeof(magic) - 1;
	if (!parse_id(&p, end, ' ', &msg->id))
		return fail(error, EBADMSG, "ID of a file message is not 16 hexadecimal digits and a space");
	msg->answerable = true;
	if (take_number(&p, end, "size", &msg->size, error) || take_number(&p, end, "offset", &msg->offset, error) ||
	    check_name(p, end - p, error))
		return -1;
	memcpy(msg->name, p, end - p);
	msg->name[end - p] = '\0';
	msg->data = end + 1;
	msg->len = len - (end + 1 - (const char *)message);

	if (msg->offset > msg->size || msg->len > msg->size - msg->offset)
		return fail(error, EBADMSG, "%s: %zu bytes at offset %" PRIu64 " go beyond the file's size of %" PRIu64,
			    msg->name, msg->len, msg->offset, msg->size);
	if (msg->len == 0 && msg->size > 0)
		return fail(error, EBADMSG, "%s: no bytes at offset %" PRIu64 " of %" PRIu64, msg->name, msg->offset,
			    msg->size);
	return 0;
}

ssize_t file_message_format(char *line, uint64_t id, uint64_t size, uint64_t offset, const char *name,
			    struct file_message_error *error)
{
	if (check_name(name, strlen(name), error))
		return -1;
	return snprintf(line, FILE_MESSAGE_MAX, "FILE %016" PRIx64 " %" PRIu64 " %" PRIu64 " %s\n", id, size, offset,
			name);
}

/* True if nothing has to be escaped in the text. */
static bool is_plain(const char *text, size_t len)
{
	char *escaped = escape_text(text, len, ESCAPE_LINE);
	bool plain = escaped && strlen(escaped) == len && !memcmp(escaped, text, len);

	free(escaped);
	return plain;
}

bool file_answer_parse(struct file_answer *answer, const void *message, size_t len)
{
	static const char stored[] = "STORED ", refused[] = "REFUSED ";
	const size_t digits = SHA256_DIGEST_STRING_LENGTH - 1;
	const char *p = message, *end = p + len;

	memset(answer, 0, sizeof(*answer));
	if (len < sizeof(refused) || len > FILE_ANSWER_MAX || end[-1] != '\n')
		return false;
	if (!memcmp(p, stored, sizeof(stored) - 1)) {
		p += sizeof(stored) - 1;
		answer->stored = true;
		if (!parse_id(&p, end, ' ', &answer->id) || (size_t)(end - p) != digits + 1 ||
		    strspn(p, "0123456789abcdef") != digits)
			return false;
		memcpy(answer->sha256, p, digits);
		return true;
	}
	if (memcmp(p, refused, sizeof(refused) - 1))
		return false;
	p += sizeof(refused) - 1;
	if (!parse_id(&p, end, ' ', &answer->id))
		return false;
	for (int i = 0; i < FILE_REFUSALS; i++) {
		size_t word = strlen(refusal_words[i]);
		size_t text = end - p - word - 2;

		if ((size_t)(end - p) < word + 3 || memcmp(p, refusal_words[i], word) || p[word] != ' ')
			continue;
		p += word + 1;
		if (text > FILE_ANSWER_TEXT_MAX || !is_plain(p, text))
			return false;
		answer->refusal = i;
		memcpy(answer->text, p, text);
		return true;
	}
	return false;
}

size_t file_answer_format(const struct file_answer *answer, char message[static FILE_ANSWER_MAX])
{
	char *text;
	size_t len;

	if (answer->stored)
		return snprintf(message, FILE_ANSWER_MAX, "STORED %016" PRIx64 " %s\n", answer->id, answer->sha256);
	text = escape_text(answer->text, strlen(answer->text), ESCAPE_LINE);
	len = text ? strlen(text) : 0;
	/* No half character at the end. */
	for (len = len < FILE_ANSWER_TEXT_MAX ? len : FILE_ANSWER_TEXT_MAX; len && (text[len] & 0xc0) == 0x80;)
		len--;
	len = snprintf(message, FILE_ANSWER_MAX, "REFUSED %016" PRIx64 " %s %.*s\n", answer->id,
		       refusal_words[answer->refusal], len ? (int)len : 1, len ? text : "-");
	free(text);
	return len;
}

bool file_message_refuse(const void *message, size_t len, const char *why, char answer[static FILE_ANSWER_MAX],
			 size_t *answer_len)
{
	struct file_answer refused = { .refusal = FILE_REFUSAL_UNWANTED };
	struct file_message_error error = { "" };
	struct file_message msg;
	bool good = !file_message_parse(&msg, message, len, &error);

	*answer_len = 0;
	if (!msg.answerable)
		return false;
	if (msg.offset && !(good && msg.offset + msg.len == msg.size))
		return true;
	refused.id = msg.id;
	snprintf(refused.text, sizeof(refused.text), "%s", why);
	*answer_len = file_answer_format(&refused, answer);
	return true;
}

static void begin_try(struct file_sender *sender)
{
	sender->offset = 0;
	sender->done = false;
	sender->tries++;
	SHA256Init(&sender->hash);
}

int file_sender_open(struct file_sender *sender, const char *path, size_t message_size,
		     struct file_message_error *error)
{
	const char *name = strrchr(path, '/');
	char line[FILE_MESSAGE_MAX];
	struct stat st;
	int err;

	name = name ? name + 1 : path;
	if (check_name(name, strlen(name), error))
		return -1;

	/* O_NONBLOCK: refuse a FIFO, do not wait for its writer. */
	sender->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (sender->fd < 0)
		return fail(error, errno, "%s: %s", path, strerror(errno));
	if (fstat(sender->fd, &st))
		err = fail(error, errno, "%s: %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		err = fail(error, EINVAL, "%s: not a regular file, and a file message must name the size", path);
	else if (file_message_format(line, 0, st.st_size, st.st_size, name, error) >= (ssize_t)message_size)
		err = fail(error, EINVAL, "%s: messages of %zu bytes are too small for a file of this name", path,
			   message_size);
	else if (getrandom(&sender->id, sizeof(sender->id), 0) != sizeof(sender->id))
		err = fail(error, errno, "%s: no random number for its ID: %s", path, strerror(errno));
	else
		err = 0;
	if (err) {
		int saved = errno;

		close(sender->fd);
		errno = saved;
		return -1;
	}

	sender->message_size = message_size;
	sender->size = st.st_size;
	sender->tries = 0;
	strcpy(sender->name, name);
	begin_try(sender);
	return 0;
}

ssize_t file_sender_next(struct file_sender *sender, void *message, struct file_message_error *error)
{
	uint64_t left = sender->size - sender->offset;
	char *chunk = message;
	size_t len = 0, room;
	ssize_t line;

	if (sender->done)
		return 0;

	line = file_message_format(message, sender->id, sender->size, sender->offset, sender->name, error);
	if (line < 0)
		return -1;
	chunk += line;
	room = sender->message_size - line;
	if (room > left)
		room = left;
	while (len < room) {
		ssize_t n = pread(sender->fd, chunk + len, room - len, sender->offset + len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(error, errno, "%s: read: %s", sender->name, strerror(errno));
		if (n == 0)
			return fail(error, EIO,
				    "%s: became shorter while it was sent: %" PRIu64 " bytes before, %" PRIu64 " now",
				    sender->name, sender->size, sender->offset + len);
		len += n;
	}
	SHA256Update(&sender->hash, (const uint8_t *)chunk, len);
	sender->offset += len;
	sender->done = sender->offset == sender->size;
	if (sender->done)
		SHA256End(&sender->hash, sender->sha256);
	return line + len;
}

enum file_outcome file_sender_take(struct file_sender *sender, const void *message, size_t len,
				   struct file_message_error *error)
{
	struct file_answer answer;
	bool damaged;

	if (!file_answer_parse(&answer, message, len))
		return FILE_OUTCOME_NONE;
	/* Nothing can be stored before all of it was sent. */
	if (answer.id != sender->id || (answer.stored && !sender->done))
		return FILE_OUTCOME_OTHER;
	damaged = answer.stored && strcmp(answer.sha256, sender->sha256);
	if (answer.stored && !damaged)
		return FILE_OUTCOME_STORED;
	if ((damaged || answer.refusal == FILE_REFUSAL_GAP) && sender->tries < FILE_SENDER_TRIES) {
		begin_try(sender);
		return FILE_OUTCOME_AGAIN;
	}
	if (damaged)
		fail(error, EIO, "the other side has other contents: SHA-256 %s, and %s was sent", answer.sha256,
		     sender->sha256);
	else
		fail(error, EIO, "%s", answer.text);
	return FILE_OUTCOME_REFUSED;
}

void file_sender_close(struct file_sender *sender)
{
	close(sender->fd);
}

int file_receiver_open(struct file_receiver *receiver, const char *path, bool sync, struct file_message_error *error)
{
	memset(receiver, 0, sizeof(*receiver));
	for (int i = 0; i < FILE_RECEIVER_FILES; i++)
		receiver->parts[i].fd = -1;
	receiver->sync = sync;
	receiver->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (receiver->dir < 0)
		return fail(error, errno, "%s: %s", path, strerror(errno));
	return 0;
}

static void part_name(char name[static NAME_MAX + 1], uint64_t id)
{
	snprintf(name, NAME_MAX + 1, ".%016" PRIx64 ".part", id);
}

/* Remove an incomplete file. */
static void drop_part(struct file_receiver *receiver, struct file_receiver_part *part)
{
	char name[NAME_MAX + 1];

	part_name(name, part->id);
	unlinkat(receiver->dir, name, 0);
	close(part->fd);
	part->fd = -1;
}

static struct file_receiver_part *find_part(struct file_receiver *receiver, uint64_t id)
{
	for (int i = 0; i < FILE_RECEIVER_FILES; i++)
		if (receiver->parts[i].fd >= 0 && receiver->parts[i].id == id)
			return &receiver->parts[i];
	return NULL;
}

/* A place for another incomplete file. The one that has waited longest makes room. */
static struct file_receiver_part *make_room(struct file_receiver *receiver, struct file_message_error *error)
{
	struct file_receiver_part *oldest = &receiver->parts[0];

	for (int i = 0; i < FILE_RECEIVER_FILES; i++) {
		struct file_receiver_part *part = &receiver->parts[i];

		if (part->fd < 0)
			return part;
		if (part->used < oldest->used)
			oldest = part;
	}
	fail(error, 0, "%s: incomplete, removed: %" PRIu64 " of %" PRIu64 " bytes had come", oldest->name,
	     oldest->offset, oldest->size);
	drop_part(receiver, oldest);
	return oldest;
}

/* The SHA-256 of a file that was stored under this ID, or NULL. */
static const char *find_stored(const struct file_receiver *receiver, uint64_t id)
{
	for (size_t i = 0; i < FILE_RECEIVER_KNOWN && i < receiver->nr_stored; i++)
		if (receiver->stored[i].id == id)
			return receiver->stored[i].sha256;
	return NULL;
}

void file_receiver_remember(struct file_receiver *receiver, uint64_t id, const char *sha256)
{
	size_t place = receiver->nr_stored++ % FILE_RECEIVER_KNOWN;

	receiver->stored[place].id = id;
	snprintf(receiver->stored[place].sha256, sizeof(receiver->stored[place].sha256), "%s", sha256);
}

static struct file_receiver_refused *find_refused(struct file_receiver *receiver, uint64_t id)
{
	for (int i = 0; i < FILE_RECEIVER_FILES; i++)
		if (receiver->refused[i].used && receiver->refused[i].id == id)
			return &receiver->refused[i];
	return NULL;
}

static void answer_stored(struct file_receiver *receiver, const char *sha256)
{
	struct file_answer answer = { .id = receiver->id, .stored = true };

	strcpy(answer.sha256, sha256);
	if (receiver->sha256 != sha256)
		strcpy(receiver->sha256, sha256);
	receiver->answer_len = file_answer_format(&answer, receiver->answer);
}

/* The file is refused for the reason in @error: what came of it is removed, and what still comes is dropped. */
static enum file_receiver_result refuse(struct file_receiver *receiver, enum file_refusal refusal,
					struct file_message_error *error)
{
	struct file_receiver_part *part = find_part(receiver, receiver->id);
	struct file_answer answer = { .id = receiver->id, .refusal = refusal };

	if (part)
		drop_part(receiver, part);
	if (!find_refused(receiver, receiver->id))
		receiver->refused[receiver->nr_refused++ % FILE_RECEIVER_FILES] =
			(struct file_receiver_refused){ .used = true, .id = receiver->id };
	snprintf(answer.text, sizeof(answer.text), "%.*s", FILE_ANSWER_TEXT_MAX, error->text);
	receiver->answer_len = file_answer_format(&answer, receiver->answer);
	return FILE_RECEIVER_REFUSED;
}

/* True if the error is due to the file's name: another file may well be stored. */
static bool is_of_name(int err)
{
	return err == EEXIST || err == EISDIR || err == ENOTEMPTY || err == ELOOP || err == ENAMETOOLONG ||
	       err == EILSEQ || err == EINVAL;
}

/*
 * Open the incomplete file of this ID and lock it against other receivers. One of them may rename it between our open
 * and our lock. Then the locked file is no longer the incomplete one: try again.
 */
static int open_part(struct file_receiver *receiver, uint64_t id, bool create, struct file_message_error *error)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (create ? O_CREAT : 0);
	char name[NAME_MAX + 1];

	part_name(name, id);
	for (;;) {
		struct stat ours, now;
		int fd, err = 0;

		fd = openat(receiver->dir, name, flags, 0666);
		if (fd < 0)
			return fail(error, errno, "%s: %s", name, strerror(errno));
		if (flock(fd, LOCK_EX | LOCK_NB))
			err = errno == EWOULDBLOCK ? EBUSY : errno;
		else if (fstat(fd, &ours))
			err = errno;
		else if (!S_ISREG(ours.st_mode))
			err = EEXIST;
		if (err) {
			close(fd);
			return fail(error, err, "%s: %s", name,
				    err == EBUSY  ? "another process receives this file here" :
				    err == EEXIST ? "not a regular file" :
						    strerror(err));
		}
		if (!fstatat(receiver->dir, name, &now, AT_SYMLINK_NOFOLLOW) && now.st_dev == ours.st_dev &&
		    now.st_ino == ours.st_ino)
			return fd;
		close(fd);
	}
}

/* Hash the first bytes of a file. */
static int hash_file(int fd, uint64_t len, SHA2_CTX *hash)
{
	uint8_t data[16384];

	SHA256Init(hash);
	for (uint64_t done = 0; done < len;) {
		size_t room = len - done < sizeof(data) ? len - done : sizeof(data);
		ssize_t n = pread(fd, data, room, done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		SHA256Update(hash, data, n);
		done += n;
	}
	return 0;
}

/* True if an earlier process completed the file with this last chunk and ended before it acknowledged it. */
static bool completed_before(struct file_receiver *receiver, const struct file_message *msg)
{
	char data[FILE_MESSAGE_MAX];
	struct stat st;
	SHA2_CTX hash;
	bool same;
	int fd;

	if (msg->offset + msg->len != msg->size)
		return false;
	fd = openat(receiver->dir, msg->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return false;
	same = !fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == msg->size &&
	       pread(fd, data, msg->len, msg->offset) == (ssize_t)msg->len && !memcmp(data, msg->data, msg->len) &&
	       !hash_file(fd, msg->size, &hash);
	close(fd);
	if (same)
		SHA256End(&hash, receiver->sha256);
	return same;
}

/* The file is complete, and receiver->sha256 is its digest. */
static enum file_receiver_result finish(struct file_receiver *receiver)
{
	file_receiver_remember(receiver, receiver->id, receiver->sha256);
	answer_stored(receiver, receiver->sha256);
	return FILE_RECEIVER_COMPLETE;
}

/* Open the incomplete file that this message begins or continues. */
static enum file_receiver_result begin(struct file_receiver *receiver, const struct file_message *msg,
				       struct file_message_error *error)
{
	struct file_receiver_part *part;
	struct stat st;
	int fd;

	if (!fstatat(receiver->dir, msg->name, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode)) {
		fail(error, 0, "%s: a directory has this name", msg->name);
		return refuse(receiver, FILE_REFUSAL_NAME, error);
	}
	fd = open_part(receiver, msg->id, msg->offset == 0, error);
	if (fd < 0 && errno == ENOENT && msg->offset > 0) {
		error->text[0] = '\0';
		if (completed_before(receiver, msg))
			return finish(receiver);
		fail(error, 0, "%s: offset %" PRIu64 " without the chunks before it", msg->name, msg->offset);
		return refuse(receiver, FILE_REFUSAL_GAP, error);
	}
	if (fd < 0)
		return refuse(receiver, FILE_REFUSAL_STORAGE, error);

	part = make_room(receiver, error);
	part->fd = fd;
	part->id = msg->id;
	part->size = msg->size;
	part->offset = part->last = msg->offset;
	strcpy(part->name, msg->name);
	if (fstat(fd, &st) || ((uint64_t)st.st_size >= msg->offset && hash_file(fd, msg->offset, &part->hash))) {
		fail(error, errno, "%s: %s", msg->name, strerror(errno));
		return refuse(receiver, FILE_REFUSAL_STORAGE, error);
	}
	if ((uint64_t)st.st_size < msg->offset) {
		fail(error, 0, "%s: offset %" PRIu64 " where %" PRId64 " must come next", msg->name, msg->offset,
		     (int64_t)st.st_size);
		return refuse(receiver, FILE_REFUSAL_GAP, error);
	}
	return FILE_RECEIVER_MORE;
}

static int store(struct file_receiver *receiver, struct file_receiver_part *part, const struct file_message *msg)
{
	size_t done = 0;

	/* Bytes beyond the offset are from a write that failed, or from an earlier try of the sender. */
	if (ftruncate(part->fd, msg->offset))
		return -1;
	while (done < msg->len) {
		ssize_t n = pwrite(part->fd, (const char *)msg->data + done, msg->len - done, msg->offset + done);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0)
			done += n;
	}
	if (receiver->sync && fdatasync(part->fd))
		return -1;
	SHA256Update(&part->hash, msg->data, msg->len);
	part->last = msg->offset;
	part->offset = msg->offset + msg->len;
	return 0;
}

static int complete(struct file_receiver *receiver, struct file_receiver_part *part)
{
	char name[NAME_MAX + 1];

	part_name(name, part->id);
	if (renameat(receiver->dir, name, receiver->dir, part->name) || (receiver->sync && fsync(receiver->dir)))
		return -1;
	close(part->fd);
	part->fd = -1;
	return 0;
}

/* Take the next chunk of an incomplete file. */
static enum file_receiver_result grow(struct file_receiver *receiver, struct file_receiver_part *part,
				      const struct file_message *msg, struct file_message_error *error)
{
	if (store(receiver, part, msg)) {
		fail(error, errno, "%s: write at offset %" PRIu64 ": %s", msg->name, msg->offset, strerror(errno));
		return refuse(receiver, FILE_REFUSAL_STORAGE, error);
	}
	if (part->offset < part->size)
		return FILE_RECEIVER_MORE;
	if (complete(receiver, part)) {
		fail(error, errno, "%s: %s", msg->name, strerror(errno));
		return refuse(receiver, is_of_name(errno) ? FILE_REFUSAL_NAME : FILE_REFUSAL_STORAGE, error);
	}
	SHA256End(&part->hash, receiver->sha256);
	return finish(receiver);
}

enum file_receiver_result file_receiver_take(struct file_receiver *receiver, const void *message, size_t len,
					     struct file_message_error *error)
{
	struct file_receiver_part *part;
	enum file_receiver_result result;
	struct file_message msg;
	const char *sha256;
	struct file_receiver_refused *refused;
	bool good;

	error->text[0] = '\0';
	receiver->answer_len = 0;
	good = !file_message_parse(&msg, message, len, error);
	if (!msg.answerable)
		return FILE_RECEIVER_NONE;
	receiver->nr_messages++;
	receiver->id = msg.id;
	receiver->size = msg.size;
	receiver->sha256[0] = '\0';
	strcpy(receiver->name, msg.name);

	refused = find_refused(receiver, msg.id);
	if (refused && msg.offset > 0) {
		error->text[0] = '\0';
		return FILE_RECEIVER_AGAIN;
	}
	if (!good)
		return refuse(receiver, errno == EILSEQ ? FILE_REFUSAL_NAME : FILE_REFUSAL_MALFORMED, error);
	/* Its sender tries again: the next refusal is answered, too. */
	if (refused)
		refused->used = false;
	sha256 = find_stored(receiver, msg.id);
	if (sha256) {
		if (msg.offset + msg.len == msg.size)
			answer_stored(receiver, sha256);
		return FILE_RECEIVER_AGAIN;
	}

	part = find_part(receiver, msg.id);
	if (part && (part->size != msg.size || strcmp(part->name, msg.name))) {
		fail(error, 0, "%s of %" PRIu64 " bytes: it was %s of %" PRIu64 " before", msg.name, msg.size,
		     part->name, part->size);
		return refuse(receiver, FILE_REFUSAL_MALFORMED, error);
	}
	if (part && msg.offset == part->last && msg.offset + msg.len == part->offset)
		return FILE_RECEIVER_MORE;
	if (part && msg.offset == 0) {
		part->offset = 0;
		SHA256Init(&part->hash);
	}
	if (part && msg.offset != part->offset) {
		fail(error, 0, "%s: offset %" PRIu64 " where %" PRIu64 " must come next", msg.name, msg.offset,
		     part->offset);
		return refuse(receiver, FILE_REFUSAL_GAP, error);
	}
	if (!part) {
		result = begin(receiver, &msg, error);
		if (result != FILE_RECEIVER_MORE)
			return result;
		part = find_part(receiver, msg.id);
	}
	part->used = receiver->nr_messages;
	return grow(receiver, part, &msg, error);
}

void file_receiver_close(struct file_receiver *receiver)
{
	for (int i = 0; i < FILE_RECEIVER_FILES; i++)
		if (receiver->parts[i].fd >= 0)
			close(receiver->parts[i].fd);
	close(receiver->dir);
}
