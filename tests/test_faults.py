# SPDX-License-Identifier: GPL-2.0-or-later
"""Firmware that fails: each fault that the hypervisor can inject, and what programs in the partition see.

faults.py explains the steps, and the proof after each test.
"""

import re
import signal

import pytest

from commands import run_command
from faults import ANY, EVENTS, HMC4, LOST, Pipe, console_hmc, pairs
from lab import ANNOUNCES_AGAIN, EMPTY_RECEIVE, MACHINES, LabError


@pytest.fixture(scope="module")
def machine(lab):
    """A partition for all tests here."""
    pipe = Pipe(lab, "faults")
    yield pipe
    pipe.close()


def calls(target, faults):
    """FAULTS of the call TARGET."""
    return [(f"{target}:{fault}", *more) for fault, *more in faults]


# Statuses of the send and receive calls, and the errno of write() and read(). None: the call is repeated.
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
def test_write_errno(pipe, operation, fault, errno):
    """A failed write has an errno and sends nothing; a busy status is waited out; the next write works."""
    pipe.inject(fault)
    steps = "open1 write1 take1=1.1 read1=nothing close1"
    if errno:
        steps = f"open1 write1={errno} now1=out read1=nothing write1 take1=1.2 read1=nothing close1"
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault,errno",
                         pairs(["read"], calls("receive", [*STATUSES, *SLOW, ("status=-4", "EIO")])))
def test_read_errno(pipe, operation, fault, errno):
    """A failed read has an errno and leaves the message pending, as poll says; a busy status is waited out."""
    pipe.inject(fault)
    fails = f"read1={errno} poll1=in,out " if errno else ""
    steps = f"open1 write1 poll1=in,out {fails}read1=1.1 now1=out read1=nothing close1"
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault,errno", pairs(["close"], calls("receive", STATUSES)))
def test_close_drains(pipe, operation, fault, errno):
    """A message that is pending at close is dropped; if firmware fails at first, later."""
    pipe.drops = 1
    mark = pipe.partition.hypervisor.size
    pipe.inject(fault + (",count=3" if errno else ""))
    steps = "open1 write1 poll1=in,out close1"
    assert pipe.run(steps) == steps
    pipe.partition.hypervisor.wait_for(r"hvpipe_receive source 0x02000001 size 3 status 0\s", since=mark)


@pytest.mark.parametrize("fault,errno", STATUSES)
def test_no_handle_drains(lab, pipe, tmp_path, fault, errno):
    """A message to a source without a handle is drained and acknowledged; if firmware fails at first, later."""
    pipe.drops = 1
    pipe.inject(f"receive:{fault}" + (",count=3" if errno else ""))
    (tmp_path / "message").write_text("hello")
    lab.hmc(pipe.partition, "hmc4", "send", tmp_path / "message").check()


@pytest.mark.parametrize("operation,fault", pairs(["read"], [f"receive:length={length}" for length in
                                                             ("4097", "0x80000000", "0xffffffff")]))
def test_bad_length(pipe, operation, fault):
    """A length above the maximum is EIO. Nothing is copied and the message is gone; the next one is read."""
    pipe.inject(fault)
    steps = "open1 write1 poll1=in,out read1=EIO now1=out read1=nothing write1 take1=1.2 close1"
    assert pipe.run(steps) == steps
    pipe.partition.console.wait_for(f"wrote {int(fault.partition('=')[2], 0)} bytes from source 0x02000001")


def test_bad_length_at_close(pipe):
    """A length above the maximum when close() drains the message: the pipe works afterwards."""
    pipe.inject("receive:length=4097")
    steps = "open1 write1 poll1=in,out close1 open1 now1=out write1 take1=1.2 close1"
    assert pipe.run(steps) == steps


def test_zero_length(pipe):
    """A length of 0 means that there was no message. read() returns 0 and does not spin."""
    pipe.inject("receive:length=0")
    steps = "open1 write1 poll1=in,out read1=nothing now1=out write1 take1=1.2 close1"
    assert pipe.run(steps) == steps


def test_misrouted_message(pipe):
    """A read on one handle that yields another's message gives it to that handle and wakes its poller; the reader gets
    0."""
    pipe.inject("receive:source=0x02000002")
    steps = ("open1 open2 write1 poll1=in,out now2=out read1=nothing poll2=in,out read2=1.1 now2=out "
             "read1=nothing now1=out close1 close2")
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault", pairs(["read"], [f"receive:source={source}" for source in
                                                             ("0x02000009", "0x03000001", "0x02010001", "0")]))
