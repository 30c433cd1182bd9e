// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Do everything at once that programs can do to the pipe, and account for each message.
 *
 *	race SEED OPERATIONS SUSPENDS DROPPED
 *
 * Processes are killed at random. Each has a thread that writes and two that read, poll, close, duplicate and pass
 * handles, until OPERATIONS are done. The partition suspends itself SUSPENDS times. Sources 1 to 3 answer each message
 * with itself. Source 4 keeps sending numbered messages, and sends the last one when it has received a message that
 * ends in "ready". The driver had dropped DROPPED messages before.
 *
 * A message consists of the CRC-32 of the rest, its source, a letter, its number, and filling. Its state is in memory
 * that all processes share, with the time of each step on a counter. At the end every message that was sent for sure
 * has been read once by a handle of its source, or was dropped by the driver, and messages were read in the order in
 * which they were sent. A handle of each source works both ways, and none is left open.
 *
 * Source 3 is for sleepers: its messages are read only by threads of processes that are not killed, each after a poll
 * without timeout. Other threads disturb these by reads that fail, but only once between two messages, and the
 * partition suspends itself only after a message. So nothing makes up for a lost wake-up: everything but the sleepers
 * ends, and they print the state of all handles after WAKE_TIMEOUT.
 *
 * The number of a file descriptor tells its source, so that a thread that uses one while another thread closes and
 * reopens it cannot mistake the source. A message that a process was reading when it was killed is in shared memory,
 * too, and is taken from there.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "device.h"

#define SOURCES	      4
#define FLOOD	      0 /* index of source 4's own messages; 1..4: of messages sent to that source */
#define PROCESSES     6
#define SLEEPING      2	 /* how many are never killed: the first ones */
#define SLEEPERS      3	 /* the source that these sleep for */
#define WAKE_TIMEOUT  60 /* seconds without a message for any sleeper: a wake-up was lost */
#define READERS	      2	 /* reading threads of a process */
#define FDS	      3	 /* file descriptors of each source in a process, for all its threads */
#define FD(source, n) ((int)(100 + (source) * (FDS + 3) + (n)))
#define WRITERS	      FDS	/* one more, for the writer alone */
#define ASLEEP	      (FDS + 1) /* and one of source 3 for each sleeping thread */
#define MESSAGES      200000	/* that can be accounted for, of each source */
#define KILL_EVERY    150	/* operations */

struct message {
	uint32_t sending, sent; /* when; 0: not, or not for sure */
	uint32_t reading, read;
};

struct slot {			   /* what a thread is reading or waiting for */
	volatile uint32_t reading; /* since when, 0: not */
	uint32_t source;
	uint32_t flags;		/* the header's */
	volatile time_t asleep; /* since when, 0: not */
	char header[HDR], data[MAX + 1];
};

struct shared {
	volatile uint32_t clock, operations, failed, kills, wrong;
	volatile uint32_t next[SOURCES + 1]; /* the number of the next message */
	volatile uint32_t last[SOURCES + 1]; /* and of the last one, when that was sent */
	volatile pid_t pid[PROCESSES];
	struct slot slot[PROCESSES][READERS];
	volatile uint32_t woken;     /* messages that sleepers have read */
	volatile uint32_t disturbed; /* one more than woken at the last disturbance */
	struct message message[SOURCES + 1][MESSAGES];
};

static struct shared *shared;
static uint32_t limit, suspends;
static uint64_t seed;
static int dev, post[2];      /* the device; sockets that handles are passed through */
static char *nowhere;	      /* a page that cannot be touched */
static volatile int writing;  /* true while this process writes */
static volatile int sleeping; /* threads of this process that sleep for source 3 */
static uint32_t only;	      /* the only source that this process uses, 0: all */
static __thread uint64_t dice;

static uint32_t roll(uint32_t n)
{
	dice = dice * 6364136223846793005u + 1442695040888963407u;
	return (dice >> 33) % n;
}

static uint32_t now(void)
{
	return __atomic_add_fetch(&shared->clock, 1, __ATOMIC_SEQ_CST);
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	printf("race: ");
	vprintf(format, list);
	va_end(list);
	printf("\n");
	fflush(stdout);
	shared->failed = 1;
	_exit(1);
}

