/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One link of hvpipe-hmc serve: what becomes of its messages, its counts, its lines in the log. */
#ifndef HMC_SERVICE_H
#define HMC_SERVICE_H

#include <gio/gio.h>
#include <json-c/json.h>
#include <stdbool.h>

#include "config.h"
#include "link.h"

struct hmc_service;

/* NULL with @error when its session is damaged or its inbox cannot be opened. */
struct hmc_service *hmc_service_new(const struct hmc_link_config *config, struct hmc_loop *loop,
				    struct hmc_store *store, GError **error);
void hmc_service_start(struct hmc_service *service);
const struct hmc_link_config *hmc_service_config(const struct hmc_service *service);
/* Its link has ended by itself, and for good. */
bool hmc_service_has_failed(const struct hmc_service *service);

/* See hmc_link_end(). A command under way is ended; its message stays with the hypervisor. */
void hmc_service_end(struct hmc_service *service);
bool hmc_service_has_ended(const struct hmc_service *service);
void hmc_service_free(struct hmc_service *service);

/* The state could not be kept. */
void hmc_service_fail(struct hmc_service *service, const GError *error);

struct json_object *hmc_service_status(const struct hmc_service *service);

/* A line in the log: the time, @who (PARTITION/SOURCE, or NULL), the text, escaped. Never blocks: a line may be lost.
 */
void hmc_log(const char *who, const char *format, ...) G_GNUC_PRINTF(2, 3);

#endif
