# SPDX-License-Identifier: GPL-2.0-or-later
"""`make install` and `make install-partition`: each installs its own part, for its own machine."""

import os
import subprocess

import pytest

from lab import TOP

# In an ELF file's header: 64 bits, byte order; at offset 18 the machine
POWER = (b"\x7fELF\x02\x01", b"\x15\x00")


def install(target, place):
    """Run `make TARGET` into PLACE; returns the paths of what it installed, below PLACE, without what Debian 13's Meson
    compiles of Python.
    """
    done = subprocess.run(["make", target, f"DESTDIR={place}", "PREFIX=/usr"], cwd=TOP, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=600,
                          env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")})
    assert done.returncode == 0, done.stdout
    return {str(path.relative_to(place)): path for path in place.rglob("*")
            if not path.is_dir() and path.parent.name != "__pycache__"}


def is_for_power(path):
    """Whether PATH is a program or library for ppc64el."""
    data = path.read_bytes()[:20]
    return (data[:6], data[18:20]) == POWER


def test_hmc(tmp_path):
    """The HMC's part is hvpipe-hmc for this machine with its page, and the Python module; nothing for a partition."""
    found = install("install", tmp_path)
    module = "usr/lib/python3/dist-packages/hvpipe_hmc.py"
    assert set(found) == {"usr/bin/hvpipe-hmc", "usr/share/man/man1/hvpipe-hmc.1", module}
    assert found[module].read_bytes() == (TOP / "tools/hmc/hvpipe_hmc.py").read_bytes()
    said = subprocess.run([found["usr/bin/hvpipe-hmc"], "--version"], check=True, stdout=subprocess.PIPE, text=True)
    assert "hvpipe-hmc" in said.stdout


def test_partition(tmp_path):
    """The partition's part is tool, library, header and pages; all that is compiled is for Power."""
    found = install("install-partition", tmp_path)
    names = {name.removeprefix("usr/") for name in found}
    assert {"bin/hvpipe", "lib/libhvpipe.so", "lib/libhvpipe.a", "include/hvpipe.h", "lib/pkgconfig/libhvpipe.pc",
            "share/man/man1/hvpipe.1", "share/man/man3/hvpipe.3"} <= names
    assert not [name for name in names if "hmc" in name or "test" in name]
    for name, path in found.items():
        if not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            assert is_for_power(path), name
    assert is_for_power(found["usr/bin/hvpipe"]) and is_for_power(found["usr/lib/libhvpipe.so"].resolve())


def listed(*arguments):
    """The packages that install-packages would install."""
    done = subprocess.run([TOP / "packaging/install-packages", "--list", *arguments], check=True, text=True,
                          stdout=subprocess.PIPE)
    return set(done.stdout.split())


@pytest.mark.parametrize("part", ["hmc", "partition"])
def test_packages(part):
    """Neither part asks for packages that only tests, checks, kernels or QEMU need; all are in the one list."""
    asked = listed(part)
    assert "meson" in asked and asked < listed()
    assert not asked & {"libcmocka-dev", "abigail-tools", "python3-pytest", "clang", "valgrind", "tmux", "sparse",
                        "libpixman-1-dev", "libelf-dev", "flex"}


@pytest.mark.parametrize("part", ["deb", "debian"])
def test_packages_of_few(part):
    """What only `make deb` or `make debian` needs is installed by nothing else."""
    asked = listed(part)
    assert "debootstrap" in asked and not asked & listed()
