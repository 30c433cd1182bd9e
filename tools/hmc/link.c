// SPDX-License-Identifier: GPL-2.0-or-later
/* The link from an HMC to one source of the hypervisor. What it promises is in link.h. */
#include "link.h"

#include <gio/gunixsocketaddress.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "fault.h"
#include "loop.h"
#include "spapr_hvpipe_link.h"

/*
 * Bytes that wait in memory for a peer who does not read: messages stop at the first, answers end the link at the
 * second.
 */
#define OUT_MESSAGES_MAX (64 * 1024)
#define OUT_ANSWERS_MAX	 (1024 * 1024)

/* A connection that held for so long was a good one: the next retry comes soon. */
#define GOOD_MS 1000

/* So many connections in a row that the other side closes in place of an answer end the link: it will never take us. */
#define REFUSALS_MAX 20

enum phase {
	PHASE_WAITING, /* for the time of the next try */
	PHASE_CONNECTING,
	PHASE_HELLO, /* connected, our STATE is on its way, the hypervisor's has not come */
	PHASE_UP,
	PHASE_FINISHING, /* only what is in `out` still goes; input is read and dropped */
	PHASE_ENDED,
};

struct endpoint {
	char *address;
	GSocketConnectable *target;
};

struct hmc_link {
	GArray *endpoints;  /* where the source may be */
	unsigned int at;    /* the one that is tried, or where it is */
	unsigned int tries; /* endpoints that failed since the last pause */
	struct hmc_state *state;
	struct hmc_link_timing timing;
	const struct hmc_link_ops *ops;
	void *user;

	enum phase phase;
	GCancellable *cancel;	       /* of the connect under way */
	GSocketConnection *connection; /* in PHASE_HELLO, PHASE_UP and PHASE_FINISHING */
	GSource *input;
	GSource *output; /* when the socket takes no more */
	GSource *flush;	 /* when there may be something to send */
	bool reading;	 /* input is being taken; what comes of it is flushed behind it */
	bool flush_due;
	GSource *retry;
	GSource *silence;
	unsigned int retry_ms;
	gint64 up_since;
	bool enabled;
	unsigned int refusals;	 /* connections closed in place of an answer since the last good one */
	bool message_unanswered; /* the command left a message, and the program ends */
	bool outage_reported;
	bool silence_reported;

	uint8_t in[16 * HVPIPE_LINK_MAX_FRAME];
	size_t in_len;
	GByteArray *out;
	const GList *unsent;	  /* the next of the pending messages to put into `out`, NULL: none */
	uint64_t unsent_sequence; /* its sequence, or of the next message to be queued */
	uint64_t ever_sent;	  /* the highest sequence that any connection of this session may have carried */

	GList *faults;	/* injected */
	bool corrupted; /* by one of them: nothing more goes out on this connection ... */
	bool close_due; /* ... and it ends with what is in `out` */
	bool stalled;	/* nothing goes out or comes in for now */
	GSource *stall;
};

const struct hmc_link_timing hmc_link_default_timing = {
	.retry_min_ms = 250,
	.retry_max_ms = 5000,
	.answer_ms = 4000,
};

static void start_connecting(struct hmc_link *link);

static const struct endpoint *current_endpoint(const struct hmc_link *link)
{
	return &g_array_index(link->endpoints, struct endpoint, link->at);
}

const char *hmc_link_address(const struct hmc_link *link)
{
	return current_endpoint(link)->address;
}

/* "a.sock or b.sock" */
static char *all_addresses(const struct hmc_link *link)
{
	GString *all = g_string_new(NULL);

	for (unsigned int i = 0; i < link->endpoints->len; i++)
		g_string_append_printf(all, "%s%s", i ? " or " : "",
				       g_array_index(link->endpoints, struct endpoint, i).address);
	return g_string_free(all, FALSE);
}

static void changed(struct hmc_link *link)
{
	if (link->phase != PHASE_FINISHING)
		link->ops->changed(link->user);
}

static void G_GNUC_PRINTF(3, 4) notice(struct hmc_link *link, enum hmc_notice notice, const char *format, ...)
{
	char *text;
	va_list args;

	if (link->phase == PHASE_FINISHING)
		return;
	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	link->ops->notice(link->user, notice, text);
	g_free(text);
}

