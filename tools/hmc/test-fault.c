// SPDX-License-Identifier: GPL-2.0-or-later
/* What the faults of an HMC promise: their grammar, when they strike, what is wrong with the bytes they make. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fault.h"

static void expect_print(const char *text, const char *expected)
{
	GError *error = NULL;
	GList *faults = hmc_faults_parse(text, &error);
	char *printed = hmc_faults_print(faults);

	assert_null(error);
	assert_string_equal(printed, expected);
	g_free(printed);
	hmc_faults_free(faults);
}

static void shown_as_understood(void **context)
{
	expect_print("", "");
	expect_print("close", "close,count=1,every=1");
	expect_print("gap,count=0", "gap,count=0,every=1");
	expect_print("stall,every=3,ms=20", "stall,count=1,every=3,ms=20");
	expect_print("version,frame=state;no-state,count=2",
		     "version,frame=state,count=1,every=1;no-state,count=2,every=1");
}

static void kinds_have_names(void **context)
{
	for (int kind = 0; kind < HMC_FAULT_KINDS; kind++) {
		GList *faults = hmc_faults_parse(hmc_fault_name(kind), NULL);

		assert_non_null(faults);
		assert_int_equal(((struct hmc_fault *)faults->data)->kind, kind);
		hmc_faults_free(faults);
	}
}

static void mistake_named(void **context)
{
	static const struct {
		const char *text, *mistake, *choices;
	} mistakes[] = {
		{ "cloze", "fault 'cloze' is not known", "close, stall, cut, random, version, " },
		{ "close;", "fault '' is not known", "close, stall" },
		{ ",count=1", "fault '' is not known", "close, stall" },
		{ "close,cuont=1", "'close' does not know 'cuont=1'", "frame=NAME, count=N, every=N" },
		{ "close,count", "'close' does not know 'count'", "count=N" },
		{ "close,", "'close' does not know ''", "count=N" },
		{ "close,count=", "'count=' in 'close'", "from 0 to" },
		{ "close,count=-1", "'count=-1' in 'close'", "from 0 to" },
		{ "close,count=2147483648", "'count=2147483648' in 'close'", "to 2147483647" },
		{ "stall,every=0", "'every=0' in 'stall'", "from 1 to" },
		{ "stall,ms=1s", "'ms=1s' in 'stall'", "from 0 to" },
		{ "gap,ms=1", "'ms=1' in 'gap'", "only a stall takes time" },
		{ "gap,frame=hello", "'frame=hello' in 'gap'", "message, ack, nack, state" },
		{ "gap,frame=state", "'frame=state' in 'gap'", "cannot strike there" },
		{ "session,frame=ack", "'frame=ack' in 'session'", "cannot strike there" },
		{ "stall,foo=1", "'stall' does not know 'foo=1'", "ms=N" },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(mistakes); i++) {
		GError *error = NULL;

		assert_null(hmc_faults_parse(mistakes[i].text, &error));
		assert_non_null(error);
		if (!strstr(error->message, mistakes[i].mistake) || !strstr(error->message, mistakes[i].choices))
			fail_msg("%s: %s", mistakes[i].text, error->message);
		g_error_free(error);
	}
}

/* Which of N frames of a type are struck, as "0010...". */
static void expect_strikes(const char *text, HvpipeLinkType type, const char *expected)
{
	GList *faults = hmc_faults_parse(text, NULL);
	struct hmc_fault fault;

	for (size_t i = 0; expected[i]; i++)
		assert_int_equal(hmc_faults_strike(&faults, type, &fault), expected[i] - '0');
	hmc_faults_free(faults);
}

static void strikes_as_told(void **context)
{
	expect_strikes("close", HVPIPE_LINK_ACK, "1000");
	expect_strikes("close", HVPIPE_LINK_STATE, "0000");
	expect_strikes("close,count=3", HVPIPE_LINK_NACK, "11100");
	expect_strikes("close,count=0", HVPIPE_LINK_MESSAGE, "11111111");
	expect_strikes("close,count=2,every=3", HVPIPE_LINK_MESSAGE, "0010010000");
	expect_strikes("no-state", HVPIPE_LINK_MESSAGE, "000");
	expect_strikes("no-state", HVPIPE_LINK_STATE, "100");
	expect_strikes("random,frame=nack", HVPIPE_LINK_ACK, "000");
	expect_strikes("random,frame=nack", HVPIPE_LINK_NACK, "100");
	expect_strikes("close;cut", HVPIPE_LINK_ACK, "1100");
}

