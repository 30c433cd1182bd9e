// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The library on the driver of the kernel that runs. All of this holds on every kernel that has a driver. Needs a
 * partition whose hypervisor echoes what hmc1 is sent and does not know hmc9. Prints TAP.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hvpipe.h"

#define ECHO_MS 10000

static int nr_tests, nr_failed;

static void __attribute__((format(printf, 2, 3))) report(bool good, const char *format, ...)
{
	int saved = errno;
	va_list args;

	printf("%sok %d ", good ? "" : "not ", ++nr_tests);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(good ? "\n" : " (errno %d: %s)\n", saved, strerror(saved));
	nr_failed += !good;
}

/* Did the call fail with this errno? */
static bool fails(ssize_t result, int err)
{
	return result == -1 && errno == err;
}

static void fill(unsigned char *message, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		message[i] = (seed + i) * 2654435761u >> 24;
}

/* Send a message of @len bytes, and receive it when it comes back. */
static bool comes_back(struct hvpipe *pipe, size_t len, unsigned int seed)
{
	unsigned char sent[HVPIPE_MAX_PAYLOAD], received[HVPIPE_MAX_RECEIVE];

	fill(sent, len, seed);
	errno = 0;
	return hvpipe_send(pipe, sent, len) == (ssize_t)len &&
	       hvpipe_recv(pipe, received, sizeof(received), ECHO_MS) == (ssize_t)len && !memcmp(sent, received, len);
}

static void test_lengths(struct hvpipe *pipe)
{
	static const size_t portable[] = {
		1, 2, 47, 48, 49, 1000, HVPIPE_PORTABLE_PAYLOAD - 1, HVPIPE_PORTABLE_PAYLOAD
	};
	unsigned char message[HVPIPE_MAX_RECEIVE] = { 0 };
	size_t max = HVPIPE_PORTABLE_PAYLOAD;

	for (size_t i = 0; i < sizeof(portable) / sizeof(portable[0]); i++)
		report(comes_back(pipe, portable[i], i), "%zu bytes", portable[i]);

	for (size_t len = max + 1; len <= HVPIPE_MAX_PAYLOAD; len++) {
		if (comes_back(pipe, len, len))
			max = len;
		else if (errno != EMSGSIZE)
			break;
	}
	report(max == HVPIPE_MAX_PAYLOAD || errno == EMSGSIZE, "more than the kernel takes: too long");
	report(fails(hvpipe_recv(pipe, message, sizeof(message), 0), ETIMEDOUT), "what was too long was not sent");
	report(fails(hvpipe_send(pipe, message, HVPIPE_MAX_PAYLOAD + 1), EMSGSIZE), "4089 bytes: too long");
	report(fails(hvpipe_send(pipe, message, 0), EINVAL), "0 bytes: invalid");
	printf("# this kernel sends up to %zu bytes\n", max);
}

static void test_short_buffer(struct hvpipe *pipe)
{
	unsigned char sent[HVPIPE_PORTABLE_PAYLOAD], received[HVPIPE_MAX_RECEIVE];
	bool good;

	fill(sent, sizeof(sent), 77);
	good = hvpipe_send(pipe, sent, sizeof(sent)) == sizeof(sent) &&
	       fails(hvpipe_recv(pipe, received, 10, ECHO_MS), EMSGSIZE);
	report(good, "a short buffer");
	report(hvpipe_pending(pipe) == sizeof(sent), "the message stays in the handle");
	report(hvpipe_recv(pipe, received, sizeof(sent), 0) == sizeof(sent) && !memcmp(sent, received, sizeof(sent)),
	       "the next call returns it");
	report(hvpipe_pending(pipe) == 0, "none stays");
}

