// SPDX-License-Identifier: GPL-2.0-or-later
/* The grammar of the faults that the hypervisor's device injects: any text is faults or an error, and prints as itself.
 */
#include "fuzz.h"
#include "spapr_hvpipe_fault.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	g_autofree char *text = g_strndup((const char *)data, size);
	Error *error = NULL;
	GSList *faults = hvpipe_faults_parse(text, &error), *again;
	HvpipeFault strike;

	CHECK(!faults || !error);
	CHECK(faults || error || !*text);
	if (error) {
		CHECK(*error->text);
		error_free(error);
		return 0;
	}

	g_autofree char *printed = hvpipe_faults_print(faults);

	again = hvpipe_faults_parse(printed, &error);
	CHECK(!error);

	g_autofree char *twice = hvpipe_faults_print(again);

	CHECK(!strcmp(printed, twice));
	hvpipe_faults_free(again);

	/* What strikes was asked for, and has an end unless it was to have none. */
	for (int target = 0; target < HVPIPE_FAULT_TARGETS; target++) {
		for (int n = 0; n < 8 && hvpipe_faults_any(faults, target); n++) {
			if (!hvpipe_faults_strike(&faults, target, 0, &strike))
				continue;
			CHECK(strike.target == target);
			CHECK(strike.kind >= 0 || strike.given & (HVPIPE_FAULT_KEY(STATUS) | HVPIPE_FAULT_KEY(SOURCE) |
								  HVPIPE_FAULT_KEY(LENGTH)));
		}
	}
	hvpipe_faults_free(faults);
	return 0;
}
