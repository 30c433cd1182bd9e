// SPDX-License-Identifier: GPL-2.0-or-later
/* What hvpipe-hmc(1) promises as a program: run here, with the test as its hypervisor. argv[1] is the program. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <glib.h>

#include "common.h"
#include "spapr_hvpipe_link.h"
#include "test-program.h"

#define SOURCE 0x02000001
#define CREDIT 1000

/* SHA-256 of "one" */
#define SHA_ONE "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"

const char program_name[] = "test-hmc";

static const char *program;
static char *dir;
static int listener = -1;
static int peer = -1;

static char *in_dir(const char *name)
{
	static char paths[4][256];
	static unsigned int next;
	char *path = paths[next++ % 4];

	g_snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

static int setup(void **context)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = LIMIT_S };

	dir = g_dir_make_tmp("test-hvpipe-hmc-XXXXXX", NULL);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, in_dir("socket"));
	setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 8))
		return -1;
	return 0;
}

static int teardown(void **context)
{
	char *command = g_strdup_printf("rm -r %s", dir);
	int result;

	end_program();
	close_fd(&peer);
	close_fd(&listener);
	result = system(command);
	g_free(command);
	g_free(dir);
	return result;
}

/*
 * The program
 */

/* Run it with the socket and these arguments. */
#define start(...) start_argv((const char *const[]){ program, "-c", in_dir("socket"), __VA_ARGS__, NULL })

static void start_argv(const char *const *argv)
{
	close_fd(&peer);
	start_program(argv, -1);
}

static void kill_program(void)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	pid = 0;
}

/*
 * The hypervisor
 */

static bool peer_try_read(void *data, size_t len)
{
	return recv(peer, data, len, MSG_WAITALL) == (ssize_t)len;
}

/* Accept and read the hello. Returns false when the program is gone. */
static bool peer_try_accept(HvpipeLinkHmcState *s)
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HMC_STATE_SIZE];
	struct timeval patience = { .tv_sec = LIMIT_S };

	if (peer >= 0)
		close(peer);
	peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(peer >= 0);
	setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (!peer_try_read(frame, sizeof(frame)))
		return false;
	assert_int_equal(frame[1], HVPIPE_LINK_STATE);
	assert_null(hvpipe_link_unpack_hmc_state(frame + HVPIPE_LINK_HEADER_SIZE, s));
	return true;
}

/* The program may be gone already. */
static void peer_try_write(const void *data, size_t len)
{
	assert_true(send(peer, data, len, MSG_NOSIGNAL) == (ssize_t)len || errno == EPIPE || errno == ECONNRESET);
}

static void peer_state(uint64_t taken)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];
	HvpipeLinkHvState s = {
		.offer = HVPIPE_LINK_OFFER,
		.source = SOURCE,
		.flags = HVPIPE_LINK_HV_ENABLED,
		.epoch = 1,
		.taken = taken,
		.queued = taken,
		.credit = taken + CREDIT,
	};

	peer_try_write(frame, hvpipe_link_pack_hv_state(frame, &s));
}

static void peer_frame(HvpipeLinkType frame_type, uint64_t sequence, const char *payload)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];
	size_t len = payload ? strlen(payload) : 0;

	if (frame_type == HVPIPE_LINK_ACK) {
		peer_try_write(frame, hvpipe_link_pack_hv_ack(frame, sequence, sequence + CREDIT));
		return;
	}
	hvpipe_link_pack_header(frame, frame_type, len, sequence);
	if (len)
		memcpy(frame + HVPIPE_LINK_HEADER_SIZE, payload, len);
	peer_try_write(frame, HVPIPE_LINK_HEADER_SIZE + len);
}

static void come_up(void)
{
	HvpipeLinkHmcState s;

	assert_true(peer_try_accept(&s));
	peer_state(0);
}

static bool try_frame(HvpipeLinkHeader *header, char payload[HVPIPE_LINK_MAX_PAYLOAD + 1])
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE];

	if (!peer_try_read(frame, sizeof(frame)))
		return false;
	hvpipe_link_unpack_header(frame, header);
	assert_null(hvpipe_link_check_header(header, HVPIPE_LINK_FROM_HMC));
	payload[header->length] = '\0';
	return !header->length || peer_try_read(payload, header->length);
}

static void expect_frame(HvpipeLinkType frame_type, uint64_t sequence, const char *expected)
{
	char payload[HVPIPE_LINK_MAX_PAYLOAD + 1];
	HvpipeLinkHeader header;

	assert_true(try_frame(&header, payload));
	assert_string_equal(hvpipe_link_type_name(header.type), hvpipe_link_type_name(frame_type));
	assert_int_equal(header.sequence, sequence);
	if (expected)
		assert_string_equal(payload, expected);
}

