// SPDX-License-Identifier: GPL-2.0-or-later
/* What the state of an HMC's session promises. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "state.h"

static char *dir;
static char *path;

static int setup(void **context)
{
	dir = g_dir_make_tmp("test-hvpipe-hmc-state-XXXXXX", NULL);
	path = dir ? g_strconcat(dir, "/state", NULL) : NULL;
	return path ? 0 : -1;
}

static int teardown(void **context)
{
	char *new = g_strconcat(path, ".new", NULL);
	int result;

	unlink(path);
	unlink(new);
	result = rmdir(dir);
	g_free(new);
	g_free(path);
	g_free(dir);
	return result;
}

static struct hmc_state *open_state(void)
{
	GError *error = NULL;
	struct hmc_state *state = hmc_state_open(path, &error);

	if (!state)
		fail_msg("%s", error->message);
	return state;
}

/* The open must fail with this code and name the file and these words. */
static void expect_refused(int code, const char *words)
{
	GError *error = NULL;

	assert_null(hmc_state_open(path, &error));
	assert_true(g_error_matches(error, G_IO_ERROR, code));
	assert_non_null(strstr(error->message, path));
	assert_non_null(strstr(error->message, words));
	g_error_free(error);
}

static void queue(struct hmc_state *state, const char *text)
{
	GBytes *message = g_bytes_new(text, strlen(text));

	assert_true(hmc_state_queue(state, message, NULL));
	g_bytes_unref(message);
}

static void take(struct hmc_state *state, const char *reply)
{
	GBytes *message = reply ? g_bytes_new(reply, strlen(reply)) : NULL;

	assert_true(hmc_state_take(state, message, NULL));
	g_clear_pointer(&message, g_bytes_unref);
}

static void assert_pending(const struct hmc_state *state, ...)
{
	const GList *l = hmc_state_pending(state)->head;
	const char *text;
	va_list args;

	va_start(args, state);
	while ((text = va_arg(args, const char *))) {
		assert_non_null(l);
		assert_int_equal(g_bytes_get_size(l->data), strlen(text));
		assert_memory_equal(g_bytes_get_data(l->data, NULL), text, strlen(text));
		l = l->next;
	}
	va_end(args);
	assert_null(l);
	assert_int_equal(hmc_state_queued(state) - hmc_state_acknowledged(state), hmc_state_pending(state)->length);
}

static void new_state_has_a_session_of_its_own(void **context)
{
	struct hmc_state *a = hmc_state_open(NULL, NULL), *b = open_state();

	assert_int_not_equal(hmc_state_session(a), 0);
	assert_int_not_equal(hmc_state_session(b), 0);
	assert_int_not_equal(hmc_state_session(a), hmc_state_session(b));
	assert_int_equal(hmc_state_taken(b), 0);
	assert_int_equal(hmc_state_queued(b), 0);
	assert_int_equal(hmc_state_source(b), 0);
	hmc_state_close(a);
	hmc_state_close(b);
}

static void all_is_there_after_a_restart(void **context)
{
	struct hmc_state *state = open_state();
	uint64_t session = hmc_state_session(state);

	assert_true(hmc_state_bind(state, 0x02000001, NULL));
	queue(state, "one");
	queue(state, "two");
	take(state, NULL);
	take(state, "three");
	assert_true(hmc_state_acknowledge(state, 1, NULL));
	hmc_state_close(state);

	state = open_state();
	assert_int_equal(hmc_state_session(state), session);
	assert_int_equal(hmc_state_source(state), 0x02000001);
	assert_int_equal(hmc_state_taken(state), 2);
	assert_int_equal(hmc_state_acknowledged(state), 1);
	assert_int_equal(hmc_state_queued(state), 3);
	assert_pending(state, "two", "three", NULL);
	assert_true(hmc_state_acknowledge(state, 3, NULL));
	assert_pending(state, NULL);
	hmc_state_close(state);
}

static void all_is_there_after_kill_9(void **context)
{
	struct hmc_state *state;
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		state = open_state();
		queue(state, "one");
		take(state, "two");
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	state = open_state();
	assert_int_equal(hmc_state_taken(state), 1);
	assert_pending(state, "one", "two", NULL);
	hmc_state_close(state);
}

/*
 * Whatever is left of the file: either the state as it was after one of the changes, with the messages it must have, or
 * a refusal. A state that was loaded goes on to work.
 */
