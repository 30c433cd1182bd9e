/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A command that handles one message: it reads the message from standard input, and writes a reply, if any. */
#ifndef HMC_HANDLER_H
#define HMC_HANDLER_H

#include <gio/gio.h>
#include <stddef.h>

#include "loop.h"

struct hmc_handler;

/*
 * Called once when the command has ended, from the main loop; the handler is gone then. @error: why the message is not
 * handled (NULL: it is), such as "exit status 1". @reply: what it wrote, NULL if nothing.
 */
typedef void (*hmc_handler_done)(void *user, GBytes *reply, const char *error);

/* @data: 1 to 4088 bytes, which a pipe takes at once. @environment: of the command. */
struct hmc_handler *hmc_handler_start(struct hmc_loop *loop, char **command, char **environment, const void *data,
				      size_t len, hmc_handler_done done, void *user, GError **error);

/* Send SIGTERM and forget it: `done` is not called any more. */
void hmc_handler_cancel(struct hmc_handler *handler);

#endif
