# SPDX-License-Identifier: GPL-2.0-or-later
"""Each fault against each operation: create, write, read, poll, close, boot, suspend, resume.

Each test is a pair, named OPERATION-FAULT. In test_faults and test_suspend an operation's own call fails. Here are the
other pairs: another source works meanwhile, faults strike at boot and around a suspension, and the HMC misbehaves. Some
pairs do not exist: a boot sends nothing, for instance.

hmc1 does the operation, faults strike hmc2, and hmc4 is the HMC that misbehaves. faults.py explains the steps, and the
proof after each test.
"""

import re

import pytest

from faults import ANY, EVENTS, HMC4, LOST, Pipe, console_hmc, pairs, suspend, wait_queued
from lab import ANNOUNCES_AGAIN, EMPTY_RECEIVE, Hmc, source_id


@pytest.fixture(scope="module")
def machine(lab):
    """A partition for all tests here but those of boot."""
    pipe = Pipe(lab, "pairs", options=["-trace", "runstate_set"])
    yield pipe
    pipe.close()


#
# Faults of the hypervisor
#

ERRNOS = {"-1": "EIO", "-3": "EINVAL", "-4": "EPIPE", "-5": "EOPNOTSUPP", "9906": "EIO"}
FAILING = [f"status={status},count=0" for status in ERRNOS]
RECEIVE_FAILING = [words for words in FAILING if "-4" not in words]
BUSY = ["status=-2,count=100", "status=9901,count=2"]
LATE = ["none,count=0", *(f"status={status},count=0" for status in (-1, 9900, 9901, 9902))]
REPLACED = [*(f"replace-event:{kind}" for kind in EVENTS if kind != "spurious"), LOST]
LENGTH, NOBODYS, MISROUTED = "receive:length=4097", "receive:source=0x02000009", "receive:source=0x02000001"


def struck(fault):
    """hmc2's steps before, during and after FAULT, and how many of its messages are dropped."""
    status = re.search(r"status=(-?\d+)", fault)
    errno = ERRNOS.get(status[1]) if status else None
    open_with_message = "open2 write2 poll2=in,out"
    if fault.startswith("send:"):
        return ("open2", f"write2={errno}", "write2 take2=2.2", 0) if errno else ("open2", "write2", "take2=2.1", 0)
    if fault.startswith("check-exception:"):
        return "open2", "write2 now2=out", "take2=2.1 read2=nothing", 0
    if "event:" in fault:
        kind = re.search(r"event:([\w-]+)", fault)[1]
        # After any event the driver has to look, so poll() may report one message that is not there.
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


# hmc1's steps before, during and after the fault, and how many of its messages are dropped. While sends fail it has a
# message of its own; else hmc2's message is announced, and no other can be announced before that is received.
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
    """Wait until all malformed events have come."""
    if fault.startswith("event:"):
        pipe.wait_struck("event", mark, int(re.search(r"count=(\d+)", fault)[1]))


@pytest.mark.parametrize("operation,fault", [*BY_SEND, *BY_RECEIVE, *BY_CHECK_EXCEPTION, *BY_EVENT])
def test_others_unaffected(pipe, operation, fault):
    """While firmware fails for one source another works as always; afterwards the first has lost nothing."""
    target = fault.partition(":")[0]
    table = WITH_MESSAGE if target == "send" else ALONE
    before1, during1, after1, drops1 = table[operation]
    before2, during2, after2, drops2 = struck(fault)
    # The first in the queue must read first.
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


# hmc2's message is received as hmc1's: the steps, and how many messages are dropped.
TO_ANOTHER = {
    "create": ("open2 write2 poll2=in,out read2=nothing open1 now1=out", 1),
    "write": ("open1 open2 write2 poll2=in,out read2=nothing write1 take1=2.1 take1=1.1", 0),
    "poll": ("open1 open2 write2 poll2=in,out read2=nothing poll1=in,out read1=2.1", 0),
    "close": ("open1 open2 write2 poll2=in,out read2=nothing close1 open1 now1=out", 1),
}


