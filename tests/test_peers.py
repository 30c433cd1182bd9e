# SPDX-License-Identifier: GPL-2.0-or-later
"""bench/peers.c, the program that compares the pipe with other channels."""

import pytest

from bench.peers import build_peers, check_unit, parse, serving
from lab import KERNEL

COUNT = 5


@pytest.fixture(scope="module", name="partition")
def counting_partition(lab):
    """A partition that counts instructions, with an HMC, sources that answer by themselves and a third terminal."""
    directory = lab.scratch("peers")
    build_peers(directory / "peers")
    terminal = directory / "terminal.sock"
    with serving(directory / "peers", f"unix={terminal}"):
        yield lab.partition(name="peers", append="kunit.enable=0", sources=["hmc1"], echo=["hmc2", "hmc3"],
                            programs=["bench/peers"], options=[
                                "-icount", "shift=0", "-chardev", f"socket,id=terminal,path={terminal}",
                                "-device", "spapr-vty,chardev=terminal,reg=0x30002000"])


def test_unit(partition):
    """Instructions are counted as one each, and waiting as none."""
    if KERNEL == "vmlinux-debug":
        pytest.skip("with KASAN and lockdep a sleep has too many instructions of its own")
    check_unit(partition)


@pytest.mark.parametrize("channel, sources", [("pipe=1", 1), ("pipe=2", 1), ("pipe=2-3", 2), ("terminal=/dev/hvc2", 1)])
@pytest.mark.parametrize("size", [1, 64, 4048])
def test_replies(lab, partition, channel, sources, size):
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
def test_bad_argument(partition, arguments, words):
    """A wrong argument is named in the message."""
    command = partition.run(f"peers {arguments}")
    assert command.status and words in command.stdout, command.stdout
