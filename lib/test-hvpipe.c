// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Unit tests of the library on two fake drivers: the one that Linux ships and ours, each with what a program notices of
 * it. The real ones are met by the tests that run in a partition.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

static ssize_t driver_read(int fd, void *buffer, size_t size);
static ssize_t driver_write(int fd, const void *buffer, size_t count);
static int driver_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
static int driver_clock_gettime(clockid_t clock, struct timespec *ts);

#define read	      driver_read
#define write	      driver_write
#define poll	      driver_poll
#define clock_gettime driver_clock_gettime
#include "hvpipe.c"
#undef read
#undef write
#undef poll
#undef clock_gettime

#define SHIPPED_READ_MAX 4096
#define SHIPPED_SEND_MAX 4048

/* A driver with a handle that is open. */
static struct driver {
	bool shipped;	  /* the one that Linux ships, not ours */
	bool nonblocking; /* O_NONBLOCK is set */
	bool suspended;
	bool suspend_soon; /* right after the next read() */
	short ended;	   /* what poll() says of a file that has ended */
	bool lost;	   /* there is a loss to report */
	int send_error;	   /* what the hypervisor's answer to a send becomes */

	size_t queued[4];   /* lengths of the messages that wait, 0 ends the list */
	unsigned char fill; /* the bytes of the next one */
	bool empty;	    /* there is a header without a message or a loss */
	int nr_signals;	    /* signals that interrupt poll() */

	unsigned char sent[HVPIPE_MAX_PAYLOAD];
	size_t sent_len;
	int nr_sent;

	int nr_reads, nr_writes, nr_polls, nr_clocks;
	int64_t now_ms;
	int64_t resume_at_ms;  /* when a suspend ends, if not 0 */
	int64_t message_at_ms; /* when a message of 1 byte comes, if not 0 */
} driver;

static bool is_readable(const void *address)
{
	int ends[2];
	bool readable;

	assert_int_equal(pipe(ends), 0);
	readable = write(ends[1], address, 1) == 1;
	close(ends[0]);
	close(ends[1]);
	return readable;
}

static ssize_t refuse(int err)
{
	errno = err;
	return -1;
}

static ssize_t driver_write(int fd, const void *buffer, size_t count)
{
	static const struct papr_hvpipe_hdr zeros;
	size_t max = driver.shipped ? SHIPPED_SEND_MAX : HVPIPE_MAX_PAYLOAD;

	driver.nr_writes++;
	if (count <= sizeof(zeros) || count > sizeof(zeros) + max)
		return refuse(EINVAL);
	if (driver.suspended)
		return refuse(ENXIO);
	if (!is_readable(buffer))
		return refuse(driver.shipped ? EPERM : EFAULT);
	assert_memory_equal(buffer, &zeros, sizeof(zeros));
	if (driver.send_error)
		return refuse(driver.send_error);
	driver.sent_len = count - sizeof(zeros);
	memcpy(driver.sent, (const unsigned char *)buffer + sizeof(zeros), driver.sent_len);
	driver.nr_sent++;
	return count;
}

static ssize_t driver_read(int fd, void *buffer, size_t size)
{
	struct papr_hvpipe_hdr hdr = { 0 };
	size_t len = sizeof(hdr) + driver.queued[0];

	driver.nr_reads++;
	if (driver.suspend_soon) {
		driver.suspended = true;
		driver.suspend_soon = false;
		return 0;
	}
	if (size < sizeof(hdr) || (driver.shipped && size > SHIPPED_READ_MAX))
		return refuse(EINVAL);
	if (driver.suspended && (driver.shipped || !driver.queued[0]))
		return refuse(ENXIO);
	if (driver.queued[0]) {
		if (len > size && !driver.shipped)
			return refuse(EMSGSIZE);
		hdr.flags = HVPIPE_MSG_AVAILABLE;
		len = len < size ? len : size;
		memcpy(buffer, &hdr, sizeof(hdr));
		memset((unsigned char *)buffer + sizeof(hdr), driver.fill++, len - sizeof(hdr));
		memmove(driver.queued, driver.queued + 1, sizeof(driver.queued) - sizeof(driver.queued[0]));
		return len;
	}
	if (driver.lost) {
		driver.lost = false;
		hdr.flags = HVPIPE_LOST_CONNECTION;
		memcpy(buffer, &hdr, sizeof(hdr));
		return sizeof(hdr);
	}
	if (driver.empty) {
		driver.empty = false;
		memcpy(buffer, &hdr, sizeof(hdr));
		return sizeof(hdr);
	}
	return driver.nonblocking && !driver.shipped ? refuse(EAGAIN) : 0;
}

