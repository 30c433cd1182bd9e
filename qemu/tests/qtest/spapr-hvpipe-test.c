/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QTest for the sPAPR hypervisor pipe
 *
 * No guest runs: the test makes the RTAS calls of the partition, and it is the
 * HMCs on the other side of the chardevs.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "libqtest.h"
#include "hw/ppc/spapr_hvpipe_link.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Where the calls have their arguments, results and buffers */
#define ARGS            0x100000
#define RETS            0x101000
#define LIST            0x102000
#define PARAMETER       0x103000
#define LOG             0x104000
#define INBOX           0x106000
#define OUTBOX          0x108000
#define OTHER_LIST      0x10a000
#define OTHER_OUTBOX    0x10c000
#define RAM_SIZE        (256 * MiB)

#define HMC1            0x02000001
#define HMC2            0x02000002
#define ECHO            0x02000003

#define FAILED          -1
#define BUSY            -2
#define BAD_PARAMETER   -3
#define CLOSED          -4
#define NOT_AVAILABLE   -5
#define BUSY_1MS        9900

#define MESSAGE         0x01
#define LOST            0x02

#define PATIENCE_MS     10000

typedef struct Partition {
    QTestState *qts;
    char *dir;
} Partition;

static char *path_in(const Partition *p, const char *name)
{
    return g_strdup_printf("%s/%s", p->dir, name);
}

static char *read_file(const Partition *p, const char *name)
{
    g_autofree char *path = path_in(p, name);
    char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return g_strdup("");
    }
    return text;
}

static Partition *partition_new(void)
{
    Partition *p = g_new0(Partition, 1);
    g_autofree char *firmware = NULL;

    p->dir = g_dir_make_tmp("hvpipe-XXXXXX", NULL);
    g_assert(p->dir);
    /* Nothing runs, but the machine insists on something to run. */
    firmware = path_in(p, "firmware");
    g_assert(g_file_set_contents(firmware, "none", 4, NULL));
    return p;
}

#define MACHINE "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken," \
                "cap-ibs=broken,cap-ccf-assist=off"

static void partition_boot(Partition *p, const char *name, const char *devices)
{
    p->qts = qtest_initf(
        "-machine " MACHINE " -m 256 -nodefaults -bios %s/firmware "
        "-chardev socket,id=hmc1,path=%s/%s-hmc1,server=on,wait=off "
        "-chardev socket,id=hmc2,path=%s/%s-hmc2,server=on,wait=off "
        "%s 2>>%s/stderr",
        p->dir, p->dir, name, p->dir, name, devices, p->dir);
}

#define PIPE_WITH(properties) \
    "-device spapr-hvpipe,id=hvpipe," properties " "
#define PIPE PIPE_WITH("capable=on")
#define INCAPABLE PIPE_WITH("capable=off")
#define HMC_DEVICE "-device spapr-hvpipe-source,"
#define SOURCE1 HMC_DEVICE "id=source1,source-id=0x02000001,chardev=hmc1 "
#define SOURCE2 HMC_DEVICE "id=source2,source-id=0x02000002,chardev=hmc2 "
#define SOURCE3 "-device spapr-hvpipe-echo,id=source3,source-id=0x02000003 "

static Partition *partition_start(const char *devices)
{
    Partition *p = partition_new();

    partition_boot(p, "a", devices);
    return p;
}

static void partition_stop(Partition *p)
{
    GDir *dir = g_dir_open(p->dir, 0, NULL);
    const char *name;

    if (p->qts) {
        qtest_quit(p->qts);
    }
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = path_in(p, name);

        unlink(path);
    }
    g_dir_close(dir);
    rmdir(p->dir);
    g_free(p->dir);
    g_free(p);
}

/*
 * The partition's side
 */

static void store_words(Partition *p, uint64_t addr, const uint32_t *words,
                        int n)
{
    uint32_t be[8];
    int i;

    for (i = 0; i < n; i++) {
        be[i] = cpu_to_be32(words[i]);
    }
    qtest_memwrite(p->qts, addr, be, n * sizeof(be[0]));
}

static void load_words(Partition *p, uint64_t addr, uint32_t *words, int n)
{
    int i;

    qtest_memread(p->qts, addr, words, n * sizeof(words[0]));
    for (i = 0; i < n; i++) {
        words[i] = be32_to_cpu(words[i]);
    }
}

/* Make an RTAS call. One that does not exist leaves its results alone. */
#define NO_SUCH_CALL    ((int)0xeeeeeeee)

static int rtas(Partition *p, const char *name, const uint32_t *args, int nargs,
                uint32_t *rets, int nret)
{
    store_words(p, ARGS, args, nargs);
    qtest_memset(p->qts, RETS, 0xee, 4 * nret);
    qtest_rtas_call(p->qts, name, nargs, ARGS, nret, RETS);
    load_words(p, RETS, rets, nret);
    return rets[0];
}

static int set_parameter(Partition *p, uint16_t length, uint8_t value)
{
    const uint8_t parameter[] = { length >> 8, length, value };
    const uint32_t args[] = { 64, PARAMETER };
    uint32_t ret;

    qtest_memwrite(p->qts, PARAMETER, parameter, sizeof(parameter));
    return rtas(p, "ibm,set-system-parameter", args, 2, &ret, 1);
}

static int call_send(Partition *p, uint32_t source, uint32_t list)
{
    const uint32_t args[] = { source, list };
    uint32_t ret;

    return rtas(p, "ibm,send-hvpipe-msg", args, 2, &ret, 1);
}

static int send_from(Partition *p, uint32_t list_addr, uint32_t addr,
                     uint32_t source, const void *payload, uint64_t size)
{
    const uint64_t list[] = {
        cpu_to_be64(24), cpu_to_be64(addr), cpu_to_be64(size)
    };

    qtest_memwrite(p->qts, addr, payload, size);
    qtest_memwrite(p->qts, list_addr, list, sizeof(list));
    return call_send(p, source, list_addr);
}

static int send_once(Partition *p, uint32_t source, const void *payload,
                     uint64_t size)
{
    return send_from(p, LIST, OUTBOX, source, payload, size);
}

/* Send and poll, as the driver does, until there is an answer. */
static int send_wait(Partition *p, uint32_t source, const void *payload,
                     uint64_t size)
{
    int64_t end = g_get_monotonic_time() + PATIENCE_MS * 1000;
    int status;

    do {
        status = send_once(p, source, payload, size);
    } while ((status == BUSY || status == BUSY_1MS) &&
             g_get_monotonic_time() < end);
    return status;
}

static int send_text(Partition *p, uint32_t source, const char *text)
{
    return send_once(p, source, text, strlen(text));
}

/* A call that is no retry of send_text()'s: its list is another one. */
static int send_other(Partition *p, uint32_t source, const char *text)
{
    return send_from(p, OTHER_LIST, OTHER_OUTBOX, source, text, strlen(text));
}

static int call_receive(Partition *p, uint32_t addr, uint32_t room,
                        uint32_t *source, uint32_t *size)
{
    const uint32_t args[] = { addr, room };
    uint32_t rets[3];
    int status = rtas(p, "ibm,receive-hvpipe-msg", args, 2, rets, 3);

    *source = rets[1];
    *size = rets[2];
    return status;
}

static void expect_receive(Partition *p, uint32_t source, const void *payload,
                           uint32_t size)
{
    uint8_t got[HVPIPE_LINK_MAX_PAYLOAD];
    uint32_t got_source, got_size;

    g_assert_cmpint(call_receive(p, INBOX, 4096, &got_source, &got_size), ==,
                    0);
    g_assert_cmphex(got_source, ==, source);
    g_assert_cmpuint(got_size, ==, size);
    qtest_memread(p->qts, INBOX, got, size);
    g_assert(!memcmp(got, payload, size));
}

static void expect_text(Partition *p, uint32_t source, const char *text)
{
    expect_receive(p, source, text, strlen(text));
}

static void expect_nothing(Partition *p)
{
    expect_receive(p, 0, NULL, 0);
}

typedef struct Event {
    uint8_t log_type;
    int section;            /* bytes of the section, 0: none */
    uint32_t source;
    uint8_t type;
} Event;

static int check_exception(Partition *p, uint32_t mask, Event *event)
{
    const uint32_t args[] = { 0x500, 0x1002, mask, 1, LOG, 2048 };
    uint8_t log[2048];
    uint32_t ret, size, at;
    int status = rtas(p, "check-exception", args, 6, &ret, 1);

    memset(event, 0, sizeof(*event));
    if (status) {
        return status;
    }

    qtest_memread(p->qts, LOG, log, sizeof(log));
    event->log_type = log[3];
    g_assert_cmpuint(log[0], ==, 6);    /* version */
    size = ldl_be_p(log + 4) + 8;
    g_assert_cmpuint(size, <=, sizeof(log));
    g_assert_cmpmem(log + 8 + 12, 4, "IBM", 4);
    for (at = 8 + 16; at < size; at += lduw_be_p(log + at + 2)) {
        g_assert_cmpuint(lduw_be_p(log + at + 2), >=, 8);
        if (!memcmp(log + at, "PE", 2)) {
            event->section = lduw_be_p(log + at + 2);
            event->source = ldl_be_p(log + at + 8);
            event->type = log[at + 12];
        }
    }
    g_assert_cmpuint(at, ==, size);
    return 0;
}

static bool get_event(Partition *p, Event *event)
{
    int status = check_exception(p, 0x04000000, event);

    g_assert(status == 0 || status == 1);
    return status == 0;
}

static void expect_no_event(Partition *p)
{
    Event event;

    g_assert(!get_event(p, &event));
}

/* An event that follows from what an HMC did comes when QEMU has seen it. */
static void expect_event(Partition *p, uint32_t source, uint8_t type)
{
    int64_t end = g_get_monotonic_time() + PATIENCE_MS * 1000;
    Event event;

    while (!get_event(p, &event)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(200);
    }
    g_assert_cmphex(event.log_type, ==, 0xe6);
    g_assert_cmpint(event.section, ==, 16);
    g_assert_cmphex(event.source, ==, source);
    g_assert_cmphex(event.type, ==, type);
}

/* A property of the device @id, for the caller to release */
static QDict *get_property(Partition *p, const char *id, const char *property)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", id);

    return qtest_qmp(p->qts, "{ 'execute': 'qom-get', 'arguments': {"
                     " 'path': %s, 'property': %s } }", path, property);
}

static uint64_t get_number(Partition *p, const char *id, const char *property)
{
    QDict *rsp = get_property(p, id, property);
    uint64_t number = qdict_get_int(rsp, "return");

    qobject_unref(rsp);
    return number;
}

static bool get_bool(Partition *p, const char *id, const char *property)
{
    QDict *rsp = get_property(p, id, property);
    bool value = qdict_get_bool(rsp, "return");

    qobject_unref(rsp);
    return value;
}

static char *get_text(Partition *p, const char *id, const char *property)
{
    QDict *rsp = get_property(p, id, property);
    char *text = g_strdup(qdict_get_str(rsp, "return"));

    qobject_unref(rsp);
    return text;
}

static void expect_number(Partition *p, const char *id, const char *property,
                          uint64_t number)
{
    g_assert_cmpuint(get_number(p, id, property), ==, number);
}

static void expect_link(Partition *p, const char *id, const char *state)
{
    g_autofree char *text = get_text(p, id, "link");

    g_assert_cmpstr(text, ==, state);
}

static void inject(Partition *p, const char *fault)
{
    qtest_qmp_assert_success(p->qts, "{ 'execute': 'qom-set', 'arguments': {"
                             " 'path': '/machine/peripheral/hvpipe',"
                             " 'property': 'inject', 'value': %s } }", fault);
}

static char *inject_error(Partition *p, const char *fault)
{
    QDict *rsp = qtest_qmp(p->qts, "{ 'execute': 'qom-set', 'arguments': {"
                           " 'path': '/machine/peripheral/hvpipe',"
                           " 'property': 'inject', 'value': %s } }", fault);
    char *text;

    g_assert(qdict_haskey(rsp, "error"));
    text = g_strdup(qdict_get_str(qdict_get_qdict(rsp, "error"), "desc"));
    qobject_unref(rsp);
    return text;
}

/*
 * The HMC's side
 */

static int hmc_connect_to(Partition *p, const char *name)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", p->dir, name);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    return fd;
}

static void hmc_write(int fd, const void *data, size_t size)
{
    g_assert_cmpint(send(fd, data, size, MSG_NOSIGNAL), ==, size);
}

static void hmc_frame(int fd, uint8_t type, uint64_t sequence,
                      const void *payload, uint16_t size)
{
    uint8_t frame[HVPIPE_LINK_MAX_FRAME];

    hvpipe_link_pack_header(frame, type, size, sequence);
    if (size) {
        memcpy(frame + HVPIPE_LINK_HEADER_SIZE, payload, size);
    }
    hmc_write(fd, frame, HVPIPE_LINK_HEADER_SIZE + size);
}

static void hmc_message(int fd, uint64_t sequence, const char *text)
{
    hmc_frame(fd, HVPIPE_LINK_MESSAGE, sequence, text, strlen(text));
}

static void hmc_ack(int fd, uint64_t sequence)
{
    hmc_frame(fd, HVPIPE_LINK_ACK, sequence, NULL, 0);
}

/* Read what comes within the time; false at the end of the stream. */
static bool hmc_read(int fd, void *data, size_t size, int timeout_ms)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };
    size_t done = 0;

    while (done < size) {
        ssize_t n;

        g_assert_cmpint(poll(&pfd, 1, timeout_ms), ==, 1);
        n = recv(fd, (char *)data + done, size - done, 0);
        if (n <= 0) {
            g_assert_cmpuint(done, ==, 0);
            return false;
        }
        done += n;
    }
    return true;
}

/* End politely: when that is done, all that was written has been read. */
static void hmc_leave(int fd)
{
    char byte;

    shutdown(fd, SHUT_WR);
    g_assert(!hmc_read(fd, &byte, 1, PATIENCE_MS));
    close(fd);
}

static bool hmc_silent(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    return poll(&pfd, 1, 50) == 0;
}

static void hmc_expect(int fd, uint8_t type, uint64_t sequence,
                       uint8_t *payload, uint16_t size)
{
    uint8_t raw[HVPIPE_LINK_HEADER_SIZE];
    HvpipeLinkHeader header;

    g_assert(hmc_read(fd, raw, sizeof(raw), PATIENCE_MS));
    hvpipe_link_unpack_header(raw, &header);
    g_assert_null(hvpipe_link_check_header(&header, HVPIPE_LINK_FROM_HV));
    g_assert_cmpuint(header.type, ==, type);
    g_assert_cmpuint(header.sequence, ==, sequence);
    g_assert_cmpuint(header.length, ==, size);
    if (size) {
        g_assert(hmc_read(fd, payload, size, PATIENCE_MS));
    }
}

