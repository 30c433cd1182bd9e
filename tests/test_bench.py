# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make bench` makes of its numbers: tables, charts and the summary in docs/. Nothing is measured here."""

import json
import re

import pytest

from bench import calls, host, links, page, peers, profile, tables
from lab import LabError

NEWER = ["ours", "ours, newer", "Linux's"]


def numbers(median):
    """A row's numbers."""
    return {"median": median, "p10": median, "p90": median + 10, "samples": 401}


def made_up(names):
    """What a run with kernels of NAMES could have measured."""
    results = {part: {row: numbers(1000 + 10 * number) for number, (row, _) in enumerate(rows)}
               for part, _, rows in calls.PARTS + calls.HANDLES}
    results["unit"] = {"unit-1000": numbers(1000.0)}
    channels = {channel: {str(size): {"median": 7e3, "p10": 1, "p90": 2e4, "p99": 3e4, "samples": 9, "rate": 100.0}
                          for size in peers.SIZES} for channel in {**peers.CHANNELS, **peers.BUSY}}
    on_host = {str(size): dict.fromkeys([title for _, title in host.DEVICE] + ["hvpipe-hmc"], 5000)
               for size in peers.SIZES}
    return json.loads(json.dumps({
        "commit": "0123456", "setup": {"hypervisor": "QEMU"},
        "calls": {name: {"kernel": name, "release": "6.12", "what": "gcc 12", "results": results} for name in names},
        "asleep": {name: {"results": {part: {"wait": numbers(2e7)} for part, _, _ in calls.ASLEEP}}
                   for name in names},
        "flushed": {name: {"results": results} for name in names},
        "depends": {title: {"results": results} for title, *_ in calls.VARIANTS},
        "profile": {name: {row: {"hvpipe_write": 100.0 + len(row), "do_IRQ": 50.0, "memcpy": 3.0}
                           for row in profile.PROFILED} for name in names},
        "peers": {"instructions": {**channels, "unit": {"work": 1000010.0, "and a sleep of 1 ms": 1009149.0}},
                  "time": channels, "time, 2 CPUs": channels, "loads": [2.0, 1.0], "processors": 2},
        "host": {"hmc1": on_host, "hmc2": on_host},
        "links": {"links": {str(n): {"instructions": 7e3, "memory": 6e6 + 8e3 * n, "rate": 2e4} for n in links.LINKS},
                  "sources": {"one source, one process": 1e4, "8 sources, one process": 2e4},
                  "commit": "0123456", "processors": 2, "load": 1.5}}))


@pytest.mark.parametrize("names", [["ours"], ["ours", "baseline"], NEWER])
def test_full_page(names):
    """build/performance.md has each table once."""
    texts = page.show_all(made_up(names))
    full = page.full_page(texts)
    for title, text in texts.items():
        assert full.count(f"## {title}\n") == 1 and text in full
    assert len(texts) == len(page.SECTIONS) - (len(names) == 1)     # one kernel is not compared


def test_docs_show_a_run():
    """The summary in docs/performance.md is the one of bench/results.json, which a run wrote, and its only figures."""
    text = page.DOCS.read_text(encoding="utf-8")
    results = json.loads(page.RESULTS.read_text(encoding="utf-8"))
    assert page.page_with(text, results) == text
    before, _, rest = text.partition(page.BEGIN)
    prose = before + rest.partition(page.END)[2]
    assert "```" not in prose and not re.search(r"^\|", prose, re.M)
    assert "-dirty" not in results["commit"]


@pytest.mark.parametrize("names", [["ours"], ["ours", "baseline"], NEWER])
def test_summary_from_essentials(names):
    """What a run keeps in bench/results.json is enough for the summary, which fits on a screen."""
    results = made_up(names)
    text = page.summary(results)
    assert page.summary(page.essentials(results)) == text
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 120


def test_page_without_a_place():
    """A page without marks is not written to."""
    with pytest.raises(LabError, match="no place"):
        page.page_with("no marks\n", made_up(["ours"]))


def test_missing_rows():
    """A row that one kernel lacks is shown for the others."""
    results = made_up(NEWER)
    del results["calls"]["Linux's"]["results"]["messages 4088"]
    del results["calls"]["Linux's"]["results"]["rtas_call"]
    del results["asleep"]["Linux's"]["results"]["asleep 10 1"]
    texts = page.show_all(results)
    assert sum(text.count("missing") for text in texts.values()) == 5 + 1 + 2 * 2 + 1, texts


def test_columns():
    """Three kernels are three columns, and the ratio is that of the last two."""
    results = made_up(NEWER)
    results["calls"]["Linux's"]["results"]["floor"]["getppid"]["median"] = 500
    texts = page.show_all(results)
    line = next(line for line in texts["What each call costs"].splitlines() if "getppid()" in line)
    assert line.split()[1:] == ["1,000", "1.0%", "1,000", "500", "2.00"]
    dearer = texts["What Linux's driver does for less"].splitlines()
    assert len(dearer) == 2 and dearer[1].split() == ["floor:", "getppid()", "1,000", "500", "2.00"]


def test_repeatability():
    """A second run names the row that differs most from the first, with both numbers."""
    before, now = made_up(["ours"]), made_up(["ours"])
    assert tables.repeatability(now, {}) == ""
    assert tables.repeatability(now, before).endswith("of the same kernels, by 0.0% at most")
    now["calls"]["ours"]["results"]["messages 64"]["send"]["median"] = 1020
    assert tables.repeatability(now, before).endswith(
        "by 2.0% at most (ours: 64 bytes: send, no event inside, 1,000 then, 1,020 now)")
    now["calls"]["ours"]["kernel"] = "another"
    assert "of other kernels" in tables.repeatability(now, before)


def test_groups():
    """Functions of either driver count as driver, and the look-up in rtas_call() as RTAS."""
    assert [profile.group_of(name) for name in
            ("hvpipe_write_pipe", "papr_hvpipe_handle_write", "rtas_check_exception_hvpipe", "xa_load", "xas_start",
             "rtas_call", "do_IRQ", "_raw_spin_lock_irqsave", "update_rq_clock", "unheard_of")] == [
                 *["driver"] * 3, *["RTAS"] * 3, "interrupt", "locking", "interrupt", "other"]


def test_charts(tmp_path):
    """Both charts have a line for each kernel and row, and name their licence."""
    for path in page.charts(made_up(NEWER)["calls"], tmp_path):
        text = path.read_text(encoding="utf-8")
        assert page.LICENCE in text
        assert all(name.replace("'", "&#39;") in text or name in text for name in NEWER)
