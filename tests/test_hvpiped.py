# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon hvpiped on the host, used through `import hvpipe`, on a device that this module plays.

daemon/fake-device.c has the device's other end. What the real driver does to it is in test_daemon.py.
"""

import array
import asyncio
import errno
import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import pytest

from lab.paths import BUILD, TOP

HVPIPED = BUILD / "host/daemon/hvpiped-on-fake"
LIBRARY = BUILD / "host/lib/libhvpipe.so.1"
SOURCE = 0x02000001
LIMIT = 30
NOBODY = 65534

sys.path.insert(0, str(TOP / "python"))
os.environ["HVPIPE_LIBRARY"] = str(LIBRARY)
hvpipe = pytest.importorskip("hvpipe", reason="the host's user space is not built") if LIBRARY.exists() else None

# The protocol as docs/daemon.md has it, written here once more: the codec in C is not to be believed.
OPEN, SEND, TAKEN, STATE, STATUS, RESULT, MESSAGE, LOST, OBSERVED, LINE = range(1, 11)
HEADER = struct.Struct("=BBBBIII")


def wait_until(condition, what):
    """Wait until CONDITION() is true."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.005)


class Device:
    """The driver: the other end of daemon/fake-device.c."""

    def __init__(self, path):
        self.handles, self.sent, self.answers = {}, [], []
        self.open_error, self.state, self.gate = 0, 0, None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        hello = connection.recv(9)
        word, source = hello[:5].rstrip(b"\0"), struct.unpack("=I", hello[5:])[0]
        if word == b"open":
            connection.send(struct.pack("=i", self.open_error))
            if not self.open_error:
                self.handles[source] = connection
        elif word == b"send":
            message = connection.recv(5000)
            if self.gate:
                self.gate.wait(LIMIT)
            error = self.answers.pop(0) if self.answers else 0
            if not error:
                self.sent.append(message)
            try:
                connection.send(struct.pack("=i", error))
            except OSError:
                pass    # the process that sent was killed
        else:
            connection.send(struct.pack("=i", self.state))

    def give(self, message, source=SOURCE, error=0):
        """The next hvpipe_recv() returns MESSAGE, or fails with ERROR."""
        wait_until(lambda: source in self.handles, "the handle's opening")
        self.handles[source].send(struct.pack("=i", error) + message)

    def unread(self, source=SOURCE):
        """How many bytes of what was given the daemon has not received."""
        return struct.unpack("=i", fcntl.ioctl(self.handles[source], termios.TIOCOUTQ, b"\0" * 4))[0]

    def close(self):
        """End it."""
        self._listener.close()


class Daemon:
    """A running hvpiped."""

    def __init__(self, place, config="", keep=None):
        self.place, self.log = place, place / "log"
        self.config = place / "hvpiped.conf"
        self.config.write_text(f"[hvpiped]\nsocket={place}/socket\nspool={place}/spool\n{config}")
        self.kept, self.dropped, self.keep = {}, [], keep
        if keep:
            self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.notify.bind(str(place / "notify"))
            threading.Thread(target=self._store, daemon=True).start()
        self.start()

    def _store(self):
        """The store of descriptors, as systemd has it (sd_notify(3)); ends with the process."""
        while True:
            text, control, _, _ = self.notify.recvmsg(4096, 1024)
            fds = array.array("i")
            for _, _, data in control:
                fds.frombytes(data)
            values = dict(line.partition("=")[::2] for line in text.decode().splitlines())
            if "FDSTOREREMOVE" in values and values["FDNAME"] in self.kept:
                self.dropped.append(values["FDNAME"])
                os.close(self.kept.pop(values["FDNAME"]))
            if "FDSTORE" in values:
                self.kept[values["FDNAME"]] = fds[0]

    def start(self):
        """Start it; returns when it serves."""
        environment = {**os.environ, "FAKE_HVPIPE": str(self.place / "device")}
        command, fds = [HVPIPED, "--config", self.config], []
        if self.keep:
            environment["NOTIFY_SOCKET"] = str(self.place / "notify")
            fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in self.kept.values()]
            if fds:
                environment |= {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(self.kept)}
                moves = " ".join(f"{number}<&{fd} {fd}<&-" for number, fd in enumerate(fds, 3))
                command = ["bash", "-c", f'LISTEN_PID=$$ exec "$@" {moves}', "bash", *command]
        else:
            command.append("--foreground")
        mark = self.said().count("serving")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log, pass_fds=fds)
        for fd in fds:
            os.close(fd)
        wait_until(lambda: self.said().count("serving") > mark or self.process.poll() is not None, "the start")
        assert self.process.poll() is None, self.said()

    def kill(self):
        """Kill it, as by kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """End it; returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT)

    def said(self):
        """All that it wrote to standard error."""
        return self.log.read_text() if self.log.exists() else ""

    def source(self, number=0):
        """The status of a source."""
        return [line for line in hvpipe.status() if line["line"] == "source"][number]

    def memory(self):
        """What of its memory is resident, its own process that sends too, in KiB."""
        done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], stdout=subprocess.PIPE, text=True,
                              check=False)
        total = 0
        for pid in [self.process.pid, *map(int, done.stdout.split())]:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                total += int(re.search(r"^Pss:\s+(\d+)", file.read(), re.M)[1])
        return total