char *hmc_source_name(uint32_t source)
{
	return source >> 16 == 0x0200 ? g_strdup_printf("hmc%u", source & 0xffff) : g_strdup_printf("0x%08x", source);
}

static GSource *add_socket_source(struct hmc_link *link, GIOCondition condition, GSocketSourceFunc callback)
{
	GSource *source = g_socket_create_source(g_socket_connection_get_socket(link->connection), condition, NULL);

	/* No callback runs the loop. Were it to be kept from recursing, each would cost three system calls more. */
	g_source_set_can_recurse(source, TRUE);
	return hmc_add_source(source, G_SOURCE_FUNC(callback), link);
}

static void disconnect(struct hmc_link *link)
{
	hmc_stop_source(&link->input);
	hmc_stop_source(&link->output);
	hmc_stop_source(&link->flush);
	hmc_stop_source(&link->retry);
	hmc_stop_source(&link->silence);
	hmc_stop_source(&link->stall);
	link->corrupted = link->close_due = link->stalled = false;
	if (link->connection)
		g_io_stream_close(G_IO_STREAM(link->connection), NULL, NULL);
	g_clear_object(&link->connection);
	g_byte_array_set_size(link->out, 0);
	link->in_len = 0;
	link->unsent = NULL;
	link->enabled = false;
}

static gboolean on_retry(gpointer user)
{
	struct hmc_link *link = user;

	hmc_stop_source(&link->retry);
	start_connecting(link);
	return G_SOURCE_REMOVE;
}

/* The connection, or the try to get one, is over: on to the next place, with a pause after the last of them. */
static void try_again(struct hmc_link *link)
{
	bool was_up = link->phase == PHASE_UP, corrupted = link->corrupted;
	unsigned int delay_ms = 0;

	disconnect(link);
	if (link->phase == PHASE_FINISHING || link->phase == PHASE_ENDED) {
		link->phase = PHASE_ENDED;
		return;
	}
	/* The end that a fault brought about is no sign that the other side is in trouble. */
	if (corrupted || (was_up && g_get_monotonic_time() - link->up_since >= GOOD_MS * 1000))
		link->retry_ms = link->timing.retry_min_ms;
	link->tries = was_up ? 1 : link->tries + 1;
	if (link->tries >= link->endpoints->len) {
		link->tries = 0;
		delay_ms = link->retry_ms;
		link->retry_ms = MIN(2 * link->retry_ms, link->timing.retry_max_ms);
	}
	link->at = (link->at + 1) % link->endpoints->len;
	link->phase = PHASE_WAITING;
	link->retry = hmc_add_source(g_timeout_source_new(delay_ms), on_retry, link);
	changed(link);
}

static void fail(struct hmc_link *link, GError *error);

/*
 * The other side closed the connection in place of a STATE. A hypervisor does so when it refuses our STATE; one that is
 * just starting or ending may do so too.
 */
static void refused(struct hmc_link *link, const char *why)
{
	GError *error = NULL;
	char *text = g_strdup_printf("%s: the hypervisor closed the connection in place of an answer (%s): it refuses "
				     "session %016" PRIx64 " with %" PRIu64 " messages taken, or it is no source's "
				     "socket; its own log has the reason",
				     hmc_link_address(link), why, hmc_state_session(link->state),
				     hmc_state_taken(link->state));

	if (++link->refusals >= REFUSALS_MAX) {
		g_set_error(&error, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED, "%s; given up after %u times", text,
			    link->refusals);
		fail(link, error);
	} else {
		if (link->refusals == 1)
			notice(link, HMC_NOTICE_WAIT, "%s; trying again, SIGINT ends", text);
		link->outage_reported = true;
		try_again(link);
	}
	g_free(text);
}

/* The connection ended without anybody's fault that we know of. */
static void lost(struct hmc_link *link, const char *why)
{
	if (link->phase == PHASE_HELLO && !link->corrupted) {
		refused(link, why);
		return;
	}
	if (!link->outage_reported && !link->message_unanswered) {
		notice(link, HMC_NOTICE_WAIT, "%s: connection lost (%s); connecting again, SIGINT ends",
		       hmc_link_address(link), why);
		link->outage_reported = true;
	}
	try_again(link);
}

