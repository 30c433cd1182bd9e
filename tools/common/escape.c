// SPDX-License-Identifier: GPL-2.0-or-later
/* Text of the other side, made safe for a terminal. */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The length of the UTF-8 character at @p, or 0 if there is none. Overlong forms and surrogates are none. */
static size_t decode(const unsigned char *p, size_t len, uint32_t *character)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xf8 ? 0 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;
	uint32_t c = p[0];

	if (!n || n > len)
		return 0;
	if (n > 1)
		c &= 0x7f >> n;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (c < smallest[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*character = c;
	return n;
}

/* Controls, what changes the direction or order of text, what is invisible, and what is no character. */
static bool is_unsafe(uint32_t c)
{
	static const struct {
		uint32_t first, last;
	} ranges[] = {
		{ 0x00, 0x1f },	    { 0x7f, 0x9f },	{ 0xad, 0xad },	      { 0x61c, 0x61c },	     { 0x180e, 0x180e },
		{ 0x200b, 0x200f }, { 0x2028, 0x202e }, { 0x2060, 0x206f },   { 0xe000, 0xf8ff },    { 0xfdd0, 0xfdef },
		{ 0xfeff, 0xfeff }, { 0xfff0, 0xfffb }, { 0xe0000, 0xe0fff }, { 0xf0000, 0x10ffff },
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		if (c >= ranges[i].first && c <= ranges[i].last)
			return true;
	return (c & 0xfffe) == 0xfffe;
}

char *escape_text(const void *data, size_t len, enum escape mode)
{
	const unsigned char *p = data, *end = p + len;
	char *text = malloc(4 * len + 1), *out = text;

	if (!text)
		return NULL;
	while (p < end) {
		uint32_t c = 0;
		size_t n = decode(p, end - p, &c);

		if (n && (!is_unsafe(c) || (mode == ESCAPE_LINES && (c == '\n' || c == '\t'))) &&
		    !(mode == ESCAPE_ALL && c == '\\')) {
			memcpy(out, p, n);
			out += n;
			p += n;
		} else if (n && (c == '\n' || c == '\t' || c == '\\')) {
			*out++ = '\\';
			*out++ = c == '\n' ? 'n' : c == '\t' ? 't' : '\\';
			p++;
		} else {
			for (n = n ? n : 1; n; n--)
				out += sprintf(out, "\\x%02x", *p++);
		}
	}
	*out = '\0';
	return text;
}
