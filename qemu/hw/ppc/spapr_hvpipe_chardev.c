/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): an HMC behind a chardev
 *
 * spapr-hvpipe-source speaks the protocol of spapr_hvpipe_link.h. Nothing
 * waits for an HMC but the send itself, and that not for long: what the HMC
 * does not read stays in the one frame that is being written, and
 * acknowledgements are cumulative. What the HMC sends is always read: its
 * messages have a place in the queue, as its credit counts the free ones.
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

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "chardev/char.h"
#include "chardev/char-fe.h"
#include "spapr_hvpipe_internal.h"
#include "trace.h"

OBJECT_DECLARE_SIMPLE_TYPE(SpaprHvpipeChardev, SPAPR_HVPIPE_CHARDEV)

/* At most so many complaints about an HMC in such a time */
#define HVPIPE_COMPLAINTS       10
#define HVPIPE_COMPLAINTS_MS    60000

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

static const char *const hvpipe_link_names[] = {
    [HVPIPE_LINK_CLOSED] = "closed",
    [HVPIPE_LINK_OPENED] = "opened",
    [HVPIPE_LINK_UP]     = "up",
    [HVPIPE_LINK_BROKEN] = "broken",
};

static void hvpipe_link_flush(SpaprHvpipeChardev *c);

static bool hvpipe_is_open(SpaprHvpipeChardev *c)
{
    return c->link == HVPIPE_LINK_OPENED || c->link == HVPIPE_LINK_UP;
}

