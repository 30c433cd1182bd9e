# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the Debian packages of this checkout, committed or not, into build/deb/RELEASE, and run lintian on them.

They are built in a root of RELEASE: those for a partition by cross compiling (ppc64el), those for the HMC's side for
this machine. hvpipe-lab gets QEMU, kernel and initramfs as `make build` left them, and so needs the libraries of the
host's release or later ones.
"""

import argparse
import re
import shutil
from pathlib import Path

from .cache import key_of, link, locked, result
from .checks import files_of_project
from .errors import LabError
from .paths import BUILD, TOP
from .root import in_root, root_of, say_if_missing
from .step import Step
from .toolchain import CROSS

PACKAGING = TOP / "packaging/debian"
# What packages are built from, and what hvpipe-lab holds that was built before
SOURCES = [TOP / name for name in ("daemon", "include", "lib", "linux/arch/powerpc/include/uapi", "meson.build",
                                   "meson_options.txt", "packaging", "python", "qemu/include/hw/ppc", "tools")]
BUILT = ("initramfs.cpio.gz", "pc-bios/vof.bin", "pc-bios/vof-nvram.bin", "qemu-system-ppc64", "vmlinux")
INSIDE = Path("/build")         # where the root sees what is built
PARTITION = "ppc64el"
TOOLS = ("build-essential", "crossbuild-essential-ppc64el", "fakeroot", "lintian")  # beside what debian/control says
BUILD_DEP = "apt-get build-dep --yes --no-install-recommends"


def source_files() -> list[Path]:
    """The files of SOURCES."""
    return [path for path in files_of_project() if any(path.is_relative_to(place) for place in SOURCES)]


def copy_project(step: Step, tree: Path) -> None:
    """Make TREE what dpkg-buildpackage takes."""
    for path in source_files():
        target = tree / path.relative_to(TOP)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copytree(PACKAGING, tree / "debian")
    for name in BUILT:
        target = tree / "prebuilt" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(BUILD / name, target)
    (tree / "prebuilt/qemu-system-ppc64").chmod(0o755)
    step.run(["strip", tree / "prebuilt/qemu-system-ppc64"])
    step.run([f"{CROSS}strip", tree / "prebuilt/vmlinux"])


def prepare_root(step: Step, root: Path, release: str, tree: Path) -> None:
    """Install in ROOT what the packages in TREE are built with, for both machines."""
    stamp = root / "root/build-dependencies"
    asked = key_of(tree / "debian/control", *TOOLS)
    if stamp.exists() and stamp.read_text(encoding="ascii") == asked:
        return
    # A try before may have ended in the middle of an installation, which is repaired first.
    # Of the release alone, without its updates: what is built so runs with each of them, and the libraries of both
    # machines are of one version, also where the mirror has updates for one of them only.
    script = f"""set -e
        export DEBIAN_FRONTEND=noninteractive
        sed -i '/-updates\\|-security/d' /etc/apt/sources.list
        dpkg --add-architecture {PARTITION}
        apt-get update --error-on=any
        dpkg --configure --pending || true
        apt-get install --yes --fix-broken
        apt-get install --yes --no-install-recommends {' '.join(TOOLS)}
        {BUILD_DEP} ./
        {BUILD_DEP} --host-architecture {PARTITION} --build-profiles cross,nocheck ./"""
    try:
        step.run(in_root(root, INSIDE / tree.name, ["sh", "-c", script], {INSIDE: tree.parent}),
                 doing=f"installing what builds packages of {release}", count=r"^Setting up ", unit="packages")
    except LabError as error:
        raise say_if_missing(release, error) from None
    stamp.write_text(asked, encoding="ascii")


def build(step: Step, root: Path, tree: Path) -> None:
    """Build the packages of TREE in ROOT, beside TREE."""
    where, binds = INSIDE / tree.name, {INSIDE: tree.parent}
    for what, options, more in (("this machine", ["--build=any,all"], {}),
                                ("the partition", ["--build=any", f"--host-arch={PARTITION}"],
                                 {"DEB_BUILD_PROFILES": "cross nocheck"})):
        step.run(in_root(root, where, ["dpkg-buildpackage", "--no-sign", *options], binds,
                         DEB_BUILD_OPTIONS="noautodbgsym", **more),
                 doing=f"building packages for {what}", count=r"^dpkg-deb: building", unit="packages")


def check(step: Step, root: Path, place: Path) -> None:
    """Run lintian on the packages in PLACE, and write what it finds to PLACE/lintian."""
    changes = sorted(path.name for path in place.glob("*.changes"))
    step.run(in_root(root, INSIDE, ["lintian", "--allow-root", "--tag-display-limit=0", *changes], {INSIDE: place}),
             doing="lintian", check=False)
    found = re.findall(r"^[EW]: .*\n", step.log.read_text(encoding="utf-8"), re.M)
    (place / "lintian").write_text("".join(found), encoding="utf-8")


def build_packages(release: str) -> Path:
    """The directory of all packages of RELEASE, which build/deb/RELEASE is then."""
    def make_them(place: Path) -> None:
        version = re.search(r"\((.*?)\)", (PACKAGING / "changelog").read_text(encoding="utf-8"))[1]
        tree = place / f"hvpipe-{version}"
        with locked(f"root-{release}"):
            root = root_of(release)
            with Step(f"deb-{release}", f"building packages in a root of {release}") as step:
                copy_project(step, tree)
                prepare_root(step, root, release, tree)
                build(step, root, tree)
            shutil.rmtree(tree)
            with Step(f"lintian-{release}", "checking the packages") as step:
                check(step, root, place)

    place = result(f"deb-{release}", lambda: key_of(
        *source_files(), *(BUILD / name if name.endswith(".gz") else (BUILD / name).resolve().parent.name
                           for name in BUILT), Path(__file__)), make_them)
    link(place, f"deb/{release}")
    return BUILD / "deb" / release


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The release."""
    parser.add_argument("release", metavar="RELEASE", help="the codename of a Debian release: bookworm, trixie, forky")


def main(arguments: argparse.Namespace) -> int:
    """Build them all; the last line counts packages and lintian's errors."""
    place = build_packages(arguments.release)
    packages = sorted(place.glob("*.deb"))
    for package in packages:
        print(f"    {package.relative_to(TOP)}  {package.stat().st_size / 1e6:.1f} MB")
    found = (place / "lintian").read_text(encoding="utf-8")
    print(found, end="")
    errors = len(re.findall(r"^E:", found, re.M))
    print(f"deb: {len(packages)} packages, {errors} lintian errors")
    return 1 if errors else 0
