/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QTest for the sPAPR partition migration session
 *
 * No guest runs: the test makes the calls of the partition, and it is the
 * operator.
 */

#include "qemu/osdep.h"
#include <sys/un.h>
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "libqtest.h"

#define H_VASI_SIGNAL   0x2a0
#define H_VASI_STATE    0x2a4

#define H_SUCCESS       0
#define H_FUNCTION      -2
#define H_PARAMETER     -4
#define H_P2            -55

#define CANCEL          1

#define ABORTED         9000
#define NOT_SUSPENDABLE -9004

#define ARGS            0x100000
#define RETS            0x101000
#define STREAM          0x123456789abcdef0ull

#define MACHINE "-machine pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken," \
                "cap-ibs=broken,cap-ccf-assist=off -m 256 -nodefaults "

static char *dir;

static QTestState *boot(const char *args)
{
    return qtest_initf(MACHINE "-bios %s/firmware %s", dir, args);
}

static int64_t hcall(QTestState *qts, uint64_t opcode, uint64_t stream,
                     uint64_t arg, uint64_t *result)
{
    uint64_t args[4] = { stream, arg };
    int64_t status = qtest_hcall(qts, opcode, args);

    if (result) {
        *result = args[0];
    }
    return status;
}

/* Of an RTAS call; that of ibm,suspend-me is read when it runs again. */
static int rtas_status(QTestState *qts)
{
    uint32_t ret;

    qtest_memread(qts, RETS, &ret, sizeof(ret));
    return be32_to_cpu(ret);
}

static int suspend_me(QTestState *qts)
{
    qtest_rtas_call(qts, "ibm,suspend-me", 0, 0, 1, RETS);
    return rtas_status(qts);
}

static void start_cpu(QTestState *qts, uint32_t id)
{
    const uint32_t args[3] = { cpu_to_be32(id) };

    qtest_memwrite(qts, ARGS, args, sizeof(args));
    qtest_rtas_call(qts, "start-cpu", 3, ARGS, 1, RETS);
    g_assert_cmpint(rtas_status(qts), ==, 0);
}

static bool cpu_is_stopped(QTestState *qts, uint32_t id)
{
    const uint32_t arg = cpu_to_be32(id);
    uint32_t rets[2];

    qtest_memwrite(qts, ARGS, &arg, sizeof(arg));
    qtest_rtas_call(qts, "query-cpu-stopped-state", 1, ARGS, 2, RETS);
    qtest_memread(qts, RETS, rets, sizeof(rets));
    g_assert_cmpint(be32_to_cpu(rets[0]), ==, 0);
    return rets[1] == 0;
}

static void set_stream(QTestState *qts, uint64_t stream)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'qom-set', 'arguments': {"
                             " 'path': '/machine', 'property': 'vasi-stream',"
                             " 'value': %" PRIu64 " } }", stream);
}

static void set_state(QTestState *qts, const char *state)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'qom-set', 'arguments': {"
                             " 'path': '/machine', 'property': 'vasi-state',"
                             " 'value': %s } }", state);
}

static void expect_error(QTestState *qts, const char *property,
                         const char *value, const char *error)
{
    const char *desc;
    QDict *rsp;

    qtest_qmp_send_raw(qts, "{ 'execute': 'qom-set', 'arguments': {"
                       " 'path': '/machine', 'property': '%s', 'value': %s } }",
                       property, value);
    rsp = qtest_qmp_receive(qts);
    g_assert(qdict_haskey(rsp, "error"));
    desc = qdict_get_str(qdict_get_qdict(rsp, "error"), "desc");
    if (!strstr(desc, error)) {
        g_test_message("%s", desc);
    }
    g_assert(strstr(desc, error));
    qobject_unref(rsp);
}

static void expect_state(QTestState *qts, const char *state)
{
    QDict *rsp = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': {"
                           " 'path': '/machine',"
                           " 'property': 'vasi-state' } }");

    g_assert_cmpstr(qdict_get_str(rsp, "return"), ==, state);
    qobject_unref(rsp);
}

static void expect_poll(QTestState *qts, uint64_t state)
{
    uint64_t got;

    g_assert_cmpint(hcall(qts, H_VASI_STATE, STREAM, 0, &got), ==, H_SUCCESS);
    g_assert_cmpuint(got, ==, state);
}