static uint32_t crc32(const char *data, size_t len)
{
	static uint32_t table[256];
	uint32_t crc = ~0u;

	if (!table[1]) {
		for (uint32_t i = 256; i-- > 1;) {
			uint32_t c = i;

			for (int bit = 0; bit < 8; bit++)
				c = c >> 1 ^ (c & 1 ? 0xedb88320 : 0);
			table[i] = c;
		}
	}
	while (len--)
		crc = crc >> 8 ^ table[(crc ^ *data++) & 0xff];
	return ~crc;
}

/* Account for the message in the slot. Can be repeated if the thread is killed in here. */
static void take(struct slot *slot, uint32_t len)
{
	uint32_t crc, source, number, none = 0;
	struct message *message;
	char kind;

	if (slot->flags != 1)
		fail("a message from source %u with flags %#x", slot->source, slot->flags);
	slot->data[len] = 0;
	if (sscanf(slot->data, "%8x %8x %c %8u ", &crc, &source, &kind, &number) != 4 ||
	    crc != crc32(slot->data + 8, len - 8))
		fail("an invalid message from source %u, %u bytes: %.60s", slot->source, len, slot->data);
	if (source != slot->source)
		fail("a handle of source %u read a message from source %u: %.60s", slot->source, source, slot->data);
	if (number >= MESSAGES)
		fail("too many messages to account");
	message = &shared->message[kind == 'E' ? source : FLOOD][number];
	if (kind == 'E' ? !message->sending : source != 4)
		fail("a message that was never sent, from source %u: %.60s", source, slot->data);
	if (kind != 'E')
		message->sending = message->sent = number + 1;
	if (!__atomic_compare_exchange_n(&message->reading, &none, slot->reading, 0, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST) &&
	    none != slot->reading)
		fail("read twice, from source %u: %.60s", source, slot->data);
	message->read = now();
	if (kind == 'L')
		shared->next[FLOOD] = number + 1;
}

/* Take the message that a killed thread was reading. */
static void recover(struct slot *slot)
{
	if (slot->reading && slot->flags)
		take(slot, strlen(slot->data));
	slot->reading = 0;
}

/* Read a message. Returns its length, 0 if there was none, or -1 and errno. */
static ssize_t read_message(struct slot *slot, int fd, uint32_t source)
{
	struct iovec iov[] = {
		{ slot->header, 4 },
		{ &slot->flags, 4 },
		{ slot->header + 8, HDR - 8 },
		{ slot->data, MAX },
	};
	ssize_t len;

	/* Zeros after the message, as recover() finds its length by them. */
	memset(slot->data, 0, sizeof(slot->data));
	slot->flags = 0;
	slot->source = source;
	slot->reading = now();
	len = readv(fd, iov, 4);
	if (len > 0) {
		if (len < HDR)
			fail("a read of %zd bytes", len);
		take(slot, len -= HDR);
	}
	slot->reading = 0;
	return len;
}

/* Send a message that ends in @end. Returns 0, or -1 and errno. */
static int send_message(int fd, uint32_t source, const char *end)
{
	uint32_t number = __atomic_fetch_add(&shared->next[source], 1, __ATOMIC_SEQ_CST);
	uint32_t len = roll(8) ? 40 + roll(100) : 40 + roll(send_limit() - 39);
	static __thread char buffer[HDR + MAX + 1];
	char *data = buffer + HDR;
	struct message *message;
	time_t begun;

	if (number >= MESSAGES)
		fail("too many messages to account");
	message = &shared->message[source][number];
	memset(data, 'a' + number % 26, len);
	memcpy(data + len - strlen(end), end, strlen(end));
	sprintf(data + 8, " %08x E %08u", source, number);
	data[8 + 20] = ' ';
	sprintf(buffer, "%08x", crc32(data + 8, len - 8));
	memcpy(data, buffer, 8);
	message->sending = now();
	begun = time(NULL);
	if (write(fd, buffer, HDR + len) == (ssize_t)(HDR + len)) {
		message->sent = now();
		return 0;
	}
	/* A suspension that waited ten seconds for this call has given it up, so it may have been sent. */
	if (errno == EBADF || (errno == ENXIO && time(NULL) - begun < 5))
		message->sending = 0;
	else if (errno != ENXIO)
		fail("a write to source %u: %s", source, strerror(errno));
	return -1;
}

static void create(uint32_t source)
{
	uint32_t id = 0x02000000 | (only ? only : source);
	int fd = ioctl(dev, CREATE_HANDLE, &id);

	source = id & 0xff;
	if (fd < 0) {
		if (errno != EALREADY && errno != ENXIO)
			fail("creating a handle of source %u: %s", source, strerror(errno));
		return;
	}
	dup2(fd, FD(source, roll(FDS)));
	close(fd);
}

