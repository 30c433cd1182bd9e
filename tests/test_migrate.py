# SPDX-License-Identifier: GPL-2.0-or-later
"""A partition that migrates: suspended by its own kernel, carried to another QEMU process, and resumed there.

test_suspend has what the driver does around a suspension. Here is what a move adds, also to a machine that fails or
lacks something. faults.py explains the steps, and the proof after each test.

CYCLES=NUMBER  make so many moves under traffic instead of 5
"""

import os
import re
import signal
import threading

import pytest

import reliability
from commands import run_command
from faults import INJECT, Pipe, console_hmc, pipe_state
from lab import ANNOUNCES_AGAIN, PAYLOAD_LIMIT, LabError, source_id

CYCLES = int(os.environ.get("CYCLES") or 5)
HMC3, HMC4 = (f"{source_id(name):#010x}" for name in ("hmc3", "hmc4"))


class Move:
    """A move to another machine, in steps. FAULTS are the target's. READY is called when the target waits."""

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
        """Wait until the partition is suspended; returns itself."""
        self.partition.wait_asleep()
        return self

    def arrive(self, connected=True):
        """Carry the partition over and wait until it says that it has arrived. CONNECTED: and until hmc3's HMC has."""
        self.partition.carry(self.target)
        self.going.check()
        if connected:
            self.wait_connected(HMC3)

    def wait_connected(self, source):
        """Wait until SOURCE's HMC is connected to the target."""
        self.target.hypervisor.wait_for(f"hvpipe_link source {source} up")

    def switches(self):
        """Each time that the pipe was enabled (1) or disabled (0), here and on the target: ("0", "1")."""
        left, reached = (re.findall(r"hvpipe_enable enabled ([01])", text) for text in
                         (self.here.hypervisor.since(self.mark), self.target.hypervisor.text))
        # The target's first one is its reset.
        return "".join(left), "".join(reached[1:])


def move(pipe, faults="", **changes):
    """Move the partition; returns when it has arrived."""
    moved = Move(pipe, faults, **changes).asleep()
    moved.arrive()
    return moved


def wait_queued(machine, sequence):
    """Wait until the hypervisor has hmc4's message SEQUENCE."""
    machine.hypervisor.wait_for(rf"frame_in source {HMC4} type 1 length \d+ sequence {sequence}\s")


@pytest.fixture(scope="module")
def machine(lab):
    """A partition for all tests here."""
    pipe = Pipe(lab, "moving", options=["-trace", "runstate_set", "-trace", "spapr_vasi_*"], memory="512M", smp=2)
    yield pipe
    pipe.close()


def test_under_traffic(record_property):
    """Moves while every source sends both ways: nothing is lost, doubled or misrouted."""
    done = run_command("migrate", CYCLES, timeout=1200 + 60 * CYCLES)
    assert done.returncode == 0, done.stdout[-6000:]
    last = re.search(r"\nmigrate: (\d+) sent, (\d+) received, (0) dropped, (0) lost\n"
                     rf"migrate: {CYCLES} cycles, \1 messages, 0 lost, (0) duplicated, (0) misrouted\n$", done.stdout)
    assert last, done.stdout[-2000:]
    # Ten each way with each of four sources before each move and after the last.
    assert int(last[1]) >= (CYCLES + 1) * 4 * 2 * 10 and last[1] == last[2]
    record_property("messages", dict(zip(reliability.COLUMNS, map(int, last.groups()))))


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1 2"])
def test_bad_cycles(wrong):
    """A wrong number of moves gives status 2 and is named in the message."""
    words = wrong.split()
    done = run_command("migrate", *words)
    assert done.returncode == 2 and words[-1] in done.stdout.splitlines()[-1]


def test_pipe_off_and_on(pipe):
    """A move disables the pipe once on the old machine and enables it once on the new one."""
    mark = pipe.partition.console.size
    assert move(pipe).switches() == ("0", "1")
    assert pipe.partition.machine.name == "moving-b"
    assert "memory transfer completed" in pipe.partition.console.since(mark)    # Linux asked for the session's state
    assert move(pipe).switches() == ("0", "1")
    assert pipe.partition.machine.name == "moving"


