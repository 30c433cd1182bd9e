# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon hvpiped in a partition, on the real driver, with real HMCs.

It runs as `hvpiped --foreground`, without systemd: when it is killed, its handles close, and the kernel drops what
comes until it runs again. How handles survive under a store of descriptors is in test_hvpiped.py.
"""

import hashlib
import re

import pytest

from bench.counting import counting
from lab import KERNEL
from test_pipe import message_files

MESSAGES = 1000
KILLS = 20
DAEMON = "exec hvpiped --foreground 2>>/tmp/log"


@pytest.fixture(scope="module", name="machine")
def daemon_partition(lab):
    """A partition with two sources and the daemon's programs."""
    partition = lab.partition(name="daemon", sources=["hmc1", "hmc2"],
                              programs=["hvpiped", "daemon/bench-daemon", "lib/test-driver"])
    yield partition
    partition.close()


@pytest.fixture(name="partition")
def fresh_partition(machine):
    """The partition, without a daemon and what an earlier one left."""
    machine.check("rm -rf /var/lib/hvpipe /run/hvpipe /etc/hvpipe /tmp/log")
    yield machine


def start(partition):
    """Start the daemon; returns it when it serves."""
    served = int(partition.check("touch /tmp/log; grep -c serving /tmp/log || :"))
    daemon = partition.start(DAEMON)
    partition.check(f'until [ "$(grep -c serving /tmp/log)" -gt {served} ]; do :; done')
    return daemon


def status_dropped(partition):
    """The driver's count of messages that nobody held the source of."""
    return int(re.search(r"(\d+) messages dropped", partition.check("hvpipe status"))[1])


def status(partition, name, source="0x02000001"):
    """A counter of the daemon."""
    text = partition.check("hvpipe status")
    line, = [line for line in text.splitlines() if line.startswith(f"source id={source} ")]
    return int(re.search(rf" {name}=(\d+)", line)[1])


def test_killed_while_nobody_listens(lab, partition, tmp_path):
    """1,000 messages are sent while no program receives, and the daemon is killed 20 times meanwhile.

    Afterwards a program takes, in order and each once, all but those that the account says: what the kernel dropped
    while there was no daemon, and at most one a kill that was in doubt.
    """
    files = message_files(tmp_path, MESSAGES)
    dropped = status_dropped(partition)
    daemon, doubts = start(partition), []
    step = MESSAGES // KILLS
    for number in range(KILLS):
        before, mark = status(partition, "in_doubt"), partition.hypervisor.size
        hmc = lab.hmc(partition, "hmc1", "send", *files[number * step:(number + 1) * step])
        # In the middle of them, at another place each time.
        partition.hypervisor.wait_for(rf"frame_out source 0x02000001 type 2 length 8 sequence {2 + number * 2}\s",
                                      since=mark)
        daemon.kill()
        hmc.check()
        daemon = start(partition)
        doubts.append(status(partition, "in_doubt") - before)
    dropped = status_dropped(partition) - dropped
    taken = partition.run(f"hvpipe recv -t 2 -n {MESSAGES}").output
    numbers = [int(number) for number in re.findall(rb"<(\d{6})\.*>", taken)]
    daemon.stop()
    lost = MESSAGES - len(numbers)
    print(f"sent {MESSAGES}, taken {len(numbers)}, dropped by the kernel without a daemon {dropped}, in doubt "
          f"{sum(doubts)} in {KILLS} kills: {doubts}")
    assert numbers == sorted(set(numbers)), "not in order, or twice"
    assert all(doubt in (0, 1) for doubt in doubts)
    assert dropped <= lost <= dropped + sum(doubts)
    assert len(numbers) >= MESSAGES // KILLS * 5, "hardly any was kept"


def test_two_programs_and_observer(lab, partition, tmp_path):
    """Two programs and an observer on one source: one receives, one sends, one sees both, at the same time."""
    daemon = start(partition)
    inbox = lab.hmc(partition, "hmc1", "echo")
    partition.check("until hvpipe -s hmc1 ping; do :; done; hvpipe recv -n 1")
    observer = partition.start("exec hvpipe monitor -n 40 --json")
    receiver = partition.start("exec hvpipe recv -n 20")
    partition.check("until hvpipe status | grep -q right=receive; do :; done")
    partition.check("until hvpipe status | grep -q right=observe; do :; done")
    partition.check("for i in $(seq 20); do echo number $i | hvpipe send || exit; done")
    assert receiver.check() == "".join(f"number {number}\n" for number in range(1, 21))
    seen = observer.check()
    assert seen.count('"direction":"sent"') == seen.count('"direction":"received"') == 20
    inbox.close()
    daemon.stop()


