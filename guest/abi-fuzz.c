// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Random calls on /dev/papr-hvpipe and its handles, from several threads and their children.
 *
 *	abi-fuzz SEED CALLS SECONDS
 *
 * Ends after CALLS calls or SECONDS seconds, whichever comes first. The sources hmc1 to hmc3 answer each message with
 * itself, hmc4 has no HMC, and the hypervisor does not know hmc5. Each thread's choices follow from SEED.
 *
 * A call must fail with no other errors than the ABI has for it, return no more than was asked for, and leave memory
 * around its buffer alone. A message that is read was sent to that source, and is complete. At the end every source
 * works, and nothing is left open.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>

#include "device.h"

#define THREADS 4
#define SLOTS	16
#define ECHOES	3 /* hmc1 to hmc3 */
#define CLOSED	4 /* hmc4 */
#define UNKNOWN 5 /* hmc5 */
#define MAGIC	0xd1e2f3a4u
#define AREA	0x10000 /* bytes around a buffer: whole pages of any page size */
#define CANARY	0xa5
#define JUNK	0x5a

/*
 * A file that the threads share; a quarter of them are the device's. Each call uses a duplicate of its own, so that a
 * close can happen during calls.
 */
struct slot {
	int fd;		 /* -1: none */
	uint32_t source; /* of a handle, 0: the device */
};

struct thread {
	unsigned int number;
	uint64_t state;
	uint64_t call;
	char *area; /* for reading and writing, unmapped behind it; of a file, so that pages can be dropped */
	char *read_only;
	char *nowhere; /* no access */
	char *beyond;  /* mapped behind the end of its file */
};

static struct slot slots[SLOTS];
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t seed, calls, most_calls, sent, received;
static volatile bool stopping;
static int device;
static time_t end;
static long page;

