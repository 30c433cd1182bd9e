// SPDX-License-Identifier: GPL-2.0-or-later
/* What hvpipe-hmc(1) promises as a program: run here, with the test as its hypervisor. argv[1] is the program. */
#include <errno.h>
#include <fcntl.h>
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

#include "spapr_hvpipe_link.h"

#define SOURCE	   0x02000001
#define PATIENCE_S 20
#define CREDIT	   1000

static const char *program;
static char *dir;
static int listener = -1;
static int peer = -1;
static pid_t pid;
static int in = -1, out = -1, err = -1; /* the program's */

static char *in_dir(const char *name)
{
	static char paths[4][256];
	static unsigned int next;
	char *path = paths[next++ % 4];

	g_snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

static void close_all(void)
{
	int *const fds[] = { &in, &out, &err, &peer };

	for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

static int setup(void **context)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = PATIENCE_S };

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

	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	pid = 0;
	close_all();
	close(listener);
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
	int in_pipe[2], out_pipe[2], err_pipe[2];

	if (peer >= 0)
		close(peer);
	peer = -1;
	close_all();
	assert_int_equal(pipe2(in_pipe, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out_pipe, O_CLOEXEC), 0);
	assert_int_equal(pipe2(err_pipe, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		dup2(in_pipe[0], STDIN_FILENO);
		dup2(out_pipe[1], STDOUT_FILENO);
		dup2(err_pipe[1], STDERR_FILENO);
		execv(program, (char **)argv);
		_exit(127);
	}
	close(in_pipe[0]);
	close(out_pipe[1]);
	close(err_pipe[1]);
	in = in_pipe[1];
	out = out_pipe[0];
	err = err_pipe[0];
}

static void type(const char *text)
{
	assert_int_equal(write(in, text, strlen(text)), strlen(text));
}

static void close_input(void)
{
	close(in);
	in = -1;
}

static int wait_for_end(void)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	pid = 0;
	return status;
}

static void expect_exit(int code)
{
	int status = wait_for_end();

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), code);
}

/* All that comes from there until its end. */
static char *read_all(int fd)
{
	GString *text = g_string_new(NULL);
	char data[4096];
	ssize_t n;

	while ((n = read(fd, data, sizeof(data))) > 0)
		g_string_append_len(text, data, n);
	return g_string_free(text, FALSE);
}

static void expect_text(int fd, const char *expected)
{
	char *text = read_all(fd);

	assert_string_equal(text, expected);
	g_free(text);
}

static void expect_words(int fd, const char *words)
{
	char *text = read_all(fd);

	if (!strstr(text, words))
		fail_msg("'%s' is not in: %s", words, text);
	g_free(text);
}

/* Read until these words came. */
static void wait_for_words(int fd, const char *words)
{
	GString *text = g_string_new(NULL);
	char c;

	while (!strstr(text->str, words)) {
		if (read(fd, &c, 1) != 1)
			fail_msg("'%s' is not in: %s", words, text->str);
		if (c)
			g_string_append_c(text, c);
	}
	g_string_free(text, TRUE);
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
	struct timeval patience = { .tv_sec = PATIENCE_S };

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
	close_input();
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

static void send_f_messages(void **context)
{
	write_file("name.txt", "content\n");
	write_file("empty", "");
	start("send", "-f", in_dir("name.txt"), in_dir("empty"));
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "FILE 8 0 name.txt\ncontent\n");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "FILE 0 0 empty\n");
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	expect_end();
	expect_exit(0);
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
	expect_words(err, "message 1 of 8 bytes refused");
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
	kill(pid, SIGKILL);
	wait_for_end();
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
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "FILE 8 0 got.txt\nhalf");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	assert_false(g_file_test(in_dir("got.txt"), G_FILE_TEST_EXISTS));
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "FILE 8 4 got.txt\nhalf");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
	expect_end();
	expect_exit(1);
	expect_text(out, "got.txt\n");
	assert_true(g_file_get_contents(in_dir("got.txt"), &text, NULL, NULL));
	assert_string_equal(text, "halfhalf");
	g_free(text);
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
		char *message = g_strdup_printf("FILE 1 0 %s\nx", names[i]);

		peer_frame(HVPIPE_LINK_MESSAGE, 1, message);
		expect_frame(HVPIPE_LINK_NACK, 1, NULL);
		g_free(message);
	}
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "FILE 1 0 good\nx");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	/* Latin-1: a name like others, but no text. */
	peer_frame(HVPIPE_LINK_MESSAGE, 2,
		   "FILE 1 0 \x9b"
		   "2J\nx");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
	expect_end();
	expect_exit(1);
	expect_text(out, "good\n\\x9b2J\n");
	said = read_all(err);
	for (const char *c = said; *c; c++)
		assert_true(*c == '\n' || (*c >= ' ' && *c < 0x7f));
	g_free(said);
}

