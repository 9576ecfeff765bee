"""Blocks out of a file: both twins against each other, and against ``macroblock_check`` over the same bytes."""

import errno
import mmap
import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_store import linked_block, shared_block, sstable_block
from twins import PURE, TWINS

from mover.kernel import Read, xxh3_128
from mover.kernel.read import READ_LIMIT

contents = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 99), st.integers(0, 300_000)),
)
blocks = st.one_of(
    st.builds(sstable_block, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), contents),
    st.builds(linked_block, contents.filter(len)),
    st.builds(shared_block, st.sampled_from([4, 7, 8]), contents),
    st.builds(bytes, st.integers(24, 9000)),
)


@pytest.fixture(scope="module")
def fd() -> Iterator[int]:
    number = os.memfd_create("blocks")
    yield number
    os.close(number)


def put(fd: int, data: bytes) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)


def read(fd: int, places: list[tuple[int, int]]):
    """What both twins say and what they read, which must be the same."""
    answers = []
    for twin in TWINS.values():
        buffers = [bytearray(b"\xaa" * length) for _, length in places]
        reads = [Read(offset, length, buffer) for (offset, length), buffer in zip(places, buffers, strict=True)]
        answers.append((twin.read_blocks(fd, reads), buffers))
    assert answers[0] == answers[-1]
    return answers[0]


@given(st.lists(blocks, max_size=4), st.integers(0, 3000))
def test_blocks_are_verified_and_digested(fd, data, tail):
    put(fd, b"".join(block + b"\xee" * tail * (block[12:13] in b"\1\2") for block in data) + b"\0")
    places, at = [], 0
    for block in data:
        length = len(block) + tail * (block[12:13] in b"\1\2")
        places.append((at, length))
        at += length
    found, buffers = read(fd, places)
    for block, one, buffer in zip(data, found, buffers, strict=True):
        assert (one.error, one.filled) == (0, len(buffer))
        assert one.header == PURE.macroblock_check(buffer)
        assert one.header.ok
        used = len(block) if any(block) else 0
        assert one.header.used_length == used
        assert one.digest == xxh3_128(block[:used])


@given(blocks, st.data())
def test_whatever_the_bytes_are_the_verdict_is_that_of_the_check(fd, block, draw):
    damaged = bytearray(block)
    for _ in range(draw.draw(st.integers(1, 3))):
        where = draw.draw(st.one_of(st.integers(0, min(40, len(block) - 1)), st.integers(0, len(block) - 1)))
        damaged[where] = draw.draw(st.integers(0, 255))
    put(fd, damaged)
    (one,), _ = read(fd, [(0, len(damaged))])
    assert one.header == PURE.macroblock_check(damaged)
    assert one.digest == (xxh3_128(damaged[: one.header.used_length]) if one.header.ok else b"")


def test_a_file_that_ends_and_one_that_cannot_be_read(fd, tmp_path):
    put(fd, sstable_block(1, 2, 3, b"rows"))
    (whole, short, none), _ = read(fd, [(0, 10), (4, 4096), (1 << 40, 5)])
    assert not whole.header.ok
    assert (short.error, short.header, short.digest) == (0, None, b"")
    assert short.filled == os.fstat(fd).st_size - 4
    assert none.filled == 0
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        (refused,), _ = read(directory, [(0, 4096)])
    finally:
        os.close(directory)
    assert (refused.error, refused.filled, refused.header) == (errno.EISDIR, 0, None)
    assert read(fd, []) == ([], [])


def test_direct_reads_into_page_aligned_memory(tmp_path):
    block = sstable_block(1, 2, 3, b"r" * 9000)
    path = tmp_path / "blocks"
    path.write_bytes(block.ljust(12288, b"\xee") * 2)
    try:
        direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        pytest.skip("this filesystem has no O_DIRECT")
    try:
        for twin in TWINS.values():
            memory = memoryview(mmap.mmap(-1, 24576))
            found = twin.read_blocks(direct, [Read(12288, 12288, memory[:12288]), Read(0, 12288, memory[12288:])])
            assert [one.digest for one in found] == [xxh3_128(block)] * 2
    finally:
        os.close(direct)


@pytest.mark.parametrize(
    ("offset", "length", "room"), [(-1, 5, 9), (0, 0, 9), (0, -1, 9), (0, 10, 9), (0, READ_LIMIT + 1, 9)]
)
def test_reads_that_cannot_be(fd, offset, length, room):
    for twin in TWINS.values():
        with pytest.raises(ValueError, match="cannot read"):
            twin.read_blocks(fd, [Read(0, 1, bytearray(1)), Read(offset, length, bytearray(room))])
