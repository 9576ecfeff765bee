"""What only file:// can do wrong: full disks, lost mounts, permissions, hung servers, crashes."""

import asyncio
import errno
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from mover.errors import OB_MOUNT_FILE_NOT_VALID, MountError, TargetError, TargetExists, UnreachableError
from mover.target import file_writer, tree
from mover.target.base import BytesPart
from mover.target.files import FileTarget
from mover.target.paths import is_temporary
from mover.target.url import open_target

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
async def target(tmp_path):
    opened = await open_target((tmp_path / "dest").as_uri())
    yield opened
    await opened.aclose()


def _mount(*arguments):
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


def _unmount(path):
    subprocess.run(["umount", "-l", path], check=False, capture_output=True)


@contextmanager
def tmpfs(path, size):
    """A small file system of its own at ``path``."""
    path.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
    try:
        yield
    finally:
        _unmount(path)


def all_files(directory):
    return [os.path.join(where, name) for where, _, names in os.walk(directory) for name in names]


async def test_modes_are_private(target, tmp_path):
    old = os.umask(0)
    try:
        await target.put("dir/sub/f", b"x")
        writer = await target.create("dir/g")
        await writer.commit()
        await target.append("dir/h", 0, b"x")
    finally:
        os.umask(old)
    for name, mode in (
        ("", 0o700),
        ("dir", 0o700),
        ("dir/sub", 0o700),
        ("dir/sub/f", 0o600),
        ("dir/g", 0o600),
        ("dir/h", 0o600),
    ):
        assert os.stat(f"{target.path}/{name}").st_mode & 0o777 == mode, name


async def test_temporary_names_are_oceanbases(target):
    writer = await target.create("dir/macro_block_1.0")
    names = os.listdir(f"{target.path}/dir")
    assert len(names) == 1
    assert names[0].startswith("macro_block_1.0.tmp.") and is_temporary(names[0])
    micros = int(names[0].split(".tmp.")[1].split(".")[0])
    assert abs(micros / 1e6 - time.time()) < 60
    await writer.abort()


async def test_a_missing_root_is_made_for_writers_only(tmp_path):
    with pytest.raises(UnreachableError) as caught:
        await open_target((tmp_path / "a/b").as_uri(), create=False)
    assert "mount" in caught.value.hint
    assert not (tmp_path / "a").exists()
    target = await open_target((tmp_path / "a/b").as_uri())
    await target.put("f", b"x")
    await target.aclose()
    reader = await open_target((tmp_path / "a/b").as_uri(), create=False)
    assert await reader.get("f") == b"x"
    await reader.aclose()


async def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    for path in ("f", "f/below"):
        with pytest.raises(UnreachableError):
            await open_target((tmp_path / path).as_uri())


async def test_symbolic_links_are_not_followed(target, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"outside")
    os.symlink(outside, f"{target.path}/link")
    with pytest.raises(TargetError, match="symbolic link"):
        await target.get("link")
    with pytest.raises(TargetError):
        await target.append("link", 0, b"x")
    await target.put("link", b"mine")
    assert outside.read_bytes() == b"outside"
    assert await target.get("link") == b"mine"


async def test_a_fifo_does_not_hang(target):
    os.mkfifo(f"{target.path}/fifo")
    with pytest.raises(TargetError):
        await asyncio.wait_for(target.get("fifo"), 5)
    assert await target.stat("fifo") is None
    assert [info async for info in target.list("")] == []


async def test_a_file_in_the_place_of_a_directory(target):
    await target.put("f", b"x")
    for call in (target.put("f/g", b"x"), target.create("f/g"), target.append("f/g", 0, b"x")):
        with pytest.raises(TargetError, match="in the place of a directory"):
            await call
    assert await target.stat("f/g") is None
    await target.delete("f/g")
    await target.put("dir/f", b"x")
    with pytest.raises(TargetError):
        await target.put("dir", b"x")
    assert sorted(os.path.basename(path) for path in all_files(target.path)) == ["f", "f"]