static void G_GNUC_PRINTF(2, 3) malformed(struct hmc_link *link, const char *format, ...)
{
	char *what;
	va_list args;

	va_start(args, format);
	what = g_strdup_vprintf(format, args);
	va_end(args);
	notice(link, HMC_NOTICE_ERROR,
	       "%s: the hypervisor sent a malformed frame: %s; closed this connection, connecting again",
	       hmc_link_address(link), what);
	g_free(what);
	link->outage_reported = true;
	try_again(link);
}

/* The state can no longer be trusted to be what the other side sees: end for good. Takes the error. */
static void fail(struct hmc_link *link, GError *error)
{
	bool finishing = link->phase == PHASE_FINISHING;

	disconnect(link);
	link->phase = PHASE_ENDED;
	if (!finishing)
		link->ops->failed(link->user, error);
	g_error_free(error);
}

static HvpipeLinkHmcState our_state(struct hmc_link *link)
{
	return (HvpipeLinkHmcState){
		.session = hmc_state_session(link->state),
		.taken = hmc_state_taken(link->state),
		.first = hmc_state_acknowledged(link->state) + 1,
	};
}

static gboolean on_stall_end(gpointer user);
static void flush_soon(struct hmc_link *link);

/* A fault strikes in place of the frame. What it does to the link besides is done here; returns the bytes to write. */
static size_t make_fault(struct hmc_link *link, uint8_t *frame, size_t size)
{
	struct hmc_fault fault;
	HvpipeLinkHmcState state = our_state(link);
	HvpipeLinkHeader header;

	hvpipe_link_unpack_header(frame, &header);
	if (!hmc_faults_strike(&link->faults, header.type, &fault))
		return size;
	notice(link, HMC_NOTICE_DETAIL, "%s: fault %s at %s %" PRIu64, hmc_link_address(link),
	       hmc_fault_name(fault.kind), hvpipe_link_type_name(header.type), header.sequence);
	if (fault.kind == HMC_FAULT_STALL) {
		link->stalled = true;
		hmc_stop_source(&link->input);
		if (fault.ms)
			link->stall = hmc_add_source(g_timeout_source_new(fault.ms), on_stall_end, link);
		return size;
	}
	link->corrupted = true;
	link->close_due = fault.kind == HMC_FAULT_CLOSE || fault.kind == HMC_FAULT_CUT;
	return hmc_fault_corrupt(fault.kind, frame, size, &state, hmc_state_queued(link->state));
}

static void put_bytes(struct hmc_link *link, uint8_t *frame, size_t size)
{
	if (link->corrupted)
		return;
	if (link->faults)
		size = make_fault(link, frame, size);
	g_byte_array_append(link->out, frame, size);
}

static void put_frame(struct hmc_link *link, HvpipeLinkType type, uint64_t sequence, const void *payload, size_t len)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];

	hvpipe_link_pack_header(frame, type, len, sequence);
	if (len)
		memcpy(frame + HVPIPE_LINK_HEADER_SIZE, payload, len);
	put_bytes(link, frame, HVPIPE_LINK_HEADER_SIZE + len);
}

/* Move pending messages to `out` as far as there is room. */
static void fill(struct hmc_link *link)
{
	while (link->phase == PHASE_UP && link->unsent && link->out->len < OUT_MESSAGES_MAX && !link->corrupted &&
	       !link->stalled) {
		GBytes *message = link->unsent->data;

		put_frame(link, HVPIPE_LINK_MESSAGE, link->unsent_sequence, g_bytes_get_data(message, NULL),
			  g_bytes_get_size(message));
		link->ever_sent = MAX(link->ever_sent, link->unsent_sequence);
		link->unsent = link->unsent->next;
		link->unsent_sequence++;
	}
}

static gboolean on_input(GSocket *socket, GIOCondition condition, gpointer user);
static gboolean on_output(GSocket *socket, GIOCondition condition, gpointer user);