@pytest.mark.parametrize("operation,fault", pairs(TO_ANOTHER, [MISROUTED]))
def test_misrouted(pipe, operation, fault):
    """A misrouted message belongs to its source: it is read before a newer one, polled for, and dropped with its
    handle."""
    steps, pipe.drops = TO_ANOTHER[operation]
    steps += " read2=nothing now2=out close1 close2"
    pipe.inject(fault)
    assert pipe.run(steps) == steps


AROUND_SLEEP = ["send:status=-1,count=0", "send:status=-4,count=0", "receive:status=-1,count=0",
                "receive:status=-5,count=0", LENGTH, NOBODYS, MISROUTED, "check-exception:none,count=0",
                "check-exception:status=-2,count=0", *(f"event:{kind},count=20" for kind in EVENTS)]
IN_FLIGHT = ["send:status=9900,count=100", "receive:status=9900,count=100"]


@pytest.mark.parametrize("operation,fault", pairs(["suspend"], [*AROUND_SLEEP, *REPLACED]))
def test_suspend(pipe, operation, fault):
    """Calls that failed before the suspension work after it, and nothing is lost."""
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
    # A message announced before the suspension is announced again, and may not have arrived yet.
    steps = steps.replace("read2=2.1", "take2=2.1")
    pipe.meet()
    assert running.check().replace("read2=2.1", "take2=2.1") == steps


@pytest.mark.parametrize("operation,fault", pairs(["suspend"], IN_FLIGHT))
def test_suspend_waits_for_busy(pipe, operation, fault):
    """The suspension waits for a busy call that ends soon."""
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


# Not every firmware announces anything after the resume.
@pytest.mark.parametrize("operation,fault", pairs(["resume"], [*AROUND_SLEEP, *REPLACED * ANNOUNCES_AGAIN,
                                                               "send:status=9900,count=20",
                                                               "receive:status=9900,count=20"]))
def test_resume(pipe, operation, fault):
    """The first calls after the resume fail as at any time, and nothing is lost."""
    before, during, after, pipe.drops = struck(fault)
    if fault in REPLACED:   # the announcement after the resume
        before, during = f"{before} {during} poll2=in,out", ""
    if not ANNOUNCES_AGAIN and fault.startswith("receive:") and "9900" not in fault:
        during = ""     # The fault strikes the driver's one receive that nothing announced.
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
    if not ANNOUNCES_AGAIN and fault.startswith("receive:status=-"):
        suspend(pipe).wake()    # An error of that receive says that nothing is pending; the next enabling finds it.
    pipe.meet()
    said = running.check()
    if fault.startswith("event:both-bits") and EMPTY_RECEIVE != "nothing" and f"={EMPTY_RECEIVE} " in said:
        # It announced another message after the driver's own receive, and none is there.
        steps = steps.replace("lost read2=nothing read2=nothing now2=out",
                              " ".join([EMPTY_RECEIVE, *[f"read2={EMPTY_RECEIVE}"] * 2, "now2=in,out"]))
    assert said == steps


# hmc1's steps before the suspension, while the pipe cannot be enabled, and when it is.
OFF = {
    "create": ("", "open1=ENXIO", "open1 now1=out"),
    "write": ("open1", "write1=ENXIO", "write1 take1=1.2"),
    "read": ("open1 write1 poll1=in,out", "read1=ENXIO", "take1=1.1 read1=nothing"),
    "poll": ("open1", "poll1=hup", "now1=out"),
    "close": ("open1", "close1 open1=ENXIO", "open1 now1=out"),
}


def while_off(before, during, after):
    """hmc1's steps BEFORE the suspension, DURING the time without a pipe and AFTER it, between steps of hmc2."""
    return " ".join(filter(None, ("open2", before, "meet meet", during, "meet meet ready2", after,
                                  "write2 take2=2.1 now2=out close1 close2")))


@pytest.mark.parametrize("operation,fault", pairs(OFF, ["set-system-parameter:status=-1,count=0"]))
def test_enable_fails(pipe, operation, fault):
    """While the pipe cannot be enabled calls fail with ENXIO, poll reports RDHUP, and close works. Then all works
    again."""
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


