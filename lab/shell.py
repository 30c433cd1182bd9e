# SPDX-License-Identifier: GPL-2.0-or-later
"""A partition's console and its HMC's command line side by side in tmux, to try things by hand.

The HMC's side is a shell with hvpipe-hmc, in a directory with the sockets hmc1.sock and hmc2.sock and with files to
send. Powering the partition off ends it all.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .certificates import make_certificates
from .errors import LabError
from .hmc import HVPIPE_HMC
from .machine import publish, qemu_command
from .partition import initramfs_with
from .step import exit_on_signals

PARTITION_HINT = """
This is the partition. Its HMCs are hmc1 (the default) and hmc2.
  hvpipe listen -x sha256sum             answer each message of hmc1 with its SHA-256
  hvpipe -s hmc2 recv -d /var/spool/hmc  store files that hmc2 sends
  hvpipe status                          open sources and counts
  hvpipe --help                          all commands
Ctrl-C ends a command, poweroff -f ends the partition and this session, Ctrl-B o goes to the other side.

"""
HMC_HINT = """
This is the HMC. Here are the sockets hmc1.sock and hmc2.sock, and the files message.txt, PK.crt, KEK.crt and db.crt.
  hvpipe-hmc -c hmc1.sock console        the console: each line is a message, /fault breaks the link, /help
  hvpipe-hmc -c hmc1.sock recv           print messages of the partition
  hvpipe-hmc --help                      all commands
Ctrl-C ends a command, Ctrl-B o goes to the other side.

"""
LINES = {"console": "stdio,signal=off", "agent": "socket,path=agent.sock,server=on,wait=off",
         "control": "socket,path=control.sock,server=on,wait=off"}


def prepare(directory: Path) -> tuple[list[str], list[str]]:
    """Make the files of both sides in DIRECTORY; returns the commands of both sides, to be run there."""
    initramfs = initramfs_with(directory / ".initramfs", files={"etc/motd": PARTITION_HINT.encode(),
                                                                "var/spool/hmc": None})
    return qemu_command(Path(), "shell", LINES, sources=["hmc1", "hmc2"], initramfs=initramfs), prepare_hmc(directory)


def prepare_hmc(directory: Path) -> list[str]:
    """Make the files of the HMC's side in DIRECTORY; returns its command."""
    make_certificates(directory)
    (directory / "message.txt").write_text("Hello from the HMC.\n", encoding="utf-8")
    (directory / ".hmc").write_text(f"PATH={shlex.quote(str(HVPIPE_HMC.parent))}:$PATH PS1='hmc$ '\n"
                                    f"cat <<'.'\n{HMC_HINT}.\n", encoding="utf-8")
    return ["bash", "--noprofile", "--rcfile", ".hmc", "-i"]


def add_arguments(parser: argparse.ArgumentParser):
    """The command line: nothing to choose."""


def main(arguments: argparse.Namespace) -> int:     # pylint: disable=unused-argument
    """Start both sides and stay until the partition is powered off or the session is left."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LabError("this needs a terminal; without one use `make run` or `make test`")
    exit_on_signals()
    return run_session(prepare)


def run_session(prepare_in: Callable[[Path], tuple[list[str], list[str]]]) -> int:
    """Run the commands of both sides, which PREPARE_IN(directory) returns, side by side in that directory."""
    # A short path for the sockets. tmux has its own server there, so that the user's is left alone.
    with tempfile.TemporaryDirectory(prefix="hvpipe-", dir="/tmp") as directory:
        partition, hmc = prepare_in(Path(directory))
        withdraw = publish("shell", f"{directory}/control.sock")
        tmux = ["tmux", "-S", f"{directory}/tmux"]
        leave = f"{shlex.join(tmux)} kill-session"
        environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
        try:
            return subprocess.call(
                [*tmux, "-f", "/dev/null", "new-session", "-s", "hvpipe", f"{shlex.join(partition)}; {leave}", ";",
                 "set-option", "-g", "mouse", "on", ";",
                 "set-option", "-g", "status-right", "poweroff -f: end    C-b o: other side ", ";",
                 "set-option", "-g", "status-right-length", "60", ";",
                 "set-option", "-g", "remain-on-exit", "on", ";",
                 "split-window", "-h", shlex.join(hmc), ";", "select-pane", "-L"], env=environment, cwd=directory)
        finally:
            withdraw()
            subprocess.call([*tmux, "kill-server"], stderr=subprocess.DEVNULL, env=environment)
