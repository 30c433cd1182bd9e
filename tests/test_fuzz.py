# SPDX-License-Identifier: GPL-2.0-or-later
"""A short `make fuzz` of a fixed length: each parser on its corpus and some random input, the ABI on random calls."""

import importlib.machinery
import importlib.util
import re
import subprocess
import sys

import pytest

from lab import TOP

sys.path.insert(0, str(TOP / "scripts"))
_LOADER = importlib.machinery.SourceFileLoader("fuzz", str(TOP / "scripts/fuzz"))
fuzz = importlib.util.module_from_spec(importlib.util.spec_from_loader("fuzz", _LOADER))
_LOADER.exec_module(fuzz)

RUNS = 5000
CALLS = 20000


@pytest.fixture(scope="module")
def targets():
    """The built targets."""
    fuzz.targets()
    return fuzz.PLACE / "bin"


def run(*command):
    """Run a target, which must not crash; returns what it says."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-8000:]
    return done.stderr


def test_every_target_has_a_corpus():
    """A target without its inputs, or inputs without a target, would pass by being empty."""
    named = {path.stem for path in fuzz.FUZZ.glob("*.c")}
    assert named == set(fuzz.TARGETS) == {path.name for path in fuzz.CORPUS.iterdir() if any(path.iterdir())}


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_parser(targets, tmp_path, name):
    """Neither an input that is kept nor a random one makes the code break its promises or its memory."""
    kept = sorted((fuzz.CORPUS / name).iterdir())
    said = run(targets / name, *kept)
    assert said.count("Executed ") == len(kept), said[-8000:]

    said = run(targets / name, f"-runs={RUNS}", "-seed=1", "-print_final_stats=1", f"-artifact_prefix={tmp_path}/",
               tmp_path, fuzz.CORPUS / name)
    assert int(re.search(r"number_of_executed_units: (\d+)", said)[1]) >= RUNS


def test_abi(lab):
    """Random calls from several threads get what the ABI allows, and leave nothing behind."""
    partition = fuzz.abi_partition(lab)
    count, text = fuzz.abi(partition, seed=1, calls=CALLS, seconds=600)
    assert count >= CALLS, text
    # It was no idle walk.
    assert int(re.search(r"(\d+) messages sent", text)[1]) > CALLS // 100, text
    assert int(re.search(r"(\d+) received", text)[1]) > CALLS // 100, text
    assert partition.poweroff() == 0
