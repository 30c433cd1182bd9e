# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of the lab, run as people run them."""

import subprocess
import sys

from lab import TOP


def run_command(*arguments, timeout=600):
    """Run `python3 -m lab ARGUMENTS`; returns it with its status, and all output as stdout."""
    return subprocess.run([sys.executable, "-m", "lab", *map(str, arguments)], stdin=subprocess.DEVNULL, cwd=TOP,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=timeout)
