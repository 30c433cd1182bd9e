# SPDX-License-Identifier: GPL-2.0-or-later
"""Show each defect of the driver that Linux ships, without and with our fixes for it (linux/fixes).

Both kernels are Debian's newest. guest/defects.c makes the calls of a program in the partition and prints what came of
them; the hypervisor's faults, a userfaultfd or a thread's state say when. So a defect shows each time, or never. Before
that every step of the series is compiled. FIXES=NAME,... shows some defects only.

build/fixes.md has the table. A defect that the kernel does not have any more is "mended".
"""

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import Lab, LabError, Partition
from .cache import code_of, key_of, locked, result
from .kernel import FIXES, FLOOR, kernel_make, kernel_toolchain, objects_dir
from .partition import initramfs_with
from .paths import BUILD, LOGS
from .step import Step, environment
from .toolchain import CROSS
from .tree import Changes, PatchedTree

KERNELS = {"unmodified": "vmlinux-debian", "patched": "vmlinux-debian-fixed"}
PIPE = "/machine/peripheral/hvpipe"
OBJECTS = ("arch/powerpc/platforms/pseries/papr-hvpipe.o", "arch/powerpc/kernel/rtas.o")
INITCALL = "__machine_initcall_pseries_papr_hvpipe_init"
DIED = "the partition panics"
OFF = "hvpipe_enable enabled 0"
ALL_ENDED = "until ! pidof defects >/dev/null; do :; done"


@dataclass(frozen=True)
class Defect:
    """A defect, and how it is shown."""
    name: str
    title: str
    fails: str      # what is seen where it is there, a pattern
    holds: str      # and where it is mended
    faults: str = ""    # of the hypervisor, from the beginning
    show: Callable | None = None    # returns what is seen; by default what guest/defects.c prints
    how: dict | None = field(default=None)      # a partition of its own


def inject(partition: Partition, faults: str):
    """Have the hypervisor make FAULTS."""
    partition.qmp.set(PIPE, "inject", faults)


def run(partition: Partition, name: str) -> str:
    """What guest/defects.c prints; if the kernel panics, that."""
    try:
        return partition.check(f"exec defects {name}").strip()
    except LabError:
        if re.search(r"Oops|Kernel panic", partition.console.text):
            return DIED
        raise


def migrate(partition: Partition, name: str, wait_for: str = "", faults: str = "") -> str:
    """Show NAME, which begins a migration. That waits with the pipe off, for WAIT_FOR and FAULTS, and is aborted."""
    mark = partition.hypervisor.size
    partition.qmp.set("/machine", "vasi-stream", 1)
    showing = partition.start(f"exec defects {name}")
    if wait_for:
        partition.hypervisor.wait_for(wait_for, since=mark)
    partition.hypervisor.wait_for(OFF, since=mark)
    if name == "pollers":
        showing.wait()
    if faults:
        inject(partition, faults)
    partition.qmp.set("/machine", "vasi-state", "aborted")
    partition.check(ALL_ENDED)
    return showing.check().strip()


def show_in_flight(partition: Partition) -> str:
    """A migration begins while firmware is busy with a send."""
    return migrate(partition, "in-flight", r"hvpipe_send .* status (-5|0)\s")


def show_pollers(partition: Partition) -> str:
    """A migration begins while a program waits in poll()."""
    return migrate(partition, "pollers")


def show_enable(partition: Partition) -> str:
    """Firmware fails to enable the pipe after a migration."""
    return migrate(partition, "enable", faults="set-system-parameter:status=-1")


def show_new_pipe(partition: Partition) -> str:
    """After a migration the message that was announced is not there."""
    return migrate(partition, "new-pipe", faults="set-system-parameter:new-pipe")


def show_no_section(partition: Partition) -> str:
    """An event does not say what happened."""
    mark = partition.hypervisor.size
    inject(partition, "event:no-section")
    partition.hypervisor.wait_for(r"hvpipe_fault event\s", since=mark)
    return run(partition, "works")


