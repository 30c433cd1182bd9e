// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe-hmc console: each line is a message; messages that arrive are shown above the line being typed. */
#include "hmc.h"

#include <errno.h>
#include <glib-unix.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <readline/history.h>
#include <readline/readline.h>

#define PROMPT "hmc> "

static struct hmc *console; /* for readline's callbacks, which have no argument */
static bool interactive;
static bool installed; /* readline controls the terminal */
static bool visible;   /* and shows the line being typed */
static bool ending;    /* after the last line: wait until the partition has received all */
static GSource *input;
static GString *line; /* the incomplete line when standard input is no terminal */
static bool line_too_long;

static const char help_text[] =
	"Each line is one message to the partition. Messages from there are shown with number and length.\n"
	"  /send FILE   send a file, for `hvpipe recv -d` in the partition\n"
	"  /status      the connection, the partition's pipe, the messages\n"
	"  /fault TEXT  misbehave on the link, to test the hypervisor, see hvpipe-hmc(1); without TEXT: stop that\n"
	"  /help        this\n"
	"  /quit        end, as Ctrl-D does\n"
	"  //TEXT       a message that begins with a slash: /TEXT\n";

static void console_say(struct hmc *hmc, const char *text)
{
	if (visible)
		rl_clear_visible_line();
	/* A program that reads standard output gets only messages there. */
	fprintf(interactive ? stdout : stderr, interactive ? "%s\n" : "hvpipe-hmc: %s\n", text);
	if (visible) {
		fflush(stdout);
		rl_on_new_line();
		rl_redisplay();
	}
}

/* Restore the terminal. */
static void leave_terminal(void)
{
	if (installed)
		rl_callback_handler_remove();
	installed = false;
	visible = false;
}

static bool unfinished(struct hmc *hmc)
{
	return hmc_outbox_items(hmc->outbox) || hmc_state_pending(hmc->state)->length;
}

static void end_if_done(struct hmc *hmc)
{
	if (ending && !unfinished(hmc))
		hmc_quit(hmc, EXIT_SUCCESS);
}

static void end(struct hmc *hmc)
{
	ending = true;
	hmc_stop_source(&input);
	leave_terminal();
	if (interactive && unfinished(hmc))
		hmc_say(hmc, "waiting until the partition has received %u messages; Ctrl-C ends at once",
			MAX(hmc_state_pending(hmc->state)->length, hmc_outbox_items(hmc->outbox)));
	end_if_done(hmc);
}

static void show_status(struct hmc *hmc)
{
	char *source = hmc_source_name(hmc_state_source(hmc->state)), *faults = hmc_link_faults(hmc->link);

	hmc_say(hmc, "connection: %s, %s", hmc_link_address(hmc->link),
		hmc_link_is_up(hmc->link) ? "up" : "down, trying again");
	if (hmc_state_source(hmc->state))
		hmc_say(hmc, "source:     %s (0x%08x)", source, hmc_state_source(hmc->state));
	else
		hmc_say(hmc, "source:     not known yet");
	hmc_say(hmc, "pipe:       %s",
		!hmc_link_is_up(hmc->link)     ? "not known" :
		hmc_link_is_enabled(hmc->link) ? "enabled by the partition" :
						 "disabled by the partition");
	hmc_say(hmc, "session:    %016" PRIx64 ", %s%s", hmc_state_session(hmc->state),
		hmc->state_path ? "kept in " : "not kept (--state would)", hmc->state_path ? hmc->state_path : "");
	hmc_say(hmc, "received:   %" PRIu64, hmc_state_taken(hmc->state));
	hmc_say(hmc, "sent:       %" PRIu64 ", of which the partition received %" PRIu64, hmc_state_queued(hmc->state),
		hmc_state_acknowledged(hmc->state));
	if (*faults)
		hmc_say(hmc, "faults:     %s", faults);
	g_free(faults);
	g_free(source);
}