@pytest.mark.parametrize("command", ["recv", "listen -x cat"])
def test_receiver(lab, pipe, command):
    """Messages queued before the move, during the suspension and after the move each arrive once."""
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
    moved.target.hypervisor.wait_for(rf"frame_out source {HMC4} type 2 length 8 sequence 30\s")
    if "recv" in command:
        assert reader.wait().status == 0
    else:
        # stop() would end a command that still runs for the last message.
        size = len("".join(said))
        pipe.partition.check(f'until [ "$(wc -c </tmp/got)" -ge {size} ]; do :; done')
        assert reader.stop().status == 0
    assert pipe.partition.get("/tmp/got").decode() == "".join(said)


def test_reply(lab, pipe):
    """A listener's reply arrives, although its HMC has not yet reconnected and the report of the lost connection is
    pending behind an unread message."""
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


def test_sender(lab, pipe, tmp_path):
    """Of 4000 messages being sent during a move each arrives once, although the connection is lost until the HMC
    reconnects."""
    got = tmp_path / "got"
    # More than can be sent before the partition sleeps.
    hmc = lab.hmc(pipe.partition, "hmc4", "recv", "-n", "4000", output=got, follow=True)
    pipe.partition.check(f"for n in $(seq 4000); do printf %0{PAYLOAD_LIMIT}d $n; done >/tmp/stream")
    sender = []

    def send():
        mark = pipe.partition.hypervisor.size
        sender.append(pipe.partition.start(f"exec hvpipe -s hmc4 send -m {PAYLOAD_LIMIT} /tmp/stream"))
        pipe.partition.hypervisor.wait_for(rf"frame_in source {HMC4} type 2 length 0 sequence 20\s", since=mark)
    moved = Move(pipe, ready=send).asleep()
    assert not re.search(rf"frame_in source {HMC4} type 2 length 0 sequence 4000\s",
                         moved.here.hypervisor.since(moved.mark)), "all was sent before the move"
    moved.arrive()
    hmc.check()
    sender[0].check()
    assert got.read_bytes() == b"".join(b"%0*d" % (PAYLOAD_LIMIT, n) for n in range(1, 4001))


@pytest.mark.parametrize("taken", [True, False])
def test_send_in_flight(lab, pipe, taken):
    """A send that waits for a stalled HMC is given up for the move, which leaves its message in doubt, and repeated
    after it. Whether the HMC had taken it before or not, it gets the message once more, and that is counted."""
    hmc = lab.hmc(pipe.partition, "hmc4", "recv", "-n", "3", follow=True)
    hypervisor = pipe.partition.hypervisor
    mark = hypervisor.size
    hmc.signal(signal.SIGSTOP)
    sender = pipe.partition.start("printf late | hvpipe -s hmc4 send")
    hypervisor.wait_for(rf"hvpipe_send source {HMC4} size 4 status (-2|9900)\s", since=mark)
    moved = Move(pipe).asleep()
    assert sender.running
    assert moved.here.qmp.get("/machine/peripheral/source-hmc4", "in-doubt") == 1
    if taken:
        hmc.signal(signal.SIGCONT)
        moved.here.hypervisor.wait_for(rf"frame_in source {HMC4} type 2 length 0 sequence 1\s", since=mark)
        moved.arrive()
    else:
        moved.arrive()
        hmc.signal(signal.SIGCONT)
    moved.wait_connected(HMC4)
    sender.check()
    pipe.partition.check("printf next | hvpipe -s hmc4 send")
    assert hmc.check() == "latelatenext"


def test_announced_again(pipe):
    """A message announced but not read before the move is read once after it; firmware announces it again, or not."""
    steps = "open1 write1 poll1=in,out meet meet poll1=in,out read1=1.1 read1=nothing now1=out close1"
    waiting = pipe.start(steps)
    pipe.meet()
    moved = move(pipe)
    assert moved.target.hypervisor.text.count("hvpipe_announce source 0x02000001") == ANNOUNCES_AGAIN
    pipe.meet()
    assert waiting.check() == steps


def test_held_message(pipe):
    """A message that the driver holds for a too small buffer can be read after the move, even while the pipe is off."""
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
def test_enable_retried(lab, pipe, fault):
    """A target that cannot enable the pipe at first tries again; a receiver only waits longer."""
    hmc = console_hmc(lab, pipe, follow=True)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1 2>/dev/null")
    moved = Move(pipe, f"set-system-parameter:{fault}").asleep()
    hmc.write(b"hello\n")
    moved.arrive()
    assert reader.check() == "hello"
    assert moved.switches() == ("0", "1")


