# SPDX-License-Identifier: GPL-2.0-or-later
"""A short `make fuzz` of a fixed length: each parser on its corpus and some random input, the ABI on random calls."""

import re
import subprocess

import pytest

from lab import fuzz
from lab.fuzz_targets import CORPUS, ENVIRONMENT, FUZZ, PLACE, TARGETS, build_targets

RUNS = 5000
CALLS = 20000


@pytest.fixture(scope="module")
def targets():
    """The built targets."""
    build_targets()
    return PLACE / "bin"


def run(*command):
    """Run a target, which must not crash; returns what it says."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False, timeout=600,
                          env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-8000:]
    return done.stderr


def test_corpus():
    """Each target has inputs, and all inputs have a target: without them a test would pass without a case."""
    named = {path.stem for path in FUZZ.glob("*.c")}
    assert named == set(TARGETS) == {path.name for path in CORPUS.iterdir() if any(path.iterdir())}


@pytest.mark.parametrize("name", TARGETS)
def test_parser(targets, tmp_path, name):
    """Neither the inputs of the corpus nor random ones make the code break its promises or its memory."""
    kept = sorted((CORPUS / name).iterdir())
    said = run(targets / name, *kept)
    assert said.count("Executed ") == len(kept), said[-8000:]

    said = run(targets / name, f"-runs={RUNS}", "-seed=1", "-print_final_stats=1", f"-artifact_prefix={tmp_path}/",
               tmp_path, CORPUS / name)
    assert int(re.search(r"number_of_executed_units: (\d+)", said)[1]) >= RUNS


def test_abi(lab):
    """Random calls from several threads get what the ABI allows, and leave nothing behind."""
    partition = fuzz.abi_partition(lab)
    count, text = fuzz.call_at_random(partition, seed=1, calls=CALLS, seconds=600)
    assert count >= CALLS, text
    # Not only calls that fail
    assert int(re.search(r"(\d+) messages sent", text)[1]) > CALLS // 100, text
    assert int(re.search(r"(\d+) received", text)[1]) > CALLS // 100, text
    assert partition.poweroff() == 0
