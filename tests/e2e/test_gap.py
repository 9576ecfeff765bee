"""An engine of its own: log that the engine recycles before it is archived, the next round, and the stopped store."""

import asyncio
import random
import shutil

import pytest
from engine_load import connect, minor_freeze
from marks import Marks, found_marks
from polling import until
from table_prints import table_prints

from mover.kernel.palf import PALF_FILE_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_from_gap_to_second_round_to_stopped_store(lone):
    site, mover = lone, lone.mover
    marks = Marks(site.options)
    await marks.create()
    await mover.ok("archivelog", "start")
    await marks.write(5)
    # Nothing to build on; and no archiver runs: the backup archives what it needs itself.
    first = await mover.run("backup", "incremental")
    assert (first.ok()["backup_type"], first.json["restorable"]) == ("D", True)
    assert "becomes a full" in first.err
    await marks.write(5)
    await mover.ok("archivelog", "run", "--until-caught-up")
    old = await site.window()

    gap = await _lose_log(site)
    await marks.write(5)
    ran = await mover.run("archivelog", "run", "--until-caught-up")
    assert ran.code == 5, str(ran)
    assert ran.error["kind"] == "LogGapError"
    interrupted = await site.round()
    assert interrupted["status"] == "INTERRUPTED"
    assert interrupted["gap"]["from_lsn"] == ran.error["from_lsn"] == interrupted["checkpoint_lsn"]
    assert interrupted["gap"]["until_lsn"] == ran.error["until_lsn"] == gap
    holes = (await mover.ok("show", "windows"))["holes"]
    (hole,) = (hole for hole in holes if hole["from_scn"] == interrupted["checkpoint_scn"])
    assert f"[{interrupted['checkpoint_lsn']}, {gap})" in hole["reason"]
    refused = await mover.run("backup", "full")
    assert (refused.code, refused.error["code"]) == (4, -9040)
    assert "INTERRUPTED" in refused.error["message"]
    assert (await mover.run("archivelog", "run")).code == 4
    assert (await mover.run("archivelog", "start")).code == 4

    assert (await mover.ok("archivelog", "stop"))["status"] == "STOP"
    assert (await mover.run("archivelog", "stop")).code == 4
    started = await mover.ok("archivelog", "start")
    assert (started["round"], started["status"]) == (2, "DOING")
    second = await mover.ok("backup", "incremental")
    assert second["restorable"]
    await marks.write(5)
    await mover.ok("archivelog", "run", "--until-caught-up")
    windows = (await mover.ok("show", "windows"))["windows"]
    assert [(window["round"], window["sets"]) for window in windows] == [(1, [1]), (2, [2])]
    assert windows[0]["until_scn"] == old["until_scn"] < windows[1]["from_scn"]
    between = (windows[0]["until_scn"] + windows[1]["from_scn"]) // 2
    refused = await mover.run("restore", "--target", site.new_target(), "--until-scn", between)
    assert refused.code == 4
    assert all(str(window["until_scn"]) in refused.error["hint"] for window in windows)

    # Both sides of the hole are still there.
    async with site.restored("--until-scn", old["until_scn"]) as copy:
        assert await found_marks(copy.options) == 10
    async with site.restored() as copy:
        assert await found_marks(copy.options) == marks.last

    # The engine stops; what it had committed by then is backed up from its files alone.
    await marks.write(5)
    prints = await table_prints(site.options)
    await site.server.kill()
    refused = await mover.run("backup", "full")
    assert refused.code == 7, str(refused)
    offline = await mover.ok("backup", "full", "--offline")
    assert offline["restorable"] and offline["proof"]["method"] != "hot"
    assert (await mover.ok("validate"))["ok"]
    async with site.restored("--set", offline["backup_set_id"]) as copy:
        assert await table_prints(copy.options) == prints
        assert await found_marks(copy.options) == marks.last
    # A running engine is not taken for a stopped one.
    await site.server.start(boot_seconds=120)
    assert (await mover.run("backup", "full", "--offline")).code == 4


async def _lose_log(site):
    """Drop the archive's hold and write until the engine has recycled log it had not archived; LSN of what is left."""
    shutil.rmtree(site.server.base_dir / "mover_hold" / "archive")
    here = (await site.round())["checkpoint_lsn"] // PALF_FILE_BYTES
    log = site.server.base_dir / "store" / "redo" / "sys" / "log_stream" / "log"
    rng = random.Random(1)
    await site.query("CREATE DATABASE bulk")
    await site.query("CREATE TABLE bulk.t (id INT PRIMARY KEY, v LONGTEXT)")
    connection = await connect(site.options)

    def oldest():
        return min(int(path.name) for path in log.iterdir() if path.name.isdecimal())

    async def write():
        async with connection.cursor() as cursor:
            for number in range(10_000):
                if number % 40 == 0:
                    await minor_freeze(site.options)
                if newest() > here + 4:
                    return
                await cursor.execute(f"REPLACE INTO bulk.t VALUES ({number % 50}, '{rng.randbytes(500_000).hex()}')")

    def newest():
        return max(int(path.name) for path in log.iterdir() if path.name.isdecimal())

    try:
        await asyncio.wait_for(write(), 240)
        await minor_freeze(site.options)
        await until(lambda: oldest() > here, "the engine recycles the log", 120)
    finally:
        await connection.ensure_closed()
    # It recycles in steps; the last one is over when the oldest file holds still.
    seen = [oldest()]

    async def still():
        seen.append(oldest())
        return len(seen) > 12 and len(set(seen[-12:])) == 1

    await until(still, "the oldest log file stays", 120, every=1)
    return oldest() * PALF_FILE_BYTES
