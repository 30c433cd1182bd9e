/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): the protocol of an HMC's link
 *
 * The protocol is that of spapr_hvpipe_link.h. Nothing waits for an HMC but
 * the send itself, and that not for long: what the HMC does not read stays in
 * the one frame that is being written, and acknowledgements are cumulative.
 * What the HMC sends is always read: its messages have a place in the queue,
 * as its credit counts the free ones.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "spapr_hvpipe_chardev.h"
#include "trace.h"

/* At most so many complaints about an HMC in such a time */
#define HVPIPE_COMPLAINTS       10
#define HVPIPE_COMPLAINTS_MS    60000

static const char *const hvpipe_link_names[] = {
    [HVPIPE_LINK_CLOSED] = "closed",
    [HVPIPE_LINK_OPENED] = "opened",
    [HVPIPE_LINK_UP]     = "up",
    [HVPIPE_LINK_BROKEN] = "broken",
};

const char *hvpipe_link_name(HvpipeLink link)
{
    return hvpipe_link_names[link];
}

static bool hvpipe_is_open(SpaprHvpipeChardev *c)
{
    return c->link == HVPIPE_LINK_OPENED || c->link == HVPIPE_LINK_UP;
}

/* The fate of the message on its way is known: tell its sender, if any. */
static void hvpipe_settle(SpaprHvpipeChardev *c, HvpipeMessageState fate)
{
    c->session.state = c->session.state == HVPIPE_MESSAGE_ORPHAN ?
        HVPIPE_MESSAGE_NONE : fate;
    qemu_cond_broadcast(&SPAPR_HVPIPE_SOURCE(c)->pipe->answered);
}

static void hvpipe_link_set(SpaprHvpipeChardev *c, HvpipeLink link)
{
    c->link = link;
    trace_spapr_hvpipe_link(SPAPR_HVPIPE_SOURCE(c)->id, hvpipe_link_name(link));
}

static void hvpipe_link_drop(SpaprHvpipeChardev *c, HvpipeLink link)
{
    bool was_up = c->link == HVPIPE_LINK_UP;

    hvpipe_link_set(c, link);
    c->in_size = 0;
    c->out_size = 0;
    c->state_due = c->message_due = c->ack_due = false;
    if (c->watch) {
        g_source_remove(c->watch);
        c->watch = 0;
    }
    if (was_up) {
        hvpipe_enqueue(SPAPR_HVPIPE_SOURCE(c), HVPIPE_EVENT_LOST, 0, NULL, 0);
    }
}

/* Limit the rate of complaints: an HMC must not fill the log. */
static void hvpipe_complain(SpaprHvpipeChardev *c)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (!c->nr_complaints || now - c->first_complaint > HVPIPE_COMPLAINTS_MS) {
        c->nr_complaints = 0;
        c->first_complaint = now;
    }
    if (++c->nr_complaints <= HVPIPE_COMPLAINTS) {
        error_report(TYPE_SPAPR_HVPIPE_CHARDEV " 0x%08x: %s; link closed%s",
                     SPAPR_HVPIPE_SOURCE(c)->id, c->error,
                     c->nr_complaints < HVPIPE_COMPLAINTS ? "" :
                     " (and no more of it for a minute)");
    }
}

void hvpipe_link_close(SpaprHvpipeChardev *c, HvpipeLinkReason reason,
                       const char *text)
{
    int rest = c->out_size ? c->out_size - c->out_done : 0;
    uint8_t frame[HVPIPE_LINK_MAX_CLOSE];

    hvpipe_link_drop(c, HVPIPE_LINK_BROKEN);
    if (!rest ||
        qemu_chr_fe_write(&c->chr, c->out + c->out_done, rest) == rest) {
        qemu_chr_fe_write(&c->chr, frame,
                          hvpipe_link_pack_close(frame, reason, text));
    }
    /* Not every chardev can be disconnected; if it can we get an event. */
    qemu_chr_fe_disconnect(&c->chr);
}

/* The HMC broke a rule, or its STATE cannot be accepted. */
static void G_GNUC_PRINTF(3, 4)
hvpipe_link_refuse(SpaprHvpipeChardev *c, HvpipeLinkReason reason,
                   const char *what, ...)
{
    const HvpipeLinkHeader *h = &c->in_header;
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, what);
    text = g_strdup_vprintf(what, ap);
    va_end(ap);
    g_free(c->error);
    c->error = g_strdup_printf("malformed frame from the HMC: %s (version %u, "
                               "type %u %s, length %u, reserved 0x%x, sequence "
                               "%" PRIu64 ")", text, h->version, h->type,
                               hvpipe_link_type_name(h->type), h->length,
                               h->reserved, h->sequence);
    c->nr_malformed++;
    hvpipe_complain(c);
    hvpipe_link_close(c, reason, text);
}

