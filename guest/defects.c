// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a program meets of each defect of the driver that Linux ships.
 *
 *	defects NAME...
 *
 * Each NAME makes its calls on sources that answer each message with itself, and
 * prints what came of them on one line. lab/fixes.py knows which line means that
 * the defect is there and which that it is mended; it prepares the hypervisor.
 *
 * Programs of that driver's ABI: one buffer for header and payload, of 4096 bytes
 * at most, and no message of more than 4048.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "device.h"

#define SIZE	4096  /* the largest buffer that the driver takes */
#define COMES	60000 /* ms: what must come is waited for, however slow the machine is */
#define STAYS	3000  /* ms: what has not come by then has no cause to come */
#define MIGRATE "/sys/kernel/mobility/migration"

static size_t page_size;

static void fail(const char *what)
{
	printf("%s: %s", what, strerror(errno));
	exit(1);
}

static int open_hmc(int n)
{
	int fd = open_handle(HMC(n));

	if (fd < 0)
		fail("create");
	return fd;
}

/* Send @text and return the result's name. */
static const char *send_text(int fd, const char *text)
{
	char buffer[SIZE] = "";
	int size = HDR + strlen(text);

	memcpy(buffer + HDR, text, strlen(text));
	if (write(fd, buffer, size) == size)
		return "sent";
	return strerrorname_np(errno);
}

static void must_send(int fd, const char *text)
{
	if (strcmp(send_text(fd, text), "sent"))
		fail("write");
}

/* Read into @buffer of @size and say what it was. */
static const char *read_into(int fd, char *buffer, int size)
{
	static __thread char said[HDR + SIZE];
	int n = read(fd, buffer, size);

	if (n < 0)
		return strerrorname_np(errno);
	if (!n)
		return "nothing";
	if (n == HDR)
		return buffer[4] == 2 ? "loss" : "header";
	snprintf(said, sizeof(said), "'%.*s'", n - HDR, buffer + HDR);
	return said;
}

static const char *read_text(int fd)
{
	char buffer[SIZE];

	return read_into(fd, buffer, sizeof(buffer));
}

static int events(int fd, int timeout)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN | POLLRDHUP };

	return poll(&pollfd, 1, timeout) < 0 ? -1 : pollfd.revents;
}

/* Read the next message, which comes unless the pipe is stuck. */
static const char *next_text(int fd)
{
	return events(fd, STAYS) ? read_text(fd) : "silence";
}

/* Two sources: @one's message is announced. */
static void announce(int *one, int *two, const char *text)
{
	*one = open_hmc(1);
	*two = open_hmc(2);
	must_send(*one, text);
	if (!(events(*one, COMES) & POLLIN))
		fail("poll");
}

static void sleep_ms(int ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000L }, NULL);
}

/*
 * Another thread, which makes one call
 */

struct call {
	const char *(*function)(struct call *call);
	int fd, size, tid;
	char *buffer;
	char result[SIZE];
	volatile int ended;
	pthread_t thread;
};

static void *call_thread(void *argument)
{
	struct call *call = argument;

	__atomic_store_n(&call->tid, gettid(), __ATOMIC_RELEASE);
	snprintf(call->result, sizeof(call->result), "%s", call->function(call));
	call->ended = 1;
	return NULL;
}

static void start(struct call *call)
{
	if (pthread_create(&call->thread, NULL, call_thread, call))
		fail("pthread_create");
	while (!__atomic_load_n(&call->tid, __ATOMIC_ACQUIRE))
		sched_yield();
}

/* Read a line that /proc has of the thread. */
static void read_proc(struct call *call, const char *file, char *line, size_t size)
{
	char name[64];
	ssize_t len;
	int fd;

	snprintf(name, sizeof(name), "/proc/self/task/%d/%s", call->tid, file);
	fd = open(name, O_RDONLY);
	len = read(fd, line, size - 1);
	line[len < 0 ? 0 : len] = 0;
	close(fd);
}

/*
 * Wait until the thread is in the system call @number and in @state: D, where it cannot be interrupted, or S, asleep.
 * Returns 0 if it ended.
 */
