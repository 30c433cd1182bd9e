# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypervisor pipe compared with other channels between a partition and its console.

The same requests and replies go over the pipe, over TCP on the virtual Ethernet and over a virtual terminal, on one
kernel (vmlinux-network) and each to a process on the host. measure_peers() runs this module again in a network
namespace of its own, so that the host's network is left alone. docs/performance.md says how it is measured.
"""

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys

from lab import TOP, Lab, LabError, Stream

from . import say

SIZES = (64, 4048)
COUNT = 1000    # round trips in a row of the table
HOST, GUEST, PORT = "10.0.0.1", "10.0.0.2", 7
SOURCES = 8
ECHO = 10       # the hypervisor answers for hmc11 and the following sources
SERVED = 20     # one process answers for hmc21 and the following sources

# Channel in bench/peers.c, title. Ratios are to the first one.
HMC = "pipe=1"
CHANNELS = {HMC: "the pipe to hvpipe-hmc",
            f"pipe={ECHO + 1}": "the pipe, answered by the hypervisor",
            f"tcp={HOST}:{PORT}": "TCP on the virtual Ethernet",
            "terminal=/dev/hvc2": "a virtual terminal"}
BUSY = {f"pipe=1-{SOURCES}": f"the pipe to {SOURCES} hvpipe-hmc, all busy",
        f"pipe={SERVED + 1}-{SERVED + SOURCES}": f"the pipe to one hvpipe-hmc for {SOURCES}, all busy",
        f"pipe={ECHO + 1}-{ECHO + SOURCES}": f"{SOURCES} sources, answered by the hypervisor"}
# On two CPUs senders wait for each other, and for the processors of the host.
TWO = {HMC: CHANNELS[HMC], **BUSY}
UNIT = 1000000  # instructions of the known code in "peers unit"

# From linux/if_tun.h, linux/if.h and linux/sockios.h
TUNSETIFF, TUNSETPERSIST, IFF_TAP, IFF_NO_PI = 0x400454ca, 0x400454cb, 0x0002, 0x1000
SIOCSIFADDR, SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8916, 0x8914, 0x1, 0x40


def make_tap(name):
    """Make the host's end of the virtual Ethernet, NAME, in this network namespace."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    fcntl.ioctl(tap, TUNSETPERSIST, 1)
    os.close(tap)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFADDR,
                    struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, socket.inet_aton(HOST)))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), IFF_UP | IFF_RUNNING))


def build_peers(program):
    """Compile bench/peers.c for the host."""
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-o", program, TOP / "bench/peers.c"], check=True)


@contextlib.contextmanager
def serving(program, where):
    """Run PROGRAM, which answers requests at WHERE."""
    with subprocess.Popen([program, "serve", where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            Stream(process.stdout, f"peers serve {where}").wait_for("^listening$")
            yield
        finally:
            process.kill()


def parse(text):
    """The numbers in a line that peers.c printed."""
    words = text.split()
    if len(words) != 6:
        raise LabError(f"peers.c printed {text!r}, which is not six numbers")
    return dict(zip(("median", "p10", "p90", "p99", "samples", "rate"), map(float, words)))


def check_unit(partition):
    """Fail unless instructions are counted as one each, and waiting as none."""
    rows = [parse(line) for line in partition.check("peers unit").splitlines()]
    work, short, long = (row["median"] for row in rows)
    # A sleep has instructions of its own, and 20 ms contain two timer ticks. If waiting were counted, 20 ms would be
    # 20,000,000.
    if not abs(work - UNIT) < 20 or not UNIT < short < 1.05 * UNIT or not abs(long - short) < 0.05 * UNIT:
        raise LabError(f"{UNIT} instructions were reported as {work:.0f}, with a sleep of 1 ms as {short:.0f}, of 20 ms"
                       f" as {long:.0f}: this does not count instructions")
    return {"work": work, "and a sleep of 1 ms": short, "and a sleep of 20 ms": long}


def round_trips(lab, what, count, channels, options=(), smp=1):
    """WHAT ("instructions" or "time") a round trip takes on CHANNELS: {channel: {size: numbers}}."""
    directory = lab.scratch(what)
    program, terminal = directory / "peers", directory / "terminal.sock"
    build_peers(program)
    results = {}
    with serving(program, f"tcp={HOST}:{PORT}"), serving(program, f"unix={terminal}"):
        partition = lab.partition(
            name=f"peers-{what}-{smp}", kernel="vmlinux-network", append="kunit.enable=0", trace=False, smp=smp,
            sources=[f"hmc{first + n + 1}" for first in (0, SERVED) for n in range(SOURCES)],
            echo=[f"hmc{ECHO + n + 1}" for n in range(SOURCES)],
            programs=["bench/peers"],
            options=["-netdev", "tap,id=net,ifname=hvpipe0,script=no,downscript=no",
                     "-device", "spapr-vlan,netdev=net", "-chardev", f"socket,id=terminal,path={terminal}",
                     "-device", "spapr-vty,chardev=terminal,reg=0x30002000", *options])
        for number in range(SOURCES):
            lab.hmc(partition, f"hmc{number + 1}", "echo")
        lab.serve(partition, {f"hmc{SERVED + number + 1}": "echo=true" for number in range(SOURCES)})
        if what == "instructions":
            results["unit"] = check_unit(partition)
        partition.check(f"ifconfig eth0 {GUEST} up")
        for channel, title in channels.items():
            results[channel] = {}
            for size in SIZES:
                say(f"{what}: {title}, {size} bytes")
                # A terminal takes a tenth of a second for a large request.
                n = max(count // 10, 1) if channel.startswith("terminal") else count
                results[channel][size] = parse(partition.check(f"peers {what} {channel} {size} {n}", limit=1800))
        partition.close()
        lab.tidy()
    return results


def inside(count):
    """Measure all round trips in a network namespace of our own; prints JSON."""
    make_tap("hvpipe0")
    with Lab() as lab:
        instructions = round_trips(lab, "instructions", count, CHANNELS, ["-icount", "shift=0"])
        loads = [os.getloadavg()[0]]
        times = round_trips(lab, "time", count, {**CHANNELS, **BUSY})
        two = round_trips(lab, "time", count, TWO, smp=2)
        loads.append(os.getloadavg()[0])
        json.dump({"instructions": instructions, "time": times, "time, 2 CPUs": two, "loads": loads,
                   "processors": os.cpu_count()}, sys.stdout)


def measure_peers(_lab, count=COUNT):
    """{what: {channel: {size: numbers}}} and the host's load; {"missing": why} without a network namespace."""
    own_network = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    done = subprocess.run([*own_network, sys.executable, "-m", "bench.peers", str(count)],
                          stdout=subprocess.PIPE, text=True, check=False, cwd=TOP)
    if done.returncode:
        return {"missing": f"no round trips: {' '.join(own_network)} ended with status {done.returncode}"}
    return json.loads(done.stdout)


if __name__ == "__main__":      # in the namespace
    try:
        inside(int(sys.argv[1]))
    except LabError as failure:
        sys.exit(f"bench: {failure}")