/* A file message of the program; its ID as text. */
static const char *expect_file(uint64_t sequence, const char *line_end)
{
	char payload[HVPIPE_LINK_MAX_PAYLOAD + 1];
	HvpipeLinkHeader header;
	static char id[17];

	assert_true(try_frame(&header, payload));
	assert_int_equal(header.type, HVPIPE_LINK_MESSAGE);
	assert_int_equal(header.sequence, sequence);
	assert_true(g_str_has_prefix(payload, "FILE "));
	g_strlcpy(id, payload + 5, sizeof(id));
	assert_string_equal(payload + 22, line_end);
	return id;
}

/* The partition's answer to a file: what stands behind the ID. */
static void peer_answer(uint64_t sequence, const char *word, const char *id, const char *rest)
{
	char *answer = g_strdup_printf("%s %s %s\n", word, id, rest);

	peer_frame(HVPIPE_LINK_MESSAGE, sequence, answer);
	expect_frame(HVPIPE_LINK_ACK, sequence, NULL);
	g_free(answer);
}

/* The program closes the link, and says nothing more before. */
static void expect_end(void)
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_REASON_SIZE];

	assert_true(peer_try_read(frame, sizeof(frame)));
	assert_int_equal(frame[1], HVPIPE_LINK_CLOSE);
	assert_int_equal(hvpipe_link_get32(frame + HVPIPE_LINK_HEADER_SIZE), HVPIPE_LINK_DONE);
	close(peer);
	peer = -1;
}

static void write_file(const char *name, const char *text)
{
	assert_true(g_file_set_contents(in_dir(name), text, -1, NULL));
}

/*
 * send
 */

static void send_until_acknowledged(void **context)
{
	write_file("a", "first file");
	start("send", in_dir("a"), "-");
	type("from standard input");
	close_fd(&in);
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "first file");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "from standard input");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	expect_end();
	expect_exit(0);
	expect_text(out, "");
}

static void send_whole_messages(void **context)
{
	char *big = g_strnfill(10000, 'b'), *chunk = g_strnfill(4048, 'b'), *rest = g_strnfill(10000 - 2 * 4048, 'b');

	write_file("big", big);
	start("send", in_dir("big"));
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, chunk);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, chunk);
	expect_frame(HVPIPE_LINK_MESSAGE, 3, rest);
	peer_frame(HVPIPE_LINK_ACK, 3, NULL);
	expect_end();
	expect_exit(0);
	g_free(big);
	g_free(chunk);
	g_free(rest);
}

static void send_window(void **context)
{
	char *big = g_strnfill(400 * 4048, 'b');
	char payload[HVPIPE_LINK_MAX_PAYLOAD + 1];
	struct timeval soon = { .tv_usec = 200000 };
	HvpipeLinkHeader header;
	uint64_t n = 0;

	write_file("big", big);
	start("send", in_dir("big"));
	come_up();
	setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
	while (try_frame(&header, payload))
		n++;
	assert_int_equal(n, 256);
	peer_frame(HVPIPE_LINK_ACK, 256, NULL);
	while (try_frame(&header, payload))
		n++;
	assert_int_equal(n, 400);
	peer_frame(HVPIPE_LINK_ACK, 400, NULL);
	expect_exit(0);
	g_free(big);
}

