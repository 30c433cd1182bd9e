# SPDX-License-Identifier: GPL-2.0-or-later
"""The library on the driver of the kernel that runs: lib/test-driver.c, which holds on every driver with this ABI."""

import re


def test_library(echoing):
    """All of its tests ran and passed."""
    command = echoing.run("exec test-driver", limit=300)
    good = re.findall(r"^ok \d+ ", command.stdout, re.M)
    assert command.status == 0, command.stdout
    assert f"\n1..{len(good)}\n" in command.stdout and "not ok" not in command.stdout, command.stdout
