# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic through a partition with every message accounted for: the common part of `make soak` and `make migrate`.

There are four sources. hmc1 and hmc2 are `hvpipe-hmc --state console`: each line that we type is a message to the
partition, and each line that they print is a message from it. hmc3 is `hvpipe-hmc --state echo`. hmc4 is answered by
the hypervisor itself. In the partition a peer, guest/soak-peer.c, has each source open. Sizes are 1 to the longest
message that a partition can send.

Each source numbers its messages in each direction. A message contains its source, direction, number and size, and a
CRC-32 of all that. A message shorter than 40 bytes has no room for them: its size and bytes follow from source,
direction and number by a hash, and the receiver looks for the next number that gives these bytes. Receivers see
numbers grow by one, except for gaps; anything else is an error.

Each message is judged by these rules:

- A write() in the partition that succeeded: sent. The HMC must get it once, or it is lost or duplicated.
- A write() that failed with EPIPE or ENXIO: in doubt, as the HMC may have the message. The peer sends the same bytes
  until that succeeds. They count once, and may arrive once more for each failure; more often is duplicated. The peer
  keeps a list of messages in doubt.
- A write() under way when its process was killed: unknown, and not sent again. If the HMC got it, it counts as sent
  and received, else as neither. The peer keeps a list of unknown messages in a mapped file.
- A read() that had completed but was not counted when its process was killed: the message is in the mapped file, and
  the next run of the peer counts it.
- A line typed to an HMC that was killed before it stored the line in its state: the restarted HMC says how many it
  has stored, and we type the next. What it has stored is sent.
- A line that an HMC printed but did not record before it was killed: it prints the line again with the same number in
  brackets, as hvpipe-hmc(1) says. If it is the first line after a restart, it counts once. A truncated line does not
  count.
- A message to the partition that did not arrive: dropped at close, if the driver dropped as many for its source. If
  more are missing, the rest is lost; if fewer, some were dropped and received too: duplicated. The driver's trace has
  an event for each dropped message, and these must be as many as its counter says.
- hmc3 shows what it received only by its answers. At the end its state file tells how many it received. That must be
  at least the messages sent for sure, and at most these and the unknown ones.
- hmc4 received what the hypervisor took for it, and those unknown messages whose answers were received or dropped. The
  answer to an unknown message is never missed: there may have been none.
- Misrouted: a message that came to the wrong receiver, was never sent, came out of order, or has a wrong checksum.
- A stall: nothing arrived or was dropped for 60 s while there was work to do. It ends the traffic. Messages that have
  not arrived by then count as lost, except those of hmc3, which cannot be asked any more.
"""

from .run import Traffic

PROGRESS = 3    # seconds between lines of progress

__all__ = ["PROGRESS", "Traffic"]
