// SPDX-License-Identifier: GPL-2.0-or-later
#include "test-program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

pid_t pid;
int in = -1, out = -1, err = -1;

void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_files(void)
{
	close_fd(&in);
	close_fd(&out);
	close_fd(&err);
}

void start_program(const char *const *argv, int terminal)
{
	int in_pipe[2], out_pipe[2], err_pipe[2];

	close_files();
	assert_int_equal(pipe2(in_pipe, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out_pipe, O_CLOEXEC), 0);
	assert_int_equal(pipe2(err_pipe, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		dup2(in_pipe[0], STDIN_FILENO);
		dup2(terminal >= 0 ? terminal : out_pipe[1], STDOUT_FILENO);
		dup2(err_pipe[1], STDERR_FILENO);
		execv(argv[0], (char **)argv);
		_exit(127);
	}
	close(in_pipe[0]);
	close(out_pipe[1]);
	close(err_pipe[1]);
	in = in_pipe[1];
	out = out_pipe[0];
	err = err_pipe[0];
}

int start_on_terminal(const char *const *argv)
{
	close_files();
	fflush(NULL);
	pid = forkpty(&in, NULL, NULL, NULL);
	assert_true(pid >= 0);
	if (pid == 0) {
		execv(argv[0], (char **)argv);
		_exit(127);
	}
	return in;
}

void end_program(void)
{
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	pid = 0;
	close_files();
}

void type(const char *text)
{
	assert_int_equal(write(in, text, strlen(text)), strlen(text));
}

void expect_exit(int status)
{
	int64_t deadline = now_ms() + LIMIT_S * 1000;
	int found;

	while (!waitpid(pid, &found, WNOHANG)) {
		if (now_ms() > deadline)
			fail_msg("the program does not end");
		usleep(1000);
	}
	pid = 0;
	if (!WIFEXITED(found) || WEXITSTATUS(found) != status)
		fail_msg("wait status 0x%x, not exit status %d: %s", found, status, err >= 0 ? read_all(err) : "");
}

char *read_all(int fd)
{
	static char texts[4][200000];
	static unsigned int next;
	char *text = texts[next++ % 4];
	size_t len = 0;
	ssize_t n;

	while ((n = read(fd, text + len, sizeof(texts[0]) - 1 - len)) > 0)
		len += n;
	text[len] = '\0';
	return text;
}

void expect_text(int fd, const char *expected)
{
	assert_string_equal(read_all(fd), expected);
}

void expect_words(int fd, const char *words)
{
	char *text = read_all(fd);

	if (!strstr(text, words))
		fail_msg("'%s' is not in: %s", words, text);
}

void wait_for(int fd, const char *words)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	char text[10000] = "";
	size_t len = 0;

	while (!strstr(text, words)) {
		if (len + 1 == sizeof(text) || poll(&pfd, 1, LIMIT_S * 1000) != 1 || read(fd, text + len, 1) != 1)
			fail_msg("'%s' is not in: %s", words, text);
		if (text[len])
			text[++len] = '\0';
	}
}
