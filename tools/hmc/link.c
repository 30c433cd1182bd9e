// SPDX-License-Identifier: GPL-2.0-or-later
/* The life of a link from an HMC to one source: see link.h, and link-private.h for its parts. */
#include "link.h"

#include "link-private.h"

const struct hmc_link_timing hmc_link_default_timing = {
	.retry_min_ms = 250,
	.retry_max_ms = 5000,
	.answer_ms = 4000,
};

void hmc_link_changed(struct hmc_link *link)
{
	if (link->phase != PHASE_FINISHING)
		link->ops->changed(link->user);
}

void hmc_link_notice(struct hmc_link *link, enum hmc_notice notice, const char *format, ...)
{
	char *text;
	va_list args;

	if (link->phase == PHASE_FINISHING)
		return;
	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	link->ops->notice(link->user, notice, text);
	g_free(text);
}

void hmc_link_disconnect(struct hmc_link *link)
{
	hmc_dial_stop(link);
	hmc_stream_close(link);
	hmc_session_reset(link);
}

void hmc_link_fail(struct hmc_link *link, GError *error)
{
	bool tell = link->phase != PHASE_FINISHING && link->phase != PHASE_ENDED;

	hmc_link_disconnect(link);
	link->phase = PHASE_ENDED;
	if (tell)
		link->ops->failed(link->user, error);
	g_error_free(error);
}

struct hmc_link *hmc_link_new(struct hmc_loop *loop, const char *address, struct hmc_state *state,
			      const struct hmc_link_timing *timing, const struct hmc_link_ops *ops, void *user,
			      GError **error)
{
	struct hmc_link *link = g_new0(struct hmc_link, 1);

	link->loop = loop;
	link->state = state;
	link->timing = *timing;
	link->ops = ops;
	link->user = user;
	link->phase = PHASE_WAITING;
	hmc_dial_init(link);
	hmc_stream_init(link);
	hmc_session_init(link);
	if (hmc_link_add(link, address, error))
		return link;
	link->phase = PHASE_ENDED;
	hmc_link_free(link);
	return NULL;
}

bool hmc_link_add(struct hmc_link *link, const char *address, GError **error)
{
	return hmc_dial_add(link, address, error);
}

void hmc_link_start(struct hmc_link *link)
{
	g_assert(link->phase == PHASE_WAITING && !link->dial.retry.place);
	hmc_dial_start(link);
}

void hmc_link_send(struct hmc_link *link, const void *data, size_t len)
{
	GBytes *message = g_bytes_new(data, len);

	hmc_state_queue(link->state, message);
	g_bytes_unref(message);
	hmc_session_queued(link);
}

bool hmc_link_set_faults(struct hmc_link *link, const char *text, GError **error)
{
	GError *wrong = NULL;
	GList *faults = *text ? hmc_faults_parse(text, &wrong) : NULL;

	if (wrong) {
		g_propagate_error(error, wrong);
		return false;
	}
	hmc_faults_free(link->faults);
	link->faults = faults;
	hmc_stream_end_stall(link);
	return true;
}

char *hmc_link_faults(const struct hmc_link *link)
{
	return hmc_faults_print(link->faults);
}

bool hmc_link_is_up(const struct hmc_link *link)
{
	return link->phase == PHASE_UP;
}

const char *hmc_link_phase(const struct hmc_link *link)
{
	static const char *const names[] = {
		[PHASE_WAITING] = "waiting", [PHASE_CONNECTING] = "connecting", [PHASE_HELLO] = "connected",
		[PHASE_UP] = "up",	     [PHASE_FINISHING] = "ending",	[PHASE_ENDED] = "ended",
	};

	return names[link->phase];
}

bool hmc_link_is_enabled(const struct hmc_link *link)
{
	return link->session.enabled;
}

const char *hmc_link_address(const struct hmc_link *link)
{
	return hmc_dial_address(link);
}

void hmc_link_end(struct hmc_link *link)
{
	if (link->phase == PHASE_UP && !link->stream.stalled) {
		link->phase = PHASE_FINISHING;
		hmc_stream_read_on(link);
		hmc_stream_flush_soon(link);
		return;
	}
	if (link->phase == PHASE_FINISHING)
		return;
	hmc_link_disconnect(link);
	link->phase = PHASE_ENDED;
	if (link->dial.cancel)
		g_cancellable_cancel(link->dial.cancel);
}

bool hmc_link_has_ended(const struct hmc_link *link)
{
	return link->phase == PHASE_ENDED && !link->dial.cancel;
}

static gboolean on_finish_timeout(gpointer user)
{
	*(bool *)user = true;
	return G_SOURCE_REMOVE;
}

void hmc_link_finish(struct hmc_link *link, unsigned int timeout_ms)
{
	bool timed_out = false;
	GSource *timeout = g_timeout_source_new(timeout_ms);

	hmc_add_source(timeout, on_finish_timeout, &timed_out);
	hmc_link_end(link);
	while (!hmc_link_has_ended(link) && !timed_out)
		g_main_context_iteration(NULL, TRUE);
	hmc_stop_source(&timeout);
}

void hmc_link_free(struct hmc_link *link)
{
	hmc_link_disconnect(link);
	link->phase = PHASE_ENDED;
	/* GLib calls back for a connect that was cancelled, too. */
	if (link->dial.cancel)
		g_cancellable_cancel(link->dial.cancel);
	while (link->dial.cancel)
		g_main_context_iteration(NULL, TRUE);
	hmc_dial_free(link);
	hmc_stream_free(link);
	hmc_session_free(link);
	hmc_faults_free(link->faults);
	g_free(link);
}