/* Let time pass, and do everything that is scheduled until then. */
static void pass(int64_t until_ms)
{
	driver.now_ms = until_ms;
	if (driver.resume_at_ms && driver.resume_at_ms <= until_ms)
		driver.suspended = false;
	if (driver.message_at_ms && driver.message_at_ms <= until_ms) {
		driver.message_at_ms = 0;
		driver.queued[0] = 1;
	}
}

/*
 * When to look again. Suspend and resume wake nobody on the driver that Linux ships, and a message does not wake a
 * poll() that began in a suspend.
 */
static int64_t next_wake_ms(bool was_suspended)
{
	int64_t next = driver.shipped && was_suspended ? 0 : driver.message_at_ms;

	if (!driver.shipped && driver.suspended && driver.resume_at_ms && (!next || driver.resume_at_ms < next))
		next = driver.resume_at_ms;
	return next;
}

static int driver_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	int64_t until_ms = driver.now_ms + timeout_ms;
	bool was_suspended = driver.suspended;

	driver.nr_polls++;
	assert_int_equal(n, 1);
	assert_true(timeout_ms >= -1);
	if (driver.nr_signals) {
		driver.nr_signals--;
		pass(driver.now_ms + (timeout_ms < 0 || timeout_ms > 10 ? 10 : timeout_ms));
		return refuse(EINTR);
	}
	for (;;) {
		short events = driver.ended;
		int64_t next_ms = next_wake_ms(was_suspended);

		if (driver.suspended)
			events |= POLLRDHUP;
		else if (!driver.shipped)
			events |= POLLOUT;
		if ((driver.queued[0] || driver.lost || driver.empty) && !(driver.shipped && driver.suspended))
			events |= POLLIN;
		fds->revents = events & (fds->events | POLLENDED);
		if (fds->revents)
			return 1;

		if (next_ms && (timeout_ms < 0 || next_ms <= until_ms)) {
			pass(next_ms);
			continue;
		}
		if (timeout_ms < 0)
			fail_msg("poll() never ends");
		pass(until_ms);
		return 0;
	}
}

/* Each look takes a nanosecond. */
static int driver_clock_gettime(clockid_t clock, struct timespec *ts)
{
	driver.nr_clocks++;
	assert_int_equal(clock, CLOCK_MONOTONIC);
	ts->tv_sec = driver.now_ms / 1000;
	ts->tv_nsec = driver.now_ms % 1000 * 1000000 + driver.nr_clocks;
	return 0;
}

static struct hvpipe handle;
static unsigned char message[HVPIPE_MAX_RECEIVE];

static void start(bool shipped)
{
	memset(&driver, 0, sizeof(driver));
	memset(&handle, 0, sizeof(handle));
	driver.shipped = shipped;
	driver.now_ms = 1000;
	handle.fd = -1;
}

static int start_ours(void **state)
{
	start(false);
	return 0;
}

static int start_shipped(void **state)
{
	start(true);
	return 0;
}

static void assert_fails(ssize_t result, int err)
{
	int seen = errno;

	assert_int_equal(result, -1);
	assert_int_equal(seen, err);
}