static void __attribute__((noreturn, format(printf, 2, 3))) broken(const struct thread *t, const char *format, ...)
{
	char text[500];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (t)
		printf("SEED=%llu, thread %u, call %llu: %s\n", (unsigned long long)seed, t->number,
		       (unsigned long long)t->call, text);
	else
		printf("SEED=%llu: %s\n", (unsigned long long)seed, text);
	fflush(stdout);
	_exit(1);
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint32_t below(struct thread *t, uint32_t n)
{
	t->state += 0x9e3779b97f4a7c15;
	return (mix(t->state) >> 16) % n;
}

static bool one_in(struct thread *t, uint32_t n)
{
	return !below(t, n);
}

/*
 * A message consists of magic, source, size, seed, and bytes that follow from the seed. Messages too short for that,
 * and those from random addresses, are all junk bytes.
 */
static void make_message(char *payload, uint32_t source, uint32_t size, uint32_t from)
{
	uint32_t head[4] = { MAGIC, source, size, from };

	memset(payload, JUNK, size);
	if (size < sizeof(head))
		return;
	memcpy(payload, head, sizeof(head));
	for (uint32_t i = sizeof(head); i < size; i++)
		payload[i] = mix(from + i / 8) >> i % 8 * 8;
}

static void check_message(const struct thread *t, const char *payload, uint32_t source, uint32_t size)
{
	uint32_t head[4];
	char wanted[MAX];

	if (size < sizeof(head) || payload[0] == JUNK) {
		for (uint32_t i = 0; i < size; i++)
			if (payload[i] != JUNK)
				broken(t, "byte %u of %u from 0x%08x is 0x%02x, which was never sent", i, size, source,
				       (unsigned char)payload[i]);
		return;
	}
	memcpy(head, payload, sizeof(head));
	if (head[0] != MAGIC || head[1] != source || head[2] != size)
		broken(t, "a message of %u bytes from 0x%08x says that it is 0x%08x, of 0x%08x, with %u bytes", size,
		       source, head[0], head[1], head[2]);
	make_message(wanted, source, size, head[3]);
	if (memcmp(payload, wanted, size))
		broken(t, "a message of %u bytes from 0x%08x was changed", size, source);
}

/* Fail if the call has failed with an error that is not in @allowed, which ends with 0. */
static void check_error(const struct thread *t, const char *call, long result, const int *allowed)
{
	int err = errno;

	if (result >= 0)
		return;
	for (; *allowed; allowed++)
		if (err == *allowed)
			return;
	broken(t, "%s failed with %d (%s)", call, err, strerror(err));
}

#define MAY_FAIL(t, call, result, ...) check_error(t, call, result, (const int[]){ __VA_ARGS__, 0 })

/* Check the header and the message that read() returned. */
static void check_read(const struct thread *t, const char *data, ssize_t n, uint32_t source)
{
	static const char zeros[HDR];
	uint32_t flags;

	if (n <= 0)
		return;
	memcpy(&flags, data + 4, sizeof(flags));
	if (n < HDR || n > HDR + MAX || flags != (n == HDR ? 2u : 1u) || memcmp(data, zeros, 4) ||
	    memcmp(data + 8, zeros, HDR - 8))
		broken(t, "read %zd bytes with flags 0x%x, or other bytes of the header not zero", n, flags);
	check_message(t, data + HDR, source, n - HDR);
	if (n > HDR)
		__atomic_fetch_add(&received, 1, __ATOMIC_RELAXED);
}

/* Returns a duplicate of the descriptor in a slot, or -1 if that is empty. */
static int borrow(int slot, uint32_t *source)
{
	int fd = -1;

	pthread_mutex_lock(&slots_lock);
	if (slots[slot].fd >= 0) {
		fd = fcntl(slots[slot].fd, F_DUPFD_CLOEXEC, 0);
		*source = slots[slot].source;
	}
	pthread_mutex_unlock(&slots_lock);
	return fd;
}

/* Put a descriptor, or -1, into a slot, and close the old one. */
static void put(int slot, int fd, uint32_t source)
{
	int old;

	pthread_mutex_lock(&slots_lock);
	old = slots[slot].fd;
	slots[slot] = (struct slot){ fd, source };
	pthread_mutex_unlock(&slots_lock);
	if (old >= 0)
		close(old);
}

static int some_slot(struct thread *t, uint32_t source)
{
	return source ? SLOTS / 4 + below(t, SLOTS * 3 / 4) : below(t, SLOTS / 4);
}

/* Returns a random address: mostly in the area, often at its end, sometimes invalid. */
static char *anywhere(struct thread *t, size_t len, bool *good)
{
	*good = false;
	switch (below(t, 24)) {
	case 0:
		return NULL;
	case 1:
		return t->nowhere + below(t, page);
	case 2:
		return t->read_only + below(t, page);
	case 3:
		return t->beyond + below(t, page);
	case 4:
		return (char *)0xc000000000000000 + below(t, 1 << 20);
	case 5:
		return t->area + AREA - below(t, 64); /* across the end */
	case 6:
		return (char *)-1l - below(t, 64);
	default:
		if (len > AREA)
			return t->area;
		*good = true;
		return t->area + (one_in(t, 3) ? AREA - len : below(t, AREA - len + 1));
	}
}

static size_t some_size(struct thread *t)
{
	switch (below(t, 12)) {
	case 0:
		return below(t, 2 * HDR);
	case 1:
		return HDR + MAX - 2 + below(t, 5);
	case 2:
		return AREA;
	case 3:
		return one_in(t, 2) ? SIZE_MAX - below(t, 3) : (size_t)INT32_MAX - below(t, 3);
	default:
		return HDR + below(t, MAX + 1);
	}
}

/* Sometimes drop the area's pages, so that the call has to fetch them. */
static void hide(struct thread *t)
{
	if (one_in(t, 4))
		madvise(t->area, AREA, MADV_DONTNEED);
}

static void fill(struct thread *t, char byte)
{
	memset(t->area, byte, AREA);
	hide(t);
}

static void check_canary(const struct thread *t, const char *from, const char *to)
{
	for (; from < to; from++)
		if (*from != (char)CANARY)
			broken(t, "a byte %zd into the area changed, outside of the buffer", from - t->area);
}

static void do_read(struct thread *t, int fd, uint32_t source)
{
	size_t len = some_size(t);
	bool good;
	char *buffer = anywhere(t, len, &good);
	ssize_t n;

	fill(t, CANARY);
	n = read(fd, buffer, len);
	if (!source) {
		MAY_FAIL(t, "read() of the device", n, EINVAL, EBADF, EFAULT);
		if (n >= 0)
			broken(t, "read() of the device returned %zd", n);
		return;
	}
	if (n > 0 && (size_t)n > len)
		broken(t, "read() of %zu bytes returned %zd", len, n);
	if (len >= HDR && len <= AREA)
		MAY_FAIL(t, "read()", n, EAGAIN, EMSGSIZE, EFAULT);
	else
		MAY_FAIL(t, "short or long read()", n, EAGAIN, EINVAL, EFAULT);
	if (good) {
		if (n < 0 && errno == EFAULT)
			broken(t, "read() to good memory failed with EFAULT");
		check_canary(t, t->area, buffer);
		check_canary(t, buffer + (n > 0 ? n : 0), t->area + AREA);
		check_read(t, buffer, n, source);
	} else if (len <= AREA && n > 0 && (buffer < t->area || buffer + n > t->area + AREA)) {
		broken(t, "read() of %zd bytes to bad memory succeeded", n);
	}
}

static bool takes_messages(uint32_t source)
{
	return source >= HMC(1) && source <= HMC(ECHOES);
}

static void check_write(struct thread *t, const char *call, ssize_t n, size_t len, uint32_t source)
{
	if (n >= 0) {
		if ((size_t)n != len || len <= HDR || len > HDR + MAX || !takes_messages(source))
			broken(t, "%s of %zu bytes to 0x%08x returned %zd", call, len, source, n);
		__atomic_fetch_add(&sent, 1, __ATOMIC_RELAXED);
	} else if (!source) {
		MAY_FAIL(t, call, n, EINVAL, EBADF, EFAULT);
	} else if (len <= HDR || len > HDR + MAX) {
		MAY_FAIL(t, call, n, EINVAL, EFAULT);
	} else if (takes_messages(source)) {
		MAY_FAIL(t, call, n, EFAULT);
	} else {
		MAY_FAIL(t, call, n, EFAULT, source == HMC(CLOSED) ? EPIPE : EINVAL);
	}
}

static void do_write(struct thread *t, int fd, uint32_t source)
{
	size_t len = some_size(t);
	bool good;
	char *buffer = anywhere(t, len, &good);
	ssize_t n;

	fill(t, JUNK);
	if (good && len > HDR) {
		memset(buffer, below(t, 256), HDR); /* which is ignored */
		make_message(buffer + HDR, source, len - HDR, below(t, 1 << 30));
		hide(t);
	}
	n = write(fd, buffer, len);
	check_write(t, "write()", n, len, source);
	if (n < 0 && errno == EFAULT && good)
		broken(t, "write() from good memory failed with EFAULT");
}

/* Random vectors. They write junk, and only the amount of what they read is checked. */
static void do_vector(struct thread *t, int fd, uint32_t source)
{
	struct iovec iov[1032];
	int count = one_in(t, 8) ? below(t, 1032) : below(t, 6), how = below(t, 6);
	bool good, all_good = true, negative = false;
	size_t sum = 0;
	ssize_t n;

	for (int i = 0; i < count; i++) {
		size_t len = one_in(t, 40) ? some_size(t) : count > 100 ? below(t, 64) : below(t, 3000);

		iov[i].iov_base = anywhere(t, len, &good);
		iov[i].iov_len = len;
		all_good = all_good && good;
		negative = negative || (ssize_t)len < 0 || (ssize_t)(sum + len) < 0;
		sum += len;
	}
	if (one_in(t, 50))
		count = -1;
	fill(t, how & 1 ? JUNK : CANARY);
	switch (how) {
	case 0:
		n = readv(fd, iov, count);
		break;
	case 1:
		n = writev(fd, iov, count);
		break;
	case 2:
		n = preadv(fd, iov, count, below(t, 3));
		break;
	case 3:
		n = pwritev(fd, iov, count, below(t, 3));
		break;
	case 4:
		n = preadv2(fd, iov, count, -1, one_in(t, 2) ? 0 : 1 << below(t, 8));
		break;
	default:
		n = pwritev2(fd, iov, count, -1, one_in(t, 2) ? 0 : 1 << below(t, 8));
		break;
	}
	if (how == 2 || how == 3) {
		/* A handle has no positions. */
		if (n >= 0 || (source && errno != ESPIPE && errno != EINVAL))
			broken(t, "p%sv() returned %zd (errno %d)", how == 2 ? "read" : "write", n, errno);
		return;
	}
	if (how & 1) {
		if (n == 0 && sum == 0)
			return;
		if (n >= 0) {
			check_write(t, "writev()", n, sum, source);
			if (negative)
				broken(t, "writev() with a negative length returned %zd", n);
		} else {
			MAY_FAIL(t, "writev()", n, EINVAL, EFAULT, EPIPE, EOPNOTSUPP, EBADF);
			if (errno == EPIPE && source != HMC(CLOSED))
				broken(t, "writev() to 0x%08x failed with EPIPE", source);
		}
		return;
	}
	MAY_FAIL(t, "readv()", n, EAGAIN, EMSGSIZE, EFAULT, EINVAL, EOPNOTSUPP, EBADF);
	if (n > 0 && ((size_t)n > sum || n > HDR + MAX || n < HDR || !source))
		broken(t, "readv() of %zu bytes returned %zd", sum, n);
	if (n >= HDR && all_good && iov[0].iov_len >= HDR && count == 1)
		check_read(t, iov[0].iov_base, n, source);
	else if (n > HDR)
		__atomic_fetch_add(&received, 1, __ATOMIC_RELAXED);
}

static void do_ioctl(struct thread *t, int fd, uint32_t source)
{
	static const unsigned int known[] = { FIONBIO, FIOASYNC, FIONREAD, TCGETS, FIOCLEX };
	unsigned int cmd = below(t, 6)	? CREATE_HANDLE :
			   one_in(t, 2) ? _IOC(below(t, 4), 0xb2, below(t, 16), below(t, 64)) :
					  known[below(t, 5)];
	uint32_t id = HMC(1 + below(t, UNKNOWN)), *where;
	bool good, hmc = true;
	long n;

	if (one_in(t, 8)) {
		id = below(t, UINT32_MAX);
		hmc = id >> 16 == 0x0200;
	}
	where = (uint32_t *)anywhere(t, sizeof(id), &good);
	if (good)
		memcpy(where, &id, sizeof(id));
	else if (one_in(t, 2))
		where = (uint32_t *)(uintptr_t)below(t, 4096);
	n = syscall(SYS_ioctl, fd, cmd, where);
	if (_IOC_TYPE(cmd) == 0xb2 && (cmd != CREATE_HANDLE || source)) {
		if (n >= 0 || (errno != ENOTTY && errno != EBADF))
			broken(t, "ioctl(0x%08x) returned %ld (errno %d)", cmd, n, errno);
	} else if (cmd != CREATE_HANDLE) {
		MAY_FAIL(t, "ioctl()", n, ENOTTY, EFAULT, EBADF);
	} else if (n < 0) {
		MAY_FAIL(t, "creating a handle", n, EFAULT, EINVAL, EALREADY, EBADF);
		if (good && errno == EFAULT)
			broken(t, "creating a handle of 0x%08x failed with EFAULT", id);
		if (good && hmc && errno == EINVAL)
			broken(t, "creating a handle of 0x%08x failed with EINVAL", id);
	} else {
		if (fcntl(n, F_GETFD) != FD_CLOEXEC)
			broken(t, "handle %ld is not close-on-exec", n);
		if (!good)
			close(n); /* a random source, as its ID came from a random address */
		else if (!hmc)
			broken(t, "a handle of source 0x%08x", id);
		else
			put(some_slot(t, id), n, id);
	}
}

static void check_events(const struct thread *t, uint32_t source, short asked, short got)
{
	short can = source ? POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM : POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;

	if (got & ~(can & asked))
		broken(t, "poll() for 0x%x returned 0x%x", asked, got);
	if (source && asked & POLLOUT && !(got & POLLOUT))
		broken(t, "poll() for 0x%x does not tell that the pipe takes messages: 0x%x", asked, got);
}

static void do_poll(struct thread *t, int fd, uint32_t source)
{
	struct pollfd pfd = { .fd = fd, .events = below(t, 0x4000) };
	struct epoll_event event = { .events = below(t, 0x4000) | (one_in(t, 2) ? EPOLLET : 0) |
					       (one_in(t, 4) ? EPOLLONESHOT : 0) };
	int epoll, n;

	if (one_in(t, 2)) {
		n = poll(&pfd, 1, below(t, 4));
		if (n < 0 || n > 1)
			broken(t, "poll() returned %d (errno %d)", n, errno);
		if (!(pfd.revents & POLLNVAL) && n)
			check_events(t, source, pfd.events, pfd.revents);
		return;
	}
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) {
		MAY_FAIL(t, "epoll_ctl()", -1, EBADF, EPERM, EINVAL);
	} else {
		n = epoll_wait(epoll, &event, 1, below(t, 4));
		if (n < 0 || n > 1)
			broken(t, "epoll_wait() returned %d (errno %d)", n, errno);
		if (one_in(t, 2))
			epoll_ctl(epoll, one_in(t, 2) ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, fd, &event);
	}
	close(epoll);
}

