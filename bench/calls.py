# SPDX-License-Identifier: GPL-2.0-or-later
"""What each call of a driver costs, in guest instructions, and where they go: kernels, parts, and how to measure them.

A part is a run of bench/bench.c in the partition; it prints rows. BASELINE=path/to/vmlinux measures that kernel too, in
the same run and by the same program; BASELINE=debian measures the newest kernel that Debian has, with its driver and
with ours.
"""

import os
import re
import subprocess
from pathlib import Path

from lab import BUILD, TOP, Lab, LabError, Partition
from lab.step import output_of

from . import say
from .counting import ECHO, LIMIT, counting, parse

SIZES = (1, 64, 1024, 4048, 4088)
COUNTS = (1, 16, 256, 4096, 16384, 65536)

# A part's arguments for bench.c, its title, and its rows: name in bench.c, title
MESSAGES = (("send", "send, no event inside"), ("send-event", "send, the echo's event inside"),
            ("receive", "receive, no event inside"), ("receive-event", "receive, the next event inside"),
            ("round-trip", "round trip: write, poll, read"))
LIBRARY = (("send", "write()"), ("library-send", "hvpipe_send()"), ("receive", "read()"),
           ("library-receive", "hvpipe_recv()"), ("copy", "a copy of the payload"))
PARTS = [
    ("floor", "floor", (("getppid", "getppid()"), ("sys_rtas", "sys_rtas(get-time-of-day)"))),
    ("rtas_call", "in the kernel", (("rtas_call", "rtas_call(), nothing to receive"),)),
    *((f"messages {size}", f"{size} byte{'s' * (size > 1)}", MESSAGES) for size in SIZES),
    *((f"library {size}", f"{size} bytes, bare and by the library", LIBRARY) for size in (64, 4048)),
    ("busy", f"64 bytes, {len(ECHO)} sources with a message each",
     (("send", "send, no event inside"), ("receive", "receive, the next event inside"))),
    ("wakeup", "64 bytes, another thread in poll()",
     (("wakeup", "write() to the return of that poll()"),)),
    ("files 1", "signalfd()", (("new-file", "a new file"),)),
    ("files 16384", "16,384 signalfd()", (("new-file", "a new file, average up to here"),)),
]

# With many handles open, for each of COUNTS: messages of 64 bytes by the handle created first and the one created last
WITH_HANDLES = (
    ("create-all", "create, average up to here"), ("close-all", "close, average"),
    ("create", "create the one of the highest index again"), ("close", "close it"),
    *((f"{which}-{row}", f"by the {which}: {title}") for which in ("first", "last")
      for row, title in (*((row, title.partition(":")[0]) for row, title in MESSAGES),
                         ("wakeup", "write() to the return of another's poll()"))),
)
HANDLES = [(f"handles {count}", f"{count:,} handle{'s' * (count > 1)}", WITH_HANDLES) for count in COUNTS]

# How long a message waits, in nanoseconds: part, messages queued before it for a sleeping reader, hold_after_ms
ASLEEP = [(f"asleep {ms} {queued}", queued, ms) for queued in (1, 3) for ms in (0, 1, 10, 50)]

# What the numbers depend on: title, kernel, what is added to its command line; the parts that are run
VARIANTS = (("mitigations=off", "vmlinux-bench", "mitigations=off"), ("KUnit, not running", "vmlinux", ""))
VARIANT_PARTS = ("floor", "messages 64")
# and one for all kernels
FLUSHED = "L1D flushed by loads"
FLUSHED_OPTIONS = ("-machine", "cap-cfpc=broken")
FLUSHED_PARTS = ("floor", "messages 64", "messages 4048", "handles 1", "handles 16384", "files 1", "files 16384")

# The rows that bench.c marks for the plugin, and the plugin's own
MARKS = {1: "send-event", 2: "send", 3: "receive-event", 4: "receive", 5: "round-trip", 6: "before-event",
         7: "event-to-wakeup", 8: "close", 9: "create"}


def kernels() -> dict[str, Path]:
    """The kernels to measure, ours first. Ratios are those of the last two."""
    baseline = os.environ.get("BASELINE")
    found = {"ours": BUILD / "vmlinux-bench"}
    if baseline == "debian":
        found.update({"ours, newer": BUILD / "vmlinux-debian-ours", "Linux's": BUILD / "vmlinux-debian"})
    elif baseline:
        found["baseline"] = Path(baseline)
    for name, kernel in found.items():
        if not kernel.is_file():
            raise LabError(f"{name}: {kernel} is not a file")
    return {name: kernel.resolve() for name, kernel in found.items()}


def machine_name(kernel: str) -> str:
    """KERNEL's name for use in a machine's: a comma would divide QEMU's options."""
    return re.sub(r"\W", "", kernel)


def describe(partition: Partition) -> str:
    """What the numbers depend on in a partition: its kernel's compiler, its processor."""
    compiler = re.search(r"gcc[^)]*\) ([\d.]+)", partition.check("cat /proc/version"))
    cpuinfo = dict(re.findall(r"^(\w+)\s*: ([\w()]+)", partition.check("cat /proc/cpuinfo"), re.M))
    return f"gcc {compiler[1] if compiler else '?'}, {cpuinfo.get('cpu', '?')}, {cpuinfo.get('MMU', '?').lower()} MMU"


def say_failed(name: str, part: str, command):
    """Report that bench.c failed."""
    say(f"{name}: bench {part} ended with status {command.status}: {command.stdout.strip() or 'no output'}")


