// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The library's handling of messages, on a descriptor that answers what the input says: hvpipe_recv() and hvpipe_send()
 * return what they promise whatever the driver does, and never more than there is room for.
 */
#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>

#include "fuzz.h"

static ssize_t driver_readv(int fd, const struct iovec *iov, int count);
static ssize_t driver_writev(int fd, const struct iovec *iov, int count);
static int driver_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);

#define readv driver_readv
#define writev driver_writev
#define ppoll driver_ppoll
#include "hvpipe.c"

static const int errors[] = { EAGAIN, EINTR, EMSGSIZE, EFAULT, ENXIO, EIO, EINVAL, EPIPE, EOPNOTSUPP, ENOMEM };

static struct input in;
static uint8_t message[HVPIPE_MAX_PAYLOAD];	/* what readv() returned last */
static ssize_t returned;
static struct papr_hvpipe_hdr header;

static int fail(uint8_t which)
{
	errno = errors[which % (sizeof(errors) / sizeof(errors[0]))];
	return -1;
}

/* One message into the pieces, or nothing, or an error. A kernel never returns more than there is room for. */
static ssize_t driver_readv(int fd, const struct iovec *iov, int count)
{
	uint8_t what = take_byte(&in), fill = take_byte(&in);
	size_t len = take_word(&in), room;

	(void)fd;
	CHECK(count == 2 && iov[0].iov_len == sizeof(header));
	if (what < 16)
		return returned = fail(what);
	if (what < 24 || !in.left)
		return returned = 0;

	room = iov[0].iov_len + iov[1].iov_len;
	room = room < sizeof(header) + sizeof(message) ? room : sizeof(header) + sizeof(message);
	len = len < room ? len : room;
	memset(&header, 0, sizeof(header));
	header.flags = what & 7;
	memcpy(iov[0].iov_base, &header, len < sizeof(header) ? len : sizeof(header));
	if (len > sizeof(header)) {
		memset(message, fill, sizeof(message));
		memcpy(iov[1].iov_base, message, len - sizeof(header));
	}
	return returned = len;
}

static ssize_t driver_writev(int fd, const struct iovec *iov, int count)
{
	static const struct papr_hvpipe_hdr zeros;
	uint8_t what = take_byte(&in);
	size_t sum = 0;

	(void)fd;
	CHECK(count == 2 && iov[0].iov_len == sizeof(zeros) && !memcmp(iov[0].iov_base, &zeros, sizeof(zeros)));
	CHECK(iov[1].iov_len >= 1 && iov[1].iov_len <= HVPIPE_MAX_PAYLOAD);
	for (size_t i = 0; i < iov[1].iov_len; i++)
		sum += ((const uint8_t *)iov[1].iov_base)[i];
	CHECK(sum == iov[1].iov_len * 0x5a);
	return what < 128 ? fail(what) : (ssize_t)(iov[0].iov_len + iov[1].iov_len);
}

/* At the end of the input the time is over. */
static int driver_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	uint8_t what = take_byte(&in);

	CHECK(n == 1 && !mask && (!timeout || (timeout->tv_sec >= 0 && timeout->tv_nsec < 1000000000)));
	if (!in.left)
		return 0;
	if (what < 16) {
		errno = what & 1 ? EINTR : ENOMEM;
		return -1;
	}
	fds->revents = what & 0x10 ? POLLIN : what & 0x20 ? POLLRDHUP : what & 0x40 ? POLLERR : 0;
	return fds->revents ? 1 : 0;
}

static void receive(struct hvpipe *pipe)
{
	size_t size = take_word(&in) % (HVPIPE_MAX_PAYLOAD + 9);
	int timeout = (int8_t)take_byte(&in);
	uint8_t *room = malloc(size);
	ssize_t n;

	memset(room, 0xa5, size);
	errno = 0;
	n = hvpipe_recv(pipe, room, size, timeout);
	CHECK(n != 0 && n <= (ssize_t)size);
	if (n > 0) {
		CHECK(n == returned - (ssize_t)sizeof(header) && !memcmp(room, message, n));
	} else {
		CHECK(n == -1 && errno && errno != EAGAIN);
		CHECK(errno != ECONNRESET || header.flags & HVPIPE_LOST_CONNECTION);
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
	struct hvpipe pipe = { .fd = -1 };

	in = (struct input) { data, size };
	while (in.left) {
		if (take_byte(&in) & 1)
			receive(&pipe);
		else
			send_one(&pipe);
	}
	return 0;
}
