"""Macro files: frames one after the other, at most 512 to a file, each file published when it is whole.

A file is named by set and sub number, so a retry never writes to a name that another attempt used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from mover.datapath.framing import FramedBlock
from mover.kernel import Xxh3_128
from mover.media.frames import end_mark
from mover.media.macro import MAX_BLOCKS_PER_FILE
from mover.repository.placement import Placement, WrittenFile
from mover.target.base import BytesPart, Target, Writer


class MacroFiles:
    """Writes frames of one set to ``macro_block_<set>.<sub>``, front to back.

    Args:
        path_of: the path of a sub number.
        first_sub: the first sub number no earlier attempt used.
        threads: where digests are computed.
    """

    def __init__(
        self,
        target: Target,
        path_of: Callable[[int], str],
        backup_set_id: int,
        *,
        threads: Executor,
        first_sub: int = 0,
        blocks_per_file: int = MAX_BLOCKS_PER_FILE,
    ) -> None:
        self._target = target
        self._path_of = path_of
        self._set = backup_set_id
        self._threads = threads
        self._sub = first_sub
        self._limit = blocks_per_file
        self._writer: Writer | None = None
        self._digest = Xxh3_128()
        self._offset = 0
        self._count = 0
        self._published = 0
        self.files: list[WrittenFile] = []

    @property
    def bytes_written(self) -> int:
        """Bytes handed to the destination so far."""
        return self._published + self._offset

    async def write(self, block: FramedBlock) -> Placement:
        """Append a frame; the pieces may be reused when this returns."""
        if self._writer is None:
            self._writer = await self._target.create(self._path_of(self._sub))
            self._digest, self._offset, self._count = Xxh3_128(), 0, 0
        placement = Placement(block.identity, block.digest, self._set, self._sub, self._offset, block.length)
        await self._append(*block.pieces)
        self._count += 1
        if self._count == self._limit:
            await self._publish()
        return placement

    async def finish(self) -> None:
        """Publish the last file."""
        if self._writer is not None:
            await self._publish()

    async def abort(self) -> None:
        """Remove the unfinished file. Published ones stay; they belong to a set that will never be complete."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.abort()

    async def _append(self, *pieces: bytes | bytearray | memoryview) -> None:
        assert self._writer is not None
        loop = asyncio.get_running_loop()
        digested = loop.run_in_executor(self._threads, self._update, pieces)
        try:
            for piece in pieces:
                if len(piece):
                    await self._writer.write(BytesPart(piece))
                    self._offset += len(piece)
        finally:
            # Also on failure: the pieces are views of slabs that somebody else gets next.
            await digested

    def _update(self, pieces: tuple[bytes | bytearray | memoryview, ...]) -> None:
        for piece in pieces:
            self._digest.update(piece)

    async def _publish(self) -> None:
        await self._append(end_mark())
        assert self._writer is not None
        writer = self._writer
        published = await writer.commit()
        self._writer = None
        self.files.append(WrittenFile(self._path_of(self._sub), published.size, self._digest.digest()))
        self._published, self._offset = self._published + published.size, 0
        self._offset = 0
        self._sub += 1
