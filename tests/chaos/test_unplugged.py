"""A destination that is gone in the middle of a job: for a while the job waits, for good it ends, and goes on later."""

from __future__ import annotations

import asyncio
import copy
import os
import time
from pathlib import Path
from typing import Any

import pytest
from coordinator import session_on, small_and_fast  # noqa: F401 - the fixture
from memory_store import MemoryStore
from polling import until
from worlds import archive_to_the_end, assert_restores, back_up

from mover.errors import UnreachableError
from mover.recovery.validate import ValidateRequest, validate
from mover.repository.archive_state import load_record
from mover.rootservice import archive

pytestmark = pytest.mark.usefixtures("small_and_fast")
GONE = float(os.environ.get("CHAOS_UNPLUGGED", "2"))  # seconds
RETRY_FOR = 2 * GONE


@pytest.mark.timeout(120 + 60 * GONE)
@pytest.mark.parametrize("how", ["refused"])
async def test_a_job_goes_on_after_a_while_and_ends_for_good(behind: Any, tmp_path: Path, how: str) -> None:
    store = MemoryStore(seed=5)
    for _ in range(12):
        store.change()
    async with behind("weed") as (proxy, url):
        options: dict[str, Any] = {"dest": url(f"gone/{how[0]}"), "faulty": {"append": False}, "memory": 64 << 20}
        options["retry_for"] = RETRY_FOR
        async with session_on(tmp_path, store, **options) as session:
            await archive.start(session)
            await archive_to_the_end(session)
            image = copy.deepcopy(store.image())
            # Three times in one backup: somewhere in it, wherever that is.
            for number in range(3):
                begun = len(proxy.seen)
                job = asyncio.create_task(back_up(session, incremental=number > 0))
                await until(lambda n=begun, k=number: len(proxy.seen) > n + 9 * (k + 1), "it is at work", every=0.001)
                await proxy.unplug(black_hole=how == "black hole")
                await asyncio.sleep(GONE)  # this is the time it is gone for, not a wait for something
                assert not job.done()
                await proxy.plug()
                await job

            # Now for good.
            store.change()
            before = await load_record(session.repository, 1)
            await proxy.unplug(black_hole=how == "black hole")
            begin = time.monotonic()
            with pytest.raises(UnreachableError) as caught:
                await archive_to_the_end(session)
            assert caught.value.exit_code == 7 and caught.value.hint
            assert time.monotonic() - begin < 3 * RETRY_FOR + 10
            with pytest.raises(UnreachableError):
                await back_up(session, incremental=True)
            await proxy.plug()
        async with session_on(tmp_path, store, **options) as session:
            assert await load_record(session.repository, 1) == before
            await archive_to_the_end(session)
            after = await load_record(session.repository, 1)
            assert before is not None and after is not None
            assert after.checkpoint_lsn == store.end_lsn > before.checkpoint_lsn
            await back_up(session, incremental=True)
            assert (await validate(session.repository, ValidateRequest(everything=True))).violations == []
            await assert_restores(session, store, tmp_path / "into", image, set_id=1, until_scn=image.end_scn)
            await assert_restores(session, store, tmp_path / "into", store.image())
