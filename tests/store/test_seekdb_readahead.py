"""Reading ahead: every slab comes back, whoever stops when, and a block that is being written is read again."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import pytest
from memory_store import shared_block, sstable_block

from mover.datapath.buffers import BufferPool
from mover.errors import SourceError
from mover.kernel import xxh3_128
from mover.store.base import MACRO_BLOCK_SIZE
from mover.store.seekdb.blocks import BlockHeader, BlockReader
from mover.store.seekdb.readahead import read_ahead

COUNT = 23


@pytest.fixture
def blocks() -> list[bytes]:
    return [
        sstable_block(200_001, 9, number, bytes([number]) * (5000 + number))
        if number % 3
        else shared_block(7, bytes([65 + number]) * 9000)
        for number in range(COUNT)
    ]


@pytest.fixture
def path(tmp_path: Path, blocks: list[bytes]) -> Path:
    path = tmp_path / "block_file"
    with path.open("wb") as file:
        file.truncate((COUNT + 2) * MACRO_BLOCK_SIZE)
        for number, block in enumerate(blocks):
            file.seek((number + 2) * MACRO_BLOCK_SIZE)
            file.write(block)
    return path


async def opened(path: Path) -> tuple[BlockReader, list[BlockHeader]]:
    reader = BlockReader(path)
    return reader, await reader.headers(range(2, COUNT + 2))


@pytest.mark.parametrize("slabs", [1, 2, 3, 5, 64])
async def test_all_blocks_come_in_order_whatever_slabs_there_are(path: Path, blocks: list[bytes], slabs: int) -> None:
    reader, headers = await opened(path)
    pool = BufferPool(slabs, MACRO_BLOCK_SIZE)
    held, seen = [], []
    async for image, block in read_ahead(reader, headers, pool):
        assert block is not None
        seen.append(image.identity.block_index)
        assert bytes(block.data) == blocks[image.identity.block_index - 2]
        assert block.digest == image.digest == xxh3_128(block.data)
        # A consumer that keeps some, and is slow with them.
        held.append(block.slab)
        if len(held) > min(3, slabs - 1):
            held.pop(0).release()
            await asyncio.sleep(0)
    for slab in held:
        slab.release()
    assert seen == list(range(2, COUNT + 2))
    assert pool.lent == 0
    assert reader.read_bytes == sum(header.read_length for header in headers) + COUNT * 4096
    await reader.aclose()


@pytest.mark.parametrize("stop", [1, 3, 4, 9])
async def test_a_consumer_that_stops_leaves_no_slab_behind(path: Path, stop: int) -> None:
    reader, headers = await opened(path)
    pool = BufferPool(9, MACRO_BLOCK_SIZE)
    async with aclosing(read_ahead(reader, headers, pool)) as found:
        async for image, block in found:
            assert block is not None
            block.slab.release()
            if image.identity.block_index == stop + 1:
                break
    assert pool.lent == 0
    await reader.aclose()


async def test_a_consumer_that_is_cancelled_while_it_waits_for_a_slab(path: Path) -> None:
    reader, headers = await opened(path)
    pool = BufferPool(2, MACRO_BLOCK_SIZE)
    slabs = []
    taken = asyncio.Event()

    async def consume() -> None:
        async with aclosing(read_ahead(reader, headers, pool)) as found:
            async for _, block in found:
                assert block is not None
                slabs.append(block.slab)
                if len(slabs) == 2:
                    taken.set()

    task = asyncio.create_task(consume())
    await taken.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.lent == 2
    for slab in slabs:
        slab.release()
    assert await pool.take(2)
    await reader.aclose()


async def test_a_block_that_is_being_written_is_read_again(path: Path, blocks: list[bytes]) -> None:
    """The first look finds half of it. The writer is done before the last attempt."""
    reader, headers = await opened(path)
    pool = BufferPool(4, MACRO_BLOCK_SIZE)
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, b"\xff" * 100, 3 * MACRO_BLOCK_SIZE + 3000)
    os.pwrite(fd, bytes(24), 5 * MACRO_BLOCK_SIZE)
    looks = []
    read = reader._read

    def counted(orders):
        looks.append([order.block_index for order in orders])
        if looks.count([3]) == 2:
            os.pwrite(fd, blocks[1][3000:3100], 3 * MACRO_BLOCK_SIZE + 3000)
        return read(orders)

    reader._read = counted  # type: ignore[method-assign]
    found = {}
    async for image, block in read_ahead(reader, headers, pool):
        found[image.identity.block_index] = image
        if block is not None:
            block.slab.release()
        else:
            assert image.identity.block_index == 5
    assert found[3].ok
    assert looks.count([3]) == 2
    assert found[5].identity.kind == 0, "freed: its header is gone"
    assert pool.lent == 0
    os.close(fd)
    await reader.aclose()


async def test_a_file_that_shrank_is_a_source_error_and_no_slab_is_lost(path: Path) -> None:
    reader, headers = await opened(path)
    pool = BufferPool(8, MACRO_BLOCK_SIZE)
    os.truncate(path, 12 * MACRO_BLOCK_SIZE)
    with pytest.raises(SourceError, match="ends inside block 12"):
        async for _, block in read_ahead(reader, headers, pool):
            assert block is not None
            block.slab.release()
    assert pool.lent == 0
    await reader.aclose()
