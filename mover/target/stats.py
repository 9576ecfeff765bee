"""A destination that counts: what progress displays and reports show of requests and bytes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from mover.target.base import Buffer, Capabilities, Leftover, ObjectInfo, Part, Target, Writer


@dataclass(slots=True)
class TargetStats:
    """Totals since the wrapper was made. ``requests`` counts calls of the contract by their name, failed ones too."""

    requests: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    bytes_written: int = 0
    bytes_read: int = 0
    busy_seconds: float = 0.0  # summed over calls that overlap

    def as_json(self) -> dict[str, object]:
        return asdict(self)


class StatsTarget:
    """Wraps any Target; ``stats`` may be shared between several. Adds no I/O and changes no behaviour."""

    def __init__(self, inner: Target, stats: TargetStats | None = None) -> None:
        self.inner = inner
        self.stats = stats or TargetStats()
        self.url: str = inner.url
        self.capabilities: Capabilities = inner.capabilities

    @property
    def parts_under_way(self) -> int:
        return self.inner.parts_under_way

    async def check(self) -> None:
        with _counted(self.stats, "check"):
            await self.inner.check()

    async def put(self, path: str, data: Buffer, *, if_absent: bool = False, write_once: bool = False) -> ObjectInfo:
        with _counted(self.stats, "put"):
            info = await self.inner.put(path, data, if_absent=if_absent, write_once=write_once)
        self.stats.bytes_written += info.size
        return info

    async def create(self, path: str, *, write_once: bool = False) -> Writer:
        with _counted(self.stats, "create"):
            return _StatsWriter(await self.inner.create(path, write_once=write_once), self.stats)

    async def append(self, path: str, offset: int, data: Buffer) -> None:
        with _counted(self.stats, "append"):
            await self.inner.append(path, offset, data)
        self.stats.bytes_written += memoryview(data).nbytes

    async def get(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        with _counted(self.stats, "get"):
            data = await self.inner.get(path, start, length)
        self.stats.bytes_read += len(data)
        return data

    async def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        with _counted(self.stats, "read_into"):
            await self.inner.read_into(path, start, buffer)
        self.stats.bytes_read += len(buffer)

    async def stream(
        self, path: str, start: int = 0, length: int | None = None, chunk: int = 4 << 20
    ) -> AsyncIterator[bytes]:
        pieces = self.inner.stream(path, start, length, chunk)
        try:
            while True:
                # Only the waiting is counted, not what the caller does between two pieces.
                with _counted(self.stats, "stream"):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                self.stats.bytes_read += len(piece)
                yield piece
        finally:
            await _close(pieces)

    async def stat(self, path: str) -> ObjectInfo | None:
        with _counted(self.stats, "stat"):
            return await self.inner.stat(path)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        self.stats.requests["list"] = self.stats.requests.get("list", 0) + 1
        found = self.inner.list(prefix)
        try:
            async for info in found:
                yield info
        finally:
            await _close(found)

    async def delete(self, path: str) -> None:
        with _counted(self.stats, "delete"):
            await self.inner.delete(path)

    async def delete_many(self, paths: Sequence[str]) -> None:
        with _counted(self.stats, "delete_many"):
            await self.inner.delete_many(paths)

    async def leftovers(self, prefix: str) -> AsyncIterator[Leftover]:
        self.stats.requests["leftovers"] = self.stats.requests.get("leftovers", 0) + 1
        async for leftover in self.inner.leftovers(prefix):
            yield leftover

    async def discard(self, leftover: Leftover) -> None:
        with _counted(self.stats, "discard"):
            await self.inner.discard(leftover)

    async def aclose(self) -> None:
        await self.inner.aclose()


class _StatsWriter:
    def __init__(self, inner: Writer, stats: TargetStats) -> None:
        self._inner = inner
        self._stats = stats

    async def write(self, part: Part) -> None:
        size = len(part.data)  # released when it comes back
        with _counted(self._stats, "write"):
            await self._inner.write(part)
        self._stats.bytes_written += size

    async def commit(self) -> ObjectInfo:
        with _counted(self._stats, "commit"):
            return await self._inner.commit()

    async def abort(self) -> None:
        with _counted(self._stats, "abort"):
            await self._inner.abort()


@contextmanager
def _counted(stats: TargetStats, name: str) -> Iterator[None]:
    stats.requests[name] = stats.requests.get(name, 0) + 1
    begin = time.perf_counter()
    try:
        yield
    except Exception:
        stats.failures += 1
        raise
    finally:
        stats.busy_seconds += time.perf_counter() - begin


async def _close(pieces: AsyncIterator[object]) -> None:
    """A generator that is left early has a file or a request open."""
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()
