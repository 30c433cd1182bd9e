// SPDX-License-Identifier: GPL-2.0-or-later
/* The pipe to the source that the options name: open, wait, send, receive. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Between two sends of a message in doubt. hvpipe-hmc looks for the partition after 250 ms, then up to every 5 s. */
#define RETRY_MS 100

/* The driver that Linux ships wakes nobody when a suspend ends: look this often. */
#define LOOK_MS 100

/* Backoff after a receive that failed, doubled each time. */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000

/* How long a send may take after a signal. */
#define STOP_GRACE_MS 500

/* So many messages are discarded before a send with a reply: a source that never stops must not prevent the send. */
#define DISCARD_MAX 1000

/*
 * A reader of standard output that ends after the first lines, as head(1) does, needs a moment for that. So after each
 * of the first messages it gets some time to read the message, and then some time to end, before the next one is
 * received.
 */
#define READER_MESSAGES 10
#define READER_READ_MS	200
#define READER_END_MS	30

static int stop_fd = -1;
static bool reader_watched;

/* The handle goes through hvpiped: its descriptor says nothing of the state of the pipe. */
static bool through_daemon;

/* It observes there, so another program may receive. */
static bool observing;

/* A send that a signal ended: the thread that makes it is still there. */
static bool send_abandoned;

/* What ends a wait for a message, too. */
static const struct pollfd *others;
static nfds_t nr_others;

/* Was anything heard of the source: a message, that it took one, or that the connection was lost? */
static bool source_seen;

void endpoint_catch_stop(void)
{
	stop_fd = catch_stop();
}

void endpoint_watch_reader(void)
{
	signal(SIGPIPE, SIG_IGN);
	reader_watched = true;
}

enum wait_result { WAIT_READY, WAIT_TIMEOUT, WAIT_STOP, WAIT_NO_READER, WAIT_OTHERS };

/* Wait for events of @fd until the deadline (negative: for ever), a signal, the end of the reader, or others. */
static enum wait_result wait_fd(int fd, short events, int64_t deadline)
{
	struct pollfd pfds[3 + 2 * JOBS_MAX] = {
		{ .fd = fd, .events = events },
		{ .fd = nr_others && stop_signal() ? -1 : stop_fd, .events = POLLIN },
		{ .fd = reader_watched ? STDOUT_FILENO : -1 },
	};

	if (nr_others)
		memcpy(&pfds[3], others, nr_others * sizeof(*others));
	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - now_ms();
		int n;

		if (deadline >= 0 && left < 0)
			left = 0;
		n = poll(pfds, 3 + nr_others, left > INT_MAX ? INT_MAX : (int)left);
		if (n < 0 && errno != EINTR)
			die(EXIT_FAILURE, "poll: %s", strerror(errno));
		if (n > 0 && pfds[1].revents)
			return nr_others ? WAIT_OTHERS : WAIT_STOP;
		if (n > 0 && pfds[2].revents)
			return WAIT_NO_READER;
		if (n > 0)
			return pfds[0].revents ? WAIT_READY : WAIT_OTHERS;
		if (n == 0 && deadline >= 0 && now_ms() >= deadline)
			return WAIT_TIMEOUT;
	}
}

static enum wait_result wait_ms(int ms)
{
	return wait_fd(-1, 0, now_ms() + ms);
}

/* Has the reader taken all that we wrote? Only a pipe can say no. */
static bool is_read(void)
{
	int unread;

	return ioctl(STDOUT_FILENO, FIONREAD, &unread) || !unread;
}

/* Give the reader time to take the last message, and to end. */
static enum wait_result wait_for_reader(void)
{
	static unsigned int messages;
	enum wait_result result = WAIT_TIMEOUT;
	struct stat st;