static void hmc_expect_message(int fd, uint64_t sequence, const char *text)
{
    uint8_t payload[HVPIPE_LINK_MAX_PAYLOAD];

    hmc_expect(fd, HVPIPE_LINK_MESSAGE, sequence, payload, strlen(text));
    g_assert(!memcmp(payload, text, strlen(text)));
}

/* Returns the credit. */
static uint64_t hmc_expect_ack(int fd, uint64_t sequence)
{
    uint8_t credit[HVPIPE_LINK_CREDIT_SIZE];

    hmc_expect(fd, HVPIPE_LINK_ACK, sequence, credit, sizeof(credit));
    return hvpipe_link_get64(credit);
}

static HvpipeLinkHvState hmc_read_state(int fd)
{
    uint8_t payload[HVPIPE_LINK_HV_STATE_SIZE];
    HvpipeLinkHvState state;

    hmc_expect(fd, HVPIPE_LINK_STATE, 0, payload, sizeof(payload));
    g_assert_null(hvpipe_link_unpack_hv_state(payload, &state));
    g_assert_cmpuint(state.offer.lowest, ==, HVPIPE_LINK_VERSION);
    g_assert_cmpuint(state.offer.highest, ==, HVPIPE_LINK_VERSION);
    g_assert_cmphex(state.offer.features, ==, 0);
    return state;
}

static void hmc_expect_state(int fd, uint32_t source, bool enabled,
                             uint64_t taken)
{
    HvpipeLinkHvState state = hmc_read_state(fd);

    g_assert_cmphex(state.source, ==, source);
    g_assert_cmphex(state.flags, ==, enabled);
    g_assert_cmpuint(state.taken, ==, taken);
}

static void hmc_expect_numbers(int fd, uint64_t taken, uint64_t queued,
                               uint64_t credit)
{
    HvpipeLinkHvState state = hmc_read_state(fd);

    g_assert_cmpuint(state.taken, ==, taken);
    g_assert_cmpuint(state.queued, ==, queued);
    g_assert_cmpuint(state.credit, ==, credit);
}

/* The link is closed for the reason, with this in its text. */
static void hmc_expect_close(int fd, uint32_t reason, const char *text)
{
    uint8_t raw[HVPIPE_LINK_MAX_CLOSE + 1] = {};
    HvpipeLinkHeader header;
    char byte;

    g_assert(hmc_read(fd, raw, HVPIPE_LINK_HEADER_SIZE, PATIENCE_MS));
    hvpipe_link_unpack_header(raw, &header);
    g_assert_null(hvpipe_link_check_header(&header, HVPIPE_LINK_FROM_HV));
    g_assert_cmpuint(header.type, ==, HVPIPE_LINK_CLOSE);
    g_assert(hmc_read(fd, raw, header.length, PATIENCE_MS));
    raw[header.length] = 0;
    g_assert_cmpuint(hvpipe_link_get32(raw), ==, reason);
    g_assert(strstr((char *)raw + HVPIPE_LINK_REASON_SIZE, text));
    g_assert(!hmc_read(fd, &byte, 1, PATIENCE_MS));
    close(fd);
}

static void hmc_hello(int fd, uint64_t session, uint64_t taken, uint64_t first)
{
    const HvpipeLinkHmcState state = {
        .offer = HVPIPE_LINK_OFFER,
        .session = session, .taken = taken, .first = first,
    };
    uint8_t frame[HVPIPE_LINK_MAX_FRAME];

    hmc_write(fd, frame, hvpipe_link_pack_hmc_state(frame, &state));
}

static void hmc_close(int fd, uint32_t reason, const char *text)
{
    uint8_t frame[HVPIPE_LINK_MAX_CLOSE];

    hmc_write(fd, frame, hvpipe_link_pack_close(frame, reason, text));
}

static int hmc_resume(Partition *p, const char *name, uint64_t session,
                      uint64_t taken, uint64_t first)
{
    int fd = hmc_connect_to(p, name);

    hmc_hello(fd, session, taken, first);
    return fd;
}

/* A new HMC at the source, the pipe being enabled */
static int hmc_start(Partition *p, const char *name, uint32_t source)
{
    int fd = hmc_resume(p, name, 0x1234567800000000ull | source, 0, 1);

    hmc_expect_state(fd, source, true, 0);
    return fd;
}

static Partition *start_enabled(int *hmc1)
{
    Partition *p = partition_start(PIPE SOURCE1 SOURCE2 SOURCE3);

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    *hmc1 = hmc_start(p, "a-hmc1", HMC1);
    return p;
}

/* All that QEMU complained about is what the test wanted to see. */
static void stop_quiet(Partition *p)
{
    g_autofree char *text = read_file(p, "stderr");

    g_assert_cmpstr(text, ==, "");
    partition_stop(p);
}

static void reset(Partition *p)
{
    qtest_qmp_assert_success(p->qts, "{ 'execute': 'system_reset' }");
    qtest_qmp_eventwait(p->qts, "RESET");
}

/*
 * The tests
 */

/* Start a machine that ends by itself; returns what it says. */
static char *run_qemu(Partition *p, const char *args)
{
    g_autofree char *command = g_strdup_printf(
        "timeout 60 %s -accel qtest -m 256 -nodefaults -nographic "
        "-bios %s/firmware %s 2>%s/stderr",
        getenv("QTEST_QEMU_BINARY"), p->dir, args, p->dir);
    int status = system(command);

    (void)status;
    return read_file(p, "stderr");
}

static bool dtb_has(const char *data, gsize size, const char *name)
{
    return memmem(data, size, name, strlen(name) + 1);
}

static void test_device_tree(void)
{
    static const char *const names[] = {
        "ibm,hypervisor-pipe-capable", "ibm,send-hvpipe-msg",
        "ibm,receive-hvpipe-msg", "ibm,hvpipe-msg-events",
    };
    static const struct {
        const char *devices;
        bool has_pipe;
    } tests[] = {
        { PIPE SOURCE3, true }, { "", false }, { INCAPABLE SOURCE3, false },
    };
    int i, j;

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        Partition *p = partition_start(tests[i].devices);
        g_autofree char *path = path_in(p, "dtb");
        g_autofree char *data = NULL;
        gsize size;

        qtest_qmp_assert_success(p->qts, "{ 'execute': 'dumpdtb', 'arguments': "
                                 "{ 'filename': %s } }", path);
        g_assert(g_file_get_contents(path, &data, &size, NULL));
        g_assert(dtb_has(data, size, "ibm,set-system-parameter"));
        for (j = 0; j < ARRAY_SIZE(names); j++) {
            g_assert(dtb_has(data, size, names[j]) == tests[i].has_pipe);
        }
        stop_quiet(p);
    }
}

static void expect_absent(Partition *p)
{
    uint32_t source, size;
    Event event;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, -3);
    g_assert_cmpint(send_text(p, HMC1, "x"), ==, NO_SUCH_CALL);
    g_assert_cmpint(call_receive(p, INBOX, 4096, &source, &size), ==,
                    NO_SUCH_CALL);
    g_assert_cmpint(check_exception(p, 0xffffffff, &event), ==, 1);
}

static void test_absent(void)
{
    Partition *p = partition_start("");

    expect_absent(p);
    stop_quiet(p);
}

static void test_properties(void)
{
    static const struct {
        const char *args;
        const char *error;
    } tests[] = {
        { PIPE "-device spapr-hvpipe", "has a spapr-hvpipe already" },
        { SOURCE3, "No 'spapr-hvpipe-bus' bus found for device" },
        { SOURCE3 PIPE, "No 'spapr-hvpipe-bus' bus found for device" },
        { PIPE "-device spapr-hvpipe-echo", "0x00000000" },
        { PIPE "-device spapr-hvpipe-echo,source-id=0x03000001",
          "0x03000001 is not 0x0200QQQQ" },
        { PIPE "-device spapr-hvpipe-echo,source-id=0x02010001",
          "0x02010001 is not 0x0200QQQQ" },
        { PIPE "-device spapr-hvpipe-echo,source-id=1 -chardev null,id=c "
          HMC_DEVICE "source-id=1,chardev=c", "0x00000001 is not" },
        { PIPE SOURCE3 "-device spapr-hvpipe-echo,source-id=0x02000003",
          "0x02000003 is taken" },
        { PIPE HMC_DEVICE "source-id=0x02000001", "has no HMC: give "
          "chardev=ID, or take spapr-hvpipe-echo" },
        { PIPE "-chardev null,id=c,mux=on " HMC_DEVICE
          "source-id=0x02000001,chardev=c", "leave mux out" },
        { PIPE "-device spapr-hvpipe-echo,source-id=0x02000001,queue-limit=0",
          "queue-limit 0 is not from 1 to 65536" },
        { PIPE "-device spapr-hvpipe-echo,source-id=0x02000001,"
          "queue-limit=65537", "queue-limit 65537 is not from 1 to 65536" },
        { PIPE_WITH("empty-receive=1"), "empty-receive 1 is not 0, -1 or -3" },
        { PIPE_WITH("empty-receive=-2"), "empty-receive -2 is not" },
        { PIPE_WITH("payload-limit=4089"), "payload-limit 4089 is not 4088" },
        { PIPE_WITH("payload-limit=0"), "payload-limit 0 is not 4088 or 4048" },
        { "-device spapr-hvpipe,inject=recieve:status=1",
          "'recieve' is nothing that can fail" },
    };
    Partition *p = partition_new();
    int i;

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *args = g_strconcat("-machine " MACHINE " ",
                                            tests[i].args, NULL);
        g_autofree char *text = run_qemu(p, args);

        g_assert(strstr(text, tests[i].error));
    }
    partition_stop(p);
}

static void test_disabled(void)
{
    const uint32_t nowhere[] = { 64, RAM_SIZE - 2 };
    Partition *p = partition_start(PIPE SOURCE1 SOURCE3);
    int fd = hmc_resume(p, "a-hmc1", 7, 0, 1);
    uint32_t source, size;

    hmc_expect_state(fd, HMC1, false, 0);
    hmc_message(fd, 1, "early");
    g_assert_cmpint(send_text(p, HMC1, "x"), ==, NOT_AVAILABLE);
    g_assert_cmpint(call_receive(p, INBOX, 4096, &source, &size), ==,
                    NOT_AVAILABLE);
    expect_no_event(p);

    g_assert_cmpint(set_parameter(p, 0, 1), ==, -9999);
    g_assert_cmpint(set_parameter(p, 2, 1), ==, -9999);
    g_assert_cmpint(set_parameter(p, 1, 2), ==, -9999);
    g_assert_cmpint(rtas(p, "ibm,set-system-parameter", nowhere, 2, &size, 1),
                    ==, -9999);
    expect_no_event(p);

    /* What was announced is withdrawn and announced again. */
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    hmc_expect_state(fd, HMC1, true, 0);
    expect_event(p, HMC1, MESSAGE);
    g_assert_cmpint(set_parameter(p, 1, 0), ==, 0);
    hmc_expect_state(fd, HMC1, false, 0);
    expect_no_event(p);
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    hmc_expect_state(fd, HMC1, true, 0);
    expect_event(p, HMC1, MESSAGE);
    /* A new kernel enables what the old one left enabled. */
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "early");
    hmc_expect_ack(fd, 1);
    expect_no_event(p);
    close(fd);
    stop_quiet(p);
}

static void test_echo(void)
{
    Partition *p = partition_start(PIPE SOURCE3);
    uint8_t payload[HVPIPE_LINK_MAX_PAYLOAD];
    int i;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    for (i = 0; i < sizeof(payload); i++) {
        payload[i] = i * 7;
    }
    g_assert_cmpint(send_once(p, ECHO, payload, 1), ==, 0);
    g_assert_cmpint(send_once(p, ECHO, payload, sizeof(payload)), ==, 0);
    expect_event(p, ECHO, MESSAGE);
    expect_no_event(p);
    expect_receive(p, ECHO, payload, 1);
    expect_event(p, ECHO, MESSAGE);
    expect_receive(p, ECHO, payload, sizeof(payload));
    expect_no_event(p);
    expect_nothing(p);

    /* Nobody receives: the queue has an end, and goes on behind it. */
    for (i = 0; i < 256; i++) {
        g_assert_cmpint(send_once(p, ECHO, &i, 4), ==, 0);
    }
    g_assert_cmpint(send_once(p, ECHO, &i, 4), ==, BUSY_1MS);
    i = 0;
    expect_receive(p, ECHO, &i, 4);
    g_assert_cmpint(send_once(p, ECHO, &i, 4), ==, 0);
    stop_quiet(p);
}

static void test_send(void)
{
    uint8_t payload[HVPIPE_LINK_MAX_PAYLOAD], got[HVPIPE_LINK_MAX_PAYLOAD];
    int fd, i;
    Partition *p = start_enabled(&fd);

    g_assert_cmpint(send_text(p, 0x02000009, "x"), ==, BAD_PARAMETER);
    g_assert_cmpint(send_text(p, HMC2, "x"), ==, CLOSED);

    /* Nothing waits here for the answer; the polls are told not to hurry. */
    g_assert_cmpint(send_text(p, HMC1, "one"), ==, BUSY);
    for (i = 0; i < 100; i++) {
        g_assert_cmpint(send_text(p, HMC1, "one"), ==, BUSY_1MS);
    }
    hmc_expect_message(fd, 1, "one");
    g_assert(hmc_silent(fd));
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "one", 3), ==, 0);

    /* The same again is another message. */
    g_assert_cmpint(send_text(p, HMC1, "one"), ==, BUSY);
    hmc_expect_message(fd, 2, "one");
    hmc_ack(fd, 2);
    g_assert_cmpint(send_wait(p, HMC1, "one", 3), ==, 0);

    /* One that the HMC refuses leaves no gap in the numbering. */
    g_assert_cmpint(send_text(p, HMC1, "two"), ==, BUSY);
    hmc_expect_message(fd, 3, "two");
    hmc_frame(fd, HVPIPE_LINK_NACK, 3, NULL, 0);
    g_assert_cmpint(send_wait(p, HMC1, "two", 3), ==, CLOSED);
    for (i = 0; i < sizeof(payload); i++) {
        payload[i] = i * 13;
    }
    g_assert_cmpint(send_once(p, HMC1, payload, sizeof(payload)), ==, BUSY);
    hmc_expect(fd, HVPIPE_LINK_MESSAGE, 3, got, sizeof(got));
    g_assert(!memcmp(got, payload, sizeof(got)));
    hmc_ack(fd, 3);
    g_assert_cmpint(send_wait(p, HMC1, payload, sizeof(payload)), ==, 0);

    close(fd);
    stop_quiet(p);
}

