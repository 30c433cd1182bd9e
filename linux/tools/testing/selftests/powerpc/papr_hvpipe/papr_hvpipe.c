// SPDX-License-Identifier: GPL-2.0-only
/*
 * The user ABI of /dev/papr-hvpipe, a test per promise.
 *
 * To be run as root in a partition whose hypervisor answers each message to
 * the sources 0x02000001 and 0x02000002 with the same message, and does not
 * know the source 0x02000003. Nobody else may use these sources meanwhile.
 * Skipped on any other machine than QEMU's, unless PAPR_HVPIPE_ECHO is set.
 * PAPR_HVPIPE_LIMIT is the longest payload that the hypervisor takes, 4088 by
 * default.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/types.h>
#include <linux/userfaultfd.h>
#include <asm/papr-hvpipe.h>

#include "../../kselftest_harness.h"

#define DEVICE		"/dev/papr-hvpipe"
#define SOURCE_A	0x02000001	/* these two echo */
#define SOURCE_B	0x02000002
#define SOURCE_UNKNOWN	0x02000003	/* to the hypervisor */

#define HDR_LEN		((ssize_t)sizeof(struct papr_hvpipe_hdr))
#define MAX_PAYLOAD	4088

/* A buffer that read() takes on every kernel. Longer messages need more. */
#define PORTABLE_ROOM	4096

/* How long an echo may take, and how long nothing has to come, in ms. */
#define SOON		10000
#define A_WHILE		300

/* A header and a payload. */
struct message {
	struct papr_hvpipe_hdr hdr;
	unsigned char payload[MAX_PAYLOAD + 64];
};

/* The longest payload that the hypervisor takes from a partition. */
static size_t send_limit(void)
{
	const char *limit = getenv("PAPR_HVPIPE_LIMIT");

	return limit ? strtoul(limit, NULL, 0) : MAX_PAYLOAD;
}

static int create_handle(int dev, __u32 source)
{
	return ioctl(dev, PAPR_HVPIPE_IOC_CREATE_HANDLE, &source);
}

/* Content that tells one message from another, in every byte. */
static void fill(struct message *msg, size_t len, unsigned int seed)
{
	size_t i;

	memset(&msg->hdr, 0, sizeof(msg->hdr));
	for (i = 0; i < len; i++)
		msg->payload[i] = seed + (seed >> 8) + i * 7 + i / 251;
}

static ssize_t send_seed(int fd, size_t len, unsigned int seed)
{
	struct message msg;

	fill(&msg, len, seed);
	return write(fd, &msg, HDR_LEN + len);
}

/* The events of @events, POLLERR and the like that there are within @timeout. */
static int poll_for(int fd, short events, int timeout)
{
	struct pollfd pfd = { .fd = fd, .events = events };

	if (poll(&pfd, 1, timeout) < 0)
		return -errno;
	return pfd.revents;
}

/* Read the message of @len and @seed, which comes soon. */
static bool receive_seed(int fd, size_t len, unsigned int seed)
{
	struct message msg, expected;
	ssize_t n;

	fill(&expected, len, seed);
	expected.hdr.flags = HVPIPE_MSG_AVAILABLE;
	memset(&msg, 0xa5, sizeof(msg));

	n = poll_for(fd, POLLIN, SOON);
	if (n != POLLIN) {
		ksft_print_msg("poll for message %u: %zd\n", seed, n);
		return false;
	}
	n = read(fd, &msg, HDR_LEN + len <= PORTABLE_ROOM ? PORTABLE_ROOM : sizeof(msg));
	if (n != HDR_LEN + (ssize_t)len) {
		ksft_print_msg("message %u: read %zd instead of %zu (errno %d)\n",
			       seed, n, HDR_LEN + len, errno);
		return false;
	}
	if (memcmp(&msg, &expected, n)) {
		ksft_print_msg("message %u of %zu bytes has other content\n", seed, len);
		return false;
	}
	return true;
}

static bool echoes(int fd, size_t len, unsigned int seed)
{
	return send_seed(fd, len, seed) == HDR_LEN + (ssize_t)len &&
	       receive_seed(fd, len, seed);
}

/* Neither a message nor a loss is there, nor comes within a while. */
static bool is_quiet(int fd)
{
	char buf[sizeof(struct message)];

	return poll_for(fd, POLLIN, A_WHILE) == 0 &&
	       read(fd, buf, PORTABLE_ROOM) == 0;
}

/* The value of a line of a file's fdinfo. */
static bool fdinfo_value(int fd, const char *key, char *value, size_t size)
{
	char path[64], line[256];
	size_t len = strlen(key);
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "r");
	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file)) {
		if (strncmp(line, key, len) || strncmp(line + len, ":\t", 2))
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(value, size, "%s", line + len + 2);
		found = true;
	}
	fclose(file);
	return found;
}

static long long fdinfo_number(int fd, const char *key)
{
	char value[64], *end;
	long long number;

	if (!fdinfo_value(fd, key, value, sizeof(value)))
		return -1;
	number = strtoll(value, &end, 10);
	return *value && !*end ? number : -1;
}

/* Wait until the device has dropped so many messages in all. */
static long long wait_dropped(int dev, long long expected)
{
	long long dropped;
	int i;

	for (i = 0; i < SOON / 10; i++) {
		dropped = fdinfo_number(dev, "dropped");
		if (dropped < 0 || dropped >= expected)
			break;
		usleep(10000);
	}
	return dropped;
}

/* Memory that ends where a page begins that cannot be accessed. */
static char *before_a_hole(size_t len)
{
	long page = sysconf(_SC_PAGESIZE);
	char *map;

	map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED || mprotect(map + page, page, PROT_NONE))
		return NULL;
	return map + page - len;
}

/* Memory that lies, but for its last @len bytes, in such a page. */
static char *behind_a_hole(size_t before, size_t len)
{
	long page = sysconf(_SC_PAGESIZE);
	char *map;

	map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED || (long)len > page || mprotect(map, page, PROT_NONE))
		return NULL;
	return map + page - before;
}

/*
 * The device alone.
 */

/*
 * An HMC that manages a real machine must not get these messages, and would not
 * answer them. Run only where the hypervisor echoes: in QEMU, or when told.
 */