def test_message_without_handle(pipe, operation, fault):
    """A message from a source without a handle, or with an invalid source, is dropped and counted, not given to the
    reader."""
    pipe.drops = 1
    pipe.inject(fault)
    steps = "open1 write1 poll1=in,out read1=nothing read1=nothing now1=out write1 take1=1.2 close1"
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault", pairs(["read"], [
    f"check-exception:{word},count={count}" for count in (1, 20)
    for word in ("none", *(f"status={status}" for status in (-1, -2, -3, 2, 9900, 9901, 9902)))]))
def test_late_event(lab, pipe, operation, fault):
    """check-exception fails once or for a while: messages and lost connections are still reported."""
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


def test_withheld_event(pipe):
    """While firmware withholds an event nothing can be received, as it announces nothing else. Sends work, and
    everything that is still wanted arrives with the event."""
    pipe.drops = 1
    mark = pipe.partition.hypervisor.size
    pipe.inject("check-exception:none,count=0")
    steps = "open1 write1 now1=out meet write1 take1=1.1 take1=1.2 close1"
    waiting = pipe.start(steps)
    pipe.wait_struck("check-exception", mark, 20)
    # Sent and answered, but its handle is closed when the answer can be received.
    other = "open2 write2 now2=out read2=nothing close2"
    assert pipe.run(other) == other
    mark = pipe.partition.hypervisor.size
    pipe.meet()
    pipe.wait_struck("check-exception", mark, 20)
    assert waiting.running
    pipe.inject("")
    assert waiting.check() == steps


@pytest.mark.parametrize("kind", EVENTS)
def test_malformed_event_no_handle(pipe, kind):
    """A malformed event while no handle is open does no harm."""
    mark = pipe.partition.hypervisor.size
    pipe.inject(f"event:{kind}")
    pipe.wait_struck("event", mark)


@pytest.mark.parametrize("kind", EVENTS)
def test_malformed_event_idle(pipe, kind):
    """A malformed event on an idle handle: the next message is read, and nothing that was not sent."""
    word = "" if kind == "duplicate" else ",source=0x02000001"
    first, last = EVENTS[kind].format(n=1), "read1=nothing"
    if kind == "both-bits" and EMPTY_RECEIVE != "nothing":
        # The message that it announces and that is not there is an error of read(), and the loss comes behind messages.
        first, last = f"read1={EMPTY_RECEIVE} ", "read1=lost"
    steps = f"open1 write1 take1=1.1 meet meet {first}write1 take1=1.2 {last} now1=out close1"
    waiting = pipe.start(steps)
    pipe.meet()
    mark = pipe.partition.hypervisor.size
    pipe.inject(f"event:{kind}{word}")
    pipe.wait_struck("event", mark)
    pipe.meet()
    assert waiting.check() == steps


@pytest.mark.parametrize("operation,fault", pairs(["read"], [f"event:{kind}" for kind in EVENTS]))
def test_malformed_event_pending(pipe, operation, fault):
    """A malformed event while an announced message is unread: that message is read, once."""
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
def test_malformed_event_first(lab, pipe, kind):
    """A malformed event before the one that announces a message: each message is read once, in order."""
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


def test_event_wrong_source(pipe):
    """A message for hmc1 is announced for hmc2: reading hmc2 returns what an empty receive does, reading hmc1 returns
    the message."""
    now = "out" if EMPTY_RECEIVE == "nothing" else "in,out"
    steps = (f"open1 open2 meet meet read2={EMPTY_RECEIVE} write1 take1=1.1 read2={EMPTY_RECEIVE} now2={now} now1=out "
             "close1 close2")
    waiting = pipe.start(steps)
    pipe.meet()
    mark = pipe.partition.hypervisor.size
    pipe.inject("event:unknown-source,source=0x02000002")
    pipe.wait_struck("event", mark)
    pipe.meet()
    assert waiting.check() == steps


@pytest.mark.parametrize("operation,fault", pairs(["read"], [f"replace-event:{kind}" for kind in EVENTS
                                                             if kind != "spurious"]))
def test_malformed_event_instead(pipe, operation, fault):
    """A malformed event replaces the only announcement: the message is read all the same, once, and so is the next."""
    lost = EVENTS[fault.partition(":")[2]].format(n=1)
    steps = (f"open1 write1 take1=1.1 meet meet write1 take1=1.2 {lost}read1=nothing now1=out "
             "write1 take1=1.3 read1=nothing close1")
    waiting = pipe.start(steps)
    pipe.meet()
    pipe.inject(fault)
    pipe.meet()
    assert waiting.check() == steps


@pytest.mark.parametrize("other", ["read2=nothing read2=nothing", "close2 open2"])
def test_announced_elsewhere(pipe, other):
    """A message announced for another handle waits until that handle is read, which returns 0, or closed; then it
    arrives."""
    pipe.inject("replace-event:unknown-source,source=0x02000002")
    steps = (f"open1 open2 write1 poll2=in,out now1=out {other} now2=out take1=1.1 read1=nothing now1=out "
             "write2 take2=2.1 close1 close2")
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault", pairs(["read"], [LOST]))
def test_lost_event(pipe, operation, fault):
    """A lost event stops receiving on all sources, reopened or not; sends work. The next event of any kind ends that,
    and nothing is lost."""
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


