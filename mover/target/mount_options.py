"""How a directory is mounted, and which of its mount options a backup must not rely on.

Source: proc(5) for /proc/self/mountinfo; nfs(5), mount.cifs(8) and mount(8) for the options. The kernel does not show
what was typed: ``actimeo`` of nfs(5) comes back as acregmin, acregmax, acdirmin and acdirmax, and only what is not the
default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

_OCTAL = re.compile(r"\\([0-7]{3})")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "fuse", "9p", "ceph", "glusterfs", "lustre", "gpfs", "beegfs")
_READ_ONLY = {"ro": "nothing can be written; mount it rw"}
_SOFT = "a server that is slow for a moment becomes an I/O error, or lost writes; mount it hard"
_UNLOCKED = "locks are not seen by other hosts: two archivers may not notice each other; leave it out"
_LATE = "what another host wrote is seen late; leave it out"
_NFS = {
    "soft": _SOFT,
    "softerr": "a server that is slow for a moment becomes an error; mount it hard",
    "softreval": "a server that does not answer is taken for one where nothing changed; mount it hard",
    "async": "writes are acknowledged late; leave it out",
    "nolock": _UNLOCKED,
    "local_lock=all": _UNLOCKED,
    "local_lock=posix": _UNLOCKED,
    "local_lock=flock": _UNLOCKED,
    "nocto": _LATE,
    "fsc": "reads may come from a cache on this host, so a check proves nothing about the server; leave it out",
    "noac": "every look at a file asks the server: right, but slow",
    "actimeo=0": "every look at a file asks the server: right, but slow",
    "proto=udp": "packets that are put together wrongly corrupt data at the speed of today's networks; use proto=tcp",
    "vers=2": "there is nothing exclusive in it; use vers=4.1",
    "vers=3": "a lost reply to link or rename is an error, and locks are another service's; use vers=4.1",
    "vers=4.0": "a client that was away loses its state; OceanBase asks for 4.1: use vers=4.1",
}
_CIFS = {
    "soft": _SOFT,
    "cache=loose": _LATE,
    "nobrl": _UNLOCKED,
    "noserverino": "inode numbers are made up here, and change: a mount can not be told from another; use serverino",
}
_P9 = {f"cache={kind}": _LATE for kind in ("loose", "fscache", "mmap")}
_DISK = {
    "nobarrier": "a power cut loses what fsync promised; leave it out",
    "barrier=0": "a power cut loses what fsync promised; leave it out",
}
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "nfs": _NFS,
    "nfs4": _NFS,
    "cifs": _CIFS,
    "smb3": _CIFS,
    "9p": _P9,
    "ext3": _DISK,
    "ext4": _DISK,
    "xfs": _DISK,
    "btrfs": _DISK,
}
_STORE_IN_DISGUISE = "an object store behind FUSE renames and links by copying, if at all; use its s3:// or oss:// URL"
_KINDS = {
    "tmpfs": "its content is gone after a restart of this host",
    "ramfs": "its content is gone after a restart of this host",
    "overlay": "it is a container's own layer and gone with it; mount a volume there",
    "aufs": "it is a container's own layer and gone with it; mount a volume there",
    "fuse.s3fs": _STORE_IN_DISGUISE,
    "fuse.ossfs": _STORE_IN_DISGUISE,
    "fuse.cosfs": _STORE_IN_DISGUISE,
    "fuse.gcsfuse": _STORE_IN_DISGUISE,
    "fuse.goofys": _STORE_IN_DISGUISE,
    "fuse.mount-s3": _STORE_IN_DISGUISE,
    "fuse.rclone": _STORE_IN_DISGUISE,
    "fuse.sshfs": "fsync does not reach the server's disk, and links may be missing; use NFS 4.1",
}
_LONGEST_CACHE = 60  # seconds: the defaults of acregmax and acdirmax
_SHORTEST_TIMEO = 100  # tenths of a second before a request is sent again; the default is 600 with TCP


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
    found = [(mount.kind, _KINDS[mount.kind])] if mount.kind in _KINDS else []
    known = _READ_ONLY | dict(_OPTIONS.get(mount.kind, {}))
    found += [(option, known[option]) for option in mount.options if option in known]
    if mount.kind in ("nfs", "nfs4"):
        found += _nfs_numbers(mount.options)
    return found


def on_the_root(mount: Mount) -> str | None:
    """What it means that nothing but the host's own root file system is there; None when something is mounted.

    It is no fault of an option, and right for who tries mover out: a hint, for where a mount is expected.
    """
    if mount.point != "/" or mount.remote or mount.kind in _KINDS:
        return None
    return "nothing is mounted there: the backup is on this host's own disk and lost with it"


def _nfs_numbers(options: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """What depends on how long: caches of attributes, and the patience of a mount that gives up."""
    numbers = {
        name: int(value) for name, _, value in (option.partition("=") for option in options) if value.isdecimal()
    }
    limits = [numbers.get(name) for name in ("acregmin", "acregmax", "acdirmin", "acdirmax")]
    if limits == [0, 0, 0, 0]:
        yield "actimeo=0", _NFS["actimeo=0"]
    for name in ("acregmax", "acdirmax"):
        if numbers.get(name, 0) > _LONGEST_CACHE:
            yield (
                f"{name}={numbers[name]}",
                f"what another host wrote is seen up to {numbers[name]} s late; leave it out",
            )
    timeo, soft = numbers.get("timeo"), {"soft", "softerr"} & set(options)
    if timeo is not None and (timeo < _SHORTEST_TIMEO or soft):
        resent = f"requests are sent again after {timeo / 10:g} s"
        ends = f" and fail after {numbers.get('retrans', 2)} times" if soft else ", also to a server that is only busy"
        yield f"timeo={timeo}", f"{resent}{ends}; leave it out"


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
