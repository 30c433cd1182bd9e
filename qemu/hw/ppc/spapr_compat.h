/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What older QEMU releases lack
 *
 * Our devices are written for the newest QEMU. This header includes what has
 * moved between releases, and gives older ones the newest names. It is for
 * trees that are built; the series for QEMU replaces it by the includes of
 * the newest release, the first of each pair below.
 */

#ifndef HW_PPC_SPAPR_COMPAT_H
#define HW_PPC_SPAPR_COMPAT_H

#include "qemu/notify.h"
#include "migration/misc.h"

#define QEMU_AT_LEAST(major, minor) \
    (QEMU_VERSION_MAJOR > (major) || \
     (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

#if QEMU_AT_LEAST(10, 0)
#include "system/cpus.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "system/tcg.h"
#else
#include "sysemu/cpus.h"
#include "sysemu/reset.h"
#include "sysemu/runstate.h"
#include "sysemu/tcg.h"
#endif

#if QEMU_AT_LEAST(10, 1)
#include "system/address-spaces.h"
#include "system/memory.h"
#else
#include "exec/address-spaces.h"
#include "exec/memory.h"
#endif

#if QEMU_AT_LEAST(11, 0)
#include "hw/core/irq.h"
#include "hw/core/qdev-properties.h"
#include "hw/core/qdev-properties-system.h"
#include "hw/core/sysbus.h"
#else
#include "hw/irq.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "hw/sysbus.h"
#endif

#if !QEMU_AT_LEAST(10, 2)
#define CharFrontend CharBackend
#endif

#if !QEMU_AT_LEAST(10, 1)
/* class_init() had no const for its data, which we do not use. */
#pragma GCC diagnostic ignored "-Wincompatible-pointer-types"
#endif

#if !QEMU_AT_LEAST(10, 0)
#define memory_access_is_direct(mr, is_write, attrs) \
    (memory_access_is_direct)(mr, is_write)

/* Lists of properties had an end marker. */
static inline void compat_set_props(DeviceClass *dc, const Property *props,
                                    size_t n)
{
    Property *all = g_new0(Property, n + 1);

    memcpy(all, props, n * sizeof(*props));
    (device_class_set_props)(dc, all);
}
#define device_class_set_props(dc, props) \
    compat_set_props(dc, props, ARRAY_SIZE(props))
#endif

#if !QEMU_AT_LEAST(9, 0)
#define qemu_cond_timedwait_bql qemu_cond_timedwait_iothread
#define migration_is_running() (!migration_is_idle())

/* Notifiers of a migration were called with its state. */
typedef struct MigrationEvent {
    enum { MIG_EVENT_PRECOPY_OTHER, MIG_EVENT_PRECOPY_FAILED } type;
} MigrationEvent;

typedef int (*MigrationNotifyFunc)(NotifierWithReturn *notify,
                                   MigrationEvent *e, Error **errp);

typedef struct CompatNotifier {
    Notifier notifier;
    NotifierWithReturn *notify;
    MigrationNotifyFunc func;
} CompatNotifier;

static inline void compat_migration_notify(Notifier *notifier, void *data)
{
    CompatNotifier *n = container_of(notifier, CompatNotifier, notifier);
    MigrationEvent e = {
        migration_has_failed(data) ? MIG_EVENT_PRECOPY_FAILED :
                                     MIG_EVENT_PRECOPY_OTHER
    };

    n->func(n->notify, &e, NULL);
}

static inline void migration_add_notifier(NotifierWithReturn *notify,
                                          MigrationNotifyFunc func)
{
    CompatNotifier *n = g_new0(CompatNotifier, 1);

    n->notifier.notify = compat_migration_notify;
    n->notify = notify;
    n->func = func;
    add_migration_state_change_notifier(&n->notifier);
}
#endif

/* Machines before pseries-3.1 have interrupt numbers that are not fixed. */
#if QEMU_AT_LEAST(10, 1)
#define spapr_has_fixed_irqs(spapr) true
#define spapr_irq_findone(spapr, errp) (-1)
#else
#define spapr_has_fixed_irqs(spapr) \
    (!SPAPR_MACHINE_GET_CLASS(spapr)->legacy_irq_allocation)
#endif

#endif /* HW_PPC_SPAPR_COMPAT_H */
