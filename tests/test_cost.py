# SPDX-License-Identifier: GPL-2.0-or-later
"""What calls cost, in guest instructions: at most 3% more than costs.json says.

The numbers are the same on every machine and under every load; `make bench` measures many more. They depend on the
kernel's series, its compiler and the processor, so costs.json has a baseline for each. After an intended change, also
for the better, or for a new combination, write the numbers of the host into that file:

    make test TESTS="tests/test_cost.py --write-cost"
"""

import json
import re
from pathlib import Path

import pytest

from bench.calls import describe
from bench.counting import counting, parse
from lab import KERNEL

BASELINES = Path(__file__).with_name("costs.json")
# Parts and rows of bench/bench.c
ROWS = {
    "messages 64": ["send", "send-event", "receive", "receive-event", "round-trip"],
    "messages 4048": ["send", "receive"],
    "wakeup": ["wakeup"],
    "handles 1": ["create", "close"],
    "handles 4096": ["create", "close", "first-send-event", "last-receive"],
}
FEW = 100     # instructions around the copy


@pytest.fixture(scope="module", name="bench")
def counting_partition(lab):
    """A partition that counts instructions, and the name of its baseline: "Linux 6.12, gcc 12, POWER9, hash MMU"."""
    partition, _ = counting(lab, "cost", KERNEL)
    series = re.match(r"\d+\.\d+", partition.check("uname -r"))[0]
    yield partition, f"Linux {series}, " + re.sub(r"^(gcc \d+)[.\d]*", r"\1", describe(partition))
    partition.close()


def cost_now(partition, part):
    """What the rows of PART cost now."""
    found = parse(partition.check(f"exec bench {part}"))
    return {row: round(found[row]["median"]) for row in ROWS[part]}


def write_cost(baseline, part, now):
    """Replace PART's numbers in BASELINE."""
    costs = json.loads(BASELINES.read_text(encoding="utf-8"))
    costs.setdefault(baseline, {})[part] = now
    BASELINES.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")


@pytest.mark.parametrize("size", [64, 4048])
def test_library(bench, size):
    """A call of the library costs a copy of the payload more than the bare call, and next to nothing else."""
    found = {row: numbers["median"] for row, numbers in parse(bench[0].check(f"exec bench library {size}")).items()}
    for call in ("send", "receive"):
        more = found[f"library-{call}"] - found[call]
        assert more <= found["copy"] + FEW, found


@pytest.mark.parametrize("part", ROWS)
def test_cost(bench, part, request):
    """Send, receive, wake-up, create and close cost at most 3% more, alone and with many handles open."""
    if KERNEL != "vmlinux":
        pytest.skip("the numbers are those of vmlinux")
    partition, baseline = bench
    now = cost_now(partition, part)
    if request.config.getoption("write_cost"):
        write_cost(baseline, part, now)
        return
    costs = json.loads(BASELINES.read_text(encoding="utf-8")).get(baseline, {}).get(part)
    if not costs:
        pytest.skip(f"costs.json has no baseline for {baseline}: --write-cost makes one")
    assert now.keys() == costs.keys() and all(now[row] <= cost * 1.03 for row, cost in costs.items()), \
        f"{now}, but was {costs}"
