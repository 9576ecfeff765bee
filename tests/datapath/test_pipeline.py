"""Blocks to macro files: order, limits, reuse, and what is left when something fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_target import FaultyTarget
from memory_store import identify, linked_block, sstable_block

from mover.datapath.buffers import END_MARK_ROOM, FRAME_ROOM, BufferPool, plan_memory
from mover.datapath.compression import Chooser, Compression
from mover.datapath.intake import PackCounters
from mover.datapath.packer import MacroFiles
from mover.datapath.parts import PartFrame
from mover.datapath.pipeline import pack_blocks
from mover.errors import IntegrityError, MoverError
from mover.kernel import xxh3_128
from mover.media.frames import iter_frames
from mover.media.header import DataType
from mover.media.macro import parse_macro
from mover.repository.placement import Placement
from mover.store.base import CapturedBlock, UnchangedBlock
from mover.target.files import FileTarget


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[FaultyTarget]:
    inner = FileTarget(str(tmp_path / "dest"), "file:///dest", create=True)
    await inner.open()
    yield FaultyTarget(inner)
    await inner.aclose()


@pytest.fixture
def threads() -> object:
    with ThreadPoolExecutor(2) as pool:
        yield pool


class Work:
    """A pipeline on what ``steps`` yields: (index, bytes) for a captured block, an index for an unchanged one."""

    def __init__(
        self, target: FaultyTarget, threads: ThreadPoolExecutor, *, set_id: int = 1, per_file: int = 512
    ) -> None:
        memory = plan_memory(16 << 20, part_size=2 << 20, min_part=0, concurrency=2, workers=2)
        self.memory = memory
        self.pool = BufferPool(memory.slabs, 2 << 20)
        self.parts = BufferPool(memory.parts, memory.part_size)
        self.threads = threads
        self.files = MacroFiles(
            target, lambda sub: f"macro_{set_id}.{sub}", set_id, threads=threads, blocks_per_file=per_file
        )
        self.counters = PackCounters()
        self.closed = False

    async def blocks(self, steps: list[object]) -> AsyncIterator[CapturedBlock | UnchangedBlock]:
        try:
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, tuple):
                    index, block = step
                    slab = await self.pool.acquire()
                    slab.buffer[: len(block)] = block
                    yield CapturedBlock(identify(index, block), slab, xxh3_128(block))
                else:
                    assert isinstance(step, UnchangedBlock)
                    yield step
        finally:
            self.closed = True

    async def run(
        self, steps: list[object], previous: dict[int, Placement] | None = None, compression: str = "auto"
    ) -> dict[int, Placement]:
        def note(counters: PackCounters) -> None:
            self.counters = counters

        try:
            return await pack_blocks(
                self.blocks(steps),
                self.files,
                parts=self.parts,
                lanes=self.memory.lanes,
                chooser=Chooser(Compression.parse(compression)),
                previous=previous or {},
                threads=self.threads,
                progress=note,
            )
        finally:
            assert (self.pool.lent, self.parts.lent) == (0, 0)


async def read_back(target: FaultyTarget, path: str) -> dict[int, tuple[int, bytes]]:
    """Frame offset to (frame length, block bytes)."""
    data = await target.get(path)
    return {
        frame.offset: (frame.size, bytes(parse_macro(frame.data()).block))
        for frame in iter_frames(data, data_type=DataType.MACRO_DATA)
    }


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("compression", ["none", "auto", "zstd:3", "lz4"])
async def test_every_placement_names_the_bytes_of_its_block(
    target: FaultyTarget, threads: ThreadPoolExecutor, count: int, compression: str
) -> None:
    rng = random.Random(count)
    blocks = {i: linked_block(rng.randbytes(9) * rng.randint(1, 400)) for i in range(count)}
    work = Work(target, threads, per_file=3)
    placements = await work.run(list(blocks.items()), compression=compression)
    # A file is closed at its limit, and there is no empty one behind a full one.
    assert len(work.files.files) == -(-count // 3)
    for file in work.files.files:
        data = await target.get(file.path)
        assert (len(data), xxh3_128(data)) == (file.size, file.digest)
    for index, placement in placements.items():
        found = await read_back(target, f"macro_1.{placement.sub_task_id}")
        assert found[placement.offset] == (placement.length, blocks[index])
        assert placement.digest == xxh3_128(blocks[index])
    assert work.counters.output_bytes == sum(file.size for file in work.files.files)


async def test_no_blocks_make_no_file(target: FaultyTarget, threads: ThreadPoolExecutor) -> None:
    work = Work(target, threads)
    assert await work.run([]) == {}
    assert work.files.files == []


async def test_of_a_block_that_comes_twice_the_later_counts_whatever_it_came_as(
    target: FaultyTarget, threads: ThreadPoolExecutor
) -> None:
    old, new = sstable_block(5, 1, 1, b"old" * 999), sstable_block(5, 2, 1, b"new" * 999)
    first = await Work(target, threads).run([(7, old)])
    captured_last = await Work(target, threads, set_id=2).run(
        [UnchangedBlock(identify(7, old)), (7, new)], previous=first
    )
    assert captured_last[7].backup_set_id == 2
    # The engine took a block, we read it, and at the end it is the old one again.
    unchanged_last = await Work(target, threads, set_id=3).run(
        [(7, new), UnchangedBlock(identify(7, old))], previous=first
    )
    assert unchanged_last[7] == first[7]


async def test_equal_bytes_are_reused_and_other_bytes_are_not(
    target: FaultyTarget, threads: ThreadPoolExecutor
) -> None:
    first = await Work(target, threads).run([(1, linked_block(b"a")), (2, linked_block(b"b"))])
    work = Work(target, threads, set_id=2)
    second = await work.run([(1, linked_block(b"a")), (2, linked_block(b"c"))], previous=first)
    assert second[1] == first[1]
    assert second[2].backup_set_id == 2
    assert (work.counters.blocks, work.counters.reused) == (2, 1)


async def test_unchanged_without_a_set_to_build_on_is_refused(
    target: FaultyTarget, threads: ThreadPoolExecutor
) -> None:
    with pytest.raises(IntegrityError, match="block 7"):
        await Work(target, threads).run([UnchangedBlock(identify(7, linked_block(b"x")))])


@pytest.mark.parametrize("dies_at", range(8))
async def test_a_failing_destination_leaves_no_slab_no_reader_and_no_torn_file(
    target: FaultyTarget, threads: ThreadPoolExecutor, dies_at: int
) -> None:
    target.die_at = dies_at
    work = Work(target, threads, per_file=2)
    blocks: list[object] = [(i, linked_block(bytes([i + 1]) * 3000)) for i in range(20)]
    with pytest.raises(MoverError, match="destination is gone"):
        await work.run(blocks)
    assert work.closed
    # Two files may be published side by side.
    assert {info.path async for info in target.inner.list("")} == {file.path for file in work.files.files}


async def test_the_readers_own_error_is_the_one_that_is_raised(
    target: FaultyTarget, threads: ThreadPoolExecutor
) -> None:
    error = IntegrityError("block 3 is damaged")
    work = Work(target, threads)
    with pytest.raises(IntegrityError) as raised:
        await work.run([(1, linked_block(b"x")), error])
    assert raised.value is error
    assert [info.path async for info in target.inner.list("")] == []


async def test_a_lane_that_is_cancelled_while_others_have_their_turn_gives_its_part_back(
    target: FaultyTarget, threads: ThreadPoolExecutor
) -> None:
    work = Work(target, threads)
    first, second = await work.parts.take(2)
    first.filled = second.filled = 4096
    async with work.files._turn:
        frame = PartFrame(1, identify(1, linked_block(b"x")), bytes(16), 0, 4096)
        waiting = asyncio.create_task(work.files.append(first, [frame]))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert work.parts.lent == 1
    second.release()
    await work.files.abort()


async def test_a_cancelled_pipeline_gives_everything_back(target: FaultyTarget, threads: ThreadPoolExecutor) -> None:
    work = Work(target, threads)
    blocks: list[object] = [(i, linked_block(bytes([i % 250 + 1]) * 4000)) for i in range(400)]
    running = asyncio.create_task(work.run(blocks))
    while work.counters.blocks < 5:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert work.closed and work.pool.lent == 0
    assert [info.path async for info in target.inner.list("")] == []


async def test_a_part_that_has_room_left_is_not_sent_for_want_of_more(target, threads):
    """Blocks come in bursts and pack to little: what a store may refuse as too small a part is filled up first."""
    work = Work(target, threads)
    work.parts = BufferPool(6, 4 * FRAME_ROOM + END_MARK_ROOM)
    sent = []
    append = work.files.append

    async def noted(part, frames):
        sent.append(part.filled)
        return await append(part, frames)

    work.files.append = noted
    steps = [(index, sstable_block(1, 2, index, bytes(50_000))) for index in range(40)]
    await work.run(steps, compression="zstd:1")
    assert len(sent) == 1