static void a_file_cut_off_anywhere_is_an_earlier_state_or_refused(void **context)
{
	struct hmc_state *state = open_state();
	uint64_t last_sum = 0;
	gsize size, base = 0;
	char *data;

	base = 80; /* a new file: header and one record */
	queue(state, "message one");
	take(state, NULL);
	queue(state, "message two");
	take(state, "message three");
	assert_true(hmc_state_acknowledge(state, 2, NULL));
	hmc_state_close(state);
	assert_true(g_file_get_contents(path, &data, &size, NULL));

	for (gsize cut = 0; cut <= size; cut++) {
		uint64_t sum, queued;

		assert_true(g_file_set_contents(path, data, cut, NULL));
		if (cut < base) {
			expect_refused(G_IO_ERROR_INVALID_DATA, cut < 16 ? "not a state file" : "cut off");
			continue;
		}
		state = open_state();
		/*
		 * Each record changes one of them by one; the one with the reply changes two, the last acknowledges
		 * two.
		 */
		sum = hmc_state_taken(state) + hmc_state_queued(state) + hmc_state_acknowledged(state);
		assert_true(sum == last_sum || sum == last_sum + 1 || sum == last_sum + 2);
		last_sum = sum;
		/* The message taken and its reply are there both or not at all. */
		assert_true((hmc_state_taken(state) == 2) == (hmc_state_queued(state) == 3));
		queued = hmc_state_queued(state);
		queue(state, "new");
		hmc_state_close(state);

		state = open_state();
		assert_int_equal(hmc_state_cut(state), 0);
		assert_int_equal(hmc_state_queued(state), queued + 1);
		assert_memory_equal(g_bytes_get_data(hmc_state_pending(state)->tail->data, NULL), "new", 3);
		hmc_state_close(state);
	}
	assert_int_equal(last_sum, 2 + 3 + 2);
	g_free(data);
}

static void a_flipped_bit_before_the_last_record_is_refused(void **context)
{
	struct hmc_state *state = open_state();
	gsize size, last = 40 + 8;
	char *data;

	for (int i = 0; i < 3; i++)
		queue(state, "message one");
	queue(state, "the last");
	hmc_state_close(state);
	assert_true(g_file_get_contents(path, &data, &size, NULL));

	for (gsize i = 0; i < size - last; i++) {
		data[i] ^= 0x10;
		assert_true(g_file_set_contents(path, data, size, NULL));
		expect_refused(G_IO_ERROR_INVALID_DATA, i < 16 ? "does not exist yet" : "Move the file away");
		data[i] ^= 0x10;
	}
	g_free(data);
}

static void zeros_for_an_append_are_cut_off(void **context)
{
	struct hmc_state *state = open_state();
	char *data;
	gsize size;

	queue(state, "one");
	hmc_state_close(state);
	assert_true(g_file_get_contents(path, &data, &size, NULL));
	data = g_realloc(data, size + 500);
	memset(data + size, 0, 500);
	assert_true(g_file_set_contents(path, data, size + 500, NULL));
	state = open_state();
	assert_int_equal(hmc_state_cut(state), 500);
	assert_pending(state, "one", NULL);
	hmc_state_close(state);
	g_free(data);
}

static void more_rubbish_than_an_append_is_refused(void **context)
{
	struct hmc_state *state = open_state();
	char *data;
	gsize size;

	hmc_state_close(state);
	assert_true(g_file_get_contents(path, &data, &size, NULL));
	data = g_realloc(data, size + 5000);
	memset(data + size, 'x', 5000);
	assert_true(g_file_set_contents(path, data, size + 5000, NULL));
	expect_refused(G_IO_ERROR_INVALID_DATA, "Move the file away");
	g_free(data);
}

static void another_file_is_not_touched(void **context)
{
	char *data;
	gsize size;

	assert_true(g_file_set_contents(path, "dear diary", -1, NULL));
	expect_refused(G_IO_ERROR_INVALID_DATA, "not a state file");
	assert_true(g_file_get_contents(path, &data, &size, NULL));
	assert_string_equal(data, "dear diary");
	g_free(data);

	assert_true(g_file_set_contents(path, "", 0, NULL));
	expect_refused(G_IO_ERROR_INVALID_DATA, "not a state file");
}

static void a_second_process_is_kept_out(void **context)
{
	struct hmc_state *state = open_state();

	expect_refused(G_IO_ERROR_BUSY, "another hvpipe-hmc");
	hmc_state_close(state);
	hmc_state_close(open_state());
}

static void a_directory_or_fifo_is_refused(void **context)
{
	GError *error = NULL;

	assert_null(hmc_state_open(dir, &error));
	assert_non_null(strstr(error->message, dir));
	g_clear_error(&error);
	assert_int_equal(mkfifo(path, 0600), 0);
	expect_refused(G_IO_ERROR_NOT_REGULAR_FILE, "not a regular file");
}

/* FILE.new is never written through a link, nor with the mode of a file that was there. */
static void planted_files_are_not_written_to(void **context)
{
	char *new = g_strconcat(path, ".new", NULL), *victim = g_strconcat(dir, "/victim", NULL), *text;
	struct hmc_state *state;
	GError *error = NULL;
	struct stat st;

	assert_true(g_file_set_contents(victim, "safe", -1, NULL));
	assert_int_equal(symlink(victim, new), 0);
	assert_null(hmc_state_open(path, &error));
	assert_non_null(strstr(error->message, "a symbolic link; it is in the way"));
	g_clear_error(&error);
	assert_int_equal(unlink(new), 0);

	assert_int_equal(link(victim, new), 0);
	assert_int_equal(chmod(new, 0666), 0);
	state = hmc_state_open(path, &error);
	assert_non_null(state);
	hmc_state_close(state);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true(g_file_get_contents(victim, &text, NULL, NULL));
	assert_string_equal(text, "safe");
	assert_int_equal(unlink(victim), 0);
	g_free(text);
	g_free(new);
	g_free(victim);
}

