// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the hypervisor pipe driver, included by papr-hvpipe.c.
 *
 * Each test has a pipe of its own and plays the hypervisor: it queues
 * messages, announces the first one, and announces the next while
 * ibm,receive-hvpipe-msg has not returned yet, which the contract allows.
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/mman.h>
#include <linux/unaligned.h>

#define HMC1	0x02000001
#define HMC2	0x02000002

#define TEST_MSGS	16

struct hvpipe_test_msg {
	u32 source;
	u32 len;
	u8 fill;
};

/**
 * struct hvpipe_test - A pipe, and the hypervisor at its other end.
 * @pipe:     The pipe under test.
 * @queue:    Messages from HMCs.
 * @first:    The first one of @queue that was not received.
 * @end:      Where the next one goes.
 * @enabled:  The partition enabled the pipe.
 * @announced: The first message is announced.
 * @empty:    Status of a receive with nothing pending.
 * @announces_once: What was announced is not announced again after enabling.
 * @receives: How often a message was asked for.
 * @mangle:   Spoils the next event log.
 * @log_source: Source in the event log.
 * @log_type: Type in the event log.
 * @status:   What the next @busy calls of any function return.
 * @busy:     See @status.
 * @busy_until: Calls are busy no longer when this has completed.
 * @kill:     The caller is killed while its call is busy.
 * @thread:   Starts in another thread while a call is busy.
 * @test:     The test.
 * @meanwhile: Called within the next receive, when it has the message.
 * @label:    Source that receive reports, if not 0.
 * @written:  Length that receive reports, if not 0.
 * @sends:    How often a send was asked for.
 * @sent_to:  Source of the last send.
 * @sent_len: Its length by the buffer list.
 * @queued:   How often the work was queued.
 * @sends_queued: How often the work was that finishes a send.
 * @delay:    The delay that @queued was queued with last.
 * @reader:   A handle that another thread reads.
 * @read:     What that read returned, when @done.
 * @done:     See @read.
 * @poller:   Somebody who waits for a handle.
 * @woken:    How often @poller was woken.
 */
struct hvpipe_test {
	struct hvpipe pipe;
	struct hvpipe_test_msg queue[TEST_MSGS];
	unsigned int first, end;
	bool enabled;
	bool announced;
	s32 empty;
	bool announces_once;
	unsigned int receives;
	void (*mangle)(u8 *log);
	u32 log_source;
	u8 log_type;
	s32 status;
	unsigned int busy;
	struct completion *busy_until;
	bool kill;
	int (*thread)(void *data);
	struct kunit *test;
	void (*meanwhile)(struct hvpipe_test *fake);
	u32 label;
	u32 written;
	unsigned int sends;
	u32 sent_to;
	u64 sent_len;
	unsigned int queued;
	unsigned int sends_queued;
	unsigned long delay;
	struct file *reader;
	ssize_t read;
	struct completion done;
	struct wait_queue_entry poller;
	unsigned int woken;
};

/* Where the fake's event logs have what */
#define TEST_LOG_TYPE		3
#define TEST_LOG_EXT_LEN	4
#define TEST_LOG_FORMAT		(8 + 2)
#define TEST_LOG_COMPANY	(8 + 12)
#define TEST_LOG_SECTIONS	(8 + 16)
#define TEST_LOG_PE		(TEST_LOG_SECTIONS + 48 + 24)
#define TEST_LOG_END		(TEST_LOG_PE + 8 + 5)

static struct hvpipe_test *to_hvpipe_test(struct hvpipe *pipe)
{
	return container_of(pipe, struct hvpipe_test, pipe);
}

static void hvpipe_test_section(u8 *section, const char *id, u16 len)
{
	memcpy(section, id, 2);
	put_unaligned_be16(len, section + 2);
}

/* Run @function in another thread. */
static void hvpipe_test_thread(struct hvpipe_test *fake, int (*function)(void *data))
{
	init_completion(&fake->done);
	kthread_run(function, fake, "hvpipe_test");
}

/* Does the fake answer @status instead of doing what it is called for? */
static bool fake_is_busy(struct hvpipe_test *fake)
{
	int (*thread)(void *data) = fake->thread;

	if (fake->busy_until && completion_done(fake->busy_until))
		fake->busy = 0;
	if (!fake->busy)
		return false;
	fake->busy--;
	if (fake->kill) {
		sigaddset(&current->pending.signal, SIGKILL);
		set_thread_flag(TIF_SIGPENDING);
	}
	fake->kill = false;
	fake->thread = NULL;
	if (thread)
		hvpipe_test_thread(fake, thread);
	return true;
}

static s32 fake_check_exception(struct hvpipe *pipe)
{
	struct hvpipe_test *fake = to_hvpipe_test(pipe);
	u8 *log = pipe->area->event_log;

	if (fake_is_busy(fake))
		return fake->status;
	if (!fake->log_source)
		return 1;

	memset(log, 0, TEST_LOG_END);
	log[TEST_LOG_TYPE] = RTAS_TYPE_HVPIPE;
	put_unaligned_be32(TEST_LOG_END - 8, log + TEST_LOG_EXT_LEN);
	log[TEST_LOG_FORMAT] = 0x80 | RTAS_V6EXT_LOG_FORMAT_EVENT_LOG;
	memcpy(log + TEST_LOG_COMPANY, "IBM", 4);
	hvpipe_test_section(log + TEST_LOG_SECTIONS, "PH", 48);
	hvpipe_test_section(log + TEST_LOG_SECTIONS + 48, "UH", 24);
	hvpipe_test_section(log + TEST_LOG_PE, "PE", 8 + 5);
	put_unaligned_be32(fake->log_source, log + TEST_LOG_PE + 8);
	log[TEST_LOG_PE + 12] = fake->log_type;
	if (fake->mangle)
		fake->mangle(log);
	fake->mangle = NULL;
	fake->log_source = 0;
	return 0;
}

/* Raise an event and let the driver fetch it, as the interrupt does. */
static void hvpipe_test_event(struct hvpipe_test *fake, u32 source, u8 type)
{
	fake->log_source = source;
	fake->log_type = type;
	if (hvpipe_fetch_event(&fake->pipe, 0))
		hvpipe_schedule(&fake->pipe, HVPIPE_DUE_EVENT);
}

/* Announce the first message if none is announced. */
static void hvpipe_test_announce(struct hvpipe_test *fake)
{
	if (!fake->enabled || fake->announced || fake->first == fake->end)
		return;
	fake->announced = true;
	hvpipe_test_event(fake, fake->queue[fake->first].source, HVPIPE_EVENT_MSG);
}

/* A message comes from an HMC: @len bytes, each @fill. */
static void hvpipe_test_queue(struct hvpipe_test *fake, u32 source, u8 fill, u32 len)
{
	fake->queue[fake->end++] = (struct hvpipe_test_msg) { source, len, fill };
	hvpipe_test_announce(fake);
}

static s32 fake_receive(struct hvpipe *pipe, struct hvpipe_msg *received)
{
	struct hvpipe_test *fake = to_hvpipe_test(pipe);
	struct hvpipe_test_msg *msg = &fake->queue[fake->first];

	fake->receives++;
	received->source = 0;
	received->len = 0;
	if (fake_is_busy(fake))
		return fake->status;
	if (fake->first == fake->end)
		return fake->empty;

	memset(pipe->area->received.payload, msg->fill, msg->len);
	received->source = fake->label ?: msg->source;
	received->len = fake->written ?: msg->len;
	fake->label = 0;
	fake->written = 0;
	fake->first++;
	fake->announced = false;
	hvpipe_test_announce(fake);
	if (fake->meanwhile)
		fake->meanwhile(fake);
	fake->meanwhile = NULL;
	return 0;
}

static s32 fake_send(struct hvpipe *pipe, u32 source)
{
	struct hvpipe_test *fake = to_hvpipe_test(pipe);

	fake->sends++;
	if (source == HMC1 && fake_is_busy(fake))
		return fake->status;
	fake->sent_to = source;
	fake->sent_len = be64_to_cpu(pipe->area->list.used);
	return 0;
}

static s32 fake_set_parameter(struct hvpipe *pipe)
{
	struct hvpipe_test *fake = to_hvpipe_test(pipe);

	if (fake_is_busy(fake))
		return fake->status;
	if (be16_to_cpu(pipe->area->parameter.length) != 1 || pipe->area->parameter.enable > 1)
		return -9999;
	fake->enabled = pipe->area->parameter.enable;
	if (!fake->announces_once)
		fake->announced = false;
	hvpipe_test_announce(fake);
	return 0;
}

static void fake_queue_work(struct hvpipe *pipe, struct delayed_work *work, unsigned long delay)
{
	struct hvpipe_test *fake = to_hvpipe_test(pipe);

	if (work == &pipe->send_work) {
		fake->sends_queued++;
	} else {
		fake->queued++;
		fake->delay = delay;
	}
}

