"""A real file system that hangs, fails or goes away while it is in use."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from fuse_mount import fuse_mount
from lent import LentPart

from mover.errors import MountError, TargetError, TargetExists, TargetNotFound, UnreachableError
from mover.target import calls, file_writer
from mover.target.files import FileTarget

PART = 1 << 20


@pytest.fixture
def mount(tmp_path):
    with fuse_mount(tmp_path) as mounted:
        yield mounted


@pytest.fixture
async def target(mount):
    opened = FileTarget(str(mount.path / "dest"), "file:///fuse", timeout=30)
    await opened.open()
    try:
        yield opened
    finally:
        mount.faults()
        await opened.aclose()


async def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def left_at(mount):
    return sorted(name for _, _, names in os.walk(mount.backing) for name in names)


async def write(target, path, parts):
    writer = await target.create(path)
    try:
        for part in parts:
            await writer.write(part)
        return await writer.commit()
    except BaseException:
        await writer.abort()
        raise


async def read(target, buffer):
    await target.read_into("old", 0, buffer)


async def collect(target):
    return [info async for info in target.list("")], [piece async for piece in target.stream("old", chunk=1000)]


@pytest.mark.parametrize(
    ("operation", "work"),
    [
        ("write", lambda target: write(target, "f", [LentPart(bytes(PART)) for _ in range(8)])),
        ("fsync", lambda target: write(target, "f", [LentPart(bytes(PART))])),
        ("link", lambda target: write(target, "f", [LentPart(bytes(PART))])),
        ("fsyncdir", lambda target: target.put("f", b"x")),
        ("create", lambda target: target.put("f", b"x")),
        ("read", lambda target: read(target, LentPart(bytes(8192)).data)),
        ("read", lambda target: target.get("old")),
        ("readdir", collect),
        ("getattr", lambda target: target.check()),
        ("getattr", lambda target: target.append("old", 8192, b"x")),
        ("unlink", lambda target: target.delete("old")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_whatever_hangs_ends_in_an_error_and_works_again_later(mount, target, monkeypatch, operation, work):
    monkeypatch.setattr(calls, "GRACE", 0.3)
    monkeypatch.setattr(file_writer, "GRACE", 0.3)
    await target.put("old", bytes(8192))
    target._calls.timeout = 1.0
    mount.faults(hang=(operation,))
    task = asyncio.create_task(work(target))
    turns = 0
    while not task.done():
        await asyncio.sleep(0.01)  # the loop goes on
        turns += 1
    assert turns > 10
    with pytest.raises(UnreachableError) as caught:
        await task
    assert caught.value.exit_code == 7 and caught.value.hint
    target._calls.timeout = 30
    mount.faults()
    await target.put("after", b"works again")
    assert await target.get("after") == b"works again"


@pytest.mark.parametrize("operation", ["write", "fsync", "*"])
async def test_cancel_during_a_hang(mount, target, monkeypatch, operation):
    """The cancel does not wait for the mount; parts come back when it answers, and nothing is published."""
    monkeypatch.setattr(file_writer, "GRACE", 0.3)
    parts = [LentPart(bytes(PART)) for _ in range(20)]
    given = {"write": file_writer.UNDER_WAY + 1, "fsync": 20, "*": 0}[operation]
    taken = []
    mount.faults(hang=(operation,))
    task = asyncio.create_task(write(target, "f", (taken.append(part) or part for part in parts)))
    await until(lambda: any(mount.hung(name) for name in ("write", "fsync", "getattr")) and len(taken) == given)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if operation == "write":
        assert sum(part.releases for part in parts) == 1  # the one that waited for a slot
    mount.faults()
    await until(lambda: sum(part.releases for part in parts) == given)
    await until(lambda: left_at(mount) == [])
    assert max(part.releases for part in parts) <= 1


async def test_a_file_system_whose_server_dies(mount, target):
    """An error at once, every part comes back, and the directory below the mount stays empty."""
    parts, taken = [LentPart(bytes(PART)) for _ in range(20)], []
    mount.faults(hang=("write",))
    task = asyncio.create_task(write(target, "f", (taken.append(part) or part for part in parts)))
    await until(lambda: mount.hung("write") and len(taken) == file_writer.UNDER_WAY + 1)
    mount.kill()
    with pytest.raises((TargetError, UnreachableError)) as caught:
        await asyncio.wait_for(task, 30)
    assert caught.value.hint
    assert sum(part.releases for part in parts) == file_writer.UNDER_WAY + 1
    for call in (target.check, lambda: target.put("g", b"x"), lambda: target.append("log", 0, b"x")):
        with pytest.raises(MountError) as lost:
            await call()
        assert lost.value.exit_code == 7
    subprocess.run(["umount", "-l", mount.path], check=True)
    with pytest.raises(MountError):
        await write(target, "g", [LentPart(bytes(PART))])
    assert os.listdir(mount.path) == []


async def test_a_mount_that_goes_away_under_a_writer(mount, target):
    parts = [LentPart(bytes(PART)) for _ in range(20)]
    writer = await target.create("f")
    for part in parts[:10]:
        await writer.write(part)
    subprocess.run(["umount", "-l", mount.path], check=True)
    with pytest.raises(MountError):
        for part in parts[10:]:
            await writer.write(part)
        await writer.commit()
    await writer.abort()
    assert max(part.releases for part in parts) == 1
    assert os.listdir(mount.path) == []


@pytest.mark.parametrize(
    ("operation", "code", "kind", "words"),
    [
        ("write", errno.ENOSPC, TargetError, "no space is left"),
        ("write", errno.EDQUOT, TargetError, "the quota is used up"),
        ("fsync", errno.EDQUOT, TargetError, "the quota is used up"),  # NFS says so late
        ("fsync", errno.EIO, TargetError, "i/o error"),
        ("close", errno.EDQUOT, TargetError, "the quota is used up"),  # or only then
        ("close", errno.EIO, TargetError, "i/o error"),
        ("close", errno.ESTALE, MountError, "stale"),
        ("fsyncdir", errno.EIO, TargetError, "i/o error"),  # it has its name by then, and loses it again
        ("create", errno.ENAMETOOLONG, TargetError, "too long"),
        ("mkdir", errno.EACCES, TargetError, "permission denied"),
        ("link", errno.EACCES, TargetError, "permission denied"),
        ("write", errno.EUCLEAN, TargetError, "damaged"),
        ("create", errno.EROFS, TargetError, "read-only"),
        ("link", errno.EROFS, TargetError, "read-only"),
        ("write", errno.ESTALE, MountError, "stale"),
        ("getattr", errno.ESTALE, MountError, "stale"),
        ("getattr", errno.ETIMEDOUT, UnreachableError, "timed out"),  # a soft mount
        ("getattr", errno.EKEYEXPIRED, UnreachableError, "expired"),
        ("getattr", errno.EACCES, TargetError, "permission denied"),
    ],
)
async def test_what_the_kernel_says_is_said_in_words(mount, target, operation, code, kind, words):
    await target.put("old", b"x")
    mount.faults(fail={operation: code})
    for call in (
        lambda: write(target, "new/f", [LentPart(bytes(PART)) for _ in range(5)]),
        lambda: target.put("new/g", b"x", if_absent=True),
    ):
        with pytest.raises(kind, match=words) as caught:
            await call()
        assert caught.value.hint
        assert not isinstance(caught.value, MountError) or kind is MountError
    mount.faults()
    assert [info.path async for info in target.list("")] == ["old"]


@pytest.mark.parametrize(
    ("operation", "work"),
    [
        ("readdir", collect),
        ("read", lambda target: target.get("old")),
        ("read", lambda target: read(target, LentPart(bytes(8192)).data)),
        ("open", lambda target: target.get("old")),
        ("unlink", lambda target: target.delete("old")),
        ("rename", lambda target: target.put("old", b"new")),
        ("close", lambda target: target.put("old", b"new")),
        ("write", lambda target: target.append("old", 8192, b"x")),
        ("fsync", lambda target: target.append("old", 8192, b"x")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_whatever_fails_is_told_and_what_was_there_stays(mount, target, operation, work):
    await target.put("old", bytes(8192))
    for code, kind in (
        (errno.EIO, TargetError),
        (errno.EACCES, TargetError),
        (errno.ETIMEDOUT, UnreachableError),
        (errno.ESTALE, MountError),
    ):
        mount.faults(fail={operation: code})
        with pytest.raises(kind) as caught:
            await work(target)
        assert caught.value.hint and not isinstance(caught.value, TargetNotFound)
        assert caught.value.exit_code == (1 if kind is TargetError else 7)
        mount.faults()
        assert await target.get("old", 0, 8192) == bytes(8192)


async def test_a_lost_reply_is_no_failure(mount, target):
    """An NFS client asks again, and a server that did it the first time says that there is nothing to do."""
    mount.faults(late={"rename": errno.ENOENT, "link": errno.EEXIST, "unlink": errno.ENOENT, "mkdir": errno.EEXIST})
    await target.put("new/f", b"one")
    await target.put("new/f", b"two")
    await target.put("new/g", b"x", if_absent=True)
    await write(target, "new/h", [LentPart(bytes(PART))])
    await target.delete("new/g")
    mount.faults()
    assert [info.path async for info in target.list("")] == ["new/f", "new/h"]
    assert await target.get("new/f") == b"two"
    assert left_at(mount) == ["f", "h"]


async def test_a_name_that_is_somebody_elses_is_no_lost_reply(mount, target):
    await target.put("f", b"theirs")
    mount.faults(fail={"rename": errno.ENOENT, "link": errno.EEXIST})
    with pytest.raises(TargetError):
        await target.put("f", b"ours")
    with pytest.raises(TargetExists):
        await target.put("g", b"ours", if_absent=True)


async def test_a_second_name_that_can_not_be_removed_is_a_leftover(mount, target):
    mount.faults(fail={"unlink": errno.EIO})
    await target.put("f", b"x", if_absent=True)
    await write(target, "g", [LentPart(bytes(PART))])
    mount.faults()
    assert [info.path async for info in target.list("")] == ["f", "g"]
    found = [left async for left in target.leftovers("")]
    assert sorted(left.path for left in found) == ["f", "g"]
    for left in found:
        await target.discard(left)
    assert left_at(mount) == ["f", "g"]


async def test_a_failed_fsync_is_never_repeated(mount, target):
    """The kernel may have dropped the pages: a second fsync would lie."""
    writer = await target.create("f")
    await writer.write(LentPart(bytes(PART)))
    mount.faults(fail={"fsync": errno.EIO})
    with pytest.raises(TargetError, match="i/o error"):
        await writer.commit()
    mount.faults()
    with pytest.raises(TargetError, match="its writer is failed"):
        await writer.commit()
    await writer.abort()
    await until(lambda: left_at(mount) == [])  # FUSE closes a file a little later


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None], ids=["INT", "TERM", "deadline"])
def test_the_command_line_with_a_hung_destination(mount, number):
    """A signal or its own deadline ends it although the destination does not answer: threads are left behind."""
    (mount.path / "dest").mkdir()
    mount.faults(hang=("*",))
    command = [sys.executable, "-m", "mover", "show", "sets", "--dest", f"file://{mount.path}/dest"]
    if number is None:
        command += ["--file-timeout", "1s"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not mount.hung("getattr"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        if number is not None:
            process.send_signal(number)
        # A thread inside FUSE ends with its server only (inside NFS with the process): the main one is gone by itself.
        while main_thread(process.pid) != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        mount.kill()
        assert process.wait(60) == (7 if number is None else 128 + number)
    finally:
        mount.kill()
        process.kill()
        process.wait()


def main_thread(pid):
    """The state of a process's first thread; Z = it has ended."""
    with open(f"/proc/{pid}/task/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0]
