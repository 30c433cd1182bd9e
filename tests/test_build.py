# SPDX-License-Identifier: GPL-2.0-or-later
"""The build: keys that change with what they name, work trees that change only where they must, exported commits."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from lab import build, cache, cpio, debian, kernel, patches, releases, root, series, sources, step, tree
from lab.checks import Report, text, trees
from lab.errors import LabError
from lab.git import git, git_environment
from lab.paths import BUILD, TOP

PATCH = """From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A Developer <a@example.org>
Subject: [PATCH] change the old one

Because.
---
 old.c | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/old.c b/old.c
index 3367afd..21fb1ec 100644
--- a/old.c
+++ b/old.c
@@ -1 +1 @@
-old
+changed
"""


def put(root, files):
    """Write FILES, {path below ROOT: text}."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


class World:
    """A checkout with changes to a source tree of a few files, and a cache."""

    def __init__(self, place):
        self.top, self.pristine = place / "top", place / "pristine"
        self.linux = self.top / "linux"
        self.patch = self.linux / "patches/0001-change-the-old-one.patch"
        put(self.linux, {"new/driver.c": "driver\n", "configs/a.config": "CONFIG_A=y\n"})
        put(self.patch.parent, {self.patch.name: PATCH})
        put(self.pristine, {"old.c": "old\n", "other.c": "other\n", "Kbuild": ""})

    def prepare(self, **how):
        """Bring the work tree up to date; returns it."""
        work = tree.PatchedTree("linux", **how)
        with step.Step("prepare", "preparing") as doing:
            work.prepare(doing)
        return work

    def refresh(self):
        """What `make patches` does for linux; returns the number of patches."""
        with step.Step("patches", "refreshing") as doing:
            return patches.refresh(tree.PatchedTree("linux"), doing)

    def patches(self):
        """The patches' names and what they add."""
        return {path.name: [line[1:] for line in path.read_text().splitlines() if line[:1] == "+" and line[:3] != "+++"]
                for path in sorted(self.patch.parent.iterdir())}


@pytest.fixture(name="world")
def a_world(tmp_path, monkeypatch):
    """A World that the lab takes for its own."""
    world = World(tmp_path)
    monkeypatch.setenv("HVPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LINUX_SRC", str(world.pristine))
    # Its version is a hash of times; a test that edits the source wants the same work tree.
    monkeypatch.setattr(sources, "_stat_hash", lambda tree: "1")
    for module in (tree, cache):
        monkeypatch.setattr(module, "TOP", world.top)
    monkeypatch.setattr(step, "LOGS", world.top / "logs")
    return world


def state(work):
    """Content and time of every file of a work tree."""
    return {str(path.relative_to(work.path)): (path.read_text(), path.stat().st_mtime_ns)
            for path in cache.files_under(work.path, skip=[work.path / ".git"])}


def contents(work):
    """Content of every file of a work tree."""
    return {name: content for name, (content, _) in state(work).items()}


def commit(work, message, **files):
    """What a developer does in the work tree: edit FILES (dots for __), and commit them."""
    for name, content in files.items():
        put(work.path, {name.replace("__", "/") + ".c": content})
        git(work.path, "add", name.replace("__", "/") + ".c")
    # The address is so long that a mail has it in a line of its own.
    git(work.path, "commit", "--quiet", "-m", message, "--author", f"Another Developer <{'long' * 15}@example.org>")


def test_tree_is_pristine_plus_ours(world):
    """The work tree has their files, our files and our patches; the source is left alone."""
    assert contents(world.prepare()) == {"old.c": "changed\n", "other.c": "other\n", "Kbuild": "",
                                         "new/driver.c": "driver\n"}
    assert (world.pristine / "old.c").read_text() == "old\n"


def test_unchanged_file_keeps_time(world):
    """Another run, and a change to one file, leave all other files as they were: make has one object to build."""
    before = state(world.prepare())
    assert state(world.prepare()) == before
    (world.linux / "new/driver.c").write_text("better driver\n")
    after = state(world.prepare())
    assert {name for name in after if after[name] != before[name]} == {"new/driver.c"}


def test_removed_change_is_undone(world):
    """Without the patch the file is as in the source, with a new time; a file of ours that is removed disappears."""
    before = state(world.prepare())
    world.patch.unlink()
    (world.linux / "new/driver.c").unlink()
    after = state(world.prepare())
    assert after["old.c"][0] == "old\n" and after["old.c"][1] > before["old.c"][1]
    assert "new/driver.c" not in after


