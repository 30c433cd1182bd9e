# SPDX-License-Identifier: GPL-2.0-or-later
"""A partition in which bench/bench.c counts guest instructions, and what it says.

One CPU, whose hypervisor counts virtual time by instructions and answers for eight sources by itself.
"""

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests"))
from lab import Lab, LabError, initrd_with   # noqa: E402, F401

ECHO = [f"hmc{number}" for number in range(1, 9)]


def parse(text):
    """{row: its numbers} from what bench.c printed."""
    rows = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) != 5:
            raise LabError(f"bench.c said {line!r}")
        median, low, high = (float(word) for word in words[1:4])
        rows[words[0]] = {"median": median, "p10": low, "p90": high, "samples": int(words[4])}
    return rows


def check_unit(partition):
    """One reported instruction must be one: code of known length has it."""
    rows = parse(partition.check("bench unit"))
    for name, row in rows.items():
        length = int(name.rpartition("-")[2])
        # Either loop has a few instructions around it, and the timebase ticks every 1.95 instructions.
        if not abs(row["median"] - length) < 8:
            raise LabError(f"{length} instructions were reported as {row['median']:.0f}: this hypervisor's virtual time"
                           " does not count instructions")
    return rows


def counting(lab, name, kernel, options=(), append=""):
    """Boot such a partition with KERNEL, and APPEND on its command line; returns it, and what it says of the unit."""
    image = initrd_with(lab.scratch(name), "bench", (TOP / "bench/bench.c").read_text(encoding="utf-8"))
    partition = lab.partition(name=name, kernel=kernel, append=f"kunit.enable=0 {append}".strip(), echo=ECHO,
                              options=["-icount", "shift=0", "-initrd", image, *options])
    return partition, check_unit(partition)