static bool may_send(void)
{
	char model[64] = "";
	FILE *file;

	if (getenv("PAPR_HVPIPE_ECHO"))
		return true;
	file = fopen("/proc/device-tree/model", "r");
	if (!file)
		return false;
	if (!fread(model, 1, sizeof(model) - 1, file))
		model[0] = '\0';
	fclose(file);
	return strstr(model, "qemu");
}

FIXTURE(device)
{
	int dev;
};

FIXTURE_SETUP(device)
{
	self->dev = open(DEVICE, O_RDWR);
	if (self->dev < 0 && errno == ENOENT)
		SKIP(return, "no " DEVICE);
	ASSERT_LE(0, self->dev);
	if (!may_send())
		SKIP(return, "not in QEMU: set PAPR_HVPIPE_ECHO if sources echo");
}

FIXTURE_TEARDOWN(device)
{
	close(self->dev);
}

/* Only root can open the device. */
TEST_F(device, root_only)
{
	struct stat st;
	int status;
	pid_t pid;

	ASSERT_EQ(0, stat(DEVICE, &st));
	EXPECT_EQ(S_IFCHR | 0600, st.st_mode);
	EXPECT_EQ(0, st.st_uid);
	EXPECT_EQ(0, st.st_gid);

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (setresgid(65534, 65534, 65534) ||
		    setresuid(65534, 65534, 65534))
			_exit(1);
		if (open(DEVICE, O_RDWR) >= 0 || errno != EACCES)
			_exit(2);
		if (open(DEVICE, O_RDONLY) >= 0 || errno != EACCES)
			_exit(3);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

/* The device can be open more than once. */
TEST_F(device, open_twice)
{
	int other;

	other = open(DEVICE, O_RDWR);
	EXPECT_LE(0, other);
	EXPECT_EQ(0, close(other));
}

/* The device itself has no read() and no write(). */
TEST_F(device, device_no_data)
{
	struct message msg;

	fill(&msg, 10, 0);
	EXPECT_EQ(-1, read(self->dev, &msg, sizeof(msg)));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(self->dev, &msg, HDR_LEN + 10));
	EXPECT_EQ(EINVAL, errno);
}

/* A handle is close-on-exec and blocking. */
TEST_F(device, handle_flags)
{
	int fd;

	fd = create_handle(self->dev, SOURCE_A);
	ASSERT_LE(0, fd);
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
	EXPECT_EQ(O_RDWR, fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
	EXPECT_EQ(0, close(fd));
}

/* A handle works after the device file is closed. */
TEST_F(device, handle_outlives)
{
	int dev, fd;

	dev = open(DEVICE, O_RDWR);
	ASSERT_LE(0, dev);
	fd = create_handle(dev, SOURCE_A);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, close(dev));
	EXPECT_TRUE(echoes(fd, 100, 1));
	EXPECT_EQ(0, close(fd));
}

/* The ioctl says EFAULT for a bad pointer. */
TEST_F(device, ioctl_fault)
{
	char *hole = before_a_hole(2);

	ASSERT_NE(NULL, hole);
	EXPECT_EQ(-1, ioctl(self->dev, PAPR_HVPIPE_IOC_CREATE_HANDLE, NULL));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, ioctl(self->dev, PAPR_HVPIPE_IOC_CREATE_HANDLE, -1L));
	EXPECT_EQ(EFAULT, errno);
	/* Half of the source ID. */
	EXPECT_EQ(-1, ioctl(self->dev, PAPR_HVPIPE_IOC_CREATE_HANDLE, hole));
	EXPECT_EQ(EFAULT, errno);
}

/* The ioctl says EINVAL for a source that is no HMC. */
TEST_F(device, ioctl_no_hmc)
{
	static const __u32 sources[] = {
		0, 1, 0x00000001, 0x01000001, 0x03000001, 0x20000001,
		0x82000001, 0xff000001, 0xffffffff,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sources); i++) {
		EXPECT_EQ(-1, create_handle(self->dev, sources[i]));
		EXPECT_EQ(EINVAL, errno) {
			TH_LOG("source 0x%08x", sources[i]);
		}
	}
}

/* The ioctl says EINVAL for reserved bits. */
TEST_F(device, ioctl_reserved)
{
	int bit;

	for (bit = 16; bit < 24; bit++) {
		EXPECT_EQ(-1, create_handle(self->dev, SOURCE_A | 1 << bit));
		EXPECT_EQ(EINVAL, errno) {
			TH_LOG("bit %d", bit);
		}
	}
}

/* The ioctl says EALREADY for a source in use. */
TEST_F(device, ioctl_in_use)
{
	int other, fd, status;
	pid_t pid;

	fd = create_handle(self->dev, SOURCE_A);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, create_handle(self->dev, SOURCE_A));
	EXPECT_EQ(EALREADY, errno);

	other = open(DEVICE, O_RDWR);
	ASSERT_LE(0, other);
	EXPECT_EQ(-1, create_handle(other, SOURCE_A));
	EXPECT_EQ(EALREADY, errno);

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int dev = open(DEVICE, O_RDWR);

		_exit(create_handle(dev, SOURCE_A) >= 0 || errno != EALREADY);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);

	/* The failures took nothing away from the handle. */
	EXPECT_TRUE(echoes(fd, 100, 1));
	EXPECT_EQ(0, close(fd));
	fd = create_handle(other, SOURCE_A);
	EXPECT_LE(0, fd);
	EXPECT_EQ(0, close(fd));
	EXPECT_EQ(0, close(other));
}

/* Any other command is ENOTTY. */
TEST_F(device, ioctl_unknown)
{
	static const unsigned int commands[] = {
		0, 9, _IO(0xb2, 9), _IOR(0xb2, 9, __u32), _IOW(0xb2, 8, __u32),
		_IOW(0xb2, 10, __u32), _IOW(0xb2, 9, __u64), _IOW(0xb1, 9, __u32),
		_IOWR(0xb2, 9, __u32), 0xffffffff,
	};
	__u32 source = SOURCE_A;
	void *const args[] = { &source, NULL, (void *)-1L };
	size_t i, j;
	int fd;

	fd = create_handle(self->dev, SOURCE_A);
	ASSERT_LE(0, fd);
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		for (j = 0; j < ARRAY_SIZE(args); j++) {
			EXPECT_EQ(-1, ioctl(self->dev, commands[i], args[j]));
			EXPECT_EQ(ENOTTY, errno) {
				TH_LOG("device, command 0x%x, argument %p",
				       commands[i], args[j]);
			}
			EXPECT_EQ(-1, ioctl(fd, commands[i], args[j]));
			EXPECT_EQ(ENOTTY, errno) {
				TH_LOG("handle, command 0x%x, argument %p",
				       commands[i], args[j]);
			}
		}
	}
	/* Nor does a handle make handles. */
	EXPECT_EQ(-1, create_handle(fd, SOURCE_B));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(0, close(fd));
}