static void test_nothing(struct hvpipe *pipe)
{
	struct pollfd pfd = { .fd = hvpipe_get_fd(pipe), .events = POLLIN | POLLRDHUP };
	unsigned char message[HVPIPE_MAX_RECEIVE];

	report(fails(hvpipe_recv(pipe, message, sizeof(message), 0), ETIMEDOUT), "nothing, without a wait");
	report(fails(hvpipe_recv(pipe, message, sizeof(message), 50), ETIMEDOUT), "nothing, after a wait");
	report(poll(&pfd, 1, 0) == 0, "nothing to poll");
	report(hvpipe_wait_enabled(pipe, 0) == 0, "the pipe is enabled");
}

static void test_poll(struct hvpipe *pipe)
{
	struct pollfd pfd = { .fd = hvpipe_get_fd(pipe), .events = POLLIN | POLLRDHUP };
	unsigned char message[HVPIPE_MAX_RECEIVE];
	bool good = hvpipe_send(pipe, "hello", 5) == 5;

	report(good && poll(&pfd, 1, ECHO_MS) == 1 && pfd.revents == POLLIN, "poll() announces a message");
	report(hvpipe_recv(pipe, message, sizeof(message), 0) == 5 && !memcmp(message, "hello", 5), "it is there");
}

static void test_fork(struct hvpipe *pipe)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0)
		_exit(!comes_back(pipe, 300, 3));
	report(child > 0 && waitpid(child, &status, 0) == child && status == 0, "a child uses the handle");
	report(comes_back(pipe, 301, 4), "so does its parent afterwards");
}

struct found {
	int count;
	struct hvpipe_holder last;
};

static int find_ours(const struct hvpipe_holder *holder, void *data)
{
	struct found *found = data;

	if (holder->pid == getpid()) {
		found->count++;
		found->last = *holder;
	}
	return 0;
}

/* A driver either tells of itself and of its handles, or of neither. */

static void test_status(struct hvpipe *pipe)
{
	struct found found = { 0 };
	struct hvpipe_status status;
	bool tells;

	report(hvpipe_get_status(&status) == 0, "status");
	report(hvpipe_each_holder(find_ours, &found) == 0 && found.count == 1, "the handle is found in /proc");
	tells = found.last.source;
	printf("# this kernel tells %s\n", tells ? "of sources and messages" : "only who holds a source");
	report(!strcmp(status.state, tells ? "enabled" : "unknown"), "the state of the pipe");
	report(tells ? status.handles == 1 : status.handles == HVPIPE_UNKNOWN, "open sources");
	report(tells ? status.dropped != HVPIPE_UNKNOWN : status.dropped == HVPIPE_UNKNOWN, "dropped messages");
	report(found.last.source == (tells ? HVPIPE_SOURCE_HMC(1) : 0), "the source of the handle");
	report(!strcmp(found.last.state, tells ? "open" : "unknown"), "the state of the handle");
	report(tells ? found.last.sent > 0 && found.last.sent == found.last.received :
		       found.last.sent == HVPIPE_UNKNOWN,
	       "messages each way");
}

int main(void)
{
	struct hvpipe *pipe = hvpipe_open(HVPIPE_SOURCE_HMC(1)), *unknown;
	static const unsigned char message[HVPIPE_PORTABLE_PAYLOAD];

	report(pipe, "open hmc1");
	if (!pipe)
		return EXIT_FAILURE;
	report(!hvpipe_open(HVPIPE_SOURCE_HMC(1)) && errno == EALREADY, "hmc1 is open");
	report(!hvpipe_open(0x01000001) && errno == EINVAL, "no such type of source");
	test_nothing(pipe);
	test_lengths(pipe);
	test_short_buffer(pipe);
	test_poll(pipe);
	test_fork(pipe);
	test_status(pipe);
	hvpipe_close(pipe);

	unknown = hvpipe_open(HVPIPE_SOURCE_HMC(9));
	report(unknown, "open hmc9");
	if (unknown) {
		report(fails(hvpipe_send(unknown, message, 1), EINVAL), "no hmc9 for 1 byte");
		report(fails(hvpipe_send(unknown, message, sizeof(message)), EINVAL), "no hmc9 for %zu bytes",
		       sizeof(message));
	}
	hvpipe_close(unknown);
	printf("1..%d\n", nr_tests);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