static bool hvpipe_fate_is_open(SpaprHvpipeChardev *c)
{
    return c->session.state == HVPIPE_MESSAGE_IN_FLIGHT ||
           c->session.state == HVPIPE_MESSAGE_ORPHAN;
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
    trace_spapr_hvpipe_link(SPAPR_HVPIPE_SOURCE(c)->id,
                            hvpipe_link_names[link]);
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

/* An HMC must not fill the log: it is told of less often than it errs. */
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

/* Say why and drop the link. An HMC that does not read may miss the reason. */
static void hvpipe_link_close(SpaprHvpipeChardev *c, HvpipeLinkReason reason,
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

/* Write what is due and what the HMC takes now; the rest when it takes it. */
static void hvpipe_link_flush(SpaprHvpipeChardev *c)
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

static int hvpipe_link_can_receive(void *opaque)
{
    SpaprHvpipeChardev *c = opaque;

    /* A partition that moves in is not here yet. */
    return runstate_check(RUN_STATE_INMIGRATE) || c->report_loss ||
           !hvpipe_is_open(c) ? 0 : HVPIPE_LINK_MAX_FRAME;
}

static void hvpipe_link_receive(void *opaque, const uint8_t *buf, int size)
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

static void hvpipe_link_event(void *opaque, QEMUChrEvent event)
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

/*
 * What the pipe asks of a source
 */

static int hvpipe_chardev_send(SpaprHvpipeSource *s, const uint8_t *payload,
                               uint32_t size)
{
    SpaprHvpipeChardev *c = SPAPR_HVPIPE_CHARDEV(s);
    HvpipeSession *session = &c->session;
    bool taken = session->state == HVPIPE_MESSAGE_TAKEN;

    if (taken || session->state == HVPIPE_MESSAGE_REFUSED) {
        session->state = HVPIPE_MESSAGE_NONE;
        return taken ? RTAS_OUT_SUCCESS : HVPIPE_PIPE_CLOSED;
    }
    if (c->link != HVPIPE_LINK_UP) {
        return HVPIPE_PIPE_CLOSED;      /* the pipe abandons the message */
    }
    if (session->state != HVPIPE_MESSAGE_NONE) {
        return HVPIPE_BUSY_1MS;
    }
    session->state = HVPIPE_MESSAGE_IN_FLIGHT;
    session->size = size;
    memcpy(session->payload, payload, size);
    session->sent++;
    c->message_due = true;
    hvpipe_link_flush(c);
    return RTAS_OUT_BUSY;
}

static bool hvpipe_chardev_is_busy(SpaprHvpipeSource *s)
{
    SpaprHvpipeChardev *c = SPAPR_HVPIPE_CHARDEV(s);

    return c->link == HVPIPE_LINK_UP && hvpipe_fate_is_open(c);
}

static void hvpipe_chardev_abandon(SpaprHvpipeSource *s)
{
    SpaprHvpipeChardev *c = SPAPR_HVPIPE_CHARDEV(s);

    if (c->message_due) {
        /* The HMC has not seen it: the next message has its number. */
        c->message_due = false;
        c->session.sent--;
        c->session.state = HVPIPE_MESSAGE_NONE;
    } else if (c->session.state == HVPIPE_MESSAGE_IN_FLIGHT) {
        c->session.state = HVPIPE_MESSAGE_ORPHAN;
        s->nr_in_doubt++;
    } else if (c->session.state != HVPIPE_MESSAGE_ORPHAN) {
        c->session.state = HVPIPE_MESSAGE_NONE;
    }
}

static void hvpipe_chardev_acknowledge(SpaprHvpipeSource *s, uint64_t sequence)
{
    SpaprHvpipeChardev *c = SPAPR_HVPIPE_CHARDEV(s);

    if (sequence) {
        c->session.taken = sequence;
    }
    c->ack_due = c->link == HVPIPE_LINK_UP;
    hvpipe_link_flush(c);
}

static void hvpipe_chardev_pipe_changed(SpaprHvpipeSource *s)
{
    SpaprHvpipeChardev *c = SPAPR_HVPIPE_CHARDEV(s);

    c->state_due = c->link == HVPIPE_LINK_UP;
    hvpipe_link_flush(c);
}

static void hvpipe_chardev_run(SpaprHvpipeSource *s)
{
    SpaprHvpipeChardev *c = SPAPR_HVPIPE_CHARDEV(s);

    if (c->report_loss) {
        /* The HMC has yet to connect to where the partition is now. */
        c->report_loss = false;
        hvpipe_enqueue(s, HVPIPE_EVENT_LOST, 0, NULL, 0);
    }
    qemu_chr_fe_accept_input(&c->chr);
}

static HvpipeSession *hvpipe_chardev_save(SpaprHvpipeSource *s)
{
    SpaprHvpipeChardev *c = SPAPR_HVPIPE_CHARDEV(s);

    /* A machine that never ran still owes the loss that came with it. */
    c->session.was_up = c->link == HVPIPE_LINK_UP || c->report_loss;
    return &c->session;
}

static void hvpipe_chardev_load(SpaprHvpipeSource *s,
                                const HvpipeSession *session)
{
    SpaprHvpipeChardev *c = SPAPR_HVPIPE_CHARDEV(s);

    c->session = *session;
    /*
     * What was said on this link belongs to another state of the machine. If
     * there is a loss to tell of, it is that of the loaded state's link.
     */
    c->report_loss = session->was_up;
    if (c->link == HVPIPE_LINK_UP) {
        c->link = HVPIPE_LINK_BROKEN;
        hvpipe_link_close(c, HVPIPE_LINK_REPLACED, "the partition was put to "
                          "another state: connect again");
    }
}

/*
 * The device
 */

static char *hvpipe_chardev_get_link(Object *obj, Error **errp)
{
    return g_strdup(hvpipe_link_names[SPAPR_HVPIPE_CHARDEV(obj)->link]);
}

static char *hvpipe_chardev_get_error(Object *obj, Error **errp)
{
    return g_strdup(SPAPR_HVPIPE_CHARDEV(obj)->error ?: "");
}

static void hvpipe_chardev_realize(DeviceState *dev, Error **errp)
{
    ERRP_GUARD();
    SpaprHvpipeSource *s = SPAPR_HVPIPE_SOURCE(dev);
    SpaprHvpipeChardev *c = SPAPR_HVPIPE_CHARDEV(dev);
    Chardev *chr = qemu_chr_fe_get_driver(&c->chr);

    if (!chr) {
        error_setg(errp, "source-id 0x%08x has no HMC: give chardev=ID, or "
                   "take " TYPE_SPAPR_HVPIPE_ECHO, s->id);
        return;
    }
    if (object_dynamic_cast(OBJECT(chr), TYPE_CHARDEV_MUX)) {
        error_setg(errp, "source-id 0x%08x: a chardev with mux=on takes bytes "
                   "of the link for commands: leave mux out", s->id);
        return;
    }
    SPAPR_HVPIPE_SOURCE_GET_CLASS(s)->parent_realize(dev, errp);
    if (*errp) {
        return;
    }
    c->session.source_id = s->id;
    qemu_chr_fe_set_handlers(&c->chr, hvpipe_link_can_receive,
                             hvpipe_link_receive, hvpipe_link_event, NULL, c,
                             NULL, true);
}

static void hvpipe_chardev_init(Object *obj)
{
    SpaprHvpipeChardev *c = SPAPR_HVPIPE_CHARDEV(obj);

    object_property_add_uint64_ptr(obj, "session", &c->session.id,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "malformed", &c->nr_malformed,
                                   OBJ_PROP_FLAG_READ);
}

static void hvpipe_chardev_finalize(Object *obj)
{
    g_free(SPAPR_HVPIPE_CHARDEV(obj)->error);
}

static const Property hvpipe_chardev_properties[] = {
    DEFINE_PROP_CHR("chardev", SpaprHvpipeChardev, chr),
};

static void hvpipe_chardev_class_init(ObjectClass *klass, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    SpaprHvpipeSourceClass *sc = SPAPR_HVPIPE_SOURCE_CLASS(klass);

    device_class_set_parent_realize(dc, hvpipe_chardev_realize,
                                    &sc->parent_realize);
    dc->desc = "an HMC on the hypervisor pipe";
    device_class_set_props(dc, hvpipe_chardev_properties);
    object_class_property_add_str(klass, "link", hvpipe_chardev_get_link, NULL);
    object_class_property_add_str(klass, "link-error", hvpipe_chardev_get_error,
                                  NULL);
    sc->send = hvpipe_chardev_send;
    sc->is_busy = hvpipe_chardev_is_busy;
    sc->abandon = hvpipe_chardev_abandon;
    sc->acknowledge = hvpipe_chardev_acknowledge;
    sc->pipe_changed = hvpipe_chardev_pipe_changed;
    sc->run = hvpipe_chardev_run;
    sc->save = hvpipe_chardev_save;
    sc->load = hvpipe_chardev_load;
}

static const TypeInfo hvpipe_chardev_types[] = {
    {
        .name = TYPE_SPAPR_HVPIPE_CHARDEV,
        .parent = TYPE_SPAPR_HVPIPE_SOURCE,
        .instance_size = sizeof(SpaprHvpipeChardev),
        .instance_init = hvpipe_chardev_init,
        .instance_finalize = hvpipe_chardev_finalize,
        .class_init = hvpipe_chardev_class_init,
    },
};

DEFINE_TYPES(hvpipe_chardev_types)
