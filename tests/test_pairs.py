# SPDX-License-Identifier: GPL-2.0-or-later
"""Each fault against each operation: create, write, read, poll, close, boot, suspend, resume.

A test is a pair, OPERATION-FAULT by its name. Here are those that test_faults and test_suspend have not. There, a call
that fails meets the operation that makes it; here, others do their work meanwhile, faults strike at boot and around the
sleep, and the HMC does wrong. Not every two make a pair: a boot sends nothing, for instance.

Steps, and the proof after each test, are those of test_faults. hmc1 is who operates, hmc2 is who is struck, hmc4 is the
HMC that does wrong.
"""

import re

import pytest

from lab import Hmc, initrd_with, source_id
from test_faults import ANY, EVENTS, HMC4, LOST, STEPS, Pipe, console_hmc, pairs, proven
from test_suspend import suspend, wait_queued


@pytest.fixture(scope="module")
def machine(lab):
    """A partition for all tests here but those of boot."""
    pipe = Pipe(lab, "pairs", options=["-trace", "runstate_set"])
    yield pipe
    pipe.close()


@pytest.fixture(name="pipe")
def proven_pipe(lab, machine):
    """The partition, proven to work after each test."""
    yield from proven(machine, lab)


#
# The hypervisor does wrong
#

ERRNOS = {"-1": "EIO", "-3": "EINVAL", "-4": "EPIPE", "-5": "EOPNOTSUPP", "9906": "EIO"}
FAILING = [f"status={status},count=0" for status in ERRNOS]
RECEIVE_FAILING = [words for words in FAILING if "-4" not in words]
BUSY = ["status=-2,count=100", "status=9901,count=2"]
LATE = ["none,count=0", *(f"status={status},count=0" for status in (-1, 9900, 9901, 9902))]
REPLACED = [*(f"replace-event:{kind}" for kind in EVENTS if kind != "spurious"), LOST]
LENGTH, NOBODYS, MISROUTED = "receive:length=4097", "receive:source=0x02000009", "receive:source=0x02000001"


def struck(fault):
    """What hmc2 does before FAULT is there, while it is, and when it is gone; how many of its messages are dropped."""
    status = re.search(r"status=(-?\d+)", fault)
    errno = ERRNOS.get(status[1]) if status else None
    open_with_message = "open2 write2 poll2=in,out"
    if fault.startswith("send:"):
        return ("open2", f"write2={errno}", "write2 take2=2.2", 0) if errno else ("open2", "write2", "take2=2.1", 0)
    if fault.startswith("check-exception:"):
        return "open2", "write2 now2=out", "take2=2.1 read2=nothing", 0
    if "event:" in fault:
        kind = re.search(r"event:([\w-]+)", fault)[1]
        # Poll may say once that there is something to read where there is not: the driver had to look.
        lost = EVENTS.get(kind, "").format(n=2)
        after = f"take2=2.1 {lost}read2=nothing read2=nothing now2=out"
        return ("open2", "write2", after, 0) if fault.startswith("replace") else (open_with_message, "", after, 0)
    if fault == LENGTH:
        return open_with_message, "read2=EIO", "read2=nothing write2 take2=2.2", 0
    if fault == NOBODYS:
        return open_with_message, "read2=nothing", "read2=nothing write2 take2=2.2", 1
    if fault == MISROUTED:
        return f"open1 {open_with_message}", "read2=nothing", "read1=2.1 read2=nothing now2=out close1", 0
    return open_with_message, f"read2={errno}" if errno else "read2=2.1", "" if not errno else "read2=2.1", 0


