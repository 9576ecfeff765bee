"""Rebuilding the catalog: the views of past backups and rounds, read from the destination alone.

The destination is the truth and the catalog an index of it. What a catalog knew beside that is gone with it: comments
of backups that failed, and how often a task was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select

from mover.errors import IntegrityError
from mover.events import Notice
from mover.media.archive_info import ArchiveStatus
from mover.media.backup_info import BackupInfo, BackupStatus, BackupType
from mover.media.layout import SYS_TENANT_ID
from mover.media.manifest import SetFacts
from mover.media.set_info import BackupSetInfo
from mover.media.tenant_info import decode_tenant_infos
from mover.repository.archive_state import load_record, load_rounds
from mover.repository.sets import load_facts, load_infos, load_set_infos
from mover.repository.tree import Repository
from mover.rootservice.catalog_tables import archive_round, backup_task, pg_task
from mover.rootservice.lease import Lease
from mover.rootservice.session import Session

_UNKNOWN_FAILURE = -1


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What the catalog knows now."""

    tenants: int
    backups: int
    rounds: int
    unreadable: tuple[str, ...]  # sets whose manifest does not decode: only what the lists say is known of them

    def as_json(self) -> dict[str, Any]:
        return {
            "tenants": self.tenants,
            "backups": self.backups,
            "rounds": self.rounds,
            "unreadable": list(self.unreadable),
        }


async def rebuild(session: Session) -> Rebuilt:
    """Replace what the catalog says about backups and rounds by what the destination says. Idempotent.

    Each tenant's rows change in one transaction, under the lease of its backups: a running backup is not disturbed.

    Raises PreconditionError (-9036) while a backup of a tenant runs, UnreachableError, IntegrityError when a list of
    backups or rounds does not decode.
    """
    backups = rounds = 0
    unreadable: list[str] = []
    tenants = await _tenants(session)
    for tenant in tenants:
        repository = Repository(session.repository.target, session.repository.layout, tenant, session.repository.strict)
        name = f"backup:{tenant}"
        async with Lease(session.catalog, session.clock, name, ttl=session.settings.lease_ttl) as lease:
            tasks, pgs, damaged = await _backup_rows(session, repository, lease.epoch)
            archived = await _round_rows(session, repository)
            async with session.catalog.begin() as connection:
                await lease.guard(connection)
                for table, rows in ((backup_task, tasks), (pg_task, pgs), (archive_round, archived)):
                    await connection.execute(delete(table).where(table.c.tenant_id == tenant))
                    if rows:
                        await connection.execute(table.insert(), rows)
        backups, rounds = backups + len(tasks), rounds + len(archived)
        unreadable += damaged
    return Rebuilt(len(tenants), backups, rounds, tuple(unreadable))


async def _tenants(session: Session) -> list[int]:
    """Those of the destination, and those that only the catalog knows: it may have been emptied."""
    repository = session.repository
    there = await repository.read(repository.layout.tenant_info(), decode_tenant_infos) or ()
    known = select(backup_task.c.tenant_id).union(select(archive_round.c.tenant_id))
    async with session.catalog.begin() as connection:
        here = (await connection.scalars(known)).all()
    return sorted({SYS_TENANT_ID, *(each.tenant_id for each in there), *here})


async def _backup_rows(
    session: Session, repository: Repository, epoch: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    tasks, pgs, unreadable = [], [], []
    for info in await load_infos(repository):
        facts: SetFacts | None = None
        if info.status == BackupStatus.SUCCESS:
            try:
                facts = await load_facts(repository, info)
            except IntegrityError as exc:
                unreadable.append(exc.message)
                session.emit(Notice("catalog", f"backup set {info.inc_backup_set_id}: {exc.message}"))
        records = await load_set_infos(repository, info.full_backup_set_id)
        stats = next((each for each in records if each.backup_set_id == info.inc_backup_set_id), None)
        tasks.append(_task_row(repository.tenant_id, info, stats, facts, epoch))
        if facts is not None:
            pgs.append(_pg_row(tasks[-1], facts))
    return tasks, pgs, unreadable


def _task_row(
    tenant_id: int, info: BackupInfo, stats: BackupSetInfo | None, facts: SetFacts | None, epoch: int
) -> dict[str, Any]:
    """The row that the backup's own coordinator would have left."""
    good = info.status == BackupStatus.SUCCESS
    blocks = stats.macro_block_count if stats and good else 0
    pgs = stats.pg_count if stats and good else 0
    return {
        "tenant_id": tenant_id,
        "backup_set_id": info.inc_backup_set_id,
        "backup_type": BackupType(info.backup_type).letter,
        "status": "FINISH",
        "result": 0 if good else _UNKNOWN_FAILURE,
        "comment": "" if good else "it never finished",
        "owner_epoch": epoch,
        "start_time": info.backup_snapshot_version,
        "end_time": facts.finished_us if facts else info.backup_snapshot_version,
        "pg_count": pgs,
        "finish_pg_count": pgs,
        "partition_count": pgs,
        "finish_partition_count": pgs,
        "macro_block_count": blocks,
        "finish_macro_block_count": blocks,
        "reused_macro_block_count": int(facts.extra.get("reused_macro_block_count", 0)) if facts else 0,
        "input_bytes": stats.input_bytes if stats and good else 0,
        "output_bytes": stats.output_bytes if stats and good else 0,
        "is_mark_deleted": int(info.is_mark_deleted),
    }


def _pg_row(task: Mapping[str, Any], facts: SetFacts) -> dict[str, Any]:
    names = ("tenant_id", "backup_set_id", "status", "result", "macro_block_count", "finish_macro_block_count")
    row = {name: task[name] for name in (*names, "input_bytes", "output_bytes")}
    return row | {"table_id": facts.pg.table_id, "partition_id": facts.pg.partition_id, "task_id": 1}


async def _round_rows(session: Session, repository: Repository) -> list[dict[str, Any]]:
    rows = []
    for info in await load_rounds(repository):
        record = await load_record(repository, info.round_id)
        rows.append(
            {
                "tenant_id": repository.tenant_id,
                "round_id": info.round_id,
                "status": ArchiveStatus(info.status).name,
                "start_us": info.start_ts,
                "checkpoint_scn": record.checkpoint_scn if record else info.checkpoint_ts * 1000,
                "checkpoint_lsn": record.checkpoint_lsn if record else 0,
                "input_bytes": record.input_bytes if record else 0,
                "output_bytes": record.output_bytes if record else 0,
                "lag_us": 0,
                "updated_us": session.clock.now_us(),
            }
        )
    return rows
