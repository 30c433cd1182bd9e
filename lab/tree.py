# SPDX-License-Identifier: GPL-2.0-or-later
"""Work trees: the source of Linux or QEMU with our changes, in which it is compiled.

linux/ and qemu/ hold our changes: patches to existing files in patches/, and new files (the overlay) at their paths in
the tree; linux/fixes is a series of its own, for newer trees. history() turns them into git commits, one for each
patch, with the new files that it names in lines "New-file: PATH" between its message and its diff, and a first one for
new files that no patch names. The work tree, in the cache, is a git tree of these commits, in which a developer works
(see patches.py). Only changed files are in git: to add all of a Linux tree takes minutes. A build never overwrites what
a developer did there.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_dir, files_under, replace
from .errors import LabError
from .git import US, git, git_environment, names_in
from .paths import TOP
from .sources import source
from .step import Step, output_of

PSERIES = "arch/powerpc/platforms/pseries"
MADE = "refs/hvpipe/made"       # in a work tree's git: what the last build or export put there
SUBJECTS = {
    "linux": "powerpc/pseries: add the hypervisor pipe driver, its tests and its documentation",
    "qemu": "ppc/spapr: add the hypervisor pipe device, its tests and its documentation",
}
# Never a part of a change: left by editors, by patch and by our build (hvpipe.mak, see qemu.py)
LEFTOVER = re.compile(r"\..*|.*(~|\.orig|\.rej|\.pyc)|tags|TAGS|cscope.*|compile_commands\.json|hvpipe\.mak")


def shown(path: Path) -> Path:
    """PATH as a message names it."""
    return path.relative_to(TOP) if path.is_relative_to(TOP) else path


def patched_names(patches: Iterable[Path]) -> dict[str, Path]:
    """The files that PATCHES change, each with the first patch that does."""
    names: dict[str, Path] = {}
    for patch in patches:
        for name in re.findall(r"^--- a/(\S+)", patch.read_text(encoding="utf-8"), re.M):
            names.setdefault(name, patch)
    return names


def new_files(patch: Path) -> list[str]:
    """The new files that come with PATCH."""
    head = patch.read_text(encoding="utf-8").partition("\ndiff --git ")[0]
    return re.findall(r"^New-file: (\S+)$", head.rpartition("\n---\n")[2], re.M)


def patches_for(ours: Path, pristine: Path) -> list[Path]:
    """The patches in OURS/patches for the source PRISTINE, by number: those for all releases, and those in the folder
    of its release, if there are such folders.
    """
    place = ours / "patches"
    found = list(place.glob("*.patch"))
    releases = sorted(path for path in place.glob("*/") if path.is_dir())
    if releases:
        version = (pristine / "VERSION").read_text(encoding="utf-8").strip()
        release = place / ".".join(version.split(".")[:2])
        if release not in releases:
            raise LabError(f"{ours.name}: the source is of version {version}, and our patches are for "
                           f"{', '.join(path.name for path in releases)}; give another tree: "
                           f"{ours.name.upper()}_SRC=DIRECTORY")
        found += release.glob("*.patch")
    return sorted(found, key=lambda path: path.name)


@dataclass(frozen=True)
class Changes:
    """Patches to files of a tree, in order, and files to put there, at their paths below a directory."""
    patches: Sequence[Path]
    overlay: Sequence[Path]
    replaces: bool = False      # whether the overlay may replace files of the tree


class PatchedTree:
    """The tree of linux or qemu (NAME) with our changes.

    For the bench: of Linux from another ORIGIN with other CHANGES, and with BUILT_IN, files that are compiled beside
    those of the pseries platform. Such a tree is no developer's and has a place of its own.
    """

    def __init__(self, name: str, origin: str | None = None, changes: Changes | None = None,
                 built_in: Sequence[Path] = ()):
        self.name = name
        self.ours = TOP / name
        self.source = source(origin or name)
        self.changes = changes or Changes(
            patches_for(self.ours, self.source.path),
            files_under(self.ours, skip=(self.ours / "patches", self.ours / "configs", self.ours / "fixes")))
        self.built_in = built_in
        self.for_developers = changes is None and not built_in
        suffix = "" if self.for_developers else "-bench"
        self.path = cache_dir() / "work" / f"{name}-{self.source.version}{suffix}"

    def inputs(self) -> list[object]:
        """What any build of this tree depends on."""
        return [self.source.version, *self.changes.patches, *self.changes.overlay, *self.built_in]

    def inside(self, path: Path) -> str:
        """Where a file of the overlay goes, as a path in the tree."""
        return str(path.relative_to(self.ours))

    def history(self, step: Step, place: Path, also: Iterable[str] = (), who: tuple[str, str] = US,
                signed: bool = False) -> str:
        """Make a git repository of our changes in the empty directory PLACE; returns the commit that they begin from.

        That one has the unchanged files that our changes touch, and the files ALSO. SIGNED: each commit is signed off
        by WHO.
        """
        pristine = self.source.path
        environment = git_environment(who)
        sign = ("--signoff",) if signed else ()

        def run(*arguments: object) -> None:
            step.run(["git", "-C", place, *arguments], env=environment)

        def commit(message: str, *options: str) -> None:
            run("add", "--all", "--force")
            run("commit", "--quiet", "--allow-empty", "--message", message, *options)

        new = {self.inside(path) for path in self.changes.overlay}
        touched = patched_names(self.changes.patches)
        for name in {*touched, *also, *(new if self.changes.replaces else ()),
                     *([f"{PSERIES}/Makefile"] if self.built_in else ())}:
            if (pristine / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(pristine / name, place / name)
            elif name in touched and name not in new:
                raise LabError(f"{shown(touched[name])}: {name} is not in {pristine}")
        run("init", "--quiet", "--initial-branch=hvpipe")
        commit("The files that are changed, as they were")
        base = git(place, "rev-parse", "HEAD").strip()

        def add(path: Path) -> None:
            name = self.inside(path)
            if not self.changes.replaces and (pristine / name).exists():
                raise LabError(f"{shown(path)}: the {self.name} tree has such a file already; make a patch to it")
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / name)

        # New files that no patch brings come first: the patches that build them refer to them.
        brought = {patch: [self.ours / name for name in new_files(patch)] for patch in self.changes.patches}
        first = set(self.changes.overlay).difference(*brought.values())
        for path in self.changes.overlay:
            if path in first:
                add(path)
        if first:
            commit(SUBJECTS[self.name], *sign)
        for patch, files in brought.items():
            self._apply(step, place, patch, environment, sign)
            for path in files:
                if path not in self.changes.overlay:
                    raise LabError(f"{shown(patch)}: there is no {shown(path)}")
                add(path)
            if files:
                run("add", "--all", "--force")
                run("commit", "--quiet", "--amend", "--no-edit")
        if self.built_in:
            with open(place / PSERIES / "Makefile", "a", encoding="utf-8") as lines:
                lines.writelines(f"obj-y += {path.stem}.o\n" for path in self.built_in)
            for path in self.built_in:
                shutil.copy(path, place / PSERIES)
            commit("Build in what the bench needs")
        return base

    def _apply(self, step: Step, place: Path, patch: Path, environment: dict[str, str], sign: Sequence[str]) -> None:
        """Commit PATCH, with a date that is always the same."""
        mail = re.sub(r"^Date: .*\n", "", patch.read_text(encoding="utf-8"), count=1, flags=re.M)
        mail = re.sub(r"^From: ", f"Date: {environment['GIT_AUTHOR_DATE']}\nFrom: ", mail, count=1, flags=re.M)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".patch") as file:
            file.write(mail)
            file.flush()
            try:
                step.run(["git", "-C", place, "am", "--quiet", *sign, file.name], doing=f"applying {patch.name}",
                         env=environment)
            except LabError as error:
                raise LabError(f"{error}\n{shown(patch)} does not apply to {self.source.path}; give a tree that it is "
                               f"for: {self.name.upper()}_SRC=DIRECTORY") from None

    def prepare(self, step: Step) -> None:
        """Bring the work tree to our changes as they are now; a file whose content stays the same keeps its time."""
        made = self.is_made()
        if made:
            self.refuse_if_edited()
            self._restore()
        else:
            self._make(step)
        tracked = self.tracked_at(self.base()) if made else []
        with tempfile.TemporaryDirectory() as stage:
            # A file that was once in this git stays there: git would remove it if it were not.
            self.history(step, Path(stage), also=tracked)
            git(self.path, "fetch", "--quiet", stage, "HEAD")
        if not made or self.commit("HEAD") != self.commit("FETCH_HEAD"):
            git(self.path, "reset", "--hard", "--quiet", "FETCH_HEAD")
        git(self.path, "update-ref", MADE, "FETCH_HEAD")

    def is_made(self) -> bool:
        """Whether the work tree is there and complete."""
        return (self.path / ".git").is_dir() and bool(git(self.path, "for-each-ref", MADE))

    def _make(self, step: Step) -> None:
        """Make the work tree with the source alone. It is complete when MADE is set."""
        tree = self.path
        shutil.rmtree(tree / ".git", ignore_errors=True)
        tree.mkdir(parents=True, exist_ok=True)
        # Nobody edits the bench's trees: they share files with the source.
        links = [] if self.for_developers else [f"--link-dest={self.source.path}", "--times"]
        step.run(["rsync", "-rlp", "--checksum", "--delete", "--exclude=/.git", *links, f"{self.source.path}/",
                  f"{tree}/"], doing="making the work tree")
        git(tree, "init", "--quiet", "--initial-branch=hvpipe")
        git(tree, "config", "status.showUntrackedFiles", "no")
        self._stamp().touch()

    def _restore(self) -> None:
        """Bring back what git removed when it went from a commit with one more of their files to one without."""
        names = git(self.path, "log", "--reflog", "--format=", "--name-only", "-z").replace("\n", "")
        for name in set(names_in(names)) - set(self.tracked_at("HEAD")):
            if (self.source.path / name).is_file() and not (self.path / name).exists():
                replace(self.source.path / name, self.path / name)

    def _stamp(self) -> Path:
        """A file whose time is that when the work tree was copied."""
        return self.path / ".git/hvpipe-copied"

    def commit(self, name: str) -> str:
        """The commit that NAME stands for in the work tree's git."""
        return git(self.path, "rev-parse", "--verify", name).strip()

    def base(self, commit: str = "HEAD") -> str:
        """The first of the commits that lead to COMMIT: the files as they were."""
        return git(self.path, "rev-list", "--max-parents=0", commit).strip()

    def tracked_at(self, commit: str) -> list[str]:
        """The files in COMMIT."""
        return names_in(git(self.path, "ls-tree", "-r", "-z", "--name-only", commit))

    def uncommitted(self) -> list[str]:
        """The files that a developer edited in the work tree but did not commit, those not yet in git too."""
        changed = names_in(git(self.path, "diff", "-z", "--name-only", "--no-renames", "HEAD"))
        tracked = set(names_in(git(self.path, "ls-files", "-z")))
        newer = names_in(output_of("find", ".", "-path", "./.git", "-prune", "-o", "-type", "f", "-newer",
                                   self._stamp(), "-printf", "%P\\0", cwd=self.path))
        strays = [name for name in newer if name not in tracked and not LEFTOVER.fullmatch(Path(name).name)
                  and not self._is_pristine(name)]
        return sorted({*changed, *strays})

    def _is_pristine(self, name: str) -> bool:
        """Whether file NAME of the work tree is as in the source."""
        theirs = self.source.path / name
        return theirs.is_file() and theirs.read_bytes() == (self.path / name).read_bytes()

    def pending_work(self) -> str:
        """What a developer did in the work tree that linux/ or qemu/ does not have, and what to do; "" if nothing."""
        if not self.for_developers or not self.is_made():
            return ""
        uncommitted = self.uncommitted()
        if uncommitted:
            return (f"{self.name}: the work tree has changes that are not committed: {', '.join(uncommitted)}\n"
                    f"keep them:    cd {self.path}; git add FILE...; git commit; then `make patches`\n"
                    f"discard them: git -C {self.path} reset --hard {MADE}; remove or restore what is not in git")
        if self.commit("HEAD") != self.commit(MADE):
            return (f"{self.name}: the work tree {self.path} has commits that {self.name}/ does not have\n"
                    f"keep them:    `make patches`\n"
                    f"discard them: git -C {self.path} reset --hard {MADE}")
        return ""

    def refuse_if_edited(self) -> None:
        """Fail if a build would overwrite a developer's work."""
        pending = self.pending_work()
        if pending:
            raise LabError(pending)

    def tell_if_edited(self) -> None:
        """Tell if a result from the cache is without a developer's work."""
        pending = self.pending_work()
        if pending:
            print(f"{pending}\n{self.name}: this build is without that work", flush=True)
