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
 * enabled    PROBE   A message may wait unannounced: receive once.
 * enabled    TAKE    The announced message has no reader: its source has no
 *                    handle, or the reader was killed while firmware was busy,
 *                    or left it for hold_after_ms. Receive it in its place.
 *
 * A handle's flags: ANNOUNCED, a message for it is pending; DOUBTFUL, that
 * message may be received already, so an error says that it is; LOST, the
 * connection was lost and the reader was not told yet. &hvpipe.nobody has the
 * flags of all sources without a handle, and of events that name no source.
 *
 * Locks, in this order:
 *
 * - &hvpipe.state_lock is held while the pipe is enabled or disabled.
 * - rtas_ibm_send_hvpipe_msg_lock is held around ibm,send-hvpipe-msg.
 *   rtas_ibm_receive_hvpipe_msg_lock is held from before
 *   ibm,receive-hvpipe-msg until the message is with its reader or its handle.
 *   Firmware is told to enable or disable the pipe under both. Neither is held
 *   while user memory is paged in, as that can take for ever.
 * - &hvpipe.lock guards the table of handles, the messages that handles hold,
 *   and the event log. A handle that was found stays while the lock is held.
 *   The event interrupt takes it.
 *
 * Each of the two RTAS mutexes can be held as long as firmware is busy. A receive
 * has a retry limit; a send has none, unless the pipe is being disabled. A user's
 * wait for either ends by a fatal signal.
 */

#define pr_fmt(fmt) "papr-hvpipe: " fmt

#include <kunit/static_stub.h>
#include <linux/anon_inodes.h>
#include <linux/crash_dump.h>
#include <linux/hashtable.h>
#include <linux/irq.h>
#include <linux/miscdevice.h>
#include <linux/moduleparam.h>
#include <linux/of.h>
#include <linux/poll.h>
#include <linux/reboot.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/uio.h>
#include <linux/workqueue.h>
#include <asm/machdep.h>
#include <asm/papr-sysparm.h>
#include <asm/rtas.h>
#include <uapi/asm/papr-hvpipe.h>

#include "pseries.h"

#define CREATE_TRACE_POINTS
#include "papr-hvpipe-trace.h"

/* A source ID is 0xCCRRQQQQ: CC is the type, RR reserved, QQQQ the index. */
#define HVPIPE_SOURCE_KIND	0xffff0000
#define HVPIPE_SOURCE_HMC	0x02000000

#define HVPIPE_HDR_LEN		sizeof(struct papr_hvpipe_hdr)
/* The largest payload to send: a 4 KiB buffer less firmware's 8 bytes. */
#define HVPIPE_MAX_SEND		(SZ_4K - 8)
/* The largest payload to receive: the buffer that firmware is given. */
#define HVPIPE_MAX_RECEIVE	SZ_4K

/* Bits of the type in the event log's section 'PE'. */
#define HVPIPE_EVENT_MSG	0x01	/* a message waits to be received */
#define HVPIPE_EVENT_LOST	0x02	/* the pipe to the source was lost */

/* Retry limit for busy firmware; a send has none while its caller waits for it. */
#define HVPIPE_BUSY_TIMEOUT	(10 * HZ)
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

/* A message as user space reads it. */
struct hvpipe_packet {
	struct papr_hvpipe_hdr hdr;
	u8 payload[HVPIPE_MAX_RECEIVE];
};

static_assert(offsetof(struct hvpipe_packet, payload) == 48);

/*
 * The memory that firmware reads and writes. It has to lie below 4 GiB; the
 * kernel image does (see rtas_data_buf), so that no RTAS work area has to be
 * allocated for each message.
 */
struct hvpipe_firmware_area {
	/* ibm,send-hvpipe-msg: a list of one buffer. The length is the list's. */
	struct { __be64 length, address, used; } list;
	/* ibm,set-system-parameter */
	struct { __be16 length; u8 enable, reserved[5]; } parameter;
	/* check-exception */
	u8 event_log[RTAS_ERROR_LOG_MAX] __aligned(8);
	/* Padding: the payload that is received begins a page. */
	u8 reserved[SZ_4K - 32 - RTAS_ERROR_LOG_MAX - HVPIPE_HDR_LEN];
	struct hvpipe_packet received;
	u8 sent[SZ_4K];
};

static_assert(offsetof(struct hvpipe_firmware_area, received.payload) == SZ_4K);

/* A received message that its handle holds until it is read. */
struct hvpipe_msg {
	struct list_head list;
	u32 source;
	u32 len;			/* of the payload; 0 if none was pending */
	struct hvpipe_packet packet;
};

enum hvpipe_state {
	HVPIPE_DISABLED,	/* at boot and at shutdown */
	HVPIPE_SUSPENDED,	/* for a migration or hibernation */
	HVPIPE_ENABLED,
};

static const char * const hvpipe_state_names[] = { "disabled", "suspended", "enabled" };

/* Bits of &hvpipe.due. The table at the top says when each is set. */
enum {
	HVPIPE_DUE_ENABLE,
	HVPIPE_DUE_EVENT,
	HVPIPE_DUE_PROBE,
	HVPIPE_DUE_TAKE,
};

/* What a receive can rely on. */
enum hvpipe_trust {
	HVPIPE_CERTAIN,		/* A message was announced: after an error it is pending. */
	HVPIPE_IN_DOUBT,	/* It may be received already: an error says so. */
	HVPIPE_UNANNOUNCED,	/* Nothing was announced. */
};

/* Bits of &hvpipe_handle.flags */
enum {
	HVPIPE_ANNOUNCED,	/* a message for this source is to be received */
	HVPIPE_DOUBTFUL,	/* the message announced may be received already */
	HVPIPE_LOST,		/* the connection was lost, and nobody read it */
};

/**
 * struct hvpipe_handle - One source, opened by user space.
 * @node:   In the pipe's table.
 * @pipe:   The pipe.
 * @wait:   Pollers.
 * @held:   Messages received and not read yet. Guarded by the pipe's lock.
 * @source: Source ID.
 * @nr_held: How many messages are in @held. This and all below begin as zero.
 * @flags:  %HVPIPE_ANNOUNCED and so on.
 * @received: Messages received, read or held. Receive lock.
 * @received_bytes: Their payload. Receive lock.
 * @sent:   Messages sent. Send lock.
 * @sent_bytes: Their payload. Send lock.
 */
