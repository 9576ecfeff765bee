"""The seekdb store against a real engine: its log followed and held, hot and cold captures that boot and are whole."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import asyncmy
import pytest
from engine_load import Load, check, connect, major_compaction, major_freeze, minor_freeze, query
from seekdb_image import take_image
from sqlalchemy.engine import URL

from mover.clock import SystemClock
from mover.datapath.buffers import BufferPool
from mover.errors import (
    ConfigError,
    IntegrityError,
    LogGapError,
    PreconditionError,
    SourceError,
    StateError,
    UnreachableError,
)
from mover.kernel.palf import PALF_FILE_BYTES, PALF_FILE_HEADER
from mover.rootservice.catalog import Catalog
from mover.rootservice.catalog_tables import backup_task
from mover.rootservice.catalog_views import VIEWS
from mover.rootservice.lease import Lease
from mover.store.base import LogCursor
from mover.store.seekdb.server import EngineBootError, SeekdbServer, free_port
from mover.store.seekdb.store import SeekdbStore, open_seekdb

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SeekdbServer]:
    engine = SeekdbServer(tmp_path / "e")
    await engine.start()
    try:
        yield engine
    finally:
        await engine.kill()
        shutil.rmtree(engine.base_dir, ignore_errors=True)


@pytest.fixture
async def store(server: SeekdbServer) -> AsyncIterator[SeekdbStore]:
    opened = open_seekdb(server.source_url)
    try:
        yield opened
    finally:
        await opened.aclose()


async def boots_with(image, target: Path, at_least: dict[int, int], load: Load) -> dict[int, int]:
    """Build, boot and check a copy; what it holds."""
    await asyncio.to_thread(image.build, target)
    async with image.server(target) as copy:
        found = await check(copy.connection_options(), at_least, row_bytes=load.row_bytes)
        # It is a database, not a museum piece: it takes writes and merges.
        await query(copy.connection_options(), "INSERT INTO test.progress VALUES (99, 1)")
        await minor_freeze(copy.connection_options())
    shutil.rmtree(target)
    return found


async def test_hot_captures_under_load_boot_and_are_whole(
    server: SeekdbServer, store: SeekdbStore, tmp_path: Path
) -> None:
    """A full and an incremental while two writers commit and minor and major freezes run in the middle."""
    options = server.connection_options()
    load = Load(options, rows_per_move=20, row_bytes=1600)
    await load.create()
    load.start()
    await load.until(150)
    await minor_freeze(options)
    await load.until(50)

    async def disturb(block: int) -> None:
        if block == 5:
            await minor_freeze(options)
        elif block == 10:
            await major_freeze(options)
        elif block < 40:
            await asyncio.sleep(0.05)  # a slow destination: the engine has time to move everything

    committed = dict(load.committed)
    full = await take_image(store, on_block=disturb)
    proof = full.result.proof
    assert proof["method"] == "hot"
    assert proof["marker_before"] == proof["marker_after"]
    assert proof["damaged_blocks"] == []
    assert full.unchanged == 0
    assert full.result.live <= full.blocks.keys()
    assert any(table["table"] == "moves_part" and table["partition"] for table in full.result.tables)
    await boots_with(full, tmp_path / "c1", committed, load)

    await major_compaction(options)
    second = await take_image(store)
    committed = dict(load.committed)
    await load.until(20)
    third = await take_image(store, second.identities, second.blocks, slabs=4)
    assert third.unchanged > 0
    await load.stop()
    found = await boots_with(third, tmp_path / "c2", committed, load)
    assert set(found) == {0, 1}

    # Blocks that are appended to are read whole, once, and those that were not are known by their digest.
    quiet = await take_image(store, third.identities, third.blocks)
    assert quiet.unchanged_kinds >= {1, 7}
    shared = sum(quiet.identities[index].kind != 1 for index in quiet.result.live)
    assert 0 < quiet.result.read_bytes < (2 * shared + quiet.captured + 20) << 21
    await boots_with(quiet, tmp_path / "c3", dict(load.committed), load)


async def test_log_is_followed_held_and_its_loss_is_named(
    server: SeekdbServer, store: SeekdbStore, tmp_path: Path
) -> None:
    options = server.connection_options()
    log = await store.log("archive")
    begin = await log.begin_lsn()
    await log.hold(begin)
    load = Load(options, rows_per_move=30, row_bytes=6000, writers=3)
    await load.create()
    load.start()

    # Follow it live across two file boundaries: no byte beyond the committed end, no hole, one chain.
    cursor = LogCursor(begin)
    headers = []
    async with asyncio.timeout(120):
        while cursor.lsn < 2 * PALF_FILE_BYTES + (1 << 20):
            chunk = await log.read(cursor, 4 << 20)
            if chunk is None:
                await asyncio.sleep(0.01)
                continue
            assert chunk.start_lsn == cursor.lsn
            assert chunk.end_lsn == chunk.start_lsn + len(chunk.data) == chunk.next.lsn
            assert chunk.start_lsn // PALF_FILE_BYTES == (chunk.end_lsn - 1) // PALF_FILE_BYTES
            assert (chunk.block_header is not None) == (chunk.start_lsn % PALF_FILE_BYTES == 0)
            assert cursor.log_id is None or chunk.first_log_id == cursor.log_id + 1
            headers += [chunk.start_lsn // PALF_FILE_BYTES] if chunk.block_header else []
            cursor = chunk.next
    assert headers == [0, 1, 2]
    committed = await load.stop()
    end_lsn, end_scn = await log.end()
    while (chunk := await log.read(cursor, 1 << 20)) is not None:
        cursor = chunk.next
    assert cursor.lsn >= end_lsn
    assert cursor.scn is not None
    assert cursor.scn >= end_scn

    # The engine recycles what it no longer needs; the hold does not.
    async with asyncio.timeout(120):
        while (server.base_dir / "store/redo/sys/log_stream/log/0").exists():
            await minor_freeze(options)
            await asyncio.sleep(1)
    assert await log.begin_lsn() == 0
    assert await log.held_bytes() > 0
    first = await log.read(LogCursor(0), 1 << 20)
    assert first is not None
    assert first.first_log_id == 1

    bare = await store.log("latecomer")
    oldest = await bare.begin_lsn()
    with pytest.raises(LogGapError) as caught:
        await bare.read(LogCursor(4096), 1 << 20)
    assert caught.value.where["from_lsn"] == 4096
    assert caught.value.where["until_lsn"] == oldest
    with pytest.raises(LogGapError):
        await bare.hold(0)
    with pytest.raises(SourceError, match="before lsn"):
        await bare.read(LogCursor(1 << 50), 1 << 20)
    await bare.aclose(keep_hold=False)
    with pytest.raises(PreconditionError, match="another mover process"):
        await store.log("archive")

    # Neither a crash of mover nor one of the engine loses what is held, and the hold does not disturb a boot.
    await log.aclose(keep_hold=True)
    await store.aclose()
    await server.kill()
    await server.start()
    again = await store.log("archive")
    assert await again.begin_lsn() == 0
    assert (await again.read(cursor, 1 << 20)) is not None, "the engine logs its own start"
    await again.release(cursor.lsn)
    assert await again.begin_lsn() > 0
    await again.aclose(keep_hold=False)
    assert not (server.base_dir / "mover_hold").exists()
    await check(server.connection_options(), committed, row_bytes=load.row_bytes)


async def test_stopped_store(server: SeekdbServer, tmp_path: Path) -> None:
    """An offline capture boots; damage in its log is found where it is."""
    options = server.connection_options()
    load = Load(options, rows_per_move=20, row_bytes=1600)
    await load.create()
    load.start()
    await load.until(250)
    await major_compaction(options)
    await load.until(20)
    committed = await load.stop()

    stopped = open_seekdb(server.source_url + "?offline=1")
    with pytest.raises(PreconditionError, match="engine is running"):
        await stopped.identity()
    capture = await stopped.capture(BufferPool(4, 2 << 20))
    with pytest.raises(PreconditionError, match="engine is running"):
        async for _ in capture.blocks({}):
            pass
    await capture.aclose()
    running = open_seekdb(server.source_url)
    online = await running.identity()
    await running.aclose()
    await server.kill()

    identity = await stopped.identity()
    assert identity.parameters == online.parameters
    assert identity.parameters["log_disk_size"] == "2G"
    image = await take_image(stopped)
    assert image.result.proof["method"] == "offline"
    assert await boots_with(image, tmp_path / "c", committed, load) == committed
    again = await take_image(stopped, image.identities, image.blocks)
    assert again.unchanged == sum(identity.immutable for identity in image.identities.values()) > 0
    assert again.result.live == image.result.live

    log_file = server.base_dir / "store/redo/sys/log_stream/log/0"
    with log_file.open("r+b") as file:
        file.seek(PALF_FILE_HEADER + 5_000_000)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x20]))
    log = await stopped.log("check")
    log._end = (image.result.end_lsn, image.result.end_scn)
    cursor = LogCursor(0)
    with pytest.raises(IntegrityError, match="below the committed end") as caught:
        while (chunk := await log.read(cursor, 1 << 20)) is not None:
            cursor = chunk.next
    assert caught.value.where["offset"] <= PALF_FILE_HEADER + 5_000_000
    await log.aclose(keep_hold=False)
    # The engine finds nothing wrong with a log that ends early, or waits for ever; it must not get that far.
    with log_file.open("r+b") as file:
        file.seek(PALF_FILE_HEADER + 5_000_000)
        file.write(byte)


async def test_server_process(tmp_path: Path) -> None:
    """Boot errors are typed, pids are checked, nothing is left running."""
    server = SeekdbServer(tmp_path / "s", port=free_port())
    async with server:
        assert server.pid is not None
        with pytest.raises(PreconditionError):
            await server.start()
        rival = SeekdbServer(server.base_dir, port=free_port())
        with pytest.raises(EngineBootError) as caught:
            await rival.start()
        assert caught.value.log_tail
        assert not rival.running
        connection = await connect(server.connection_options())
        await connection.ensure_closed()

        wrong = open_seekdb(server.source_url + "?user=nobody", password="s3cret-word")
        with pytest.raises(UnreachableError) as refused:
            await wrong.identity()
        assert "s3cret-word" not in str(refused.value.as_json())
        tcp = open_seekdb(f"{server.source_url}?host=127.0.0.1&port={server.port}")
        assert (await tcp.identity()).version.startswith("OceanBase 4.3.5")
        await tcp.aclose()
        pid = server.pid
    assert server.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    gone = open_seekdb(server.source_url)
    with pytest.raises(UnreachableError, match="does not answer"):
        await gone.identity()
    shutil.rmtree(server.base_dir / "store")
    with pytest.raises(ConfigError, match="not a seekdb base directory"):
        open_seekdb(server.source_url)


async def test_the_engine_can_keep_the_catalog_of_another(server: SeekdbServer) -> None:
    """OceanBase itself as the database that two coordinators share: the same schema, views and lease."""
    options = server.connection_options()
    connection = await asyncmy.connect(**options, autocommit=True)
    async with connection.cursor() as cursor:
        await cursor.execute("CREATE DATABASE mover_catalog")
    connection.close()
    where = URL.create("mysql+asyncmy", options["user"], database="mover_catalog")
    where = where.update_query_dict({"unix_socket": options["unix_socket"]})
    catalogs = [await Catalog.open(str(where)) for _ in range(2)]
    leases = [Lease(catalog, SystemClock(), "backup:1") for catalog in catalogs]
    for number, lease in enumerate(leases):
        lease.holder = f"host{number}/1/1"
    first = await leases[0].acquire()
    with pytest.raises(PreconditionError):
        await leases[1].acquire()
    async with catalogs[0].begin() as transaction:
        await leases[0].guard(transaction)
        row = {"tenant_id": 1, "backup_set_id": 1, "backup_type": "D", "status": "DOING"}
        row |= {"owner_epoch": first, "start_time": 1_700_000_000_000_000}
        await catalogs[0].upsert(transaction, backup_task, row)
    async with catalogs[1].begin() as transaction:
        for view in VIEWS:
            found = (await transaction.exec_driver_sql(f"SELECT * FROM {view}")).mappings().all()
            assert [shown["STATUS"] for shown in found] == (
                [] if "ARCHIVELOG" in view or "SET" in view else ["RUNNING"]
            )
    await leases[0].release()
    assert await leases[1].acquire() == first + 1
    with pytest.raises(StateError):
        await leases[0].renew()
    for catalog in catalogs:
        await catalog.aclose()
