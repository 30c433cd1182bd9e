# SPDX-License-Identifier: GPL-2.0-or-later
"""Run every checker on what it is for. Prints what they find; the last line counts it."""

import argparse

from .build import fetch_sources
from .checks import Report, files_of_project, text, trees, userland
from .kernel import FIXES
from .tree import PatchedTree


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def main(_arguments: argparse.Namespace) -> int:
    """Run all."""
    report = Report()
    files = files_of_project()
    for checker in (text.licences, text.shell, text.python, text.man_pages, text.spelling, text.links,
                    userland.line_length):
        checker(report, files)
    userland.clang_format(report)
    userland.cppcheck(report)
    userland.compilers(report)
    fetch_sources()
    linux, qemu = PatchedTree("linux"), PatchedTree("qemu")
    trees.same_tree(report, linux)
    trees.same_tree(report, qemu)
    trees.checkpatch(report, linux, "--strict", trees.NO_HISTORY)
    trees.checkpatch(report, linux, "--strict", trees.THEIR_NAMES, patches=FIXES)
    trees.checkpatch(report, qemu)
    trees.kernel(report, linux)
    print(f"check: {report.errors} errors, {report.warnings} warnings")
    return 1 if report.errors or report.warnings else 0
