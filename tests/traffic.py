# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic through a partition, every message accounted for: what `make soak` and `make migrate` have in common.

Four sources. hmc1 and hmc2 are `hvpipe-hmc --state console`: each line that we type is a message to the partition, and
each line it prints one from there. hmc3 is `hvpipe-hmc --state echo`. hmc4 is answered by the hypervisor itself. In the
partition tests/soak-peer.c has each source open. Sizes are 1 to 4088.

Every message has a number in its source and direction, and carries both with its number, its size and a CRC-32 of all
that. One shorter than 40 bytes has no room for them: its size and bytes follow from these by a hash, and it is known by
being the next one that looks so. Who receives sees numbers grow by one, but for gaps, and anything else is an error.

How each case is judged:

- A write() in the partition that succeeded: sent. The HMC must get it once, else it is lost or duplicated.
- A write() that failed with EPIPE: the same bytes are sent until they succeed; they count once.
- A write() under way when its process was killed: nobody there knows whether it was sent. It is not sent again. If the
  HMC got it, it counts as sent and received, else not at all. The peer keeps a list of these in a mapped file.
- A read() that was done when its process was killed, but not counted: the message is in the mapped file, and the next
  run counts it.
- A line typed to an HMC that was killed before it took the line into its state: the restarted HMC says how many it has,
  and we go on behind them. What it has is sent.
- A line that an HMC printed before it was killed, but did not record: hvpipe-hmc.1 says that it is printed again, with
  the same number in its brackets. That one, directly behind a restart, counts once. A line cut off does not count.
- A message to the partition that did not arrive: dropped at close, as far as the driver dropped so many of its source.
  If more are missing, these are lost; if fewer, some were dropped and received: duplicated. The driver's trace event
  tells of each one that it dropped, and these must be as many as its counter says.
- hmc3 shows what it took only by its answers. In the end its state file tells how many it took, and that must be what
  was sent for sure and at most the unknown ones besides.
- hmc4 took what the hypervisor said that it took, and of the unknown ones those whose answers were received or dropped.
  An answer to one that is unknown is not missed: nobody knows that there was one.
- Misrouted: a message that came to anybody for whom it was not meant, or that was never sent, or out of order, or with
  a wrong checksum.
- A stall: nothing arrived or was dropped for 60 s while there was work to do. It ends the traffic, and what had not
  arrived by then counts as lost, but for hmc3's part, which cannot be asked then.
"""

import math
import random
import re
import subprocess
import threading
import time
import zlib
from pathlib import Path

from lab import BUILD, LIMIT, SPLAT, TOP, LabError, Stream, initrd_with, source_id

MASK = 2 ** 64 - 1
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MAX, HEAD = 4088, 40
STALL = 60      # seconds without progress
DROP = "papr_hvpipe_drop"
DROPS_KB = 8192     # of trace, for each processor: 300,000 messages dropped, where a million sent have some 15,000
PROGRESS = 3    # seconds between lines


def mix(x):
    """SplitMix64, as in soak-peer.c."""
    x = (x + 0x9e3779b97f4a7c15) & MASK
    x = ((x ^ x >> 30) * 0xbf58476d1ce4e5b9) & MASK
    x = ((x ^ x >> 27) * 0x94d049bb133111eb) & MASK
    return x ^ x >> 31


def fill(size, seed):
    """SIZE bytes that follow from SEED; they repeat after 640."""
    letters = bytearray()
    for i in range((min(size, 640) + 9) // 10):
        x = mix((seed + 1 + i) & MASK)
        letters += bytes([LETTERS[x >> shift & 63] for shift in range(0, 60, 6)])
    return bytes((letters[:640] * (size // 640 + 1))[:size])


class Stamp:
    """Makes and knows the messages of one source in one direction, P from the partition or H from the HMC."""

    def __init__(self, key, source, direction):
        self.key, self.source, self.direction = key, source, direction
        self.form = re.compile(rb"([0-9a-f]{8}):%08x:%c:(\d{10}):(\d{4}):" % (source, ord(direction)))

    def seed(self, number):
        """Message NUMBER's seed."""
        return mix(self.key ^ mix(self.source << 32 | number) ^ ord(self.direction))

    @staticmethod
    def size(seed):
        """The size that follows from a message's seed."""
        x = mix(seed)
        kind = x % 32
        return 1 + (x >> 8) % 64 if kind == 0 else MAX if kind == 1 else 1 + (x >> 8) % MAX

    def make(self, number):
        """Message NUMBER."""
        seed = self.seed(number)
        size = self.size(seed)
        data = fill(size, seed)
        if size < HEAD:
            return data
        head = b":%08x:%c:%010d:%04d:" % (self.source, ord(self.direction), number, size)
        data = head + data[8 + len(head):]
        return b"%08x" % zlib.crc32(data) + data

    def identify(self, data, last):
        """The number of message DATA, which comes behind LAST; 0 if it is none of ours."""
        if len(data) >= HEAD:
            match = self.form.match(data)
            if not match or int(match[1], 16) != zlib.crc32(data[8:]) or int(match[3]) != len(data):
                return 0
            return int(match[2])
        for number in range(last + 1, last + 1000):
            seed = self.seed(number)
            if self.size(seed) == len(data) and fill(len(data), seed) == data:
                return number
        return 0


