// SPDX-License-Identifier: GPL-2.0-or-later
/* What `recv --json` prints. */
#include "json-lines.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static void add_text(struct json_object *object, const char *key, const char *text, size_t len)
{
	json_object_object_add(object, key, json_object_new_string_len(text, (int)len));
}

/* Add bytes of the other side under @key, or under @key_hex. */
static void add_bytes(struct json_object *object, const char *key, const void *data, size_t len)
{
	char *escaped = escape_text(data, len, ESCAPE_LINES);
	const unsigned char *bytes = data;

	if (escaped && strlen(escaped) == len && !memcmp(escaped, data, len)) {
		add_text(object, key, data, len);
	} else {
		char *hex = malloc(2 * len + 1), name[32];

		snprintf(name, sizeof(name), "%s_hex", key);
		for (size_t i = 0; hex && i < len; i++)
			sprintf(hex + 2 * i, "%02x", bytes[i]);
		if (hex)
			add_text(object, name, hex, 2 * len);
		free(hex);
	}
	free(escaped);
}

static char *to_line(struct json_object *object)
{
	const char *text =
		json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	char *line;

	if (!text || asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	json_object_put(object);
	return line;
}

char *json_message(const char *source, uint64_t sequence, const void *data, size_t len)
{
	struct json_object *object = json_object_new_object();

	add_text(object, "source", source, strlen(source));
	if (sequence)
		json_object_object_add(object, "sequence", json_object_new_uint64(sequence));
	json_object_object_add(object, "bytes", json_object_new_int64((int64_t)len));
	add_bytes(object, "text", data, len);
	return to_line(object);
}

char *json_file(const char *source, const struct file_receiver *receiver, const char *refusal)
{
	struct json_object *object = json_object_new_object();
	char id[17];

	snprintf(id, sizeof(id), "%016" PRIx64, receiver->id);
	add_text(object, "source", source, strlen(source));
	add_text(object, "id", id, strlen(id));
	add_bytes(object, "file", receiver->name, strlen(receiver->name));
	if (refusal) {
		char *text = escape_text(refusal, strlen(refusal), ESCAPE_LINE);

		json_object_object_add(object, "refused", json_object_new_string(text ? text : ""));
		free(text);
		return to_line(object);
	}
	json_object_object_add(object, "bytes", json_object_new_int64((int64_t)receiver->size));
	add_text(object, "sha256", receiver->sha256, strlen(receiver->sha256));
	return to_line(object);
}
