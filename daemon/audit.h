/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hvpiped: a line for each connection and refusal. */
#ifndef AUDIT_H
#define AUDIT_H

/*
 * At most AUDIT_MAX lines a second are written. More are counted, and the count is written with the next line: a client
 * that connects without end must not fill the journal.
 */
#define AUDIT_MAX 100

void audit(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
