# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypervisor: a pseries machine under our QEMU."""

import os
import re
import shlex
import socket
import subprocess
import time
from pathlib import Path

from .errors import LabError
from .hypervisor import BOOTED, machine_type
from .paths import BUILD
from .qmp import Qmp
from .stream import LIMIT, Stream

MACHINES = BUILD / "machines"   # NAME.qmp for each running machine: a link to a control socket, for `lab fault`
KERNEL = os.environ.get("KERNEL") or "vmlinux"  # the kernel of partitions that name none
PERSONALITY = os.environ.get("PERSONALITY", "")  # properties of every machine's pipe, such as "strict=on"
CPU = os.environ.get("CPU", "")         # the processor of every machine, such as power8
APPEND = os.environ.get("APPEND", "")   # added to every kernel's command line, such as disable_radix
# Kernels with the driver that Linux ships. It clears a message's bit after the call that receives the message, so it
# forgets what is announced before that, and the pipe stops for good. Here the next one is announced after 1000 us of a
# clock that counts instructions: a busy host cannot make them too few.
LINUX_DRIVER = ("debian", "debian-64k")
LINUX_PERSONALITY = "announce-delay-us=1000"
LINUX_OPTIONS = ("-icount", "shift=0")
INITRAMFS = BUILD / "initramfs.cpio.gz"


def payload_limit(personality: str) -> int:
    """The longest message that a partition can send under PERSONALITY."""
    return 4048 if {"strict=on", "payload-limit=4048"} & set(personality.split(",")) else 4088


PAYLOAD_LIMIT = payload_limit(PERSONALITY)
CHOSEN = set(PERSONALITY.split(","))
# Whether what was announced is announced again when the partition enables the pipe
ANNOUNCES_AGAIN = not {"strict=on", "announce-again=off"} & CHOSEN
# Whether a send is refused while the hypervisor is in another one, also in one that the partition has given up
REFUSES_SECOND_SEND = bool({"strict=on", "refuse-second-send=on"} & CHOSEN)
# What read() says when a message was announced and none is there: the error of that receive, as firmware should know
EMPTY_RECEIVE = ("EINVAL" if {"strict=on", "empty-receive=-3"} & CHOSEN else
                 "EIO" if "empty-receive=-1" in CHOSEN else "nothing")


def source_id(name: str) -> int:
    """The source ID of NAME: hmcN, or a number."""
    match = re.fullmatch(r"hmc(\d+)", name)
    return 0x02000000 | int(match[1]) if match else int(name, 0)


def publish(name: str, path):
    """Let `lab fault` find machine NAME by PATH, its control socket; returns a function that takes this back."""
    link = MACHINES / f"{name}.qmp"
    MACHINES.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(path)

    def withdraw():
        if os.path.lexists(link) and os.readlink(link) == str(path):
            link.unlink()
    return withdraw


def source_sockets(place: Path, sources) -> dict[str, Path]:
    """The sockets in PLACE at which HMCs connect to SOURCES: {hmcN: path}."""
    names = [source.partition(",")[0] for source in sources]
    return {name: place / f"{name}.sock" for name in names}


