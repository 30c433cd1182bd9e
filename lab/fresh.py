# SPDX-License-Identifier: GPL-2.0-or-later
"""Try the README's two commands on a machine that has nothing: a new root of a Debian release with git, make and
ca-certificates, made by debootstrap in the cache. It gets a clone of what is committed here, and a cache of its own.

Needs root, 12 GB of disk and, on two cores, most of an hour. The root is removed at the end unless --keep is given or
a command failed; `rm -rf` removes it later, as nothing stays mounted.
"""

import argparse
import os
import re
import shutil
import time
from pathlib import Path

from .cache import cache_dir
from .errors import LabError
from .paths import TOP
from .sources import release_suites
from .step import Step, output_of

# In namespaces of its own, so that no mount and no process outlives the command
ENTER = """
mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/tmp" &&
exec chroot "$0" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    sh -c 'cd /root/hvpipe && exec "$@"' sh "$@"
"""
# Settings of the host's apt that say how to reach a mirror
NETWORK = re.compile(r"^Acquire::(https?::|Check-|Retries)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The release, and how much of it."""
    parser.add_argument("release", metavar="RELEASE", help="the codename of a Debian release: bookworm, trixie")
    parser.add_argument("--tests", metavar="ARGUMENTS", default="tests",
                        help="arguments for pytest in `make test`, to try less than all")
    parser.add_argument("--keep", action="store_true", help="keep the root; its path is printed")


def main(arguments: argparse.Namespace) -> int:
    """Make the root, run both commands in it."""
    release = arguments.release
    if not re.fullmatch(r"[a-z]+", release):
        raise LabError(f"'{release}' is not the codename of a Debian release; give bookworm or trixie, for example")
    if os.geteuid() != 0:
        raise LabError("only root may make a root of another release: run it by sudo")
    if not shutil.which("debootstrap"):
        raise LabError("debootstrap is missing: apt-get install debootstrap")
    if output_of("git", "-C", TOP, "status", "--porcelain").strip():
        print("fresh: this checkout has changes that are not committed; they are not tried", flush=True)
    root = cache_dir() / "fresh" / release
    make_root(root, release)
    seconds = {}
    for name, command in (("run", ["make", "run"]), ("test", ["make", "test", f"TESTS={arguments.tests}"])):
        start = time.monotonic()
        with Step(f"fresh-{name}", f"{' '.join(command)} in {root}") as step:
            step.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, root, *command],
                     doing=" ".join(command), count=r"^tests/\S+ |^\w[\w-]*: .*done", unit="steps")
        seconds[name] = round(time.monotonic() - start)
        said = step.log.read_text(encoding="utf-8", errors="replace")
        if name == "run" and not re.search(r"^run: \d+ to partition, \d+ to HMC, 0 lost$", said, re.M):
            raise LabError(f"make run did not end with what it must: see {step.log}")
    summary = re.findall(r"^=+ (.*\bpassed\b.*) in .*=+$", said, re.M)
    if not summary:
        raise LabError(f"make test ended without pytest's summary: see {step.log}")
    if arguments.keep:
        print(f"fresh: kept {root}")
    else:
        shutil.rmtree(root)
    print(f"fresh: {release}, run {seconds['run']} s, test {seconds['test']} s, {summary[-1]}")
    return 0


def make_root(root: Path, release: str) -> None:
    """Make ROOT a machine of RELEASE that has nothing, with a clone of this checkout in /root/hvpipe."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    with Step("fresh-root", f"making a root of {release}") as step:
        codename, suites = release_suites(step)
        mirror = suites[codename]
        step.run(["debootstrap", "--variant=minbase", "--include=git,make,ca-certificates", release, root, mirror],
                 doing="debootstrap", count=r"^I: (Unpacking|Configuring)", unit="packages")
        security = suites[f"{codename}-security"]
        (root / "etc/apt/sources.list").write_text(
            f"deb {mirror} {release} main\ndeb {mirror} {release}-updates main\n"
            f"deb {security} {release}-security main\n", encoding="utf-8")
        settings = [line for line in output_of("apt-config", "dump").splitlines() if NETWORK.match(line)]
        (root / "etc/apt/apt.conf.d/99network").write_text("\n".join(settings) + "\n", encoding="utf-8")
        for name in ("resolv.conf", "hosts"):
            shutil.copyfile(Path("/etc", name), root / "etc" / name)
        step.run(["git", "clone", "--quiet", "--no-hardlinks", TOP, root / "root/hvpipe"], doing="cloning")
