# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Debian partition: systemd, apt, a disk, Debian's own unmodified kernel or ours, and our packages.

Its root is made by mmdebstrap with the emulation of single programs, so that no partition needs to run for it, and
stays in the cache; our packages are installed in it by apt. On a terminal this ends with its console and the HMC side
by side, where the disk of the cache is left as it is; with --test it runs tests/debian.py.
"""

import argparse
import gzip
import lzma
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from .cache import keep_newest, key_of, link, result
from .cpio import Entry, archive
from .deb import build_packages
from .errors import LabError
from .machine import LINUX_OPTIONS, LINUX_PERSONALITY, qemu_command
from .paths import BUILD, TOP
from .root import in_root, network_settings, say_if_missing
from .shell import LINES, PARTITION_HINT, prepare_hmc, run_session
from .sources import busybox, release_suites
from .step import Step, exit_on_signals
from .userland import GUEST

BINFMT = Path("/proc/sys/fs/binfmt_misc")
EMULATION = Path("/usr/lib/binfmt.d/qemu-ppc64le.conf")
# What our packages depend on is there, so that they are installed without asking the mirror.
PACKAGES = ("dbus", "initramfs-tools", "kmod", "libglib2.0-0t64", "libjson-c5", "libmd0", "libsqlite3-0", "login",
            "openssl", "procps", "python3", "systemd-sysv", "udev", "zstd")
KERNEL = "linux-image-powerpc64le"
KEPT = 2                # roots and disks of each release: they are large
DISK = "2G"
OURS = "vmlinux-disk"   # our kernel with what the disk and systemd need, and with our driver
INSTALLED = "/srv/hvpipe"   # where the partition has our packages
# The disk is one that a virtual I/O server gives, as under PowerVM. The initramfs is our own, with what mounts the disk
# and no more: Debian's takes minutes to make where each of a thousand small programs is emulated.
MODULES = ("ibmvscsi", "sd_mod", "ext4")
NO_INITRAMFS = "--dpkgopt=path-exclude=/etc/kernel/postinst.d/initramfs-tools"
FILES = {
    "etc/hostname": "partition\n",
    "etc/motd": PARTITION_HINT,
    # No questions at the first boot
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/systemd/system/serial-getty@hvc0.service.d/autologin.conf":
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200,9600 - $TERM\n",
    # systemd must not know of the agent's terminal: it would ask it for its name.
    "etc/systemd/system/agent.service":
        "[Unit]\nDescription=Agent of hvpipe's lab\nConditionPathExists=/dev/hvc1\n\n"
        "[Service]\nEnvironment=HOME=/root\nExecStart=/bin/sh -c 'exec /usr/local/bin/agent </dev/hvc1 >/dev/hvc1'\n\n"
        "[Install]\nWantedBy=multi-user.target\n",
}


def register_emulation() -> None:
    """Let this machine run programs for ppc64el."""
    if (BINFMT / "qemu-ppc64le").exists():
        return
    if not EMULATION.exists():
        raise LabError(f"{EMULATION} is missing: apt-get install qemu-user-static")
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], check=True)
    (BINFMT / "register").write_text(EMULATION.read_text(encoding="ascii").strip(), encoding="ascii")


def bootstrap_command(step: Step, release: str, place: Path) -> list[object]:
    """The words that make PLACE, an archive of a root of RELEASE."""
    codename, suites = release_suites(step)
    mirror, security = suites[codename], suites[f"{codename}-security"]
    lines = [f"deb {mirror} {release} main"]
    kernel = KERNEL
    if release == "trixie":
        # Its own kernel is older than the driver.
        kernel = f"{KERNEL}/{release}-backports"
        lines += [f"deb {mirror} {release}-updates main", f"deb {mirror} {release}-backports main",
                  f"deb {security} {release}-security main"]
    return ["mmdebstrap", "--mode=root", "--architectures=ppc64el", "--variant=minbase",
            f"--include={','.join((*PACKAGES, kernel))}", NO_INITRAMFS,
            *(f"--aptopt={line}" for line in network_settings()),
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")),
            release, place, *lines]


def build_base(release: str) -> Path:
    """An archive of a root of RELEASE without our packages."""
    def make_it(place: Path) -> None:
        register_emulation()
        with Step(f"debian-{release}", f"making a root of {release} for a partition, which takes minutes") as step:
            try:
                step.run(bootstrap_command(step, release, place / "root.tar"), doing="mmdebstrap")
            except LabError as error:
                raise say_if_missing(release, error) from None

    place = result(f"debian-{release}", lambda: key_of(release, *PACKAGES, KERNEL, NO_INITRAMFS), make_it)
    keep_newest(place.parent, rf"debian-{release}-[0-9a-f]{{24}}", KEPT)
    return place / "root.tar"


def initramfs_of(root: Path) -> bytes:
    """An initramfs that mounts the disk, with the modules of the kernel in ROOT."""
    directory, = (root / "usr/lib/modules").iterdir()
    lines = (directory / "modules.dep").read_text(encoding="ascii").splitlines()
    needs = {name: words.split() for name, _, words in (line.partition(":") for line in lines)}
    wanted: dict[str, None] = {}
    for module in MODULES:
        path, = (name for name in needs if Path(name).name.partition(".")[0] == module)
        wanted |= dict.fromkeys([*reversed(needs[path]), path])
    entries: dict[str, Entry] = {"bin/busybox": busybox(), "init": GUEST / "init-disk",
                                 **dict.fromkeys(("dev", "root"))}
    for number, name in enumerate(wanted, 1):
        data = (directory / name).read_bytes()
        entries[f"modules/{number:02}"] = lzma.decompress(data) if name.endswith(".xz") else data
    return gzip.compress(archive(entries), compresslevel=6, mtime=0)


def install(step: Step, root: Path, packages: list[Path]) -> None:
    """Install our PACKAGES and what the lab needs in ROOT."""
    where = root / INSTALLED.lstrip("/")
    where.mkdir(parents=True)
    for package in packages:
        shutil.copy(package, where)
    step.run(in_root(root, Path(INSTALLED), ["sh", "-c", "apt-get install --yes --no-install-recommends ./*.deb"],
                     DEBIAN_FRONTEND="noninteractive"), doing="installing our packages by apt")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    shutil.copy(GUEST / "agent", root / "usr/local/bin/agent")
    step.run(in_root(root, Path("/"), ["sh", "-c", "passwd --delete root && systemctl enable agent.service && "
                                       "systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer"]))


def build_disk(release: str) -> Path:
    """build/debian/RELEASE: a directory with disk, vmlinuz and initramfs."""
    base = build_base(release)
    packages = [path for path in sorted(build_packages(release).glob("*.deb"))
                if path.name.startswith(("hvpipe_", "libhvpipe1_", "python3-"))]

    def make_it(place: Path) -> None:
        register_emulation()
        root = place / "root"
        with Step(f"debian-disk-{release}", "making the partition's disk") as step:
            root.mkdir()
            step.run(["tar", "--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", root, "-f", base],
                     doing="unpacking the root")
            install(step, root, packages)
            kernel, = (root / "boot").glob("vmlinu[xz]-*")
            shutil.copy(kernel, place / "vmlinuz")
            (place / "initramfs").write_bytes(initramfs_of(root))
            step.run(["mke2fs", "-q", "-t", "ext4", "-d", root, place / "disk", DISK], doing="writing the disk")
            shutil.rmtree(root)

    place = result(f"debian-disk-{release}", lambda: key_of(
        base.parent.name, FILES, DISK, MODULES, GUEST / "agent", GUEST / "init-disk", *packages), make_it)
    keep_newest(place.parent, rf"debian-disk-{release}-[0-9a-f]{{24}}", KEPT)
    link(place, f"debian/{release}")
    return BUILD / "debian" / release


def chosen_kernel() -> str:
    """What $KERNEL names: nothing for Debian's kernel, or OURS."""
    kernel = os.environ.get("KERNEL", "")
    if kernel not in ("", OURS):
        raise LabError(f"KERNEL={kernel} does not boot from a disk: take KERNEL={OURS}, or none for Debian's kernel")
    return kernel


