"""How far the archive is behind an engine that writes 20 MB of log a second, with default settings on a directory."""

import asyncio
import random
import time

import pytest
from engine_load import connect

from mover.media.layout import Layout
from mover.repository.archive_state import load_record
from mover.repository.tree import Repository
from mover.target.url import open_target

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.alone]

RATE = 20e6
SECONDS = 10.0
ROW = 100_000


async def _end(connection):
    async with connection.cursor() as cursor:
        await cursor.execute("SELECT END_LSN FROM oceanbase.V$OB_LOG_STAT")
        ((lsn,),) = await cursor.fetchall()
        return int(lsn)


async def _write(options, seed, may_go_on, stop):
    """A writer that waits whenever the log is ahead of its rate."""
    rng = random.Random(seed)
    row = rng.randbytes(ROW // 2).hex()
    connection = await connect(options)
    try:
        async with connection.cursor() as cursor:
            while not stop.is_set():
                while not may_go_on() and not stop.is_set():
                    await asyncio.sleep(0.005)
                key = rng.randrange(1 << 30)
                await cursor.execute(f"REPLACE INTO lag.t VALUES ({key % 40}, '{key:09}{row[9:]}')")
    finally:
        await connection.ensure_closed()


async def test_lag_under_a_steady_load(lone, record_property, capsys):
    site = lone
    await site.mover.ok("archivelog", "start")
    await site.query("CREATE DATABASE lag")
    await site.query("CREATE TABLE lag.t (id INT PRIMARY KEY, v LONGTEXT)")
    archiver = await site.archive()
    await site.archived(await site.scn())
    already = len(archiver.so_far().lines)  # before: how long nobody archived
    target = await open_target(site.mover.settings["dest"], create=False)
    repository = Repository(target, Layout("seekdb", 1), 1)
    round_id = (await site.round())["round"]
    connection = await connect(site.options)
    first = lsn = await _end(connection)
    stop, began = asyncio.Event(), time.monotonic()

    def may_go_on():
        return lsn - first < RATE * (time.monotonic() - began)

    writers = [asyncio.create_task(_write(site.options, seed, may_go_on, stop)) for seed in range(3)]
    waiting, lags = [], []
    try:
        # Seen from outside: how long after it was committed a log position is durable and published.
        while waiting or time.monotonic() < began + SECONDS:
            now = time.monotonic()
            assert now < began + SECONDS + 60, "the archive does not come after"
            if now < began + SECONDS:
                lsn = await _end(connection)
                waiting.append((now, lsn))
            else:
                stop.set()
            record = await load_record(repository, round_id)
            now = time.monotonic()
            while waiting and record.checkpoint_lsn >= waiting[0][1]:
                lags.append(now - waiting.pop(0)[0])
            await asyncio.sleep(0.05)
        written = lsn - first
        assert archiver.running
    finally:
        stop.set()
        await asyncio.gather(*writers)
        await connection.ensure_closed()
        await target.aclose()
    await site.stop_archiver()
    said = [line["lag_seconds"] for line in archiver.so_far().lines[already:] if line["type"] == "archive_progress"]
    rate = written / SECONDS / 1e6
    figures = f"{rate:.1f} MB/s of log: lag at most {max(lags):.2f} s, as shown at most {max(said):.2f} s"
    record_property("lag", figures)
    with capsys.disabled():
        print(f"\n{figures}")
    assert rate > 2, figures
    assert max(lags) < 2, figures
    assert max(said) < 2, figures