static void flush(struct hmc_link *link)
{
	GError *error = NULL;

	hmc_stop_source(&link->flush);
	hmc_stop_source(&link->output);
	for (;;) {
		gssize n;

		fill(link);
		if (link->stalled)
			return;
		if (!link->out->len)
			break;
		if (!hmc_state_sync(link->state, &error)) {
			fail(link, error);
			return;
		}
		n = g_socket_send(g_socket_connection_get_socket(link->connection), (const char *)link->out->data,
				  link->out->len, NULL, &error);
		if (n < 0 && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) {
			g_clear_error(&error);
			link->output = add_socket_source(link, G_IO_OUT, on_output);
			return;
		}
		if (n < 0) {
			/* Whatever the other side said before it went is still to be read; the input finds the end. */
			g_clear_error(&error);
			g_byte_array_set_size(link->out, 0);
			return;
		}
		g_byte_array_remove_range(link->out, 0, n);
	}
	if (link->close_due)
		lost(link, "closed by a fault");
	else if (link->phase == PHASE_FINISHING)
		g_socket_shutdown(g_socket_connection_get_socket(link->connection), FALSE, TRUE, NULL);
}

static gboolean on_output(GSocket *socket, GIOCondition condition, gpointer user)
{
	flush(user);
	return G_SOURCE_REMOVE;
}

static gboolean on_flush(gpointer user)
{
	flush(user);
	return G_SOURCE_REMOVE;
}

static void end_stall(struct hmc_link *link)
{
	hmc_stop_source(&link->stall);
	if (!link->stalled)
		return;
	link->stalled = false;
	link->input = add_socket_source(link, G_IO_IN, on_input);
	flush_soon(link);
}

static gboolean on_stall_end(gpointer user)
{
	end_stall(user);
	return G_SOURCE_REMOVE;
}

/* Not at once: messages that are queued together share one sync and one write. */
static void flush_soon(struct hmc_link *link)
{
	if (link->flush || link->output || !link->connection)
		return;
	/* A source of its own for each answer would double the system calls for a message. */
	if (link->reading) {
		link->flush_due = true;
		return;
	}
	link->flush = g_idle_source_new();
	g_source_set_priority(link->flush, G_PRIORITY_DEFAULT);
	hmc_add_source(link->flush, on_flush, link);
}

/* The partition has received all up to the sequence. Returns false when the link has ended. */
static bool acknowledge(struct hmc_link *link, uint64_t sequence)
{
	GError *error = NULL;

	/* An older one says nothing new; a hypervisor that does not know the session says 0. */
	if (sequence <= hmc_state_acknowledged(link->state))
		return true;
	if (link->unsent_sequence <= sequence) {
		link->unsent = NULL;
		link->unsent_sequence = sequence + 1;
	}
	if (!hmc_state_acknowledge(link->state, sequence, &error)) {
		fail(link, error);
		return false;
	}
	if (link->unsent_sequence == sequence + 1)
		link->unsent = hmc_state_pending(link->state)->head;
	changed(link);
	flush_soon(link);
	return true;
}

