# SPDX-License-Identifier: GPL-2.0-or-later
"""A run of traffic on a partition of its own, and the account of its messages."""

import random
import re
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .. import SPLAT, Lab, LabError, source_id
from .parties import Echo, Peer, Talker

STALL = 60          # seconds without progress
TRACE = "/sys/kernel/tracing"
DROP = "papr_hvpipe_drop"
DROPS_KB = 8192     # of trace for each processor: 300,000 dropped messages; a run of a million drops some 15,000


class PeerStatus(NamedTuple):
    """What soak-peer counts, in the order in which it prints it."""
    sent: int           # for sure
    unknown: int        # sends cut off by a kill
    received: int
    bad: int
    reopened: int
    refused: int        # sends that failed with EPIPE
    losses: int         # lost connections that were reported
    recovered: int      # received before a kill, counted after it
    runs: int
    suspended: int      # sends that failed with ENXIO
    repeated: int       # messages that arrived again, as a send in doubt may


@dataclass
class Account:
    """How many messages were judged how; see the package. A message counts once, its repeats apart."""
    sent: int = 0
    received: int = 0
    dropped: int = 0
    lost: int = 0
    duplicated: int = 0
    misrouted: int = 0
    doubts: int = 0         # sends that failed and may have been taken all the same
    repeated: int = 0       # messages in doubt that arrived again


def count_numbers(ranges) -> int:
    """How many numbers RANGES contain."""
    return sum(last - first + 1 for first, last in ranges)