# The same while enabling is busy: a write waits.
SLOW_TO_ENABLE = {**OFF, "write": ("open1", "write1", "take1=1.1")}


@pytest.mark.parametrize("operation,fault", pairs(SLOW_TO_ENABLE, ["set-system-parameter:status=-2,count=0",
                                                                   "set-system-parameter:status=9900,count=0"]))
def test_enable_busy(pipe, operation, fault):
    """While enabling is busy calls fail with ENXIO or wait, poll reports RDHUP, and close works. Then all works
    again."""
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
# Faults of the HMC
#

# The hypervisor's message for each fault; None: the fault is not a malformed frame.
HMC_FAULTS = {
    "close": None, "cut": None, "stall": None, "random": "unknown version", "version": "unknown version",
    "type": "unknown type", "length": "length out of range for the type", "reserved": "reserved field not zero",
    "sequence": "sequence zero", "gap": "expected sequence", "ack": "the last sequence sent was",
    "second-state": "a second STATE", "no-state": "the first frame is no STATE", "session": "session zero",
}
CLASSES = ["close", "stall", "random"]


class FaultyHmc:
    """An HMC on hmc4 that misbehaves when told to, reconnects but stalls, and continues when told to."""

    def __init__(self, lab, pipe, fault):
        self.kind = fault.partition(":")[2]
        self.pipe = pipe
        self.hmc = console_hmc(lab, pipe)
        self.mark = pipe.partition.hypervisor.size
        self.others = pipe.echo.err.size
        self.malformed = self.property("malformed")

    def property(self, name):
        """A property of hmc4's device."""
        return self.pipe.partition.qmp.get("/machine/peripheral/source-hmc4", name)

    def misbehave(self, frame):
        """Misbehave at the next FRAME."""
        if self.kind in ("no-state", "session"):
            faults = f"close,frame={frame};{self.kind};stall,frame=state"
        else:
            faults = f"{self.kind},frame={frame};stall,frame=state"
        self.hmc.write(f"/fault {faults}\n/status\n".encode())
        self.hmc.err.wait_for(f"faults:     {self.kind}|faults:     close")

    def send(self, text):
        """Send a message."""
        self.hmc.write(f"{text}\n".encode())

    def wait_stalled(self):
        """Wait until it has misbehaved, lost its connection, reconnected, and stalled."""
        self.hmc.err.wait_for(r"fault stall at " + ("" if self.kind == "stall" else "STATE"))
        if self.kind != "stall":
            self.pipe.partition.hypervisor.wait_for(f"(?s)link source {HMC4} closed.*link source {HMC4} opened",
                                                    since=self.mark)

    def behave(self):
        """Behave again; returns when it is connected."""
        since = self.hmc.err.size
        self.hmc.write(b"/fault\n")
        if self.kind != "stall":
            self.hmc.err.wait_for("connected to", since=since)

    def check_blamed(self):
        """Check that the hypervisor knows the error, once, and has left other links alone."""
        said = self.pipe.partition.hypervisor.since(self.mark)
        words = HMC_FAULTS[self.kind]
        assert self.property("malformed") - self.malformed == (words is not None)
        if words:
            assert f"malformed frame from the HMC: {words}" in self.property("link-error")
        assert set(re.findall(r"hvpipe_link source (\w+)", said)) <= {HMC4}
        assert "lost" not in self.pipe.echo.err.since(self.others)


@pytest.fixture(name="hmc")
def faulty_hmc(lab, pipe, fault):
    """An HMC on hmc4 with the test's FAULT."""
    hmc = FaultyHmc(lab, pipe, fault)
    yield hmc
    hmc.check_blamed()


def hmc_pairs(operation, kinds):
    """Parameters for OPERATION with an HMC that has each of these faults."""
    return pytest.mark.parametrize("operation,fault", pairs([operation], [f"hmc:{kind}" for kind in kinds]))


def without_loss(fault, steps):
    """STEPS without losses if the HMC only stalls, as its connection stays."""
    return re.sub(r" \w+=lost", "", steps) if fault == "hmc:stall" else steps


