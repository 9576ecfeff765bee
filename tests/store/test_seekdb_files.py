"""Superblocks, slog and sparse extents: what is read of a store's small files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import FormatError, IntegrityError, SourceError
from mover.kernel import ob_crc64
from mover.store.base import MACRO_BLOCK_SIZE
from mover.store.seekdb.files import (
    PAGE,
    SLOG_BATCH,
    SLOG_ENTRY,
    SLOG_FILLER,
    SlogReader,
    check_superblock,
    non_zero_pages,
    read_palf_meta,
    read_superblocks,
    slog_valid_end,
)
from mover.store.seekdb.paths import StorePaths


def batch(size: int, command: int = 0x2000F, seed: int = 1) -> bytes:
    """One slog batch of ``size`` bytes in all, with one entry."""
    data = bytes((seed + i) % 251 for i in range(size - SLOG_BATCH.size - SLOG_ENTRY.size))
    body = SLOG_ENTRY.pack(0xAAAA, 1, 48, 0, command, len(data), seed, 0, ob_crc64(data), 0) + data
    return SLOG_BATCH.pack(0xAABB, 1, 24, 1, len(body), ob_crc64(body)) + body


def flush(content: bytes) -> bytes:
    """Fill up the page with a no-op batch, as the engine does."""
    missing = -len(content) % PAGE
    return content + batch(missing, SLOG_FILLER) if missing else content


def superblock(body: bytes) -> bytes:
    return (struct.pack("<iiiI", 1, 1018, len(body), ob_crc64(body) & 0xFFFFFFFF) + body).ljust(PAGE, b"\0")


@pytest.fixture
def paths(tmp_path: Path) -> StorePaths:
    found = StorePaths.of_base(tmp_path)
    for directory in (found.slog_sys, found.data / "slog/server", found.palf_meta, found.palf_log):
        directory.mkdir(parents=True)
    found.block_file.parent.mkdir(parents=True)
    return found


def test_slog_ends_behind_its_last_whole_batch_and_resumes_before_filler() -> None:
    content = batch(200) + batch(300)
    assert slog_valid_end(content) == (500, 500)
    filled = flush(content)
    assert slog_valid_end(filled) == (PAGE, 500)
    assert slog_valid_end(filled + batch(100)[:-1]) == (PAGE, 500)
    assert slog_valid_end(filled + batch(100)) == (PAGE + 100, PAGE + 100)


@given(st.lists(st.integers(90, 6000), min_size=1, max_size=8), st.data())
def test_slog_torn_anywhere_never_reaches_beyond_what_is_whole(sizes: list[int], data: st.DataObject) -> None:
    content = b"".join(batch(size, seed=i) for i, size in enumerate(sizes))
    ends = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    cut = data.draw(st.integers(0, len(content)))
    assert slog_valid_end(content[:cut])[0] == max(end for end in ends if end <= cut)
    hit = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[hit] ^= 0x10
    whole = max(end for end in ends if end <= hit)
    # Bits of the batch header that nothing checks (its version and reserved fields) may differ without harm.
    assert slog_valid_end(damaged)[0] in (whole, len(content))


def test_slog_reader_sees_entries_that_overwrite_the_filler(paths: StorePaths) -> None:
    """The engine rewrites the last page in place; reading on from its old end would miss everything after."""
    first = batch(500, seed=1)
    file = paths.slog_sys / "1"
    file.write_bytes(flush(first))
    reader = SlogReader(paths)
    reader.refresh()
    second = first + batch(700, seed=2)
    file.write_bytes(flush(second))
    reader.refresh()
    third = second + batch(5000, seed=3)
    file.write_bytes(flush(third))
    assert reader.refresh() == len(flush(third)) - 1200
    (found,) = [f for f in reader.files() if f.path == "slog/sys/1"]
    assert found.size == 2 * PAGE
    assert found.extents == ((0, flush(third)),)


def test_slog_reader_follows_new_and_dropped_files(paths: StorePaths) -> None:
    (paths.slog_sys / "1").write_bytes(flush(batch(200)))
    (paths.data / "slog/server/4").write_bytes(flush(batch(100)))
    reader = SlogReader(paths)
    reader.refresh()
    (paths.data / "slog/server/4").unlink()
    (paths.data / "slog/server/5").write_bytes(b"")
    (paths.slog_sys / "2").write_bytes(flush(batch(300)))
    reader.refresh()
    assert [(f.path, f.size) for f in reader.files()] == [
        ("slog/server/5", 0),
        ("slog/sys/1", PAGE),
        ("slog/sys/2", PAGE),
    ]


def test_slog_torn_tail_of_a_crash_is_cut_but_damage_in_the_middle_is_not(paths: StorePaths) -> None:
    whole = flush(batch(200))
    (paths.slog_sys / "1").write_bytes(whole + b"\xaa" * 100)
    reader = SlogReader(paths)
    reader.refresh()
    assert [f.size for f in reader.files()] == [PAGE]
    damaged = bytearray(flush(batch(200) + batch(300)))
    damaged[250] ^= 1
    (paths.slog_sys / "1").write_bytes(damaged)
    with pytest.raises(IntegrityError, match="not valid at offset 200"):
        SlogReader(paths).refresh()


def test_superblock_checks() -> None:
    page = superblock(b"x" * 79)
    check_superblock(page)
    for at in (0, 4, 8, 12, 20):
        damaged = bytearray(page)
        damaged[at] ^= 1
        with pytest.raises(IntegrityError):
            check_superblock(bytes(damaged))
    with pytest.raises(FormatError):
        check_superblock(page[:10])


def test_superblocks_are_the_two_first_pages_only(paths: StorePaths) -> None:
    page = superblock(b"body")
    with paths.block_file.open("wb") as file:
        file.truncate(3 * MACRO_BLOCK_SIZE)
        file.write(page)
        file.seek(MACRO_BLOCK_SIZE)
        file.write(page)
    found = read_superblocks(paths)
    assert found.size == 3 * MACRO_BLOCK_SIZE
    assert found.extents == ((0, page), (MACRO_BLOCK_SIZE, page))
    with paths.block_file.open("r+b") as file:
        file.seek(17)
        file.write(b"damage")
    with pytest.raises(IntegrityError, match="superblock"):
        read_superblocks(paths)


def test_palf_meta_is_every_file_without_its_zeros(paths: StorePaths) -> None:
    with pytest.raises(SourceError, match="has no files"):
        read_palf_meta(paths)
    for number in (4, 5):
        with (paths.palf_meta / str(number)).open("wb") as file:
            file.truncate(1 << 20)
            file.seek(PAGE)
            file.write(b"LM")
    assert [(f.path, f.size, [o for o, _ in f.extents]) for f in read_palf_meta(paths)] == [
        ("redo/sys/log_stream/meta/4", 1 << 20, [PAGE]),
        ("redo/sys/log_stream/meta/5", 1 << 20, [PAGE]),
    ]


@given(st.lists(st.sampled_from([b"\0", b"a", b"\0b"]), max_size=12), st.integers(0, PAGE - 1))
def test_extents_hold_exactly_what_is_not_zero(pages: list[bytes], tail: int) -> None:
    content = b"".join(page.ljust(PAGE, b"\0") for page in pages) + b"c" * tail
    extents = non_zero_pages(content)
    rebuilt = bytearray(len(content))
    for offset, data in extents:
        assert offset % PAGE == 0
        rebuilt[offset : offset + len(data)] = data
    assert rebuilt == content
    assert sum(len(data) for _, data in extents) == sum(PAGE for page in pages if any(page)) + tail
