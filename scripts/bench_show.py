# SPDX-License-Identifier: GPL-2.0-or-later
"""What scripts/bench shows: its tables, its charts and docs/performance.md, all from what it measured."""

import re
import subprocess

from cache import BUILD, TOP
from measure import ECHO

SIZES = (1, 64, 1024, 4048, 4088)
COUNTS = (1, 16, 256, 4096, 16384, 65536)
LICENCE = "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->"
BEGIN, END = "<!-- make bench DOCS=1 writes this -->\n", "<!-- to here -->\n"

# What is run in the partition, its title, and its rows: name in bench.c, title
MESSAGES = (("send", "send, no event inside"), ("send-event", "send, the echo's event inside"),
            ("receive", "receive, no event inside"), ("receive-event", "receive, the next event inside"),
            ("round-trip", "round trip: write, poll, read"))
PARTS = [
    ("floor", "floor", (("getppid", "getppid()"), ("sys_rtas", "sys_rtas(get-time-of-day)"))),
    ("rtas_call", "in the kernel", (("rtas_call", "rtas_call(), nothing to receive"),)),
    *((f"messages {size}", f"{size} byte{'s' * (size > 1)}", MESSAGES) for size in SIZES),
    ("busy", f"64 bytes, {len(ECHO)} sources with a message each",
     (("send", "send, no event inside"), ("receive", "receive, the next event inside"))),
    ("wakeup", "64 bytes, another thread in poll()",
     (("wakeup", "write() to the return of that poll()"),)),
    ("files 1", "signalfd()", (("new-file", "a new file"),)),
    ("files 16384", "16,384 signalfd()", (("new-file", "a new file, average up to here"),)),
]

# With many handles open, each at all of COUNTS: messages of 64 bytes by the handle created first and by the one created
# last
WITH_HANDLES = (
    ("create-all", "create, average up to here"), ("close-all", "close, average"),
    ("create", "create the one of the highest index again"), ("close", "close it"),
    *((f"{which}-{row}", f"by the {which}: {title}") for which in ("first", "last")
      for row, title in (*((row, title.partition(":")[0]) for row, title in MESSAGES),
                         ("wakeup", "write() to the return of another's poll()"))),
)
HANDLES = [(f"handles {count}", f"{count:,} handle{'s' * (count > 1)}", WITH_HANDLES) for count in COUNTS]

# What a message waits, in nanoseconds: messages queued before it for a reader that sleeps, hold_after_ms
ASLEEP = [(f"asleep {ms} {queued}", queued, ms) for queued in (1, 3) for ms in (0, 1, 10, 50)]

# What the numbers depend on. Title, kernel, what is added to its command line; the parts that are run
VARIANTS = (("mitigations=off", "vmlinux-bench", "mitigations=off"), ("KUnit, not running", "vmlinux", ""))
VARIANT_PARTS = ("floor", "messages 64")
# and one of all kernels
FLUSHED = "L1D flushed by loads"
FLUSHED_OPTIONS = ("-machine", "cap-cfpc=broken")
FLUSHED_PARTS = ("floor", "messages 64", "messages 4048", "handles 1", "handles 16384", "files 1", "files 16384")

# What was to be beaten, part and row of it: from the numbers of Linux's driver on another kernel that flushed L1D by
# loads, and had a getppid() of 1,083
TO_BEAT = (
    ("for scale: getppid()", "floor", "getppid", None),
    ("for scale: signalfd(), the first", "files 1", "new-file", None),
    ("for scale: signalfd(), the 16,384th on average", "files 16384", "new-file", None),
    ("send 64 bytes", "messages 64", "send", 3300), ("send 4048 bytes", "messages 4048", "send", 4200),
    ("receive 64 bytes", "messages 64", "receive", 3000), ("receive 4048 bytes", "messages 4048", "receive", 3900),
    ("send, event inside, 1 handle", "handles 1", "first-send-event", 5800),
    ("send, event inside, 16,384 handles", "handles 16384", "first-send-event", 5900),
    ("create the first", "handles 1", "create-all", 2900),
    ("create the 16,384th, on average", "handles 16384", "create-all", 2950),
)

