# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are in this checkout."""

from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
BUILD = TOP / "build"
LOGS = BUILD / "logs"
