# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in a partition, run by guest/agent on the partition's second terminal."""

import base64
import contextlib
import io
import itertools
import threading
from pathlib import Path

from .errors import CommandFailed, LabError
from .stream import LIMIT, ChainedStream


class Command:
    """A command that runs in the partition. Its output is available when it has ended."""

    def __init__(self, agent: "Agent", number: int, text: str):
        self._agent = agent
        self.number = number
        self.text = text
        self.status: int | None = None
        self.output: bytes | None = None
        self._ended = threading.Event()

    def finish(self, status: int | None, output: bytes):
        """The agent's answer arrived; a STATUS of None means that the partition went away."""
        self.status, self.output = status, output
        self._ended.set()

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return not self._ended.is_set()

    def wait(self, limit: float = LIMIT) -> "Command":
        """Wait for its end; returns itself, with status and output."""
        if not self._ended.wait(limit):
            self._agent.signal(self.number, "KILL")
            raise LabError(f"partition: {self.text!r} did not end within {limit} s")
        if self.status is None:
            raise LabError(f"partition: it went away while {self.text!r} ran")
        return self

    def signal(self, name: str):
        """Send the signal NAME to it and to its children."""
        self._agent.signal(self.number, name)

    def stop(self) -> "Command":
        """Terminate it and its children; returns itself when it has ended."""
        self.signal("TERM")
        return self.wait()

    def kill(self) -> "Command":
        """Kill it and its children; returns itself when it has ended."""
        self.signal("KILL")
        return self.wait()

    def check(self) -> str:
        """Wait for its end and fail unless its status is 0; returns its output as text."""
        self.wait()
        if self.status != 0:
            raise CommandFailed(f"partition: {self.text!r} ended with status {self.status}:\n{self.stdout}")
        return self.stdout

    @property
    def stdout(self) -> str:
        """Its output (both streams) as text."""
        return self.output.decode(errors="replace")


class Agent:
    """Our side of the partition's second terminal.

    Input that the partition has not read when it migrates is lost. So nothing is sent after a command that makes it
    migrate until that command has ended or the partition has arrived: that command is the last input it reads.
    """

    def __init__(self, line: ChainedStream, log: Path):
        self._line = line
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Command] | None = {}   # None once the partition has gone
        self._alone: Command | None = None      # nothing may be sent until this command has ended
        self._gone = "it is gone"
        self._changed = threading.Condition()
        self._ready = threading.Semaphore(0)
        self._boots = 0
        self._log = open(log, "wb", buffering=0)
        self._thread = threading.Thread(target=self._read, name="agent", daemon=True)
        self._thread.start()

    def _read(self):
        command, status, body = None, None, b""
        with io.BufferedReader(self._line) as lines, self._log:
            try:
                for line in lines:
                    self._log.write(line)
                    words = line.split()
                    if command is not None and words == [b"ready"]:     # the kernel went away during the answer
                        command.finish(None, b"")
                        command = None
                    if command is not None:
                        if words[:1] == [b"end"]:
                            self._allow_input(command)
                            command.finish(status, base64.b64decode(body))
                            command = None
                        else:
                            body += line
                    elif words[:1] == [b"begin"] and len(words) == 3:
                        with self._changed:
                            command = self._waiting.pop(int(words[1]))
                        status, body = int(words[2]), b""
                    elif words == [b"ready"]:
                        self._boots += 1
                        if self._boots > 1:     # commands of the previous kernel went away with it
                            self._abandon({})
                        self._ready.release()
            except (ValueError, KeyError):
                self._gone = f"its agent's answer is garbled: {line[:200]!r}"
        self._abandon(None)
        if command:
            command.finish(None, b"")
        self._ready.release()

    def _abandon(self, waiting):
        """Finish all commands without a status; WAITING replaces the table of running commands."""
        with self._changed:
            left, self._waiting, self._alone = list(self._waiting.values()), waiting, None
            self._changed.notify_all()
        for command in left:
            command.finish(None, b"")

    def _allow_input(self, command):
        with self._changed:
            if self._alone is command:
                self._alone = None
                self._changed.notify_all()

    def _send(self, text):
        # With the condition held
        if not self._changed.wait_for(lambda: self._alone is None or self._waiting is None, LIMIT):
            raise LabError(f"partition: {self._alone.text!r} did not end within {LIMIT} s, cannot send {text[:200]!r}")
        if self._waiting is not None:
            self._line.last.sendall(text)

    def wait_ready(self, limit: float) -> bool:
        """Wait for one boot of the partition, as far as its agent; returns False if none came within LIMIT."""
        return self._ready.acquire(timeout=limit) and self._waiting is not None

    def start(self, text: str, alone: bool = False) -> Command:
        """Start TEXT, a shell command. ALONE: send nothing more until it has ended, or until follow()."""
        with self._changed:
            command = Command(self, next(self._numbers), text)
            request = b"%d %s\n" % (command.number, base64.b64encode(text.encode()))
            if self._waiting is not None:
                self._waiting[command.number] = command
                self._send(request)
            if self._waiting is None:
                raise LabError(f"partition: {self._gone}, cannot run {text[:200]!r}")
            if alone:
                self._alone = command
        return command

    def follow(self, connection):
        """The partition continues at the other end of CONNECTION."""
        self._line.follow(connection)
        with self._changed:
            self._alone = None
            self._changed.notify_all()

    def running(self) -> list[Command]:
        """The commands that have not ended."""
        with self._changed:
            return list((self._waiting or {}).values())

    def wait_end(self):
        """Wait until it knows that the partition has ended: no command runs any more."""
        self._thread.join(LIMIT)

    def signal(self, number: int, name: str):
        """Send the signal NAME to command NUMBER; does nothing if the partition has ended, and all commands with it.
        """
        with self._changed, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._send(b"kill %d %s\n" % (number, name.encode()))
