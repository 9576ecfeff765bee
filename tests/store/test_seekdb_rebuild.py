"""The builder of a bootable store: what it refuses, and that nothing is called a store before it is one."""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
from pathlib import Path

import pytest

from mover.errors import FormatError, IntegrityError, PreconditionError
from mover.kernel import palf_block_header_build
from mover.kernel.palf import PALF_FILE_BYTES, PalfBlockHeader
from mover.store.base import MACRO_BLOCK_SIZE, StoreFile
from mover.store.seekdb.rebuild import StoreBuilder


def header(file_id: int) -> bytes:
    return palf_block_header_build(PalfBlockHeader(0, file_id * PALF_FILE_BYTES, 1, (1 << 64) - 1, file_id))


def test_blocks_files_and_log_land_where_they_belong(tmp_path: Path) -> None:
    target = tmp_path / "restored"
    builder = StoreBuilder(target, 5 * MACRO_BLOCK_SIZE)
    builder.write_file(
        StoreFile("sstable/block_file", 5 * MACRO_BLOCK_SIZE, ((0, b"super"), (MACRO_BLOCK_SIZE, b"super")))
    )
    builder.write_block(4, b"block four")
    builder.write_file(StoreFile("slog/sys/1", 8192, ((4096, b"slog"),)))
    end = 3 * PALF_FILE_BYTES
    builder.append_log(2 * PALF_FILE_BYTES, header(2), b"a" * 100)
    builder.append_log(2 * PALF_FILE_BYTES + 100, None, b"b" * (PALF_FILE_BYTES - 100))
    builder.append_log(end, header(3), b"c")
    assert builder.next_lsn == end + 1
    assert not (target / "store").exists()
    store = builder.finish()
    builder.close()
    assert store == target / "store"
    assert not (target / "store.partial").exists()
    block_file = (store / "sstable/block_file").read_bytes()
    assert block_file[:5] == block_file[MACRO_BLOCK_SIZE : MACRO_BLOCK_SIZE + 5] == b"super"
    assert block_file[4 * MACRO_BLOCK_SIZE :].rstrip(b"\0") == b"block four"
    assert (store / "slog/sys/1").read_bytes() == bytes(4096) + b"slog" + bytes(4092)
    for file_id, first, size in ((2, b"a", PALF_FILE_BYTES), (3, b"c", 1)):
        log = (store / f"redo/sys/log_stream/log/{file_id}").read_bytes()
        assert len(log) == 64 << 20
        assert log[:48] == header(file_id)
        assert not any(log[48:4096])
        assert log[4096:4097] == first
        assert not any(log[4096 + size :])
    for path in store.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    # Holes stay holes: 5 macroblocks, two of them with a page, one with a page.
    assert os.stat(store / "sstable/block_file").st_blocks * 512 < MACRO_BLOCK_SIZE


def test_a_target_with_anything_in_it_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(PreconditionError, match="not empty"):
        StoreBuilder(tmp_path, 4 * MACRO_BLOCK_SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    with pytest.raises(PreconditionError, match="not a directory"):
        StoreBuilder(tmp_path / "precious", 4 * MACRO_BLOCK_SIZE)


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "", "etc/x", "redo/../../x", "sstable/../../x", "slog/sys/a\0b"]
)
def test_paths_outside_the_store_are_refused(tmp_path: Path, path: str) -> None:
    builder = StoreBuilder(tmp_path / "t", 4 * MACRO_BLOCK_SIZE)
    with pytest.raises(FormatError, match="does not belong"):
        builder.write_file(StoreFile(path, 10, ((0, b"x"),)))
    builder.close()
    assert not list(tmp_path.rglob("passwd"))


def test_a_link_planted_in_the_target_is_not_followed(tmp_path: Path) -> None:
    builder = StoreBuilder(tmp_path / "t", 4 * MACRO_BLOCK_SIZE)
    victim = tmp_path / "victim"
    (tmp_path / "t/store.partial/slog/sys/1").symlink_to(victim)
    with pytest.raises(FormatError, match="restored twice"):
        builder.write_file(StoreFile("slog/sys/1", 10, ((0, b"x"),)))
    builder.close()
    assert not victim.exists()


