# SPDX-License-Identifier: GPL-2.0-or-later
"""Failures that a person reads. Anything else that is raised is a bug in the lab."""


class LabError(Exception):
    """Something could not be done; the text says what, with which value, and what to do or where to look."""


class CommandFailed(LabError):
    """A command in the partition ended with a status other than 0."""
