# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure what the driver costs, in guest instructions: what `make bench` does once all is built.

A partition with one CPU, whose hypervisor counts virtual time by instructions and answers messages by itself, runs
bench/bench.c. BASELINE=path/to/vmlinux measures that kernel too; BASELINE=debian measures the newest kernel that Debian
has, with its driver and with ours. Writes build/bench.json, build/performance.md with all tables, and the charts
build/performance-*.svg. DOCS=1 also puts a summary and the charts into docs/. docs/performance.md explains them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from lab import BUILD, LOGS, TOP, Lab, LabError
from lab.step import output_of

from . import calls, host, links, page, peers, tables


def measure_setup(_lab: Lab) -> dict[str, str]:
    """What all numbers depend on: {name: text}."""
    qemu = output_of(BUILD / "qemu-system-ppc64", "--version").splitlines()[0]
    return {"hypervisor": qemu.replace("emulator ", "") + ", -icount shift=0, one CPU"}


# What is measured: its name in bench.json, and how
MEASURED = (("setup", measure_setup), ("calls", calls.measure_calls), ("asleep", calls.measure_asleep),
            ("depends", calls.measure_depends), ("flushed", calls.measure_flushed), ("profile", calls.measure_profile),
            ("peers", peers.measure_peers), ("host", host.measure_host), ("links", links.measure_links))


def earlier(place: Path) -> dict:
    """The results of an earlier run in PLACE; {} if there are none."""
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def current_commit() -> str:
    """The commit that is measured. What an earlier run wrote into docs/ does not count as a change."""
    def git(*arguments):
        return subprocess.run(["git", "-C", TOP, *arguments], stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL, check=False).stdout.strip()
    changed = git("status", "--porcelain", "--", ".", ":!docs", ":!bench/results.json")
    return git("describe", "--always") + ("-dirty" if changed else "")


def run():
    """Measure everything, show it and write it."""
    place = BUILD / "bench.json"
    results = {"unit": "guest instructions", "commit": current_commit()}
    with Lab() as lab:
        for name, measure in MEASURED:
            results[name] = measure(lab)
    results["links"]["commit"] = results["commit"]
    results["repeated"] = tables.repeatability(results, earlier(place))
    place.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    texts = page.show_all(results)
    drawn = page.charts(results["calls"])
    full = BUILD / "performance.md"
    full.write_text(page.full_page(texts), encoding="utf-8")
    if os.environ.get("DOCS"):
        page.write_docs(results, drawn)
    for title, text in texts.items():
        print(f"\n{title}\n\n{text}")
    if results["repeated"]:
        print(f"\nbench: {results['repeated']}")
    print(f"\nbench: {len(results['calls'])} kernel{'s' * (len(results['calls']) > 1)}, "
          + ", ".join(str(path.relative_to(TOP)) for path in [place, full, *drawn]))


def main() -> int:
    """Run it; returns the exit status."""
    try:
        run()
    except (LabError, subprocess.CalledProcessError) as error:
        print(f"bench: failed: {error}\nbench: logs are in {LOGS}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
