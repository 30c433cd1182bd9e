# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends of guest/race.c: the HMC that floods it, what resumes the partition, and the check of its account."""

import re
import threading
import zlib

from faults import console_hmc
from lab import LabError
from lab.options import seed_from_environment

SEED = seed_from_environment()


class Flood(threading.Thread):
    """An HMC that keeps sending numbered messages. When it has received one that ends in "ready" it sends the last."""

    def __init__(self, hmc):
        super().__init__(daemon=True)
        self.hmc = hmc
        self.count = 0
        self.start()

    def message(self, kind):
        """The next message, in the format of race.c."""
        size = 100 if self.count % 8 else 3000
        text = f" {4:08x} {kind} {self.count:08} ".encode() + bytes([97 + self.count % 26]) * size
        self.count += 1
        return b"%08x" % zlib.crc32(text) + text + b"\n"

    def run(self):
        """Send until told to stop."""
        try:
            while "ready" not in self.hmc.out.text:
                self.hmc.write(b"".join(self.message("H") for _ in range(20)))
            self.hmc.write(self.message("L"))
        except OSError:
            pass    # the HMC was ended: the test has failed already


class Waker(threading.Thread):
    """Resumes the partition whenever it suspends itself."""

    def __init__(self, partition):
        super().__init__(daemon=True)
        self.partition = partition
        self.count = 0
        self.start()

    def run(self):
        """Resume it until it ends."""
        try:
            while True:
                self.partition.hypervisor.wait_for(r"runstate_set .* new_state \d+ \(suspended\)",
                                                   count=self.count + 1, limit=600)
                self.count += 1
                self.partition.qmp.execute("system_wakeup")
        except (LabError, OSError):
            pass


def run_race(lab, pipe, operations, suspends=0):
    """Run race.c in PIPE's partition with a flood from hmc4; returns how many messages both sides received, and how
    many the driver dropped."""
    dropped = pipe.dropped()
    hmc = console_hmc(lab, pipe)
    flood = Flood(hmc)
    race = pipe.partition.run(f"exec race {SEED} {operations} {suspends} {dropped}", 300 + operations // 10)
    assert race.status == 0, f"with SEED={SEED}:\n{race.stdout}"
    flood.join()
    # How many were sent by hmc4, then to hmc1 ... hmc4: for sure, and unknown as the sender was killed.
    *sent, to_hmc4 = [tuple(map(int, pair)) for pair in re.findall(r"(\d+) and perhaps (\d+),", race.stdout)]
    received, dropped = map(int, re.search(r"received (\d+), dropped (\d+)", race.stdout).groups())
    assert len(sent) == 4
    sure = sum(count for count, _ in sent)
    assert sure <= received + dropped <= sure + sum(unknown for _, unknown in sent), race.stdout
    # hmc4 received each message once, and all that were sent for sure.
    got = re.findall(r"[0-9a-f]{8} 00000004 E (\d{8}) ", hmc.out.text)
    assert len(set(got)) == len(got) and to_hmc4[0] <= len(got) <= sum(to_hmc4)
    return received + len(got), dropped
