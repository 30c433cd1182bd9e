# SPDX-License-Identifier: GPL-2.0-or-later
"""Firmware that fails: each fault that the hypervisor can be told to make, and what programs in the partition see.

A test injects faults and runs steps on handles of sources in the partition. Steps are written as what comes out of
them, so that a run of them must print just what it was given:

    open1 write1 poll1=in,out read1=EIO read1=1.1 close1

hmc1 and hmc2 answer each message with itself, hmc3 is an HMC that does the same, hmc4 is each test's own. The payload
of the second write to hmc1 is "1.2". Each test ends by proof that all its faults struck, that the pipe works for every
source and both ways, hmc4 too, and that no message was dropped but those that it says.
"""

import re
import signal
import subprocess

import pytest

from lab import MACHINES, TOP, Hmc, LabError, initrd_with, source_id

HMC4 = f"{source_id('hmc4'):#010x}"
INJECT = "/machine/peripheral/hvpipe", "inject"

# What the hvpipe tool cannot show: each call alone, with its errno, on a handle that stays open after it failed.
STEPS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE (48 + 4088 + 1)

static struct { int fd, writes; } handles[10];
static char *buffer;
static int nth;     /* what of the kernel's in the next step is to fail, 0: nothing */

static int events_of(int fd, int events, int timeout)
{
    struct pollfd pollfd = { .fd = fd, .events = events };

    return poll(&pollfd, 1, timeout) < 0 ? -1 : pollfd.revents;
}

static void print_events(int events)
{
    const char *separator = "=";
    const struct { int event; const char *name; } names[] = {
        { POLLIN, "in" }, { POLLOUT, "out" }, { POLLRDHUP, "hup" }, { POLLERR, "err" }, { POLLNVAL, "nval" },
    };

    for (int i = 0; i < 5; i++) {
        if (events & names[i].event) {
            printf("%s%s", separator, names[i].name);
            separator = ",";
        }
    }
}

static int read_message(int fd, size_t size)
{
    int n = read(fd, buffer, size);

    if (n >= 0)
        buffer[n] = 0;
    if (n > 48)
        printf("=%s", buffer + 48);
    else if (n == 48)
        printf(buffer[4] == 2 ? "=lost" : "=flags %#x", buffer[4]);
    return n;
}

static int step(const char *name, int n)
{
    int fd = handles[n].fd, len, dev, error;

    if (!strcmp(name, "open")) {
        unsigned int source = 0x02000000 | n;

        dev = open("/dev/papr-hvpipe", O_RDWR);
        fd = dev < 0 ? -1 : ioctl(dev, _IOW(0xb2, 9, unsigned int), &source);
        if (fd >= 0)
            handles[n].fd = fd;
        return fd;
    }
    if (!strcmp(name, "write") || !strcmp(name, "again") || !strcmp(name, "fresh")) {
        handles[n].writes += *name != 'a';
        len = 48 + sprintf(buffer + 48, "%d.%d", n, handles[n].writes);
        if (*name == 'f')   /* from pages that the kernel has to fetch */
            madvise(buffer, SIZE, MADV_DONTNEED);
        len -= write(fd, buffer, len);
        return len ? -1 : 0;
    }
    if (!strcmp(name, "read")) {
        len = read_message(fd, SIZE - 1);
        if (!len)
            printf("=nothing");
        return len;
    }
    if (!strcmp(name, "take")) {
        do
            events_of(fd, POLLIN, -1);
        while (!(len = read_message(fd, SIZE - 1)));
        return len;
    }
    if (!strcmp(name, "short"))
        return read_message(fd, 48);
    if (!strcmp(name, "poll") || !strcmp(name, "now")) {
        len = events_of(fd, POLLIN | POLLRDHUP, *name == 'p' ? -1 : 0);
        print_events(len < 0 ? len : events_of(fd, POLLIN | POLLOUT | POLLRDHUP, 0));
        return len;
    }
    if (!strcmp(name, "ready")) {
        len = events_of(fd, POLLOUT, -1);
        return len == POLLOUT ? 0 : -1;
    }
    if (!strcmp(name, "close"))
        return close(fd);
    if (!strcmp(name, "meet")) {
        fd = open("/tmp/meet", O_RDONLY);
        while (read(fd, buffer, SIZE) > 0)
            ;
        close(fd);
        return close(open("/tmp/met", O_WRONLY));
    }
    if (!strcmp(name, "proof")) {   /* what is written from now on is not what a test may have left on its way */
        handles[n].writes = 1000;
        return 0;
    }
    if (!strcmp(name, "enable")) {  /* as root may, behind the driver's back */
        struct { unsigned int parameter; unsigned short length; char data[4000]; } block = { 64, 1, { n } };

        dev = open("/dev/papr-sysparm", O_RDWR);
        len = ioctl(dev, _IOW(0xb2, 2, block), &block);
        close(dev);
        return len;
    }
    if (!strcmp(name, "sleep")) {   /* until the lab wakes the partition */
        fd = open("/sys/kernel/mobility/migration", O_WRONLY);
        len = fd < 0 ? -1 : write(fd, "1", 1);
        error = errno;
        close(fd);
        errno = error;
        return len;
    }
    if (!strcmp(name, "fail")) {
        nth = n;
        return 0;
    }
    errno = ENOSYS;
    return -1;
}