static int wait_state(struct call *call, long number, char state)
{
	char line[256], *rest;

	while (!call->ended) {
		read_proc(call, "syscall", line, sizeof(line));
		if (strtol(line, &rest, 10) == number && rest != line) {
			read_proc(call, "stat", line, sizeof(line));
			if (strstr(line, ") ") && strstr(line, ") ")[2] == state)
				return 1;
		}
		sched_yield();
	}
	return 0;
}

static const char *wait_ended(struct call *call, int ms)
{
	for (; !call->ended && ms > 0; ms -= 10)
		sleep_ms(10);
	return call->ended ? call->result : "no end";
}

static const char *call_read(struct call *call)
{
	return read_into(call->fd, call->buffer, call->size);
}

static const char *call_write(struct call *call)
{
	return write(call->fd, call->buffer, call->size) == call->size ? "sent" : strerrorname_np(errno);
}

static const char *call_poll(struct call *call)
{
	struct pollfd pollfd = { .fd = call->fd, .events = POLLIN | POLLRDHUP };

	poll(&pollfd, 1, -1);
	return pollfd.revents & POLLRDHUP ? "RDHUP" : "IN";
}

/*
 * Memory whose first access waits for fill()
 */

static char *slow_memory(int *uffd)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	char *memory = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	*uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	range.range.start = (uintptr_t)memory;
	range.range.len = page_size;
	if (*uffd < 0 || ioctl(*uffd, UFFDIO_API, &api) || ioctl(*uffd, UFFDIO_REGISTER, &range))
		fail("userfaultfd");
	return memory;
}

static void wait_fault(int uffd)
{
	struct uffd_msg message;

	if (read(uffd, &message, sizeof(message)) != sizeof(message))
		fail("userfaultfd read");
}

static void fill(int uffd, char *memory)
{
	char *content = aligned_alloc(page_size, page_size);
	struct uffdio_copy copy = { .dst = (uintptr_t)memory, .src = (uintptr_t)content, .len = page_size };

	memset(content, 'w', page_size);
	if (ioctl(uffd, UFFDIO_COPY, &copy))
		fail("UFFDIO_COPY");
	free(content);
}

