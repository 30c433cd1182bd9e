# SPDX-License-Identifier: GPL-2.0-or-later
"""build/fuzz/bin: the programs that fuzz a parser each, for libFuzzer with ASan and UBSan.

Each is a file of tests/fuzz that includes the code whose static functions it calls.
"""

import os
import re
import shutil
from pathlib import Path

from .cache import code_of, files_under, key_of, link, result
from .errors import LabError
from .paths import BUILD, TOP
from .sources import source
from .step import Step, environment, output_of
from .toolchain import toolchain
from .tree import PatchedTree

FUZZ = TOP / "tests/fuzz"
CORPUS = FUZZ / "corpus"
PLACE = BUILD / "fuzz"
FLAGS = ["-g", "-O1", "-std=gnu11", "-D_GNU_SOURCE", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all",
         "-Wall", "-Wextra", "-Wno-sign-compare", "-Wno-unused-parameter", "-Wno-unused-function", "-Werror",
         "-Itests/fuzz", "-Iqemu/include/hw/ppc"]
HMC_FLAGS = ["-Itools/hmc", "-Itools/common", "GLIB"]
QEMU_FLAGS = ["-include", "tests/fuzz/qemu.h", "-IHEADERS/qemu", "-Iqemu/include", "-Iqemu/hw/ppc", "GLIB"]
LIBRARY_FLAGS = ["-Ilib", "-Iinclude", "-Ilinux/arch/powerpc/include/uapi", "-Ilib/compat"]

# A target's environment: Debian 12's GLib has an allocator of its own, in which leaks are not seen.
ENVIRONMENT = {**os.environ, "G_SLICE": "always-malloc"}

# What each target is compiled with besides its own file
TARGETS = {
    "daemon-protocol": LIBRARY_FLAGS,
    "device": QEMU_FLAGS,
    "driver-event": ["-IHEADERS/linux", "-fno-sanitize=alignment"],
    "fault-grammar": QEMU_FLAGS,
    "fdinfo": ["lib/status.c", *LIBRARY_FLAGS],
    "file-message": [*(f"tools/common/{name}.c" for name in ("escape", "file-message", "json-lines")),
                     "-Itools/common", "-ljson-c", "-lmd"],
    "hmc-link": [*(f"tools/hmc/{name}.c" for name in ("address", "dial", "fault", "link", "loop", "session", "state",
                                                      "store", "stream")), *HMC_FLAGS],
    "library": ["lib/connect.c", "lib/protocol.c", *LIBRARY_FLAGS],
}


def cut(text: str, pattern: str, what: str) -> str:
    """What PATTERN matches in TEXT, which must be once."""
    found = re.findall(pattern, text, re.M | re.S)
    if len(found) != 1:
        raise LabError(f"fuzz: {what} was found {len(found)} times, not once; see cut() in lab/fuzz_targets.py")
    return found[0]


def write(path: Path, text: str = "") -> None:
    """Write TEXT to PATH in a directory that may not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def includes(*paths: Path) -> set[str]:
    """The headers that PATHS include."""
    return {name for path in paths for name in
            re.findall(r'^\s*#include [<"](\S+)[>"]', path.read_text(encoding="utf-8"), re.M)}


def qemu_headers(place: Path) -> None:
    """The headers that the device's files include: those that do nothing in a fuzz target are generated, see qemu.h."""
    ours = [TOP / "qemu/include", TOP / "qemu/hw/ppc"]
    files = [path for path in files_under(*ours) if path.suffix in (".c", ".h")]
    for name in includes(*files):
        if not any((root / name).exists() for root in ours) and "/" in name:
            write(place / name)
    write(place / "qemu/queue.h", (source("qemu").path / "include/qemu/queue.h").read_text(encoding="utf-8"))
    families = {"trace.h": (r"\btrace_\w+", "((void)0)"), "hw/qdev-properties.h": (r"\bDEFINE_PROP_\w+", "{ 0 }")}
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    for header, (pattern, value) in families.items():
        names = sorted(set(re.findall(pattern, text)))
        write(place / header, "".join(f"#define {name}(...) {value}\n" for name in names))


def linux_headers(place: Path, step: Step) -> None:
    """The kernel's rtas.h with our changes, and the driver's function that is fuzzed."""
    tree = PatchedTree("linux")
    stage = place / "stage"
    stage.mkdir(parents=True)
    tree.history(step, stage)
    for name in ("rtas.h", "rtas-types.h"):
        header = Path("arch/powerpc/include/asm") / name
        changed = stage / header
        write(place / "asm" / name, (changed if changed.exists() else tree.source.path / header).read_text("utf-8"))
    for name in includes(place / "asm/rtas.h", place / "asm/rtas-types.h") - {"asm/rtas-types.h"}:
        write(place / name)
    shutil.rmtree(stage)
    driver = (TOP / "linux/arch/powerpc/platforms/pseries/papr-hvpipe.c").read_text(encoding="utf-8")
    write(place / "hvpipe_find_event.h",
          cut(driver, r"^struct hvpipe_event \{.*?\} __packed;\n", "the driver's struct hvpipe_event")
          + cut(driver, r"^static const struct hvpipe_event \*hvpipe_find_event\([^;{]*?\)\n\{.*?^\}\n",
                "the driver's hvpipe_find_event()"))


def rules(place: Path) -> str:
    """What ninja is told."""
    glib = output_of("pkg-config", "--cflags", "--libs", "gio-unix-2.0", "sqlite3").strip()
    text = f"builddir = {place}\nrule clang\n  command = clang $flags -o $out $in $more\n  description = $out\n"
    for name, more in TARGETS.items():
        code = " ".join(word for word in more if word.endswith(".c"))
        flags = " ".join(word for word in more if not word.startswith("-l") and not word.endswith(".c")
                         and word != "GLIB")
        libraries = " ".join([glib] * ("GLIB" in more) + [word for word in more if word.startswith("-l")])
        text += (f"build {place / name}: clang tests/fuzz/{name}.c {code}\n"
                 f"  flags = {' '.join(FLAGS)} {flags.replace('HEADERS', str(place / 'headers'))} {libraries}\n"
                 f"  more = {libraries}\n")
    return text


def build_targets() -> None:
    """build/fuzz/bin: the targets."""
    def key() -> str:
        code = files_under(*(TOP / root for root in ("tools", "lib", "include", "qemu/include", "qemu/hw", "linux/arch",
                                                     "linux/patches")))
        versions = toolchain(("clang",), ("libclang-rt-dev", "libglib2.0-dev", "libjson-c-dev", "libmd-dev",
                                          "libsqlite3-dev"))
        return key_of(*versions, source("linux").version, source("qemu").version, *code, *sorted(FUZZ.glob("*.[ch]")),
                      *code_of(__file__))

    def make_it(place: Path) -> None:
        with Step("fuzz", "building the fuzz targets") as step:
            qemu_headers(place / "headers/qemu")
            linux_headers(place / "headers/linux", step)
            write(place / "build.ninja", rules(place))
            step.run(["ninja", "-C", TOP, "-f", place / "build.ninja"], doing="compiling", count=r"^\[\d+/\d+\]",
                     unit="targets", env=environment())

    link(result("fuzz", key, make_it), "fuzz/bin")
