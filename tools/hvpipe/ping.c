// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe ping: how long until a source has taken a message. */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000.0 + time.tv_nsec / 1000000.0;
}

int run_ping(void)
{
	uint64_t count = options.count ? options.count : 1;
	struct hvpipe *pipe;

	/* The message goes to somebody's console or handler: not to the default by mistake. */
	if (!options.source_given)
		usage_error("ping: it sends messages to the source; name it with -s");
	endpoint_catch_stop();
	pipe = endpoint_open(HVPIPE_SEND);
	for (uint64_t i = 1; i <= count; i++) {
		char message[64];
		int len = snprintf(message, sizeof(message), "hvpipe ping %" PRIu64 "\n", i), status;
		double start = now();

		status = endpoint_send(pipe, message, len);
		if (status)
			exit(status);
		printf("%s: %d bytes taken in %.3f ms\n", options.source_name, len, now() - start);
		fflush(stdout);
		if (stop_signal() && i < count)
			exit(EXIT_SIGNAL + stop_signal());
	}
	hvpipe_close(pipe);
	return EXIT_SUCCESS;
}
