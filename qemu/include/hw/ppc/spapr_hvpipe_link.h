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
 *     ACK      both ways, no payload, sequence of the last MESSAGE taken
 *     NACK     from the HMC, no payload, sequence of the MESSAGE refused
 *     STATE    both ways, sequence 0, first frame of each side
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

#define HVPIPE_LINK_VERSION         1

#define HVPIPE_LINK_HEADER_SIZE     16
#define HVPIPE_LINK_MAX_PAYLOAD     4088
#define HVPIPE_LINK_MAX_FRAME  (HVPIPE_LINK_HEADER_SIZE + \
                                HVPIPE_LINK_MAX_PAYLOAD)

/* Payload of a STATE frame, by who sends it */
#define HVPIPE_LINK_HMC_STATE_SIZE  24
#define HVPIPE_LINK_HV_STATE_SIZE   16

/* Flags in the hypervisor's STATE */
#define HVPIPE_LINK_HV_ENABLED      0x00000001 /* the partition has it on */

typedef enum HvpipeLinkType {
    HVPIPE_LINK_MESSAGE = 1,
    HVPIPE_LINK_ACK     = 2,
    HVPIPE_LINK_NACK    = 3,
    HVPIPE_LINK_STATE   = 4,
} HvpipeLinkType;

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

/* The HMC's STATE, its hello */
typedef struct HvpipeLinkHmcState {
    uint64_t session;   /* names the HMC's numbering, never 0 */
    uint64_t taken;     /* last sequence it took from the hypervisor, or 0 */
    uint64_t first;     /* sequence of the first MESSAGE it will send, >= 1 */
} HvpipeLinkHmcState;

/* The hypervisor's STATE */
typedef struct HvpipeLinkHvState {
    uint32_t source;    /* source ID */
    uint32_t flags;     /* HVPIPE_LINK_HV_* */
    uint64_t received;  /* last sequence the partition has received, or 0 */
} HvpipeLinkHvState;

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
    default:
        return "unknown";
    }
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
        break;
    case HVPIPE_LINK_NACK:
        if (sender != HVPIPE_LINK_FROM_HMC) {
            return "a NACK that is not from the HMC";
        }
        break;
    case HVPIPE_LINK_STATE:
        low = high = sender == HVPIPE_LINK_FROM_HMC ?
            HVPIPE_LINK_HMC_STATE_SIZE : HVPIPE_LINK_HV_STATE_SIZE;
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
    if ((h->type == HVPIPE_LINK_STATE) != (h->sequence == 0)) {
        return h->sequence ? "sequence of a STATE not zero" : "sequence zero";
    }
    return NULL;
}

/* Write a whole STATE frame of the HMC; returns its size. */
static inline size_t hvpipe_link_pack_hmc_state(uint8_t *frame,
                                                const HvpipeLinkHmcState *s)
{
    hvpipe_link_pack_header(frame, HVPIPE_LINK_STATE,
                            HVPIPE_LINK_HMC_STATE_SIZE, 0);
    frame += HVPIPE_LINK_HEADER_SIZE;
    hvpipe_link_put64(frame, s->session);
    hvpipe_link_put64(frame + 8, s->taken);
    hvpipe_link_put64(frame + 16, s->first);
    return HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HMC_STATE_SIZE;
}

/* Write a whole STATE frame of the hypervisor; returns its size. */
static inline size_t hvpipe_link_pack_hv_state(uint8_t *frame,
                                               const HvpipeLinkHvState *s)
{
    hvpipe_link_pack_header(frame, HVPIPE_LINK_STATE,
                            HVPIPE_LINK_HV_STATE_SIZE, 0);
    frame += HVPIPE_LINK_HEADER_SIZE;
    hvpipe_link_put32(frame, s->source);
    hvpipe_link_put32(frame + 4, s->flags);
    hvpipe_link_put64(frame + 8, s->received);
    return HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HV_STATE_SIZE;
}

/*
 * Read the payload of the HMC's STATE, whose header was checked. Returns NULL
 * when it is good, else what is wrong with it.
 */
static inline const char *
hvpipe_link_unpack_hmc_state(const uint8_t *payload, HvpipeLinkHmcState *s)
{
    s->session = hvpipe_link_get64(payload);
    s->taken = hvpipe_link_get64(payload + 8);
    s->first = hvpipe_link_get64(payload + 16);

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
    s->source = hvpipe_link_get32(payload);
    s->flags = hvpipe_link_get32(payload + 4);
    s->received = hvpipe_link_get64(payload + 8);

    if (s->flags & ~HVPIPE_LINK_HV_ENABLED) {
        return "unknown flags";
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