/* Send a handle to any process, and take one. */
static void pass(int fd, uint32_t source)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &source, sizeof(source) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	if (fd >= 0)
		sendmsg(post[0], &msg, MSG_DONTWAIT);

	msg.msg_controllen = sizeof(control);
	if (recvmsg(post[1], &msg, MSG_DONTWAIT) == sizeof(source) && CMSG_FIRSTHDR(&msg)) {
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
		if (!only || source == only)
			dup2(fd, FD(source, roll(FDS)));
		close(fd);
	}
}

/* Returns an open one of @count file descriptors of any source, or -1. */
static int choose(uint32_t *source, uint32_t count)
{
	uint32_t first = roll(SOURCES * count);

	for (uint32_t i = 0; i < SOURCES * count; i++) {
		uint32_t n = (first + i) % (SOURCES * count);

		*source = 1 + n % SOURCES;
		if (fcntl(FD(*source, n / SOURCES), F_GETFD) >= 0)
			return FD(*source, n / SOURCES);
	}
	/* Other processes may have all handles. */
	create(1 + roll(SOURCES));
	pass(-1, 0);
	return -1;
}

/* True if the read may have failed: the pipe was off, or an injected fault struck. */
static int may_fail(void)
{
	return errno == EBADF || errno == ENXIO || errno == ENOMEM || errno == EIO;
}

/* A read that fails as its buffer is too short or not mapped. */
static void read_wrong(int fd, int fault)
{
	struct iovec iov[] = { { nowhere, HDR }, { nowhere, fault ? MAX : 0 } };

	errno = 0;
	if (readv(fd, iov, 2) > 0)
		fail("a read into nowhere succeeded");
	if (errno == EMSGSIZE || errno == EFAULT)
		__atomic_fetch_add(&shared->wrong, 1, __ATOMIC_SEQ_CST);
}

/* Returns the number of events, 0 after @timeout. */
static int wait_for_events(int fd, int timeout)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP };
	struct pollfd pollfd = { .fd = fd, .events = POLLIN | POLLRDHUP };
	int ep, n;

	if (roll(2))
		return poll(&pollfd, 1, timeout);
	ep = epoll_create1(EPOLL_CLOEXEC);
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event);
	n = epoll_wait(ep, &event, 1, timeout);
	if (roll(2))
		epoll_ctl(ep, EPOLL_CTL_DEL, fd, &event);
	close(ep);
	return n;
}

static void read_fdinfo(int fd)
{
	char name[40], text[512];

	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (read(fd, text, sizeof(text)) < 0 && errno != EBADF && errno != ENOENT)
		fail("%s: %s", name, strerror(errno));
	close(fd);
}

/* Count @done operations. Returns true if there are more to do. */
static int more(int done)
{
	uint32_t n = __atomic_add_fetch(&shared->operations, done, __ATOMIC_SEQ_CST);
	pid_t pid;

	if (done && n % KILL_EVERY == 0) {
		pid = shared->pid[SLEEPING + roll(PROCESSES - SLEEPING)];
		if (pid > 0 && !kill(pid, SIGKILL))
			__atomic_fetch_add(&shared->kills, 1, __ATOMIC_SEQ_CST);
	}
	return n < limit && !shared->failed;
}

/* Suspend the partition, each time after a message has woken a sleeper, as a suspension wakes all. */
static void *suspender(void *arg)
{
	int fd = open("/sys/kernel/mobility/migration", O_WRONLY | O_CLOEXEC);
	uint32_t woken;

	for (uint32_t i = 1; i <= suspends; i++) {
		while (more(0) && shared->operations < limit / (suspends + 1) * i)
			usleep(1000);
		woken = shared->woken;
		while (more(0) && shared->woken == woken)
			usleep(1000);
		if (more(0) && write(fd, "1", 1) != 1)
			fail("suspending: %s", strerror(errno));
	}
	close(fd);
	return arg;
}

/* True if sleepers may be disturbed: a message is pending, and none was disturbed since the last message. */
static int may_disturb(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	uint32_t woken = shared->woken;

	return poll(&pollfd, 1, 0) > 0 && pollfd.revents & POLLIN &&
	       __atomic_exchange_n(&shared->disturbed, woken + 1, __ATOMIC_SEQ_CST) != woken + 1;
}

