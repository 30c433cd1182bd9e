# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests share: a lab, and partitions that are booted once and used by many tests."""

import re

import pytest

import reliability
from faults import proven
from lab import BUILD, KERNEL, SPLAT, Lab
from lab.hypervisor import BOOTED, MOVED

# Fast modules first; those that boot partitions of their own last.
ORDER = ("test_build", "test_bench", "test_install", "test_kernels", "test_unit", "test_link", "test_serve",
         "test_hvpiped", "test_completion", "test_kunit", "test_abi", "test_library", "test_pipe", "test_tools",
         "test_daemon", "test_doctor", "test_loss", "test_faults",
         "test_pairs", "test_suspend", "test_races", "test_failslab", "test_migrate", "test_kexec", "test_boot",
         "test_cost", "test_peers", "test_fuzz", "test_shell", "test_run", "test_soak", "test_silence",
         "test_reliability")


def pytest_addoption(parser):
    """Add the option of test_cost.py."""
    parser.addoption("--write-cost", action="store_true", help="write new numbers into costs.json")


def pytest_collection_modifyitems(items):
    """Run the modules in ORDER, others last."""
    def place(item):
        name = item.module.__name__
        return ORDER.index(name) if name in ORDER else len(ORDER)
    items.sort(key=place)


def pytest_report_header():
    """Show what is tested."""
    return [f"hvpipe {reliability.commit()}", f"{KERNEL}: {(BUILD / KERNEL).resolve()}",
            *(f"QEMU: {place}" for place in sorted({BOOTED, MOVED}))]


def pytest_configure(config):
    """Let tests know whether all of them are run."""
    config.whole = config.args == ["tests"] and not (config.option.keyword or config.option.markexpr)


def pytest_runtest_logreport(report):
    """Keep what the tests prove."""
    reliability.note(report)


def pytest_sessionfinish(session):
    """Write what a whole run has proved."""
    if session.config.whole:
        reliability.write()


@pytest.fixture(scope="session", name="lab")
def the_lab():
    """The lab of this test run; everything in it ends with the run."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="session", name="shared")
def shared_partition(lab):
    """A partition with four sources for HMCs. Tests that use it must leave it working."""
    return lab.partition(name="shared", sources=["hmc1", "hmc2", "hmc3", "hmc4"])


@pytest.fixture(scope="session")
def echoing(lab):
    """A partition whose hypervisor answers for hmc1 and hmc2, and whose kernel ran its KUnit tests."""
    return lab.partition(name="echoing", echo=["hmc1", "hmc2"], append="kunit.enable=1", programs=["lib/test-driver"])


@pytest.fixture(name="pipe")
def proven_pipe(lab, machine):
    """The module's own partition, MACHINE, which is checked after each test; see faults.py."""
    yield from proven(machine, lab)


@pytest.fixture(autouse=True)
def pair(request, record_property):
    """Record the fault and the operation of a test that has both as parameters, for docs/reliability.md."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if {"fault", "operation"} <= parameters.keys():
        record_property("fault", parameters["fault"])
        record_property("operation", parameters["operation"])


@pytest.fixture(autouse=True)
def tidy(request):
    """End what a test leaves running, so that the next test does not fail for it."""
    yield
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").tidy()


@pytest.fixture(name="partition")
def idle_partition(lab, shared):
    """The shared partition. Before and after the test no handle is open, and the kernel has not complained."""
    def check_idle():
        # The driver that Linux ships tells neither state nor number, but a source that is open has a line.
        status = shared.check("hvpipe status")
        assert re.fullmatch("pipe (enabled, 0|-, -) sources open, [^\n]*\n", status), status
    check_idle()
    mark = shared.console.size
    yield shared
    lab.tidy()
    check_idle()
    console = shared.console.since(mark)
    assert not SPLAT.search(console), f"the kernel complained:\n{console[-4000:]}"
