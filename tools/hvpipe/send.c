// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe send: files, or standard input, as messages. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file-message.h"

/* One file on its way. */
struct transfer {
	struct hvpipe *pipe;
	const char *name;
	uint64_t messages; /* that the source has taken */
	uint64_t bytes;	   /* of the file, in them */
	uint64_t size;	   /* of the file, 0: not known */
	int64_t began;
	bool replied;
	char reply[HVPIPE_MAX_RECEIVE + 1]; /* room for a newline */
	size_t reply_len;
};

static void send_message(struct transfer *transfer, const void *message, size_t len, uint64_t bytes)
{
	int status = endpoint_send(transfer->pipe, message, len);

	if (status) {
		if (transfer->messages)
			report("%s: broke off after %" PRIu64 " bytes in %" PRIu64 " %s", transfer->name,
			       transfer->bytes, transfer->messages, transfer->messages == 1 ? "message" : "messages");
		exit(status);
	}
	transfer->messages++;
	transfer->bytes += bytes;
	show_progress(transfer->name, transfer->bytes, transfer->size, transfer->began);
}

/* A message that came meanwhile, and that nobody here waits for: it is shown, as nobody else will get it. */
static void print_other(const char *message, size_t len)
{
	char *text = escape_text(message, len, ESCAPE_ALL);

	clear_progress();
	printf("%s: message of %zu %s: %s\n", options.source_name, len, len == 1 ? "byte" : "bytes", text ? text : "");
	fflush(stdout);
	free(text);
}

/* What came is no answer to the file that is being sent. @sent: it may be the reply to it. */
static void take_other(struct transfer *transfer, const char *message, size_t len, bool sent)
{
	char answer[FILE_ANSWER_MAX];
	size_t answer_len;

	if (file_message_refuse(message, len, "hvpipe send runs there, and stores no files", answer, &answer_len)) {
		if (answer_len) {
			report("%s: file refused: send stores none", options.source_name);
			endpoint_send(transfer->pipe, answer, answer_len);
		}
	} else if (options.reply && sent && !transfer->replied) {
		memcpy(transfer->reply, message, len);
		transfer->reply_len = len;
		transfer->replied = true;
	} else {
		print_other(message, len);
	}
}

/* Take messages until the receiver's answer has come (FILE_OUTCOME_NONE: there is none until the deadline). */
static enum file_outcome take_answer(struct transfer *transfer, struct file_sender *sender, int64_t deadline,
				     struct file_message_error *error)
{
	char message[HVPIPE_MAX_RECEIVE];
	ssize_t len;

	while ((len = endpoint_receive_until(transfer->pipe, message, deadline)) > 0) {
		enum file_outcome outcome = file_sender_take(sender, message, len, error);

		if (outcome == FILE_OUTCOME_NONE && !endpoint_observes())
			take_other(transfer, message, len, sender->done);
		else if (outcome != FILE_OUTCOME_OTHER)
			return outcome;
	}
	return FILE_OUTCOME_NONE;
}

/* Send a file and wait for its receiver's answer. Returns the exit status. */
static int send_file(struct transfer *transfer, const char *path)
{
	int answer_ms = options.timeout_ms < 0 ? FILE_ANSWER_MS : options.timeout_ms;
	struct file_message_error error, why;
	char message[FILE_MESSAGE_MAX];
	enum file_outcome outcome;
	struct file_sender sender;
	ssize_t len;

	if (file_sender_open(&sender, path, options.message_size, &error))
		die(EXIT_FAILURE, "%s", error.text);
	transfer->size = sender.size;
	do {
		outcome = FILE_OUTCOME_NONE;
		transfer->bytes = 0;
		while (outcome == FILE_OUTCOME_NONE && (len = file_sender_next(&sender, message, &error)) > 0) {
			send_message(transfer, message, len, sender.offset - transfer->bytes);
			/* It may be refused before all of it was sent. */
			if (!sender.done)
				outcome = take_answer(transfer, &sender, now_ms(), &why);
		}
		if (len < 0)
			die(EXIT_FAILURE, "%s", error.text);
		if (outcome == FILE_OUTCOME_NONE)
			outcome = take_answer(transfer, &sender, now_ms() + answer_ms, &why);
	} while (outcome == FILE_OUTCOME_AGAIN);
	file_sender_close(&sender);

	clear_progress();
	if (outcome == FILE_OUTCOME_STORED) {
		printf("%s: stored, SHA-256 %s\n", transfer->name, sender.sha256);
		fflush(stdout);
		return EXIT_SUCCESS;
	}
	if (outcome == FILE_OUTCOME_REFUSED) {
		report("%s: refused: %s", transfer->name, why.text);
		return EXIT_REFUSED;
	}
	report("%s: unknown whether it is stored: the source has taken it, but no answer came for %g seconds; does "
	       "`hvpipe-hmc recv -d` run there?",
	       transfer->name, answer_ms / 1000.0);
	return EXIT_UNKNOWN;
}

