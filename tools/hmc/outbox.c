// SPDX-License-Identifier: GPL-2.0-or-later
/* Lines and files that an HMC sends. */
#include "outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file-message.h"
#include "loop.h"

struct item {
	char *name; /* NULL: a line */
	enum hmc_outbox_kind kind;
	bool open;
	struct file_sender file; /* HMC_OUTBOX_FILE */
	int fd;			 /* HMC_OUTBOX_RAW */
	bool waits;		 /* not a regular file, so a read may block ... */
	bool ready;		 /* ... but the next one does not */
	bool eof;
	char data[FILE_MESSAGE_MAX]; /* a line, or the begin of the next message of a raw file */
	size_t len;

	bool queued;   /* to its end, or to its error */
	bool answered; /* by the receiver of the file, or nobody waits for that any more */
	enum hmc_outcome outcome;
	uint64_t messages;
	uint64_t bytes; /* read so far */
	uint64_t size;	/* 0: not known */
	uint64_t last;	/* sequence of the last message */
	char *text;	/* of the outcome */
};

struct hmc_outbox {
	struct hmc_link *link;
	const struct hmc_state *state;
	size_t message_size;
	hmc_outbox_done done;
	void *user;
	GQueue items;
	GSource *pump;
	GSource *readable; /* on the item that is being read */
	unsigned int answer_ms;
	GSource *unanswered;
	const struct item *awaited; /* the file whose answer is waited for */
};

/* Files sent without an answer so far, each with an open descriptor. */
#define UNANSWERED_MAX 64

static const char *shown(const char *path)
{
	return strcmp(path, "-") ? path : "standard input";
}

static void close_item(struct item *item)
{
	if (item->open && item->kind == HMC_OUTBOX_FILE)
		file_sender_close(&item->file);
	else if (item->open && item->fd != STDIN_FILENO)
		close(item->fd);
	item->open = false;
}

static void free_item(struct item *item)
{
	close_item(item);
	g_free(item->name);
	g_free(item->text);
	g_free(item);
}

/* This item has no more messages. Takes the text of the error, if any. */
static void end_item(struct hmc_outbox *outbox, struct item *item, char *error)
{
	hmc_stop_source(&outbox->readable);
	item->queued = true;
	if (error) {
		item->outcome = HMC_OUTCOME_FAILED;
		item->text = error;
		item->answered = true;
	}
	/* A file may have to be sent again. */
	if (error || item->kind == HMC_OUTBOX_RAW)
		close_item(item);
}

/* The outcome of a file is known. Takes the text. */
static void end_answer(struct item *item, enum hmc_outcome outcome, char *text)
{
	item->answered = true;
	item->queued = true;
	item->outcome = outcome;
	item->text = text;
	close_item(item);
}

static bool is_received(const struct hmc_outbox *outbox, const struct item *item)
{
	return item->queued && item->last <= hmc_state_acknowledged(outbox->state);
}

static bool needs_answer(const struct item *item)
{
	return item->name && item->kind == HMC_OUTBOX_FILE && !item->answered;
}

static char *open_raw(struct item *item)
{
	struct stat st;

	/* O_NONBLOCK: a FIFO without a writer must not stop the main loop. */
	item->fd = strcmp(item->name, "-") ? open(item->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : STDIN_FILENO;
	if (item->fd < 0)
		return g_strdup_printf("%s: %s", item->name, g_strerror(errno));
	item->open = true;
	if (fstat(item->fd, &st))
		return g_strdup_printf("%s: %s", shown(item->name), g_strerror(errno));
	item->waits = !S_ISREG(st.st_mode);
	item->size = item->waits ? 0 : st.st_size;
	return NULL;
}

static char *open_item(const struct hmc_outbox *outbox, struct item *item)
{
	struct file_message_error error;

	if (item->kind == HMC_OUTBOX_RAW)
		return open_raw(item);
	if (file_sender_open(&item->file, item->name, outbox->message_size, &error))
		return g_strdup(error.text);
	item->open = true;
	item->size = item->file.size;
	return NULL;
}

static void pump_soon(struct hmc_outbox *outbox);

static gboolean on_readable(gint fd, GIOCondition condition, gpointer user)
{
	struct hmc_outbox *outbox = user;

	hmc_stop_source(&outbox->readable);
	for (GList *l = outbox->items.head; l; l = l->next) {
		struct item *item = l->data;

		if (item->open && !item->queued) {
			item->ready = true;
			break;
		}
	}
	pump_soon(outbox);
	return G_SOURCE_REMOVE;
}

enum next { NEXT_MESSAGE, NEXT_END, NEXT_LATER, NEXT_ERROR };

/* Fill item->data with the next message of a raw file. */
static enum next next_raw(struct hmc_outbox *outbox, struct item *item, char **error)
{
	while (!item->eof && item->len < outbox->message_size) {
		ssize_t n;

		if (item->waits && !item->ready) {
			if (!outbox->readable) {
				GSource *source = g_unix_fd_source_new(item->fd, G_IO_IN | G_IO_HUP | G_IO_ERR);

				outbox->readable = hmc_add_source(source, G_SOURCE_FUNC(on_readable), outbox);
			}
			return NEXT_LATER;
		}
		item->ready = false;
		n = read(item->fd, item->data + item->len, outbox->message_size - item->len);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0) {
			*error = g_strdup_printf("%s: read: %s", shown(item->name), g_strerror(errno));
			return NEXT_ERROR;
		}
		item->eof = n == 0;
		item->len += n;
		item->bytes += n;
	}
	if (item->len)
		return NEXT_MESSAGE;
	if (!item->messages) {
		*error = g_strdup_printf("%s: empty, and a message has at least 1 byte (-f can send empty files)",
					 shown(item->name));
		return NEXT_ERROR;
	}
	return NEXT_END;
}