	if (!reader_watched || !messages++ || messages > READER_MESSAGES || fstat(STDOUT_FILENO, &st) ||
	    !S_ISFIFO(st.st_mode))
		return WAIT_READY;
	for (int64_t deadline = now_ms() + READER_READ_MS; !is_read() && now_ms() < deadline && result == WAIT_TIMEOUT;)
		result = wait_ms(1);
	if (result == WAIT_TIMEOUT)
		result = wait_ms(READER_END_MS);
	return result == WAIT_TIMEOUT ? WAIT_READY : result;
}

/* Wait for the end of a suspend. @events end the wait too. */
static enum wait_result wait_enabled(struct hvpipe *pipe, short events, int64_t deadline)
{
	for (;;) {
		int64_t look = now_ms() + LOOK_MS;
		bool last = deadline >= 0 && deadline <= look;
		enum wait_result result =
			wait_fd(through_daemon ? -1 : hvpipe_get_fd(pipe), events | POLLOUT, last ? deadline : look);

		if (result != WAIT_TIMEOUT || !hvpipe_wait_enabled(pipe, 0))
			return result == WAIT_TIMEOUT ? WAIT_READY : result;
		if (last)
			return WAIT_TIMEOUT;
	}
}

const char *no_device_text(int err)
{
	static char text[200];
	struct stat st;

	switch (err) {
	case ENOENT:
	case ENODEV:
		return "no /dev/papr-hvpipe: the kernel has no papr-hvpipe driver, or the hypervisor no pipe for this "
		       "partition; `hvpipe doctor` tells which";
	case ENXIO:
		return "the pipe is suspended or disabled: try again when the partition's move is over";
	case EOPNOTSUPP:
		return "the hypervisor has no pipe for this partition now";
	case EACCES:
	case EPERM:
		if (stat("/dev/papr-hvpipe", &st))
			return "/dev/papr-hvpipe: permission denied";
		snprintf(text, sizeof(text),
			 "/dev/papr-hvpipe: permission denied: you need to read and write it, and its owner is "
			 "user %u, group %u, its mode %04o",
			 st.st_uid, st.st_gid, st.st_mode & 07777);
		return text;
	default:
		snprintf(text, sizeof(text), "/dev/papr-hvpipe: %s", strerror(err));
		return text;
	}
}

void die_no_device(int err)
{
	int status = err == ENOENT || err == ENODEV || err == EOPNOTSUPP ? EXIT_NO_PIPE :
		     err == ENXIO					 ? EXIT_SUSPENDED :
									   EXIT_FAILURE;

	die(status, "%s", no_device_text(err));
}

static int print_holder(const struct hvpipe_holder *holder, void *data)
{
	bool *found = data;

	/* 0: this driver does not tell the source. */
	if (holder->source == options.source || !holder->source) {
		report("process %d (%s) holds %s", (int)holder->pid, holder->command,
		       holder->source ? "it" : "a source");
		*found = true;
	}
	return 0;
}

/* NULL where hvpiped does not answer or does not serve the source. */
static struct hvpipe *connect_daemon(int rights)
{
	struct hvpipe *pipe = hvpipe_connect(options.source, rights);

	if (pipe) {
		through_daemon = true;
		observing = rights & HVPIPE_OBSERVE;
		return pipe;
	}
	switch (errno) {
	case ECONNREFUSED:
	case ENODEV:
		return NULL;
	case EALREADY:
		die(EXIT_IN_USE, "%s: another program receives its messages from hvpiped: `hvpipe status` shows it",
		    options.source_name);
	case EACCES:
		die(EXIT_FAILURE, "%s: hvpiped does not allow you to %s: hvpiped.conf says who may, by default %s",
		    options.source_name,
		    rights == HVPIPE_OBSERVE ? "observe" :
		    rights == HVPIPE_SEND    ? "send" :
		    rights == HVPIPE_RECEIVE ? "receive" :
		    rights & HVPIPE_OBSERVE  ? "send and observe" :
					       "send and receive",
		    rights & HVPIPE_RECEIVE ? "only root" : "the group 'hvpipe'");
	case EUSERS:
		die(EXIT_FAILURE, "hvpiped has as many clients as it serves, or as many of yours: try again later");
	default:
		die(EXIT_FAILURE, "hvpiped: %s", strerror(errno));
	}
}