def test_files(lab, partition, tmp_path):
    """Files go both ways through the daemon: each sender gets its answer, whoever receives, and the receiver keeps it.

    Two programs send at once, first while another one receives files, then while none does.
    """
    daemon = start(partition)
    inbox, file = tmp_path / "inbox", tmp_path / "down"
    inbox.mkdir()
    file.write_bytes(bytes(range(256)) * 64)
    partition.check("rm -rf /var/in; mkdir -p /var/in")
    receiver = partition.start("exec hvpipe recv -d /var/in -n 2")
    partition.check("until hvpipe status | grep -q right=receive; do :; done")
    assert "down: stored" in lab.hmc(partition, "hmc1", "send", "-f", file).check()
    assert partition.check("sha256sum </var/in/down").split()[0] == hashlib.sha256(file.read_bytes()).hexdigest()
    send = "for n in a b; do head -c 20000 /dev/urandom >/tmp/$n; hvpipe send -f /tmp/$n & p=\"$p $!\"; done; " \
           "for i in $p; do wait $i || exit; done; cd /tmp; sha256sum a b"
    for number in range(2):
        hmc = lab.hmc(partition, "hmc1", "recv", "-d", inbox, "-n", "2")
        said = partition.check(send)
        hmc.check()
        for name in "ab":
            digest = hashlib.sha256((inbox / name).read_bytes()).hexdigest()
            assert f"/tmp/{name}: stored, SHA-256 {digest}" in said and f"{digest}  {name}" in said
        if not number:
            assert "right=receive" in partition.check("hvpipe status"), "an answer ended the receiver"
            lab.hmc(partition, "hmc1", "send", "-f", file).check()
            assert receiver.check().splitlines().count("down") == 2
    daemon.stop()


def test_ping(lab, partition):
    """`ping` says how long until a message was taken; without a source it is wrong usage."""
    daemon = start(partition)
    hmc = lab.hmc(partition, "hmc2", "recv")
    partition.check("until hvpipe -s hmc2 ping -n 1; do :; done")
    said = partition.check("hvpipe -s hmc2 ping -n 3")
    assert len(re.findall(r"taken in [\d.]+ ms", said)) == 3
    assert partition.run("hvpipe ping").status == 2
    hmc.close()
    daemon.stop()


def test_hostile_clients(lab, partition, tmp_path):
    """A receiver that is stopped, an observer that is stopped and 200 that connect and leave cost hmc2 nothing."""
    daemon = start(partition)
    stopped = [partition.start("exec hvpipe recv"), partition.start("exec hvpipe monitor")]
    partition.check('until [ "$(hvpipe status | grep -c ^client)" = 2 ]; do :; done')
    for command in stopped:
        command.signal("STOP")
    files = message_files(tmp_path, 100)
    lab.hmc(partition, "hmc1", "send", *files).check()
    partition.check("for i in $(seq 200); do hvpipe status >/dev/null; done")
    reader = partition.start("exec hvpipe -s hmc2 recv -n 100")
    lab.hmc(partition, "hmc2", "send", *files).check()
    assert reader.wait().output == b"".join(path.read_bytes() for path in files)
    for command in stopped:
        command.signal("CONT")
        command.stop()
    # What the stopped receiver did not take is there for the next one; it takes a few messages before it ends.
    taken = status(partition, "taken")
    rest = partition.run(f"hvpipe recv -n {100 - taken}")
    assert rest.output.startswith(b"".join(path.read_bytes() for path in files[taken:])), taken
    daemon.stop()


def test_direct_and_daemon(lab, partition):
    """The tools use the device where no daemon answers, and with --direct; the daemon holds its sources."""
    reader = partition.serve("hmc1", "hvpipe recv")
    assert "hvpipe" in partition.check("hvpipe status")
    reader.stop()
    daemon = start(partition)
    assert partition.run("hvpipe --direct recv -t 1").status == 4
    assert partition.run("hvpipe recv -t 0.1").status == 6
    daemon.stop()
    assert partition.run("hvpipe recv -t 0.1").status == 6


def test_memory(lab, partition):
    """With 30 clients the daemon and its sending process have less than 16 MiB resident."""
    daemon = start(partition)
    for _ in range(30):
        partition.start("exec hvpipe monitor")
    partition.check('until [ "$(hvpipe status | grep -c ^client)" = 30 ]; do :; done')
    sizes = partition.check("for p in $(pidof hvpiped); do grep VmRSS /proc/$p/status; done")
    total = sum(int(size) for size in re.findall(r"(\d+) kB", sizes))
    print(f"resident: {total} KiB")
    assert 0 < total < 16 << 10
    partition.run("killall hvpipe")
    daemon.stop()


def test_cost(lab):
    """To a receiver that waits, a message costs at most three times the instructions that it costs by the device."""
    if KERNEL != "vmlinux":
        pytest.skip("the numbers are those of vmlinux")
    partition, _ = counting(lab, "daemon-cost", KERNEL, programs=["hvpiped", "daemon/bench-daemon"])
    device = int(partition.check("bench-daemon device").split()[1])
    start(partition)
    daemon = int(partition.check("bench-daemon daemon").split()[1])
    partition.close()
    print(f"device {device}, daemon {daemon}, {daemon / device:.2f} times")
    assert device < daemon <= 3 * device
