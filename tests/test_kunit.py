# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver's KUnit tests, which run while the partition boots and report to its console in KTAP."""

import re

import pytest

from lab import TOP

SUITE = "papr-hvpipe"
CODE = TOP / "linux/arch/powerpc/platforms/pseries/papr-hvpipe_test.c"


def cases():
    """The names of the suite's cases, from its code, so that a case that did not run fails."""
    return re.findall(r"^\s*KUNIT_CASE\w*\((\w+)", CODE.read_text(encoding="utf-8"), re.M)


@pytest.fixture(scope="module")
def report(echoing):
    """The suite's lines on the console, from its beginning to its result."""
    echoing.console.wait_for(rf"^ok \d+ {SUITE}|^not ok \d+ {SUITE}")
    match = re.search(rf"^\s*# Subtest: {SUITE}\r?$.*?^(not )?ok \d+ {SUITE}\b[^\n]*", echoing.console.text,
                      re.M | re.S)
    assert match, "no KTAP report of the suite on the console"
    return match[0].replace("\r", "")


@pytest.mark.parametrize("case", cases())
def test_kunit(report, case):
    """The case ran and passed."""
    result = re.search(rf"^\s+(not )?ok \d+ {case}\b(.*)$", report, re.M)
    assert result, f"{case} did not run:\n{report[-4000:]}"
    assert not result[1], report[max(0, result.start() - 3000):result.end()]
    assert "# SKIP" not in result[2], result[0]


def test_suite(report):
    """The suite passed as a whole, and ran every case."""
    assert re.search(rf"^ok \d+ {SUITE}$", report, re.M), report[-2000:]
    assert f"1..{len(cases())}" in report
