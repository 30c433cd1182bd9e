/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): what the device's files share
 *
 *     spapr_hvpipe.c            the pipe: its RTAS calls, properties
 *     spapr_hvpipe_queue.c      the queue towards the partition, its events
 *     spapr_hvpipe_source.c     the abstract source, and the echo
 *     spapr_hvpipe_chardev.c    the source behind a chardev: an HMC
 *     spapr_hvpipe_protocol.c   the protocol of its link
 *     spapr_hvpipe_migration.c  the migration stream
 *     spapr_hvpipe_fault.c      the grammar of the faults to inject
 *
 * Everything runs under the big QEMU lock. Only a send drops it, while it
 * waits for the HMC's answer.
 */

#ifndef HW_PPC_SPAPR_HVPIPE_INTERNAL_H
#define HW_PPC_SPAPR_HVPIPE_INTERNAL_H

#include "qemu/queue.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qom/object.h"
#include "hw/ppc/spapr.h"
#include "hw/ppc/spapr_hvpipe.h"
#include "hw/ppc/spapr_hvpipe_link.h"
#include "migration/vmstate.h"
#include "spapr_hvpipe_fault.h"
#include "spapr_compat.h"

OBJECT_DECLARE_SIMPLE_TYPE(SpaprHvpipe, SPAPR_HVPIPE)
OBJECT_DECLARE_TYPE(SpaprHvpipeSource, SpaprHvpipeSourceClass,
                    SPAPR_HVPIPE_SOURCE)

#define HVPIPE_PAYLOAD_MAX      HVPIPE_LINK_MAX_PAYLOAD
#define HVPIPE_QUEUE_LIMIT_MAX  65536

/* Statuses that only the pipe's calls have, PAPR+ 7.3.32 */
#define HVPIPE_PIPE_CLOSED      -4
#define HVPIPE_NOT_AVAILABLE    -5
#define HVPIPE_BUSY_1MS         9900

/* Source IDs are 0xCCRRQQQQ */
#define HVPIPE_SOURCE_CC(id)    ((id) >> 24)
#define HVPIPE_SOURCE_RR(id)    (((id) >> 16) & 0xff)
#define HVPIPE_CC_HMC           0x02

#define HVPIPE_EVENT_MESSAGE    0x01    /* a message is available */
#define HVPIPE_EVENT_LOST       0x02    /* the pipe to the source is lost */

/*
 * One thing that the partition is to learn of. A message has 1 to
 * HVPIPE_PAYLOAD_MAX bytes, a loss has none.
 */
typedef struct HvpipeEntry {
    QTAILQ_ENTRY(HvpipeEntry) next;
    SpaprHvpipeSource *source;
    uint32_t source_id;         /* of @source, for migration */
    uint8_t type;               /* HVPIPE_EVENT_* */
    uint32_t size;
    uint64_t sequence;          /* to acknowledge, 0: nobody waits for it */
    uint8_t payload[HVPIPE_PAYLOAD_MAX];
} HvpipeEntry;

typedef QTAILQ_HEAD(HvpipeQueue, HvpipeEntry) HvpipeQueue;

/* The one message on its way to a source */
typedef enum HvpipeMessageState {
    HVPIPE_MESSAGE_NONE,
    HVPIPE_MESSAGE_IN_FLIGHT,   /* its fate is open, and its sender waits */
    HVPIPE_MESSAGE_TAKEN,       /* the sender's next call is answered 0 */
    HVPIPE_MESSAGE_REFUSED,     /* the sender's next call is answered -4 */
    HVPIPE_MESSAGE_ORPHAN,      /* its fate is open, and nobody waits */
} HvpipeMessageState;

/*
 * The numbering of the messages between a source and its HMC. It outlives a
 * connection and migrates.
 *
 *   - taken <= queued
 *   - The message on its way has number sent while its fate is open.
 *   - Its state is IN_FLIGHT, TAKEN or REFUSED only while its sender is the
 *     pipe's caller.
 */
typedef struct HvpipeSession {
    QTAILQ_ENTRY(HvpipeSession) next;   /* in a migration stream */
    uint32_t source_id;
    bool was_up;                /* the link was, in the migration stream */
    uint64_t id;                /* 0: there was none yet */
    uint64_t queued;            /* last of the HMC's that was queued */
    uint64_t taken;             /* last of the HMC's that was received */
    uint64_t sent;              /* last of ours */
    uint8_t state;              /* HvpipeMessageState */
    uint32_t size;
    uint8_t payload[HVPIPE_PAYLOAD_MAX];
} HvpipeSession;

typedef QTAILQ_HEAD(HvpipeSessions, HvpipeSession) HvpipeSessions;

/* The send that was answered busy, if there is one: @source is not NULL. */
typedef struct HvpipeCaller {
    SpaprHvpipeSource *source;
    uint32_t source_id;         /* of @source or 0, for migration */
    uint32_t list;              /* address of the list of buffers */
} HvpipeCaller;

/*
 * What the migration stream holds. A stream is loaded here, checked as a
 * whole, and only then becomes the state of the pipe.
 */
typedef struct HvpipeStream {
    uint64_t epoch;
    bool enabled;
    bool announced;
    bool fetched;
    bool withheld;
    HvpipeCaller caller;
    HvpipeQueue queue;
    HvpipeSessions sessions;
} HvpipeStream;

