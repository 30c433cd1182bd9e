// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpiped: the messages that are at risk. */
#include "risk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"

static struct risk none[CONFIG_SOURCES_MAX];
static struct risk *risks = none;

void risk_open(const char *socket)
{
	g_autofree char *directory = g_path_get_dirname(socket);
	g_autofree char *path = g_build_filename(directory, "at-risk", NULL);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	void *map = MAP_FAILED;

	/* With its space: without a place for a page that is written, we would be killed, or a message lost. */
	if (fd >= 0 && !(errno = posix_fallocate(fd, 0, sizeof(none))))
		map = mmap(NULL, sizeof(none), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		g_warning("%s: %s: a kill may lose messages, and will not count them", path, strerror(errno));
	else
		risks = map;
	if (fd >= 0)
		close(fd);
}

struct risk *risk_find(uint32_t source)
{
	for (struct risk *risk = risks; risk < risks + CONFIG_SOURCES_MAX; risk++) {
		if (risk->source && risk->source != source)
			continue;
		risk->source = source;
		/* Nobody else writes the file, but a message that cannot be one must not be believed. */
		if (risk->state == RISK_DOUBT || (risk->state == RISK_HELD && risk->len > sizeof(risk->data))) {
			risk->nr_in_doubt++;
			risk_set(risk, RISK_NONE);
		}
		return risk;
	}
	/* Sources that were configured earlier since boot have all places. */
	return g_new0(struct risk, 1);
}

void risk_set(struct risk *risk, enum risk_state state)
{
	__atomic_store_n(&risk->state, state, __ATOMIC_RELEASE);
}
