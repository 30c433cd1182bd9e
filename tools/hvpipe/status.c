// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe status: the state of the pipe, which process holds which source, and the counters of hvpiped. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A number of the driver's, or "-" if it does not tell it. */
static const char *number_text(uint64_t number, char text[static 24])
{
	if (number == HVPIPE_UNKNOWN)
		return "-";
	snprintf(text, 24, "%" PRIu64, number);
	return text;
}

static const char *state_text(const char *state)
{
	return strcmp(state, "unknown") ? state : "-";
}

/* 0: this driver does not tell the source, so it may be the wanted one. */
static bool is_wanted(uint32_t source)
{
	return !options.source_given || !source || source == options.source;
}

static int print_row(const struct hvpipe_holder *holder, void *data)
{
	char *command = escape_text(holder->command, strlen(holder->command), ESCAPE_LINE);
	char source[16] = "-", texts[5][24];
	bool *header_wanted = data;

	if (!is_wanted(holder->source))
		goto out;
	if (*header_wanted)
		printf("%-10s  %-9s  %10s  %12s  %10s  %12s  %6s  %7s  %s\n", "SOURCE", "STATE", "SENT", "BYTES",
		       "RECEIVED", "BYTES", "HELD", "PID", "COMMAND");
	*header_wanted = false;
	if (holder->source)
		snprintf(source, sizeof(source), "0x%08" PRIx32, holder->source);
	printf("%-10s  %-9s  %10s  %12s  %10s  %12s  %6s  %7d  %s\n", source, state_text(holder->state),
	       number_text(holder->sent, texts[0]), number_text(holder->sent_bytes, texts[1]),
	       number_text(holder->received, texts[2]), number_text(holder->received_bytes, texts[3]),
	       number_text(holder->held, texts[4]), (int)holder->pid, command ? command : "");
out:
	free(command);
	return 0;
}

static int print_line(const char *line, void *data)
{
	char *text = escape_text(line, strlen(line), ESCAPE_LINE);

	if (text)
		puts(text);
	free(text);
	return 0;
}

/* What follows "NAME=" in a line of hvpiped's, up to the next name; the last two kinds of value may have spaces. */
static void add_values(struct json_object *object, char *rest)
{
	while (rest && *rest) {
		char *name = rest, *value = strchr(rest, '='), *end;

		if (!value)
			return;
		*value++ = '\0';
		end = strcmp(name, "problem") && strcmp(name, "command") ? strchr(value, ' ') : NULL;
		if (end)
			*end++ = '\0';
		rest = end;
		if (*value && strspn(value, "0123456789") == strlen(value))
			json_object_object_add(object, name, json_object_new_uint64(strtoull(value, NULL, 10)));
		else
			json_object_object_add(object, name, json_object_new_string(value));
	}
}

/* The list of this name in @data, made when it is needed. */
static struct json_object *get_list(struct json_object *top, const char *name)
{
	struct json_object *list;

	if (!json_object_object_get_ex(top, name, &list)) {
		list = json_object_new_array();
		json_object_object_add(top, name, list);
	}
	return list;
}

static int add_line(const char *line, void *data)
{
	char *copy = escape_text(line, strlen(line), ESCAPE_LINE), *rest;
	struct json_object *object = json_object_new_object();

	if (!copy)
		die(EXIT_FAILURE, "no memory");
	rest = strchr(copy, ' ');
	if (rest)
		*rest++ = '\0';
	add_values(object, rest);
	if (!strcmp(copy, "daemon"))
		json_object_object_add(data, "daemon", object);
	else if (!strcmp(copy, "source"))
		json_object_array_add(get_list(data, "sources"), object);
	else if (!strcmp(copy, "client"))
		json_object_array_add(get_list(data, "clients"), object);
	else
		json_object_put(object);
	free(copy);
	return 0;
}

static void add_number(struct json_object *object, const char *name, uint64_t number)
{
	json_object_object_add(object, name, number == HVPIPE_UNKNOWN ? NULL : json_object_new_uint64(number));
}

static void add_state(struct json_object *object, const char *state)
{
	json_object_object_add(object, "state", strcmp(state, "unknown") ? json_object_new_string(state) : NULL);
}

static int add_holder(const struct hvpipe_holder *holder, void *data)
{
	char *command = escape_text(holder->command, strlen(holder->command), ESCAPE_LINE);
	struct json_object *object = json_object_new_object();
	char source[16];

	snprintf(source, sizeof(source), "0x%08" PRIx32, holder->source);
	if (is_wanted(holder->source)) {
		json_object_object_add(object, "source", holder->source ? json_object_new_string(source) : NULL);
		add_state(object, holder->state);
		add_number(object, "sent", holder->sent);
		add_number(object, "sent_bytes", holder->sent_bytes);
		add_number(object, "received", holder->received);
		add_number(object, "received_bytes", holder->received_bytes);
		add_number(object, "held", holder->held);
		add_number(object, "pid", holder->pid);
		json_object_object_add(object, "command", json_object_new_string(command ? command : ""));
		json_object_array_add(get_list(data, "holders"), object);
	} else {
		json_object_put(object);
	}
	free(command);
	return 0;
}

static int print_json(const struct hvpipe_status *status)
{
	struct json_object *top = json_object_new_object(), *pipe = json_object_new_object();

	if (status) {
		add_state(pipe, status->state);
		add_number(pipe, "handles", status->handles);
		add_number(pipe, "dropped", status->dropped);
		json_object_object_add(top, "pipe", pipe);
	} else {
		json_object_put(pipe);
	}
	get_list(top, "holders");
	if (hvpipe_each_holder(add_holder, top) < 0)
		die(EXIT_FAILURE, "/proc: %s", strerror(errno));
	if (!options.direct)
		hvpipe_each_daemon_line(add_line, top);
	puts(json_object_to_json_string_ext(top, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED));
	json_object_put(top);
	return EXIT_SUCCESS;
}

static int ignore_line(const char *line, void *data)
{
	return 1;
}

int run_status(void)
{
	struct hvpipe_status status;
	bool header_wanted = true;
	char texts[2][24];
	bool seen = true;

	if (hvpipe_get_status(&status)) {
		int err = errno;

		/* A user who may not open the device may ask hvpiped. */
		seen = false;
		if (options.direct || hvpipe_each_daemon_line(ignore_line, NULL) < 0)
			die_no_device(err);
	}
	if (options.json)
		return print_json(seen ? &status : NULL);
	if (seen)
		printf("pipe %s, %s %s open, %s messages dropped that came for sources not open\n",
		       state_text(status.state), number_text(status.handles, texts[0]),
		       status.handles == 1 ? "source" : "sources", number_text(status.dropped, texts[1]));
	if (hvpipe_each_holder(print_row, &header_wanted) < 0)
		die(EXIT_FAILURE, "/proc: %s", strerror(errno));
	if (!options.direct && hvpipe_each_daemon_line(print_line, NULL) < 0 && errno != ECONNREFUSED)
		report("hvpiped: %s", strerror(errno));
	return EXIT_SUCCESS;
}
