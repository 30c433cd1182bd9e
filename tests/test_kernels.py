# SPDX-License-Identifier: GPL-2.0-or-later
"""How `make test-kernels` judges what it finds, and what a mirror that replaces its files does. Boots nothing."""

import re
from pathlib import Path

import pytest

from lab import LabError, kernels, sources
from lab.kernels import Expectation, Outcome, Subject

SUBJECT = Subject("ours", "vmlinux", "power9", "Radix", 64)
KNOWN = [Expectation(("vmlinux",), ("ABI: a.fails", "pipe: *"), "a defect", mended="7.9"),
         Expectation(("vmlinux",), ("KUnit: *",), "no KUnit", absent=True)]


@pytest.mark.parametrize("promise,good,text", [
    ("ABI: b.good", True, "holds"), ("ABI: b.bad", False, "**fails, unexpected**"),
    ("ABI: gone", None, "**not there, unexpected**"),
    ("ABI: a.fails", False, "fails (1), mended in 7.9"), ("ABI: a.fails", True, "**holds (1), unexpected**"),
    ("pipe: any", None, "**fails (1), mended in 7.9, unexpected**"), ("KUnit: any", None, "not there (2)"),
    ("KUnit: any", True, "**holds (2), unexpected**")])
def test_judge(promise, good, text):
    """What was not expected is marked: a failure, a pass, and a test that did not run and cannot show a defect."""
    outcome = Outcome(SUBJECT, tests={} if good is None else {promise: good})
    assert str(kernels.judge(outcome, promise, KNOWN)) == text


def test_page(tmp_path, monkeypatch):
    """The page has each promise once and the reasons; a kernel that lacks a promise of another one is counted."""
    monkeypatch.setattr(kernels, "PAGE", tmp_path / "kernels.md")
    monkeypatch.delenv("DOCS", raising=False)
    other = Subject("other", "other", "power8", "Hash", 4)
    outcomes = [Outcome(SUBJECT, "6.12", {"ABI: one": True, "ABI: a.fails": False}), Outcome(other, "7", {})]
    assert kernels.write(outcomes, KNOWN) == (2, 2)
    page = (tmp_path / "kernels.md").read_text(encoding="utf-8")
    assert "| ABI: one | holds | **not there, unexpected** |" in page and "1. a defect\n" in page
    assert "| ABI | 1 of 2 | - |" in page


def test_tap():
    """Results of TAP are read: passed, failed, skipped; nested ones apart."""
    text = "TAP version 13\n# ok 9 no\nok 1 a.b\nnot ok 2 c d (errno 5: x)\nok 3 e # SKIP no\n    ok 1 nested\n1..3\n"
    assert kernels.parse_tap(text) == {"a.b": True, "c d": False, "e": False}
    assert kernels.parse_tap(text, indent=4) == {"nested": True}


def test_table_names():
    """Each kernel and test that kernels.toml names exists, and each entry has a reason."""
    library = (kernels.TOP / "lib/test-driver.c").read_text(encoding="utf-8")
    for one in kernels.load_expectations():
        assert one.reason.endswith(".") and one.tests and set(one.kernels) <= {s.name for s in kernels.SUBJECTS}
        for test in one.tests:
            part, _, name = test.partition(": ")
            if name == "*":
                continue
            if part == "ABI":
                assert name in kernels.abi_cases(), test
            elif part == "library":
                assert name in library or re.fullmatch(r"\d+ bytes", name), test
            else:
                files = "".join(Path(kernels.TOP, f"tests/test_{file}.py").read_text(encoding="utf-8")
                                for file in ("pipe", "loss", "doctor", "cost"))
                assert f"def test_{name.partition('[')[0]}(" in files, test


REPLACED = ("E: Failed to fetch http://example.org/Packages.xz  File has unexpected size (2 != 1). Mirror sync in "
            "progress?")


def test_mirror(tmp_path, monkeypatch, capsys):
    """While the mirror replaces its files the other suite is tried, then what the cache has is used; with nothing in
    the cache the error says so."""
    asked = []

    def refuse(step, name, lines):
        asked.append(name)
        sources.apt_get(step, ["update"])

    class Step:
        """A step in which apt-get fails."""
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, *_, **__):
            """Fail as apt-get does."""
            raise LabError(f"{REPLACED}\nsources: apt-get ended with status 100")

    monkeypatch.setenv("HVPIPE_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "_private_apt", refuse)
    monkeypatch.setattr(sources, "_suite_list", lambda *_: [])
    monkeypatch.setattr(sources, "Step", Step)
    monkeypatch.setattr(sources, "_refused", set())
    with pytest.raises(LabError, match="the mirror is replacing its files.*unexpected size"):
        sources.source("debian")
    assert asked == [f"apt-{suite}-ppc64el" for suite in sources.SUITES["debian"]]
    place = sources._root() / "debian_7.0-1"        # pylint: disable=protected-access
    place.mkdir(parents=True)
    assert sources.source("debian").path == place and len(asked) == 2
    sources.forget()
    assert sources.source("debian").path == place and len(asked) == 4
    assert "using debian_7.0-1, which is in the cache" in capsys.readouterr().out
    sources.source("debian")
    assert len(asked) == 4      # this process does not ask again


def test_once_more(monkeypatch):
    """A test that fails on Linux's own driver runs once more by itself, and that result counts: also if it is none."""
    ran = []

    def pytest_of(_subject, part, arguments, _personality):
        ran.append((part, *arguments))
        if part != "pipe":
            return {}
        alone = "::" in arguments[0]
        if not alone:
            return {"pipe: good": ("test_good", True), "pipe: bad": ("test_bad", False),
                    "pipe: gone": ("test_gone", False), "pipe: behind": ("test_behind", False)}
        return {"pipe: bad": ("test_bad", False), "pipe: behind": ("test_behind", True)} if "gone" not in arguments[0] \
            else {}

    monkeypatch.setattr(kernels, "pytest", pytest_of)
    subject = Subject("Debian's", "debian", "power9", "Radix", 4)
    assert dict(kernels.run_files(subject)) == {"pipe: good": True, "pipe: bad": False, "pipe: gone": False,
                                                "pipe: behind": True}
    assert ("pipe", "tests/test_pipe.py::test_bad") in ran and ("pipe", "tests/test_pipe.py::test_good") not in ran
