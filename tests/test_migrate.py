# SPDX-License-Identifier: GPL-2.0-or-later
"""A partition that migrates: suspended by its own kernel, carried to another QEMU process, gone on there.

The steps that programs take are those of test_faults. What the driver does around a suspension is in test_suspend; here
is what a move adds, whole or to a machine that is not as it should be.

CYCLES=NUMBER  that many moves under traffic instead of 5
"""

import os
import re
import signal
import subprocess
import threading

import pytest

import reliability
from lab import TOP, LabError, source_id
from test_faults import INJECT, Pipe, console_hmc, proven

CYCLES = int(os.environ.get("CYCLES") or 5)
HMC3, HMC4 = (f"{source_id(name):#010x}" for name in ("hmc3", "hmc4"))


class Move:
    """The partition is on its way to another machine; FAULTS are those of that machine. READY is called when it waits,
    before the partition is told to leave."""

    def __init__(self, pipe, faults="", ready=None, **changes):
        self.pipe, self.partition = pipe, pipe.partition
        self.here = self.partition.machine
        self.mark = self.here.hypervisor.size
        self.target = self.partition.target(**changes)
        if faults:
            self.target.qmp.set(*INJECT, faults)
        if ready:
            ready()
        self.going = self.partition.sleep()

    def asleep(self):
        """Wait until nothing runs in the partition; returns itself."""
        self.partition.wait_asleep()
        return self

    def arrive(self, met=True):
        """Carry it over, and wait until it has said that it is there. MET: wait until hmc3's HMC is there, too."""
        self.partition.carry(self.target)
        self.going.check()
        if met:
            self.wait_met(HMC3)

    def wait_met(self, source):
        """Wait until SOURCE's HMC has found the partition on the other machine."""
        self.target.hypervisor.wait_for(f"hvpipe_link source {source} up")

    def switched(self):
        """How often the pipe was enabled and disabled on the machine left, and on the other one: ("0", "1")."""
        left, reached = (re.findall(r"hvpipe_enable enabled ([01])", text) for text in
                         (self.here.hypervisor.since(self.mark), self.target.hypervisor.text))
        # The first one there is the reset of a machine that waits.
        return "".join(left), "".join(reached[1:])


def move(pipe, faults="", **changes):
    """Move the partition; returns when it is there."""
    moved = Move(pipe, faults, **changes).asleep()
    moved.arrive()
    return moved


def status(pipe):
    """The pipe's state."""
    return re.search(r"^pipe (\w+),", pipe.partition.check("hvpipe status"), re.M)[1]


def wait_queued(machine, sequence):
    """Wait until hmc4's message SEQUENCE is in the hypervisor."""
    machine.hypervisor.wait_for(rf"frame_in source {HMC4} type 1 length \d+ sequence {sequence}\s")


@pytest.fixture(scope="module")
def machine(lab):
    """A partition for all tests here."""
    pipe = Pipe(lab, "moving", options=["-trace", "runstate_set", "-trace", "spapr_vasi_*"], memory="512M", smp=2)
    yield pipe
    pipe.close()


@pytest.fixture(name="pipe")
def proven_pipe(lab, machine):
    """The partition, proven to work after each test."""
    yield from proven(machine, lab)


