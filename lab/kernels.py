# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the tests on each kernel that people have, and write build/kernels.md: promise by kernel.

A kernel's tests are the driver's KUnit tests where it has them, the ABI tests, the library's own tests, and the pipe
and loss tests. What a kernel cannot do is in kernels.toml, by name and with the reason. Anything else is unexpected, a
test that passes too, and ends this with status 1. DOCS=1 also writes the summary into docs/testing.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import Lab, LabError
from .kernel import ABI_TESTS
from .machine import LINUX_DRIVER
from .partition import Partition
from .paths import BUILD, TOP

EXPECTED = TOP / "lab/kernels.toml"
PAGE = BUILD / "kernels.md"
RESULTS = BUILD / "kernels"
DOCS = TOP / "docs/testing.md"
BEGIN, END = "<!-- make test-kernels DOCS=1 writes this -->\n", "<!-- to here -->\n"
KUNIT_SUITE = "papr-hvpipe"
ABI_PROGRAM = "/abi/papr_hvpipe"
PROBE = "pair.write_header"     # the ABI test that tells whether the pipe works: both sources echo a message
# Parts that are files of tests: the tests' names, pytest's arguments, and the pipe's properties
FILES = (("pipe", ("tests/test_pipe.py",), ""), ("loss", ("tests/test_loss.py",), ""),
         ("doctor", ("tests/test_doctor.py::test_driver",), ""), ("cost", ("tests/test_cost.py::test_library",), ""),
         ("announced at once", ("tests/test_pipe.py::test_burst_in_order",), "announce-delay-us=0"))
HOLDS, FAILS, ABSENT = "holds", "fails", "not there"


@dataclass(frozen=True)
class Subject:
    """A kernel on a processor. Each processor and each MMU has one kernel or more; they are not crossed."""
    title: str
    kernel: str             # a target of build/
    cpu: str                # QEMU's name
    mmu: str                # as in /proc/cpuinfo
    page: int               # KiB
    append: str = ""        # to the kernel's command line
    user_space: bool = True

    @property
    def name(self) -> str:
        """A word for logs and for kernels.toml."""
        return self.kernel


SUBJECTS = (
    Subject("ours, 6.12", "vmlinux", "power8", "Hash", 64),
    Subject("ours, 6.12", "vmlinux-4k", "power9", "Radix", 4),
    Subject("ours, 7.x", "vmlinux-newer-4k", "power10", "Radix", 4),
    Subject("ours, 6.12, big-endian", "vmlinux-big-endian", "power9", "Hash", 64, user_space=False),
    Subject("Debian's", "debian", "power9", "Hash", 4, append="disable_radix"),
    Subject("Debian's", "debian-64k", "power10", "Radix", 64),
    Subject("Debian's 7.x source, our fixes", "vmlinux-debian-fixed", "power9", "Hash", 64),
)


@dataclass(frozen=True)
class Expectation:
    """Tests that fail on some kernels, for one reason."""
    kernels: tuple[str, ...]
    tests: tuple[str, ...]          # a name may end with *
    reason: str
    absent: bool = False            # the kernel has no such thing, rather than a defect
    mended: str = ""                # the version of Linux that mends it

    def covers(self, kernel: str, test: str) -> bool:
        """Whether TEST is to fail on KERNEL."""
        return kernel in self.kernels and any(
            test.startswith(name[:-1]) if name.endswith("*") else test == name for name in self.tests)


def load_expectations(place: Path = EXPECTED) -> list[Expectation]:
    """The table of what fails where."""
    with open(place, "rb") as file:
        table = tomllib.load(file)
    return [Expectation(tuple(one["kernels"]), tuple(one["tests"]), one["reason"], one.get("absent", False),
                        one.get("mended", "")) for one in table["expected"]]


@dataclass
class Outcome:
    """What the tests said on one kernel."""
    subject: Subject
    release: str = "did not boot"
    tests: dict[str, bool] = field(default_factory=dict)     # {name: whether it passed}; absent: it did not run


def say(subject: Subject, text: str) -> None:
    """Print a line of progress."""
    print(f"kernels: {subject.name}: {text}", flush=True)


def parse_tap(text: str, indent: int = 0) -> dict[str, bool]:
    """{name: whether it passed} of the lines of TAP in TEXT that are indented so far. A skipped test has not passed."""
    found = {}
    for match in re.finditer(rf"^ {{{indent}}}(not )?ok \d+ (?:- )?(.+?)\s*$", text, re.M):
        name, _, directive = match[2].partition(" # ")
        name = re.sub(r" \(errno .*\)$", "", name)
        found[name] = not match[1] and not directive.startswith("SKIP")
    return found