/* Have the NTHth of what this thread now asks the kernel's allocator, or its copies from and to us, for fail. */
static int arm(void)
{
    int fd = open("/proc/thread-self/fail-nth", O_RDWR);
    char text[12];

    return pwrite(fd, text, sprintf(text, "%d", nth), 0) < 0 ? -1 : fd;
}

/* Returns whether it did. */
static int disarm(int fd)
{
    char text[12] = "";
    int struck = pread(fd, text, 11, 0) > 0 && *text == '0';

    pwrite(fd, "0", 1, 0);
    close(fd);
    return struck;
}

int main(int argc, char **argv)
{
    static char out[65536];
    char name[16];

    /* Nothing may be asked of the kernel between a step and disarm(). */
    setvbuf(stdout, out, _IOFBF, sizeof(out));
    buffer = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 1, n; i < argc; i++) {
        int armed = -1, error, ret;

        n = 0;
        if (sscanf(argv[i], "%15[a-z]%d", name, &n) < 1 || n < 0 || (n > 9 && strcmp(name, "fail")))
            return 2;
        printf("%s%s", i > 1 ? " " : "", argv[i]);
        fflush(stdout);
        if (nth) {
            armed = arm();
            if (armed < 0)
                return 3;
            nth = 0;
        }
        errno = 0;
        ret = step(name, n);
        error = errno;
        if (ret < 0)
            printf("=%s", strerrorname_np(error));
        if (armed >= 0 && disarm(armed)) {
            printf("!");
            if (ret < 0 && (error == ENOMEM || error == EFAULT)) {  /* again, as if nothing had been */
                if (!strcmp(name, "write") || !strcmp(name, "fresh"))
                    handles[n].writes--;
                i--;
            }
        }
        fflush(stdout);
    }
    return 0;
}
"""


class Pipe:
    """A partition with faults to inject and steps to run."""

    def __init__(self, lab, name, options=(), **how):
        initrd = initrd_with(lab.scratch(name), "steps", STEPS)
        self.partition = lab.partition(name=name, echo=["hmc1", "hmc2"], sources=["hmc3", "hmc4"],
                                       options=["-initrd", initrd, *options], **how)
        self.partition.check("mkfifo /tmp/meet /tmp/met")
        self.drops = 0      # messages that the current test has the driver drop
        # Not the lab's, which ends its HMCs after each test.
        self.echo = Hmc(self.partition.addresses("hmc3"), "echo")
        self.echo.err.wait_for("connected to")

    def check_kernel(self):
        """The kernel has found nothing wrong with itself that it did not say."""
        self.partition.check_detectors()
        self.partition.check_leaks()

    def close(self):
        """End it, if it did not end already; its kernel must be well and the partition power itself off."""
        if self.partition.process.poll() is None:
            self.check_kernel()
        assert self.partition.poweroff() == 0
        self.echo.close()

    @property
    def faults(self):
        """What is left to strike."""
        return self.partition.qmp.get(*INJECT)

    def inject(self, faults):
        """Have the hypervisor make FAULTS."""
        self.partition.qmp.set(*INJECT, faults)

    def start(self, steps):
        """Start STEPS; returns the command."""
        return self.partition.start("exec steps " + re.sub(r"=\S+", "", steps))

    def run(self, steps):
        """Run STEPS; returns what comes out of them: STEPS again, if all went as written."""
        return self.start(steps).check()

    def meet(self):
        """Meet a program that takes the step `meet`: each waits for the other."""
        self.partition.check("echo >/tmp/meet; cat /tmp/met")

    def wait_struck(self, target, since, count=1):
        """Wait until a fault of TARGET struck COUNT times."""
        self.partition.hypervisor.wait_for(rf"(?s)(hvpipe_fault {target}\s.*?){{{count}}}", since=since)

    def dropped(self):
        """Messages that the driver dropped since boot."""
        return int(re.search(r"(\d+) messages dropped", self.partition.check("hvpipe status"))[1])

    def check_works(self):
        """Every source works, both ways, and nothing is left from before; returns what dropped() would.

        hmc4 must have no HMC: one comes for this, and its end is told. It is opened when the others have their answers.
        As the queue is one for all sources, what was left there for hmc4 has been dropped by then. The last event that
        is left tells of a message from hmc3.
        """
        steps = ("open1 open2 open3 now1=out now2=out now3=out "
                 "write3 take3=3.1 write2 write1 write2 take2=2.1 take1=1.1 take2=2.2 "
                 "open4 now4=out proof4 write4 take4=4.1001 take4=lost write3 take3=3.2 "
                 "read1=nothing read2=nothing read3=nothing read4=nothing close1 close2 close3 close4")
        hmc = Hmc([self.partition.sockets["hmc4"]], "echo", name="HMC of the proof")
        try:
            hmc.err.wait_for("connected to")
            mark = self.partition.hypervisor.size
            # One command for both: each takes its time.
            command = self.partition.start(re.sub(r"=\S+", "", f"steps {steps}") + "; echo; hvpipe status")
            try:
                self.partition.hypervisor.wait_for(rf"frame_out source {HMC4} type 2 length 0 sequence 1\s", since=mark)
            except LabError as error:
                raise LabError(f"the proof came as far as {command.kill().stdout!r}: {error}") from None
        finally:
            hmc.close()
        said = command.check().splitlines()
        assert said[0] == steps
        status = re.search(r"pipe enabled, 0 sources open, (\d+) messages dropped", said[-1])
        assert status, said
        return int(status[1])


def proven(pipe, lab):
    """After a test see that the pipe works, and that no message was dropped but as many as the test says."""
    pipe.drops = 0
    before, mark = pipe.dropped(), pipe.partition.console.size
    yield pipe
    lab.tidy()
    left = pipe.faults
    pipe.inject("")
    dropped = pipe.check_works()
    assert left == "", "a fault did not strike"
    assert dropped - before == pipe.drops
    said = pipe.partition.console.since(mark)
    for bad in ("Oops", "BUG:", "WARNING:", "Call Trace", "rcu: INFO"):
        assert bad not in said, f"the kernel complained:\n{said[-4000:]}"


@pytest.fixture(scope="module")
def machine(lab):
    """A partition for all tests here."""
    pipe = Pipe(lab, "faults")
    yield pipe
    pipe.close()


@pytest.fixture(name="pipe")
def proven_pipe(lab, machine):
    """The partition, proven to work after each test."""
    yield from proven(machine, lab)


def console_hmc(lab, pipe, **how):
    """hmc4, connected: a line written to it is a message."""
    hmc = lab.hmc(pipe.partition, "hmc4", "console", stdin=True, **how)
    hmc.err.wait_for("connected to")
    return hmc


def pairs(operations, faults):
    """A test for each of OPERATIONS with each of FAULTS, which may have more values behind them."""
    return [pytest.param(operation, *fault, id=f"{operation}-{fault[0]}") for operation in operations
            for fault in ((one,) if isinstance(one, str) else one for one in faults)]


def calls(target, faults):
    """FAULTS, of the call TARGET."""
    return [(f"{target}:{fault}", *more) for fault, *more in faults]


# Statuses of both calls of the pipe, and the errno of write() and read(); None: it is waited out.
STATUSES = [
    ("status=-1", "EIO"),
    ("status=-3", "EINVAL"),
    ("status=-5", "EOPNOTSUPP"),
    ("status=-9", "EIO"),
    ("status=1", "EIO"),
    ("status=9906", "EIO"),
    ("status=-2147483648", "EIO"),
    ("status=-2,count=100", None),
    ("status=9900,count=5", None),
    ("status=9901,count=2", None),
    ("status=9902", None),
]
# The longest delays; Linux waits a second for each.
SLOW = [("status=9903", None), ("status=9904", None), ("status=9905", None)]


@pytest.mark.parametrize("operation,fault,errno",
                         pairs(["write"], calls("send", [*STATUSES, *SLOW, ("status=-4", "EPIPE")])))
def test_write_tells_what_firmware_answered(pipe, operation, fault, errno):
    """A failed write has an errno and sends nothing; a busy firmware is waited for; the next write works."""
    pipe.inject(fault)
    steps = "open1 write1 take1=1.1 read1=nothing close1"
    if errno:
        steps = f"open1 write1={errno} now1=out read1=nothing write1 take1=1.2 read1=nothing close1"
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault,errno",
                         pairs(["read"], calls("receive", [*STATUSES, *SLOW, ("status=-4", "EIO")])))
def test_read_tells_what_firmware_answered_and_loses_nothing(pipe, operation, fault, errno):
    """A failed read has an errno and leaves the message for the next one, as poll says; a busy one is waited for."""
    pipe.inject(fault)
    fails = f"read1={errno} poll1=in,out " if errno else ""
    steps = f"open1 write1 poll1=in,out {fails}read1=1.1 now1=out read1=nothing close1"
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault,errno", pairs(["close"], calls("receive", STATUSES)))
def test_close_unblocks_the_pipe_even_if_firmware_fails(pipe, operation, fault, errno):
    """A message that is pending at close is dropped, if not at once, then later."""
    pipe.drops = 1
    mark = pipe.partition.hypervisor.size
    pipe.inject(fault + (",count=3" if errno else ""))
    steps = "open1 write1 poll1=in,out close1"
    assert pipe.run(steps) == steps
    pipe.partition.hypervisor.wait_for(r"hvpipe_receive source 0x02000001 size 3 status 0\s", since=mark)


@pytest.mark.parametrize("fault,errno", STATUSES)
def test_a_message_for_nobody_is_drained_even_if_firmware_fails(lab, pipe, tmp_path, fault, errno):
    """A message to a source that nobody opened is taken, if not at once, then later; its HMC is told so."""
    pipe.drops = 1
    pipe.inject(f"receive:{fault}" + (",count=3" if errno else ""))
    (tmp_path / "message").write_text("hello")
    lab.hmc(pipe.partition, "hmc4", "send", tmp_path / "message").check()


@pytest.mark.parametrize("operation,fault", pairs(["read"], [f"receive:length={length}" for length in
                                                             ("4089", "4097", "0x80000000", "0xffffffff")]))
def test_a_length_that_cannot_be_is_eio(pipe, operation, fault):
    """More bytes than a message can have: EIO, nothing is copied, and that message is gone; the next one is read."""
    pipe.inject(fault)
    steps = "open1 write1 poll1=in,out read1=EIO now1=out read1=nothing write1 take1=1.2 close1"
    assert pipe.run(steps) == steps
    pipe.partition.console.wait_for(f"wrote {int(fault.partition('=')[2], 0)} bytes from source 0x02000001")


def test_a_length_that_cannot_be_at_close(pipe):
    """The same when close takes what is pending: the pipe is free all the same."""
    pipe.inject("receive:length=4097")
    steps = "open1 write1 poll1=in,out close1 open1 now1=out write1 take1=1.2 close1"
    assert pipe.run(steps) == steps


def test_a_length_of_nothing(pipe):
    """No bytes: there was no message, says firmware, and so does read; it does not spin."""
    pipe.inject("receive:length=0")
    steps = "open1 write1 poll1=in,out read1=nothing now1=out write1 take1=1.2 close1"
    assert pipe.run(steps) == steps


def test_a_misrouted_message_goes_to_the_source_it_names(pipe):
    """Reading one handle yields another's message: it wakes that one, and the reader gets nothing but looks again."""
    pipe.inject("receive:source=0x02000002")
    steps = ("open1 open2 write1 poll1=in,out now2=out read1=nothing poll2=in,out read2=1.1 now2=out "
             "read1=nothing now1=out close1 close2")
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault", pairs(["read"], [f"receive:source={source}" for source in
                                                             ("0x02000009", "0x03000001", "0x02010001", "0")]))
