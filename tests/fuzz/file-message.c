// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * File messages that the other side wrote: each is refused or has one meaning, and whatever is stored is what came,
 * under its own name in its directory. The input is messages, each behind its length in two bytes.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "file-message.h"

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
	n = file_message_format(line, msg->size, msg->offset, msg->name, &error);
	CHECK(n > 0 && n + msg->len == len && !memcmp(line, message, n));
}

/* The file of this name ends with the chunk that completed it. */
static void check_complete(const char *name, const struct file_message *msg)
{
	uint8_t stored[FILE_MESSAGE_MAX];
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW);
	struct stat st;

	CHECK(fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == msg->size);
	CHECK(pread(fd, stored, msg->len, msg->offset) == (ssize_t)msg->len && !memcmp(stored, msg->data, msg->len));
	close(fd);
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
		size_t max = take_word(&in), len;
		uint8_t *message = take_bytes(&in, max, &len);
		struct file_message msg;
		bool good = !file_message_parse(&msg, message, len, &error);

		CHECK(good || (errno == EBADMSG && *error.text));
		if (good)
			check_parse(message, len, &msg);
		result = file_receiver_take(&receiver, message, len, &error);
		CHECK(good || result == FILE_RECEIVER_ERROR);
		CHECK(result != FILE_RECEIVER_ERROR || *error.text);
		if (result != FILE_RECEIVER_ERROR) {
			CHECK(!strcmp(receiver.name, msg.name));
			CHECK((result == FILE_RECEIVER_COMPLETE) == (msg.offset + msg.len == msg.size));
		}
		if (result == FILE_RECEIVER_COMPLETE)
			check_complete(receiver.name, &msg);
		free(message);
	}
	file_receiver_close(&receiver);
	clear();
	return 0;
}
