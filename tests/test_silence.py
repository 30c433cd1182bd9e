# SPDX-License-Identifier: GPL-2.0-or-later
"""After all other tests: no kernel of this run has complained."""

import time

import pytest

from lab import BUILD, SPLAT

START = time.time()     # the tests are collected before the first one begins


def test_no_splat(record_property):
    """No console of this run has an oops or a report of a detector."""
    logs = [log for log in (BUILD / "logs").glob("*.console.log") if log.stat().st_mtime >= START]
    assert logs
    for log in logs:
        said = log.read_text(encoding="utf-8", errors="replace")
        found = SPLAT.search(said)
        assert not found, f"{log}:\n{said[max(0, found.start() - 500):found.start() + 3000]}"
    record_property("kernels", len(logs))


@pytest.mark.parametrize("name", ["shared", "echoing"])
def test_detectors_on(request, name):
    """Lockdep is still on, if the kernel has it. Partitions with faults are checked when they end."""
    request.getfixturevalue(name).check_detectors()


@pytest.mark.parametrize("name", ["shared", "echoing"])
def test_no_leak(request, name):
    """kmemleak, if the kernel has it, finds nothing. Partitions with faults are checked when they end."""
    request.getfixturevalue(name).check_leaks()
