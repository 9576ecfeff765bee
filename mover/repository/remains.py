"""What a backup that will never be complete left behind: found by its number, removed without its neighbours."""

from __future__ import annotations

from mover.errors import TargetLocked
from mover.media.backup_info import BackupInfo
from mover.repository.tree import Repository
from mover.target.base import ObjectInfo


async def remains_of(repository: Repository, info: BackupInfo) -> list[ObjectInfo]:
    """Every file that only this backup wrote: its own directory, and its numbers among the macro files of its set."""
    tenant, full, own = repository.tenant_id, info.full_backup_set_id, info.inc_backup_set_id
    layout = repository.layout
    found = [file async for file in repository.files(layout.backup_dir(tenant, full, own))]
    async for file in repository.files(f"{layout.set_dir(tenant, full)}/data"):
        parsed = layout.parse(file.path)
        if parsed is not None and parsed.inc_set == own:
            found.append(file)
    statistics = layout.backup_set_info(tenant, full)
    if own == full and (kept := await repository.target.stat(statistics)) is not None:
        found.append(kept)
    return found


async def remove_remains(repository: Repository, info: BackupInfo) -> tuple[int, TargetLocked | None]:
    """Delete them. Idempotent. Never call it for a set that others build on.

    Returns how many files went, and what says that the destination keeps others until a date.
    """
    found = await remains_of(repository, info)
    try:
        await repository.target.delete_many([file.path for file in found])
    except TargetLocked as locked:
        return len(found) - len(locked.locked), locked
    return len(found), None
