/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef _UAPI_PAPR_HVPIPE_H_
#define _UAPI_PAPR_HVPIPE_H_

#include <linux/types.h>
#include <asm/ioctl.h>
#include <asm/papr-miscdev.h>

/*
 * Stands before the payload in every read() and write() on a handle, in host
 * byte order. write() ignores its content. read() returns it with all zeros
 * but @flags.
 */
struct papr_hvpipe_hdr {
	__u8 version;
	__u8 reserved[3];
	__u32 flags;
	__u8 reserved2[40];
};

/* papr_hvpipe_hdr.flags, on read() */
#define HVPIPE_MSG_AVAILABLE	0x01 /* a payload follows */
#define HVPIPE_LOST_CONNECTION	0x02 /* the pipe to the source was lost */

/*
 * ioctl for /dev/papr-hvpipe. Returns a new, close-on-exec file descriptor:
 * the handle for the source (0xCCRRQQQQ: CC the type, 0x02 for an HMC; RR
 * reserved, 0; QQQQ the index) whose ID the argument points to.
 */
#define PAPR_HVPIPE_IOC_CREATE_HANDLE	_IOW(PAPR_MISCDEV_IOC_ID, 9, __u32)

#endif /* _UAPI_PAPR_HVPIPE_H_ */
