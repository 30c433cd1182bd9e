// SPDX-License-Identifier: GPL-2.0-or-later
/* Unit tests of what both tools share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

const char program_name[] = "test";

static void assert_escaped(const char *text, enum escape mode, const char *expected)
{
	char *escaped = escape_text(text, strlen(text), mode);

	assert_string_equal(escaped, expected);
	free(escaped);
}

static void escape_terminal(void **state)
{
	char *escaped;

	assert_escaped("plain text, \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", ESCAPE_ALL,
		       "plain text, \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
	assert_escaped("\x1b[2J\x07\x7f", ESCAPE_LINE, "\\x1b[2J\\x07\\x7f");
	/* C1 controls: as UTF-8, and as a byte */
	assert_escaped("\xc2\x9b"
		       "2J\x9b"
		       "2J\xc2\x80",
		       ESCAPE_LINE, "\\xc2\\x9b2J\\x9b2J\\xc2\\x80");
	assert_escaped("a\nb\tc\rd", ESCAPE_LINE, "a\\nb\\tc\\x0dd");
	assert_escaped("a\nb\tc\rd", ESCAPE_LINES, "a\nb\tc\\x0dd");
	assert_escaped("a\\b", ESCAPE_LINE, "a\\b");
	assert_escaped("a\\b", ESCAPE_ALL, "a\\\\b");
	/* right-to-left override, line separator, zero width space, byte order mark, a tag, private use */
	assert_escaped("\xe2\x80\xae\xe2\x80\xa8\xe2\x80\x8b", ESCAPE_LINE,
		       "\\xe2\\x80\\xae\\xe2\\x80\\xa8\\xe2\\x80\\x8b");
	assert_escaped("\xef\xbb\xbf\xf3\xa0\x80\xa0\xee\x80\x80", ESCAPE_LINE,
		       "\\xef\\xbb\\xbf\\xf3\\xa0\\x80\\xa0\\xee\\x80\\x80");
	escaped = escape_text("a\0b", 3, ESCAPE_LINE);
	assert_string_equal(escaped, "a\\x00b");
	free(escaped);
	escaped = escape_text("", 0, ESCAPE_LINE);
	assert_string_equal(escaped, "");
	free(escaped);
}

static void escape_no_utf8(void **state)
{
	/* overlong, surrogate, beyond the last character, cut short, a byte that never occurs */
	assert_escaped("\xc0\x80", ESCAPE_LINE, "\\xc0\\x80");
	assert_escaped("\xc1\x9b", ESCAPE_LINE, "\\xc1\\x9b");
	assert_escaped("\xe0\x9b\x80", ESCAPE_LINE, "\\xe0\\x9b\\x80");
	assert_escaped("\xed\xa0\x80", ESCAPE_LINE, "\\xed\\xa0\\x80");
	assert_escaped("\xf4\x90\x80\x80", ESCAPE_LINE, "\\xf4\\x90\\x80\\x80");
	assert_escaped("\xf0\x80\x80\x9b", ESCAPE_LINE, "\\xf0\\x80\\x80\\x9b");
	assert_escaped("\xe2\x82", ESCAPE_LINE, "\\xe2\\x82");
	assert_escaped("\xe2\x82x", ESCAPE_LINE, "\\xe2\\x82x");
	assert_escaped("\xff", ESCAPE_LINE, "\\xff");
}

/* No byte string yields a control character or invalid UTF-8, and what is escaped once stays as it is. */
static void escape_random(void **state)
{
	srand(1);
	for (int round = 0; round < 20000; round++) {
		char data[12], *once, *twice;
		size_t len = rand() % sizeof(data);

		for (size_t i = 0; i < len; i++)
			data[i] = rand() % 3 ? 0x80 + rand() % 0x80 : rand();
		once = escape_text(data, len, ESCAPE_LINE);
		for (const unsigned char *p = (unsigned char *)once; *p; p++) {
			assert_true(*p >= ' ' && *p != 0x7f);
			assert_false(*p == 0xc2 && p[1] < 0xa0);
		}
		twice = escape_text(once, strlen(once), ESCAPE_LINE);
		assert_string_equal(once, twice);
		free(once);
		free(twice);
	}
}

static void numbers(void **state)
{
	uint64_t n;

	assert_true(parse_number("0", 10, 0, 9, &n) && n == 0);
	assert_true(parse_number("18446744073709551615", 10, 1, UINT64_MAX, &n) && n == UINT64_MAX);
	assert_true(parse_number("0x10", 0, 0, 99, &n) && n == 16);
	for (const char *const *bad =
		     (const char *const[]){ "", " 1", "-1", "+1", "1x", "x", "18446744073709551616", "10", NULL };
	     *bad; bad++)
		assert_false(parse_number(*bad, 10, 0, 9, &n));
	assert_int_equal(parse_timeout_ms("0"), 0);
	assert_int_equal(parse_timeout_ms("0.0001"), 1);
	assert_int_equal(parse_timeout_ms("1.5"), 1500);
	assert_int_equal(parse_message_size("4048", 4088), 4048);
}