# What hmc1 does before, while and after hmc2 is struck. While sends fail it has a message of its own; else the message
# that is announced is hmc2's, and nobody has another before that is received.
ALONE = {
    "create": ("", "open1 now1=out", "", 0),
    "write": ("open1", "write1", "take1=1.1", 0),
    "read": ("open1", "read1=nothing", "", 0),
    "poll": ("open1", "now1=out", "", 0),
    "close": ("open1", "close1 open1", "", 0),
}
WITH_MESSAGE = {
    "create": ALONE["create"],
    "write": ALONE["write"],
    "read": ("open1 write1 poll1=in,out", "read1=1.1 read1=nothing", "", 0),
    "poll": ("open1 write1 poll1=in,out", "poll1=in,out", "read1=1.1", 0),
    "close": ("open1 write1 poll1=in,out", "close1 open1", "", 1),
}

BY_SEND = pairs(["create", "read", "poll", "close"], [f"send:{words}" for words in FAILING + BUSY])
BY_RECEIVE = [*pairs(["create", "write", "poll"], [f"receive:{words}" for words in RECEIVE_FAILING + BUSY]),
              *pairs(["create", "write", "poll", "close"], [LENGTH, NOBODYS])]
BY_CHECK_EXCEPTION = pairs(["create", "write", "poll", "close"], [f"check-exception:{words}" for words in LATE])
BY_EVENT = pairs(["create", "write", "poll", "close"],
                 [*(f"event:{kind},count=20" for kind in EVENTS), *REPLACED])


def wait_event_faults(pipe, fault, mark):
    """Let all malformed events come."""
    if fault.startswith("event:"):
        pipe.wait_struck("event", mark, int(re.search(r"count=(\d+)", fault)[1]))


@pytest.mark.parametrize("operation,fault", [*BY_SEND, *BY_RECEIVE, *BY_CHECK_EXCEPTION, *BY_EVENT])
def test_the_others_go_on(pipe, operation, fault):
    """While firmware fails for one source, another one operates as ever; afterwards the first has lost nothing."""
    target = fault.partition(":")[0]
    table = WITH_MESSAGE if target == "send" else ALONE
    before1, during1, after1, drops1 = table[operation]
    before2, during2, after2, drops2 = struck(fault)
    # Who comes first in the queue is first to read.
    first = "write2" in after2 or (table is WITH_MESSAGE and operation == "poll")
    after = (after1, after2) if first else (after2, after1)
    steps = " ".join(filter(None, (before1, before2, "meet meet", during2, during1, "meet meet", *after,
                                   "close1 close2")))
    pipe.drops = drops1 + drops2
    mark = pipe.partition.hypervisor.size
    running = pipe.start(steps)
    pipe.meet()
    pipe.inject(fault)
    pipe.meet()
    pipe.meet()
    wait_event_faults(pipe, fault, mark)
    pipe.wait_struck(target, mark)
    pipe.inject(ANY if fault == LOST else "")
    pipe.meet()
    assert running.check() == steps


# What is received as hmc1's is hmc2's; how many are dropped.
TO_ANOTHER = {
    "create": ("open2 write2 poll2=in,out read2=nothing open1 now1=out", 1),
    "write": ("open1 open2 write2 poll2=in,out read2=nothing write1 take1=2.1 take1=1.1", 0),
    "poll": ("open1 open2 write2 poll2=in,out read2=nothing poll1=in,out read1=2.1", 0),
    "close": ("open1 open2 write2 poll2=in,out read2=nothing close1 open1 now1=out", 1),
}


@pytest.mark.parametrize("operation,fault", pairs(TO_ANOTHER, [MISROUTED]))
def test_a_misrouted_message_meets(pipe, operation, fault):
    """What was received as another source's is that one's: written behind, polled for, dropped with its handle."""
    steps, pipe.drops = TO_ANOTHER[operation]
    steps += " read2=nothing now2=out close1 close2"
    pipe.inject(fault)
    assert pipe.run(steps) == steps


AROUND_SLEEP = ["send:status=-1,count=0", "send:status=-4,count=0", "receive:status=-1,count=0",
                "receive:status=-5,count=0", LENGTH, NOBODYS, MISROUTED, "check-exception:none,count=0",
                "check-exception:status=-2,count=0", *(f"event:{kind},count=20" for kind in EVENTS)]