/* The retry of a busy send is the same call again, whatever its bytes. */
static void test_retry(void)
{
    int fd, fd2;
    Partition *p = start_enabled(&fd);

    fd2 = hmc_start(p, "a-hmc2", HMC2);
    g_assert_cmpint(send_text(p, HMC1, "one"), ==, BUSY);
    hmc_expect_message(fd, 1, "one");
    g_assert_cmpint(send_text(p, HMC1, "other"), ==, BUSY_1MS);
    g_assert(hmc_silent(fd));
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "yet another", 11), ==, 0);
    g_assert(hmc_silent(fd));
    expect_number(p, "source1", "sent", 1);
    expect_number(p, "source1", "in-doubt", 0);

    /* A call with another list is none: it waits for the orphan's fate. */
    g_assert_cmpint(send_text(p, HMC1, "two"), ==, BUSY);
    hmc_expect_message(fd, 2, "two");
    g_assert_cmpint(send_other(p, HMC1, "three"), ==, BUSY_1MS);
    g_assert(hmc_silent(fd));
    expect_number(p, "source1", "in-doubt", 1);
    hmc_ack(fd, 2);
    while (send_other(p, HMC1, "three") == BUSY_1MS) {
        ;
    }
    hmc_expect_message(fd, 3, "three");

    /* A send to another source forgets it, too. */
    g_assert_cmpint(send_text(p, HMC2, "four"), ==, BUSY);
    hmc_expect_message(fd2, 1, "four");
    g_assert_cmpint(send_text(p, ECHO, "five"), ==, 0);
    hmc_ack(fd, 3);
    hmc_ack(fd2, 1);
    g_assert(hmc_silent(fd2));
    g_assert_cmpint(send_text(p, HMC2, "four"), ==, BUSY);
    hmc_expect_message(fd2, 2, "four");
    hmc_ack(fd2, 2);
    g_assert_cmpint(send_wait(p, HMC2, "four", 4), ==, 0);
    g_assert_cmpint(send_other(p, HMC1, "three"), ==, BUSY);
    hmc_expect_message(fd, 4, "three");

    /* So does one that fails. */
    g_assert_cmpint(send_text(p, 0x02000009, "x"), ==, BAD_PARAMETER);
    hmc_frame(fd, HVPIPE_LINK_NACK, 4, NULL, 0);
    g_assert(hmc_silent(fd));
    g_assert_cmpint(send_other(p, HMC1, "three"), ==, BUSY);
    hmc_expect_message(fd, 4, "three");

    /* The answer is there when it is forgotten. */
    hmc_ack(fd, 4);
    g_assert(hmc_silent(fd));
    g_assert_cmpint(send_text(p, HMC1, "three"), ==, BUSY);
    hmc_expect_message(fd, 5, "three");
    hmc_ack(fd, 5);
    g_assert_cmpint(send_wait(p, HMC1, "three", 5), ==, 0);
    expect_number(p, "source1", "in-doubt", 3);
    expect_number(p, "source2", "in-doubt", 1);
    close(fd);
    close(fd2);
    stop_quiet(p);
}

/* System parameter 64 forgets a busy send, on and off. */
static void test_retry_disabled(void)
{
    int fd, on, i = 1;
    Partition *p = start_enabled(&fd);

    for (on = 0; on <= 1; on++) {
        g_assert_cmpint(send_text(p, HMC1, "one"), ==, BUSY);
        hmc_expect_message(fd, i, "one");
        g_assert_cmpint(set_parameter(p, 1, on), ==, 0);
        if (!on) {
            hmc_expect_state(fd, HMC1, false, 0);
            g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
            hmc_expect_state(fd, HMC1, true, 0);
        }
        hmc_ack(fd, i++);
        g_assert(hmc_silent(fd));
        g_assert_cmpint(send_text(p, HMC1, "one"), ==, BUSY);
        hmc_expect_message(fd, i, "one");
        hmc_ack(fd, i++);
        g_assert_cmpint(send_wait(p, HMC1, "one", 3), ==, 0);
    }
    close(fd);
    stop_quiet(p);
}

/* Send a list of @n buffers with their sizes; @length is what it says. */
static int send_list(Partition *p, uint64_t length, int n,
                     const uint64_t (*buffers)[2])
{
    uint64_t list[1 + 2 * 256];
    int i;

    list[0] = cpu_to_be64(length);
    for (i = 0; i < n; i++) {
        list[1 + 2 * i] = cpu_to_be64(buffers[i][0]);
        list[2 + 2 * i] = cpu_to_be64(buffers[i][1]);
    }
    qtest_memwrite(p->qts, LIST, list, (1 + 2 * n) * sizeof(list[0]));
    return call_send(p, ECHO, LIST);
}

static void test_lists(void)
{
    static const struct {
        uint64_t length;
        uint64_t buffer[2][2];
        uint32_t size;          /* 0: refused */
    } tests[] = {
        { 24, { { OUTBOX, 1 } }, 1 },
        { 24, { { OUTBOX, 4088 } }, 4088 },
        { 40, { { OUTBOX, 100 }, { OUTBOX + 100, 50 } }, 150 },
        { 40, { { OUTBOX, 0 }, { OUTBOX, 5 } }, 5 },
        { 40, { { OUTBOX, 4000 }, { OUTBOX + 4000, 88 } }, 4088 },
        /* sizes */
        { 24, { { OUTBOX, 0 } }, 0 },
        { 24, { { OUTBOX, 4089 } }, 0 },
        { 24, { { OUTBOX, 4097 } }, 0 },
        { 24, { { OUTBOX, UINT64_MAX } }, 0 },
        { 40, { { OUTBOX, 4000 }, { OUTBOX, 89 } }, 0 },
        { 40, { { OUTBOX, 1 }, { OUTBOX, UINT64_MAX } }, 0 },
        /* lengths */
        { 0, { { OUTBOX, 1 } }, 0 },
        { 8, { { OUTBOX, 1 } }, 0 },
        { 16, { { OUTBOX, 1 } }, 0 },
        { 23, { { OUTBOX, 1 } }, 0 },
        { 25, { { OUTBOX, 1 } }, 0 },
        { 32, { { OUTBOX, 1 } }, 0 },
        { 4104, { { OUTBOX, 1 } }, 0 },
        { UINT64_MAX, { { OUTBOX, 1 } }, 0 },
        { 1ull << 32 | 24, { { OUTBOX, 1 } }, 0 },
        { 24ull << 32, { { OUTBOX, 1 } }, 0 },
        /* addresses */
        { 24, { { RAM_SIZE, 1 } }, 0 },
        { 24, { { RAM_SIZE - 1, 2 } }, 0 },
        { 24, { { RAM_SIZE - 1, 1 } }, 1 },
        { 24, { { 0xfffff000, 4088 } }, 0 },
        { 24, { { 1ull << 32, 1 } }, 0 },
        { 24, { { 1ull << 32 | OUTBOX, 1 } }, 0 },
        { 24, { { 1ull << 60 | OUTBOX, 1 } }, 0 },
        { 24, { { 0x6030203180000, 8 } }, 0 },
        { 24, { { UINT64_MAX, 1 } }, 0 },
        { 40, { { OUTBOX, 1 }, { RAM_SIZE, 1 } }, 0 },
    };
    Partition *p = partition_start(PIPE SOURCE3);
    uint64_t buffers[255][2];
    uint8_t payload[4096];
    uint32_t source, size;
    int i;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    for (i = 0; i < sizeof(payload); i++) {
        payload[i] = i * 3;
    }
    qtest_memwrite(p->qts, OUTBOX, payload, sizeof(payload));
    qtest_memwrite(p->qts, RAM_SIZE - 1, payload, 1);

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_assert_cmpint(send_list(p, tests[i].length, 2, tests[i].buffer), ==,
                        tests[i].size ? 0 : BAD_PARAMETER);
        if (tests[i].size) {
            expect_receive(p, ECHO, payload,
                           tests[i].size);
        }
        expect_nothing(p);
    }

    /* As many buffers as a list holds */
    for (i = 0; i < 255; i++) {
        buffers[i][0] = OUTBOX + i * 16;
        buffers[i][1] = 16;
    }
    g_assert_cmpint(send_list(p, 8 + 255 * 16, 255, buffers), ==, 0);
    expect_receive(p, ECHO, payload, 255 * 16);

    /* The list itself */
    g_assert_cmpint(call_send(p, ECHO, RAM_SIZE), ==, BAD_PARAMETER);
    g_assert_cmpint(call_send(p, ECHO, RAM_SIZE - 4), ==, BAD_PARAMETER);
    g_assert_cmpint(call_send(p, ECHO, 0xfffffffc), ==, BAD_PARAMETER);
    expect_nothing(p);

    /* Receiving: the message stays until it has found a place. */
    g_assert_cmpint(send_once(p, ECHO, payload, 100), ==, 0);
    g_assert_cmpint(call_receive(p, INBOX, 99, &source, &size), ==,
                    BAD_PARAMETER);
    g_assert_cmpint(call_receive(p, INBOX, 0, &source, &size), ==,
                    BAD_PARAMETER);
    g_assert_cmpint(call_receive(p, RAM_SIZE, 4096, &source, &size), ==,
                    BAD_PARAMETER);
    g_assert_cmpint(call_receive(p, RAM_SIZE - 50, 4096, &source, &size), ==,
                    BAD_PARAMETER);
    g_assert_cmpint(call_receive(p, 0xfffffff0, 4096, &source, &size), ==,
                    BAD_PARAMETER);
    g_assert_cmpint(call_receive(p, INBOX, 0xffffffff, &source, &size), ==,
                    BAD_PARAMETER);
    expect_receive(p, ECHO, payload, 100);
    expect_nothing(p);
    stop_quiet(p);
}

static void test_arguments(void)
{
    const uint32_t args[] = { ECHO, LIST, 0, 0 };
    Partition *p = partition_start(PIPE SOURCE3);
    uint32_t rets[4];

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "kept"), ==, 0);
    g_assert_cmpint(rtas(p, "ibm,send-hvpipe-msg", args, 1, rets, 1), ==, -3);
    g_assert_cmpint(rtas(p, "ibm,send-hvpipe-msg", args, 3, rets, 1), ==, -3);
    g_assert_cmpint(rtas(p, "ibm,send-hvpipe-msg", args, 2, rets, 2), ==, -3);
    g_assert_cmpint(rtas(p, "ibm,receive-hvpipe-msg", args, 1, rets, 3), ==,
                    -3);
    g_assert_cmpint(rtas(p, "ibm,receive-hvpipe-msg", args, 2, rets, 1), ==,
                    -3);
    g_assert_cmpint(rtas(p, "ibm,receive-hvpipe-msg", args, 2, rets, 4), ==,
                    -3);
    expect_text(p, ECHO, "kept");
    expect_nothing(p);
    stop_quiet(p);
}

static void test_receive(void)
{
    int fd, fd2;
    Partition *p = start_enabled(&fd);
    Event event;

    fd2 = hmc_start(p, "a-hmc2", HMC2);
    expect_nothing(p);

    /* First come, first served, whoever it is */
    hmc_message(fd, 1, "a1");
    expect_event(p, HMC1, MESSAGE);
    g_assert(hmc_silent(fd));
    hmc_message(fd2, 1, "b1");
    g_assert(hmc_silent(fd2));
    hmc_message(fd, 2, "a2");
    g_assert(hmc_silent(fd));
    expect_no_event(p);
    expect_text(p, HMC1, "a1");
    hmc_expect_ack(fd, 1);

    /* The next event is there before anybody could have asked for it. */
    expect_event(p, HMC2, MESSAGE);
    expect_text(p, HMC2, "b1");
    hmc_expect_ack(fd2, 1);
    /* To receive without fetching the event takes it back. */
    expect_text(p, HMC1, "a2");
    hmc_expect_ack(fd, 2);
    expect_no_event(p);

    /* Other classes of events are not ours. */
    hmc_message(fd, 3, "a3");
    g_assert(hmc_silent(fd));
    g_assert_cmpint(check_exception(p, 0xfbffffff, &event), ==, 1);
    expect_event(p, HMC1, MESSAGE);

    /* A loss comes behind what was sent before it. */
    close(fd);
    hmc_message(fd2, 2, "b2");
    g_assert(hmc_silent(fd2));
    expect_no_event(p);
    expect_text(p, HMC1, "a3");
    expect_event(p, HMC1, LOST);
    expect_event(p, HMC2, MESSAGE);
    expect_text(p, HMC2, "b2");
    expect_no_event(p);

    /* Losses do not pile up. */
    hmc_expect_ack(fd2, 2);
    g_assert_cmpint(set_parameter(p, 1, 0), ==, 0);
    hmc_expect_state(fd2, HMC2, false, 2);
    close(fd2);
    fd2 = hmc_resume(p, "a-hmc2", 99, 0, 1);
    hmc_expect_state(fd2, HMC2, false, 0);
    close(fd2);
    fd2 = hmc_resume(p, "a-hmc2", 99, 0, 1);
    hmc_expect_state(fd2, HMC2, false, 0);
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    expect_event(p, HMC2, LOST);
    expect_no_event(p);
    close(fd2);
    stop_quiet(p);
}

