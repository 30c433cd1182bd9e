# SPDX-License-Identifier: GPL-2.0-or-later
"""The compilers of the host, and what names their versions in a key."""

import os

from .step import output_of

CROSS = "powerpc64le-linux-gnu-"
JOBS = f"-j{os.cpu_count()}"


def toolchain(commands: tuple[str, ...], packages: tuple[str, ...]) -> list[str]:
    """The versions of COMMANDS and of Debian PACKAGES: name only those that a result depends on."""
    versions = [output_of(command, "--version").splitlines()[0] for command in commands]
    return versions + output_of("dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages).splitlines()
