// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpiped: a source. */
#include "source.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "client.h"
#include "hvpipe.h"
#include "risk.h"
#include "sender.h"
#include "spool.h"
#include "watch.h"

/* How often to look whether the pipe is enabled again: the driver that Linux ships wakes nobody. */
#define LOOK_MS 100

/* How long the others wait for a receiver that has a message and does not say that it took it. Then it is spooled. */
#define GRACE_MS 20

/* Initial and maximum backoff after errors: of the hypervisor, of the disk, of a handle that cannot be opened. */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000

/* Is nothing received, and why? */
enum wait {
	WAIT_NOT,	/* the handle is watched */
	WAIT_HANDLE,	/* it cannot be opened */
	WAIT_SUSPENDED, /* the pipe is disabled or suspended */
	WAIT_ERROR,	/* the hypervisor said an error */
	WAIT_RECEIVER,	/* it has a message, and gets a moment to say that it took it */
	WAIT_SPOOL,	/* the spool is full, or its disk */
};

static const char *const wait_names[] = { "open", "closed", "suspended", "error", "open", "blocked" };

struct source {
	const struct source_config *config;
	struct hvpipe *pipe;
	struct spool *spool;
	struct risk *risk;
	enum wait wait;
	guint watch, timer;
	unsigned int backoff_ms;

	bool current; /* @risk has a message that is not in the spool; without bytes, a loss of the connection */

	struct client *receiver;
	bool given;	      /* it has a message and did not say that it took it */
	bool given_current;   /* that is the current one, not one of the spool */
	int64_t given_id;     /* in the spool */
	uint32_t number;      /* of the message given last */
	GPtrArray *observers; /* of struct client */
	char problem[300];    /* why it waits, for people */

	uint64_t nr_received, received_bytes, nr_taken, nr_dropped, nr_losses;
	uint64_t nr_sent, sent_bytes, nr_refused, nr_doubtful;
};

static GPtrArray *sources;
void (*source_opened)(const struct source *source, int fd);
void (*source_closing)(const struct source *source);

static void take_over(struct source *source);
static void receive(struct source *source);

struct source *source_new(const struct source_config *config, const char *spool_directory)
{
	struct source *source = g_new0(struct source, 1);
	g_autofree char *name = g_strdup_printf("%08x", config->id);

	source->config = config;
	source->spool = spool_new(spool_directory, name, config->spool_bytes);
	source->risk = risk_find(config->id);
	source->observers = g_ptr_array_new();
	source->backoff_ms = BACKOFF_MIN_MS;
	take_over(source);
	if (!sources)
		sources = g_ptr_array_new();
	g_ptr_array_add(sources, source);
	return source;
}

struct source *source_each(guint i)
{
	return sources && i < sources->len ? g_ptr_array_index(sources, i) : NULL;
}

struct source *source_find(uint32_t id)
{
	struct source *source;

	for (guint i = 0; (source = source_each(i)) && source->config->id != id; i++)
		;
	return source;
}

const struct source_config *source_config(const struct source *source)
{
	return source->config;
}

const char *source_name(const struct source *source)
{
	return source->config->name;
}

struct hvpipe *source_pipe(const struct source *source)
{
	return source->pipe;
}

bool source_is_enabled(const struct source *source)
{
	return source->pipe && !hvpipe_wait_enabled(source->pipe, 0);
}

GArray *source_fds(void)
{
	GArray *fds = g_array_new(false, false, sizeof(int));
	struct source *source;

	for (guint i = 0; (source = source_each(i)); i++) {
		int fd = source->pipe ? hvpipe_get_fd(source->pipe) : -1;

		if (fd >= 0)
			g_array_append_val(fds, fd);
	}
	return fds;
}

/*
 * Waiting.
 */

static gboolean on_timer(gpointer data)
{
	struct source *source = data;

	source->timer = 0;
	if (!source->pipe)
		source_start(source, -1);
	else if (source->wait == WAIT_SUSPENDED && hvpipe_wait_enabled(source->pipe, 0) && errno == ETIMEDOUT)
		source->timer = g_timeout_add(LOOK_MS, on_timer, source);
	else
		receive(source);
	return G_SOURCE_REMOVE;
}

