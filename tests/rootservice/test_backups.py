"""Data backups: chains, refusals, what a rival or a dead one leaves, and ends that are no success."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from coordinator import restored, restored_blocks, session_on, small_and_fast, target_of  # noqa: F401 - the fixture
from memory_store import BLOCKS, PG, MemoryStore, linked_block, sstable_block

from mover.errors import Cancelled, IntegrityError, PreconditionError, StateError
from mover.events import Notice, Phase
from mover.media.backup_info import BackupStatus, begin_backup
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.remains import remains_of
from mover.repository.sets import load_infos, load_set, publish_infos
from mover.rootservice import archive, backup, job_views, views
from mover.rootservice.catalog_tables import backup_task
from mover.rootservice.session import Session
from mover.rootservice.views import SetView

pytestmark = pytest.mark.usefixtures("small_and_fast")


def a_store(**options: Any) -> MemoryStore:
    store = MemoryStore(**options)
    for _ in range(8):
        store.change()
    return store


async def back_up(session: Session, *, incremental: bool = True, stop: asyncio.Event | None = None) -> SetView:
    view = await backup.run(session, incremental=incremental, plan=False, stop=stop or asyncio.Event())
    assert isinstance(view, SetView)
    return view


async def archive_all(session: Session) -> None:
    await archive.run(session, until_caught_up=True, stop=asyncio.Event())


@pytest.mark.parametrize("compression", ["none", "auto", "zstd:3", "lz4"])
async def test_every_set_of_a_chain_restores_to_the_store_of_its_time(tmp_path: Path, compression: str) -> None:
    store = a_store(seed=5)
    images: dict[int, Any] = {}
    async with session_on(tmp_path, store, compression=compression) as session:
        await archive.start(session)
        for number in range(6):
            images[number + 1] = store.image()
            view = await back_up(session, incremental=number not in (0, 3))
            assert view.info.inc_backup_set_id == number + 1
            assert view.info.full_backup_set_id == (1 if number < 3 else 4)
            assert view.info.prev_inc_backup_set_id == (number if number not in (0, 3) else 0)
            store.change(2)
        assert (await validate(session.repository, ValidateRequest())).violations == []
        infos = await load_infos(session.repository)
        reused = 0
        for info in infos:
            loaded = await load_set(session.repository, info)
            assert {p.identity.block_index for p in loaded.placements} == set(images[info.inc_backup_set_id].blocks)
            reused += sum(p.backup_set_id != info.inc_backup_set_id for p in loaded.placements)
        assert reused > 20
        for number, image in images.items():
            into = tmp_path / f"into{number}"
            await restored(session, into, set_id=number, until_scn=image.end_scn)
            assert restored_blocks(into, BLOCKS) == image.blocks
            shutil.rmtree(into)


async def test_blocks_that_change_while_they_are_read_are_those_of_the_end(tmp_path: Path) -> None:
    store = a_store(seed=6)
    store.blocks[20] = old = sstable_block(1, 1, 1, b"old" * 300)
    store.blocks[21] = linked_block(b"first" * 200)
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await back_up(session)
        store.blocks[20] = sstable_block(1, 2, 1, b"new" * 300)

        def meanwhile() -> None:
            store.blocks[20] = old  # the very block the first set has
            store.blocks[21] = linked_block(b"second" * 200)
            store.blocks.pop(min(store.blocks))
            store.write_log(2)

        store.on_pass = meanwhile
        view = await back_up(session)
        loaded = await load_set(session.repository, view.info)
        assert loaded.by_index()[20].backup_set_id == 1
        await restored(session, tmp_path / "into")
        assert restored_blocks(tmp_path / "into", BLOCKS) == store.blocks


async def test_no_round_no_backup(tmp_path: Path) -> None:
    async with session_on(tmp_path, a_store()) as session:
        with pytest.raises(PreconditionError) as refused:
            await back_up(session)
        assert refused.value.code == -9040 and refused.value.exit_code == 4
        assert [info.path async for info in target_of(session).list("")] == []
        await archive.start(session)
        await archive.stop(session)
        with pytest.raises(PreconditionError, match="status : STOP"):
            await back_up(session)


async def test_a_second_backup_is_refused_while_one_runs(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session, session_on(tmp_path, store) as other:
        await archive.start(session)
        async with session.lease("backup"):
            with pytest.raises(PreconditionError) as refused:
                await back_up(other)
            assert refused.value.code == -9036


async def test_a_backup_whose_rival_took_it_for_dead_does_not_call_itself_complete(tmp_path: Path) -> None:
    """Two catalogs: the rival marks it FAILED before it removes a byte, so that it cannot finish."""
    store = a_store()
    async with session_on(tmp_path, store) as session, session_on(tmp_path, store, catalog="two") as rival:
        await archive.start(session)
        await archive_all(session)
        first: list[SetView] = []
        done = asyncio.Event()

        def meanwhile() -> None:
            store.on_pass = None
            done.set()

        store.on_pass = meanwhile
        running = asyncio.create_task(back_up(session))
        await done.wait()
        first.append(await back_up(rival))
        with pytest.raises(StateError, match="is not the last one"):
            await running
        infos = await load_infos(session.repository)
        assert [info.status for info in infos] == [BackupStatus.FAILED, BackupStatus.SUCCESS]
        await restored(rival, tmp_path / "into")
        assert restored_blocks(tmp_path / "into", BLOCKS) == store.blocks


async def test_files_of_a_failed_backup_are_removed_by_the_next_one_whatever_the_list_says(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        good = await back_up(session)
        dead = dataclasses.replace(good.info, inc_backup_set_id=2, status=BackupStatus.DOING, full_backup_set_id=2)
        infos = begin_backup(await load_infos(session.repository), dead)
        failed = dataclasses.replace(dead, status=BackupStatus.FAILED)
        await publish_infos(session.repository, (*infos[:-1], failed))
        layout = session.repository.layout
        for path in (
            layout.macro_block(1, 2, PG, 2, 0),
            layout.meta_file(1, 2, 2, 1),
            layout.macro_block_index(1, 2, PG, 2),
            layout.backup_set_info(1, 2),
        ):
            await target_of(session).put(path, b"remains")
        assert len(await remains_of(session.repository, failed)) == 4
        view = await back_up(session)
        assert (view.info.inc_backup_set_id, view.info.prev_inc_backup_set_id) == (3, 1)
        assert await remains_of(session.repository, failed) == []
        assert (await validate(session.repository, ValidateRequest())).ok


async def test_a_round_that_changed_meanwhile_fails_the_backup(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session, session_on(tmp_path, store) as other:
        await archive.start(session)
        await archive_all(session)

        async def next_round() -> None:
            await archive.stop(other)
            store.recycle(store.end_lsn)
            await archive.start(other)
            await archive_all(other)

        original = backup._wait_for_archive

        async def wait(*args: Any) -> bool:
            await next_round()
            return await original(*args)

        backup._wait_for_archive = wait  # type: ignore[assignment]
        try:
            with pytest.raises(StateError, match=r"begins at LSN|one round"):
                await back_up(session)
        finally:
            backup._wait_for_archive = original
        assert [info.status for info in await load_infos(session.repository)] == [BackupStatus.FAILED]
        assert (await views.sets(session)).rows[0]["restorable"] is False
        assert (await back_up(session)).restorable


async def test_a_set_is_not_restorable_while_the_archive_is_behind(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store, archive_wait=1.0) as session, session_on(tmp_path, store) as other:
        await archive.start(session)
        async with archive._archive_lease(other):  # an archiver that is at work, but slow
            view = await back_up(session)
        assert not view.restorable
        with pytest.raises(PreconditionError):
            await restored(session, tmp_path / "into")
        await archive_all(session)
        assert (await views.sets(session)).rows[0]["restorable"]
        await restored(session, tmp_path / "into")


@pytest.mark.parametrize("phase", ["blocks", "meta", "wait-archive"])
@pytest.mark.parametrize("how", ["signal", "command"])
async def test_cancelled_in_any_phase_nothing_of_it_is_left(tmp_path: Path, phase: str, how: str) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session, session_on(tmp_path, store) as other:
        await archive.start(session)
        await back_up(session)
        await archive_all(session)
        store.change()
        stop = asyncio.Event()
        asked: list[asyncio.Task[Any]] = []

        def emit(event: object) -> None:
            if isinstance(event, Phase) and event.job == "backup" and event.name == phase:
                if how == "signal":
                    stop.set()
                else:
                    asked.append(asyncio.ensure_future(backup.cancel(other.catalog, 1)))

        session.emit = emit
        before = {info.path async for info in target_of(session).list("")}
        if phase == "wait-archive":
            # Nobody can archive, so that the backup waits.
            async with archive._archive_lease(other):
                with pytest.raises(Cancelled):
                    await back_up(session, stop=stop)
        elif how == "signal":
            with pytest.raises(Cancelled):
                await back_up(session, stop=stop)
        else:
            try:  # a backup of milliseconds may be over before it looks
                await back_up(session, stop=stop)
                return
            except Cancelled:
                pass
        assert {info.path async for info in target_of(session).list("")} == before
        assert [info.status for info in await load_infos(session.repository)] == [
            BackupStatus.SUCCESS,
            BackupStatus.FAILED,
        ]
        assert (await session.catalog.rows(backup_task))[-1]["status"] == "FINISH"


async def test_a_dead_backup_neither_runs_nor_can_be_cancelled(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        row = {"tenant_id": 1, "backup_set_id": 77, "backup_type": "D", "status": "DOING", "owner_epoch": 1}
        async with session.catalog.begin() as connection:
            await connection.execute(backup_task.insert().values(**row, start_time=1))
        assert (await job_views.progress(session)).rows == ()
        with pytest.raises(PreconditionError, match="no backup of tenant 1 is running"):
            await backup.cancel(session.catalog, 1)
        await back_up(session)
        rows = {entry["bs_key"]: entry for entry in (await job_views.jobs(session)).rows}
        assert (rows[77]["status"], rows[1]["status"]) == ("FAILED", "COMPLETED")


async def test_an_incremental_on_bytes_that_are_gone_is_refused(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await back_up(session)
        path = session.repository.layout.macro_block(1, 1, PG, 1, 0)
        whole = await target_of(session).get(path)
        for damage in (whole[:-1], None):
            await target_of(session).delete(path)
            if damage is not None:
                await target_of(session).put(path, damage)
            with pytest.raises(IntegrityError, match=r"macro_block_1\.0") as refused:
                await back_up(session)
            assert "full" in (refused.value.hint or "")
        assert (await back_up(session, incremental=False)).restorable


async def test_one_damaged_manifest_hides_no_other_set(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)
        await back_up(session)
        image = store.image()
        store.change()
        second = await back_up(session)
        path = session.repository.layout.manifest(1, 1, second.info.inc_backup_set_id)
        data = bytearray(await target_of(session).get(path))
        data[70] ^= 1
        await target_of(session).put(path, bytes(data))
        rows = (await views.sets(session)).rows
        assert [row["restorable"] for row in rows] == [True, False] and "mover_manifest" in rows[1]["warnings"][0]
        with pytest.raises(IntegrityError, match="mover_manifest") as damage:
            await restored(session, tmp_path / "into")
        assert "--set" in (damage.value.hint or "")
        await restored(session, tmp_path / "into", set_id=1, until_scn=image.end_scn)
        assert restored_blocks(tmp_path / "into", BLOCKS) == image.blocks


async def test_a_complete_backup_stays_one_when_the_catalog_breaks_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mover.errors import UnreachableError
    from mover.rootservice.backup_task import BackupTask

    store = a_store()
    async with session_on(tmp_path, store) as session:
        await archive.start(session)

        async def broken(*_args: Any) -> None:
            raise UnreachableError("the catalog does not answer: disk full")

        monkeypatch.setattr(BackupTask, "finish", broken)
        view = await back_up(session)
        assert view.info.status == BackupStatus.SUCCESS
        events = session.emit.__self__  # type: ignore[attr-defined]
        assert any(isinstance(event, Notice) and "disk full" in event.message for event in events)


async def test_several_processes_write_the_same_set(tmp_path: Path) -> None:
    store = a_store(seed=9)
    async with session_on(tmp_path, store, processes=2, memory=64 << 20) as session:
        await archive.start(session)
        image = store.image()
        full = await back_up(session, incremental=False)
        assert full.as_json()["tuning"]["processes"] == 2
        store.change(2)
        changed = store.image()
        await back_up(session)
        assert (await validate(session.repository, ValidateRequest())).violations == []
        for set_id, expected in ((1, image), (2, changed)):
            into = tmp_path / f"restored{set_id}"
            await restored(session, into, set_id=set_id)
            assert restored_blocks(into, BLOCKS) == expected.blocks
