// SPDX-License-Identifier: GPL-2.0-or-later
/* Unit tests of the spool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hvpipe.h"
#include "spool.h"

#define MAX_BYTES (1 << 20)

static char *directory;
static struct spool *spool;
static char data[HVPIPE_MAX_RECEIVE];

static void reopen(void)
{
	spool_free(spool);
	spool = spool_new(directory, "test", MAX_BYTES);
}

static int setup(void **state)
{
	/* In memory if there is such a place: a disk makes thousands of messages slow. */
	directory = g_strdup(access("/dev/shm", W_OK) ? "/tmp/test-spool-XXXXXX" : "/dev/shm/test-spool-XXXXXX");
	spool = NULL;
	if (!g_mkdtemp(directory))
		return -1;
	reopen();
	return 0;
}

static int teardown(void **state)
{
	g_autofree char *command = g_strdup_printf("rm -rf %s", directory);

	spool_free(spool);
	g_free(directory);
	return system(command);
}

static void append(const char *text)
{
	GError *error = NULL;

	if (!spool_append(spool, text, strlen(text), &error))
		fail_msg("%s", error->message);
}

static void expect_first(const char *text)
{
	GError *error = NULL;
	int64_t id;
	ssize_t len = spool_first(spool, &id, data, &error);

	assert_null(error);
	assert_int_equal(len, strlen(text));
	assert_memory_equal(data, text, len);
	assert_true(spool_remove(spool, id, &error));
}

static void expect_empty(void)
{
	GError *error = NULL;
	int64_t id;

	assert_int_equal(spool_first(spool, &id, data, &error), -1);
	assert_null(error);
	assert_int_equal(spool_messages(spool), 0);
	assert_int_equal(spool_bytes(spool), 0);
}

static void keeps_order(void **state)
{
	expect_empty();
	append("one");
	append("");
	append("three");
	assert_int_equal(spool_messages(spool), 3);
	expect_first("one");
	append("four");
	expect_first("");
	expect_first("three");
	expect_first("four");
	expect_empty();
}

static void survives_a_restart(void **state)
{
	append("one");
	append("two");
	expect_first("one");
	reopen();
	expect_first("two");
	expect_empty();
	assert_true(spool_open(spool, NULL));
	append("three");
	reopen();
	expect_first("three");
}

/* A process that is killed right after spool_append() said yes. */
static void survives_a_kill(void **state)
{
	GError *error = NULL;

	for (int i = 0; i < 10; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			append(i % 2 ? "odd" : "even");
			kill(getpid(), SIGKILL);
		}
		assert_int_equal(waitpid(pid, NULL, 0), pid);
	}
	assert_true(spool_open(spool, &error));
	assert_int_equal(spool_messages(spool), 10);
	for (int i = 0; i < 10; i++)
		expect_first(i % 2 ? "odd" : "even");
}

static void is_bounded(void **state)
{
	GError *error = NULL;
	unsigned int count = 0;
	int64_t id;

	while (spool_append(spool, data, sizeof(data), &error))
		count++;
	assert_true(g_error_matches(error, SPOOL_ERROR, SPOOL_ERROR_FULL));
	assert_non_null(strstr(error->message, "test.db: full"));
	assert_int_equal(count, MAX_BYTES / (sizeof(data) + SPOOL_OVERHEAD));
	assert_true(spool_bytes(spool) <= MAX_BYTES);
	g_clear_error(&error);

	assert_true(spool_first(spool, &id, data, NULL) > 0);
	assert_true(spool_remove(spool, id, NULL));
	assert_true(spool_append(spool, data, sizeof(data), NULL));
	assert_false(spool_append(spool, data, sizeof(data), NULL));
}

/* Small messages are bounded by what each costs besides its bytes, and so is the file. */
static void is_bounded_for_small_messages(void **state)
{
	unsigned int count = 0;
	g_autofree char *path = g_strdup_printf("%s/test.db", directory);
	GStatBuf st;

	while (spool_append(spool, "x", 1, NULL))
		count++;
	assert_int_equal(count, MAX_BYTES / (1 + SPOOL_OVERHEAD));
	reopen();
	assert_true(spool_open(spool, NULL));
	assert_int_equal(spool_messages(spool), count);
	assert_int_equal(g_stat(path, &st), 0);
	assert_true(st.st_size <= 2 * MAX_BYTES);
}

static void is_of_one_process(void **state)
{
	struct spool *other = spool_new(directory, "test", MAX_BYTES);
	GError *error = NULL;

	append("one");
	assert_false(spool_append(other, "two", 3, &error));
	assert_true(g_error_matches(error, SPOOL_ERROR, SPOOL_ERROR_DISK));
	assert_non_null(strstr(error->message, "locked"));
	g_error_free(error);
	spool_free(other);
	expect_first("one");
	expect_empty();
}

static void names_a_file_that_is_no_database(void **state)
{
	g_autofree char *path = g_strdup_printf("%s/test.db", directory);
	GError *error = NULL;

	assert_true(g_file_set_contents(path, "This is not a database, but long enough to look like none.", -1, NULL));
	assert_false(spool_append(spool, "x", 1, &error));
	assert_non_null(strstr(error->message, path));
	assert_non_null(strstr(error->message, "not a database"));
	g_error_free(error);

	/* It is opened again: what was repaired meanwhile works. */
	assert_int_equal(g_unlink(path), 0);
	append("x");
	expect_first("x");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(keeps_order, setup, teardown),
		cmocka_unit_test_setup_teardown(survives_a_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(survives_a_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(is_bounded_for_small_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(is_of_one_process, setup, teardown),
		cmocka_unit_test_setup_teardown(names_a_file_that_is_no_database, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
