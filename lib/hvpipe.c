// SPDX-License-Identifier: LGPL-2.1-or-later
/* The pipe to one source: open, send, receive, close. */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define HDR_LEN sizeof(struct papr_hvpipe_hdr)

/* Largest buffer that read() takes on the driver that Linux ships. */
#define PORTABLE_READ 4096

/* How often to look whether the pipe is enabled, on a driver that wakes nobody. */
#define LOOK_NS 100000000

/* Events of a file that has ended. */
#define POLLENDED (POLLERR | POLLHUP | POLLNVAL)

struct hvpipe *hvpipe_open(uint32_t source)
{
	struct hvpipe *pipe;
	int dev, saved;

	pipe = calloc(1, sizeof(*pipe));
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

struct hvpipe *hvpipe_adopt(int fd)
{
	struct hvpipe *pipe = calloc(1, sizeof(*pipe));

	if (pipe)
		pipe->fd = fd;
	return pipe;
}

int hvpipe_get_fd(const struct hvpipe *pipe)
{
	assert(pipe);

	return pipe->connected && pipe->fd < 0 ? pipe->send_fd : pipe->fd;
}

size_t hvpipe_pending(const struct hvpipe *pipe)
{
	assert(pipe);

	return pipe->pending;
}

static int fail_with(int err)
{
	errno = err;
	return -1;
}

/*
 * EINVAL from write() means that the hypervisor does not know the source, or that the kernel does not take this length.
 * To find out which, write as much from memory that cannot be read: the kernel checks the length first, and a length
 * that it takes fails with another error before it calls the hypervisor.
 */
static bool takes_length(int fd, size_t count)
{
	void *unreadable = mmap(NULL, count, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool taken;

	if (unreadable == MAP_FAILED)
		return true;
	taken = write(fd, unreadable, count) >= 0 || errno != EINVAL;
	munmap(unreadable, count);
	return taken;
}

ssize_t hvpipe_send(struct hvpipe *pipe, const void *data, size_t len)
{
	assert(pipe);
	assert(data || !len);

	if (len == 0)
		return fail_with(EINVAL);
	if (len > HVPIPE_MAX_PAYLOAD)
		return fail_with(EMSGSIZE);
	if (pipe->connected)
		return hvpipe_connected_send(pipe, data, len);

	memcpy(pipe->out.payload, data, len);
	if (write(pipe->fd, &pipe->out, HDR_LEN + len) < 0) {
		if (errno == EINVAL)
			return fail_with(takes_length(pipe->fd, HDR_LEN + len) ? EINVAL : EMSGSIZE);
		return -1;
	}
	return len;
}

/*
 * Fill the handle's buffer: returns 0 with a message, or with none (pending is 0) if there is none now; or -1. A wait
 * without end needs no poll() on a socket; the driver's read() never waits.
 */
static int fill(struct hvpipe *pipe, bool wait)
{
	ssize_t n;

	if (pipe->connected)
		return hvpipe_connected_fill(pipe, wait);
	n = read(pipe->fd, &pipe->in, PORTABLE_READ);

	/* Only a driver that takes a larger buffer says that this one is too small, and it keeps the message. */
	if (n < 0 && errno == EMSGSIZE)
		n = read(pipe->fd, &pipe->in, sizeof(pipe->in));

	/* There is none: 0 from a blocking descriptor, EAGAIN from another. The driver that Linux ships always says 0.
	 */
	if (n == 0 || (n < 0 && errno == EAGAIN))
		return 0;
	if (n < 0)
		return -1;
	if (n == HDR_LEN && (pipe->in.hdr.flags & HVPIPE_LOST_CONNECTION))
		return fail_with(ECONNRESET);
	if (n <= (ssize_t)HDR_LEN)
		return fail_with(EPROTO);
	pipe->pending = n - HDR_LEN;
	return 0;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* The time at which to give up; negative: never. */
static int64_t deadline_after(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : now_ns() + timeout_ms * INT64_C(1000000);
}

/* Wait for events until the deadline. Returns those that came, 0 at the deadline, or -1. */
static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd pfd = { .fd = fd, .events = events };

	for (;;) {
		int64_t left_ns = deadline < 0 ? 0 : deadline - now_ns();
		int left_ms = left_ns > 0 ? (left_ns + 999999) / 1000000 : 0;
		int n = poll(&pfd, 1, deadline < 0 ? -1 : left_ms);

		if (n > 0)
			return pfd.revents;
		if (n == 0)
			return 0;
		if (errno != EINTR)
			return -1;
	}
}

int hvpipe_wait_fd(int fd, short events, int timeout_ms)
{
	return wait_for(fd, events, deadline_after(timeout_ms));
}

ssize_t hvpipe_recv(struct hvpipe *pipe, void *data, size_t size, int timeout_ms)
{
	bool waited = false;
	int64_t deadline;
	size_t len;
	int events;

	assert(pipe);
	assert(data || !size);

	/* poll() may announce a message that another process with the same handle takes: hence the loop. */
	while (!pipe->pending) {
		if (fill(pipe, timeout_ms < 0))
			return -1;
		if (pipe->pending)
			break;

		if (!waited)
			deadline = deadline_after(timeout_ms);
		else if (events & POLLENDED)
			return fail_with(ENOTCONN);
		waited = true;
		events = wait_for(pipe->fd, pipe->connected ? POLLIN : POLLIN | POLLRDHUP, deadline);
		if (events < 0)
			return -1;
		if (!events)
			return fail_with(ETIMEDOUT);
		if (!(events & (POLLIN | POLLENDED)))
			return fail_with(ENXIO);
	}

	len = pipe->pending;
	if (len > size)
		return fail_with(EMSGSIZE);
	memcpy(data, pipe->connected ? pipe->packet.data : pipe->in.payload, len);
	pipe->pending = 0;
	if (pipe->connected)
		hvpipe_connected_taken(pipe);
	return len;
}

int hvpipe_wait_enabled(struct hvpipe *pipe, int timeout_ms)
{
	int64_t deadline = deadline_after(timeout_ms);

	assert(pipe);

	if (pipe->connected)
		return hvpipe_connected_wait_enabled(pipe, timeout_ms);

	for (;;) {
		int events = wait_for(pipe->fd, POLLRDHUP, 0);
		int64_t look;

		if (events < 0)
			return -1;
		if (events & POLLENDED)
			return fail_with(ENOTCONN);
		if (!events)
			return 0;

		look = now_ns();
		if (deadline >= 0 && look >= deadline)
			return fail_with(ETIMEDOUT);
		look += LOOK_NS;
		/* POLLOUT ends this at once where the driver knows it. */
		if (wait_for(pipe->fd, POLLOUT, deadline >= 0 && deadline < look ? deadline : look) < 0)
			return -1;
	}
}

void hvpipe_close(struct hvpipe *pipe)
{
	if (!pipe)
		return;
	if (pipe->fd >= 0)
		close(pipe->fd);
	if (pipe->connected && pipe->send_fd >= 0)
		close(pipe->send_fd);
	free(pipe);
}
