// SPDX-License-Identifier: LGPL-2.1-or-later
/* The pipe to one source: open, send, receive, close. */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct hvpipe *hvpipe_open(uint32_t source)
{
	struct hvpipe *pipe;
	int dev, saved;

	pipe = malloc(sizeof(*pipe));
	if (!pipe)
		return NULL;

	dev = open(HVPIPE_DEVICE, O_RDWR | O_CLOEXEC);
	if (dev < 0)
		goto fail;
	pipe->fd = ioctl(dev, PAPR_HVPIPE_IOC_CREATE_HANDLE, &source);
	saved = errno;
	close(dev);
	errno = saved;
	if (pipe->fd < 0)
		goto fail;
	return pipe;

fail:
	saved = errno;
	free(pipe);
	errno = saved;
	return NULL;
}

int hvpipe_get_fd(const struct hvpipe *pipe)
{
	assert(pipe);

	return pipe->fd;
}

ssize_t hvpipe_send(struct hvpipe *pipe, const void *data, size_t len)
{
	struct papr_hvpipe_hdr hdr = { 0 };
	struct iovec iov[] = {
		{ .iov_base = &hdr, .iov_len = sizeof(hdr) },
		{ .iov_base = (void *)data, .iov_len = len },
	};
	ssize_t n;

	assert(pipe);
	assert(data || !len);

	if (len == 0) {
		errno = EINVAL;
		return -1;
	}
	if (len > HVPIPE_MAX_PAYLOAD) {
		errno = EMSGSIZE;
		return -1;
	}

	n = writev(pipe->fd, iov, 2);
	return n < 0 ? -1 : n - (ssize_t)sizeof(hdr);
}

/* A message's bytes, 0 when there is none to be had now, or -1. */
static ssize_t receive_now(struct hvpipe *pipe, void *data, size_t size)
{
	struct papr_hvpipe_hdr hdr;
	struct iovec iov[] = {
		{ .iov_base = &hdr, .iov_len = sizeof(hdr) },
		{ .iov_base = data, .iov_len = size },
	};
	ssize_t n;

	n = readv(pipe->fd, iov, 2);

	/* Nothing pending: 0 from a blocking descriptor, which is not the end of anything, EAGAIN from another. */
	if (n == 0 || (n < 0 && errno == EAGAIN))
		return 0;
	if (n < 0)
		return -1;
	if (n > (ssize_t)sizeof(hdr))
		return n - (ssize_t)sizeof(hdr);

	errno = n == sizeof(hdr) && (hdr.flags & HVPIPE_LOST_CONNECTION) ? ECONNRESET : EPROTO;
	return -1;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* When to give up; negative: never. */
static int64_t deadline_of(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : now_ns() + timeout_ms * INT64_C(1000000);
}

/* Wait for one of the events, returns which there are, or -1: ETIMEDOUT at the deadline. */
static int wait_for(struct hvpipe *pipe, short events, int64_t deadline)
{
	struct pollfd pfd = { .fd = pipe->fd, .events = events };

	for (;;) {
		struct timespec left;
		int n;

		if (deadline >= 0) {
			int64_t ns = deadline - now_ns();

			if (ns < 0)
				ns = 0;
			left.tv_sec = ns / 1000000000;
			left.tv_nsec = ns % 1000000000;
		}
		n = ppoll(&pfd, 1, deadline >= 0 ? &left : NULL, NULL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0) {
			errno = ETIMEDOUT;
			return -1;
		}
		return pfd.revents;
	}
}

/* Wait for something to receive. */
static int wait_readable(struct hvpipe *pipe, int64_t deadline)
{
	int revents = wait_for(pipe, POLLIN | POLLRDHUP, deadline);

	if (revents < 0)
		return -1;
	if (revents & POLLIN)
		return 0;
	errno = revents & POLLRDHUP ? ENXIO : EIO;
	return -1;
}

int hvpipe_wait_enabled(struct hvpipe *pipe, int timeout_ms)
{
	int revents;

	assert(pipe);

	revents = wait_for(pipe, POLLOUT, deadline_of(timeout_ms));
	if (revents < 0)
		return -1;
	if (revents & POLLOUT)
		return 0;
	errno = EIO;
	return -1;
}

ssize_t hvpipe_recv(struct hvpipe *pipe, void *data, size_t size, int timeout_ms)
{
	int64_t deadline = deadline_of(timeout_ms);

	assert(pipe);
	assert(data || !size);

	/* Another thread or process that shares the handle may take what poll announced: hence the loop. */
	for (;;) {
		ssize_t n = receive_now(pipe, data, size);

		if (n != 0)
			return n;
		if (wait_readable(pipe, deadline))
			return -1;
	}
}

void hvpipe_close(struct hvpipe *pipe)
{
	if (!pipe)
		return;
	close(pipe->fd);
	free(pipe);
}
