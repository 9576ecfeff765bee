"""Whole jobs on a destination where one request in twenty goes wrong: nothing is lost and nothing is made up."""

from __future__ import annotations

import asyncio
import copy
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from coordinator import restored, restored_blocks, restored_log, session_on, small_and_fast  # noqa: F401
from memory_store import BLOCKS, MemoryStore

from mover.recovery.validate import ValidateRequest, validate
from mover.rootservice import archive, backup
from mover.rootservice.session import Session
from mover.rootservice.views import SetView

pytestmark = pytest.mark.usefixtures("small_and_fast")
FAULTS = 0.05
FIRST = int(os.environ.get("CHAOS_FIRST", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("CHAOS_SEEDS", "1")))


async def archive_to_the_end(session: Session) -> None:
    await archive.run(session, until_caught_up=True, stop=asyncio.Event())


async def back_up(session: Session, *, incremental: bool) -> SetView:
    view = await backup.run(session, incremental=incremental, plan=False, stop=asyncio.Event())
    assert isinstance(view, SetView) and view.restorable
    return view


async def assert_restores(session: Session, store: MemoryStore, into: Path, image: Any, **request: Any) -> None:
    report = await restored(session, into, **request)
    assert restored_blocks(into, BLOCKS) == image.blocks
    start = report.point.set.start_lsn
    end = max(lsn for lsn, scn in store.group_ends if scn <= report.point.until_scn)
    log = restored_log(store, into, start)
    assert log[: end - start] == store.log_until(start, end)
    assert log[end - start :].strip(b"\0") == b""
    shutil.rmtree(into)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("server", ["weed", "rclone"])
async def test_everything_restores(behind: Any, tmp_path: Path, server: str, seed: int) -> None:
    store = MemoryStore(seed=seed)
    for _ in range(12):
        store.change()
    images = []
    async with behind(server, seed, FAULTS) as (proxy, url):
        dest = url(f"jobs/{seed}")
        async with session_on(tmp_path, store, dest=dest, faulty={"append": False}, memory=64 << 20) as session:
            await archive.start(session)
            await archive_to_the_end(session)
            for number in range(2):
                images.append(copy.deepcopy(store.image()))
                await back_up(session, incremental=number > 0)
                for _ in range(3):
                    store.change()
                    await archive_to_the_end(session)
            report = await validate(session.repository, ValidateRequest(everything=True))
            assert report.violations == []
            for number, image in enumerate(images, 1):
                await assert_restores(session, store, tmp_path / "into", image, set_id=number, until_scn=image.end_scn)
            await assert_restores(session, store, tmp_path / "into", images[-1])
        happened = sum(proxy.done.values())
        assert happened > len(proxy.seen) * FAULTS / 2, proxy.done
        # Without the proxy, too: what it said was there is there.
        proxy.rates.clear()
        async with session_on(tmp_path, store, dest=dest, faulty={"append": False}, memory=64 << 20) as session:
            report = await validate(session.repository, ValidateRequest(everything=True))
            assert report.violations == []
