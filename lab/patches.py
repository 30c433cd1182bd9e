# SPDX-License-Identifier: GPL-2.0-or-later
"""Bring what was committed in the work trees of Linux and QEMU back to linux/ and qemu/: what `make patches` does.

Each commit that changes a file of theirs becomes a patch. Files of ours, which are not in their source, are copied.
Edit a patch as git edits a commit: git commit --fixup=COMMIT, git rebase --interactive --autosquash.
"""

import argparse
import re
import tempfile
from pathlib import Path

from .build import fetch_sources
from .cache import locked, replace
from .errors import LabError
from .git import git, git_environment, names_in
from .step import Step, output_of
from .tree import MADE, PatchedTree


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def main(_arguments: argparse.Namespace) -> int:
    """Refresh both."""
    fetch_sources()
    counts = []
    for name in ("linux", "qemu"):
        tree = PatchedTree(name)
        with locked(tree.path.name), Step(f"patches-{name}", f"refreshing {name}/ from the work tree") as step:
            counts.append(f"{refresh(tree, step)} {name}")
        print(f"{name}: the work tree is {tree.path}")
    print(f"patches: {', '.join(counts)}")
    return 0


def refresh(tree: PatchedTree, step: Step) -> int:
    """Make the directory of TREE's changes what the work tree's commits say; returns the number of patches."""
    if not tree.is_made():
        tree.prepare(step)
    uncommitted = tree.uncommitted()
    if uncommitted:
        raise LabError(f"{tree.name}: not committed in the work tree: {', '.join(uncommitted)}\n"
                       f"commit it there (cd {tree.path}; git add FILE...; git commit) or take it back")
    if tree.commit("HEAD") == tree.commit(MADE):
        # Nothing was committed. What changed in the checkout goes the other way.
        tree.prepare(step)
        return len(tree.changes.patches)
    if git(tree.path, "rev-list", "--merges", f"{tree.base()}..HEAD"):
        raise LabError(f"{tree.name}: the work tree {tree.path} has merges, which a series of patches cannot have; "
                       "make it a line with git rebase")
    refuse_if_checkout_changed(tree, step)
    with_base(tree)
    return write_out(tree, step)


def refuse_if_checkout_changed(tree: PatchedTree, step: Step) -> None:
    """Fail if linux/ or qemu/ is no longer what the work tree was made from: its changes would be undone."""
    with tempfile.TemporaryDirectory() as place:
        tree.history(step, Path(place), also=tree.tracked_at(tree.base(MADE)))
        now = git(place, "rev-parse", "HEAD").strip()
        was = tree.commit(MADE)
        if git(place, "rev-parse", "HEAD^{tree}") == git(tree.path, "rev-parse", f"{MADE}^{{tree}}"):
            return
        git(tree.path, "fetch", "--quiet", place, f"+HEAD:{MADE}-new")
    names = names_in(git(tree.path, "diff", "-z", "--name-only", was, now))
    raise LabError(f"{tree.name}/ was changed after the work tree was made from it, in {', '.join(names)}\n"
                   "put the work tree's commits on top of that, then run `make patches` again:\n"
                   f"cd {tree.path}; git rebase --onto {now} {was} && git update-ref {MADE} {now}")


def with_base(tree: PatchedTree) -> None:
    """Give the first commit those files of the source that later ones brought into git, so that each shows what it
    changes.
    """
    base = tree.base()
    known = set(tree.tracked_at(base))
    commits = git(tree.path, "rev-list", "--reverse", f"{base}..HEAD").split()
    further = sorted({name for commit in commits for name in tree.tracked_at(commit)
                      if name not in known and (tree.source.path / name).is_file()})
    if not further:
        return
    with tempfile.TemporaryDirectory() as place:
        index = {**git_environment(), "GIT_INDEX_FILE": str(Path(place, "index"))}

        def run(*arguments: object) -> str:
            return output_of("git", "-C", tree.path, *arguments, env=index).strip()

        def add(names: list[str]) -> str:
            for name in names:
                theirs = tree.source.path / name
                mode = "100755" if theirs.stat().st_mode & 0o100 else "100644"
                run("update-index", "--add", "--cacheinfo", f"{mode},{run('hash-object', '-w', theirs)},{name}")
            return run("write-tree")

        run("read-tree", base)
        parent = run("commit-tree", add(further), "-m", "The files that are changed, as they were")
        missing = set(further)
        for commit in commits:
            run("read-tree", commit)
            # Once a commit has such a file, it is the commit's business, also to remove it.
            missing -= set(tree.tracked_at(commit))
            who = git(tree.path, "log", "-1", "--format=%an%n%ae%n%B", commit).split("\n", 2)
            index.update(GIT_AUTHOR_NAME=who[0], GIT_AUTHOR_EMAIL=who[1])
            parent = run("commit-tree", add(sorted(missing)), "-p", parent, "-m", who[2])
    git(tree.path, "reset", "--soft", parent)


