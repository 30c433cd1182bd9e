# SPDX-License-Identifier: GPL-2.0-or-later
"""Build what build/ holds: the targets named, in that order."""

import argparse
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .cache import code_of, key_of, link, result
from .fuzz_targets import build_targets
from .kernel import KERNELS, build_kernel
from .qemu import build_qemu
from .releases import build_qemu_of
from .sources import FLAVOURS, LIBRARIES, fetch, source
from .step import Step
from .tree import PatchedTree
from .userland import build_host, build_initramfs, build_partition


def fetch_sources(names: Sequence[str] = ("linux", "qemu", "busybox", LIBRARIES)) -> None:
    """Fetch the sources NAMES, apart from those that the user gave, all at once."""
    fetch([name for name in names if not os.environ.get(f"{name.upper()}_SRC")])


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
CHOICES = f"{', '.join(TARGETS)}, qemu-RELEASE (the QEMU of that Debian release)"


def builder(name: str) -> Callable[[], object] | None:
    """What builds target NAME, if there is such a target."""
    release = re.fullmatch(r"qemu-([a-z]+)", name)
    if release:
        return lambda: build_qemu_of(release[1])
    return TARGETS.get(name)


def target(name: str) -> str:
    """For argparse: the name of a target."""
    if not builder(name):
        raise argparse.ArgumentTypeError(f"there is no target '{name}', choose from: {CHOICES}")
    return name


def try_patches(targets: Sequence[str]) -> None:
    """Fail, before anything of TARGETS is built, if our changes do not fit the sources. Takes seconds."""
    names = ["qemu"] * ("qemu-system-ppc64" in targets)
    names += ["linux"] * any(name in KERNELS and KERNELS[name].ours and not KERNELS[name].newer for name in targets)
    fetch_sources([*names, *["busybox", LIBRARIES] * ("initramfs.cpio.gz" in targets)])
    trees = [PatchedTree(name) for name in names]

    def try_them(_place: Path) -> None:
        with Step("try-patches", "trying our patches on the sources") as step:
            for tree in trees:
                with tempfile.TemporaryDirectory() as place:
                    tree.history(step, Path(place))

    if trees:
        result("tried", lambda: key_of(*(part for tree in trees for part in tree.inputs()), *code_of(__file__)),
               try_them)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The targets."""
    parser.add_argument("targets", metavar="TARGET", nargs="+", type=target, help=CHOICES)


def main(arguments: argparse.Namespace) -> int:
    """Build them."""
    try_patches(arguments.targets)
    for name in arguments.targets:
        builder(name)()
    return 0