static void a_missing_directory_is_named(void **context)
{
	GError *error = NULL;

	assert_null(hmc_state_open("/nonexistent/state", &error));
	assert_non_null(strstr(error->message, "/nonexistent/state"));
	g_error_free(error);
}

static void the_file_stays_small_and_whole(void **context)
{
	struct hmc_state *state = open_state();
	char big[4088];
	struct stat st;
	GBytes *message;
	off_t biggest = 0;

	memset(big, 'b', sizeof(big));
	message = g_bytes_new(big, sizeof(big));
	for (int i = 0; i < 3000; i++) {
		assert_true(hmc_state_queue(state, message, NULL));
		if (i >= 10)
			assert_true(hmc_state_acknowledge(state, i - 9, NULL));
		assert_int_equal(stat(path, &st), 0);
		biggest = MAX(biggest, st.st_size);
	}
	assert_true(biggest < 3 * 1024 * 1024);
	/* The lock is on the new file, too. */
	expect_refused(G_IO_ERROR_BUSY, "another hvpipe-hmc");
	hmc_state_close(state);

	state = open_state();
	assert_int_equal(hmc_state_queued(state), 3000);
	assert_int_equal(hmc_state_acknowledged(state), 2990);
	assert_int_equal(hmc_state_pending(state)->length, 10);
	assert_true(g_bytes_equal(hmc_state_pending(state)->tail->data, message));
	hmc_state_close(state);
	g_bytes_unref(message);
}

static void a_rest_of_a_file_written_anew_does_no_harm(void **context)
{
	char *new = g_strconcat(path, ".new", NULL);
	struct hmc_state *state;

	assert_true(g_file_set_contents(new, "half of a", -1, NULL));
	state = open_state();
	queue(state, "one");
	hmc_state_close(state);
	assert_true(g_file_set_contents(new, "half of a", -1, NULL));
	state = open_state();
	assert_pending(state, "one", NULL);
	hmc_state_close(state);
	g_free(new);
}

/*
 * A full disk, as a file size limit: the change fails, everything before it stays, and it goes on when there is room.
 */
static void a_failed_write_changes_nothing(void **context)
{
	struct hmc_state *state = open_state();
	struct rlimit old, limit;
	GError *error = NULL;
	GBytes *message = g_bytes_new_static("does not fit into what is left", 30);
	struct stat st;

	signal(SIGXFSZ, SIG_IGN);
	queue(state, "one");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = (struct rlimit){ .rlim_cur = st.st_size + 50, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_false(hmc_state_queue(state, message, &error));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_non_null(strstr(error->message, path));
	g_error_free(error);
	assert_pending(state, "one", NULL);

	queue(state, "two");
	hmc_state_close(state);
	state = open_state();
	assert_int_equal(hmc_state_cut(state), 0);
	assert_pending(state, "one", "two", NULL);
	hmc_state_close(state);
	g_bytes_unref(message);
}

static void a_symbolic_link_stays_one(void **context)
{
	char *link = g_strconcat(path, ".new2", NULL);
	struct hmc_state *state = open_state();
	struct stat st;
	char big[4088] = "x";
	GBytes *message = g_bytes_new(big, sizeof(big));

	hmc_state_close(state);
	assert_int_equal(symlink(path, link), 0);
	state = hmc_state_open(link, NULL);
	assert_non_null(state);
	for (int i = 1; i < 600; i++) {
		assert_true(hmc_state_queue(state, message, NULL));
		assert_true(hmc_state_acknowledge(state, i, NULL));
	}
	hmc_state_close(state);
	assert_int_equal(lstat(link, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	unlink(link);
	g_bytes_unref(message);
	g_free(link);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(new_state_has_a_session_of_its_own),
		TEST(all_is_there_after_a_restart),
		TEST(all_is_there_after_kill_9),
		TEST(a_file_cut_off_anywhere_is_an_earlier_state_or_refused),
		TEST(a_flipped_bit_before_the_last_record_is_refused),
		TEST(zeros_for_an_append_are_cut_off),
		TEST(more_rubbish_than_an_append_is_refused),
		TEST(another_file_is_not_touched),
		TEST(a_second_process_is_kept_out),
		TEST(a_directory_or_fifo_is_refused),
		TEST(planted_files_are_not_written_to),
		TEST(a_missing_directory_is_named),
		TEST(the_file_stays_small_and_whole),
		TEST(a_rest_of_a_file_written_anew_does_no_harm),
		TEST(a_failed_write_changes_nothing),
		TEST(a_symbolic_link_stays_one),
	};

	return cmocka_run_group_tests_name("hvpipe-hmc-state", tests, NULL, NULL);
}