def test_woken(pipe):
    """After a lost event `hvpipe wake` has a hypervisor that does so announce again what waits; nothing is lost."""
    mark = pipe.partition.hypervisor.size
    pipe.inject(LOST)
    steps = "open1 open2 write1 write2 meet now1=out now2=out read1=nothing meet take1=1.1 take2=2.1 close1 close2"
    waiting = pipe.start(steps)
    pipe.wait_struck("replace-event", mark)
    pipe.meet()
    pipe.partition.check("hvpipe wake")
    if not ANNOUNCES_AGAIN:
        pipe.inject(ANY)
    pipe.meet()
    assert waiting.check() == steps


def test_lost_loss_event(lab, pipe):
    """A lost connection whose event is lost is not reported; the next HMC's message is read."""
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


def test_disabled_by_root(pipe):
    """Root disables the pipe by its system parameter: calls fail with EOPNOTSUPP, and nothing is lost when it is on
    again."""
    # For one second after a misrouted message an error of receive may mean that nothing is pending.
    pipe.partition.check("sleep 1.1")
    steps = ("open1 open2 write1 enable0 write2=EOPNOTSUPP poll1=in,out read1=EOPNOTSUPP enable1 take1=1.1 again2 "
             "take2=2.1 read1=nothing read2=nothing close1 close2")
    assert pipe.run(steps) == steps


def test_event_storm(pipe):
    """Messages pass while malformed events of every kind come as fast as firmware is asked for them."""
    mark = pipe.partition.hypervisor.size
    kinds = [kind for kind in EVENTS if kind != "both-bits"]
    # The first fault that is due strikes, so rare ones stand before frequent ones.
    pipe.inject(";".join(f"event:{kind},every={len(kinds) - n},count=0" for n, kind in enumerate(kinds)))
    pipe.wait_struck("event", mark, 20)
    steps = " ".join(["open1", "open2", *(f"write1 write2 take1=1.{n} take2=2.{n}" for n in range(1, 21)), "close1",
                      "close2"])
    assert pipe.run(steps) == steps
    pipe.inject("")


def test_intermittent_failures(pipe):
    """Every third call of each kind is busy or fails: all messages arrive in order, once."""
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
def test_bad_grammar(machine, faults, named):
    """An error in FAULTS names the word and leaves the existing faults."""
    machine.inject("event:spurious,every=1000000")
    before = machine.faults
    with pytest.raises(LabError) as error:
        machine.inject(faults)
    assert named in str(error.value) and "inject: " in str(error.value)
    assert machine.faults == before
    machine.inject("")


def fault(*arguments):
    """Run `lab fault`; returns its status and output."""
    done = run_command("fault", *arguments, timeout=60)
    return done.returncode, done.stdout


def test_command_injects(pipe):
    """`lab fault` finds the machine by name or socket, injects faults, shows the rest and clears them."""
    which = "--machine", pipe.partition.name
    assert fault(*which) == (0, "no faults\n")
    assert fault(*which, "send:status=-1,count=2") == (0, "send:status=-1,count=2\n")
    steps = "open1 write1=EIO close1"
    assert pipe.run(steps) == steps
    socket = MACHINES / f"{pipe.partition.name}.qmp"
    assert fault("--qmp", socket) == (0, "send:status=-1,count=1\n")
    assert fault(*which, "--clear") == (0, "no faults\n")


def test_command_passes_errors(machine):
    """`lab fault` shows the hypervisor's own error for wrong FAULTS, and changes nothing."""
    with pytest.raises(LabError) as error:
        machine.inject("send:statsu=-1")
    said = str(error.value).removeprefix("QMP qom-set: ")
    assert fault("--machine", machine.partition.name, "send:statsu=-1") == (1, f"fault: {said}\n")
    assert machine.faults == ""


def test_command_errors(machine, tmp_path):
    """`lab fault` without a machine or with a wrong socket says why it fails and what to do."""
    for arguments, words in [(["--machine", "nobody"], f"running: .*{machine.partition.name}"),
                             (["--qmp", tmp_path / "none"], "no machine listens on"),
                             (["--qmp", "/dev/null"], "no machine listens on"),
                             (["send:status=-1", "--clear"], "--clear.*not allowed with")]:
        status, said = fault(*arguments)
        assert status != 0 and re.search(words, said), said


def test_command_lists():
    """`lab fault --list` prints the grammar from the device's specification."""
    status, said = fault("--list")
    assert status == 0
    for word in ("FAULTS := FAULT", "receive:", *EVENTS):
        assert word in said
