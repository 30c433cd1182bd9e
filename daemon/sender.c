// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpiped: the sends of all clients, in turn, by a child process. */
#include "sender.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hvpipe.h"
#include "source.h"
#include "watch.h"

/* What a message that waits needs. */
struct request {
	struct client *client; /* NULL: it has left */
	uint32_t number;
	struct source *source;
	gint64 deadline_us;
	size_t len;
	unsigned char data[];
};

/* The messages of one client. */
struct turn {
	struct client *client;
	GQueue requests;
};

static struct {
	unsigned int timeout_s;
	sender_done done;
	GQueue turns;		 /* of struct turn, each with a request */
	struct request *running; /* what the child sends now */
	pid_t child;
	int fd; /* to the child, -1 if there is none */
	guint watch, timer;
	bool restart; /* when the running request is over */
} sender = { .fd = -1 };

/* From the daemon to the child, before the message. The pointer means the same in both: the child is a copy. */
struct order {
	struct hvpipe *pipe;
};

static int compare_int(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Close everything but standard error and these descriptors: above all the connections to clients. */
static void keep_only(GArray *fds)
{
	unsigned int next = STDERR_FILENO + 1;

	qsort(fds->data, fds->len, sizeof(int), compare_int);
	for (guint i = 0; i < fds->len; i++) {
		unsigned int fd = g_array_index(fds, int, i);

		if (fd > next)
			close_range(next, fd - 1, 0);
		if (fd >= next)
			next = fd + 1;
	}
	close_range(next, ~0U, 0);
}

/* The child: one message after the other, until the daemon closes the connection or ends. */
static void __attribute__((noreturn)) run_child(int fd, pid_t parent)
{
	struct {
		struct order order;
		unsigned char data[HVPIPE_MAX_PAYLOAD];
	} packet;
	GArray *fds = source_fds();
	ssize_t n;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	prctl(PR_SET_NAME, "hvpiped-send");
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	g_array_append_val(fds, fd);
	keep_only(fds);

	while ((n = recv(fd, &packet, sizeof(packet), 0)) > (ssize_t)sizeof(packet.order)) {
		size_t len = n - sizeof(packet.order);
		int error = hvpipe_send(packet.order.pipe, packet.data, len) < 0 ? errno : 0;

		if (send(fd, &error, sizeof(error), MSG_NOSIGNAL) != sizeof(error))
			break;
	}
	_exit(0);
}

static void end_child(void)
{
	if (sender.watch)
		g_source_remove(sender.watch);
	sender.watch = 0;
	if (sender.fd < 0)
		return;
	close(sender.fd);
	sender.fd = -1;
	/* SIGKILL: the driver ends a send that waits for nothing less. */
	kill(sender.child, SIGKILL);
	while (waitpid(sender.child, NULL, 0) < 0 && errno == EINTR)
		;
}

static void send_next(void);

static void finish(int error)
{
	struct request *request = sender.running;

	sender.running = NULL;
	source_count_send(request->source, request->len, error);
	sender.done(request->client, request->number, request->source, request->data, request->len, error);
	g_free(request);
	if (sender.restart)
		end_child();
	sender.restart = false;
	send_next();
}

static gboolean on_child(gint fd, GIOCondition condition, gpointer data)
{
	int error;

	if (recv(fd, &error, sizeof(error), MSG_DONTWAIT) != sizeof(error)) {
		g_warning("the process that sends has ended");
		sender.watch = 0;
		end_child();
		if (sender.running)
			finish(EIO);
		return G_SOURCE_REMOVE;
	}
	if (sender.running)
		finish(error);
	/* finish() may have ended the child, and this watch with it. */
	return sender.watch && sender.fd == fd ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static bool start_child(void)
{
	pid_t parent = getpid();
	int fds[2];

	if (sender.fd >= 0)
		return true;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return false;
	sender.child = fork();
	if (sender.child == 0)
		run_child(fds[1], parent);
	close(fds[1]);
	if (sender.child < 0) {
		close(fds[0]);
		return false;
	}
	sender.fd = fds[0];
	sender.watch = watch_fd(sender.fd, G_IO_IN | G_IO_HUP, on_child, NULL);
	return true;
}

/* The next request, and its client goes to the end of the line. */
static struct request *take_request(void)
{
	struct turn *turn = g_queue_pop_head(&sender.turns);
	struct request *request;

	if (!turn)
		return NULL;
	request = g_queue_pop_head(&turn->requests);
	if (g_queue_is_empty(&turn->requests))
		g_free(turn);
	else
		g_queue_push_tail(&sender.turns, turn);
	return request;
}

/* End without a try what cannot be tried. */
static void refuse(struct request *request, int error)
{
	source_count_send(request->source, request->len, error);
	sender.done(request->client, request->number, request->source, request->data, request->len, error);
	g_free(request);
}

/* Once a second while something is under way: whose time is over? */
static gboolean on_timer(gpointer data)
{
	gint64 now = g_get_monotonic_time();
	GQueue expired = G_QUEUE_INIT;

	for (GList *link = sender.turns.head; link;) {
		GList *next = link->next;
		struct turn *turn = link->data;
		struct request *request;

		while ((request = g_queue_peek_head(&turn->requests)) && request->deadline_us <= now)
			g_queue_push_tail(&expired, g_queue_pop_head(&turn->requests));
		if (!request) {
			g_queue_delete_link(&sender.turns, link);
			g_free(turn);
		}
		link = next;
	}
	for (struct request *request; (request = g_queue_pop_head(&expired));)
		refuse(request, EBUSY);

	if (sender.running && sender.running->deadline_us <= now) {
		g_warning("%s: the source takes no message, and a send has lasted %u s: given up, in doubt",
			  source_name(sender.running->source), sender.timeout_s);
		end_child();
		finish(ETIMEDOUT);
	}
	if (sender.running || !g_queue_is_empty(&sender.turns))
		return G_SOURCE_CONTINUE;
	sender.timer = 0;
	return G_SOURCE_REMOVE;
}

static void send_next(void)
{
	while (!sender.running) {
		struct request *request = take_request();
		struct order order;
		struct iovec parts[2];
		struct msghdr packet = { .msg_iov = parts, .msg_iovlen = 2 };

		if (!request)
			return;
		order.pipe = source_pipe(request->source);
		parts[0] = (struct iovec){ &order, sizeof(order) };
		parts[1] = (struct iovec){ request->data, request->len };
		if (!order.pipe) {
			refuse(request, ENXIO);
			continue;
		}
		if (!start_child() || sendmsg(sender.fd, &packet, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
			g_warning("cannot start the process that sends: %s", strerror(errno));
			refuse(request, EAGAIN);
			continue;
		}
		/* The time that others took does not count. */
		request->deadline_us = g_get_monotonic_time() + sender.timeout_s * G_USEC_PER_SEC;
		sender.running = request;
		if (!sender.timer)
			sender.timer = g_timeout_add_seconds(1, on_timer, NULL);
	}
}

void sender_init(unsigned int timeout_s, sender_done done)
{
	sender.timeout_s = timeout_s;
	sender.done = done;
}

static struct turn *find_turn(const struct client *client)
{
	for (GList *link = sender.turns.head; link; link = link->next) {
		struct turn *turn = link->data;

		if (turn->client == client)
			return turn;
	}
	return NULL;
}

bool sender_submit(struct client *client, uint32_t number, struct source *source, const void *data, size_t len)
{
	struct turn *turn = find_turn(client);
	struct request *request;

	if (turn && g_queue_get_length(&turn->requests) >= SENDER_QUEUE_MAX)
		return false;
	if (!turn) {
		turn = g_new0(struct turn, 1);
		turn->client = client;
		g_queue_push_tail(&sender.turns, turn);
	}
	request = g_malloc(sizeof(*request) + len);
	*request = (struct request){ .client = client, .number = number, .source = source, .len = len };
	request->deadline_us = g_get_monotonic_time() + sender.timeout_s * G_USEC_PER_SEC;
	memcpy(request->data, data, len);
	g_queue_push_tail(&turn->requests, request);
	send_next();
	return true;
}

void sender_forget(struct client *client)
{
	struct turn *turn = find_turn(client);

	if (sender.running && sender.running->client == client)
		sender.running->client = NULL;
	if (!turn)
		return;
	g_queue_remove(&sender.turns, turn);
	g_queue_clear_full(&turn->requests, g_free);
	g_free(turn);
}

void sender_restart(void)
{
	if (sender.running)
		sender.restart = true;
	else
		end_child();
}

void sender_stop(void)
{
	end_child();
}
