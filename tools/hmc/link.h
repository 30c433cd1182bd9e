/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The link from an HMC to one source of the hypervisor: connect, reconnect, resume the session, send what is pending,
 * take what comes. The frames are in spapr_hvpipe_link.h, what outlives a connection in state.h. Any number of links
 * share one loop and one store; nothing here prints.
 *
 * Nothing goes out before what it rests on is on stable storage: a link writes to its socket in a task of the loop, and
 * the loop commits the store before its tasks.
 */
#ifndef HMC_LINK_H
#define HMC_LINK_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "loop.h"
#include "state.h"

struct hmc_link;

enum hmc_verdict {
	HMC_TAKE,   /* it is where it must go, on stable storage if the state is a file */
	HMC_REFUSE, /* nobody takes it: the partition's send fails */
	HMC_LEAVE,  /* no answer, and no more is read: the program ends, the hypervisor keeps the message */
	HMC_LATER,  /* hmc_link_answer() will answer it; the hypervisor sends no other one before */
};

enum hmc_notice {
	HMC_NOTICE_WAIT,   /* once an outage: what is waited for */
	HMC_NOTICE_BACK,   /* the end of an outage that was told of */
	HMC_NOTICE_ERROR,  /* the other side did what it must not */
	HMC_NOTICE_DETAIL, /* connected, enabled, disabled, booted */
};

struct hmc_link_ops {
	/* A message, never one seen before in this session. TAKE may come with a reply of 1 to 4088 bytes. */
	enum hmc_verdict (*message)(void *user, uint64_t sequence, const void *data, size_t len, GBytes **reply);
	/* Something that the functions below or the state tell has changed. */
	void (*changed)(void *user);
	/* One line for people, without newline. */
	void (*notice)(void *user, enum hmc_notice notice, const char *text);
	/* The link has ended for good, as another try would have the same end. */
	void (*failed)(void *user, const GError *error);
};

struct hmc_link_timing {
	unsigned int retry_min_ms; /* before the first try to connect again; it doubles ... */
	unsigned int retry_max_ms; /* ... up to this */
	unsigned int answer_ms;	   /* without an answer for so long, say so */
};

extern const struct hmc_link_timing hmc_link_default_timing;

/**
 * hmc_link_new() - Make a link; hmc_link_start() begins to connect.
 * @address: unix:PATH, tcp:HOST:PORT, HOST:PORT, or a path.
 * @state: outlives the link. Only the link changes it from now on.
 *
 * Return: the link, or NULL with @error when the address is none.
 */
struct hmc_link *hmc_link_new(struct hmc_loop *loop, const char *address, struct hmc_state *state,
			      const struct hmc_link_timing *timing, const struct hmc_link_ops *ops, void *user,
			      GError **error);

/**
 * hmc_link_add() - Tell of another place where the source may be, as that of the machine to which the partition
 * migrates.
 *
 * The link tries one after the other until one answers with its STATE, and gives each the timing's answer_ms for that.
 * When the connection is lost the next one is tried at once; there is a pause only after all of them.
 *
 * Context: before hmc_link_start().
 * Return: false with @error when the address is none.
 */
bool hmc_link_add(struct hmc_link *link, const char *address, GError **error);

void hmc_link_start(struct hmc_link *link);

/* Queue one message of 1 to 4088 bytes. It goes out when the link is up, again and again until acknowledged. */
void hmc_link_send(struct hmc_link *link, const void *data, size_t len);

/* Answer the message for which the verdict was HMC_LATER: HMC_TAKE, with a reply or NULL, or HMC_REFUSE. */
void hmc_link_answer(struct hmc_link *link, enum hmc_verdict verdict, GBytes *reply);

/* End the link for good, as its state could not be kept. Tells its user; takes the error. */
void hmc_link_fail(struct hmc_link *link, GError *error);

/**
 * hmc_link_set_faults() - Have the link do wrong from now on; what it was to do wrong before is forgotten.
 * @text: see fault.h; an empty one ends all faults, a stall too.
 *
 * A fault costs a connection, never a message: what was struck goes with the next connection.
 *
 * Return: false with @error, which names the mistake, and nothing changed.
 */
bool hmc_link_set_faults(struct hmc_link *link, const char *text, GError **error);
char *hmc_link_faults(const struct hmc_link *link); /* what is left of them, for g_free() */

bool hmc_link_is_up(const struct hmc_link *link);
const char *hmc_link_phase(const struct hmc_link *link);   /* "up", "waiting", ... */
bool hmc_link_is_enabled(const struct hmc_link *link);	   /* up, and the partition has its pipe on */
const char *hmc_link_address(const struct hmc_link *link); /* where it is, or is tried now */

/**
 * hmc_link_end() - End the connection in order: what was answered goes out with a CLOSE, and the other side reads it to
 * the end. Closing at once would not do: QEMU drops what it has not read when it finds its peer gone.
 *
 * From now on no ops are called, nothing more is taken. Returns at once; hmc_link_has_ended() tells when it is done.
 */
void hmc_link_end(struct hmc_link *link);
bool hmc_link_has_ended(const struct hmc_link *link);

/* hmc_link_end(), and run the main context until it is done, for at most @timeout_ms. Not from within the loop. */
void hmc_link_finish(struct hmc_link *link, unsigned int timeout_ms);

/* Ends the connection at once. Not from within the ops. */
void hmc_link_free(struct hmc_link *link);

#endif