def test_target_without_pipe(lab, pipe):
    """On a target without the pipe pollers are woken and calls fail with ENXIO. After a second move to a machine with
    it all works again, and a message sent before the first move arrives."""
    hmc = console_hmc(lab, pipe, follow=True)
    steps = ("open1 open2 open4 write2 poll2=in,out meet poll1=hup meet read1=ENXIO write1=ENXIO read2=ENXIO now2=hup "
             "close2 meet ready1 take4=hello now1=out write1 take1=1.2 close1 close4")
    waiting = pipe.start(steps)
    pipe.meet()
    first = Move(pipe, capable=False).asleep()
    hmc.write(b"hello\n")
    wait_queued(first.here, 1)
    first.arrive(connected=False)
    pipe.meet()
    assert pipe_state(pipe) == "suspended"
    assert pipe.run("open3") == "open3=ENXIO"
    tool = pipe.partition.run("hvpipe -s hmc3 recv")
    assert tool.status == 7 and "suspended or disabled" in tool.stdout
    # hmc2 was closed while the pipe was off, so its pending message is dropped.
    pipe.drops = 1
    second = Move(pipe, capable=True).asleep()
    second.arrive()
    assert first.switches() == ("0", "") and second.switches() == ("", "1")
    pipe.meet()
    assert waiting.check() == steps


def test_unknown_target(lab, pipe):
    """An HMC that does not know the target stays behind: its source reports the loss once and refuses sends. Others
    work."""
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
    """Begin a migration whose operator does not start the suspension yet; returns the command and a mark."""
    mark = pipe.partition.hypervisor.size
    pipe.partition.qmp.set("/machine", "vasi-stream", 0xabcdef)
    pipe.partition.qmp.forget_events()
    going = pipe.partition.agent.start("echo 0xabcdef >/sys/kernel/mobility/migration", alone=True)
    pipe.partition.hypervisor.wait_for("spapr_vasi_poll stream 0xabcdef enabled", since=mark)
    return going, mark


def test_waits_for_operator(pipe):
    """Until the operator starts the suspension the partition polls the session's state, and the pipe stays on."""
    going, mark = waiting_for_the_operator(pipe)
    assert "hvpipe_enable" not in pipe.partition.hypervisor.since(mark)
    pipe.partition.qmp.set("/machine", "vasi-state", "suspending")
    pipe.partition.wait_asleep()
    pipe.partition.qmp.execute("system_wakeup")
    going.check()


def test_aborted_early(pipe):
    """A migration aborted before the suspension fails with EIO; the pipe was never off."""
    going, mark = waiting_for_the_operator(pipe)
    pipe.partition.qmp.set("/machine", "vasi-state", "aborted")
    assert going.wait().status == 1
    assert "Input/output error" in going.stdout
    assert "hvpipe_enable" not in pipe.partition.hypervisor.since(mark)


@pytest.mark.parametrize("when", ["suspending", "suspended"])
def test_aborted(lab, pipe, when):
    """A migration aborted while the partition suspends itself or is suspended: the pipe is on again at once, and the
    kernel says that the migration was cancelled, or that the suspension did not go."""
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
    # EAGAIN: a stray H_PROD had the other CPU out of H_JOIN when ibm,suspend-me was called, and it is not called again.
    words = ["cancel"] if when == "suspended" else ["cancel", "temporarily unavailable"]
    assert any(word in moved.going.stdout for word in words)
    assert pipe_state(pipe) == "enabled"
    if when == "suspending":
        hmc.write(b"hello\n")
    assert reader.check() == "hello"
    assert moved.switches()[0] == "01"


def test_target_dies(lab, pipe):
    """The target is killed during the transfer: the move fails, and the partition continues where it was."""
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


def test_target_refuses(lab, pipe):
    """A target with fewer sources refuses the partition: the move fails, and the partition continues where it was."""
    hmc = console_hmc(lab, pipe, follow=True)
    reader = pipe.partition.serve("hmc4", "hvpipe -s hmc4 recv -n 1 2>/dev/null")
    moved = Move(pipe, sources=["hmc3"]).asleep()
    with pytest.raises(LabError, match="stays where it is"):
        moved.arrive()
    moved.going.check()
    assert pipe.partition.machine is moved.here
    hmc.write(b"hello\n")
    assert reader.check() == "hello"
