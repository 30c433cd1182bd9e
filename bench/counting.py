# SPDX-License-Identifier: GPL-2.0-or-later
"""A partition in which bench/bench.c counts guest instructions.

It has one CPU. Its hypervisor counts virtual time by instructions and answers for eight sources by itself.
"""

from pathlib import Path

from lab import Lab, LabError, Partition
from lab.machine import PERSONALITY

ECHO = [f"hmc{number}" for number in range(1, 9)]
LIMIT = 1800    # seconds for one part: with a driver whose cost grows with handles, opening them all takes long

Rows = dict[str, dict[str, float]]      # of one part: {row: {"median", "p10", "p90", "samples"}}


def parse(text: str) -> Rows:
    """The rows that bench.c printed."""
    rows = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) != 5:
            raise LabError(f"bench.c printed {line!r}, which is not a name and four numbers")
        median, low, high = (float(word) for word in words[1:4])
        rows[words[0]] = {"median": median, "p10": low, "p90": high, "samples": int(words[4])}
    return rows


def check_unit(partition: Partition) -> Rows:
    """Fail unless code of known length is reported as that length."""
    rows = parse(partition.check("bench unit"))
    for name, row in rows.items():
        length = int(name.rpartition("-")[2])
        # Either loop has a few instructions around it, and the timebase ticks every 1.95 instructions.
        if not abs(row["median"] - length) < 8:
            raise LabError(f"{length} instructions were reported as {row['median']:.0f}: this hypervisor's virtual time"
                           " does not count instructions")
    return rows


def counting(lab: Lab, name: str, kernel: str | Path, options=(), append="",
             programs=()) -> tuple[Partition, Rows]:
    """Boot such a partition with KERNEL, and APPEND on its command line; returns it, and what check_unit() does."""
    partition = lab.partition(name=name, kernel=kernel, append=f"kunit.enable=0 {append}".strip(), echo=ECHO,
                              personality=PERSONALITY, programs=["bench/bench", *programs],
                              options=["-icount", "shift=0", *options])
    return partition, check_unit(partition)
