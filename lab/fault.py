# SPDX-License-Identifier: GPL-2.0-or-later
"""Inject faults into the hypervisor of a running machine, to test the partition against them.

    python3 -m lab fault 'receive:status=-1,count=3;event:duplicate'
    python3 -m lab fault             show the faults that are still to come
    python3 -m lab fault --clear     remove them
    python3 -m lab fault --list      list all kinds of faults

FAULTS is TARGET:WORD[,WORD...][;...]. New faults replace those that are there. hvpipe-hmc has faults of its own, see
`hvpipe-hmc --fault` in hvpipe-hmc(1).
"""

import argparse
import os

from .errors import LabError
from .machine import MACHINES
from .paths import TOP
from .qmp import Qmp

GRAMMAR = TOP / "qemu/docs/specs/ppc-spapr-hvpipe.rst"


def grammar() -> str:
    """The section on fault injection in the device's specification."""
    text = GRAMMAR.read_text(encoding="utf-8")
    return text[text.index("Fault injection\n==="):text.index("Test and trace\n===")].rstrip()


def connect(path) -> Qmp | None:
    """Connect to the control socket PATH; returns None if no machine has it."""
    try:
        return Qmp.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except TimeoutError:
        raise LabError(f"{path}: no answer: another program uses this socket, or it is not a QMP socket") from None
    except (OSError, ValueError) as error:
        raise LabError(f"{path}: {error}") from None


def find_machine(name: str | None) -> Qmp:
    """Connect to the machine NAME, or to the only one."""
    running = {path.stem: qmp for path in sorted(MACHINES.glob("*.qmp")) if (qmp := connect(path))}
    where = f"of this checkout (a control socket in {os.path.relpath(MACHINES)})"
    if name and name not in running:
        raise LabError(f"no machine '{name}' {where} runs; running: {', '.join(running) or 'none'}")
    if not running:
        raise LabError(f"no machine {where} runs: start one with `make shell`, or give --qmp SOCKET")
    if not name and len(running) > 1:
        raise LabError(f"several machines run, choose one with --machine: {', '.join(running)}")
    return running[name or next(iter(running))]


def find_pipe(qmp: Qmp) -> str:
    """The path of the machine's hypervisor pipe."""
    for parent in ("/machine/peripheral", "/machine/peripheral-anon"):
        for item in qmp.execute("qom-list", path=parent):
            if item["type"] == "child<spapr-hvpipe>":
                return f"{parent}/{item['name']}"
    raise LabError("the machine has no hypervisor pipe: it needs -device spapr-hvpipe")


def add_arguments(parser: argparse.ArgumentParser):
    """The command line."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("faults", nargs="?", metavar="FAULTS", help="the faults from now on")
    what.add_argument("--clear", action="store_true", help="remove all faults")
    what.add_argument("--list", action="store_true", help="list all kinds of faults, with their grammar")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--machine", metavar="NAME", help="a machine of this checkout: shell, run or a test's; not "
                                                         "needed if only one runs")
    which.add_argument("--qmp", metavar="SOCKET", help="any machine, by its QMP socket")


def main(arguments: argparse.Namespace) -> int:
    """Do it, and show the faults that are there now."""
    if arguments.list:
        print(grammar())
        return 0
    qmp = connect(arguments.qmp) if arguments.qmp else find_machine(arguments.machine)
    if not qmp:
        raise LabError(f"{arguments.qmp}: no machine listens on this socket")
    pipe = find_pipe(qmp)
    try:
        if arguments.clear or arguments.faults is not None:
            qmp.set(pipe, "inject", arguments.faults or "")
        print(qmp.get(pipe, "inject") or "no faults")
    except LabError as error:
        raise LabError(str(error).removeprefix("QMP qom-set: ")) from None
    return 0
