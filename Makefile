# SPDX-License-Identifier: GPL-2.0-or-later
#
# The front door to the lab (python3 -m lab). Everything slow is kept in a cache outside the checkout.

export LINUX_SRC QEMU_SRC HVPIPE_CACHE KERNEL QEMU CPU APPEND PERSONALITY SEED BASELINE DOCS FIXES

PREFIX ?= /usr/local
PYTHON := /usr/bin/python3
LAB := $(PYTHON) -m lab
PARTS := host vmlinux qemu-system-ppc64 initramfs.cpio.gz
TESTS ?= tests
QUICK := $(patsubst %,tests/test_%.py,build unit kunit abi pipe)
N ?= 100000
CYCLES ?= 5
SECONDS ?= 60
COMMA := ,
QEMUS = $(addprefix qemu-,$(subst $(COMMA), ,$(QEMU)))

.PHONY: help build run test quick test-kernels test-fixes soak migrate fuzz bench shell check format install \
	install-partition deb debian series patches fresh update clean packages

help:
	@echo 'hvpipe: messages between an HMC and a partition through the hypervisor pipe'
	@echo
	@echo '  make run      the main job from nothing: build all, boot, exchange files both ways'
	@echo '                                                   (KERNEL=debian: on the kernel that Debian has)'
	@echo '  make test     every test                        (TESTS="tests/test_pipe.py -k burst": some;'
	@echo '                                                   KERNEL=vmlinux-debug: on a kernel that finds bugs;'
	@echo '                                                   PERSONALITY=empty-receive=-1: under other firmware;'
	@echo '                                                   QEMU=trixie: on the QEMU of that Debian release;'
	@echo '                                                   QEMU=bookworm,trixie: boot on one, move to the other)'
	@echo '  make test-kernels  the tests on each kernel that people have: build/kernels.md'
	@echo '                                                   (KERNELS=debian: only that; DOCS=1: into docs/)'
	@echo '  make quick    build what changed, then the tests that take a minute: unit, KUnit, ABI, pipe'
	@echo '  make test-fixes  each defect of the driver that Linux ships, without and with its fix  (FIXES=NAME,...: some)'
	@echo '  make soak     long traffic with closes, kills and restarts, every message accounted for  (N=100000, SEED=)'
	@echo '  make migrate  move the partition between two machines under traffic, every message accounted for'
	@echo '                                                   (CYCLES=5: that many moves, SEED=)'
	@echo '  make fuzz     random input for every parser and random calls on the device         (SECONDS=60, SEED=)'
	@echo '  make bench    what each call costs, in guest instructions      (BASELINE=path/to/vmlinux: that'
	@echo '                                                   kernel too; =debian: the newest one that Debian'
	@echo '                                                   has, with its driver and ours; DOCS=1: into docs/)'
	@echo '  make shell    a console in the partition and one on the HMC, side by side'
	@echo '                                                   ($(LAB) fault: faults of its hypervisor)'
	@echo '  make check    every checker: compilers, sparse, checkpatch, linters, format, links'
	@echo '  make format   format the C code of user space'
	@echo '  make install  hvpipe-hmc on this machine                 (PREFIX=$(PREFIX), DESTDIR=)'
	@echo '  make install-partition DESTDIR=DIR'
	@echo '                libhvpipe and hvpipe for Power (ppc64el), to be copied into a partition (PREFIX=)'
	@echo '  make deb      Debian packages in build/deb/RELEASE: of libhvpipe, hvpipe and hvpiped for a partition, of'
	@echo '                hvpipe-hmc and hvpipe-lab for a PC         (RELEASE=trixie, bookworm or forky; as root)'
	@echo '  make debian   a partition with Debian, its own kernel, systemd and these packages: its console and one'
	@echo '                on the HMC, side by side           (RELEASE=trixie or forky; TEST=1: test it; as root;'
	@echo '                                                   KERNEL=vmlinux-disk: on our kernel and driver)'
	@echo '  make patches  refresh linux/ and qemu/ from the commits in the work trees of Linux and QEMU'
	@echo '  make fresh    run and test in a new root of a Debian release (RELEASE=bookworm, TESTS=; as root)'
	@echo '  make series   patch series for Linux and QEMU in build/series       (COMPILE=1: and compile each'
	@echo '                                                   step of Linux'"'"'s)'
	@echo '  make build    what run and test need, without running it'
	@echo '  make update   forget the fetched sources; the next build takes the release'\''s newest'
	@echo '  make clean    remove build/ (the cache stays)'
	@echo
	@echo 'LINUX_SRC=DIR, QEMU_SRC=DIR  other source trees     HVPIPE_CACHE=DIR  another cache'

# Nothing but this installs anything on the host; it does nothing when all is there.
packages:
	@packaging/install-packages

build: packages
	@$(LAB) build $(PARTS) $(KERNEL) $(QEMUS)

BUILT := $(addprefix build/,vmlinux vmlinux-debug vmlinux-kcsan vmlinux-plain vmlinux-bench qemu-system-ppc64 \
	initramfs.cpio.gz host partition)
.PHONY: $(BUILT)
$(BUILT): packages
	@$(LAB) build $(@F)

run: build
	@$(LAB) run

test: build
	@$(LAB) build vmlinux-plain
	@$(PYTHON) -m pytest $(TESTS)

quick: build
	@$(PYTHON) -m pytest $(QUICK)

test-kernels: build
	@$(LAB) build $(or $(KERNELS),vmlinux-4k vmlinux-newer-4k vmlinux-big-endian debian debian-64k \
		vmlinux-debian-fixed)
	@$(LAB) kernels $(KERNELS)

test-fixes: build
	@$(LAB) build vmlinux-debian vmlinux-debian-fixed
	@$(LAB) fixes

soak: build
	@$(LAB) soak $(N)

migrate: build
	@$(LAB) migrate $(CYCLES)

fuzz: build
	@$(LAB) fuzz $(SECONDS)

bench: build
	@$(LAB) build vmlinux-bench vmlinux-network $(if $(filter debian,$(BASELINE)),vmlinux-debian vmlinux-debian-ours)
	@$(PYTHON) -m bench

shell: build
	@$(LAB) shell

check: packages
	@$(LAB) check

format: packages
	@$(LAB) format

series: packages
	@$(LAB) series $(if $(COMPILE),--compile)

fresh:
	@$(LAB) fresh $(or $(RELEASE),bookworm) --tests='$(TESTS)'

patches: packages
	@$(LAB) patches

# Only what is installed is built, and only its own packages are asked for.
install:
	@packaging/install-packages hmc
	@$(LAB) install hmc --prefix='$(PREFIX)' --destdir='$(DESTDIR)'

install-partition:
	@packaging/install-packages partition
	@$(LAB) install partition --prefix='$(PREFIX)' --destdir='$(DESTDIR)'

# hvpipe-lab holds what the second line builds.
deb: packages
	@packaging/install-packages deb
	@$(LAB) build qemu-system-ppc64 vmlinux initramfs.cpio.gz
	@$(LAB) deb $(or $(RELEASE),trixie)

debian: packages
	@packaging/install-packages debian
	@$(LAB) build $(PARTS) $(filter vmlinux-disk,$(KERNEL))
	@$(LAB) debian $(or $(RELEASE),trixie) $(if $(TEST),--test)

update: packages
	@$(LAB) update

clean:
	rm -rf build
