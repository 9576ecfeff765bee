"""A coordinator that dies at any call to the destination: the next one goes on, and nothing that was there is lost."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from coordinator import (  # noqa: F401 - the fixture
    restored,
    restored_blocks,
    restored_log,
    session_on,
    small_and_fast,
    target_of,
)
from memory_store import FIRST_SCN, MemoryStore
from worlds import World, archive_to_the_end, assert_restores, back_up

from mover.encryption.given import key_sources
from mover.errors import MoverError
from mover.media.backup_info import BackupStatus
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.remains import remains_of
from mover.repository.sets import complete, load_infos, load_set
from mover.rootservice import archive
from mover.rootservice.round_views import archive_view
from mover.rootservice.session import Session

pytestmark = pytest.mark.usefixtures("small_and_fast")
SETTINGS: dict[str, Any] = {"compression": "auto"}


@pytest.fixture(autouse=True, params=["plain", pytest.param("encrypted", marks=pytest.mark.soak)])
def encryption(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "encrypted":
        (tmp_path / "key").write_bytes(bytes(32))
        monkeypatch.setitem(SETTINGS, "encrypt", "aes-256-gcm")
        monkeypatch.setitem(SETTINGS, "encrypt_key_file", tmp_path / "key")


async def make_world(root: Path, *, append: bool, sets: int) -> tuple[World, list[Any]]:
    root.mkdir()
    store = MemoryStore(seed=7)
    for _ in range(12):
        store.change()
    images = []
    async with session_on(root, store, faulty={"append": append}, **SETTINGS) as session:
        await archive.start(session)
        await archive_to_the_end(session)
        for number in range(sets):
            images.append(store.image())
            await back_up(session, incremental=number > 0)
            for _ in range(3):
                store.change()
    return World(root, store), images


async def calls_of(world: World, root: Path, append: bool, job: Any) -> list[str]:
    """The changing calls of a job that is left alone."""
    alone = world.copy(root)
    async with session_on(alone.root, alone.store, faulty={"append": append}, **SETTINGS) as session:
        await job(session)
        names = target_of(session).names
    shutil.rmtree(root)
    return names


async def check_tree(session: Session) -> None:
    """Everything validates, and no dead backup left anything behind."""
    secrets = key_sources(session.settings)
    report = await validate(session.repository, ValidateRequest(everything=True, key_sources=secrets))
    assert report.violations == []
    for info in await load_infos(session.repository):
        if info.status != BackupStatus.SUCCESS:
            assert info.status == BackupStatus.FAILED
            assert await remains_of(session.repository, info) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_backup_that_dies_at_any_call(tmp_path: Path, after: bool) -> None:
    world, images = await make_world(tmp_path / "world", append=True, sets=1)

    async def job(session: Session) -> None:
        await back_up(session, incremental=True)

    names = await calls_of(world, tmp_path / "alone", True, job)
    assert len(names) > 15
    for step, name in enumerate(names):
        case = world.copy(tmp_path / f"case{step}")
        async with session_on(case.root, case.store, faulty={"die_at": step, "after": after}, **SETTINGS) as session:
            try:
                await job(session)
            except MoverError:
                pass
            else:
                assert step >= len(names) - 1, name
        case.store.change()
        # Sometimes the catalog is lost with the host.
        catalog = "another" if step % 2 else "catalog"
        async with session_on(case.root, case.store, catalog=catalog, **SETTINGS) as session:
            sets = complete(await load_infos(session.repository))
            assert sets[0].inc_backup_set_id == 1
            for info in sets:
                await load_set(session.repository, info)
            image = case.store.image()
            view = await back_up(session, incremental=True)
            # A number that was announced is used up.
            assert view.info.inc_backup_set_id == 2 + (step > 0 or after)
            await check_tree(session)
            if step % 8 == 0:
                await assert_restores(
                    session, case.store, tmp_path / "into", images[0], set_id=1, until_scn=images[0].end_scn
                )
            if step % 4 == 1:
                await assert_restores(session, case.store, tmp_path / "into", image)
        shutil.rmtree(case.root)


@pytest.mark.parametrize("append", [True, False], ids=["append", "objects"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_an_archiver_that_dies_at_any_call(tmp_path: Path, append: bool, after: bool) -> None:
    world, _ = await make_world(tmp_path / "world", append=append, sets=1)
    # Enough turns for files, index records and appends.
    step = 0
    while True:
        case = world.copy(tmp_path / f"case{step}")
        died = False
        async with session_on(
            case.root, case.store, faulty={"die_at": step, "after": after, "append": append}, **SETTINGS
        ) as session:
            try:
                for _ in range(3):
                    case.store.write_log(40)
                    await archive_to_the_end(session)
            except MoverError:
                died = True
            published = (await _record(case, append)).checkpoint_lsn
        case.store.write_log(3)
        async with session_on(
            case.root, case.store, faulty={"append": append}, catalog="another" if step % 2 else "catalog", **SETTINGS
        ) as session:
            view = await archive.run(session, until_caught_up=True, stop=asyncio.Event())
            assert view.record is not None
            assert view.record.checkpoint_lsn == case.store.end_lsn >= published
            await check_tree(session)
            if step % 3 == 0:
                await restored(session, tmp_path / "into")
                log = restored_log(case.store, tmp_path / "into", 0)
                assert log[: case.store.end_lsn] == case.store.log_until(0, case.store.end_lsn)
                shutil.rmtree(tmp_path / "into")
        shutil.rmtree(case.root)
        if not died:
            break
        step += 1
    assert step > 10


async def _record(world: World, append: bool) -> Any:
    """The round record as a fresh look at the destination finds it."""
    async with session_on(world.root, None, faulty={"append": append}) as session:
        views = (await archive_view(session)).rounds
        assert views[-1].record is not None
        return views[-1].record


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_start_that_dies_at_any_call(tmp_path: Path, after: bool) -> None:
    step = 0
    while True:
        root = tmp_path / f"case{step}"
        root.mkdir()
        store = MemoryStore()
        store.change()
        died = False
        async with session_on(root, store, faulty={"die_at": step, "after": after}, **SETTINGS) as session:
            try:
                await archive.start(session)
            except MoverError:
                died = True
        if not died:
            break
        async with session_on(root, store, **SETTINGS) as session:
            rounds = (await archive_view(session)).rounds
            if not rounds or rounds[-1].status != "DOING":
                view = await archive.start(session)
                assert view.info.round_id == len(rounds) + 1
            await archive_to_the_end(session)
            await back_up(session, incremental=True)
            await check_tree(session)
            await assert_restores(session, store, root / "into", store.image())
        step += 1
    assert step > 6


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_stop_that_dies_at_any_call(tmp_path: Path, after: bool) -> None:
    world, images = await make_world(tmp_path / "world", append=True, sets=1)
    step = 0
    while True:
        case = world.copy(tmp_path / f"case{step}")
        died = False
        async with session_on(case.root, case.store, faulty={"die_at": step, "after": after}, **SETTINGS) as session:
            try:
                await archive.stop(session)
            except MoverError:
                died = True
        async with session_on(case.root, case.store, **SETTINGS) as session:
            if (await archive_view(session)).rounds[-1].status != "STOP":
                assert (await archive.stop(session)).status == "STOP"
            await archive.start(session)
            await archive_to_the_end(session)
            await check_tree(session)
            await assert_restores(
                session, case.store, tmp_path / "into", images[0], set_id=1, until_scn=images[0].end_scn
            )
        if not died:
            break
        step += 1
    assert step >= 5


async def test_scns_are_times(tmp_path: Path) -> None:
    world, images = await make_world(tmp_path / "world", append=True, sets=2)
    assert FIRST_SCN < images[0].end_scn < images[1].end_scn <= world.store.scn
