# SPDX-License-Identifier: GPL-2.0-or-later
"""HMCs that are killed, stall or come back: nothing is lost, only a send in doubt comes twice, programs are told."""

import re
import signal

import pytest

from lab import REFUSES_SECOND_SEND


@pytest.fixture(scope="module")
def narrow(lab):
    """A partition whose hypervisor queues few messages of a source, so that an HMC keeps most of them."""
    partition = lab.partition(name="narrow", sources=["hmc1,queue-limit=8", "hmc2,queue-limit=8"])
    yield partition
    assert partition.poweroff() == 0


def numbers(text):
    """The numbers of the messages in TEXT, in order. TEXT must contain nothing else."""
    assert re.fullmatch(r"(<\d{6}>)*", text), text
    return [int(number) for number in re.findall(r"\d{6}", text)]


def test_sending_hmc_killed(lab, narrow, tmp_path):
    """An HMC killed three times while it sends continues with its saved state: every message arrives once."""
    count, state = 200, tmp_path / "state"
    files = []
    for number in range(1, count + 1):
        path = tmp_path / f"{number:06d}"
        path.write_text(f"<{number:06d}>")
        files.append(path)
    # A command for each message, so that sending takes a while.
    reader = narrow.serve("hmc1", "hvpipe listen -x 'cat >>/tmp/got'")
    mark = narrow.hypervisor.size
    hmc = lab.hmc(narrow, "hmc1", "send", *files, state=state)
    for _ in range(3):
        narrow.hypervisor.wait_for(r"hvpipe_receive source 0x02000001 size [1-9]\d* status 0\s", since=mark, count=30)
        mark = narrow.hypervisor.size
        hmc.signal(signal.SIGKILL)
        assert hmc.wait() == -signal.SIGKILL
        # Without input a console ends when all messages in its state are acknowledged.
        hmc = lab.hmc(narrow, "hmc1", "console", state=state)
    hmc.check()
    # All were received, but the last command may still run, and stop() would end it.
    narrow.check(f"until grep -q '<{count:06d}>' /tmp/got; do sleep 0.1; done")
    said = reader.stop().stdout
    assert numbers(narrow.check("cat /tmp/got")) == list(range(1, count + 1))
    assert "lost" in said, f"the reader was not told of a lost connection: {said}"


def test_receiving_hmc_killed(lab, narrow, tmp_path):
    """An HMC killed three times while it receives: the partition repeats sends until they succeed. Each arrives, and
    one that the hypervisor left in doubt may arrive once more."""
    count, state, output = 60, tmp_path / "state", tmp_path / "got"
    mark = narrow.hypervisor.size
    hmc = lab.hmc(narrow, "hmc2", "recv", state=state, output=output)
    sender = narrow.start(f"for n in $(seq 1 {count}); do until printf '<%06d>' $n | hvpipe -s hmc2 send; do"
                          " echo again; done; done")
    for _ in range(3):
        narrow.hypervisor.wait_for("frame_in source 0x02000002 type 2 ", since=mark, count=10)
        hmc.signal(signal.SIGKILL)
        assert hmc.wait() == -signal.SIGKILL
        mark = narrow.hypervisor.size
        narrow.hypervisor.wait_for(r"hvpipe_send source 0x02000002 size \d+ status -4\s", since=mark)
        mark = narrow.hypervisor.size
        hmc = lab.hmc(narrow, "hmc2", "recv", state=state, output=output)
    said = sender.check()
    assert "again" in said
    hmc.signal(signal.SIGTERM)
    assert hmc.wait() == 0
    got = numbers(output.read_text())
    assert got == sorted(got) and set(got) == set(range(1, count + 1))
    assert len(got) - count <= narrow.qmp.get("/machine/peripheral/source-hmc2", "in-doubt") <= 3


def test_no_hmc(lab, narrow):
    """Without an HMC a send fails at once with the status for EPIPE; with an HMC again it works."""
    gone = narrow.run("printf x | hvpipe send")
    assert gone.status == 5
    assert "hmc1" in gone.stdout or "0x02000001" in gone.stdout
    hmc = lab.hmc(narrow, "hmc1", "echo")
    assert narrow.check("printf hello | hvpipe send -r") == "hello\n"
    hmc.signal(signal.SIGTERM)
    assert hmc.wait() == 0
    assert narrow.run("printf x | hvpipe send").status == 5


