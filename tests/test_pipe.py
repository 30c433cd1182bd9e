# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages between real HMCs and a real partition: order, sources, sizes, files."""

import hashlib
import os
import re

import pytest

from lab import PAYLOAD_LIMIT, source_id

PAYLOAD = 4088         # the largest message of an HMC
PORTABLE = 4048        # the largest that every kernel sends, and so the tools' default


def numbered(number):
    """Message NUMBER, of a length that depends on NUMBER."""
    return b"<%06d%s>" % (number, b"." * (number * 37 % 500))


def message_files(directory, count):
    """COUNT files of one message each."""
    files = []
    for number in range(1, count + 1):
        path = directory / f"{number:06d}"
        path.write_bytes(numbered(number))
        files.append(path)
    return files


def wait_queued(partition, source, sequence, since=0):
    """Wait until the hypervisor has message SEQUENCE of SOURCE's HMC."""
    partition.hypervisor.wait_for(rf"frame_in source {source_id(source):#010x} type 1 length \d+ sequence {sequence}\s",
                                  since=since)


def hold(partition, source, arguments=""):
    """Start `hvpipe recv` on SOURCE and stop it after it has opened the source and before it reads; returns it."""
    command = partition.serve(source, f"hvpipe -s {source} recv {arguments}")
    partition.check(f"kill -STOP {partition.holder(command)}")
    return command


def resume(partition, command):
    """Continue the program that hold() stopped."""
    partition.check(f"kill -CONT {partition.holder(command)}")


def held_for(partition, source):
    """How many messages the driver holds for SOURCE's reader, as `hvpipe status` shows it."""
    line = re.search(rf"^{source_id(source):#010x} .*$", partition.check("hvpipe status"), re.M)
    assert line, f"no program has {source} open"
    return line[0].split()[6]


def test_burst_in_order(lab, partition, tmp_path):
    """A hundred messages of one HMC, all queued before the first read, arrive in order; then another source works."""
    files = message_files(tmp_path, 100)
    reader = hold(partition, "hmc1", "-n 100")
    mark = partition.hypervisor.size
    hmc = lab.hmc(partition, "hmc1", "send", *files)
    wait_queued(partition, "hmc1", 100, mark)
    assert reader.running
    resume(partition, reader)
    assert reader.wait().output == b"".join(path.read_bytes() for path in files)
    assert reader.status == 0
    hmc.check()

    other = lab.hmc(partition, "hmc2", "echo")
    assert partition.check("printf hello | hvpipe -s hmc2 send -r") == "hello\n"
    other.close()


def test_sources_separate(lab, partition):
    """Two sources whose messages interleave in the hypervisor's queue: each reader gets its own, in order."""
    count = 40
    readers = {source: hold(partition, source, f"-n {count}") for source in ("hmc1", "hmc2")}
    mark = partition.hypervisor.size
    hmcs = {source: lab.hmc(partition, source, "console", stdin=True) for source in readers}
    for number in range(1, count + 1):
        for source, hmc in hmcs.items():
            hmc.write(f"{source} {number};\n".encode())
            wait_queued(partition, source, number, mark)
    for reader in readers.values():
        resume(partition, reader)
    for source, reader in readers.items():
        assert reader.check() == "".join(f"{source} {number};" for number in range(1, count + 1))
    for hmc in hmcs.values():
        hmc.write(b"/quit\n")
        hmc.check()


@pytest.mark.parametrize("size", [1, 2, 47, 48, PAYLOAD_LIMIT - 1, PAYLOAD_LIMIT])
def test_sizes(lab, partition, tmp_path, size):
    """A message of SIZE bytes, including the smallest and largest, arrives unchanged both ways."""
    data = os.urandom(size)
    (tmp_path / "message").write_bytes(data)
    answer = partition.serve("hmc1", "hvpipe listen -x cat")
    hmc = lab.hmc(partition, "hmc1", "send", "--reply", "-m", PAYLOAD, tmp_path / "message")
    hmc.check()
    answer.stop()
    partition.put("/tmp/message", data)
    echo = lab.hmc(partition, "hmc2", "echo")
    partition.check(f"hvpipe -s hmc2 send -r -m {PAYLOAD_LIMIT} /tmp/message >/tmp/reply")
    assert partition.get("/tmp/reply").startswith(b"/tmp/message: " + data)
    echo.close()


