# SPDX-License-Identifier: GPL-2.0-or-later
"""The partition's kernels, each a result in the cache.

They are compiled in work trees that stay in the cache, so that a changed line costs one object.
"""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_dir, code_of, keep_newest, key_of, link, locked, result
from .errors import LabError
from .paths import TOP
from .step import Step, environment
from .toolchain import CROSS, JOBS, toolchain
from .tree import Changes, PatchedTree

CONFIGS = TOP / "linux/configs"
ABI_TESTS = "tools/testing/selftests/powerpc/papr_hvpipe"
FLOOR = (TOP / "bench/rtas-floor.c",)
NEWER_PATCHES = (TOP / "bench/linux-7.patch",)
# Our fixes for the driver that Linux ships, for the newest source that Debian has
FIXES = tuple(sorted((TOP / "linux/fixes").glob("*.patch")))
# Look for data races in the driver only. In the whole kernel there are too many that are not ours to judge, and too
# much to watch for one of ours to be met.
KCSAN = ("KCSAN_SANITIZE=n", "KCSAN_SANITIZE_papr-hvpipe.o=y")


@dataclass(frozen=True)
class Kernel:
    """How a kernel is built."""
    fragments: Sequence[str]        # of its configuration, in linux/configs
    ours: bool = True               # whether with our changes
    options: Sequence[str] = ()     # for make
    built_in: Sequence[Path] = ()   # more files for the bench
    newer: bool = False             # from the newest source that Debian has
    patches: Sequence[Path] = ()    # to a newer source
    objects: str = ""               # the kernel whose objects it shares, as both differ in little


KERNELS = {
    "vmlinux": Kernel(["partition.config"]),
    "vmlinux-debug": Kernel(["partition.config", "debug.config"]),
    "vmlinux-kcsan": Kernel(["partition.config", "kcsan.config"], options=KCSAN),
    "vmlinux-network": Kernel(["partition.config", "bench.config", "network.config"]),
    "vmlinux-plain": Kernel(["partition.config"], ours=False),
    # For `make test-kernels`: other page sizes, another byte order, Debian's newest Linux with our driver
    "vmlinux-4k": Kernel(["partition.config", "4k.config"]),
    "vmlinux-big-endian": Kernel(["partition.config", "big-endian.config"]),
    "vmlinux-newer-4k": Kernel(["partition.config", "linux-7.config", "4k.config"], newer=True, patches=NEWER_PATCHES),
    # What a Debian on a disk needs: `make debian KERNEL=vmlinux-disk`
    "vmlinux-disk": Kernel(["partition.config", "disk.config"]),
    # Without KUnit, with what measures a call of firmware alone
    "vmlinux-bench": Kernel(["partition.config", "bench.config"], built_in=FLOOR),
    # Linux as Debian's newest release has it, with its driver or with ours
    "vmlinux-debian": Kernel(["partition.config", "bench.config", "linux-7.config"], ours=False, built_in=FLOOR,
                             newer=True),
    "vmlinux-debian-ours": Kernel(["partition.config", "bench.config", "linux-7.config"], built_in=FLOOR, newer=True,
                                  patches=NEWER_PATCHES, objects="vmlinux-debian"),
    # and with our fixes for its driver
    "vmlinux-debian-fixed": Kernel(["partition.config", "bench.config", "linux-7.config"], ours=False, built_in=FLOOR,
                                   newer=True, patches=FIXES, objects="vmlinux-debian"),
}


def tree_of(kernel: Kernel) -> PatchedTree:
    """The tree that KERNEL is built from."""
    if kernel.newer:
        overlay = PatchedTree("linux").changes.overlay if kernel.ours else []
        return PatchedTree("linux", "newer", Changes(kernel.patches, overlay, replaces=True), kernel.built_in)
    return PatchedTree("linux", built_in=kernel.built_in)


def kernel_toolchain() -> list[str]:
    """What names the tools that compile a kernel."""
    return toolchain(("gcc", f"{CROSS}gcc", f"{CROSS}ld"), ("bc", "bison", "flex", "libelf-dev", "libssl-dev", "make"))


