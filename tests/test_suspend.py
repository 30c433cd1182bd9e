# SPDX-License-Identifier: GPL-2.0-or-later
"""A partition that is suspended and resumed in place, as in a migration: the pipe is disabled before, enabled after.

faults.py explains the steps, and the proof after each test.
"""

import re
import signal

import pytest

from faults import EVENTS, HMC4, LOST, Pipe, console_hmc, pairs, pipe_state, suspend, switches, wait_queued
from lab import ANNOUNCES_AGAIN, LIMIT, PAYLOAD_LIMIT


@pytest.fixture(scope="module")
def machine(lab):
    """A partition for all tests here."""
    pipe = Pipe(lab, "suspend", options=["-trace", "runstate_set"])
    yield pipe
    pipe.close()


def test_pipe_off(pipe):
    """The pipe is disabled once before and enabled once after the suspension, and HMCs are told."""
    mark = pipe.echo.err.size
    suspension = suspend(pipe)
    pipe.echo.err.wait_for("has disabled its pipe", since=mark)
    assert switches(pipe, suspension.mark) == "0"
    suspension.wake()
    pipe.echo.err.wait_for("has enabled its pipe", since=mark)
    assert switches(pipe, suspension.mark) == "01"


@pytest.mark.parametrize("command", ["recv", "listen -x cat"])
def test_receiver(lab, pipe, command):
    """Messages queued before, during and after the suspension arrive once and in order."""
    hmc = console_hmc(lab, pipe)
    hypervisor = pipe.partition.hypervisor
    mark = hypervisor.size
    if command == "recv":
        command += " -n 30"
    else:
        command = "listen -x 'cat >>/tmp/got'"
    pipe.partition.check(": >/tmp/got")
    reader = pipe.partition.serve("hmc4", f"hvpipe -s hmc4 {command} >>/tmp/got")
    said = []

    def send(count):
        for _ in range(count):
            said.append(f"<{len(said)}>")
            hmc.write(said[-1].encode() + b"\n")
        wait_queued(pipe, len(said), mark)
    send(10)
    suspension = suspend(pipe)
    send(10)
    suspension.wake()
    send(10)
    hypervisor.wait_for(rf"frame_out source {HMC4} type 2 length 8 sequence 30\s", since=mark)
    if "recv" in command:
        assert reader.wait().status == 0
    else:
        # stop() would end a command that still runs for the last message.
        size = len("".join(said))
        pipe.partition.check(f'until [ "$(wc -c </tmp/got)" -ge {size} ]; do :; done')
        assert reader.stop().status == 0
    assert pipe.partition.get("/tmp/got").decode() == "".join(said)


def test_announced_again(pipe):
    """A message announced but not read before the suspension is read once after it, announced again or not."""
    steps = "open1 write1 poll1=in,out meet meet poll1=in,out read1=1.1 read1=nothing now1=out close1"
    waiting = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    suspension.wake()
    announced = re.findall("hvpipe_announce source 0x02000001", pipe.partition.hypervisor.since(suspension.mark))
    assert len(announced) == ANNOUNCES_AGAIN
    pipe.meet()
    assert waiting.check() == steps


def test_new_pipe(pipe):
    """A message announced before the suspension is not there after it: nothing is announced or read, and the pipe
    works."""
    steps = "open1 write1 poll1=in,out meet meet now1=out read1=nothing write1 take1=1.2 close1"
    waiting = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    pipe.inject("set-system-parameter:new-pipe")
    suspension.wake()
    pipe.meet()
    assert waiting.check() == steps


def test_loss_in_sleep(lab, pipe):
    """An HMC that goes away during the suspension: its message is read first, then the loss, once."""
    hmc = console_hmc(lab, pipe)
    steps = "open4 meet meet take4=hello poll4=in,out read4=lost read4=nothing now4=out close4"
    waiting = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    hmc.write(b"hello\n")
    wait_queued(pipe, 1, suspension.mark)
    hmc.signal(signal.SIGKILL)
    pipe.partition.hypervisor.wait_for(f"hvpipe_link source {HMC4} closed", since=suspension.mark)
    suspension.wake()
    pipe.meet()
    assert waiting.check() == steps