/* Two pages, the second of which cannot be accessed. Returns the second. */
static char *forbidden_memory(void)
{
	char *memory = mmap(NULL, 2 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(memory + page_size, page_size, PROT_NONE);
	return memory + page_size;
}

/*
 * Other ways to the pipe, which root has
 */

static int enable_pipe(int on)
{
	struct {
		uint32_t parameter;
		uint16_t length;
		char data[4000];
	} block = { 64, 1, { on } };
	int fd = open("/dev/papr-sysparm", O_RDWR), ret = ioctl(fd, _IOW(0xb2, 2, block), &block);

	close(fd);
	return ret;
}

static const char *sys_rtas(const char *name, uint32_t first, uint32_t second, int nret, uint32_t *rets)
{
	struct {
		uint32_t token, nargs, nret, args[16];
		uint64_t rets;
	} call = { .nargs = htobe32(2), .nret = htobe32(nret), .args = { htobe32(first), htobe32(second) } };
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/proc/device-tree/rtas/%s", name);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, &call.token, 4) != 4)
		fail(path);
	close(fd);
	if (syscall(SYS_rtas, &call))
		return strerrorname_np(errno);
	for (int i = 0; i < nret; i++)
		rets[i] = be32toh(call.args[2 + i]);
	return NULL;
}

/* Begin a migration, in a process of its own: it ends when the lab lets the partition resume. */
static void begin_migration(void)
{
	int fd;

	if (fork())
		return;
	fd = open("/dev/null", O_RDWR);
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	fd = open(MIGRATE, O_WRONLY);
	_exit(write(fd, "1", 1) < 0);
}

/*
 * The defects
 */

static void lost_event(void)
{
	int one = open_hmc(1), two = open_hmc(2);

	must_send(one, "a");
	must_send(one, "b");
	printf("%s", next_text(one));
	printf(", then %s", next_text(one));
	must_send(two, "c");
	printf(", other source %s", next_text(two));
}

static void overlap(void)
{
	struct call reader = { .function = call_read, .buffer = malloc(SIZE), .size = SIZE };
	int one, two;

	announce(&one, &two, "a");
	reader.fd = one;
	start(&reader);
	wait_state(&reader, SYS_read, 'D'); /* firmware is busy with its call */
	printf("second reader %s", read_text(one));
	printf(", first reader %s", wait_ended(&reader, COMES));
}

static void epoll(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	int one, two, set = epoll_create1(0);

	announce(&one, &two, "a");
	epoll_ctl(set, EPOLL_CTL_ADD, one, &event);
	printf("epoll %d", epoll_wait(set, &event, 1, COMES));
	printf(" for %s", read_text(one));
	epoll_wait(set, &event, 1, 0); /* nothing is there: from now on it is to be woken */
	must_send(one, "b");
	printf(", poll %d", !!events(one, COMES));
	printf(" epoll %d", epoll_wait(set, &event, 1, 0));
	printf(" for %s", read_text(one));
}

static void header(void)
{
	char buffer[SIZE];
	int one, two;

	announce(&one, &two, "a");
	memset(buffer, 0x55, sizeof(buffer));
	printf("%s", read_into(one, buffer, sizeof(buffer)));
	printf(", buffer %s", buffer[4] == 0x55 ? "untouched" : "written");
	printf(", then %s", read_text(one));
}

static void fault(void)
{
	int one, two;

	announce(&one, &two, "a");
	printf("%s", read_into(one, forbidden_memory() - HDR, SIZE));
	printf(", then %s", read_text(one));
}

static void cut(void)
{
	char buffer[SIZE];
	int one, two;

	announce(&one, &two, "hello");
	printf("%s", read_into(one, buffer, HDR + 2));
	printf(", then %s", read_text(one));
}

static void crossed(void)
{
	struct call reader = { .function = call_read, .size = SIZE };
	int one, two, uffd;

	announce(&one, &two, "a");
	reader.buffer = slow_memory(&uffd);
	reader.fd = one;
	start(&reader);
	wait_fault(uffd);
	/* The first reader has seen that a message is there, or has it already. */
	printf("second reader %s", read_text(one));
	must_send(two, "b");
	events(two, COMES);
	fill(uffd, reader.buffer);
	printf(", first reader %s", wait_ended(&reader, COMES));
	printf(", other source's reader %s", read_text(two));
}

static void both_bits(void)
{
	int one, two;

	announce(&one, &two, "a");
	printf("%s", read_text(one));
	printf(", then %s", read_text(one));
	must_send(two, "b");
	printf(", other source %s", next_text(two));
}

static void bad_address(void)
{
	int one = open_hmc(1);

	printf("%s", write(one, forbidden_memory() - HDR, HDR + 1) < 0 ? strerrorname_np(errno) : "sent");
}

static void through_sys_rtas(void)
{
	unsigned int rmo = 0;
	uint32_t rets[3];
	FILE *file = fopen("/proc/powerpc/rtas/rmo_buffer", "r");
	const char *refused;
	int one, two;

	if (!file || fscanf(file, "%x", &rmo) != 1)
		fail("rmo_buffer");
	fclose(file);
	announce(&one, &two, "a");
	refused = sys_rtas("ibm,receive-hvpipe-msg", rmo, SIZE, 3, rets);
	printf("receive %s", refused ? refused : "passed");
	printf(", then %s", read_text(one));
	refused = sys_rtas("ibm,send-hvpipe-msg", HMC(1), rmo, 1, rets);
	printf(", send %s", refused ? refused : "passed");
}

static void drain(void)
{
	int one, two;

	announce(&one, &two, "a");
	close(one);
	must_send(two, "b");
	printf("other source %s", next_text(two));
}

static void slow_writer(void)
{
	struct call slow = { .function = call_write, .size = HDR + 1 };
	struct call other = { .function = call_write, .size = HDR + 1, .buffer = calloc(1, SIZE) };
	int uffd;

	slow.fd = open_hmc(1);
	slow.buffer = slow_memory(&uffd);
	other.fd = open_hmc(2);
	start(&slow);
	wait_fault(uffd);
	start(&other);
	printf("other source's writer %s", wait_ended(&other, STAYS));
	fill(uffd, slow.buffer);
	printf(", in the end %s", wait_ended(&other, COMES));
	printf(", slow writer %s", wait_ended(&slow, COMES));
}

static void in_flight(void)
{
	struct call writer = { .function = call_write, .size = HDR + 1, .buffer = calloc(1, SIZE) };

	writer.fd = open_hmc(1);
	start(&writer);
	wait_state(&writer, SYS_write, 'D'); /* firmware is busy with its call */
	begin_migration();
	printf("write %s", wait_ended(&writer, COMES));
}

static void pollers(void)
{
	struct call poller = { .function = call_poll };

	poller.fd = open_hmc(1);
	start(&poller);
	wait_state(&poller, SYS_poll, 'S');
	begin_migration();
	while (!(events(poller.fd, 0) & POLLRDHUP))
		sched_yield();
	printf("the pipe is off, poller %s", wait_ended(&poller, STAYS));
	fflush(stdout);
	_exit(0);
}

/* Have a message announced to hmc1, begin a migration, and see what is there afterwards. */
static void over_migration(int announced)
{
	int one, two, ms;

	if (announced) {
		announce(&one, &two, "a");
	} else {
		one = open_hmc(1);
		two = open_hmc(2);
	}
	begin_migration();
	while (!(events(one, 0) & POLLRDHUP))
		sched_yield();
	wait(NULL);
	if (announced) {
		printf("poll %d", !!(events(one, 0) & POLLIN));
		printf(" read %s", read_text(one));
		printf(" read %s", read_text(one));
		return;
	}
	for (ms = STAYS; strcmp(send_text(two, "b"), "sent") && ms; ms -= 10)
		sleep_ms(10);
	printf("write %s", ms ? "sent" : strerrorname_np(errno));
}

static void new_pipe(void)
{
	over_migration(1);
}

static void enable(void)
{
	over_migration(0);
}

/* Leave a message announced and unread until the partition goes away. */
static void leave(void)
{
	int one, two;

	announce(&one, &two, "a");
	printf("announced");
	fflush(stdout);
	if (!fork())
		pause();
}

static void works(void)
{
	int two = open_hmc(2);

	must_send(two, "b");
	printf("other source %s", next_text(two));
}

static void source_type(void)
{
	const uint32_t ids[] = { 0x03000001, 0x02010001, 0xffffffff };

	for (int i = 0; i < 3; i++)
		printf("%s%#x %s", i ? ", " : "", ids[i], open_handle(ids[i]) < 0 ? strerrorname_np(errno) : "created");
}

static void unknown_ioctl(void)
{
	int dev = open(DEVICE, O_RDWR), source = 0;

	printf("NULL %s", ioctl(dev, _IO(0xb2, 99), NULL) ? strerrorname_np(errno) : "taken");
	printf(", pointer %s", ioctl(dev, _IO(0xb2, 99), &source) ? strerrorname_np(errno) : "taken");
}

/* Enable the pipe behind the driver's back. This is also the way out where the pipe is stuck. */
static void reset(void)
{
	printf("%s", enable_pipe(0) || enable_pipe(1) ? strerrorname_np(errno) : "enabled");
}

static const struct {
	const char *name;
	void (*function)(void);
} defects[] = {
	{ "lost-event", lost_event },
	{ "overlap", overlap },
	{ "epoll", epoll },
	{ "header", header },
	{ "fault", fault },
	{ "short", cut },
	{ "crossed", crossed },
	{ "both-bits", both_bits },
	{ "bad-address", bad_address },
	{ "sys-rtas", through_sys_rtas },
	{ "drain", drain },
	{ "slow-writer", slow_writer },
	{ "in-flight", in_flight },
	{ "pollers", pollers },
	{ "enable", enable },
	{ "new-pipe", new_pipe },
	{ "leave", leave },
	{ "works", works },
	{ "source-type", source_type },
	{ "unknown-ioctl", unknown_ioctl },
	{ "reset", reset },
};

int main(int argc, char **argv)
{
	page_size = sysconf(_SC_PAGESIZE);
	for (int i = 1; i < argc; i++) {
		for (size_t d = 0; d < sizeof(defects) / sizeof(*defects); d++) {
			if (!strcmp(argv[i], defects[d].name))
				defects[d].function();
		}
	}
	fflush(stdout);
	_exit(0); /* not waiting for threads that wait */
}