IN_FLIGHT = ["send:status=9900,count=100", "receive:status=9900,count=100"]


@pytest.mark.parametrize("operation,fault", pairs(["suspend"], [*AROUND_SLEEP, *REPLACED]))
def test_the_partition_falls_asleep_while_firmware_fails(pipe, operation, fault):
    """What failed before the sleep works after it, and nothing is lost."""
    before, during, after, pipe.drops = struck(fault)
    steps = " ".join(filter(None, (before, "meet meet", during, "meet meet", after, "close2")))
    mark = pipe.partition.hypervisor.size
    running = pipe.start(steps)
    pipe.meet()
    pipe.inject(fault)
    pipe.meet()
    pipe.meet()
    if not fault.startswith("event:"):
        pipe.wait_struck(fault.partition(":")[0], mark)
    suspension = suspend(pipe)
    if not fault.startswith("event:"):
        pipe.inject("")
    suspension.wake()
    wait_event_faults(pipe, fault, mark)
    # What was announced before the sleep is announced again, and may be on its way.
    steps = steps.replace("read2=2.1", "take2=2.1")
    pipe.meet()
    assert running.check().replace("read2=2.1", "take2=2.1") == steps


@pytest.mark.parametrize("operation,fault", pairs(["suspend"], IN_FLIGHT))
def test_a_busy_call_ends_before_the_sleep(pipe, operation, fault):
    """The suspend waits for a call in flight that ends soon."""
    before, during, after, pipe.drops = struck(fault)
    steps = " ".join(filter(None, (before, "meet meet", during, after, "close2")))
    mark = pipe.partition.hypervisor.size
    running = pipe.start(steps)
    pipe.meet()
    pipe.inject(fault)
    pipe.meet()
    pipe.wait_struck(fault.partition(":")[0], mark, 3)
    suspend(pipe).wake()
    assert running.check() == steps


@pytest.mark.parametrize("operation,fault", pairs(["resume"], [*AROUND_SLEEP, *REPLACED, "send:status=9900,count=20",
                                                               "receive:status=9900,count=20"]))
def test_the_partition_wakes_up_to_firmware_that_fails(pipe, operation, fault):
    """Who operates first after the sleep fails as at any time, and nothing is lost."""
    before, during, after, pipe.drops = struck(fault)
    if fault in REPLACED:   # the event that is made again
        before, during = f"{before} {during} poll2=in,out", ""
    during = during.replace("read2", "poll2=in,out read2")
    after = after.replace("read2=2.1", "take2=2.1")
    steps = " ".join(filter(None, (before, "meet meet", during, "meet meet", after, "close2")))
    mark = pipe.partition.hypervisor.size
    running = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    pipe.inject(fault)
    suspension.wake()
    pipe.meet()
    pipe.meet()
    wait_event_faults(pipe, fault, mark)
    pipe.wait_struck(fault.partition(":")[0], mark)
    pipe.inject(ANY if fault == LOST else "")
    pipe.meet()
    assert running.check() == steps


# What hmc1 does before the sleep, while the pipe cannot be enabled, and when it is.
OFF = {
    "create": ("", "open1=ENXIO", "open1 now1=out"),
    "write": ("open1", "write1=ENXIO", "write1 take1=1.2"),
    "read": ("open1 write1 poll1=in,out", "read1=ENXIO", "take1=1.1 read1=nothing"),
    "poll": ("open1", "poll1=hup", "now1=out"),
    "close": ("open1", "close1 open1=ENXIO", "open1 now1=out"),
}


def while_off(before, during, after):
    """Steps of hmc1, and of hmc2 around them: BEFORE the partition sleeps, DURING the time without a pipe, AFTER it."""
    return " ".join(filter(None, ("open2", before, "meet meet", during, "meet meet ready2", after,
                                  "write2 take2=2.1 now2=out close1 close2")))