static void reply_escaped(void **context)
{
	int terminal;

	write_file("a", "question");
	fflush(NULL);
	pid = forkpty(&terminal, NULL, NULL, NULL);
	assert_true(pid >= 0);
	if (pid == 0) {
		execl(program, program, "-c", in_dir("socket"), "send", "--reply", in_dir("a"), (char *)NULL);
		_exit(127);
	}
	in = terminal;
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "question");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 1,
		   "\x1b[2J\xc2\x9b"
		   "2J answer");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	wait_for_words(terminal, "a: \\x1b[2J\\xc2\\x9b2J answer\r\n");
	expect_exit(0);
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
			kill(pid, SIGKILL);
			wait_for_end();
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
		kill(pid, SIGKILL);
		wait_for_end();
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
	close_input();
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

static void console_fault(void **context)
{
	start("-v", "console");
	come_up();
	type("/fault cloze\n/fault close,count=2;gap\n/status\n/fault stall\nhello\n");
	wait_for_words(err, "/fault: fault 'cloze' is not known, choose from: close");
	wait_for_words(err, "faults:     close,count=2,every=1;gap,count=1,every=1\n");
	wait_for_words(err, "fault stall at MESSAGE 1");
	type("/fault\n");
	close_input();
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
	wait_for_words(err, "fault cut at MESSAGE 1");
	come_up();
	wait_for_words(err, "fault close at MESSAGE 1");
	come_up();
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	close_input();
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
	close_input();
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

	fflush(NULL);
	pid = forkpty(&terminal, NULL, NULL, NULL);
	assert_true(pid >= 0);
	if (pid == 0) {
		setenv("TERM", "xterm", 1);
		execl(program, program, "-c", in_dir("socket"), "console", NULL);
		_exit(127);
	}
	in = terminal;
	come_up();
	wait_for_words(terminal, "hmc> ");
	/* A typo, a backspace, and a message that comes in the middle of the line. */
	type("hellp\177");
	wait_for_words(terminal, "hellp");
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "meanwhile");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	wait_for_words(terminal, "[1] 9 bytes: meanwhile");
	wait_for_words(terminal, "hmc> hell");
	type("o\n");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	/* From the history. */
	type("\020\n");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "hello");
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	type("/status\n");
	wait_for_words(terminal, "0x02000001");
	wait_for_words(terminal, "sent:       2");
	/* Ctrl-D means the end only to the prompt. */
	wait_for_words(terminal, "hmc> ");
	type("\004");
	expect_end();
	wait_for_words(terminal, "\n");
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
		TEST(send_f_messages),
		TEST(send_refuses_meanwhile),
		TEST(send_reply),
		TEST(send_all_or_nothing),
		TEST(send_after_kill),
		TEST(recv_n),
		TEST(recv_unwritten),
		TEST(recv_d),
		TEST(recv_t),
		TEST(recv_t_reports_once),
		TEST(recv_d_poisonous_names),
		TEST(reply_escaped),
		TEST(blocked_recv_ends),
		TEST(fifo_without_writer),
		TEST(no_socket),
		TEST(full_output),
		TEST(echo_once_through_kills),
		TEST(console_lines),
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