static void *reader(void *arg)
{
	struct slot *slot = arg;
	uint32_t source;
	int fd = -1;

	dice = seed + now();
	while (more(fd >= 0) || writing) {
		fd = choose(&source, FDS + 1);
		if (fd < 0)
			continue;
		switch (roll(32)) {
		case 0:
			create(1 + roll(SOURCES));
			break;
		case 1:
			if (fd != FD(source, WRITERS))
				close(fd);
			break;
		case 2:
			dup2(fd, FD(source, roll(FDS)));
			break;
		case 3:
			pass(fd, source);
			break;
		case 4:
		case 5:
			wait_for_events(fd, roll(10));
			break;
		case 6:
			read_fdinfo(fd);
			break;
		case 7:
		case 8:
			if (source != SLEEPERS || may_disturb(fd))
				read_wrong(fd, roll(4) == 0);
			break;
		case 9:
			/* Another process has all handles for a moment. */
			if (roll(8) == 0 && fork() == 0)
				_exit(0);
			break;
		default:
			if (source == SLEEPERS) {
				if (may_disturb(fd))
					read_wrong(fd, 0);
			} else if (read_message(slot, fd, source) < 0 && !may_fail()) {
				fail("a read from source %u: %s", source, strerror(errno));
			}
		}
	}
	return NULL;
}

/* No sleeper was woken for long: print the state of all handles. */
static void stuck(void)
{
	char name[40], text[512];
	struct slot *slot;
	ssize_t len;
	int fd;

	printf("race: no sleeper read a message for %d s, %u did before\n", WAKE_TIMEOUT, shared->woken);
	for (int i = 0; i < PROCESSES; i++) {
		for (int n = FD(1, 0); n < FD(SOURCES + 1, 0); n++) {
			snprintf(name, sizeof(name), "/proc/%d/fdinfo/%d", shared->pid[i], n);
			fd = open(name, O_RDONLY | O_CLOEXEC);
			len = read(fd, text, sizeof(text) - 1);
			if (len > 0) {
				text[len] = 0;
				printf("%s\n%s", name, text);
			}
			close(fd);
		}
		for (int j = 0; j < READERS; j++) {
			slot = &shared->slot[i][j];
			printf("process %d, thread %d: ", i, j);
			if (slot->asleep)
				printf("asleep for %ld s\n", (long)(time(NULL) - slot->asleep));
			else
				printf(slot->reading ? "reading source %u\n" : "neither asleep nor reading\n",
				       slot->source);
		}
	}
	fail("a wake-up was lost");
}

