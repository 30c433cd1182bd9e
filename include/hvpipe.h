/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * libhvpipe: messages between a logical partition and its sources through the hypervisor pipe of Power systems
 * (PAPR+ 7.3.32). A source is a Hardware Management Console (HMC). The library works on the papr-hvpipe driver of every
 * kernel: the one that Linux ships since 6.18, and this project's.
 *
 * A struct hvpipe is a handle: the partition's end of the pipe to one source. A source has at most one handle in the
 * partition. Several threads may use a handle at the same time, but only one may send and only one may receive.
 * fork() copies a handle; exec() closes it.
 *
 * A handle survives a migration of the partition (see "Migration" in hvpipe(3)). While the partition moves, calls fail
 * with ENXIO, and hvpipe_wait_enabled() waits for the end of the move. The source finds the partition on its new
 * machine a moment later: until then hvpipe_send() fails with EPIPE.
 *
 * Functions that fail return NULL or -1 and set errno. A caller's mistake (a NULL handle, NULL data with a length) ends
 * in assert().
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

/* Largest message in bytes that any kernel sends. The smallest has 1 byte. */
#define HVPIPE_MAX_PAYLOAD 4088

/* Largest message in bytes that every kernel sends: the driver that Linux ships takes no more. */
#define HVPIPE_PORTABLE_PAYLOAD 4048

/* Largest message in bytes that hvpipe_recv() can return. */
#define HVPIPE_MAX_RECEIVE 4096

/* The source ID of the n-th HMC, n from 1 to 65535. */
#define HVPIPE_SOURCE_HMC(n) (0x02000000u | (n))

struct hvpipe;

/**
 * hvpipe_version() - The library's version, for example "0.1". The program may have been built with another one.
 */
HVPIPE_API const char *hvpipe_version(void);

/**
 * hvpipe_parse_source() - Read a source's name.
 * @text: "hmc" and a decimal number from 1 to 65535, or a source ID, decimal or hexadecimal with 0x.
 * @source: where to store the source ID.
 *
 * Return: 0, or -1 with errno EINVAL when @text is neither. "hmc0" is refused: HMCs are numbered from 1.
 */
HVPIPE_API int hvpipe_parse_source(const char *text, uint32_t *source);

/**
 * hvpipe_open() - Open the pipe to a source.
 * @source: source ID 0xCCRRQQQQ: CC the type, 0x02 for an HMC, RR 0, QQQQ the index. HVPIPE_SOURCE_HMC(1) is hmc1.
 *
 * The source does not notice. Messages that it sent before are lost, unless they still wait in the hypervisor.
 *
 * Return: a handle for hvpipe_close(), or NULL with errno
 *	EALREADY	the source is open already, in this process or another; see hvpipe_each_holder()
 *	EINVAL		the kernel knows no such type of source
 *	ENOENT		no driver: the kernel lacks it, or the hypervisor has no pipe for this partition
 *	ENXIO		the partition is being moved or suspended, or the pipe is disabled: try again later
 *	EACCES		no permission to use /dev/papr-hvpipe
 *	EMFILE, ENFILE, ENOMEM
 */
HVPIPE_API struct hvpipe *hvpipe_open(uint32_t source);

/* What a connection to hvpiped is for: the rights that it needs there, and directions of hvpipe_observe(). */
#define HVPIPE_RECEIVE 1
#define HVPIPE_SEND    2
#define HVPIPE_OBSERVE 4

/**
 * hvpipe_connect() - Open the pipe to a source through the daemon hvpiped(8).
 * @source: as for hvpipe_open().
 * @rights: HVPIPE_RECEIVE, HVPIPE_SEND, both, HVPIPE_OBSERVE, or HVPIPE_OBSERVE | HVPIPE_SEND. A source has one
 *receiver at a time, and any number of senders and observers.
 *
 * The daemon keeps messages while no program receives. All calls work on the handle, with these differences:
 * - Of hvpipe_get_fd()'s descriptor, only POLLIN has a meaning.
 * - hvpipe_recv() says to the daemon that the message it returns was taken. It never fails with ENXIO or EIO.
 * - hvpipe_send() also fails with EBUSY: the message was not sent, as others' took all the time that the daemon allows;
 *   EDQUOT: not sent, too many of this connection's messages wait already; ETIMEDOUT: in doubt.
 * - Calls without their right fail with EBADF.
 * - ENOTCONN means that the daemon ended; a message that was being sent is in doubt. Close, and connect again.
 * - hvpipe_close() drops nothing: the daemon keeps what was not returned.
 *
 * The environment variable HVPIPE_SOCKET names another socket than /run/hvpipe/socket.
 *
 * Return: a handle for hvpipe_close(), or NULL with errno
 *	ECONNREFUSED	no daemon answers
 *	EACCES		the daemon's rules, or the socket's mode, do not allow this user to do that
 *	EALREADY	the source has a receiver
 *	ENODEV		the daemon does not serve this source
 *	EUSERS		the daemon serves as many connections as it can, or as one user may have
 *	EINVAL		@rights; EPROTO, ENOTCONN, EMFILE, ENFILE, ENOMEM
 */
