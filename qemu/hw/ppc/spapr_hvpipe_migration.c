/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): the migration stream
 *
 * One section holds the pipe, its queue and the sessions of its sources, so
 * that all of it can be checked as a whole. It is loaded beside the state of
 * the device, and put in its place only if nothing is wrong with it: a load
 * that fails changes nothing.
 *
 * Sources are found by their ID. Faults, counters, connections and properties
 * do not migrate.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "spapr_hvpipe_internal.h"

static void G_GNUC_PRINTF(2, 3)
hvpipe_refuse(uint32_t source, const char *what, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, what);
    text = g_strdup_vprintf(what, ap);
    va_end(ap);
    if (source) {
        error_report(TYPE_SPAPR_HVPIPE ": migration: source 0x%08x: %s", source,
                     text);
    } else {
        error_report(TYPE_SPAPR_HVPIPE ": migration: %s", text);
    }
}

/* A size must be good before the bytes behind it are loaded. */
static bool hvpipe_entry_size_is_good(void *opaque, int version_id)
{
    HvpipeEntry *entry = opaque;
    bool good = entry->type == HVPIPE_EVENT_MESSAGE ?
        entry->size >= 1 && entry->size <= HVPIPE_PAYLOAD_MAX :
        entry->type == HVPIPE_EVENT_LOST && !entry->size;

    if (!good) {
        hvpipe_refuse(entry->source_id, "queue entry has type %u and size %u",
                      entry->type, entry->size);
    }
    return good;
}

static bool hvpipe_session_size_is_good(void *opaque, int version_id)
{
    HvpipeSession *session = opaque;
    bool good = session->state == HVPIPE_MESSAGE_NONE ? !session->size :
        session->state <= HVPIPE_MESSAGE_ORPHAN && session->size >= 1 &&
        session->size <= HVPIPE_PAYLOAD_MAX;

    if (!good) {
        hvpipe_refuse(session->source_id, "message on its way has state %u and "
                      "size %u", session->state, session->size);
    }
    return good;
}

/* So many bytes of an array as the field before says */
#define HVPIPE_VMSTATE_PAYLOAD(type) {                                  \
    .name        = "payload",                                           \
    .size_offset = vmstate_offset_value(type, size, uint32_t),          \
    .info        = &vmstate_info_buffer,                                \
    .flags       = VMS_VBUFFER,                                         \
    .offset      = offsetof(type, payload),                             \
}

static const VMStateDescription vmstate_hvpipe_entry = {
    .name = TYPE_SPAPR_HVPIPE "/entry",
    .version_id = 2,
    .minimum_version_id = 2,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(source_id, HvpipeEntry),
        VMSTATE_UINT8(type, HvpipeEntry),
        VMSTATE_UINT64(sequence, HvpipeEntry),
        VMSTATE_UINT32(size, HvpipeEntry),
        VMSTATE_VALIDATE("size", hvpipe_entry_size_is_good),
        HVPIPE_VMSTATE_PAYLOAD(HvpipeEntry),
        VMSTATE_END_OF_LIST()
    },
};

static int hvpipe_session_pre_save(void *opaque)
{
    HvpipeSession *session = opaque;

    if (session->state == HVPIPE_MESSAGE_NONE) {
        session->size = 0;
    }
    return 0;
}

static const VMStateDescription vmstate_hvpipe_session = {
    .name = TYPE_SPAPR_HVPIPE "/session",
    .version_id = 3,
    .minimum_version_id = 3,
    .pre_save = hvpipe_session_pre_save,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(source_id, HvpipeSession),
        VMSTATE_BOOL(was_up, HvpipeSession),
        VMSTATE_UINT64(id, HvpipeSession),
        VMSTATE_UINT64(queued, HvpipeSession),
        VMSTATE_UINT64(taken, HvpipeSession),
        VMSTATE_UINT64(sent, HvpipeSession),
        VMSTATE_UINT8(state, HvpipeSession),
        VMSTATE_UINT32(size, HvpipeSession),
        VMSTATE_VALIDATE("size", hvpipe_session_size_is_good),
        HVPIPE_VMSTATE_PAYLOAD(HvpipeSession),
        VMSTATE_END_OF_LIST()
    },
};

