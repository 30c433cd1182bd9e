// SPDX-License-Identifier: GPL-2.0-or-later
/* Unit tests of file messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"
#include "file-message.h"
#include "json-lines.h"

const char program_name[] = "test";

/* IDs */
#define PART_A ".00000000000000aa.part"
#define A      "00000000000000aa "
#define B      "00000000000000bb "
#define C      "00000000000000cc "

/* SHA-256 as sha256sum(1) says: of nothing, "abc" and "abcdef" */
#define SHA_EMPTY  "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SHA_ABC	   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define SHA_ABCDEF "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721"

#define NAME_255                                                                                               \
	"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" \
	"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" \
	"0123456789012345678901234567890123456789012345678901234"

/* Each test has a directory of its own and works in it. */
static int make_dir(void **state)
{
	char template[] = "/tmp/test-file-message-XXXXXX";

	*state = mkdtemp(template) ? strdup(template) : NULL;
	return *state ? chdir(*state) : -1;
}

static int remove_dir(void **state)
{
	char command[PATH_MAX];
	int status;

	if (chdir("/"))
		return -1;
	snprintf(command, sizeof(command), "rm -rf '%s'", (char *)*state);
	status = system(command);
	free(*state);
	return status;
}

static void put(const char *path, const void *data, size_t len)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
}

static void assert_file(const char *path, const void *data, size_t len)
{
	char *found = malloc(len + 1);
	FILE *file = fopen(path, "r");

	assert_non_null(found);
	assert_non_null(file);
	assert_int_equal(fread(found, 1, len + 1, file), len);
	assert_memory_equal(found, data, len);
	fclose(file);
	free(found);
}

/* The directory has this file only, or nothing (""). */
static void assert_only(const char *path, const char *name)
{
	char command[300];

	snprintf(command, sizeof(command), "test \"$(ls -A %s)\" = '%s'", path, name);
	assert_int_equal(system(command), 0);
}

static void open_receiver(struct file_receiver *receiver)
{
	struct file_message_error error;

	assert_int_equal(file_receiver_open(receiver, ".", true, &error), 0);
}

/* Have the receiver take a message that is all text. */
static enum file_receiver_result take(struct file_receiver *receiver, const char *message,
				      struct file_message_error *error)
{
	return file_receiver_take(receiver, message, strlen(message), error);
}

static void assert_taken(struct file_receiver *receiver, const char *message, enum file_receiver_result result)
{
	struct file_message_error error;

	assert_int_equal(take(receiver, message, &error), result);
	assert_string_equal(error.text, "");
}

static void assert_answer(const struct file_receiver *receiver, const char *expected)
{
	assert_int_equal(receiver->answer_len, strlen(expected));
	assert_memory_equal(receiver->answer, expected, strlen(expected));
}

/* A message is refused, and the answer says why: `answer` is what stands behind the ID, up to the newline. */
static void assert_refused(struct file_receiver *receiver, const char *message, const char *answer)
{
	struct file_message_error error;
	char expected[FILE_ANSWER_MAX + 1];

	assert_int_equal(take(receiver, message, &error), FILE_RECEIVER_REFUSED);
	assert_string_equal(error.text, strchr(answer, ' ') + 1);
	snprintf(expected, sizeof(expected), "REFUSED %.16s %s\n", message + strlen("FILE "), answer);
	assert_answer(receiver, expected);
}

/* The whole file is stored, and the answer has this digest. */
static void assert_stored(struct file_receiver *receiver, const char *message, const char *sha256)
{
	char expected[FILE_ANSWER_MAX + 1];

	assert_taken(receiver, message, FILE_RECEIVER_COMPLETE);
	snprintf(expected, sizeof(expected), "STORED %.16s %s\n", message + strlen("FILE "), sha256);
	assert_answer(receiver, expected);
	assert_string_equal(receiver->sha256, sha256);
}

/*
 * The format
 */

static void parse_good(void **state)
{
	static const char message[] = "FILE fedcba9876543210 9223372036854775807 12 a b.txt\nabc\ndef";
	struct file_message_error error;
	struct file_message msg;

	assert_int_equal(file_message_parse(&msg, message, sizeof(message) - 1, &error), 0);
	assert_true(msg.id == UINT64_C(0xfedcba9876543210));
	assert_true(msg.size == INT64_MAX);
	assert_true(msg.offset == 12);
	assert_string_equal(msg.name, "a b.txt");
	assert_int_equal(msg.len, 7);
	assert_memory_equal(msg.data, "abc\ndef", 7);

	assert_int_equal(file_message_parse(&msg, "FILE " A "0 0 \xc3\xa4\n", 29, &error), 0);
	assert_int_equal(msg.len, 0);
	assert_string_equal(msg.name, "\xc3\xa4");

	assert_int_equal(file_message_parse(&msg, "FILE " A "0 0 " NAME_255 "\n", 26 + 255 + 1, &error), 0);
	assert_string_equal(msg.name, NAME_255);
}

