/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stand-ins for QEMU's services to the hypervisor pipe's device, so that the device's files are compiled unchanged,
 * with GLib only. lab/fuzz_targets.py includes this before all else, and generates the headers that those files
 * include: empty ones, except QEMU's own queue.h and macros of families (trace_..., DEFINE_PROP_...) that do nothing
 * here.
 *
 * The stand-ins that do something belong to the fuzz target and are declared at the end.
 */
#ifndef FUZZ_QEMU_H
#define FUZZ_QEMU_H

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/queue.h"

#define QEMU_VERSION_MAJOR 99 /* newer than all: no stand-ins for older ones */
#define QEMU_VERSION_MINOR 0
#define QEMU_PACKED	   __attribute__((packed))
#define GiB		   (1ull << 30)
#define be16_to_cpu	   __builtin_bswap16
#define be64_to_cpu	   __builtin_bswap64
#define cpu_to_be16	   __builtin_bswap16
#define cpu_to_be32	   __builtin_bswap32

typedef uint64_t hwaddr;
typedef uint64_t target_ulong;

/* Errors: kept as text */
typedef struct Error {
	char *text;
} Error;

#define ERRP_GUARD() g_assert(errp)

static inline void G_GNUC_PRINTF(2, 3) error_setg(Error **errp, const char *format, ...)
{
	va_list args;

	g_assert(!*errp);
	*errp = g_new0(Error, 1);
	va_start(args, format);
	(*errp)->text = g_strdup_vprintf(format, args);
	va_end(args);
}

static inline void error_prepend(Error **errp, const char *text)
{
	char *all = g_strconcat(text, (*errp)->text, NULL);

	g_free((*errp)->text);
	(*errp)->text = all;
}

static inline void error_free(Error *error)
{
	g_free(error->text);
	g_free(error);
}

/* util/cutils.c's, for whole strings */
static inline int qemu_strtoi64(const char *text, const char **end, int base, int64_t *result)
{
	char *stop;

	g_assert(!end);
	errno = 0;
	*result = strtoll(text, &stop, base);
	return stop == text || *stop ? -EINVAL : -errno;
}

/* Objects: one is the start of its device's structure, and the fuzz target gives it its class */
typedef struct ObjectClass {
	int unused;
} ObjectClass;
typedef struct BusState BusState;
typedef struct Object {
	ObjectClass *class;
	BusState *parent_bus;
} Object, DeviceState, SysBusDevice;
struct BusState {
	DeviceState *parent;
};
typedef struct VMStateDescription VMStateDescription;
typedef struct VMStateInfo {
	int unused;
} VMStateInfo;
static const VMStateInfo vmstate_info_buffer;
/* A number, a buffer as long as a number before it, a check, or a queue of entries that have their own description */
typedef struct VMStateField {
	const char *name;
	size_t offset, size, size_offset;
	bool is_bool;
	int flags;
	const VMStateInfo *info;
	bool (*field_exists)(void *opaque, int version_id);
	const VMStateDescription *entry;
	size_t entry_size, entry_next;
} VMStateField;
struct VMStateDescription {
	const char *name;
	int version_id, minimum_version_id, priority;
	bool (*needed)(void *opaque);
	int (*pre_load)(void *opaque);
	int (*post_load)(void *opaque, int version_id);
	int (*pre_save)(void *opaque);
	int (*post_save)(void *opaque);
	const VMStateField *fields;
	const VMStateDescription **subsections;
};

/* The versions of clang-format disagree about macros that are initializers. */
/* clang-format off */
#define VMSTATE_FIELD(field, type) .name = #field, .offset = offsetof(type, field), .size = sizeof(((type *)0)->field)
#define VMSTATE_BOOL(field, type) { VMSTATE_FIELD(field, type), .is_bool = true }
#define VMSTATE_UINT8(field, type) { VMSTATE_FIELD(field, type) }
#define VMSTATE_UINT16(field, type) { VMSTATE_FIELD(field, type) }
#define VMSTATE_UINT32(field, type) { VMSTATE_FIELD(field, type) }
#define VMSTATE_UINT64(field, type) { VMSTATE_FIELD(field, type) }
#define VMSTATE_VALIDATE(text, test) { .name = (text), .field_exists = (test) }
#define VMS_VBUFFER 1
#define vmstate_offset_value(state, field, type) offsetof(state, field)
#define VMSTATE_QTAILQ_V(field, type, version, description, entry_type, next) \
	{ VMSTATE_FIELD(field, type), .entry = &(description), .entry_size = sizeof(entry_type), \
	  .entry_next = offsetof(entry_type, next) }
#define VMSTATE_END_OF_LIST() { 0 }
/* clang-format on */

