# SPDX-License-Identifier: GPL-2.0-or-later
"""Try the README's two commands on a machine that has nothing: a new root of a Debian release with git, make and
ca-certificates, made by debootstrap in the cache. It gets a clone of what is committed here, and a cache of its own.

Needs root, 12 GB of disk and, on two cores, most of an hour. The root is removed at the end unless --keep is given or
a command failed; `rm -rf` removes it later, as nothing stays mounted.
"""

import argparse
import re
import shutil
import time
from pathlib import Path

from .cache import cache_dir
from .errors import LabError
from .paths import TOP
from .root import in_root, make_root, refuse_if_impossible
from .step import Step, output_of

CLONE = Path("/root/hvpipe")    # in the root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The release, and how much of it."""
    parser.add_argument("release", metavar="RELEASE", help="the codename of a Debian release: bookworm, trixie")
    parser.add_argument("--tests", metavar="ARGUMENTS", default="tests",
                        help="arguments for pytest in `make test`, to try less than all")
    parser.add_argument("--keep", action="store_true", help="keep the root; its path is printed")


def main(arguments: argparse.Namespace) -> int:
    """Make the root, run both commands in it."""
    release = arguments.release
    refuse_if_impossible(release)
    if output_of("git", "-C", TOP, "status", "--porcelain").strip():
        print("fresh: this checkout has changes that are not committed; they are not tried", flush=True)
    root = cache_dir() / "fresh" / release
    with Step("fresh-root", f"making a root of {release}") as step:
        make_root(step, root, release)
        step.run(["git", "clone", "--quiet", "--no-hardlinks", TOP, f"{root}{CLONE}"], doing="cloning")
    seconds = {}
    for name, command in (("run", ["make", "run"]), ("test", ["make", "test", f"TESTS={arguments.tests}"])):
        start = time.monotonic()
        with Step(f"fresh-{name}", f"{' '.join(command)} in {root}") as step:
            step.run(in_root(root, CLONE, command), doing=" ".join(command),
                     count=r"^tests/\S+ |^\w[\w-]*: .*done", unit="steps")
        seconds[name] = round(time.monotonic() - start)
        said = step.log.read_text(encoding="utf-8", errors="replace")
        if name == "run" and not re.search(r"^run: \d+ to partition, \d+ to HMC, 0 lost$", said, re.M):
            raise LabError(f"make run did not end with what it must: see {step.log}")
    summary = re.findall(r"^=+ (.*\bpassed\b.*) in .*=+$", said, re.M)
    if not summary:
        raise LabError(f"make test ended without pytest's summary: see {step.log}")
    if arguments.keep:
        print(f"fresh: kept {root}")
    else:
        shutil.rmtree(root)
    print(f"fresh: {release}, run {seconds['run']} s, test {seconds['test']} s, {summary[-1]}")
    return 0
