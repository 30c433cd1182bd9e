/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stand-ins for QEMU's services to the hypervisor pipe's device, so that the device's files are compiled unchanged, with
 * GLib only. lab/fuzz_targets.py includes this before all else, and generates the headers that those files include:
 * empty ones, except QEMU's own queue.h and macros of families (trace_..., DEFINE_PROP_...) that do nothing here.
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

#define QEMU_PACKED __attribute__((packed))
#define GiB (1ull << 30)
#define be16_to_cpu __builtin_bswap16
#define be64_to_cpu __builtin_bswap64
#define cpu_to_be16 __builtin_bswap16
#define cpu_to_be32 __builtin_bswap32

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

/* Objects: no classes, an object is the start of its device's structure */
typedef struct Object {
	int unused;
} Object, DeviceState;
typedef struct ObjectClass {
	int unused;
} ObjectClass;
typedef struct VMStateDescription VMStateDescription;
/* A number, a buffer, or a queue of entries that have a description of their own */
typedef struct VMStateField {
	const char *name;
	size_t offset, size;
	bool is_bool;
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
#define VMSTATE_BUFFER(field, type) { VMSTATE_FIELD(field, type) }
#define VMSTATE_QTAILQ_V(field, type, version, description, entry_type, next) \
	{ VMSTATE_FIELD(field, type), .entry = &(description), .entry_size = sizeof(entry_type), \
	  .entry_next = offsetof(entry_type, next) }
#define VMSTATE_END_OF_LIST() { 0 }
/* clang-format on */

typedef struct Property {
	int unused;
} Property;
typedef struct DeviceClass {
	void (*realize)(DeviceState *dev, Error **errp);
	const VMStateDescription *vmsd;
	const char *desc;
	bool user_creatable, hotpluggable;
	unsigned long categories;
} DeviceClass;
typedef struct TypeInfo {
	const char *name, *parent;
	size_t instance_size;
	void (*instance_init)(Object *obj);
	void (*instance_finalize)(Object *obj);
	void (*class_init)(ObjectClass *klass, void *data);
} TypeInfo;

#define TYPE_DEVICE "device"
#define TYPE_SPAPR_MACHINE "spapr-machine"
#define OBJECT_DECLARE_SIMPLE_TYPE(type, NAME) \
	typedef struct type type; \
	static inline type *NAME(void *object) \
	{ \
		return object; \
	}

#define DEFINE_TYPES(types) static const void *const unused_types __attribute__((unused)) = types;

#define DEVICE_CLASS(klass) ((DeviceClass *)(klass))
#define DEVICE_CATEGORY_MISC 0
#define set_bit(bit, word) ((void)(*&(word) |= 1ul << (bit)))
#define device_class_set_props(class, properties) ((void)(properties))
#define object_class_property_add_str(class, name, get, set) ((void)(get), (void)(set))
#define object_class_property_set_description(class, name, text) ((void)0)
#define object_dynamic_cast(object, type) (object)
#define qdev_get_machine() (&fuzz_machine)
#define object_resolve_path_type(path, type, ambiguous) ((void)(type), fuzz_pipe)
#define qdev_add_vm_change_state_handler(dev, handler, opaque) ((void)(handler))
#define qemu_register_reset(handler, opaque) ((void)(handler))
#define vmstate_register(object, id, description, opaque) ((void)(description))

/* The machine and its RTAS */
typedef struct SpaprHvpipe SpaprHvpipe;
typedef struct SpaprMachineState {
	SpaprHvpipe *hvpipe;
} SpaprMachineState;
typedef struct PowerPCCPU PowerPCCPU;
typedef struct SpaprEventLogEntry {
	uint8_t type;
	size_t size;
	uint8_t section[];
} SpaprEventLogEntry;
typedef int qemu_irq;
typedef int RunState;

#define RTAS_OUT_SUCCESS 0
#define RTAS_OUT_NO_ERRORS_FOUND 1
#define RTAS_OUT_BUSY -2
#define RTAS_OUT_PARAM_ERROR -3
#define RTAS_OUT_SYSPARM_PARAM_ERROR -9999
#define RTAS_IBM_SEND_HVPIPE_MSG 0
#define RTAS_IBM_RECEIVE_HVPIPE_MSG 1
#define SPAPR_IRQ_HVPIPE 0
#define RUN_STATE_INMIGRATE 1
#define SPAPR_MACHINE_GET_CLASS(machine) (&(struct { bool legacy_irq_allocation; }) { false })
#define spapr_irq_findone(machine, errp) (0)
#define spapr_irq_claim(machine, irq, lsi, errp) (0)
#define spapr_rtas_register(token, name, call) ((void)(call))
#define spapr_qirq(machine, irq) (irq)
#define runstate_check(state) fuzz_incoming

/* Time stands still */
typedef struct QEMUTimer {
	int unused;
} QEMUTimer;

#define QEMU_CLOCK_VIRTUAL 0
#define SCALE_MS 1000000
/* Nobody else runs: waiting is over at once. */
typedef struct QemuCond {
	int unused;
} QemuCond;

#define qemu_in_vcpu_thread() false
#define qemu_cond_init(cond) ((void)(cond))
#define qemu_cond_destroy(cond) ((void)(cond))
#define qemu_cond_broadcast(cond) ((void)(cond))
#define qemu_cond_timedwait_iothread(cond, ms) ((void)(cond), (void)(ms))
#define timer_new_ns(clock, callback, opaque) ((void)(callback), g_new0(QEMUTimer, 1))
#define timer_mod(timer, when) ((void)(when))
#define qemu_clock_get_ns(clock) 0

/* Memory: some RAM from 0 on, and then nothing */
typedef struct MemoryRegion {
	int unused;
} MemoryRegion;
typedef struct AddressSpace {
	int unused;
} AddressSpace;

#define MEMTXATTRS_UNSPECIFIED 0
#define MEMTX_OK 0
#define RCU_READ_LOCK_GUARD() ((void)0)

/* Character devices */
typedef struct CharBackend {
	void *opaque;
} CharBackend;
typedef enum QEMUChrEvent {
	CHR_EVENT_OPENED,
	CHR_EVENT_CLOSED,
	CHR_EVENT_BREAK,
} QEMUChrEvent;
typedef gboolean (*FEWatchFunc)(void *do_not_use, GIOCondition condition, void *opaque);

#define qemu_chr_fe_backend_connected(chr) ((chr)->opaque != NULL)
#define qemu_chr_fe_set_handlers(chr, can_receive, receive, event, change, opaque, context, open) \
	((void)(can_receive), (void)(receive), (void)(event))

/* The fuzz target's */
extern SpaprMachineState fuzz_machine;
extern SpaprHvpipe *fuzz_pipe;
extern bool fuzz_incoming;
extern AddressSpace address_space_memory;

void error_report(const char *format, ...) G_GNUC_PRINTF(1, 2);
void qemu_irq_pulse(qemu_irq irq);
uint32_t rtas_ld(target_ulong address, int n);
void rtas_st(target_ulong address, int n, uint32_t value);
MemoryRegion *address_space_translate(AddressSpace *as, hwaddr address, hwaddr *xlat, hwaddr *len, bool is_write, int attrs);
bool memory_access_is_direct(MemoryRegion *region, bool is_write);
int address_space_rw(AddressSpace *as, hwaddr address, int attrs, void *buf, hwaddr len, bool is_write);
int qemu_chr_fe_write(CharBackend *chr, const uint8_t *buf, int len);
guint qemu_chr_fe_add_watch(CharBackend *chr, GIOCondition condition, FEWatchFunc callback, void *opaque);
void qemu_chr_fe_disconnect(CharBackend *chr);
void qemu_chr_fe_accept_input(CharBackend *chr);
gboolean fuzz_remove_watch(guint id);

#define g_source_remove fuzz_remove_watch

#endif
