// SPDX-License-Identifier: GPL-2.0-or-later
/* What the state file promises: sessions that survive kills and power failures, and no harm by what others plant. */
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
#include <sqlite3.h>

#include "state.h"

static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };

static char *dir;
static char *path;
static struct hmc_store *store;
static struct hmc_state *state;

static int setup(void **context)
{
	dir = g_dir_make_tmp("test-hvpipe-hmc-store-XXXXXX", NULL);
	path = dir ? g_strconcat(dir, "/state", NULL) : NULL;
	return path ? 0 : -1;
}

static void close_store(void)
{
	if (state)
		hmc_state_close(state);
	if (store)
		hmc_store_close(store);
	state = NULL;
	store = NULL;
}

static int teardown(void **context)
{
	char *command = g_strdup_printf("rm -r %s", dir);
	int result;

	close_store();
	result = system(command);
	g_free(command);
	g_free(path);
	g_free(dir);
	return result;
}

static struct hmc_state *open_named(const char *name)
{
	GError *error = NULL;
	struct hmc_state *named = hmc_state_open(store, name, &error);

	if (!named)
		fail_msg("%s", error->message);
	return named;
}

static void open_store(void)
{
	GError *error = NULL;

	close_store();
	store = hmc_store_open(path, &error);
	if (!store)
		fail_msg("%s", error->message);
	state = open_named("default");
}

static void commit(void)
{
	GError *error = NULL;

	if (!hmc_store_commit(store, &error))
		fail_msg("%s", error->message);
}

/* The open must fail with this code (-1: any) and name these words. */
static void expect_refused(int code, const char *words)
{
	GError *error = NULL;
	struct hmc_state *refused = NULL;

	close_store();
	store = hmc_store_open(path, &error);
	if (store)
		refused = hmc_state_open(store, "default", &error);
	assert_null(refused);
	if (code >= 0 && !g_error_matches(error, G_IO_ERROR, code))
		fail_msg("not code %d: %s", code, error->message);
	if (!strstr(error->message, words))
		fail_msg("'%s' is not in: %s", words, error->message);
	assert_non_null(strstr(error->message, dir));
	g_error_free(error);
	close_store();
}

static void queue(struct hmc_state *to, const char *text)
{
	GBytes *message = g_bytes_new(text, strlen(text));

	hmc_state_queue(to, message);
	g_bytes_unref(message);
}

static void take(const char *reply)
{
	GBytes *message = reply ? g_bytes_new(reply, strlen(reply)) : NULL;

	hmc_state_take(state, message);
	g_clear_pointer(&message, g_bytes_unref);
}

static void assert_pending(const struct hmc_state *of, ...)
{
	const GList *l = hmc_state_pending(of)->head;
	const char *text;
	va_list args;

	va_start(args, of);
	while ((text = va_arg(args, const char *))) {
		assert_non_null(l);
		assert_int_equal(g_bytes_get_size(l->data), strlen(text));
		assert_memory_equal(g_bytes_get_data(l->data, NULL), text, strlen(text));
		l = l->next;
	}
	va_end(args);
	assert_null(l);
	assert_int_equal(hmc_state_queued(of) - hmc_state_acknowledged(of), hmc_state_pending(of)->length);
}

/* Change the file as sqlite3(1) could. */
static void change(const char *sql)
{
	char *message = NULL;
	sqlite3 *db;

	close_store();
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
		fail_msg("%s: %s", sql, message);
	sqlite3_close(db);
}

/*
 * Sessions
 */

static void session_is_random(void **context)
{
	struct hmc_store *memory = hmc_store_open(NULL, NULL);
	struct hmc_state *other = hmc_state_open(memory, "default", NULL);

	open_store();
	assert_int_not_equal(hmc_state_session(state), 0);
	assert_int_not_equal(hmc_state_session(other), 0);
	assert_int_not_equal(hmc_state_session(state), hmc_state_session(other));
	assert_int_equal(hmc_state_taken(state), 0);
	assert_int_equal(hmc_state_queued(state), 0);
	assert_int_equal(hmc_state_source(state), 0);
	hmc_state_close(other);
	hmc_store_close(memory);
}