static void parse_malformed(void **state)
{
	static const struct {
		const char *message;
		const char *text;
	} cases[] = {
		{ "", "not a file message: it does not begin with 'FILE '" },
		{ "FILE", "not a file message: it does not begin with 'FILE '" },
		{ "file 1 0 a\nx", "not a file message: it does not begin with 'FILE '" },
		{ "hello\n", "not a file message: it does not begin with 'FILE '" },
		{ "FILE ", "file message whose first line has no end" },
		{ "FILE " A "1 0 a", "file message whose first line has no end" },
		{ "FILE 1 0 a\nx", "ID of a file message is not 16 hexadecimal digits and a space" },
		{ "FILE 00000000000000AA 1 0 a\nx", "ID of a file message is not 16 hexadecimal digits and a space" },
		{ "FILE 0000000000000aa 1 0 a\nx", "ID of a file message is not 16 hexadecimal digits and a space" },
		{ "FILE 000000000000000aa 1 0 a\nx", "ID of a file message is not 16 hexadecimal digits and a space" },
		{ "FILE 00000000000000aa\nx", "ID of a file message is not 16 hexadecimal digits and a space" },
		{ "FILE " A "\n", "size of a file message is not a decimal number and a space" },
		{ "FILE " A "x 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE " A "-1 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE " A "+1 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE " A "0x1 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE " A "01 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE " A " 1 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE " A "1\t0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE " A "1\n", "size of a file message is not a decimal number and a space" },
		{ "FILE " A "9223372036854775808 0 a\nx", "size of a file message beyond 9223372036854775807" },
		{ "FILE " A "99999999999999999999999 0 a\nx", "size of a file message beyond 9223372036854775807" },
		{ "FILE " A "1 \n", "offset of a file message is not a decimal number and a space" },
		{ "FILE " A "1 a\nx", "offset of a file message is not a decimal number and a space" },
		{ "FILE " A "1 0\nx", "offset of a file message is not a decimal number and a space" },
		{ "FILE " A "1 00 a\nx", "offset of a file message is not a decimal number and a space" },
		{ "FILE " A "1 18446744073709551616 a\nx", "offset of a file message beyond 9223372036854775807" },
		{ "FILE " A "1 0 \nx", "file message without a name" },
		{ "FILE " A "1 0 .\nx", "file name '.' begins with a dot" },
		{ "FILE " A "1 0 ..\nx", "file name '..' begins with a dot" },
		{ "FILE " A "1 0 .bashrc\nx", "file name '.bashrc' begins with a dot" },
		{ "FILE " A "1 0 .a.part\nx", "file name '.a.part' begins with a dot" },
		{ "FILE " A "1 0 /etc/passwd\nx", "'/' in file name '/etc/passwd'" },
		{ "FILE " A "1 0 ../a\nx", "'/' in file name '../a'" },
		{ "FILE " A "1 0 a\tb\nx", "control character 0x09 at byte 1 of a file name" },
		{ "FILE " A "1 0 a/\x1b[2J\nx", "control character 0x1b at byte 2 of a file name" },
		{ "FILE " A "1 0 a\xc2\x9b"
		  "2J\nx",
		  "control character 0xc2 at byte 1 of a file name" },
		{ "FILE " A "1 0 a\x7f\nx", "control character 0x7f at byte 1 of a file name" },
		{ "FILE " A "1 0 a\r\nx", "control character 0x0d at byte 1 of a file name" },
		{ "FILE " A "1 0 " NAME_255 "5\nx", "file name of 256 bytes: at most 255 can be sent" },
		{ "FILE " A "1 2 a\nx", "a: 1 bytes at offset 2 go beyond the file's size of 1" },
		{ "FILE " A "1 1 a\nx", "a: 1 bytes at offset 1 go beyond the file's size of 1" },
		{ "FILE " A "1 0 a\nxy", "a: 2 bytes at offset 0 go beyond the file's size of 1" },
		{ "FILE " A "0 0 a\nx", "a: 1 bytes at offset 0 go beyond the file's size of 0" },
		{ "FILE " A "0 9223372036854775807 a\n",
		  "a: 0 bytes at offset 9223372036854775807 go beyond the file's size of 0" },
		{ "FILE " A "2 0 a\n", "a: no bytes at offset 0 of 2" },
		{ "FILE " A "2 2 a\n", "a: no bytes at offset 2 of 2" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		/* A copy of just the right size, for valgrind to see reads behind the end. */
		size_t len = strlen(cases[i].message);
		char *message = malloc(len ? len : 1);
		struct file_message_error error;
		struct file_message msg;

		assert_non_null(message);
		memcpy(message, cases[i].message, len);
		assert_int_equal(file_message_parse(&msg, message, len, &error), -1);
		assert_true(errno == EBADMSG || errno == EILSEQ);
		assert_string_equal(error.text, cases[i].text);
		/* Whoever sent it can be told. */
		assert_int_equal(msg.answerable,
				 !strncmp(cases[i].message, "FILE " A, 22) && strchr(cases[i].message, '\n'));
		free(message);
	}
}

static void parse_nul(void **state)
{
	struct file_message_error error;
	struct file_message msg;

	assert_int_equal(file_message_parse(&msg, "FILE " A "1 0 a\0b\nx", 31, &error), -1);
	assert_string_equal(error.text, "control character 0x00 at byte 1 of a file name");
	assert_int_equal(file_message_parse(&msg, "FILE " A "1\0 0 a\nx", 30, &error), -1);
}

static void parse_too_long(void **state)
{
	char message[FILE_MESSAGE_MAX + 1] = "FILE " A "100000 0 a\n";
	struct file_message_error error;
	struct file_message msg;

	assert_int_equal(file_message_parse(&msg, message, sizeof(message), &error), -1);
	assert_string_equal(error.text, "message of 4089 bytes: at most 4088 are possible");
	assert_int_equal(file_message_parse(&msg, message, sizeof(message) - 1, &error), 0);
}

static void format_parsed(void **state)
{
	struct file_message_error error;
	char line[FILE_MESSAGE_MAX];
	struct file_message msg;
	ssize_t len;

	len = file_message_format(line, UINT64_MAX, INT64_MAX, INT64_MAX - 1, NAME_255, &error);
	assert_true(len > 0);
	line[len] = 'x';
	assert_int_equal(file_message_parse(&msg, line, len + 1, &error), 0);
	assert_true(msg.id == UINT64_MAX && msg.size == INT64_MAX && msg.offset == INT64_MAX - 1 && msg.len == 1);

	assert_int_equal(file_message_format(line, 0, 0, 0, "a/b", &error), -1);
	assert_int_equal(errno, EILSEQ);
	assert_int_equal(file_message_format(line, 0, 0, 0, "", &error), -1);
	assert_int_equal(file_message_format(line, 0, 0, 0, NAME_255 "5", &error), -1);
}

static void answer_good(void **state)
{
	static const char *const answers[] = {
		"STORED 00000000000000aa " SHA_ABC "\n",
		"REFUSED ffffffffffffffff malformed x\n",
		"REFUSED 0123456789abcdef name dir: a directory has this name\n",
		"REFUSED 0123456789abcdef gap a\n",
		"REFUSED 0123456789abcdef storage \xc3\xa4\n",
		"REFUSED 0123456789abcdef unwanted a \\x1b b\n",
	};

	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		char again[FILE_ANSWER_MAX];
		struct file_answer answer;

		assert_true(file_answer_parse(&answer, answers[i], strlen(answers[i])));
		assert_int_equal(answer.stored, i == 0);
		assert_int_equal(answer.refusal, i ? i - 1 : 0);
		assert_int_equal(file_answer_format(&answer, again), strlen(answers[i]));
		assert_memory_equal(again, answers[i], strlen(answers[i]));
	}
}

