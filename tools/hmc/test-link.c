// SPDX-License-Identifier: GPL-2.0-or-later
/* What the link of an HMC promises, against a hypervisor that follows a script: this test. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
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
#define EPOCH	    0xe0e1e2e3e4e5e6e7
#define PATIENCE_US (10 * 1000000)

/* One HMC with the hypervisor's end of its socket, and all that the link told. */
static struct fixture {
	char *dir;
	char *path;
	char *other;  /* another place, where no one listens at first */
	int listener; /* at path, or at the other place once that is listened at */
	int peer;
	struct hmc_loop *loop;
	struct hmc_store *store;
	struct hmc_state *state;
	struct hmc_link *link;
	uint64_t room;	 /* messages that the hypervisor holds */
	uint64_t credit; /* the last one that it gave */

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

static void on_commit(void *user)
{
	GError *error = NULL;

	if (!hmc_store_commit(f.store, &error))
		hmc_link_fail(f.link, error);
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

	f.loop = hmc_loop_new();
	hmc_loop_set_commit(f.loop, on_commit, NULL);
	f.store = hmc_store_open(state_path, &error);
	assert_non_null(f.store);
	f.state = hmc_state_open(f.store, "default", &error);
	assert_non_null(f.state);
	f.link = hmc_link_new(f.loop, f.path, f.state, &timing, &ops, NULL, &error);
	assert_non_null(f.link);
}

static void free_link(void)
{
	if (f.link)
		hmc_link_free(f.link);
	if (f.state) {
		hmc_loop_free(f.loop);
		hmc_state_close(f.state);
		hmc_store_close(f.store);
	}
	f.link = NULL;
	f.state = NULL;
}

static int setup(void **context)
{
	memset(&f, 0, sizeof(f));
	f.listener = f.peer = -1;
	f.room = 1000;
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
	if (f.peer >= 0)
		close(f.peer);
	if (f.listener >= 0)
		close(f.listener);
	free_link();
	unlink(f.path);
	unlink(f.other);
	for (const char *const *name = (const char *const[]){ "state", "state-wal", "state-shm", NULL }; *name;
	     name++) {
		char *state = g_build_filename(f.dir, *name, NULL);

		unlink(state);
		g_free(state);
	}
	rmdir(f.dir);
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

static void peer_ack(uint64_t sequence)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];

	f.credit = MAX(f.credit, sequence + f.room);
	peer_write(frame, hvpipe_link_pack_hv_ack(frame, sequence, f.credit));
}

static HvpipeLinkHvState hv_state(uint32_t flags, uint64_t taken)
{
	return (HvpipeLinkHvState){
		.offer = HVPIPE_LINK_OFFER,
		.source = SOURCE,
		.flags = flags,
		.epoch = EPOCH,
		.taken = taken,
		.queued = taken,
		.credit = taken + f.room,
	};
}

static void peer_write_state(const HvpipeLinkHvState *s)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];

	f.credit = s->credit;
	peer_write(frame, hvpipe_link_pack_hv_state(frame, s));
}

static void peer_state(uint32_t flags, uint64_t taken)
{
	HvpipeLinkHvState s = hv_state(flags, taken);

	peer_write_state(&s);
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

static void expect_close(HvpipeLinkReason reason, const char *words)
{
	uint8_t frame[HVPIPE_LINK_MAX_CLOSE + 1] = { 0 };
	HvpipeLinkHeader header;

	peer_read(frame, HVPIPE_LINK_HEADER_SIZE);
	hvpipe_link_unpack_header(frame, &header);
	assert_null(hvpipe_link_check_header(&header, HVPIPE_LINK_FROM_HMC));
	assert_string_equal(hvpipe_link_type_name(header.type), "CLOSE");
	peer_read(frame, header.length);
	assert_int_equal(hvpipe_link_get32(frame), reason);
	frame[header.length] = '\0';
	assert_non_null(strstr((char *)frame + HVPIPE_LINK_REASON_SIZE, words));
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
	hmc_link_send(f.link, text, strlen(text));
}

/*
 * Messages
 */

static void pending_until_acknowledged(void **context)
{
	come_up();
	send_text("one");
	send_text("two");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	assert_int_equal(hmc_state_acknowledged(f.state), 0);
	peer_ack(2);
	spin_until(hmc_state_acknowledged(f.state) == 2);
	assert_int_equal(hmc_state_pending(f.state)->length, 0);
	send_text("three");
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "three");
}

