/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hvpiped: its configuration file, hvpiped.conf(5). */
#ifndef CONFIG_H
#define CONFIG_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CONFIG_PATH "/etc/hvpipe/hvpiped.conf"

/* The most sources that a daemon serves. */
#define CONFIG_SOURCES_MAX 64

/* Root and the members of these groups have a right. */
struct group_rule {
	gid_t *gids;
	size_t nr_gids;
};

struct source_config {
	uint32_t id;
	char *name; /* as in the file */
	bool drop_oldest;
	uint64_t spool_bytes; /* the most that the spool holds */
	struct group_rule receive, send, observe;
};

struct config {
	char *socket;
	char *spool; /* the directory */
	unsigned int send_timeout_s;
	GPtrArray *sources; /* of struct source_config */
};

/**
 * config_load() - Read the configuration.
 * @path: the file. One that does not exist is as an empty one.
 *
 * Return: the configuration, or NULL with @error, which names file, key and value.
 */
struct config *config_load(const char *path, GError **error);
void config_free(struct config *config);

/* The rule of one right (HVPIPE_RECEIVE and so on). */
const struct group_rule *config_rule(const struct source_config *source, int right);

#endif
