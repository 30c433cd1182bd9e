# SPDX-License-Identifier: GPL-2.0-or-later
"""`make shell`: both consoles on one terminal."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time

from lab import LIMIT, TOP, Stream


def test_both_consoles():
    """The partition's prompt and the HMC's come up; a message goes from one side to the other; power-off ends it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    with open(ours, "wb", buffering=0) as keyboard:
        session = subprocess.Popen([TOP / "scripts/shell"], stdin=theirs, stdout=theirs, stderr=theirs,
                                   env={**os.environ, "TERM": "xterm"}, start_new_session=True)
        os.close(theirs)
        try:
            screen = Stream(keyboard, "the terminal")
            screen.wait_for("hmc>")
            screen.wait_for("partition#")
            screen.wait_for("connected to")
            mark = screen.size
            keyboard.write(b"echo hello from here | hvpipe send; echo sent $?\r")
            screen.wait_for("sent 0", since=mark)
            screen.wait_for(r"(?s)hello from here.*hello from here", since=mark)
            fault = [TOP / "scripts/fault", "--machine", "shell", "send:status=-1"]
            assert subprocess.check_output(fault, text=True) == "send:status=-1,count=1\n"
            keyboard.write(b"echo never | hvpipe send; echo sent $?\r")
            screen.wait_for("sent 1", since=mark)
            keyboard.write(b"poweroff -f\r")
            assert session.wait(60) == 0
        finally:
            if session.poll() is None:
                os.killpg(session.pid, signal.SIGTERM)
                session.wait()


def test_a_signal_ends_all():
    """Killed with SIGTERM it leaves no process and no socket behind."""
    ours, theirs = pty.openpty()
    with open(ours, "wb", buffering=0) as keyboard:
        session = subprocess.Popen([TOP / "scripts/shell"], stdin=theirs, stdout=theirs, stderr=theirs,
                                   env={**os.environ, "TERM": "xterm"}, start_new_session=True)
        os.close(theirs)
        screen = Stream(keyboard, "the terminal")
        screen.wait_for("hmc>")
        mine = subprocess.run(["pgrep", "-P", str(session.pid), "-a"], stdout=subprocess.PIPE, text=True, check=True)
        directory = re.search(r"/tmp/hvpipe-\w+", mine.stdout)[0]
        session.terminate()
        assert session.wait(60) == 128 + signal.SIGTERM
    assert not os.path.exists(directory)
    # What tmux ran is told to end, and takes its moment.
    deadline = time.monotonic() + LIMIT
    while subprocess.run(["pgrep", "-f", directory], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        assert time.monotonic() < deadline, f"something that uses {directory} still runs"


def test_without_a_terminal():
    """Not at a terminal: a clear message instead of a hang."""
    done = subprocess.run([TOP / "scripts/shell"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=30)
    assert done.returncode == 1 and "terminal" in done.stdout
