# SPDX-License-Identifier: GPL-2.0-or-later
"""The link between hypervisor and HMC without a partition: the device under QTest, what the spec page says of the link,
and a tap between the two sides."""

import contextlib
import re
import shlex
import socket
import struct
import subprocess
import threading
import time

from lab.errors import LabError
from lab.hypervisor import BOOTED
from lab.paths import TOP
from lab.qmp import Qmp
from lab.stream import LIMIT

PAGE = TOP / "qemu/docs/specs/ppc-spapr-hvpipe.rst"
HEADER = struct.Struct(">BBHIQ")
HV_STATE = struct.Struct(">HHIIIQQQQ")
MESSAGE, ACK, NACK, STATE, CLOSE = 1, 2, 3, 4, 5
EPOCH = slice(HEADER.size + 16, HEADER.size + 24)   # in the hypervisor's STATE
BUSY = (-2, 9900)
ARGUMENTS, RESULTS, LIST, BUFFER = 0x100000, 0x101000, 0x102000, 0x104000
MACHINE = "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"


def frame(kind, sequence=0, payload=b"", version=2):
    """A whole frame."""
    return HEADER.pack(version, kind, len(payload), 0, sequence) + payload


def cut_frames(stream: bytes) -> list[bytes]:
    """The whole frames at the beginning of STREAM."""
    frames = []
    while len(stream) >= HEADER.size:
        size = HEADER.size + HEADER.unpack_from(stream)[2]
        if len(stream) < size:
            break
        frames.append(stream[:size])
        stream = stream[size:]
    return frames


def read_frame(connection: socket.socket) -> bytes:
    """The next frame from CONNECTION; b"" at the end of the stream."""
    data = b""
    while len(data) < HEADER.size or len(data) < HEADER.size + HEADER.unpack_from(data)[2]:
        missing = (HEADER.size if len(data) < HEADER.size else HEADER.size + HEADER.unpack_from(data)[2]) - len(data)
        try:
            more = connection.recv(missing)
        except ConnectionResetError:
            more = b""
        if not more:
            assert not data, f"the stream ended within a frame: {data.hex(' ')}"
            break
        data += more
    return data


def page_blocks():
    """The blocks of dumps in the page's section "Examples": a list of (party, text, bytes or None) each."""
    section = PAGE.read_text(encoding="utf-8").partition("\nExamples\n---")[2].partition("\n====")[0]
    blocks = []
    for block in re.findall(r"\.\. code-block:: none\n\n((?:  .*\n|\n)+)", section):
        steps = []
        for line in block.splitlines():
            match = re.fullmatch(r"  (HMC|Hypervisor|Partition|Connection): (.*)", line)
            if match:
                steps.append((match[1], match[2], b"" if match[1] in ("HMC", "Hypervisor") else None))
            elif line:
                party, text, data = steps.pop()
                steps.append((party, text, data + bytes.fromhex(line)))
        blocks.append(steps)
    return blocks


