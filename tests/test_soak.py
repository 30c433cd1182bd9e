# SPDX-License-Identifier: GPL-2.0-or-later
"""A short soak: handles closed, HMCs and programs of the partition killed, every message accounted for."""

import re
import subprocess

import reliability
from lab import TOP


def test_soak(record_property):
    """Nothing is lost, doubled, misrouted or stuck, and the numbers of the last line add up."""
    done = subprocess.run([TOP / "scripts/soak", "2000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:]
    last = re.fullmatch(r"soak: (\d+) sent, (\d+) received, (\d+) dropped at close, (0) lost, (0) duplicated, "
                        r"(0) misrouted, 0 stalls", done.stdout.splitlines()[-1])
    assert last, done.stdout[-2000:]
    record_property("messages", dict(zip(reliability.COLUMNS, map(int, last.groups()))))
    sent, received, dropped = (int(number) for number in last.groups()[:3])
    assert sent >= 2000 and sent == received + dropped
    # It was no idle walk: some of all that it is for has happened.
    assert re.search(r"[1-9]\d* times reopened", done.stdout), done.stdout
    assert received > 0
