# SPDX-License-Identifier: GPL-2.0-or-later
"""An HMC in Python: one source of a partition's hypervisor pipe, for scripts and tests.

    async with Hmc("hmc1.sock") as hmc:
        await hmc.send(b"hello")        # returns when the partition has taken it
        answer = await hmc.receive()

It was written from the page ppc-spapr-hvpipe.rst alone, and uses its words: sent, queued, taken, refused. The session
lives in a Session: with it another Hmc of the same script goes on. hvpipe-hmc(1) keeps its session in a file.
"""

import asyncio
import contextlib
import secrets
import socket
import struct
from collections import deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field

VERSION = 2
MESSAGE, ACK, NACK, STATE, CLOSE = 1, 2, 3, 4, 5
REASONS = ("done", "malformed", "replaced", "no version", "no session", "no source")
DONE, MALFORMED, REPLACED, NO_VERSION, NO_SESSION, NO_SOURCE = range(len(REASONS))
ENABLED = 1                         # flag of the hypervisor's STATE
MAX_MESSAGE, MAX_TEXT = 4088, 252
MAX_WAITING = 1024                  # messages of the partition that wait here for receive(), or replies to send
RETRY = 0.25, 5.0                   # seconds until the next try to connect: at first, at most
HEADER = struct.Struct(">BBHIQ")
HMC_STATE = struct.Struct(">HHIQQQ")
HV_STATE = struct.Struct(">HHIIIQQQQ")
LENGTHS = {MESSAGE: (1, MAX_MESSAGE), ACK: (8, 8), STATE: (HV_STATE.size, MAX_MESSAGE), CLOSE: (4, 4 + MAX_TEXT)}


# The hypervisor's STATE
HvState = namedtuple("HvState", "lowest highest features source flags epoch taken queued credit")


class Closed(Exception):
    """The link was closed by a CLOSE: the hypervisor's, or ours because of what the hypervisor sent."""

    def __init__(self, reason: int, text: str, ours: bool = True):
        self.reason, self.text, self.ours = reason, text, ours
        # False if another connection with this session would have the same end
        self.passes = reason not in (NO_VERSION, NO_SESSION, NO_SOURCE)
        name = REASONS[reason] if reason < len(REASONS) else f"reason {reason}"
        who = "closed the link to the hypervisor" if ours else "the hypervisor closed the link"
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)  # nothing that a terminal would obey
        super().__init__(f"{who} ({name}): {shown}")


class Refused(Exception):
    """For a function that takes messages to raise: the partition's send fails with -4."""