def test_stream_split(lab, partition, tmp_path):
    """A stream goes as consecutive messages of 4048 bytes, except the last, both ways."""
    partition.check(f"head -c {5 * PORTABLE + 1} /dev/urandom >/tmp/stream")
    digest = partition.check("sha256sum </tmp/stream").split()[0]
    mark = partition.hypervisor.size
    hmc = lab.hmc(partition, "hmc1", "recv", "-n", "6", output=tmp_path / "stream")
    partition.check("hvpipe send /tmp/stream")
    hmc.check()
    assert hashlib.sha256((tmp_path / "stream").read_bytes()).hexdigest() == digest
    sizes = re.findall(r"hvpipe_send source 0x02000001 size (\d+) status 0\s", partition.hypervisor.since(mark))
    assert [int(size) for size in sizes] == [PORTABLE] * 5 + [1]

    back = partition.serve("hmc1", "hvpipe recv -n 6 >/tmp/back")
    lab.hmc(partition, "hmc1", "send", tmp_path / "stream").check()
    assert back.wait().status == 0
    assert partition.check("sha256sum </tmp/back").split()[0] == digest


def test_file_names(lab, partition, tmp_path):
    """Files keep name and content both ways: an empty one, one with a space in its name, a long one."""
    names = {"empty": b"", "two words.txt": b"hello\n", "long": os.urandom(20000)}
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for name, data in names.items():
        (tmp_path / name).write_bytes(data)
    partition.check("mkdir /tmp/in")
    receiver = partition.serve("hmc1", "hvpipe recv -d /tmp/in -n 3")
    said = lab.hmc(partition, "hmc1", "send", "-f", *(tmp_path / name for name in names)).check()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in names.items()}
    assert said == "".join(f"{tmp_path / name}: stored, SHA-256 {digest}\n" for name, digest in digests.items())
    assert receiver.check().splitlines() == list(names)
    sums = partition.check("cd /tmp/in && sha256sum *")
    assert sums == "".join(f"{hashlib.sha256(names[name]).hexdigest()}  {name}\n" for name in sorted(names))

    hmc = lab.hmc(partition, "hmc1", "recv", "-d", inbox, "-n", "3")
    said = partition.check("cd /tmp/in && hvpipe send -f *")
    assert said == "".join(f"{name}: stored, SHA-256 {digests[name]}\n" for name in sorted(names))
    hmc.check()
    assert {path.name: path.read_bytes() for path in inbox.iterdir()} == names


def test_both_ways(lab, partition, tmp_path):
    """Traffic both ways on two sources at the same time: everything arrives where it belongs."""
    listeners, hmcs = [], {}
    for source in ("hmc1", "hmc2"):
        listeners.append(partition.serve(source, f"hvpipe -s {source} listen -x 'sha256sum | cut -c1-64'"))
        files = []
        for number in range(10):
            path = tmp_path / f"{source}-{number}"
            path.write_bytes(os.urandom(100 + 400 * number))
            files.append(path)
        hmcs[source] = lab.hmc(partition, source, "send", "--reply", *files), files
    for hmc, files in hmcs.values():
        said = hmc.check()
        for path in files:
            assert f"{path}: {hashlib.sha256(path.read_bytes()).hexdigest()}" in said
    for listener in listeners:
        listener.stop()


def test_no_handle_drained(lab, partition, tmp_path):
    """Messages to a source without a handle are dropped and counted, and do not block the pipe."""
    def dropped():
        return int(re.search(r"(\d+) messages dropped", partition.check("hvpipe status"))[1])
    before = dropped()
    lab.hmc(partition, "hmc3", "send", *message_files(tmp_path, 20)).check()
    assert dropped() == before + 20
    echo = lab.hmc(partition, "hmc4", "echo")
    assert partition.check("printf hello | hvpipe -s hmc4 send -r") == "hello\n"
    echo.close()


