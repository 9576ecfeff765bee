"""The path of the commit log: verified chunks in, archive blocks in data files out.

A data file is closed before it would grow beyond 64 MiB, and only then gets its index record: bytes first, the record
that names them second. Destinations that cannot append get one data file per flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mover.datapath.compression import Compression
from mover.errors import TargetExists
from mover.kernel import palf_frame_groups
from mover.kernel.palf import GROUP_COLUMNS
from mover.media.archive import DATA_FILE_LIMIT, ArchiveBlockMeta, block_size, build_block, chunk
from mover.media.archive_index import INDEX_FILE_LIMIT, INDEX_RECORD_SIZE, ArchiveIndexRecord
from mover.media.header import Compressor
from mover.media.pg import PGKey
from mover.repository.tree import Repository
from mover.store.base import LogChunk, LogCursor

# Whoever reads a data file back holds its log: bounded also where log compresses a hundredfold.
RAW_FILE_LIMIT = 128 << 20


@dataclass(frozen=True, slots=True)
class RoundStart:
    """How a round began for a PG; every index record repeats it. Times in us."""

    start_ts: int
    start_log_id: int
    snapshot_version: int
    log_submit_ts: int  # this and the two below: of log start_log_id - 1
    clog_epoch_id: int = 0
    accum_checksum: int = 0

    def record(self, file_id: int, packer: _OpenFile | None, previous: ArchiveIndexRecord | None) -> ArchiveIndexRecord:
        """The index record of a closed file; without log in it, one that says so and repeats the previous end."""
        last_id = previous.max_log_id if previous else self.start_log_id - 1
        last_ts = previous.max_log_submit_ts if previous else self.log_submit_ts
        used = packer is not None and packer.blocks > 0
        return ArchiveIndexRecord(
            data_file_id=file_id,
            input_bytes=packer.input_bytes if packer else 0,
            output_bytes=packer.size if packer else 0,
            clog_epoch_id=packer.epoch if packer else 0,
            accum_checksum=packer.accum if packer and used else previous.accum_checksum if previous else 0,
            min_log_id=packer.min_log_id if packer and used else last_id,
            min_log_ts=packer.min_log_ts if packer and used else last_ts,
            max_log_id=packer.max_log_id if packer and used else last_id,
            max_checkpoint_ts=packer.max_log_ts if packer and used else last_ts,
            max_log_submit_ts=packer.max_log_ts if packer and used else last_ts,
            round_start_ts=self.start_ts,
            round_start_log_id=self.start_log_id,
            round_snapshot_version=self.snapshot_version,
            round_log_submit_ts=self.log_submit_ts,
            round_clog_epoch_id=self.clog_epoch_id,
            round_accum_checksum=self.accum_checksum,
            is_valid=used,
        )


@dataclass(slots=True)
class _OpenFile:
    """A data file that is being filled, or one that was found and is being closed."""

    file_id: int
    epoch: int
    accum: int = 0
    size: int = 0  # durable bytes and pending ones
    durable: int = 0
    blocks: int = 0
    input_bytes: int = 0
    min_log_id: int = 0
    min_log_ts: int = 0
    max_log_id: int = 0
    max_log_ts: int = 0


class LogPacker:
    """Appends chunks of one PG's log to a round.

    Args:
        epoch: of the lease; goes into every block, so a reader sees who wrote what.
        accum: the running checksum at the end of what is archived.
        next_file_id: the first data file id that no archiver used. A packer never touches another one's files.
        index: (file id, bytes of whole records in it, its size) of the index file to go on with; zeros for none.
        last_record: the newest index record, if there is one.
        fence: called before everything that is published; raises when we may not write any more.
    """

    def __init__(
        self,
        repository: Repository,
        round_id: int,
        pg: PGKey,
        *,
        epoch: int,
        start: RoundStart,
        accum: int,
        next_file_id: int,
        index: tuple[int, int, int],
        last_record: ArchiveIndexRecord | None,
        compression: Compression,
        fence: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._target = repository.target
        self._round = round_id
        self._pg = pg
        self._epoch = epoch
        self._start = start
        self._accum = accum
        self._next_file_id = next_file_id
        self._index_id, self._index_size, self._index_bytes = index
        self._index_content = b""  # of the open index file, once it was read or written
        self._last_record = last_record
        self._compression = compression
        self._fence = fence
        self._file: _OpenFile | None = None
        self._pending = bytearray()
        self.cursor: LogCursor | None = None  # behind the last durable chunk
        self._pending_cursor: LogCursor | None = None
        self.input_bytes = 0
        self.output_bytes = 0

    @property
    def pending(self) -> int:
        """Bytes that were added and are not durable yet."""
        return len(self._pending)

    async def add(self, log: LogChunk, now_us: int) -> None:
        """Turn a chunk into blocks; may write and close full data files on the way."""
        start = 0
        while start < log.groups:
            payload, raw_length, accum, count = await asyncio.to_thread(self._frame, log, start)
            rows = log.table
            first, last = start * GROUP_COLUMNS, (start + count - 1) * GROUP_COLUMNS
            first_id, first_scn = rows[first + 2], rows[first + 3]
            last_id, last_scn = rows[last + 2], rows[last + 4]
            if self._file is not None and (
                self._file.size + block_size(len(payload)) > DATA_FILE_LIMIT
                or self._file.input_bytes + raw_length > RAW_FILE_LIMIT
            ):
                await self.flush()
                await self.close_file()
            file = self._file
            if file is None:
                file = self._file = _OpenFile(self._next_file_id, self._epoch)
                self._next_file_id += 1
            if not file.blocks:
                file.min_log_id, file.min_log_ts = first_id, first_scn // 1000
            file.max_log_id, file.max_log_ts = last_id, max(file.max_log_ts, last_scn // 1000)
            self._accum = file.accum = accum
            meta = ArchiveBlockMeta(
                timestamp=now_us,
                clog_epoch_id=self._epoch,
                accum_checksum=accum,
                min_log_id_in_file=file.min_log_id,
                min_log_ts_in_file=file.min_log_ts,
                max_log_id=last_id,
                max_checkpoint_ts=file.max_log_ts,
                max_log_submit_ts=last_scn // 1000,
                input_bytes=raw_length,
            )
            block = build_block(meta, payload, offset=file.size)
            self._pending += block
            file.size += len(block)
            file.blocks += 1
            file.input_bytes += raw_length
            start += count
        self.input_bytes += log.end_lsn - log.start_lsn
        self._pending_cursor = log.next

    def _frame(self, log: LogChunk, start: int) -> tuple[bytes, int, int, int]:
        header = log.block_header if start == 0 else None
        raw, accum, count = palf_frame_groups(
            log.data, log.start_lsn, log.table, self._pg.pack(), self._epoch, self._accum, header, start=start
        )
        kind = {"none": Compressor.NONE, "lz4": Compressor.LZ4}.get(self._compression.mode, Compressor.ZSTD_1_3_8)
        return chunk(raw, kind, level=self._compression.level) or raw, len(raw), accum, count

    async def flush(self) -> None:
        """Make everything that was added durable. On return ``cursor`` says up to where."""
        file = self._file
        if self._pending and file is not None:
            self._fence()
            path = self._path(file.file_id)
            data = bytes(self._pending)
            if file.durable == 0:
                # A new file is created, never taken over: should another archiver race for the id, one of us fails.
                await self._target.put(path, data, if_absent=True)
            else:
                await self._target.append(path, file.durable, data)
            file.durable += len(data)
            self.output_bytes += len(data)
            self._pending.clear()
            if not self._target.capabilities.append:
                await self.close_file()
        if self._pending_cursor is not None:
            self.cursor = self._pending_cursor

    async def close_file(self) -> None:
        """Write the index record of the open data file; the next block begins a new one."""
        if self._file is None:
            return
        assert not self._pending
        record = self._start.record(self._file.file_id, self._file, self._last_record)
        await self.write_record(record)
        self._file = None

    async def write_record(self, record: ArchiveIndexRecord) -> None:
        """Append an index record; its data file is closed and durable."""
        self._fence()
        data = record.pack()
        begins = self._index_id == 0 or self._index_size + INDEX_RECORD_SIZE > INDEX_FILE_LIMIT
        if begins:
            self._index_id, self._index_size, self._index_content = self._index_id + 1, 0, b""
        layout = self._repository.layout
        path = layout.archive_index(self._repository.tenant_id, self._round, self._pg, self._index_id)
        if begins:
            await self._target.put(path, data, if_absent=True)
        else:
            await self._require_unchanged(path)
            if self._target.capabilities.append:
                await self._target.append(path, self._index_size, data)
            else:
                # Extended, never changed: what was there stays its prefix.
                if len(self._index_content) != self._index_size:
                    self._index_content = await self._target.get(path, 0, self._index_size)
                await self._target.put(path, self._index_content + data)
        self._index_content = self._index_content[: self._index_size] + data
        self._index_size += len(data)
        self._index_bytes = self._index_size
        self._last_record = record

    async def _require_unchanged(self, path: str) -> None:
        """Extending an index file replaces what is behind our end: that must not be another archiver's record.

        Leases of different catalogs do not know each other, so the destination is asked.
        """
        found = await self._target.stat(path)
        if found is None or found.size != self._index_bytes:
            size = "gone" if found is None else f"of {found.size} bytes"
            raise TargetExists(f"{path}: the index file is {size}, it was of {self._index_bytes}", path=path)

    def _path(self, file_id: int) -> str:
        layout = self._repository.layout
        return layout.archive_data(self._repository.tenant_id, self._round, self._pg, file_id)