/*
 * Towards the HMC
 */

static gboolean hvpipe_link_writable(void *do_not_use, GIOCondition cond,
                                     void *opaque)
{
    SpaprHvpipeChardev *c = opaque;

    c->watch = 0;
    hvpipe_link_flush(c);
    return G_SOURCE_REMOVE;
}

/*
 * The highest sequence that there is a place in the queue for. It never falls
 * while the link is up. More than the limit may be queued by a machine that
 * had another one.
 */
static uint64_t hvpipe_link_credit(SpaprHvpipeChardev *c)
{
    SpaprHvpipeSource *s = SPAPR_HVPIPE_SOURCE(c);

    return c->session.queued +
           (s->queued < s->queue_limit ? s->queue_limit - s->queued : 0);
}

/* Pack the next frame that is due, if one is. */
static bool hvpipe_link_next_frame(SpaprHvpipeChardev *c)
{
    SpaprHvpipeSource *s = SPAPR_HVPIPE_SOURCE(c);

    if (c->state_due) {
        const HvpipeLinkHvState state = {
            .offer = HVPIPE_LINK_OFFER,
            .source = s->id,
            .flags = s->pipe->enabled ? HVPIPE_LINK_HV_ENABLED : 0,
            .epoch = s->pipe->epoch,
            .taken = c->session.taken,
            .queued = c->session.queued,
            .credit = hvpipe_link_credit(c),
        };

        c->state_due = false;
        c->credit = state.credit;
        c->out_size = hvpipe_link_pack_hv_state(c->out, &state);
    } else if (c->ack_due) {
        c->ack_due = false;
        c->credit = hvpipe_link_credit(c);
        c->out_size = hvpipe_link_pack_hv_ack(c->out, c->session.taken,
                                              c->credit);
    } else if (c->message_due) {
        c->message_due = false;
        c->out_size = HVPIPE_LINK_HEADER_SIZE + c->session.size;
        hvpipe_link_pack_header(c->out, HVPIPE_LINK_MESSAGE, c->session.size,
                                c->session.sent);
        memcpy(c->out + HVPIPE_LINK_HEADER_SIZE, c->session.payload,
               c->session.size);
    } else {
        return false;
    }
    c->out_done = 0;
    return true;
}

void hvpipe_link_flush(SpaprHvpipeChardev *c)
{
    while (c->link == HVPIPE_LINK_UP && !c->watch &&
           (c->out_size || hvpipe_link_next_frame(c))) {
        int done = qemu_chr_fe_write(&c->chr, c->out + c->out_done,
                                     c->out_size - c->out_done);

        if (c->link != HVPIPE_LINK_UP) {
            return;     /* the write has noticed that the HMC is gone */
        }
        if (done <= 0) {
            c->watch = qemu_chr_fe_add_watch(&c->chr, G_IO_OUT | G_IO_HUP,
                                             hvpipe_link_writable, c);
            return;
        }
        c->out_done += done;
        if (c->out_done == c->out_size) {
            HvpipeLinkHeader header;

            hvpipe_link_unpack_header(c->out, &header);
            trace_spapr_hvpipe_frame_out(SPAPR_HVPIPE_SOURCE(c)->id,
                                         header.type, header.length,
                                         header.sequence);
            if (header.type == HVPIPE_LINK_MESSAGE) {
                c->last_written = header.sequence;
            }
            c->out_size = 0;
        }
    }
}

/*
 * From the HMC
 */

/* Another HMC than before: the numbers begin where it says. */
static void hvpipe_adopt_session(SpaprHvpipeChardev *c,
                                 const HvpipeLinkHmcState *hmc)
{
    SpaprHvpipeSource *s = SPAPR_HVPIPE_SOURCE(c);
    HvpipeEntry *entry;

    /* Queued messages stay, but the HMC that waited for them does not. */
    QTAILQ_FOREACH(entry, &s->pipe->queue, next) {
        if (entry->source == s) {
            entry->sequence = 0;
        }
    }
    c->session.id = hmc->session;
    c->session.queued = c->session.taken = hmc->first - 1;
    c->session.sent = hmc->taken;
    if (hvpipe_fate_is_open(c)) {
        /* Only the old session knows it: fail the send. */
        hvpipe_settle(c, HVPIPE_MESSAGE_REFUSED);
    }
}

