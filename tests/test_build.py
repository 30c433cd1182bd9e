# SPDX-License-Identifier: GPL-2.0-or-later
"""What the build promises: keys that change with what they name, trees that change only where they must."""

import importlib.machinery
import importlib.util
import subprocess
import sys

import pytest

from lab import BUILD, TOP

sys.path.insert(0, str(TOP / "scripts"))
import cache      # noqa: E402
import sources    # noqa: E402


def load_build():
    """scripts/build as a module."""
    loader = importlib.machinery.SourceFileLoader("build", str(TOP / "scripts/build"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("build", loader))
    loader.exec_module(module)
    return module


build = load_build()


@pytest.fixture(name="world")
def a_world(tmp_path, monkeypatch):
    """A checkout and a source tree of a few files, with a cache of their own."""
    top, pristine = tmp_path / "top", tmp_path / "pristine"
    for path, text in {
        top / "linux/new/driver.c": "driver\n",
        top / "linux/configs/a.config": "CONFIG_A=y\n",
        top / "linux/patches/0001-change.patch": "--- a/old.c\n+++ b/old.c\n@@ -1 +1 @@\n-old\n+changed\n",
        pristine / "old.c": "old\n", pristine / "other.c": "other\n", pristine / "Kbuild": "",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("HVPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LINUX_SRC", str(pristine))
    for module in (build, cache):
        monkeypatch.setattr(module, "TOP", top)
    monkeypatch.setattr(cache, "LOGS", top / "logs")
    return top, pristine


def prepare(*how):
    """Bring the work tree up to date; returns it."""
    party = build.Party("linux", *how)
    with cache.Step("prepare", "preparing") as step:
        party.prepare(step)
    return party.tree


def state(tree):
    """Content and time of every file of a tree."""
    return {str(path.relative_to(tree)): (path.read_text(), path.stat().st_mtime_ns)
            for path in cache.files_under(tree)}


def test_a_tree_is_pristine_plus_ours(world):
    """The work tree has their files, our files and our patches; the pristine tree is left alone."""
    tree = prepare()
    assert {name: text for name, (text, _) in state(tree).items()} == {
        "old.c": "changed\n", "other.c": "other\n", "Kbuild": "", "new/driver.c": "driver\n"}
    assert (world[1] / "old.c").read_text() == "old\n"


def test_an_unchanged_file_keeps_its_time(world):
    """Another run, and a change to one file, leave all other files as they were: make has one object to build."""
    tree = prepare()
    before = state(tree)
    assert state(prepare()) == before
    (world[0] / "linux/new/driver.c").write_text("better driver\n")
    after = state(prepare())
    assert {name for name in after if after[name] != before[name]} == {"new/driver.c"}


def test_what_is_taken_back_is_gone(world):
    """Without the patch the file is pristine again, with a new time; a file of ours that is removed disappears."""
    tree = prepare()
    before = state(tree)
    (world[0] / "linux/patches/0001-change.patch").unlink()
    (world[0] / "linux/new/driver.c").unlink()
    after = state(prepare())
    assert after["old.c"][0] == "old\n" and after["old.c"][1] > before["old.c"][1]
    assert "new/driver.c" not in after


def test_a_patch_that_does_not_apply_is_named(world):
    """The error names the patch."""
    (world[1] / "old.c").write_text("something else\n")
    with pytest.raises(cache.Failed, match="0001-change.patch"):
        prepare()


def test_a_file_of_theirs_is_not_replaced(world):
    """A file of ours at the path of one of theirs is an error, not a silent replacement."""
    (world[0] / "linux/other.c").write_text("ours\n")
    with pytest.raises(cache.Failed, match="other.c"):
        prepare()


def test_another_kernel_takes_other_changes(world):
    """What is measured has files built in, and another kernel our files in place of its own; not for long."""
    top, pristine = world
    makefile = pristine / build.PSERIES / "Makefile"
    makefile.parent.mkdir(parents=True)
    makefile.write_text("obj-y := theirs.o\n")
    (top / "floor.c").write_text("floor\n")
    (top / "linux/other.c").write_text("ours\n")
    tree = prepare(None, ([], [top / "linux/other.c"]), [top / "floor.c"])
    assert {name: text for name, (text, _) in state(tree).items()} == {
        "old.c": "old\n", "other.c": "ours\n", "Kbuild": "", f"{build.PSERIES}/floor.c": "floor\n",
        f"{build.PSERIES}/Makefile": "obj-y := theirs.o\nobj-y += floor.o\n"}
    (top / "linux/other.c").unlink()
    assert {name: text for name, (text, _) in state(prepare()).items()} == {
        "old.c": "changed\n", "other.c": "other\n", "Kbuild": "", "new/driver.c": "driver\n",
        f"{build.PSERIES}/Makefile": "obj-y := theirs.o\n"}


def test_keys_change_with_what_they_name(world):
    """Content, name and mode of a file, and every text, count; time does not."""
    path = world[0] / "linux/new/driver.c"
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


def test_a_result_appears_whole_or_not_at_all(world):
    """A build that fails leaves nothing; one that ends is not done twice."""
    made = []

    def fail(place):
        (place / "half").write_text("")
        raise cache.Failed("no")

    def succeed(place):
        made.append(place)
        (place / "whole").write_text("")

    with pytest.raises(cache.Failed):
        cache.result("thing", lambda: "0" * 24, fail)
    assert not list((cache.cache_dir() / "results").iterdir())
    for _ in range(2):
        assert (cache.result("thing", lambda: "0" * 24, succeed) / "whole").exists()
    assert len(made) == 1


def test_a_result_of_changing_inputs_is_refused(world):
    """What was changed while it was compiled is not stored under either key."""
    keys = iter(["0" * 24, "1" * 24])
    with pytest.raises(cache.Failed, match="changed"):
        cache.result("thing", lambda: next(keys), lambda place: None)
    assert not list((cache.cache_dir() / "results").iterdir())


def test_a_wrong_source_tree_is_named(world, monkeypatch):
    """LINUX_SRC that is no kernel tree: the error says so."""
    monkeypatch.setenv("LINUX_SRC", str(world[0]))
    with pytest.raises(cache.Failed, match=f"LINUX_SRC={world[0]}"):
        sources.source("linux")


def test_a_failed_command_shows_its_last_words(world):
    """The error has the command's output and the log's name."""
    with pytest.raises(cache.Failed, match=r"(?s)the reason.*status 3.*logs/step.log"):
        with cache.Step("step", "failing") as step:
            step.run(["sh", "-c", "echo the reason; exit 3"])


def test_a_config_that_was_not_taken_is_named(tmp_path):
    """kconfig drops what it cannot have without a word; we do not."""
    (tmp_path / "fragment").write_text("CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=n\n")
    (tmp_path / ".config").write_text("CONFIG_A=y\n# CONFIG_B is not set\n")
    with pytest.raises(cache.Failed, match="fragment: CONFIG_B=y"):
        build.check_config([tmp_path / "fragment"], tmp_path / ".config", True)


def test_the_last_fragment_is_right(tmp_path):
    """A fragment may take back what one before it asked for, and is then the one that is asked."""
    (tmp_path / "one").write_text("CONFIG_A=y\nCONFIG_B=y\n")
    (tmp_path / "two").write_text("# CONFIG_B is not set\n")
    (tmp_path / ".config").write_text("CONFIG_A=y\n# CONFIG_B is not set\n")
    build.check_config([tmp_path / "one", tmp_path / "two"], tmp_path / ".config", True)
    (tmp_path / ".config").write_text("CONFIG_A=y\nCONFIG_B=y\n")
    with pytest.raises(cache.Failed, match="two: # CONFIG_B is not set"):
        build.check_config([tmp_path / "one", tmp_path / "two"], tmp_path / ".config", True)


def test_the_initramfs_is_reproducible():
    """The same inputs give the same bytes."""
    before = (BUILD / "initramfs.cpio.gz").read_bytes()
    done = subprocess.run([TOP / "scripts/build", "initramfs.cpio.gz"], stdout=subprocess.PIPE, text=True, check=False,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    assert (BUILD / "initramfs.cpio.gz").read_bytes() == before


def test_a_wrong_target_is_named():
    """scripts/build lists what there is."""
    done = subprocess.run([TOP / "scripts/build", "nonsense"], stdout=subprocess.PIPE, text=True, check=False,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 2 and "nonsense" in done.stdout and "vmlinux" in done.stdout