/* Without a free descriptor no handle is left. */
TEST_F(device, ioctl_emfile)
{
	struct rlimit limit, none;
	int fd;

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	none = limit;
	none.rlim_cur = self->dev + 1;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	fd = create_handle(self->dev, SOURCE_A);
	EXPECT_EQ(-1, fd);
	EXPECT_EQ(EMFILE, errno);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));

	fd = create_handle(self->dev, SOURCE_A);
	EXPECT_LE(0, fd);
	EXPECT_EQ(0, close(fd));
}

/* Many sources have a handle each. */
TEST_F(device, many_handles)
{
	const int count = 500;
	long long before;
	int fds[500];
	int i;

	before = fdinfo_number(self->dev, "handles");
	for (i = 0; i < count; i++) {
		fds[i] = create_handle(self->dev, 0x02008000 + i);
		ASSERT_LE(0, fds[i]);
	}
	EXPECT_EQ(before + count, fdinfo_number(self->dev, "handles"));
	for (i = 0; i < count; i++)
		EXPECT_EQ(0, close(fds[i]));
	EXPECT_EQ(before, fdinfo_number(self->dev, "handles"));
}

/* The device's fdinfo has state, handles and drops. */
TEST_F(device, device_fdinfo)
{
	char state[32];
	int fd;

	ASSERT_TRUE(fdinfo_value(self->dev, "state", state, sizeof(state)));
	EXPECT_STREQ("enabled", state);
	EXPECT_EQ(0, fdinfo_number(self->dev, "handles"));
	EXPECT_LE(0, fdinfo_number(self->dev, "dropped"));

	fd = create_handle(self->dev, SOURCE_A);
	ASSERT_LE(0, fd);
	EXPECT_EQ(1, fdinfo_number(self->dev, "handles"));
	EXPECT_EQ(0, close(fd));
	EXPECT_EQ(0, fdinfo_number(self->dev, "handles"));
}

static __be32 rtas_token(const char *name)
{
	char path[128];
	__be32 token;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/device-tree/rtas/%s", name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return 0;
	n = read(fd, &token, sizeof(token));
	close(fd);
	return n == sizeof(token) ? token : 0;
}

/* User space's way to RTAS must not lead around the driver. */
TEST_F(device, sys_rtas)
{
	struct {
		__be32 token, nargs, nret;
		__be32 args[16];
		__u64 rets;
	} call = { 0 };

	/* That it works at all: the time of day. */
	call.token = rtas_token("get-time-of-day");
	ASSERT_NE(0, call.token);
	call.nret = htobe32(8);
	EXPECT_EQ(0, syscall(__NR_rtas, &call));

	memset(&call, 0, sizeof(call));
	call.token = rtas_token("ibm,send-hvpipe-msg");
	ASSERT_NE(0, call.token);
	call.nargs = htobe32(2);
	call.nret = htobe32(1);
	call.args[0] = htobe32(SOURCE_A);
	EXPECT_EQ(-1, syscall(__NR_rtas, &call));
	EXPECT_EQ(EINVAL, errno);

	memset(&call, 0, sizeof(call));
	call.token = rtas_token("ibm,receive-hvpipe-msg");
	ASSERT_NE(0, call.token);
	call.nargs = htobe32(2);
	call.nret = htobe32(3);
	call.args[1] = htobe32(4096);
	EXPECT_EQ(-1, syscall(__NR_rtas, &call));
	EXPECT_EQ(EINVAL, errno);
}

/*
 * Two sources that echo.
 */

FIXTURE(pair)
{
	int dev;
	int a;
	int b;
};

/*
 * What an earlier test left in the pipe comes before what is sent now, as the
 * pipe keeps the order. So a message through each source flushes it.
 */
static bool flush(int fd)
{
	static unsigned int count;
	struct message msg;
	unsigned int mark[3];

	mark[0] = 0x466c7573;
	mark[1] = getpid();
	mark[2] = count++;
	memset(&msg.hdr, 0, sizeof(msg.hdr));
	memcpy(msg.payload, mark, sizeof(mark));
	if (write(fd, &msg, HDR_LEN + sizeof(mark)) != HDR_LEN + sizeof(mark))
		return false;
	do {
		memset(&msg, 0, sizeof(msg));
		if (poll_for(fd, POLLIN, SOON) != POLLIN ||
		    read(fd, &msg, PORTABLE_ROOM) < 0)
			return false;
	} while (memcmp(msg.payload, mark, sizeof(mark)));
	return true;
}

FIXTURE_SETUP(pair)
{
	self->dev = open(DEVICE, O_RDWR);
	if (self->dev < 0 && errno == ENOENT)
		SKIP(return, "no " DEVICE);
	ASSERT_LE(0, self->dev);
	if (!may_send())
		SKIP(return, "not in QEMU: set PAPR_HVPIPE_ECHO if sources echo");
	self->a = create_handle(self->dev, SOURCE_A);
	ASSERT_LE(0, self->a);
	self->b = create_handle(self->dev, SOURCE_B);
	ASSERT_LE(0, self->b);
	ASSERT_TRUE(flush(self->a));
	ASSERT_TRUE(flush(self->b));
}

FIXTURE_TEARDOWN(pair)
{
	close(self->b);
	close(self->a);
	close(self->dev);
}

/* Payloads of all sizes go both ways. */
TEST_F_TIMEOUT(pair, all_sizes, 300)
{
	size_t len;

	for (len = 1; len <= send_limit(); len++)
		ASSERT_TRUE(echoes(self->a, len, len));
	EXPECT_EQ(0, poll_for(self->a, POLLIN, 0));
}

