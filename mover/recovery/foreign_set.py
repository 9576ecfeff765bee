"""What a backup of a foreign tree says of itself: its PG lists, and its metas against their index.

No manifest vouches for it; the formats do. An index that ends too early is how a task ended that was tried again: what
it lacks, that of a later task has.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from mover.errors import IntegrityError, MoverError, TargetNotFound
from mover.media.frames import FrameReader
from mover.media.header import DataType
from mover.media.layout import FileKind
from mover.media.meta import MetaIndex, MetaType, iter_meta_index, iter_meta_records
from mover.media.pg import PGKey
from mover.media.pg_list import decode_pg_list
from mover.recovery.findings import Damage, Findings, Read
from mover.recovery.foreign_tree import SetDir, TenantTree, TreeFile
from mover.target.base import Target

_PG_META = {MetaType.PARTITION_GROUP_META, MetaType.PARTITION_GROUP_META_INFO}
_LISTS = ("sys_pg_list", "normal_pg_list")


@dataclass(slots=True)
class SetContent:
    """What one backup says of itself: its PGs, and where the metas of each are (the newest entry counts)."""

    number: int
    directory: SetDir
    pgs: tuple[PGKey, ...] = ()
    metas: dict[tuple[int, int, int], MetaIndex] = field(default_factory=dict)  # by meta type, table, partition


async def read_lists(
    target: Target, tenant: TenantTree, found: SetDir, number: int, read: Read
) -> tuple[SetContent, Findings]:
    """The PGs that a backup holds. Damage is collected."""
    content, findings = SetContent(number, found), Findings()
    files = found.backups.get(number, {})
    where = {"tenant_id": tenant.tenant_id, "sets": [number]}
    pgs: list[PGKey] = []
    for name in _LISTS:
        if name not in files:
            path = f"{_directory(found, number)}/{name}"
            findings.damages.append(Damage(path, 0, "TargetNotFound", f"{path} is missing", dict(where)))
            continue
        file = files[name]
        try:
            data = await target.get(file.path)
            read(file.path, len(data))
            pgs += decode_pg_list(data, strict=False)
        except (IntegrityError, TargetNotFound) as exc:
            findings.damages.append(Damage.of(exc, file.path, **where))
    content.pgs = tuple(dict.fromkeys(pgs))
    return content, findings


async def read_set(
    target: Target, tenant: TenantTree, found: SetDir, number: int, read: Read
) -> tuple[SetContent, Findings]:
    """PG lists and metas of a backup, checked against each other and against the meta files. Damage is collected."""
    content, findings = await read_lists(target, tenant, found, number, read)
    where: dict[str, object] = {"tenant_id": tenant.tenant_id, "sets": [number]}
    await _metas(target, content, found.backups.get(number, {}), findings, where, read)
    for pg in content.pgs:
        if not any((kind, pg.table_id, partition_of(pg)) in content.metas for kind in _PG_META):
            text = f"PG {pg} of set {number} has no meta"
            damage = Damage(_directory(found, number), 0, "IntegrityError", text, {**where, "pg": str(pg)})
            findings.damages.append(damage)
    return content, findings


def _directory(found: SetDir, number: int) -> str:
    """Where the lists and metas of a backup are."""
    files = found.backups.get(number)
    return next(iter(files.values())).path.rpartition("/")[0] if files else found.path


def missing_index(content: SetContent) -> str:
    """By names alone: why a PG of a backup has no macro index, or "" when each has one."""
    indexed: set[tuple[int, int]] = set()
    for macro in content.directory.macro.values():
        if content.number in macro.indexes:
            indexed.add(macro.pg)
        elif any(number == content.number for number, _ in macro.files):
            return f"{macro.path}/macro_block_index_{content.number} is missing"
        subs = [sub for number, sub in macro.files if number == content.number]
        if subs and len(subs) <= max(subs):
            return f"a macro file of {macro.path} is missing: there are {len(subs)} up to number {max(subs)}"
    for pg in content.pgs:
        if (pg.table_id, partition_of(pg)) not in indexed:
            return f"PG {pg} has no macro index"
    return ""


_TWO_LEVELS = 1 << 28


def partition_of(pg: PGKey) -> int:
    """The number of the PG in directory names and meta indexes.

    Of a partition of two levels both ids carry a bit (2^28), and the number is the two of them side by side: as public
    listings show such partitions (1152921504875282432 is the first); the code that makes it was not read.
    """
    if pg.part_id & _TWO_LEVELS and pg.assist_id & _TWO_LEVELS:
        return pg.part_id << 32 | pg.assist_id
    return pg.part_id


async def _metas(
    target: Target,
    content: SetContent,
    files: dict[str, TreeFile],
    findings: Findings,
    where: dict[str, object],
    read: Read,
) -> None:
    listed: dict[int, set[int]] = {}  # offsets that the whole index of a task names
    tasks = sorted(f.place.task_id or 0 for name, f in files.items() if name.startswith("meta_index_file_"))
    for task in tasks:
        path = files[f"meta_index_file_{task}"].path
        entries, error = await _meta_index(target, path, read)
        # A torn index is the end of an attempt that failed: what it lacks, a later task has.
        if error is not None:
            later = task != tasks[-1] and is_cut(error)
            (findings.notes if later else findings.damages).append(Damage.of(error, path, **where))
        strange = next((entry for entry in entries if entry.task_id != task), None)
        if strange is not None:
            text = f"{path} is of task {task}, and holds an entry of task {strange.task_id}"
            findings.damages.append(Damage(path, 0, "IntegrityError", text, dict(where)))
            continue
        if error is None:
            listed[task] = {entry.offset for entry in entries}
        for entry in entries:
            content.metas[entry.meta_type, entry.table_id, entry.partition_id] = entry
    for name, one in files.items():
        lost = f"meta_index_file_{one.place.task_id}"
        if one.place.kind is FileKind.META_FILE and lost not in files:
            path = f"{_directory(content.directory, content.number)}/{lost}"
            text = f"{path} is missing, {name} is there"
            findings.damages.append(Damage(path, 0, "TargetNotFound", text, dict(where)))
    wanted: dict[int, dict[int, MetaIndex]] = {task: {} for task in listed}
    for entry in content.metas.values():
        wanted.setdefault(entry.task_id, {})[entry.offset] = entry
    for task, entries_at in sorted(wanted.items()):
        file = files.get(f"meta_file_{task}")
        if file is None:
            directory = _directory(content.directory, content.number)
            text = f"{directory}/meta_file_{task} is missing, and the index names {len(entries_at)} records in it"
            findings.damages.append(Damage(f"{directory}/meta_file_{task}", 0, "TargetNotFound", text, dict(where)))
            continue
        try:
            unnamed = await _meta_file(target, file, entries_at, listed.get(task))
            read(file.path, file.size)
            if unnamed:
                path = f"{_directory(content.directory, content.number)}/meta_index_file_{task}"
                text = f"{path} does not name {unnamed} records of {file.path}"
                findings.damages.append(Damage(path, 0, "IntegrityError", text, dict(where)))
        except (IntegrityError, TargetNotFound) as exc:
            findings.damages.append(Damage.of(exc, file.path, **where))


def is_cut(error: MoverError) -> bool:
    """A file that only ends too early, as when its writer died."""
    return "end mark missing" in error.message or "torn frame" in error.message


async def _meta_index(target: Target, path: str, read: Read) -> tuple[list[MetaIndex], IntegrityError | None]:
    entries: list[MetaIndex] = []
    reader = FrameReader(DataType.META_INDEX, strict=False)
    size = 0
    try:
        async for piece in target.stream(path):
            size += len(piece)
            for frame in reader.feed(piece):
                entries.extend(iter_meta_index([frame], strict=False))
        read(path, size)
        reader.finish()
    except TargetNotFound as exc:
        return entries, IntegrityError(exc.message, path=path)
    except IntegrityError as exc:
        return entries, exc
    return entries, None


async def _meta_file(target: Target, file: TreeFile, entries: dict[int, MetaIndex], listed: set[int] | None) -> int:
    """Every record decodes, and those that the index names are whole records of its type.

    Args:
        listed: offsets that the index of the same task names; None when that is not whole.

    Returns how many records that index does not name.
    """
    unnamed = 0
    reader = FrameReader(DataType.META, strict=False)
    left = dict(entries)

    def take(piece: bytes) -> None:
        nonlocal unnamed
        for frame in reader.feed(piece):
            for record in iter_meta_records([frame], strict=False):
                unnamed += listed is not None and record.offset not in listed
                entry = left.pop(record.offset, None)
                if entry is not None and (entry.data_length, entry.meta_type) != (record.length, record.meta_type):
                    raise IntegrityError(
                        f"the index says {entry.data_length} bytes of type {entry.meta_type} at offset"
                        f" {record.offset}, there are {record.length} of type {record.meta_type}",
                        offset=record.offset,
                    )

    async for piece in target.stream(file.path):
        await asyncio.to_thread(take, piece)
    reader.finish()
    if left:
        entry = next(iter(left.values()))
        raise IntegrityError(
            f"the index names a meta record of PG {entry.table_id}/{entry.partition_id} at offset {entry.offset},"
            " where none begins",
            offset=entry.offset,
        )
    return unnamed
