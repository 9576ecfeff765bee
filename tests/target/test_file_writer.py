"""The writer of file://: parts that go out from where they are, and memory that no thread uses once it is released."""

import asyncio
import ctypes
import errno
import fcntl
import os
import subprocess
import threading
import time

import pytest
from lent import LentPart

from mover.errors import TargetError, UnreachableError
from mover.target import file_writer, tree
from mover.target.base import BytesPart
from mover.target.files import FileTarget
from mover.target.url import open_target

PART = 1 << 20


@pytest.fixture
async def target(tmp_path):
    opened = await open_target((tmp_path / "dest").as_uri())
    yield opened
    await opened.aclose()


def address(view):
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def has_direct(path):
    """Whether O_DIRECT means something here: tmpfs takes the flag and is a page cache itself."""
    done = subprocess.run(["stat", "-f", "-c", "%T", path], check=True, capture_output=True, text=True)
    return "tmpfs" not in done.stdout


async def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


class Gate:
    """Stands in for pwrite: holds every call until it is opened."""

    def __init__(self, monkeypatch):
        self.opened = threading.Event()
        self.inside = 0
        self.most = 0
        self.lock = threading.Lock()
        self.real = os.pwrite
        monkeypatch.setattr(tree.os, "pwrite", self)

    def __call__(self, fd, data, offset):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            assert self.opened.wait(30)
            return self.real(fd, data, offset)
        finally:
            with self.lock:
                self.inside -= 1


async def test_aligned_parts_go_out_from_where_they_are(target, monkeypatch):
    seen = []
    real = os.pwrite

    def pwrite(fd, data, offset):
        direct = bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)
        seen.append((offset, len(data), direct, None if data.readonly else address(data)))
        return real(fd, data, offset)

    monkeypatch.setattr(tree.os, "pwrite", pwrite)
    parts = [LentPart(os.urandom(size)) for size in (PART, 8192, PART + 100, 50, PART - 150, PART)]
    expected = b"".join(part.data for part in parts)
    places = [address(part.data) for part in parts]
    writer = await target.create("f")
    for part in parts:
        await writer.write(part)
    await writer.commit()
    assert await target.get("f") == expected
    end = PART + 8192 + PART
    assert sorted(seen) == [
        (0, PART, True, places[0]),
        (PART, 8192, True, places[1]),
        (PART + 8192, PART, True, places[2]),  # whole pages of it, and the rest through the cache
        (end, 100, False, places[2] + PART),
        (end + 100, 50, False, places[3]),
        (end + 150, PART - 150, False, places[4]),
        (end + PART, PART, True, places[5]),  # aligned again
    ]


async def test_a_few_writes_are_under_way_and_no_more(target, monkeypatch):
    gate = Gate(monkeypatch)
    parts = [LentPart(bytes([n]) * PART) for n in range(8)]
    writer = await target.create("f")
    given = 0

    async def give():
        nonlocal given
        for part in parts:
            await writer.write(part)
            given += 1

    task = asyncio.create_task(give())
    await until(lambda: gate.inside == file_writer.UNDER_WAY)
    assert given == file_writer.UNDER_WAY  # write returned as soon as there was a slot
    assert [part.releases for part in parts] == [0] * 8
    gate.opened.set()
    await task
    await writer.commit()
    assert gate.most == file_writer.UNDER_WAY
    assert [part.releases for part in parts] == [1] * 8
    assert await target.get("f") == b"".join(bytes([n]) * PART for n in range(8))


async def test_abort_waits_for_the_threads_that_have_parts(target, monkeypatch):
    gate = Gate(monkeypatch)
    parts = [LentPart(bytes(PART)) for _ in range(3)]
    writer = await target.create("f")
    for part in parts:
        await writer.write(part)
    await until(lambda: gate.inside == 3)
    task = asyncio.create_task(writer.abort())
    await until(lambda: os.listdir(target.path) == [])
    assert not task.done()
    assert [part.releases for part in parts] == [0] * 3
    gate.opened.set()
    await task
    assert [part.releases for part in parts] == [1] * 3