static void do_open(struct thread *t)
{
	static const int flags[] = { O_RDONLY,
				     O_WRONLY,
				     O_RDWR,
				     O_RDWR,
				     O_RDWR | O_NONBLOCK,
				     O_RDWR | O_APPEND,
				     O_RDWR | O_TRUNC,
				     O_PATH,
				     O_RDWR | O_DIRECTORY,
				     O_RDWR | O_DIRECT,
				     O_RDWR | O_CREAT | O_EXCL };
	int fd = open(DEVICE, flags[below(t, sizeof(flags) / sizeof(flags[0]))] | O_CLOEXEC, 0600);

	MAY_FAIL(t, "open()", fd, ENOTDIR, EINVAL, EEXIST);
	if (fd >= 0)
		put(some_slot(t, 0), fd, 0);
}

/* Calls that handles do not support. */
static void do_other(struct thread *t, int fd, uint32_t source)
{
	char path[64], text[512] = "";
	struct stat st;
	int pipes[2], other;
	void *map;
	long n;

	switch (below(t, 9)) {
	case 0:
		map = mmap(NULL, (1 + below(t, 3)) * page, below(t, 8), one_in(t, 2) ? MAP_SHARED : MAP_PRIVATE, fd, 0);
		if (map != MAP_FAILED)
			broken(t, "mmap() succeeded");
		MAY_FAIL(t, "mmap()", -1, ENODEV, EACCES, EPERM, EINVAL, EBADF);
		break;
	case 1:
		n = lseek(fd, below(t, 5000), below(t, 6));
		if (n >= 0 || (errno != ESPIPE && errno != EINVAL && errno != EBADF))
			broken(t, "lseek() returned %ld (errno %d)", n, errno);
		break;
	case 2:
		if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK))
			break;
		n = one_in(t, 2) ?
			    splice(fd, NULL, pipes[1], NULL, 5000, SPLICE_F_NONBLOCK) :
			    (write(pipes[1], text, 100), splice(pipes[0], NULL, fd, NULL, 100, SPLICE_F_NONBLOCK));
		if (n > 0)
			broken(t, "splice() moved %ld bytes", n);
		MAY_FAIL(t, "splice()", n, EINVAL, EBADF, ESPIPE, EAGAIN);
		close(pipes[0]);
		close(pipes[1]);
		break;
	case 3:
		other = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
		n = one_in(t, 2) ? sendfile(fd, other, NULL, 100) : sendfile(other, fd, NULL, 100);
		if (n > 0)
			broken(t, "sendfile() moved %ld bytes", n);
		MAY_FAIL(t, "sendfile()", n, EINVAL, EBADF, ESPIPE);
		close(other);
		break;
	case 4:
		n = fcntl(fd, F_SETFL,
			  below(t, 4) * O_NONBLOCK | (one_in(t, 4) ? O_APPEND : 0) | (one_in(t, 4) ? O_DIRECT : 0) |
				  (one_in(t, 4) ? O_ASYNC : 0));
		MAY_FAIL(t, "fcntl(F_SETFL)", n, EINVAL, EBADF, EPERM);
		break;
	case 5:
		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
		other = open(path, O_RDONLY | O_CLOEXEC);
		n = read(other, text, sizeof(text) - 1);
		text[n > 0 ? n : 0] = '\0';
		close(other);
		/* A device opened with O_PATH has no fdinfo of the driver. */
		if (n <= 0 || strncmp(text, "pos:\t0\n", 7) || (source && !strstr(text, "\nheld:\t")))
			broken(t, "fdinfo says: %s", text);
		break;
	case 6:
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		other = open(path, (one_in(t, 2) ? O_RDWR : O_RDONLY) | O_CLOEXEC);
		if (source && other >= 0)
			broken(t, "a handle was opened a second time");
		if (other >= 0)
			close(other);
		break;
	case 7:
		n = one_in(t, 2) ? fsync(fd) : ftruncate(fd, 10);
		if (source && n >= 0)
			broken(t, "fsync() or ftruncate() of a handle succeeded");
		break;
	default:
		if (fstat(fd, &st))
			broken(t, "fstat() failed with %d", errno);
	}
}

