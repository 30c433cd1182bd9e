# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job, as `make run` does it."""

import re

from commands import run_command


def test_run():
    """`make run` ends with its line, and the numbers in it are those of real traffic."""
    done = run_command("run")
    assert done.returncode == 0, done.stdout[-6000:]
    last = re.fullmatch(r"run: (\d+) to partition, (\d+) to HMC, 0 lost", done.stdout.splitlines()[-1])
    assert last, done.stdout[-2000:]
    # Three certificates, one of them in several messages, and an answer; three answers and replies, and a file.
    assert int(last[1]) >= 5 and int(last[2]) >= 7
