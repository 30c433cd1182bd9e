/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For tests: a program that runs, and what it says. */
#ifndef TEST_PROGRAM_H
#define TEST_PROGRAM_H

#include <stdbool.h>
#include <sys/types.h>

/* Longer than anything takes: an end that does not come is a failure, not a wait without end. */
#define LIMIT_S 20

extern pid_t pid;	 /* of the program, 0 when there is none */
extern int in, out, err; /* its standard files, -1 when closed */

void close_fd(int *fd);

/* Run a program in place of the one before. @terminal: its standard output, -1 for a pipe. */
void start_program(const char *const *argv, int terminal);

/* Run a program on a terminal of its own, which becomes `in`, and is returned. */
int start_on_terminal(const char *const *argv);

/* Kill the program if it still runs, and close its files. */
void end_program(void);

void type(const char *text);
void expect_exit(int status);

/* All that comes until the end of the file. The text stays as it is during the next three calls. */
char *read_all(int fd);
void expect_text(int fd, const char *expected);
void expect_words(int fd, const char *words);

/* Read until these words came. */
void wait_for(int fd, const char *words);

#endif
