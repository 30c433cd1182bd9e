# SPDX-License-Identifier: GPL-2.0-or-later
"""Install what people use: the HMC's part on this machine, or the partition's part for Power (ppc64el) into DESTDIR.

Both are built without tests. PREFIX and DESTDIR are as in any `make install`.
"""

import argparse
import os
from pathlib import Path

from .cache import locked
from .paths import BUILD
from .step import Step, environment
from .toolchain import toolchain
from .userland import build_with_meson, cross_files

PARTS = {"hmc": "this machine", "partition": "the partition"}    # what is built, and for whom


def options_for(part: str) -> tuple[list[object], list[str]]:
    """Meson's options for PART, and what names the versions of the tools and libraries that it is made with."""
    if part == "partition":
        options, versions = cross_files()
        return [*options, "-Dhmc=disabled"], versions
    return ["-Dpartition=disabled"], toolchain(("gcc",), ("libglib2.0-dev", "libjson-c-dev", "libmd-dev",
                                                          "libreadline-dev", "libsqlite3-dev", "meson"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The part, and where to."""
    parser.add_argument("part", metavar="PART", choices=PARTS, help="hmc or partition")
    parser.add_argument("--prefix", default="/usr/local", help="where it is used; /usr/local by default")
    parser.add_argument("--destdir", default="", help="a directory that stands for / while it is installed")


def main(arguments: argparse.Namespace) -> int:
    """Build and install it."""
    place, destdir = BUILD / f"install-{arguments.part}", arguments.destdir
    with locked("userland"):
        options, versions = options_for(arguments.part)
        build_with_meson(place.name, f"building user space for {PARTS[arguments.part]}, without tests", versions,
                         *options, "-Dtests=disabled", "--buildtype=debugoptimized", f"--prefix={arguments.prefix}")
        with Step(f"{place.name}-files", f"installing it into {os.path.join(destdir, arguments.prefix.lstrip('/'))}"
                  if destdir else f"installing it into {arguments.prefix}") as step:
            step.run(["meson", "install", "-C", place, "--no-rebuild"],
                     env=environment(**({"DESTDIR": str(Path(destdir).absolute())} if destdir else {})))
    return 0
