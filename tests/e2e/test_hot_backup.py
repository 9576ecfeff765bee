"""Backups of an engine that is being written to, with freezes in the middle: nothing committed may be missing."""

import asyncio
import os
import random

import pytest
from engine_load import check, major_freeze, minor_freeze
from ledger import Ledger

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Rounds:
    """Backup under load, then restore, boot and check."""

    def __init__(self, story, seed):
        self.site, self.load = story.site, story.load
        self.ledger = Ledger(self.load)
        self.rng = random.Random(seed)

    async def run(self, count):
        await self.site.archive()
        self.load.pause = 0.02
        self.load.start()
        try:
            for number in range(count):
                await self.round(number)
        finally:
            await self.load.stop()
            await self.site.stop_archiver()

    async def round(self, number):
        site, load, rng = self.site, self.load, self.rng
        before = dict(load.committed)
        await self.ledger.sample()
        # Every third one by several processes.
        options = ("--processes", "2") if number % 3 == 2 else ()
        backup = asyncio.create_task(site.mover.ok("backup", "full" if number % 2 else "incremental", *options))
        try:
            await load.until(rng.randint(1, 60))
            await minor_freeze(site.options)
            if number % 2 == 0:
                await load.until(rng.randint(1, 60))
                await major_freeze(site.options)
            made = await backup
        finally:
            backup.cancel()
            await asyncio.gather(backup, return_exceptions=True)
        assert made["status"] == "COMPLETED" and made["restorable"], made
        await load.until(30)
        end = await self.ledger.sample()
        if number % 2:
            # The latest: whatever the archive has by now.
            async with site.restored() as copy:
                assert copy.report["set"] == made["backup_set_id"]
                await check(copy.options, before, row_bytes=load.row_bytes)
            return
        await site.archived(end)
        scn = rng.randint(made["min_restore_scn"], end)
        at_least, at_most = self.ledger.bounds(scn)
        async with site.restored("--until-scn", scn) as copy:
            assert copy.report["set"] == made["backup_set_id"]
            found = await check(copy.options, before, at_most=at_most, row_bytes=load.row_bytes)
            assert all(found[writer] >= last for writer, last in at_least.items())


async def test_rounds_under_load(story):
    await Rounds(story, seed=1).run(7 if story.site.kind == "file" else 3)
    assert (await story.site.mover.ok("validate"))["ok"]


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_many_rounds_under_load(story):
    """For `make soak`; MOVER_SOAK_ROUNDS says how many, over both destinations, and MOVER_SOAK_SEED which."""
    count = int(os.environ.get("MOVER_SOAK_ROUNDS", "200"))
    share = count * 7 // 10 if story.site.kind == "file" else count - count * 7 // 10
    await Rounds(story, seed=int(os.environ.get("MOVER_SOAK_SEED", "1000"))).run(share)