def measure_kernel(lab: Lab, name: str, kernel: Path) -> dict:
    """All parts of KERNEL: {"kernel", "release", "what", "results": {part: rows}}. Parts that failed are missing."""
    results, partition, release, boots, what = {}, None, None, 0, None
    for part, title, _ in PARTS + HANDLES:
        for last in (False, True):
            try:
                if not partition:
                    boots += 1
                    say(f"{name}: booting {kernel}")
                    partition, results["unit"] = counting(lab, f"bench-{machine_name(name)}-{boots}", kernel)
                    release = partition.check("uname -r").strip()
                    what = describe(partition)
                say(f"{name}: Linux {release}: {part if part == title else f'{part.split()[0]}, {title}'}")
                command = partition.run(f"exec bench {part}", LIMIT)
            except LabError as error:
                # The kernel crashed, or the connection to its agent broke. The parts do not depend on each other.
                if not release:
                    raise
                say(f"{name}: {error}: {'missing' if last else 'once more'}")
                if partition:
                    partition.close()
                partition = None
                continue
            if command.status:
                say_failed(name, part, command)
            else:
                results[part] = parse(command.stdout)
            break
    if partition:
        partition.close()
    return {"kernel": str(kernel), "release": release, "what": what, "results": results}


def measure_calls(lab: Lab) -> dict:
    """{kernel: what measure_kernel() returns}, ours first. Our own driver must not fail."""
    runs = {name: measure_kernel(lab, name, kernel) for name, kernel in kernels().items()}
    missing = [part for part, _, _ in PARTS + HANDLES for name, run in runs.items()
               if name.startswith("ours") and part not in run["results"]]
    if missing:
        raise LabError(f"our own driver failed in {', '.join(missing)}")
    return runs


def measure_asleep(lab: Lab) -> dict:
    """{kernel: {"results": {part: rows}}} for messages behind a sleeping reader, in virtual time that does not idle."""
    runs = {}
    for name, kernel in kernels().items():
        say(f"{name}: behind a sleeping reader")
        partition, _ = counting(lab, f"bench-{machine_name(name)}-asleep", kernel, ["-icount", "sleep=off"])
        runs[name] = {"results": {}}
        try:
            for part, _, ms in ASLEEP:
                command = partition.run(f"exec bench {part}")
                # A driver without hold_after_ms has only the parts with 0.
                if not command.status:
                    runs[name]["results"][part] = parse(command.stdout)
                elif name.startswith("ours") or not ms:
                    say_failed(name, part, command)
        except LabError as error:
            say(f"{name}: {error}: missing")
        partition.close()
        if name.startswith("ours") and len(runs[name]["results"]) < len(ASLEEP):
            raise LabError("our own driver failed behind a sleeping reader")
    return runs


def measure_variant(lab: Lab, name: str, kernel: str | Path, parts, options=(), append="") -> dict:
    """{"results": {part: rows}} of KERNEL in another machine. Parts in which another driver fails are missing."""
    partition, _ = counting(lab, f"bench-{name}", kernel, options, append)
    commands = {part: partition.run(f"exec bench {part}", LIMIT) for part in parts}
    partition.close()
    for part, command in commands.items():
        if command.status:
            say_failed(name, part, command)
            if name.startswith("ours"):
                raise LabError(f"our own driver failed in {part}")
    return {"results": {part: parse(command.stdout) for part, command in commands.items() if not command.status}}


def measure_depends(lab: Lab) -> dict:
    """{variant: {"results": {part: rows}}} of our driver."""
    runs = {}
    for title, kernel, append in VARIANTS:
        say(f"ours: {title}")
        runs[title] = measure_variant(lab, f"ours-variant-{len(runs)}", kernel, VARIANT_PARTS, append=append)
    return runs


def measure_flushed(lab: Lab) -> dict:
    """{kernel: {"results": {part: rows}}} where L1D is flushed by loads."""
    runs = {}
    for name, kernel in kernels().items():
        say(f"{name}: {FLUSHED}")
        runs[name] = measure_variant(lab, f"{machine_name(name)}-flushed", kernel, FLUSHED_PARTS, FLUSHED_OPTIONS)
    return runs


def build_plugin(place: Path):
    """Compile bench/insn-profile.c to PLACE."""
    flags = output_of("pkg-config", "--cflags", "glib-2.0").split()
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", *flags, "-I",
                    (BUILD / "qemu-system-ppc64").resolve().parent, "-o", place, TOP / "bench/insn-profile.c"],
                   check=True)


def profile_kernel(lab: Lab, name: str, kernel: Path, plugin: Path) -> dict[str, dict[str, float]]:
    """{row: {function: instructions for one}} of 64-byte messages, and of a handle."""
    say(f"{name}: booting {kernel} with the profiling plugin")
    where = lab.scratch("profile")
    symbols, out = where / "symbols", where / "out"
    symbols.write_text(output_of("powerpc64le-linux-gnu-nm", "-n", kernel), encoding="utf-8")
    partition, _ = counting(lab, f"bench-{machine_name(name)}-profile", kernel,
                            ["-plugin", f"{plugin},symbols={symbols},out={out}"])
    for part in ("messages 64", "wakeup", "again"):
        partition.check(f"exec bench {part}", LIMIT)
    partition.poweroff()
    rows = {}
    for line in out.read_text(encoding="utf-8").splitlines():
        row, times, count, function = line.split()
        function = re.sub(r"\.(part|isra|constprop|cold)\b.*", "", function)
        functions = rows.setdefault(MARKS[int(row)], {})
        functions[function] = functions.get(function, 0) + int(count) / int(times)
    return rows


def measure_profile(lab: Lab) -> dict:
    """{kernel: what profile_kernel() returns}."""
    plugin = lab.scratch("plugin") / "insn-profile.so"
    build_plugin(plugin)
    return {name: profile_kernel(lab, name, kernel, plugin) for name, kernel in kernels().items()}
