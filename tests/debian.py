# SPDX-License-Identifier: GPL-2.0-or-later
"""`make debian TEST=1`: our packages on a real Debian partition, with systemd, udev, apt and Debian's kernel or ours.

Not one of `make test`: the disk that lab/debian.py makes takes long, and so does each boot. The tests share a disk, in
the order in which they stand here.
"""

import hashlib
import os
import re
import shutil

import pytest

from lab import BUILD, Lab
from lab.certificates import make_certificates
from lab.debian import INSTALLED, chosen_kernel, partition_of
from test_pipe import message_files

RELEASE = os.environ.get("RELEASE", "trixie")
LIMIT = 3600            # seconds for anything: only a test that hangs takes so long
MESSAGES = 1000
KILLS = 20
BETWEEN_KILLS = 40      # messages at least: on a fast kernel twice as many come while they are counted
TRAFFIC = 2500          # messages, so that the last kill has traffic, too
# The doctor warns of the driver that Linux ships, and of nothing else.
DRIVER = "Linux [^:]*: a message that comes while another one is received can stop the pipe"
# Wait until udev has started the daemon
ACTIVE = "until systemctl is-active -q hvpiped; do sleep 0.2; done"
# Prints how many messages of hmc1 wait in the spool
SPOOLED = r"s/^source id=0x02000001 .* spooled=\([0-9]*\) .*/\1/p"
TAKE = "hvpipe -s hmc1 recv -t 20"


class Debian:
    """The partition, which can be booted again from its disk."""

    def __init__(self, lab, disk):
        self._lab, self._disk, self._partition = lab, disk, None

    @property
    def partition(self):
        """It runs."""
        return self._partition or self.boot()

    def run(self, command):
        """Run COMMAND in it to its end; returns it with status and output."""
        return self.partition.run(command, LIMIT)

    def check(self, command):
        """Run COMMAND in it, which must succeed; returns its output."""
        return self.run(command).check()

    def send(self, *arguments):
        """Send from hmc1 to the end; returns what the HMC said."""
        return self.hmc("send", *arguments).check(LIMIT)

    def hmc(self, *arguments):
        """Start an HMC on hmc1; one that ran ends."""
        self._lab.tidy()
        return self._lab.hmc(self.partition, "hmc1", *arguments)

    def boot(self, **how):
        """Shut it down, then boot it; returns when systemd has started everything, and udev the daemon."""
        if self._partition:
            self._partition.start("systemctl poweroff")
            self._partition.process.wait(LIMIT)
            self._partition.close()
        self._partition = self._lab.partition(name="debian", trace=False, **{
            "sources": ["hmc1", "hmc2"], **partition_of(RELEASE, self._disk), **how})
        self.run("systemctl is-system-running --wait")
        if how.get("hvpipe", True):
            self.check(ACTIVE)
        return self._partition


@pytest.fixture(scope="module", name="debian")
def the_debian():
    """The partition's disk, and it."""
    with Lab() as lab:
        disk = lab.directory / "disk"
        shutil.copyfile(BUILD / "debian" / RELEASE / "disk", disk)
        yield Debian(lab, disk)


def property_of(debian, unit, name):
    """A property of systemd's."""
    return debian.check(f"systemctl show --value -p {name} {unit}").strip()


def numbers_of(output):
    """The numbers of test_pipe's messages, one behind the other."""
    return [int(number) for number in re.findall(rb"<(\d{6})\.*>", output)]


def counter(debian, name):
    """A counter of the daemon for hmc1."""
    line = re.search(r"^source id=0x02000001 .*$", debian.check("hvpipe status"), re.M)[0]
    return int(re.search(rf" {name}=(\d+)", line)[1])


def wait_spooled(debian, count):
    """Wait until COUNT messages of hmc1 wait in the spool."""
    line = f"^source id=0x02000001 .* spooled={count} "
    debian.check(f"until hvpipe status | grep -q '{line}'; do sleep 0.2; done")


def test_started_by_udev(debian):
    """udev starts the daemon: no target wants it. Nothing fails, and the sandbox is tight."""
    assert re.fullmatch(r'("?\S+papr\S+hvpipe\.device"? ?)+', property_of(debian, "hvpiped", "WantedBy"))
    assert not debian.check("systemctl --failed --no-legend")
    exposure = debian.check("systemd-analyze security --no-pager hvpiped | tail -n 1")
    assert float(re.search(r"level for hvpiped.service: ([\d.]+)", exposure)[1]) < 2, exposure
    print(debian.check("uname -srm; systemd-analyze").strip())


def test_doctor(debian):
    """The doctor has no warning but that of the driver in Debian's kernel."""
    said = debian.run("hvpipe doctor").stdout
    findings = [line for line in said.splitlines() if re.match("warning|error", line)]
    assert all(re.search(DRIVER, line) for line in findings), said
    assert bool(findings) != bool(chosen_kernel()), said
    assert re.search(r"^ok +holders ", said, re.M), said


def test_groups(debian):
    """A member of the group hvpipe sends; somebody else is told which group may."""
    debian.hmc("echo")
    debian.check("useradd alice; useradd -G hvpipe bob")
    refused = debian.run("echo hello | runuser -u alice -- hvpipe send")
    assert refused.status == 1 and "the group 'hvpipe'" in refused.stdout
    debian.check("echo hello | runuser -u bob -- hvpipe send")
    assert debian.check(f"{TAKE} -n 1") == "hello\n"
    refused = debian.run("runuser -u bob -- hvpipe recv -n 1")
    assert refused.status == 1 and "only root" in refused.stdout


