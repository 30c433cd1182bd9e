// SPDX-License-Identifier: GPL-2.0-or-later
/* One link of hvpipe-hmc serve. */
#include "service.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "handler.h"
#include "hmc.h"

/* Replies that the partition has not received. Beyond them messages are refused. */
#define PENDING_MAX 1024

/* Lines in the log that a partition can cause in a while; more are counted. */
#define LINES_MAX 20
#define LINES_MS  10000

struct hmc_service {
	struct hmc_link_config *config;
	struct hmc_loop *loop;
	struct hmc_state *state;
	struct hmc_link *link;
	struct file_receiver inbox;
	struct hmc_handler *handler;
	char **environment; /* of the handler */
	bool failed;

	uint64_t refused;
	uint64_t files;
	uint64_t outages;
	char *last_error; /* or NULL */

	gint64 lines_since;
	unsigned int lines;
	uint64_t lines_left_out;
};

/*
 * The log
 */

static void write_line(const char *line)
{
	static uint64_t lost;
	struct pollfd pfd = { .fd = STDERR_FILENO, .events = POLLOUT };
	GString *text;

	/* Nobody reads it: the links are more important. */
	if (poll(&pfd, 1, 0) != 1 || !(pfd.revents & POLLOUT)) {
		lost++;
		return;
	}
	text = g_string_new(NULL);
	if (lost)
		g_string_append_printf(text, "(%" PRIu64 " lines were lost, as nobody read them)\n", lost);
	g_string_append_printf(text, "%s\n", line);
	lost = 0;
	if (write(STDERR_FILENO, text->str, text->len) < 0)
		lost++;
	g_string_free(text, TRUE);
}

void hmc_log(const char *who, const char *format, ...)
{
	GDateTime *now = g_date_time_new_now_utc();
	char *time = g_date_time_format(now, "%Y-%m-%dT%H:%M:%S"), *text, *line, *shown;
	va_list args;

	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	line = g_strdup_printf("%s.%03dZ %s%s%.900s", time, g_date_time_get_microsecond(now) / 1000, who ? who : "",
			       who ? ": " : "", text);
	shown = escape_text(line, strlen(line), ESCAPE_LINE);
	write_line(shown ? shown : "no memory for a message");
	free(shown);
	g_free(line);
	g_free(text);
	g_free(time);
	g_date_time_unref(now);
}

/* A line about what the partition does: it cannot fill the log. */
static void G_GNUC_PRINTF(2, 3) tell(struct hmc_service *service, const char *format, ...)
{
	gint64 now = g_get_monotonic_time();
	char *text;
	va_list args;

	if (now - service->lines_since >= LINES_MS * (gint64)1000) {
		if (service->lines_left_out)
			hmc_log(service->config->name, "%" PRIu64 " lines were left out", service->lines_left_out);
		service->lines_since = now;
		service->lines = 0;
		service->lines_left_out = 0;
	}
	if (service->lines == LINES_MAX) {
		service->lines_left_out++;
		return;
	}
	service->lines++;
	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	hmc_log(service->config->name, "%s", text);
	g_free(text);
}

static enum hmc_verdict G_GNUC_PRINTF(2, 3) refuse(struct hmc_service *service, const char *format, ...)
{
	char *text;
	va_list args;

	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	tell(service, "%s", text);
	service->refused++;
	g_free(service->last_error);
	service->last_error = text;
	return HMC_REFUSE;
}

/*
 * Messages
 */

static void on_handled(void *user, GBytes *reply, const char *error)
{
	struct hmc_service *service = user;

	service->handler = NULL;
	if (error)
		refuse(service, "message %" PRIu64 " refused: %s: %s", hmc_state_taken(service->state) + 1,
		       service->config->command[0], error);
	hmc_link_answer(service->link, error ? HMC_REFUSE : HMC_TAKE, reply);
}

static enum hmc_verdict run_command(struct hmc_service *service, uint64_t sequence, const void *data, size_t len)
{
	GError *error = NULL;
	enum hmc_verdict verdict;