static void answer_malformed(void **state)
{
	static const char *const answers[] = {
		"",
		"STORED\n",
		"STORED 00000000000000aa\n",
		"STORED 00000000000000aa " SHA_ABC,
		"STORED 00000000000000aa " SHA_ABC " \n",
		"STORED 00000000000000AA " SHA_ABC "\n",
		"STORED 0000000000000aa " SHA_ABC "\n",
		"STORED 00000000000000aa b" SHA_ABC "\n",
		"STORED 00000000000000aa Ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n",
		"REFUSED 00000000000000aa name \n",
		"REFUSED 00000000000000aa name\n",
		"REFUSED 00000000000000aa names x\n",
		"REFUSED 00000000000000aa x\n",
		"REFUSED 00000000000000aa name a\nb\n",
		"REFUSED 00000000000000aa name \x1b[2J\n",
		"REFUSED 00000000000000aa name \xc2\x9b\n",
		"hello\n",
	};
	struct file_answer answer;

	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		assert_false(file_answer_parse(&answer, answers[i], strlen(answers[i])));
}

/* Whatever the reason has in it, an answer is one line of good text. */
static void answer_escaped(void **state)
{
	struct file_answer answer = { .id = 0xaa, .refusal = FILE_REFUSAL_NAME, .text = "a\x1b[2J\nb\xff" }, again;
	static const char expected[] = "REFUSED 00000000000000aa name a\\x1b[2J\\nb\\xff\n";
	char message[FILE_ANSWER_MAX];
	size_t len;

	len = file_answer_format(&answer, message);
	assert_int_equal(len, strlen(expected));
	assert_memory_equal(message, expected, len);
	strcpy(answer.text, "\x1b\x1b");
	for (int i = 0; i < 132; i++)
		strcat(answer.text, "\xe2\x82\xac");
	len = file_answer_format(&answer, message);
	assert_true(file_answer_parse(&again, message, len));
	/* No half character at the end. */
	assert_int_equal(strlen(again.text), 2 * 4 + 130 * 3);
}

