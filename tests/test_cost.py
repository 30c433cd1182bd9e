# SPDX-License-Identifier: GPL-2.0-or-later
"""What calls cost, in guest instructions: no more than is written here, but for 3%.

The numbers are the same on every machine and under every load: `make bench` tells more of them. Whoever changes them on
purpose, also to less, or has another kernel source or compiler, has the new ones written here, as pytest would measure
them: `make build`, then

    /usr/bin/python3 tests/test_cost.py
"""

import re
import sys
from pathlib import Path

import pytest

from lab import KERNEL, TOP, Lab

sys.path.insert(0, str(TOP / "scripts"))
from measure import counting, parse    # noqa: E402

# Part and rows of bench/bench.c: Linux 6.12.117, partition.config, gcc 12
COST = {
    "messages 64": {"send": 1307, "send-event": 3639, "receive": 1426, "receive-event": 3756, "round-trip": 6266},
    "messages 4048": {"send": 2291, "receive": 2396},
    "wakeup": {"wakeup": 7193},
    "handles 1": {"create": 2055, "close": 1662},
    "handles 4096": {"create": 2055, "close": 1662, "first-send-event": 3637, "last-receive": 1426},
}


@pytest.fixture(scope="module", name="bench")
def counting_partition(lab):
    """A partition that counts instructions."""
    if KERNEL != "vmlinux":
        pytest.skip("the numbers are those of vmlinux")
    partition, _ = counting(lab, "cost", KERNEL)
    yield partition
    partition.close()


def cost_now(partition, part):
    """What the rows of PART cost now."""
    found = parse(partition.check(f"exec bench {part}"))
    return {row: round(found[row]["median"]) for row in COST[part]}


@pytest.mark.parametrize("part", COST)
def test_a_call_costs_no_more_than_before(bench, part):
    """Send, receive, wake-up, create and close, alone and with many handles open."""
    now = cost_now(bench, part)
    assert all(now[row] <= cost * 1.03 for row, cost in COST[part].items()), f"{now}, but was {COST[part]}"


def write_anew():
    """Measure, and write the numbers into this file."""
    with Lab() as lab:
        partition, _ = counting(lab, "cost", KERNEL)
        lines = [f'    "{part}": {cost_now(partition, part)},\n'.replace("'", '"') for part in COST]
    text = re.sub(r"(?<=^COST = {\n).*?(?=^}$)", lambda _: "".join(lines), Path(__file__).read_text(encoding="utf-8"),
                  count=1, flags=re.M | re.S)
    Path(__file__).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_anew()
