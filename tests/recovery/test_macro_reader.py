"""Macro files read in ranges: what comes out, what is found, in which words, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import linked_block, sstable_block

from mover.errors import ConfigError, FormatError, IntegrityError, MoverError, TargetNotFound
from mover.kernel import UNPACK_SLAB, macroblock_check, xxh3_128, zstd_compress
from mover.media.frames import end_mark, frame
from mover.media.header import Compressor, DataType
from mover.media.macro import MACRO_SUFFIX, BlockMeta, macro_prefix
from mover.media.manifest import ManifestFile
from mover.recovery.macro_files import MacroFile
from mover.recovery.macro_reader import MacroReader, plan_reading
from mover.repository.placement import Placement
from mover.store.base import BlockIdentity
from mover.target.files import FileTarget

PATH = "data/macro_block_1.0"
MIB = 1 << 20


def block_of(index: int, size: int) -> bytes:
    content = random.Random(index).randbytes(size)
    return sstable_block(200_001, 5, index, content) if index % 2 else linked_block(content)


def framed(index: int, block: bytes, *, compressed: bool = False, **changed: int) -> bytes:
    header = macroblock_check(block)
    meta = BlockMeta(index, header.kind, len(block), header.tablet_id, header.logical_version, header.data_seq)
    payload = macro_prefix(replace(meta, **changed).pack(), len(block)) + block + MACRO_SUFFIX
    if not compressed:
        return frame(DataType.MACRO_DATA, payload)
    kind = Compressor.ZSTD_1_3_8
    return frame(DataType.MACRO_DATA, zstd_compress(payload, 1), compressor=kind, raw_length=len(payload))


@dataclass
class Built:
    """A macro file, the blocks in it, and those of them that an index names."""

    data: bytes = b""
    blocks: dict[int, bytes] = field(default_factory=dict)
    expected: dict[int, Placement] = field(default_factory=dict)

    def add(self, index: int, block: bytes, *, named: bool = True, compressed: bool = False) -> None:
        made = framed(index, block, compressed=compressed)
        if named:
            kind = macroblock_check(block).kind
            identity = BlockIdentity(index, kind, len(block))
            self.expected[len(self.data)] = Placement(identity, xxh3_128(block), 1, 0, len(self.data), len(made))
            self.blocks[index] = block
        self.data += made

    def file(self, data: bytes | None = None) -> MacroFile:
        data = self.data if data is None else data
        return MacroFile(PATH, ManifestFile(PATH, len(data), xxh3_128(data)), self.expected)


def built(count: int = 9, *, size: int = 600_000, unnamed: tuple[int, ...] = (2, 5, 6)) -> Built:
    made = Built()
    for index in range(count):
        made.add(index, block_of(index, size + index), named=index not in unnamed, compressed=index % 3 == 0)
    made.data += end_mark()
    return made


class Site:
    """A destination with one macro file, and a reader on it."""

    def __init__(self, target: FileTarget, root: Path) -> None:
        self.target = target
        self.root = root
        self.written: dict[int, bytes] = {}
        self.done = [0, 0]
        self.lock = threading.Lock()

    def store(self, data: bytes) -> None:
        (self.root / PATH).parent.mkdir(exist_ok=True)
        (self.root / PATH).write_bytes(data)

    def write(self, index: int, data: memoryview) -> None:
        assert len(data) % 4096 == 0
        with self.lock:
            # A range that did not hold was read again: what held in it comes again, and is the same.
            assert self.written.get(index, data) == data
            self.written[index] = bytes(data)

    def advance(self, blocks: int, size: int) -> None:
        self.done = [self.done[0] + blocks, self.done[1] + size]

    async def read(self, file: MacroFile, *, memory: int = 24 * MIB, lanes: int = 2, **options: bool) -> int:
        """Read it; bytes that were planned."""
        write = None if options.pop("verify", False) else self.write
        async with MacroReader(self.target, memory=memory, concurrency=3, lanes=lanes) as reader:
            try:
                await reader.read(file, self.advance, write=write, **options)
            finally:
                assert reader.lent == 0
            return reader.plan(file, **options).bytes


@asynccontextmanager
async def site_at(root: Path) -> AsyncIterator[Site]:
    target = FileTarget(str(root), root.as_uri(), create=False)
    await target.open()
    try:
        yield Site(target, root)
    finally:
        await target.aclose()
        assert [t.name for t in threading.enumerate() if t.name.startswith("mover-unpack")] == []


@pytest.mark.parametrize("memory", [5 * MIB, 9 * MIB, 64 * MIB])
@pytest.mark.parametrize("unnamed", [(), (0,), (2, 5, 6), (8,), tuple(range(9))], ids=str)
async def test_every_named_block_comes_out_once(tmp_path: Path, memory: int, unnamed: tuple[int, ...]) -> None:
    made = built(unnamed=unnamed)
    async with site_at(tmp_path) as site:
        site.store(made.data)
        assert await site.read(made.file(), memory=memory) == len(made.data)
        assert site.written.keys() == made.blocks.keys()
        for index, data in site.written.items():
            assert data == made.blocks[index] + bytes(-len(made.blocks[index]) % 4096)
        assert site.done == [len(made.blocks), len(made.data)]
        site.written.clear()
        await site.read(made.file(), verify=True, everything=True)
        assert site.written == {}


async def test_only_what_is_needed_is_read_when_that_is_much_less(tmp_path: Path) -> None:
    made = built(24, unnamed=tuple(range(2, 23)))
    async with site_at(tmp_path) as site:
        damaged = bytearray(made.data)
        damaged[len(damaged) // 2] ^= 1
        site.store(bytes(damaged))
        read = await site.read(made.file(), memory=64 * MIB)
        assert read == sum(placement.length for placement in made.expected.values())
        assert site.done == [3, read]
        assert site.written.keys() == {0, 1, 23}
        with pytest.raises(IntegrityError, match=r"macro_block_1\.0"):
            await site.read(made.file(), everything=True, verify=True)


async def test_ranges_may_arrive_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first range comes last, as a slow request may: blocks go on meanwhile, the digest waits."""
    made = built(9)
    async with site_at(tmp_path) as site:
        site.store(made.data)
        original, late = FileTarget.read_into, asyncio.Event()

        async def read_into(self: FileTarget, path: str, start: int, buffer: memoryview) -> None:
            if start == 0:
                await late.wait()
            await original(self, path, start, buffer)

        def advance(_blocks: int, _size: int) -> None:
            raise AssertionError("no range is verified before the one in front of it")

        monkeypatch.setattr(FileTarget, "read_into", read_into)
        async with MacroReader(site.target, memory=18 * MIB, concurrency=3, lanes=1) as reader:
            blocked = asyncio.create_task(reader.read(made.file(), advance, write=site.write))
            async with asyncio.timeout(30):
                while not site.written:
                    await asyncio.sleep(0.01)
            assert 0 not in site.written
            blocked.cancel()
            await asyncio.gather(blocked, return_exceptions=True)
            assert reader.lent == 0
            site.written.clear()
            reading = asyncio.create_task(reader.read(made.file(), site.advance, write=site.write))
            async with asyncio.timeout(30):
                while not site.written:
                    await asyncio.sleep(0.01)
                late.set()
                await reading
        assert site.written.keys() == made.blocks.keys()


