// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe-hmc(1): an HMC for one source of the hypervisor. Options, and the commands send, recv and echo. */
#include "hmc.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_ADDRESS "hmc1.sock"

/* How long the other side may take to read what we said last. */
#define FINISH_MS 2000

/* With the partition silent for so long, send says what it waits for. */
#define STALL_MS 5000
#define PROGRESS_MS 200

/* Replies of echo that the partition has not received; beyond them echo refuses messages. */
#define ECHO_PENDING_MAX 1024

static volatile sig_atomic_t got_signal;
static int signal_pipe[2] = { -1, -1 };

/* What send, recv and echo keep while they run. */
static struct {
	GSource *timeout;		/* -t */
	GSource *tick;			/* of send: progress and stalls */
	unsigned int argument;		/* of send: the next one to be sent */
	bool reply_wanted;
	char *reply_name;
	bool progress_shown;
	gint64 started;
	gint64 moved;			/* when something was acknowledged last */
	uint64_t acknowledged;
	bool stall_told;
	uint64_t received;		/* of recv: messages, or files with -d */
	struct file_receiver receiver;
} run = { .receiver = { .dir = -1, .fd = -1 } };

static void clear_progress(void)
{
	if (run.progress_shown)
		fputs("\r\033[K", stderr);
	run.progress_shown = false;
}

