/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the library's files share; nothing of this is exported. */
#ifndef HVPIPE_INTERNAL_H
#define HVPIPE_INTERNAL_H

#include <stdbool.h>
#include <stdio.h>

#include <asm/papr-hvpipe.h>

#include "hvpipe.h"

struct hvpipe {
	int fd;
};

#define HVPIPE_DEVICE "/dev/papr-hvpipe"

/* What a handle's file in /proc/PID/fdinfo says. False when it is not the file of a handle. Fills in source and below. */
bool hvpipe_parse_holder(FILE *fdinfo, struct hvpipe_holder *holder);

/* The same for the device. */
bool hvpipe_parse_status(FILE *fdinfo, struct hvpipe_status *status);

#endif