static void command(struct hmc *hmc, char *text)
{
	char *argument = text + strcspn(text, " \t");
	GError *wrong = NULL;
	char *error;

	if (*argument)
		*argument++ = '\0';
	argument = g_strstrip(argument);

	if (!strcmp(text, "/send") && *argument) {
		error = hmc_outbox_check(hmc->outbox, argument, HMC_OUTBOX_FILE);
		if (error)
			hmc_say(hmc, "%s; not sent", error);
		else
			hmc_outbox_add_path(hmc->outbox, argument, HMC_OUTBOX_FILE);
		g_free(error);
	} else if (!strcmp(text, "/send")) {
		hmc_say(hmc, "/send: which FILE?");
	} else if (!strcmp(text, "/status")) {
		show_status(hmc);
	} else if (!strcmp(text, "/fault")) {
		if (!hmc_link_set_faults(hmc->link, argument, &wrong))
			hmc_say(hmc, "/fault: %s", wrong->message);
		g_clear_error(&wrong);
	} else if (!strcmp(text, "/help")) {
		char **lines = g_strsplit(help_text, "\n", 0);

		for (char **one = lines; **one; one++)
			hmc_say(hmc, "%s", *one);
		g_strfreev(lines);
	} else if (!strcmp(text, "/quit")) {
		end(hmc);
	} else {
		hmc_say(hmc,
			"no command '%s': /send, /status, /fault, /help or /quit; type two slashes to begin a "
			"message with one: /%s",
			text, text);
	}
}

static void take_line(struct hmc *hmc, char *text, size_t len)
{
	if (!len)
		return;
	if (text[0] == '/' && (len < 2 || text[1] != '/')) {
		command(hmc, text);
		return;
	}
	if (text[0] == '/') {
		text++;
		len--;
	}
	if (len > FILE_MESSAGE_MAX) {
		hmc_say(hmc, "line of %zu bytes not sent: a message has at most %d; /send can send a file", len,
			FILE_MESSAGE_MAX);
		return;
	}
	if (hmc_outbox_items(hmc->outbox) >= HMC_OUTBOX_WINDOW && interactive) {
		hmc_say(hmc, "line not sent: %u wait for the partition already", hmc_outbox_items(hmc->outbox));
		return;
	}
	hmc_outbox_add_line(hmc->outbox, text, len);
}

static void on_line(char *text)
{
	/* Output now goes between this line and the next prompt, which readline shows after this. */
	visible = false;
	if (!text) {
		end(console);
		return;
	}
	if (*text)
		add_history(text);
	take_line(console, text, strlen(text));
	free(text);
	visible = installed;
}

/* Read lines from what is no terminal. They may have zero bytes, and the last one no newline. */
static void read_lines(struct hmc *hmc)
{
	char data[4096];
	ssize_t n = read(STDIN_FILENO, data, sizeof(data));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n < 0) {
		hmc_say(hmc, "standard input: %s", g_strerror(errno));
		hmc_quit(hmc, EXIT_FAILURE);
		return;
	}
	for (ssize_t i = 0; i < n && !ending; i++) {
		if (data[i] != '\n') {
			/* Too long for a message: do not keep it. */
			if (line->len < 65536)
				g_string_append_c(line, data[i]);
			else
				line_too_long = true;
			continue;
		}
		if (line_too_long)
			hmc_say(hmc, "line of more than 65536 bytes not sent: a message has at most %d",
				FILE_MESSAGE_MAX);
		else
			take_line(hmc, line->str, line->len);
		g_string_truncate(line, 0);
		line_too_long = false;
	}
	if (n == 0 && !ending) {
		take_line(hmc, line->str, line->len);
		g_string_truncate(line, 0);
		if (!ending)
			end(hmc);
	}
}