static void waits_for_link(void **context)
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

static void taken_then_acknowledged(void **context)
{
	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "again");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
	assert_string_equal(f.messages->str, "1:hello 2:again ");
	assert_int_equal(hmc_state_taken(f.state), 2);
}

static void refused_reuses_number(void **context)
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

static void left_message_stays(void **context)
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

static void reply_behind_ack(void **context)
{
	come_up();
	f.echo = true;
	for (uint64_t i = 1; i <= 3; i++) {
		peer_frame(HVPIPE_LINK_MESSAGE, i, "ping");
		expect_frame(HVPIPE_LINK_ACK, i, NULL);
		expect_frame(HVPIPE_LINK_MESSAGE, i, "ping");
	}
}

static void frames_bytewise(void **context)
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE + 5];
	uint8_t state[HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HV_STATE_SIZE];
	HvpipeLinkHvState s = hv_state(1, 0);

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

static void frames_at_once(void **context)
{
	GByteArray *all = g_byte_array_new();
	uint8_t frame[HVPIPE_LINK_MAX_FRAME] = { 0 };
	HvpipeLinkHeader header;

	come_up();
	for (uint64_t i = 1; i <= 200; i++) {
		size_t len = i % 3 ? HVPIPE_LINK_MAX_PAYLOAD : 1;

		hvpipe_link_pack_header(frame, HVPIPE_LINK_MESSAGE, len, i);
		g_byte_array_append(all, frame, HVPIPE_LINK_HEADER_SIZE + len);
	}
	peer_write(all->data, all->len);
	/* One ACK may stand for many. */
	do {
		peer_read(frame, HVPIPE_LINK_HEADER_SIZE);
		hvpipe_link_unpack_header(frame, &header);
		assert_int_equal(header.type, HVPIPE_LINK_ACK);
	} while (header.sequence < 200);
	assert_int_equal(header.sequence, 200);
	assert_int_equal(f.message_count, 200);
	g_byte_array_unref(all);
}

static void slow_peer_gets_all(void **context)
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
			peer_ack(i + 1);
	}
	expect_nothing();
	peer_ack(300);
	spin_until(hmc_state_acknowledged(f.state) == 300);
}

/*
 * Sessions
 */

static void unacknowledged_sent_again(void **context)
{
	come_up();
	send_text("one");
	send_text("two");
	send_text("three");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	peer_ack(1);
	spin_until(hmc_state_acknowledged(f.state) == 1);
	peer_accept();
	expect_hello(0, 2);
	peer_state(1, 1);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "three");
}

static void taken_not_sent_again(void **context)
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

static void late_ack_counts(void **context)
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
	peer_ack(20);
	spin_until(hmc_state_acknowledged(f.state) == 20);
	assert_int_equal(f.notice_count[HMC_NOTICE_ERROR], 0);
	peer_accept();
	expect_hello(0, 21);
}

static void unknown_session_gets_rest(void **context)
{
	come_up();
	send_text("one");
	send_text("two");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	peer_ack(1);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	spin_until(f.message_count == 1 && hmc_state_acknowledged(f.state) == 1);
	peer_accept();
	expect_hello(1, 2);
	peer_state(1, 0);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "numbered from taken on");
	expect_frame(HVPIPE_LINK_ACK, 2, NULL);
}

static void duplicate_dropped(void **context)
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