@pytest.mark.parametrize("operation,fault", pairs(OFF, ["set-system-parameter:status=-1,count=0",
                                                        "set-system-parameter:status=-9002,count=0"]))
def test_while_the_pipe_cannot_be_enabled(pipe, operation, fault):
    """A call says ENXIO, poll hangs up, close closes; all is as before when firmware gives way."""
    steps = while_off(*OFF[operation])
    running = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    pipe.inject(fault)
    suspension.wake()
    pipe.meet()
    pipe.meet()
    pipe.wait_struck("set-system-parameter", suspension.mark, 3)
    pipe.inject("")
    pipe.meet()
    assert running.check() == steps


# The same where enabling is not refused, but takes its time: a write waits for it.
SLOW_TO_ENABLE = {**OFF, "write": ("open1", "write1", "take1=1.1")}


@pytest.mark.parametrize("operation,fault", pairs(SLOW_TO_ENABLE, ["set-system-parameter:status=-2,count=0",
                                                                   "set-system-parameter:status=9900,count=0"]))
def test_while_the_pipe_is_being_enabled(pipe, operation, fault):
    """A call says ENXIO, or waits; poll hangs up, close closes; all is as before when firmware is done."""
    steps = while_off(*SLOW_TO_ENABLE[operation])
    running = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    pipe.inject(fault)
    pipe.partition.qmp.execute("system_wakeup")
    pipe.wait_struck("set-system-parameter", suspension.mark, 20)
    pipe.meet()
    if operation == "write":
        pipe.wait_struck("set-system-parameter", pipe.partition.hypervisor.size, 20)
        pipe.inject("")
    pipe.meet()
    pipe.inject("")
    pipe.meet()
    suspension.command.check()
    assert running.check() == steps


#
# The HMC does wrong
#

# What the hypervisor says of it, in one line; None: nothing, as nothing is malformed.
WRONGS = {
    "close": None, "cut": None, "stall": None, "random": "unknown version", "version": "unknown version",
    "type": "unknown type", "length": "length out of range for the type", "reserved": "reserved field not zero",
    "sequence": "sequence zero", "gap": "expected sequence", "ack": "the last sequence sent was",
    "second-state": "a second STATE", "no-state": "the first frame is no STATE", "session": "session zero",
}
CLASSES = ["close", "stall", "random"]


class WrongHmc:
    """An HMC on hmc4 that does wrong when told to, comes back but says nothing, and goes on when told to."""

    def __init__(self, lab, pipe, fault):
        self.kind = fault.partition(":")[2]
        self.pipe = pipe
        self.hmc = console_hmc(lab, pipe)
        self.mark = pipe.partition.hypervisor.size
        self.others = pipe.echo.err.size

    def go_wrong(self, frame):
        """From the next FRAME on."""
        if self.kind in ("no-state", "session"):
            faults = f"close,frame={frame};{self.kind};stall,frame=state"
        else:
            faults = f"{self.kind},frame={frame};stall,frame=state"
        self.hmc.write(f"/fault {faults}\n/status\n".encode())
        self.hmc.err.wait_for(f"faults:     {self.kind}|faults:     close")

    def send(self, text):
        """Send a message."""
        self.hmc.write(f"{text}\n".encode())

    def wait_wrong(self):
        """Wait until it has done wrong, the connection is lost, and it has come back and says nothing."""
        self.hmc.err.wait_for(r"fault stall at " + ("" if self.kind == "stall" else "STATE"))
        if self.kind != "stall":
            self.pipe.partition.hypervisor.wait_for(f"(?s)link source {HMC4} closed.*link source {HMC4} opened",
                                                    since=self.mark)

    def go_on(self):
        """Do right again; returns when the connection stands."""
        since = self.hmc.err.size
        self.hmc.write(b"/fault\n")
        if self.kind != "stall":
            self.hmc.err.wait_for("connected to", since=since)

    def check_blamed(self):
        """The hypervisor has said what was wrong, in one line, and has touched no other link."""
        said = self.pipe.partition.hypervisor.since(self.mark)
        blamed = re.findall(r"^.*malformed.*$", said, re.M)
        words = WRONGS[self.kind]
        assert len(blamed) == (words is not None), blamed
        if words:
            assert f"spapr-hvpipe-source {HMC4}: malformed frame from the HMC: {words}" in blamed[0]
            assert blamed[0].endswith("; link closed")
        assert set(re.findall(r"hvpipe_link source (\w+)", said)) <= {HMC4}
        assert "lost" not in self.pipe.echo.err.since(self.others)


