// SPDX-License-Identifier: GPL-2.0-only
/*
 * The hypervisor pipe (HVPIPE): messages between this partition and the
 * Hardware Management Consoles (HMCs) that manage it, carried by the
 * hypervisor. PAPR+ v2.13 7.3.32 "Hypervisor Pipe Information Exchange".
 *
 * The partition has one pipe, which all sources share. User space opens
 * /dev/papr-hvpipe and creates a handle for each source it talks to; a
 * write() to the handle sends a message, a read() receives one.
 *
 * The hypervisor announces a message by an event, and announces no other until
 * that one is received. A message that nobody receives blocks the pipe for all
 * sources. Hence:
 *
 * - A handle's announcement is cleared before ibm,receive-hvpipe-msg is called:
 *   the next event may come before the call returns.
 * - The source ID which that call returns decides who gets a message. A message
 *   for another handle, or one that does not fit the caller's buffer, is held
 *   by its handle until it is read.
 * - Messages for sources without a handle are received and dropped.
 * - After each enable one message is received that nothing announced: the
 *   hypervisor may not announce again what it announced before. With nothing
 *   pending such a call may return no bytes or any error.
 * - A send that firmware is busy with is finished before the next one begins.
 * - What cannot be done at once is due: the work does it later.
 *
 * state      due     what it means
 * ---------  ------  ---------------------------------------------------------
 * disabled   ENABLE  Enabling failed for now: try again with backoff.
 * disabled   -       Not enabled yet, refused by firmware, or shutting down.
 * suspended  ENABLE  As above, after a migration or hibernation.
 * suspended  -       The partition is moving, or firmware refused to enable.
 * enabled    -       Calls are made. Announced messages wait for their readers.
 * enabled    EVENT   Firmware did not yield an event: fetch it with backoff.
 * enabled    SEND    A killed caller left a busy send: finish it within 10 s.
 * enabled    DRAIN   A message that nobody reads was announced: receive it.
 * enabled    CHECK   A malformed or doubtful event may announce one: receive
 *                    once, and if that fails probe.
 * enabled    PROBE   One may wait without an announcement: receive once.
 * enabled    TAKE    A reader was killed while firmware was busy, or left its
 *                    message for hold_after_ms: receive it in its place.
 *
 * A handle's flags: ANNOUNCED, a message for it is pending; DOUBTFUL, that
 * message may be received already, so an error says that it is; LOST, the
 * connection was lost and the reader was not told yet.
 *
 * Locks, in this order:
 *
 * - rtas_ibm_send_hvpipe_msg_lock is held around ibm,send-hvpipe-msg.
 *   rtas_ibm_receive_hvpipe_msg_lock is held from before
 *   ibm,receive-hvpipe-msg until the message is with its reader or its handle.
 *   A change of &hvpipe.state takes both, so that the state is stable under
 *   either. Neither is held while user memory is paged in, as that can take
 *   for ever.
 * - &hvpipe.lock guards the table of handles, the messages that handles hold,
 *   and the event log. A handle that was found stays while the lock is held.
 *   The event interrupt takes it.
 *
 * Each of the two mutexes can be held as long as firmware is busy. A user's
 * wait for one ends by a fatal signal. Everybody else counts itself in
 * &hvpipe.send_waiters or &hvpipe.receive_waiters first; the holder's busy call
 * then gives way at the end of the retry limit.
 */

#define pr_fmt(fmt) "papr-hvpipe: " fmt

#include <kunit/static_stub.h>
#include <linux/anon_inodes.h>
#include <linux/atomic.h>
#include <linux/bitfield.h>
#include <linux/bitops.h>
#include <linux/build_bug.h>
#include <linux/cache.h>
#include <linux/crash_dump.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/miscdevice.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/of.h>
#include <linux/poll.h>
#include <linux/reboot.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/suspend.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <asm/machdep.h>
#include <asm/papr-sysparm.h>
#include <asm/rtas.h>
#include <uapi/asm/papr-hvpipe.h>

#include "pseries.h"

#define CREATE_TRACE_POINTS
#include "papr-hvpipe-trace.h"

/* A source ID is 0xCCRRQQQQ: QQQQ is the index. */
#define HVPIPE_SOURCE_TYPE	GENMASK(31, 24)	/* CC */
#define HVPIPE_SOURCE_RESERVED	GENMASK(23, 16)	/* RR */
#define HVPIPE_SOURCE_TYPE_HMC	0x02

/* The largest payload to send: a 4 KiB buffer less firmware's 8 bytes. */
#define HVPIPE_MAX_SEND		(SZ_4K - 8)
/* The largest payload to receive: the buffer that firmware is given. */
#define HVPIPE_MAX_RECEIVE	SZ_4K
/* Buckets of the table of handles, as a power of two: 32 KiB. */
#define HVPIPE_HASH_BITS	12

#define HVPIPE_HDR_LEN		sizeof(struct papr_hvpipe_hdr)

static_assert(HVPIPE_HDR_LEN == 48);

/* Bits of the type in the event log's section 'PE'. */
#define HVPIPE_EVENT_MSG	0x01	/* a message waits to be received */
#define HVPIPE_EVENT_LOST	0x02	/* the pipe to the source was lost */

/* Retry limit for busy firmware in background work and in suspend. */
#define HVPIPE_BUSY_TIMEOUT		(10 * HZ)

/*
 * How long an announcement may come after its message was received by a call
 * that nothing announced.
 */
#define HVPIPE_DOUBT		HZ

/* Initial and maximum backoff for deferred work. */
#define HVPIPE_RETRY_MIN	(HZ / 100)
#define HVPIPE_RETRY_MAX	(64 * HZ)

/*
 * Maximum number of messages held per handle by hold_after_ms. A message takes
 * 4.2 KiB, so 1.1 MiB at most wait for a reader that does not come.
 */
#define HVPIPE_HOLD_MAX		256

/*
 * Maximum number of messages that all handles hold together, 68 MiB: no message
 * is received then, whatever firmware does to have more of them held.
 */
#define HVPIPE_HELD_MAX		16384

/*
 * How often a page of user memory may be gone again when it has just been
 * brought in, before that counts as a fault.
 */
#define HVPIPE_PAGE_TRIES	16

/*
 * The memory that firmware reads and writes. It has to lie below 4 GiB; the
 * kernel image does (see rtas_data_buf), so that no RTAS work area has to be
 * allocated for each message.
 */
struct hvpipe_firmware_area {
	/* ibm,send-hvpipe-msg: the list of buffers, always of one */
	struct {
		__be64 length;		/* of the list in bytes, this word included */
		__be64 address;
		__be64 used;
	} list;
	/* ibm,set-system-parameter */
	struct {
		__be16 length;
		u8 enable;
		u8 reserved[5];
	} parameter;
	/* check-exception */
	u8 event_log[RTAS_ERROR_LOG_MAX] __aligned(8);
	/* Padding, so that @hdr and @received are one piece to copy to the user */
	u8 reserved[SZ_4K - 32 - RTAS_ERROR_LOG_MAX - HVPIPE_HDR_LEN];
	struct papr_hvpipe_hdr hdr;
	u8 received[HVPIPE_MAX_RECEIVE];
	u8 sent[SZ_4K];
};

static_assert(offsetof(struct hvpipe_firmware_area, received) == SZ_4K);

/* A received message that its handle holds until it is read. */
struct hvpipe_msg {
	struct list_head list;
	size_t len;			/* of the payload */
	struct papr_hvpipe_hdr hdr;
	u8 payload[HVPIPE_MAX_RECEIVE];
};

static_assert(offsetof(struct hvpipe_msg, payload) ==
	      offsetof(struct hvpipe_msg, hdr) + HVPIPE_HDR_LEN);

enum hvpipe_state {
	HVPIPE_DISABLED,	/* at boot and at shutdown */
	HVPIPE_SUSPENDED,	/* for a migration or hibernation */
	HVPIPE_ENABLED,
};

static const char * const hvpipe_state_names[] = {
	[HVPIPE_DISABLED] = "disabled",
	[HVPIPE_SUSPENDED] = "suspended",
	[HVPIPE_ENABLED] = "enabled",
};

/* Bits of &hvpipe.due. The comment at the top says when each is set. */
enum {
	HVPIPE_DUE_ENABLE,	/* enable the pipe */
	HVPIPE_DUE_EVENT,	/* fetch the event that firmware did not yield */
	HVPIPE_DUE_SEND,	/* finish the send that its caller abandoned */
	HVPIPE_DUE_DRAIN,	/* receive a message that nobody reads */
	HVPIPE_DUE_CHECK,	/* receive one that an event may have announced */
	HVPIPE_DUE_PROBE,	/* receive one that may wait unannounced */
	HVPIPE_DUE_TAKE,	/* receive an announced one in its reader's place */
};

