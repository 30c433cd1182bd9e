# SPDX-License-Identifier: GPL-2.0-or-later
"""Archives in the newc format of cpio, which the kernel unpacks as its initramfs."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Device(NamedTuple):
    """A character device."""
    major: int
    minor: int


# A file (executable in the archive if it is here), the content of a plain file, a device, or None: a directory
Entry = Path | bytes | Device | None


def archive(entries: Mapping[str, Entry]) -> bytes:
    """An archive of ENTRIES, {path: what is there}, and of the directories they are in. Equal entries, equal bytes."""
    parents = {str(parent) for name in entries for parent in PurePosixPath(name).parents if str(parent) != "."}
    data = bytearray()
    for name, entry in sorted({**dict.fromkeys(parents), **entries}.items()):
        if entry is None:
            _add(data, name, stat.S_IFDIR | 0o755)
        elif isinstance(entry, Device):
            _add(data, name, stat.S_IFCHR | 0o600, device=entry)
        elif isinstance(entry, bytes):
            _add(data, name, stat.S_IFREG | 0o644, entry)
        else:
            _add(data, name, stat.S_IFREG | (0o755 if os.access(entry, os.X_OK) else 0o644), entry.read_bytes())
    _add(data, "TRAILER!!!", 0)
    return bytes(data)


def _add(data: bytearray, name: str, mode: int, content: bytes = b"", device: Device = Device(0, 0)) -> None:
    """Append one entry to DATA. Its position serves as the inode number: equal numbers would be hard links."""
    raw = name.encode() + b"\0"
    fields = (len(data), mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(raw), 0)
    data += b"070701" + b"".join(b"%08x" % field for field in fields) + raw
    data += bytes(-len(data) % 4)
    data += content
    data += bytes(-len(data) % 4)
