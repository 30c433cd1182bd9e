# SPDX-License-Identifier: GPL-2.0-or-later
"""The link between hypervisor and HMC: the spec page's dumps against the device and the Python HMC, and what the page
says of an HMC against both HMCs, hvpipe-hmc and the module hvpipe_hmc."""

import re
import signal
import socket
import struct
import subprocess
import sys

import pytest

import link
from lab import TOP
from lab.hmc import HVPIPE_HMC
from lab.stream import LIMIT
from link import ACK, CLOSE, EPOCH, HEADER, HV_STATE, MESSAGE, STATE, Device, Tap, frame, page_blocks, read_frame

sys.path.insert(0, str(TOP / "tools/hmc"))
import hvpipe_hmc  # noqa: E402

IMPLEMENTATIONS = {"hvpipe-hmc": [HVPIPE_HMC], "hvpipe_hmc": [sys.executable, TOP / "tests/python_hmc.py"]}
SOURCE = 0x02000001


@pytest.fixture(name="device")
def one_device(tmp_path):
    """The device with one source that queues 4 messages; the partition has enabled its pipe."""
    device = Device(tmp_path, limit=4)
    device.enable()
    yield device
    device.close()


@pytest.fixture(name="tap")
def one_tap(device, tmp_path):
    """A tap in front of the device."""
    tap = Tap(tmp_path / "tap.sock", device.path)
    yield tap
    tap.close()


class Running:
    """A running HMC of one implementation."""

    def __init__(self, implementation, path, *arguments):
        command = [*IMPLEMENTATIONS[implementation], "-v", "-c", path, *arguments]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end(self, number=None):
        """Wait for its end, which the signal NUMBER brings about if given: status, standard output and error."""
        if number:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, out, err.decode()


@pytest.fixture(name="start", params=IMPLEMENTATIONS)
def starter(request):
    """A function that starts an HMC, of each implementation in turn."""
    started = []

    def start(path, *arguments):
        started.append(Running(request.param, path, *arguments))
        return started[-1]
    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.communicate()


def headers(frames):
    """(type, sequence) of FRAMES."""
    return [(kind, sequence) for _, kind, _, _, sequence in map(HEADER.unpack_from, frames)]


# The page

@pytest.mark.parametrize("text,data", [(f"{party}: {text}", data) for party, text, data in page_blocks()[0]])
def test_page_frame(text, data):
    """The Python HMC, which was written from the page, packs or reads each frame of the page as the page says."""
    hmc = text.startswith("HMC")
    if match := re.search(r'MESSAGE (\d+) "(.*)"', text):
        packed = hvpipe_hmc.pack(MESSAGE, int(match[1]), match[2].encode())
        assert packed == data
    elif match := re.search(r"(ACK|NACK) (\d+)(?:, credit (\d+))?", text):
        credit = struct.pack(">Q", int(match[3])) if match[3] else b""
        assert hvpipe_hmc.pack(getattr(hvpipe_hmc, match[1]), int(match[2]), credit) == data
    elif match := re.search(r'CLOSE, reason (\d+), "(.*)"', text):
        assert hvpipe_hmc.pack_close(int(match[1]), match[2]) == data
    elif hmc:
        match = re.search(r"versions 2 to 2, features 0, session (\w+), taken (\d+), first (\d+)", text)
        assert hvpipe_hmc.pack_hello(int(match[1], 0), int(match[2]), int(match[3])) == data
    else:
        match = re.search(r"STATE of (\w+), enabled, taken (\d+), queued (\d+), credit (\d+)", text)
        state = hvpipe_hmc.unpack_state(data[HEADER.size:])
        assert state[:3] == (2, 2, 0) and state.epoch == 0xe0e1e2e3e4e5e6e7 and state.flags == hvpipe_hmc.ENABLED
        assert (state.source, state.taken, state.queued, state.credit) == tuple(int(n, 0) for n in match.groups())
    if not hmc:
        _, kind, length, _, sequence = HEADER.unpack_from(data)
        assert hvpipe_hmc.unpack_header(data) == (kind, length, sequence)


def test_page_complete():
    """The page has dumps of each type of frame by each party that sends it, and three conversations."""
    blocks = page_blocks()
    assert len(blocks) == 4
    found = {(party, data[1]) for party, _, data in blocks[0]}
    assert found == {("HMC", kind) for kind in range(1, 6)} | {("Hypervisor", kind) for kind in (1, 2, 4, 5)}