def show_init(partition: Partition) -> str:
    """At boot the pipe could not be enabled; later it is, and an event comes."""
    partition.check("defects reset")
    mark = partition.hypervisor.size
    inject(partition, "event:unknown-source")
    partition.hypervisor.wait_for(r"hvpipe_fault event\s", since=mark)
    return run(partition, "reset")


def kexec(partition: Partition, way: str, append: str = ""):
    """Have another kernel take over, or load the one that does after a crash."""
    partition.start(f"exec kexec {way} /vmlinux /initramfs 'console=hvc0 rdinit=/init {append}'")


def show_unannounced(partition: Partition) -> str:
    """The next kernel finds a message that was announced to the one before."""
    partition.check("exec defects leave")
    kexec(partition, "now")
    partition.wait_booted()
    return run(partition, "works")


def show_kexec(partition: Partition) -> str:
    """The next kernel does not use the pipe."""
    kexec(partition, "now", f"initcall_blacklist={INITCALL}")
    partition.wait_booted()
    return "the pipe is " + ("on" if partition.qmp.get(PIPE, "enabled") else "off")


def show_crash_kernel(partition: Partition) -> str:
    """The partition crashes while a message is pending."""
    partition.check("kexec crash /vmlinux /initramfs 'console=hvc0 rdinit=/init'")
    partition.check("exec defects leave")
    partition.qmp.execute("inject-nmi")
    partition.wait_booted()
    return "the message is " + ("kept" if partition.qmp.get(PIPE, "queued") else "lost")


OWN: dict = {}
DEFECTS = (
    Defect("no-section", "an event without the expected section panics the partition", DIED, "other source 'b'",
           show=show_no_section, how=OWN),
    Defect("lost-event", "a message announced during a receive is forgotten: the pipe stops for all sources",
           "'a', then silence, other source silence", "'a', then 'b', other source 'c'"),
    Defect("overlap", "two receives are made at once", "second reader 'a', first reader header",
           "second reader nothing, first reader 'a'", faults="receive:status=9903"),
    Defect("epoll", "an epoll set made while something is pending sleeps for ever",
           "epoll 1 for 'a', poll 1 epoll 0 for 'b'", "epoll 1 for 'a', poll 1 epoll 1 for 'b'"),
    Defect("header", "a failed read leaves the header of a message", "EIO, buffer written, then 'a'",
           "EIO, buffer untouched, then 'a'", faults="receive:status=-1"),
    Defect("fault", "a message is lost when the reader's memory faults", "EFAULT, then nothing", "EFAULT, then 'a'"),
    Defect("short", "a message is cut off when the buffer is short", "'he', then nothing", "EMSGSIZE, then 'hello'"),
    Defect("crossed", "a reader gets another source's message",
           "second reader 'a', first reader 'b', other source's reader header",
           "second reader nothing, first reader 'a', other source's reader 'b'"),
    Defect("both-bits", "a message announced together with a loss is never received: the pipe stops for all sources",
           "loss, then nothing, other source silence", "'a', then loss, other source 'b'",
           faults="replace-event:both-bits"),
    Defect("bad-address", "write() says EPERM for a bad address", "EPERM", "EFAULT"),
    Defect("sys-rtas", "sys_rtas takes messages, and sends any memory", "receive passed, then header, send passed",
           "receive EINVAL, then 'a', send EINVAL"),
    Defect("drain", "one failed receive at close() stops the pipe for all sources", "other source silence",
           "other source 'b'", faults="receive:status=-1"),
    Defect("slow-writer", "a writer whose memory is slow stops all writers",
           "other source's writer no end, in the end sent, slow writer sent",
           "other source's writer sent, in the end sent, slow writer sent"),
    Defect("in-flight", "a migration disables the pipe under a send", "write EOPNOTSUPP", "write sent",
           faults="send:status=9903,count=3", show=show_in_flight),
    Defect("pollers", "a migration does not wake pollers", "the pipe is off, poller no end",
           "the pipe is off, poller RDHUP", show=show_pollers),
    Defect("enable", "one failure to enable the pipe after a migration is for good", "write ENXIO", "write sent",
           show=show_enable, how=OWN),
    Defect("new-pipe", "a message announced before a migration is believed in after it", "poll 1 read header read .*",
           "poll 0 read nothing read nothing", show=show_new_pipe),
    Defect("unannounced", "a message that is not announced again stops the pipe for all sources",
           "other source silence", "other source 'b'", show=show_unannounced,
           how={"personality": "announce-again=off", "kexec": True}),
    Defect("init", "an event after a failed start panics the partition", DIED, "enabled", show=show_init,
           how={"personality": "inject=set-system-parameter:status=-9002"}),
    Defect("crash-kernel", "a crash kernel receives messages and drops them", "the message is lost",
           "the message is kept", show=show_crash_kernel, how={"append": "crashkernel=256M", "kexec": True}),
    Defect("kexec", "kexec leaves the pipe enabled", "the pipe is on", "the pipe is off", show=show_kexec,
           how={"kexec": True}),
    Defect("source-type", "a handle for what is no HMC",
           "0x3000001 created, 0x2010001 created, 0xffffffff created",
           "0x3000001 EINVAL, 0x2010001 EINVAL, 0xffffffff EINVAL"),
    Defect("unknown-ioctl", "an unknown ioctl command gets EFAULT or EINVAL", "NULL EFAULT, pointer EINVAL",
           "NULL ENOTTY, pointer ENOTTY"),
)


