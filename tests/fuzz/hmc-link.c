// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hvpipe-hmc's link, on whatever a hypervisor writes to it. The input is how many messages wait to be sent (with KNOWN
 * in the session of a known source), how many were taken before, and then the hypervisor's bytes. They mean the same in
 * one piece and in many.
 */
#include "frames.h"
#include "link.c"

#define KNOWN 0x80

struct outcome {
	struct hmc_state *state;
	GByteArray *out;
	GString *said; /* notices, and the messages as they came */
	enum phase phase;
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
	size_t len;
	uint8_t *stream = take_bytes(&in, in.left, &len), *next = stream;

	outcome->state = hmc_state_open(NULL, NULL);
	while (taken--)
		CHECK(hmc_state_take(outcome->state, NULL, NULL));
	if (queued & KNOWN)
		CHECK(hmc_state_bind(outcome->state, 0x02000001, NULL));
	for (queued %= 8; queued; queued--)
		CHECK(hmc_state_queue(outcome->state, message, NULL));
	g_bytes_unref(message);
	outcome->said = g_string_new(NULL);
	link = hmc_link_new("unix:nowhere", outcome->state, &hmc_link_default_timing, &ops, outcome, NULL);
	CHECK(link);

	/* As connected: the hello is out. What on_input() does with the socket's bytes is done here. */
	link->phase = PHASE_HELLO;
	while (len && (link->phase == PHASE_HELLO || link->phase == PHASE_UP) && !link->message_unanswered) {
		size_t room = sizeof(link->in) - link->in_len, n = whole ? len : piece(&seed, len);

		CHECK(room);
		n = MIN(n, room);
		memcpy(link->in + link->in_len, next, n);
		link->in_len += n;
		next += n;
		len -= n;
		take_frames(link);
		CHECK(link->in_len <= HVPIPE_LINK_MAX_FRAME || link->message_unanswered);
	}
	fill(link);

	CHECK(hmc_state_acknowledged(outcome->state) <= hmc_state_queued(outcome->state));
	CHECK(hmc_state_pending(outcome->state)->length ==
	      hmc_state_queued(outcome->state) - hmc_state_acknowledged(outcome->state));
	CHECK(link->ever_sent <= hmc_state_queued(outcome->state));
	outcome->phase = link->phase;
	outcome->out = g_byte_array_ref(link->out);
	link->phase = PHASE_ENDED;
	disconnect(link);
	hmc_link_free(link);
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
		hmc_state_close(one->state);
		g_byte_array_unref(one->out);
		g_string_free(one->said, TRUE);
	}
	return 0;
}
