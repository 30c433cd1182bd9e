// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a message costs on its way to a receiver that waits, in guest instructions: by the device, and through hvpiped.
 * Runs in a partition of bench/counting.py, whose hypervisor answers for hmc1 by itself.
 *
 * usage: bench-daemon device | daemon
 *
 * Prints the median from the begin of a write() of 64 bytes, which makes the hypervisor announce its answer at once, to
 * the return of hvpipe_recv() in another thread. With "daemon" the write() is on the daemon's own handle, which
 * pidfd_getfd() gets: so both ways begin with the same call, and what follows it is what they differ in.
 */
#include <err.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hvpipe.h"

#define HEADER	     48
#define SAMPLES	     201
#define WARM_UP	     20
#define TICKS_PER_US 512

static volatile uint64_t written; /* the time when the last write() began */
static uint64_t samples[SAMPLES];

#ifdef __powerpc64__
static uint64_t timebase(void)
{
	uint64_t ticks;

	asm volatile("mfspr %0,268" : "=r"(ticks) : : "memory");
	return ticks;
}

/* For bench/insn-profile.c, as in bench/bench.c. */
#define MARK(row) asm volatile("ori 0,0,%0" : : "i"(0x4850 + (row)) : "r0")
#else
static uint64_t timebase(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

#define MARK(row) ((void)(row))
#endif

static void *receive(void *arg)
{
	char message[HVPIPE_MAX_RECEIVE];

	for (int i = -WARM_UP; i < SAMPLES; i++) {
		uint64_t end;

		if (hvpipe_recv(arg, message, sizeof(message), -1) != 64)
			err(1, "receive");
		end = timebase();
		MARK(0);
		if (i >= 0)
			samples[i] = end - written;
	}
	return NULL;
}

/* The daemon's handle of hmc1. */
static int get_handle(const struct hvpipe_holder *holder, void *data)
{
	int pidfd = pidfd_open(holder->pid, 0);

	if (holder->source != HVPIPE_SOURCE_HMC(1) || pidfd < 0)
		return 0;
	*(int *)data = pidfd_getfd(pidfd, holder->fd, 0);
	close(pidfd);
	return 1;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int main(int argc, char **argv)
{
	const struct sched_param param = { .sched_priority = 1 };
	const struct timespec pause = { .tv_nsec = 20000000 };
	static char message[HEADER + 64];
	bool daemon = argc == 2 && !strcmp(argv[1], "daemon");
	struct hvpipe *pipe = daemon ? hvpipe_connect(HVPIPE_SOURCE_HMC(1), HVPIPE_RECEIVE) :
				       hvpipe_open(HVPIPE_SOURCE_HMC(1));
	pthread_attr_t attributes;
	pthread_t thread;
	int fd = -1;

	if (!pipe)
		err(1, "hmc1");
	if (!daemon)
		fd = hvpipe_get_fd(pipe);
	else if (hvpipe_each_holder(get_handle, &fd) != 1 || fd < 0)
		errx(1, "the daemon's handle was not found");

	/* The receiver has a higher priority, so that it runs when it is woken. */
	pthread_attr_init(&attributes);
	pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
	pthread_attr_setschedparam(&attributes, &param);
	if (pthread_create(&thread, &attributes, receive, pipe))
		errx(1, "cannot start a thread of real-time priority");

	for (int i = -WARM_UP; i < SAMPLES; i++) {
		/* Until receiver and daemon wait again. */
		nanosleep(&pause, NULL);
		if (i >= 0)
			MARK(6);
		written = timebase();
		if (write(fd, message, sizeof(message)) != sizeof(message))
			err(1, "write");
	}
	pthread_join(thread, NULL);
	qsort(samples, SAMPLES, sizeof(samples[0]), compare);
	printf("%s %.0f\n", daemon ? "daemon" : "device", (double)samples[SAMPLES / 2] * 1000 / TICKS_PER_US);
	return 0;
}