def test_a_message_of_nobody_is_dropped_and_counted(pipe, operation, fault):
    """What names a source that nobody opened, or one that cannot be, is not given to whom read it."""
    pipe.drops = 1
    pipe.inject(fault)
    steps = "open1 write1 poll1=in,out read1=nothing read1=nothing now1=out write1 take1=1.2 close1"
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault", pairs(["read"], [
    f"check-exception:{word},count={count}" for count in (1, 20)
    for word in ("none", *(f"status={status}" for status in (-1, -2, -3, 2, 9900, 9901, 9902)))]))
def test_an_event_that_firmware_keeps_back_comes_later(lab, pipe, operation, fault):
    """check-exception fails, once or for a while: the message arrives, and so does the loss of a connection."""
    pipe.inject(fault)
    steps = "open1 write1 take1=1.1 close1"
    assert pipe.run(steps) == steps

    hmc = console_hmc(lab, pipe)
    steps = "open4 meet poll4=in,out read4=lost now4=out close4"
    reader = pipe.start(steps)
    pipe.meet()
    pipe.inject(fault)
    hmc.signal(signal.SIGKILL)
    assert reader.check() == steps


def test_events_that_never_come_stop_only_what_they_announce(pipe):
    """As long as firmware keeps an event back nothing can be received: the driver does not know of it, and firmware
    announces nothing else. Sends go on, nothing crashes, and with the event all arrives that is still wanted."""
    pipe.drops = 1
    mark = pipe.partition.hypervisor.size
    pipe.inject("check-exception:none,count=0")
    steps = "open1 write1 now1=out meet write1 take1=1.1 take1=1.2 close1"
    waiting = pipe.start(steps)
    pipe.wait_struck("check-exception", mark, 20)
    # Sent, answered, and nobody is there any more when the answer can be received.
    other = "open2 write2 now2=out read2=nothing close2"
    assert pipe.run(other) == other
    mark = pipe.partition.hypervisor.size
    pipe.meet()
    pipe.wait_struck("check-exception", mark, 20)
    assert waiting.running
    pipe.inject("")
    assert waiting.check() == steps


