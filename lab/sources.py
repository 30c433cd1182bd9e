# SPDX-License-Identifier: GPL-2.0-or-later
"""The pristine sources: Debian packages, of the host's own release but one, fetched by a private apt configuration.

The host's apt configuration is read, never written: the repository's address and the keys are the host's, the lists,
the foreign architecture and the source entries are ours and live in the cache.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_dir, files_under, locked
from .errors import LabError
from .step import Step, output_of

LINUX_PACKAGE = "linux-source-6.12"
QEMU_PACKAGE = "qemu"
BUSYBOX_PACKAGE = "busybox-static:ppc64el"
# What is linked statically into the partition's programs; the directory's name changes with the list
LIBRARY_PACKAGES = ("libjson-c-dev:ppc64el", "libmd-dev:ppc64el")
LIBRARIES = "libraries-" + hashlib.sha256(" ".join(LIBRARY_PACKAGES).encode()).hexdigest()[:8]
# What `make bench BASELINE=debian` measures: the newest kernel of this suite, whichever release the host has
NEWER_SUITE = "trixie-backports"
NEWER_PACKAGE = "linux-source"      # depends on linux-source-VERSION
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Source:
    """The source of somebody else, and the text that names its content."""
    path: Path
    version: str


def _release() -> tuple[str, str]:
    """The host's distribution and the codename of its release; nothing where there is none."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    release = dict(line.split("=", 1) for line in lines if "=" in line)
    return release.get("ID", "").strip('"'), release.get("VERSION_CODENAME", "").strip('"')


def _host_suites(codename: str) -> dict[str, str]:
    """The release's suites in the host's own configuration: {suite: address}."""
    suites = {}
    wanted = {codename, f"{codename}-updates", f"{codename}-security"}
    form = "$(RELEASE) $(CODENAME) $(COMPONENT) $(ORIGIN) $(REPO_URI)"
    for line in output_of("apt-get", "indextargets", "--format", form).splitlines():
        words = line.split()
        if len(words) != 5:
            continue
        _, suite, component, origin, address = words
        if suite in wanted and component == "main" and origin == "Debian":
            suites.setdefault(suite, address)
    return suites


def _as_root(*command: str) -> tuple[str, ...]:
    if os.geteuid() != 0:
        command = ("sudo",) + command
    return command


def release_suites(step: Step) -> tuple[str, dict[str, str]]:
    """The host's release by its codename, and the addresses of its suites."""
    distribution, codename = _release()
    if distribution != "debian" or not codename:
        raise LabError("sources: this host is not a Debian release (/etc/os-release has no ID=debian with a "
                       "VERSION_CODENAME); give the trees yourself: LINUX_SRC=DIRECTORY QEMU_SRC=DIRECTORY")
    suites = _host_suites(codename)
    if codename not in suites:
        step.run(_as_root("apt-get", "update"), doing="fetching the host's package lists")
        suites = _host_suites(codename)
    if codename not in suites:
        raise LabError(f"sources: the host's apt configuration has no suite {codename} of Debian with component main; "
                       "add one, or give the trees yourself: LINUX_SRC=DIRECTORY QEMU_SRC=DIRECTORY")
    suites.setdefault(f"{codename}-security", suites[codename].rstrip("/") + "-security")
    return codename, suites


def _sources_list(step: Step) -> list[str]:
    """The lines of sources.list for the host's release."""
    # Small lists: few foreign packages are needed, and the kernel (for all architectures) comes with security updates.
    _, suites = release_suites(step)
    native = output_of("dpkg", "--print-architecture").strip()
    signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    lines = []
    for suite, address in sorted(suites.items()):
        architecture = native if suite.endswith("-security") else "ppc64el"
        lines.append(f"deb [arch={architecture}{signed}] {address} {suite} main\n")
        lines.append(f"deb-src [{signed.strip()}] {address} {suite} main\n".replace(" []", ""))
    return lines


def _newer_sources_list(step: Step) -> list[str]:
    """The lines of sources.list for NEWER_SUITE, which is where the host's release is."""
    codename, suites = release_suites(step)
    native = output_of("dpkg", "--print-architecture").strip()
    if not KEYRING.exists():
        raise LabError(f"sources: {KEYRING} is missing, which has the keys of {NEWER_SUITE}: install the package "
                       "debian-archive-keyring")
    return [f"deb [arch={native} signed-by={KEYRING}] {suites[codename]} {NEWER_SUITE} main\n"]


def _private_apt(step: Step, name: str, lines: Iterable[str]) -> tuple[str, ...]:
    """Write the private configuration NAME for LINES of sources, fetch its lists; returns options that choose it."""
    root = cache_dir() / name
    for place in ("lists/partial", "cache/archives/partial"):
        (root / place).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    native = output_of("dpkg", "--print-architecture").strip()
    (root / "sources.list").write_text("".join(lines), encoding="utf-8")
    (root / "apt.conf").write_text(
        f'Dir::State "{root}";\nDir::State::lists "{root}/lists";\nDir::State::status "{root}/status";\n'
        f'Dir::Cache "{root}/cache";\nDir::Etc::sourcelist "{root}/sources.list";\nDir::Etc::sourceparts "-";\n'
        f'#clear APT::Architectures;\nAPT::Architectures {{ "{native}"; "ppc64el"; }};\n'
        'Acquire::Languages "none";\nAcquire::Retries "3";\nAPT::Sandbox::User "root";\n'
        '#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n', encoding="utf-8")
    step.run(("apt-get", "-c", root / "apt.conf", "-o", "APT::Get::List-Cleanup=true", "update", "--error-on=any"),
             doing="fetching package lists (private to this project)")
    return ("-c", str(root / "apt.conf"))