void hvpipe_stream_init(HvpipeStream *stream)
{
    QTAILQ_INIT(&stream->queue);
    QTAILQ_INIT(&stream->sessions);
}

void hvpipe_stream_free(HvpipeStream *stream)
{
    HvpipeSession *session, *next;

    hvpipe_queue_free(&stream->queue);
    QTAILQ_FOREACH_SAFE(session, &stream->sessions, next, next) {
        QTAILQ_REMOVE(&stream->sessions, session, next);
        g_free(session);
    }
}

static void hvpipe_move_queue(HvpipeQueue *to, HvpipeQueue *from)
{
    HvpipeEntry *entry, *next;

    QTAILQ_FOREACH_SAFE(entry, from, next, next) {
        QTAILQ_REMOVE(from, entry, next);
        QTAILQ_INSERT_TAIL(to, entry, next);
    }
}

/* The state is lent to the stream while it is saved. */
static int hvpipe_pre_save(void *opaque)
{
    SpaprHvpipe *s = opaque;
    HvpipeStream *stream = &s->stream;
    SpaprHvpipeSource *source;
    GHashTableIter iter;

    hvpipe_stream_free(stream);
    stream->epoch = s->epoch;
    stream->enabled = s->enabled;
    stream->announced = s->announced;
    stream->fetched = s->fetched;
    stream->withheld = s->withheld;
    stream->caller = s->caller;
    hvpipe_move_queue(&stream->queue, &s->queue);
    g_hash_table_iter_init(&iter, s->sources);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&source)) {
        SpaprHvpipeSourceClass *sc = SPAPR_HVPIPE_SOURCE_GET_CLASS(source);

        if (sc->save) {
            QTAILQ_INSERT_TAIL(&stream->sessions, sc->save(source), next);
        }
    }
    return 0;
}

static int hvpipe_post_save(void *opaque)
{
    SpaprHvpipe *s = opaque;

    hvpipe_move_queue(&s->queue, &s->stream.queue);
    QTAILQ_INIT(&s->stream.sessions);
    return 0;
}

static int hvpipe_pre_load(void *opaque)
{
    SpaprHvpipe *s = opaque;

    hvpipe_stream_free(&s->stream);
    return 0;
}

static HvpipeSession *hvpipe_find_session(HvpipeStream *stream, uint32_t id)
{
    HvpipeSession *session;

    QTAILQ_FOREACH(session, &stream->sessions, next) {
        if (session->source_id == id) {
            return session;
        }
    }
    return NULL;
}

static bool hvpipe_session_is_good(SpaprHvpipe *s, const HvpipeSession *session)
{
    SpaprHvpipeSource *source = hvpipe_find_source(s, session->source_id);
    bool is_caller = s->stream.caller.source_id == session->source_id;
    uint32_t id = session->source_id;
    bool has_caller;

    if (!source || !SPAPR_HVPIPE_SOURCE_GET_CLASS(source)->load) {
        hvpipe_refuse(id, "this machine has no such source: add -device "
                      TYPE_SPAPR_HVPIPE_CHARDEV);
        return false;
    }
    if (hvpipe_find_session(&s->stream, id) != session) {
        hvpipe_refuse(id, "is there twice");
        return false;
    }
    has_caller = session->state != HVPIPE_MESSAGE_NONE &&
                 session->state != HVPIPE_MESSAGE_ORPHAN;
    if (has_caller && !is_caller) {
        hvpipe_refuse(id, "message on its way has state %u, but nobody waits",
                      session->state);
        return false;
    }
    if ((session->state == HVPIPE_MESSAGE_IN_FLIGHT ||
         session->state == HVPIPE_MESSAGE_ORPHAN) && !session->sent) {
        hvpipe_refuse(id, "message on its way has state %u, but sequence 0",
                      session->state);
        return false;
    }
    if (session->taken > session->queued) {
        hvpipe_refuse(id, "taken %" PRIu64 " is above queued %" PRIu64,
                      session->taken, session->queued);
        return false;
    }
    /* A session begins below 2^63, and counts up: it must not get to zero. */
    if (session->queued >= 3ull << 62 || session->sent >= 3ull << 62) {
        hvpipe_refuse(id, "queued %" PRIu64 ", sent %" PRIu64 ": no number "
                      "that counting leads to", session->queued, session->sent);
        return false;
    }
    if (!session->id &&
        (session->queued || session->sent || session->was_up)) {
        hvpipe_refuse(id, "session 0 has queued %" PRIu64 ", sent %" PRIu64
                      ", open %d, not 0, 0, 0", session->queued, session->sent,
                      session->was_up);
        return false;
    }
    return true;
}

