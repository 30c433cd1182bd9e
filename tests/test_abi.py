# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests of the user ABI, which run in a partition whose hypervisor answers messages itself."""

import re

import pytest

from lab import TOP

CODE = TOP / "linux/tools/testing/selftests/powerpc/papr_hvpipe/papr_hvpipe.c"


def cases():
    """The names of all tests, from their code, so that a test that did not run fails."""
    code = CODE.read_text(encoding="utf-8")
    return [".".join(match) for match in re.findall(r"^TEST_F(?:_TIMEOUT|_SIGNAL)?\((\w+),\s*(\w+)", code, re.M)]


@pytest.fixture(scope="module")
def report(echoing):
    """The program's report, in TAP."""
    command = echoing.run("/abi/papr_hvpipe", limit=900)
    return command.stdout


@pytest.mark.parametrize("case", cases())
def test_abi(report, case):
    """The test ran and passed."""
    result = re.search(rf"^(not )?ok \d+ {re.escape(case)}\b(.*)$", report, re.M)
    assert result, f"{case} did not run:\n{report[-4000:]}"
    assert not result[1], report[max(0, result.start() - 3000):result.end()]
    assert "SKIP" not in result[2], result[0]
