# SPDX-License-Identifier: GPL-2.0-or-later
"""`hvpipe doctor` in each situation: it says what docs/troubleshooting.md shows, line by line.

`make test-kernels` runs test_driver on each kernel; so its text is compared on Debian's kernel, too.
"""

import json
import re

import pytest

from lab import KERNEL, TOP
from lab.machine import LINUX_DRIVER

PAGE = TOP / "docs/troubleshooting.md"


def shown(title):
    """What the page shows below TITLE."""
    match = re.search(rf"^\*{re.escape(title)}\*[^\n]*\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"),
                      re.M | re.S)
    assert match, f"{PAGE} shows no {title!r}"
    return match[1].splitlines()


def plain(lines):
    """LINES without what differs from kernel to kernel: its release."""
    return [re.sub(r"Linux \d+\.\d+[\w.+~-]*", "Linux RELEASE", line) for line in lines]


def check(partition, title, status):
    """The doctor says in PARTITION what the page shows below TITLE, ends with STATUS, and names the way out."""
    found = partition.run("hvpipe doctor")
    assert plain(found.stdout.splitlines()) == plain(shown(title))
    assert found.status == status
    report = json.loads(partition.run("hvpipe doctor --json").stdout)
    assert report["worst"] == {0: "ok", 9: "warning", 1: "error"}[status]
    assert all(finding["remedy"] for finding in report["findings"] if finding["result"] != "ok")


def test_driver(shared):
    """On a kernel with a driver it names the driver; of the one that Linux ships it warns, by release: it cannot know
    of fixes."""
    if KERNEL in (*LINUX_DRIVER, "vmlinux-debian-fixed"):
        check(shared, "The driver that Linux ships", 9)
    else:
        check(shared, "This project's driver", 0)


@pytest.mark.parametrize("title,how", [("A kernel without a driver", {"kernel": "vmlinux-plain"}),
                                       ("A hypervisor without a pipe", {"hvpipe": False})])
def test_nothing(lab, title, how):
    """Without a driver, or without a pipe, it says which of the two is missing, and ends with the status of an
    error."""
    partition = lab.partition(name="doctor", **how)
    check(partition, title, 1)
    assert partition.poweroff() == 0