class Device:
    """The hypervisor's device with one source, hmc1, and no guest: the calls of the partition are made by QTest."""

    def __init__(self, place, limit=256):
        self.path = place / "hmc1.sock"
        firmware = place / "firmware"
        firmware.write_bytes(b"none")    # nothing runs, but the machine insists on something to run
        command = [BOOTED / "qemu-system-ppc64", "-machine", MACHINE, "-accel", "qtest", "-m", "256", "-nodefaults",
                   "-nographic", "-bios", firmware, "-qtest", f"unix:{place}/qtest,server=on,wait=off",
                   "-qmp", f"unix:{place}/qmp,server=on,wait=off", "-device", "spapr-hvpipe,id=hvpipe",
                   "-chardev", f"socket,id=hmc1,path={self.path},server=on,wait=off", "-device",
                   f"spapr-hvpipe-source,id=source,source-id=0x02000001,chardev=hmc1,queue-limit={limit}"]
        self.log = place / "hypervisor.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        self.qtest = socket.socket(socket.AF_UNIX)
        self.qtest.settimeout(LIMIT)
        self.wait(lambda: self._connected(place / "qtest"), f"a start of {shlex.join(map(str, command))}")
        self.lines = self.qtest.makefile("r")
        self.qmp = Qmp.connect(place / "qmp")

    def _connected(self, path) -> bool:
        try:
            self.qtest.connect(str(path))
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def wait(self, condition, what: str):
        """Wait until CONDITION is true."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise LabError(f"waited in vain for {what}; the hypervisor said: {self.log.read_text()}")
            time.sleep(0.002)

    def close(self):
        """End it."""
        self.process.kill()
        self.process.wait()
        self.lines.close()
        self.qtest.close()

    def _do(self, command: str) -> str:
        self.qtest.sendall(command.encode() + b"\n")
        answer = self.lines.readline().split()
        assert answer and answer[0] == "OK", f"{command}: {answer}"
        return answer[-1]

    def _write(self, address: int, data: bytes):
        self._do(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def _read(self, address: int, size: int) -> bytes:
        return bytes.fromhex(self._do(f"read {address:#x} {size:#x}")[2:])

    def _call(self, name: str, arguments: tuple, results: int) -> tuple:
        """Make an RTAS call."""
        self._write(ARGUMENTS, struct.pack(f">{len(arguments)}I", *arguments))
        self._do(f"rtas {name} {len(arguments)} {ARGUMENTS:#x} {results} {RESULTS:#x}")
        return struct.unpack(f">i{results - 1}I", self._read(RESULTS, 4 * results))

    def enable(self, value=1):
        """The partition enables (1) or disables (0) the pipe."""
        self._write(BUFFER, struct.pack(">HB", 1, value))
        assert self._call("ibm,set-system-parameter", (64, BUFFER), 1) == (0,)

    def send(self, message: bytes) -> int:
        """One call of the partition to send MESSAGE, or to ask again; returns the status."""
        self._write(BUFFER, message)
        self._write(LIST, struct.pack(">QQQ", 24, BUFFER, len(message)))
        return self._call("ibm,send-hvpipe-msg", (0x02000001, LIST), 1)[0]

    def send_wait(self, message: bytes) -> int:
        """Call until there is an answer; returns it."""
        status = BUSY[0]

        def answered():
            nonlocal status
            status = self.send(message)
            return status not in BUSY
        self.wait(answered, "an answer of the HMC")
        return status

    def _fetch_event(self) -> bool:
        return self._call("check-exception", (0x500, 0x1002, 0x04000000, 1, BUFFER, 2048), 1) == (0,)

    def receive(self) -> bytes:
        """The next message that the partition receives; losses before it are skipped."""
        message = b""

        def received():
            nonlocal message
            self._fetch_event()
            status, _, size = self._call("ibm,receive-hvpipe-msg", (BUFFER, 4096), 3)
            assert status == 0
            message = self._read(BUFFER, size) if size else b""
            return message
        self.wait(received, "a message of the HMC")
        return message

    def reboot(self):
        """Reset the machine."""
        self.qmp.execute("system_reset")
        self.qmp.wait_event("RESET")

    def get(self, name: str):
        """A property of the source."""
        return self.qmp.get("/machine/peripheral/source", name)

    @property
    def epoch(self) -> int:
        """The epoch of the partition's boot."""
        return self.qmp.get("/machine/peripheral/hvpipe", "epoch")

    def connect(self) -> socket.socket:
        """A connection of an HMC."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(LIMIT)
        connection.connect(str(self.path))
        return connection


class Tap:
    """Stands between an HMC, which connects to PATH, and the hypervisor at TARGET, and can cut the connection.

    CHANGE, if given, is called with each frame of the hypervisor and returns what the HMC gets in its place.
    """

    def __init__(self, path, target, change=None):
        self.path, self._target, self._change = path, str(target), change
        self.written: list[dict[str, bytes]] = []   # by the "HMC" and the "hypervisor", for each connection
        self._ends: dict[str, socket.socket] = {}   # towards each of them
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self):
        """Lose the connection that is there, if any."""
        for end in list(self._ends.values()):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        """End: no connection is accepted any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        self._thread.join(LIMIT)
        self._listener.close()

    def frames(self, party: str, connection=-1) -> list[bytes]:
        """The whole frames that PARTY has written on a connection, the last one by default."""
        return cut_frames(self.written[connection][party])

    def _run(self):
        while True:
            try:
                hmc, _ = self._listener.accept()
            except OSError:
                return
            hypervisor = socket.socket(socket.AF_UNIX)
            hypervisor.connect(self._target)
            self._ends = {"HMC": hmc, "hypervisor": hypervisor}
            self.written.append({"HMC": b"", "hypervisor": b""})
            back = threading.Thread(target=self._pass_on, args=("hypervisor", hmc), daemon=True)
            back.start()
            self._pass_on("HMC", hypervisor)
            back.join()
            self._ends = {}
            hmc.close()
            hypervisor.close()

    def _pass_on(self, party: str, other: socket.socket):
        """Hand over what PARTY writes, until it writes no more."""
        passed = 0
        with contextlib.suppress(OSError):
            while data := self._ends[party].recv(1 << 16):
                self.written[-1][party] += data
                if party == "hypervisor" and self._change:
                    frames = self.frames(party)
                    data = b"".join(map(self._change, frames[passed:]))
                    passed = len(frames)
                # Who is gone gets no more, but what it wrote before still arrives.
                with contextlib.suppress(OSError):
                    other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        # The hypervisor closes the connection as a whole; an HMC that writes no more may still read.
        if party == "hypervisor":
            self.cut()
