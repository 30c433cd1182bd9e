// SPDX-License-Identifier: GPL-2.0-or-later
/* The library reads /proc/PID/fdinfo. Any text gives strings that end, and a driver's text gives the driver's numbers.
 */
#include "fuzz.h"

#include "internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hvpipe_holder holder = { 0 }, again = { 0 };
	struct hvpipe_status status = { 0 };
	char text[512];
	FILE *file;

	if (!size)
		return 0;
	file = fmemopen((void *)data, size, "r");
	CHECK(file);
	hvpipe_read_holder(file, &holder);
	rewind(file);
	hvpipe_read_status(file, &status);
	fclose(file);
	CHECK(memchr(holder.state, '\0', sizeof(holder.state)));
	CHECK(memchr(status.state, '\0', sizeof(status.state)));

	/* As the driver would write it. */
	snprintf(text, sizeof(text),
		 "source:\t0x%08x\nstate:\t%s\nsent:\t%llu\nsent-bytes:\t%llu\nreceived:\t%llu\n"
		 "received-bytes:\t%llu\nheld:\t%llu\n",
		 holder.source, holder.state, (unsigned long long)holder.sent, (unsigned long long)holder.sent_bytes,
		 (unsigned long long)holder.received, (unsigned long long)holder.received_bytes,
		 (unsigned long long)holder.held);
	file = fmemopen(text, strlen(text), "r");
	CHECK(file);
	hvpipe_read_holder(file, &again);
	fclose(file);
	CHECK(holder.source == again.source && !strcmp(holder.state, again.state));
	CHECK(holder.sent == again.sent && holder.sent_bytes == again.sent_bytes && holder.held == again.held);
	CHECK(holder.received == again.received && holder.received_bytes == again.received_bytes);
	return 0;
}
