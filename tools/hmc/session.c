// SPDX-License-Identifier: GPL-2.0-or-later
/* What the frames of a link mean: the rules are in ppc-spapr-hvpipe.rst, section "The link to the HMC". */
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

#include "address.h"
#include "link-private.h"

/*
 * Bytes that wait in memory for a peer who does not read: messages stop at the first, answers end the connection at the
 * second.
 */
#define OUT_MESSAGES_MAX (64 * 1024)
#define OUT_ANSWERS_MAX	 (1024 * 1024)

void hmc_session_init(struct hmc_link *link)
{
	link->session.unsent_sequence = hmc_state_acknowledged(link->state) + 1;
	/* An earlier process may have sent all that it kept. */
	link->session.ever_sent = hmc_state_queued(link->state);
}

void hmc_session_free(struct hmc_link *link)
{
	g_clear_pointer(&link->session.open_message, g_bytes_unref);
}

HvpipeLinkHmcState hmc_session_hello(const struct hmc_link *link)
{
	return (HvpipeLinkHmcState){
		.offer = HVPIPE_LINK_OFFER,
		.session = hmc_state_session(link->state),
		.taken = hmc_state_taken(link->state),
		.first = hmc_state_acknowledged(link->state) + 1,
	};
}

void hmc_session_reset(struct hmc_link *link)
{
	struct session *session = &link->session;

	session->enabled = false;
	session->credit = 0;
	session->unsent = NULL;
	/* The next hello says what was taken. */
	session->answer = 0;
}

/*
 * Sending
 */

static void put_answer(struct hmc_link *link)
{
	struct session *session = &link->session;
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];

	if (!session->answer)
		return;
	hvpipe_link_pack_header(frame, session->answer, 0, session->answer_sequence);
	session->answer = 0;
	hmc_stream_put(link, frame, HVPIPE_LINK_HEADER_SIZE);
}

/* One ACK stands for all before it, so a hypervisor that repeats messages and does not read costs no memory. */
static void answer(struct hmc_link *link, HvpipeLinkType type, uint64_t sequence)
{
	struct session *session = &link->session;

	if (session->answer != type)
		put_answer(link);
	session->answer = type;
	session->answer_sequence = sequence;
	hmc_stream_flush_soon(link);
}

static void put_message(struct hmc_link *link)
{
	struct session *session = &link->session;
	GBytes *message = session->unsent->data;
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];
	gsize len;
	const void *data = g_bytes_get_data(message, &len);

	hvpipe_link_pack_header(frame, HVPIPE_LINK_MESSAGE, len, session->unsent_sequence);
	memcpy(frame + HVPIPE_LINK_HEADER_SIZE, data, len);
	hmc_stream_put(link, frame, HVPIPE_LINK_HEADER_SIZE + len);
	session->ever_sent = MAX(session->ever_sent, session->unsent_sequence);
	session->unsent = session->unsent->next;
	session->unsent_sequence++;
}

void hmc_session_fill(struct hmc_link *link)
{
	struct session *session = &link->session;
	uint8_t frame[HVPIPE_LINK_MAX_CLOSE];

	if (link->phase != PHASE_UP && link->phase != PHASE_FINISHING)
		return;
	put_answer(link);
	while (link->phase == PHASE_UP && session->unsent && session->unsent_sequence <= session->credit &&
	       hmc_stream_waiting(link) < OUT_MESSAGES_MAX && !link->stream.corrupted && !link->stream.stalled)
		put_message(link);
	if (link->phase == PHASE_FINISHING && !link->stream.shut) {
		hmc_stream_put(link, frame, hvpipe_link_pack_close(frame, HVPIPE_LINK_DONE, ""));
		link->stream.shut = true;
	}
}

void hmc_session_queued(struct hmc_link *link)
{
	if (link->phase == PHASE_UP && !link->session.unsent)
		link->session.unsent = hmc_state_pending(link->state)->tail;
	hmc_stream_flush_soon(link);
}

/* At once, if nothing that rests on the next commit is before it; the other side may not get it in any case. */
static void send_close(struct hmc_link *link, HvpipeLinkReason reason, const char *text)
{
	uint8_t frame[HVPIPE_LINK_MAX_CLOSE];
	size_t size = hvpipe_link_pack_close(frame, reason, text);

	if (link->stream.fd >= 0 && !link->stream.out->len && !link->stream.corrupted &&
	    send(link->stream.fd, frame, size, MSG_NOSIGNAL) < 0)
		return;
}