def pack(kind: int, sequence: int = 0, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return HEADER.pack(VERSION, kind, len(payload), 0, sequence) + payload


def pack_hello(session: int, taken: int, first: int) -> bytes:
    """The HMC's STATE."""
    return pack(STATE, 0, HMC_STATE.pack(VERSION, VERSION, 0, session, taken, first))


def pack_close(reason: int, text: str) -> bytes:
    """A CLOSE."""
    return pack(CLOSE, 0, struct.pack(">I", reason) + text.encode()[:MAX_TEXT])


def unpack_header(data: bytes) -> tuple[int, int, int]:
    """Type, length and sequence of a frame of the hypervisor; raises Closed if the header is malformed."""
    version, kind, length, reserved, sequence = HEADER.unpack_from(data)
    low, high = LENGTHS.get(kind, (0, 0))
    for wrong, why in ((version != VERSION, "unknown version"), (kind not in LENGTHS, "unknown type"),
                       (not low <= length <= high, "length out of range"), (reserved, "reserved field not zero"),
                       (kind in (STATE, CLOSE) and sequence, "sequence not zero"),
                       (kind == MESSAGE and not sequence, "sequence zero")):
        if wrong:
            raise Closed(MALFORMED, f"{why} (version {version}, type {kind}, length {length}, reserved {reserved:#x}, "
                         f"sequence {sequence})")
    return kind, length, sequence


def unpack_state(payload: bytes) -> HvState:
    """The hypervisor's STATE; raises Closed if it cannot be used."""
    state = HvState(*HV_STATE.unpack_from(payload))
    if state.lowest <= state.highest and not state.lowest <= VERSION <= state.highest:
        raise Closed(NO_VERSION, f"versions {state.lowest} to {state.highest}, and the HMC speaks version {VERSION}")
    if (state.lowest > state.highest or not state.source or not state.epoch
            or not state.taken <= state.queued <= state.credit):
        raise Closed(MALFORMED, f"impossible {state}")
    return state


@dataclass
class Session:
    """The numbering of both directions, and the messages that the partition has not taken."""
    number: int = field(default_factory=lambda: 1 + secrets.randbelow(2 ** 64 - 1))
    taken: int = 0                  # last sequence that we have taken
    acknowledged: int = 0           # last sequence of ours that the partition has taken
    sent: int = 0                   # last sequence of ours that was ever sent
    source: int = 0                 # 0: not known yet
    epoch: int = 0                  # 0: not known yet
    waiting: deque = field(default_factory=deque)   # (message, its future or None), from acknowledged + 1 on


class Hmc:
    """An HMC at ADDRESS, a socket's path or HOST:PORT. It connects, and connects again, until it is closed.

    TAKE is called once with each message. What it returns, unless None, is sent as a reply; it may raise Refused. By
    default receive() returns the messages. NOTICE is called with lines for people.
    """

    def __init__(self, address: str, session: Session | None = None, notice: Callable[[str], object] = str,
                 take: Callable[[bytes], bytes | None] | None = None):
        self.address, self.session = address, session or Session()
        self.state: HvState | None = None           # of this connection
        self._messages: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING)
        self._take, self._notice = take or self._messages.put_nowait, notice
        self._due = asyncio.Event()                 # there may be something to write
        self._answer = self._last = b""             # to write first; to write at the end
        self._credit = self._next = 0               # highest sequence that we may send; the next one
        self._leaving = False

    async def __aenter__(self) -> "Hmc":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exception):
        self.leave()
        await asyncio.wait([self._task], timeout=2)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Closed):
            await self._task

    def leave(self):
        """Take nothing more. What was answered goes out, and the hypervisor reads it to the end."""
        self._leaving, self._last = True, pack_close(DONE, "")
        self._due.set()
        if not self.state:
            self._task.cancel()

    async def send(self, message: bytes):
        """Send a message of 1 to 4088 bytes; returns when the partition has taken it. Raises what ended the HMC."""
        taken = asyncio.get_running_loop().create_future()
        self._queue(message, taken)
        await self._unless_ended(taken)

    async def receive(self) -> bytes:
        """The next message of the partition. Raises what ended the HMC."""
        return await self._unless_ended(asyncio.ensure_future(self._messages.get()))

    async def _unless_ended(self, wanted: asyncio.Future):
        try:
            await asyncio.wait([wanted, self._task], return_when=asyncio.FIRST_COMPLETED)
            if wanted.done():
                return wanted.result()
        finally:
            wanted.cancel()
        if not self._leaving:
            self._task.result()
        raise ConnectionError(f"{self.address}: the HMC has left")

    def _queue(self, message: bytes, taken: asyncio.Future | None):
        if not 1 <= len(message) <= MAX_MESSAGE:
            raise ValueError(f"a message of {len(message)} bytes; 1 to {MAX_MESSAGE} are possible")
        self.session.waiting.append((bytes(message), taken))
        self._due.set()

    async def _connect(self):
        loop, (host, colon, port) = asyncio.get_running_loop(), self.address.rpartition(":")
        family, where = socket.AF_UNIX, self.address
        if colon and port.isdigit() and "/" not in host:
            family, _, _, _, where = (await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM))[0]
        with socket.socket(family) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, where)
            await self._talk(sock)

    async def _run(self):
        wait, quiet = RETRY[0], False
        while not self._leaving:
            why = "closed by the other side"
            try:
                await self._connect()
            except (Closed, OSError) as error:
                if isinstance(error, Closed) and not error.passes:
                    raise
                why = str(error)
            if self.state:
                wait, quiet, self.state = RETRY[0], False, None
            if not quiet and not self._leaving:
                self._notice(f"{self.address}: no connection: {why}; trying again")
            quiet = True
            await asyncio.sleep(0 if self._leaving else wait)
            wait = min(2 * wait, RETRY[1])

    async def _talk(self, sock: socket.socket):
        """A connection, from the hello on. We read at any time, so the writer is a task of its own."""
        session, stream = self.session, bytearray()
        self._answer = pack_hello(session.number, session.taken, session.acknowledged + 1)
        self._credit, self._next, self._last = 0, session.acknowledged + 1, b""
        self._due.set()
        writer = asyncio.create_task(self._write(sock))
        try:
            while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 16):
                stream += data
                while len(stream) >= HEADER.size:
                    kind, length, sequence = unpack_header(stream)
                    if len(stream) < HEADER.size + length:
                        break
                    self._frame(kind, sequence, bytes(stream[HEADER.size:HEADER.size + length]))
                    del stream[:HEADER.size + length]
        except Closed as closed:
            if closed.ours:
                self._last = pack_close(closed.reason, closed.text)
                self._due.set()
                await asyncio.wait([writer], timeout=1)
            raise
        finally:
            writer.cancel()
            await asyncio.wait([writer])

    async def _write(self, sock: socket.socket):
        with contextlib.suppress(OSError):          # what the other side said before it went is still to be read
            while await self._due.wait():
                self._due.clear()
                while data := self._next_frame():
                    await asyncio.get_running_loop().sock_sendall(sock, data)
                if self._last:
                    await asyncio.get_running_loop().sock_sendall(sock, self._last)
                    sock.shutdown(socket.SHUT_WR)
                    return

    def _next_frame(self) -> bytes:
        session, (frame, self._answer) = self.session, (self._answer, b"")
        place = self._next - session.acknowledged - 1
        if not frame and not self._last and self._next <= self._credit and place < len(session.waiting):
            frame = pack(MESSAGE, self._next, session.waiting[place][0])
            session.sent = max(session.sent, self._next)
            self._next += 1
        return frame

    def _frame(self, kind: int, sequence: int, payload: bytes):
        if kind == CLOSE:
            raise Closed(int.from_bytes(payload[:4], "big"), payload[4:].decode(errors="replace"), ours=False)
        if kind == STATE:
            self._take_state(unpack_state(payload))
        elif not self.state:
            raise Closed(MALFORMED, "the first frame is no STATE")
        elif kind == ACK:
            self._acknowledge(sequence, int.from_bytes(payload, "big"))
        elif sequence > self.session.taken + 1:
            raise Closed(MALFORMED, f"MESSAGE {sequence}, expected {self.session.taken + 1}")
        elif sequence <= self.session.taken:
            self._answer = pack(ACK, self.session.taken)
        elif not self._leaving:                     # else it has no answer, and stays with the hypervisor
            self._take_message(payload)
        self._due.set()

    def _take_state(self, state: HvState):
        session = self.session
        if state.queued > max(session.sent, session.acknowledged):
            raise Closed(NO_SESSION, f"message {state.queued} was queued, but the last one sent is {session.sent}")
        if session.source not in (0, state.source):
            raise Closed(NO_SOURCE, f"the session is that of source {session.source:#010x}, not {state.source:#010x}")
        if session.epoch not in (0, state.epoch):
            self._notice(f"{self.address}: the partition has booted")
        if not self.state:
            self._notice(f"{self.address}: connected to {state.source:#010x}, the partition has its pipe "
                         f"{'enabled' if state.flags & ENABLED else 'disabled'}")
            self._next = state.queued + 1
        session.source, session.epoch, self.state = state.source, state.epoch, state
        self._acknowledge(state.taken, state.credit)

    def _acknowledge(self, sequence: int, credit: int):
        session = self.session
        if sequence > max(session.sent, session.acknowledged) or credit < max(sequence, self._credit):
            raise Closed(MALFORMED, f"{sequence} taken, credit {credit}; sent {session.sent}, credit {self._credit}")
        self._credit = credit
        while session.acknowledged < sequence:
            session.acknowledged += 1
            _, taken = session.waiting.popleft()
            if taken and not taken.done():
                taken.set_result(None)
        self._next = max(self._next, session.acknowledged + 1)

    def _take_message(self, payload: bytes):
        try:
            if len(self.session.waiting) >= MAX_WAITING:
                raise Refused
            reply = self._take(payload)
        except (Refused, asyncio.QueueFull):
            self._answer = pack(NACK, self.session.taken + 1)
            return
        if reply is not None:
            self._queue(reply, None)
        self.session.taken += 1
        self._answer = pack(ACK, self.session.taken)
