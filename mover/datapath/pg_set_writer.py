"""One PG of a cluster's backup set: its sstables as macro files and macro indexes, majors and minors apart.

Minors are always copied. A block of a major that the set this one builds on has already (same table, data version, data
seq and checksum) is not read: the index points at the older set's bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mover.datapath.compression import Compression
from mover.kernel import lz4_compress, zstd_compress
from mover.media.frames import FRAME_ALIGN, end_mark, frame
from mover.media.header import Compressor, DataType
from mover.media.macro import MACRO_SUFFIX, MAX_BLOCKS_PER_FILE, MacroIndex, MacroIndexWriter, macro_prefix
from mover.media.pg import PGKey
from mover.repository.tree import Repository
from mover.store.cluster import BlockKey, ClusterBlock, ClusterTable, PGCapture
from mover.target.base import BytesPart, Writer

MINOR_TASK_ID = 1
_BATCH = 4  # blocks that are read before they are written
_PART = 4 << 20  # bytes sent at a time, at least

# (index table id, partition's table id, partition id) of a major, and in it each block's place by its identity.
TableId = tuple[int, int, int]
Known = Mapping[TableId, Mapping[BlockKey, MacroIndex]]


@dataclass(slots=True)
class PGCounters:
    """What was done for a PG."""

    blocks: int = 0
    reused: int = 0
    input_bytes: int = 0  # occupied bytes of copied blocks
    output_bytes: int = 0


@dataclass(slots=True)
class _OpenFile:
    sub: int
    writer: Writer
    pending: bytearray = field(default_factory=bytearray)
    size: int = 0
    blocks: int = 0


class PGSetWriter:
    """Writes the sstables of one PG.

    Args:
        full_set, set_id: numbers of the full set and of this backup.
        known: majors of the set this one builds on; empty for a full.
        known_version: its data version: blocks above it are new without a look.
        stopped: asked between batches; raises when the backup is to end.
        progress: told what was done since it was called last.
    """

    def __init__(
        self,
        repository: Repository,
        pg: PGKey,
        capture: PGCapture,
        compression: Compression,
        *,
        full_set: int,
        set_id: int,
        known: Known,
        known_version: int,
        stopped: Callable[[], None],
        progress: Callable[[PGCounters], None],
    ) -> None:
        self._repository = repository
        self._pg = pg
        self._capture = capture
        self._compression = compression
        self._full_set = full_set
        self._set_id = set_id
        self._known = known
        self._known_version = known_version
        self._stopped = stopped
        self._progress = progress
        self.counters = PGCounters()

    async def write(self, tables: Sequence[ClusterTable], *, minor_task: int | None) -> None:
        """Copy these sstables and write their index. Nothing written may have the name of an earlier attempt.

        Args:
            minor_task: the number of the directory of minors; None for majors.

        Raises what the capture raises, and TargetExists for a name that is taken.
        """
        files = _MacroFiles(self._repository, self._pg, self._full_set, self._set_id, minor_task)
        index = MacroIndexWriter()
        try:
            for table in tables:
                known = self._known.get(table_id(table), {}) if minor_task is None else {}
                index.begin(table.key, len(table.blocks))
                for first in range(0, len(table.blocks), _BATCH):
                    self._stopped()
                    numbers = range(first, min(first + _BATCH, len(table.blocks)))
                    for entry in await self._batch(table, numbers, known, files):
                        index.add(entry)
            await files.finish()
        except BaseException:
            await files.abort()
            raise
        path = self._repository.layout.macro_block_index(
            self._repository.tenant_id, self._full_set, self._pg, self._set_id, minor_task=minor_task
        )
        data = index.finish()
        await self._repository.target.put(path, data, if_absent=True)
        self.counters.output_bytes += files.output_bytes + len(data)

    async def _batch(
        self, table: ClusterTable, numbers: Iterable[int], known: Mapping[BlockKey, MacroIndex], files: _MacroFiles
    ) -> list[MacroIndex]:
        found: dict[int, MacroIndex] = {}
        wanted: list[int] = []
        for number in numbers:
            key = table.blocks[number]
            old = known.get(key) if key.data_version <= self._known_version else None
            if old is None:
                wanted.append(number)
            else:
                found[number] = old
        done = PGCounters(blocks=len(found) + len(wanted), reused=len(found))
        for number, block in zip(wanted, await self._capture.read(table, wanted), strict=True):
            framed = await asyncio.to_thread(_frame, block, self._compression)
            sub, offset = await files.add(framed)
            key = table.blocks[number]
            found[number] = MacroIndex(number, key.data_version, key.data_seq, self._set_id, sub, offset, len(framed))
            done.input_bytes += len(block.data)
            done.output_bytes += len(framed)
        self.counters.blocks += done.blocks
        self.counters.reused += done.reused
        self.counters.input_bytes += done.input_bytes
        self._progress(done)
        return [
            MacroIndex(number, e.data_version, e.data_seq, e.backup_set_id, e.sub_task_id, e.offset, e.data_length)
            for number, e in sorted(found.items())
        ]


def table_id(table: ClusterTable) -> TableId:
    """What names a major through its versions."""
    return table.key.table_id, table.key.pkey.table_id, table.key.pkey.partition_id


class _MacroFiles:
    """The macro files of one attempt: at most 512 blocks each, published whole."""

    def __init__(self, repository: Repository, pg: PGKey, full_set: int, set_id: int, minor_task: int | None) -> None:
        self._repository = repository
        self._pg = pg
        self._full_set = full_set
        self._set_id = set_id
        self._minor_task = minor_task
        self._file: _OpenFile | None = None
        self._next = 0
        self._part = max(_PART, repository.target.capabilities.min_part)
        self.output_bytes = 0

    async def add(self, framed: bytes) -> tuple[int, int]:
        """Append a frame; (number of its file, offset)."""
        if self._file is not None and self._file.blocks == MAX_BLOCKS_PER_FILE:
            await self.finish()
        file = self._file
        if file is None:
            path = self._repository.layout.macro_block(
                self._repository.tenant_id, self._full_set, self._pg, self._set_id, self._next, self._minor_task
            )
            file = self._file = _OpenFile(self._next, await self._repository.target.create(path))
            self._next += 1
        offset = file.size
        file.pending += framed
        file.size += len(framed)
        file.blocks += 1
        if len(file.pending) >= self._part:
            part, file.pending = bytes(file.pending), bytearray()
            await file.writer.write(BytesPart(part))
        return file.sub, offset

    async def finish(self) -> None:
        """Close the open file under its name. Idempotent."""
        file = self._file
        if file is None:
            return
        file.pending += end_mark()
        await file.writer.write(BytesPart(bytes(file.pending)))
        self.output_bytes += file.size + FRAME_ALIGN
        await file.writer.commit()
        self._file = None

    async def abort(self) -> None:
        """Remove what has no name yet."""
        file, self._file = self._file, None
        if file is not None:
            await file.writer.abort()


def _frame(block: ClusterBlock, compression: Compression) -> bytes:
    payload = b"".join((macro_prefix(block.entry, len(block.data)), block.data, MACRO_SUFFIX))
    kind = compression.compressor
    if kind != Compressor.NONE:
        packed = lz4_compress(payload) if kind == Compressor.LZ4 else zstd_compress(payload, compression.level)
        if len(packed) * 1000 < len(payload) * compression.keep_permille:
            return frame(DataType.MACRO_DATA, packed, compressor=kind, raw_length=len(payload))
    return frame(DataType.MACRO_DATA, payload)