/* Read until the buffer is full or the file ends. */
static ssize_t read_full(int fd, char *data, size_t size)
{
	size_t len = 0;

	while (len < size) {
		ssize_t n = read(fd, data + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		len += n;
	}
	return len;
}

static void send_raw(struct transfer *transfer, const char *path)
{
	bool is_stdin = !strcmp(path, "-");
	char message[HVPIPE_MAX_PAYLOAD];
	struct stat st;
	ssize_t len;
	int fd;

	fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(EXIT_FAILURE, "%s: %s", transfer->name, strerror(errno));
	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		transfer->size = st.st_size;
	while ((len = read_full(fd, message, options.message_size)) > 0)
		send_message(transfer, message, len, len);
	if (len < 0)
		die(EXIT_FAILURE, "%s: read: %s", transfer->name, strerror(errno));
	if (!transfer->messages)
		die(EXIT_FAILURE, "%s: empty, and a message has at least 1 byte (-f can send empty files)",
		    transfer->name);
	if (!is_stdin)
		close(fd);
	clear_progress();
}

/* Wait for the reply and print it. */
static void print_reply(struct transfer *transfer, const char *name)
{
	char message[HVPIPE_MAX_RECEIVE];
	struct file_answer answer;

	while (!transfer->replied) {
		size_t len = endpoint_receive(transfer->pipe, message);

		if (!options.file) {
			/* Whatever comes: the message may have been a part of a file itself. */
			memcpy(transfer->reply, message, len);
			transfer->reply_len = len;
			transfer->replied = true;
		} else if (!file_answer_parse(&answer, message, len)) {
			/* A late answer to a file is no reply to this one. */
			take_other(transfer, message, len, true);
		}
	}
	if (transfer->reply[transfer->reply_len - 1] != '\n')
		transfer->reply[transfer->reply_len++] = '\n';
	if (name) {
		printf("%s: ", name);
		fflush(stdout);
	}
	if (!write_message(transfer->reply, transfer->reply_len))
		die(EXIT_FAILURE, "standard output: %s; the reply to %s is lost", strerror(errno),
		    name ? name : "standard input");
}

int run_send(int argc, char **argv)
{
	static char *standard_input[] = { "-" };
	int status = EXIT_SUCCESS;
	struct hvpipe *pipe;

	if (!argc) {
		if (options.file)
			usage_error("send -f: which FILE? A file message must name it");
		argc = 1;
		argv = standard_input;
	}

	/* Where hvpiped runs, another program may receive, so the answer to a file is observed. */
	pipe = endpoint_open(HVPIPE_SEND | (options.reply ? HVPIPE_RECEIVE : options.file ? HVPIPE_OBSERVE : 0));
	for (int i = 0; i < argc; i++) {
		bool is_stdin = !strcmp(argv[i], "-") && !options.file;
		struct transfer transfer = { .pipe = pipe,
					     .name = is_stdin ? "standard input" : argv[i],
					     .began = now_ms() };

		if (options.reply)
			endpoint_discard(pipe);
		if (options.file) {
			int outcome = send_file(&transfer, argv[i]);

			status = outcome ? outcome : status;
			if (outcome == EXIT_UNKNOWN)
				break;
			if (outcome)
				continue;
		} else {
			send_raw(&transfer, argv[i]);
		}
		if (options.reply)
			print_reply(&transfer, is_stdin && argc == 1 ? NULL : transfer.name);
	}
	hvpipe_close(pipe);
	return status;
}
