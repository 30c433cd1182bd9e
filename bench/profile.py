# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of where the instructions go, by function and by groups of functions."""

import re

from .calls import FLUSHED
from .tables import compared, median, shown, table_line

# Groups of functions by their names; the first match counts
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
EVENT = "an event: send with it, less send without"

# The rows that bench.c or the plugin mark, with their titles
PROFILED = {"send": "send", "receive": "receive", "send-event": "send, event", "receive-event": "receive, event",
            "round-trip": "round trip", "before-event": "to the event", "event-to-wakeup": "on to wake-up",
            "create": "create", "close": "close"}
LISTED = 40     # functions with fewer instructions are not listed

# Rows where L1D is flushed by loads: title, part, row
FLUSHED_ROWS = (
    ("getppid()", "floor", "getppid"),
    ("signalfd(), the first", "files 1", "new-file"),
    ("signalfd(), the 16,384th on average", "files 16384", "new-file"),
    ("send 64 bytes", "messages 64", "send"), ("send 4048 bytes", "messages 4048", "send"),
    ("receive 64 bytes", "messages 64", "receive"), ("receive 4048 bytes", "messages 4048", "receive"),
    ("send, event inside, 1 handle", "handles 1", "first-send-event"),
    ("send, event inside, 16,384 handles", "handles 16384", "first-send-event"),
    ("create the first", "handles 1", "create-all"),
    ("create the 16,384th, on average", "handles 16384", "create-all"),
)


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
    """What an event adds to a send, by function."""
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
    """What calls and an event cost beyond what every driver pays."""
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
    parts = (("interrupt entry and exit", ("interrupt",)),
             ("rtas_call(check-exception)", ("RTAS",)),
             ("the driver, the wake-up", ("driver", "wake-up")),
             ("locks, of all of these", ("locking",)))
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
    table_line(lines, f"guest instructions, {FLUSHED}", names)
    for title, part, row in FLUSHED_ROWS:
        table_line(lines, title, [shown(median(flushed[name], part, row)) for name in names])
    return "\n".join(lines)