def _unpack_linux(step: Step, apt: Iterable[str], work: Path, place: Path, name: str = LINUX_PACKAGE) -> str:
    step.run(("apt-get", *apt, "download", name), doing=f"downloading {name} (160 MB)", cwd=work)
    package, = work.glob("linux-source-*.deb")
    step.run(("dpkg-deb", "-x", package, work / "deb"), doing="unpacking the kernel")
    tarball, = (work / "deb/usr/src").glob("linux-source-*.tar.xz")
    place.mkdir()
    step.run(("tar", "-xf", tarball, "-C", place, "--strip-components=1"))
    return output_of("dpkg-deb", "-f", package, "Version").strip()


def _unpack_newer(step: Step, apt: Iterable[str], work: Path, place: Path) -> str:
    depends = output_of("apt-cache", *apt, "depends", "--important", NEWER_PACKAGE)
    return _unpack_linux(step, apt, work, place, re.search(r"Depends: (linux-source-\S+)", depends)[1])


def _unpack_qemu(step: Step, apt: Iterable[str], work: Path, place: Path) -> str:
    step.run(("apt-get", *apt, "source", "--download-only", "--only-source", QEMU_PACKAGE),
             doing="downloading QEMU's source (24 MB)", cwd=work)
    description, = work.glob("qemu_*.dsc")
    step.run(("dpkg-source", "--no-check", "-x", description, place), doing="unpacking QEMU")
    return next(line.split()[1] for line in description.read_text(encoding="utf-8").splitlines()
                if line.startswith("Version:"))


def _unpack_busybox(step: Step, apt: Iterable[str], work: Path, place: Path) -> str:
    step.run(("apt-get", *apt, "download", BUSYBOX_PACKAGE), doing="downloading the partition's busybox", cwd=work)
    package, = work.glob("busybox-static_*.deb")
    step.run(("dpkg-deb", "-x", package, place))
    return output_of("dpkg-deb", "-f", package, "Version").strip()


def _unpack_libraries(step: Step, apt: Iterable[str], work: Path, place: Path) -> str:
    step.run(("apt-get", *apt, "download", *LIBRARY_PACKAGES), doing="downloading the partition's libraries", cwd=work)
    packages = sorted(work.glob("*.deb"))
    for package in packages:
        step.run(("dpkg-deb", "-x", package, place))
    return "+".join(output_of("dpkg-deb", "-f", package, "Version").strip().split(":")[-1] for package in packages)


_UNPACK = {"linux": _unpack_linux, "qemu": _unpack_qemu, "busybox": _unpack_busybox, LIBRARIES: _unpack_libraries,
           "newer": _unpack_newer}


def _root() -> Path:
    """Where the sources of the host's release are: another release that shares this cache has others."""
    return cache_dir() / "sources" / (_release()[1] or "unknown")


def _place(name: str) -> Path | None:
    """Where the tree of NAME is, if it was fetched: a directory NAME_VERSION."""
    return next(iter(sorted(_root().glob(f"{name}_*"))), None)


def fetch(names: Collection[str]) -> None:
    """Fetch those of NAMES (keys of _UNPACK) that the cache does not hold."""
    if all(_place(name) for name in names):
        return
    with locked("sources"):
        missing = [name for name in names if not _place(name)]
        if not missing:
            return
        root = _root()
        root.mkdir(parents=True, exist_ok=True)
        with Step("sources", "fetching " + ", ".join(missing)) as step:
            apt = _private_apt(step, "apt", _sources_list(step)) if set(missing) - {"newer"} else None
            for name in missing:
                if name == "newer":
                    apt = _private_apt(step, f"apt-{NEWER_SUITE}", _newer_sources_list(step))
                work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
                try:
                    version = _UNPACK[name](step, apt, work, work / "tree").split(":")[-1]  # no epoch: ":" harms make
                    (work / "tree").rename(root / f"{name}_{version}")
                finally:
                    shutil.rmtree(work, ignore_errors=True)


def forget() -> None:
    """Drop what was fetched, so that the next run takes the release's newest."""
    with locked("sources"):
        for name in _UNPACK:
            place = _place(name)
            if place:
                shutil.rmtree(place)


def _stat_hash(tree: Path) -> str:
    """A hash over names, sizes and times of all files of a tree that is edited by somebody else."""
    digest = hashlib.sha256()
    for path in files_under(tree, skip=(tree / ".git",)):
        info = path.stat()
        digest.update(f"{path}\0{info.st_size}\0{info.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def source(name: str) -> Source:
    """The pristine source NAME: the directory the user gave (LINUX_SRC, QEMU_SRC), else Debian's."""
    own = os.environ.get(f"{name.upper()}_SRC")
    if own:
        tree = Path(own).absolute()
        marker = "softmmu" if name == "qemu" else "Kbuild"
        if not (tree / marker).exists():
            raise LabError(f"{name.upper()}_SRC={own}: no {name} source tree there ({marker} is missing)")
        return Source(tree, "own-" + _stat_hash(tree))
    fetch([name])
    place = _place(name)
    return Source(place, place.name.split("_", 1)[1])
