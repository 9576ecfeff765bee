"""The contract of a destination. One conformance suite (tests/target) runs over every implementation.

Paths are relative POSIX paths below the root of the URL, without a leading slash. A destination has files (objects);
directories exist only as prefixes. Every call may raise:

* UnreachableError: nobody answers, or the sign-in was refused;
* MountError: the directory is not the mount it was;
* TargetError: the destination refused, or failed after its retries.

No error text and no attribute ever holds a secret.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a destination can do beyond the contract."""

    append: bool  # files can grow in place, durably (NFS and local files)
    conditional_put: bool  # put(if_absent=True) is atomic at the destination, not check-then-put
    device_type: str  # OceanBase's name of the device: "FILE", "OSS", "COS", ours: "S3"
    min_part: int = 0  # bytes of every part of a large file but the last
    max_parts: int = 1 << 30  # parts of a large file
    locks: bool = False  # what is written once can not be removed for a while


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A file at the destination."""

    path: str
    size: int
    modified_us: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """What an unfinished write has left at a destination: nobody reads it, and it costs room or money."""

    path: str  # of the file it was to become
    name: str  # what the destination calls it: a temporary path, or the id of an upload
    kind: str  # "temporary file" or "multipart upload"
    begun_us: int  # by the destination's clock
    size: int = 0  # bytes, where that is known


class Part(Protocol):
    """A run of bytes of a large file, in memory that is lent: whoever sends it gives it back."""

    @property
    def data(self) -> memoryview:
        """The bytes. They do not change before ``release``."""
        ...

    def release(self) -> None:
        """Give the memory back. Once only."""
        ...


class BytesPart:
    """Bytes of the heap as a :class:`Part`: what is small, and what tests write."""

    def __init__(self, data: Buffer) -> None:
        self.data = memoryview(data).cast("B")

    def release(self) -> None:
        """Nothing is lent."""


class Writer(Protocol):
    """A large file being written front to back. Nothing is visible under its name before ``commit`` returns."""

    async def write(self, part: Part) -> None:
        """Take the next bytes of the file, and ``part`` with them: the writer releases it, whatever becomes of it.

        Returns when the destination has room for another one, which may be long before these bytes are there; what
        goes wrong with them is raised by a later call. Every part but the last has at least ``min_part`` bytes. Parts
        whose memory, length and place in the file are multiples of 4096 go out without a copy.
        """
        ...

    async def commit(self) -> ObjectInfo:
        """Make it durable and confirm size and checksum with the destination, then publish it under its name.

        Raises TargetExists when the name is taken: nothing that was published is ever replaced.
        """
        ...

    async def abort(self) -> None:
        """Remove every trace. Idempotent, never raises for a destination that is gone."""
        ...


class Target(Protocol):
    """A backup destination, open."""

    url: str  # without secrets
    capabilities: Capabilities

    @property
    def parts_under_way(self) -> int:
        """How many parts are sent at a time now: what was asked for, or what pays."""
        ...

    async def check(self) -> None:
        """Prove that the destination answers and is still the one that was opened (mount identity)."""
        ...

    async def put(self, path: str, data: Buffer, *, if_absent: bool = False, write_once: bool = False) -> ObjectInfo:
        """Write a whole small file atomically and durably; replaces an old one unless ``if_absent``.

        ``write_once`` says that it will never be written again: a destination that locks objects locks it.
        Idempotent for equal content. Raises TargetExists with ``if_absent`` when the name is taken.
        """
        ...

    async def create(self, path: str, *, write_once: bool = False) -> Writer:
        """Begin a large file. ``write_once`` as in ``put``."""
        ...

    async def append(self, path: str, offset: int, data: Buffer) -> None:
        """With ``capabilities.append``: write at ``offset`` and make it durable before returning.

        Creates the file when ``offset`` is 0. What was behind ``offset`` (a torn tail nobody published) is cut off.
        Raises TargetError when the file is shorter than ``offset``.
        """
        ...

    async def get(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Exactly ``length`` bytes from ``start`` (to the end when None). Raises TargetNotFound.

        A file that ends earlier than ``start + length`` is a TargetError that says so, never a short result.
        """
        ...

    async def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes from ``start`` on: ``get`` for large pieces, without an object for each.

        Raises TargetNotFound; a file that ends earlier is a TargetError. Also when it is cancelled, nothing writes into
        ``buffer`` any more once this returns or raises. The exception is UnreachableError, which then takes the place
        of the cancel: the answer may still come, into ``buffer``, so the caller drops it and never uses it again.
        """
        ...

    def stream(
        self, path: str, start: int = 0, length: int | None = None, chunk: int = 4 << 20
    ) -> AsyncIterator[bytes]:
        """The same bytes in pieces of at most ``chunk``; the pieces add up exactly or an error is raised."""
        ...

    async def stat(self, path: str) -> ObjectInfo | None:
        """The file, or None when there is none."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every file whose path begins with ``prefix`` (a directory name ends in '/'), ascending by path.

        Temporary files of unfinished writes are not listed.
        """
        ...

    async def delete(self, path: str) -> None:
        """Remove one file. Idempotent. Raises TargetLocked."""
        ...

    async def delete_many(self, paths: Sequence[str]) -> None:
        """Remove files, a thousand with one request where the destination can. Idempotent.

        What can be removed is removed before an error is raised; TargetLocked has the dates of what is left.
        """
        ...

    def leftovers(self, prefix: str) -> AsyncIterator[Leftover]:
        """What unfinished writes of files below ``prefix`` left, in no order; also what is being written right now."""
        ...

    async def discard(self, leftover: Leftover) -> None:
        """Remove it. Idempotent. The write it belongs to fails, should it still go on."""
        ...

    async def aclose(self) -> None: ...
