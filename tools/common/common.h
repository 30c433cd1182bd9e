/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What hvpipe(1) and hvpipe-hmc(1) share. */
#ifndef COMMON_H
#define COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each program has its own; report() begins a line with it. */
extern const char program_name[];

/* One line on standard error. */
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define die(status, ...) \
	do { \
		report(__VA_ARGS__); \
		exit(status); \
	} while (0)

/* Wrong usage: report it, say where the usage is, and exit. */
void usage_error(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Make sure that descriptors 0 to 2 are open: otherwise a file that we open would become a standard one. */
void open_standard_files(void);

/* Write it all, and wait where the descriptor would block. False with errno. */
bool write_all(int fd, const void *data, size_t len);

/* A number from @min to @max and nothing else: no sign, no space. @base as for strtoull(). */
bool parse_number(const char *text, int base, uint64_t min, uint64_t max, uint64_t *number);

/* Options with a number, or the program ends with an error that names the value. */
uint64_t parse_count(const char *text);
int parse_timeout_ms(const char *text);	/* seconds, rounded up to milliseconds */

/**
 * catch_stop() - From now on the first SIGINT or SIGTERM makes the returned descriptor readable; the second one kills.
 *
 * So the message in hand can be finished, and nothing received is lost.
 */
int catch_stop(void);
int stop_signal(void);		/* the signal that came, or 0 */

#endif
