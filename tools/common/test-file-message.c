// SPDX-License-Identifier: GPL-2.0-or-later
/* Unit tests of file messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file-message.h"

#define NAME_249                                                                                               \
	"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" \
	"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" \
	"0123456789012345678901234567890123456789012345678"

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

static void assert_no_file(const char *path)
{
	assert_int_not_equal(access(path, F_OK), 0);
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

static void assert_refused(struct file_receiver *receiver, const char *message, int err, const char *text)
{
	struct file_message_error error;

	assert_int_equal(take(receiver, message, &error), FILE_RECEIVER_ERROR);
	assert_int_equal(errno, err);
	assert_string_equal(error.text, text);
}

static void parses_what_is_well_formed(void **state)
{
	static const char message[] = "FILE 9223372036854775807 12 a b.txt\nabc\ndef";
	struct file_message_error error;
	struct file_message msg;

	assert_int_equal(file_message_parse(&msg, message, sizeof(message) - 1, &error), 0);
	assert_true(msg.size == INT64_MAX);
	assert_true(msg.offset == 12);
	assert_string_equal(msg.name, "a b.txt");
	assert_int_equal(msg.len, 7);
	assert_memory_equal(msg.data, "abc\ndef", 7);

	assert_int_equal(file_message_parse(&msg, "FILE 0 0 \xc3\xa4\n", 12, &error), 0);
	assert_int_equal(msg.len, 0);
	assert_string_equal(msg.name, "\xc3\xa4");

	assert_int_equal(file_message_parse(&msg, "FILE 0 0 " NAME_249 "\n", 9 + 249 + 1, &error), 0);
	assert_string_equal(msg.name, NAME_249);
}

static void refuses_each_malformed_message(void **state)
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
		{ "FILE 1 0 a", "file message whose first line has no end" },
		{ "FILE \n", "size of a file message is not a decimal number and a space" },
		{ "FILE x 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE -1 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE +1 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE 0x1 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE 01 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE  1 0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE 1\t0 a\nx", "size of a file message is not a decimal number and a space" },
		{ "FILE 1\n", "size of a file message is not a decimal number and a space" },
		{ "FILE 9223372036854775808 0 a\nx", "size of a file message beyond 9223372036854775807" },
		{ "FILE 99999999999999999999999 0 a\nx", "size of a file message beyond 9223372036854775807" },
		{ "FILE 1 \n", "offset of a file message is not a decimal number and a space" },
		{ "FILE 1 a\nx", "offset of a file message is not a decimal number and a space" },
		{ "FILE 1 0\nx", "offset of a file message is not a decimal number and a space" },
		{ "FILE 1 00 a\nx", "offset of a file message is not a decimal number and a space" },
		{ "FILE 1 18446744073709551616 a\nx", "offset of a file message beyond 9223372036854775807" },
		{ "FILE 1 0 \nx", "file message without a name" },
		{ "FILE 1 0 .\nx", "file name '.' begins with a dot" },
		{ "FILE 1 0 ..\nx", "file name '..' begins with a dot" },
		{ "FILE 1 0 .bashrc\nx", "file name '.bashrc' begins with a dot" },
		{ "FILE 1 0 .a.part\nx", "file name '.a.part' begins with a dot" },
		{ "FILE 1 0 /etc/passwd\nx", "'/' in file name '/etc/passwd'" },
		{ "FILE 1 0 ../a\nx", "'/' in file name '../a'" },
		{ "FILE 1 0 a\tb\nx", "control character 0x09 at byte 1 of a file name" },
		{ "FILE 1 0 a/\x1b[2J\nx", "control character 0x1b at byte 2 of a file name" },
		{ "FILE 1 0 a\xc2\x9b"
		  "2J\nx",
		  "control character 0xc2 at byte 1 of a file name" },
		{ "FILE 1 0 a\x7f\nx", "control character 0x7f at byte 1 of a file name" },
		{ "FILE 1 0 a\r\nx", "control character 0x0d at byte 1 of a file name" },
		{ "FILE 1 0 " NAME_249 "9\nx", "file name of 250 bytes: at most 249 can be sent" },
		{ "FILE 1 2 a\nx", "a: 1 bytes at offset 2 go beyond the file's size of 1" },
		{ "FILE 1 1 a\nx", "a: 1 bytes at offset 1 go beyond the file's size of 1" },
		{ "FILE 1 0 a\nxy", "a: 2 bytes at offset 0 go beyond the file's size of 1" },
		{ "FILE 0 0 a\nx", "a: 1 bytes at offset 0 go beyond the file's size of 0" },
		{ "FILE 0 9223372036854775807 a\n",
		  "a: 0 bytes at offset 9223372036854775807 go beyond the file's size of 0" },
		{ "FILE 2 0 a\n", "a: no bytes at offset 0 of 2" },
		{ "FILE 2 2 a\n", "a: no bytes at offset 2 of 2" },
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
		assert_int_equal(errno, EBADMSG);
		assert_string_equal(error.text, cases[i].text);
		free(message);
	}
}

static void refuses_a_nul_in_the_line(void **state)
{
	struct file_message_error error;
	struct file_message msg;

	assert_int_equal(file_message_parse(&msg, "FILE 1 0 a\0b\nx", 14, &error), -1);
	assert_string_equal(error.text, "control character 0x00 at byte 1 of a file name");
	assert_int_equal(file_message_parse(&msg, "FILE 1\0 0 a\nx", 13, &error), -1);
}

static void refuses_a_message_too_long(void **state)
{
	char message[FILE_MESSAGE_MAX + 1] = "FILE 100000 0 a\n";
	struct file_message_error error;
	struct file_message msg;

	assert_int_equal(file_message_parse(&msg, message, sizeof(message), &error), -1);
	assert_string_equal(error.text, "message of 4089 bytes: at most 4088 are possible");
	assert_int_equal(file_message_parse(&msg, message, sizeof(message) - 1, &error), 0);
}

static void formats_what_it_parses(void **state)
{
	struct file_message_error error;
	char line[FILE_MESSAGE_MAX];
	struct file_message msg;
	ssize_t len;

	len = file_message_format(line, INT64_MAX, INT64_MAX - 1, NAME_249, &error);
	assert_true(len > 0);
	line[len] = 'x';
	assert_int_equal(file_message_parse(&msg, line, len + 1, &error), 0);
	assert_true(msg.size == INT64_MAX && msg.offset == INT64_MAX - 1 && msg.len == 1);

	assert_int_equal(file_message_format(line, 0, 0, "a/b", &error), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(file_message_format(line, 0, 0, "", &error), -1);
	assert_int_equal(file_message_format(line, 0, 0, NAME_249 "9", &error), -1);
}

static void carries_files_of_all_sizes(void **state)
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
		assert_no_file("in/.file name.part");
		file_sender_close(&sender);
		file_receiver_close(&receiver);
		free(data);
	}
}

static void sends_regular_files_only(void **state)
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

static void needs_room_for_the_name(void **state)
{
	struct file_message_error error;
	struct file_sender sender;

	put("a", "xy", 2);
	assert_int_equal(file_sender_open(&sender, "a", strlen("FILE 2 2 a\n"), &error), -1);
	assert_string_equal(error.text, "a: messages of 11 bytes are too small for a file of this name");
	assert_int_equal(file_sender_open(&sender, "a", strlen("FILE 2 2 a\n") + 1, &error), 0);
	file_sender_close(&sender);
}

static void tells_of_a_file_cut_short_while_sent(void **state)
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

static void shows_a_file_when_it_is_complete(void **state)
{
	struct file_receiver receiver;

	put("a", "earlier", 7);
	open_receiver(&receiver);
	assert_taken(&receiver, "FILE 6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_file("a", "earlier", 7);
	assert_file(".a.part", "abc", 3);
	assert_taken(&receiver, "FILE 6 3 a\ndef", FILE_RECEIVER_COMPLETE);
	assert_file("a", "abcdef", 6);
	assert_no_file(".a.part");
	file_receiver_close(&receiver);
}

static void refuses_what_is_not_the_next_chunk(void **state)
{
	static const struct {
		const char *message;
		const char *text;
	} cases[] = {
		{ "FILE 6 4 a\nef", "a: offset 4 of 6 where offset 3 of 6 of a must come next" },
		{ "FILE 6 2 a\nc", "a: offset 2 of 6 where offset 3 of 6 of a must come next" },
		{ "FILE 7 3 a\ndef", "a: offset 3 of 7 where offset 3 of 6 of a must come next" },
		{ "FILE 6 3 b\ndef", "b: offset 3 of 6 where offset 3 of 6 of a must come next" },
		{ "FILE 6 3 a\ndefg", "a: 4 bytes at offset 3 go beyond the file's size of 6" },
		{ "other", "not a file message: it does not begin with 'FILE '" },
	};
	struct file_receiver receiver;

	open_receiver(&receiver);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_taken(&receiver, "FILE 6 0 a\nabc", FILE_RECEIVER_MORE);
		assert_refused(&receiver, cases[i].message, EBADMSG, cases[i].text);
		assert_no_file(".a.part");
		assert_refused(&receiver, "FILE 6 3 a\ndef", EBADMSG, "a: offset 3 without the chunks before it");
		assert_no_file("a");
		assert_taken(&receiver, "FILE 1 0 good\nx", FILE_RECEIVER_COMPLETE);
	}
	file_receiver_close(&receiver);
}

static void takes_the_last_chunk_again(void **state)
{
	struct file_receiver receiver;

	open_receiver(&receiver);
	assert_taken(&receiver, "FILE 6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE 6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE 6 3 a\nd", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE 6 3 a\nd", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE 6 4 a\nef", FILE_RECEIVER_COMPLETE);
	assert_file("a", "abcdef", 6);
	file_receiver_close(&receiver);
}

static void takes_a_new_file_when_one_is_cut_off(void **state)
{
	struct file_message_error error;
	struct file_receiver receiver;

	open_receiver(&receiver);
	assert_taken(&receiver, "FILE 6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_int_equal(take(&receiver, "FILE 2 0 b\nxy", &error), FILE_RECEIVER_COMPLETE);
	assert_string_equal(error.text, "a: incomplete, removed: 3 of 6 bytes had come");
	assert_file("b", "xy", 2);
	assert_no_file(".a.part");

	assert_taken(&receiver, "FILE 6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_int_equal(take(&receiver, "FILE 4 0 a\nX", &error), FILE_RECEIVER_MORE);
	assert_string_equal(error.text, "a: incomplete, removed: 3 of 6 bytes had come");
	assert_taken(&receiver, "FILE 4 1 a\nYZW", FILE_RECEIVER_COMPLETE);
	assert_file("a", "XYZW", 4);
	file_receiver_close(&receiver);
}

static void goes_on_where_another_process_ended(void **state)
{
	struct file_receiver receiver;

	open_receiver(&receiver);
	assert_taken(&receiver, "FILE 6 0 a\nabc", FILE_RECEIVER_MORE);
	file_receiver_close(&receiver);
	assert_file(".a.part", "abc", 3);

	/* The next chunk. */
	open_receiver(&receiver);
	assert_taken(&receiver, "FILE 6 3 a\nde", FILE_RECEIVER_MORE);
	file_receiver_close(&receiver);

	/* The same one again: it was taken, but not acknowledged. */
	open_receiver(&receiver);
	assert_taken(&receiver, "FILE 6 3 a\nde", FILE_RECEIVER_MORE);
	assert_taken(&receiver, "FILE 6 5 a\nf", FILE_RECEIVER_COMPLETE);
	file_receiver_close(&receiver);

	/* The last one again, likewise. */
	open_receiver(&receiver);
	assert_taken(&receiver, "FILE 6 5 a\nf", FILE_RECEIVER_COMPLETE);
	assert_refused(&receiver, "FILE 6 5 a\ng", EBADMSG, "a: offset 5 without the chunks before it");
	assert_refused(&receiver, "FILE 6 4 a\ne", EBADMSG, "a: offset 4 without the chunks before it");
	file_receiver_close(&receiver);
	assert_file("a", "abcdef", 6);
	assert_no_file(".a.part");
}

