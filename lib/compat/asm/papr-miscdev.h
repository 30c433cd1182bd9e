/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What papr-hvpipe.h needs where the kernel's headers are older than Linux 6.8 or those of another architecture. */
#ifndef PAPR_MISCDEV_IOC_ID
#define PAPR_MISCDEV_IOC_ID 0xb2
#endif
