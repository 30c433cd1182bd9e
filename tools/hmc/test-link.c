// SPDX-License-Identifier: GPL-2.0-or-later
/* What the link of an HMC promises, against a hypervisor that follows a script: this test. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "link.h"
#include "spapr_hvpipe_link.h"

#define SOURCE	    0x02000001
#define PATIENCE_US (10 * 1000000)

/* One HMC with the hypervisor's end of its socket, and all that the link told. */
static struct fixture {
	char *dir;
	char *path;
	char *other;  /* another place, where no one listens at first */
	int listener; /* at path, or at the other place once that is listened at */
	int peer;
	struct hmc_state *state;
	struct hmc_link *link;

	GString *messages; /* "SEQUENCE:PAYLOAD " of each */
	unsigned int message_count;
	enum hmc_verdict verdict;
	bool echo;
	bool finish_in_message;
	GString *notices[4];
	unsigned int notice_count[4];
	GString *failed;
} f;

static enum hmc_verdict on_message(void *user, uint64_t sequence, const void *data, size_t len, GBytes **reply)
{
	g_string_append_printf(f.messages, "%lu:%.*s ", (unsigned long)sequence, (int)len, (const char *)data);
	f.message_count++;
	if (f.echo)
		*reply = g_bytes_new(data, len);
	return f.verdict;
}

static void on_changed(void *user)
{
}

static void on_notice(void *user, enum hmc_notice notice, const char *text)
{
	g_string_append_printf(f.notices[notice], "%s\n", text);
	f.notice_count[notice]++;
}

static void on_failed(void *user, const GError *error)
{
	g_string_append(f.failed, error->message);
}

static const struct hmc_link_ops ops = {
	.message = on_message,
	.changed = on_changed,
	.notice = on_notice,
	.failed = on_failed,
};

static const struct hmc_link_timing timing = { .retry_min_ms = 1, .retry_max_ms = 4, .answer_ms = 100 };

/* Run the link until the condition holds. */
#define spin_until(condition)                                                   \
	do {                                                                    \
		gint64 deadline_ = g_get_monotonic_time() + PATIENCE_US;        \
		while (!(condition)) {                                          \
			if (g_get_monotonic_time() > deadline_)                 \
				fail_msg("waited in vain for: %s", #condition); \
			if (!g_main_context_iteration(NULL, FALSE))             \
				g_usleep(200);                                  \
		}                                                               \
	} while (0)

static void spin_for(unsigned int ms)
{
	gint64 end = g_get_monotonic_time() + ms * 1000;

	spin_until(g_get_monotonic_time() >= end);
}

static void listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (f.listener >= 0)
		close(f.listener);
	f.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, path);
	unlink(path);
	assert_int_equal(bind(f.listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(f.listener, 8), 0);
}

static void listen_there(void)
{
	listen_at(f.path);
}

static void make_link(const char *state_path)
{
	GError *error = NULL;

	f.state = hmc_state_open(state_path, &error);
	assert_non_null(f.state);
	f.link = hmc_link_new(f.path, f.state, &timing, &ops, NULL, &error);
	assert_non_null(f.link);
}

static void free_link(void)
{
	if (f.link)
		hmc_link_free(f.link);
	if (f.state)
		hmc_state_close(f.state);
	f.link = NULL;
	f.state = NULL;
}

static int setup(void **context)
{
	memset(&f, 0, sizeof(f));
	f.listener = f.peer = -1;
	f.dir = g_dir_make_tmp("test-hvpipe-hmc-link-XXXXXX", NULL);
	f.path = g_strconcat(f.dir, "/socket", NULL);
	f.other = g_strconcat(f.dir, "/other", NULL);
	f.messages = g_string_new(NULL);
	for (int i = 0; i < 4; i++)
		f.notices[i] = g_string_new(NULL);
	f.failed = g_string_new(NULL);
	make_link(NULL);
	return f.dir ? 0 : -1;
}

static int teardown(void **context)
{
	char *state = g_strconcat(f.dir, "/state", NULL);

	if (f.peer >= 0)
		close(f.peer);
	if (f.listener >= 0)
		close(f.listener);
	free_link();
	unlink(f.path);
	unlink(f.other);
	unlink(state);
	rmdir(f.dir);
	g_free(state);
	g_free(f.path);
	g_free(f.other);
	g_free(f.dir);
	g_string_free(f.messages, TRUE);
	g_string_free(f.failed, TRUE);
	for (int i = 0; i < 4; i++)
		g_string_free(f.notices[i], TRUE);
	return 0;
}

/*
 * The hypervisor's side
 */

