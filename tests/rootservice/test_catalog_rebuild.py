"""A catalog rebuilt from the destination says what the lost one said."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from coordinator import session_on
from memory_store import MemoryStore

from mover.errors import Cancelled, PreconditionError
from mover.rootservice import archive, backup
from mover.rootservice.catalog_rebuild import rebuild
from mover.rootservice.catalog_tables import archive_round, backup_task, pg_task
from mover.rootservice.session import Session

# Only the lost catalog knew: whose the row was, when exactly its last transaction was, who carried the task out, why.
FORGOTTEN = {"owner_epoch", "end_time", "updated_us", "lag_us", "server", "comment", "result", "retry_count"}
# Of a backup that failed, how far it was.
PROGRESS = {column.name for column in backup_task.columns if column.name.endswith(("_count", "_bytes"))}


def a_store() -> MemoryStore:
    store = MemoryStore()
    for _ in range(8):
        store.change()
    return store


async def back_up(session: Session, *, incremental: bool, stop: asyncio.Event | None = None) -> None:
    await backup.run(session, incremental=incremental, plan=False, stop=stop or asyncio.Event())


async def known(session: Session) -> list[Mapping[str, Any]]:
    rows = []
    for table in (backup_task, pg_task, archive_round):
        for row in await session.catalog.rows(table):
            failed = row.get("result", 0) != 0
            if failed and table is pg_task:
                continue  # the destination names no PG of a set that never was
            forgotten = FORGOTTEN | PROGRESS if failed else FORGOTTEN
            rows.append({name: value for name, value in row.items() if name not in forgotten})
    return rows


async def test_a_lost_catalog_is_known_again_from_the_destination_alone(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await back_up(session, incremental=False)
        stop = asyncio.Event()
        store.on_pass = stop.set
        with pytest.raises(Cancelled):
            await back_up(session, incremental=False, stop=stop)
        store.on_pass = None
        store.write_log(3)
        await back_up(session, incremental=True)
        await archive.stop(session)
        before = await known(session)
        assert len(before) >= 5
    async with session_on(tmp_path, None, catalog="new") as session:
        found = await rebuild(session)
        assert (found.tenants, found.backups, found.rounds, found.unreadable) == (1, 3, 1, ())
        assert await known(session) == before
        assert await rebuild(session) == found
        assert await known(session) == before


async def test_it_is_refused_while_a_backup_runs(tmp_path: Path) -> None:
    async with session_on(tmp_path, a_store()) as session, session_on(tmp_path, None) as other:
        await archive.start(session)
        async with session.lease("backup"):
            with pytest.raises(PreconditionError) as refused:
                await rebuild(other)
        assert refused.value.code == -9036