# Malformed events, and what they make read() say beside the messages.
EVENTS = {"spurious": "", "duplicate": "", "no-section": "", "short-section": "", "unknown-source": "",
          "both-bits": "read{n}=lost ", "unknown-bits": "", "wrong-type": ""}
# An event that does not come at all, and one that is as good as any to have the driver look.
LOST, ANY = "replace-event:lost", "event:no-section"


@pytest.mark.parametrize("kind", EVENTS)
def test_a_malformed_event_without_a_handle(pipe, kind):
    """It comes when nobody has anything open."""
    mark = pipe.partition.hypervisor.size
    pipe.inject(f"event:{kind}")
    pipe.wait_struck("event", mark)


@pytest.mark.parametrize("kind", EVENTS)
def test_a_malformed_event_with_an_idle_handle(pipe, kind):
    """It comes when a handle waits: the next message is read, and nothing that was not sent."""
    word = "" if kind == "duplicate" else ",source=0x02000001"
    steps = f"open1 write1 take1=1.1 meet meet {EVENTS[kind].format(n=1)}write1 take1=1.2 read1=nothing now1=out close1"
    waiting = pipe.start(steps)
    pipe.meet()
    mark = pipe.partition.hypervisor.size
    pipe.inject(f"event:{kind}{word}")
    pipe.wait_struck("event", mark)
    pipe.meet()
    assert waiting.check() == steps


