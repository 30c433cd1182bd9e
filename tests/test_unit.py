# SPDX-License-Identifier: GPL-2.0-or-later
"""Unit tests that need no partition: those of the library and the tools, and QEMU's of the device."""

import json
import os
import re
import subprocess

import pytest

from lab.hypervisor import BOOTED
from lab.paths import BUILD

HOST = BUILD / "host"
QEMU_TESTS = sorted((BOOTED / "tests").glob("*-test"))


def meson_tests():
    """The names of the tests Meson knows."""
    known = subprocess.run(["meson", "introspect", "--tests", HOST], check=True, stdout=subprocess.PIPE)
    return sorted(test["name"] for test in json.loads(known.stdout))


def qtests():
    """All (program, test) of the device's tests."""
    environment = {**os.environ, "QTEST_QEMU_BINARY": str(BOOTED / "qemu-system-ppc64")}
    for program in QEMU_TESTS:
        listed = subprocess.run([program, "-l"], check=True, stdout=subprocess.PIPE, text=True, env=environment)
        # Debian 13's GLib lists them as comments of TAP.
        yield from ((program, name) for name in re.findall(r"^(?:# )?(/\S+)$", listed.stdout, re.M))


def run(command, **environment):
    """Run COMMAND; its output is shown when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=600, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


@pytest.mark.parametrize("name", meson_tests())
def test_userland(name):
    """A unit test of library or tools passes."""
    run(["meson", "test", "-C", HOST, "--no-rebuild", "--print-errorlogs", name])


def test_device_has_tests():
    """QEMU's tests were built, and are known by name: without them the next test would pass without a case."""
    assert QEMU_TESTS and {program for program, _ in qtests()} == set(QEMU_TESTS)


@pytest.mark.parametrize("program,name", qtests(), ids=lambda value: getattr(value, "name", value))
def test_device(program, name):
    """A test of the hypervisor's device, without a guest, passes."""
    said = run([program, "--tap", "-p", name], QTEST_QEMU_BINARY=str(BOOTED / "qemu-system-ppc64"))
    assert f" {name}" in said and "# SKIP" not in said, said
