"""What a backup that will never be complete left behind: found by its number, removed without its neighbours."""

from __future__ import annotations

from mover.media.backup_info import BackupInfo
from mover.repository.tree import Repository


async def remains_of(repository: Repository, info: BackupInfo) -> list[str]:
    """Every file that only this backup wrote: its own directory, and its numbers among the macro files of its set."""
    tenant, full, own = repository.tenant_id, info.full_backup_set_id, info.inc_backup_set_id
    layout = repository.layout
    found = [file.path async for file in repository.files(layout.backup_dir(tenant, full, own))]
    async for file in repository.files(f"{layout.set_dir(tenant, full)}/data"):
        parsed = layout.parse(file.path)
        if parsed is not None and parsed.inc_set == own:
            found.append(file.path)
    statistics = layout.backup_set_info(tenant, full)
    if own == full and await repository.target.stat(statistics) is not None:
        found.append(statistics)
    return found


async def remove_remains(repository: Repository, info: BackupInfo) -> int:
    """Delete them; returns how many files. Idempotent. Never call it for a set that others build on."""
    paths = await remains_of(repository, info)
    for path in paths:
        await repository.target.delete(path)
    return len(paths)