/**
 * struct hvpipe - The partition's pipe.
 * @lock:    Guards @handles, @nr_held, the messages that handles hold, the event
 *           log, @virq and @irq.
 * @handles: The handles, hashed by source ID.
 * @nr_handles: How many there are.
 * @nr_held: How many messages they hold.
 * @state:   Whether firmware may be called. Both RTAS locks.
 * @send_waiters: How many wait for the send lock and cannot be interrupted: a
 *           busy send yields to them at the end of the retry limit.
 * @receive_waiters: The same for the receive lock.
 * @busy_timeout: Retry limit for a busy firmware, in jiffies.
 * @send_epoch: Counts what ends a busy send: other sends, and disabling. Send
 *           lock.
 * @unfinished: Source of a send that firmware is still busy with, though its
 *           caller was killed or gave way; 0 if there is none. Send lock.
 * @unfinished_until: When it is given up, in jiffies. Send lock.
 * @given_up: How many sends were. Send lock.
 * @area:    The memory shared with firmware. Its parts for sending are guarded
 *           by the send lock, those for receiving by the receive lock.
 * @spare:   Room for one message that has to be held. Present before each
 *           receive, as a received message must not be lost. Receive lock.
 * @dropped: Messages that went to nobody.
 * @virq:    Linux's number of the interrupt that came last.
 * @irq:     Firmware's number of it.
 * @due:     What the work has to do: HVPIPE_DUE_* bits.
 * @work:    Does what is due.
 * @retry:   The work's backoff, in jiffies.
 * @pm_notifier: Called before and after a hibernation.
 * @announced: Source of the message that was announced last.
 * @doubt_until: Until then, in jiffies, the message of an announcement may be
 *           received already.
 * @hold_after_ms: How long an announced message waits for its reader before
 *           its handle holds it, in ms; 0 for ever.
 * @hold_timer: Expires after @hold_after_ms.
 */
struct hvpipe {
	spinlock_t lock;	/* see above */
	struct hlist_head *handles;
	unsigned int nr_handles;
	unsigned int nr_held;
	enum hvpipe_state state;
	atomic_t send_waiters;
	atomic_t receive_waiters;
	unsigned long busy_timeout;
	unsigned long send_epoch;
	u32 unfinished;
	unsigned long unfinished_until;
	unsigned long given_up;
	struct hvpipe_firmware_area *area;
	struct hvpipe_msg *spare;
	atomic_long_t dropped;
	unsigned int virq;
	unsigned int irq;
	unsigned long due;
	struct delayed_work work;
	unsigned long retry;
	struct notifier_block pm_notifier;
	u32 announced;
	unsigned long doubt_until;
	unsigned int hold_after_ms;
	struct timer_list hold_timer;
};

/* Bits of &hvpipe_handle.flags */
enum {
	HVPIPE_ANNOUNCED,	/* a message for this source is to be received */
	HVPIPE_LOST,		/* the connection was lost, and nobody read it */
	HVPIPE_DOUBTFUL,	/* the message announced may be received already */
};

/**
 * struct hvpipe_handle - One source, opened by user space.
 * @node:   In the pipe's table.
 * @pipe:   The pipe.
 * @source: Source ID.
 * @nr_held: How many messages are in @held.
 * @flags:  HVPIPE_ANNOUNCED and so on.
 * @wait:   Pollers.
 * @held:   Messages received and not read yet. Guarded by the pipe's lock.
 * @received: Messages received, read or held. Receive lock.
 * @received_bytes: Their payload. Receive lock.
 * @sent:   Messages sent. Send lock.
 * @sent_bytes: Their payload. Send lock.
 */
struct hvpipe_handle {
	struct hlist_node node;
	struct hvpipe *pipe;
	u32 source;
	unsigned int nr_held;
	unsigned long flags;
	wait_queue_head_t wait;
	struct list_head held;
	u64 received;
	u64 received_bytes;
	u64 sent;
	u64 sent_bytes;
};

/* &struct hvpipe_msg, which kmalloc() would round up to 8 KiB. */
static struct kmem_cache *hvpipe_msg_cache __read_mostly;

static struct hvpipe_firmware_area hvpipe_area __aligned(SZ_4K);

static bool hvpipe_present __ro_after_init;

/* The tokens of the functions that are called for each message. */
static struct {
	s32 send;
	s32 receive;
	s32 check_exception;
} hvpipe_tokens __ro_after_init;

static int hvpipe_pm_notify(struct notifier_block *nb, unsigned long action, void *data);
static void hvpipe_work(struct work_struct *work);
static void hvpipe_hold_expired(struct timer_list *timer);

static struct hvpipe hvpipe = {
	.lock = __SPIN_LOCK_UNLOCKED(hvpipe.lock),
	.busy_timeout = HVPIPE_BUSY_TIMEOUT,
	.area = &hvpipe_area,
	.work = __DELAYED_WORK_INITIALIZER(hvpipe.work, hvpipe_work, 0),
	.retry = HVPIPE_RETRY_MIN,
	.pm_notifier.notifier_call = hvpipe_pm_notify,
	.hold_timer = __TIMER_INITIALIZER(hvpipe_hold_expired, 0),
};

/*
 * Queue the work; never postpone work that is already queued by more than
 * %HVPIPE_RETRY_MIN.
 *
 * Here and below a test's pipe is redirected to its stubs. The real one never
 * is: its interrupt or timer can run on top of the test's task.
 */
static void hvpipe_queue_work(struct hvpipe *pipe, unsigned long delay)
{
	if (pipe != &hvpipe)
		KUNIT_STATIC_STUB_REDIRECT(hvpipe_queue_work, pipe, delay);

	if (delay > HVPIPE_RETRY_MIN)
		queue_delayed_work(system_long_wq, &pipe->work, delay);
	else
		mod_delayed_work(system_long_wq, &pipe->work, delay);
}

/* Make @bit due, and have the work do it at once. Context: any. */
static void hvpipe_schedule(struct hvpipe *pipe, unsigned int bit)
{
	set_bit(bit, &pipe->due);
	hvpipe_queue_work(pipe, 0);
}

/*
 * Firmware. Each RTAS function is called in one place, which maps its status.
 */

static bool hvpipe_is_busy(s32 fwrc)
{
	return fwrc == RTAS_BUSY ||
	       (fwrc >= RTAS_EXTENDED_DELAY_MIN && fwrc <= RTAS_EXTENDED_DELAY_MAX);
}

/**
 * hvpipe_busy_delay() - Wait until a busy firmware should be called again.
 * @pipe:    The pipe.
 * @fwrc:    What firmware answered.
 * @expires: When the retry limit ends, in jiffies; 0 before the first delay.
 * @waiters: How many wait for the lock that the caller holds and cannot be
 *           interrupted. The retry limit holds only while there are any, and a
 *           fatal signal ends the delay. NULL for background work, which always
 *           has the limit and takes no signal.
 *
 * Context: May sleep.
 * Return: 1 to call again, 0 if @fwrc is not a busy status, -EINTR on a fatal
 *         signal, -EBUSY at the end of the retry limit.
 */
static int hvpipe_busy_delay(struct hvpipe *pipe, s32 fwrc, unsigned long *expires,
			     const atomic_t *waiters)
{
	if (!hvpipe_is_busy(fwrc))
		return 0;

	if (!*expires)
		*expires = (jiffies + pipe->busy_timeout) ?: 1;
	if (waiters && fatal_signal_pending(current))
		return -EINTR;
	if ((!waiters || atomic_read(waiters)) && time_after(jiffies, *expires))
		return -EBUSY;
	return rtas_busy_delay(fwrc);
}

/* The errno for a status of @function that is neither success nor busy. */
static int hvpipe_errno(const char *function, s32 fwrc)
{
	switch (fwrc) {
	case RTAS_INVALID_PARAMETER:
		return -EINVAL;
	case RTAS_FUNC_NOT_SUPPORTED:
		return -EOPNOTSUPP;
	default:
		pr_err_ratelimited("unexpected %s status %d\n", function, fwrc);
		fallthrough;
	case RTAS_HARDWARE_ERROR:
		return -EIO;
	}
}

static s32 rtas_ibm_send_hvpipe_msg(struct hvpipe *pipe, u32 source)
{
	if (pipe != &hvpipe)
		KUNIT_STATIC_STUB_REDIRECT(rtas_ibm_send_hvpipe_msg, pipe, source);

	return rtas_call(hvpipe_tokens.send, 2, 1, NULL, source, __pa(&pipe->area->list));
}

