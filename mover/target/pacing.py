"""Limits on bandwidth and request rate that keep full parallelism and that several processes share.

Every request reserves its place in time and waits for it; others reserve and wait beside it. The reservations of one
destination are in a small file that all processes of this host have mapped, so that an archiver and a backup stay below
one limit together. The archiver goes first: it waits for what archivers reserved only, and what it takes is taken from
the others. The limits themselves are in that file, too: changed there, they hold from the next request on, until the
last process that uses them has ended.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mover.clock import Clock, SystemClock
from mover.errors import ConfigError
from mover.target.base import Buffer, Capabilities, Leftover, ObjectInfo, Part, Target, Writer

_LINES = struct.Struct("<8s6d")  # magic; for bytes and for requests: limit per second, next for all, next for archivers
_MAGIC = b"moverPC1"
_BURST = 0.25  # seconds that unused time can be caught up on


@dataclass(frozen=True, slots=True)
class Line:
    """One limited thing: bytes or requests. Times are of the host's monotonic clock, seconds."""

    per_second: float = 0.0  # 0: no limit
    next_all: float = 0.0
    next_first: float = 0.0


def reserve(line: Line, amount: float, now: float, *, first: bool) -> tuple[Line, float]:
    """Reserve ``amount``: the line afterwards, and the seconds to wait. Pure.

    Args:
        first: this one waits for others of its own kind only; the rest wait for everybody.
    """
    if line.per_second <= 0 or amount <= 0:
        return line, 0.0
    length = amount / line.per_second
    earliest = now - _BURST
    begin_all = max(line.next_all, earliest)
    if not first:
        return Line(line.per_second, begin_all + length, line.next_first), max(0.0, begin_all - now)
    begin = max(line.next_first, earliest)
    # What goes first is behind everybody's back: all others are so much later.
    return Line(line.per_second, begin_all + length, begin + length), max(0.0, begin - now)


class SharedPace:
    """The limits of one destination, in ``file``, for as long as this is open.

    Args:
        file: made when it is missing.
        data, requests: limits per second to set for everybody who uses the file; 0 for none. None leaves what the
            others have; when there are no others, there is no limit.
        now: the host's monotonic clock, the same for all processes.

    Raises ConfigError when the file can not be used. Close it.
    """

    def __init__(
        self,
        file: Path,
        data: float | None = None,
        requests: float | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"the limits in {file} cannot be used: {(error.strerror or 'i/o error').lower()}",
                hint="name another directory with --state-dir",
            ) from error
        if os.fstat(self._fd).st_size < _LINES.size:
            os.ftruncate(self._fd, _LINES.size)
        self._memory = mmap.mmap(self._fd, _LINES.size)
        # Whoever uses the file holds this lock, shared: who gets it for itself alone is the first, or the only one.
        self.alone = _alone(self._fd)
        if self.alone:
            self._write(Line(), Line())
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        self.set_limits(data, requests)

    @property
    def limits(self) -> tuple[float, float]:
        """Bytes and requests per second; 0 is no limit."""
        data, requests = self._read()
        return data.per_second, requests.per_second

    def set_limits(self, bytes_per_second: float | None, requests_per_second: float | None) -> None:
        """Change what is not None, for everybody who uses this file, from the next request on."""
        with self._locked():
            lines = self._read()
            wanted = (bytes_per_second, requests_per_second)
            self._write(
                *(
                    line if limit is None else Line(limit, min(line.next_all, self._now()), 0.0)
                    for line, limit in zip(lines, wanted, strict=True)
                )
            )

    def reserve(self, size: int, requests: int, *, first: bool) -> float:
        """Reserve ``size`` bytes and ``requests``; the seconds to wait before using them."""
        data, calls = self._read()
        if data.per_second <= 0 and calls.per_second <= 0:
            return 0.0
        with self._locked():
            data, calls = self._read()
            now = self._now()
            data, wait = reserve(_sane(data, now), size, now, first=first)
            calls, also = reserve(_sane(calls, now), requests, now, first=first)
            self._write(data, calls)
        return max(wait, also)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            self._memory.close()
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> tuple[Line, Line]:
        magic, *values = _LINES.unpack_from(self._memory)
        if magic != _MAGIC:
            return Line(), Line()
        return Line(*values[:3]), Line(*values[3:])

    def _write(self, data: Line, calls: Line) -> None:
        values = (data.per_second, data.next_all, data.next_first, calls.per_second, calls.next_all, calls.next_first)
        _LINES.pack_into(self._memory, 0, _MAGIC, *values)

    def _locked(self) -> _FileLock:
        return _FileLock(self._fd)