@pytest.fixture(name="place")
def short_place(monkeypatch):
    """A directory with a short name, for sockets; in memory if there is such a place, as each message is synced."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        monkeypatch.setenv("HVPIPE_SOCKET", f"{place}/socket")
        os.chmod(place, 0o755)
        yield Path(place)


@pytest.fixture(name="device")
def the_device(place):
    """The device."""
    device = Device(place / "device")
    yield device
    device.close()


@pytest.fixture(name="start")
def starter(place, device):
    """Starts a daemon with a configuration; all end with the test."""
    daemons = []

    def start(*arguments, **more):
        daemons.append(Daemon(place, *arguments, **more))
        return daemons[-1]
    yield start
    for daemon in daemons:
        daemon.stop()
        assert "CRITICAL" not in daemon.said()


class Raw:
    """A client that need not keep to the protocol."""

    def __init__(self, place):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(LIMIT)
        # With a timeout connect() does not wait for room in the daemon's backlog.
        wait_until(lambda: self.socket.connect_ex(str(place / "socket")) == 0, "the connection")

    def send(self, kind, right=0, number=0, source=0, data=b"", version=1, reserved=0, error=0):
        """Send a packet."""
        self.socket.send(HEADER.pack(version, kind, right, reserved, number, source, error) + data)

    def receive(self):
        """The next packet: (type, number, error, data), or None at the end."""
        packet = self.socket.recv(8192)
        if not packet:
            return None
        _, kind, _, _, number, _, error = HEADER.unpack(packet[:16])
        return kind, number, error, packet[16:]

    def open(self, right, source=SOURCE):
        """Say what the connection is for."""
        self.send(OPEN, right=right, source=source)
        return self.receive()

    def close(self):
        """Close it."""
        self.socket.close()


def count_clients():
    """How many clients are connected; None while there are too many to ask."""
    try:
        return len([line for line in hvpipe.status() if line["line"] == "client"])
    except OSError as error:
        if error.errno != errno.EUSERS:
            raise
        return None


def as_nobody(code, place, groups=()):
    """Run Python CODE as another user with these GROUPS; returns what it printed."""
    def drop():
        os.setgroups(list(groups))
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    # Neither the checkout nor root's Python cache need be readable for others.
    library, module = place / "libhvpipe.so.1", place / "hvpipe.py"
    library.write_bytes(LIBRARY.read_bytes())
    module.write_bytes((TOP / "python/hvpipe.py").read_bytes())
    for file in (library, module):
        os.chmod(file, 0o644)
    environment = {**os.environ, "PYTHONPATH": str(place), "HVPIPE_LIBRARY": str(library)}
    done = subprocess.run(["/usr/bin/python3", "-B", "-c", code], env=environment, cwd="/", preexec_fn=drop,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip()


def test_receive_waiting(device, start):
    """A message for a receiver that waits goes to it, and counts as taken."""
    daemon = start()
    with hvpipe.connect("hmc1") as pipe:
        device.give(b"hello")
        assert pipe.receive(LIMIT) == b"hello"
        wait_until(lambda: daemon.source()["taken"] == "1", "the acknowledgement")
        assert daemon.source()["spooled"] == "0"


def test_spooled_in_order(device, start):
    """What comes while no program receives is kept, over a restart of the daemon, and comes in order."""
    daemon = start()
    messages = [b"%d" % number for number in range(100)]
    for message in messages:
        device.give(message)
    wait_until(lambda: daemon.source()["spooled"] == "100", "the spooling")
    daemon.stop()
    daemon.start()
    with hvpipe.connect("hmc1") as pipe:
        assert [pipe.receive(LIMIT) for _ in messages] == messages
        device.give(b"live")
        assert pipe.receive(LIMIT) == b"live"


def test_receiver_dies_with_message(device, start):
    """A receiver that got a message and dies without taking it: the next one gets it."""
    daemon = start()
    raw = Raw(daemon.place)
    assert raw.open(hvpipe.RECEIVE)[2] == 0
    device.give(b"first")
    assert raw.receive()[3] == b"first"
    raw.close()
    with hvpipe.connect("hmc1") as pipe:
        assert pipe.receive(LIMIT) == b"first"


def test_stalled_receiver_spools(device, start):
    """A receiver that takes nothing stops no one: what it has and what follows is spooled, and comes later."""
    daemon = start()
    raw = Raw(daemon.place)
    raw.open(hvpipe.RECEIVE)
    for number in range(20):
        device.give(b"%d" % number)
    wait_until(lambda: daemon.source()["spooled"] == "20" and not device.unread(), "the spooling")
    with hvpipe.connect("hmc2") as other:
        device.give(b"other", source=0x02000002)
        assert other.receive(LIMIT) == b"other"
    for number in range(20):
        kind, tag, _, data = raw.receive()
        assert (kind, data) == (MESSAGE, b"%d" % number)
        raw.send(TAKEN, number=tag)
    raw.close()


def test_one_receiver(device, start):
    """A source has one receiver at a time; the second one is refused, and may come when the first has left."""
    daemon = start()
    with hvpipe.connect("hmc1", hvpipe.RECEIVE):
        with pytest.raises(OSError) as refused:
            hvpipe.connect("hmc1", hvpipe.RECEIVE)
        assert refused.value.errno == errno.EALREADY
    wait_until(lambda: daemon.source()["receiver"] == "0", "the leaving")
    hvpipe.connect("hmc1", hvpipe.RECEIVE).close()
    assert "refused: hmc1: it has a receiver" in daemon.said()


def test_two_programs_and_observer(device, start):
    """One program receives, another sends, and an observer sees both ways and takes nothing."""
    start()
    with hvpipe.connect("hmc1", hvpipe.OBSERVE) as observer, hvpipe.connect("hmc1", hvpipe.RECEIVE) as receiver, \
            hvpipe.connect("hmc1", hvpipe.SEND) as sender:
        device.give(b"down")
        assert receiver.receive(LIMIT) == b"down"
        sender.send(b"up")
        device.answers.append(errno.EPIPE)
        with pytest.raises(BrokenPipeError):
            sender.send(b"nobody")
        seen = [observer.observe(LIMIT) for _ in range(3)]
    assert [(one.direction, one.error, one.message) for one in seen] == [
        (hvpipe.RECEIVE, 0, b"down"), (hvpipe.SEND, 0, b"up"), (hvpipe.SEND, errno.EPIPE, b"nobody")]
    assert device.sent == [b"up"]


def test_loss_in_order(device, start):
    """A lost connection is told behind the messages that came before it, and once."""
    start()
    with hvpipe.connect("hmc1") as pipe:
        device.give(b"before")
        device.give(b"", error=errno.ECONNRESET)
        device.give(b"after")
        assert pipe.receive(LIMIT) == b"before"
        with pytest.raises(ConnectionResetError):
            pipe.receive(LIMIT)
        assert pipe.receive(LIMIT) == b"after"


def test_full_blocks(device, start):
    """when-full=block: a full spool is said, nothing is dropped, and it goes on when a receiver takes messages."""
    daemon = start("[sources]\nspool-size=1\n")
    wait_until(lambda: SOURCE in device.handles, "the opening")
    device.handles[SOURCE].setblocking(False)
    sent = 0

    def push():
        nonlocal sent
        try:
            while sent < 600:
                device.give(b"%04d" % sent + bytes(4000))
                sent += 1
        except BlockingIOError:
            pass
        return daemon.source()["state"] == "blocked"
    wait_until(push, "the blocking")
    full = daemon.source()
    assert int(full["spool_bytes"]) <= 1 << 20 and "spool is full" in full["problem"]
    assert "spool is full" in daemon.said()
    with hvpipe.connect("hmc1") as pipe:
        for number in range(400):
            while sent <= number:
                push()
            assert pipe.receive(LIMIT)[:4] == b"%04d" % number
    assert daemon.source()["dropped"] == "0"


def test_full_drops_oldest(device, start):
    """when-full=drop-oldest: the oldest go, and are counted."""
    daemon = start("[sources]\nspool-size=1\nwhen-full=drop-oldest\n")
    for number in range(400):
        device.give(b"%04d" % number + bytes(4000))
    wait_until(lambda: not device.unread() and daemon.source()["received"] == "400", "the receiving")
    state = daemon.source()
    dropped = int(state["dropped"])
    assert dropped == 400 - int(state["spooled"]) > 0
    with hvpipe.connect("hmc1") as pipe:
        assert pipe.receive(LIMIT)[:4] == b"%04d" % dropped


def test_broken_disk(device, start, place):
    """A spool that cannot be written: the error is named, nothing is lost, and it goes on when it can be."""
    spool = place / "spool"
    spool.write_text("no directory")
    daemon = start()
    device.give(b"one")
    device.give(b"two")
    wait_until(lambda: daemon.source()["state"] == "blocked", "the blocking")
    assert "unable to open database file" in daemon.source()["problem"]
    spool.unlink()
    spool.mkdir()
    with hvpipe.connect("hmc1") as pipe:
        assert [pipe.receive(LIMIT), pipe.receive(LIMIT)] == [b"one", b"two"]
    wait_until(lambda: daemon.source()["problem"] == "", "the end of the problem")


@pytest.mark.parametrize("error", [errno.EPIPE, errno.EIO, errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP])
def test_send_outcome(device, start, error):
    """A send is answered with the driver's answer."""
    start()
    with hvpipe.connect("hmc1", hvpipe.SEND) as pipe:
        device.answers.append(error)
        with pytest.raises(OSError) as failed:
            pipe.send(b"x")
        assert failed.value.errno == error
        pipe.send(b"y")
    assert device.sent == [b"y"]


