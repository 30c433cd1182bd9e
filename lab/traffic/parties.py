# SPDX-License-Identifier: GPL-2.0-or-later
"""Senders and receivers of generated traffic: HMCs that may be restarted at random, and peers in the partition."""

import math
import random
import re
import subprocess
import threading
import time
from typing import NamedTuple

from .. import HVPIPE_HMC, LIMIT, LOGS, LabError, Stream, source_id
from .messages import Inbox, Stamp


class TrafficHmc:
    """An HMC on one source, and a thread that may restart it at random. Its state file survives the restarts."""

    def __init__(self, traffic, source: str):
        self.traffic, self.source = traffic, source
        self.random = random.Random(f"{traffic.seed} {source}")
        self.state = traffic.scratch / f"{source}.state"
        self.log = LOGS / f"{traffic.name}-{source}.log"
        self.log.unlink(missing_ok=True)
        self.kills = self.ends = 0
        self.process = self.err = self.failure = None
        self.thread = threading.Thread(target=self._guarded, daemon=True)

    def _guarded(self):
        """The thread: keep its error for the main thread, which looks for it."""
        try:
            self.live()
        except BaseException as error:   # pylint: disable=broad-except
            self.failure = error

    def live(self):
        """Run the HMC, restarting it, until all traffic is sent and received."""
        raise NotImplementedError

    def spawn(self, command: str):
        """Start hvpipe-hmc."""
        addresses = [word for address in self.traffic.partition.addresses(self.source) for word in ("-c", address)]
        self.process = subprocess.Popen(
            [HVPIPE_HMC, *addresses, "--state", self.state, command], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if command == "console" else subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.err = Stream(self.process.stderr, f"HMC {self.source}'s errors", self.log)

    def next_end(self) -> float:
        """The time of the next restart."""
        return time.monotonic() + self.random.uniform(0.3, 2 * self.traffic.pause) if self.traffic.pause else math.inf

    def end_process(self):
        """Kill or terminate the process, and wait a moment."""
        if self.random.random() < 0.6:
            self.kills += 1
            self.process.kill()
        else:
            self.ends += 1
            self.process.terminate()
        self.process.wait(LIMIT)
        self.close_files()
        time.sleep(self.random.choice([0, 0, 0.05, 0.3]))

    def close_files(self):
        """Read the rest of the ended process's output and close its files."""
        self.err.wait_end()
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            if file:
                try:
                    file.close()
                except OSError:
                    pass

    def check_running(self):
        """Fail if the process has ended by itself."""
        if self.process.poll() is not None:
            raise LabError(f"{self.source}: hvpipe-hmc ended by itself with status {self.process.returncode}:\n"
                           f"{self.err.text[-2000:]}")

    def status(self) -> tuple[int, int]:
        """Ask the console how many messages it received, and how many it sent or has queued."""
        self.process.stdin.write(b"/status\n")
        self.process.stdin.flush()
        answer = self.err.wait_for(r"received: +(\d+)\n(?:.*\n)*?.*sent: +(\d+), of which")
        return int(answer[1]), int(answer[2])

    def close(self):
        """End it for good."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Echo(TrafficHmc):
    """hmc3 answers by itself. At the end a console on its state tells its counts and delivers its last answers."""

    received = queued = None

    def live(self):
        self.spawn("echo")
        end = self.next_end()
        while not self.traffic.sent_all.wait(0.05):
            self.check_running()
            if time.monotonic() > end:
                self.end_process()
                self.spawn("echo")
                end = self.next_end()
        self.process.terminate()
        self.process.wait(LIMIT)
        self.close_files()
        self.spawn("console")
        self.received, self.queued = self.status()
        self.process.stdin.close()
        self.traffic.wait_end(self)


class Talker(TrafficHmc):
    """hmc1 and hmc2 type QUOTA numbered messages and read those that come."""

    def __init__(self, traffic, source: str, quota: int):
        super().__init__(traffic, source)
        self.quota = quota
        self.typed = 0
        self.stamp = Stamp(traffic.key, source_id(source), "H")
        self.inbox = Inbox(Stamp(traffic.key, source_id(source), "P"))
        self.printed_again = self.link_last = 0
        self.line_last = b""
        self.reader = None

    def start_console(self) -> int:
        """Start it, and a reader of its output; returns the number of the next message to type."""
        self.spawn("console")
        self.reader = threading.Thread(target=self.read, args=[self.process.stdout], daemon=True)
        self.reader.start()
        self.typed = self.status()[1]
        return self.typed + 1

    def read(self, stdout):
        """Take each message that one process prints."""
        fresh = True
        for line in stdout:
            match = re.fullmatch(rb"\[(\d+)\] (\d+) bytes?: (.*)\n", line)
            if not match:
                if line.endswith(b"\n"):
                    self.inbox.bad += 1
                continue    # else truncated by a kill
            number = int(match[1])
            if fresh and number == self.link_last and line == self.line_last:
                self.printed_again += 1
            else:
                # Printed but not recorded, and its sender was killed, too: the next message reuses the number.
                reused = fresh and number == self.link_last
                if not (reused or number == self.link_last + 1) or int(match[2]) != len(match[3]):
                    self.traffic.say(f"{self.source}: message {number} came after {self.link_last}: {line[:100]!r}")
                    self.inbox.bad += 1
                self.inbox.take(match[3])
            self.link_last, self.line_last = number, line
            fresh = False

    def close_files(self):
        self.reader.join(LIMIT)
        super().close_files()

    def live(self):
        number = self.start_console()
        end = self.next_end()
        while number <= self.quota or not self.traffic.sent_all.is_set():
            if time.monotonic() > end:
                self.end_process()
                number = self.start_console()
                end = self.next_end()
            elif number <= min(self.quota, self.inbox.last + self.traffic.ahead):
                self.process.stdin.write(self.stamp.make(number) + b"\n")
                self.process.stdin.flush()
                self.typed, number = number, number + 1
                if self.random.random() < 0.02:
                    time.sleep(self.random.uniform(0, 0.02))
            else:
                self.traffic.sent_all.wait(0.01)
            self.check_running()
        self.process.stdin.close()
        self.traffic.wait_end(self)
        self.reader.join(LIMIT)


class Dump(NamedTuple):
    """What a peer knows of single messages."""
    tried: int                  # numbers 1 to this were sent, or may have been
    unknown: set[int]           # sends cut off by a kill
    doubts: dict[int, int]      # {number: how often its send failed with EPIPE or ENXIO}
    ranges: list[list[int]]     # numbers received


class Peer:
    """guest/soak-peer.c on one source in the partition."""

    def __init__(self, traffic, source: str, quota: int, echo: bool):
        self.traffic, self.source = traffic, source
        self.file = f"/tmp/peer-{source}"
        self.command = (f"exec soak-peer run {self.file} {source_id(source):#x} {traffic.key} {quota} {int(echo)} "
                        f"{traffic.close_mean}")
        self.kills = 0
        self.said = ""
        self.running = traffic.partition.start(self.command)

    def kill(self):
        """Kill it and start it again."""
        self.kills += 1
        self.said += self.running.kill().stdout
        time.sleep(self.traffic.random.choice([0, 0, 0.05, 0.2]))
        self.running = self.traffic.partition.start(self.command)

    def stop_sending(self):
        """Make it only receive from now on."""
        self.running.signal("USR1")

    def stop(self):
        """Make it read what is pending, and end."""
        self.said += self.running.stop().check()

    def dump(self) -> Dump:
        """What it knows of single messages."""
        text = self.traffic.partition.check(f"soak-peer dump {self.file}")
        return Dump(int(re.search(r"next (\d+)", text)[1]) - 1,
                    {int(number) for number in re.findall(r"unknown (\d+)", text)},
                    {int(number): int(times) for number, times in re.findall(r"doubt (\d+) (\d+)", text)},
                    [[int(first), int(last)] for first, last in re.findall(r"range (\d+) (\d+)", text)])
