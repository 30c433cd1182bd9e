// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpiped: the connections of its clients. */
#include "client.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "audit.h"
#include "hvpipe.h"
#include "protocol.h"
#include "sender.h"
#include "source.h"
#include "watch.h"

struct client {
	int fd;
	unsigned int number;
	struct ucred peer;
	char command[16];
	gid_t *gids; /* besides the one in @peer */
	size_t nr_gids;
	struct source *source; /* NULL: it did not say yet what it is for */
	int right;
	guint readable, writable, timeout, doom;
	GQueue queue; /* of GBytes: packets that it did not read yet */
	uint32_t missed;
	uint64_t nr_given, nr_taken, nr_sent, nr_failed, nr_missed;
};

static GPtrArray *clients; /* of struct client */
static guint listener;
static unsigned int last_number;
static uint64_t nr_refused;

/*
 * Who it is, and what it may do.
 */

static void read_command(struct client *client)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/comm", (int)client->peer.pid);
	g_autofree char *text = NULL;

	strcpy(client->command, "-");
	if (!g_file_get_contents(path, &text, NULL, NULL))
		return;
	g_strlcpy(client->command, g_strchomp(text), sizeof(client->command));
	/* A program chooses its name itself. */
	for (char *c = client->command; *c; c++)
		if (!g_ascii_isgraph(*c))
			*c = '?';
}

static bool read_peer(struct client *client)
{
	socklen_t len = sizeof(client->peer);

	if (getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &client->peer, &len))
		return false;
	len = 0;
	if (getsockopt(client->fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) && errno == ERANGE) {
		client->gids = g_malloc(len);
		if (getsockopt(client->fd, SOL_SOCKET, SO_PEERGROUPS, client->gids, &len))
			len = 0;
		client->nr_gids = len / sizeof(gid_t);
	}
	read_command(client);
	return true;
}

static bool is_member(const struct client *client, gid_t gid)
{
	for (size_t i = 0; i < client->nr_gids; i++)
		if (client->gids[i] == gid)
			return true;
	return client->peer.gid == gid;
}

static bool has_right(const struct client *client, const struct source *source, int right)
{
	const struct group_rule *rule = config_rule(source_config(source), right);

	for (size_t i = 0; i < rule->nr_gids; i++)
		if (is_member(client, rule->gids[i]))
			return true;
	return client->peer.uid == 0;
}

static bool has_any_right(const struct client *client)
{
	struct source *source;

	for (guint i = 0; (source = source_each(i)); i++)
		if (has_right(client, source, HVPIPE_RECEIVE) || has_right(client, source, HVPIPE_SEND) ||
		    has_right(client, source, HVPIPE_OBSERVE))
			return true;
	return false;
}

pid_t client_pid(const struct client *client)
{
	return client->peer.pid;
}

static const char *right_name(int right)
{
	return right == HVPIPE_RECEIVE ? "receive" : right == HVPIPE_SEND ? "send" : right ? "observe" : "-";
}

/*
 * The end of a connection.
 */

static void remove_watch(guint *watch)
{
	if (*watch)
		g_source_remove(*watch);
	*watch = 0;
}

static void free_client(struct client *client)
{
	remove_watch(&client->readable);
	remove_watch(&client->writable);
	remove_watch(&client->timeout);
	remove_watch(&client->doom);
	/* The process that sends may have a copy of the descriptor. */
	shutdown(client->fd, SHUT_RDWR);
	close(client->fd);
	g_queue_clear_full(&client->queue, (GDestroyNotify)g_bytes_unref);
	g_free(client->gids);
	g_free(client);
}

static void disconnect(struct client *client, const char *why)
{
	audit("client %u (pid %d, %s) leaves: %s", client->number, (int)client->peer.pid, client->command, why);
	g_ptr_array_remove(clients, client);
	sender_forget(client);
	if (client->source)
		source_forget_client(client->source, client);
	free_client(client);
}

static gboolean on_doom(gpointer data)
{
	struct client *client = data;

	client->doom = 0;
	disconnect(client, "it does not read");
	return G_SOURCE_REMOVE;
}

