// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What calls of the hypervisor pipe cost, in guest instructions. Runs in a
 * partition whose hypervisor counts virtual time by instructions (QEMU's
 * -icount shift=0: one instruction is one nanosecond) and answers for the
 * sources hmc1 to hmc8 (spapr-hvpipe-echo).
 *
 * usage: bench unit | floor | rtas_call | messages SIZE | library SIZE | busy | wakeup | again |
 *              handles COUNT | files COUNT | asleep MS MESSAGES
 *
 * Prints a line for each row: name, median, 10th and 90th percentile, number of
 * samples; all less the cost of reading the timebase. An average is printed three
 * times. "asleep" prints virtual time in nanoseconds.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hvpipe.h"

#define HEADER	      48 /* before each payload */
#define MAX_PAYLOAD   4088
#define USUAL_PAYLOAD 4048	 /* what every driver of this ABI can send and receive */
#define SOURCES	      8		 /* that the hypervisor answers for */
#define HMC	      0x02000000 /* hmcN is HMC | N */
#define SAMPLES	      401
#define WARM_UP	      20  /* repetitions before the first sample */
#define TICKS_PER_US  512 /* the timebase's rate */
#define SLEEP_MS      100 /* of a reader that comes late */
#define SLEEPS	      15  /* samples of that */
#define SETTLE_NS     100000000

struct row {
	const char *name;
	int n;
	uint64_t ticks[SAMPLES];
};

static uint64_t timebase_cost; /* ticks between two readings */
/* At the begin of a page, as a copy costs more where it is not aligned. */
static char buffer[HEADER + MAX_PAYLOAD] __attribute__((aligned(65536)));

static inline uint64_t timebase(void)
{
	uint64_t ticks;

	asm volatile("mfspr %0,268" : "=r"(ticks) : : "memory");
	return ticks;
}

/*
 * Tell bench/insn-profile.c that a row begins (its number, from 1) or ends (0),
 * by an instruction that occurs nowhere else.
 */
#define MARK(row) asm volatile("ori 0,0,%0" : : "i"(0x4850 + (row)) : "r0")

/* The same, but not while warming up. */
#define MARK_IF(i, row)            \
	do {                       \
		if ((i) >= 0)      \
			MARK(row); \
	} while (0)

static void add(struct row *row, uint64_t ticks)
{
	if (row->n < SAMPLES)
		row->ticks[row->n++] = ticks;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* A percentile of the sorted samples, in instructions. */
static double percentile(const struct row *row, int percent)
{
	int64_t ticks = row->ticks[(row->n - 1) * percent / 100];

	return (double)(ticks - (int64_t)timebase_cost) * 1000 / TICKS_PER_US;
}

static void print(struct row *row)
{
	if (!row->n)
		return;
	qsort(row->ticks, row->n, sizeof(row->ticks[0]), compare);
	printf("%s %.1f %.1f %.1f %d\n", row->name, percentile(row, 50), percentile(row, 10), percentile(row, 90),
	       row->n);
}

static void print_average(const char *name, uint64_t ticks, int count)
{
	double average = (double)ticks * 1000 / TICKS_PER_US / count;

	printf("%s %.1f %.1f %.1f %d\n", name, average, average, average, count);
}

static void sleep_ms(int ms)
{
	const struct timespec time = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&time, NULL);
}

/*
 * Before measurements that are not repeated: let RCU finish its work, and begin
 * at the same phase of the timer's period.
 */
