// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe-hmc send: files and standard input to the partition, and its replies. */
#include "hmc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* When the partition has been silent for this long, say what is missing. */
#define STALL_MS    5000
#define PROGRESS_MS 200

static struct {
	GSource *tick;	       /* progress and stalls */
	unsigned int argument; /* the next one to send */
	bool reply_wanted;
	bool replied; /* before the receiver of the file answered */
	char *reply_name;
	int status;
	int64_t started; /* as now_ms() */
	gint64 moved;	 /* the time of the last acknowledgement */
	uint64_t acknowledged;
	bool stall_reported;
} session;

static gboolean on_tick(gpointer user)
{
	struct hmc *hmc = user;
	unsigned int pending = hmc_state_pending(hmc->state)->length;
	uint64_t offset, size;
	const char *name;

	if (hmc_outbox_progress(hmc->outbox, &name, &offset, &size))
		show_progress(name, offset, size, session.started);
	if (pending && hmc_link_is_up(hmc->link) && !session.stall_reported &&
	    g_get_monotonic_time() - session.moved > STALL_MS * 1000) {
		hmc_say(hmc, "%s: waiting for the partition to receive: %u %s sent, its pipe is %s",
			hmc_link_address(hmc->link), pending, pending == 1 ? "message" : "messages",
			hmc_link_is_enabled(hmc->link) ? "enabled" : "disabled");
		session.stall_reported = true;
	}
	return G_SOURCE_CONTINUE;
}

/* The outbox has a time of its own for the answer to a file. */
static void await_acknowledgement(struct hmc *hmc)
{
	if (hmc->file && !hmc_state_pending(hmc->state)->length && hmc_outbox_awaits_answer(hmc->outbox))
		hmc_stop_source(&hmc->timeout);
	else
		hmc_restart_timeout(hmc, "nothing acknowledged", hmc->file ? EXIT_UNKNOWN : EXIT_NO_MESSAGE);
}

static void send_next(struct hmc *hmc)
{
	enum hmc_outbox_kind kind = hmc->file ? HMC_OUTBOX_FILE : HMC_OUTBOX_RAW;

	session.started = now_ms();
	session.moved = g_get_monotonic_time();
	/* With --reply one file at a time, as a reply belongs to the file before it. */
	while (hmc->arguments[session.argument] && (!hmc->reply || !hmc_outbox_items(hmc->outbox)))
		hmc_outbox_add_path(hmc->outbox, hmc->arguments[session.argument++], kind);
	await_acknowledgement(hmc);
}

/* End when all was sent, and also the messages that an earlier run left in the state file. */
static void end_of_send(struct hmc *hmc)
{
	if (!session.reply_wanted && !hmc_outbox_items(hmc->outbox) && !hmc->arguments[session.argument] &&
	    !hmc_state_pending(hmc->state)->length)
		hmc_quit(hmc, session.status);
}

static bool send_start(struct hmc *hmc)
{
	static char *standard_input[] = { "-", NULL };

	if (!hmc->arguments[0]) {
		if (hmc->file) {
			report("send -f: which FILE? A file message must name it");
			hmc->status = EXIT_USAGE;
			return false;
		}
		hmc->arguments = standard_input;
	}
	for (char **path = hmc->arguments; *path; path++) {
		char *error = hmc_outbox_check(hmc->outbox, *path, hmc->file ? HMC_OUTBOX_FILE : HMC_OUTBOX_RAW);

		if (error) {
			report("%s; nothing was sent", error);
			g_free(error);
			hmc->status = EXIT_FAILURE;
			return false;
		}
	}
	session.acknowledged = hmc_state_acknowledged(hmc->state);
	hmc_start_timer(&session.tick, PROGRESS_MS, on_tick, hmc);
	send_next(hmc);
	return true;
}

static void send_stop(struct hmc *hmc)
{
	hmc_stop_source(&session.tick);
	g_clear_pointer(&session.reply_name, g_free);
	clear_progress();
}

static void send_changed(struct hmc *hmc)
{
	if (session.acknowledged != hmc_state_acknowledged(hmc->state)) {
		session.acknowledged = hmc_state_acknowledged(hmc->state);
		session.moved = g_get_monotonic_time();
		session.stall_reported = false;
		if (!session.reply_wanted)
			await_acknowledgement(hmc);
	}
	end_of_send(hmc);
}

/* The name to print before the reply to a file; NULL for standard input alone, which needs none. */
static char *reply_name(struct hmc *hmc, const char *name)
{
	return strcmp(name, "-") ? g_strdup(name) : hmc->arguments[1] ? g_strdup("standard input") : NULL;
}

