# SPDX-License-Identifier: GPL-2.0-or-later
"""User space, which is small and is built in build/ itself: for the host, and for the partition with its initramfs."""

import gzip
import json
import os
import shutil
from pathlib import Path

from .cache import files_under, locked
from .cpio import Device, Entry, archive
from .kernel import ABI_TESTS, build_kernel
from .paths import BUILD, TOP
from .sources import LIBRARIES, busybox, source
from .step import Step, environment
from .toolchain import CROSS, toolchain

PARTITION = BUILD / "partition"
INITRAMFS = BUILD / "initramfs.cpio.gz"
GUEST = TOP / "guest"
# In the partition: a shell script of guest/ each
SCRIPTS = {"init": "init", "bin/agent": "agent", "bin/holder": "holder"}
WARNINGS = "-Wall -Wextra -Wno-unused-parameter -Werror"


def build_with_meson(name: str, what: str, versions: list[str], *options: object) -> None:
    """Configure (again if OPTIONS or the tools' VERSIONS are other ones) and build user space in build/NAME."""
    place = BUILD / name
    asked = json.dumps([str(option) for option in options] + versions)
    stamp = place / "options.asked"
    with Step(name, what) as step:
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != asked:
            shutil.rmtree(place, ignore_errors=True)
            step.run(["meson", "setup", *options, place, TOP], doing="configuring", env=environment())
            stamp.write_text(asked, encoding="utf-8")
        step.run(["ninja", "-C", place], doing="compiling", count=r"^\[\d+/\d+\] Compiling", env=environment())


def build_host() -> None:
    """build/host: library and tools for this machine, with their unit tests."""
    versions = toolchain(("gcc",), ("libcmocka-dev", "libglib2.0-dev", "libjson-c-dev", "libmd-dev", "libreadline-dev",
                                    "libsqlite3-dev", "libsystemd-dev", "meson"))
    with locked("userland"):
        build_with_meson("host", "building user space for the host", versions, "-Dtests=enabled", "-Dwerror=true")


def library_rules(libraries: Path) -> str:
    """Meson's cross file for the static libraries of Debian that are unpacked in LIBRARIES."""
    return (f"[binaries]\npkgconfig = 'pkg-config'\n\n[properties]\nsys_root = '{libraries}'\n"
            f"pkg_config_libdir = '{libraries}/usr/lib/powerpc64le-linux-gnu/pkgconfig'\n")


def cross_files() -> tuple[list[object], list[str]]:
    """Meson's options to compile for the partition, and what names the versions of all that goes in."""
    libraries = source(LIBRARIES)
    rules = BUILD / "partition-libraries.ini"
    rules.parent.mkdir(parents=True, exist_ok=True)
    rules.write_text(library_rules(libraries.path), encoding="utf-8")
    versions = toolchain((f"{CROSS}gcc", f"{CROSS}ld"), ("libc6-dev-ppc64el-cross", "meson"))
    # A partition need not have the libraries of this release.
    return ["--cross-file", TOP / "packaging/ppc64le-linux-gnu.ini", "--cross-file", rules, "-Dprefer_static=true"], \
        [*versions, libraries.version]


def build_partition() -> None:
    """build/partition: hvpipe, the ABI tests and the programs of guest/ and bench/, all static."""
    kernel = build_kernel("vmlinux")
    with locked("userland"):
        options, versions = cross_files()
        build_with_meson("partition", "building user space for the partition", versions, *options,
                         "--default-library=static", "-Dc_link_args=-static", "-Dhmc=disabled", "-Dtests=disabled",
                         "-Dwerror=true")
        with Step("partition-programs", "building what runs in the partition") as step:
            rules = PARTITION / "programs.ninja"
            rules.write_text(program_rules(kernel), encoding="utf-8")
            step.run(["ninja", "-C", PARTITION, "-f", rules.name], doing="compiling", count=r"^\[\d+/\d+\]",
                     unit="programs", env=environment())
            step.run(["ninja", "-C", PARTITION, "-f", rules.name, "-t", "cleandead"], env=environment())


def program_rules(kernel: Path) -> str:
    """Ninja's rules for the partition's programs, to rebuild those that changed; KERNEL has the ABI's headers."""
    # Nothing may depend on the checkout's path: __FILE__, debug information and what is computed from it do.
    compile_one = (f"{CROSS}gcc -std=gnu11 -O2 {WARNINGS} -static -pthread -s -ffile-prefix-map={TOP}/= "
                   "-MMD -MF $out.d")
    library = "lib/libhvpipe.a"
    # The kernel's test harness was not written for -Wextra.
    abi = f"-Wno-clobbered -Wno-sign-compare -isystem {kernel / 'usr/include'} -iquote {kernel / ABI_TESTS}"
    strip = f"{CROSS}strip --remove-section=.note.gnu.build-id -o $out $in"
    lines = [f"builddir = .programs\n"
             f"rule compile\n  command = {compile_one} $more -o $out $in $libraries\n  depfile = $out.d\n  deps = gcc\n"
             f"  description = $out\n"
             f"rule strip\n  command = {strip}\n  description = $out\n"
             f"build hvpipe: strip tools/hvpipe/hvpipe\nbuild hvpiped: strip daemon/hvpiped\n"]
    for place, more, libraries, programs in (
            ("guest", "", "", GUEST.glob("*.c")),
            ("bench", f"-I {TOP / 'include'}", library, (TOP / "bench" / name for name in ("bench.c", "peers.c"))),
            ("abi", abi, "", (TOP / "linux" / ABI_TESTS).glob("*.c"))):
        lines += [f"build {place}/{path.stem}: compile {path} | {libraries}\n  more = {more}\n"
                  f"  libraries = {libraries}\n" for path in sorted(programs)]
    return "".join(lines)


def build_initramfs() -> None:
    """build/initramfs.cpio.gz: busybox, our scripts, hvpipe and ABI tests; the same bytes from the same inputs."""
    build_partition()
    entries: dict[str, Entry] = {"dev/console": Device(5, 1), "bin/busybox": busybox(),
                                 "bin/hvpipe": PARTITION / "hvpipe"}
    entries.update({place: GUEST / name for place, name in SCRIPTS.items()})
    entries.update({f"abi/{path.name}": path for path in files_under(PARTITION / "abi")})
    entries.update(dict.fromkeys(("dev", "proc", "sys", "tmp", "run", "root", "etc")))
    fresh = INITRAMFS.with_name(f".{INITRAMFS.name}.{os.getpid()}")
    fresh.write_bytes(gzip.compress(archive(entries), compresslevel=6, mtime=0))
    fresh.replace(INITRAMFS)
