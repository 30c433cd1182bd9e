// SPDX-License-Identifier: GPL-2.0-or-later
/* The pipe to the source that the options name: open, wait, send, receive. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * How long to retry a send after EPIPE, and how often. hvpipe-hmc looks for the partition after 250 ms, then less
 * often, down to every 5 s.
 */
#define RETURN_MS 10000
#define RETRY_MS 100

static int stop_fd = -1;

/* Was anything heard of the source: a message, that it took one, or that the connection was lost? */
static bool source_seen;

void endpoint_catch_stop(void)
{
	stop_fd = catch_stop();
}

enum wait_result { WAIT_READY, WAIT_TIMEOUT, WAIT_STOP };

/* Wait for events on the handle until the deadline (negative: for ever), or to be told to stop. */
static enum wait_result wait_for(struct hvpipe *pipe, short events, int64_t deadline)
{
	struct pollfd pfds[] = {
		{ .fd = hvpipe_get_fd(pipe), .events = events },
		{ .fd = stop_fd, .events = POLLIN },
	};

	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - now_ms();
		int n;

		if (deadline >= 0 && left < 0)
			left = 0;
		n = poll(pfds, 2, left > INT_MAX ? INT_MAX : (int)left);
		if (n < 0 && errno != EINTR)
			die(EXIT_FAILURE, "poll: %s", strerror(errno));
		if (n > 0 && pfds[1].revents)
			return WAIT_STOP;
		if (n > 0)
			return WAIT_READY;
		if (n == 0 && deadline >= 0 && now_ms() >= deadline)
			return WAIT_TIMEOUT;
	}
}

static int print_holder(const struct hvpipe_holder *holder, void *data)
{
	if (holder->source == options.source)
		report("process %d (%s) holds it", (int)holder->pid, holder->command);
	return 0;
}

void die_no_device(int err)
{
	switch (err) {
	case ENOENT:
	case ENODEV:
		die(EXIT_NO_PIPE, "no /dev/papr-hvpipe: the kernel has no papr-hvpipe driver, "
		    "or the hypervisor no pipe for this partition");
	case ENXIO:
		die(EXIT_NO_PIPE, "the pipe is suspended or disabled: try again when the partition's move is over");
	case EOPNOTSUPP:
		die(EXIT_NO_PIPE, "the hypervisor has no pipe for this partition now");
	case EACCES:
	case EPERM:
		die(EXIT_FAILURE, "/dev/papr-hvpipe: %s: only root may use the pipe", strerror(err));
	default:
		die(EXIT_FAILURE, "/dev/papr-hvpipe: %s", strerror(err));
	}
}

struct hvpipe *endpoint_open(void)
{
	struct hvpipe *pipe = hvpipe_open(options.source);

	if (pipe)
		return pipe;

	switch (errno) {
	case EALREADY:
		report("%s: in use; only one process can hold a source, see `hvpipe status`", options.source_name);
		hvpipe_each_holder(print_holder, NULL);
		exit(EXIT_IN_USE);
	case EINVAL:
		die(EXIT_FAILURE, "%s: no source ID; 0x02000001 is hmc1, and only the last four digits may differ",
		    options.source_name);
	default:
		die_no_device(errno);
	}
}

static int see_loss(const struct hvpipe_holder *holder, void *data)
{
	bool *lost = data;

	if (holder->pid == getpid() && holder->source == options.source)
		*lost = !strcmp(holder->state, "lost");
	return 0;
}

/*
 * Nobody takes messages at the source. True if it was there before: after a move of the partition its HMC takes a
 * moment to follow. The loss may still wait behind messages of other sources, so the driver's state counts too.
 */
static bool source_may_reconnect(void)
{
	bool lost = false;

	if (!source_seen)
		hvpipe_each_holder(see_loss, &lost);
	return source_seen || lost;
}

int endpoint_send(struct hvpipe *pipe, const void *message, size_t len)
{
	int64_t deadline = -1;

	while (hvpipe_send(pipe, message, len) < 0) {
		switch (errno) {
		case ENXIO:
			report("%s: the pipe is suspended, waiting", options.source_name);
			if (wait_for(pipe, POLLOUT, -1) == WAIT_STOP) {
				errno = EINTR;
				return -1;
			}
			deadline = -1;
			continue;
		case EPIPE:
			if (deadline < 0 && source_may_reconnect()) {
				report("%s: connection lost, trying for %d seconds", options.source_name,
				       RETURN_MS / 1000);
				deadline = now_ms() + RETURN_MS;
			}
			if (now_ms() < deadline) {
				if (wait_for(pipe, 0, now_ms() + RETRY_MS) == WAIT_STOP) {
					errno = EINTR;
					return -1;
				}
				continue;
			}
			report("%s: nobody takes messages there: %zu bytes not delivered", options.source_name, len);
			errno = EPIPE;
			return -1;
		case EINVAL:
			report("%s: the hypervisor knows no such source", options.source_name);
			errno = EINVAL;
			return -1;
		case EOPNOTSUPP:
			die_no_device(errno);
		default:
			{
				int err = errno;

				report("%s: send of %zu bytes: %s", options.source_name, len, strerror(err));
				errno = err;
			}
			return -1;
		}
	}
	source_seen = true;
	return 0;
}

ssize_t endpoint_receive(struct hvpipe *pipe, void *message)
{
	int64_t deadline = options.timeout_ms < 0 ? -1 : now_ms() + options.timeout_ms;
	short events = POLLIN | POLLRDHUP;

	for (;;) {
		ssize_t len;

		switch (wait_for(pipe, events, deadline)) {
		case WAIT_STOP:
			/* Without a count, being stopped is the way to end. */
			exit(options.count || options.reply ? EXIT_FAILURE : EXIT_SUCCESS);
		case WAIT_TIMEOUT:
			die(EXIT_NO_MESSAGE, "%s: no message for %g seconds", options.source_name,
			    options.timeout_ms / 1000.0);
		case WAIT_READY:
			break;
		}
		events = POLLIN | POLLRDHUP;

		len = hvpipe_recv(pipe, message, HVPIPE_MAX_RECEIVE, 0);
		if (len > 0) {
			source_seen = true;
			return len;
		}
		switch (errno) {
		case ETIMEDOUT:
			break;
		case ECONNRESET:
			report("%s: connection lost, waiting for it to come back", options.source_name);
			source_seen = true;
			break;
		case ENXIO:
			report("%s: the pipe is suspended, waiting", options.source_name);
			events = POLLIN | POLLOUT;
			break;
		case EOPNOTSUPP:
			die_no_device(errno);
		default:
			die(EXIT_FAILURE, "%s: receive: %s", options.source_name, strerror(errno));
		}
	}
}
