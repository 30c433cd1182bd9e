/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The device of the hypervisor pipe, for programs that call it without libhvpipe. */
#ifndef GUEST_DEVICE_H
#define GUEST_DEVICE_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEVICE	      "/dev/papr-hvpipe"
#define CREATE_HANDLE _IOW(0xb2, 9, uint32_t)
#define HDR	      48   /* bytes of the header before each payload */
#define MAX	      4088 /* bytes of payload */
#define HMC(n)	      (0x02000000u | (n))

/* The longest payload that the hypervisor takes from a partition: the lab says so on the kernel's command line. */
static inline uint32_t send_limit(void)
{
	const char *limit = getenv("PAPR_HVPIPE_LIMIT");

	return limit ? strtoul(limit, NULL, 0) : MAX;
}

/* Returns a handle for @source, or -1 and errno. */
static inline int open_handle(uint32_t source)
{
	int dev = open(DEVICE, O_RDWR | O_CLOEXEC), fd, error;

	if (dev < 0)
		return -1;
	fd = ioctl(dev, CREATE_HANDLE, &source);
	error = errno;
	close(dev);
	errno = error;
	return fd;
}

#endif