def test_patch_brings_new_file(world):
    """A new file that a patch names comes with its commit, also after `make patches`."""
    named = PATCH.replace("\n---\n", "\n---\nNew-file: new/driver.c\n\n", 1)
    assert named != PATCH
    world.patch.write_text(named)
    work = world.prepare()
    subjects = git(work.path, "log", "--format=%s", "--", "new/driver.c").splitlines()
    assert subjects == git(work.path, "log", "--format=%s", "-1").splitlines()
    commit(work, "Change and add", old="again\n", new__other="other driver\n")
    assert world.refresh() == 2
    second = next(path for path in world.patch.parent.glob("0002-*"))
    assert world.patch.read_text() == named
    assert "\nNew-file: new/other.c\n" in second.read_text()
    assert contents(world.prepare()) == {"old.c": "again\n", "other.c": "other\n", "Kbuild": "",
                                         "new/driver.c": "driver\n", "new/other.c": "other driver\n"}


def test_broken_patch_is_named(world):
    """The error names the patch that does not apply."""
    (world.pristine / "old.c").write_text("something else\n")
    with pytest.raises(LabError, match="0001-change-the-old-one.patch does not apply"):
        world.prepare()


def test_patch_to_nothing_is_named(world):
    """The error names the patch to a file that is not in the source, and the file."""
    (world.pristine / "old.c").unlink()
    with pytest.raises(LabError, match="0001-change-the-old-one.patch: old.c is not in"):
        world.prepare()


def test_overlay_replaces_nothing(world):
    """A file of ours at the path of one of theirs is an error, not a silent replacement."""
    (world.linux / "other.c").write_text("ours\n")
    with pytest.raises(LabError, match="other.c"):
        world.prepare()


def test_bench_tree(world):
    """What is measured has files built in, and our files in place of theirs, in a tree of its own."""
    makefile = f"{tree.PSERIES}/Makefile"
    put(world.pristine, {makefile: "obj-y := theirs.o\n"})
    put(world.top, {"floor.c": "floor\n", "linux/other.c": "ours\n"})
    measured = world.prepare(changes=tree.Changes([], [world.linux / "other.c"], replaces=True),
                             built_in=[world.top / "floor.c"])
    assert contents(measured) == {"old.c": "old\n", "other.c": "ours\n", "Kbuild": "",
                                  f"{tree.PSERIES}/floor.c": "floor\n",
                                  makefile: "obj-y := theirs.o\nobj-y += floor.o\n"}
    assert (world.pristine / "other.c").read_text() == "other\n"
    (world.linux / "other.c").unlink()
    assert contents(world.prepare()) == {"old.c": "changed\n", "other.c": "other\n", "Kbuild": "",
                                         "new/driver.c": "driver\n", makefile: "obj-y := theirs.o\n"}


@pytest.mark.parametrize("name", ["old.c", "new/driver.c", "other.c", "new/more.c"])
def test_uncommitted_work_is_kept(world, name):
    """A build does not touch an edited file, be it in git or not, and says what to do; nor does `make patches`."""
    work = world.prepare()
    put(work.path, {name: "work\n"})
    for doing in (world.prepare, world.refresh):
        with pytest.raises(LabError, match=rf"(?s)not committed.*{name}.*git commit"):
            doing()
        assert (work.path / name).read_text() == "work\n"


def test_committed_work_is_kept(world):
    """A build does not undo a commit that linux/ does not have, and names the two ways out, which both work."""
    work = world.prepare()
    commit(work, "Work", old="work\n")
    with pytest.raises(LabError, match=r"(?s)`make patches`.*reset --hard refs/hvpipe/made"):
        world.prepare()
    git(work.path, "reset", "--quiet", "--hard", "refs/hvpipe/made")
    assert contents(world.prepare())["old.c"] == "changed\n"


def test_discarded_file_returns(world):
    """A file of theirs that came into git by a commit is there again, as it was, when the commit is discarded."""
    work = world.prepare()
    commit(work, "Work", other="work\n")
    git(work.path, "reset", "--quiet", "--hard", "refs/hvpipe/made")
    assert not (work.path / "other.c").exists()
    assert contents(world.prepare())["other.c"] == "other\n"


