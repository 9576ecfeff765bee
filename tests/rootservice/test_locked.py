"""Backups to a bucket that locks what is written once: what is locked, and that what failed goes when it may."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from coordinator import restored, restored_blocks, session_on, small_and_fast  # noqa: F401
from memory_store import BLOCKS, MemoryStore
from oss_rules import LOCKING
from oss_server import oss_server

from mover.errors import MoverError
from mover.events import Notice
from mover.media.backup_info import BackupStatus
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.sets import load_infos
from mover.rootservice import archive, backup
from mover.rootservice.session import Session
from mover.rootservice.sweep import sweep

pytestmark = pytest.mark.usefixtures("small_and_fast")
DATE = "x-amz-object-lock-retain-until-date"


async def full(session: Session) -> None:
    await backup.run(session, incremental=False, plan=False, stop=asyncio.Event())


async def test_a_failed_set_stays_until_its_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(seed=5)
    for _ in range(8):
        store.change()
    with oss_server(LOCKING) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        dest = server.url("backup", object_lock="governance:3d", tags="kind=backup")
        on: dict[str, Any] = {"dest": dest, "memory": 64 << 20}
        async with session_on(tmp_path, store, faulty={"append": False}, **on) as session:
            await archive.start(session)
            await full(session)
            image = store.image()
        locked = {key for key, stored in server.objects.items() if DATE in stored.kept}
        free = set(server.objects) - locked
        assert any("macro_block_1.0" in key for key in locked) and any("manifest" in key for key in locked)
        assert any("/clog/" in key and "/data/" in key for key in locked)
        assert {key.rsplit("/", 1)[-1] for key in free} >= {"tenant_data_backup_info", "tenant_clog_backup_info"}
        assert all("x-amz-tagging" in stored.kept for stored in server.objects.values())
        hidden = {key for key, _ in server.buckets["mover"].hidden}
        assert hidden and not hidden & locked, "nothing that is locked is written twice"
        store.change(3)
        async with session_on(tmp_path, store, faulty={"die_at": 11, "append": False}, **on) as session:
            with pytest.raises(MoverError):
                await full(session)
        left = {key for key in server.objects if DATE in server.objects[key].kept} - locked
        assert left
        async with session_on(tmp_path, store, faulty={"append": False}, **on) as session:
            await full(session)
            told = [event for event in session.emit.__self__ if isinstance(event, Notice)]  # type: ignore[attr-defined]
            assert any("stays for now" in event.message and "locked" in event.message for event in told)
            assert [info.status for info in await load_infos(session.repository)] == [
                BackupStatus.SUCCESS,
                BackupStatus.FAILED,
                BackupStatus.SUCCESS,
            ]
            session.clock.us += 2 * 3600 * 1_000_000 + (10**15)  # type: ignore[attr-defined]
            report = await sweep(session, older_than=3600, plan=False)
            assert {f"backup/{path}" for path in report.locked} == left
            assert report.removals == ()
            assert left <= set(server.objects)
            assert {row["path"] for row in report.as_json()["locked"]} == set(report.locked)
            for key in left:
                server.objects[key].kept[DATE] = "2020-01-01T00:00:00Z"
            report = await sweep(session, older_than=3600, plan=False)
            assert {f"backup/{removal.path}" for removal in report.removals} == left
            assert not left & set(server.objects)
            assert not left & {key for key, _ in server.buckets["mover"].hidden}
            assert (await validate(session.repository, ValidateRequest())).violations == []
            await restored(session, tmp_path / "into", set_id=1)
            assert restored_blocks(tmp_path / "into", BLOCKS) == image.blocks