static void cut_message_not_taken(void **context)
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

static void session_survives_process(void **context)
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

static void other_source_ends_link(void **context)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];
	HvpipeLinkHvState s = hv_state(1, 0);

	s.source = SOURCE + 1;
	come_up();
	send_text("for hmc1 only");
	peer_accept();
	expect_hello(0, 1);
	peer_write(frame, hvpipe_link_pack_hv_state(frame, &s));
	spin_until(f.failed->len);
	assert_non_null(strstr(f.failed->str, "0x02000001"));
	assert_non_null(strstr(f.failed->str, "0x02000002"));
	expect_close(HVPIPE_LINK_NO_SOURCE, "0x02000002");
}

static void no_ack_without_state(void **context)
{
	char *path = g_strconcat(f.dir, "/state", NULL);
	int full = open("/dev/full", O_RDWR);
	int fd = -1;
	char data;

	if (full < 0)
		skip();
	free_link();
	make_link(path);
	come_up();
	/* The descriptor of the state's log becomes one on which every write fails: the disk is full. */
	for (int i = 3; i < 64; i++) {
		char *link = g_strdup_printf("/proc/self/fd/%d", i), *target = g_file_read_link(link, NULL);

		if (target && g_str_has_suffix(target, "/state-wal"))
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
	spin_until(recv(f.peer, &data, 1, 0) >= 0 || errno != EAGAIN);
	assert_int_equal(recv(f.peer, &data, 1, 0), 0);
	free_link();
	make_link(path);
	assert_int_equal(hmc_state_taken(f.state), 0);
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
	expect_close(HVPIPE_LINK_MALFORMED, "");
	f.room = 1000;
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

MALFORMED_TEST(malformed_version, "version 3", peer_header(3, 1, 5, 0, 1))
MALFORMED_TEST(malformed_type, "type 9", peer_header(2, 9, 0, 0, 1))
MALFORMED_TEST(malformed_type_zero, "type 0", peer_header(2, 0, 0, 0, 1))
MALFORMED_TEST(malformed_empty_message, "length 0", peer_header(2, 1, 0, 0, 1))
MALFORMED_TEST(malformed_long_message, "length 4089", peer_header(2, 1, 4089, 0, 1))
MALFORMED_TEST(malformed_ack_length, "length 0", peer_header(2, 2, 0, 0, 1))
MALFORMED_TEST(malformed_state_length, "length 47", peer_header(2, 4, 47, 0, 0))
MALFORMED_TEST(malformed_close_length, "length 257", peer_header(2, 5, 257, 0, 0))
MALFORMED_TEST(malformed_reserved, "reserved 0x1", peer_header(2, 1, 5, 1, 1))
MALFORMED_TEST(malformed_sequence_zero, "sequence", peer_header(2, 1, 5, 0, 0))
MALFORMED_TEST(malformed_state_sequence, "sequence", peer_header(2, 4, 48, 0, 1))
MALFORMED_TEST(malformed_nack, "NACK", peer_header(2, 3, 0, 0, 1))
MALFORMED_TEST(malformed_gap, "MESSAGE 2 where 1", peer_frame(HVPIPE_LINK_MESSAGE, 2, "gap"))
MALFORMED_TEST(malformed_ack_unsent, "ACK of message 1", peer_ack(1))
MALFORMED_TEST(malformed_credit_falls, "credit 999, but it was 1000", f.credit = 999, f.room = 0, peer_ack(0))
MALFORMED_TEST(malformed_state_credit_falls, "a credit below", f.room = 5, peer_state(1, 0))
MALFORMED_TEST(malformed_state_order, "credit 0", f.room = 0, peer_state(1, 0))

/* A hypervisor that took what was never sent is not the one of this session: no other try would help. */
static void unsent_taken_ends_link(void **context)
{
	come_up();
	peer_state(1, 7);
	spin_until(f.failed->len);
	assert_non_null(strstr(f.failed->str, "has message 7 of session"));
	expect_close(HVPIPE_LINK_NO_SESSION, "has message 7");
}

static void unknown_flags_ignored(void **context)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME] = { 0 };
	HvpipeLinkHvState s = hv_state(0xffffffff, 0);

	listen_there();
	hmc_link_start(f.link);
	peer_accept();
	expect_hello(0, 1);
	/* Other versions, features and fields, too. */
	s.offer = (HvpipeLinkOffer){ .lowest = 1, .highest = 9, .features = 0xffffffff };
	hvpipe_link_pack_hv_state(frame, &s);
	hvpipe_link_put16(frame + 2, HVPIPE_LINK_MAX_PAYLOAD);
	peer_write(frame, sizeof(frame));
	spin_until(hmc_link_is_up(f.link));
	assert_true(hmc_link_is_enabled(f.link));
}

