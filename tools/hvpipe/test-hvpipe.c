// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe(1) as a program, with the test as its driver (see fake-library.c). argv[1] is the program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json.h>
#include <sha2.h>

#include "common.h"
#include "file-message.h"
#include "test-program.h"

const char program_name[] = "test-hvpipe";

static const char *program;
static char dir[64];
static int listener = -1, receive_fd = -1, send_fd = -1;

#define for_each_text(text, ...) \
	for (const char *const *text = (const char *const[]){ __VA_ARGS__, NULL }; *text; text++)

static int setup(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = LIMIT_S };

	strcpy(dir, "/tmp/test-hvpipe-XXXXXX");
	if (!mkdtemp(dir) || chdir(dir))
		return -1;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/fake", dir);
	setenv("FAKE_HVPIPE", address.sun_path, 1);
	unsetenv("FAKE_OPEN_ERRNO");
	unsetenv("FAKE_STATE");
	unsetenv("FAKE_DAEMON_LINE");
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 8);
}

static int teardown(void **state)
{
	char command[100];

	end_program();
	close_fd(&receive_fd);
	close_fd(&send_fd);
	close_fd(&listener);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return chdir("/") || system(command);
}

/* Run the program with these arguments. */
#define start(...) start_argv((const char *const[]){ program, __VA_ARGS__, NULL }, -1)

static void start_argv(const char *const *argv, int terminal)
{
	close_fd(&receive_fd);
	close_fd(&send_fd);
	start_program(argv, terminal);
}

