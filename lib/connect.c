// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The pipe through hvpiped. A handle has a connection for what comes and one for what is sent, so that a thread that
 * receives and one that sends do not meet, and so that poll(2) on the first one means a message.
 */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* How often to ask whether the pipe is enabled. */
#define LOOK_MS 100

static int fail_with(int err)
{
	errno = err;
	return -1;
}

static int open_socket(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = secure_getenv("HVPIPE_SOCKET");
	int fd, saved;

	if (!path || !*path)
		path = HVPIPE_SOCKET_PATH;
	if (strlen(path) >= sizeof(address.sun_path))
		return fail_with(ENAMETOOLONG);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (!connect(fd, (const struct sockaddr *)&address, sizeof(address)))
		return fd;
	saved = errno == ENOENT ? ECONNREFUSED : errno;
	close(fd);
	return fail_with(saved);
}

static int send_packet(int fd, const struct hvpipe_packet_header *header, const void *data, size_t len)
{
	struct iovec parts[] = { { (void *)header, HVPIPE_PACKET_HEADER }, { (void *)data, len } };
	struct msghdr packet = { .msg_iov = parts, .msg_iovlen = len ? 2 : 1 };
	ssize_t n;

	do
		n = sendmsg(fd, &packet, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
		errno = ENOTCONN;
	return n < 0 ? -1 : 0;
}

/* Returns the bytes of data, or -1. */
static ssize_t read_packet(int fd, struct hvpipe_packet *packet, int flags)
{
	ssize_t n;

	/* ECONNRESET comes once, before the packets that are still here. */
	do
		n = recv(fd, packet, sizeof(*packet), flags | MSG_TRUNC);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n == 0)
		return fail_with(ENOTCONN);
	if (n < 0)
		return -1;
	if (n > (ssize_t)sizeof(*packet) || hvpipe_packet_check(packet, n, 0))
		return fail_with(EPROTO);
	return n - HVPIPE_PACKET_HEADER;
}

/* Wait for the answer to @number. Returns 0, or -1 with the errno that it says. */
static int read_result(int fd, uint32_t number)
{
	struct hvpipe_packet packet;

	if (read_packet(fd, &packet, 0) < 0)
		return -1;
	if (packet.header.type != HVPIPE_PACKET_RESULT || packet.header.number != number)
		return fail_with(EPROTO);
	return packet.header.error ? fail_with(packet.header.error) : 0;
}

/* A connection that has one right on the source. */
static int connect_for(uint32_t source, int right)
{
	struct hvpipe_packet_header header = hvpipe_packet_header(HVPIPE_PACKET_OPEN);
	int fd = open_socket(), saved;

	if (fd < 0)
		return -1;
	header.source = source;
	header.right = right;
	/* A daemon that refuses the client itself says so before it reads this. */
	if ((send_packet(fd, &header, NULL, 0) && errno != ENOTCONN) || read_result(fd, 0)) {
		saved = errno;
		close(fd);
		return fail_with(saved);
	}
	return fd;
}

struct hvpipe *hvpipe_connect(uint32_t source, int rights)
{
	int incoming = rights & (HVPIPE_RECEIVE | HVPIPE_OBSERVE);
	struct hvpipe *pipe;
	int saved;

	if (!rights || rights & ~(HVPIPE_RECEIVE | HVPIPE_SEND | HVPIPE_OBSERVE) ||
	    incoming == (HVPIPE_RECEIVE | HVPIPE_OBSERVE)) {
		errno = EINVAL;
		return NULL;
	}
	pipe = calloc(1, sizeof(*pipe));
	if (!pipe)
		return NULL;
	pipe->connected = rights;
	pipe->fd = pipe->send_fd = -1;
	if (incoming) {
		pipe->fd = connect_for(source, incoming);
		if (pipe->fd < 0)
			goto fail;
	}
	if (rights & HVPIPE_SEND) {
		pipe->send_fd = connect_for(source, HVPIPE_SEND);
		if (pipe->send_fd < 0)
			goto fail;
	}
	return pipe;

fail:
	saved = errno;
	hvpipe_close(pipe);
	errno = saved;
	return NULL;
}

ssize_t hvpipe_connected_send(struct hvpipe *pipe, const void *data, size_t len)
{
	struct hvpipe_packet_header header = hvpipe_packet_header(HVPIPE_PACKET_SEND);

	if (!(pipe->connected & HVPIPE_SEND))
		return fail_with(EBADF);
	header.number = ++pipe->number;
	if (send_packet(pipe->send_fd, &header, data, len) || read_result(pipe->send_fd, header.number))
		return -1;
	return len;
}

