// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A library whose driver is the test, as a server at the socket $FAKE_HVPIPE. Each connection begins with a packet of
 * the client: a word and the source ID.
 *
 *	open	the answer is an errno or 0. Then each packet of the test is the result of one hvpipe_recv(): an errno
 *or 0, and a message send	a packet more, the message; the answer is an errno or 0 state	the answer is an errno
 *or 0: is the pipe enabled?
 *
 * Numbers are of 4 bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "hvpipe.h"

struct hvpipe {
	int fd;
	uint32_t source;
};

static int fail_with(int err)
{
	errno = err;
	return -1;
}

static int connect_test(const char *word, uint32_t source, int *answer, const void *data, size_t len)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	char hello[9] = "";

	strncpy(address.sun_path, getenv("FAKE_HVPIPE"), sizeof(address.sun_path) - 1);
	strncpy(hello, word, 5);
	memcpy(hello + 5, &source, 4);
	*answer = ENOENT;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    send(fd, hello, sizeof(hello), MSG_NOSIGNAL) < 0 || (len && send(fd, data, len, MSG_NOSIGNAL) < 0) ||
	    recv(fd, answer, sizeof(*answer), 0) != sizeof(*answer) || *answer) {
		close(fd);
		return -1;
	}
	return fd;
}

static struct hvpipe *new_pipe(int fd, uint32_t source)
{
	struct hvpipe *pipe = calloc(1, sizeof(*pipe));

	pipe->fd = fd;
	pipe->source = source;
	return pipe;
}

struct hvpipe *hvpipe_open(uint32_t source)
{
	int answer, fd = connect_test("open", source, &answer, NULL, 0);

	errno = answer;
	return fd < 0 ? NULL : new_pipe(fd, source);
}

struct hvpipe *hvpipe_adopt(int fd)
{
	return new_pipe(fd, 0);
}

int hvpipe_get_fd(const struct hvpipe *pipe)
{
	return pipe->fd;
}

ssize_t hvpipe_send(struct hvpipe *pipe, const void *data, size_t len)
{
	int answer, fd = connect_test("send", pipe->source, &answer, data, len);

	if (fd < 0)
		return fail_with(answer);
	close(fd);
	return len;
}

ssize_t hvpipe_recv(struct hvpipe *pipe, void *data, size_t size, int timeout_ms)
{
	unsigned char packet[4 + HVPIPE_MAX_RECEIVE];
	ssize_t n = recv(pipe->fd, packet, sizeof(packet), MSG_DONTWAIT);
	int err;

	if (n < 4)
		return fail_with(n < 0 ? ETIMEDOUT : ENOTCONN);
	memcpy(&err, packet, 4);
	if (err)
		return fail_with(err);
	memcpy(data, packet + 4, n - 4);
	return n - 4;
}

int hvpipe_wait_enabled(struct hvpipe *pipe, int timeout_ms)
{
	int answer, fd = connect_test("state", pipe->source, &answer, NULL, 0);

	if (fd < 0)
		return fail_with(answer == ENXIO ? ETIMEDOUT : answer);
	close(fd);
	return 0;
}

void hvpipe_close(struct hvpipe *pipe)
{
	if (!pipe)
		return;
	close(pipe->fd);
	free(pipe);
}