/* The program opens its source. */
static void expect_open(void)
{
	struct timeval limit = { .tv_sec = LIMIT_S };

	receive_fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	send_fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(receive_fd >= 0 && send_fd >= 0);
	setsockopt(send_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

/* The next hvpipe_recv() returns this message. */
static void give(const char *message)
{
	char packet[5000] = "";
	size_t len = strlen(message);

	memcpy(packet + 1, message, len);
	assert_int_equal(send(receive_fd, packet, len + 1, MSG_NOSIGNAL), len + 1);
}

static void give_errno(int number)
{
	char packet = number;

	assert_int_equal(send(receive_fd, &packet, 1, MSG_NOSIGNAL), 1);
}

/* True if the program has received all that it was given. */
static bool all_received(void)
{
	int unread;

	return !ioctl(receive_fd, TIOCOUTQ, &unread) && !unread;
}

/* Take what the program sends, and answer. */
static size_t take_sent(char *message, size_t size, int answer)
{
	ssize_t n = recv(send_fd, message, size - 1, 0);
	char byte = answer;

	assert_true(n > 0);
	message[n] = '\0';
	assert_int_equal(send(send_fd, &byte, 1, MSG_NOSIGNAL), 1);
	return n;
}

static void expect_sent(const char *expected, int answer)
{
	char message[5000];

	take_sent(message, sizeof(message), answer);
	assert_string_equal(message, expected);
}

static void wait_for_file(const char *path)
{
	for (int64_t deadline = now_ms() + LIMIT_S * 1000; access(path, F_OK); usleep(1000))
		if (now_ms() > deadline)
			fail_msg("%s does not come", path);
}

/* Take a file message that the program sends; its ID as text. */
static const char *take_file(const char *line_end, char message[5000])
{
	static char id[17];

	take_sent(message, 5000, 0);
	assert_memory_equal(message, "FILE ", 5);
	snprintf(id, sizeof(id), "%.16s", message + 5);
	assert_string_equal(message + 22, line_end);
	return id;
}

/* Answer a file message as a receiver that has stored these contents. */
static void give_stored(const char *message, const char *contents)
{
	char answer[200], sha256[65];

	SHA256Data((const uint8_t *)contents, strlen(contents), sha256);
	snprintf(answer, sizeof(answer), "STORED %.16s %s\n", message + 5, sha256);
	give(answer);
}

static void give_refused(const char *id, const char *why)
{
	char answer[600];

	snprintf(answer, sizeof(answer), "REFUSED %s %s\n", id, why);
	give(answer);
}

static void put(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/*
 * send
 */

static void stream_cut_portably(void **state)
{
	char data[10001], message[5000];

	memset(data, 'x', 10000);
	data[10000] = '\0';
	put("big", data);
	start("send", "big");
	expect_open();
	assert_int_equal(take_sent(message, sizeof(message), 0), 4048);
	assert_int_equal(take_sent(message, sizeof(message), 0), 4048);
	assert_int_equal(take_sent(message, sizeof(message), 0), 10000 - 2 * 4048);
	expect_exit(0);

	start("send", "--message-size=4088", "-f", "big");
	expect_open();
	assert_int_equal(take_sent(message, sizeof(message), 0), 4088);
	assert_int_equal(take_sent(message, sizeof(message), 0), 4088);
	take_sent(message, sizeof(message), 0);
	give_stored(message, data);
	expect_exit(0);

	start("send", "-f", "big");
	expect_open();
	assert_int_equal(take_sent(message, sizeof(message), 0), 4048);
	take_sent(message, sizeof(message), 0);
	take_sent(message, sizeof(message), 0);
	give_stored(message, data);
	expect_exit(0);

	for_each_text(bad, "0", "4089", "x")
	{
		start("send", "-m", *bad, "big");
		expect_exit(EXIT_USAGE);
		expect_words(err, *bad);
	}
}

static void replies_printed(void **state)
{
	put("a", "one");
	start("send", "-r");
	assert_int_equal(write(in, "hello", 5), 5);
	close_fd(&in);
	expect_open();
	expect_sent("hello", 0);
	give("to you");
	expect_exit(0);
	assert_string_equal(read_all(out), "to you\n");

	put("part", "FILE 00000000000000aa 1 0 .a\nx");
	start("send", "-r", "part");
	expect_open();
	expect_sent("FILE 00000000000000aa 1 0 .a\nx", 0);
	give("REFUSED 00000000000000aa name no\n");
	expect_exit(0);
	expect_text(out, "part: REFUSED 00000000000000aa name no\n");

	start("send", "-r", "a", "a");
	expect_open();
	expect_sent("one", 0);
	give("two\n");
	expect_sent("one", 0);
	give("three");
	expect_exit(0);
	assert_string_equal(read_all(out), "a: two\na: three\n");
}

/* A second reply to one message is none to the next message. */
static void second_reply_dropped(void **state)
{
	char message[5000];

	put("a", "one");
	put("b", "two");
	start("send", "-r", "a", "b");
	expect_open();
	assert_int_equal(recv(send_fd, message, sizeof(message), 0), 3);
	give("reply to a");
	give("another");
	assert_int_equal(send(send_fd, "", 1, MSG_NOSIGNAL), 1);
	expect_sent("two", 0);
	give("reply to b");
	expect_exit(0);
	expect_words(err, "message of 7 bytes dropped: it came before the reply was asked for");
	assert_string_equal(read_all(out), "a: reply to a\nb: reply to b\n");
}

static void send_broken_off(void **state)
{
	char data[10001], message[5000];

	memset(data, 'x', 10000);
	data[10000] = '\0';
	put("big", data);
	start("send", "-R", "0", "big");
	expect_open();
	take_sent(message, sizeof(message), 0);
	take_sent(message, sizeof(message), EPIPE);
	expect_exit(EXIT_CLOSED);
	expect_words(err, "big: broke off after 4048 bytes in 1 message");
}

static void doubt_retried(void **state)
{
	put("a", "one");
	put("b", "two");
	start("send", "a", "b");
	expect_open();
	expect_sent("one", 0);
	expect_sent("two", EPIPE);
	expect_sent("two", EPIPE);
	expect_sent("two", 0);
	expect_exit(0);
	expect_words(err, "may arrive twice");

	/* It was never there: nothing to wait for. */
	start("send", "a");
	expect_open();
	expect_sent("one", EPIPE);
	expect_exit(EXIT_CLOSED);
	expect_words(err, "nobody takes messages there");

	start("send", "a");
	expect_open();
	expect_sent("one", ENXIO);
	wait_for(err, "suspended, waiting; the message may arrive twice");
	put("fake.enabled", "");
	expect_sent("one", 0);
	expect_exit(0);

	start("send", "--retry=0", "a");
	expect_open();
	expect_sent("one", ENXIO);
	expect_exit(EXIT_SUSPENDED);
	expect_words(err, "in doubt");
}

static void send_errors_named(void **state)
{
	put("a", "one");
	for (const int *number = (const int[]){ EMSGSIZE, EINVAL, EIO, 0 }; *number; number++) {
		start("send", "a");
		expect_open();
		expect_sent("one", *number);
		expect_exit(EXIT_FAILURE);
		expect_words(err, *number == EMSGSIZE ? "every kernel sends 4048" :
				  *number == EINVAL   ? "knows no such source" :
							"in doubt");
	}
}

/*
 * send -f
 */

#define SHA_ONE "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"

static void file_stored(void **state)
{
	char message[5000];

	put("a", "one");
	start("send", "-f", "a");
	expect_open();
	take_file("3 0 a\none", message);
	/* What comes meanwhile is neither lost nor taken for the answer. */
	give("hello \x1b[2J\n");
	give("STORED 0000000000000001 " SHA_ONE "\n");
	give_stored(message, "one");
	expect_exit(0);
	expect_text(out, "hmc1: message of 11 bytes: hello \\x1b[2J\\n\na: stored, SHA-256 " SHA_ONE "\n");
	expect_text(err, "");
}

/* A transfer that takes longer than a second shows how far it is, on a terminal. */
static void progress_on_terminal(void **state)
{
	struct pollfd pfd = { .events = POLLIN };
	char message[5000], id[17];

	put("big", "");
	assert_int_equal(truncate("big", 64 * 1024 * 1024), 0);
	pfd.fd = start_on_terminal((const char *const[]){ program, "send", "-f", "big", NULL });
	expect_open();
	while (!poll(&pfd, 1, 1))
		take_sent(message, sizeof(message), 0);
	wait_for(in, "\rbig: ");
	wait_for(in, "iB, ");
	wait_for(in, " %, ");
	wait_for(in, "iB/s\x1b[K");
	assert_true(recv(send_fd, message, sizeof(message), 0) > 0);
	snprintf(id, sizeof(id), "%.16s", message + 5);
	give_refused(id, "storage disk full");
	assert_int_equal(send(send_fd, "", 1, MSG_NOSIGNAL), 1);
	wait_for(in, "\r\x1b[Khvpipe: big: refused: disk full\r\n");
	expect_exit(EXIT_REFUSED);
}

static void file_refused(void **state)
{
	char message[5000];

	put("a", "one");
	put("b", "two");
	start("send", "-f", "a", "b");
	expect_open();
	give_refused(take_file("3 0 a\none", message), "storage disk full");
	take_file("3 0 b\ntwo", message);
	give_stored(message, "two");
	expect_exit(EXIT_REFUSED);
	expect_words(err, "a: refused: disk full\n");
	expect_words(out, "b: stored, SHA-256 ");
}

static void file_unknown(void **state)
{
	char message[5000];

	put("a", "one");
	start("send", "-f", "-t", "0.2", "a", "a");
	expect_open();
	take_file("3 0 a\none", message);
	expect_exit(EXIT_UNKNOWN);
	expect_words(err, "a: unknown whether it is stored: the source has taken it, but no answer came for 0.2 "
			  "seconds");
	expect_text(out, "");
}

/* A part was lost on the way: the file is sent again, under the same ID. */
static void file_sent_again(void **state)
{
	char message[5000], id[17];

	put("a", "one");
	start("send", "-f", "a");
	expect_open();
	strcpy(id, take_file("3 0 a\none", message));
	give_refused(id, "gap a: offset 0 without the chunks before it");
	assert_string_equal(take_file("3 0 a\none", message), id);
	give_stored(message, "two");
	assert_string_equal(take_file("3 0 a\none", message), id);
	give_stored(message, "one");
	expect_exit(0);
	expect_text(err, "");
}

/* A file that is refused at its first message is not sent to its end. */
static void file_refused_early(void **state)
{
	char data[10001], message[5000], id[17];

	memset(data, 'x', 10000);
	data[10000] = '\0';
	put("big", data);
	start("send", "-f", "big");
	expect_open();
	assert_true(recv(send_fd, message, sizeof(message), 0) > 0);
	snprintf(id, sizeof(id), "%.16s", message + 5);
	give_refused(id, "name big: a directory has this name");
	assert_int_equal(send(send_fd, "", 1, MSG_NOSIGNAL), 1);
	expect_exit(EXIT_REFUSED);
	assert_int_equal(recv(send_fd, message, sizeof(message), 0), 0);
}

/* The reply comes behind the answer, or before it. */
static void file_reply(void **state)
{
	char message[5000];

	put("a", "one");
	start("send", "-f", "-r", "a", "a", "a");
	expect_open();
	take_file("3 0 a\none", message);
	give_stored(message, "one");
	give("first");
	take_file("3 0 a\none", message);
	give("second");
	give_stored(message, "one");
	give_refused(take_file("3 0 a\none", message), "storage disk full");
	expect_exit(EXIT_REFUSED);
	expect_text(out, "a: stored, SHA-256 " SHA_ONE "\na: first\na: stored, SHA-256 " SHA_ONE "\na: second\n");
}

/* Both sides send a file: each refuses that of the other. */
static void file_meets_file(void **state)
{
	char message[5000];

	put("a", "one");
	start("send", "-f", "a");
	expect_open();
	take_file("3 0 a\none", message);
	give("FILE 00000000000000aa 6 0 theirs\nabc");
	expect_sent("REFUSED 00000000000000aa unwanted hvpipe send runs there, and stores no files\n", 0);
	give_stored(message, "one");
	expect_exit(0);
	expect_text(out, "a: stored, SHA-256 " SHA_ONE "\n");
}

/*
 * recv
 */

static void recv_retries(void **state)
{
	start("recv", "-n", "2");
	expect_open();
	give_errno(EIO);
	give_errno(EIO);
	give("one ");
	give_errno(EIO);
	give("two");
	expect_exit(0);
	assert_string_equal(read_all(out), "one two");
	expect_words(err, "Input/output error; trying again");
}

static void recv_timeout_kept(void **state)
{
	start("recv", "-t", "0.5");
	expect_open();
	for (int i = 0; i < 100; i++)
		give_errno(EIO);
	expect_exit(EXIT_NO_MESSAGE);
}

static void recv_suspended(void **state)
{
	start("recv", "-n", "1");
	expect_open();
	give_errno(ENXIO);
	wait_for(err, "suspended, waiting");
	put("fake.enabled", "");
	give("later");
	expect_exit(0);
	assert_string_equal(read_all(out), "later");
}

static void recv_lost_connection(void **state)
{
	start("recv", "-n", "1");
	expect_open();
	give_errno(ECONNRESET);
	wait_for(err, "connection lost");
	give("back");
	expect_exit(0);
}

/* Messages stay in the kernel when their reader has ended. */
static void recv_reader_ends(void **state)
{
	char data[4096];

	start("recv");
	expect_open();
	give("one\n");
	give("two\n");
	give("three\n");
	/* as head -1 */
	assert_int_equal(read(out, data, sizeof(data)), 4);
	close_fd(&out);
	expect_exit(0);
	assert_string_equal(read_all(err), "");
	/* That is how a socket tells that its other end was closed before all was received. */
	assert_int_equal(recv(receive_fd, data, sizeof(data), 0), -1);
	assert_int_equal(errno, ECONNRESET);

	start("recv", "-n", "3");
	expect_open();
	give("one\n");
	assert_int_equal(read(out, data, sizeof(data)), 4);
	close_fd(&out);
	expect_exit(EXIT_FAILURE);
	expect_words(err, "nobody reads it");
}

static void recv_reader_stays(void **state)
{
	int64_t began = now_ms();
	char *text;

	start("recv", "-n", "1000");
	expect_open();
	for (int i = 0; i < 100; i++)
		give("message");
	for (int i = 0; i < 900; i++) {
		char data[4096];

		assert_true(read(out, data, sizeof(data)) > 0);
		give("message");
	}
	text = read_all(out);
	assert_true(strlen(text) > 0);
	expect_exit(0);
	assert_true(now_ms() - began < 5000);
}

static void terminal_escaped(void **state)
{
	static const char expected[] = "one\r\ntwo\r\n\\x1b[2J\\xc2\\x9b\r\n";
	char text[200] = "";
	int master, slave;
	size_t len = 0;

	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	start_argv((const char *const[]){ program, "recv", "-n", "3", NULL }, slave);
	close(slave);
	expect_open();
	give("one");
	give("two\n");
	give("\x1b[2J\xc2\x9b");
	while (len < strlen(expected)) {
		ssize_t n = read(master, text + len, sizeof(text) - 1 - len);

		assert_true(n > 0);
		len += n;
	}
	assert_string_equal(text, expected);
	close(master);
	expect_exit(0);
}

static void recv_signals(void **state)
{
	start("recv");
	expect_open();
	give("one");
	wait_for(out, "one");
	kill(pid, SIGINT);
	expect_exit(0);

	start("recv", "-n", "2");
	expect_open();
	give("one");
	wait_for(out, "one");
	kill(pid, SIGTERM);
	expect_exit(128 + SIGTERM);

	/* Nobody reads the output: the signal is answered nevertheless. */
	start("recv", "-n", "1000");
	expect_open();
	for (int i = 0; i < 50; i++)
		give("message");
	usleep(200000);
	kill(pid, SIGINT);
	expect_exit(128 + SIGINT);
}

/* Whatever a file is named, the next one is stored, the sender is told, and nothing reaches the terminal as it is. */
static void recv_bad_names(void **state)
{
	static const char *const names[] = { "dir", ".", "..", ".bashrc", ".x.part", "a/b", "/\x1b[2J", "a\xc2\2332J" };
	char message[200], answer[600];

	assert_int_equal(mkdir("in", 0700), 0);
	assert_int_equal(mkdir("in/dir", 0700), 0);
	start("recv", "-d", "in", "-n", "1");
	expect_open();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(message, sizeof(message), "FILE %016zx 1 0 %s\nx", i, names[i]);
		give(message);
		take_sent(answer, sizeof(answer), 0);
		snprintf(message, sizeof(message), "REFUSED %016zx name ", i);
		assert_memory_equal(answer, message, strlen(message));
	}
	give("FILE 00000000000000aa 3 0 good\none");
	expect_sent("STORED 00000000000000aa " SHA_ONE "\n", 0);
	expect_exit(EXIT_FAILURE);
	expect_text(out, "good\n");
	for (const char *c = read_all(err); *c; c++)
		assert_true(*c == '\n' || (*c >= ' ' && *c < 0x7f));
	assert_int_equal(system("test \"$(ls -A in | xargs)\" = 'dir good'"), 0);
}

/* A message in doubt that arrives twice is one file, also for -n. */
static void recv_file_once(void **state)
{
	assert_int_equal(mkdir("in", 0700), 0);
	start("recv", "-d", "in", "-n", "2");
	expect_open();
	for (int i = 0; i < 2; i++) {
		give("FILE 00000000000000aa 3 0 a\none");
		expect_sent("STORED 00000000000000aa " SHA_ONE "\n", 0);
	}
	give("FILE 00000000000000bb 3 0 b\none");
	expect_sent("STORED 00000000000000bb " SHA_ONE "\n", 0);
	expect_exit(0);
	expect_text(out, "a\nb\n");
}

/* The sender of a file has gone: its answer is lost, the next file is stored. */
static void recv_answer_lost(void **state)
{
	assert_int_equal(mkdir("in", 0700), 0);
	start("recv", "-d", "in", "-n", "2", "-R", "0");
	expect_open();
	give("FILE 00000000000000aa 3 0 a\none");
	expect_sent("STORED 00000000000000aa " SHA_ONE "\n", EPIPE);
	give("FILE 00000000000000bb 3 0 b\none");
	expect_sent("STORED 00000000000000bb " SHA_ONE "\n", 0);
	expect_exit(0);
	expect_text(out, "a\nb\n");
	expect_words(err, "nobody takes messages there");
}

static void recv_other_messages(void **state)
{
	assert_int_equal(mkdir("in", 0700), 0);
	start("recv", "-d", "in", "-n", "1");
	expect_open();
	give("hello");
	give("STORED 00000000000000aa " SHA_ONE "\n");
	give("FILE 00000000000000aa 3 0 a\none");
	expect_sent("STORED 00000000000000aa " SHA_ONE "\n", 0);
	expect_exit(EXIT_FAILURE);
	expect_words(err, "message of 5 bytes dropped: not a file message");
}

static void recv_json(void **state)
{
	start("recv", "-j", "-n", "2");
	expect_open();
	give("one \"\n");
	give("\x1b\xff");
	expect_exit(0);
	expect_text(out, "{\"source\":\"hmc1\",\"bytes\":6,\"text\":\"one \\\"\\n\"}\n"
			 "{\"source\":\"hmc1\",\"bytes\":2,\"text_hex\":\"1bff\"}\n");

	assert_int_equal(mkdir("in", 0700), 0);
	start("recv", "--json", "-d", "in", "-n", "1");
	expect_open();
	give("FILE 00000000000000aa 3 0 .a\none");
	expect_sent("REFUSED 00000000000000aa name file name '.a' begins with a dot\n", 0);
	give("FILE 00000000000000bb 3 0 b\none");
	expect_sent("STORED 00000000000000bb " SHA_ONE "\n", 0);
	expect_exit(EXIT_FAILURE);
	expect_text(out,
		    "{\"source\":\"hmc1\",\"id\":\"00000000000000aa\",\"file\":\"\","
		    "\"refused\":\"file name '.a' begins with a dot\"}\n"
		    "{\"source\":\"hmc1\",\"id\":\"00000000000000bb\",\"file\":\"b\",\"bytes\":3,\"sha256\":\"" SHA_ONE
		    "\"}\n");
}

/*
 * listen
 */

/*
 * Give a message to `listen -x COMMAND` with the options, and expect the reply (NULL: none) and a report (NULL: none).
 */
static void expect_reply(const char *command, const char *on_failure, const char *reply, const char *words)
{
	start("listen", "-x", command, "-T", "1", on_failure ? "-F" : "-T", on_failure ? on_failure : "1");
	expect_open();
	give("message");
	if (reply)
		expect_sent(reply, 0);
	if (words)
		wait_for(err, words);
	kill(pid, SIGINT);
	expect_exit(0);
	if (!reply)
		assert_int_equal(recv(send_fd, (char[1]){ 0 }, 1, 0), 0);
}

static void listen_replies(void **state)
{
	expect_reply("cat", NULL, "message", NULL);
	expect_reply("echo $HVPIPE_SOURCE", NULL, "0x02000001\n", NULL);
}

static void listen_failed_command(void **state)
{
	expect_reply("echo partial; exit 3", NULL, NULL, "exit status 3");
	expect_reply("echo partial; exit 3", "failed", "failed", "exit status 3");
	expect_reply("echo partial; kill -9 $$", "failed", "failed", "killed by signal 9");
	expect_reply("no-such-command", "failed", "failed", "exit status 127");
}

static void listen_limits(void **state)
{
	int64_t began = now_ms();

	expect_reply("yes", NULL, NULL, "printed more than the 4088 bytes");
	expect_reply("yes", "failed", "failed", "printed more than the 4088 bytes");
	expect_reply("echo partial; sleep 30", "failed", "failed", "stopped after 1 seconds");
	expect_reply("trap '' TERM; while :; do sleep 1; done", "failed", "failed", "stopped after 1 seconds");
	assert_true(now_ms() - began < 10000);
}

/* A process that the command leaves in the background does not hold up the reply, and neither a closed output. */
static void listen_background(void **state)
{
	int64_t began = now_ms();

	expect_reply("sleep 30 & echo bg", NULL, "bg\n", NULL);
	assert_true(now_ms() - began < 5000);
	expect_reply("echo out; exec >&-; sleep 0.2; exit 0", NULL, "out\n", NULL);
}

static void listen_reply_lost(void **state)
{
	start("listen", "-x", "cat", "-R", "0");
	expect_open();
	give("one");
	expect_sent("one", EPIPE);
	give("two");
	expect_sent("two", EIO);
	give("three");
	expect_sent("three", 0);
	kill(pid, SIGTERM);
	expect_exit(0);
}

/* The source does not answer: a signal ends the program all the same, and what is stored is named. */
static void signal_ends_send(void **state)
{
	char message[5000];

	assert_int_equal(mkdir("in", 0700), 0);
	for (int i = 0; i < 3; i++) {
		if (i == 0)
			start("recv", "-d", "in");
		else if (i == 1)
			start("recv", "-d", "in", "-n", "1");
		else
			start("listen", "-x", "cat");
		expect_open();
		give(i == 2 ? "message" : "FILE 00000000000000aa 3 0 a\none");
		assert_true(recv(send_fd, message, sizeof(message), 0) > 0);
		kill(pid, SIGINT);
		expect_exit(i == 1 ? 128 + SIGINT : 0);
		expect_words(err, "in doubt");
		expect_text(out, i == 2 ? "" : "a\n");
	}
}

/* The youngest thread of the program. */
static long last_thread(void)
{
	char path[40];
	struct dirent *entry;
	long last = 0;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	assert_non_null(tasks);
	while ((entry = readdir(tasks)))
		if (atol(entry->d_name) > last)
			last = atol(entry->d_name);
	closedir(tasks);
	return last;
}

/* To start a thread costs more than a send: one makes them all. */
static void one_thread_sends(void **state)
{
	char message[100];
	long first = 0;

	start("ping", "-s", "hmc1", "-n", "3");
	expect_open();
	for (int i = 0; i < 3; i++) {
		assert_true(recv(send_fd, message, sizeof(message), MSG_PEEK) > 0);
		first = first ?: last_thread();
		assert_int_equal(last_thread(), first);
		assert_int_not_equal(last_thread(), pid);
		take_sent(message, sizeof(message), 0);
	}
	expect_exit(0);
}

/* Commands run side by side, as many as --jobs says; a reply goes when its command ends. */
static void listen_jobs(void **state)
{
	static const char command[] = "read -r m; touch runs-$m; ls runs-* | wc -l >>counts; "
				      "while [ ! -e end-$m ]; do sleep 0.01; done; rm runs-$m; echo $m";

	start("listen", "-J", "2", "-x", command);
	expect_open();
	give("1\n");
	give("2\n");
	give("3\n");
	give("4\n");
	wait_for_file("runs-1");
	wait_for_file("runs-2");
	put("end-2", "");
	expect_sent("2\n", 0);
	put("end-3", "");
	expect_sent("3\n", 0);
	wait_for_file("runs-4");
	/* Those that run are waited for; nothing more is received. */
	kill(pid, SIGTERM);
	put("end-1", "");
	expect_sent("1\n", 0);
	put("end-4", "");
	expect_sent("4\n", 0);
	expect_exit(0);
	assert_int_equal(system("test $(sort -n counts | tail -1) = 2"), 0);

	for_each_text(bad, "0", "65", "two")
	{
		start("listen", "-x", "cat", "--jobs", *bad);
		expect_exit(EXIT_USAGE);
		expect_words(err, "a number from 1 to 64 is needed");
	}
}

static void reports_counted(void **state)
{
	char *said;

	start("listen", "-x", "exit 1");
	expect_open();
	for (int i = 0; i < 50; i++)
		give("message");
	wait_for(err, "exit status 1");
	while (!all_received())
		usleep(1000);
	kill(pid, SIGINT);
	expect_exit(0);
	said = read_all(err);
	if (!strstr(said, "exit status 1 (40 more times)"))
		fail_msg("said: %s", said);
}

/* With -d the command gets each file when it is stored; without, files are refused. */
static void listen_files(void **state)
{
	assert_int_equal(mkdir("in", 0700), 0);
	start("listen", "-d", "in", "-x", "echo ${HVPIPE_FILE:-none}; cat");
	expect_open();
	give("FILE 00000000000000aa 3 0 a\non");
	give("FILE 00000000000000aa 3 2 a\ne");
	expect_sent("STORED 00000000000000aa " SHA_ONE "\n", 0);
	expect_sent("in/a\none", 0);
	give("FILE 00000000000000aa 3 2 a\ne");
	expect_sent("STORED 00000000000000aa " SHA_ONE "\n", 0);
	give("FILE 00000000000000bb 1 0 ..\nx");
	expect_sent("REFUSED 00000000000000bb name file name '..' begins with a dot\n", 0);
	give("message");
	expect_sent("none\nmessage", 0);
	kill(pid, SIGTERM);
	expect_exit(0);

	start("listen", "-x", "cat");
	expect_open();
	give("FILE 00000000000000aa 3 0 a\none");
	expect_sent("REFUSED 00000000000000aa unwanted hvpipe listen runs there without -d\n", 0);
	give("message");
	expect_sent("message", 0);
	kill(pid, SIGTERM);
	expect_exit(0);
}

/*
 * status, doctor, and the rest
 */

static void status_unknown(void **state)
{
	setenv("FAKE_STATE", "unknown", 1);
	start("status");
	expect_exit(0);
	assert_string_equal(read_all(out),
			    "pipe -, - sources open, - messages dropped that came for sources not open\n"
			    "SOURCE      STATE            SENT         BYTES    RECEIVED         BYTES    HELD"
			    "      PID  COMMAND\n"
			    "-           -                   -             -           -             -       -"
			    "       13  two\n");
	setenv("FAKE_STATE", "enabled", 1);
	start("status", "-s", "hmc1");
	expect_exit(0);
	expect_words(out, "0x02000001  open                3             4           5             6       1"
			  "       12  one\\x1b[2J\n");
	start("-s", "hmc2", "status");
	expect_exit(0);
	assert_string_equal(read_all(out),
			    "pipe enabled, 1 source open, 7 messages dropped that came for sources not open\n");
}

static void expect_json(const char *expected)
{
	struct json_object *wanted = json_tokener_parse(expected), *found = json_tokener_parse(read_all(out));

	assert_non_null(wanted);
	if (!json_object_equal(wanted, found))
		fail_msg("%s", json_object_to_json_string(found));
	json_object_put(wanted);
	json_object_put(found);
}

static void status_json(void **state)
{
	setenv("FAKE_STATE", "unknown", 1);
	start("status", "--json");
	expect_exit(0);
	expect_json("{'pipe': {'state': null, 'handles': null, 'dropped': null}, 'holders': [{'source': null, "
		    "'state': null, 'sent': null, 'sent_bytes': null, 'received': null, 'received_bytes': null, "
		    "'held': null, 'pid': 13, 'command': 'two'}]}");
	setenv("FAKE_STATE", "enabled", 1);
	setenv("FAKE_DAEMON_LINE", "source id=0x02000001 state=open spooled=3 problem=disk \x1b is full", 1);
	start("status", "-j");
	expect_exit(0);
	expect_json("{'pipe': {'state': 'enabled', 'handles': 1, 'dropped': 7}, 'holders': [{'source': '0x02000001', "
		    "'state': 'open', 'sent': 3, 'sent_bytes': 4, 'received': 5, 'received_bytes': 6, 'held': 1, "
		    "'pid': 12, 'command': 'one\\\\x1b[2J'}], 'sources': [{'id': '0x02000001', 'state': 'open', "
		    "'spooled': 3, 'problem': 'disk \\\\x1b is full'}]}");
	start("status", "-j", "-D", "-s", "hmc2");
	expect_exit(0);
	expect_json("{'pipe': {'state': 'enabled', 'handles': 1, 'dropped': 7}, 'holders': []}");
}

static void exit_statuses(void **state)
{
	static const struct {
		int number, status;
		const char *words;
	} cases[] = {
		{ ENOENT, EXIT_NO_PIPE, "no /dev/papr-hvpipe" },    { EALREADY, EXIT_IN_USE, "in use" },
		{ ENXIO, EXIT_SUSPENDED, "suspended or disabled" }, { EACCES, EXIT_FAILURE, "permission denied" },
		{ EINVAL, EXIT_FAILURE, "no source ID" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char number[12];

		snprintf(number, sizeof(number), "%d", cases[i].number);
		setenv("FAKE_OPEN_ERRNO", number, 1);
		start("recv");
		expect_exit(cases[i].status);
		expect_words(err, cases[i].words);
	}
	unsetenv("FAKE_OPEN_ERRNO");
	start("recv", "-t", "0");
	expect_exit(EXIT_NO_MESSAGE);
	assert_string_equal(read_all(err), "hvpipe: hmc1: no message for 0 seconds\n");
	for_each_text(bad, "hmc0", "hmc65536", "hmc", "1x", "")
	{
		start("-s", *bad, "recv");
		expect_exit(EXIT_USAGE);
		expect_words(err, *bad);
	}
	start("recv", "-x", "true");
	expect_exit(EXIT_USAGE);
	start("nothing");
	expect_exit(EXIT_USAGE);
}

static void output_full(void **state)
{
	setenv("FAKE_STATE", "enabled", 1);
	for_each_text(word, "help", "--help", "-V", "status")
	{
		int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

		start(*word);
		expect_exit(0);
		assert_true(strlen(read_all(out)) > 0);
		start_argv((const char *const[]){ program, *word, NULL }, full);
		close(full);
		expect_exit(EXIT_FAILURE);
		expect_words(err, "No space left on device");
	}
}

static void make_tree(const char *release)
{
	static const char command[] =
		"mkdir -p root/proc/device-tree/rtas root/proc/sys/kernel root/sys/class/misc/papr-hvpipe "
		"root/proc/device-tree/event-sources/ibm,hvpipe-msg-events root/dev && cd root && "
		"touch dev/papr-hvpipe && cd proc/device-tree && "
		"touch event-sources/ibm,hvpipe-msg-events/interrupts && cd rtas && "
		"touch ibm,hypervisor-pipe-capable ibm,send-hvpipe-msg ibm,receive-hvpipe-msg "
		"ibm,set-system-parameter check-exception";

	assert_int_equal(system(command), 0);
	put("root/proc/sys/kernel/osrelease", release);
}

static void doctor_finds(const char *words, int status)
{
	start("doctor", "--root=root");
	expect_exit(status);
	expect_words(out, words);
}

static void doctor_findings(void **state)
{
	make_tree("7.2.13\n");
	doctor_finds("ok       firmware", 9);
	doctor_finds("warning  release   Linux 7.2.13: a message that comes while another one is received", 9);
	put("root/proc/sys/kernel/osrelease", "7.4.0");
	doctor_finds("ok       release   Linux 7.4.0 is not known to be bad", 0);
	for_each_text(bad, "6.18.32", "6.19.0-rc1", "6.19", "7.0.6+deb13", "6.18.29")
	{
		put("root/proc/sys/kernel/osrelease", *bad);
		doctor_finds("CVE-2026-", 9);
	}
	for_each_text(good, "6.18.31", "6.18.33", "7.0.7", "7.1.0")
	{
		put("root/proc/sys/kernel/osrelease", *good);
		start("doctor", "--root=root");
		expect_exit(9);
		assert_null(strstr(read_all(out), "CVE"));
	}
	unlink("root/proc/device-tree/rtas/ibm,receive-hvpipe-msg");
	doctor_finds("error    calls     no RTAS call ibm,receive-hvpipe-msg; report", 1);
	unlink("root/proc/device-tree/rtas/ibm,hypervisor-pipe-capable");
	doctor_finds("error    firmware  the hypervisor offers this partition no pipe", 1);
	unlink("root/dev/papr-hvpipe");
	doctor_finds("error    device", 1);
	assert_int_equal(rmdir("root/sys/class/misc/papr-hvpipe"), 0);
	start("doctor", "--root=root");
	expect_exit(1);
	assert_null(strstr(read_all(out), "driver"));
	put("root/proc/device-tree/rtas/ibm,hypervisor-pipe-capable", "");
	doctor_finds("error    driver    the kernel, Linux 7.1.0, has no papr-hvpipe driver", 1);
	assert_int_equal(system("rm -r root/proc/device-tree"), 0);
	doctor_finds("no RTAS", 1);
}

static void doctor_json_report(void **state)
{
	make_tree("7.4.0");
	put("root/proc/version", "Linux \x1b \"7.2.13\"\n");
	start("doctor", "-j", "--root=root", "--report=report.txt");
	expect_exit(0);
	expect_words(out, "{\"check\": \"firmware\", \"result\": \"ok\", \"text\": \"the hypervisor offers its pipe\", "
			  "\"remedy\": null},");
	assert_int_equal(system("grep -q 'ok       firmware' report.txt"), 0);
	assert_int_equal(system("grep -q 'ibm,send-hvpipe-msg:' report.txt"), 0);
	assert_int_equal(system("grep -qF 'Linux \\x1b \"7.2.13\"' report.txt"), 0);
	start("doctor", "--root=root", "--report=report.txt");
	expect_exit(EXIT_FAILURE);
	expect_words(err, "report.txt: File exists");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		TEST(stream_cut_portably),  TEST(replies_printed),
		TEST(second_reply_dropped), TEST(send_broken_off),
		TEST(doubt_retried),	    TEST(send_errors_named),
		TEST(file_stored),	    TEST(file_refused),
		TEST(progress_on_terminal), TEST(status_json),
		TEST(file_unknown),	    TEST(file_sent_again),
		TEST(file_refused_early),   TEST(file_reply),
		TEST(file_meets_file),	    TEST(recv_retries),
		TEST(recv_timeout_kept),    TEST(recv_suspended),
		TEST(recv_lost_connection), TEST(recv_reader_ends),
		TEST(recv_reader_stays),    TEST(terminal_escaped),
		TEST(recv_signals),	    TEST(recv_bad_names),
		TEST(recv_file_once),	    TEST(recv_answer_lost),
		TEST(recv_other_messages),  TEST(recv_json),
		TEST(listen_replies),	    TEST(listen_failed_command),
		TEST(listen_limits),	    TEST(listen_background),
		TEST(listen_reply_lost),    TEST(reports_counted),
		TEST(listen_files),	    TEST(status_unknown),
		TEST(signal_ends_send),	    TEST(one_thread_sends),
		TEST(listen_jobs),	    TEST(exit_statuses),
		TEST(output_full),	    TEST(doctor_findings),
		TEST(doctor_json_report),
	};

	assert_int_equal(argc, 2);
	/* Each test works in a directory of its own. */
	program = realpath(argv[1], NULL);
	return cmocka_run_group_tests_name("hvpipe", tests, NULL, NULL);
}