/* Sleep until a message from source 3 is pending, and read it. */
static void *sleeper(void *arg)
{
	struct slot *slot = arg;
	const int mine = FD(SLEEPERS, ASLEEP + (slot - shared->slot[0]) % READERS);
	uint32_t woken;

	dice = seed + now();
	while (more(0) || writing) {
		/* This process keeps a handle, so that its writer can always write to source 3. */
		if (dup2(FD(SLEEPERS, roll(FDS)), mine) < 0 && fcntl(mine, F_GETFD) < 0) {
			create(SLEEPERS);
			pass(-1, 0);
			continue;
		}
		if (roll(4) == 0)
			pass(mine, SLEEPERS);
		woken = shared->woken;
		slot->asleep = time(NULL);
		wait_for_events(mine, WAKE_TIMEOUT * 1000);
		if (time(NULL) - slot->asleep >= WAKE_TIMEOUT && shared->woken == woken)
			stuck();
		slot->asleep = 0;
		switch (read_message(slot, mine, SLEEPERS)) {
		case -1:
			if (!may_fail())
				fail("a read from source %u: %s", SLEEPERS, strerror(errno));
			break;
		case 0:
			break;
		default:
			__atomic_fetch_add(&shared->woken, 1, __ATOMIC_SEQ_CST);
		}
	}
	close(mine);
	__atomic_fetch_sub(&sleeping, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Wake the sleepers of this process by messages, so that they see the end. */
static void end_sleep(void)
{
	uint32_t number = 0;
	int sent = 0;

	while (sleeping && !shared->failed) {
		if (sent && !shared->message[SLEEPERS][number].read) {
			usleep(1000);
			continue;
		}
		number = shared->next[SLEEPERS];
		sent = !send_message(FD(SLEEPERS, roll(FDS)), SLEEPERS, "");
	}
	if (shared->failed)
		_exit(1);
}

static void writer(void)
{
	uint32_t source;
	int fd = -1;

	dice = seed + now();
	while (more(fd >= 0)) {
		fd = choose(&source, FDS);
		if (fd < 0)
			continue;
		switch (roll(16)) {
		case 0:
		case 1:
			create(1 + roll(SOURCES));
			break;
		case 2:
			if (write(fd, nowhere, HDR + 1 + roll(MAX)) != -1 ||
			    (errno != EFAULT && errno != EBADF && errno != ENXIO))
				fail("a write from nowhere: %s", strerror(errno));
			break;
		default:
			/*
			 * A write that waits must not hold up other threads that use the handle: the source may wait
			 * until the partition receives.
			 */
			fd = dup2(fd, FD(source, WRITERS));
			if (fd >= 0)
				send_message(fd, source, "");
			close(fd);
		}
	}
}

static pid_t start(int process)
{
	pthread_t readers[READERS], suspending;
	pid_t pid = fork();

	if (pid < 0)
		fail("fork: %s", strerror(errno));
	if (pid)
		return pid;

	signal(SIGCHLD, SIG_IGN);
	writing = 1;
	sleeping = process < SLEEPING ? READERS : 0;
	only = process < SLEEPING ? SLEEPERS : 0;
	for (int i = 0; i < READERS; i++)
		pthread_create(&readers[i], NULL, process < SLEEPING ? sleeper : reader, &shared->slot[process][i]);
	if (process == 0)
		pthread_create(&suspending, NULL, suspender, NULL);
	writer();
	if (process == 0)
		pthread_join(suspending, NULL);
	writing = 0;
	end_sleep();
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	_exit(0);
}

/* Run the processes, and replace those that are killed. */
static void run(void)
{
	siginfo_t info;
	int status;

	for (int i = 0; i < PROCESSES; i++)
		shared->pid[i] = start(i);
	while (!waitid(P_ALL, 0, &info, WEXITED | WNOWAIT)) {
		/* Not reaped before nothing can kill it any more, as its PID could be reused. */
		for (int i = 0; i < PROCESSES; i++) {
			if (shared->pid[i] != info.si_pid)
				continue;
			shared->pid[i] = 0;
			for (int j = 0; j < READERS; j++)
				recover(&shared->slot[i][j]);
			if (info.si_code != CLD_EXITED && info.si_status != SIGKILL)
				fail("a process ended with signal %d", info.si_status);
			if (info.si_code != CLD_EXITED && shared->operations < limit && !shared->failed)
				shared->pid[i] = start(i);
		}
		for (int i = 0; i < PROCESSES; i++)
			if (shared->failed && shared->pid[i] > 0)
				kill(shared->pid[i], SIGKILL);
		waitpid(info.si_pid, &status, 0);
	}
	if (shared->failed)
		_exit(1);
}

/* A number in the device's fdinfo. */
static unsigned long fdinfo_number(const char *what)
{
	char name[40], text[512] = "";
	const char *line;
	int fd;

	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", dev);
	fd = open(name, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		fail("%s: %s", name, strerror(errno));
	close(fd);
	line = strstr(text, what);
	if (!line)
		fail("%s: no %s", name, what);
	return strtoul(line + strlen(what), NULL, 10);
}

static void wait_closed(void)
{
	for (int i = 0; fdinfo_number("\nhandles:"); i++) {
		if (i == 1000)
			fail("%lu handles are left open", fdinfo_number("\nhandles:"));
		usleep(10000);
	}
}

/* True if the last message to each source has come back, and source 4's last message has come. */
static int proven(void)
{
	for (uint32_t source = 1; source < SOURCES; source++) {
		if (!shared->last[source] || !shared->message[source][shared->last[source]].read)
			return 0;
	}
	return shared->last[SOURCES] && shared->next[FLOOD];
}

/* Check that each source works both ways and has nothing pending afterwards. */
static void prove(void)
{
	struct slot *slot = &shared->slot[0][0];
	struct pollfd poller[SOURCES];
	uint32_t source;
	pid_t sender;
	int status;

	for (source = 1; source <= SOURCES; source++) {
		uint32_t id = 0x02000000 | source;
		int fd;

		/* Wait while the pipe is off. */
		do
			fd = ioctl(dev, CREATE_HANDLE, &id);
		while (fd < 0 && errno == ENXIO);
		if (fd < 0)
			fail("creating the last handle of source %u: %s", source, strerror(errno));
		poller[source - 1] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}

	/* From another process, as a source may wait for us to read before it takes more. */
	sender = fork();
	for (source = 1; !sender && source <= SOURCES; source++) {
		uint32_t number;

		do
			number = shared->next[source];
		while (send_message(poller[source - 1].fd, source, source == SOURCES ? "ready" : "end"));
		shared->last[source] = number;
	}
	if (!sender)
		_exit(0);
	while (!proven() && !shared->failed) {
		poll(poller, SOURCES, 100);
		for (source = 1; source <= SOURCES; source++) {
			if (poller[source - 1].revents & POLLIN &&
			    read_message(slot, poller[source - 1].fd, source) < 0 && !may_fail())
				fail("a last read from source %u: %s", source, strerror(errno));
		}
	}
	if (waitpid(sender, &status, 0) < 0 || status)
		fail("the last messages could not be sent");
	for (source = 1; source <= SOURCES; source++) {
		if (read_message(slot, poller[source - 1].fd, source))
			fail("source %u has more than was sent", source);
		close(poller[source - 1].fd);
	}
}

static int by_sending(const void *a, const void *b)
{
	return (*(struct message **)a)->sending < (*(struct message **)b)->sending ? -1 : 1;
}

static int by_sent(const void *a, const void *b)
{
	return (*(struct message **)a)->sent < (*(struct message **)b)->sent ? -1 : 1;
}

/* A message whose send had ended before another's began must not have been read after that one. */
static void check_order(int table)
{
	static struct message *sent[MESSAGES], *sending[MESSAGES];
	uint32_t latest = 0, count = 0, j = 0;

	for (uint32_t i = 0; i < shared->next[table]; i++) {
		struct message *message = &shared->message[table][i];

		/* The time of an unknown send is not known. */
		if (message->read && message->sent)
			sent[count] = sending[count] = message, count++;
	}
	qsort(sent, count, sizeof(*sent), by_sent);
	qsort(sending, count, sizeof(*sending), by_sending);
	for (uint32_t i = 0; i < count; i++) {
		for (; j < count && sent[j]->sent < sending[i]->sending; j++)
			if (sent[j]->reading > latest)
				latest = sent[j]->reading;
		if (latest > sending[i]->read)
			fail("message %ld of %d was read before one that was sent earlier",
			     (long)(sending[i] - shared->message[table]), table);
	}
}

int main(int argc, char **argv)
{
	uint32_t sent[SOURCES + 1] = { 0 }, unknown[SOURCES + 1] = { 0 };
	uint32_t missing = 0, perhaps = 0, received = 0;
	unsigned long dropped;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc != 5)
		fail("usage: race SEED OPERATIONS SUSPENDS DROPPED");
	seed = strtoull(argv[1], NULL, 0) * 0x9e3779b97f4a7c15;
	limit = strtoul(argv[2], NULL, 0);
	suspends = strtoul(argv[3], NULL, 0);
	dropped = strtoul(argv[4], NULL, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	nowhere = mmap(NULL, HDR + 2 * MAX, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	dev = open("/dev/papr-hvpipe", O_RDWR | O_CLOEXEC);
	if (shared == MAP_FAILED || nowhere == MAP_FAILED || dev < 0 ||
	    socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, post))
		fail("cannot begin: %s", strerror(errno));
	crc32(NULL, 0);
	for (uint32_t source = 1; source <= SOURCES; source++)
		shared->next[source] = 1;

	run();
	close(post[0]);
	close(post[1]);
	wait_closed();
	prove();
	wait_closed();
	dropped = fdinfo_number("\ndropped:") - dropped;

	for (int table = 0; table <= SOURCES; table++) {
		for (uint32_t i = 0; i < shared->next[table]; i++) {
			struct message *message = &shared->message[table][i];

			sent[table] += table == FLOOD || message->sent;
			unknown[table] += table != FLOOD && message->sending && !message->sent;
			received += !!message->read;
			if (table == 4 || message->read)
				continue;
			missing += table == FLOOD || message->sent;
			perhaps += table != FLOOD && message->sending && !message->sent;
		}
		if (table != 4)
			check_order(table);
	}
	printf("race: %u operations, %u kills, %u reads into nowhere; sent", limit, shared->kills, shared->wrong);
	for (int table = 0; table <= SOURCES; table++)
		printf(" %u and perhaps %u,", sent[table], unknown[table]);
	printf(" received %u, dropped %lu\n", received, dropped);
	if (dropped < missing || dropped > missing + perhaps)
		fail("the driver dropped %lu messages, but %u to %u are missing", dropped, missing, missing + perhaps);
	return 0;
}
