// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe wake: enable the pipe anew, so that the hypervisor announces again what a driver has missed or forgotten. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define SYSPARM_DEVICE "/dev/papr-sysparm"
#define ENABLE_PIPE    64 /* system parameter of one byte: 1 enables the pipe, 0 disables it (PAPR+ 7.3.16) */

/* What the device takes, as in the kernel's <asm/papr-sysparm.h>. */
struct sysparm {
	uint32_t parameter;
	uint16_t length;
	uint8_t data[4000];
};

#define SET_SYSPARM _IOW(0xb2, 2, struct sysparm)

static int set_pipe(int device, bool on)
{
	struct sysparm block = { .parameter = ENABLE_PIPE, .length = 1, .data = { on } };

	return ioctl(device, SET_SYSPARM, &block);
}

int run_wake(void)
{
	int device = open(SYSPARM_DEVICE, O_RDWR | O_CLOEXEC);

	if (device < 0 && errno == ENOENT) {
		report("%s: not there: Linux 6.8 or later on a Power partition has it", SYSPARM_DEVICE);
		return EXIT_NO_PIPE;
	}
	if (device < 0) {
		report("%s: %s: its permissions decide who may enable the pipe", SYSPARM_DEVICE, strerror(errno));
		return EXIT_FAILURE;
	}
	if (set_pipe(device, false)) {
		report("cannot disable the pipe: %s", strerror(errno));
		return errno == EOPNOTSUPP ? EXIT_NO_PIPE : EXIT_FAILURE;
	}
	if (set_pipe(device, true)) {
		report("cannot enable the pipe, which is disabled now: %s; run this again", strerror(errno));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