static void peer_accept(void)
{
	if (f.peer >= 0)
		close(f.peer);
	spin_until((f.peer = accept4(f.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
}

static void peer_close(void)
{
	close(f.peer);
	f.peer = -1;
}

static void peer_write(const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = -1;

		spin_until((n = send(f.peer, p, len, MSG_NOSIGNAL)) > 0 || errno != EAGAIN);
		assert_true(n > 0);
		p += n;
		len -= n;
	}
}

static void peer_read(void *data, size_t len)
{
	char *p = data;

	while (len) {
		ssize_t n = -1;

		spin_until((n = recv(f.peer, p, len, 0)) >= 0 || errno != EAGAIN);
		assert_true(n > 0);
		p += n;
		len -= n;
	}
}

static bool peer_sees_end(void)
{
	char data[4096];
	ssize_t n;

	do
		n = recv(f.peer, data, sizeof(data), 0);
	while (n > 0);
	return n == 0 || errno == ECONNRESET;
}

static void peer_frame(HvpipeLinkType type, uint64_t sequence, const char *payload)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];
	size_t len = payload ? strlen(payload) : 0;

	hvpipe_link_pack_header(frame, type, len, sequence);
	if (len)
		memcpy(frame + HVPIPE_LINK_HEADER_SIZE, payload, len);
	peer_write(frame, HVPIPE_LINK_HEADER_SIZE + len);
}

static void peer_state(uint32_t flags, uint64_t received)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];
	HvpipeLinkHvState s = { .source = SOURCE, .flags = flags, .received = received };

	peer_write(frame, hvpipe_link_pack_hv_state(frame, &s));
}

static void expect_hello(uint64_t taken, uint64_t first)
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HMC_STATE_SIZE];
	HvpipeLinkHeader header;
	HvpipeLinkHmcState s;

	peer_read(frame, sizeof(frame));
	hvpipe_link_unpack_header(frame, &header);
	assert_null(hvpipe_link_check_header(&header, HVPIPE_LINK_FROM_HMC));
	assert_int_equal(header.type, HVPIPE_LINK_STATE);
	assert_null(hvpipe_link_unpack_hmc_state(frame + HVPIPE_LINK_HEADER_SIZE, &s));
	assert_int_equal(s.session, hmc_state_session(f.state));
	assert_int_equal(s.taken, taken);
	assert_int_equal(s.first, first);
}

static void expect_frame(HvpipeLinkType type, uint64_t sequence, const char *payload)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];
	HvpipeLinkHeader header;

	peer_read(frame, HVPIPE_LINK_HEADER_SIZE);
	hvpipe_link_unpack_header(frame, &header);
	assert_null(hvpipe_link_check_header(&header, HVPIPE_LINK_FROM_HMC));
	assert_string_equal(hvpipe_link_type_name(header.type), hvpipe_link_type_name(type));
	assert_int_equal(header.sequence, sequence);
	assert_int_equal(header.length, payload ? strlen(payload) : 0);
	peer_read(frame, header.length);
	if (payload)
		assert_memory_equal(frame, payload, header.length);
}

static void expect_nothing(void)
{
	char data;

	spin_for(20);
	assert_int_equal(recv(f.peer, &data, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
}

static void come_up(void)
{
	listen_there();
	hmc_link_start(f.link);
	peer_accept();
	expect_hello(0, 1);
	peer_state(HVPIPE_LINK_HV_ENABLED, 0);
	spin_until(hmc_link_is_up(f.link));
}

static void send_text(const char *text)
{
	assert_true(hmc_link_send(f.link, text, strlen(text), NULL));
}

/*
 * Messages
 */

static void a_message_goes_out_and_is_pending_until_acknowledged(void **context)
{
	come_up();
	send_text("one");
	send_text("two");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	assert_int_equal(hmc_state_acknowledged(f.state), 0);
	peer_frame(HVPIPE_LINK_ACK, 2, NULL);
	spin_until(hmc_state_acknowledged(f.state) == 2);
	assert_int_equal(hmc_state_pending(f.state)->length, 0);
	send_text("three");
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "three");
}

static void a_message_waits_for_the_link_to_come_up(void **context)
{
	send_text("early");
	listen_there();
	hmc_link_start(f.link);
	peer_accept();
	expect_hello(0, 1);
	send_text("still early");
	expect_nothing();
	peer_state(0, 0);
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "early");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "still early");
}

static void an_arriving_message_is_taken_then_acknowledged(void **context)
{
	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "again");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
	assert_string_equal(f.messages->str, "1:hello 2:again ");
	assert_int_equal(hmc_state_taken(f.state), 2);
}

static void a_refused_message_gets_a_nack_and_leaves_its_number(void **context)
{
	come_up();
	f.verdict = HMC_REFUSE;
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "unwanted");
	expect_frame(HVPIPE_LINK_NACK, 1, NULL);
	assert_int_equal(hmc_state_taken(f.state), 0);
	f.verdict = HMC_TAKE;
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "wanted");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
}

static void a_message_left_stays_with_the_hypervisor(void **context)
{
	come_up();
	f.verdict = HMC_LEAVE;
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "too late");
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "much too late");
	spin_until(f.message_count == 1);
	expect_nothing();
	assert_int_equal(f.message_count, 1);
	assert_int_equal(hmc_state_taken(f.state), 0);
}

static void a_reply_goes_out_behind_the_acknowledgement(void **context)
{
	come_up();
	f.echo = true;
	for (uint64_t i = 1; i <= 3; i++) {
		peer_frame(HVPIPE_LINK_MESSAGE, i, "ping");
		expect_frame(HVPIPE_LINK_ACK, i, NULL);
		expect_frame(HVPIPE_LINK_MESSAGE, i, "ping");
	}
}