/* Run the work that finishes a send, once. */
static void hvpipe_test_send_work(struct hvpipe_test *fake)
{
	hvpipe_send_work(&fake->pipe.send_work.work);
}

/* Run the other work, once. */
static void hvpipe_test_work(struct hvpipe_test *fake)
{
	hvpipe_work(&fake->pipe.work.work);
}

/* Enable the pipe, and do what is due then. */
static void hvpipe_test_resume(struct hvpipe_test *fake)
{
	hvpipe_start(&fake->pipe);
	hvpipe_test_work(fake);
}

/* The answer of the next @n calls to firmware */
static void hvpipe_test_status(struct hvpipe_test *fake, s32 status, unsigned int n)
{
	fake->status = status;
	fake->busy = n;
}

static ssize_t hvpipe_test_read(struct file *file, void *buf, size_t size)
{
	struct kvec vec = { .iov_base = buf, .iov_len = size };
	struct iov_iter iter;
	struct kiocb iocb;

	init_sync_kiocb(&iocb, file);
	iov_iter_kvec(&iter, ITER_DEST, &vec, 1, size);
	return hvpipe_handle_read_iter(&iocb, &iter);
}

static ssize_t hvpipe_test_write(struct file *file, void *buf, size_t size)
{
	struct kvec vec = { .iov_base = buf, .iov_len = size };
	struct iov_iter iter;
	struct kiocb iocb;

	init_sync_kiocb(&iocb, file);
	iov_iter_kvec(&iter, ITER_SOURCE, &vec, 1, size);
	return hvpipe_handle_write_iter(&iocb, &iter);
}

/* What poll() says to user space, in the words of poll(2) */
static unsigned int hvpipe_test_poll(struct file *file)
{
	return mangle_poll(hvpipe_handle_poll(file, NULL)) &
	       (POLLIN | POLLOUT | POLLRDHUP | POLLHUP | POLLERR);
}

static struct file *hvpipe_test_open(struct kunit *test, u32 source)
{
	struct hvpipe_test *fake = test->priv;
	struct hvpipe_handle *handle = hvpipe_create(&fake->pipe, source);
	struct file *file;

	KUNIT_ASSERT_FALSE(test, IS_ERR(handle));
	file = anon_inode_getfile("[papr-hvpipe]", &hvpipe_handle_ops, handle, O_RDWR);
	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	return file;
}

/* A buffer for the largest message, full of what nobody may see. */
static u8 *hvpipe_test_buf(struct kunit *test)
{
	u8 *buf = kunit_kmalloc(test, HVPIPE_HDR_LEN + SZ_4K, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, buf);
	return memset(buf, 0xa5, HVPIPE_HDR_LEN + SZ_4K);
}

/* A read returns a message of @len bytes, all @fill, behind a clean header. */
static void hvpipe_test_expect(struct kunit *test, struct file *file, u8 fill, u32 len)
{
	const struct papr_hvpipe_hdr hdr = { .flags = HVPIPE_MSG_AVAILABLE };
	u8 *buf = hvpipe_test_buf(test);

	KUNIT_EXPECT_TRUE(test, hvpipe_test_poll(file) & POLLIN);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, HVPIPE_HDR_LEN + SZ_4K),
			HVPIPE_HDR_LEN + len);
	KUNIT_EXPECT_MEMEQ(test, buf, &hdr, sizeof(hdr));
	KUNIT_EXPECT_NULL(test, memchr_inv(buf + sizeof(hdr), fill, len));
	KUNIT_EXPECT_NULL(test, memchr_inv(buf + sizeof(hdr) + len, 0xa5, SZ_4K - len));
}

static void hvpipe_test_expect_nothing(struct kunit *test, struct file *file)
{
	u8 *buf = hvpipe_test_buf(test);

	KUNIT_EXPECT_EQ(test, hvpipe_test_poll(file), POLLOUT);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), 0);
	file->f_flags |= O_NONBLOCK;
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), -EAGAIN);
	file->f_flags &= ~O_NONBLOCK;
}

static void hvpipe_test_expect_lost(struct kunit *test, struct file *file)
{
	const struct papr_hvpipe_hdr hdr = { .flags = HVPIPE_LOST_CONNECTION };
	u8 *buf = hvpipe_test_buf(test);

	KUNIT_EXPECT_TRUE(test, hvpipe_test_poll(file) & POLLIN);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), sizeof(hdr));
	KUNIT_EXPECT_MEMEQ(test, buf, &hdr, sizeof(hdr));
}

/* The proof that a test left the pipe in order: messages come both ways. */
static void hvpipe_test_expect_works(struct kunit *test, struct file *file, u32 source)
{
	struct hvpipe_test *fake = test->priv;
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_test_queue(fake, source, 0x77, 7);
	hvpipe_test_expect(test, file, 0x77, 7);
	hvpipe_test_expect_nothing(test, file);
	KUNIT_EXPECT_EQ(test, hvpipe_test_write(file, buf, 50), 50);
	KUNIT_EXPECT_EQ(test, fake->sent_to, source);
	KUNIT_EXPECT_EQ(test, fake->first, fake->end);
}

/* Only a source of type HMC gets a handle. */
static void create_hmc_only(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	static const u32 bad[] = { 0, 1, 0x01000001, 0x03000001, 0x02010001, 0x82000001, ~0 };

	for (int i = 0; i < ARRAY_SIZE(bad); i++)
		KUNIT_EXPECT_EQ(test, PTR_ERR(hvpipe_create(&fake->pipe, bad[i])), -EINVAL);
	__fput_sync(hvpipe_test_open(test, 0x02000000));
	__fput_sync(hvpipe_test_open(test, 0x0200ffff));
}