static bool take_state(struct hmc_link *link, const uint8_t *payload)
{
	bool first = link->phase == PHASE_HELLO, enabled;
	GError *error = NULL;
	HvpipeLinkHvState s;
	const char *wrong;
	uint32_t known;
	char *name;

	wrong = hvpipe_link_unpack_hv_state(payload, &s);
	if (!wrong && !s.source)
		wrong = "source ID zero";
	if (wrong) {
		malformed(link, "%s (STATE, source 0x%08x, flags 0x%08x, received %" PRIu64 ")", wrong, s.source,
			  s.flags, s.received);
		return false;
	}
	if (!hvpipe_link_ack_valid(s.received, link->ever_sent)) {
		malformed(link,
			  "STATE says that message %" PRIu64 " was received, but the last one sent is %" PRIu64 "%s%s",
			  s.received, link->ever_sent,
			  hmc_state_path(link->state) ? "; perhaps an old copy of the state file " : "",
			  hmc_state_path(link->state) ? hmc_state_path(link->state) : "");
		return false;
	}
	known = hmc_state_source(link->state);
	if (known && known != s.source && first) {
		const char *path = hmc_state_path(link->state);

		error = g_error_new(
			G_IO_ERROR, G_IO_ERROR_FAILED,
			"%s: source 0x%08x is there, but %s%s is the session with source 0x%08x; %s",
			hmc_link_address(link), s.source, path ? "state file " : "this", path ? path : "", known,
			path ? "connect to that source, or use another state file" : "start again for the other one");
		fail(link, error);
		return false;
	}
	if (known && known != s.source) {
		malformed(link, "STATE of source 0x%08x on the link of source 0x%08x", s.source, known);
		return false;
	}
	if (!hmc_state_bind(link->state, s.source, &error)) {
		fail(link, error);
		return false;
	}

	enabled = s.flags & HVPIPE_LINK_HV_ENABLED;
	name = hmc_source_name(s.source);
	if (first) {
		link->phase = PHASE_UP;
		link->refusals = 0;
		link->up_since = g_get_monotonic_time();
		hmc_stop_source(&link->silence);
		link->unsent = hmc_state_pending(link->state)->head;
		link->unsent_sequence = hmc_state_acknowledged(link->state) + 1;
		notice(link, link->outage_reported ? HMC_NOTICE_BACK : HMC_NOTICE_DETAIL,
		       "%s: connected to %s (0x%08x), the partition has its pipe %s", hmc_link_address(link), name,
		       s.source, enabled ? "enabled" : "disabled");
		link->outage_reported = false;
		link->silence_reported = false;
	} else if (enabled != link->enabled) {
		notice(link, HMC_NOTICE_DETAIL, "%s: the partition has %s its pipe", name,
		       enabled ? "enabled" : "disabled");
	}
	g_free(name);
	link->enabled = enabled;
	changed(link);
	flush_soon(link);
	return acknowledge(link, s.received);
}

static bool take_message(struct hmc_link *link, uint64_t sequence, const uint8_t *data, size_t len)
{
	uint64_t expected = hmc_state_taken(link->state) + 1;
	GBytes *reply = NULL;
	GError *error = NULL;
	enum hmc_verdict verdict;
	bool ok;

	if (link->out->len > OUT_ANSWERS_MAX) {
		lost(link, "the other side sends but does not read");
		return false;
	}
	switch (hvpipe_link_order(sequence, expected)) {
	case HVPIPE_LINK_DUPLICATE:
		/* Sent again, so the ACK was lost. */
		put_frame(link, HVPIPE_LINK_ACK, sequence, NULL, 0);
		flush_soon(link);
		return true;
	case HVPIPE_LINK_GAP:
		malformed(link, "MESSAGE %" PRIu64 " where %" PRIu64 " must come next", sequence, expected);
		return false;
	case HVPIPE_LINK_NEXT:
		break;
	}

	verdict = link->ops->message(link->user, sequence, data, len, &reply);
	if (verdict == HMC_LEAVE) {
		link->message_unanswered = true;
		hmc_stop_source(&link->input);
		return false;
	}
	if (verdict == HMC_REFUSE) {
		/* As if it had never come: the next message has this sequence again. */
		put_frame(link, HVPIPE_LINK_NACK, sequence, NULL, 0);
		flush_soon(link);
		return true;
	}
	ok = hmc_state_take(link->state, reply, &error);
	g_clear_pointer(&reply, g_bytes_unref);
	if (!ok) {
		fail(link, error);
		return false;
	}
	put_frame(link, HVPIPE_LINK_ACK, sequence, NULL, 0);
	if (!link->unsent && link->unsent_sequence <= hmc_state_queued(link->state))
		link->unsent = hmc_state_pending(link->state)->tail;
	changed(link);
	flush_soon(link);
	return true;
}

/* Returns false when there is nothing more to be read from this connection. */
static bool take_frame(struct hmc_link *link, const HvpipeLinkHeader *header, const uint8_t *payload)
{
	if (header->type == HVPIPE_LINK_STATE)
		return take_state(link, payload);
	if (link->phase == PHASE_HELLO) {
		malformed(link, "%s before STATE", hvpipe_link_type_name(header->type));
		return false;
	}
	if (header->type == HVPIPE_LINK_MESSAGE)
		return take_message(link, header->sequence, payload, header->length);

	if (!hvpipe_link_ack_valid(header->sequence, link->ever_sent)) {
		malformed(link, "ACK of message %" PRIu64 ", but the last one sent is %" PRIu64, header->sequence,
			  link->ever_sent);
		return false;
	}
	return acknowledge(link, header->sequence);
}

