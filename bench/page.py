# SPDX-License-Identifier: GPL-2.0-or-later
"""Charts, the page build/performance.md with all tables, and the summary in docs/performance.md.

docs/performance.md shows one run, whose figures are kept in bench/results.json.
"""

import json
import subprocess
from pathlib import Path

from lab import BUILD, TOP, LabError

from . import profile, tables
from .calls import HANDLES, SIZES
from .peers import CHANNELS, HMC
from .tables import compared, median, shown, table_line

LICENCE = "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->"
DOCS = TOP / "docs/performance.md"
RESULTS = TOP / "bench/results.json"
BEGIN, END = "<!-- make bench DOCS=1 writes this -->\n", "<!-- to here -->\n"

# All tables of build/performance.md: title, what makes the text from the results. Empty ones are left out.
SECTIONS = (
    ("What was measured", tables.show_setup),
    ("What each call costs", tables.show_calls),
    ("With many handles open", tables.show_handles),
    ("What Linux's driver does for less", tables.show_dearer),
    ("How long a message waits behind a sleeping reader", tables.show_asleep),
    ("Where the instructions go", profile.show_profile),
    ("What remains", profile.show_remains),
    ("What the numbers depend on", tables.show_depends),
    ("Compared with other channels", lambda results: tables.show_peers(results["peers"])),
    ("What the host pays", lambda results: tables.show_host(results["host"])),
    ("What links cost the HMC", lambda results: tables.show_links(results["links"])),
)

# The rows of the summary: title, part, row
SUMMARY = (
    ("a system call that does nothing: getppid()", "floor", "getppid"),
    ("send 64 bytes", "messages 64", "send"),
    ("send 64 bytes, the echo's event inside", "messages 64", "send-event"),
    ("receive 64 bytes", "messages 64", "receive"),
    ("receive 64 bytes, the next event inside", "messages 64", "receive-event"),
    ("round trip of 64 bytes: write, poll, read", "messages 64", "round-trip"),
    ("send 4048 bytes", "messages 4048", "send"),
    ("receive 4048 bytes", "messages 4048", "receive"),
    ("write() to the wake-up of another thread", "wakeup", "wakeup"),
    ("create a handle: the first", "handles 1", "create-all"),
    ("create a handle: average of 16,384", "handles 16384", "create-all"),
    ("send, event inside, with 16,384 handles", "handles 16384", "first-send-event"),
)


def chart(place, title, xlabel, series, logarithmic):
    """Draw SERIES, {label: [(x, y)]}, to PLACE."""
    script = ['set terminal svg size 760,420 noenhanced font "sans-serif,12" background "white"',
              f'set title "{title}"; set xlabel "{xlabel}"; set ylabel "guest instructions"; set key left top',
              'set grid; set format y "%.0f"; set yrange [0:*]']
    if logarithmic:
        script.append("set logscale xy; set yrange [1000:*]")
    for number, points in enumerate(series.values()):
        script += [f"$data{number} << end", *(f"{x} {y}" for x, y in points), "end"]
    script.append("plot " + ", ".join(f'$data{number} with linespoints title "{label}"'
                                      for number, label in enumerate(series)))
    drawn = subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, check=True, stdout=subprocess.PIPE)
    declaration, _, picture = drawn.stdout.partition("\n")
    place.write_text(f"{declaration}\n{LICENCE}\n{picture}", encoding="utf-8")


def charts(runs, directory=BUILD):
    """Draw cost against handles and against size; returns the files."""
    def series(rows, parts):
        return {f"{title}: {name}": points for name, run in runs.items() for row, title in rows
                if (points := [(int(part.split()[1]), median(run, part, row)) for part in parts
                               if median(run, part, row)])}
    handles, size = directory / "performance-handles.svg", directory / "performance-size.svg"
    chart(handles, "Cost against open handles", "handles",
          series((("first-send-event", "send by the first, event inside"), ("create-all", "create, average")),
                 [part for part, _, _ in HANDLES]), True)
    chart(size, "Cost against size, no event inside", "bytes",
          series((("send", "send"), ("receive", "receive")), [f"messages {size}" for size in SIZES]), False)
    return [handles, size]


def show_all(results: dict) -> dict[str, str]:
    """{title: text} of all tables that are not empty."""
    made = {title: make(results) for title, make in SECTIONS}
    return {title: text for title, text in made.items() if text}


def full_page(texts: dict[str, str]) -> str:
    """build/performance.md: all tables."""
    return f"{LICENCE}\n# What the bench measured\n\n" + "\n".join(
        f"## {title}\n\n```text\n{text}\n```\n" for title, text in texts.items())


def essentials(results: dict) -> dict:
    """The part of RESULTS that the summary needs."""
    rows = [(part, row) for _, part, row in SUMMARY]
    calls = {name: {"release": run["release"], "what": run["what"], "results": {}}
             for name, run in results["calls"].items()}
    for name, run in results["calls"].items():
        for part, row in rows:
            if (found := median(run, part, row)) is not None:
                calls[name]["results"].setdefault(part, {})[row] = {"median": found}
    peers = {channel: {size: {"median": numbers["median"]} for size, numbers in sizes.items()}
             for channel, sizes in results["peers"].get("instructions", {}).items() if channel in CHANNELS}
    return {"commit": results["commit"], "setup": results["setup"], "calls": calls, "peers": {"instructions": peers},
            "links": results["links"]}


def summary(results: dict) -> str:
    """What docs/performance.md shows of RESULTS, or of their essentials()."""
    runs, lines = results["calls"], []
    pair = compared(runs)
    lines.append(f"{'commit':14}{results['commit']}")
    lines += [f"{name:14}Linux {run['release']}, {run['what']}" for name, run in runs.items()]
    lines += [f"{name:14}{text}" for name, text in results["setup"].items()]
    lines.append("")
    table_line(lines, "guest instructions", [*runs, *(["ratio"] if pair else [])], 14, 46)
    for title, part, row in SUMMARY:
        found = [median(run, part, row) for run in runs.values()]
        ratio = [f"{found[-2] / found[-1]:.2f}"] if pair and all(found[-2:]) else []
        table_line(lines, title, [*map(shown, found), *ratio], 14, 46)
    channels = results["peers"].get("instructions")
    if channels:
        lines.append("")
        table_line(lines, "guest instructions, there and back", ["64 bytes", "ratio", "4048 bytes", "ratio"], 14, 46)
        for channel, title in CHANNELS.items():
            cells = []
            for size in ("64", "4048"):
                count, pipe = (channels[name][size]["median"] for name in (channel, HMC))
                cells += [shown(count), f"{count / pipe:.2f}"]
            table_line(lines, title, cells, 14, 46)
    if "links" in results:
        lines += ["", tables.show_links(results["links"])]
    return "\n".join(lines)


def page_with(page: str, results: dict) -> str:
    """PAGE, docs/performance.md, with the summary of RESULTS in its place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise LabError(f"{DOCS.relative_to(TOP)} has no place for the summary: {BEGIN.strip()} ... {END.strip()}")
    return f"{before}{begin}\n```text\n{summary(results)}\n```\n\n{end}{after}"


def write_docs(results: dict, drawn: list[Path]):
    """Keep the essentials of RESULTS, and show them and the charts DRAWN in docs/."""
    kept = essentials(results)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    DOCS.write_text(page_with(DOCS.read_text(encoding="utf-8"), kept), encoding="utf-8")
    for path in drawn:
        (DOCS.parent / path.name).write_bytes(path.read_bytes())