def partition_of(release: str, disk: Path, snapshot: bool = False) -> dict[str, object]:
    """How a Partition of RELEASE runs from DISK on the chosen kernel; with SNAPSHOT, DISK stays as it is.

    See qemu_command(). The driver in Debian's kernel is the one that Linux ships: see LINUX_DRIVER.
    """
    place = BUILD / "debian" / release
    drive = f"file={disk},format=raw,if=none,id=disk,cache=unsafe,snapshot={'on' if snapshot else 'off'}"
    options = ["-device", "spapr-vscsi", "-drive", drive, "-device", "scsi-hd,drive=disk"]
    if chosen_kernel():
        return {"append": "root=/dev/sda rw rootwait", "kernel": OURS, "initramfs": None, "options": options}
    return {"append": "root=/dev/sda rw", "kernel": place / "vmlinuz", "initramfs": place / "initramfs",
            "personality": LINUX_PERSONALITY, "options": [*LINUX_OPTIONS, *options]}


def run_tests(release: str) -> int:
    """Run tests/debian.py on RELEASE; the last line counts its tests."""
    results = BUILD / "debian-tests.xml"
    results.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "pytest", "-sv", "-o", "junit_family=xunit1", f"--junit-xml={results}",
                    TOP / "tests/debian.py"], cwd=TOP,
                   env={**os.environ, "RELEASE": release}, check=False)
    if not results.exists():
        raise LabError("the tests did not run")
    suite = ElementTree.parse(results).getroot().find("testsuite")
    total, failed = int(suite.get("tests")), int(suite.get("failures")) + int(suite.get("errors"))
    print(f"debian: {total - failed - int(suite.get('skipped'))} passed, {failed} failed")
    return 1 if failed else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The release, and what to do with it."""
    parser.add_argument("release", metavar="RELEASE", help="the codename of a Debian release: trixie, forky")
    parser.add_argument("--test", action="store_true", help="run the tests instead of a console")


def main(arguments: argparse.Namespace) -> int:
    """Make the disk, then run tests or a console."""
    release = arguments.release
    chosen_kernel()
    place = build_disk(release)
    if arguments.test:
        return run_tests(release)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(f"debian: {place.relative_to(TOP)} is ready. On a terminal this opens its console; TEST=1 tests it")
        return 0
    exit_on_signals()

    def prepare(directory: Path) -> tuple[list[str], list[str]]:
        how = partition_of(release, place / "disk", snapshot=True)
        return qemu_command(Path(), "debian", LINES, sources=["hmc1", "hmc2"], **how), prepare_hmc(directory)
    return run_session(prepare)