/* Pass the file through a socket; returns it as it comes out. */
static int through_socket(struct thread *t, int fd)
{
	char byte = 0, space[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space) };
	struct cmsghdr *control;
	int ends[2], got = -1;

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends))
		broken(t, "socketpair() failed with %d", errno);
	memset(space, 0, sizeof(space));
	control = CMSG_FIRSTHDR(&msg);
	control->cmsg_level = SOL_SOCKET;
	control->cmsg_type = SCM_RIGHTS;
	control->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(control), &fd, sizeof(fd));
	if (sendmsg(ends[0], &msg, 0) == 1) {
		close(fd);
		fd = -1;
		/* One that is never received is closed with the socket. */
		if (below(t, 4) && recvmsg(ends[1], &msg, MSG_CMSG_CLOEXEC) == 1 && (control = CMSG_FIRSTHDR(&msg)))
			memcpy(&got, CMSG_DATA(control), sizeof(got));
	}
	close(ends[0]);
	close(ends[1]);
	return fd >= 0 ? fd : got;
}

static void do_call(struct thread *t, int fd, uint32_t source)
{
	switch (source ? below(t, 12) : below(t, 30)) {
	case 0:
	case 1:
	case 2:
		do_write(t, fd, source);
		break;
	case 3:
	case 4:
	case 5:
		do_read(t, fd, source);
		break;
	case 6:
	case 7:
		do_vector(t, fd, source);
		break;
	case 8:
		do_poll(t, fd, source);
		break;
	default:
		if (source && below(t, 4))
			do_other(t, fd, source);
		else
			do_ioctl(t, fd, source);
	}
}