typedef struct Property {
	int unused;
} Property;
typedef void (*DeviceRealize)(DeviceState *dev, Error **errp);
typedef struct DeviceClass {
	ObjectClass parent;
	DeviceRealize realize;
	const VMStateDescription *vmsd;
	const char *desc, *bus_type;
	bool user_creatable, hotpluggable;
	unsigned long categories;
} DeviceClass;
typedef struct TypeInfo {
	const char *name, *parent;
	bool abstract;
	size_t instance_size, class_size;
	void (*instance_init)(Object *obj);
	void (*instance_finalize)(Object *obj);
	void (*class_init)(ObjectClass *klass, const void *data);
} TypeInfo;

#define TYPE_BUS	    "bus"
#define TYPE_DEVICE	    "device"
#define TYPE_SYS_BUS_DEVICE "sys-bus-device"
#define TYPE_SPAPR_MACHINE  "spapr-machine"
#define OBJECT_DECLARE_SIMPLE_TYPE(type, NAME) \
	typedef struct type type;              \
	static inline type *NAME(void *object) \
	{                                      \
		return object;                 \
	}
#define OBJECT_DECLARE_TYPE(type, class_type, NAME)              \
	OBJECT_DECLARE_SIMPLE_TYPE(type, NAME)                   \
	typedef struct class_type class_type;                    \
	static inline class_type *NAME##_CLASS(void *klass)      \
	{                                                        \
		return klass;                                    \
	}                                                        \
	static inline class_type *NAME##_GET_CLASS(void *object) \
	{                                                        \
		return (class_type *)((Object *)object)->class;  \
	}
#define OBJECT(object)	    ((void *)(object))
#define DEFINE_TYPES(types) static const void *const types##_unused __attribute__((unused)) = types;
/* clang-format off */
#define DEFINE_PROP_BOOL(...) { 0 }
#define DEFINE_PROP_CHR(...) { 0 }
#define DEFINE_PROP_INT32(...) { 0 }
#define DEFINE_PROP_UINT32(...) { 0 }
/* clang-format on */
#define OBJ_PROP_FLAG_READ			  0
#define DEVICE_CLASS(klass)			  ((DeviceClass *)(klass))
#define DEVICE_CATEGORY_MISC			  0
#define set_bit(bit, word)			  ((void)(*&(word) |= 1ul << (bit)))
#define device_class_set_props(class, properties) ((void)(properties))
#define device_class_set_parent_realize(class, function, parent) \
	((void)(*(parent) = (class)->realize, (class)->realize = (function)))
#define object_class_property_add_bool(class, name, get, set)	   ((void)(get))
#define object_class_property_add_str(class, name, get, set)	   ((void)(get))
#define object_property_add_uint32_ptr(object, name, value, flags) ((void)(const uint32_t *)(value))
#define object_property_add_uint64_ptr(object, name, value, flags) ((void)(const uint64_t *)(value))
#define object_class_property_set_description(class, name, text)   ((void)0)

#define TYPE_CHARDEV_MUX		  "chardev-mux"
#define object_dynamic_cast(object, type) (strcmp((type), TYPE_CHARDEV_MUX) ? (void *)(object) : NULL)

#define qdev_get_machine()				  (&fuzz_machine)
#define qdev_get_parent_bus(dev)			  ((dev)->parent_bus)
#define qbus_init(bus, size, type, dev, name)		  ((void)((bus)->parent = (dev)))
#define object_resolve_path_type(path, type, ambiguous)	  ((void)(type), fuzz_pipe)
#define qemu_add_vm_change_state_handler(handler, opaque) ((void)(handler))
#define qemu_register_reset(handler, opaque)		  ((void)(handler))

/* The machine and its RTAS */
typedef struct SpaprHvpipe SpaprHvpipe;
typedef struct SpaprMachineState {
	SpaprHvpipe *hvpipe;
} SpaprMachineState;
typedef struct PowerPCCPU {
	void *vhyp;
} PowerPCCPU;
typedef struct PPCVirtualHypervisorClass {
	void (*cpu_exec_enter)(void *vhyp, PowerPCCPU *cpu);
	void (*cpu_exec_exit)(void *vhyp, PowerPCCPU *cpu);
} PPCVirtualHypervisorClass;
typedef struct SpaprEventLogEntry {
	uint8_t type;
	size_t size;
	uint8_t section[];
} SpaprEventLogEntry;
typedef int qemu_irq;
typedef int RunState;