/* The HMC from before: what one side has not taken, the other sends again. */
static bool hvpipe_resume_session(SpaprHvpipeChardev *c,
                                  const HvpipeLinkHmcState *hmc)
{
    HvpipeSession *session = &c->session;
    bool open = hvpipe_fate_is_open(c);

    if (hmc->first > session->queued + 1) {
        hvpipe_link_refuse(c, HVPIPE_LINK_NO_SESSION, "session 0x%016" PRIx64
                           " goes on at sequence %" PRIu64 ", expected at most "
                           "%" PRIu64, hmc->session, hmc->first,
                           session->queued + 1);
        return false;
    }
    if (hmc->taken > session->sent || hmc->taken + open < session->sent) {
        hvpipe_link_refuse(c, HVPIPE_LINK_NO_SESSION, "session 0x%016" PRIx64
                           " says that %" PRIu64 " was taken last, expected "
                           "%" PRIu64, hmc->session, hmc->taken, session->sent);
        return false;
    }
    if (open && hmc->taken == session->sent) {
        hvpipe_settle(c, HVPIPE_MESSAGE_TAKEN);
    } else if (session->state == HVPIPE_MESSAGE_IN_FLIGHT) {
        c->message_due = true;
    } else if (session->state == HVPIPE_MESSAGE_ORPHAN) {
        session->state = HVPIPE_MESSAGE_NONE;
        session->sent = hmc->taken;
    }
    return true;
}

static void hvpipe_link_hello(SpaprHvpipeChardev *c, const uint8_t *payload)
{
    HvpipeLinkHmcState hmc;
    const char *wrong = hvpipe_link_unpack_hmc_state(payload, &hmc);

    if (wrong) {
        hvpipe_link_refuse(c, HVPIPE_LINK_MALFORMED, "%s", wrong);
        return;
    }
    if (!hvpipe_link_is_spoken(&hmc.offer)) {
        hvpipe_link_refuse(c, HVPIPE_LINK_NO_VERSION, "versions %u to %u are "
                           "not spoken here: the HMC must speak version %d",
                           hmc.offer.lowest, hmc.offer.highest,
                           HVPIPE_LINK_VERSION);
        return;
    }
    if (hmc.session != c->session.id) {
        hvpipe_adopt_session(c, &hmc);
    } else if (!hvpipe_resume_session(c, &hmc)) {
        return;
    }
    c->last_written = hmc.taken;
    c->state_due = true;
    hvpipe_link_set(c, HVPIPE_LINK_UP);
    trace_spapr_hvpipe_session(SPAPR_HVPIPE_SOURCE(c)->id, hmc.session,
                               hmc.taken, hmc.first);
    hvpipe_link_flush(c);
}

static void hvpipe_link_message(SpaprHvpipeChardev *c, const uint8_t *payload)
{
    const HvpipeLinkHeader *h = &c->in_header;

    switch (hvpipe_link_order(h->sequence, c->session.queued + 1)) {
    case HVPIPE_LINK_NEXT:
        if (h->sequence > c->credit) {
            hvpipe_link_refuse(c, HVPIPE_LINK_MALFORMED, "MESSAGE %" PRIu64
                               " beyond the credit, which is %" PRIu64,
                               h->sequence, c->credit);
            break;
        }
        c->session.queued++;
        hvpipe_enqueue(SPAPR_HVPIPE_SOURCE(c), HVPIPE_EVENT_MESSAGE,
                       h->sequence, payload, h->length);
        break;
    case HVPIPE_LINK_DUPLICATE:
        if (h->sequence <= c->session.taken) {
            c->ack_due = true;
            hvpipe_link_flush(c);
        }
        break;
    case HVPIPE_LINK_GAP:
        hvpipe_link_refuse(c, HVPIPE_LINK_MALFORMED, "expected sequence %"
                           PRIu64, c->session.queued + 1);
        break;
    }
}

static void hvpipe_link_answer(SpaprHvpipeChardev *c)
{
    const HvpipeLinkHeader *h = &c->in_header;

    if (!hvpipe_link_ack_valid(h->sequence, c->last_written)) {
        hvpipe_link_refuse(c, HVPIPE_LINK_MALFORMED, "the last sequence sent "
                           "was %" PRIu64, c->last_written);
        return;
    }
    if (!hvpipe_fate_is_open(c) || h->sequence != c->session.sent) {
        return;
    }
    if (h->type == HVPIPE_LINK_ACK) {
        hvpipe_settle(c, HVPIPE_MESSAGE_TAKEN);
    } else {
        /* The next message has this number again. */
        c->session.sent--;
        c->last_written = c->session.sent;
        hvpipe_settle(c, HVPIPE_MESSAGE_REFUSED);
    }
}