static void send_f_stored(void **context)
{
	char first[17], second[17], *expected;

	write_file("a", "one");
	write_file("empty", "");
	start("-v", "send", "-f", in_dir("a"), in_dir("empty"));
	come_up();
	strcpy(first, expect_file(1, "3 0 a\none"));
	strcpy(second, expect_file(2, "0 0 empty\n"));
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	/* What is no answer is not taken for one: its sender learns that nobody takes it. */
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	expect_frame(HVPIPE_LINK_NACK, 1, NULL);
	peer_answer(1, "STORED", "00000000000000aa", SHA_ONE);
	peer_answer(2, "STORED", first, SHA_ONE);
	peer_answer(3, "STORED", second, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	expect_end();
	expect_exit(0);
	expected = g_strdup_printf("%s: stored, SHA-256 " SHA_ONE "\n%s: stored, SHA-256 e3b0c44298fc1c149afbf4c8996fb"
				   "92427ae41e4649b934ca495991b7852b855\n",
				   in_dir("a"), in_dir("empty"));
	expect_text(out, expected);
	g_free(expected);
	expect_words(err, "answer to a file of an earlier run: STORED 00000000000000aa");
}

static void send_f_refused(void **context)
{
	char first[17], second[17];

	write_file("a", "one");
	write_file("b", "one");
	start("send", "-f", in_dir("a"), in_dir("b"));
	come_up();
	strcpy(first, expect_file(1, "3 0 a\none"));
	strcpy(second, expect_file(2, "3 0 b\none"));
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	peer_answer(1, "REFUSED", first, "storage No space left on device");
	peer_answer(2, "STORED", second, SHA_ONE);
	expect_end();
	expect_exit(10);
	expect_words(err, "a: refused: No space left on device\n");
	expect_words(out, "b: stored, SHA-256 " SHA_ONE);
}

/* The partition's kernel takes the messages, as nobody reads there: that is not "stored". */
static void send_f_unknown(void **context)
{
	write_file("a", "one");
	start("send", "-f", "-t", "0.3", in_dir("a"), in_dir("a"));
	come_up();
	expect_file(1, "3 0 a\none");
	expect_file(2, "3 0 a\none");
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	expect_end();
	expect_exit(11);
	expect_text(out, "");
	expect_words(err, "a: unknown whether it is stored: the partition has received it, but no answer came for 0.3 "
			  "seconds");

	/* Not even the kernel takes them. */
	start("send", "-f", "-t", "0.3", in_dir("a"));
	come_up();
	expect_file(1, "3 0 a\none");
	expect_end();
	expect_exit(11);
	expect_words(err, "nothing acknowledged for 0.3 seconds; 1 message was not acknowledged");
}

/* A part was lost on the way: the file is sent again, under the same ID. */
static void send_f_again(void **context)
{
	char id[17];

	write_file("a", "one");
	start("send", "-f", in_dir("a"));
	come_up();
	strcpy(id, expect_file(1, "3 0 a\none"));
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_answer(1, "REFUSED", id, "gap a: offset 0 without the chunks before it");
	assert_string_equal(expect_file(2, "3 0 a\none"), id);
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	peer_answer(2, "STORED", id, SHA_ONE);
	expect_end();
	expect_exit(0);
}

/* The reply comes behind the answer, or before it; there is none to a file that is refused. */
static void send_f_reply(void **context)
{
	const char *path = in_dir("a");
	char id[17], *expected;

	write_file("a", "one");
	start("send", "-f", "-r", path, path, path);
	come_up();
	strcpy(id, expect_file(1, "3 0 a\none"));
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_answer(1, "STORED", id, SHA_ONE);
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "first");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
	strcpy(id, expect_file(2, "3 0 a\none"));
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	peer_answer(3, "REFUSED", id, "name no");
	strcpy(id, expect_file(3, "3 0 a\none"));
	peer_frame(HVPIPE_LINK_ACK, 3, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 4, "second");
	expect_frame(HVPIPE_LINK_ACK, 4, NULL);
	peer_answer(5, "STORED", id, SHA_ONE);
	expect_end();
	expect_exit(10);
	expected = g_strdup_printf("%s: stored, SHA-256 " SHA_ONE "\n%s: first\n%s: second\n"
				   "%s: stored, SHA-256 " SHA_ONE "\n",
				   path, path, path, path);
	expect_text(out, expected);
	g_free(expected);
}

static void send_refuses_meanwhile(void **context)
{
	write_file("a", "text");
	start("send", in_dir("a"));
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "text");
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "unwanted");
	expect_frame(HVPIPE_LINK_NACK, 1, NULL);
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	expect_end();
	expect_exit(0);
	expect_words(err, "message of 8 bytes refused");
}

static void send_reply(void **context)
{
	write_file("a", "A");
	write_file("b", "B");
	start("send", "--reply", in_dir("a"), in_dir("b"));
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "A");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "to a");
	/* The second file is not sent before the reply to the first was taken. */
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "B");
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "to b\n");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
	expect_end();
	expect_exit(0);
	{
		char *expected = g_strdup_printf("%s: to a\n%s: to b\n", in_dir("a"), in_dir("b"));

		expect_text(out, expected);
		g_free(expected);
	}
}

static void send_all_or_nothing(void **context)
{
	write_file("a", "text");
	start("send", in_dir("a"), in_dir("missing"));
	expect_exit(1);
	expect_words(err, "missing");
	write_file("empty", "");
	start("send", in_dir("empty"));
	expect_exit(1);
	expect_words(err, "-f can send empty files");
}

static void send_after_kill(void **context)
{
	write_file("a", "A");
	write_file("b", "B");
	start("--state", in_dir("state"), "send", in_dir("a"));
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "A");
	kill_program();
	start("--state", in_dir("state"), "send", in_dir("b"));
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "A");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "B");
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	expect_end();
	expect_exit(0);
}

/*
 * recv
 */