@root_only
async def test_a_full_disk(tmp_path):
    with tmpfs(tmp_path / "small", "8m"):
        target = await open_target((tmp_path / "small").as_uri())
        await target.put("first", b"kept")
        writer = await target.create("big")
        with pytest.raises(TargetError, match="no space is left") as caught:
            for _ in range(8):
                await writer.write(BytesPart(bytes(4 << 20)))
            await writer.commit()
        assert caught.value.hint
        with pytest.raises(TargetError):  # not a second chance: some of the bytes are lost
            await writer.commit()
        with pytest.raises(TargetError, match="no space is left"):
            await target.put("second", bytes(8 << 20))
        await writer.abort()
        assert [info.path async for info in target.list("")] == ["first"]
        assert all_files(tmp_path / "small") == [f"{target.path}/first"]
        await target.put("second", bytes(4 << 20))  # the space is free again
        with pytest.raises(TargetError, match="no space is left"):
            await target.append("log", 0, bytes(8 << 20))
        await target.append("log", 0, b"fits")
        assert await target.get("log") == b"fits"
        await target.aclose()


@root_only
@pytest.mark.parametrize("what", ["unmounted", "covered"])
async def test_a_mount_lost_during_a_run(tmp_path, what):
    """Not one byte may reach the disk behind the mount point."""
    mount = tmp_path / "mount"
    with tmpfs(mount, "64m"):
        target = await open_target((mount / "dest").as_uri())
        await target.put("before", b"x")
        await target.append("log", 0, b"x")
        open_writer = await target.create("open")
        await open_writer.write(BytesPart(bytes(1 << 20)))
        full_writer = await target.create("full")
        await target.check()
        command = ["umount", "-l", mount] if what == "unmounted" else ["mount", "-t", "tmpfs", "tmpfs", mount]
        subprocess.run(command, check=True)
        try:

            async def fill():
                for _ in range(4):
                    await full_writer.write(BytesPart(bytes(4 << 20)))
                await full_writer.commit()

            for call in (
                target.check,
                lambda: target.put("after", b"x"),
                lambda: target.create("after"),
                lambda: target.append("log", 1, b"x"),
                open_writer.commit,
                fill,
                lambda: target.delete("before"),
                lambda: target.get("before"),
            ):
                with pytest.raises(MountError) as caught:
                    await call()
                assert caught.value.code == OB_MOUNT_FILE_NOT_VALID
                assert caught.value.exit_code == 7
            await open_writer.abort()
            await full_writer.abort()
            assert all_files(mount) == []
            assert os.listdir(mount) == []
        finally:
            await target.aclose()
            if what == "covered":
                subprocess.run(["umount", "-l", mount], check=True)


@root_only
async def test_the_same_file_system_mounted_again_is_another_mount(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "mount").mkdir()
    bind = ("--bind", tmp_path / "real", tmp_path / "mount")
    _mount(*bind)
    try:
        target = await open_target((tmp_path / "mount").as_uri())
        await target.check()
        subprocess.run(["umount", "-l", tmp_path / "mount"], check=True)
        with pytest.raises(MountError):
            await target.put("f", b"x")
        _mount(*bind)
        with pytest.raises(MountError):
            await target.check()
        await target.aclose()
    finally:
        _unmount(tmp_path / "mount")


async def test_a_replaced_root_is_noticed(target):
    os.rename(target.path, f"{target.path}.old")
    with pytest.raises(MountError):
        await target.put("f", b"x")
    os.mkdir(target.path)
    with pytest.raises(MountError):
        await target.check()
    assert all_files(target.path) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, TargetError),
        (errno.EDQUOT, TargetError),
        (errno.EIO, TargetError),
        (errno.EROFS, TargetError),
        (errno.EACCES, TargetError),
        (errno.ESTALE, MountError),
        (errno.ETIMEDOUT, UnreachableError),
        (errno.EHOSTDOWN, UnreachableError),
        (12345, TargetError),
    ],
)
async def test_every_errno_becomes_a_typed_error_with_a_hint(target, monkeypatch, code, kind):
    def fail(*_args):
        raise OSError(code, os.strerror(code))

    await target.put("old", b"x")
    monkeypatch.setattr(tree.os, "fsync", fail)
    with pytest.raises(kind) as caught:
        await target.put("f", b"x")
    assert caught.value.hint
    assert "'f'" in str(caught.value) and target.path in str(caught.value)
    writer = await target.create("g")
    with pytest.raises(kind):
        await writer.commit()
    await writer.abort()
    monkeypatch.undo()
    assert [info.path async for info in target.list("")] == ["old"]
    assert len(all_files(target.path)) == 1


