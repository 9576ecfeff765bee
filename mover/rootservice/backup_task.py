"""One tenant's backup task: its row in the catalog, and the work of its PG."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import update

from mover.datapath.compression import Compression
from mover.datapath.intake import PackCounters
from mover.datapath.packing import Limits, ManyProcesses, OneProcess, Packing, processes_for
from mover.datapath.set_writer import SetJob, SetWriter
from mover.encryption.cipher import DataKey
from mover.errors import OB_ENTRY_NOT_EXIST, PreconditionError, UnreachableError
from mover.events import Phase
from mover.executor.base import Report
from mover.media.backup_info import BackupInfo, BackupType
from mover.repository.sets import LoadedSet
from mover.repository.unfinished import Unfinished
from mover.rootservice.catalog import Catalog
from mover.rootservice.catalog_tables import backup_task, pg_task
from mover.rootservice.lease import Lease, is_held
from mover.rootservice.session import Session
from mover.rootservice.state import pace_file
from mover.rootservice.tenant_files import set_lists
from mover.store.base import MACRO_BLOCK_SIZE, StoreIdentity

PERSIST_SECONDS = 1.0
FIRST_TASK_ID = 1
_COLUMNS = {
    "blocks_done": "finish_macro_block_count",
    "blocks_reused": "reused_macro_block_count",
    "bytes_in": "input_bytes",
    "bytes_out": "output_bytes",
}
_FINAL = ("macro_block_count", "reused_macro_block_count", "input_bytes", "output_bytes")


@dataclass(slots=True)
class BackupTask:
    """The tenant task of one backup set; its states are OceanBase's: DOING, CANCEL, FINISH."""

    session: Session
    lease: Lease
    identity: StoreIdentity
    info: BackupInfo
    previous: LoadedSet | None
    log_round: int
    key: DataKey | None = None  # encrypts the set
    resumed: Unfinished | None = None
    _persisted: float = field(default=float("-inf"), init=False)
    _asked: float = field(default=float("-inf"), init=False)

    @property
    def _keys(self) -> dict[str, int]:
        return {"tenant_id": self.session.repository.tenant_id, "backup_set_id": self.info.inc_backup_set_id}

    async def begin(self) -> None:
        """Insert the rows of the tenant task and its PG task."""
        now = self.session.clock.now_us()
        letter = BackupType(self.info.backup_type).letter
        async with self.session.catalog.begin() as connection:
            await self.lease.guard(connection)
            row = {**self._keys, "backup_type": letter, "status": "DOING", "result": 0, "comment": "", "pg_count": 1}
            row |= {"partition_count": 1, "owner_epoch": self.lease.epoch, "end_time": 0}
            row |= {"start_time": self.info.backup_snapshot_version}
            # We have the lease: whoever left another task unfinished is dead.
            for table in (backup_task, pg_task):
                dead = {"status": "FINISH", "result": -1}
                dead |= {"comment": "its coordinator died", "end_time": now} if table is backup_task else {}
                await connection.execute(
                    update(table)
                    .where(table.c.tenant_id == self.session.repository.tenant_id)
                    .where(table.c.status != "FINISH")
                    .values(**dead)
                )
            await self.session.catalog.upsert(connection, backup_task, row)
            pg = self.identity.pg
            server = f"{self.identity.server_ip}:{self.identity.server_port}"
            pg_row = {**self._keys, "table_id": pg.table_id, "partition_id": pg.partition_id, "status": "DOING"}
            pg_row |= {"task_id": FIRST_TASK_ID, "server": server}
            await self.session.catalog.upsert(connection, pg_task, pg_row)

    async def note_progress(self, counters: Mapping[str, int]) -> None:
        """Persist counters, at most about once a second: progress lives in events, the row is for other processes."""
        now = self.session.clock.monotonic()
        if now - self._persisted < PERSIST_SECONDS:
            return
        self._persisted = now
        values = {_COLUMNS[name]: value for name, value in counters.items() if name in _COLUMNS}
        try:
            await self._update(values | {"macro_block_count": counters.get("blocks_total", 0)})
        except UnreachableError:
            pass  # the lease decides how long we may go on without a catalog

    async def finish(self, result: int, comment: str, receipt: Mapping[str, Any] | None = None) -> None:
        """The end of the task, good (0) or bad.

        Args:
            receipt: of the set: its counters are the last word, progress was noted once a second.
        """
        done = {"status": "FINISH", "result": result, "comment": comment, "end_time": self.session.clock.now_us()}
        if result == 0:
            done |= {"finish_pg_count": 1, "finish_partition_count": 1}
        if receipt is not None:
            done |= {name: receipt[name] for name in _FINAL}
            done["finish_macro_block_count"] = receipt["macro_block_count"]
        await self._update(done)

    async def pause(self, comment: str) -> None:
        """The task stops here and a later backup goes on with it; nobody works on it meanwhile."""
        await self._update({"comment": comment})

    async def cancel_requested(self) -> bool:
        """True once `mover backup cancel` asked for it; looks at most once a second."""
        now = self.session.clock.monotonic()
        if now - self._asked < PERSIST_SECONDS:
            return False
        self._asked = now
        try:
            rows = await self.session.catalog.rows(backup_task, **self._keys)
        except UnreachableError:
            return False
        return bool(rows) and rows[0]["status"] == "CANCEL"

    async def _update(self, values: Mapping[str, Any]) -> None:
        catalog = self.session.catalog
        names = {column.name for column in pg_task.columns}
        async with catalog.begin() as connection:
            await self.lease.guard(connection)
            for table, known in ((backup_task, None), (pg_task, names)):
                chosen = {name: value for name, value in values.items() if known is None or name in known}
                if not chosen:
                    continue
                statement = update(table).values(**chosen)
                for name, value in self._keys.items():
                    statement = statement.where(table.c[name] == value)
                await connection.execute(statement)

    @staticmethod
    async def request_cancel(catalog: Catalog, tenant: int) -> dict[str, Any]:
        """Put CANCEL on the task that is DOING. Raises PreconditionError when there is none."""
        async with catalog.begin() as connection:
            running = await is_held(connection, f"backup:{tenant}")
            result = await connection.execute(
                update(backup_task)
                .where(backup_task.c.tenant_id == tenant)
                .where(backup_task.c.status == "DOING")
                .values(status="CANCEL")
            )
        if result.rowcount == 0 or not running:
            raise PreconditionError(
                f"no backup of tenant {tenant} is running", code=OB_ENTRY_NOT_EXIST, hint="see `mover show progress`"
            )
        return {"tenant_id": tenant, "status": "CANCEL"}


