/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HVPIPE link protocol: the frames between the hypervisor and an HMC
 *
 * One stream socket per source; the hypervisor listens, the HMC connects.
 * All integers are big-endian. A frame is a header of 16 bytes and a payload:
 *
 *     offset  size  field
 *          0     1  version     HVPIPE_LINK_VERSION
 *          1     1  type        HvpipeLinkType
 *          2     2  length      of the payload, bytes
 *          4     4  reserved    0
 *          8     8  sequence
 *
 *     MESSAGE  both ways, payload 1..4088 bytes, sequence 1, 2, 3, ...
 *     ACK      both ways, sequence of the last MESSAGE taken; that of the
 *              hypervisor has a payload, the credit
 *     NACK     from the HMC, no payload, sequence of the MESSAGE refused
 *     STATE    both ways, sequence 0, first frame of each side
 *     CLOSE    both ways, sequence 0, last frame of each side: reason, text
 *
 * docs/specs/ppc-spapr-hvpipe.rst has the rules of the sessions.
 *
 * This header stands alone: the device and the HMC share it, so it needs
 * nothing but the four standard headers below. All functions are pure.
 */

#ifndef HW_PPC_SPAPR_HVPIPE_LINK_H
#define HW_PPC_SPAPR_HVPIPE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The only version that is spoken. STATE and CLOSE have it in any version. */
#define HVPIPE_LINK_VERSION         2

#define HVPIPE_LINK_HEADER_SIZE     16
#define HVPIPE_LINK_MAX_PAYLOAD     4088
#define HVPIPE_LINK_MAX_FRAME  (HVPIPE_LINK_HEADER_SIZE + \
                                HVPIPE_LINK_MAX_PAYLOAD)

/* Payload of a STATE, by its sender: at least this, the rest is ignored */
#define HVPIPE_LINK_HMC_STATE_SIZE  32
#define HVPIPE_LINK_HV_STATE_SIZE   48

/* Payload of the hypervisor's ACK */
#define HVPIPE_LINK_CREDIT_SIZE     8

/* Payload of a CLOSE: the reason, and so many bytes of text at most */
#define HVPIPE_LINK_REASON_SIZE     4
#define HVPIPE_LINK_MAX_TEXT        252
#define HVPIPE_LINK_MAX_CLOSE  (HVPIPE_LINK_HEADER_SIZE + \
                                HVPIPE_LINK_REASON_SIZE + HVPIPE_LINK_MAX_TEXT)

/* Flags in the hypervisor's STATE */
#define HVPIPE_LINK_HV_ENABLED      0x00000001 /* the partition has it on */

typedef enum HvpipeLinkType {
    HVPIPE_LINK_MESSAGE = 1,
    HVPIPE_LINK_ACK     = 2,
    HVPIPE_LINK_NACK    = 3,
    HVPIPE_LINK_STATE   = 4,
    HVPIPE_LINK_CLOSE   = 5,
} HvpipeLinkType;

/* Why a link is closed. After the first three the HMC may connect again. */
typedef enum HvpipeLinkReason {
    HVPIPE_LINK_DONE      = 0,  /* the sender ends in order */
    HVPIPE_LINK_MALFORMED = 1,  /* a frame broke a rule */
    HVPIPE_LINK_REPLACED  = 2,  /* the partition has another state now */
    HVPIPE_LINK_NO_VERSION = 3, /* there is no version that both speak */
    HVPIPE_LINK_NO_SESSION = 4, /* the STATE does not fit to the session */
    HVPIPE_LINK_NO_SOURCE = 5,  /* the session is that of another source */
} HvpipeLinkReason;

typedef enum HvpipeLinkSender {
    HVPIPE_LINK_FROM_HV,
    HVPIPE_LINK_FROM_HMC,
} HvpipeLinkSender;

typedef struct HvpipeLinkHeader {
    uint8_t version;
    uint8_t type;
    uint16_t length;
    uint32_t reserved;
    uint64_t sequence;
} HvpipeLinkHeader;

/* The versions that a side speaks, and what it can do besides */
typedef struct HvpipeLinkOffer {
    uint16_t lowest;
    uint16_t highest;
    uint32_t features;  /* none is defined yet */
} HvpipeLinkOffer;

