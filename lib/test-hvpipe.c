// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Unit tests of what the library does without the driver. All else is tested in a partition: a pipe or a socket in the
 * place of a handle would behave differently in just the points that matter.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "internal.h"

static FILE *text(const char *content)
{
	FILE *file = fmemopen((void *)content, strlen(content), "r");

	assert_non_null(file);
	return file;
}

static void header_has_the_size_of_the_abi(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct papr_hvpipe_hdr), 48);
	assert_int_equal(offsetof(struct papr_hvpipe_hdr, flags), 4);
	assert_int_equal(_IOC_TYPE(PAPR_HVPIPE_IOC_CREATE_HANDLE), 0xb2);
	assert_int_equal(_IOC_NR(PAPR_HVPIPE_IOC_CREATE_HANDLE), 9);
	assert_int_equal(_IOC_SIZE(PAPR_HVPIPE_IOC_CREATE_HANDLE), 4);
	assert_int_equal(HVPIPE_SOURCE_HMC(1), 0x02000001);
}

static void holder_is_parsed(void **state)
{
	struct hvpipe_holder holder = { 0 };
	FILE *file;

	(void)state;
	file = text("pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1060\nsource:\t0x02000001\nstate:\topen\nsent:\t3\n"
		    "sent-bytes:\t12264\nreceived:\t18446744073709551615\nreceived-bytes:\t5\nheld:\t1\nnew-key:\t7\n");
	assert_true(hvpipe_parse_holder(file, &holder));
	fclose(file);
	assert_int_equal(holder.source, 0x02000001);
	assert_string_equal(holder.state, "open");
	assert_int_equal(holder.sent, 3);
	assert_int_equal(holder.sent_bytes, 12264);
	assert_true(holder.received == UINT64_MAX);
	assert_int_equal(holder.received_bytes, 5);
	assert_int_equal(holder.held, 1);
}

static void fdinfo_of_another_file_is_no_holder(void **state)
{
	struct hvpipe_holder holder = { 0 };
	FILE *file;

	(void)state;
	file = text("pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t1060\n");
	assert_false(hvpipe_parse_holder(file, &holder));
	fclose(file);
}

static void status_is_parsed(void **state)
{
	struct hvpipe_status status = { 0 };
	FILE *file;

	(void)state;
	file = text("pos:\t0\nstate:\tenabled\nhandles:\t2\ndropped:\t9\n");
	assert_true(hvpipe_parse_status(file, &status));
	fclose(file);
	assert_string_equal(status.state, "enabled");
	assert_int_equal(status.handles, 2);
	assert_int_equal(status.dropped, 9);

	file = text("pos:\t0\n");
	assert_false(hvpipe_parse_status(file, &status));
	fclose(file);
}

static void long_state_is_cut(void **state)
{
	struct hvpipe_status status = { 0 };
	FILE *file;

	(void)state;
	file = text("state:\ta-state-of-more-than-fifteen-bytes\n");
	assert_true(hvpipe_parse_status(file, &status));
	fclose(file);
	assert_string_equal(status.state, "a-state-of-more");
}

/* What a handle's descriptor does while the pipe is off is tested in a partition; here is the time that passes. */
static void waiting_for_the_pipe_ends_with_it_or_with_the_time(void **state)
{
	char block[4096] = { 0 };
	struct hvpipe pipe;
	int ends[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	pipe.fd = ends[0];
	assert_int_equal(hvpipe_wait_enabled(&pipe, 0), 0);
	assert_int_equal(hvpipe_wait_enabled(&pipe, -1), 0);

	while (write(ends[0], block, sizeof(block)) > 0)
		;
	errno = 0;
	assert_int_equal(hvpipe_wait_enabled(&pipe, 0), -1);
	assert_int_equal(errno, ETIMEDOUT);
	assert_int_equal(hvpipe_wait_enabled(&pipe, 20), -1);
	assert_int_equal(errno, ETIMEDOUT);

	close(ends[1]);
	close(ends[0]);
	assert_int_equal(hvpipe_wait_enabled(&pipe, -1), -1);
	assert_int_equal(errno, EIO);
}

static int count(const struct hvpipe_holder *holder, void *data)
{
	(void)holder;
	++*(int *)data;
	return 0;
}

static void without_a_device_all_says_so(void **state)
{
	struct hvpipe_status status;
	int holders = 0;

	(void)state;
	if (access(HVPIPE_DEVICE, F_OK) == 0)
		skip();
	errno = 0;
	assert_null(hvpipe_open(HVPIPE_SOURCE_HMC(1)));
	assert_int_equal(errno, ENOENT);
	errno = 0;
	assert_int_equal(hvpipe_get_status(&status), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(hvpipe_each_holder(count, &holders), 0);
	assert_int_equal(holders, 0);
	hvpipe_close(NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(header_has_the_size_of_the_abi),
		cmocka_unit_test(holder_is_parsed),
		cmocka_unit_test(fdinfo_of_another_file_is_no_holder),
		cmocka_unit_test(status_is_parsed),
		cmocka_unit_test(long_state_is_cut),
		cmocka_unit_test(waiting_for_the_pipe_ends_with_it_or_with_the_time),
		cmocka_unit_test(without_a_device_all_says_so),
	};

	return cmocka_run_group_tests_name("libhvpipe", tests, NULL, NULL);
}