def test_cached_build_tells(world, capsys):
    """A build that finds its result in the cache says that it is without the work in the work tree."""
    work = world.prepare()
    work.tell_if_edited()
    assert "without that work" not in capsys.readouterr().out
    commit(work, "Work", old="work\n")
    work.tell_if_edited()
    assert "`make patches`" in capsys.readouterr().out


def test_commit_becomes_patch(world):
    """A commit to a file of theirs becomes a patch, also if that file was not changed before; others stay as they are.
    """
    work = world.prepare()
    commit(work, "Change another file", other="work\n")
    assert world.refresh() == 2
    assert world.patches() == {world.patch.name: ["changed"], "0002-Change-another-file.patch": ["work"]}
    assert world.patch.read_text() == PATCH
    said = (world.patch.parent / "0002-Change-another-file.patch").read_text()
    assert "\n-other\n+work\n" in said and "\nSubject: [PATCH] Change another file\n" in said
    before = state(work)
    assert state(world.prepare()) == before


def test_commit_to_overlay(world):
    """A commit to files of ours is copied to linux/: what is new, changed or removed; a mixed one becomes both."""
    work = world.prepare()
    git(work.path, "rm", "--quiet", "new/driver.c")
    commit(work, "Replace the driver", new__better="better\n", old="work\n")
    assert world.refresh() == 2
    assert world.patches() == {world.patch.name: ["changed"], "0002-Replace-the-driver.patch": ["work"]}
    assert sorted(path.name for path in (world.linux / "new").iterdir()) == ["better.c"]
    assert (world.linux / "new/better.c").read_text() == "better\n"
    assert contents(world.prepare())["new/better.c"] == "better\n"


def test_amended_commit(world):
    """An amended commit changes its patch, in place; one that is dropped takes its patch with it."""
    work = world.prepare()
    put(work.path, {"old.c": "amended\n"})
    git(work.path, "commit", "--quiet", "--all", "--amend", "--no-edit")
    assert world.refresh() == 1
    assert world.patches() == {world.patch.name: ["amended"]}
    assert "From: A Developer <a@example.org>" in world.patch.read_text()
    git(work.path, "reset", "--quiet", "--hard", "HEAD^")
    assert world.refresh() == 0
    assert contents(world.prepare())["old.c"] == "old\n"


def test_both_sides_changed(world):
    """`make patches` does not undo what was changed in linux/ meanwhile; the command that it names joins both."""
    work = world.prepare()
    commit(work, "Change another file", other="work\n")
    (world.linux / "new/driver.c").write_text("better driver\n")
    with pytest.raises(LabError, match="new/driver.c") as caught:
        world.refresh()
    # This machine may know no name for its user.
    developer = git_environment(("A Developer", "developer@example.com"))
    subprocess.run(str(caught.value).splitlines()[-1], shell=True, check=True, env=developer)
    assert world.refresh() == 2
    assert (world.linux / "new/driver.c").read_text() == "better driver\n"
    assert contents(world.prepare()) == {"old.c": "changed\n", "other.c": "work\n", "Kbuild": "",
                                         "new/driver.c": "better driver\n"}


def test_nothing_to_export(world):
    """Without a commit, `make patches` leaves linux/ alone and takes what was edited there."""
    world.prepare()
    (world.linux / "new/driver.c").write_text("better driver\n")
    assert world.refresh() == 1
    assert world.patch.read_text() == PATCH
    assert contents(world.prepare())["new/driver.c"] == "better driver\n"


def same_tree():
    """What `make check` finds of linux."""
    report = Report()
    trees.same_tree(report, tree.PatchedTree("linux"))
    return report.errors


def test_same_tree(world):
    """Series, patches, overlay and work tree give the same files; a patch in another form than ours is told."""
    put(world.patch.parent, {"0002-add-a-line.patch": PATCH.replace("change the old one", "add a line")
                             .replace("@@ -1 +1 @@\n-old\n+changed\n", "@@ -1 +1,2 @@\n changed\n+more\n")})
    assert same_tree() == 0
    world.patch.rename(world.patch.with_name("0001-wrong-number.patch"))
    assert same_tree() == 0
    (world.patch.parent / "0002-add-a-line.patch").rename(world.patch.with_name("0003-add-a-line.patch"))
    assert same_tree() == 1


