// SPDX-License-Identifier: GPL-2.0-or-later
/* Receive in GLib's main loop, through hvpiped: echo each message of hmc1 until one says "quit". */
#include <errno.h>
#include <glib-unix.h>
#include <stdio.h>
#include <string.h>

#include <hvpipe.h>

static GMainLoop *loop;

static gboolean on_message(gint fd, GIOCondition condition, gpointer pipe)
{
	char message[HVPIPE_MAX_RECEIVE];
	ssize_t len;

	/* Take all that is there: the descriptor is readable again for the next one only. */
	while ((len = hvpipe_recv(pipe, message, sizeof(message), 0)) > 0) {
		if (len == 4 && !memcmp(message, "quit", 4)) {
			g_main_loop_quit(loop);
			return G_SOURCE_REMOVE;
		}
		/* This waits for the source; a program with more to do sends in a thread. */
		if (len > HVPIPE_MAX_PAYLOAD || hvpipe_send(pipe, message, len) < 0)
			perror("send");
	}
	if (errno == ETIMEDOUT || errno == ECONNRESET)
		return G_SOURCE_CONTINUE;
	perror("receive");
	g_main_loop_quit(loop);
	return G_SOURCE_REMOVE;
}

int main(void)
{
	struct hvpipe *pipe = hvpipe_connect(HVPIPE_SOURCE_HMC(1), HVPIPE_RECEIVE | HVPIPE_SEND);

	if (!pipe) {
		perror("hvpiped");
		return 1;
	}
	loop = g_main_loop_new(NULL, FALSE);
	g_unix_fd_add(hvpipe_get_fd(pipe), G_IO_IN, on_message, pipe);
	g_main_loop_run(loop);
	g_main_loop_unref(loop);
	hvpipe_close(pipe);
	return 0;
}