static void settle(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	time.tv_nsec = time.tv_nsec / SETTLE_NS * SETTLE_NS + 2 * SETTLE_NS;
	time.tv_sec += time.tv_nsec / 1000000000;
	time.tv_nsec %= 1000000000;
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static int open_device(void)
{
	int device = open("/dev/papr-hvpipe", O_RDWR);

	if (device < 0)
		err(1, "/dev/papr-hvpipe");
	return device;
}

static int create(int device, uint32_t source)
{
	return ioctl(device, _IOW(0xb2, 9, uint32_t), &source);
}

static int must_create(int device, uint32_t source)
{
	int fd = create(device, source);

	if (fd < 0)
		err(1, "cannot create a handle for source 0x%08x", source);
	return fd;
}

/* Returns the time that write() took. */
static uint64_t send_message(int fd, int size)
{
	uint64_t start = timebase();
	ssize_t done = write(fd, buffer, HEADER + size);
	uint64_t end = timebase();

	if (done != HEADER + size)
		err(1, "write of %d bytes returned %zd", size, done);
	return end - start;
}

/* Returns the time that read() took. */
static uint64_t receive_message(int fd, int size)
{
	uint64_t start = timebase();
	ssize_t done = read(fd, buffer, HEADER + (size > USUAL_PAYLOAD ? MAX_PAYLOAD : USUAL_PAYLOAD));
	uint64_t end = timebase();

	if (done != HEADER + size)
		err(1, "read of a message of %d bytes returned %zd", size, done);
	return end - start;
}

/* Code of known length, which must be printed as that length. */
static void unit(void)
{
	static struct row straight = { .name = "unit-1000" }, loop = { .name = "unit-1000000" };

	for (int i = -WARM_UP; i < SAMPLES; i++) {
		uint64_t start, middle, end, work = 0, count = 500000;

		start = timebase();
		asm volatile(".rept 1000; addi %0,%0,1; .endr" : "+r"(work));
		middle = timebase();
		asm volatile("mtctr %1; 1: addi %0,%0,1; bdnz 1b" : "+r"(work) : "r"(count) : "ctr");
		end = timebase();
		if (i >= 0) {
			add(&straight, middle - start);
			add(&loop, end - middle);
		}
	}
	print(&straight);
	print(&loop);
}

static void measure_floor(void)
{
	static struct row getppid_row = { .name = "getppid" }, rtas_row = { .name = "sys_rtas" };
	struct {
		uint32_t token, nargs, nret, args[16];
		uint64_t rets;
	} call;
	const char *name = "/proc/device-tree/rtas/get-time-of-day";
	int fd = open(name, O_RDONLY);
	uint32_t token;

	if (fd < 0 || read(fd, &token, sizeof(token)) != sizeof(token))
		err(1, "%s", name);
	close(fd);

	for (int i = -WARM_UP; i < SAMPLES; i++) {
		uint64_t start, middle, end;
		long done;

		memset(&call, 0, sizeof(call));
		call.token = token;
		call.nret = htonl(8);
		start = timebase();
		syscall(SYS_getppid);
		middle = timebase();
		done = syscall(SYS_rtas, &call);
		end = timebase();
		if (done || call.args[0])
			err(1, "sys_rtas(get-time-of-day) returned %ld, status %#x", done, ntohl(call.args[0]));
		if (i >= 0) {
			add(&getppid_row, middle - start);
			add(&rtas_row, end - middle);
		}
	}
	print(&getppid_row);
	print(&rtas_row);
}

/* bench/rtas-floor.c, in the kernel, makes the calls. */
static void measure_rtas_call(void)
{
	static struct row row = { .name = "rtas_call" };
	const char *name = "/sys/kernel/debug/rtas-floor";
	FILE *file = fopen(name, "r");
	unsigned long long ticks;

	if (!file)
		err(1, "%s", name);
	for (int i = -WARM_UP; fscanf(file, "%llu", &ticks) == 1; i++)
		if (i >= 0)
			add(&row, ticks);
	if (row.n != SAMPLES)
		errx(1, "%s has %d samples", name, row.n);
	fclose(file);
	print(&row);
}

enum { SEND_EVENT, SEND, RECEIVE_EVENT, RECEIVE, ROUND_TRIP, TRAFFIC };

/*
 * Messages on handles ONE and TWO. While the answer to ONE is announced and
 * unread, the answer to TWO is not announced; reading the former announces the
 * latter. So ONE's calls have an event inside and TWO's have none. If ONE and
 * TWO are the same handle, a second message is never queued behind the first
 * (which stops Linux 7.3's driver for good), so two rows are missing.
 */
static void traffic(int one, int two, int size, struct row *rows, struct row *rows_two)
{
	for (int i = -WARM_UP; i < SAMPLES; i++) {
		struct pollfd pollfd = { .fd = one, .events = POLLIN };
		uint64_t ticks[TRAFFIC] = { 0 }, start;

		MARK_IF(i, 1);
		ticks[SEND_EVENT] = send_message(one, size);
		if (one != two) {
			MARK_IF(i, 2);
			ticks[SEND] = send_message(two, size);
			MARK_IF(i, 3);
			ticks[RECEIVE_EVENT] = receive_message(one, size);
		}
		MARK_IF(i, 4);
		ticks[RECEIVE] = receive_message(two, size);
		MARK_IF(i, 5);

		start = timebase();
		if (write(one, buffer, HEADER + size) != HEADER + size || poll(&pollfd, 1, -1) != 1 ||
		    read(one, buffer, HEADER + (size > USUAL_PAYLOAD ? MAX_PAYLOAD : USUAL_PAYLOAD)) != HEADER + size)
			err(1, "round trip of %d bytes", size);
		ticks[ROUND_TRIP] = timebase() - start;
		MARK(0);

		for (int k = 0; i >= 0 && k < TRAFFIC; k++)
			if (one != two || (k != SEND && k != RECEIVE_EVENT))
				add(k == SEND || k == RECEIVE ? &rows_two[k] : &rows[k], ticks[k]);
	}
}

static void messages(int size)
{
	static struct row rows[] = {
		{ .name = "send-event" }, { .name = "send" },	    { .name = "receive-event" },
		{ .name = "receive" },	  { .name = "round-trip" },
	};
	int device = open_device();
	int one = must_create(device, HMC | 1), two = must_create(device, HMC | 2);

	traffic(one, two, size, rows, rows);
	for (int k = 0; k < TRAFFIC; k++)
		print(&rows[k]);
}

static struct hvpipe *must_open(uint32_t source)
{
	struct hvpipe *pipe = hvpipe_open(source);

	if (!pipe)
		err(1, "cannot open source 0x%08x", source);
	return pipe;
}

static uint64_t send_by_library(struct hvpipe *pipe, int size)
{
	uint64_t start = timebase();
	ssize_t done = hvpipe_send(pipe, buffer, size);
	uint64_t end = timebase();

	if (done != size)
		err(1, "hvpipe_send() of %d bytes returned %zd", size, done);
	return end - start;
}

static uint64_t receive_by_library(struct hvpipe *pipe, int size)
{
	uint64_t start = timebase();
	ssize_t done = hvpipe_recv(pipe, buffer, sizeof(buffer), 0);
	uint64_t end = timebase();

	if (done != size)
		err(1, "hvpipe_recv() of a message of %d bytes returned %zd", size, done);
	return end - start;
}

static uint64_t copy_payload(int size)
{
	static char other[MAX_PAYLOAD];
	uint64_t start = timebase();

	memcpy(other, buffer, size);
	asm volatile("" : : "r"(other) : "memory");
	return timebase() - start;
}

/*
 * What the library adds to a call: TWO's calls, which have no event inside (see
 * traffic()), bare and by the library in turn, and a copy of the payload.
 */
static void library(int size)
{
	static struct row rows[] = {
		{ .name = "send" }, { .name = "library-send" }, { .name = "receive" }, { .name = "library-receive" },
		{ .name = "copy" },
	};
	struct hvpipe *one = must_open(HVPIPE_SOURCE_HMC(1)), *two = must_open(HVPIPE_SOURCE_HMC(2));

	for (int i = -2 * WARM_UP; i < 2 * SAMPLES; i++) {
		bool by_library = i % 2;
		uint64_t sent, received, copied = copy_payload(size);

		send_message(hvpipe_get_fd(one), size);
		sent = by_library ? send_by_library(two, size) : send_message(hvpipe_get_fd(two), size);
		receive_message(hvpipe_get_fd(one), size);
		received = by_library ? receive_by_library(two, size) : receive_message(hvpipe_get_fd(two), size);
		if (i < 0)
			continue;
		add(&rows[by_library], sent);
		add(&rows[2 + by_library], received);
		add(&rows[4], copied);
	}
	for (int k = 0; k < 5; k++)
		print(&rows[k]);
}

/* Every source has a pending answer: receive the oldest, and send to its source again. */
static void busy(void)
{
	static struct row rows[] = { { .name = "receive" }, { .name = "send" } };
	int device = open_device(), fds[SOURCES];

	for (int i = 0; i < SOURCES; i++) {
		fds[i] = must_create(device, HMC | (i + 1));
		send_message(fds[i], 64);
	}
	for (int i = -WARM_UP; i < SAMPLES; i++) {
		int fd = fds[(i + WARM_UP) % SOURCES];
		uint64_t received = receive_message(fd, 64), sent = send_message(fd, 64);

		if (i >= 0) {
			add(&rows[0], received);
			add(&rows[1], sent);
		}
	}
	print(&rows[0]);
	print(&rows[1]);
}

/* The time when the other thread's write() began. */
static volatile uint64_t written;

struct sleeper {
	int fd;
	struct row *row;
};

static void *sleeper(void *arg)
{
	const struct sleeper *self = arg;
	struct pollfd pollfd = { .fd = self->fd, .events = POLLIN };

	for (int i = -WARM_UP; i < SAMPLES; i++) {
		uint64_t end;

		if (poll(&pollfd, 1, -1) != 1)
			err(1, "poll");
		end = timebase();
		MARK(0);
		if (i >= 0)
			add(self->row, end - written);
		receive_message(pollfd.fd, 64);
	}
	return NULL;
}

/*
 * ROW: from the begin of a write() to FD to the return of another thread's
 * poll(). That thread has a higher priority, so it sleeps at each write().
 */
static void wake_up(int fd, struct row *row)
{
	const struct sched_param param = { .sched_priority = 1 };
	static char message[HEADER + 64]; /* the other thread reads into buffer */
	struct sleeper other = { fd, row };
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
	pthread_attr_setschedparam(&attributes, &param);
	if (pthread_create(&thread, &attributes, sleeper, &other))
		errx(1, "cannot start a thread of real-time priority");

	for (int i = -WARM_UP; i < SAMPLES; i++) {
		MARK_IF(i, 6);
		written = timebase();
		if (write(fd, message, sizeof(message)) != sizeof(message))
			err(1, "write");
	}
	pthread_join(thread, NULL);
}

static void wakeup(void)
{
	static struct row row = { .name = "wakeup" };

	wake_up(must_create(open_device(), HMC | 1), &row);
	print(&row);
}

/* A program that reads each message late. */
static void *late_reader(void *arg)
{
	static char message[HEADER + MAX_PAYLOAD];
	struct pollfd pollfd = { .fd = *(int *)arg, .events = POLLIN };

	for (;;) {
		poll(&pollfd, 1, -1);
		sleep_ms(SLEEP_MS);
		if (read(pollfd.fd, message, sizeof(message)) < 0)
			err(1, "the late reader");
	}
	return NULL;
}

/*
 * How long a message waits, from its write() to the return of poll(), behind
 * MESSAGES of another source whose reader sleeps for SLEEP_MS before each. The
 * driver holds such a message after HOLD_MS, if that is not 0. With QEMU's
 * -icount sleep=off, virtual time skips to the next timer while the partition is
 * idle; without it the result would depend on the host's load.
 */
static void asleep(int hold_ms, int messages)
{
	static struct row row = { .name = "wait" };
	const char *name = "/sys/module/papr_hvpipe/parameters/hold_after_ms";
	int device = open_device(), parameter = open(name, O_WRONLY);
	int one = must_create(device, HMC | 1), two = must_create(device, HMC | 2);
	struct pollfd pollfd = { .fd = two, .events = POLLIN };
	pthread_t thread;
	uint64_t start;

	/* A driver without this parameter behaves as with 0. */
	if ((parameter >= 0 || hold_ms) && dprintf(parameter, "%d\n", hold_ms) < 0)
		err(1, "%s", name);
	if (pthread_create(&thread, NULL, late_reader, &one))
		errx(1, "cannot start a thread");

	for (int i = 0; i < SLEEPS; i++) {
		for (int k = 0; k < messages; k++)
			send_message(one, 64);
		start = timebase();
		send_message(two, 64);
		if (poll(&pollfd, 1, -1) != 1)
			err(1, "poll");
		add(&row, timebase() - start);
		receive_message(two, 64);
		sleep_ms((messages + 1) * SLEEP_MS); /* until the late reader has read its messages */
	}
	if (parameter >= 0)
		dprintf(parameter, "0\n");
	print(&row);
}

/* Close FD, a handle for SOURCE, and create it again: rows "close" and "create". */
static void close_and_create(int device, int fd, uint32_t source, struct row *rows)
{
	for (int i = -WARM_UP; i < SAMPLES; i++) {
		uint64_t start, middle, end;
		int again;

		MARK_IF(i, 8);
		start = timebase();
		close(fd);
		middle = timebase();
		MARK_IF(i, 9);
		again = create(device, source);
		end = timebase();
		MARK(0);
		if (again != fd)
			err(1, "cannot create a handle again");
		if (i >= 0) {
			add(&rows[0], middle - start);
			add(&rows[1], end - middle);
		}
	}
}

static void again(void)
{
	static struct row rows[] = { { .name = "close" }, { .name = "create" } };
	int device = open_device();

	close_and_create(device, must_create(device, HMC | 1), HMC | 1, rows);
	print(&rows[0]);
	print(&rows[1]);
}

static void allow_files(int count)
{
	const struct rlimit limit = { 70000, 70000 };

	if (setrlimit(RLIMIT_NOFILE, &limit))
		err(1, "cannot open %d files", count);
}

/*
 * What the kernel needs for any new file, here a signalfd: COUNT of them. As for
 * a handle, the kernel reads a word from the program and allocates some memory.
 */
static void files(int count)
{
	uint64_t start;
	sigset_t none;

	sigemptyset(&none);
	allow_files(count);
	settle();
	start = timebase();
	for (int i = 1; i <= count; i++)
		if (signalfd(-1, &none, 0) < 0)
			err(1, "cannot create file %d", i);
	print_average("new-file", timebase() - start, count);
}

/*
 * The source of the Ith handle of COUNT, from 1. The hypervisor answers for the
 * sources of the first and the last. The last but one has the highest index; of
 * 65536, index 0.
 */
static uint32_t source_of(int i, int count)
{
	return HMC | (i == 1 ? 1 : i == count ? 2 : (i + 1) & 0xffff);
}

/*
 * Create COUNT handles. With all of them open, send and receive 64 bytes by the
 * first and by the last handle, and close and create the one of the highest
 * index. Close all.
 */
static void handles(int count)
{
	static struct row rows[2][TRAFFIC + 1] = {
		{ { .name = "first-send-event" },
		  { .name = "first-send" },
		  { .name = "first-receive-event" },
		  { .name = "first-receive" },
		  { .name = "first-round-trip" },
		  { .name = "first-wakeup" } },
		{ { .name = "last-send-event" },
		  { .name = "last-send" },
		  { .name = "last-receive-event" },
		  { .name = "last-receive" },
		  { .name = "last-round-trip" },
		  { .name = "last-wakeup" } },
	};
	static struct row again_rows[] = { { .name = "close" }, { .name = "create" } };
	int device = open_device(), highest = count > 2 ? count - 1 : count;
	const int fds[] = { device + 1, device + count };
	uint64_t start, total;

	allow_files(count);
	settle();
	start = timebase();
	for (int i = 1; i <= count; i++)
		if (create(device, source_of(i, count)) != device + i)
			err(1, "cannot create handle %d", i);
	total = timebase() - start;
	print_average("create-all", total, count);

	for (int last = 0; last < (count > 1 ? 2 : 1); last++) {
		int other = count > 1 ? !last : last;

		traffic(fds[last], fds[other], 64, rows[last], rows[other]);
	}
	close_and_create(device, device + highest, source_of(highest, count), again_rows);
	/* Last, as glibc's calls cost more once there has been a thread. */
	for (int last = 0; last < (count > 1 ? 2 : 1); last++)
		wake_up(fds[last], &rows[last][TRAFFIC]);

	for (int last = 0; last < (count > 1 ? 2 : 1); last++)
		for (int k = 0; k <= TRAFFIC; k++)
			print(&rows[last][k]);
	print(&again_rows[0]);
	print(&again_rows[1]);

	settle();
	start = timebase();
	for (int i = 1; i <= count; i++)
		syscall(SYS_close, device + i);
	print_average("close-all", timebase() - start, count);
}

int main(int argc, char **argv)
{
	static struct row nothing;
	const char *what = argc > 1 ? argv[1] : "";
	int number = argc > 2 ? atoi(argv[2]) : 0;

	for (int i = -WARM_UP; i < SAMPLES; i++) {
		uint64_t start = timebase(), end = timebase();

		if (i >= 0)
			add(&nothing, end - start);
	}
	qsort(nothing.ticks, nothing.n, sizeof(nothing.ticks[0]), compare);
	timebase_cost = nothing.ticks[nothing.n / 2];

	if (!strcmp(what, "unit") && argc == 2)
		unit();
	else if (!strcmp(what, "floor") && argc == 2)
		measure_floor();
	else if (!strcmp(what, "rtas_call") && argc == 2)
		measure_rtas_call();
	else if (!strcmp(what, "messages") && argc == 3 && number >= 1 && number <= MAX_PAYLOAD)
		messages(number);
	else if (!strcmp(what, "library") && argc == 3 && number >= 1 && number <= USUAL_PAYLOAD)
		library(number);
	else if (!strcmp(what, "busy") && argc == 2)
		busy();
	else if (!strcmp(what, "wakeup") && argc == 2)
		wakeup();
	else if (!strcmp(what, "again") && argc == 2)
		again();
	else if (!strcmp(what, "handles") && argc == 3 && number >= 1 && number <= 65536)
		handles(number);
	else if (!strcmp(what, "files") && argc == 3 && number >= 1 && number <= 65536)
		files(number);
	else if (!strcmp(what, "asleep") && argc == 4 && atoi(argv[3]) >= 1)
		asleep(number, atoi(argv[3]));
	else
		errx(2, "usage: bench unit | floor | rtas_call | messages SIZE | library SIZE | busy | wakeup | "
			"again | handles COUNT | files COUNT | asleep MS MESSAGES");
	return 0;
}