def test_series(world):
    """The series begins with our new files and has each patch with its message, signed off."""
    with step.Step("series", "making") as doing:
        number, _ = series.write_series(tree.PatchedTree("linux"), world.top / "series", doing)
    new, changed = sorted((world.top / "series").iterdir())
    assert number == 2
    assert "+driver\n" in new.read_text() and "\nBecause.\n" in changed.read_text()
    assert all("\nSigned-off-by: " in path.read_text() for path in (new, changed))


def test_key_names_content(world):
    """Content, name and mode of a file, and every text, count; time does not."""
    path = world.linux / "new/driver.c"
    keys = {cache.key_of(path)}
    path.touch()
    assert cache.key_of(path) in keys
    path.chmod(0o755)
    keys.add(cache.key_of(path))
    path.write_text("other\n")
    keys.add(cache.key_of(path))
    keys.add(cache.key_of(path.rename(path.with_name("renamed.c"))))
    keys.add(cache.key_of("a", "b"))
    keys.add(cache.key_of("ab"))
    assert len(keys) == 6


def test_key_names_code():
    """The key of a kernel names the code that builds it, no other code of the lab, and by the same paths always."""
    code = cache.code_of(kernel.__file__)
    assert {path.stem for path in code} == {"cache", "errors", "git", "kernel", "paths", "sources", "step", "toolchain",
                                            "tree"}
    assert code == cache.code_of(f"{TOP}/tests/../lab/kernel.py")


def test_key_names_tools():
    """The key of a kernel names its compiler, and no package that it does not need."""
    named = "\n".join(kernel.kernel_toolchain())
    assert "powerpc64le-linux-gnu-gcc" in named and "flex " in named
    assert "gnuplot" not in named and "clang" not in named


def test_result_is_whole(world):
    """A build that fails leaves nothing; one that ends is not done twice."""
    made = []

    def fail(place):
        (place / "half").write_text("")
        raise LabError("no")

    def succeed(place):
        made.append(place)
        (place / "whole").write_text("")

    with pytest.raises(LabError):
        cache.result("thing", lambda: "0" * 24, fail)
    assert not list((cache.cache_dir() / "results").iterdir())
    for _ in range(2):
        assert (cache.result("thing", lambda: "0" * 24, succeed) / "whole").exists()
    assert len(made) == 1


def test_result_of_changing_inputs(world):
    """What was changed while it was compiled is not stored under either key."""
    keys = iter(["0" * 24, "1" * 24])
    with pytest.raises(LabError, match="changed"):
        cache.result("thing", lambda: next(keys), lambda place: None)
    assert not list((cache.cache_dir() / "results").iterdir())