def _sane(line: Line, now: float) -> Line:
    """Reservations an hour ahead are of another boot of this host: its clock began anew."""
    ahead = now + 3600
    if line.next_all > ahead or line.next_first > ahead:
        return Line(line.per_second)
    return line


def _alone(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _FileLock:
    """Held for microseconds, and gone with its process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)


class PacedTarget:
    """A destination that is used no faster than ``pace`` allows. Adds waiting and changes nothing else.

    Args:
        pace: stays the caller's to close.
        first: what this destination is used for goes before what others use it for: archiving log.
    """

    def __init__(self, inner: Target, pace: SharedPace, *, first: bool, clock: Clock | None = None) -> None:
        self.inner = inner
        self.url: str = inner.url
        self.capabilities: Capabilities = inner.capabilities
        self._pace = pace
        self._first = first
        self._clock: Clock = clock or SystemClock()

    @property
    def parts_under_way(self) -> int:
        return self.inner.parts_under_way

    async def wait(self, size: int = 0, requests: int = 1) -> None:
        """Wait for a place for ``size`` bytes."""
        seconds = self._pace.reserve(size, requests, first=self._first)
        if seconds > 0:
            await self._clock.sleep(seconds)

    async def check(self) -> None:
        await self.wait()
        await self.inner.check()

    async def put(self, path: str, data: Buffer, *, if_absent: bool = False, write_once: bool = False) -> ObjectInfo:
        await self.wait(memoryview(data).nbytes)
        return await self.inner.put(path, data, if_absent=if_absent, write_once=write_once)

    async def create(self, path: str, *, write_once: bool = False) -> Writer:
        await self.wait()
        return _PacedWriter(self, await self.inner.create(path, write_once=write_once))

    async def append(self, path: str, offset: int, data: Buffer) -> None:
        await self.wait(memoryview(data).nbytes)
        await self.inner.append(path, offset, data)

    async def get(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        await self.wait(length or 0)
        data = await self.inner.get(path, start, length)
        if length is None:
            await self.wait(len(data), 0)  # known only now; the next request pays for it
        return data

    async def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        await self.wait(len(buffer))
        await self.inner.read_into(path, start, buffer)

    async def stream(
        self, path: str, start: int = 0, length: int | None = None, chunk: int = 4 << 20
    ) -> AsyncIterator[bytes]:
        pieces = self.inner.stream(path, start, length, chunk)
        try:
            async for piece in pieces:
                await self.wait(len(piece))
                yield piece
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    async def stat(self, path: str) -> ObjectInfo | None:
        await self.wait()
        return await self.inner.stat(path)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        await self.wait()
        async for info in self.inner.list(prefix):
            yield info

    async def delete(self, path: str) -> None:
        await self.wait()
        await self.inner.delete(path)

    async def delete_many(self, paths: Sequence[str]) -> None:
        await self.wait()
        await self.inner.delete_many(paths)

    async def leftovers(self, prefix: str) -> AsyncIterator[Leftover]:
        await self.wait()
        async for leftover in self.inner.leftovers(prefix):
            yield leftover

    async def discard(self, leftover: Leftover) -> None:
        await self.wait()
        await self.inner.discard(leftover)

    async def aclose(self) -> None:
        await self.inner.aclose()


class _PacedWriter:
    def __init__(self, target: PacedTarget, inner: Writer) -> None:
        self._target = target
        self._inner = inner

    async def write(self, part: Part) -> None:
        try:
            await self._target.wait(len(part.data))
        except asyncio.CancelledError:
            part.release()
            raise
        await self._inner.write(part)

    async def commit(self) -> ObjectInfo:
        await self._target.wait()
        return await self._inner.commit()

    async def abort(self) -> None:
        await self._inner.abort()
