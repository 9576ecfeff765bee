"""Headers and frames: strict about every byte, indifferent to how the file arrives."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import FormatError, IntegrityError
from mover.kernel import zstd_compress
from mover.media.frames import (
    FRAME_ALIGN,
    MAX_PAYLOAD,
    Frame,
    FrameReader,
    FrameWriter,
    end_mark,
    frame,
    frame_header,
    iter_frames,
    read_frame,
)
from mover.media.header import HEADER_SIZE, CommonHeader, Compressor, DataType, header_checksum, parse_header

payloads = st.lists(st.binary(max_size=9000), max_size=5)


def file_of(parts: list[bytes]) -> bytes:
    return b"".join(frame(DataType.META, part) for part in parts) + end_mark()


@given(payloads)
def test_round_trip(parts: list[bytes]) -> None:
    data = file_of(parts)
    assert len(data) % FRAME_ALIGN == 0
    frames = list(iter_frames(data, data_type=DataType.META))
    assert [one.data() for one in frames] == parts
    for one in frames:
        piece = data[one.offset : one.offset + one.size]
        assert read_frame(piece, offset=one.offset, data_type=DataType.META).payload == one.payload


@given(payloads, st.lists(st.integers(0, 30_000), max_size=12))
def test_any_split_gives_the_same_frames(parts: list[bytes], cuts: list[int]) -> None:
    data = file_of(parts)
    reader = FrameReader()
    found: list[Frame] = []
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(edges):
        found += reader.feed(data[start:end])
    reader.finish()
    assert found == list(iter_frames(data))


@given(st.binary(min_size=1, max_size=4000))
def test_compressed_frames(raw: bytes) -> None:
    stored = zstd_compress(raw, 1)
    data = frame(DataType.META, stored, compressor=Compressor.ZSTD_1_3_8, raw_length=len(raw)) + end_mark()
    (one,) = iter_frames(data)
    assert one.payload == stored
    assert one.data() == raw


def test_a_wrong_raw_length_is_an_integrity_error() -> None:
    data = frame(DataType.META, zstd_compress(b"abc", 1), compressor=Compressor.ZSTD_1_3_8, raw_length=4) + end_mark()
    with pytest.raises(IntegrityError):
        next(iter_frames(data)).data()


def test_unknown_compressors_are_named() -> None:
    data = frame(DataType.META, b"abc", compressor=Compressor.SNAPPY, raw_length=4) + end_mark()
    with pytest.raises(FormatError, match="compressor 3"):
        next(iter_frames(data)).data()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:-1], "torn frame"),
        (lambda d: d[:-4096], "end mark missing"),
        (lambda d: d + b"\x00", "behind the end mark"),
        (lambda d: d[:60] + b"\x01" + d[61:], "bad padding"),
        (lambda d: d[:48] + b"\xff" + d[49:], "payload checksum"),
        (lambda d: d[:12] + b"\x01" + d[13:], "4 zero bytes"),
        (lambda d: d[:4] + b"\x02" + d[5:], "data version"),
        (lambda d: b"", "end mark missing"),
    ],
)
def test_what_is_refused(change, message: str) -> None:
    data = change(file_of([b"hello"]))
    with pytest.raises(FormatError, match=message):
        list(iter_frames(data))


def test_a_frame_of_another_type_is_refused() -> None:
    with pytest.raises(FormatError, match="data type 1"):
        list(iter_frames(file_of([b"x"]), data_type=DataType.MACRO_DATA))


@pytest.mark.parametrize("length", [MAX_PAYLOAD + 1, 1 << 62])
def test_a_giant_claim_is_refused_at_its_header(length: int) -> None:
    """Before anything is collected for it."""
    reader = FrameReader()
    with pytest.raises(FormatError, match="at most"):
        reader.feed(CommonHeader(DataType.META, length, length, 0, 0).pack())
    header = CommonHeader(DataType.META, length, 10, 0, -58 % 4096, Compressor.ZSTD_1_3_8)
    with pytest.raises(FormatError, match="at most"):
        FrameReader().feed(header.pack())


def test_lenient_parsing_forgives_what_the_checksum_does_not_cover() -> None:
    packed = bytearray(CommonHeader(DataType.META, 0, 0, 0).pack())
    packed[4] = 9
    with pytest.raises(FormatError, match="data version"):
        parse_header(packed)
    assert parse_header(packed, strict=False).data_version == 9


def test_the_header_checksum_is_an_xor_of_words() -> None:
    header = frame_header(DataType.MACRO_DATA, 0x1234, 0xDEADBEEF, raw_length=0x1234)
    words = struct.unpack("<24H", header.pack())
    expected = words[1] ^ words[3] ^ words[0] ^ words[4]
    for word in words[8:]:
        expected ^= word
    assert words[5] == expected
    assert header_checksum(-1) == 0
    assert header_checksum(0x8000) == -0x8000


@given(st.lists(st.integers(1, 900), min_size=1, max_size=40))
def test_a_writer_never_splits_a_record(sizes: list[int]) -> None:
    writer = FrameWriter(DataType.META, 1024)
    records = [bytes([i + 1]) * size for i, size in enumerate(sizes)]
    places = [writer.add(record) for record in records]
    data = writer.finish()
    for one in iter_frames(data):
        assert HEADER_SIZE + len(one.payload) <= 1024
    for record, place in zip(records, places, strict=True):
        assert data[place : place + len(record)] == record


def test_a_record_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        FrameWriter(DataType.META, 1024).add(bytes(1024))


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_give_format_errors_only(data: bytes, strict: bool) -> None:
    for call in (lambda: parse_header(data, strict=strict), lambda: list(iter_frames(data, strict=strict))):
        with pytest.raises(FormatError):
            call()
