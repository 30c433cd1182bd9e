/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hvpiped: descriptors in the main loop. */
#ifndef WATCH_H
#define WATCH_H

#include <glib-unix.h>

/*
 * g_unix_fd_add(), cheaper: GLib takes the descriptor out of its poll() around each call, and wakes itself for that,
 * unless the callback may be called while it runs. Here none ever is, as no callback runs the main loop.
 */
static inline guint watch_fd(int fd, GIOCondition condition, GUnixFDSourceFunc function, gpointer data)
{
	GSource *source = g_unix_fd_source_new(fd, condition);
	guint id;

	g_source_set_can_recurse(source, TRUE);
	g_source_set_callback(source, G_SOURCE_FUNC(function), data, NULL);
	id = g_source_attach(source, NULL);
	g_source_unref(source);
	return id;
}

#endif