def write_out(tree: PatchedTree, step: Step) -> int:
    """Write the work tree's commits into TREE's directory; returns the number of patches."""
    wanted = patches_of(tree)
    for path in set(tree.changes.patches) - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    new = {name for name in tree.tracked_at("HEAD") if not (tree.source.path / name).exists()}
    for name in new:
        replace(tree.path / name, tree.ours / name)
    for path in tree.changes.overlay:
        if tree.inside(path) not in new:
            path.unlink()
    # What was written must give what was committed; the next build begins from there.
    fresh = PatchedTree(tree.name)
    with tempfile.TemporaryDirectory() as place:
        fresh.history(step, Path(place), also=tree.tracked_at(tree.base()))
        if git(place, "rev-parse", "HEAD^{tree}") != git(tree.path, "rev-parse", "HEAD^{tree}"):
            raise LabError(f"{tree.name}: what was written to {tree.name}/ does not give the files of the work tree "
                           f"{tree.path}, which is as it was; this is a defect of lab/patches.py")
        git(tree.path, "fetch", "--quiet", place, "HEAD")
    git(tree.path, "reset", "--soft", "FETCH_HEAD")
    git(tree.path, "update-ref", MADE, "FETCH_HEAD")
    return len(wanted)


def patches_of(tree: PatchedTree) -> dict[Path, str]:
    """The work tree's commits as patches: {file: text}. An unchanged patch keeps its text and, in its place, its name.
    A changed one stays in the folder of the one that had its number: that of a release, perhaps.
    """
    old = {essence(text): (path, text) for path, text in
           ((path, path.read_text(encoding="utf-8")) for path in tree.changes.patches)}
    folders = {path.name[:4]: path.parent for path in tree.changes.patches}
    kept = set(tree.tracked_at("HEAD"))
    wanted: dict[Path, str] = {}
    for commit in git(tree.path, "rev-list", "--reverse", f"{tree.base()}..HEAD").split():
        changed = names_in(git(tree.path, "diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-commit-id",
                               commit))
        theirs = [name for name in changed if (tree.source.path / name).exists()]
        if not theirs:
            continue
        number = len(wanted) + 1
        with tempfile.TemporaryDirectory() as place:
            made = git(tree.path, "format-patch", "-1", "--output-directory", place, "--start-number", number,
                       "--zero-commit", "--no-signature", "--no-renames", commit, "--", *theirs).strip()
            path = folders.get(Path(made).name[:4], tree.ours / "patches") / Path(made).name
            text = re.sub(r"^Date: .*\n", "", Path(made).read_text(encoding="utf-8"), count=1, flags=re.M)
        added = git(tree.path, "diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-commit-id",
                    "--diff-filter=A", commit)
        new = [name for name in names_in(added) if name in kept and name not in theirs]
        text = text.replace("\n---\n", "\n---\n" + "".join(f"New-file: {name}\n" for name in new)
                            + "\n" * bool(new), 1)
        if essence(text) in old:
            same, text = old[essence(text)]
            path = same.with_name(f"{number:04d}-{same.name.split('-', 1)[1]}")
        wanted[path] = text
    return wanted


def essence(patch: str) -> str:
    """What of a patch counts: author, message, changes, new files; not its date, statistics, hashes and signature."""
    head, _, body = patch.partition("\n---\n")
    changes = re.sub(r"\n-- \n.*", "\n", body[max(body.find("diff --git "), 0):], flags=re.S)
    changes = re.sub(r"^index .*\n|^(@@ .*? @@).*$", r"\1", changes, flags=re.M)
    new = sorted(re.findall(r"^New-file: .*$", body.partition("diff --git ")[0], re.M))
    head = re.sub(r"^(From [0-9a-f]{40} .*|Date: .*)\n", "", head, flags=re.M)
    return "\n".join([head, *new, changes.rstrip()])
