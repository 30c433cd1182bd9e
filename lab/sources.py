# SPDX-License-Identifier: GPL-2.0-or-later
"""What is fetched: Debian packages, of the host's own release but for two, by a private apt configuration.

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
LIBRARY_PACKAGES = ("libglib2.0-dev:ppc64el", "libjson-c-dev:ppc64el", "libmd-dev:ppc64el", "libpcre2-dev:ppc64el",
                    "libsqlite3-dev:ppc64el", "zlib1g-dev:ppc64el")
# Parts of GLib, and what it links to, in Debian 13 and later
LIBRARY_PARTS = ("libgio-2.0-dev:ppc64el", "libsysprof-capture-4-dev:ppc64el")
LIBRARIES = "libraries-" + hashlib.sha256(" ".join(LIBRARY_PACKAGES).encode()).hexdigest()[:8]
# The newest kernels that Debian has, whichever release the host has: "newer" is the source of one, "debian" the binary
# ones for Power. These suites move; the first that can be had is taken.
SUITES = {"newer": ("trixie-backports",), "debian": ("trixie-backports", "sid")}
NEWER_PACKAGE = "linux-source"      # depends on linux-source-VERSION
FLAVOURS = ("powerpc64le", "powerpc64le-64k")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


# What apt-get says while a mirror replaces its files
REPLACING = re.compile(r"^.*(unexpected size|Mirror sync in progress|Hash Sum mismatch|404 +Not Found).*$", re.M)


class MirrorReplacing(LabError):
    """The mirror is replacing a list or a package; it works again later."""


@dataclass(frozen=True)
class Source:
    """The source of somebody else, and the text that names its content."""
    path: Path
    version: str


def host_release() -> tuple[str, str]:
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
    distribution, codename = host_release()
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
    codename, suites = release_suites(step)
    native = output_of("dpkg", "--print-architecture").strip()
    signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    lines = []
    for suite, address in sorted(suites.items()):
        architecture = "ppc64el" if suite == codename else native
        lines.append(f"deb [arch={architecture}{signed}] {address} {suite} main\n")
        lines.append(f"deb-src [{signed.strip()}] {address} {suite} main\n".replace(" []", ""))
    return lines


def _suite_list(step: Step, suite: str, architecture: str) -> list[str]:
    """The lines of sources.list for SUITE, which is where the host's release is."""
    codename, suites = release_suites(step)
    if not KEYRING.exists():
        raise LabError(f"sources: {KEYRING} is missing, which has the keys of {suite}: install the package "
                       "debian-archive-keyring")
    return [f"deb [arch={architecture} signed-by={KEYRING}] {suites[codename]} {suite} main\n"]


def apt_get(step: Step, words: Iterable[object], **how) -> None:
    """Run apt-get WORDS, which asks the mirror."""
    try:
        step.run(("apt-get", *words), **how)
    except LabError as error:
        found = REPLACING.search(str(error))
        if not found:
            raise
        raise MirrorReplacing(f"sources: the mirror is replacing its files; try again in an hour. apt-get says: "
                              f"{found[0].strip()}") from None


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
    apt_get(step, ("-c", root / "apt.conf", "-o", "APT::Get::List-Cleanup=true", "update", "--error-on=any"),
            doing="fetching package lists (private to this project)")
    return ("-c", str(root / "apt.conf"))


def _unpack_linux(step: Step, apt: Iterable[str], work: Path, place: Path, name: str = LINUX_PACKAGE) -> str:
    apt_get(step, (*apt, "download", name), doing=f"downloading {name} (160 MB)", cwd=work)
    package, = work.glob("linux-source-*.deb")
    step.run(("dpkg-deb", "-x", package, work / "deb"), doing="unpacking the kernel")
    tarball, = (work / "deb/usr/src").glob("linux-source-*.tar.xz")
    place.mkdir()
    step.run(("tar", "-xf", tarball, "-C", place, "--strip-components=1"))
    return output_of("dpkg-deb", "-f", package, "Version").strip()


def _unpack_newer(step: Step, apt: Iterable[str], work: Path, place: Path) -> str:
    name, = _dependencies(apt, NEWER_PACKAGE, r"linux-source-\S+")
    return _unpack_linux(step, apt, work, place, name)


def _dependencies(apt: Iterable[str], package: str, pattern: str) -> list[str]:
    """What PACKAGE depends on now, of names that match PATTERN."""
    said = output_of("apt-cache", *apt, "depends", "--important", package)
    found = re.findall(rf"Depends: ({pattern})$", said, re.M)
    if not found:
        raise LabError(f"sources: {package} depends on no {pattern}; apt-cache says:\n{said}")
    return found


def _unpack_debian(step: Step, apt: Iterable[str], work: Path, place: Path) -> str:
    """Unpack Debian's kernels for Power, as they are: FLAVOUR/vmlinuz, which is a plain ELF file, and its config."""
    version = ""
    for flavour in FLAVOURS:
        image, = _dependencies(apt, f"linux-image-{flavour}:ppc64el", rf"linux-image-\d\S*-{flavour}:ppc64el")
        parts = _dependencies(apt, image, rf"linux-(?:base|binary)-\d\S*-{flavour}:ppc64el")
        apt_get(step, (*apt, "download", *parts), doing=f"downloading {image} (12 MB)", cwd=work)
        packages = list(work.glob(f"linux-*-{flavour}_*.deb"))
        for package in packages:
            step.run(("dpkg-deb", "-x", package, work / "deb"))
        modules, = (work / "deb/usr/lib/modules").glob(f"*-{flavour}")
        (place / flavour).mkdir(parents=True)
        for name in ("vmlinuz", "config"):
            shutil.copy(modules / name, place / flavour)
        version = output_of("dpkg-deb", "-f", packages[0], "Version").strip()
    return version


