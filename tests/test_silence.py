# SPDX-License-Identifier: GPL-2.0-or-later
"""After all other tests: the kernels that ran them have found nothing wrong with themselves."""

import time

import pytest

from lab import BUILD, SPLAT

START = time.time()     # of this run: the tests are collected before the first one begins


def test_no_kernel_complained(record_property):
    """No splat on the console of any partition of this run."""
    logs = [log for log in (BUILD / "logs").glob("*.console.log") if log.stat().st_mtime >= START]
    assert logs
    for log in logs:
        said = log.read_text(encoding="utf-8", errors="replace")
        found = SPLAT.search(said)
        assert not found, f"{log}:\n{said[max(0, found.start() - 500):found.start() + 3000]}"
    record_property("kernels", len(logs))


@pytest.mark.parametrize("name", ["shared", "echoing"])
def test_the_detectors_are_still_on(request, name):
    """Lockdep still is on, if the kernel has it. Partitions with faults are looked at when they end."""
    request.getfixturevalue(name).check_detectors()


@pytest.mark.parametrize("name", ["shared", "echoing"])
def test_no_memory_leaked(request, name):
    """kmemleak, if the kernel has it, finds nothing. Partitions with faults are looked at when they end."""
    request.getfixturevalue(name).check_leaks()
