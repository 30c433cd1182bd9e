# SPDX-License-Identifier: GPL-2.0-or-later
"""`make shell`: the partition's console and the HMC's shell on one terminal, and the README's examples in them."""

import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from commands import run_command
from lab import LIMIT, LOGS, TOP, Stream, source_id
from lab.agent import Agent
from lab.stream import ChainedStream

HEADING = "## In the partition and on the HMC\n"
PROMPTS = {"partition# ": 0, "hmc$ ": 1}    # and the panes of tmux


def examples():
    """The README's examples, pair by pair: [([(pane, command), (pane, command)], [line of output, ...])]."""
    section = (TOP / "README.md").read_text(encoding="utf-8").partition(HEADING)[2]
    block = re.search(r"^```text\n(.*?)^```$", section, re.M | re.S)
    assert block, f"README.md: no ```text block under {HEADING!r}"
    pairs = []
    for line in filter(None, block[1].splitlines()):
        prompt = next((prompt for prompt in PROMPTS if line.startswith(prompt)), None)
        if prompt:
            if not pairs or len(pairs[-1][0]) == 2:
                pairs.append(([], []))
            pairs[-1][0].append((PROMPTS[prompt], line.removeprefix(prompt)))
        else:
            pairs[-1][1].append(line)
    assert len(pairs) > 1 and all(len(commands) == 2 for commands, _ in pairs), pairs
    return pairs


class Session:
    """A running `make shell` on a terminal of its own."""

    def __init__(self):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 240, 0, 0))
        self.keyboard = open(ours, "wb", buffering=0)
        self.process = subprocess.Popen([sys.executable, "-m", "lab", "shell"], stdin=theirs, stdout=theirs,
                                        stderr=theirs, env={**os.environ, "TERM": "xterm"}, start_new_session=True,
                                        cwd=TOP)
        os.close(theirs)
        self.screen = Stream(self.keyboard, "the terminal")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()
        self.keyboard.close()

    @property
    def directory(self):
        """Its directory, which the command line of tmux names."""
        children = subprocess.run(["pgrep", "-P", str(self.process.pid), "-a"], stdout=subprocess.PIPE, text=True,
                                  check=True)
        return Path(re.search(r"/tmp/hvpipe-\w+", children.stdout)[0])

    def tmux(self, *command):
        """Run a command of tmux; returns its output."""
        return subprocess.run(["tmux", "-S", self.directory / "tmux", *map(str, command)], stdout=subprocess.PIPE,
                              text=True, check=True).stdout

    def text(self, pane):
        """What a pane shows and has shown, lines that were wrapped as one."""
        return self.tmux("capture-pane", "-p", "-J", "-S", "-", "-t", f"hvpipe:0.{pane}").rstrip()

    def column(self, pane):
        """The column of the pane's cursor."""
        return int(self.tmux("display-message", "-p", "-t", f"hvpipe:0.{pane}", "#{cursor_x}"))

    def at_prompt(self, pane):
        """True if the pane waits for a command."""
        return self.text(pane).endswith(list(PROMPTS)[pane].rstrip())

    def wait(self, what, condition):
        """Wait until CONDITION is true."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {LIMIT} s:\n{self.text(0)}\n{self.text(1)}"
            time.sleep(0.1)

    def press(self, pane, *keys):
        """Press KEYS in a pane."""
        self.tmux("send-keys", "-t", f"hvpipe:0.{pane}", *keys)

    def interrupt(self, pane):
        """Press Ctrl-C if a command runs in the pane, and wait for the prompt."""
        if not self.at_prompt(pane):
            self.press(pane, "C-c")
        self.wait("no prompt", lambda: self.at_prompt(pane))

    def clear(self, pane):
        """Clear a pane, in which a prompt must be, and forget what it has shown."""
        self.press(pane, "C-l")

        def cleared():      # what was on the screen becomes history
            self.tmux("clear-history", "-t", f"hvpipe:0.{pane}")
            return "\n" not in self.text(pane).strip()
        self.wait("not cleared", cleared)

    def type(self, pane, command):
        """Type COMMAND and Enter in a pane."""
        self.wait("no prompt", lambda: self.at_prompt(pane))
        self.press(pane, "-l", command)
        self.wait("no echo", lambda: self.text(pane).endswith(command))
        self.press(pane, "Enter")
        self.wait("Enter had no effect", lambda: not self.text(pane).endswith(command) or self.column(pane) == 0)


@pytest.fixture(scope="module", name="session")
def running_session():
    """A `make shell` that has started."""
    with Session() as session:
        session.screen.wait_for("hmc\\$")
        session.screen.wait_for("partition#")
        yield session


@pytest.fixture(scope="module", name="agent")
def partition_agent(session):
    """Commands in the partition that nobody types."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(session.directory / "agent.sock"))
    yield Agent(ChainedStream(connection), LOGS / "shell.agent.log")
    connection.shutdown(socket.SHUT_RDWR)