static void refuses_to_go_on_beyond_the_part(void **state)
{
	struct file_receiver receiver;

	put(".a.part", "abc", 3);
	open_receiver(&receiver);
	assert_refused(&receiver, "FILE 6 4 a\nef", EBADMSG, "a: offset 4 where 3 must come next");
	file_receiver_close(&receiver);
}

static void leaves_no_leftover_of_an_earlier_file(void **state)
{
	struct file_receiver receiver;

	put(".a.part", "something longer", 16);
	open_receiver(&receiver);
	assert_taken(&receiver, "FILE 3 0 a\nabc", FILE_RECEIVER_COMPLETE);
	assert_file("a", "abc", 3);
	file_receiver_close(&receiver);
}

static void leaves_symbolic_links_alone(void **state)
{
	struct file_receiver receiver;

	put("victim", "safe", 4);
	assert_int_equal(symlink("victim", ".a.part"), 0);
	assert_int_equal(symlink("victim", "b"), 0);
	open_receiver(&receiver);
	assert_refused(&receiver, "FILE 1 0 a\nx", EBADMSG, ".a.part: Too many levels of symbolic links");
	assert_taken(&receiver, "FILE 1 0 b\nx", FILE_RECEIVER_COMPLETE);
	assert_file("victim", "safe", 4);
	assert_file("b", "x", 1);
	file_receiver_close(&receiver);
}

