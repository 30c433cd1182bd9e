# SPDX-License-Identifier: GPL-2.0-or-later
"""An HMC: a running hvpipe-hmc."""

import os
import shlex
import subprocess

from .errors import LabError
from .paths import BUILD
from .stream import LIMIT, Stream

HVPIPE_HMC = BUILD / "host/tools/hmc/hvpipe-hmc"


class Hmc:
    """A running hvpipe-hmc for one source, which it finds at one of ADDRESSES.

    STATE is the file in which it keeps its session. Its standard output goes to the file OUTPUT if one is given.
    """

    def __init__(self, addresses, *arguments, name="hmc", state=None, output=None, cwd=None, stdin=False):
        self.name = name
        command = [HVPIPE_HMC, "-v"]
        for address in addresses:
            command += ["-c", address]
        if state:
            command += ["--state", state]
        command += arguments
        self.command = [str(word) for word in command]
        with open(output or os.devnull, "ab") as out:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                                            stdout=out if output else subprocess.PIPE, stderr=subprocess.PIPE,
                                            cwd=cwd)
        self.out = None if output else Stream(self.process.stdout, f"{name}'s output")
        self.err = Stream(self.process.stderr, f"{name}'s errors")

    def write(self, data: bytes):
        """Write DATA to its standard input."""
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def wait(self, limit: float = LIMIT) -> int:
        """Wait for its end; returns its status."""
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name}: {shlex.join(self.command)} did not end within {limit} s:\n"
                           f"{self.said()[-4000:]}") from None
        self.said()
        return status

    def said(self) -> str:
        """All its output that did not go to a file: complete if it has ended."""
        streams = [stream for stream in (self.out, self.err) if stream]
        if self.process.poll() is not None:
            for stream in streams:
                stream.wait_end()
        return "".join(stream.text for stream in streams)

    def check(self, limit: float = LIMIT) -> str:
        """Wait for its end and fail unless its status is 0; returns its standard output."""
        status = self.wait(limit)
        if status != 0:
            raise LabError(f"{self.name}: {shlex.join(self.command)} ended with status {status}:\n"
                           f"{self.said()[-4000:]}")
        return self.out.text if self.out else ""

    def signal(self, number: int):
        """Send it signal NUMBER."""
        self.process.send_signal(number)

    def close(self):
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.said()
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            if file:
                try:
                    file.close()
                except OSError:
                    pass    # input that was not written yet has no reader