class Replay:
    """A conversation of the page, held with the device."""

    def __init__(self, device):
        self.device, self.connection = device, None
        self.epochs = {}        # of the page: of the device
        self.message = b""      # that the partition sends

    def expect(self, data: bytes):
        """The device writes DATA, but for the epoch."""
        got = read_frame(self.connection)
        if data[1] == STATE:
            assert int.from_bytes(got[EPOCH], "big") == self.device.epoch
            assert self.epochs.setdefault(data[EPOCH], got[EPOCH]) == got[EPOCH]
            assert len(set(self.epochs.values())) == len(self.epochs)
            data = data[:EPOCH.start] + got[EPOCH] + data[EPOCH.stop:]
        assert got.hex(" ") == data.hex(" ")

    def step(self, party: str, text: str, data):
        """One line of the page, with the bytes below it."""
        if party == "HMC":
            self.connection.sendall(data)
        elif party == "Hypervisor":
            self.expect(data)
        elif text == "enables its pipe":
            self.device.enable()
        elif text == "reboots":
            self.device.reboot()
        elif match := re.fullmatch(r'sends "(.*)"', text):
            self.message = match[1].encode()
            assert self.device.send(self.message) in link.BUSY
        elif match := re.fullmatch(r"is answered (-?\d+)", text):
            assert self.device.send_wait(self.message) == int(match[1])
        elif match := re.fullmatch(r'receives "(.*)"', text):
            assert self.device.receive() == match[1].encode()
        elif text == "opened":
            self.connection = self.device.connect()
        elif text == "lost":
            self.connection.close()
            self.device.wait(lambda: self.device.get("link") == "closed", "the end of the link")
        elif text == "closed":
            assert read_frame(self.connection) == b""
            self.connection.close()
        else:
            raise AssertionError(f"{party}: {text}")


@pytest.mark.parametrize("number", (1, 2, 3))
def test_page_conversation(tmp_path, number):
    """The device answers the bytes of the page with the bytes of the page."""
    device = Device(tmp_path, limit=2)
    replay = Replay(device)
    try:
        for step in page_blocks()[number]:
            replay.step(*step)
    finally:
        device.close()
        if replay.connection:
            replay.connection.close()


# Both HMCs with the device

def message_files(directory, count):
    """Files in DIRECTORY with "message 0", "message 1" and so on; returns their paths."""
    files = [directory / str(number) for number in range(count)]
    for number, path in enumerate(files):
        path.write_text(f"message {number}")
    return files


def test_credit(start, device, tap, tmp_path):
    """An HMC sends more messages than the hypervisor queues: in order, each once, and never beyond its credit."""
    hmc = start(tap.path, "send", *message_files(tmp_path, 40))
    for number in range(40):
        assert device.receive() == f"message {number}".encode()
    assert hmc.end()[0] == 0
    assert device.get("malformed") == 0
    assert headers(tap.frames("HMC"))[0] == (STATE, 0)
    assert [what for what in headers(tap.frames("HMC")) if what[0] == MESSAGE] == [(MESSAGE, n + 1) for n in range(40)]


def test_answers_behind_full_queue(start, device):
    """The partition sends more than the queue holds to an HMC that answers each, and reads nothing: all are taken."""
    hmc = start(device.path, "echo")
    device.wait(lambda: device.get("link") == "up", "the HMC")
    for number in range(100):
        assert device.send_wait(f"{number}".encode()) == 0
    assert device.get("queued") == 4
    for number in range(100):
        assert device.receive() == f"{number}".encode()
    status, _, said = hmc.end(signal.SIGTERM)
    assert status == 0, said


def test_receives_in_order(start, device):
    """An HMC takes what the partition sends, in order, and leaves the next message to the hypervisor."""
    hmc = start(device.path, "recv", "-n", "10")
    device.wait(lambda: device.get("link") == "up", "the HMC")
    for number in range(10):
        assert device.send_wait(f"<{number}>".encode()) == 0
    status, out, said = hmc.end()
    assert (status, out) == (0, b"".join(b"<%d>" % number for number in range(10))), said


def test_leaves_with_close(start, device, tap):
    """An HMC that ends says so."""
    hmc = start(tap.path, "echo")
    device.wait(lambda: device.get("link") == "up", "the HMC")
    # An HMC that has answered knows of the link, too.
    assert device.send_wait(b"message") == 0
    assert hmc.end(signal.SIGTERM)[0] == 0
    device.wait(lambda: device.get("link") == "closed", "the end of the link")
    frames = headers(tap.frames("HMC"))
    assert (frames[0], frames[-1]) == ((STATE, 0), (CLOSE, 0))
    assert "reason 0 done" in device.get("link-error")
    assert device.get("malformed") == 0


def test_refuses(start, device, tmp_path):
    """What an HMC refuses the partition is told, and the next message has the same sequence."""
    (tmp_path / "m").write_text("m")
    hmc = start(device.path, "send", tmp_path / "m")
    device.wait(lambda: device.get("queued") == 1, "the message")
    for _ in range(3):
        assert device.send_wait(b"no") == -4
    assert device.get("malformed") == 0
    device.receive()
    assert hmc.end()[0] == 0


