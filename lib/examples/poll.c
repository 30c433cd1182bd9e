// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A program that waits in its own poll(2) loop: it sends what comes on standard input to hmc1, and prints the
 * messages that come from there. It does so through hvpiped, or on the device where hvpiped does not answer.
 */
#include <err.h>
#include <errno.h>
#include <hvpipe.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

/* Receive one message that poll(2) announced. */
static void receive(struct hvpipe *pipe)
{
	/* Every message fits this buffer, so none stays in the handle, where poll(2) would not see it. */
	char message[HVPIPE_MAX_RECEIVE];
	ssize_t len = hvpipe_recv(pipe, message, sizeof(message), 0);

	if (len > 0) {
		printf("%.*s\n", (int)len, message);
		fflush(stdout);
	} else if (errno == ENXIO) {
		hvpipe_wait_enabled(pipe, -1);
	} else if (errno == EIO) {
		sleep(1);
	} else if (errno == ECONNRESET) {
		warnx("connection lost, waiting for hmc1 to come back");
	} else if (errno != ETIMEDOUT) {
		err(1, "receive");
	}
}

int main(void)
{
	struct hvpipe *pipe = hvpipe_connect(HVPIPE_SOURCE_HMC(1), HVPIPE_RECEIVE | HVPIPE_SEND);
	char input[HVPIPE_PORTABLE_PAYLOAD];

	if (!pipe && errno == ECONNREFUSED)
		pipe = hvpipe_open(HVPIPE_SOURCE_HMC(1));
	if (!pipe)
		err(1, "hmc1");
	for (;;) {
		struct pollfd fds[] = {
			{ .fd = hvpipe_get_fd(pipe), .events = POLLIN | POLLRDHUP },
			{ .fd = STDIN_FILENO, .events = POLLIN },
		};

		if (poll(fds, 2, -1) < 0)
			err(1, "poll");
		if (fds[0].revents)
			receive(pipe);
		if (fds[1].revents) {
			ssize_t len = read(STDIN_FILENO, input, sizeof(input));

			if (len <= 0)
				break;
			if (hvpipe_send(pipe, input, len) < 0)
				err(1, "send");
		}
	}
	hvpipe_close(pipe);
	return 0;
}
