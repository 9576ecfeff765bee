"""A destination seen as one cluster's backup tree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mover.encryption.cipher import NO_KEYS, Keys
from mover.errors import FormatError, IntegrityError, TargetNotFound
from mover.media.layout import Layout
from mover.target.base import Buffer, ObjectInfo, Target

T = TypeVar("T")
READS = 3  # of what does not hold, before it counts as damaged at the destination


@dataclass(frozen=True, slots=True)
class Repository:
    """One tenant's part of the tree, and the cluster's files beside it."""

    target: Target
    layout: Layout
    tenant_id: int
    # Accept only what mover itself writes. False for trees of OceanBase's own, which has appended members since 3.1.0.
    strict: bool = True
    # What decrypts, and encrypts, what is in it.
    keys: Keys = NO_KEYS

    async def read(self, path: str, decode: Callable[[bytes], T]) -> T | None:
        """The decoded content of a small file, None when there is none.

        Raises IntegrityError (FormatError when it does not decode) that names the file.
        """

        async def once() -> T | None:
            try:
                data = await self.target.get(path)
            except TargetNotFound:
                return None
            return decode_named(path, data, decode)

        return await read_again(once)

    async def write(self, path: str, data: Buffer) -> None:
        """Replace a small file; durable on return."""
        await self.target.put(path, data)

    async def write_all(self, paths: Sequence[str], data: Buffer) -> None:
        """Replace several small files by the same content, side by side; all were tried when this returns or raises."""
        results = await asyncio.gather(*(self.write(path, data) for path in paths), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def numbered(self, directory: str) -> list[tuple[int, ObjectInfo]]:
        """The files directly in ``directory`` whose names are decimal numbers, ascending by number."""
        found = []
        async for info in self.target.list(directory + "/"):
            name = info.path[len(directory) + 1 :]
            if name.isascii() and name.isdecimal():
                found.append((int(name), info))
        return sorted(found, key=lambda item: item[0])

    async def files(self, directory: str) -> AsyncIterator[ObjectInfo]:
        """Every file below ``directory``."""
        async for info in self.target.list(directory + "/"):
            yield info


async def read_again(read: Callable[[], Awaitable[T]]) -> T:
    """What ``read()`` returns; it is called again when it raises IntegrityError.

    Bytes can be changed on their way as well as where they are: only what comes out wrong ``READS`` times is damaged.
    """
    for _ in range(READS - 1):
        try:
            return await read()
        except IntegrityError:
            pass
    return await read()


def decode_named(path: str, data: bytes, decode: Callable[[bytes], T]) -> T:
    """``decode(data)``; what it raises names ``path``."""
    try:
        return decode(data)
    except IntegrityError as exc:
        raise name_file(exc, path) from None


def name_file(exc: IntegrityError, path: str) -> IntegrityError:
    """The same error saying which file it is about; unchanged when it says so already."""
    if exc.where.get("path"):
        return exc
    kind = FormatError if isinstance(exc, FormatError) else IntegrityError
    where = {**exc.where, "path": path}
    return kind(f"{path}: {exc.message}", hint=exc.hint, code=exc.code, **where)
