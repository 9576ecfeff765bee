"""How a directory is mounted, and which of its mount options a backup must not rely on.

Source: proc(5) for /proc/self/mountinfo, nfs(5) for the options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

_OCTAL = re.compile(r"\\([0-7]{3})")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "fuse", "9p")
_NFS_RISKS = {
    "soft": "a server that is slow for a moment becomes an I/O error, or lost writes; mount it hard",
    "softerr": "a server that is slow for a moment becomes an error; mount it hard",
    "async": "writes are acknowledged late; leave it out",
    "nolock": "locks are not seen by other hosts: two archivers may not notice each other; leave it out",
    "nocto": "what another host wrote is seen late; leave it out",
    "fsc": "reads may come from a cache on this host, so a check proves nothing about the server; leave it out",
    "actimeo=0": "every look at a file asks the server: right, but slow",
}
_TMPFS = "its content is gone after a restart of this host"


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo: what is mounted where, and how."""

    point: str
    kind: str
    source: str
    options: tuple[str, ...]

    @property
    def remote(self) -> bool:
        """Whether the bytes are kept by another host, as far as the type tells."""
        return self.kind.split(".")[0] in _NETWORK


def parse_mountinfo(lines: Iterable[str]) -> Iterator[Mount]:
    """The mounts of a /proc/<pid>/mountinfo, in its order; lines that are none are passed by."""
    for line in lines:
        before, mark, behind = line.rstrip("\n").partition(" - ")
        own, others = before.split(" "), behind.split(" ")
        if mark and len(own) >= 6 and len(others) >= 3:
            options = tuple(dict.fromkeys([*own[5].split(","), *others[2].split(",")]))
            yield Mount(_plain(own[4]), others[0], _plain(others[1]), options)


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that a path is on: the longest mount point above it, of equal ones the last, which covers the rest."""
    found: Mount | None = None
    for mount in mounts:
        here = PurePosixPath(path).is_relative_to(mount.point)
        if here and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def risks(mount: Mount) -> list[tuple[str, str]]:
    """Options (or the type) that a backup should not rely on, each with what it does and what to do. Pure."""
    if mount.kind in ("tmpfs", "ramfs"):
        return [(mount.kind, _TMPFS)]
    if mount.kind not in ("nfs", "nfs4"):
        return []
    return [(option, _NFS_RISKS[option]) for option in mount.options if option in _NFS_RISKS]


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
