// SPDX-License-Identifier: LGPL-2.1-or-later
/* The packets between libhvpipe and hvpiped: which are well formed. */
#include "protocol.h"

#include "hvpipe.h"

_Static_assert(sizeof(struct hvpipe_packet_header) == 16, "the header has no holes");

enum { NUMBER = 1, SOURCE = 2, ERROR = 4, RIGHT = 8 };

/* The rules of each type: its sender, the fields that may be other than 0, and the length of its data. */
static const struct rule {
	int from_client;
	int fields;
	size_t min, max;
} rules[] = {
	[HVPIPE_PACKET_OPEN] = { 1, SOURCE | RIGHT, 0, 0 },
	[HVPIPE_PACKET_SEND] = { 1, NUMBER, 1, HVPIPE_MAX_PAYLOAD },
	[HVPIPE_PACKET_TAKEN] = { 1, NUMBER, 0, 0 },
	[HVPIPE_PACKET_STATE] = { 1, NUMBER, 0, 0 },
	[HVPIPE_PACKET_STATUS] = { 1, 0, 0, 0 },
	[HVPIPE_PACKET_RESULT] = { 0, NUMBER | ERROR, 0, HVPIPE_PACKET_DATA },
	[HVPIPE_PACKET_MESSAGE] = { 0, NUMBER | SOURCE, 1, HVPIPE_MAX_RECEIVE },
	[HVPIPE_PACKET_LOST] = { 0, SOURCE, 0, 0 },
	[HVPIPE_PACKET_OBSERVED] = { 0, NUMBER | SOURCE | ERROR | RIGHT, 0, HVPIPE_MAX_RECEIVE },
	[HVPIPE_PACKET_LINE] = { 0, 0, 1, HVPIPE_PACKET_DATA },
};

struct hvpipe_packet_header hvpipe_packet_header(enum hvpipe_packet_type type)
{
	return (struct hvpipe_packet_header){ .version = HVPIPE_PROTOCOL_VERSION, .type = type };
}

static int is_one_right(int right)
{
	return right == HVPIPE_RECEIVE || right == HVPIPE_SEND || right == HVPIPE_OBSERVE;
}

const char *hvpipe_packet_check(const struct hvpipe_packet *packet, size_t len, int from_client)
{
	const struct hvpipe_packet_header *header = &packet->header;
	const struct rule *rule;

	if (len < HVPIPE_PACKET_HEADER)
		return "shorter than a header";
	if (header->version != HVPIPE_PROTOCOL_VERSION)
		return "another version of the protocol";
	if (header->type == 0 || header->type >= sizeof(rules) / sizeof(rules[0]))
		return "unknown type";
	rule = &rules[header->type];
	if (!rule->from_client != !from_client)
		return "a type that only the other side sends";
	if (header->reserved)
		return "the reserved byte is not 0";
	if ((header->number && !(rule->fields & NUMBER)) || (header->source && !(rule->fields & SOURCE)) ||
	    (header->error && !(rule->fields & ERROR)) || (header->right && !(rule->fields & RIGHT)))
		return "a field that this type does not have is not 0";
	if ((rule->fields & RIGHT) && !is_one_right(header->right))
		return "not one of the rights receive, send, observe";
	len -= HVPIPE_PACKET_HEADER;
	if (len < rule->min)
		return "too little data";
	if (len > rule->max)
		return "too much data";
	return NULL;
}