/* Tell what became of a file. Returns false when nothing more is to be sent. */
static bool tell_outcome(struct hmc *hmc, const char *name, enum hmc_outcome outcome, const char *text)
{
	char *line;
	bool ok;

	switch (outcome) {
	case HMC_OUTCOME_RECEIVED:
		return true;
	case HMC_OUTCOME_STORED:
		line = g_strdup_printf("%s: stored, SHA-256 %s\n", name, text);
		ok = hmc_write_out(hmc, line, strlen(line));
		g_free(line);
		return ok;
	case HMC_OUTCOME_REFUSED:
		hmc_say(hmc, "%s: refused: %s", name, text);
		session.status = EXIT_REFUSED;
		return true;
	case HMC_OUTCOME_UNKNOWN:
		hmc_say(hmc,
			"%s: unknown whether it is stored: the partition has received it, but no answer came for %g "
			"seconds; does `hvpipe recv -d` run there?",
			name, (hmc->timeout_ms >= 0 ? hmc->timeout_ms : FILE_ANSWER_MS) / 1000.0);
		hmc_quit(hmc, EXIT_UNKNOWN);
		return false;
	case HMC_OUTCOME_FAILED:
		hmc_say(hmc, "%s", text);
		hmc_quit(hmc, EXIT_FAILURE);
		return false;
	}
	return false;
}

static void send_done(struct hmc *hmc, const char *name, uint64_t messages, uint64_t bytes, enum hmc_outcome outcome,
		      const char *text)
{
	bool replied = session.replied;

	session.replied = false;
	if (hmc->verbose && outcome != HMC_OUTCOME_FAILED && outcome != HMC_OUTCOME_REFUSED)
		hmc_say(hmc, "%s: %" PRIu64 " bytes in %" PRIu64 " %s, all acknowledged", name, bytes, messages,
			messages == 1 ? "message" : "messages");
	if (!tell_outcome(hmc, name, outcome, text))
		return;
	if (hmc->reply && outcome != HMC_OUTCOME_REFUSED && !replied) {
		session.reply_wanted = true;
		session.reply_name = reply_name(hmc, name);
		hmc_restart_timeout(hmc, "no message", EXIT_NO_MESSAGE);
	} else if (hmc->reply) {
		send_next(hmc);
	}
	end_of_send(hmc);
}

static bool print_reply(struct hmc *hmc, const char *name, const char *text, size_t len)
{
	GString *line = g_string_new(NULL);
	bool ok;

	if (name)
		g_string_append_printf(line, "%s: ", name);
	g_string_append_len(line, text, len);
	if (text[len - 1] != '\n')
		g_string_append_c(line, '\n');
	ok = hmc_write_message(hmc, line->str, line->len);
	g_string_free(line, TRUE);
	return ok;
}

static enum hmc_verdict send_message(struct hmc *hmc, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	const char *name;
	uint64_t offset, size;

	switch (hmc_outbox_take_answer(hmc->outbox, data, len)) {
	case HMC_ANSWER_LATE:
		if (may_report())
			hmc_say(hmc, "%s: answer to a file of an earlier run: %.*s", hmc_link_address(hmc->link),
				(int)len - 1, (const char *)data);
		return HMC_TAKE;
	case HMC_ANSWER_TAKEN:
		return HMC_TAKE;
	case HMC_ANSWER_NONE:
		break;
	}

	/* The acknowledgement before the reply may not have been handled yet. */
	if (hmc->reply && !session.reply_wanted)
		hmc_outbox_settle(hmc->outbox);
	if (hmc->reply && !session.reply_wanted && !session.replied && hmc_outbox_awaits_answer(hmc->outbox) &&
	    hmc_outbox_progress(hmc->outbox, &name, &offset, &size)) {
		session.replied = true;
		return print_reply(hmc, name, data, len) ? HMC_TAKE : HMC_LEAVE;
	}
	if (!session.reply_wanted) {
		if (may_report())
			hmc_say(hmc, "%s: message of %zu bytes refused: no reply is expected",
				hmc_link_address(hmc->link), len);
		return HMC_REFUSE;
	}
	if (!print_reply(hmc, session.reply_name, data, len))
		return HMC_LEAVE;
	session.reply_wanted = false;
	g_clear_pointer(&session.reply_name, g_free);
	send_next(hmc);
	/* send_changed() finds out if this was the last one. */
	return HMC_TAKE;
}

static bool send_unfinished(struct hmc *hmc)
{
	return true;
}

static const GOptionEntry send_options[] = {
	{ "file", 'f', 0, G_OPTION_ARG_NONE, &cli.file,
	  "As file messages, for `recv -d` over there; wait until it says that the file is stored", NULL },
	{ "reply", 'r', 0, G_OPTION_ARG_NONE, &cli.reply,
	  "Wait for one message after each FILE and print `NAME: reply`", NULL },
	{ "message-size", 'm', 0, G_OPTION_ARG_STRING, &cli.message_size,
	  "Bytes of each message; default 4048, which every kernel receives, at most 4088", "BYTES" },
	TIMEOUT_OPTION("End with status 6 when nothing is acknowledged, or no reply comes, for so long; with -f with "
		       "status 11, also when no answer comes for so long, 30 by default"),
	G_OPTION_ENTRY_NULL
};

const struct hmc_command hmc_send = {
	.name = "send",
	.arguments = "[FILE…]",
	.summary = "send each FILE, or standard input (-)",
	.description = "Send each FILE, or standard input (also -). More than 4048 bytes go as consecutive messages.\n"
		       "Ends when the partition has received all. Messages that come meanwhile are refused,\n"
		       "but for the replies of --reply.",
	.options = send_options,
	.max_arguments = -1,
	.start = send_start,
	.stop = send_stop,
	.message = send_message,
	.changed = send_changed,
	.done = send_done,
	.unfinished = send_unfinished,
};