def test_poll_and_read_agree(lab, pipe):
    """A loss not read before the suspension: neither poll nor read reports it while the pipe is off, both do
    afterwards."""
    hmc = console_hmc(lab, pipe)
    steps = "open4 meet poll4=in,out meet meet poll4=hup read4=ENXIO meet take4=lost now4=out close4"
    waiting = pipe.start(steps)
    pipe.meet()
    hmc.signal(signal.SIGKILL)
    pipe.meet()
    suspension = suspend(pipe)
    pipe.inject("set-system-parameter:status=-1,count=0")
    suspension.wake()
    pipe.meet()
    pipe.meet()
    pipe.inject("")
    assert waiting.check() == steps


def test_receiver_sleeps(lab, pipe):
    """`hvpipe recv` with a pending loss while the pipe is off for long says so at most once, and sleeps."""
    hmc = console_hmc(lab, pipe)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1")
    pid = pipe.partition.check("pidof hvpipe").strip()
    pipe.partition.check(f"kill -STOP {pid}")
    hmc.signal(signal.SIGKILL)
    pipe.partition.check("until hvpipe status | grep -q ' lost '; do :; done")
    suspension = suspend(pipe)
    pipe.inject("set-system-parameter:status=-1,count=0")
    suspension.wake()
    mark = pipe.partition.hypervisor.size
    pipe.partition.check(f"kill -CONT {pid}")
    pipe.wait_struck("set-system-parameter", mark)
    states = pipe.partition.check(f"for n in $(seq 20); do sed -n 's/^State:.//p' /proc/{pid}/status; done")
    pipe.inject("")
    hmc = console_hmc(lab, pipe)
    hmc.write(b"hello\n")
    said = reader.check()
    times = said.count("the pipe is suspended, waiting")
    assert times <= 1
    assert "running" not in states


def test_sender(lab, pipe, tmp_path):
    """Of 200 messages being sent during two suspensions each arrives once."""
    got = tmp_path / "got"
    mark = pipe.partition.hypervisor.size
    hmc = lab.hmc(pipe.partition, "hmc4", "recv", "-n", "200", output=got)
    hmc.err.wait_for("connected to")
    zeros = PAYLOAD_LIMIT - 4
    pipe.partition.check(f"for n in $(seq 200); do head -c {zeros} /dev/zero; printf %04d $n; done >/tmp/stream")
    sender = pipe.partition.start(f"exec hvpipe -s hmc4 send -m {PAYLOAD_LIMIT} /tmp/stream")
    for count in (20, 90):
        pipe.partition.hypervisor.wait_for(rf"frame_in source {HMC4} type 2 length 0 sequence {count}\s", since=mark)
        suspend(pipe).wake()
    hmc.check()
    sender.check()
    assert got.read_bytes() == b"".join(bytes(zeros) + b"%04d" % n for n in range(1, 201))


def test_stalled_send(lab, pipe):
    """A send to a stalled HMC is given up after ten seconds, so that the partition can be suspended, which leaves it in
    doubt. It is repeated after the suspension and arrives again."""
    hmc = lab.hmc(pipe.partition, "hmc4", "recv", "-n", "3")
    hmc.err.wait_for("connected to")
    hmc.signal(signal.SIGSTOP)
    mark = pipe.partition.hypervisor.size
    sender = pipe.partition.start("printf late | hvpipe -s hmc4 send")
    pipe.partition.hypervisor.wait_for(rf"hvpipe_send source {HMC4} size 4 status (-2|9900)\s", since=mark)
    suspension = suspend(pipe)
    assert sender.running
    suspension.wake()
    hmc.signal(signal.SIGCONT)
    assert sender.check() == "hvpipe: hmc4: the pipe is suspended, waiting; the message may arrive twice\n"
    pipe.partition.check("printf next | hvpipe -s hmc4 send")
    assert hmc.check() == "latelatenext"