@hmc_pairs("create", CLASSES)
def test_create_bad_hmc(pipe, hmc, operation, fault):
    """A handle is created; the HMC's message arrives when it is back."""
    steps = "open4 now4=out meet meet take4=first read4=nothing write4 close4"
    hmc.misbehave("message")
    hmc.send("first")
    hmc.wait_stalled()
    running = pipe.start(steps)
    pipe.meet()
    hmc.behave()
    pipe.meet()
    assert running.check() == steps
    hmc.hmc.out.wait_for(r"^\[1\] 3 bytes: 4\.1$")


@hmc_pairs("write", HMC_FAULTS)
def test_write_bad_hmc(pipe, hmc, operation, fault):
    """The HMC fails in place of its acknowledgement: the write fails and is in doubt. Repeated it arrives again."""
    steps = "open4 meet write4=EPIPE take4=lost meet again4 read4=nothing close4"
    if fault == "hmc:stall":
        steps = "open4 meet write4 read4=nothing close4"
    running = pipe.start(steps)
    hmc.misbehave("ack")
    pipe.meet()
    hmc.wait_stalled()
    if fault == "hmc:stall":
        pipe.partition.hypervisor.wait_for(rf"hvpipe_send source {HMC4} size 3 status 9900\s", since=hmc.mark)
        hmc.behave()
    else:
        hmc.behave()
        pipe.meet()
    assert running.check() == steps
    again = "" if fault == "hmc:stall" else "[2] 3 bytes: 4.1\n"
    assert hmc.hmc.out.text == "[1] 3 bytes: 4.1\n" + again


@hmc_pairs("read", HMC_FAULTS)
def test_read_bad_hmc(pipe, hmc, operation, fault):
    """The HMC fails in place of a message: the loss is reported, and the message arrives once when the HMC is back."""
    steps = without_loss(fault, "open4 meet take4=lost read4=nothing meet take4=first read4=nothing now4=out close4")
    running = pipe.start(steps)
    pipe.meet()
    hmc.misbehave("message")
    hmc.send("first")
    hmc.wait_stalled()
    pipe.meet()
    hmc.behave()
    assert running.check() == steps


@hmc_pairs("poll", CLASSES)
def test_poll_bad_hmc(pipe, hmc, operation, fault):
    """A sleeping poll is woken for the loss, and again for the message."""
    steps = "open4 meet poll4=in,out read4=lost now4=out meet poll4=in,out read4=first now4=out close4"
    if fault == "hmc:stall":
        steps = "open4 meet now4=out meet poll4=in,out read4=first now4=out close4"
    running = pipe.start(steps)
    pipe.meet()
    hmc.misbehave("message")
    hmc.send("first")
    hmc.wait_stalled()
    pipe.meet()
    hmc.behave()
    assert running.check() == steps


@hmc_pairs("close", CLASSES)
def test_close_bad_hmc(pipe, hmc, operation, fault):
    """A pending message is dropped with its handle; the next handle gets the message that comes when the HMC is
    back."""
    pipe.drops = 1
    steps = "open4 meet poll4=in,out meet close4 open4 meet take4=second read4=nothing now4=out close4"
    running = pipe.start(steps)
    pipe.meet()
    hmc.send("first")
    wait_queued(pipe, 1, hmc.mark)
    hmc.misbehave("message")
    hmc.send("second")
    hmc.wait_stalled()
    pipe.meet()
    pipe.meet()
    hmc.behave()
    assert running.check() == steps


@hmc_pairs("suspend", CLASSES)
def test_suspend_bad_hmc(pipe, hmc, operation, fault):
    """The HMC comes back during the suspension: its message arrives after it."""
    steps = without_loss(fault, "open4 meet take4=lost meet meet take4=first read4=nothing now4=out close4")
    running = pipe.start(steps)
    pipe.meet()
    hmc.misbehave("message")
    hmc.send("first")
    hmc.wait_stalled()
    pipe.meet()
    suspension = suspend(pipe)
    hmc.behave()
    suspension.wake()
    pipe.meet()
    assert running.check() == steps


