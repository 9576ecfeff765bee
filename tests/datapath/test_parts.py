"""Parts that are filled, poured together and read back; what is compressed, and how hard."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import identify, linked_block

from mover.datapath.balance import INTERVAL, Balance, direction
from mover.datapath.buffers import END_MARK_ROOM, FRAME_ROOM, BufferPool
from mover.datapath.compression import Chooser, Compression
from mover.datapath.intake import Arrival
from mover.datapath.parts import OpenPart, merge
from mover.errors import ConfigError
from mover.kernel import Order, xxh3_128
from mover.media.frames import end_mark, iter_frames
from mover.media.header import Compressor, DataType
from mover.media.macro import parse_macro
from mover.store.base import BlockIdentity, CapturedBlock


class Slab:
    def __init__(self, data: bytes) -> None:
        self.buffer = memoryview(data)

    def release(self) -> None:
        pass


def arrival(number: int, block: bytes) -> Arrival:
    return Arrival(number, CapturedBlock(identify(number, block), Slab(block), xxh3_128(block)))


@given(st.lists(st.lists(st.integers(1, 200_000), min_size=1, max_size=30), max_size=4), st.integers(1, 40))
def test_merged_parts_hold_the_same_frames_and_only_the_last_is_small(sizes: list[list[int]], limit: int) -> None:
    pool = BufferPool(4, FRAME_ROOM + END_MARK_ROOM)
    rng, number, parts, blocks = random.Random(1), 0, [], {}
    for row in sizes:
        buffer = pool._free.pop()
        buffer.lent, buffer.filled = True, 0
        pool.lent += 1
        part = OpenPart(buffer)
        for size in row[:limit]:
            number += 1
            block = blocks[number] = linked_block(rng.randbytes(size))
            if part.buffer.filled + len(block) + 8192 > FRAME_ROOM:
                break
            part.pack([arrival(number, block)], [Order.KEEP], Chooser(Compression.parse("none")))
        parts.append(part)
    before = {frame.number for part in parts for frame in part.frames}
    merged = merge(parts, limit)
    assert pool.lent == len(merged)
    after = [frame.number for part in merged for frame in part.frames]
    assert len(after) == len(before) and set(after) == before
    for part in merged:
        found = list(iter_frames(bytes(part.buffer.data) + end_mark(), data_type=DataType.MACRO_DATA))
        assert [(frame.offset, frame.size) for frame in found] == [(f.offset, f.length) for f in part.frames]
        for frame, known in zip(found, part.frames, strict=True):
            assert bytes(parse_macro(frame.data()).block) == blocks[known.number]
            assert known.digest == xxh3_128(blocks[known.number])
    longest = max((frame.length for part in merged for frame in part.frames), default=0)
    for part in merged[:-1]:
        assert len(part.frames) == limit or part.buffer.filled + longest > FRAME_ROOM


def test_a_part_says_how_much_surely_fits() -> None:
    pool = BufferPool(1, 3 * FRAME_ROOM + END_MARK_ROOM)
    buffer = pool._free.pop()
    part = OpenPart(buffer)
    assert (part.room(512), part.room(2)) == (3, 2)
    buffer.filled = 4096
    assert part.room(512) == 2
    buffer.filled = 3 * FRAME_ROOM
    assert part.room(512) == 0


@pytest.mark.parametrize(
    ("text", "mode", "level", "top", "label"),
    [
        ("none", "none", 1, 1, "none"),
        ("lz4", "lz4", 1, 1, "lz4"),
        ("zstd:3", "zstd", 3, 3, "zstd:3"),
        ("zstd:-5", "zstd", -5, -5, "zstd:-5"),
        ("auto", "auto", 1, 3, "auto"),
        ("auto:-1..9", "auto", -1, 9, "auto"),
    ],
)
def test_spellings(text: str, mode: str, level: int, top: int, label: str) -> None:
    compression = Compression.parse(text)
    assert (compression.mode, compression.level, compression.top, compression.label) == (mode, level, top, label)


@pytest.mark.parametrize(
    "text", ["", "zstd", "zstd:0", "zstd:20", "zstd:-8", "zstd:1..3", "auto:3", "auto:3..1", "gzip"]
)
def test_what_is_no_compression(text: str) -> None:
    with pytest.raises(ConfigError, match="compression"):
        Compression.parse(text)


def block_of(engine_compressed: bool | None) -> BlockIdentity:
    return BlockIdentity(1, 1, 1 << 21, engine_compressed=engine_compressed)


@pytest.mark.parametrize(
    ("engine_compressed", "first"), [(True, Order.KEEP), (False, Order.COMPRESS), (None, Order.SAMPLE)]
)
def test_auto_begins_with_what_the_engine_says(engine_compressed: bool | None, first: Order) -> None:
    assert Chooser(Compression.parse("auto")).order(block_of(engine_compressed)) == first


@pytest.mark.parametrize(("truth", "end"), [(Compressor.NONE, Order.KEEP), (Compressor.ZSTD_1_3_8, Order.COMPRESS)])
@pytest.mark.parametrize("engine_compressed", [True, False, None])
def test_auto_learns_what_pays_whatever_the_engine_said(
    truth: Compressor, end: Order, engine_compressed: bool | None
) -> None:
    chooser, orders = Chooser(Compression.parse("auto")), []
    for _ in range(500):
        order = chooser.order(block_of(engine_compressed))
        chooser.learn(block_of(engine_compressed), order, truth)
        orders.append(order)
    assert orders[-15:].count(end) >= 14
    # It never stops looking: what the engine writes may change.
    if end == Order.KEEP:
        assert Order.SAMPLE in orders[-16:]


def test_other_modes_do_not_choose() -> None:
    for text, order in (("none", Order.KEEP), ("zstd:3", Order.COMPRESS), ("lz4", Order.COMPRESS)):
        chooser = Chooser(Compression.parse(text))
        for _ in range(20):
            chooser.learn(block_of(True), order, Compressor.NONE)
        assert chooser.order(block_of(True)) == order


@given(
    st.lists(st.sampled_from([-1, 0, 1]), max_size=40), st.sampled_from(["auto", "auto:-7..19", "auto:4..4", "zstd:6"])
)
def test_levels_stay_inside_the_range(steps: list[int], text: str) -> None:
    chooser = Chooser(Compression.parse(text))
    for step in steps:
        chooser.step(step)
        assert chooser.compression.level <= chooser.level <= chooser.compression.top
    for _ in range(20):
        chooser.step(1)
    assert chooser.level == chooser.compression.top


def test_the_balance_speaks_once_an_interval() -> None:
    now = 0.0
    balance = Balance(lambda: now)
    with balance.waiting():
        now += INTERVAL * 0.9
    assert balance.direction() == 0
    with balance.working():
        now += INTERVAL * 0.2
    assert balance.direction() == 1
    assert balance.direction() == 0
    with balance.working():
        now += INTERVAL
    assert balance.direction() == -1


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_more_waiting_never_compresses_less(waiting: float, working: float) -> None:
    assert direction(waiting, working) <= direction(waiting * 2 + 1, working)
    assert direction(0, 0) in (-1, 0, 1)