def test_send_bounded(device, start):
    """A source that takes nothing: the send is in doubt after the time, another's that waited longer was not begun."""
    daemon = start("send-timeout=1\n")
    device.gate = threading.Event()
    outcomes = {}

    def send(name):
        with hvpipe.connect("hmc1", hvpipe.SEND) as pipe:
            try:
                pipe.send(name)
                outcomes[name] = 0
            except OSError as error:
                outcomes[name] = error.errno
    threads = [threading.Thread(target=send, args=(b"%d" % number,)) for number in range(3)]
    for thread in threads:
        thread.start()
        wait_until(lambda: len([line for line in hvpipe.status() if line["line"] == "client"])
                   >= min(1, len(threads)), "the connection")
    for thread in threads:
        thread.join(LIMIT)
    assert set(outcomes.values()) <= {errno.ETIMEDOUT, errno.EBUSY} and errno.ETIMEDOUT in outcomes.values()
    assert len(outcomes) == 3
    # Nothing of it is left in the way of the next one.
    device.gate.set()
    device.sent.clear()
    send(b"next")
    assert outcomes[b"next"] == 0 and b"next" in device.sent
    assert "given up, in doubt" in daemon.said()


def test_send_fair(device, start):
    """One client has 16 messages waiting; another's single one is sent after one of those, not after all."""
    daemon = start()
    device.gate = threading.Event()
    greedy, modest = Raw(daemon.place), Raw(daemon.place)
    greedy.open(hvpipe.SEND)
    modest.open(hvpipe.SEND)
    for number in range(1, 17):
        greedy.send(SEND, number=number, data=b"greedy%d" % number)
    greedy.send(STATE, number=99)
    assert greedy.receive() == (RESULT, 99, 0, b"")
    modest.send(SEND, number=1, data=b"modest")
    modest.send(STATE, number=99)
    assert modest.receive() == (RESULT, 99, 0, b"")
    device.gate.set()
    wait_until(lambda: len(device.sent) == 17, "the sending")
    assert device.sent.index(b"modest") <= 2
    assert [message for message in device.sent if message != b"modest"] == [b"greedy%d" % n for n in range(1, 17)]


