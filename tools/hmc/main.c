// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe-hmc(1): an HMC for one source of the hypervisor. Options, main loop, what the commands share. */
#include "hmc.h"

#include <errno.h>
#include <glib-unix.h>
#include <inttypes.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_ADDRESS "hmc1.sock"

/* How long the other side may take to read our last frames, and after a signal, which is answered within a second. */
#define FINISH_MS	 2000
#define FINISH_SIGNAL_MS 400

const char program_name[] = "hvpipe-hmc";

struct hmc_cli cli;

void hmc_say(struct hmc *hmc, const char *format, ...)
{
	char *text, *line;
	va_list args;

	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	line = escape_text(text, strlen(text), ESCAPE_LINE);
	g_free(text);
	if (line && hmc->command->say)
		hmc->command->say(hmc, line);
	else
		report("%s", line ? line : "no memory for a message");
	free(line);
}

void hmc_quit(struct hmc *hmc, int status)
{
	if (!hmc->status)
		hmc->status = status;
	g_main_loop_quit(hmc->loop);
}

static bool end_write(struct hmc *hmc, bool written)
{
	/* Pipes and terminals cannot be synced, and need no sync. */
	if (written &&
	    (!hmc->state_path || !fsync(STDOUT_FILENO) || errno == EINVAL || errno == EROFS || errno == ENOTSUP))
		return true;
	if (errno == EINTR && stop_signal()) {
		/* The signal itself ends the program. */
		hmc_say(hmc, "standard output: nobody reads it; the last message was not acknowledged");
		return false;
	}
	hmc_say(hmc, "standard output: %s; the last message was not acknowledged", g_strerror(errno));
	hmc_quit(hmc, EXIT_FAILURE);
	return false;
}

bool hmc_write_out(struct hmc *hmc, const void *data, size_t len)
{
	clear_progress();
	return end_write(hmc, write_all(STDOUT_FILENO, data, len));
}

bool hmc_write_message(struct hmc *hmc, const void *data, size_t len)
{
	clear_progress();
	return end_write(hmc, write_message(data, len));
}

/* "; 3 messages were not acknowledged, ...", or an empty text. */
static char *pending_text(struct hmc *hmc)
{
	unsigned int pending = hmc_state_pending(hmc->state)->length;

	if (!pending)
		return g_strdup("");
	return g_strdup_printf("; %u %s not acknowledged%s%s%s", pending,
			       pending == 1 ? "message was" : "messages were",
			       hmc->state_path ? ": kept in " : ", and are forgotten, as there is no --state",
			       hmc->state_path ? hmc->state_path : "",
			       hmc->state_path ? ", to be sent by the next run with it" : "");
}

static gboolean on_timeout(gpointer user)
{
	struct hmc *hmc = user;
	char *pending = pending_text(hmc);

	hmc_say(hmc, "%s: %s for %g seconds%s", hmc_link_address(hmc->link), hmc->awaited, hmc->timeout_ms / 1000.0,
		pending);
	g_free(pending);
	hmc_quit(hmc, hmc->awaited_status);
	/* Once: the link still runs the main context while it ends. */
	return G_SOURCE_REMOVE;
}

void hmc_restart_timeout(struct hmc *hmc, const char *awaited, int status)
{
	hmc->awaited = awaited;
	hmc->awaited_status = status;
	if (hmc->timeout_ms >= 0)
		hmc_start_timer(&hmc->timeout, hmc->timeout_ms, on_timeout, hmc);
}

/*
 * The link, on behalf of the command
 */