static void assert_receives(size_t size, size_t len, unsigned char fill)
{
	memset(message, 0xa5, sizeof(message));
	assert_int_equal(hvpipe_recv(&handle, message, size, 0), len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(message[i], fill);
	if (len < sizeof(message))
		assert_int_equal(message[len], 0xa5);
}

/* A message goes to the driver with one write() and nothing else. */
static void send_is_one_write(void **state)
{
	memset(message, 7, sizeof(message));
	assert_int_equal(hvpipe_send(&handle, message, 1), 1);
	assert_int_equal(hvpipe_send(&handle, message, SHIPPED_SEND_MAX), SHIPPED_SEND_MAX);
	assert_int_equal(driver.sent_len, SHIPPED_SEND_MAX);
	assert_memory_equal(driver.sent, message, SHIPPED_SEND_MAX);
	assert_int_equal(driver.nr_writes, 2);
	assert_int_equal(driver.nr_polls + driver.nr_reads + driver.nr_clocks, 0);
}

/* What no kernel takes does not reach the driver. */
static void send_checks_length(void **state)
{
	assert_fails(hvpipe_send(&handle, message, 0), EINVAL);
	assert_fails(hvpipe_send(&handle, NULL, 0), EINVAL);
	assert_fails(hvpipe_send(&handle, message, HVPIPE_MAX_PAYLOAD + 1), EMSGSIZE);
	assert_int_equal(driver.nr_writes, 0);
}

/* A message that this kernel does not take, but another would, is too long and not sent. */
static void too_long_is_emsgsize(void **state)
{
	assert_fails(hvpipe_send(&handle, message, SHIPPED_SEND_MAX + 1), EMSGSIZE);
	assert_fails(hvpipe_send(&handle, message, HVPIPE_MAX_PAYLOAD), EMSGSIZE);
	assert_int_equal(driver.nr_sent, 0);
}

static void longest_is_taken(void **state)
{
	assert_int_equal(hvpipe_send(&handle, message, HVPIPE_MAX_PAYLOAD), HVPIPE_MAX_PAYLOAD);
}

/* EINVAL is left to the source that the hypervisor does not know, whatever the length; nothing is sent to find out. */
static void unknown_source_is_einval(void **state)
{
	driver.send_error = EINVAL;
	assert_fails(hvpipe_send(&handle, message, 1), EINVAL);
	assert_fails(hvpipe_send(&handle, message, driver.shipped ? SHIPPED_SEND_MAX : HVPIPE_MAX_PAYLOAD), EINVAL);
	assert_int_equal(driver.nr_sent, 0);
}

/* Other errors of the driver reach the caller, after one write(). */
static void send_errors_pass(void **state)
{
	static const int errors[] = { EPIPE, EIO, EOPNOTSUPP, ENOMEM };

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		driver.send_error = errors[i];
		assert_fails(hvpipe_send(&handle, message, 1), errors[i]);
	}
	driver.suspended = true;
	assert_fails(hvpipe_send(&handle, message, 1), ENXIO);
	assert_int_equal(driver.nr_writes, 5);
}

/* A message that waits is received with one read() and nothing else. */
static void recv_is_one_read(void **state)
{
	driver.queued[0] = 1;
	driver.queued[1] = SHIPPED_SEND_MAX;
	assert_receives(sizeof(message), 1, 0);
	assert_receives(sizeof(message), SHIPPED_SEND_MAX, 1);
	assert_int_equal(driver.nr_reads, 2);
	assert_int_equal(driver.nr_polls + driver.nr_writes + driver.nr_clocks, 0);
}

/* Our driver keeps a message that does not fit 4096 bytes with its header: a second read() gets it. */
static void longest_takes_two_reads(void **state)
{
	driver.queued[0] = SHIPPED_SEND_MAX + 1;
	driver.queued[1] = HVPIPE_MAX_RECEIVE;
	assert_receives(sizeof(message), SHIPPED_SEND_MAX + 1, 0);
	assert_receives(sizeof(message), HVPIPE_MAX_RECEIVE, 1);
	assert_int_equal(driver.nr_reads, 4);
}

/* A message that does not fit the caller's buffer stays in the handle, and the driver is not asked again. */
static void short_buffer_keeps_message(void **state)
{
	driver.queued[0] = 100;
	driver.queued[1] = 3;
	assert_int_equal(hvpipe_pending(&handle), 0);
	assert_fails(hvpipe_recv(&handle, message, 99, 0), EMSGSIZE);
	assert_int_equal(hvpipe_pending(&handle), 100);
	assert_fails(hvpipe_recv(&handle, NULL, 0, -1), EMSGSIZE);
	assert_receives(100, 100, 0);
	assert_int_equal(hvpipe_pending(&handle), 0);
	assert_int_equal(driver.nr_reads, 1);
	assert_receives(sizeof(message), 3, 1);
}

/* A kept message comes before a suspend and a loss that came after it. */
static void kept_message_comes_first(void **state)
{
	driver.queued[0] = 100;
	assert_fails(hvpipe_recv(&handle, message, 1, 0), EMSGSIZE);
	driver.lost = true;
	driver.suspended = true;
	assert_receives(sizeof(message), 100, 0);
	assert_fails(hvpipe_recv(&handle, message, sizeof(message), 0), ENXIO);
	driver.suspended = false;
	assert_fails(hvpipe_recv(&handle, message, sizeof(message), 0), ECONNRESET);
	assert_fails(hvpipe_recv(&handle, message, sizeof(message), 0), ETIMEDOUT);
}

