/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR partition migration session (VASI)
 *
 * PAPR has a partition take part in its migration: an operator starts a
 * session, which a stream ID names; the partition asks for the session's state
 * by H_VASI_STATE, suspends itself by ibm,suspend-me when it is to, and may
 * cancel by H_VASI_SIGNAL. docs/specs/ppc-spapr-vasi.rst has the rules.
 *
 * Everything here runs under the big QEMU lock.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hw/ppc/spapr.h"
#include "hw/ppc/spapr_vasi.h"
#include "migration/vmstate.h"
#include "spapr_compat.h"
#include "trace.h"

/* The only signal that a partition may send */
#define VASI_SIGNAL_CANCEL      1

/* Statuses of ibm,suspend-me */
#define VASI_SUSPEND_ABORTED    9000
#define VASI_NOT_SUSPENDABLE    -9004

static const char *const vasi_states[] = {
    [H_VASI_INVALID]    = "invalid",
    [H_VASI_ENABLED]    = "enabled",
    [H_VASI_ABORTED]    = "aborted",
    [H_VASI_SUSPENDING] = "suspending",
    [H_VASI_SUSPENDED]  = "suspended",
    [H_VASI_RESUMED]    = "resumed",
    [H_VASI_COMPLETED]  = "completed",
};

struct SpaprVasi {
    uint64_t stream;            /* 0: there was no session yet */
    uint8_t state;              /* H_VASI_* */
    bool arrived;               /* loaded, and not running since */
    target_ulong rets;          /* of the ibm,suspend-me under way, or 0 */
    Notifier suspend;
    Notifier wakeup;
    NotifierWithReturn move;
};

static void vasi_set(SpaprVasi *s, uint8_t state)
{
    s->state = state;
    trace_spapr_vasi_state(s->stream, vasi_states[state]);
}

/* With the partition come all its pages, unless they follow by postcopy. */
static uint8_t vasi_get(SpaprVasi *s)
{
    if (s->state == H_VASI_RESUMED && !migration_in_incoming_postcopy()) {
        vasi_set(s, H_VASI_COMPLETED);
    }
    return s->state;
}

static void vasi_wake(void *opaque)
{
    qemu_system_wakeup_request(QEMU_WAKEUP_REASON_OTHER, NULL);
}

/* The state is one that can be aborted. */
static void vasi_abort(SpaprVasi *s)
{
    bool asleep = s->state == H_VASI_SUSPENDED;

    if (s->rets) {
        rtas_st(s->rets, 0, VASI_SUSPEND_ABORTED);
        s->rets = 0;
    }
    vasi_set(s, H_VASI_ABORTED);
    if (asleep) {
        vasi_wake(NULL);
    }
}

/*
 * The partition
 */

static target_ulong h_vasi_state(PowerPCCPU *cpu, SpaprMachineState *spapr,
                                 target_ulong opcode, target_ulong *args)
{
    SpaprVasi *s = spapr->vasi;

    if (!s->stream) {
        return H_FUNCTION;
    }
    if (args[0] != s->stream) {
        trace_spapr_vasi_poll(args[0], vasi_states[H_VASI_INVALID]);
        return H_PARAMETER;
    }
    args[0] = vasi_get(s);
    trace_spapr_vasi_poll(s->stream, vasi_states[args[0]]);
    return H_SUCCESS;
}

static target_ulong h_vasi_signal(PowerPCCPU *cpu, SpaprMachineState *spapr,
                                  target_ulong opcode, target_ulong *args)
{
    SpaprVasi *s = spapr->vasi;

    trace_spapr_vasi_signal(args[0], args[1], args[2]);
    if (!s->stream) {
        return H_FUNCTION;
    }
    if (args[0] != s->stream) {
        return H_PARAMETER;
    }
    if (args[1] != VASI_SIGNAL_CANCEL) {
        return H_P2;
    }
    switch (s->state) {
    case H_VASI_ENABLED:
    case H_VASI_SUSPENDING:
        vasi_abort(s);
        return H_SUCCESS;
    case H_VASI_ABORTED:
        return H_SUCCESS;
    default:
        return H_PARAMETER;
    }
}

int spapr_vasi_suspend(SpaprVasi *s, target_ulong rets)
{
    int status = RTAS_OUT_SUCCESS;

    switch (s->state) {
    case H_VASI_INVALID:
        break;
    case H_VASI_SUSPENDING:
        s->rets = rets;
        break;
    case H_VASI_ABORTED:
        status = VASI_SUSPEND_ABORTED;
        break;
    default:
        status = VASI_NOT_SUSPENDABLE;
        break;
    }
    trace_spapr_vasi_suspend(s->stream, status);
    return status;
}

/*
 * The machine
 */

static void vasi_suspended(Notifier *notifier, void *data)
{
    SpaprVasi *s = container_of(notifier, SpaprVasi, suspend);

    if (s->state == H_VASI_SUSPENDING) {
        vasi_set(s, H_VASI_SUSPENDED);
    } else if (s->state == H_VASI_ABORTED) {
        /* Between the call and now; it can wake up as soon as it sleeps. */
        aio_bh_schedule_oneshot(qemu_get_aio_context(), vasi_wake, NULL);
    }
}

static void vasi_running(SpaprVasi *s)
{
    if (s->state == H_VASI_SUSPENDED) {
        s->rets = 0;
        vasi_set(s, H_VASI_RESUMED);
    }
}

/* Woken up where it was; also when it is about to leave, running no more. */
static void vasi_woken(Notifier *notifier, void *data)
{
    if (runstate_is_running()) {
        vasi_running(container_of(notifier, SpaprVasi, wakeup));
    }
}

