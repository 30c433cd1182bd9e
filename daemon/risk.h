/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hvpiped: the message of each source that is out of the kernel, and neither in the spool nor taken.
 *
 * It is received into a shared mapping of a file in /run, so that it outlives a kill of the daemon: the next one puts
 * it into the spool. That costs a few stores a message, where a database would cost a transaction. What a daemon that
 * was killed may have lost, or given to a receiver, is counted as in doubt.
 */
#ifndef RISK_H
#define RISK_H

#include <glib.h>
#include <stdint.h>

#include "hvpipe.h"

enum risk_state {
	RISK_NONE,  /* there is no message, or it is in the spool */
	RISK_DOUBT, /* one is being received, or a receiver has it and did not say that it took it */
	RISK_HELD,  /* one was received: it is here alone, or in the spool as @id */
};

struct risk {
	uint32_t source;
	uint32_t state;	      /* enum risk_state */
	uint64_t nr_in_doubt; /* messages that were in doubt when a daemon was killed */
	int64_t id;	      /* what the spool calls it, once it is put there; -1 before that */
	uint32_t len;
	unsigned char data[HVPIPE_MAX_RECEIVE];
};

/* Map the file beside @socket. A warning, and a mapping that does not outlive us, if that cannot be done. */
void risk_open(const char *socket);

/* The source's message. One in doubt is counted, and forgotten. It lives as long as the daemon. */
struct risk *risk_find(uint32_t source);

/* Go on to @state. All that was stored before is there for the next daemon that reads it. */
void risk_set(struct risk *risk, enum risk_state state);

#endif