/* Without a message the time passes, no less and no more, whatever the descriptor's flags. */
static void nothing_is_a_timeout(void **state)
{
	for (int i = 0; i < 2; i++) {
		int64_t before = driver.now_ms;

		driver.nonblocking = i;
		assert_fails(hvpipe_recv(&handle, message, sizeof(message), 0), ETIMEDOUT);
		assert_int_equal(driver.now_ms, before);
		assert_fails(hvpipe_recv(&handle, message, sizeof(message), 250), ETIMEDOUT);
		assert_int_equal(driver.now_ms, before + 250);
		driver.nr_signals = 5;
		assert_fails(hvpipe_recv(&handle, message, sizeof(message), 400), ETIMEDOUT);
		assert_in_range(driver.now_ms, before + 650, before + 651);
	}
}

/* A file that has ended is neither a timeout nor a loop. */
static void end_is_no_timeout(void **state)
{
	static const short ends[] = { POLLHUP | POLLIN, POLLHUP, POLLERR, POLLNVAL };

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		driver.queued[0] = 1;
		driver.ended = ends[i];
		assert_receives(sizeof(message), 1, i);
		assert_fails(hvpipe_recv(&handle, message, sizeof(message), -1), ENOTCONN);
		assert_fails(hvpipe_wait_enabled(&handle, -1), ENOTCONN);
	}
}

/* A message that comes during the wait ends it; signals do not. */
static void message_ends_the_wait(void **state)
{
	static const int timeouts[] = { -1, 200, 100 };

	for (size_t i = 0; i < sizeof(timeouts) / sizeof(timeouts[0]); i++) {
		int64_t before = driver.now_ms;

		driver.message_at_ms = before + 100;
		driver.nr_signals = 3;
		assert_int_equal(hvpipe_recv(&handle, message, sizeof(message), timeouts[i]), 1);
		assert_int_equal(message[0], i);
		assert_int_equal(driver.now_ms, before + 100);
	}
}

/* What the interface does not know is an error, neither a message nor nothing. */
static void bare_header_is_eproto(void **state)
{
	driver.empty = true;
	assert_fails(hvpipe_recv(&handle, message, sizeof(message), 0), EPROTO);
}

static void suspend_ends_the_wait(void **state)
{
	driver.suspended = true;
	assert_fails(hvpipe_recv(&handle, message, sizeof(message), -1), ENXIO);
	driver.suspended = false;
	driver.suspend_soon = true;
	assert_fails(hvpipe_recv(&handle, message, sizeof(message), -1), ENXIO);
}

static void enabled_needs_no_wait(void **state)
{
	int64_t before = driver.now_ms;

	assert_int_equal(hvpipe_wait_enabled(&handle, 0), 0);
	assert_int_equal(hvpipe_wait_enabled(&handle, -1), 0);
	assert_int_equal(driver.now_ms, before);
}

/* The end of a suspend is noticed within 100 ms, though no POLLOUT says so; at once on our driver. */
static void resume_ends_the_wait(void **state)
{
	int64_t before = driver.now_ms;

	driver.suspended = true;
	driver.resume_at_ms = before + 1234;
	assert_fails(hvpipe_wait_enabled(&handle, 0), ETIMEDOUT);
	assert_int_equal(driver.now_ms, before);
	assert_fails(hvpipe_wait_enabled(&handle, 1000), ETIMEDOUT);
	assert_int_equal(driver.now_ms, before + 1000);
	assert_int_equal(hvpipe_wait_enabled(&handle, -1), 0);
	assert_in_range(driver.now_ms, before + 1234, before + (driver.shipped ? 1334 : 1234));
}

