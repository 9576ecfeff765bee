"""The tenants at a destination, and their part of the tree."""

from __future__ import annotations

from dataclasses import replace

from mover.media.layout import SYS_TENANT_ID
from mover.media.tenant_info import TenantNames, decode_tenant_names, encode_tenant_names
from mover.repository.tree import Repository


def of_tenant(repository: Repository, tenant_id: int) -> Repository:
    """The same tree as another tenant's."""
    return replace(repository, tenant_id=tenant_id)


async def load_names(repository: Repository) -> TenantNames:
    """``tenant_name_info``; empty when there is none."""
    return await repository.read(repository.layout.tenant_name_info(), decode_tenant_names) or TenantNames(0, ())


async def note_names(repository: Repository, names: dict[str, int], at_us: int) -> None:
    """Say that from ``at_us`` on tenants have these names. Writes nothing when that is known. Idempotent."""
    known = await load_names(repository)
    after = known
    for name, tenant_id in names.items():
        if after.resolve(name, at_us) != tenant_id:
            after = after.add(name, tenant_id, at_us, max(after.schema_version, at_us))
    if after != known:
        await repository.write(repository.layout.tenant_name_info(), encode_tenant_names(after))


async def known_tenants(repository: Repository) -> list[int]:
    """Every tenant that was ever archived or backed up here, the sys tenant first."""
    names = await load_names(repository)
    found = {item.tenant_id for name in names.names for item in name.id_list}
    return sorted(found | {SYS_TENANT_ID})
