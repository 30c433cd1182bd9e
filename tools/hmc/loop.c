// SPDX-License-Identifier: GPL-2.0-or-later
/* The event loop of all links, see loop.h. */
#include "loop.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define EVENTS_MAX 64

/* Turns in a row before GLib's other sources, such as a signal, get their chance. */
#define TURNS_MAX 4

struct hmc_loop {
	GSource source; /* must be first: GLib allocates this struct */
	int epoll;
	GSequence *timers; /* by due time */
	GQueue tasks;
	void (*commit)(void *user);
	void *commit_user;

	bool running;			       /* within a turn */
	struct epoll_event events[EVENTS_MAX]; /* of this turn */
	int event_count;
};

/* GLib calls the loop when the epoll set is ready, or at the ready time. */
static void set_ready_time(struct hmc_loop *loop)
{
	GSequenceIter *first = g_sequence_get_begin_iter(loop->timers);
	gint64 time = -1;

	if (loop->running)
		return;
	if (loop->tasks.length)
		time = 0;
	else if (!g_sequence_iter_is_end(first))
		time = ((struct hmc_timer *)g_sequence_get(first))->due;
	if (time != g_source_get_ready_time(&loop->source))
		g_source_set_ready_time(&loop->source, time);
}

static void run_timers(struct hmc_loop *loop)
{
	GSequenceIter *first = g_sequence_get_begin_iter(loop->timers);
	gint64 now;

	if (g_sequence_iter_is_end(first))
		return;
	now = g_get_monotonic_time();
	while (!g_sequence_iter_is_end(first)) {
		struct hmc_timer *timer = g_sequence_get(first);

		if (timer->due > now)
			break;
		hmc_timer_stop(timer);
		timer->expired(timer->user);
		first = g_sequence_get_begin_iter(loop->timers);
	}
}

static void run_tasks(struct hmc_loop *loop)
{
	unsigned int count = loop->tasks.length;

	if (count && loop->commit)
		loop->commit(loop->commit_user);
	/* A task that a task queues belongs to the next turn: it needs a commit of its own. */
	while (count-- && loop->tasks.length) {
		struct hmc_task *task = loop->tasks.head->data;

		hmc_task_cancel(task);
		task->run(task->user);
	}
}

static void run_turn(struct hmc_loop *loop)
{
	loop->event_count = epoll_wait(loop->epoll, loop->events, EVENTS_MAX, 0);
	for (int i = 0; i < loop->event_count; i++) {
		struct hmc_watch *watch = loop->events[i].data.ptr;

		/* NULL: stopped in this turn. */
		if (watch)
			watch->ready(watch->user, loop->events[i].events);
	}
	run_timers(loop);
	run_tasks(loop);
}

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer user)
{
	struct hmc_loop *loop = (struct hmc_loop *)source;
	int turns = 0;

	/* A callback ran the main context: the outer turn goes on with its events afterwards. */
	if (loop->running)
		return G_SOURCE_CONTINUE;
	loop->running = true;
	do
		run_turn(loop);
	while (loop->event_count == EVENTS_MAX && ++turns < TURNS_MAX);
	loop->event_count = 0;
	loop->running = false;
	set_ready_time(loop);
	return G_SOURCE_CONTINUE;
}

struct hmc_loop *hmc_loop_new(void)
{
	static GSourceFuncs funcs = { .dispatch = dispatch };
	struct hmc_loop *loop = (struct hmc_loop *)g_source_new(&funcs, sizeof(*loop));

	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0)
		g_error("epoll_create1: %s", g_strerror(errno));
	loop->timers = g_sequence_new(NULL);
	g_queue_init(&loop->tasks);
	g_source_set_static_name(&loop->source, "links");
	/* Else GLib takes the epoll set out of its poll() around each turn, and wakes itself for that. */
	g_source_set_can_recurse(&loop->source, TRUE);
	g_source_add_unix_fd(&loop->source, loop->epoll, G_IO_IN);
	g_source_attach(&loop->source, NULL);
	return loop;
}

void hmc_loop_free(struct hmc_loop *loop)
{
	g_assert(!loop->tasks.length && g_sequence_is_empty(loop->timers));
	g_sequence_free(loop->timers);
	close(loop->epoll);
	g_source_destroy(&loop->source);
	g_source_unref(&loop->source);
}

void hmc_loop_set_commit(struct hmc_loop *loop, void (*commit)(void *user), void *user)
{
	loop->commit = commit;
	loop->commit_user = user;
}

static void control(const struct hmc_watch *watch, int operation)
{
	struct epoll_event event = { .events = watch->events, .data.ptr = (void *)watch };

	if (epoll_ctl(watch->loop->epoll, operation, watch->fd, &event))
		g_error("epoll_ctl %d of descriptor %d: %s", operation, watch->fd, g_strerror(errno));
}

void hmc_watch_start(struct hmc_watch *watch, struct hmc_loop *loop, int fd, uint32_t events,
		     void (*ready)(void *user, uint32_t events), void *user)
{
	*watch = (struct hmc_watch){ .loop = loop, .fd = fd, .events = events, .ready = ready, .user = user };
	control(watch, EPOLL_CTL_ADD);
}

void hmc_watch_set(struct hmc_watch *watch, uint32_t events)
{
	if (watch->events == events)
		return;
	watch->events = events;
	control(watch, EPOLL_CTL_MOD);
}

void hmc_watch_stop(struct hmc_watch *watch)
{
	struct hmc_loop *loop = watch->loop;

	if (!loop)
		return;
	control(watch, EPOLL_CTL_DEL);
	watch->loop = NULL;
	for (int i = 0; i < loop->event_count; i++)
		if (loop->events[i].data.ptr == watch)
			loop->events[i].data.ptr = NULL;
}

static gint compare_timers(gconstpointer a, gconstpointer b, gpointer user)
{
	const struct hmc_timer *one = a, *other = b;

	return (one->due > other->due) - (one->due < other->due);
}

void hmc_timer_start(struct hmc_timer *timer, struct hmc_loop *loop, unsigned int ms, void (*expired)(void *user),
		     void *user)
{
	hmc_timer_stop(timer);
	*timer = (struct hmc_timer){
		.loop = loop,
		.due = g_get_monotonic_time() + ms * (gint64)1000,
		.expired = expired,
		.user = user,
	};
	timer->place = g_sequence_insert_sorted(loop->timers, timer, compare_timers, NULL);
	set_ready_time(loop);
}

void hmc_timer_stop(struct hmc_timer *timer)
{
	if (!timer->place)
		return;
	g_sequence_remove(timer->place);
	timer->place = NULL;
	set_ready_time(timer->loop);
}

void hmc_task_queue(struct hmc_task *task, struct hmc_loop *loop, void (*run)(void *user), void *user)
{
	if (task->queued)
		return;
	*task = (struct hmc_task){ .loop = loop, .queued = true, .run = run, .user = user };
	task->place.data = task;
	g_queue_push_tail_link(&loop->tasks, &task->place);
	set_ready_time(loop);
}

void hmc_task_cancel(struct hmc_task *task)
{
	if (!task->queued)
		return;
	g_queue_unlink(&task->loop->tasks, &task->place);
	task->queued = false;
	set_ready_time(task->loop);
}
