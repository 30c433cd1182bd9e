/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hvpipe doctor: what its findings and its report share. */
#ifndef DOCTOR_H
#define DOCTOR_H

#include <stdio.h>

#include "cli.h"

#define RTAS   "/proc/device-tree/rtas"
#define EVENTS "/proc/device-tree/event-sources/ibm,hvpipe-msg-events"

/* The path below --root. Good until the next call. */
const char *at(const char *format, ...) __attribute__((format(printf, 1, 2)));

void print_findings(FILE *out);

/* Write the file of --report, or exit. */
void write_report(void);

#endif