@hmc_pairs("resume", CLASSES)
def test_resume_bad_hmc(pipe, hmc, operation, fault):
    """The HMC goes and comes back during the suspension: its message arrives after it, and the loss is reported."""
    steps = without_loss(fault, "open4 meet meet take4=first read4=lost read4=nothing now4=out close4")
    running = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    hmc.misbehave("message")
    hmc.send("first")
    hmc.wait_stalled()
    hmc.behave()
    wait_queued(pipe, 1, suspension.mark)
    suspension.wake()
    pipe.partition.hypervisor.wait_for(f"hvpipe_announce source {HMC4} type 0x01", since=suspension.mark)
    pipe.meet()
    assert running.check() == steps


#
# At boot
#

# All faults of a target strike in one boot: while the pipe is being enabled, or as waiting messages are announced and
# received. Faults of HMCs have a boot of their own.
BOOT = {
    "set-system-parameter": ["status=-1", "status=-2,count=50", "status=9900,count=5", "status=9902"],
    "check-exception": ["none", "status=-1", "status=-2", "status=9900", "status=9901", "status=9902"],
    "event": [*EVENTS],
    "replace-event": [*(kind for kind in EVENTS if kind != "spurious"), "lost"],
    "receive": ["status=-1", "status=-3", "status=-5", "status=9906", "status=-2,count=50", "status=9901,count=2",
                "length=4097", "source=0x02000009"],
    "hmc": [],
}
BOOT_HMCS = {"close": "hmc5", "stall": "hmc6", "random": "hmc7"}
WAITING = 12    # messages of hmc4 that wait at boot: more than faults can strike


class Boot(Pipe):
    """A partition that boots with faults of TARGET, while messages for sources without a handle wait."""

    def __init__(self, lab, target):
        hmcs = BOOT_HMCS if target == "hmc" else {}
        self.partition = partition = lab.partition(
            name=f"boot-{target}", echo=["hmc1", "hmc2"], sources=["hmc3", "hmc4", *hmcs.values()],
            programs=["guest/steps"], options=["-S"], wait=False)
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
        # After a lost event, messages wait for the next event.
        self.inject(ANY if "lost" in BOOT[target] else "")
        hypervisor.wait_for(rf"frame_out source {HMC4} type 2 length 8 sequence {WAITING}\s")
        for kind in ("close", "random") if hmcs else ():
            hypervisor.wait_for(rf"frame_out source {source_id(hmcs[kind]):#010x} type 2 length 8 sequence 1\s")
        early.close()
        self.prepare()
        self.dropped_at_boot = self.check_works()

    def close(self):
        super().close()
        for hmc in self.hmcs.values():
            hmc.close()


@pytest.fixture(scope="module", name="boots")
def partitions_that_booted(lab):
    """The partition that booted last: {target: partition}."""
    boots = {}
    yield boots
    for boot in boots.values():
        boot.close()


@pytest.fixture(name="booted")
def booted_partition(lab, boots, fault):
    """A partition that booted with all faults of the test's target, and then worked. Tests of a target share it."""
    target = fault.partition(":")[0]
    if target not in boots:
        while boots:
            boots.popitem()[1].close()
        boots[target] = Boot(lab, target)
    return boots[target]


@pytest.mark.parametrize("operation,fault", pairs(["boot"], [f"{target}:{words}" for target, faults in BOOT.items()
                                                             for words in faults]))
def test_boot(booted, operation, fault):
    """Messages that wait at boot are dropped and counted, except one with a bad length. Each fault strikes as often as
    asked before anything uses the pipe."""
    target = fault.partition(":")[0]
    assert booted.left == ""
    assert len(re.findall(rf"hvpipe_fault {target}\s", booted.struck)) == booted.strikes
    assert booted.dropped_at_boot == WAITING - (target == "receive")
    said = booted.partition.console.text.replace("\r", "")
    assert ("enabling failed" in said) == (target == "set-system-parameter")
    assert said.count("papr-hvpipe: enabled\n") == 1


@hmc_pairs("boot", BOOT_HMCS)
def test_boot_bad_hmc(booted, operation, fault):
    """The HMC fails while the partition boots; afterwards messages pass both ways, once each."""
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
