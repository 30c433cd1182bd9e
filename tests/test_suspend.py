# SPDX-License-Identifier: GPL-2.0-or-later
"""A partition that is suspended in place, as it is when it migrates: the pipe is disabled before and enabled after it.

The steps that programs take are those of test_faults.
"""

import re
import signal

import pytest

from lab import LIMIT
from test_faults import EVENTS, HMC4, LOST, Pipe, console_hmc, pairs, proven


class Suspension:
    """The partition suspends itself and wakes up when it is told to."""

    def __init__(self, pipe):
        self.partition = pipe.partition
        self.mark = self.partition.hypervisor.size
        self.command = self.partition.start("echo 1 >/sys/kernel/mobility/migration")

    def wait_asleep(self):
        """Wait until nothing runs in the partition."""
        self.partition.hypervisor.wait_for(r"runstate_set .* new_state \d+ \(suspended\)", since=self.mark)

    def wake(self):
        """Let the partition go on; returns when it has said that it does."""
        self.partition.qmp.execute("system_wakeup")
        self.command.check()


def suspend(pipe):
    """Suspend the partition; returns when nothing runs in it."""
    suspension = Suspension(pipe)
    suspension.wait_asleep()
    return suspension


def count_enabled(pipe, since):
    """How often the pipe was enabled and disabled, in order, as "0101..."."""
    return "".join(re.findall(r"hvpipe_enable enabled ([01])", pipe.partition.hypervisor.since(since)))


def wait_queued(pipe, sequence, since):
    """Wait until hmc4's message SEQUENCE is in the hypervisor."""
    pipe.partition.hypervisor.wait_for(rf"frame_in source {HMC4} type 1 length \d+ sequence {sequence}\s", since=since)


def state(pipe):
    """What the driver says of its state."""
    return re.search(r"^pipe (\w+),", pipe.partition.check("hvpipe status"), re.M)[1]


@pytest.fixture(scope="module")
def machine(lab):
    """A partition for all tests here."""
    pipe = Pipe(lab, "suspend", options=["-trace", "runstate_set"])
    yield pipe
    pipe.close()


@pytest.fixture(name="pipe")
def proven_pipe(lab, machine):
    """The partition, proven to work after each test."""
    yield from proven(machine, lab)


def test_the_pipe_is_off_while_the_partition_sleeps(pipe):
    """It is disabled before and enabled after, once each, and HMCs are told so."""
    mark = pipe.echo.err.size
    suspension = suspend(pipe)
    pipe.echo.err.wait_for("has disabled its pipe", since=mark)
    assert count_enabled(pipe, suspension.mark) == "0"
    suspension.wake()
    pipe.echo.err.wait_for("has enabled its pipe", since=mark)
    assert count_enabled(pipe, suspension.mark) == "01"


@pytest.mark.parametrize("command", ["recv", "listen -x cat"])
def test_messages_from_before_and_during_the_sleep_arrive_once(lab, pipe, command):
    """Who receives rides through; what was queued, and what comes in the sleep, arrives once and in order."""
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
    hypervisor.wait_for(rf"frame_out source {HMC4} type 2 length 0 sequence 30\s", since=mark)
    if "recv" in command:
        assert reader.wait().status == 0
    else:
        # Being stopped ends the command that runs for the last message, too.
        size = len("".join(said))
        pipe.partition.check(f'until [ "$(wc -c </tmp/got)" -ge {size} ]; do :; done')
        assert reader.stop().status == 0
    assert pipe.partition.get("/tmp/got").decode() == "".join(said)


def test_an_announcement_from_before_the_sleep_is_made_again(pipe):
    """A message that was announced but not read when the partition fell asleep is read once after it."""
    steps = "open1 write1 poll1=in,out meet meet poll1=in,out read1=1.1 read1=nothing now1=out close1"
    waiting = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    suspension.wake()
    assert len(re.findall("hvpipe_announce source 0x02000001", pipe.partition.hypervisor.since(suspension.mark))) == 1
    pipe.meet()
    assert waiting.check() == steps


def test_a_connection_lost_in_the_sleep_is_told_once(lab, pipe):
    """An HMC that goes away meanwhile: its message is read first, then the loss."""
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


