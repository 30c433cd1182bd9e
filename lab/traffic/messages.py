# SPDX-License-Identifier: GPL-2.0-or-later
"""The messages of generated traffic: made, recognised, and collected."""

import re
import zlib
from collections import Counter

from ..machine import PAYLOAD_LIMIT

MASK = 2 ** 64 - 1
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
HEAD = 40       # bytes of CRC, source, direction, number and size
AHEAD = 1000    # numbers to look ahead for a short message


def mix(x: int) -> int:
    """SplitMix64, as in guest/soak-peer.c."""
    x = (x + 0x9e3779b97f4a7c15) & MASK
    x = ((x ^ x >> 30) * 0xbf58476d1ce4e5b9) & MASK
    x = ((x ^ x >> 27) * 0x94d049bb133111eb) & MASK
    return x ^ x >> 31


def fill(size: int, seed: int) -> bytes:
    """SIZE bytes that follow from SEED; they repeat after 640."""
    letters = bytearray()
    for i in range((min(size, 640) + 9) // 10):
        x = mix((seed + 1 + i) & MASK)
        letters += bytes([LETTERS[x >> shift & 63] for shift in range(0, 60, 6)])
    return bytes((letters[:640] * (size // 640 + 1))[:size])


class Stamp:
    """Makes and recognises the messages of one source in one direction: P from the partition or H from the HMC."""

    def __init__(self, key: int, source: int, direction: str):
        self.key, self.source, self.direction = key, source, direction
        self.form = re.compile(rb"([0-9a-f]{8}):%08x:%c:(\d{10}):(\d{4}):" % (source, ord(direction)))

    def seed(self, number: int) -> int:
        """The seed of message NUMBER."""
        return mix(self.key ^ mix(self.source << 32 | number) ^ ord(self.direction))

    @staticmethod
    def size(seed: int) -> int:
        """The size of the message with this seed."""
        x = mix(seed)
        kind = x % 32
        return 1 + (x >> 8) % 64 if kind == 0 else PAYLOAD_LIMIT if kind == 1 else 1 + (x >> 8) % PAYLOAD_LIMIT

    def make(self, number: int) -> bytes:
        """Message NUMBER."""
        seed = self.seed(number)
        size = self.size(seed)
        data = fill(size, seed)
        if size < HEAD:
            return data
        head = b":%08x:%c:%010d:%04d:" % (self.source, ord(self.direction), number, size)
        data = head + data[8 + len(head):]
        return b"%08x" % zlib.crc32(data) + data

    def identify(self, data: bytes, last: int) -> int:
        """The number of message DATA, which came after message LAST; 0 if it is not of this source and direction."""
        if len(data) >= HEAD:
            match = self.form.match(data)
            if not match or int(match[1], 16) != zlib.crc32(data[8:]) or int(match[3]) != len(data):
                return 0
            return int(match[2])
        for number in (last + 1, last, *range(last + 2, last + AHEAD)):
            seed = self.seed(number)
            if self.size(seed) == len(data) and fill(len(data), seed) == data:
                return number
        return 0


class Inbox:
    """The messages that arrived, in order: ranges of numbers, and how many others came."""

    def __init__(self, stamp: Stamp):
        self.stamp = stamp
        self.ranges = []
        self.last = self.count = self.bad = 0
        self.repeated = Counter()   # {number: how often it arrived again}

    def take(self, data: bytes) -> int:
        """Add the message DATA; returns its number."""
        number = self.stamp.identify(data, self.last)
        if number > self.last:
            if self.ranges and number == self.last + 1:
                self.ranges[-1][1] = number
            else:
                self.ranges.append([number, number])
            self.last = number
            self.count += 1
        elif any(first <= number <= last for first, last in self.ranges):
            self.repeated[number] += 1
        else:
            self.bad += 1
        return number

    def missing(self, sent: int) -> set[int]:
        """The numbers up to SENT that did not arrive."""
        absent, at = set(), 1
        for first, last in [*self.ranges, [sent + 1, sent + 1]]:
            absent.update(range(at, min(first, sent + 1)))
            at = last + 1
        return absent
