// SPDX-License-Identifier: GPL-2.0-or-later
/* How a link gets a connection: one address after the other, again and again. */
#include <gio/gunixsocketaddress.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>

#include "address.h"
#include "link-private.h"

/* A connection that held for so long was a good one: the next retry comes soon. */
#define GOOD_MS 1000

/* So many connections in a row that the other side closes in place of an answer end the link: it will never take us. */
#define REFUSALS_MAX 20

static struct endpoint *endpoint(const struct hmc_link *link, unsigned int i)
{
	return &g_array_index(link->dial.endpoints, struct endpoint, i);
}

const char *hmc_dial_address(const struct hmc_link *link)
{
	return endpoint(link, link->dial.at)->address;
}

/* "a.sock or b.sock" */
static char *all_addresses(const struct hmc_link *link)
{
	GString *all = g_string_new(NULL);

	for (unsigned int i = 0; i < link->dial.endpoints->len; i++)
		g_string_append_printf(all, "%s%s", i ? " or " : "", endpoint(link, i)->address);
	return g_string_free(all, FALSE);
}

void hmc_dial_init(struct hmc_link *link)
{
	link->dial.endpoints = g_array_new(FALSE, FALSE, sizeof(struct endpoint));
	link->dial.retry_ms = link->timing.retry_min_ms;
}

void hmc_dial_free(struct hmc_link *link)
{
	for (unsigned int i = 0; i < link->dial.endpoints->len; i++) {
		g_object_unref(endpoint(link, i)->target);
		g_free(endpoint(link, i)->address);
	}
	g_array_unref(link->dial.endpoints);
}

bool hmc_dial_add(struct hmc_link *link, const char *address, GError **error)
{
	struct endpoint new = { .target = hmc_address_parse(address, error) };

	if (!new.target)
		return false;
	new.address = g_strdup(address);
	g_array_append_val(link->dial.endpoints, new);
	return true;
}

void hmc_dial_stop(struct hmc_link *link)
{
	hmc_timer_stop(&link->dial.retry);
	hmc_timer_stop(&link->dial.silence);
}

void hmc_dial_answered(struct hmc_link *link)
{
	struct dial *dial = &link->dial;

	hmc_timer_stop(&dial->silence);
	dial->refusals = 0;
	dial->up_since = g_get_monotonic_time();
	dial->outage_reported = false;
	dial->silence_reported = false;
}

static void on_retry(void *user)
{
	hmc_dial_start(user);
}

void hmc_dial_again(struct hmc_link *link)
{
	bool was_up = link->phase == PHASE_UP, corrupted = link->stream.corrupted;
	struct dial *dial = &link->dial;
	unsigned int delay_ms = 0;

	hmc_link_disconnect(link);
	if (link->phase == PHASE_FINISHING || link->phase == PHASE_ENDED) {
		link->phase = PHASE_ENDED;
		return;
	}
	/* The end that a fault brought about is no sign that the other side is in trouble. */
	if (corrupted || (was_up && g_get_monotonic_time() - dial->up_since >= GOOD_MS * 1000))
		dial->retry_ms = link->timing.retry_min_ms;
	dial->tries = was_up ? 1 : dial->tries + 1;
	if (dial->tries >= dial->endpoints->len) {
		dial->tries = 0;
		delay_ms = dial->retry_ms;
		dial->retry_ms = MIN(2 * dial->retry_ms, link->timing.retry_max_ms);
	}
	dial->at = (dial->at + 1) % dial->endpoints->len;
	link->phase = PHASE_WAITING;
	hmc_timer_start(&dial->retry, link->loop, delay_ms, on_retry, link);
	hmc_link_changed(link);
}

void hmc_dial_refused(struct hmc_link *link, const char *why)
{
	struct dial *dial = &link->dial;
	char *text;

	if (link->phase == PHASE_FINISHING || link->stream.corrupted) {
		hmc_dial_again(link);
		return;
	}
	text = g_strdup_printf(
		"%s: the hypervisor closed the connection in place of an answer (%s): it refuses session "
		"%016" PRIx64 " with %" PRIu64 " messages taken, or it is no source's socket; its own log "
		"has the reason",
		hmc_dial_address(link), why, hmc_state_session(link->state), hmc_state_taken(link->state));
	if (++dial->refusals >= REFUSALS_MAX) {
		hmc_link_fail(link, g_error_new(G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED,
						"%s; given up after %u times", text, dial->refusals));
	} else {
		if (dial->refusals == 1)
			hmc_link_notice(link, HMC_NOTICE_WAIT, "%s; trying again, SIGINT ends", text);
		dial->outage_reported = true;
		hmc_dial_again(link);
	}
	g_free(text);
}