def abi_cases() -> list[str]:
    """The names of all ABI tests, from their code."""
    code = (TOP / "linux" / ABI_TESTS / "papr_hvpipe.c").read_text(encoding="utf-8")
    return [".".join(match) for match in re.findall(r"^TEST_F(?:_TIMEOUT|_SIGNAL)?\((\w+),\s*(\w+)", code, re.M)]


class Booted:
    """A subject's partition with two sources that echo. It is booted anew if its pipe does not work any more after a
    failure: the next test is to be judged by itself.
    """

    def __init__(self, lab: Lab, subject: Subject):
        self._lab = lab
        self._subject = subject
        self._partition: Partition | None = None
        self._boots = 0

    def boot(self, wait: bool = True) -> Partition:
        """The partition, which runs."""
        if not self._partition:
            self._boots += 1
            self._partition = self._lab.partition(
                name=f"kernels-{self._subject.name}-{self._boots}", kernel=self._subject.kernel, wait=wait,
                echo=["hmc1", "hmc2"], cpu=self._subject.cpu,
                append=f"kunit.enable=1 kunit.autorun=1 {self._subject.append}",
                programs=["lib/test-driver"])
        return self._partition

    def end(self) -> None:
        """End the partition."""
        if self._partition:
            self._partition.close()
        self._partition = None

    def run(self, part: str, command: str, names: Callable[[str], bool]) -> dict[str, bool]:
        """Run COMMAND, which prints TAP; returns the results whose names NAMES accepts, with PART before them."""
        try:
            said = self.boot().run(command, limit=900)
            found = {f"{part}: {name}": good for name, good in parse_tap(said.stdout).items() if names(name)}
        except LabError as error:
            say(self._subject, f"{part}: {str(error).splitlines()[0]}")
            found = {}
        if not found or (not all(found.values()) and not self._works()):
            self.end()
        return found

    def _works(self) -> bool:
        """Whether both sources still echo."""
        try:
            return self.boot().run(f"exec {ABI_PROGRAM} -r {PROBE}").status == 0
        except LabError:
            return False


def check_machine(subject: Subject, partition: Partition) -> str:
    """Fail unless SUBJECT runs on what it is to run on; returns the kernel's release."""
    said = partition.check("uname -r; cat /proc/cpuinfo; grep -m 1 KernelPageSize /proc/self/smaps")
    release = said.splitlines()[0]
    cpu = re.search(r"^cpu\s*: (\w+)", said, re.M)
    mmu = re.search(r"^MMU\s*: (\w+)", said, re.M)
    page = re.search(r"^KernelPageSize:\s*(\d+) kB", said, re.M)
    found = (cpu and cpu[1].lower(), mmu and mmu[1], page and int(page[1]))
    if found != (subject.cpu, subject.mmu, subject.page):
        raise LabError(f"{subject.name} runs on {found}, not on {(subject.cpu, subject.mmu, subject.page)}")
    return release


def kunit(partition: Partition) -> dict[str, bool]:
    """The results of the driver's KUnit tests, which ran while PARTITION booted. {} if the kernel has none."""
    suite = re.search(rf"^\s*# Subtest: {KUNIT_SUITE}\r?$.*?^(not )?ok \d+ {KUNIT_SUITE}\b", partition.console.text,
                      re.M | re.S)
    if not suite:
        return {}
    return {f"KUnit: {name}": good for name, good in parse_tap(suite[0].replace("\r", ""), indent=4).items()}


def run_files(subject: Subject) -> Iterator[tuple[str, bool]]:
    """Run the tests of FILES under pytest. One that fails on the driver that Linux ships runs once more by itself: an
    earlier one may have stopped the pipe.
    """
    for part, arguments, personality in FILES:
        found = pytest(subject, part, arguments, personality)
        for name, (test, good) in found.items():
            if not good and subject.kernel in LINUX_DRIVER and len(found) > 1:
                say(subject, f"{name} failed; once more by itself")
                again = pytest(subject, part, [f"{arguments[0].partition('::')[0]}::{test}"], personality)
                good = again.get(name, ("", False))[1]
            yield name, good


