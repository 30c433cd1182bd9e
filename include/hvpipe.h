/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * libhvpipe: messages between a logical partition and its sources, Hardware Management Consoles for one, through the
 * hypervisor pipe of Power systems (PAPR+ 7.3.32). Needs Linux with the papr-hvpipe driver, and root.
 *
 * A struct hvpipe is the partition's end of the pipe to one source. There is at most one per source in the partition. It
 * may be used by several threads, one call of each kind at a time, and it is inherited over fork() but not over exec().
 *
 * A handle outlives a migration of the partition (see "Migration" in hvpipe(3)): while the partition moves calls fail
 * with ENXIO and hvpipe_wait_enabled() waits; afterwards the same handle works on the other machine. The source, an HMC,
 * finds the partition there a moment later: hvpipe_recv() tells once of the lost connection, and hvpipe_send() fails with
 * EPIPE until the source is back.
 *
 * Functions that fail return NULL or -1 and set errno. Misuse that the caller can tell beforehand (a NULL handle, a NULL
 * buffer with a size) ends in assert().
 */
#ifndef HVPIPE_H
#define HVPIPE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HVPIPE_API __attribute__((visibility("default")))
#else
#define HVPIPE_API
#endif

/* Bytes of the longest message. The shortest has 1. */
#define HVPIPE_MAX_PAYLOAD 4088

/* The source ID of the n-th HMC, n from 1 to 65535. */
#define HVPIPE_SOURCE_HMC(n) (0x02000000u | (n))

struct hvpipe;

/**
 * hvpipe_open() - Open the pipe to a source.
 * @source: source ID 0xCCRRQQQQ: CC the type, 0x02 for an HMC, RR 0, QQQQ the index. HVPIPE_SOURCE_HMC(1) is hmc1.
 *
 * Nothing is said to the source. Messages that it sent before are gone, unless they still wait in the hypervisor.
 *
 * Return: a handle for hvpipe_close(), or NULL with errno
 *	EALREADY	the source is open already, in this process or another; see hvpipe_each_holder()
 *	EINVAL		no such type of source, or RR is not 0
 *	ENOENT		no driver: the kernel lacks it, or the hypervisor has no pipe for this partition
 *	ENXIO		the partition is being moved or suspended, or the pipe is disabled: try again later
 *	EACCES		not root
 *	EMFILE, ENFILE, ENOMEM
 */
HVPIPE_API struct hvpipe *hvpipe_open(uint32_t source);

/**
 * hvpipe_get_fd() - The file descriptor behind the handle, for poll(2) and its relatives.
 *
 * POLLIN: hvpipe_recv() has something to return. POLLOUT: the pipe is enabled; it is not while the partition is being
 * moved or suspended, and POLLRDHUP, where asked for, tells of that. So poll(2) for POLLOUT waits for the end of ENXIO.
 * The descriptor belongs to the handle and is closed with it.
 */
HVPIPE_API int hvpipe_get_fd(const struct hvpipe *pipe);

/**
 * hvpipe_send() - Send one message.
 * @data: the message, handed to the kernel without a copy in between.
 * @len: bytes of it, 1 to HVPIPE_MAX_PAYLOAD.
 *
 * Waits as long as the hypervisor is busy, which it is until the source has taken the message; only a fatal signal ends
 * the wait.
 *
 * Return: @len, or -1 with errno
 *	EINVAL		@len is 0, or the hypervisor does not know this source
 *	EMSGSIZE	@len is more than HVPIPE_MAX_PAYLOAD
 *	EPIPE		nobody takes messages at the source. Right after a move its HMC may not have found the partition yet.
 *	ENXIO		the partition is being moved or suspended, or the pipe is disabled
 *	EOPNOTSUPP	the hypervisor has no pipe for this partition now
 *	EIO		hardware or hypervisor error: delivered or not, there is no telling
 *	EFAULT		@data is not readable
 *
 * After EPIPE or ENXIO the message was not delivered, but for one that was on its way when the connection broke or the
 * partition was suspended: the source may have it. Sending the same bytes again, before any other message to that source,
 * delivers it once, whatever became of it.
 */
