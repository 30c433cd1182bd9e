// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The partition's end of one source for `make soak` and `make migrate`: sends numbered messages, checks those that
 * come.
 *
 *	soak-peer run FILE SOURCE KEY COUNT ECHO CLOSE	send until COUNT were sent for sure, or SIGUSR1; receive until
 *							SIGTERM
 *	soak-peer status FILE...			print a line of counts for each
 *	soak-peer dump FILE				print which sends are unknown or in doubt, and what was received
 *
 * ECHO is 1 if the source answers each message with itself. About every CLOSE messages the handle is closed for a
 * moment and reopened; 0: never. Everything that must survive kill -9 is in FILE, which is mapped: a message is
 * received into it and counted afterwards, and the next run counts a message that was received but not counted. A
 * message that was being sent when the process died goes on a list of unknown ones, as it may have been sent or not.
 *
 * One thread sends and another receives: while a send waits, messages must still be read, as all sources wait for that.
 *
 * A message is printable. Its size follows from KEY, source, direction and number, as do all bytes of one shorter than
 * HEAD; longer ones contain these and the CRC-32 of the rest. lab/traffic/messages.py makes the same messages.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "device.h"

#define HEAD	40 /* bytes of CRC, source, direction, number and size */
#define RANGES	65536
#define UNKNOWN 4096
#define DOUBTS	65536
#define AHEAD	100000 /* numbers to look ahead for a short message */
#define WINDOW	100    /* unanswered messages to an echo */

struct range {
	uint32_t first, last;
};

/* A message whose send failed @count times. It may have been taken each time; @seen repeats of the answer came. */
struct doubt {
	uint32_t number, count, seen;
};

struct memory {
	volatile uint32_t next;	    /* number to send next */
	volatile uint32_t sending;  /* number being sent, 0: none */
	volatile uint32_t sent;	    /* for sure */
	volatile uint32_t unknown;  /* entries in unknowns */
	volatile uint32_t received; /* messages, good ones */
	volatile uint32_t bad;	    /* messages that were never sent to us, or came out of order */
	volatile uint32_t ranges;   /* entries in range */
	volatile uint32_t reopened, refused, lost, recovered, runs, suspended;
	volatile uint32_t doubled; /* repeats of messages in doubt */
	volatile uint32_t doubts;  /* entries in doubt */
	uint32_t unknowns[UNKNOWN];
	struct doubt doubt[DOUBTS];
	struct range range[RANGES]; /* numbers received, in the order they came */
	char slot[HDR + MAX];	    /* the message being received */
};

static struct memory *memory;
static uint64_t key;
static uint32_t source;
static char direction; /* of incoming messages */
static uint32_t limit; /* of their numbers */
static volatile sig_atomic_t stopping, quiet;
static char out[HDR + MAX];
static int handle = -1;
static int wake[2]; /* a pipe that asks the receiver to release the handle */
static volatile int releasing;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held by the receiver while it uses the handle */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t seed_of(char dir, uint32_t number)
{
	return mix(key ^ mix((uint64_t)source << 32 | number) ^ dir);
}

static uint32_t size_of(uint64_t seed)
{
	uint64_t x = mix(seed);

	switch (x % 32) {
	case 0:
		return 1 + (x >> 8) % 64;
	case 1:
		return send_limit();
	default:
		return 1 + (x >> 8) % send_limit();
	}
}

/* Bytes that follow from @seed; they repeat after 640. */
static void fill(char *data, uint32_t size, uint64_t seed)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint64_t x = 0;

	for (uint32_t i = 0; i < size && i < 640; i++) {
		x = i % 10 ? x >> 6 : mix(seed + 1 + i / 10);
		data[i] = letters[x & 63];
	}
	for (uint32_t i = 640; i < size; i++)
		data[i] = data[i - 640];
}

static uint32_t crc_of(const char *data, size_t len)
{
	static uint32_t table[256];
	uint32_t crc = ~0u;

	for (uint32_t i = 0; !table[255] && i < 256; i++) {
		uint32_t x = i;

		for (int bit = 0; bit < 8; bit++)
			x = x >> 1 ^ (x & 1 ? 0xedb88320 : 0);
		table[i] = x;
	}
	while (len--)
		crc = table[(crc ^ (unsigned char)*data++) & 255] ^ crc >> 8;
	return ~crc;
}

static uint32_t make(char *data, char dir, uint32_t number)
{
	uint64_t seed = seed_of(dir, number);
	uint32_t size = size_of(seed);
	char head[64];

	fill(data, size, seed);
	if (size >= HEAD) {
		snprintf(head, sizeof(head), ":%08x:%c:%010u:%04u:", source, dir, number, size);
		memcpy(data + 8, head, strlen(head));
		snprintf(head, sizeof(head), "%08x", crc_of(data + 8, size - 8));
		memcpy(data, head, 8);
	}
	return size;
}