async def test_any_flipped_bit_is_found_and_the_file_named(tmp_path: Path) -> None:
    made, rng = built(7, size=9000), random.Random(5)
    async with site_at(tmp_path) as site:
        for _ in range(120):
            damaged = bytearray(made.data)
            where = rng.choice([rng.randrange(len(damaged)), rng.choice(list(made.expected)) + rng.randrange(200)])
            damaged[where] ^= 1 << rng.randrange(8)
            site.store(bytes(damaged))
            with pytest.raises(IntegrityError, match=r"macro_block_1\.0") as found:
                await site.read(made.file(), verify=True)
            assert found.value.where["path"] == PATH


def _swap(made: Built, index: int, block: bytes, **changed: int) -> bytes:
    """The file with another frame, as long, where ``index`` is."""
    offset = next(at for at, placement in made.expected.items() if placement.identity.block_index == index)
    length = made.expected[offset].length
    new = framed(index, block, **changed)
    assert len(new) == length
    return made.data[:offset] + new + made.data[offset + length :]


def _broken(block: bytes) -> bytes:
    return block[:-1] + bytes([block[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda made: _swap(made, 1, made.blocks[1], block_index=4), IntegrityError, "holds block 4, the index says"),
        (lambda made: _swap(made, 1, _broken(made.blocks[1])), IntegrityError, "block 1 at .* not match its digest"),
        (lambda made: made.data[:-4096] + bytes(4096), FormatError, "header version"),
        (lambda made: made.data[:-4096] + framed(9, b"x" * 999), FormatError, "end mark missing|block 9"),
        (lambda made: made.data[:-4096], IntegrityError, "bytes, the manifest says"),
        (lambda made: made.data + end_mark(), IntegrityError, "bytes, the manifest says"),
    ],
    ids=["another-block", "another-content", "no-end-mark", "a-frame-for-an-end-mark", "shorter", "longer"],
)
async def test_damage_that_a_digest_of_the_file_does_not_show_is_said(
    tmp_path: Path, change: Callable[[Built], bytes], kind: type[MoverError], words: str
) -> None:
    made = built(5, size=3000)
    async with site_at(tmp_path) as site:
        data = change(made)
        site.store(data)
        # The manifest agrees with what is there, but for the length.
        file = made.file(data) if len(data) == len(made.data) else made.file()
        with pytest.raises(kind, match=words) as found:
            await site.read(file)
        assert found.value.where["path"] == PATH