def test_moves_under_traffic(record_property):
    """Back and forth while every source sends both ways: nothing is lost, doubled or misrouted."""
    done = subprocess.run([TOP / "scripts/migrate", str(CYCLES)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, timeout=1200 + 60 * CYCLES)
    assert done.returncode == 0, done.stdout[-6000:]
    last = re.search(r"\nmigrate: (\d+) sent, (\d+) received, (0) dropped, (0) lost\n"
                     rf"migrate: {CYCLES} cycles, \1 messages, 0 lost, (0) duplicated, (0) misrouted\n$", done.stdout)
    assert last, done.stdout[-2000:]
    # Ten each way with each of four sources before each move and after the last.
    assert int(last[1]) >= (CYCLES + 1) * 4 * 2 * 10 and last[1] == last[2]
    record_property("messages", dict(zip(reliability.COLUMNS, map(int, last.groups()))))


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1 2"])
def test_a_wrong_number_of_moves_is_named(wrong):
    """It is status 2, and the value stands in the message."""
    done = subprocess.run([TOP / "scripts/migrate", *wrong.split()], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and f"CYCLES={wrong}:" in done.stderr


def test_a_move_switches_the_pipe_off_here_and_on_there(pipe):
    """Disabled once on the machine that it leaves and enabled once on the other; what is there is a running machine."""
    mark = pipe.partition.console.size
    assert move(pipe).switched() == ("0", "1")
    assert pipe.partition.machine.name == "moving-b"
    assert "memory transfer completed" in pipe.partition.console.since(mark)    # Linux asked for the session's state
    assert move(pipe).switched() == ("0", "1")
    assert pipe.partition.machine.name == "moving"


@pytest.mark.parametrize("command", ["recv", "listen -x cat"])
def test_who_receives_rides_through(lab, pipe, command):
    """Messages queued before the move, typed while the partition sleeps and typed after it: each arrives once."""
    hmc = console_hmc(lab, pipe, follow=True)
    command = "recv -n 30" if command == "recv" else "listen -x 'cat >>/tmp/got'"
    pipe.partition.check(": >/tmp/got")
    reader = pipe.partition.serve("hmc4", f"hvpipe -s hmc4 {command} >>/tmp/got 2>/tmp/said")
    said = []

    def send(count):
        for _ in range(count):
            said.append(f"<{len(said)}>")
            hmc.write(said[-1].encode() + b"\n")
    send(10)
    moved = Move(pipe).asleep()
    send(10)
    moved.arrive()
    send(10)
    moved.target.hypervisor.wait_for(rf"frame_out source {HMC4} type 2 length 0 sequence 30\s")
    if "recv" in command:
        assert reader.wait().status == 0
    else:
        # Being stopped ends the command that runs for the last message, too.
        size = len("".join(said))
        pipe.partition.check(f'until [ "$(wc -c </tmp/got)" -ge {size} ]; do :; done')
        assert reader.stop().status == 0
    assert pipe.partition.get("/tmp/got").decode() == "".join(said)


def test_a_reply_rides_through(lab, pipe):
    """A listener replies right after a move, when its HMC has not found the partition yet, and the loss of the
    connection waits behind a message that is not read: the reply arrives."""
    hmc = console_hmc(lab, pipe, follow=True)
    pipe.partition.check("rm -f /tmp/begun /tmp/go; mkfifo /tmp/begun /tmp/go")
    listener = pipe.partition.serve("hmc4", "hvpipe -s hmc4 listen -x 'echo >/tmp/begun; read x </tmp/go; cat' "
                                            "2>/tmp/said")
    hmc.write(b"one\n")
    pipe.partition.check("cat /tmp/begun")
    mark = pipe.partition.hypervisor.size
    hmc.write(b"two\n")
    pipe.partition.hypervisor.wait_for(rf"frame_in source {HMC4} type 1 length 3 ", since=mark)
    moved = Move(pipe).asleep()
    hmc.signal(signal.SIGSTOP)
    moved.arrive()
    pipe.partition.check("echo >/tmp/go; until grep -q 'connection lost' /tmp/said; do :; done")
    hmc.signal(signal.SIGCONT)
    hmc.out.wait_for("one")
    pipe.partition.check("cat /tmp/begun; echo >/tmp/go")
    hmc.out.wait_for("two")
    assert listener.stop().status == 0


def test_what_is_being_sent_rides_through(lab, pipe, tmp_path):
    """Four thousand messages are under way to an HMC when the partition moves: each arrives once, though the pipe to
    the HMC is lost until that has found the partition."""
    got = tmp_path / "got"
    # More than can be sent before the partition sleeps.
    hmc = lab.hmc(pipe.partition, "hmc4", "recv", "-n", "4000", output=got, follow=True)
    pipe.partition.check("for n in $(seq 4000); do printf %04088d $n; done >/tmp/stream")
    sender = []

    def send():
        mark = pipe.partition.hypervisor.size
        sender.append(pipe.partition.start("exec hvpipe -s hmc4 send /tmp/stream"))
        pipe.partition.hypervisor.wait_for(rf"frame_in source {HMC4} type 2 length 0 sequence 20\s", since=mark)
    moved = Move(pipe, ready=send).asleep()
    assert not re.search(rf"frame_in source {HMC4} type 2 length 0 sequence 4000\s",
                         moved.here.hypervisor.since(moved.mark)), "all was sent before the move"
    moved.arrive()
    hmc.check()
    sender[0].check()
    assert got.read_bytes() == b"".join(b"%04088d" % n for n in range(1, 4001))


@pytest.mark.parametrize("taken", [True, False])
def test_a_send_in_flight_is_delivered_once(lab, pipe, taken):
    """An HMC stalls with a message on its way to it. The partition gives up waiting and moves; the send is made again
    there. Whether the HMC took it before it came after the partition, or not: it gets it once."""
    hmc = lab.hmc(pipe.partition, "hmc4", "recv", "-n", "2", follow=True)
    hypervisor = pipe.partition.hypervisor
    mark = hypervisor.size
    hmc.signal(signal.SIGSTOP)
    sender = pipe.partition.start("printf late | hvpipe -s hmc4 send")
    hypervisor.wait_for(rf"hvpipe_send source {HMC4} size 4 status (-2|9900)\s", since=mark)
    moved = Move(pipe).asleep()
    assert sender.running
    if taken:
        hmc.signal(signal.SIGCONT)
        moved.here.hypervisor.wait_for(rf"frame_in source {HMC4} type 2 length 0 sequence 1\s", since=mark)
        moved.arrive()
    else:
        moved.arrive()
        hmc.signal(signal.SIGCONT)
    moved.wait_met(HMC4)
    sender.check()
    pipe.partition.check("printf next | hvpipe -s hmc4 send")
    assert hmc.check() == "latenext"


def test_an_announcement_from_before_the_move_is_made_again(pipe):
    """A message that was announced but not read before the move is read once after it."""
    steps = "open1 write1 poll1=in,out meet meet poll1=in,out read1=1.1 read1=nothing now1=out close1"
    waiting = pipe.start(steps)
    pipe.meet()
    moved = move(pipe)
    assert len(re.findall("hvpipe_announce source 0x02000001", moved.target.hypervisor.text)) == 1
    pipe.meet()
    assert waiting.check() == steps


def test_a_held_message_moves_along(pipe):
    """What the driver holds for who had too small a buffer can be read after the move, even if the pipe is off."""
    steps = ("open1 write1 poll1=in,out short1=EMSGSIZE meet meet poll1=in,hup read1=1.1 read1=ENXIO meet "
             "ready1 read1=nothing now1=out close1")
    waiting = pipe.start(steps)
    pipe.meet()
    move(pipe, "set-system-parameter:status=-1,count=0")
    pipe.meet()
    pipe.meet()
    pipe.inject("")
    assert waiting.check() == steps


@pytest.mark.parametrize("fault", ["status=-1", "status=-1,count=3", "status=-2,count=50", "status=9900,count=5",
                                   "status=9901,count=3"])
def test_a_target_that_fails_to_enable_at_first(lab, pipe, fault):
    """Enabling is tried again: who receives does not notice but for the time."""
    hmc = console_hmc(lab, pipe, follow=True)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1 2>/dev/null")
    moved = Move(pipe, f"set-system-parameter:{fault}").asleep()
    hmc.write(b"hello\n")
    moved.arrive()
    assert reader.check() == "hello"
    assert moved.switched() == ("0", "1")


def test_a_target_without_the_pipe(lab, pipe):
    """The partition goes on there without it: pollers are woken, calls say ENXIO. The next machine has it: without a
    reboot it works again, and what an HMC sent before the first move arrives."""
    hmc = console_hmc(lab, pipe, follow=True)
    steps = ("open1 open2 open4 write2 poll2=in,out meet poll1=hup meet read1=ENXIO write1=ENXIO read2=ENXIO now2=hup "
             "close2 meet ready1 take4=hello now1=out write1 take1=1.2 close1 close4")
    waiting = pipe.start(steps)
    pipe.meet()
    first = Move(pipe, capable=False).asleep()
    hmc.write(b"hello\n")
    wait_queued(first.here, 1)
    first.arrive(met=False)
    pipe.meet()
    assert status(pipe) == "suspended"
    assert pipe.run("open3") == "open3=ENXIO"
    tool = pipe.partition.run("hvpipe -s hmc3 recv")
    assert tool.status == 3 and "suspended or disabled" in tool.stdout
    # hmc2 closed while the pipe was off: what waits in the hypervisor for it is nobody's.
    pipe.drops = 1
    second = Move(pipe, capable=True).asleep()
    second.arrive()
    assert first.switched() == ("0", "") and second.switched() == ("", "1")
    pipe.meet()
    assert waiting.check() == steps


def test_a_target_that_an_hmc_does_not_know(lab, pipe):
    """It stays behind: its source reports the lost connection, once, and refuses messages. All others work."""
    console_hmc(lab, pipe)
    steps = "open1 open4 meet meet take4=lost read4=nothing write4=EPIPE now4=out write1 take1=1.1 close1 close4"
    waiting = pipe.start(steps)
    pipe.meet()
    move(pipe)
    pipe.meet()
    assert waiting.check() == steps
    hmc = console_hmc(lab, pipe)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1 2>/dev/null")
    hmc.write(b"hello\n")
    assert reader.check() == "hello"


def waiting_for_the_operator(pipe):
    """Have the partition begin a migration that its operator has not told it to suspend for; returns the command and
    where the hypervisor's trace began."""
    mark = pipe.partition.hypervisor.size
    pipe.partition.qmp.set("/machine", "vasi-stream", 0xabcdef)
    pipe.partition.qmp.forget_events()
    going = pipe.partition.agent.start("echo 0xabcdef >/sys/kernel/mobility/migration", alone=True)
    pipe.partition.hypervisor.wait_for("spapr_vasi_poll stream 0xabcdef enabled", since=mark)
    return going, mark


def test_the_partition_suspends_itself_when_it_is_told_to(pipe):
    """Until then it polls the session's state, and the pipe is on."""
    going, mark = waiting_for_the_operator(pipe)
    assert "hvpipe_enable" not in pipe.partition.hypervisor.since(mark)
    pipe.partition.qmp.set("/machine", "vasi-state", "suspending")
    pipe.partition.wait_asleep()
    pipe.partition.qmp.execute("system_wakeup")
    going.check()


def test_a_migration_that_is_aborted_before_it_began(pipe):
    """The operator takes it back before the partition was to suspend itself: the pipe was never off."""
    going, mark = waiting_for_the_operator(pipe)
    pipe.partition.qmp.set("/machine", "vasi-state", "aborted")
    assert going.wait().status == 1
    assert "Input/output error" in going.stdout
    assert "hvpipe_enable" not in pipe.partition.hypervisor.since(mark)


@pytest.mark.parametrize("when", ["suspending", "suspended"])
def test_a_migration_that_the_hypervisor_aborts(lab, pipe, when):
    """The operator takes it back while the partition is about to sleep, or sleeps: the pipe is on again at once, where
    it was, and the kernel says that the migration was cancelled."""
    hmc = console_hmc(lab, pipe, follow=True)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1 2>/dev/null")
    moved = Move(pipe)
    if when == "suspended":
        moved.asleep()
        hmc.write(b"hello\n")
        wait_queued(moved.here, 1)
    else:
        moved.here.hypervisor.wait_for("hvpipe_enable enabled 0", since=moved.mark)
    pipe.partition.qmp.set("/machine", "vasi-state", "aborted")
    assert moved.going.wait().status == 1
    assert "cancel" in moved.going.stdout
    assert status(pipe) == "enabled"
    if when == "suspending":
        hmc.write(b"hello\n")
    assert reader.check() == "hello"
    assert moved.switched()[0] == "01"


def test_a_target_that_dies_while_the_partition_moves(lab, pipe):
    """The machine that was to take it is killed before it has: the move fails, and all goes on where it was."""
    hmc = console_hmc(lab, pipe, follow=True)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1 2>/dev/null")
    moved = Move(pipe).asleep()
    moved.target.process.send_signal(signal.SIGSTOP)
    killer = threading.Timer(0.5, moved.target.process.kill)
    killer.start()
    with pytest.raises(LabError, match="stays where it is"):
        moved.arrive()
    killer.join()
    moved.going.check()
    assert pipe.partition.machine is moved.here
    hmc.write(b"hello\n")
    assert reader.check() == "hello"


def test_a_target_that_refuses_the_partition(lab, pipe):
    """A machine with fewer sources does not take it: the move fails, and all goes on where it was."""
    hmc = console_hmc(lab, pipe, follow=True)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1 2>/dev/null")
    moved = Move(pipe, sources=["hmc3"]).asleep()
    with pytest.raises(LabError, match="stays where it is"):
        moved.arrive()
    moved.going.check()
    assert pipe.partition.machine is moved.here
    hmc.write(b"hello\n")
    assert reader.check() == "hello"
