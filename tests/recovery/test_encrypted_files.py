"""Encrypted macro files, from the lanes that pack them to the reader that restores them; the largest blocks too."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from memory_store import PG, identify, linked_block
from sealed_samples import KEY, KEYS

from mover.datapath.buffers import BufferPool, plan_memory
from mover.datapath.compression import Chooser, Compression
from mover.datapath.packer import MacroFiles
from mover.datapath.pipeline import pack_blocks
from mover.datapath.processes import MacroSpace
from mover.encryption.cipher import NO_KEYS
from mover.errors import IntegrityError
from mover.kernel import xxh3_128
from mover.media.layout import Layout
from mover.media.manifest import ManifestFile
from mover.media.sealed import Opening
from mover.recovery.macro_files import MacroFile
from mover.recovery.macro_reader import MacroReader
from mover.store.base import MACRO_BLOCK_SIZE, CapturedBlock, UnchangedBlock
from mover.target.files import FileTarget

SPACE = MacroSpace(Layout("seekdb", 1), 1, 1, 1, PG, KEY)
RNG = random.Random(3)
# Two fill their slabs and do not compress, one does, and of one the trailer needs a page more than its payload.
BLOCKS = {
    0: linked_block(RNG.randbytes(MACRO_BLOCK_SIZE - 24)),
    1: linked_block(b"row" * 300_000),
    2: linked_block(RNG.randbytes(4096 * 3 - 48 - 24 - 78)),
    3: linked_block(RNG.randbytes(MACRO_BLOCK_SIZE - 24)),
    4: linked_block(RNG.randbytes(100)),
}


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[FileTarget]:
    opened = FileTarget(str(tmp_path / "dest"), "file:///dest", create=True)
    await opened.open()
    yield opened
    await opened.aclose()


async def packed(target: FileTarget, compression: str) -> tuple[MacroFile, bytes]:
    """The one macro file of all blocks, as the set would name it, and its bytes."""
    memory = plan_memory(16 << 20, part_size=2 << 20, min_part=0, concurrency=2, workers=2)
    slabs, parts = BufferPool(memory.slabs, MACRO_BLOCK_SIZE), BufferPool(memory.parts, memory.part_size)

    async def blocks() -> AsyncIterator[CapturedBlock | UnchangedBlock]:
        for index, block in BLOCKS.items():
            slab = await slabs.acquire()
            slab.buffer[: len(block)] = block
            yield CapturedBlock(identify(index, block), slab, xxh3_128(block))

    with ThreadPoolExecutor(2) as threads:
        files = MacroFiles(target, SPACE.path_of, 1, threads=threads)
        placements = await pack_blocks(
            blocks(),
            files,
            parts=parts,
            lanes=2,
            chooser=Chooser(Compression.parse(compression)),
            previous={},
            threads=threads,
            progress=lambda _counters: None,
            sealing=SPACE.sealing(),
        )
    (file,) = files.files
    row = ManifestFile(file.path, file.size, file.digest)
    expected = {placement.offset: placement for placement in placements.values()}
    return MacroFile(file.path, row, expected, Opening.of(file.path, KEYS)), await target.get(file.path)


async def read(target: FileTarget, file: MacroFile) -> dict[int, bytes]:
    found: dict[int, bytes] = {}

    def write(index: int, block: memoryview) -> None:
        found[index] = bytes(block)[: len(BLOCKS[index])]

    async with MacroReader(target, memory=32 << 20, concurrency=2, lanes=2) as reader:
        await reader.read(file, lambda _blocks, _bytes: None, write=write, everything=True)
        assert reader.lent == 0
    return found


@pytest.mark.parametrize("compression", ["none", "auto"])
async def test_every_block_comes_back(target: FileTarget, compression: str) -> None:
    file, data = await packed(target, compression)
    assert not any(block[24:64] in data for block in BLOCKS.values())
    assert await read(target, file) == BLOCKS
    # Without the key: its digest and its frames.
    locked = MacroFile(file.path, file.row, {}, Opening.of(file.path, NO_KEYS))
    assert await read(target, locked) == {}


@pytest.mark.parametrize("place", ["header", "payload", "trailer", "padding"])
async def test_what_was_changed_is_found_before_it_is_written(target: FileTarget, place: str) -> None:
    file, data = await packed(target, "none")
    frame = next(p for p in file.expected.values() if p.identity.block_index == 4)
    end = frame.offset + 48 + 24 + 100 + 78 + 47
    at = {"header": frame.offset + 20, "payload": frame.offset + 90, "trailer": end - 20, "padding": end + 50}[place]
    damaged = bytearray(data)
    damaged[at] ^= 1
    await target.put(file.path, bytes(damaged))
    row = ManifestFile(file.path, len(damaged), xxh3_128(damaged))
    with pytest.raises(IntegrityError) as caught:
        await read(target, MacroFile(file.path, row, file.expected, file.opening))
    assert caught.value.where["path"] == file.path
    assert caught.value.where["offset"] >= frame.offset


async def test_two_frames_that_changed_places_are_refused(target: FileTarget) -> None:
    """Both decrypt in either place; which block must be where is what the index, encrypted in its place, says."""
    file, data = await packed(target, "none")
    one, other = (next(p for p in file.expected.values() if p.identity.block_index == index) for index in (0, 3))
    assert one.length == other.length
    swapped = bytearray(data)
    for here, there in ((one, other), (other, one)):
        swapped[here.offset : here.offset + here.length] = data[there.offset : there.offset + there.length]
    await target.put(file.path, bytes(swapped))
    row = ManifestFile(file.path, len(swapped), xxh3_128(swapped))
    with pytest.raises(IntegrityError, match="the index says block"):
        await read(target, MacroFile(file.path, row, file.expected, file.opening))
