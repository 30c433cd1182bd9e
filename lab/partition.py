# SPDX-License-Identifier: GPL-2.0-or-later
"""A partition: Linux on a Machine, with commands to run in it, and able to migrate to another Machine."""

import base64
import gzip
import itertools
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import cpio
from .agent import Agent, Command
from .errors import LabError
from .hypervisor import MOVED
from .machine import INITRAMFS, Machine, source_sockets
from .paths import BUILD, LOGS, TOP
from .stream import LIMIT, ChainedStream, Stream

# Found a bug in the kernel: oopses and the reports of KASAN, UBSAN, lockdep, RCU and the hung task detector
SPLAT = re.compile(r"\bOops\b|BUG:|WARNING: (CPU|possible|suspicious|inconsistent|bad)|UBSAN:|Call Trace|rcu: INFO|"
                   r"blocked for more")
LEAKS = "/sys/kernel/debug/kmemleak"


def initramfs_with(place: Path, programs: Iterable[str] = (), files: Mapping[str, cpio.Entry] | None = None) -> Path:
    """Write the initramfs with PROGRAMS and FILES to PLACE; returns PLACE.

    PROGRAMS are names below build/partition, such as "guest/steps", which becomes /bin/steps.
    """
    entries = {f"bin/{Path(name).name}": BUILD / "partition" / name for name in programs}
    archive = cpio.archive({**entries, **(files or {})})
    place.write_bytes(INITRAMFS.read_bytes() + gzip.compress(archive, 1))
    return place


