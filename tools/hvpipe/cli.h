/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hvpipe(1): what its commands share. */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common.h"
#include "hvpipe.h"

struct options {
	uint32_t source;
	char source_name[32];	/* as it was typed, for messages */
	bool file;
	bool reply;
	const char *dir;
	const char *exec;
	uint64_t count;		/* 0: without end */
	int timeout_ms;		/* -1: without end */
};

extern struct options options;

/* The commands: each returns the exit status, or exits. */
int run_send(int argc, char **argv);
int run_recv(void);
int run_listen(void);
int run_status(void);

/*
 * The source that the options name (endpoint.c). A function that fails has reported why.
 */

/* The first signal ends the commands that wait from now on. */
void endpoint_catch_stop(void);

/* Exits when it cannot be opened. */
struct hvpipe *endpoint_open(void);

/**
 * endpoint_send() - Send one message.
 *
 * Waits while the partition is suspended, and gives a source that was there before time to come back.
 *
 * Return: 0, or -1 with errno; EINTR when a signal ended the wait.
 */
int endpoint_send(struct hvpipe *pipe, const void *message, size_t len);

/* Receive one message of up to HVPIPE_MAX_RECEIVE bytes. Exits when there will be none. */
ssize_t endpoint_receive(struct hvpipe *pipe, void *message);

/* Exit because of an errno that says that nothing can go through the pipe at all. */
void die_no_device(int err) __attribute__((noreturn));

/* Write to standard output, or exit. */
void write_stdout(const void *data, size_t len);

#endif
