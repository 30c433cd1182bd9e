# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache of what takes long: results under a key of all that went into them, and locks.

The cache lies outside the checkout. A result's directory is named by a hash of its inputs, is made under another name
and renamed into place: whatever is found there is complete and was made from exactly these inputs.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .errors import LabError
from .paths import BUILD, TOP

KEPT_RESULTS = 16       # of each name


def cache_dir() -> Path:
    """The cache: $HVPIPE_CACHE, else hvpipe in the user's own cache directory."""
    own = os.environ.get("HVPIPE_CACHE")
    if own:
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvpipe"


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock NAME: only one run at a time works on what it stands for."""
    path = cache_dir() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: waiting for another run that works on it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def files_under(*roots: Path, skip: Iterable[Path] = ()) -> list[Path]:
    """All regular files under ROOTS (files or directories), in a fixed order, without those under SKIP."""
    found = []
    for root in roots:
        if root.is_file():
            found.append(root)
        for directory, names, leaves in os.walk(root):
            names[:] = [name for name in names if name != "__pycache__"]
            found += [Path(directory) / leaf for leaf in leaves]
    return sorted(path for path in found if path.is_file() and not any(path.is_relative_to(s) for s in skip))


def key_of(*parts: object) -> str:
    """A short hash of PARTS: a path counts by its name below the checkout, mode and content, all else by its text."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            data = part.read_bytes()
            name = part.relative_to(TOP) if part.is_relative_to(TOP) else part.name
            mode = "x" if os.access(part, os.X_OK) else "-"
            digest.update(f"file {name} {mode} {len(data)}\n".encode())
            digest.update(data)
        else:
            digest.update(f"text {len(str(part).encode())} {part}\n".encode())
    return digest.hexdigest()[:24]


def code_of(*modules: str) -> list[Path]:
    """The files of MODULES, paths of modules of this package, and of those that they import from it."""
    found: set[Path] = set()
    # One path a file, by whatever path it was imported: paths count in keys.
    waiting = [Path(module).resolve() for module in modules]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for module, names in re.findall(r"^from \.(\w*) import (.+)$", path.read_text(encoding="utf-8"), re.M):
            waiting += [path.with_name(f"{name.strip()}.py") for name in ([module] if module else names.split(","))]
    return sorted(found)


def result(name: str, key_now: Callable[[], str], make: Callable[[Path], None]) -> Path:
    """The directory of result NAME, made by MAKE(directory) from what KEY_NOW() names, unless it is there already."""
    key = key_now()
    place = cache_dir() / "results" / f"{name}-{key}"
    if place.is_dir():
        os.utime(place)
        return place
    with locked(name):
        if place.is_dir():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place.parent))
        try:
            make(fresh)
            if key_now() != key:
                raise LabError(f"{name}: its sources changed while it was built; run this again")
            fresh.chmod(0o755)
            fresh.rename(place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    keep_newest(place.parent, re.escape(name) + "-[0-9a-f]{24}", KEPT_RESULTS)
    return place


def keep_newest(directory: Path, pattern: str, number: int) -> None:
    """Remove all but the NUMBER most recently used of DIRECTORY's subdirectories whose names match PATTERN."""
    places = [path for path in directory.iterdir() if path.is_dir() and re.fullmatch(pattern, path.name)]
    places.sort(key=lambda path: path.stat().st_mtime)
    for path in places[:-number]:
        shutil.rmtree(path, ignore_errors=True)


def replace(new: Path, old: Path) -> None:
    """Make OLD a copy of NEW with a time of its own, unless it has the same content and mode."""
    mode = stat.S_IMODE(new.stat().st_mode)
    if old.is_file() and old.read_bytes() == new.read_bytes() and stat.S_IMODE(old.stat().st_mode) == mode:
        return
    old.parent.mkdir(parents=True, exist_ok=True)
    old.unlink(missing_ok=True)
    shutil.copyfile(new, old)
    old.chmod(mode)


def link(target: Path, name: str) -> None:
    """Make build/NAME a link to TARGET, in one step."""
    place = BUILD / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() and os.readlink(place) == str(target):
        return
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(place)