/* Run in a process of its own, and return its exit status and standard error. */
static int run(void (*function)(void), char *said, size_t size)
{
	int err[2], status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(err), 0);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		dup2(err[1], STDERR_FILENO);
		close(err[0]);
		close(err[1]);
		begin_program();
		function();
		exit(0);
	}
	close(err[1]);
	while (len < size - 1 && (n = read(err[0], said + len, size - 1 - len)) > 0)
		len += n;
	said[len] = '\0';
	close(err[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void report_often(void)
{
	for (int i = 0; i < 1000; i++) {
		report("again");
		report("and again");
	}
	report("other \x1b[2J");
	report("again");
}

static void reports_counted(void **state)
{
	static const char twice[] = "test: again\ntest: and again\n";
	char said[4096];

	assert_int_equal(run(report_often, said, sizeof(said)), 0);
	for (int i = 0; i < REPORT_MAX; i++)
		assert_memory_equal(said + i * strlen(twice), twice, strlen(twice));
	assert_string_equal(said + REPORT_MAX * strlen(twice),
			    "test: again (990 more times)\n"
			    "test: and again (990 more times)\ntest: other \\x1b[2J\ntest: again (1 more times)\n");
}

static void report_flood(void)
{
	for (int i = 0; i < 1000; i++)
		if (may_report())
			report("file %d refused", i);
	report("mine");
}

static void flood_bounded(void **state)
{
	char said[8192];

	assert_int_equal(run(report_flood, said, sizeof(said)), 0);
	assert_non_null(strstr(said, "test: file 99 refused\ntest: mine\n"
				     "test: reports left out, as there were too many: 900\n"));
	assert_null(strstr(said, "file 100 "));
}

/* Get SIGINT in 100 ms. A test that it does not end is killed after 10 s. */
static void interrupt_soon(void)
{
	catch_stop();
	signal(SIGALRM, SIG_DFL);
	alarm(10);
	if (fork() == 0) {
		usleep(100000);
		kill(getppid(), SIGINT);
		_exit(0);
	}
}

/* Nobody reads standard error: a signal ends the wait. */
static void report_to_full_pipe(void)
{
	int64_t began = now_ms();
	int fds[2];

	if (pipe(fds))
		exit(10);
	dup2(fds[1], STDERR_FILENO);
	interrupt_soon();
	for (int i = 0; !stop_signal(); i++)
		report("%0999d", i);
	for (int i = 0; i < 100; i++)
		report("%d", i);
	exit(now_ms() - began < 1100 ? 42 : 11);
}

static void print_to_full(void)
{
	assert_true(freopen("/dev/full", "w", stdout));
	printf("text\n");
}

static void output_full(void **state)
{
	char said[4096];

	assert_int_equal(run(print_to_full, said, sizeof(said)), EXIT_FAILURE);
	assert_string_equal(said, "test: standard output: No space left on device\n");
}

/* Nobody reads the pipe: a signal ends the write, and its time is over after a second. */
static void write_to_full_pipe(void)
{
	char data[4096] = "";
	int fds[2];
	int64_t began = now_ms();

	if (pipe(fds))
		exit(10);
	interrupt_soon();
	for (int i = 0; i < 1000; i++)
		if (!write_all(fds[1], data, sizeof(data)))
			exit(errno == EINTR && stop_signal() == SIGINT && now_ms() - began < 1100 ? 42 : 11);
}

/* A reader that is only slow gets all, even after the signal. */
static void write_to_slow_pipe(void)
{
	char data[4096] = "";
	int fds[2];

	if (pipe(fds))
		exit(10);
	catch_stop();
	raise(SIGTERM);
	if (fork() == 0) {
		close(fds[1]);
		while (read(fds[0], data, sizeof(data)) > 0)
			usleep(1000);
		_exit(0);
	}
	for (int i = 0; i < 100; i++)
		if (!write_all(fds[1], data, sizeof(data)))
			exit(11);
	exit(stop_signal() == SIGTERM ? 42 : 12);
}

static void signals_end_writes(void **state)
{
	char said[4096];

	assert_int_equal(run(write_to_full_pipe, said, sizeof(said)), 42);
	assert_int_equal(run(write_to_slow_pipe, said, sizeof(said)), 42);
	assert_int_equal(run(report_to_full_pipe, said, sizeof(said)), 42);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(escape_terminal), cmocka_unit_test(escape_no_utf8),
		cmocka_unit_test(escape_random),   cmocka_unit_test(numbers),
		cmocka_unit_test(reports_counted), cmocka_unit_test(flood_bounded),
		cmocka_unit_test(output_full),	   cmocka_unit_test(signals_end_writes),
	};

	return cmocka_run_group_tests_name("common", tests, NULL, NULL);
}
