/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop: one epoll set for the sockets of all links, their timers, and the work at the end of a turn. So the
 * cost of a message does not grow with the number of links. All of it is one source of GLib's default main context;
 * what there is once in a process, such as standard input, is a source of GLib's own, see the end of this file.
 *
 * A turn handles what is ready, then commits what has changed, and then runs the tasks. A task may send what rests on
 * the changes: it runs only after they are committed.
 */
#ifndef HMC_LOOP_H
#define HMC_LOOP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct hmc_loop;

struct hmc_loop *hmc_loop_new(void);
/* No watch, timer or task may be left. */
void hmc_loop_free(struct hmc_loop *loop);

/* Called at the end of each turn that has tasks, before these. */
void hmc_loop_set_commit(struct hmc_loop *loop, void (*commit)(void *user), void *user);

/*
 * A descriptor in the epoll set. The caller provides the memory, zeroed at first, and may stop or free any watch in any
 * callback. EPOLLERR and EPOLLHUP are reported whatever the events are.
 */
struct hmc_watch {
	struct hmc_loop *loop; /* NULL: stopped */
	int fd;
	uint32_t events;
	void (*ready)(void *user, uint32_t events);
	void *user;
};

void hmc_watch_start(struct hmc_watch *watch, struct hmc_loop *loop, int fd, uint32_t events,
		     void (*ready)(void *user, uint32_t events), void *user);
void hmc_watch_set(struct hmc_watch *watch, uint32_t events);
/* Before the descriptor is closed. Does nothing if it is stopped. */
void hmc_watch_stop(struct hmc_watch *watch);

/* A timer that expires once. Zeroed at first; to start a running one again changes its time. */
struct hmc_timer {
	struct hmc_loop *loop;
	GSequenceIter *place; /* NULL: stopped */
	gint64 due;
	void (*expired)(void *user);
	void *user;
};

void hmc_timer_start(struct hmc_timer *timer, struct hmc_loop *loop, unsigned int ms, void (*expired)(void *user),
		     void *user);
void hmc_timer_stop(struct hmc_timer *timer);

/* Work at the end of a turn. Zeroed at first; to queue a queued one again changes nothing. */
struct hmc_task {
	struct hmc_loop *loop;
	GList place;
	bool queued;
	void (*run)(void *user);
	void *user;
};

void hmc_task_queue(struct hmc_task *task, struct hmc_loop *loop, void (*run)(void *user), void *user);
void hmc_task_cancel(struct hmc_task *task);

/*
 * Sources of GLib's main loop, each kept in a pointer that is NULL while there is none.
 */

static inline GSource *hmc_add_source(GSource *source, GSourceFunc callback, gpointer user)
{
	g_source_set_callback(source, callback, user, NULL);
	g_source_attach(source, NULL);
	return source;
}

static inline void hmc_stop_source(GSource **source)
{
	if (*source) {
		g_source_destroy(*source);
		g_source_unref(*source);
		*source = NULL;
	}
}

static inline void hmc_start_timer(GSource **source, unsigned int ms, GSourceFunc callback, gpointer user)
{
	hmc_stop_source(source);
	*source = hmc_add_source(g_timeout_source_new(ms), callback, user);
}

#endif
