# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make bench` makes of its numbers: tables, charts and docs/performance.md. Nothing is measured here."""

import json
import re
import runpy
import sys

import pytest

from lab import TOP

sys.path.insert(0, str(TOP / "scripts"))
import bench_peers      # noqa: E402
import bench_show       # noqa: E402

SECTIONS = runpy.run_path(str(TOP / "scripts/bench"))["SECTIONS"]
NEWER = ["ours", "ours, newer", "Linux's"]


def numbers(median):
    """A row's numbers."""
    return {"median": median, "p10": median, "p90": median + 10, "samples": 401}


def made_up(names):
    """What a run with kernels of NAMES could have measured."""
    calls = {part: {row: numbers(1000 + 10 * number) for number, (row, _) in enumerate(rows)}
             for part, _, rows in bench_show.PARTS + bench_show.HANDLES}
    calls["unit"] = {"unit-1000": numbers(1000.0)}
    peers = {channel: {str(size): {"median": 7e3, "p10": 1, "p90": 2e4, "p99": 3e4, "samples": 9, "rate": 100.0}
                       for size in bench_peers.SIZES} for channel in {**bench_peers.CHANNELS, **bench_peers.BUSY}}
    host = {str(size): dict.fromkeys([title for _, title in bench_peers.DEVICE] + ["hvpipe-hmc"], 5000)
            for size in bench_peers.SIZES}
    return json.loads(json.dumps({
        "commit": "0123456", "setup": {"hypervisor": "QEMU"},
        "calls": {name: {"kernel": name, "release": "6.12", "what": "gcc 12", "results": calls} for name in names},
        "asleep": {name: {"results": {part: {"wait": numbers(2e7)} for part, _, _ in bench_show.ASLEEP}}
                   for name in names},
        "flushed": {name: {"results": calls} for name in names},
        "depends": {title: {"results": calls} for title, *_ in bench_show.VARIANTS},
        "profile": {name: {row: {"hvpipe_write": 100.0 + len(row), "do_IRQ": 50.0, "memcpy": 3.0}
                           for row in bench_show.PROFILED} for name in names},
        "peers": {"instructions": {**peers, "unit": {"work": 1000010.0, "and a sleep of 1 ms": 1009149.0}},
                  "time": peers, "loads": [2.0, 1.0], "processors": 2},
        "host": {"hmc1": host, "hmc2": host}}))


def texts_of(results):
    """{title: text} of all that is shown."""
    return {title: make(results) for title, make in SECTIONS}


@pytest.mark.parametrize("names", [["ours"], ["ours", "baseline"], NEWER])
def test_a_page_made_twice_is_the_same(tmp_path, names):
    """All that is shown gets to its place on the page, in place of what was there."""
    texts = texts_of(made_up(names))
    page = bench_show.write_page(texts, tmp_path).read_text(encoding="utf-8")
    assert bench_show.page_with(page, texts) == page
    for title, text in texts.items():
        assert page.count(f"### {title}\n") == (1 if text else 0) and text in page


def test_tables_and_figures_are_on_the_page_once():
    """The page has no table that the bench does not write."""
    page = (TOP / "docs/performance.md").read_text(encoding="utf-8")
    assert page.count(bench_show.BEGIN) == page.count(bench_show.END) == 1
    before, _, rest = page.partition(bench_show.BEGIN)
    prose = before + rest.partition(bench_show.END)[2]
    assert "```" not in prose and not re.search(r"^\|", prose, re.M)


def test_a_page_without_a_place_is_left_alone():
    """Nothing is written to a page that has no marks."""
    assert bench_show.page_with("no marks\n", {"a": "b"}) is None


def test_what_a_kernel_cannot_do_is_missing():
    """A row that one kernel has not is shown for the others."""
    results = made_up(NEWER)
    del results["calls"]["Linux's"]["results"]["messages 4088"]
    del results["calls"]["Linux's"]["results"]["rtas_call"]
    del results["asleep"]["Linux's"]["results"]["asleep 10 1"]
    texts = texts_of(results)
    assert sum(text.count("missing") for text in texts.values()) == 5 + 1 + 2 * 2 + 1, texts


def test_every_kernel_has_its_column():
    """Three kernels are three columns, and the ratio is that of the last two."""
    results = made_up(NEWER)
    results["calls"]["Linux's"]["results"]["floor"]["getppid"]["median"] = 500
    line = next(line for line in texts_of(results)["What each call costs"].splitlines() if "getppid()" in line)
    assert line.split()[1:] == ["1,000", "1.0%", "1,000", "500", "2.00"]
    dearer = texts_of(results)["What Linux's driver does for less"].splitlines()
    assert len(dearer) == 2 and dearer[1].split() == ["floor:", "getppid()", "1,000", "500", "2.00"]


def test_a_second_run_says_how_far_it_is_from_the_first():
    """The row that differs most is named, with both numbers."""
    before, now = made_up(["ours"]), made_up(["ours"])
    assert bench_show.repeatability(now, {}) == ""
    assert bench_show.repeatability(now, before).endswith("of the same kernels, by 0.0% at most")
    now["calls"]["ours"]["results"]["messages 64"]["send"]["median"] = 1020
    assert bench_show.repeatability(now, before).endswith(
        "by 2.0% at most (ours: 64 bytes: send, no event inside, 1,000 then, 1,020 now)")
    now["calls"]["ours"]["kernel"] = "another"
    assert "of other kernels" in bench_show.repeatability(now, before)


def test_every_function_has_a_group():
    """The driver's functions count as such, whichever driver it is, and rtas_call()'s look-up as RTAS."""
    assert [bench_show.group_of(name) for name in
            ("hvpipe_write_pipe", "papr_hvpipe_handle_write", "rtas_check_exception_hvpipe", "xa_load", "xas_start",
             "rtas_call", "do_IRQ", "_raw_spin_lock_irqsave", "update_rq_clock", "unheard_of")] == [
                 *["driver"] * 3, *["RTAS"] * 3, "interrupt", "locking", "interrupt", "other"]


def test_charts_are_drawn(tmp_path):
    """Both charts have a line for each kernel and row, and say their licence."""
    for path in bench_show.charts(made_up(NEWER)["calls"], tmp_path):
        text = path.read_text(encoding="utf-8")
        assert bench_show.LICENCE in text
        assert all(name.replace("'", "&#39;") in text or name in text for name in NEWER)