static void source_names(void **state)
{
	static const char *const bad[] = {
		"",
		"hmc",
		"hmc0",
		"hmc65536",
		"hmc-1",
		"hmc 1",
		"hmc1 ",
		"hmc0x1",
		"HMC1",
		"0x",
		"0x1g",
		"0x100000000",
		"4294967296",
		"-1",
		"+1",
		" 1",
		"1 ",
		"abc",
		"99999999999999999999999",
		"0x-1",
		"\xff",
	};
	static const struct {
		const char *text;
		uint32_t source;
	} good[] = {
		{ "hmc1", 0x02000001 },
		{ "hmc65535", 0x0200ffff },
		{ "0x02000001", 0x02000001 },
		{ "33554433", 0x02000001 },
		{ "0xFFFFffff", 0xffffffff },
		{ "4294967295", 0xffffffff },
		{ "0", 0 },
	};
	uint32_t source;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		source = 0xaaaaaaaa;
		assert_int_equal(hvpipe_parse_source(good[i].text, &source), 0);
		assert_int_equal(source, good[i].source);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		source = 42;
		assert_fails(hvpipe_parse_source(bad[i], &source), EINVAL);
		assert_int_equal(source, 42);
	}
}

/* The numbers of the user ABI that programs are built with. */
static void abi_numbers(void **state)
{
	assert_int_equal(sizeof(struct papr_hvpipe_hdr), 48);
	assert_int_equal(offsetof(struct papr_hvpipe_hdr, flags), 4);
	assert_int_equal(_IOC_TYPE(PAPR_HVPIPE_IOC_CREATE_HANDLE), 0xb2);
	assert_int_equal(_IOC_NR(PAPR_HVPIPE_IOC_CREATE_HANDLE), 9);
	assert_int_equal(_IOC_SIZE(PAPR_HVPIPE_IOC_CREATE_HANDLE), 4);
	assert_int_equal(HVPIPE_SOURCE_HMC(1), 0x02000001);
	assert_int_equal(offsetof(struct hvpipe, out.payload) - offsetof(struct hvpipe, out), 48);
	assert_int_equal(offsetof(struct hvpipe, in.payload) - offsetof(struct hvpipe, in), 48);
}

static FILE *text(const char *content)
{
	FILE *file = fmemopen((void *)content, strlen(content), "r");

	assert_non_null(file);
	return file;
}

static void holder_of_our_driver(void **state)
{
	struct hvpipe_holder holder = { 0 };
	FILE *file;

	file = text("pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1060\nsource:\t0x02000001\nstate:\topen\nsent:\t3\n"
		    "sent-bytes:\t12264\nreceived:\t18446744073709551614\nreceived-bytes:\t5\nheld:\t1\nnew-key:\t7\n");
	hvpipe_read_holder(file, &holder);
	fclose(file);
	assert_int_equal(holder.source, 0x02000001);
	assert_string_equal(holder.state, "open");
	assert_int_equal(holder.sent, 3);
	assert_int_equal(holder.sent_bytes, 12264);
	assert_true(holder.received == UINT64_MAX - 1);
	assert_int_equal(holder.received_bytes, 5);
	assert_int_equal(holder.held, 1);
}

static void status_of_our_driver(void **state)
{
	struct hvpipe_status status;
	FILE *file;

	file = text("pos:\t0\nstate:\tenabled\nhandles:\t2\ndropped:\t9\n");
	hvpipe_read_status(file, &status);
	fclose(file);
	assert_string_equal(status.state, "enabled");
	assert_int_equal(status.handles, 2);
	assert_int_equal(status.dropped, 9);
	assert_true(status.reserved[0] == HVPIPE_UNKNOWN);
}

/* The driver that Linux ships says nothing in fdinfo. */
static void status_of_shipped_driver(void **state)
{
	struct hvpipe_status status = { 0 };
	FILE *file;

	file = text("pos:\t0\nflags:\t0100002\nmnt_id:\t15\nino:\t1060\n");
	hvpipe_read_status(file, &status);
	fclose(file);
	assert_string_equal(status.state, "unknown");
	assert_true(status.handles == HVPIPE_UNKNOWN);
	assert_true(status.dropped == HVPIPE_UNKNOWN);
}

static void long_state_is_cut(void **state)
{
	struct hvpipe_status status;
	FILE *file;

	file = text("state:\ta-state-of-more-than-fifteen-bytes\n");
	hvpipe_read_status(file, &status);
	fclose(file);
	assert_string_equal(status.state, "a-state-of-more");
}

static void make_file(const char *content, const char *format, ...)
{
	char path[200];
	va_list args;
	FILE *file;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(content, file);
	fclose(file);
}

