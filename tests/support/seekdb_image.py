"""From a seekdb store straight to a bootable copy, without a destination in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mover.datapath.buffers import BufferPool
from mover.kernel import xxh3_128
from mover.store.base import BlockIdentity, CapturedBlock, CaptureResult, LogCursor
from mover.store.seekdb.rebuild import StoreBuilder
from mover.store.seekdb.server import SeekdbServer
from mover.store.seekdb.store import SeekdbStore


@dataclass
class Image:
    """A capture in memory: what a backup set would hold."""

    result: CaptureResult
    blocks: dict[int, bytes]
    identities: dict[int, BlockIdentity]
    captured: int = 0
    unchanged: int = 0
    unchanged_kinds: set[int] = field(default_factory=set)
    log: list[Any] = field(default_factory=list)

    def build(self, target: Path) -> None:
        """Write the bootable store; every block of the image must be there."""
        builder = StoreBuilder(target, self.result.block_file_size)
        try:
            for file in self.result.files:
                builder.write_file(file)
            for index in self.result.live:
                builder.write_block(index, self.blocks[index])
            for chunk in self.log:
                builder.append_log(chunk.start_lsn, chunk.block_header, chunk.data)
            builder.finish()
        finally:
            builder.close()

    def server(self, target: Path, **options: Any) -> SeekdbServer:
        """An engine on the copy."""
        return SeekdbServer(target, **options)


async def take_image(
    store: SeekdbStore,
    known: Mapping[int, BlockIdentity] | None = None,
    base_blocks: Mapping[int, bytes] | None = None,
    *,
    slabs: int = 8,
    on_block: Callable[[int], Any] | None = None,
    log_to_end: bool = True,
) -> Image:
    """Capture a store and the log that belongs to it.

    Args:
        known, base_blocks: identities and content of an earlier image, for an incremental.
        slabs: size of the slab pool.
        on_block: awaited after each block with the number of blocks so far, to make things happen meanwhile.
    """
    pool = BufferPool(slabs, 2 << 20)
    capture = await store.capture(pool)
    # Held before the capture begins, as the archive is: the engine may recycle its start while blocks are copied.
    log = await store.log("test-image")
    try:
        if not store.offline:
            await log.hold(await log.begin_lsn())
        blocks: dict[int, bytes] = {}
        identities: dict[int, BlockIdentity] = {}
        captured = unchanged = 0
        kinds: set[int] = set()
        async for block in capture.blocks(known or {}, {i: xxh3_128(data) for i, data in (base_blocks or {}).items()}):
            if isinstance(block, CapturedBlock):
                blocks[block.identity.block_index] = bytes(block.data)
                block.slab.release()
                captured += 1
            else:
                assert base_blocks is not None
                blocks[block.identity.block_index] = base_blocks[block.identity.block_index]
                unchanged += 1
                kinds.add(block.identity.kind)
            identities[block.identity.block_index] = block.identity
            if on_block is not None:
                await on_block(captured + unchanged)
        result = capture.result
        assert pool.lent == 0
        image = Image(result, blocks, identities, captured, unchanged, kinds)
        cursor = LogCursor(result.start_lsn)
        while log_to_end and cursor.lsn < result.end_lsn:
            chunk = await log.read(cursor, 4 << 20)
            assert chunk is not None
            image.log.append(chunk)
            cursor = chunk.next
        return image
    finally:
        await capture.aclose()
        await asyncio.shield(log.aclose(keep_hold=False))
