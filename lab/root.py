# SPDX-License-Identifier: GPL-2.0-or-later
"""Roots: machines of other Debian releases, each in a directory, made by debootstrap and entered by chroot.

Each command in a root has namespaces of its own, so that no mount and no process outlives it, and `rm -rf` is enough to
remove a root.
"""

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from .cache import cache_dir
from .errors import LabError
from .sources import REPLACING, release_suites
from .step import Step, output_of

# Settings of the host's apt that say how to reach a mirror
NETWORK = re.compile(r"^Acquire::(https?::|Check-|Retries)")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def refuse_if_impossible(release: str) -> None:
    """Fail if no root of RELEASE can be made here."""
    if not re.fullmatch(r"[a-z]+", release):
        raise LabError(f"'{release}' is not the codename of a Debian release; give bookworm or trixie, for example")
    if os.geteuid() != 0:
        raise LabError("only root may make a root of another release: run it by sudo")
    if not shutil.which("debootstrap"):
        raise LabError("debootstrap is missing: apt-get install debootstrap")


def network_settings() -> list[str]:
    """Lines of the host's configuration of apt that say how to reach a mirror."""
    return [line for line in output_of("apt-config", "dump").splitlines() if NETWORK.match(line)]


def make_root(step: Step, root: Path, release: str) -> None:
    """Make ROOT a machine of RELEASE that has git, make and ca-certificates, and the host's way to a mirror."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    codename, suites = release_suites(step)
    mirror = suites[codename]
    # The host's debootstrap need not know the names of later releases, which are made as sid is.
    script = [] if Path("/usr/share/debootstrap/scripts", release).exists() else ["/usr/share/debootstrap/scripts/sid"]
    step.run(["debootstrap", "--variant=minbase", "--include=git,make,ca-certificates", release, root, mirror, *script],
             doing="debootstrap", count=r"^I: (Unpacking|Configuring)", unit="packages")
    security = suites[f"{codename}-security"]
    (root / "etc/apt/sources.list").write_text(
        f"deb {mirror} {release} main\ndeb {mirror} {release}-updates main\n"
        f"deb {security} {release}-security main\n", encoding="utf-8")
    (root / "etc/apt/apt.conf.d/99network").write_text("\n".join(network_settings()) + "\n", encoding="utf-8")
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(Path("/etc", name), root / "etc" / name)


def root_of(release: str) -> Path:
    """The root of RELEASE in the cache, which is made if it is not there. Its user locks `root-RELEASE`."""
    refuse_if_impossible(release)
    root = cache_dir() / "roots" / release
    complete = root / "root/complete"
    if not complete.exists():
        with Step(f"root-{release}", f"making a root of {release}") as step:
            make_root(step, root, release)
        complete.touch()
    return root


def say_if_missing(release: str, error: LabError) -> LabError:
    """ERROR of an apt that works on RELEASE, in words of ours if the mirror lacks a file."""
    found = REPLACING.search(str(error))
    if not found:
        return error
    return LabError(f"the mirror lacks a file of {release} at present: try again later, or take another release, as in "
                    f"RELEASE=forky. apt says: {found[0].strip()}")


def in_root(root: Path, directory: Path, command: Sequence[object], binds: Mapping[Path, Path] | None = None,
            **variables: object) -> list[str]:
    """The words that run COMMAND in DIRECTORY of ROOT, with VARIABLES.

    BINDS are directories of the host that it sees: {where it sees them: where they are}, outer ones first.
    """
    def quoted(path: object) -> str:
        return shlex.quote(str(path))

    inside = quoted(root)
    script = ["set -e", f"mount -t proc proc {inside}/proc", f"mount --rbind /dev {inside}/dev",
              f"mount -t tmpfs tmpfs {inside}/tmp"]
    for where, place in (binds or {}).items():
        target = f"{inside}{quoted(where)}"
        script += [f"mkdir -p {target}", f"mount --bind {quoted(place)} {target}"]
    values = [f"{name}={value}" for name, value in variables.items()]
    words = ["chroot", root, "env", "-i", "HOME=/root", f"PATH={PATH}", "LANG=C.UTF-8", *values,
             "sh", "-c", 'cd "$0" && exec "$@"', directory, *command]
    script.append("exec " + " ".join(map(quoted, words)))
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", "\n".join(script)]