/* The answer of a program that stores no files: one at the begin of a file, one at its end. */
static void answer_unwanted(void **state)
{
	static const char expected[] = "REFUSED 00000000000000aa unwanted not here\n";
	char answer[FILE_ANSWER_MAX];
	size_t len;

	assert_true(file_message_refuse("FILE " A "3 0 a\nx", 29, "not here", answer, &len));
	assert_int_equal(len, strlen(expected));
	assert_memory_equal(answer, expected, len);
	assert_true(file_message_refuse("FILE " A "3 1 a\nx", 29, "not here", answer, &len));
	assert_int_equal(len, 0);
	assert_true(file_message_refuse("FILE " A "3 2 a\nx", 29, "not here", answer, &len));
	assert_int_equal(len, strlen(expected));
	assert_true(file_message_refuse("FILE " A "1 0 .a\nx", 30, "not here", answer, &len));
	assert_int_equal(len, strlen(expected));
	assert_false(file_message_refuse("FILE 1 0 a\nx", 12, "not here", answer, &len));
	assert_false(file_message_refuse("hello", 5, "not here", answer, &len));
	assert_false(file_message_refuse(expected, strlen(expected), "not here", answer, &len));
}

/*
 * The sender
 */

static void carry_all_sizes(void **state)
{
	static const size_t sizes[] = { 0, 1, 4087, 4088, 4089, 4073, 4074, 4032, 4033, 4034, 100000, 100000, 100000 };
	static const size_t message_sizes[] = { FILE_MESSAGE_MAX, FILE_MESSAGE_DEFAULT, 300 };
	struct file_receiver receiver;

	assert_int_equal(mkdir("in", 0700), 0);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct file_message_error error;
		char message[FILE_MESSAGE_MAX];
		struct file_sender sender;
		enum file_receiver_result result = FILE_RECEIVER_MORE;
		char *data = malloc(sizes[i] + 1);
		ssize_t len;

		assert_non_null(data);
		for (size_t j = 0; j < sizes[i]; j++)
			data[j] = j * 7 + j / 4096;
		put("file name", data, sizes[i]);
		assert_int_equal(file_receiver_open(&receiver, "in", false, &error), 0);
		assert_int_equal(file_sender_open(&sender, "./file name", message_sizes[i % 3], &error), 0);
		while ((len = file_sender_next(&sender, message, &error)) > 0) {
			assert_int_equal(result, FILE_RECEIVER_MORE);
			assert_true(len <= (ssize_t)message_sizes[i % 3]);
			result = file_receiver_take(&receiver, message, len, &error);
			assert_string_equal(error.text, "");
		}
		assert_int_equal(len, 0);
		assert_int_equal(result, FILE_RECEIVER_COMPLETE);
		assert_string_equal(receiver.name, "file name");
		assert_file("in/file name", data, sizes[i]);
		assert_int_equal(file_sender_take(&sender, receiver.answer, receiver.answer_len, &error),
				 FILE_OUTCOME_STORED);
		file_sender_close(&sender);
		file_receiver_close(&receiver);
		free(data);
	}
	assert_only("in", "file name");
}

