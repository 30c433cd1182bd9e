/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines and files that an HMC sends, one after the other. They become messages as fast as the partition receives them:
 * at most HMC_OUTBOX_WINDOW messages wait in the link for their acknowledgement, however big the files are.
 */
#ifndef HMC_OUTBOX_H
#define HMC_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link.h"

#define HMC_OUTBOX_WINDOW 256

enum hmc_outbox_kind {
	HMC_OUTBOX_RAW,	 /* a file's bytes; "-" is standard input */
	HMC_OUTBOX_FILE, /* file messages */
};

struct hmc_outbox;

/* What became of an item; @text below says more. */
enum hmc_outcome {
	HMC_OUTCOME_RECEIVED, /* by the partition; of what is no file message nothing more is known */
	HMC_OUTCOME_STORED,   /* the receiver said so; the text is the SHA-256 */
	HMC_OUTCOME_REFUSED,  /* the receiver said so, and the text is its reason */
	HMC_OUTCOME_UNKNOWN,  /* received by the partition, but the receiver does not answer; no text */
	HMC_OUTCOME_FAILED,   /* not all of it was sent; the text is the error */
};

/*
 * Called when an item is done. @name is the path, NULL for a line. The caller is the main loop, or hmc_outbox_settle().
 */
typedef void (*hmc_outbox_done)(void *user, const char *name, uint64_t messages, uint64_t bytes,
				enum hmc_outcome outcome, const char *text);

/*
 * @message_size: bytes of each message of a file, FILE_MESSAGE_MAX at most.
 * @answer_ms: how long to wait for the answer to a file that the partition has received.
 */
struct hmc_outbox *hmc_outbox_new(struct hmc_link *link, const struct hmc_state *state, size_t message_size,
				  unsigned int answer_ms, hmc_outbox_done done, void *user);
void hmc_outbox_free(struct hmc_outbox *outbox);

/* Find out if this path can be sent, without sending. Returns NULL, or the error's text for g_free(). */
char *hmc_outbox_check(const struct hmc_outbox *outbox, const char *path, enum hmc_outbox_kind kind);

void hmc_outbox_add_path(struct hmc_outbox *outbox, const char *path, enum hmc_outbox_kind kind);
/* One message of 1 to 4088 bytes. */
void hmc_outbox_add_line(struct hmc_outbox *outbox, const void *data, size_t len);

/* The link's state has changed: continue. */
void hmc_outbox_changed(struct hmc_outbox *outbox);

enum hmc_answer {
	HMC_ANSWER_NONE,  /* the message is no receiver's answer */
	HMC_ANSWER_TAKEN, /* it is one to an item */
	HMC_ANSWER_LATE,  /* it is one to a file that nobody waits for any more */
};

/* Take a message of the partition that may be the answer to a file. */
enum hmc_answer hmc_outbox_take_answer(struct hmc_outbox *outbox, const void *data, size_t len);

/* True if the partition has received the whole of a file, and its receiver has not answered. */
bool hmc_outbox_awaits_answer(const struct hmc_outbox *outbox);

/* Queue messages and report items that are done now, not from the main loop. Not from within hmc_outbox_done. */
void hmc_outbox_settle(struct hmc_outbox *outbox);

/* Items that are not done. */
unsigned int hmc_outbox_items(const struct hmc_outbox *outbox);

/* The path that is being read, or false when there is none. @size is 0 when it is not known. */
bool hmc_outbox_progress(const struct hmc_outbox *outbox, const char **name, uint64_t *offset, uint64_t *size);

#endif
