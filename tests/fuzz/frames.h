/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of what one side of the link between hypervisor and HMC writes to the other. */
#ifndef FUZZ_FRAMES_H
#define FUZZ_FRAMES_H

#include "fuzz.h"
#include "spapr_hvpipe_link.h"

/* Whatever is taken for a good header is written as the same bytes. */
static inline bool check_header(const uint8_t *frame, HvpipeLinkSender sender, HvpipeLinkHeader *header)
{
	uint8_t again[HVPIPE_LINK_HEADER_SIZE];

	hvpipe_link_unpack_header(frame, header);
	if (hvpipe_link_check_header(header, sender))
		return false;
	hvpipe_link_pack_header(again, header->type, header->length, header->sequence);
	CHECK(!memcmp(frame, again, sizeof(again)));
	return true;
}

/*
 * A connection's output: good frames, the first of them a STATE or CLOSE, nothing behind a CLOSE, the last perhaps not
 * whole.
 */
static inline void check_output(const uint8_t *out, size_t len, HvpipeLinkSender sender)
{
	const uint8_t *start = out;
	HvpipeLinkHeader header;

	while (len >= HVPIPE_LINK_HEADER_SIZE) {
		CHECK(check_header(out, sender, &header));
		CHECK(out != start || header.type == HVPIPE_LINK_STATE || header.type == HVPIPE_LINK_CLOSE);
		if (len < HVPIPE_LINK_HEADER_SIZE + (size_t)header.length)
			break;
		CHECK(header.type != HVPIPE_LINK_CLOSE || len == HVPIPE_LINK_HEADER_SIZE + (size_t)header.length);
		out += HVPIPE_LINK_HEADER_SIZE + header.length;
		len -= HVPIPE_LINK_HEADER_SIZE + header.length;
	}
}

#endif