/**
 * hvpipe_send() - Send the payload in the send buffer.
 * @pipe:   The pipe, enabled.
 * @source: Who to send to.
 * @len:    Length of the payload.
 *
 * When a fatal signal or a change of state ends it, the hypervisor may still be
 * in the call. Its sender, the work or the next send repeats it: see
 * hvpipe_finish_send().
 *
 * Context: May sleep. The send lock is held.
 * Return: 0 when the message was delivered. -EIO, -EINVAL, -EPIPE (the pipe to
 *         @source is closed), -EOPNOTSUPP as firmware says, -EINTR on a fatal
 *         signal, -EBUSY when a suspend must not wait any longer.
 */
static int hvpipe_send(struct hvpipe *pipe, u32 source, size_t len)
{
	struct hvpipe_firmware_area *area = pipe->area;
	unsigned long expires = 0;
	s32 fwrc;
	int again;

	lockdep_assert_held(&rtas_ibm_send_hvpipe_msg_lock);

	area->list.length = cpu_to_be64(sizeof(area->list));
	area->list.address = cpu_to_be64(__pa(area->sent));
	area->list.used = cpu_to_be64(len);

	do {
		fwrc = rtas_ibm_send_hvpipe_msg(pipe, source);
		again = hvpipe_busy_delay(pipe, fwrc, &expires, &pipe->send_waiters);
	} while (again > 0);
	WRITE_ONCE(pipe->unfinished, again < 0 ? source : 0);
	if (again < 0)
		pipe->unfinished_until = jiffies + pipe->busy_timeout;
	if (again == -EINTR)
		hvpipe_schedule(pipe, HVPIPE_DUE_SEND);
	if (again || !fwrc)
		return again;
	return fwrc == RTAS_HVPIPE_CLOSED ? -EPIPE : hvpipe_errno("ibm,send-hvpipe-msg", fwrc);
}

/* Count the unfinished send as given up. Nobody waits for its outcome. */
static void hvpipe_give_up_send(struct hvpipe *pipe)
{
	trace_papr_hvpipe_give_up(pipe->unfinished);
	WRITE_ONCE(pipe->unfinished, 0);
	WRITE_ONCE(pipe->given_up, pipe->given_up + 1);
}

/**
 * hvpipe_finish_send() - Repeat a send that its caller does not.
 * @pipe: The pipe, enabled.
 * @wait: Whether to wait until it is finished or given up.
 *
 * The list and the payload are still in the memory shared with firmware. The
 * retry limit began when the call was abandoned; at its end the call is given
 * up, so that one silent HMC does not stop the others.
 *
 * Context: May sleep. The send lock is held.
 * Return: 0 when no send is unfinished any more, -EINTR on a fatal signal,
 *         -EAGAIN when firmware is busy and the caller does not wait.
 */
static int hvpipe_finish_send(struct hvpipe *pipe, bool wait)
{
	s32 fwrc;

	lockdep_assert_held(&rtas_ibm_send_hvpipe_msg_lock);

	while (pipe->unfinished) {
		pipe->send_epoch++;
		fwrc = rtas_ibm_send_hvpipe_msg(pipe, pipe->unfinished);
		if (!hvpipe_is_busy(fwrc)) {
			WRITE_ONCE(pipe->unfinished, 0);
			break;
		}
		if (time_after(jiffies, pipe->unfinished_until)) {
			hvpipe_give_up_send(pipe);
			break;
		}
		if (!wait)
			return -EAGAIN;
		if (fatal_signal_pending(current)) {
			hvpipe_schedule(pipe, HVPIPE_DUE_SEND);
			return -EINTR;
		}
		rtas_busy_delay(fwrc);
	}
	return 0;
}

/**
 * struct hvpipe_received - What ibm,receive-hvpipe-msg says of a message.
 * @source: Out: Who sent it.
 * @len:    Out: Bytes written; 0 when no message was pending.
 */
struct hvpipe_received {
	u32 source;
	u32 len;
};

static s32 rtas_ibm_receive_hvpipe_msg(struct hvpipe *pipe,
				       struct hvpipe_received *received)
{
	u32 rets[2];
	s32 fwrc;

	if (pipe != &hvpipe)
		KUNIT_STATIC_STUB_REDIRECT(rtas_ibm_receive_hvpipe_msg, pipe, received);

	fwrc = rtas_call(hvpipe_tokens.receive, 2, 3, rets, __pa(pipe->area->received),
			 sizeof(pipe->area->received));
	received->source = rets[0];
	received->len = rets[1];
	return fwrc;
}

/**
 * hvpipe_receive() - Receive a message into the receive buffer.
 * @pipe:     The pipe, enabled, with a spare.
 * @received: See &struct hvpipe_received.
 * @user:     See hvpipe_busy_delay().
 *
 * Success acknowledges the message to its source. An announced message is still
 * pending after a failure other than -ENODATA and -EBADMSG. If none was
 * announced, an error says that nothing is pending.
 *
 * Context: May sleep. The receive lock is held.
 * Return: 0 for a message, -ENODATA when none was pending. -EIO, -EINVAL,
 *         -EOPNOTSUPP as firmware says, -EINTR on a fatal signal, -EBUSY when
 *         the retry limit ended, -EBADMSG when firmware's length cannot be true.
 */
static int hvpipe_receive(struct hvpipe *pipe, struct hvpipe_received *received,
			  bool user)
{
	unsigned long expires = 0;
	s32 fwrc;
	int again;

	lockdep_assert_held(&rtas_ibm_receive_hvpipe_msg_lock);

	do {
		fwrc = rtas_ibm_receive_hvpipe_msg(pipe, received);
		again = hvpipe_busy_delay(pipe, fwrc, &expires,
					  user ? &pipe->receive_waiters : NULL);
	} while (again > 0);
	if (again)
		return again;
	if (fwrc)
		return hvpipe_errno("ibm,receive-hvpipe-msg", fwrc);
	if (!received->len)
		return -ENODATA;
	if (received->len <= HVPIPE_MAX_RECEIVE)
		return 0;
	pr_err_ratelimited("ibm,receive-hvpipe-msg wrote %u bytes from source 0x%08x, more than the buffer holds\n",
			   received->len, received->source);
	return -EBADMSG;
}

static s32 rtas_check_exception_hvpipe(struct hvpipe *pipe)
{
	if (pipe != &hvpipe)
		KUNIT_STATIC_STUB_REDIRECT(rtas_check_exception_hvpipe, pipe);

	return rtas_call(hvpipe_tokens.check_exception, 6, 1, NULL,
			 RTAS_VECTOR_EXTERNAL_INTERRUPT, pipe->irq,
			 RTAS_HVPIPE_MSG_EVENTS, 1 /* Time Critical */,
			 __pa(pipe->area->event_log), rtas_get_error_log_max());
}

static s32 rtas_ibm_set_system_parameter_hvpipe(struct hvpipe *pipe)
{
	if (pipe != &hvpipe)
		KUNIT_STATIC_STUB_REDIRECT(rtas_ibm_set_system_parameter_hvpipe, pipe);

	return rtas_call(rtas_function_token(RTAS_FN_IBM_SET_SYSTEM_PARAMETER), 2, 1, NULL,
			 PAPR_SYSPARM_HVPIPE_ENABLE.token, __pa(&pipe->area->parameter));
}

/**
 * hvpipe_set_enable() - Enable or disable the pipe.
 * @pipe:   The pipe.
 * @enable: Which of the two.
 *
 * papr_sysparm_set() waits for a busy firmware without end; nobody could
 * suspend or close a handle then.
 *
 * Context: May sleep. Both RTAS locks are held.
 * Return: Firmware's status, 0 when done; a busy one when the retry limit ended.
 */
static s32 hvpipe_set_enable(struct hvpipe *pipe, bool enable)
{
	struct hvpipe_firmware_area *area = pipe->area;
	unsigned long expires = 0;
	s32 fwrc;

	lockdep_assert_held(&rtas_ibm_send_hvpipe_msg_lock);
	lockdep_assert_held(&rtas_ibm_receive_hvpipe_msg_lock);

	area->parameter.length = cpu_to_be16(sizeof(area->parameter.enable));
	area->parameter.enable = enable;
	do {
		fwrc = rtas_ibm_set_system_parameter_hvpipe(pipe);
	} while (hvpipe_busy_delay(pipe, fwrc, &expires, NULL) > 0);
	return fwrc;
}

/* True if firmware may be called. Only stable under an RTAS lock. */
static bool hvpipe_usable(struct hvpipe *pipe)
{
	return READ_ONCE(pipe->state) == HVPIPE_ENABLED;
}

/*
 * Take the receive lock; no signal ends the wait. The holder's read may stay
 * busy without end, so tell it that somebody waits.
 */
static void hvpipe_lock_receive(struct hvpipe *pipe)
{
	atomic_inc(&pipe->receive_waiters);
	mutex_lock(&rtas_ibm_receive_hvpipe_msg_lock);
	atomic_dec(&pipe->receive_waiters);
}

