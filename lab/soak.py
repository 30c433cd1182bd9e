# SPDX-License-Identifier: GPL-2.0-or-later
"""Send messages through a partition and HMCs that are killed and restarted, and account for each message.

lab/traffic says who sends what and how each message is judged. Meanwhile peers in the partition pause, close and
reopen their handles and are killed, unless the driver, as the one that Linux ships, does not tell what it drops when a
handle is closed; HMCs are killed or terminated, and restarted. SEED=NUMBER repeats the random choices of a run.
"""

import argparse
import dataclasses
import time

from . import Lab, LabError
from .options import count, seed_from_environment
from .paths import LOGS
from .traffic import PROGRESS, Traffic


class Soak(Traffic):
    """One run."""

    name = "soak"

    def __init__(self, lab: Lab, messages: int, seed: int):
        super().__init__(lab, seed)
        self.messages = messages
        short = messages < 10000
        self.pause = 0.6 if short else 3.0
        self.close_mean = 60 if short else 400
        self.ahead = 30 if short else 300
        self.stalls = 0

    def disturb(self, quotas: list[int]):
        """Kill peers at random until everything is sent and either received or dropped."""
        shown = time.monotonic()
        count_shown = 0
        kill_next = shown + self.random.uniform(0.2, self.pause)
        settled = False
        while True:
            time.sleep(self.pause / 8)
            rows, dropped, arrived = self.look()
            now = time.monotonic()
            if now - shown >= PROGRESS:
                rate = (arrived + dropped - count_shown) / (now - shown)
                self.say(f"{arrived} messages received, {dropped} dropped, {rate:.0f}/s; HMCs killed "
                         f"{sum(hmc.kills for hmc in self.hmcs)} times and ended {sum(hmc.ends for hmc in self.hmcs)}, "
                         f"peers killed {sum(peer.kills for peer in self.peers)} times, handles reopened "
                         f"{sum(row.reopened for row in rows)}")
                shown, count_shown = now, arrived + dropped
            if all(row.sent >= quota for row, quota in zip(rows, quotas)):
                self.sent_all.set()
            if self.all_in:
                if settled and now - self.moved > 1:
                    return
                settled = True
            elif self.counts_drops and now > kill_next and not self.sent_all.is_set():
                self.random.choice(self.peers).kill()
                kill_next = now + self.random.uniform(0.2, self.pause)
            if self.stalled:
                self.stalls += 1
                self.say(f"stalled: {self.partition.check('hvpipe status')}")
                return

    def run(self):
        """Send and receive all messages; returns their account."""
        self.boot(smp=2)
        # A line of trace for each frame is too much for so many messages.
        self.partition.qmp.execute("trace-event-set-state", name="spapr_hvpipe_*", enable=False)
        share = self.messages // 8
        quotas = [self.messages - 7 * share, share, share, share]
        self.begin(share, quotas)
        self.disturb(quotas)
        for peer in self.peers:
            if self.stalls:     # it may never end by itself
                peer.running.kill()
            else:
                peer.stop()
        return self.account()


def add_arguments(parser: argparse.ArgumentParser):
    """The command line."""
    parser.add_argument("messages", nargs="?", type=count, default=100000, metavar="N",
                        help="send about N messages (default: %(default)s)")


def main(arguments: argparse.Namespace) -> int:
    """Run it; the last line says how it went."""
    seed = seed_from_environment()
    print(f"soak: {arguments.messages} messages, SEED={seed}", flush=True)
    try:
        with Lab() as lab:
            soak = Soak(lab, arguments.messages, seed)
            try:
                account = soak.run()
            finally:
                soak.close()
    except (LabError, OSError) as error:
        raise LabError(f"failed: {error}\nsoak: SEED={seed}; logs are in {LOGS}") from error
    print("soak: {sent} sent, {received} received, {dropped} dropped at close, {lost} lost, {duplicated} duplicated, "
          "{misrouted} misrouted, {stalls} stalls".format(**dataclasses.asdict(account), stalls=soak.stalls))
    return 1 if account.lost or account.duplicated or account.misrouted or soak.stalls else 0