static void test_malformed(void)
{
    static const struct {
        const char *what;
        uint8_t version, type;
        uint16_t length;
        uint32_t reserved;
        uint64_t sequence;
        bool hello;             /* goes before it */
    } tests[] = {
        { "unknown version", 3, 1, 1, 0, 1, true },
        { "version 0 is not spoken here", 0, 0, 0, 0, 0, false },
        { "unknown type", 2, 6, 0, 0, 1, true },
        { "unknown type", 2, 0, 0, 0, 1, true },
        { "length out of range", 2, 1, 0, 0, 1, true },
        { "length out of range", 2, 1, 4089, 0, 1, true },
        { "length out of range", 2, 1, 65535, 0, 1, true },
        { "length out of range", 2, 2, 1, 0, 1, true },
        { "length out of range", 2, 2, 8, 0, 1, true },
        { "length out of range", 2, 3, 1, 0, 1, true },
        { "length out of range", 2, 4, 31, 0, 0, false },
        { "length out of range", 2, 4, 4089, 0, 0, false },
        { "length out of range", 2, 5, 3, 0, 0, true },
        { "length out of range", 2, 5, 257, 0, 0, false },
        { "reserved field", 2, 1, 1, 1, 1, true },
        { "reserved field", 2, 4, 32, 0x80000000, 0, false },
        { "sequence of a STATE", 2, 4, 32, 0, 1, false },
        { "sequence of a STATE or CLOSE", 2, 5, 4, 0, 1, true },
        { "sequence zero", 2, 1, 1, 0, 0, true },
        { "sequence zero", 2, 2, 0, 0, 0, true },
        { "expected sequence 1", 2, 1, 1, 0, 2, true },
        { "last sequence sent was 0", 2, 2, 0, 0, 1, true },
        { "last sequence sent was 0", 2, 3, 0, 0, 1, true },
        { "the first frame is no STATE", 2, 1, 1, 0, 1, false },
        { "the first frame is no STATE", 2, 2, 0, 0, 1, false },
        { "a second STATE", 2, 4, 32, 0, 0, true },
        { "session zero", 2, 4, 32, 0, 0, false },
    };
    Partition *p = partition_start(PIPE SOURCE1 SOURCE2 SOURCE3);
    uint8_t frame[HVPIPE_LINK_HEADER_SIZE + HVPIPE_LINK_HMC_STATE_SIZE] = {};
    g_autofree char *log = NULL;
    const char *at;
    int i, fd, fd2;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    fd2 = hmc_start(p, "a-hmc2", HMC2);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *text = NULL;

        fd = hmc_connect_to(p, "a-hmc1");
        if (tests[i].hello) {
            hmc_hello(fd, 100 + i, 0, 1);
            hmc_expect_state(fd, HMC1, true, 0);
        }
        frame[0] = tests[i].version;
        frame[1] = tests[i].type;
        stw_be_p(frame + 2, tests[i].length);
        stl_be_p(frame + 4, tests[i].reserved);
        stq_be_p(frame + 8, tests[i].sequence);
        /* Versions 0 to 2 in a hello, else a byte is as good as any other */
        frame[HVPIPE_LINK_HEADER_SIZE + 3] = HVPIPE_LINK_VERSION;
        hmc_write(fd, frame, HVPIPE_LINK_HEADER_SIZE +
                             MIN(tests[i].length, HVPIPE_LINK_HMC_STATE_SIZE));
        hmc_expect_close(fd, tests[i].version ? HVPIPE_LINK_MALFORMED :
                                                HVPIPE_LINK_NO_VERSION,
                         tests[i].what);

        text = get_text(p, "source1", "link-error");
        g_assert(strstr(text, tests[i].what));
        expect_number(p, "source1", "malformed", i + 1);
        /* A link that was never up cannot get lost. */
        if (tests[i].hello) {
            expect_event(p, HMC1, LOST);
        }
        expect_no_event(p);
    }

    /* The log has a line for each of the first ten. */
    log = read_file(p, "stderr");
    for (i = 0, at = log; (at = strchr(at, '\n')); at++, i++) {
        ;
    }
    g_assert_cmpint(i, ==, 10);
    g_assert(strstr(log, ": spapr-hvpipe-source 0x02000001: malformed frame "
                    "from the HMC: unknown version (version 3, type 1 MESSAGE, "
                    "length 1, reserved 0x0, sequence 1); link closed\n"));
    g_assert(strstr(log, "no more of it for a minute"));

    /* Nobody else was disturbed, and the source can be used again. */
    hmc_message(fd2, 1, "still here");
    expect_event(p, HMC2, MESSAGE);
    expect_text(p, HMC2, "still here");
    fd = hmc_start(p, "a-hmc1", HMC1);
    hmc_message(fd, 1, "back");
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "back");
    close(fd);
    close(fd2);
    partition_stop(p);
}

/* A stream knows no frames: bytes come one by one, or many frames at once. */
static void test_stream(void)
{
    uint8_t frames[4096];
    size_t size = 0;
    int fd, i;
    Partition *p = start_enabled(&fd);

    for (i = 1; i <= 20; i++) {
        hvpipe_link_pack_header(frames + size, HVPIPE_LINK_MESSAGE, i, i);
        size += HVPIPE_LINK_HEADER_SIZE;
        memset(frames + size, i, i);
        size += i;
    }
    for (i = 0; i < 100; i++) {
        hmc_write(fd, frames + i, 1);
    }
    hmc_write(fd, frames + 100, size - 100);
    for (i = 1; i <= 20; i++) {
        uint8_t payload[20];

        memset(payload, i, sizeof(payload));
        expect_event(p, HMC1, MESSAGE);
        expect_receive(p, HMC1, payload, i);
        hmc_expect_ack(fd, i);
    }
    close(fd);
    stop_quiet(p);
}

static void lose(Partition *p, int fd)
{
    close(fd);
    expect_event(p, HMC1, LOST);
}

static void test_resume_receive(void)
{
    const uint64_t session = 0xfeed;
    Partition *p = partition_start(PIPE SOURCE1);
    int fd;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    fd = hmc_resume(p, "a-hmc1", session, 0, 1);
    hmc_expect_state(fd, HMC1, true, 0);
    hmc_message(fd, 1, "m1");
    hmc_message(fd, 2, "m2");
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "m1");
    hmc_expect_ack(fd, 1);
    expect_event(p, HMC1, MESSAGE);
    close(fd);
    /* The HMC has not seen the ACK of m1: it sends both again, and one more. */
    fd = hmc_resume(p, "a-hmc1", session, 0, 1);
    hmc_expect_numbers(fd, 1, 2, 257);
    hmc_message(fd, 1, "m1");
    hmc_expect_ack(fd, 1);
    hmc_message(fd, 2, "m2");
    hmc_message(fd, 3, "m3");
    g_assert(hmc_silent(fd));
    expect_text(p, HMC1, "m2");
    hmc_expect_ack(fd, 2);
    expect_event(p, HMC1, LOST);
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "m3");
    hmc_expect_ack(fd, 3);

    /* A new session: what is queued is delivered, for nobody's ears. */
    hmc_message(fd, 4, "m4");
    expect_event(p, HMC1, MESSAGE);
    close(fd);
    fd = hmc_resume(p, "a-hmc1", session + 1, 40, 50);
    hmc_expect_numbers(fd, 49, 49, 49 + 255);
    hmc_message(fd, 50, "n50");
    g_assert(hmc_silent(fd));
    expect_text(p, HMC1, "m4");
    /* It has made a place, and that is all that the HMC is told. */
    g_assert_cmpuint(hmc_expect_ack(fd, 49), ==, 49 + 256);
    g_assert(hmc_silent(fd));
    expect_event(p, HMC1, LOST);
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "n50");
    hmc_expect_ack(fd, 50);
    g_assert_cmpint(send_text(p, HMC1, "o41"), ==, BUSY);
    hmc_expect_message(fd, 41, "o41");
    hmc_ack(fd, 41);
    g_assert_cmpint(send_wait(p, HMC1, "o41", 3), ==, 0);
    close(fd);
    stop_quiet(p);
}

static void test_resume_send(void)
{
    const uint64_t session = 0xfeed;
    Partition *p = partition_start(PIPE SOURCE1);
    g_autofree char *text = NULL;
    int fd;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    fd = hmc_resume(p, "a-hmc1", session, 0, 1);
    hmc_expect_state(fd, HMC1, true, 0);

    /* Back before the partition noticed, not taken: sent again. */
    g_assert_cmpint(send_text(p, HMC1, "s1"), ==, BUSY);
    hmc_expect_message(fd, 1, "s1");
    lose(p, fd);
    fd = hmc_resume(p, "a-hmc1", session, 0, 1);
    hmc_expect_state(fd, HMC1, true, 0);
    hmc_expect_message(fd, 1, "s1");
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "s1", 2), ==, 0);

    /* Back before the partition noticed, taken: not sent again. */
    g_assert_cmpint(send_text(p, HMC1, "s2"), ==, BUSY);
    hmc_expect_message(fd, 2, "s2");
    lose(p, fd);
    fd = hmc_resume(p, "a-hmc1", session, 2, 1);
    hmc_expect_state(fd, HMC1, true, 0);
    g_assert_cmpint(send_wait(p, HMC1, "s2", 2), ==, 0);
    g_assert(hmc_silent(fd));

    /* The partition was told -4, but it was taken: it comes twice. */
    g_assert_cmpint(send_text(p, HMC1, "s3"), ==, BUSY);
    hmc_expect_message(fd, 3, "s3");
    lose(p, fd);
    expect_number(p, "source1", "in-doubt", 0);
    g_assert_cmpint(send_text(p, HMC1, "s3"), ==, CLOSED);
    expect_number(p, "source1", "in-doubt", 1);
    g_assert_cmpint(send_text(p, HMC1, "s3"), ==, CLOSED);
    fd = hmc_resume(p, "a-hmc1", session, 3, 1);
    hmc_expect_state(fd, HMC1, true, 0);
    g_assert(hmc_silent(fd));
    g_assert_cmpint(send_text(p, HMC1, "s3"), ==, BUSY);
    hmc_expect_message(fd, 4, "s3");

    /* The partition was told -4, and it was not taken: forgotten. */
    lose(p, fd);
    g_assert_cmpint(send_text(p, HMC1, "s3"), ==, CLOSED);
    fd = hmc_resume(p, "a-hmc1", session, 3, 1);
    hmc_expect_state(fd, HMC1, true, 0);
    g_assert(hmc_silent(fd));
    g_assert_cmpint(send_text(p, HMC1, "s4"), ==, BUSY);
    hmc_expect_message(fd, 4, "s4");

    /* Another HMC comes in its place: nobody knows, the sender decides. */
    lose(p, fd);
    fd = hmc_resume(p, "a-hmc1", session + 1, 0, 1);
    hmc_expect_state(fd, HMC1, true, 0);
    g_assert(hmc_silent(fd));
    g_assert_cmpint(send_text(p, HMC1, "s4"), ==, CLOSED);
    g_assert_cmpint(send_text(p, HMC1, "s4"), ==, BUSY);
    hmc_expect_message(fd, 1, "s4");
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "s4", 2), ==, 0);
    lose(p, fd);

    /* Claims that cannot be */
    fd = hmc_resume(p, "a-hmc1", session + 1, 2, 1);
    hmc_expect_close(fd, HVPIPE_LINK_NO_SESSION, "2 was taken last");
    fd = hmc_resume(p, "a-hmc1", session + 1, 0, 1);
    hmc_expect_close(fd, HVPIPE_LINK_NO_SESSION, "0 was taken last");
    fd = hmc_resume(p, "a-hmc1", session + 1, 1, 2);
    hmc_expect_close(fd, HVPIPE_LINK_NO_SESSION, "goes on at sequence 2");
    expect_link(p, "source1", "closed");
    text = read_file(p, "stderr");
    g_assert(strstr(text, "says that 2 was taken last, expected 1"));
    g_assert(strstr(text, "says that 0 was taken last, expected 1"));
    g_assert(strstr(text, "goes on at sequence 2, expected at most 1"));
    expect_no_event(p);
    partition_stop(p);
}

/* What an HMC says before it hangs up politely counts. */
static void test_last_words(void)
{
    Partition *p = partition_start(PIPE SOURCE1);
    uint8_t frame[2 * HVPIPE_LINK_MAX_FRAME];
    size_t size;
    char byte;
    int i, fd;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    for (i = 1; i <= 20; i++) {
        fd = hmc_resume(p, "a-hmc1", i, 0, 1);
        hmc_expect_state(fd, HMC1, true, 0);
        g_assert_cmpint(send_text(p, HMC1, "bye"), ==, BUSY);
        hmc_expect_message(fd, 1, "bye");
        hmc_message(fd, 1, "one");
        hmc_message(fd, 2, "two");
        hmc_ack(fd, 1);
        if (i % 2) {
            shutdown(fd, SHUT_WR);
        } else {
            /* Nothing behind a CLOSE counts. */
            size = hvpipe_link_pack_close(frame, HVPIPE_LINK_DONE, "bye");
            hvpipe_link_pack_header(frame + size, HVPIPE_LINK_MESSAGE, 1, 3);
            hmc_write(fd, frame, size + HVPIPE_LINK_HEADER_SIZE + 1);
        }
        while (hmc_read(fd, &byte, 1, PATIENCE_MS)) {
            ;
        }
        close(fd);
        g_assert_cmpint(send_text(p, HMC1, "bye"), ==, 0);
        expect_event(p, HMC1, MESSAGE);
        expect_text(p, HMC1, "one");
        expect_event(p, HMC1, MESSAGE);
        expect_text(p, HMC1, "two");
        expect_event(p, HMC1, LOST);
    }
    stop_quiet(p);
}

/* A stalled HMC stalls the sends to itself and nothing else. */
static void test_one_stalls(void)
{
    int fd, fd2;
    Partition *p = start_enabled(&fd);

    fd2 = hmc_start(p, "a-hmc2", HMC2);
    g_assert_cmpint(send_text(p, HMC1, "slow"), ==, BUSY);
    g_assert_cmpint(send_text(p, HMC2, "fast"), ==, BUSY);
    hmc_expect_message(fd2, 1, "fast");
    hmc_ack(fd2, 1);
    g_assert_cmpint(send_wait(p, HMC2, "fast", 4), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "self"), ==, 0);
    expect_text(p, ECHO, "self");
    g_assert_cmpint(send_text(p, HMC1, "next"), ==, BUSY_1MS);
    hmc_expect_message(fd, 1, "slow");
    hmc_ack(fd, 1);
    while (send_text(p, HMC1, "next") == BUSY_1MS) {
        ;
    }
    hmc_expect_message(fd, 2, "next");
    hmc_ack(fd, 2);
    g_assert_cmpint(send_wait(p, HMC1, "next", 4), ==, 0);
    close(fd);
    close(fd2);
    stop_quiet(p);
}

static void test_burst(void)
{
    const int n = 1500;
    int fd, i, acks = 0, states = 0;
    Partition *p = partition_start(PIPE HMC_DEVICE "id=source1,"
                                   "source-id=0x02000001,chardev=hmc1,"
                                   "queue-limit=2000");
    uint8_t raw[HVPIPE_LINK_HEADER_SIZE];
    HvpipeLinkHeader header = {};
    uint64_t credit = 2000;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    fd = hmc_start(p, "a-hmc1", HMC1);
    /* The HMC reads nothing while the partition takes it all. */
    for (i = 1; i <= n; i++) {
        char text[16];

        snprintf(text, sizeof(text), "message %d", i);
        hmc_message(fd, i, text);
        expect_event(p, HMC1, MESSAGE);
        expect_text(p, HMC1, text);
    }
    expect_no_event(p);
    /* A message that is forgotten before the HMC reads it is never sent. */
    g_assert_cmpint(send_text(p, HMC1, "gone"), ==, BUSY);
    g_assert_cmpint(set_parameter(p, 1, 0), ==, 0);
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    expect_number(p, "source1", "in-doubt", 0);
    /* The next one finds its way through, once the HMC reads again. */
    g_assert_cmpint(send_text(p, HMC1, "behind"), ==, BUSY);
    while (header.sequence < n) {
        uint64_t last = header.sequence;

        g_assert(hmc_read(fd, raw, HVPIPE_LINK_HEADER_SIZE, PATIENCE_MS));
        hvpipe_link_unpack_header(raw, &header);
        g_assert_null(hvpipe_link_check_header(&header, HVPIPE_LINK_FROM_HV));
        if (header.type == HVPIPE_LINK_STATE) {
            /* Two changes, one STATE: the latest */
            uint8_t payload[HVPIPE_LINK_HV_STATE_SIZE];

            g_assert(hmc_read(fd, payload, sizeof(payload), PATIENCE_MS));
            g_assert_cmpuint(payload[15], ==, HVPIPE_LINK_HV_ENABLED);
            states++;
            header.sequence = last;
            continue;
        }
        g_assert_cmpuint(header.type, ==, HVPIPE_LINK_ACK);
        g_assert_cmpuint(header.sequence, >, last);
        g_assert(hmc_read(fd, raw, header.length, PATIENCE_MS));
        g_assert_cmpuint(hvpipe_link_get64(raw), >, credit);
        credit = hvpipe_link_get64(raw);
        acks++;
    }
    g_assert_cmpint(acks, <, n);
    g_assert_cmpint(states, ==, 1);
    g_assert_cmpuint(header.sequence, ==, n);
    hmc_expect_message(fd, 1, "behind");
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "behind", 6), ==, 0);
    g_assert(hmc_silent(fd));
    close(fd);
    stop_quiet(p);
}

