# SPDX-License-Identifier: GPL-2.0-or-later
"""hvpipe-hmc serve: many links in one process, with hypervisors that the test plays."""

import hashlib
import json
import os
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import time

import pytest

from lab.hmc import HVPIPE_HMC
from lab.stream import LIMIT, Stream
from link import ACK, CLOSE, HEADER, HV_STATE, MESSAGE, NACK, STATE, frame, read_frame

SOON = 20   # seconds. A signal is answered within one, but not on a busy machine; without an answer it would be 1000


class Played:
    """The hypervisor's end of one source."""

    def __init__(self, path, number):
        self.number, self.sequence, self.connection = number, 0, None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(LIMIT)
        self.listener.bind(str(path))
        self.listener.listen(1)

    def accept(self):
        """Take the HMC that connects; returns its (session, taken, first)."""
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(LIMIT)
        hello = read_frame(self.connection)
        assert HEADER.unpack_from(hello)[:2] == (2, STATE)
        session, taken, first = struct.unpack_from(">QQQ", hello, HEADER.size + 8)
        self.sequence = taken
        self.connection.sendall(frame(STATE, 0, HV_STATE.pack(2, 2, 0, 0x02000000 + self.number, 1, 1, first - 1,
                                                              first - 1, first + 255)))
        return session, taken, first

    def send(self, data: bytes) -> int:
        """Send a message; returns the type of the answer."""
        self.connection.sendall(frame(MESSAGE, self.sequence + 1, data))
        kind, sequence = HEADER.unpack_from(read_frame(self.connection))[1::3]
        assert sequence == self.sequence + 1
        self.sequence += kind == ACK
        return kind

    def receive(self) -> bytes:
        """The next message of the HMC, acknowledged."""
        data = read_frame(self.connection)
        assert data[1] == MESSAGE, data[:16].hex(" ")
        sequence = HEADER.unpack_from(data)[4]
        self.connection.sendall(frame(ACK, sequence, struct.pack(">Q", sequence + 256)))
        return data[HEADER.size:]

    def expect_close(self):
        """The HMC leaves in order."""
        assert read_frame(self.connection)[1] == CLOSE
        self.connection.close()

    def close(self):
        """End it."""
        self.listener.close()
        if self.connection:
            self.connection.close()


