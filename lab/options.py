# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several commands share."""

import argparse
import os
import random

from .errors import LabError

MAX_SEED = 2 ** 31 - 1


def seed_from_environment() -> int:
    """The number from which a run derives its random choices: SEED from the environment, else a random one."""
    text = os.environ.get("SEED")
    if not text:
        return random.SystemRandom().randint(1, MAX_SEED)
    if not (text.isdecimal() and text.isascii() and 1 <= int(text) <= MAX_SEED):
        raise LabError(f"SEED={text} is not a number from 1 to {MAX_SEED}")
    return int(text)


def count(text: str) -> int:
    """For argparse: a number of messages, moves or seconds."""
    if not (text.isdecimal() and text.isascii() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return int(text)
