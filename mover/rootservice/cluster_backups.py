"""The verbs of data backup for a cluster; see :mod:`mover.rootservice.backup`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mover.errors import PreconditionError
from mover.events import Notice, Phase
from mover.media.archive_info import ArchiveRound
from mover.media.backup_info import BackupInfo
from mover.media.layout import SYS_TENANT_ID
from mover.repository.archive_state import load_cluster_record
from mover.rootservice import archive
from mover.rootservice.cluster_backup import ClusterBackup
from mover.rootservice.cluster_set import TenantSet
from mover.rootservice.lease import Lease
from mover.rootservice.same_destination import require_mount_file
from mover.rootservice.session import Session
from mover.store.cluster import Cluster

POLL_SECONDS = 2.0  # each time the archive of every PG is looked at


@dataclass(frozen=True, slots=True)
class ClusterSets:
    """What one backup of a cluster made, or would make: a set per tenant."""

    sets: tuple[TenantSet, ...]
    restorable: bool
    planned: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def info(self) -> BackupInfo:
        """Of any of the sets: they have one number."""
        return self.sets[0].info

    def as_json(self) -> dict[str, Any]:
        name = "plan" if self.planned else "sets"
        more = {} if self.planned else {"restorable": self.restorable}
        return {name: [found.as_json() | more for found in self.sets]}


async def run(
    session: Session,
    cluster: Cluster,
    lease: Lease,
    round_info: ArchiveRound,
    *,
    incremental: bool,
    plan: bool,
    stop: asyncio.Event,
    tenants: Sequence[str],
) -> ClusterSets:
    """Take a backup of all tenants, or of those named, under one number.

    Args:
        tenants: names or ids; empty for all.

    Raises:
        PreconditionError: there is no such tenant, or -9040 when the round does not have the log that a PG needs.
        SourceError: merges replaced what was copied.
    """
    await require_mount_file(session.repository, round_info)
    wanted = await _tenants(cluster, tenants)
    backup = ClusterBackup(session, cluster, lease, round_info.round_id, stop)
    try:
        sets = await backup.prepare(incremental=incremental, wanted=wanted)
        if plan:
            return ClusterSets(tuple(sets), restorable=True, planned=True)
        sets = await backup.run(sets)
    finally:
        await backup.aclose()
    return ClusterSets(tuple(sets), restorable=await _passed(session, cluster, sets, round_info.round_id, stop))


async def _tenants(cluster: Cluster, names: Sequence[str]) -> frozenset[int]:
    known = {str(tenant.tenant_id): tenant.tenant_id for tenant in await cluster.tenants()}
    known |= {tenant.name: tenant.tenant_id for tenant in await cluster.tenants()}
    for name in names:
        if name not in known:
            hint = "the sys tenant is not backed up" if name in {"1", "sys"} else "see __all_tenant"
            raise PreconditionError(f"the source has no tenant {name!r} to back up", hint=hint)
    return frozenset(known[name] for name in names)


async def _passed(
    session: Session, cluster: Cluster, sets: Sequence[TenantSet], round_id: int, stop: asyncio.Event
) -> bool:
    """True once the archive of every tenant has passed the snapshot of the sets: then they can be restored."""
    snapshot = max(found.info.backup_snapshot_version for found in sets)
    wanted = {found.tenant.tenant_id for found in sets} - {SYS_TENANT_ID}
    session.emit(Phase("backup", "wait-archive", f"until {snapshot} us"))
    deadline = session.clock.monotonic() + session.settings.archive_wait
    while not stop.is_set():
        record = await load_cluster_record(session.repository, round_id)
        shares = record.tenants if record else {}
        behind = [t for t in wanted if t not in shares or shares[t].checkpoint_us < snapshot]
        if not behind:
            return True
        ours = await archive.catch_up_cluster(session, cluster)
        if session.clock.monotonic() > deadline or (ours and not session.settings.archive_wait):
            break
        await session.clock.sleep(POLL_SECONDS)
    text = "the sets are complete, but not restorable yet: the archive has not passed their snapshot"
    session.emit(Notice("backup", text, "see `mover archivelog status`; keep `mover archivelog run` going"))
    return False