struct hvpipe_handle {
	struct hlist_node node;
	struct hvpipe *pipe;
	wait_queue_head_t wait;
	struct list_head held;
	u32 source;
	unsigned int nr_held;
	unsigned long flags;
	u64 received, received_bytes;
	u64 sent, sent_bytes;
};

/**
 * struct hvpipe - The partition's pipe.
 * @lock:    Guards @handles, @nobody, @nr_handles, the messages that handles hold,
 *           @announced, the event log, @virq and @irq.
 * @nobody:  Stands in for the sources without a handle. Its source is that of the
 *           last one that was announced.
 * @nr_handles: How many handles there are.
 * @nr_held: How many messages they hold.
 * @state_lock: Held while the pipe is enabled or disabled.
 * @state:   Whether firmware may be called.
 * @busy_timeout: Retry limit for a busy firmware, in jiffies.
 * @unfinished: Source of a send that firmware is still busy with, though its
 *           caller was killed; 0 if there is none. Send lock.
 * @unfinished_until: When it is given up, in jiffies. Send lock.
 * @given_up: How many sends were. Send lock.
 * @area:    The memory shared with firmware; NULL if there is no pipe. Its parts
 *           for sending are guarded by the send lock, those for receiving by the
 *           receive lock.
 * @spare:   Room for one message that has to be held. Present before each
 *           receive, as a received message must not be lost. Receive lock.
 * @dropped: Messages that went to nobody.
 * @virq:    Linux's number of the interrupt that came last.
 * @irq:     Firmware's number of it.
 * @announced: Source of the message that was announced last.
 * @doubt_until: Until then, in jiffies, the message of an announcement may be
 *           received already.
 * @due:     What the work has to do: HVPIPE_DUE_* bits.
 * @work:    Does what is due.
 * @retry:   The work's backoff, in jiffies.
 * @send_work: Finishes the unfinished send.
 * @pm_notifier: Called before and after a hibernation.
 * @hold_after_ms: How long an announced message waits for its reader before
 *           its handle holds it, in ms; 0 for ever.
 * @hold_timer: Expires after @hold_after_ms.
 * @handles: The handles, hashed by source ID.
 */
struct hvpipe {
	spinlock_t lock;	/* see above */
	struct hvpipe_handle nobody;
	unsigned int nr_handles;
	atomic_t nr_held;
	struct mutex state_lock;	/* see above */
	enum hvpipe_state state;
	unsigned long busy_timeout;
	u32 unfinished;
	unsigned long unfinished_until;
	unsigned long given_up;
	struct hvpipe_firmware_area *area;
	struct hvpipe_msg *spare;
	atomic_long_t dropped;
	unsigned int virq, irq;
	u32 announced;
	unsigned long doubt_until;
	unsigned long due;
	struct delayed_work work;
	unsigned long retry;
	struct delayed_work send_work;
	struct notifier_block pm_notifier;
	unsigned int hold_after_ms;
	struct timer_list hold_timer;
	DECLARE_HASHTABLE(handles, 12);
};

static struct hvpipe hvpipe;
static struct hvpipe_firmware_area hvpipe_area __aligned(SZ_4K);

/* &struct hvpipe_msg, which kmalloc() would round up to 8 KiB. */
static struct kmem_cache *hvpipe_msg_cache __read_mostly;

/*
 * Queue @work; never postpone it.
 *
 * Here and below a test's pipe is redirected to its stubs. The real one never
 * is: its interrupt or timer can run on top of the test's task.
 */
static void hvpipe_queue_work(struct hvpipe *pipe, struct delayed_work *work, unsigned long delay)
{
	if (pipe != &hvpipe)
		KUNIT_STATIC_STUB_REDIRECT(hvpipe_queue_work, pipe, work, delay);

	if (delay)
		queue_delayed_work(system_long_wq, work, delay);
	else
		mod_delayed_work(system_long_wq, work, delay);
}

/* Make @bit due, and have the work do it at once. Context: any. */
static void hvpipe_schedule(struct hvpipe *pipe, unsigned int bit)
{
	set_bit(bit, &pipe->due);
	hvpipe_queue_work(pipe, &pipe->work, 0);
}

/* True if calls may be made. While an RTAS lock is held, firmware's end stays so. */
static bool hvpipe_usable(struct hvpipe *pipe)
{
	return READ_ONCE(pipe->state) == HVPIPE_ENABLED;
}

/*
 * Firmware. Each RTAS function is called in one place, which maps its status.
 */

/**
 * hvpipe_busy_delay() - Wait until a busy firmware should be called again.
 * @fwrc:    What firmware answered.
 * @expires: When the retry limit ends, in jiffies.
 * @limited: Whether there is one.
 * @killable: Whether a fatal signal ends the delay.
 *
 * Context: May sleep.
 * Return: 1 to call again, 0 if @fwrc is not a busy status, -EAGAIN at the end
 *         of the retry limit, -EINTR on a fatal signal.
 */
static int hvpipe_busy_delay(s32 fwrc, unsigned long expires, bool limited, bool killable)
{
	if (!rtas_busy_delay_time(fwrc))
		return 0;
	if (limited && time_after(jiffies, expires))
		return -EAGAIN;
	if (killable && fatal_signal_pending(current))
		return -EINTR;
	return rtas_busy_delay(fwrc);
}

/* The errno for a status of @function that is not busy. */
static int hvpipe_errno(const char *function, s32 fwrc)
{
	if (!fwrc)
		return 0;
	if (fwrc == RTAS_INVALID_PARAMETER)
		return -EINVAL;
	if (fwrc == RTAS_FUNC_NOT_SUPPORTED)
		return -EOPNOTSUPP;
	if (fwrc != RTAS_HARDWARE_ERROR)
		pr_err_ratelimited("unexpected %s status %d\n", function, fwrc);
	return -EIO;
}

