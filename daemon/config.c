// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpiped: its configuration file. */
#include "config.h"

#include <grp.h>
#include <string.h>

#include "hvpipe.h"

#define DAEMON	 "hvpiped" /* the group of keys of the daemon */
#define DEFAULTS "sources" /* the group of keys of all sources that do not say otherwise */

#define MIB (UINT64_C(1) << 20)

static const char *const daemon_keys[] = { "socket", "spool", "sources", "send-timeout", NULL };
static const char *const source_keys[] = { "when-full", "spool-size", "receive", "send", "observe", NULL };

static void free_source(void *data)
{
	struct source_config *source = data;

	g_free(source->name);
	g_free(source->receive.gids);
	g_free(source->send.gids);
	g_free(source->observe.gids);
	g_free(source);
}

void config_free(struct config *config)
{
	if (!config)
		return;
	g_free(config->socket);
	g_free(config->spool);
	g_ptr_array_unref(config->sources);
	g_free(config);
}

const struct group_rule *config_rule(const struct source_config *source, int right)
{
	return right == HVPIPE_RECEIVE ? &source->receive : right == HVPIPE_SEND ? &source->send : &source->observe;
}

#define wrong(error, ...) g_set_error(error, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_INVALID_VALUE, __VA_ARGS__)

/* A number of the file, or @fallback if it is not there. */
static bool read_number(GKeyFile *file, const char *group, const char *key, uint64_t max, uint64_t *number,
			GError **error)
{
	g_autofree char *text = g_key_file_get_string(file, group, key, NULL);
	bool ok = !text || g_ascii_string_to_unsigned(text, 10, 1, max, number, NULL);

	if (!ok)
		wrong(error, "[%s] %s=%s: a number from 1 to %" G_GUINT64_FORMAT " is needed", group, key, text, max);
	return ok;
}

/* A group's number, or its name in /etc/group. */
static bool find_group(const char *name, gid_t *gid)
{
	struct group *entry;
	guint64 number;

	if (g_ascii_string_to_unsigned(name, 10, 0, UINT32_MAX - 1, &number, NULL)) {
		*gid = number;
		return true;
	}
	entry = getgrnam(name);
	if (entry)
		*gid = entry->gr_gid;
	return entry;
}

/* A system without the group has nobody in it. */
static void set_rule(struct group_rule *rule, const char *key, char **groups)
{
	g_free(rule->gids);
	rule->gids = g_new0(gid_t, g_strv_length(groups) + 1);
	rule->nr_gids = 0;
	for (; *groups; groups++) {
		if (!**groups || !strcmp(*groups, "root"))
			continue;
		if (find_group(*groups, &rule->gids[rule->nr_gids]))
			rule->nr_gids++;
		else
			g_message("%s: this system has no group '%s'", key, *groups);
	}
}

static void read_rule(GKeyFile *file, const char *group, const char *key, struct group_rule *rule)
{
	g_auto(GStrv) groups = g_key_file_get_string_list(file, group, key, NULL, NULL);

	if (groups)
		set_rule(rule, key, groups);
}

/* What the group of keys says of a source. */
static bool read_source(GKeyFile *file, const char *group, struct source_config *source, GError **error)
{
	g_autofree char *when_full = g_key_file_get_string(file, group, "when-full", NULL);
	uint64_t mib = source->spool_bytes / MIB;

	if (when_full && strcmp(when_full, "block") && strcmp(when_full, "drop-oldest")) {
		wrong(error, "[%s] when-full=%s: block or drop-oldest is needed", group, when_full);
		return false;
	}
	if (when_full)
		source->drop_oldest = !strcmp(when_full, "drop-oldest");
	if (!read_number(file, group, "spool-size", 1024, &mib, error))
		return false;
	source->spool_bytes = mib * MIB;
	read_rule(file, group, "receive", &source->receive);
	read_rule(file, group, "send", &source->send);
	read_rule(file, group, "observe", &source->observe);
	return true;
}