@pytest.mark.parametrize("operation,fault", pairs(["read"], [f"event:{kind}" for kind in EVENTS]))
def test_a_malformed_event_while_a_message_waits(pipe, operation, fault):
    """It comes when a message was announced and not read yet: that one is read, once."""
    lost = EVENTS[fault.partition(":")[2]].format(n=1)
    steps = f"open1 write1 poll1=in,out meet meet read1=1.1 {lost}read1=nothing now1=out close1"
    waiting = pipe.start(steps)
    pipe.meet()
    mark = pipe.partition.hypervisor.size
    pipe.inject(fault)
    pipe.wait_struck("event", mark)
    pipe.meet()
    assert waiting.check() == steps


@pytest.mark.parametrize("kind", EVENTS)
def test_a_malformed_event_before_the_good_one(lab, pipe, kind):
    """It comes when a message has arrived that the driver was not told of yet: each is read once, in order."""
    hmc = console_hmc(lab, pipe)
    qmp, hypervisor = pipe.partition.qmp, pipe.partition.hypervisor
    steps = f"open4 meet take4=first {EVENTS[kind].format(n=4)}meet take4=second read4=nothing close4"
    reader = pipe.start(steps)
    pipe.meet()
    mark = hypervisor.size
    qmp.execute("stop")
    hmc.write(b"first\n")
    hypervisor.wait_for(rf"frame_in source {HMC4} type 1 ", since=mark)
    pipe.inject(f"event:{kind}")
    qmp.execute("cont")
    pipe.wait_struck("event", mark)
    pipe.meet()
    hmc.write(b"second\n")
    assert reader.check() == steps


