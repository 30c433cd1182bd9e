/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): a partition talks to its HMC
 *
 * One spapr-hvpipe gives the partition its pipe (PAPR+ 7.3.32): two RTAS
 * calls, a system parameter and an event source. One spapr-hvpipe-source for
 * each HMC puts it on the pipe, behind a chardev that speaks the protocol of
 * spapr_hvpipe_link.h. docs/specs/ppc-spapr-hvpipe.rst has all the rules.
 *
 *   - All sources share one queue towards the partition. Its head is announced
 *     by one event; nothing else is until the partition has taken it.
 *   - Towards a source there is at most one message, its record. The partition
 *     polls it: a send of the same bytes is the retry of that message.
 *   - Nothing waits for an HMC but the send itself, and that not for long: what
 *     the HMC does not read stays in the one frame being written, and
 *     acknowledgements are cumulative.
 *
 * Everything here runs under the big QEMU lock; only a send lets go of it.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "chardev/char-fe.h"
#include "exec/memory.h"
#include "hw/irq.h"
#include "hw/ppc/spapr.h"
#include "hw/ppc/spapr_hvpipe.h"
#include "hw/ppc/spapr_hvpipe_link.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "migration/vmstate.h"
#include "spapr_hvpipe_fault.h"
#include "sysemu/cpus.h"
#include "sysemu/reset.h"
#include "sysemu/runstate.h"
#include "trace.h"

OBJECT_DECLARE_SIMPLE_TYPE(SpaprHvpipe, SPAPR_HVPIPE)
OBJECT_DECLARE_SIMPLE_TYPE(SpaprHvpipeSource, SPAPR_HVPIPE_SOURCE)

#define HVPIPE_PAYLOAD_MAX      HVPIPE_LINK_MAX_PAYLOAD
#define HVPIPE_BUFFER_SIZE      4096    /* of a buffer, of a buffer list */

/* Statuses that only these calls have, PAPR+ 7.3.32 */
#define HVPIPE_PIPE_CLOSED      -4
#define HVPIPE_NOT_AVAILABLE    -5
#define HVPIPE_BUSY_1MS         9900

/* A send returns when the HMC answers, or after this time to be polled on */
#define HVPIPE_ANSWER_MS        1

/* Source IDs are 0xCCRRQQQQ */
#define HVPIPE_SOURCE_CC(id)    ((id) >> 24)
#define HVPIPE_SOURCE_RR(id)    (((id) >> 16) & 0xff)
#define HVPIPE_CC_HMC           0x02

#define HVPIPE_QUEUE_LIMIT      256
#define HVPIPE_QUEUE_LIMIT_MAX  65536

/* The section of an event log */
#define HVPIPE_SECTION_ID       0x5045  /* PE */
#define HVPIPE_EVENT_MESSAGE    0x01    /* a message is available */
#define HVPIPE_EVENT_LOST       0x02    /* the pipe to the source is lost */

struct hvpipe_section {
    uint16_t id;
    uint16_t length;
    uint8_t version;
    uint8_t subtype;
    uint16_t creator;
    uint32_t source;
    uint8_t type;
    uint8_t reserved[3];
} QEMU_PACKED;

/* One thing the partition is to learn of, in the order in which it happened */
typedef struct HvpipeEntry {
    QTAILQ_ENTRY(HvpipeEntry) next;
    SpaprHvpipeSource *source;
    uint32_t source_id;         /* of @source, for migration */
    uint8_t type;               /* HVPIPE_EVENT_* */
    uint16_t size;
    uint64_t sequence;          /* to acknowledge, 0: nobody waits for it */
    uint8_t payload[HVPIPE_PAYLOAD_MAX];
} HvpipeEntry;

/* The one message on its way to a source */
typedef enum HvpipeRecordState {
    HVPIPE_RECORD_NONE,
    HVPIPE_RECORD_IN_FLIGHT,    /* the partition polls for its fate */
    HVPIPE_RECORD_TAKEN,        /* the next poll is told 0 */
    HVPIPE_RECORD_REFUSED,      /* the next poll is told -4 */
    HVPIPE_RECORD_IN_DOUBT,     /* was told -4, the HMC may have it though */
} HvpipeRecordState;

typedef struct HvpipeRecord {
    uint8_t state;
    uint32_t polls;
    uint16_t size;
    uint8_t payload[HVPIPE_PAYLOAD_MAX];
} HvpipeRecord;

typedef enum HvpipeLink {
    HVPIPE_LINK_CLOSED,
    HVPIPE_LINK_OPENED,         /* the HMC has not said who it is yet */
    HVPIPE_LINK_UP,
    HVPIPE_LINK_BROKEN,         /* was malformed; the chardev stays open */
} HvpipeLink;

struct SpaprHvpipeSource {
    DeviceState parent;

    /* properties */
    uint32_t id;
    uint32_t queue_limit;
    bool echo;
    CharBackend chr;

    SpaprHvpipe *hvpipe;

    /* towards the partition */
    uint32_t queued;            /* messages in the queue */
    HvpipeEntry *last;          /* its last entry in the queue, if any */

    /* towards the HMC */
    HvpipeRecord record;
    QemuCond answered;          /* the record's fate is known */

    /* the session: numbering that outlives a connection */
    uint64_t session;           /* 0: there was none yet */
    uint64_t next_in;           /* sequence of the HMC's next message */
    uint64_t received;          /* last of the HMC's that was received */
    uint64_t last_out;          /* last of ours; the record's, if it has one */

    /* the connection */
    HvpipeLink link;
    bool was_up;                /* the link was, in the migration stream */
    bool loss_due;              /* it was, and the partition runs here now */
    HvpipeLinkHeader in_header;
    uint32_t in_size;
    uint32_t out_size;          /* of the frame being written, 0: none */
    uint32_t out_done;
    uint64_t last_written;      /* last sequence that went out as a whole */
    bool state_due;
    bool message_due;
    bool ack_due;
    guint watch;
    uint8_t in[HVPIPE_LINK_MAX_FRAME];
    uint8_t out[HVPIPE_LINK_MAX_FRAME];
};

struct SpaprHvpipe {
    DeviceState parent;

    bool capable;               /* a property: the guest sees it */

    SpaprMachineState *spapr;
    int irq;
    GHashTable *sources;        /* by source ID */
    QTAILQ_HEAD(, HvpipeEntry) queue;

    bool enabled;               /* by system parameter 64 */
    bool announced;             /* an event was raised for the queue's head */
    bool fetched;               /* and check-exception has returned it */

    GSList *faults;
    QEMUTimer *raise_timer;     /* raises again what a fault kept back */
    uint32_t last_event_source;
    uint8_t last_event_type;
};

static void hvpipe_raise(SpaprHvpipe *s)
{
    qemu_irq_pulse(spapr_qirq(s->spapr, s->irq));
}

