# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz every parser that reads what another party wrote, and the device's ABI in a partition.

All of it, on all processors, for SECONDS altogether. SEED=NUMBER in the environment repeats a run's random choices.
tests/fuzz/corpus has the inputs that each target begins with, and those that once found a bug. New inputs are kept in
the cache, where the next run goes on.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import threading
import time

from .cache import cache_dir
from .errors import LabError
from .fuzz_targets import CORPUS, ENVIRONMENT, PLACE, TARGETS, build_targets
from .options import count, seed_from_environment
from .partition import SPLAT, Partition
from .paths import LOGS, TOP
from .session import Lab

PROGRESS = 10   # seconds between lines


class Fuzzing:
    """One run: every target, as many at a time as there are processors."""

    def __init__(self, seconds: int, seed: int):
        self.seed = seed
        workers = os.cpu_count()
        self.share = max(1, seconds * workers // (len(TARGETS) + 1))
        self.start = time.monotonic()
        self.executions: dict[str, int] = {}
        self.running: dict[str, str] = {}       # name: how far it is
        self.crashes = 0
        self.ending = False
        self.processes = set()
        self.lock = threading.Lock()
        self.pool = concurrent.futures.ThreadPoolExecutor(workers)

    def say(self, text: str) -> None:
        """Print a line."""
        elapsed = int(time.monotonic() - self.start)
        with self.lock:
            print(f"fuzz: [{elapsed // 60}m{elapsed % 60:02d}s] {text}", flush=True)

    def target(self, name: str) -> None:
        """Run one of the targets for its share of the time."""
        grown = cache_dir() / "fuzz" / name
        grown.mkdir(parents=True, exist_ok=True)
        crash = PLACE / f"crash-{name}-{self.seed}"
        command = [PLACE / "bin" / name, f"-max_total_time={self.share}", f"-seed={self.seed}", "-print_final_stats=1",
                   "-timeout=30", f"-exact_artifact_path={crash}", grown, CORPUS / name]
        said, edges = [], "?"
        with subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              stdin=subprocess.DEVNULL, text=True, errors="replace", env=ENVIRONMENT) as process:
            self.processes.add(process)
            for line in process.stderr:
                said = [*said[-400:], line]
                match = re.search(r"\((\d+) inline 8-bit counters\)", line)
                edges = match[1] if match else edges
                match = re.match(r"#(\d+)\s.*cov: (\d+) .*corp: (\d+)/", line)
                if match:
                    self.executions[name] = int(match[1])
                    self.running[name] = f"{match[1]} executions, {match[2]} of {edges} edges, {match[3]} inputs"
        self.processes.discard(process)
        last = self.running.pop(name, "no executions")
        match = re.search(r"stat::number_of_executed_units:\s*(\d+)", "".join(said))
        if match:
            self.executions[name] = int(match[1])
        if not process.returncode:
            self.say(f"{name}: {last}")
        elif not self.ending:
            self.crashed(f"{name}: {last}\n{''.join(said)}\nfuzz: {name} ended with status {process.returncode}. "
                         f"Again: build/fuzz/bin/{name} {crash.relative_to(TOP)}")

    def crashed(self, text: str) -> None:
        """Count and show what a target found."""
        self.crashes += 1
        self.say(f"CRASH in {text}")

    def abi(self, lab: Lab) -> None:
        """Random calls in a partition for their share of the time."""
        self.running["abi"] = "booting"
        try:
            partition = abi_partition(lab)
            self.running["abi"] = "calling"
            self.executions["abi"], text = call_at_random(partition, self.seed, 2 ** 62, self.share)
            self.say(f"abi: {text}")
        except LabError as error:
            self.crashed(f"abi: {error}\nfuzz: again: SEED={self.seed} make fuzz; logs are in {LOGS}")
        finally:
            self.running.pop("abi", None)

    def run(self, lab: Lab) -> bool:
        """Run all; returns True if nothing was found."""
        jobs = [self.pool.submit(self.abi, lab)] + [self.pool.submit(self.target, name) for name in TARGETS]
        try:
            waiting = set(jobs)
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, timeout=PROGRESS)
                for job in done:
                    job.result()
                if waiting and not done:
                    self.say(f"{len(jobs) - len(waiting)} of {len(jobs)} done; " +
                             "; ".join(f"{name}: {what}" for name, what in sorted(self.running.items())))
        finally:
            self.ending = True
            self.pool.shutdown(wait=False, cancel_futures=True)
            for process in list(self.processes):
                process.kill()
        print(f"fuzz: {len(jobs)} targets, {sum(self.executions.values())} executions, {self.crashes} crashes")
        return not self.crashes


def abi_partition(lab: Lab, **how) -> Partition:
    """A partition for call_at_random(): the hypervisor answers for three sources, and a fourth has no HMC."""
    return lab.partition(name="abi-fuzz", echo=["hmc1", "hmc2", "hmc3"], sources=["hmc4"], smp=2,
                         programs=["guest/abi-fuzz"], **how)


def call_at_random(partition: Partition, seed: int, calls: int, seconds: int) -> tuple[int, str]:
    """Have PARTITION make CALLS random calls, but for no more than SECONDS; returns their number and its last line."""
    command = partition.run(f"abi-fuzz {seed} {calls} {seconds}", limit=seconds + 600)
    text = command.check().splitlines()[-1]
    status = partition.check("hvpipe status")
    if "pipe enabled, 0 sources open" not in status:
        raise LabError(f"SEED={seed}: something was left open: {status}")
    if SPLAT.search(partition.console.text):
        raise LabError(f"SEED={seed}: the kernel complained:\n{partition.console.text[-4000:]}")
    return int(re.match(r"(\d+) calls", text)[1]), text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long."""
    parser.add_argument("seconds", metavar="SECONDS", type=count, nargs="?", default=60, help="60 by default")


def main(arguments: argparse.Namespace) -> int:
    """Build, fuzz, and say how it went in one line."""
    seed = seed_from_environment()
    build_targets()
    print(f"fuzz: {arguments.seconds} seconds, SEED={seed}", flush=True)
    with Lab() as lab:
        return 0 if Fuzzing(arguments.seconds, seed).run(lab) else 1