struct hvpipe *endpoint_open(int rights)
{
	struct hvpipe *pipe = options.direct ? NULL : connect_daemon(rights);
	bool found = false;

	if (!pipe && rights == HVPIPE_OBSERVE)
		die(EXIT_FAILURE,
		    "%s: hvpiped does not answer, or does not serve it, and only there can it be observed",
		    options.source_name);
	if (!pipe)
		pipe = hvpipe_open(options.source);

	if (pipe)
		return pipe;

	switch (errno) {
	case EALREADY:
		report("%s: in use: only one process can hold a source", options.source_name);
		hvpipe_each_holder(print_holder, &found);
		if (!found)
			report("you may not see the process that holds it; as root `hvpipe status` shows it");
		exit(EXIT_IN_USE);
	case EINVAL:
		die(EXIT_FAILURE,
		    "%s: no source ID that this kernel knows; 0x02000001 is hmc1, and only the last four digits may "
		    "differ",
		    options.source_name);
	default:
		die_no_device(errno);
	}
}

static int see_loss(const struct hvpipe_holder *holder, void *data)
{
	bool *lost = data;

	if (holder->pid == getpid() && holder->source == options.source)
		*lost = !strcmp(holder->state, "lost");
	return 0;
}

/*
 * Nobody takes messages at the source. True if it was there before: after a move of the partition its HMC takes a
 * moment to follow. The loss may still wait behind messages of other sources, so the driver's state counts too.
 */
static bool source_may_reconnect(void)
{
	bool lost = false;

	if (!source_seen)
		hvpipe_each_holder(see_loss, &lost);
	return source_seen || lost;
}

/* The send that the sending thread makes, or is to make. */
static struct {
	struct hvpipe *pipe;
	const void *message;
	size_t len;
	int begin; /* eventfd */
	int done;  /* eventfd */
	ssize_t result;
	int error;
} sending;

static void *send_in_thread(void *data)
{
	eventfd_t count;

	while (!eventfd_read(sending.begin, &count)) {
		sending.result = hvpipe_send(sending.pipe, sending.message, sending.len);
		sending.error = errno;
		eventfd_write(sending.done, 1);
	}
	return NULL;
}

/* Signals are for the thread that waits. */
static void start_sending_thread(void)
{
	sigset_t all, before;
	pthread_t thread;
	int err;

	sending.begin = eventfd(0, EFD_CLOEXEC);
	sending.done = eventfd(0, EFD_CLOEXEC);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = sending.begin < 0 || sending.done < 0 ? errno : pthread_create(&thread, NULL, send_in_thread, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err)
		die(EXIT_FAILURE, "%s: not sent: thread: %s", options.source_name, strerror(err));
}

/* True when it is done; false when a signal came, and a little time since. */
static bool wait_sent(void)
{
	struct pollfd pfds[] = { { .fd = sending.done, .events = POLLIN }, { .fd = stop_fd, .events = POLLIN } };
	eventfd_t count;

	while (!pfds[0].revents && !pfds[1].revents)
		if (poll(pfds, 2, -1) < 0 && errno != EINTR)
			die(EXIT_FAILURE, "poll: %s", strerror(errno));
	for (int64_t end = now_ms() + STOP_GRACE_MS; !pfds[0].revents && now_ms() < end;)
		poll(pfds, 1, STOP_GRACE_MS);
	return pfds[0].revents && !eventfd_read(sending.done, &count);
}

/*
 * hvpipe_send(), but a signal that endpoint_catch_stop() catches ends it within a second, with EINTR. The driver's
 * write() ends only with the source's answer, or with the process. So a thread makes it, which stays for the next one.
 */
static ssize_t send_or_stop(struct hvpipe *pipe, const void *message, size_t len)
{
	static bool started;

	if (stop_fd < 0)
		return hvpipe_send(pipe, message, len);
	if (!started)
		start_sending_thread();
	started = true;
	if (!send_abandoned) {
		sending.pipe = pipe;
		sending.message = message;
		sending.len = len;
		eventfd_write(sending.begin, 1);
		send_abandoned = !wait_sent();
	}
	errno = send_abandoned ? EINTR : sending.error;
	return send_abandoned ? -1 : sending.result;
}