/* A source has one handle at a time. */
static void create_once(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	KUNIT_EXPECT_EQ(test, PTR_ERR(hvpipe_create(&fake->pipe, HMC1)), -EALREADY);
	KUNIT_EXPECT_EQ(test, fake->pipe.nr_handles, 1);
	__fput_sync(file);
	KUNIT_EXPECT_EQ(test, fake->pipe.nr_handles, 0);
	file = hvpipe_test_open(test, HMC1);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A write sends the payload without the header. */
static void write_payload(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct hvpipe_firmware_area *area = fake->pipe.area;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	for (u32 len = 1; len <= HVPIPE_MAX_SEND; len += 4087) {
		memset(buf + HVPIPE_HDR_LEN, len + 1, len);
		KUNIT_EXPECT_EQ(test, hvpipe_test_write(file, buf, HVPIPE_HDR_LEN + len),
				HVPIPE_HDR_LEN + len);
		KUNIT_EXPECT_EQ(test, fake->sent_to, HMC1);
		KUNIT_EXPECT_EQ(test, fake->sent_len, len);
		KUNIT_EXPECT_EQ(test, be64_to_cpu(area->list.length), 24);
		KUNIT_EXPECT_EQ(test, be64_to_cpu(area->list.address), __pa(area->sent));
		KUNIT_EXPECT_NULL(test, memchr_inv(area->sent, len + 1, len));
	}
	KUNIT_EXPECT_EQ(test, ((struct hvpipe_handle *)file->private_data)->sent, 2);
	__fput_sync(file);
}

/* A write of a size that no message has sends nothing. */
static void write_bad_sizes(struct kunit *test)
{
	static const size_t bad[] = { 0, 1, 47, 48, 48 + 4089, 48 + 4096 };
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	for (int i = 0; i < ARRAY_SIZE(bad); i++)
		KUNIT_EXPECT_EQ(test, hvpipe_test_write(file, buf, bad[i]), -EINVAL);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* Each status of firmware has its errno. */
static void write_errors(struct kunit *test)
{
	static const struct { s32 status; int err; } cases[] = {
		{ -1, -EIO }, { -3, -EINVAL }, { -4, -EPIPE }, { -5, -EOPNOTSUPP },
		{ -7, -EIO }, { 1, -EIO }, { 9899, -EIO }, { 9906, -EIO },
	};
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	for (int i = 0; i < ARRAY_SIZE(cases); i++) {
		hvpipe_test_status(fake, cases[i].status, 1);
		KUNIT_EXPECT_EQ(test, hvpipe_test_write(file, buf, 49), cases[i].err);
	}
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A call that firmware answers busy is repeated until it is done. */
static void busy_retried(struct kunit *test)
{
	static const s32 busy[] = { -2, 9900, 9901 };
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	for (int i = 0; i < ARRAY_SIZE(busy); i++) {
		hvpipe_test_status(fake, busy[i], 3);
		KUNIT_EXPECT_EQ(test, hvpipe_test_write(file, buf, 49), 49);
		KUNIT_EXPECT_EQ(test, fake->busy, 0);
		hvpipe_test_queue(fake, HMC1, i, 10);
		hvpipe_test_status(fake, busy[i], 3);
		hvpipe_test_expect(test, file, i, 10);
	}
	__fput_sync(file);
}

static int hvpipe_test_suspend(void *data)
{
	struct hvpipe_test *fake = data;

	current->kunit_test = fake->test;
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	current->kunit_test = NULL;
	complete(&fake->done);
	return 0;
}

/* A suspend waits for a busy call to end, but not longer than the retry limit. */
static void suspend_busy(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);
	ssize_t ret;

	for (int i = 0; i < 4; i++) {
		/* Sends that end well, or not; then receives that do. */
		fake->pipe.busy_timeout = i & 1 ? 1 : HVPIPE_BUSY_TIMEOUT;
		if (i >= 2)
			hvpipe_test_queue(fake, HMC1, i, 10);
		fake->meanwhile = NULL;
		fake->thread = hvpipe_test_suspend;
		hvpipe_test_status(fake, 9901, i & 1 ? 1000 : 3);
		/* A read says at the end of the retry limit that nothing is there yet. */
		do {
			ret = i < 2 ? hvpipe_test_write(file, buf, 58) :
				      hvpipe_test_read(file, buf, SZ_4K);
		} while (!ret);
		KUNIT_EXPECT_EQ(test, ret, i & 1 ? -ENXIO : 58);
		hvpipe_test_status(fake, 0, 0);
		KUNIT_EXPECT_GT(test, wait_for_completion_timeout(&fake->done, 10 * HZ), 0);
		KUNIT_EXPECT_EQ(test, fake->pipe.state, HVPIPE_SUSPENDED);
		KUNIT_EXPECT_EQ(test, hvpipe_test_poll(file), POLLRDHUP);
		KUNIT_EXPECT_EQ(test, hvpipe_test_write(file, buf, 49), -ENXIO);
		KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), -ENXIO);
		KUNIT_EXPECT_EQ(test, PTR_ERR(hvpipe_create(&fake->pipe, HMC2)), -ENXIO);
		hvpipe_test_resume(fake);
	}
	hvpipe_test_expect(test, file, 3, 10);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A write that is killed while firmware is busy for @busy more calls. */
static void hvpipe_test_killed_write(struct kunit *test, struct file *file, size_t size,
				     unsigned int busy)
{
	struct hvpipe_test *fake = test->priv;
	u8 *buf = hvpipe_test_buf(test);

	fake->sent_to = 0;
	fake->kill = true;
	hvpipe_test_status(fake, 9901, busy + 1);
	KUNIT_EXPECT_EQ(test, hvpipe_test_write(file, buf, size), -EINTR);
	sigdelset(&current->pending.signal, SIGKILL);
	clear_thread_flag(TIF_SIGPENDING);
	KUNIT_EXPECT_EQ(test, fake->busy, busy);
	KUNIT_EXPECT_EQ(test, fake->sent_to, 0);
}

/* A send that its killed caller left busy is finished before the next one begins. */
static void killed_send_first(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_test_killed_write(test, one, 50, 3);
	fake->sends = 0;
	KUNIT_EXPECT_EQ(test, hvpipe_test_write(two, buf, 60), 60);
	KUNIT_EXPECT_EQ(test, fake->sends, 5);
	KUNIT_EXPECT_EQ(test, fake->busy, 0);
	KUNIT_EXPECT_EQ(test, fake->sent_to, HMC2);
	KUNIT_EXPECT_EQ(test, fake->pipe.given_up, 0);
	hvpipe_test_expect_works(test, one, HMC1);
	__fput_sync(one);
	__fput_sync(two);
}

/* If no other send comes, the work finishes it, also when its handle is closed. */
static void killed_send_in_work(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	hvpipe_test_killed_write(test, file, 50, 2);
	__fput_sync(file);
	KUNIT_EXPECT_EQ(test, fake->sends_queued, 1);
	hvpipe_test_send_work(fake);
	KUNIT_EXPECT_EQ(test, fake->sends_queued, 1);
	KUNIT_EXPECT_EQ(test, fake->sent_to, HMC1);
	KUNIT_EXPECT_EQ(test, fake->sent_len, 2);
	KUNIT_EXPECT_EQ(test, fake->pipe.given_up, 0);
	file = hvpipe_test_open(test, HMC1);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A send that stays busy is given up at the end of the retry limit, and counted. */
static void killed_send_given_up(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);
	u8 *buf = hvpipe_test_buf(test);

	/* By the next send, by the work, which waits for no sender, and by a suspend. */
	fake->pipe.busy_timeout = 1;
	hvpipe_test_killed_write(test, one, 50, 1000);
	KUNIT_EXPECT_EQ(test, hvpipe_test_write(two, buf, 60), 60);
	KUNIT_EXPECT_EQ(test, fake->pipe.given_up, 1);
	hvpipe_test_send_work(fake);
	hvpipe_test_killed_write(test, one, 50, 1000);
	msleep(50);
	mutex_lock(&rtas_ibm_send_hvpipe_msg_lock);
	hvpipe_test_send_work(fake);
	mutex_unlock(&rtas_ibm_send_hvpipe_msg_lock);
	KUNIT_EXPECT_EQ(test, fake->pipe.given_up, 1);
	hvpipe_test_send_work(fake);
	KUNIT_EXPECT_EQ(test, fake->pipe.given_up, 2);
	fake->pipe.busy_timeout = HVPIPE_BUSY_TIMEOUT;
	hvpipe_test_killed_write(test, one, 50, 1000);
	fake->pipe.busy_timeout = 1;
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	KUNIT_EXPECT_EQ(test, fake->pipe.given_up, 3);
	hvpipe_test_status(fake, 0, 0);
	hvpipe_test_send_work(fake);
	hvpipe_test_resume(fake);
	KUNIT_EXPECT_EQ(test, fake->sent_to, 0);
	hvpipe_test_expect_works(test, one, HMC1);
	hvpipe_test_expect_works(test, two, HMC2);
	__fput_sync(one);
	__fput_sync(two);
}

/* A receive that its killed caller left busy is finished by the work, and held. */
static void killed_read(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	fake->kill = true;
	hvpipe_test_status(fake, 9901, 1);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), -EINTR);
	sigdelset(&current->pending.signal, SIGKILL);
	clear_thread_flag(TIF_SIGPENDING);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->first, 1);
	hvpipe_test_expect(test, file, 1, 10);

	/* If another reader is faster, nothing is left to do. */
	hvpipe_test_queue(fake, HMC1, 2, 20);
	fake->kill = true;
	hvpipe_test_status(fake, 9901, 1);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), -EINTR);
	sigdelset(&current->pending.signal, SIGKILL);
	clear_thread_flag(TIF_SIGPENDING);
	hvpipe_test_expect(test, file, 2, 20);
	fake->receives = 0;
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->receives, 0);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

static int hvpipe_test_move(void *data)
{
	struct hvpipe_test *fake = data;

	current->kunit_test = fake->test;
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	hvpipe_test_status(fake, 0, 0);
	hvpipe_start(&fake->pipe);
	current->kunit_test = NULL;
	complete(&fake->done);
	return 0;
}

/* A busy send that a whole suspend and resume interrupted is not made again. */
static void send_interrupted(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	fake->pipe.busy_timeout = 1;
	fake->thread = hvpipe_test_move;
	hvpipe_test_status(fake, 9901, 1000);
	KUNIT_EXPECT_EQ(test, hvpipe_test_write(file, buf, 58), -ENXIO);
	KUNIT_EXPECT_EQ(test, fake->pipe.given_up, 1);
	KUNIT_EXPECT_GT(test, wait_for_completion_timeout(&fake->done, 10 * HZ), 0);
	KUNIT_EXPECT_EQ(test, fake->pipe.state, HVPIPE_ENABLED);
	hvpipe_test_work(fake);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

static int hvpipe_test_close(void *data)
{
	struct hvpipe_test *fake = data;

	current->kunit_test = fake->test;
	__fput_sync(fake->reader);
	current->kunit_test = NULL;
	complete(&fake->done);
	return 0;
}

/* A close waits for another source's busy read, but not longer than the retry limit. */
static void close_busy_read(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);
	ssize_t ret;

	fake->pipe.busy_timeout = 1;
	fake->reader = hvpipe_test_open(test, HMC2);
	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_event(fake, HMC2, HVPIPE_EVENT_MSG);
	fake->thread = hvpipe_test_close;
	hvpipe_test_status(fake, 9901, 1000);
	fake->busy_until = &fake->done;
	/* Nothing is there while the close tries to receive the message. */
	do {
		cond_resched();
		ret = hvpipe_test_read(one, buf, SZ_4K);
	} while (!ret && fake->receives < 200);
	KUNIT_EXPECT_EQ(test, ret, HVPIPE_HDR_LEN + 10);
	KUNIT_EXPECT_TRUE(test, completion_done(&fake->done));
	KUNIT_EXPECT_LT(test, fake->receives, 200);
	hvpipe_test_work(fake);
	hvpipe_test_expect_works(test, one, HMC1);
	__fput_sync(one);
}