	service->handler = hmc_handler_start(service->loop, service->config->command, service->environment, data, len,
					     on_handled, service, &error);
	if (service->handler)
		return HMC_LATER;
	verdict = refuse(service, "message %" PRIu64 " refused: %s: %s", sequence, service->config->command[0],
			 error->message);
	g_error_free(error);
	return verdict;
}

static enum hmc_verdict store_file(struct hmc_service *service, uint64_t sequence, const void *data, size_t len,
				   GBytes **reply)
{
	struct file_message_error error;

	switch (file_receiver_take(&service->inbox, data, len, &error)) {
	case FILE_RECEIVER_NONE:
		return refuse(service, "message %" PRIu64 " refused: %s", sequence, error.text);
	case FILE_RECEIVER_REFUSED:
		/* The answer says so: the message itself is taken. */
		refuse(service, "file refused: %s", error.text);
		break;
	case FILE_RECEIVER_COMPLETE:
		service->files++;
		hmc_state_add_file(service->state, service->inbox.id, service->inbox.sha256);
		tell(service, "%s/%s stored, %" PRIu64 " bytes", service->config->inbox, service->inbox.name,
		     service->inbox.size);
		/* fall through */
	default:
		if (error.text[0])
			tell(service, "%s", error.text);
	}
	if (service->inbox.answer_len)
		*reply = g_bytes_new(service->inbox.answer, service->inbox.answer_len);
	return HMC_TAKE;
}

static bool is_file(const void *data, size_t len)
{
	return len > 5 && !memcmp(data, "FILE ", 5);
}

static enum hmc_verdict on_message(void *user, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	struct hmc_service *service = user;

	if (hmc_state_pending(service->state)->length >= PENDING_MAX)
		return refuse(service, "message %" PRIu64 " refused: the partition has not received %d replies",
			      sequence, PENDING_MAX);
	if (service->config->inbox && is_file(data, len))
		return store_file(service, sequence, data, len, reply);
	if (service->config->command)
		return run_command(service, sequence, data, len);
	if (!service->config->echo)
		return refuse(service,
			      "message %" PRIu64 " of %zu bytes refused: no file message, and there is no command",
			      sequence, len);
	*reply = g_bytes_new(data, len);
	return HMC_TAKE;
}

static void on_changed(void *user)
{
}

static void on_notice(void *user, enum hmc_notice notice, const char *text)
{
	struct hmc_service *service = user;

	tell(service, "%s", text);
	service->outages += notice == HMC_NOTICE_WAIT;
	if (notice == HMC_NOTICE_WAIT || notice == HMC_NOTICE_ERROR) {
		g_free(service->last_error);
		service->last_error = g_strdup(text);
	}
}

static void on_failed(void *user, const GError *error)
{
	struct hmc_service *service = user;

	hmc_log(service->config->name, "%s; given up, SIGHUP tries again", error->message);
	service->failed = true;
	g_free(service->last_error);
	service->last_error = g_strdup(error->message);
}

static const struct hmc_link_ops ops = {
	.message = on_message,
	.changed = on_changed,
	.notice = on_notice,
	.failed = on_failed,
};

/*
 * Life
 */

static bool open_session(struct hmc_service *service, struct hmc_store *store, GError **error)
{
	const struct hmc_link_config *config = service->config;

	service->state = hmc_state_open(store, config->name, error);
	if (!service->state)
		return false;
	if (hmc_state_source(service->state) && hmc_state_source(service->state) != config->source) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: its session in %s is that of source 0x%08x",
			    config->name, hmc_state_path(service->state), hmc_state_source(service->state));
		return false;
	}
	/* A socket of another source is noticed then. */
	hmc_state_bind(service->state, config->source);
	return true;
}

struct hmc_service *hmc_service_new(const struct hmc_link_config *config, struct hmc_loop *loop,
				    struct hmc_store *store, GError **error)
{
	struct hmc_service *service = g_new0(struct hmc_service, 1);
	char *source = hmc_source_name(config->source);
	struct file_message_error why;
	bool ok;