static s32 rtas_ibm_send_hvpipe_msg(struct hvpipe *pipe, u32 source)
{
	if (pipe != &hvpipe)
		KUNIT_STATIC_STUB_REDIRECT(rtas_ibm_send_hvpipe_msg, pipe, source);

	return rtas_call(rtas_function_token(RTAS_FN_IBM_SEND_HVPIPE_MSG), 2, 1, NULL,
			 source, __pa(&pipe->area->list));
}

/**
 * hvpipe_send() - Send the message in the send buffer, or finish to.
 * @pipe:   The pipe, enabled.
 * @source: Who to send to; &hvpipe.unfinished if there is one.
 *
 * When a fatal signal ends it, the hypervisor may still be in the call. The work
 * or the next send repeats it, as the buffer is unchanged; the retry limit begins
 * when the call is abandoned, so that one silent HMC does not stop the others.
 * Otherwise only disabling the pipe sets a limit.
 *
 * Context: May sleep. The send lock is held.
 * Return: 0 when the message was delivered. -EIO, -EINVAL, -EPIPE (the pipe to
 *         @source is closed), -EOPNOTSUPP as firmware says, -EINTR on a fatal
 *         signal, -ENXIO when the send was given up.
 */
static int hvpipe_send(struct hvpipe *pipe, u32 source)
{
	unsigned long expires = pipe->unfinished ? pipe->unfinished_until :
				jiffies + pipe->busy_timeout;
	s32 fwrc;
	int again;

	lockdep_assert_held(&rtas_ibm_send_hvpipe_msg_lock);

	do {
		fwrc = rtas_ibm_send_hvpipe_msg(pipe, source);
		again = fwrc ? hvpipe_busy_delay(fwrc, expires, pipe->unfinished ||
						 !hvpipe_usable(pipe), true) : 0;
	} while (again > 0);

	if (again == -EINTR && !pipe->unfinished)
		pipe->unfinished_until = jiffies + pipe->busy_timeout;
	pipe->unfinished = again == -EINTR ? source : 0;
	if (again == -EAGAIN) {
		trace_papr_hvpipe_give_up(source);
		WRITE_ONCE(pipe->given_up, pipe->given_up + 1);
		return -ENXIO;
	}
	if (again)
		return again;
	return fwrc == RTAS_HVPIPE_CLOSED ? -EPIPE : hvpipe_errno("ibm,send-hvpipe-msg", fwrc);
}

/* Finish the send that its killed caller left. Another sender would do it first. */
static void hvpipe_send_work(struct work_struct *work)
{
	struct hvpipe *pipe = container_of(work, struct hvpipe, send_work.work);

	scoped_cond_guard(mutex_try, return, &rtas_ibm_send_hvpipe_msg_lock)
		if (pipe->unfinished)
			hvpipe_send(pipe, pipe->unfinished);
}

static s32 rtas_ibm_receive_hvpipe_msg(struct hvpipe *pipe, struct hvpipe_msg *msg)
{
	u32 rets[2];
	s32 fwrc;

	if (pipe != &hvpipe)
		KUNIT_STATIC_STUB_REDIRECT(rtas_ibm_receive_hvpipe_msg, pipe, msg);

	fwrc = rtas_call(rtas_function_token(RTAS_FN_IBM_RECEIVE_HVPIPE_MSG), 2, 3, rets,
			 __pa(pipe->area->received.payload), HVPIPE_MAX_RECEIVE);
	msg->source = rets[0];
	msg->len = rets[1];
	return fwrc;
}

/**
 * hvpipe_receive() - Receive a message into the receive buffer.
 * @pipe: The pipe, enabled, with a spare: its source and length are set.
 * @killable: Whether a fatal signal ends it.
 *
 * Success acknowledges the message to its source.
 *
 * Context: May sleep. The receive lock is held.
 * Return: 0 for a message, -ENODATA when none was pending. -EIO, -EINVAL,
 *         -EOPNOTSUPP as firmware says, -EINTR on a fatal signal, -EAGAIN when
 *         the retry limit ended, -EBADMSG when firmware's length cannot be true.
 */
static int hvpipe_receive(struct hvpipe *pipe, bool killable)
{
	struct hvpipe_msg *msg = pipe->spare;
	unsigned long expires = jiffies + pipe->busy_timeout;
	s32 fwrc;
	int again;

	lockdep_assert_held(&rtas_ibm_receive_hvpipe_msg_lock);

	do {
		fwrc = rtas_ibm_receive_hvpipe_msg(pipe, msg);
		again = fwrc ? hvpipe_busy_delay(fwrc, expires, true, killable) : 0;
	} while (again > 0);
	if (again || fwrc)
		return again ?: hvpipe_errno("ibm,receive-hvpipe-msg", fwrc);
	if (msg->len <= HVPIPE_MAX_RECEIVE)
		return msg->len ? 0 : -ENODATA;
	pr_err_ratelimited("ibm,receive-hvpipe-msg wrote %u bytes from source 0x%08x, more than the buffer holds\n",
			   msg->len, msg->source);
	return -EBADMSG;
}

