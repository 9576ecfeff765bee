"""Blocks read ahead of whoever takes them: a few per job of a thread, a few jobs at a time.

Measured with 2 MiB blocks on a device and on tmpfs: two jobs of four keep the device busy, and more of either wins
nothing; blocks that are neighbours are not faster for being asked for with one call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from mover.kernel.macroblock import KIND_NONE
from mover.store.base import CapturedBlock, Slab, SlabSource
from mover.store.seekdb.blocks import BlockHeader, BlockImage, BlockOrder, BlockReader

BLOCKS_PER_JOB = 4
JOBS = 2
_TORN_ATTEMPTS = 6
_TORN_SECONDS = 0.02


class _Job(NamedTuple):
    headers: list[BlockHeader]
    slabs: list[Slab]
    images: asyncio.Future[list[BlockImage]]


async def read_ahead(
    reader: BlockReader, headers: Iterable[BlockHeader], slabs: SlabSource
) -> AsyncGenerator[tuple[BlockImage, CapturedBlock | None], None]:
    """Read the blocks of ``headers`` into slabs, in this order.

    Yields what each is, and the block when it is one: its checksum holds, also if it had to be read again for that. The
    others' slabs are back. A generator that is closed gives back what it holds.
    """
    queue = iter(headers)
    pending: deque[_Job] = deque()
    taking: asyncio.Task[Sequence[Slab]] | None = None
    ready: deque[tuple[BlockImage, CapturedBlock | None]] = deque()
    try:
        batch = list(islice(queue, BLOCKS_PER_JOB))
        while batch or pending:
            if batch:
                if taking is None:
                    taking = asyncio.create_task(_take(slabs, len(batch)))
                    await asyncio.sleep(0)  # what is free is granted at once
                if taking.done() or not pending:
                    # Never waits for a slab while holding blocks the consumer could return one for.
                    taken = list(await taking)
                    taking = None
                    head, batch = batch[: len(taken)], batch[len(taken) :]
                    pending.append(_begin(reader, head, taken))
                    batch += islice(queue, BLOCKS_PER_JOB - len(batch))
                    if len(pending) < JOBS:
                        continue
            job = pending[0]
            if not job.images.done():
                await asyncio.wait([job.images])
            images = job.images.result()
            for position, (header, image) in enumerate(zip(job.headers, images, strict=True)):
                if not image.ok or image.identity.kind != header.kind:
                    images[position] = await read_settled(reader, header, job.slabs[position].buffer, image)
            pending.popleft()
            for image, slab in zip(images, job.slabs, strict=True):
                if image.ok and image.identity.kind != KIND_NONE:
                    ready.append((image, CapturedBlock(image.identity, slab, image.digest)))
                else:
                    slab.release()
                    ready.append((image, None))
            while ready:
                yield ready.popleft()
    finally:
        if taking is not None:
            taking.cancel()
            await asyncio.wait([taking])
            if not taking.cancelled() and taking.exception() is None:
                pending.append(_Job([], list(taking.result()), _nothing()))
        for _, block in ready:
            if block is not None:
                block.slab.release()
        for job in pending:
            # The thread must be done with the slabs before they go back.
            await asyncio.wait([job.images])
            job.images.exception()
            for slab in job.slabs:
                slab.release()


async def read_settled(reader: BlockReader, header: BlockHeader, buffer: memoryview, image: BlockImage) -> BlockImage:
    """A block that was read as ``image``: again, for a moment, while its checksum fails, because it may be in the
    middle of being written. ``buffer`` then holds what the answer says."""
    if image.identity.kind != header.kind:
        # Freed and reused since its header was read: that header's length is not this block's.
        image = await reader.read(header.block_index, buffer)
    for attempt in range(_TORN_ATTEMPTS):
        if image.ok:
            break
        await asyncio.sleep(_TORN_SECONDS * (attempt + 1))
        image = await reader.read(header.block_index, buffer)
    return image


def _begin(reader: BlockReader, headers: list[BlockHeader], slabs: list[Slab]) -> _Job:
    orders = [
        BlockOrder(header.block_index, slab.buffer, header.read_length)
        for header, slab in zip(headers, slabs, strict=True)
    ]
    return _Job(headers, slabs, reader.begin(orders))


async def _take(slabs: SlabSource, most: int) -> Sequence[Slab]:
    return await slabs.take(most)


def _nothing() -> asyncio.Future[list[BlockImage]]:
    future: asyncio.Future[list[BlockImage]] = asyncio.get_running_loop().create_future()
    future.set_result([])
    return future