/* Returns the number of an incoming message, or 0 if it cannot be one of ours. */
static uint32_t identify(const char *data, uint32_t len, uint32_t last)
{
	uint32_t crc, from, number, size;
	char dir, wanted[HEAD];

	if (len >= HEAD) {
		if (sscanf(data, "%8x:%8x:%c:%10u:%4u:", &crc, &from, &dir, &number, &size) != 5 ||
		    crc != crc_of(data + 8, len - 8) || size != len || from != source || dir != direction ||
		    number > limit)
			return 0;
		return number;
	}
	for (uint32_t i = 1; i < AHEAD; i++) {
		uint64_t seed;

		/* Try the next number, then the last one again, then those after the next. */
		number = i == 1 ? last + 1 : i == 2 ? last : last + i - 1;
		if (!number || number > limit)
			continue;
		seed = seed_of(direction, number);
		if (size_of(seed) != len)
			continue;
		fill(wanted, len, seed);
		if (!memcmp(data, wanted, len))
			return number;
	}
	return 0;
}

/* True if @number is a repeat that is allowed: an echo may answer once more for each send that failed. */
static int is_repeat(uint32_t number)
{
	for (uint32_t i = direction == 'P' ? memory->doubts : 0; number && i--;) {
		struct doubt *doubt = memory->doubt + i;

		if (doubt->number == number)
			return doubt->seen < doubt->count ? ++doubt->seen : 0;
	}
	return 0;
}

/* Note that the send of the next message has failed. */
static void note_doubt(void)
{
	struct doubt *doubt = memory->doubt + memory->doubts;

	if (memory->doubts && doubt[-1].number == memory->next) {
		doubt[-1].count++;
	} else if (memory->doubts < DOUBTS) {
		*doubt = (struct doubt){ memory->next, 1, 0 };
		__sync_synchronize();
		memory->doubts++;
	} else {
		fprintf(stderr, "too many sends in doubt\n");
		_exit(3);
	}
}

/* Count the message in the slot. */
static void count(uint32_t len)
{
	struct range *range = memory->range + memory->ranges;
	uint32_t last = memory->ranges ? range[-1].last : 0, number;
	const char *data = memory->slot + HDR;

	number = identify(data, len, last);
	if (number > last) {
		/* In this order, so that a kill leaves a consistent state. */
		if (number == last + 1 && memory->ranges) {
			range[-1].last = number;
		} else if (memory->ranges < RANGES) {
			range->first = range->last = number;
			__sync_synchronize();
			memory->ranges++;
		} else {
			fprintf(stderr, "too many gaps\n");
			_exit(3);
		}
	} else if (is_repeat(number)) {
		memory->doubled++;
	} else {
		memory->bad++;
		printf("bad after %u: %u bytes, number %u: %.60s\n", last, len, number, data);
	}
}

/* Count the message in the slot if it is complete and a kill prevented that. */
static void recover(void)
{
	uint32_t last = memory->ranges ? memory->range[memory->ranges - 1].last : 0;
	const char *data = memory->slot + HDR;
	uint32_t len = strnlen(data, HEAD);

	if (len == HEAD && sscanf(data, "%*8x:%*8x:%*c:%*10u:%4u:", &len) != 1)
		return;
	if (!len || len > MAX || identify(data, len, last ? last - 1 : 0) <= last)
		return;
	count(len);
	memory->recovered++;
}

