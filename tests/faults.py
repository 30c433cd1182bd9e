# SPDX-License-Identifier: GPL-2.0-or-later
"""Partitions with faults to inject and steps to run, for the tests of failures.

Steps are run by guest/steps.c, which describes them. A test writes them together with their expected results, so that
the output of a run must equal what the test wrote:

    open1 write1 poll1=in,out read1=EIO read1=1.1 close1

hmc1 and hmc2 answer each message with itself, hmc3 is an HMC that does the same, and each test has hmc4 for itself. The
payload of the second write to hmc1 is "1.2". After each test proven() checks that all faults struck, that every source
works both ways, and that no message was dropped that the test did not announce.
"""

import re

import pytest

from lab import Hmc, LabError, source_id

HMC4 = f"{source_id('hmc4'):#010x}"
INJECT = "/machine/peripheral/hvpipe", "inject"

# Malformed events, and what read() returns for them beside the messages
EVENTS = {"spurious": "", "duplicate": "", "no-section": "", "short-section": "", "unknown-source": "",
          "both-bits": "read{n}=lost ", "unknown-bits": "", "wrong-type": ""}
LOST = "replace-event:lost"     # an event that does not come at all
ANY = "event:no-section"        # any event makes the driver look for messages


class Pipe:
    """A partition with faults to inject and steps to run."""

    def __init__(self, lab, name, programs=(), **how):
        self.partition = lab.partition(name=name, echo=["hmc1", "hmc2"], sources=["hmc3", "hmc4"],
                                       programs=["guest/steps", *programs], **how)
        self.prepare()
        # The lab would end this HMC after each test.
        self.echo = Hmc(self.partition.addresses("hmc3"), "echo")
        self.echo.err.wait_for("connected to")
        self.drops = 0      # messages that the current test makes the driver drop

    def prepare(self):
        """Make what the step `meet` needs, once a boot."""
        self.partition.check("mkfifo /tmp/meet /tmp/met")

    def check_kernel(self):
        """Fail if the kernel's detectors have found something."""
        self.partition.check_detectors()
        self.partition.check_leaks()

    def close(self):
        """Check the kernel and power the partition off, if it runs."""
        if self.partition.process.poll() is None:
            self.check_kernel()
        assert self.partition.poweroff() == 0
        self.echo.close()

    @property
    def faults(self):
        """The faults that have not struck yet."""
        return self.partition.qmp.get(*INJECT)

    def inject(self, faults):
        """Inject FAULTS into the hypervisor, in place of those that are there."""
        self.partition.qmp.set(*INJECT, faults)

    def start(self, steps):
        """Start STEPS; returns the command."""
        return self.partition.start("exec steps " + re.sub(r"=\S+", "", steps))

    def run(self, steps):
        """Run STEPS; returns their output: STEPS again, if all results are as expected."""
        return self.start(steps).check()

    def meet(self):
        """Meet a program at its step `meet`: each waits for the other."""
        self.partition.check("echo >/tmp/meet; cat /tmp/met")

    def wait_struck(self, target, since, count=1):
        """Wait until a fault of TARGET has struck COUNT times after SINCE."""
        self.partition.hypervisor.wait_for(rf"(?s)(hvpipe_fault {target}\s.*?){{{count}}}", since=since)

    def dropped(self):
        """How many messages the driver has dropped since boot."""
        return int(re.search(r"(\d+) messages dropped", self.partition.check("hvpipe status"))[1])

    def check_works(self):
        """Check that every source works both ways and nothing is pending; returns what dropped() would.

        hmc4 must have no HMC: one is started for this, and its end is reported as a loss. hmc4 is opened after the
        others have their answers: all sources share one queue, so by then anything left there for hmc4 has been
        dropped. The last event is that of a message from hmc3.
        """
        steps = ("open1 open2 open3 now1=out now2=out now3=out "
                 "write3 take3=3.1 write2 write1 write2 take2=2.1 take1=1.1 take2=2.2 "
                 "open4 now4=out proof4 write4 take4=4.1001 take4=lost write3 take3=3.2 "
                 "read1=nothing read2=nothing read3=nothing read4=nothing close1 close2 close3 close4")
        hmc = Hmc([self.partition.sockets["hmc4"]], "echo", name="HMC of the proof")
        try:
            hmc.err.wait_for("connected to")
            mark = self.partition.hypervisor.size
            # One command for both, as each command takes time.
            command = self.partition.start(re.sub(r"=\S+", "", f"steps {steps}") + "; echo; hvpipe status")
            try:
                self.partition.hypervisor.wait_for(rf"frame_out source {HMC4} type 2 length 8 sequence 1\s", since=mark)
            except LabError as error:
                raise LabError(f"the proof stopped after {command.kill().stdout!r}: {error}") from None
        finally:
            hmc.close()
        output = command.check().splitlines()
        assert output[0] == steps
        status = re.search(r"pipe enabled, 0 sources open, (\d+) messages dropped", output[-1])
        assert status, output
        return int(status[1])


def proven(pipe, lab):
    """Run a test, then check that the pipe works and that the driver dropped as many messages as the test says."""
    pipe.drops = 0
    before, mark = pipe.dropped(), pipe.partition.console.size
    yield pipe
    lab.tidy()
    left = pipe.faults
    pipe.inject("")
    dropped = pipe.check_works()
    assert left == "", "a fault did not strike"
    assert dropped - before == pipe.drops
    console = pipe.partition.console.since(mark)
    for bad in ("Oops", "BUG:", "WARNING:", "Call Trace", "rcu: INFO"):
        assert bad not in console, f"the kernel complained:\n{console[-4000:]}"


def console_hmc(lab, pipe, **how):
    """hmc4, connected: a line written to it is a message."""
    hmc = lab.hmc(pipe.partition, "hmc4", "console", stdin=True, **how)
    hmc.err.wait_for("connected to")
    return hmc


def pairs(operations, faults):
    """Parameters for each of OPERATIONS with each of FAULTS. A fault may be a tuple with further values."""
    faults = [(fault,) if isinstance(fault, str) else fault for fault in faults]
    return [pytest.param(operation, *fault, id=f"{operation}-{fault[0]}") for operation in operations
            for fault in faults]


class Suspension:
    """The partition suspends itself and resumes when it is told to."""

    def __init__(self, pipe):
        self.partition = pipe.partition
        self.mark = self.partition.hypervisor.size
        self.command = self.partition.start("echo 1 >/sys/kernel/mobility/migration")

    def wait_asleep(self):
        """Wait until the partition is suspended."""
        self.partition.hypervisor.wait_for(r"runstate_set .* new_state \d+ \(suspended\)", since=self.mark)

    def wake(self):
        """Resume the partition; returns when the partition says that it has resumed."""
        self.partition.qmp.execute("system_wakeup")
        self.command.check()


def suspend(pipe):
    """Suspend the partition; returns when it is suspended."""
    suspension = Suspension(pipe)
    suspension.wait_asleep()
    return suspension


def switches(pipe, since):
    """Each time that the pipe was enabled (1) or disabled (0), in order: "0101..."."""
    return "".join(re.findall(r"hvpipe_enable enabled ([01])", pipe.partition.hypervisor.since(since)))


def wait_queued(pipe, sequence, since):
    """Wait until the hypervisor has hmc4's message SEQUENCE."""
    pipe.partition.hypervisor.wait_for(rf"frame_in source {HMC4} type 1 length \d+ sequence {sequence}\s", since=since)


def pipe_state(pipe):
    """The state that the driver reports."""
    return re.search(r"^pipe (\w+),", pipe.partition.check("hvpipe status"), re.M)[1]