class Kernel:
    """One of the kernels, and what is seen of each defect on it."""

    def __init__(self, lab: Lab, title: str, name: str):
        self.lab = lab
        self.title = title
        self.name = name
        self.release = ""
        self.seen: dict[str, str] = {}
        self._shared: Partition | None = None
        self._count = 0

    def _boot(self, own: dict) -> Partition:
        """A partition for what is to be shown."""
        how = dict(own)
        if how.pop("kexec", False):
            place = self.lab.scratch("kexec")
            subprocess.run([f"{CROSS}strip", "-o", place / "vmlinux", BUILD / self.name], check=True)
            how["files"] = {"vmlinux": place / "vmlinux",
                            "initramfs": initramfs_with(place / "initramfs", ["guest/defects"])}
        self._count += 1
        partition = self.lab.partition(name=f"fixes-{self.title}-{self._count}", kernel=self.name,
                                       programs=["guest/defects", "guest/kexec"], echo=["hmc1", "hmc2"], smp=1, **how)
        self.release = self.release or partition.check("uname -r").strip()
        return partition

    def show(self, defect: Defect):
        """Show DEFECT; keeps what is seen."""
        if defect.how is not None:
            partition = self._boot(defect.how)
        else:
            partition = self._shared = self._shared or self._boot({})
        inject(partition, defect.faults)
        self.seen[defect.name] = (defect.show or (lambda partition: run(partition, defect.name)))(partition)
        if defect.how is not None:
            partition.close()
            return
        # A pipe that is stuck comes back when root enables it anew: what is pending is announced again.
        inject(partition, "")
        partition.check(f"{ALL_ENDED}; defects reset")
        mark = partition.hypervisor.size
        while partition.qmp.get(PIPE, "queued"):
            partition.hypervisor.wait_for("hvpipe_receive", since=mark)
            mark = partition.hypervisor.size

    def close(self):
        """End the partition that they share."""
        if self._shared:
            self._shared.close()


def compile_steps():
    """Compile what the series changes, at each of its steps; a warning is an error."""
    def trees():
        for count in range(1, len(FIXES) + 1):
            yield PatchedTree("linux", "newer", Changes(FIXES[:count], []), FLOOR)

    def key() -> str:
        return key_of(*kernel_toolchain(), next(trees()).source.version, *FIXES, Path(__file__),
                      *code_of(str(Path(__file__).with_name("kernel.py"))))

    def make_it(place: Path):
        first = next(trees())
        objects = objects_dir("vmlinux-debian", first.source.version, *kernel_toolchain())
        with locked(first.path.name), Step("fixes-steps", "compiling each step of the series") as step:
            for tree in trees():
                tree.prepare(step)
                step.run([*kernel_make(tree.path, objects), *OBJECTS], env=environment(), unit="steps",
                         doing=f"compiling step {step.count + 1}", count=r"^  CC .*/papr-hvpipe\.o")
        said = step.log.read_text(encoding="utf-8")
        if "warning:" in said:
            raise LabError(f"fixes: the compiler warns, see {step.log}")
        shutil.copy(step.log, place)
    result("fixes-steps", key, make_it)