def test_old_results_go(tmp_path):
    """The most recently used directories of a name stay, and all of another name."""
    for number in range(5):
        (tmp_path / f"a-{number}").mkdir()
        subprocess.run(["touch", "--date", f"@{number}", tmp_path / f"a-{number}"], check=True)
    (tmp_path / "ab-0").mkdir()
    cache.keep_newest(tmp_path, r"a-\d", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-3", "a-4", "ab-0"]


def test_wrong_source_tree(world, monkeypatch):
    """LINUX_SRC that is no kernel tree: the error says so."""
    monkeypatch.setenv("LINUX_SRC", str(world.top))
    with pytest.raises(LabError, match=f"LINUX_SRC={world.top}"):
        sources.source("linux")


def test_patches_come_first(world, monkeypatch):
    """A patch that does not fit, to whichever tree, is named before anything is built."""
    built = []
    monkeypatch.setitem(build.TARGETS, "host", lambda: built.append("host"))
    monkeypatch.setitem(build.TARGETS, "vmlinux", lambda: built.append("vmlinux"))
    command = argparse.Namespace(targets=["host", "vmlinux"])
    build.main(command)
    assert built == ["host", "vmlinux"]
    (world.pristine / "old.c").write_text("something else\n")
    monkeypatch.setattr(sources, "_stat_hash", lambda tree: "2")
    with pytest.raises(LabError, match="change-the-old-one.patch does not apply to .*LINUX_SRC=DIRECTORY"):
        build.main(command)
    assert built == ["host", "vmlinux"]


def test_patches_for_release(tmp_path):
    """A QEMU of a release that we have patches for gets these and the common ones; any other is refused by name."""
    put(tmp_path, {"qemu/patches/0001-a.patch": "", "qemu/patches/7.2/0002-b.patch": "",
                   "qemu/patches/10.0/0002-c.patch": "", "source/VERSION": "10.0.13\n"})
    found = tree.patches_for(tmp_path / "qemu", tmp_path / "source")
    assert [path.name for path in found] == ["0001-a.patch", "0002-c.patch"]
    put(tmp_path, {"source/VERSION": "9.2.1\n"})
    with pytest.raises(LabError, match=r"version 9\.2\.1, .* for 10\.0, 7\.2; .*QEMU_SRC=DIRECTORY"):
        tree.patches_for(tmp_path / "qemu", tmp_path / "source")


@pytest.mark.parametrize("system,trees,status", [
    ("ID=debian\nVERSION_ID=\"13\"", "", 0), ("ID=debian\nVERSION_ID=\"12\"", "", 0),
    ("ID=debian", "", 1), ("ID=fedora\nVERSION_ID=44", "", 1), ("ID=ubuntu\nVERSION_ID=24.04", "LINUX_SRC=a", 1),
    ("ID=ubuntu\nVERSION_ID=24.04", "LINUX_SRC=a QEMU_SRC=b", 0)],
                         ids=["13", "12", "sid", "fedora", "ubuntu", "ubuntu-with-trees"])
def test_other_hosts(tmp_path, system, trees, status):
    """A host that has neither our packages nor our sources is told at once what would do."""
    (tmp_path / "os-release").write_text(system + "\n")
    done = subprocess.run(f"OS_RELEASE={tmp_path}/os-release {trees} packaging/install-packages", shell=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=TOP)
    assert done.returncode == status, done.stdout
    assert status == 0 or all(word in done.stdout for word in ("Debian 12 or 13", "LINUX_SRC=", "QEMU_SRC="))


def test_wrappers(tmp_path, monkeypatch):
    """QEMU of another release runs by that release's loader, with its libraries."""
    root, result = tmp_path / "root", tmp_path / "result"
    put(root, {"lib64/ld.so": '#!/bin/sh\necho "$@"\n'})
    (root / "lib64/ld.so").chmod(0o755)
    put(result, {"qemu-system-ppc64": "", "tests/a-test": "", "pc-bios/vof.bin": "vof"})
    monkeypatch.setattr(cache, "BUILD", tmp_path)
    releases.write_wrappers(root, result, "\tlinux-vdso.so.1 (0x1)\n\tlibb.so => /usr/lib/libb.so (0x2)\n"
                            "\tliba.so => /lib/liba.so (0x2)\n\t/lib64/ld.so (0x3)\n", tmp_path / "qemu-sarge")
    for name in ("qemu-system-ppc64", "tests/a-test"):
        said = subprocess.run([tmp_path / "qemu-sarge" / name, "-x", "a b"], stdout=subprocess.PIPE, text=True,
                              check=True)
        assert said.stdout == f"--library-path {root}/lib:{root}/usr/lib {result / name} -x a b\n"
    assert (tmp_path / "qemu-sarge/pc-bios/vof.bin").read_text() == "vof"


def test_failed_command(world):
    """The error has the command's output and the log's name."""
    with pytest.raises(LabError, match=r"(?s)the reason.*status 3.*logs/step.log"):
        with step.Step("step", "failing") as doing:
            doing.run(["sh", "-c", "echo the reason; exit 3"])


def test_dropped_option(tmp_path):
    """kconfig silently drops what it cannot have; we do not."""
    (tmp_path / "fragment").write_text("CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=n\n")
    (tmp_path / ".config").write_text("CONFIG_A=y\n# CONFIG_B is not set\n")
    with pytest.raises(LabError, match="fragment: CONFIG_B=y"):
        kernel.check_config([tmp_path / "fragment"], tmp_path / ".config", True)


def test_last_fragment_counts(tmp_path):
    """A fragment may take back what one before it asked for, and is then the one that is asked."""
    (tmp_path / "one").write_text("CONFIG_A=y\nCONFIG_B=y\n")
    (tmp_path / "two").write_text("# CONFIG_B is not set\n")
    (tmp_path / ".config").write_text("CONFIG_A=y\n# CONFIG_B is not set\n")
    kernel.check_config([tmp_path / "one", tmp_path / "two"], tmp_path / ".config", True)
    (tmp_path / ".config").write_text("CONFIG_A=y\nCONFIG_B=y\n")
    with pytest.raises(LabError, match="two: # CONFIG_B is not set"):
        kernel.check_config([tmp_path / "one", tmp_path / "two"], tmp_path / ".config", True)


def test_archive(tmp_path):
    """cpio unpacks an archive: files with their modes, also directories that were not named."""
    program = tmp_path / "program"
    program.write_text("code\n")
    program.chmod(0o700)
    data = cpio.archive({"bin/program": program, "etc/text": b"text\n", "empty": None})
    assert data == cpio.archive({"empty": None, "etc/text": b"text\n", "bin/program": program})
    (tmp_path / "out").mkdir()
    subprocess.run(["cpio", "--extract", "--quiet"], input=data, cwd=tmp_path / "out", check=True)
    modes = {str(path.relative_to(tmp_path / "out")): path.stat().st_mode & 0o777
             for path in (tmp_path / "out").rglob("*")}
    assert modes == {"bin": 0o755, "bin/program": 0o755, "etc": 0o755, "etc/text": 0o644, "empty": 0o755}
    assert (tmp_path / "out/bin/program").read_text() == "code\n"


def test_dead_links(tmp_path, monkeypatch):
    """Links to a file or heading that is not there are found; others, and code, are not."""
    monkeypatch.setattr(text, "name_of", lambda path: path.name)
    put(tmp_path, {"other.md": "# One `thing`, twice\n## One thing twice\n", "page.md":
                   "[a](other.md#one-thing-twice) [b](other.md#one-thing-twice-1) [c](none.md) [d](other.md#none)\n"
                   "[e](https://example.org/none) [f](#here) `[g](none.md)`\n## Here\n```\n[h](none.md)\n```\n"
                   '<img src="none.svg">\n'})
    assert [dead.split("link to ")[1].split()[0].rstrip(",:") for dead in text.dead_links(tmp_path / "page.md")] == [
        "none.md", "other.md#none", "none.svg"]


def lab_build(target):
    """Build TARGET by the command line; returns the finished process, with all output."""
    return subprocess.run([sys.executable, "-m", "lab", "build", target], stdout=subprocess.PIPE, text=True,
                          check=False, stderr=subprocess.STDOUT, cwd=TOP)


def test_initramfs_is_reproducible():
    """The same inputs give the same bytes."""
    before = (BUILD / "initramfs.cpio.gz").read_bytes()
    done = lab_build("initramfs.cpio.gz")
    assert done.returncode == 0, done.stdout
    assert (BUILD / "initramfs.cpio.gz").read_bytes() == before


@pytest.mark.parametrize("folder,code", [("guest", TOP.glob("guest/*.c")),
                                         ("bench", [Path("bench.c"), Path("peers.c")])],
                         ids=["guest", "bench"])
def test_programs(folder, code):
    """Each program for the partition is built, none other is there, and they are static."""
    built = list((BUILD / "partition" / folder).iterdir())
    assert {path.name for path in built} == {path.stem for path in code}
    for path in built:
        header = path.read_bytes()[:0x14]
        assert header[:6] == b"\x7fELF\x02\x01" and header[0x12] == 21, f"{path} is not for ppc64le"
        assert b"/lib64/ld64.so" not in path.read_bytes(), f"{path} is not static"


def test_missing_package():
    """If the mirror lacks a package of a release, the user learns which other release to try; other errors stay."""
    said = "E: Failed to fetch http://example.org/libc6.deb  404  Not Found\nE: Some files failed to download"
    error = root.say_if_missing("trixie", LabError(said))
    assert "lacks a file of trixie" in str(error) and "RELEASE=forky" in str(error) and "libc6.deb" in str(error)
    other = LabError("E: Unable to locate package")
    assert root.say_if_missing("trixie", other) is other


def test_kernel_without_disk(monkeypatch):
    """A kernel that cannot boot Debian's disk is refused, and the user learns which one can."""
    monkeypatch.setenv("KERNEL", "vmlinux")
    with pytest.raises(LabError, match="KERNEL=vmlinux does not boot from a disk: take KERNEL=vmlinux-disk"):
        debian.chosen_kernel()
    monkeypatch.setenv("KERNEL", debian.OURS)
    assert debian.chosen_kernel() == debian.OURS and debian.OURS in kernel.KERNELS


def test_wrong_target():
    """The command line lists what there is."""
    done = lab_build("nonsense")
    assert done.returncode == 2 and "nonsense" in done.stdout and "vmlinux" in done.stdout