/* A child makes some calls on an inherited descriptor, and may be killed meanwhile. It opens nothing. */
static void do_fork(struct thread *t, int fd, uint32_t source)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		broken(t, "fork() failed with %d", errno);
	if (!child) {
		for (int i = 0; i < 5; i++) {
			t->call++;
			if (one_in(t, 2))
				do_read(t, fd, source);
			else if (one_in(t, 2))
				do_write(t, fd, source);
			else
				do_poll(t, fd, source);
		}
		_exit(0);
	}
	if (one_in(t, 3))
		kill(child, SIGKILL);
	while (waitpid(child, &status, 0) != child)
		;
	if (WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) != SIGKILL)
		broken(t, "the child ended with status 0x%x", status);
}

static char *map(size_t len, int protection)
{
	int file = memfd_create("area", MFD_CLOEXEC);
	char *at;

	if (file < 0 || ftruncate(file, len))
		broken(NULL, "a file of %zu bytes: %d", len, errno);
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (at == MAP_FAILED)
		broken(NULL, "mmap() of %zu bytes failed with %d", len, errno);
	close(file);
	memset(at, JUNK, len);
	mprotect(at, len, protection);
	return at;
}

static void *run(void *of)
{
	struct thread *t = of;
	int fd;

	t->area = map(AREA + page, PROT_READ | PROT_WRITE);
	mprotect(t->area + AREA, page, PROT_NONE);
	t->read_only = map(2 * page, PROT_READ);
	t->nowhere = map(2 * page, PROT_NONE);
	t->beyond = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, memfd_create("empty", MFD_CLOEXEC), 0);

	while (!stopping) {
		uint32_t source = 0;

		/* Use the device for an empty slot. */
		fd = borrow(below(t, SLOTS), &source);
		if (fd < 0)
			fd = fcntl(device, F_DUPFD_CLOEXEC, 0);
		if (fd >= 0 && one_in(t, 30))
			fd = through_socket(t, fd);
		if (fd < 0)
			continue;
		t->call++;
		if (__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) >= most_calls ||
		    (!(t->call & 63) && time(NULL) >= end))
			stopping = true;
		if (one_in(t, 40))
			do_open(t);
		else if (one_in(t, 200))
			do_fork(t, fd, source);
		else if (one_in(t, 20))
			put(some_slot(t, source), below(t, 3) ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1, source);
		else
			do_call(t, fd, source);
		close(fd);
	}
	return NULL;
}

