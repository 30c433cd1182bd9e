# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of what was measured."""

from .calls import ASLEEP, COUNTS, FLUSHED, HANDLES, MESSAGES, PARTS, WITH_HANDLES
from .host import DEVICE
from .peers import BUSY, CHANNELS, HMC, SIZES, TWO, UNIT


def table_line(lines, title, cells, width=15, room=50):
    """Append a line to LINES: TITLE in ROOM columns, and CELLS in WIDTH columns each."""
    lines.append((f"{title:{room}}" + "".join(f"{cell:>{width}}" for cell in cells)).rstrip())


def median(run, part, row):
    """The median of ROW in PART of RUN; None if it is missing."""
    return run["results"].get(part, {}).get(row, {}).get("median")


def shown(number):
    """NUMBER as a cell."""
    return "missing" if number is None else f"{number:,.0f}"


def compared(runs):
    """The names of the two kernels whose ratio is shown; None with one kernel."""
    return list(runs)[-2:] if len(runs) > 1 else None


def show_setup(results):
    """What was measured: commit, kernels, programs."""
    lines = [f"{'commit':14}{results['commit']}"]
    lines += [f"{name:14}Linux {run['release']}, {run['what']}" for name, run in results["calls"].items()]
    lines += [f"{name:14}{text}" for name, text in results["setup"].items()]
    unit = next(iter(results["calls"].values()))["results"]["unit"]
    lines.append(f"{'checked':14}" + ", ".join(
        f"{int(row.rpartition('-')[2]):,} instructions are reported as {numbers['median']:,.1f}"
        for row, numbers in unit.items()))
    if results.get("repeated"):
        lines.append(f"{'repeated':14}{results['repeated']}")
    return "\n".join(lines)


def repeatability(now, before):
    """The largest difference between medians of NOW and of BEFORE, an earlier run's results; "" if none compare."""
    most, where, others = -1.0, "", False
    for name, run in now["calls"].items():
        old = before.get("calls", {}).get(name)
        if not old:
            continue
        others |= old["kernel"] != run["kernel"]
        for part, title, rows in PARTS + HANDLES:
            for row, what in rows:
                one, two = median(run, part, row), median(old, part, row)
                if one and two and abs(one / two - 1) > most:
                    most, where = abs(one / two - 1), f"{name}: {title}: {what}, {two:,.0f} then, {one:,.0f} now"
    if not where:
        return ""
    return (f"medians differ from those of the run before, of {'other' if others else 'the same'} kernels, by "
            f"{most:.1%} at most" + (f" ({where})" if most else ""))


# --- the calls ---

def show_calls(results):
    """The table of calls with few handles open."""
    runs = results["calls"]
    names, pair = list(runs), compared(runs)
    lines = []
    table_line(lines, "guest instructions", [names[0], "spread", *names[1:], *(["ratio"] if pair else [])])
    table_line(lines, "", [runs[names[0]]["release"], "", *(runs[name]["release"] for name in names[1:])])
    for part, heading, rows in PARTS:
        lines.append(heading)
        for row, title in rows:
            found = [median(runs[name], part, row) for name in names]
            cells = [shown(one) for one in found]
            first = runs[names[0]]["results"].get(part, {}).get(row)
            cells.insert(1, f"{(first['p90'] - first['p10']) / first['median']:.1%}"
                         if first and first["p90"] != first["p10"] else "")
            if pair and all(found[-2:]):
                cells.append(f"{found[-2] / found[-1]:.2f}")
            table_line(lines, "  " + title, cells)
    return "\n".join(lines)


def show_handles(results):
    """The table of calls with many handles open."""
    runs = results["calls"]
    lines = []
    table_line(lines, "guest instructions, 64 bytes, so many handles open", [f"{count:,}" for count in COUNTS], 10, 56)
    for row, title in WITH_HANDLES:
        # With one handle the first is also the last. For the other rows see traffic() in bench.c.
        not_one = row.startswith("last-") or row in ("first-send", "first-receive-event")
        cells = {name: ["" if part == "handles 1" and not_one else shown(median(run, part, row))
                        for part, _, _ in HANDLES] for name, run in runs.items()}
        if len(runs) == 1:
            table_line(lines, title, *cells.values(), 10, 56)
            continue
        lines.append(title)
        for name, found in cells.items():
            table_line(lines, f"  {name}", found, 10, 56)
    return "\n".join(lines)


def show_dearer(results):
    """Rows in which the other driver is cheaper by more than 0.5%; "" with one kernel."""
    runs = results["calls"]
    pair = compared(runs)
    if not pair:
        return ""
    lines = []
    table_line(lines, "guest instructions", [*pair, "ratio"], room=75)
    for part, heading, rows in PARTS + HANDLES:
        for row, title in rows:
            ours, other = (median(runs[name], part, row) for name in pair)
            if ours and other and ours / other > 1.005:
                table_line(lines, f"{heading}: {title}", [shown(ours), shown(other), f"{ours / other:.2f}"], room=75)
    return "\n".join(lines if len(lines) > 1 else ["no row of the tables above"])