static void recv_n(void **context)
{
	start("recv", "-n", "2");
	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "one ");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	peer_frame(HVPIPE_LINK_MESSAGE, 3, "three");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
	expect_end();
	expect_exit(0);
	expect_text(out, "one two");
}

static void recv_unwritten(void **context)
{
	start("recv");
	come_up();
	close(out);
	out = -1;
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "lost?");
	expect_end();
	expect_exit(1);
	expect_words(err, "not acknowledged");
}

static void recv_d(void **context)
{
	char *text;

	start("recv", "-n", "1", "-d", dir);
	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "no file message");
	expect_frame(HVPIPE_LINK_NACK, 1, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "FILE 00000000000000aa 3 0 got.txt\non");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	assert_false(g_file_test(in_dir("got.txt"), G_FILE_TEST_EXISTS));
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "FILE 00000000000000aa 3 2 got.txt\ne");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "STORED 00000000000000aa " SHA_ONE "\n");
	expect_end();
	expect_exit(1);
	expect_text(out, "got.txt\n");
	assert_true(g_file_get_contents(in_dir("got.txt"), &text, NULL, NULL));
	assert_string_equal(text, "one");
	g_free(text);
}

/* A message in doubt that the partition sends twice is one file, also for -n. */
static void recv_d_once(void **context)
{
	start("recv", "-n", "2", "-d", dir);
	come_up();
	for (int i = 1; i <= 2; i++) {
		peer_frame(HVPIPE_LINK_MESSAGE, i, "FILE 00000000000000aa 3 0 a\none");
		expect_frame(HVPIPE_LINK_ACK, i, NULL);
		expect_frame(HVPIPE_LINK_MESSAGE, i, "STORED 00000000000000aa " SHA_ONE "\n");
	}
	/* An answer is not answered. */
	peer_answer(3, "STORED", "00000000000000aa", SHA_ONE);
	peer_frame(HVPIPE_LINK_MESSAGE, 4, "FILE 00000000000000bb 3 0 b\none");
	expect_frame(HVPIPE_LINK_ACK, 4, NULL);
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "STORED 00000000000000bb " SHA_ONE "\n");
	expect_end();
	expect_exit(0);
	expect_text(out, "a\nb\n");
}

/*
 * The same after the receiver was killed, with --state: in a new message when the partition's send was in doubt, or in
 * the message that was not acknowledged.
 */
static void recv_d_once_across_restart(void **context)
{
	char *state = in_dir("state");
	HvpipeLinkHmcState s;

	start("--state", state, "recv", "-d", dir);
	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "FILE 00000000000000aa 3 0 a\none");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "STORED 00000000000000aa " SHA_ONE "\n");
	kill_program();
	expect_text(out, "a\n");
	assert_int_equal(unlink(in_dir("a")), 0);

	start("--state", state, "recv", "-n", "1", "-d", dir);
	assert_true(peer_try_accept(&s));
	assert_int_equal(s.taken, 1);
	peer_state(0);
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "STORED 00000000000000aa " SHA_ONE "\n");
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "FILE 00000000000000aa 3 0 a\none");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "STORED 00000000000000aa " SHA_ONE "\n");
	assert_false(g_file_test(in_dir("a"), G_FILE_TEST_EXISTS));
	peer_frame(HVPIPE_LINK_MESSAGE, 3, "FILE 00000000000000bb 3 0 b\none");
	expect_frame(HVPIPE_LINK_ACK, 3, NULL);
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "STORED 00000000000000bb " SHA_ONE "\n");
	expect_end();
	expect_exit(0);
	expect_text(out, "b\n");
}

/* A partition that never receives the answers does not make them grow without end. */
static void recv_d_answers_bounded(void **context)
{
	char payload[HVPIPE_LINK_MAX_PAYLOAD + 1];
	uint64_t sequence = 1;
	HvpipeLinkHeader header;

	start("recv", "-d", dir);
	come_up();
	while (true) {
		g_snprintf(payload, sizeof(payload), "FILE %016" PRIx64 " 1 0 .x\nx", sequence);
		peer_frame(HVPIPE_LINK_MESSAGE, sequence, payload);
		do
			assert_true(try_frame(&header, payload));
		while (header.type == HVPIPE_LINK_MESSAGE);
		if (header.type == HVPIPE_LINK_NACK)
			break;
		sequence++;
		assert_true(sequence < 5000);
	}
	assert_int_equal(sequence, 1025);
	kill(pid, SIGTERM);
	expect_exit(1);
}