static void keeps_two_receivers_apart(void **state)
{
	struct file_receiver one, two;

	open_receiver(&one);
	open_receiver(&two);
	assert_taken(&one, "FILE 6 0 a\nabc", FILE_RECEIVER_MORE);
	assert_refused(&two, "FILE 2 0 a\nxy", EBUSY, ".a.part: another process receives a file of this name here");
	assert_taken(&two, "FILE 2 0 b\nxy", FILE_RECEIVER_COMPLETE);
	assert_taken(&one, "FILE 6 3 a\ndef", FILE_RECEIVER_COMPLETE);
	assert_taken(&two, "FILE 2 0 a\nxy", FILE_RECEIVER_COMPLETE);
	assert_file("a", "xy", 2);
	file_receiver_close(&one);
	file_receiver_close(&two);
}

static void names_a_directory_it_cannot_use(void **state)
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

static void can_store_again_what_it_could_not(void **state)
{
	struct rlimit limit, small;
	struct file_receiver receiver;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = limit;
	small.rlim_cur = 1;
	signal(SIGXFSZ, SIG_IGN);
	open_receiver(&receiver);
	assert_taken(&receiver, "FILE 2 0 a\nx", FILE_RECEIVER_MORE);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_refused(&receiver, "FILE 2 1 a\ny", EFBIG, "a: write at offset 1: File too large");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_taken(&receiver, "FILE 2 1 a\ny", FILE_RECEIVER_COMPLETE);
	assert_file("a", "xy", 2);
	file_receiver_close(&receiver);
}

