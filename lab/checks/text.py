# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of scripts, Python, pages and words."""

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from . import GENERATED, LINE_LENGTH, Report, name_of, run
from ..paths import TOP

WITHOUT_LICENCE = re.compile(r"LICENSES/|tests/fuzz/corpus/|.*\.(md|patch|args|json|abi)$|"
                             r"packaging/debian/[\w/.-]*(?<!rules)(?<!rm)$|"
                             r"(.*/)?(\.gitignore|README|cover-letter\.txt)$")
# Not misspelt, or on purpose: a macro of mdoc, what tests give a parser, the end of a pattern, a part of the kernel
WORDS = "nd,recieve,spurios,stauts,ure,vas,filp"


def licences(report: Report, files: Iterable[Path]) -> None:
    """Every file says its licence in its first lines."""
    missing = [f"{name_of(path)}: no SPDX-License-Identifier" for path in files
               if not WITHOUT_LICENCE.match(name_of(path))
               and b"SPDX-License-Identifier: " not in b"".join(path.read_bytes().split(b"\n")[:4])]
    report.add_lines("SPDX lines", missing)


def shell(report: Report, files: Iterable[Path]) -> None:
    """shellcheck on every shell script."""
    scripts = [path for path in files if re.match(rb"#!/bin/(busybox )?(ba)?sh\b", path.read_bytes()[:40])]
    said = run("shellcheck", "--format=gcc", "--shell=sh", *scripts)[1]
    errors = len(re.findall(r" error: ", said))
    report.add(f"shellcheck, {len(scripts)} scripts", errors, len(said.splitlines()) - errors, said)


def python(report: Report, files: Iterable[Path]) -> None:
    """flake8 on every Python program."""
    programs = [path for path in files
                if path.suffix == ".py" or path.read_bytes().startswith(b"#!/usr/bin/python3")]
    said = run("flake8", f"--max-line-length={LINE_LENGTH}", *programs)[1]
    errors = len(re.findall(r": [EF]\d+ ", said))
    report.add(f"flake8, {len(programs)} programs", errors, len(said.splitlines()) - errors, said)


def man_pages(report: Report, files: Iterable[Path]) -> None:
    """mandoc's lint on the man pages."""
    pages = [path for path in files if re.search(r"\.[1-8]$", path.name)
             and re.search(rb"^\.(SH|Sh|so) ", path.read_bytes(), re.M)]
    said = run("mandoc", "-T", "lint", "-W", "warning", *pages, cwd=TOP)[1]
    errors = len(re.findall(r": (?:ERROR|UNSUPP): ", said))
    report.add(f"mandoc, {len(pages)} man pages", errors, len(re.findall(r": WARNING: ", said)), said)


def spelling(report: Report, files: Iterable[Path]) -> None:
    """codespell on all text."""
    texts = [path for path in files if not GENERATED.match(name_of(path))]
    said = run("codespell", "--ignore-words-list", WORDS, *map(name_of, texts), cwd=TOP)[1]
    report.add_lines(f"codespell, {len(texts)} files", said.splitlines())


def anchors(page: Path) -> set[str]:
    """What a link may name in a Markdown PAGE: its headings, as GitHub makes anchors of them, and explicit ones."""
    text = without_code(page.read_text(encoding="utf-8"))
    found: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    for heading in re.findall(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", text, re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = sum(re.fullmatch(re.escape(anchor) + r"(-\d+)?", other) is not None for other in found)
        found.add(f"{anchor}-{number}" if number else anchor)
    return found


def without_code(text: str) -> str:
    """Markdown TEXT without its blocks of code."""
    return re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S)


def dead_links(page: Path) -> list[str]:
    """The links of a Markdown PAGE to files, directories and anchors of this checkout that are not there."""
    text = re.sub(r"`[^`\n]*`", "", without_code(page.read_text(encoding="utf-8")))
    dead = []
    for target in (re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r"^\[[^]]+\]:\s+(\S+)", text, re.M)
                   + re.findall(r'(?:src|href|srcset)="([^"]+)"', text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        place = (page.parent / name) if name else page
        if not place.exists():
            dead.append(f"{name_of(page)}: link to {target}, which does not exist")
        elif anchor and place.suffix == ".md" and anchor not in anchors(place):
            dead.append(f"{name_of(page)}: link to {target}: no such heading")
    return dead


def links(report: Report, files: Iterable[Path]) -> None:
    """Links between the pages."""
    pages = [path for path in files if path.suffix == ".md"]
    report.add_lines(f"links, {len(pages)} pages", [dead for page in pages for dead in dead_links(page)])
