// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpiped under systemd. */
#include "systemd.h"

#ifdef HAVE_SYSTEMD

#include <glib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static char **names;
static int nr_names;

void systemd_begin(void)
{
	nr_names = sd_listen_fds_with_names(1, &names);
}

int systemd_take(const char *name)
{
	for (int i = 0; i < nr_names; i++) {
		if (names[i] && !strcmp(names[i], name)) {
			free(names[i]);
			names[i] = NULL;
			return SD_LISTEN_FDS_START + i;
		}
	}
	return -1;
}

void systemd_drop(const char *name)
{
	g_autofree char *state = g_strdup_printf("FDSTOREREMOVE=1\nFDNAME=%s", name);

	sd_notify(0, state);
}

void systemd_keep(const char *name, int fd)
{
	/* FDPOLL=0: without it systemd drops a descriptor whose poll() says an error, which may pass. */
	g_autofree char *state = g_strdup_printf("FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);

	systemd_drop(name);
	sd_pid_notify_with_fds(0, 0, state, &fd, 1);
}

void systemd_drop_rest(void)
{
	for (int i = 0; i < nr_names; i++) {
		if (!names[i])
			continue;
		systemd_drop(names[i]);
		close(SD_LISTEN_FDS_START + i);
		free(names[i]);
		names[i] = NULL;
	}
}

void systemd_ready(void)
{
	sd_notify(0, "READY=1");
}

void systemd_stopping(void)
{
	sd_notify(0, "STOPPING=1");
}

#else

void systemd_begin(void)
{
}

int systemd_take(const char *name)
{
	return -1;
}

void systemd_keep(const char *name, int fd)
{
}

void systemd_drop(const char *name)
{
}

void systemd_drop_rest(void)
{
}

void systemd_ready(void)
{
}

void systemd_stopping(void)
{
}

#endif
