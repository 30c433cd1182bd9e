// SPDX-License-Identifier: LGPL-2.1-or-later
/* Unit tests of the packets between libhvpipe and hvpiped: which are well formed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "hvpipe.h"
#include "protocol.h"

static struct hvpipe_packet packet;

static void make(int type)
{
	memset(&packet, 0, sizeof(packet));
	packet.header = hvpipe_packet_header(type);
}

static void assert_good(int from_client, size_t len)
{
	const char *why = hvpipe_packet_check(&packet, HVPIPE_PACKET_HEADER + len, from_client);

	if (why)
		fail_msg("%s", why);
}

#define assert_bad(from_client, len) \
	assert_non_null(hvpipe_packet_check(&packet, HVPIPE_PACKET_HEADER + (len), from_client))

static void takes_each_type_from_its_side_only(void **state)
{
	static const struct {
		int type, from_client, right;
		size_t len;
	} types[] = {
		{ HVPIPE_PACKET_OPEN, 1, HVPIPE_SEND, 0 },
		{ HVPIPE_PACKET_SEND, 1, 0, 1 },
		{ HVPIPE_PACKET_TAKEN, 1, 0, 0 },
		{ HVPIPE_PACKET_STATE, 1, 0, 0 },
		{ HVPIPE_PACKET_STATUS, 1, 0, 0 },
		{ HVPIPE_PACKET_RESULT, 0, 0, 0 },
		{ HVPIPE_PACKET_MESSAGE, 0, 0, 1 },
		{ HVPIPE_PACKET_LOST, 0, 0, 0 },
		{ HVPIPE_PACKET_OBSERVED, 0, HVPIPE_SEND, 0 },
		{ HVPIPE_PACKET_LINE, 0, 0, 1 },
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		make(types[i].type);
		packet.header.right = types[i].right;
		assert_good(types[i].from_client, types[i].len);
		assert_bad(!types[i].from_client, types[i].len);
	}
}

static void refuses_what_no_type_has(void **state)
{
	make(HVPIPE_PACKET_STATUS);
	assert_non_null(hvpipe_packet_check(&packet, HVPIPE_PACKET_HEADER - 1, 1));
	assert_non_null(hvpipe_packet_check(&packet, 0, 1));
	packet.header.reserved = 1;
	assert_bad(1, 0);
	make(HVPIPE_PACKET_STATUS);
	packet.header.version++;
	assert_bad(1, 0);
	make(0);
	assert_bad(1, 0);
	make(HVPIPE_PACKET_LINE + 1);
	assert_bad(1, 0);
	assert_bad(0, 0);
	make(255);
	assert_bad(0, 0);
}

static void refuses_fields_that_the_type_does_not_have(void **state)
{
	make(HVPIPE_PACKET_STATUS);
	packet.header.number = 1;
	assert_bad(1, 0);
	make(HVPIPE_PACKET_TAKEN);
	packet.header.source = 1;
	assert_bad(1, 0);
	make(HVPIPE_PACKET_SEND);
	packet.header.error = 1;
	assert_bad(1, 1);
	make(HVPIPE_PACKET_SEND);
	packet.header.right = 1;
	assert_bad(1, 1);
}

static void takes_one_right_at_a_time(void **state)
{
	for (int right = 0; right < 256; right++) {
		make(HVPIPE_PACKET_OPEN);
		packet.header.right = right;
		if (right == HVPIPE_RECEIVE || right == HVPIPE_SEND || right == HVPIPE_OBSERVE)
			assert_good(1, 0);
		else
			assert_bad(1, 0);
	}
}

static void bounds_the_data(void **state)
{
	make(HVPIPE_PACKET_SEND);
	assert_bad(1, 0);
	assert_good(1, HVPIPE_MAX_PAYLOAD);
	assert_bad(1, HVPIPE_MAX_PAYLOAD + 1);
	make(HVPIPE_PACKET_MESSAGE);
	assert_bad(0, 0);
	assert_good(0, HVPIPE_MAX_RECEIVE);
	assert_bad(0, HVPIPE_MAX_RECEIVE + 1);
	make(HVPIPE_PACKET_TAKEN);
	assert_bad(1, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_each_type_from_its_side_only),
		cmocka_unit_test(refuses_what_no_type_has),
		cmocka_unit_test(refuses_fields_that_the_type_does_not_have),
		cmocka_unit_test(takes_one_right_at_a_time),
		cmocka_unit_test(bounds_the_data),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
