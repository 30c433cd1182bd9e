/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): an HMC behind a chardev
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "spapr_hvpipe_chardev.h"

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
    return g_strdup(hvpipe_link_name(SPAPR_HVPIPE_CHARDEV(obj)->link));
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
