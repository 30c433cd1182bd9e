#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Draw docs/four-parties.svg: the four parties and the path of a message in each direction.

    docs/draw-four-parties.py       writes the picture next to this script

The picture has a background of its own, so it is readable on a light page and on a dark one; it follows the reader's
colour scheme where the viewer passes that on.
"""

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, MARGIN = 960, 20
COLUMNS = {"hmc": 120, "hypervisor": 360, "driver": 600, "user": 840}     # x of each party's line
HEADS = {
    "hmc": ("HMC", "hvpipe-hmc"),
    "hypervisor": ("hypervisor", "QEMU: spapr-hvpipe"),
    "driver": ("driver", "Linux: papr-hvpipe"),
    "user": ("user space", "hvpipe, libhvpipe"),
}
BORDERS = [("hmc", "hypervisor", "stream socket"), ("hypervisor", "driver", "RTAS, interrupt"),
           ("driver", "user", "/dev/papr-hvpipe")]
# (from, to, label): one arrow a row
TO_PARTITION = [
    ("hmc", "hypervisor", "MESSAGE"),
    ("hypervisor", "driver", "event interrupt"),
    ("driver", "hypervisor", "check-exception: which source?"),
    ("driver", "user", "poll() returns"),
    ("user", "driver", "read()"),
    ("driver", "hypervisor", "ibm,receive-hvpipe-msg"),
    ("hypervisor", "hmc", "ACK: received"),
    ("driver", "user", "the message"),
]
TO_HMC = [
    ("user", "driver", "write()"),
    ("driver", "hypervisor", "ibm,send-hvpipe-msg"),
    ("hypervisor", "hmc", "MESSAGE"),
    ("hmc", "hypervisor", "ACK: taken"),
    ("hypervisor", "driver", "status 0"),
    ("driver", "user", "write() returns"),
]
HEAD_TOP, HEAD_HEIGHT, HEAD_WIDTH = 50, 54, 190
ROW = 27

STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de; }
  .gap { fill: #ffffff; }
  .box { fill: #ddf4ff; stroke: #0969da; }
  .frame { fill: none; stroke: #8c959f; stroke-dasharray: 5 4; }
  .line { stroke: #8c959f; stroke-dasharray: 2 4; }
  .arrow { stroke: #0969da; stroke-width: 1.6; }
  .tip { fill: #0969da; }
  text { fill: #1f2328; font: 13px 'DejaVu Sans', Verdana, sans-serif; text-anchor: middle; }
  .name { font-weight: bold; font-size: 15px; }
  .code { font-family: 'DejaVu Sans Mono', Menlo, monospace; font-size: 12px; }
  .small { fill: #59636e; font-size: 12px; }
  .title { text-anchor: start; font-weight: bold; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d; }
    .gap { fill: #0d1117; }
    .box { fill: #121d2f; stroke: #4493f8; }
    .frame { stroke: #656c76; }
    .line { stroke: #656c76; }
    .arrow { stroke: #4493f8; }
    .tip { fill: #4493f8; }
    text { fill: #f0f6fc; }
    .small { fill: #9198a1; }
  }
"""


def text(x, y, words, kind=""):
    """One line of text, centred at X unless its KIND says otherwise."""
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(words)}</text>'


def arrow(start, end, y, label):
    """An arrow from one party's line to another's, with its label above it."""
    x1, x2 = COLUMNS[start], COLUMNS[end]
    way = 1 if x2 > x1 else -1
    tip = x2 - 2 * way
    return [f'<line x1="{x1}" y1="{y}" x2="{tip - 6 * way}" y2="{y}" class="arrow"/>',
            f'<path d="M{tip} {y} l{-9 * way} -4 v8 z" class="tip"/>',
            text((x1 + x2) // 2, y - 5, label, "code")]


def picture():
    """The whole picture as text."""
    first = HEAD_TOP + HEAD_HEIGHT + 76
    second = first + ROW * len(TO_PARTITION) + 40
    bottom = second + ROW * len(TO_HMC)
    height = bottom + MARGIN // 2
    parts = [f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" class="page"/>']
    left, right = COLUMNS["driver"] - HEAD_WIDTH // 2 - 12, COLUMNS["user"] + HEAD_WIDTH // 2 + 12
    parts.append(f'<rect x="{left}" y="{HEAD_TOP - 30}" width="{right - left}" height="{HEAD_HEIGHT + 42}" rx="8" '
                 'class="frame"/>')
    parts.append(text((left + right) // 2, HEAD_TOP - 11, "partition", "small"))
    for party, x in COLUMNS.items():
        parts.append(f'<line x1="{x}" y1="{HEAD_TOP + HEAD_HEIGHT}" x2="{x}" y2="{bottom}" class="line"/>')
        parts.append(f'<rect x="{x - HEAD_WIDTH // 2}" y="{HEAD_TOP}" width="{HEAD_WIDTH}" height="{HEAD_HEIGHT}" '
                     'rx="6" class="box"/>')
        parts.append(text(x, HEAD_TOP + 22, HEADS[party][0], "name"))
        parts.append(text(x, HEAD_TOP + 42, HEADS[party][1], "code"))
    for one, other, label in BORDERS:
        parts.append(text((COLUMNS[one] + COLUMNS[other]) // 2, HEAD_TOP + HEAD_HEIGHT + 30, label, "small"))
    for title, y, rows in (("From the HMC to the partition", first, TO_PARTITION),
                           ("From the partition to the HMC", second, TO_HMC)):
        parts.append(f'<rect x="{MARGIN}" y="{y - 28}" width="230" height="20" class="gap"/>')
        parts.append(text(MARGIN, y - 14, title, "title"))
        for number, row in enumerate(rows, 1):
            parts += arrow(row[0], row[1], y + ROW * number - 8, row[2])
    return "\n".join([
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<!-- SPDX-License-Identifier: GPL-2.0-or-later. Written by docs/draw-four-parties.py -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img">',
        "<title>The four parties of hvpipe and the path of a message</title>",
        f"<style>{STYLE}</style>", *parts, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_name("four-parties.svg").write_text(picture(), encoding="utf-8")
