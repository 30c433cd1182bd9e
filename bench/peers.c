// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Requests and replies between a partition and a process on its console's side,
 * over each channel: the hypervisor pipe, TCP on the virtual Ethernet, a virtual
 * terminal.
 *
 * usage, in the partition: peers instructions|time CHANNEL SIZE COUNT
 *        where CHANNEL is pipe=FIRST[-LAST] (source indexes), tcp=ADDRESS:PORT
 *        or terminal=DEVICE
 *        peers unit
 *        on the console's side: peers serve tcp=ADDRESS:PORT | unix=PATH
 *
 * A request of SIZE bytes is sent, the same bytes come back, and the next request
 * follows. On a stream four bytes of length precede the payload.
 *
 * "time" prints the nanoseconds of a round trip; each source has a thread.
 * "instructions" is for a hypervisor whose virtual time counts instructions
 * (QEMU's -icount shift=0), and prints how many the partition executes in a round
 * trip. Virtual time goes on while the partition waits. So a thread that runs
 * when nothing else does counts its own instructions, and these are subtracted:
 * the rest belongs to the round trip, interrupts and kernel threads included.
 *
 * Prints a line: median, 10th, 90th and 99th percentile, number of samples,
 * round trips per second.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define HEADER	    48 /* before each payload, in the pipe's ABI */
#define FRAME	    4  /* the same on a stream: be32 length of the payload */
#define MAX_PAYLOAD 4088
#define HMC	    0x02000000 /* hmcN is HMC | N */
#define MAX_THREADS 64
#define WARM_UP	    20 /* round trips before the first sample */

static bool read_all(int fd, void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read(fd, (char *)data + done, len - done);

		if (n <= 0)
			return false;
		done += n;
	}
	return true;
}

static bool write_all(int fd, const void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const char *)data + done, len - done);

		if (n <= 0)
			return false;
		done += n;
	}
	return true;
}

/* Parse ADDRESS:PORT. */
static bool tcp_address(const char *text, struct sockaddr_in *address)
{
	const char *colon = strchr(text, ':');
	char host[INET_ADDRSTRLEN];

	memset(address, 0, sizeof(*address));
	if (!colon || colon - text >= (int)sizeof(host))
		return false;
	memcpy(host, text, colon - text);
	host[colon - text] = 0;
	address->sin_family = AF_INET;
	address->sin_port = htons(atoi(colon + 1));
	return inet_pton(AF_INET, host, &address->sin_addr) == 1;
}

static void no_delay(int fd)
{
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)))
		err(1, "TCP_NODELAY");
}

/*
 * The console's side
 */

static int serve(const char *where)
{
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	struct sockaddr_in remote;
	int listener, status = 0;

	if (!strncmp(where, "tcp=", 4) && tcp_address(where + 4, &remote)) {
		listener = socket(AF_INET, SOCK_STREAM, 0);
		if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)))
			err(1, "SO_REUSEADDR");
		status = bind(listener, (struct sockaddr *)&remote, sizeof(remote));
	} else if (!strncmp(where, "unix=", 5) && strlen(where + 5) < sizeof(local.sun_path)) {
		listener = socket(AF_UNIX, SOCK_STREAM, 0);
		strcpy(local.sun_path, where + 5);
		status = bind(listener, (struct sockaddr *)&local, sizeof(local));
	} else {
		errx(2, "cannot serve '%s': tcp=ADDRESS:PORT or unix=PATH", where);
	}
	if (listener < 0 || status || listen(listener, 1))
		err(1, "%s", where);
	puts("listening");
	fflush(stdout);

	for (;;) {
		char message[FRAME + MAX_PAYLOAD];
		uint32_t length;
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			err(1, "accept");
		if (where[0] == 't')
			no_delay(fd);
		while (read_all(fd, message, FRAME)) {
			memcpy(&length, message, FRAME);
			length = ntohl(length);
			if (length > MAX_PAYLOAD)
				errx(1, "%s: a request of %u bytes", where, length);
			if (!read_all(fd, message + FRAME, length) || !write_all(fd, message, FRAME + length))
				break;
		}
		close(fd);
	}
}