/* write() says EINVAL for any other size. */
TEST_F(pair, write_bad_sizes)
{
	static const size_t sizes[] = {
		0, 1, 47, 48, HDR_LEN + MAX_PAYLOAD + 1, 8192, 1 << 20,
	};
	char *buf = calloc(1, 1 << 20);
	size_t i;

	ASSERT_NE(NULL, buf);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		EXPECT_EQ(-1, write(self->a, buf, sizes[i])) {
			TH_LOG("%zu bytes", sizes[i]);
		}
		EXPECT_EQ(EINVAL, errno);
	}
	/* The limits themselves. */
	EXPECT_TRUE(echoes(self->a, 1, 1));
	EXPECT_TRUE(echoes(self->a, send_limit(), 2));
	EXPECT_TRUE(is_quiet(self->a));
	free(buf);
}

/* write() ignores the header. */
TEST_F(pair, write_header)
{
	struct message msg;

	fill(&msg, 100, 1);
	memset(&msg.hdr, 0xff, sizeof(msg.hdr));
	EXPECT_EQ(HDR_LEN + 100, write(self->a, &msg, HDR_LEN + 100));
	EXPECT_TRUE(receive_seed(self->a, 100, 1));

	msg.hdr.version = 1;
	msg.hdr.flags = HVPIPE_LOST_CONNECTION;
	EXPECT_EQ(HDR_LEN + 100, write(self->a, &msg, HDR_LEN + 100));
	EXPECT_TRUE(receive_seed(self->a, 100, 1));
}

/* write() that faults sends nothing. */
TEST_F(pair, write_fault)
{
	long long sent = fdinfo_number(self->a, "sent");
	size_t readable;
	char *buf;

	EXPECT_EQ(-1, write(self->a, (void *)-4096L, HDR_LEN + 100));
	EXPECT_EQ(EFAULT, errno);

	/* The end of the payload cannot be read: all of it, half, a byte. */
	for (readable = 0; readable < 100; readable += 33) {
		buf = before_a_hole(HDR_LEN + readable);
		ASSERT_NE(NULL, buf);
		EXPECT_EQ(-1, write(self->a, buf, HDR_LEN + 100));
		EXPECT_EQ(EFAULT, errno);
	}
	/* Its beginning. */
	buf = behind_a_hole(HDR_LEN + 1, 99);
	ASSERT_NE(NULL, buf);
	EXPECT_EQ(-1, write(self->a, buf, HDR_LEN + 100));
	EXPECT_EQ(EFAULT, errno);

	EXPECT_TRUE(is_quiet(self->a));
	EXPECT_EQ(sent, fdinfo_number(self->a, "sent"));
	EXPECT_TRUE(echoes(self->a, 100, 1));
}

/* Pages that are not there yet are no fault. */
TEST_F(pair, paged_in)
{
	long page = sysconf(_SC_PAGESIZE);
	struct papr_hvpipe_hdr hdr;
	char *map, zero = 0;

	map = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	EXPECT_EQ(HDR_LEN + 2000, write(self->a, map + page - HDR_LEN - 1000,
					HDR_LEN + 2000));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	EXPECT_EQ(HDR_LEN + 2000, read(self->a, map + 2 * page - HDR_LEN - 1000,
				       HDR_LEN + 2000));
	memcpy(&hdr, map + 2 * page - HDR_LEN - 1000, HDR_LEN);
	EXPECT_EQ(HVPIPE_MSG_AVAILABLE, hdr.flags);
	EXPECT_EQ(0, memcmp(map + 2 * page - 1000, &zero, 1));
	EXPECT_EQ(0, munmap(map, 3 * page));
}

/* A page that is missing until this process provides it. */
struct missing_page {
	int fd;
	char *page;
	size_t size;
};

static bool missing_page(struct missing_page *m)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	m->size = sysconf(_SC_PAGESIZE);
	m->page = mmap(NULL, m->size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	m->fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (m->page == MAP_FAILED || m->fd < 0 || ioctl(m->fd, UFFDIO_API, &api))
		return false;
	reg.range.start = (unsigned long)m->page;
	reg.range.len = m->size;
	return !ioctl(m->fd, UFFDIO_REGISTER, &reg);
}

/* Wait until somebody waits for the page. */
static bool page_is_awaited(const struct missing_page *m)
{
	struct uffd_msg msg;

	return poll_for(m->fd, POLLIN, SOON) == POLLIN &&
	       read(m->fd, &msg, sizeof(msg)) == sizeof(msg) &&
	       msg.event == UFFD_EVENT_PAGEFAULT;
}

static bool provide_page(const struct missing_page *m, const void *content)
{
	struct uffdio_copy copy = {
		.dst = (unsigned long)m->page,
		.src = (unsigned long)content,
		.len = m->size,
	};

	return !ioctl(m->fd, UFFDIO_COPY, &copy);
}

struct call {
	pthread_t thread;
	ssize_t (*function)(const struct call *call);
	int fd;
	void *buf;
	ssize_t result;
};

static ssize_t call_write(const struct call *call)
{
	return write(call->fd, call->buf, HDR_LEN + 100);
}

static ssize_t call_read(const struct call *call)
{
	return read(call->fd, call->buf, PORTABLE_ROOM);
}

static void *make_call(void *arg)
{
	struct call *call = arg;

	call->result = call->function(call);
	return NULL;
}

/* A page that does not come stops its writer alone. */
TEST_F(pair, write_stuck_page)
{
	struct call call = { .function = call_write, .fd = self->a };
	struct missing_page m;
	struct message *msg;

	if (!missing_page(&m))
		SKIP(return, "no userfaultfd");
	msg = aligned_alloc(m.size, m.size);
	ASSERT_NE(NULL, msg);
	fill(msg, 100, 1);
	call.buf = m.page;
	ASSERT_EQ(0, pthread_create(&call.thread, NULL, make_call, &call));
	ASSERT_TRUE(page_is_awaited(&m));

	EXPECT_TRUE(echoes(self->b, 100, 2));
	EXPECT_TRUE(echoes(self->a, 100, 3));

	EXPECT_TRUE(provide_page(&m, msg));
	EXPECT_EQ(0, pthread_join(call.thread, NULL));
	EXPECT_EQ(HDR_LEN + 100, call.result);
	EXPECT_TRUE(receive_seed(self->a, 100, 1));
	EXPECT_TRUE(is_quiet(self->a));
}