/*
 * The pipe. Invariants:
 *
 *   - @announced: it is enabled and the queue has a head.
 *   - @fetched: it is announced and the head is a message.
 *   - @withheld: it is disabled and the head is a message.
 *   - Enabled with a head that is not announced: @announce_timer is pending,
 *     or the machine has not run since it was loaded.
 *   - A source's @queued counts its messages in the queue.
 */
struct SpaprHvpipe {
    SysBusDevice parent_obj;

    /* properties: how this firmware reads what PAPR leaves open */
    bool capable;
    bool announce_again;
    int32_t empty_receive;
    uint32_t payload_limit;
    uint32_t announce_delay_us;
    bool refuse_second_send;
    bool strict;

    SpaprMachineState *spapr;
    int irq;
    BusState bus;
    GHashTable *sources;        /* by source ID */
    uint64_t epoch;             /* of the partition's boot, not 0 */

    /* towards the partition */
    HvpipeQueue queue;
    bool enabled;               /* by system parameter 64 */
    bool announced;             /* an event was raised for the head */
    bool fetched;               /* and check-exception has returned it */
    bool withheld;              /* announced before, and never again */
    QEMUTimer *announce_timer;

    /* from the partition */
    HvpipeCaller caller;
    uint64_t nr_calls;          /* of send that are no retries */
    QemuCond answered;          /* the caller may have an answer */

    GSList *faults;
    QEMUTimer *raise_timer;     /* raises again what a fault kept back */
    uint32_t last_event_source;
    uint8_t last_event_type;

    HvpipeStream stream;

    /* what properties show */
    uint32_t nr_queued;
    uint64_t nr_events, nr_sends, nr_receives;
};

struct SpaprHvpipeSource {
    DeviceState parent_obj;

    /* properties */
    uint32_t id;
    uint32_t queue_limit;

    SpaprHvpipe *pipe;
    uint32_t queued;            /* messages in the queue */
    HvpipeEntry *last;          /* its last entry in the queue, if any */

    /* what properties show */
    uint64_t nr_received, nr_sent, nr_busy, nr_closed, nr_in_doubt;
};

/* Only send() and is_busy() are there in every class. */
struct SpaprHvpipeSourceClass {
    DeviceClass parent_class;
    DeviceRealize parent_realize;

    /*
     * Send a message, or ask for the fate of the one that the caller has on
     * its way. Returns a status of ibm,send-hvpipe-msg: RTAS_OUT_BUSY if the
     * message has just been written, HVPIPE_BUSY_1MS if it still waits.
     */
    int (*send)(SpaprHvpipeSource *s, const uint8_t *payload, uint32_t size);
    /* Would the caller be told to call again? */
    bool (*is_busy)(SpaprHvpipeSource *s);
    /* The caller will not ask again: the answer goes to nobody. */
    void (*abandon)(SpaprHvpipeSource *s);
    /*
     * The partition has received the message @sequence, or one that nobody
     * waits for, 0. The queue has a place more.
     */
    void (*acknowledge)(SpaprHvpipeSource *s, uint64_t sequence);
    /* The partition has enabled or disabled the pipe, or boots. */
    void (*pipe_changed)(SpaprHvpipeSource *s);
    /* The machine runs. */
    void (*run)(SpaprHvpipeSource *s);
    /* The state that migrates, NULL: none */
    HvpipeSession *(*save)(SpaprHvpipeSource *s);
    void (*load)(SpaprHvpipeSource *s, const HvpipeSession *session);
};

#define FAULT_KEY(k) HVPIPE_FAULT_KEY(k)

/* spapr_hvpipe.c */
SpaprHvpipeSource *hvpipe_find_source(SpaprHvpipe *s, uint32_t id);
/* Nobody asks for the answer of the send that was answered busy. */
void hvpipe_forget_caller(SpaprHvpipe *s);

/* spapr_hvpipe_queue.c */
void hvpipe_enqueue(SpaprHvpipeSource *source, uint8_t type, uint64_t sequence,
                    const uint8_t *payload, uint32_t size);
/* The partition has taken the head. */
void hvpipe_dequeue(SpaprHvpipe *s);
/* Announce the head if it is time to. */
void hvpipe_announce(SpaprHvpipe *s);
/* Announce the head, or not again, as the pipe is enabled. */
void hvpipe_queue_enable(SpaprHvpipe *s);
/* Withdraw the announcement: nothing is announced, the pipe is disabled. */
void hvpipe_queue_disable(SpaprHvpipe *s);
void hvpipe_queue_free(HvpipeQueue *queue);
bool hvpipe_fault(SpaprHvpipe *s, HvpipeFaultTarget target, uint32_t keys,
                  HvpipeFault *strike);
/* A timer's: raise the event again that a fault has kept back. */
void hvpipe_raise_again(void *opaque);
/* A timer's: announce what a delay has kept back. */
void hvpipe_announce_late(void *opaque);

/* spapr_hvpipe_migration.c */
extern const VMStateDescription vmstate_spapr_hvpipe;
void hvpipe_stream_init(HvpipeStream *stream);
void hvpipe_stream_free(HvpipeStream *stream);

#endif /* HW_PPC_SPAPR_HVPIPE_INTERNAL_H */
