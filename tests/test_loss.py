# SPDX-License-Identifier: GPL-2.0-or-later
"""HMCs that are killed and come back: nothing is lost, nothing comes twice, and who waits is told."""

import re
import signal

import pytest


@pytest.fixture(scope="module")
def narrow(lab):
    """A partition whose hypervisor holds few messages of a source, so that an HMC keeps most of them."""
    partition = lab.partition(name="narrow", sources=["hmc1,queue-limit=8", "hmc2,queue-limit=8"])
    yield partition
    assert partition.poweroff() == 0


def numbers(text):
    """The numbers of the messages in TEXT, in the order they stand in; there must be nothing else."""
    assert re.fullmatch(r"(<\d{6}>)*", text), text
    return [int(number) for number in re.findall(r"\d{6}", text)]


def test_an_hmc_that_sends_is_killed(lab, narrow, tmp_path):
    """Killed in the middle of what it sends, three times, it comes back and goes on with the state it kept."""
    count, state = 200, tmp_path / "state"
    files = []
    for number in range(1, count + 1):
        path = tmp_path / f"{number:06d}"
        path.write_text(f"<{number:06d}>")
        files.append(path)
    # A command for each message: slow enough to be in the middle for a while.
    reader = narrow.serve("hmc1", "hvpipe listen -x 'cat >>/tmp/got'")
    mark = narrow.hypervisor.size
    hmc = lab.hmc(narrow, "hmc1", "send", *files, state=state)
    for _ in range(3):
        narrow.hypervisor.wait_for(r"hvpipe_receive source 0x02000001 size [1-9]\d* status 0\s", since=mark, count=30)
        mark = narrow.hypervisor.size
        hmc.signal(signal.SIGKILL)
        assert hmc.wait() == -signal.SIGKILL
        # With nothing typed, a console ends when all that the state holds was received.
        hmc = lab.hmc(narrow, "hmc1", "console", state=state)
    hmc.check()
    # All were acknowledged, so they were received; the last command may still run, and stop() ends it with the reader.
    narrow.check(f"until grep -q '<{count:06d}>' /tmp/got; do sleep 0.1; done")
    said = reader.stop().stdout
    assert numbers(narrow.check("cat /tmp/got")) == list(range(1, count + 1))
    assert "lost" in said, f"the reader was not told of a lost connection: {said}"


def test_an_hmc_that_receives_is_killed(lab, narrow, tmp_path):
    """Killed in the middle of what it receives; the partition sends each message until told that it was taken."""
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
    assert numbers(output.read_text()) == list(range(1, count + 1))


def test_nobody_there(lab, narrow):
    """Without an HMC a send ends at once, with the status that says so (EPIPE); with one again it works."""
    gone = narrow.run("printf x | hvpipe send")
    assert gone.status == 5
    assert "hmc1" in gone.stdout or "0x02000001" in gone.stdout
    hmc = lab.hmc(narrow, "hmc1", "echo")
    assert narrow.check("printf hello | hvpipe send -r") == "-: hello\n"
    hmc.signal(signal.SIGTERM)
    assert hmc.wait() == 0
    assert narrow.run("printf x | hvpipe send").status == 5


def test_an_hmc_that_stalls_holds_up_no_other_messages(lab, narrow, tmp_path):
    """A stopped HMC takes nothing: who sends to it waits, and what another HMC sends is still received."""
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


def test_an_hmc_that_stalls_holds_up_sends_to_others_until_its_sender_is_killed(lab, narrow):
    """One send at a time, says the contract: what goes to another HMC waits for the first, and goes when that ends."""
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
    behind.check()
    assert other.check() == "other"
    stalled.signal(signal.SIGCONT)
    assert stalled.check() == "early"   # it was on its way already


def test_a_killed_sender_leaves_the_pipe_working(lab, narrow):
    """A process that is killed while it waits for a stalled HMC ends; the next message goes."""
    hmc = lab.hmc(narrow, "hmc1", "recv", "-n", "2")
    hmc.signal(signal.SIGSTOP)
    mark = narrow.hypervisor.size
    waiting = narrow.start("printf first >/tmp/first; exec hvpipe send /tmp/first")
    narrow.hypervisor.wait_for(r"hvpipe_send source 0x02000001 size 5 status (-2|9900)\s", since=mark)
    assert waiting.kill().status == 128 + signal.SIGKILL
    hmc.signal(signal.SIGCONT)
    narrow.check("printf second | hvpipe send")
    assert hmc.check() == "firstsecond"