static void malformed_message_first(void **context)
{
	listen_there();
	hmc_link_start(f.link);
	peer_accept();
	expect_hello(0, 1);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "early");
	expect_malformed("MESSAGE before STATE");
}

static void rubbish_survived(void **context)
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
			rubbish[0] = HVPIPE_LINK_VERSION;
			rubbish[1] = 1 + i / 2 % 5;
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

static void waiting_told_once(void **context)
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

static void loss_told_once(void **context)
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

static void silence_names_other_hmc(void **context)
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

static void pipe_told(void **context)
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

static void end_waits_for_peer(void **context)
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
		if (recv(f.peer, frame, sizeof(frame), MSG_WAITALL) != sizeof(frame))
			_exit(3);
		hvpipe_link_unpack_header(frame, &header);
		_exit(header.type == HVPIPE_LINK_CLOSE ? 0 : 4);
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

static void end_is_bounded(void **context)
{
	gint64 start;

	come_up();
	start = g_get_monotonic_time();
	hmc_link_finish(f.link, 50);
	assert_true(g_get_monotonic_time() - start < 2000000);
}

/*
 * Version 2: credit, what is queued, epoch, CLOSE
 */

static void credit_is_kept(void **context)
{
	f.room = 2;
	come_up();
	send_text("one");
	send_text("two");
	send_text("three");
	send_text("four");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	expect_nothing();
	peer_ack(1);
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "three");
	expect_nothing();
	/* A message of another session was received: the same ACK again, with more credit. */
	f.credit = 4;
	peer_ack(1);
	expect_frame(HVPIPE_LINK_MESSAGE, 4, "four");
}

static void queued_not_sent_again(void **context)
{
	HvpipeLinkHvState s = hv_state(1, 1);

	come_up();
	send_text("one");
	send_text("two");
	send_text("three");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "three");
	peer_accept();
	expect_hello(0, 1);
	s.queued = 2;
	peer_write_state(&s);
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "three");
	assert_int_equal(hmc_state_acknowledged(f.state), 1);
	/* It is gone there after all: a machine that has lost its memory. */
	peer_accept();
	expect_hello(0, 2);
	peer_state(1, 1);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "two");
	expect_frame(HVPIPE_LINK_MESSAGE, 3, "three");
}

static void boot_told(void **context)
{
	HvpipeLinkHvState s = hv_state(0, 0);

	come_up();
	peer_state(1, 0);
	s.epoch++;
	peer_write_state(&s);
	spin_until(!hmc_link_is_enabled(f.link));
	assert_non_null(strstr(f.notices[HMC_NOTICE_DETAIL]->str, "hmc1: the partition has booted\n"));
	/* Between two connections, too. */
	peer_accept();
	expect_hello(0, 1);
	peer_state(1, 0);
	spin_until(hmc_link_is_up(f.link));
	assert_non_null(strstr(strstr(f.notices[HMC_NOTICE_DETAIL]->str, "booted") + 1, "has booted"));
	assert_int_equal(hmc_state_epoch(f.state), EPOCH);
}