async def test_a_block_that_the_engine_would_refuse_is_not_restored(tmp_path: Path) -> None:
    made = Built()
    made.add(3, _broken(block_of(3, 5000)))
    made.data += end_mark()
    async with site_at(tmp_path) as site:
        site.store(made.data)
        with pytest.raises(IntegrityError, match="block 3 at offset 0: payload checksum"):
            await site.read(made.file())
        assert site.written == {}


async def test_bytes_that_no_index_names_are_frames_too(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        for rest, words in (
            (b"\0" * 4096, "bad header at offset"),
            (frame(DataType.META, b"x"), "expected data type"),
            (framed(1, block_of(1, 9000))[:-4096], "does not end where the index has a block"),
            (end_mark(), "does not end where the index has a block"),
        ):
            made = Built()
            made.data = rest
            made.add(2, block_of(2, 5000))
            made.data += end_mark()
            site.store(made.data)
            with pytest.raises(FormatError, match=words):
                await site.read(made.file())
            site.written.clear()


async def test_a_file_that_is_missing(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        with pytest.raises(TargetNotFound, match=r"macro_block_1\.0"):
            await site.read(built(1).file())


@pytest.mark.parametrize(
    "changed",
    [
        {"offset": 4096},
        {"offset": 1},
        {"length": 4095},
        {"length": 0},
        {"length": 1 << 40},
        {"length": UNPACK_SLAB + 4096},
        {"offset": 1 << 62},
        {"identity": BlockIdentity(1, 1, (2 << 20) + 1)},
    ],
    ids=str,
)
async def test_an_index_that_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, changed: dict[str, int]
) -> None:
    made = built(3, size=9000, unnamed=())
    offset = sorted(made.expected)[0 if changed.get("offset") == 4096 else 1]
    made.expected[offset] = replace(made.expected[offset], **changed)
    async with site_at(tmp_path) as site:
        site.store(made.data)
        with pytest.raises(IntegrityError, match="the index says that block") as found:
            await site.read(made.file())
        assert found.value.where["path"] == PATH
        assert site.done == [0, 0]


async def test_called_off_while_a_block_is_written_nothing_is_left(tmp_path: Path) -> None:
    made, entered, go_on = built(9), threading.Event(), threading.Event()
    async with site_at(tmp_path) as site:
        site.store(made.data)

        def write(index: int, data: memoryview) -> None:
            entered.set()
            go_on.wait(10)
            site.write(index, data)

        async with MacroReader(site.target, memory=24 * MIB, concurrency=2, lanes=2) as reader:
            reading = asyncio.create_task(reader.read(made.file(), site.advance, write=write))
            await asyncio.to_thread(entered.wait, 10)
            reading.cancel()
            await asyncio.sleep(0)
            assert not reading.done(), "a thread still has the buffers"
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert reader.lent == 0


async def test_an_error_of_the_writer_ends_the_reading(tmp_path: Path) -> None:
    made = built(9)
    async with site_at(tmp_path) as site:
        site.store(made.data)

        def write(_index: int, _data: memoryview) -> None:
            raise OSError(28, "no space left on device")

        async with MacroReader(site.target, memory=24 * MIB, concurrency=2, lanes=2) as reader:
            with pytest.raises(OSError, match="no space left"):
                await reader.read(made.file(), site.advance, write=write)
            assert reader.lent == 0


@given(st.integers(0, 1 << 40), st.integers(1, 64), st.integers(1, 64))
def test_the_ceiling_holds_whatever_is_asked_for(memory: int, concurrency: int, lanes: int) -> None:
    if memory < 2 * UNPACK_SLAB:
        with pytest.raises(ConfigError, match="--memory"):
            plan_reading(memory, concurrency=concurrency, lanes=lanes)
        return
    plan = plan_reading(memory, concurrency=concurrency, lanes=lanes)
    assert (plan.lanes + plan.ranges) * plan.buffer_size <= memory
    assert 1 <= plan.lanes <= lanes
    assert plan.ranges >= 1
    assert plan.buffer_size % UNPACK_SLAB == 0


def test_the_default_ceiling_is_enough_for_every_request_and_lane() -> None:
    plan = plan_reading(256 << 20, concurrency=4, lanes=2)
    assert (plan.buffer_size, plan.lanes, plan.ranges) == (4 * UNPACK_SLAB, 2, 10)