/* Receive nothing for so long (0: until watch() or receive() is called). */
static void wait_for(struct source *source, enum wait why, unsigned int ms)
{
	if (source->watch)
		g_source_remove(source->watch);
	if (source->timer)
		g_source_remove(source->timer);
	source->watch = 0;
	source->timer = ms ? g_timeout_add(ms, on_timer, source) : 0;
	source->wait = why;
}

static void back_off(struct source *source, enum wait why)
{
	wait_for(source, why, source->backoff_ms);
	source->backoff_ms = MIN(2 * source->backoff_ms, BACKOFF_MAX_MS);
}

/* Say once that the source waits, and what for. */
static void set_problem(struct source *source, const char *text)
{
	if (!strcmp(source->problem, text))
		return;
	g_strlcpy(source->problem, text, sizeof(source->problem));
	if (*text)
		g_warning("%s: %s", source_name(source), text);
	else
		g_message("%s: all is well again", source_name(source));
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer data)
{
	struct source *source = data;

	receive(source);
	return source->watch ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

/* Receive when a message comes. */
static void watch(struct source *source)
{
	if (source->timer)
		g_source_remove(source->timer);
	source->timer = 0;
	source->wait = WAIT_NOT;
	if (source->watch)
		return;
	/* A poll() without POLLRDHUP that begins in a suspend never wakes on the driver that Linux ships. */
	source->watch = watch_fd(hvpipe_get_fd(source->pipe), (GIOCondition)(POLLIN | POLLRDHUP), on_readable, source);
}

static void close_handle(struct source *source)
{
	wait_for(source, WAIT_HANDLE, 0);
	/* While a copy of the descriptor is kept, the source cannot be opened again. */
	if (source_closing)
		source_closing(source);
	hvpipe_close(source->pipe);
	source->pipe = NULL;
	sender_restart();
}

int source_start(struct source *source, int fd)
{
	GError *error = NULL;
	int err;

	/* Before the first message comes: to make the file, or to recover it after a kill, takes its time. */
	if (!spool_open(source->spool, &error)) {
		g_warning("%s: %s", source_name(source), error->message);
		g_error_free(error);
	}
	source->pipe = fd >= 0 ? hvpipe_adopt(fd) : hvpipe_open(source->config->id);
	err = errno;
	if (!source->pipe) {
		g_autofree char *text = g_strdup_printf("cannot be opened: %s%s", strerror(err),
							err == EALREADY ? "; another program has it" : "");

		set_problem(source, text);
		back_off(source, WAIT_HANDLE);
		return err;
	}
	set_problem(source, "");
	source->backoff_ms = BACKOFF_MIN_MS;
	/* One that was adopted is kept already. */
	if (fd < 0 && source_opened)
		source_opened(source, hvpipe_get_fd(source->pipe));
	sender_restart();
	watch(source);
	return 0;
}

/*
 * To the receiver and the observers.
 */

static void show(struct source *source, int direction, const void *data, size_t len, int error)
{
	for (guint i = 0; i < source->observers->len; i++)
		client_give_observed(g_ptr_array_index(source->observers, i), source->config->id, direction, data, len,
				     error);
}

void source_show_send(struct source *source, const void *data, size_t len, int error)
{
	show(source, HVPIPE_SEND, data, len, error);
}

/* Find what is oldest. Returns its bytes, 0 for a loss, or -1 if there is nothing or it cannot be read. */
static ssize_t find_oldest(struct source *source, const unsigned char **data)
{
	static unsigned char spooled[HVPIPE_MAX_RECEIVE];
	GError *error = NULL;
	ssize_t len = spool_first(source->spool, &source->given_id, spooled, &error);

	if (error) {
		/* What came later must wait behind what is in the spool. */
		set_problem(source, error->message);
		g_error_free(error);
		back_off(source, WAIT_SPOOL);
		return -1;
	}
	source->given_current = len < 0;
	*data = len < 0 ? source->risk->data : spooled;
	return len >= 0 ? len : source->current ? (ssize_t)source->risk->len : -1;
}

/* The message that was found is with the receiver. */
static bool forget_given(struct source *source, GError **error)
{
	if (source->given_current) {
		source->current = source->given_current = false;
		risk_set(source->risk, RISK_NONE);
		return true;
	}
	return source->given_id < 0 || spool_remove(source->spool, source->given_id, error);
}

/* Give the receiver what is oldest, if it has nothing. */
static void give_next(struct source *source)
{
	const unsigned char *data;
	ssize_t len;

	if (!source->receiver || source->given)
		return;
	while ((len = find_oldest(source, &data)) == 0) {
		client_give_lost(source->receiver, source->config->id);
		if (!forget_given(source, NULL))
			return;
	}
	if (len < 0)
		return;
	source->given = true;
	if (source->given_current)
		risk_set(source->risk, RISK_DOUBT);
	client_give_message(source->receiver, source->config->id, ++source->number, data, len);
}

/* Drop the oldest messages that no receiver has, until one of @len bytes fits. */
static void drop_oldest(struct source *source, size_t len)
{
	unsigned char data[HVPIPE_MAX_RECEIVE];
	GError *error = NULL;
	int64_t id;

	while (!spool_has_room(source->spool, len) && spool_first(source->spool, &id, data, &error) >= 0) {
		/* The receiver may say yet that it took this one; it is not dropped then, but not kept either. */
		if (source->given && !source->given_current && source->given_id == id)
			source->given_id = -1;
		if (!spool_remove(source->spool, id, &error))
			break;
		if (!source->nr_dropped++)
			g_warning("%s: the spool is full: dropping the oldest messages (when-full=drop-oldest)",
				  source_name(source));
	}
	g_clear_error(&error);
}

/* Put the current message into the spool. False if that cannot be done now. */
static bool spool_current(struct source *source)
{
	GError *error = NULL;

	if (!source->current)
		return true;
	if (source->config->drop_oldest)
		drop_oldest(source, source->risk->len);
	source->risk->id = spool_next_id(source->spool, &error);
	if (error || !spool_append(source->spool, source->risk->data, source->risk->len, &error)) {
		set_problem(source, error->message);
		g_error_free(error);
		return false;
	}
	if (source->given && source->given_current) {
		/* It is the only one in the spool: else the receiver would have had another. */
		unsigned char data[HVPIPE_MAX_RECEIVE];

		source->given_id = -1;
		spool_first(source->spool, &source->given_id, data, NULL);
		source->given_current = false;
	}
	source->current = false;
	risk_set(source->risk, RISK_NONE);
	return true;
}

/* Take the message that a daemon held when it was killed, unless it is in the spool. */
static void take_over(struct source *source)
{
	if (source->risk->state != RISK_HELD)
		return;
	source->current = spool_next_id(source->spool, NULL) != source->risk->id + 1;
	if (!source->current)
		risk_set(source->risk, RISK_NONE);
	else
		spool_current(source);
}

/*
 * Receiving.
 */

/* A loss is for the receiver that is there: it comes behind the messages before it. */
static void note_loss(struct source *source)
{
	source->nr_losses++;
	show(source, HVPIPE_RECEIVE, NULL, 0, ECONNRESET);
	if (!source->receiver)
		return;
	if (source->given || spool_messages(source->spool)) {
		source->current = true;
		source->risk->len = 0;
		spool_current(source);
	} else {
		client_give_lost(source->receiver, source->config->id);
	}
}

/* True when the next message may be received: there is a place for it. */
static bool make_room(struct source *source)
{
	bool to_receiver = source->receiver && !source->given && !spool_messages(source->spool);

	if (source->current && source->given && source->given_current && source->wait != WAIT_RECEIVER) {
		wait_for(source, WAIT_RECEIVER, GRACE_MS);
		return false;
	}
	if (!spool_current(source)) {
		back_off(source, WAIT_SPOOL);
		return false;
	}
	if (to_receiver || source->config->drop_oldest || spool_has_room(source->spool, HVPIPE_MAX_RECEIVE))
		return true;
	set_problem(source, "the spool is full, so nothing is received, for no source: a receiver is needed, or "
			    "when-full=drop-oldest");
	back_off(source, WAIT_SPOOL);
	return false;
}

/* Receive a message, if there is one. */
static void receive(struct source *source)
{
	ssize_t len;

	if (!make_room(source))
		return;
	risk_set(source->risk, RISK_DOUBT);
	len = hvpipe_recv(source->pipe, source->risk->data, sizeof(source->risk->data), 0);
	if (len <= 0) {
		int err = errno;

		risk_set(source->risk, RISK_NONE);
		switch (err) {
		case ETIMEDOUT:
			watch(source);
			return;
		case ECONNRESET:
			note_loss(source);
			watch(source);
			return;
		case ENXIO:
			wait_for(source, WAIT_SUSPENDED, LOOK_MS);
			return;
		case EPROTO:
		case ENOTCONN:
			set_problem(source, strerror(err));
			close_handle(source);
			back_off(source, WAIT_HANDLE);
			return;
		default:
			set_problem(source, strerror(err));
			back_off(source, WAIT_ERROR);
			return;
		}
	}
	source->current = true;
	source->risk->len = len;
	source->risk->id = -1;
	risk_set(source->risk, RISK_HELD);
	source->nr_received++;
	source->received_bytes += len;
	show(source, HVPIPE_RECEIVE, source->risk->data, len, 0);
	if (source->receiver && !source->given && !spool_messages(source->spool)) {
		give_next(source);
	} else if (!spool_current(source)) {
		back_off(source, WAIT_SPOOL);
		return;
	}
	if (*source->problem)
		set_problem(source, "");
	source->backoff_ms = BACKOFF_MIN_MS;
	watch(source);
}

bool source_has_receiver(const struct source *source)
{
	return source->receiver;
}

void source_set_receiver(struct source *source, struct client *client)
{
	source->receiver = client;
	source->given = false;
	give_next(source);
}

void source_add_observer(struct source *source, struct client *client)
{
	g_ptr_array_add(source->observers, client);
}

void source_forget_client(struct source *source, struct client *client)
{
	g_ptr_array_remove(source->observers, client);
	if (source->receiver != client)
		return;
	source->receiver = NULL;
	if (source->given && source->given_current)
		risk_set(source->risk, RISK_HELD);
	source->given = source->given_current = false;
	/* What it did not say that it took is kept for the next one. */
	if (!spool_current(source)) {
		back_off(source, WAIT_SPOOL);
		return;
	}
	if (source->wait == WAIT_RECEIVER)
		receive(source);
}

bool source_taken(struct source *source, uint32_t number)
{
	GError *error = NULL;

	if (!source->given || number != source->number)
		return false;
	source->given = false;
	source->nr_taken++;
	if (!forget_given(source, &error)) {
		g_warning("%s: %s: a message that was taken comes again", source_name(source), error->message);
		g_error_free(error);
	}
	give_next(source);
	if (source->wait == WAIT_RECEIVER || (source->wait == WAIT_SPOOL && source->pipe)) {
		source->backoff_ms = BACKOFF_MIN_MS;
		receive(source);
	}
	return true;
}

void source_count_send(struct source *source, size_t len, int error)
{
	switch (error) {
	case 0:
		source->nr_sent++;
		source->sent_bytes += len;
		return;
	case EPIPE:
	case ENXIO:
	case EIO:
	case EINTR:
	case ETIMEDOUT:
		source->nr_doubtful++;
		return;
	default:
		source->nr_refused++;
	}
}

char *source_status(const struct source *source)
{
	return g_strdup_printf(
		"source id=0x%08x state=%s received=%" G_GUINT64_FORMAT " received_bytes=%" G_GUINT64_FORMAT
		" taken=%" G_GUINT64_FORMAT " spooled=%" G_GUINT64_FORMAT " spool_bytes=%" G_GUINT64_FORMAT
		" spool_max=%" G_GUINT64_FORMAT " dropped=%" G_GUINT64_FORMAT " in_doubt=%" G_GUINT64_FORMAT
		" losses=%" G_GUINT64_FORMAT " sent=%" G_GUINT64_FORMAT " sent_bytes=%" G_GUINT64_FORMAT
		" send_refused=%" G_GUINT64_FORMAT " send_in_doubt=%" G_GUINT64_FORMAT
		" receiver=%d observers=%u problem=%s",
		source->config->id, wait_names[source->wait], source->nr_received, source->received_bytes,
		source->nr_taken, spool_messages(source->spool), spool_bytes(source->spool),
		spool_max_bytes(source->spool), source->nr_dropped, source->risk->nr_in_doubt, source->nr_losses,
		source->nr_sent, source->sent_bytes, source->nr_refused, source->nr_doubtful,
		source->receiver ? (int)client_pid(source->receiver) : 0, source->observers->len, source->problem);
}

void source_free(struct source *source)
{
	spool_current(source);
	g_ptr_array_remove(sources, source);
	if (source->watch)
		g_source_remove(source->watch);
	if (source->timer)
		g_source_remove(source->timer);
	hvpipe_close(source->pipe);
	spool_free(source->spool);
	g_ptr_array_unref(source->observers);
	g_free(source);
}
