// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * File messages that the other side wrote, and answers to files: each is refused or has one meaning; whatever is stored
 * is what came, under its own name in its directory; each answer is one that its sender understands; and JSON is valid.
 * The input is messages, each behind its length in two bytes.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sha2.h>
#include <sys/stat.h>

#include <json-c/json.h>

#include "file-message.h"
#include "json-lines.h"

static char *place;
static int dir = -1;

static void remove_place(void)
{
	rmdir(place);
}

static void set_up(void)
{
	place = make_place();
	dir = open(place, O_RDONLY | O_DIRECTORY);
	CHECK(dir >= 0);
	atexit(remove_place);
}

/* A good message has one meaning, and the meaning has one message. */
static void check_parse(const uint8_t *message, size_t len, struct file_message *msg)
{
	struct file_message_error error = { "" };
	char line[FILE_MESSAGE_MAX];
	ssize_t n;

	CHECK(*msg->name && strlen(msg->name) <= FILE_MESSAGE_NAME_MAX && !strchr(msg->name, '/'));
	CHECK(msg->len <= msg->size && msg->offset <= msg->size - msg->len);
	CHECK((const uint8_t *)msg->data >= message && (const uint8_t *)msg->data + msg->len == message + len);
	n = file_message_format(line, msg->id, msg->size, msg->offset, msg->name, &error);
	CHECK(n > 0 && n + msg->len == len && !memcmp(line, message, n));
}

/* The file of this name ends with the chunk that completed it, and the digest is its own. */
static void check_complete(const char *name, const struct file_message *msg, const char *sha256)
{
	char path[PATH_MAX], found[SHA256_DIGEST_STRING_LENGTH];
	uint8_t stored[FILE_MESSAGE_MAX];
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW);
	struct stat st;

	CHECK(fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == msg->size);
	CHECK(pread(fd, stored, msg->len, msg->offset) == (ssize_t)msg->len && !memcmp(stored, msg->data, msg->len));
	close(fd);
	snprintf(path, sizeof(path), "%s/%s", place, name);
	CHECK(SHA256File(path, found) && !strcmp(found, sha256));
}

static void clear(void)
{
	DIR *all = fdopendir(dup(dir));
	struct dirent *entry;

	rewinddir(all);
	while ((entry = readdir(all)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			CHECK(!unlinkat(dir, entry->d_name, 0));
	closedir(all);
}

/* A message that is an answer has one meaning, and the meaning has one message. */
static void check_answer(const uint8_t *message, size_t len)
{
	char again[FILE_ANSWER_MAX];
	struct file_answer answer;

	if (!file_answer_parse(&answer, message, len))
		return;
	CHECK(file_answer_format(&answer, again) == len && !memcmp(again, message, len));
}

/* What the receiver answers is understood, and says what the receiver did. */
static void check_own_answer(const struct file_receiver *receiver, enum file_receiver_result result)
{
	struct file_message_error error;
	struct file_answer answer;
	struct file_sender sender = { .id = receiver->id, .done = true };

	if (!receiver->answer_len) {
		CHECK(result != FILE_RECEIVER_COMPLETE && result != FILE_RECEIVER_REFUSED);
		return;
	}
	CHECK(file_answer_parse(&answer, receiver->answer, receiver->answer_len));
	CHECK(answer.id == receiver->id);
	CHECK(result == FILE_RECEIVER_REFUSED ? !answer.stored : answer.stored);
	strcpy(sender.sha256, receiver->sha256);
	CHECK(file_sender_take(&sender, receiver->answer, receiver->answer_len, &error) ==
	      (answer.stored			  ? FILE_OUTCOME_STORED :
	       answer.refusal == FILE_REFUSAL_GAP ? FILE_OUTCOME_AGAIN :
						    FILE_OUTCOME_REFUSED));
}

static void check_json(char *line, const uint8_t *data, size_t len)
{
	struct json_object *object = json_tokener_parse(line), *text;

	CHECK(object && strchr(line, '\n') == line + strlen(line) - 1);
	for (const char *c = line; *c && *c != '\n'; c++)
		CHECK((unsigned char)*c >= ' ' && *c != 0x7f);
	if (data && json_object_object_get_ex(object, "text", &text))
		CHECK((size_t)json_object_get_string_len(text) == len &&
		      !memcmp(json_object_get_string(text), data, len));
	json_object_put(object);
	free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct file_message_error error;
	struct file_receiver receiver;

	if (dir < 0)
		set_up();
	CHECK(!file_receiver_open(&receiver, place, false, &error));
	while (in.left) {
		enum file_receiver_result result;
		size_t max = take_word(&in), len, answer_len;
		uint8_t *message = take_bytes(&in, max, &len);
		char answer[FILE_ANSWER_MAX];
		struct file_message msg;
		bool good = !file_message_parse(&msg, message, len, &error);

		CHECK(good || ((errno == EBADMSG || errno == EILSEQ) && *error.text));
		if (good)
			check_parse(message, len, &msg);
		check_answer(message, len);
		CHECK(file_message_refuse(message, len, "no", answer, &answer_len) == msg.answerable);
		check_json(json_message("hmc1", 0, message, len), message, len);

		result = file_receiver_take(&receiver, message, len, &error);
		CHECK((result == FILE_RECEIVER_NONE) == !msg.answerable);
		CHECK(good || result == FILE_RECEIVER_NONE || result == FILE_RECEIVER_REFUSED ||
		      result == FILE_RECEIVER_AGAIN);
		CHECK((result != FILE_RECEIVER_NONE && result != FILE_RECEIVER_REFUSED) || *error.text);
		if (result != FILE_RECEIVER_NONE) {
			CHECK(receiver.id == msg.id && !strcmp(receiver.name, msg.name));
			check_own_answer(&receiver, result);
			check_json(json_file("hmc1", &receiver, result == FILE_RECEIVER_REFUSED ? error.text : NULL),
				   NULL, 0);
		} else {
			CHECK(!receiver.answer_len);
		}
		if (result == FILE_RECEIVER_MORE)
			CHECK(msg.offset + msg.len < msg.size);
		if (result == FILE_RECEIVER_COMPLETE) {
			CHECK(msg.offset + msg.len == msg.size);
			check_complete(receiver.name, &msg, receiver.sha256);
		}
		free(message);
	}
	file_receiver_close(&receiver);
	clear();
	return 0;
}