def qemu_command(place: Path, name: str, lines: dict[str, str], sources=(), echo=(), hvpipe=True, kernel=KERNEL,
                 initramfs: Path | None = INITRAMFS, append="", options=(), smp=1, memory="1G", capable=True,
                 cpu=CPU, personality: str | None = None, qemu=BOOTED) -> list[str]:
    """The command that runs machine NAME, with its sockets for HMCs in PLACE.

    LINES are its character devices: console, agent, qmp and control, each with the chardev behind it. The last two are
    both QMP, for two clients. SOURCES have an HMC behind a socket, sources in ECHO answer by themselves; a source is
    "hmcN", or "hmcN,PROPERTY=VALUE..." to set device properties. A machine that is not CAPABLE hides its pipe from the
    partition but keeps the pipe's state for a partition that migrates. PERSONALITY is further properties of the pipe,
    such as "strict=on": how its firmware reads what PAPR leaves open; by default what the KERNEL needs. QEMU is the
    directory of the one to run. The partition's programs find the longest message that they can send in the
    environment, as the kernel gives init what it does not know of its command line.
    """
    if personality is None:
        personality = PERSONALITY or (LINUX_PERSONALITY if kernel in LINUX_DRIVER else "")
    if kernel in LINUX_DRIVER and "-icount" not in options:
        options = [*LINUX_OPTIONS, *options]
    if hvpipe:
        append = f"PAPR_HVPIPE_LIMIT={payload_limit(personality)} {append}".strip()
    command = [
        qemu / "qemu-system-ppc64", "-machine", f"{machine_type()},x-vof=on", "-accel", "tcg", "-nodefaults",
        "-nographic", "-L", qemu / "pc-bios", "-m", memory, "-smp", smp, "-no-reboot", "-name", name,
        "-kernel", BUILD / kernel,
        "-append", " ".join(filter(None, ("console=hvc0", initramfs and "rdinit=/init", append, APPEND))),
    ]
    if initramfs:
        command += ["-initrd", initramfs]
    if cpu:
        command += ["-cpu", cpu]
    for line, chardev in lines.items():
        kind, _, more = chardev.partition(",")
        command += ["-chardev", f"{kind},id={line},{more}"]
        if line in ("qmp", "control"):
            command += ["-qmp", f"chardev:{line}"]
        else:
            command += ["-device", f"spapr-vty,chardev={line},reg={0x30000000 + 0x1000 * (line == 'agent'):#x}"]
    if hvpipe:
        command += ["-device", f"spapr-hvpipe,id=hvpipe,capable={'on' if capable else 'off'}"
                    + (f",{personality}" if personality else "")]
    for source, path in source_sockets(place, sources).items():
        command += ["-chardev", f"socket,id={source},path={path},server=on,wait=off"]
    for source in [*sources, *echo]:
        address, _, more = source.partition(",")
        device = "spapr-hvpipe-echo" if source in echo else f"spapr-hvpipe-source,chardev={address}"
        command += ["-device", f"{device},id=source-{address},source-id={source_id(address):#x}"
                    + (f",{more}" if more else "")]
    return [str(word) for word in [*command, *options]]


class Machine:
    """A running machine; see qemu_command() for HOW. It boots a partition or, if INCOMING, waits for one to arrive."""

    def __init__(self, directory: Path, name: str, hvpipe=True, trace=True, options=(), incoming=False,
                 log: Path | None = None, **how):
        self.name = name
        place = directory / name
        place.mkdir(exist_ok=True)
        self.sockets = source_sockets(place, how.get("sources", ()))
        self.incoming = place / "incoming.sock"

        # We listen and QEMU connects, so that no output of the boot is lost.
        listeners = {line: socket.socket(socket.AF_UNIX) for line in ("console", "agent", "qmp")}
        lines = {}
        for line, listener in listeners.items():
            path = place / f"{line}.sock"
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen(1)
            lines[line] = f"socket,path={path}"
        control = place / "control.sock"
        lines["control"] = f"socket,path={control},server=on,wait=off"
        self._withdraw = publish(name, control)
        if hvpipe and trace:
            options = [*options, "-trace", "spapr_hvpipe_*"]
        if incoming:
            options = [*options, "-incoming", f"unix:{self.incoming}"]
        self.command = qemu_command(place, name, lines, hvpipe=hvpipe, options=options, **how)

        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        # The hypervisor's errors and trace: a line for each frame and call of the pipe.
        self.hypervisor = Stream(self.process.stdout, f"{name}'s hypervisor", log)
        self.lines = {}
        try:
            for line, listener in listeners.items():
                self.lines[line] = self._accept(listener)
            self.lines["qmp"].settimeout(LIMIT)
            self.qmp = Qmp(self.lines["qmp"])
        except OSError as error:
            output = self._kill()
            self.close()
            raise LabError(f"{name}: the hypervisor ended ({error}):\n{output}") from None
        except BaseException:
            self.close()
            raise

    def _kill(self):
        """Kill it; returns its command line and output."""
        self.process.kill()
        return f"{shlex.join(self.command)}\n{self.hypervisor.wait_end()}"

    def _accept(self, listener):
        with listener:
            listener.settimeout(0.2)
            deadline = time.monotonic() + LIMIT
            while True:
                try:
                    connection, _ = listener.accept()
                    connection.settimeout(None)
                    return connection
                except TimeoutError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        raise LabError(f"{self.name}: the hypervisor did not start:\n{self._kill()}") from None

    def quit(self):
        """End it properly: it closes its links to HMCs."""
        self.qmp.execute("quit")
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name}: the hypervisor did not quit within {LIMIT} s") from None
        self.close()

    def close(self):
        """End it, whatever state it is in."""
        self._withdraw()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hypervisor.wait_end()
        for line in self.lines.values():
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.process.stdout.close()
