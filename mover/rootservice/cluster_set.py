"""The sets of a cluster's backup: numbers and types, the records that announce and publish them, their small files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mover.clock import iso_from_us
from mover.datapath.pg_set_writer import PGCounters
from mover.errors import StateError
from mover.events import Notice
from mover.media.backup_info import (
    COMPATIBLE_310,
    BackupInfo,
    BackupStatus,
    BackupType,
    begin_backup,
    last_success,
    next_set_id,
)
from mover.media.pg import PGKey
from mover.media.pg_list import encode_pg_list
from mover.media.set_info import BackupSetInfo, append_set_info, encode_set_infos
from mover.media.tenant_info import (
    TenantInfo,
    TenantLocality,
    decode_tenant_infos,
    encode_tenant_diagnose,
    encode_tenant_infos,
    encode_tenant_locality,
    upsert_tenant,
)
from mover.repository.remains import remove_remains
from mover.repository.sets import (
    load_cluster_infos,
    load_infos,
    load_set_infos,
    publish_cluster_infos,
    publish_infos,
)
from mover.repository.tenants import known_tenants, note_names, of_tenant
from mover.repository.tree import Repository
from mover.rootservice.lease import Lease
from mover.rootservice.session import Session
from mover.rootservice.tenant_files import cluster_version
from mover.store.base import MACRO_BLOCK_SIZE
from mover.store.cluster import ClusterIdentity, ClusterTenant


@dataclass(slots=True)
class TenantSet:
    """One tenant's part of a backup."""

    tenant: ClusterTenant
    repository: Repository
    info: BackupInfo
    previous: BackupInfo | None  # what an incremental builds on
    stale: tuple[BackupInfo, ...]
    cluster: ClusterIdentity
    counters: PGCounters = field(default_factory=PGCounters)
    pg_count: int = 0

    def as_json(self) -> dict[str, Any]:
        """The set as it is shown."""
        return {
            "tenant_id": self.tenant.tenant_id,
            "backup_set_id": self.info.inc_backup_set_id,
            "full_backup_set_id": self.info.full_backup_set_id,
            "prev_backup_set_id": self.info.prev_inc_backup_set_id,
            "backup_type": BackupType(self.info.backup_type).letter,
            "status": BackupStatus(self.info.status).name,
            "backup_data_version": self.info.backup_data_version,
            "min_restore_time": iso_from_us(self.info.backup_snapshot_version),
            "pg_count": self.pg_count,
            "macro_block_count": self.counters.blocks,
            "reused_macro_block_count": self.counters.reused,
            "input_bytes": (self.counters.blocks - self.counters.reused) * MACRO_BLOCK_SIZE,
            "read_bytes": self.counters.input_bytes,
            "output_bytes": self.counters.output_bytes,
        }


async def decide(
    session: Session,
    cluster: ClusterIdentity,
    tenants: Sequence[ClusterTenant],
    freeze: tuple[int, int, int],
    *,
    data_version: int,
    snapshot: int,
    incremental: bool,
) -> list[TenantSet]:
    """Number and type of each tenant's set: one number for all, and full where there is nothing to build on."""
    lists = [await load_infos(of_tenant(session.repository, n)) for n in await known_tenants(session.repository)]
    number = next_set_id(await load_cluster_infos(session.repository), *lists)
    sets = []
    for tenant in tenants:
        repository = of_tenant(session.repository, tenant.tenant_id)
        infos = await load_infos(repository)
        base = last_success(infos) if incremental else None
        if incremental and base is None:
            text = f"tenant {tenant.name} has no complete backup to build on: the incremental becomes a full"
            session.emit(Notice("backup", text))
        good = max((i.inc_backup_set_id for i in infos if i.status == BackupStatus.SUCCESS), default=0)
        stale = tuple(i for i in infos if i.status != BackupStatus.SUCCESS and i.inc_backup_set_id > good)
        info = _info(number, base, freeze, data_version, snapshot, cluster.version)
        sets.append(TenantSet(tenant, repository, info, base, stale, cluster))
    return sets


def _info(
    number: int, base: BackupInfo | None, freeze: tuple[int, int, int], version: int, snapshot: int, server: str
) -> BackupInfo:
    return BackupInfo(
        full_backup_set_id=base.full_backup_set_id if base else number,
        inc_backup_set_id=number,
        backup_data_version=version,
        backup_snapshot_version=snapshot,
        backup_schema_version=freeze[2],
        frozen_snapshot_version=freeze[1],
        frozen_schema_version=freeze[2],
        prev_full_backup_set_id=base.full_backup_set_id if base else 0,
        prev_inc_backup_set_id=base.inc_backup_set_id if base else 0,
        prev_backup_data_version=base.backup_data_version if base else 0,
        compatible=COMPATIBLE_310,
        cluster_version=cluster_version(server),
        backup_type=BackupType.INCREMENTAL if base else BackupType.FULL,
        status=BackupStatus.DOING,
    )


def _of_cluster(sets: Sequence[TenantSet], known: Sequence[BackupInfo]) -> BackupInfo:
    """The row of tenant 1: an incremental when all tenants' are."""
    first = sets[0].info
    base = last_success(known)
    whole = base is None or any(found.info.backup_type == BackupType.FULL for found in sets)
    return dataclasses.replace(
        first,
        full_backup_set_id=first.inc_backup_set_id if whole or base is None else base.full_backup_set_id,
        backup_type=BackupType.FULL if whole else BackupType.INCREMENTAL,
        prev_full_backup_set_id=base.full_backup_set_id if base and not whole else 0,
        prev_inc_backup_set_id=base.inc_backup_set_id if base and not whole else 0,
        prev_backup_data_version=base.backup_data_version if base and not whole else 0,
    )