def test_poll_tells_of_a_loss_when_read_does(lab, pipe):
    """A loss that was not read before the sleep: while the pipe is off neither tells of it, afterwards both do."""
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


def test_who_receives_waits_without_spinning(lab, pipe):
    """`hvpipe recv` with a loss to be told, and the pipe off for long: it says so once and sleeps."""
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


def test_what_is_being_sent_rides_through(lab, pipe, tmp_path):
    """Two hundred messages are under way to an HMC while the partition falls asleep, twice: each arrives once."""
    got = tmp_path / "got"
    mark = pipe.partition.hypervisor.size
    hmc = lab.hmc(pipe.partition, "hmc4", "recv", "-n", "200", output=got)
    hmc.err.wait_for("connected to")
    pipe.partition.check("for n in $(seq 200); do head -c 4084 /dev/zero; printf %04d $n; done >/tmp/stream")
    sender = pipe.partition.start("exec hvpipe -s hmc4 send /tmp/stream")
    for count in (20, 90):
        pipe.partition.hypervisor.wait_for(rf"frame_in source {HMC4} type 2 length 0 sequence {count}\s", since=mark)
        suspend(pipe).wake()
    hmc.check()
    sender.check()
    assert got.read_bytes() == b"".join(bytes(4084) + b"%04d" % n for n in range(1, 201))


def test_a_send_to_a_stalled_hmc_does_not_hold_up_the_suspend(lab, pipe):
    """An HMC takes nothing. The send to it gives way, once, after ten seconds; after the sleep it is made again, and
    arrives once."""
    hmc = lab.hmc(pipe.partition, "hmc4", "recv", "-n", "2")
    hmc.err.wait_for("connected to")
    hmc.signal(signal.SIGSTOP)
    mark = pipe.partition.hypervisor.size
    sender = pipe.partition.start("printf late | hvpipe -s hmc4 send")
    pipe.partition.hypervisor.wait_for(rf"hvpipe_send source {HMC4} size 4 status (-2|9900)\s", since=mark)
    suspension = suspend(pipe)
    assert sender.running
    suspension.wake()
    hmc.signal(signal.SIGCONT)
    assert sender.check() == "hvpipe: hmc4: the pipe is suspended, waiting\n"
    pipe.partition.check("printf next | hvpipe -s hmc4 send")
    assert hmc.check() == "latenext"


def test_a_held_message_stays(pipe):
    """What the driver holds for who had too small a buffer can be read after the sleep, even if the pipe is off."""
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


FAILURES = [f"set-system-parameter:status={status}" for status in ("-1", "-3", "-7", "-9002", "-9999", "1")]
BUSY = [f"set-system-parameter:{words}" for words in ("status=-2,count=50", "status=9900,count=5",
                                                      "status=9901,count=3", "status=9902")]


@pytest.mark.parametrize("operation,fault", pairs(["resume"], FAILURES))
def test_a_pipe_that_cannot_be_enabled_is_enxio_until_it_can(pipe, operation, fault):
    """Where firmware refuses after the sleep calls say ENXIO, poll hangs up, and the driver tries until it works."""
    steps = ("open1 open2 write2 poll2=in,out meet poll1=hup meet read1=ENXIO write1=ENXIO read2=ENXIO now2=hup "
             "close2 meet ready1 now1=out write1 take1=1.2 close1")
    waiting = pipe.start(steps)
    pipe.meet()
    suspension = suspend(pipe)
    pipe.inject(f"{fault},count=0")
    suspension.wake()
    pipe.wait_struck("set-system-parameter", suspension.mark, 3)
    assert state(pipe) == "suspended"
    assert pipe.run("open3") == "open3=ENXIO"
    tool = pipe.partition.run("hvpipe -s hmc3 recv")
    assert tool.status == 3 and "suspended or disabled" in tool.stdout
    pipe.meet()
    pipe.meet()
    # hmc2 closed while the pipe was off: what waits in the hypervisor for it is nobody's.
    pipe.drops = 1
    pipe.inject("")
    assert waiting.check() == steps