static void frames_may_come_one_byte_at_a_time(void **context)
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE + 5];
	uint8_t state[HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HV_STATE_SIZE];
	HvpipeLinkHvState s = { .source = SOURCE, .flags = 1 };

	listen_there();
	hmc_link_start(f.link);
	peer_accept();
	expect_hello(0, 1);
	hvpipe_link_pack_hv_state(state, &s);
	for (size_t i = 0; i < sizeof(state); i++) {
		assert_false(hmc_link_is_up(f.link));
		peer_write(state + i, 1);
		spin_for(1);
	}
	assert_true(hmc_link_is_up(f.link));
	hvpipe_link_pack_header(frame, HVPIPE_LINK_MESSAGE, 5, 1);
	memcpy(frame + HVPIPE_LINK_HEADER_SIZE, "hello", 5);
	for (size_t i = 0; i < sizeof(frame); i++) {
		assert_int_equal(f.message_count, 0);
		peer_write(frame + i, 1);
		spin_for(1);
	}
	assert_string_equal(f.messages->str, "1:hello ");
}

static void many_frames_may_come_at_once(void **context)
{
	GByteArray *all = g_byte_array_new();
	uint8_t frame[HVPIPE_LINK_MAX_FRAME] = { 0 };

	come_up();
	for (uint64_t i = 1; i <= 200; i++) {
		size_t len = i % 3 ? HVPIPE_LINK_MAX_PAYLOAD : 1;

		hvpipe_link_pack_header(frame, HVPIPE_LINK_MESSAGE, len, i);
		g_byte_array_append(all, frame, HVPIPE_LINK_HEADER_SIZE + len);
	}
	peer_write(all->data, all->len);
	for (uint64_t i = 1; i <= 200; i++)
		expect_frame(HVPIPE_LINK_ACK, i, NULL);
	assert_int_equal(f.message_count, 200);
	g_byte_array_unref(all);
}

static void a_peer_that_reads_slowly_gets_all(void **context)
{
	char text[HVPIPE_LINK_MAX_PAYLOAD + 1];
	int small = 4096;

	come_up();
	setsockopt(f.peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (int i = 0; i < 300; i++) {
		g_snprintf(text, 8, "%07d", i);
		text[7] = 'x';
		send_text(text);
	}
	spin_for(50);
	for (int i = 0; i < 300; i++) {
		g_snprintf(text, 8, "%07d", i);
		text[7] = 'x';
		expect_frame(HVPIPE_LINK_MESSAGE, i + 1, text);
		if (i % 7 == 0)
			peer_frame(HVPIPE_LINK_ACK, i + 1, NULL);
	}
	expect_nothing();
	peer_frame(HVPIPE_LINK_ACK, 300, NULL);
	spin_until(hmc_state_acknowledged(f.state) == 300);
}

/*
 * Sessions
 */

static void what_was_not_acknowledged_is_sent_again(void **context)
{
	come_up();
	send_text("one");
	send_text("two");
	send_text("three");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	spin_until(hmc_state_acknowledged(f.state) == 1);
	peer_accept();
	expect_hello(0, 2);
	peer_state(1, 1);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "three");
}

static void what_the_state_shows_as_received_is_not_sent_again(void **context)
{
	come_up();
	send_text("one");
	send_text("two");
	send_text("three");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "three");
	peer_accept();
	expect_hello(0, 1);
	peer_state(1, 2);
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "three");
	assert_int_equal(hmc_state_acknowledged(f.state), 2);
}

static void an_acknowledgement_of_an_earlier_connections_message_counts(void **context)
{
	come_up();
	for (int i = 0; i < 100; i++) {
		char text[HVPIPE_LINK_MAX_PAYLOAD + 1];

		memset(text, 'a' + i % 26, sizeof(text) - 1);
		text[sizeof(text) - 1] = '\0';
		send_text(text);
	}
	spin_until(hmc_link_is_up(f.link));
	for (int i = 0; i < 20; i++) {
		uint8_t frame[HVPIPE_LINK_MAX_FRAME];

		peer_read(frame, sizeof(frame));
	}
	peer_accept();
	expect_hello(0, 1);
	peer_state(1, 0);
	/* The partition now receives what had been queued before; the link may be anywhere in sending it again. */
	peer_frame(HVPIPE_LINK_ACK, 20, NULL);
	spin_until(hmc_state_acknowledged(f.state) == 20);
	assert_int_equal(f.notice_count[HMC_NOTICE_ERROR], 0);
	peer_accept();
	expect_hello(0, 21);
}

static void a_hypervisor_that_does_not_know_the_session_gets_the_rest(void **context)
{
	come_up();
	send_text("one");
	send_text("two");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	spin_until(f.message_count == 1 && hmc_state_acknowledged(f.state) == 1);
	peer_accept();
	expect_hello(1, 2);
	peer_state(1, 0);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "numbered from taken on");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
}

static void a_duplicate_is_dropped_and_acknowledged_again(void **context)
{
	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_accept();
	expect_hello(1, 1);
	peer_state(1, 0);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "next");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
	assert_string_equal(f.messages->str, "1:hello 2:next ");
}

