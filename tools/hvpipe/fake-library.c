// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A library whose driver is the test. A handle is two connections to the socket in $FAKE_HVPIPE, whose packets are:
 *
 *	receive	from the test	0 and a message, or an errno: the result of one hvpipe_recv()
 *	send	to the test	the message; the answer is one byte, the errno or 0
 *
 * After ENXIO the pipe is suspended until the file $FAKE_HVPIPE.enabled exists. $FAKE_STATE is the state of the driver.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "hvpipe.h"

struct hvpipe {
	int receive, send;
};

static int connect_test(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", getenv("FAKE_HVPIPE"));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		abort();
	return fd;
}

static int fail_with(int err)
{
	errno = err;
	return -1;
}

struct hvpipe *hvpipe_open(uint32_t source)
{
	const char *err = getenv("FAKE_OPEN_ERRNO");
	struct hvpipe *pipe;

	if (err) {
		errno = atoi(err);
		return NULL;
	}
	pipe = malloc(sizeof(*pipe));
	pipe->receive = connect_test();
	pipe->send = connect_test();
	return pipe;
}

/* There is no daemon. */
struct hvpipe *hvpipe_connect(uint32_t source, int rights)
{
	errno = ECONNREFUSED;
	return NULL;
}

int hvpipe_each_daemon_line(int (*visit)(const char *line, void *data), void *data)
{
	const char *line = getenv("FAKE_DAEMON_LINE");

	return line ? visit(line, data) : fail_with(ECONNREFUSED);
}

ssize_t hvpipe_observe(struct hvpipe *pipe, struct hvpipe_observed *observed, void *data, size_t size, int timeout_ms)
{
	return fail_with(EBADF);
}

int hvpipe_get_fd(const struct hvpipe *pipe)
{
	return pipe->receive;
}

ssize_t hvpipe_send(struct hvpipe *pipe, const void *data, size_t len)
{
	unsigned char err;

	if (send(pipe->send, data, len, MSG_NOSIGNAL) != (ssize_t)len || recv(pipe->send, &err, 1, 0) != 1)
		abort();
	return err ? fail_with(err) : (ssize_t)len;
}

ssize_t hvpipe_recv(struct hvpipe *pipe, void *data, size_t size, int timeout_ms)
{
	char packet[1 + HVPIPE_MAX_RECEIVE];
	ssize_t n = recv(pipe->receive, packet, sizeof(packet), MSG_DONTWAIT);

	if (n < 0)
		return fail_with(ETIMEDOUT);
	if (n == 0)
		return fail_with(ENOTCONN);
	if (packet[0])
		return fail_with((unsigned char)packet[0]);
	memcpy(data, packet + 1, n - 1);
	return n - 1;
}

int hvpipe_wait_enabled(struct hvpipe *pipe, int timeout_ms)
{
	char path[200];

	snprintf(path, sizeof(path), "%s.enabled", getenv("FAKE_HVPIPE"));
	return access(path, F_OK) ? fail_with(ETIMEDOUT) : 0;
}

void hvpipe_close(struct hvpipe *pipe)
{
	if (!pipe)
		return;
	close(pipe->receive);
	close(pipe->send);
	free(pipe);
}

int hvpipe_get_status(struct hvpipe_status *status)
{
	const char *state = getenv("FAKE_STATE");

	if (!state)
		return fail_with(ENOENT);
	memset(status, 0xff, sizeof(*status));
	snprintf(status->state, sizeof(status->state), "%s", state);
	if (strcmp(state, "unknown")) {
		status->handles = 1;
		status->dropped = 7;
	}
	return 0;
}

int hvpipe_each_holder(int (*visit)(const struct hvpipe_holder *holder, void *data), void *data)
{
	struct hvpipe_holder known = { .pid = 12,
				       .command = "one\x1b[2J",
				       .source = 0x02000001,
				       .state = "open",
				       .sent = 3,
				       .sent_bytes = 4,
				       .received = 5,
				       .received_bytes = 6,
				       .held = 1 };
	struct hvpipe_holder unknown = { .pid = 13,
					 .command = "two",
					 .state = "unknown",
					 .sent = HVPIPE_UNKNOWN,
					 .sent_bytes = HVPIPE_UNKNOWN,
					 .received = HVPIPE_UNKNOWN,
					 .received_bytes = HVPIPE_UNKNOWN,
					 .held = HVPIPE_UNKNOWN };
	const char *state = getenv("FAKE_STATE");

	return state ? visit(strcmp(state, "unknown") ? &known : &unknown, data) : 0;
}
