// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe listen: a command for each message; what it prints is the reply. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* How long a command may take to end after SIGTERM, before SIGKILL. */
#define TERM_MS 1000

/* What a command printed. */
struct output {
	char data[HVPIPE_MAX_PAYLOAD];
	size_t len;
	bool too_long;
};

/* Take what the command has printed until now. False at the end of its output. */
static bool read_output(int fd, struct output *output)
{
	for (;;) {
		size_t room = sizeof(output->data) - output->len;
		char data[4096];
		ssize_t n = read(fd, data, sizeof(data));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		if (n == 0)
			return false;
		if ((size_t)n > room) {
			output->too_long = true;
			return true;
		}
		memcpy(output->data + output->len, data, n);
		output->len += n;
	}
}

static void __attribute__((noreturn)) exec_command(int in, int out)
{
	/* A group of its own, so that all of it can be ended; and it ends when this process is killed. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
		_exit(127);
	execl("/bin/sh", "sh", "-c", options.exec, (char *)NULL);
	report("/bin/sh: %s", strerror(errno));
	_exit(127);
}

/*
 * Wait until the command ends, not until its output does: a process that it left in the background may keep that open.
 */
static bool watch_command(int process, int out, pid_t group, struct output *output)
{
	int64_t deadline = options.command_timeout_ms ? now_ms() + options.command_timeout_ms : -1;
	bool timed_out = false, ending = false;

	for (;;) {
		struct pollfd pfds[] = { { .fd = process, .events = POLLIN }, { .fd = out, .events = POLLIN } };
		int64_t left = deadline < 0 ? -1 : deadline > now_ms() ? deadline - now_ms() : 0;

		if (poll(pfds, 2, (int)left) < 0 && errno != EINTR)
			die(EXIT_FAILURE, "poll: %s", strerror(errno));
		if (out >= 0 && !read_output(out, output))
			out = -1;
		if (pfds[0].revents)
			return timed_out;
		if (deadline >= 0 && now_ms() >= deadline && ending) {
			kill(-group, SIGKILL);
			deadline = -1;
		} else if (!ending && (output->too_long || (deadline >= 0 && now_ms() >= deadline))) {
			timed_out = !output->too_long;
			ending = true;
			kill(-group, SIGTERM);
			deadline = now_ms() + TERM_MS;
		}
	}
}

/* The message as a file to read. */
static int open_message(const char *message, size_t len)
{
	int in[2];

	/* A pipe takes a message whole, as it takes PIPE_BUF bytes: no need to feed the command while it runs. */
	_Static_assert(HVPIPE_MAX_RECEIVE <= PIPE_BUF, "a message fits a pipe");
	if (pipe2(in, O_CLOEXEC) || write(in[1], message, len) != (ssize_t)len)
		die(EXIT_FAILURE, "pipe: %s; a message of %zu bytes is lost", strerror(errno), len);
	close(in[1]);
	return in[0];
}

/* Run the command on what is read from @in. True if it succeeded; else it was reported why not. */
static bool run_command(int in, struct output *output)
{
	int out[2], process, status;
	bool timed_out;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC))
		die(EXIT_FAILURE, "pipe: %s; a message is lost", strerror(errno));
	pid = fork();
	if (pid < 0)
		die(EXIT_FAILURE, "fork: %s; a message is lost", strerror(errno));
	if (pid == 0)
		exec_command(in, out[1]);
	setpgid(pid, pid);
	close(in);
	close(out[1]);
	process = pidfd_open(pid, 0);
	if (process < 0)
		die(EXIT_FAILURE, "pidfd_open: %s", strerror(errno));
	fcntl(out[0], F_SETFL, O_NONBLOCK);

	output->len = 0;
	output->too_long = false;
	timed_out = watch_command(process, out[0], pid, output);
	close(out[0]);
	close(process);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;

	if (output->too_long)
		report("%s: stopped, as it printed more than the %d bytes that a message has", options.exec,
		       HVPIPE_MAX_PAYLOAD);
	else if (timed_out)
		report("%s: stopped after %g seconds (--command-timeout)", options.exec,
		       options.command_timeout_ms / 1000.0);
	else if (WIFSIGNALED(status))
		report("%s: killed by signal %d (%s)", options.exec, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status))
		report("%s: exit status %d", options.exec, WEXITSTATUS(status));
	else
		return true;
	return false;
}

/* Open what the command is to read: the message, or the file that it completes. -1: nothing, it is dealt with. */
static int open_input(struct hvpipe *pipe, struct file_receiver *receiver, const char *message, size_t len)
{
	struct file_message_error error;
	char answer[FILE_ANSWER_MAX];
	struct file_answer late;
	size_t answer_len;
	char *path;
	int fd;

	unsetenv("HVPIPE_FILE");
	if (file_answer_parse(&late, message, len))
		return -1;
	if (!options.dir) {
		if (!file_message_refuse(message, len, "hvpipe listen runs there without -d", answer, &answer_len))
			return open_message(message, len);
		if (answer_len) {
			report("%s: file refused: -d would store it", options.source_name);
			endpoint_send(pipe, answer, answer_len);
		}
		return -1;
	}
	switch (store_file(pipe, receiver, message, len, &error)) {
	case FILE_RECEIVER_NONE:
		return open_message(message, len);
	case FILE_RECEIVER_COMPLETE:
		break;
	default:
		return -1;
	}
	fd = openat(receiver->dir, receiver->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		report("%s: %s; no command is run", receiver->name, strerror(errno));
	if (asprintf(&path, "%s/%s", options.dir, receiver->name) < 0 || setenv("HVPIPE_FILE", path, 1))
		die(EXIT_FAILURE, "environment: %s", strerror(errno));
	free(path);
	return fd;
}

int run_listen(void)
{
	char message[HVPIPE_MAX_RECEIVE];
	struct file_message_error error;
	struct file_receiver receiver;
	struct output output;
	char source[16];
	struct hvpipe *pipe;

	if (options.on_failure && strlen(options.on_failure) > HVPIPE_MAX_PAYLOAD)
		usage_error("--on-failure: %zu bytes, and a message has at most %d", strlen(options.on_failure),
			    HVPIPE_MAX_PAYLOAD);
	snprintf(source, sizeof(source), "0x%08" PRIx32, options.source);
	if (setenv("HVPIPE_SOURCE", source, 1))
		die(EXIT_FAILURE, "environment: %s", strerror(errno));
	if (options.dir && file_receiver_open(&receiver, options.dir, false, &error))
		die(EXIT_FAILURE, "%s", error.text);
	endpoint_catch_stop();
	pipe = endpoint_open(HVPIPE_SEND | HVPIPE_RECEIVE);

	for (;;) {
		ssize_t len = endpoint_receive(pipe, message);
		int in = open_input(pipe, &receiver, message, len);
		const char *reply;
		size_t reply_len;
		bool ok;

		if (in < 0)
			continue;
		ok = run_command(in, &output);
		reply = ok ? output.data : options.on_failure;
		reply_len = ok ? output.len : reply ? strlen(reply) : 0;
		if (reply_len && endpoint_send(pipe, reply, reply_len) >= EXIT_SIGNAL)
			break;
	}
	hvpipe_close(pipe);
	return EXIT_SUCCESS;
}