#define SOURCE1_OF_4 HMC_DEVICE \
    "id=source1,source-id=0x02000001,chardev=hmc1,queue-limit=4 "

/* The HMC sends as much as there are places for, and no more. */
static void test_credit(void)
{
    const uint64_t session = 0xfeed;
    Partition *p = partition_start(PIPE SOURCE1_OF_4 SOURCE2);
    g_autofree char *text = NULL;
    int fd, fd2, i;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    fd = hmc_resume(p, "a-hmc1", session, 0, 1);
    hmc_expect_numbers(fd, 0, 0, 4);
    fd2 = hmc_start(p, "a-hmc2", HMC2);
    g_assert_cmpint(send_text(p, HMC1, "up"), ==, BUSY);
    hmc_expect_message(fd, 1, "up");

    /* An answer behind a full queue is heard, and what was sent before. */
    for (i = 1; i <= 4; i++) {
        hmc_message(fd, i, "m");
    }
    for (i = 1; i <= 4; i++) {
        hmc_message(fd, i, "again");
    }
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "up", 2), ==, 0);
    expect_number(p, "source1", "queued", 4);

    /* The other source has its own places. */
    hmc_message(fd2, 1, "other");

    /* Each place that is made is told. */
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "m");
    g_assert_cmpuint(hmc_expect_ack(fd, 1), ==, 5);
    hmc_message(fd, 5, "m");
    g_assert(hmc_silent(fd));

    /* One too many: what had a place keeps it. */
    hmc_message(fd, 6, "m");
    hmc_expect_close(fd, HVPIPE_LINK_MALFORMED,
                     "MESSAGE 6 beyond the credit, which is 5");
    expect_number(p, "source1", "malformed", 1);
    expect_number(p, "source1", "queued", 4);

    /* A place counts when it was told, not when it is made. */
    fd = hmc_resume(p, "a-hmc1", session, 1, 2);
    hmc_expect_numbers(fd, 1, 5, 5);

    /* What an older session has left takes places, too. */
    close(fd);
    fd = hmc_resume(p, "a-hmc1", session + 1, 0, 1);
    hmc_expect_numbers(fd, 0, 0, 0);
    for (i = 1; i <= 3; i++) {
        expect_event(p, HMC1, MESSAGE);
        expect_text(p, HMC1, "m");
        g_assert_cmpuint(hmc_expect_ack(fd, 0), ==, i);
    }
    hmc_message(fd, 1, "n");
    expect_event(p, HMC2, MESSAGE);
    expect_text(p, HMC2, "other");
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "m");
    g_assert_cmpuint(hmc_expect_ack(fd, 0), ==, 4);
    expect_event(p, HMC1, LOST);
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "n");
    g_assert_cmpuint(hmc_expect_ack(fd, 1), ==, 5);
    close(fd);
    close(fd2);
    text = read_file(p, "stderr");
    g_assert(strstr(text, "MESSAGE 6 beyond the credit, which is 5 (version"));
    partition_stop(p);
}

/* The highest credit among the frames of a stream that may be cut off */
static uint64_t highest_credit(const GByteArray *stream)
{
    uint64_t credit = 0;
    HvpipeLinkHeader h;
    size_t at;

    for (at = 0; at + HVPIPE_LINK_HEADER_SIZE <= stream->len;
         at += HVPIPE_LINK_HEADER_SIZE + h.length) {
        hvpipe_link_unpack_header(stream->data + at, &h);
        if (h.type == HVPIPE_LINK_ACK &&
            at + HVPIPE_LINK_HEADER_SIZE + h.length <= stream->len) {
            credit = hvpipe_link_get64(stream->data + at +
                                       HVPIPE_LINK_HEADER_SIZE);
        }
    }
    return credit;
}

/* The HMC may not use a free place before it was told of it. */
static void test_credit_untold(void)
{
    Partition *p = partition_start(PIPE SOURCE1_OF_4);
    g_autoptr(GByteArray) stream = g_byte_array_new();
    g_autofree char *error = NULL;
    uint64_t refused;
    uint8_t frame[HVPIPE_LINK_HEADER_SIZE + 1], byte;
    int fd, i;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    fd = hmc_resume(p, "a-hmc1", 7, 0, 1);
    hmc_expect_numbers(fd, 0, 0, 4);
    for (i = 1; i <= 4; i++) {
        hmc_message(fd, i, "m");
    }
    /* The HMC does not read, so at some time it cannot be told. */
    for (; !get_number(p, "source1", "malformed"); i++) {
        expect_event(p, HMC1, MESSAGE);
        expect_text(p, HMC1, "m");
        hvpipe_link_pack_header(frame, HVPIPE_LINK_MESSAGE, 1, i);
        frame[HVPIPE_LINK_HEADER_SIZE] = 'm';
        if (send(fd, frame, sizeof(frame), MSG_NOSIGNAL) < 0) {
            break;
        }
        g_assert_cmpint(i, <, 100000);
    }
    while (hmc_read(fd, &byte, 1, PATIENCE_MS)) {
        g_byte_array_append(stream, &byte, 1);
    }
    close(fd);
    error = get_text(p, "source1", "link-error");
    g_assert_cmpint(sscanf(error, "malformed frame from the HMC: MESSAGE %"
                           PRIu64 " beyond the credit", &refused), ==, 1);
    g_assert_cmpuint(highest_credit(stream), <, refused);
    g_assert_cmpuint(highest_credit(stream), >, 4);
    partition_stop(p);
}

/* An HMC that goes says why, and nothing that it sent before is lost. */
static void test_close(void)
{
    static const struct {
        uint32_t reason;
        const char *text, *error;
    } tests[] = {
        { HVPIPE_LINK_DONE, "", "reason 0 done: " },
        { HVPIPE_LINK_NO_SOURCE, "not \x1b[2Jmine\n\xc2\x9b",
          "reason 5 no source: not ?[2Jmine???" },
        { 77, "new", "reason 77 unknown: new" },
    };
    Partition *p = partition_start(PIPE SOURCE1);
    g_autofree char *log = NULL;
    char byte;
    int fd, i;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *text = NULL;

        fd = hmc_resume(p, "a-hmc1", 7 + i, 0, 1);
        hmc_expect_state(fd, HMC1, true, 0);
        g_assert_cmpint(send_text(p, HMC1, "bye"), ==, BUSY);
        hmc_expect_message(fd, 1, "bye");
        hmc_message(fd, 1, "one");
        hmc_ack(fd, 1);
        hmc_close(fd, tests[i].reason, tests[i].text);
        g_assert(!hmc_read(fd, &byte, 1, PATIENCE_MS));
        close(fd);
        g_assert_cmpint(send_text(p, HMC1, "bye"), ==, 0);
        expect_event(p, HMC1, MESSAGE);
        expect_text(p, HMC1, "one");
        expect_event(p, HMC1, LOST);
        expect_no_event(p);
        text = get_text(p, "source1", "link-error");
        g_assert(strstr(text, tests[i].error));
    }
    expect_number(p, "source1", "malformed", 0);

    /* In place of a hello, too */
    fd = hmc_connect_to(p, "a-hmc1");
    hmc_close(fd, HVPIPE_LINK_DONE, "");
    g_assert(!hmc_read(fd, &byte, 1, PATIENCE_MS));
    close(fd);
    expect_no_event(p);
    expect_link(p, "source1", "closed");
    log = read_file(p, "stderr");
    g_assert(!strstr(log, "reason 0"));
    g_assert(strstr(log, "0x02000001: CLOSE from the HMC: reason 5 no source: "
                    "not ?[2Jmine???; link closed\n"));
    partition_stop(p);
}

/* Wait for the end of a job, which must succeed. */
static void end_job(Partition *p, const char *id)
{
    for (;;) {
        QDict *event = qtest_qmp_eventwait_ref(p->qts, "JOB_STATUS_CHANGE");
        QDict *data = qdict_get_qdict(event, "data");
        bool over = !strcmp(qdict_get_str(data, "id"), id) &&
                    !strcmp(qdict_get_str(data, "status"), "concluded");

        qobject_unref(event);
        if (over) {
            break;
        }
    }
    qtest_qmp_assert_success(p->qts, "{ 'execute': 'job-dismiss', "
                             "'arguments': { 'id': %s } }", id);
}

static void snapshot(Partition *p, const char *command)
{
    qtest_qmp_assert_success(p->qts, "{ 'execute': %s, 'arguments': {"
                             " 'job-id': 'snapshot', 'tag': 'one',"
                             " 'vmstate': 'disk', 'devices': [ 'disk' ] } }",
                             command);
    end_job(p, "snapshot");
}

/* The machine is put back to an older state: what was said since is void. */
static void test_close_replaced(void)
{
    const uint64_t session = 0x1234567800000000ull | HMC1;
    Partition *p = partition_new();
    g_autofree char *path = path_in(p, "disk");
    g_autofree char *devices = g_strdup_printf(
        PIPE SOURCE1 "-blockdev driver=file,node-name=file,filename=%s", path);
    uint64_t epoch;
    int fd;

    g_assert(g_file_set_contents(path, "", 0, NULL));
    partition_boot(p, "a", devices);
    qtest_qmp_assert_success(p->qts, "{ 'execute': 'blockdev-create', "
                             "'arguments': { 'job-id': 'create', 'options': {"
                             " 'driver': 'qcow2', 'file': 'file',"
                             " 'size': 1048576 } } }");
    end_job(p, "create");
    qtest_qmp_assert_success(p->qts, "{ 'execute': 'blockdev-add', "
                             "'arguments': { 'driver': 'qcow2',"
                             " 'node-name': 'disk', 'file': 'file' } }");
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    epoch = get_number(p, "hvpipe", "epoch");
    fd = hmc_start(p, "a-hmc1", HMC1);
    hmc_message(fd, 1, "m1");
    expect_event(p, HMC1, MESSAGE);
    snapshot(p, "snapshot-save");
    expect_text(p, HMC1, "m1");
    hmc_expect_ack(fd, 1);

    snapshot(p, "snapshot-load");
    /* The machine was reset on the way. */
    hmc_expect_state(fd, HMC1, false, 1);
    hmc_expect_close(fd, HVPIPE_LINK_REPLACED, "connect again");
    fd = hmc_resume(p, "a-hmc1", session, 0, 1);
    hmc_expect_numbers(fd, 0, 1, 256);
    expect_number(p, "hvpipe", "epoch", epoch);
    expect_text(p, HMC1, "m1");
    hmc_expect_ack(fd, 1);
    expect_event(p, HMC1, LOST);
    close(fd);
    stop_quiet(p);
}

/* What a hello says of versions, and behind what we know of it */
static void test_versions(void)
{
    static const struct {
        uint8_t version;
        uint16_t lowest, highest, more;
        const char *error;      /* NULL: it is accepted */
    } tests[] = {
        { 2, 2, 2, 0, NULL },
        { 2, 0, 65535, 1, NULL },
        { 2, 2, 9, HVPIPE_LINK_MAX_PAYLOAD - HVPIPE_LINK_HMC_STATE_SIZE, NULL },
        { 1, 2, 2, 0, "version 1 is not spoken here: the HMC must speak "
          "version 2" },
        { 3, 2, 2, 0, "version 3 is not spoken here" },
        { 2, 3, 4, 8, "versions 3 to 4 are not spoken here: the HMC must speak "
          "version 2" },
        { 2, 1, 1, 0, "versions 1 to 1 are not spoken here" },
        { 2, 0, 0, 0, "versions 0 to 0 are not spoken here" },
        { 2, 3, 2, 0, NULL },
    };
    Partition *p = partition_start(PIPE SOURCE1);
    int fd, i;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        const HvpipeLinkHmcState state = {
            .offer = { tests[i].lowest, tests[i].highest, 0xffffffff },
            .session = 7, .first = 1,
        };
        uint8_t frame[HVPIPE_LINK_MAX_FRAME];
        size_t size = hvpipe_link_pack_hmc_state(frame, &state);

        memset(frame + size, 0xff, tests[i].more);
        frame[0] = tests[i].version;
        stw_be_p(frame + 2, HVPIPE_LINK_HMC_STATE_SIZE + tests[i].more);
        fd = hmc_connect_to(p, "a-hmc1");
        hmc_write(fd, frame, size + tests[i].more);
        if (tests[i].lowest > tests[i].highest) {
            hmc_expect_close(fd, HVPIPE_LINK_MALFORMED,
                             "lowest version above the highest");
        } else if (tests[i].error) {
            hmc_expect_close(fd, HVPIPE_LINK_NO_VERSION, tests[i].error);
        } else {
            hmc_expect_state(fd, HMC1, true, i);
            hmc_message(fd, i + 1, "m");
            expect_event(p, HMC1, MESSAGE);
            expect_text(p, HMC1, "m");
            hmc_expect_ack(fd, i + 1);
            lose(p, fd);
        }
    }
    partition_stop(p);
}

/* A boot is seen, also by an HMC that was not there. */
static void test_epoch(void)
{
    Partition *p = partition_start(PIPE SOURCE1);
    HvpipeLinkHvState state;
    uint64_t epoch;
    int fd;

    fd = hmc_resume(p, "a-hmc1", 7, 0, 1);
    epoch = hmc_read_state(fd).epoch;
    expect_number(p, "hvpipe", "epoch", epoch);
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    g_assert_cmphex(hmc_read_state(fd).epoch, ==, epoch);
    lose(p, fd);
    fd = hmc_resume(p, "a-hmc1", 7, 0, 1);
    g_assert_cmphex(hmc_read_state(fd).epoch, ==, epoch);
    lose(p, fd);

    reset(p);
    fd = hmc_resume(p, "a-hmc1", 7, 0, 1);
    state = hmc_read_state(fd);
    g_assert_cmphex(state.epoch, !=, epoch);
    g_assert_cmphex(state.flags, ==, 0);
    epoch = state.epoch;

    /* Also if nothing else has changed */
    reset(p);
    state = hmc_read_state(fd);
    g_assert_cmphex(state.epoch, !=, epoch);
    expect_number(p, "hvpipe", "epoch", state.epoch);
    close(fd);
    stop_quiet(p);
}

