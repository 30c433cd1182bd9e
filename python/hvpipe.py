# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages between a partition and its HMC through the hypervisor pipe: libhvpipe for Python.

    import hvpipe

    with hvpipe.connect("hmc1") as pipe:        # through hvpiped; hvpipe.open("hmc1") is the device
        pipe.send(b"hello")
        for message in pipe:
            print(message)

A call that fails raises OSError with the errno that hvpipe(3) says: TimeoutError, ConnectionResetError (the connection
to the source was lost, the handle stays good), BrokenPipeError (nobody takes messages there) and so on.

In asyncio, `await pipe.receive_async()`, `await pipe.send_async(data)` and `async for message in pipe` do the same.

The library is libhvpipe.so.1, or what the environment variable HVPIPE_LIBRARY names.
"""

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

__all__ = ["MAX_PAYLOAD", "PORTABLE_PAYLOAD", "RECEIVE", "SEND", "OBSERVE", "Observed", "Pipe", "connect", "open",
           "parse_source", "status", "version"]

MAX_PAYLOAD = 4088
PORTABLE_PAYLOAD = 4048
_MAX_RECEIVE = 4096

RECEIVE = 1
SEND = 2
OBSERVE = 4

_library = ctypes.CDLL(os.environ.get("HVPIPE_LIBRARY", "libhvpipe.so.1"), use_errno=True)
_VISIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _Observed(ctypes.Structure):
    _fields_ = [("source", ctypes.c_uint32), ("direction", ctypes.c_int), ("error", ctypes.c_int),
                ("missed", ctypes.c_uint32), ("length", ctypes.c_size_t), ("reserved", ctypes.c_uint64)]


def _declare(name: str, result, *arguments) -> None:
    function = getattr(_library, name)
    function.restype, function.argtypes = result, arguments


_declare("hvpipe_version", ctypes.c_char_p)
_declare("hvpipe_parse_source", ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint32))
_declare("hvpipe_open", ctypes.c_void_p, ctypes.c_uint32)
_declare("hvpipe_connect", ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int)
_declare("hvpipe_close", None, ctypes.c_void_p)
_declare("hvpipe_get_fd", ctypes.c_int, ctypes.c_void_p)
_declare("hvpipe_pending", ctypes.c_size_t, ctypes.c_void_p)
_declare("hvpipe_send", ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
_declare("hvpipe_recv", ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_declare("hvpipe_wait_enabled", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_declare("hvpipe_observe", ctypes.c_ssize_t, ctypes.c_void_p, ctypes.POINTER(_Observed), ctypes.c_void_p,
         ctypes.c_size_t, ctypes.c_int)
_declare("hvpipe_each_daemon_line", ctypes.c_int, _VISIT, ctypes.c_void_p)


def _fail(what: str):
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)


def version() -> str:
    """The library's version."""
    return _library.hvpipe_version().decode()


def parse_source(name: str) -> int:
    """The source ID of NAME: hmcN, or a number."""
    source = ctypes.c_uint32()
    if _library.hvpipe_parse_source(name.encode(), ctypes.byref(source)):
        raise ValueError(f"{name!r} is neither hmcN nor a source ID like 0x02000001")
    return source.value


def status() -> list[dict[str, str]]:
    """The status of hvpiped: a dictionary for each line, whose kind is under "line"."""
    found = []

    def visit(line, _):
        kind, _, rest = line.decode(errors="replace").partition(" ")
        values = {"line": kind}
        while rest:
            name, _, rest = rest.partition("=")
            # Two values may have spaces; they are the last ones.
            value, _, rest = (rest, "", "") if name in ("problem", "command") else rest.partition(" ")
            values[name] = value
        found.append(values)
        return 0

    if _library.hvpipe_each_daemon_line(_VISIT(visit), None):
        _fail("hvpiped")
    return found


