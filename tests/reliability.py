# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test run has proved, from the properties that its tests record, as a page: docs/reliability.md.

    fault, operation    a test of this pair passed, what is done before and after it among it: there is the proof
    messages            {"sent": N, "lost": 0, ...} of traffic whose every message was accounted for, by COLUMNS
    kernels             consoles that were looked through, and nothing was found
"""

import re
import subprocess
from collections import Counter

from lab import BUILD, KERNEL, TOP

PAGE = TOP / "docs/reliability.md"
RUN = BUILD / "reliability.md"
BEGIN = "<!-- written by the test run -->\n"
RESULTS = ("passed", "failed", "skipped")
COLUMNS = ("sent", "received", "dropped at close", "lost", "duplicated", "misrouted")
OPERATIONS = ("create", "write", "read", "poll", "close", "boot", "suspend", "resume")

OUTCOMES = Counter()    # of all tests, but those of the page that is to be replaced
FAILED = set()          # tests that did not pass as a whole
PAIRS = {}              # {fault: Counter of operations}
TRAFFIC = {}            # {test: {what: how many}}
SEEN = Counter()        # kernels


def note(report):
    """Take what REPORT, of a part of a test that ran, tells: what is proved counts when the last part has passed."""
    if (report.when == "call" or report.outcome != "passed") and "test_reliability.py" not in report.nodeid:
        OUTCOMES[report.outcome] += 1
    if not report.passed:
        FAILED.add(report.nodeid)
    if report.when != "teardown" or report.nodeid in FAILED:
        return
    told = dict(report.user_properties)
    if "fault" in told:
        PAIRS.setdefault(told["fault"], Counter())[told["operation"]] += 1
    if "messages" in told:
        TRAFFIC[re.sub(r".*::test_", "", report.nodeid)] = told["messages"]
    SEEN["kernels"] += told.get("kernels", 0)


def pairs():
    """The table of faults and operations: how many tests passed of each pair. The same in every whole run."""
    lines = ["| fault | " + " | ".join(OPERATIONS) + " |", "|---|" + "---:|" * len(OPERATIONS)]
    for fault, counts in sorted(PAIRS.items()):
        lines.append(f"| {fault} | " + " | ".join(str(counts[name] or "") for name in OPERATIONS) + " |")
    return "\n".join(lines) + "\n"


def traffic():
    """The table of messages."""
    lines = ["| traffic | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name, counts in sorted(TRAFFIC.items()):
        lines.append(" | ".join([f"| {name}", *(f"{counts.get(column, 0):,}" for column in COLUMNS)]) + " |")
    return "\n".join(lines) + "\n"


def commit():
    """What is tested, and whether all of it is committed."""
    return subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL, check=False).stdout.strip()


def runs(before):
    """The table of whole runs, the last one on each kernel: this one, and those in BEFORE that others left."""
    tests = sum(sum(counts.values()) for counts in PAIRS.values())
    rows = dict(re.findall(r"^\| (vmlinux[\w-]*) (\|.*)$", before, re.M))
    rows[KERNEL] = "| " + " | ".join(str(cell) for cell in (
        commit(), *(OUTCOMES[outcome] for outcome in RESULTS), len(PAIRS), tests, SEEN["kernels"] or "some",
        0 if SEEN["kernels"] else "some")) + " |"
    columns = ["commit", *RESULTS, "faults", "tests of a fault and an operation", "kernels booted", "splats"]
    lines = ["| on | " + " | ".join(columns) + " |", "|---|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join(lines + [f"| {kernel} {cells}" for kernel, cells in sorted(rows.items())]) + "\n"


def page():
    """The page that this run gives: the words of docs/reliability.md, and its own figures."""
    words, _, before = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return (f"{words}{BEGIN}\nWhole runs, the last one on each kernel:\n\n{runs(before)}\n"
            f"Traffic, on {KERNEL}:\n\n{traffic()}\nTests that passed, by fault and operation:\n\n{pairs()}")
