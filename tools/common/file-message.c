// SPDX-License-Identifier: GPL-2.0-or-later
/* The format of file messages is in file-message.h. */
#include "file-message.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

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

static int check_name(const char *name, size_t len, int err, struct file_message_error *error)
{
	if (len == 0)
		return fail(error, err, "file message without a name");
	if (len > FILE_MESSAGE_NAME_MAX)
		return fail(error, err, "file name of %zu bytes: at most %d can be sent", len, FILE_MESSAGE_NAME_MAX);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = name[i];

		/* U+0080 to U+009F are 0xc2 and one more byte in UTF-8. */
		if (c < ' ' || c == 0x7f || (c == 0xc2 && i + 1 < len && (unsigned char)name[i + 1] < 0xa0))
			return fail(error, err, "control character 0x%02x at byte %zu of a file name", c, i);
	}
	if (memchr(name, '/', len))
		return fail(error, err, "'/' in file name '%.*s'", (int)len, name);
	if (name[0] == '.')
		return fail(error, err, "file name '%.*s' begins with a dot", (int)len, name);
	return 0;
}

/* Digits and a space: no sign, no leading zero, INT64_MAX at most, so that each number has one spelling. */
static int parse_number(const char **pos, const char *end, const char *what, uint64_t *number,
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

int file_message_parse(struct file_message *msg, const void *message, size_t len, struct file_message_error *error)
{
	static const char magic[] = "FILE ";
	const char *p = message;
	const char *end;

	if (len > FILE_MESSAGE_MAX)
		return fail(error, EBADMSG, "message of %zu bytes: at most %d are possible", len, FILE_MESSAGE_MAX);
	end = len ? memchr(p, '\n', len) : NULL;
	if (len < sizeof(magic) - 1 || memcmp(p, magic, sizeof(magic) - 1))
		return fail(error, EBADMSG, "not a file message: it does not begin with 'FILE '");
	if (!end)
		return fail(error, EBADMSG, "file message whose first line has no end");

	p += sizeof(magic) - 1;
	if (parse_number(&p, end, "size", &msg->size, error) || parse_number(&p, end, "offset", &msg->offset, error) ||
	    check_name(p, end - p, EBADMSG, error))
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

ssize_t file_message_format(char *line, uint64_t size, uint64_t offset, const char *name,
			    struct file_message_error *error)
{
	if (check_name(name, strlen(name), EINVAL, error))
		return -1;
	return snprintf(line, FILE_MESSAGE_MAX, "FILE %" PRIu64 " %" PRIu64 " %s\n", size, offset, name);
}

int file_sender_open(struct file_sender *sender, const char *path, size_t message_size,
		     struct file_message_error *error)
{
	const char *name = strrchr(path, '/');
	char line[FILE_MESSAGE_MAX];
	struct stat st;
	int err;

	name = name ? name + 1 : path;
	if (check_name(name, strlen(name), EINVAL, error))
		return -1;

	/* O_NONBLOCK: refuse a FIFO, do not wait for its writer. */
	sender->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (sender->fd < 0)
		return fail(error, errno, "%s: %s", path, strerror(errno));
	if (fstat(sender->fd, &st))
		err = fail(error, errno, "%s: %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		err = fail(error, EINVAL, "%s: not a regular file, and a file message must name the size", path);
	else if (file_message_format(line, st.st_size, st.st_size, name, error) >= (ssize_t)message_size)
		err = fail(error, EINVAL, "%s: messages of %zu bytes are too small for a file of this name", path,
			   message_size);
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
	sender->offset = 0;
	sender->done = false;
	strcpy(sender->name, name);
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

	line = file_message_format(message, sender->size, sender->offset, sender->name, error);
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
	sender->offset += len;
	sender->done = sender->offset == sender->size;
	return line + len;
}

void file_sender_close(struct file_sender *sender)
{
	close(sender->fd);
}

int file_receiver_open(struct file_receiver *receiver, const char *path, bool sync, struct file_message_error *error)
{
	memset(receiver, 0, sizeof(*receiver));
	receiver->fd = -1;
	receiver->sync = sync;
	receiver->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (receiver->dir < 0)
		return fail(error, errno, "%s: %s", path, strerror(errno));
	return 0;
}

static void part_name(char part[static NAME_MAX + 1], const char *name)
{
	snprintf(part, NAME_MAX + 1, ".%.*s.part", FILE_MESSAGE_NAME_MAX, name);
}

/* Remove the incomplete file: its rest will not come. */
static void drop_part(struct file_receiver *receiver)
{
	char part[NAME_MAX + 1];

	if (receiver->fd < 0)
		return;
	part_name(part, receiver->name);
	unlinkat(receiver->dir, part, 0);
	close(receiver->fd);
	receiver->fd = -1;
}

/* True if the error is due to the file's name: another file may well be stored. */
static bool is_of_name(int err)
{
	return err == EEXIST || err == EISDIR || err == ENOTEMPTY || err == ELOOP || err == ENAMETOOLONG ||
	       err == EILSEQ || err == EINVAL;
}

/*
 * Open the incomplete file of this name and lock it against other receivers. One of them may rename it between our open
 * and our lock. Then the locked file is no longer the incomplete one: try again.
 */
static int open_part(struct file_receiver *receiver, const char *name, bool create, struct file_message_error *error)
{
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (create ? O_CREAT : 0);
	char part[NAME_MAX + 1];

	part_name(part, name);
	for (;;) {
		struct stat ours, now;
		int fd, err = 0;

		fd = openat(receiver->dir, part, flags, 0666);
		if (fd < 0)
			return fail(error, errno, "%s: %s", part, strerror(errno));
		if (flock(fd, LOCK_EX | LOCK_NB))
			err = errno == EWOULDBLOCK ? EBUSY : errno;
		else if (fstat(fd, &ours))
			err = errno;
		else if (!S_ISREG(ours.st_mode))
			err = EEXIST;
		if (err) {
			close(fd);
			return fail(error, err, "%s: %s", part,
				    err == EBUSY  ? "another process receives a file of this name here" :
				    err == EEXIST ? "not a regular file" :
						    strerror(err));
		}
		if (!fstatat(receiver->dir, part, &now, AT_SYMLINK_NOFOLLOW) && now.st_dev == ours.st_dev &&
		    now.st_ino == ours.st_ino)
			return fd;
		close(fd);
	}
}

/* True if an earlier process completed the file with this last chunk and ended before it acknowledged it. */
static bool completed_before(struct file_receiver *receiver, const struct file_message *msg)
{
	char data[FILE_MESSAGE_MAX];
	struct stat st;
	bool same;
	int fd;

	if (msg->offset + msg->len != msg->size)
		return false;
	fd = openat(receiver->dir, msg->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return false;
	same = !fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == msg->size &&
	       pread(fd, data, msg->len, msg->offset) == (ssize_t)msg->len && !memcmp(data, msg->data, msg->len);
	close(fd);
	return same;
}

/* Make receiver->fd the incomplete file that this message continues. */
static enum file_receiver_result begin(struct file_receiver *receiver, const struct file_message *msg,
				       struct file_message_error *error)
{
	struct file_message_error detail;
	struct stat st;
	int fd, saved;

	if (!fstatat(receiver->dir, msg->name, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode)) {
		fail(error, EBADMSG, "%s: a directory has this name", msg->name);
		return FILE_RECEIVER_ERROR;
	}
	fd = open_part(receiver, msg->name, msg->offset == 0, &detail);
	if (fd < 0 && errno == ENOENT && msg->offset > 0) {
		if (completed_before(receiver, msg)) {
			strcpy(receiver->name, msg->name);
			return FILE_RECEIVER_COMPLETE;
		}
		fail(error, EBADMSG, "%s: offset %" PRIu64 " without the chunks before it", msg->name, msg->offset);
		return FILE_RECEIVER_ERROR;
	}
	if (fd < 0) {
		*error = detail;
		if (is_of_name(errno))
			errno = EBADMSG;
		return FILE_RECEIVER_ERROR;
	}

	if (fstat(fd, &st)) {
		fail(error, errno, "%s: %s", msg->name, strerror(errno));
		goto fail;
	}
	if ((uint64_t)st.st_size < msg->offset) {
		fail(error, EBADMSG, "%s: offset %" PRIu64 " where %" PRId64 " must come next", msg->name, msg->offset,
		     (int64_t)st.st_size);
		goto fail;
	}
	receiver->fd = fd;
	receiver->size = msg->size;
	receiver->offset = msg->offset;
	strcpy(receiver->name, msg->name);
	return FILE_RECEIVER_MORE;

fail:
	saved = errno;
	close(fd);
	errno = saved;
	return FILE_RECEIVER_ERROR;
}

static int store(struct file_receiver *receiver, const struct file_message *msg)
{
	size_t done = 0;

	/* Bytes beyond the offset are from a write that failed, or from an earlier file. */
	if (ftruncate(receiver->fd, msg->offset))
		return -1;
	while (done < msg->len) {
		ssize_t n = pwrite(receiver->fd, (const char *)msg->data + done, msg->len - done, msg->offset + done);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0)
			done += n;
	}
	return receiver->sync ? fdatasync(receiver->fd) : 0;
}

static int complete(struct file_receiver *receiver)
{
	char part[NAME_MAX + 1];

	part_name(part, receiver->name);
	if (renameat(receiver->dir, part, receiver->dir, receiver->name))
		return -1;
	close(receiver->fd);
	receiver->fd = -1;
	return receiver->sync ? fsync(receiver->dir) : 0;
}

/* True if @msg is the next chunk of the file, or the last one again: its sender was not told that it had arrived. */
static bool continues(const struct file_receiver *receiver, const struct file_message *msg)
{
	bool repeated = msg->offset == receiver->last && msg->offset + msg->len == receiver->offset;

	return msg->size == receiver->size && !strcmp(msg->name, receiver->name) &&
	       (msg->offset == receiver->offset || repeated);
}

enum file_receiver_result file_receiver_take(struct file_receiver *receiver, const void *message, size_t len,
					     struct file_message_error *error)
{
	struct file_message msg;

	error->text[0] = '\0';
	if (file_message_parse(&msg, message, len, error)) {
		drop_part(receiver);
		errno = EBADMSG;
		return FILE_RECEIVER_ERROR;
	}

	if (receiver->fd >= 0 && !continues(receiver, &msg)) {
		if (msg.offset > 0) {
			fail(error, EBADMSG,
			     "%s: offset %" PRIu64 " of %" PRIu64 " where offset %" PRIu64 " of %" PRIu64
			     " of %s must come next",
			     msg.name, msg.offset, msg.size, receiver->offset, receiver->size, receiver->name);
			drop_part(receiver);
			errno = EBADMSG;
			return FILE_RECEIVER_ERROR;
		}
		fail(error, 0, "%s: incomplete, removed: %" PRIu64 " of %" PRIu64 " bytes had come", receiver->name,
		     receiver->offset, receiver->size);
		drop_part(receiver);
	}

	if (receiver->fd < 0) {
		enum file_receiver_result result = begin(receiver, &msg, error);

		if (result != FILE_RECEIVER_MORE)
			return result;
	}

	if (store(receiver, &msg)) {
		fail(error, errno, "%s: write at offset %" PRIu64 ": %s", msg.name, msg.offset, strerror(errno));
		return FILE_RECEIVER_ERROR;
	}
	if (msg.offset + msg.len < msg.size) {
		receiver->last = msg.offset;
		receiver->offset = msg.offset + msg.len;
		return FILE_RECEIVER_MORE;
	}
	if (complete(receiver)) {
		bool refused = is_of_name(errno);

		fail(error, refused ? EBADMSG : errno, "%s: %s", msg.name, strerror(errno));
		if (refused) {
			drop_part(receiver);
			errno = EBADMSG;
		}
		return FILE_RECEIVER_ERROR;
	}
	return FILE_RECEIVER_COMPLETE;
}

void file_receiver_close(struct file_receiver *receiver)
{
	if (receiver->fd >= 0)
		close(receiver->fd);
	close(receiver->dir);
}
