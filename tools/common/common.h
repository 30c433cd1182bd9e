/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What hvpipe(1) and hvpipe-hmc(1) share. */
#ifndef COMMON_H
#define COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The exit statuses of both tools; the man pages have the same table. */
enum {
	EXIT_USAGE = 2,
	EXIT_NO_PIPE = 3,      /* no hypervisor pipe in this partition */
	EXIT_IN_USE = 4,       /* another process holds the source */
	EXIT_CLOSED = 5,       /* nobody takes messages at the source */
	EXIT_NO_MESSAGE = 6,   /* nothing came within -t */
	EXIT_SUSPENDED = 7,    /* the partition's pipe is suspended or disabled */
	EXIT_STATE_IN_USE = 8, /* another process uses the state file */
	EXIT_REFUSED = 10,     /* the receiver refused a file */
	EXIT_UNKNOWN = 11,     /* the receiver of a file did not answer: nobody can tell if it is stored */
	EXIT_SIGNAL = 128,     /* plus the signal that ended the command before it was done */
};

/* Each program has its own; report() begins a line with it. */
extern const char program_name[];

/*
 * Text that the other side may have had a part in, with everything replaced that a terminal would not just print:
 * controls, invalid UTF-8, characters that are invisible or change the order of text. For free(); NULL when there is no
 * memory.
 */
enum escape {
	ESCAPE_LINE,  /* for a line to read: newlines and tabs are replaced too */
	ESCAPE_LINES, /* newlines and tabs stay */
	ESCAPE_ALL,   /* as ESCAPE_LINE, and a backslash is doubled: the bytes can be told from the text */
};
char *escape_text(const void *data, size_t len, enum escape mode);

/*
 * One line on standard error, escaped. Of the same line REPORT_MAX are printed in REPORT_MS. More are only counted: the
 * count is shown with the next line, or at the end.
 */
#define REPORT_MAX 10
#define REPORT_MS  10000
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Ask before a line that the other side can cause as often as it likes, each with other words: of these
 * REPORT_OTHERS_MAX are allowed in REPORT_MS. More are only counted, and shown as a number.
 */
#define REPORT_OTHERS_MAX 100
bool may_report(void);

/*
 * Progress of a long transfer that began at @began, a time of now_ms(): a line on standard error, if that is a
 * terminal. It comes after a second, and then overwrites itself. @size is 0 when it is not known. report() removes the
 * line, and clear_progress() does so before something is written to standard output.
 */
void show_progress(const char *name, uint64_t bytes, uint64_t size, int64_t began);
void clear_progress(void);

#define die(status, ...)             \
	do {                         \
		report(__VA_ARGS__); \
		exit(status);        \
	} while (0)

/* Wrong usage: report it, say where the usage is, and exit. */
void usage_error(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/**
 * begin_program() - The first call of main(): prepare the standard files.
 *
 * Descriptors 0 to 2 get opened, as otherwise a file that we open would become a standard one. Output that cannot be
 * written, to a full disk for example, makes the exit status 1 at the end of the program.
 */
void begin_program(void);

/* Milliseconds of a clock that never goes back. */
int64_t now_ms(void);

/**
 * write_all() - Write all of it, and wait where the descriptor would block.
 *
 * After catch_stop() a signal ends the wait within a second.
 *
 * Return: false with errno, EINTR for the signal. A part may have been written.
 */
bool write_all(int fd, const void *data, size_t len);

/*
 * Write to standard output a message of the other side: as it is, but on a terminal escaped and as a line of its own.
 */
bool write_message(const void *data, size_t len);

/* A number from @min to @max and nothing else: no sign, no space. @base as for strtoull(). */
bool parse_number(const char *text, int base, uint64_t min, uint64_t max, uint64_t *number);

/* The number that an option has, or the program ends with an error that names the value. */
uint64_t parse_count(const char *text);
int parse_timeout_ms(const char *text); /* seconds, rounded up to milliseconds */
size_t parse_message_size(const char *text, size_t max);

/**
 * catch_stop() - From now on the first SIGINT or SIGTERM makes the returned descriptor readable; the second one kills.
 *
 * So the message in hand can be finished, and nothing received is lost.
 */
int catch_stop(void);
int stop_signal(void); /* the signal that came, or 0 */

#endif