int endpoint_send(struct hvpipe *pipe, const void *message, size_t len)
{
	int64_t deadline = -1;

	while (send_or_stop(pipe, message, len) < 0) {
		if (send_abandoned) {
			report("%s: ended by a signal; the message of %zu bytes is in doubt, the source may have it",
			       options.source_name, len);
			return EXIT_SIGNAL + stop_signal();
		}
		switch (errno) {
		case ENXIO:
			if (!options.retry_ms) {
				report("%s: the pipe is suspended: the message of %zu bytes is in doubt, the source "
				       "may have it",
				       options.source_name, len);
				return EXIT_SUSPENDED;
			}
			report("%s: the pipe is suspended, waiting; the message may arrive twice", options.source_name);
			if (wait_enabled(pipe, 0, -1) == WAIT_STOP)
				return EXIT_SIGNAL + stop_signal();
			deadline = -1;
			continue;
		case EPIPE:
			if (deadline < 0 && options.retry_ms && source_may_reconnect()) {
				report("%s: connection lost, trying again for %g seconds; the message may arrive twice",
				       options.source_name, options.retry_ms / 1000.0);
				deadline = now_ms() + options.retry_ms;
			}
			if (now_ms() < deadline) {
				if (wait_ms(RETRY_MS) == WAIT_STOP)
					return EXIT_SIGNAL + stop_signal();
				continue;
			}
			report("%s: nobody takes messages there; the message of %zu bytes was not delivered, unless "
			       "the connection was lost right behind it",
			       options.source_name, len);
			return EXIT_CLOSED;
		case EINVAL:
			report("%s: the hypervisor knows no such source", options.source_name);
			return EXIT_FAILURE;
		case EMSGSIZE:
			report("%s: this kernel sends no message of %zu bytes; every kernel sends %d",
			       options.source_name, len, HVPIPE_PORTABLE_PAYLOAD);
			return EXIT_FAILURE;
		case EOPNOTSUPP:
			die_no_device(errno);
		case EBUSY:
		case EDQUOT:
			report("%s: not sent: hvpiped has too much to send: %s", options.source_name, strerror(errno));
			return EXIT_FAILURE;
		case ENOTCONN:
			report("%s: hvpiped ended; the message of %zu bytes is in doubt, the source may have it",
			       options.source_name, len);
			return EXIT_FAILURE;
		default:
			report("%s: send of %zu bytes: %s; the message is in doubt, the source may have it",
			       options.source_name, len, strerror(errno));
			return EXIT_FAILURE;
		}
	}
	source_seen = true;
	return EXIT_SUCCESS;
}

/* No message will come: end the program. */
static void __attribute__((noreturn)) end(enum wait_result why)
{
	bool unfinished = options.count || options.reply;

	switch (why) {
	case WAIT_TIMEOUT:
		die(EXIT_NO_MESSAGE, "%s: no message for %g seconds", options.source_name, options.timeout_ms / 1000.0);
	case WAIT_NO_READER:
		if (unfinished)
			die(EXIT_FAILURE, "standard output: nobody reads it any more");
		exit(EXIT_SUCCESS);
	default:
		/* Without a count, a signal is the way to end. */
		exit(unfinished ? EXIT_SIGNAL + stop_signal() : EXIT_SUCCESS);
	}
}

bool endpoint_observes(void)
{
	return observing;
}

/* What comes from the source, as hvpipe_recv() without waiting. */
static ssize_t take_message(struct hvpipe *pipe, void *message)
{
	struct hvpipe_observed observed;
	ssize_t len;

	if (!observing)
		return hvpipe_recv(pipe, message, HVPIPE_MAX_RECEIVE, 0);
	do
		len = hvpipe_observe(pipe, &observed, message, HVPIPE_MAX_RECEIVE, 0);
	while (len >= 0 && observed.direction != HVPIPE_RECEIVE);
	if (len == 0) {
		errno = observed.error;
		return -1;
	}
	return len;
}

