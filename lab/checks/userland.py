# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of the C code of user space."""

import re
import shutil

from . import GENERATED, LINE_LENGTH, Report, name_of, run
from ..format import unformatted, user_space_code
from ..paths import BUILD, TOP
from ..step import environment
from ..toolchain import JOBS

CPPCHECK = ("--enable=warning,performance,portability", "--inline-suppr", "--quiet", "--std=c11", JOBS,
            "--template={file}:{line}: {severity}: {message} [{id}]", "--suppress=missingIncludeSystem",
            # NULL is a pointer in every C library there is.
            "--suppress=varFuncNullUB", "--suppress=normalCheckLevelMaxBranches",
            "-DG_GNUC_PRINTF(format,arguments)=", "-DG_GNUC_NORETURN=__attribute__((noreturn))", "-D_GNU_SOURCE",
            "-D__linux__", "-Itools/common", "-Iinclude", "-Ilinux/arch/powerpc/include/uapi", "-Iqemu/include/hw/ppc")
# Not for cppcheck: it does not know that a failed assertion ends a test, nor the kernel's macros.
NOT_FOR_CPPCHECK = re.compile(r"tests/fuzz/|.*/test-|bench/rtas-floor\.c")


def compilers(report: Report) -> None:
    """Library and tools, all warnings on, compiled from nothing by either compiler."""
    for compiler in ("gcc", "clang"):
        place = BUILD / f"check-{compiler}"
        shutil.rmtree(place, ignore_errors=True)
        log = ""
        for command in (["meson", "setup", "-Dtests=enabled", "-Dwarning_level=2", place, TOP], ["ninja", "-C", place]):
            status, said = run(*command, env=environment(CC=compiler))
            log += said
            if status:
                break
        errors = len(re.findall(r"error:", log)) or int(status != 0)
        report.add(f"{compiler} -Wall -Wextra on user space", errors, len(re.findall(r"warning:", log)), log)


def cppcheck(report: Report) -> None:
    """cppcheck on user space, without its tests."""
    code = [name for name in user_space_code() if not NOT_FOR_CPPCHECK.match(name)]
    _, said = run("cppcheck", *CPPCHECK, *code, cwd=TOP)
    errors, warnings = (len(re.findall(f": (?:{kinds}): ", said)) for kinds in
                        ("error", "warning|performance|portability"))
    report.add(f"cppcheck, {len(code)} files", errors, warnings, said)


def clang_format(report: Report) -> None:
    """The format of .clang-format."""
    report.add_lines(f"clang-format, {len(user_space_code())} files",
                     [f"{name}: not formatted; run `make format`" for name in unformatted()])


def line_length(report: Report, files) -> None:
    """Lines of C code, which the trees' own checkers do not see."""
    code = [path for path in files if path.suffix in (".c", ".h") and not GENERATED.match(name_of(path))
            and not name_of(path).startswith(("linux/", "qemu/"))]
    long = [f"{name_of(path)}:{number}: {len(line.expandtabs(8))} columns" for path in code
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if len(line.expandtabs(8)) > LINE_LENGTH]
    report.add_lines(f"lines of at most {LINE_LENGTH} columns, {len(code)} C files", long)