def _unpack_qemu(step: Step, apt: Iterable[str], work: Path, place: Path) -> str:
    apt_get(step, (*apt, "source", "--download-only", "--only-source", QEMU_PACKAGE),
            doing="downloading QEMU's source (24 MB)", cwd=work)
    description, = work.glob("qemu_*.dsc")
    step.run(("dpkg-source", "--no-check", "-x", description, place), doing="unpacking QEMU")
    return next(line.split()[1] for line in description.read_text(encoding="utf-8").splitlines()
                if line.startswith("Version:"))


def _unpack_busybox(step: Step, apt: Iterable[str], work: Path, place: Path) -> str:
    apt_get(step, (*apt, "download", BUSYBOX_PACKAGE), doing="downloading the partition's busybox", cwd=work)
    package, = work.glob("busybox-static_*.deb")
    step.run(("dpkg-deb", "-x", package, place))
    return output_of("dpkg-deb", "-f", package, "Version").strip()


def _unpack_libraries(step: Step, apt: Iterable[str], work: Path, place: Path) -> str:
    parts = [part for part in LIBRARY_PARTS if output_of("apt-cache", *apt, "pkgnames", part.split(":")[0]).strip()]
    apt_get(step, (*apt, "download", *LIBRARY_PACKAGES, *parts), doing="downloading the partition's libraries",
            cwd=work)
    packages = sorted(work.glob("*.deb"))
    for package in packages:
        step.run(("dpkg-deb", "-x", package, place))
    return "+".join(output_of("dpkg-deb", "-f", package, "Version").strip().split(":")[-1] for package in packages)


_UNPACK = {"linux": _unpack_linux, "qemu": _unpack_qemu, "busybox": _unpack_busybox, LIBRARIES: _unpack_libraries,
           "newer": _unpack_newer, "debian": _unpack_debian}


def _root() -> Path:
    """Where the sources of the host's release are: another release that shares this cache has others."""
    return cache_dir() / "sources" / (host_release()[1] or "unknown")


def _place(name: str) -> Path | None:
    """Where the tree of NAME is, if it was fetched: a directory NAME_VERSION."""
    return next(iter(sorted(_root().glob(f"{name}_*"))), None)


def _forgotten(name: str) -> Path:
    """A file that is there if NAME is to be fetched again."""
    return _root() / f".{name}.forgotten"


_refused: set[str] = set()      # what the mirror could not give to this process: it is not asked again


def _missing(names: Iterable[str]) -> list[str]:
    return [name for name in names if not _place(name) or (_forgotten(name).exists() and name not in _refused)]


def fetch(names: Collection[str]) -> None:
    """Fetch those of NAMES (keys of _UNPACK) that the cache does not hold.

    What was forgotten is used on if the mirror is just replacing its files.
    """
    if not _missing(names):
        return
    with locked("sources"):
        missing = _missing(names)
        if not missing:
            return
        _root().mkdir(parents=True, exist_ok=True)
        with Step("sources", "fetching " + ", ".join(missing)) as step:
            apt = None
            for name in missing:
                try:
                    if name in SUITES:
                        _fetch_moving(step, name)
                    else:
                        apt = apt or _private_apt(step, "apt", _sources_list(step))
                        _fetch_one(step, name, apt)
                except MirrorReplacing as error:
                    if not _place(name):
                        raise
                    _refused.add(name)
                    print(f"{error}\nsources: using {_place(name).name}, which is in the cache", flush=True)


def _fetch_moving(step: Step, name: str) -> None:
    """Fetch NAME from the first of its suites that can be had."""
    for suite in SUITES[name]:
        architecture = "ppc64el" if name == "debian" else output_of("dpkg", "--print-architecture").strip()
        try:
            apt = _private_apt(step, f"apt-{suite}-{architecture}", _suite_list(step, suite, architecture))
            _fetch_one(step, name, apt)
            return
        except MirrorReplacing as error:
            if suite == SUITES[name][-1]:
                raise
            print(f"{error}\nsources: {suite} cannot be had, trying another suite", flush=True)


def _fetch_one(step: Step, name: str, apt: Iterable[str]) -> None:
    """Fetch NAME, and remove what was there of it."""
    work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=_root()))
    try:
        version = _UNPACK[name](step, apt, work, work / "tree").split(":")[-1]  # no epoch: ":" harms make
        place = _root() / f"{name}_{version}"
        for old in _root().glob(f"{name}_*"):
            if old != place:
                shutil.rmtree(old)
        if not place.exists():
            (work / "tree").rename(place)
        _forgotten(name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def forget() -> None:
    """Forget what was fetched, so that the next run takes the release's newest. Until then it stays in the cache."""
    with locked("sources"):
        for name in _UNPACK:
            if _place(name):
                _forgotten(name).touch()


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
        marker = "include/qemu/osdep.h" if name == "qemu" else "Kbuild"
        if not (tree / marker).exists():
            raise LabError(f"{name.upper()}_SRC={own}: no {name} source tree there ({marker} is missing)")
        return Source(tree, "own-" + _stat_hash(tree))
    fetch([name])
    place = _place(name)
    return Source(place, place.name.split("_", 1)[1])


def busybox() -> Path:
    """The partition's busybox: in /usr from Debian 13 on."""
    tree = source("busybox").path
    return next(path for path in (tree / "usr/bin/busybox", tree / "bin/busybox") if path.exists())