/* A page that does not come stops its reader alone. */
TEST_F(pair, read_stuck_page)
{
	struct call call = { .function = call_read, .fd = self->a };
	struct message expected;
	struct missing_page m;
	void *zeros;

	if (!missing_page(&m))
		SKIP(return, "no userfaultfd");
	zeros = aligned_alloc(m.size, m.size);
	ASSERT_NE(NULL, zeros);
	memset(zeros, 0, m.size);
	call.buf = m.page;
	EXPECT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	ASSERT_EQ(0, pthread_create(&call.thread, NULL, make_call, &call));
	ASSERT_TRUE(page_is_awaited(&m));

	/* The message has left the pipe, and who comes first reads it. */
	EXPECT_TRUE(echoes(self->b, 100, 2));
	EXPECT_TRUE(receive_seed(self->a, 100, 1));
	EXPECT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 3));
	EXPECT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));

	EXPECT_TRUE(provide_page(&m, zeros));
	EXPECT_EQ(0, pthread_join(call.thread, NULL));
	EXPECT_EQ(HDR_LEN + 100, call.result);
	fill(&expected, 100, 3);
	expected.hdr.flags = HVPIPE_MSG_AVAILABLE;
	EXPECT_EQ(0, memcmp(m.page, &expected, HDR_LEN + 100));
	EXPECT_TRUE(is_quiet(self->a));
}

/* writev() gathers. */
TEST_F(pair, writev)
{
	static const size_t splits[] = { 1, 7, 47, 48, 49, 100, 147 };
	struct message msg;
	struct iovec iov[IOV_MAX];
	size_t i;

	fill(&msg, 100, 1);
	for (i = 0; i < ARRAY_SIZE(splits); i++) {
		iov[0].iov_base = &msg;
		iov[0].iov_len = splits[i];
		iov[1].iov_base = NULL;
		iov[1].iov_len = 0;
		iov[2].iov_base = (char *)&msg + splits[i];
		iov[2].iov_len = HDR_LEN + 100 - splits[i];
		EXPECT_EQ(HDR_LEN + 100, writev(self->a, iov, 3));
		EXPECT_TRUE(receive_seed(self->a, 100, 1)) {
			TH_LOG("split at %zu", splits[i]);
		}
	}

	for (i = 0; i < (size_t)HDR_LEN + 100; i++) {
		iov[i].iov_base = (char *)&msg + i;
		iov[i].iov_len = 1;
	}
	EXPECT_EQ(HDR_LEN + 100, writev(self->a, iov, i));
	EXPECT_TRUE(receive_seed(self->a, 100, 1));

	/* One message a call, and one size limit for all pieces together. */
	iov[0].iov_base = &msg;
	iov[0].iov_len = HDR_LEN;
	iov[1].iov_base = msg.payload;
	iov[1].iov_len = MAX_PAYLOAD;
	iov[2].iov_base = msg.payload;
	iov[2].iov_len = 1;
	EXPECT_EQ(-1, writev(self->a, iov, 3));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, writev(self->a, iov, 1));
	EXPECT_EQ(EINVAL, errno);

	iov[1].iov_base = NULL;
	iov[1].iov_len = 10;
	EXPECT_EQ(-1, writev(self->a, iov, 2));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(is_quiet(self->a));
}

/* write() to a source that the hypervisor does not know fails. */
TEST_F(pair, write_unknown)
{
	int fd;

	fd = create_handle(self->dev, SOURCE_UNKNOWN);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, send_seed(fd, 100, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, fdinfo_number(fd, "sent"));
	EXPECT_TRUE(is_quiet(fd));
	EXPECT_TRUE(echoes(self->a, 100, 2));
	EXPECT_EQ(0, close(fd));
}

/* write() works with O_NONBLOCK. */
TEST_F(pair, write_nonblock)
{
	ASSERT_EQ(0, fcntl(self->a, F_SETFL, O_NONBLOCK));
	EXPECT_TRUE(echoes(self->a, 100, 1));
}

/* read() with nothing pending returns at once. */
TEST_F(pair, read_nothing)
{
	struct message msg, poison;

	memset(&poison, 0xa5, sizeof(poison));
	memcpy(&msg, &poison, sizeof(msg));
	EXPECT_EQ(0, read(self->a, &msg, PORTABLE_ROOM));
	EXPECT_EQ(0, read(self->a, &msg, HDR_LEN));

	ASSERT_EQ(0, fcntl(self->a, F_SETFL, O_NONBLOCK));
	EXPECT_EQ(-1, read(self->a, &msg, PORTABLE_ROOM));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, memcmp(&msg, &poison, sizeof(msg)));
}

