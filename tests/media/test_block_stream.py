"""A data file in pieces is the same as the data file whole."""

from __future__ import annotations

import itertools

import independent_writer as writer
from hypothesis import given
from hypothesis import strategies as st

from mover.media.archive import ArchiveBlock, scan_data_file
from mover.media.block_stream import BadRun, BlockStream


def blocks_of(count: int) -> bytes:
    data = b""
    for number in range(count):
        entry = writer.entry(201, 20 + number, b"x" * (7 * number))
        data += writer.block(entry, len(data), 20, 20 + number, number, len(entry))
    return data


WHOLE = blocks_of(6)


def read(data: bytes, cuts: list[int]) -> list[ArchiveBlock | BadRun]:
    stream = BlockStream(len(data))
    found: list[ArchiveBlock | BadRun] = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        found += stream.feed(data[start:end])
    torn = stream.finish()
    return [*found, torn] if torn is not None else found


cut_points = st.lists(st.integers(0, 1 << 20), max_size=6)


@given(cut_points)
def test_pieces_of_any_size(cuts: list[int]) -> None:
    found = read(WHOLE, cuts)
    assert [block.offset for block in found] == [block.offset for block in scan_data_file(WHOLE).blocks]
    assert all(isinstance(block, ArchiveBlock) for block in found)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 7), cut_points)
def test_a_flipped_bit_costs_its_block_only(place: int, bit: int, cuts: list[int]) -> None:
    data = bytearray(WHOLE)
    data[place] ^= 1 << bit
    found = read(bytes(data), cuts)
    bad = [item for item in found if isinstance(item, BadRun)]
    good = {block.offset for block in scan_data_file(WHOLE).blocks}
    assert len(bad) == 1
    (hit,) = [block for block in scan_data_file(WHOLE).blocks if block.offset <= place < block.end]
    assert bad[0].offset == hit.offset
    assert bad[0].until == (hit.end if hit.end < len(WHOLE) else None)
    assert not bad[0].cut
    assert {item.offset for item in found if isinstance(item, ArchiveBlock)} == good - {hit.offset}


@given(st.integers(0, len(WHOLE)), cut_points)
def test_a_file_that_ends_early_is_cut_not_damaged(size: int, cuts: list[int]) -> None:
    found = read(WHOLE[:size], cuts)
    scanned = scan_data_file(WHOLE[:size])
    assert [item.offset for item in found if isinstance(item, ArchiveBlock)] == [b.offset for b in scanned.blocks]
    torn = [item for item in found if isinstance(item, BadRun)]
    assert [(item.offset, item.cut) for item in torn] == ([(scanned.end, True)] if scanned.torn else [])


@given(st.binary(max_size=3000), cut_points)
def test_any_bytes_end(data: bytes, cuts: list[int]) -> None:
    found = read(data, cuts)
    assert found or not data
