/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hvpiped: the sends of all clients.
 *
 * Firmware makes one send at a time for the whole partition, and a write() to the driver ends only with the source's
 * answer or a fatal signal. So a child process makes the sends, one after the other: while it waits, the daemon goes
 * on, and when the time is over, the daemon kills it. The driver then frees the pipe within 10 s.
 *
 * Clients take turns: each may have some messages wait, and one of each is sent before the next one of any.
 */
#ifndef SENDER_H
#define SENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many messages of one client may wait. */
#define SENDER_QUEUE_MAX 16

struct client;
struct source;

/* One send is over: @error is 0 or an errno. @client is NULL if it has left. */
typedef void (*sender_done)(struct client *client, uint32_t number, struct source *source, const void *data, size_t len,
			    int error);

void sender_init(unsigned int timeout_s, sender_done done);

/* False if the client has SENDER_QUEUE_MAX messages waiting already. */
bool sender_submit(struct client *client, uint32_t number, struct source *source, const void *data, size_t len);

/* Forget the client: its messages that were not begun are not sent. */
void sender_forget(struct client *client);

/* The handles have changed: the next send is made by a child that has the new ones. */
void sender_restart(void);

/* End the child. */
void sender_stop(void);

#endif
