/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM papr_hvpipe

#if !defined(_TRACE_PAPR_HVPIPE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_PAPR_HVPIPE_H

#include <linux/tracepoint.h>

/* The hypervisor told of a message or of a lost connection. */
TRACE_EVENT(papr_hvpipe_event,
	TP_PROTO(u32 source, u8 type),
	TP_ARGS(source, type),
	TP_STRUCT__entry(
		__field(u32, source)
		__field(u8, type)
	),
	TP_fast_assign(
		__entry->source = source;
		__entry->type = type;
	),
	TP_printk("source=0x%08x type=0x%02x", __entry->source, __entry->type)
);

/* A message went to nobody: its source has no handle, or its handle closed. */
TRACE_EVENT(papr_hvpipe_drop,
	TP_PROTO(u32 source, u32 len),
	TP_ARGS(source, len),
	TP_STRUCT__entry(
		__field(u32, source)
		__field(u32, len)
	),
	TP_fast_assign(
		__entry->source = source;
		__entry->len = len;
	),
	TP_printk("source=0x%08x len=%u", __entry->source, __entry->len)
);

/* A send that its killed caller abandoned stayed busy for too long. */
TRACE_EVENT(papr_hvpipe_give_up,
	TP_PROTO(u32 source),
	TP_ARGS(source),
	TP_STRUCT__entry(
		__field(u32, source)
	),
	TP_fast_assign(
		__entry->source = source;
	),
	TP_printk("source=0x%08x", __entry->source)
);

#endif /* _TRACE_PAPR_HVPIPE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH ../../arch/powerpc/platforms/pseries
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE papr-hvpipe-trace
#include <trace/define_trace.h>