async def test_a_stale_handle_is_opened_again_once(target, monkeypatch):
    await target.put("f", b"content")
    real, calls = os.open, []

    def stale_once(path, *args, **kwargs):
        if path == "f" and not calls:
            calls.append(path)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(tree.os, "open", stale_once)
    assert await target.get("f") == b"content"
    assert calls == ["f"]


async def test_a_hung_file_system_ends_in_an_error_and_never_blocks_cancel(tmp_path, monkeypatch):
    target = FileTarget(str(tmp_path), "file:///hung", timeout=0.2)
    await target.open()
    await target.put("f", b"x")
    release = threading.Event()
    monkeypatch.setattr(tree.os, "fsync", lambda _fd: release.wait(20))
    try:
        with pytest.raises(UnreachableError, match=r"did not answer within 0\.2 s"):
            await target.put("f", b"y")
        target._calls.timeout = 30
        task = asyncio.create_task(target.put("f", b"z"))
        while target._threads._waiting < 2:
            await asyncio.sleep(0)
        task.cancel()
        begin = time.monotonic()
        with suppress(asyncio.CancelledError):
            await task
        assert time.monotonic() - begin < 1
        assert await target.get("f") == b"x"
    finally:
        release.set()
        monkeypatch.undo()
        await target.aclose()


@pytest.mark.parametrize("why", ["no renameat2", "no renameat2, reply to link lost"])
async def test_publishing_without_renameat2(target, monkeypatch, why):
    """As on NFS: link and unlink, and a link that says EEXIST although it was our own."""
    monkeypatch.setattr(tree, "_renameat2", None)
    if "lost" in why:
        real = os.link

        def link_twice(*args, **kwargs):
            real(*args, **kwargs)
            raise FileExistsError(errno.EEXIST, "exists")

        monkeypatch.setattr(tree.os, "link", link_twice)
    await target.put("f", b"one", if_absent=True)
    writer = await target.create("g")
    await writer.write(BytesPart(b"two"))
    await writer.commit()
    assert sorted(os.listdir(target.path)) == ["f", "g"]
    monkeypatch.undo()
    monkeypatch.setattr(tree, "_renameat2", None)
    with pytest.raises(TargetExists):
        await target.put("f", b"other", if_absent=True)
    assert await target.get("f") == b"one"
    assert sorted(os.listdir(target.path)) == ["f", "g"]


