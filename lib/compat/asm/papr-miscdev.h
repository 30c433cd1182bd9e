/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For systems whose kernel headers are older than Linux 6.8, or another architecture's: what papr-hvpipe.h needs of it. */
#ifndef PAPR_MISCDEV_IOC_ID
#define PAPR_MISCDEV_IOC_ID 0xb2
#endif
