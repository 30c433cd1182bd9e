/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the library's files share. None of it is exported. */
#ifndef HVPIPE_INTERNAL_H
#define HVPIPE_INTERNAL_H

#include <stdbool.h>
#include <stdio.h>

#include <asm/papr-hvpipe.h>

#include "hvpipe.h"
#include "protocol.h"

/*
 * The driver that Linux ships needs header and payload in one buffer. It takes a buffer of at most 4096 bytes to read
 * into, and loses what a shorter one has no room for.
 */
struct hvpipe {
	union {
		struct {
			struct papr_hvpipe_hdr hdr;
			unsigned char payload[HVPIPE_MAX_RECEIVE];
		} in;
		struct hvpipe_packet packet; /* of a connected handle */
	};
	struct {
		struct papr_hvpipe_hdr hdr; /* zeros */
		unsigned char payload[HVPIPE_MAX_PAYLOAD];
	} out;
	size_t pending; /* bytes of the message that is kept in @in or @packet, 0 if there is none */
	int fd;
	int connected;	 /* rights at hvpiped, 0 for a handle of the device */
	int send_fd;	 /* of a connected handle: the connection that sends, or -1 */
	uint32_t number; /* of the last request on @send_fd */
};

#define HVPIPE_SOCKET_PATH "/run/hvpipe/socket"

/* The calls of a connected handle (connect.c). */
ssize_t hvpipe_connected_send(struct hvpipe *pipe, const void *data, size_t len);
int hvpipe_connected_fill(struct hvpipe *pipe, bool wait);
void hvpipe_connected_taken(struct hvpipe *pipe);
int hvpipe_connected_wait_enabled(struct hvpipe *pipe, int timeout_ms);

/* Wait for events of @fd. Returns those that came, 0 after the timeout, or -1. */
int hvpipe_wait_fd(int fd, short events, int timeout_ms);

#define HVPIPE_DEVICE "/dev/papr-hvpipe"

/* Read the fdinfo of a handle, or of the device. What it does not say is left unknown. */
void hvpipe_read_holder(FILE *fdinfo, struct hvpipe_holder *holder);
void hvpipe_read_status(FILE *fdinfo, struct hvpipe_status *status);

/* hvpipe_each_holder() for the file system at @proc. */
int hvpipe_each_holder_in(const char *proc, int (*visit)(const struct hvpipe_holder *holder, void *data), void *data);

#endif