static void a_message_cut_off_by_the_end_of_a_link_is_not_taken(void **context)
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE];

	come_up();
	hvpipe_link_pack_header(frame, HVPIPE_LINK_MESSAGE, 100, 1);
	peer_write(frame, sizeof(frame));
	peer_write("half", 4);
	spin_for(5);
	peer_accept();
	expect_hello(0, 1);
	assert_non_null(strstr(f.notices[HMC_NOTICE_WAIT]->str, "20 bytes into a frame"));
	peer_state(1, 0);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "whole");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	assert_string_equal(f.messages->str, "1:whole ");
}

static void a_session_goes_on_in_the_next_process(void **context)
{
	char *path = g_strconcat(f.dir, "/state", NULL);
	uint64_t session;

	free_link();
	make_link(path);
	session = hmc_state_session(f.state);
	come_up();
	send_text("one");
	send_text("two");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	free_link();

	make_link(path);
	assert_int_equal(hmc_state_session(f.state), session);
	hmc_link_start(f.link);
	peer_accept();
	expect_hello(1, 1);
	peer_state(1, 1);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	g_free(path);
}

static void a_state_of_another_source_ends_the_link_for_good(void **context)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];
	HvpipeLinkHvState s = { .source = SOURCE + 1, .flags = 1 };

	come_up();
	send_text("for hmc1 only");
	peer_accept();
	expect_hello(0, 1);
	peer_write(frame, hvpipe_link_pack_hv_state(frame, &s));
	spin_until(f.failed->len);
	assert_non_null(strstr(f.failed->str, "0x02000001"));
	assert_non_null(strstr(f.failed->str, "0x02000002"));
	spin_until(peer_sees_end());
}

static void a_state_that_cannot_be_written_ends_the_link_before_the_ack(void **context)
{
	char *path = g_strconcat(f.dir, "/state", NULL);
	int full = open("/dev/full", O_RDWR);
	int fd = -1;

	if (full < 0)
		skip();
	free_link();
	make_link(path);
	come_up();
	/* The state's descriptor becomes one on which every write fails. */
	for (int i = 3; i < 64; i++) {
		char *link = g_strdup_printf("/proc/self/fd/%d", i), *target = g_file_read_link(link, NULL);

		if (target && g_str_has_suffix(target, "/state"))
			fd = i;
		g_free(target);
		g_free(link);
	}
	assert_true(fd >= 0);
	assert_int_equal(dup3(full, fd, O_CLOEXEC), fd);
	close(full);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	spin_until(f.failed->len);
	assert_non_null(strstr(f.failed->str, path));
	assert_int_equal(hmc_state_taken(f.state), 0);
	spin_until(peer_sees_end());
	g_free(path);
}

/*
 * Malformed frames: reported once with what was wrong, the link ends, the next one works
 */

static void expect_malformed(const char *words)
{
	spin_until(f.notice_count[HMC_NOTICE_ERROR] == 1);
	if (!strstr(f.notices[HMC_NOTICE_ERROR]->str, words))
		fail_msg("'%s' is not in: %s", words, f.notices[HMC_NOTICE_ERROR]->str);
	spin_until(peer_sees_end());
	peer_accept();
	expect_hello(0, 1);
	peer_state(1, 0);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "works");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	assert_string_equal(f.messages->str, "1:works ");
	assert_int_equal(f.failed->len, 0);
}

static void peer_header(uint8_t version, uint8_t type, uint16_t length, uint32_t reserved, uint64_t sequence)
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE];

	frame[0] = version;
	frame[1] = type;
	hvpipe_link_put16(frame + 2, length);
	hvpipe_link_put32(frame + 4, reserved);
	hvpipe_link_put64(frame + 8, sequence);
	peer_write(frame, sizeof(frame));
}

#define MALFORMED_TEST(name, words, ...) \
	static void name(void **context) \
	{                                \
		come_up();               \
		__VA_ARGS__;             \
		expect_malformed(words); \
	}

MALFORMED_TEST(an_unknown_version_is_malformed, "version 2", peer_header(2, 1, 5, 0, 1))
MALFORMED_TEST(an_unknown_type_is_malformed, "type 9", peer_header(1, 9, 0, 0, 1))
MALFORMED_TEST(type_zero_is_malformed, "type 0", peer_header(1, 0, 0, 0, 1))
MALFORMED_TEST(an_empty_message_is_malformed, "length 0", peer_header(1, 1, 0, 0, 1))
MALFORMED_TEST(a_message_of_4089_bytes_is_malformed, "length 4089", peer_header(1, 1, 4089, 0, 1))
MALFORMED_TEST(an_ack_with_payload_is_malformed, "length 1", peer_header(1, 2, 1, 0, 1))
MALFORMED_TEST(a_state_of_the_wrong_length_is_malformed, "length 24", peer_header(1, 4, 24, 0, 0))
MALFORMED_TEST(reserved_bytes_not_zero_are_malformed, "reserved 0x1", peer_header(1, 1, 5, 1, 1))
MALFORMED_TEST(a_message_of_sequence_zero_is_malformed, "sequence", peer_header(1, 1, 5, 0, 0))
MALFORMED_TEST(a_state_with_a_sequence_is_malformed, "sequence", peer_header(1, 4, 16, 0, 1))
MALFORMED_TEST(a_nack_from_the_hypervisor_is_malformed, "NACK", peer_header(1, 3, 0, 0, 1))
MALFORMED_TEST(a_gap_is_malformed, "MESSAGE 2 where 1", peer_frame(HVPIPE_LINK_MESSAGE, 2, "gap"))
MALFORMED_TEST(an_ack_of_the_unsent_is_malformed, "ACK of message 1", peer_frame(HVPIPE_LINK_ACK, 1, NULL))
MALFORMED_TEST(a_state_that_received_the_unsent_is_malformed, "message 7", peer_state(1, 7))
MALFORMED_TEST(unknown_state_flags_are_malformed, "flags", peer_state(3, 0))

