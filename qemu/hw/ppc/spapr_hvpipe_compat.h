/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): what older QEMU releases lack
 *
 * The device is written for the newest QEMU. This header includes what has
 * moved between releases, and gives older ones the newest names. It is for
 * the tree that is built out of tree; the series for QEMU replaces it by the
 * includes of the newest release.
 */

#ifndef HW_PPC_SPAPR_HVPIPE_COMPAT_H
#define HW_PPC_SPAPR_HVPIPE_COMPAT_H

#define QEMU_AT_LEAST(major, minor) \
    (QEMU_VERSION_MAJOR > (major) || \
     (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

#if QEMU_AT_LEAST(10, 0)
#include "system/address-spaces.h"
#include "system/cpus.h"
#include "system/reset.h"
#include "system/runstate.h"
#else
#include "exec/address-spaces.h"
#include "sysemu/cpus.h"
#include "sysemu/reset.h"
#include "sysemu/runstate.h"
#endif

#if QEMU_AT_LEAST(10, 1)
#include "system/memory.h"
#else
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
static inline void hvpipe_set_props(DeviceClass *dc, const Property *props,
                                    size_t n)
{
    Property *all = g_new0(Property, n + 1);

    memcpy(all, props, n * sizeof(*props));
    (device_class_set_props)(dc, all);
}
#define device_class_set_props(dc, props) \
    hvpipe_set_props(dc, props, ARRAY_SIZE(props))
#endif

#if !QEMU_AT_LEAST(9, 0)
#define qemu_cond_timedwait_bql qemu_cond_timedwait_iothread
#endif

/* Machines before pseries-3.1 have interrupt numbers that are not fixed. */
#if QEMU_AT_LEAST(10, 1)
#define spapr_has_fixed_irqs(spapr) true
#define spapr_irq_findone(spapr, errp) (-1)
#else
#define spapr_has_fixed_irqs(spapr) \
    (!SPAPR_MACHINE_GET_CLASS(spapr)->legacy_irq_allocation)
#endif

#endif /* HW_PPC_SPAPR_HVPIPE_COMPAT_H */
