// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe send: files, or standard input, as messages. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file-message.h"

static void send_message(struct hvpipe *pipe, const void *message, size_t len)
{
	if (endpoint_send(pipe, message, len))
		exit(errno == EPIPE ? EXIT_CLOSED : EXIT_FAILURE);
}

static void send_file(struct hvpipe *pipe, const char *path)
{
	struct file_message_error error;
	char message[FILE_MESSAGE_MAX];
	struct file_sender sender;
	ssize_t len;

	if (file_sender_open(&sender, path, FILE_MESSAGE_DEFAULT, &error))
		die(EXIT_FAILURE, "%s", error.text);
	while ((len = file_sender_next(&sender, message, &error)) > 0)
		send_message(pipe, message, len);
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

static void send_raw(struct hvpipe *pipe, const char *path)
{
	bool is_stdin = !strcmp(path, "-");
	const char *name = is_stdin ? "standard input" : path;
	char message[HVPIPE_MAX_PAYLOAD];
	uint64_t sent = 0;
	ssize_t len;
	int fd;

	fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(EXIT_FAILURE, "%s: %s", name, strerror(errno));
	while ((len = read_full(fd, message, sizeof(message))) > 0) {
		send_message(pipe, message, len);
		sent++;
	}
	if (len < 0)
		die(EXIT_FAILURE, "%s: read: %s", name, strerror(errno));
	if (!sent)
		die(EXIT_FAILURE, "%s: empty, and a message has at least 1 byte (-f can send empty files)", name);
	if (!is_stdin)
		close(fd);
}

int run_send(int argc, char **argv)
{
	static char *standard_input[] = { "-" };
	char reply[HVPIPE_MAX_RECEIVE];
	struct hvpipe *pipe;

	if (!argc) {
		if (options.file)
			usage_error("send -f: which FILE? A file message must name it");
		argc = 1;
		argv = standard_input;
	}

	pipe = endpoint_open();
	for (int i = 0; i < argc; i++) {
		ssize_t len;

		if (options.file)
			send_file(pipe, argv[i]);
		else
			send_raw(pipe, argv[i]);
		if (!options.reply)
			continue;
		len = endpoint_receive(pipe, reply);
		printf("%s: ", argv[i]);
		fflush(stdout);
		write_stdout(reply, len);
		if (reply[len - 1] != '\n')
			write_stdout("\n", 1);
	}
	hvpipe_close(pipe);
	return EXIT_SUCCESS;
}
