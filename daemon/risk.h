/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hvpiped: a note of each source whose message is out of the kernel, and neither in the spool nor taken.
 *
 * The note is in a shared mapping of a file in /run, so that it outlives a kill of the daemon: the next one counts what
 * was in doubt. It costs two stores a message, which a database would not. It is no state to be kept: without the file
 * nothing is lost but this count.
 */
#ifndef RISK_H
#define RISK_H

#include <glib.h>
#include <stdint.h>

struct risk {
	uint32_t source;
	volatile uint32_t pending; /* 1 while a message is at risk */
	uint64_t nr_in_doubt;	   /* messages that were at risk when a daemon was killed */
};

/* Map the file beside @socket. A warning, and a mapping that does not outlive us, if that cannot be done. */
void risk_open(const char *socket);

/* The source's note. A pending one is counted, and cleared. NULL when there are too many sources. */
struct risk *risk_find(uint32_t source);

#endif