class Traffic:
    """One run on a partition of its own."""

    name = "traffic"
    pause = None        # seconds between restarts of an HMC, on average; None: it is never restarted
    close_mean = 0      # messages between closes of a handle, on average; 0: it stays open
    ahead = 300         # an HMC types at most this many more messages than it has received

    def __init__(self, lab: Lab, seed: int):
        self.lab, self.seed = lab, seed
        self.random = random.Random(f"{seed} soak")
        self.key = self.random.getrandbits(64)
        self.start = time.monotonic()
        # State files need not survive a power failure here, and memory is faster than a disk.
        memory = Path("/dev/shm")
        self.scratch = Path(tempfile.mkdtemp(prefix="hvpipe-", dir=memory if memory.is_dir() else lab.directory))
        self.sent_all = threading.Event()
        self.hmcs, self.peers = [], []
        self.partition = None
        self.counts_drops = True    # whether the driver tells what it drops
        self.progress = -1
        self.moved = self.start     # the time of the last progress

    def say(self, text: str):
        """Print a line of progress."""
        print(f"{self.name}: [{time.monotonic() - self.start:5.1f} s] {text}", flush=True)

    def boot(self, **how):
        """Start the partition, and the trace of dropped messages before anything is sent."""
        self.partition = self.lab.partition(name=self.name, sources=["hmc1", "hmc2", "hmc3"], echo=["hmc4"],
                                            programs=["guest/soak-peer"], **how)
        self.counts_drops = not self.partition.run(f"test -d {TRACE}/events/papr_hvpipe").status
        if self.counts_drops:
            self.partition.check(f"cd {TRACE} && echo {DROPS_KB} >buffer_size_kb && "
                                 f"echo 1 >events/papr_hvpipe/{DROP}/enable")
        else:
            self.say("the driver does not tell what it drops at close: no handle is closed and no peer killed")
            self.close_mean = 0
        self.say(f"partition up; SEED={self.seed}")

    def begin(self, to_partition: int, to_sources: list[int]):
        """Start the peers, which send TO_SOURCES messages, and the HMCs; hmc1 and hmc2 send TO_PARTITION each."""
        self.peers = [Peer(self, f"hmc{n}", quota, n > 2) for n, quota in enumerate(to_sources, 1)]
        self.partition.check("until [ $(ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c 'papr-hvpipe]') = 4 ]; do :; done")
        self.hmcs = [Talker(self, "hmc1", to_partition), Talker(self, "hmc2", to_partition), Echo(self, "hmc3")]
        for hmc in self.hmcs:
            hmc.thread.start()
        self.moved = time.monotonic()

    def wait_end(self, hmc):
        """Wait until an HMC whose input has ended succeeds. There is no limit: the main thread looks for stalls."""
        if hmc.process.wait() != 0:
            raise LabError(f"{hmc.source}: ended with status {hmc.process.returncode}:\n{hmc.err.text[-2000:]}")
        hmc.err.wait_end()

    def status(self) -> tuple[list[PeerStatus], int]:
        """The status of each peer, and how many messages the driver dropped as far as it tells."""
        text = self.partition.check("soak-peer status " + " ".join(peer.file for peer in self.peers)
                                    + " && hvpipe status")
        rows = [PeerStatus(*map(int, line.split())) for line in text.splitlines()[:len(self.peers)]]
        return rows, int(re.search(r"(\d+) messages dropped", text)[1]) if self.counts_drops else 0

    def drops(self) -> dict[int, int]:
        """How many messages of each source the driver dropped, from its trace."""
        if not self.counts_drops:
            return {}
        text = self.partition.check(
            f"cd {TRACE} && hvpipe status && cat per_cpu/cpu*/stats && "
            f"awk '/{DROP}: / {{ n[$(NF - 1)]++ }} END {{ for (of in n) print of, n[of] }}' trace && hvpipe status")
        before, after = (int(count) for count in re.findall(r"(\d+) messages dropped", text))
        drops = {int(source, 16): int(count) for source, count in re.findall(r"^source=(\w+) (\d+)$", text, re.M)}
        if re.search(r"^(commit )?overrun: *[1-9]|^dropped events: *[1-9]", text, re.M):
            raise LabError(f"the partition's trace has lost events, increase DROPS_KB={DROPS_KB}:\n{text}")
        # Messages may be dropped between the two counts.
        if not before <= sum(drops.values()) <= after:
            raise LabError(f"the driver counts {before} messages dropped, then {after}, but traced {drops}")
        if drops.keys() - {source_id(peer.source) for peer in self.peers}:
            raise LabError(f"the driver dropped messages of sources that this run does not have: {drops}")
        return drops

    def look(self) -> tuple[list[PeerStatus], int, int]:
        """Fail if a party has failed; returns status(), and how many messages were received on both sides."""
        for peer in self.peers:
            if not peer.running.running:
                raise LabError(f"the peer on {peer.source} ended with status {peer.running.status}:\n"
                               f"{peer.running.stdout}")
        for hmc in self.hmcs:
            if hmc.failure:
                raise hmc.failure
        rows, dropped = self.status()
        arrived = sum(row.received + row.recovered + row.sent for row in rows)
        if arrived + dropped != self.progress:
            self.progress, self.moved = arrived + dropped, time.monotonic()
        return rows, dropped, arrived

    @property
    def stalled(self) -> bool:
        """True if there has been no progress for too long."""
        return time.monotonic() - self.moved > STALL

    @property
    def all_in(self) -> bool:
        """True if everything that HMCs sent is in the partition. Answers of the hypervisor may still come."""
        return self.sent_all.is_set() and not any(hmc.thread.is_alive() for hmc in self.hmcs)

    def account(self) -> Account:
        """Judge every message."""
        drops = self.drops()
        rows = self.status()[0]
        account = Account()
        unknown = delivered = 0
        for index, (peer, row) in enumerate(zip(self.peers, rows)):
            hmc = self.hmcs[index] if index < len(self.hmcs) else None
            cut_off, arrived = self._account_source(account, peer, row, hmc, drops.get(source_id(peer.source), 0))
            unknown += cut_off
            delivered += arrived
        self.say(f"sends cut off by a kill: {unknown}, of which {delivered} were delivered; received and counted "
                 f"after a kill: {sum(row.recovered for row in rows)}; printed again after a kill: "
                 f"{sum(hmc.printed_again for hmc in self.hmcs[:2])}")
        self.say(f"sends in doubt: {account.doubts}, of which {account.repeated} arrived once more")
        console = self.partition.console.text
        if SPLAT.search(console):
            raise LabError(f"the kernel complained:\n{console[-4000:]}")
        return account

    def _account_source(self, account: Account, peer: Peer, row: PeerStatus, hmc, dropped: int) -> tuple[int, int]:
        """Add one source to ACCOUNT; returns how many sends were unknown, and how many of these arrived."""
        tried, unknown, doubts, ranges = peer.dump()
        received = count_numbers(ranges)
        account.misrouted += row.bad
        if isinstance(hmc, Talker):
            missing = hmc.inbox.missing(tried)
            from_hmc = possible = hmc.typed
            at_hmc = hmc.inbox.count
            sent = tried - len(missing & unknown)
            delivered = len(unknown) - len(missing & unknown)
            account.lost += len(missing - unknown)
            for number, times in hmc.inbox.repeated.items():
                allowed = min(times, doubts.get(number, 0))
                account.repeated += allowed
                account.duplicated += times - allowed
            account.misrouted += hmc.inbox.bad + (hmc.inbox.last > tried)
        else:
            sure = tried - len(unknown)
            if not hmc:     # the hypervisor's own echo
                answered = sum(any(first <= number <= last for first, last in ranges) for number in unknown)
                at_hmc = min(max(received + dropped, sure + answered), tried)
            elif hmc.received is None:      # stalled, so hmc3 could not be asked
                at_hmc = sure
            else:
                at_hmc = hmc.received - row.repeated
                account.misrouted += abs(hmc.queued - hmc.received)
                # Repeats whose answers were dropped, or not counted when the peer was killed.
                unseen = max(0, min(at_hmc - tried, sum(doubts.values()) - row.repeated))
                at_hmc -= unseen
                dropped -= min(unseen, max(0, received + dropped - at_hmc))
            account.repeated += row.repeated
            from_hmc, possible = at_hmc, tried
            delivered = max(0, min(at_hmc, tried) - sure)
            sent = sure + delivered
            account.lost += max(0, sure - at_hmc)
            account.duplicated += max(0, at_hmc - tried)
        account.misrouted += bool(ranges) and ranges[-1][1] > possible
        account.lost += max(0, from_hmc - received - dropped)
        account.duplicated += max(0, received + dropped - from_hmc)
        account.dropped += dropped
        account.doubts += sum(doubts.values())
        account.sent += sent + from_hmc
        account.received += at_hmc + received
        self.say(f"{peer.source}: {sent} sent to the HMC and {at_hmc} received there; {from_hmc} sent by the HMC, "
                 f"{received} received and {dropped} dropped; EPIPE {row.refused} times, ENXIO {row.suspended}, "
                 f"{row.losses} losses reported, {row.reopened} times reopened, {peer.kills} times killed")
        if peer.said.replace("Killed\n", ""):
            self.say(f"{peer.source} said: {peer.said[:2000]}")
        return len(unknown), delivered

    def close(self):
        """End the HMCs and remove their states."""
        for hmc in self.hmcs:
            hmc.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
