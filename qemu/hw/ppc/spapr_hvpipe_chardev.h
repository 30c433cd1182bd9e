/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): the state of an HMC behind a chardev
 *
 *     spapr_hvpipe_chardev.c    what the pipe asks of it, the device
 *     spapr_hvpipe_protocol.c   what goes over its link
 *
 * Invariants:
 *
 *   - The link is up: both sides have sent their STATE. Nothing is due or
 *     being written on another one.
 *   - A message whose fate is open was written on this link, or is due. The
 *     first frame of an HMC settles the fate of one from an earlier link.
 *   - @credit, once told, is at most what the queue has places for.
 *   - HvpipeSession has those of the numbers.
 */

#ifndef HW_PPC_SPAPR_HVPIPE_CHARDEV_H
#define HW_PPC_SPAPR_HVPIPE_CHARDEV_H

#include "chardev/char.h"
#include "chardev/char-fe.h"
#include "spapr_hvpipe_internal.h"

OBJECT_DECLARE_SIMPLE_TYPE(SpaprHvpipeChardev, SPAPR_HVPIPE_CHARDEV)

typedef enum HvpipeLink {
    HVPIPE_LINK_CLOSED,
    HVPIPE_LINK_OPENED,         /* the HMC has not said who it is yet */
    HVPIPE_LINK_UP,
    HVPIPE_LINK_BROKEN,         /* ended by a CLOSE; the chardev stays open */
} HvpipeLink;

struct SpaprHvpipeChardev {
    SpaprHvpipeSource parent_obj;

    CharFrontend chr;           /* a property */
    HvpipeSession session;

    HvpipeLink link;
    bool report_loss;           /* of a link that did not migrate */
    HvpipeLinkHeader in_header;
    uint32_t in_size;
    uint32_t out_size;          /* of the frame being written, 0: none */
    uint32_t out_done;
    uint64_t last_written;      /* last sequence that went out as a whole */
    uint64_t credit;            /* highest sequence that the HMC may send */
    bool state_due;
    bool message_due;
    bool ack_due;
    guint watch;
    uint8_t in[HVPIPE_LINK_MAX_FRAME];
    uint8_t out[HVPIPE_LINK_MAX_FRAME];

    char *error;                /* why a link was closed last */
    uint64_t nr_malformed;
    uint32_t nr_complaints;
    int64_t first_complaint;
};

/* Is the fate of the message on its way open? */
static inline bool hvpipe_fate_is_open(SpaprHvpipeChardev *c)
{
    return c->session.state == HVPIPE_MESSAGE_IN_FLIGHT ||
           c->session.state == HVPIPE_MESSAGE_ORPHAN;
}

/* spapr_hvpipe_protocol.c */
const char *hvpipe_link_name(HvpipeLink link);
/* Write what is due and what the HMC takes now; the rest when it takes it. */
void hvpipe_link_flush(SpaprHvpipeChardev *c);
/* Say why and drop the link. An HMC that does not read may miss the reason. */
void hvpipe_link_close(SpaprHvpipeChardev *c, HvpipeLinkReason reason,
                       const char *text);
/* The handlers of the chardev; @opaque is the SpaprHvpipeChardev. */
int hvpipe_link_can_receive(void *opaque);
void hvpipe_link_receive(void *opaque, const uint8_t *buf, int size);
void hvpipe_link_event(void *opaque, QEMUChrEvent event);

#endif /* HW_PPC_SPAPR_HVPIPE_CHARDEV_H */
