# SPDX-License-Identifier: GPL-2.0-or-later
"""Which QEMU machines run on: that of the host's own Debian release or, by QEMU=RELEASE, that of another one.

QEMU=bookworm,trixie: a partition boots on the first, and moves to the second. Nothing moves to an older QEMU.
"""

import functools
import os
import re
from pathlib import Path

from .paths import BUILD
from .step import output_of

RELEASES = [name for name in os.environ.get("QEMU", "").split(",") if name] or [""]


def qemu_of(release: str) -> Path:
    """The directory of RELEASE's QEMU, which also has its firmware and tests; "" is the host's release."""
    return BUILD / f"qemu-{release}" if release else (BUILD / "qemu-system-ppc64").resolve().parent


# Where a partition boots, and where it runs once it has moved
BOOTED, MOVED = qemu_of(RELEASES[0]), qemu_of(RELEASES[-1])


@functools.cache
def version(qemu: Path) -> tuple[int, int]:
    """Major and minor version of QEMU, a directory."""
    said = output_of(qemu / "qemu-system-ppc64", "--version")
    major, minor = re.search(r"version (\d+)\.(\d+)", said).groups()
    return int(major), int(minor)


def machine_type() -> str:
    """The type of all machines: the older QEMU's newest, if a partition moves to another QEMU."""
    if BOOTED == MOVED:
        return "pseries"
    major, minor = version(BOOTED)
    return f"pseries-{major}.{minor}"