/* The HMC's last frame. Its text is shown, so nothing of it may act. */
static void hvpipe_link_closed(SpaprHvpipeChardev *c, const uint8_t *payload)
{
    uint32_t reason = hvpipe_link_get32(payload);
    g_autofree char *text =
        g_strndup((const char *)payload + HVPIPE_LINK_REASON_SIZE,
                  c->in_header.length - HVPIPE_LINK_REASON_SIZE);
    char *p;

    for (p = text; *p; p++) {
        if (!g_ascii_isprint(*p)) {
            *p = '?';
        }
    }
    g_free(c->error);
    c->error = g_strdup_printf("CLOSE from the HMC: reason %u %s: %s", reason,
                               hvpipe_link_reason_name(reason), text);
    if (reason != HVPIPE_LINK_DONE) {
        hvpipe_complain(c);
    }
    hvpipe_link_drop(c, HVPIPE_LINK_BROKEN);
    qemu_chr_fe_disconnect(&c->chr);
}

/* True if the header that came in is one that we can have now. */
static bool hvpipe_link_header(SpaprHvpipeChardev *c)
{
    const HvpipeLinkHeader *h = &c->in_header;
    bool first = c->link == HVPIPE_LINK_OPENED;
    const char *wrong;

    hvpipe_link_unpack_header(c->in, &c->in_header);
    if (first && h->version != HVPIPE_LINK_VERSION) {
        hvpipe_link_refuse(c, HVPIPE_LINK_NO_VERSION, "version %u is not "
                           "spoken here: the HMC must speak version %d",
                           h->version, HVPIPE_LINK_VERSION);
        return false;
    }
    wrong = hvpipe_link_check_header(h, HVPIPE_LINK_FROM_HMC);
    if (!wrong && h->type != HVPIPE_LINK_CLOSE &&
        (h->type == HVPIPE_LINK_STATE) != first) {
        wrong = first ? "the first frame is no STATE" : "a second STATE";
    }
    if (wrong) {
        hvpipe_link_refuse(c, HVPIPE_LINK_MALFORMED, "%s", wrong);
        return false;
    }
    return true;
}

static void hvpipe_link_frame(SpaprHvpipeChardev *c)
{
    const HvpipeLinkHeader *h = &c->in_header;
    const uint8_t *payload = c->in + HVPIPE_LINK_HEADER_SIZE;

    trace_spapr_hvpipe_frame_in(SPAPR_HVPIPE_SOURCE(c)->id, h->type, h->length,
                                h->sequence);
    switch (h->type) {
    case HVPIPE_LINK_STATE:
        hvpipe_link_hello(c, payload);
        break;
    case HVPIPE_LINK_MESSAGE:
        hvpipe_link_message(c, payload);
        break;
    case HVPIPE_LINK_ACK:
    case HVPIPE_LINK_NACK:
        hvpipe_link_answer(c);
        break;
    case HVPIPE_LINK_CLOSE:
        hvpipe_link_closed(c, payload);
        break;
    }
}

static uint32_t hvpipe_link_bytes_needed(SpaprHvpipeChardev *c)
{
    if (c->in_size < HVPIPE_LINK_HEADER_SIZE) {
        return HVPIPE_LINK_HEADER_SIZE - c->in_size;
    }
    return HVPIPE_LINK_HEADER_SIZE + c->in_header.length - c->in_size;
}

int hvpipe_link_can_receive(void *opaque)
{
    SpaprHvpipeChardev *c = opaque;

    /* A partition that moves in is not here yet. */
    return runstate_check(RUN_STATE_INMIGRATE) || c->report_loss ||
           !hvpipe_is_open(c) ? 0 : HVPIPE_LINK_MAX_FRAME;
}

void hvpipe_link_receive(void *opaque, const uint8_t *buf, int size)
{
    SpaprHvpipeChardev *c = opaque;

    while (size > 0 && hvpipe_is_open(c)) {
        uint32_t part = MIN(size, hvpipe_link_bytes_needed(c));

        memcpy(c->in + c->in_size, buf, part);
        c->in_size += part;
        buf += part;
        size -= part;

        if (c->in_size == HVPIPE_LINK_HEADER_SIZE &&
            !hvpipe_link_header(c)) {
            return;
        }
        if (c->in_size >= HVPIPE_LINK_HEADER_SIZE &&
            !hvpipe_link_bytes_needed(c)) {
            c->in_size = 0;
            hvpipe_link_frame(c);
        }
    }
}

void hvpipe_link_event(void *opaque, QEMUChrEvent event)
{
    SpaprHvpipeChardev *c = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        hvpipe_link_drop(c, HVPIPE_LINK_OPENED);
        break;
    case CHR_EVENT_CLOSED:
        hvpipe_link_drop(c, HVPIPE_LINK_CLOSED);
        break;
    default:
        break;
    }
}
