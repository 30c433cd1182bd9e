# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU of other Debian releases, with our devices: what `lab build qemu-RELEASE` makes.

It is built in a root of that release, from that release's source, by the same code as the host's own. The root sees
this checkout and this cache, and stays in the cache. The host runs what was built with the root's libraries.
"""

import re
import shlex
import subprocess
from pathlib import Path

from .cache import cache_dir, link, locked
from .errors import LabError
from .paths import BUILD, TOP
from .qemu import build_qemu
from .root import in_root, root_of
from .sources import host_release
from .step import output_of


def build_qemu_of(release: str) -> None:
    """build/qemu-RELEASE: the hypervisor of RELEASE, with its firmware and tests."""
    if release == host_release()[1]:
        link(build_qemu(), f"qemu-{release}")
        return
    # What the build links to stays apart from what the host has built.
    build = BUILD / release
    build.mkdir(parents=True, exist_ok=True)
    binds = {TOP: TOP, BUILD: build, cache_dir(): cache_dir()}
    with locked(f"root-{release}"):
        root = root_of(release)
        command = ["sh", "-c", "packaging/install-packages && python3 -m lab build qemu-system-ppc64"]
        words = in_root(root, TOP, command, binds, HVPIPE_CACHE=cache_dir())
        if subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode:
            raise LabError(f"qemu-{release}: the build in {root} failed; its logs are in {build / 'logs'}")
        result = (build / "qemu-system-ppc64").resolve().parent
        libraries = output_of(*in_root(root, TOP, ["ldd", result / "qemu-system-ppc64"], binds))
    write_wrappers(root, result, libraries, BUILD / f"qemu-{release}")


def write_wrappers(root: Path, result: Path, libraries: str, place: Path) -> None:
    """Make PLACE the like of RESULT, which was built in ROOT, for the host. LIBRARIES is what ldd says of it."""
    loader = re.search(r"^\s*(/\S+) \(0x", libraries, re.M)
    if not loader:
        raise LabError(f"ldd in {root} names no loader:\n{libraries}")
    directories = sorted({root / Path(path).parent.relative_to("/") for path in re.findall(r" => (/\S+)", libraries)})
    start = ["exec", root / Path(loader[1]).relative_to("/"), "--library-path", ":".join(map(str, directories))]
    (place / "tests").mkdir(parents=True, exist_ok=True)
    for program in [result / "qemu-system-ppc64", *(result / "tests").iterdir()]:
        words = " ".join(shlex.quote(str(word)) for word in [*start, program])
        wrapper = place / program.relative_to(result)
        wrapper.write_text(f'#!/bin/sh\n{words} "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)
    link(result / "pc-bios", f"{place.name}/pc-bios")
