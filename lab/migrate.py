# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrate a partition back and forth between two machines under traffic, and account for each message.

lab/traffic says who sends what and how each message is judged. Here nothing is killed and no handle is closed, so a
message that the driver drops is lost. The partition is suspended by its own kernel and carried to another QEMU process,
and the HMCs find it there. Between two moves, messages must have passed both ways for every source. SEED=NUMBER repeats
the random choices of a run.

The times shown are for information; nothing depends on them. The pipe is off from the moment when the partition
disables it until it has enabled it on the other machine.
"""

import argparse
import statistics
import sys
import time
from typing import NamedTuple

from . import Lab, LabError
from .options import count, seed_from_environment
from .paths import LOGS
from .traffic import PROGRESS, Traffic

FLOW = 10       # messages each way for each source between two moves


class MoveTimes(NamedTuple):
    """How long the parts of a move took, in seconds."""
    off: float          # the pipe, all in all
    suspend: float      # until the partition slept
    carry: float        # until it ran on the other machine
    enable: float       # until the pipe was enabled there
    reconnect: float    # and from then until all HMCs were connected


class Migrate(Traffic):
    """One run."""

    name = "migrate"

    def __init__(self, lab: Lab, cycles: int, seed: int):
        super().__init__(lab, seed)
        self.cycles = cycles
        self.times: list[MoveTimes] = []
        self.shown = self.start

    @staticmethod
    def trace(machine):
        """Have MACHINE trace what move() times, and not each frame."""
        for events, enable in (("spapr_hvpipe_*", False), ("spapr_hvpipe_enable", True), ("spapr_hvpipe_link", True)):
            machine.qmp.execute("trace-event-set-state", name=events, enable=enable)

    def flow(self, done: int):
        """Wait until messages have passed both ways for every source."""
        before = None
        while True:
            rows, dropped, arrived = self.look()
            before = before or rows
            if time.monotonic() - self.shown >= PROGRESS:
                self.shown = time.monotonic()
                self.say(f"{done} of {self.cycles} moves, {arrived} messages received, {dropped} dropped")
            if all(now.sent >= then.sent + FLOW and now.received >= then.received + FLOW
                   for now, then in zip(rows, before)):
                return
            if self.stalled:
                raise LabError(f"no message arrived for a minute: {self.partition.check('hvpipe status')}")
            time.sleep(0.05)

    def move(self):
        """Move the partition once."""
        here = self.partition.machine
        mark = here.hypervisor.size
        target = self.partition.target()
        self.trace(target)
        going = self.partition.sleep()
        self.partition.wait_asleep()
        self.partition.carry(target)
        going.check()

        def when(machine, pattern, since=0, count=1):
            return float(machine.hypervisor.wait_for(rf"@([\d.]+):{pattern}", since=since, count=count)[1])
        off = when(here, "spapr_hvpipe_enable enabled 0", mark)
        asleep = when(here, r"runstate_set .* new_state \d+ \(suspended\)", mark)
        there = when(target, r"runstate_set .* new_state \d+ \(running\)")
        enabled = when(target, "spapr_hvpipe_enable enabled 1")
        connected = max(enabled, when(target, r"spapr_hvpipe_link source \S+ up", count=3))
        self.times.append(MoveTimes(enabled - off, asleep - off, there - asleep, enabled - there, connected - enabled))

    def run(self):
        """Move as often as asked; returns the account of the messages."""
        self.boot(smp=2, memory="512M", options=["-msg", "timestamp=on", "-trace", "runstate_set"])
        self.trace(self.partition.machine)
        self.begin(sys.maxsize, [2 ** 32 - 1] * 4)
        for done in range(self.cycles):
            self.flow(done)
            self.move()
        self.flow(self.cycles)
        for hmc in self.hmcs[:2]:
            hmc.quota = 0
        for peer in self.peers:
            peer.stop_sending()
        self.settle()
        for peer in self.peers:
            peer.stop()
        return self.account()

    def settle(self):
        """Wait until everything that was sent has arrived."""
        while time.monotonic() - self.moved < 1 or not self.all_in:
            self.look()
            if time.monotonic() - self.moved > 1:   # peers no longer send
                self.sent_all.set()
            if self.stalled:
                self.say("stalled: " + self.partition.check("hvpipe status"))
                return
            time.sleep(0.2)

    def show_times(self):
        """Say how long each part of a move took."""
        if not self.times:
            return

        def of(seconds):
            return f"median {statistics.median(seconds) * 1000:.0f} ms, longest {max(seconds) * 1000:.0f} ms"
        times = MoveTimes(*zip(*self.times))
        self.say(f"the pipe was off: {of(times.off)} in {len(self.times)} moves")
        self.say(f"    until the partition slept: {of(times.suspend)}; carried: {of(times.carry)}; "
                 f"until enabled: {of(times.enable)}")
        self.say(f"    and then until all HMCs were connected: {of(times.reconnect)}")


def add_arguments(parser: argparse.ArgumentParser):
    """The command line."""
    parser.add_argument("cycles", nargs="?", type=count, default=5, metavar="CYCLES",
                        help="how many moves (default: %(default)s)")


def main(arguments: argparse.Namespace) -> int:
    """Run it; the last two lines say how it went."""
    seed = seed_from_environment()
    cycles = arguments.cycles
    print(f"migrate: {cycles} moves, SEED={seed}", flush=True)
    try:
        with Lab() as lab:
            migrate = Migrate(lab, cycles, seed)
            try:
                account = migrate.run()
                migrate.show_times()
            finally:
                migrate.close()
    except (LabError, OSError) as error:
        raise LabError(f"failed: {error}\nmigrate: SEED={seed}; logs are in {LOGS}") from error
    print(f"migrate: {account.sent} sent, {account.received} received, {account.dropped} dropped, {account.lost} lost")
    lost = account.lost + account.dropped
    print(f"migrate: {cycles} cycles, {account.sent} messages, {lost} lost, {account.duplicated} duplicated, "
          f"{account.misrouted} misrouted")
    return 1 if lost or account.duplicated or account.misrouted else 0
