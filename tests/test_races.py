# SPDX-License-Identifier: GPL-2.0-or-later
"""All operations at once on 2 and 4 CPUs: guest/race.c in the partition, which says how each message is judged.

hmc1 and hmc2 are answered by the hypervisor, hmc3 is an HMC that echoes, hmc4 one that sends as fast as it can. The
partition is suspended and resumed meanwhile.

RACES=NUMBER  run so many operations instead of 8000      SEED=NUMBER  repeat a run's random choices
"""

import os

import pytest

from faults import Pipe
from lab import ANNOUNCES_AGAIN, SPLAT
from races import Waker, run_race

OPERATIONS = int(os.environ.get("RACES") or 8000)
SUSPENDS = 3 * max(1, OPERATIONS // 8000)

# After a suspend the driver receives once, and takes an error for an empty pipe: where nothing is announced again, the
# pipe would stop at an error that is a fault.
STATUS = -1 if ANNOUNCES_AGAIN else 9900
# By the number of CPUs: the kernel's command line, and faults
CASES = {2: ("", f"receive:status={STATUS},every=20,count=0"), 4: ("papr_hvpipe.hold_after_ms=1", "")}


@pytest.mark.parametrize("cpus", CASES)
def test_races(lab, cpus, record_property):
    """Threads create, close, read, write, poll, duplicate and pass handles, and processes are killed: each message is
    accounted for, and each sleeper is woken."""
    append, faults = CASES[cpus]
    pipe = Pipe(lab, f"races-{cpus}", programs=["guest/race"], options=["-trace", "runstate_set"], smp=cpus,
                append=append)
    waker = Waker(pipe.partition)
    pipe.inject(faults)
    received, dropped = run_race(lab, pipe, OPERATIONS, SUSPENDS)
    # A message whose sender was killed meanwhile is one of these, or was not sent.
    record_property("messages", {"sent": received + dropped, "received": received, "dropped at close": dropped})
    assert 0 < waker.count <= SUSPENDS  # race.c skips suspensions once its operations are done

    lab.tidy()
    pipe.inject("")
    pipe.check_works()
    assert not SPLAT.search(pipe.partition.console.text)
    pipe.close()