/* Every group and key is one that we know: a misspelt rule must not be passed over. */
static bool check_names(GKeyFile *file, char **sources, GError **error)
{
	g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);

	for (char **group = groups; *group; group++) {
		const char *const *known = strcmp(*group, DAEMON) ? source_keys : daemon_keys;
		g_auto(GStrv) keys = g_key_file_get_keys(file, *group, NULL, NULL);

		if (strcmp(*group, DAEMON) && strcmp(*group, DEFAULTS) &&
		    !g_strv_contains((const char *const *)sources, *group)) {
			wrong(error, "[%s]: neither " DAEMON ", " DEFAULTS " nor one of the sources", *group);
			return false;
		}
		for (char **key = keys; key && *key; key++) {
			if (!g_strv_contains(known, *key)) {
				wrong(error, "[%s] %s: no such key here", *group, *key);
				return false;
			}
		}
	}
	return true;
}

static bool add_source(struct config *config, GKeyFile *file, const char *name, GError **error)
{
	static char *default_groups[] = { "hvpipe", NULL };
	struct source_config *source = g_new0(struct source_config, 1);

	source->name = g_strdup(name);
	source->spool_bytes = 64 * MIB;
	g_ptr_array_add(config->sources, source);
	if (hvpipe_parse_source(name, &source->id)) {
		wrong(error, "[" DAEMON "] sources: '%s' is neither hmcN nor a source ID like 0x02000001", name);
		return false;
	}
	for (guint i = 0; i + 1 < config->sources->len; i++) {
		const struct source_config *other = g_ptr_array_index(config->sources, i);

		if (other->id == source->id) {
			wrong(error, "[" DAEMON "] sources: %s and %s are the same source", other->name, name);
			return false;
		}
	}
	if (!g_key_file_has_key(file, DEFAULTS, "send", NULL) && !g_key_file_has_key(file, name, "send", NULL))
		set_rule(&source->send, "send", default_groups);
	if (!g_key_file_has_key(file, DEFAULTS, "observe", NULL) && !g_key_file_has_key(file, name, "observe", NULL))
		set_rule(&source->observe, "observe", default_groups);
	return read_source(file, DEFAULTS, source, error) && read_source(file, name, source, error);
}

static bool read_config(struct config *config, GKeyFile *file, GError **error)
{
	g_auto(GStrv) sources = g_key_file_get_string_list(file, DAEMON, "sources", NULL, NULL);
	uint64_t seconds = 30;

	if (!sources)
		sources = g_strsplit("hmc1;hmc2", ";", -1);
	if (!*sources || g_strv_length(sources) > CONFIG_SOURCES_MAX) {
		wrong(error, "[" DAEMON "] sources: 1 to %d are needed", CONFIG_SOURCES_MAX);
		return false;
	}
	if (!check_names(file, sources, error))
		return false;
	config->socket = g_key_file_get_string(file, DAEMON, "socket", NULL);
	if (!config->socket)
		config->socket = g_strdup("/run/hvpipe/socket");
	config->spool = g_key_file_get_string(file, DAEMON, "spool", NULL);
	if (!config->spool)
		config->spool = g_strdup("/var/lib/hvpipe");
	if (!read_number(file, DAEMON, "send-timeout", 3600, &seconds, error))
		return false;
	config->send_timeout_s = seconds;
	for (char **name = sources; *name; name++)
		if (!add_source(config, file, *name, error))
			return false;
	return true;
}

struct config *config_load(const char *path, GError **error)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	struct config *config = g_new0(struct config, 1);
	GError *problem = NULL;

	config->sources = g_ptr_array_new_with_free_func(free_source);
	if (!g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, &problem) &&
	    g_error_matches(problem, G_FILE_ERROR, G_FILE_ERROR_NOENT))
		g_clear_error(&problem);
	if (!problem && read_config(config, file, &problem))
		return config;
	g_propagate_prefixed_error(error, problem, "%s: ", path);
	config_free(config);
	return NULL;
}