static void test_reset(void)
{
    int fd;
    Partition *p = start_enabled(&fd);
    Event event;

    hmc_message(fd, 1, "kept");
    expect_event(p, HMC1, MESSAGE);
    g_assert_cmpint(send_text(p, HMC1, "sent"), ==, BUSY);
    hmc_expect_message(fd, 1, "sent");

    reset(p);
    hmc_expect_state(fd, HMC1, false, 0);
    g_assert(!get_event(p, &event));
    g_assert_cmpint(send_text(p, HMC1, "sent"), ==, NOT_AVAILABLE);
    hmc_ack(fd, 1);

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    hmc_expect_state(fd, HMC1, true, 0);
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "kept");
    hmc_expect_ack(fd, 1);
    /* The answer to what was sent before the reset goes to nobody. */
    g_assert_cmpint(send_text(p, HMC1, "sent"), ==, BUSY);
    hmc_expect_message(fd, 2, "sent");
    hmc_ack(fd, 2);
    g_assert_cmpint(send_wait(p, HMC1, "sent", 4), ==, 0);
    close(fd);
    stop_quiet(p);
}

static void test_inject_calls(void)
{
    Partition *p = partition_start(PIPE SOURCE3);
    uint32_t source, size;
    Event event;
    char *text;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);

    inject(p, "send:status=9902,count=2;receive:status=-1");
    text = get_text(p, "hvpipe", "inject");
    g_assert_cmpstr(text, ==,
                    "send:status=9902,count=2;receive:status=-1,count=1");
    g_free(text);
    g_assert_cmpint(send_text(p, ECHO, "x"), ==, 9902);
    g_assert_cmpint(send_text(p, ECHO, "x"), ==, 9902);
    g_assert_cmpint(send_text(p, ECHO, "x"), ==, 0);
    g_assert_cmpint(call_receive(p, INBOX, 4096, &source, &size), ==, -1);
    expect_text(p, ECHO, "x");
    text = get_text(p, "hvpipe", "inject");
    g_assert_cmpstr(text, ==, "");
    g_free(text);

    inject(p, "receive:source=0x02000009,length=5000");
    g_assert_cmpint(send_text(p, ECHO, "y"), ==, 0);
    g_assert_cmpint(call_receive(p, INBOX, 4096, &source, &size), ==, 0);
    g_assert_cmphex(source, ==, 0x02000009);
    g_assert_cmpuint(size, ==, 5000);
    expect_nothing(p);

    /* Each third one, until told otherwise */
    inject(p, "send:status=-5,every=3,count=0");
    g_assert_cmpint(send_text(p, ECHO, "1"), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "2"), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "3"), ==, -5);
    g_assert_cmpint(send_text(p, ECHO, "4"), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "5"), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "6"), ==, -5);
    inject(p, "");
    g_assert_cmpint(send_text(p, ECHO, "7"), ==, 0);
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);

    inject(p, "check-exception:none");
    g_assert_cmpint(check_exception(p, 0x04000000, &event), ==, 1);
    expect_event(p, ECHO, MESSAGE);

    inject(p, "set-system-parameter:status=-2,count=2");
    g_assert_cmpint(set_parameter(p, 1, 0), ==, -2);
    g_assert_cmpint(set_parameter(p, 1, 0), ==, -2);
    g_assert_cmpint(set_parameter(p, 1, 0), ==, 0);
    stop_quiet(p);
}

/* What was queued and announced is gone, and its HMC need not send it again. */
static void test_inject_new_pipe(void)
{
    int fd, n;
    Partition *p = start_enabled(&fd);

    for (n = 1; n <= 2; n++) {
        hmc_message(fd, n, "m");
        expect_event(p, HMC1, MESSAGE);
        g_assert_cmpint(send_text(p, ECHO, "x"), ==, 0);
        if (n == 2) {
            g_assert_cmpint(set_parameter(p, 1, 0), ==, 0);
            hmc_expect_state(fd, HMC1, false, 1);
        }
        inject(p, "set-system-parameter:new-pipe");
        g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
        hmc_expect_ack(fd, n);
        if (n == 2) {
            hmc_expect_state(fd, HMC1, true, 2);
        }
        expect_no_event(p);
        expect_nothing(p);
        g_assert_cmpint(send_text(p, ECHO, "y"), ==, 0);
        expect_event(p, ECHO, MESSAGE);
        expect_text(p, ECHO, "y");
    }
    hmc_leave(fd);
    stop_quiet(p);
}

static void test_inject_events(void)
{
    static const struct {
        const char *fault;
        Event event;
    } tests[] = {
        { "event:no-section", { 0xe6, 0, 0, 0 } },
        { "event:unknown-source", { 0xe6, 16, 0x0200ffff, MESSAGE } },
        { "event:unknown-source,source=0x05000001",
          { 0xe6, 16, 0x05000001, MESSAGE } },
        { "event:both-bits", { 0xe6, 16, ECHO, MESSAGE | LOST } },
        { "event:unknown-bits", { 0xe6, 16, ECHO, 0xfc } },
        { "event:wrong-type", { 0xe7, 16, ECHO, MESSAGE } },
    };
    Partition *p = partition_start(PIPE SOURCE3);
    Event event;
    int i;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        inject(p, tests[i].fault);
        g_assert_cmpint(send_text(p, ECHO, "x"), ==, 0);
        g_assert(get_event(p, &event));
        g_assert_cmphex(event.log_type, ==, tests[i].event.log_type);
        g_assert_cmpint(event.section, ==, tests[i].event.section);
        g_assert_cmphex(event.source, ==, tests[i].event.source);
        g_assert_cmphex(event.type, ==, tests[i].event.type);
        /* The true event is not lost by it. */
        expect_event(p, ECHO, MESSAGE);
        expect_text(p, ECHO, "x");
        expect_no_event(p);
    }

    inject(p, "event:short-section");
    g_assert(get_event(p, &event));
    g_assert_cmpint(event.section, ==, 10);
    expect_no_event(p);

    inject(p, "event:duplicate,count=2");
    expect_event(p, ECHO, MESSAGE);
    expect_event(p, ECHO, MESSAGE);
    expect_no_event(p);

    inject(p, "event:spurious");
    expect_no_event(p);
    stop_quiet(p);
}

/* An event in place of the good one: nothing else tells of the message. */
static void test_inject_replaced_events(void)
{
    static const struct {
        const char *fault;
        Event event;
    } tests[] = {
        { "replace-event:duplicate", { 0xe6, 16, ECHO, MESSAGE } },
        { "replace-event:no-section", { 0xe6, 0, 0, 0 } },
        { "replace-event:short-section", { 0xe6, 10, ECHO, MESSAGE } },
        { "replace-event:unknown-source", { 0xe6, 16, 0x0200ffff, MESSAGE } },
        { "replace-event:unknown-source,source=0x05000001",
          { 0xe6, 16, 0x05000001, MESSAGE } },
        { "replace-event:both-bits", { 0xe6, 16, ECHO, MESSAGE | LOST } },
        { "replace-event:unknown-bits", { 0xe6, 16, ECHO, 0xfc } },
        { "replace-event:wrong-type", { 0xe7, 16, ECHO, MESSAGE } },
        { "replace-event:lost" },
    };
    Partition *p = partition_start(PIPE SOURCE3 SOURCE1);
    int fd, i;

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "0"), ==, 0);
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "0");

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        const Event *want = &tests[i].event;
        Event event;

        inject(p, tests[i].fault);
        /* It waits for a good one to replace. */
        expect_no_event(p);
        g_assert_cmpint(send_text(p, ECHO, "x"), ==, 0);
        g_assert_cmpint(send_text(p, ECHO, "y"), ==, 0);
        g_assert(get_event(p, &event) == (want->log_type != 0));
        g_assert_cmphex(event.log_type, ==, want->log_type);
        g_assert_cmpint(event.section, ==, want->section);
        if (want->section >= 16) {
            g_assert_cmphex(event.source, ==, want->source);
            g_assert_cmphex(event.type, ==, want->type);
        }
        expect_no_event(p);
        expect_text(p, ECHO, "x");
        expect_event(p, ECHO, MESSAGE);
        expect_text(p, ECHO, "y");
        expect_no_event(p);
    }

    /* What was not told is told when the pipe is enabled. */
    inject(p, "replace-event:lost");
    g_assert_cmpint(send_text(p, ECHO, "z"), ==, 0);
    expect_no_event(p);
    expect_no_event(p);
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "z");

    /* Nothing waits for a loss to be received: what is next is told. */
    fd = hmc_start(p, "a-hmc1", HMC1);
    hmc_message(fd, 1, "m");
    expect_event(p, HMC1, MESSAGE);
    hmc_leave(fd);
    inject(p, "replace-event:lost");
    expect_text(p, HMC1, "m");
    expect_no_event(p);
    g_assert_cmpint(send_text(p, ECHO, "z"), ==, 0);
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "z");
    expect_no_event(p);
    stop_quiet(p);
}

static void test_inject_errors(void)
{
    static const struct {
        const char *fault;
        const char *error;
    } tests[] = {
        { "recieve:status=1", "'recieve' is nothing that can fail, choose from:"
          " send: receive: check-exception: set-system-parameter: event:"
          " replace-event:" },
        { "send:stauts=1", "'send:' does not know 'stauts=1', choose from: "
          "status=N count=N every=N" },
        { "send:none", "'send:' does not know 'none'" },
        { "send", "'send' does not say what goes wrong" },
        { "send:", "'send:' does not say what goes wrong" },
        { "send:,", "'send:' does not know ''" },
        { "send:count=3", "does not say what goes wrong" },
        { "send:status=", "'status=' in 'send:' is not a number" },
        { "send:status=1x", "'status=1x' in 'send:' is not a number" },
        { "send:status=99999999999", "is not a number from -2147483648 to" },
        { "send:status=1,every=0", "'every=0' in 'send:' is not a number from "
          "1 to" },
        { "send:status=1,status=2", "'status' is given twice" },
        { "receive:status=1,length=3", "leave 'status' out or the rest" },
        { "event:bogus", "choose from: spurious duplicate no-section" },
        { "event:spurious,duplicate", "'duplicate' is the second" },
        { "event:lost", "'event:' does not know 'lost'" },
        { "replace-event:spurious", "'replace-event:' does not know "
          "'spurious', choose from: lost duplicate no-section" },
        { "replace-event:count=2", "does not say what goes wrong" },
        { "event:source=1", "does not say what goes wrong" },
        { "send:status=1;", "'' is nothing that can fail" },
    };
    Partition *p = partition_start(PIPE SOURCE3);
    g_autofree char *text = NULL;
    int i;

    inject(p, "send:status=-1");
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *error = inject_error(p, tests[i].fault);

        if (!strstr(error, tests[i].error)) {
            g_test_message("%s", error);
        }
        g_assert(strstr(error, tests[i].error));
    }
    /* What was set before a mistake stays. */
    text = get_text(p, "hvpipe", "inject");
    g_assert_cmpstr(text, ==, "send:status=-1,count=1");
    stop_quiet(p);
}

/* Wait for the end of a migration: is it "completed" or "failed"? */
static const char *wait_migration(QTestState *qts)
{
    for (;;) {
        QDict *rsp = qtest_qmp(qts, "{ 'execute': 'query-migrate' }");
        QDict *info = qdict_get_qdict(rsp, "return");
        g_autofree char *status = g_strdup(qdict_get_try_str(info, "status"));

        qobject_unref(rsp);
        if (!g_strcmp0(status, "completed")) {
            return "completed";
        }
        if (!g_strcmp0(status, "failed")) {
            return "failed";
        }
        g_usleep(1000);
    }
}

static void wait_migrated(QTestState *qts)
{
    g_assert_cmpstr(wait_migration(qts), ==, "completed");
}

static void test_migrate(void)
{
    g_autofree char *uri = NULL;
    g_autofree char *args = NULL;
    int fd, fd2;
    Partition *p = start_enabled(&fd);
    QTestState *source = p->qts;

    hmc_message(fd, 1, "m1");
    hmc_message(fd, 2, "m2");
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "m1");
    hmc_expect_ack(fd, 1);
    expect_event(p, HMC1, MESSAGE);
    g_assert_cmpint(send_text(p, HMC1, "s1"), ==, BUSY);
    hmc_expect_message(fd, 1, "s1");

    /* A machine that stays is none the worse for it. */
    qtest_qmp_assert_success(source, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': 'exec:cat >/dev/null' } }");
    wait_migrated(source);
    qtest_qmp_assert_success(source, "{ 'execute': 'cont' }");
    expect_text(p, HMC1, "m2");
    hmc_expect_ack(fd, 2);
    expect_no_event(p);
    hmc_message(fd, 3, "m3");
    hmc_message(fd, 4, "m4");
    expect_event(p, HMC1, MESSAGE);

    uri = g_strdup_printf("unix:%s/migration", p->dir);
    args = g_strdup_printf("-incoming %s " PIPE SOURCE3 SOURCE2 SOURCE1, uri);
    partition_boot(p, "b", args);
    /* An HMC may be there before the partition is. */
    fd2 = hmc_resume(p, "b-hmc1", 0x1234567800000000ull | HMC1, 0, 2);
    qtest_qmp_assert_success(source, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", uri);
    wait_migrated(source);
    qtest_qmp_eventwait(p->qts, "RESUME");
    close(fd);
    qtest_quit(source);

    hmc_expect_state(fd2, HMC1, true, 2);
    /* It goes on as after any reconnect. */
    hmc_expect_message(fd2, 1, "s1");
    hmc_ack(fd2, 1);
    g_assert_cmpint(send_wait(p, HMC1, "s1", 2), ==, 0);
    hmc_message(fd2, 2, "m2");
    hmc_expect_ack(fd2, 2);
    hmc_message(fd2, 3, "m3");
    hmc_message(fd2, 4, "m4");
    hmc_message(fd2, 5, "m5");
    g_assert(hmc_silent(fd2));
    expect_no_event(p);
    expect_text(p, HMC1, "m3");
    hmc_expect_ack(fd2, 3);
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "m4");
    hmc_expect_ack(fd2, 4);
    expect_event(p, HMC1, LOST);
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "m5");
    hmc_expect_ack(fd2, 5);
    expect_no_event(p);
    close(fd2);
    stop_quiet(p);
}

/* Wait until a machine has taken what came to it, and does not run. */
static void wait_loaded(QTestState *qts)
{
    for (;;) {
        QDict *rsp = qtest_qmp(qts, "{ 'execute': 'query-status' }");
        bool waits = !strcmp(qdict_get_str(qdict_get_qdict(rsp, "return"),
                                           "status"), "inmigrate");

        qobject_unref(rsp);
        if (!waits) {
            break;
        }
        g_usleep(1000);
    }
}

