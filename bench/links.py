# SPDX-License-Identifier: GPL-2.0-or-later
"""What links cost hvpipe-hmc: instructions and memory with 10, 100 and 1,000 of them, and one process beside eight.

bench/hypervisors.c plays the hypervisors. Instructions are counted by callgrind: all of the process in user space.
"""

import contextlib
import os
import re
import subprocess
from pathlib import Path

from lab import HVPIPE_HMC, TOP, LabError, Stream

from . import say
from .host import dump, kill, under_callgrind

LINKS = (10, 100, 1000)
SIZE = 64
BUSY = 8                # links at it at a time, where time is measured
COUNTED = 4000          # round trips under callgrind, one after the other: none shares a turn of the loop
TIMED = 40000
SOURCES = 8


def build_hypervisors(program):
    """Compile bench/hypervisors.c for the host."""
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-I", TOP / "qemu/include/hw/ppc", "-o", program,
                    TOP / "bench/hypervisors.c"], check=True)


class Hypervisors:
    """Running hypervisors of LINKS sources in DIRECTORY."""

    def __init__(self, program, directory, links):
        self.directory, self.links = directory, links
        directory.mkdir()
        self.process = subprocess.Popen([program, directory, str(links)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=False)
        self.out = Stream(self.process.stdout, f"{links} hypervisors")
        try:
            self.out.wait_for("^listening$")
        except LabError:
            self.close()
            raise

    def config(self, more="") -> Path:
        """A configuration that serves them all."""
        path = self.directory / "serve.conf"
        path.write_text(f"[serve]\n{more}" + "".join(f"[lpar{n}/hmc1]\nconnect={n}.sock\necho=true\n"
                                                     for n in range(1, self.links + 1)))
        return path

    def run(self, count, busy) -> float:
        """Make COUNT round trips, BUSY at a time; returns how many a second."""
        mark = self.out.size
        self.process.stdin.write(f"{count} {busy} {SIZE}\n".encode())
        self.process.stdin.flush()
        return count / (int(self.out.wait_for(r"^(\d+)$", since=mark, limit=600)[1]) / 1e9)

    def close(self):
        """End them."""
        self.process.stdin.close()
        kill(self.process)


@contextlib.contextmanager
def connected(program, directory, links, *commands, start=None):
    """LINKS hypervisors and the HMCs of COMMANDS, which are made from the hypervisors, connected to them."""
    hypervisors = Hypervisors(program, directory, links)
    hmcs = []
    try:
        for command in commands:
            words = [str(word) for word in command(hypervisors)]
            hmcs.append(start(words) if start else subprocess.Popen(
                words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        hypervisors.out.wait_for("^connected$", limit=600)
        yield hypervisors, hmcs
    finally:
        for hmc in hmcs:
            hmc.kill()
            hmc.wait()
        hypervisors.close()


def serve(hypervisors, more=""):
    """The command that serves all of HYPERVISORS."""
    return [HVPIPE_HMC, "serve", hypervisors.config(more)]


def echo(number):
    """The command that answers for hypervisor NUMBER."""
    return lambda hypervisors: [HVPIPE_HMC, "-c", hypervisors.directory / f"{number}.sock", "echo"]


def memory(process) -> int:
    """Bytes of PROCESS in memory."""
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.M)
    if not found:
        raise LabError("no VmRSS in /proc/PID/status")
    return 1024 * int(found[1])


def instructions(program, directory, links) -> float:
    """Instructions of a served round trip on one of LINKS."""
    out = directory.with_suffix(".callgrind")
    with connected(program, directory, links, serve, start=lambda words: under_callgrind(out, words)) as (played, hmcs):
        Stream(hmcs[0].stdout, "HMC under callgrind")
        played.run(2 * links, BUSY)     # each link once and again: nothing is made for the first time
        dump(hmcs[0], 1, out)
        played.run(COUNTED, 1)
        return dump(hmcs[0], 2, out)["PROGRAM TOTALS"] / COUNTED


def measure_links(lab):
    """{"links": {links: {"instructions", "memory", "rate"}}, "sources": {title: rate}, and the host}."""
    place = lab.scratch("links")
    program = place / "hypervisors"
    build_hypervisors(program)
    results = {"links": {}, "sources": {}, "processors": os.cpu_count()}
    for links in LINKS:
        say(f"links: {links}")
        row = {"instructions": instructions(program, place / f"counted-{links}", links)}
        with connected(program, place / f"timed-{links}", links, serve) as (played, hmcs):
            played.run(2 * links, BUSY)
            row["rate"] = played.run(TIMED, BUSY)
            row["memory"] = memory(hmcs[0])
        results["links"][str(links)] = row
    for number, (title, links, commands) in enumerate((
            ("one source, one process", 1, [echo(1)]),
            (f"{SOURCES} sources, {SOURCES} processes", SOURCES, [echo(n + 1) for n in range(SOURCES)]),
            (f"{SOURCES} sources, one process", SOURCES, [serve]),
            (f"{SOURCES} sources, one process with state", SOURCES, [lambda played: serve(played, "state=state\n")]))):
        say(f"links: {title}")
        with connected(program, place / f"sources-{number}", links, *commands) as (played, _):
            played.run(100, BUSY)
            results["sources"][title] = played.run(TIMED if "state" not in title else TIMED // 20, BUSY)
    results["load"] = os.getloadavg()[0]
    return results