	service->config = hmc_link_config_copy(config);
	service->loop = loop;
	service->inbox.dir = -1;
	service->environment = g_environ_setenv(g_get_environ(), "HVPIPE_PARTITION", config->partition, TRUE);
	service->environment = g_environ_setenv(service->environment, "HVPIPE_SOURCE", source, TRUE);
	g_free(source);
	ok = open_session(service, store, error);
	if (ok && config->inbox && hmc_open_inbox(service->state, config->inbox, true, &service->inbox, &why)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", config->name, why.text);
		ok = false;
	}
	if (ok) {
		service->link = hmc_link_new(loop, config->addresses[0], service->state, &hmc_link_default_timing, &ops,
					     service, error);
		ok = service->link;
	}
	for (int i = 1; ok && config->addresses[i]; i++)
		ok = hmc_link_add(service->link, config->addresses[i], error);
	if (!ok)
		g_clear_pointer(&service, hmc_service_free);
	return service;
}

void hmc_service_start(struct hmc_service *service)
{
	hmc_link_start(service->link);
}

const struct hmc_link_config *hmc_service_config(const struct hmc_service *service)
{
	return service->config;
}

bool hmc_service_has_failed(const struct hmc_service *service)
{
	return service->failed;
}

void hmc_service_fail(struct hmc_service *service, const GError *error)
{
	hmc_link_fail(service->link, g_error_copy(error));
}

void hmc_service_end(struct hmc_service *service)
{
	g_clear_pointer(&service->handler, hmc_handler_cancel);
	hmc_link_end(service->link);
}

bool hmc_service_has_ended(const struct hmc_service *service)
{
	return hmc_link_has_ended(service->link);
}

void hmc_service_free(struct hmc_service *service)
{
	g_clear_pointer(&service->handler, hmc_handler_cancel);
	if (service->link)
		hmc_link_free(service->link);
	if (service->inbox.dir >= 0)
		file_receiver_close(&service->inbox);
	if (service->state)
		hmc_state_close(service->state);
	hmc_link_config_free(service->config);
	g_strfreev(service->environment);
	g_free(service->last_error);
	g_free(service);
}

/*
 * Status
 */

static void add_number(struct json_object *object, const char *key, uint64_t number)
{
	json_object_object_add(object, key, json_object_new_uint64(number));
}

/* Whatever the text has is printable UTF-8 then. */
static void add_text(struct json_object *object, const char *key, const char *text)
{
	char *shown = text ? escape_text(text, strlen(text), ESCAPE_LINE) : NULL;

	json_object_object_add(object, key, shown ? json_object_new_string(shown) : NULL);
	free(shown);
}

static void add_hex(struct json_object *object, const char *key, uint64_t number, int digits)
{
	char text[32];

	g_snprintf(text, sizeof(text), "%0*" PRIx64, digits, number);
	add_text(object, key, text);
}

struct json_object *hmc_service_status(const struct hmc_service *service)
{
	const struct hmc_state *state = service->state;
	struct json_object *object = json_object_new_object();
	char *source = hmc_source_name(service->config->source);
	bool up = hmc_link_is_up(service->link);

	add_text(object, "partition", service->config->partition);
	add_text(object, "source", source);
	add_number(object, "source_id", service->config->source);
	add_text(object, "connection", service->failed ? "failed" : hmc_link_phase(service->link));
	add_text(object, "address", hmc_link_address(service->link));
	add_text(object, "pipe", !up ? NULL : hmc_link_is_enabled(service->link) ? "enabled" : "disabled");
	add_hex(object, "session", hmc_state_session(state), 16);
	add_hex(object, "epoch", hmc_state_epoch(state), 16);
	add_number(object, "received", hmc_state_taken(state));
	add_number(object, "sent", hmc_state_queued(state));
	add_number(object, "acknowledged", hmc_state_acknowledged(state));
	add_number(object, "refused", service->refused);
	add_number(object, "files", service->files);
	add_number(object, "outages", service->outages);
	add_text(object, "last_error", service->last_error);
	g_free(source);
	return object;
}