/* The HMC's STATE, its hello */
typedef struct HvpipeLinkHmcState {
    HvpipeLinkOffer offer;
    uint64_t session;   /* names the HMC's numbering, never 0 */
    uint64_t taken;     /* last sequence it took from the hypervisor, or 0 */
    uint64_t first;     /* lowest sequence that it may still send, >= 1 */
} HvpipeLinkHmcState;

/* The hypervisor's STATE: taken <= queued <= credit */
typedef struct HvpipeLinkHvState {
    HvpipeLinkOffer offer;
    uint32_t source;    /* source ID */
    uint32_t flags;     /* HVPIPE_LINK_HV_* */
    uint64_t epoch;     /* another one for each boot of the partition, not 0 */
    uint64_t taken;     /* last sequence that the partition has taken */
    uint64_t queued;    /* last sequence that the hypervisor has queued */
    uint64_t credit;    /* highest sequence that the HMC may send */
} HvpipeLinkHvState;

/* What a side of this version offers */
#define HVPIPE_LINK_OFFER { \
    .lowest = HVPIPE_LINK_VERSION, .highest = HVPIPE_LINK_VERSION }

/* What a MESSAGE is to a receiver that expects sequence @expected */
typedef enum HvpipeLinkOrder {
    HVPIPE_LINK_NEXT,       /* take it */
    HVPIPE_LINK_DUPLICATE,  /* sent again, taken before: drop it */
    HVPIPE_LINK_GAP,        /* something is missing: the link is malformed */
} HvpipeLinkOrder;

static inline void hvpipe_link_put16(uint8_t *p, uint16_t v)
{
    p[0] = v >> 8;
    p[1] = v;
}

static inline void hvpipe_link_put32(uint8_t *p, uint32_t v)
{
    hvpipe_link_put16(p, v >> 16);
    hvpipe_link_put16(p + 2, v);
}

static inline void hvpipe_link_put64(uint8_t *p, uint64_t v)
{
    hvpipe_link_put32(p, v >> 32);
    hvpipe_link_put32(p + 4, v);
}