async def test_without_o_direct(target, monkeypatch):
    """A file system that refuses the flag, and a device with larger sectors that refuses the write."""
    content = os.urandom((36 << 20) + 77)
    real_open, real_write = os.open, os.pwrite

    def open_refuses(path, flags, *args, **kwargs):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no O_DIRECT")
        return real_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(tree.os, "open", open_refuses)
    writer = await target.create("f")
    await writer.write(BytesPart(content))
    await writer.commit()
    monkeypatch.undo()
    assert await target.get("f") == content

    def write_refuses(fd, data, offset):
        import fcntl

        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "alignment")
        return real_write(fd, data[: len(data) // 2 or None], offset)  # and short writes on top

    monkeypatch.setattr(tree.os, "pwrite", write_refuses)
    writer = await target.create("g")
    await writer.write(BytesPart(content))
    await writer.commit()
    monkeypatch.undo()
    assert await target.get("g") == content


async def test_a_size_that_differs_after_fsync_is_not_published(target, monkeypatch):
    writer = await target.create("f")
    await writer.write(BytesPart(bytes(100_000)))
    real = os.fsync

    def lose(fd):
        os.ftruncate(fd, 10)
        real(fd)

    monkeypatch.setattr(file_writer.os, "fsync", lose)
    with pytest.raises(TargetError, match="10 bytes"):
        await writer.commit()
    monkeypatch.undo()
    await writer.abort()
    assert all_files(target.path) == []


async def test_append_notices_a_file_replaced_by_somebody_else(target):
    await target.append("log", 0, b"one")
    os.unlink(f"{target.path}/log")
    with pytest.raises(TargetError):
        await target.append("log", 3, b"two")
    await target.append("log", 0, b"new")
    assert await target.get("log") == b"new"


async def test_delete_and_put_in_one_directory_at_once(target):
    """delete() removes directories that become empty while put() makes them."""
    for _ in range(20):
        await target.put("a/b/c/old", b"x")
        await asyncio.gather(
            target.delete("a/b/c/old"), target.put("a/b/c/new", b"y"), target.append("a/b/log", 0, b"z")
        )
        assert await target.get("a/b/c/new") == b"y"
        await target.delete("a/b/c/new")
        await target.delete("a/b/log")
    assert os.listdir(target.path) == []


async def test_no_descriptor_is_left_open(tmp_path):
    before = set(os.listdir("/proc/self/fd"))
    target = await open_target(tmp_path.as_uri())
    for n in range(5):
        await target.put(f"{n}", b"x" * 100)
        await target.append(f"log{n}", 0, b"x")
        pieces = target.stream(f"{n}", chunk=10)
        await anext(pieces)
        await pieces.aclose()
        writer = await target.create(f"w{n}")
        await writer.write(BytesPart(b"x"))
        await (writer.commit() if n % 2 else writer.abort())
    await target.aclose()
    await target.aclose()
    deadline = time.monotonic() + 10
    while len(set(os.listdir("/proc/self/fd")) - before) > 0:
        assert time.monotonic() < deadline, set(os.listdir("/proc/self/fd")) - before
    with pytest.raises(TargetError):
        await target.get("0")


CRASH = """
import asyncio, os, signal, sys
from mover.target.base import BytesPart
from mover.target import tree, file_writer
from mover.target.url import open_target

die_at, path = sys.argv[1], sys.argv[2]
seen = [0]

def count(module, name):
    real = getattr(module, name)
    def call(*args, **kwargs):
        seen[0] += 1
        if seen[0] == int(die_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(module, name, call)

async def main():
    target = await open_target("file://" + path)
    for name in ("fsync", "pwrite", "rename", "open"):
        count(os, name)
    count(tree, "_rename_noreplace")
    await target.put("dir/small", b"s" * 1000)
    writer = await target.create("dir/large")
    for _ in range(3):
        await writer.write(BytesPart(b"l" * (3 << 20)))
    await writer.commit()
    await target.put("dir/small", b"S" * 1000)
    await target.put("dir/new", b"n" * 1000, if_absent=True)
    print("finished")

asyncio.run(main())
"""


async def test_kill_9_at_every_step_publishes_nothing_partial(tmp_path):
    whole = {"dir/small": [b"s" * 1000, b"S" * 1000], "dir/large": [b"l" * (9 << 20)], "dir/new": [b"n" * 1000]}
    for step in range(1, 60):
        where = tmp_path / str(step)
        where.mkdir()
        command = [sys.executable, "-c", CRASH, str(step), where]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        target = await open_target(where.as_uri(), create=False)
        async for info in target.list(""):
            assert await target.get(info.path) in whole[info.path], (step, info)
        await target.aclose()
        if done.returncode == 0:
            assert done.stdout == "finished\n"
            assert step > 20
            break
        assert done.returncode == -9, done.stderr
        subprocess.run(["rm", "-rf", where], check=True)
    else:
        pytest.fail("the steps never ended")


async def test_a_put_that_was_cancelled_publishes_nothing_any_more(target, monkeypatch):
    """Its thread goes on; whoever cancelled it may have cleared away already what there was."""
    begun, may_go_on, sync = threading.Event(), threading.Event(), os.fsync

    def slow(fd):
        begun.set()
        may_go_on.wait(20)
        sync(fd)

    monkeypatch.setattr(os, "fsync", slow)
    task = asyncio.create_task(target.put("f", b"late"))
    await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(os.listdir(target.path)) == 1
    may_go_on.set()
    deadline = time.monotonic() + 20
    while os.listdir(target.path):
        assert time.monotonic() < deadline, os.listdir(target.path)
        await asyncio.sleep(0.01)
