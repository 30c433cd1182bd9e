# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of file messages, against the receiver: hvpipe(1) on a library whose driver is this test."""

import re
import socket
import subprocess

import pytest

from lab import BUILD, TOP

PROGRAM = BUILD / "host/tools/hvpipe/hvpipe-on-fake"
PAGE = TOP / "docs/file-messages.md"
LINE = re.compile(r" {4}([0-9a-f]{4})  ((?:[0-9a-f]{2} {1,2}){1,16}) *\|(.*)\|")


def dumps():
    """The messages on the page: [(True for an answer, bytes)]."""
    found, current, answer = [], b"", False
    for text in PAGE.read_text(encoding="utf-8").splitlines() + [""]:
        line = LINE.fullmatch(text)
        if line:
            data = bytes.fromhex(line[2])
            assert int(line[1], 16) == len(current), text
            assert line[3] == "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data), text
            current += data
        elif current:
            found.append((answer, current))
            current = b""
        elif text:
            answer = text == "The receiver answers:"
    return found


@pytest.fixture(name="fake")
def fake_fixture(tmp_path, monkeypatch):
    """A socket that the program takes for its driver."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "fake"))
        listener.listen()
        listener.settimeout(30)
        monkeypatch.setenv("FAKE_HVPIPE", str(tmp_path / "fake"))
        yield listener


def test_page(fake, tmp_path):
    """The receiver answers the messages on the page as the page says, and has stored the file."""
    messages = dumps()
    assert [answer for answer, _ in messages] == [False, False, True, False, True]
    (tmp_path / "inbox").mkdir()
    with subprocess.Popen([PROGRAM, "recv", "-d", tmp_path / "inbox"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as program:
        receive, _ = fake.accept()
        send, _ = fake.accept()
        send.settimeout(30)
        try:
            for answer, message in messages:
                if answer:
                    assert send.recv(5000) == message
                    send.send(b"\0")
                else:
                    receive.send(b"\0" + message)
        finally:
            program.terminate()
    assert (tmp_path / "inbox/hello.txt").read_bytes() == b"hello, world\n"
    assert [path.name for path in (tmp_path / "inbox").iterdir()] == ["hello.txt"]