/* The machine's pipe, NULL if it has none, or more than one */
static SpaprHvpipe *hvpipe_find(void)
{
    return (SpaprHvpipe *)object_resolve_path_type("", TYPE_SPAPR_HVPIPE, NULL);
}

static SpaprHvpipeSource *hvpipe_find_source(SpaprHvpipe *s, uint32_t id)
{
    return g_hash_table_lookup(s->sources, GUINT_TO_POINTER(id));
}

/*
 * Faults
 */

#define KEY(k) HVPIPE_FAULT_KEY(k)

static char *hvpipe_get_inject(Object *obj, Error **errp)
{
    return hvpipe_faults_print(SPAPR_HVPIPE(obj)->faults);
}

static void hvpipe_set_inject(Object *obj, const char *text, Error **errp)
{
    ERRP_GUARD();
    SpaprHvpipe *s = SPAPR_HVPIPE(obj);
    GSList *faults = hvpipe_faults_parse(text, errp);

    if (*errp) {
        error_prepend(errp, "inject: ");
        return;
    }
    hvpipe_faults_free(s->faults);
    s->faults = faults;
    if (s->raise_timer) {
        timer_mod(s->raise_timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL));
    }
}

static bool hvpipe_fault(SpaprHvpipe *s, HvpipeFaultTarget target,
                         uint32_t keys, HvpipeFault *strike)
{
    /* The usual case costs nothing. */
    return s->faults && hvpipe_faults_strike(&s->faults, target, keys, strike);
}

static bool hvpipe_has_event_fault(SpaprHvpipe *s)
{
    return hvpipe_faults_any(s->faults, HVPIPE_FAULT_EVENT);
}

/* An event was kept back or a malformed one is wanted: raise in a while. */
static void hvpipe_raise_later(SpaprHvpipe *s)
{
    timer_mod(s->raise_timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + SCALE_MS);
}

static void hvpipe_raise_again(void *opaque)
{
    SpaprHvpipe *s = opaque;

    if (s->enabled &&
        ((s->announced && !s->fetched) || hvpipe_has_event_fault(s))) {
        hvpipe_raise(s);
    }
}

/*
 * The queue towards the partition
 */

static void hvpipe_announce(SpaprHvpipe *s)
{
    HvpipeEntry *head = QTAILQ_FIRST(&s->queue);

    if (!s->enabled || s->announced || !head) {
        return;
    }
    s->announced = true;
    s->fetched = false;
    trace_spapr_hvpipe_announce(head->source_id, head->type);
    hvpipe_raise(s);
}

static void hvpipe_enqueue(SpaprHvpipeSource *source, uint8_t type,
                           uint64_t sequence, const uint8_t *payload,
                           uint16_t size)
{
    SpaprHvpipe *s = source->hvpipe;
    HvpipeEntry *entry;

    /*
     * One loss tells as much as two in a row. It also bounds the queue when
     * an HMC comes and goes while the partition does not look.
     */
    if (type == HVPIPE_EVENT_LOST &&
        source->last && source->last->type == HVPIPE_EVENT_LOST) {
        return;
    }

    /* Not zeroed: what is behind the payload is only when it is saved. */
    entry = g_new(HvpipeEntry, 1);
    entry->source = source;
    entry->source_id = source->id;
    entry->type = type;
    entry->sequence = sequence;
    entry->size = size;
    if (size) {
        memcpy(entry->payload, payload, size);
    }
    QTAILQ_INSERT_TAIL(&s->queue, entry, next);
    source->last = entry;
    if (type == HVPIPE_EVENT_MESSAGE) {
        source->queued++;
    }
    hvpipe_announce(s);
}

/* The partition has taken the head; it may learn of the next one at once. */
static void hvpipe_dequeue(SpaprHvpipe *s)
{
    HvpipeEntry *entry = QTAILQ_FIRST(&s->queue);
    SpaprHvpipeSource *source = entry->source;

    QTAILQ_REMOVE(&s->queue, entry, next);
    if (source->last == entry) {
        source->last = NULL;
    }
    if (entry->type == HVPIPE_EVENT_MESSAGE) {
        source->queued--;
    }
    g_free(entry);
    s->announced = s->fetched = false;
    hvpipe_announce(s);
}

/*
 * The link to an HMC
 */

static const char *const hvpipe_link_names[] = {
    [HVPIPE_LINK_CLOSED] = "closed",
    [HVPIPE_LINK_OPENED] = "opened",
    [HVPIPE_LINK_UP]     = "up",
    [HVPIPE_LINK_BROKEN] = "broken",
};

static void hvpipe_link_flush(SpaprHvpipeSource *s);

static void hvpipe_link_drop(SpaprHvpipeSource *s, HvpipeLink link)
{
    bool was_up = s->link == HVPIPE_LINK_UP;

    trace_spapr_hvpipe_link(s->id, hvpipe_link_names[link]);
    s->link = link;
    s->in_size = 0;
    s->out_size = 0;
    s->state_due = s->message_due = s->ack_due = false;
    if (s->watch) {
        g_source_remove(s->watch);
        s->watch = 0;
    }
    if (was_up) {
        hvpipe_enqueue(s, HVPIPE_EVENT_LOST, 0, NULL, 0);
    }
}

static void G_GNUC_PRINTF(2, 3)
hvpipe_link_malformed(SpaprHvpipeSource *s, const char *what, ...)
{
    const HvpipeLinkHeader *h = &s->in_header;
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, what);
    text = g_strdup_vprintf(what, ap);
    va_end(ap);
    error_report(TYPE_SPAPR_HVPIPE_SOURCE " 0x%08x: malformed frame from the "
                 "HMC: %s (version %u, type %u %s, length %u, reserved 0x%x, "
                 "sequence %" PRIu64 "); link closed",
                 s->id, text, h->version, h->type,
                 hvpipe_link_type_name(h->type), h->length, h->reserved,
                 h->sequence);

    /* Not every chardev can be disconnected; if it can we get an event. */
    hvpipe_link_drop(s, HVPIPE_LINK_BROKEN);
    qemu_chr_fe_disconnect(&s->chr);
}

static gboolean hvpipe_link_writable(void *do_not_use, GIOCondition cond,
                                     void *opaque)
{
    SpaprHvpipeSource *s = opaque;

    s->watch = 0;
    hvpipe_link_flush(s);
    return G_SOURCE_REMOVE;
}