static void recv_json(void **context)
{
	start("recv", "--json", "-n", "2");
	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "one \"\n");
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "\x1b\xff");
	expect_exit(0);
	expect_text(out, "{\"source\":\"hmc1\",\"sequence\":1,\"bytes\":6,\"text\":\"one \\\"\\n\"}\n"
			 "{\"source\":\"hmc1\",\"sequence\":2,\"bytes\":2,\"text_hex\":\"1bff\"}\n");

	start("recv", "-j", "-d", dir, "-n", "1");
	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "FILE 00000000000000aa 3 0 .a\none");
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "FILE 00000000000000bb 3 0 b\none");
	expect_exit(1);
	expect_text(out,
		    "{\"source\":\"hmc1\",\"id\":\"00000000000000aa\",\"file\":\"\","
		    "\"refused\":\"file name '.a' begins with a dot\"}\n"
		    "{\"source\":\"hmc1\",\"id\":\"00000000000000bb\",\"file\":\"b\",\"bytes\":3,\"sha256\":\"" SHA_ONE
		    "\"}\n");
}

static void recv_t(void **context)
{
	start("recv", "-t", "0.2");
	come_up();
	expect_exit(6);
	expect_words(err, "no message for 0.2 seconds");
}

static void recv_t_reports_once(void **context)
{
	char *path = g_strdup_printf("hvpipe-hmc: %s: no message for 0 seconds\n", in_dir("socket"));

	start("recv", "-t", "0");
	expect_exit(6);
	expect_text(err, path);
	g_free(path);
}

/* No name stops the next file, and nothing of a name reaches the terminal as it is. */
static void recv_d_poisonous_names(void **context)
{
	static const char *const names[] = { "dir", ".",	"..",	    ".bashrc",	  ".x.part",
					     "a/b", "/\x1b[2J", "a\x1b[2J", "a\xc2\x9bK", "\x1b]0;title\x07/x" };
	char *said;

	assert_int_equal(mkdir(in_dir("dir"), 0700), 0);
	start("recv", "-n", "2", "-d", dir);
	come_up();
	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		char *message = g_strdup_printf("FILE %016zx 1 0 %s\nx", i, names[i]);
		char payload[HVPIPE_LINK_MAX_PAYLOAD + 1];
		HvpipeLinkHeader header;

		peer_frame(HVPIPE_LINK_MESSAGE, i + 1, message);
		expect_frame(HVPIPE_LINK_ACK, i + 1, NULL);
		assert_true(try_frame(&header, payload));
		g_snprintf(message, strlen(message), "REFUSED %016zx name ", i);
		assert_true(g_str_has_prefix(payload, message));
		g_free(message);
	}
	peer_frame(HVPIPE_LINK_MESSAGE, 11, "FILE 00000000000000aa 3 0 good\none");
	expect_frame(HVPIPE_LINK_ACK, 11, NULL);
	expect_frame(HVPIPE_LINK_MESSAGE, 11, "STORED 00000000000000aa " SHA_ONE "\n");
	/* Latin-1: a name like others, but no text. */
	peer_frame(HVPIPE_LINK_MESSAGE, 12,
		   "FILE 00000000000000bb 3 0 \x9b"
		   "2J\none");
	expect_frame(HVPIPE_LINK_ACK, 12, NULL);
	expect_frame(HVPIPE_LINK_MESSAGE, 12, "STORED 00000000000000bb " SHA_ONE "\n");
	expect_end();
	expect_exit(1);
	expect_text(out, "good\n\\x9b2J\n");
	said = read_all(err);
	for (const char *c = said; *c; c++)
		assert_true(*c == '\n' || (*c >= ' ' && *c < 0x7f));
}

static void reply_escaped(void **context)
{
	int terminal;

	write_file("a", "question");
	terminal = start_on_terminal(
		(const char *const[]){ program, "-c", in_dir("socket"), "send", "--reply", in_dir("a"), NULL });
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "question");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 1,
		   "\x1b[2J\xc2\x9b"
		   "2J answer");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	wait_for(terminal, "a: \\x1b[2J\\xc2\\x9b2J answer\r\n");
	expect_exit(0);
}

/* A transfer that takes longer than a second shows how far it is, on a terminal. */
static void progress_on_terminal(void **context)
{
	char payload[HVPIPE_LINK_MAX_PAYLOAD + 1], *answer;
	HvpipeLinkHeader header;
	int terminal;

	write_file("big", "");
	assert_int_equal(truncate(in_dir("big"), 1024 * 4048), 0);
	terminal = start_on_terminal(
		(const char *const[]){ program, "-c", in_dir("socket"), "send", "-f", in_dir("big"), NULL });
	come_up();
	/* It sends a quarter, and gets no acknowledgement. */
	wait_for(terminal, "/big: ");
	wait_for(terminal, "KiB, 25 %, ");
	wait_for(terminal, "/s\x1b[K");
	for (int i = 0; i < 256; i++)
		assert_true(try_frame(&header, payload));
	/* The answer comes first: an ACK alone would let it send more, which we would have to acknowledge as well. */
	answer = g_strdup_printf("REFUSED %.16s storage disk full\n", payload + 5);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, answer);
	g_free(answer);
	peer_frame(HVPIPE_LINK_ACK, 256, NULL);
	wait_for(terminal, "\r\x1b[Khvpipe-hmc: ");
	wait_for(terminal, "big: refused: disk full\r\n");
}