/* A read returns one message, in order. */
static void read_one_each(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	hvpipe_test_expect_nothing(test, file);
	hvpipe_test_queue(fake, HMC1, 1, 1);
	hvpipe_test_queue(fake, HMC1, 2, 100);
	hvpipe_test_queue(fake, HMC1, 3, HVPIPE_MAX_SEND);
	hvpipe_test_expect(test, file, 1, 1);
	KUNIT_EXPECT_EQ(test, fake->first, 1);
	hvpipe_test_expect(test, file, 2, 100);
	hvpipe_test_expect(test, file, 3, HVPIPE_MAX_SEND);
	hvpipe_test_expect_nothing(test, file);
	__fput_sync(file);
}

/* What fits the receive buffer was acknowledged: it reaches its reader, read or held. */
static void read_whole_buffer(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	for (u32 len = HVPIPE_MAX_SEND; len <= HVPIPE_MAX_RECEIVE; len++) {
		hvpipe_test_queue(fake, HMC1, 1, len);
		if (len & 1)
			KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), -EMSGSIZE);
		hvpipe_test_expect(test, file, 1, len);
	}
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A buffer without room for the header is refused, and the message stays. */
static void read_tiny(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, 0), -EINVAL);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, 47), -EINVAL);
	hvpipe_test_expect(test, file, 1, 10);
	__fput_sync(file);
}

/* A buffer that is too short leaves the message with the handle. */
static void read_short(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	struct hvpipe_handle *handle = file->private_data;
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_queue(fake, HMC1, 2, 20);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, 48), -EMSGSIZE);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, 57), -EMSGSIZE);
	KUNIT_EXPECT_EQ(test, handle->nr_held, 1);
	KUNIT_EXPECT_TRUE(test, hvpipe_test_poll(file) & POLLIN);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, 58), 58);
	hvpipe_test_expect(test, file, 2, 20);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A buffer that faults leaves the message with the handle. */
static void read_fault(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	struct kiocb iocb;
	struct iov_iter iter;
	unsigned long addr;
	ssize_t ret;

	/* The page behind is not mapped, and this one not present yet. */
	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	init_sync_kiocb(&iocb, file);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	for (int i = 0; i < 2; i++) {
		iov_iter_ubuf(&iter, ITER_DEST, (void __user *)(addr + PAGE_SIZE - 50), 100);
		ret = hvpipe_handle_read_iter(&iocb, &iter);
		KUNIT_EXPECT_EQ(test, ret, -EFAULT);
		KUNIT_EXPECT_TRUE(test, hvpipe_test_poll(file) & POLLIN);
	}
	iov_iter_ubuf(&iter, ITER_DEST, (void __user *)addr, 100);
	ret = hvpipe_handle_read_iter(&iocb, &iter);
	KUNIT_EXPECT_EQ(test, ret, 58);

	iov_iter_ubuf(&iter, ITER_SOURCE, (void __user *)(addr + PAGE_SIZE - 50), 100);
	ret = hvpipe_handle_write_iter(&iocb, &iter);
	KUNIT_EXPECT_EQ(test, ret, -EFAULT);
	iov_iter_ubuf(&iter, ITER_SOURCE, (void __user *)addr, 100);
	ret = hvpipe_handle_write_iter(&iocb, &iter);
	KUNIT_EXPECT_EQ(test, ret, 100);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/*
 * The source that the receive call names gets the message, not the one
 * announced.
 */
static void routed_by_receive(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_queue(fake, HMC1, 2, 20);
	fake->label = HMC2;
	fake->enabled = false;	/* announces nothing, for a while */
	/* Its own message is the next. It is not announced, and comes all the same. */
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(one, buf, SZ_4K), HVPIPE_HDR_LEN + 20);
	hvpipe_test_expect(test, two, 1, 10);
	fake->enabled = true;

	/* Nor is it an error if no other message is pending. */
	hvpipe_test_queue(fake, HMC1, 3, 10);
	fake->label = HMC2;
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(one, buf, SZ_4K), 0);
	hvpipe_test_expect(test, two, 3, 10);
	hvpipe_test_expect_nothing(test, one);
	hvpipe_test_expect_works(test, two, HMC2);
	hvpipe_test_expect_works(test, one, HMC1);
	__fput_sync(one);
	__fput_sync(two);
}

/* A message for a source without a handle is received, dropped and counted. */
static void dropped_counted(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	fake->label = HMC2;
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&fake->pipe.dropped), 1);
	hvpipe_test_work(fake);
	fake->queued = 0;

	/*
	 * Announced, but nobody has them open: the work takes them. The second
	 * one is announced while it takes the first, and waits for no retry.
	 */
	hvpipe_test_queue(fake, HMC2, 2, 10);
	hvpipe_test_queue(fake, HMC2, 2, 10);
	hvpipe_test_queue(fake, HMC1, 3, 30);
	for (int i = 0; i < 2; i++) {
		KUNIT_EXPECT_EQ(test, fake->queued, i + 1);
		KUNIT_EXPECT_EQ(test, fake->delay, 0);
		hvpipe_test_work(fake);
		KUNIT_EXPECT_EQ(test, atomic_long_read(&fake->pipe.dropped), i + 2);
	}
	KUNIT_EXPECT_EQ(test, fake->queued, 2);
	hvpipe_test_expect(test, file, 3, 30);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A close takes the pending message out of the pipe. */
static void close_drains(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(one, buf, 48), -EMSGSIZE);
	hvpipe_test_queue(fake, HMC1, 2, 20);
	hvpipe_test_queue(fake, HMC2, 3, 30);
	__fput_sync(one);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&fake->pipe.dropped), 2);
	hvpipe_test_expect(test, two, 3, 30);

	one = hvpipe_test_open(test, HMC1);
	hvpipe_test_expect_nothing(test, one);
	hvpipe_test_expect_works(test, one, HMC1);
	__fput_sync(one);
	__fput_sync(two);
}

/* Close receives another source's message: its own comes out of the pipe later. */
static void close_misrouted(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_queue(fake, HMC1, 2, 20);
	fake->label = HMC2;
	fake->enabled = false;	/* announces nothing, for a while */
	__fput_sync(one);
	fake->enabled = true;
	KUNIT_EXPECT_EQ(test, fake->first, 1);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->first, 2);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&fake->pipe.dropped), 1);
	hvpipe_test_expect(test, two, 1, 10);
	hvpipe_test_expect_works(test, two, HMC2);
	__fput_sync(two);
}

/* What waited while the pipe was disabled is received, announced again or not. */
static void probe_after_enable(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	for (int i = 0; i < 2; i++) {
		fake->announces_once = i;
		hvpipe_test_queue(fake, HMC1, i, 10);
		hvpipe_test_queue(fake, HMC1, i + 2, 20);
		hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
		hvpipe_test_resume(fake);
		/* An announcement is left to its reader. */
		KUNIT_EXPECT_EQ(test, fake->first, i ? 3 : 0);
		hvpipe_test_expect(test, file, i, 10);
		hvpipe_test_expect(test, file, i + 2, 20);
	}
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A receive that nothing announced is tried once, busy aside, after each enable. */
static void probe_once(struct kunit *test)
{
	static const s32 empty[] = { 0, -1, -3, -5, 7 };
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	for (int i = 0; i < ARRAY_SIZE(empty); i++) {
		fake->empty = empty[i];
		hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
		hvpipe_start(&fake->pipe);
		fake->receives = 0;
		fake->queued = 0;
		for (int j = 0; j < 3; j++)
			hvpipe_test_work(fake);
		KUNIT_EXPECT_EQ(test, fake->receives, 1);
		KUNIT_EXPECT_EQ(test, fake->queued, 0);
	}
	fake->pipe.busy_timeout = 1;
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	hvpipe_start(&fake->pipe);
	hvpipe_test_status(fake, 9901, 1000);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->queued, 2);
	hvpipe_test_status(fake, 0, 0);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->queued, 2);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* An announcement that outlived its message is no error, and no reader is one behind. */