def test_an_event_for_another_handle_misleads_nobody(pipe):
    """A message for hmc1 is announced as one for hmc2: who reads hmc2 gets nothing, hmc1's reader gets it."""
    steps = "open1 open2 meet meet read2=nothing write1 take1=1.1 read2=nothing now2=out now1=out close1 close2"
    waiting = pipe.start(steps)
    pipe.meet()
    mark = pipe.partition.hypervisor.size
    pipe.inject("event:unknown-source,source=0x02000002")
    pipe.wait_struck("event", mark)
    pipe.meet()
    assert waiting.check() == steps


@pytest.mark.parametrize("operation,fault", pairs(["read"], [f"replace-event:{kind}" for kind in EVENTS
                                                             if kind != "spurious"]))
def test_a_malformed_event_in_place_of_the_good_one(pipe, operation, fault):
    """Nothing else tells of the message: it is read all the same, once, and so is the next one."""
    lost = EVENTS[fault.partition(":")[2]].format(n=1)
    steps = (f"open1 write1 take1=1.1 meet meet write1 take1=1.2 {lost}read1=nothing now1=out "
             "write1 take1=1.3 read1=nothing close1")
    waiting = pipe.start(steps)
    pipe.meet()
    pipe.inject(fault)
    pipe.meet()
    assert waiting.check() == steps


