# SPDX-License-Identifier: GPL-2.0-or-later
"""A Lab: partitions and HMCs that run together and are ended together.

    with Lab() as lab:
        partition = lab.partition(sources=["hmc1", "hmc2"])
        partition.run("hvpipe status").check()
        hmc = lab.hmc(partition, "hmc1", "echo")

Leaving the Lab ends every process that it started and removes its sockets; the logs stay. Nothing here waits by
sleeping: waiting ends with the awaited output, and a time limit can only make a test fail.
"""

import shutil
import tempfile
from pathlib import Path

from .hmc import Hmc
from .partition import Partition
from .step import exit_on_signals


class Lab:
    """Partitions and HMCs, and a directory for their sockets. Ends them all when it is left, also by a signal."""

    def __init__(self):
        # A socket's path has at most 107 bytes, so TMPDIR may be too long.
        self.directory = Path(tempfile.mkdtemp(prefix="hvpipe-", dir="/tmp"))
        self._running = []
        exit_on_signals()

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *exception):
        self.close()

    def partition(self, **how) -> Partition:
        """Start a partition; see Partition."""
        return self._keep(Partition(self.directory, **how))

    def hmc(self, partition: Partition, source: str, *arguments, follow=False, **how) -> Hmc:
        """Start an HMC on SOURCE of PARTITION and wait until it is connected; see Hmc. FOLLOW: also after a move."""
        how.setdefault("name", f"HMC {source}")
        addresses = partition.addresses(source) if follow else [partition.sockets[source]]
        hmc = self._keep(Hmc(addresses, *arguments, **how))
        hmc.err.wait_for("connected to")
        return hmc

    def serve(self, partition: Partition, links: dict[str, str], **how) -> Hmc:
        """Start one `hvpipe-hmc serve` for many sources of PARTITION and wait until all are connected; see Hmc.

        LINKS is {source: what takes its messages, lines of the configuration}.
        """
        config = self.scratch("serve") / "serve.conf"
        config.write_text("[serve]\nstate=state\ncontrol=control\n" if how.pop("state", False) else "[serve]\n")
        with config.open("a") as text:
            for source, what in links.items():
                text.write(f"[{partition.name}/{source}]\nconnect={partition.sockets[source]}\n{what}\n")
        hmc = self._keep(Hmc([], "serve", config, name="HMC serve", **how))
        hmc.err.wait_for("connected to", count=len(links))
        return hmc

    def _keep(self, started):
        self._running.append(started)
        return started

    def tidy(self):
        """End the HMCs, and every command that still runs in a partition."""
        for started in self._running:
            if isinstance(started, Hmc):
                started.close()
            else:
                for command in started.agent.running():
                    command.kill()
        self._running = [started for started in self._running if not isinstance(started, Hmc)]

    def scratch(self, name: str) -> Path:
        """A fresh directory for files."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))

    def close(self):
        """End everything and remove the directory."""
        while self._running:
            self._running.pop().close()
        shutil.rmtree(self.directory, ignore_errors=True)
