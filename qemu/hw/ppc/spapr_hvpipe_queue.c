/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): the queue towards the partition
 *
 * All sources share one queue. One event announces its head; nothing else is
 * announced until the partition has taken the head: a message by receiving
 * it, a loss by fetching the event. spapr_hvpipe_internal.h has the
 * invariants.
 */

#include "qemu/osdep.h"
#include "spapr_hvpipe_internal.h"
#include "trace.h"

/* The section of an event log */
#define HVPIPE_SECTION_ID       0x5045  /* PE */

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

static void hvpipe_raise(SpaprHvpipe *s)
{
    qemu_irq_pulse(spapr_qirq(s->spapr, s->irq));
}

static void hvpipe_start_timer(QEMUTimer *timer, uint32_t delay_us)
{
    timer_mod(timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) +
                     delay_us * (int64_t)SCALE_US);
}

bool hvpipe_fault(SpaprHvpipe *s, HvpipeFaultTarget target, uint32_t keys,
                  HvpipeFault *strike)
{
    /* Fast path. */
    return s->faults && hvpipe_faults_strike(&s->faults, target, keys, strike);
}

/* A fault has kept back an event, or wants a malformed one. */
static void hvpipe_raise_later(SpaprHvpipe *s)
{
    hvpipe_start_timer(s->raise_timer, 1000);
}

void hvpipe_raise_again(void *opaque)
{
    SpaprHvpipe *s = opaque;

    if (s->enabled && ((s->announced && !s->fetched) ||
                       hvpipe_faults_any(s->faults, HVPIPE_FAULT_EVENT))) {
        hvpipe_raise(s);
    }
}

void hvpipe_announce_late(void *opaque)
{
    hvpipe_announce(opaque);
}

void hvpipe_announce(SpaprHvpipe *s)
{
    HvpipeEntry *head = QTAILQ_FIRST(&s->queue);

    if (!s->enabled || s->announced || !head ||
        timer_pending(s->announce_timer)) {
        return;
    }
    s->announced = true;
    trace_spapr_hvpipe_announce(head->source_id, head->type);
    hvpipe_raise(s);
}

void hvpipe_enqueue(SpaprHvpipeSource *source, uint8_t type, uint64_t sequence,
                    const uint8_t *payload, uint32_t size)
{
    SpaprHvpipe *s = source->pipe;
    HvpipeEntry *entry;

    /*
     * Two losses in a row tell no more than one. This also bounds the queue
     * when an HMC comes and goes while the partition does not receive.
     */
    if (type == HVPIPE_EVENT_LOST &&
        source->last && source->last->type == HVPIPE_EVENT_LOST) {
        return;
    }

    /* Not zeroed, for speed: nobody reads behind the payload. */
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
    s->nr_queued++;
    source->last = entry;
    source->queued += type == HVPIPE_EVENT_MESSAGE;
    hvpipe_announce(s);
}

static void hvpipe_remove_head(SpaprHvpipe *s)
{
    HvpipeEntry *entry = QTAILQ_FIRST(&s->queue);
    SpaprHvpipeSource *source = entry->source;

    QTAILQ_REMOVE(&s->queue, entry, next);
    s->nr_queued--;
    if (source->last == entry) {
        source->last = NULL;
    }
    source->queued -= entry->type == HVPIPE_EVENT_MESSAGE;
    g_free(entry);
    s->announced = s->fetched = false;
}

void hvpipe_dequeue(SpaprHvpipe *s)
{
    hvpipe_remove_head(s);
    if (s->announce_delay_us) {
        hvpipe_start_timer(s->announce_timer, s->announce_delay_us);
    } else {
        hvpipe_announce(s);
    }
}

void hvpipe_queue_free(HvpipeQueue *queue)
{
    HvpipeEntry *entry, *next;

    QTAILQ_FOREACH_SAFE(entry, queue, next, next) {
        QTAILQ_REMOVE(queue, entry, next);
        g_free(entry);
    }
}

void hvpipe_queue_enable(SpaprHvpipe *s)
{
    s->enabled = true;
    if (s->withheld) {
        /* As if its event had been fetched. */
        s->withheld = false;
        s->announced = s->fetched = true;
    } else {
        hvpipe_announce(s);
    }
    if (hvpipe_faults_any(s->faults, HVPIPE_FAULT_EVENT)) {
        hvpipe_raise(s);
    }
}

void hvpipe_queue_disable(SpaprHvpipe *s)
{
    HvpipeEntry *head = QTAILQ_FIRST(&s->queue);
    bool again = !s->announced || s->announce_again;

    timer_del(s->announce_timer);
    s->enabled = s->announced = s->fetched = false;
    if (again) {
        return;
    }
    /* Nothing waits for a loss to be received, so it would stay for ever. */
    if (head->type == HVPIPE_EVENT_LOST) {
        hvpipe_remove_head(s);
    } else {
        s->withheld = true;
    }
}

/*
 * Events
 */

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
    s->nr_events++;
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
    if (fault->given & FAULT_KEY(SOURCE)) {
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
