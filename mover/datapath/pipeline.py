"""Blocks in, placements out: the path of a macroblock from a store to macro files at the destination.

reader (store) -> frame_block (threads) -> MacroFiles -> target. Frames are written in the order the blocks came;
at most ``depth`` blocks are between reader and destination, and each holds one slab.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from mover.datapath.compression import Compression
from mover.datapath.framing import FramedBlock, frame_block
from mover.datapath.packer import MacroFiles
from mover.errors import IntegrityError
from mover.repository.placement import Placement
from mover.store.base import MACRO_BLOCK_SIZE, CapturedBlock, UnchangedBlock


@dataclass(slots=True)
class PackCounters:
    """What went through so far. ``input_bytes`` counts 2 MiB per copied block, as OceanBase does."""

    blocks: int = 0
    reused: int = 0
    input_bytes: int = 0
    read_bytes: int = 0  # used bytes that were really looked at
    output_bytes: int = 0


async def pack_blocks(
    blocks: AsyncIterator[CapturedBlock | UnchangedBlock],
    files: MacroFiles,
    *,
    compression: Compression,
    previous: Mapping[int, Placement],
    threads: Executor,
    depth: int,
    progress: Callable[[PackCounters], None],
) -> dict[int, Placement]:
    """Copy every block that ``previous`` does not hold already.

    Args:
        blocks: what a capture yields; of a block that comes twice the later one counts.
        previous: placements of the set this one builds on, by block index; empty for a full.
        depth: blocks in flight, at least 1.
        progress: called on the event loop after each block.

    Returns:
        The placement of each block index that came, the last one each.

    Raises whatever reader, kernel or destination raise; every slab is back in its pool then.
    """
    placements: dict[int, Placement] = {}
    counters = PackCounters()
    # Everything goes through it, so that of a block that comes twice the later one counts whatever it came as.
    queue: asyncio.Queue[CapturedBlock | UnchangedBlock | None] = asyncio.Queue(depth)
    # Every block that was taken from the reader and whose slab is not back yet.
    in_flight: dict[int, tuple[CapturedBlock, asyncio.Future[FramedBlock | bytes]]] = {}
    loop = asyncio.get_running_loop()

    def old(index: int, digest: bytes) -> bool:
        known = previous.get(index)
        return known is not None and known.digest == digest

    async def read() -> None:
        async for block in blocks:
            if isinstance(block, CapturedBlock):
                index = block.identity.block_index
                framed = loop.run_in_executor(
                    threads,
                    frame_block,
                    block.identity,
                    block.data,
                    compression,
                    lambda digest, i=index: old(i, digest),
                )
                in_flight[id(block)] = (block, framed)
            await queue.put(block)
        await queue.put(None)

    async def write() -> None:
        while (block := await queue.get()) is not None:
            index = block.identity.block_index
            counters.blocks += index not in placements
            if isinstance(block, UnchangedBlock):
                placements[index] = _reuse(previous, block)
                counters.reused += 1
                progress(counters)
                continue
            # Shielded: cancelling the wait must not let go of a slab that a kernel thread still reads.
            framed = await asyncio.shield(in_flight[id(block)][1])
            counters.read_bytes += block.identity.used_length
            if isinstance(framed, bytes):
                # The bytes are those of the earlier set, whatever the header said on the way.
                placements[index] = replace(previous[index], identity=block.identity)
                counters.reused += 1
            else:
                placements[index] = await files.write(framed)
                counters.input_bytes += MACRO_BLOCK_SIZE
                counters.output_bytes = files.bytes_written
            del in_flight[id(block)]
            block.slab.release()
            progress(counters)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            group.create_task(write())
        await files.finish()
    except BaseException as exc:
        # The reader may hold slabs of its own: it gives them back when it is closed, not when it is collected.
        if isinstance(blocks, AsyncGenerator):
            await blocks.aclose()
        for block, future in in_flight.values():
            await _settle(future)
            block.slab.release()
        await files.abort()
        if isinstance(exc, BaseExceptionGroup):
            # One thing went wrong first; the other side was only cancelled because of it.
            raise exc.exceptions[0] from None
        raise
    counters.output_bytes = files.bytes_written
    progress(counters)
    return placements


def _reuse(previous: Mapping[int, Placement], block: UnchangedBlock) -> Placement:
    index = block.identity.block_index
    if index not in previous:
        raise IntegrityError(f"block {index} is called unchanged, but the previous set does not have it")
    return previous[index]


async def _settle(future: asyncio.Future[FramedBlock | bytes]) -> None:
    """Wait until the kernel thread has let go of the slab, whatever became of the frame."""
    while not future.done():
        try:
            await asyncio.shield(future)
        except BaseException:  # noqa: S112 - a cancelled wait is repeated; the frame's own error was raised already
            continue
