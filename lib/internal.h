/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the library's files share. None of it is exported. */
#ifndef HVPIPE_INTERNAL_H
#define HVPIPE_INTERNAL_H

#include <stdio.h>

#include <asm/papr-hvpipe.h>

#include "hvpipe.h"

/*
 * The driver that Linux ships needs header and payload in one buffer. It takes a buffer of at most 4096 bytes to read
 * into, and loses what a shorter one has no room for.
 */
struct hvpipe {
	struct {
		struct papr_hvpipe_hdr hdr;
		unsigned char payload[HVPIPE_MAX_RECEIVE];
	} in;
	struct {
		struct papr_hvpipe_hdr hdr; /* zeros */
		unsigned char payload[HVPIPE_MAX_PAYLOAD];
	} out;
	size_t pending; /* bytes of the message that is kept in @in, 0 if there is none */
	int fd;
};

#define HVPIPE_DEVICE "/dev/papr-hvpipe"

/* Read the fdinfo of a handle, or of the device. What it does not say is left unknown. */
void hvpipe_read_holder(FILE *fdinfo, struct hvpipe_holder *holder);
void hvpipe_read_status(FILE *fdinfo, struct hvpipe_status *status);

/* hvpipe_each_holder() for the file system at @proc. */
int hvpipe_each_holder_in(const char *proc, int (*visit)(const struct hvpipe_holder *holder, void *data), void *data);

#endif
