// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Plays the hypervisors of many sources for hvpipe-hmc, to measure what a link costs.
 *
 * usage: hypervisors DIRECTORY LINKS
 *
 * It listens at DIRECTORY/1.sock, DIRECTORY/2.sock and so on, and prints "listening"; with an HMC at each, "connected".
 * For each line "COUNT BUSY SIZE" of standard input it makes COUNT round trips: it sends a message of SIZE bytes, the
 * HMC acknowledges it and sends it back, and that is acknowledged. BUSY links are at it at a time, and all links take
 * turns. Then it prints the nanoseconds that all took.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "spapr_hvpipe_link.h"

#define SOURCE 0x02000001
#define CREDIT 256
#define EVENTS 64

struct link {
	int fd;
	uint8_t in[2 * HVPIPE_LINK_MAX_FRAME];
	size_t len;
	uint64_t sent, taken; /* messages each way */
	bool acknowledged, answered;
};

static struct link *links;
static int count, epoll;
static int *idle, first_idle, nr_idle; /* indexes of idle links, a ring */

static void write_all(int fd, const void *data, size_t len)
{
	if (send(fd, data, len, MSG_NOSIGNAL) != (ssize_t)len)
		err(1, "send");
}

/* The next whole frame of the link, or NULL; *size is to be dropped from its input then. */
static uint8_t *next_frame(struct link *link, HvpipeLinkHeader *header, size_t *size)
{
	const char *wrong;

	if (link->len < HVPIPE_LINK_HEADER_SIZE)
		return NULL;
	hvpipe_link_unpack_header(link->in, header);
	wrong = hvpipe_link_check_header(header, HVPIPE_LINK_FROM_HMC);
	if (wrong)
		errx(1, "link %td: %s", link - links + 1, wrong);
	*size = HVPIPE_LINK_HEADER_SIZE + header->length;
	return link->len < *size ? NULL : link->in;
}

static void drop(struct link *link, size_t size)
{
	link->len -= size;
	memmove(link->in, link->in + size, link->len);
}

static void fill(struct link *link)
{
	ssize_t n = recv(link->fd, link->in + link->len, sizeof(link->in) - link->len, 0);

	if (n <= 0)
		errx(1, "link %td: the HMC is gone", link - links + 1);
	link->len += n;
}

static void take_hello(struct link *link)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME];
	HvpipeLinkHeader header;
	HvpipeLinkHmcState hello;
	HvpipeLinkHvState state;
	size_t size;

	while (!next_frame(link, &header, &size))
		fill(link);
	if (header.type != HVPIPE_LINK_STATE ||
	    hvpipe_link_unpack_hmc_state(link->in + HVPIPE_LINK_HEADER_SIZE, &hello))
		errx(1, "link %td: no hello", link - links + 1);
	drop(link, size);
	link->sent = hello.taken;
	link->taken = hello.first - 1;
	state = (HvpipeLinkHvState){
		.offer = HVPIPE_LINK_OFFER,
		.source = SOURCE,
		.flags = HVPIPE_LINK_HV_ENABLED,
		.epoch = 1,
		.taken = link->taken,
		.queued = link->taken,
		.credit = link->taken + CREDIT,
	};
	write_all(link->fd, frame, hvpipe_link_pack_hv_state(frame, &state));
}

static void listen_at(const char *directory, int *listeners)
{
	for (int i = 0; i < count; i++) {
		struct sockaddr_un address = { .sun_family = AF_UNIX };

		snprintf(address.sun_path, sizeof(address.sun_path), "%s/%d.sock", directory, i + 1);
		listeners[i] = socket(AF_UNIX, SOCK_STREAM, 0);
		if (bind(listeners[i], (struct sockaddr *)&address, sizeof(address)) || listen(listeners[i], 1))
			err(1, "%s", address.sun_path);
	}
}

static void send_message(struct link *link, size_t size)
{
	uint8_t frame[HVPIPE_LINK_MAX_FRAME] = { 0 };

	hvpipe_link_pack_header(frame, HVPIPE_LINK_MESSAGE, size, ++link->sent);
	write_all(link->fd, frame, HVPIPE_LINK_HEADER_SIZE + size);
	link->acknowledged = link->answered = false;
}

/* Returns true when this round trip is over. */
static bool take_frames(struct link *link)
{
	uint8_t ack[HVPIPE_LINK_MAX_FRAME];
	HvpipeLinkHeader header;
	size_t size;

	fill(link);
	while (next_frame(link, &header, &size)) {
		if (header.type == HVPIPE_LINK_ACK && header.sequence == link->sent)
			link->acknowledged = true;
		else if (header.type == HVPIPE_LINK_MESSAGE && header.sequence == link->taken + 1)
			link->answered = true;
		else
			errx(1, "link %td: %s %ju", link - links + 1, hvpipe_link_type_name(header.type),
			     (uintmax_t)header.sequence);
		drop(link, size);
	}
	if (!link->acknowledged || !link->answered)
		return false;
	link->taken++;
	write_all(link->fd, ack, hvpipe_link_pack_hv_ack(ack, link->taken, link->taken + CREDIT));
	return true;
}

static void push_idle(const struct link *link)
{
	idle[(first_idle + nr_idle++) % count] = link - links;
}

/* The link that has been idle for longest. */
static struct link *pop_idle(void)
{
	struct link *link = &links[idle[first_idle]];

	first_idle = (first_idle + 1) % count;
	nr_idle--;
	return link;
}

static void run(long trips, int busy, size_t size)
{
	struct epoll_event events[EVENTS];
	struct timespec began, ended;
	long started = 0, done = 0;

	clock_gettime(CLOCK_MONOTONIC, &began);
	for (; started < busy && started < trips; started++)
		send_message(pop_idle(), size);
	while (done < trips) {
		int n = epoll_wait(epoll, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct link *link = events[i].data.ptr;

			if (!take_frames(link))
				continue;
			done++;
			push_idle(link);
			if (started == trips)
				continue;
			send_message(pop_idle(), size);
			started++;
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &ended);
	printf("%jd\n", (intmax_t)(ended.tv_sec - began.tv_sec) * 1000000000 + ended.tv_nsec - began.tv_nsec);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct rlimit limit;
	int *listeners, busy;
	long trips;
	size_t size;

	if (argc != 3 || (count = atoi(argv[2])) < 1)
		errx(2, "usage: hypervisors DIRECTORY LINKS");
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	links = calloc(count, sizeof(*links));
	listeners = calloc(count, sizeof(*listeners));
	idle = calloc(count, sizeof(*idle));
	epoll = epoll_create1(0);
	if (!links || !listeners || !idle || epoll < 0)
		err(1, "start");
	listen_at(argv[1], listeners);
	puts("listening");
	fflush(stdout);
	for (int i = 0; i < count; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = &links[i] };

		links[i].fd = accept(listeners[i], NULL, NULL);
		if (links[i].fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, links[i].fd, &event))
			err(1, "accept");
		take_hello(&links[i]);
		push_idle(&links[i]);
	}
	puts("connected");
	fflush(stdout);
	while (scanf("%ld %d %zu", &trips, &busy, &size) == 3) {
		if (busy > count)
			busy = count;
		run(trips, busy, size);
	}
	return 0;
}