/* Pack the next frame that is due, if one is. */
static bool hvpipe_link_next_frame(SpaprHvpipeSource *s)
{
    if (s->state_due) {
        const HvpipeLinkHvState state = {
            .source = s->id,
            .flags = s->hvpipe->enabled ? HVPIPE_LINK_HV_ENABLED : 0,
            .received = s->received,
        };

        s->state_due = false;
        s->out_size = hvpipe_link_pack_hv_state(s->out, &state);
    } else if (s->ack_due) {
        s->ack_due = false;
        s->out_size = HVPIPE_LINK_HEADER_SIZE;
        hvpipe_link_pack_header(s->out, HVPIPE_LINK_ACK, 0, s->received);
    } else if (s->message_due) {
        s->message_due = false;
        s->out_size = HVPIPE_LINK_HEADER_SIZE + s->record.size;
        hvpipe_link_pack_header(s->out, HVPIPE_LINK_MESSAGE, s->record.size,
                                s->last_out);
        memcpy(s->out + HVPIPE_LINK_HEADER_SIZE, s->record.payload,
               s->record.size);
    } else {
        return false;
    }
    s->out_done = 0;
    return true;
}

/* Write what is due and what the HMC takes now; the rest when it takes it. */
static void hvpipe_link_flush(SpaprHvpipeSource *s)
{
    while (s->link == HVPIPE_LINK_UP && !s->watch &&
           (s->out_size || hvpipe_link_next_frame(s))) {
        int done = qemu_chr_fe_write(&s->chr, s->out + s->out_done,
                                     s->out_size - s->out_done);

        if (s->link != HVPIPE_LINK_UP) {
            return;     /* the write has noticed that the HMC is gone */
        }
        if (done <= 0) {
            s->watch = qemu_chr_fe_add_watch(&s->chr, G_IO_OUT | G_IO_HUP,
                                             hvpipe_link_writable, s);
            return;
        }
        s->out_done += done;
        if (s->out_done == s->out_size) {
            HvpipeLinkHeader header;

            hvpipe_link_unpack_header(s->out, &header);
            trace_spapr_hvpipe_frame_out(s->id, header.type, header.length,
                                         header.sequence);
            if (header.type == HVPIPE_LINK_MESSAGE) {
                s->last_written = header.sequence;
            }
            s->out_size = 0;
        }
    }
}

/*
 * The HMC says who it is and where the session stands. Both sides go on from
 * there: whatever one side has not taken, the other one sends again.
 */
static void hvpipe_link_hello(SpaprHvpipeSource *s, const uint8_t *payload)
{
    bool unresolved = s->record.state == HVPIPE_RECORD_IN_FLIGHT ||
                      s->record.state == HVPIPE_RECORD_IN_DOUBT;
    HvpipeLinkHmcState hmc;
    const char *wrong = hvpipe_link_unpack_hmc_state(payload, &hmc);
    HvpipeEntry *entry;

    if (wrong) {
        hvpipe_link_malformed(s, "%s", wrong);
        return;
    }

    if (hmc.session != s->session) {
        /* Queued messages are the partition's, whoever sent them. */
        QTAILQ_FOREACH(entry, &s->hvpipe->queue, next) {
            if (entry->source == s) {
                entry->sequence = 0;
            }
        }
        s->session = hmc.session;
        s->next_in = hmc.first;
        s->received = 0;
        s->last_out = hmc.taken;
        if (s->record.state == HVPIPE_RECORD_IN_FLIGHT) {
            /* The HMC that could tell is no more; its sender decides. */
            s->record.state = HVPIPE_RECORD_REFUSED;
        } else if (s->record.state == HVPIPE_RECORD_IN_DOUBT) {
            s->record.state = HVPIPE_RECORD_NONE;
        }
    } else if (hvpipe_link_order(hmc.first, s->next_in) == HVPIPE_LINK_GAP) {
        hvpipe_link_malformed(s, "session 0x%016" PRIx64 " goes on at sequence "
                              "%" PRIu64 ", expected at most %" PRIu64,
                              hmc.session, hmc.first, s->next_in);
        return;
    } else if (hmc.taken > s->last_out ||
               hmc.taken + unresolved < s->last_out) {
        hvpipe_link_malformed(s, "session 0x%016" PRIx64 " says that %" PRIu64
                              " was taken last, expected %" PRIu64,
                              hmc.session, hmc.taken, s->last_out);
        return;
    } else if (unresolved && hmc.taken == s->last_out) {
        s->record.state = HVPIPE_RECORD_TAKEN;
    } else if (s->record.state == HVPIPE_RECORD_IN_FLIGHT) {
        s->message_due = true;
    } else if (s->record.state == HVPIPE_RECORD_IN_DOUBT) {
        s->record.state = HVPIPE_RECORD_NONE;
        s->last_out = hmc.taken;
    }

    s->last_written = hmc.taken;
    s->state_due = true;
    s->link = HVPIPE_LINK_UP;
    trace_spapr_hvpipe_link(s->id, hvpipe_link_names[s->link]);
    trace_spapr_hvpipe_session(s->id, hmc.session, hmc.taken, hmc.first);
    hvpipe_link_flush(s);
}

static void hvpipe_link_message(SpaprHvpipeSource *s, const uint8_t *payload)
{
    const HvpipeLinkHeader *h = &s->in_header;

    switch (hvpipe_link_order(h->sequence, s->next_in)) {
    case HVPIPE_LINK_NEXT:
        s->next_in++;
        hvpipe_enqueue(s, HVPIPE_EVENT_MESSAGE, h->sequence, payload,
                       h->length);
        break;
    case HVPIPE_LINK_DUPLICATE:
        if (h->sequence <= s->received) {
            s->ack_due = true;
            hvpipe_link_flush(s);
        }
        break;
    case HVPIPE_LINK_GAP:
        hvpipe_link_malformed(s, "expected sequence %" PRIu64, s->next_in);
        break;
    }
}

static void hvpipe_link_answer(SpaprHvpipeSource *s)
{
    const HvpipeLinkHeader *h = &s->in_header;

    if (!hvpipe_link_ack_valid(h->sequence, s->last_written)) {
        hvpipe_link_malformed(s, "the last sequence sent was %" PRIu64,
                              s->last_written);
        return;
    }
    if (s->record.state != HVPIPE_RECORD_IN_FLIGHT ||
        h->sequence != s->last_out) {
        return;
    }
    if (h->type == HVPIPE_LINK_ACK) {
        s->record.state = HVPIPE_RECORD_TAKEN;
    } else {
        /* As if never sent: the next message has this number again. */
        s->record.state = HVPIPE_RECORD_REFUSED;
        s->last_out--;
        s->last_written = s->last_out;
    }
    qemu_cond_broadcast(&s->answered);
}

/* A header came in: is it one that we can have now? */
static bool hvpipe_link_header(SpaprHvpipeSource *s)
{
    const char *wrong;

    hvpipe_link_unpack_header(s->in, &s->in_header);
    wrong = hvpipe_link_check_header(&s->in_header, HVPIPE_LINK_FROM_HMC);
    if (!wrong && (s->in_header.type == HVPIPE_LINK_STATE) !=
                  (s->link == HVPIPE_LINK_OPENED)) {
        wrong = s->link == HVPIPE_LINK_OPENED ? "the first frame is no STATE" :
                                                "a second STATE";
    }
    if (wrong) {
        hvpipe_link_malformed(s, "%s", wrong);
        return false;
    }
    return true;
}

