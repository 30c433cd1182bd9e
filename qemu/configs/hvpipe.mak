# SPDX-License-Identifier: GPL-2.0-or-later
#
# The devices of the partition: a pseries machine and nothing else; every
# device less is build time saved. Goes to
# configs/devices/ppc64-softmmu/hvpipe.mak in QEMU's tree.

CONFIG_PSERIES=y
CONFIG_DIMM=y
CONFIG_NVDIMM=y
# No controller, but the machine's code links against the core.
CONFIG_USB=y