HVPIPE_API ssize_t hvpipe_send(struct hvpipe *pipe, const void *data, size_t len);

/**
 * hvpipe_recv() - Receive one message.
 * @data: room for the message.
 * @size: bytes of room. HVPIPE_MAX_PAYLOAD is enough for every message.
 * @timeout_ms: how long to wait for a message, in milliseconds of CLOCK_MONOTONIC; 0: do not wait, negative: for ever.
 *	Signals whose handlers return neither shorten nor extend the wait.
 *
 * Return: bytes of the message, 1 to @size, or -1 with errno
 *	ETIMEDOUT	no message within @timeout_ms
 *	ECONNRESET	the connection to the source was lost; told once per loss, after the messages received before
 *			it. The handle stays good: when the source comes back, its messages arrive.
 *	EMSGSIZE	the message has more than @size bytes. It is kept for the next call.
 *	EFAULT		@data is not writable. The message is kept for the next call.
 *	ENXIO		the partition is being moved or suspended, or the pipe is disabled. Nothing is lost by that, and
 *			messages received before are still returned first.
 *	EPROTO		the driver does not keep to its interface
 *	EIO		hardware or hypervisor error
 */
HVPIPE_API ssize_t hvpipe_recv(struct hvpipe *pipe, void *data, size_t size, int timeout_ms);

/**
 * hvpipe_wait_enabled() - Wait until the pipe can be used: after ENXIO, until the partition's move is over.
 * @timeout_ms: how long, as for hvpipe_recv().
 *
 * The pipe may be off again by the time of the next call, so: call, and on ENXIO wait and call again.
 *
 * Return: 0, at once while the pipe is enabled; or -1 with errno
 *	ETIMEDOUT	it was not enabled within @timeout_ms
 *	EIO		the handle's file is broken
 */
HVPIPE_API int hvpipe_wait_enabled(struct hvpipe *pipe, int timeout_ms);

/**
 * hvpipe_close() - Close the pipe to the source and free the handle. NULL is allowed.
 *
 * Messages received from the source but not by hvpipe_recv() yet are dropped.
 */
HVPIPE_API void hvpipe_close(struct hvpipe *pipe);

/* The state of the partition's pipe. */
struct hvpipe_status {
	char state[16];		/* "enabled", "suspended" or "disabled" */
	uint64_t handles;	/* sources that are open in the partition */
	uint64_t dropped;	/* messages since boot from sources that were not open, dropped */
};

/**
 * hvpipe_get_status() - The state of the partition's pipe.
 *
 * Return: 0, or -1 with errno ENOENT or EACCES (as hvpipe_open()), or of reading /proc.
 */
HVPIPE_API int hvpipe_get_status(struct hvpipe_status *status);

/* One file descriptor somewhere in the partition that holds a source open. Later versions may add fields at the end. */
struct hvpipe_holder {
	pid_t pid;
	int fd;
	char command[16];	/* of the process, cut to 15 bytes */
	uint32_t source;
	char state[16];		/* "open", "lost" (the connection to the source) or "suspended" */
	uint64_t sent;		/* messages */
	uint64_t sent_bytes;	/* of payload */
	uint64_t received;
	uint64_t received_bytes;
	uint64_t held;		/* messages received from the source, not read from the handle yet */
};

/**
 * hvpipe_each_holder() - Visit every file descriptor of every process that holds a source open.
 * @visit: called for each; anything but 0 ends the search.
 * @data: handed to @visit.
 *
 * A handle shared over dup() or fork() is visited once for each descriptor. Needs root to see other users' processes.
 *
 * Return: what @visit returned last, 0 when it never was called; or -1 with errno when /proc cannot be read.
 */
HVPIPE_API int hvpipe_each_holder(int (*visit)(const struct hvpipe_holder *holder, void *data), void *data);

#ifdef __cplusplus
}
#endif

#endif