/* What a hypervisor that has seen the STATE says of the header; NULL: it takes it. */
static const char *judge(const uint8_t *frame, uint64_t expected, uint64_t last_sent)
{
	HvpipeLinkHeader h;
	HvpipeLinkHmcState s;
	const char *wrong;

	hvpipe_link_unpack_header(frame, &h);
	wrong = hvpipe_link_check_header(&h, HVPIPE_LINK_FROM_HMC);
	if (wrong)
		return wrong;
	if (h.type == HVPIPE_LINK_STATE)
		return hvpipe_link_unpack_hmc_state(frame + HVPIPE_LINK_HEADER_SIZE, &s) ?: "a second STATE";
	if (h.type == HVPIPE_LINK_MESSAGE)
		return hvpipe_link_order(h.sequence, expected) == HVPIPE_LINK_GAP ? "a gap" : NULL;
	return hvpipe_link_ack_valid(h.sequence, last_sent) ? NULL : "never sent";
}

static void corrupts_as_named(void **context)
{
	static const char *const faults[HMC_FAULT_KINDS] = {
		[HMC_FAULT_VERSION] = "unknown version",
		[HMC_FAULT_TYPE] = "unknown type",
		[HMC_FAULT_LENGTH] = "length out of range for the type",
		[HMC_FAULT_RESERVED] = "reserved field not zero",
		[HMC_FAULT_SEQUENCE] = "sequence",
		[HMC_FAULT_GAP] = "a gap",
		[HMC_FAULT_ACK] = "never sent",
		[HMC_FAULT_SECOND_STATE] = "a second STATE",
		[HMC_FAULT_NO_STATE] = "never sent",
		[HMC_FAULT_SESSION] = "session zero",
		[HMC_FAULT_RANDOM] = "unknown version",
	};
	/* Taken 7, which may not be known there, and 8 under way; 5 is the last of ours, and may have arrived. */
	const HvpipeLinkHmcState state = { .offer = HVPIPE_LINK_OFFER, .session = 1, .taken = 7, .first = 4 };
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];

	for (int kind = 0; kind < HMC_FAULT_KINDS; kind++) {
		for (HvpipeLinkType type = HVPIPE_LINK_MESSAGE; type <= HVPIPE_LINK_STATE; type++) {
			size_t size = HVPIPE_LINK_HEADER_SIZE;
			const char *wrong;

			if (!faults[kind] || (kind == HMC_FAULT_SESSION && type != HVPIPE_LINK_STATE))
				continue;
			hvpipe_link_pack_header(frame, type, type == HVPIPE_LINK_MESSAGE ? 5 : 0, 5);
			memcpy(frame + HVPIPE_LINK_HEADER_SIZE, "hello", 5);
			if (type == HVPIPE_LINK_MESSAGE)
				size += 5;
			else if (type == HVPIPE_LINK_STATE)
				size = hvpipe_link_pack_hmc_state(frame, &state);
			size = hmc_fault_corrupt(kind, frame, size, &state, 5);
			assert_in_range(size, HVPIPE_LINK_HEADER_SIZE, sizeof(frame));
			wrong = judge(frame, 6, 8);
			if (!wrong || !strstr(wrong, faults[kind]))
				fail_msg("%s in place of a %s: %s", hmc_fault_name(kind), hvpipe_link_type_name(type),
					 wrong);
		}
	}
}

static void cut_and_close(void **context)
{
	const HvpipeLinkHmcState state = { .offer = HVPIPE_LINK_OFFER, .session = 1, .first = 1 };
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];

	hvpipe_link_pack_header(frame, HVPIPE_LINK_ACK, 0, 1);
	assert_int_equal(hmc_fault_corrupt(HMC_FAULT_CLOSE, frame, HVPIPE_LINK_HEADER_SIZE, &state, 0), 0);
	assert_int_equal(hmc_fault_corrupt(HMC_FAULT_CUT, frame, HVPIPE_LINK_HEADER_SIZE, &state, 0), 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shown_as_understood), cmocka_unit_test(kinds_have_names),
		cmocka_unit_test(mistake_named),       cmocka_unit_test(strikes_as_told),
		cmocka_unit_test(corrupts_as_named),   cmocka_unit_test(cut_and_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