static void survives_restart(void **context)
{
	uint64_t session;

	open_store();
	session = hmc_state_session(state);
	hmc_state_bind(state, 0x02000001);
	hmc_state_set_epoch(state, 0xf0f1f2f3f4f5f6f7);
	queue(state, "one");
	queue(state, "two");
	take(NULL);
	commit();
	take("three");
	hmc_state_acknowledge(state, 1);
	commit();

	open_store();
	assert_int_equal(hmc_state_session(state), session);
	assert_int_equal(hmc_state_source(state), 0x02000001);
	assert_int_equal(hmc_state_epoch(state), 0xf0f1f2f3f4f5f6f7);
	assert_int_equal(hmc_state_taken(state), 2);
	assert_int_equal(hmc_state_acknowledged(state), 1);
	assert_int_equal(hmc_state_queued(state), 3);
	assert_pending(state, "two", "three", NULL);
	hmc_state_acknowledge(state, 3);
	commit();
	open_store();
	assert_pending(state, NULL);
}

static void uncommitted_is_lost(void **context)
{
	open_store();
	queue(state, "one");
	commit();
	queue(state, "two");
	open_store();
	assert_pending(state, "one", NULL);
}

static void survives_kill(void **context)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		open_store();
		queue(state, "one");
		take("two");
		commit();
		queue(state, "three");
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	open_store();
	assert_int_equal(hmc_state_taken(state), 1);
	assert_pending(state, "one", "two", NULL);
}

/*
 * A power failure leaves the file as of the last checkpoint, and any part of the log that was not synced yet: cut off
 * anywhere, or with rubbish at its end. That is a state after one of the commits, never damage; and it goes on.
 */
