/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `recv --json` prints: one object a line. Bytes of the other side are text if all of it can be shown as it is;
 * else they are hexadecimal, under a key that ends in "_hex". So a line is valid JSON and harmless on a terminal.
 */
#ifndef JSON_LINES_H
#define JSON_LINES_H

#include <stddef.h>
#include <stdint.h>

#include "file-message.h"

/* The lines end in a newline and are for free(); NULL when there is no memory. @sequence: 0 is none. */
char *json_message(const char *source, uint64_t sequence, const void *data, size_t len);

/* The file that @receiver has taken last. @refusal: why it was refused, NULL: it is stored. */
char *json_file(const char *source, const struct file_receiver *receiver, const char *refusal);

#endif
