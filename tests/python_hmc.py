#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A script with the module hvpipe_hmc: the commands of hvpipe-hmc(1) that test_link.py runs."""

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools/hmc"))
from hvpipe_hmc import Closed, Hmc, Refused  # noqa: E402


def say(line):
    """Tell people."""
    print(f"python_hmc: {line}", file=sys.stderr, flush=True)


def refuse(_message):
    """Take nothing."""
    raise Refused


async def echo(arguments):
    """Answer each message with itself, until a signal."""
    async with Hmc(arguments.connect, notice=say, take=lambda message: message) as hmc:
        await hmc.receive()         # which never returns


async def send(arguments):
    """Send each file as a message; end when the partition has taken them."""
    async with Hmc(arguments.connect, notice=say, take=refuse) as hmc:
        await asyncio.gather(*(hmc.send(Path(name).read_bytes()) for name in arguments.file))


async def recv(arguments):
    """Write so many messages to standard output; later ones stay with the hypervisor."""
    left, done = arguments.count, asyncio.Event()

    def take(message):
        nonlocal left
        sys.stdout.buffer.write(message)
        sys.stdout.buffer.flush()
        left -= 1
        if not left:
            hmc.leave()
            done.set()
    async with Hmc(arguments.connect, notice=say, take=take) as hmc:
        await done.wait()


def main() -> int:
    """The command line of hvpipe-hmc, as far as it is needed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-v", action="store_true")
    parser.add_argument("-c", dest="connect", required=True)
    parser.add_argument("command", choices=("echo", "send", "recv"))
    parser.add_argument("-n", dest="count", type=int)
    parser.add_argument("file", nargs="*")
    arguments = parser.parse_args()

    command = {"echo": echo, "send": send, "recv": recv}[arguments.command]

    async def run():
        task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await command(arguments)
    try:
        asyncio.run(run())
    except (Closed, OSError) as error:
        say(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