/*
 * hold_after_ms: the handle of a sleeping reader holds its message, so that the
 * pipe is free for the others. To leave this out, remove this part, the calls
 * of hvpipe_await_reader(), and the members of &struct hvpipe that begin with
 * hold_.
 */

/*
 * A message is announced to @handle: start its reader's time. A reader whose
 * handle holds messages already is behind, so the next one is held at once.
 */
static void hvpipe_await_reader(struct hvpipe *pipe, const struct hvpipe_handle *handle)
{
	unsigned int ms = READ_ONCE(pipe->hold_after_ms);

	if (!ms)
		return;
	if (handle && READ_ONCE(handle->nr_held))
		hvpipe_schedule(pipe, HVPIPE_DUE_TAKE);
	else
		mod_timer(&pipe->hold_timer, jiffies + msecs_to_jiffies(ms));
}

static void hvpipe_hold_expired(struct timer_list *timer)
{
	struct hvpipe *pipe = container_of(timer, struct hvpipe, hold_timer);

	if (READ_ONCE(pipe->hold_after_ms))
		hvpipe_schedule(pipe, HVPIPE_DUE_TAKE);
}

/* The time of the message that is announced now begins anew. */
static int hvpipe_set_hold_after_ms(const char *val, const struct kernel_param *kp)
{
	int err = param_set_uint(val, kp);

	if (!err && hvpipe_present)
		hvpipe_await_reader(&hvpipe, NULL);
	return err;
}

static const struct kernel_param_ops hvpipe_hold_after_ms_ops = {
	.set = hvpipe_set_hold_after_ms,
	.get = param_get_uint,
};

module_param_cb(hold_after_ms, &hvpipe_hold_after_ms_ops, &hvpipe.hold_after_ms, 0644);
MODULE_PARM_DESC(hold_after_ms,
		 "Have a handle hold a message that nobody read for so many ms, so that the pipe is free (0: never)");

/*
 * Handles and the messages they hold.
 */

static struct hlist_head *hvpipe_bucket(struct hvpipe *pipe, u32 source)
{
	return &pipe->handles[hash_32(source, HVPIPE_HASH_BITS)];
}

/* The handle of @source, or NULL. It stays while the lock is held. */
static struct hvpipe_handle *hvpipe_find(struct hvpipe *pipe, u32 source)
{
	struct hvpipe_handle *handle;

	lockdep_assert_held(&pipe->lock);

	hlist_for_each_entry(handle, hvpipe_bucket(pipe, source), node)
		if (handle->source == source)
			return handle;
	return NULL;
}

/* Do @act to each handle. Interrupts are not off for longer than for one bucket. */
static void hvpipe_for_all_handles(struct hvpipe *pipe,
				   void (*act)(struct hvpipe_handle *handle))
{
	struct hvpipe_handle *handle;

	for (unsigned int i = 0; i < BIT(HVPIPE_HASH_BITS); i++) {
		if (hlist_empty(&pipe->handles[i]))
			continue;
		spin_lock_irq(&pipe->lock);
		hlist_for_each_entry(handle, &pipe->handles[i], node)
			act(handle);
		spin_unlock_irq(&pipe->lock);
	}
}

static void hvpipe_wake(struct hvpipe_handle *handle)
{
	/* Its barrier is paired with that of poll_wait(). */
	if (wq_has_sleeper(&handle->wait))
		wake_up_interruptible_poll(&handle->wait, EPOLLIN | EPOLLRDNORM);
}

/* A message for the handle is pending, or, if that is @doubtful, may be. */
static void hvpipe_announce(struct hvpipe *pipe, struct hvpipe_handle *handle, bool doubtful)
{
	if (doubtful)
		set_bit(HVPIPE_DOUBTFUL, &handle->flags);
	set_bit(HVPIPE_ANNOUNCED, &handle->flags);
	WRITE_ONCE(pipe->announced, handle->source);
	hvpipe_wake(handle);
}

/*
 * A message was received that was not announced. The hypervisor may announce it
 * late, or may be about to: a receive for an announcement that comes now can
 * find the pipe empty, which some firmware answers with an error.
 */
static void hvpipe_doubt(struct hvpipe *pipe, unsigned long time)
{
	WRITE_ONCE(pipe->doubt_until, jiffies + time);
}

/* Nothing is pending, as it seems, unless firmware failed just now: try once more. */
static void hvpipe_probe_later(struct hvpipe *pipe)
{
	set_bit(HVPIPE_DUE_PROBE, &pipe->due);
	hvpipe_queue_work(pipe, HVPIPE_RETRY_MIN);
}

static bool hvpipe_in_doubt(struct hvpipe *pipe)
{
	return time_before(jiffies, READ_ONCE(pipe->doubt_until));
}

static void hvpipe_count_drop(struct hvpipe *pipe, u32 source, size_t len)
{
	atomic_long_inc(&pipe->dropped);
	trace_papr_hvpipe_drop(source, len);
}

/* Ensure that a message that is about to be received can be held. */
static int hvpipe_prepare_spare(struct hvpipe *pipe)
{
	lockdep_assert_held(&rtas_ibm_receive_hvpipe_msg_lock);

	if (READ_ONCE(pipe->nr_held) >= HVPIPE_HELD_MAX) {
		pr_warn_ratelimited("%u messages were received and not read, no other is received\n",
				    HVPIPE_HELD_MAX);
		return -ENOMEM;
	}
	if (!pipe->spare)
		pipe->spare = kmem_cache_alloc(hvpipe_msg_cache, GFP_KERNEL_ACCOUNT);
	return pipe->spare ? 0 : -ENOMEM;
}

/*
 * Have the handle of its source hold the message in the receive buffer, or drop
 * the message if that source has no handle. @announced is the source whose
 * announcement led to the receive, 0 if none did.
 */
static void hvpipe_hold(struct hvpipe *pipe, const struct hvpipe_received *received,
			u32 announced)
{
	struct hvpipe_msg *msg = pipe->spare;
	struct hvpipe_handle *handle;
	unsigned long flags;

	lockdep_assert_held(&rtas_ibm_receive_hvpipe_msg_lock);

	msg->len = received->len;
	msg->hdr = (struct papr_hvpipe_hdr) { .flags = HVPIPE_MSG_AVAILABLE };
	memcpy(msg->payload, pipe->area->received, received->len);

	spin_lock_irqsave(&pipe->lock, flags);
	handle = hvpipe_find(pipe, received->source);
	if (handle) {
		pipe->spare = NULL;
		WRITE_ONCE(handle->received, handle->received + 1);
		WRITE_ONCE(handle->received_bytes, handle->received_bytes + msg->len);
		list_add_tail(&msg->list, &handle->held);
		WRITE_ONCE(handle->nr_held, handle->nr_held + 1);
		WRITE_ONCE(pipe->nr_held, pipe->nr_held + 1);
		hvpipe_wake(handle);
		/* The next message may have been announced before this one was held. */
		if (test_bit(HVPIPE_ANNOUNCED, &handle->flags)) {
			/* Or it was this one, which no announcement of its own took. */
			if (announced != handle->source)
				set_bit(HVPIPE_DOUBTFUL, &handle->flags);
			hvpipe_await_reader(pipe, handle);
		}
	}
	spin_unlock_irqrestore(&pipe->lock, flags);

	if (!handle)
		hvpipe_count_drop(pipe, received->source, received->len);
}

/**
 * hvpipe_drain_locked() - Receive a message in the place of its reader.
 * @pipe: The pipe.
 * @why:  %HVPIPE_DUE_DRAIN: a message waits that nobody reads.
 *        %HVPIPE_DUE_TAKE: the reader of an announced message does not come.
 *        %HVPIPE_DUE_CHECK: a malformed or doubtful event may announce one.
 *        %HVPIPE_DUE_PROBE: a message may wait that was not announced.
 *
 * The handle of the message's source holds it; without one it is dropped.
 *
 * An announcement that stands is taken over first: it would outlive its message
 * otherwise. A check or a probe leaves it to the reader instead, unless it is
 * doubtful. If nothing was announced for certain, an error means that nothing is
 * pending; but for a probe, one more attempt is made.
 *
 * Context: May sleep. The receive lock is held.
 * Return: 0 when there is no more to do, else -ve errno: try again.
 */