ssize_t endpoint_receive_until(struct hvpipe *pipe, void *message, int64_t deadline)
{
	enum wait_result result = wait_for_reader();
	int backoff_ms = BACKOFF_MIN_MS;

	if (result == WAIT_READY)
		result = wait_fd(hvpipe_get_fd(pipe), POLLIN | POLLRDHUP, deadline);
	for (;;) {
		ssize_t len;

		if (result == WAIT_TIMEOUT || result == WAIT_OTHERS)
			return 0;
		if (result != WAIT_READY)
			end(result);
		len = take_message(pipe, message);
		if (len > 0) {
			source_seen = true;
			return len;
		}
		switch (errno) {
		case ETIMEDOUT:
			result = wait_fd(hvpipe_get_fd(pipe), POLLIN | POLLRDHUP, deadline);
			break;
		case ECONNRESET:
			report("%s: connection lost, waiting for it to come back", options.source_name);
			source_seen = true;
			result = wait_fd(hvpipe_get_fd(pipe), POLLIN | POLLRDHUP, deadline);
			break;
		case ENXIO:
			report("%s: the pipe is suspended, waiting", options.source_name);
			result = wait_enabled(pipe, POLLIN, deadline);
			break;
		case EOPNOTSUPP:
			die_no_device(errno);
		case EPROTO:
		case ENOTCONN:
			if (through_daemon)
				die(EXIT_FAILURE, "%s: hvpiped ended; it keeps what comes when it runs again",
				    options.source_name);
			die(EXIT_FAILURE, "%s: receive: %s: the driver does not keep to its interface",
			    options.source_name, strerror(errno));
		default:
			/* Another try may succeed, and while the handle stays open, the kernel keeps its messages. */
			report("%s: receive: %s; trying again", options.source_name, strerror(errno));
			if (deadline >= 0 && deadline < now_ms() + backoff_ms)
				result = wait_fd(-1, 0, deadline);
			else
				result = wait_ms(backoff_ms);
			if (result == WAIT_TIMEOUT && (deadline < 0 || now_ms() < deadline))
				result = WAIT_READY;
			backoff_ms = backoff_ms < BACKOFF_MAX_MS / 2 ? 2 * backoff_ms : BACKOFF_MAX_MS;
		}
	}
}

ssize_t endpoint_receive_or(struct hvpipe *pipe, void *message, int64_t deadline, const struct pollfd *fds,
			    nfds_t count)
{
	ssize_t len = 0;

	others = fds;
	nr_others = count;
	if (pipe)
		len = endpoint_receive_until(pipe, message, deadline);
	else
		wait_fd(-1, 0, deadline);
	nr_others = 0;
	return len;
}

int endpoint_close(struct hvpipe *pipe, int status)
{
	if (send_abandoned)
		return EXIT_SIGNAL + stop_signal();
	hvpipe_close(pipe);
	return status;
}

ssize_t endpoint_receive(struct hvpipe *pipe, void *message)
{
	int64_t deadline = options.timeout_ms < 0 ? -1 : now_ms() + options.timeout_ms;
	ssize_t len = endpoint_receive_until(pipe, message, deadline);

	if (!len)
		end(WAIT_TIMEOUT);
	return len;
}

void endpoint_discard(struct hvpipe *pipe)
{
	char message[HVPIPE_MAX_RECEIVE];

	for (int i = 0; i < DISCARD_MAX; i++) {
		ssize_t len = hvpipe_recv(pipe, message, sizeof(message), 0);

		if (len < 0 && errno == ECONNRESET) {
			source_seen = true;
			continue;
		}
		if (len <= 0)
			return;
		source_seen = true;
		report("%s: message of %zd bytes dropped: it came before the reply was asked for", options.source_name,
		       len);
	}
}
