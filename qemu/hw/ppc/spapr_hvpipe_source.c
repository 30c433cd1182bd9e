/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): the sources on the pipe
 *
 * spapr-hvpipe-source-base is what all sources have in common: a place on the
 * bus of the pipe, and an ID. spapr-hvpipe-echo answers each message with
 * itself; spapr_hvpipe_chardev.c has the one that speaks to an HMC.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "spapr_hvpipe_internal.h"

#define HVPIPE_QUEUE_LIMIT      256

static void hvpipe_source_realize(DeviceState *dev, Error **errp)
{
    SpaprHvpipeSource *s = SPAPR_HVPIPE_SOURCE(dev);
    SpaprHvpipe *pipe = SPAPR_HVPIPE(qdev_get_parent_bus(dev)->parent);

    if (HVPIPE_SOURCE_CC(s->id) != HVPIPE_CC_HMC || HVPIPE_SOURCE_RR(s->id)) {
        error_setg(errp, "source-id 0x%08x is not 0x0200QQQQ (an HMC, reserved "
                   "byte zero); the first HMC is 0x02000001", s->id);
        return;
    }
    if (hvpipe_find_source(pipe, s->id)) {
        error_setg(errp, "source-id 0x%08x is taken by another source", s->id);
        return;
    }
    if (s->queue_limit < 1 || s->queue_limit > HVPIPE_QUEUE_LIMIT_MAX) {
        error_setg(errp, "queue-limit %u is not from 1 to %d", s->queue_limit,
                   HVPIPE_QUEUE_LIMIT_MAX);
        return;
    }
    s->pipe = pipe;
    g_hash_table_insert(pipe->sources, GUINT_TO_POINTER(s->id), s);
}

static void hvpipe_source_init(Object *obj)
{
    SpaprHvpipeSource *s = SPAPR_HVPIPE_SOURCE(obj);

    object_property_add_uint32_ptr(obj, "queued", &s->queued,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "received", &s->nr_received,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "sent", &s->nr_sent,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "busy", &s->nr_busy,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "closed", &s->nr_closed,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "in-doubt", &s->nr_in_doubt,
                                   OBJ_PROP_FLAG_READ);
}

static const Property hvpipe_source_properties[] = {
    DEFINE_PROP_UINT32("source-id", SpaprHvpipeSource, id, 0),
    DEFINE_PROP_UINT32("queue-limit", SpaprHvpipeSource, queue_limit,
                       HVPIPE_QUEUE_LIMIT),
};

static void hvpipe_source_class_init(ObjectClass *klass, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = hvpipe_source_realize;
    dc->bus_type = TYPE_SPAPR_HVPIPE_BUS;
    dc->user_creatable = true;
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, hvpipe_source_properties);
}

/*
 * The echo
 */

static bool hvpipe_echo_is_busy(SpaprHvpipeSource *s)
{
    return s->queued >= s->queue_limit;
}

static int hvpipe_echo_send(SpaprHvpipeSource *s, const uint8_t *payload,
                            uint32_t size)
{
    if (hvpipe_echo_is_busy(s)) {
        return HVPIPE_BUSY_1MS;
    }
    hvpipe_enqueue(s, HVPIPE_EVENT_MESSAGE, 0, payload, size);
    return RTAS_OUT_SUCCESS;
}

static void hvpipe_echo_class_init(ObjectClass *klass, const void *data)
{
    SpaprHvpipeSourceClass *sc = SPAPR_HVPIPE_SOURCE_CLASS(klass);

    DEVICE_CLASS(klass)->desc = "an echo on the hypervisor pipe";
    sc->send = hvpipe_echo_send;
    sc->is_busy = hvpipe_echo_is_busy;
}

static const TypeInfo hvpipe_source_types[] = {
    {
        .name = TYPE_SPAPR_HVPIPE_BUS,
        .parent = TYPE_BUS,
        .instance_size = sizeof(BusState),
    }, {
        .name = TYPE_SPAPR_HVPIPE_SOURCE,
        .parent = TYPE_DEVICE,
        .abstract = true,
        .instance_size = sizeof(SpaprHvpipeSource),
        .instance_init = hvpipe_source_init,
        .class_size = sizeof(SpaprHvpipeSourceClass),
        .class_init = hvpipe_source_class_init,
    }, {
        .name = TYPE_SPAPR_HVPIPE_ECHO,
        .parent = TYPE_SPAPR_HVPIPE_SOURCE,
        .class_init = hvpipe_echo_class_init,
    },
};

DEFINE_TYPES(hvpipe_source_types)