def changed_lines(patch: Path) -> int:
    """How many lines PATCH adds and removes."""
    return len(re.findall(r"^[+-](?!\+\+ |-- )", patch.read_text(encoding="utf-8").partition("\ndiff --git")[2], re.M))


def fix_of(defect: Defect) -> tuple[int, Path]:
    """The number and the file of the fix for DEFECT: the patch that names it."""
    for number, patch in enumerate(FIXES, 1):
        named = re.search(r"^Reproduced by: make test-fixes FIXES=(\S+)$", patch.read_text(encoding="utf-8"), re.M)
        if named and defect.name in named[1].split(","):
            return number, patch
    raise LabError(f"fixes: no patch names {defect.name}")


def judge(defect: Defect, before: str, after: str, release: str) -> tuple[str, str]:
    """What is said of DEFECT: shown, mended, or neither, and in which words."""
    if not re.fullmatch(defect.holds, after):
        return "wrong", f"patched: {after}"
    if re.fullmatch(defect.holds, before):
        return "mended", f"mended in {release}"
    return ("shown", before) if re.fullmatch(defect.fails, before) else ("wrong", f"unmodified: {before}")


def add_arguments(_parser: argparse.ArgumentParser):
    """No arguments."""


def chosen() -> list[Defect]:
    """The defects that FIXES= names, else all."""
    names = os.environ.get("FIXES")
    if not names:
        return list(DEFECTS)
    by_name = {defect.name: defect for defect in DEFECTS}
    unknown = [name for name in names.split(",") if name not in by_name]
    if unknown:
        raise LabError(f"FIXES={names}: no such defect: {', '.join(unknown)}; choose from: {', '.join(by_name)}")
    return [by_name[name] for name in names.split(",")]


def main(_arguments: argparse.Namespace) -> int:
    """Show them; the last line counts."""
    defects = chosen()
    fixes = {defect.name: fix_of(defect) for defect in defects}
    compile_steps()
    with Lab() as lab:
        kernels = [Kernel(lab, title, name) for title, name in KERNELS.items()]
        for kernel in kernels:
            for defect in defects:
                try:
                    kernel.show(defect)
                except LabError as error:
                    raise LabError(f"{kernel.title}: {defect.name}: {error}\nlogs are in {LOGS}") from error
                print(f"fixes: {kernel.title}: {defect.name}: {kernel.seen[defect.name]}", flush=True)
            kernel.close()
    unmodified, patched = kernels
    rows, verdicts = [], []
    for defect in defects:
        number, patch = fixes[defect.name]
        before, after = unmodified.seen[defect.name], patched.seen[defect.name]
        verdict, words = judge(defect, before, after, unmodified.release)
        verdicts.append(verdict)
        holds = after if verdict != "wrong" else f"WRONG: {words}"
        rows.append(f"| {defect.name} | {defect.title} | {words if verdict != 'wrong' else before} | {holds} | "
                    f"{number:04} | {changed_lines(patch)} |")
    table = [f"| defect | what goes wrong | unmodified {unmodified.release} | patched | fix | lines |",
             "|---|---|---|---|---|---|", *rows]
    (BUILD / "fixes.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n" + "\n".join(table) + "\n")
    for defect, verdict in zip(defects, verdicts):
        if verdict == "wrong":
            print(f"fixes: {defect.name}: expected '{defect.fails}' without and '{defect.holds}' with the fixes")
    print(f"fixes: {len(defects)} defects, {verdicts.count('shown')} shown, {verdicts.count('mended')} mended")
    return 1 if "wrong" in verdicts else 0