/* Read all handles: an unread echo would keep all threads from sending. */
static void *drain(void *of)
{
	struct thread *t = of;
	char data[HDR + MAX];
	uint32_t source;

	while (!stopping) {
		bool idle = true;

		for (int slot = 0; slot < SLOTS; slot++) {
			int fd = borrow(slot, &source);
			ssize_t n;

			if (fd < 0)
				continue;
			n = source ? read(fd, data, sizeof(data)) : 0;
			MAY_FAIL(t, "draining read()", n, EAGAIN);
			check_read(t, data, n, source);
			idle = idle && n <= 0;
			close(fd);
		}
		if (idle)
			usleep(1000);
	}
	return NULL;
}

/* Check that a source works as it should. */
static void prove(uint32_t source)
{
	char out[HDR + 100] = { 0 }, in[HDR + MAX];
	int handle = ioctl(device, CREATE_HANDLE, &source);
	struct pollfd pfd = { .fd = handle, .events = POLLIN };
	ssize_t n;

	if (handle < 0)
		broken(NULL, "in the end no handle of 0x%08x can be had (errno %d)", source, errno);
	make_message(out + HDR, source, 100, 12345);
	n = write(handle, out, sizeof(out));
	if (!takes_messages(source)) {
		if (n >= 0 || errno != (source == HMC(CLOSED) ? EPIPE : EINVAL))
			broken(NULL, "in the end write() to 0x%08x returned %zd (errno %d)", source, n, errno);
		close(handle);
		return;
	}
	if (n != sizeof(out))
		broken(NULL, "in the end write() to 0x%08x returned %zd (errno %d)", source, n, errno);
	/* Earlier messages come first. */
	do {
		if (poll(&pfd, 1, 30000) != 1)
			broken(NULL, "in the end 0x%08x does not answer", source);
		n = read(handle, in, sizeof(in));
		check_read(NULL, in, n, source);
	} while (n != sizeof(out) || memcmp(in + HDR, out + HDR, 100));
	close(handle);
}

