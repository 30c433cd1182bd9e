# SPDX-License-Identifier: GPL-2.0-or-later
"""Format the C code of user space by .clang-format: what `make format` does."""

import argparse

from .paths import TOP
from .step import output_of

FOLDERS = ("daemon", "tools", "lib", "include", "guest", "bench", "tests/fuzz")


def user_space_code() -> list[str]:
    """The C files of user space, those that are not yet in git too."""
    patterns = [f"{folder}/*.{suffix}" for folder in FOLDERS for suffix in "ch"]
    listed = output_of("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns, cwd=TOP)
    return sorted({name for name in listed.split("\0") if name and (TOP / name).is_file()})


def unformatted() -> list[str]:
    """Those that clang-format would change."""
    return [name for name in user_space_code()
            if output_of("clang-format", name, cwd=TOP) != (TOP / name).read_text(encoding="utf-8")]


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def main(_arguments: argparse.Namespace) -> int:
    """Format all of it."""
    names = unformatted()
    for name in names:
        print(name)
    if names:
        output_of("clang-format", "-i", *names, cwd=TOP)
    print(f"format: {len(names)} files changed")
    return 0