/* Fall asleep in a session that is suspending. */
static void fall_asleep(QTestState *qts)
{
    g_assert_cmpint(suspend_me(qts), ==, 0);
    qtest_qmp_eventwait(qts, "SUSPEND");
    expect_state(qts, "suspended");
}

static QTestState *boot_asleep(void)
{
    QTestState *qts = boot("");

    set_stream(qts, STREAM);
    set_state(qts, "suspending");
    fall_asleep(qts);
    return qts;
}

/*
 * The tests
 */

static void test_none(void)
{
    QTestState *qts = boot("");

    g_assert_cmpint(hcall(qts, H_VASI_STATE, STREAM, 0, NULL), ==, H_FUNCTION);
    g_assert_cmpint(hcall(qts, H_VASI_STATE, 0, 0, NULL), ==, H_FUNCTION);
    g_assert_cmpint(hcall(qts, H_VASI_SIGNAL, 0, CANCEL, NULL), ==, H_FUNCTION);
    expect_state(qts, "invalid");

    /* A partition may sleep without being told to. */
    g_assert_cmpint(suspend_me(qts), ==, 0);
    qtest_qmp_eventwait(qts, "SUSPEND");
    expect_state(qts, "invalid");
    qtest_qmp_assert_success(qts, "{ 'execute': 'system_wakeup' }");
    qtest_qmp_eventwait(qts, "WAKEUP");
    g_assert_cmpint(rtas_status(qts), ==, 0);
    qtest_quit(qts);
}

static void test_in_place(void)
{
    QTestState *qts = boot("");
    uint64_t state;

    set_stream(qts, STREAM);
    expect_poll(qts, 1);
    g_assert_cmpint(hcall(qts, H_VASI_STATE, STREAM + 1, 0, &state), ==,
                    H_PARAMETER);
    g_assert_cmpint(suspend_me(qts), ==, NOT_SUSPENDABLE);
    set_state(qts, "suspending");
    expect_poll(qts, 3);
    fall_asleep(qts);
    qtest_qmp_assert_success(qts, "{ 'execute': 'system_wakeup' }");
    qtest_qmp_eventwait(qts, "WAKEUP");
    expect_poll(qts, 6);
    g_assert_cmpint(rtas_status(qts), ==, 0);
    g_assert_cmpint(suspend_me(qts), ==, NOT_SUSPENDABLE);
    g_assert_cmpint(hcall(qts, H_VASI_SIGNAL, STREAM, CANCEL, NULL), ==,
                    H_PARAMETER);
    expect_state(qts, "completed");

    /* And again, by the same name */
    set_stream(qts, STREAM);
    expect_poll(qts, 1);
    qtest_quit(qts);
}

static void test_abort(void)
{
    QTestState *qts = boot("");

    set_stream(qts, STREAM);
    set_state(qts, "aborted");
    expect_poll(qts, 2);
    g_assert_cmpint(suspend_me(qts), ==, ABORTED);
    g_assert_cmpint(hcall(qts, H_VASI_SIGNAL, STREAM, CANCEL, NULL), ==,
                    H_SUCCESS);

    set_stream(qts, STREAM);
    set_state(qts, "suspending");
    set_state(qts, "aborted");
    g_assert_cmpint(suspend_me(qts), ==, ABORTED);

    /* Who sleeps is woken by it. */
    set_stream(qts, STREAM);
    set_state(qts, "suspending");
    fall_asleep(qts);
    set_state(qts, "aborted");
    qtest_qmp_eventwait(qts, "WAKEUP");
    g_assert_cmpint(rtas_status(qts), ==, ABORTED);
    expect_poll(qts, 2);
    qtest_quit(qts);
}

static void test_cancel(void)
{
    QTestState *qts = boot("");

    set_stream(qts, STREAM);
    g_assert_cmpint(hcall(qts, H_VASI_SIGNAL, STREAM + 1, CANCEL, NULL), ==,
                    H_PARAMETER);
    g_assert_cmpint(hcall(qts, H_VASI_SIGNAL, STREAM, CANCEL + 1, NULL), ==,
                    H_P2);
    expect_poll(qts, 1);
    g_assert_cmpint(hcall(qts, H_VASI_SIGNAL, STREAM, CANCEL, NULL), ==,
                    H_SUCCESS);
    expect_poll(qts, 2);

    set_stream(qts, STREAM);
    set_state(qts, "suspending");
    g_assert_cmpint(hcall(qts, H_VASI_SIGNAL, STREAM, CANCEL, NULL), ==,
                    H_SUCCESS);
    expect_poll(qts, 2);
    expect_error(qts, "vasi-state", "'suspending'", "that is aborted does not");
    qtest_quit(qts);
}

