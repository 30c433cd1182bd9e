# SPDX-License-Identifier: GPL-2.0-or-later
"""Output of other processes: collected, logged, and waited for."""

import io
import itertools
import os
import re
import threading
import time
from pathlib import Path

from .errors import LabError

LIMIT = 120     # seconds to wait for anything; generous, for a loaded machine


class ChainedStream(io.RawIOBase):
    """Several sockets read as one stream: when one ends, reading continues with the next."""

    def __init__(self, first):
        super().__init__()
        self._parts = [first]

    def follow(self, part):
        """Continue with PART. Call this before the previous part ends, or readers see the end of the stream."""
        self._parts.append(part)

    @property
    def last(self):
        """The part that is read last; writes go there."""
        return self._parts[-1]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while True:
            try:
                data = os.read(self._parts[0].fileno(), len(buffer))
            except (OSError, ValueError):
                data = b""
            if data or len(self._parts) == 1:
                buffer[:len(data)] = data
                return len(data)
            self._parts.pop(0).close()


class Stream:
    """Everything that a file descriptor has delivered so far, also written to the file LOG."""

    def __init__(self, reader, name: str, log: Path | None = None):
        self.name = name
        # Neither waits for a full buffer nor reads on after the end, as a buffered reader would.
        self._read_some = (reader.read if isinstance(reader, ChainedStream)
                           else lambda size: os.read(reader.fileno(), size))
        self._log = open(log, "ab", buffering=0) if log else None
        self._bytes = bytearray()
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name=f"read {name}", daemon=True)
        self._thread.start()

    def _read(self):
        while True:
            try:
                data = self._read_some(65536)
            except (OSError, ValueError):
                data = b""
            with self._changed:
                if not data:
                    self._ended = True
                    if self._log:
                        self._log.close()
                self._bytes += data
                self._changed.notify_all()
                if not data:
                    return
            if self._log:
                self._log.write(data)

    @property
    def text(self) -> str:
        """All output so far."""
        with self._changed:
            return self._bytes.decode(errors="replace")

    @property
    def size(self) -> int:
        """The number of bytes so far: a mark for since() and wait_for()."""
        with self._changed:
            return len(self._bytes)

    def since(self, mark: int) -> str:
        """The output after MARK."""
        with self._changed:
            return self._bytes[mark:].decode(errors="replace")

    def wait_for(self, pattern: str, since: int = 0, count: int = 1, limit: float = LIMIT) -> re.Match:
        """Wait until the output after SINCE matches PATTERN COUNT times; returns the last of these matches."""
        compiled = re.compile(pattern, re.M)
        deadline = time.monotonic() + limit
        with self._changed:
            while True:
                text = self._bytes[since:].decode(errors="replace")
                match = next(itertools.islice(compiled.finditer(text), count - 1, None), None)
                if match:
                    return match
                if self._ended:
                    why = "it ended"
                elif deadline <= time.monotonic():
                    why = f"not within {limit} s"
                else:
                    self._changed.wait(deadline - time.monotonic())
                    continue
                raise LabError(f"{self.name}: no {pattern!r}: {why}. Its last output:\n{text[-2000:]}")

    def wait_end(self, limit: float = LIMIT) -> str:
        """Wait until the other side has closed; returns all the output."""
        self._thread.join(limit)
        if self._thread.is_alive():
            raise LabError(f"{self.name}: still open after {limit} s. Its last output:\n{self.text[-2000:]}")
        return self.text
