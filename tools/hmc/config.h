/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration of hvpipe-hmc serve, a key file:
 *
 *	[serve]
 *	state=FILE
 *	control=SOCKET
 *
 *	[PARTITION/SOURCE]
 *	connect=ADDRESS;ADDRESS...
 *	inbox=DIRECTORY
 *	command=PROGRAM ARGUMENT...
 *	echo=true
 *
 * hvpipe-hmc(1) says what the keys mean. Relative names are relative to the directory of the file.
 */
#ifndef HMC_CONFIG_H
#define HMC_CONFIG_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct hmc_link_config {
	char *name; /* PARTITION/SOURCE */
	char *partition;
	uint32_t source;
	char **addresses;
	char *inbox;	/* or NULL */
	char **command; /* or NULL */
	bool echo;
};

struct hmc_config {
	char *state;   /* or NULL */
	char *control; /* or NULL */
	GPtrArray *links;
};

/* NULL with @error, which names the file, the group, the key and the value that is wrong. */
struct hmc_config *hmc_config_load(const char *path, GError **error);
void hmc_config_free(struct hmc_config *config);

const struct hmc_link_config *hmc_config_find(const struct hmc_config *config, const char *name);
struct hmc_link_config *hmc_link_config_copy(const struct hmc_link_config *link);
void hmc_link_config_free(struct hmc_link_config *link);
bool hmc_link_config_equal(const struct hmc_link_config *a, const struct hmc_link_config *b);

#endif
