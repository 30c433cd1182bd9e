// SPDX-License-Identifier: GPL-2.0-or-later
/* The configuration of hvpipe-hmc serve. */
#include "config.h"

#include <gio/gio.h>
#include <string.h>

#include "address.h"

#define SERVE "serve"

struct reader {
	GKeyFile *file;
	const char *path;
	char *dir;
	GError **error;
};

static bool G_GNUC_PRINTF(3, 4) set_error(struct reader *reader, const char *group, const char *format, ...)
{
	char *what;
	va_list args;

	va_start(args, format);
	what = g_strdup_vprintf(format, args);
	va_end(args);
	g_set_error(reader->error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s: [%s]: %s", reader->path, group, what);
	g_free(what);
	return false;
}

static char *full_name(const struct reader *reader, const char *name)
{
	return g_path_is_absolute(name) ? g_strdup(name) : g_build_filename(reader->dir, name, NULL);
}

/* A path as a whole address, or behind unix:, is a file's name like others. */
static char *full_address(const struct reader *reader, const char *address)
{
	const char *name = g_str_has_prefix(address, "unix:") ? address + strlen("unix:") : address;
	GSocketConnectable *target = hmc_address_parse(address, NULL);
	char *result, *full;

	if (!target || G_IS_NETWORK_ADDRESS(target) || !*name) {
		g_clear_object(&target);
		return g_strdup(address);
	}
	g_object_unref(target);
	full = full_name(reader, name);
	result = g_strconcat("unix:", full, NULL);
	g_free(full);
	return result;
}

static bool check_keys(struct reader *reader, const char *group, const char *const *known)
{
	char **keys = g_key_file_get_keys(reader->file, group, NULL, NULL);
	bool ok = true;

	for (char **key = keys; ok && *key; key++)
		if (!g_strv_contains(known, *key)) {
			char *all = g_strjoinv(", ", (char **)known);

			ok = set_error(reader, group, "'%s' is not known, choose from: %s", *key, all);
			g_free(all);
		}
	g_strfreev(keys);
	return ok;
}

/* The value of a key that need not be there, an empty one being an error. */
static bool read_text(struct reader *reader, const char *group, const char *key, char **text)
{
	*text = g_key_file_get_string(reader->file, group, key, NULL);
	if (*text && !**text)
		return set_error(reader, group, "'%s' is empty", key);
	return true;
}

static bool read_name(struct reader *reader, const char *group, const char *key, char **name)
{
	char *text;
	bool ok = read_text(reader, group, key, &text);

	*name = ok && text ? full_name(reader, text) : NULL;
	g_free(text);
	return ok;
}

static bool read_addresses(struct reader *reader, struct hmc_link_config *link)
{
	GError *wrong = NULL;
	char **list = g_key_file_get_string_list(reader->file, link->name, "connect", NULL, NULL);

	if (!list || !list[0]) {
		g_strfreev(list);
		return set_error(reader, link->name, "'connect' is missing: the address of the source's socket");
	}
	link->addresses = g_new0(char *, g_strv_length(list) + 1);
	for (int i = 0; list[i] && !wrong; i++) {
		GSocketConnectable *target;

		link->addresses[i] = full_address(reader, g_strstrip(list[i]));
		target = hmc_address_parse(link->addresses[i], &wrong);
		g_clear_object(&target);
	}
	g_strfreev(list);
	if (wrong) {
		set_error(reader, link->name, "%s", wrong->message);
		g_error_free(wrong);
		return false;
	}
	return true;
}

static bool read_command(struct reader *reader, struct hmc_link_config *link)
{
	GError *wrong = NULL;
	char *text;

	if (!read_text(reader, link->name, "command", &text))
		return false;
	if (text && !g_shell_parse_argv(text, NULL, &link->command, &wrong)) {
		set_error(reader, link->name, "command '%s': %s", text, wrong->message);
		g_error_free(wrong);
		g_free(text);
		return false;
	}
	g_free(text);
	return true;
}

static bool read_echo(struct reader *reader, struct hmc_link_config *link)
{
	GError *wrong = NULL;

	link->echo = g_key_file_get_boolean(reader->file, link->name, "echo", &wrong);
	if (wrong && !g_error_matches(wrong, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_KEY_NOT_FOUND)) {
		g_error_free(wrong);
		return set_error(reader, link->name, "'echo' must be true or false");
	}
	g_clear_error(&wrong);
	return true;
}

static bool read_link(struct reader *reader, struct hmc_link_config *link)
{
	static const char *const keys[] = { "connect", "inbox", "command", "echo", NULL };
	const char *slash = strrchr(link->name, '/');

	if (!slash || slash == link->name || strchr(link->name, '/') != slash)
		return set_error(reader, link->name,
				 "a group is [" SERVE "] or [PARTITION/SOURCE], as in [lpar1/hmc1]");
	link->partition = g_strndup(link->name, slash - link->name);
	link->source = hmc_source_parse(slash + 1);
	if (!link->source)
		return set_error(reader, link->name, "'%s' is no source: hmc1, say, or 0x02000001", slash + 1);
	if (!check_keys(reader, link->name, keys) || !read_addresses(reader, link) ||
	    !read_name(reader, link->name, "inbox", &link->inbox) || !read_command(reader, link) ||
	    !read_echo(reader, link))
		return false;
	if (link->command && link->echo)
		return set_error(reader, link->name, "either 'command' or 'echo' answers messages, not both");
	if (!link->command && !link->echo && !link->inbox)
		return set_error(reader, link->name, "what takes messages? 'inbox', 'command' or 'echo' is needed");
	if (link->inbox && !g_file_test(link->inbox, G_FILE_TEST_IS_DIR))
		return set_error(reader, link->name, "inbox '%s' is no directory", link->inbox);
	return true;
}

/* Two groups may name one source of a partition, as hmc1 and 0x02000001. */
static bool check_sources(struct reader *reader, const GPtrArray *links)
{
	for (unsigned int i = 0; i < links->len; i++)
		for (unsigned int j = 0; j < i; j++) {
			const struct hmc_link_config *a = links->pdata[i], *b = links->pdata[j];

			if (a->source == b->source && !strcmp(a->partition, b->partition))
				return set_error(reader, a->name, "the same source as [%s]", b->name);
		}
	return true;
}

static bool read_all(struct reader *reader, struct hmc_config *config)
{
	static const char *const keys[] = { "state", "control", NULL };
	char **groups = g_key_file_get_groups(reader->file, NULL);
	bool ok = true;

	for (char **group = groups; ok && *group; group++) {
		struct hmc_link_config *link;

		if (!strcmp(*group, SERVE)) {
			ok = check_keys(reader, SERVE, keys) && read_name(reader, SERVE, "state", &config->state) &&
			     read_name(reader, SERVE, "control", &config->control);
			continue;
		}
		link = g_new0(struct hmc_link_config, 1);
		link->name = g_strdup(*group);
		g_ptr_array_add(config->links, link);
		ok = read_link(reader, link);
	}
	g_strfreev(groups);
	return ok && check_sources(reader, config->links);
}

struct hmc_config *hmc_config_load(const char *path, GError **error)
{
	struct hmc_config *config = g_new0(struct hmc_config, 1);
	struct reader reader = {
		.file = g_key_file_new(), .path = path, .dir = g_path_get_dirname(path), .error = error
	};
	GError *wrong = NULL;

	config->links = g_ptr_array_new_with_free_func((GDestroyNotify)hmc_link_config_free);
	if (!g_key_file_load_from_file(reader.file, path, G_KEY_FILE_NONE, &wrong)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s: %s", path, wrong->message);
		g_error_free(wrong);
		g_clear_pointer(&config, hmc_config_free);
	} else if (!read_all(&reader, config)) {
		g_clear_pointer(&config, hmc_config_free);
	}
	g_key_file_free(reader.file);
	g_free(reader.dir);
	return config;
}

void hmc_config_free(struct hmc_config *config)
{
	g_ptr_array_unref(config->links);
	g_free(config->state);
	g_free(config->control);
	g_free(config);
}

const struct hmc_link_config *hmc_config_find(const struct hmc_config *config, const char *name)
{
	for (unsigned int i = 0; i < config->links->len; i++) {
		const struct hmc_link_config *link = config->links->pdata[i];

		if (!strcmp(link->name, name))
			return link;
	}
	return NULL;
}

struct hmc_link_config *hmc_link_config_copy(const struct hmc_link_config *link)
{
	struct hmc_link_config *copy = g_new0(struct hmc_link_config, 1);

	*copy = (struct hmc_link_config){
		.name = g_strdup(link->name),
		.partition = g_strdup(link->partition),
		.source = link->source,
		.addresses = g_strdupv(link->addresses),
		.inbox = g_strdup(link->inbox),
		.command = g_strdupv(link->command),
		.echo = link->echo,
	};
	return copy;
}

void hmc_link_config_free(struct hmc_link_config *link)
{
	g_free(link->name);
	g_free(link->partition);
	g_strfreev(link->addresses);
	g_free(link->inbox);
	g_strfreev(link->command);
	g_free(link);
}

static bool equal_lists(char *const *a, char *const *b)
{
	return a && b ? g_strv_equal((const char *const *)a, (const char *const *)b) : a == b;
}

bool hmc_link_config_equal(const struct hmc_link_config *a, const struct hmc_link_config *b)
{
	return !strcmp(a->name, b->name) && equal_lists(a->addresses, b->addresses) && !g_strcmp0(a->inbox, b->inbox) &&
	       equal_lists(a->command, b->command) && a->echo == b->echo;
}