class Observed(NamedTuple):
    """A message that passed."""
    source: int
    direction: int  # RECEIVE: from the source; SEND: to it
    error: int      # an errno: that of the send; ECONNRESET when the connection to the source was lost
    missed: int     # how many were not shown before this one
    message: bytes


def _milliseconds(timeout: float | None) -> int:
    return -1 if timeout is None else max(0, int(timeout * 1000 + 0.999))


class Pipe:
    """A handle; open() and connect() return one. It closes at the end of a `with` block."""

    def __init__(self, handle: int, source: int, connected: bool):
        self._handle: int | None = handle
        self._connected = connected
        self._buffer = ctypes.create_string_buffer(_MAX_RECEIVE)
        self.source = source

    def _check(self) -> int:
        if self._handle is None:
            raise ValueError("the pipe is closed")
        return self._handle

    def __enter__(self) -> "Pipe":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self):
        self.close()

    def close(self) -> None:
        """Close it; once more does nothing."""
        handle, self._handle = getattr(self, "_handle", None), None
        if handle is not None:
            _library.hvpipe_close(handle)

    def fileno(self) -> int:
        """The descriptor, for select.poll()."""
        return _library.hvpipe_get_fd(self._check())

    def send(self, message: bytes) -> None:
        """Send MESSAGE; returns when the source has it."""
        if _library.hvpipe_send(self._check(), bytes(message), len(message)) < 0:
            _fail("send")

    def receive(self, timeout: float | None = None) -> bytes:
        """The next message, which may take TIMEOUT seconds, or for ever."""
        length = _library.hvpipe_recv(self._check(), self._buffer, _MAX_RECEIVE, _milliseconds(timeout))
        if length < 0:
            _fail("receive")
        return self._buffer.raw[:length]

    def observe(self, timeout: float | None = None) -> Observed:
        """What passes next; for connect() with OBSERVE."""
        seen = _Observed()
        length = _library.hvpipe_observe(self._check(), ctypes.byref(seen), self._buffer, _MAX_RECEIVE,
                                         _milliseconds(timeout))
        if length < 0:
            _fail("observe")
        return Observed(seen.source, seen.direction, seen.error, seen.missed, self._buffer.raw[:length])

    def wait_enabled(self, timeout: float | None = None) -> None:
        """Wait until the partition's move is over."""
        if _library.hvpipe_wait_enabled(self._check(), _milliseconds(timeout)):
            _fail("wait_enabled")

    def __iter__(self) -> Iterator[bytes]:
        """All messages, without end. A connection to the source that was lost is passed over."""
        while True:
            try:
                yield self.receive()
            except ConnectionResetError:
                continue

    async def _readable(self) -> None:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self.fileno())

    async def receive_async(self) -> bytes:
        """The next message. Other tasks run meanwhile; a task that is cancelled takes no message."""
        while True:
            try:
                return self.receive(0)
            except TimeoutError:
                # Linux's own driver does not work with epoll, which asyncio uses.
                await (self._readable() if self._connected else asyncio.sleep(0.05))

    async def send_async(self, message: bytes) -> None:
        """Send MESSAGE, by a thread; other tasks run meanwhile."""
        await asyncio.to_thread(self.send, message)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """All messages, as the iterator."""
        while True:
            try:
                yield await self.receive_async()
            except ConnectionResetError:
                continue


def _source(source: int | str) -> int:
    return parse_source(source) if isinstance(source, str) else source


def connect(source: int | str, rights: int = RECEIVE | SEND) -> Pipe:
    """Open the pipe to SOURCE through hvpiped, with these RIGHTS there."""
    number = _source(source)
    handle = _library.hvpipe_connect(number, rights)
    if not handle:
        _fail(f"hvpiped, {source}")
    return Pipe(handle, number, True)


def open(source: int | str) -> Pipe:    # the name that the library has
    """Open the pipe to SOURCE by the device."""
    number = _source(source)
    handle = _library.hvpipe_open(number)
    if not handle:
        _fail(f"/dev/papr-hvpipe, {source}")
    return Pipe(handle, number, False)