def test_sleeping_reader(lab, partition, tmp_path):
    """By default an unread message stops all sources; with hold_after_ms the driver holds it for its handle, in
    order."""
    parameter = "/sys/module/papr_hvpipe/parameters/hold_after_ms"
    assert partition.check(f"cat {parameter}") == "0\n"
    sleeper = hold(partition, "hmc1", "-n 3")
    mark = partition.hypervisor.size
    slept = message_files(tmp_path, 3)
    hmc = lab.hmc(partition, "hmc1", "send", *slept)
    wait_queued(partition, "hmc1", 3, mark)
    other = lab.hmc(partition, "hmc2", "echo")
    send = "printf hello | hvpipe -s hmc2 send -r"
    assert partition.run(f"{send} -t 1").status == 6
    try:
        partition.check(f"echo 10 >{parameter}")
        assert partition.check(send) == "hello\n"
        assert held_for(partition, "hmc1") == "3"
    finally:
        partition.check(f"echo 0 >{parameter}")
    hmc.check()     # acknowledged, though not read
    resume(partition, sleeper)
    assert sleeper.wait().output == b"".join(path.read_bytes() for path in slept)
    assert partition.run(f"echo never >{parameter}").status != 0
    other.close()


def test_pipeline_into_echo(lab, partition):
    """A pipeline that sends more than the hypervisor queues, to an HMC that answers each message, ends by itself."""
    lab.hmc(partition, "hmc1", "echo")
    partition.check(f"dd if=/dev/zero bs={PAYLOAD_LIMIT} count=400 | hvpipe -s hmc1 send -m {PAYLOAD_LIMIT}")


def test_second_handle(partition):
    """A source has one handle. A second program is told who has it, and gets it when the first ends."""
    first = hold(partition, "hmc1")
    pid = partition.holder(first)
    second = partition.run("hvpipe recv -t 1")
    assert second.status == 4
    assert "hmc1" in second.stdout or "0x02000001" in second.stdout
    assert str(pid) in second.stdout
    first.kill()
    assert partition.run("hvpipe recv -t 0.1").status == 6


@pytest.mark.parametrize("source", ["hmc0", "hmc65536", "hmc", "hmcx", "0x01000001", "0x02010001", "0x102000001",
                                    "-1", "", "1x"])
def test_bad_source(partition, source):
    """An impossible source is refused by the tool and named in the message."""
    command = partition.run(f"printf x | hvpipe -s '{source}' send")
    assert command.status in (1, 2)
    assert source in command.stdout and "hvpipe:" in command.stdout


def test_unknown_source(partition):
    """A source that the hypervisor does not know gives an error that names it; the pipe goes on working."""
    command = partition.run("printf x | hvpipe -s hmc9 send")
    assert command.status != 0
    assert "hmc9" in command.stdout or "0x02000009" in command.stdout


def test_empty_message(partition):
    """An empty input is an error, as no message is empty, and so is a missing file."""
    empty = partition.run("hvpipe send </dev/null")
    assert empty.status == 1 and "empty" in empty.stdout
    missing = partition.run("hvpipe send /no/such/file")
    assert missing.status == 1 and "/no/such/file" in missing.stdout


def test_failing_command(lab, partition, tmp_path):
    """`listen` reports a command that fails or prints too much, and serves the next message."""
    for name, text in (("fail", "exit 7"), ("much", "head -c 5000 /dev/zero"), ("good", "echo fine")):
        (tmp_path / name).write_text(text)
    listener = partition.serve("hmc1", "hvpipe listen -x 'sh'")
    lab.hmc(partition, "hmc1", "send", tmp_path / "fail", tmp_path / "much").check()
    assert lab.hmc(partition, "hmc1", "send", "--reply", tmp_path / "good").check().endswith("good: fine\n")
    said = listener.stop().stdout
    assert "exit status 7" in said and "more than the 4088 bytes" in said