/* Disconnect when whatever happens now is done: a source may be in the middle of its work. */
static void disconnect_later(struct client *client)
{
	remove_watch(&client->readable);
	if (!client->doom)
		client->doom = g_idle_add_full(G_PRIORITY_DEFAULT, on_doom, client, NULL);
}

/*
 * To the client.
 */

static bool give_now(struct client *client, const void *header, const void *data, size_t len)
{
	struct iovec parts[] = { { (void *)header, HVPIPE_PACKET_HEADER }, { (void *)data, len } };
	struct msghdr packet = { .msg_iov = parts, .msg_iovlen = len ? 2 : 1 };

	return sendmsg(client->fd, &packet, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer data);

static gboolean on_writable(gint fd, GIOCondition condition, gpointer data)
{
	struct client *client = data;
	GBytes *packet;

	while ((packet = g_queue_peek_head(&client->queue))) {
		gsize len;
		const void *bytes = g_bytes_get_data(packet, &len);

		if (send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
			if (errno == EAGAIN)
				return G_SOURCE_CONTINUE;
			break;
		}
		g_bytes_unref(g_queue_pop_head(&client->queue));
	}
	client->writable = 0;
	if (packet)
		disconnect_later(client);
	else if (!client->readable && !client->doom)
		client->readable = watch_fd(fd, G_IO_IN | G_IO_HUP, on_readable, client);
	return G_SOURCE_REMOVE;
}

/* False if the packet went nowhere. */
static bool give(struct client *client, struct hvpipe_packet_header header, const void *data, size_t len)
{
	unsigned char *bytes;

	if (client->doom)
		return false;
	if (g_queue_is_empty(&client->queue) && give_now(client, &header, data, len))
		return true;
	if (g_queue_is_empty(&client->queue) && errno != EAGAIN) {
		disconnect_later(client);
		return false;
	}
	if (g_queue_get_length(&client->queue) >= CLIENT_QUEUE_MAX) {
		if (client->right != HVPIPE_OBSERVE)
			disconnect_later(client);
		return false;
	}
	bytes = g_malloc(sizeof(header) + len);
	memcpy(bytes, &header, sizeof(header));
	if (len)
		memcpy(bytes + sizeof(header), data, len);
	g_queue_push_tail(&client->queue, g_bytes_new_take(bytes, sizeof(header) + len));
	/* A client that does not read is not read: it cannot cause more answers. */
	remove_watch(&client->readable);
	if (!client->writable)
		client->writable = watch_fd(client->fd, G_IO_OUT | G_IO_HUP, on_writable, client);
	return true;
}

static void give_result(struct client *client, uint32_t number, int error, const char *text)
{
	struct hvpipe_packet_header header = hvpipe_packet_header(HVPIPE_PACKET_RESULT);

	header.number = number;
	header.error = error;
	give(client, header, text, text ? strlen(text) : 0);
}

void client_give_message(struct client *client, uint32_t source, uint32_t number, const void *data, size_t len)
{
	struct hvpipe_packet_header header = hvpipe_packet_header(HVPIPE_PACKET_MESSAGE);

	header.source = source;
	header.number = number;
	client->nr_given += give(client, header, data, len);
}

void client_give_lost(struct client *client, uint32_t source)
{
	struct hvpipe_packet_header header = hvpipe_packet_header(HVPIPE_PACKET_LOST);

	header.source = source;
	give(client, header, NULL, 0);
}

void client_give_observed(struct client *client, uint32_t source, int direction, const void *data, size_t len,
			  int error)
{
	struct hvpipe_packet_header header = hvpipe_packet_header(HVPIPE_PACKET_OBSERVED);

	header.source = source;
	header.right = direction;
	header.error = error;
	header.number = client->missed;
	if (give(client, header, data, len)) {
		client->nr_given++;
		client->missed = 0;
	} else {
		client->nr_missed++;
		client->missed++;
	}
}

void client_sent(struct client *client, uint32_t number, struct source *source, const void *data, size_t len, int error)
{
	source_show_send(source, data, len, error);
	if (!client)
		return;
	client->nr_sent += !error;
	client->nr_failed += !!error;
	give_result(client, number, error,
		    error == EBUSY ? "not sent: the sends of others took all the time" :
		    error	   ? strerror(error) :
				     NULL);
}

/*
 * From the client.
 */

/* Answer with an error, and write it to the audit. */
static void refuse(struct client *client, uint32_t number, int error, const char *text)
{
	nr_refused++;
	client->nr_failed++;
	audit("client %u (pid %d, %s, uid %u): refused: %s", client->number, (int)client->peer.pid, client->command,
	      client->peer.uid, text);
	give_result(client, number, error, text);
}

static void open_source(struct client *client, const struct hvpipe_packet_header *header)
{
	struct source *source = source_find(header->source);
	g_autofree char *text = NULL;

	if (!source) {
		text = g_strdup_printf("source 0x%08x is not one of those that hvpiped.conf names", header->source);
		refuse(client, 0, ENODEV, text);
		return;
	}
	if (!has_right(client, source, header->right)) {
		text = g_strdup_printf("%s: hvpiped.conf does not allow this user to %s", source_name(source),
				       right_name(header->right));
		refuse(client, 0, EACCES, text);
		return;
	}
	client->right = header->right;
	/* The answer comes before the first message. */
	if (header->right != HVPIPE_RECEIVE) {
		client->source = source;
		if (header->right == HVPIPE_OBSERVE)
			source_add_observer(source, client);
		give_result(client, 0, 0, NULL);
	} else if (source_has_receiver(source)) {
		client->right = 0;
		text = g_strdup_printf("%s: it has a receiver", source_name(source));
		refuse(client, 0, EALREADY, text);
		return;
	} else {
		client->source = source;
		give_result(client, 0, 0, NULL);
		source_set_receiver(source, client);
	}
	remove_watch(&client->timeout);
	audit("client %u (pid %d, %s, uid %u): %s %s", client->number, (int)client->peer.pid, client->command,
	      client->peer.uid, right_name(client->right), source_name(source));
}

static bool give_line(struct client *client, char *line)
{
	size_t len = MIN(strlen(line), (size_t)HVPIPE_PACKET_DATA);
	bool given;

	/* A line that waits in the queue would take the place of others: the status is for clients that read. */
	given = g_queue_is_empty(&client->queue) && give(client, hvpipe_packet_header(HVPIPE_PACKET_LINE), line, len);
	g_free(line);
	return given;
}

static void give_status(struct client *client)
{
	struct source *source;

	give_line(client, g_strdup_printf("daemon version=%s clients=%u clients_max=%d refused=%" G_GUINT64_FORMAT,
					  HVPIPE_VERSION, clients->len, CLIENTS_MAX, nr_refused));
	for (guint i = 0; (source = source_each(i)); i++)
		give_line(client, source_status(source));
	for (guint i = 0; i < clients->len; i++) {
		const struct client *one = g_ptr_array_index(clients, i);

		if (one->source)
			give_line(
				client,
				g_strdup_printf(
					"client number=%u pid=%d uid=%u right=%s source=0x%08x given=%" G_GUINT64_FORMAT
					" taken=%" G_GUINT64_FORMAT " sent=%" G_GUINT64_FORMAT
					" failed=%" G_GUINT64_FORMAT " missed=%" G_GUINT64_FORMAT " command=%s",
					one->number, (int)one->peer.pid, one->peer.uid, right_name(one->right),
					source_config(one->source)->id, one->nr_given, one->nr_taken, one->nr_sent,
					one->nr_failed, one->nr_missed, one->command));
	}
	give_result(client, 0, 0, NULL);
}

/* A request that is well formed. False with @why if it must not come now. */
static bool serve(struct client *client, const struct hvpipe_packet *packet, size_t len, const char **why)
{
	uint32_t number = packet->header.number;

	switch (packet->header.type) {
	case HVPIPE_PACKET_OPEN:
		*why = "a connection is opened once";
		if (client->source)
			return false;
		open_source(client, &packet->header);
		return true;
	case HVPIPE_PACKET_STATUS:
		*why = "the status is asked for on a connection of its own";
		if (client->source)
			return false;
		give_status(client);
		return true;
	case HVPIPE_PACKET_SEND:
		*why = "only a connection that was opened to send sends";
		if (client->right != HVPIPE_SEND)
			return false;
		if (!sender_submit(client, number, client->source, packet->data, len))
			refuse(client, number, EDQUOT, "16 messages of this connection wait already");
		return true;
	case HVPIPE_PACKET_STATE:
		*why = "only a connection that was opened to send asks for the state";
		if (client->right != HVPIPE_SEND)
			return false;
		give_result(client, number, source_is_enabled(client->source) ? 0 : ENXIO, NULL);
		return true;
	case HVPIPE_PACKET_TAKEN:
		*why = "it takes a message that it was not given";
		if (client->right != HVPIPE_RECEIVE || !source_taken(client->source, number))
			return false;
		client->nr_taken++;
		return true;
	}
	*why = "unknown type";
	return false;
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer data)
{
	struct client *client = data;
	struct hvpipe_packet packet;
	const char *why;
	ssize_t n;

	n = recv(fd, &packet, sizeof(packet), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return G_SOURCE_CONTINUE;
	if (n <= 0) {
		disconnect(client, n < 0 ? strerror(errno) : "it closed");
		return G_SOURCE_REMOVE;
	}
	why = n > (ssize_t)sizeof(packet) ? "too much data" : hvpipe_packet_check(&packet, n, true);
	if (!why && serve(client, &packet, n - HVPIPE_PACKET_HEADER, &why))
		return client->readable ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
	refuse(client, 0, EPROTO, why);
	if (client->readable)
		disconnect(client, "malformed packet");
	return G_SOURCE_REMOVE;
}

static gboolean on_open_timeout(gpointer data)
{
	struct client *client = data;

	client->timeout = 0;
	disconnect(client, "it did not say what it is for");
	return G_SOURCE_REMOVE;
}

static unsigned int count_user(uid_t uid)
{
	unsigned int count = 0;

	for (guint i = 0; i < clients->len; i++)
		count += ((const struct client *)g_ptr_array_index(clients, i))->peer.uid == uid;
	return count;
}

/* Why this client cannot be served; NULL: it can. */
static const char *find_objection(const struct client *client, int *error)
{
	*error = EUSERS;
	if (clients->len >= CLIENTS_MAX)
		return "64 clients are connected already";
	if (client->peer.uid && count_user(client->peer.uid) >= CLIENTS_USER_MAX)
		return "this user has 16 connections already";
	*error = EACCES;
	return has_any_right(client) ? NULL : "hvpiped.conf gives this user no right";
}

static gboolean on_connect(gint fd, GIOCondition condition, gpointer data)
{
	struct client *client = g_new0(struct client, 1);
	const char *objection;
	int error;

	client->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client->fd < 0 || !read_peer(client)) {
		if (client->fd >= 0)
			close(client->fd);
		g_free(client->gids);
		g_free(client);
		return G_SOURCE_CONTINUE;
	}
	client->number = ++last_number;
	objection = find_objection(client, &error);
	if (objection) {
		refuse(client, 0, error, objection);
		free_client(client);
		return G_SOURCE_CONTINUE;
	}
	g_ptr_array_add(clients, client);
	client->readable = watch_fd(client->fd, G_IO_IN | G_IO_HUP, on_readable, client);
	client->timeout = g_timeout_add_seconds(CLIENT_OPEN_S, on_open_timeout, client);
	return G_SOURCE_CONTINUE;
}

static int open_socket(const char *path, GError **error)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = -1;

	if (strlen(path) >= sizeof(address.sun_path)) {
		g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NAMETOOLONG, "socket %s: longer than %zu bytes", path,
			    sizeof(address.sun_path) - 1);
		return -1;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* Everybody may connect: the rules decide what a client may do. */
	if (fd < 0 || (unlink(path) && errno != ENOENT) ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) || chmod(path, 0666) ||
	    listen(fd, CLIENTS_MAX)) {
		g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(errno), "socket %s: %s", path,
			    strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

int clients_listen(const char *path, int fd, GError **error)
{
	if (fd < 0)
		fd = open_socket(path, error);
	if (fd < 0)
		return -1;
	clients = g_ptr_array_new();
	listener = watch_fd(fd, G_IO_IN, on_connect, NULL);
	return fd;
}

void clients_stop(void)
{
	remove_watch(&listener);
	while (clients && clients->len)
		disconnect(g_ptr_array_index(clients, 0), "the daemon ends");
}
