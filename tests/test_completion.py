# SPDX-License-Identifier: GPL-2.0-or-later
"""Completion of hvpipe in real shells: what TAB offers is what the program accepts."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from lab.paths import BUILD, TOP
from lab.stream import LIMIT

FOLDER = TOP / "packaging/completion"
HVPIPE = BUILD / "host/tools/hvpipe/hvpipe"
END = "END-OF-LIST"
# What makes an interactive shell use the file; its prompt is "READY> ".
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"],
             f"bind 'set bell-style none'; bind 'set page-completions off'; bind 'set completion-query-items 0'; "
             f"PS1='READY''> '; . {FOLDER}/hvpipe.bash"),
    "zsh": (["zsh", "-f", "-i"],
            f"unsetopt beep prompt_sp; LISTMAX=1000; fpath=({FOLDER} $fpath); autoload -U compinit; compinit -u -D; "
            "PS1='READY''> '"),
}


def usage() -> str:
    """What hvpipe --help says."""
    return subprocess.run([HVPIPE, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout


def commands() -> list[str]:
    """The commands."""
    return re.findall(r"^  ([a-z]+) ", usage(), re.M)


def accepted(command: str) -> set[str]:
    """The long options that COMMAND takes, by trying them: behind one of them it prints its version."""
    options = set()
    for name, value in re.findall(r"(--[a-z-]+)(=[A-Z]+)?", usage()):
        option = name + {"": "", "=SOURCE": "=hmc1"}.get(value, "=1")
        done = subprocess.run([HVPIPE, command, option, "-V"], check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            options.add(name)
        else:
            assert "does not belong to this command" in done.stderr, done.stderr
    return options


class Terminal:
    """An interactive shell on a terminal."""

    def __init__(self, shell):
        argv, setup = SHELLS[shell]
        environment = {"PATH": f"{HVPIPE.parent}:{os.environ['PATH']}", "TERM": "dumb", "HOME": "/nonexistent",
                       "COLUMNS": "300", "LINES": "100"}
        pid, self.fd = pty.fork()
        if pid == 0:
            os.execvpe(argv[0], argv, environment)
        self.pid, self.text = pid, ""
        self.type(setup + "\n")
        self.wait("READY> ")

    def type(self, text):
        """Type TEXT."""
        os.write(self.fd, text.encode())

    def wait(self, pattern) -> str:
        """Wait until PATTERN comes; returns what came up to its end."""
        deadline = time.monotonic() + LIMIT
        while not (found := re.search(pattern, self.text)):
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} is not in {self.text!r}"
            self.text += os.read(self.fd, 65536).decode(errors="replace")
        said, self.text = self.text[:found.end()], self.text[found.end():]
        return said

    def offered(self, line) -> set[str]:
        """The options that TAB lists behind LINE."""
        self.type(f"{line}\t\t")
        self.wait(re.escape(line))
        # The line is thrown away, and the next one is a sign that the list is complete.
        self.type(f"\x15echo {END[:3]}''{END[3:]}\n")
        return set(re.findall(r"--[a-z-]+", self.wait(f"{END}\r\n"))) - {"--"}

    def close(self):
        """End it."""
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture(name="terminal", params=SHELLS)
def shell_on_terminal(request):
    """Each shell that this machine has."""
    if not shutil.which(request.param):
        pytest.skip(f"no {request.param} here")
    terminal = Terminal(request.param)
    yield terminal
    terminal.close()


def test_options(terminal):
    """Of each command TAB offers the options that it takes, no more and no less."""
    for command in commands():
        assert terminal.offered(f"hvpipe {command} --") == accepted(command), command


def test_words(terminal, tmp_path):
    """Commands, sources and files are completed."""
    (tmp_path / "a-certain-file").touch()
    (tmp_path / "a-directory").mkdir()
    for line, rest in (("hvpipe mon", "itor "), ("hvpipe -s hm", "c"), ("hvpipe -s hmc1 wa", "ke "),
                       (f"hvpipe send {tmp_path}/a-cert", "ain-file "),
                       (f"hvpipe recv -d {tmp_path}/a-dir", "ectory/")):
        terminal.type(f"{line}\t")
        terminal.wait(re.escape(line + rest))
        terminal.type("\x15")
