import json
import lzma
import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from palf_log import LogWriter
from twins import same

from mover.errors import FormatError
from mover.kernel import (
    PALF_FILE_BYTES,
    PALF_FILE_HEADER,
    PALF_START_ACCUM,
    PalfBlockHeader,
    PalfStop,
    palf_block_header_build,
    palf_block_header_parse,
    palf_cut,
)
from mover.kernel.palf import FLAG_PADDING

# Written by the engine (pylibseekdb 1.4.0): the start of a first log file, the end of a full one with its padding
# group, the start of the file after it, and 40 groups from the middle.
DATA = Path(__file__).parents[1] / "data" / "palf"
EXPECTED = json.loads((DATA / "expected.json").read_text())


def real(name: str) -> bytes:
    return lzma.decompress((DATA / f"{name}.xz").read_bytes())


def group_bytes(name: str) -> bytes:
    return real(name)[PALF_FILE_HEADER if name in ("head", "next") else 0 :]


@st.composite
def logs(draw) -> LogWriter:
    writer = LogWriter(draw(st.integers(0, 10)) * 4096, draw(st.integers(1, 1000)), draw(st.integers(0, 2**32 - 1)))
    scn = draw(st.integers(1, 2**62))
    for _ in range(draw(st.integers(1, 5))):
        entries = []
        for _ in range(draw(st.integers(1, 4))):
            scn += draw(st.integers(0, 1000))
            entries.append((scn, draw(st.binary(min_size=1, max_size=60))))
        writer.group(entries)
    if draw(st.booleans()):
        writer.group([(scn, bytes(draw(st.integers(16, 3000))))], padding=True)
    return writer


def walk(writer: LogWriter, data: bytes, **kwargs):
    start = LogWriter(writer.lsn, writer.log_id - len(writer.accums))
    return same("palf_walk", data, start.lsn, log_id=start.log_id, **kwargs)


@pytest.mark.parametrize("name", EXPECTED)
def test_log_of_the_engine(name):
    expected = EXPECTED[name]
    data = group_bytes(name)
    found = same("palf_walk", data, expected["lsn"], accum=expected["accum"], log_id=expected["log_id"])
    assert (found.stop, found.reason, found.end) == (PalfStop.END, "", len(data))
    assert (found.group_count, found.accum) == (expected["groups"], expected["end_accum"])
    assert found.last_log_id == expected["log_id"] + expected["groups"] - 1


def test_the_chain_starts_at_all_ones_and_goes_on_across_files():
    assert EXPECTED["head"]["accum"] == PALF_START_ACCUM
    tail = same("palf_walk", group_bytes("tail"), EXPECTED["tail"]["lsn"])
    assert tail.row(-1).flags & FLAG_PADDING
    assert tail.end_lsn == PALF_FILE_BYTES
    seam = same("palf_walk", group_bytes("next"), tail.end_lsn, accum=tail.accum, log_id=tail.last_log_id + 1)
    assert seam.stop == PalfStop.END
    assert not same("palf_walk", group_bytes("next"), tail.end_lsn, accum=tail.accum ^ 1).group_count


@pytest.mark.parametrize("name", ["head", "next"])
def test_block_header_of_the_engine(name):
    page = real(name)[:PALF_FILE_HEADER]
    header = palf_block_header_parse(page)
    first = same("palf_walk", group_bytes(name), EXPECTED[name]["lsn"]).row(0)
    assert header == PalfBlockHeader(
        0, EXPECTED[name]["lsn"], first.min_scn, 2**64 - 1, header.min_lsn // PALF_FILE_BYTES
    )
    assert palf_block_header_build(header).ljust(PALF_FILE_HEADER, b"\0") == page


def test_block_header_that_is_not_one():
    page = bytearray(real("head")[:48])
    for at in range(48):
        page[at] ^= 4
        with pytest.raises(FormatError):
            palf_block_header_parse(page)
        page[at] ^= 4
    with pytest.raises(FormatError):
        palf_block_header_parse(page[:47])


@given(logs(), st.integers(0, 100))
def test_synthetic_log_and_the_zeros_behind_it(writer, zeros):
    found = walk(writer, bytes(writer.data) + bytes(zeros))
    assert found.stop == (PalfStop.ZERO if zeros else PalfStop.END)
    assert found.end == len(writer.data)
    assert [row.accum for row in found.rows()] == writer.accums
    rows = list(found.rows())
    assert all(a.offset + a.size == b.offset for a, b in pairwise(rows))
    assert (found.min_scn, found.max_scn) == (rows[0].min_scn, rows[-1].max_scn)


