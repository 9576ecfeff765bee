"""What `mover show` prints: OceanBase's views, from the destination where it knows, from the catalog for what runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mover.clock import iso_from_scn, iso_from_us
from mover.errors import IntegrityError
from mover.media.backup_info import BackupInfo, BackupStatus
from mover.media.manifest import SetFacts
from mover.media.set_info import BackupSetInfo, set_view
from mover.recovery.windows import load_spans
from mover.repository.sets import load_facts, load_infos, load_set_infos
from mover.repository.tree import Repository
from mover.rootservice import archive
from mover.rootservice.catalog import backup_task, pg_task
from mover.rootservice.lease import is_held
from mover.rootservice.session import Session


@dataclass(frozen=True, slots=True)
class SetView:
    """One backup set as it is shown. ``restorable``: the archive has passed its end."""

    tenant_id: int
    info: BackupInfo
    stats: BackupSetInfo | None
    facts: SetFacts | None
    restorable: bool
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        facts = self.facts
        view = set_view(
            self.tenant_id,
            self.info,
            self.stats,
            min_restore_scn=facts.end_scn if facts else 0,
            reused_macro_block_count=int(facts.extra.get("reused_macro_block_count", 0)) if facts else 0,
            elapsed_seconds=(facts.finished_us - facts.started_us) / 1e6 if facts else 0.0,
        )
        view["start_time"] = iso_from_us(self.info.backup_snapshot_version)
        view["min_restore_time"] = iso_from_scn(facts.end_scn) if facts else None
        view["restorable"] = self.restorable
        view["compression"] = facts.compression if facts else None
        view["readable_by_oceanbase"] = facts.readable_by_oceanbase if facts else None
        view["proof"] = dict(facts.proof) if facts else None
        view["read_bytes"] = facts.extra.get("read_bytes") if facts else None
        view["tuning"] = facts.extra.get("tuning") if facts else None
        if self.warnings:
            view["warnings"] = list(self.warnings)
        return view


@dataclass(frozen=True, slots=True)
class Rows:
    """A list under one name."""

    name: str
    rows: tuple[Mapping[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        return {self.name: [dict(row) for row in self.rows]}


async def set_view_of(repository: Repository, info: BackupInfo, *, restorable: bool) -> SetView:
    """Everything the destination says about one set."""
    good = info.status == BackupStatus.SUCCESS
    warnings: tuple[str, ...] = ()
    facts = None
    if good:
        try:
            facts = await load_facts(repository, info)
        except IntegrityError as exc:
            warnings = (exc.message,)
    stats = next(
        (
            record
            for record in await load_set_infos(repository, info.full_backup_set_id)
            if record.backup_set_id == info.inc_backup_set_id
        ),
        None,
    )
    damaged = facts.proof.get("damaged_blocks") if facts else None
    if damaged:
        text = f"{len(damaged)} blocks that nothing refers to do not match their checksum and were left out"
        warnings = (f"{text}: {damaged[:8]}",)
    return SetView(repository.tenant_id, info, stats if good else None, facts, restorable, warnings)


async def sets(session: Session) -> Rows:
    """Every backup of the tenant, oldest first."""
    repository = session.repository
    spans, rounds = await load_spans(repository, damaged={})
    restorable = {span.set_id for span in spans if any(found.covers(span) for found in rounds)}
    views = [
        await set_view_of(repository, info, restorable=info.inc_backup_set_id in restorable)
        for info in await load_infos(repository)
    ]
    return Rows("sets", tuple(view.as_json() for view in views))


async def archivelog(session: Session) -> archive.ArchiveView:
    """Every archive round of the tenant."""
    return await archive.status(session)


async def progress(session: Session) -> Rows:
    """CDB_OB_BACKUP_PROGRESS: backups that run now."""
    rows = await session.catalog.rows(backup_task)
    async with session.catalog.begin() as connection:
        now_us = session.clock.now_us()
        held = {row["tenant_id"]: await is_held(connection, f"backup:{row['tenant_id']}", now_us) for row in rows}
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