#ifdef __powerpc64__
/*
 * The partition's side
 */

#define TICKS_PER_US 512 /* the timebase's rate */
#define COUNTER_LOOP 3	 /* instructions for each count */

struct client {
	int fd;
	bool stream;
	int size, count;
	pthread_t thread;
	uint64_t *samples;
};

static volatile uint64_t counted;
static pthread_barrier_t all_warm;

/* A thread that runs when nothing else does. */
static void *count_idle(void *arg)
{
	const struct sched_param param = { 0 };
	uint64_t n = 0;

	if (sched_setscheduler(0, SCHED_IDLE, &param))
		err(1, "SCHED_IDLE");
	asm volatile("1: addi %0,%0,1; std %0,0(%1); b 1b" : "+r"(n) : "b"(&counted) : "memory");
	return arg;
}

/* Nanoseconds, or instructions without those of the counting thread. */
static uint64_t now(void)
{
	uint64_t ticks;

	asm volatile("mfspr %0,268" : "=r"(ticks) : : "memory");
	return ticks * 1000 / TICKS_PER_US - COUNTER_LOOP * counted;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void print(uint64_t *samples, int count, double rate)
{
	static const int percents[] = { 50, 10, 90, 99 };

	qsort(samples, count, sizeof(samples[0]), compare);
	for (int i = 0; i < 4; i++)
		printf("%lu ", (unsigned long)samples[(count - 1) * percents[i] / 100]);
	printf("%d %.1f\n", count, rate);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static int open_source(int index)
{
	uint32_t source = HMC | index;
	int device = open("/dev/papr-hvpipe", O_RDWR);
	int fd = device < 0 ? -1 : ioctl(device, _IOW(0xb2, 9, uint32_t), &source);

	if (fd < 0)
		err(1, "hmc%d", index);
	close(device);
	return fd;
}

static int open_tcp(const char *where)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in remote;

	if (!tcp_address(where, &remote))
		errx(2, "'%s' is not ADDRESS:PORT", where);
	if (fd < 0 || connect(fd, (struct sockaddr *)&remote, sizeof(remote)))
		err(1, "%s", where);
	no_delay(fd);
	return fd;
}

static int open_terminal(const char *device)
{
	int fd = open(device, O_RDWR | O_NOCTTY);
	struct termios t;

	if (fd < 0 || tcgetattr(fd, &t))
		err(1, "%s", device);
	cfmakeraw(&t);
	if (tcsetattr(fd, TCSANOW, &t))
		err(1, "%s", device);
	return fd;
}

static void round_trip(const struct client *client, char *message, char *reply)
{
	struct pollfd pollfd = { .fd = client->fd, .events = POLLIN };
	int length = (client->stream ? FRAME : HEADER) + client->size;

	if (!write_all(client->fd, message, length))
		err(1, "write of %d bytes", length);
	if (client->stream) {
		if (!read_all(client->fd, reply, length))
			err(1, "read of %d bytes", length);
	} else if (poll(&pollfd, 1, -1) != 1 || read(client->fd, reply, HEADER + MAX_PAYLOAD) != length) {
		err(1, "read of a message of %d bytes", client->size);
	}
}

static void *run(void *arg)
{
	struct client *client = arg;
	char message[HEADER + MAX_PAYLOAD] = "", reply[HEADER + MAX_PAYLOAD];
	int header = client->stream ? FRAME : HEADER;

	for (int i = -WARM_UP; i < client->count; i++) {
		char number[8];
		uint64_t start;

		if (!i)
			pthread_barrier_wait(&all_warm);
		/* Only letters and digits: a terminal does not carry all bytes. */
		memset(message + header, 'a' + (i + WARM_UP) % 26, client->size);
		snprintf(number, sizeof(number), "%07d", (i + WARM_UP) % 10000000);
		memcpy(message + header, number, client->size < 7 ? client->size : 7);
		if (client->stream)
			memcpy(message, &(uint32_t){ htonl(client->size) }, FRAME);

		start = now();
		round_trip(client, message, reply);
		if (i >= 0)
			client->samples[i] = now() - start;
		if (memcmp(message + header, reply + header, client->size))
			errx(1, "request %d came back changed", i);
	}
	return NULL;
}

static void measure(const char *channel, int size, int count)
{
	struct client clients[MAX_THREADS];
	uint64_t *samples;
	int first, last, n = 1;
	char dash = '-';
	double start;

	if (!strncmp(channel, "pipe=", 5)) {
		int found = sscanf(channel + 5, "%d%c%d", &first, &dash, &last);

		if (found == 1)
			last = first;
		n = last - first + 1;
		if (found == 2 || found < 1 || dash != '-' || first < 1 || last > 0xffff || n < 1 || n > MAX_THREADS)
			errx(2, "'%s': pipe=FIRST[-LAST], at most %d", channel, MAX_THREADS);
	}
	samples = calloc((size_t)n * count, sizeof(*samples));
	if (!samples)
		err(1, "%d samples", count);
	for (int i = 0; i < n; i++) {
		clients[i] = (struct client){ .size = size, .count = count, .samples = samples + (size_t)i * count };
		if (!strncmp(channel, "pipe=", 5)) {
			clients[i].fd = open_source(first + i);
			continue;
		}
		clients[i].stream = true;
		if (!strncmp(channel, "tcp=", 4))
			clients[i].fd = open_tcp(channel + 4);
		else if (!strncmp(channel, "terminal=", 9))
			clients[i].fd = open_terminal(channel + 9);
		else
			errx(2, "unknown channel '%s'", channel);
	}

	pthread_barrier_init(&all_warm, NULL, n + 1);
	for (int i = 0; i < n; i++)
		if (pthread_create(&clients[i].thread, NULL, run, &clients[i]))
			errx(1, "cannot start a thread");
	pthread_barrier_wait(&all_warm);
	start = seconds();
	for (int i = 0; i < n; i++)
		pthread_join(clients[i].thread, NULL);
	print(samples, n * count, n * count / (seconds() - start));
}

/*
 * Code of known length, alone and around sleeps of 1 ms and 20 ms. What is
 * printed must be that length, and must not grow with the sleep.
 */
static void unit(void)
{
	static const int sleeps[] = { 0, 1, 20 };
	static uint64_t samples[51];

	for (int k = 0; k < 3; k++) {
		for (int i = 0; i < 51; i++) {
			const struct timespec time = { .tv_nsec = sleeps[k] * 1000000 };
			uint64_t start = now(), work = 0;

			for (int half = 0; half < 2; half++) {
				uint64_t rounds = 250000;

				asm volatile("mtctr %1; 1: addi %0,%0,1; bdnz 1b" : "+r"(work) : "r"(rounds) : "ctr");
				if (!half && sleeps[k])
					nanosleep(&time, NULL);
			}
			samples[i] = now() - start;
		}
		print(samples, 51, 0);
	}
}

static int client(int argc, char **argv)
{
	bool counting = argc > 1 && strcmp(argv[1], "time");
	pthread_t counter;
	int size, count;

	if (counting && pthread_create(&counter, NULL, count_idle, NULL))
		errx(1, "cannot start the counting thread");
	if (argc == 2 && !strcmp(argv[1], "unit")) {
		unit();
		return 0;
	}
	if (argc != 5 || (strcmp(argv[1], "instructions") && strcmp(argv[1], "time")))
		errx(2, "usage: peers instructions|time CHANNEL SIZE COUNT | unit");
	size = atoi(argv[3]);
	count = atoi(argv[4]);
	if (size < 1 || size > MAX_PAYLOAD || count < 1)
		errx(2, "size '%s' must be 1 to %d, count '%s' at least 1", argv[3], MAX_PAYLOAD, argv[4]);
	measure(argv[2], size, count);
	return 0;
}
#endif

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(argv[2]);
#ifdef __powerpc64__
	return client(argc, argv);
#else
	errx(2, "usage: peers serve tcp=ADDRESS:PORT | unix=PATH");
#endif
}