static int hvpipe_drain_locked(struct hvpipe *pipe, unsigned int why)
{
	struct hvpipe_received received;
	struct hvpipe_handle *handle;
	const bool asked = why == HVPIPE_DUE_DRAIN || why == HVPIPE_DUE_TAKE;
	bool announced, doubtful;
	u32 source;
	int err;

	lockdep_assert_held(&rtas_ibm_receive_hvpipe_msg_lock);

	/* Enabling the pipe makes a probe due. */
	if (!hvpipe_usable(pipe))
		return 0;
	err = hvpipe_prepare_spare(pipe);
	if (err)
		return err;

	spin_lock_irq(&pipe->lock);
	source = pipe->announced;
	handle = hvpipe_find(pipe, source);
	announced = handle && test_bit(HVPIPE_ANNOUNCED, &handle->flags);
	if ((!asked && announced && !test_bit(HVPIPE_DOUBTFUL, &handle->flags)) ||
	    (why == HVPIPE_DUE_TAKE && (!announced || handle->nr_held >= HVPIPE_HOLD_MAX))) {
		spin_unlock_irq(&pipe->lock);
		return 0;
	}
	if (announced)
		clear_bit(HVPIPE_ANNOUNCED, &handle->flags);
	doubtful = !asked ||
		   (announced && test_and_clear_bit(HVPIPE_DOUBTFUL, &handle->flags));
	/* The message's announcement may come as soon as the call has begun. */
	if (why == HVPIPE_DUE_PROBE)
		hvpipe_doubt(pipe, HVPIPE_DOUBT);
	spin_unlock_irq(&pipe->lock);

	err = hvpipe_receive(pipe, &received, false);
	if (err && why == HVPIPE_DUE_PROBE)
		hvpipe_doubt(pipe, 0);
	switch (err) {
	case 0:
		hvpipe_hold(pipe, &received, announced ? source : 0);
		if (!announced || received.source == source)
			return 0;
		/* The announced message may still be pending, or not. */
		hvpipe_doubt(pipe, HVPIPE_DOUBT);
		doubtful = true;
		err = -EAGAIN;
		break;
	case -ENODATA:
	case -EBADMSG:
		return 0;
	case -EBUSY:
		break;
	default:
		if (doubtful) {
			if (why != HVPIPE_DUE_PROBE)
				hvpipe_probe_later(pipe);
			return 0;
		}
	}
	if (!announced)
		return err;

	/* The message is still pending. Its handle may be closed by now. */
	spin_lock_irq(&pipe->lock);
	handle = hvpipe_find(pipe, source);
	if (handle)
		hvpipe_announce(pipe, handle, doubtful);
	else
		hvpipe_schedule(pipe, doubtful ? HVPIPE_DUE_CHECK : HVPIPE_DUE_DRAIN);
	spin_unlock_irq(&pipe->lock);
	return why == HVPIPE_DUE_TAKE ? err : 0;
}

static int hvpipe_drain(struct hvpipe *pipe, unsigned int why)
{
	int err;

	hvpipe_lock_receive(pipe);
	err = hvpipe_drain_locked(pipe, why);
	mutex_unlock(&rtas_ibm_receive_hvpipe_msg_lock);
	return err;
}

/* Copy to user memory if there is room and its pages are present: a lock is held. */
static bool hvpipe_copy_present(const void *from, size_t len, struct iov_iter *to)
{
	size_t copied;

	if (iov_iter_count(to) < len)
		return false;
	pagefault_disable();
	copied = copy_to_iter(from, len, to);
	pagefault_enable();
	if (copied != len)
		iov_iter_revert(to, copied);
	return copied == len;
}

/*
 * Read a message that the handle holds. It stays there until it was copied, so
 * that messages are read in order. Missing pages are brought in without a lock.
 *
 * Return: Bytes read, 0 when nothing was held, else -ve errno.
 */
static ssize_t hvpipe_read_held(struct hvpipe_handle *handle, struct iov_iter *to)
{
	struct hvpipe *pipe = handle->pipe;
	struct hvpipe_msg *msg;
	size_t len = 0;
	int tries = 0;

	do {
		spin_lock_irq(&pipe->lock);
		msg = list_first_entry_or_null(&handle->held, struct hvpipe_msg, list);
		if (msg) {
			len = HVPIPE_HDR_LEN + msg->len;
			if (hvpipe_copy_present(&msg->hdr, len, to)) {
				list_del(&msg->list);
				WRITE_ONCE(handle->nr_held, handle->nr_held - 1);
				WRITE_ONCE(pipe->nr_held, pipe->nr_held - 1);
				spin_unlock_irq(&pipe->lock);
				kmem_cache_free(hvpipe_msg_cache, msg);
				if (test_bit(HVPIPE_ANNOUNCED, &handle->flags))
					hvpipe_await_reader(pipe, handle);
				return len;
			}
		}
		spin_unlock_irq(&pipe->lock);
		if (!msg)
			return 0;
		if (iov_iter_count(to) < len)
			return -EMSGSIZE;
	} while (!fault_in_iov_iter_writeable(to, len) && ++tries < HVPIPE_PAGE_TRIES);
	return -EFAULT;
}

/*
 * A read could not receive the message that was announced. Announce it again:
 * others who share the handle may have looked while it was not announced.
 *
 * Return: As hvpipe_read_pipe().
 */
static int hvpipe_read_failed(struct hvpipe_handle *handle, int err, bool doubtful)
{
	struct hvpipe *pipe = handle->pipe;

	switch (err) {
	case -ENODATA:
		return err;
	case -EBADMSG:
		return -EIO;
	case -EBUSY:
		break;
	case -EINTR:
		/* The hypervisor may still be in the call: the work has to finish it. */
		hvpipe_schedule(pipe, HVPIPE_DUE_TAKE);
		break;
	default:
		if (!doubtful)
			break;
		hvpipe_probe_later(pipe);
		return -ENODATA;
	}
	hvpipe_announce(pipe, handle, doubtful);
	return err;
}

/*
 * Receive the message that was announced for the handle. It goes straight to the
 * reader if it is for this handle, fits, and the buffer's pages are present;
 * else it is held. To hold each message first would take 36% more instructions
 * for 64 bytes of payload and 80% more for 4048.
 *
 * Return: Bytes read, 0 to look again at what the handle has, -ENODATA when no
 *         message was pending, -EBUSY to go on when others had the lock, else
 *         -ve errno.
 */
static ssize_t hvpipe_read_pipe(struct hvpipe_handle *handle, struct iov_iter *to)
{
	struct hvpipe *pipe = handle->pipe;
	struct hvpipe_received received;
	bool doubtful;
	int err;

	lockdep_assert_held(&rtas_ibm_receive_hvpipe_msg_lock);

	if (!hvpipe_usable(pipe))
		return -ENXIO;
	err = hvpipe_prepare_spare(pipe);
	if (err)
		return err;
	/* The message may have been received by others before the lock was taken. */
	if (!list_empty(&handle->held) || !test_and_clear_bit(HVPIPE_ANNOUNCED, &handle->flags))
		return 0;

	err = hvpipe_receive(pipe, &received, true);
	doubtful = test_bit(HVPIPE_DOUBTFUL, &handle->flags) &&
		   test_and_clear_bit(HVPIPE_DOUBTFUL, &handle->flags);
	if (err)
		return hvpipe_read_failed(handle, err, doubtful);
	if (received.source != handle->source) {
		/* The message of this handle may be the next, and not be announced again. */
		hvpipe_doubt(pipe, HVPIPE_DOUBT);
		hvpipe_announce(pipe, handle, true);
	} else {
		pipe->area->hdr = (struct papr_hvpipe_hdr) { .flags = HVPIPE_MSG_AVAILABLE };
		if (hvpipe_copy_present(&pipe->area->hdr, HVPIPE_HDR_LEN + received.len, to)) {
			WRITE_ONCE(handle->received, handle->received + 1);
			WRITE_ONCE(handle->received_bytes, handle->received_bytes + received.len);
			return HVPIPE_HDR_LEN + received.len;
		}
	}
	hvpipe_hold(pipe, &received, handle->source);
	return 0;
}

/*
 * Report a lost connection, once all messages before it were read. The receive
 * lock is held while that is checked, so no message is on its way to the handle.
 *
 * Return: Bytes read, -EAGAIN if there is nothing to report, else -ve errno.
 */
static ssize_t hvpipe_read_loss(struct hvpipe_handle *handle, struct iov_iter *to)
{
	static const struct papr_hvpipe_hdr lost = { .flags = HVPIPE_LOST_CONNECTION };
	bool report;

	if (!hvpipe_usable(handle->pipe))
		return -ENXIO;
	if (!test_bit(HVPIPE_LOST, &handle->flags))
		return -EAGAIN;

	if (mutex_lock_killable(&rtas_ibm_receive_hvpipe_msg_lock))
		return -EINTR;
	report = list_empty(&handle->held) &&
	       !test_bit(HVPIPE_ANNOUNCED, &handle->flags) &&
	       test_and_clear_bit(HVPIPE_LOST, &handle->flags);
	mutex_unlock(&rtas_ibm_receive_hvpipe_msg_lock);
	if (!report)
		return -EAGAIN;

	if (copy_to_iter(&lost, sizeof(lost), to) == sizeof(lost))
		return sizeof(lost);
	set_bit(HVPIPE_LOST, &handle->flags);
	hvpipe_wake(handle);
	return -EFAULT;
}