def show_asleep(results):
    """The table of how long a message waits behind those of a sleeping reader."""
    runs = results["asleep"]
    lines = []
    table_line(lines, "milliseconds of virtual time", runs)
    heading = None
    for part, queued, ms in ASLEEP:
        if heading != queued:
            heading = queued
            lines.append(f"behind {queued} message{'s' * (queued > 1)} of a sleeping reader")
        cells = [median(run, part, "wait") for run in runs.values()]
        table_line(lines, f"  hold_after_ms={ms}" + (": for ever, the default" if not ms else ""),
                   ["missing" if cell is None else f"{cell / 1e6:.1f}" for cell in cells])
    return "\n".join(lines)


def show_depends(results):
    """The table of what mitigations and KUnit cost."""
    columns = {"as measured": results["calls"]["ours"], **results["depends"], FLUSHED: results["flushed"]["ours"]}
    lines = []
    table_line(lines, "guest instructions, ours", columns, 22)
    table_line(lines, "getppid()", [shown(median(run, "floor", "getppid")) for run in columns.values()], 22)
    for row, title in MESSAGES:
        table_line(lines, f"{title}, 64 bytes", [shown(median(run, "messages 64", row)) for run in columns.values()],
                   22)
    return "\n".join(lines)


def show_peers(results):
    """The tables of round trips on each channel."""
    if "missing" in results:
        return results["missing"]
    lines = []

    def line(title, cells):
        lines.append((f"{title:44}" + "".join(f"{cell:>14}" for cell in cells)).rstrip())

    def line_with_time(title, cells, found, one):
        cells += [f"{found['rate']:,.0f}", f"{found['rate'] / one['rate']:.2f}"]
        line("  " + title, cells + [f"{found[p] / 1000:,.0f}" for p in ("median", "p90", "p99")])

    for size in map(str, SIZES):
        instructions, times, two = ({channel: sizes[size] for channel, sizes in results[what].items() if size in sizes}
                                    for what in ("instructions", "time", "time, 2 CPUs"))
        line(f"{size} bytes there and back", ["instructions", "to the pipe's", "round trips/s", "to the pipe's",
                                              "p50 us", "p90 us", "p99 us"])
        for channel, title in {**CHANNELS, **BUSY}.items():
            cells = ["", ""]
            if channel in instructions:
                count = instructions[channel]["median"]
                cells = [f"{count:,.0f}", f"{count / instructions[HMC]['median']:.2f}"]
            line_with_time(title, cells, times[channel], times[HMC])
        line("in a partition with 2 CPUs", [])
        for channel, title in TWO.items():
            line_with_time(title, ["", ""], two[channel], two[HMC])
    unit, loads = results["instructions"]["unit"], sorted(results["loads"])
    lines += ["", f"{UNIT:,} instructions are counted as {unit['work']:,.0f}, "
              + ", ".join(f"with {title[4:]} as {count:,.0f}" for title, count in unit.items() if title != "work"),
              f"the times are those of a host with {results['processors']} processors, at a load of {loads[0]:.1f} to "
              f"{loads[1]:.1f}"]
    return "\n".join(lines)


def show_host(results):
    """The table of what the host pays."""
    columns = [title for _, title in DEVICE] + ["hvpipe-hmc"]
    lines = [f"{'host instructions for a message and its echo':44}" + "".join(f"{column:>22}" for column in columns)]
    for source, title in (("hmc2", "answered by the hypervisor"), ("hmc1", "hvpipe-hmc on a socket")):
        for size, row in results[source].items():
            lines.append(f"  {f'{title}, {size} bytes':42}" + "".join(f"{row[column]:22,.0f}" for column in columns))
    return "\n".join(lines)


def show_links(results):
    """The tables of what links cost hvpipe-hmc."""
    lines = [f"{'hvpipe-hmc serve, a message and its echo':44}" + "".join(
        f"{column:>15}" for column in ("instructions", "to 10 links", "memory KiB", "KiB a link", "round trips/s"))]
    rows = {int(links): row for links, row in results["links"].items()}
    fewest = min(rows)
    for links, row in rows.items():
        more = (row["memory"] - rows[fewest]["memory"]) / (links - fewest) / 1024 if links > fewest else None
        lines.append(f"  {f'{links:,} links':42}{row['instructions']:15,.0f}"
                     f"{row['instructions'] / rows[fewest]['instructions']:15.2f}{row['memory'] / 1024:15,.0f}"
                     f"{'' if more is None else f'{more:,.1f}':>15}{row['rate']:15,.0f}")
    lines += ["", f"{'with played hypervisors':44}{'round trips/s':>15}{'to one':>15}"]
    first = next(iter(results["sources"].values()))
    for title, rate in results["sources"].items():
        lines.append(f"  {title:42}{rate:15,.0f}{rate / first:15.2f}")
    lines += ["", f"commit {results['commit']}; round trips are those of a host with {results['processors']} processors"
              f", at a load of {results['load']:.1f}"]
    return "\n".join(lines)