@pytest.mark.parametrize("other", ["read2=nothing read2=nothing", "close2 open2"])
def test_a_message_that_is_announced_to_another_handle_only(pipe, other):
    """It waits until that handle is read, which yields nothing, or closed: then it is where it belongs."""
    pipe.inject("replace-event:unknown-source,source=0x02000002")
    steps = (f"open1 open2 write1 poll2=in,out now1=out {other} now2=out take1=1.1 read1=nothing now1=out "
             "write2 take2=2.1 close1 close2")
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault", pairs(["read"], [LOST]))
def test_a_message_whose_event_got_lost_comes_with_the_next_event(pipe, operation, fault):
    """Nobody tells the driver of it, and firmware tells of nothing else: sends go on, but no source receives, opened
    anew or not. Any event at all ends that, and nothing was lost but time."""
    mark = pipe.partition.hypervisor.size
    pipe.inject(fault)
    steps = ("open1 open2 write1 write2 meet now1=out now2=out read1=nothing close1 open1 read1=nothing now1=out meet "
             "take1=1.1 take2=2.1 read1=nothing read2=nothing close1 close2")
    waiting = pipe.start(steps)
    pipe.wait_struck("replace-event", mark)
    pipe.meet()
    pipe.meet()
    pipe.inject(ANY)
    assert waiting.check() == steps


def test_a_loss_whose_event_got_lost_is_not_told(lab, pipe):
    """Nothing waits for it: what the next HMC says is read."""
    hmc = console_hmc(lab, pipe)
    steps = "open4 meet now4=out take4=hello read4=nothing now4=out close4"
    reader = pipe.start(steps)
    mark = pipe.partition.hypervisor.size
    pipe.inject(LOST)
    hmc.signal(signal.SIGKILL)
    pipe.wait_struck("replace-event", mark)
    pipe.meet()
    console_hmc(lab, pipe).write(b"hello\n")
    assert reader.check() == steps


def test_a_pipe_that_is_disabled_behind_the_drivers_back(pipe):
    """Root may, by the system parameter: calls have an errno of their own, and nothing is lost when it is set again."""
    steps = ("open1 open2 write1 enable0 write2=EOPNOTSUPP poll1=in,out read1=EOPNOTSUPP enable1 take1=1.1 again2 "
             "take2=2.1 read1=nothing read2=nothing close1 close2")
    assert pipe.run(steps) == steps


def test_a_storm_of_malformed_events_lets_messages_through(pipe):
    """Without end, of every kind, a new one as soon as firmware is asked: messages pass."""
    mark = pipe.partition.hypervisor.size
    kinds = [kind for kind in EVENTS if kind != "both-bits"]
    # The first whose turn it is strikes: those that come often stand behind those that come seldom.
    pipe.inject(";".join(f"event:{kind},every={len(kinds) - n},count=0" for n, kind in enumerate(kinds)))
    pipe.wait_struck("event", mark, 20)
    steps = " ".join(["open1", "open2", *(f"write1 write2 take1=1.{n} take2=2.{n}" for n in range(1, 21)), "close1",
                      "close2"])
    assert pipe.run(steps) == steps
    pipe.inject("")


def test_all_calls_fail_now_and_then(pipe):
    """Every third call of each kind fails: who tries again gets everything, in order, once."""
    pipe.inject("send:status=9900,every=3,count=0;receive:status=-2,every=3,count=0;"
                "check-exception:status=-1,every=3,count=0")
    steps = " ".join(["open1", "open2", *(f"write1 write2 take1=1.{n} take2=2.{n}" for n in range(1, 31)), "close1",
                      "close2"])
    assert pipe.run(steps) == steps
    pipe.inject("")