/* The name is refused, and the next file is stored: one name cannot stop the others. */
static void refuses_a_name_that_no_file_can_have(void **state)
{
	struct file_receiver receiver;

	assert_int_equal(mkdir("dir", 0700), 0);
	open_receiver(&receiver);
	assert_refused(&receiver, "FILE 1 0 dir\nx", EBADMSG, "dir: a directory has this name");
	assert_taken(&receiver, "FILE 2 0 b\nx", FILE_RECEIVER_MORE);
	assert_int_equal(mkdir("b", 0700), 0);
	assert_refused(&receiver, "FILE 2 1 b\ny", EBADMSG, "b: Is a directory");
	assert_no_file(".b.part");
	assert_int_equal(mkdir(".c.part", 0700), 0);
	assert_refused(&receiver, "FILE 1 0 c\nx", EBADMSG, ".c.part: Is a directory");
	assert_taken(&receiver, "FILE 1 0 good\nx", FILE_RECEIVER_COMPLETE);
	file_receiver_close(&receiver);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(parses_what_is_well_formed),
		TEST(refuses_each_malformed_message),
		TEST(refuses_a_nul_in_the_line),
		TEST(refuses_a_message_too_long),
		TEST(formats_what_it_parses),
		TEST(carries_files_of_all_sizes),
		TEST(sends_regular_files_only),
		TEST(needs_room_for_the_name),
		TEST(tells_of_a_file_cut_short_while_sent),
		TEST(shows_a_file_when_it_is_complete),
		TEST(refuses_what_is_not_the_next_chunk),
		TEST(takes_the_last_chunk_again),
		TEST(takes_a_new_file_when_one_is_cut_off),
		TEST(goes_on_where_another_process_ended),
		TEST(refuses_to_go_on_beyond_the_part),
		TEST(leaves_no_leftover_of_an_earlier_file),
		TEST(leaves_symbolic_links_alone),
		TEST(keeps_two_receivers_apart),
		TEST(names_a_directory_it_cannot_use),
		TEST(can_store_again_what_it_could_not),
		TEST(refuses_a_name_that_no_file_can_have),
	};

	return cmocka_run_group_tests_name("file-message", tests, NULL, NULL);
}