static void G_GNUC_PRINTF(1, 2) complain(const char *format, ...)
{
	va_list args;

	fputs("hvpipe-hmc: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

void hmc_say(struct hmc *hmc, const char *format, ...)
{
	char *text;
	va_list args;

	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	if (hmc->command->say) {
		hmc->command->say(hmc, text);
	} else {
		clear_progress();
		complain("%s", text);
	}
	g_free(text);
}

void hmc_quit(struct hmc *hmc, int status)
{
	if (!hmc->status)
		hmc->status = status;
	g_main_loop_quit(hmc->loop);
}

static bool write_out(const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(STDOUT_FILENO, data, len);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd pfd = { .fd = STDOUT_FILENO, .events = POLLOUT };

			poll(&pfd, 1, -1);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		data += n;
		len -= n;
	}
	return true;
}

bool hmc_write_out(struct hmc *hmc, const void *data, size_t len)
{
	clear_progress();
	/* Pipes and terminals cannot be synced, and need not be. */
	if (write_out(data, len) &&
	    (!hmc->state_path || !fsync(STDOUT_FILENO) || errno == EINVAL || errno == EROFS || errno == ENOTSUP))
		return true;
	hmc_say(hmc, "standard output: %s; what came last was not acknowledged", g_strerror(errno));
	hmc_quit(hmc, EXIT_FAILURE);
	return false;
}

char *hmc_escape(const void *data, size_t len)
{
	GString *out = g_string_sized_new(len + 16);
	const char *p = data, *end = p + len;

	while (p < end) {
		gunichar c = g_utf8_get_char_validated(p, end - p);

		if (*p == '\\') {
			g_string_append(out, "\\\\");
			p++;
		} else if (*p == '\n') {
			g_string_append(out, "\\n");
			p++;
		} else if (*p == '\t') {
			g_string_append(out, "\\t");
			p++;
		} else if (*p && c != (gunichar)-1 && c != (gunichar)-2 && g_unichar_isprint(c)) {
			g_string_append_unichar(out, c);
			p = g_utf8_next_char(p);
		} else {
			g_string_append_printf(out, "\\x%02x", (unsigned char)*p);
			p++;
		}
	}
	return g_string_free(out, FALSE);
}

static void stop_timer(GSource **source)
{
	if (*source) {
		g_source_destroy(*source);
		g_source_unref(*source);
		*source = NULL;
	}
}

static void start_timer(GSource **source, unsigned int ms, GSourceFunc callback, struct hmc *hmc)
{
	stop_timer(source);
	*source = g_timeout_source_new(ms);
	g_source_set_callback(*source, callback, hmc, NULL);
	g_source_attach(*source, NULL);
}

/* "; 3 messages were not acknowledged, ..." or nothing. */
static char *pending_text(struct hmc *hmc)
{
	unsigned int pending = hmc_state_pending(hmc->state)->length;

	if (!pending)
		return g_strdup("");
	return g_strdup_printf("; %u %s not acknowledged%s%s%s", pending, pending == 1 ? "message was" : "messages were",
			       hmc->state_path ? ": kept in " : ", and without --state forgotten now",
			       hmc->state_path ? hmc->state_path : "",
			       hmc->state_path ? ", sent again by the next run with it" : "");
}

static gboolean on_timeout(gpointer user)
{
	struct hmc *hmc = user;
	char *pending = pending_text(hmc);

	if (run.reply_wanted || !strcmp(hmc->command->name, "recv"))
		hmc_say(hmc, "%s: no message for %g seconds%s", hmc_link_address(hmc->link), hmc->timeout_ms / 1000.0, pending);
	else
		hmc_say(hmc, "%s: nothing acknowledged for %g seconds%s", hmc_link_address(hmc->link), hmc->timeout_ms / 1000.0, pending);
	g_free(pending);
	hmc_quit(hmc, EXIT_NO_MESSAGE);
	return G_SOURCE_CONTINUE;
}

static void restart_timeout(struct hmc *hmc)
{
	if (hmc->timeout_ms >= 0)
		start_timer(&run.timeout, hmc->timeout_ms, on_timeout, hmc);
}

/*
 * send
 */

static void show_progress(struct hmc *hmc)
{
	uint64_t offset, size;
	const char *name;
	char *bytes, *rate;
	gint64 us = g_get_monotonic_time() - run.started;

	if (!isatty(STDERR_FILENO) || us < 1000000 || !hmc_outbox_progress(hmc->outbox, &name, &offset, &size))
		return;
	bytes = g_format_size_full(offset, G_FORMAT_SIZE_IEC_UNITS);
	rate = g_format_size_full(offset * 1000000.0 / us, G_FORMAT_SIZE_IEC_UNITS);
	if (size)
		fprintf(stderr, "\r\033[K%s: %s, %.0f %%, %s/s", name, bytes, 100.0 * offset / size, rate);
	else
		fprintf(stderr, "\r\033[K%s: %s, %s/s", name, bytes, rate);
	run.progress_shown = true;
	g_free(bytes);
	g_free(rate);
}

static gboolean on_tick(gpointer user)
{
	struct hmc *hmc = user;
	unsigned int pending = hmc_state_pending(hmc->state)->length;

	show_progress(hmc);
	if (pending && hmc_link_is_up(hmc->link) && !run.stall_told &&
	    g_get_monotonic_time() - run.moved > STALL_MS * 1000) {
		hmc_say(hmc, "%s: waiting for the partition to receive: %u %s sent, its pipe is %s", hmc_link_address(hmc->link), pending,
			pending == 1 ? "message" : "messages", hmc_link_is_enabled(hmc->link) ? "enabled" : "disabled");
		run.stall_told = true;
	}
	return G_SOURCE_CONTINUE;
}

static void send_next(struct hmc *hmc)
{
	enum hmc_outbox_kind kind = hmc->file ? HMC_OUTBOX_FILE : HMC_OUTBOX_RAW;

	run.started = run.moved = g_get_monotonic_time();
	/* With --reply one after the other: a reply belongs to the file before it. */
	while (hmc->arguments[run.argument] && (!hmc->reply || !hmc_outbox_items(hmc->outbox)))
		hmc_outbox_add_path(hmc->outbox, hmc->arguments[run.argument++], kind);
	restart_timeout(hmc);
}

/* Everything was sent; what an earlier run left in the state file counts, too. */
static void end_of_send(struct hmc *hmc)
{
	if (!run.reply_wanted && !hmc_outbox_items(hmc->outbox) && !hmc->arguments[run.argument] &&
	    !hmc_state_pending(hmc->state)->length)
		hmc_quit(hmc, EXIT_SUCCESS);
}

static bool send_start(struct hmc *hmc)
{
	static char *standard_input[] = { "-", NULL };

	if (!hmc->arguments[0]) {
		if (hmc->file) {
			complain("send -f: which FILE? A file message must name it");
			hmc->status = EXIT_USAGE;
			return false;
		}
		hmc->arguments = standard_input;
	}
	for (char **path = hmc->arguments; *path; path++) {
		char *error = hmc_outbox_check(*path, hmc->file ? HMC_OUTBOX_FILE : HMC_OUTBOX_RAW);

		if (error) {
			complain("%s; nothing was sent", error);
			g_free(error);
			hmc->status = EXIT_FAILURE;
			return false;
		}
	}
	run.acknowledged = hmc_state_acknowledged(hmc->state);
	start_timer(&run.tick, PROGRESS_MS, on_tick, hmc);
	send_next(hmc);
	return true;
}

static void send_stop(struct hmc *hmc)
{
	(void)hmc;
	stop_timer(&run.tick);
	stop_timer(&run.timeout);
	g_clear_pointer(&run.reply_name, g_free);
	clear_progress();
}

static void send_changed(struct hmc *hmc)
{
	if (run.acknowledged != hmc_state_acknowledged(hmc->state)) {
		run.acknowledged = hmc_state_acknowledged(hmc->state);
		run.moved = g_get_monotonic_time();
		run.stall_told = false;
		if (!run.reply_wanted)
			restart_timeout(hmc);
	}
	end_of_send(hmc);
}

static void send_done(struct hmc *hmc, const char *name, uint64_t messages, uint64_t bytes, const char *error)
{
	if (error) {
		hmc_say(hmc, "%s", error);
		hmc_quit(hmc, EXIT_FAILURE);
		return;
	}
	if (hmc->verbose)
		hmc_say(hmc, "%s: %" PRIu64 " bytes in %" PRIu64 " %s, all acknowledged", name, bytes, messages,
			messages == 1 ? "message" : "messages");
	if (hmc->reply) {
		run.reply_wanted = true;
		run.reply_name = g_strdup(name);
		restart_timeout(hmc);
	}
	end_of_send(hmc);
}

static enum hmc_verdict send_message(struct hmc *hmc, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	const char *text = data;
	GString *line;
	bool ok;

	(void)reply;
	/* A reply may come right behind the acknowledgement that it must follow. */
	if (hmc->reply && !run.reply_wanted)
		hmc_outbox_settle(hmc->outbox);
	if (!run.reply_wanted) {
		hmc_say(hmc, "%s: message %" PRIu64 " of %zu bytes refused: nobody waits for a reply", hmc_link_address(hmc->link), sequence, len);
		return HMC_REFUSE;
	}
	line = g_string_new(run.reply_name);
	g_string_append(line, ": ");
	g_string_append_len(line, data, len);
	if (text[len - 1] != '\n')
		g_string_append_c(line, '\n');
	ok = hmc_write_out(hmc, line->str, line->len);
	g_string_free(line, TRUE);
	if (!ok)
		return HMC_LEAVE;
	run.reply_wanted = false;
	g_clear_pointer(&run.reply_name, g_free);
	send_next(hmc);
	/* The end, if it is one, is found by send_changed() when the message is taken. */
	return HMC_TAKE;
}

static bool send_unfinished(struct hmc *hmc)
{
	(void)hmc;
	return true;
}

/*
 * recv
 */

static bool recv_start(struct hmc *hmc)
{
	struct file_message_error error;

	if (hmc->dir && file_receiver_open(&run.receiver, hmc->dir, hmc->state_path != NULL, &error)) {
		complain("%s", error.text);
		hmc->status = EXIT_FAILURE;
		return false;
	}
	restart_timeout(hmc);
	return true;
}

static void recv_stop(struct hmc *hmc)
{
	stop_timer(&run.timeout);
	if (hmc->dir && run.receiver.dir >= 0)
		file_receiver_close(&run.receiver);
}

static bool recv_is_done(struct hmc *hmc)
{
	return hmc->count && run.received >= hmc->count;
}

static enum hmc_verdict recv_file(struct hmc *hmc, uint64_t sequence, const void *data, size_t len)
{
	struct file_message_error error;
	char *line;
	bool ok;

	switch (file_receiver_take(&run.receiver, data, len, &error)) {
	case FILE_RECEIVER_COMPLETE:
		if (error.text[0])
			hmc_say(hmc, "%s", error.text);
		line = g_strdup_printf("%s\n", run.receiver.name);
		ok = hmc_write_out(hmc, line, strlen(line));
		g_free(line);
		if (!ok)
			return HMC_LEAVE;
		run.received++;
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

	(void)reply;
	if (recv_is_done(hmc))
		return HMC_LEAVE;
	if (hmc->dir) {
		verdict = recv_file(hmc, sequence, data, len);
	} else {
		verdict = hmc_write_out(hmc, data, len) ? HMC_TAKE : HMC_LEAVE;
		run.received++;
	}
	if (verdict == HMC_LEAVE)
		return verdict;
	if (recv_is_done(hmc))
		hmc_quit(hmc, EXIT_SUCCESS);
	else
		restart_timeout(hmc);
	return verdict;
}

static bool recv_unfinished(struct hmc *hmc)
{
	return hmc->count != 0;
}

/*
 * echo
 */

static bool echo_start(struct hmc *hmc)
{
	(void)hmc;
	return true;
}

static enum hmc_verdict echo_message(struct hmc *hmc, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	if (hmc_state_pending(hmc->state)->length >= ECHO_PENDING_MAX) {
		hmc_say(hmc, "%s: message %" PRIu64 " refused: the partition has not received %d replies", hmc_link_address(hmc->link), sequence,
			ECHO_PENDING_MAX);
		return HMC_REFUSE;
	}
	*reply = g_bytes_new(data, len);
	return HMC_TAKE;
}

/*
 * The link, on behalf of the command
 */

static enum hmc_verdict on_message(void *user, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	struct hmc *hmc = user;

	/* The end is near: no more is taken. */
	if (!g_main_loop_is_running(hmc->loop))
		return HMC_LEAVE;
	return hmc->command->message(hmc, sequence, data, len, reply);
}

static void on_changed(void *user)
{
	struct hmc *hmc = user;

	if (hmc->outbox)
		hmc_outbox_changed(hmc->outbox);
	if (hmc->command->changed)
		hmc->command->changed(hmc);
}

static void on_notice(void *user, enum hmc_notice notice, const char *text)
{
	struct hmc *hmc = user;

	if (notice != HMC_NOTICE_DETAIL || hmc->verbose)
		hmc_say(hmc, "%s", text);
}

static void on_failed(void *user, const GError *error)
{
	struct hmc *hmc = user;

	hmc_say(hmc, "%s", error->message);
	hmc_quit(hmc, EXIT_FAILURE);
}

static const struct hmc_link_ops link_ops = {
	.message = on_message,
	.changed = on_changed,
	.notice = on_notice,
	.failed = on_failed,
};

static void on_done(void *user, const char *name, uint64_t messages, uint64_t bytes, const char *error)
{
	struct hmc *hmc = user;

	if (hmc->command->done)
		hmc->command->done(hmc, name, messages, bytes, error);
}

/* The first SIGINT or SIGTERM ends the program in order; the second kills. */
static void on_signal(int signo)
{
	int saved = errno;
	ssize_t n;

	got_signal = signo;
	n = write(signal_pipe[1], "", 1);
	(void)n;
	errno = saved;
}

static gboolean on_signal_pipe(gint fd, GIOCondition condition, gpointer user)
{
	struct hmc *hmc = user;
	char *pending = pending_text(hmc);
	bool unfinished = hmc->command->unfinished && hmc->command->unfinished(hmc);

	(void)fd;
	(void)condition;
	if (unfinished || *pending)
		hmc_say(hmc, "ended by %s%s", got_signal == SIGINT ? "SIGINT" : "SIGTERM", pending);
	g_free(pending);
	/* For the rest this is how they end. */
	hmc_quit(hmc, unfinished ? 128 + got_signal : EXIT_SUCCESS);
	return G_SOURCE_REMOVE;
}

static void catch_signals(struct hmc *hmc)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART | SA_RESETHAND };

	if (!g_unix_open_pipe(signal_pipe, FD_CLOEXEC, NULL))
		g_error("pipe: %s", g_strerror(errno));
	g_unix_set_fd_nonblocking(signal_pipe[1], TRUE, NULL);
	g_unix_fd_add(signal_pipe[0], G_IO_IN, on_signal_pipe, hmc);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/*
 * Options
 */

static struct {
	char **addresses;		/* of one parse */
	char *state;
	char *fault;
	gboolean verbose;
	gboolean version;
	gboolean file;
	gboolean reply;
	char *count;
	char *dir;
	char *timeout;
	char **rest;
} given;

static const GOptionEntry common_options[] = {
	{ "connect", 'c', 0, G_OPTION_ARG_FILENAME_ARRAY, &given.addresses,
	  "The source's socket: PATH, unix:PATH, HOST:PORT or tcp:HOST:PORT; several in turn, as for a partition that "
	  "migrates; default " DEFAULT_ADDRESS, "ADDRESS" },
	{ "state", 0, 0, G_OPTION_ARG_FILENAME, &given.state,
	  "Keep the session in FILE, so that it goes on after the end of this process", "FILE" },
	{ "fault", 0, 0, G_OPTION_ARG_STRING, &given.fault,
	  "Do wrong on the link, to test the hypervisor: KIND[,frame=NAME][,count=N][,every=N][;…], see the manual", "FAULTS" },
	{ "verbose", 'v', 0, G_OPTION_ARG_NONE, &given.verbose, "Tell of connections, the partition's pipe, files sent", NULL },
	{ "version", 'V', 0, G_OPTION_ARG_NONE, &given.version, "Print the version", NULL },
	G_OPTION_ENTRY_NULL
};

/* Everything behind the command's name that is no option. */
static const GOptionEntry rest_option[] = {
	{ G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &given.rest, NULL, NULL },
	G_OPTION_ENTRY_NULL
};

#define TIMEOUT_OPTION(text) { "timeout", 't', 0, G_OPTION_ARG_STRING, &given.timeout, text, "SECONDS" }

static const GOptionEntry send_options[] = {
	{ "file", 'f', 0, G_OPTION_ARG_NONE, &given.file, "As file messages, with name and size, for `recv -d` over there", NULL },
	{ "reply", 'r', 0, G_OPTION_ARG_NONE, &given.reply, "Wait for one message after each FILE and print `NAME: reply`", NULL },
	TIMEOUT_OPTION("End with status 6 when nothing is acknowledged, or no reply comes, for so long"),
	G_OPTION_ENTRY_NULL
};

static const GOptionEntry recv_options[] = {
	{ "count", 'n', 0, G_OPTION_ARG_STRING, &given.count, "End after N messages, with -d after N files", "N" },
	{ "dir", 'd', 0, G_OPTION_ARG_FILENAME, &given.dir, "Take file messages and store the files in DIR", "DIR" },
	TIMEOUT_OPTION("End with status 6 when no message comes for so long"),
	G_OPTION_ENTRY_NULL
};

static const struct hmc_command hmc_send = {
	.name = "send",
	.arguments = "[FILE…]",
	.summary = "send each FILE, or standard input (-)",
	.description = "Send each FILE, or standard input (also -). More than 4088 bytes go as consecutive messages. Ends when the\n"
		       "partition has received all. Messages that come meanwhile are refused, but for the replies of --reply.",
	.options = send_options,
	.max_arguments = -1,
	.start = send_start,
	.stop = send_stop,
	.message = send_message,
	.changed = send_changed,
	.done = send_done,
	.unfinished = send_unfinished,
};

static const struct hmc_command hmc_recv = {
	.name = "recv",
	.arguments = "",
	.summary = "write what comes to standard output, or files to a directory",
	.description = "Write what comes to standard output; with -d store files, and print the name of each complete one.",
	.options = recv_options,
	.start = recv_start,
	.stop = recv_stop,
	.message = recv_message,
	.unfinished = recv_unfinished,
};

static const struct hmc_command hmc_echo = {
	.name = "echo",
	.arguments = "",
	.summary = "answer each message with itself",
	.description = "Answer each message with itself.",
	.start = echo_start,
	.message = echo_message,
};

static const struct hmc_command *const commands[] = { &hmc_console, &hmc_send, &hmc_recv, &hmc_echo };

static const char exit_statuses[] =
	"Exit status: 0 done; 1 failed; 2 wrong usage; 4 the state file is used by another process; 6 nothing came within\n"
	"-t SECONDS; 130 or 143 ended by SIGINT or SIGTERM before send, recv -n or the console's lines were done (echo, recv\n"
	"without -n and a console with nothing unacknowledged end so with 0).";

static void G_GNUC_NORETURN G_GNUC_PRINTF(1, 2) usage_error(const char *format, ...)
{
	va_list args;

	fputs("hvpipe-hmc: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs("; see `hvpipe-hmc --help`\n", stderr);
	exit(EXIT_USAGE);
}

/* All of -c. It may stand before the command and behind it, and each parse makes an array of its own. */
static GPtrArray *addresses;

static void parse(GOptionContext *context, int *argc, char ***argv)
{
	GError *error = NULL;

	if (!g_option_context_parse(context, argc, argv, &error))
		usage_error("%s", error->message);
	g_option_context_free(context);
	for (char **address = given.addresses; address && *address; address++)
		g_ptr_array_add(addresses, *address);
	g_clear_pointer(&given.addresses, g_free);
	if (given.version) {
		puts("hvpipe-hmc " HVPIPE_VERSION);
		exit(EXIT_SUCCESS);
	}
}

/* The options before the command; all there is to say for --help. */
static void parse_common(int *argc, char ***argv)
{
	GOptionContext *context = g_option_context_new("COMMAND [OPTION…] [ARGUMENT…]");
	GString *help = g_string_new("Commands; `hvpipe-hmc COMMAND --help` tells more:\n");

	for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
		const GOptionEntry *option = commands[i]->options;

		g_string_append_printf(help, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
		for (; option && option->long_name; option++) {
			char *name = g_strdup_printf("-%c, --%s%s%s", option->short_name, option->long_name,
						     option->arg_description ? "=" : "",
						     option->arg_description ? option->arg_description : "");

			g_string_append_printf(help, "    %-25s %s\n", name, option->description);
			g_free(name);
		}
	}
	g_string_append_printf(help, "\n%s", exit_statuses);

	g_option_context_set_summary(context, "An HMC for one source of a partition's hypervisor pipe: connects to the source's socket,\n"
				     "and connects again whenever the connection is lost.");
	g_option_context_set_description(context, help->str);
	g_option_context_set_strict_posix(context, TRUE);
	g_option_context_add_main_entries(context, common_options, NULL);
	parse(context, argc, argv);
	g_string_free(help, TRUE);
}

static void parse_command(const struct hmc_command *command, int *argc, char ***argv)
{
	char *parameters = g_strdup_printf("%s", command->arguments);
	GOptionContext *context = g_option_context_new(parameters);
	char *program = g_strdup_printf("hvpipe-hmc %s", command->name);

	g_set_prgname(program);
	g_option_context_set_summary(context, command->description);
	g_option_context_set_description(context, exit_statuses);
	if (command->options)
		g_option_context_add_main_entries(context, command->options, NULL);
	g_option_context_add_main_entries(context, common_options, NULL);
	g_option_context_add_main_entries(context, rest_option, NULL);
	parse(context, argc, argv);
	g_free(program);
	g_free(parameters);
	if (given.rest && command->max_arguments >= 0 && g_strv_length(given.rest) > (unsigned int)command->max_arguments)
		usage_error("%s: '%s' is one argument too many", command->name, given.rest[command->max_arguments]);
}

static void apply_options(struct hmc *hmc)
{
	static char *none[] = { NULL };
	double seconds;
	char *end;

	hmc->state_path = given.state;
	hmc->verbose = given.verbose;
	hmc->file = given.file;
	hmc->reply = given.reply;
	hmc->dir = given.dir;
	hmc->arguments = given.rest ? given.rest : none;
	hmc->timeout_ms = -1;
	if (given.count && !g_ascii_string_to_unsigned(given.count, 10, 1, G_MAXUINT64, &hmc->count, NULL))
		usage_error("count '%s': a number from 1 on is needed", given.count);
	if (given.timeout) {
		seconds = g_ascii_strtod(given.timeout, &end);
		/* Written so that NaN fails. */
		if (end == given.timeout || *end || !(seconds >= 0 && seconds <= G_MAXINT / 1000))
			usage_error("timeout '%s': seconds from 0 to %d are needed", given.timeout, G_MAXINT / 1000);
		hmc->timeout_ms = ceil(seconds * 1000);
	}
}

/* A descriptor below 3 that we open would be taken for a standard one. */
static void open_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	struct hmc hmc = { 0 };
	GError *error = NULL;

	setlocale(LC_CTYPE, "");
	open_standard_files();
	addresses = g_ptr_array_new_with_free_func(g_free);
	g_set_prgname("hvpipe-hmc");
	parse_common(&argc, &argv);
	if (argc < 2)
		usage_error("which command? console, send, recv or echo");
	for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
		if (!strcmp(argv[1], commands[i]->name))
			hmc.command = commands[i];
	if (!hmc.command)
		usage_error("no command '%s': console, send, recv or echo", argv[1]);
	argc--;
	argv++;
	parse_command(hmc.command, &argc, &argv);
	apply_options(&hmc);

	hmc.state = hmc_state_open(hmc.state_path, &error);
	if (!hmc.state) {
		complain("%s", error->message);
		hmc.status = g_error_matches(error, G_IO_ERROR, G_IO_ERROR_BUSY) ? EXIT_STATE_IN_USE : EXIT_FAILURE;
		g_error_free(error);
		return hmc.status;
	}
	if (hmc_state_cut(hmc.state) && hmc.verbose)
		complain("%s: cut off %" PRIu64 " bytes of a write that never finished", hmc.state_path, hmc_state_cut(hmc.state));
	if (!addresses->len)
		g_ptr_array_add(addresses, g_strdup(DEFAULT_ADDRESS));
	hmc.link = hmc_link_new(addresses->pdata[0], hmc.state, &hmc_link_default_timing, &link_ops, &hmc, &error);
	for (unsigned int i = 1; hmc.link && i < addresses->len; i++)
		if (!hmc_link_add(hmc.link, addresses->pdata[i], &error))
			usage_error("%s", error->message);
	if (!hmc.link)
		usage_error("%s", error->message);
	g_ptr_array_unref(addresses);
	if (given.fault && !hmc_link_set_faults(hmc.link, given.fault, &error))
		usage_error("--fault: %s", error->message);
	hmc.loop = g_main_loop_new(NULL, FALSE);
	hmc.outbox = hmc_outbox_new(hmc.link, hmc.state, on_done, &hmc);
	catch_signals(&hmc);
	if (hmc.command->start(&hmc)) {
		hmc_link_start(hmc.link);
		g_main_loop_run(hmc.loop);
	}

	hmc_link_finish(hmc.link, FINISH_MS);
	if (hmc.command->stop)
		hmc.command->stop(&hmc);
	hmc_outbox_free(hmc.outbox);
	hmc_link_free(hmc.link);
	if (!hmc_state_sync(hmc.state, &error)) {
		complain("%s", error->message);
		hmc.status = hmc.status ? hmc.status : EXIT_FAILURE;
	}
	hmc_state_close(hmc.state);
	g_main_loop_unref(hmc.loop);
	return hmc.status;
}
