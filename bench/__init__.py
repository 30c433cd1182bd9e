# SPDX-License-Identifier: GPL-2.0-or-later
"""What the driver and its alternatives cost: measurements, tables and charts. `python3 -m bench` runs all of it."""

import sys
import time


def say(text: str, start=time.monotonic()):
    """Print a line of progress."""
    print(f"bench: [{time.monotonic() - start:5.1f} s] {text}", file=sys.stderr, flush=True)
