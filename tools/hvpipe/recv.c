// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe recv: messages to standard output, or files to a directory. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file-message.h"
#include "json-lines.h"

/* Print the name of a complete file, or with --json what there is to know of a file. */
static void print_file(const struct file_receiver *receiver, const char *refusal)
{
	char *line = options.json ? json_file(options.source_name, receiver, refusal) :
				    escape_text(receiver->name, strlen(receiver->name), ESCAPE_ALL);

	if (!line || !write_all(STDOUT_FILENO, line, strlen(line)) ||
	    (!options.json && !write_all(STDOUT_FILENO, "\n", 1)))
		die(EXIT_FAILURE, "standard output: %s; %s is %s", strerror(errno), receiver->name,
		    refusal ? "refused" : "stored");
	free(line);
}

enum file_receiver_result store_file(struct hvpipe *pipe, struct file_receiver *receiver, const void *message,
				     size_t len, struct file_message_error *error)
{
	enum file_receiver_result result = file_receiver_take(receiver, message, len, error);

	if (result != FILE_RECEIVER_NONE && error->text[0] && may_report())
		report("%s: %s%s", options.source_name, result == FILE_RECEIVER_REFUSED ? "file refused: " : "",
		       error->text);
	/* If the answer cannot be sent, that is reported, and the sender does not know what became of its file. */
	if (receiver->answer_len)
		endpoint_send(pipe, receiver->answer, receiver->answer_len);
	return result;
}

/* Take a message for DIR. Returns true when a file is complete; makes @status a failure when anything was refused. */
static bool take_file(struct hvpipe *pipe, struct file_receiver *receiver, const void *message, size_t len, int *status)
{
	struct file_message_error error;
	struct file_answer answer;

	switch (store_file(pipe, receiver, message, len, &error)) {
	case FILE_RECEIVER_COMPLETE:
		print_file(receiver, NULL);
		return true;
	case FILE_RECEIVER_REFUSED:
		if (options.json)
			print_file(receiver, error.text);
		*status = EXIT_FAILURE;
		return false;
	case FILE_RECEIVER_NONE:
		if (file_answer_parse(&answer, message, len))
			return false;
		if (may_report())
			report("%s: message of %zu bytes dropped: %s", options.source_name, len, error.text);
		*status = EXIT_FAILURE;
		return false;
	default:
		return false;
	}
}

static void print_message(const void *message, size_t len)
{
	char *line = options.json ? json_message(options.source_name, 0, message, len) : NULL;
	bool ok = options.json ? line && write_all(STDOUT_FILENO, line, strlen(line)) : write_message(message, len);

	free(line);
	if (!ok)
		die(errno == EINTR ? EXIT_SIGNAL + stop_signal() : EXIT_FAILURE,
		    "standard output: %s; a message of %zu bytes was received and is lost",
		    errno == EINTR ? "nobody reads it" : strerror(errno), len);
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
	pipe = endpoint_open(HVPIPE_RECEIVE | (options.dir ? HVPIPE_SEND : 0));

	while (!options.count || count < options.count) {
		ssize_t len = endpoint_receive(pipe, message);

		if (options.dir) {
			count += take_file(pipe, &receiver, message, len, &status);
			continue;
		}
		print_message(message, len);
		count++;
	}
	if (options.dir)
		file_receiver_close(&receiver);
	return endpoint_close(pipe, status);
}