def test_held_message(pipe):
    """A message that the driver holds for a too small buffer can be read after the suspension, even while the pipe is
    off."""
    steps = ("open1 write1 poll1=in,out short1=EMSGSIZE meet meet poll1=in,hup read1=1.1 read1=ENXIO meet "
             "ready1 read1=nothing now1=out close1")
    waiting = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    pipe.inject("set-system-parameter:status=-1,count=0")
    suspension.wake()
    pipe.meet()
    pipe.meet()
    pipe.inject("")
    assert waiting.check() == steps


PASSING = ["set-system-parameter:status=-1"]
REFUSALS = [f"set-system-parameter:status={status}" for status in ("-3", "-7", "-9002", "-9999", "1")]
FAILURES = [*PASSING, *REFUSALS]
BUSY = [f"set-system-parameter:{words}" for words in ("status=-2,count=50", "status=9900,count=5",
                                                      "status=9901,count=3", "status=9902")]


@pytest.mark.parametrize("operation,fault", pairs(["resume"], PASSING))
def test_enable_fails(pipe, operation, fault):
    """While firmware refuses to enable the pipe calls fail with ENXIO and poll reports RDHUP, until a retry
    succeeds."""
    steps = ("open1 open2 write2 poll2=in,out meet poll1=hup meet read1=ENXIO write1=ENXIO read2=ENXIO now2=hup "
             "close2 meet ready1 now1=out write1 take1=1.2 close1")
    waiting = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    pipe.inject(f"{fault},count=0")
    suspension.wake()
    pipe.wait_struck("set-system-parameter", suspension.mark, 3)
    assert pipe_state(pipe) == "suspended"
    assert pipe.run("open3") == "open3=ENXIO"
    tool = pipe.partition.run("hvpipe -s hmc3 recv")
    assert tool.status == 7 and "suspended or disabled" in tool.stdout
    pipe.meet()
    pipe.meet()
    # hmc2 was closed while the pipe was off, so its pending message is dropped.
    pipe.drops = 1
    pipe.inject("")
    assert waiting.check() == steps


@pytest.mark.parametrize("operation,fault", pairs(["resume"], PASSING))
def test_enable_retried(lab, pipe, operation, fault):
    """Firmware refuses three times: the driver retries by itself, and a receiver only waits longer."""
    hmc = console_hmc(lab, pipe)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1")
    suspension = suspend(pipe)
    pipe.inject(f"{fault},count=3")
    hmc.write(b"hello\n")
    wait_queued(pipe, 1, suspension.mark)
    suspension.wake()
    said = reader.check()
    assert said.endswith("hello") and said.count("hello") == 1
    assert switches(pipe, suspension.mark) == "01"


@pytest.mark.parametrize("operation,fault", pairs(["resume"], REFUSALS))
def test_enable_refused(pipe, operation, fault):
    """A refusal that will not pass is not retried: the pipe stays off until the partition resumes once more."""
    suspension = suspend(pipe)
    pipe.inject(fault)
    suspension.wake()
    pipe.partition.hypervisor.wait_for("hvpipe_fault set-system-parameter", since=suspension.mark)
    pipe.partition.check("sleep 1")     # a retry would come within 10 ms
    assert pipe_state(pipe) == "suspended"
    assert pipe.run("open3") == "open3=ENXIO"
    assert switches(pipe, suspension.mark) == "0"
    suspension = suspend(pipe)
    suspension.wake()
    steps = "open1 ready1 write1 take1=1.1 close1"
    assert pipe.run(steps) == steps


@pytest.mark.parametrize("operation,fault", pairs(["resume"], BUSY))
def test_enable_busy(pipe, operation, fault):
    """A busy status is waited out: when the move is over the pipe is enabled."""
    mark = pipe.partition.console.size
    suspension = suspend(pipe)
    pipe.inject(fault)
    suspension.wake()
    assert pipe_state(pipe) == "enabled"
    assert "enabling failed" not in pipe.partition.console.since(mark)