static void a_message_before_the_state_is_malformed(void **context)
{
	listen_there();
	hmc_link_start(f.link);
	peer_accept();
	expect_hello(0, 1);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "early");
	expect_malformed("MESSAGE before STATE");
}

static void rubbish_of_any_kind_never_ends_the_program(void **context)
{
	GRand *rand = g_rand_new_with_seed(1);

	come_up();
	for (int i = 0; i < 200; i++) {
		uint8_t rubbish[64];
		size_t len = g_rand_int_range(rand, 16, sizeof(rubbish) + 1);

		for (size_t j = 0; j < len; j++)
			rubbish[j] = g_rand_int(rand);
		/* Every other one begins as a good frame would. */
		if (i % 2) {
			rubbish[0] = 1;
			rubbish[1] = 1 + i / 2 % 4;
			rubbish[2] = 0;
			memset(rubbish + 4, 0, 4 + 4 * (i % 3));
		}
		peer_write(rubbish, len);
		shutdown(f.peer, SHUT_WR);
		spin_until(peer_sees_end());
		peer_accept();
		if (i % 5)
			peer_state(1, 0);
	}
	assert_int_equal(f.failed->len, 0);
	g_rand_free(rand);
}

/*
 * Waiting
 */

static void waiting_for_a_socket_is_told_once_with_its_end(void **context)
{
	hmc_link_start(f.link);
	spin_for(50);
	assert_int_equal(f.notice_count[HMC_NOTICE_WAIT], 1);
	assert_non_null(strstr(f.notices[HMC_NOTICE_WAIT]->str, f.path));
	listen_there();
	peer_accept();
	expect_hello(0, 1);
	peer_state(1, 0);
	spin_until(f.notice_count[HMC_NOTICE_BACK] == 1);
	assert_int_equal(f.notice_count[HMC_NOTICE_WAIT], 1);
}

static void a_lost_connection_is_told_once_however_long_it_takes(void **context)
{
	come_up();
	close(f.listener);
	f.listener = -1;
	peer_close();
	spin_for(50);
	assert_int_equal(f.notice_count[HMC_NOTICE_WAIT], 1);
	listen_there();
	peer_accept();
	expect_hello(0, 1);
	peer_state(1, 0);
	spin_until(f.notice_count[HMC_NOTICE_BACK] == 1);
	peer_close();
	spin_until(f.notice_count[HMC_NOTICE_WAIT] == 2);
}

static void silence_after_connect_names_the_other_hmc(void **context)
{
	listen_there();
	hmc_link_start(f.link);
	spin_until(f.notice_count[HMC_NOTICE_WAIT] == 1);
	assert_non_null(strstr(f.notices[HMC_NOTICE_WAIT]->str, "another HMC"));
	/* It keeps its place in the queue, and is served when its turn comes. */
	peer_accept();
	expect_hello(0, 1);
	peer_state(1, 0);
	spin_until(hmc_link_is_up(f.link));
	assert_int_equal(f.notice_count[HMC_NOTICE_WAIT], 1);
}

static void the_partitions_pipe_is_told_of(void **context)
{
	come_up();
	assert_true(hmc_link_is_enabled(f.link));
	peer_state(0, 0);
	spin_until(!hmc_link_is_enabled(f.link));
	assert_non_null(strstr(f.notices[HMC_NOTICE_DETAIL]->str, "has disabled"));
	peer_state(1, 0);
	spin_until(hmc_link_is_enabled(f.link));
	assert_non_null(strstr(f.notices[HMC_NOTICE_DETAIL]->str, "has enabled"));
}

static void the_end_waits_until_the_peer_has_read(void **context)
{
	pid_t pid;
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE];
	HvpipeLinkHeader header;
	gint64 start;

	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	spin_until(f.message_count == 1);
	pid = fork();
	if (pid == 0) {
		/* The hypervisor, busy for a while. It must still be able to read the ACK and then find the end. */
		fcntl(f.peer, F_SETFL, 0);
		usleep(100000);
		if (recv(f.peer, frame, sizeof(frame), MSG_WAITALL) != sizeof(frame))
			_exit(1);
		hvpipe_link_unpack_header(frame, &header);
		if (header.type != HVPIPE_LINK_ACK || header.sequence != 1)
			_exit(2);
		_exit(recv(f.peer, frame, 1, 0) == 0 ? 0 : 3);
	}
	peer_close();
	start = g_get_monotonic_time();
	hmc_link_finish(f.link, 5000);
	assert_true(g_get_monotonic_time() - start >= 90000);
	assert_true(g_get_monotonic_time() - start < 4000000);
	{
		int status;

		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
}

