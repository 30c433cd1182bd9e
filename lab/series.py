# SPDX-License-Identifier: GPL-2.0-or-later
"""Write our changes to Linux and to QEMU as series for `git am`, in build/series/linux, build/series/qemu, and, for the
driver that Linux ships, build/series/fixes.

Each of the first two is our new files, then the patches to existing files with their messages; the third has patches
only. A series is tried with `git am` on the unchanged files before it is called done.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from .errors import LabError
from .git import git, git_environment
from .kernel import FIXES
from .paths import BUILD, TOP
from .step import Step, output_of
from .tree import Changes, PatchedTree


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


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def main(_arguments: argparse.Namespace) -> int:
    """Write them."""
    counts = {}
    trees = {name: PatchedTree(name) for name in ("linux", "qemu")}
    trees["fixes"] = PatchedTree("linux", "newer", Changes(FIXES, []))
    for name, tree in trees.items():
        with Step(f"series-{name}", f"making the series {name}") as step:
            counts[name], _ = write_series(tree, BUILD / "series" / name, step)
    for name, number in counts.items():
        print(f"build/series/{name}: {number} patches")
    return 0
