// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe send: files, or standard input, as messages. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file-message.h"

/* One file on its way. */
struct transfer {
	struct hvpipe *pipe;
	const char *name;
	uint64_t messages; /* that the source has taken */
	uint64_t bytes;	   /* of the file, in them */
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
}

static void send_file(struct transfer *transfer, const char *path)
{
	struct file_message_error error;
	char message[FILE_MESSAGE_MAX];
	struct file_sender sender;
	ssize_t len;

	if (file_sender_open(&sender, path, options.message_size, &error))
		die(EXIT_FAILURE, "%s", error.text);
	while ((len = file_sender_next(&sender, message, &error)) > 0)
		send_message(transfer, message, len, sender.offset - transfer->bytes);
	if (len < 0)
		die(EXIT_FAILURE, "%s", error.text);
	file_sender_close(&sender);
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
	ssize_t len;
	int fd;

	fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(EXIT_FAILURE, "%s: %s", transfer->name, strerror(errno));
	while ((len = read_full(fd, message, options.message_size)) > 0)
		send_message(transfer, message, len, len);
	if (len < 0)
		die(EXIT_FAILURE, "%s: read: %s", transfer->name, strerror(errno));
	if (!transfer->messages)
		die(EXIT_FAILURE, "%s: empty, and a message has at least 1 byte (-f can send empty files)",
		    transfer->name);
	if (!is_stdin)
		close(fd);
}

static void print_reply(struct hvpipe *pipe, const char *name)
{
	char reply[HVPIPE_MAX_RECEIVE + 1];
	ssize_t len = endpoint_receive(pipe, reply);

	if (reply[len - 1] != '\n')
		reply[len++] = '\n';
	if (name) {
		printf("%s: ", name);
		fflush(stdout);
	}
	if (!write_message(reply, len))
		die(EXIT_FAILURE, "standard output: %s; the reply to %s is lost", strerror(errno),
		    name ? name : "standard input");
}

int run_send(int argc, char **argv)
{
	static char *standard_input[] = { "-" };
	struct hvpipe *pipe;

	if (!argc) {
		if (options.file)
			usage_error("send -f: which FILE? A file message must name it");
		argc = 1;
		argv = standard_input;
	}

	pipe = endpoint_open(HVPIPE_SEND | (options.reply ? HVPIPE_RECEIVE : 0));
	for (int i = 0; i < argc; i++) {
		bool is_stdin = !strcmp(argv[i], "-") && !options.file;
		struct transfer transfer = { .pipe = pipe, .name = is_stdin ? "standard input" : argv[i] };

		if (options.reply)
			endpoint_discard(pipe);
		if (options.file)
			send_file(&transfer, argv[i]);
		else
			send_raw(&transfer, argv[i]);
		if (options.reply)
			print_reply(pipe, is_stdin && argc == 1 ? NULL : transfer.name);
	}
	hvpipe_close(pipe);
	return EXIT_SUCCESS;
}
