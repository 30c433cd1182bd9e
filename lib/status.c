// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The state of the pipe, and which processes hold which source: from /proc. A handle's link in /proc/PID/fd is the same
 * on every driver; /proc/PID/fdinfo tells of it only on ours.
 */
#include "internal.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The trimmed value after "key:", or NULL if the line has another key. */
static const char *value_of(char *line, const char *key)
{
	size_t len = strlen(key);
	char *end;

	if (strncmp(line, key, len) || line[len] != ':')
		return NULL;
	line += len + 1;
	line += strspn(line, " \t");
	end = line + strcspn(line, "\n");
	*end = '\0';
	return line;
}

static bool take_number(char *line, const char *key, uint64_t *number)
{
	const char *value = value_of(line, key);

	if (!value)
		return false;
	*number = strtoull(value, NULL, 0);
	return true;
}

static bool take_source(char *line, uint32_t *source)
{
	uint64_t number;

	if (!take_number(line, "source", &number))
		return false;
	*source = number;
	return true;
}

static bool take_state(char *line, char state[static 16])
{
	const char *value = value_of(line, "state");

	if (!value)
		return false;
	snprintf(state, 16, "%s", value);
	return true;
}

void hvpipe_read_holder(FILE *fdinfo, struct hvpipe_holder *holder)
{
	char line[128];

	holder->source = 0;
	strcpy(holder->state, "unknown");
	holder->sent = holder->sent_bytes = HVPIPE_UNKNOWN;
	holder->received = holder->received_bytes = HVPIPE_UNKNOWN;
	holder->held = HVPIPE_UNKNOWN;

	while (fgets(line, sizeof(line), fdinfo))
		(void)(take_source(line, &holder->source) || take_state(line, holder->state) ||
		       take_number(line, "sent", &holder->sent) ||
		       take_number(line, "sent-bytes", &holder->sent_bytes) ||
		       take_number(line, "received", &holder->received) ||
		       take_number(line, "received-bytes", &holder->received_bytes) ||
		       take_number(line, "held", &holder->held));
}

void hvpipe_read_status(FILE *fdinfo, struct hvpipe_status *status)
{
	char line[128];

	memset(status, 0xff, sizeof(*status));
	_Static_assert(HVPIPE_UNKNOWN == UINT64_MAX, "memset() makes numbers unknown");
	strcpy(status->state, "unknown");

	while (fgets(line, sizeof(line), fdinfo))
		(void)(take_state(line, status->state) || take_number(line, "handles", &status->handles) ||
		       take_number(line, "dropped", &status->dropped));
}

int hvpipe_get_status(struct hvpipe_status *status)
{
	char path[sizeof("/proc/self/fdinfo/") + 3 * sizeof(int)];
	FILE *fdinfo;
	int dev, saved;

	assert(status);

	dev = open(HVPIPE_DEVICE, O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", dev);
	fdinfo = fopen(path, "re");
	saved = errno;
	if (fdinfo) {
		hvpipe_read_status(fdinfo, status);
		fclose(fdinfo);
	}
	close(dev);
	errno = saved;
	return fdinfo ? 0 : -1;
}

static bool is_number(const char *name)
{
	return isdigit((unsigned char)name[0]);
}

static void read_command(int proc, const char *pid, char command[static 16])
{
	char path[280];
	ssize_t n;
	int fd;

	command[0] = '\0';
	snprintf(path, sizeof(path), "%s/comm", pid);
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, command, 15);
	close(fd);
	command[n > 0 ? n : 0] = '\0';
	command[strcspn(command, "\n")] = '\0';
}

/* Visit the handles of one process. It may exit or close files while we look: skip what is gone. */
static int visit_process(int proc, const char *pid, int (*visit)(const struct hvpipe_holder *holder, void *data),
			 void *data)
{
	static const char link_of_handle[] = "anon_inode:[papr-hvpipe]";
	struct dirent *entry;
	char path[300];
	DIR *fds;
	int fd, result = 0;

	snprintf(path, sizeof(path), "%s/fd", pid);
	fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	fds = fdopendir(fd);
	if (!fds) {
		close(fd);
		return 0;
	}

	while (!result && (entry = readdir(fds))) {
		struct hvpipe_holder holder = { .pid = atoi(pid), .fd = atoi(entry->d_name) };
		char target[sizeof(link_of_handle)];
		FILE *fdinfo;
		ssize_t n;
		int info;

		if (!is_number(entry->d_name))
			continue;
		n = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target));
		if (n != sizeof(link_of_handle) - 1 || memcmp(target, link_of_handle, n))
			continue;

		snprintf(path, sizeof(path), "%.24s/fdinfo/%s", pid, entry->d_name);
		info = openat(proc, path, O_RDONLY | O_CLOEXEC);
		fdinfo = info < 0 ? NULL : fdopen(info, "r");
		if (!fdinfo) {
			if (info >= 0)
				close(info);
			continue;
		}
		hvpipe_read_holder(fdinfo, &holder);
		fclose(fdinfo);
		read_command(proc, pid, holder.command);
		result = visit(&holder, data);
	}
	closedir(fds);
	return result;
}

int hvpipe_each_holder_in(const char *place, int (*visit)(const struct hvpipe_holder *holder, void *data), void *data)
{
	struct dirent *entry;
	int result = 0;
	DIR *proc;

	assert(visit);

	proc = opendir(place);
	if (!proc)
		return -1;
	while (!result && (entry = readdir(proc))) {
		if (is_number(entry->d_name))
			result = visit_process(dirfd(proc), entry->d_name, visit, data);
	}
	closedir(proc);
	return result;
}

int hvpipe_each_holder(int (*visit)(const struct hvpipe_holder *holder, void *data), void *data)
{
	return hvpipe_each_holder_in("/proc", visit, data);
}