def test_send_quota(device, start):
    """The 18th message of one connection (one is being sent, 16 wait) is refused by name; the others are sent."""
    daemon = start()
    device.gate = threading.Event()
    raw = Raw(daemon.place)
    raw.open(hvpipe.SEND)
    for number in range(1, 19):
        raw.send(SEND, number=number, data=b"%d" % number)
    kind, number, error, text = raw.receive()
    assert (kind, number, error) == (RESULT, 18, errno.EDQUOT) and b"16 messages" in text
    device.gate.set()
    assert sorted(raw.receive()[1] for _ in range(17)) == list(range(1, 18))


MALFORMED = {
    "short": b"\x01\x01", "version": HEADER.pack(9, STATUS, 0, 0, 0, 0, 0), "type": HEADER.pack(1, 77, 0, 0, 0, 0, 0),
    "direction": HEADER.pack(1, RESULT, 0, 0, 0, 0, 0), "reserved": HEADER.pack(1, STATUS, 0, 1, 0, 0, 0),
    "field": HEADER.pack(1, STATUS, 0, 0, 5, 0, 0), "right": HEADER.pack(1, OPEN, 3, 0, 0, SOURCE, 0),
    "data": HEADER.pack(1, OPEN, 1, 0, 0, SOURCE, 0) + b"x", "large": HEADER.pack(1, SEND, 0, 0, 1, 0, 0) + bytes(9000),
    "unopened": HEADER.pack(1, SEND, 0, 0, 1, 0, 0) + b"x", "untaken": HEADER.pack(1, TAKEN, 0, 0, 1, 0, 0),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(device, start, name):
    """A malformed packet, or one at the wrong time, is named and ends that connection; another does not notice."""
    daemon = start()
    with hvpipe.connect("hmc1") as other:
        raw = Raw(daemon.place)
        raw.socket.send(MALFORMED[name])
        kind, _, error, text = raw.receive()
        assert (kind, error) == (RESULT, errno.EPROTO) and text
        assert raw.receive() is None
        device.give(b"still")
        assert other.receive(LIMIT) == b"still"
    assert f"refused: {text.decode()}" in daemon.said()


def test_unknown_source(start):
    """A source that the daemon does not serve is refused by its ID."""
    daemon = start()
    with pytest.raises(OSError) as refused:
        hvpipe.connect("hmc9")
    assert refused.value.errno == errno.ENODEV
    assert "source 0x02000009 is not one of those" in daemon.said()


def test_many_clients(device, start, place):
    """64 clients are served, the 65th is refused by name; the daemon stays below 16 MiB, and others' work goes on."""
    daemon = start()
    device.gate = threading.Event()
    with hvpipe.connect("hmc1", hvpipe.RECEIVE) as receiver:
        clients = [Raw(place) for _ in range(63)]
        for client in clients:
            assert client.open(hvpipe.SEND)[2] == 0
        one_more = Raw(place)
        kind, _, error, text = one_more.receive()
        assert (kind, error) == (RESULT, errno.EUSERS) and b"64 clients" in text
        for client in clients:
            for number in range(1, 17):
                client.send(SEND, number=number, data=bytes(4088))
            client.send(STATE, number=99)
            assert client.receive()[1] == 99
        assert daemon.memory() < 16 << 10, f"{daemon.memory()} KiB"
        device.give(b"on")
        assert receiver.receive(LIMIT) == b"on"
        for client in clients:
            client.close()
        device.gate.set()
        wait_until(lambda: count_clients() == 1, "the leaving")


def test_flood(device, start, place):
    """A client that asks without end and reads no answer is not read any more; another one's messages arrive."""
    start()
    raw = Raw(place)
    raw.open(hvpipe.SEND)
    raw.socket.setblocking(False)
    asked = 0
    with hvpipe.connect("hmc1") as other:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            try:
                raw.send(STATE, number=1)
                asked += 1
            except BlockingIOError:
                time.sleep(0.05)
                try:
                    raw.send(STATE, number=1)
                except BlockingIOError:
                    break
        assert asked > 100
        device.give(b"through")
        assert other.receive(LIMIT) == b"through"
        other.send(b"out")
    assert device.sent == [b"out"]


def test_observer_stops_reading(device, start, place):
    """An observer that stops reading misses messages, which are counted; the receiver gets all."""
    start()
    raw = Raw(place)
    raw.open(hvpipe.OBSERVE)
    with hvpipe.connect("hmc1") as receiver:
        for number in range(400):
            device.give(b"%04d" % number + bytes(4000))
            assert receiver.receive(LIMIT)[:4] == b"%04d" % number
        line, = [line for line in hvpipe.status() if line.get("right") == "observe"]
        missed = int(line["missed"])
        assert missed > 0
        seen = 0
        while seen < 400 - missed:
            assert raw.receive()[0] == OBSERVED
            seen += 1
        device.give(b"again")
        receiver.receive(LIMIT)
        kind, number, _, data = raw.receive()
        assert (kind, number, data) == (OBSERVED, missed, b"again")


def test_connect_and_leave(device, start, place):
    """2,000 clients that connect and leave cost another one nothing, and the log 100 lines a second at most."""
    daemon = start()
    with hvpipe.connect("hmc1") as pipe:
        for _ in range(2000):
            Raw(place).close()
        device.give(b"on")
        assert pipe.receive(LIMIT) == b"on"
    wait_until(lambda: count_clients() == 0, "the leaving")

    def left_out():
        Raw(place).close()
        return re.search(r"audit: \d+ lines were left out", daemon.said())
    # The count comes with the first line of another second.
    wait_until(left_out, "the count of lines")


def test_silent_client(start, place):
    """A client that does not say what it is for is disconnected after 10 s."""
    daemon = start()
    raw = Raw(place)
    assert raw.receive() is None
    assert "it did not say what it is for" in daemon.said()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_rules(device, start, place):
    """A member of a group has the rights that the configuration gives it; another user has none; root has all."""
    start("[sources]\nsend=4711\nobserve=\n[hmc2]\nreceive=4712\n")
    code = ("import hvpipe\n"
            "for source in 'hmc1', 'hmc2':\n"
            "    for right in 1, 2, 4:\n"
            "        try:\n"
            "            hvpipe.connect(source, right).close()\n"
            "            print('yes', end=' ')\n"
            "        except OSError as error:\n"
            "            print(error.errno, end=' ')\n")
    assert as_nobody(code, place) == "13 13 13 13 13 13"
    assert as_nobody(code, place, [4711]) == "13 yes 13 13 yes 13"
    assert as_nobody(code, place, [4711, 4712]) == "13 yes 13 yes yes 13"
    hvpipe.connect("hmc1", hvpipe.OBSERVE).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_deceiving_name(start, place):
    """What a client calls itself is visible ASCII in the audit: it makes no line of its own, and moves no cursor."""
    daemon = start()
    code = ("import socket, sys; open('/proc/self/comm', 'wb').write(b'a\\x1b[2J\\nb\\xc2\\x9b'); "
            "client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); client.connect(sys.argv[1]); "
            "client.send(bytes(16)); client.recv(4096)")
    subprocess.run(["/usr/bin/python3", "-c", code, place / "socket"], check=True, timeout=LIMIT)
    wait_until(lambda: "refused" in daemon.said(), "the audit line")
    lines = daemon.said().splitlines()
    assert all(re.fullmatch("[ -~]*", line) for line in lines), lines
    assert re.search(r"client \d+ \(pid \d+, a.\[2J.b", daemon.said()), lines


def test_user_quota(start, place):
    """A user who is not root has 16 connections at most."""
    start("[sources]\nsend=4711\n")
    code = ("import hvpipe\n"
            "kept = []\n"
            "try:\n"
            "    while True:\n"
            "        kept.append(hvpipe.connect('hmc1', hvpipe.SEND))\n"
            "except OSError as error:\n"
            "    print(len(kept), error.errno)\n")
    assert as_nobody(code, place, [4711]) == f"16 {errno.EUSERS}"


def test_killed_keeps_handles(device, start, place):
    """Killed 20 times under a store of descriptors: no handle closes, and of 1,000 messages at most one a kill is lost.

    The account: what was given, what was taken, and what the daemon counts as in doubt. Nothing receives meanwhile.
    """
    daemon = start(keep=True)
    wait_until(lambda: SOURCE in device.handles, "the opening")
    handle = device.handles[SOURCE]
    doubts = []
    for turn in range(20):
        for number in range(50):
            device.give(b"%d" % (50 * turn + number))
        if turn % 3:
            wait_until(lambda: device.unread() < 20000, "some receiving")
        before = int(daemon.source()["in_doubt"])
        daemon.kill()
        daemon.start()
        doubts.append(int(daemon.source()["in_doubt"]) - before)
    assert device.handles[SOURCE] is handle
    # A daemon that is killed between dropping and keeping would have closed it.
    assert not daemon.dropped
    wait_until(lambda: not device.unread(), "the receiving")
    with hvpipe.connect("hmc1") as pipe:
        taken = []
        while True:
            try:
                taken.append(int(pipe.receive(1)))
            except TimeoutError:
                break
    assert taken == sorted(set(taken)), "not in order, or twice"
    assert all(doubt in (0, 1) for doubt in doubts)
    assert 1000 - sum(doubts) <= len(taken) <= 1000
    print(f"given 1000, taken {len(taken)}, in doubt {sum(doubts)}: {doubts}")


def test_broken_handle_is_dropped(device, start):
    """A handle that fails is closed in the store of descriptors, too: else the kernel would give no other one."""
    start(keep=True)
    device.open_error = errno.EALREADY
    device.give(b"", error=errno.EPROTO)
    device.handles[SOURCE].settimeout(LIMIT)
    assert not device.handles.pop(SOURCE).recv(1)
    device.open_error = 0
    device.give(b"after")
    with hvpipe.connect("hmc1") as pipe:
        assert pipe.receive(LIMIT) == b"after"


def test_in_doubt_counted(device, start, place):
    """A daemon that is killed while a receiver has a message that it did not take: one is in doubt, not more.

    The next daemon gives the receiver that comes then what came after it.
    """
    daemon = start(keep=True)
    for turn in range(1, 3):
        raw = Raw(place)
        raw.open(hvpipe.RECEIVE)
        device.give(b"doubt")
        assert raw.receive()[3] == b"doubt"
        daemon.kill()
        daemon.start()
        assert daemon.source()["in_doubt"] == str(turn)
        assert raw.receive() is None
    device.give(b"next")
    with hvpipe.connect("hmc1") as pipe:
        assert pipe.receive(LIMIT) == b"next"


def test_killed_before_spooling(device, start, place):
    """A message that the daemon had received and not yet spooled when it was killed comes after the restart."""
    spool = place / "spool"
    spool.write_text("no directory")
    daemon = start(keep=True)
    device.give(b"first")
    wait_until(lambda: "spool" in daemon.source()["problem"], "the problem")
    daemon.kill()
    daemon.start()
    daemon.kill()
    spool.unlink()
    spool.mkdir()
    daemon.start()
    device.give(b"second")
    with hvpipe.connect("hmc1") as pipe:
        assert (pipe.receive(LIMIT), pipe.receive(LIMIT)) == (b"first", b"second")
    assert daemon.source()["in_doubt"] == "0"


# What daemon/risk.h says of the file: source, state, messages in doubt, number in the spool, bytes
RISK = struct.Struct("=IIQqI")
HELD = 2


@pytest.mark.parametrize("number,length,taken", [(1, 5, []), (-1, 5, [b"again"]), (2, 5, [b"again"]), (-1, 5000, [])],
                         ids=["is spooled", "is not", "another is", "is no message"])
def test_killed_while_spooling(device, start, place, number, length, taken):
    """A daemon that was killed while it put a message into the spool: the next one knows whether it is there."""
    daemon = start(keep=True)
    device.give(b"spooled")
    wait_until(lambda: daemon.source()["spooled"] == "1", "the spooling")
    daemon.kill()
    with open(place / "at-risk", "r+b") as note:
        note.write(RISK.pack(SOURCE, HELD, 0, number, length) + b"again")
    daemon.start()
    with hvpipe.connect("hmc1") as pipe:
        assert [pipe.receive(LIMIT) for _ in range(1 + len(taken))] == [b"spooled", *taken]
        with pytest.raises(TimeoutError):
            pipe.receive(0.2)
    assert daemon.source()["in_doubt"] == ("1" if length == 5000 else "0")


def test_at_risk_has_space(start, place):
    """The file that messages are received into has its space: a full disk neither kills the daemon nor loses one."""
    start()
    file = (place / "at-risk").stat()
    assert file.st_blocks * 512 >= file.st_size > 0


def test_without_at_risk(device, start, place):
    """Without that file, which is said, messages arrive all the same."""
    (place / "at-risk").mkdir()
    daemon = start()
    assert "at-risk: Is a directory: a kill may lose messages" in daemon.said()
    device.give(b"x" * hvpipe.MAX_PAYLOAD)
    with hvpipe.connect("hmc1") as pipe:
        assert pipe.receive(LIMIT) == b"x" * hvpipe.MAX_PAYLOAD


def test_daemon_ends(device, start):
    """When the daemon ends, a receiver is told, and may connect again."""
    daemon = start()
    with hvpipe.connect("hmc1") as pipe:
        daemon.kill()
        with pytest.raises(OSError) as ended:
            pipe.receive(LIMIT)
        assert ended.value.errno == errno.ENOTCONN
    with pytest.raises(ConnectionRefusedError):
        hvpipe.connect("hmc1")
    daemon.start()
    hvpipe.connect("hmc1").close()


def test_suspend(device, start):
    """While the pipe is suspended sends fail with ENXIO, wait_enabled() waits; after that messages arrive."""
    daemon = start()
    with hvpipe.connect("hmc1") as pipe:
        device.state = errno.ENXIO
        device.give(b"", error=errno.ENXIO)
        device.answers.append(errno.ENXIO)
        with pytest.raises(OSError) as failed:
            pipe.send(b"x")
        assert failed.value.errno == errno.ENXIO
        with pytest.raises(TimeoutError):
            pipe.wait_enabled(0)
        wait_until(lambda: daemon.source()["state"] == "suspended", "the suspend")
        device.state = 0
        pipe.wait_enabled(LIMIT)
        device.give(b"resumed")
        assert pipe.receive(LIMIT) == b"resumed"


def test_busy_handle(device, place, start):
    """A source that another program holds is opened when that lets go; `status` says so meanwhile."""
    device.open_error = errno.EALREADY
    daemon = start()
    assert daemon.source()["state"] == "closed" and "another program has it" in daemon.source()["problem"]
    device.open_error = 0
    device.give(b"late")
    with hvpipe.connect("hmc1") as pipe:
        assert pipe.receive(LIMIT) == b"late"


def test_status_json(device, start):
    """`hvpipe status --json` says all that the daemon says: counters as numbers, texts with spaces as they are."""
    start("sources=hmc1;hmc2\n")
    device.give(b"kept")
    wait_until(lambda: device.unread() == 0, "the receiving")
    with hvpipe.connect("hmc2"):
        done = subprocess.run([BUILD / "host/tools/hvpipe/hvpipe", "status", "--json"], check=True, timeout=LIMIT,
                              stdout=subprocess.PIPE)
    status = json.loads(done.stdout)
    assert [source["id"] for source in status["sources"]] == ["0x02000001", "0x02000002"]
    assert [source["spooled"] for source in status["sources"]] == [1, 0]
    client, = [client for client in status["clients"] if client["right"] == "receive"]
    assert (client["source"], client["pid"], client["uid"]) == ("0x02000002", os.getpid(), os.getuid())
    assert [(line["line"], line.get("id")) for line in hvpipe.status() if line["line"] == "source"] == \
        [("source", source["id"]) for source in status["sources"]]


def test_no_pipe(place):
    """Without a device the daemon ends at once, with the status that says so."""
    (place / "conf").write_text(f"[hvpiped]\nsocket={place}/socket\nspool={place}/spool\n")
    done = subprocess.run([HVPIPED, "--foreground", "--config", place / "conf"], stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "FAKE_HVPIPE": str(place / "none")}, check=False, timeout=LIMIT)
    assert done.returncode == 3 and "no hypervisor pipe here" in done.stderr


