# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests share: one lab, and partitions that are booted once and used by many tests."""

import pytest

import reliability
from lab import BUILD, KERNEL, SPLAT, Lab

# The fast ones first; what boots a partition of its own last.
ORDER = ("test_build", "test_bench", "test_unit", "test_kunit", "test_abi", "test_pipe", "test_loss", "test_faults",
         "test_pairs", "test_suspend", "test_races", "test_failslab", "test_migrate", "test_kexec", "test_boot",
         "test_cost", "test_peers", "test_fuzz", "test_shell", "test_run", "test_soak", "test_silence",
         "test_reliability")


def pytest_collection_modifyitems(items):
    """Run the modules in ORDER, those not named there last."""
    def place(item):
        name = item.module.__name__
        return ORDER.index(name) if name in ORDER else len(ORDER)
    items.sort(key=place)


def pytest_report_header():
    """Say what is tested."""
    return [f"hvpipe {reliability.commit()}"] + [f"{name}: {(BUILD / name).resolve()}" for name in
                                                 (KERNEL, "qemu-system-ppc64")]


def pytest_configure(config):
    """Tell the tests whether all of them are run."""
    config.whole = config.args == ["tests"] and not (config.option.keyword or config.option.markexpr)


def pytest_runtest_logreport(report):
    """Keep what the tests prove."""
    reliability.note(report)


def pytest_sessionfinish(session):
    """Write the page that a whole run gives."""
    if session.config.whole:
        reliability.RUN.write_text(reliability.page(), encoding="utf-8")


@pytest.fixture(scope="session", name="lab")
def the_lab():
    """The lab of this test run; all in it ends with the run."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="session", name="shared")
def shared_partition(lab):
    """A partition with four sources that HMCs connect to. Tests that use it leave it working."""
    return lab.partition(name="shared", sources=["hmc1", "hmc2", "hmc3", "hmc4"])


@pytest.fixture(scope="session")
def echoing(lab):
    """A partition whose hypervisor answers for hmc1 and hmc2 itself, and whose kernel ran its KUnit tests."""
    return lab.partition(name="echoing", echo=["hmc1", "hmc2"], append="kunit.enable=1")


@pytest.fixture(autouse=True)
def pair(request, record_property):
    """Note of a test of a pair which fault it makes, and which operation meets it: docs/reliability.md counts them."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if {"fault", "operation"} <= parameters.keys():
        record_property("fault", parameters["fault"])
        record_property("operation", parameters["operation"])


@pytest.fixture(autouse=True)
def tidy(request):
    """End what a test leaves running, so that the next one does not fail for it."""
    yield
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").tidy()


@pytest.fixture(name="partition")
def idle_partition(lab, shared):
    """The shared partition, seen to be idle before the test and after it: no handle open, nothing crashed."""
    def check_idle():
        status = shared.check("hvpipe status")
        assert "pipe enabled, 0 sources open" in status, status
    check_idle()
    mark = shared.console.size
    yield shared
    lab.tidy()
    check_idle()
    said = shared.console.since(mark)
    assert not SPLAT.search(said), f"the kernel complained:\n{said[-4000:]}"