#define tcg_enabled()				 false
#define current_cpu				 NULL
#define POWERPC_CPU(cpu)			 ((PowerPCCPU *)(cpu))
#define PPC_VIRTUAL_HYPERVISOR_GET_CLASS(vhyp)	 ((void)sizeof(vhyp), (PPCVirtualHypervisorClass *)NULL)
#define RTAS_OUT_SUCCESS			 0
#define RTAS_OUT_NO_ERRORS_FOUND		 1
#define RTAS_OUT_HW_ERROR			 -1
#define RTAS_OUT_BUSY				 -2
#define RTAS_OUT_PARAM_ERROR			 -3
#define RTAS_OUT_SYSPARM_PARAM_ERROR		 -9999
#define RTAS_IBM_SEND_HVPIPE_MSG		 0
#define RTAS_IBM_RECEIVE_HVPIPE_MSG		 1
#define SPAPR_IRQ_HVPIPE			 0
#define RUN_STATE_INMIGRATE			 1
#define spapr_irq_claim(machine, irq, lsi, errp) (0)
#define spapr_rtas_register(token, name, call)	 ((void)(call))
#define spapr_qirq(machine, irq)		 (irq)
#define runstate_check(state)			 fuzz_incoming

/* Time stands still; the fuzz target fires timers */
typedef struct QEMUTimer {
	void (*callback)(void *opaque);
	void *opaque;
	bool pending;
} QEMUTimer;

#define QEMU_CLOCK_REALTIME 0
#define QEMU_CLOCK_VIRTUAL  0
#define SCALE_US	    1000
/* Nobody else runs: waiting is over at once. */
typedef struct QemuCond {
	int unused;
} QemuCond;

#define qemu_in_vcpu_thread()		  false
#define qemu_cond_init(cond)		  ((void)(cond))
#define qemu_cond_destroy(cond)		  ((void)(cond))
#define qemu_cond_broadcast(cond)	  ((void)(cond))
#define qemu_cond_timedwait_bql(cond, ms) ((void)(cond), (void)(ms))
#define timer_mod(timer, when)		  ((void)((timer)->pending = (when) >= 0))
#define timer_del(timer)		  ((void)((timer)->pending = false))
#define timer_pending(timer)		  ((timer)->pending)
#define timer_free(timer)		  g_free(timer)
#define qemu_clock_get_ns(clock)	  0
#define qemu_clock_get_ms(clock)	  0

static inline QEMUTimer *timer_new_ns(int clock, void (*callback)(void *opaque), void *opaque)
{
	QEMUTimer *timer = g_new0(QEMUTimer, 1);

	timer->callback = callback;
	timer->opaque = opaque;
	return timer;
}

/* Memory: some RAM from 0 on, and then nothing */
typedef struct MemoryRegion {
	int unused;
} MemoryRegion;
typedef struct AddressSpace {
	int unused;
} AddressSpace;

#define MEMTXATTRS_UNSPECIFIED 0
#define MEMTX_OK	       0
#define RCU_READ_LOCK_GUARD()  ((void)0)

/* Character devices */
typedef struct Chardev Chardev;
typedef struct CharFrontend {
	void *opaque;
} CharFrontend;
typedef enum QEMUChrEvent {
	CHR_EVENT_OPENED,
	CHR_EVENT_CLOSED,
	CHR_EVENT_BREAK,
} QEMUChrEvent;
typedef gboolean (*FEWatchFunc)(void *do_not_use, GIOCondition condition, void *opaque);

#define qemu_chr_fe_get_driver(chr) ((chr)->opaque)
#define qemu_chr_fe_set_handlers(chr, can_receive, receive, event, change, opaque, context, open) \
	((void)(can_receive), (void)(receive), (void)(event))

/* Random numbers that are the same in each run */
#define qemu_guest_getrandom_nofail(buffer, size) ((void)(*(buffer) = ++fuzz_random))

/* The fuzz target's */
extern uint64_t fuzz_random;
extern SpaprMachineState fuzz_machine;
extern SpaprHvpipe *fuzz_pipe;
extern bool fuzz_incoming;
extern AddressSpace address_space_memory;

void error_report(const char *format, ...) G_GNUC_PRINTF(1, 2);
void qemu_irq_pulse(qemu_irq irq);
uint32_t rtas_ld(target_ulong address, int n);
void rtas_st(target_ulong address, int n, uint32_t value);
MemoryRegion *address_space_translate(AddressSpace *as, hwaddr address, hwaddr *xlat, hwaddr *len, bool is_write,
				      int attrs);
bool memory_access_is_direct(MemoryRegion *region, bool is_write, int attrs);
int address_space_rw(AddressSpace *as, hwaddr address, int attrs, void *buf, hwaddr len, bool is_write);
int qemu_chr_fe_write(CharFrontend *chr, const uint8_t *buf, int len);
guint qemu_chr_fe_add_watch(CharFrontend *chr, GIOCondition condition, FEWatchFunc callback, void *opaque);
void qemu_chr_fe_disconnect(CharFrontend *chr);
void qemu_chr_fe_accept_input(CharFrontend *chr);
gboolean fuzz_remove_watch(guint id);

#define g_source_remove fuzz_remove_watch

#endif
