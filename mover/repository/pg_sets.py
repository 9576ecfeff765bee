"""What an older backup set of a cluster has of a PG: the blocks of its majors, and where their bytes are."""

from __future__ import annotations

from typing import Any

from mover.errors import IntegrityError, TargetNotFound
from mover.media.backup_info import BackupInfo
from mover.media.frames import iter_frames
from mover.media.header import DataType
from mover.media.macro import MacroIndex, iter_macro_index
from mover.media.pg import PGKey
from mover.media.pg_meta import iter_pg_metas
from mover.repository.tree import Repository, decode_named, name_file
from mover.store.cluster import BlockKey

META_TASK_ID = 1
TableId = tuple[int, int, int]


async def load_pg_facts(repository: Repository, info: BackupInfo) -> dict[tuple[int, int], dict[str, Any]]:
    """What a set that mover wrote says of each PG, by (table id, partition id).

    Raises IntegrityError, also for a set that mover did not write.
    """
    full, own = info.full_backup_set_id, info.inc_backup_set_id
    path = repository.layout.meta_file(repository.tenant_id, full, own, META_TASK_ID)
    try:
        data = await repository.target.get(path)
    except TargetNotFound:
        raise IntegrityError(f"{path}: missing at the destination", path=path) from None
    facts = decode_named(path, data, lambda raw: list(iter_pg_metas(raw)))
    return {(int(pg["table_id"]), int(pg["partition_id"])): pg for pg in facts}


async def load_known(
    repository: Repository, info: BackupInfo, pg: PGKey, facts: dict[str, Any]
) -> tuple[dict[TableId, dict[BlockKey, MacroIndex]], int]:
    """Where each block of the PG's majors is, for a set that builds on this one, and how many are not there any more.

    Args:
        facts: what the set says of the PG: it has the checksums that the index does not have.

    Raises IntegrityError when index or facts are damaged.
    """
    path = repository.layout.macro_block_index(
        repository.tenant_id, info.full_backup_set_id, pg, info.inc_backup_set_id
    )
    try:
        data = await repository.target.get(path)
    except TargetNotFound:
        raise IntegrityError(f"{path}: missing at the destination", path=path) from None
    sums = {tuple(row["table"]): row["blocks"] for row in facts["majors"]}
    known: dict[TableId, dict[BlockKey, MacroIndex]] = {}
    lost = 0
    sizes = {info.path: info.size async for info in repository.files(path.rpartition("/")[0])}
    try:
        for head, entry in iter_macro_index(iter_frames(data, data_type=DataType.MACRO_DATA_INDEX)):
            key = head.table_key
            table = (key.table_id, key.pkey.table_id, key.pkey.partition_id)
            if entry is None or table not in sums:
                continue
            file = repository.layout.macro_block(
                repository.tenant_id, info.full_backup_set_id, pg, entry.backup_set_id, entry.sub_task_id
            )
            if sizes.get(file, 0) < entry.offset + entry.data_length:
                lost += 1
                continue
            checksum, size = sums[table][entry.sstable_macro_index]
            block = BlockKey(entry.data_version, entry.data_seq, checksum, size)
            known.setdefault(table, {})[block] = entry
    except IntegrityError as exc:
        raise name_file(exc, path) from None
    except (IndexError, TypeError, ValueError):
        raise IntegrityError(f"{path}: its entries are not those of the set's meta file", path=path) from None
    return known, lost