/* read() needs room for the header. */
TEST_F(pair, read_tiny)
{
	char buf[64];

	EXPECT_EQ(-1, read(self->a, buf, HDR_LEN - 1));
	EXPECT_EQ(EINVAL, errno);

	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	EXPECT_EQ(-1, read(self->a, buf, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, read(self->a, buf, HDR_LEN - 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(receive_seed(self->a, 100, 1));
}

/* read() takes any buffer that is large enough. */
TEST_F(pair, read_buffers)
{
	struct papr_hvpipe_hdr *hdr;
	const size_t large = 1 << 20;
	struct message expected;
	unsigned char *buf;
	size_t i, room;

	fill(&expected, 100, 1);
	buf = malloc(large);
	ASSERT_NE(NULL, buf);
	for (room = HDR_LEN + 100; room <= large; room = room * 2 + 1) {
		memset(buf, 0xa5, large);
		ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
		ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
		EXPECT_EQ(HDR_LEN + 100, read(self->a, buf, room));
		hdr = (struct papr_hvpipe_hdr *)buf;
		EXPECT_EQ(HVPIPE_MSG_AVAILABLE, hdr->flags);
		EXPECT_EQ(0, memcmp(buf + HDR_LEN, expected.payload, 100));
		/* Nothing is written behind what was returned. */
		for (i = HDR_LEN + 100; i < room && buf[i] == 0xa5; i++)
			;
		EXPECT_EQ(room, i);
	}
	free(buf);
}

/* The header is zero but for the flags. */
TEST_F(pair, header_zero)
{
	unsigned char poison[HDR_LEN + 100];
	struct papr_hvpipe_hdr hdr = { .flags = HVPIPE_MSG_AVAILABLE };

	memset(poison, 0xa5, sizeof(poison));
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	ASSERT_EQ(HDR_LEN + 100, read(self->a, poison, sizeof(poison)));
	EXPECT_EQ(0, memcmp(poison, &hdr, HDR_LEN));
}

/* A short buffer leaves the message. */
TEST_F(pair, read_short)
{
	static const size_t rooms[] = { 0, 1, 50, 99 };
	char buf[HDR_LEN + 100];
	size_t i;

	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	for (i = 0; i < ARRAY_SIZE(rooms); i++) {
		ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
		EXPECT_EQ(-1, read(self->a, buf, HDR_LEN + rooms[i]));
		EXPECT_EQ(EMSGSIZE, errno) {
			TH_LOG("room for %zu bytes", rooms[i]);
		}
		EXPECT_EQ(1, fdinfo_number(self->a, "held"));
		EXPECT_EQ(POLLIN, poll_for(self->a, POLLIN, 0));
	}
	/* What is held does not block the pipe for others. */
	EXPECT_TRUE(echoes(self->b, 50, 2));
	EXPECT_TRUE(receive_seed(self->a, 100, 1));
	EXPECT_EQ(0, fdinfo_number(self->a, "held"));
	EXPECT_TRUE(is_quiet(self->a));
}

/* A buffer that faults leaves the message. */
TEST_F(pair, read_fault)
{
	size_t writable;
	char *buf;

	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	EXPECT_EQ(-1, read(self->a, (void *)-4096L, HDR_LEN + 100));
	EXPECT_EQ(EFAULT, errno);

	/* The header, none of the payload, half of it, all but a byte. */
	for (writable = HDR_LEN - 24; writable < (size_t)HDR_LEN + 100; writable += 41) {
		buf = before_a_hole(writable);
		ASSERT_NE(NULL, buf);
		EXPECT_EQ(POLLIN, poll_for(self->a, POLLIN, 0));
		EXPECT_EQ(-1, read(self->a, buf, HDR_LEN + 100));
		EXPECT_EQ(EFAULT, errno) {
			TH_LOG("%zu bytes writable", writable);
		}
	}
	buf = behind_a_hole(HDR_LEN, 100);
	ASSERT_NE(NULL, buf);
	EXPECT_EQ(-1, read(self->a, buf, HDR_LEN + 100));
	EXPECT_EQ(EFAULT, errno);

	EXPECT_EQ(POLLIN, poll_for(self->a, POLLIN, 0));
	EXPECT_TRUE(receive_seed(self->a, 100, 1));
	EXPECT_TRUE(is_quiet(self->a));
}

/* Room that is not needed is not touched. */
TEST_F(pair, read_hole_behind)
{
	char *buf = before_a_hole(HDR_LEN + 100);

	ASSERT_NE(NULL, buf);
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	EXPECT_EQ(HDR_LEN + 100, read(self->a, buf, 4096));
}

/* The order survives a message that is held. */
TEST_F(pair, held_in_order)
{
	char buf[HDR_LEN];
	int i;

	for (i = 0; i < 5; i++)
		ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, i));
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
		EXPECT_EQ(-1, read(self->a, buf, sizeof(buf)));
		EXPECT_EQ(EMSGSIZE, errno);
		EXPECT_TRUE(receive_seed(self->a, 100, i));
	}
}

/* readv() scatters. */
TEST_F(pair, readv)
{
	static const size_t splits[] = { 1, 7, 47, 48, 49, 100, 147 };
	struct message msg, expected;
	struct iovec iov[IOV_MAX];
	size_t i;

	fill(&expected, 100, 1);
	expected.hdr.flags = HVPIPE_MSG_AVAILABLE;
	for (i = 0; i < ARRAY_SIZE(splits); i++) {
		memset(&msg, 0xa5, sizeof(msg));
		iov[0].iov_base = &msg;
		iov[0].iov_len = splits[i];
		iov[1].iov_base = NULL;
		iov[1].iov_len = 0;
		iov[2].iov_base = (char *)&msg + splits[i];
		iov[2].iov_len = HDR_LEN + 100 - splits[i];
		ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
		ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
		EXPECT_EQ(HDR_LEN + 100, readv(self->a, iov, 3));
		EXPECT_EQ(0, memcmp(&msg, &expected, HDR_LEN + 100)) {
			TH_LOG("split at %zu", splits[i]);
		}
	}

	memset(&msg, 0xa5, sizeof(msg));
	for (i = 0; i < (size_t)HDR_LEN + 100; i++) {
		iov[i].iov_base = (char *)&msg + i;
		iov[i].iov_len = 1;
	}
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	EXPECT_EQ(-1, readv(self->a, iov, i - 1));
	EXPECT_EQ(EMSGSIZE, errno);
	EXPECT_EQ(HDR_LEN + 100, readv(self->a, iov, i));
	EXPECT_EQ(0, memcmp(&msg, &expected, HDR_LEN + 100));

	/* A piece that cannot be written leaves the message. */
	iov[0].iov_base = &msg;
	iov[0].iov_len = HDR_LEN + 50;
	iov[1].iov_base = NULL;
	iov[1].iov_len = 50;
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 2));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	EXPECT_EQ(-1, readv(self->a, iov, 2));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(receive_seed(self->a, 100, 2));
}

/*
 * The event for the second message may come before ibm,receive-hvpipe-msg
 * returned the first. Who forgets announcements only then forgets that one.
 */
TEST_F(pair, read_one_each)
{
	int i, j;

	for (i = 0; i < 10; i++) {
		for (j = 0; j < 10; j++)
			ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, j));
		for (j = 0; j < 10; j++)
			ASSERT_TRUE(receive_seed(self->a, 100, j));
		EXPECT_EQ(0, poll_for(self->a, POLLIN, 0));
	}
	EXPECT_TRUE(is_quiet(self->a));
}

/* Sources see only their own messages. */
TEST_F(pair, sources_apart)
{
	int i;

	for (i = 0; i < 20; i++) {
		ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 2 * i));
		ASSERT_EQ(HDR_LEN + 200, send_seed(self->b, 200, 2 * i + 1));
	}
	for (i = 0; i < 20; i++) {
		ASSERT_TRUE(receive_seed(self->a, 100, 2 * i));
		ASSERT_TRUE(receive_seed(self->b, 200, 2 * i + 1));
	}
	EXPECT_TRUE(is_quiet(self->a));
	EXPECT_TRUE(is_quiet(self->b));
}

