# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: builds the four parties and runs them, for people at the command line and for the tests.

`python3 -m lab COMMAND` is the command line, see __main__.py. Tests and bench import this package; it imports neither.
"""