static void the_end_does_not_wait_for_ever(void **context)
{
	gint64 start;

	come_up();
	start = g_get_monotonic_time();
	hmc_link_finish(f.link, 50);
	assert_true(g_get_monotonic_time() - start < 2000000);
}

/*
 * Several places
 */

static void come_up_at_the_other_place(uint64_t first)
{
	peer_accept();
	expect_hello(0, first);
	peer_state(HVPIPE_LINK_HV_ENABLED, first - 1);
	spin_until(hmc_link_is_up(f.link));
	assert_string_equal(hmc_link_address(f.link), f.other);
}

static void the_link_follows_to_where_the_source_is_now(void **context)
{
	assert_true(hmc_link_add(f.link, f.other, NULL));
	come_up();
	send_text("one");
	send_text("two");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	spin_until(hmc_state_acknowledged(f.state) == 1);
	listen_at(f.other);
	peer_close();
	come_up_at_the_other_place(2);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	/* And back again. */
	listen_there();
	peer_close();
	peer_accept();
	expect_hello(0, 2);
	assert_string_equal(hmc_link_address(f.link), f.path);
}

static void a_place_that_accepts_but_does_not_answer_is_left(void **context)
{
	int silent;

	assert_true(hmc_link_add(f.link, f.other, NULL));
	listen_there();
	hmc_link_start(f.link);
	peer_accept();
	expect_hello(0, 1);
	silent = f.peer;
	f.peer = -1;
	listen_at(f.other);
	come_up_at_the_other_place(1);
	close(silent);
	assert_string_equal(f.notices[HMC_NOTICE_WAIT]->str, "");
}

static void places_where_nobody_is_are_named_once_all_were_tried(void **context)
{
	char *both = g_strdup_printf("waiting for %s or %s: ", f.path, f.other);

	assert_true(hmc_link_add(f.link, f.other, NULL));
	hmc_link_start(f.link);
	spin_until(f.notice_count[HMC_NOTICE_WAIT]);
	assert_non_null(strstr(f.notices[HMC_NOTICE_WAIT]->str, both));
	spin_for(30);
	assert_int_equal(f.notice_count[HMC_NOTICE_WAIT], 1);
	listen_at(f.other);
	come_up_at_the_other_place(1);
	assert_int_equal(f.notice_count[HMC_NOTICE_BACK], 1);
	g_free(both);
}

static void one_place_more_must_be_an_address_too(void **context)
{
	GError *error = NULL;

	assert_false(hmc_link_add(f.link, "host:0", &error));
	assert_non_null(strstr(error->message, "'host:0'"));
	g_error_free(error);
	come_up();
}

/*
 * Addresses
 */

static void expect_no_address(const char *address, const char *words)
{
	GError *error = NULL;

	assert_null(hmc_link_new(address, f.state, &timing, &ops, NULL, &error));
	assert_non_null(strstr(error->message, words));
	g_error_free(error);
}

static void expect_address(const char *address)
{
	struct hmc_link *link = hmc_link_new(address, f.state, &timing, &ops, NULL, NULL);

	assert_non_null(link);
	hmc_link_free(link);
}

static void addresses_are_paths_or_hosts(void **context)
{
	char *longest = g_strnfill(107, 'a'), *too_long = g_strnfill(108, 'a');

	expect_address("hmc1.sock");
	expect_address("unix:with:colon");
	expect_address("dir/host:1234");
	expect_address("localhost:1234");
	expect_address("tcp:localhost:1234");
	expect_address("tcp:[::1]:1234");
	expect_address(longest);
	expect_no_address(too_long, "108 bytes");
	expect_no_address("", "0 bytes");
	expect_no_address("unix:", "0 bytes");
	expect_no_address("tcp:", "HOST:PORT");
	expect_no_address("tcp:localhost", "HOST:PORT");
	expect_no_address("localhost:0", "1 to 65535");
	expect_no_address("localhost:65536", "'localhost:65536'");
	expect_no_address("tcp::80", "HOST:PORT");
	g_free(longest);
	g_free(too_long);
}

/*
 * Faults
 */

static void set_faults(const char *text)
{
	GError *error = NULL;

	if (!hmc_link_set_faults(f.link, text, &error))
		fail_msg("%s: %s", text, error->message);
}