/* read() takes no message of another source. */
TEST_F(pair, read_own_only)
{
	char buf[sizeof(struct message)];

	ASSERT_EQ(HDR_LEN + 100, send_seed(self->b, 100, 1));
	ASSERT_EQ(POLLIN, poll_for(self->b, POLLIN, SOON));
	EXPECT_EQ(0, poll_for(self->a, POLLIN, 0));
	EXPECT_EQ(0, read(self->a, buf, PORTABLE_ROOM));
	EXPECT_EQ(POLLIN, poll_for(self->b, POLLIN, 0));
	EXPECT_TRUE(receive_seed(self->b, 100, 1));
}

/* poll() says OUT always, and IN when there is a message. */
TEST_F(pair, poll_in_out)
{
	const short all = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM |
			  POLLRDHUP | POLLPRI;
	const short out = POLLOUT | POLLWRNORM;
	const short in = POLLIN | POLLRDNORM;

	EXPECT_EQ(out, poll_for(self->a, all, 0));
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	EXPECT_EQ(out | in, poll_for(self->a, all, 0));
	EXPECT_EQ(out, poll_for(self->b, all, 0));
	EXPECT_TRUE(receive_seed(self->a, 100, 1));
	EXPECT_EQ(out, poll_for(self->a, all, 0));
}

struct poller {
	pthread_t thread;
	int fd;
	int seen;
};

static void *poller(void *arg)
{
	struct poller *self = arg;

	self->seen = poll_for(self->fd, POLLIN | POLLRDHUP, SOON);
	return NULL;
}

/* A message wakes a poller. */
TEST_F(pair, poll_wakes)
{
	struct poller a = { .fd = self->a }, b = { .fd = self->b };

	ASSERT_EQ(0, pthread_create(&a.thread, NULL, poller, &a));
	ASSERT_EQ(0, pthread_create(&b.thread, NULL, poller, &b));
	usleep(A_WHILE * 1000);
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	EXPECT_EQ(0, pthread_join(a.thread, NULL));
	EXPECT_EQ(POLLIN, a.seen);

	/* b's sleeps on until its own comes. */
	usleep(A_WHILE * 1000);
	EXPECT_EQ(0, b.seen);
	EXPECT_TRUE(receive_seed(self->a, 100, 1));
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->b, 100, 2));
	EXPECT_EQ(0, pthread_join(b.thread, NULL));
	EXPECT_EQ(POLLIN, b.seen);
	EXPECT_TRUE(receive_seed(self->b, 100, 2));
}

/* b's message stands behind a's in the pipe, and comes when that is read. */
TEST_F(pair, poll_next)
{
	struct poller b = { .fd = self->b };

	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->b, 100, 2));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	ASSERT_EQ(0, pthread_create(&b.thread, NULL, poller, &b));
	usleep(A_WHILE * 1000);
	EXPECT_TRUE(receive_seed(self->a, 100, 1));
	EXPECT_EQ(0, pthread_join(b.thread, NULL));
	EXPECT_EQ(POLLIN, b.seen);
	EXPECT_TRUE(receive_seed(self->b, 100, 2));
}

/* Edge-triggered epoll sees each message. */
TEST_F(pair, epoll_edge)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int ep, i;

	ep = epoll_create1(EPOLL_CLOEXEC);
	ASSERT_LE(0, ep);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->a, &event));
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, i));
		ASSERT_EQ(1, epoll_wait(ep, &event, 1, SOON));
		EXPECT_EQ(EPOLLIN, event.events);
		EXPECT_TRUE(receive_seed(self->a, 100, i));
		EXPECT_EQ(0, epoll_wait(ep, &event, 1, 0));
	}
	EXPECT_EQ(0, close(ep));
}

/* close() drops the message that is pending. */
TEST_F(pair, close_pending)
{
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	ASSERT_EQ(0, close(self->a));

	/* The pipe goes on, and who opens the source next starts afresh. */
	EXPECT_TRUE(echoes(self->b, 100, 2));
	self->a = create_handle(self->dev, SOURCE_A);
	ASSERT_LE(0, self->a);
	EXPECT_EQ(0, fdinfo_number(self->a, "received"));
	EXPECT_TRUE(is_quiet(self->a));
	EXPECT_TRUE(echoes(self->a, 100, 3));
}

/* close() drops the messages that are held. */
TEST_F(pair, close_held)
{
	char buf[HDR_LEN];

	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
	EXPECT_EQ(-1, read(self->a, buf, sizeof(buf)));
	EXPECT_EQ(EMSGSIZE, errno);
	EXPECT_EQ(0, close(self->a));

	self->a = create_handle(self->dev, SOURCE_A);
	ASSERT_LE(0, self->a);
	EXPECT_EQ(0, fdinfo_number(self->a, "held"));
	EXPECT_TRUE(is_quiet(self->a));
	EXPECT_TRUE(echoes(self->a, 100, 2));
}

/* Messages for nobody are drained and counted. */
TEST_F(pair, drained_counted)
{
	long long dropped = fdinfo_number(self->dev, "dropped");
	int i;

	ASSERT_LE(0, dropped);
	for (i = 0; i < 10; i++)
		ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, i));
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->b, 100, 10));
	ASSERT_EQ(0, close(self->a));

	/* b's message stands behind all of them. */
	EXPECT_TRUE(receive_seed(self->b, 100, 10));
	EXPECT_EQ(dropped + 10, wait_dropped(self->dev, dropped + 10));

	self->a = create_handle(self->dev, SOURCE_A);
	ASSERT_LE(0, self->a);
	EXPECT_TRUE(is_quiet(self->a));
	EXPECT_TRUE(echoes(self->a, 100, 11));
}

/* An exit closes the handle. */
TEST_F(pair, exit_closes)
{
	int status, i;
	pid_t pid;

	ASSERT_EQ(0, close(self->a));
	for (i = 0; i < 10; i++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			int fd = create_handle(self->dev, SOURCE_A);

			send_seed(fd, 100, i);
			send_seed(fd, 100, i);
			raise(SIGKILL);
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status));
		EXPECT_TRUE(echoes(self->b, 100, i));
	}
	self->a = create_handle(self->dev, SOURCE_A);
	ASSERT_LE(0, self->a);
	EXPECT_TRUE(flush(self->a));
}