/* Nobody reads the output: a signal ends the program within a second, and the message stays with the hypervisor. */
static void blocked_recv_ends(void **context)
{
	char *big = g_strnfill(4000, 'b'), payload[HVPIPE_LINK_MAX_PAYLOAD + 1];
	struct timeval soon = { .tv_usec = 300000 };
	HvpipeLinkHeader header;
	uint64_t acknowledged = 0;
	gint64 began;

	start("recv");
	come_up();
	for (int i = 1; i <= 50; i++)
		peer_frame(HVPIPE_LINK_MESSAGE, i, big);
	setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
	while (try_frame(&header, payload))
		acknowledged = header.sequence;
	assert_true(acknowledged > 0 && acknowledged < 50);
	began = g_get_monotonic_time();
	kill(pid, SIGINT);
	expect_exit(0);
	assert_true(g_get_monotonic_time() - began < 1000000);
	expect_words(err, "nobody reads it; the last message was not acknowledged");
	g_free(big);
}

static void fifo_without_writer(void **context)
{
	gint64 began;
	int fd;

	assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
	start("send", in_dir("fifo"));
	come_up();
	began = g_get_monotonic_time();
	kill(pid, SIGINT);
	expect_exit(130);
	assert_true(g_get_monotonic_time() - began < 1000000);

	start("send", in_dir("fifo"));
	come_up();
	fd = open(in_dir("fifo"), O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(fd, "hello", 5), 5);
	close(fd);
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	expect_exit(0);
}

static void no_socket(void **context)
{
	start_argv((const char *const[]){ program, "-c", "/etc/passwd", "recv", NULL });
	expect_exit(1);
	expect_text(err, "hvpipe-hmc: /etc/passwd: not a socket\n");
}

static void full_output(void **context)
{
	for (const char *const *word = (const char *const[]){ "--help", "help", "-V", NULL }; *word; word++) {
		char *command = g_strdup_printf("%s %s >/dev/full 2>&1", program, *word);
		int status = system(command);

		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 1);
		g_free(command);
	}
}

/*
 * echo
 */

/*
 * The hypervisor sends numbered messages, and the program is killed again and again at any point. Each message must be
 * answered exactly once, in order.
 */
static void echo_once_through_kills(void **context)
{
	enum { COUNT = 300 };
	char payload[HVPIPE_LINK_MAX_PAYLOAD + 1];
	uint64_t taken = 0, received = 0, next = 1, session = 0;
	unsigned int kills = 0;
	GRand *rand = g_rand_new_with_seed(7);

	while (received < COUNT) {
		HvpipeLinkHmcState s;
		HvpipeLinkHeader header;
		int frames = g_rand_int_range(rand, 0, 30);

		start("--state", in_dir("state"), "echo");
		if (g_rand_int_range(rand, 0, 4) == 0) {
			/* So early that it may not have said hello. */
			g_usleep(g_rand_int_range(rand, 0, 20000));
			kill_program();
			kills++;
			fcntl(listener, F_SETFL, O_NONBLOCK);
			close(accept(listener, NULL, NULL));
			fcntl(listener, F_SETFL, 0);
			continue;
		}
		assert_true(peer_try_accept(&s));
		assert_true(!session || s.session == session);
		assert_true(s.taken >= taken);
		assert_true(s.first <= received + 1);
		session = s.session;
		taken = s.taken;
		next = taken + 1;
		peer_state(received);
		for (int i = 0; i < 5 && next <= COUNT; i++, next++) {
			g_snprintf(payload, sizeof(payload), "message %d", (int)next);
			peer_frame(HVPIPE_LINK_MESSAGE, next, payload);
		}
		while (received < COUNT && frames-- && try_frame(&header, payload)) {
			char expected[32];

			if (header.type == HVPIPE_LINK_ACK) {
				assert_true(header.sequence > taken && header.sequence < next);
				taken = header.sequence;
				if (next <= COUNT) {
					g_snprintf(payload, sizeof(payload), "message %d", (int)next);
					peer_frame(HVPIPE_LINK_MESSAGE, next++, payload);
				}
				continue;
			}
			assert_int_equal(header.type, HVPIPE_LINK_MESSAGE);
			g_snprintf(expected, sizeof(expected), "message %d", (int)header.sequence);
			assert_string_equal(payload, expected);
			if (header.sequence <= received)
				continue;
			assert_int_equal(header.sequence, received + 1);
			received++;
			if (g_rand_int_range(rand, 0, 3))
				peer_frame(HVPIPE_LINK_ACK, received, NULL);
		}
		kill_program();
		kills++;
	}
	assert_true(kills > 10);
	g_rand_free(rand);
}

