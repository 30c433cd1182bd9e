// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpiped: a line for each connection and refusal. */
#include "audit.h"

#include <glib.h>
#include <stdarg.h>

void audit(const char *format, ...)
{
	static gint64 second;
	static unsigned int lines, skipped;
	gint64 now = g_get_monotonic_time() / G_USEC_PER_SEC;
	g_autofree char *text = NULL;
	va_list args;

	if (now != second) {
		second = now;
		lines = 0;
	}
	if (lines++ >= AUDIT_MAX) {
		skipped++;
		return;
	}
	if (skipped)
		g_message("audit: %u lines were left out", skipped);
	skipped = 0;
	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	g_message("%s", text);
}