static void hvpipe_link_frame(SpaprHvpipeSource *s)
{
    const HvpipeLinkHeader *h = &s->in_header;
    const uint8_t *payload = s->in + HVPIPE_LINK_HEADER_SIZE;

    trace_spapr_hvpipe_frame_in(s->id, h->type, h->length, h->sequence);
    switch (h->type) {
    case HVPIPE_LINK_STATE:
        hvpipe_link_hello(s, payload);
        break;
    case HVPIPE_LINK_MESSAGE:
        hvpipe_link_message(s, payload);
        break;
    case HVPIPE_LINK_ACK:
    case HVPIPE_LINK_NACK:
        hvpipe_link_answer(s);
        break;
    }
}

static uint32_t hvpipe_link_missing(SpaprHvpipeSource *s)
{
    if (s->in_size < HVPIPE_LINK_HEADER_SIZE) {
        return HVPIPE_LINK_HEADER_SIZE - s->in_size;
    }
    return HVPIPE_LINK_HEADER_SIZE + s->in_header.length - s->in_size;
}

static int hvpipe_link_can_receive(void *opaque)
{
    SpaprHvpipeSource *s = opaque;
    uint32_t more = 0;

    if (runstate_check(RUN_STATE_INMIGRATE) || s->loss_due ||
        (s->link != HVPIPE_LINK_OPENED && s->link != HVPIPE_LINK_UP)) {
        return 0;
    }
    /*
     * A full queue stops at the payload of the message that has no place, so
     * that acknowledgements before it still come through.
     */
    if (s->queued >= s->queue_limit &&
        s->in_size >= HVPIPE_LINK_HEADER_SIZE &&
        s->in_header.type == HVPIPE_LINK_MESSAGE &&
        s->in_header.sequence == s->next_in) {
        return 0;
    }
    /*
     * What comes after this frame may come in the same read, if there is place
     * for all messages that it can have: none is shorter than a header and a
     * byte.
     */
    if (s->queued < s->queue_limit) {
        more = (s->queue_limit - s->queued - 1) * (HVPIPE_LINK_HEADER_SIZE + 1);
    }
    return hvpipe_link_missing(s) + MIN(more, HVPIPE_LINK_MAX_FRAME);
}

static void hvpipe_link_receive(void *opaque, const uint8_t *buf, int size)
{
    SpaprHvpipeSource *s = opaque;

    while (size > 0 &&
           (s->link == HVPIPE_LINK_OPENED || s->link == HVPIPE_LINK_UP)) {
        uint32_t part = MIN(size, hvpipe_link_missing(s));

        memcpy(s->in + s->in_size, buf, part);
        s->in_size += part;
        buf += part;
        size -= part;

        if (s->in_size == HVPIPE_LINK_HEADER_SIZE &&
            !hvpipe_link_header(s)) {
            return;
        }
        if (s->in_size >= HVPIPE_LINK_HEADER_SIZE && !hvpipe_link_missing(s)) {
            s->in_size = 0;
            hvpipe_link_frame(s);
        }
    }
}

static void hvpipe_link_event(void *opaque, QEMUChrEvent event)
{
    SpaprHvpipeSource *s = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        hvpipe_link_drop(s, HVPIPE_LINK_OPENED);
        break;
    case CHR_EVENT_CLOSED:
        hvpipe_link_drop(s, HVPIPE_LINK_CLOSED);
        break;
    default:
        break;
    }
}

/*
 * The calls of the partition
 */

/*
 * Copy from or to real memory. Nothing but memory below 4 GiB will do (RTAS
 * work areas), and it is all or nothing.
 */
static bool hvpipe_is_ram(uint64_t addr, uint64_t size, bool is_write)
{
    RCU_READ_LOCK_GUARD();

    if (addr > 4 * GiB || size > 4 * GiB - addr) {
        return false;
    }
    while (size) {
        hwaddr xlat, part = size;
        MemoryRegion *mr = address_space_translate(&address_space_memory, addr,
                                                   &xlat, &part, is_write,
                                                   MEMTXATTRS_UNSPECIFIED);

        if (!part || !memory_access_is_direct(mr, is_write)) {
            return false;
        }
        addr += part;
        size -= part;
    }
    return true;
}

static bool hvpipe_rw(uint64_t addr, void *buf, uint64_t size, bool is_write)
{
    return hvpipe_is_ram(addr, size, is_write) &&
           address_space_rw(&address_space_memory, addr, MEMTXATTRS_UNSPECIFIED,
                            buf, size, is_write) == MEMTX_OK;
}

/*
 * Gather the message of a send: be64 length of the list in bytes, this word
 * included; then for each buffer be64 real address and be64 bytes used.
 * Returns its size, 0 if anything about it is wrong.
 */
static uint16_t hvpipe_read_list(uint64_t addr, uint8_t *payload)
{
    uint64_t list[HVPIPE_BUFFER_SIZE / sizeof(uint64_t)];
    uint64_t length, used;
    uint32_t size = 0;
    int i;

    if (!hvpipe_rw(addr, list, sizeof(uint64_t), false)) {
        return 0;
    }
    length = be64_to_cpu(list[0]);
    if (length < 24 || length > sizeof(list) || length % 16 != 8 ||
        !hvpipe_rw(addr, list, length, false)) {
        return 0;
    }
    for (i = 1; i < length / sizeof(uint64_t); i += 2) {
        used = be64_to_cpu(list[i + 1]);
        if (used > HVPIPE_BUFFER_SIZE || size + used > HVPIPE_PAYLOAD_MAX ||
            !hvpipe_rw(be64_to_cpu(list[i]), payload + size, used, false)) {
            return 0;
        }
        size += used;
    }
    return size;
}

static int hvpipe_echo(SpaprHvpipeSource *source, const uint8_t *payload,
                       uint16_t size)
{
    if (source->queued >= source->queue_limit) {
        return HVPIPE_BUSY_1MS;
    }
    hvpipe_enqueue(source, HVPIPE_EVENT_MESSAGE, 0, payload, size);
    return RTAS_OUT_SUCCESS;
}