def test_hints(session):
    """Each side says what to try; the HMC's files and the partition's directory are there."""
    session.wait("no hint", lambda: "This is the partition." in session.text(0))
    session.wait("no hint", lambda: "This is the HMC." in session.text(1))
    assert "hvpipe-hmc -c hmc1.sock console" in session.text(1)
    for name in ("hmc1.sock", "hmc2.sock", "message.txt", "PK.crt", "KEK.crt", "db.crt"):
        assert (session.directory / name).exists(), name


def run_until_done(session, command):
    """Run COMMAND in the partition until it succeeds: the HMC may not be connected at first."""
    deadline = time.monotonic() + LIMIT
    while True:
        session.type(0, command)
        session.type(0, "echo status $?")
        session.wait("no status", lambda: re.search(r"^status \d", session.text(0), re.M))
        if "status 0" in session.text(0):
            return
        assert time.monotonic() < deadline, session.text(0)
        session.clear(0)


@pytest.mark.parametrize("number", range(len(examples())))
def test_readme(session, agent, number):
    """The README's examples run as written and print what it says, "..." for anything. Ctrl-C ends what waits."""
    commands, output = examples()[number]
    for pane in PROMPTS.values():
        session.interrupt(pane)
        session.clear(pane)
    for pane, command in commands:
        session.type(pane, command)
        if command.startswith("hvpipe ") and ("listen" in command or "recv" in command):
            source = source_id(command.partition(" -s ")[2].partition(" ")[0] or "hmc1")
            agent.start(f"until hvpipe status | grep -q '^{source:#010x} '; do :; done").check()
        elif pane == 0:
            run_until_done(session, command)
    for line in output:
        pattern = ".*".join(map(re.escape, line.split("...")))
        session.wait(f"no {line!r}", lambda: re.search(rf"^{pattern}$", session.text(0) + "\n" + session.text(1), re.M))


def test_console_and_faults(session):
    """The HMC's console and the partition exchange messages; `lab fault` finds the machine; power-off ends it all."""
    session.interrupt(1)
    session.type(1, "hvpipe-hmc -v -c hmc1.sock console")
    session.wait("not connected", lambda: "connected to" in session.text(1))
    session.type(0, "echo hello from here | hvpipe send; echo sent $?")
    session.wait("not sent", lambda: "sent 0" in session.text(0))
    session.wait("not received", lambda: "hello from here" in session.text(1))
    assert run_command("fault", "--machine", "shell", "send:status=-1").stdout == "send:status=-1,count=1\n"
    session.type(0, "echo never | hvpipe send; echo sent $?")
    session.wait("the send did not fail", lambda: "sent 1" in session.text(0))
    session.press(0, "poweroff -f", "Enter")
    assert session.process.wait(60) == 0


def test_signal():
    """SIGTERM ends it and leaves no process and no socket behind."""
    with Session() as session:
        session.screen.wait_for("hmc\\$")
        directory = str(session.directory)
        session.process.terminate()
        assert session.process.wait(60) == 128 + signal.SIGTERM
    assert not os.path.exists(directory)
    # tmux's children are told to end, which takes a moment.
    deadline = time.monotonic() + LIMIT
    while subprocess.run(["pgrep", "-f", directory], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        assert time.monotonic() < deadline, f"something that uses {directory} still runs"


def test_without_a_terminal():
    """Not at a terminal: a clear message instead of a hang."""
    done = run_command("shell", timeout=30)
    assert done.returncode == 1 and "terminal" in done.stdout