/*
 * A partition with state of every kind: announced and fetched is a message of
 * HMC1, queued one of the echo source, on its way one to HMC1.
 */
static Partition *start_busy(int *hmc1)
{
    Partition *p = start_enabled(hmc1);

    hmc_message(*hmc1, 1, "first");
    expect_event(p, HMC1, MESSAGE);
    g_assert_cmpint(send_text(p, ECHO, "second"), ==, 0);
    g_assert_cmpint(send_text(p, HMC1, "third"), ==, BUSY);
    hmc_expect_message(*hmc1, 1, "third");
    return p;
}

/* Start machine @name on what @p becomes, and leave the old one. */
static void move(Partition *p, const char *name, const char *devices)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/to-%s", p->dir, name);
    g_autofree char *args = g_strdup_printf("-incoming %s %s", uri, devices);
    QTestState *source = p->qts;

    partition_boot(p, name, args);
    qtest_qmp_assert_success(source, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", uri);
    wait_migrated(source);
    qtest_qmp_eventwait(p->qts, "RESUME");
    qtest_quit(source);
}

/* A machine without the pipe keeps what came, for the next one that has it. */
static void test_migrate_incapable(void)
{
    int fd, fd2;
    Partition *p = start_busy(&fd);
    const uint64_t session = 0x1234567800000000ull | HMC1;

    move(p, "b", INCAPABLE SOURCE1 SOURCE2 SOURCE3);
    close(fd);
    expect_absent(p);
    fd2 = hmc_resume(p, "b-hmc1", session, 0, 1);
    hmc_expect_state(fd2, HMC1, false, 0);
    /* Nobody waits for the fate of "third" here: it is not sent again. */
    hmc_message(fd2, 1, "first");
    hmc_message(fd2, 2, "fourth");
    g_assert(hmc_silent(fd2));
    expect_absent(p);

    hmc_leave(fd2);

    move(p, "c", PIPE SOURCE1 SOURCE2 SOURCE3);
    expect_no_event(p);
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    fd = hmc_resume(p, "c-hmc1", session, 0, 1);
    hmc_expect_state(fd, HMC1, true, 0);
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "first");
    hmc_expect_ack(fd, 1);
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "second");
    expect_event(p, HMC1, LOST);
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "fourth");
    hmc_expect_ack(fd, 2);
    expect_event(p, HMC1, LOST);
    g_assert_cmpint(send_text(p, HMC1, "third"), ==, BUSY);
    hmc_expect_message(fd, 1, "third");
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "third", 5), ==, 0);
    expect_no_event(p);
    close(fd);
    stop_quiet(p);
}

/* Write the stream of @p's machine to a file; returns its content. */
static char *save_stream(Partition *p, gsize *size)
{
    g_autofree char *path = path_in(p, "stream");
    g_autofree char *uri = g_strdup_printf("exec:cat >%s", path);
    char *data = NULL;

    qtest_qmp_assert_success(p->qts, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", uri);
    wait_migrated(p->qts);
    g_assert(g_file_get_contents(path, &data, size, NULL));
    return data;
}

/* Have a machine load the file, which it must refuse with @error. */
static void expect_refused(Partition *p, const char *devices,
                           const char *error)
{
    g_autofree char *args = g_strdup_printf(
        "-machine " MACHINE " -incoming 'exec:cat %s/stream' "
        "-chardev null,id=hmc1 -chardev null,id=hmc2 %s", p->dir, devices);
    g_autofree char *text = run_qemu(p, args);

    if (!strstr(text, error)) {
        g_test_message("no '%s' in: %s", error, text);
    }
    g_assert(strstr(text, error));
    g_assert(strstr(text, "load of migration failed"));
}

/* All was received: nothing is announced, nor fetched, any more. */
static void test_migrate_at_rest(void)
{
    int fd;
    Partition *p = start_enabled(&fd);

    hmc_message(fd, 1, "m1");
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "m1");
    hmc_expect_ack(fd, 1);
    move(p, "b", PIPE SOURCE3 SOURCE2 SOURCE1);
    close(fd);
    expect_event(p, HMC1, LOST);
    expect_no_event(p);
    fd = hmc_resume(p, "b-hmc1", 0x1234567800000000ull | HMC1, 0, 2);
    hmc_expect_state(fd, HMC1, true, 1);
    hmc_message(fd, 2, "m2");
    expect_event(p, HMC1, MESSAGE);
    expect_text(p, HMC1, "m2");
    hmc_expect_ack(fd, 2);
    close(fd);
    stop_quiet(p);
}

/* Moved on before it ever ran: the loss is told where it does. */
static void test_migrate_on(void)
{
    g_autofree char *first = NULL;
    g_autofree char *second = NULL;
    g_autofree char *first_args = NULL;
    g_autofree char *second_args = NULL;
    int fd;
    Partition *p = start_enabled(&fd);
    QTestState *source = p->qts;

    first = g_strdup_printf("unix:%s/first", p->dir);
    first_args = g_strdup_printf("-S -incoming %s " PIPE SOURCE3 SOURCE2
                                 SOURCE1, first);
    partition_boot(p, "b", first_args);
    qtest_qmp_assert_success(source, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", first);
    wait_migrated(source);
    qtest_quit(source);
    close(fd);
    source = p->qts;
    wait_loaded(source);

    second = g_strdup_printf("unix:%s/second", p->dir);
    second_args = g_strdup_printf("-incoming %s " PIPE SOURCE3 SOURCE2
                                  SOURCE1, second);
    partition_boot(p, "c", second_args);
    qtest_qmp_assert_success(source, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", second);
    wait_migrated(source);
    qtest_quit(source);
    wait_loaded(p->qts);
    qtest_qmp_assert_success(p->qts, "{ 'execute': 'cont' }");
    expect_event(p, HMC1, LOST);
    expect_no_event(p);
    stop_quiet(p);
}

/* A machine without what is in the stream refuses it. */
static void test_migrate_elsewhere(void)
{
    static const struct {
        const char *devices;
        const char *error;
    } tests[] = {
        { "", "Unknown savevm section or instance 'spapr-hvpipe' 0" },
        { PIPE SOURCE2 SOURCE3, "source 0x02000001: waits for an answer, "
          "enabled 1, and this machine has no such source: add it" },
        { PIPE SOURCE1 SOURCE3, "source 0x02000002: this machine has no such "
          "source: add -device spapr-hvpipe-source" },
        { PIPE SOURCE1 SOURCE2, "source 0x02000003: queue has a message of it, "
          "and this machine has no such source: add it by -device" },
    };
    int fd, i;
    Partition *p = start_busy(&fd);
    gsize size;

    g_free(save_stream(p, &size));
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        expect_refused(p, tests[i].devices, tests[i].error);
    }
    close(fd);
    partition_stop(p);
}

/* With a path back, the source hears of it, and the partition goes on. */
static void test_migrate_refused(void)
{
    int fd;
    Partition *p = start_busy(&fd);
    g_autofree char *path = path_in(p, "migration");
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    g_autofree char *command = g_strdup_printf(
        "exec timeout 60 %s -accel qtest -machine " MACHINE " -m 256 "
        "-nodefaults -nographic -bios %s/firmware -incoming %s 2>&1",
        getenv("QTEST_QEMU_BINARY"), p->dir, uri);
    int64_t end = g_get_monotonic_time() + PATIENCE_MS * 1000;
    FILE *target = popen(command, "r");
    char text[1024] = "";

    while (!g_file_test(path, G_FILE_TEST_EXISTS)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    qtest_qmp_assert_success(p->qts, "{ 'execute': 'migrate-set-capabilities',"
                             " 'arguments': { 'capabilities': [ {"
                             " 'capability': 'return-path',"
                             " 'state': true } ] } }");
    qtest_qmp_assert_success(p->qts, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", uri);
    g_assert_cmpstr(wait_migration(p->qts), ==, "failed");
    g_assert(fread(text, 1, sizeof(text) - 1, target) > 0);
    g_assert(strstr(text, "Unknown savevm section or instance 'spapr-hvpipe'"));
    g_assert_cmpint(WEXITSTATUS(pclose(target)), ==, 1);

    expect_text(p, HMC1, "first");
    hmc_expect_ack(fd, 1);
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "second");
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "third", 5), ==, 0);
    expect_no_event(p);
    close(fd);
    partition_stop(p);
}

/* Find the bytes @what in what is between @from and @end. */
static char *find_bytes(char *from, char *end, const void *what, gsize size)
{
    char *found = memmem(from, end - from, what, size);

    g_assert(found);
    return found + size;
}

/* The parts of the section in a stream, each from its first field on */
typedef enum Part {
    THE_PIPE,
    SESSION1,
    SESSION2,
    ENTRY1,
    ENTRY3,
} Part;

static char *find_part(char *data, gsize size, Part part)
{
    static const char header[] = "\x0cspapr-hvpipe\0\0\0\0\0\0\0\3";
    static const char sources[][5] = {
        [SESSION1] = "\1\2\0\0\1", [SESSION2] = "\1\2\0\0\2",
        [ENTRY1] = "\1\2\0\0\1", [ENTRY3] = "\1\2\0\0\3",
    };
    char *end = data + size;
    char *found = find_bytes(data, end, header, sizeof(header) - 1);

    if (part != THE_PIPE) {
        /* A byte that says that one more is there, and its source */
        found = find_bytes(found + 20, end, sources[part], 5);
    }
    if (part == ENTRY1) {
        found = find_bytes(found, end, sources[part], 5);
    }
    return part == THE_PIPE ? found : found - 4;
}

/* A stream that somebody has tampered with is refused, and says why. */
static void test_migrate_malformed(void)
{
    static const struct {
        Part part;
        int at;                 /* from its first field */
        int size;
        uint64_t value;
        const char *error;
    } tests[] = {
        { THE_PIPE, -4, 4, 4, "unsupported version 4 for 'spapr-hvpipe' v3" },
        { THE_PIPE, -4, 4, 2, "incoming version_id 2 is too old" },
        { THE_PIPE, 0, 8, 0, "epoch 0" },
        { THE_PIPE, 8, 1, 0, "source 0x02000001: waits for an answer, enabled "
          "0, and this machine has it" },
        { THE_PIPE, 9, 1, 0, "enabled 1, announced 0, fetched 1, withheld 0, "
          "queue not empty do not fit" },
        { THE_PIPE, 11, 1, 1, "enabled 1, announced 1, fetched 1, withheld 1" },
        { THE_PIPE, 12, 4, 0x02000004, "source 0x02000004: waits for an "
          "answer, enabled 1, and this machine has no such source" },
        { THE_PIPE, 12, 4, 0x02000003, "source 0x02000001: message on its way "
          "has state 1, but nobody waits" },
        { THE_PIPE, 12, 4, 0, "has state 1, but nobody waits" },
        { ENTRY1, 0, 4, 0x02000004, "source 0x02000004: queue has a message" },
        { ENTRY1, 4, 1, 3, "source 0x02000001: queue entry has type 3 and size "
          "5" },
        { ENTRY1, 4, 1, 2, "source 0x02000001: queue entry has type 2 and size "
          "5" },
        { ENTRY1, 5, 8, 2, "source 0x02000001: queued message 2 is not from 1 "
          "to 1" },
        { ENTRY1, 13, 4, 0, "queue entry has type 1 and size 0" },
        { ENTRY1, 13, 4, 4089, "queue entry has type 1 and size 4089" },
        { ENTRY1, 13, 4, UINT32_MAX, "type 1 and size 4294967295" },
        { ENTRY3, 5, 8, 1, "source 0x02000003: queue entry of type 1 has "
          "sequence 1, but no session" },
        { SESSION1, 0, 4, 0x02000004, "source 0x02000004: this machine has no "
          "such source: add -device spapr-hvpipe-source" },
        { SESSION1, 0, 4, 0x02000003, "source 0x02000003: this machine has no "
          "such source" },
        { SESSION1, 5, 8, 0, "session 0 has queued 1, sent 1, open 1" },
        { SESSION1, 13, 8, 0, "queued message 1 is not from 1 to 0" },
        { SESSION1, 13, 8, UINT64_MAX, "no number that counting leads to" },
        { SESSION1, 21, 8, 2, "taken 2 is above queued 1" },
        { SESSION1, 21, 8, 1, "queued message 1 is not from 2 to 1" },
        { SESSION1, 29, 8, 0, "has state 1, but sequence 0" },
        { SESSION1, 37, 1, 5, "message on its way has state 5 and size 5" },
        { SESSION1, 37, 1, 0, "message on its way has state 0 and size 5" },
        { SESSION1, 38, 4, 0, "message on its way has state 1 and size 0" },
        { SESSION1, 38, 4, 4089, "has state 1 and size 4089" },
        { SESSION1, 38, 4, UINT32_MAX, "has state 1 and size 4294967295" },
        { SESSION2, 0, 4, 0x02000001, "source 0x02000001: is there twice" },
        { SESSION2, 4, 1, 1, "source 0x02000002: session 0 has queued 0, sent "
          "0, open 1" },
        { SESSION2, 21, 8, 7, "source 0x02000002: taken 7 is above queued 0" },
        { SESSION2, 37, 1, 4, "message on its way has state 4 and size 0" },
    };
    int fd, i;
    Partition *p = start_busy(&fd);
    g_autofree char *stream = path_in(p, "stream");
    gsize size;
    g_autofree char *data = save_stream(p, &size);

    /* A message takes no more of the stream than it has bytes. */
    g_assert_cmpint(find_part(data, size, ENTRY3) -
                    find_part(data, size, ENTRY1), ==, 17 + 5 + 1);

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        char kept[8], *at = find_part(data, size, tests[i].part) + tests[i].at;

        memcpy(kept, at, tests[i].size);
        stn_be_p(at, tests[i].size, tests[i].value);
        g_assert(g_file_set_contents(stream, data, size, NULL));
        expect_refused(p, PIPE SOURCE1 SOURCE2 SOURCE3, tests[i].error);
        memcpy(at, kept, tests[i].size);
    }
    close(fd);
    partition_stop(p);
}

/*
 * Personalities: what PAPR leaves open
 */

static Partition *start_with(const char *pipe, int *hmc1)
{
    g_autofree char *devices = g_strdup_printf("%s" SOURCE1 SOURCE2 SOURCE3,
                                               pipe);
    Partition *p = partition_start(devices);

    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    *hmc1 = hmc_start(p, "a-hmc1", HMC1);
    return p;
}

static void enable_again(Partition *p, bool disable)
{
    if (disable) {
        g_assert_cmpint(set_parameter(p, 1, 0), ==, 0);
        expect_no_event(p);
    }
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
}