@pytest.mark.parametrize("operation,fault", pairs(["resume"], FAILURES))
def test_a_pipe_that_could_not_be_enabled_comes_back_by_itself(lab, pipe, operation, fault):
    """Firmware refuses three times: nobody has to do anything, and who receives does not notice but for the time."""
    hmc = console_hmc(lab, pipe)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1")
    suspension = suspend(pipe)
    pipe.inject(f"{fault},count=3")
    hmc.write(b"hello\n")
    wait_queued(pipe, 1, suspension.mark)
    suspension.wake()
    said = reader.check()
    assert said.endswith("hello") and said.count("hello") == 1
    assert count_enabled(pipe, suspension.mark) == "01"


@pytest.mark.parametrize("operation,fault", pairs(["resume"], BUSY))
def test_a_busy_firmware_is_waited_for(pipe, operation, fault):
    """Enabling is not given up for a busy status: when the move is over the pipe is enabled."""
    mark = pipe.partition.console.size
    suspension = suspend(pipe)
    pipe.inject(fault)
    suspension.wake()
    assert state(pipe) == "enabled"
    assert "enabling failed" not in pipe.partition.console.since(mark)


@pytest.mark.parametrize("operation,fault", pairs(["suspend"], [*FAILURES, *BUSY]))
def test_a_failing_disable_does_not_stop_the_suspend(lab, pipe, operation, fault):
    """Firmware does not, or not at once, disable the pipe: the partition sleeps all the same, and loses nothing."""
    hmc = console_hmc(lab, pipe)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1")
    pipe.inject(fault)
    suspension = suspend(pipe)
    assert count_enabled(pipe, suspension.mark) == ("0" if fault in BUSY else "")
    hmc.write(b"hello\n")
    wait_queued(pipe, 1, suspension.mark)
    suspension.wake()
    said = reader.check()
    assert said.endswith("hello") and said.count("hello") == 1


@pytest.mark.parametrize("operation,fault", pairs(["suspend"], [LOST]))
def test_a_lost_event_is_made_up_for_by_the_sleep(pipe, operation, fault):
    """A message that nobody told of blocks all others; when the pipe is enabled anew the hypervisor tells of it."""
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
def test_a_firmware_that_fails_every_second_time_is_tried_again(pipe, operation, fault):
    """To disable, or to enable: four sleeps in a row, and what waits meanwhile is read after each."""
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


def test_malformed_events_at_the_wakeup(lab, pipe):
    """Events of every kind come as soon as the pipe is enabled: what was queued is read, once."""
    hmc = console_hmc(lab, pipe)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 3 2>/dev/null")
    suspension = suspend(pipe)
    pipe.inject(";".join(f"event:{kind}" for kind in EVENTS))
    hmc.write(b"one.\ntwo.\nthree.\n")
    wait_queued(pipe, 3, suspension.mark)
    suspension.wake()
    # One of the events tells of a loss, too, which is said on standard error.
    assert reader.check() == "one.two.three."
    pipe.wait_struck("event", suspension.mark, len(EVENTS))


def goodbye(partition, hmc, command):
    """Run COMMAND, which ends PARTITION: HMC must be told that the pipe is disabled before the hypervisor ends."""
    mark, told = partition.hypervisor.size, hmc.err.size
    partition.start(command)
    hmc.err.wait_for("has disabled its pipe", since=told)
    assert partition.process.wait(LIMIT) == 0
    assert re.findall(r"hvpipe_enable enabled ([01])", partition.hypervisor.since(mark)) == ["0"]


def test_a_reboot_disables_the_pipe(lab):
    """The driver disables the pipe before the reboot, and HMCs are told so."""
    partition = lab.partition(name="reboot", sources=["hmc1"])
    hmc = lab.hmc(partition, "hmc1", "echo")
    hmc.err.wait_for("connected to")
    goodbye(partition, hmc, "reboot -f")


def test_a_power_off_disables_the_pipe(machine):
    """The driver disables the pipe before the power goes off, and HMCs are told so. The last test of this partition."""
    machine.check_kernel()
    goodbye(machine.partition, machine.echo, "poweroff -f")
