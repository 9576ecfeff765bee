"""Blocks in, placements out: the path of a macroblock from a store to macro files at the destination.

    store -> slab -> lane: kernel (compress or keep, frame) -> part -> macro file -> destination

The reader takes what a capture yields; what an earlier set holds already ends there. Lanes, as many as there are kernel
threads, take a few blocks at a time and have them framed into a part, which goes to the destination as it is once no
other block is sure to fit. Back-pressure runs from the destination through parts and slabs to the reader.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Executor

from mover.datapath.balance import Balance
from mover.datapath.buffers import BufferPool, blocks_per_part
from mover.datapath.compression import Chooser
from mover.datapath.intake import Arrival, Intake, PackCounters
from mover.datapath.packer import MacroFiles
from mover.datapath.parts import OpenPart, merge
from mover.media.sealed import Sealing
from mover.repository.placement import Placement
from mover.settled import settled
from mover.store.base import CapturedBlock, UnchangedBlock


async def pack_blocks(
    blocks: AsyncIterator[CapturedBlock | UnchangedBlock],
    files: MacroFiles,
    *,
    parts: BufferPool,
    lanes: int,
    chooser: Chooser,
    previous: Mapping[int, Placement],
    threads: Executor,
    progress: Callable[[PackCounters], None],
    sealing: Sealing | None = None,
) -> dict[int, Placement]:
    """Copy every block that ``previous`` does not hold already.

    Args:
        blocks: what a capture yields; of a block that comes twice the later one counts.
        parts: buffers to frame into; at least ``lanes`` and two.
        chooser: what to compress and how.
        previous: placements of the set this one builds on, by block index; empty for a full.
        threads: of the kernel.
        progress: called on the event loop now and then, and at the end.
        sealing: encrypts every block.

    Returns:
        The placement of each block index that came, the last one each.

    Raises whatever reader, kernel or destination raise; every buffer is back in its pool then.
    """
    work = _Packing(blocks, files, parts, chooser, previous, threads, progress, sealing)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(work.read())
            for _ in range(lanes):
                group.create_task(work.lane())
        await work.finish()
    except BaseException as error:
        # The reader may hold slabs of its own: it gives them back when it is closed, not when it is collected.
        if isinstance(blocks, AsyncGenerator):
            await blocks.aclose()
        await work.abort()
        if isinstance(error, BaseExceptionGroup):
            # One thing went wrong first; the others were only cancelled because of it.
            raise error.exceptions[0] from None
        raise
    return work.intake.placements


class _Packing:
    """One call of :func:`pack_blocks`."""

    def __init__(
        self,
        blocks: AsyncIterator[CapturedBlock | UnchangedBlock],
        files: MacroFiles,
        parts: BufferPool,
        chooser: Chooser,
        previous: Mapping[int, Placement],
        threads: Executor,
        progress: Callable[[PackCounters], None],
        sealing: Sealing | None,
    ) -> None:
        self._sealing = sealing
        self.intake = Intake(previous, progress)
        self._blocks = blocks
        self._files = files
        self._parts = parts
        self._chooser = chooser
        self._threads = threads
        self._balance = Balance()
        self._queue: deque[Arrival] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._open: list[OpenPart] = []  # begun, and in no lane's hands

    async def read(self) -> None:
        """Take everything that the capture yields; what is new waits for a lane, in its slab."""
        async for block in self._blocks:
            arrival = self.intake.take(block)
            if arrival is not None:
                self._queue.append(arrival)
                self._arrived.set()
        self._ended = True
        self._arrived.set()

    async def lane(self) -> None:
        """Frame blocks, a few at a time, into one part after the other."""
        while batch := await self._batch():
            part: OpenPart | None = None
            try:
                while batch:
                    part = self._open.pop() if self._open else await self._begin()
                    await self._pack(part, batch)
                    done, part = part, None
                    # Also when blocks are left over: what they left room for may be too small a part for the store.
                    if done.room(self._files.blocks_per_file):
                        self._open.append(done)
                    else:
                        await self._ship(done)
            finally:
                for arrival in batch:
                    arrival.block.slab.release()
                if part is not None:
                    part.buffer.release()

    async def finish(self) -> None:
        """Everything was read: the parts that are left, and the files."""
        self._open = merge(self._open, self._files.blocks_per_file)
        while self._open:
            await self._ship(self._open.pop(0))
        await self._files.finish()
        self.intake.stored(0, self._files.bytes_written)

    async def abort(self) -> None:
        """Give everything back. The lanes have ended."""
        for arrival in self._queue:
            arrival.block.slab.release()
        for part in self._open:
            part.buffer.release()
        await self._files.abort()

    async def _batch(self) -> list[Arrival]:
        """Blocks for a lane, no more than go into an empty part; none at the end."""
        with self._balance.waiting():
            while not self._queue and not self._ended:
                self._arrived.clear()
                await self._arrived.wait()
        most = blocks_per_part(self._parts.size)
        return [self._queue.popleft() for _ in range(min(most, len(self._queue)))]

    async def _begin(self) -> OpenPart:
        with self._balance.waiting():
            return OpenPart(await self._parts.acquire(), self._sealing)

    async def _pack(self, part: OpenPart, batch: list[Arrival]) -> None:
        """Frame what fits, and take it out of ``batch``."""
        fitting = batch[: part.room(self._files.blocks_per_file)]
        chooser = self._chooser
        orders = [chooser.order(arrival.block.identity) for arrival in fitting]
        with self._balance.working():
            packed = await settled(self._threads, part.pack, fitting, orders, chooser)
        for arrival, order, frame in zip(fitting, orders, packed, strict=True):
            chooser.learn(arrival.block.identity, order, frame.compressor)
            arrival.block.slab.release()
        del batch[: len(fitting)]
        chooser.step(self._balance.direction())

    async def _ship(self, part: OpenPart) -> None:
        """Give a part to the destination; where its blocks are is known then."""
        frames = part.frames
        with self._balance.waiting():
            sub, base = await self._files.append(part.buffer, frames)
        for frame in frames:
            where = base + frame.offset
            placement = Placement(frame.identity, frame.digest, self._files.backup_set_id, sub, where, frame.length)
            self.intake.placed(frame.number, placement)
        self.intake.stored(len(frames), self._files.bytes_written)
