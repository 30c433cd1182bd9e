/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults of an HMC on its link, on demand. The grammar is that of the hypervisor's faults, without a target:
 *
 *	FAULTS := FAULT [';' FAULT]...
 *	FAULT  := KIND [',' KEY '=' VALUE]...
 *
 * A fault takes the place of a frame to be sent. hvpipe-hmc(1) has the kinds and the keys.
 */
#ifndef HMC_FAULT_H
#define HMC_FAULT_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spapr_hvpipe_link.h"

enum hmc_fault_kind {
	HMC_FAULT_CLOSE,
	HMC_FAULT_STALL,
	HMC_FAULT_CUT,
	HMC_FAULT_RANDOM,
	HMC_FAULT_VERSION,
	HMC_FAULT_TYPE,
	HMC_FAULT_LENGTH,
	HMC_FAULT_RESERVED,
	HMC_FAULT_SEQUENCE,
	HMC_FAULT_GAP,
	HMC_FAULT_ACK,
	HMC_FAULT_SECOND_STATE,
	HMC_FAULT_NO_STATE,
	HMC_FAULT_SESSION,
	HMC_FAULT_KINDS
};

struct hmc_fault {
	enum hmc_fault_kind kind;
	unsigned int frames; /* the types that it strikes, a bit (1 << HvpipeLinkType) each */
	unsigned int ms;     /* duration of a stall, 0: without end */
	unsigned int count;  /* strikes left, 0: without end */
	unsigned int every;
	unsigned int seen;
};

/**
 * hmc_faults_parse() - Read a list of faults.
 * @text: see above; an empty one is no faults.
 *
 * Return: the faults (struct hmc_fault), for hmc_faults_free(); NULL when there are none, or with @error.
 */
GList *hmc_faults_parse(const char *text, GError **error);
void hmc_faults_free(GList *faults);

/* The faults that are left, as text for g_free(). */
char *hmc_faults_print(const GList *faults);
const char *hmc_fault_name(enum hmc_fault_kind kind);

/* True if one of them strikes a frame of this type. Its last strike removes the fault. */
bool hmc_faults_strike(GList **faults, HvpipeLinkType type, struct hmc_fault *strike);

/**
 * hmc_fault_corrupt() - Replace a good frame by the bytes of a fault.
 * @frame: room for HVPIPE_LINK_MAX_FRAME bytes, with a whole frame.
 * @size: of that frame.
 * @state: the HMC's STATE as it would be now.
 * @queued: the last sequence given to a message of the HMC's.
 *
 * Return: bytes of the result.
 */
size_t hmc_fault_corrupt(enum hmc_fault_kind kind, uint8_t *frame, size_t size, const HvpipeLinkHmcState *state,
			 uint64_t queued);

#endif
