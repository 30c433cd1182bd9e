#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypervisor pipe beside what a partition talks to its console with today, and what its parties cost the host.

usage: scripts/bench_peers.py [COUNT]

Prints what scripts/bench prints of it, for COUNT round trips a row. docs/performance.md says how it is measured.

The same requests and replies go over the pipe, over TCP on the virtual Ethernet and over a virtual terminal, all on one
kernel (vmlinux-network) and to a process on the host each. This runs itself again in a network namespace of its own for
it, so that the host's network is left alone.
"""

import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from lab import BUILD, TOP, Lab, LabError, Stream, initrd_with, source_id   # noqa: E402

SIZES = (64, 4048)
COUNT = 1000    # round trips in a row of the table
HOST, GUEST, PORT = "10.0.0.1", "10.0.0.2", 7
SOURCES = 8
ECHO = 10       # hmc11 is the first of the sources that the hypervisor answers for

# Channel in bench/peers.c, title. All others are compared to the first.
HMC = "pipe=1"
CHANNELS = {HMC: "the pipe to hvpipe-hmc",
            f"pipe={ECHO + 1}": "the pipe, answered by the hypervisor",
            f"tcp={HOST}:{PORT}": "TCP on the virtual Ethernet",
            "terminal=/dev/hvc2": "a virtual terminal"}
BUSY = {f"pipe=1-{SOURCES}": f"the pipe to {SOURCES} hvpipe-hmc, all busy",
        f"pipe={ECHO + 1}-{ECHO + SOURCES}": f"{SOURCES} sources, answered by the hypervisor"}
UNIT = 1000000  # instructions of known code in "peers unit"

# From linux/if_tun.h, linux/if.h and linux/sockios.h
TUNSETIFF, TUNSETPERSIST, IFF_TAP, IFF_NO_PI = 0x400454ca, 0x400454cb, 0x0002, 0x1000
SIOCSIFADDR, SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8916, 0x8914, 0x1, 0x40


def say(text, start=time.monotonic()):
    """One line of progress."""
    print(f"bench: [{time.monotonic() - start:5.1f} s] {text}", file=sys.stderr, flush=True)


# --- round trips ---

def make_tap(name):
    """Give this network namespace the virtual Ethernet's host end, NAME."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    fcntl.ioctl(tap, TUNSETPERSIST, 1)
    os.close(tap)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFADDR,
                    struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, socket.inet_aton(HOST)))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), IFF_UP | IFF_RUNNING))