static bool hvpipe_entry_is_good(SpaprHvpipe *s, const HvpipeEntry *entry)
{
    if (!hvpipe_find_source(s, entry->source_id)) {
        hvpipe_refuse(entry->source_id, "queue has a message of it, and this "
                      "machine has no such source: add it by -device");
        return false;
    }
    if (entry->sequence && (entry->type != HVPIPE_EVENT_MESSAGE ||
        !hvpipe_find_session(&s->stream, entry->source_id))) {
        hvpipe_refuse(entry->source_id, "queue entry of type %u has sequence %"
                      PRIu64 ", but no session", entry->type, entry->sequence);
        return false;
    }
    return true;
}

/* What a source has in the queue fits to its limits and to its session. */
static bool hvpipe_queue_is_good(SpaprHvpipe *s, uint32_t id)
{
    HvpipeSession *session = hvpipe_find_session(&s->stream, id);
    uint64_t last = session ? session->taken : 0;
    HvpipeEntry *entry;
    uint32_t queued = 0;

    QTAILQ_FOREACH(entry, &s->stream.queue, next) {
        if (entry->source_id != id) {
            continue;
        }
        queued += entry->type == HVPIPE_EVENT_MESSAGE;
        if (!entry->sequence) {
            continue;
        }
        if (entry->sequence <= last || entry->sequence > session->queued) {
            hvpipe_refuse(id, "queued message %" PRIu64 " is not from %"
                          PRIu64 " to %" PRIu64, entry->sequence, last + 1,
                          session->queued);
            return false;
        }
        last = entry->sequence;
    }
    if (queued > HVPIPE_QUEUE_LIMIT_MAX) {
        hvpipe_refuse(id, "queue has %u messages of it, more than any "
                      "queue-limit", queued);
        return false;
    }
    return true;
}

static bool hvpipe_stream_is_good(SpaprHvpipe *s)
{
    HvpipeStream *stream = &s->stream;
    HvpipeEntry *head = QTAILQ_FIRST(&stream->queue), *entry;
    bool message = head && head->type == HVPIPE_EVENT_MESSAGE;
    HvpipeSession *session;
    GHashTableIter iter;
    gpointer id;

    if (!stream->epoch) {
        hvpipe_refuse(0, "epoch 0");
        return false;
    }
    if (stream->caller.source_id &&
        (!stream->enabled ||
         !hvpipe_find_source(s, stream->caller.source_id))) {
        hvpipe_refuse(stream->caller.source_id, "waits for an answer, enabled "
                      "%d, and this machine has %s", stream->enabled,
                      hvpipe_find_source(s, stream->caller.source_id) ?
                      "it" : "no such source: add it by -device");
        return false;
    }
    QTAILQ_FOREACH(session, &stream->sessions, next) {
        if (!hvpipe_session_is_good(s, session)) {
            return false;
        }
    }
    QTAILQ_FOREACH(entry, &stream->queue, next) {
        if (!hvpipe_entry_is_good(s, entry)) {
            return false;
        }
    }
    g_hash_table_iter_init(&iter, s->sources);
    while (g_hash_table_iter_next(&iter, &id, NULL)) {
        if (!hvpipe_queue_is_good(s, GPOINTER_TO_UINT(id))) {
            return false;
        }
    }
    if ((stream->announced && (!stream->enabled || !head)) ||
        (stream->fetched && (!stream->announced || !message)) ||
        (stream->withheld && (stream->enabled || !message))) {
        hvpipe_refuse(0, "enabled %d, announced %d, fetched %d, withheld %d, "
                      "queue %s do not fit together", stream->enabled,
                      stream->announced, stream->fetched, stream->withheld,
                      head ? "not empty" : "empty");
        return false;
    }
    return true;
}

