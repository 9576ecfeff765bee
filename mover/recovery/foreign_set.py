"""The backup sets of a foreign tree: PG lists, metas and macro files, index against data.

No manifest vouches for them; the formats do. Per PG the indexes of all its backups are read first and then each macro
file once, streamed: memory is the index of the PGs under way. A file that no index of a finished backup names was left
by an attempt that failed (a retry takes new names): only what such a file holds is checked, not that it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from mover.errors import FormatError, IntegrityError, MoverError, TargetNotFound
from mover.media.frames import FrameReader
from mover.media.header import DataType
from mover.media.layout import FileKind
from mover.media.macro import MacroIndex, TableKeyInfo, parse_macro
from mover.media.macro_block31 import check_block
from mover.media.macro_v1 import AnyMacroIndexDecoder
from mover.media.meta import MetaIndex, MetaType, iter_meta_index, iter_meta_records
from mover.media.pg import PGKey
from mover.media.pg_list import decode_pg_list
from mover.recovery.findings import Damage, Findings, Read
from mover.recovery.foreign_tree import MacroDir, SetDir, TenantTree, TreeFile, in_order
from mover.repository.tree import name_file
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


@dataclass(frozen=True, slots=True)
class Block:
    """One entry of a macro index: a block of an sstable, and the file that has it."""

    head: TableKeyInfo
    entry: MacroIndex
    path: str


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


def partition_of(pg: PGKey) -> int:
    """The number of the PG in directory names and meta indexes.

    OceanBase joins part and sub-part id of two-level partitions into one number; the high bits carry the sub-part's.
    """
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


# --- macro blocks ---------------------------------------------------------------------------------------------------


class _Promise(NamedTuple):
    """What an index says of a frame."""

    length: int
    table_id: int
    data_version: int
    data_seq: int


class PgBlocks:
    """The macro files of one PG over all sets of a tenant: their indexes, then their bytes.

    Args:
        contents: the finished backups that are checked.
        read: told of each file that was read.
        everything: also files that none of them points into.
    """

    def __init__(
        self,
        target: Target,
        tenant: TenantTree,
        pg: tuple[int, int],
        contents: Iterable[SetContent],
        read: Read,
        *,
        everything: bool = True,
    ) -> None:
        self._target = target
        self._tenant = tenant
        self._pg = pg
        self._contents = [c for c in contents if pg in {(key.table_id, partition_of(key)) for key in c.pgs}]
        self._read = read
        self._everything = everything
        self._dirs = [m for s in tenant.sets.values() for m in s.macro.values() if m.pg == pg]
        self._expected: dict[str, dict[int, _Promise]] = {}  # by path and offset
        self._named_by: dict[str, str] = {}  # the index that names a file
        self._users: dict[str, set[int]] = {}  # the backups that point into a file
        self._named: dict[tuple[str, int], int] = {}  # blocks of its own set that an index names, by index
        self.findings = Findings()

    @property
    def _where(self) -> dict[str, object]:
        return {"tenant_id": self._tenant.tenant_id, "pg": f"{self._pg[0]}/{self._pg[1]}"}

    async def run(self) -> None:
        """Check everything; damage goes to :attr:`findings`."""
        for content in self._contents:
            seen = False
            for macro in content.directory.macro.values():
                if macro.pg == self._pg and content.number in macro.indexes:
                    seen = True
                    await self._indexes(content, macro)
                elif macro.pg == self._pg and any(number == content.number for number, _ in macro.files):
                    seen = True
                    path = f"{macro.path}/macro_block_index_{content.number}"
                    self._damage(path, f"{path} is missing, its macro files are there", {content.number})
            if not seen:
                path = f"{content.directory.path}/data/{self._pg[0]}/{self._pg[1]}"
                text = f"PG {self._pg[0]}/{self._pg[1]} is in set {content.number}, but no macro index of it is there"
                self._damage(path, text, {content.number})
        done = {content.number for content in self._contents}
        for macro in self._dirs:
            for (number, _), file in sorted(macro.files.items()):
                if self._everything or file.path in self._expected:
                    await self._file(file, finished=number in done)
        for path in sorted(self._expected.keys() - {f.path for m in self._dirs for f in m.files.values()}):
            named = self._named_by[path]
            self._damage(path, f"{path} is missing, {named} names it", self._users[path])

    async def _indexes(self, content: SetContent, macro: MacroDir) -> None:
        try:
            async for block in read_macro_index(self._target, self._tenant, content, macro, self._read, self._note):
                offsets = self._expected.setdefault(block.path, {})
                self._named_by.setdefault(block.path, f"{macro.path}/macro_block_index_{content.number}")
                entry, key = block.entry, block.head.table_key
                if (key.pkey.table_id, key.pkey.part_id) != self._pg or entry.backup_set_id > content.number:
                    raise IntegrityError(
                        f"the index is of PG {key.pkey} and names a block of set {entry.backup_set_id};"
                        f" here is PG {self._pg[0]}/{self._pg[1]} and set {content.number}"
                    )
                own = (f"{macro.path}/macro_block_index_{content.number}", entry.backup_set_id)
                self._named[own] = self._named.get(own, 0) + 1
                offsets[entry.offset] = _Promise(entry.data_length, key.table_id, entry.data_version, entry.data_seq)
                self._users.setdefault(block.path, set()).add(content.number)
        except (IntegrityError, TargetNotFound) as exc:
            path = f"{macro.path}/macro_block_index_{content.number}"
            self.findings.damages.append(Damage.of(exc, path, **self._where, sets=[content.number]))

    async def _file(self, file: TreeFile, *, finished: bool) -> None:
        expected = self._expected.get(file.path, {})
        left = dict(expected)
        unnamed = 0
        reader = FrameReader(DataType.MACRO_DATA, strict=False)

        def take(piece: bytes) -> None:
            nonlocal unnamed
            for start in range(0, len(piece), _PIECE):
                for frame in reader.feed(piece[start : start + _PIECE]):
                    macro = parse_macro(frame.data(), offset=frame.payload_offset, strict=False)
                    found = check_block(macro.block, offset=frame.offset)
                    promise = left.pop(frame.offset, None)
                    if promise is None:
                        unnamed += frame.offset not in expected
                        continue
                    if promise.length != frame.size:
                        raise FormatError(
                            f"the index names a frame of {promise.length} bytes at offset {frame.offset},"
                            f" there is one of {frame.size}",
                            offset=frame.offset,
                        )
                    there = None if found is None else (found.table_id, found.data_version, found.data_seq)
                    if there not in (None, promise[1:]):
                        raise IntegrityError(
                            "the index says that block (table, version, sequence)"
                            f" {promise[1:]} is at offset {frame.offset}, there is {there}",
                            offset=frame.offset,
                        )

        try:
            async for piece in self._target.stream(file.path):
                await asyncio.to_thread(take, piece)
            self._read(file.path, file.size)
            if left:
                raise FormatError(
                    f"the index names a frame of {next(iter(left.values())).length} bytes at offset {next(iter(left))},"
                    " there is none",
                    offset=next(iter(left)),
                )
            reader.finish()
            if unnamed and finished:
                self._unnamed(file, unnamed)
        except (IntegrityError, TargetNotFound) as exc:
            found = Damage.of(exc, file.path, **self._where, sets=sorted(self._users.get(file.path, ())))
            leftover = not expected and (not finished or is_cut(exc))
            (self.findings.notes if leftover else self.findings.damages).append(found)

    def _unnamed(self, file: TreeFile, count: int) -> None:
        """Whole blocks that no index names: a retry made them again elsewhere, or the index has lost entries."""
        number = file.place.inc_set or 0
        path = f"{file.path.rpartition('/')[0]}/macro_block_index_{number}"
        text = f"{path} does not name {count} blocks of {file.path}"
        if self._named.get((path, number)):
            self.findings.notes.append(Damage(path, 0, "Unnamed", text, dict(self._where)))
        else:
            where = {**self._where, "sets": [number]}
            self.findings.damages.append(Damage(path, 0, "IntegrityError", text, where))

    def _note(self, path: str, offset: int, text: str) -> None:
        self.findings.notes.append(Damage(path, offset, "TornTail", text, dict(self._where)))

    def _damage(self, path: str, message: str, sets: set[int]) -> None:
        found = Damage(path, 0, "TargetNotFound", message, {**self._where, "sets": sorted(sets)})
        self.findings.damages.append(found)


_PIECE = 256 << 10  # a frame reader copies what it is fed
Note = Callable[[str, int, str], None]


async def read_macro_index(
    target: Target, tenant: TenantTree, content: SetContent, macro: MacroDir, read: Read, note: Note
) -> AsyncIterator[Block]:
    """Every block that the indexes of a backup in one directory name, in file order.

    The first index file has no number, those of retries count from 1; a torn one is how an attempt ended when the next
    goes on with the block that is due.

    Raises IntegrityError that names the file.
    """
    files = macro.indexes[content.number]
    decoder = AnyMacroIndexDecoder(strict=False)
    for retry, _, there in in_order(files, 0):
        name = f"{macro.path}/macro_block_index_{content.number}" + (f".{retry}" if retry else "")
        if not there:
            raise IntegrityError(f"{name} is missing, a later one is there", path=name)
        reader = FrameReader(DataType.MACRO_DATA_INDEX, strict=False)
        try:
            async for piece in target.stream(name):
                for head, entry in await asyncio.to_thread(_feed, reader, decoder, piece):
                    if entry is not None:
                        yield Block(head, entry, macro_path(tenant, macro, entry))
            read(name, files[retry].size)
            reader.finish()
            if retry == max(files):
                decoder.finish()
        except FormatError as exc:
            if retry + 1 in files and is_cut(exc):
                note(name, int(exc.where.get("offset") or 0), f"{exc.message}; a retry goes on")
                continue
            raise name_file(exc, name) from None


def _feed(
    reader: FrameReader, decoder: AnyMacroIndexDecoder, piece: bytes
) -> list[tuple[TableKeyInfo, MacroIndex | None]]:
    return [row for frame in reader.feed(piece) for row in decoder.feed(frame)]


def macro_path(tenant: TenantTree, macro: MacroDir, entry: MacroIndex) -> str:
    """Where the file is that an index entry names.

    In the directory of the index; in the later layout a block that is reused is in the directory of the set that wrote
    it, at the same place below.
    """
    name = f"macro_block_{entry.backup_set_id}.{entry.sub_task_id}"
    if (entry.backup_set_id, entry.sub_task_id) not in macro.files:
        below = macro.path.partition("/data/backup_set_")[2].partition("/")[2]
        for found in tenant.sets.values():
            if found.independent and found.number == entry.backup_set_id and f"{found.path}/{below}" in found.macro:
                return f"{found.path}/{below}/{name}"
    return f"{macro.path}/{name}"