/* A process with descriptors 0 and 7 in a directory that looks like /proc. */
static void make_process(const char *proc, int pid, const char *link, const char *fdinfo)
{
	char path[200];

	for (int i = 0; i < 3; i++) {
		static const char *const places[] = { "", "/fd", "/fdinfo" };

		snprintf(path, sizeof(path), "%s/%d%s", proc, pid, places[i]);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	snprintf(path, sizeof(path), "%s/%d/fd/0", proc, pid);
	assert_int_equal(symlink("/dev/papr-hvpipe", path), 0);
	snprintf(path, sizeof(path), "%s/%d/fd/7", proc, pid);
	assert_int_equal(symlink(link, path), 0);
	make_file("pos:\t0\n", "%s/%d/fdinfo/0", proc, pid);
	make_file(fdinfo, "%s/%d/fdinfo/7", proc, pid);
	make_file("a-program\n", "%s/%d/comm", proc, pid);
}

struct found {
	int count;
	struct hvpipe_holder last;
};

static int find(const struct hvpipe_holder *holder, void *data)
{
	struct found *found = data;

	found->count++;
	found->last = *holder;
	return 0;
}

/* A handle is known by its link, and what the driver does not tell of it is unknown. */
static void holders_without_fdinfo(void **state)
{
	char proc[] = "/tmp/test-hvpipe-XXXXXX", command[100];
	struct found found = { 0 };

	assert_non_null(mkdtemp(proc));
	make_process(proc, 12, "anon_inode:[papr-hvpipe]", "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1060\n");
	make_process(proc, 13, "anon_inode:[papr-vpd]", "pos:\t0\n");
	assert_int_equal(hvpipe_each_holder_in(proc, find, &found), 0);
	snprintf(command, sizeof(command), "rm -r %s", proc);
	assert_int_equal(system(command), 0);

	assert_int_equal(found.count, 1);
	assert_int_equal(found.last.pid, 12);
	assert_int_equal(found.last.fd, 7);
	assert_string_equal(found.last.command, "a-program");
	assert_int_equal(found.last.source, 0);
	assert_string_equal(found.last.state, "unknown");
	assert_true(found.last.sent == HVPIPE_UNKNOWN && found.last.sent_bytes == HVPIPE_UNKNOWN);
	assert_true(found.last.received == HVPIPE_UNKNOWN && found.last.received_bytes == HVPIPE_UNKNOWN);
	assert_true(found.last.held == HVPIPE_UNKNOWN);
	assert_fails(hvpipe_each_holder_in(proc, find, &found), ENOENT);
}

static void without_device(void **state)
{
	struct hvpipe_status status;
	struct found found = { 0 };

	if (access(HVPIPE_DEVICE, F_OK) == 0)
		skip();
	assert_null(hvpipe_open(HVPIPE_SOURCE_HMC(1)));
	assert_int_equal(errno, ENOENT);
	assert_fails(hvpipe_get_status(&status), ENOENT);
	assert_int_equal(hvpipe_each_holder(find, &found), 0);
	assert_int_equal(found.count, 0);
	assert_string_equal(hvpipe_version(), HVPIPE_VERSION);
	hvpipe_close(NULL);
}

/* clang-format off */
#define on_ours(test) { "ours_" #test, test, start_ours, NULL, NULL }
#define on_shipped(test) { "shipped_" #test, test, start_shipped, NULL, NULL }
/* clang-format on */
#define on_both(test) on_ours(test), on_shipped(test)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		on_both(send_is_one_write),
		on_both(send_checks_length),
		on_shipped(too_long_is_emsgsize),
		on_ours(longest_is_taken),
		on_both(unknown_source_is_einval),
		on_both(send_errors_pass),
		on_both(recv_is_one_read),
		on_ours(longest_takes_two_reads),
		on_both(short_buffer_keeps_message),
		on_both(kept_message_comes_first),
		on_both(nothing_is_a_timeout),
		on_both(end_is_no_timeout),
		on_both(message_ends_the_wait),
		on_both(bare_header_is_eproto),
		on_both(suspend_ends_the_wait),
		on_both(enabled_needs_no_wait),
		on_both(resume_ends_the_wait),
		cmocka_unit_test(source_names),
		cmocka_unit_test(abi_numbers),
		cmocka_unit_test(holder_of_our_driver),
		cmocka_unit_test(status_of_our_driver),
		cmocka_unit_test(status_of_shipped_driver),
		cmocka_unit_test(long_state_is_cut),
		cmocka_unit_test(holders_without_fdinfo),
		cmocka_unit_test(without_device),
	};

	return cmocka_run_group_tests_name("libhvpipe", tests, NULL, NULL);
}
