// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe recv: messages to standard output, or files to a directory. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file-message.h"

/* Take a file message. Returns true when a file is complete; makes @status a failure when the message was dropped. */
static bool take_file(struct file_receiver *receiver, const void *message, size_t len, int *status)
{
	struct file_message_error error;
	enum file_receiver_result result = file_receiver_take(receiver, message, len, &error);
	char *line;

	if (result == FILE_RECEIVER_ERROR && errno != EBADMSG)
		die(EXIT_FAILURE, "%s: %s; this message of %zu bytes is lost", options.dir, error.text, len);
	if (result == FILE_RECEIVER_ERROR) {
		report("%s: message of %zu bytes dropped: %s", options.source_name, len, error.text);
		*status = EXIT_FAILURE;
		return false;
	}
	if (error.text[0])
		report("%s: %s", options.source_name, error.text);
	if (result != FILE_RECEIVER_COMPLETE)
		return false;

	line = escape_text(receiver->name, strlen(receiver->name), ESCAPE_ALL);
	if (!line || !write_all(STDOUT_FILENO, line, strlen(line)) || !write_all(STDOUT_FILENO, "\n", 1))
		die(EXIT_FAILURE, "standard output: %s; %s is stored", strerror(errno), receiver->name);
	free(line);
	return true;
}

int run_recv(void)
{
	struct file_message_error error;
	char message[HVPIPE_MAX_RECEIVE];
	struct file_receiver receiver;
	int status = EXIT_SUCCESS;
	struct hvpipe *pipe;
	uint64_t count = 0;

	if (options.dir && file_receiver_open(&receiver, options.dir, false, &error))
		die(EXIT_FAILURE, "%s", error.text);
	endpoint_catch_stop();
	endpoint_watch_reader();
	pipe = endpoint_open(HVPIPE_RECEIVE);

	while (!options.count || count < options.count) {
		ssize_t len = endpoint_receive(pipe, message);

		if (options.dir) {
			count += take_file(&receiver, message, len, &status);
			continue;
		}
		if (!write_message(message, len))
			die(errno == EINTR ? EXIT_SIGNAL + stop_signal() : EXIT_FAILURE,
			    "standard output: %s; a message of %zd bytes was received and is lost",
			    errno == EINTR ? "nobody reads it" : strerror(errno), len);
		count++;
	}
	if (options.dir)
		file_receiver_close(&receiver);
	hvpipe_close(pipe);
	return status;
}
