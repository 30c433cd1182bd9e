// SPDX-License-Identifier: GPL-2.0-or-later
#include "common.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void vreport(const char *format, va_list args, const char *end)
{
	fprintf(stderr, "%s: ", program_name);
	vfprintf(stderr, format, args);
	fputs(end, stderr);
}

void report(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vreport(format, args, "\n");
	va_end(args);
}

void usage_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vreport(format, args, "");
	va_end(args);
	fprintf(stderr, "; see `%s --help`\n", program_name);
	exit(2);
}

void open_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

bool write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd pfd = { .fd = fd, .events = POLLOUT };

			poll(&pfd, 1, -1);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

bool parse_number(const char *text, int base, uint64_t min, uint64_t max, uint64_t *number)
{
	char *end;

	errno = 0;
	*number = strtoull(text, &end, base);
	return isdigit((unsigned char)text[0]) && !*end && !errno && *number >= min && *number <= max;
}

uint64_t parse_count(const char *text)
{
	uint64_t count;

	if (!parse_number(text, 10, 1, UINT64_MAX, &count))
		usage_error("count '%s': a number from 1 on is needed", text);
	return count;
}

int parse_timeout_ms(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);
	int ms;

	/* Written so that NaN fails. */
	if (end == text || *end || !(seconds >= 0 && seconds <= INT_MAX / 1000))
		usage_error("timeout '%s': seconds from 0 to %d are needed", text, INT_MAX / 1000);
	ms = (int)(seconds * 1000);
	return ms < seconds * 1000 ? ms + 1 : ms;
}

static volatile sig_atomic_t stopped_by;
static int stop_pipe[2] = { -1, -1 };

static void on_stop(int signo)
{
	int saved = errno;

	stopped_by = signo;
	/* It fails only when the pipe is full, and then it is readable already. */
	if (write(stop_pipe[1], "", 1) < 0)
		errno = saved;
}

int catch_stop(void)
{
	struct sigaction action = { .sa_handler = on_stop, .sa_flags = SA_RESTART | SA_RESETHAND };

	if (pipe2(stop_pipe, O_CLOEXEC | O_NONBLOCK))
		die(EXIT_FAILURE, "pipe: %s", strerror(errno));
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	return stop_pipe[0];
}

int stop_signal(void)
{
	return stopped_by;
}