def test_goes_on_after_losses(start, device, tap, tmp_path):
    """The connection is lost in between: the session goes on, what is queued is not sent again, nothing is lost."""
    hmc = start(tap.path, "send", *message_files(tmp_path, 20))
    device.wait(lambda: device.get("queued") == 4, "messages of the HMC")
    for number in range(20):
        assert device.receive() == f"message {number}".encode()
        if number in (3, 10):
            count = len(tap.written)
            tap.cut()
            device.wait(lambda: len(tap.written) > count and device.get("link") == "up", "the HMC's return")
    assert hmc.end()[0] == 0
    sessions = {tap.frames("HMC", number)[0][HEADER.size + 8:HEADER.size + 16] for number in range(3)}
    assert len(sessions) == 1, "each connection began another session"
    sent = [what for number in range(3) for what in headers(tap.frames("HMC", number)) if what[0] == MESSAGE]
    assert sorted(set(sent)) == [(MESSAGE, n + 1) for n in range(20)]
    # What was on its way when the connection was lost may go out twice.
    assert len(sent) <= 20 + 2 * 4


def test_boot_between_connections(start, device, tap):
    """The partition boots while the HMC is not connected: it notices."""
    hmc = start(tap.path, "echo")
    device.wait(lambda: device.get("link") == "up", "the HMC")
    tap.cut()
    device.wait(lambda: len(tap.written) == 2 and device.get("link") == "up", "the HMC's return")
    device.qmp.execute("stop")
    tap.cut()
    device.reboot()
    device.qmp.execute("cont")
    device.wait(lambda: len(tap.written) == 3 and device.get("link") == "up", "the HMC's return")
    device.enable()
    assert device.send_wait(b"alive?") == 0
    status, _, said = hmc.end(signal.SIGTERM)
    assert status == 0
    assert said.count("the partition has booted") == 1, said


# Both HMCs with a hypervisor that the test plays

def hv_state(taken=0, queued=0, credit=4, epoch=1, source=SOURCE, lowest=2, highest=2, more=b"", flags=1):
    """The hypervisor's STATE."""
    return frame(STATE, 0, HV_STATE.pack(lowest, highest, 0, source, flags, epoch, taken, queued, credit) + more)


@pytest.fixture(name="hypervisor")
def played_hypervisor(tmp_path):
    """A socket at which the test accepts an HMC."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(LIMIT)
        listener.bind(str(tmp_path / "played.sock"))
        listener.listen(1)
        yield listener


def accept(hypervisor):
    """The next HMC, whose hello was read."""
    connection, _ = hypervisor.accept()
    connection.settimeout(LIMIT)
    hello = read_frame(connection)
    assert HEADER.unpack_from(hello)[:2] == (2, STATE), hello.hex(" ")
    return connection, hello


def read_close(connection):
    """Reason and text of the CLOSE with which the HMC ends the connection."""
    while (data := read_frame(connection)) and data[1] != CLOSE:
        pass
    assert data, "the connection ended without a CLOSE"
    assert read_frame(connection) == b""
    connection.close()
    return int.from_bytes(data[HEADER.size:HEADER.size + 4], "big"), data[HEADER.size + 4:].decode()


@pytest.mark.parametrize("data,reason", [
    (frame(MESSAGE, 1, b"m", version=1), 1), (frame(6, 1), 1), (frame(3, 1), 1), (frame(ACK, 1), 1),
    (frame(MESSAGE, 1), 1), (frame(MESSAGE, 0, b"m"), 1), (frame(MESSAGE, 2, b"m"), 1), (frame(CLOSE, 0, b"abc"), 1),
    (frame(ACK, 1, struct.pack(">Q", 9)), 1), (frame(ACK, 0, struct.pack(">Q", 3)), 1),
    (HEADER.pack(2, MESSAGE, 1, 1, 1) + b"m", 1), (frame(STATE, 0, bytes(47)), 1), (hv_state(epoch=0), 1),
    (hv_state(queued=5, credit=4), 1), (hv_state(lowest=3, highest=2), 1), (hv_state(source=SOURCE + 1), 5),
], ids=["version", "type", "nack", "ack-length", "length", "sequence", "gap", "close-length", "ack-unsent",
        "credit-falls", "reserved", "state-length", "epoch", "numbers", "range", "source"])
def test_malformed(start, hypervisor, data, reason):
    """A malformed frame ends the link with a CLOSE that says so; the HMC connects again unless that is pointless."""
    hmc = start(hypervisor.getsockname(), "echo")
    connection, _ = accept(hypervisor)
    connection.sendall(hv_state())
    connection.sendall(data)
    got, text = read_close(connection)
    assert got in (reason, 1) and text
    if got != 5:
        connection, _ = accept(hypervisor)
        connection.sendall(hv_state() + frame(MESSAGE, 1, b"again"))
        assert headers([read_frame(connection)])[0] == (ACK, 1)
        connection.close()
        hmc.process.kill()
    else:
        assert hmc.end()[0] == 1


@pytest.mark.parametrize("data", (frame(MESSAGE, 1, b"m"), frame(ACK, 0, bytes(8)), hv_state(lowest=3, highest=4)),
                         ids=("message", "ack", "version"))
def test_bad_first_frame(start, hypervisor, data):
    """The hypervisor's first frame must be a STATE of a version that the HMC speaks."""
    hmc = start(hypervisor.getsockname(), "echo")
    connection, _ = accept(hypervisor)
    connection.sendall(data)
    assert read_close(connection)[0] == (3 if data[1] == STATE else 1)
    if data[1] == STATE:
        status, _, said = hmc.end()
        assert status == 1 and "version" in said


