# SPDX-License-Identifier: GPL-2.0-or-later
"""What calls cost, in guest instructions: at most 3% more than the numbers below.

The numbers are the same on every machine and under every load; `make bench` measures many more. After an intended
change, also for the better, or with another kernel source or compiler, write new numbers into this file:

    make test TESTS="tests/test_cost.py --write-cost"
"""

import re
from pathlib import Path

import pytest

from bench.counting import counting, parse
from lab import KERNEL

# Part and rows of bench/bench.c: Linux 6.12.117, partition.config, gcc 12
COST = {
    "messages 64": {"send": 1309, "send-event": 3660, "receive": 1441, "receive-event": 3791, "round-trip": 6301},
    "messages 4048": {"send": 2293, "receive": 2412},
    "wakeup": {"wakeup": 7211},
    "handles 1": {"create": 2154, "close": 1676},
    "handles 4096": {"create": 2154, "close": 1678, "first-send-event": 3660, "last-receive": 1441},
}
FEW = 100     # instructions around the copy


@pytest.fixture(scope="module", name="bench")
def counting_partition(lab):
    """A partition that counts instructions."""
    partition, _ = counting(lab, "cost", KERNEL)
    yield partition
    partition.close()


def cost_now(partition, part):
    """What the rows of PART cost now."""
    found = parse(partition.check(f"exec bench {part}"))
    return {row: round(found[row]["median"]) for row in COST[part]}


def write_cost(part, now):
    """Replace PART's numbers in this file."""
    place = Path(__file__)
    line = f'    "{part}": {now},'.replace("'", '"')
    text = re.sub(rf'^    "{part}": {{.*}},$', line, place.read_text(encoding="utf-8"), count=1, flags=re.M)
    place.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("size", [64, 4048])
def test_library(bench, size):
    """A call of the library costs a copy of the payload more than the bare call, and next to nothing else."""
    found = {row: numbers["median"] for row, numbers in parse(bench.check(f"exec bench library {size}")).items()}
    for call in ("send", "receive"):
        more = found[f"library-{call}"] - found[call]
        assert more <= found["copy"] + FEW, found


@pytest.mark.parametrize("part", COST)
def test_cost(bench, part, request):
    """Send, receive, wake-up, create and close cost at most 3% more, alone and with many handles open."""
    if KERNEL != "vmlinux":
        pytest.skip("the numbers are those of vmlinux")
    now = cost_now(bench, part)
    if request.config.getoption("write_cost"):
        write_cost(part, now)
    else:
        assert all(now[row] <= cost * 1.03 for row, cost in COST[part].items()), f"{now}, but was {COST[part]}"
