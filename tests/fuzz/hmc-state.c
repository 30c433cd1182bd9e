// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hvpipe-hmc's state file: any file is refused with an error or loaded, and one that was loaded and went on is loaded
 * as the same again. The input is a byte of options, the number of changes to make, and the file.
 */
#include "frames.h"

/* Nothing here must outlive the machine. */
#define fsync(fd)     0
#define fdatasync(fd) 0
#include "state.c"

#define REPAIR 1 /* put right CRCs into the file, so that what is behind them is reached */

static char *place, *path;

static void remove_place(void)
{
	unlink(path);
	rmdir(place);
}

static void set_up(void)
{
	place = make_place();
	path = g_build_filename(place, "state", NULL);
	atexit(remove_place);
}

static void repair(uint8_t *file, size_t size)
{
	size_t offset = HEADER_SIZE, len;

	if (size < HEADER_SIZE)
		return;
	hvpipe_link_put32(file + 36, crc32(0, file, 36));
	for (; size - offset >= RECORD_SIZE; offset += RECORD_SIZE + len) {
		len = hvpipe_link_get16(file + offset + 8);
		if (len > size - offset - RECORD_SIZE)
			break;
		hvpipe_link_put32(file + offset + 4, crc32(0, file + offset + 8, RECORD_SIZE - 8 + len));
	}
}

static void check_state(const struct hmc_state *state)
{
	uint64_t size = 0;

	CHECK(hmc_state_session(state));
	CHECK(hmc_state_acknowledged(state) <= hmc_state_queued(state));
	CHECK(state->pending.length == hmc_state_queued(state) - hmc_state_acknowledged(state));
	for (const GList *l = state->pending.head; l; l = l->next) {
		CHECK(g_bytes_get_size(l->data) >= 1 && g_bytes_get_size(l->data) <= HVPIPE_LINK_MAX_PAYLOAD);
		size += RECORD_SIZE + g_bytes_get_size(l->data);
	}
	CHECK(size == state->pending_size);
}

static void change_it(struct hmc_state *state, uint8_t what)
{
	GBytes *message = g_bytes_new_static("message", 1 + what % 7);
	bool ok;

	switch (what & 3) {
	case 0:
		ok = hmc_state_queue(state, message, NULL);
		break;
	case 1:
		ok = hmc_state_take(state, what & 4 ? message : NULL, NULL);
		break;
	case 2:
		ok = hmc_state_acknowledge(
			state, hmc_state_acknowledged(state) + (what >> 2) % (state->pending.length + 1), NULL);
		break;
	default:
		ok = hmc_state_source(state) || hmc_state_bind(state, what, NULL);
		if (what & 0x80)
			ok = write_anew(state, NULL);
	}
	CHECK(ok);
	g_bytes_unref(message);
	check_state(state);
}

static bool same(const GList *one, const GList *other)
{
	for (; one && other; one = one->next, other = other->next)
		if (!g_bytes_equal(one->data, other->data))
			return false;
	return !one && !other;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t options = take_byte(&in), changes = take_byte(&in) % 8, change[8] = { 0 };
	struct hmc_state *state, *again;
	GError *error = NULL;
	uint8_t *file;
	int fd;

	if (!path)
		set_up();
	for (int i = 0; i < changes; i++)
		change[i] = take_byte(&in);
	file = take_bytes(&in, in.left, &size);
	if (options & REPAIR)
		repair(file, size);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && write(fd, file, size) == (ssize_t)size);
	close(fd);
	free(file);

	state = hmc_state_open(path, &error);
	CHECK(!state == !!error);
	if (!state) {
		CHECK(*error->message);
		g_error_free(error);
		return 0;
	}
	check_state(state);
	CHECK(state->size + hmc_state_cut(state) == size);

	/* One at 2^63, where numbers end, is nothing that this HMC wrote; it may not be able to read on from there. */
	if (hmc_state_taken(state) < INT64_MAX - 8 && hmc_state_queued(state) < INT64_MAX - 8)
		for (int i = 0; i < changes; i++)
			change_it(state, change[i]);

	/* The lock is the first one's as long as it is open. */
	again = hmc_state_open(path, &error);
	CHECK(!again && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_BUSY));
	g_clear_error(&error);
	close(state->fd);
	state->fd = -1;
	again = hmc_state_open(path, &error);
	CHECK(again && !hmc_state_cut(again));
	CHECK(again->session == state->session && !memcmp(&again->progress, &state->progress, sizeof(state->progress)));
	CHECK(same(state->pending.head, again->pending.head));
	hmc_state_close(again);
	hmc_state_close(state);
	return 0;
}