class Inbox:
    """What arrived, in order: ranges of numbers."""

    def __init__(self, stamp):
        self.stamp = stamp
        self.ranges = []
        self.last = self.count = self.duplicated = self.bad = 0

    def take(self, data):
        """DATA arrived; returns its number."""
        number = self.stamp.identify(data, self.last)
        if number > self.last:
            if self.ranges and number == self.last + 1:
                self.ranges[-1][1] = number
            else:
                self.ranges.append([number, number])
            self.last = number
            self.count += 1
        elif any(first <= number <= last for first, last in self.ranges):
            self.duplicated += 1
        else:
            self.bad += 1
        return number

    def missing(self, sent):
        """The numbers up to SENT that did not arrive."""
        absent, at = set(), 1
        for first, last in [*self.ranges, [sent + 1, sent + 1]]:
            absent.update(range(at, min(first, sent + 1)))
            at = last + 1
        return absent


class TrafficHmc:
    """An HMC on one source with a thread that may restart it at random. What it keeps survives in its state file."""

    def __init__(self, traffic, source):
        self.traffic, self.source = traffic, source
        self.random = random.Random(f"{traffic.seed} {source}")
        self.state = traffic.scratch / f"{source}.state"
        self.log = BUILD / f"logs/{traffic.name}-{source}.log"
        self.log.unlink(missing_ok=True)
        self.kills = self.ends = 0
        self.process = self.err = self.failure = self.taken = self.queued = None
        self.thread = threading.Thread(target=self.guarded, daemon=True)

    def guarded(self):
        """The thread: an error in it must end the soak."""
        try:
            self.live()
        except BaseException as error:   # pylint: disable=broad-except
            self.failure = error

    def spawn(self, command):
        """Start the program."""
        places = [word for address in self.traffic.partition.addresses(self.source) for word in ("-c", address)]
        self.process = subprocess.Popen(
            [BUILD / "host/tools/hvpipe-hmc", *places, "--state", self.state, command], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if command == "console" else subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.err = Stream(self.process.stderr, f"HMC {self.source}'s errors", self.log)

    def next_end(self):
        """When to end it the next time."""
        return time.monotonic() + self.random.uniform(0.3, 2 * self.traffic.pause) if self.traffic.pause else math.inf

    def end_it(self):
        """End the process one way or the other, and leave it so for a moment."""
        if self.random.random() < 0.6:
            self.kills += 1
            self.process.kill()
        else:
            self.ends += 1
            self.process.terminate()
        self.process.wait(LIMIT)
        self.gone()
        time.sleep(self.random.choice([0, 0, 0.05, 0.3]))

    def gone(self):
        """The process has ended: see to its files."""
        self.err.wait_end()
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            if file:
                try:
                    file.close()
                except OSError:
                    pass

    def status(self):
        """Ask the console how many messages it took, and how many it has or had to send."""
        self.process.stdin.write(b"/status\n")
        self.process.stdin.flush()
        told = self.err.wait_for(r"received: +(\d+)\n(?:.*\n)*?.*sent: +(\d+), of which")
        return int(told[1]), int(told[2])

    def close(self):
        """End it for good."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Echo(TrafficHmc):
    """hmc3. It answers by itself; in the end a console on its state sees its last answers off."""

    def live(self):
        """Its life."""
        self.spawn("echo")
        end = self.next_end()
        while not self.traffic.sent_all.wait(0.05):
            if self.process.poll() is not None:
                raise LabError(f"{self.source}: echo ended by itself:\n{self.err.text[-2000:]}")
            if time.monotonic() > end:
                self.end_it()
                self.spawn("echo")
                end = self.next_end()
        self.process.terminate()
        self.process.wait(LIMIT)
        self.gone()
        self.spawn("console")
        self.taken, self.queued = self.status()
        self.process.stdin.close()
        self.traffic.wait_end(self)


class Talker(TrafficHmc):
    """hmc1, hmc2. Types QUOTA numbered messages and reads those that come."""

    def __init__(self, traffic, source, quota):
        super().__init__(traffic, source)
        self.quota = quota
        self.typed = 0
        self.stamp = Stamp(traffic.key, source_id(source), "H")
        self.inbox = Inbox(Stamp(traffic.key, source_id(source), "P"))
        self.again = self.link_last = 0
        self.line_last = b""
        self.reader = None

    def start_console(self):
        """Start it, read from it; returns the number of the next message to type."""
        self.spawn("console")
        self.reader = threading.Thread(target=self.read, args=[self.process.stdout], daemon=True)
        self.reader.start()
        self.typed = self.status()[1]
        return self.typed + 1

    def read(self, stdout):
        """Take each message printed, from one process."""
        fresh = True
        for line in stdout:
            match = re.fullmatch(rb"\[(\d+)\] (\d+) bytes?: (.*)\n", line)
            if not match:
                if line.endswith(b"\n"):
                    self.inbox.bad += 1
                continue    # else cut off by a kill
            number = int(match[1])
            if fresh and number == self.link_last and line == self.line_last:
                self.again += 1
            else:
                # Printed, killed before the state said so, and its sender killed too: the next one has its number.
                replaced = fresh and number == self.link_last
                if not (replaced or number == self.link_last + 1) or int(match[2]) != len(match[3]):
                    self.traffic.say(f"{self.source}: message {number} came behind {self.link_last}: {line[:100]!r}")
                    self.inbox.bad += 1
                self.inbox.take(match[3])
            self.link_last, self.line_last = number, line
            fresh = False

    def gone(self):
        self.reader.join(LIMIT)
        super().gone()

    def live(self):
        """Its life."""
        number = self.start_console()
        end = self.next_end()
        while number <= self.quota or not self.traffic.sent_all.is_set():
            if time.monotonic() > end:
                self.end_it()
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
            if self.process.poll() is not None:
                raise LabError(f"{self.source}: console ended by itself:\n{self.err.text[-2000:]}")
        self.process.stdin.close()
        self.traffic.wait_end(self)
        self.reader.join(LIMIT)


class Peer:
    """soak-peer in the partition."""

    def __init__(self, traffic, source, quota, echo):
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

    def quiet(self):
        """Have it send no more."""
        self.running.signal("USR1")

    def stop(self):
        """Have it read what is there, and end."""
        self.said += self.running.stop().check()

    def dump(self):
        """Numbers tried, the set of unknown ones, and ranges received."""
        text = self.traffic.partition.check(f"soak-peer dump {self.file}")
        return (int(re.search(r"next (\d+)", text)[1]) - 1, {int(n) for n in re.findall(r"unknown (\d+)", text)},
                [[int(a), int(b)] for a, b in re.findall(r"range (\d+) (\d+)", text)])


class Traffic:
    """One run on a partition of its own."""

    name = "traffic"
    pause = None        # seconds, mean, between restarts of one HMC; None: they are left alone
    close_mean = 0      # messages between closes of a handle; 0: it stays open
    ahead = 300         # of the other direction's messages, that an HMC types

    def __init__(self, lab, seed):
        self.lab, self.seed = lab, seed
        self.random = random.Random(f"{seed} soak")
        self.key = self.random.getrandbits(64)
        self.start = time.monotonic()
        # Not for the disk's sake: what a kill leaves is the same in memory, and that is faster.
        shm = Path("/dev/shm")
        self.memory = subprocess.run(["mktemp", "-d", "-p", shm if shm.is_dir() else lab.directory], check=True,
                                     stdout=subprocess.PIPE, text=True).stdout.strip()
        self.scratch = Path(self.memory)
        self.sent_all = threading.Event()
        self.hmcs, self.peers = [], []
        self.partition = None
        self.progress = -1
        self.moved = self.start     # when something arrived last

    def say(self, text):
        """One line of progress."""
        print(f"{self.name}: [{time.monotonic() - self.start:5.1f} s] {text}", flush=True)

    def boot(self, **how):
        """Start the partition."""
        initrd = initrd_with(self.lab.scratch(self.name), "soak-peer",
                             (TOP / "tests/soak-peer.c").read_text(encoding="utf-8"))
        options = [*how.pop("options", ()), "-initrd", initrd]
        self.partition = self.lab.partition(name=self.name, sources=["hmc1", "hmc2", "hmc3"], echo=["hmc4"],
                                            options=options, **how)
        # Nobody sends yet, so none is missed.
        self.partition.check(f"cd /sys/kernel/tracing && echo {DROPS_KB} >buffer_size_kb && "
                             f"echo 1 >events/papr_hvpipe/{DROP}/enable")
        self.say(f"partition up; SEED={self.seed}")

    def begin(self, to_partition, to_sources):
        """Start the peers, which send so many messages each, and the HMCs, of which two send so many."""
        self.peers = [Peer(self, f"hmc{n}", quota, n > 2) for n, quota in enumerate(to_sources, 1)]
        self.partition.check("until hvpipe status | grep -q ' 4 sources open'; do :; done")
        self.hmcs = [Talker(self, "hmc1", to_partition), Talker(self, "hmc2", to_partition), Echo(self, "hmc3")]
        for hmc in self.hmcs:
            hmc.thread.start()
        self.moved = time.monotonic()

    def wait_end(self, hmc):
        """Wait for the good end of an HMC whose input has ended; the main thread looks after stalls."""
        if hmc.process.wait() != 0:
            raise LabError(f"{hmc.source}: ended with status {hmc.process.returncode}:\n{hmc.err.text[-2000:]}")
        hmc.err.wait_end()

    def status(self):
        """Of the peers, the rows of counts that soak-peer prints; and what the driver dropped."""
        text = self.partition.check("soak-peer status " + " ".join(peer.file for peer in self.peers)
                                    + " && hvpipe status")
        rows = [[int(word) for word in line.split()] for line in text.splitlines()[:len(self.peers)]]
        return rows, int(re.search(r"(\d+) messages dropped", text)[1])

    def drops(self):
        """What the driver dropped, by source, as its trace has it."""
        text = self.partition.check(
            "cd /sys/kernel/tracing && hvpipe status && cat per_cpu/cpu*/stats && "
            f"awk '/{DROP}: / {{ n[$(NF - 1)]++ }} END {{ for (of in n) print of, n[of] }}' trace && hvpipe status")
        before, after = (int(count) for count in re.findall(r"(\d+) messages dropped", text))
        drops = {int(source, 16): int(count) for source, count in re.findall(r"^source=(\w+) (\d+)$", text, re.M)}
        if re.search(r"^(commit )?overrun: *[1-9]|^dropped events: *[1-9]", text, re.M):
            raise LabError(f"the partition's trace has lost events, DROPS_KB is too small:\n{text}")
        # Some may have been dropped while we looked.
        if not before <= sum(drops.values()) <= after:
            raise LabError(f"the driver counts {before} messages dropped, then {after}, but traced {drops}")
        if drops.keys() - {source_id(peer.source) for peer in self.peers}:
            raise LabError(f"the driver dropped messages of sources that nobody has: {drops}")
        return drops

    def look(self):
        """See that all is well; returns status(), and how many messages were received."""
        for one in self.peers:
            if not one.running.running:
                raise LabError(f"the peer on {one.source} ended with status {one.running.status}:\n"
                               f"{one.running.stdout}")
        for hmc in self.hmcs:
            if hmc.failure:
                raise hmc.failure
        rows, dropped = self.status()
        arrived = sum(row[2] + row[7] for row in rows) + sum(row[0] for row in rows)
        if arrived + dropped != self.progress:
            self.progress, self.moved = arrived + dropped, time.monotonic()
        return rows, dropped, arrived

    @property
    def stalled(self):
        """Whether nothing arrived for so long that nothing will."""
        return time.monotonic() - self.moved > STALL

    @property
    def all_in(self):
        """Whether all that HMCs sent is in the partition. What the hypervisor echoes may still come."""
        return self.sent_all.is_set() and not any(hmc.thread.is_alive() for hmc in self.hmcs)

    def account(self):
        """Judge; returns what was sent, received, dropped, lost, duplicated and misrouted."""
        drops = self.drops()
        rows = self.status()[0]
        sent = received = lost = duplicated = misrouted = unknown_all = delivered = 0
        for index, (peer, row) in enumerate(zip(self.peers, rows)):
            tried, unknown, ranges = peer.dump()
            hmc = self.hmcs[index] if index < 3 else None
            got_in = sum(last - first + 1 for first, last in ranges)
            dropped = drops.get(source_id(peer.source), 0)
            misrouted += row[3]
            if isinstance(hmc, Talker):
                missing = hmc.inbox.missing(tried)
                lost_here = missing - unknown
                came, sent_in = hmc.inbox.count, hmc.typed
                unknown_here = len(unknown) - len(missing & unknown)
                sent_here = tried - len(missing & unknown)
                duplicated += hmc.inbox.duplicated
                misrouted += hmc.inbox.bad + (hmc.inbox.last > tried)
                lost_here = len(lost_here)
            else:
                sure = tried - len(unknown)
                answered = sum(any(first <= number <= last for first, last in ranges) for number in unknown)
                if not hmc:
                    came = min(max(got_in + dropped, sure + answered), tried)
                elif hmc.taken is None:     # stalled: nobody asked hmc3
                    came = sure
                else:
                    came = hmc.taken
                lost_here = max(0, sure - came)
                duplicated += max(0, came - tried)
                unknown_here = max(0, min(came, tried) - sure)
                sent_here = sure + unknown_here
                sent_in = came
                if hmc and hmc.queued is not None and hmc.queued != came:
                    misrouted += abs(hmc.queued - came)
            if ranges and ranges[-1][1] > (tried if index > 1 else sent_in):
                misrouted += 1
            lost_here += max(0, sent_in - got_in - dropped)
            duplicated += max(0, got_in + dropped - sent_in)
            sent += sent_here + sent_in
            received += came + got_in
            lost += lost_here
            unknown_all += len(unknown)
            delivered += unknown_here
            self.say(f"{peer.source}: {sent_here} sent and {came} taken by the HMC; {sent_in} from there and {got_in} "
                     f"received, {dropped} dropped; EPIPE {row[5]} times, ENXIO {row[9]}, {row[6]} losses told, "
                     f"{row[4]} times reopened, {peer.kills} times killed")
            if peer.said.replace("Killed\n", ""):
                self.say(f"{peer.source} said: {peer.said[:2000]}")
        self.say(f"sends cut off by a kill: {unknown_all}, of which {delivered} were delivered; received and counted "
                 f"after a kill: {sum(row[7] for row in rows)}; printed again after a kill: "
                 f"{sum(hmc.again for hmc in self.hmcs[:2])}")
        said = self.partition.console.text
        if SPLAT.search(said):
            raise LabError(f"the kernel complained:\n{said[-4000:]}")
        return sent, received, sum(drops.values()), lost, duplicated, misrouted

    def close(self):
        """End the HMCs and remove their states."""
        for hmc in self.hmcs:
            hmc.close()
        subprocess.run(["rm", "-rf", self.memory], check=False)