async def test_a_failed_write_is_raised_by_a_later_call(target, monkeypatch):
    real = os.pwrite

    def fails(fd, data, offset):
        if offset == PART:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, data, offset)

    monkeypatch.setattr(tree.os, "pwrite", fails)
    parts = [LentPart(bytes(PART)) for _ in range(10)]
    writer = await target.create("f")
    given = 0
    with pytest.raises(TargetError, match="EIO") as caught:
        for part in parts:
            given += 1
            await writer.write(part)
    assert caught.value.hint
    with pytest.raises(TargetError, match="its writer is failed"):
        await writer.commit()
    await writer.abort()
    assert [part.releases for part in parts] == [1] * given + [0] * (10 - given)
    assert os.listdir(target.path) == []


async def test_a_hung_write_ends_in_an_error_and_keeps_its_part(tmp_path, monkeypatch):
    """The part is not released while its thread may still read it; the caller, abort and close go on without it."""
    target = FileTarget(str(tmp_path), "file:///hung", timeout=0.2)
    await target.open()
    gate = Gate(monkeypatch)
    parts = [LentPart(bytes(PART)) for _ in range(3)]
    writer = await target.create("f")
    for part in parts:
        await writer.write(part)
    with pytest.raises(UnreachableError, match=r"did not answer within 0\.2 s"):
        await writer.commit()
    await writer.abort()
    assert [part.releases for part in parts] == [0] * 3
    assert os.listdir(tmp_path) == []
    gate.opened.set()
    await until(lambda: [part.releases for part in parts] == [1] * 3)
    assert os.listdir(tmp_path) == []
    await target.aclose()


async def test_what_was_reserved_and_not_used_is_given_back(target):
    """Large files get their space in steps; the last step is cut off, and the size is never that of the space."""
    writer = await target.create("f")
    for _ in range(5):
        await writer.write(BytesPart(bytes(PART)))
    info = await writer.commit()
    assert info.size == 5 * PART
    found = os.stat(f"{target.path}/f")
    assert found.st_size == 5 * PART
    assert found.st_blocks * 512 < 5 * PART + 65_536


async def test_a_file_system_without_room_to_reserve(target, monkeypatch):
    """What fallocate says does not matter: the writes themselves find out."""
    asked = []

    def refuses(fd, mode, offset, length):
        asked.append((mode, offset.value, length.value))
        return -1

    monkeypatch.setattr(tree, "_fallocate", refuses)
    writer = await target.create("f")
    for _ in range(5):
        await writer.write(BytesPart(b"x" * PART))
    await writer.commit()
    assert await target.get("f") == b"x" * (5 * PART)
    assert sorted(asked) == [(1, PART, 2 * PART), (1, 3 * PART, 4 * PART)]
    monkeypatch.setattr(tree, "_fallocate", None)
    writer = await target.create("g")
    for _ in range(3):
        await writer.write(BytesPart(b"x" * PART))
    assert (await writer.commit()).size == 3 * PART


async def test_nothing_of_a_file_stays_in_the_cache(target):
    if not has_direct(target.path):
        pytest.skip("no O_DIRECT here")
    writer = await target.create("f")
    for _ in range(8):
        await writer.write(LentPart(os.urandom(PART)))
    await writer.write(BytesPart(b"tail"))
    await writer.commit()
    assert cached_pages(f"{target.path}/f") == 0
    buffer = LentPart(bytes(8 * PART)).data
    await target.read_into("f", 0, buffer)
    assert cached_pages(f"{target.path}/f") == 0
    await target.read_into("f", 4, buffer)
    async for _ in target.stream("f", chunk=PART):
        pass
    assert cached_pages(f"{target.path}/f") * 4096 < PART  # a little that was read ahead


def cached_pages(path):
    """How many pages of a file are in the page cache."""
    import mmap

    libc = ctypes.CDLL(None)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=3) as pages:
        count = -(-len(pages) // 4096)
        found = (ctypes.c_ubyte * count)()
        start = ctypes.c_char.from_buffer(pages)
        place = ctypes.c_void_p(ctypes.addressof(start))
        del start
        assert libc.mincore(place, ctypes.c_size_t(len(pages)), found) == 0
    return sum(page & 1 for page in found)