int hvpipe_connected_fill(struct hvpipe *pipe, bool wait)
{
	ssize_t n;

	if (!(pipe->connected & HVPIPE_RECEIVE))
		return fail_with(EBADF);
	n = read_packet(pipe->fd, &pipe->packet, wait ? 0 : MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	switch (pipe->packet.header.type) {
	case HVPIPE_PACKET_MESSAGE:
		pipe->pending = n;
		return 0;
	case HVPIPE_PACKET_LOST:
		return fail_with(ECONNRESET);
	default:
		return fail_with(EPROTO);
	}
}

void hvpipe_connected_taken(struct hvpipe *pipe)
{
	struct hvpipe_packet_header header = hvpipe_packet_header(HVPIPE_PACKET_TAKEN);

	/* If the daemon is gone, the message is here all the same; the next call will say that it is gone. */
	header.number = pipe->packet.header.number;
	send_packet(pipe->fd, &header, NULL, 0);
}

ssize_t hvpipe_observe(struct hvpipe *pipe, struct hvpipe_observed *observed, void *data, size_t size, int timeout_ms)
{
	ssize_t n;
	int ready;

	assert(pipe && observed);
	assert(data || !size);

	if (!(pipe->connected & HVPIPE_OBSERVE))
		return fail_with(EBADF);
	ready = hvpipe_wait_fd(pipe->fd, POLLIN, timeout_ms);
	if (ready < 0)
		return -1;
	if (!ready)
		return fail_with(ETIMEDOUT);
	n = read_packet(pipe->fd, &pipe->packet, 0);
	if (n < 0)
		return -1;
	if (pipe->packet.header.type != HVPIPE_PACKET_OBSERVED)
		return fail_with(EPROTO);
	memset(observed, 0, sizeof(*observed));
	observed->direction = pipe->packet.header.right;
	observed->source = pipe->packet.header.source;
	observed->error = pipe->packet.header.error;
	observed->missed = pipe->packet.header.number;
	observed->len = n;
	memcpy(data, pipe->packet.data, (size_t)n < size ? (size_t)n : size);
	return n;
}

/* Is the pipe enabled? 0 or -1. Only the sending connection has answers. */
static int ask_state(struct hvpipe *pipe)
{
	struct hvpipe_packet_header header = hvpipe_packet_header(HVPIPE_PACKET_STATE);

	if (!(pipe->connected & HVPIPE_SEND))
		return 0;
	header.number = ++pipe->number;
	return send_packet(pipe->send_fd, &header, NULL, 0) || read_result(pipe->send_fd, header.number) ? -1 : 0;
}

int hvpipe_connected_wait_enabled(struct hvpipe *pipe, int timeout_ms)
{
	while (ask_state(pipe)) {
		int wait = timeout_ms >= 0 && timeout_ms < LOOK_MS ? timeout_ms : LOOK_MS;

		if (errno != ENXIO)
			return -1;
		if (!timeout_ms)
			return fail_with(ETIMEDOUT);
		hvpipe_wait_fd(-1, 0, wait);
		if (timeout_ms > 0)
			timeout_ms -= wait;
	}
	return 0;
}

int hvpipe_each_daemon_line(int (*visit)(const char *line, void *data), void *data)
{
	struct hvpipe_packet_header header = hvpipe_packet_header(HVPIPE_PACKET_STATUS);
	struct hvpipe_packet packet;
	int fd = open_socket(), result = 0, saved;
	ssize_t n = -1;

	assert(visit);

	if (fd < 0)
		return -1;
	if (send_packet(fd, &header, NULL, 0) && errno != ENOTCONN)
		goto out;
	while (!result && (n = read_packet(fd, &packet, 0)) >= 0 && packet.header.type == HVPIPE_PACKET_LINE) {
		char line[HVPIPE_PACKET_DATA + 1];

		memcpy(line, packet.data, n);
		line[n] = '\0';
		result = visit(line, data);
	}
	if (n >= 0 && !result) {
		errno = packet.header.type == HVPIPE_PACKET_RESULT ? packet.header.error : EPROTO;
		n = errno ? -1 : 0;
	}
out:
	saved = errno;
	close(fd);
	errno = saved;
	return n < 0 ? -1 : result;
}