static void a_fault_in_place_of_a_message_costs_a_connection_only(void **context)
{
	static const struct {
		const char *fault;
		bool ends; /* by itself */
		size_t bytes;
	} faults[] = {
		{ "close", true, 0 },
		{ "cut", true, (HVPIPE_LINK_HEADER_SIZE + 4) / 2 },
		{ "random", false, 64 },
		{ "version", false, HVPIPE_LINK_HEADER_SIZE + 4 },
		{ "gap", false, HVPIPE_LINK_HEADER_SIZE + 1 },
		{ "ack,frame=message", false, HVPIPE_LINK_HEADER_SIZE },
		{ "second-state", false, HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HMC_STATE_SIZE },
	};
	char data[128];

	come_up();
	for (size_t i = 0; i < G_N_ELEMENTS(faults); i++) {
		size_t sequence = 1 + 2 * i;

		set_faults(faults[i].fault);
		send_text("lost");
		send_text("next");
		assert_in_range(faults[i].bytes, 0, sizeof(data));
		peer_read(data, faults[i].bytes);
		if (faults[i].ends)
			spin_until(peer_sees_end());
		else
			expect_nothing();
		peer_close();
		peer_accept();
		expect_hello(0, sequence);
		peer_state(HVPIPE_LINK_HV_ENABLED, sequence - 1);
		expect_frame(HVPIPE_LINK_MESSAGE, sequence, "lost");
		expect_frame(HVPIPE_LINK_MESSAGE, sequence + 1, "next");
		peer_frame(HVPIPE_LINK_ACK, sequence + 1, NULL);
		spin_until(!hmc_state_pending(f.state)->length);
	}
	/* Each was told. */
	for (size_t i = 0; i < G_N_ELEMENTS(faults); i++) {
		char *told = g_strdup_printf("fault %.*s at MESSAGE %zu\n", (int)strcspn(faults[i].fault, ","),
					     faults[i].fault, 1 + 2 * i);

		assert_non_null(strstr(f.notices[HMC_NOTICE_DETAIL]->str, told));
		g_free(told);
	}
}

/* The hypervisor closes the connection at each hello: that is told, and not tried for ever. */
static void a_refused_hello_is_told_and_ends_the_link(void **context)
{
	listen_there();
	hmc_link_start(f.link);
	for (int i = 0; i < 20; i++) {
		peer_accept();
		expect_hello(0, 1);
		peer_close();
	}
	spin_until(f.failed->len);
	assert_non_null(strstr(f.failed->str, "given up after 20 times"));
	assert_int_equal(f.notice_count[HMC_NOTICE_WAIT], 1);
	assert_non_null(strstr(f.notices[HMC_NOTICE_WAIT]->str, "it refuses session"));
}

static void what_can_never_be_connected_ends_the_link(void **context)
{
	GError *error = NULL;

	assert_true(g_file_set_contents(f.path, "text", -1, &error));
	hmc_link_start(f.link);
	spin_until(f.failed->len);
	assert_non_null(strstr(f.failed->str, "/socket: not a socket"));
}

static void a_forbidden_socket_ends_the_link(void **context)
{
	if (geteuid())
		skip();
	listen_there();
	/* The directory is root's alone. */
	assert_int_equal(seteuid(65534), 0);
	hmc_link_start(f.link);
	while (!f.failed->len)
		g_main_context_iteration(NULL, TRUE);
	assert_int_equal(seteuid(0), 0);
	assert_non_null(strstr(f.failed->str, "Permission denied"));
}

/* A hypervisor repeats a message without end and reads no answer: the answers must not fill the memory. */
static void duplicates_without_end_end_the_connection(void **context)
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE + 1];
	unsigned int count = 0;
	ssize_t n;

	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "x");
	spin_until(f.message_count == 1);
	hvpipe_link_pack_header(frame, HVPIPE_LINK_MESSAGE, 1, 1);
	frame[HVPIPE_LINK_HEADER_SIZE] = 'x';
	do {
		spin_until((n = send(f.peer, frame, sizeof(frame), MSG_NOSIGNAL)) == sizeof(frame) || errno != EAGAIN);
		count += n > 0;
	} while (n > 0 && count < 1000000);
	assert_true(count < 1000000);
	assert_non_null(strstr(f.notices[HMC_NOTICE_WAIT]->str, "sends but does not read"));
	assert_int_equal(f.message_count, 1);
}

static void a_fault_in_place_of_an_ack_takes_the_message_once(void **context)
{
	come_up();
	set_faults("type");
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	spin_until(f.message_count == 1);
	peer_close();
	peer_accept();
	expect_hello(1, 1);
	peer_state(HVPIPE_LINK_HV_ENABLED, 0);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	assert_string_equal(f.messages->str, "1:hello ");
}

static void a_fault_in_place_of_the_state_leaves_the_next_connection_good(void **context)
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HMC_STATE_SIZE];

	set_faults("no-state;session;close,frame=state");
	listen_there();
	hmc_link_start(f.link);
	peer_accept();
	peer_read(frame, HVPIPE_LINK_HEADER_SIZE);
	assert_int_equal(frame[1], HVPIPE_LINK_ACK);
	peer_close();
	peer_accept();
	peer_read(frame, sizeof(frame));
	assert_int_equal(hvpipe_link_get64(frame + HVPIPE_LINK_HEADER_SIZE), 0);
	peer_close();
	peer_accept();
	spin_until(peer_sees_end());
	peer_accept();
	expect_hello(0, 1);
	peer_state(0, 0);
	spin_until(hmc_link_is_up(f.link));
}

