"""Reading from file:// into memory that is lent: files kept open, names that move on, threads that do not come back."""

import asyncio
import errno
import os
import threading
import time
from contextlib import suppress

import pytest
from lent import LentPart

from mover.errors import MountError, TargetError, UnreachableError
from mover.target import calls, file_reader, files, tree
from mover.target.files import FileTarget
from mover.target.url import open_target


@pytest.fixture
async def target(tmp_path):
    opened = await open_target((tmp_path / "dest").as_uri())
    yield opened
    await opened.aclose()


def aligned(length):
    return LentPart(bytes(length)).data


async def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


class Gate:
    """Stands in for preadv: holds every call until it is opened."""

    def __init__(self, monkeypatch):
        self.opened = threading.Event()
        self.inside = 0
        self.real = os.preadv
        monkeypatch.setattr(file_reader.os, "preadv", self)

    def __call__(self, fd, buffers, offset):
        self.inside += 1
        try:
            assert self.opened.wait(30)
            return self.real(fd, buffers, offset)
        finally:
            self.inside -= 1


async def test_a_file_is_opened_once_for_many_reads(target, monkeypatch):
    await target.put("dir/f", os.urandom(1 << 20))
    opened = []
    real = os.open

    def count(path, *args, **kwargs):
        opened.append(path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(tree.os, "open", count)
    buffer = aligned(4096)
    for at in range(0, 1 << 20, 4096):
        await target.read_into("dir/f", at, buffer)
    assert opened == ["dir/f"] * 2  # through the cache and past it


async def test_files_that_are_kept_open_are_bounded(target, monkeypatch):
    monkeypatch.setattr(target._read, "_limit", 3)
    for n in range(40):
        await target.put(f"{n}", b"%4d" % n)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        buffers = [memoryview(bytearray(4)) for _ in range(40)]
        await asyncio.gather(*(target.read_into(f"{n}", 0, buffer) for n, buffer in enumerate(buffers)))
        assert [bytes(buffer) for buffer in buffers] == [b"%4d" % n for n in range(40)]
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2 * 3)


async def test_a_file_replaced_by_somebody_else(target):
    buffer = aligned(4096)
    await target.put("f", b"a" * 4096)
    await target.read_into("f", 0, buffer)
    other = await open_target(target.url)
    await other.put("f", b"b" * 4096)
    await target.read_into("f", 0, buffer)
    assert bytes(buffer) == b"b" * 4096
    os.unlink(f"{target.path}/f")
    os.mkdir(f"{target.path}/f")
    with pytest.raises(TargetError):
        await target.read_into("f", 0, buffer)
    await other.aclose()


async def test_a_file_that_shrinks_while_it_is_read(target, monkeypatch):
    await target.put("f", bytes(10_000))
    real = os.stat

    def stat_then_cut(path, **kwargs):
        found = real(path, **kwargs)
        if path == "f":
            os.truncate(f"{target.path}/f", 5000)
        return found

    monkeypatch.setattr(file_reader.os, "stat", stat_then_cut)
    for buffer in (aligned(8192), memoryview(bytearray(8192))):
        with pytest.raises(TargetError, match="ends at 5000"):
            await target.read_into("f", 0, buffer)


