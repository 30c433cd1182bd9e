// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hvpipe-hmc's link, on whatever a hypervisor writes to it. The input is how many messages wait to be sent (with KNOWN
 * in the session of a known source), how many were taken before, and then the hypervisor's bytes. They mean the same in
 * one piece and in many.
 */
#include <inttypes.h>

#include "frames.h"
#include "link-private.h"
#include "store-private.h"

#define KNOWN 0x80

struct outcome {
	struct hmc_loop *loop;
	struct hmc_store *store;
	struct hmc_state *state;
	GByteArray *out;
	GString *said; /* notices, and the messages as they came */
	enum phase phase;
	uint64_t credit;
};

/* The message's first byte decides what becomes of it. */
static enum hmc_verdict on_message(void *user, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	struct outcome *outcome = user;
	uint8_t kind = *(const uint8_t *)data;

	CHECK(len >= 1 && len <= HVPIPE_LINK_MAX_PAYLOAD);
	CHECK(sequence == hmc_state_taken(outcome->state) + 1);
	g_string_append_printf(outcome->said, "message %" PRIu64 " of %zu: ", sequence, len);
	g_string_append_len(outcome->said, data, len);
	if (kind == 'L')
		return HMC_LEAVE;
	if (kind == 'R')
		return HMC_REFUSE;
	if (kind == 'W')
		return HMC_LATER;
	if (kind == 'E')
		*reply = g_bytes_new(data, len);
	return HMC_TAKE;
}

static void on_changed(void *user)
{
	(void)user;
}

static void on_notice(void *user, enum hmc_notice notice, const char *text)
{
	struct outcome *outcome = user;

	g_string_append_printf(outcome->said, "notice %d: %s\n", notice, text);
}

static void on_failed(void *user, const GError *error)
{
	struct outcome *outcome = user;

	g_string_append_printf(outcome->said, "failed: %s\n", error->message);
}

static void run(struct outcome *outcome, struct input in, bool whole)
{
	static const struct hmc_link_ops ops = { on_message, on_changed, on_notice, on_failed };
	uint8_t queued = take_byte(&in), taken = take_byte(&in) % 8;
	uint32_t seed = in.left;
	struct hmc_link *link;
	GBytes *message = g_bytes_new_static("m", 1);
	GByteArray *part = g_byte_array_new();
	size_t len;
	uint8_t *stream = take_bytes(&in, in.left, &len), *next = stream;

	outcome->loop = hmc_loop_new();
	outcome->store = hmc_store_open(NULL, NULL);
	outcome->state = hmc_state_open(outcome->store, "fuzz", NULL);
	outcome->state->session = 1; /* it is in texts */
	while (taken--)
		hmc_state_take(outcome->state, NULL);
	if (queued & KNOWN)
		hmc_state_bind(outcome->state, 0x02000001);
	for (queued %= 8; queued; queued--)
		hmc_state_queue(outcome->state, message);
	g_bytes_unref(message);
	outcome->said = g_string_new(NULL);
	link = hmc_link_new(outcome->loop, "unix:nowhere", outcome->state, &hmc_link_default_timing, &ops, outcome,
			    NULL);
	CHECK(link);

	/* As connected: the hello is out. What the stream does with the socket's bytes is done here. */
	link->phase = PHASE_HELLO;
	while (len && (link->phase == PHASE_HELLO || link->phase == PHASE_UP) && !link->session.left_message) {
		size_t n = whole ? len : piece(&seed, len);
		ssize_t used;

		g_byte_array_append(part, next, n);
		next += n;
		len -= n;
		used = hmc_stream_take(link, part->data, part->len);
		CHECK(used <= (ssize_t)part->len);
		if (used > 0)
			g_byte_array_remove_range(part, 0, used);
		CHECK(used < 0 || part->len < HVPIPE_LINK_MAX_FRAME);
	}
	hmc_session_fill(link);

	CHECK(hmc_state_acknowledged(outcome->state) <= hmc_state_queued(outcome->state));
	CHECK(hmc_state_pending(outcome->state)->length ==
	      hmc_state_queued(outcome->state) - hmc_state_acknowledged(outcome->state));
	CHECK(link->session.ever_sent <= hmc_state_queued(outcome->state));
	CHECK(link->phase != PHASE_UP || link->session.unsent_sequence <= link->session.credit + 1);
	outcome->phase = link->phase;
	outcome->credit = link->session.credit;
	outcome->out = link->stream.out;
	link->stream.out = g_byte_array_new();
	hmc_link_free(link);
	g_byte_array_unref(part);
	free(stream);
}

static void check_out(const struct outcome *outcome)
{
	const uint8_t *out = outcome->out->data;
	size_t len = outcome->out->len;
	HvpipeLinkHeader header;

	while (len) {
		CHECK(len >= HVPIPE_LINK_HEADER_SIZE && check_header(out, HVPIPE_LINK_FROM_HMC, &header));
		CHECK(header.type != HVPIPE_LINK_STATE && len >= HVPIPE_LINK_HEADER_SIZE + (size_t)header.length);
		CHECK(header.type != HVPIPE_LINK_MESSAGE || header.sequence <= outcome->credit);
		CHECK(header.type != HVPIPE_LINK_ACK || header.sequence <= hmc_state_taken(outcome->state));
		out += HVPIPE_LINK_HEADER_SIZE + header.length;
		len -= HVPIPE_LINK_HEADER_SIZE + header.length;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, pieces;
	HvpipeLinkHeader header;

	if (size >= 2 + HVPIPE_LINK_HEADER_SIZE)
		check_header(data + 2, HVPIPE_LINK_FROM_HV, &header);
	run(&whole, (struct input){ data, size }, true);
	run(&pieces, (struct input){ data, size }, false);
	check_out(&whole);

	CHECK(whole.phase == pieces.phase);
	CHECK(g_string_equal(whole.said, pieces.said));
	CHECK(hmc_state_taken(whole.state) == hmc_state_taken(pieces.state));
	CHECK(hmc_state_acknowledged(whole.state) == hmc_state_acknowledged(pieces.state));
	CHECK(hmc_state_queued(whole.state) == hmc_state_queued(pieces.state));
	CHECK(hmc_state_source(whole.state) == hmc_state_source(pieces.state));
	CHECK(whole.out->len == pieces.out->len);
	CHECK(!whole.out->len || !memcmp(whole.out->data, pieces.out->data, whole.out->len));

	for (struct outcome *one = &whole; one; one = one == &whole ? &pieces : NULL) {
		hmc_loop_free(one->loop);
		hmc_state_close(one->state);
		hmc_store_close(one->store);
		g_byte_array_unref(one->out);
		g_string_free(one->said, TRUE);
	}
	return 0;
}