# What functions do, by their name; the first that matches. A name that the kernel's compiler made of another
# (.part.0, .isra.0, .constprop.0) counts as that.
GROUPS = (
    ("driver", r".*hvpipe"),
    ("locking", r"_raw_|_?_?mutex_|.*rwsem|.*spin|lockref|lock_"),
    ("program", r"user$"),
    ("RTAS", r"firmware$|.*rtas|xa_|xas_|.*work_area|.*gen_?pool|.*errorlog"),
    ("copying", r".*copy|memcpy|memset|__memset|.*iov|import_|.*access_ok"),
    ("wake-up", r".*wake|.*poll"),
    ("interrupt", r".*irq|.*interrupt|.*xics|hardware_int|icp_|h_|plpar|.*timer|.*tick|.*hrtimer|.*softirq|.*clock"
                  r"|.*replay|mtree_load|.*xive|do_IRQ|__do_IRQ|.*random|fast_mix"
                  r"|interrupt_|.*restore_math|.*nmi|.*handle_.*event|generic_handle|.*ack"),
    ("scheduler", r".*sched|.*switch|.*queue_task|.*task|pick_|.*_fair|.*_rt$|.*_rt_|.*dequeue|.*enqueue|.*rq|.*load"),
    ("memory", r".*alloc|.*free|.*slab|.*slub|kmem|.*obj|.*memcg"),
    ("system call", r".*syscall|.*system_call|.*fdget|.*fget|.*fput|vfs_|ksys|sys_|new_sync|__se_sys|rw_verify|.*file"
                    r"|.*user_|.*ioctl|.*inode|.*dentry|.*_fd|.*fd_|d_|__d_|security_"),
    ("other", r""),
)
EVENT = "an event: send with it less send without"

# What bench.c marks, by the name of the row, and where else the plugin divides it: title
PROFILED = {"send": "send", "receive": "receive", "send-event": "send, event", "receive-event": "receive, event",
            "round-trip": "round trip", "before-event": "to the event", "event-to-wakeup": "on to wake-up",
            "create": "create", "close": "close"}
LISTED = 40     # instructions of a function that is named


def table_line(lines, title, cells, width=15, room=50):
    """Add TITLE, in so much ROOM, and CELLS, WIDTH each, to LINES."""
    lines.append((f"{title:{room}}" + "".join(f"{cell:>{width}}" for cell in cells)).rstrip())


def median(run, part, row):
    """The median of ROW in PART of RUN, None if it is missing."""
    return run["results"].get(part, {}).get(row, {}).get("median")


def shown(number):
    """NUMBER as a cell."""
    return "missing" if number is None else f"{number:,.0f}"


def compared(runs):
    """The names of the two kernels whose ratio is shown, None where there is but one kernel."""
    return list(runs)[-2:] if len(runs) > 1 else None


# --- what was measured ---

def show_setup(results):
    """What the numbers are those of: commit, kernels, programs."""
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
    """By how much the medians of NOW and of BEFORE, an earlier run's results, differ at most, and where; "" if BEFORE
    has none of them.
    """
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
    """The table of calls, without what many handles cost."""
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
    """The table of what calls cost with many handles open."""
    runs = results["calls"]
    lines = []
    table_line(lines, "guest instructions, 64 bytes, so many handles open", [f"{count:,}" for count in COUNTS], 10, 56)
    for row, title in WITH_HANDLES:
        # With one handle, the one created last is the first; and see bench.c's traffic().
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
    """Rows in which the other driver is cheaper, of all that both can do; "" where there is but one kernel."""
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
    """The table of what a message waits behind those of a reader that sleeps."""
    runs = results["asleep"]
    lines = []
    table_line(lines, "milliseconds of virtual time", runs)
    heading = None
    for part, queued, ms in ASLEEP:
        if heading != queued:
            heading = queued
            lines.append(f"behind {queued} message{'s' * (queued > 1)} that a sleeping reader has not read")
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


# --- where the instructions go ---

def group_of(function):
    """The group that FUNCTION belongs to."""
    return next(group for group, pattern in GROUPS if re.match(pattern, function))


def by_group(functions):
    """{group: instructions} of FUNCTIONS, {function: instructions}."""
    sums = dict.fromkeys(dict(GROUPS), 0.0)
    for function, count in functions.items():
        sums[group_of(function)] += count
    return sums


def event_of(rows):
    """What a send with an event inside executes besides, by function."""
    return {function: rows["send-event"].get(function, 0) - rows["send"].get(function, 0)
            for function in rows["send-event"]}