static void take_frames(struct hmc_link *link)
{
	size_t used = 0;

	while (link->in_len - used >= HVPIPE_LINK_HEADER_SIZE) {
		const uint8_t *frame = link->in + used;
		HvpipeLinkHeader header;
		const char *wrong;

		hvpipe_link_unpack_header(frame, &header);
		wrong = hvpipe_link_check_header(&header, HVPIPE_LINK_FROM_HV);
		if (wrong) {
			malformed(link, "%s (version %u, type %u %s, length %u, reserved 0x%x, sequence %" PRIu64 ")",
				  wrong, header.version, header.type, hvpipe_link_type_name(header.type), header.length,
				  header.reserved, header.sequence);
			return;
		}
		if (link->in_len - used < HVPIPE_LINK_HEADER_SIZE + (size_t)header.length)
			break;
		if (!take_frame(link, &header, frame + HVPIPE_LINK_HEADER_SIZE))
			return;
		used += HVPIPE_LINK_HEADER_SIZE + header.length;
	}
	link->in_len -= used;
	memmove(link->in, link->in + used, link->in_len);
}

static gboolean on_input(GSocket *socket, GIOCondition condition, gpointer user)
{
	struct hmc_link *link = user;
	GError *error = NULL;
	char why[64];
	gssize n;

	/* take_frames() leaves less than one frame behind, so there is room. */
	n = g_socket_receive(socket, (char *)link->in + link->in_len, sizeof(link->in) - link->in_len, NULL, &error);
	if (n < 0 && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) {
		g_clear_error(&error);
		return G_SOURCE_CONTINUE;
	}
	if (n < 0) {
		lost(link, error->message);
		g_clear_error(&error);
		return G_SOURCE_REMOVE;
	}
	if (n == 0) {
		g_snprintf(why, sizeof(why),
			   link->in_len ? "closed by the other side %zu bytes into a frame" :
					  "closed by the other side",
			   link->in_len);
		lost(link, why);
		return G_SOURCE_REMOVE;
	}
	if (link->phase == PHASE_FINISHING)
		return G_SOURCE_CONTINUE;
	link->in_len += n;
	link->reading = true;
	link->flush_due = false;
	take_frames(link);
	link->reading = false;
	if (link->flush_due && link->connection)
		flush(link);
	/* When the connection ended, its sources were destroyed; the return value does not matter then. */
	return G_SOURCE_CONTINUE;
}

static gboolean on_silence(gpointer user)
{
	struct hmc_link *link = user;

	hmc_stop_source(&link->silence);
	if (link->endpoints->len > 1) {
		/* The source may be elsewhere. A connect under way ends with an error then. */
		if (link->phase == PHASE_HELLO)
			try_again(link);
		else
			g_cancellable_cancel(link->cancel);
		return G_SOURCE_REMOVE;
	}
	if (link->silence_reported)
		return G_SOURCE_REMOVE;
	if (link->phase == PHASE_HELLO)
		notice(link, HMC_NOTICE_WAIT,
		       "%s: connected, but nobody answers: another HMC may be connected there (QEMU serves one at a "
		       "time), or it is no source's socket; waiting, SIGINT ends",
		       hmc_link_address(link));
	else
		notice(link, HMC_NOTICE_WAIT, "%s: connecting takes long; waiting, SIGINT ends",
		       hmc_link_address(link));
	link->outage_reported = true;
	link->silence_reported = true;
	return G_SOURCE_REMOVE;
}

/* Why no other try can succeed until somebody mends it, or NULL. */
static const char *permanent_reason(const struct endpoint *endpoint, const GError *error)
{
	struct stat st;

	if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED))
		return error->message;
	if (G_IS_UNIX_SOCKET_ADDRESS(endpoint->target) &&
	    !stat(g_unix_socket_address_get_path(G_UNIX_SOCKET_ADDRESS(endpoint->target)), &st) &&
	    !S_ISSOCK(st.st_mode))
		return "not a socket";
	return NULL;
}