/*
 * The operations on a handle.
 */

static ssize_t hvpipe_handle_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct hvpipe_handle *handle = iocb->ki_filp->private_data;
	ssize_t ret;

	if (iov_iter_count(to) < HVPIPE_HDR_LEN)
		return -EINVAL;

	do {
		ret = -ENODATA;
		if (!list_empty_careful(&handle->held)) {
			ret = hvpipe_read_held(handle, to);
		} else if (test_bit(HVPIPE_ANNOUNCED, &handle->flags)) {
			if (mutex_lock_killable(&rtas_ibm_receive_hvpipe_msg_lock))
				return -EINTR;
			ret = hvpipe_read_pipe(handle, to);
			mutex_unlock(&rtas_ibm_receive_hvpipe_msg_lock);
		}
		if (ret == -EBUSY) {
			schedule_timeout_killable(1);
			ret = 0;
		}
		if (ret == -ENODATA)
			ret = hvpipe_read_loss(handle, to);
	} while (!ret && !fatal_signal_pending(current));

	/* f_flags can change concurrently. */
	if (ret == -EAGAIN && !(READ_ONCE(iocb->ki_filp->f_flags) & O_NONBLOCK))
		return 0;
	return ret;
}

/*
 * Send a payload from user memory, whose pages have to be present. @epoch is 0 at
 * first, then that of the send.
 *
 * A busy send gives way to a change of state and goes on after it. If the pipe
 * was off meanwhile, or others finished the send, its outcome is unknown.
 *
 * Return: 0, -EFAULT if a page was missing, -EBUSY to go on when a change of state
 *         had the lock, else -ve errno.
 */
static int hvpipe_write_pipe(struct hvpipe_handle *handle, struct iov_iter *from, size_t len,
			     unsigned long *epoch)
{
	struct hvpipe *pipe = handle->pipe;
	size_t copied;
	int err;

	lockdep_assert_held(&rtas_ibm_send_hvpipe_msg_lock);

	if (!hvpipe_usable(pipe) || (*epoch && *epoch != pipe->send_epoch))
		return -ENXIO;
	if (!*epoch) {
		err = hvpipe_finish_send(pipe, true);
		if (err)
			return err;

		pagefault_disable();
		copied = copy_from_iter(pipe->area->sent, len, from);
		pagefault_enable();
		if (copied != len) {
			iov_iter_revert(from, copied);
			return -EFAULT;
		}
		*epoch = ++pipe->send_epoch;
	}

	err = hvpipe_send(pipe, handle->source, len);
	if (!err) {
		WRITE_ONCE(handle->sent, handle->sent + 1);
		WRITE_ONCE(handle->sent_bytes, handle->sent_bytes + len);
	}
	return err;
}

static ssize_t hvpipe_handle_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct hvpipe_handle *handle = iocb->ki_filp->private_data;
	const size_t count = iov_iter_count(from);
	unsigned long epoch = 0;
	int err, tries = 0;
	size_t len;

	if (count <= HVPIPE_HDR_LEN || count > HVPIPE_HDR_LEN + HVPIPE_MAX_SEND)
		return -EINVAL;

	len = count - HVPIPE_HDR_LEN;
	iov_iter_advance(from, HVPIPE_HDR_LEN);

	do {
		if (mutex_lock_killable(&rtas_ibm_send_hvpipe_msg_lock)) {
			if (epoch)
				hvpipe_schedule(handle->pipe, HVPIPE_DUE_SEND);
			return -EINTR;
		}
		err = hvpipe_write_pipe(handle, from, len, &epoch);
		mutex_unlock(&rtas_ibm_send_hvpipe_msg_lock);
		if (err == -EBUSY)
			schedule_timeout_killable(1);
	} while (err == -EBUSY ||
		 (err == -EFAULT && !fault_in_iov_iter_readable(from, len) &&
		  ++tries < HVPIPE_PAGE_TRIES));
	return err ?: count;
}

static __poll_t hvpipe_handle_poll(struct file *file, poll_table *wait)
{
	struct hvpipe_handle *handle = file->private_data;
	__poll_t mask = 0;

	poll_wait(file, &handle->wait, wait);

	if (!list_empty_careful(&handle->held))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (hvpipe_usable(handle->pipe)) {
		mask |= EPOLLOUT | EPOLLWRNORM;
		if (READ_ONCE(handle->flags) & (BIT(HVPIPE_ANNOUNCED) | BIT(HVPIPE_LOST)))
			mask |= EPOLLIN | EPOLLRDNORM;
	} else {
		mask |= EPOLLRDHUP;
	}
	return mask;
}

/*
 * Close a handle. The message that is announced blocks the pipe: receive it, and
 * drop it with those that the handle holds. An event that comes at the same
 * time takes the lock either before the handle leaves the table, and its flag is
 * seen after that, or later, and finds no handle.
 */
static void hvpipe_close(struct hvpipe_handle *handle)
{
	struct hvpipe *pipe = handle->pipe;
	struct hvpipe_msg *msg, *next;

	if (test_bit(HVPIPE_ANNOUNCED, &handle->flags))
		hvpipe_drain(pipe, HVPIPE_DUE_DRAIN);

	spin_lock_irq(&pipe->lock);
	__hlist_del(&handle->node);
	WRITE_ONCE(pipe->nr_handles, pipe->nr_handles - 1);
	WRITE_ONCE(pipe->nr_held, pipe->nr_held - handle->nr_held);
	spin_unlock_irq(&pipe->lock);

	if (test_bit(HVPIPE_ANNOUNCED, &handle->flags))
		hvpipe_schedule(pipe, test_bit(HVPIPE_DOUBTFUL, &handle->flags) ?
				      HVPIPE_DUE_CHECK : HVPIPE_DUE_DRAIN);

	list_for_each_entry_safe(msg, next, &handle->held, list) {
		hvpipe_count_drop(pipe, handle->source, msg->len);
		kmem_cache_free(hvpipe_msg_cache, msg);
	}
	kfree(handle);
}

static int hvpipe_handle_release(struct inode *inode, struct file *file)
{
	hvpipe_close(file->private_data);
	return 0;
}

static void hvpipe_handle_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct hvpipe_handle *handle = file->private_data;
	const char *state = "open";

	if (!hvpipe_usable(handle->pipe))
		state = "suspended";
	else if (test_bit(HVPIPE_LOST, &handle->flags))
		state = "lost";

	seq_printf(m, "source:\t0x%08x\n", handle->source);
	seq_printf(m, "state:\t%s\n", state);
	seq_printf(m, "sent:\t%llu\n", READ_ONCE(handle->sent));
	seq_printf(m, "sent-bytes:\t%llu\n", READ_ONCE(handle->sent_bytes));
	seq_printf(m, "received:\t%llu\n", READ_ONCE(handle->received));
	seq_printf(m, "received-bytes:\t%llu\n", READ_ONCE(handle->received_bytes));
	seq_printf(m, "held:\t%u\n", READ_ONCE(handle->nr_held));
}

static const struct file_operations hvpipe_handle_ops = {
	.read_iter = hvpipe_handle_read_iter,
	.write_iter = hvpipe_handle_write_iter,
	.poll = hvpipe_handle_poll,
	.release = hvpipe_handle_release,
	.show_fdinfo = hvpipe_handle_show_fdinfo,
};

/*
 * The device.
 */

/**
 * hvpipe_create() - Create a handle for a source.
 * @pipe:   The pipe.
 * @source: Source ID.
 *
 * Context: May sleep.
 * Return: The handle's file, or -EINVAL if @source is not an HMC's, -ENXIO
 *         while the pipe is not enabled, -EALREADY if @source has a handle.
 */
static struct file *hvpipe_create(struct hvpipe *pipe, u32 source)
{
	struct hvpipe_handle *handle;
	struct file *file;
	bool exists;

	if (FIELD_GET(HVPIPE_SOURCE_TYPE, source) != HVPIPE_SOURCE_TYPE_HMC ||
	    FIELD_GET(HVPIPE_SOURCE_RESERVED, source))
		return ERR_PTR(-EINVAL);
	if (!hvpipe_usable(pipe))
		return ERR_PTR(-ENXIO);

	handle = kzalloc(sizeof(*handle), GFP_KERNEL_ACCOUNT);
	if (!handle)
		return ERR_PTR(-ENOMEM);
	handle->pipe = pipe;
	handle->source = source;
	init_waitqueue_head(&handle->wait);
	INIT_LIST_HEAD(&handle->held);

