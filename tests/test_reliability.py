# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages about the tests agree with the tests. Runs after all others, as docs/reliability.md tells what these did."""

import re

import pytest

import reliability
from lab import TOP


def test_security_names_tests():
    """Each `FILE` and `FILE::TEST` in docs/security.md exists."""
    text = (TOP / "docs/security.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w-]+\.(?:c|py))(?:::(\w+))?`", text)
    assert named
    for name, test in named:
        files = [path for path in TOP.rglob(name) if "build" not in path.relative_to(TOP).parts]
        assert files, name
        assert any(re.search(rf"\b{test}\b", path.read_text(encoding="utf-8")) for path in files), f"{name}::{test}"


def test_page_of_clean_runs():
    """docs/reliability.md shows whole runs of committed code in which no test failed and no kernel had a splat."""
    summary = reliability.PAGE.read_text(encoding="utf-8").partition(reliability.BEGIN)[2]
    rows = [line for line in summary.splitlines() if line.startswith("| vmlinux")]
    assert any(row.startswith("| vmlinux |") for row in rows), summary
    for row in rows:
        assert re.fullmatch(r"\| vmlinux[\w-]* \| [\w.-]+ \| \d+ \| 0 (\| \d+ ){4}\| 0 \|", row), row
        assert "-dirty" not in row, row


def test_page_of_this_run(request):
    """docs/reliability.md has the pairs of faults and operations that passed, if all tests were run."""
    if not request.config.whole:
        pytest.skip("not all tests were run")
    page = reliability.PAGE.read_text(encoding="utf-8")
    table = reliability.pair_table(reliability.pairs_by_target())
    assert page.endswith(table), (f"{reliability.PAGE.relative_to(TOP)} is not of this run: copy "
                                  f"{reliability.SUMMARY.relative_to(TOP)} there")
