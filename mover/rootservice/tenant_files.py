"""What a backup says about the tenant beside its data: names, locality, PG lists."""

from __future__ import annotations

import re

from mover.clock import iso_from_us
from mover.media.backup_info import BackupInfo
from mover.media.pg_list import encode_pg_list
from mover.media.tenant_info import (
    TenantInfo,
    TenantLocality,
    TenantNames,
    decode_tenant_infos,
    decode_tenant_names,
    encode_tenant_diagnose,
    encode_tenant_infos,
    encode_tenant_locality,
    encode_tenant_names,
    upsert_tenant,
)
from mover.repository.tree import Repository
from mover.store.base import StoreIdentity

MYSQL_MODE = 0


def cluster_version(text: str) -> int:
    """OceanBase's packed version: ``4.3.5.3`` is major << 32 | minor << 16 | patch << 8 | fix."""
    numbers = [int(part) for part in re.findall(r"\d+", text)[:4]]
    major, minor, patch, fix = [*numbers, 0, 0, 0, 0][:4]
    return major << 32 | minor << 16 | (patch & 0xFF) << 8 | fix & 0xFF


async def write_tenant_files(repository: Repository, identity: StoreIdentity, info: BackupInfo) -> None:
    """Bring the cluster's ``tenant_info`` and ``tenant_name_info`` up to date. Idempotent."""
    layout, tenant = repository.layout, repository.tenant_id
    snapshot = info.backup_snapshot_version
    tenants = await repository.read(layout.tenant_info(), decode_tenant_infos) or ()
    new = TenantInfo(tenant, 0, 0, MYSQL_MODE, identity.tenant_name, snapshot)
    await repository.write(layout.tenant_info(), encode_tenant_infos(upsert_tenant(tenants, new)))
    names = await repository.read(layout.tenant_name_info(), decode_tenant_names) or TenantNames(0, ())
    if names.resolve(identity.tenant_name, snapshot) != tenant:
        names = names.add(identity.tenant_name, tenant, snapshot, max(names.schema_version, snapshot))
        await repository.write(layout.tenant_name_info(), encode_tenant_names(names))


def set_lists(repository: Repository, identity: StoreIdentity, info: BackupInfo) -> dict[str, bytes]:
    """The small files of a set, by path: which PGs are in it, and the tenant's locality for people and restores."""
    layout, tenant = repository.layout, repository.tenant_id
    full, own, snapshot = info.full_backup_set_id, info.inc_backup_set_id, info.backup_snapshot_version
    locality = TenantLocality(
        tenant_id=tenant,
        backup_set_id=own,
        backup_snapshot_version=snapshot,
        compat_mode=MYSQL_MODE,
        tenant_name=identity.tenant_name,
        locality="FULL{1}@zone1",
        primary_zone="zone1",
    )
    lines = [
        f"backup: set {own} of full set {full}, type {info.backup_type}, begun {iso_from_us(snapshot)}",
        f"server: {identity.kind} {identity.version} at {identity.server_ip}:{identity.server_port}",
        f"locality: {locality.locality}, primary zone {locality.primary_zone}",
    ]
    return {
        layout.sys_pg_list(tenant, full, own): encode_pg_list(()),
        layout.normal_pg_list(tenant, full, own): encode_pg_list((identity.pg,)),
        layout.tenant_locality_info(tenant, full, own): encode_tenant_locality(locality),
        layout.tenant_diagnose_info(tenant, full, own): encode_tenant_diagnose(tenant, lines),
    }