static int hvpipe_poll_send(SpaprHvpipeSource *source, const uint8_t *payload,
                            uint16_t size)
{
    HvpipeRecord *record = &source->record;
    bool retry = record->state != HVPIPE_RECORD_NONE && record->size == size &&
                 !memcmp(record->payload, payload, size);

    if (record->state == HVPIPE_RECORD_TAKEN ||
        record->state == HVPIPE_RECORD_REFUSED) {
        bool taken = record->state == HVPIPE_RECORD_TAKEN;

        record->state = HVPIPE_RECORD_NONE;
        if (retry) {
            return taken ? RTAS_OUT_SUCCESS : HVPIPE_PIPE_CLOSED;
        }
        /* Its sender did not wait for the answer: on to the next one. */
    }

    if (source->link != HVPIPE_LINK_UP) {
        if (retry && record->state == HVPIPE_RECORD_IN_FLIGHT) {
            record->state = HVPIPE_RECORD_IN_DOUBT;
        }
        return HVPIPE_PIPE_CLOSED;
    }

    if (record->state == HVPIPE_RECORD_NONE) {
        record->state = HVPIPE_RECORD_IN_FLIGHT;
        record->polls = 0;
        record->size = size;
        memcpy(record->payload, payload, size);
        source->last_out++;
        source->message_due = true;
        hvpipe_link_flush(source);
    }
    return record->polls++ ? HVPIPE_BUSY_1MS : RTAS_OUT_BUSY;
}

/*
 * Most answers come within the time of a few polls, of which each keeps the
 * main loop from reading them. So the first poll is ours; who is told to call
 * again after it has no reason to hurry.
 */
static int hvpipe_send(SpaprHvpipeSource *source, const uint8_t *payload,
                       uint16_t size)
{
    int status = hvpipe_poll_send(source, payload, size);

    if (status == RTAS_OUT_BUSY && source->record.polls == 1 &&
        source->link == HVPIPE_LINK_UP && qemu_in_vcpu_thread()) {
        qemu_cond_timedwait_iothread(&source->answered, HVPIPE_ANSWER_MS);
        status = hvpipe_poll_send(source, payload, size);
    }
    return status;
}

static void rtas_ibm_send_hvpipe_msg(PowerPCCPU *cpu, SpaprMachineState *spapr,
                                     uint32_t token, uint32_t nargs,
                                     target_ulong args, uint32_t nret,
                                     target_ulong rets)
{
    SpaprHvpipe *s = spapr->hvpipe;
    uint8_t payload[HVPIPE_PAYLOAD_MAX];
    SpaprHvpipeSource *source;
    HvpipeFault fault;
    uint32_t id = 0;
    uint16_t size = 0;
    int status;

    if (nargs != 2 || nret != 1) {
        status = RTAS_OUT_PARAM_ERROR;
    } else if (hvpipe_fault(s, HVPIPE_FAULT_SEND, 0, &fault)) {
        status = fault.value[HVPIPE_FAULT_STATUS];
    } else if (!s->enabled) {
        status = HVPIPE_NOT_AVAILABLE;
    } else {
        id = rtas_ld(args, 0);
        source = hvpipe_find_source(s, id);
        size = hvpipe_read_list(rtas_ld(args, 1), payload);
        if (!source || !size) {
            status = RTAS_OUT_PARAM_ERROR;
        } else if (source->echo) {
            status = hvpipe_echo(source, payload, size);
        } else {
            status = hvpipe_send(source, payload, size);
        }
    }
    trace_spapr_hvpipe_send(id, size, status);
    rtas_st(rets, 0, status);
}

static void rtas_ibm_receive_hvpipe_msg(PowerPCCPU *cpu,
                                        SpaprMachineState *spapr,
                                        uint32_t token, uint32_t nargs,
                                        target_ulong args, uint32_t nret,
                                        target_ulong rets)
{
    SpaprHvpipe *s = spapr->hvpipe;
    HvpipeEntry *head = QTAILQ_FIRST(&s->queue);
    SpaprHvpipeSource *source;
    HvpipeFault fault;
    uint32_t addr, room, id = 0, size = 0;
    int status = RTAS_OUT_SUCCESS;

    if (nargs != 2 || nret != 3) {
        rtas_st(rets, 0, RTAS_OUT_PARAM_ERROR);
        return;
    }

    addr = rtas_ld(args, 0);
    room = rtas_ld(args, 1);
    if (hvpipe_fault(s, HVPIPE_FAULT_RECEIVE, KEY(STATUS), &fault)) {
        status = fault.value[HVPIPE_FAULT_STATUS];
    } else if (!s->enabled) {
        status = HVPIPE_NOT_AVAILABLE;
    } else if (!hvpipe_is_ram(addr, room, true)) {
        status = RTAS_OUT_PARAM_ERROR;
    } else if (head && head->type == HVPIPE_EVENT_MESSAGE) {
        if (room < head->size ||
            !hvpipe_rw(addr, head->payload, head->size, true)) {
            status = RTAS_OUT_PARAM_ERROR;
        } else {
            id = head->source_id;
            size = head->size;
            source = head->source;
            if (head->sequence) {
                source->received = head->sequence;
                source->ack_due = source->link == HVPIPE_LINK_UP;
                hvpipe_link_flush(source);
            }
            hvpipe_dequeue(s);
            if (source->queued + 1 >= source->queue_limit) {
                qemu_chr_fe_accept_input(&source->chr);
            }

            if (hvpipe_fault(s, HVPIPE_FAULT_RECEIVE,
                             KEY(SOURCE) | KEY(LENGTH), &fault)) {
                if (fault.given & KEY(SOURCE)) {
                    id = fault.value[HVPIPE_FAULT_SOURCE];
                }
                if (fault.given & KEY(LENGTH)) {
                    size = fault.value[HVPIPE_FAULT_LENGTH];
                }
            }
        }
    }
    trace_spapr_hvpipe_receive(id, size, status);
    rtas_st(rets, 0, status);
    rtas_st(rets, 1, id);
    rtas_st(rets, 2, size);
}

static void hvpipe_set_enabled(SpaprHvpipe *s, bool enabled)
{
    bool changed = s->enabled != enabled;
    SpaprHvpipeSource *source;
    GHashTableIter iter;

    trace_spapr_hvpipe_enable(enabled);
    s->enabled = enabled;
    s->announced = false;
    s->fetched = false;
    hvpipe_announce(s);

    if (enabled && hvpipe_has_event_fault(s)) {
        hvpipe_raise(s);
    }
    if (changed) {
        g_hash_table_iter_init(&iter, s->sources);
        while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&source)) {
            source->state_due = source->link == HVPIPE_LINK_UP;
            hvpipe_link_flush(source);
        }
    }
}

int spapr_hvpipe_set_system_parameter(SpaprHvpipe *s, uint32_t buffer)
{
    struct {
        uint16_t length;
        uint8_t value;
    } QEMU_PACKED parameter;
    HvpipeFault fault;

    if (hvpipe_fault(s, HVPIPE_FAULT_SET_SYSTEM_PARAMETER, 0, &fault)) {
        return fault.value[HVPIPE_FAULT_STATUS];
    }
    if (!hvpipe_rw(buffer, &parameter, sizeof(parameter), false) ||
        be16_to_cpu(parameter.length) != 1 || parameter.value > 1) {
        return RTAS_OUT_SYSPARM_PARAM_ERROR;
    }
    hvpipe_set_enabled(s, parameter.value);
    return RTAS_OUT_SUCCESS;
}

