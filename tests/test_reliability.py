# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages that speak of tests speak of those that there are; after all others, as one tells what these did."""

import re

import pytest

import reliability
from lab import TOP


def test_the_security_review_names_tests_that_are_there():
    """Each `FILE` and `FILE::TEST` of docs/security.md."""
    text = (TOP / "docs/security.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w-]+\.(?:c|py))(?:::(\w+))?`", text)
    assert named
    for name, test in named:
        files = [path for path in TOP.rglob(name) if "build" not in path.relative_to(TOP).parts]
        assert files, name
        assert any(re.search(rf"\b{test}\b", path.read_text(encoding="utf-8")) for path in files), f"{name}::{test}"


def test_the_page_is_of_runs_that_passed():
    """docs/reliability.md: of each whole run the commit was all that was tested, nothing failed, no kernel splat."""
    said = reliability.PAGE.read_text(encoding="utf-8").partition(reliability.BEGIN)[2]
    rows = [line for line in said.splitlines() if line.startswith("| vmlinux")]
    assert any(row.startswith("| vmlinux |") for row in rows), said
    for row in rows:
        assert re.fullmatch(r"\| vmlinux[\w-]* \| [\w.-]+ \| \d+ \| 0 (\| \d+ ){4}\| 0 \|", row), row
        assert "-dirty" not in row, row


def test_the_page_has_the_pairs_of_this_run(request):
    """docs/reliability.md: the faults and operations that it lists are those that passed, if all were run."""
    if not request.config.whole:
        pytest.skip("not all tests were run")
    page = reliability.PAGE.read_text(encoding="utf-8")
    assert page.endswith(reliability.pairs()), (f"{reliability.PAGE.relative_to(TOP)} is not what this run did; copy "
                                                f"{reliability.RUN.relative_to(TOP)} there")
