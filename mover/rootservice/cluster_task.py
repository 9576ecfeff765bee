"""The rows of a cluster's backup in the catalog: one per tenant, and tenant 1's for the whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import update

from mover.datapath.pg_set_writer import PGCounters
from mover.errors import MoverError, UnreachableError
from mover.media.backup_info import BackupType
from mover.media.layout import SYS_TENANT_ID
from mover.rootservice.catalog_tables import backup_task
from mover.rootservice.cluster_set import TenantSet
from mover.rootservice.lease import Lease
from mover.rootservice.session import Session
from mover.store.base import MACRO_BLOCK_SIZE

LOOK_SECONDS = 1.0


class ClusterTask:
    """One backup's rows. The catalog is an index: that it does not answer ends no backup."""

    def __init__(self, session: Session, lease: Lease, sets: Sequence[TenantSet], pg_counts: Mapping[int, int]) -> None:
        self._session = session
        self._lease = lease
        self._sets = sets
        self._pg_counts = pg_counts
        self._number = sets[0].info.inc_backup_set_id

    async def begin(self) -> None:
        """Insert the rows; what dead coordinators left unfinished is finished."""
        now, every = self._session.clock.now_us(), {found.tenant.tenant_id: found for found in self._sets}
        letter = "I" if all(f.info.backup_type == BackupType.INCREMENTAL for f in self._sets) else "D"
        counts = {SYS_TENANT_ID: sum(self._pg_counts.values()), **self._pg_counts}
        async with self._session.catalog.begin() as connection:
            await self._lease.guard(connection)
            dead = {"status": "FINISH", "result": -1, "comment": "its coordinator died", "end_time": now}
            await connection.execute(update(backup_task).where(backup_task.c.status != "FINISH").values(**dead))
            for tenant, count in counts.items():
                kind = BackupType(every[tenant].info.backup_type).letter if tenant in every else letter
                row = {"tenant_id": tenant, "backup_set_id": self._number, "backup_type": kind, "status": "DOING"}
                row |= {"result": 0, "comment": "", "pg_count": count, "partition_count": count}
                row |= {"owner_epoch": self._lease.epoch, "start_time": now, "end_time": 0}
                await self._session.catalog.upsert(connection, backup_task, row)

    async def watch(self, done: Callable[[], PGCounters], cancel: asyncio.Event) -> None:
        """Until it is cancelled itself: note progress, and set ``cancel`` once `mover backup cancel` asked for it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                rows = await self._session.catalog.rows(
                    backup_task, tenant_id=SYS_TENANT_ID, backup_set_id=self._number
                )
                if rows and rows[0]["status"] == "CANCEL":
                    cancel.set()
                    return
                await self._update(SYS_TENANT_ID, _columns(done()))
            except UnreachableError:
                continue
            except MoverError:
                return  # the lease is lost: the backup itself finds that out

    async def finish(self, result: int, comment: str) -> None:
        """The end of the backup, good (0) or bad."""
        now = self._session.clock.now_us()
        end = {"status": "FINISH", "result": result, "comment": comment, "end_time": now}
        total = PGCounters()
        for found in self._sets:
            for name in ("blocks", "reused", "input_bytes", "output_bytes"):
                setattr(total, name, getattr(total, name) + getattr(found.counters, name))
            await self._update(
                found.tenant.tenant_id, end | self._ended(found.tenant.tenant_id, found.counters, result)
            )
        await self._update(SYS_TENANT_ID, end | self._ended(SYS_TENANT_ID, total, result))

    def _ended(self, tenant: int, counters: PGCounters, result: int) -> dict[str, Any]:
        count = sum(self._pg_counts.values()) if tenant == SYS_TENANT_ID else self._pg_counts[tenant]
        return _columns(counters) | ({} if result else {"finish_pg_count": count, "finish_partition_count": count})

    async def _update(self, tenant: int, values: Mapping[str, Any]) -> None:
        async with self._session.catalog.begin() as connection:
            await self._lease.guard(connection)
            await connection.execute(
                update(backup_task)
                .where(backup_task.c.tenant_id == tenant)
                .where(backup_task.c.backup_set_id == self._number)
                .values(**values)
            )


def _columns(done: PGCounters) -> dict[str, int]:
    return {
        "finish_macro_block_count": done.blocks,
        "reused_macro_block_count": done.reused,
        "input_bytes": (done.blocks - done.reused) * MACRO_BLOCK_SIZE,
        "output_bytes": done.output_bytes,
    }