static SpaprEventLogEntry *hvpipe_event_log(SpaprHvpipe *s, uint8_t log_type,
                                            uint32_t source, uint8_t type,
                                            uint16_t size)
{
    const struct hvpipe_section section = {
        .id = cpu_to_be16(HVPIPE_SECTION_ID),
        .length = cpu_to_be16(size),
        .version = 1,
        .source = cpu_to_be32(source),
        .type = type,
    };

    trace_spapr_hvpipe_event(log_type, source, type, size);
    return spapr_hvpipe_event_log(s->spapr, log_type, &section, size);
}

static SpaprEventLogEntry *hvpipe_fault_event(SpaprHvpipe *s,
                                              const HvpipeFault *fault)
{
    HvpipeEntry *head = QTAILQ_FIRST(&s->queue);
    uint32_t source = head ? head->source_id : s->last_event_source;
    uint8_t type = HVPIPE_EVENT_MESSAGE, log_type = RTAS_LOG_TYPE_HVPIPE;
    uint16_t size = sizeof(struct hvpipe_section);

    switch ((HvpipeFaultEvent)fault->kind) {
    case HVPIPE_FAULT_NO_EVENT:
        return NULL;
    case HVPIPE_FAULT_DUPLICATE:
        source = s->last_event_source;
        type = s->last_event_type;
        break;
    case HVPIPE_FAULT_NO_SECTION:
        size = 0;
        break;
    case HVPIPE_FAULT_SHORT_SECTION:
        size = offsetof(struct hvpipe_section, source) + 2;
        break;
    case HVPIPE_FAULT_UNKNOWN_SOURCE:
        source = HVPIPE_CC_HMC << 24 | 0xffff;
        break;
    case HVPIPE_FAULT_BOTH_BITS:
        type = HVPIPE_EVENT_MESSAGE | HVPIPE_EVENT_LOST;
        break;
    case HVPIPE_FAULT_UNKNOWN_BITS:
        type = (uint8_t)~(HVPIPE_EVENT_MESSAGE | HVPIPE_EVENT_LOST);
        break;
    case HVPIPE_FAULT_WRONG_TYPE:
        log_type = RTAS_LOG_TYPE_HVPIPE + 1;
        break;
    }
    if (fault->given & KEY(SOURCE)) {
        source = fault->value[HVPIPE_FAULT_SOURCE];
    }
    return hvpipe_event_log(s, log_type, source, type, size);
}

SpaprEventLogEntry *spapr_hvpipe_check_exception(SpaprHvpipe *s, int *status)
{
    HvpipeEntry *head = QTAILQ_FIRST(&s->queue);
    SpaprEventLogEntry *event;
    HvpipeFault fault;

    if (hvpipe_fault(s, HVPIPE_FAULT_CHECK_EXCEPTION, 0, &fault)) {
        *status = fault.value[HVPIPE_FAULT_STATUS];
        hvpipe_raise_later(s);
        return NULL;
    }
    if (!s->enabled) {
        return NULL;
    }
    /* This one comes before the good one, not in its place. */
    if (hvpipe_fault(s, HVPIPE_FAULT_EVENT, 0, &fault)) {
        hvpipe_raise_later(s);
        return hvpipe_fault_event(s, &fault);
    }
    if (!s->announced || s->fetched) {
        return NULL;
    }

    if (hvpipe_fault(s, HVPIPE_FAULT_REPLACE_EVENT, 0, &fault)) {
        event = hvpipe_fault_event(s, &fault);
    } else {
        event = hvpipe_event_log(s, RTAS_LOG_TYPE_HVPIPE, head->source_id,
                                 head->type, sizeof(struct hvpipe_section));
        s->last_event_source = head->source_id;
        s->last_event_type = head->type;
    }
    if (head->type == HVPIPE_EVENT_MESSAGE) {
        s->fetched = true;      /* and stays announced until received */
    } else {
        hvpipe_dequeue(s);
    }
    return event;
}

/*
 * The devices
 */

/* The partition forgets; the HMC does not, and neither does the queue. */
static void hvpipe_reset(void *opaque)
{
    hvpipe_set_enabled(opaque, false);
}

static void hvpipe_vm_change_state(void *opaque, bool running, RunState state)
{
    SpaprHvpipe *s = opaque;
    SpaprHvpipeSource *source;
    GHashTableIter iter;

    if (!running) {
        return;
    }
    g_hash_table_iter_init(&iter, s->sources);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&source)) {
        if (source->loss_due) {
            /* The HMC has yet to come to where the partition is now. */
            source->loss_due = false;
            hvpipe_enqueue(source, HVPIPE_EVENT_LOST, 0, NULL, 0);
        }
        qemu_chr_fe_accept_input(&source->chr);
    }
}

static int hvpipe_entry_pre_save(void *opaque)
{
    HvpipeEntry *entry = opaque;

    memset(entry->payload + entry->size, 0,
           sizeof(entry->payload) - entry->size);
    return 0;
}

static const VMStateDescription vmstate_hvpipe_entry = {
    .name = "spapr-hvpipe/entry",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = hvpipe_entry_pre_save,
    .fields = (VMStateField[]) {
        VMSTATE_UINT32(source_id, HvpipeEntry),
        VMSTATE_UINT8(type, HvpipeEntry),
        VMSTATE_UINT16(size, HvpipeEntry),
        VMSTATE_UINT64(sequence, HvpipeEntry),
        VMSTATE_BUFFER(payload, HvpipeEntry),
        VMSTATE_END_OF_LIST()
    },
};

static int hvpipe_pre_load(void *opaque)
{
    SpaprHvpipe *s = opaque;
    SpaprHvpipeSource *source;
    HvpipeEntry *entry, *next;
    GHashTableIter iter;

    s->enabled = s->announced = s->fetched = false;
    QTAILQ_FOREACH_SAFE(entry, &s->queue, next, next) {
        QTAILQ_REMOVE(&s->queue, entry, next);
        g_free(entry);
    }
    g_hash_table_iter_init(&iter, s->sources);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&source)) {
        source->queued = 0;
        source->last = NULL;
    }
    return 0;
}

