"""Running and past jobs as `mover show` prints them, in the form of OceanBase's views. The catalog knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mover.clock import iso_from_us
from mover.rootservice.catalog_tables import backup_task, pg_task
from mover.rootservice.lease import is_held
from mover.rootservice.session import Session
from mover.rootservice.views import Rows


async def progress(session: Session) -> Rows:
    """CDB_OB_BACKUP_PROGRESS: backups that run now."""
    rows = await session.catalog.rows(backup_task)
    async with session.catalog.begin() as connection:
        held = {row["tenant_id"]: await is_held(connection, f"backup:{row['tenant_id']}") for row in rows}
    # A row that nobody's lease stands behind is of a coordinator that died; the next backup ends it.
    running = (row for row in rows if row["status"] != "FINISH" and held[row["tenant_id"]])
    return Rows("progress", tuple(_task_row(row) for row in running))


async def jobs(session: Session) -> Rows:
    """CDB_OB_BACKUP_JOB_DETAILS and its history: every backup this catalog knows of."""
    return Rows("jobs", tuple(_task_row(row) for row in await session.catalog.rows(backup_task)))


async def tasks(session: Session) -> Rows:
    """__all_tenant_pg_backup_task: the PG tasks."""
    return Rows("tasks", tuple(dict(row) for row in await session.catalog.rows(pg_task)))


def _task_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Status words and times as the views show them."""
    finished = row["status"] == "FINISH"
    status = ("FAILED" if row["result"] else "COMPLETED") if finished else "RUNNING"
    return {
        "incarnation": 1,
        "bs_key": row["backup_set_id"],
        "backup_type": row["backup_type"],
        "tenant_id": row["tenant_id"],
        "partition_count": row["partition_count"],
        "macro_block_count": row["macro_block_count"],
        "finish_partition_count": row["finish_partition_count"],
        "finish_macro_block_count": row["finish_macro_block_count"],
        "reused_macro_block_count": row["reused_macro_block_count"],
        "input_bytes": row["input_bytes"],
        "output_bytes": row["output_bytes"],
        "start_time": iso_from_us(row["start_time"]),
        "completion_time": iso_from_us(row["end_time"]) if row["end_time"] else None,
        "status": status,
        "comment": row["comment"],
    }
