# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the main job with all four parties, show both sides' transcripts, and compare everything that was sent.

An HMC on one source sends three certificates that are made for this run: of a platform key, a key-exchange key and a
signature database. The partition stores each and says so, and a program there replies with what it read. Then the
partition sends a file of its own to an HMC on another source, which stores it and says so. All digests are compared,
and messages are counted at both ends and in the hypervisor.
"""

import argparse
import hashlib
import re
import time
from pathlib import Path
from typing import NamedTuple

from . import Lab, LabError, source_id
from .certificates import make_certificates
from .paths import LOGS


class Counts(NamedTuple):
    """Messages of one source, from the hypervisor's trace."""
    from_hmc: int       # that its HMC sent
    received: int       # that the partition received of these
    sent: int           # that the partition sent
    at_hmc: int         # that its HMC acknowledged of these


def say(text: str, start=time.monotonic()):
    """Print a line of progress."""
    print(f"run: [{time.monotonic() - start:4.1f} s] {text}", flush=True)


def show(title: str, text: str):
    """Print one party's transcript."""
    print(f"\n--- {title}")
    print("".join(f"    {line}\n" for line in text.splitlines()), flush=True)


def digest(path: Path) -> str:
    """SHA-256 of a file on the host."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compare(what: str, sent: str, arrived: str | None):
    """Fail unless both digests are the same."""
    if sent != arrived:
        raise LabError(f"{what}: sent with SHA-256 {sent}, arrived with {arrived or 'none'}")
    print(f"    {what}: {sent} at both ends")


def count(trace: str, source: str) -> Counts:
    """Count the messages of SOURCE in the hypervisor's TRACE."""
    name = f"source {source_id(source):#010x}"
    frames = re.findall(rf"frame_in {name} type (\d+) length \d+ sequence (\d+)", trace)
    from_hmc = {int(sequence) for kind, sequence in frames if kind == "1"}
    received = re.findall(rf"hvpipe_receive {name} size [1-9]\d* status 0$", trace, re.M)
    sent = re.findall(rf"hvpipe_send {name} size \d+ status 0$", trace, re.M)
    acknowledged = max([int(sequence) for kind, sequence in frames if kind == "2"], default=0)
    return Counts(len(from_hmc), len(received), len(sent), acknowledged)


def stored(text: str) -> dict[str, str]:
    """What a sender of files printed of them: {file: SHA-256}, for those that their receiver has stored."""
    return dict(re.findall(r"^(\S+): stored, SHA-256 ([0-9a-f]{64})$", text, re.M))


def exchange(lab: Lab) -> Counts:
    """Do it all; returns the counts of both sources together."""
    files = lab.scratch("files")
    inbox = lab.scratch("inbox")
    certificates = make_certificates(files)
    say("made " + ", ".join(f"{path.name} ({path.stat().st_size} bytes)" for path in certificates))

    partition = lab.partition(name="run", sources=["hmc1", "hmc2"])
    say(f"partition up: {partition.check('uname -srm').strip()} (console: build/logs/run.console.log)")

    partition.check("mkdir -p /var/hmc1")
    listen = "hvpipe -s hmc1 listen -d /var/hmc1 -x 'sha256sum | cut -c1-64'"
    listener = partition.serve("hmc1", listen)
    hmc1 = lab.hmc(partition, "hmc1", "send", "-f", "--reply", *(path.name for path in certificates), cwd=files)
    hmc2 = lab.hmc(partition, "hmc2", "recv", "-d", inbox, "-n", "1")
    hmc1.check()
    say("hmc1 sent its certificates; the partition has stored them and replied")
    status = partition.check("hvpipe status")

    own = "/root/boot-messages.txt"
    sending = partition.run(f"dmesg >{own} && sha256sum <{own} && hvpipe -s hmc2 send -f {own}")
    own_digest = sending.check().split()[0]
    hmc2.check()
    say("hmc2 has stored the partition's file")

    listed = partition.check("cd /var/hmc1 && ls -l *.crt && sha256sum *.crt")
    arrived = dict(reversed(line.split()) for line in listed.splitlines() if re.match(r"[0-9a-f]{64} ", line))
    replies = dict(re.findall(r"^(\S+): ([0-9a-f]{64})$", hmc1.out.text, re.M))
    listener.stop()
    if partition.poweroff() != 0:
        raise LabError(f"the hypervisor ended with status {partition.process.returncode}, see {partition.qemu_log}")

    show("the HMC on hmc1", hmc1.err.text + hmc1.out.text)
    show("the HMC on hmc2", hmc2.err.text + hmc2.out.text)
    show("the partition", f"$ {listen} &\n{listener.stdout}$ hvpipe status\n"
         f"{status}$ hvpipe -s hmc2 send -f {own}\n{sending.stdout}$ ls -l *.crt; sha256sum *.crt\n{listed}")

    print("--- digests")
    for path in certificates:
        compare(f"{path.name} in the partition", digest(path), arrived.get(path.name))
        compare(f"{path.name} as the receiver says", digest(path), stored(hmc1.out.text).get(path.name))
        compare(f"{path.name} as replied to the HMC", digest(path), replies.get(path.name))
    compare(f"{Path(own).name} at the HMC", own_digest, digest(inbox / Path(own).name))
    compare(f"{Path(own).name} as the receiver says", own_digest, stored(sending.stdout).get(own))

    # Each party counts on its own: the hypervisor by its trace, the HMC and the partition by their own counters.
    trace = partition.hypervisor.text
    first, second = count(trace, "hmc1"), count(trace, "hmc2")
    counts = Counts(*map(sum, zip(first, second)))
    hmc_count = sum(int(number) for number in re.findall(r"bytes in (\d+) messages?, all acknowledged", hmc1.err.text))
    # The driver that Linux ships counts nothing: "-" in place of each.
    held = re.search(r"^(?:0x02000001|-)\s+\S+\s+(\d+|-)\s+\S+\s+(\d+|-)", status, re.M)
    if not held:
        raise LabError(f"nobody holds hmc1:\n{status}")
    print(f"\n--- messages\n    hmc1 to the partition: {hmc_count} counted by the HMC, {first.from_hmc} taken and "
          f"{first.received} handed over by the hypervisor, {held[2]} counted by the partition\n"
          f"    the partition to hmc1: {first.sent} sent, {first.at_hmc} acknowledged by the HMC, {held[1]} counted by "
          f"the partition: an answer and a reply for each of {len(certificates)} files\n"
          f"    the partition to hmc2: {second.sent} sent, {second.at_hmc} acknowledged by the HMC; "
          f"{second.received} answer back\n")
    told = zip(held.groups(), (2 * len(certificates), first.received))
    if (hmc_count, second.received) != (first.from_hmc, 1) or \
            any(text not in ("-", str(number)) for text, number in told):
        raise LabError("the parties' counts differ, see above")
    return counts


def add_arguments(parser: argparse.ArgumentParser):
    """The command line: nothing to choose."""


def main(arguments: argparse.Namespace) -> int:     # pylint: disable=unused-argument
    """Run it; the last line says how it went."""
    try:
        with Lab() as lab:
            counts = exchange(lab)
    except LabError as error:
        raise LabError(f"failed: {error}\nrun: logs are in {LOGS}") from error
    lost = counts.from_hmc - counts.received + counts.sent - counts.at_hmc
    print(f"run: {counts.received} to partition, {counts.at_hmc} to HMC, {lost} lost")
    return 1 if lost else 0