static void on_connected(GObject *client, GAsyncResult *result, gpointer user)
{
	struct hmc_link *link = user;
	GError *error = NULL;
	uint8_t hello[HVPIPE_LINK_MAX_FRAME];
	HvpipeLinkHmcState s = our_state(link);
	const char *reason;
	GSocket *socket;

	link->connection = g_socket_client_connect_finish(G_SOCKET_CLIENT(client), result, &error);
	g_clear_object(&link->cancel);
	if (link->phase != PHASE_CONNECTING) {
		/* Cancelled: the link is about to be freed. */
		g_clear_object(&link->connection);
		g_clear_error(&error);
		return;
	}
	reason = link->connection ? NULL : permanent_reason(current_endpoint(link), error);
	if (reason) {
		fail(link, g_error_new(G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", hmc_link_address(link), reason));
		g_clear_error(&error);
		return;
	}
	if (!link->connection && link->tries + 1 < link->endpoints->len) {
		/* No news yet: there is another place to try. */
		g_clear_error(&error);
		try_again(link);
		return;
	}
	if (!link->connection) {
		char *all = all_addresses(link);

		if (!link->outage_reported && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK))
			notice(link, HMC_NOTICE_WAIT,
			       "%s: others wait there already, and QEMU serves one HMC at a time; trying again, "
			       "SIGINT ends",
			       all);
		else if (!link->outage_reported)
			notice(link, HMC_NOTICE_WAIT, "waiting for %s: %s; trying again, SIGINT ends", all,
			       error->message);
		link->outage_reported = true;
		g_free(all);
		g_clear_error(&error);
		try_again(link);
		return;
	}

	socket = g_socket_connection_get_socket(link->connection);
	g_socket_set_blocking(socket, FALSE);
	g_socket_set_keepalive(socket, TRUE);
	if (g_socket_get_family(socket) != G_SOCKET_FAMILY_UNIX)
		g_socket_set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1, NULL);
	link->phase = PHASE_HELLO;
	link->message_unanswered = false;
	link->input = add_socket_source(link, G_IO_IN, on_input);
	put_bytes(link, hello, hvpipe_link_pack_hmc_state(hello, &s));
	changed(link);
	flush_soon(link);
}

static void start_connecting(struct hmc_link *link)
{
	GSocketClient *client = g_socket_client_new();

	link->phase = PHASE_CONNECTING;
	link->cancel = g_cancellable_new();
	link->silence = hmc_add_source(g_timeout_source_new(link->timing.answer_ms), on_silence, link);
	g_socket_client_set_enable_proxy(client, FALSE);
	g_socket_client_connect_async(client, current_endpoint(link)->target, link->cancel, on_connected, link);
	g_object_unref(client);
}

static GSocketConnectable *parse_unix(const char *path, GError **error)
{
	if (!*path || strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "address '%s': a path of %zu bytes; a socket's has 1 to %zu, "
			    "so a shorter one is needed (a relative one, say)",
			    path, strlen(path), sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
		return NULL;
	}
	return G_SOCKET_CONNECTABLE(g_unix_socket_address_new(path));
}

static GSocketConnectable *parse_tcp(const char *text, GError **error)
{
	const char *colon = strrchr(text, ':');
	GSocketConnectable *target;
	guint64 port;

	if (!colon || colon == text || !g_ascii_string_to_unsigned(colon + 1, 10, 1, 65535, &port, NULL)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "address '%s': HOST:PORT with a port from 1 to 65535 is needed", text);
		return NULL;
	}
	target = g_network_address_parse(text, port, NULL);
	if (!target)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "address '%s': no host name or IP address (write IPv6 as "
			    "[::1]:4321)",
			    text);
	return target;
}

static GSocketConnectable *parse_address(const char *address, GError **error)
{
	const char *colon = strrchr(address, ':');

	if (g_str_has_prefix(address, "unix:"))
		return parse_unix(address + strlen("unix:"), error);
	if (g_str_has_prefix(address, "tcp:"))
		return parse_tcp(address + strlen("tcp:"), error);
	if (colon && colon[1] && strspn(colon + 1, "0123456789") == strlen(colon + 1) && !strchr(address, '/'))
		return parse_tcp(address, error);
	return parse_unix(address, error);
}

