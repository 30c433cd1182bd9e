// SPDX-License-Identifier: GPL-2.0-or-later
/* The control socket of hvpipe-hmc serve. */
#include "control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* So many clients at once, and so long for each to read. */
#define CLIENTS_MAX 8
#define CLIENT_MS   5000

struct client {
	struct hmc_control *control;
	struct hmc_watch watch;
	struct hmc_timer timeout;
	int fd;
	char *text;
	size_t len, done;
};

struct hmc_control {
	struct hmc_loop *loop;
	struct hmc_watch watch;
	int fd;
	char *path;
	struct json_object *(*status)(void *user);
	void *user;
	GPtrArray *clients;
};

static void free_client(void *user)
{
	struct client *client = user;

	hmc_watch_stop(&client->watch);
	hmc_timer_stop(&client->timeout);
	close(client->fd);
	g_free(client->text);
	g_free(client);
}

static void drop_client(void *user)
{
	struct client *client = user;

	g_ptr_array_remove_fast(client->control->clients, client);
}

static void on_client(void *user, uint32_t events)
{
	struct client *client = user;
	ssize_t n =
		send(client->fd, client->text + client->done, client->len - client->done, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		client->done += n;
	if (n < 0 || client->done == client->len)
		drop_client(client);
}

static void on_accept(void *user, uint32_t events)
{
	struct hmc_control *control = user;
	int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct json_object *status;
	struct client *client;

	if (fd < 0)
		return;
	if (control->clients->len == CLIENTS_MAX) {
		close(fd);
		return;
	}
	status = control->status(control->user);
	client = g_new0(struct client, 1);
	client->control = control;
	client->fd = fd;
	client->text = g_strconcat(json_object_to_json_string_ext(status, JSON_C_TO_STRING_PRETTY), "\n", NULL);
	client->len = strlen(client->text);
	json_object_put(status);
	g_ptr_array_add(control->clients, client);
	hmc_watch_start(&client->watch, control->loop, fd, EPOLLOUT, on_client, client);
	hmc_timer_start(&client->timeout, control->loop, CLIENT_MS, drop_client, client);
}

static int connect_to(const char *path, struct sockaddr_un *address, GError **error)
{
	int fd;

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "%s: a path of %zu bytes; a socket's has at most %zu", path, strlen(path),
			    sizeof(address->sun_path) - 1);
		return -1;
	}
	strcpy(address->sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)address, sizeof(*address)))
		return fd;
	g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "%s: %s", path, g_strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Remove the socket that a process left when it ended. */
static bool make_way(const char *path, struct sockaddr_un *address, GError **error)
{
	GError *why = NULL;
	struct stat st;
	int fd = connect_to(path, address, &why);

	if (fd >= 0) {
		close(fd);
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY, "%s: another hvpipe-hmc listens there", path);
		return false;
	}
	if (g_error_matches(why, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT)) {
		g_propagate_error(error, why);
		return false;
	}
	g_clear_error(&why);
	if (!lstat(path, &st) && S_ISSOCK(st.st_mode) && st.st_uid == geteuid())
		unlink(path);
	return true;
}

struct hmc_control *hmc_control_new(struct hmc_loop *loop, const char *path, struct json_object *(*status)(void *user),
				    void *user, GError **error)
{
	struct hmc_control *control;
	struct sockaddr_un address;
	mode_t mask;
	int fd, failed;

	if (!make_way(path, &address, error))
		return NULL;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mask = umask(0177);
	failed = fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, CLIENTS_MAX);
	umask(mask);
	if (failed) {
		g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "%s: %s", path, g_strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	control = g_new0(struct hmc_control, 1);
	control->loop = loop;
	control->fd = fd;
	control->path = g_strdup(path);
	control->status = status;
	control->user = user;
	control->clients = g_ptr_array_new_with_free_func(free_client);
	hmc_watch_start(&control->watch, loop, fd, EPOLLIN, on_accept, control);
	return control;
}

void hmc_control_free(struct hmc_control *control)
{
	g_ptr_array_unref(control->clients);
	hmc_watch_stop(&control->watch);
	close(control->fd);
	unlink(control->path);
	g_free(control->path);
	g_free(control);
}

char *hmc_control_read(const char *path, GError **error)
{
	struct timeval patience = { .tv_sec = CLIENT_MS / 1000 };
	struct sockaddr_un address;
	int fd = connect_to(path, &address, error);
	GString *text = g_string_new(NULL);
	char data[4096];
	ssize_t n = -1;

	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		while ((n = recv(fd, data, sizeof(data), 0)) > 0)
			g_string_append_len(text, data, n);
		if (n < 0)
			g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "%s: %s", path,
				    errno == EAGAIN ? "no answer" : g_strerror(errno));
		close(fd);
	}
	return g_string_free(text, n < 0);
}