static inline uint16_t hvpipe_link_get16(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

static inline uint32_t hvpipe_link_get32(const uint8_t *p)
{
    return (uint32_t)hvpipe_link_get16(p) << 16 | hvpipe_link_get16(p + 2);
}

static inline uint64_t hvpipe_link_get64(const uint8_t *p)
{
    return (uint64_t)hvpipe_link_get32(p) << 32 | hvpipe_link_get32(p + 4);
}

static inline const char *hvpipe_link_type_name(uint8_t type)
{
    switch (type) {
    case HVPIPE_LINK_MESSAGE:
        return "MESSAGE";
    case HVPIPE_LINK_ACK:
        return "ACK";
    case HVPIPE_LINK_NACK:
        return "NACK";
    case HVPIPE_LINK_STATE:
        return "STATE";
    case HVPIPE_LINK_CLOSE:
        return "CLOSE";
    default:
        return "unknown";
    }
}

static inline const char *hvpipe_link_reason_name(uint32_t reason)
{
    switch (reason) {
    case HVPIPE_LINK_DONE:
        return "done";
    case HVPIPE_LINK_MALFORMED:
        return "malformed";
    case HVPIPE_LINK_REPLACED:
        return "replaced";
    case HVPIPE_LINK_NO_VERSION:
        return "no version";
    case HVPIPE_LINK_NO_SESSION:
        return "no session";
    case HVPIPE_LINK_NO_SOURCE:
        return "no source";
    default:
        return "unknown";
    }
}

/* False: to connect again with the same STATE would end in the same way. */
static inline bool hvpipe_link_reason_passes(uint32_t reason)
{
    return reason != HVPIPE_LINK_NO_VERSION &&
           reason != HVPIPE_LINK_NO_SESSION && reason != HVPIPE_LINK_NO_SOURCE;
}

/*
 * Write the header of a frame to the first HVPIPE_LINK_HEADER_SIZE bytes of
 * @frame. The payload goes behind it.
 */
static inline void hvpipe_link_pack_header(uint8_t *frame, HvpipeLinkType type,
                                           uint16_t length, uint64_t sequence)
{
    frame[0] = HVPIPE_LINK_VERSION;
    frame[1] = type;
    hvpipe_link_put16(frame + 2, length);
    hvpipe_link_put32(frame + 4, 0);
    hvpipe_link_put64(frame + 8, sequence);
}

/* Read the header of a frame; believe nothing in it before it is checked. */
static inline void hvpipe_link_unpack_header(const uint8_t *frame,
                                             HvpipeLinkHeader *header)
{
    header->version = frame[0];
    header->type = frame[1];
    header->length = hvpipe_link_get16(frame + 2);
    header->reserved = hvpipe_link_get32(frame + 4);
    header->sequence = hvpipe_link_get64(frame + 8);
}

/*
 * Check a header that came from @sender. Returns NULL when it is good, else
 * what is wrong with it, for an error message.
 */
static inline const char *hvpipe_link_check_header(const HvpipeLinkHeader *h,
                                                   HvpipeLinkSender sender)
{
    bool from_hmc = sender == HVPIPE_LINK_FROM_HMC, zero = false;
    uint16_t low = 0, high = 0;

    if (h->version != HVPIPE_LINK_VERSION) {
        return "unknown version";
    }
    switch (h->type) {
    case HVPIPE_LINK_MESSAGE:
        low = 1;
        high = HVPIPE_LINK_MAX_PAYLOAD;
        break;
    case HVPIPE_LINK_ACK:
        low = high = from_hmc ? 0 : HVPIPE_LINK_CREDIT_SIZE;
        break;
    case HVPIPE_LINK_NACK:
        if (!from_hmc) {
            return "a NACK that is not from the HMC";
        }
        break;
    case HVPIPE_LINK_STATE:
        low = from_hmc ? HVPIPE_LINK_HMC_STATE_SIZE : HVPIPE_LINK_HV_STATE_SIZE;
        high = HVPIPE_LINK_MAX_PAYLOAD;
        zero = true;
        break;
    case HVPIPE_LINK_CLOSE:
        low = HVPIPE_LINK_REASON_SIZE;
        high = HVPIPE_LINK_REASON_SIZE + HVPIPE_LINK_MAX_TEXT;
        zero = true;
        break;
    default:
        return "unknown type";
    }
    if (h->length < low || h->length > high) {
        return "length out of range for the type";
    }
    if (h->reserved) {
        return "reserved field not zero";
    }
    if (zero && h->sequence) {
        return "sequence of a STATE or CLOSE not zero";
    }
    /* Before it has taken anything the hypervisor acknowledges 0. */
    if (!zero && !h->sequence && (from_hmc || h->type != HVPIPE_LINK_ACK)) {
        return "sequence zero";
    }
    return NULL;
}

/* Write a whole ACK of the hypervisor; returns its size. */
static inline size_t hvpipe_link_pack_hv_ack(uint8_t *frame, uint64_t sequence,
                                             uint64_t credit)
{
    hvpipe_link_pack_header(frame, HVPIPE_LINK_ACK, HVPIPE_LINK_CREDIT_SIZE,
                            sequence);
    hvpipe_link_put64(frame + HVPIPE_LINK_HEADER_SIZE, credit);
    return HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_CREDIT_SIZE;
}

/*
 * Write a whole CLOSE, with as much of @text as fits to the first
 * HVPIPE_LINK_MAX_CLOSE bytes of @frame; returns its size.
 */
static inline size_t hvpipe_link_pack_close(uint8_t *frame,
                                            HvpipeLinkReason reason,
                                            const char *text)
{
    size_t size = strlen(text);

    if (size > HVPIPE_LINK_MAX_TEXT) {
        size = HVPIPE_LINK_MAX_TEXT;
    }
    hvpipe_link_pack_header(frame, HVPIPE_LINK_CLOSE,
                            HVPIPE_LINK_REASON_SIZE + size, 0);
    frame += HVPIPE_LINK_HEADER_SIZE;
    hvpipe_link_put32(frame, reason);
    memcpy(frame + HVPIPE_LINK_REASON_SIZE, text, size);
    return HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_REASON_SIZE + size;
}

static inline void hvpipe_link_pack_offer(uint8_t *p, const HvpipeLinkOffer *o)
{
    hvpipe_link_put16(p, o->lowest);
    hvpipe_link_put16(p + 2, o->highest);
    hvpipe_link_put32(p + 4, o->features);
}

/* Write a whole STATE frame of the HMC; returns its size. */
static inline size_t hvpipe_link_pack_hmc_state(uint8_t *frame,
                                                const HvpipeLinkHmcState *s)
{
    hvpipe_link_pack_header(frame, HVPIPE_LINK_STATE,
                            HVPIPE_LINK_HMC_STATE_SIZE, 0);
    frame += HVPIPE_LINK_HEADER_SIZE;
    hvpipe_link_pack_offer(frame, &s->offer);
    hvpipe_link_put64(frame + 8, s->session);
    hvpipe_link_put64(frame + 16, s->taken);
    hvpipe_link_put64(frame + 24, s->first);
    return HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HMC_STATE_SIZE;
}

/* Write a whole STATE frame of the hypervisor; returns its size. */
static inline size_t hvpipe_link_pack_hv_state(uint8_t *frame,
                                               const HvpipeLinkHvState *s)
{
    hvpipe_link_pack_header(frame, HVPIPE_LINK_STATE,
                            HVPIPE_LINK_HV_STATE_SIZE, 0);
    frame += HVPIPE_LINK_HEADER_SIZE;
    hvpipe_link_pack_offer(frame, &s->offer);
    hvpipe_link_put32(frame + 8, s->source);
    hvpipe_link_put32(frame + 12, s->flags);
    hvpipe_link_put64(frame + 16, s->epoch);
    hvpipe_link_put64(frame + 24, s->taken);
    hvpipe_link_put64(frame + 32, s->queued);
    hvpipe_link_put64(frame + 40, s->credit);
    return HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HV_STATE_SIZE;
}

static inline const char *hvpipe_link_unpack_offer(const uint8_t *p,
                                                   HvpipeLinkOffer *o)
{
    o->lowest = hvpipe_link_get16(p);
    o->highest = hvpipe_link_get16(p + 2);
    o->features = hvpipe_link_get32(p + 4);
    return o->lowest > o->highest ? "lowest version above the highest" : NULL;
}

/* True if the other side, which offers this, speaks our version. */
static inline bool hvpipe_link_is_spoken(const HvpipeLinkOffer *o)
{
    return o->lowest <= HVPIPE_LINK_VERSION &&
           o->highest >= HVPIPE_LINK_VERSION;
}

/*
 * Read the payload of the HMC's STATE, whose header was checked. Returns NULL
 * when it is good, else what is wrong with it. Of an offer without a version
 * in common only the offer is good.
 */
static inline const char *
hvpipe_link_unpack_hmc_state(const uint8_t *payload, HvpipeLinkHmcState *s)
{
    const char *wrong = hvpipe_link_unpack_offer(payload, &s->offer);

    s->session = hvpipe_link_get64(payload + 8);
    s->taken = hvpipe_link_get64(payload + 16);
    s->first = hvpipe_link_get64(payload + 24);

    if (wrong || !hvpipe_link_is_spoken(&s->offer)) {
        return wrong;
    }
    if (!s->session) {
        return "session zero";
    }
    if (!s->first) {
        return "first sequence zero";
    }
    /* The numbers count up from here and must not wrap around to zero. */
    if (s->taken > INT64_MAX || s->first > INT64_MAX) {
        return "sequence beyond 2^63";
    }
    return NULL;
}

/* The same for the hypervisor's STATE. */
static inline const char *
hvpipe_link_unpack_hv_state(const uint8_t *payload, HvpipeLinkHvState *s)
{
    const char *wrong = hvpipe_link_unpack_offer(payload, &s->offer);

    s->source = hvpipe_link_get32(payload + 8);
    s->flags = hvpipe_link_get32(payload + 12);
    s->epoch = hvpipe_link_get64(payload + 16);
    s->taken = hvpipe_link_get64(payload + 24);
    s->queued = hvpipe_link_get64(payload + 32);
    s->credit = hvpipe_link_get64(payload + 40);

    if (wrong || !hvpipe_link_is_spoken(&s->offer)) {
        return wrong;
    }
    if (!s->source) {
        return "source ID zero";
    }
    if (!s->epoch) {
        return "epoch zero";
    }
    if (s->taken > s->queued || s->queued > s->credit) {
        return "not taken <= queued <= credit";
    }
    return NULL;
}

static inline HvpipeLinkOrder hvpipe_link_order(uint64_t sequence,
                                                uint64_t expected)
{
    return sequence == expected ? HVPIPE_LINK_NEXT :
           sequence < expected ? HVPIPE_LINK_DUPLICATE : HVPIPE_LINK_GAP;
}

/* Is an ACK or NACK of @sequence possible when @last was sent last? */
static inline bool hvpipe_link_ack_valid(uint64_t sequence, uint64_t last)
{
    return sequence <= last;
}

#endif /* HW_PPC_SPAPR_HVPIPE_LINK_H */