static void late_announcement(struct kunit *test)
{
	static const s32 empty[] = { 0, -1, -3 };
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	for (int i = 0; i < ARRAY_SIZE(empty); i++) {
		fake->empty = empty[i];
		hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
		hvpipe_start(&fake->pipe);
		fake->announced = true;		/* announced only below */
		hvpipe_test_queue(fake, HMC1, i, 10);
		hvpipe_test_work(fake);		/* the probe takes it */
		hvpipe_test_event(fake, HMC1, HVPIPE_EVENT_MSG);
		hvpipe_test_expect(test, file, i, 10);
		KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), 0);
		hvpipe_test_work(fake);
		hvpipe_test_expect_works(test, file, HMC1);

		/* The same for a source that nobody has open. */
		hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
		hvpipe_start(&fake->pipe);
		fake->announced = true;
		hvpipe_test_queue(fake, HMC2, i, 10);
		hvpipe_test_work(fake);
		fake->queued = 0;
		fake->receives = 0;
		hvpipe_test_event(fake, HMC2, HVPIPE_EVENT_MSG);
		for (int j = 0; j < 3; j++)
			hvpipe_test_work(fake);
		/* If that is an error, it is tried once more. */
		KUNIT_EXPECT_EQ(test, fake->queued, empty[i] ? 2 : 1);
		KUNIT_EXPECT_EQ(test, fake->receives, empty[i] ? 2 : 1);
	}
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/*
 * An announcement that outlived its message receives another source's message: that
 * source's own announcement then outlives it, and is no error either.
 */
static void late_announcement_misroutes(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	hvpipe_start(&fake->pipe);
	fake->announced = true;
	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_work(fake);
	hvpipe_test_event(fake, HMC1, HVPIPE_EVENT_MSG);
	hvpipe_test_expect(test, one, 1, 10);
	fake->pipe.doubt_until = jiffies;
	hvpipe_test_queue(fake, HMC2, 2, 20);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(one, buf, SZ_4K), 0);
	hvpipe_test_expect(test, two, 2, 20);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(two, buf, SZ_4K), 0);
	hvpipe_test_expect_works(test, one, HMC1);
	hvpipe_test_expect_works(test, two, HMC2);
	__fput_sync(one);
	__fput_sync(two);
}

/* A real error is not taken for an empty pipe, but right after a probe: it is tried again then. */
static void error_in_doubt(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	hvpipe_start(&fake->pipe);
	fake->announced = true;
	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_queue(fake, HMC1, 2, 20);
	hvpipe_test_work(fake);
	hvpipe_test_expect(test, file, 1, 10);
	/* Announced while the probe received the message before it. */
	hvpipe_test_status(fake, -1, 1);
	fake->queued = 0;
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), 0);
	KUNIT_EXPECT_EQ(test, fake->queued, 1);
	hvpipe_test_work(fake);
	hvpipe_test_expect(test, file, 2, 20);
	hvpipe_test_expect_works(test, file, HMC1);

	/* The same for a source that nobody has open. */
	fake->pipe.doubt_until = jiffies + HVPIPE_DOUBT;
	hvpipe_test_queue(fake, HMC2, 4, 30);
	hvpipe_test_status(fake, -1, 1);
	hvpipe_test_work(fake);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->first, fake->end);

	fake->pipe.doubt_until = jiffies;
	hvpipe_test_queue(fake, HMC1, 3, 30);
	hvpipe_test_status(fake, -1, 1);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), -EIO);
	hvpipe_test_expect(test, file, 3, 30);
	__fput_sync(file);
}

/* What a close cannot receive is received by the work. */
static void close_drains_later(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);

	fake->pipe.busy_timeout = 1;
	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_queue(fake, HMC2, 2, 20);
	hvpipe_test_status(fake, 9901, 1000);
	__fput_sync(one);
	KUNIT_EXPECT_EQ(test, fake->queued, 1);

	hvpipe_test_status(fake, -1, 2);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->delay, HVPIPE_RETRY_MIN);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->delay, 2 * HVPIPE_RETRY_MIN);
	KUNIT_EXPECT_EQ(test, fake->queued, 3);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->queued, 3);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&fake->pipe.dropped), 1);
	hvpipe_test_expect(test, two, 2, 20);
	__fput_sync(two);
}

/*
 * A doubtful announcement whose handle is closed: an error may say that nothing is
 * pending, or be one, so a second attempt takes the message out of the pipe.
 */
static void close_in_doubt(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one;
	struct file *two = hvpipe_test_open(test, HMC2);

	/* The close meets the error, or, when firmware is busy with it, the work. */
	for (int i = 0; i < 2; i++) {
		one = hvpipe_test_open(test, HMC1);
		fake->pipe.doubt_until = jiffies + HVPIPE_DOUBT;
		hvpipe_test_queue(fake, HMC1, i, 10);
		hvpipe_test_queue(fake, HMC2, i, 20);
		fake->pipe.busy_timeout = 1;
		hvpipe_test_status(fake, i ? 9901 : -1, i ? 1000 : 1);
		__fput_sync(one);
		if (i)
			hvpipe_test_status(fake, -1, 1);
		hvpipe_test_work(fake);
		hvpipe_test_work(fake);
		KUNIT_EXPECT_EQ(test, atomic_long_read(&fake->pipe.dropped), i + 1);
		hvpipe_test_expect(test, two, i, 20);
	}
	hvpipe_test_expect_works(test, two, HMC2);
	__fput_sync(two);
}

/* A failed receive leaves the message announced. */
static void receive_error(struct kunit *test)
{
	static const struct { s32 status; int err; } cases[] = {
		{ -1, -EIO }, { -3, -EINVAL }, { -4, -EIO }, { -5, -EOPNOTSUPP }, { 2, -EIO },
	};
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	for (int i = 0; i < ARRAY_SIZE(cases); i++) {
		hvpipe_test_queue(fake, HMC1, i, 10);
		hvpipe_test_status(fake, cases[i].status, 1);
		KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), cases[i].err);
		hvpipe_test_expect(test, file, i, 10);
	}
	hvpipe_test_expect_nothing(test, file);
	__fput_sync(file);
}

static int hvpipe_test_wake(struct wait_queue_entry *wait, unsigned int mode,
			    int flags, void *key)
{
	container_of(wait, struct hvpipe_test, poller)->woken++;
	return 0;
}

/* A read that fails wakes others who share the handle. */
static void read_error_wakes(struct kunit *test)
{
	static const s32 cases[] = { -1, -3, -5 };
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);
	struct hvpipe_handle *handle = one->private_data;
	u8 *buf = hvpipe_test_buf(test);

	/* They may have looked while the announcement was not to be seen. */
	init_waitqueue_func_entry(&fake->poller, hvpipe_test_wake);
	add_wait_queue(&handle->wait, &fake->poller);
	hvpipe_test_queue(fake, HMC1, 1, 10);
	for (int i = 0; i < ARRAY_SIZE(cases); i++) {
		fake->woken = 0;
		hvpipe_test_status(fake, cases[i], 1000);
		KUNIT_EXPECT_LT(test, hvpipe_test_read(one, buf, SZ_4K), 0);
		KUNIT_EXPECT_EQ(test, fake->woken, 1);
	}
	hvpipe_test_status(fake, 0, 0);

	/* The same when another source's message came. */
	fake->woken = 0;
	fake->label = HMC2;
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(one, buf, SZ_4K), 0);
	KUNIT_EXPECT_EQ(test, fake->woken, 1);
	hvpipe_test_expect(test, two, 1, 10);
	hvpipe_test_expect_works(test, one, HMC1);
	remove_wait_queue(&handle->wait, &fake->poller);
	__fput_sync(one);
	__fput_sync(two);
}

/* Nothing is received while all handles hold too many messages. */
static void held_max(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	atomic_set(&fake->pipe.nr_held, HVPIPE_HELD_MAX);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), -ENOMEM);
	hvpipe_schedule(&fake->pipe, HVPIPE_DUE_TAKE);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->delay, HVPIPE_RETRY_MIN);
	KUNIT_EXPECT_EQ(test, fake->first, 0);
	atomic_set(&fake->pipe.nr_held, 0);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, atomic_read(&fake->pipe.nr_held), 1);
	hvpipe_test_expect(test, file, 1, 10);
	KUNIT_EXPECT_EQ(test, atomic_read(&fake->pipe.nr_held), 0);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), 0);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A length beyond the buffer is not believed. */
