# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's allocations, and its copies from and to user space, fail one after the other.

For each operation the 1st allocation or copy fails, then the 2nd, until the operation succeeds without a failure. The
step `failN` before an operation makes the Nth fail. The result of a step in which something failed ends in "!"; if the
step returned the failure, it follows again and must work as if nothing had happened. Needs a kernel with fault
injection: `make test KERNEL=vmlinux-debug`. faults.py explains the other steps, and the proof after each test.
"""

import re
import time

import pytest

from faults import Pipe, switches
from lab import BUILD, KERNEL
from races import run_race

CONFIG = (BUILD / KERNEL).resolve().parent / "config"
pytestmark = pytest.mark.skipif(not CONFIG.exists() or "CONFIG_FAILSLAB=y" not in CONFIG.read_text(encoding="utf-8"),
                                reason=f"{KERNEL} cannot inject faults; KERNEL=vmlinux-debug can")
DEBUG = "/sys/kernel/debug"
CACHE = "/sys/kernel/slab/hvpipe_msg"  # the driver's buffers for messages


@pytest.fixture(scope="module")
def machine(lab):
    """A partition for all tests here."""
    pipe = Pipe(lab, "failslab", programs=["guest/race"], options=["-trace", "runstate_set"], smp=2)
    # Allocations that may wait for memory fail, too; and failures are not reported by a stack trace.
    pipe.partition.check(f"cd {DEBUG}; echo N >failslab/ignore-gfp-wait; echo 0 >failslab/verbose; "
                         "echo 0 >fail_usercopy/verbose")
    yield pipe
    pipe.close()


PLACES = 24     # to fail in an operation; more than any has

# Operation: its possible errors; the messages that each run drops; the steps, with places for `failN` and the run's
# number
OPERATIONS = {
    "create": ("ENOMEM EFAULT", 0, "{fail} open1 write1 take1=1.{n} close1"),
    "write": ("", 0, "open1 {fail} write1 take1=1.{n} read1=nothing close1"),
    "write what is paged out": ("", 0, "open1 {fail} fresh1 take1=1.{n} read1=nothing close1"),
    "read": ("", 0, "open1 write1 poll1=in,out {fail} read1=1.{n} read1=nothing close1"),
    "read with another held": ("ENOMEM", 0, "open1 open2 write1 poll1=in,out short1=EMSGSIZE write2 poll2=in,out "
                               "{fail} read2=2.{n} read1=1.{n} read2=nothing read1=nothing close2 close1"),
    "read a short buffer": ("ENOMEM", 0, "open1 open2 write1 poll1=in,out short1=EMSGSIZE write2 poll2=in,out "
                            "{fail} short2=EMSGSIZE read2=2.{n} read1=1.{n} read1=nothing close2 close1"),
    "read what is held": ("", 0, "open1 write1 poll1=in,out short1=EMSGSIZE {fail} read1=1.{n} read1=nothing "
                          "close1"),
    "close with another held": ("", 2, "open1 open2 write1 poll1=in,out short1=EMSGSIZE write2 poll2=in,out {fail} "
                                "close2 close1 open3 write3 take3=3.{n} close3"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_failure(pipe, operation):
    """Each failure gives an expected errno or goes unnoticed. The call succeeds when repeated; no message is lost or
    doubled."""
    errors, drops, steps = OPERATIONS[operation]
    asked = " ".join(steps.format(fail=f"fail{n}", n=n) for n in range(1, PLACES + 1))
    pipe.drops = drops * PLACES
    said = pipe.run(asked)
    assert re.sub(r"\w+=(ENOMEM|EFAULT)! ", "", said).replace("!", "") == asked, said
    assert set(re.findall(r"=(\w+)!", said)) - {"EMSGSIZE"} == set(errors.split()), said
    # The first failed, and in the last run there was nothing left to fail.
    assert "!" in said.partition("fail2 ")[0] and "!" not in said.rpartition("fail")[2], said


# The failures to try in a suspension, which has hundreds of places: all at the beginning, ever fewer of the rest
SLEEP_PLACES = [*range(1, 20), *(int(20 * 1.25**k) for k in range(20))]


def test_each_failure_in_suspend(pipe):
    """A failure may cancel the suspension. After each the pipe is on, and pending messages are read once."""
    asked = "open1 open2 write1 poll1=in,out short1=EMSGSIZE write2 poll2=in,out "
    asked += "".join(f"fail{n} sleep " for n in SLEEP_PLACES)
    asked += "ready1 read1=1.1 read1=nothing take2=2.1 read2=nothing close1 close2"
    mark, woken = pipe.partition.hypervisor.size, 0
    sleeper = pipe.start(asked)
    while sleeper.running:
        said = pipe.partition.hypervisor.since(mark)
        if len(re.findall(r"runstate_set .* new_state \d+ \(suspended\)", said)) > woken:
            woken += 1
            pipe.partition.qmp.execute("system_wakeup")
        time.sleep(0.05)
    said = sleeper.check()
    assert re.sub(r"sleep=\w+! ", "", said).replace("!", "") == asked, said
    assert "!" in said.partition("fail2 ")[0] and "!" not in said.rpartition("fail")[2], said
    assert re.fullmatch("(01)*", switches(pipe, mark))


def fail_in_cache(pipe, percent):
    """Make PERCENT of the allocations of message buffers fail, in all tasks; 0: none."""
    pipe.partition.check(f"echo {int(percent > 0)} >{CACHE}/failslab && cd {DEBUG}/failslab && echo Y >cache-filter && "
                         f"echo -1 >times && echo {percent} >probability")


def test_no_memory(pipe):
    """Without memory reads fail with ENOMEM, and the work after a close is retried. With memory all continues; nothing
    is lost."""
    steps = ("open1 open2 open3 write1 poll1=in,out short1=EMSGSIZE meet write2 poll2=in,out read2=ENOMEM "
             "short2=ENOMEM read2=ENOMEM write3 now3=out close2 meet take3=3.1 read1=1.1 read1=nothing read3=nothing "
             "close1 close3")
    waiting = pipe.start(steps)
    # The first message took the spare buffer.
    fail_in_cache(pipe, 100)
    pipe.meet()
    fail_in_cache(pipe, 0)
    pipe.meet()
    pipe.drops = 1
    assert waiting.check() == steps


def test_races_without_memory(lab, pipe):
    """The operations of test_races while a third of the allocations fail: each message is accounted for."""
    fail_in_cache(pipe, 30)
    _, pipe.drops = run_race(lab, pipe, 4000)
    fail_in_cache(pipe, 0)
