"""Sweep: what a crash leaves is removed, what was published stays, what is too young is left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from coordinator import restored, restored_blocks, session_on, small_and_fast  # noqa: F401 - the fixture
from hypothesis import given
from hypothesis import strategies as st
from memory_store import BLOCKS, PG, MemoryStore

from mover.errors import ConfigError, MoverError, PreconditionError
from mover.media.layout import Layout
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.sets import load_infos
from mover.rootservice import archive, backup
from mover.rootservice.session import Session
from mover.rootservice.sweep import plan_sweep, sweep
from mover.target.base import BytesPart, Leftover

pytestmark = pytest.mark.usefixtures("small_and_fast")
LAYOUT = Layout("seekdb", 1)
HOUR = 3600.0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=30), st.integers(0, 100))
def test_only_old_writes_of_backups_are_removed(found: list[tuple[bool, int]], before: int) -> None:
    ours = LAYOUT.tenant_info()
    leftovers = [
        Leftover(ours if own else f"somebody/{begun}", f"id{number}", "multipart upload", begun)
        for number, (own, begun) in enumerate(found)
    ]
    report = plan_sweep(LAYOUT, leftovers, {}, before)
    assert {removal.leftover for removal in report.removals} == {
        left for left in leftovers if left.path == ours and left.begun_us < before
    }
    assert len(report.removals) + report.kept + report.foreign == len(leftovers)
    assert report.foreign == sum(not own for own, _ in found)


@asynccontextmanager
async def session_now(*args: Any, **options: Any) -> AsyncIterator[Session]:
    """A session whose clock is that of the files' times."""
    async with session_on(*args, **options) as session:
        session.clock.us = time.time_ns() // 1000  # type: ignore[attr-defined]
        yield session


async def files_of(session: Session) -> list[str]:
    return [info.path async for info in session.repository.target.list("")]


async def unfinished(session: Session) -> list[str]:
    return [left.path async for left in session.repository.target.leftovers("")]


async def full(session: Session) -> None:
    await backup.run(session, incremental=False, plan=False, stop=asyncio.Event())


@pytest.mark.parametrize("dies_at", range(3, 40, 6))
async def test_after_a_crash_exactly_what_was_published_is_left(tmp_path: Path, dies_at: int) -> None:
    store = MemoryStore(seed=3)
    for _ in range(8):
        store.change()
    async with session_now(tmp_path, store) as session:
        await archive.start(session)
        await full(session)
        published = await files_of(session)
        image = store.image()
        store.change(3)
    async with session_now(tmp_path, store, faulty={"die_at": dies_at}) as session:
        with pytest.raises(MoverError):
            await full(session)
    async with session_now(tmp_path, store) as session:
        target, clock = session.repository.target, session.clock
        writer = await target.create(LAYOUT.macro_block(1, 1, PG, 99, 0))
        await writer.write(BytesPart(bytes(8192)))
        plan = await sweep(session, older_than=HOUR, plan=True)
        assert plan.removals == () and plan.kept >= 1, "all of it is young"
        before = await files_of(session)
        clock.us += round(2 * HOUR * 1e6)  # type: ignore[attr-defined]
        plan = await sweep(session, older_than=HOUR, plan=True)
        assert await files_of(session) == before, "a plan removes nothing"
        done = await sweep(session, older_than=HOUR, plan=False)
        assert [removal.path for removal in done.removals] == [removal.path for removal in plan.removals]
        assert all(removal.why for removal in done.removals)
        assert await unfinished(session) == []
        left = set(await files_of(session))
        assert set(published) <= left
        # It may have died behind the record that publishes it.
        good = {info.inc_backup_set_id for info in await load_infos(session.repository) if info.status == 0}
        assert bool([path for path in left - set(published) if "backup_set_2" in path]) == (2 in good)
        assert (await sweep(session, older_than=HOUR, plan=False)).removals == ()
        assert (await validate(session.repository, ValidateRequest())).violations == []
        await writer.abort()
        await restored(session, tmp_path / "into", set_id=1)
        assert restored_blocks(tmp_path / "into", BLOCKS) == image.blocks
        # And the next backup is none the worse for it.
        await full(session)
        assert (await validate(session.repository, ValidateRequest())).violations == []
        assert [info.status for info in await load_infos(session.repository)][-1] == 0


async def test_refused_while_a_backup_runs(tmp_path: Path) -> None:
    async with session_on(tmp_path, MemoryStore(seed=1)) as session, session.lease("backup"):
        with pytest.raises(PreconditionError) as refused:
            await sweep(session, older_than=HOUR, plan=False)
        assert refused.value.code == -9036


async def test_an_age_that_leaves_nobody_time_to_write(tmp_path: Path) -> None:
    async with session_on(tmp_path, MemoryStore(seed=1)) as session:
        with pytest.raises(ConfigError, match="older-than"):
            await sweep(session, older_than=5, plan=False)
