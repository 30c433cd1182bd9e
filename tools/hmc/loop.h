/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sources of the main loop, each kept in a pointer that is NULL while there is none. */
#ifndef HMC_LOOP_H
#define HMC_LOOP_H

#include <glib.h>

static inline GSource *hmc_add_source(GSource *source, GSourceFunc callback, gpointer user)
{
	g_source_set_callback(source, callback, user, NULL);
	g_source_attach(source, NULL);
	return source;
}

static inline void hmc_stop_source(GSource **source)
{
	if (*source) {
		g_source_destroy(*source);
		g_source_unref(*source);
		*source = NULL;
	}
}

static inline void hmc_start_timer(GSource **source, unsigned int ms, GSourceFunc callback, gpointer user)
{
	hmc_stop_source(source);
	*source = hmc_add_source(g_timeout_source_new(ms), callback, user);
}

#endif