/*
 * console
 */

static void console_lines(void **context)
{
	start("console");
	come_up();
	type("hello\n//slash\n\n/nonsense\nlast");
	close_fd(&in);
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "/slash");
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "last");
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "evil \033[2J\\ \xff\n\xc3\xa4");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_frame(HVPIPE_LINK_ACK, 3, NULL);
	expect_end();
	expect_exit(0);
	expect_text(out, "[1] 15 bytes: evil \\x1b[2J\\\\ \\xff\\n\xc3\xa4\n");
	expect_words(err, "no command '/nonsense'");
}

/* /send says what became of the file; a file that comes is refused, as the console stores none. */
static void console_files(void **context)
{
	char first[17], *commands = g_strdup_printf("/send %s\n/send %s\nline\n", in_dir("a"), in_dir("a"));

	write_file("a", "one");
	start("console");
	come_up();
	type(commands);
	g_free(commands);
	strcpy(first, expect_file(1, "3 0 a\none"));
	expect_file(2, "3 0 a\none");
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "line");
	peer_frame(HVPIPE_LINK_ACK, 3, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "FILE 00000000000000aa 3 0 theirs\none");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	expect_frame(HVPIPE_LINK_MESSAGE, 4,
		     "REFUSED 00000000000000aa unwanted hvpipe-hmc console runs there, and stores no files\n");
	peer_frame(HVPIPE_LINK_ACK, 4, NULL);
	peer_answer(2, "STORED", first, SHA_ONE);
	wait_for(err, "a: stored, 3 bytes in 1 message, SHA-256 " SHA_ONE "\n");
	kill(pid, SIGINT);
	expect_exit(130);
	expect_text(out, "[1] 36 bytes: FILE 00000000000000aa 3 0 theirs\\none\n");
}

static void console_fault(void **context)
{
	start("-v", "console");
	come_up();
	type("/fault cloze\n/fault close,count=2;gap\n/status\n/fault stall\nhello\n");
	wait_for(err, "/fault: fault 'cloze' is not known, choose from: close");
	wait_for(err, "faults:     close,count=2,every=1;gap,count=1,every=1\n");
	wait_for(err, "fault stall at MESSAGE 1");
	type("/fault\n");
	close_fd(&in);
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	expect_end();
	expect_exit(0);
}

static void faults_lose_nothing(void **context)
{
	start("-v", "--fault", "cut;close", "console", NULL);
	come_up();
	type("hello\n");
	wait_for(err, "fault cut at MESSAGE 1");
	come_up();
	wait_for(err, "fault close at MESSAGE 1");
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	close_fd(&in);
	expect_end();
	expect_exit(0);
}

static void console_long_line(void **context)
{
	char *line = g_strnfill(4089, 'x'), *most = g_strnfill(4088, 'x');

	start("console");
	come_up();
	type(line);
	type("\n");
	type(most);
	type("\n");
	close_fd(&in);
	expect_frame(HVPIPE_LINK_MESSAGE, 1, most);
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	expect_exit(0);
	expect_words(err, "line of 4089 bytes not sent");
	g_free(line);
	g_free(most);
}

static void console_terminal(void **context)
{
	int terminal;

	setenv("TERM", "xterm", 1);
	terminal = start_on_terminal((const char *const[]){ program, "-c", in_dir("socket"), "console", NULL });
	come_up();
	wait_for(terminal, "hmc> ");
	/* A typo, a backspace, and a message that comes in the middle of the line. */
	type("hellp\177");
	wait_for(terminal, "hellp");
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "meanwhile");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	wait_for(terminal, "[1] 9 bytes: meanwhile");
	wait_for(terminal, "hmc> hell");
	type("o\n");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	/* From the history. */
	type("\020\n");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "hello");
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	type("/status\n");
	wait_for(terminal, "0x02000001");
	wait_for(terminal, "sent:       2");
	/* Ctrl-D means the end only to the prompt. */
	wait_for(terminal, "hmc> ");
	type("\004");
	expect_end();
	wait_for(terminal, "\n");
	expect_exit(0);
}

