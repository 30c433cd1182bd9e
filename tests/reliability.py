# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test run has proved: build/reliability.md with all of it, and the summary in docs/reliability.md.

Tests record these properties:

    fault, operation    a test of this pair passed, including its setup and teardown, which contains the proof
    messages            {"sent": N, "lost": 0, ...}: traffic whose every message was accounted for, by COLUMNS
    kernels             how many consoles were searched without finding a splat
"""

import re
import subprocess
from collections import Counter

from lab import BUILD, KERNEL, TOP

PAGE = TOP / "docs/reliability.md"
FULL = BUILD / "reliability.md"                 # everything that this run proved
SUMMARY = BUILD / "reliability-page.md"         # PAGE with the summary of this run
BEGIN = "<!-- a whole test run writes this -->\n"
LICENCE = "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->\n"
RESULTS = ("passed", "failed", "skipped")
COLUMNS = ("sent", "received", "dropped at close", "lost", "duplicated", "misrouted")
OPERATIONS = ("create", "write", "read", "poll", "close", "boot", "suspend", "resume")

outcomes = Counter()    # of all tests but those of the page
failed = set()          # tests whose setup, call or teardown did not pass
pairs = {}              # {fault: Counter of operations}
traffic = {}            # {test: {column: number}}
seen = Counter()        # kernels


def note(report):
    """Take what REPORT, of a phase of a test, proves. A test proves something when its last phase has passed."""
    if (report.when == "call" or report.outcome != "passed") and "test_reliability.py" not in report.nodeid:
        outcomes[report.outcome] += 1
    if not report.passed:
        failed.add(report.nodeid)
    if report.when != "teardown" or report.nodeid in failed:
        return
    properties = dict(report.user_properties)
    if "fault" in properties:
        pairs.setdefault(properties["fault"], Counter())[properties["operation"]] += 1
    if "messages" in properties:
        traffic[re.sub(r".*::test_", "", report.nodeid)] = properties["messages"]
    seen["kernels"] += properties.get("kernels", 0)


def pair_table(counts):
    """The table of COUNTS: {fault: Counter of operations}, how many tests passed of each pair."""
    lines = ["| fault | " + " | ".join(OPERATIONS) + " |", "|---|" + "---:|" * len(OPERATIONS)]
    for fault, count in sorted(counts.items()):
        lines.append(f"| {fault} | " + " | ".join(str(count[name] or "") for name in OPERATIONS) + " |")
    return "\n".join(lines) + "\n"


def pairs_by_target():
    """pairs, added up for each target of faults. The same in every whole run."""
    targets = {}
    for fault, count in pairs.items():
        targets.setdefault(fault.partition(":")[0], Counter()).update(count)
    return targets


def traffic_table():
    """The table of messages."""
    lines = ["| traffic | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name, counts in sorted(traffic.items()):
        lines.append(" | ".join([f"| {name}", *(f"{counts.get(column, 0):,}" for column in COLUMNS)]) + " |")
    return "\n".join(lines) + "\n"


def commit():
    """The commit that is tested, with "-dirty" if there are other changes."""
    return subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL, check=False).stdout.strip()


def run_table(before):
    """The table of whole runs, the last one on each kernel: this one, and those of other kernels in the text BEFORE."""
    tests = sum(sum(counts.values()) for counts in pairs.values())
    rows = dict(re.findall(r"^\| (vmlinux[\w-]*) (\|.*)$", before, re.M))
    rows[KERNEL] = "| " + " | ".join(str(cell) for cell in (
        commit(), *(outcomes[outcome] for outcome in RESULTS), len(pairs), tests, seen["kernels"] or "some",
        0 if seen["kernels"] else "some")) + " |"
    columns = ["commit", *RESULTS, "faults", "tests of a fault and an operation", "kernels booted", "splats"]
    lines = ["| on | " + " | ".join(columns) + " |", "|---|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join(lines + [f"| {kernel} {cells}" for kernel, cells in sorted(rows.items())]) + "\n"


def write():
    """Write both files of a whole run."""
    words, _, before = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    parts = (f"\nWhole runs, the last one on each kernel:\n\n{run_table(before)}\n"
             f"Traffic on {KERNEL}:\n\n{traffic_table()}")
    FULL.write_text(f"{LICENCE}# What the test run proved\n{parts}\nTests that passed, by fault and operation:\n\n"
                    f"{pair_table(pairs)}", encoding="utf-8")
    SUMMARY.write_text(f"{words}{BEGIN}{parts}\nTests that passed, by the target of the fault, and operation:\n\n"
                       f"{pair_table(pairs_by_target())}", encoding="utf-8")