static enum next next_file(struct item *item, char **error)
{
	struct file_message_error why;
	ssize_t n = file_sender_next(&item->file, item->data, &why);

	if (n < 0) {
		*error = g_strdup(why.text);
		return NEXT_ERROR;
	}
	item->len = n;
	item->bytes = item->file.offset;
	return n ? NEXT_MESSAGE : NEXT_END;
}

static enum next next_message(struct hmc_outbox *outbox, struct item *item, char **error)
{
	if (!item->name)
		return item->messages ? NEXT_END : NEXT_MESSAGE;
	if (!item->open) {
		*error = open_item(outbox, item);
		if (*error)
			return NEXT_ERROR;
	}
	return item->kind == HMC_OUTBOX_FILE ? next_file(item, error) : next_raw(outbox, item, error);
}

/* Queue messages of this item while the window is open. False when the next item has to wait. */
static bool queue_item(struct hmc_outbox *outbox, struct item *item)
{
	while (!item->queued && hmc_state_pending(outbox->state)->length < HMC_OUTBOX_WINDOW) {
		char *text = NULL;

		switch (next_message(outbox, item, &text)) {
		case NEXT_MESSAGE:
			hmc_link_send(outbox->link, item->data, item->len);
			item->len = 0;
			item->messages++;
			item->last = hmc_state_queued(outbox->state);
			break;
		case NEXT_END:
		case NEXT_ERROR:
			end_item(outbox, item, text);
			break;
		case NEXT_LATER:
			return false;
		}
	}
	return item->queued;
}

static gboolean on_unanswered(gpointer user)
{
	struct hmc_outbox *outbox = user;

	hmc_stop_source(&outbox->unanswered);
	end_answer(g_queue_peek_head(&outbox->items), HMC_OUTCOME_UNKNOWN, NULL);
	hmc_outbox_settle(outbox);
	return G_SOURCE_REMOVE;
}

/* The time for an answer begins when the partition has received the file, and the one before it was answered. */
static void await_answer(struct hmc_outbox *outbox)
{
	const struct item *item = g_queue_peek_head(&outbox->items);

	if (item && !(needs_answer(item) && is_received(outbox, item)))
		item = NULL;
	if (item == outbox->awaited)
		return;
	outbox->awaited = item;
	hmc_stop_source(&outbox->unanswered);
	if (item)
		hmc_start_timer(&outbox->unanswered, outbox->answer_ms, on_unanswered, outbox);
}

void hmc_outbox_settle(struct hmc_outbox *outbox)
{
	unsigned int nr_unanswered = 0;
	struct item *item;

	hmc_stop_source(&outbox->pump);
	for (GList *l = outbox->items.head; l; l = l->next) {
		nr_unanswered += needs_answer(l->data);
		if (nr_unanswered > UNANSWERED_MAX || !queue_item(outbox, l->data))
			break;
	}
	while ((item = g_queue_peek_head(&outbox->items)) && is_received(outbox, item) && !needs_answer(item)) {
		g_queue_pop_head(&outbox->items);
		outbox->done(outbox->user, item->name, item->messages, item->bytes, item->outcome, item->text);
		free_item(item);
	}
	await_answer(outbox);
}

enum hmc_answer hmc_outbox_take_answer(struct hmc_outbox *outbox, const void *data, size_t len)
{
	struct file_message_error error;
	struct file_answer answer;