/* A handle's fdinfo has what passed. */
TEST_F(pair, handle_fdinfo)
{
	long long sent, sent_bytes, received, received_bytes;
	char value[64], path[64], buf[HDR_LEN];
	ssize_t n;

	ASSERT_TRUE(fdinfo_value(self->b, "source", value, sizeof(value)));
	EXPECT_STREQ("0x02000002", value);
	ASSERT_TRUE(fdinfo_value(self->b, "state", value, sizeof(value)));
	EXPECT_STREQ("open", value);

	sent = fdinfo_number(self->b, "sent");
	sent_bytes = fdinfo_number(self->b, "sent-bytes");
	received = fdinfo_number(self->b, "received");
	received_bytes = fdinfo_number(self->b, "received-bytes");
	EXPECT_EQ(0, fdinfo_number(self->b, "held"));

	EXPECT_TRUE(echoes(self->b, 1, 1));
	EXPECT_TRUE(echoes(self->b, send_limit(), 2));
	EXPECT_TRUE(echoes(self->a, 100, 3));
	EXPECT_EQ(-1, send_seed(self->b, 0, 4));
	EXPECT_EQ(sent + 2, fdinfo_number(self->b, "sent"));
	EXPECT_EQ(sent_bytes + 1 + (long long)send_limit(), fdinfo_number(self->b, "sent-bytes"));
	EXPECT_EQ(received + 2, fdinfo_number(self->b, "received"));
	EXPECT_EQ(received_bytes + 1 + (long long)send_limit(),
		  fdinfo_number(self->b, "received-bytes"));
	EXPECT_EQ(0, fdinfo_number(self->b, "held"));

	ASSERT_EQ(HDR_LEN + 10, send_seed(self->b, 10, 5));
	ASSERT_EQ(POLLIN, poll_for(self->b, POLLIN, SOON));
	EXPECT_EQ(-1, read(self->b, buf, sizeof(buf)));
	EXPECT_EQ(1, fdinfo_number(self->b, "held"));
	EXPECT_TRUE(receive_seed(self->b, 10, 5));
	EXPECT_EQ(received + 3, fdinfo_number(self->b, "received"));
	EXPECT_EQ(0, fdinfo_number(self->b, "held"));

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->b);
	n = readlink(path, value, sizeof(value) - 1);
	ASSERT_LT(0, n);
	value[n] = '\0';
	EXPECT_STREQ("anon_inode:[papr-hvpipe]", value);
}

/* A handle is a stream. */
TEST_F(pair, handle_stream)
{
	struct message msg;

	EXPECT_EQ(-1, lseek(self->a, 0, SEEK_SET));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, lseek(self->a, 0, SEEK_CUR));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, pread(self->a, &msg, sizeof(msg), 0));
	EXPECT_EQ(ESPIPE, errno);
	fill(&msg, 10, 1);
	EXPECT_EQ(-1, pwrite(self->a, &msg, HDR_LEN + 10, 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, self->a, 0));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_TRUE(is_quiet(self->a));
}

/* A duplicate keeps the handle open. */
TEST_F(pair, handle_dup)
{
	int fd;

	fd = dup(self->a);
	ASSERT_LE(0, fd);
	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	ASSERT_EQ(0, close(self->a));
	EXPECT_TRUE(receive_seed(fd, 100, 1));
	EXPECT_TRUE(echoes(fd, 100, 2));
	EXPECT_EQ(-1, create_handle(self->dev, SOURCE_A));
	EXPECT_EQ(EALREADY, errno);
	EXPECT_EQ(0, close(fd));
	self->a = create_handle(self->dev, SOURCE_A);
	EXPECT_LE(0, self->a);
}

/* A fork shares the handle. */
TEST_F(pair, handle_fork)
{
	int status;
	pid_t pid;

	ASSERT_EQ(HDR_LEN + 100, send_seed(self->a, 100, 1));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(!receive_seed(self->a, 100, 1) ||
		      send_seed(self->a, 100, 2) != HDR_LEN + 100);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(receive_seed(self->a, 100, 2));
}

struct talker {
	pthread_t thread;
	int fd;
	unsigned int seed;
	int good;
};

static void *talker(void *arg)
{
	struct talker *self = arg;
	unsigned int i;

	for (i = 0; i < 500; i++)
		self->good += echoes(self->fd, 1 + (i * 97) % send_limit(),
				     self->seed + i);
	return NULL;
}

/* Sources talk at the same time. */
TEST_F_TIMEOUT(pair, sources_parallel, 300)
{
	struct talker a = { .fd = self->a, .seed = 0x1000 };
	struct talker b = { .fd = self->b, .seed = 0x2000 };

	ASSERT_EQ(0, pthread_create(&a.thread, NULL, talker, &a));
	ASSERT_EQ(0, pthread_create(&b.thread, NULL, talker, &b));
	EXPECT_EQ(0, pthread_join(a.thread, NULL));
	EXPECT_EQ(0, pthread_join(b.thread, NULL));
	EXPECT_EQ(500, a.good);
	EXPECT_EQ(500, b.good);
	EXPECT_TRUE(is_quiet(self->a));
	EXPECT_TRUE(is_quiet(self->b));
}

static void *sender(void *arg)
{
	struct talker *self = arg;
	int i;

	for (i = 0; i < 50; i++)
		self->good += send_seed(self->fd, 100, self->seed) == HDR_LEN + 100;
	return NULL;
}

/* Threads on one handle: each message goes and comes once, in one piece. */
TEST_F(pair, handle_threads)
{
	struct talker senders[4];
	unsigned int counts[4] = { 0 };
	struct message msg, expected;
	int i, j;

	for (i = 0; i < 4; i++) {
		senders[i] = (struct talker){ .fd = self->a, .seed = i };
		ASSERT_EQ(0, pthread_create(&senders[i].thread, NULL, sender,
					    &senders[i]));
	}
	for (i = 0; i < 200; i++) {
		ASSERT_EQ(POLLIN, poll_for(self->a, POLLIN, SOON));
		ASSERT_EQ(HDR_LEN + 100, read(self->a, &msg, PORTABLE_ROOM));
		for (j = 0; j < 4; j++) {
			fill(&expected, 100, j);
			if (!memcmp(msg.payload, expected.payload, 100))
				counts[j]++;
		}
	}
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(0, pthread_join(senders[i].thread, NULL));
		EXPECT_EQ(50, senders[i].good);
		EXPECT_EQ(50, counts[i]);
	}
	EXPECT_TRUE(is_quiet(self->a));
}

TEST_HARNESS_MAIN
