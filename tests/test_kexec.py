# SPDX-License-Identifier: GPL-2.0-or-later
"""A second kernel takes the partition over while the pipe is in use: by kexec, and after a crash.

A kexec runs the reboot notifiers, so the driver disables the pipe; the processes stay as they are. A crash runs
nothing: it is the system reset by which an HMC has a partition dump itself, and the next kernel finds the pipe enabled
and a message announced. Either way that kernel has a pipe that works, has received what waited, and counts it as
dropped. What the first had received is gone with it. The steps that programs take are those of test_faults.
"""

import re
import shutil
import signal
import subprocess

import pytest

from lab import BUILD, KERNEL, SPLAT, initrd_with, source_id
from test_faults import STEPS, Pipe, console_hmc

HMC4 = f"{source_id('hmc4'):#010x}"
MEMORY = {"vmlinux": ("1G", "256M")}    # of the partition, and set aside for the kernel after a crash

KEXEC = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kexec.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

/* kexec {now|crash} KERNEL INITRAMFS COMMAND-LINE */
int main(int argc, char **argv)
{
    int kernel, initramfs, crash;

    if (argc != 5)
        return 2;
    crash = !strcmp(argv[1], "crash");
    kernel = open(argv[2], O_RDONLY);
    initramfs = open(argv[3], O_RDONLY);
    if (syscall(SYS_kexec_file_load, kernel, initramfs, strlen(argv[4]) + 1, argv[4],
                crash ? KEXEC_FILE_ON_CRASH : 0)) {
        perror("kexec_file_load");
        return 1;
    }
    if (crash)
        return 0;
    reboot(RB_KEXEC);
    perror("reboot");
    return 1;
}
"""


@pytest.fixture(scope="module")
def initrd(lab):
    """An initramfs with a second kernel, and with the initramfs of that."""
    place = lab.scratch("kexec")
    subprocess.run(["powerpc64le-linux-gnu-strip", "-o", place / "vmlinux", BUILD / KERNEL], check=True)
    second = initrd_with(place, "steps", STEPS)
    yield initrd_with(place, "kexec", KEXEC, files=[place / "vmlinux", second], initrd=second)
    shutil.rmtree(place)


class Successor(Pipe):
    """A partition that goes over to another kernel."""

    def __init__(self, lab, way, case, initrd):
        memory, reserved = MEMORY.get(KERNEL, ("2G", "768M"))
        super().__init__(lab, f"{way}-{case}", options=["-initrd", initrd, "-m", memory], smp=2,
                         append=f"crashkernel={reserved}" if way == "crash" else "")
        self.way = way
        self.kexec = "/vmlinux /initrd-steps 'console=hvc0 rdinit=/init'"
        if way == "crash":
            self.partition.check(f"kexec crash {self.kexec}")

    def take_over(self):
        """Leave the kernel for its successor; returns when that one has booted."""
        mark = self.partition.hypervisor.size
        if self.way == "crash":
            self.partition.qmp.execute("inject-nmi")
        else:
            self.partition.start(f"exec kexec now {self.kexec}")
        self.partition.wait_booted()
        self.partition.check("mkfifo /tmp/meet /tmp/met")
        said = self.partition.hypervisor.since(mark)
        assert re.findall("hvpipe_enable enabled (.)", said) == (["1"] if self.way == "crash" else ["0", "1"])


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
    pipe.partition.hypervisor.wait_for(rf"frame_out source {HMC4} type 2 length 0 sequence 2\s")
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
    """A send waits for an HMC that takes nothing. That HMC gets the message once, and then the next kernel's."""
    hmc = lab.hmc(pipe.partition, "hmc4", "recv", "-n", "2")
    hmc.err.wait_for("connected to")
    hmc.signal(signal.SIGSTOP)
    pipe.partition.start("printf late | hvpipe -s hmc4 send")
    pipe.partition.hypervisor.wait_for(rf"hvpipe_send source {HMC4} size 4 status 9900\s")
    pipe.take_over()
    # The others work, though that HMC takes nothing yet.
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
@pytest.mark.parametrize("way", ["kexec", "crash"])
def test_the_next_kernel_has_a_pipe_that_works(lab, initrd, way, leave):
    """Every source, both ways; nothing is read that was for the kernel before; what waited was dropped and counted."""
    pipe = Successor(lab, way, leave.__name__[len("leave_"):], initrd)
    leave(pipe, lab)
    lab.tidy()
    pipe.check_works()
    assert pipe.dropped() == pipe.drops
    assert not SPLAT.search(pipe.partition.console.text)
    pipe.close()
