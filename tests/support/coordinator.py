"""A session of the coordinator on a store in memory and a destination in a temporary directory."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faulty_target import FaultyTarget
from memory_store import MemoryStore

from mover.config import Settings
from mover.encryption.given import key_sources
from mover.events import Event
from mover.media.layout import Layout
from mover.recovery.restore import RestoreReport, RestoreRequest, restore
from mover.repository.keys import load_keys
from mover.repository.tree import Repository
from mover.rootservice.catalog import Catalog
from mover.rootservice.session import Session
from mover.store.base import MACRO_BLOCK_SIZE, Store
from mover.target.url import open_target

SMALL_BLOCK = 8 << 10


@pytest.fixture
def small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log files of the size of MemoryStore's, and no waiting for disks: what is tested here is order, not fsync."""
    monkeypatch.setattr("mover.store.seekdb.rebuild.PALF_FILE_BYTES", MemoryStore.palf_file)
    monkeypatch.setattr("mover.store.seekdb.rebuild._PALF_FILE_SIZE", MemoryStore.palf_file + 4096)
    monkeypatch.setattr("os.fsync", lambda fd: None)
    monkeypatch.setattr("os.fdatasync", lambda fd: None)
    monkeypatch.setattr("mover.rootservice.catalog._set_sqlite_pragmas", _lazy_sqlite)


def _lazy_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.execute("PRAGMA journal_mode=MEMORY")
    cursor.close()


class SteppingClock:
    """Sleeping takes no time but moves the clock; other tasks run meanwhile."""

    def __init__(self) -> None:
        self.us = 1_800_000_000_000_000

    def now_us(self) -> int:
        self.us += 1
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6

    async def sleep(self, seconds: float) -> None:
        # A lease renews every few seconds of this clock: it must not run ahead of those who work.
        if seconds >= 1:
            await asyncio.sleep(seconds)
        else:
            self.us += int(seconds * 1e6)
            await asyncio.sleep(0)


@asynccontextmanager
async def session_on(
    root: Path,
    store: Store | None,
    *,
    faulty: dict[str, Any] | None = None,
    catalog: str = "catalog",
    dest: str | None = None,
    **settings: Any,
) -> AsyncIterator[Session]:
    """A session on ``dest`` (``root/dest``), its catalog in ``root/<catalog>.db``; ``session.events`` collects."""
    inner = await open_target(dest or f"file://{root}/dest", retry_for=settings.get("retry_for"))
    target = FaultyTarget(inner, **(faulty or {}))
    clock = SteppingClock()
    opened = await Catalog.open(f"sqlite+aiosqlite:///{root / catalog}.db", clock)
    chosen = {"dest": inner.url, "state_dir": root, "memory": 32 << 20, "workers": 2, "concurrency": 2, **settings}
    chosen.setdefault("flush_interval", 0.01)
    chosen.setdefault("lease_ttl", 3600.0)  # of a clock that runs ahead
    events: list[Event] = []
    repository = Repository(target, Layout("seekdb", 1), 1)
    try:
        made = Settings(**chosen)
        keys = await load_keys(Repository(inner, repository.layout, 1), key_sources(made))
        yield Session(
            settings=made,
            repository=dataclasses.replace(repository, keys=keys),
            maybe_catalog=opened,
            clock=clock,
            emit=events.append,
            maybe_store=store,
        )
    finally:
        await opened.aclose()
        await target.aclose()


def target_of(session: Session) -> FaultyTarget:
    target = session.repository.target
    assert isinstance(target, FaultyTarget)
    return target


async def restored(session: Session, into: Path, **request: Any) -> RestoreReport:
    return await restore(session.repository, RestoreRequest(target=into, **request))


def restored_blocks(into: Path, count: int) -> dict[int, bytes]:
    """Every block of a restored block_file but the two superblocks, without trailing zeros."""
    path = into / "store/sstable/block_file"
    size = path.stat()
    assert size.st_size == count * MACRO_BLOCK_SIZE
    # The blocks of a MemoryStore are small; all else must be a hole, and holes need not be read.
    assert size.st_blocks * 512 <= count * (SMALL_BLOCK + 4096)
    found = {}
    with path.open("rb") as file:
        for index in range(2, count):
            if block := os.pread(file.fileno(), SMALL_BLOCK, index * MACRO_BLOCK_SIZE).rstrip(b"\0"):
                found[index] = block
    return found


def restored_log(store: MemoryStore, into: Path, start_lsn: int) -> bytes:
    """The log bytes of a restored store from ``start_lsn`` on, as the engine would read them."""
    found = b""
    directory = into / "store/redo/sys/log_stream/log"
    for file_id in sorted(int(path.name) for path in directory.iterdir()):
        page = (directory / str(file_id)).read_bytes()[4096:]
        assert len(page) == store.palf_file
        found += page
    first = min(int(path.name) for path in directory.iterdir()) * store.palf_file
    assert first <= start_lsn
    return found[start_lsn - first :]
