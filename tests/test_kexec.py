# SPDX-License-Identifier: GPL-2.0-or-later
"""A second kernel takes over the partition while the pipe is in use: by kexec, and after a crash.

A kexec calls the driver's reboot notifier, which disables the pipe; the processes stay as they are. The pipe works in
the next kernel, which has received the pending messages and counts them as dropped. Messages that the first kernel had
received are gone with it. A crash calls nothing: it is the system reset by which an HMC has a partition dump itself.
The crash kernel leaves the pipe as it is. faults.py explains the steps.
"""

import re
import shutil
import signal
import subprocess

import pytest

from faults import HMC4, Pipe, console_hmc
from lab import BUILD, KERNEL, SPLAT, initramfs_with

MEMORY = {"vmlinux": ("1G", "256M")}    # of the partition, and reserved for the kernel after a crash


@pytest.fixture(scope="module")
def files(lab):
    """For the initramfs: a second kernel and its own initramfs."""
    place = lab.scratch("kexec")
    subprocess.run(["powerpc64le-linux-gnu-strip", "-o", place / "vmlinux", BUILD / KERNEL], check=True)
    yield {"vmlinux": place / "vmlinux", "initramfs": initramfs_with(place / "initramfs", ["guest/steps"])}
    shutil.rmtree(place)


class Successor(Pipe):
    """A partition that another kernel takes over."""

    def __init__(self, lab, way, case, files):
        memory, reserved = MEMORY.get(KERNEL, ("2G", "768M"))
        super().__init__(lab, f"{way}-{case}", programs=["guest/kexec"], files=files, memory=memory, smp=2,
                         append=f"crashkernel={reserved}" if way == "crash" else "")
        self.way = way
        self.kexec = "/vmlinux /initramfs 'console=hvc0 rdinit=/init'"
        if way == "crash":
            self.partition.check(f"kexec crash {self.kexec}")

    def take_over(self):
        """Start the other kernel; returns when it has booted."""
        mark = self.partition.hypervisor.size
        if self.way == "crash":
            self.partition.qmp.execute("inject-nmi")
        else:
            self.partition.start(f"exec kexec now {self.kexec}")
        self.partition.wait_booted()
        self.prepare()
        said = self.partition.hypervisor.since(mark)
        assert re.findall("hvpipe_enable enabled (.)", said) == ([] if self.way == "crash" else ["0", "1"])
        return mark


def leave_announced(pipe, lab):
    """A message was announced and not received, and two of another source wait behind it."""
    pipe.start("open1 open2 open3 open4 write1 poll1 meet meet")
    pipe.meet()
    hmc = console_hmc(lab, pipe)
    hmc.write(b"one\ntwo\n")
    pipe.partition.hypervisor.wait_for(rf"frame_in source {HMC4} type 1 length \d+ sequence 2\s")
    pipe.take_over()
    pipe.drops = 3
    # The HMC is told that its messages were received, and goes on.
    pipe.partition.hypervisor.wait_for(rf"frame_out source {HMC4} type 2 length 8 sequence 2\s")
    steps = "open4 meet take4=three close4"
    reader = pipe.start(steps)
    pipe.meet()
    hmc.write(b"three\n")
    assert reader.check() == steps


def leave_held(pipe, lab):
    """Handles hold messages which their programs have not read."""
    pipe.start("open1 open2 write1 write2 poll1 short1 poll2 short2 meet meet")
    pipe.meet()
    pipe.take_over()


def leave_sending(pipe, lab):
    """A send waits for a stalled HMC, which gets that message once, and then the next kernel's."""
    hmc = lab.hmc(pipe.partition, "hmc4", "recv", "-n", "2")
    hmc.err.wait_for("connected to")
    hmc.signal(signal.SIGSTOP)
    pipe.partition.start("printf late | hvpipe -s hmc4 send")
    pipe.partition.hypervisor.wait_for(rf"hvpipe_send source {HMC4} size 4 status 9900\s")
    pipe.take_over()
    # The others work while that HMC is stalled.
    steps = "open1 open3 write1 take1=1.1 write3 take3=3.1 close1 close3"
    assert pipe.run(steps) == steps
    hmc.signal(signal.SIGCONT)
    pipe.partition.check("printf next | hvpipe -s hmc4 send")
    assert hmc.check() == "latenext"


def leave_receiving(pipe, lab):
    """A read waits for firmware that is busy, and so does the next kernel at its boot."""
    mark = pipe.partition.hypervisor.size
    pipe.inject("receive:status=9900,count=0")
    pipe.start("open1 write1 poll1 read1")
    pipe.wait_struck("receive", mark, 3)
    pipe.take_over()
    pipe.drops = 1
    mark = pipe.partition.hypervisor.size
    pipe.wait_struck("receive", mark)
    pipe.inject("")


@pytest.mark.parametrize("leave", [leave_announced, leave_held, leave_sending, leave_receiving])
def test_next_kernel(lab, files, leave):
    """In the next kernel every source works both ways, reads nothing of the old kernel's, and pending messages are
    counted as dropped."""
    pipe = Successor(lab, "kexec", leave.__name__[len("leave_"):], files)
    leave(pipe, lab)
    lab.tidy()
    pipe.check_works()
    assert pipe.dropped() == pipe.drops
    assert not SPLAT.search(pipe.partition.console.text)
    pipe.close()


def test_crash_kernel(lab, files):
    """A crash kernel has no device and makes no call: pending messages are not received, and so not acknowledged."""
    pipe = Successor(lab, "crash", "alone", files)
    pipe.start("open1 open2 open3 open4 write1 poll1 meet meet")
    pipe.meet()
    hmc = console_hmc(lab, pipe)
    hmc.write(b"one\n")
    pipe.partition.hypervisor.wait_for(rf"frame_in source {HMC4} type 1 length \d+ sequence 1\s")
    mark = pipe.take_over()
    assert "not used by a crash kernel" in pipe.partition.check("dmesg")
    pipe.partition.check("test ! -e /dev/papr-hvpipe")
    assert not re.search("hvpipe_(receive|send|enable) ", pipe.partition.hypervisor.since(mark))
    lab.tidy()
    assert not SPLAT.search(pipe.partition.console.text)
    assert pipe.partition.poweroff() == 0
    pipe.echo.close()
