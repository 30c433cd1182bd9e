# SPDX-License-Identifier: GPL-2.0-or-later
"""git as the lab uses it: whatever the user's configuration says, and with the same commits from the same input."""

import os
from pathlib import Path

from .step import output_of

DATE = "2026-01-01T00:00:00+0000"
US = ("hvpipe developers", "hvpipe@example.org")


def git_environment(who: tuple[str, str] = US) -> dict[str, str]:
    """The environment for git that makes commits by WHO: name, address."""
    name, mail = who
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "LC_ALL": "C", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": mail, "GIT_AUTHOR_DATE": DATE,
            "GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": mail, "GIT_COMMITTER_DATE": DATE}


def git(tree: Path, *arguments: object, **kwargs) -> str:
    """What git, run in TREE, prints; it must succeed."""
    return output_of("git", "-C", tree, *arguments, env=git_environment(), **kwargs)


def names_in(text: str) -> list[str]:
    """The file names in TEXT, an output of git with -z."""
    return [name for name in text.split("\0") if name]
