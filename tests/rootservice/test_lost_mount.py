"""A mount that goes away under a job: an error within seconds, and not one byte on the disk behind it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinator import restored, session_on, small_and_fast  # noqa: F401 - the fixture
from fuse_mount import FuseMount, fuse_mount
from memory_store import MemoryStore
from mover_process import Mover
from worlds import archive_to_the_end, back_up

from mover.errors import OB_MOUNT_FILE_NOT_VALID, MountError
from mover.rootservice import archive
from mover.rootservice.session import Session

pytestmark = pytest.mark.usefixtures("small_and_fast")
SECONDS = 20.0  # on a machine that has other things to do


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[FuseMount]:
    """With the directory of the destination below it, empty: what NFS leaves when it is gone."""
    with fuse_mount(tmp_path, below="dest") as mounted:
        yield mounted


async def make(root: Path, store: MemoryStore, dest: str) -> None:
    for _ in range(12):
        store.change()
    async with session_on(root, store, dest=dest) as session:
        await archive.start(session)
        await archive_to_the_end(session)
        await back_up(session, incremental=False)
    store.change()


async def unmounted_in_the_middle(mount: FuseMount, job: Awaitable[Any], *, behind: int) -> MountError:
    """What the job says when the mount goes away after so many operations."""
    running = asyncio.ensure_future(job)
    while mount.counted()[0] < behind:
        assert not running.done(), f"it ended after {mount.counted()[0]} operations"
        await asyncio.sleep(0)
    mount.unmount()
    began = time.monotonic()
    with pytest.raises(MountError) as lost:
        await asyncio.wait_for(running, SECONDS)
    assert time.monotonic() - began < SECONDS
    assert (lost.value.exit_code, lost.value.code) == (7, OB_MOUNT_FILE_NOT_VALID)
    assert left_behind(mount) == []
    return lost.value


def left_behind(mount: FuseMount) -> list[str]:
    return [name for _, directories, names in os.walk(mount.path / "dest") for name in directories + names]


async def an_incremental(session: Session, _store: MemoryStore, _into: Path) -> None:
    await back_up(session, incremental=True)


async def archiving(session: Session, store: MemoryStore, _into: Path) -> None:
    async def changes() -> None:
        while True:
            store.write_log()
            await asyncio.sleep(0.01)

    writing = asyncio.ensure_future(changes())
    try:
        await archive.run(session, until_caught_up=False, stop=asyncio.Event())
    finally:
        writing.cancel()


async def a_restore(session: Session, _store: MemoryStore, into: Path) -> None:
    try:
        await restored(session, into)
    except MountError:
        assert not (into / "store").exists(), "what has the name of a store is one"
        raise


@pytest.mark.parametrize("job", [an_incremental, archiving, a_restore])
@pytest.mark.parametrize("part", [0.1, 0.6])
async def test_a_job_whose_mount_goes_away(
    tmp_path: Path, mount: FuseMount, job: Callable[..., Awaitable[None]], part: float
) -> None:
    store, dest = MemoryStore(seed=5), (mount.path / "dest").as_uri()
    await make(tmp_path, store, dest)
    async with session_on(tmp_path, store, dest=dest) as session:
        if job is archiving:
            total = 200
        else:
            mount.plan(at=None)
            await job(session, store, tmp_path / "alone")
            total = mount.counted()[0]
        for _ in range(6):
            store.change()
        mount.plan(at=None)
        await unmounted_in_the_middle(mount, job(session, store, tmp_path / "into"), behind=round(total * part))


@pytest.mark.parametrize("command", [("validate",), ("restore", "--target", "into")], ids=["validate", "restore"])
async def test_the_command_line_ends_with_7(tmp_path: Path, mount: FuseMount, command: tuple[str, ...]) -> None:
    dest = (mount.path / "dest").as_uri()
    await make(tmp_path, MemoryStore(seed=5), dest)
    mover = Mover(tmp_path, {"dest": dest})
    mount.faults(hang=("read",))
    words = [str(tmp_path / word) if word == "into" else word for word in command]
    running = asyncio.ensure_future(mover.run(*words, seconds=120))
    while not mount.hung("read"):
        assert not running.done()
        await asyncio.sleep(0.005)
    mount.unmount()
    mount.faults()
    ran = await running
    assert ran.code == 7, str(ran)
    assert (ran.error["kind"], ran.error["code"]) == ("MountError", OB_MOUNT_FILE_NOT_VALID)
    assert left_behind(mount) == []