/*
 * The whole program
 */

static void signals_in_order(void **context)
{
	write_file("a", "text");
	start("send", in_dir("a"));
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "text");
	kill(pid, SIGINT);
	expect_end();
	expect_exit(130);
	expect_words(err, "1 message was not acknowledged");

	start("recv", "-n", "1");
	come_up();
	kill(pid, SIGTERM);
	expect_end();
	expect_exit(143);

	start("echo");
	come_up();
	kill(pid, SIGTERM);
	expect_end();
	expect_exit(0);
}

static void addresses_anywhere(void **context)
{
	/* start() names the first one before the command. */
	assert_int_equal(rename(in_dir("socket"), in_dir("elsewhere")), 0);
	start("echo", "-c", in_dir("elsewhere"));
	come_up();
	assert_int_equal(rename(in_dir("elsewhere"), in_dir("socket")), 0);
	close(peer);
	peer = -1;
	come_up();
	kill(pid, SIGTERM);
	expect_end();
	expect_exit(0);
	start("recv", "-c", "host:99999");
	expect_exit(2);
	expect_words(err, "'host:99999'");
}

static void state_in_use(void **context)
{
	pid_t first;

	start("--state", in_dir("state"), "echo");
	come_up();
	first = pid;
	start("--state", in_dir("state"), "recv");
	expect_exit(8);
	expect_words(err, "in use by another hvpipe-hmc");
	pid = first;
}

static void wrong_usage(void **context)
{
	static const struct {
		const char *arguments[3];
		const char *words;
	} cases[] = {
		{ { "frobnicate" }, "'frobnicate'" },
		{ { "recv", "-n", "0" }, "'0'" },
		{ { "recv", "-n", "1x" }, "'1x'" },
		{ { "recv", "-t", "-1" }, "'-1'" },
		{ { "recv", "-t", "nan" }, "'nan'" },
		{ { "echo", "more" }, "'more'" },
		{ { "echo", "-n", "1" }, "-n" },
		{ { "send", "-f" }, "which FILE" },
		{ { "-c", "host:99999", "echo" }, "'host:99999'" },
		{ { "--fault", "close;cloze", "echo" }, "--fault: fault 'cloze' is not known" },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		start(cases[i].arguments[0], cases[i].arguments[1], cases[i].arguments[2]);
		expect_exit(2);
		expect_words(err, cases[i].words);
	}
}

static void help_and_version(void **context)
{
	start("--help");
	expect_exit(0);
	expect_words(out, "Exit status:");
	start("recv", "--help");
	expect_exit(0);
	expect_words(out, "--dir");
	start("--version");
	expect_exit(0);
	expect_words(out, "hvpipe-hmc ");
}

static void malformed_survived(void **context)
{
	start("recv", "-n", "1");
	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 7, "gap");
	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "fine");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	expect_end();
	expect_exit(0);
	expect_words(err, "MESSAGE 7 where 1 must come next");
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(send_until_acknowledged),
		TEST(send_whole_messages),
		TEST(send_window),
		TEST(send_f_stored),
		TEST(send_f_refused),
		TEST(send_f_unknown),
		TEST(send_f_again),
		TEST(send_f_reply),
		TEST(send_refuses_meanwhile),
		TEST(send_reply),
		TEST(send_all_or_nothing),
		TEST(send_after_kill),
		TEST(recv_n),
		TEST(recv_unwritten),
		TEST(recv_d),
		TEST(recv_d_once),
		TEST(recv_d_once_across_restart),
		TEST(recv_d_answers_bounded),
		TEST(recv_json),
		TEST(recv_t),
		TEST(recv_t_reports_once),
		TEST(recv_d_poisonous_names),
		TEST(reply_escaped),
		TEST(progress_on_terminal),
		TEST(blocked_recv_ends),
		TEST(fifo_without_writer),
		TEST(no_socket),
		TEST(full_output),
		TEST(echo_once_through_kills),
		TEST(console_lines),
		TEST(console_files),
		TEST(console_fault),
		TEST(faults_lose_nothing),
		TEST(console_long_line),
		TEST(console_terminal),
		TEST(signals_in_order),
		TEST(addresses_anywhere),
		TEST(state_in_use),
		TEST(wrong_usage),
		TEST(help_and_version),
		TEST(malformed_survived),
	};

	if (argc != 2) {
		fprintf(stderr, "Usage: %s HVPIPE-HMC\n", argv[0]);
		return 2;
	}
	program = argv[1];
	setenv("LC_ALL", "C.UTF-8", 1);
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("hvpipe-hmc", tests, NULL, NULL);
}