static void hvpipe_take_stream(SpaprHvpipe *s)
{
    HvpipeStream *stream = &s->stream;
    SpaprHvpipeSource *source;
    HvpipeSession *session;
    HvpipeEntry *entry;
    GHashTableIter iter;

    s->epoch = stream->epoch;
    s->enabled = stream->enabled;
    s->announced = stream->announced;
    s->fetched = stream->fetched;
    s->withheld = stream->withheld;
    s->caller = stream->caller;
    s->caller.source = hvpipe_find_source(s, s->caller.source_id);
    timer_del(s->announce_timer);

    hvpipe_queue_free(&s->queue);
    s->nr_queued = 0;
    g_hash_table_iter_init(&iter, s->sources);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&source)) {
        source->queued = 0;
        source->last = NULL;
    }
    hvpipe_move_queue(&s->queue, &stream->queue);
    QTAILQ_FOREACH(entry, &s->queue, next) {
        entry->source = hvpipe_find_source(s, entry->source_id);
        entry->source->queued += entry->type == HVPIPE_EVENT_MESSAGE;
        entry->source->last = entry;
        s->nr_queued++;
    }
    QTAILQ_FOREACH(session, &stream->sessions, next) {
        source = hvpipe_find_source(s, session->source_id);
        SPAPR_HVPIPE_SOURCE_GET_CLASS(source)->load(source, session);
    }
}

static int hvpipe_post_load(void *opaque, int version_id)
{
    SpaprHvpipe *s = opaque;
    bool good = hvpipe_stream_is_good(s);

    if (good) {
        hvpipe_take_stream(s);
        if (!s->capable) {
            /* Nobody here could have enabled it. */
            hvpipe_forget_caller(s);
            hvpipe_queue_disable(s);
        }
    }
    hvpipe_stream_free(&s->stream);
    return good ? 0 : -EINVAL;
}

const VMStateDescription vmstate_spapr_hvpipe = {
    .name = TYPE_SPAPR_HVPIPE,
    .version_id = 3,
    .minimum_version_id = 3,
    .pre_save = hvpipe_pre_save,
    .post_save = hvpipe_post_save,
    .pre_load = hvpipe_pre_load,
    .post_load = hvpipe_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(stream.epoch, SpaprHvpipe),
        VMSTATE_BOOL(stream.enabled, SpaprHvpipe),
        VMSTATE_BOOL(stream.announced, SpaprHvpipe),
        VMSTATE_BOOL(stream.fetched, SpaprHvpipe),
        VMSTATE_BOOL(stream.withheld, SpaprHvpipe),
        VMSTATE_UINT32(stream.caller.source_id, SpaprHvpipe),
        VMSTATE_UINT32(stream.caller.list, SpaprHvpipe),
        VMSTATE_QTAILQ_V(stream.sessions, SpaprHvpipe, 3,
                         vmstate_hvpipe_session, HvpipeSession, next),
        VMSTATE_QTAILQ_V(stream.queue, SpaprHvpipe, 2, vmstate_hvpipe_entry,
                         HvpipeEntry, next),
        VMSTATE_END_OF_LIST()
    },
};