@given(logs(), st.data())
def test_log_cut_anywhere_is_torn(writer, draw):
    found = walk(writer, bytes(writer.data))
    ends = [0] + [row.offset + row.size for row in found.rows()]
    cut = draw.draw(st.integers(0, len(writer.data)))
    again = walk(writer, bytes(writer.data)[:cut])
    assert again.end == max(end for end in ends if end <= cut)
    assert again.stop == (PalfStop.END if cut in ends else PalfStop.TORN)


@given(logs(), st.data())
def test_a_flipped_bit_ends_the_walk_there(writer, draw):
    data = bytearray(writer.data)
    found = walk(writer, bytes(data))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    row = next(row for row in found.rows() if row.offset <= at < row.offset + row.size)
    again = walk(writer, bytes(data))
    if row.flags & FLAG_PADDING and at >= row.offset + 48 + 32 + 16:
        assert again == found  # no checksum covers the rest of a padding entry
    else:
        assert again.end == row.offset
        assert again.stop in (PalfStop.CORRUPT, PalfStop.TORN)
        assert f"at lsn {writer.lsn + row.offset}" in again.reason or "entry" in again.reason


@given(logs(), st.data())
def test_until_takes_whole_groups_only(writer, draw):
    until = writer.lsn + draw.draw(st.integers(0, len(writer.data) + 10))
    found = walk(writer, bytes(writer.data), until_lsn=until)
    assert found.end_lsn <= max(until, writer.lsn)
    assert found.stop == (PalfStop.END if until >= writer.lsn + len(writer.data) else PalfStop.UNTIL)


def test_missing_group_is_named_by_its_log_id():
    writer = LogWriter()
    first = writer.group([(10, b"a")])
    writer.group([(11, b"b")])
    third = writer.group([(12, b"c")])
    found = same("palf_walk", first + third, 0)
    assert (found.group_count, found.stop) == (1, PalfStop.CORRUPT)
    assert found.reason == f"log id 3 where 2 must follow at lsn {len(first)}"
    assert same("palf_walk", third, 0, log_id=2).reason == "log id 3 where 2 must follow at lsn 0"
    assert same("palf_walk", third, 0).stop == PalfStop.END


def test_replaced_group_breaks_the_chain():
    """Same ids and valid headers, other content: only the accumulated checksum tells."""
    one, other = LogWriter(), LogWriter()
    data = one.group([(10, b"a")])
    other.group([(10, b"b")])
    found = same("palf_walk", data + other.group([(11, b"c")]), 0)
    assert (found.group_count, found.stop) == (1, PalfStop.CORRUPT)
    assert "accumulated checksum" in found.reason


def test_scn_that_goes_back_is_corrupt():
    writer = LogWriter()
    writer.group([(10, b"a")])
    writer.group([(9, b"b")])
    assert "max scn 9" in same("palf_walk", bytes(writer.data), 0).reason


def test_group_may_not_cross_the_end_of_its_file():
    group = LogWriter(PALF_FILE_BYTES - 50).group([(10, b"a")])
    assert "crosses the end" in same("palf_walk", group, PALF_FILE_BYTES - 50).reason
    assert same("palf_walk", group, PALF_FILE_BYTES - len(group)).stop == PalfStop.END


def test_write_in_flight_is_torn_and_a_bad_middle_is_corrupt():
    writer = LogWriter()
    first = writer.group([(10, b"a" * 100)])
    second = writer.group([(11, b"b" * 5000)])
    half = first + second[:1000]
    assert same("palf_walk", half + bytes(9000), 0).stop == PalfStop.TORN
    # The same hole with log behind it, or with less than a sector missing, is damage.
    third = writer.group([(12, b"c")])
    assert same("palf_walk", half + bytes(len(second) - 1000) + third, 0).stop == PalfStop.CORRUPT
    assert same("palf_walk", first + second[:-3] + bytes(9000), 0).stop == PalfStop.CORRUPT


@pytest.mark.parametrize("data", [b"G", b"GR", b"GR\0", b"GR\0\3", b"GR\0\3" + b"\1" * 43])
def test_start_of_a_header_is_torn(data):
    assert same("palf_walk", data, 0).stop == PalfStop.TORN