static void survives_power_failure(void **context)
{
	gsize file_size, log_size;
	char *file, *log, *log_path = g_strconcat(path, "-wal", NULL);
	uint64_t last = 0;

	open_store();
	for (int i = 1; i <= 5; i++) {
		queue(state, "a message");
		take(NULL);
		hmc_state_acknowledge(state, i - 1);
		commit();
	}
	assert_true(g_file_get_contents(path, &file, &file_size, NULL));
	assert_true(g_file_get_contents(log_path, &log, &log_size, NULL));
	assert_in_range(log_size, 6 * 4096, 1024 * 1024);
	close_store();

	for (gsize cut = 0; cut <= log_size; cut += 509) {
		uint64_t taken;

		assert_true(g_file_set_contents_full(path, file, file_size, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
		assert_true(g_file_set_contents_full(log_path, log, cut, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
		if (cut % 2) {
			int fd = open(log_path, O_WRONLY | O_APPEND | O_CLOEXEC);

			assert_int_equal(write(fd, "rubbish of an unfinished write", 30), 30);
			close(fd);
		}
		open_store();
		taken = hmc_state_taken(state);
		assert_true(taken == last || taken == last + 1);
		last = taken;
		assert_int_equal(hmc_state_queued(state), taken);
		assert_int_equal(hmc_state_pending(state)->length, taken ? 1 : 0);
		take(NULL);
		commit();
		open_store();
		assert_int_equal(hmc_state_taken(state), taken + 1);
		close_store();
	}
	assert_in_range(last, 4, 5);
	g_free(file);
	g_free(log);
	g_free(log_path);
}

static void serves_many_links(void **context)
{
	struct hmc_state *states[100];

	open_store();
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < G_N_ELEMENTS(states); i++) {
			char *name = g_strdup_printf("lpar%zu/hmc1", i);

			states[i] = open_named(name);
			assert_int_equal(hmc_state_taken(states[i]), round ? i : 0);
			for (size_t j = 0; !round && j < i; j++)
				hmc_state_take(states[i], NULL);
			if (!round)
				queue(states[i], name);
			else
				assert_pending(states[i], name, NULL);
			g_free(name);
		}
		if (!round)
			commit();
		for (size_t i = 0; i < G_N_ELEMENTS(states); i++)
			hmc_state_close(states[i]);
		open_store();
	}
}

/* The files that were stored last are known, those of each link for itself. */
static void stored_files_kept(void **context)
{
	static const char sha256[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
	struct hmc_state *other;

	open_store();
	other = open_named("other");
	hmc_state_add_file(other, 7, sha256);
	for (uint64_t id = 1; id <= 200; id++) {
		hmc_state_add_file(state, id << 32, sha256);
		hmc_state_take(state, NULL);
		/* None, one and more than can be known between two commits. */
		if (id <= 10 || id == 100)
			commit();
	}
	commit();
	hmc_state_add_file(state, 201, sha256);
	hmc_state_close(other);

	for (int i = 0; i < 2; i++) {
		const struct hmc_stored_file *file;
		uint64_t id = 200 - HMC_STATE_FILES + 1 + i;

		open_store();
		assert_int_equal(hmc_state_files(state)->length, HMC_STATE_FILES);
		for (const GList *l = hmc_state_files(state)->head; l; l = l->next, id++) {
			file = l->data;
			assert_int_equal(file->id, id <= 200 ? id << 32 : 300);
			assert_string_equal(file->sha256, sha256);
		}
		other = open_named("other");
		assert_int_equal(hmc_state_files(other)->length, 1);
		hmc_state_close(other);
		hmc_state_add_file(state, 300, sha256);
		commit();
	}
	close_store();
	change("SELECT 1 / (count(*) = 65) FROM file");
}

static void file_stays_small(void **context)
{
	char big[4088] = "b";
	GBytes *message = g_bytes_new(big, sizeof(big));
	struct stat st;

	open_store();
	for (int i = 1; i <= 3000; i++) {
		hmc_state_queue(state, message);
		if (i > 10)
			hmc_state_acknowledge(state, i - 10);
		if (i % 4 == 0)
			commit();
	}
	for (size_t i = 0; i < 2; i++) {
		char *one = g_strconcat(path, suffixes[i], NULL);

		assert_int_equal(stat(one, &st), 0);
		assert_in_range(st.st_size, 1, 6 * 1024 * 1024);
		g_free(one);
	}
	open_store();
	assert_int_equal(hmc_state_queued(state), 3000);
	assert_int_equal(hmc_state_pending(state)->length, 10);
	g_bytes_unref(message);
}

/* While it is in use others can read it, and no other hvpipe-hmc can use it. */
static void one_process_at_a_time(void **context)
{
	GError *error = NULL;
	sqlite3 *db;

	open_store();
	take(NULL);
	commit();
	assert_null(hmc_store_open(path, &error));
	assert_true(g_error_matches(error, G_IO_ERROR, G_IO_ERROR_BUSY));
	assert_non_null(strstr(error->message, "another hvpipe-hmc"));
	g_error_free(error);

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "SELECT * FROM link", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "UPDATE link SET taken = 0", NULL, NULL, NULL), SQLITE_BUSY);
	assert_int_equal(sqlite3_exec(db, "BEGIN; SELECT * FROM link", NULL, NULL, NULL), SQLITE_OK);
	take(NULL);
	commit();
	sqlite3_close(db);
	open_store();
	assert_int_equal(hmc_state_taken(state), 2);
}

/*
 * Files that are none
 */

static void old_format_refused(void **context)
{
	/* What version 1 wrote: its header. */
	static const char old[40] = "hvpipe-hmc 1\n\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08";
	char *data;
	gsize size;

	assert_true(g_file_set_contents(path, old, sizeof(old), NULL));
	expect_refused(G_IO_ERROR_INVALID_DATA, "in the format of an older hvpipe-hmc");
	assert_true(g_file_get_contents(path, &data, &size, NULL));
	assert_int_equal(size, sizeof(old));
	assert_memory_equal(data, old, sizeof(old));
	g_free(data);
}

static void newer_format_refused(void **context)
{
	open_store();
	change("PRAGMA user_version = 4");
	expect_refused(G_IO_ERROR_INVALID_DATA, "format 4");
}

static void other_file_untouched(void **context)
{
	char *data;

	assert_true(g_file_set_contents(path, "dear diary, today I wrote no database at all, but this long line", -1,
					NULL));
	expect_refused(G_IO_ERROR_INVALID_DATA, "not a state file");
	assert_true(g_file_get_contents(path, &data, NULL, NULL));
	assert_true(g_str_has_prefix(data, "dear diary"));
	g_free(data);
	unlink(path);

	change("CREATE TABLE diary (day, text); INSERT INTO diary VALUES (1, 'dear diary')");
	expect_refused(G_IO_ERROR_INVALID_DATA, "a database, but not a state file");
	change("SELECT 1 / count(*) FROM diary");
}

static void empty_file_is_new(void **context)
{
	assert_true(g_file_set_contents(path, "", 0, NULL));
	open_store();
	take(NULL);
	commit();
	open_store();
	assert_int_equal(hmc_state_taken(state), 1);
}

static void directory_or_fifo_refused(void **context)
{
	assert_int_equal(mkfifo(path, 0600), 0);
	expect_refused(G_IO_ERROR_NOT_REGULAR_FILE, "not a regular file");
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	expect_refused(G_IO_ERROR_NOT_REGULAR_FILE, "not a regular file");
}

static void missing_directory_named(void **context)
{
	GError *error = NULL;

	assert_null(hmc_store_open("/nonexistent/state", &error));
	assert_non_null(strstr(error->message, "/nonexistent"));
	g_error_free(error);
}

/*
 * Damage
 */

static void damaged_pages_refused(void **context)
{
	gsize size;
	char *data;

	open_store();
	for (int i = 0; i < 20; i++)
		queue(state, "a message that makes it more than one page");
	commit();
	close_store();
	assert_true(g_file_get_contents(path, &data, &size, NULL));
	assert_in_range(size, 4 * 4096, 1024 * 1024);

	/* The begin of each page says what is in it. */
	for (gsize page = 0; page < size; page += 4096) {
		char *bad = g_memdup2(data, size);

		memset(bad + page, 'x', 100);
		assert_true(g_file_set_contents_full(path, bad, size, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
		expect_refused(G_IO_ERROR_INVALID_DATA, "Move the file away");
		g_free(bad);
	}
	assert_true(g_file_set_contents_full(path, data, size - 4096, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
	expect_refused(G_IO_ERROR_INVALID_DATA, "Move the file away");
	g_free(data);
}

static void impossible_rows_refused(void **context)
{
	static const char *const changes[] = {
		"UPDATE link SET session = 'xyz'",
		"UPDATE link SET session = '0000000000000000'",
		"UPDATE link SET epoch = 12",
		"UPDATE link SET source = -1",
		"UPDATE link SET taken = -1",
		"UPDATE link SET acknowledged = 4",
		"UPDATE link SET queued = 2",
		"UPDATE link SET queued = 9",
		"DELETE FROM message WHERE sequence = 2",
		"UPDATE message SET data = 'text' WHERE sequence = 2",
		"UPDATE message SET data = x'' WHERE sequence = 2",
		"UPDATE message SET data = zeroblob(4089) WHERE sequence = 2",
		"CREATE TRIGGER t AFTER UPDATE ON link BEGIN DELETE FROM message; END",
		"ALTER TABLE link ADD COLUMN more",
		"DROP TABLE message",
		"UPDATE file SET id = '12'",
		"UPDATE file SET sha256 = '12'",
		"UPDATE file SET sha256 = sha256 || '0'",
		"UPDATE file SET number = -1",
	};

	for (size_t i = 0; i < G_N_ELEMENTS(changes); i++) {
		unlink(path);
		open_store();
		queue(state, "one");
		queue(state, "two");
		queue(state, "three");
		hmc_state_add_file(state, 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
		commit();
		change(changes[i]);
		expect_refused(G_IO_ERROR_INVALID_DATA, "damaged state file");
	}
}

/*
 * What others plant
 */

static void links_not_followed(void **context)
{
	char *victim = g_strconcat(dir, "/victim", NULL), *text;

	for (size_t i = 0; i < G_N_ELEMENTS(suffixes); i++) {
		char *planted = g_strconcat(path, suffixes[i], NULL);

		assert_true(g_file_set_contents(victim, "safe", -1, NULL));
		assert_int_equal(symlink(victim, planted), 0);
		expect_refused(G_IO_ERROR_NOT_REGULAR_FILE, "a symbolic link");
		assert_int_equal(unlink(planted), 0);
		assert_int_equal(link(victim, planted), 0);
		expect_refused(G_IO_ERROR_NOT_REGULAR_FILE, "hard links");
		assert_int_equal(unlink(planted), 0);
		assert_true(g_file_get_contents(victim, &text, NULL, NULL));
		assert_string_equal(text, "safe");
		g_free(text);
		g_free(planted);
	}
	/* A link to nowhere would be a new file there. */
	unlink(victim);
	assert_int_equal(symlink(victim, path), 0);
	expect_refused(G_IO_ERROR_NOT_REGULAR_FILE, "a symbolic link");
	assert_int_equal(access(victim, F_OK), -1);
	g_free(victim);
}

static void foreign_file_refused(void **context)
{
	if (geteuid())
		skip();
	for (size_t i = 0; i < G_N_ELEMENTS(suffixes); i++) {
		char *planted = g_strconcat(path, suffixes[i], NULL);

		assert_true(g_file_set_contents(planted, "", 0, NULL));
		assert_int_equal(chown(planted, 65534, 65534), 0);
		expect_refused(G_IO_ERROR_PERMISSION_DENIED, "belongs to user 65534");
		assert_int_equal(unlink(planted), 0);
		g_free(planted);
	}
}

static void open_directory_refused(void **context)
{
	assert_int_equal(chmod(dir, 01777), 0);
	expect_refused(G_IO_ERROR_PERMISSION_DENIED, "everybody may write there");
	assert_int_equal(access(path, F_OK), -1);
}

static void mode_is_0600(void **context)
{
	mode_t mask = umask(0);

	for (int round = 0; round < 2; round++) {
		open_store();
		commit();
		for (size_t i = 0; i < 3; i++) {
			char *one = g_strconcat(path, suffixes[i], NULL);
			struct stat st;

			assert_int_equal(stat(one, &st), 0);
			assert_int_equal(st.st_mode & 07777, 0600);
			g_free(one);
		}
		close_store();
		/* One that was readable by all. */
		assert_int_equal(chmod(path, 0666), 0);
	}
	umask(mask);
}

/*
 * A full disk, as a limit of the file's size: the commit fails and says why, and all before it is there.
 */
static void disk_full(void **context)
{
	char big[4088] = "x";
	struct rlimit old, limit;
	GBytes *message = g_bytes_new(big, sizeof(big));
	GError *error = NULL;
	struct stat st;
	char *log = g_strconcat(path, "-wal", NULL);

	signal(SIGXFSZ, SIG_IGN);
	open_store();
	queue(state, "one");
	commit();
	assert_int_equal(stat(log, &st), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = (struct rlimit){ .rlim_cur = st.st_size + 5000, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	hmc_state_queue(state, message);
	assert_false(hmc_store_commit(store, &error));
	assert_non_null(strstr(error->message, path));
	g_clear_error(&error);
	/* Memory is ahead of the file now, so there is no going on. */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_false(hmc_store_commit(store, &error));
	assert_non_null(strstr(error->message, "an earlier write failed"));
	g_error_free(error);

	open_store();
	assert_pending(state, "one", NULL);
	queue(state, "two");
	commit();
	open_store();
	assert_pending(state, "one", "two", NULL);
	g_bytes_unref(message);
	g_free(log);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(session_is_random),
		TEST(survives_restart),
		TEST(uncommitted_is_lost),
		TEST(survives_kill),
		TEST(survives_power_failure),
		TEST(serves_many_links),
		TEST(stored_files_kept),
		TEST(file_stays_small),
		TEST(one_process_at_a_time),
		TEST(old_format_refused),
		TEST(newer_format_refused),
		TEST(other_file_untouched),
		TEST(empty_file_is_new),
		TEST(directory_or_fifo_refused),
		TEST(missing_directory_named),
		TEST(damaged_pages_refused),
		TEST(impossible_rows_refused),
		TEST(links_not_followed),
		TEST(foreign_file_refused),
		TEST(open_directory_refused),
		TEST(mode_is_0600),
		TEST(disk_full),
	};

	return cmocka_run_group_tests_name("hvpipe-hmc-store", tests, NULL, NULL);
}
