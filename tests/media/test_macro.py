"""Macro payloads and the macro index."""

from __future__ import annotations

import media_samples as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import FormatError
from mover.kernel import PREFIX_ROOM, ob_crc64
from mover.media.frames import INDEX_BUFFER, iter_frames, read_frame
from mover.media.header import DataType
from mover.media.macro import (
    MACRO_INDEX,
    MACRO_SUFFIX,
    PREFIX_OPEN,
    TABLE_KEY_INFO,
    BlockMeta,
    LogTsRange,
    MacroIndex,
    MacroIndexDecoder,
    MacroIndexWriter,
    TableKey,
    TableKeyInfo,
    Version,
    VersionRange,
    group_key,
    is_block_meta,
    iter_macro_index,
    macro_frame,
    macro_prefix,
    parse_macro,
)
from mover.media.pg import PGKey

u64, i64 = st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)
plain = st.integers(0, 2**63 - 1)
metas = st.builds(BlockMeta, u64, st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1), u64, u64, i64, u64, u64)
ranges = st.builds(VersionRange, i64, i64, i64)
keys = st.builds(
    TableKey,
    st.integers(0, 9),
    st.builds(PGKey, u64, st.integers(0, 99)),
    u64,
    ranges,
    st.builds(Version, i64),
    st.builds(LogTsRange, i64, i64, i64),
)


@given(metas)
def test_block_meta_round_trip(meta: BlockMeta) -> None:
    data = meta.pack()
    assert is_block_meta(data)
    assert BlockMeta.unpack(data) == meta
    assert BlockMeta.unpack(data).pack() == data


@given(metas, metas)
def test_a_prefix_is_known_but_for_the_engines_numbers(meta: BlockMeta, other: BlockMeta) -> None:
    bare = macro_prefix(BlockMeta(meta.block_index, meta.kind, meta.used_length).pack(), meta.used_length)
    whole = macro_prefix(meta.pack(), meta.used_length)
    opened = slice(*PREFIX_OPEN)
    assert (bare[: opened.start], bare[opened.stop :]) == (whole[: opened.start], whole[opened.stop :])
    assert len(whole) <= PREFIX_ROOM
    named = (meta.block_index, meta.kind, meta.used_length) == (other.block_index, other.kind, other.used_length)
    another = macro_prefix(other.pack(), other.used_length)
    assert named == ((bare[: opened.start], bare[opened.stop :]) == (another[: opened.start], another[opened.stop :]))


@pytest.mark.parametrize("change", [(0, 65), (4, 2), (10, 1)])
def test_block_meta_of_another_shape(change: tuple[int, int]) -> None:
    data = bytearray(made.block_meta(1).pack())
    data[change[0]] = change[1]
    with pytest.raises(FormatError):
        BlockMeta.unpack(data)
    with pytest.raises(FormatError):
        BlockMeta.unpack(data[:-1])


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="block 5"):
        BlockMeta(5, 1 << 16, 0).pack()


@given(st.binary(min_size=1, max_size=5000))
def test_a_frame_holds_the_block(block: bytes) -> None:
    meta = BlockMeta(7, 1, len(block))
    data = macro_frame(meta, block)
    frame = read_frame(data, offset=0, data_type=DataType.MACRO_DATA)
    macro = parse_macro(frame.data(), offset=frame.payload_offset)
    assert macro.block_meta() == meta
    assert macro.block == block
    # The pieces the datapath writes are the same bytes.
    prefix = macro_prefix(meta.pack(), len(block))
    assert frame.payload == prefix + block + MACRO_SUFFIX
    assert frame.header.data_checksum == ob_crc64(MACRO_SUFFIX, ob_crc64(block, ob_crc64(prefix)))


def test_a_block_of_another_length_than_its_meta_says() -> None:
    payload = macro_prefix(BlockMeta(7, 1, 99).pack(), 3) + b"abc" + MACRO_SUFFIX
    with pytest.raises(FormatError, match="block 7"):
        parse_macro(payload).block_meta()


@given(keys, st.integers(0, 3))
def test_groups_round_trip(key: TableKey, count: int) -> None:
    entries = [MacroIndex(i, 5, 6, 1, 0, 4096 * i, 4096) for i in range(count)]
    writer = MacroIndexWriter()
    writer.group(key, entries, count)
    found = list(iter_macro_index(iter_frames(writer.finish(), data_type=DataType.MACRO_DATA_INDEX)))
    head = TableKeyInfo(key, count)
    assert found == ([(head, entry) for entry in entries] or [(head, None)])
    assert TABLE_KEY_INFO.decode(TABLE_KEY_INFO.encode(head)) == head


def test_groups_span_frames_and_files() -> None:
    count = 20_000
    writer = MacroIndexWriter()
    writer.begin(group_key(made.PG, kind=1, tablet_id=5), count)
    taken = b""
    for i in range(count):
        writer.add(MacroIndex(i, made.T0, i, 1, i // 512, 4096 * i, 4096))
        if i % 1000 == 0:
            taken += writer.take()
    data = taken + writer.finish()
    frames = list(iter_frames(data))
    assert len(frames) > 2
    assert all(len(frame.payload) + 48 <= INDEX_BUFFER for frame in frames)
    decoder = MacroIndexDecoder()
    seen = [entry.data_seq for frame in frames for _, entry in decoder.feed(frame) if entry]
    decoder.finish()
    assert seen == list(range(count))


def test_a_group_must_be_whole_and_in_order() -> None:
    key = group_key(made.PG, kind=7)
    entry = MacroIndex(0, 1, 1, 1, 0, 0, 4096)
    writer = MacroIndexWriter()
    writer.begin(key, 2)
    with pytest.raises(ValueError, match="where 0 of 2"):
        writer.add(MacroIndex(1, 1, 1, 1, 0, 0, 4096))
    writer.add(entry)
    with pytest.raises(ValueError, match="1 of 2"):
        writer.finish()
    for records in (
        [TABLE_KEY_INFO.encode(TableKeyInfo(key, 2)), MACRO_INDEX.encode(entry)],
        [TABLE_KEY_INFO.encode(TableKeyInfo(key, 2)), *[MACRO_INDEX.encode(entry)] * 2],
        [TABLE_KEY_INFO.encode(TableKeyInfo(key, -1))],
        [MACRO_INDEX.encode(entry)],
        [TABLE_KEY_INFO.encode(TableKeyInfo(key, 1)), MACRO_INDEX.encode(MacroIndex(0, 1, 1, 1, 0, -1, 4096))],
    ):
        from mover.media.frames import end_mark, frame

        data = frame(DataType.MACRO_DATA_INDEX, b"".join(records)) + end_mark()
        with pytest.raises(FormatError):
            list(iter_macro_index(iter_frames(data)))


def test_groups_of_kinds_never_meet_groups_of_tablets() -> None:
    kinds = {group_key(made.PG, kind=kind).table_id for kind in (0, 2, 7, 8, 9)}
    tablets = {group_key(made.PG, kind=1, tablet_id=tablet).table_id for tablet in (1, 2, 7, 8, 200_001)}
    assert len(kinds | tablets) == 10