@pytest.mark.parametrize("how", ["refuses to open", "refuses to read"])
async def test_without_o_direct(target, monkeypatch, how):
    content = os.urandom(100_000)
    await target.put("f", content)
    real_open, real_read = os.open, os.preadv

    def open_refuses(path, flags, *args, **kwargs):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no O_DIRECT")
        return real_open(path, flags, *args, **kwargs)

    def read_refuses(fd, buffers, offset):
        import fcntl

        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "alignment")
        return real_read(fd, [buffers[0][: len(buffers[0]) // 2 or None]], offset)  # and short reads on top

    if how == "refuses to open":
        monkeypatch.setattr(tree.os, "open", open_refuses)
    else:
        monkeypatch.setattr(file_reader.os, "preadv", read_refuses)
    buffer = aligned(100_000)
    await target.read_into("f", 0, buffer)
    assert buffer == content


@pytest.mark.parametrize("stays", [False, True])
async def test_a_handle_that_goes_stale(target, monkeypatch, stays):
    """An NFS server forgot the open file: a fresh handle is tried once."""
    await target.put("f", b"x" * 4096)
    await target.append("log", 0, b"one")
    buffer = memoryview(bytearray(4096))
    await target.read_into("f", 0, buffer)

    async def with_stale(module, name, call):
        left, real = [100 if stays else 1], getattr(os, name)

        def stale(*args):
            if left[0]:
                left[0] -= 1
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(module.os, name, stale)
            try:
                await call
            except MountError:
                return "MountError"
        return "right"

    expected = "MountError" if stays else "right"
    assert await with_stale(file_reader, "preadv", target.read_into("f", 0, buffer)) == expected
    assert await with_stale(files, "fdatasync", target.append("log", 3, b"two")) == expected
    if not stays:
        assert bytes(buffer) == b"x" * 4096
        assert await target.get("log") == b"onetwo"


async def test_a_cancelled_read_returns_when_its_thread_does(target, monkeypatch):
    await target.put("f", b"x" * 8192)
    gate = Gate(monkeypatch)
    buffer = aligned(8192)
    task = asyncio.create_task(target.read_into("f", 0, buffer))
    await until(lambda: gate.inside == 1)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    gate.opened.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert bytes(buffer) == b"x" * 8192  # written before it returned, not after


async def test_a_read_that_waits_in_line_is_cancelled_at_once(tmp_path, monkeypatch):
    target = FileTarget(str(tmp_path), "file:///one", threads=1)
    await target.open()
    await target.put("f", b"x" * 8192)
    buffer = aligned(8192)
    await target.read_into("f", 0, buffer)
    gate = Gate(monkeypatch)
    first = asyncio.create_task(target.read_into("f", 0, buffer))
    await until(lambda: gate.inside == 1)
    second = asyncio.create_task(target.read_into("f", 0, aligned(8192)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second.cancel()
    with suppress(asyncio.CancelledError):
        await second
    assert not first.done()
    gate.opened.set()
    await first
    await target.aclose()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_hung_read_says_that_the_memory_is_lost(tmp_path, monkeypatch, cancelled):
    """UnreachableError, also for a caller that was cancelled: a thread may still write into the buffer."""
    target = FileTarget(str(tmp_path), "file:///hung", timeout=30 if cancelled else 0.2)
    await target.open()
    await target.put("f", b"x" * 8192)
    monkeypatch.setattr(calls, "GRACE", 0.2)
    gate = Gate(monkeypatch)
    buffer = aligned(8192)
    task = asyncio.create_task(target.read_into("f", 0, buffer))
    await until(lambda: gate.inside == 1)
    if cancelled:
        task.cancel()
    with pytest.raises(UnreachableError) as caught:
        await task
    assert caught.value.hint
    assert bytes(buffer) == bytes(8192)
    gate.opened.set()
    await until(lambda: bytes(buffer) == b"x" * 8192)
    await target.aclose()


async def test_a_stream_reads_one_piece_ahead(target, monkeypatch):
    await target.put("f", bytes(100))
    reads = []
    real = file_reader.read_exactly

    def read(fd, offset, length):
        reads.append(offset)
        return real(fd, offset, length)

    monkeypatch.setattr(file_reader, "read_exactly", read)
    pieces = target.stream("f", chunk=10)
    await anext(pieces)
    await until(lambda: reads == [0, 10])
    await anext(pieces)
    await until(lambda: reads == [0, 10, 20])
    await pieces.aclose()
    assert reads == [0, 10, 20]


async def test_a_stream_that_outlives_its_destination(tmp_path):
    target = await open_target(tmp_path.as_uri())
    await target.put("f", bytes(100))
    before = len(os.listdir("/proc/self/fd"))
    pieces = target.stream("f", chunk=10)
    await anext(pieces)
    await target.aclose()
    await pieces.aclose()
    await until(lambda: len(os.listdir("/proc/self/fd")) < before)