/* The move has failed or was cancelled: the partition goes on where it was. */
static int vasi_moved(NotifierWithReturn *notifier, MigrationEvent *e,
                      Error **errp)
{
    SpaprVasi *s = container_of(notifier, SpaprVasi, move);

    if (e->type == MIG_EVENT_PRECOPY_FAILED && s->state == H_VASI_SUSPENDED) {
        vasi_wake(NULL);
    }
    return 0;
}

/*
 * At the target, or here when it could not leave. From QEMU 9.0 on a partition
 * that sleeps arrives asleep, but by PAPR it wakes up where it arrives.
 */
static void vasi_vm_change_state(void *opaque, bool running, RunState state)
{
    SpaprVasi *s = opaque;

    if (!running) {
        return;
    }
    if (state != RUN_STATE_SUSPENDED) {
        vasi_running(s);
    } else if (s->arrived && s->state == H_VASI_SUSPENDED) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), vasi_wake, NULL);
    }
    s->arrived = false;
}

static int vasi_post_load(void *opaque, int version_id)
{
    SpaprVasi *s = opaque;

    s->rets = 0;
    if (!s->stream || s->state == H_VASI_INVALID ||
        s->state >= ARRAY_SIZE(vasi_states)) {
        error_report("spapr-vasi: migration: stream 0x%" PRIx64 " has state %u",
                     s->stream, s->state);
        s->stream = 0;
        s->state = H_VASI_INVALID;
        return -EINVAL;
    }
    s->arrived = true;
    return 0;
}

static bool vasi_needed(void *opaque)
{
    SpaprVasi *s = opaque;

    return s->stream;
}

static const VMStateDescription vmstate_spapr_vasi = {
    .name = "spapr-vasi",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = vasi_needed,
    .post_load = vasi_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(stream, SpaprVasi),
        VMSTATE_UINT8(state, SpaprVasi),
        VMSTATE_END_OF_LIST()
    },
};

/*
 * The operator
 */

static void vasi_get_stream(Object *obj, Visitor *v, const char *name,
                            void *opaque, Error **errp)
{
    SpaprVasi *s = opaque;

    visit_type_uint64(v, name, &s->stream, errp);
}

static void vasi_set_stream(Object *obj, Visitor *v, const char *name,
                            void *opaque, Error **errp)
{
    SpaprVasi *s = opaque;
    uint64_t stream;

    if (!visit_type_uint64(v, name, &stream, errp)) {
        return;
    }
    if (!stream) {
        error_setg(errp, "vasi-stream: 0 is no stream ID");
        return;
    }
    switch (s->state) {
    case H_VASI_ENABLED:
    case H_VASI_SUSPENDING:
    case H_VASI_SUSPENDED:
        error_setg(errp, "vasi-stream: session 0x%" PRIx64 " is %s: abort it "
                   "or let it end before another one", s->stream,
                   vasi_states[s->state]);
        return;
    }
    s->stream = stream;
    vasi_set(s, H_VASI_ENABLED);
}

static char *vasi_get_state(Object *obj, Error **errp)
{
    return g_strdup(vasi_states[vasi_get(SPAPR_MACHINE(obj)->vasi)]);
}

static void vasi_set_state(Object *obj, const char *state, Error **errp)
{
    SpaprVasi *s = SPAPR_MACHINE(obj)->vasi;
    uint8_t was = vasi_get(s);
    bool suspending = !strcmp(state, vasi_states[H_VASI_SUSPENDING]);

    if (!suspending && strcmp(state, vasi_states[H_VASI_ABORTED])) {
        error_setg(errp, "vasi-state: '%s' is not for an operator to set, "
                   "choose from: suspending aborted", state);
    } else if (suspending ? was != H_VASI_ENABLED :
               was != H_VASI_ENABLED && was != H_VASI_SUSPENDING &&
               was != H_VASI_SUSPENDED) {
        error_setg(errp, "vasi-state: a session that is %s does not become %s",
                   vasi_states[was], state);
    } else if (was == H_VASI_SUSPENDED &&
               !runstate_check(RUN_STATE_SUSPENDED)) {
        error_setg(errp, "vasi-state: too late, the partition does not sleep "
                   "here any more");
    } else if (was == H_VASI_SUSPENDED && migration_is_running()) {
        error_setg(errp, "vasi-state: the partition is being moved: "
                   "migrate_cancel wakes it up");
    } else if (suspending) {
        vasi_set(s, H_VASI_SUSPENDING);
    } else {
        vasi_abort(s);
    }
}

void spapr_vasi_init(SpaprMachineState *spapr)
{
    SpaprVasi *s = g_new0(SpaprVasi, 1);

    spapr->vasi = s;
    spapr_register_hypercall(H_VASI_STATE, h_vasi_state);
    spapr_register_hypercall(H_VASI_SIGNAL, h_vasi_signal);

    s->suspend.notify = vasi_suspended;
    qemu_register_suspend_notifier(&s->suspend);
    s->wakeup.notify = vasi_woken;
    qemu_register_wakeup_notifier(&s->wakeup);
    migration_add_notifier(&s->move, vasi_moved);
    qemu_add_vm_change_state_handler(vasi_vm_change_state, s);
    vmstate_register(NULL, 0, &vmstate_spapr_vasi, s);

    object_property_add(OBJECT(spapr), "vasi-stream", "uint64", vasi_get_stream,
                        vasi_set_stream, NULL, s);
    object_property_set_description(OBJECT(spapr), "vasi-stream", "stream ID "
                                    "of the migration session; setting it "
                                    "starts one");
    object_property_add_str(OBJECT(spapr), "vasi-state", vasi_get_state,
                            vasi_set_state);
    object_property_set_description(OBJECT(spapr), "vasi-state", "state of "
                                    "the migration session; suspending and "
                                    "aborted can be set");
}