class Partition:
    """A partition, booted to its agent. See qemu_command() for HOW, and initramfs_with() for PROGRAMS and FILES."""

    def __init__(self, directory, name: str = "partition", wait=True, programs=(), files=None, **how):
        self.name = name
        self._directory = Path(directory)
        if programs or files:
            how["initramfs"] = initramfs_with(self._directory / f"{name}.initramfs", programs, files)
        self._how = how
        LOGS.mkdir(parents=True, exist_ok=True)
        self.console_log = LOGS / f"{name}.console.log"
        self.qemu_log = LOGS / f"{name}.qemu.log"
        self.console_log.unlink(missing_ok=True)
        self.qemu_log.unlink(missing_ok=True)
        self.machine = Machine(self._directory, name, log=self.qemu_log, **how)
        self._target: Machine | None = None
        self._streams = itertools.count(1)
        self._console = ChainedStream(self.machine.lines["console"])
        self.console = Stream(self._console, f"{name}'s console", self.console_log)
        self.agent = Agent(ChainedStream(self.machine.lines["agent"]), LOGS / f"{name}.agent.log")
        try:
            if wait:
                self.wait_booted()
        except BaseException:
            self.close()
            raise

    @property
    def process(self):
        """The process of the hypervisor that the partition runs on now."""
        return self.machine.process

    @property
    def hypervisor(self) -> Stream:
        """The output of the hypervisor that the partition runs on now."""
        return self.machine.hypervisor

    @property
    def qmp(self):
        """The control socket of the hypervisor that the partition runs on now."""
        return self.machine.qmp

    @property
    def sockets(self) -> dict[str, Path]:
        """The sockets for HMCs now: {hmcN: path}."""
        return self.machine.sockets

    def addresses(self, source: str) -> list[Path]:
        """The two addresses of SOURCE. The machines that the partition migrates between use them in turn."""
        return [source_sockets(self._directory / name, [source])[source] for name in (self.name, f"{self.name}-b")]

    def target(self, options=(), **changes) -> Machine:
        """Start a machine to migrate to: like the first one, but with CHANGES and additional OPTIONS."""
        if self._target:
            self._target.close()
        name = f"{self.name}-b" if self.machine.name == self.name else self.name
        how = {"qemu": MOVED, **self._how, **changes}
        how["options"] = [*how.get("options", ()), *options]
        self._target = Machine(self._directory, name, incoming=True, log=self.qemu_log, **how)
        return self._target

    def sleep(self) -> Command:
        """Have the partition suspend itself to migrate; returns a command that ends when the partition runs again.

        No command can be started meanwhile: start() waits.
        """
        stream = next(self._streams)
        self.qmp.set("/machine", "vasi-stream", stream)
        # An aborted migration may have left an event that nobody waited for.
        self.qmp.forget_events()
        self.qmp.set("/machine", "vasi-state", "suspending")
        return self.agent.start(f"echo {stream} >/sys/kernel/mobility/migration", alone=True)

    def wait_asleep(self):
        """Wait until the partition is suspended."""
        self.qmp.wait_event("SUSPEND")

    def carry(self, target: Machine):
        """Migrate the suspended partition to TARGET, where it resumes; the machine that it leaves ends."""
        here = self.machine
        # With the return path a migration completes when the target confirms it, not when everything has been sent.
        here.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": name, "state": True}
                                                                   for name in ("events", "return-path")])
        # The partition is suspended anyway: no need to send in slices.
        here.qmp.execute("migrate-set-parameters", max_bandwidth=2 ** 40, downtime_limit=2000000)
        here.qmp.execute("migrate", uri=f"unix:{target.incoming}")
        if here.qmp.wait_event("MIGRATION", status=("completed", "failed"))["status"] == "failed":
            raise LabError(f"{self.name}: the migration failed, the partition stays where it is:\n"
                           f"{here.hypervisor.text[-1000:]}\nThe target said:\n{target.hypervisor.text[-1000:]}")
        # From here on close() ends both, whenever it is called.
        self.machine, self._target = target, here
        self._console.follow(target.lines["console"])
        self.agent.follow(target.lines["agent"])
        here.quit()
        self._target = None

    def move(self, **changes):
        """Migrate the partition; see target(). Returns when the partition says that it has arrived."""
        target = self.target(**changes)
        going = self.sleep()
        self.wait_asleep()
        self.carry(target)
        going.check()

    def wait_booted(self, limit: float = 600):
        """Wait until commands can be run; after a kexec, until they can be run again."""
        if not self.agent.wait_ready(limit):
            raise LabError(f"{self.name}: did not boot; the end of {self.console_log.relative_to(TOP)}:\n"
                           f"{self.console.text[-3000:]}")

    def start(self, command: str) -> Command:
        """Start COMMAND, a shell command line, in the partition."""
        return self.agent.start(command)

    def serve(self, source: str, command: str) -> Command:
        """Start COMMAND, which opens SOURCE; returns when it is open, so that no message is dropped."""
        started = self.start(f"exec {command}")
        self.holder(started)
        return started

    def holder(self, command: Command) -> int:
        """Wait until a process of COMMAND, which still runs, holds a source; returns its PID."""
        return int(self.check(f"exec holder {command.number}"))

    def run(self, command: str, limit: float = LIMIT) -> Command:
        """Run COMMAND to its end; returns it with status and output."""
        return self.start(command).wait(limit)

    def check(self, command: str, limit: float = LIMIT) -> str:
        """Run COMMAND, which must succeed; returns its output."""
        return self.run(command, limit).check()

    def put(self, name: str, data: bytes):
        """Write DATA to the partition's file NAME, in requests that fit its terminal's buffer."""
        where = shlex.quote(name)
        self.check(f": >{where}")
        for start in range(0, len(data), 3000):
            text = base64.b64encode(data[start:start + 3000]).decode()
            self.check(f"base64 -d >>{where} <<.\n{text}\n.")

    def get(self, name: str) -> bytes:
        """The content of the partition's file NAME."""
        command = self.run(f"cat {shlex.quote(name)}")
        command.check()
        return command.output

    def check_detectors(self):
        """Fail if the kernel has lockdep and it is off. It turns itself off when it finds something."""
        if self.run("test -e /proc/lockdep_stats").status == 0:
            stats = self.check("cat /proc/lockdep_stats")
            if not re.search(r"debug_locks:\s+1\b", stats):
                raise LabError(f"{self.name}: lockdep is off:\n{stats}")

    def check_leaks(self):
        """Fail if the kernel has kmemleak and it finds a leak in two scans. One scan also finds memory just freed."""
        if self.run(f"test -e {LEAKS}").status == 0:
            # Objects younger than 5 s are never reported.
            found = self.check(f"echo scan >{LEAKS}; sleep 6; echo scan >{LEAKS}; cat {LEAKS}")
            if found:
                raise LabError(f"{self.name}: memory leaked:\n{found[:4000]}")

    def poweroff(self, limit: float = LIMIT) -> int:
        """Power the partition off and wait for the hypervisor's end; returns the hypervisor's status."""
        if self.process.poll() is None:
            try:
                self.start("poweroff -f")
                self.process.wait(limit)
            except subprocess.TimeoutExpired:
                raise LabError(f"{self.name}: no power-off within {limit} s:\n{self.console.text[-2000:]}") from None
        self.close()
        return self.process.returncode

    def close(self):
        """End it, whatever state it is in."""
        for machine in (self._target, self.machine):
            if machine:
                machine.close()
        self.agent.wait_end()
