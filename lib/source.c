// SPDX-License-Identifier: LGPL-2.1-or-later
/* Names of sources, and the library's version. */
#include "internal.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Read digits that make up all of @text. strtoull() alone would also take spaces and signs. */
static bool read_number(const char *text, int base, uint32_t min, uint32_t max, uint32_t *number)
{
	unsigned long long value;
	char *end;

	if (!isxdigit((unsigned char)*text))
		return false;
	errno = 0;
	value = strtoull(text, &end, base);
	if (*end || errno || value < min || value > max)
		return false;
	*number = value;
	return true;
}

int hvpipe_parse_source(const char *text, uint32_t *source)
{
	uint32_t number;

	assert(text && source);

	if (!strncmp(text, "hmc", 3)) {
		if (!read_number(text + 3, 10, 1, 0xffff, &number))
			goto invalid;
		number = HVPIPE_SOURCE_HMC(number);
	} else if (!strncmp(text, "0x", 2)) {
		if (!read_number(text + 2, 16, 0, UINT32_MAX, &number))
			goto invalid;
	} else if (!read_number(text, 10, 0, UINT32_MAX, &number)) {
		goto invalid;
	}
	*source = number;
	return 0;

invalid:
	errno = EINVAL;
	return -1;
}

const char *hvpipe_version(void)
{
	return HVPIPE_VERSION;
}