static void length_beyond_buffer(struct kunit *test)
{
	static const u32 lengths[] = { 4097, 0x80000000, ~0 };
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	for (int i = 0; i < ARRAY_SIZE(lengths); i++) {
		hvpipe_test_queue(fake, HMC1, i, 10);
		fake->written = lengths[i];
		KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), -EIO);
		KUNIT_EXPECT_NULL(test, memchr_inv(buf, 0xa5, HVPIPE_HDR_LEN + SZ_4K));
	}
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A lost connection is reported once, after the messages before it. */
static void lost_once(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_event(fake, HMC1, HVPIPE_EVENT_LOST);
	hvpipe_test_expect(test, file, 1, 10);
	hvpipe_test_expect_lost(test, file);
	hvpipe_test_expect_nothing(test, file);

	/* Of a source that nobody has open, nobody is told. */
	hvpipe_test_event(fake, HMC2, HVPIPE_EVENT_LOST);
	KUNIT_EXPECT_EQ(test, fake->queued, 0);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* Another thread reads the handle. It calls no firmware: it would be the real one. */
static int hvpipe_test_reader(void *data)
{
	struct hvpipe_test *fake = data;
	u8 header[HVPIPE_HDR_LEN];

	fake->read = hvpipe_test_read(fake->reader, header, sizeof(header));
	complete(&fake->done);
	return 0;
}

static void lose_and_read_meanwhile(struct hvpipe_test *fake)
{
	hvpipe_test_event(fake, HMC1, HVPIPE_EVENT_LOST);
	kthread_run(hvpipe_test_reader, fake, "hvpipe_test");
	/* Far longer than a read that waits for nothing takes */
	wait_for_completion_timeout(&fake->done, HZ / 10);
}

/* A loss does not overtake a message that is on its way to the handle. */
static void lost_in_order(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	init_completion(&fake->done);
	fake->read = -1;
	fake->reader = file;
	fake->pipe.hold_after_ms = 1000000;
	hvpipe_test_queue(fake, HMC1, 1, 10);
	fake->meanwhile = lose_and_read_meanwhile;
	hvpipe_hold_expired(&fake->pipe.hold_timer);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_GT(test, wait_for_completion_timeout(&fake->done, 10 * HZ), 0);
	/* It has room for the header alone, which is what a loss takes. */
	KUNIT_EXPECT_EQ(test, fake->read, -EMSGSIZE);
	hvpipe_test_expect(test, file, 1, 10);
	hvpipe_test_expect_lost(test, file);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* An event may announce a message and a loss. */
static void event_both(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	fake->announced = true;
	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_event(fake, HMC1, HVPIPE_EVENT_MSG | HVPIPE_EVENT_LOST);
	hvpipe_test_expect(test, file, 1, 10);
	hvpipe_test_expect_lost(test, file);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A spurious, an empty and a doubled event do no harm. */
static void event_spurious(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	/*
	 * A spurious interrupt, an announcement of nothing, and one twice. Where
	 * an empty receive is an error, the last two cannot be told from one.
	 */
	fake->empty = 0;
	KUNIT_EXPECT_EQ(test, hvpipe_fetch_event(&fake->pipe, 0), 0);
	hvpipe_test_event(fake, HMC1, HVPIPE_EVENT_MSG);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), 0);
	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_event(fake, HMC1, HVPIPE_EVENT_MSG);
	hvpipe_test_expect(test, file, 1, 10);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), 0);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

static void no_extended_log(u8 *log) { put_unaligned_be32(0, log + TEST_LOG_EXT_LEN); }
static void endless_log(u8 *log) { put_unaligned_be32(~0, log + TEST_LOG_EXT_LEN); }
static void cut_log(u8 *log) { put_unaligned_be32(TEST_LOG_END - 9, log + TEST_LOG_EXT_LEN); }
static void wrong_type(u8 *log) { log[TEST_LOG_TYPE] = RTAS_TYPE_HOTPLUG; }
static void wrong_format(u8 *log) { log[TEST_LOG_FORMAT] = 0x8d; }
static void wrong_company(u8 *log) { log[TEST_LOG_COMPANY] = 'J'; }
static void no_section(u8 *log) { log[TEST_LOG_PE] = 'X'; }
static void section_of_nothing(u8 *log) { put_unaligned_be16(0, log + TEST_LOG_SECTIONS + 2); }
static void section_beyond(u8 *log) { put_unaligned_be16(999, log + TEST_LOG_SECTIONS + 2); }
static void short_section(u8 *log) { put_unaligned_be16(8 + 4, log + TEST_LOG_PE + 2); }
static void type_none(u8 *log) { log[TEST_LOG_PE + 12] &= ~HVPIPE_EVENT_MSG; }
static void type_unknown(u8 *log) { log[TEST_LOG_PE + 12] = 0x80; }
static void type_unknown_too(u8 *log) { log[TEST_LOG_PE + 12] |= 0xfc; }
static void source_unknown(u8 *log) { log[TEST_LOG_PE + 9] = 0x33; }

/* A malformed event loses no message. */
static void event_malformed(struct kunit *test)
{
	static void (*const mangle[])(u8 *log) = {
		no_extended_log, cut_log, wrong_type, wrong_format, wrong_company,
		no_section, section_of_nothing, section_beyond, short_section,
		type_none, type_unknown, type_unknown_too, source_unknown,
	};
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);

	for (int i = 0; i < ARRAY_SIZE(mangle); i++) {
		fake->first = 0;
		fake->end = 0;
		fake->mangle = mangle[i];
		hvpipe_test_queue(fake, HMC1, i, 10);
		hvpipe_test_queue(fake, HMC2, i, 20);
		KUNIT_EXPECT_GT_MSG(test, fake->queued, 0, "case %d", i);
		hvpipe_test_work(fake);
		hvpipe_test_expect(test, one, i, 10);
		hvpipe_test_expect(test, two, i, 20);
		hvpipe_take_over(one->private_data);
		hvpipe_test_expect_nothing(test, one);
		hvpipe_test_expect_nothing(test, two);
		fake->queued = 0;
	}

	/* Sections are looked for in the buffer only, however long the log. */
	fake->first = 0;
	fake->end = 0;
	fake->mangle = endless_log;
	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_expect(test, one, 1, 10);
	__fput_sync(one);
	__fput_sync(two);
}

/* An event that firmware does not yield is fetched by the work. */
static void event_busy(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	hvpipe_test_status(fake, -2, 3);
	hvpipe_test_queue(fake, HMC1, 1, 10);
	KUNIT_EXPECT_EQ(test, hvpipe_test_poll(file), POLLOUT);
	hvpipe_test_work(fake);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->queued, 3);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->queued, 3);
	hvpipe_test_expect(test, file, 1, 10);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A suspended pipe refuses calls and keeps the messages that it holds. */
static void suspended_refuses(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(one, buf, 48), -EMSGSIZE);
	hvpipe_test_queue(fake, HMC2, 2, 20);
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);

	KUNIT_EXPECT_FALSE(test, fake->enabled);
	KUNIT_EXPECT_EQ(test, PTR_ERR(hvpipe_create(&fake->pipe, 0x02000003)), -ENXIO);
	KUNIT_EXPECT_EQ(test, hvpipe_test_write(two, buf, 49), -ENXIO);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(two, buf, SZ_4K), -ENXIO);
	KUNIT_EXPECT_EQ(test, hvpipe_test_poll(one), POLLIN | POLLRDHUP);
	hvpipe_test_expect(test, one, 1, 10);
	KUNIT_EXPECT_EQ(test, hvpipe_test_poll(one), POLLRDHUP);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(one, buf, SZ_4K), -ENXIO);

	hvpipe_test_resume(fake);
	KUNIT_EXPECT_TRUE(test, fake->enabled);
	hvpipe_test_expect(test, two, 2, 20);
	hvpipe_test_expect_works(test, one, HMC1);
	hvpipe_test_expect_works(test, two, HMC2);
	__fput_sync(one);
	__fput_sync(two);
}

