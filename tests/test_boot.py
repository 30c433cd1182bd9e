# SPDX-License-Identifier: GPL-2.0-or-later
"""Our kernel without the device, and an unpatched kernel with it; our kernel while nobody writes."""

import os
import re

import pytest

from lab import BUILD

SECONDS = int(os.environ.get("IDLE") or 2)
PERSONALITIES = ["", "announce-again=off", "empty-receive=-1", "empty-receive=-3", "payload-limit=4048",
                 "announce-delay-us=1000", "refuse-second-send=on", "strict=on"]
COMPLAINTS = re.compile(r"(?i)\b(oops|BUG:|WARNING: CPU|Call Trace|error|fail(ed|ure)?|unable)\b")


def complaints(text):
    """Lines of the kernel's log that report a problem."""
    return [line for line in text.splitlines() if COMPLAINTS.search(line)]


@pytest.fixture(scope="module")
def bare(lab):
    """Our kernel on a machine without the device: there is no property and no event source."""
    partition = lab.partition(name="bare", hvpipe=False)
    yield partition
    assert partition.poweroff() == 0


@pytest.fixture(scope="module")
def plain(lab):
    """An unpatched kernel under our hypervisor, with the device."""
    partition = lab.partition(name="plain", kernel="vmlinux-plain", sources=["hmc1"])
    yield partition
    assert partition.poweroff() == 0


def test_no_device_quiet(bare):
    """Without the property there is no device node, no interrupt handler, and no word of the driver in the log."""
    assert bare.run("ls /proc/device-tree/rtas/ibm,hypervisor-pipe-capable").status != 0
    assert bare.run("ls /dev/papr-hvpipe").status != 0
    assert "hvpipe" not in bare.check("cat /proc/misc /proc/interrupts")
    log = [line for line in bare.check("dmesg").splitlines() if not line.startswith("Linux version")]
    assert not [line for line in log if "hvpipe" in line.lower()]


def test_no_device_tool(bare):
    """On a machine without a pipe the tool exits with status 3 and names the device."""
    for command in ("status", "recv -n 1", "listen -x cat"):
        said = bare.run(f"hvpipe {command}")
        assert said.status == 3, command
        assert "/dev/papr-hvpipe" in said.stdout


def test_no_new_complaints(bare, plain):
    """Without the device our kernel logs no error at boot that an unpatched kernel does not log."""
    known = {re.sub(r"0x[0-9a-f]+|\d+", "N", line) for line in complaints(plain.check("dmesg"))}
    ours = {re.sub(r"0x[0-9a-f]+|\d+", "N", line) for line in complaints(bare.check("dmesg"))}
    assert ours <= known


def test_device_present(shared):
    """With the device there are the property, the node (for root only) and the event interrupt."""
    shared.check("ls /proc/device-tree/rtas/ibm,hypervisor-pipe-capable")
    shared.check("ls /proc/device-tree/event-sources/ibm,hvpipe-msg-events/interrupts")
    assert shared.check("stat -c '%A %u' /dev/papr-hvpipe").split() == ["crw-------", "0"]
    assert re.search("hvpipe", shared.check("cat /proc/interrupts"), re.I)


def test_unpatched_kernel(plain):
    """An unpatched kernel ignores the unknown property and event source, and works."""
    plain.check("ls /proc/device-tree/rtas/ibm,hypervisor-pipe-capable")
    assert plain.run("ls /dev/papr-hvpipe").status != 0
    assert "Call Trace" not in plain.console.text


def test_unpatched_kernel_pipe_off(lab, plain):
    """While the pipe is off an HMC may connect, is told that it is off, and does the partition no harm."""
    hmc = lab.hmc(plain, "hmc1", "echo")
    hmc.err.wait_for("the partition has its pipe disabled")
    assert plain.check("echo alive") == "alive\n"
    hmc.close()


@pytest.mark.parametrize("personality", PERSONALITIES if SECONDS > 5 else ["strict=on"])
def test_idle(lab, personality):
    """A partition that nobody writes to enables the pipe once and receives at most twice, whatever its firmware says.

    IDLE=60 counts for a minute after boot, under each personality, and adds to build/idle.md.
    """
    partition = lab.partition(name="idle", personality=personality, sources=["hmc1"])
    partition.check(f"sleep {SECONDS}")
    calls = {call: len(re.findall(rf"\bspapr_hvpipe_{call}\b", partition.hypervisor.text))
             for call in ("enable enabled 1", "send", "receive")}
    assert partition.poweroff() == 0
    if SECONDS > 5:
        with open(BUILD / "idle.md", "a", encoding="utf-8") as table:
            table.write(f"| `{personality or 'default'}` | {' | '.join(map(str, calls.values()))} |\n")
    assert calls["enable enabled 1"] == 1 and not calls["send"] and calls["receive"] <= 2