@contextlib.contextmanager
def serving(program, where):
    """PROGRAM, answering requests at WHERE."""
    with subprocess.Popen([program, "serve", where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            Stream(process.stdout, f"peers serve {where}").wait_for("^listening$")
            yield
        finally:
            process.kill()


def parse(text):
    """The numbers of a line that peers.c printed."""
    words = text.split()
    if len(words) != 6:
        raise LabError(f"peers said {text!r}")
    return dict(zip(("median", "p10", "p90", "p99", "samples", "rate"), map(float, words)))


def check_unit(partition):
    """An instruction must count as one, and waiting as none."""
    rows = [parse(line) for line in partition.check("peers unit").splitlines()]
    work, short, long = (row["median"] for row in rows)
    # A sleep has its own instructions, and 20 ms have two ticks of the timer in them; they would be 20,000,000, were
    # waiting counted.
    if not abs(work - UNIT) < 20 or not UNIT < short < 1.05 * UNIT or not abs(long - short) < 0.05 * UNIT:
        raise LabError(f"{UNIT} instructions were reported as {work:.0f}, with a sleep of 1 ms as {short:.0f}, of 20 ms"
                       f" as {long:.0f}: this does not count instructions")
    return {"work": work, "and a sleep of 1 ms": short, "and a sleep of 20 ms": long}


def round_trips(lab, what, count, channels, options=()):
    """WHAT ("instructions" or "time") a round trip takes on CHANNELS: {channel: {size: numbers}}."""
    directory = lab.scratch(what)
    program, terminal = directory / "peers", directory / "terminal.sock"
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-o", program, TOP / "bench/peers.c"], check=True)
    image = initrd_with(lab.scratch("guest"), "peers", (TOP / "bench/peers.c").read_text(encoding="utf-8"))
    results = {}
    with serving(program, f"tcp={HOST}:{PORT}"), serving(program, f"unix={terminal}"):
        partition = lab.partition(
            name=f"peers-{what}", kernel="vmlinux-network", append="kunit.enable=0", trace=False,
            sources=[f"hmc{n + 1}" for n in range(SOURCES)], echo=[f"hmc{ECHO + n + 1}" for n in range(SOURCES)],
            options=["-initrd", image, "-netdev", "tap,id=net,ifname=hvpipe0,script=no,downscript=no",
                     "-device", "spapr-vlan,netdev=net", "-chardev", f"socket,id=terminal,path={terminal}",
                     "-device", "spapr-vty,chardev=terminal,reg=0x30002000", *options])
        for number in range(SOURCES):
            lab.hmc(partition, f"hmc{number + 1}", "echo")
        if what == "instructions":
            results["unit"] = check_unit(partition)
        partition.check(f"ifconfig eth0 {GUEST} up")
        for channel, title in channels.items():
            results[channel] = {}
            for size in SIZES:
                say(f"{what}: {title}, {size} bytes")
                # A terminal takes a tenth of a second for a large one.
                n = max(count // 10, 1) if channel.startswith("terminal") else count
                results[channel][size] = parse(partition.check(f"peers {what} {channel} {size} {n}", limit=1800))
        partition.close()
        lab.tidy()
    return results


def inside(count):
    """All round trips, in a network of our own; prints JSON."""
    make_tap("hvpipe0")
    with Lab() as lab:
        instructions = round_trips(lab, "instructions", count, CHANNELS, ["-icount", "shift=0"])
        loads = [os.getloadavg()[0]]
        times = round_trips(lab, "time", count, {**CHANNELS, **BUSY})
        loads.append(os.getloadavg()[0])
        json.dump({"instructions": instructions, "time": times, "loads": loads, "processors": os.cpu_count()},
                  sys.stdout)


def measure_peers(_lab, count=COUNT):
    """{what: {channel: {size: numbers}}}, and of the host; {"missing": why} where no virtual Ethernet is to be had."""
    own_network = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    done = subprocess.run([*own_network, sys.executable, __file__, "--inside", str(count)], stdout=subprocess.PIPE,
                          text=True, check=False)
    if done.returncode:
        return {"missing": f"no round trips: {' '.join(own_network)} ended with status {done.returncode}"}
    return json.loads(done.stdout)


def show_peers(results):
    """The tables of RESULTS."""
    if "missing" in results:
        return results["missing"]
    lines = []

    def line(title, cells):
        lines.append((f"{title:44}" + "".join(f"{cell:>14}" for cell in cells)).rstrip())

    for size in map(str, SIZES):
        instructions, times = ({channel: sizes[size] for channel, sizes in results[what].items() if size in sizes}
                               for what in ("instructions", "time"))
        line(f"{size} bytes there and back", ["instructions", "to the pipe's", "round trips/s", "to the pipe's",
                                              "p50 us", "p90 us", "p99 us"])
        for channel, title in {**CHANNELS, **BUSY}.items():
            cells = ["", ""]
            if channel in instructions:
                count = instructions[channel]["median"]
                cells = [f"{count:,.0f}", f"{count / instructions[HMC]['median']:.2f}"]
            found = times[channel]
            cells += [f"{found['rate']:,.0f}", f"{found['rate'] / times[HMC]['rate']:.2f}"]
            line("  " + title, cells + [f"{found[p] / 1000:,.0f}" for p in ("median", "p90", "p99")])
    unit, loads = results["instructions"]["unit"], sorted(results["loads"])
    lines += ["", f"{UNIT:,} instructions are counted as {unit['work']:,.0f}, "
              + ", ".join(f"with {title[4:]} as {count:,.0f}" for title, count in unit.items() if title != "work"),
              f"the times are those of a host with {results['processors']} processors, at a load of {loads[0]:.1f} to "
              f"{loads[1]:.1f}"]
    return "\n".join(lines)


# --- what the host pays ---

class Qtest:
    """A machine without a running processor, whose RTAS calls we make, under callgrind."""

    AT = {"args": 0x1000, "rets": 0x2000, "list": 0x3000, "out": 0x4000, "in": 0x5000}

    def __init__(self, directory):
        firmware, control = directory / "firmware", directory / "qtest.sock"
        firmware.write_bytes(b"none")   # nothing runs, but the machine insists on something to run
        self.hmc_socket = directory / "hmc1.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(control))
            listener.listen(1)
            machine = "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"
            self.process = under_callgrind(directory / "qemu", [
                BUILD / "qemu-system-ppc64", "-machine", machine, "-accel", "qtest", "-nodefaults", "-nographic",
                "-m", "512", "-bios", firmware, "-L", BUILD / "pc-bios", "-qtest", f"unix:{control}",
                "-qtest-log", "none", "-chardev", f"socket,id=hmc1,path={self.hmc_socket},server=on,wait=off",
                "-device", "spapr-hvpipe", "-device", "spapr-hvpipe-source,source-id=0x02000001,chardev=hmc1",
                "-device", "spapr-hvpipe-source,source-id=0x02000002,echo=on"])
            listener.settimeout(120)
            self._socket, _ = listener.accept()
        self._lines = self._socket.makefile("rw", encoding="ascii")
        self._write("out", bytes([0, 1, 1]))
        self._call("ibm,set-system-parameter", 1, 64, self.AT["out"])

    def _command(self, *words):
        self._lines.write(" ".join(str(word) for word in words) + "\n")
        self._lines.flush()
        answer = self._lines.readline().split()
        if answer[:1] != ["OK"]:
            raise LabError(f"qtest: {words[0]}: {' '.join(answer) or 'it is gone'}")
        return answer[1:]

    def _write(self, where, data):
        self._command("write", self.AT[where], len(data), f"0x{data.hex()}")

    def _call(self, name, nret, *args):
        self._write("args", struct.pack(f">{len(args)}I", *args))
        self._command("rtas", name, len(args), self.AT["args"], nret, self.AT["rets"])
        return struct.unpack(f">{nret}i", bytes.fromhex(self._command("read", self.AT["rets"], 4 * nret)[0][2:]))

    def round_trip(self, source, number, size):
        """Send a message, receive the reply."""
        self._write("list", struct.pack(">QQQ", 24, self.AT["out"], size))
        self._write("out", struct.pack(">I", number) + bytes(size - 4))
        while (status := self._call("ibm,send-hvpipe-msg", 1, source_id(source), self.AT["list"])[0]) in (-2, 9900):
            pass
        received = 0, 0, 0
        while not status and received == (0, 0, 0):
            received = self._call("ibm,receive-hvpipe-msg", 3, self.AT["in"], 4096)
        if received != (0, source_id(source), size):
            raise LabError(f"{source}: {size} bytes: send said {status}, receive {received}")

    def close(self):
        """End it."""
        self._lines.close()
        self._socket.close()
        end(self.process)


def under_callgrind(out, command):
    """Start COMMAND, with its instructions counted into OUT.N at each dump()."""
    counted = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", *map(str, command)]
    return subprocess.Popen(counted, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def end(process):
    """End PROCESS at once."""
    process.kill()
    process.wait()
    process.stdout.close()


def dump(process, number, out):
    """Have callgrind write what PROCESS did since the last time; returns {function: instructions}, callees included."""
    subprocess.run(["callgrind_control", "--dump", str(process.pid)], stdout=subprocess.DEVNULL, check=True,
                   stderr=subprocess.DEVNULL)
    text = subprocess.run(["callgrind_annotate", "--inclusive=yes", "--threshold=100", f"{out}.{number}"], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    found = {}
    for count, function in re.findall(r"^ *([\d,]+) \([^)]*\)  (?:.*:)?(PROGRAM TOTALS|\w+)\b", text, re.M):
        found[function] = max(found.get(function, 0), int(count.replace(",", "")))
    return found


# Where the host's instructions for a message are: function, title
DEVICE = (("rtas_ibm_send_hvpipe_msg", "send"), ("rtas_ibm_receive_hvpipe_msg", "receive"),
          ("hvpipe_link_receive", "frames from the HMC"))


def measure_host(lab, count=200):
    """{source: {size: {who: instructions for a round trip}}}."""
    directory = lab.scratch("callgrind")
    say("host: starting hypervisor and HMC under callgrind")
    qtest = Qtest(directory)
    hmc = None
    try:
        hmc = under_callgrind(directory / "hmc",
                              [BUILD / "host/tools/hvpipe-hmc", "-v", "-c", qtest.hmc_socket, "echo"])
        Stream(hmc.stdout, "HMC under callgrind").wait_for("connected to")
        dumps, results = 1, {}
        dump(qtest.process, dumps, directory / "qemu")
        dump(hmc, dumps, directory / "hmc")
        for source in ("hmc1", "hmc2"):
            for size in SIZES:
                say(f"host: {source}, {size} bytes")
                for number in range(count):
                    qtest.round_trip(source, dumps * count + number, size)
                dumps += 1
                found = dump(qtest.process, dumps, directory / "qemu")
                row = {title: found.get(function, 0) / count for function, title in DEVICE}
                found = dump(hmc, dumps, directory / "hmc")
                row["hvpipe-hmc"] = found.get("PROGRAM TOTALS", 0) / count
                results.setdefault(source, {})[str(size)] = row
        return results
    finally:
        qtest.close()
        if hmc:
            end(hmc)


def show_host(results):
    """The table of RESULTS."""
    columns = [title for _, title in DEVICE] + ["hvpipe-hmc"]
    lines = [f"{'host instructions for a message and its echo':44}" + "".join(f"{column:>22}" for column in columns)]
    for source, title in (("hmc2", "answered by the hypervisor"), ("hmc1", "hvpipe-hmc on a socket")):
        for size, row in results[source].items():
            lines.append(f"  {f'{title}, {size} bytes':42}" + "".join(f"{row[column]:22,.0f}" for column in columns))
    return "\n".join(lines)


def main():
    """Measure and show."""
    count = sys.argv[-1] if len(sys.argv) > 1 else str(COUNT)
    if len(sys.argv) > 3 or not count.isdigit() or not int(count) or (len(sys.argv) > 2 and sys.argv[1] != "--inside"):
        print("usage: scripts/bench_peers.py [COUNT]", file=sys.stderr)
        return 2
    try:
        if len(sys.argv) > 2:
            inside(int(count))
            return 0
        with Lab() as lab:
            print(show_peers(measure_peers(lab, int(count))))
            print(f"\n{show_host(measure_host(lab))}")
    except (OSError, LabError, subprocess.CalledProcessError) as error:
        print(f"bench: failed: {error}\nbench: logs are in {BUILD / 'logs'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
