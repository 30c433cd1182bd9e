/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hvpipe(1): what its commands share. */
#ifndef CLI_H
#define CLI_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common.h"
#include "file-message.h"
#include "hvpipe.h"

/* For doctor only: there are warnings, and no errors. */
#define EXIT_WARNING 9

/* The most commands that listen runs at a time. */
#define JOBS_MAX 64

struct options {
	uint32_t source;
	char source_name[32]; /* as it was typed, for messages */
	bool source_given;
	bool file;
	bool reply;
	bool json;
	bool direct; /* the device, also where hvpiped answers */
	const char *dir;
	const char *exec;
	const char *on_failure; /* reply when the command fails; NULL: none */
	const char *report;	/* file for the report of doctor */
	const char *root;	/* doctor looks below this directory */
	uint64_t count;		/* 0: without end */
	unsigned int jobs;	/* commands of listen at a time */
	int timeout_ms;		/* -1: without end */
	int command_timeout_ms; /* 0: without end */
	int retry_ms;		/* how long to try a message again that is in doubt; 0: not at all */
	size_t message_size;
};

extern struct options options;

/* The commands: each returns the exit status, or exits. */
int run_send(int argc, char **argv);
int run_recv(void);
int run_listen(void);
int run_status(void);
int run_doctor(void);
int run_ping(void);
int run_monitor(void);
int run_wake(void);

/*
 * The source that the options name (endpoint.c).
 */

/* The first signal ends the commands that wait from now on. */
void endpoint_catch_stop(void);

/* From now on receive only while somebody reads standard output. */
void endpoint_watch_reader(void);

/*
 * Open the source through hvpiped, or the device where hvpiped does not answer or does not serve this source. Exits
 * when it cannot be opened. @rights: HVPIPE_RECEIVE and so on. HVPIPE_OBSERVE with HVPIPE_SEND is observing at hvpiped,
 * and receiving from the device.
 */
struct hvpipe *endpoint_open(int rights);

/* Does the program observe at hvpiped? Then what comes is for others too: for the receiver there. */
bool endpoint_observes(void);

/**
 * endpoint_send() - Send one message.
 *
 * A message that is in doubt, as the partition was suspended or the connection to the source was lost, is sent again
 * until the time of --retry is over, and may arrive twice then.
 *
 * After endpoint_catch_stop() a signal ends the wait within a second. The source may have the message, and the handle
 * is in use until the program ends: it is not closed, and nothing more is sent.
 *
 * Return: the exit status, after a report; 0 when the source has taken the message.
 */
int endpoint_send(struct hvpipe *pipe, const void *message, size_t len);

/* Receive one message of up to HVPIPE_MAX_RECEIVE bytes. Exits when there will be none. */
ssize_t endpoint_receive(struct hvpipe *pipe, void *message);

/* The same until @deadline, a time of now_ms(), negative: for ever. Returns 0 when nothing has come until then. */
ssize_t endpoint_receive_until(struct hvpipe *pipe, void *message, int64_t deadline);

/*
 * The same, which returns 0 also when one of @others is ready, or when a signal comes. @pipe may be NULL, then only
 * these are waited for. If there are @others, a signal that has come ends no wait: the caller asks stop_signal().
 */
ssize_t endpoint_receive_or(struct hvpipe *pipe, void *message, int64_t deadline, const struct pollfd *others,
			    nfds_t count);

/**
 * store_file() - Take a file message, answer it, and report what is refused.
 *
 * Return: as file_receiver_take(), with its @error.
 */
enum file_receiver_result store_file(struct hvpipe *pipe, struct file_receiver *receiver, const void *message,
				     size_t len, struct file_message_error *error);

/* Close the pipe. Returns @status, or that of the signal which ended a send. */
int endpoint_close(struct hvpipe *pipe, int status);

/* Drop what came until now: it is no reply to what is sent next. */
void endpoint_discard(struct hvpipe *pipe);

/* Exit because of an errno that says that nothing can go through the pipe at all. */
void die_no_device(int err) __attribute__((noreturn));

/* Why the device cannot be used, for people. */
const char *no_device_text(int err);

#endif
