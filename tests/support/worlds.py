"""A store with backups of it, copied for every case; and the jobs of a coordinator on it."""

from __future__ import annotations

import asyncio
import copy
import shutil
from pathlib import Path
from typing import Any

from coordinator import restored, restored_blocks, restored_log
from memory_store import BLOCKS, MemoryStore

from mover.rootservice import archive, backup
from mover.rootservice.session import Session
from mover.rootservice.views import SetView


async def archive_to_the_end(session: Session) -> None:
    await archive.run(session, until_caught_up=True, stop=asyncio.Event())


async def back_up(session: Session, *, incremental: bool) -> SetView:
    view = await backup.run(session, incremental=incremental, plan=False, stop=asyncio.Event())
    assert isinstance(view, SetView)
    assert view.restorable
    return view


async def assert_restores(session: Session, store: MemoryStore, into: Path, image: Any, **request: Any) -> None:
    """A restore gives exactly the blocks, files and log that the store had."""
    report = await restored(session, into, **request)
    assert restored_blocks(into, BLOCKS) == image.blocks
    for file in image.files:
        if file.path != "sstable/block_file":
            content = (into / "store" / file.path).read_bytes()
            for offset, data in file.extents:
                assert content[offset : offset + len(data)] == data
    with (into / "store/sstable/block_file").open("rb") as block_file:
        assert block_file.read(4096) == image.files[0].extents[0][1]
    start = report.point.set.start_lsn
    end = max(lsn for lsn, scn in store.group_ends if scn <= report.point.until_scn)
    log = restored_log(store, into, start)
    assert log[: end - start] == store.log_until(start, end)
    assert log[end - start :].strip(b"\0") == b""
    shutil.rmtree(into)


class World:
    """A store with a round and a full set, copied for every case."""

    def __init__(self, root: Path, store: MemoryStore) -> None:
        self.root = root
        self.store = store

    def copy(self, root: Path) -> World:
        shutil.copytree(self.root, root)
        return World(root, copy.deepcopy(self.store))