@pytest.fixture(name="hmc")
def wrong_hmc(lab, pipe, fault):
    """An HMC on hmc4 that will do wrong as the test's FAULT says."""
    hmc = WrongHmc(lab, pipe, fault)
    yield hmc
    hmc.check_blamed()


def hmc_pairs(operation, kinds):
    """Tests of OPERATION with an HMC that does wrong in each of these ways."""
    return pytest.mark.parametrize("operation,fault", pairs([operation], [f"hmc:{kind}" for kind in kinds]))


def without_loss(fault, steps):
    """An HMC that only stalls is not lost."""
    return re.sub(r" \w+=lost", "", steps) if fault == "hmc:stall" else steps


@hmc_pairs("create", CLASSES)
def test_create_while_the_hmc_does_wrong(pipe, hmc, operation, fault):
    """A handle is created all the same; what was struck arrives when the HMC is back."""
    steps = "open4 now4=out meet meet take4=first read4=nothing write4 close4"
    hmc.go_wrong("message")
    hmc.send("first")
    hmc.wait_wrong()
    running = pipe.start(steps)
    pipe.meet()
    hmc.go_on()
    pipe.meet()
    assert running.check() == steps
    hmc.hmc.out.wait_for(r"^\[1\] 3 bytes: 4\.1$")


@hmc_pairs("write", WRONGS)
def test_write_while_the_hmc_does_wrong(pipe, hmc, operation, fault):
    """It does so in place of the answer. The write fails, made again it succeeds, and arrives once."""
    steps = "open4 meet write4=EPIPE take4=lost meet again4 read4=nothing close4"
    if fault == "hmc:stall":
        steps = "open4 meet write4 read4=nothing close4"
    running = pipe.start(steps)
    hmc.go_wrong("ack")
    pipe.meet()
    hmc.wait_wrong()
    if fault == "hmc:stall":
        pipe.partition.hypervisor.wait_for(rf"hvpipe_send source {HMC4} size 3 status 9900\s", since=hmc.mark)
        hmc.go_on()
    else:
        hmc.go_on()
        pipe.meet()
    assert running.check() == steps
    assert hmc.hmc.out.text == "[1] 3 bytes: 4.1\n"


@hmc_pairs("read", WRONGS)
def test_read_while_the_hmc_does_wrong(pipe, hmc, operation, fault):
    """It does so in place of a message. The loss is told, and when the HMC is back the message arrives, once."""
    steps = without_loss(fault, "open4 meet take4=lost read4=nothing meet take4=first read4=nothing now4=out close4")
    running = pipe.start(steps)
    pipe.meet()
    hmc.go_wrong("message")
    hmc.send("first")
    hmc.wait_wrong()
    pipe.meet()
    hmc.go_on()
    assert running.check() == steps


@hmc_pairs("poll", CLASSES)
def test_poll_while_the_hmc_does_wrong(pipe, hmc, operation, fault):
    """Who sleeps in poll is woken for the loss, and again for the message."""
    steps = "open4 meet poll4=in,out read4=lost now4=out meet poll4=in,out read4=first now4=out close4"
    if fault == "hmc:stall":
        steps = "open4 meet now4=out meet poll4=in,out read4=first now4=out close4"
    running = pipe.start(steps)
    pipe.meet()
    hmc.go_wrong("message")
    hmc.send("first")
    hmc.wait_wrong()
    pipe.meet()
    hmc.go_on()
    assert running.check() == steps