HVPIPE_API struct hvpipe *hvpipe_connect(uint32_t source, int rights);

/**
 * hvpipe_adopt() - Make a handle of a file descriptor that another process got from hvpipe_open() and passed on.
 *
 * The descriptor belongs to the handle from now on.
 *
 * Return: a handle for hvpipe_close(), or NULL with errno ENOMEM.
 */
HVPIPE_API struct hvpipe *hvpipe_adopt(int fd);

/**
 * hvpipe_get_fd() - The file descriptor behind the handle, to wait for messages with poll(2).
 *
 * Ask for POLLIN | POLLRDHUP. POLLIN means that hvpipe_recv() has something to return. POLLRDHUP means that the pipe is
 * disabled or the partition is being moved or suspended: call hvpipe_wait_enabled(). The driver that Linux ships
 * - never reports POLLOUT, so do not wait for it;
 * - wakes nobody when a move begins or ends, and a poll(2) without POLLRDHUP that began in a move never wakes;
 * - does not work with epoll(7): a descriptor that has a message when it is added to the set never wakes it.
 *
 * poll(2) does not see a message that is kept in the handle: ask hvpipe_pending() before poll(2).
 *
 * The descriptor belongs to the handle, which closes it. Reading from it or writing to it directly is allowed, but
 * bypasses the message that is kept.
 */
HVPIPE_API int hvpipe_get_fd(const struct hvpipe *pipe);

/**
 * hvpipe_pending() - Size in bytes of the message that is kept in the handle, 0 if there is none.
 *
 * hvpipe_recv() keeps a message that does not fit the caller's buffer, and returns it next. There never is one if all
 * buffers have HVPIPE_MAX_RECEIVE bytes. fork() copies the message with the handle, and both processes will receive it.
 */
HVPIPE_API size_t hvpipe_pending(const struct hvpipe *pipe);

/**
 * hvpipe_send() - Send one message.
 * @data: the message.
 * @len: its length in bytes, 1 to HVPIPE_MAX_PAYLOAD. Every kernel takes HVPIPE_PORTABLE_PAYLOAD.
 *
 * Waits until the source has taken the message, for as long as the hypervisor says that it is busy. Only a fatal signal
 * ends the wait.
 *
 * Return: @len, or -1 with errno
 *	EINVAL		@len is 0, or the hypervisor does not know this source
 *	EMSGSIZE	@len is more than this kernel takes
 *	EPIPE		the source takes no messages. Right after a move its HMC may not have found the partition yet.
 *	ENXIO		the partition is being moved or suspended, or the pipe is disabled
 *	EOPNOTSUPP	the hypervisor has no pipe for this partition now
 *	EIO		hardware or hypervisor error
 *	ENOMEM
 *
 * A message that failed with EPIPE, ENXIO or EIO is in doubt: the source may have taken it. Sending it again may
 * deliver it twice.
 */
HVPIPE_API ssize_t hvpipe_send(struct hvpipe *pipe, const void *data, size_t len);

/**
 * hvpipe_recv() - Receive one message.
 * @data: buffer for the message.
 * @size: its size in bytes. HVPIPE_MAX_RECEIVE is enough for every message.
 * @timeout_ms: how long to wait for a message, in milliseconds of CLOCK_MONOTONIC; 0: do not wait, negative: for ever.
 *	Signals whose handlers return neither shorten nor extend the wait.
 *
 * Return: the message's length in bytes, 1 to @size and never 0, or -1 with errno
 *	ETIMEDOUT	no message within @timeout_ms
 *	ECONNRESET	the connection to the source was lost. Reported once per loss, after the messages that came
 *			before it. The handle stays good: when the source comes back, its messages arrive.
 *	EMSGSIZE	the message has more than @size bytes, namely hvpipe_pending(). The next call returns it.
 *	ENXIO		the partition is being moved or suspended, or the pipe is disabled. No message is lost by that.
 *	EOPNOTSUPP	the hypervisor has no pipe for this partition now
 *	EPROTO		the driver returned what its interface does not know
 *	ENOTCONN	the handle's file has ended, and no message will come any more
 *	EIO		hardware or hypervisor error; the message may come with the next call
 *	ENOMEM
 */
HVPIPE_API ssize_t hvpipe_recv(struct hvpipe *pipe, void *data, size_t size, int timeout_ms);

