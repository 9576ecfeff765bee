"""A backup that was interrupted is gone on with: what is at the destination is not copied again, and is right."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from coordinator import (  # noqa: F401 - the fixture
    restored,
    restored_blocks,
    session_on,
    small_and_fast,
    target_of,
)
from hypothesis import given
from hypothesis import strategies as st
from memory_store import BLOCKS, MemoryStore, sstable_block

from mover.errors import MoverError, PreconditionError, StateError, UnreachableError
from mover.media.backup_info import BackupStatus, finish_backup, resume_backup
from mover.media.layout import FileKind
from mover.media.written import Written, WrittenBlock
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.remains import remains_of
from mover.repository.sets import load_infos, load_set
from mover.rootservice import archive, backup
from mover.rootservice.backup import BackupPaused
from mover.rootservice.backup_decision import BackupPlan
from mover.rootservice.schedule import Window
from mover.rootservice.session import Session
from mover.rootservice.sweep import sweep
from mover.rootservice.views import SetView

pytestmark = pytest.mark.usefixtures("small_and_fast")
PER_FILE = 2
# As the coordinator's tests have it, a part holds one block, and a file few.
SMALL = {"compression": "none", "workers": 1, "concurrency": 1, "part_size": 1 << 20, "lease_ttl": 1e6}


@pytest.fixture(autouse=True)
def few_blocks_per_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from mover.datapath.packer import MacroFiles

    monkeypatch.setattr(
        MacroFiles.__init__, "__kwdefaults__", {**MacroFiles.__init__.__kwdefaults__, "blocks_per_file": PER_FILE}
    )


def a_store(blocks: int = 30) -> MemoryStore:
    store = MemoryStore(seed=3)
    store.change()
    for index in range(2, 2 + blocks):
        store.blocks[index] = sstable_block(index, 1, 1, bytes([index]) * 3_000)
    return store


async def back_up(session: Session, *, incremental: bool | None = False, plan: bool = False) -> Any:
    return await backup.run(session, incremental=incremental, plan=plan, stop=asyncio.Event())


async def lists_of(session: Session) -> list[str]:
    layout = session.repository.layout
    found = [info.path async for info in target_of(session).list("")]
    return [path for path in found if (parsed := layout.parse(path)) and parsed.kind is FileKind.WRITTEN]


async def died_in_the_middle(root: Path, store: MemoryStore) -> int:
    """A full backup whose process dies after some macro files; how many blocks their lists have."""
    async with session_on(root, store, **SMALL) as session:
        await archive.start(session)
        await archive.run(session, until_caught_up=True, stop=asyncio.Event())
    # A few calls per file: in the middle of the blocks.
    async with session_on(root, store, faulty={"die_at": 30}, **SMALL) as session:
        with pytest.raises(MoverError):
            await back_up(session)
    async with session_on(root, store, **SMALL) as session:
        assert (await load_infos(session.repository))[-1].status == BackupStatus.DOING
        blocks = [Written.decode(await target_of(session).get(path)).blocks for path in await lists_of(session)]
        assert 0 < sum(map(len, blocks)) < len(store.blocks)
        return sum(map(len, blocks))


async def check(session: Session, into: Path, store: MemoryStore) -> None:
    report = await validate(session.repository, ValidateRequest(everything=True))
    assert report.violations == []
    await restored(session, into)
    assert restored_blocks(into, BLOCKS) == store.blocks


async def test_a_dead_backup_is_gone_on_with_and_copies_the_rest_only(tmp_path: Path) -> None:
    store = a_store()
    there = await died_in_the_middle(tmp_path, store)
    store.blocks[5] = sstable_block(5, 9, 1, b"changed since" * 200)
    store.change()
    async with session_on(tmp_path, store, **SMALL) as session:
        (dead,) = await load_infos(session.repository)
        assert dead.status == BackupStatus.DOING
        plan = await back_up(session, plan=True)
        assert isinstance(plan, BackupPlan) and plan.backup_set_id == 1 and f"{there} blocks" in plan.reason
        view = await back_up(session)
        assert isinstance(view, SetView) and view.info.inc_backup_set_id == 1
        loaded = await load_set(session.repository, view.info)
        reused = sum(placement.sub_task_id < 1024 for placement in loaded.placements)
        assert there - 3 <= reused <= there, "all that was there and did not change"
        assert await lists_of(session) == []
        await check(session, tmp_path / "into", store)
        later = await back_up(session, incremental=True)
        assert later.info.inc_backup_set_id == 2 and later.info.prev_inc_backup_set_id == 1


async def test_dead_again_and_again_it_ends_right(tmp_path: Path) -> None:
    store = a_store()
    await died_in_the_middle(tmp_path, store)
    async with session_on(tmp_path, store, **SMALL) as session:
        before = len(await lists_of(session))
    async with session_on(tmp_path, store, faulty={"die_at": 26}, **SMALL) as session:
        with pytest.raises(MoverError):
            await back_up(session)
    async with session_on(tmp_path, store, **SMALL) as session:
        assert len(await lists_of(session)) > before
        view = await back_up(session, incremental=None)
        assert view.info.inc_backup_set_id == 1
        await check(session, tmp_path / "into", store)


async def test_what_is_torn_or_gone_is_copied_again(tmp_path: Path) -> None:
    store = a_store()
    await died_in_the_middle(tmp_path, store)
    async with session_on(tmp_path, store, **SMALL) as session:
        target, (first, second, *_) = target_of(session), await lists_of(session)
        await target.put(first, (await target.get(first))[:-5000])
        record = Written.decode(await target.get(second))
        layout = session.repository.layout
        pg = (await session.store.identity()).pg
        await target.delete(layout.macro_block(1, 1, pg, 1, record.sub))
        view = await back_up(session)
        loaded = await load_set(session.repository, view.info)
        assert record.sub not in {placement.sub_task_id for placement in loaded.placements}
        await check(session, tmp_path / "into", store)


async def test_another_compression_begins_again(tmp_path: Path) -> None:
    store = a_store()
    await died_in_the_middle(tmp_path, store)
    async with session_on(tmp_path, store, **{**SMALL, "compression": "zstd:1"}) as session:
        view = await back_up(session)
        assert view.info.inc_backup_set_id == 2
        dead = (await load_infos(session.repository))[0]
        assert dead.status == BackupStatus.FAILED and await remains_of(session.repository, dead) == []
        await check(session, tmp_path / "into", store)


async def test_nothing_to_resume_is_refused(tmp_path: Path) -> None:
    async with session_on(tmp_path, a_store(), **SMALL) as session:
        await archive.start(session)
        with pytest.raises(PreconditionError) as refused:
            await back_up(session, incremental=None)
        assert refused.value.exit_code == 4


async def test_who_only_seemed_dead_cannot_finish_what_another_goes_on_with(tmp_path: Path) -> None:
    store = a_store()
    await died_in_the_middle(tmp_path, store)
    async with session_on(tmp_path, store, **SMALL) as session:
        infos = await load_infos(session.repository)
        view = await back_up(session)
        done = [view.info]
        for status in (BackupStatus.SUCCESS, BackupStatus.FAILED):
            with pytest.raises(StateError):
                finish_backup(await load_infos(session.repository), replace(infos[-1], status=status))
            assert await load_infos(session.repository) == tuple(done)
        with pytest.raises(StateError):
            resume_backup(infos, infos[-1])
        with pytest.raises(StateError):
            resume_backup(await load_infos(session.repository), infos[-1])


async def test_a_destination_that_was_away_costs_only_the_rest(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store, **SMALL) as session:
        await archive.start(session)
        target = target_of(session)
        create, files = target.create, 0

        async def away(*args: Any, **kwargs: Any) -> Any:
            nonlocal files
            files += 1
            if files > 4:
                raise UnreachableError("the mount is gone")
            return await create(*args, **kwargs)

        target.create = away  # type: ignore[method-assign]
        with pytest.raises(UnreachableError):
            await back_up(session)
        target.create = create  # type: ignore[method-assign]
        assert (await load_infos(session.repository))[-1].status == BackupStatus.DOING
        view = await back_up(session)
        assert view.info.inc_backup_set_id == 1
        await check(session, tmp_path / "into", store)


async def test_the_window_stops_it_and_the_next_one_goes_on(tmp_path: Path) -> None:
    store = a_store()
    async with session_on(tmp_path, store, **SMALL) as session:
        await archive.start(session)
        now = datetime.fromtimestamp(session.clock.now_us() / 1e6)
        begin, end = (f"{(now.hour + hours) % 24:02}:00" for hours in (0, 1))
        session.settings = replace(session.settings, window=f"{begin}-{end}")
        clock: Any = session.clock

        def late() -> None:
            clock.us += 3_600_000_000

        store.on_pass = late
        paused = await back_up(session)
        assert isinstance(paused, BackupPaused) and paused.as_json()["status"] == "RUNNING"
        assert not paused.restorable
        assert (await load_infos(session.repository))[-1].status == BackupStatus.DOING
        store.on_pass = None
        with pytest.raises(PreconditionError, match="backups may run at"):
            await back_up(session)
        session.settings = replace(session.settings, window=None)
        view = await back_up(session, incremental=None)
        assert view.info.inc_backup_set_id == 1
        await check(session, tmp_path / "into", store)


async def test_sweep_takes_an_interrupted_backup_away_and_lists_that_outlived_theirs(tmp_path: Path) -> None:
    store = a_store()
    await died_in_the_middle(tmp_path, store)
    async with session_on(tmp_path, store, **SMALL) as session:
        session.clock.us += 7_200_000_000  # type: ignore[attr-defined]
        report = await sweep(session, older_than=3600, plan=False)
        assert report.removals and await lists_of(session) == []
        (dead,) = await load_infos(session.repository)
        assert dead.status == BackupStatus.FAILED and await remains_of(session.repository, dead) == []
        view = await back_up(session)
        layout = session.repository.layout
        pg = (await session.store.identity()).pg
        stray = layout.written(1, view.info.full_backup_set_id, view.info.inc_backup_set_id, pg, 7)
        await target_of(session).put(stray, b"died before it was removed")
        session.clock.us += 7_200_000_000  # type: ignore[attr-defined]
        report = await sweep(session, older_than=3600, plan=False)
        assert [removal.path for removal in report.removals] == [stray]
        assert await lists_of(session) == []
        await check(session, tmp_path / "into", store)


@given(
    st.builds(
        Written,
        *(st.integers(0, 1 << 20), st.integers(0, 1 << 40), st.binary(min_size=16, max_size=16)),
        *(st.sampled_from(["none", "auto", "zstd:3"]), st.sampled_from(["", "0123456789abcdef"])),
        st.lists(
            st.builds(
                WrittenBlock,
                *([st.integers(0, (1 << 64) - 1)] * 5),
                st.integers(-(1 << 63), (1 << 63) - 1),
                st.integers(0, (1 << 64) - 1),
                st.binary(min_size=16, max_size=16),
                *([st.integers(0, 1 << 40)] * 2),
            ),
            max_size=5,
        ).map(tuple),
    )
)
def test_lists_come_back(record: Written) -> None:
    assert Written.decode(record.encode()) == record


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 10 * 1440))
def test_a_window_ends_at_its_end(begin: int, end: int, minute: int) -> None:
    if begin == end:
        return
    window = Window(begin, end)
    assert Window.parse(str(window)) == window
    start = datetime(2026, 1, 5)  # no change of the clock near it, whatever the zone
    now_us = int(start.timestamp() * 1e6) + minute * 60_000_000
    of_day = minute % 1440
    inside = begin <= of_day < end if begin < end else of_day >= begin or of_day < end
    found = window.end_after(now_us)
    assert (found is not None) == inside
    if found is not None:
        assert 0 < found - now_us <= 86_400_000_000
        assert (found - int(start.timestamp() * 1e6)) // 60_000_000 % 1440 == end