@hmc_pairs("close", CLASSES)
def test_close_while_the_hmc_does_wrong(pipe, hmc, operation, fault):
    """What had come before is dropped with the handle; the next handle gets what comes when the HMC is back."""
    pipe.drops = 1
    steps = "open4 meet poll4=in,out meet close4 open4 meet take4=second read4=nothing now4=out close4"
    running = pipe.start(steps)
    pipe.meet()
    hmc.send("first")
    wait_queued(pipe, 1, hmc.mark)
    hmc.go_wrong("message")
    hmc.send("second")
    hmc.wait_wrong()
    pipe.meet()
    pipe.meet()
    hmc.go_on()
    assert running.check() == steps


@hmc_pairs("suspend", CLASSES)
def test_suspend_while_the_hmc_does_wrong(pipe, hmc, operation, fault):
    """The HMC comes back in the sleep: its message arrives after it."""
    steps = without_loss(fault, "open4 meet take4=lost meet meet take4=first read4=nothing now4=out close4")
    running = pipe.start(steps)
    pipe.meet()
    hmc.go_wrong("message")
    hmc.send("first")
    hmc.wait_wrong()
    pipe.meet()
    suspension = suspend(pipe)
    hmc.go_on()
    suspension.wake()
    pipe.meet()
    assert running.check() == steps


@hmc_pairs("resume", CLASSES)
def test_resume_after_the_hmc_did_wrong(pipe, hmc, operation, fault):
    """The HMC goes and comes in the sleep: its message arrives after it, and the loss is told."""
    steps = without_loss(fault, "open4 meet meet take4=first read4=lost read4=nothing now4=out close4")
    running = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    hmc.go_wrong("message")
    hmc.send("first")
    hmc.wait_wrong()
    hmc.go_on()
    wait_queued(pipe, 1, suspension.mark)
    suspension.wake()
    pipe.partition.hypervisor.wait_for(f"hvpipe_announce source {HMC4} type 0x01", since=suspension.mark)
    pipe.meet()
    assert running.check() == steps


#
# At boot
#

# One boot for each target, in which all its faults strike: while the pipe is being enabled, or as the messages that
# wait for it are announced and received. HMCs that do wrong have a boot too.
BOOT = {
    "set-system-parameter": ["status=-3,every=2,count=2", "status=-1", "status=-9002", "status=-2,count=50",
                             "status=9900,count=5", "status=9902"],
    "check-exception": ["none", "status=-1", "status=-2", "status=9900", "status=9901", "status=9902"],
    "event": [*EVENTS],
    "replace-event": [*(kind for kind in EVENTS if kind != "spurious"), "lost"],
    "receive": ["status=-1", "status=-3", "status=-5", "status=9906", "status=-2,count=50", "status=9901,count=2",
                "length=4097", "source=0x02000009"],
    "hmc": [],
}
BOOT_HMCS = {"close": "hmc5", "stall": "hmc6", "random": "hmc7"}
WAITING = 12    # messages of hmc4 that wait: more than can be struck


