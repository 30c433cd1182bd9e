# SPDX-License-Identifier: GPL-2.0-or-later
"""A long piece of work whose progress can be seen, with a log of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import LabError
from .paths import LOGS, TOP

LAST_LINES = 25         # of the log, shown with an error
OUTER_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARCH", "CROSS_COMPILE", "CFLAGS", "LDFLAGS",
              "DESTDIR", "PREFIX", "O", "V")


def exit_on_signals() -> None:
    """Make SIGTERM and SIGHUP raise SystemExit, so that children are ended and half-made results removed."""
    def terminated(number, _frame):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminated)


def environment(**extra: str) -> dict[str, str]:
    """The environment for a build: without the variables of an outer make, in no language, and with EXTRA."""
    kept = {name: value for name, value in os.environ.items() if name not in OUTER_MAKE}
    return {**kept, "LC_ALL": "C", **extra}


def output_of(*command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """The standard output of COMMAND, which must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, cwd=cwd,
                          env=env)
    if done.returncode:
        said = (done.stderr or done.stdout)[-2000:]
        raise LabError(f"{' '.join(words)} ended with status {done.returncode}:\n{said}")
    return done.stdout


class Step:
    """A long piece of work: a log, and a line that shows it is alive.

    On a terminal the line is rewritten every second; elsewhere a new one is printed every 15 seconds.
    """

    def __init__(self, name: str, what: str):
        self.name = name
        self.what = what
        self.log = LOGS / f"{name}.log"
        self.count = 0
        self.unit = ""
        self.doing = what
        self._done = threading.Event()
        self._tty = sys.stdout.isatty()

    def __enter__(self) -> "Step":
        LOGS.mkdir(parents=True, exist_ok=True)
        self._out = open(self.log, "w", encoding="utf-8", errors="replace")
        self._start = time.monotonic()
        print(f"{self.name}: {self.what} (log: {self._shown_log()})", flush=True)
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()
        return self

    def _shown_log(self) -> Path:
        return self.log.relative_to(TOP) if self.log.is_relative_to(TOP) else self.log

    def _line(self, text: str) -> str:
        elapsed = int(time.monotonic() - self._start)
        count = f", {self.count} {self.unit}" if self.count else ""
        return f"{self.name}: [{elapsed // 60}m{elapsed % 60:02d}s] {text}{count}"

    def _tick(self) -> None:
        while not self._done.wait(1 if self._tty else 15):
            if self._tty:
                print(f"\r\033[K{self._line(self.doing)}", end="", flush=True)
            else:
                print(self._line(self.doing), flush=True)

    def __exit__(self, kind, value, traceback) -> None:
        self._done.set()
        self._ticker.join()
        self._out.close()
        if self._tty:
            print("\r\033[K", end="")
        if kind is None:
            print(self._line("done"), flush=True)

    def run(self, command: Iterable[object], doing: str | None = None, count: str | None = None,
            unit: str = "objects", check: bool = True, **kwargs) -> int:
        """Run COMMAND into the log; returns its status. Lines that match the pattern COUNT are counted as UNIT.

        With CHECK, a status other than 0 is an error that shows the last lines of the log.
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
            last = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
            raise LabError("\n".join(last) + f"\n{self.name}: {words[0]} ended with status {process.returncode}, "
                           f"the whole log is in {self._shown_log()}")
        return process.returncode