@pytest.mark.parametrize("text,words", [
    ("sources=hmc0\n", "'hmc0' is neither hmcN nor a source ID"),
    ("sources=hmc1;0x02000001\n", "are the same source"),
    ("send-timeout=never\n", "send-timeout=never: a number from 1 to 3600"),
    ("[sources]\nwhen-full=drop\n", "when-full=drop: block or drop-oldest"),
    ("[sources]\nrecieve=root\n", "recieve: no such key"),
    ("[hmc7]\nreceive=root\n", "[hmc7]: neither hvpiped, sources nor one of the sources"),
])
def test_config_errors(place, text, words):
    """A mistake in the configuration is named with file, key and value, and nothing starts."""
    (place / "conf").write_text(f"[hvpiped]\n{text}")
    done = subprocess.run([HVPIPED, "--foreground", "--config", place / "conf"], stderr=subprocess.PIPE, text=True,
                          check=False, timeout=LIMIT)
    assert done.returncode == 2 and words in done.stderr and str(place / "conf") in done.stderr, done.stderr


def test_python_asyncio(device, start):
    """Two tasks wait for two sources while a third sends."""
    start()

    async def take(name, count):
        with hvpipe.connect(name) as pipe:
            found = []
            async for message in pipe:
                found.append(message)
                if len(found) == count:
                    return found

    async def main():
        first, second = asyncio.create_task(take("hmc1", 2)), asyncio.create_task(take("hmc2", 1))
        await asyncio.sleep(0.1)
        with hvpipe.connect("hmc1", hvpipe.SEND) as pipe:
            await pipe.send_async(b"sent")
        device.give(b"a")
        device.give(b"c", source=0x02000002)
        device.give(b"b")
        return await asyncio.wait_for(first, LIMIT), await asyncio.wait_for(second, LIMIT)
    assert asyncio.run(main()) == ([b"a", b"b"], [b"c"])
    assert device.sent == [b"sent"]


def test_python_closed(start):
    """A pipe that was closed raises, and does not crash."""
    start()
    pipe = hvpipe.connect("hmc1")
    pipe.close()
    pipe.close()
    for call in (pipe.receive, pipe.fileno, lambda: pipe.send(b"x")):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError):
        hvpipe.parse_source("hmc0")
    with pytest.raises(OSError):
        hvpipe.open("hmc1")     # this host has no device


@pytest.mark.parametrize("name", ["poll", "glib"])
def test_example(device, start, name):
    """The examples that are compiled with the library work: one prints what it receives, the other echoes it."""
    start()
    program = subprocess.Popen([BUILD / f"host/lib/example-{name}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    device.give(b"first")
    device.give(b"second")
    if name == "poll":
        assert [program.stdout.readline(), program.stdout.readline()] == [b"first\n", b"second\n"]
        program.stdin.write(b"typed")
        program.stdin.flush()
        wait_until(lambda: device.sent == [b"typed"], "the send")
    else:
        wait_until(lambda: device.sent == [b"first", b"second"], "the echo")
        device.give(b"quit")
    program.stdin.close()
    assert program.wait(LIMIT) == 0
    program.stdout.close()