void hmc_dial_lost(struct hmc_link *link, const char *why)
{
	if (link->phase == PHASE_HELLO && !link->stream.corrupted) {
		hmc_dial_refused(link, why);
		return;
	}
	if (!link->dial.outage_reported && !link->session.left_message) {
		hmc_link_notice(link, HMC_NOTICE_WAIT, "%s: connection lost (%s); connecting again, SIGINT ends",
				hmc_dial_address(link), why);
		link->dial.outage_reported = true;
	}
	hmc_dial_again(link);
}

static void on_silence(void *user)
{
	struct hmc_link *link = user;
	struct dial *dial = &link->dial;

	if (dial->endpoints->len > 1) {
		/* The source may be elsewhere. A connect under way ends with an error then. */
		if (link->phase == PHASE_HELLO)
			hmc_dial_again(link);
		else
			g_cancellable_cancel(dial->cancel);
		return;
	}
	if (dial->silence_reported)
		return;
	if (link->phase == PHASE_HELLO)
		hmc_link_notice(
			link, HMC_NOTICE_WAIT,
			"%s: connected, but nobody answers: another HMC may be connected there (QEMU serves one at "
			"a time), or it is no source's socket; waiting, SIGINT ends",
			hmc_dial_address(link));
	else
		hmc_link_notice(link, HMC_NOTICE_WAIT, "%s: connecting takes long; waiting, SIGINT ends",
				hmc_dial_address(link));
	dial->outage_reported = true;
	dial->silence_reported = true;
}

/* Why no other try can succeed until somebody mends it, or NULL. */
static const char *permanent_reason(const struct endpoint *tried, const GError *error)
{
	struct stat st;

	if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED))
		return error->message;
	if (G_IS_UNIX_SOCKET_ADDRESS(tried->target) &&
	    !stat(g_unix_socket_address_get_path(G_UNIX_SOCKET_ADDRESS(tried->target)), &st) && !S_ISSOCK(st.st_mode))
		return "not a socket";
	return NULL;
}

static void connect_failed(struct hmc_link *link, const GError *error)
{
	struct dial *dial = &link->dial;
	const char *reason = permanent_reason(endpoint(link, dial->at), error);
	char *all;

	if (reason) {
		hmc_link_fail(link,
			      g_error_new(G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", hmc_dial_address(link), reason));
		return;
	}
	/* It is no news yet while there is another address to try. */
	if (dial->tries + 1 >= dial->endpoints->len) {
		all = all_addresses(link);
		if (!dial->outage_reported && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK))
			hmc_link_notice(
				link, HMC_NOTICE_WAIT,
				"%s: others wait there already, and QEMU serves one HMC at a time; trying again, "
				"SIGINT ends",
				all);
		else if (!dial->outage_reported)
			hmc_link_notice(link, HMC_NOTICE_WAIT, "waiting for %s: %s; trying again, SIGINT ends", all,
					error->message);
		dial->outage_reported = true;
		g_free(all);
	}
	hmc_dial_again(link);
}

/* The connection's own descriptor: GLib's objects for it are not needed any more. */
static int take_descriptor(GSocketConnection *connection)
{
	GSocket *socket = g_socket_connection_get_socket(connection);
	int fd;

	g_socket_set_keepalive(socket, TRUE);
	if (g_socket_get_family(socket) != G_SOCKET_FAMILY_UNIX)
		g_socket_set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1, NULL);
	fd = fcntl(g_socket_get_fd(socket), F_DUPFD_CLOEXEC, 3);
	if (fd >= 0)
		fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void on_connected(GObject *client, GAsyncResult *result, gpointer user)
{
	struct hmc_link *link = user;
	GError *error = NULL;
	GSocketConnection *connection = g_socket_client_connect_finish(G_SOCKET_CLIENT(client), result, &error);
	int fd = connection ? take_descriptor(connection) : -1;

	if (connection && fd < 0)
		error = g_error_new(G_IO_ERROR, g_io_error_from_errno(errno), "%s", g_strerror(errno));
	g_clear_object(&connection);
	g_clear_object(&link->dial.cancel);
	if (link->phase != PHASE_CONNECTING) {
		/* Cancelled: the link is about to be freed. */
		if (fd >= 0)
			close(fd);
	} else if (error) {
		connect_failed(link, error);
	} else {
		link->phase = PHASE_HELLO;
		hmc_stream_open(link, fd);
		hmc_link_changed(link);
	}
	g_clear_error(&error);
}

void hmc_dial_start(struct hmc_link *link)
{
	GSocketClient *client = g_socket_client_new();
	struct dial *dial = &link->dial;

	link->phase = PHASE_CONNECTING;
	dial->cancel = g_cancellable_new();
	hmc_timer_start(&dial->silence, link->loop, link->timing.answer_ms, on_silence, link);
	g_socket_client_set_enable_proxy(client, FALSE);
	g_socket_client_connect_async(client, endpoint(link, dial->at)->target, dial->cancel, on_connected, link);
	g_object_unref(client);
}
