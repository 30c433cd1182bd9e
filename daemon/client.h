/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hvpiped: the connections of its clients. A connection has one right on one source.
 *
 * Nothing that a client does makes the daemon wait: what a client does not read waits in its queue, and when that is
 * full, a receiver or sender is disconnected, and an observer misses messages.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <glib.h>
#include <stdint.h>
#include <sys/types.h>

/* Connections at a time: of all, and of one user who is not root. */
#define CLIENTS_MAX	 64
#define CLIENTS_USER_MAX 16

/* Packets in memory for a client that does not read. */
#define CLIENT_QUEUE_MAX 16

/* How long a connection may stay before it says what it is for. */
#define CLIENT_OPEN_S 10

struct client;
struct source;

/**
 * clients_listen() - Accept clients from now on.
 * @path: the socket.
 * @fd: of that socket, if it was kept for us; else -1.
 *
 * Return: the socket's descriptor, or -1 with @error.
 */
int clients_listen(const char *path, int fd, GError **error);

/* Disconnect all. */
void clients_stop(void);

pid_t client_pid(const struct client *client);

void client_give_message(struct client *client, uint32_t source, uint32_t number, const void *data, size_t len);
void client_give_lost(struct client *client, uint32_t source);
void client_give_observed(struct client *client, uint32_t source, int direction, const void *data, size_t len,
			  int error);

/* For the sender: a send is over. */
void client_sent(struct client *client, uint32_t number, struct source *source, const void *data, size_t len,
		 int error);

#endif
