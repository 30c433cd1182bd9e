# SPDX-License-Identifier: GPL-2.0-or-later
"""The tools from end to end: hvpipe in a partition and hvpipe-hmc beside it, and what must not break them.

What needs no partition is tested beside the code, in tools/.
"""

import hashlib
import json
import os
import re
import signal

from faults import INJECT
from test_pipe import message_files


def test_head_takes_one(lab, partition, tmp_path):
    """`hvpipe recv | head -1`: recv receives no message that head does not print."""
    files = []
    for number in range(3):
        path = tmp_path / str(number)
        path.write_text(f"line {number}\n")
        files.append(path)
    reader = partition.serve("hmc1", "sh -c '(hvpipe recv -n 3 2>/tmp/said; echo $? >/tmp/status) | head -1'")
    lab.hmc(partition, "hmc1", "send", *files).check()
    assert reader.check() == "line 0\n"
    assert partition.check("cat /tmp/said /tmp/status") == "hvpipe: standard output: nobody reads it any more\n1\n"


def test_poisonous_names(lab, partition, tmp_path):
    """A partition sends files whose names no file can have, then a good one: the HMC stores this one only, and says so.
    """
    inbox = tmp_path / "inbox"
    (inbox / "dir").mkdir(parents=True)
    hmc = lab.hmc(partition, "hmc1", "recv", "-d", inbox, "-n", "1")
    for name in ("dir", ".bashrc", ".x.part", "..", "/\\033[2J", "a\\302\\2332J"):
        answer = partition.check(f"printf 'FILE 00000000000000aa 1 0 {name}\\nx' | hvpipe send -r")
        assert re.match(r"REFUSED 00000000000000aa name [ -~]+\n", answer), answer
    partition.check("mkdir /tmp/bad; printf bad >/tmp/bad/dir")
    refused = partition.run("hvpipe send -f /tmp/bad/dir")
    assert (refused.status, refused.stdout) == (10, "hvpipe: /tmp/bad/dir: refused: dir: a directory has this name\n")
    assert "/tmp/good: stored" in partition.check("printf good >/tmp/good; hvpipe send -f /tmp/good")
    assert hmc.wait() == 1
    assert (inbox / "good").read_text() == "good"
    assert sorted(os.listdir(inbox)) == ["dir", "good"]
    assert "\x1b" not in hmc.said() and "\x9b" not in hmc.said()


def test_served_sources(lab, partition, tmp_path):
    """One `hvpipe-hmc serve` for three sources: each gets what its configuration says, and the session goes on."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    links = {"hmc1": "echo=true", "hmc2": f"command=sed 's/^/$HVPIPE_SOURCE got /'\ninbox={inbox}",
             "hmc3": "command=false"}
    serve = lab.serve(partition, links)
    assert partition.check("printf hello | hvpipe send -r") == "hello\n"
    assert partition.check("printf hello | hvpipe -s hmc2 send -r") == "$HVPIPE_SOURCE got hello\n"
    assert "/tmp/good: stored" in partition.check("printf good >/tmp/good; hvpipe -s hmc2 send -f /tmp/good")
    assert (inbox / "good").read_text() == "good"
    assert partition.run("printf hello | hvpipe -s hmc3 send").status == 5
    serve.signal(signal.SIGTERM)
    assert serve.wait() == 0
    assert "shared/hmc3: message 1 refused: false: exit status 1" in serve.said()


def test_file_nobody_reads(lab, partition, tmp_path):
    """Nobody reads in the partition: its kernel takes the file, and the HMC does not say that it is stored."""
    (tmp_path / "a").write_text("text")
    hmc = lab.hmc(partition, "hmc1", "send", "-f", "-t", "1", tmp_path / "a")
    assert hmc.wait() == 11
    assert "a: unknown whether it is stored" in hmc.err.text and not hmc.out.text


def test_file_full_disk(lab, partition, tmp_path):
    """The receiver's disk is full: the file is refused, nothing of it is left, and the next one is stored."""
    (tmp_path / "big").write_bytes(os.urandom(300000))
    (tmp_path / "small").write_bytes(os.urandom(5000))
    partition.check("mkdir /tmp/small-disk; mount -t tmpfs -o size=128k none /tmp/small-disk")
    try:
        receiver = partition.serve("hmc1", "hvpipe recv -d /tmp/small-disk -n 1")
        hmc = lab.hmc(partition, "hmc1", "send", "-f", tmp_path / "big", tmp_path / "small")
        assert hmc.wait() == 10
        digest = hashlib.sha256((tmp_path / "small").read_bytes()).hexdigest()
        assert hmc.out.text == f"{tmp_path}/small: stored, SHA-256 {digest}\n"
        assert "big: refused: big: write at offset" in hmc.err.text
        assert receiver.wait().status == 1
        assert partition.check("cd /tmp/small-disk; ls -A; sha256sum <small") == f"small\n{digest}  -\n"
    finally:
        partition.check("umount /tmp/small-disk")


def test_failed_command_sends_nothing(lab, partition, tmp_path):
    """`listen` sends nothing of a command that fails, hangs or prints without end, but the text of --on-failure."""
    for name, text in (("fail", "echo partial; exit 3"), ("hang", "echo partial; sleep 60"), ("much", "yes"),
                       ("background", "sleep 60 & echo done")):
        (tmp_path / name).write_text(text)
    listener = partition.serve("hmc1", "hvpipe listen -x sh -T 1 -F failed")
    said = lab.hmc(partition, "hmc1", "send", "--reply",
                   *(tmp_path / name for name in ("fail", "hang", "much", "background"))).check()
    assert [line.split(": ")[1] for line in said.splitlines() if ": " in line and line.startswith(str(tmp_path))] == \
        ["failed", "failed", "failed", "done"]
    listener.stop()


def test_receive_errors(lab, partition, tmp_path):
    """The hypervisor fails two receives: `recv` tries again, and gets each message once."""
    reader = partition.serve("hmc1", "hvpipe recv -n 3")
    partition.qmp.set(*INJECT, "receive:status=-1,count=2")
    try:
        files = message_files(tmp_path, 3)
        lab.hmc(partition, "hmc1", "send", *files).check()
        assert reader.wait().output.endswith(b"".join(path.read_bytes() for path in files))
    finally:
        partition.qmp.set(*INJECT, "")


def test_doctor(lab, partition):
    """The doctor finds the pipe well, opens no source, and says who holds one; with -s it says that it is held."""
    found = json.loads(partition.check("hvpipe doctor --json"))
    assert found["worst"] == "ok"
    assert {"firmware", "calls", "events", "driver", "device", "pipe", "holders"} <= \
        {finding["check"] for finding in found["findings"]}
    reader = partition.serve("hmc1", "hvpipe recv")
    assert "(hvpipe) holds hmc1" in partition.check("hvpipe doctor")
    held = partition.run("hvpipe doctor -s hmc1")
    assert held.status == 9 and "held by another process" in held.stdout
    reader.stop()
    report = partition.check("rm -f /tmp/report; hvpipe doctor -o /tmp/report >/dev/null; cat /tmp/report")
    assert "ibm,hypervisor-pipe-capable" in report and "papr-hvpipe: enabled" in report


def test_full_disk(partition):
    """Output that cannot be written is a failure."""
    for command in ("status", "doctor", "--help", "-V", "help"):
        assert partition.run(f"hvpipe {command} >/dev/full").status == 1, command