int main(int argc, char **argv)
{
	static struct thread threads[THREADS + 1];
	pthread_t ids[THREADS + 1];
	char text[512] = "", path[64];
	int info;

	if (argc != 4)
		return 2;
	seed = strtoull(argv[1], NULL, 0);
	most_calls = strtoull(argv[2], NULL, 0);
	end = time(NULL) + strtoul(argv[3], NULL, 0);
	page = sysconf(_SC_PAGESIZE);
	signal(SIGIO, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < SLOTS; i++)
		slots[i].fd = -1;
	device = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0)
		broken(NULL, DEVICE ": %s", strerror(errno));

	put(0, fcntl(device, F_DUPFD_CLOEXEC, 0), 0);
	for (int i = 0; i <= THREADS; i++) {
		threads[i].number = i;
		threads[i].state = mix(seed) + i;
		if (pthread_create(ids + i, NULL, i < THREADS ? run : drain, threads + i))
			broken(NULL, "no thread");
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(ids[i], NULL);
	stopping = true;
	pthread_join(ids[THREADS], NULL);
	for (int i = 0; i < SLOTS; i++)
		put(i, -1, 0);

	for (uint32_t n = 1; n <= UNKNOWN; n++)
		prove(HMC(n));
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", device);
	info = open(path, O_RDONLY);
	if (read(info, text, sizeof(text) - 1) <= 0 || !strstr(text, "\nhandles:\t0\n"))
		broken(NULL, "in the end handles are open:\n%s", text);
	printf("%llu calls, %llu messages sent, %llu received\n", (unsigned long long)calls, (unsigned long long)sent,
	       (unsigned long long)received);
	return 0;
}