static bool hvpipe_loaded_well(SpaprHvpipe *s)
{
    SpaprHvpipeSource *source;
    HvpipeEntry *entry;

    QTAILQ_FOREACH(entry, &s->queue, next) {
        source = hvpipe_find_source(s, entry->source_id);
        if (!source) {
            error_report(TYPE_SPAPR_HVPIPE ": migration: queue has a message "
                         "from source 0x%08x, which this machine does not "
                         "have: add -device " TYPE_SPAPR_HVPIPE_SOURCE,
                         entry->source_id);
            return false;
        }
        entry->source = source;
        source->last = entry;
        source->queued += entry->type == HVPIPE_EVENT_MESSAGE;
        if (entry->type == HVPIPE_EVENT_MESSAGE ?
            entry->size < 1 || entry->size > HVPIPE_PAYLOAD_MAX :
            entry->type != HVPIPE_EVENT_LOST || entry->size) {
            error_report(TYPE_SPAPR_HVPIPE ": migration: queue entry of source "
                         "0x%08x has type %u and size %u", entry->source_id,
                         entry->type, entry->size);
            return false;
        }
        if (source->queued > HVPIPE_QUEUE_LIMIT_MAX) {
            error_report(TYPE_SPAPR_HVPIPE ": migration: queue has %u messages "
                         "from source 0x%08x, more than any queue-limit",
                         source->queued, entry->source_id);
            return false;
        }
    }

    entry = QTAILQ_FIRST(&s->queue);
    if ((s->announced && (!s->enabled || !entry)) ||
        (s->fetched && (!s->announced ||
                        entry->type != HVPIPE_EVENT_MESSAGE)) ||
        (s->enabled && !s->announced && entry)) {
        error_report(TYPE_SPAPR_HVPIPE ": migration: enabled %d, announced %d, "
                     "fetched %d, queue %s do not fit together", s->enabled,
                     s->announced, s->fetched, entry ? "not empty" : "empty");
        return false;
    }
    return true;
}

static int hvpipe_post_load(void *opaque, int version_id)
{
    SpaprHvpipe *s = opaque;

    if (!hvpipe_loaded_well(s)) {
        hvpipe_pre_load(s);
        return -EINVAL;
    }
    if (!s->capable) {
        /* Nobody here could have enabled it. */
        s->enabled = s->announced = s->fetched = false;
    }
    return 0;
}

static const VMStateDescription vmstate_hvpipe = {
    .name = TYPE_SPAPR_HVPIPE,
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = hvpipe_pre_load,
    .post_load = hvpipe_post_load,
    .fields = (VMStateField[]) {
        VMSTATE_BOOL(enabled, SpaprHvpipe),
        VMSTATE_BOOL(announced, SpaprHvpipe),
        VMSTATE_BOOL(fetched, SpaprHvpipe),
        VMSTATE_QTAILQ_V(queue, SpaprHvpipe, 1, vmstate_hvpipe_entry,
                         HvpipeEntry, next),
        VMSTATE_END_OF_LIST()
    },
};

static void hvpipe_realize(DeviceState *dev, Error **errp)
{
    SpaprHvpipe *s = SPAPR_HVPIPE(dev);
    SpaprMachineState *spapr = (SpaprMachineState *)
        object_dynamic_cast(qdev_get_machine(), TYPE_SPAPR_MACHINE);
    int irq = SPAPR_IRQ_HVPIPE;

    if (!spapr) {
        error_setg(errp, TYPE_SPAPR_HVPIPE " needs a pseries machine");
        return;
    }
    if (!hvpipe_find()) {
        error_setg(errp, "the machine has a " TYPE_SPAPR_HVPIPE " already, "
                   "one serves all sources");
        return;
    }
    if (SPAPR_MACHINE_GET_CLASS(spapr)->legacy_irq_allocation) {
        irq = spapr_irq_findone(spapr, errp);
        if (irq < 0) {
            return;
        }
    }
    if (spapr_irq_claim(spapr, irq, false, errp) < 0) {
        return;
    }

    s->spapr = spapr;
    s->irq = irq;
    s->raise_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, hvpipe_raise_again, s);
    if (s->capable) {
        spapr->hvpipe = s;
        spapr_hvpipe_register_event_source(spapr, irq);
        spapr_rtas_register(RTAS_IBM_SEND_HVPIPE_MSG, "ibm,send-hvpipe-msg",
                            rtas_ibm_send_hvpipe_msg);
        spapr_rtas_register(RTAS_IBM_RECEIVE_HVPIPE_MSG,
                            "ibm,receive-hvpipe-msg",
                            rtas_ibm_receive_hvpipe_msg);
    }
    qemu_register_reset(hvpipe_reset, s);
    qdev_add_vm_change_state_handler(dev, hvpipe_vm_change_state, s);
}

static void hvpipe_init(Object *obj)
{
    SpaprHvpipe *s = SPAPR_HVPIPE(obj);

    QTAILQ_INIT(&s->queue);
    s->sources = g_hash_table_new(NULL, NULL);
}

static void hvpipe_finalize(Object *obj)
{
    SpaprHvpipe *s = SPAPR_HVPIPE(obj);

    hvpipe_faults_free(s->faults);
    g_hash_table_unref(s->sources);
}

static Property hvpipe_properties[] = {
    DEFINE_PROP_BOOL("capable", SpaprHvpipe, capable, true),
    DEFINE_PROP_END_OF_LIST(),
};

static void hvpipe_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = hvpipe_realize;
    dc->vmsd = &vmstate_hvpipe;
    dc->desc = "hypervisor pipe of the partition";
    dc->user_creatable = true;
    dc->hotpluggable = false;   /* the device tree tells of it at boot */
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, hvpipe_properties);
    object_class_property_add_str(klass, "inject", hvpipe_get_inject,
                                  hvpipe_set_inject);
    object_class_property_set_description(klass, "inject", "faults to inject, "
                                          "TARGET:WORD[,WORD...][;...]");
}

static int hvpipe_source_pre_save(void *opaque)
{
    SpaprHvpipeSource *s = opaque;

    /* Or it was before a move to here, from where it moves on at once. */
    s->was_up = s->link == HVPIPE_LINK_UP || s->loss_due;
    return 0;
}

