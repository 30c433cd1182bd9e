# SPDX-License-Identifier: GPL-2.0-or-later
"""What all long steps share: visible progress, locks, keys, and results that appear whole or not at all.

The cache lies outside the checkout. A result's directory is named by a hash of all that went into it, is made under
another name and renamed into place, so whatever is found there is complete and made from exactly these inputs.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
BUILD = TOP / "build"
LOGS = BUILD / "logs"


def cache_dir():
    """The cache: $HVPIPE_CACHE, else hvpipe in the user's own cache directory."""
    own = os.environ.get("HVPIPE_CACHE")
    if own:
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hvpipe"


def end_in_order():
    """Have signals end this program as an exception does: children are ended, half-made results removed."""
    def terminated(number, frame):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminated)


class Failed(Exception):
    """A step that did not work out; the text says what and where to look."""


class Step:
    """One long piece of work: a log of its own and a line that shows it is alive.

    On a terminal the line is rewritten every second; elsewhere a new one is printed every quarter of a minute.
    """

    def __init__(self, name, what):
        self.name = name
        self.what = what
        self.log = LOGS / f"{name}.log"
        self.count = 0
        self.unit = ""
        self.doing = what
        self._done = threading.Event()
        self._tty = sys.stdout.isatty()

    def __enter__(self):
        LOGS.mkdir(parents=True, exist_ok=True)
        self._out = open(self.log, "w", encoding="utf-8", errors="replace")
        self._start = time.monotonic()
        print(f"{self.name}: {self.what} (log: {self.log.relative_to(TOP)})", flush=True)
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()
        return self

    def _line(self, text):
        elapsed = int(time.monotonic() - self._start)
        count = f", {self.count} {self.unit}" if self.count else ""
        return f"{self.name}: [{elapsed // 60}m{elapsed % 60:02d}s] {text}{count}"

    def _tick(self):
        while not self._done.wait(1 if self._tty else 15):
            if self._tty:
                print(f"\r\033[K{self._line(self.doing)}", end="", flush=True)
            else:
                print(self._line(self.doing), flush=True)

    def __exit__(self, kind, value, traceback):
        self._done.set()
        self._ticker.join()
        self._out.close()
        if self._tty:
            print("\r\033[K", end="")
        if kind is None:
            print(self._line("done"), flush=True)
        return False

    def run(self, command, doing=None, count=None, unit="objects", check=True, **kwargs):
        """Run COMMAND into the log; returns its status. Lines that match COUNT are counted.

        With CHECK a status other than 0 is a failure that shows the log's last lines.
        """
        self.doing = doing or self.doing
        self.unit = unit
        counted = re.compile(count) if count else None
        words = [str(word) for word in command]
        self._out.write("$ " + " ".join(words) + "\n")
        self._out.flush()
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", **kwargs) as process:
            try:
                for line in process.stdout:
                    self._out.write(line)
                    self._out.flush()
                    if counted and counted.search(line):
                        self.count += 1
            except BaseException:
                process.terminate()
                raise
        if check and process.returncode:
            last = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
            raise Failed("\n".join(last) + f"\n{self.name}: {words[0]} ended with status {process.returncode}, "
                         f"the whole log is in {self.log.relative_to(TOP)}")
        return process.returncode


@contextlib.contextmanager
def locked(name):
    """Hold the cache's lock NAME: one run at a time works on what it stands for."""
    path = cache_dir() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: another run works on it, waiting for that to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def files_under(*roots, skip=()):
    """All regular files under ROOTS (files or directories), in a fixed order, without those under SKIP."""
    found = []
    for root in roots:
        if root.is_file():
            found.append(root)
        for directory, names, leaves in os.walk(root):
            names[:] = [name for name in names if name != "__pycache__"]
            found += [Path(directory) / leaf for leaf in leaves]
    return sorted(path for path in found if path.is_file() and not any(path.is_relative_to(s) for s in skip))


def key_of(*parts):
    """A short hash of PARTS: paths count by their name below the checkout, mode and content, all else by its text."""
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


def output_of(*command, **kwargs):
    """The standard output of COMMAND, which must succeed."""
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True,
                          **kwargs).stdout


def result(name, key_now, make):
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
                raise Failed(f"{name}: what it is made from was changed while it was made; run this again")
            fresh.chmod(0o755)
            fresh.rename(place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    forget_old(name)
    return place


def forget_old(name, keep=16):
    """Drop all but the KEEP most recently used results of NAME."""
    places = [path for path in (cache_dir() / "results").glob(f"{name}-*")
              if re.fullmatch(re.escape(name) + "-[0-9a-f]{24}", path.name)]
    places.sort(key=lambda path: path.stat().st_mtime)
    for path in places[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def link(target, name):
    """Make build/NAME a link to TARGET, in one step."""
    place = BUILD / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() and os.readlink(place) == str(target):
        return
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(place)
