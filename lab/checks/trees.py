# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of our changes to Linux and QEMU: the trees' own checkers, compilers, and what the changes give."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import Report, run
from ..cache import locked
from ..errors import LabError
from ..git import git, names_in
from ..kernel import CONFIGS, kernel_config, kernel_make, kernel_toolchain, objects_dir
from ..patches import patches_of
from ..paths import BUILD
from ..series import write_series
from ..step import Step, environment
from ..tree import PatchedTree, shown

# The pristine source has no history in which a commit could be looked up.
NO_HISTORY = "--ignore=UNKNOWN_COMMIT_ID"
# srcID is a name of the driver that Linux ships.
THEIR_NAMES = "--ignore=UNKNOWN_COMMIT_ID,CAMELCASE"
# What a trace header is by its nature: macros that look like calls, a path and a file's name without quotes.
TRACE_HEADER = "--ignore=OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT,SPACING"
CHECKED = (".c", ".h", ".S", ".py", ".sh", ".rst", ".json")


def checkpatch(report: Report, tree: PatchedTree, *options: str, patches: Sequence[Path] = ()) -> None:
    """A tree's own checkpatch on our files for it and on our patches to it, or on other PATCHES."""
    tool = tree.source.path / "scripts/checkpatch.pl"
    files = patches or [*(path for path in tree.changes.overlay if path.suffix in CHECKED), *tree.changes.patches]
    errors = warnings = 0
    text = ""
    for path in files:
        kind = [] if path.suffix == ".patch" else ["-f"]
        if path.name.endswith("trace.h"):
            kind.append(TRACE_HEADER)
        # By its path in the tree: some rules are for some folders. Where checkpatch meets srcID it leaves a file.
        status, said = run("perl", tool, f"--root={tree.source.path}", *options, *kind,
                           path if patches else tree.inside(path), cwd=BUILD if patches else tree.ours)
        total = re.search(r"^total: (\d+) errors?, (\d+) warnings?,(?: (\d+) checks,)? \d+ lines checked", said, re.M)
        if not total:
            raise LabError(f"checkpatch printed no total for {path} (status {status}):\n{said}")
        found = [int(number or 0) for number in total.groups()]
        errors += found[0]
        warnings += found[1] + found[2]
        if any(found):
            text += said
    report.add(f"checkpatch of {tree.name}, {len(files)} files", errors, warnings, text)


def findings(text: str, names: list[str]) -> tuple[int, int, str]:
    """Findings of compilers and sparse in TEXT, those in files among NAMES: errors, warnings, their lines."""
    found = sorted({line for line in re.findall(r"^\S+?:\d+:(?:\d+:)? (?:warning|error):.*$", text, re.M)
                    if any(line.split(":")[0].endswith(name) for name in names)})
    return sum("error:" in line for line in found), sum("warning:" in line for line in found), "\n".join(found)


def kernel(report: Report, tree: PatchedTree) -> None:
    """Our kernel objects, and those we patch, with all warnings and with sparse."""
    overlay = tree.changes.overlay
    ours = [tree.inside(path) for path in overlay]
    included = re.findall(r'^#include "(\S+\.c)"', "".join(path.read_text(encoding="utf-8") for path in overlay), re.M)
    objects_of = [name[:-2] + ".o" for name in ours if name.startswith("arch/") and name.endswith(".c")
                  and name.rsplit("/", 1)[1] not in included]
    patched = sorted({name for patch in tree.changes.patches for name in
                      re.findall(r"^--- a/(\S+\.c)$", patch.read_text(encoding="utf-8"), re.M)})
    objects = objects_dir("check", tree.source.version, *kernel_toolchain())
    with locked(tree.path.name), Step("check-kernel", "compiling our kernel objects with W=1 and sparse") as step:
        tree.prepare(step)
        make = kernel_make(tree.path, objects)
        kernel_config(step, make, objects, [CONFIGS / "partition.config"], True)
        step.run([*make, "prepare"], doing="preparing", count=r"^  (CC|HOSTCC)\b", env=environment())
        status = 0
        for doing, options, names in (
                ("all warnings", ["W=1"], [*objects_of, *(path[:-2] + ".o" for path in patched)]),
                ("sparse", ["C=2", "CF=-D__CHECK_ENDIAN__"], objects_of)):
            for name in names:
                (objects / name).unlink(missing_ok=True)
            status |= step.run([*make, "-k", *options, *names], doing=doing, env=environment(), check=False)
    text = (BUILD / "logs/check-kernel.log").read_text(encoding="utf-8", errors="replace")
    errors, warnings, lines = findings(text, [*ours, *patched])
    if status and not errors + warnings:
        errors, lines = 1, "the compiler failed, see build/logs/check-kernel.log"
    report.add(f"W=1 on {len(objects_of)} objects of ours and {len(patched)} that we patch, and sparse on ours",
               errors, warnings, lines)


def same_tree(report: Report, tree: PatchedTree) -> None:
    """Series, work tree, and patches applied by patch(1) beside the overlay give the same files; and what `make
    patches` would write is there already.
    """
    different = []
    with tempfile.TemporaryDirectory() as work, locked(tree.path.name), \
            Step(f"check-{tree.name}", f"comparing what gives the {tree.name} tree") as step:
        tree.prepare(step)
        history, plain = Path(work, "history"), Path(work, "plain")
        history.mkdir()
        base = tree.history(step, history)
        names = names_in(git(history, "ls-tree", "-r", "-z", "--name-only", "HEAD"))

        for name in names_in(git(history, "ls-tree", "-r", "-z", "--name-only", base)):
            (plain / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree.source.path / name, plain / name)
        for path in tree.changes.overlay:
            (plain / tree.inside(path)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, plain / tree.inside(path))
        for patch in tree.changes.patches:
            step.run(["patch", "-p1", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "-d", plain, "-i", patch],
                     doing=f"applying {patch.name}")

        for what, place in (("patches and overlay", plain), ("work tree", tree.path)):
            different += [f"{tree.name}: {what}: {name} is another than in git" for name in names
                          if not (place / name).is_file() or
                          (place / name).read_bytes() != (history / name).read_bytes()]
        if write_series(tree, Path(work, "series"), step)[1] != git(history, "rev-parse", "HEAD^{tree}").strip():
            different.append(f"{tree.name}: the series gives other files")
        are = {path: path.read_text(encoding="utf-8") for path in tree.changes.patches}
        different += [f"{shown(path)}: not what `make patches` writes" for path, text
                      in patches_of(tree).items() if are.get(path) != text]
    report.add_lines(f"series, patches, overlay and work tree of {tree.name}, {len(names)} files", different)