def test_log_must_be_whole_and_in_order(tmp_path: Path) -> None:
    builder = StoreBuilder(tmp_path / "t", 4 * MACRO_BLOCK_SIZE)
    with pytest.raises(FormatError, match="begins at lsn"):
        builder.append_log(5, None, b"x")
    with pytest.raises(FormatError, match="is missing"):
        builder.append_log(0, None, b"x")
    with pytest.raises(FormatError, match="block header of file 1"):
        builder.append_log(0, header(1), b"x")
    with pytest.raises(FormatError, match="reach into the next file"):
        builder.append_log(PALF_FILE_BYTES - 1, None, b"xx")
    with pytest.raises(IntegrityError, match="no log"):
        builder.finish()
    builder.append_log(0, header(0), b"x")
    with pytest.raises(FormatError, match="does not continue"):
        builder.append_log(2, None, b"x")
    builder.close()
    assert not (tmp_path / "t/store").exists()


def test_blocks_and_extents_must_fit(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        StoreBuilder(tmp_path / "t", MACRO_BLOCK_SIZE * 2 + 1)
    builder = StoreBuilder(tmp_path / "t", 4 * MACRO_BLOCK_SIZE)
    for index, size in ((4, 1), (-1, 1), (3, MACRO_BLOCK_SIZE + 1)):
        with pytest.raises(FormatError, match="does not fit"):
            builder.write_block(index, bytes(size))
    with pytest.raises(FormatError, match="does not fit"):
        builder.write_file(StoreFile("slog/sys/1", 4, ((2, b"xyz"),)))
    with pytest.raises(FormatError, match="block file of"):
        builder.write_file(StoreFile("sstable/block_file", MACRO_BLOCK_SIZE, ((0, b"x"),)))
    builder.close()
    with pytest.raises(PreconditionError, match="closed"):
        builder.write_block(2, b"x")


def test_what_a_restore_that_died_left_is_cleared_away(tmp_path: Path) -> None:
    died = StoreBuilder(tmp_path / "t", 4 * MACRO_BLOCK_SIZE)
    died.write_file(StoreFile("slog/sys/1", 10, ((0, b"x"),)))
    with pytest.raises(PreconditionError, match="another restore"):
        StoreBuilder(tmp_path / "t", 4 * MACRO_BLOCK_SIZE)
    died.close()  # the lock ends as it does with the process
    again = StoreBuilder(tmp_path / "t", 4 * MACRO_BLOCK_SIZE)
    assert not (tmp_path / "t/store.partial/slog/sys/1").exists()
    again.close()


@pytest.mark.parametrize("direct", [True, False], ids=["O_DIRECT", "page cache"])
def test_blocks_of_any_length_and_alignment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool) -> None:
    if not direct:
        original = os.open

        def refuse(path: os.PathLike[str], flags: int, *rest: int, **options: int) -> int:
            if flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return original(path, flags, *rest, **options)

        monkeypatch.setattr("os.open", refuse)
    builder = StoreBuilder(tmp_path / "t", 16 * MACRO_BLOCK_SIZE)
    with mmap.mmap(-1, MACRO_BLOCK_SIZE + 4096) as memory, memoryview(memory) as view:
        view[:] = random.Random(1).randbytes(len(view))
        written = {}
        for index, (start, length) in enumerate(
            [(0, MACRO_BLOCK_SIZE), (0, 128 << 10), (1, 128 << 10), (0, (128 << 10) + 1), (0, 4096), (3, 100), (0, 0)]
        ):
            builder.write_block(2 + index, view[start : start + length])
            written[2 + index] = bytes(view[start : start + length])
    builder.append_log(0, header(0), b"log")
    block_file = builder.finish() / "sstable/block_file"
    with block_file.open("rb") as file:
        for index in range(16):
            file.seek(index * MACRO_BLOCK_SIZE)
            assert file.read(MACRO_BLOCK_SIZE) == written.get(index, b"").ljust(MACRO_BLOCK_SIZE, b"\0")
    assert block_file.stat().st_blocks * 512 <= sum(len(data) + 8192 for data in written.values())
