"""The macro files of a foreign tree: indexes against data, frame by frame and block by block.

Per PG the indexes of all its backups are read first and then each macro file once, streamed: memory is the index of the
PGs under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mover.errors import FormatError, IntegrityError, TargetNotFound
from mover.media.frames import FrameReader
from mover.media.header import DataType
from mover.media.macro import TABLE_TYPE_MAJOR, MacroIndex, TableKeyInfo, parse_macro
from mover.media.macro_block31 import check_block
from mover.media.macro_v1 import AnyMacroIndexDecoder
from mover.media.pg import TABLEGROUP_MASK, TENANT_SHIFT, PGKey
from mover.recovery.findings import Damage, Findings, Read
from mover.recovery.foreign_set import SetContent, is_cut, partition_of
from mover.recovery.foreign_tree import MacroDir, TenantTree, TreeFile, in_order
from mover.repository.tree import name_file
from mover.target.base import Target


@dataclass(frozen=True, slots=True)
class Block:
    """One entry of a macro index: a block of an sstable, and the file that has it."""

    head: TableKeyInfo
    entry: MacroIndex
    path: str


class _Promise(NamedTuple):
    """What an index says of a frame."""

    length: int
    table_id: int
    data_version: int
    data_seq: int


def _is_in(partition: PGKey, pg: tuple[int, int]) -> bool:
    """Can the partition of a table key be in this PG? A tablegroup holds those of other tables of its tenant."""
    if pg[0] & TABLEGROUP_MASK:
        return partition.tenant_id == pg[0] >> TENANT_SHIFT
    return (partition.table_id, partition_of(partition)) == pg


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
                entry, key = block.entry, block.head.table_key
                if not _is_in(key.pkey, self._pg) or entry.backup_set_id > content.number:
                    raise IntegrityError(
                        f"the index is of PG {key.pkey} and names a block of set {entry.backup_set_id};"
                        f" here is PG {self._pg[0]}/{self._pg[1]} and set {content.number}"
                    )
                major = key.table_type == TABLE_TYPE_MAJOR
                # 2.2.6x has one directory for both, and its entries have no table type.
                if (macro.path.endswith("/major_data") and not major) or ("/minor_data/" in macro.path and major):
                    raise IntegrityError(
                        f"the index is of a {'major' if major else 'minor'} sstable (table type {key.table_type})"
                    )
                offsets = self._expected.setdefault(block.path, {})
                self._named_by.setdefault(block.path, f"{macro.path}/macro_block_index_{content.number}")
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
