"""Frames back to blocks: both twins against each other and against what ``mover.media`` says of the same bytes."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import linked_block, shared_block, sstable_block
from twins import NATIVE, PURE, TWINS

from mover.errors import IntegrityError
from mover.kernel import UNPACK_HEAD, UNPACK_SLAB, Expected, Verdict, macroblock_check, xxh3_128
from mover.kernel.unpack import MAX_FRAME
from mover.media.frames import frame, padding, read_frame
from mover.media.header import CommonHeader, Compressor, DataType
from mover.media.macro import MACRO_SUFFIX, PREFIX_OPEN, BlockMeta, macro_prefix, parse_macro

SLABS = bytearray(4 * UNPACK_SLAB)

contents = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 99), st.integers(0, 9000)),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=9), st.integers(1, 2000)),
)
blocks = st.one_of(
    st.builds(sstable_block, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), contents),
    st.builds(linked_block, contents),
    st.builds(shared_block, st.sampled_from([7, 8]), contents),
)
kinds = st.sampled_from([Compressor.NONE, Compressor.ZSTD_1_3_8, Compressor.ZSTD, Compressor.LZ4, Compressor.LZ4_191])


def packed(block: bytes, kind: int = Compressor.NONE, index: int = 7) -> bytes:
    """A frame of ``block`` as mover writes it."""
    header = macroblock_check(block)
    meta = BlockMeta(index, header.kind, len(block), header.tablet_id, header.logical_version, header.data_seq)
    payload = macro_prefix(meta.pack(), len(block)) + block + MACRO_SUFFIX
    stored = payload
    if kind in (Compressor.ZSTD_1_3_8, Compressor.ZSTD):
        stored = PURE.zstd_compress(payload, 1)
    elif kind != Compressor.NONE:
        stored = PURE.lz4_compress(payload)
    return frame(DataType.MACRO_DATA, stored, compressor=kind, raw_length=len(payload))


def expected(block: bytes, length: int, *, offset: int = 0, index: int = 7, **changed) -> Expected:
    header = macroblock_check(block)
    prefix = macro_prefix(BlockMeta(index, header.kind, len(block)).pack(), len(block))
    return Expected(offset, length, prefix, len(block), xxh3_128(block), header.kind == 1)._replace(**changed)


def unpack(data, rows, *, keep=True, suffix=MACRO_SUFFIX, opened=PREFIX_OPEN):
    """The verdicts, which both twins must give, and the slabs of those that are good, equal too."""
    answers = []
    for twin in TWINS.values():
        slabs = memoryview(SLABS)
        for number in range(len(rows)):
            slabs[number * UNPACK_SLAB : number * UNPACK_SLAB + 16384] = b"\xaa" * 16384
        verdicts = twin.unpack_frames(data, rows, slabs, suffix, open_from=opened[0], open_until=opened[1], keep=keep)
        taken = []
        for number, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
            at = number * UNPACK_SLAB + UNPACK_HEAD
            good = keep and verdict == Verdict.GOOD
            taken.append(bytes(slabs[at : at + row.used + padding(row.used)]) if good else None)
        answers.append((verdicts, taken))
    assert answers[0] == answers[-1]
    return answers[0]


def reason(data: bytes, row: Expected, index: int = 7) -> str | None:
    """What the definition of the format has against a frame; None when nothing."""
    try:
        if row.offset < 0 or row.offset + row.length > len(data):
            return "no such place"
        whole = read_frame(data[row.offset : row.offset + row.length], offset=0, data_type=DataType.MACRO_DATA)
        macro = parse_macro(whole.data())
        meta = macro.block_meta()
    except IntegrityError as error:
        return str(error)
    kind = BlockMeta.unpack(row.prefix[7:71]).kind
    if (meta.block_index, meta.kind, meta.used_length) != (index, kind, row.used):
        return "another block"
    if xxh3_128(macro.block) != row.digest:
        return "digest"
    checked = macroblock_check(macro.block)
    return checked.reason if row.engine_check and not checked.ok else None


@given(st.lists(st.tuples(blocks, kinds), max_size=4), st.booleans())
def test_what_was_packed_comes_back(made_of, keep):
    frames = [packed(block, kind, index) for index, (block, kind) in enumerate(made_of)]
    rows, at = [], 5
    for index, ((block, _), data) in enumerate(zip(made_of, frames, strict=True)):
        rows.append(expected(block, len(data), offset=at, index=index))
        at += len(data)
    verdicts, taken = unpack(b"5byte" + b"".join(frames) + b"behind", rows, keep=keep)
    assert verdicts == bytes(len(rows))
    if keep:
        assert taken == [block + bytes(padding(len(block))) for block, _ in made_of]


@given(blocks, kinds, st.data())
def test_a_flipped_bit_is_found_as_the_format_finds_it(block, kind, draw):
    data = bytearray(packed(block, kind))
    row = expected(block, len(data))
    where = draw.draw(st.one_of(st.integers(0, 47), st.integers(0, len(data) - 1)))
    data[where] ^= 1 << draw.draw(st.integers(0, 7))
    (verdict,), _ = unpack(bytes(data), [row])
    assert verdict != Verdict.GOOD
    assert reason(bytes(data), row) is not None


@given(blocks, kinds, st.data())
def test_any_header_gives_the_verdict_of_the_format(block, kind, draw):
    """Header fields that reach anywhere, under a header checksum that holds."""
    data = bytearray(packed(block, kind))
    row = expected(block, len(data))
    fields = list(struct.unpack_from("<HHHHhhIqqqq", data))
    at = draw.draw(st.sampled_from([0, 1, 2, 3, 4, 6, 7, 8, 9, 10]))
    bits = {"H": (0, 65535), "h": (-32768, 32767), "I": (0, 2**32 - 1), "q": (-(2**63), 2**63 - 1)}["HHHHhhIqqqq"[at]]
    near = st.integers(-3, 12).map(lambda step: min(bits[1], max(bits[0], fields[at] + step)))
    fields[at] = draw.draw(st.one_of(near, st.integers(*bits)))
    kind_, version, data_version, compressor, size, _, zero, *lengths = fields
    header = bytearray(CommonHeader(kind_, *lengths[:3], lengths[3], compressor, data_version).pack())
    struct.pack_into("<H", header, 2, version)
    struct.pack_into("<h", header, 8, size)
    struct.pack_into("<I", header, 12, zero)
    data[:48] = header
    (verdict,), _ = unpack(bytes(data), [row])
    assert (verdict == Verdict.GOOD) == (reason(bytes(data), row) is None)


@given(blocks, kinds, st.data())
def test_another_block_than_the_expected_one(block, kind, draw):
    data = packed(block, kind)
    row = expected(block, len(data))
    other = draw.draw(
        st.sampled_from(
            [
                (row._replace(digest=bytes(16)), Verdict.DIGEST),
                (row._replace(length=row.length + 4096), Verdict.PLACE),
                (row._replace(length=row.length - 4096), Verdict.HEADER if row.length > 4096 else Verdict.PLACE),
                (row._replace(offset=-1), Verdict.PLACE),
                (row._replace(offset=1), Verdict.PLACE),
                (row._replace(used=row.used + 1), Verdict.HEADER),
                (row._replace(used=(2 << 20) + 1), Verdict.PLACE),
                (row._replace(length=MAX_FRAME + 4096), Verdict.PLACE),
                (expected(block, len(data), index=8), Verdict.PREFIX),
            ]
        )
    )
    assert unpack(data, [other[0]])[0][0] == other[1]
    assert unpack(data, [row], suffix=b"\x01")[0][0] == Verdict.PREFIX
    wrong = list(packed(block[:30] + b"\xff" + block[31:] if block[30:31] != b"\xff" else b"x" + block[1:], kind))
    damaged = row._replace(length=len(wrong))
    assert unpack(bytes(wrong), [damaged])[0][0] != Verdict.GOOD


def test_the_engines_own_checksum_is_looked_at_where_there_is_one():
    block = bytearray(sstable_block(1, 2, 3, b"rows" * 900))
    block[-1] ^= 1
    for kind in (Compressor.NONE, Compressor.ZSTD_1_3_8, Compressor.LZ4):
        data = packed(bytes(block), kind)
        row = expected(bytes(block), len(data))
        assert unpack(data, [row])[0][0] == Verdict.ENGINE
        assert unpack(data, [row._replace(engine_check=False)])[0][0] == Verdict.GOOD


def test_a_whole_block_fits_its_slab():
    rng = random.Random(1)
    block = sstable_block(1, 2, 3, rng.randbytes(1 << 20) + bytes((2 << 20) - 24 - 88 - (1 << 20)))
    assert len(block) == 2 << 20
    for kind in (Compressor.NONE, Compressor.ZSTD_1_3_8, Compressor.LZ4):
        data = packed(block, kind)
        assert len(data) <= UNPACK_SLAB
        verdicts, taken = unpack(data, [expected(block, len(data))])
        assert verdicts == b"\0"
        assert taken == [block]


@given(st.binary(max_size=9000), st.integers(-100, 9100), st.integers(0, 9000), st.integers(0, 100))
def test_any_bytes_give_the_same_answer(data, offset, length, used):
    row = Expected(offset, length, b"prefix", used, bytes(16), True)
    assert unpack(data, [row])[0][0] != Verdict.GOOD


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_what_is_refused(twin):
    row = Expected(0, 4096, b"", 0, bytes(16), False)
    good = {"open_from": 0, "open_until": 0, "keep": True}
    for rows, slabs, suffix, options in (
        ([row], UNPACK_SLAB - 1, b"", good),
        ([row, row], 2 * UNPACK_SLAB - 1, b"", good),
        ([row], UNPACK_SLAB, bytes(17), good),
        ([row._replace(prefix=bytes(81))], UNPACK_SLAB, b"", good),
        ([row._replace(digest=b"")], UNPACK_SLAB, b"", good),
        ([row], UNPACK_SLAB, b"", good | {"open_from": -1}),
        ([row], UNPACK_SLAB, b"", good | {"open_from": 3, "open_until": 2}),
        ([row], UNPACK_SLAB, b"", good | {"open_until": 81}),
    ):
        with pytest.raises(ValueError, match=r"slabs|prefix|digest"):
            twin.unpack_frames(b"", rows, bytearray(slabs), suffix, **options)
    assert twin.unpack_frames(b"", [], bytearray(), b"", **good) == b""


@pytest.mark.skipif(NATIVE is None, reason="the extension is not built")
@given(st.binary(max_size=300), st.binary(max_size=5000))
def test_checksums_of_two_runs_are_joined(first, second):
    from mover._native.unpack import _crc_join

    assert _crc_join(PURE.ob_crc64(first), PURE.ob_crc64(second), len(second)) == PURE.ob_crc64(first + second)