def test_stalled_hmc_receive(lab, narrow, tmp_path):
    """A send to a stopped HMC waits; meanwhile messages of another HMC are received."""
    stalled = lab.hmc(narrow, "hmc1", "recv", "-n", "1")
    stalled.signal(signal.SIGSTOP)
    mark = narrow.hypervisor.size
    waiting = narrow.start("printf late | hvpipe send")
    narrow.hypervisor.wait_for(r"hvpipe_send source 0x02000001 size 4 status (-2|9900)\s", since=mark)
    reader = narrow.serve("hmc2", "hvpipe -s hmc2 recv -n 1")
    (tmp_path / "message").write_text("hello")
    lab.hmc(narrow, "hmc2", "send", tmp_path / "message").check()
    assert reader.check() == "hello"
    assert waiting.running
    stalled.signal(signal.SIGCONT)
    assert waiting.wait().status == 0
    assert stalled.check() == "late"


def test_stalled_hmc_send(lab, narrow):
    """The contract allows one send at a time: a send to another HMC waits for the stalled one, and goes when that is
    killed, at once or when the hypervisor takes it."""
    stalled = lab.hmc(narrow, "hmc1", "recv", "-n", "1")
    stalled.signal(signal.SIGSTOP)
    other = lab.hmc(narrow, "hmc2", "recv", "-n", "1")
    other.err.wait_for("connected to")
    mark = narrow.hypervisor.size
    waiting = narrow.start("printf early >/tmp/early; exec hvpipe send /tmp/early")
    narrow.hypervisor.wait_for(r"hvpipe_send source 0x02000001 size 5 status (-2|9900)\s", since=mark)
    behind = narrow.serve("hmc2", "sh -c 'printf other | hvpipe -s hmc2 send'")
    assert "hvpipe_send source 0x02000002" not in narrow.hypervisor.since(mark)
    assert waiting.kill().status == 128 + signal.SIGKILL
    if REFUSES_SECOND_SEND:
        assert behind.wait().status == 1
    else:
        behind.check()
        assert other.check() == "other"
    stalled.signal(signal.SIGCONT)
    assert stalled.check() == "early"   # it was on its way already
    if REFUSES_SECOND_SEND:
        narrow.check("printf other | hvpipe -s hmc2 send")
        assert other.check() == "other"


def test_signal_ends_answer(lab, narrow, tmp_path):
    """An HMC that stalls when it gets the answer to its file: one signal ends the receiver, which has stored the file.
    """
    (tmp_path / "a").write_text("text")
    receiver = narrow.serve("hmc1", "sh -c 'mkdir /tmp/in && exec hvpipe recv -d /tmp/in'")
    mark = narrow.hypervisor.size
    hmc = lab.hmc(narrow, "hmc1", "--fault", "stall,frame=ack", "console", stdin=True)
    hmc.write(f"/send {tmp_path}/a\n".encode())
    narrow.hypervisor.wait_for(r"hvpipe_send source 0x02000001 size 89 status (-2|9900)\s", since=mark)
    ended = receiver.stop()
    assert ended.status == 0
    assert "a\n" in ended.stdout and "the message of 89 bytes is in doubt" in ended.stdout
    assert narrow.check("cat /tmp/in/a") == "text"


def test_killed_sender(lab, narrow):
    """A process killed while it waits for a stalled HMC ends, and the next message is sent."""
    hmc = lab.hmc(narrow, "hmc1", "recv", "-n", "2")
    hmc.signal(signal.SIGSTOP)
    mark = narrow.hypervisor.size
    waiting = narrow.start("printf first >/tmp/first; exec hvpipe send /tmp/first")
    narrow.hypervisor.wait_for(r"hvpipe_send source 0x02000001 size 5 status (-2|9900)\s", since=mark)
    assert waiting.kill().status == 128 + signal.SIGKILL
    hmc.signal(signal.SIGCONT)
    narrow.check("printf second | hvpipe send")
    assert hmc.check() == "firstsecond"