static s32 rtas_check_exception_hvpipe(struct hvpipe *pipe)
{
	if (pipe != &hvpipe)
		KUNIT_STATIC_STUB_REDIRECT(rtas_check_exception_hvpipe, pipe);

	return rtas_call(rtas_function_token(RTAS_FN_CHECK_EXCEPTION), 6, 1, NULL,
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
	unsigned long expires = jiffies + pipe->busy_timeout;
	s32 fwrc;

	lockdep_assert_held(&rtas_ibm_send_hvpipe_msg_lock);
	lockdep_assert_held(&rtas_ibm_receive_hvpipe_msg_lock);

	pipe->area->parameter.enable = enable;
	do {
		fwrc = rtas_ibm_set_system_parameter_hvpipe(pipe);
	} while (hvpipe_busy_delay(fwrc, expires, true, false) > 0);
	return fwrc;
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

	if (ms && READ_ONCE(handle->nr_held))
		hvpipe_schedule(pipe, HVPIPE_DUE_TAKE);
	else if (ms)
		mod_timer(&pipe->hold_timer, jiffies + msecs_to_jiffies(ms));
}

static void hvpipe_hold_expired(struct timer_list *timer)
{
	hvpipe_schedule(container_of(timer, struct hvpipe, hold_timer), HVPIPE_DUE_TAKE);
}

/* The time of the message that is announced now begins anew. */
static int hvpipe_set_hold_after_ms(const char *val, const struct kernel_param *kp)
{
	int err = param_set_uint(val, kp);

	if (!err && hvpipe.area)
		hvpipe_await_reader(&hvpipe, &hvpipe.nobody);
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

/* The handle of @source, or &hvpipe.nobody. It stays while the lock is held. */
static struct hvpipe_handle *hvpipe_find(struct hvpipe *pipe, u32 source)
{
	struct hvpipe_handle *handle;

	lockdep_assert_held(&pipe->lock);

	hash_for_each_possible(pipe->handles, handle, node, source)
		if (handle->source == source)
			return handle;
	return &pipe->nobody;
}

static void hvpipe_wake(struct hvpipe_handle *handle)
{
	/* Its barrier is paired with that of poll_wait(). */
	if (wq_has_sleeper(&handle->wait))
		wake_up_interruptible_poll(&handle->wait, EPOLLIN | EPOLLRDNORM);
}

/*
 * A message from @source is pending, or, if that is @doubtful, may be.
 *
 * Return: The handle it is announced to.
 */
static struct hvpipe_handle *hvpipe_announce(struct hvpipe *pipe, u32 source, bool doubtful)
{
	struct hvpipe_handle *handle = hvpipe_find(pipe, source);

	pipe->announced = source;
	if (handle == &pipe->nobody)
		handle->source = source;
	if (doubtful)
		set_bit(HVPIPE_DOUBTFUL, &handle->flags);
	set_bit(HVPIPE_ANNOUNCED, &handle->flags);
	hvpipe_wake(handle);
	return handle;
}

/* Ensure that a message can be received: the pipe is enabled, and can hold one. */
static int hvpipe_prepare_receive(struct hvpipe *pipe)
{
	if (!hvpipe_usable(pipe))
		return -ENXIO;
	if (atomic_read(&pipe->nr_held) >= HVPIPE_HELD_MAX) {
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
static void hvpipe_hold(struct hvpipe *pipe, u32 announced)
{
	struct hvpipe_msg *msg = pipe->spare;
	struct hvpipe_handle *handle;

	memcpy(&msg->packet, &pipe->area->received, HVPIPE_HDR_LEN + msg->len);

	scoped_guard(spinlock_irq, &pipe->lock) {
		handle = hvpipe_find(pipe, msg->source);
		if (handle == &pipe->nobody) {
			atomic_long_inc(&pipe->dropped);
			trace_papr_hvpipe_drop(msg->source, msg->len);
		} else {
			pipe->spare = NULL;
			list_add_tail(&msg->list, &handle->held);
			WRITE_ONCE(handle->received, handle->received + 1);
			WRITE_ONCE(handle->received_bytes, handle->received_bytes + msg->len);
			WRITE_ONCE(handle->nr_held, handle->nr_held + 1);
			atomic_inc(&pipe->nr_held);
			hvpipe_wake(handle);
		}
		/* The next message may have been announced before this one was held. */
		if (test_bit(HVPIPE_ANNOUNCED, &handle->flags)) {
			/* Or it was this one, which no announcement of its own took. */
			if (announced != msg->source)
				set_bit(HVPIPE_DOUBTFUL, &handle->flags);
			hvpipe_await_reader(pipe, handle);
		}
	}
}

/*
 * Copy to user memory that is present: a lock is held, and bringing in a page can
 * take for ever.
 *
 * Return: @len, -EMSGSIZE if there is no room, -EFAULT if a page is missing.
 */
static ssize_t hvpipe_copy_present(const void *from, size_t len, struct iov_iter *to)
{
	bool copied;

	if (iov_iter_count(to) < len)
		return -EMSGSIZE;
	pagefault_disable();
	copied = copy_to_iter_full(from, len, to);
	pagefault_enable();
	return copied ? len : -EFAULT;
}

/* Clear the announcement before its message is received; the next may come then. */
static enum hvpipe_trust hvpipe_take_over(struct hvpipe_handle *handle)
{
	test_and_clear_bit(HVPIPE_ANNOUNCED, &handle->flags);
	if (!test_bit(HVPIPE_DOUBTFUL, &handle->flags))
		return HVPIPE_CERTAIN;
	clear_bit(HVPIPE_DOUBTFUL, &handle->flags);
	return HVPIPE_IN_DOUBT;
}

/* Return: 0 if the error @err says that nothing is pending, else -ve errno. */
static int hvpipe_receive_failed(struct hvpipe *pipe, u32 source, enum hvpipe_trust trust, int err)
{
	if (trust == HVPIPE_UNANNOUNCED)
		WRITE_ONCE(pipe->doubt_until, jiffies);
	if (err == -ENODATA)
		return 0;
	if (err == -EBADMSG)
		return -EIO;
	if (err == -EINTR) {
		/* The hypervisor may still be in the call: the work has to finish it. */
		hvpipe_schedule(pipe, HVPIPE_DUE_TAKE);
	} else if (err != -EAGAIN && trust != HVPIPE_CERTAIN) {
		/* Or firmware failed just now: try once more. */
		if (trust == HVPIPE_IN_DOUBT)
			hvpipe_schedule(pipe, HVPIPE_DUE_PROBE);
		return 0;
	}
	if (trust == HVPIPE_UNANNOUNCED)
		return err;
	/* Others who share the handle may have looked while nothing was announced. */
	scoped_guard(spinlock_irq, &pipe->lock)
		hvpipe_announce(pipe, source, trust == HVPIPE_IN_DOUBT);
	return err;
}

/**
 * hvpipe_receive_for() - Receive a message, and give it to its reader or handle.
 * @pipe:   The pipe, after hvpipe_prepare_receive().
 * @source: Whose announcement was taken over; 0 if it named none.
 * @trust:  What that announcement is worth.
 * @to:     The reader's memory, NULL if the work receives in its place.
 *
 * The message goes straight to the reader if it is from @source, fits, and the
 * memory is present; else its handle holds it. To hold each message first would
 * take 36% more instructions for 64 bytes of payload and 80% more for 4048.
 *
 * A message that was not announced may be announced late, or one that was
 * announced may be the next: for some time, announcements are in doubt.
 *
 * Context: May sleep. The receive lock is held.
 * Return: Bytes read, 0 when the message is held or none was pending, -EAGAIN when
 *         the retry limit ended or the work has to receive once more, else -ve
 *         errno. The message is still pending after an error other than -EIO for a
 *         length that cannot be true.
 */
static ssize_t hvpipe_receive_for(struct hvpipe *pipe, u32 source, enum hvpipe_trust trust,
				  struct iov_iter *to)
{
	struct hvpipe_msg *msg = pipe->spare;
	bool misrouted;
	int err;

	/* The announcement may come as soon as the call has begun. */
	if (trust == HVPIPE_UNANNOUNCED)
		WRITE_ONCE(pipe->doubt_until, jiffies + HVPIPE_DOUBT);
	err = hvpipe_receive(pipe, to);
	if (err)
		return hvpipe_receive_failed(pipe, source, trust, err);

	misrouted = source && source != msg->source;
	if (misrouted) {
		WRITE_ONCE(pipe->doubt_until, jiffies + HVPIPE_DOUBT);
		scoped_guard(spinlock_irq, &pipe->lock)
			hvpipe_announce(pipe, source, true);
	} else if (to && hvpipe_copy_present(&pipe->area->received,
					     HVPIPE_HDR_LEN + msg->len, to) > 0) {
		return HVPIPE_HDR_LEN + msg->len;
	}
	hvpipe_hold(pipe, source);
	return misrouted && !to ? -EAGAIN : 0;
}

/**
 * hvpipe_take() - Receive the message that was announced last in its reader's place.
 * @pipe:  The pipe.
 * @probe: Whether to receive though nothing is announced. An announcement that is
 *         certain is left to its reader then.
 *
 * Context: May sleep.
 * Return: 0 if nothing is left to do, a negative errno to be called again.
 */
static int hvpipe_take(struct hvpipe *pipe, bool probe)
{
	enum hvpipe_trust trust = HVPIPE_UNANNOUNCED;
	struct hvpipe_handle *handle = &pipe->nobody;
	bool announced;
	u32 source = 0;
	int err;

	guard(mutex)(&rtas_ibm_receive_hvpipe_msg_lock);
	err = hvpipe_prepare_receive(pipe);
	/* Enabling the pipe makes a probe due. */
	if (err)
		return err == -ENXIO ? 0 : err;

	scoped_guard(spinlock_irq, &pipe->lock) {
		if (!test_bit(HVPIPE_ANNOUNCED, &handle->flags))
			handle = hvpipe_find(pipe, pipe->announced);
		announced = test_bit(HVPIPE_ANNOUNCED, &handle->flags);
		if (probe ? announced && !test_bit(HVPIPE_DOUBTFUL, &handle->flags) :
			    !announced || handle->nr_held >= HVPIPE_HOLD_MAX)
			return 0;
		if (announced) {
			source = handle->source;
			trust = hvpipe_take_over(handle);
		}
	}
	return hvpipe_receive_for(pipe, source, trust, NULL);
}

/*
 * Read a message that the handle holds. It stays there until it was copied, so
 * that messages are read in order.
 */
static ssize_t hvpipe_read_held(struct hvpipe_handle *handle, struct iov_iter *to)
{
	struct hvpipe *pipe = handle->pipe;
	struct hvpipe_msg *msg;
	ssize_t ret;

	scoped_guard(spinlock_irq, &pipe->lock) {
		msg = list_first_entry_or_null(&handle->held, struct hvpipe_msg, list);
		ret = msg ? hvpipe_copy_present(&msg->packet, HVPIPE_HDR_LEN + msg->len, to) : 0;
		if (ret <= 0)
			return ret;
		list_del(&msg->list);
		WRITE_ONCE(handle->nr_held, handle->nr_held - 1);
		atomic_dec(&pipe->nr_held);
		if (test_bit(HVPIPE_ANNOUNCED, &handle->flags))
			hvpipe_await_reader(pipe, handle);
	}
	kmem_cache_free(hvpipe_msg_cache, msg);
	return ret;
}

/*
 * Receive the message that is announced, or report a lost connection, once all
 * messages before it were read: with the receive lock, none is on its way.
 *
 * Return: Bytes read, 0 to look again at what the handle has, -EAGAIN if it has
 *         nothing for now, else -ve errno.
 */
static ssize_t hvpipe_read_locked(struct hvpipe_handle *handle, struct iov_iter *to)
{
	static const struct papr_hvpipe_hdr lost = { .flags = HVPIPE_LOST_CONNECTION };
	struct hvpipe *pipe = handle->pipe;
	ssize_t ret;

	/* Others may have received the message before the lock was taken. */
	if (!list_empty(&handle->held))
		return 0;
	if (test_bit(HVPIPE_ANNOUNCED, &handle->flags)) {
		ret = hvpipe_prepare_receive(pipe);
		if (ret)
			return ret;
		ret = hvpipe_receive_for(pipe, handle->source, hvpipe_take_over(handle), to);
		if (ret > 0) {
			WRITE_ONCE(handle->received, handle->received + 1);
			WRITE_ONCE(handle->received_bytes,
				   handle->received_bytes + ret - HVPIPE_HDR_LEN);
		}
		return ret;
	}
	if (!hvpipe_usable(pipe) || !test_bit(HVPIPE_LOST, &handle->flags))
		return -EAGAIN;
	ret = hvpipe_copy_present(&lost, sizeof(lost), to);
	if (ret > 0)
		clear_bit(HVPIPE_LOST, &handle->flags);
	return ret;
}

/*
 * The operations on a handle.
 */

static ssize_t hvpipe_handle_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct hvpipe_handle *handle = iocb->ki_filp->private_data;
	int tries = 0;
	ssize_t ret;

	if (iov_iter_count(to) < HVPIPE_HDR_LEN)
		return -EINVAL;

	do {
		ret = -EAGAIN;
		if (!list_empty_careful(&handle->held)) {
			ret = hvpipe_read_held(handle, to);
		} else if (READ_ONCE(handle->flags)) {
			if (mutex_lock_killable(&rtas_ibm_receive_hvpipe_msg_lock))
				return -EINTR;
			ret = hvpipe_read_locked(handle, to);
			mutex_unlock(&rtas_ibm_receive_hvpipe_msg_lock);
		}
		if (ret == -EFAULT && tries++ < HVPIPE_PAGE_TRIES) {
			fault_in_iov_iter_writeable(to, sizeof(struct hvpipe_packet));
			ret = 0;
		}
	} while (!ret && !fatal_signal_pending(current));

	if (ret != -EAGAIN)
		return ret;
	if (!hvpipe_usable(handle->pipe))
		return -ENXIO;
	/* f_flags can change concurrently. */
	return READ_ONCE(iocb->ki_filp->f_flags) & O_NONBLOCK ? ret : 0;
}

/*
 * Send a payload from user memory.
 *
 * Return: 0, -EFAULT if a page is missing, else -ve errno.
 */
static int hvpipe_write_locked(struct hvpipe_handle *handle, struct iov_iter *from, size_t len)
{
	struct hvpipe *pipe = handle->pipe;
	bool copied;
	int err;

	if (pipe->unfinished && hvpipe_send(pipe, pipe->unfinished) == -EINTR)
		return -EINTR;
	if (!hvpipe_usable(pipe))
		return -ENXIO;

	pagefault_disable();
	copied = copy_from_iter_full(pipe->area->sent, len, from);
	pagefault_enable();
	if (!copied)
		return -EFAULT;
	pipe->area->list.used = cpu_to_be64(len);

	err = hvpipe_send(pipe, handle->source);
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
	const size_t len = count - HVPIPE_HDR_LEN;
	int err, tries = 0;

	if (count <= HVPIPE_HDR_LEN || count > HVPIPE_HDR_LEN + HVPIPE_MAX_SEND)
		return -EINVAL;

	iov_iter_advance(from, HVPIPE_HDR_LEN);

	do {
		if (mutex_lock_killable(&rtas_ibm_send_hvpipe_msg_lock))
			return -EINTR;
		err = hvpipe_write_locked(handle, from, len);
		mutex_unlock(&rtas_ibm_send_hvpipe_msg_lock);
	} while (err == -EFAULT && tries++ < HVPIPE_PAGE_TRIES &&
		 !fault_in_iov_iter_readable(from, len));
	/* Not before the lock is free: the work leaves it to the holder. */
	if (err == -EINTR)
		hvpipe_queue_work(handle->pipe, &handle->pipe->send_work, 0);
	return err ?: count;
}

static __poll_t hvpipe_handle_poll(struct file *file, poll_table *wait)
{
	struct hvpipe_handle *handle = file->private_data;
	bool usable;
	__poll_t mask;

	poll_wait(file, &handle->wait, wait);

	usable = hvpipe_usable(handle->pipe);
	mask = usable ? EPOLLOUT | EPOLLWRNORM : EPOLLRDHUP;
	if (!list_empty_careful(&handle->held) || (usable && READ_ONCE(handle->flags)))
		mask |= EPOLLIN | EPOLLRDNORM;
	return mask;
}

/* Not inlined: few handles hold messages when they are closed. */
static noinline void hvpipe_drop_held(struct hvpipe_handle *handle)
{
	struct hvpipe_msg *msg, *next;

	list_for_each_entry_safe(msg, next, &handle->held, list) {
		atomic_dec(&handle->pipe->nr_held);
		atomic_long_inc(&handle->pipe->dropped);
		trace_papr_hvpipe_drop(handle->source, msg->len);
		kmem_cache_free(hvpipe_msg_cache, msg);
	}
}

/*
 * Close a handle. The message that is announced blocks the pipe: receive it, and
 * drop it with those that the handle holds. An event that comes at the same
 * time takes the lock either before the handle leaves the table, and its flag is
 * seen there, or later, and finds no handle.
 */
static void hvpipe_close(struct hvpipe_handle *handle)
{
	struct hvpipe *pipe = handle->pipe;

	if (test_bit(HVPIPE_ANNOUNCED, &handle->flags))
		hvpipe_take(pipe, false);

	scoped_guard(spinlock_irq, &pipe->lock) {
		hash_del(&handle->node);
		WRITE_ONCE(pipe->nr_handles, pipe->nr_handles - 1);
		if (test_bit(HVPIPE_ANNOUNCED, &handle->flags)) {
			hvpipe_announce(pipe, handle->source,
					test_bit(HVPIPE_DOUBTFUL, &handle->flags));
			hvpipe_schedule(pipe, HVPIPE_DUE_TAKE);
		}
	}

	if (!list_empty(&handle->held))
		hvpipe_drop_held(handle);
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
	const char *state = !hvpipe_usable(handle->pipe) ? "suspended" :
			    test_bit(HVPIPE_LOST, &handle->flags) ? "lost" : "open";

	seq_printf(m, "source:\t0x%08x\nstate:\t%s\n", handle->source, state);
	seq_printf(m, "sent:\t%llu\nsent-bytes:\t%llu\nreceived:\t%llu\nreceived-bytes:\t%llu\nheld:\t%u\n",
		   READ_ONCE(handle->sent), READ_ONCE(handle->sent_bytes),
		   READ_ONCE(handle->received), READ_ONCE(handle->received_bytes),
		   READ_ONCE(handle->nr_held));
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
 * Return: The handle, or -EINVAL if @source is not an HMC's, -ENXIO while the
 *         pipe is not enabled, -EALREADY if @source has a handle, -ENOMEM.
 */
static struct hvpipe_handle *hvpipe_create(struct hvpipe *pipe, u32 source)
{
	if ((source & HVPIPE_SOURCE_KIND) != HVPIPE_SOURCE_HMC)
		return ERR_PTR(-EINVAL);
	if (!hvpipe_usable(pipe))
		return ERR_PTR(-ENXIO);

	struct hvpipe_handle *handle __free(kfree) = kmalloc(sizeof(*handle), GFP_KERNEL_ACCOUNT);

	if (!handle)
		return ERR_PTR(-ENOMEM);
	handle->pipe = pipe;
	handle->source = source;
	memset_startat(handle, 0, nr_held);
	init_waitqueue_head(&handle->wait);
	INIT_LIST_HEAD(&handle->held);

	scoped_guard(spinlock_irq, &pipe->lock) {
		if (hvpipe_find(pipe, source) != &pipe->nobody)
			return ERR_PTR(-EALREADY);
		hash_add(pipe->handles, &handle->node, source);
		WRITE_ONCE(pipe->nr_handles, pipe->nr_handles + 1);
	}
	return_ptr(handle);
}

static long hvpipe_dev_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct hvpipe_handle *handle;
	u32 source;
	int fd;

	if (cmd != PAPR_HVPIPE_IOC_CREATE_HANDLE)
		return -ENOTTY;
	if (get_user(source, (u32 __user *)arg))
		return -EFAULT;
	handle = hvpipe_create(&hvpipe, source);
	if (IS_ERR(handle))
		return PTR_ERR(handle);

	fd = anon_inode_getfd("[papr-hvpipe]", &hvpipe_handle_ops, handle, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		hvpipe_close(handle);
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
struct hvpipe_event { __be32 source; u8 type; } __packed;

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
	const struct rtas_error_log *elog = (const void *)log;
	const struct rtas_ext_event_log_v6 *ext = (const void *)elog->buffer;
	const struct pseries_errorlog *sect = (const void *)ext->vendor_log;
	const u8 *end = log + min_t(size_t, size, offsetof(struct rtas_error_log, buffer) +
				    rtas_error_extended_log_length(elog));
	size_t len;

	if (rtas_error_type(elog) != RTAS_TYPE_HVPIPE || end < ext->vendor_log ||
	    (ext->byte2 & 0x0f) != RTAS_V6EXT_LOG_FORMAT_EVENT_LOG ||
	    be32_to_cpu(ext->company_id) != RTAS_V6EXT_COMPANY_ID_IBM)
		return NULL;

	for (; end - (const u8 *)sect >= sizeof(*sect); sect = (const void *)sect + len) {
		len = be16_to_cpu(sect->length);
		if (len < sizeof(*sect) || len > end - (const u8 *)sect)
			return NULL;
		if (be16_to_cpu(sect->id) == PSERIES_ELOG_SECT_ID_HVPIPE_EVENT)
			return len < sizeof(*sect) + sizeof(struct hvpipe_event) ? NULL :
			       (const void *)sect->data;
	}
	return NULL;
}

/*
 * Act on an event. @event is NULL if the log has no valid one. A malformed event
 * may announce a message: the work looks for it.
 */
static void hvpipe_dispatch_event(struct hvpipe *pipe, const struct hvpipe_event *event)
{
	u32 source = event ? be32_to_cpu(event->source) : 0;
	u8 type = event ? event->type : 0;
	bool malformed = !type || type & ~(HVPIPE_EVENT_MSG | HVPIPE_EVENT_LOST);
	struct hvpipe_handle *handle;

	trace_papr_hvpipe_event(source, type);
	if (malformed)
		pr_warn_ratelimited("event of unknown type 0x%02x for source 0x%08x (0: no valid section)\n",
				    type, source);
	if (type & HVPIPE_EVENT_LOST) {
		handle = hvpipe_find(pipe, source);
		set_bit(HVPIPE_LOST, &handle->flags);
		hvpipe_wake(handle);
	}
	if (!malformed && !(type & HVPIPE_EVENT_MSG))
		return;
	handle = hvpipe_announce(pipe, source, malformed ||
				 time_before(jiffies, READ_ONCE(pipe->doubt_until)));
	if (malformed || handle == &pipe->nobody)
		hvpipe_schedule(pipe, HVPIPE_DUE_TAKE);
	else
		hvpipe_await_reader(pipe, handle);
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
	s32 fwrc;

	scoped_guard(spinlock_irqsave, &pipe->lock) {
		/* It is the same interrupt each time, and its look-up takes 450 instructions. */
		if (virq != pipe->virq) {
			WRITE_ONCE(pipe->virq, virq);
			pipe->irq = virq_to_hw(virq);
		}
		/* Clear stale lengths from the previous log. */
		memset(log, 0, sizeof(struct rtas_error_log));
		fwrc = rtas_check_exception_hvpipe(pipe);
		if (!fwrc)
			hvpipe_dispatch_event(pipe, hvpipe_find_event(log, RTAS_ERROR_LOG_MAX));
	}
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

/*
 * Set the state, and wake all pollers. Unless the pipe is enabled now, forget what
 * was announced. Interrupts are off for one bucket at a time. A poller of a handle
 * that enters its bucket later takes the lock before, and sees the new state.
 */
static void hvpipe_set_state(struct hvpipe *pipe, enum hvpipe_state state)
{
	struct hvpipe_handle *handle;

	WRITE_ONCE(pipe->state, state);
	for (unsigned int i = 0; i < HASH_SIZE(pipe->handles); i++) {
		scoped_guard(spinlock_irq, &pipe->lock) {
			if (state != HVPIPE_ENABLED)
				hvpipe_take_over(&pipe->nobody);
			hlist_for_each_entry(handle, &pipe->handles[i], node) {
				if (state != HVPIPE_ENABLED)
					hvpipe_take_over(handle);
				wake_up_all(&handle->wait);
			}
		}
	}
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
	bool enabled;
	s32 fwrc;

	guard(mutex)(&pipe->state_lock);
	clear_bit(HVPIPE_DUE_ENABLE, &pipe->due);
	enabled = hvpipe_usable(pipe);
	/* From now on no call begins, and a busy send has a limit. */
	WRITE_ONCE(pipe->state, state);
	guard(mutex)(&rtas_ibm_send_hvpipe_msg_lock);
	guard(mutex)(&rtas_ibm_receive_hvpipe_msg_lock);
	/* One last attempt. */
	pipe->unfinished_until = jiffies - 1;
	if (pipe->unfinished)
		hvpipe_send(pipe, pipe->unfinished);
	fwrc = enabled ? hvpipe_set_enable(pipe, false) : 0;
	if (fwrc)
		pr_warn("disabling failed with status %d\n", fwrc);
	hvpipe_set_state(pipe, state);
}

/**
 * hvpipe_enable() - Start using the pipe, if that is due.
 * @pipe: The pipe.
 *
 * The hypervisor may announce again what was announced before, or not, so one
 * receive is due that nothing announced.
 *
 * A busy firmware or hardware error may pass, so enabling stays due. Any other
 * status is this machine's last word: the next resume tries again.
 *
 * Context: May sleep.
 */
static void hvpipe_enable(struct hvpipe *pipe)
{
	s32 fwrc;

	guard(mutex)(&pipe->state_lock);
	if (!test_and_clear_bit(HVPIPE_DUE_ENABLE, &pipe->due) || hvpipe_usable(pipe))
		return;
	guard(mutex)(&rtas_ibm_send_hvpipe_msg_lock);
	guard(mutex)(&rtas_ibm_receive_hvpipe_msg_lock);
	hvpipe_set_state(pipe, pipe->state);
	WRITE_ONCE(pipe->doubt_until, jiffies);
	fwrc = hvpipe_set_enable(pipe, true);
	if (!fwrc) {
		hvpipe_set_state(pipe, HVPIPE_ENABLED);
		hvpipe_schedule(pipe, HVPIPE_DUE_PROBE);
		pr_info("enabled\n");
		return;
	}
	if (rtas_busy_delay_time(fwrc) || fwrc == RTAS_HARDWARE_ERROR)
		set_bit(HVPIPE_DUE_ENABLE, &pipe->due);
	pr_warn_ratelimited("enabling failed with status %d, next attempt %s\n", fwrc,
			    test_bit(HVPIPE_DUE_ENABLE, &pipe->due) ? "soon" :
			    "after the next migration");
}

/* Enable the pipe now, or later if that fails. */
static void hvpipe_start(struct hvpipe *pipe)
{
	/* Reset the backoff after a migration. */
	WRITE_ONCE(pipe->retry, HVPIPE_RETRY_MIN);
	set_bit(HVPIPE_DUE_ENABLE, &pipe->due);
	hvpipe_enable(pipe);
	if (test_bit(HVPIPE_DUE_ENABLE, &pipe->due))
		hvpipe_queue_work(pipe, &pipe->work, 0);
}

/* Do what is due. What becomes due meanwhile has queued the work anew. */
static void hvpipe_work(struct work_struct *work)
{
	struct hvpipe *pipe = container_of(work, struct hvpipe, work.work);
	unsigned long retry = READ_ONCE(pipe->retry);
	bool failed;

	hvpipe_enable(pipe);
	failed = test_bit(HVPIPE_DUE_ENABLE, &pipe->due);
	for (unsigned int what = HVPIPE_DUE_EVENT; what <= HVPIPE_DUE_TAKE; what++) {
		if (!test_and_clear_bit(what, &pipe->due))
			continue;
		if (what == HVPIPE_DUE_EVENT ? hvpipe_fetch_event(pipe, READ_ONCE(pipe->virq)) :
					       hvpipe_take(pipe, what == HVPIPE_DUE_PROBE)) {
			set_bit(what, &pipe->due);
			failed = true;
		}
	}

	WRITE_ONCE(pipe->retry, failed ? min(2 * retry, HVPIPE_RETRY_MAX) : HVPIPE_RETRY_MIN);
	if (failed)
		hvpipe_queue_work(pipe, &pipe->work, retry);
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
	if (hvpipe.area)
		hvpipe_disable(&hvpipe, HVPIPE_SUSPENDED);
}

/**
 * papr_hvpipe_resume() - Use the pipe again after a migration, also a failed one.
 *
 * Context: May sleep.
 */
void papr_hvpipe_resume(void)
{
	if (hvpipe.area)
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

static void hvpipe_setup(struct hvpipe *pipe, struct hvpipe_firmware_area *area)
{
	spin_lock_init(&pipe->lock);
	mutex_init(&pipe->state_lock);
	init_waitqueue_head(&pipe->nobody.wait);
	area->list.length = cpu_to_be64(sizeof(area->list));
	area->list.address = cpu_to_be64(__pa(area->sent));
	area->received.hdr.flags = HVPIPE_MSG_AVAILABLE;
	area->parameter.length = cpu_to_be16(sizeof(area->parameter.enable));
	pipe->area = area;
	pipe->busy_timeout = HVPIPE_BUSY_TIMEOUT;
	INIT_DELAYED_WORK(&pipe->work, hvpipe_work);
	pipe->retry = HVPIPE_RETRY_MIN;
	INIT_DELAYED_WORK(&pipe->send_work, hvpipe_send_work);
	pipe->pm_notifier.notifier_call = hvpipe_pm_notify;
	timer_setup(&pipe->hold_timer, hvpipe_hold_expired, 0);
}

static int __init hvpipe_init(void)
{
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

	struct device_node *events __free(device_node) =
		of_find_node_by_path("/event-sources/ibm,hvpipe-msg-events");

	if (!events || !rtas_function_implemented(RTAS_FN_CHECK_EXCEPTION) ||
	    !rtas_function_implemented(RTAS_FN_IBM_SEND_HVPIPE_MSG) ||
	    !rtas_function_implemented(RTAS_FN_IBM_RECEIVE_HVPIPE_MSG)) {
		pr_err("not usable: firmware lacks one of its functions, check-exception or /event-sources/ibm,hvpipe-msg-events\n");
		return -ENODEV;
	}

	hvpipe_msg_cache = KMEM_CACHE_USERCOPY(hvpipe_msg, 0, packet);
	err = hvpipe_msg_cache ? misc_register(&hvpipe_dev) : -ENOMEM;
	if (err)
		return err;
	hvpipe_setup(&hvpipe, &hvpipe_area);
	register_reboot_notifier(&hvpipe_reboot_notifier);
	register_pm_notifier(&hvpipe.pm_notifier);
	request_event_sources_irqs(events, hvpipe_interrupt, "HVPIPE");
	hvpipe_start(&hvpipe);
	return 0;
}
machine_device_initcall(pseries, hvpipe_init);

#ifdef CONFIG_PAPR_HVPIPE_KUNIT_TEST
#include "papr-hvpipe_test.c"
#endif