async def run_pg_task(task: BackupTask, report: Report) -> Mapping[str, Any]:
    """Back up the PG: capture from the store, write to the destination. Returns the receipt, plain values."""
    session, settings = task.session, task.session.settings
    packing = _packing(session)
    job = SetJob(
        full_set=task.info.full_backup_set_id,
        backup_set_id=task.info.inc_backup_set_id,
        prev_set=task.info.prev_inc_backup_set_id,
        backup_type=task.info.backup_type,
        task_id=FIRST_TASK_ID,
        log_round=task.log_round,
        started_us=task.info.backup_snapshot_version,
        compression=Compression.parse(settings.compression),
        key=task.key,
    )

    def progress(counters: PackCounters) -> None:
        report(
            {
                "blocks_done": counters.blocks,
                "blocks_reused": counters.reused,
                "bytes_in": counters.input_bytes,
                "bytes_out": counters.output_bytes,
                "partitions_total": 1,
            }
        )

    try:
        capture = await session.store.capture(packing.slabs)
        try:
            writer = SetWriter(session.repository, task.identity, job, packing)
            await writer.write_lists(set_lists(session.repository, task.identity, task.info))
            receipt = await writer.write(
                capture,
                task.previous,
                task.resumed,
                now_us=session.clock.now_us,
                progress=progress,
                phase=lambda name: session.emit(Phase("backup", name)),
            )
        finally:
            await asyncio.shield(capture.aclose())
    finally:
        packing.close()
    return {
        "start_lsn": receipt.facts.start_lsn,
        "end_lsn": receipt.facts.end_lsn,
        "end_scn": receipt.facts.end_scn,
        "macro_block_count": receipt.macro_block_count,
        "reused_macro_block_count": receipt.reused_macro_block_count,
        "input_bytes": (receipt.macro_block_count - receipt.reused_macro_block_count) * MACRO_BLOCK_SIZE
        + receipt.meta_bytes,
        "output_bytes": receipt.output_bytes,
        "root_digest": receipt.root.digest.hex(),
    }


def _packing(session: Session) -> Packing:
    settings, target = session.settings, session.repository.target
    limits = Limits(
        memory=settings.memory,
        part_size=settings.part_size,
        concurrency=settings.concurrency,
        workers=settings.workers,
        retry_for=settings.retry_for,
        file_timeout=settings.file_timeout,
    )
    count = settings.processes or processes_for(settings.workers)
    if count > 1 and settings.dest is not None:
        least = target.capabilities.min_part
        # Begun before this: the list of backups has been written.
        proof = session.repository.layout.tenant_data_backup_info(session.repository.tenant_id)
        return ManyProcesses(settings.dest, settings.objects, pace_file(settings), least, limits, count, proof=proof)
    return OneProcess(target, limits)
