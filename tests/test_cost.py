# SPDX-License-Identifier: GPL-2.0-or-later
"""What calls cost, in guest instructions: no more than is written here, but for 3%.

The numbers are the same on every machine and under every load: `make bench` tells more of them. Whoever changes them on
purpose, or has another kernel source or compiler, writes the new ones here: a failure shows them.
"""

import sys

import pytest

from lab import KERNEL, TOP

sys.path.insert(0, str(TOP / "scripts"))
from measure import counting, parse    # noqa: E402

# Part and rows of bench/bench.c: Linux 6.12.117, partition.config, gcc 12
COST = {
    "messages 64": {"send": 1432, "send-event": 4418, "receive": 1525, "receive-event": 4514, "round-trip": 7148},
    "messages 4048": {"send": 2182, "receive": 2268},
    "wakeup": {"wakeup": 7869},
    "handles 1": {"create": 2617, "close": 2188},
    "handles 4096": {"create": 3088, "close": 2508, "first-send-event": 4455, "last-receive": 1525},
}


@pytest.fixture(scope="module", name="bench")
def counting_partition(lab):
    """A partition that counts instructions."""
    if KERNEL != "vmlinux":
        pytest.skip("the numbers are those of vmlinux")
    partition, _ = counting(lab, "cost", KERNEL)
    yield partition
    partition.close()


@pytest.mark.parametrize("part", COST)
def test_a_call_costs_no_more_than_before(bench, part):
    """Send, receive, wake-up, create and close, alone and with many handles open."""
    found = parse(bench.check(f"exec bench {part}"))
    now = {row: round(found[row]["median"]) for row in COST[part]}
    assert all(now[row] <= cost * 1.03 for row, cost in COST[part].items()), f"{now}, but was {COST[part]}"
