/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): a partition talks to its HMC
 *
 * One spapr-hvpipe gives the partition its pipe (PAPR+ 7.3.32): two RTAS
 * calls, a system parameter and an event source. Sources are on its bus.
 * docs/specs/ppc-spapr-hvpipe.rst has all the rules;
 * spapr_hvpipe_internal.h has the files and the invariants.
 *
 * A send that is answered busy makes its source and its list of buffers the
 * caller. The same call again is the retry; the message that it would send
 * does not matter. Any other send, a reset and system parameter 64 forget the
 * caller, and then the answer goes to nobody.
 */

#include "qemu/osdep.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "spapr_hvpipe_internal.h"
#include "trace.h"

#define HVPIPE_BUFFER_SIZE      4096    /* of a buffer, of a buffer list */

/* A send returns when the HMC answers, or after this time to be polled on */
#define HVPIPE_ANSWER_MS        1

/* The payload limits of IBM's letters, and of IBM's code */
#define HVPIPE_LIMIT_LETTERS    4088
#define HVPIPE_LIMIT_CODE       4048

/* The machine's pipe, NULL if it has none, or more than one */
static SpaprHvpipe *hvpipe_find(void)
{
    return (SpaprHvpipe *)object_resolve_path_type("", TYPE_SPAPR_HVPIPE, NULL);
}

SpaprHvpipeSource *hvpipe_find_source(SpaprHvpipe *s, uint32_t id)
{
    return g_hash_table_lookup(s->sources, GUINT_TO_POINTER(id));
}

/*
 * Memory of the partition
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

        if (!part ||
            !memory_access_is_direct(mr, is_write, MEMTXATTRS_UNSPECIFIED)) {
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
static uint32_t hvpipe_read_list(SpaprHvpipe *s, uint64_t addr,
                                 uint8_t *payload)
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
        if (used > HVPIPE_BUFFER_SIZE || size + used > s->payload_limit ||
            !hvpipe_rw(be64_to_cpu(list[i]), payload + size, used, false)) {
            return 0;
        }
        size += used;
    }
    return size;
}

/*
 * The calls of the partition
 */

void hvpipe_forget_caller(SpaprHvpipe *s)
{
    SpaprHvpipeSource *source = s->caller.source;

    s->caller = (HvpipeCaller) {};
    if (source && SPAPR_HVPIPE_SOURCE_GET_CLASS(source)->abandon) {
        SPAPR_HVPIPE_SOURCE_GET_CLASS(source)->abandon(source);
    }
}

/*
 * Wait for the answer to the caller's send. Its processor does not run
 * meanwhile, and the dispatch counter says so: the others do not spin on a lock
 * that it holds, but leave the host to the HMC. KVM counts by itself.
 */
static void hvpipe_await_answer(SpaprHvpipe *s, PowerPCCPU *cpu)
{
    PPCVirtualHypervisorClass *vhc =
        PPC_VIRTUAL_HYPERVISOR_GET_CLASS(cpu->vhyp);

    if (tcg_enabled()) {
        vhc->cpu_exec_exit(cpu->vhyp, cpu);
    }
    qemu_cond_timedwait_bql(&s->answered, HVPIPE_ANSWER_MS);
    if (tcg_enabled()) {
        vhc->cpu_exec_enter(cpu->vhyp, cpu);
    }
}