def test_more_bytes_in_state(start, hypervisor):
    """A later version's STATE is longer, and speaks ours too: what is behind ours is ignored, and so are new flags."""
    start(hypervisor.getsockname(), "echo")
    connection, _ = accept(hypervisor)
    connection.sendall(hv_state(highest=7, more=bytes(range(200)), flags=0xff) + frame(MESSAGE, 1, b"hello"))
    frames = [read_frame(connection), read_frame(connection)]
    assert sorted(headers(frames)) == [(MESSAGE, 1), (ACK, 1)]
    connection.close()


@pytest.mark.parametrize("reason", (0, 1, 2, 99))
def test_closed_for_now(start, hypervisor, reason):
    """Closed for a reason that passes, or that is not known: the HMC says so and connects again, with its session."""
    hmc = start(hypervisor.getsockname(), "echo")
    hellos = []
    for _ in range(2):
        connection, hello = accept(hypervisor)
        hellos.append(hello)
        connection.sendall(hv_state() + frame(CLOSE, 0, struct.pack(">I", reason) + b"come \x1b[2Jback"))
        connection.close()
    connection, _ = accept(hypervisor)
    connection.sendall(hv_state())
    hmc.process.send_signal(signal.SIGTERM)
    assert read_close(connection)[0] == 0
    status, _, said = hmc.end()
    assert status == 0 and hellos[0] == hellos[1]
    assert "come " in said and "\x1b" not in said, said


@pytest.mark.parametrize("reason", (3, 4, 5))
def test_closed_for_good(start, hypervisor, reason):
    """Closed for a reason that stays: the HMC shows the text, escaped, and ends."""
    hmc = start(hypervisor.getsockname(), "echo")
    connection, _ = accept(hypervisor)
    connection.sendall(frame(CLOSE, 0, struct.pack(">I", reason) + b"never \x1b[2Jagain\xc2\x9b"))
    connection.close()
    status, _, said = hmc.end()
    assert status == 1
    assert "never " in said and "\x1b" not in said and "\x9b" not in said, said


def test_duplicate_flood(start, hypervisor):
    """A hypervisor that sends what was taken again and again, and reads nothing, is answered once it reads."""
    hmc = start(hypervisor.getsockname(), "echo")
    connection, _ = accept(hypervisor)
    connection.sendall(hv_state(credit=0) + frame(MESSAGE, 1, b"m"))
    assert headers([read_frame(connection)]) == [(ACK, 1)]
    flood = frame(MESSAGE, 1, b"m" * 4088) * 64
    for _ in range(64):
        connection.sendall(flood)
    with open(f"/proc/{hmc.process.pid}/status", encoding="ascii") as status:
        grown = int(re.search(r"VmHWM:\s*(\d+) kB", status.read())[1])
    assert grown < 64 * 1024, f"{grown} KiB"
    connection.sendall(frame(MESSAGE, 2, b"next"))
    while (what := headers([read_frame(connection)])[0]) != (ACK, 2):
        assert what == (ACK, 1)
    connection.close()


def test_no_messages_before_state(start, hypervisor, tmp_path):
    """Nothing follows the hello before the hypervisor has answered, and then no more than the credit."""
    for name in "abc":
        (tmp_path / name).write_text(name)
    hmc = start(hypervisor.getsockname(), "send", *(tmp_path / name for name in "abc"))
    connection, _ = accept(hypervisor)
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(LIMIT)
    connection.sendall(hv_state(credit=2))
    assert headers([read_frame(connection), read_frame(connection)]) == [(MESSAGE, 1), (MESSAGE, 2)]
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(LIMIT)
    connection.sendall(frame(ACK, 0, struct.pack(">Q", 3)))
    assert headers([read_frame(connection)]) == [(MESSAGE, 3)]
    connection.sendall(frame(ACK, 3, struct.pack(">Q", 6)))
    assert headers([read_frame(connection)]) == [(CLOSE, 0)]
    connection.close()
    assert hmc.end()[0] == 0