def check_config(fragments: Sequence[Path], config: Path, ours: bool) -> None:
    """Fail if CONFIG lacks something that FRAGMENTS say: kconfig silently drops what it cannot have.

    The last fragment counts where they disagree. Without OURS, the kernel does not know the driver's options.
    """
    have = config.read_text(encoding="utf-8").splitlines()
    asked = {}
    for fragment in fragments:
        for line in fragment.read_text(encoding="utf-8").splitlines():
            match = re.match(r"(?:# )?(CONFIG_\w+)(?:=| is not set)", line)
            if match and (ours or "PAPR_HVPIPE" not in line):
                asked[match[1]] = (line, fragment.name)
    lost = []
    for option, (line, where) in asked.items():
        off = line.endswith(("=n", "is not set"))
        if any(have_line.startswith(option + "=") for have_line in have) if off else line not in have:
            lost.append(f"{where}: {line}")
    if lost:
        raise LabError("the kernel's configuration did not take:\n  " + "\n  ".join(lost))


def kernel_make(tree: Path, objects: Path) -> list[object]:
    """The words that begin every make call for the partition's kernel."""
    # LOCALVERSION: no "+" for a tree that is in git
    return ["make", "-C", tree, f"O={objects}", "ARCH=powerpc", f"CROSS_COMPILE={CROSS}", JOBS, "LOCALVERSION=",
            "KBUILD_BUILD_USER=hvpipe", "KBUILD_BUILD_HOST=hvpipe", "KBUILD_BUILD_TIMESTAMP=1970-01-01",
            "KBUILD_BUILD_VERSION=1"]


def kernel_config(step: Step, make: list[object], objects: Path, fragments: Sequence[Path], ours: bool) -> None:
    """Configure OBJECTS by FRAGMENTS over allnoconfig; an unchanged .config keeps its time."""
    objects.mkdir(parents=True, exist_ok=True)
    merged = objects / "hvpipe.config"
    config = objects / ".config"
    merged.write_text("\n".join(part.read_text(encoding="utf-8") for part in fragments), encoding="utf-8")
    before = config.read_bytes() if config.exists() else None
    times = config.stat() if config.exists() else None
    step.run([*make, "allnoconfig"], doing="configuring", env=environment(KCONFIG_ALLCONFIG=str(merged)))
    check_config(fragments, config, ours)
    if times and before == config.read_bytes():
        os.utime(config, ns=(times.st_atime_ns, times.st_mtime_ns))


def objects_dir(name: str, version: str, *depends: object) -> Path:
    """Where the objects of NAME are kept between builds: not those of another compiler."""
    work = cache_dir() / "work"
    work.mkdir(parents=True, exist_ok=True)
    place = work / f"{name}-{version}-{key_of(*depends)[:8]}.objects"
    place.mkdir(exist_ok=True)
    os.utime(place)
    keep_newest(work, re.escape(f"{name}-{version}-") + r"[0-9a-f]{8}\.objects", 2)
    return place


def build_kernel(name: str) -> Path:
    """build/NAME, one of KERNELS; returns the directory of the result."""
    how = KERNELS[name]
    fragments = [CONFIGS / fragment for fragment in how.fragments]
    tree = tree_of(how)
    # The unpatched kernel is compiled in the source itself and keeps nobody from the work tree.
    patched = how.ours or bool(how.built_in)

    def key() -> str:
        now = tree_of(how)
        return key_of(*kernel_toolchain(), *(now.inputs() if patched else [now.source.version]), *fragments,
                      *how.options, *code_of(__file__))

    def make_it(place: Path) -> None:
        objects = objects_dir(how.objects or name, tree.source.version, *kernel_toolchain())
        with locked(tree.path.name if patched else objects.name), \
                Step(name, "building the partition's kernel" if how.ours else "building a kernel without our changes") \
                as step:
            if patched:
                tree.prepare(step)
            make = kernel_make(tree.path if patched else tree.source.path, objects)
            kernel_config(step, make, objects, fragments, patched)
            step.run([*make, *how.options, "vmlinux"], doing="compiling", count=r"^  (CC|AS|HOSTCC)\b",
                     env=environment())
            if how.ours and not how.built_in:
                step.run([*make, "headers_install", f"INSTALL_HDR_PATH={place / 'usr'}"], env=environment(),
                         doing="installing headers")
                (place / ABI_TESTS).mkdir(parents=True)
                for header in (tree.path / "tools/testing/selftests").glob("kselftest*.h"):
                    shutil.copy(header, place / ABI_TESTS / "../..")
            shutil.copy(objects / "vmlinux", place)
            shutil.copy(objects / ".config", place / "config")

    place = result(name, key, make_it)
    if patched:
        tree.tell_if_edited()
    link(place / "vmlinux", name)
    return place