bool hmc_link_add(struct hmc_link *link, const char *address, GError **error)
{
	struct endpoint new = { .target = parse_address(address, error) };

	if (!new.target)
		return false;
	new.address = g_strdup(address);
	g_array_append_val(link->endpoints, new);
	return true;
}

struct hmc_link *hmc_link_new(const char *address, struct hmc_state *state, const struct hmc_link_timing *timing,
			      const struct hmc_link_ops *ops, void *user, GError **error)
{
	struct hmc_link *link = g_new0(struct hmc_link, 1);

	link->endpoints = g_array_new(FALSE, FALSE, sizeof(struct endpoint));
	if (!hmc_link_add(link, address, error)) {
		g_array_unref(link->endpoints);
		g_free(link);
		return NULL;
	}
	link->state = state;
	link->timing = *timing;
	link->ops = ops;
	link->user = user;
	link->phase = PHASE_WAITING;
	link->retry_ms = timing->retry_min_ms;
	link->out = g_byte_array_new();
	link->unsent_sequence = hmc_state_acknowledged(state) + 1;
	/* An earlier process may have sent all that it kept. */
	link->ever_sent = hmc_state_queued(state);
	return link;
}

void hmc_link_start(struct hmc_link *link)
{
	g_assert(link->phase == PHASE_WAITING && !link->retry);
	start_connecting(link);
}

bool hmc_link_send(struct hmc_link *link, const void *data, size_t len, GError **error)
{
	GBytes *message = g_bytes_new(data, len);
	bool ok = hmc_state_queue(link->state, message, error);

	g_bytes_unref(message);
	if (!ok)
		return false;
	if (link->phase == PHASE_UP) {
		if (!link->unsent)
			link->unsent = hmc_state_pending(link->state)->tail;
		flush_soon(link);
	}
	return true;
}

bool hmc_link_set_faults(struct hmc_link *link, const char *text, GError **error)
{
	GError *wrong = NULL;
	GList *faults = *text ? hmc_faults_parse(text, &wrong) : NULL;

	if (wrong) {
		g_propagate_error(error, wrong);
		return false;
	}
	hmc_faults_free(link->faults);
	link->faults = faults;
	end_stall(link);
	return true;
}

char *hmc_link_faults(const struct hmc_link *link)
{
	return hmc_faults_print(link->faults);
}

bool hmc_link_is_up(const struct hmc_link *link)
{
	return link->phase == PHASE_UP;
}

bool hmc_link_is_enabled(const struct hmc_link *link)
{
	return link->enabled;
}

static gboolean on_finish_timeout(gpointer user)
{
	*(bool *)user = true;
	return G_SOURCE_REMOVE;
}

void hmc_link_finish(struct hmc_link *link, unsigned int timeout_ms)
{
	bool timed_out = false;
	GSource *timeout;

	if (link->phase == PHASE_UP && !link->stalled) {
		timeout = g_timeout_source_new(timeout_ms);
		g_source_set_callback(timeout, on_finish_timeout, &timed_out, NULL);
		g_source_attach(timeout, NULL);
		link->phase = PHASE_FINISHING;
		if (!link->input)
			link->input = add_socket_source(link, G_IO_IN, on_input);
		link->in_len = 0;
		flush(link);
		while (link->phase == PHASE_FINISHING && !timed_out)
			g_main_context_iteration(NULL, TRUE);
		g_source_destroy(timeout);
		g_source_unref(timeout);
	}
	disconnect(link);
	link->phase = PHASE_ENDED;
	if (link->cancel) {
		g_cancellable_cancel(link->cancel);
		while (link->cancel)
			g_main_context_iteration(NULL, TRUE);
	}
}

void hmc_link_free(struct hmc_link *link)
{
	hmc_link_finish(link, 0);
	for (unsigned int i = 0; i < link->endpoints->len; i++) {
		g_object_unref(g_array_index(link->endpoints, struct endpoint, i).target);
		g_free(g_array_index(link->endpoints, struct endpoint, i).address);
	}
	g_array_unref(link->endpoints);
	hmc_faults_free(link->faults);
	g_byte_array_unref(link->out);
	g_free(link);
}