/* A hibernation suspends the pipe as a migration does. */
static void hibernation(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	hvpipe_pm_notify(&fake->pipe.pm_notifier, PM_SUSPEND_PREPARE, NULL);
	KUNIT_EXPECT_FALSE(test, fake->enabled);
	KUNIT_EXPECT_EQ(test, hvpipe_test_poll(file), POLLRDHUP);
	hvpipe_pm_notify(&fake->pipe.pm_notifier, PM_POST_SUSPEND, NULL);
	KUNIT_EXPECT_TRUE(test, fake->enabled);
	hvpipe_test_work(fake);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* While the pipe is suspended, poll promises nothing that read refuses. */
static void suspended_poll(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	/* Both wait for the resume: what poll() promised would be refused. */
	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_event(fake, HMC1, HVPIPE_EVENT_LOST);
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	KUNIT_EXPECT_EQ(test, hvpipe_test_poll(file), POLLRDHUP);
	KUNIT_EXPECT_EQ(test, hvpipe_test_read(file, buf, SZ_4K), -ENXIO);
	hvpipe_test_resume(fake);
	hvpipe_test_expect(test, file, 1, 10);
	hvpipe_test_expect_lost(test, file);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A resume forgets the announcements from before. */
static void resume_forgets(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	fake->first = fake->end;
	fake->announced = false;
	hvpipe_test_resume(fake);
	hvpipe_test_expect_nothing(test, file);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* Enabling is tried again, with backoff, until it succeeds. */
static void enable_retried(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	u8 *buf = hvpipe_test_buf(test);

	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	hvpipe_test_status(fake, -1, 13);
	hvpipe_start(&fake->pipe);
	for (int i = 0; i < 12; i++) {
		KUNIT_EXPECT_EQ(test, hvpipe_test_write(file, buf, 49), -ENXIO);
		KUNIT_EXPECT_EQ(test, hvpipe_test_poll(file), POLLRDHUP);
		hvpipe_test_work(fake);
		KUNIT_EXPECT_EQ(test, fake->delay,
				min(HVPIPE_RETRY_MIN << i, HVPIPE_RETRY_MAX));
	}
	KUNIT_EXPECT_EQ(test, fake->queued, 13);
	hvpipe_test_work(fake);
	hvpipe_test_expect_works(test, file, HMC1);

	/* After the next move the delays begin anew. */
	hvpipe_test_status(fake, -1, 100);
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	hvpipe_start(&fake->pipe);
	for (int i = 0; i < 10; i++)
		hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->delay, HVPIPE_RETRY_MIN << 9);
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	hvpipe_start(&fake->pipe);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->delay, HVPIPE_RETRY_MIN);
	hvpipe_test_status(fake, 0, 0);
	hvpipe_test_work(fake);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A status that will not pass is not asked for again before the next resume. */
static void enable_refused(struct kunit *test)
{
	static const s32 refusals[] = { -3, -5, -9002, -9999 };
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	for (int i = 0; i < ARRAY_SIZE(refusals); i++) {
		hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
		hvpipe_test_status(fake, refusals[i], 1);
		fake->queued = 0;
		hvpipe_start(&fake->pipe);
		KUNIT_EXPECT_EQ(test, fake->queued, 0);
		hvpipe_test_work(fake);
		KUNIT_EXPECT_EQ(test, fake->queued, 0);
		KUNIT_EXPECT_FALSE(test, fake->enabled);
		KUNIT_EXPECT_EQ(test, hvpipe_test_poll(file), POLLRDHUP);
	}
	hvpipe_start(&fake->pipe);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* Firmware that stays busy holds up no change of state. */
static void state_busy(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);

	fake->pipe.busy_timeout = 1;
	hvpipe_test_status(fake, 9901, 1000);
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	KUNIT_EXPECT_EQ(test, fake->pipe.state, HVPIPE_SUSPENDED);
	hvpipe_start(&fake->pipe);
	KUNIT_EXPECT_EQ(test, fake->pipe.state, HVPIPE_SUSPENDED);
	KUNIT_EXPECT_EQ(test, fake->queued, 1);
	hvpipe_test_status(fake, 0, 0);
	hvpipe_test_work(fake);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* An announced message that nobody reads is due until it was received. */
static void drain_retried(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file;

	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_status(fake, -1, 1);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->delay, HVPIPE_RETRY_MIN);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&fake->pipe.dropped), 1);

	/* At boot enabling fails; the message was announced to a kernel before. */
	hvpipe_disable(&fake->pipe, HVPIPE_DISABLED);
	fake->announced = true;
	hvpipe_test_queue(fake, HMC1, 2, 20);
	hvpipe_test_status(fake, -1, 3);
	hvpipe_start(&fake->pipe);
	hvpipe_test_work(fake);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->first, 1);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->pipe.state, HVPIPE_ENABLED);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&fake->pipe.dropped), 2);
	file = hvpipe_test_open(test, HMC1);
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A suspend ends the attempts to enable the pipe. */
static void suspend_stops_enable(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;

	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	hvpipe_test_status(fake, -1, 1);
	hvpipe_test_resume(fake);
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_FALSE(test, fake->enabled);
	KUNIT_EXPECT_EQ(test, fake->pipe.state, HVPIPE_SUSPENDED);
}

/* The time that a message waits for its reader is over. */
static void hvpipe_test_expire(struct hvpipe_test *fake)
{
	timer_delete(&fake->pipe.hold_timer);
	hvpipe_hold_expired(&fake->pipe.hold_timer);
	hvpipe_test_work(fake);
}

/* A sleeping reader blocks the pipe only for hold_after_ms. */
static void hold_after(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);

	/* By default there is none: what is pending stays so. */
	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_queue(fake, HMC2, 2, 20);
	KUNIT_EXPECT_FALSE(test, timer_pending(&fake->pipe.hold_timer));
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->first, 0);
	hvpipe_test_expect_nothing(test, two);
	hvpipe_test_expect(test, one, 1, 10);
	hvpipe_test_expect(test, two, 2, 20);

	fake->pipe.hold_after_ms = 1000000;
	hvpipe_test_queue(fake, HMC1, 3, 10);
	KUNIT_EXPECT_TRUE(test, timer_pending(&fake->pipe.hold_timer));
	hvpipe_test_queue(fake, HMC2, 4, 20);
	hvpipe_test_queue(fake, HMC1, 5, 30);
	hvpipe_test_expect_nothing(test, two);
	hvpipe_test_expire(fake);
	hvpipe_test_expect(test, two, 4, 20);

	/* The next ones of a reader that is behind do not wait. */
	KUNIT_EXPECT_TRUE(test, test_bit(HVPIPE_DUE_TAKE, &fake->pipe.due));
	hvpipe_test_work(fake);
	hvpipe_test_queue(fake, HMC1, 6, 10);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->first, fake->end);

	/* A message of its own that is announced follows the one that is held. */
	hvpipe_test_expect(test, one, 3, 10);
	hvpipe_test_queue(fake, HMC1, 7, 20);
	hvpipe_test_expect(test, one, 5, 30);
	hvpipe_test_expect(test, one, 6, 10);
	hvpipe_test_expect(test, one, 7, 20);
	hvpipe_test_expire(fake);
	hvpipe_test_expect_nothing(test, one);
	hvpipe_test_expect_works(test, one, HMC1);
	hvpipe_test_expect_works(test, two, HMC2);
	__fput_sync(one);
	__fput_sync(two);
}

/* A message behind one that is held is held at once. */
static void hold_behind(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);

	fake->pipe.hold_after_ms = 1000000;
	for (int i = 0; i < 3; i++)
		hvpipe_test_queue(fake, HMC1, i, 10);
	hvpipe_test_queue(fake, HMC2, 4, 20);
	hvpipe_test_expire(fake);
	for (int i = 0; i < 2; i++) {
		KUNIT_EXPECT_TRUE(test, test_bit(HVPIPE_DUE_TAKE, &fake->pipe.due));
		hvpipe_test_work(fake);
	}
	KUNIT_EXPECT_FALSE(test, test_bit(HVPIPE_DUE_TAKE, &fake->pipe.due));
	hvpipe_test_expect(test, two, 4, 20);
	for (int i = 0; i < 3; i++)
		hvpipe_test_expect(test, one, i, 10);
	hvpipe_test_expect_works(test, one, HMC1);
	__fput_sync(one);
	__fput_sync(two);
}

/* What a handle holds for a sleeping reader is bounded. */
static void hold_max(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *file = hvpipe_test_open(test, HMC1);
	struct hvpipe_handle *handle = file->private_data;

	fake->pipe.hold_after_ms = 1000000;
	for (int i = 0; i <= HVPIPE_HOLD_MAX; i++) {
		fake->first = 0;
		fake->end = 0;
		hvpipe_test_queue(fake, HMC1, i, 10);
		hvpipe_test_expire(fake);
	}
	KUNIT_EXPECT_EQ(test, handle->nr_held, HVPIPE_HOLD_MAX);
	KUNIT_EXPECT_EQ(test, fake->first, 0);

	/* As soon as there is room again, it is taken. */
	hvpipe_test_expect(test, file, 0, 10);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->first, 1);
	for (int i = 1; i <= HVPIPE_HOLD_MAX; i++)
		hvpipe_test_expect(test, file, i, 10);
	fake->first = 0;
	fake->end = 0;
	hvpipe_test_expect_works(test, file, HMC1);
	__fput_sync(file);
}

/* A message that cannot be held at once is held later. */
static void hold_retried(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;
	struct file *one = hvpipe_test_open(test, HMC1);
	struct file *two = hvpipe_test_open(test, HMC2);

	/* Firmware fails, then names another source than it announced. */
	fake->pipe.hold_after_ms = 1000000;
	hvpipe_test_queue(fake, HMC1, 1, 10);
	hvpipe_test_status(fake, -1, 1);
	hvpipe_test_expire(fake);
	KUNIT_EXPECT_EQ(test, fake->delay, HVPIPE_RETRY_MIN);
	fake->label = HMC2;
	hvpipe_test_work(fake);
	hvpipe_test_expect(test, two, 1, 10);
	KUNIT_EXPECT_EQ(test, fake->delay, 2 * HVPIPE_RETRY_MIN);
	hvpipe_test_queue(fake, HMC1, 2, 20);
	hvpipe_test_work(fake);
	KUNIT_EXPECT_EQ(test, fake->first, 2);
	hvpipe_test_expect(test, one, 2, 20);

	/* While the pipe is suspended, nothing is taken. */
	hvpipe_test_queue(fake, HMC1, 3, 30);
	hvpipe_disable(&fake->pipe, HVPIPE_SUSPENDED);
	hvpipe_test_expire(fake);
	KUNIT_EXPECT_EQ(test, fake->first, 2);
	hvpipe_start(&fake->pipe);
	hvpipe_test_expire(fake);
	KUNIT_EXPECT_EQ(test, fake->first, 3);
	hvpipe_test_expect(test, one, 3, 30);
	hvpipe_test_expect_works(test, one, HMC1);
	hvpipe_test_expect_works(test, two, HMC2);
	__fput_sync(one);
	__fput_sync(two);
}