	spin_lock_irq(&pipe->lock);
	exists = hvpipe_find(pipe, source);
	if (!exists) {
		hlist_add_head(&handle->node, hvpipe_bucket(pipe, source));
		WRITE_ONCE(pipe->nr_handles, pipe->nr_handles + 1);
	}
	spin_unlock_irq(&pipe->lock);
	if (exists) {
		kfree(handle);
		return ERR_PTR(-EALREADY);
	}

	file = anon_inode_getfile_fmode("[papr-hvpipe]", &hvpipe_handle_ops, handle,
					O_RDWR, FMODE_STREAM);
	if (IS_ERR(file))
		hvpipe_close(handle);
	return file;
}

static long hvpipe_dev_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct file *handle;
	u32 source;
	int fd;

	if (cmd != PAPR_HVPIPE_IOC_CREATE_HANDLE)
		return -ENOTTY;
	if (get_user(source, (u32 __user *)arg))
		return -EFAULT;

	fd = get_unused_fd_flags(O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return fd;
	handle = hvpipe_create(&hvpipe, source);
	if (IS_ERR(handle)) {
		put_unused_fd(fd);
		return PTR_ERR(handle);
	}
	fd_install(fd, handle);
	return fd;
}

static void hvpipe_dev_show_fdinfo(struct seq_file *m, struct file *file)
{
	seq_printf(m, "state:\t%s\n", hvpipe_state_names[READ_ONCE(hvpipe.state)]);
	seq_printf(m, "handles:\t%u\n", READ_ONCE(hvpipe.nr_handles));
	seq_printf(m, "dropped:\t%lu\n", atomic_long_read(&hvpipe.dropped));
	seq_printf(m, "given-up:\t%lu\n", READ_ONCE(hvpipe.given_up));
}

static const struct file_operations hvpipe_dev_ops = {
	.owner = THIS_MODULE,
	.open = nonseekable_open,
	.unlocked_ioctl = hvpipe_dev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = hvpipe_dev_show_fdinfo,
};

static struct miscdevice hvpipe_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "papr-hvpipe",
	.fops = &hvpipe_dev_ops,
	.mode = 0600,
};

/*
 * Events.
 */

/* The data of section 'PE' in the event log. */
struct hvpipe_event {
	__be32 source;
	u8 type;
} __packed;

/**
 * hvpipe_find_event() - Find the pipe's event in an RTAS event log.
 * @log:  The log.
 * @size: Size of the buffer that the log is in.
 *
 * get_pseries_errorlog() relies on the lengths in the log; this does not.
 *
 * Return: The event, or NULL if the log has none.
 */
static const struct hvpipe_event *hvpipe_find_event(const u8 *log, size_t size)
{
	const struct rtas_error_log *elog = (const struct rtas_error_log *)log;
	const struct rtas_ext_event_log_v6 *ext;
	const struct pseries_errorlog *sect;
	const u8 *p, *end;
	size_t len;

	ext = (const struct rtas_ext_event_log_v6 *)elog->buffer;
	end = log + min_t(size_t, size, offsetof(struct rtas_error_log, buffer) +
			  rtas_error_extended_log_length(elog));

	if (rtas_error_type(elog) != RTAS_TYPE_HVPIPE || end < ext->vendor_log ||
	    (ext->byte2 & 0x0f) != RTAS_V6EXT_LOG_FORMAT_EVENT_LOG ||
	    be32_to_cpu(ext->company_id) != RTAS_V6EXT_COMPANY_ID_IBM)
		return NULL;

	for (p = ext->vendor_log; end - p >= sizeof(*sect); p += len) {
		sect = (const struct pseries_errorlog *)p;
		len = be16_to_cpu(sect->length);
		if (len < sizeof(*sect) || len > end - p)
			return NULL;
		if (be16_to_cpu(sect->id) != PSERIES_ELOG_SECT_ID_HVPIPE_EVENT)
			continue;
		if (len < sizeof(*sect) + sizeof(struct hvpipe_event))
			return NULL;
		return (const struct hvpipe_event *)sect->data;
	}
	return NULL;
}

/* Act on an event. @event is NULL if the log has no valid one. */
static void hvpipe_dispatch_event(struct hvpipe *pipe, const struct hvpipe_event *event)
{
	struct hvpipe_handle *handle;
	u32 source;
	u8 type;

	source = event ? be32_to_cpu(event->source) : 0;
	type = event ? event->type : 0;
	trace_papr_hvpipe_event(source, type);
	if (!type || type & ~(HVPIPE_EVENT_MSG | HVPIPE_EVENT_LOST)) {
		pr_warn_ratelimited("event of unknown type 0x%02x for source 0x%08x (0: no valid section)\n",
				    type, source);
		hvpipe_schedule(pipe, HVPIPE_DUE_CHECK);
	}

	handle = hvpipe_find(pipe, source);
	if (handle) {
		if (type & HVPIPE_EVENT_LOST)
			set_bit(HVPIPE_LOST, &handle->flags);
		if (type & HVPIPE_EVENT_MSG) {
			hvpipe_announce(pipe, handle, hvpipe_in_doubt(pipe));
			hvpipe_await_reader(pipe, handle);
		} else {
			hvpipe_wake(handle);
		}
	} else if (type & HVPIPE_EVENT_MSG) {
		hvpipe_schedule(pipe, hvpipe_in_doubt(pipe) ? HVPIPE_DUE_CHECK : HVPIPE_DUE_DRAIN);
	}
}

/**
 * hvpipe_fetch_event() - Take an event from firmware and act on it.
 * @pipe: The pipe.
 * @virq: The interrupt that it came by.
 *
 * Context: Any.
 * Return: 0, also when there was none; -EAGAIN when firmware could not say.
 */
static int hvpipe_fetch_event(struct hvpipe *pipe, unsigned int virq)
{
	u8 *log = pipe->area->event_log;
	unsigned long flags;
	s32 fwrc;

	spin_lock_irqsave(&pipe->lock, flags);
	/* It is the same interrupt each time, and its look-up is slow. */
	if (virq != pipe->virq) {
		WRITE_ONCE(pipe->virq, virq);
		pipe->irq = virq_to_hw(virq);
	}
	/* Clear stale lengths from the previous log. */
	memset(log, 0, sizeof(struct rtas_error_log));
	fwrc = rtas_check_exception_hvpipe(pipe);
	if (!fwrc)
		hvpipe_dispatch_event(pipe, hvpipe_find_event(log, sizeof(pipe->area->event_log)));
	spin_unlock_irqrestore(&pipe->lock, flags);
	return fwrc == 0 || fwrc == 1 ? 0 : -EAGAIN;
}

static irqreturn_t hvpipe_interrupt(int irq, void *dev_id)
{
	if (hvpipe_fetch_event(&hvpipe, irq))
		hvpipe_schedule(&hvpipe, HVPIPE_DUE_EVENT);
	return IRQ_HANDLED;
}

/*
 * Enabling and disabling.
 */

static void hvpipe_lock_state(struct hvpipe *pipe)
{
	atomic_inc(&pipe->send_waiters);
	mutex_lock(&rtas_ibm_send_hvpipe_msg_lock);
	atomic_dec(&pipe->send_waiters);
	hvpipe_lock_receive(pipe);
}

static void hvpipe_wake_all(struct hvpipe_handle *handle)
{
	wake_up_all(&handle->wait);
}

static void hvpipe_forget(struct hvpipe_handle *handle)
{
	clear_bit(HVPIPE_ANNOUNCED, &handle->flags);
	clear_bit(HVPIPE_DOUBTFUL, &handle->flags);
}

/* Unlock, and wake all pollers, as the state changed. */
static void hvpipe_unlock_state(struct hvpipe *pipe)
{
	mutex_unlock(&rtas_ibm_receive_hvpipe_msg_lock);
	mutex_unlock(&rtas_ibm_send_hvpipe_msg_lock);
	/*
	 * Pairs with poll_wait(): a poller of a handle that is created now, and
	 * is not woken below, sees the new state.
	 */
	smp_mb();
	hvpipe_for_all_handles(pipe, hvpipe_wake_all);
}

/**
 * hvpipe_disable() - Stop using the pipe.
 * @pipe:  The pipe.
 * @state: %HVPIPE_SUSPENDED or %HVPIPE_DISABLED.
 *
 * Waits for calls in flight, but not for one that has been busy for
 * &hvpipe.busy_timeout. A send that its caller abandoned ends here.
 *
 * Context: May sleep.
 */
static void hvpipe_disable(struct hvpipe *pipe, enum hvpipe_state state)
{
	s32 fwrc = RTAS_SUCCESS;

	hvpipe_lock_state(pipe);
	clear_bit(HVPIPE_DUE_ENABLE, &pipe->due);
	pipe->send_epoch++;
	if (pipe->unfinished)
		hvpipe_give_up_send(pipe);
	if (pipe->state == HVPIPE_ENABLED)
		fwrc = hvpipe_set_enable(pipe, false);
	if (fwrc)
		pr_warn("disabling failed with status %d\n", fwrc);
	WRITE_ONCE(pipe->state, state);
	hvpipe_unlock_state(pipe);
}