static int hvpipe_send_or_retry(SpaprHvpipe *s, uint32_t id, uint32_t list,
                                uint8_t *payload, uint32_t *size)
{
    SpaprHvpipeSource *source = hvpipe_find_source(s, id), *busy;
    SpaprHvpipeSourceClass *sc;
    uint64_t call;
    int status;

    busy = s->caller.source;
    if (!busy || busy != source || s->caller.list != list) {
        if (busy && s->refuse_second_send &&
            SPAPR_HVPIPE_SOURCE_GET_CLASS(busy)->is_busy(busy)) {
            return RTAS_OUT_HW_ERROR;
        }
        hvpipe_forget_caller(s);
        s->nr_calls++;
    }
    *size = hvpipe_read_list(s, list, payload);
    if (!source || !*size) {
        hvpipe_forget_caller(s);
        return RTAS_OUT_PARAM_ERROR;
    }

    s->caller = (HvpipeCaller) { source, id, list };
    call = s->nr_calls;
    sc = SPAPR_HVPIPE_SOURCE_GET_CLASS(source);
    status = sc->send(source, payload, *size);
    /*
     * Most answers come within the time of a few polls, each of which keeps
     * the main loop from reading them. So the first poll is ours.
     */
    if (status == RTAS_OUT_BUSY && qemu_in_vcpu_thread()) {
        hvpipe_await_answer(s, POWERPC_CPU(current_cpu));
        if (call != s->nr_calls || !s->caller.source) {
            /* Another processor has called meanwhile: we are forgotten. */
            return HVPIPE_BUSY_1MS;
        }
        status = sc->send(source, payload, *size);
    }

    if (status == RTAS_OUT_BUSY || status == HVPIPE_BUSY_1MS) {
        source->nr_busy++;
    } else {
        hvpipe_forget_caller(s);
        source->nr_sent += status == RTAS_OUT_SUCCESS;
        source->nr_closed += status == HVPIPE_PIPE_CLOSED;
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
    HvpipeFault fault;
    uint32_t id = 0, size = 0;
    int status;

    s->nr_sends++;
    if (nargs != 2 || nret != 1) {
        status = RTAS_OUT_PARAM_ERROR;
    } else if (hvpipe_fault(s, HVPIPE_FAULT_SEND, 0, &fault)) {
        status = fault.value[HVPIPE_FAULT_STATUS];
    } else if (!s->enabled) {
        status = HVPIPE_NOT_AVAILABLE;
    } else {
        id = rtas_ld(args, 0);
        status = hvpipe_send_or_retry(s, id, rtas_ld(args, 1), payload, &size);
    }
    trace_spapr_hvpipe_send(id, size, status);
    rtas_st(rets, 0, status);
}

/* The partition has the message at the head of the queue. */
static void hvpipe_received(SpaprHvpipe *s, HvpipeEntry *head)
{
    SpaprHvpipeSource *source = head->source;
    SpaprHvpipeSourceClass *sc = SPAPR_HVPIPE_SOURCE_GET_CLASS(source);
    uint64_t sequence = head->sequence;

    source->nr_received++;
    hvpipe_dequeue(s);
    if (sc->acknowledge) {
        sc->acknowledge(source, sequence);
    }
}

static void rtas_ibm_receive_hvpipe_msg(PowerPCCPU *cpu,
                                        SpaprMachineState *spapr,
                                        uint32_t token, uint32_t nargs,
                                        target_ulong args, uint32_t nret,
                                        target_ulong rets)
{
    SpaprHvpipe *s = spapr->hvpipe;
    HvpipeEntry *head = QTAILQ_FIRST(&s->queue);
    HvpipeFault fault;
    uint32_t addr, room, id = 0, size = 0;
    int status = RTAS_OUT_SUCCESS;

    s->nr_receives++;
    if (nargs != 2 || nret != 3) {
        rtas_st(rets, 0, RTAS_OUT_PARAM_ERROR);
        return;
    }

    addr = rtas_ld(args, 0);
    room = rtas_ld(args, 1);
    if (hvpipe_fault(s, HVPIPE_FAULT_RECEIVE, FAULT_KEY(STATUS), &fault)) {
        status = fault.value[HVPIPE_FAULT_STATUS];
    } else if (!s->enabled) {
        status = HVPIPE_NOT_AVAILABLE;
    } else if (!hvpipe_is_ram(addr, room, true)) {
        status = RTAS_OUT_PARAM_ERROR;
    } else if (!head || head->type != HVPIPE_EVENT_MESSAGE) {
        status = s->empty_receive;
    } else if (room < head->size ||
               !hvpipe_rw(addr, head->payload, head->size, true)) {
        status = RTAS_OUT_PARAM_ERROR;
    } else {
        id = head->source_id;
        size = head->size;
        hvpipe_received(s, head);
        if (hvpipe_fault(s, HVPIPE_FAULT_RECEIVE,
                         FAULT_KEY(SOURCE) | FAULT_KEY(LENGTH), &fault)) {
            if (fault.given & FAULT_KEY(SOURCE)) {
                id = fault.value[HVPIPE_FAULT_SOURCE];
            }
            if (fault.given & FAULT_KEY(LENGTH)) {
                size = fault.value[HVPIPE_FAULT_LENGTH];
            }
        }
    }
    trace_spapr_hvpipe_receive(id, size, status);
    rtas_st(rets, 0, status);
    rtas_st(rets, 1, id);
    rtas_st(rets, 2, size);
}

/* A fault: nothing is known here of what was queued and announced before. */
static void hvpipe_renew(SpaprHvpipe *s)
{
    HvpipeEntry *head;
    uint32_t n;

    s->withheld = false;
    for (n = s->nr_queued; n; n--) {
        head = QTAILQ_FIRST(&s->queue);
        if (head->type == HVPIPE_EVENT_MESSAGE) {
            hvpipe_received(s, head);
        } else {
            hvpipe_dequeue(s);
        }
    }
}

static void hvpipe_set_enabled(SpaprHvpipe *s, bool enabled)
{
    trace_spapr_hvpipe_enable(enabled);
    hvpipe_forget_caller(s);
    hvpipe_queue_disable(s);
    if (enabled) {
        hvpipe_queue_enable(s);
    }
}

/* Tell the sources that the pipe was enabled or disabled, or has booted. */
static void hvpipe_changed(SpaprHvpipe *s)
{
    SpaprHvpipeSource *source;
    GHashTableIter iter;

    g_hash_table_iter_init(&iter, s->sources);
    while (g_hash_table_iter_next(&iter, NULL, (gpointer *)&source)) {
        SpaprHvpipeSourceClass *sc = SPAPR_HVPIPE_SOURCE_GET_CLASS(source);

        if (sc->pipe_changed) {
            sc->pipe_changed(source);
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
    bool changed;

    if (hvpipe_fault(s, HVPIPE_FAULT_SET_SYSTEM_PARAMETER, 0, &fault)) {
        if (fault.given & FAULT_KEY(STATUS)) {
            return fault.value[HVPIPE_FAULT_STATUS];
        }
        hvpipe_renew(s);
    }
    if (!hvpipe_rw(buffer, &parameter, sizeof(parameter), false) ||
        be16_to_cpu(parameter.length) != 1 || parameter.value > 1) {
        return RTAS_OUT_SYSPARM_PARAM_ERROR;
    }
    changed = s->enabled != parameter.value;
    hvpipe_set_enabled(s, parameter.value);
    if (changed) {
        hvpipe_changed(s);
    }
    return RTAS_OUT_SUCCESS;
}

/*
 * The device
 */

/* The queue and the sessions stay: no message of an HMC is lost by a reset. */
static void hvpipe_reset(void *opaque)
{
    SpaprHvpipe *s = opaque;
    uint64_t last = s->epoch;

    do {
        qemu_guest_getrandom_nofail(&s->epoch, sizeof(s->epoch));
        /* Not above 2^63: QMP's clients read the property as an int. */
        s->epoch >>= 1;
    } while (!s->epoch || s->epoch == last);
    hvpipe_set_enabled(s, false);
    hvpipe_changed(s);
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
        SpaprHvpipeSourceClass *sc = SPAPR_HVPIPE_SOURCE_GET_CLASS(source);

        if (sc->run) {
            sc->run(source);
        }
    }
    /* A delay may have been under way where the machine comes from. */
    hvpipe_announce(s);
}

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

static bool hvpipe_get_enabled(Object *obj, Error **errp)
{
    return SPAPR_HVPIPE(obj)->enabled;
}

static bool hvpipe_get_announced(Object *obj, Error **errp)
{
    return SPAPR_HVPIPE(obj)->announced;
}

static bool hvpipe_check_personality(SpaprHvpipe *s, Error **errp)
{
    if (s->strict) {
        s->announce_again = false;
        s->empty_receive = RTAS_OUT_PARAM_ERROR;
        s->payload_limit = HVPIPE_LIMIT_CODE;
        s->announce_delay_us = 0;
        s->refuse_second_send = true;
    }
    if (s->empty_receive != RTAS_OUT_SUCCESS &&
        s->empty_receive != RTAS_OUT_HW_ERROR &&
        s->empty_receive != RTAS_OUT_PARAM_ERROR) {
        error_setg(errp, "empty-receive %d is not 0, -1 or -3",
                   s->empty_receive);
        return false;
    }
    if (s->payload_limit != HVPIPE_LIMIT_LETTERS &&
        s->payload_limit != HVPIPE_LIMIT_CODE) {
        error_setg(errp, "payload-limit %u is not %d or %d", s->payload_limit,
                   HVPIPE_LIMIT_LETTERS, HVPIPE_LIMIT_CODE);
        return false;
    }
    return true;
}

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
    if (!hvpipe_check_personality(s, errp)) {
        return;
    }
    if (!spapr_has_fixed_irqs(spapr)) {
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
    s->announce_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, hvpipe_announce_late,
                                     s);
    qemu_cond_init(&s->answered);
    qbus_init(&s->bus, sizeof(s->bus), TYPE_SPAPR_HVPIPE_BUS, dev, NULL);
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
    qemu_add_vm_change_state_handler(hvpipe_vm_change_state, s);
}

static void hvpipe_init(Object *obj)
{
    SpaprHvpipe *s = SPAPR_HVPIPE(obj);

    QTAILQ_INIT(&s->queue);
    hvpipe_stream_init(&s->stream);
    s->sources = g_hash_table_new(NULL, NULL);
    object_property_add_uint64_ptr(obj, "epoch", &s->epoch, OBJ_PROP_FLAG_READ);
    object_property_add_uint32_ptr(obj, "queued", &s->nr_queued,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "events", &s->nr_events,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "sends", &s->nr_sends,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "receives", &s->nr_receives,
                                   OBJ_PROP_FLAG_READ);
}

static void hvpipe_finalize(Object *obj)
{
    SpaprHvpipe *s = SPAPR_HVPIPE(obj);

    hvpipe_faults_free(s->faults);
    hvpipe_queue_free(&s->queue);
    hvpipe_stream_free(&s->stream);
    timer_free(s->raise_timer);
    timer_free(s->announce_timer);
    g_hash_table_unref(s->sources);
}

static const Property hvpipe_properties[] = {
    DEFINE_PROP_BOOL("capable", SpaprHvpipe, capable, true),
    DEFINE_PROP_BOOL("announce-again", SpaprHvpipe, announce_again, true),
    DEFINE_PROP_INT32("empty-receive", SpaprHvpipe, empty_receive,
                      RTAS_OUT_SUCCESS),
    DEFINE_PROP_UINT32("payload-limit", SpaprHvpipe, payload_limit,
                       HVPIPE_LIMIT_LETTERS),
    DEFINE_PROP_UINT32("announce-delay-us", SpaprHvpipe, announce_delay_us, 0),
    DEFINE_PROP_BOOL("refuse-second-send", SpaprHvpipe, refuse_second_send,
                     false),
    DEFINE_PROP_BOOL("strict", SpaprHvpipe, strict, false),
};

static void hvpipe_class_init(ObjectClass *klass, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->realize = hvpipe_realize;
    dc->vmsd = &vmstate_spapr_hvpipe;
    dc->desc = "hypervisor pipe of the partition";
    dc->user_creatable = true;
    dc->hotpluggable = false;   /* the device tree tells of it at boot */
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, hvpipe_properties);
    object_class_property_add_str(klass, "inject", hvpipe_get_inject,
                                  hvpipe_set_inject);
    object_class_property_set_description(klass, "inject", "faults to inject, "
                                          "TARGET:WORD[,WORD...][;...]");
    object_class_property_add_bool(klass, "enabled", hvpipe_get_enabled, NULL);
    object_class_property_add_bool(klass, "announced", hvpipe_get_announced,
                                   NULL);
}

static const TypeInfo hvpipe_types[] = {
    {
        .name = TYPE_SPAPR_HVPIPE,
        .parent = TYPE_SYS_BUS_DEVICE,
        .instance_size = sizeof(SpaprHvpipe),
        .instance_init = hvpipe_init,
        .instance_finalize = hvpipe_finalize,
        .class_init = hvpipe_class_init,
    },
};

DEFINE_TYPES(hvpipe_types)
