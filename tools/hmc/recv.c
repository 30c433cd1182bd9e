// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe-hmc recv and echo. */
#include "hmc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Replies of echo that the partition has not received. Beyond them echo refuses messages. */
#define ECHO_PENDING_MAX 1024

static uint64_t received; /* messages, or files with -d */
static struct file_receiver receiver = { .dir = -1, .fd = -1 };

static bool recv_start(struct hmc *hmc)
{
	struct file_message_error error;

	if (hmc->dir && file_receiver_open(&receiver, hmc->dir, hmc->state_path != NULL, &error)) {
		report("%s", error.text);
		hmc->status = EXIT_FAILURE;
		return false;
	}
	hmc_restart_timeout(hmc, "no message");
	return true;
}

static void recv_stop(struct hmc *hmc)
{
	if (hmc->dir && receiver.dir >= 0)
		file_receiver_close(&receiver);
}

static bool recv_is_done(struct hmc *hmc)
{
	return hmc->count && received >= hmc->count;
}

static enum hmc_verdict recv_file(struct hmc *hmc, uint64_t sequence, const void *data, size_t len)
{
	struct file_message_error error;
	char *name, *line;
	bool ok;

	switch (file_receiver_take(&receiver, data, len, &error)) {
	case FILE_RECEIVER_COMPLETE:
		if (error.text[0])
			hmc_say(hmc, "%s", error.text);
		name = escape_text(receiver.name, strlen(receiver.name), ESCAPE_ALL);
		line = g_strdup_printf("%s\n", name);
		free(name);
		ok = hmc_write_out(hmc, line, strlen(line));
		g_free(line);
		if (!ok)
			return HMC_LEAVE;
		received++;
		return HMC_TAKE;
	case FILE_RECEIVER_MORE:
		if (error.text[0])
			hmc_say(hmc, "%s", error.text);
		return HMC_TAKE;
	case FILE_RECEIVER_ERROR:
		break;
	}
	if (errno == EBADMSG) {
		hmc_say(hmc, "message %" PRIu64 " of %zu bytes refused: %s", sequence, len, error.text);
		hmc->status = EXIT_FAILURE;
		return HMC_REFUSE;
	}
	hmc_say(hmc, "%s: %s; message %" PRIu64 " was not acknowledged", hmc->dir, error.text, sequence);
	hmc_quit(hmc, EXIT_FAILURE);
	return HMC_LEAVE;
}

static enum hmc_verdict recv_message(struct hmc *hmc, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	enum hmc_verdict verdict;

	if (recv_is_done(hmc))
		return HMC_LEAVE;
	if (hmc->dir) {
		verdict = recv_file(hmc, sequence, data, len);
	} else {
		verdict = hmc_write_message(hmc, data, len) ? HMC_TAKE : HMC_LEAVE;
		received++;
	}
	if (verdict == HMC_LEAVE)
		return verdict;
	if (recv_is_done(hmc))
		hmc_quit(hmc, EXIT_SUCCESS);
	else
		hmc_restart_timeout(hmc, "no message");
	return verdict;
}

static bool recv_unfinished(struct hmc *hmc)
{
	return hmc->count != 0;
}

static const GOptionEntry recv_options[] = {
	{ "count", 'n', 0, G_OPTION_ARG_STRING, &cli.count, "End after N messages, with -d after N files", "N" },
	{ "dir", 'd', 0, G_OPTION_ARG_FILENAME, &cli.dir, "Take file messages and store the files in DIR", "DIR" },
	TIMEOUT_OPTION("End with status 6 when no message comes for so long"),
	G_OPTION_ENTRY_NULL
};

const struct hmc_command hmc_recv = {
	.name = "recv",
	.arguments = "",
	.summary = "write what comes to standard output, or files to a directory",
	.description = "Write messages to standard output; with -d store files, and print the name of each\n"
		       "complete one.",
	.options = recv_options,
	.start = recv_start,
	.stop = recv_stop,
	.message = recv_message,
	.unfinished = recv_unfinished,
};

static bool echo_start(struct hmc *hmc)
{
	return true;
}

static enum hmc_verdict echo_message(struct hmc *hmc, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	if (hmc_state_pending(hmc->state)->length >= ECHO_PENDING_MAX) {
		hmc_say(hmc, "%s: message %" PRIu64 " refused: the partition has not received %d replies",
			hmc_link_address(hmc->link), sequence, ECHO_PENDING_MAX);
		return HMC_REFUSE;
	}
	*reply = g_bytes_new(data, len);
	return HMC_TAKE;
}

const struct hmc_command hmc_echo = {
	.name = "echo",
	.arguments = "",
	.summary = "answer each message with itself",
	.description = "Answer each message with itself.",
	.start = echo_start,
	.message = echo_message,
};
