// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe-hmc serve: any number of links in one process, as a configuration says. And status, which asks it. */
#include <glib-unix.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "config.h"
#include "control.h"
#include "hmc.h"
#include "service.h"

/* How long the hypervisors may take to read our last frames: at a signal, which is answered within a second; else. */
#define STOP_MS 400
#define END_MS	2000
#define REAP_MS 20

struct serve {
	GMainLoop *main_loop;
	struct hmc_loop *loop;
	struct hmc_store *store;
	struct hmc_control *control;
	const char *path;
	struct hmc_config *config;
	GHashTable *services; /* by name */
	GPtrArray *ending;    /* services that the configuration has no more, or differently */
	struct hmc_timer reap;
	gint64 reap_until;
	int status;
};

static void quit(struct serve *serve, int status)
{
	if (!serve->status)
		serve->status = status;
	g_main_loop_quit(serve->main_loop);
}

/* Nothing goes out that the state file does not have. Without it there is no going on, for no link. */
static void on_commit(void *user)
{
	struct serve *serve = user;
	GHashTableIter iter;
	GError *error = NULL;
	gpointer service;

	if (hmc_store_commit(serve->store, &error))
		return;
	hmc_log(NULL, "%s; ends, as no message can be taken", error->message);
	g_hash_table_iter_init(&iter, serve->services);
	while (g_hash_table_iter_next(&iter, NULL, &service))
		hmc_service_fail(service, error);
	for (unsigned int i = 0; i < serve->ending->len; i++)
		hmc_service_fail(serve->ending->pdata[i], error);
	g_error_free(error);
	quit(serve, EXIT_FAILURE);
}

static struct json_object *status(void *user)
{
	struct serve *serve = user;
	struct json_object *object = json_object_new_object(), *links = json_object_new_array();

	json_object_object_add(object, "version", json_object_new_string(HVPIPE_VERSION));
	json_object_object_add(object, "pid", json_object_new_int(getpid()));
	/* In the order of the configuration. */
	for (unsigned int i = 0; i < serve->config->links->len; i++) {
		const struct hmc_link_config *link = serve->config->links->pdata[i];
		const struct hmc_service *service = g_hash_table_lookup(serve->services, link->name);

		if (service)
			json_object_array_add(links, hmc_service_status(service));
	}
	json_object_object_add(object, "links", links);
	return object;
}

static bool is_ending(const struct serve *serve, const char *name)
{
	for (unsigned int i = 0; i < serve->ending->len; i++)
		if (!strcmp(hmc_service_config(serve->ending->pdata[i])->name, name))
			return true;
	return false;
}

/* Start what the configuration has and nobody serves, once its earlier service has left the session. */
static bool start_missing(struct serve *serve)
{
	bool ok = true;

	for (unsigned int i = 0; i < serve->config->links->len; i++) {
		const struct hmc_link_config *link = serve->config->links->pdata[i];
		struct hmc_service *service;
		GError *error = NULL;

		if (g_hash_table_contains(serve->services, link->name) || is_ending(serve, link->name))
			continue;
		service = hmc_service_new(link, serve->loop, serve->store, &error);
		if (service) {
			g_hash_table_insert(serve->services, (char *)hmc_service_config(service)->name, service);
			hmc_service_start(service);
		} else {
			hmc_log(link->name, "%s", error->message);
			g_error_free(error);
			ok = false;
		}
	}
	return ok;
}

static void on_reap(void *user)
{
	struct serve *serve = user;
	bool late = g_get_monotonic_time() >= serve->reap_until;

	for (unsigned int i = serve->ending->len; i-- > 0;)
		if (late || hmc_service_has_ended(serve->ending->pdata[i]))
			g_ptr_array_remove_index_fast(serve->ending, i);
	start_missing(serve);
	if (serve->ending->len)
		hmc_timer_start(&serve->reap, serve->loop, REAP_MS, on_reap, serve);
}