def show_profile(results):
    """A table by groups for each kernel, and the functions that take most, of two kernels side by side."""
    runs, lines = results["profile"], []
    for name, rows in runs.items():
        table_line(lines, f"guest instructions: {name}", PROFILED.values())
        sums = [by_group(rows.get(row, {})) for row in PROFILED]
        for group in dict(GROUPS):
            table_line(lines, f"  {group}", [shown(one[group]) for one in sums])
        table_line(lines, "  all", [shown(sum(one.values())) for one in sums])
        lines.append("")
    pair = compared(runs) or list(runs)
    for row, title in (("send", "send"), ("receive", "receive"), (None, EVENT), ("event-to-wakeup", "on to wake-up"),
                       ("create", "create"), ("close", "close")):
        found = [runs[name].get(row, {}) if row else event_of(runs[name]) for name in pair]
        table_line(lines, f"{title}, by function", [*pair, "  "])
        listed = {function for one in found for function, count in one.items() if count >= LISTED}
        for function in sorted(listed, key=lambda name: (-max(one.get(name, 0) for one in found), name)):
            table_line(lines, f"  {function}", [*(shown(one.get(function, 0)) for one in found),
                                                f"  {group_of(function)}"])
        table_line(lines, f"  all others, below {LISTED} each",
                   [shown(sum(count for function, count in one.items() if function not in listed)) for one in found])
        lines.append("")
    return "\n".join(lines[:-1])


def show_remains(results):
    """What calls and an event cost beyond what every driver pays, and what was to be beaten."""
    calls, profile = results["calls"], results["profile"]
    names, lines = list(calls), []
    floor, bare = ([median(calls[name], part, row) for name in names]
                   for part, row in (("floor", "getppid"), ("rtas_call", "rtas_call")))
    table_line(lines, "guest instructions", names)
    for row in ("send", "receive"):
        total = [median(calls[name], "messages 64", row) for name in names]
        table_line(lines, f"{row} 64 bytes, no event inside", map(shown, total))
        table_line(lines, "  a system call that does nothing: getppid()", map(shown, floor))
        table_line(lines, "  rtas_call(), nothing to receive", map(shown, bare))
        table_line(lines, "  what is left: checks, copying, the driver",
                   [shown(None if None in one else one[0] - one[1] - one[2]) for one in zip(total, floor, bare)])
    parts = (("the kernel's way from the interrupt and back", ("interrupt",)),
             ("rtas_call(check-exception)", ("RTAS",)),
             ("the driver, the wake-up", ("driver", "wake-up")),
             ("locks, of all of them", ("locking",)))
    sums = [by_group(event_of(profile[name])) for name in names]
    table_line(lines, EVENT, [shown(sum(one.values())) for one in sums])
    for title, groups in parts:
        table_line(lines, f"  {title}", [shown(sum(one[group] for group in groups)) for one in sums])
    named = [group for _, groups in parts for group in groups]
    table_line(lines, "  all else", [shown(sum(count for group, count in one.items() if group not in named))
                                     for one in sums])
    for title, handles in (("create the first handle", 1), ("create the 16,384th handle, on average", 16384)):
        total, file = ([median(calls[name], part, row) for name in names]
                       for part, row in ((f"handles {handles}", "create-all"), (f"files {handles}", "new-file")))
        table_line(lines, title, map(shown, total))
        table_line(lines, "  as many signalfd(): the kernel's new files", map(shown, file))
        table_line(lines, "  what is left: the checks, the driver",
                   [shown(None if None in one else one[0] - one[1]) for one in zip(total, file)])
    lines.append("")
    flushed = results["flushed"]
    table_line(lines, f"guest instructions, {FLUSHED}", ["to beat", *names])
    for title, part, row, goal in TO_BEAT:
        table_line(lines, title, [f"{goal:,}" if goal else "", *(shown(median(flushed[name], part, row))
                                                                 for name in names)])
    return "\n".join(lines)


# --- charts ---

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
    """Cost against handles and against size; returns the files."""
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


# --- the page ---

def page_with(page, texts):
    """PAGE, docs/performance.md, with TEXTS, {title: text}, in place of the last run's; None if it has no place."""
    made = "".join(f"### {title}\n\n```text\n{text}\n```\n\n" for title, text in texts.items() if text)
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n{made}{end}{after}" if begin and end else None


def write_page(texts, directory=BUILD):
    """Write docs/performance.md with TEXTS in place of the last run's to DIRECTORY; returns the file."""
    page = page_with((TOP / "docs/performance.md").read_text(encoding="utf-8"), texts)
    if page is None:
        raise ValueError(f"docs/performance.md has no place for the tables: {BEGIN.strip()} ... {END.strip()}")
    place = directory / "performance.md"
    place.write_text(page, encoding="utf-8")
    return place