/**
 * hvpipe_enable() - Start using the pipe, if that is due.
 * @pipe: The pipe.
 *
 * Announcements made before are forgotten. The hypervisor may make them again or
 * not, so one receive is due that nothing announced.
 *
 * A busy firmware or hardware error may pass, so enabling stays due. Any other
 * status is this machine's last word: the next resume tries again.
 *
 * Context: May sleep.
 */
static void hvpipe_enable(struct hvpipe *pipe)
{
	s32 fwrc;

	hvpipe_lock_state(pipe);
	if (test_bit(HVPIPE_DUE_ENABLE, &pipe->due)) {
		hvpipe_for_all_handles(pipe, hvpipe_forget);
		fwrc = hvpipe_set_enable(pipe, true);
		if (!hvpipe_is_busy(fwrc) && fwrc != RTAS_HARDWARE_ERROR)
			clear_bit(HVPIPE_DUE_ENABLE, &pipe->due);
		if (!fwrc) {
			hvpipe_doubt(pipe, 0);
			WRITE_ONCE(pipe->state, HVPIPE_ENABLED);
			hvpipe_schedule(pipe, HVPIPE_DUE_PROBE);
			pr_info("enabled\n");
		} else {
			pr_warn_ratelimited("enabling failed with status %d, next attempt %s\n",
					    fwrc, test_bit(HVPIPE_DUE_ENABLE, &pipe->due) ?
					    "soon" : "after the next migration");
		}
	}
	hvpipe_unlock_state(pipe);
}

/* Enable the pipe now, or later if that fails. */
static void hvpipe_start(struct hvpipe *pipe)
{
	/* Reset the backoff after a migration. */
	WRITE_ONCE(pipe->retry, HVPIPE_RETRY_MIN);
	set_bit(HVPIPE_DUE_ENABLE, &pipe->due);
	hvpipe_enable(pipe);
	if (test_bit(HVPIPE_DUE_ENABLE, &pipe->due))
		hvpipe_queue_work(pipe, 0);
}

/* Do what bit @what of &hvpipe.due says. Return: 0, else it stays due. */
static int hvpipe_do_due(struct hvpipe *pipe, unsigned int what)
{
	int err;

	switch (what) {
	case HVPIPE_DUE_EVENT:
		return hvpipe_fetch_event(pipe, READ_ONCE(pipe->virq));
	case HVPIPE_DUE_SEND:
		/* A sender that holds the lock finishes it, and may hold it for long. */
		if (!READ_ONCE(pipe->unfinished))
			return 0;
		if (!mutex_trylock(&rtas_ibm_send_hvpipe_msg_lock))
			return -EAGAIN;
		err = hvpipe_finish_send(pipe, false);
		mutex_unlock(&rtas_ibm_send_hvpipe_msg_lock);
		return err;
	default:
		return hvpipe_drain(pipe, what);
	}
}

/* Do what is due. What becomes due meanwhile has queued the work anew. */
static void hvpipe_work(struct work_struct *work)
{
	struct hvpipe *pipe = container_of(work, struct hvpipe, work.work);
	unsigned long retry = READ_ONCE(pipe->retry);
	bool failed = false, sending = false;

	if (test_bit(HVPIPE_DUE_ENABLE, &pipe->due))
		hvpipe_enable(pipe);
	if (test_bit(HVPIPE_DUE_ENABLE, &pipe->due))
		failed = true;
	for (unsigned int what = HVPIPE_DUE_EVENT; what <= HVPIPE_DUE_TAKE; what++) {
		if (test_and_clear_bit(what, &pipe->due) && hvpipe_do_due(pipe, what)) {
			set_bit(what, &pipe->due);
			if (what == HVPIPE_DUE_SEND)
				sending = true;
			else
				failed = true;
		}
	}

	/* A send that stays busy ends by its own limit, and slows down nothing else. */
	if (sending)
		hvpipe_queue_work(pipe, HVPIPE_RETRY_MIN);
	if (failed) {
		if (!sending)
			hvpipe_queue_work(pipe, retry);
		retry = min(2 * retry, HVPIPE_RETRY_MAX);
	} else {
		retry = HVPIPE_RETRY_MIN;
	}
	WRITE_ONCE(pipe->retry, retry);
}

/**
 * papr_hvpipe_suspend() - Release the pipe before the partition migrates.
 *
 * Calls in flight end first, as they belong to the machine that is left.
 *
 * Context: May sleep.
 */
void papr_hvpipe_suspend(void)
{
	if (hvpipe_present)
		hvpipe_disable(&hvpipe, HVPIPE_SUSPENDED);
}

/**
 * papr_hvpipe_resume() - Use the pipe again after a migration, also a failed one.
 *
 * Context: May sleep.
 */
void papr_hvpipe_resume(void)
{
	if (hvpipe_present)
		hvpipe_start(&hvpipe);
}

/*
 * Release the pipe also when the partition suspends by itself: a write to
 * /sys/devices/system/power/hibernate has ibm,suspend-me called. This comes
 * before user space is frozen, which a task in a busy call could not be.
 */
static int hvpipe_pm_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	struct hvpipe *pipe = container_of(nb, struct hvpipe, pm_notifier);

	if (action == PM_SUSPEND_PREPARE || action == PM_HIBERNATION_PREPARE)
		hvpipe_disable(pipe, HVPIPE_SUSPENDED);
	else if (action == PM_POST_SUSPEND || action == PM_POST_HIBERNATION)
		hvpipe_start(pipe);
	return NOTIFY_DONE;
}

static int hvpipe_reboot_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	hvpipe_disable(&hvpipe, HVPIPE_DISABLED);
	return NOTIFY_DONE;
}

static struct notifier_block hvpipe_reboot_notifier = {
	.notifier_call = hvpipe_reboot_notify,
};

static int hvpipe_create_msg_cache(void)
{
	hvpipe_msg_cache =
		kmem_cache_create_usercopy("papr_hvpipe_msg", sizeof(struct hvpipe_msg), 0, 0,
					   offsetof(struct hvpipe_msg, hdr),
					   HVPIPE_HDR_LEN + HVPIPE_MAX_RECEIVE, NULL);
	return hvpipe_msg_cache ? 0 : -ENOMEM;
}

static int __init hvpipe_init(void)
{
	struct device_node *events;
	int err;

	if (!of_property_present(rtas.dev, "ibm,hypervisor-pipe-capable"))
		return -ENODEV;
	/*
	 * What a crash kernel received and dropped would be acknowledged: leave
	 * it to the kernel that comes after.
	 */
	if (is_kdump_kernel()) {
		pr_info("not used by a crash kernel\n");
		return -ENODEV;
	}

	hvpipe_tokens.send = rtas_function_token(RTAS_FN_IBM_SEND_HVPIPE_MSG);
	hvpipe_tokens.receive = rtas_function_token(RTAS_FN_IBM_RECEIVE_HVPIPE_MSG);
	hvpipe_tokens.check_exception = rtas_function_token(RTAS_FN_CHECK_EXCEPTION);
	events = of_find_node_by_path("/event-sources/ibm,hvpipe-msg-events");
	if (!events || hvpipe_tokens.send == RTAS_UNKNOWN_SERVICE ||
	    hvpipe_tokens.receive == RTAS_UNKNOWN_SERVICE ||
	    hvpipe_tokens.check_exception == RTAS_UNKNOWN_SERVICE) {
		pr_err("not usable: firmware lacks one of its functions, check-exception or /event-sources/ibm,hvpipe-msg-events\n");
		of_node_put(events);
		return -ENODEV;
	}

	err = -ENOMEM;
	hvpipe.handles = kcalloc(BIT(HVPIPE_HASH_BITS), sizeof(*hvpipe.handles), GFP_KERNEL);
	if (!hvpipe.handles || hvpipe_create_msg_cache())
		goto free;
	err = misc_register(&hvpipe_dev);
	if (err)
		goto free;
	hvpipe_present = true;
	register_reboot_notifier(&hvpipe_reboot_notifier);
	register_pm_notifier(&hvpipe.pm_notifier);
	request_event_sources_irqs(events, hvpipe_interrupt, "HVPIPE");

	hvpipe_start(&hvpipe);
	of_node_put(events);
	return 0;

free:
	kmem_cache_destroy(hvpipe_msg_cache);
	hvpipe_msg_cache = NULL;
	kfree(hvpipe.handles);
	of_node_put(events);
	return err;
}
machine_device_initcall(pseries, hvpipe_init);

#ifdef CONFIG_PAPR_HVPIPE_KUNIT_TEST
#include "papr-hvpipe_test.c"
#endif
