"""One PG of a foreign tree, restored to files: blocks, metas, log and the inventory of them. Streamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from mover.errors import IntegrityError
from mover.kernel import Xxh3_128, xxh3_128
from mover.media.block_stream import BadRun, BlockStream
from mover.media.frames import read_frame
from mover.media.header import DataType
from mover.media.log_chain import Position, walk_block
from mover.media.macro import parse_macro
from mover.media.macro_block31 import check_block
from mover.media.meta import MetaIndex, parse_meta_record
from mover.media.serial import Reader
from mover.recovery.foreign_blocks import Block, read_macro_index
from mover.recovery.foreign_infos import Run
from mover.recovery.foreign_log import FIRST_FILE, key_position, read_index
from mover.recovery.foreign_set import SetContent
from mover.recovery.foreign_tree import TenantTree, TreeFile, in_order
from mover.repository.tree import name_file
from mover.settled import settled
from mover.target.base import Target

_FILE = 1 << 30  # a file of blocks or log is closed when it has this much
_RUN = 8 << 20  # frames that follow each other are read together up to this


def _unread(_path: str, _size: int) -> None:
    """Nobody counts what is read."""


class _Output:
    """Bytes appended to ``<name>.0``, ``<name>.1`` ..., or to one file ``name``."""

    def __init__(self, directory: Path, name: str, *, single: bool = False) -> None:
        self._directory = directory
        self._name = name
        self._single = single
        self._file: IO[bytes] | None = None
        self._digest = Xxh3_128()
        self._size = 0
        self.files: list[dict[str, Any]] = []

    def append(self, data: bytes | memoryview) -> tuple[str, int]:
        """(file, offset) of what was appended."""
        if self._file is None:
            name = self._name if self._single else f"{self._name}.{len(self.files)}"
            self.files.append({"file": name})
            self._file, self._digest, self._size = (self._directory / name).open("xb"), Xxh3_128(), 0
        at = self._size
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)
        return str(self.files[-1]["file"]), at

    def turn(self) -> None:
        """Begin another file when this one has enough."""
        if not self._single and self._size >= _FILE:
            self.close()

    def close(self) -> None:
        """Durable, with size and digest in ``files``."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            self._size, size = 0, self._size
            self.files[-1] |= {"size": size, "xxh3_128": self._digest.digest().hex()}

    def abandon(self) -> None:
        """Close the file as it is."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _Inventory:
    """``inventory.json``, written as it becomes known: an object of lists, one row a line."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._file = path.open("x")
        self._file.write(json.dumps(head)[:-1])
        self._first = True

    def begin(self, name: str) -> None:
        """Open the next list."""
        self._file.write(f', "{name}": [')
        self._first = True

    def row(self, row: dict[str, Any]) -> None:
        self._file.write(("\n" if self._first else ",\n") + json.dumps(row))
        self._first = False

    def end(self) -> None:
        """Close the list."""
        self._file.write("]")

    def abandon(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def close(self) -> None:
        """Close the object; durable."""
        self._file.write("}\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class PgRestore:
    """One PG.

    Args:
        source: the destination of the backups.
        content: the set, with its metas. run: the log that is restored from.
        directory: exists, is empty.
        until_us: the moment. Log is kept up to the first block whose checkpoint has passed it, as OceanBase's restore
            does; replay cuts inside it by transaction version.

    Raises IntegrityError that names the file.
    """

    def __init__(
        self,
        source: Target,
        tenant: TenantTree,
        content: SetContent,
        run: Run,
        pg: tuple[int, int],
        directory: Path,
        until_us: int,
    ) -> None:
        self._source = source
        self._tenant = tenant
        self._content = content
        self._run = run
        self._pg = pg
        self._directory = directory
        self._until_us = until_us
        self._blocks = _Output(directory, "blocks")
        self._entries = _Output(directory, "block_metas", single=True)
        self._log = _Output(directory, "log")
        self._metas: list[_Output] = []
        self._inventory: _Inventory | None = None
        self.blocks = 0
        self.block_bytes = 0
        self.log_entries = 0
        self.log_bytes = 0

    async def run(self) -> None:
        """All of it. When it fails nothing stays open, and what was written is the caller's to remove."""
        try:
            await self._run_all()
        except BaseException:
            for output in (self._blocks, self._entries, self._log, *self._metas, self._inventory):
                if output is not None:
                    output.abandon()
            raise

    async def _run_all(self) -> None:
        head = {"tenant_id": self._tenant.tenant_id, "table_id": self._pg[0], "partition_id": self._pg[1]}
        head |= {"set": self._content.number, "round": self._run.round_id}
        inventory = self._inventory = _Inventory(self._directory / "inventory.json", head)
        inventory.begin("blocks")
        for macro in self._content.directory.macro.values():
            if macro.pg == self._pg and self._content.number in macro.indexes:
                waiting: list[Block] = []
                async for block in read_macro_index(
                    self._source, self._tenant, self._content, macro, _unread, lambda *_arguments: None
                ):
                    if waiting and not _follows(waiting, block):
                        await self._take(waiting)
                        waiting = []
                    waiting.append(block)
                if waiting:
                    await self._take(waiting)
        inventory.end()
        inventory.begin("metas")
        for (meta_type, table_id, partition_id), entry in sorted(self._content.metas.items()):
            if (table_id, partition_id) == self._pg:
                await self._meta(meta_type, entry)
        inventory.end()
        inventory.begin("log")
        await self._whole_log()
        inventory.end()
        await settled(None, self._finish, inventory)

    def _finish(self, inventory: _Inventory) -> None:
        outputs = [self._blocks, self._entries, self._log, *self._metas]
        inventory.begin("files")
        for output in outputs:
            output.close()
            for row in output.files:
                inventory.row(row)
        inventory.end()
        inventory.close()

    def _row(self, row: dict[str, Any]) -> None:
        assert self._inventory is not None, "an inventory is open while something is written"
        self._inventory.row(row)

    # --- blocks -----------------------------------------------------------------------------------------------------

    async def _take(self, blocks: list[Block]) -> None:
        first, last = blocks[0].entry, blocks[-1].entry
        path = blocks[0].path
        data = await self._source.get(path, first.offset, last.offset + last.data_length - first.offset)
        try:
            await settled(None, self._write_blocks, blocks, memoryview(data))
        except IntegrityError as exc:
            raise name_file(exc, path) from None

    def _write_blocks(self, blocks: list[Block], data: memoryview) -> None:
        base = blocks[0].entry.offset
        for block in blocks:
            entry, key = block.entry, block.head.table_key
            piece = data[entry.offset - base : entry.offset - base + entry.data_length]
            frame = read_frame(piece, offset=entry.offset, data_type=DataType.MACRO_DATA, strict=False)
            macro = parse_macro(frame.data(), offset=frame.payload_offset, strict=False)
            found = check_block(macro.block, offset=entry.offset)
            wanted = (key.table_id, entry.data_version, entry.data_seq)
            if found is not None and (found.table_id, found.data_version, found.data_seq) != wanted:
                raise IntegrityError(
                    f"the index says that block {wanted} is at offset {entry.offset}, there is {found}",
                    offset=entry.offset,
                )
            self._blocks.turn()
            file, at = self._blocks.append(macro.block)
            _, meta_at = self._entries.append(macro.entry)
            self.blocks += 1
            self.block_bytes += len(macro.block)
            self._row(
                {
                    "table_id": key.table_id,
                    "table_type": key.table_type,
                    "sstable_macro_index": entry.sstable_macro_index,
                    "data_version": entry.data_version,
                    "data_seq": entry.data_seq,
                    "file": file,
                    "offset": at,
                    "length": len(macro.block),
                    "xxh3_128": xxh3_128(macro.block).hex(),
                    "meta_offset": meta_at,
                    "meta_length": len(macro.entry),
                    "source": block.path,
                    "source_offset": entry.offset,
                }
            )

    # --- metas ------------------------------------------------------------------------------------------------------

    async def _meta(self, meta_type: int, entry: MetaIndex) -> None:
        files = self._content.directory.backups[self._content.number]
        path = files[f"meta_file_{entry.task_id}"].path
        data = await self._source.get(path, entry.offset, entry.data_length)
        try:
            reader = Reader(data, base_offset=entry.offset, strict=False)
            found, body = parse_meta_record(reader.vstr("meta record"), offset=entry.offset)
            reader.finish("meta record")
        except IntegrityError as exc:
            raise name_file(exc, path) from None
        if found != meta_type:
            raise IntegrityError(f"{path}: meta type {found} at offset {entry.offset}, not {meta_type}", path=path)
        output = _Output(self._directory, f"meta.{meta_type}", single=True)
        self._metas.append(output)
        file, _ = await settled(None, output.append, body)
        self._row(
            {
                "meta_type": meta_type,
                "file": file,
                "length": len(body),
                "xxh3_128": xxh3_128(body).hex(),
                "source": path,
                "source_offset": entry.offset,
            }
        )

    # --- log --------------------------------------------------------------------------------------------------------

    async def _whole_log(self) -> None:
        at: Position | None = None
        for piece in self._run.pieces:
            log = piece.pgs.get(self._pg)
            if log is None:
                continue
            records = (await read_index(self._source, log, _unread)).records
            if at is None and log.key is not None:
                at = key_position(await self._source.get(log.key.path))
            for number, _, there in in_order(log.data, FIRST_FILE):
                record = records[number][0] if number in records else None
                if record is not None and not record.is_valid:
                    continue
                if not there:
                    raise IntegrityError(f"{log.directory}/{number} is missing", path=f"{log.directory}/{number}")
                at, done = await self._log_file(log.data[number], at)
                if done:
                    return

    async def _log_file(self, file: TreeFile, at: Position | None) -> tuple[Position | None, bool]:
        """Append the log of one data file; (position behind it, whether the moment is reached)."""
        stream = BlockStream(file.size)
        row: dict[str, Any] = {}
        digest = Xxh3_128()
        done = False

        def take(piece: bytes) -> None:
            nonlocal at, done
            for item in stream.feed(piece):
                if done:
                    return
                if isinstance(item, BadRun):
                    raise IntegrityError(f"{file.path}: {item.reason}", path=file.path, offset=item.offset)
                try:
                    facts = walk_block(item, at, table_id=self._pg[0])
                except IntegrityError as exc:
                    raise name_file(exc, file.path) from None
                at = facts.end
                if facts.first_log_id is not None:
                    raw = item.raw()
                    name, offset = self._log.append(raw)
                    digest.update(raw)
                    self.log_entries += facts.end.log_id - facts.first_log_id + 1
                    self.log_bytes += len(raw)
                    row.setdefault("from_log_id", facts.first_log_id)
                    row.setdefault("file", name)
                    row.setdefault("offset", offset)
                    row["length"] = row.get("length", 0) + len(raw)
                    row["until_log_id"] = facts.end.log_id
                    row["submit_ts"], row["checkpoint_ts"] = facts.end.submit_ts, facts.end.checkpoint_ts
                    row["accum_checksum"] = facts.end.accum
                done = facts.end.checkpoint_ts >= self._until_us

        await settled(None, self._log.turn)
        async for piece in self._source.stream(file.path, 0, file.size):
            await settled(None, take, piece)
            if done:
                break
        torn = None if done else stream.finish()
        if torn is not None and not torn.cut:
            raise IntegrityError(f"{file.path}: {torn.reason}", path=file.path, offset=torn.offset)
        if row:
            self._row({**row, "xxh3_128": digest.digest().hex(), "source": file.path})
        return at, done


def _follows(blocks: list[Block], block: Block) -> bool:
    last = blocks[-1].entry
    size = block.entry.offset + block.entry.data_length - blocks[0].entry.offset
    return block.path == blocks[0].path and block.entry.offset == last.offset + last.data_length and size <= _RUN
