"""Whole jobs on a destination where one request in twenty goes wrong: nothing is lost and nothing is made up.

``make chaos`` runs this with many seeds; CHAOS_FIRST and CHAOS_SEEDS say which.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
from coordinator import session_on, small_and_fast  # noqa: F401 - the fixture
from memory_store import MemoryStore
from worlds import archive_to_the_end, assert_restores, back_up

from mover.recovery.validate import ValidateRequest, validate
from mover.rootservice import archive

pytestmark = pytest.mark.usefixtures("small_and_fast")
FAULTS = float(os.environ.get("CHAOS_FAULTS", "0.05"))
FIRST = int(os.environ.get("CHAOS_FIRST", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("CHAOS_SEEDS", "1")))


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