void hmc_session_malformed(struct hmc_link *link, const char *format, ...)
{
	char *what;
	va_list args;

	va_start(args, format);
	what = g_strdup_vprintf(format, args);
	va_end(args);
	send_close(link, HVPIPE_LINK_MALFORMED, what);
	hmc_link_notice(link, HMC_NOTICE_ERROR,
			"%s: the hypervisor sent a malformed frame: %s; closed this connection, connecting again",
			hmc_link_address(link), what);
	g_free(what);
	link->dial.outage_reported = true;
	hmc_dial_again(link);
}

/* The same hello would have the same end. */
static void G_GNUC_PRINTF(3, 4) give_up(struct hmc_link *link, HvpipeLinkReason reason, const char *format, ...)
{
	char *what;
	va_list args;

	va_start(args, format);
	what = g_strdup_vprintf(format, args);
	va_end(args);
	send_close(link, reason, what);
	hmc_link_fail(link, g_error_new(G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", hmc_link_address(link), what));
	g_free(what);
}

/*
 * Receiving
 */

/* The partition has received all up to the sequence. An older one says nothing new. */
static void acknowledge(struct hmc_link *link, uint64_t sequence)
{
	struct session *session = &link->session;

	if (sequence > hmc_state_acknowledged(link->state)) {
		if (session->unsent_sequence <= sequence) {
			session->unsent = NULL;
			session->unsent_sequence = sequence + 1;
		}
		hmc_state_acknowledge(link->state, sequence);
		if (session->unsent_sequence == sequence + 1)
			session->unsent = hmc_state_pending(link->state)->head;
	}
	hmc_link_changed(link);
	hmc_stream_flush_soon(link);
}

/* Go on behind what is queued there: it comes to the partition even if this connection ends. */
static void skip_queued(struct hmc_link *link, uint64_t queued)
{
	struct session *session = &link->session;

	session->unsent = hmc_state_pending(link->state)->head;
	session->unsent_sequence = hmc_state_acknowledged(link->state) + 1;
	while (session->unsent && session->unsent_sequence <= queued) {
		session->unsent = session->unsent->next;
		session->unsent_sequence++;
	}
}

/* Whether the hypervisor's numbers and its source are those of this session. */
static bool check_state(struct hmc_link *link, const HvpipeLinkHvState *s)
{
	const char *path = hmc_state_path(link->state);
	uint32_t known = hmc_state_source(link->state);

	if (!hvpipe_link_is_spoken(&s->offer)) {
		give_up(link, HVPIPE_LINK_NO_VERSION,
			"the hypervisor speaks versions %u to %u of the link, and this hvpipe-hmc version %d only",
			s->offer.lowest, s->offer.highest, HVPIPE_LINK_VERSION);
		return false;
	}
	if (known && known != s->source) {
		give_up(link, HVPIPE_LINK_NO_SOURCE,
			"source 0x%08x is there, but %s%s is the session with source 0x%08x; %s", s->source,
			path ? "state file " : "this", path ? path : "", known,
			path ? "connect to that source, or use another state file" : "start again for the other one");
		return false;
	}
	if (s->queued > link->session.ever_sent) {
		give_up(link, HVPIPE_LINK_NO_SESSION,
			"the hypervisor has message %" PRIu64 " of session %016" PRIx64
			", but the last one sent is %" PRIu64 "%s%s",
			s->queued, hmc_state_session(link->state), link->session.ever_sent,
			path ? "; perhaps an old copy of the state file " : "", path ? path : "");
		return false;
	}
	return true;
}

/* Keep what the STATE says; whether it is the first one of this connection. */
static void tell_state(struct hmc_link *link, const HvpipeLinkHvState *s, bool first)
{
	bool enabled = s->flags & HVPIPE_LINK_HV_ENABLED;
	uint64_t epoch = hmc_state_epoch(link->state);
	char *name = hmc_source_name(s->source);

	if (first) {
		hmc_link_notice(link, link->dial.outage_reported ? HMC_NOTICE_BACK : HMC_NOTICE_DETAIL,
				"%s: connected to %s (0x%08x), the partition has its pipe %s", hmc_link_address(link),
				name, s->source, enabled ? "enabled" : "disabled");
		hmc_dial_answered(link);
	}
	if (epoch && epoch != s->epoch)
		hmc_link_notice(link, HMC_NOTICE_DETAIL, "%s: the partition has booted", name);
	if (!first && enabled != link->session.enabled)
		hmc_link_notice(link, HMC_NOTICE_DETAIL, "%s: the partition has %s its pipe", name,
				enabled ? "enabled" : "disabled");
	g_free(name);
	link->session.enabled = enabled;
	hmc_state_set_epoch(link->state, s->epoch);
}

static bool take_state(struct hmc_link *link, const uint8_t *payload)
{
	bool first = link->phase == PHASE_HELLO;
	HvpipeLinkHvState s;
	const char *wrong = hvpipe_link_unpack_hv_state(payload, &s);

	if (!wrong && !first && s.source != hmc_state_source(link->state))
		wrong = "another source than before";
	if (!wrong && !first && s.credit < link->session.credit)
		wrong = "a credit below the last one";
	if (wrong) {
		hmc_session_malformed(link,
				      "%s (STATE of source 0x%08x, flags 0x%08x, taken %" PRIu64 ", queued %" PRIu64
				      ", credit %" PRIu64 ")",
				      wrong, s.source, s.flags, s.taken, s.queued, s.credit);
		return false;
	}
	if (!check_state(link, &s))
		return false;
	hmc_state_bind(link->state, s.source);
	link->session.credit = s.credit;
	if (first)
		link->phase = PHASE_UP;
	tell_state(link, &s, first);
	acknowledge(link, s.taken);
	if (first)
		skip_queued(link, s.queued);
	return true;
}

static bool take_ack(struct hmc_link *link, uint64_t sequence, uint64_t credit)
{
	struct session *session = &link->session;

	if (!hvpipe_link_ack_valid(sequence, session->ever_sent)) {
		hmc_session_malformed(link, "ACK of message %" PRIu64 ", but the last one sent is %" PRIu64, sequence,
				      session->ever_sent);
		return false;
	}
	if (credit < session->credit) {
		hmc_session_malformed(link, "ACK with credit %" PRIu64 ", but it was %" PRIu64 " before", credit,
				      session->credit);
		return false;
	}
	session->credit = credit;
	acknowledge(link, sequence);
	return true;
}

/* The user's answer to the message that is next. */
static void answer_message(struct hmc_link *link, enum hmc_verdict verdict, GBytes *reply)
{
	uint64_t sequence = hmc_state_taken(link->state) + 1;
	struct session *session = &link->session;

	if (verdict == HMC_REFUSE) {
		/* As if it had never come: the next message has this sequence again. */
		answer(link, HVPIPE_LINK_NACK, sequence);
		return;
	}
	hmc_state_take(link->state, reply);
	answer(link, HVPIPE_LINK_ACK, sequence);
	if (reply && link->phase == PHASE_UP && !session->unsent)
		session->unsent = hmc_state_pending(link->state)->tail;
	hmc_link_changed(link);
}

void hmc_link_answer(struct hmc_link *link, enum hmc_verdict verdict, GBytes *reply)
{
	struct session *session = &link->session;
	bool connected = link->phase == PHASE_HELLO || link->phase == PHASE_UP;

	g_assert(session->open_message);
	g_clear_pointer(&session->open_message, g_bytes_unref);
	if (link->phase == PHASE_FINISHING || link->phase == PHASE_ENDED || !session->open_is_awaited)
		return;
	/* Without a connection the next hello says that it is taken. One that was refused comes again. */
	if (connected || verdict == HMC_TAKE)
		answer_message(link, verdict, reply);
	if (!connected)
		session->answer = 0;
}

/*
 * A message comes while the user still works on an earlier one. After a reconnect it may be that one again, or another
 * one under the same number: the partition does not wait for the earlier one then.
 */
static bool take_beside_open(struct hmc_link *link, uint64_t sequence, const uint8_t *data, size_t len)
{
	struct session *session = &link->session;
	uint64_t expected = hmc_state_taken(link->state) + 1;
	gsize open_len;
	const void *open_data = g_bytes_get_data(session->open_message, &open_len);

	if (sequence != expected) {
		hmc_session_malformed(link, "MESSAGE %" PRIu64 " before the answer to %" PRIu64, sequence, expected);
		return false;
	}
	if (open_len == len && !memcmp(open_data, data, len))
		session->open_is_awaited = true;
	else
		answer(link, HVPIPE_LINK_NACK, sequence);
	return true;
}

static bool take_message(struct hmc_link *link, uint64_t sequence, const uint8_t *data, size_t len)
{
	uint64_t expected = hmc_state_taken(link->state) + 1;
	struct session *session = &link->session;
	enum hmc_verdict verdict;
	GBytes *reply = NULL;

	if (hmc_stream_waiting(link) > OUT_ANSWERS_MAX) {
		hmc_dial_lost(link, "the other side sends but does not read");
		return false;
	}
	switch (hvpipe_link_order(sequence, expected)) {
	case HVPIPE_LINK_DUPLICATE:
		/* Sent again, so the ACK was lost. */
		answer(link, HVPIPE_LINK_ACK, expected - 1);
		return true;
	case HVPIPE_LINK_GAP:
		hmc_session_malformed(link, "MESSAGE %" PRIu64 " where %" PRIu64 " must come next", sequence, expected);
		return false;
	case HVPIPE_LINK_NEXT:
		break;
	}
	if (session->open_message)
		return take_beside_open(link, sequence, data, len);

	verdict = link->ops->message(link->user, sequence, data, len, &reply);
	switch (verdict) {
	case HMC_LEAVE:
		session->left_message = true;
		hmc_stream_stop_reading(link);
		return false;
	case HMC_LATER:
		session->open_message = g_bytes_new(data, len);
		session->open_is_awaited = true;
		return true;
	case HMC_TAKE:
	case HMC_REFUSE:
		answer_message(link, verdict, reply);
		break;
	}
	g_clear_pointer(&reply, g_bytes_unref);
	return true;
}

static void take_close(struct hmc_link *link, const uint8_t *payload, size_t len)
{
	uint32_t reason = hvpipe_link_get32(payload);
	size_t text_len = len - HVPIPE_LINK_REASON_SIZE;
	char *text = g_strndup((const char *)payload + HVPIPE_LINK_REASON_SIZE, text_len);
	char *why = g_strdup_printf("closed by the hypervisor: %s (reason %u)%s%s", hvpipe_link_reason_name(reason),
				    reason, text_len ? ": " : "", text);

	/* What an injected fault did is no reason to end. */
	if (!hvpipe_link_reason_passes(reason) && !link->stream.corrupted) {
		hmc_link_fail(link, g_error_new(G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s%s%s", hmc_link_address(link),
						why, hmc_state_path(link->state) ? "; the session is in " : "",
						hmc_state_path(link->state) ? hmc_state_path(link->state) : ""));
	} else if (reason == HVPIPE_LINK_MALFORMED && link->phase == PHASE_UP && !link->stream.corrupted) {
		hmc_link_notice(link, HMC_NOTICE_ERROR, "%s: %s; connecting again", hmc_link_address(link), why);
		link->dial.outage_reported = true;
		hmc_dial_again(link);
	} else {
		hmc_dial_lost(link, why);
	}
	g_free(why);
	g_free(text);
}

void hmc_session_begin(struct hmc_link *link)
{
	HvpipeLinkHmcState hello = hmc_session_hello(link);
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];

	/* The hello says that it is not taken. If the partition still waits for the answer, it comes again. */
	link->session.open_is_awaited = false;
	hmc_stream_put(link, frame, hvpipe_link_pack_hmc_state(frame, &hello));
	hmc_stream_flush_soon(link);
}

bool hmc_session_take(struct hmc_link *link, const HvpipeLinkHeader *header, const uint8_t *payload)
{
	switch (header->type) {
	case HVPIPE_LINK_STATE:
		return take_state(link, payload);
	case HVPIPE_LINK_CLOSE:
		take_close(link, payload, header->length);
		return false;
	default:
		break;
	}
	if (link->phase == PHASE_HELLO) {
		hmc_session_malformed(link, "%s before STATE", hvpipe_link_type_name(header->type));
		return false;
	}
	if (header->type == HVPIPE_LINK_MESSAGE)
		return take_message(link, header->sequence, payload, header->length);
	return take_ack(link, header->sequence, hvpipe_link_get64(payload));
}
