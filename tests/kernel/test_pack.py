import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twins import TWINS

from mover.kernel import Order, frame_room
from mover.media.frames import end_mark, iter_frames
from mover.media.header import Compressor, DataType
from mover.media.macro import MACRO_SUFFIX, BlockMeta, macro_frame, macro_prefix, parse_macro

NONE, LZ4, ZSTD = Compressor.NONE, Compressor.LZ4, Compressor.ZSTD_1_3_8
contents = st.one_of(
    st.binary(min_size=1, max_size=3000),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=40), st.integers(1, 9000)),
)
both = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)


def meta_of(number, data):
    return BlockMeta(number, 2, len(data), payload_checksum=7)


def work_of(datas, order=Order.COMPRESS):
    return [(macro_prefix(meta_of(i, data).pack(), len(data)), data, order) for i, data in enumerate(datas)]


def pack(twin, out, datas, order=Order.COMPRESS, compressor=NONE, level=1, keep_permille=1000, start=0):
    return twin.pack_frames(
        out,
        start,
        work_of(datas, order),
        MACRO_SUFFIX,
        compressor=compressor,
        level=level,
        keep_permille=keep_permille,
    )


@given(st.lists(contents, max_size=5))
def test_uncompressed_frames_are_those_of_the_format(datas):
    expected = b"".join(macro_frame(meta_of(i, data), data) for i, data in enumerate(datas))
    for twin in TWINS.values():
        out = bytearray(b"\xaa" * (len(expected) + 4096))
        frames = pack(twin, out, datas)
        assert [frame.compressor for frame in frames] == [NONE] * len(datas)
        assert sum(frame.length for frame in frames) == len(expected)
        assert out[: len(expected)] == expected
        assert out[len(expected) :] == b"\xaa" * 4096, "nothing behind the frames is touched"


@given(
    st.lists(contents, min_size=1, max_size=5),
    st.sampled_from([LZ4, ZSTD]),
    st.sampled_from([-7, 1, 3]),
    st.sampled_from([0, 1, 500, 950, 1000]),
    st.sampled_from(list(Order)),
)
def test_what_was_packed_reads_back_and_pays(datas, compressor, level, keep_permille, order):
    room = sum(frame_room(len(data) + 100) for data in datas)
    for twin in TWINS.values():
        out = bytearray(b"\xaa" * room)
        frames = pack(twin, out, datas, order, compressor, level, keep_permille)
        assert len(frames) == len(datas)
        size = sum(frame.length for frame in frames)
        found = list(iter_frames(bytes(out[:size]) + end_mark(), data_type=DataType.MACRO_DATA))
        for number, (data, packed, frame) in enumerate(zip(datas, frames, found, strict=True)):
            macro = parse_macro(frame.data())
            assert bytes(macro.block) == data
            assert macro.block_meta() == meta_of(number, data)
            assert (frame.size, frame.header.data_zlength, frame.header.compressor) == packed
            raw = frame.header.data_length
            if packed.compressor == NONE:
                assert packed.stored == raw
            else:
                assert packed.stored < raw * keep_permille // 1000
            if order == Order.KEEP:
                assert packed.compressor == NONE


@both
def test_it_stops_where_the_next_frame_may_not_fit(twin):
    data = bytes(5000)
    room = frame_room(5000 + 100)
    for places in range(4):
        for spare in (0, 1, 4095):
            out = bytearray(4096 + places * room + spare)
            frames = pack(twin, out, [data] * 3, compressor=ZSTD, start=4096)
            # Compressed they are a page each, but the room is reserved for what may be incompressible.
            assert len(frames) == min(3, max(0, (len(out) - 4096 - room) // 4096 + 1))


@both
@pytest.mark.parametrize("sampled", [False, True])
def test_a_sample_decides_for_large_blocks(twin, sampled):
    rng = random.Random(1)
    # Its middle, where the sample is taken, can not be compressed; the rest can.
    size = 1 << 20
    noise = rng.randbytes(128 << 10)
    data = bytes(size // 2 - (64 << 10)) + noise + bytes(size // 2 - (64 << 10))
    out = bytearray(frame_room(len(data) + 100))
    order = Order.SAMPLE if sampled else Order.COMPRESS
    [frame] = pack(twin, out, [data], order, ZSTD)
    assert frame.compressor == (NONE if sampled else ZSTD)


@both
def test_refused(twin):
    out = bytearray(8192)
    with pytest.raises(ValueError, match="level 99"):
        pack(twin, out, [b"x"], level=99)
    with pytest.raises(ValueError, match="compressor 5"):
        pack(twin, out, [b"x"], compressor=5)
    for start in (-4096, 1, 12288):
        with pytest.raises(ValueError, match="not a place"):
            pack(twin, out, [b"x"], start=start)
    assert pack(twin, out, [b"x"], start=8192) == []
    with pytest.raises((TypeError, BufferError)):
        pack(twin, bytes(8192), [b"x"])
