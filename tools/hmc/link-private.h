/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parts of a link, each with a file of its own:
 *
 *	link.c		its life: start, end, what it tells its user
 *	dial.c		connect to one address after the other, again and again
 *	stream.c	the connection: bytes to frames and back
 *	session.c	what the frames mean
 */
#ifndef HMC_LINK_PRIVATE_H
#define HMC_LINK_PRIVATE_H

#include "fault.h"
#include "link.h"
#include "loop.h"
#include "spapr_hvpipe_link.h"

enum phase {
	PHASE_WAITING, /* for the time of the next try */
	PHASE_CONNECTING,
	PHASE_HELLO, /* connected, our STATE is on its way, the hypervisor's has not come */
	PHASE_UP,
	PHASE_FINISHING, /* only what is to be sent still goes; input is read and dropped */
	PHASE_ENDED,
};

struct endpoint {
	char *address;
	GSocketConnectable *target;
};

struct dial {
	GArray *endpoints;    /* where the source may be */
	unsigned int at;      /* the one that is tried, or where it is */
	unsigned int tries;   /* endpoints that failed since the last pause */
	GCancellable *cancel; /* of the connect under way */
	struct hmc_timer retry;
	struct hmc_timer silence;
	unsigned int retry_ms;
	gint64 up_since;
	unsigned int refusals; /* connections closed in place of an answer since the last good one */
	bool outage_reported;
	bool silence_reported;
};

struct stream {
	int fd; /* -1: no connection */
	struct hmc_watch watch;
	struct hmc_task flush;
	uint8_t *part; /* the begin of a frame whose rest has not come, or NULL */
	size_t part_len;
	GByteArray *out;
	size_t out_done; /* bytes of it that were written */
	bool shut;	 /* the CLOSE was written */

	/* By injected faults: */
	bool corrupted; /* nothing more goes out on this connection ... */
	bool close_due; /* ... and it ends with what is in `out` */
	bool stalled;	/* nothing goes out or comes in for now */
	struct hmc_timer stall;
};

struct session {
	bool enabled; /* the partition has its pipe on */
	uint64_t credit;
	const GList *unsent;	  /* the next of the pending messages to send, NULL: none */
	uint64_t unsent_sequence; /* its sequence, or of the next message to be queued */
	uint64_t ever_sent;	  /* the highest sequence that any connection of this session may have carried */

	HvpipeLinkType answer; /* ACK or NACK to be sent, 0: none */
	uint64_t answer_sequence;
	GBytes *open_message; /* the one that the user answers later, or NULL */
	bool open_is_awaited; /* the hypervisor waits for that answer, as far as we know */
	bool left_message;    /* the user left a message, and the program ends */
};

struct hmc_link {
	struct hmc_loop *loop;
	struct hmc_state *state;
	struct hmc_link_timing timing;
	const struct hmc_link_ops *ops;
	void *user;
	enum phase phase;
	GList *faults; /* injected */

	struct dial dial;
	struct stream stream;
	struct session session;
};

/* link.c */
void hmc_link_changed(struct hmc_link *link);
void hmc_link_notice(struct hmc_link *link, enum hmc_notice notice, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* End the connection; what was to be sent on it is forgotten. */
void hmc_link_disconnect(struct hmc_link *link);

/* dial.c */
void hmc_dial_init(struct hmc_link *link);
void hmc_dial_free(struct hmc_link *link);
bool hmc_dial_add(struct hmc_link *link, const char *address, GError **error);
const char *hmc_dial_address(const struct hmc_link *link);
void hmc_dial_start(struct hmc_link *link);
/* Stop all timers; a connect under way ends with a callback that does nothing. */
void hmc_dial_stop(struct hmc_link *link);
/* The hypervisor has answered with its STATE. */
void hmc_dial_answered(struct hmc_link *link);
/* The connection, or the try to get one, is over: on to the next address, with a pause after the last of them. */
void hmc_dial_again(struct hmc_link *link);
/* The connection ended without anybody's fault that we know of. */
void hmc_dial_lost(struct hmc_link *link, const char *why);
/* The hypervisor ended it in place of an answer. Too often in a row ends the link. */
void hmc_dial_refused(struct hmc_link *link, const char *why);

/* stream.c */
void hmc_stream_init(struct hmc_link *link);
void hmc_stream_free(struct hmc_link *link);
/* Takes the descriptor. */
void hmc_stream_open(struct hmc_link *link, int fd);
void hmc_stream_close(struct hmc_link *link);
/* Write at the end of this turn, when the state is committed. */
void hmc_stream_flush_soon(struct hmc_link *link);
/* Read no more. */
void hmc_stream_stop_reading(struct hmc_link *link);
/* Read on, also after a stall. */
void hmc_stream_read_on(struct hmc_link *link);
/* Bytes that wait for the peer to read. */
size_t hmc_stream_waiting(const struct hmc_link *link);
/* Append a frame, or what a fault makes of it. */
void hmc_stream_put(struct hmc_link *link, uint8_t *frame, size_t size);
/* Take the whole frames at @data; returns their bytes, or -1 when the connection takes no more. */
ssize_t hmc_stream_take(struct hmc_link *link, const uint8_t *data, size_t len);
void hmc_stream_end_stall(struct hmc_link *link);

/* session.c */
void hmc_session_init(struct hmc_link *link);
void hmc_session_free(struct hmc_link *link);
/* There is a connection: say hello. */
void hmc_session_begin(struct hmc_link *link);
HvpipeLinkHmcState hmc_session_hello(const struct hmc_link *link);
/* The connection is gone. */
void hmc_session_reset(struct hmc_link *link);
/* A frame with a good header. Returns false when there is nothing more to be read from this connection. */
bool hmc_session_take(struct hmc_link *link, const HvpipeLinkHeader *header, const uint8_t *payload);
/* Append frames that may go out now, as far as there is room. */
void hmc_session_fill(struct hmc_link *link);
/* A message was queued. */
void hmc_session_queued(struct hmc_link *link);
/* Tell the hypervisor, as far as it reads, why its frame ends the connection, and connect again. */
void hmc_session_malformed(struct hmc_link *link, const char *format, ...) G_GNUC_PRINTF(2, 3);

#endif
