# SPDX-License-Identifier: GPL-2.0-or-later
"""The program that the channels are compared with, bench/peers.c."""

import subprocess
import sys

import pytest

from lab import KERNEL, TOP, initrd_with

sys.path.insert(0, str(TOP / "scripts"))
from bench_peers import check_unit, parse, serving   # noqa: E402

COUNT = 5


@pytest.fixture(scope="module", name="partition")
def counting_partition(lab):
    """A partition that counts instructions, with an HMC, a source that answers by itself and a third terminal."""
    directory = lab.scratch("peers")
    code = (TOP / "bench/peers.c").read_text(encoding="utf-8")
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-o", directory / "peers", "-x", "c", "-"],
                   input=code.encode(), check=True)
    terminal = directory / "terminal.sock"
    with serving(directory / "peers", f"unix={terminal}"):
        yield lab.partition(name="peers", append="kunit.enable=0", sources=["hmc1"], echo=["hmc2", "hmc3"], options=[
            "-initrd", initrd_with(directory, "peers", code), "-icount", "shift=0",
            "-chardev", f"socket,id=terminal,path={terminal}", "-device", "spapr-vty,chardev=terminal,reg=0x30002000"])


def test_an_instruction_counts_as_one_and_waiting_as_none(partition):
    """What the program counts is what the partition executes."""
    if KERNEL == "vmlinux-debug":
        pytest.skip("KASAN and lockdep execute more in a sleep than may count as nothing")
    check_unit(partition)


@pytest.mark.parametrize("channel, sources", [("pipe=1", 1), ("pipe=2", 1), ("pipe=2-3", 2), ("terminal=/dev/hvc2", 1)])
@pytest.mark.parametrize("size", [1, 64, 4048])
def test_each_request_is_replied_to(lab, partition, channel, sources, size):
    """Requests come back unchanged on each channel, as many as were asked for."""
    if channel == "pipe=1":
        lab.hmc(partition, "hmc1", "echo")
    found = parse(partition.check(f"peers instructions {channel} {size} {COUNT}"))
    assert found["samples"] == sources * COUNT
    assert 0 < found["p10"] <= found["median"] <= found["p99"]


@pytest.mark.parametrize("arguments, words", [
    ("time pipe=0 64 1", "'pipe=0'"), ("time pipe=3-2 64 1", "'pipe=3-2'"),
    ("time mail 64 1", "'mail'"), ("time tcp=here 64 1", "'here'"), ("time terminal=/none 64 1", "/none"),
    ("time pipe=1 0 1", "'0'"), ("time pipe=1 4089 1", "'4089'"), ("time pipe=1 64 0", "'0'"),
    ("weigh pipe=1 1 1", "usage"),
])
def test_a_wrong_argument_is_named(partition, arguments, words):
    """The program says what it cannot do."""
    command = partition.run(f"peers {arguments}")
    assert command.status and words in command.stdout, command.stdout