static void test_errors(void)
{
    QTestState *qts = boot("");

    expect_error(qts, "vasi-stream", "0", "0 is no stream ID");
    expect_error(qts, "vasi-stream", "'x'", "vasi-stream");
    expect_error(qts, "vasi-state", "'suspending'", "that is invalid does not");
    expect_error(qts, "vasi-state", "'aborted'", "that is invalid does not");
    set_stream(qts, STREAM);
    expect_error(qts, "vasi-stream", "5", "0x123456789abcdef0 is enabled: "
                 "abort it");
    expect_error(qts, "vasi-state", "'suspended'", "'suspended' is not for an "
                 "operator to set, choose from: suspending aborted");
    expect_error(qts, "vasi-state", "''", "'' is not for an operator");
    set_state(qts, "suspending");
    expect_error(qts, "vasi-stream", "5", "is suspending: abort it");
    expect_error(qts, "vasi-state", "'suspending'", "that is suspending does");
    fall_asleep(qts);
    expect_error(qts, "vasi-stream", "5", "is suspended: abort it");
    expect_error(qts, "vasi-state", "'suspending'", "that is suspended does");
    qtest_qmp_assert_success(qts, "{ 'execute': 'system_wakeup' }");
    qtest_qmp_eventwait(qts, "WAKEUP");
    expect_state(qts, "completed");
    expect_error(qts, "vasi-state", "'aborted'", "that is completed does not");
    qtest_quit(qts);
}

static void migrate(QTestState *qts, const char *uri)
{
    g_autofree char *status = NULL;

    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", uri);
    do {
        QDict *rsp = qtest_qmp(qts, "{ 'execute': 'query-migrate' }");

        g_free(status);
        status = g_strdup(qdict_get_try_str(qdict_get_qdict(rsp, "return"),
                                            "status"));
        qobject_unref(rsp);
        g_assert_cmpstr(status, !=, "failed");
        g_usleep(1000);
    } while (g_strcmp0(status, "completed"));
}

static void wait_running(QTestState *qts)
{
    bool running;

    do {
        QDict *rsp = qtest_qmp(qts, "{ 'execute': 'query-status' }");

        running = g_str_equal(qdict_get_str(qdict_get_qdict(rsp, "return"),
                                            "status"), "running");
        qobject_unref(rsp);
        g_usleep(1000);
    } while (!running);
}

static void wait_polled(QTestState *qts, uint64_t state)
{
    uint64_t got;

    do {
        g_assert_cmpint(hcall(qts, H_VASI_STATE, STREAM, 0, &got), ==,
                        H_SUCCESS);
        g_usleep(1000);
    } while (got != state);
}

static void test_move(void)
{
    QTestState *source = boot_asleep(), *target;
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", dir);
    g_autofree char *args = g_strdup_printf("-incoming %s", uri);

    target = boot(args);
    migrate(source, uri);
    /* Wherever it arrives asleep it is woken up. */
    wait_running(target);
    wait_polled(target, 6);
    g_assert_cmpint(rtas_status(target), ==, 0);
    expect_state(source, "suspended");
    expect_error(source, "vasi-state", "'aborted'", "does not sleep here");
    qtest_quit(source);

    /* On to the next one */
    set_stream(target, STREAM + 1);
    expect_state(target, "enabled");
    qtest_quit(target);
}

/* CPUs that were started still are, and those that were stopped, too. */
static void test_cpus(void)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", dir);
    g_autofree char *args = g_strdup_printf("-smp 3 -incoming %s", uri);
    QTestState *source = boot("-smp 3"), *target = boot(args);

    start_cpu(source, 1);
    migrate(source, uri);
    wait_running(target);
    g_assert_false(cpu_is_stopped(target, 0));
    g_assert_false(cpu_is_stopped(target, 1));
    g_assert_true(cpu_is_stopped(target, 2));
    qtest_quit(source);
    qtest_quit(target);
}

