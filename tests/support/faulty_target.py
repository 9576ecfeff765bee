"""A destination whose writer dies at a chosen call: everything after it fails too, as after kill -9 or a power cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from mover.errors import TargetLocked, UnreachableError
from mover.target.base import Buffer, Leftover, ObjectInfo, Part, Target, Writer


class FaultyTarget:
    """Wraps a Target and counts the calls that change it.

    Args:
        inner: the destination.
        die_at: the number of the changing call that is the last, from 0; None = never.
        after: the call has its effect before the writer dies; else it has none.
        append: what ``capabilities.append`` says.
    """

    def __init__(self, inner: Target, *, die_at: int | None = None, after: bool = False, append: bool = True) -> None:
        self.inner = inner
        self.url = inner.url
        found = inner.capabilities
        kind = found.device_type if append else "S3"
        self.capabilities = replace(found, append=append, device_type=kind)
        self.die_at = die_at
        self.after = after
        self.calls = 0
        self.names: list[str] = []
        self.dead = False
        self.on_change: Callable[[int, str], None] | None = (
            None  # called before each changing call: its number and name
        )

    def _alive(self) -> None:
        if self.dead:
            raise UnreachableError("the destination is gone")

    def _before(self, name: str) -> bool:
        """Counts a changing call; True when the writer dies right behind it."""
        self._alive()
        number, self.calls = self.calls, self.calls + 1
        self.names.append(name)
        if self.on_change is not None:
            self.on_change(number, name)
        if number != self.die_at:
            return False
        if not self.after:
            self.dead = True
            self._alive()
        return True

    def _behind(self, dies: bool) -> None:
        if dies:
            self.dead = True
            self._alive()

    @property
    def parts_under_way(self) -> int:
        return self.inner.parts_under_way

    async def check(self) -> None:
        self._alive()
        await self.inner.check()

    async def put(self, path: str, data: Buffer, *, if_absent: bool = False, write_once: bool = False) -> ObjectInfo:
        dies = self._before(f"put {path}")
        info = await self.inner.put(path, data, if_absent=if_absent, write_once=write_once)
        self._behind(dies)
        return info

    async def create(self, path: str, *, write_once: bool = False) -> Writer:
        self._alive()
        return _FaultyWriter(self, await self.inner.create(path, write_once=write_once), path)

    async def append(self, path: str, offset: int, data: Buffer) -> None:
        self._alive()
        if self.calls == self.die_at and not self.after:
            # Half of it reached the disk.
            await self.inner.append(path, offset, bytes(data)[: len(data) // 2])
        dies = self._before(f"append {path}")
        await self.inner.append(path, offset, data)
        self._behind(dies)

    async def get(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        self._alive()
        return await self.inner.get(path, start, length)

    async def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        self._alive()
        await self.inner.read_into(path, start, buffer)

    async def stream(
        self, path: str, start: int = 0, length: int | None = None, chunk: int = 4 << 20
    ) -> AsyncIterator[bytes]:
        self._alive()
        async for piece in self.inner.stream(path, start, length, chunk):
            yield piece

    async def stat(self, path: str) -> ObjectInfo | None:
        self._alive()
        return await self.inner.stat(path)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        self._alive()
        async for info in self.inner.list(prefix):
            yield info

    async def delete(self, path: str) -> None:
        dies = self._before(f"delete {path}")
        await self.inner.delete(path)
        self._behind(dies)

    async def delete_many(self, paths: Sequence[str]) -> None:
        """One call for each file: it may die between any two."""
        locked = {}
        for path in paths:
            try:
                await self.delete(path)
            except TargetLocked as error:
                locked |= error.locked
        if locked:
            raise TargetLocked(f"{len(locked)} files are locked", locked=locked)

    async def leftovers(self, prefix: str) -> AsyncIterator[Leftover]:
        self._alive()
        async for leftover in self.inner.leftovers(prefix):
            yield leftover

    async def discard(self, leftover: Leftover) -> None:
        dies = self._before(f"discard {leftover.name}")
        await self.inner.discard(leftover)
        self._behind(dies)

    async def aclose(self) -> None:
        await self.inner.aclose()


class _FaultyWriter:
    def __init__(self, target: FaultyTarget, inner: Writer, path: str) -> None:
        self._target = target
        self._inner = inner
        self._path = path

    async def write(self, part: Part) -> None:
        try:
            dies = self._target._before(f"write {self._path}")
        except BaseException:
            part.release()
            raise
        await self._inner.write(part)
        self._target._behind(dies)

    async def commit(self) -> ObjectInfo:
        dies = self._target._before(f"commit {self._path}")
        info = await self._inner.commit()
        self._target._behind(dies)
        return info

    async def abort(self) -> None:
        await self._inner.abort()
