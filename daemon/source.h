/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hvpiped: a source, whose handle the daemon holds.
 *
 * A message is in the spool, or taken by the receiver, before the next one of its source is received. The receiver has
 * one message at a time; the oldest, whether that is in the spool or came just now.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"

struct client;
struct hvpipe;
struct source;

struct source *source_new(const struct source_config *config, const char *spool_directory);
void source_free(struct source *source);

/**
 * source_start() - Get the handle, and receive from now on.
 * @fd: of the handle, if it was kept for us; else -1. It is opened then, now or as soon as that is possible.
 *
 * Return: 0, or the errno of a try to open that failed.
 */
int source_start(struct source *source, int fd);

/* All sources; NULL at the end. */
struct source *source_each(guint i);
struct source *source_find(uint32_t id);
const struct source_config *source_config(const struct source *source);
const char *source_name(const struct source *source);

/* NULL while there is no handle. */
struct hvpipe *source_pipe(const struct source *source);
bool source_is_enabled(const struct source *source);

/* The descriptors of all handles. For g_array_unref(). */
GArray *source_fds(void);

/* The caller asked before: there is none. */
bool source_has_receiver(const struct source *source);
void source_set_receiver(struct source *source, struct client *client);
void source_add_observer(struct source *source, struct client *client);
void source_forget_client(struct source *source, struct client *client);

/* The receiver says that it has the message @number. False if it was not given that one. */
bool source_taken(struct source *source, uint32_t number);

/* A send is over. */
void source_count_send(struct source *source, size_t len, int error);
void source_show_send(struct source *source, const void *data, size_t len, int error);

/* The line of the status. For g_free(). */
char *source_status(const struct source *source);

/* Called for each handle that was opened, to have it kept by others, and before one is closed that may be kept. */
extern void (*source_opened)(const struct source *source, int fd);
extern void (*source_closing)(const struct source *source);

#endif
