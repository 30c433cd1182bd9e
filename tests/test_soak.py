# SPDX-License-Identifier: GPL-2.0-or-later
"""A short soak: handles closed, HMCs and programs in the partition killed, every message accounted for."""

import re

import reliability
from commands import run_command


def test_soak(record_property):
    """Nothing is lost, doubled, misrouted or stuck, and the numbers of the last line add up."""
    done = run_command("soak", 2000)
    assert done.returncode == 0, done.stdout[-6000:]
    last = re.fullmatch(r"soak: (\d+) sent, (\d+) received, (\d+) dropped at close, (0) lost, (0) duplicated, "
                        r"(0) misrouted, 0 stalls", done.stdout.splitlines()[-1])
    assert last, done.stdout[-2000:]
    record_property("messages", dict(zip(reliability.COLUMNS, map(int, last.groups()))))
    sent, received, dropped = (int(number) for number in last.groups()[:3])
    assert sent >= 2000 and sent == received + dropped
    # Handles were reopened, and messages received.
    assert re.search(r"[1-9]\d* times reopened", done.stdout), done.stdout
    assert received > 0
