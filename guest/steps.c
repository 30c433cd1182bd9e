// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Single calls on handles of the pipe, with the result of each, errno included.
 * A handle stays open when a call fails.
 *
 *	steps STEP...
 *
 * A step is a word and a number: the source's (open1 is a handle for hmc1), or
 * an argument. It is printed, with "=RESULT" if a call failed or returned
 * something. A test compares the output to what it expects.
 *
 *	open close	create a handle, close it
 *	write		write the source's next message, "SOURCE.COUNT"
 *	again		write the last one again
 *	fresh		write the next one from pages that the kernel must fetch
 *	read		read: "nothing", the payload, or "lost"
 *	take		wait for a message and read it
 *	short		read into a buffer for the header alone
 *	poll now	wait for IN or RDHUP, or do not wait: the events
 *	ready		wait for OUT
 *	meet		wait until another process opens /tmp/meet and /tmp/met
 *	proof		number messages from 1001 on
 *	enable0 enable1	disable or enable the pipe, bypassing the driver
 *	sleep		suspend the partition until the lab wakes it
 *	failN		make the kernel's Nth allocation or user copy of the next
 *			step fail. If it failed, the step's result ends in "!". If
 *			the step returned ENOMEM or EFAULT then, it is repeated.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device.h"

#define SIZE (HDR + MAX + 1) /* of a message and a NUL */

static struct {
	int fd, writes;
} handles[10];
static char *buffer;
static int nth; /* fault injection: fail the kernel's nth request in the next step, 0: none */

static int events_of(int fd, int events, int timeout)
{
	struct pollfd pollfd = { .fd = fd, .events = events };

	return poll(&pollfd, 1, timeout) < 0 ? -1 : pollfd.revents;
}

static void print_events(int events)
{
	const char *separator = "=";
	const struct {
		int event;
		const char *name;
	} names[] = {
		{ POLLIN, "in" }, { POLLOUT, "out" }, { POLLRDHUP, "hup" }, { POLLERR, "err" }, { POLLNVAL, "nval" },
	};

	for (int i = 0; i < 5; i++) {
		if (events & names[i].event) {
			printf("%s%s", separator, names[i].name);
			separator = ",";
		}
	}
}

static int read_message(int fd, size_t size)
{
	int n = read(fd, buffer, size);

	if (n >= 0)
		buffer[n] = 0;
	if (n > HDR)
		printf("=%s", buffer + HDR);
	else if (n == HDR)
		printf(buffer[4] == 2 ? "=lost" : "=flags %#x", buffer[4]);
	return n;
}

static int step(const char *name, int n)
{
	int fd = handles[n].fd, len, dev, error;

	if (!strcmp(name, "open")) {
		fd = open_handle(HMC(n));
		if (fd >= 0)
			handles[n].fd = fd;
		return fd;
	}
	if (!strcmp(name, "write") || !strcmp(name, "again") || !strcmp(name, "fresh")) {
		handles[n].writes += *name != 'a';
		len = HDR + sprintf(buffer + HDR, "%d.%d", n, handles[n].writes);
		if (*name == 'f')
			madvise(buffer, SIZE, MADV_DONTNEED);
		len -= write(fd, buffer, len);
		return len ? -1 : 0;
	}
	if (!strcmp(name, "read")) {
		len = read_message(fd, SIZE - 1);
		if (!len)
			printf("=nothing");
		return len;
	}
	if (!strcmp(name, "take")) {
		do
			events_of(fd, POLLIN, -1);
		while (!(len = read_message(fd, SIZE - 1)));
		return len;
	}
	if (!strcmp(name, "short"))
		return read_message(fd, HDR);
	if (!strcmp(name, "poll") || !strcmp(name, "now")) {
		len = events_of(fd, POLLIN | POLLRDHUP, *name == 'p' ? -1 : 0);
		print_events(len < 0 ? len : events_of(fd, POLLIN | POLLOUT | POLLRDHUP, 0));
		return len;
	}
	if (!strcmp(name, "ready")) {
		len = events_of(fd, POLLOUT, -1);
		return len == POLLOUT ? 0 : -1;
	}
	if (!strcmp(name, "close"))
		return close(fd);
	if (!strcmp(name, "meet")) {
		fd = open("/tmp/meet", O_RDONLY);
		while (read(fd, buffer, SIZE) > 0)
			;
		close(fd);
		return close(open("/tmp/met", O_WRONLY));
	}
	if (!strcmp(name, "proof")) { /* unlike any message that a test may have left in the queue */
		handles[n].writes = 1000;
		return 0;
	}
	if (!strcmp(name, "enable")) { /* root can set any system parameter */
		struct {
			unsigned int parameter;
			unsigned short length;
			char data[4000];
		} block = { 64, 1, { n } };

		dev = open("/dev/papr-sysparm", O_RDWR);
		len = ioctl(dev, _IOW(0xb2, 2, block), &block);
		close(dev);
		return len;
	}
	if (!strcmp(name, "sleep")) {
		fd = open("/sys/kernel/mobility/migration", O_WRONLY);
		len = fd < 0 ? -1 : write(fd, "1", 1);
		error = errno;
		close(fd);
		errno = error;
		return len;
	}
	if (!strcmp(name, "fail")) {
		nth = n;
		return 0;
	}
	errno = ENOSYS;
	return -1;
}

/* Make the kernel's nth allocation, or copy from or to user space, for this thread fail. Returns a descriptor. */
static int arm(void)
{
	int fd = open("/proc/thread-self/fail-nth", O_RDWR);
	char text[12];

	return pwrite(fd, text, sprintf(text, "%d", nth), 0) < 0 ? -1 : fd;
}

/* Returns true if the fault struck. */
static int disarm(int fd)
{
	char text[12] = "";
	int struck = pread(fd, text, 11, 0) > 0 && *text == '0';

	pwrite(fd, "0", 1, 0);
	close(fd);
	return struck;
}

int main(int argc, char **argv)
{
	static char out[65536];
	char name[16];

	/* A large buffer: printf() must not call the kernel between a step and disarm(). */
	setvbuf(stdout, out, _IOFBF, sizeof(out));
	buffer = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 1, n; i < argc; i++) {
		int armed = -1, error, ret;

		n = 0;
		if (sscanf(argv[i], "%15[a-z]%d", name, &n) < 1 || n < 0 || (n > 9 && strcmp(name, "fail")))
			return 2;
		printf("%s%s", i > 1 ? " " : "", argv[i]);
		fflush(stdout);
		if (nth) {
			armed = arm();
			if (armed < 0)
				return 3;
			nth = 0;
		}
		errno = 0;
		ret = step(name, n);
		error = errno;
		if (ret < 0)
			printf("=%s", strerrorname_np(error));
		if (armed >= 0 && disarm(armed)) {
			printf("!");
			if (ret < 0 && (error == ENOMEM || error == EFAULT)) { /* repeat the step */
				if (!strcmp(name, "write") || !strcmp(name, "fresh"))
					handles[n].writes--;
				i--;
			}
		}
		fflush(stdout);
	}
	return 0;
}
