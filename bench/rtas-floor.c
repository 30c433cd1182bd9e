// SPDX-License-Identifier: GPL-2.0-only
/*
 * The floor under every driver of the hypervisor pipe: a bare rtas_call() of
 * ibm,receive-hvpipe-msg while no message is pending. Built into the kernels
 * that are measured, nowhere else.
 *
 * Reading /sys/kernel/debug/rtas-floor makes the calls and shows how many ticks
 * of the timebase each took, a line for each.
 */

#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/mutex.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <asm/machdep.h>
#include <asm/rtas.h>
#include <asm/time.h>

#define CALLS 421

extern struct mutex rtas_ibm_receive_hvpipe_msg_lock;

/* Below 4 GiB, as firmware needs it: part of the kernel's image. */
static u8 message[SZ_4K] __aligned(SZ_4K);

static int rtas_floor_show(struct seq_file *m, void *unused)
{
	const s32 token = rtas_function_token(RTAS_FN_IBM_RECEIVE_HVPIPE_MSG);
	u64 start, end;
	u32 rets[2];
	int i, fwrc = 0;

	mutex_lock(&rtas_ibm_receive_hvpipe_msg_lock);
	for (i = 0; i < CALLS && !fwrc; i++) {
		start = mftb();
		fwrc = rtas_call(token, 2, 3, rets, __pa(message), sizeof(message));
		end = mftb();
		seq_printf(m, "%llu\n", end - start);
	}
	mutex_unlock(&rtas_ibm_receive_hvpipe_msg_lock);
	return fwrc ? -EIO : 0;
}
DEFINE_SHOW_ATTRIBUTE(rtas_floor);

static int __init rtas_floor_init(void)
{
	debugfs_create_file("rtas-floor", 0400, NULL, NULL, &rtas_floor_fops);
	return 0;
}
machine_late_initcall(pseries, rtas_floor_init);
