// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpiped(8): options, start and end. */
#include <errno.h>
#include <glib-unix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"
#include "config.h"
#include "risk.h"
#include "sender.h"
#include "source.h"
#include "systemd.h"

/* As in hvpipe(1). */
enum { EXIT_USAGE = 2, EXIT_NO_PIPE = 3 };

static GMainLoop *loop;

/* To the journal if standard error is that; else a line on standard error. */
static GLogWriterOutput write_log(GLogLevelFlags level, const GLogField *fields, gsize nr_fields, gpointer data)
{
	if (g_log_writer_is_journald(STDERR_FILENO))
		return g_log_writer_journald(level, fields, nr_fields, data);
	for (gsize i = 0; i < nr_fields; i++)
		if (!strcmp(fields[i].key, "MESSAGE"))
			fprintf(stderr, "hvpiped: %s\n", (const char *)fields[i].value);
	return G_LOG_WRITER_HANDLED;
}

static char *handle_name(const struct source *source)
{
	return g_strdup_printf("handle-%08x", source_config(source)->id);
}

static void keep_handle(const struct source *source, int fd)
{
	g_autofree char *name = handle_name(source);

	systemd_keep(name, fd);
}

static void drop_handle(const struct source *source)
{
	g_autofree char *name = handle_name(source);

	systemd_drop(name);
}

static gboolean on_stop(gpointer data)
{
	g_main_loop_quit(loop);
	return G_SOURCE_CONTINUE;
}

/* Start all sources. False if this system has no pipe. */
static bool start_sources(const struct config *config)
{
	bool any = false;

	source_opened = keep_handle;
	source_closing = drop_handle;
	for (guint i = 0; i < config->sources->len; i++) {
		struct source *source = source_new(g_ptr_array_index(config->sources, i), config->spool);
		g_autofree char *name = handle_name(source);
		int err = source_start(source, systemd_take(name));

		any = any || (err != ENOENT && err != ENODEV && err != EOPNOTSUPP);
	}
	return any;
}

static int run(const struct config *config)
{
	g_autofree char *directory = g_path_get_dirname(config->socket);
	GError *error = NULL;
	struct source *source;
	int fd, kept;

	/* For a start by hand; tmpfiles.d or the unit made them otherwise. */
	g_mkdir_with_parents(directory, 0755);
	g_mkdir_with_parents(config->spool, 0700);

	kept = systemd_take("socket");
	if (kept >= 0 && access(config->socket, F_OK)) {
		close(kept);
		kept = -1;
	}
	fd = clients_listen(config->socket, kept, &error);
	if (fd < 0) {
		g_critical("%s", error->message);
		return EXIT_FAILURE;
	}
	if (kept < 0)
		systemd_keep("socket", fd);
	risk_open(config->socket);
	sender_init(config->send_timeout_s, client_sent);
	if (!start_sources(config)) {
		g_critical("no hypervisor pipe here: `hvpipe doctor` tells why");
		unlink(config->socket);
		return EXIT_NO_PIPE;
	}
	systemd_drop_rest();

	loop = g_main_loop_new(NULL, FALSE);
	g_unix_signal_add(SIGTERM, on_stop, NULL);
	g_unix_signal_add(SIGINT, on_stop, NULL);
	g_message("serving %u sources at %s", config->sources->len, config->socket);
	systemd_ready();
	g_main_loop_run(loop);
	g_message("ending");
	systemd_stopping();
	clients_stop();
	sender_stop();
	while ((source = source_each(0)))
		source_free(source);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static char *path = CONFIG_PATH;
	static gboolean foreground, version;
	static const GOptionEntry entries[] = {
		{ "config", 'c', 0, G_OPTION_ARG_FILENAME, &path, "Read FILE instead of " CONFIG_PATH, "FILE" },
		{ "foreground", 'f', 0, G_OPTION_ARG_NONE, &foreground,
		  "Run without a service manager; handles close when the daemon ends", NULL },
		{ "version", 'V', 0, G_OPTION_ARG_NONE, &version, "Print the version and exit", NULL },
		{ 0 },
	};
	g_autoptr(GOptionContext) options = g_option_context_new("- the hypervisor pipe for many programs");
	GError *error = NULL;
	struct config *config;
	int status;

	g_log_set_writer_func(write_log, NULL, NULL);
	g_option_context_add_main_entries(options, entries, NULL);
	if (!g_option_context_parse(options, &argc, &argv, &error) || argc > 1) {
		fprintf(stderr, "hvpiped: %s; see `hvpiped --help`\n", error ? error->message : "too many arguments");
		return EXIT_USAGE;
	}
	if (version) {
		puts("hvpiped " HVPIPE_VERSION);
		return EXIT_SUCCESS;
	}
	if (!foreground && !getenv("NOTIFY_SOCKET")) {
		fputs("hvpiped: it is a service: `systemctl start hvpiped`; or run `hvpiped --foreground`\n", stderr);
		return EXIT_USAGE;
	}
	if (!foreground)
		systemd_begin();
	umask(0077);
	config = config_load(path, &error);
	if (!config) {
		g_critical("%s", error->message);
		return EXIT_USAGE;
	}
	status = run(config);
	config_free(config);
	return status;
}