static gboolean on_input(gint fd, GIOCondition condition, gpointer user)
{
	struct hmc *hmc = user;

	if (interactive)
		rl_callback_read_char();
	else
		read_lines(hmc);
	/* Read no faster than the partition receives: console_done() continues. */
	if (!interactive && hmc_outbox_items(hmc->outbox) >= HMC_OUTBOX_WINDOW)
		hmc_stop_source(&input);
	return input ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void watch_input(struct hmc *hmc)
{
	if (input || ending)
		return;
	input = hmc_add_source(g_unix_fd_source_new(STDIN_FILENO, G_IO_IN | G_IO_HUP | G_IO_ERR),
			       G_SOURCE_FUNC(on_input), hmc);
}

static gboolean on_resize(gpointer user)
{
	rl_resize_terminal();
	return G_SOURCE_CONTINUE;
}

static bool console_start(struct hmc *hmc)
{
	console = hmc;
	hmc->verbose = true;
	interactive = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	line = g_string_new(NULL);
	if (interactive) {
		printf("Each line is a message to the partition; /help lists the commands.\n");
		/* The main loop handles signals. */
		rl_catch_signals = 0;
		rl_catch_sigwinch = 0;
		rl_readline_name = "hvpipe-hmc";
		g_unix_signal_add(SIGWINCH, on_resize, NULL);
		rl_callback_handler_install(PROMPT, on_line);
		installed = visible = true;
	}
	watch_input(hmc);
	return true;
}

static void console_stop(struct hmc *hmc)
{
	hmc_stop_source(&input);
	if (visible)
		putchar('\n');
	leave_terminal();
	clear_history();
	g_string_free(line, TRUE);
}

static enum hmc_verdict console_message(struct hmc *hmc, uint64_t sequence, const void *data, size_t len,
					GBytes **reply)
{
	char *shown, *text, answer[FILE_ANSWER_MAX];
	enum hmc_verdict verdict = HMC_TAKE;
	size_t answer_len;

	if (hmc_outbox_take_answer(hmc->outbox, data, len) == HMC_ANSWER_TAKEN)
		return HMC_TAKE;
	if (file_message_refuse(data, len, "hvpipe-hmc console runs there, and stores no files", answer, &answer_len) &&
	    answer_len) {
		hmc_say(hmc, "the next message is a file, which is refused: recv -d would store it");
		*reply = g_bytes_new(answer, answer_len);
	}
	shown = escape_text(data, len, ESCAPE_ALL);
	text = g_strdup_printf("[%" PRIu64 "] %zu %s: %s", sequence, len, len == 1 ? "byte" : "bytes", shown);
	if (interactive) {
		hmc_say(hmc, "%s", text);
	} else {
		char *whole = g_strconcat(text, "\n", NULL);

		if (!hmc_write_out(hmc, whole, strlen(whole)))
			verdict = HMC_LEAVE;
		g_free(whole);
	}
	g_free(text);
	free(shown);
	return verdict;
}

static void console_changed(struct hmc *hmc)
{
	end_if_done(hmc);
}

static void console_done(struct hmc *hmc, const char *name, uint64_t messages, uint64_t bytes, enum hmc_outcome outcome,
			 const char *text)
{
	switch (outcome) {
	case HMC_OUTCOME_RECEIVED:
		break;
	case HMC_OUTCOME_STORED:
		hmc_say(hmc, "%s: stored, %" PRIu64 " bytes in %" PRIu64 " %s, SHA-256 %s", name, bytes, messages,
			messages == 1 ? "message" : "messages", text);
		break;
	case HMC_OUTCOME_REFUSED:
		hmc_say(hmc, "%s: refused: %s", name, text);
		break;
	case HMC_OUTCOME_UNKNOWN:
		hmc_say(hmc,
			"%s: unknown whether it is stored: the partition has received it, but no answer came for %g "
			"seconds; does `hvpipe recv -d` run there?",
			name, FILE_ANSWER_MS / 1000.0);
		break;
	case HMC_OUTCOME_FAILED:
		hmc_say(hmc, "%s", text);
		break;
	}
	/* A script needs the exit status to learn of a file or line that did not arrive. */
	if (!interactive && outcome >= HMC_OUTCOME_REFUSED)
		hmc->status = outcome == HMC_OUTCOME_REFUSED ? EXIT_REFUSED :
			      outcome == HMC_OUTCOME_UNKNOWN ? EXIT_UNKNOWN :
							       EXIT_FAILURE;
	if (hmc_outbox_items(hmc->outbox) < HMC_OUTBOX_WINDOW / 2)
		watch_input(hmc);
	end_if_done(hmc);
}

const struct hmc_command hmc_console = {
	.name = "console",
	.arguments = "",
	.summary = "talk: each line is a message, messages are shown as they come",
	.description = "Each line is a message to the partition; messages from there are shown as they come.\n"
		       "/help lists the commands. When standard input is no terminal, ends after its last line,\n"
		       "when the partition has received all.",
	.start = console_start,
	.stop = console_stop,
	.message = console_message,
	.changed = console_changed,
	.done = console_done,
	.say = console_say,
	.unfinished = unfinished,
};
