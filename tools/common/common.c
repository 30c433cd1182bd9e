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
#include <time.h>
#include <unistd.h>

/* When progress is shown, and how often. */
#define PROGRESS_AFTER_MS 1000
#define PROGRESS_MS	  100

/* How long a signal lets a write take that waits for its reader. */
#define STOP_GRACE_MS 400

/* The last lines, so that repeated ones are not printed for ever. */
static struct recent {
	char *line;
	int64_t first_ms;
	unsigned int printed;
	unsigned int repeated; /* and not printed */
} recent[4];

/* Lines that may_report() was asked for. */
static struct {
	int64_t first_ms;
	unsigned int allowed;
	unsigned int left_out;
} others;

static bool progress_shown;

static volatile sig_atomic_t stopped_by;
static int stop_pipe[2] = { -1, -1 };

int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

void clear_progress(void)
{
	static const char clear[] = "\r\033[K";

	if (progress_shown)
		write_all(STDERR_FILENO, clear, strlen(clear));
	progress_shown = false;
}

static const char *format_bytes(double bytes, char text[static 16])
{
	static const char units[] = "KMGTPE";
	int unit = -1;

	for (; bytes >= 1024; unit++)
		bytes /= 1024;
	if (unit < 0)
		snprintf(text, 16, "%.0f bytes", bytes);
	else
		snprintf(text, 16, "%.1f %ciB", bytes, units[unit]);
	return text;
}

void show_progress(const char *name, uint64_t bytes, uint64_t size, int64_t began)
{
	static int64_t shown;
	int64_t now = now_ms();
	char done[16], rate[16], percent[16] = "", *escaped, *line;
	int len;

	if (now - began < PROGRESS_AFTER_MS || now - shown < PROGRESS_MS)
		return;
	shown = now;
	if (!isatty(STDERR_FILENO))
		return;
	escaped = escape_text(name, strlen(name), ESCAPE_LINE);
	if (size)
		snprintf(percent, sizeof(percent), "%.0f %%, ", 100.0 * bytes / size);
	len = asprintf(&line, "\r%s: %s, %s%s/s\033[K", escaped ? escaped : "", format_bytes(bytes, done), percent,
		       format_bytes(bytes * 1000.0 / (now - began), rate));
	free(escaped);
	if (len < 0)
		return;
	progress_shown = true;
	write_all(STDERR_FILENO, line, len);
	free(line);
}

/* Nobody may read standard error: then a signal ends the wait, and no later line waits again. */
static void __attribute__((format(printf, 1, 2))) print_error(const char *format, ...)
{
	static bool unread;
	va_list args;
	char *text;
	int len;

	va_start(args, format);
	len = vasprintf(&text, format, args);
	va_end(args);
	if (len < 0)
		return;
	clear_progress();
	if (!unread && !write_all(STDERR_FILENO, text, len))
		unread = stopped_by != 0;
	free(text);
}

static void print_repeated(void)
{
	for (size_t i = 0; i < sizeof(recent) / sizeof(recent[0]); i++) {
		if (recent[i].repeated)
			print_error("%s: %s (%u more times)\n", program_name, recent[i].line, recent[i].repeated);
		recent[i].repeated = 0;
	}
}

static void print_left_out(void)
{
	if (others.left_out)
		print_error("%s: reports left out, as there were too many: %u\n", program_name, others.left_out);
	others.left_out = 0;
}

bool may_report(void)
{
	int64_t now = now_ms();

	if (now - others.first_ms >= REPORT_MS) {
		print_left_out();
		others.first_ms = now;
		others.allowed = 0;
	}
	if (others.allowed == REPORT_OTHERS_MAX) {
		others.left_out++;
		return false;
	}
	others.allowed++;
	return true;
}

/* Print the line, or count it if it was printed often enough a short time ago. */
static void print_line(const char *line)
{
	struct recent *place = recent;
	int64_t now = now_ms();

	for (size_t i = 0; i < sizeof(recent) / sizeof(recent[0]); i++) {
		struct recent *one = &recent[i];

		if (one->line && !strcmp(one->line, line)) {
			place = one;
			break;
		}
		if (one->first_ms < place->first_ms)
			place = one;
	}
	if (!place->line || strcmp(place->line, line) || now - place->first_ms >= REPORT_MS) {
		print_repeated();
		free(place->line);
		*place = (struct recent){ .line = strdup(line), .first_ms = now };
	}
	if (place->printed == REPORT_MAX) {
		place->repeated++;
		return;
	}
	place->printed++;
	print_repeated();
	print_error("%s: %s\n", program_name, line);
}

/* The escaped text, or NULL when there is no memory. */
static char *format_line(const char *format, va_list args)
{
	char *text, *line;

	if (vasprintf(&text, format, args) < 0)
		return NULL;
	line = escape_text(text, strlen(text), ESCAPE_LINE);
	free(text);
	return line;
}

void report(const char *format, ...)
{
	va_list args;
	char *line;

	va_start(args, format);
	line = format_line(format, args);
	va_end(args);
	print_line(line ? line : "no memory for a message");
	free(line);
}

void usage_error(const char *format, ...)
{
	va_list args;
	char *line;

	va_start(args, format);
	line = format_line(format, args);
	va_end(args);
	fprintf(stderr, "%s: %s; see `%s --help`\n", program_name, line ? line : "wrong usage", program_name);
	exit(EXIT_USAGE);
}

/* At exit: what is still to be printed. */
static void end_output(void)
{
	print_repeated();
	print_left_out();
	/* EBADF: somebody closed it on purpose. */
	if ((fflush(stdout) || ferror(stdout)) && errno != EBADF) {
		fprintf(stderr, "%s: standard output: %s\n", program_name, strerror(errno));
		_exit(EXIT_FAILURE);
	}
}

void begin_program(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
	atexit(end_output);
}

/* Wait until a write does not block. Only a signal ends the wait, and not before the reader had a last chance. */
static bool wait_writable(int fd)
{
	struct pollfd pfds[] = {
		{ .fd = fd, .events = POLLOUT },
		{ .fd = stop_pipe[0], .events = POLLIN },
	};
	int n;

	do
		n = poll(pfds, 2, -1);
	while (n < 0 && errno == EINTR);
	if (n > 0 && !pfds[0].revents) {
		do
			n = poll(pfds, 1, STOP_GRACE_MS);
		while (n < 0 && errno == EINTR);
		errno = EINTR;
	}
	return n > 0;
}

bool write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		/* A pipe that is writable takes PIPE_BUF bytes without blocking. */
		ssize_t n = wait_writable(fd) ? write(fd, p, len < PIPE_BUF ? len : PIPE_BUF) : -1;

		if (n < 0 && errno == EINTR && stopped_by)
			return false;
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

bool write_message(const void *data, size_t len)
{
	char *text;
	bool ok;

	if (!isatty(STDOUT_FILENO))
		return write_all(STDOUT_FILENO, data, len);
	text = escape_text(data, len, ESCAPE_LINES);
	if (!text)
		return false;
	len = strlen(text);
	ok = write_all(STDOUT_FILENO, text, len) &&
	     ((len && text[len - 1] == '\n') || write_all(STDOUT_FILENO, "\n", 1));
	free(text);
	return ok;
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

size_t parse_message_size(const char *text, size_t max)
{
	uint64_t size;

	if (!parse_number(text, 10, 1, max, &size))
		usage_error("message size '%s': bytes from 1 to %zu are needed", text, max);
	return size;
}

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