	for (GList *l = outbox->items.head; l; l = l->next) {
		struct item *item = l->data;

		if (!item->open || !needs_answer(item))
			continue;
		switch (file_sender_take(&item->file, data, len, &error)) {
		case FILE_OUTCOME_NONE:
			return HMC_ANSWER_NONE;
		case FILE_OUTCOME_OTHER:
			continue;
		case FILE_OUTCOME_STORED:
			end_answer(item, HMC_OUTCOME_STORED, g_strdup(item->file.sha256));
			break;
		case FILE_OUTCOME_REFUSED:
			end_answer(item, HMC_OUTCOME_REFUSED, g_strdup(error.text));
			break;
		case FILE_OUTCOME_AGAIN:
			item->queued = false;
			item->bytes = 0;
			break;
		}
		pump_soon(outbox);
		return HMC_ANSWER_TAKEN;
	}
	return file_answer_parse(&answer, data, len) ? HMC_ANSWER_LATE : HMC_ANSWER_NONE;
}

bool hmc_outbox_awaits_answer(const struct hmc_outbox *outbox)
{
	const struct item *item = g_queue_peek_head((GQueue *)&outbox->items);

	return item && needs_answer(item) && is_received(outbox, item);
}

static gboolean on_pump(gpointer user)
{
	hmc_outbox_settle(user);
	return G_SOURCE_REMOVE;
}

static void pump_soon(struct hmc_outbox *outbox)
{
	if (outbox->pump)
		return;
	outbox->pump = g_idle_source_new();
	g_source_set_priority(outbox->pump, G_PRIORITY_DEFAULT);
	g_source_set_callback(outbox->pump, on_pump, outbox, NULL);
	g_source_attach(outbox->pump, NULL);
}

struct hmc_outbox *hmc_outbox_new(struct hmc_link *link, const struct hmc_state *state, size_t message_size,
				  unsigned int answer_ms, hmc_outbox_done done, void *user)
{
	struct hmc_outbox *outbox = g_new0(struct hmc_outbox, 1);

	outbox->link = link;
	outbox->state = state;
	outbox->message_size = message_size;
	outbox->answer_ms = answer_ms;
	outbox->done = done;
	outbox->user = user;
	g_queue_init(&outbox->items);
	return outbox;
}

void hmc_outbox_free(struct hmc_outbox *outbox)
{
	hmc_stop_source(&outbox->pump);
	hmc_stop_source(&outbox->readable);
	hmc_stop_source(&outbox->unanswered);
	g_queue_clear_full(&outbox->items, (GDestroyNotify)free_item);
	g_free(outbox);
}

char *hmc_outbox_check(const struct hmc_outbox *outbox, const char *path, enum hmc_outbox_kind kind)
{
	struct file_message_error error;
	struct file_sender file;
	struct stat st;

	if (kind == HMC_OUTBOX_FILE) {
		if (file_sender_open(&file, path, outbox->message_size, &error))
			return g_strdup(error.text);
		file_sender_close(&file);
		return NULL;
	}
	if (!strcmp(path, "-"))
		return NULL;
	if (stat(path, &st) || access(path, R_OK))
		return g_strdup_printf("%s: %s", path, g_strerror(errno));
	if (S_ISDIR(st.st_mode))
		return g_strdup_printf("%s: a directory; name the files in it", path);
	if (S_ISREG(st.st_mode) && !st.st_size)
		return g_strdup_printf("%s: empty, and a message has at least 1 byte (-f can send empty files)", path);
	return NULL;
}

static struct item *add_item(struct hmc_outbox *outbox)
{
	struct item *item = g_new0(struct item, 1);

	g_queue_push_tail(&outbox->items, item);
	pump_soon(outbox);
	return item;
}

void hmc_outbox_add_path(struct hmc_outbox *outbox, const char *path, enum hmc_outbox_kind kind)
{
	struct item *item = add_item(outbox);

	item->name = g_strdup(path);
	item->kind = kind;
}

void hmc_outbox_add_line(struct hmc_outbox *outbox, const void *data, size_t len)
{
	struct item *item = add_item(outbox);

	g_assert(len >= 1 && len <= sizeof(item->data));
	memcpy(item->data, data, len);
	item->len = len;
}

void hmc_outbox_changed(struct hmc_outbox *outbox)
{
	if (outbox->items.length)
		pump_soon(outbox);
}

unsigned int hmc_outbox_items(const struct hmc_outbox *outbox)
{
	return outbox->items.length;
}

bool hmc_outbox_progress(const struct hmc_outbox *outbox, const char **name, uint64_t *offset, uint64_t *size)
{
	for (GList *l = outbox->items.head; l; l = l->next) {
		const struct item *item = l->data;

		if (!item->name)
			continue;
		*name = shown(item->name);
		*offset = item->bytes;
		*size = item->size;
		return true;
	}
	return false;
}
