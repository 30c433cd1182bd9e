# SPDX-License-Identifier: GPL-2.0-or-later
"""Write our changes to Linux and to QEMU as series for `git am`, in build/series/linux, build/series/qemu, and, for the
driver that Linux ships, build/series/fixes.

Each series is the patches to existing files with their messages, and our new files: with the patch that names them,
else first; the third has patches only. A series is tried with `git am` on the unchanged files before it is called done.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from .cache import locked
from .errors import LabError
from .git import git, git_environment
from .kernel import CONFIGS, FIXES, kernel_config, kernel_make, kernel_toolchain, objects_dir
from .paths import BUILD, TOP
from .step import Step, environment, output_of
from .tree import Changes, PatchedTree, new_files


def author() -> tuple[str, str]:
    """Who the series is from: the user by git's configuration, else the checkout's last author."""
    known = subprocess.run(["git", "config", "--get-regexp", "^user[.](name|email)$"], cwd=TOP, stdout=subprocess.PIPE,
                           text=True, check=False).stdout
    values = dict(line.split(" ", 1) for line in known.splitlines())
    if len(values) == 2:
        return values["user.name"], values["user.email"]
    name, mail = output_of("git", "log", "-1", "--format=%an%n%ae", cwd=TOP).splitlines()
    return name, mail


def write_series(tree: PatchedTree, place: Path, step: Step) -> tuple[int, str]:
    """Write the series of TREE's changes to PLACE; returns the number of patches and the git tree that they give."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        ours, trial = Path(work, "ours"), Path(work, "trial")
        ours.mkdir()
        who = author()
        base = tree.history(step, ours, who=who, signed=True)
        git(ours, "format-patch", "--quiet", "--output-directory", place, f"{base}..HEAD")
        made = sorted(place.glob("*.patch"))
        git(work, "clone", "--quiet", ours, trial)
        git(trial, "reset", "--quiet", "--hard", base)
        step.run(["git", "-C", trial, "am", "--quiet", *made], doing="trying the series", env=git_environment(who))
        gives = git(trial, "rev-parse", "HEAD^{tree}").strip()
        if gives != git(ours, "rev-parse", "HEAD^{tree}").strip():
            raise LabError(f"series-{tree.name}: the series does not give the tree it was made from")
    cover = tree.changes.patches[0].parent / "cover-letter.txt"
    if cover.exists():
        shutil.copy(cover, place / f"0000-{cover.name}")
    return len(made), gives


def compile_steps() -> int:
    """Compile what the series for Linux changes after each of its patches; returns how many there are."""
    whole = PatchedTree("linux")
    patches = whole.changes.patches
    objects = objects_dir("series", whole.source.version, *kernel_toolchain())
    for number, patch in enumerate(patches, 1):
        brought = {whole.ours / name for earlier in patches[:number] for name in new_files(earlier)}
        tree = PatchedTree("linux", changes=Changes(patches[:number],
                                                    [path for path in whole.changes.overlay if path in brought]))
        with locked(tree.path.name), Step(f"series-{number:04d}", patch.name) as step:
            tree.prepare(step)
            make = kernel_make(tree.path, objects)
            kernel_config(step, make, objects, [CONFIGS / "partition.config"], ours=number == len(patches))
            step.run([*make, "W=1", "arch/powerpc/kernel/", "arch/powerpc/platforms/pseries/"], doing="compiling",
                     count=r"^  (CC|AS|HOSTCC)\b", env=environment())
    return len(patches)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whether to compile each step."""
    parser.add_argument("--compile", action="store_true", help="compile what Linux's series changes after each patch")


def main(arguments: argparse.Namespace) -> int:
    """Write them."""
    counts = {}
    trees = {name: PatchedTree(name) for name in ("linux", "qemu")}
    trees["fixes"] = PatchedTree("linux", "newer", Changes(FIXES, []))
    for name, tree in trees.items():
        with Step(f"series-{name}", f"making the series {name}") as step:
            counts[name], _ = write_series(tree, BUILD / "series" / name, step)
    for name, number in counts.items():
        print(f"build/series/{name}: {number} patches")
    if arguments.compile:
        print(f"series: {compile_steps()} steps of linux compiled")
    return 0
