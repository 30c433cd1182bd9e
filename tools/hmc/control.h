/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The control socket of hvpipe-hmc serve: whoever connects gets one JSON document, the status. */
#ifndef HMC_CONTROL_H
#define HMC_CONTROL_H

#include <gio/gio.h>
#include <json-c/json.h>

#include "loop.h"

#define HMC_CONTROL_DEFAULT "/run/hvpipe-hmc/control"

struct hmc_control;

/* @status: makes the document. NULL with @error when the socket cannot be made; G_IO_ERROR_BUSY: it is in use. */
struct hmc_control *hmc_control_new(struct hmc_loop *loop, const char *path, struct json_object *(*status)(void *user),
				    void *user, GError **error);
void hmc_control_free(struct hmc_control *control);

/* What a serve that listens at @path says. NULL with @error. */
char *hmc_control_read(const char *path, GError **error);

#endif
