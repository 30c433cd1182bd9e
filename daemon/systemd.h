/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hvpiped under systemd: readiness, and descriptors that it keeps while the daemon does not run.
 *
 * Without libsystemd, or without systemd, these do nothing.
 */
#ifndef SYSTEMD_H
#define SYSTEMD_H

#include <stdint.h>

/* Take over the descriptors that were kept. The first call; before any descriptor is opened. */
void systemd_begin(void);

/* The descriptor that was kept under this name, or -1. It is the caller's then. */
int systemd_take(const char *name);

/* Have a descriptor kept under this name, which has no other one any more. */
void systemd_keep(const char *name, int fd);

/* Have the descriptor of this name, if there is one, closed where it was kept. */
void systemd_drop(const char *name);

/* Close the kept descriptors that nobody took, and have systemd forget them. */
void systemd_drop_rest(void);

void systemd_ready(void);
void systemd_stopping(void);

#endif
