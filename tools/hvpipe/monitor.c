// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe monitor: what passes between programs and a source, by observing at hvpiped. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *direction_name(const struct hvpipe_observed *observed)
{
	return observed->error == ECONNRESET ? "lost" : observed->direction == HVPIPE_SEND ? "sent" : "received";
}

/* One line for people: time, what happened, bytes, and the message's begin. */
static void print_text(const char *time, const struct hvpipe_observed *observed, const char *message)
{
	char *text = escape_text(message, observed->len, ESCAPE_LINE);

	printf("%s  %s  %-8s  %5zu", time, options.source_name, direction_name(observed), observed->len);
	if (observed->error && observed->error != ECONNRESET)
		printf("  failed: %s", strerror(observed->error));
	if (observed->missed)
		printf("  (%" PRIu32 " not shown before this)", observed->missed);
	printf("  %.60s\n", text ? text : "");
	free(text);
}

/* One object a line. The message is a string in which \xNN stands for what is no text. */
static void print_json(const char *time, const struct hvpipe_observed *observed, const char *message)
{
	char *text = escape_text(message, observed->len, ESCAPE_ALL);
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "time", json_object_new_string(time));
	json_object_object_add(object, "source", json_object_new_string(options.source_name));
	json_object_object_add(object, "direction", json_object_new_string(direction_name(observed)));
	json_object_object_add(object, "length", json_object_new_uint64(observed->len));
	json_object_object_add(object, "error",
			       observed->error ? json_object_new_string(strerror(observed->error)) : NULL);
	json_object_object_add(object, "missed", json_object_new_uint64(observed->missed));
	json_object_object_add(object, "message", json_object_new_string(text ? text : ""));
	puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
	json_object_put(object);
	free(text);
}

static void format_time(char text[static 32])
{
	struct timespec now;
	struct tm tm;
	size_t len;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	len = strftime(text, 32, "%FT%T", &tm);
	snprintf(text + len, 32 - len, ".%03ldZ", now.tv_nsec / 1000000);
}

int run_monitor(void)
{
	struct pollfd pfds[2] = { { .events = POLLIN }, { .events = POLLIN } };
	char message[HVPIPE_MAX_RECEIVE], time[32];
	struct hvpipe_observed observed;
	struct hvpipe *pipe;
	uint64_t seen = 0;

	pfds[1].fd = catch_stop();
	pipe = endpoint_open(HVPIPE_OBSERVE);
	pfds[0].fd = hvpipe_get_fd(pipe);
	while (!options.count || seen < options.count) {
		if (poll(pfds, 2, -1) < 0 && errno != EINTR)
			die(EXIT_FAILURE, "poll: %s", strerror(errno));
		if (stop_signal())
			exit(options.count ? EXIT_SIGNAL + stop_signal() : EXIT_SUCCESS);
		if (!pfds[0].revents)
			continue;
		if (hvpipe_observe(pipe, &observed, message, sizeof(message), 0) < 0)
			die(EXIT_FAILURE, "hvpiped: %s",
			    errno == ENOTCONN ? "it ended; start monitor again when it runs" : strerror(errno));
		format_time(time);
		if (options.json)
			print_json(time, &observed, message);
		else
			print_text(time, &observed, message);
		fflush(stdout);
		seen++;
	}
	hvpipe_close(pipe);
	return EXIT_SUCCESS;
}
