# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: builds the four parties and runs them, for people at the command line and for the tests.

`python3 -m lab COMMAND` is the command line, see __main__.py. Tests and bench import this package; it imports neither.
"""

from .errors import CommandFailed, LabError
from .hmc import HVPIPE_HMC, Hmc
from .machine import (ANNOUNCES_AGAIN, EMPTY_RECEIVE, KERNEL, MACHINES, PAYLOAD_LIMIT, REFUSES_SECOND_SEND,
                      source_id)
from .partition import SPLAT, Partition, initramfs_with
from .paths import BUILD, LOGS, TOP
from .session import Lab
from .stream import LIMIT, Stream

__all__ = ["ANNOUNCES_AGAIN", "BUILD", "CommandFailed", "EMPTY_RECEIVE", "HVPIPE_HMC", "Hmc", "KERNEL", "LIMIT", "LOGS",
           "Lab", "LabError", "MACHINES", "PAYLOAD_LIMIT", "Partition", "REFUSES_SECOND_SEND", "SPLAT", "Stream", "TOP",
           "initramfs_with", "source_id"]
