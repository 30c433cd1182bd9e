# SPDX-License-Identifier: GPL-2.0-or-later
"""The parties without each other: each must leave the other as it was."""

import re

import pytest

COMPLAINTS = re.compile(r"(?i)\b(oops|BUG:|WARNING: CPU|Call Trace|error|fail(ed|ure)?|unable)\b")


def complaints(text):
    """Lines of the kernel's log that somebody would have to look at."""
    return [line for line in text.splitlines() if COMPLAINTS.search(line)]


@pytest.fixture(scope="module")
def bare(lab):
    """Our kernel on a machine without the device: there is no property, no event source."""
    partition = lab.partition(name="bare", hvpipe=False)
    yield partition
    assert partition.poweroff() == 0


@pytest.fixture(scope="module")
def plain(lab):
    """An unpatched kernel under our hypervisor, with the device."""
    partition = lab.partition(name="plain", kernel="vmlinux-plain", sources=["hmc1"])
    yield partition
    assert partition.poweroff() == 0


def test_without_the_device_the_driver_is_quiet(bare):
    """No property: no device node, no handler, not a word in the log."""
    assert bare.run("ls /proc/device-tree/rtas/ibm,hypervisor-pipe-capable").status != 0
    assert bare.run("ls /dev/papr-hvpipe").status != 0
    assert "hvpipe" not in bare.check("cat /proc/misc /proc/interrupts")
    log = [line for line in bare.check("dmesg").splitlines() if not line.startswith("Linux version")]
    assert not [line for line in log if "hvpipe" in line.lower()]


def test_without_the_device_the_tool_says_so(bare):
    """The tool's status and words for a machine that has no pipe."""
    for command in ("status", "recv -n 1", "listen -x cat"):
        said = bare.run(f"hvpipe {command}")
        assert said.status == 3, command
        assert "/dev/papr-hvpipe" in said.stdout


def test_our_kernel_complains_no_more_than_an_unpatched_one(bare, plain):
    """What the kernel says at boot on a machine without the device, beside what an unpatched one says."""
    known = {re.sub(r"0x[0-9a-f]+|\d+", "N", line) for line in complaints(plain.check("dmesg"))}
    ours = {re.sub(r"0x[0-9a-f]+|\d+", "N", line) for line in complaints(bare.check("dmesg"))}
    assert ours <= known


def test_with_the_device_the_driver_is_there(shared):
    """The property, the node (for root only), the event interrupt."""
    shared.check("ls /proc/device-tree/rtas/ibm,hypervisor-pipe-capable")
    shared.check("ls /proc/device-tree/event-sources/ibm,hvpipe-msg-events/interrupts")
    assert shared.check("stat -c '%A %u' /dev/papr-hvpipe").split() == ["crw-------", "0"]
    assert re.search("hvpipe", shared.check("cat /proc/interrupts"), re.I)


def test_an_unpatched_kernel_boots(plain):
    """It finds a property and an event source that it does not know, and works as before."""
    plain.check("ls /proc/device-tree/rtas/ibm,hypervisor-pipe-capable")
    assert plain.run("ls /dev/papr-hvpipe").status != 0
    assert "Call Trace" not in plain.console.text


def test_an_unpatched_kernel_leaves_the_pipe_off(lab, plain):
    """Nobody enabled the pipe: an HMC may connect, is told so, and does the partition no harm."""
    hmc = lab.hmc(plain, "hmc1", "echo")
    hmc.err.wait_for("the partition has its pipe disabled")
    assert plain.check("echo alive") == "alive\n"
    hmc.close()