static void peer_close_frame(uint32_t reason, const char *text)
{
	uint8_t frame[HVPIPE_LINK_MAX_CLOSE];

	peer_write(frame, hvpipe_link_pack_close(frame, reason, text));
	shutdown(f.peer, SHUT_WR);
}

static void close_told(void **context)
{
	come_up();
	peer_close_frame(HVPIPE_LINK_REPLACED, "a snapshot was loaded");
	peer_accept();
	assert_non_null(strstr(f.notices[HMC_NOTICE_WAIT]->str, "replaced (reason 2): a snapshot was loaded"));
	expect_hello(0, 1);
	peer_state(1, 0);
	spin_until(f.notice_count[HMC_NOTICE_BACK] == 1);
	peer_close_frame(HVPIPE_LINK_MALFORMED, "what a frame");
	peer_accept();
	assert_non_null(strstr(f.notices[HMC_NOTICE_ERROR]->str, "malformed (reason 1): what a frame"));
	expect_hello(0, 1);
	peer_state(1, 0);
	spin_until(f.notice_count[HMC_NOTICE_BACK] == 2);
	/* What was sent before a CLOSE counts; a reason that is not known passes. */
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "last");
	peer_close_frame(77, "");
	peer_accept();
	assert_string_equal(f.messages->str, "1:last ");
	expect_hello(1, 1);
}

static void close_may_be_final(void **context)
{
	static const HvpipeLinkReason reasons[] = { HVPIPE_LINK_NO_VERSION, HVPIPE_LINK_NO_SESSION,
						    HVPIPE_LINK_NO_SOURCE };

	for (size_t i = 0; i < G_N_ELEMENTS(reasons); i++) {
		g_string_truncate(f.failed, 0);
		free_link();
		make_link(NULL);
		listen_there();
		hmc_link_start(f.link);
		peer_accept();
		expect_hello(0, 1);
		peer_close_frame(reasons[i], "not this one");
		spin_until(f.failed->len);
		assert_non_null(strstr(f.failed->str, hvpipe_link_reason_name(reasons[i])));
		assert_non_null(strstr(f.failed->str, "not this one"));
	}
}

static void no_version_ends_link(void **context)
{
	HvpipeLinkHvState s = hv_state(1, 0);

	listen_there();
	hmc_link_start(f.link);
	peer_accept();
	expect_hello(0, 1);
	s.offer = (HvpipeLinkOffer){ .lowest = 3, .highest = 4 };
	peer_write_state(&s);
	spin_until(f.failed->len);
	assert_non_null(strstr(f.failed->str, "versions 3 to 4"));
	expect_close(HVPIPE_LINK_NO_VERSION, "");
}

/* What the other side said before it went is read, even if a write finds that it is gone. */
static void close_read_after_failed_write(void **context)
{
	come_up();
	peer_close_frame(HVPIPE_LINK_NO_SESSION, "read me");
	peer_close();
	send_text("in vain");
	spin_until(f.failed->len);
	assert_non_null(strstr(f.failed->str, "read me"));
}

/*
 * Answers that take time
 */

static void answered_later(void **context)
{
	GBytes *reply = g_bytes_new_static("reply", 5);

	come_up();
	f.verdict = HMC_LATER;
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	spin_until(f.message_count == 1);
	expect_nothing();
	/* Everything else goes on. */
	send_text("meanwhile");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "meanwhile");
	peer_ack(1);
	spin_until(hmc_state_acknowledged(f.state) == 1);
	hmc_link_answer(f.link, HMC_TAKE, reply);
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	expect_frame(HVPIPE_LINK_MESSAGE, 2, "reply");
	peer_frame(HVPIPE_LINK_MESSAGE, 2, "no");
	spin_until(f.message_count == 2);
	hmc_link_answer(f.link, HMC_REFUSE, NULL);
	expect_frame(HVPIPE_LINK_NACK, 2, NULL);
	g_bytes_unref(reply);
}

