# SPDX-License-Identifier: GPL-2.0-or-later
"""The checkers that `make check` runs, by what they look at, and the report that they share."""

import re
import subprocess
from pathlib import Path

from ..paths import TOP

LINE_LENGTH = 120
# Written by a program, or by others
GENERATED = re.compile(r"LICENSES/|tests/fuzz/corpus/|docs/.*\.svg$")


class Report:
    """The findings so far."""

    def __init__(self):
        self.errors = self.warnings = 0

    def add(self, what: str, errors: int, warnings: int, text: str = "") -> None:
        """Count a checker's findings and show them."""
        self.errors += errors
        self.warnings += warnings
        if errors or warnings:
            print(text.rstrip())
        print(f"check: {what}: {errors} errors, {warnings} warnings", flush=True)

    def add_lines(self, what: str, found: list[str]) -> None:
        """Count FOUND, an error each."""
        self.add(what, len(found), 0, "\n".join(found))


def run(*command: object, **kwargs) -> tuple[int, str]:
    """Run COMMAND; returns its status and all its output."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False, **kwargs)
    return done.returncode, done.stdout


def files_of_project() -> list[Path]:
    """The project's files, those not yet in git too."""
    listed = run("git", "-C", TOP, "ls-files", "-z", "--cached", "--others", "--exclude-standard")[1]
    return [TOP / name for name in listed.split("\0") if name and (TOP / name).is_file()]


def name_of(path: Path) -> str:
    """PATH as findings name it."""
    return str(path.relative_to(TOP))