static int open_source(void)
{
	int fd = open_handle(source);

	if (fd < 0) {
		perror("open");
		_exit(2);
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* Read all pending messages. */
static void receive(int fd)
{
	char *slot = memory->slot;
	int n;

	for (;;) {
		/* So that recover() cannot take a message of an earlier call for one of this call. */
		memset(slot, 0, HDR + HEAD);
		__sync_synchronize();
		n = read(fd, slot, HDR + send_limit());
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			/* With the pipe off (ENXIO) nothing can come; poll() reports when it can. */
			if (n < 0 && errno != EAGAIN && errno != ENXIO) {
				perror("read");
				_exit(2);
			}
			return;
		}
		if (n == HDR) {
			memory->lost++;
			continue;
		}
		count(n - HDR);
		memory->received++;
	}
}

/* Send the message in out; returns true if it was sent. */
static int send_one(int fd, uint32_t len)
{
	int n;

	memory->sending = memory->next;
	__sync_synchronize();
	n = write(fd, out, HDR + len);
	if (n == (int)(HDR + len)) {
		memory->next++;
		memory->sent++;
		__sync_synchronize();
		memory->sending = 0;
		return 1;
	}
	/* Send the same bytes again. If we are killed before, the message is unknown. */
	if (n < 0 && (errno == EPIPE || errno == ENXIO))
		note_doubt();
	if (n < 0 && errno == EPIPE) {
		memory->refused++;
		return 0;
	}
	if (n < 0 && errno == ENXIO) {
		struct pollfd pollfd = { .fd = fd, .events = POLLOUT };

		memory->suspended++;
		poll(&pollfd, 1, -1);
		return 0;
	}
	perror("write");
	_exit(2);
}

static void stop(int signo)
{
	if (signo == SIGUSR1)
		quiet = 1;
	else
		stopping = 1;
}

static void *receiver(void *unused)
{
	for (;;) {
		pthread_mutex_lock(&lock);
		if (!releasing) {
			struct pollfd pollfds[] = {
				{ .fd = handle, .events = POLLIN },
				{ .fd = wake[0], .events = POLLIN },
			};

			receive(handle);
			poll(pollfds, 2, -1);
		}
		pthread_mutex_unlock(&lock);
		while (releasing)
			poll(NULL, 0, 1);
	}
	return unused;
}

/* Make the receiver release the handle. */
static void take_handle(void)
{
	char byte = 0;

	releasing = 1;
	if (write(wake[1], &byte, 1) != 1)
		_exit(2);
	pthread_mutex_lock(&lock);
	if (read(wake[0], &byte, 1) != 1)
		_exit(2);
}

static void return_handle(void)
{
	releasing = 0;
	pthread_mutex_unlock(&lock);
}

static int run(uint32_t total, int echo, uint32_t mean)
{
	uint64_t random = mix(key ^ mix(source + ++memory->runs));
	uint32_t len = 0, sent = 0, before, until;
	pthread_t thread;

	recover();
	if (memory->sending) {
		if (memory->unknown >= UNKNOWN)
			return 3;
		/* If next has moved on, the send is sure. */
		if (memory->sending == memory->next) {
			memory->unknowns[memory->unknown] = memory->sending;
			__sync_synchronize();
			memory->unknown++;
			__sync_synchronize();
			memory->next++;
		}
		memory->sending = 0;
	}
	if (pipe(wake))
		return 2;
	handle = open_source();
	before = memory->received;
	if (pthread_create(&thread, NULL, receiver, NULL))
		return 2;
	until = mean ? 1 + random % (2 * mean) : 0;
	while (!stopping) {
		uint32_t received = memory->received - before;

		random = mix(random);
		if (mean && received + sent > until) {
			take_handle();
			close(handle);
			memory->reopened++;
			poll(NULL, 0, random % 4 ? random / 8 % 30 : 0);
			handle = open_source();
			before = memory->received;
			return_handle();
			sent = 0;
			until = 1 + random / 512 % (2 * mean);
			continue;
		}
		/* A refused message is sent again first, so that each is sent at least once. */
		if (memory->sent >= total || (quiet && !len) || (echo && sent >= received + WINDOW)) {
			poll(NULL, 0, 5);
			continue;
		}
		if (!len)
			len = make(out + HDR, 'P', memory->next);
		if (send_one(handle, len)) {
			len = 0;
			sent++;
			if (!(random >> 20 & 63))
				poll(NULL, 0, random >> 32 & 15);
		} else {
			poll(NULL, 0, 5);
		}
	}
	/* Read what is pending, so that it is not dropped. */
	take_handle();
	receive(handle);
	close(handle);
	return 0;
}

static struct memory *map(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT, 0600);
	struct memory *mapped;

	if (fd < 0 || ftruncate(fd, sizeof(*mapped))) {
		perror(name);
		exit(2);
	}
	mapped = mmap(NULL, sizeof(*mapped), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapped == MAP_FAILED) {
		perror(name);
		exit(2);
	}
	close(fd);
	return mapped;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 2; i < argc && !strcmp(argv[1], "status"); i++) {
		memory = map(argv[i]);
		printf("%u %u %u %u %u %u %u %u %u %u %u\n", memory->sent, memory->unknown, memory->received,
		       memory->bad, memory->reopened, memory->refused, memory->lost, memory->recovered, memory->runs,
		       memory->suspended, memory->doubled);
	}
	if (argc == 3 && !strcmp(argv[1], "dump")) {
		memory = map(argv[2]);
		printf("next %u\n", memory->next);
		for (uint32_t i = 0; i < memory->unknown; i++)
			printf("unknown %u\n", memory->unknowns[i]);
		for (uint32_t i = 0; i < memory->doubts; i++)
			printf("doubt %u %u\n", memory->doubt[i].number, memory->doubt[i].count);
		for (uint32_t i = 0; i < memory->ranges; i++)
			printf("range %u %u\n", memory->range[i].first, memory->range[i].last);
	}
	if (argc == 8 && !strcmp(argv[1], "run")) {
		struct sigaction action = { .sa_handler = stop };

		memory = map(argv[2]);
		source = strtoul(argv[3], NULL, 0);
		key = strtoull(argv[4], NULL, 0);
		direction = atoi(argv[6]) ? 'P' : 'H';
		limit = ~0u - 1;
		if (!memory->next)
			memory->next = 1;
		sigaction(SIGTERM, &action, NULL);
		sigaction(SIGUSR1, &action, NULL);
		return run(strtoul(argv[5], NULL, 0), atoi(argv[6]), strtoul(argv[7], NULL, 0));
	}
	return argc < 3;
}