/*
 * The contract is silent on some points, so each test runs under several readings
 * of it.
 */
static const struct hvpipe_test_personality {
	s32 empty;
	bool announces_once;
	const char *name;
} personalities[] = {
	{ 0, false, "empty=0, announces again" },
	{ -1, false, "empty=-1, announces again" },
	{ -1, true, "empty=-1, announces once" },
	{ -3, true, "empty=-3, announces once" },
};

KUNIT_ARRAY_PARAM_DESC(personality, personalities, name);

static unsigned int nr_redirected;

static void count_redirected(struct hvpipe *pipe, struct delayed_work *work, unsigned long delay)
{
	nr_redirected++;
}

/* The real pipe's timer may run on top of the test: it calls the real functions. */
static void real_pipe_not_stubbed(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;

	if (!hvpipe.area)
		kunit_skip(test, "no hypervisor pipe");
	nr_redirected = 0;
	kunit_activate_static_stub(test, hvpipe_queue_work, count_redirected);
	hvpipe_queue_work(&hvpipe, &hvpipe.work, 0);
	KUNIT_EXPECT_EQ(test, nr_redirected, 0);
	hvpipe_queue_work(&fake->pipe, &fake->pipe.work, 0);
	KUNIT_EXPECT_EQ(test, nr_redirected, 1);
}

static struct kunit_case hvpipe_test_cases[] = {
	KUNIT_CASE_PARAM(create_hmc_only, personality_gen_params),
	KUNIT_CASE_PARAM(create_once, personality_gen_params),
	KUNIT_CASE_PARAM(write_payload, personality_gen_params),
	KUNIT_CASE_PARAM(write_bad_sizes, personality_gen_params),
	KUNIT_CASE_PARAM(write_errors, personality_gen_params),
	KUNIT_CASE_PARAM(busy_retried, personality_gen_params),
	KUNIT_CASE_PARAM(suspend_busy, personality_gen_params),
	KUNIT_CASE_PARAM(send_interrupted, personality_gen_params),
	KUNIT_CASE_PARAM(close_busy_read, personality_gen_params),
	KUNIT_CASE_PARAM(killed_send_first, personality_gen_params),
	KUNIT_CASE_PARAM(killed_send_in_work, personality_gen_params),
	KUNIT_CASE_PARAM(killed_send_given_up, personality_gen_params),
	KUNIT_CASE_PARAM(killed_read, personality_gen_params),
	KUNIT_CASE_PARAM(read_one_each, personality_gen_params),
	KUNIT_CASE_PARAM(read_whole_buffer, personality_gen_params),
	KUNIT_CASE_PARAM(read_tiny, personality_gen_params),
	KUNIT_CASE_PARAM(read_short, personality_gen_params),
	KUNIT_CASE_PARAM(read_fault, personality_gen_params),
	KUNIT_CASE_PARAM(routed_by_receive, personality_gen_params),
	KUNIT_CASE_PARAM(dropped_counted, personality_gen_params),
	KUNIT_CASE_PARAM(close_drains, personality_gen_params),
	KUNIT_CASE_PARAM(close_misrouted, personality_gen_params),
	KUNIT_CASE_PARAM(probe_after_enable, personality_gen_params),
	KUNIT_CASE_PARAM(probe_once, personality_gen_params),
	KUNIT_CASE_PARAM(late_announcement, personality_gen_params),
	KUNIT_CASE_PARAM(late_announcement_misroutes, personality_gen_params),
	KUNIT_CASE_PARAM(error_in_doubt, personality_gen_params),
	KUNIT_CASE_PARAM(close_drains_later, personality_gen_params),
	KUNIT_CASE_PARAM(close_in_doubt, personality_gen_params),
	KUNIT_CASE_PARAM(receive_error, personality_gen_params),
	KUNIT_CASE_PARAM(read_error_wakes, personality_gen_params),
	KUNIT_CASE_PARAM(held_max, personality_gen_params),
	KUNIT_CASE_PARAM(length_beyond_buffer, personality_gen_params),
	KUNIT_CASE_PARAM(lost_once, personality_gen_params),
	KUNIT_CASE_PARAM(lost_in_order, personality_gen_params),
	KUNIT_CASE_PARAM(event_both, personality_gen_params),
	KUNIT_CASE_PARAM(event_spurious, personality_gen_params),
	KUNIT_CASE_PARAM(event_malformed, personality_gen_params),
	KUNIT_CASE_PARAM(event_busy, personality_gen_params),
	KUNIT_CASE_PARAM(suspended_refuses, personality_gen_params),
	KUNIT_CASE_PARAM(hibernation, personality_gen_params),
	KUNIT_CASE_PARAM(suspended_poll, personality_gen_params),
	KUNIT_CASE_PARAM(resume_forgets, personality_gen_params),
	KUNIT_CASE_PARAM(enable_retried, personality_gen_params),
	KUNIT_CASE_PARAM(enable_refused, personality_gen_params),
	KUNIT_CASE_PARAM(state_busy, personality_gen_params),
	KUNIT_CASE_PARAM(drain_retried, personality_gen_params),
	KUNIT_CASE_PARAM(suspend_stops_enable, personality_gen_params),
	KUNIT_CASE_PARAM(hold_after, personality_gen_params),
	KUNIT_CASE_PARAM(hold_behind, personality_gen_params),
	KUNIT_CASE_PARAM(hold_max, personality_gen_params),
	KUNIT_CASE_PARAM(hold_retried, personality_gen_params),
	KUNIT_CASE_PARAM(real_pipe_not_stubbed, personality_gen_params),
	{ }
};

static int hvpipe_test_init(struct kunit *test)
{
	const struct hvpipe_test_personality *personality = test->param_value;
	struct hvpipe_firmware_area *area;
	struct hvpipe_test *fake;

	fake = kunit_kzalloc(test, sizeof(*fake), GFP_KERNEL);
	if (!fake)
		return -ENOMEM;
	fake->empty = personality->empty;
	fake->announces_once = personality->announces_once;
	area = kunit_kzalloc(test, sizeof(*area), GFP_KERNEL);
	if (!area)
		return -ENOMEM;
	hvpipe_setup(&fake->pipe, area);
	fake->test = test;
	test->priv = fake;

	kunit_activate_static_stub(test, rtas_ibm_send_hvpipe_msg, fake_send);
	kunit_activate_static_stub(test, rtas_ibm_receive_hvpipe_msg, fake_receive);
	kunit_activate_static_stub(test, rtas_check_exception_hvpipe, fake_check_exception);
	kunit_activate_static_stub(test, rtas_ibm_set_system_parameter_hvpipe, fake_set_parameter);
	kunit_activate_static_stub(test, hvpipe_queue_work, fake_queue_work);
	hvpipe_test_resume(fake);
	fake->queued = 0;
	return 0;
}

static void hvpipe_test_exit(struct kunit *test)
{
	struct hvpipe_test *fake = test->priv;

	if (!fake)
		return;
	KUNIT_EXPECT_EQ(test, fake->pipe.nr_handles, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&fake->pipe.nr_held), 0);
	timer_shutdown_sync(&fake->pipe.hold_timer);
	if (fake->pipe.spare)
		kmem_cache_free(hvpipe_msg_cache, fake->pipe.spare);
}

/* Without a hypervisor pipe there is no cache yet. */
static int hvpipe_test_suite_init(struct kunit_suite *suite)
{
	if (!hvpipe_msg_cache)
		hvpipe_msg_cache = KMEM_CACHE_USERCOPY(hvpipe_msg, 0, packet);
	return hvpipe_msg_cache ? 0 : -ENOMEM;
}

static struct kunit_suite hvpipe_test_suite = {
	.name = "papr-hvpipe",
	.suite_init = hvpipe_test_suite_init,
	.init = hvpipe_test_init,
	.exit = hvpipe_test_exit,
	.test_cases = hvpipe_test_cases,
};

kunit_test_suite(hvpipe_test_suite);
