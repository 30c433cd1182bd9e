// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe listen: a command for each message; what it prints is the reply. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Run the command over one message. Returns the length of all it printed, of which `reply` has the first bytes. */
static uint64_t run_command(const char *message, size_t len, char *reply, size_t size)
{
	int in[2], out[2], status;
	uint64_t total = 0;
	pid_t pid;

	/* A pipe takes a message whole, as it takes PIPE_BUF bytes: no need to feed the command while it runs. */
	_Static_assert(HVPIPE_MAX_RECEIVE <= PIPE_BUF, "a message fits a pipe");
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		die(EXIT_FAILURE, "pipe: %s", strerror(errno));
	if (write(in[1], message, len) != (ssize_t)len)
		die(EXIT_FAILURE, "pipe: %s", strerror(errno));
	close(in[1]);

	pid = fork();
	if (pid < 0)
		die(EXIT_FAILURE, "fork: %s", strerror(errno));
	if (pid == 0) {
		if (dup2(in[0], STDIN_FILENO) < 0 || dup2(out[1], STDOUT_FILENO) < 0)
			_exit(127);
		execl("/bin/sh", "sh", "-c", options.exec, (char *)NULL);
		report("/bin/sh: %s", strerror(errno));
		_exit(127);
	}
	close(in[0]);
	close(out[1]);

	for (;;) {
		char rest[4096];
		char *to = total < size ? reply + total : rest;
		ssize_t n = read(out[0], to, total < size ? size - total : sizeof(rest));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		total += n;
	}
	close(out[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		report("%s: killed by signal %d (%s)", options.exec, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status))
		report("%s: exit status %d", options.exec, WEXITSTATUS(status));
	return total;
}

int run_listen(void)
{
	char message[HVPIPE_MAX_RECEIVE], reply[HVPIPE_MAX_PAYLOAD];
	char source[16];
	struct hvpipe *pipe;

	snprintf(source, sizeof(source), "0x%08" PRIx32, options.source);
	if (setenv("HVPIPE_SOURCE", source, 1))
		die(EXIT_FAILURE, "environment: %s", strerror(errno));
	endpoint_catch_stop();
	pipe = endpoint_open();

	for (;;) {
		ssize_t len = endpoint_receive(pipe, message);
		uint64_t reply_len = run_command(message, len, reply, sizeof(reply));

		if (reply_len > sizeof(reply))
			report("%s: reply of %" PRIu64 " bytes not sent: a message has at most %d",
			       options.exec, reply_len, HVPIPE_MAX_PAYLOAD);
		else if (reply_len && endpoint_send(pipe, reply, reply_len) && errno == EINTR)
			break;
	}
	hvpipe_close(pipe);
	return EXIT_SUCCESS;
}