static void a_stall_sends_and_reads_nothing_until_it_ends(void **context)
{
	come_up();
	set_faults("stall");
	send_text("one");
	spin_until(strstr(f.notices[HMC_NOTICE_DETAIL]->str, "fault stall at MESSAGE 1"));
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	expect_nothing();
	assert_int_equal(f.message_count, 0);
	set_faults("");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	assert_int_equal(f.message_count, 1);
}

static void a_stall_ends_by_itself_when_it_was_told_so(void **context)
{
	come_up();
	set_faults("stall,ms=5");
	send_text("one");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	peer_frame(HVPIPE_LINK_ACK, 1, NULL);
	spin_until(!hmc_state_pending(f.state)->length);
}

static void a_link_that_stalls_can_be_left(void **context)
{
	come_up();
	set_faults("stall");
	send_text("one");
	spin_until(strstr(f.notices[HMC_NOTICE_DETAIL]->str, "fault stall"));
	hmc_link_finish(f.link, PATIENCE_US / 1000);
	assert_true(peer_sees_end());
}

static void a_mistake_in_the_faults_changes_nothing(void **context)
{
	GError *error = NULL;
	char *left;

	set_faults("gap,count=3");
	assert_false(hmc_link_set_faults(f.link, "close;gpa", &error));
	assert_non_null(strstr(error->message, "'gpa'"));
	g_error_free(error);
	left = hmc_link_faults(f.link);
	assert_string_equal(left, "gap,count=3,every=1");
	g_free(left);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_message_goes_out_and_is_pending_until_acknowledged),
		TEST(a_message_waits_for_the_link_to_come_up),
		TEST(an_arriving_message_is_taken_then_acknowledged),
		TEST(a_refused_message_gets_a_nack_and_leaves_its_number),
		TEST(a_message_left_stays_with_the_hypervisor),
		TEST(a_reply_goes_out_behind_the_acknowledgement),
		TEST(frames_may_come_one_byte_at_a_time),
		TEST(many_frames_may_come_at_once),
		TEST(a_peer_that_reads_slowly_gets_all),
		TEST(what_was_not_acknowledged_is_sent_again),
		TEST(what_the_state_shows_as_received_is_not_sent_again),
		TEST(an_acknowledgement_of_an_earlier_connections_message_counts),
		TEST(a_hypervisor_that_does_not_know_the_session_gets_the_rest),
		TEST(a_duplicate_is_dropped_and_acknowledged_again),
		TEST(a_message_cut_off_by_the_end_of_a_link_is_not_taken),
		TEST(a_session_goes_on_in_the_next_process),
		TEST(a_state_of_another_source_ends_the_link_for_good),
		TEST(a_state_that_cannot_be_written_ends_the_link_before_the_ack),
		TEST(an_unknown_version_is_malformed),
		TEST(an_unknown_type_is_malformed),
		TEST(type_zero_is_malformed),
		TEST(an_empty_message_is_malformed),
		TEST(a_message_of_4089_bytes_is_malformed),
		TEST(an_ack_with_payload_is_malformed),
		TEST(a_state_of_the_wrong_length_is_malformed),
		TEST(reserved_bytes_not_zero_are_malformed),
		TEST(a_message_of_sequence_zero_is_malformed),
		TEST(a_state_with_a_sequence_is_malformed),
		TEST(a_nack_from_the_hypervisor_is_malformed),
		TEST(a_gap_is_malformed),
		TEST(an_ack_of_the_unsent_is_malformed),
		TEST(a_state_that_received_the_unsent_is_malformed),
		TEST(unknown_state_flags_are_malformed),
		TEST(a_message_before_the_state_is_malformed),
		TEST(rubbish_of_any_kind_never_ends_the_program),
		TEST(waiting_for_a_socket_is_told_once_with_its_end),
		TEST(a_lost_connection_is_told_once_however_long_it_takes),
		TEST(silence_after_connect_names_the_other_hmc),
		TEST(the_partitions_pipe_is_told_of),
		TEST(the_end_waits_until_the_peer_has_read),
		TEST(the_end_does_not_wait_for_ever),
		TEST(the_link_follows_to_where_the_source_is_now),
		TEST(a_place_that_accepts_but_does_not_answer_is_left),
		TEST(places_where_nobody_is_are_named_once_all_were_tried),
		TEST(one_place_more_must_be_an_address_too),
		TEST(addresses_are_paths_or_hosts),
		TEST(a_fault_in_place_of_a_message_costs_a_connection_only),
		TEST(a_refused_hello_is_told_and_ends_the_link),
		TEST(what_can_never_be_connected_ends_the_link),
		TEST(a_forbidden_socket_ends_the_link),
		TEST(duplicates_without_end_end_the_connection),
		TEST(a_fault_in_place_of_an_ack_takes_the_message_once),
		TEST(a_fault_in_place_of_the_state_leaves_the_next_connection_good),
		TEST(a_stall_sends_and_reads_nothing_until_it_ends),
		TEST(a_stall_ends_by_itself_when_it_was_told_so),
		TEST(a_link_that_stalls_can_be_left),
		TEST(a_mistake_in_the_faults_changes_nothing),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("hvpipe-hmc-link", tests, NULL, NULL);
}