/* End the services that are not as the configuration says, and those that have failed. */
static void end_others(struct serve *serve)
{
	GHashTableIter iter;
	gpointer value;

	g_hash_table_iter_init(&iter, serve->services);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		const struct hmc_link_config *is = hmc_service_config(value);
		const struct hmc_link_config *wanted = hmc_config_find(serve->config, is->name);

		if (wanted && hmc_link_config_equal(is, wanted) && !hmc_service_has_failed(value))
			continue;
		if (!wanted)
			hmc_log(is->name, "is not in %s any more: ends", serve->path);
		hmc_service_end(value);
		g_ptr_array_add(serve->ending, value);
		g_hash_table_iter_steal(&iter);
	}
	serve->reap_until = g_get_monotonic_time() + END_MS * 1000;
}

static gboolean on_reload(gpointer user)
{
	struct serve *serve = user;
	GError *error = NULL;
	struct hmc_config *config = hmc_config_load(serve->path, &error);

	if (!config) {
		hmc_log(NULL, "reload: %s; goes on as before", error->message);
		g_error_free(error);
		return G_SOURCE_CONTINUE;
	}
	if (g_strcmp0(config->state, serve->config->state) || g_strcmp0(config->control, serve->config->control))
		hmc_log(NULL, "reload: 'state' and 'control' are read at the start only");
	hmc_config_free(serve->config);
	serve->config = config;
	end_others(serve);
	on_reap(serve);
	hmc_log(NULL, "reload: %u links", config->links->len);
	return G_SOURCE_CONTINUE;
}

static gboolean on_stop(gint fd, GIOCondition condition, gpointer user)
{
	quit(user, EXIT_SUCCESS);
	return G_SOURCE_REMOVE;
}

static gboolean on_stop_timeout(gpointer user)
{
	*(bool *)user = true;
	return G_SOURCE_REMOVE;
}

static void end_all(struct serve *serve)
{
	GSource *timeout = g_timeout_source_new(STOP_MS);
	GHashTableIter iter;
	bool late = false;
	gpointer service;

	hmc_timer_stop(&serve->reap);
	g_hash_table_iter_init(&iter, serve->services);
	while (g_hash_table_iter_next(&iter, NULL, &service)) {
		hmc_service_end(service);
		g_ptr_array_add(serve->ending, service);
		g_hash_table_iter_steal(&iter);
	}
	hmc_add_source(timeout, on_stop_timeout, &late);
	while (serve->ending->len && !late) {
		for (unsigned int i = serve->ending->len; i-- > 0;)
			if (hmc_service_has_ended(serve->ending->pdata[i]))
				g_ptr_array_remove_index_fast(serve->ending, i);
		if (serve->ending->len)
			g_main_context_iteration(NULL, TRUE);
	}
	hmc_stop_source(&timeout);
	g_ptr_array_set_size(serve->ending, 0);
}

/* Each link needs a descriptor. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static bool open_all(struct serve *serve)
{
	GError *error = NULL;

	serve->config = hmc_config_load(serve->path, &error);
	serve->store = serve->config ? hmc_store_open(serve->config->state, &error) : NULL;
	if (!serve->store)
		goto failed;
	serve->loop = hmc_loop_new();
	hmc_loop_set_commit(serve->loop, on_commit, serve);
	if (!serve->config->control)
		return true;
	serve->control = hmc_control_new(serve->loop, serve->config->control, status, serve, &error);
	if (serve->control)
		return true;
failed:
	report("%s", error->message);
	serve->status = g_error_matches(error, G_IO_ERROR, G_IO_ERROR_BUSY) ? EXIT_STATE_IN_USE : EXIT_FAILURE;
	g_error_free(error);
	return false;
}

static void close_all(struct serve *serve)
{
	GError *error = NULL;

	g_hash_table_unref(serve->services);
	g_ptr_array_unref(serve->ending);
	if (serve->control)
		hmc_control_free(serve->control);
	if (serve->store && !serve->status && !hmc_store_commit(serve->store, &error)) {
		hmc_log(NULL, "%s", error->message);
		serve->status = EXIT_FAILURE;
	}
	if (serve->loop)
		hmc_loop_free(serve->loop);
	if (serve->store)
		hmc_store_close(serve->store);
	if (serve->config)
		hmc_config_free(serve->config);
	g_main_loop_unref(serve->main_loop);
}

static int run_serve(char **arguments)
{
	struct serve serve = {
		.main_loop = g_main_loop_new(NULL, FALSE),
		.path = arguments[0],
		.services = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)hmc_service_free),
		.ending = g_ptr_array_new_with_free_func((GDestroyNotify)hmc_service_free),
	};

	if (!serve.path)
		usage_error("serve: which CONFIG?");
	g_unix_fd_add(catch_stop(), G_IO_IN, on_stop, &serve);
	signal(SIGPIPE, SIG_IGN);
	raise_limit();
	if (open_all(&serve)) {
		g_unix_signal_add(SIGHUP, on_reload, &serve);
		if (start_missing(&serve)) {
			hmc_log(NULL, "hvpipe-hmc " HVPIPE_VERSION ": %u links", serve.config->links->len);
			g_main_loop_run(serve.main_loop);
			if (stop_signal())
				hmc_log(NULL, "ended by %s", stop_signal() == SIGINT ? "SIGINT" : "SIGTERM");
		} else {
			serve.status = EXIT_FAILURE;
		}
		end_all(&serve);
	}
	close_all(&serve);
	return serve.status;
}

const struct hmc_command hmc_serve = {
	.name = "serve",
	.arguments = "CONFIG",
	.summary = "serve all sources that a configuration file names",
	.description = "Serve all sources that the file CONFIG names, until a signal. SIGHUP reads it again.",
	.max_arguments = 1,
	.run = run_serve,
};

/*
 * status
 */