/* A move that does not get on can be given up: the partition goes on here. */
static void test_cancel_move(void)
{
    g_autofree char *path = g_strdup_printf("%s/deaf", dir);
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    QTestState *qts = boot_asleep();
    int deaf = socket(AF_UNIX, SOCK_STREAM, 0);

    /* A target that takes the connection and reads nothing */
    pstrcpy(address.sun_path, sizeof(address.sun_path), path);
    g_assert(!bind(deaf, (struct sockaddr *)&address, sizeof(address)));
    g_assert(!listen(deaf, 1));
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate', 'arguments': "
                             "{ 'uri': %s } }", uri);
    expect_error(qts, "vasi-state", "'aborted'", "migrate_cancel wakes it up");
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate_cancel' }");
    qtest_qmp_eventwait(qts, "WAKEUP");
    g_assert_cmpint(rtas_status(qts), ==, 0);
    expect_state(qts, "completed");
    qtest_quit(qts);
    close(deaf);
    unlink(path);
}

/* The same if it fails: here there is nobody to take the partition. */
static void test_failed_move(void)
{
    QTestState *qts = boot_asleep();

    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate', 'arguments': "
                             "{ 'uri': 'exec:exit 1' } }");
    qtest_qmp_eventwait(qts, "WAKEUP");
    g_assert_cmpint(rtas_status(qts), ==, 0);
    expect_state(qts, "completed");
    qtest_quit(qts);
}

/* A stream that somebody has tampered with is refused, and says why. */
static void test_malformed(void)
{
    static const struct {
        int at;                 /* from the first byte of the stream ID */
        uint64_t value;
        int size;
        const char *error;
    } tests[] = {
        { 0, 0, 8, "spapr-vasi: migration: stream 0x0 has state 4" },
        { 8, 0, 1, "stream 0x123456789abcdef0 has state 0" },
        { 8, 7, 1, "stream 0x123456789abcdef0 has state 7" },
        { -4, 2, 4, "unsupported version 2 for 'spapr-vasi'" },
    };
    QTestState *qts = boot_asleep();
    g_autofree char *file = g_strdup_printf("%s/stream", dir);
    g_autofree char *uri = g_strdup_printf("exec:cat >%s", file);
    g_autofree char *command = g_strdup_printf(
        "timeout 60 %s -accel qtest " MACHINE "-nographic -bios %s/firmware "
        "-incoming 'exec:cat %s' 2>&1", getenv("QTEST_QEMU_BINARY"), dir, file);
    const uint64_t stream = cpu_to_be64(STREAM);
    g_autofree char *data = NULL;
    char *found;
    gsize size;
    int i;

    migrate(qts, uri);
    qtest_quit(qts);
    g_assert(g_file_get_contents(file, &data, &size, NULL));
    found = memmem(data, size, &stream, sizeof(stream));
    g_assert(found);

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        char kept[8], text[4096] = "", *at = found + tests[i].at;
        FILE *qemu;

        memcpy(kept, at, tests[i].size);
        stn_be_p(at, tests[i].size, tests[i].value);
        g_assert(g_file_set_contents(file, data, size, NULL));
        qemu = popen(command, "r");
        g_assert(fread(text, 1, sizeof(text) - 1, qemu) > 0);
        g_assert_cmpint(WEXITSTATUS(pclose(qemu)), ==, 1);
        if (!strstr(text, tests[i].error)) {
            g_test_message("%s", text);
        }
        g_assert(strstr(text, tests[i].error));
        memcpy(at, kept, tests[i].size);
    }
    unlink(file);
}

int main(int argc, char *argv[])
{
    g_autofree char *firmware = NULL;
    int status;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("vasi-XXXXXX", NULL);
    g_assert(dir);
    /* Nothing runs, but the machine insists on something to run. */
    firmware = g_strdup_printf("%s/firmware", dir);
    g_assert(g_file_set_contents(firmware, "none", 4, NULL));

    qtest_add_func("vasi/none", test_none);
    qtest_add_func("vasi/in-place", test_in_place);
    qtest_add_func("vasi/abort", test_abort);
    qtest_add_func("vasi/cancel", test_cancel);
    qtest_add_func("vasi/errors", test_errors);
    qtest_add_func("vasi/move", test_move);
    qtest_add_func("vasi/cpus", test_cpus);
    qtest_add_func("vasi/cancel-move", test_cancel_move);
    qtest_add_func("vasi/failed-move", test_failed_move);
    qtest_add_func("vasi/malformed", test_malformed);
    status = g_test_run();

    unlink(firmware);
    rmdir(dir);
    g_free(dir);
    return status;
}
