"""What an interrupted backup has at the destination already, and can go on with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mover.errors import EncryptionKeyError, IntegrityError
from mover.media.backup_info import BackupInfo, BackupStatus
from mover.media.layout import FileKind
from mover.media.pg import PGKey
from mover.media.sealed import Opening
from mover.media.written import Written
from mover.repository.placement import Placement, WrittenFile
from mover.repository.tree import Repository
from mover.store.base import BlockIdentity
from mover.target.base import ObjectInfo

# An earlier attempt that only seemed dead may still be writing its next files: a new one leaves it room for a terabyte.
_SPARE_SUBS = 1 << 10


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An interrupted backup. ``placements`` by block index, of blocks whose macro file is there as it was published."""

    info: BackupInfo
    placements: Mapping[int, Placement]
    files: tuple[WrittenFile, ...]
    next_sub: int  # the first sub number for a macro file of the next attempt


def unfinished_backup(infos: Sequence[BackupInfo]) -> BackupInfo | None:
    """The backup that was announced and neither completed nor given up: the last one, if it says DOING. Pure.

    Only under the lease of the tenant's backups: without it somebody may be at work on it.
    """
    last = infos[-1] if infos else None
    return last if last is not None and last.status == BackupStatus.DOING else None


async def load_unfinished(
    repository: Repository, info: BackupInfo, pg: PGKey, compression: str, key_id: str
) -> Unfinished:
    """What is there of ``info``, the files of which this tenant's lease keeps others from.

    Args:
        compression: the setting's label, and ``key_id`` that of the data key, "" for none: files that were written with
            others are left out.

    Lists that do not decode, and macro files that are not as their list says, are left out: their blocks are copied
    again.
    """
    layout, tenant = repository.layout, repository.tenant_id
    full, own = info.full_backup_set_id, info.inc_backup_set_id
    sizes, next_sub = {}, 0
    async for file in repository.files(layout.pg_data_dir(tenant, full, pg)):
        parsed = layout.parse(file.path)
        if parsed is not None and parsed.kind is FileKind.MACRO_BLOCK and parsed.inc_set == own:
            sizes[file.path] = file.size
            next_sub = max(next_sub, (parsed.sub or 0) + _SPARE_SUBS)
    placements: dict[int, Placement] = {}
    files = []
    for file in await written_lists(repository, info):
        parsed = layout.parse(file.path)
        if parsed is None or (parsed.table_id, parsed.partition_id) != (pg.table_id, pg.partition_id):
            continue
        data = await repository.target.get(file.path)
        try:
            opening = Opening.of(file.path, repository.keys)
            record = await asyncio.to_thread(Written.decode, data, opening)
        except (IntegrityError, EncryptionKeyError):
            continue
        path = layout.macro_block(tenant, full, pg, own, record.sub)
        if (
            record.sub != parsed.sub
            or (record.compression, record.key_id) != (compression, key_id)
            or sizes.get(path) != record.size
        ):
            continue
        files.append(WrittenFile(path, record.size, record.digest))
        placements |= _placements(record, own)
    return Unfinished(info, placements, tuple(files), next_sub)


def _placements(record: Written, set_id: int) -> dict[int, Placement]:
    found = {}
    for block in record.blocks:
        numbers = (block.block_index, block.kind, block.used_length, block.tablet_id, block.logical_version)
        identity = BlockIdentity(*numbers, block.data_seq, block.payload_checksum)
        found[block.block_index] = Placement(identity, block.digest, set_id, record.sub, block.offset, block.length)
    return found


async def clear_for_next_attempt(repository: Repository, unfinished: Unfinished) -> None:
    """Remove what an attempt publishes only at its end, and macro files that are not gone on with. Idempotent.

    Call it after the list of backups was published anew: whoever wrote these files cannot complete the backup then.
    """
    layout, tenant, info = repository.layout, repository.tenant_id, unfinished.info
    full, own = info.full_backup_set_id, info.inc_backup_set_id
    kept = {file.path for file in unfinished.files}
    subs = {placement.sub_task_id for placement in unfinished.placements.values()}
    gone = []
    async for file in repository.files(layout.set_dir(tenant, full)):
        parsed = layout.parse(file.path)
        if parsed is None or parsed.inc_set != own or file.path in kept:
            continue
        if parsed.kind is not FileKind.WRITTEN or parsed.sub not in subs:
            gone.append(file.path)
    await repository.target.delete_many(gone)


async def written_lists(repository: Repository, info: BackupInfo) -> list[ObjectInfo]:
    """The lists of written blocks of a backup."""
    layout, tenant = repository.layout, repository.tenant_id
    lists = []
    async for file in repository.files(layout.backup_dir(tenant, info.full_backup_set_id, info.inc_backup_set_id)):
        parsed = layout.parse(file.path)
        if parsed is not None and parsed.kind is FileKind.WRITTEN:
            lists.append(file)
    return lists


async def forget_written(repository: Repository, info: BackupInfo) -> None:
    """The backup is complete: remove its lists of written blocks. Idempotent."""
    await repository.target.delete_many([file.path for file in await written_lists(repository, info)])