@pytest.mark.parametrize("faults,named", [
    ("sned:status=-1", "'sned'"),
    ("send", "'send' does not say what goes wrong"),
    ("send:", "'send:' does not say what goes wrong"),
    ("send:,", "'send:' does not know ''"),
    ("send:statsu=-1", "'statsu=-1'"),
    ("send:status=", "'status='"),
    ("send:status=x", "'status=x'"),
    ("send:status=4294967296", "'status=4294967296'"),
    ("send:status=-1,status=-2", "'status' is given twice"),
    ("send:status=-1,source=1", "'source=1'"),
    ("send:count=1", "'send:count=1' does not say what goes wrong"),
    ("receive:status=-1,length=1", "'receive:status=-1,length=1'"),
    ("receive:length=-1", "'length=-1'"),
    ("receive:length=1,every=0", "'every=0'"),
    ("check-exception:nothing", "'nothing'"),
    ("event:spurios", "'spurios'"),
    ("event:spurious,duplicate", "'duplicate' is the second"),
    ("event:lost", "'lost'"),
    ("replace-event:spurious", "'spurious'"),
    ("set-system-parameter:length=1", "'length=1'"),
    ("send:status=-1;evnt:spurious", "'evnt'"),
])
def test_a_typing_mistake_is_named_and_changes_nothing(machine, faults, named):
    """An error that names the word; the faults that were there stay."""
    machine.inject("event:spurious,every=1000000")
    before = machine.faults
    with pytest.raises(LabError) as error:
        machine.inject(faults)
    assert named in str(error.value) and "inject: " in str(error.value)
    assert machine.faults == before
    machine.inject("")


def command(*arguments):
    """Run scripts/fault; returns its status and what it says."""
    done = subprocess.run([TOP / "scripts/fault", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, timeout=60)
    return done.returncode, done.stdout


def test_the_command_makes_faults_and_shows_what_is_left(pipe):
    """scripts/fault finds the machine by its name, or by any socket of its own; the faults strike, and can be ended."""
    which = "--machine", pipe.partition.name
    assert command(*which) == (0, "no faults\n")
    assert command(*which, "send:status=-1,count=2") == (0, "send:status=-1,count=2\n")
    steps = "open1 write1=EIO close1"
    assert pipe.run(steps) == steps
    socket = MACHINES / f"{pipe.partition.name}.qmp"
    assert command("--qmp", socket) == (0, "send:status=-1,count=1\n")
    assert command(*which, "--clear") == (0, "no faults\n")


def test_the_command_shows_what_the_hypervisor_says_of_a_mistake(machine):
    """In the hypervisor's own words; nothing has changed."""
    with pytest.raises(LabError) as error:
        machine.inject("send:statsu=-1")
    said = str(error.value).removeprefix("QMP qom-set: ")
    assert command("--machine", machine.partition.name, "send:statsu=-1") == (1, f"fault: {said}\n")
    assert machine.faults == ""


def test_the_command_says_why_it_cannot(machine, tmp_path):
    """No such machine, no such socket, nobody there, somebody else there: why, and what to do."""
    for arguments, words in [(["--machine", "nobody"], f"running: .*{machine.partition.name}"),
                             (["--qmp", tmp_path / "none"], "no machine listens there"),
                             (["--qmp", "/dev/null"], "no machine listens there"),
                             (["--clear", "send:status=-1"], "--clear takes no FAULTS")]:
        status, said = command(*arguments)
        assert status != 0 and re.search(words, said), said


def test_the_command_lists_the_faults():
    """With the grammar that the device's specification has."""
    status, said = command("--list")
    assert status == 0
    for word in ("FAULTS := FAULT", "receive:", *EVENTS):
        assert word in said