def test_waits_over_a_reboot(debian, tmp_path):
    """The HMC sends 1,000 messages while no program listens; after a reboot one takes all of them, in order."""
    debian.send(*message_files(tmp_path, MESSAGES))
    wait_spooled(debian, MESSAGES)
    debian.boot()
    assert counter(debian, "spooled") == MESSAGES
    taken = debian.run(f"{TAKE} -n {MESSAGES} | tr -d .")
    assert numbers_of(taken.output) == list(range(1, MESSAGES + 1))


def test_killed(debian, tmp_path):
    """The daemon is killed 20 times under traffic: each message is taken once and in order, but for those in doubt, at
    most one a kill."""
    before = counter(debian, "in_doubt")
    hmc = debian.hmc("send", *message_files(tmp_path, TRAFFIC))
    # Each kill after so many messages more. The socket stays open, so that `hvpipe status` waits for the next daemon.
    kills = debian.check(f"""for i in $(seq {KILLS}); do
        n=0
        until [ "${{n:-0}}" -ge $((i * {BETWEEN_KILLS})) ]; do n=$(hvpipe status | sed -n '{SPOOLED}'); done
        kill -9 $(systemctl show --value -p MainPID hvpiped)
        echo $n
    done""")
    hmc.check(LIMIT)
    taken = numbers_of(debian.run(f"{TAKE} -n {TRAFFIC} | tr -d .").output)
    doubt = counter(debian, "in_doubt") - before
    assert property_of(debian, "hvpiped", "NRestarts") == str(KILLS)
    print(f"sent {TRAFFIC}, taken {len(taken)}, in doubt {doubt} in {KILLS} kills, which came after {kills.split()}")
    # Those that a kill lost are never counted.
    assert int(kills.split()[-1]) < TRAFFIC - KILLS, "there was no more traffic"
    # The kernel says so when a source is opened that somebody has: each daemon got the handles of the last one.
    assert "could not get the source" not in debian.check("dmesg")
    assert taken == sorted(set(taken)), "not in order, or twice"
    assert TRAFFIC - doubt <= len(taken) and doubt <= KILLS


def test_handler(debian, tmp_path):
    """The certificates of `make run` go to a handler, through the daemon; the HMC learns that each is stored."""
    debian.partition.put("/etc/hvpipe/handlers.d/hmc1", b"#!/bin/sh\nsha256sum | cut -c1-64\n")
    debian.check("chmod +x /etc/hvpipe/handlers.d/hmc1; systemctl enable --now hvpipe-listen@hmc1")
    debian.check("until hvpipe status | grep -q right=receive; do sleep 0.1; done")
    certificates = make_certificates(tmp_path)
    said = debian.send("-f", "--reply", *certificates)
    for path in certificates:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert f"{path}: stored, SHA-256 {digest}" in said and f"{path}: {digest}\n" in said
        assert debian.check(f"sha256sum </var/lib/hvpipe-listen/hmc1/{path.name}").split()[0] == digest
    # It goes and comes with the daemon.
    debian.check("systemctl kill --kill-whom=main -s KILL hvpiped; sleep 1; "
                 "until hvpipe status | grep -q right=receive; do sleep 0.1; done")
    debian.check("systemctl disable --now hvpipe-listen@hmc1")


def test_journal(debian):
    """After a boot and a few messages the journal has nothing of ours at level warning or above."""
    debian.boot()
    debian.hmc("echo")
    debian.check(f"echo hello | hvpipe send; {TAKE} -n 1")
    assert not debian.check("journalctl -b -q -o cat -p warning -u 'hvpipe*'")
    assert "hvpipe" not in debian.check("journalctl -b -q -p warning")


def test_packages(debian, tmp_path):
    """With messages that wait: upgrade, removal and reinstallation lose nothing; purging removes the spool."""
    files = message_files(tmp_path, 3)
    debian.send(files[0])
    debian.check(f"""set -e; cd {INSTALLED}; rm -rf /tmp/new; dpkg-deb -R hvpipe_*.deb /tmp/new
        sed -i 's/^Version: .*/&+1/' /tmp/new/DEBIAN/control; dpkg-deb -b /tmp/new /tmp/new.deb
        apt-get install -y /tmp/new.deb""")
    assert debian.check("systemctl is-active hvpiped").strip() == "active"
    debian.send(files[1])
    debian.check("apt-get remove -y hvpipe; ! systemctl is-active hvpiped")
    debian.check(f"apt-get install -y {INSTALLED}/hvpipe_*.deb; {ACTIVE}")
    debian.send(files[2])
    assert numbers_of(debian.run(f"{TAKE} -n 3").output) == [1, 2, 3]
    debian.check(f"""apt-get purge -y hvpipe; ! ls -d /var/lib/hvpipe || exit
        apt-get install -y {INSTALLED}/hvpipe_*.deb; {ACTIVE}""")


def test_python(debian):
    """The module of python3-hvpipe finds library and daemon, and works on the device without the daemon."""
    debian.hmc("echo")
    program = ("python3 -c 'import hvpipe\nwith hvpipe.{}(\"hmc1\") as pipe:\n pipe.send(b\"hello\")\n"
               " assert pipe.receive(30) == b\"hello\"'")
    debian.check(program.format("connect"))
    debian.check(f"systemctl stop hvpiped; {program.format('open')}; status=$?; systemctl start hvpiped; exit $status")


def test_no_device(debian):
    """Without a pipe nothing of ours starts, fails or waits in the boot."""
    with_pipe = debian.check("systemd-analyze time | head -n 1")
    debian.boot(hvpipe=False, sources=[])
    assert debian.run("systemctl is-active hvpiped").stdout.strip() == "inactive"
    assert not debian.check("systemctl --failed --no-legend")
    assert "hvpipe" not in debian.check("systemd-analyze critical-chain --no-pager; systemd-analyze blame")
    print(f"with a pipe: {with_pipe}without: {debian.check('systemd-analyze time | head -n 1')}")