/* The same message comes again after a reconnect: the user is not asked again. */
static void answered_after_reconnect(void **context)
{
	come_up();
	f.verdict = HMC_LATER;
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	spin_until(f.message_count == 1);
	peer_accept();
	expect_hello(0, 1);
	peer_state(1, 0);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	expect_nothing();
	hmc_link_answer(f.link, HMC_TAKE, NULL);
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
	assert_int_equal(f.message_count, 1);
}

/* Another one comes under its number: the partition has given up the first one, and the answer to it is not wanted. */
static void answer_not_for_another(void **context)
{
	come_up();
	f.verdict = HMC_LATER;
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	spin_until(f.message_count == 1);
	peer_accept();
	expect_hello(0, 1);
	peer_state(1, 0);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "other");
	expect_frame(HVPIPE_LINK_NACK, 1, NULL);
	hmc_link_answer(f.link, HMC_TAKE, NULL);
	expect_nothing();
	assert_int_equal(hmc_state_taken(f.state), 0);
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "other");
	spin_until(f.message_count == 2);
	hmc_link_answer(f.link, HMC_TAKE, NULL);
	expect_frame(HVPIPE_LINK_ACK, 1, NULL);
}

/* Without a connection the next hello is the answer. */
static void answered_without_connection(void **context)
{
	come_up();
	f.verdict = HMC_LATER;
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "hello");
	spin_until(f.message_count == 1);
	close(f.listener);
	f.listener = -1;
	peer_close();
	spin_until(!hmc_link_is_up(f.link));
	hmc_link_answer(f.link, HMC_TAKE, NULL);
	listen_there();
	peer_accept();
	expect_hello(1, 1);
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

static void follows_source(void **context)
{
	assert_true(hmc_link_add(f.link, f.other, NULL));
	come_up();
	send_text("one");
	send_text("two");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	peer_ack(1);
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

static void silent_place_left(void **context)
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

static void places_named_once(void **context)
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

static void added_place_checked(void **context)
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

	assert_null(hmc_link_new(f.loop, address, f.state, &timing, &ops, NULL, &error));
	assert_non_null(strstr(error->message, words));
	g_error_free(error);
}

static void expect_address(const char *address)
{
	struct hmc_link *link = hmc_link_new(f.loop, address, f.state, &timing, &ops, NULL, NULL);

	assert_non_null(link);
	hmc_link_free(link);
}

static void address_forms(void **context)
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

static void fault_costs_connection(void **context)
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
		peer_ack(sequence + 1);
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
static void refused_hello_ends_link(void **context)
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

static void no_socket_ends_link(void **context)
{
	GError *error = NULL;

	assert_true(g_file_set_contents(f.path, "text", -1, &error));
	hmc_link_start(f.link);
	spin_until(f.failed->len);
	assert_non_null(strstr(f.failed->str, "/socket: not a socket"));
}

static void forbidden_ends_link(void **context)
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

/* A hypervisor repeats a message without end and reads no answer: one answer stands for all. */
static void duplicates_cost_no_memory(void **context)
{
	uint8_t frame[HVPIPE_LINK_HEADER_SIZE + 1];
	size_t used;

	come_up();
	peer_frame(HVPIPE_LINK_MESSAGE, 1, "x");
	spin_until(f.message_count == 1);
	hvpipe_link_pack_header(frame, HVPIPE_LINK_MESSAGE, 1, 1);
	frame[HVPIPE_LINK_HEADER_SIZE] = 'x';
	for (int i = 0; i < 100000; i++)
		peer_write(frame, sizeof(frame));
	used = mallinfo2().uordblks;
	for (int i = 0; i < 300000; i++)
		peer_write(frame, sizeof(frame));
	assert_in_range(mallinfo2().uordblks, 0, used + 64 * 1024);
	assert_int_equal(f.message_count, 1);
	assert_true(hmc_link_is_up(f.link));
}