@pytest.mark.parametrize("data", [b"X", b"GX", b"GR\1", b"\1" * 47, b"\1" * 48, b"\0\0R"])
def test_what_is_no_log_is_corrupt(data):
    assert same("palf_walk", data, 0).stop == PalfStop.CORRUPT


def test_nothing():
    found = same("palf_walk", b"", 5, accum=7)
    assert (found.stop, found.end_lsn, found.accum, found.group_count) == (PalfStop.END, 5, 7, 0)
    assert same("palf_walk", b"", 5).accum is None


@given(st.binary(max_size=400), st.integers(0, 2**63 - 1))
def test_any_bytes(data, lsn):
    same("palf_walk", data, lsn)
    same("palf_walk", b"GR\0\3" + data, lsn, accum=0, log_id=1, until_lsn=2**64 - 1)


def resealed(data: bytearray) -> bytes:
    """Make the first group's header check right again: what a careful forger does."""
    import xxhash

    fields = struct.unpack_from(">HhiQQQQQ", data)
    flag = fields[-1] & ~0xFFFF
    check = xxhash.xxh64_intdigest(struct.pack("<HhiQQQQQ", *fields[:-1], flag)) & 0xFFFF
    struct.pack_into(">Q", data, 40, flag | check)
    return bytes(data)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=200))
def test_hostile_sizes_with_a_valid_header_check(size, number, tail):
    data = bytearray(LogWriter().group([(10, b"a" * 40)])) + tail
    struct.pack_into(">i", data, 4, size)
    same("palf_walk", resealed(data), number >> 1)
    struct.pack_into(">QQQQ", data, 8, number, number, number, number)
    same("palf_walk", resealed(data), 0, log_id=number, accum=number)


@pytest.mark.parametrize("name", ["lsn", "accum", "log_id", "until_lsn"])
@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_numbers_out_of_range(name, value):
    assert isinstance(same("palf_walk", b"", **({"lsn": 0} | {name: value})), ValueError)


@given(logs(), st.data())
def test_cut_keeps_the_entries_up_to_the_scn(writer, draw):
    found = walk(writer, bytes(writer.data))
    index = draw.draw(st.integers(0, found.group_count - 1))
    row = found.row(index)
    start = LogWriter(accum=writer.accums[index - 1]).accum if index else None
    if start is None:
        return  # the accumulated checksum before the first group is not kept by the writer
    group = bytes(writer.data[row.offset : row.offset + row.size])
    until = draw.draw(st.integers(row.min_scn - 2, row.max_scn + 2))
    kept = palf_cut(group, until, start)
    if until >= row.max_scn:
        assert kept == group
    elif until < row.min_scn:
        assert kept is None
    else:
        again = same("palf_walk", kept, 0, accum=start, log_id=row.log_id)
        assert again.stop == PalfStop.END
        assert again.min_scn == row.min_scn
        assert again.max_scn <= until
        assert group[48:].startswith(kept[48:])
        rest = struct.unpack_from(">Q", group, len(kept) + 8)[0]
        assert rest > until


def test_cut_refuses_what_is_not_one_group():
    writer = LogWriter()
    first, second = writer.group([(10, b"a"), (12, b"b")]), writer.group([(13, b"c")])
    for data, accum in ((first[:-1], 0xFFFFFFFF), (first + second, 0xFFFFFFFF), (first, 1), (b"", 0)):
        with pytest.raises(FormatError):
            palf_cut(data, 11, accum)
    assert len(palf_cut(first, 11, 0xFFFFFFFF)) == 48 + 33
    padding = LogWriter().group([(10, bytes(100))], padding=True)
    assert palf_cut(padding, 10, 0xFFFFFFFF) == padding
    assert palf_cut(padding, 9, 0xFFFFFFFF) is None


def test_cut_inside_a_group_of_the_engine():
    data, expected = group_bytes("next"), EXPECTED["next"]
    found = same("palf_walk", data, expected["lsn"], accum=expected["accum"])
    accum = expected["accum"]
    cuts = 0
    for row in found.rows():
        group = data[row.offset : row.offset + row.size]
        if row.min_scn < row.max_scn:
            kept = palf_cut(group, row.max_scn - 1, accum)
            again = same("palf_walk", kept, expected["lsn"] + row.offset, accum=accum, log_id=row.log_id)
            assert (again.stop, again.group_count, again.min_scn) == (PalfStop.END, 1, row.min_scn)
            assert again.max_scn < row.max_scn
            assert palf_cut(group, row.min_scn - 1, accum) is None
            cuts += 1
        accum = row.accum
    assert cuts