class Boot(Pipe):
    """A partition that boots while TARGET does wrong: messages wait for it, and it knows of nobody to give them to."""

    def __init__(self, lab, target):
        initrd = initrd_with(lab.scratch("boot"), "steps", STEPS)
        hmcs = BOOT_HMCS if target == "hmc" else {}
        self.partition = partition = lab.partition(
            name=f"boot-{target}", echo=["hmc1", "hmc2"], sources=["hmc3", "hmc4", *hmcs.values()],
            options=["-initrd", initrd, "-S"], wait=False)
        hypervisor = partition.hypervisor
        self.echo = Hmc([partition.sockets["hmc3"]], "echo")
        self.hmcs = {kind: Hmc([partition.sockets[source]], "--fault", f"{kind},count={1 if kind == 'stall' else 2}",
                               "console", stdin=True) for kind, source in hmcs.items()}
        early = Hmc([partition.sockets["hmc4"]], "console", stdin=True)
        for hmc in (self.echo, early, *self.hmcs.values()):
            hmc.err.wait_for("connected to")
        early.write(b"hello\n" * WAITING)
        hypervisor.wait_for(rf"frame_in source {HMC4} type 1 length 5 sequence {WAITING}\s")
        self.inject(";".join(f"{target}:{fault}" for fault in BOOT[target]))
        partition.qmp.execute("cont")
        for hmc in self.hmcs.values():
            hmc.write(b"hello\n")
        partition.wait_booted()
        self.strikes = sum(int((re.search(r"count=(\d+)", fault) or "01")[1]) for fault in BOOT[target])
        self.wait_struck(target, 0, self.strikes)
        self.left = self.faults
        self.struck = hypervisor.text
        # What a lost event told of waits for the next event.
        self.inject(ANY if "lost" in BOOT[target] else "")
        hypervisor.wait_for(rf"frame_out source {HMC4} type 2 length 0 sequence {WAITING}\s")
        for kind in ("close", "random") if hmcs else ():
            hypervisor.wait_for(rf"frame_out source {source_id(hmcs[kind]):#010x} type 2 length 0 sequence 1\s")
        early.close()
        partition.check("mkfifo /tmp/meet /tmp/met")
        self.dropped_at_boot = self.check_works()

    def close(self):
        super().close()
        for hmc in self.hmcs.values():
            hmc.close()


@pytest.fixture(scope="module", name="boots")
def partitions_that_booted(lab):
    """The partition that booted last, {target: partition}."""
    boots = {}
    yield boots
    for boot in boots.values():
        boot.close()


@pytest.fixture(name="booted")
def booted_partition(lab, boots, fault):
    """A partition that booted while the test's FAULT, and others of its target, struck; seen to work for every source
    then. The next test of that target has the same."""
    target = fault.partition(":")[0]
    if target not in boots:
        while boots:
            boots.popitem()[1].close()
        boots[target] = Boot(lab, target)
    return boots[target]


@pytest.mark.parametrize("operation,fault", pairs(["boot"], [f"{target}:{words}" for target, faults in BOOT.items()
                                                             for words in faults]))
def test_boot_while_firmware_fails(booted, operation, fault):
    """All that waited was nobody's, and was dropped, but for the one whose length could not be; and each fault struck
    as often as it was to, before anybody used the pipe."""
    target = fault.partition(":")[0]
    assert booted.left == ""
    assert len(re.findall(rf"hvpipe_fault {target}\s", booted.struck)) == booted.strikes
    assert booted.dropped_at_boot == WAITING - (target == "receive")
    said = booted.partition.console.text.replace("\r", "")
    assert ("enabling failed" in said) == (target == "set-system-parameter")
    assert said.count("papr-hvpipe: enabled\n") == 1


@hmc_pairs("boot", BOOT_HMCS)
def test_boot_while_the_hmc_does_wrong(booted, operation, fault):
    """The HMC did wrong while the partition booted; afterwards messages pass both ways, once each."""
    kind = fault.partition(":")[2]
    name, hmc = BOOT_HMCS[kind], booted.hmcs[kind]
    source = f"{source_id(name):#010x}"
    said = booted.partition.hypervisor.text
    assert len(re.findall(rf"{source}: malformed", said)) == (2 if kind == "random" else 0)
    assert hmc.err.text.count(f"fault {kind} at MESSAGE 1") == (1 if kind == "stall" else 2)
    reader = booted.partition.serve(name, f"hvpipe -s {name} recv -n 1")
    if kind == "stall":
        hmc.write(b"/fault\n")
    else:
        hmc.write(b"later\n")
    assert reader.check() == ("hello" if kind == "stall" else "later")
    booted.partition.check(f"printf hello | hvpipe -s {name} send")
    hmc.out.wait_for(r"^\[1\] 5 bytes: hello$")