static void fault_for_ack(void **context)
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

static void fault_for_state(void **context)
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
	assert_int_equal(hvpipe_link_get64(frame + HVPIPE_LINK_HEADER_SIZE + 8), 0);
	peer_close();
	peer_accept();
	spin_until(peer_sees_end());
	peer_accept();
	expect_hello(0, 1);
	peer_state(0, 0);
	spin_until(hmc_link_is_up(f.link));
}

static void stall_is_silent(void **context)
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

static void stall_ends(void **context)
{
	come_up();
	set_faults("stall,ms=5");
	send_text("one");
	expect_frame(HVPIPE_LINK_MESSAGE, 1, "one");
	peer_ack(1);
	spin_until(!hmc_state_pending(f.state)->length);
}

static void stalled_link_can_end(void **context)
{
	come_up();
	set_faults("stall");
	send_text("one");
	spin_until(strstr(f.notices[HMC_NOTICE_DETAIL]->str, "fault stall"));
	hmc_link_finish(f.link, PATIENCE_US / 1000);
	assert_true(peer_sees_end());
}

static void bad_fault_changes_nothing(void **context)
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
		TEST(pending_until_acknowledged),
		TEST(waits_for_link),
		TEST(taken_then_acknowledged),
		TEST(refused_reuses_number),
		TEST(left_message_stays),
		TEST(reply_behind_ack),
		TEST(frames_bytewise),
		TEST(frames_at_once),
		TEST(slow_peer_gets_all),
		TEST(unacknowledged_sent_again),
		TEST(taken_not_sent_again),
		TEST(late_ack_counts),
		TEST(unknown_session_gets_rest),
		TEST(duplicate_dropped),
		TEST(cut_message_not_taken),
		TEST(session_survives_process),
		TEST(other_source_ends_link),
		TEST(no_ack_without_state),
		TEST(malformed_version),
		TEST(malformed_type),
		TEST(malformed_type_zero),
		TEST(malformed_empty_message),
		TEST(malformed_long_message),
		TEST(malformed_ack_length),
		TEST(malformed_state_length),
		TEST(malformed_close_length),
		TEST(malformed_reserved),
		TEST(malformed_sequence_zero),
		TEST(malformed_state_sequence),
		TEST(malformed_nack),
		TEST(malformed_gap),
		TEST(malformed_ack_unsent),
		TEST(malformed_credit_falls),
		TEST(malformed_state_credit_falls),
		TEST(malformed_state_order),
		TEST(unsent_taken_ends_link),
		TEST(unknown_flags_ignored),
		TEST(malformed_message_first),
		TEST(rubbish_survived),
		TEST(waiting_told_once),
		TEST(loss_told_once),
		TEST(silence_names_other_hmc),
		TEST(pipe_told),
		TEST(end_waits_for_peer),
		TEST(end_is_bounded),
		TEST(credit_is_kept),
		TEST(queued_not_sent_again),
		TEST(boot_told),
		TEST(close_told),
		TEST(close_may_be_final),
		TEST(no_version_ends_link),
		TEST(close_read_after_failed_write),
		TEST(answered_later),
		TEST(answered_after_reconnect),
		TEST(answer_not_for_another),
		TEST(answered_without_connection),
		TEST(follows_source),
		TEST(silent_place_left),
		TEST(places_named_once),
		TEST(added_place_checked),
		TEST(address_forms),
		TEST(fault_costs_connection),
		TEST(refused_hello_ends_link),
		TEST(no_socket_ends_link),
		TEST(forbidden_ends_link),
		TEST(duplicates_cost_no_memory),
		TEST(fault_for_ack),
		TEST(fault_for_state),
		TEST(stall_is_silent),
		TEST(stall_ends),
		TEST(stalled_link_can_end),
		TEST(bad_fault_changes_nothing),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("hvpipe-hmc-link", tests, NULL, NULL);
}
