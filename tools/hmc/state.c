// SPDX-License-Identifier: GPL-2.0-or-later
/* The state of an HMC's session with one source, see state.h. */
#include "state.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "spapr_hvpipe_link.h"
#include "store-private.h"

static uint64_t random_session(void)
{
	uint64_t session = 0;

	while (!session)
		if (getrandom(&session, sizeof(session), 0) != sizeof(session) && errno != EINTR)
			g_error("getrandom: %s", g_strerror(errno));
	return session;
}

struct hmc_state *hmc_state_open(struct hmc_store *store, const char *name, GError **error)
{
	struct hmc_state *state = g_new0(struct hmc_state, 1);

	state->store = store;
	state->session = random_session();
	g_queue_init(&state->pending);
	g_queue_init(&state->files);
	if (store->path && !hmc_store_load(state, name, error)) {
		hmc_state_close(state);
		return NULL;
	}
	return state;
}

void hmc_state_close(struct hmc_state *state)
{
	if (state->changed)
		g_ptr_array_remove_fast(state->store->changed, state);
	g_queue_clear_full(&state->pending, (GDestroyNotify)g_bytes_unref);
	g_queue_clear_full(&state->files, g_free);
	g_free(state);
}

const char *hmc_state_path(const struct hmc_state *state)
{
	return state->store->path;
}

uint64_t hmc_state_session(const struct hmc_state *state)
{
	return state->session;
}

uint32_t hmc_state_source(const struct hmc_state *state)
{
	return state->progress.source;
}

uint64_t hmc_state_epoch(const struct hmc_state *state)
{
	return state->progress.epoch;
}

uint64_t hmc_state_taken(const struct hmc_state *state)
{
	return state->progress.taken;
}

uint64_t hmc_state_acknowledged(const struct hmc_state *state)
{
	return state->progress.acknowledged;
}

uint64_t hmc_state_queued(const struct hmc_state *state)
{
	return state->progress.queued;
}

const GQueue *hmc_state_pending(const struct hmc_state *state)
{
	return &state->pending;
}

const GQueue *hmc_state_files(const struct hmc_state *state)
{
	return &state->files;
}

static void note_change(struct hmc_state *state)
{
	if (state->changed || !state->store->path)
		return;
	state->changed = true;
	g_ptr_array_add(state->store->changed, state);
}

static void push_message(struct hmc_state *state, GBytes *message)
{
	g_assert(g_bytes_get_size(message) >= 1 && g_bytes_get_size(message) <= HVPIPE_LINK_MAX_PAYLOAD);
	g_queue_push_tail(&state->pending, g_bytes_ref(message));
	state->progress.queued++;
}

void hmc_state_bind(struct hmc_state *state, uint32_t source)
{
	if (state->progress.source == source)
		return;
	g_assert(!state->progress.source);
	state->progress.source = source;
	note_change(state);
}

void hmc_state_set_epoch(struct hmc_state *state, uint64_t epoch)
{
	if (state->progress.epoch == epoch)
		return;
	state->progress.epoch = epoch;
	note_change(state);
}

void hmc_state_queue(struct hmc_state *state, GBytes *message)
{
	push_message(state, message);
	note_change(state);
}

void hmc_state_take(struct hmc_state *state, GBytes *reply)
{
	state->progress.taken++;
	if (reply)
		push_message(state, reply);
	note_change(state);
}

void hmc_state_add_file(struct hmc_state *state, uint64_t id, const char *sha256)
{
	struct hmc_stored_file *file = g_new(struct hmc_stored_file, 1);

	file->id = id;
	g_strlcpy(file->sha256, sha256, sizeof(file->sha256));
	g_queue_push_tail(&state->files, file);
	if (state->files.length > HMC_STATE_FILES)
		g_free(g_queue_pop_head(&state->files));
	state->progress.files++;
	note_change(state);
}

void hmc_state_acknowledge(struct hmc_state *state, uint64_t sequence)
{
	g_assert(sequence >= state->progress.acknowledged && sequence <= state->progress.queued);
	if (sequence == state->progress.acknowledged)
		return;
	while (state->progress.acknowledged < sequence) {
		g_bytes_unref(g_queue_pop_head(&state->pending));
		state->progress.acknowledged++;
	}
	note_change(state);
}
