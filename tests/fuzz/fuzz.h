/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the fuzz targets share: the input, taken piece by piece, and a check that no build leaves out. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: %s() broke the promise: %s\n", __FILE__, __LINE__, __func__, \
				#condition);                                                                 \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

struct input {
	const uint8_t *next;
	size_t left;
};

/* A new directory, in memory if there is such a place. */
static inline char *make_place(void)
{
	char *place = strdup(access("/dev/shm", W_OK) ? "/tmp/fuzz-XXXXXX" : "/dev/shm/fuzz-XXXXXX");

	CHECK(mkdtemp(place));
	return place;
}

/* At the input's end all is 0. */
static inline uint8_t take_byte(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->next++;
}

static inline uint16_t take_word(struct input *in)
{
	uint16_t high = take_byte(in);

	return high << 8 | take_byte(in);
}

/* The next bytes, at most @max, in memory of their own, so that reading beyond them is seen. The caller frees it. */
static inline uint8_t *take_bytes(struct input *in, size_t max, size_t *len)
{
	uint8_t *copy;

	*len = max < in->left ? max : in->left;
	copy = malloc(*len);
	if (*len)
		memcpy(copy, in->next, *len);
	in->next += *len;
	in->left -= *len;
	return copy;
}

/* Pieces of 1 to 64 bytes, mostly small, the same for the same *@seed. */
static inline size_t piece(uint32_t *seed, size_t left)
{
	size_t n;

	*seed = *seed * 1664525 + 1013904223;
	n = 1 + (*seed >> 24) % (*seed & 0x8000 ? 64 : 5);
	return n < left ? n : left;
}

#endif