class Serve:
    """A running hvpipe-hmc serve in a directory of its own, with a hypervisor played for each source."""

    def __init__(self, directory):
        self.directory, self.config = directory, directory / "serve.conf"
        self.played, self.process, self.err = {}, None, None

    def configure(self, links: dict, more="state=state.db\ncontrol=control\n"):
        """Write the configuration: {"lpar1/hmc1": "echo=true"}."""
        text = f"[serve]\n{more}"
        for name, what in links.items():
            path = self.directory / f"{name.replace('/', '-')}.sock"
            if name not in self.played:
                self.played[name] = Played(path, int(name.rpartition("hmc")[2]))
            text += f"[{name}]\nconnect={path.name}\n{what}\n"
        self.config.write_text(text)

    def start(self, links=None, **how):
        """Start it, and take the connections of all links."""
        if links:
            self.configure(links, **how)
        self.process = subprocess.Popen([HVPIPE_HMC, "serve", self.config], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.err = Stream(self.process.stderr, "serve's log")
        return {name: self.played[name].accept() for name in links or ()}

    def status(self) -> dict:
        """What hvpipe-hmc status says: {name: fields}."""
        done = subprocess.run([HVPIPE_HMC, "status", "--json", self.directory / "control"], check=True,
                              stdout=subprocess.PIPE, timeout=LIMIT)
        return {f"{link['partition']}/{link['source']}": link for link in json.loads(done.stdout)["links"]}

    def wait_status(self, condition) -> dict:
        """Wait until CONDITION holds for the status."""
        deadline = time.monotonic() + LIMIT
        while not condition(status := self.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.01)
        return status

    def end(self, number=signal.SIGTERM) -> int:
        """End it by a signal; returns its status."""
        self.process.send_signal(number)
        status = self.process.wait(LIMIT)
        self.err.wait_end()
        return status

    def close(self):
        """End everything."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for played in self.played.values():
            played.close()


@pytest.fixture(name="serve")
def one_serve(tmp_path):
    """A Serve that is to be started."""
    serve = Serve(tmp_path)
    yield serve
    serve.close()


def test_many_links(serve):
    """Fifty sources of ten partitions are served by one process, each with its own session."""
    names = [f"lpar{p}/hmc{s}" for p in range(10) for s in range(1, 6)]
    hellos = serve.start({name: "echo=true" for name in names})
    assert len({session for session, _, _ in hellos.values()}) == len(names)
    for name in names:
        assert serve.played[name].send(name.encode()) == ACK
    for name in reversed(names):
        assert serve.played[name].receive() == name.encode()
    status = serve.wait_status(lambda all_: all(link["acknowledged"] == 1 for link in all_.values()))
    assert list(status) == names
    assert all(link["connection"] == "up" and link["pipe"] == "enabled" for link in status.values())
    serve.process.send_signal(signal.SIGTERM)
    for name in names:
        serve.played[name].expect_close()
    assert serve.process.wait(LIMIT) == 0
    # SQLite's own tool and library show what was kept.
    with sqlite3.connect(serve.directory / "state.db") as database:
        rows = database.execute("SELECT name, session, source, taken, acknowledged, queued FROM link").fetchall()
    assert sorted(rows) == sorted((name, f"{hellos[name][0]:016x}", 0x02000000 + int(name[-1]), 1, 1, 1)
                                  for name in names)


def test_killed(serve):
    """After kill -9 each session goes on: what was acknowledged is not asked for, what was not received comes again."""
    hellos = serve.start({"a/hmc1": "echo=true", "a/hmc2": "echo=true"})
    one, two = serve.played["a/hmc1"], serve.played["a/hmc2"]
    assert one.send(b"first") == ACK
    assert read_frame(one.connection)[HEADER.size:] == b"first"
    assert two.send(b"second") == ACK
    assert two.receive() == b"second"
    two.connection.sendall(b"")
    serve.wait_status(lambda all_: all_["a/hmc2"]["acknowledged"] == 1)
    time.sleep(0.05)
    serve.end(signal.SIGKILL)
    again = serve.start({"a/hmc1": "echo=true", "a/hmc2": "echo=true"})
    assert again["a/hmc1"] == (hellos["a/hmc1"][0], 1, 1)
    assert again["a/hmc2"][:2] == (hellos["a/hmc2"][0], 1)
    assert one.receive() == b"first"
    assert serve.end() == 0


def test_command(serve):
    """A command gets each message and its partition and source; its output is the reply, a failure refuses."""
    script = serve.directory / "command"
    script.write_text("#!/bin/sh\nread -r line\ncase $line in no) exit 3;; big) yes;; quiet) exit 0;; "
                      "early) exec 0<&-; echo early;; esac\n"
                      "echo \"$HVPIPE_PARTITION $HVPIPE_SOURCE $1: $line\"\n")
    script.chmod(0o755)
    serve.start({"lpar1/hmc7": f"command={script} 'an argument'"})
    played = serve.played["lpar1/hmc7"]
    assert played.send(b"hello\n") == ACK
    assert played.receive() == b"lpar1 hmc7 an argument: hello\n"
    assert played.send(b"no\n") == NACK
    assert played.send(b"big\n") == NACK
    assert played.send(b"quiet\n") == ACK
    assert played.send(b"last\n") == ACK
    assert played.receive() == b"lpar1 hmc7 an argument: last\n"
    assert serve.status()["lpar1/hmc7"]["refused"] == 2
    assert serve.end() == 0
    assert "lpar1/hmc7: message 2 refused: " in serve.err.text
    assert "exit status 3" in serve.err.text and "more than 4088 bytes" in serve.err.text


def test_slow_command(serve):
    """A command that hangs stops neither other links, nor reading, nor the end; its message stays unanswered."""
    serve.start({"a/hmc1": "command=sleep 1000", "a/hmc2": "echo=true"})
    slow, other = serve.played["a/hmc1"], serve.played["a/hmc2"]
    slow.connection.sendall(frame(MESSAGE, 1, b"wait"))
    assert other.send(b"hello") == ACK
    assert other.receive() == b"hello"
    began = time.monotonic()
    assert serve.end() == 0
    assert time.monotonic() - began < SOON
    slow.expect_close()


def test_inbox(serve):
    """Files are stored and answered; a name that no file can have is refused by an answer, no file by a NACK."""
    inbox = serve.directory / "inbox"
    inbox.mkdir()
    (inbox / "dir").mkdir()
    serve.start({"a/hmc1": "inbox=inbox"})
    played = serve.played["a/hmc1"]
    assert played.send(b"no file") == NACK
    for number, name in enumerate((b"dir", b".bashrc", b"a/\x1b[2Jb")):
        assert played.send(b"FILE %016x 1 0 %s\nx" % (number, name)) == ACK
        assert played.receive().startswith(b"REFUSED %016x name " % number)
    assert played.send(b"FILE %016x 4 0 good\ngood" % 9) == ACK
    assert played.receive() == b"STORED %016x %s\n" % (9, hashlib.sha256(b"good").hexdigest().encode())
    assert (inbox / "good").read_bytes() == b"good"
    assert serve.status()["a/hmc1"]["files"] == 1
    assert serve.end() == 0
    assert "\x1b" not in serve.err.text


def test_inbox_after_kill(serve):
    """A file that was stored is not stored again when its message comes again after kill -9, as a send in doubt."""
    (serve.directory / "inbox").mkdir()
    serve.start({"a/hmc1": "inbox=inbox"})
    played = serve.played["a/hmc1"]
    part = b"FILE %016x 4 0 good\ngood" % 9
    answer = b"STORED %016x %s\n" % (9, hashlib.sha256(b"good").hexdigest().encode())
    assert played.send(part) == ACK
    assert played.receive() == answer
    serve.wait_status(lambda all_: all_["a/hmc1"]["acknowledged"] == 1)
    serve.end(signal.SIGKILL)
    (serve.directory / "inbox" / "good").unlink()
    serve.start({"a/hmc1": "inbox=inbox"})
    assert played.send(part) == ACK
    assert played.receive() == answer
    assert serve.status()["a/hmc1"]["files"] == 0
    assert not list((serve.directory / "inbox").iterdir())
    assert serve.end() == 0


def test_reload(serve):
    """SIGHUP: a link that is gone ends in order, one that is new begins, one that changed begins anew with its
    session, one that is as before keeps its connection. A mistake changes nothing."""
    before = serve.start({"a/hmc1": "echo=true", "a/hmc2": "echo=true", "a/hmc3": "echo=true"})
    assert serve.played["a/hmc2"].send(b"x") == ACK
    assert serve.played["a/hmc2"].receive() == b"x"
    serve.configure({"a/hmc1": "echo=true", "a/hmc2": "command=cat", "a/hmc4": "echo=true"})
    serve.process.send_signal(signal.SIGHUP)
    serve.played["a/hmc2"].expect_close()
    serve.played["a/hmc3"].expect_close()
    session, taken, _ = serve.played["a/hmc2"].accept()
    assert (session, taken) == (before["a/hmc2"][0], 1)
    serve.played["a/hmc4"].accept()
    assert serve.played["a/hmc1"].send(b"still here") == ACK
    assert list(serve.status()) == ["a/hmc1", "a/hmc2", "a/hmc4"]
    serve.config.write_text("[a/hmc1]\nconnect=x\n")
    serve.process.send_signal(signal.SIGHUP)
    serve.err.wait_for("what takes messages.*goes on as before")
    assert serve.played["a/hmc1"].receive() == b"still here"
    assert serve.end() == 0


def test_wrong_source(serve):
    """A socket of another source than configured ends that link, says so, and not the others."""
    serve.configure({"a/hmc1": "echo=true", "a/hmc2": "echo=true"})
    serve.played["a/hmc2"].number = 5
    serve.start({"a/hmc1": "echo=true", "a/hmc2": "echo=true"})
    status = serve.wait_status(lambda all_: all_["a/hmc2"]["connection"] == "failed")
    assert "0x02000005" in status["a/hmc2"]["last_error"]
    assert serve.played["a/hmc1"].send(b"x") == ACK


def test_replies_bounded(serve):
    """A partition that receives no replies is refused when 1024 of them wait, and goes on when it has received some."""
    serve.start({"a/hmc1": "echo=true"})
    connection = serve.played["a/hmc1"].connection
    answers, sequence = [], 1
    while len(answers) < 1025:
        connection.sendall(frame(MESSAGE, sequence, b"x"))
        while (data := read_frame(connection))[1] == MESSAGE:
            pass
        answers.append(data[1])
        sequence += 1
    assert answers == 1024 * [ACK] + [NACK]
    connection.sendall(frame(ACK, 1, struct.pack(">Q", 256)) + frame(MESSAGE, 1025, b"x"))
    while (data := read_frame(connection))[1] == MESSAGE:
        pass
    assert data[1] == ACK


def test_log(serve):
    """Lines have time, partition and source. What a partition causes without end is counted, not printed."""
    serve.start({"a/hmc1": "inbox=."})
    for _ in range(1000):
        assert serve.played["a/hmc1"].send(b"\x1b[2J") == NACK
    assert serve.status()["a/hmc1"]["refused"] == 1000
    assert serve.end() == 0
    lines = serve.err.text.splitlines()
    assert len(lines) < 40
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (a/hmc1: )?\S", line) for line in lines), lines


def test_blocked_log(serve):
    """Nobody reads the log: messages go on, and a signal ends the process within a second."""
    serve.configure({"a/hmc1": "inbox=."})
    reader, writer = os.pipe()
    while True:     # until it is full
        os.set_blocking(writer, False)
        try:
            os.write(writer, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    serve.process = subprocess.Popen([HVPIPE_HMC, "serve", serve.config], stdin=subprocess.DEVNULL, stderr=writer)
    serve.played["a/hmc1"].accept()
    for _ in range(30):
        assert serve.played["a/hmc1"].send(b"refused") == NACK
    began = time.monotonic()
    serve.process.terminate()
    assert serve.process.wait(LIMIT) == 0
    assert time.monotonic() - began < SOON
    os.close(reader)
    os.close(writer)


def test_disk_full(serve):
    """When the state cannot be kept nothing is acknowledged, and the process ends with status 1."""
    serve.configure({"a/hmc1": "echo=true"})
    serve.process = subprocess.Popen(["prlimit", "--fsize=80000", HVPIPE_HMC, "serve", serve.config],
                                     stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(
                                         signal.SIGXFSZ, signal.SIG_IGN))
    serve.err = Stream(serve.process.stderr, "serve's log")
    played = serve.played["a/hmc1"]
    played.accept()
    taken = 0
    while taken < 100:
        played.connection.sendall(frame(MESSAGE, taken + 1, b"x" * 4000))
        while (data := read_frame(played.connection)) and data[1] != ACK:
            pass
        if not data:
            break
        taken += 1
    assert 0 < taken < 100
    assert serve.process.wait(LIMIT) == 1
    serve.err.wait_end()
    assert "as no message can be taken" in serve.err.text
    assert serve.start({"a/hmc1": "echo=true"})["a/hmc1"][1] == taken


def test_state_in_use(serve):
    """A second process with the same state or control socket is refused with status 8; a stale socket is replaced."""
    serve.start({"a/hmc1": "echo=true"})
    again = subprocess.run([HVPIPE_HMC, "serve", serve.config], stderr=subprocess.PIPE, text=True, check=False)
    assert again.returncode == 8 and "in use by another hvpipe-hmc" in again.stderr
    serve.end(signal.SIGKILL)
    assert (serve.directory / "control").exists()
    serve.start({"a/hmc1": "echo=true"})
    assert (serve.directory / "control").stat().st_mode & 0o777 == 0o600
    assert serve.status()["a/hmc1"]["connection"] in ("connected", "up")
    table = subprocess.run([HVPIPE_HMC, "status", serve.directory / "control"], stdout=subprocess.PIPE, text=True,
                           check=True).stdout
    assert table.startswith("a/hmc1: ")


def test_status_of_nobody(tmp_path):
    """Nobody listens: status says so."""
    done = subprocess.run([HVPIPE_HMC, "status", tmp_path / "control"], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1 and "is `hvpipe-hmc serve` running" in done.stderr


@pytest.mark.parametrize("text,said", [
    ("", "serve.conf"), ("[lpar1]\nconnect=x\necho=true\n", "[lpar1]: a group is"),
    ("[a/b/hmc1]\nconnect=x\necho=true\n", "a group is"), ("[a/hmcx]\nconnect=x\necho=true\n", "'hmcx' is no source"),
    ("[a/hmc1]\necho=true\n", "'connect' is missing"), ("[a/hmc1]\nconnect=x\n", "what takes messages"),
    ("[a/hmc1]\nconnect=host:99999\necho=true\n", "'host:99999'"), ("[a/hmc1]\nconnect=x\necho=maybe\n", "'echo'"),
    ("[a/hmc1]\nconnect=x\necho=true\ncommand=cat\n", "not both"), ("[a/hmc1]\nconnect=x\ninbox=no\n", "no directory"),
    ("[a/hmc1]\nconnect=x\ncommand=cat 'x\n", "command 'cat 'x'"), ("[a/hmc1]\nconnect=x\nmode=1\n", "'mode'"),
    ("[serve]\nspeed=1\n", "'speed' is not known, choose from: state, control"),
    ("[a/hmc1]\nconnect=x\necho=true\n[a/0x02000001]\nconnect=x\necho=true\n", "the same source as [a/hmc1]"),
])
def test_wrong_configuration(tmp_path, text, said):
    """A mistake is named with the file and the group, and nothing is started."""
    config = tmp_path / "serve.conf"
    if text:
        config.write_text(text)
    done = subprocess.run([HVPIPE_HMC, "serve", config], stderr=subprocess.PIPE, text=True, check=False, timeout=LIMIT)
    assert done.returncode == 1
    assert said in done.stderr and "serve.conf" in done.stderr
