// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe listen: a command for each message, several at a time; what it prints is the reply. */
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

/* A command that runs on a message. */
struct job {
	pid_t pid; /* also of its process group; 0: none */
	int process;
	int out; /* -1: it has closed its output */
	int64_t deadline;
	bool ending; /* it was told to */
	bool timed_out;
	bool too_long;
	size_t len;
	char data[HVPIPE_MAX_PAYLOAD]; /* what it printed */
};

static struct job jobs[JOBS_MAX];
static unsigned int nr_jobs;

/* Take what the command has printed until now. False at the end of its output. */
static bool read_output(struct job *job)
{
	for (;;) {
		char data[4096];
		ssize_t n = read(job->out, data, sizeof(data));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		if (n == 0)
			return false;
		if ((size_t)n > sizeof(job->data) - job->len) {
			job->too_long = true;
			return true;
		}
		memcpy(job->data + job->len, data, n);
		job->len += n;
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

/* Run the command on what is read from @in. */
static void start_job(int in)
{
	struct job *job = jobs;
	int out[2];

	while (job->pid)
		job++;
	if (pipe2(out, O_CLOEXEC))
		die(EXIT_FAILURE, "pipe: %s; a message is lost", strerror(errno));
	job->pid = fork();
	if (job->pid < 0)
		die(EXIT_FAILURE, "fork: %s; a message is lost", strerror(errno));
	if (job->pid == 0)
		exec_command(in, out[1]);
	setpgid(job->pid, job->pid);
	close(in);
	close(out[1]);
	job->process = pidfd_open(job->pid, 0);
	if (job->process < 0)
		die(EXIT_FAILURE, "pidfd_open: %s", strerror(errno));
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	job->out = out[0];
	job->deadline = options.command_timeout_ms ? now_ms() + options.command_timeout_ms : -1;
	job->ending = job->timed_out = job->too_long = false;
	job->len = 0;
	nr_jobs++;
}

/* True if the command succeeded; else it is reported why not. */
static bool has_succeeded(const struct job *job, int status)
{
	if (job->too_long)
		report("%s: stopped, as it printed more than the %d bytes that a message has", options.exec,
		       HVPIPE_MAX_PAYLOAD);
	else if (job->timed_out)
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

/* The command has ended: send its output. */
static void end_job(struct hvpipe *pipe, struct job *job, int status)
{
	bool ok = has_succeeded(job, status);
	const char *reply = ok ? job->data : options.on_failure;
	size_t len = ok ? job->len : reply ? strlen(reply) : 0;

	if (job->out >= 0)
		close(job->out);
	close(job->process);
	job->pid = 0;
	nr_jobs--;
	if (len && endpoint_send(pipe, reply, len) >= EXIT_SIGNAL)
		exit(EXIT_SUCCESS);
}

/*
 * Take the command's output, and see to its end: not to that of its output, which a process that it left in the
 * background may keep open.
 */
static void serve_job(struct hvpipe *pipe, struct job *job)
{
	int status;
	bool ended = waitpid(job->pid, &status, WNOHANG) == job->pid;
	bool late = job->deadline >= 0 && now_ms() >= job->deadline;

	if (job->out >= 0 && !job->too_long && !read_output(job)) {
		close(job->out);
		job->out = -1;
	}
	if (ended) {
		end_job(pipe, job, status);
	} else if (late && job->ending) {
		kill(-job->pid, SIGKILL);
		job->deadline = -1;
	} else if (!job->ending && (job->too_long || late)) {
		job->timed_out = !job->too_long;
		job->ending = true;
		kill(-job->pid, SIGTERM);
		job->deadline = now_ms() + TERM_MS;
	}
}

/*
 * Wait for a message, if another command may run, or until there is something to do for one that runs. Returns the
 * length of the message, or 0.
 */
static ssize_t wait_for_work(struct hvpipe *pipe, void *message)
{
	struct pollfd pfds[2 * JOBS_MAX];
	int64_t deadline = -1;
	nfds_t count = 0;

	for (size_t i = 0; i < JOBS_MAX; i++) {
		const struct job *job = &jobs[i];

		if (!job->pid)
			continue;
		pfds[count++] = (struct pollfd){ .fd = job->process, .events = POLLIN };
		/* What is printed in excess stays unread until the command has ended. */
		pfds[count++] = (struct pollfd){ .fd = job->too_long ? -1 : job->out, .events = POLLIN };
		if (job->deadline >= 0 && (deadline < 0 || job->deadline < deadline))
			deadline = job->deadline;
	}
	/* A signal ends the program when the commands have ended. */
	if (nr_jobs == options.jobs || (nr_jobs && stop_signal()))
		pipe = NULL;
	return endpoint_receive_or(pipe, message, deadline, pfds, count);
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
		ssize_t len = wait_for_work(pipe, message);
		int in = len ? open_input(pipe, &receiver, message, len) : -1;

		if (in >= 0)
			start_job(in);
		for (size_t i = 0; i < JOBS_MAX; i++)
			if (jobs[i].pid)
				serve_job(pipe, &jobs[i]);
	}
}
