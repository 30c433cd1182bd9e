// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Start another kernel, or load the one that starts after a crash.
 *
 *	kexec now|crash KERNEL INITRAMFS COMMAND-LINE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kexec.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int kernel, initramfs, crash;

	if (argc != 5)
		return 2;
	crash = !strcmp(argv[1], "crash");
	kernel = open(argv[2], O_RDONLY);
	initramfs = open(argv[3], O_RDONLY);
	if (syscall(SYS_kexec_file_load, kernel, initramfs, strlen(argv[4]) + 1, argv[4],
		    crash ? KEXEC_FILE_ON_CRASH : 0)) {
		perror("kexec_file_load");
		return 1;
	}
	if (crash)
		return 0;
	reboot(RB_KEXEC);
	perror("reboot");
	return 1;
}
