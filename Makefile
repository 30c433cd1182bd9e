# SPDX-License-Identifier: GPL-2.0-or-later
#
# The front door. Everything slow is built by scripts/build and kept in a cache outside the checkout.

export LINUX_SRC QEMU_SRC HVPIPE_CACHE KERNEL SEED BASELINE DOCS

PREFIX ?= /usr/local
PYTHON := /usr/bin/python3
PARTS := host vmlinux qemu-system-ppc64 initramfs.cpio.gz
TESTS ?= tests
N ?= 100000
CYCLES ?= 5
SECONDS ?= 60

.PHONY: help build run test soak migrate fuzz bench shell check install series update clean packages

help:
	@echo 'hvpipe: messages between an HMC and a partition through the hypervisor pipe'
	@echo
	@echo '  make run      the main job from nothing: build all, boot, exchange files both ways'
	@echo '  make test     every test                        (TESTS="tests/test_pipe.py -k burst": some;'
	@echo '                                                   KERNEL=vmlinux-debug: on a kernel that finds bugs)'
	@echo '  make soak     long traffic with closes, kills and restarts, every message accounted for  (N=100000, SEED=)'
	@echo '  make migrate  move the partition between two machines under traffic, every message accounted for'
	@echo '                                                   (CYCLES=5: that many moves, SEED=)'
	@echo '  make fuzz     random input for every parser and random calls on the device         (SECONDS=60, SEED=)'
	@echo '  make bench    what each call costs, in guest instructions      (BASELINE=path/to/vmlinux: that'
	@echo '                                                   kernel too; =debian: the newest one that Debian'
	@echo '                                                   has, with its driver and ours; DOCS=1: into docs/)'
	@echo '  make shell    a console in the partition and one on the HMC, side by side'
	@echo '                                                  (scripts/fault: have its hypervisor do wrong)'
	@echo '  make check    checkpatch, sparse, warnings, linters'
	@echo '  make install  library, tools, headers, man pages   (PREFIX=$(PREFIX), DESTDIR=)'
	@echo '  make series   patch series for Linux and QEMU in build/series'
	@echo '  make build    what run and test need, without running it'
	@echo '  make update   forget the fetched sources; the next build takes the release'\''s newest'
	@echo '  make clean    remove build/ (the cache stays)'
	@echo
	@echo 'LINUX_SRC=DIR, QEMU_SRC=DIR  other source trees     HVPIPE_CACHE=DIR  another cache'

# Nothing but this installs anything on the host; it does nothing when all is there.
packages:
	@scripts/install-packages

build: packages
	@scripts/build $(PARTS) $(KERNEL)

BUILT := $(addprefix build/,vmlinux vmlinux-debug vmlinux-kcsan vmlinux-plain vmlinux-bench qemu-system-ppc64 \
	initramfs.cpio.gz host partition)
.PHONY: $(BUILT)
$(BUILT): packages
	@scripts/build $(@F)

run: build
	@scripts/run

test: build
	@scripts/build vmlinux-plain
	@$(PYTHON) -m pytest $(TESTS)

soak: build
	@scripts/soak $(N)

migrate: build
	@scripts/migrate $(CYCLES)

fuzz: build
	@scripts/fuzz $(SECONDS)

bench: build
	@scripts/build vmlinux-bench vmlinux-network $(if $(filter debian,$(BASELINE)),vmlinux-debian vmlinux-debian-ours)
	@scripts/bench

shell: build
	@scripts/shell

check: packages
	@scripts/check

series: packages
	@scripts/series

install: packages
	@scripts/build host
	@meson configure build/host -Dprefix=$(PREFIX)
	@DESTDIR=$(DESTDIR) meson install -C build/host

update: packages
	@scripts/build update

clean:
	rm -rf build
