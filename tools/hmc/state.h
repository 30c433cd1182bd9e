/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an HMC must not forget about its session with one source: the session's ID, how far the messages went each way,
 * its own messages that the partition has not acknowledged, and the files that it has stored last. The changes here are
 * in memory; hmc_store_commit() of store.h makes those of all sessions permanent.
 */
#ifndef HMC_STATE_H
#define HMC_STATE_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

#include "store.h"

struct hmc_state;

/**
 * hmc_state_open() - Load a session, or begin a new one with a random ID.
 * @store: where it is kept. It outlives the state.
 * @name: of the session in the store. It is open once at a time.
 *
 * Return: the state, or NULL with @error: G_IO_ERROR_INVALID_DATA when it is damaged.
 */
struct hmc_state *hmc_state_open(struct hmc_store *store, const char *name, GError **error);
/* Changes since the last commit are lost. */
void hmc_state_close(struct hmc_state *state);

const char *hmc_state_path(const struct hmc_state *state); /* NULL: memory only */
uint64_t hmc_state_session(const struct hmc_state *state);
uint32_t hmc_state_source(const struct hmc_state *state); /* 0: not known yet */
uint64_t hmc_state_epoch(const struct hmc_state *state);  /* of the partition's boot; 0: not known yet */
/* Sequences. Taken: from the hypervisor. Queued: given to a message of ours. Acknowledged: the partition has it. */
uint64_t hmc_state_taken(const struct hmc_state *state);
uint64_t hmc_state_acknowledged(const struct hmc_state *state);
uint64_t hmc_state_queued(const struct hmc_state *state);

/* The pending messages (GBytes), the oldest, of sequence acknowledged + 1, at the head. */
const GQueue *hmc_state_pending(const struct hmc_state *state);

/* A file of the partition that was stored. */
struct hmc_stored_file {
	uint64_t id;
	char sha256[65]; /* hexadecimal */
};

/* Those stored last (struct hmc_stored_file), at most HMC_STATE_FILES, the oldest at the head. */
#define HMC_STATE_FILES 64
const GQueue *hmc_state_files(const struct hmc_state *state);

/* The session is with this source. */
void hmc_state_bind(struct hmc_state *state, uint32_t source);
void hmc_state_set_epoch(struct hmc_state *state, uint64_t epoch);
/* Give the next sequence to a message of 1 to 4088 bytes. */
void hmc_state_queue(struct hmc_state *state, GBytes *message);
/* The next message from the hypervisor is taken, and answered with @reply (NULL: not at all). */
void hmc_state_take(struct hmc_state *state, GBytes *reply);
/* The message that is taken next completes a file. */
void hmc_state_add_file(struct hmc_state *state, uint64_t id, const char *sha256);
/* The partition has received all up to @sequence, which is between acknowledged and queued. */
void hmc_state_acknowledge(struct hmc_state *state, uint64_t sequence);

#endif
