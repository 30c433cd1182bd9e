# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypervisor: QEMU with our devices, their tests, and the partition's firmware, as one result in the cache."""

import shutil
from pathlib import Path

from .cache import code_of, files_under, key_of, link, locked, replace, result
from .kernel import objects_dir
from .paths import TOP
from .step import Step, environment
from .toolchain import CROSS, toolchain
from .tree import PatchedTree

CONFIGS = TOP / "qemu/configs"


def qemu_toolchain() -> list[str]:
    """What names the tools and libraries that QEMU is made with."""
    return toolchain(("gcc", f"{CROSS}gcc", f"{CROSS}ld"),
                     ("libfdt-dev", "libglib2.0-dev", "libpixman-1-dev", "ninja-build", "zlib1g-dev"))


def configure_arguments(tree: Path) -> list[str]:
    """What QEMU's configure in TREE is called with."""
    lines = (CONFIGS / "configure.args").read_text(encoding="utf-8").splitlines()
    arguments = [line for line in lines if line and not line.startswith("#")]
    # What a tree that is in git would have by default: warnings as errors, and submodules from the network
    arguments.append("--disable-werror")
    if "--with-git-submodules" in (tree / "configure").read_text(encoding="utf-8"):
        arguments.append("--with-git-submodules=ignore")
    return arguments


def build_qemu() -> Path:
    """build/qemu-system-ppc64, build/pc-bios with vof.bin, build/qemu-tests; beside the first, qemu-plugin.h.

    Returns the directory of all that.
    """
    tree = PatchedTree("qemu")

    def key() -> str:
        return key_of(*qemu_toolchain(), *PatchedTree("qemu").inputs(), *files_under(CONFIGS), *code_of(__file__))

    def make_it(place: Path) -> None:
        with locked(tree.path.name), Step("qemu", "building the hypervisor") as step:
            tree.prepare(step)
            replace(CONFIGS / "hvpipe.mak", tree.path / "configs/devices/ppc64-softmmu/hvpipe.mak")
            arguments = configure_arguments(tree.source.path)
            objects = objects_dir("qemu", tree.source.version, *qemu_toolchain(), *arguments)
            if not (objects / "build.ninja").exists():
                shutil.rmtree(objects)
                objects.mkdir()
                step.run([tree.path / "configure", *arguments], doing="configuring", cwd=objects, env=environment())
            tests = sorted(path.stem for path in (TOP / "qemu/tests/qtest").glob("*-test.c"))
            step.run(["ninja", "-C", objects, "qemu-system-ppc64", *(f"tests/qtest/{test}" for test in tests)],
                     doing="compiling", count=r"^\[\d+/\d+\] (Compiling|Linking)", env=environment())
            (place / "pc-bios").mkdir()
            (place / "tests").mkdir()
            shutil.copy(objects / "qemu-system-ppc64", place)
            for test in tests:
                shutil.copy(objects / "tests/qtest" / test, place / "tests")
            shutil.copy(tree.path / "include/qemu/qemu-plugin.h", place)
            shutil.copy(tree.path / "pc-bios/vof-nvram.bin", place / "pc-bios")
            build_vof(step, tree.path / "pc-bios/vof", place / "pc-bios")

    place = result("qemu", key, make_it)
    tree.tell_if_edited()
    link(place / "qemu-system-ppc64", "qemu-system-ppc64")
    link(place / "pc-bios", "pc-bios")
    link(place / "tests", "qemu-tests")
    return place


def build_vof(step: Step, code: Path, place: Path) -> None:
    """Build the partition's open firmware, whose binary Debian's source package leaves out, with our cross compiler."""
    objects = place / "vof.objects"
    objects.mkdir()
    (objects / "config.mak").touch()    # the Makefile insists on one
    step.run(["make", "-C", objects, "-f", code / "Makefile", f"SRC_DIR={code}", f"CC={CROSS}gcc -m32 -mbig-endian",
              f"LD={CROSS}ld -m elf32ppc", f"OBJCOPY={CROSS}objcopy", "vof.bin"], doing="building vof.bin",
             env=environment())
    shutil.copy(objects / "vof.bin", place)
    shutil.rmtree(objects)