/* Nothing that was announced is, when the pipe is enabled again. */
static void test_announce_again(void)
{
    int fd, disable;
    Partition *p = start_with(PIPE_WITH("announce-again=off"), &fd);

    for (disable = 0; disable <= 1; disable++) {
        /* Announced, and fetched or not */
        g_assert_cmpint(send_text(p, ECHO, "one"), ==, 0);
        enable_again(p, disable);
        expect_no_event(p);
        g_assert_cmpint(send_text(p, ECHO, "two"), ==, 0);
        expect_no_event(p);
        expect_text(p, ECHO, "one");
        expect_event(p, ECHO, MESSAGE);
        enable_again(p, disable);
        expect_no_event(p);
        enable_again(p, disable);
        expect_text(p, ECHO, "two");
        expect_no_event(p);
        expect_nothing(p);
    }

    /* What comes while the pipe is disabled was not announced. */
    hmc_expect_state(fd, HMC1, false, 0);
    hmc_expect_state(fd, HMC1, true, 0);
    hmc_expect_state(fd, HMC1, false, 0);
    hmc_expect_state(fd, HMC1, true, 0);
    hmc_expect_state(fd, HMC1, false, 0);
    hmc_expect_state(fd, HMC1, true, 0);
    g_assert_cmpint(set_parameter(p, 1, 0), ==, 0);
    hmc_expect_state(fd, HMC1, false, 0);
    hmc_message(fd, 1, "three");
    g_assert(hmc_silent(fd));
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    hmc_expect_state(fd, HMC1, true, 0);
    expect_event(p, HMC1, MESSAGE);

    /* A loss that was announced is forgotten; one behind it is not. */
    hmc_leave(fd);
    expect_text(p, HMC1, "three");
    g_assert(get_bool(p, "hvpipe", "announced"));
    expect_number(p, "hvpipe", "queued", 1);
    g_assert_cmpint(send_text(p, ECHO, "four"), ==, 0);
    g_assert_cmpint(set_parameter(p, 1, 0), ==, 0);
    expect_number(p, "hvpipe", "queued", 1);
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "four");
    expect_no_event(p);
    stop_quiet(p);
}

/* A message withheld stays so on another machine. */
static void test_announce_again_migrate(void)
{
    int fd;
    Partition *p = start_with(PIPE_WITH("announce-again=off"), &fd);

    g_assert_cmpint(send_text(p, ECHO, "one"), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "two"), ==, 0);
    g_assert_cmpint(set_parameter(p, 1, 0), ==, 0);
    move(p, "b", PIPE_WITH("announce-again=off") SOURCE1 SOURCE2 SOURCE3);
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    expect_no_event(p);
    expect_text(p, ECHO, "one");
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "two");
    close(fd);
    stop_quiet(p);
}

/* What a receive answers that finds nothing */
static void test_empty_receive(void)
{
    static const struct {
        const char *pipe;
        int status;
    } tests[] = {
        { PIPE, 0 },
        { PIPE_WITH("empty-receive=0"), 0 },
        { PIPE_WITH("empty-receive=-1"), -1 },
        { PIPE_WITH("empty-receive=-3"), -3 },
    };
    uint32_t source, size;
    int fd, i;

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        Partition *p = start_with(tests[i].pipe, &fd);

        g_assert_cmpint(call_receive(p, INBOX, 4096, &source, &size), ==,
                        tests[i].status);
        g_assert_cmphex(source, ==, 0);
        g_assert_cmpuint(size, ==, 0);
        /* A loss is nothing to receive. */
        hmc_leave(fd);
        g_assert_cmpint(call_receive(p, INBOX, 4096, &source, &size), ==,
                        tests[i].status);
        expect_event(p, HMC1, LOST);
        g_assert_cmpint(send_text(p, ECHO, "one"), ==, 0);
        expect_text(p, ECHO, "one");
        stop_quiet(p);
    }
}

/* The longest message that a send takes; what comes may be longer. */
static void test_payload_limit(void)
{
    static const struct {
        const char *pipe;
        int limit;
    } tests[] = {
        { PIPE, 4088 },
        { PIPE_WITH("payload-limit=4088"), 4088 },
        { PIPE_WITH("payload-limit=4048"), 4048 },
    };
    uint8_t payload[HVPIPE_LINK_MAX_PAYLOAD + 1] = {};
    int fd, i;

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        Partition *p = start_with(tests[i].pipe, &fd);
        int limit = tests[i].limit;

        g_assert_cmpint(send_once(p, ECHO, payload, limit), ==, 0);
        expect_receive(p, ECHO, payload, limit);
        g_assert_cmpint(send_once(p, ECHO, payload, limit + 1), ==,
                        BAD_PARAMETER);
        hmc_frame(fd, HVPIPE_LINK_MESSAGE, 1, payload, 4088);
        expect_event(p, HMC1, MESSAGE);
        expect_receive(p, HMC1, payload, 4088);
        close(fd);
        stop_quiet(p);
    }
}

/* The next announcement comes a while behind what was taken. */
static void test_announce_delay(void)
{
    int fd;
    Partition *p = start_with(PIPE_WITH("announce-delay-us=2000"), &fd);

    g_assert_cmpint(send_text(p, ECHO, "one"), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "two"), ==, 0);
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "one");
    expect_no_event(p);
    qtest_clock_step(p->qts, 1999000);
    expect_no_event(p);
    g_assert(!get_bool(p, "hvpipe", "announced"));
    qtest_clock_step(p->qts, 1000);
    g_assert(get_bool(p, "hvpipe", "announced"));
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "two");

    /* Also for one that comes meanwhile, and without the event of the last. */
    g_assert_cmpint(send_text(p, ECHO, "three"), ==, 0);
    expect_no_event(p);
    qtest_clock_step(p->qts, 2000000);
    expect_text(p, ECHO, "three");
    g_assert_cmpint(send_text(p, ECHO, "four"), ==, 0);
    expect_no_event(p);

    /* Enabling does not wait. */
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    expect_event(p, ECHO, MESSAGE);
    g_assert_cmpint(send_text(p, ECHO, "five"), ==, 0);
    expect_text(p, ECHO, "four");
    expect_no_event(p);

    /* The delay does not migrate; what it kept back does. */
    move(p, "b", PIPE_WITH("announce-delay-us=2000") SOURCE1 SOURCE2 SOURCE3);
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "five");
    close(fd);
    stop_quiet(p);
}

/* While a send is busy, another one is refused. */
static void test_second_send(void)
{
    int fd, fd2, i;
    Partition *p = start_with(PIPE_WITH("refuse-second-send=on"), &fd);

    fd2 = hmc_start(p, "a-hmc2", HMC2);
    g_assert_cmpint(send_text(p, HMC1, "one"), ==, BUSY);
    hmc_expect_message(fd, 1, "one");
    g_assert_cmpint(send_text(p, HMC2, "two"), ==, FAILED);
    g_assert_cmpint(send_other(p, HMC1, "two"), ==, FAILED);
    g_assert_cmpint(send_text(p, ECHO, "two"), ==, FAILED);
    g_assert_cmpint(send_text(p, 0x02000009, "two"), ==, FAILED);
    /* They have not disturbed it. */
    g_assert_cmpint(send_text(p, HMC1, "one"), ==, BUSY_1MS);
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "one", 3), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "two"), ==, 0);

    /* It is no longer busy when the HMC has answered, or is gone. */
    g_assert_cmpint(send_text(p, HMC1, "three"), ==, BUSY);
    hmc_expect_message(fd, 2, "three");
    hmc_ack(fd, 2);
    g_assert(hmc_silent(fd));
    g_assert_cmpint(send_text(p, HMC2, "four"), ==, BUSY);
    hmc_expect_message(fd2, 1, "four");
    hmc_leave(fd2);
    g_assert_cmpint(send_text(p, ECHO, "five"), ==, 0);
    g_assert_cmpint(send_text(p, HMC1, "three"), ==, BUSY);
    hmc_expect_message(fd, 3, "three");

    /* System parameter 64 ends it. */
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "six"), ==, 0);

    /* An echo is busy while its queue is full. */
    for (i = 0; send_text(p, ECHO, "x") == 0; i++) {
        g_assert_cmpint(i, <, 256);
    }
    g_assert_cmpint(send_other(p, ECHO, "y"), ==, FAILED);
    expect_text(p, ECHO, "two");
    g_assert_cmpint(send_other(p, ECHO, "y"), ==, 0);
    expect_event(p, HMC2, LOST);
    expect_event(p, ECHO, MESSAGE);
    close(fd);
    stop_quiet(p);
}

/* The harshest reading of everything, whatever else is said */
static void test_strict(void)
{
    uint8_t payload[4049] = {};
    uint32_t source, size;
    int fd;
    Partition *p = start_with(PIPE_WITH(
        "strict=on,announce-again=on,empty-receive=0,payload-limit=4088,"
        "announce-delay-us=1000,refuse-second-send=off"), &fd);

    g_assert_cmpint(call_receive(p, INBOX, 4096, &source, &size), ==, -3);
    g_assert_cmpint(send_once(p, ECHO, payload, 4049), ==, BAD_PARAMETER);
    g_assert_cmpint(send_text(p, HMC1, "one"), ==, BUSY);
    hmc_expect_message(fd, 1, "one");
    g_assert_cmpint(send_text(p, ECHO, "two"), ==, FAILED);
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "one", 3), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "two"), ==, 0);
    g_assert_cmpint(send_text(p, ECHO, "three"), ==, 0);
    g_assert_cmpint(set_parameter(p, 1, 1), ==, 0);
    expect_no_event(p);
    expect_text(p, ECHO, "two");
    expect_event(p, ECHO, MESSAGE);
    expect_text(p, ECHO, "three");
    close(fd);
    stop_quiet(p);
}

/* What can be seen of the devices without a trace */
static void test_counters(void)
{
    int fd;
    Partition *p = start_with(PIPE, &fd);
    g_autofree char *error = get_text(p, "source1", "link-error");

    g_assert_cmpstr(error, ==, "");
    g_assert(get_bool(p, "hvpipe", "enabled"));
    g_assert(!get_bool(p, "hvpipe", "announced"));
    expect_link(p, "source1", "up");
    expect_link(p, "source2", "closed");
    expect_number(p, "source1", "session", 0x1234567800000000ull | HMC1);

    hmc_message(fd, 1, "one");
    hmc_message(fd, 2, "two");
    expect_event(p, HMC1, MESSAGE);
    g_assert(hmc_silent(fd));
    expect_number(p, "hvpipe", "queued", 2);
    expect_number(p, "source1", "queued", 2);
    expect_number(p, "source1", "received", 0);
    expect_text(p, HMC1, "one");
    hmc_expect_ack(fd, 1);
    expect_number(p, "source1", "queued", 1);
    expect_number(p, "source1", "received", 1);
    expect_number(p, "hvpipe", "events", 1);
    expect_number(p, "hvpipe", "receives", 1);

    g_assert_cmpint(send_text(p, HMC1, "three"), ==, BUSY);
    g_assert_cmpint(send_text(p, HMC1, "three"), ==, BUSY_1MS);
    hmc_expect_message(fd, 1, "three");
    expect_number(p, "source1", "busy", 2);
    hmc_ack(fd, 1);
    g_assert_cmpint(send_wait(p, HMC1, "three", 5), ==, 0);
    expect_number(p, "source1", "sent", 1);
    expect_number(p, "source1", "closed", 0);
    g_assert_cmpint(send_text(p, HMC2, "four"), ==, CLOSED);
    expect_number(p, "source2", "closed", 1);
    g_assert_cmpuint(get_number(p, "hvpipe", "sends"), >=, 4);
    close(fd);
    stop_quiet(p);
}

int main(int argc, char *argv[])
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("hvpipe/device-tree", test_device_tree);
    qtest_add_func("hvpipe/absent", test_absent);
    qtest_add_func("hvpipe/properties", test_properties);
    qtest_add_func("hvpipe/disabled", test_disabled);
    qtest_add_func("hvpipe/echo", test_echo);
    qtest_add_func("hvpipe/send", test_send);
    qtest_add_func("hvpipe/retry", test_retry);
    qtest_add_func("hvpipe/retry-disabled", test_retry_disabled);
    qtest_add_func("hvpipe/lists", test_lists);
    qtest_add_func("hvpipe/arguments", test_arguments);
    qtest_add_func("hvpipe/receive", test_receive);
    qtest_add_func("hvpipe/malformed", test_malformed);
    qtest_add_func("hvpipe/stream", test_stream);
    qtest_add_func("hvpipe/resume-receive", test_resume_receive);
    qtest_add_func("hvpipe/resume-send", test_resume_send);
    qtest_add_func("hvpipe/last-words", test_last_words);
    qtest_add_func("hvpipe/one-stalls", test_one_stalls);
    qtest_add_func("hvpipe/burst", test_burst);
    qtest_add_func("hvpipe/credit", test_credit);
    qtest_add_func("hvpipe/credit-untold", test_credit_untold);
    qtest_add_func("hvpipe/close", test_close);
    qtest_add_func("hvpipe/close-replaced", test_close_replaced);
    qtest_add_func("hvpipe/versions", test_versions);
    qtest_add_func("hvpipe/epoch", test_epoch);
    qtest_add_func("hvpipe/reset", test_reset);
    qtest_add_func("hvpipe/counters", test_counters);
    qtest_add_func("hvpipe/inject-calls", test_inject_calls);
    qtest_add_func("hvpipe/inject-new-pipe", test_inject_new_pipe);
    qtest_add_func("hvpipe/inject-events", test_inject_events);
    qtest_add_func("hvpipe/inject-replaced", test_inject_replaced_events);
    qtest_add_func("hvpipe/inject-errors", test_inject_errors);
    qtest_add_func("hvpipe/migrate", test_migrate);
    qtest_add_func("hvpipe/migrate-at-rest", test_migrate_at_rest);
    qtest_add_func("hvpipe/migrate-on", test_migrate_on);
    qtest_add_func("hvpipe/migrate-incapable", test_migrate_incapable);
    qtest_add_func("hvpipe/migrate-elsewhere", test_migrate_elsewhere);
    qtest_add_func("hvpipe/migrate-refused", test_migrate_refused);
    qtest_add_func("hvpipe/migrate-malformed", test_migrate_malformed);
    qtest_add_func("hvpipe/announce-again", test_announce_again);
    qtest_add_func("hvpipe/announce-again-migrate",
                   test_announce_again_migrate);
    qtest_add_func("hvpipe/empty-receive", test_empty_receive);
    qtest_add_func("hvpipe/payload-limit", test_payload_limit);
    qtest_add_func("hvpipe/announce-delay", test_announce_delay);
    qtest_add_func("hvpipe/second-send", test_second_send);
    qtest_add_func("hvpipe/strict", test_strict);

    return g_test_run();
}