async def announce(session: Session, sets: Sequence[TenantSet]) -> None:
    """Every set is DOING from now on, the cluster's row first; what dead backups left is removed."""
    infos = await load_cluster_infos(session.repository)
    await publish_cluster_infos(session.repository, begin_backup(infos, _of_cluster(sets, infos)))
    for found in sets:
        await publish_infos(found.repository, begin_backup(await load_infos(found.repository), found.info))
        for stale in found.stale:
            removed, _ = await remove_remains(found.repository, stale)
            if removed:
                text = f"backup set {stale.inc_backup_set_id} was never finished: {removed} files of it removed"
                session.emit(Notice("backup", text))
    snapshot = sets[0].info.backup_snapshot_version
    path = session.repository.layout.tenant_info()
    tenants = await session.repository.read(path, decode_tenant_infos) or ()
    for found in sets:
        tenant = found.tenant
        new = TenantInfo(tenant.tenant_id, 0, 0, tenant.compatibility_mode, tenant.name, snapshot)
        tenants = upsert_tenant(tenants, new)
    await session.repository.write(path, encode_tenant_infos(tenants))
    await note_names(session.repository, {s.tenant.name: s.tenant.tenant_id for s in sets}, session.clock.now_us())


async def write_lists(found: TenantSet, pgs: Sequence[PGKey]) -> None:
    """PG lists and what is said about the tenant."""
    repository, info, tenant = found.repository, found.info, found.tenant
    layout, full, own = repository.layout, info.full_backup_set_id, info.inc_backup_set_id
    number, snapshot = tenant.tenant_id, info.backup_snapshot_version
    locality = TenantLocality(
        number, own, snapshot, tenant.compatibility_mode, tenant.name, tenant.locality, tenant.primary_zone
    )
    lines = [
        f"backup: set {own} of full set {full}, type {info.backup_type}, snapshot {iso_from_us(snapshot)}",
        f"cluster: {found.cluster.cluster_name} {found.cluster.version}, data version {info.backup_data_version}",
    ]
    files = {
        layout.sys_pg_list(number, full, own): encode_pg_list(()),
        layout.normal_pg_list(number, full, own): encode_pg_list(tuple(sorted(pgs))),
        layout.tenant_locality_info(number, full, own): encode_tenant_locality(locality),
        layout.tenant_diagnose_info(number, full, own): encode_tenant_diagnose(number, lines),
    }
    for path, data in files.items():
        await repository.target.put(path, data, if_absent=True)


async def finish(session: Session, lease: Lease, sets: Sequence[TenantSet]) -> None:
    """Statistics first, then SUCCESS, and the cluster's row last. The snapshot is known only now."""
    for found in sets:
        info = found.info
        stats = BackupSetInfo(
            backup_set_id=info.inc_backup_set_id,
            backup_snapshot_version=info.backup_snapshot_version,
            compatible=info.compatible,
            pg_count=found.pg_count,
            macro_block_count=found.counters.blocks,
            input_bytes=(found.counters.blocks - found.counters.reused) * MACRO_BLOCK_SIZE,
            output_bytes=found.counters.output_bytes,
            cluster_version=info.cluster_version,
        )
        repository = found.repository
        old = await load_set_infos(repository, info.full_backup_set_id)
        path = repository.layout.backup_set_info(repository.tenant_id, info.full_backup_set_id)
        lease.check()
        await repository.write(path, encode_set_infos(append_set_info(old, stats)))
    await lease.renew()
    for found in sets:
        found.info = dataclasses.replace(found.info, status=BackupStatus.SUCCESS)
        infos = _last_replaced(await load_infos(found.repository), found.info)
        await publish_infos(found.repository, infos)
    infos = await load_cluster_infos(session.repository)
    snapshot = sets[0].info.backup_snapshot_version
    done = dataclasses.replace(infos[-1], status=BackupStatus.SUCCESS, backup_snapshot_version=snapshot)
    infos = _last_replaced(infos, done)
    await publish_cluster_infos(session.repository, infos)


async def fail(session: Session, sets: Sequence[TenantSet]) -> None:
    """The sets are FAILED, and what they wrote is removed."""
    number = sets[0].info.inc_backup_set_id
    lists = [(found.repository, await load_infos(found.repository), publish_infos) for found in sets]
    lists.append((session.repository, await load_cluster_infos(session.repository), publish_cluster_infos))
    for repository, infos, publish in lists:
        if infos and infos[-1].inc_backup_set_id == number:
            await publish(repository, (*infos[:-1], dataclasses.replace(infos[-1], status=BackupStatus.FAILED)))
    for found in sets:
        await remove_remains(found.repository, found.info)


def _last_replaced(infos: tuple[BackupInfo, ...], info: BackupInfo) -> tuple[BackupInfo, ...]:
    if not infos or infos[-1].inc_backup_set_id != info.inc_backup_set_id or infos[-1].status != BackupStatus.DOING:
        raise StateError(
            f"backup {info.inc_backup_set_id} is not the one that runs",
            hint="another coordinator took over; look with `mover show sets`",
        )
    return (*infos[:-1], info)
