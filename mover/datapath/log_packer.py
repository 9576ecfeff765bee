"""The path of the commit log: verified chunks in, archive blocks in data files out.

Groups are framed straight into the buffer that is written out, compressed there when that pays, and go to the
destination from there. A data file is closed before it would grow beyond 64 MiB, and only then gets its index record:
bytes first, the record that names them second. Destinations that cannot append get one data file per flush.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable
from dataclasses import dataclass

from mover.datapath.compression import Compression
from mover.datapath.index_writer import IndexWriter
from mover.datapath.log_compression import LogCompression
from mover.encryption.cipher import DataKey, Sealer
from mover.kernel import palf_frame_groups
from mover.kernel.palf import GROUP_COLUMNS
from mover.media.archive import (
    BLOCK_META_SIZE,
    DATA_FILE_LIMIT,
    MAX_RAW_PAYLOAD,
    ArchiveBlockMeta,
    block_size,
    seal_block,
)
from mover.media.archive_index import ArchiveIndexRecord
from mover.media.pg import PGKey
from mover.media.sealed import Sealing, place_of
from mover.media.sealed_log import LEAD, OVERHEAD, public, seal_payload
from mover.repository.tree import Repository
from mover.store.base import LogChunk, LogCursor

# Whoever reads a data file back holds its log: bounded also where log compresses a hundredfold.
RAW_FILE_LIMIT = 128 << 20
_PAGE = 4096
_FRAME_ROOM = 1 << 10  # what wrapping adds to a single group, generously


@dataclass(frozen=True, slots=True)
class RoundStart:
    """How a round began for a PG; every index record repeats it. Times in us."""

    start_ts: int
    start_log_id: int
    snapshot_version: int
    log_submit_ts: int  # this and the two below: of log start_log_id - 1
    clog_epoch_id: int = 0
    accum_checksum: int = 0

    def record(self, file_id: int, packer: LogFile | None, previous: ArchiveIndexRecord | None) -> ArchiveIndexRecord:
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
class LogFile:
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
        buffer_size: bytes that may wait to be written; a single larger group takes more.
        key: encrypts every block.
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
        buffer_size: int = 16 << 20,
        key: DataKey | None = None,
    ) -> None:
        self._repository = repository
        self._target = repository.target
        self._round = round_id
        self._pg = pg
        self._epoch = epoch
        self._start = start
        self._accum = accum
        self._next_file_id = next_file_id
        self._index = IndexWriter(repository, round_id, pg, index=index, last_record=last_record, fence=fence)
        self._compression = LogCompression(compression)
        self._fence = fence
        self._sealer = None if key is None else Sealer(key)
        self._lead, self._overhead = (0, 0) if key is None else (LEAD, OVERHEAD)  # of an encrypted payload
        self._file: LogFile | None = None
        # At the same place in its page as it will have in the file, so that whole pages go out without a copy.
        self._buffer = _memory(max(buffer_size, _PAGE + block_size(MAX_RAW_PAYLOAD + self._overhead)))
        self._first = 0  # where in the buffer the bytes begin that are to be written
        self._pending = 0  # how many they are
        self.cursor: LogCursor | None = None  # behind the last durable chunk
        self._pending_cursor: LogCursor | None = None
        self.input_bytes = 0
        self.output_bytes = 0

    @property
    def full(self) -> bool:
        """Should what was added be written before more is?"""
        return self._first + self._pending + block_size(MAX_RAW_PAYLOAD + self._overhead) > len(self._buffer)

    @property
    def pending(self) -> int:
        """Bytes that were added and are not durable yet."""
        return self._pending

    async def add(self, log: LogChunk, now_us: int) -> None:
        """Turn a chunk into blocks, and give its memory back; may write and close full data files on the way."""
        try:
            start = 0
            while start < log.groups:
                start += await self._add(log, start, now_us)
        finally:
            log.release()
        self.input_bytes += log.end_lsn - log.start_lsn
        self._pending_cursor = log.next

    async def _add(self, log: LogChunk, start: int, now_us: int) -> int:
        """One block of the groups from ``start`` on; how many it took."""
        room = block_size(max(MAX_RAW_PAYLOAD, len(log.data) + _FRAME_ROOM) + self._overhead)
        if self._first + self._pending + room > len(self._buffer):
            await self.flush()
            if self._first + room > len(self._buffer):
                self._buffer = _memory(_PAGE + room)
        length, raw_length, accum, count = await asyncio.to_thread(self._frame, log, start)
        size = block_size(length + self._overhead)
        if self._file is not None and (
            self._file.size + size > DATA_FILE_LIMIT or self._file.input_bytes + raw_length > RAW_FILE_LIMIT
        ):
            # The new block is the first of the next file: it moves to the start of the buffer.
            framed = bytes(self._room()[:size])
            await self.flush()
            await self.close_file()
            self._room()[:size] = framed
        file = self._file
        if file is None:
            file = self._file = LogFile(self._next_file_id, self._epoch)
            self._next_file_id += 1
        rows = log.table
        first, last = start * GROUP_COLUMNS, (start + count - 1) * GROUP_COLUMNS
        last_id, last_scn = rows[last + 2], rows[last + 4]
        if not file.blocks:
            file.min_log_id, file.min_log_ts = rows[first + 2], rows[first + 3] // 1000
        file.max_log_id, file.max_log_ts = last_id, max(file.max_log_ts, last_scn // 1000)
        self._accum = accum
        file.accum = accum if self._sealer is None else 0  # it tells something of the log: encrypted with it
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
        if self._sealer is not None:
            sealing = Sealing(self._sealer, place_of(self._path(file.file_id)))
            payload = self._room()[BLOCK_META_SIZE:]
            await asyncio.to_thread(seal_payload, payload, length, meta, sealing, offset=file.size)
            meta = public(meta)
        seal_block(self._room()[:size], meta, offset=file.size)
        self._pending += size
        file.size += size
        file.blocks += 1
        file.input_bytes += raw_length
        return count

    def _frame(self, log: LogChunk, start: int) -> tuple[int, int, int, int]:
        """Put the payload of the next block behind its meta in the buffer: its length, raw length, accum, groups."""
        header = log.block_header if start == 0 else None
        room = self._room()[BLOCK_META_SIZE + self._lead :]
        length, accum, count = palf_frame_groups(
            room, log.data, log.start_lsn, log.table, self._pg.pack(), self._epoch, self._accum, header, start=start
        )
        last_scn = log.table[(start + count - 1) * GROUP_COLUMNS + 4]
        packed = self._compression.apply(room[:length], last_scn)
        if packed is None:
            return length, length, accum, count
        room[: len(packed)] = packed
        return len(packed), length, accum, count

    async def flush(self) -> None:
        """Make everything that was added durable. On return ``cursor`` says up to where."""
        file = self._file
        if self._pending and file is not None:
            self._fence()
            path = self._path(file.file_id)
            data = memoryview(self._buffer)[self._first : self._first + self._pending]
            appends = self._target.capabilities.append
            if file.durable == 0:
                # A new file is created, never taken over: should another archiver race for the id, one of us fails.
                await self._target.put(path, b"" if appends else data, if_absent=True, write_once=not appends)
            if appends:
                await self._target.append(path, file.durable, data)
            file.durable += self._pending
            self.output_bytes += self._pending
            self._first, self._pending = file.durable % _PAGE, 0
            if not appends:
                await self.close_file()
        if self._pending_cursor is not None:
            self.cursor = self._pending_cursor

    async def close_file(self) -> None:
        """Write the index record of the open data file; the next block begins a new one."""
        if self._file is None:
            return
        assert not self._pending
        record = self._start.record(self._file.file_id, self._file, self._index.last_record)
        await self.write_record(record)
        self._file, self._first = None, 0

    async def write_record(self, record: ArchiveIndexRecord) -> None:
        """Append an index record; its data file is closed and durable."""
        await self._index.write(record)

    def _room(self) -> memoryview:
        """The buffer behind what is to be written."""
        return memoryview(self._buffer)[self._first + self._pending :]

    def _path(self, file_id: int) -> str:
        layout = self._repository.layout
        return layout.archive_data(self._repository.tenant_id, self._round, self._pg, file_id)


def _memory(size: int) -> mmap.mmap:
    # Private: what mmap gives by default is shared, and gets no huge pages.
    return mmap.mmap(-1, -(-size // _PAGE) * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