static const char *text_of(struct json_object *object, const char *key)
{
	const char *text = json_object_get_string(json_object_object_get(object, key));

	return text ? text : "-";
}

static uint64_t number_of(struct json_object *object, const char *key)
{
	return json_object_get_uint64(json_object_object_get(object, key));
}

static void print_line(const char *line)
{
	char *shown = escape_text(line, strlen(line), ESCAPE_LINE);

	puts(shown ? shown : "no memory");
	free(shown);
}

static bool print_table(const char *text)
{
	struct json_object *object = json_tokener_parse(text), *links = json_object_object_get(object, "links");

	if (!json_object_is_type(links, json_type_array)) {
		json_object_put(object);
		return false;
	}
	for (size_t i = 0; i < json_object_array_length(links); i++) {
		struct json_object *link = json_object_array_get_idx(links, i);
		char *line = g_strdup_printf("%s/%s: %s, pipe %s, received %" PRIu64 ", refused %" PRIu64
					     ", files %" PRIu64 ", sent %" PRIu64 ", acknowledged %" PRIu64 ", %s",
					     text_of(link, "partition"), text_of(link, "source"),
					     text_of(link, "connection"), text_of(link, "pipe"),
					     number_of(link, "received"), number_of(link, "refused"),
					     number_of(link, "files"), number_of(link, "sent"),
					     number_of(link, "acknowledged"), text_of(link, "address"));

		print_line(line);
		g_free(line);
	}
	json_object_put(object);
	return true;
}

static int run_status(char **arguments)
{
	const char *path = arguments[0] ? arguments[0] : HMC_CONTROL_DEFAULT;
	GError *error = NULL;
	char *text = hmc_control_read(path, &error);
	int result = EXIT_SUCCESS;

	if (!text) {
		report("%s; is `hvpipe-hmc serve` running, with this as its 'control'?", error->message);
		g_error_free(error);
		return EXIT_FAILURE;
	}
	if (cli.json) {
		fputs(text, stdout);
	} else if (!print_table(text)) {
		report("%s: what answers there is no hvpipe-hmc", path);
		result = EXIT_FAILURE;
	}
	g_free(text);
	return result;
}

static const GOptionEntry status_options[] = {
	{ "json", 'j', 0, G_OPTION_ARG_NONE, &cli.json, "Print it as JSON", NULL }, G_OPTION_ENTRY_NULL
};

const struct hmc_command hmc_status = {
	.name = "status",
	.arguments = "[SOCKET]",
	.summary = "show what a running serve does",
	.description =
		"Show the links of a running `hvpipe-hmc serve`: those of the one whose control socket is SOCKET,\n"
		"or " HMC_CONTROL_DEFAULT ".",
	.options = status_options,
	.max_arguments = 1,
	.run = run_status,
};
