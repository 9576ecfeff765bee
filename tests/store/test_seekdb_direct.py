"""Files written past the page cache: the same bytes, however they come and whatever the file system can do."""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.store.seekdb.direct import PAGE, DirectFile, StagedFile, staging

STAGED = 256 << 10
MEMORY = staging()[:STAGED]
NOISE = random.Random(1).randbytes(3 << 20)


@contextmanager
def a_file() -> Iterator[tuple[DirectFile, Path]]:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "f"
        file = DirectFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), path)
        try:
            yield file, path
        finally:
            file.close()
            file.close()


@settings(max_examples=40)
@given(st.lists(st.one_of(st.integers(0, 300), st.integers(0, 400_000)), max_size=8), st.integers(0, 9))
def test_any_appends_make_the_file(sizes: list[int], start: int) -> None:
    with a_file() as (file, path):
        MEMORY[:] = b"\xff" * STAGED  # what an earlier file left
        staged, expected = StagedFile(file, MEMORY), b""
        for size in sizes:
            piece = NOISE[start : start + size]
            staged.append(piece)
            expected += piece
        size = len(expected) + 20_000
        staged.finish(size)
        assert path.read_bytes() == expected.ljust(size, b"\0")
        staged.close()


def _refusing(number: int, when: Callable[[int], bool]) -> Callable[..., int]:
    original = os.open

    def refuse(path: os.PathLike[str], flags: int, *rest: int, **options: int) -> int:
        if when(flags):
            raise OSError(number, os.strerror(number))
        return original(path, flags, *rest, **options)

    return refuse


@pytest.mark.parametrize("number", [0, errno.EINVAL, errno.EOPNOTSUPP])
def test_writes_of_any_place_length_and_memory(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    if number:
        monkeypatch.setattr("os.open", _refusing(number, lambda flags: bool(flags & os.O_DIRECT)))
    with mmap.mmap(-1, 1 << 20) as memory, memoryview(memory) as view, a_file() as (file, path):
        view[:] = NOISE[: 1 << 20]
        expected = bytearray(4 << 20)
        for start, length, offset in (
            (0, 1 << 20, 0),
            (PAGE, 128 << 10, 2 << 20),
            (1, 128 << 10, (2 << 20) + 1),
            (0, (64 << 10) + 1, 3 << 20),
            (0, 128 << 10, (3 << 20) + (512 << 10) + 5),
            (7, 100, (4 << 20) - 100),
            (0, 0, 0),
        ):
            file.write(view[start : start + length], offset)
            expected[offset : offset + length] = view[start : start + length]
        file.write(NOISE[:PAGE], 5 << 20)
        file.sync()
        assert path.read_bytes() == (expected + bytes(1 << 20))[: 5 << 20] + NOISE[:PAGE]


def test_other_errors_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr("os.open", _refusing(errno.EIO, lambda flags: bool(flags & os.O_DIRECT)))
    with pytest.raises(OSError, match="Input/output"):
        DirectFile(fd, path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_full_disk_is_said_and_not_worked_around(monkeypatch: pytest.MonkeyPatch) -> None:
    def pwrite(_fd: int, _data: object, _offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with a_file() as (file, _path):
        staged = StagedFile(file, MEMORY)
        monkeypatch.setattr("os.pwrite", pwrite)
        staged.append(b"x")
        with pytest.raises(OSError, match="No space left"):
            staged.append(bytes(STAGED))
        with pytest.raises(OSError, match="No space left"):
            staged.finish(STAGED)
