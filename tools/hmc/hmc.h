/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hvpipe-hmc(1): what its commands share. */
#ifndef HMC_H
#define HMC_H

#include <stdbool.h>
#include <stdint.h>

#include "common.h"
#include "file-message.h"
#include "link.h"
#include "loop.h"
#include "outbox.h"
#include "state.h"

struct hmc;

struct hmc_command {
	const char *name;
	const char *arguments;
	const char *summary;
	const char *description;
	const GOptionEntry *options;
	int max_arguments; /* -1: any number */

	int (*run)(char **arguments);	/* a command without a link of its own: all of it; returns the exit status */
	bool (*start)(struct hmc *hmc); /* false: it failed with hmc->status */
	void (*stop)(struct hmc *hmc);	/* may be NULL, as the others below but message */
	enum hmc_verdict (*message)(struct hmc *hmc, uint64_t sequence, const void *data, size_t len, GBytes **reply);
	void (*changed)(struct hmc *hmc);
	void (*done)(struct hmc *hmc, const char *name, uint64_t messages, uint64_t bytes, enum hmc_outcome outcome,
		     const char *text);
	void (*say)(struct hmc *hmc, const char *text); /* NULL: a line on standard error */
	bool (*unfinished)(struct hmc *hmc);		/* true if a signal now leaves something undone */
};

struct hmc {
	const struct hmc_command *command;
	GMainLoop *loop;
	struct hmc_store *store;
	struct hmc_state *state;
	struct hmc_loop *links; /* part of `loop` */
	struct hmc_link *link;
	struct hmc_outbox *outbox;
	GSource *timeout;    /* of -t */
	const char *awaited; /* "no message", say: what -t reports ... */
	int awaited_status;  /* ... and the exit status then */
	int status;

	/* options and arguments */
	const char *state_path;
	bool verbose;
	bool file;
	bool reply;
	bool json;
	uint64_t count; /* 0: without end */
	const char *dir;
	int timeout_ms; /* -1: without end */
	size_t message_size;
	char **arguments;
};

extern const struct hmc_command hmc_console, hmc_send, hmc_recv, hmc_echo, hmc_serve, hmc_status;

/* The options as GLib parses them, before they become those of struct hmc. */
extern struct hmc_cli {
	char **addresses; /* of one parse */
	char *state;
	char *fault;
	gboolean verbose;
	gboolean version;
	gboolean file;
	gboolean reply;
	gboolean json;
	char *count;
	char *dir;
	char *timeout;
	char *message_size;
	char **rest;
} cli;

/* clang-format off */
#define TIMEOUT_OPTION(text) { "timeout", 't', 0, G_OPTION_ARG_STRING, &cli.timeout, text, "SECONDS" }
/* clang-format on */

/* Tell the user one line. It is escaped: names and texts of the partition may be in it as they are. */
void hmc_say(struct hmc *hmc, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* End the program in order, from the main loop. The first status other than 0 is kept. */
void hmc_quit(struct hmc *hmc, int status);

/* Begin the time of -t anew; @awaited is what to report when it is over, and @status the exit status then. */
void hmc_restart_timeout(struct hmc *hmc, const char *awaited, int status);

/*
 * Write to standard output, and with --state to stable storage. On failure it says why, ends the program, returns
 * false.
 */
bool hmc_write_out(struct hmc *hmc, const void *data, size_t len);
/* The same for a message of the partition, see write_message(). */
bool hmc_write_message(struct hmc *hmc, const void *data, size_t len);

/*
 * Begin to receive files into the directory @path, see file_receiver_open(). Those that the session has stored are
 * known: their messages may come again.
 */
int hmc_open_inbox(const struct hmc_state *state, const char *path, bool sync, struct file_receiver *into,
		   struct file_message_error *error);

#endif
