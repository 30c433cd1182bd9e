/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an HMC is to send: lines and files, one after the other, made into messages as fast as the partition receives them.
 * At most HMC_OUTBOX_WINDOW messages are queued in the link and not acknowledged, however big the files are.
 */
#ifndef HMC_OUTBOX_H
#define HMC_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link.h"

#define HMC_OUTBOX_WINDOW 256

enum hmc_outbox_kind {
	HMC_OUTBOX_RAW,		/* a file's bytes, 4088 a message; "-" is standard input */
	HMC_OUTBOX_FILE,	/* file messages */
};

struct hmc_outbox;

/*
 * An item is done: the partition has received all its messages, or @error (NULL: none) tells why it was not sent to its
 * end. @name is the path, NULL for a line. Called from the main loop, or by hmc_outbox_settle().
 */
typedef void (*hmc_outbox_done)(void *user, const char *name, uint64_t messages, uint64_t bytes, const char *error);

struct hmc_outbox *hmc_outbox_new(struct hmc_link *link, const struct hmc_state *state, hmc_outbox_done done, void *user);
void hmc_outbox_free(struct hmc_outbox *outbox);

/* Can this path be sent? Found out before anything is sent; NULL, or an error text to be freed with g_free(). */
char *hmc_outbox_check(const char *path, enum hmc_outbox_kind kind);

void hmc_outbox_add_path(struct hmc_outbox *outbox, const char *path, enum hmc_outbox_kind kind);
/* A message of its own, of 1 to 4088 bytes. */
void hmc_outbox_add_line(struct hmc_outbox *outbox, const void *data, size_t len);

/* The link's state has changed: go on. */
void hmc_outbox_changed(struct hmc_outbox *outbox);

/* Do now what the main loop would do next: queue what can be queued, call for what is done. Not from within the call. */
void hmc_outbox_settle(struct hmc_outbox *outbox);

/* Items that are not done. */
unsigned int hmc_outbox_items(const struct hmc_outbox *outbox);

/* The path that is being read; @size is 0 when nobody knows it. Returns false when there is none. */
bool hmc_outbox_progress(const struct hmc_outbox *outbox, const char **name, uint64_t *offset, uint64_t *size);

#endif
