# SPDX-License-Identifier: GPL-2.0-or-later
"""Build what build/ holds: the targets named, in that order."""

import argparse
import os

from .cache import link
from .fuzz_targets import build_targets
from .kernel import KERNELS, build_kernel
from .qemu import build_qemu
from .sources import FLAVOURS, LIBRARIES, fetch, source
from .userland import build_host, build_initramfs, build_partition


def fetch_sources() -> None:
    """Fetch the sources that every build needs, apart from those that the user gave, all at once."""
    fetch([name for name in ("linux", "qemu", "busybox", LIBRARIES) if not os.environ.get(f"{name.upper()}_SRC")])


def link_debian(name: str, flavour: str) -> None:
    """build/NAME: Debian's own kernel of FLAVOUR, which nobody compiles here."""
    link(source("debian").path / flavour / "vmlinuz", name)


TARGETS = {
    "sources": fetch_sources,
    **{name: lambda name=name, flavour=flavour: link_debian(name, flavour)
       for name, flavour in zip(("debian", "debian-64k"), FLAVOURS)},
    **{name: lambda name=name: build_kernel(name) for name in KERNELS},
    "qemu-system-ppc64": build_qemu,
    "host": build_host,
    "partition": build_partition,
    "initramfs.cpio.gz": build_initramfs,
    "fuzz": build_targets,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The targets."""
    parser.add_argument("targets", metavar="TARGET", nargs="+", choices=TARGETS, help=", ".join(TARGETS))


def main(arguments: argparse.Namespace) -> int:
    """Build them."""
    for name in arguments.targets:
        TARGETS[name]()
    return 0