def pytest(subject: Subject, part: str, arguments, personality: str) -> dict[str, tuple[str, bool]]:
    """Run pytest with ARGUMENTS on SUBJECT; returns {name: (the function's name, whether it passed)}."""
    report = RESULTS / f"{subject.name}.xml"
    report.unlink(missing_ok=True)
    environment = {**os.environ, "KERNEL": subject.kernel, "CPU": subject.cpu, "APPEND": subject.append,
                   "PERSONALITY": personality}
    with open(RESULTS / f"{subject.name}.log", "a", encoding="utf-8") as log:
        subprocess.run([sys.executable, "-m", "pytest", f"--junitxml={report}", "-p", "no:cacheprovider", *arguments],
                       cwd=TOP, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False)
    if not report.is_file():
        raise LabError(f"pytest did not run, see {RESULTS / (subject.name + '.log')}")
    found: dict[str, tuple[str, bool]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test = case.get("name", "")
        name = f"{part}: {test.removeprefix('test_')}"
        good = all(case.find(bad) is None for bad in ("failure", "error", "skipped"))
        # A test that fails and whose fixture fails after it is there twice.
        found[name] = (test, good and found.get(name, ("", True))[1])
    return found


def examine(subject: Subject) -> Outcome:
    """Run all tests on SUBJECT."""
    outcome = Outcome(subject)
    (RESULTS / f"{subject.name}.log").unlink(missing_ok=True)
    with Lab() as lab:
        booted = Booted(lab, subject)
        try:
            partition = booted.boot(wait=subject.user_space)
            if not subject.user_space:
                partition.console.wait_for(rf"^(not )?ok \d+ {KUNIT_SUITE}", limit=600)
                version = re.search(r"Linux version (\S+)", partition.console.text)
                outcome.release = version[1] if version else "?"
            else:
                outcome.release = check_machine(subject, partition)
        except LabError as error:
            say(subject, str(error))
            return outcome
        say(subject, f"Linux {outcome.release} on {subject.cpu}, {subject.mmu}")
        outcome.tests.update(kunit(partition))
        say(subject, f"KUnit: {passed(outcome, 'KUnit')}")
        if not subject.user_space:
            return outcome
        outcome.tests.update(booted.run("library", "exec test-driver", lambda name: True))
        say(subject, f"library: {passed(outcome, 'library')}")
        for case in abi_cases():
            outcome.tests.update(booted.run("ABI", f"exec {ABI_PROGRAM} -r {case}", case.__eq__))
        say(subject, f"ABI: {passed(outcome, 'ABI')}")
        booted.end()
    outcome.tests.update(run_files(subject))
    for part, _, _ in FILES:
        say(subject, f"{part}: {passed(outcome, part)}")
    return outcome


def passed(outcome: Outcome, part: str) -> str:
    """How many of PART's tests passed, as text."""
    results = [good for name, good in outcome.tests.items() if name.startswith(f"{part}: ")]
    return f"{sum(results)} of {len(results)}" if results else "-"


@dataclass(frozen=True)
class Cell:
    """A promise on a kernel."""
    result: str             # HOLDS, FAILS or ABSENT
    note: int               # the number of the reason, from 1; 0: none
    expected: bool
    mended: str = ""

    def __str__(self) -> str:
        text = f"{self.result} ({self.note})" if self.note else self.result
        text += f", mended in {self.mended}" if self.mended else ""
        return text if self.expected else f"**{text}, unexpected**"


def judge(outcome: Outcome, promise: str, expectations: list[Expectation]) -> Cell:
    """Compare the result of PROMISE with what is expected."""
    number, known = next(((number, one) for number, one in enumerate(expectations, 1)
                          if one.covers(outcome.subject.name, promise)), (0, None))
    good = outcome.tests.get(promise)
    if good:
        return Cell(HOLDS, number, known is None)
    if known is None:
        return Cell(FAILS if good is False else ABSENT, 0, False)
    # A test that did not run cannot show a defect.
    return Cell(ABSENT if known.absent else FAILS, number, good is False or known.absent, known.mended)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def show_kernels(outcomes: list[Outcome]) -> str:
    """The table of the kernels that ran."""
    return table(["kernel", "Linux", "pages", "processor", "MMU", "in build/"],
                 [[one.subject.title, one.release, f"{one.subject.page} KiB", one.subject.cpu.upper(),
                   one.subject.mmu.lower(), f"`{one.subject.kernel}`"] for one in outcomes])


Matrix = dict[str, list[Cell]]


def show_summary(outcomes: list[Outcome], matrix: Matrix) -> str:
    """How many promises of each part hold."""
    parts = list(dict.fromkeys(name.partition(": ")[0] for name in matrix))
    rows = []
    for part in parts:
        of_part = [cells for name, cells in matrix.items() if name.startswith(f"{part}: ")]
        cells = []
        for place in range(len(outcomes)):
            results = [row[place].result for row in of_part]
            absent, held = results.count(ABSENT), results.count(HOLDS)
            cells.append("-" if absent == len(results) else f"{held} of {len(results) - absent}"
                         + (f", {absent} not there" if absent else ""))
        rows.append([part, *cells])
    return table(["tests", *(f"`{one.subject.kernel}`" for one in outcomes)], rows)


def show_reasons(expectations: list[Expectation], matrix: Matrix) -> str:
    """The reasons that the cells refer to."""
    used = {cell.note for cells in matrix.values() for cell in cells}
    return "".join(f"{number}. {one.reason}" + (f" (mended in {one.mended})" if one.mended else "") + "\n"
                   for number, one in enumerate(expectations, 1) if number in used)


def write(outcomes: list[Outcome], expectations: list[Expectation]) -> tuple[int, int]:
    """Write the page; returns how many promises there are, and how many cells nobody expected."""
    promises = dict.fromkeys(name for one in outcomes for name in one.tests)
    matrix = {name: [judge(one, name, expectations) for one in outcomes] for name in promises}
    unexpected = sum(not cell.expected for cells in matrix.values() for cell in cells)
    summary = f"{show_kernels(outcomes)}\n{show_summary(outcomes, matrix)}"
    full = table(["promise", *(f"`{one.subject.kernel}`" for one in outcomes)],
                 [[name, *map(str, cells)] for name, cells in matrix.items()])
    PAGE.write_text("<!-- SPDX-License-Identifier: GPL-2.0-or-later -->\n# What holds on which kernel\n\n"
                    f"{summary}\nThe numbers are reasons:\n\n{number_lines(expectations)}\n{full}", encoding="utf-8")
    if os.environ.get("DOCS"):
        put_into_docs(f"{summary}\n{show_reasons(expectations, matrix)}")
    for name, cells in matrix.items():
        for outcome, cell in zip(outcomes, cells):
            if not cell.expected:
                say(outcome.subject, f"{name}: {cell.result}, which was not expected")
    return len(promises), unexpected


def number_lines(expectations: list[Expectation]) -> str:
    """All reasons with their numbers."""
    return "".join(f"{number}. {one.reason}\n" for number, one in enumerate(expectations, 1))


def put_into_docs(text: str) -> None:
    """Put TEXT in its place in docs/testing.md."""
    before, begin, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise LabError(f"{DOCS.name} has no place for the summary: {BEGIN.strip()} ... {END.strip()}")
    DOCS.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def save(outcome: Outcome) -> None:
    """Keep OUTCOME, so that it can be judged again after a change of kernels.toml."""
    kept = {"release": outcome.release, "tests": outcome.tests}
    (RESULTS / f"{outcome.subject.name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def saved(subject: Subject) -> Outcome:
    """What the last run said on SUBJECT."""
    place = RESULTS / f"{subject.name}.json"
    if not place.is_file():
        raise LabError(f"{place.relative_to(TOP)} is not there: run `make test-kernels KERNELS={subject.name}` first")
    return Outcome(subject, **json.loads(place.read_text(encoding="utf-8")))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The kernels; all of them by default."""
    parser.add_argument("--judge", action="store_true",
                        help="run nothing: judge what the last runs said, for example after a change of kernels.toml")
    parser.add_argument("kernels", metavar="KERNEL", nargs="*",
                        help="only these: " + ", ".join(subject.name for subject in SUBJECTS))


def main(arguments: argparse.Namespace) -> int:
    """Run the tests on each; the last line says how it went."""
    known = {subject.name: subject for subject in SUBJECTS}
    for name in arguments.kernels:
        if name not in known:
            raise LabError(f"'{name}' is none of {', '.join(known)}")
    expectations = load_expectations()
    RESULTS.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for name in arguments.kernels or known:
        outcomes.append(saved(known[name]) if arguments.judge else examine(known[name]))
        save(outcomes[-1])
    promises, unexpected = write(outcomes, expectations)
    print(f"kernels: {len(outcomes)} kernels, {promises} promises, {unexpected} unexpected")
    return 1 if unexpected else 0
