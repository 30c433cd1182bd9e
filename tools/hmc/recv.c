// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe-hmc recv and echo. */
#include "hmc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "json-lines.h"

/* Replies of echo, or answers to files, that the partition has not received. Beyond them messages are refused. */
#define REPLIES_MAX 1024

static uint64_t received; /* messages, or files with -d */
static struct file_receiver receiver = { .dir = -1 };

int hmc_open_inbox(const struct hmc_state *state, const char *path, bool sync, struct file_receiver *into,
		   struct file_message_error *error)
{
	if (file_receiver_open(into, path, sync, error))
		return -1;
	for (const GList *l = hmc_state_files(state)->head; l; l = l->next) {
		const struct hmc_stored_file *file = l->data;

		file_receiver_remember(into, file->id, file->sha256);
	}
	return 0;
}

static bool recv_start(struct hmc *hmc)
{
	struct file_message_error error;

	if (hmc->dir && hmc_open_inbox(hmc->state, hmc->dir, hmc->state_path != NULL, &receiver, &error)) {
		report("%s", error.text);
		hmc->status = EXIT_FAILURE;
		return false;
	}
	hmc_restart_timeout(hmc, "no message", EXIT_NO_MESSAGE);
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

/* Print the name of a complete file, or with --json what there is to know of a file. */
static bool print_file(struct hmc *hmc, const char *refusal)
{
	char *source = hmc_source_name(hmc_state_source(hmc->state));
	char *line = hmc->json ? json_file(source, &receiver, refusal) :
				 escape_text(receiver.name, strlen(receiver.name), ESCAPE_ALL);
	bool ok = line && hmc_write_out(hmc, line, strlen(line)) && (hmc->json || hmc_write_out(hmc, "\n", 1));

	free(line);
	g_free(source);
	return ok;
}

static enum hmc_verdict recv_file(struct hmc *hmc, const void *data, size_t len, GBytes **reply)
{
	struct file_message_error error;
	struct file_answer answer;
	enum file_receiver_result result;

	if (hmc_state_pending(hmc->state)->length >= REPLIES_MAX) {
		hmc_say(hmc, "%s: message refused: the partition has not received %d answers",
			hmc_link_address(hmc->link), REPLIES_MAX);
		return HMC_REFUSE;
	}
	result = file_receiver_take(&receiver, data, len, &error);
	if (result == FILE_RECEIVER_NONE && file_answer_parse(&answer, data, len)) {
		hmc_say(hmc, "answer to a file that nobody waits for");
		return HMC_TAKE;
	}
	if (result == FILE_RECEIVER_NONE) {
		if (may_report())
			hmc_say(hmc, "message of %zu bytes refused: %s", len, error.text);
		hmc->status = EXIT_FAILURE;
		return HMC_REFUSE;
	}
	if (result == FILE_RECEIVER_REFUSED)
		hmc->status = EXIT_FAILURE;
	if (error.text[0] && may_report())
		hmc_say(hmc, "%s%s", result == FILE_RECEIVER_REFUSED ? "file refused: " : "", error.text);
	if ((result == FILE_RECEIVER_COMPLETE && !print_file(hmc, NULL)) ||
	    (result == FILE_RECEIVER_REFUSED && hmc->json && !print_file(hmc, error.text)))
		return HMC_LEAVE;
	if (result == FILE_RECEIVER_COMPLETE) {
		hmc_state_add_file(hmc->state, receiver.id, receiver.sha256);
		received++;
	}
	if (receiver.answer_len)
		*reply = g_bytes_new(receiver.answer, receiver.answer_len);
	return HMC_TAKE;
}

static bool print_message(struct hmc *hmc, uint64_t sequence, const void *data, size_t len)
{
	char *source, *line;
	bool ok;

	if (!hmc->json)
		return hmc_write_message(hmc, data, len);
	source = hmc_source_name(hmc_state_source(hmc->state));
	line = json_message(source, sequence, data, len);
	ok = line && hmc_write_out(hmc, line, strlen(line));
	free(line);
	g_free(source);
	return ok;
}

static enum hmc_verdict recv_message(struct hmc *hmc, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	enum hmc_verdict verdict;

	if (recv_is_done(hmc))
		return HMC_LEAVE;
	if (hmc->dir) {
		verdict = recv_file(hmc, data, len, reply);
	} else {
		verdict = print_message(hmc, sequence, data, len) ? HMC_TAKE : HMC_LEAVE;
		received++;
	}
	if (verdict == HMC_LEAVE)
		return verdict;
	if (recv_is_done(hmc))
		hmc_quit(hmc, EXIT_SUCCESS);
	else
		hmc_restart_timeout(hmc, "no message", EXIT_NO_MESSAGE);
	return verdict;
}

static bool recv_unfinished(struct hmc *hmc)
{
	return hmc->count != 0;
}

static const GOptionEntry recv_options[] = {
	{ "count", 'n', 0, G_OPTION_ARG_STRING, &cli.count, "End after N messages, with -d after N files", "N" },
	{ "dir", 'd', 0, G_OPTION_ARG_FILENAME, &cli.dir,
	  "Take file messages, store the files in DIR, and tell their sender", "DIR" },
	{ "json", 'j', 0, G_OPTION_ARG_NONE, &cli.json, "Write a line of JSON for each message, with -d for each file",
	  NULL },
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
	if (hmc_state_pending(hmc->state)->length >= REPLIES_MAX) {
		hmc_say(hmc, "%s: message refused: the partition has not received %d replies",
			hmc_link_address(hmc->link), REPLIES_MAX);
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
