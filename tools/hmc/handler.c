// SPDX-License-Identifier: GPL-2.0-or-later
/* A command that handles one message. */
#include "handler.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spapr_hvpipe_link.h"

struct hmc_handler {
	struct hmc_watch output;
	GSource *end;
	GPid pid;
	uint8_t reply[HVPIPE_LINK_MAX_PAYLOAD + 1]; /* one byte more than may be */
	size_t len;
	hmc_handler_done done;
	void *user;
};

static void free_handler(struct hmc_handler *handler)
{
	int fd = handler->output.fd;

	hmc_watch_stop(&handler->output);
	close(fd);
	hmc_stop_source(&handler->end);
	g_free(handler);
}

/* Read what is there. A command whose reply is too long is killed: its output may have no end. */
static void read_output(struct hmc_handler *handler)
{
	while (handler->len < sizeof(handler->reply)) {
		ssize_t n =
			read(handler->output.fd, handler->reply + handler->len, sizeof(handler->reply) - handler->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0)
			break;
		handler->len += n;
	}
	hmc_watch_stop(&handler->output);
	if (handler->len == sizeof(handler->reply))
		kill(handler->pid, SIGKILL);
}

static void on_output(void *user, uint32_t events)
{
	read_output(user);
}

static void on_end(GPid pid, gint status, gpointer user)
{
	struct hmc_handler *handler = user;
	hmc_handler_done done = handler->done;
	void *done_user = handler->user;
	GBytes *reply = NULL;
	char *error = NULL;

	/* A child of its own may keep the pipe open: what is there now is the reply. */
	if (handler->output.loop)
		read_output(handler);
	if (handler->len == sizeof(handler->reply))
		error = g_strdup_printf("a reply of more than %d bytes", HVPIPE_LINK_MAX_PAYLOAD);
	else if (WIFSIGNALED(status))
		error = g_strdup_printf("signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		error = g_strdup_printf("exit status %d", WEXITSTATUS(status));
	else if (handler->len)
		reply = g_bytes_new(handler->reply, handler->len);
	g_spawn_close_pid(pid);
	free_handler(handler);
	done(done_user, reply, error);
	g_clear_pointer(&reply, g_bytes_unref);
	g_free(error);
}

struct hmc_handler *hmc_handler_start(struct hmc_loop *loop, char **command, char **environment, const void *data,
				      size_t len, hmc_handler_done done, void *user, GError **error)
{
	GSpawnFlags flags = G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_SEARCH_PATH | G_SPAWN_CLOEXEC_PIPES;
	struct hmc_handler *handler;
	int in, out;
	GPid pid;

	if (!g_spawn_async_with_pipes(NULL, command, environment, flags, NULL, NULL, &pid, &in, &out, NULL, error))
		return NULL;
	/* A command that does not read its input is all right. */
	fcntl(in, F_SETFL, O_NONBLOCK);
	while (write(in, data, len) < 0 && errno == EINTR)
		;
	close(in);
	fcntl(out, F_SETFL, O_NONBLOCK);
	handler = g_new0(struct hmc_handler, 1);
	handler->pid = pid;
	handler->done = done;
	handler->user = user;
	hmc_watch_start(&handler->output, loop, out, EPOLLIN, on_output, handler);
	handler->end = g_child_watch_source_new(pid);
	g_source_set_callback(handler->end, G_SOURCE_FUNC(on_end), handler, NULL);
	g_source_attach(handler->end, NULL);
	return handler;
}

static void reap(GPid pid, gint status, gpointer user)
{
	g_spawn_close_pid(pid);
}

void hmc_handler_cancel(struct hmc_handler *handler)
{
	kill(handler->pid, SIGTERM);
	g_child_watch_add(handler->pid, reap, NULL);
	free_handler(handler);
}
