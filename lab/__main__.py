#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's command line: python3 -m lab COMMAND. The Makefile is the front door to it.

Each command is a module of this package with the functions add_arguments(parser) and main(arguments), which returns
the exit status. Its docstring is its help. A module is imported only if its command is run.
"""

import argparse
import importlib
import os
import signal
import sys

from .errors import LabError
from .step import exit_on_signals

COMMANDS = {
    "build": "build targets of build/",
    "update": "forget the fetched sources",
    "patches": "bring commits of the work trees back to linux/ and qemu/",
    "series": "write the patch series for Linux and QEMU",
    "fixes": "show each defect of the driver that Linux ships, and its fix",
    "check": "run every checker",
    "format": "format the C code of user space",
    "fuzz": "random input for every parser, random calls on the device",
    "run": "the main job: exchange files both ways",
    "shell": "the partition and its HMC side by side in a terminal",
    "soak": "long traffic with closes, kills and restarts",
    "install": "install the HMC's part, or the partition's",
    "kernels": "run the tests on each kernel that people have",
    "migrate": "move the partition between two machines under traffic",
    "deb": "build the Debian packages",
    "debian": "a Debian partition with our packages: a console, or tests",
    "fresh": "try the README's two commands on a machine that has nothing",
    "fault": "inject faults into a running machine's hypervisor",
}


def main() -> int:
    """Run the command that the command line names."""
    parser = argparse.ArgumentParser(prog="python3 -m lab", description="Build and run the four parties of hvpipe.",
                                     epilog="python3 -m lab COMMAND --help tells more of each.")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND",
                        help="; ".join(f"{name}: {text}" for name, text in COMMANDS.items()))
    name = parser.parse_args(sys.argv[1:2]).command
    module = importlib.import_module(f".{name}", __package__)
    own = argparse.ArgumentParser(prog=f"python3 -m lab {name}", description=module.__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(own)
    os.umask(0o022)
    exit_on_signals()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        return module.main(own.parse_args(sys.argv[2:]))
    except LabError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
