# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything at once, on 2 and 4 CPUs: tests/race.c in the partition, which tells how each message is judged.

hmc1 and hmc2 are answered by the hypervisor, hmc3 is an HMC that echoes, hmc4 one that sends as fast as it can. The
partition is suspended and resumed meanwhile.

RACES=NUMBER  that many operations instead of a few thousand      SEED=NUMBER  the random choices' beginning
"""

import os
import random
import re
import threading
import zlib

import pytest

from lab import SPLAT, initrd_with, LabError, TOP
from test_faults import STEPS, Pipe, console_hmc

OPERATIONS = int(os.environ.get("RACES") or 8000)
SEED = int(os.environ.get("SEED") or random.randrange(2 ** 32))
SUSPENDS = 3 * max(1, OPERATIONS // 8000)


class Flood(threading.Thread):
    """An HMC that sends numbered messages all the time, the last one when it was sent one that ends in "ready"."""

    def __init__(self, hmc):
        super().__init__(daemon=True)
        self.hmc = hmc
        self.count = 0
        self.start()

    def message(self, kind):
        """The next message, as race.c knows it."""
        size = 100 if self.count % 8 else 3000
        text = f" {4:08x} {kind} {self.count:08} ".encode() + bytes([97 + self.count % 26]) * size
        self.count += 1
        return b"%08x" % zlib.crc32(text) + text + b"\n"

    def run(self):
        """Until told that it is enough."""
        try:
            while "ready" not in self.hmc.out.text:
                self.hmc.write(b"".join(self.message("H") for _ in range(20)))
            self.hmc.write(self.message("L"))
        except OSError:
            pass    # the HMC was ended: the test has failed already


class Waker(threading.Thread):
    """Wakes the partition whenever it suspends itself."""

    def __init__(self, partition):
        super().__init__(daemon=True)
        self.partition = partition
        self.count = 0
        self.start()

    def run(self):
        """Until the partition ends."""
        try:
            while True:
                self.partition.hypervisor.wait_for(r"runstate_set .* new_state \d+ \(suspended\)",
                                                   count=self.count + 1, limit=600)
                self.count += 1
                self.partition.qmp.execute("system_wakeup")
        except (LabError, OSError):
            pass


def run_race(lab, pipe, operations, suspends=0):
    """Run race.c in PIPE's partition with hmc4 at its other end; returns how many messages were received by either
    side, and how many the driver dropped."""
    dropped = pipe.dropped()
    hmc = console_hmc(lab, pipe)
    flood = Flood(hmc)
    race = pipe.partition.run(f"exec race {SEED} {operations} {suspends} {dropped}", 300 + operations // 10)
    assert race.status == 0, f"with SEED={SEED}:\n{race.stdout}"
    flood.join()
    # How many were sent by hmc4, then to hmc1 ... hmc4: for sure, and by who was killed before being told.
    *sent, to_hmc4 = [tuple(map(int, pair)) for pair in re.findall(r"(\d+) and perhaps (\d+),", race.stdout)]
    received, dropped = map(int, re.search(r"received (\d+), dropped (\d+)", race.stdout).groups())
    assert len(sent) == 4
    sure = sum(one for one, _ in sent)
    assert sure <= received + dropped <= sure + sum(perhaps for _, perhaps in sent), race.stdout
    # What came to hmc4 was sent once, and nothing that was sent for sure is missing.
    got = re.findall(r"[0-9a-f]{8} 00000004 E (\d{8}) ", hmc.out.text)
    assert len(set(got)) == len(got) and to_hmc4[0] <= len(got) <= sum(to_hmc4)
    return received + len(got), dropped


# With as many CPUs: the kernel's command line, and what firmware does wrong.
CASES = {2: ("", "receive:status=-1,every=20,count=0"), 4: ("papr_hvpipe.hold_after_ms=1", "")}


@pytest.mark.parametrize("cpus", CASES)
def test_nothing_is_lost_doubled_misrouted_or_stuck(lab, cpus, record_property):
    """Threads create, close, read, write, poll, duplicate and pass on, processes die; each message is accounted for,
    and who sleeps for one is woken."""
    append, faults = CASES[cpus]
    place = lab.scratch("race")
    initrd = initrd_with(place, "steps", STEPS)
    initrd = initrd_with(place, "race", (TOP / "tests/race.c").read_text(encoding="utf-8"), initrd=initrd)
    pipe = Pipe(lab, f"races-{cpus}", options=["-initrd", initrd, "-trace", "runstate_set"], smp=cpus, append=append)
    waker = Waker(pipe.partition)
    pipe.inject(faults)
    received, dropped = run_race(lab, pipe, OPERATIONS, SUSPENDS)
    # What a program sent that was killed before it was told so is one of these, or was not sent.
    record_property("messages", {"sent": received + dropped, "received": received, "dropped at close": dropped})
    assert 0 < waker.count <= SUSPENDS  # none when all is over

    lab.tidy()
    pipe.inject("")
    pipe.check_works()
    assert not SPLAT.search(pipe.partition.console.text)
    pipe.close()