static enum hmc_verdict on_message(void *user, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	struct hmc *hmc = user;

	/* The program ends: take no more. */
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

/* Nothing goes out that the state file does not have. */
static void on_commit(void *user)
{
	struct hmc *hmc = user;
	GError *error = NULL;

	if (!hmc_store_commit(hmc->store, &error))
		hmc_link_fail(hmc->link, error);
}

static const struct hmc_link_ops link_ops = {
	.message = on_message,
	.changed = on_changed,
	.notice = on_notice,
	.failed = on_failed,
};

static void on_done(void *user, const char *name, uint64_t messages, uint64_t bytes, enum hmc_outcome outcome,
		    const char *text)
{
	struct hmc *hmc = user;

	if (hmc->command->done)
		hmc->command->done(hmc, name, messages, bytes, outcome, text);
}

static gboolean on_stop(gint fd, GIOCondition condition, gpointer user)
{
	struct hmc *hmc = user;
	char *pending = pending_text(hmc);
	bool unfinished = hmc->command->unfinished && hmc->command->unfinished(hmc);

	if (unfinished || *pending)
		hmc_say(hmc, "ended by %s%s", stop_signal() == SIGINT ? "SIGINT" : "SIGTERM", pending);
	g_free(pending);
	/* A signal is the way to end the other commands. */
	hmc_quit(hmc, unfinished ? 128 + stop_signal() : EXIT_SUCCESS);
	return G_SOURCE_REMOVE;
}

/*
 * Options
 */

static const GOptionEntry common_options[] = {
	{ "connect", 'c', 0, G_OPTION_ARG_FILENAME_ARRAY, &cli.addresses,
	  "The source's socket: PATH, unix:PATH, HOST:PORT or tcp:HOST:PORT; several in turn, as for a partition that "
	  "migrates; default " DEFAULT_ADDRESS,
	  "ADDRESS" },
	{ "state", 0, 0, G_OPTION_ARG_FILENAME, &cli.state,
	  "Keep the session in FILE, so that it goes on after the end of this process", "FILE" },
	{ "fault", 0, 0, G_OPTION_ARG_STRING, &cli.fault,
	  "Misbehave on the link, to test the hypervisor: KIND[,frame=NAME][,count=N][,every=N][;…], see the manual",
	  "FAULTS" },
	{ "verbose", 'v', 0, G_OPTION_ARG_NONE, &cli.verbose, "Report connections, the partition's pipe, files sent",
	  NULL },
	{ "version", 'V', 0, G_OPTION_ARG_NONE, &cli.version, "Print the version", NULL },
	G_OPTION_ENTRY_NULL
};

/* The arguments of the command. */
static const GOptionEntry rest_option[] = {
	{ G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &cli.rest, NULL, NULL }, G_OPTION_ENTRY_NULL
};

static const struct hmc_command *const commands[] = { &hmc_console, &hmc_send,	&hmc_recv,
						      &hmc_echo,    &hmc_serve, &hmc_status };

static const char exit_statuses[] =
	"Exit status: 0 done; 1 failed; 2 wrong usage; 6 nothing came within -t SECONDS; 8 another process uses\n"
	"the state file; 10 a file was refused; 11 unknown whether a file is stored; 130 or 143 ended by SIGINT or\n"
	"SIGTERM before send, recv -n or the console's lines were done (echo, recv without -n and a console with\n"
	"nothing unacknowledged end with 0 then).";

/* All of -c: it may stand before the command and behind it, and each parse makes an array of its own. */
static GPtrArray *addresses;

static void parse(GOptionContext *context, int *argc, char ***argv)
{
	GError *error = NULL;

	if (!g_option_context_parse(context, argc, argv, &error))
		usage_error("%s", error->message);
	g_option_context_free(context);
	for (char **address = cli.addresses; address && *address; address++)
		g_ptr_array_add(addresses, *address);
	g_clear_pointer(&cli.addresses, g_free);
	if (cli.version) {
		puts("hvpipe-hmc " HVPIPE_VERSION);
		exit(EXIT_SUCCESS);
	}
}

/* The options before the command, and the --help of the whole program. */
static void parse_common(int *argc, char ***argv)
{
	GOptionContext *context = g_option_context_new("COMMAND [OPTION…] [ARGUMENT…]");
	GString *help = g_string_new("Commands, each with its own --help:\n");

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

	g_option_context_set_summary(context,
				     "An HMC for one source of a partition's hypervisor pipe: connects to the\n"
				     "source's socket, and connects again whenever the connection is lost.");
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
	if (cli.rest && command->max_arguments >= 0 && g_strv_length(cli.rest) > (unsigned int)command->max_arguments)
		usage_error("%s: '%s' is one argument too many", command->name, cli.rest[command->max_arguments]);
}

static void apply_options(struct hmc *hmc)
{
	static char *none[] = { NULL };

	hmc->state_path = cli.state;
	hmc->verbose = cli.verbose;
	hmc->file = cli.file;
	hmc->reply = cli.reply;
	hmc->json = cli.json;
	hmc->dir = cli.dir;
	hmc->arguments = cli.rest ? cli.rest : none;
	hmc->count = cli.count ? parse_count(cli.count) : 0;
	hmc->message_size = cli.message_size ? parse_message_size(cli.message_size, FILE_MESSAGE_MAX) :
					       FILE_MESSAGE_DEFAULT;
	hmc->timeout_ms = cli.timeout ? parse_timeout_ms(cli.timeout) : -1;
}

int main(int argc, char **argv)
{
	struct hmc hmc = { 0 };
	GError *error = NULL;

	setlocale(LC_CTYPE, "");
	begin_program();
	addresses = g_ptr_array_new_with_free_func(g_free);
	g_set_prgname("hvpipe-hmc");
	parse_common(&argc, &argv);
	if (argc < 2)
		usage_error("which command? console, send, recv, echo, serve, status or help");
	if (!strcmp(argv[1], "help")) {
		argc = 2;
		argv[1] = "--help";
		parse_common(&argc, &argv);
	}
	for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
		if (!strcmp(argv[1], commands[i]->name))
			hmc.command = commands[i];
	if (!hmc.command)
		usage_error("no command '%s': console, send, recv, echo, serve, status or help", argv[1]);
	argc--;
	argv++;
	parse_command(hmc.command, &argc, &argv);
	if (hmc.command->run)
		return hmc.command->run(cli.rest ? cli.rest : (char *[]){ NULL });
	apply_options(&hmc);

	hmc.store = hmc_store_open(hmc.state_path, &error);
	hmc.state = hmc.store ? hmc_state_open(hmc.store, "default", &error) : NULL;
	if (!hmc.state) {
		report("%s", error->message);
		hmc.status = g_error_matches(error, G_IO_ERROR, G_IO_ERROR_BUSY) ? EXIT_STATE_IN_USE : EXIT_FAILURE;
		g_error_free(error);
		return hmc.status;
	}
	if (!addresses->len)
		g_ptr_array_add(addresses, g_strdup(DEFAULT_ADDRESS));
	hmc.links = hmc_loop_new();
	hmc_loop_set_commit(hmc.links, on_commit, &hmc);
	hmc.link = hmc_link_new(hmc.links, addresses->pdata[0], hmc.state, &hmc_link_default_timing, &link_ops, &hmc,
				&error);
	for (unsigned int i = 1; hmc.link && i < addresses->len; i++)
		if (!hmc_link_add(hmc.link, addresses->pdata[i], &error))
			usage_error("%s", error->message);
	if (!hmc.link)
		usage_error("%s", error->message);
	g_ptr_array_unref(addresses);
	if (cli.fault && !hmc_link_set_faults(hmc.link, cli.fault, &error))
		usage_error("--fault: %s", error->message);
	hmc.loop = g_main_loop_new(NULL, FALSE);
	hmc.outbox = hmc_outbox_new(hmc.link, hmc.state, hmc.message_size,
				    hmc.timeout_ms >= 0 ? hmc.timeout_ms : FILE_ANSWER_MS, on_done, &hmc);
	g_unix_fd_add(catch_stop(), G_IO_IN, on_stop, &hmc);
	signal(SIGPIPE, SIG_IGN);
	if (hmc.command->start(&hmc)) {
		hmc_link_start(hmc.link);
		g_main_loop_run(hmc.loop);
	}

	hmc_link_finish(hmc.link, stop_signal() ? FINISH_SIGNAL_MS : FINISH_MS);
	hmc_stop_source(&hmc.timeout);
	if (hmc.command->stop)
		hmc.command->stop(&hmc);
	hmc_outbox_free(hmc.outbox);
	hmc_link_free(hmc.link);
	if (!hmc_store_commit(hmc.store, &error) && !hmc.status) {
		report("%s", error->message);
		hmc.status = EXIT_FAILURE;
	}
	hmc_loop_free(hmc.links);
	hmc_state_close(hmc.state);
	hmc_store_close(hmc.store);
	g_main_loop_unref(hmc.loop);
	return hmc.status;
}