/* What an observer saw. */
struct hvpipe_observed {
	uint32_t source;
	int direction;	   /* HVPIPE_RECEIVE: from the source; HVPIPE_SEND: to it */
	int error;	   /* HVPIPE_SEND: 0, or the errno of the send; HVPIPE_RECEIVE: 0, or ECONNRESET for a loss */
	uint32_t missed;   /* how much was not shown before this, as the observer did not keep up */
	size_t len;	   /* of the message in bytes; 0 with ECONNRESET */
	uint64_t reserved; /* 0 */
};

/**
 * hvpipe_observe() - Wait for the next message that passes, in either direction.
 * @pipe: of hvpipe_connect() with HVPIPE_OBSERVE.
 * @data: buffer for the message. What does not fit is cut off.
 * @timeout_ms: as for hvpipe_recv().
 *
 * Observing takes nothing from the receiver.
 *
 * Return: the message's length in bytes, or -1 with errno ETIMEDOUT, ENOTCONN, EPROTO or EBADF.
 */
HVPIPE_API ssize_t hvpipe_observe(struct hvpipe *pipe, struct hvpipe_observed *observed, void *data, size_t size,
				  int timeout_ms);

/**
 * hvpipe_wait_enabled() - Wait until the pipe can be used: after ENXIO, until the partition's move is over.
 * @timeout_ms: how long, as for hvpipe_recv().
 *
 * The pipe may be off again by the time of the next call. So: call, and on ENXIO wait and call again. The driver that
 * Linux ships wakes nobody at the end of a move; there the wait looks ten times a second.
 *
 * Return: 0, at once while the pipe is enabled; or -1 with errno
 *	ETIMEDOUT	it was not enabled within @timeout_ms
 *	ENOTCONN	the handle's file has ended
 */
HVPIPE_API int hvpipe_wait_enabled(struct hvpipe *pipe, int timeout_ms);

/**
 * hvpipe_close() - Close the pipe to the source and free the handle. NULL is allowed.
 *
 * Drops the messages from the source that hvpipe_recv() has not returned.
 */
HVPIPE_API void hvpipe_close(struct hvpipe *pipe);

/*
 * The driver that Linux ships tells nothing about itself. What it does not tell is this in a number, "unknown" in a
 * state, and 0 in a source ID.
 */
#define HVPIPE_UNKNOWN UINT64_MAX

/* The state of the partition's pipe. */
struct hvpipe_status {
	char state[16];	      /* "enabled", "suspended", "disabled" or "unknown" */
	uint64_t handles;     /* sources that are open in the partition */
	uint64_t dropped;     /* messages since boot that were dropped, as their source was not open */
	uint64_t reserved[5]; /* HVPIPE_UNKNOWN; for what later versions of the library tell */
};

/**
 * hvpipe_get_status() - The state of the partition's pipe. Opens the device, but no source.
 *
 * Return: 0, or -1 with errno ENOENT or EACCES as for hvpipe_open(), or an error from reading /proc.
 */
HVPIPE_API int hvpipe_get_status(struct hvpipe_status *status);

/* One file descriptor of a process that holds a source open. Later versions may add fields at the end. */
struct hvpipe_holder {
	pid_t pid;
	int fd;
	char command[16]; /* of the process, cut to 15 bytes */
	uint32_t source;
	char state[16];	     /* "open", "lost" (the connection to the source), "suspended" or "unknown" */
	uint64_t sent;	     /* messages */
	uint64_t sent_bytes; /* of payload */
	uint64_t received;
	uint64_t received_bytes;
	uint64_t held; /* messages that the kernel holds for the handle */
};

/**
 * hvpipe_each_holder() - Visit every file descriptor of every process that holds a source open.
 * @visit: called for each; a result other than 0 ends the search.
 * @data: passed to @visit.
 *
 * A handle that is shared by dup() or fork() is visited once for each descriptor. Other users' processes are visible
 * only to root.
 *
 * Return: the last result of @visit, 0 if it was never called; or -1 with errno when /proc cannot be read.
 */
HVPIPE_API int hvpipe_each_holder(int (*visit)(const struct hvpipe_holder *holder, void *data), void *data);

/**
 * hvpipe_each_daemon_line() - Visit the lines of hvpiped's status.
 * @visit: called for each line; a result other than 0 ends that.
 * @data: passed to @visit.
 *
 * A line is a word, "daemon", "source" or "client", and "NAME=VALUE" for each counter; see hvpiped(8). Later versions
 * may add lines and names.
 *
 * Return: the last result of @visit, 0 if it was never called; or -1 with errno ECONNREFUSED, EACCES, ENOTCONN, EPROTO.
 */
HVPIPE_API int hvpipe_each_daemon_line(int (*visit)(const char *line, void *data), void *data);

#ifdef __cplusplus
}
#endif

#endif
