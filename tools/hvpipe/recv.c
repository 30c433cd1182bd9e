// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe recv: messages to standard output, or files to a directory. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file-message.h"

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
	pipe = endpoint_open();

	while (!options.count || count < options.count) {
		ssize_t len = endpoint_receive(pipe, message);

		if (!options.dir) {
			write_stdout(message, len);
			count++;
			continue;
		}
		switch (file_receiver_take(&receiver, message, len, &error)) {
		case FILE_RECEIVER_COMPLETE:
			if (error.text[0])
				report("%s: %s", options.source_name, error.text);
			printf("%s\n", receiver.name);
			if (fflush(stdout))
				die(EXIT_FAILURE, "standard output: %s", strerror(errno));
			count++;
			break;
		case FILE_RECEIVER_MORE:
			if (error.text[0])
				report("%s: %s", options.source_name, error.text);
			break;
		case FILE_RECEIVER_ERROR:
			if (errno != EBADMSG)
				die(EXIT_FAILURE, "%s: %s", options.dir, error.text);
			report("%s: message of %zd bytes dropped: %s", options.source_name, len, error.text);
			status = EXIT_FAILURE;
			break;
		}
	}
	if (options.dir)
		file_receiver_close(&receiver);
	hvpipe_close(pipe);
	return status;
}