static void open_unsendable(void **state)
{
	struct file_message_error error;
	struct file_sender sender;

	assert_int_equal(file_sender_open(&sender, "none", FILE_MESSAGE_MAX, &error), -1);
	assert_int_equal(errno, ENOENT);
	assert_string_equal(error.text, "none: No such file or directory");
	assert_int_equal(mkdir("dir", 0700), 0);
	assert_int_equal(file_sender_open(&sender, "dir", FILE_MESSAGE_MAX, &error), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(file_sender_open(&sender, "dir/", FILE_MESSAGE_MAX, &error), -1);
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(file_sender_open(&sender, "fifo", FILE_MESSAGE_MAX, &error), -1);
	assert_string_equal(error.text, "fifo: not a regular file, and a file message must name the size");
	put(".a", "x", 1);
	assert_int_equal(file_sender_open(&sender, ".a", FILE_MESSAGE_MAX, &error), -1);
	assert_string_equal(error.text, "file name '.a' begins with a dot");
}

static void open_needs_room(void **state)
{
	struct file_message_error error;
	struct file_sender sender;

	put("a", "xy", 2);
	assert_int_equal(file_sender_open(&sender, "a", strlen("FILE " A "2 2 a\n"), &error), -1);
	assert_string_equal(error.text, "a: messages of 28 bytes are too small for a file of this name");
	assert_int_equal(file_sender_open(&sender, "a", strlen("FILE " A "2 2 a\n") + 1, &error), 0);
	file_sender_close(&sender);
}

static void send_cut_short(void **state)
{
	char data[10000] = "", message[FILE_MESSAGE_MAX];
	struct file_message_error error;
	struct file_sender sender;

	put("a", data, sizeof(data));
	assert_int_equal(file_sender_open(&sender, "a", FILE_MESSAGE_MAX, &error), 0);
	assert_int_equal(file_sender_next(&sender, message, &error), FILE_MESSAGE_MAX);
	assert_int_equal(truncate("a", 5000), 0);
	assert_int_equal(file_sender_next(&sender, message, &error), -1);
	assert_int_equal(errno, EIO);
	assert_string_equal(error.text, "a: became shorter while it was sent: 10000 bytes before, 5000 now");
	file_sender_close(&sender);
}

static enum file_outcome answer_to(struct file_sender *sender, const char *format, const char *text,
				   struct file_message_error *error)
{
	char answer[FILE_ANSWER_MAX + 1];

	snprintf(answer, sizeof(answer), format, sender->id, text);
	return file_sender_take(sender, answer, strlen(answer), error);
}

/* Only the answer to this file counts, and "stored" only with the digest of what was sent. */
static void send_outcomes(void **state)
{
	static const char other[] = "STORED 0000000000000001 " SHA_ABC "\n";
	struct file_message_error error;
	char message[FILE_MESSAGE_MAX];
	struct file_sender sender;

	put("a", "abc", 3);
	assert_int_equal(file_sender_open(&sender, "a", FILE_MESSAGE_MAX, &error), 0);
	assert_int_equal(answer_to(&sender, "STORED %016" PRIx64 " %s\n", SHA_ABC, &error), FILE_OUTCOME_OTHER);
	assert_true(file_sender_next(&sender, message, &error) > 0);
	assert_int_equal(file_sender_take(&sender, "hello", 5, &error), FILE_OUTCOME_NONE);
	assert_int_equal(file_sender_take(&sender, message, 30, &error), FILE_OUTCOME_NONE);
	assert_int_equal(file_sender_take(&sender, other, strlen(other), &error), FILE_OUTCOME_OTHER);
	assert_int_equal(answer_to(&sender, "STORED %016" PRIx64 " %s\n", SHA_ABC, &error), FILE_OUTCOME_STORED);
	assert_int_equal(answer_to(&sender, "REFUSED %016" PRIx64 " storage %s\n", "disk full", &error),
			 FILE_OUTCOME_REFUSED);
	assert_string_equal(error.text, "disk full");
	file_sender_close(&sender);
}

/* After a gap, or with another digest at the other side, it is sent three times in all, with the same ID. */
static void send_again(void **state)
{
	struct file_message_error error;
	char message[FILE_MESSAGE_MAX];
	struct file_sender sender;
	uint64_t id;

	put("a", "abc", 3);
	assert_int_equal(file_sender_open(&sender, "a", FILE_MESSAGE_MAX, &error), 0);
	id = sender.id;
	assert_int_equal(file_sender_next(&sender, message, &error), 31);
	assert_int_equal(answer_to(&sender, "REFUSED %016" PRIx64 " gap %s\n", "lost", &error), FILE_OUTCOME_AGAIN);
	assert_int_equal(file_sender_next(&sender, message, &error), 31);
	assert_int_equal(answer_to(&sender, "STORED %016" PRIx64 " %s\n", SHA_EMPTY, &error), FILE_OUTCOME_AGAIN);
	assert_int_equal(file_sender_next(&sender, message, &error), 31);
	assert_true(sender.id == id);
	assert_int_equal(answer_to(&sender, "STORED %016" PRIx64 " %s\n", SHA_EMPTY, &error), FILE_OUTCOME_REFUSED);
	assert_string_equal(error.text,
			    "the other side has other contents: SHA-256 " SHA_EMPTY ", and " SHA_ABC " was sent");
	assert_int_equal(answer_to(&sender, "STORED %016" PRIx64 " %s\n", SHA_ABC, &error), FILE_OUTCOME_STORED);
	file_sender_close(&sender);
}

static void send_ids_differ(void **state)
{
	struct file_message_error error;
	struct file_sender one, two;

	put("a", "abc", 3);
	assert_int_equal(file_sender_open(&one, "a", FILE_MESSAGE_MAX, &error), 0);
	assert_int_equal(file_sender_open(&two, "a", FILE_MESSAGE_MAX, &error), 0);
	assert_true(one.id != two.id);
	file_sender_close(&one);
	file_sender_close(&two);
}

/*
 * The receiver
 */

static void whole_or_not_at_all(void **state)
{
	struct file_receiver receiver;

	put("a", "earlier", 7);
	open_receiver(&receiver);
	assert_taken(&receiver, "FILE " A "6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_answer(&receiver, "");
	assert_file("a", "earlier", 7);
	assert_file(PART_A, "abc", 3);
	assert_stored(&receiver, "FILE " A "6 3 a\ndef", SHA_ABCDEF);
	assert_file("a", "abcdef", 6);
	assert_only(".", "a");
	assert_stored(&receiver, "FILE " B "0 0 b\n", SHA_EMPTY);
	assert_file("b", "", 0);
	file_receiver_close(&receiver);
}

static void out_of_order(void **state)
{
	static const struct {
		const char *message, *answer;
	} cases[] = {
		{ "FILE " A "6 4 a\nef", "gap a: offset 4 where 3 must come next" },
		{ "FILE " A "6 2 a\nc", "gap a: offset 2 where 3 must come next" },
		{ "FILE " A "7 3 a\ndef", "malformed a of 7 bytes: it was a of 6 before" },
		{ "FILE " A "6 3 b\ndef", "malformed b of 6 bytes: it was a of 6 before" },
		{ "FILE " A "6 3 a\ndefg", "malformed a: 4 bytes at offset 3 go beyond the file's size of 6" },
	};
	struct file_receiver receiver;

	open_receiver(&receiver);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_taken(&receiver, "FILE " A "6 0 a\nabc", FILE_RECEIVER_MORE);
		assert_refused(&receiver, cases[i].message, cases[i].answer);
		/* What still comes of it is dropped: one answer is enough. */
		assert_taken(&receiver, "FILE " A "6 3 a\ndef", FILE_RECEIVER_AGAIN);
		assert_answer(&receiver, "");
		assert_int_not_equal(access("a", F_OK), 0);
		assert_int_not_equal(access(PART_A, F_OK), 0);
	}
	assert_refused(&receiver, "FILE " B "6 3 b\ndef", "gap b: offset 3 without the chunks before it");
	/* Its sender begins anew. */
	assert_taken(&receiver, "FILE " A "6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_stored(&receiver, "FILE " A "6 3 a\ndef", SHA_ABCDEF);
	file_receiver_close(&receiver);
}

static void not_a_file_message(void **state)
{
	struct file_message_error error;
	struct file_receiver receiver;

	open_receiver(&receiver);
	assert_taken(&receiver, "FILE " A "6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_int_equal(take(&receiver, "other", &error), FILE_RECEIVER_NONE);
	assert_string_equal(error.text, "not a file message: it does not begin with 'FILE '");
	/* An answer is not answered: two receivers would never end. */
	assert_int_equal(take(&receiver, "STORED 00000000000000aa " SHA_ABC "\n", &error), FILE_RECEIVER_NONE);
	assert_answer(&receiver, "");
	/* The file under way goes on. */
	assert_stored(&receiver, "FILE " A "6 3 a\ndef", SHA_ABCDEF);
	file_receiver_close(&receiver);
}

static void chunk_again(void **state)
{
	struct file_receiver receiver;

	open_receiver(&receiver);
	assert_taken(&receiver, "FILE " A "6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE " A "6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE " A "6 3 a\nd", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE " A "6 3 a\nd", FILE_RECEIVER_MORE);
	assert_stored(&receiver, "FILE " A "6 4 a\nef", SHA_ABCDEF);
	assert_file("a", "abcdef", 6);
	file_receiver_close(&receiver);
}

/* A message in doubt that arrives twice, and a whole file that is sent again, are no second file. */
static void file_again(void **state)
{
	struct file_receiver receiver;

	open_receiver(&receiver);
	assert_stored(&receiver, "FILE " A "3 0 a\nabc", SHA_ABC);
	assert_int_equal(rename("a", "taken"), 0);
	assert_taken(&receiver, "FILE " A "3 0 a\nabc", FILE_RECEIVER_AGAIN);
	assert_answer(&receiver, "STORED 00000000000000aa " SHA_ABC "\n");
	assert_only(".", "taken");

	assert_taken(&receiver, "FILE " B "6 0 b\nabc", FILE_RECEIVER_MORE);
	assert_stored(&receiver, "FILE " B "6 3 b\ndef", SHA_ABCDEF);
	assert_int_equal(unlink("b"), 0);
	assert_taken(&receiver, "FILE " B "6 0 b\nabc", FILE_RECEIVER_AGAIN);
	assert_answer(&receiver, "");
	assert_taken(&receiver, "FILE " B "6 3 b\ndef", FILE_RECEIVER_AGAIN);
	assert_answer(&receiver, "STORED 00000000000000bb " SHA_ABCDEF "\n");
	assert_only(".", "taken");

	/* Another ID is another file, whatever its name and contents. */
	assert_stored(&receiver, "FILE " C "3 0 a\nabc", SHA_ABC);
	assert_file("a", "abc", 3);
	file_receiver_close(&receiver);
}

/* Its sender begins anew before it was complete. */
static void file_begun_again(void **state)
{
	struct file_receiver receiver;

	open_receiver(&receiver);
	assert_taken(&receiver, "FILE " A "6 0 a\nXY", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE " A "6 2 a\nZ", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE " A "6 0 a\na", FILE_RECEIVER_MORE);
	assert_stored(&receiver, "FILE " A "6 1 a\nbcdef", SHA_ABCDEF);
	assert_file("a", "abcdef", 6);
	file_receiver_close(&receiver);
}

static void files_mixed(void **state)
{
	struct file_receiver receiver;

	open_receiver(&receiver);
	assert_taken(&receiver, "FILE " A "6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE " B "6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_stored(&receiver, "FILE " A "6 3 a\ndef", SHA_ABCDEF);
	assert_stored(&receiver, "FILE " B "6 3 a\ndef", SHA_ABCDEF);
	assert_only(".", "a");
	file_receiver_close(&receiver);
}

/* Of files that nobody continues, eight stay. */
static void files_abandoned(void **state)
{
	struct file_message_error error;
	struct file_receiver receiver;
	char message[100];

	open_receiver(&receiver);
	for (int i = 0; i < 100; i++) {
		snprintf(message, sizeof(message), "FILE %016x 6 0 %d\nabc", i, i);
		assert_int_equal(take(&receiver, message, &error), FILE_RECEIVER_MORE);
		snprintf(message, sizeof(message), "%d: incomplete, removed: 3 of 6 bytes had come", i - 8);
		assert_string_equal(error.text, i < 8 ? "" : message);
	}
	assert_int_equal(system("test $(ls -A | wc -l) = 8"), 0);
	file_receiver_close(&receiver);
}

static void next_process_continues(void **state)
{
	struct file_receiver receiver;

	open_receiver(&receiver);
	assert_taken(&receiver, "FILE " A "6 0 a\nabc", FILE_RECEIVER_MORE);
	file_receiver_close(&receiver);
	assert_file(PART_A, "abc", 3);

	/* The next chunk. */
	open_receiver(&receiver);
	assert_taken(&receiver, "FILE " A "6 3 a\nde", FILE_RECEIVER_MORE);
	file_receiver_close(&receiver);

	/* The same one again: it was taken, but not acknowledged. */
	open_receiver(&receiver);
	assert_taken(&receiver, "FILE " A "6 3 a\nde", FILE_RECEIVER_MORE);
	assert_stored(&receiver, "FILE " A "6 5 a\nf", SHA_ABCDEF);
	file_receiver_close(&receiver);

	/* The last one again, likewise. */
	open_receiver(&receiver);
	assert_stored(&receiver, "FILE " A "6 5 a\nf", SHA_ABCDEF);
	assert_taken(&receiver, "FILE " A "6 5 a\nf", FILE_RECEIVER_AGAIN);
	assert_refused(&receiver, "FILE " B "6 5 a\ng", "gap a: offset 5 without the chunks before it");
	assert_refused(&receiver, "FILE " C "6 4 a\ne", "gap a: offset 4 without the chunks before it");
	file_receiver_close(&receiver);
	assert_file("a", "abcdef", 6);
	assert_only(".", "a");
}

/* The next process stores a file of one message again, unless it is told that it is stored. */
static void next_process_forgets(void **state)
{
	struct file_receiver receiver;

	for (int i = 0; i < 2; i++) {
		open_receiver(&receiver);
		assert_stored(&receiver, "FILE " A "3 0 a\nabc", SHA_ABC);
		file_receiver_close(&receiver);
		assert_file("a", "abc", 3);
	}
	open_receiver(&receiver);
	file_receiver_remember(&receiver, 0xaa, SHA_ABC);
	assert_int_equal(unlink("a"), 0);
	assert_taken(&receiver, "FILE " A "3 0 a\nabc", FILE_RECEIVER_AGAIN);
	assert_answer(&receiver, "STORED " A SHA_ABC "\n");
	assert_only(".", "");
	file_receiver_close(&receiver);
}

/* The part of one file is never continued by another one of the same name. */
static void parts_not_mixed(void **state)
{
	struct file_receiver receiver;

	open_receiver(&receiver);
	assert_taken(&receiver, "FILE " A "6 0 a\nabc", FILE_RECEIVER_MORE);
	file_receiver_close(&receiver);
	open_receiver(&receiver);
	assert_refused(&receiver, "FILE " B "6 3 a\ndef", "gap a: offset 3 without the chunks before it");
	assert_refused(&receiver, "FILE " A "6 4 a\nef", "gap a: offset 4 where 3 must come next");
	file_receiver_close(&receiver);
}

static void part_overwritten(void **state)
{
	struct file_receiver receiver;

	put(PART_A, "something longer", 16);
	open_receiver(&receiver);
	assert_stored(&receiver, "FILE " A "3 0 a\nabc", SHA_ABC);
	assert_file("a", "abc", 3);
	file_receiver_close(&receiver);
}

static void links_not_followed(void **state)
{
	struct file_receiver receiver;

	put("victim", "safe", 4);
	assert_int_equal(symlink("victim", PART_A), 0);
	assert_int_equal(symlink("victim", "b"), 0);
	open_receiver(&receiver);
	assert_refused(&receiver, "FILE " A "1 0 a\nx", "storage " PART_A ": Too many levels of symbolic links");
	assert_stored(&receiver, "FILE " B "3 0 b\nabc", SHA_ABC);
	assert_file("victim", "safe", 4);
	assert_file("b", "abc", 3);
	file_receiver_close(&receiver);
}

static void two_receivers(void **state)
{
	struct file_receiver one, two;

	open_receiver(&one);
	open_receiver(&two);
	assert_taken(&one, "FILE " A "6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_refused(&two, "FILE " A "2 0 a\nxy", "storage " PART_A ": another process receives this file here");
	assert_stored(&two, "FILE " B "3 0 a\nabc", SHA_ABC);
	assert_file("a", "abc", 3);
	assert_stored(&one, "FILE " A "6 3 a\ndef", SHA_ABCDEF);
	assert_file("a", "abcdef", 6);
	file_receiver_close(&one);
	file_receiver_close(&two);
}

static void unusable_directory(void **state)
{
	struct file_message_error error;
	struct file_receiver receiver;

	assert_int_equal(file_receiver_open(&receiver, "none", false, &error), -1);
	assert_int_equal(errno, ENOENT);
	assert_string_equal(error.text, "none: No such file or directory");
	put("file", "", 0);
	assert_int_equal(file_receiver_open(&receiver, "file", false, &error), -1);
	assert_int_equal(errno, ENOTDIR);
}

/* A full disk refuses the file, and leaves nothing of it; the next one is stored. */
static void disk_full(void **state)
{
	struct rlimit limit, small;
	struct file_receiver receiver;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = limit;
	small.rlim_cur = 1;
	signal(SIGXFSZ, SIG_IGN);
	open_receiver(&receiver);
	assert_taken(&receiver, "FILE " A "2 0 a\nx", FILE_RECEIVER_MORE);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_refused(&receiver, "FILE " A "2 1 a\ny", "storage a: write at offset 1: File too large");
	assert_only(".", "");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_stored(&receiver, "FILE " B "3 0 b\nabc", SHA_ABC);
	file_receiver_close(&receiver);
}

/* The name is refused, and the next file is stored: one name cannot stop the others. */
static void bad_names(void **state)
{
	struct file_receiver receiver;

	assert_int_equal(mkdir("dir", 0700), 0);
	open_receiver(&receiver);
	assert_refused(&receiver, "FILE " A "1 0 dir\nx", "name dir: a directory has this name");
	assert_refused(&receiver, "FILE " B "1 0 .bashrc\nx", "name file name '.bashrc' begins with a dot");
	assert_refused(&receiver, "FILE " C "1 0 .x.part\nx", "name file name '.x.part' begins with a dot");
	assert_taken(&receiver, "FILE " A "2 0 b\nx", FILE_RECEIVER_MORE);
	assert_int_equal(mkdir("b", 0700), 0);
	assert_refused(&receiver, "FILE " A "2 1 b\ny", "name b: Is a directory");
	assert_int_not_equal(access(PART_A, F_OK), 0);
	assert_int_equal(mkdir(PART_A, 0700), 0);
	assert_refused(&receiver, "FILE " A "1 0 c\nx", "storage " PART_A ": Is a directory");
	assert_stored(&receiver, "FILE " B "3 0 good\nabc", SHA_ABC);
	file_receiver_close(&receiver);
}

/*
 * JSON
 */

static void assert_json(char *line, const char *expected)
{
	assert_string_equal(line, expected);
	free(line);
}

static void json_lines(void **state)
{
	struct file_receiver receiver = { .id = 0xaa, .size = 3, .name = "a \"b\"", .sha256 = SHA_ABC };

	assert_json(json_message("hmc1", 0, "a\n\t\"\\/\xc3\xa4", 8),
		    "{\"source\":\"hmc1\",\"bytes\":8,\"text\":\"a\\n\\t\\\"\\\\/\xc3\xa4\"}\n");
	assert_json(json_message("hmc1", 7, "\0\x1b\xff", 3),
		    "{\"source\":\"hmc1\",\"sequence\":7,\"bytes\":3,\"text_hex\":\"001bff\"}\n");
	/* C1 controls, and what turns text around */
	assert_json(json_message("hmc1", 0, "\xc2\x9b", 2),
		    "{\"source\":\"hmc1\",\"bytes\":2,\"text_hex\":\"c29b\"}\n");
	assert_json(json_message("hmc1", 0, "\xe2\x80\xae", 3),
		    "{\"source\":\"hmc1\",\"bytes\":3,\"text_hex\":\"e280ae\"}\n");
	assert_json(json_file("hmc2", &receiver, NULL),
		    "{\"source\":\"hmc2\",\"id\":\"00000000000000aa\",\"file\":\"a \\\"b\\\"\",\"bytes\":3,"
		    "\"sha256\":\"" SHA_ABC "\"}\n");
	strcpy(receiver.name, "\xe4");
	assert_json(
		json_file("hmc2", &receiver, "no \x1b"),
		"{\"source\":\"hmc2\",\"id\":\"00000000000000aa\",\"file_hex\":\"e4\",\"refused\":\"no \\\\x1b\"}\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(parse_good),
		TEST(parse_malformed),
		TEST(parse_nul),
		TEST(parse_too_long),
		TEST(format_parsed),
		TEST(answer_good),
		TEST(answer_malformed),
		TEST(answer_escaped),
		TEST(answer_unwanted),
		TEST(carry_all_sizes),
		TEST(open_unsendable),
		TEST(open_needs_room),
		TEST(send_cut_short),
		TEST(send_outcomes),
		TEST(send_again),
		TEST(send_ids_differ),
		TEST(whole_or_not_at_all),
		TEST(out_of_order),
		TEST(not_a_file_message),
		TEST(chunk_again),
		TEST(file_again),
		TEST(file_begun_again),
		TEST(files_mixed),
		TEST(files_abandoned),
		TEST(next_process_continues),
		TEST(next_process_forgets),
		TEST(parts_not_mixed),
		TEST(part_overwritten),
		TEST(links_not_followed),
		TEST(two_receivers),
		TEST(unusable_directory),
		TEST(disk_full),
		TEST(bad_names),
		TEST(json_lines),
	};

	return cmocka_run_group_tests_name("file-message", tests, NULL, NULL);
}
