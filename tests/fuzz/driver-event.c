// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The driver's search for its event in an RTAS event log, whose lengths firmware wrote. hvpipe_find_event() is cut out
 * of the driver's source by lab/fuzz_targets.py; the structures are those of the kernel's own rtas.h.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdbool.h>

/* What rtas.h and the function want of the kernel. */
typedef uint8_t u8;
typedef uint32_t u32, __be32;
typedef int32_t s32;
typedef uint64_t u64;
typedef uint16_t __be16;
typedef int64_t time64_t;
typedef int spinlock_t;

#define __KERNEL__
#define __init
#define __noreturn	  __attribute__((noreturn))
#define __aligned(n)	  __attribute__((aligned(n)))
#define __packed	  __attribute__((packed))
#define be16_to_cpu	  __builtin_bswap16
#define be32_to_cpu	  __builtin_bswap32
#define min_t(type, a, b) ((type)(a) < (type)(b) ? (type)(a) : (type)(b))

#include <asm/rtas.h>

#include "hvpipe_find_event.h"

static uint16_t word_at(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct hvpipe_event *event;
	const uint8_t *found, *section;
	size_t end, offset;
	uint8_t *log;

	/* The driver's buffer has 2 KiB; firmware may write less and say more. */
	if (size < sizeof(struct rtas_error_log) || size > RTAS_ERROR_LOG_MAX)
		return 0;
	log = malloc(size);
	memcpy(log, data, size);
	event = hvpipe_find_event(log, size);
	end = 8 + (size_t)(((uint32_t)word_at(data + 4) << 16) | word_at(data + 6));
	end = end < size ? end : size;

	/* Where the first section of the kind is, by a walk of our own; NULL in the driver must mean that there is
	 * none. */
	section = NULL;
	for (offset = 24;
	     offset + 8 <= end && word_at(data + offset + 2) >= 8 && word_at(data + offset + 2) <= end - offset;
	     offset += word_at(data + offset + 2)) {
		if (word_at(data + offset) == 0x5045) {
			section = log + offset;
			break;
		}
	}
	if (data[3] != 0xe6 || end < 24 || (data[10] & 0x0f) != 14 || memcmp(data + 20, "IBM", 4) ||
	    (section && word_at(section + 2) < 8 + 5))
		section = NULL;
	CHECK(!event == !section);
	if (event) {
		found = (const uint8_t *)event;
		CHECK(found == section + 8 && found + sizeof(*event) <= log + end);
		CHECK(be32_to_cpu(event->source) == ((uint32_t)word_at(found) << 16 | word_at(found + 2)));
	}
	free(log);
	return 0;
}
