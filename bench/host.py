# SPDX-License-Identifier: GPL-2.0-or-later
"""What the pipe's parties cost the host, in instructions of the hypervisor's device and of hvpipe-hmc."""

import re
import socket
import struct
import subprocess

from lab import BUILD, HVPIPE_HMC, LabError, Stream, source_id

from . import say
from .peers import SIZES


class Qtest:
    """A machine under callgrind whose processor does not run: we make its RTAS calls."""

    AT = {"args": 0x1000, "rets": 0x2000, "list": 0x3000, "out": 0x4000, "in": 0x5000}

    def __init__(self, directory):
        firmware, control = directory / "firmware", directory / "qtest.sock"
        firmware.write_bytes(b"none")   # never run, but the machine needs one
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
                "-device", "spapr-hvpipe-echo,source-id=0x02000002"])
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
            raise LabError(f"qtest: {words[0]}: {' '.join(answer) or 'the hypervisor ended'}")
        return answer[1:]

    def _write(self, where, data):
        self._command("write", self.AT[where], len(data), f"0x{data.hex()}")

    def _call(self, name, nret, *args):
        self._write("args", struct.pack(f">{len(args)}I", *args))
        self._command("rtas", name, len(args), self.AT["args"], nret, self.AT["rets"])
        return struct.unpack(f">{nret}i", bytes.fromhex(self._command("read", self.AT["rets"], 4 * nret)[0][2:]))

    def round_trip(self, source, number, size):
        """Send a message and receive the reply."""
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
        kill(self.process)


def under_callgrind(out, command):
    """Start COMMAND under callgrind, which writes counts to OUT.N at each dump()."""
    counted = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", *map(str, command)]
    return subprocess.Popen(counted, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def kill(process):
    """Kill PROCESS."""
    process.kill()
    process.wait()
    process.stdout.close()


def dump(process, number, out):
    """Returns {function: instructions, callees included} of PROCESS since the last dump()."""
    subprocess.run(["callgrind_control", "--dump", str(process.pid)], stdout=subprocess.DEVNULL, check=True,
                   stderr=subprocess.DEVNULL)
    text = subprocess.run(["callgrind_annotate", "--inclusive=yes", "--threshold=100", f"{out}.{number}"], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    found = {}
    for count, function in re.findall(r"^ *([\d,]+) \([^)]*\)  (?:.*:)?(PROGRAM TOTALS|\w+)\b", text, re.M):
        found[function] = max(found.get(function, 0), int(count.replace(",", "")))
    return found


# Functions of the device, with their titles
DEVICE = (("rtas_ibm_send_hvpipe_msg", "send"), ("rtas_ibm_receive_hvpipe_msg", "receive"),
          ("hvpipe_link_receive", "frames from the HMC"))


def measure_host(lab, count=200):
    """{source: {size: {part: instructions for a round trip}}}."""
    directory = lab.scratch("callgrind")
    say("host: starting hypervisor and HMC under callgrind")
    qtest = Qtest(directory)
    hmc = None
    try:
        hmc = under_callgrind(directory / "hmc",
                              [HVPIPE_HMC, "-v", "-c", qtest.hmc_socket, "echo"])
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
            kill(hmc)