@pytest.mark.parametrize("operation,fault", pairs(["suspend"], [*FAILURES, *BUSY]))
def test_disable_fails(lab, pipe, operation, fault):
    """Firmware fails to disable the pipe, or is busy: the partition is suspended all the same and loses nothing."""
    hmc = console_hmc(lab, pipe)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1")
    pipe.inject(fault)
    suspension = suspend(pipe)
    assert switches(pipe, suspension.mark) == ("0" if fault in BUSY else "")
    hmc.write(b"hello\n")
    wait_queued(pipe, 1, suspension.mark)
    suspension.wake()
    said = reader.check()
    assert said.endswith("hello") and said.count("hello") == 1


@pytest.mark.parametrize("operation,fault", pairs(["suspend"], [LOST]))
def test_lost_event(pipe, operation, fault):
    """A message whose event was lost blocks all others until the pipe is enabled again, when it is announced again."""
    pipe.inject(fault)
    steps = "open1 open2 write1 write2 meet now1=out now2=out meet take1=1.1 take2=2.1 close1 close2"
    mark = pipe.partition.hypervisor.size
    waiting = pipe.start(steps)
    pipe.wait_struck("replace-event", mark)
    pipe.meet()
    pipe.meet()
    suspend(pipe).wake()
    assert waiting.check() == steps


@pytest.mark.parametrize("operation,fault", pairs(["suspend", "resume"], [
    f"set-system-parameter:{words},every=2,count=3" for words in ("status=-1", "status=9900")]))
def test_fails_every_second_time(pipe, operation, fault):
    """Firmware that fails to disable or enable every second time: four suspensions in a row, messages arrive after
    each."""
    steps = " ".join(["open1", *(f"write1 meet meet take1=1.{n}" for n in range(1, 5)), "close1"])
    running = pipe.start(steps)
    for sleep in range(4):
        pipe.meet()
        if not sleep and operation == "suspend":
            pipe.inject(fault)
        suspension = suspend(pipe)
        if not sleep and operation == "resume":
            pipe.inject(fault)
        suspension.wake()
        pipe.meet()
    assert running.check() == steps


def test_malformed_events(lab, pipe):
    """Malformed events of every kind as soon as the pipe is enabled: queued messages are read, once."""
    hmc = console_hmc(lab, pipe)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 3 2>/dev/null")
    suspension = suspend(pipe)
    pipe.inject(";".join(f"event:{kind}" for kind in EVENTS))
    hmc.write(b"one.\ntwo.\nthree.\n")
    wait_queued(pipe, 3, suspension.mark)
    suspension.wake()
    # One of the events reports a loss, too; the tool says so on standard error.
    assert reader.check() == "one.two.three."
    pipe.wait_struck("event", suspension.mark, len(EVENTS))


def check_end(partition, hmc, command):
    """Run COMMAND, which ends PARTITION, and check that HMC is told that the pipe is off before the hypervisor ends."""
    mark, told = partition.hypervisor.size, hmc.err.size
    partition.start(command)
    hmc.err.wait_for("has disabled its pipe", since=told)
    assert partition.process.wait(LIMIT) == 0
    assert re.findall(r"hvpipe_enable enabled ([01])", partition.hypervisor.since(mark)) == ["0"]


def test_reboot(lab):
    """The driver disables the pipe before a reboot, and HMCs are told."""
    partition = lab.partition(name="reboot", sources=["hmc1"])
    hmc = lab.hmc(partition, "hmc1", "echo")
    hmc.err.wait_for("connected to")
    check_end(partition, hmc, "reboot -f")


def test_power_off(machine):
    """The driver disables the pipe before a power-off, and HMCs are told. The last test of this partition."""
    machine.check_kernel()
    check_end(machine.partition, machine.echo, "poweroff -f")
