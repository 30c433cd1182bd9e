# SPDX-License-Identifier: GPL-2.0-or-later
"""Forget the fetched sources; the next build takes the newest that the host's release has."""

import argparse

from .sources import forget


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def main(_arguments: argparse.Namespace) -> int:
    """Forget them."""
    forget()
    return 0
