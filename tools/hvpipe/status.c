// SPDX-License-Identifier: GPL-2.0-or-later
/* hvpipe status: the state of the pipe, and which process holds which source. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A number of the driver's, or "-" if it does not tell it. */
static const char *number_text(uint64_t number, char text[static 24])
{
	if (number == HVPIPE_UNKNOWN)
		return "-";
	snprintf(text, 24, "%" PRIu64, number);
	return text;
}

static const char *state_text(const char *state)
{
	return strcmp(state, "unknown") ? state : "-";
}

static int print_row(const struct hvpipe_holder *holder, void *data)
{
	char *command = escape_text(holder->command, strlen(holder->command), ESCAPE_LINE);
	char source[16] = "-", texts[5][24];
	bool *header_wanted = data;

	/* 0: this driver does not tell the source, so it may be the wanted one. */
	if (options.source_given && holder->source && holder->source != options.source)
		goto out;
	if (*header_wanted)
		printf("%-10s  %-9s  %10s  %12s  %10s  %12s  %6s  %7s  %s\n", "SOURCE", "STATE", "SENT", "BYTES",
		       "RECEIVED", "BYTES", "HELD", "PID", "COMMAND");
	*header_wanted = false;
	if (holder->source)
		snprintf(source, sizeof(source), "0x%08" PRIx32, holder->source);
	printf("%-10s  %-9s  %10s  %12s  %10s  %12s  %6s  %7d  %s\n", source, state_text(holder->state),
	       number_text(holder->sent, texts[0]), number_text(holder->sent_bytes, texts[1]),
	       number_text(holder->received, texts[2]), number_text(holder->received_bytes, texts[3]),
	       number_text(holder->held, texts[4]), (int)holder->pid, command ? command : "");
out:
	free(command);
	return 0;
}

int run_status(void)
{
	struct hvpipe_status status;
	bool header_wanted = true;
	char texts[2][24];

	if (hvpipe_get_status(&status))
		die_no_device(errno);
	printf("pipe %s, %s %s open, %s messages dropped that came for sources not open\n", state_text(status.state),
	       number_text(status.handles, texts[0]), status.handles == 1 ? "source" : "sources",
	       number_text(status.dropped, texts[1]));
	if (hvpipe_each_holder(print_row, &header_wanted) < 0)
		die(EXIT_FAILURE, "/proc: %s", strerror(errno));
	return EXIT_SUCCESS;
}
