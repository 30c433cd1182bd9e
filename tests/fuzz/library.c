// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The library's handling of messages, on a descriptor that answers what the input says. Whatever the driver does,
 * hvpipe_recv() and hvpipe_send() return what they promise, messages keep their order, and a buffer is not overrun.
 */
#include <errno.h>
#include <poll.h>
#include <time.h>

#include "fuzz.h"

static ssize_t driver_read(int fd, void *buffer, size_t size);
static ssize_t driver_write(int fd, const void *buffer, size_t count);
static int driver_poll(struct pollfd *fds, nfds_t n, int timeout_ms);

#define read  driver_read
#define write driver_write
#define poll  driver_poll
#include "hvpipe.c"
#undef read
#undef write
#undef poll

static const int errors[] = { EAGAIN, EINTR, EMSGSIZE, EFAULT, ENXIO, EIO, EINVAL, EPIPE, EOPNOTSUPP, ENOMEM, EPERM };

static struct input in;
static uint8_t message[HVPIPE_MAX_RECEIVE]; /* what read() returned last */
static size_t message_len;
static unsigned int flags; /* of its header */

static int fail(uint8_t which)
{
	errno = errors[which % (sizeof(errors) / sizeof(errors[0]))];
	return -1;
}

/* Return a message, nothing, or an error. A kernel never returns more than there is room for. */
static ssize_t driver_read(int fd, void *buffer, size_t size)
{
	uint8_t what = take_byte(&in), fill = take_byte(&in);
	size_t len = take_word(&in);
	struct papr_hvpipe_hdr hdr = { .flags = what & 7 };

	CHECK(size >= sizeof(hdr) && size <= sizeof(hdr) + sizeof(message));
	if (what < 16)
		return fail(what);
	if (what < 24 || !in.left)
		return 0;

	len = len < size ? len : size;
	flags = hdr.flags;
	memcpy(buffer, &hdr, len < sizeof(hdr) ? len : sizeof(hdr));
	if (len > sizeof(hdr)) {
		message_len = len - sizeof(hdr);
		memset(message, fill, message_len);
		memcpy((uint8_t *)buffer + sizeof(hdr), message, message_len);
	}
	return len;
}

/* Only a write() that is to find out whether the kernel takes a length has data that cannot be read. */
static ssize_t driver_write(int fd, const void *buffer, size_t count)
{
	static const struct papr_hvpipe_hdr zeros;
	static size_t last_count;
	uint8_t what = take_byte(&in);
	size_t sum = 0;

	CHECK(count > sizeof(zeros) && count <= sizeof(zeros) + HVPIPE_MAX_PAYLOAD);
	if (last_count) {
		CHECK(count == last_count);
		last_count = 0;
		return fail(what);
	}
	CHECK(!memcmp(buffer, &zeros, sizeof(zeros)));
	for (size_t i = sizeof(zeros); i < count; i++)
		sum += ((const uint8_t *)buffer)[i];
	CHECK(sum == (count - sizeof(zeros)) * 0x5a);
	if (what >= 128)
		return count;
	fail(what);
	if (errno == EINVAL)
		last_count = count;
	return -1;
}

/* At the end of the input the time is over. */
static int driver_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	uint8_t what = take_byte(&in);

	CHECK(n == 1 && timeout_ms >= -1);
	if (!in.left)
		return fds->revents = 0;
	if (what < 16) {
		errno = what & 1 ? EINTR : ENOMEM;
		return -1;
	}
	fds->revents = what & 0x10 ? POLLIN : what & 0x20 ? POLLRDHUP : what & 0x40 ? POLLERR : 0;
	fds->revents &= fds->events | POLLERR;
	return fds->revents ? 1 : 0;
}

static void receive(struct hvpipe *pipe)
{
	size_t size = take_word(&in) % (HVPIPE_MAX_RECEIVE + 9), pending = hvpipe_pending(pipe);
	int timeout = (int8_t)take_byte(&in);
	uint8_t *room = malloc(size);
	ssize_t n;

	memset(room, 0xa5, size);
	errno = 0;
	n = hvpipe_recv(pipe, room, size, timeout);
	CHECK(n != 0 && n <= (ssize_t)size);
	if (n > 0) {
		CHECK(n == (ssize_t)message_len && !memcmp(room, message, n) && !hvpipe_pending(pipe));
		CHECK(!pending || n == (ssize_t)pending);
	} else {
		CHECK(n == -1 && errno && errno != EAGAIN);
		CHECK(errno != ECONNRESET || flags & HVPIPE_LOST_CONNECTION);
		CHECK(!pending || (errno == EMSGSIZE && hvpipe_pending(pipe) == pending));
		CHECK(!hvpipe_pending(pipe) || hvpipe_pending(pipe) > size);
	}
	free(room);
}

static void send_one(struct hvpipe *pipe)
{
	size_t len = take_word(&in) % (HVPIPE_MAX_PAYLOAD + 9);
	uint8_t *data = malloc(len);
	ssize_t n;

	memset(data, 0x5a, len);
	errno = 0;
	n = hvpipe_send(pipe, data, len);
	CHECK(n == (ssize_t)len || (n == -1 && errno));
	CHECK(n == -1 || (len >= 1 && len <= HVPIPE_MAX_PAYLOAD));
	free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct hvpipe pipe;

	pipe.fd = -1;
	pipe.pending = 0;
	in = (struct input){ data, size };
	while (in.left) {
		if (take_byte(&in) & 1)
			receive(&pipe);
		else
			send_one(&pipe);
	}
	return 0;
}