/* What is wrong with what was loaded, for the caller to free, or NULL */
static char *hvpipe_source_load_error(SpaprHvpipeSource *s)
{
    const HvpipeRecord *record = &s->record;
    uint64_t sequence = s->received;
    HvpipeEntry *entry;

    if (record->state > HVPIPE_RECORD_IN_DOUBT) {
        return g_strdup_printf("message to the source has state %u, which is "
                               "unknown", record->state);
    }
    if (record->state != HVPIPE_RECORD_NONE &&
        (record->size < 1 || record->size > HVPIPE_PAYLOAD_MAX)) {
        return g_strdup_printf("message to the source has %u bytes, not from 1 "
                               "to %u", record->size, HVPIPE_PAYLOAD_MAX);
    }
    if ((record->state == HVPIPE_RECORD_IN_FLIGHT ||
         record->state == HVPIPE_RECORD_IN_DOUBT) && !s->last_out) {
        return g_strdup_printf("message to the source has state %u, but "
                               "sequence 0", record->state);
    }
    if (s->received >= s->next_in) {
        return g_strdup_printf("received %" PRIu64 " is not below next %"
                               PRIu64, s->received, s->next_in);
    }
    /* A session begins below 2^63, and counts up: it must not get to zero. */
    if (s->next_in >= 3ull << 62) {
        return g_strdup_printf("next %" PRIu64 " is no number that counting "
                               "leads to", s->next_in);
    }
    if (!s->session && (s->next_in > 1 || s->last_out || s->was_up)) {
        return g_strdup_printf("session 0 has next %" PRIu64 ", sent %" PRIu64
                               ", open %d, not 1, 0, 0", s->next_in,
                               s->last_out, s->was_up);
    }
    QTAILQ_FOREACH(entry, &s->hvpipe->queue, next) {
        if (entry->source != s || !entry->sequence) {
            continue;
        }
        if (entry->sequence <= sequence || entry->sequence >= s->next_in) {
            return g_strdup_printf("queued message %" PRIu64 " is not between %"
                                   PRIu64 " and %" PRIu64, entry->sequence,
                                   sequence, s->next_in);
        }
        sequence = entry->sequence;
    }
    return NULL;
}

static int hvpipe_source_post_load(void *opaque, int version_id)
{
    SpaprHvpipeSource *s = opaque;
    g_autofree char *error = hvpipe_source_load_error(s);

    if (error) {
        error_report(TYPE_SPAPR_HVPIPE_SOURCE " 0x%08x: migration: %s", s->id,
                     error);
        s->record.state = HVPIPE_RECORD_NONE;
        return -EINVAL;
    }

    /*
     * What was said on this link belongs to another state of the machine. If
     * there is a loss to tell of, it is that of the loaded state's link.
     */
    s->loss_due = s->was_up;
    if (s->link == HVPIPE_LINK_UP) {
        s->link = HVPIPE_LINK_BROKEN;
        hvpipe_link_drop(s, HVPIPE_LINK_BROKEN);
        qemu_chr_fe_disconnect(&s->chr);
    }
    return 0;
}

static const VMStateDescription vmstate_hvpipe_source = {
    .name = TYPE_SPAPR_HVPIPE_SOURCE,
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = hvpipe_source_pre_save,
    .post_load = hvpipe_source_post_load,
    .fields = (VMStateField[]) {
        VMSTATE_BOOL(was_up, SpaprHvpipeSource),
        VMSTATE_UINT64(session, SpaprHvpipeSource),
        VMSTATE_UINT64(next_in, SpaprHvpipeSource),
        VMSTATE_UINT64(received, SpaprHvpipeSource),
        VMSTATE_UINT64(last_out, SpaprHvpipeSource),
        VMSTATE_UINT8(record.state, SpaprHvpipeSource),
        VMSTATE_UINT32(record.polls, SpaprHvpipeSource),
        VMSTATE_UINT16(record.size, SpaprHvpipeSource),
        VMSTATE_BUFFER(record.payload, SpaprHvpipeSource),
        VMSTATE_END_OF_LIST()
    },
};

static void hvpipe_source_realize(DeviceState *dev, Error **errp)
{
    SpaprHvpipeSource *s = SPAPR_HVPIPE_SOURCE(dev);
    SpaprHvpipe *hvpipe = hvpipe_find();
    bool has_chardev = qemu_chr_fe_backend_connected(&s->chr);

    if (!hvpipe) {
        error_setg(errp, TYPE_SPAPR_HVPIPE_SOURCE " needs a pipe: put -device "
                   TYPE_SPAPR_HVPIPE " before it");
        return;
    }
    if (HVPIPE_SOURCE_CC(s->id) != HVPIPE_CC_HMC || HVPIPE_SOURCE_RR(s->id)) {
        error_setg(errp, "source-id 0x%08x is not 0x0200QQQQ (an HMC, reserved "
                   "byte zero); the first HMC is 0x02000001", s->id);
        return;
    }
    if (hvpipe_find_source(hvpipe, s->id)) {
        error_setg(errp, "source-id 0x%08x is taken by another "
                   TYPE_SPAPR_HVPIPE_SOURCE, s->id);
        return;
    }
    if (s->echo && has_chardev) {
        error_setg(errp, "source-id 0x%08x has both chardev and echo=on: an "
                   "echo source answers by itself, leave one out", s->id);
        return;
    }
    if (!s->echo && !has_chardev) {
        error_setg(errp, "source-id 0x%08x has no other side: give chardev=ID "
                   "or echo=on", s->id);
        return;
    }
    if (s->queue_limit < 1 || s->queue_limit > HVPIPE_QUEUE_LIMIT_MAX) {
        error_setg(errp, "queue-limit %u is not from 1 to %d", s->queue_limit,
                   HVPIPE_QUEUE_LIMIT_MAX);
        return;
    }

    s->hvpipe = hvpipe;
    s->next_in = 1;
    qemu_cond_init(&s->answered);
    g_hash_table_insert(s->hvpipe->sources, GUINT_TO_POINTER(s->id), s);
    /* By source ID, so that the order of the command line does not matter */
    vmstate_register(NULL, s->id, &vmstate_hvpipe_source, s);
    if (has_chardev) {
        qemu_chr_fe_set_handlers(&s->chr, hvpipe_link_can_receive,
                                 hvpipe_link_receive, hvpipe_link_event, NULL,
                                 s, NULL, true);
    }
}

static Property hvpipe_source_properties[] = {
    DEFINE_PROP_UINT32("source-id", SpaprHvpipeSource, id, 0),
    DEFINE_PROP_UINT32("queue-limit", SpaprHvpipeSource, queue_limit,
                       HVPIPE_QUEUE_LIMIT),
    DEFINE_PROP_BOOL("echo", SpaprHvpipeSource, echo, false),
    DEFINE_PROP_CHR("chardev", SpaprHvpipeSource, chr),
    DEFINE_PROP_END_OF_LIST(),
};

static void hvpipe_source_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = hvpipe_source_realize;
    dc->desc = "an HMC on the hypervisor pipe";
    dc->user_creatable = true;
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, hvpipe_source_properties);
}

static const TypeInfo hvpipe_types[] = {
    {
        .name = TYPE_SPAPR_HVPIPE,
        .parent = TYPE_DEVICE,
        .instance_size = sizeof(SpaprHvpipe),
        .instance_init = hvpipe_init,
        .instance_finalize = hvpipe_finalize,
        .class_init = hvpipe_class_init,
    }, {
        .name = TYPE_SPAPR_HVPIPE_SOURCE,
        .parent = TYPE_DEVICE,
        .instance_size = sizeof(SpaprHvpipeSource),
        .class_init = hvpipe_source_class_init,
    },
};

DEFINE_TYPES(hvpipe_types)
