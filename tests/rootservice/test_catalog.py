"""The catalog: the same on a file and on a server, brought up to date when it is older, an error when it is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from mariadb import mariadb_server
from sqlalchemy import text, update

from mover.clock import SystemClock
from mover.errors import ConfigError, UnreachableError
from mover.rootservice.catalog import Catalog
from mover.rootservice.catalog_schema import SCHEMA_VERSION
from mover.rootservice.catalog_tables import archive_round, backup_task, metadata, schema_table
from mover.rootservice.catalog_views import VIEWS
from mover.rootservice.lease import Lease

TASK = {"tenant_id": 1, "backup_type": "D", "owner_epoch": 1, "start_time": 1_700_000_000_000_000}
DONE = {"status": "FINISH", "end_time": 1_700_000_002_500_000, "input_bytes": 10 << 20, "output_bytes": 5 << 20}


async def rows_of(catalog: Catalog, view: str) -> list[dict[str, object]]:
    async with catalog.begin() as connection:
        found = await connection.exec_driver_sql(f"SELECT * FROM {view}")
        return [dict(row) for row in found.mappings()]


async def test_rows_come_back_and_upsert_replaces(catalog: Catalog) -> None:
    for status in ("DOING", "FINISH"):
        async with catalog.begin() as connection:
            await catalog.upsert(connection, backup_task, {**TASK, "backup_set_id": 7, "status": status})
    (row,) = await catalog.rows(backup_task, tenant_id=1)
    assert (row["status"], row["start_time"], row["is_mark_deleted"]) == ("FINISH", TASK["start_time"], 0)


async def test_many_coordinators_may_create_it_at_once(catalog_url_of: str) -> None:
    opened = await asyncio.gather(*(Catalog.open(catalog_url_of) for _ in range(4)))
    assert await opened[0].rows(schema_table) == [{"id": 1, "version": SCHEMA_VERSION}]
    for each in opened:
        await each.aclose()


async def test_an_older_catalog_is_brought_up_to_date_and_keeps_its_rows(catalog_url_of: str) -> None:
    old = await Catalog.open(catalog_url_of)
    async with old.begin() as connection:  # what the first release had: no version, no views, a column less
        for view in VIEWS:
            await connection.exec_driver_sql(f"DROP VIEW {view}")
        await connection.exec_driver_sql("DROP TABLE mv_schema")
        await connection.exec_driver_sql("ALTER TABLE mv_backup_task DROP COLUMN is_mark_deleted")
        await connection.execute(
            text("INSERT INTO mv_backup_task SELECT 1, 3, 'D', 'FINISH', 0, '', 1, 5, 6, 1, 1, 1, 1, 9, 9, 0, 10, 10")
        )
    await old.aclose()
    new = await Catalog.open(catalog_url_of)
    (row,) = await new.rows(backup_task)
    assert (row["backup_set_id"], row["macro_block_count"], row["is_mark_deleted"]) == (3, 9, 0)
    assert await new.rows(schema_table) == [{"id": 1, "version": SCHEMA_VERSION}]
    assert [row["BS_KEY"] for row in await rows_of(new, "CDB_OB_BACKUP_SET_DETAILS")] == [3]
    await new.aclose()


async def test_a_catalog_of_a_newer_mover_is_refused(catalog_url_of: str) -> None:
    catalog = await Catalog.open(catalog_url_of)
    async with catalog.begin() as connection:
        await connection.execute(update(schema_table).values(version=SCHEMA_VERSION + 1))
    await catalog.aclose()
    with pytest.raises(ConfigError, match=f"schema {SCHEMA_VERSION + 1}"):
        await Catalog.open(catalog_url_of)


async def test_views_have_oceanbases_columns_and_values(catalog: Catalog) -> None:
    async with catalog.begin() as connection:
        await catalog.upsert(connection, backup_task, {**TASK, **DONE, "backup_set_id": 1})
        await catalog.upsert(connection, backup_task, {**TASK, **DONE, "backup_set_id": 2, "result": -4012})
        await catalog.upsert(connection, backup_task, {**TASK, "backup_set_id": 3, "status": "DOING"})
        for number, status in ((1, "STOP"), (2, "DOING")):
            row = {"tenant_id": 1, "round_id": number, "status": status, "start_us": 1_700_000_000_000_000}
            row |= {"checkpoint_scn": 1_700_000_001_500_000_000, "input_bytes": 3 << 30, "output_bytes": 1 << 30}
            await catalog.upsert(connection, archive_round, row)
    (running,) = await rows_of(catalog, "CDB_OB_BACKUP_PROGRESS")
    assert " ".join(running) == (
        "INCARNATION BS_KEY BACKUP_TYPE TENANT_ID PARTITION_COUNT MACRO_BLOCK_COUNT FINISH_PARTITION_COUNT"
        " FINISH_MACRO_BLOCK_COUNT INPUT_BYTES OUTPUT_BYTES START_TIME COMPLETION_TIME STATUS"
    )
    assert (running["BS_KEY"], running["STATUS"], running["COMPLETION_TIME"]) == (3, "RUNNING", None)
    jobs = await rows_of(catalog, "CDB_OB_BACKUP_JOB_DETAILS")
    assert " ".join(jobs[0]) == (
        "INCARNATION TENANT_ID BS_KEY BACKUP_TYPE ENCRYPTION_MODE START_TIME END_TIME INPUT_BYTES OUTPUT_BYTES"
        " OUTPUT_DEVICE_TYPE ELAPSED_SECONDES COMPRESSION_RATIO INPUT_BYTES_PER_SEC OUTPUT_BYTES_PER_SEC STATUS"
        " INPUT_BYTES_DISPLAY OUTPUT_BYTES_DISPLAY INPUT_BYTES_PER_SEC_DISPLAY OUTPUT_BYTES_PER_SEC_DISPLAY"
        " TIME_TAKEN_DISPLAY"
    )
    first = next(row for row in jobs if row["BS_KEY"] == 1)
    assert (float(first["ELAPSED_SECONDES"]), float(first["COMPRESSION_RATIO"])) == (2.5, 0.5)
    assert float(first["INPUT_BYTES_PER_SEC"]) == 4 << 20
    sets = await rows_of(catalog, "CDB_OB_BACKUP_SET_DETAILS")
    assert " ".join(sets[0]) == (
        "INCARNATION TENANT_ID BS_KEY BACKUP_TYPE ENCRYPTION_MODE START_TIME COMPLETION_TIME ELAPSED_SECONDES KEEP"
        " KEEP_UNTIL DEVICE_TYPE COMPRESSED OUTPUT_BYTES OUTPUT_RATE_BYTES COMPRESSION_RATIO OUTPUT_BYTES_DISPLAY"
        " OUTPUT_RATE_BYTES_DISPLAY TIME_TAKEN_DISPLAY STATUS"
    )
    assert {row["BS_KEY"]: row["STATUS"] for row in sets} == {1: "COMPLETED", 2: "FAILED"}
    (current,) = await rows_of(catalog, "CDB_OB_BACKUP_ARCHIVELOG")
    summary = await rows_of(catalog, "CDB_OB_BACKUP_ARCHIVELOG_SUMMARY")
    assert (
        " ".join(current)
        == " ".join(summary[0])
        == (
            "INCARNATION LOG_ARCHIVE_ROUND TENANT_ID STATUS MIN_FIRST_TIME MAX_NEXT_TIME INPUT_BYTES OUTPUT_BYTES"
            " COMPRESSION_RATIO INPUT_BYTES_DISPLAY OUTPUT_BYTES_DISPLAY"
        )
    )
    assert (current["LOG_ARCHIVE_ROUND"], current["STATUS"], len(summary)) == (2, "DOING", 2)
    assert str(current["INPUT_BYTES_DISPLAY"]).rstrip("GB").rstrip("0").rstrip(".") == "3"
    # Same moment, whatever the type and zone of the session.
    assert str(current["MAX_NEXT_TIME"])[17:21] == "21.5"


async def test_every_table_is_created(catalog: Catalog) -> None:
    for table in metadata.sorted_tables:
        await catalog.rows(table)


def test_urls_that_cannot_be_a_catalog() -> None:
    for url in ("postgresql+asyncpg://u:s3cret@h/d", "mysql+asyncmy://u:s3cret@h"):
        with pytest.raises(ConfigError) as refused:
            asyncio.run(Catalog.open(url))
        assert "s3cret" not in str(refused.value)


async def test_a_server_that_dies_and_comes_back_is_an_error_and_then_none(tmp_path: Path) -> None:
    with mariadb_server() as server:
        await server.execute_async("CREATE DATABASE c")
        catalog = await Catalog.open(server.catalog_url("c"))
        lease = Lease(catalog, SystemClock(), "backup:1", ttl=60)
        await lease.acquire()
        server.stop()
        with pytest.raises(UnreachableError, match="does not answer"):
            await lease.renew()
        lease.check()  # the outage costs nothing as long as the lease lasts
        await asyncio.to_thread(server.start)
        await lease.renew()
        await catalog.aclose()


async def test_a_server_that_stops_answering_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mover.rootservice.catalog._ANSWER_SECONDS", 1)
    with mariadb_server() as server:
        await server.execute_async("CREATE DATABASE c")
        catalog = await Catalog.open(server.catalog_url("c"))
        server.pause()
        try:
            with pytest.raises(UnreachableError, match="does not answer"):
                async with asyncio.timeout(20):
                    await catalog.rows(backup_task)
        finally:
            server.go_on()
        assert await catalog.rows(backup_task) == []
        await catalog.aclose()
