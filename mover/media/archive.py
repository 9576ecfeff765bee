"""Archive data files: ``clog/<round>/data/<table>/<part>/<file_id>``, a chain of blocks.

A block is ``ObArchiveBlockMeta (104 bytes, big-endian) | payload | i32 start offset of the block``. The payload is
back-to-back log entries, or one "CC" chunk that decompresses to them. A file whose writer died ends in a torn tail:
that is reported as data (:class:`TornTail`), because only the caller knows whether an index record promised more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mover.errors import FormatError, IntegrityError
from mover.kernel import lz4_compress, ob_crc64, zstd_compress
from mover.media.frames import decompress
from mover.media.header import Compressor
from mover.media.log_entry import Kickoff, LogType, iter_log_entries, kickoff_entry, next_accum, parse_kickoff
from mover.media.pg import PGKey
from mover.media.serial import Buffer

BLOCK_META_SIZE = 104
BLOCK_MAGIC = 0x4142  # "AB"
BLOCK_VERSION = 1
TAIL_SIZE = 4
CHUNK_HEADER_SIZE = 16
CHUNK_MAGIC = 0x4343  # "CC"
CHUNK_VERSION = 1
MAX_RAW_PAYLOAD = 1_966_080  # OB_MAX_LOG_BUFFER_SIZE; only a single larger group goes beyond
DATA_FILE_LIMIT = 64 << 20  # a data file is closed before it grows beyond this
_DISK = struct.Struct(">hhiqqqQqQqqqqqq")
_IMAGE = struct.Struct("<hhiqqqQqQqqqqq")
_CHUNK = struct.Struct(">hhiii")
_TAIL = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class ArchiveBlockMeta:
    """ObArchiveBlockMeta; times in microseconds, log ids count groups (PALF) or entries (3.1)."""

    timestamp: int  # when the block was built
    clog_epoch_id: int
    accum_checksum: int  # running checksum of the PG at max_log_id
    min_log_id_in_file: int
    min_log_ts_in_file: int
    max_log_id: int
    max_checkpoint_ts: int  # never decreases
    max_log_submit_ts: int
    input_bytes: int  # payload before compression
    output_bytes: int = 0  # mover: payload as stored; OceanBase leaves 0
    total_length: int = 0  # meta and payload; filled in by build_block
    data_checksum: int = 0  # ob_crc64 of the payload as stored; filled in by build_block

    def pack(self) -> bytes:
        """The 104 bytes. Raises ValueError when a field does not fit."""
        fields = (
            BLOCK_MAGIC,
            BLOCK_VERSION,
            self.total_length,
            self.timestamp,
            self.clog_epoch_id,
            self.accum_checksum,
            self.min_log_id_in_file,
            self.min_log_ts_in_file,
            self.max_log_id,
            self.max_checkpoint_ts,
            self.max_log_submit_ts,
            self.input_bytes,
            self.output_bytes,
            self.data_checksum,
        )
        try:
            return _DISK.pack(*fields, ob_crc64(_IMAGE.pack(*fields)))
        except struct.error as error:
            raise ValueError(f"archive block meta: {error}") from error


def parse_block_meta(data: Buffer, *, offset: int = 0) -> ArchiveBlockMeta:
    """Decode and check the first 104 bytes of a block. Raises FormatError."""

    def bad(expected: str) -> FormatError:
        return FormatError(f"bad archive block at offset {offset}: expected {expected}", offset=offset)

    if len(data) < BLOCK_META_SIZE:
        raise bad(f"{BLOCK_META_SIZE} bytes of block meta, found {len(data)}")
    *fields, checksum = _DISK.unpack_from(data)
    magic, version, total = fields[:3]
    if magic != BLOCK_MAGIC or version != BLOCK_VERSION:
        raise bad(f"magic {BLOCK_MAGIC:#06x} and version {BLOCK_VERSION}, found {magic & 0xFFFF:#06x} and {version}")
    if ob_crc64(_IMAGE.pack(*fields)) != checksum:
        raise bad("a valid meta checksum")
    if total < BLOCK_META_SIZE:
        raise bad(f"a total length of at least {BLOCK_META_SIZE}, found {total}")
    *values, data_checksum = fields[3:]
    return replace(ArchiveBlockMeta(*values), total_length=total, data_checksum=data_checksum)


def chunk(raw: Buffer, compressor: int, *, level: int = 1) -> bytes | None:
    """The CC chunk of a raw payload, or None when it would not be smaller.

    Args:
        compressor: Compressor.LZ4 or Compressor.ZSTD_1_3_8 (``level`` is for the latter); NONE gives None.
    """
    if compressor == Compressor.NONE:
        return None
    if compressor == Compressor.LZ4:
        packed = lz4_compress(raw)
    elif compressor == Compressor.ZSTD_1_3_8:
        packed = zstd_compress(raw, level)
    else:
        raise ValueError(f"compressor {compressor} is not written to archives")
    if CHUNK_HEADER_SIZE + len(packed) >= len(raw):
        return None
    return _CHUNK.pack(CHUNK_MAGIC, CHUNK_VERSION, compressor, len(raw), len(packed)) + packed


def chunk_of(raw_length: int, compressed: Buffer, compressor: int) -> bytes:
    """A CC chunk around bytes that were compressed elsewhere."""
    return _CHUNK.pack(CHUNK_MAGIC, CHUNK_VERSION, compressor, raw_length, len(compressed)) + bytes(compressed)


def unpack_payload(payload: Buffer, *, offset: int = 0) -> bytes:
    """The log entries of a stored payload: decompressed when it is a chunk.

    Raises FormatError for a broken chunk, IntegrityError when it does not decompress to the length it names.
    """
    view = memoryview(payload)
    if len(view) < CHUNK_HEADER_SIZE or view[0] != CHUNK_MAGIC >> 8 or view[1] != CHUNK_MAGIC & 0xFF:
        return bytes(view)
    _, version, compressor, raw_length, stored_length = _CHUNK.unpack_from(view)
    if version != CHUNK_VERSION or stored_length != len(view) - CHUNK_HEADER_SIZE or raw_length < 0:
        raise FormatError(
            f"bad chunk at offset {offset}: expected version {CHUNK_VERSION} and {len(view) - CHUNK_HEADER_SIZE} bytes,"
            f" found {version} and {stored_length}",
            offset=offset,
        )
    if compressor == Compressor.NONE:
        raise FormatError(f"bad chunk at offset {offset}: compressor none", offset=offset)
    return decompress(view[CHUNK_HEADER_SIZE:], compressor, raw_length, offset)


def build_block(meta: ArchiveBlockMeta, payload: Buffer, *, offset: int) -> bytes:
    """One whole block.

    Args:
        meta: its facts; lengths and checksums in it are computed here.
        payload: raw entries, or a chunk of them.
        offset: where the block will begin in its data file.
    """
    block = bytearray(block_size(len(payload)))
    block[BLOCK_META_SIZE:-TAIL_SIZE] = payload
    seal_block(memoryview(block), meta, offset=offset)
    return bytes(block)


def seal_block(block: memoryview, meta: ArchiveBlockMeta, *, offset: int) -> None:
    """Write meta and tail around the payload that is in the buffer of a block already; see :func:`build_block`."""
    payload = block[BLOCK_META_SIZE:-TAIL_SIZE]
    sealed = replace(
        meta,
        output_bytes=len(payload),
        total_length=BLOCK_META_SIZE + len(payload),
        data_checksum=ob_crc64(payload),
    )
    block[:BLOCK_META_SIZE] = sealed.pack()
    block[-TAIL_SIZE:] = _TAIL.pack(offset)


def block_size(payload_length: int) -> int:
    """Bytes a block takes in the file, its tail included."""
    return BLOCK_META_SIZE + payload_length + TAIL_SIZE


def build_kickoff_block(
    pg: PGKey, start_log_id: int, kickoff: Kickoff, *, timestamp: int, accum_checksum: int, start_submit_ts: int
) -> bytes:
    """The first block of a PG in a round, for offset 0 of data file 1.

    Args:
        start_log_id: the first log that will be archived; min and max log id of the block are the one before.
        timestamp: now, us.
        accum_checksum: of log ``start_log_id - 1``; 0 for a chain that begins here.
        start_submit_ts: submit timestamp of log ``start_log_id - 1``, us.
    """
    entry = kickoff_entry(pg, start_log_id, kickoff)
    meta = ArchiveBlockMeta(
        timestamp=timestamp,
        clog_epoch_id=0,
        accum_checksum=accum_checksum,
        min_log_id_in_file=start_log_id - 1,
        min_log_ts_in_file=start_submit_ts,
        max_log_id=start_log_id - 1,
        max_checkpoint_ts=kickoff.checkpoint_ts,
        max_log_submit_ts=start_submit_ts,
        input_bytes=len(entry),
    )
    return build_block(meta, entry, offset=0)


@dataclass(frozen=True, slots=True)
class ArchiveBlock:
    """A block that was read: meta, payload and tail hold."""

    offset: int
    meta: ArchiveBlockMeta
    payload: memoryview  # as stored

    @property
    def size(self) -> int:
        """Bytes in the file, tail included."""
        return self.meta.total_length + TAIL_SIZE

    @property
    def end(self) -> int:
        return self.offset + self.size

    def raw(self) -> bytes:
        """The log entries. Raises IntegrityError (FormatError for a broken chunk).

        ``input_bytes`` must match, unless it is 0 as OceanBase may leave it.
        """
        raw = unpack_payload(self.payload, offset=self.offset + BLOCK_META_SIZE)
        if self.meta.input_bytes not in (0, len(raw)):
            raise FormatError(
                f"bad archive block at offset {self.offset}: expected {self.meta.input_bytes} raw bytes,"
                f" found {len(raw)}",
                offset=self.offset,
            )
        return raw

    def kickoff(self) -> Kickoff | None:
        """The kickoff in it, or None for a block of logs. Raises IntegrityError."""
        entries = iter_log_entries(self.raw(), base_offset=self.offset + BLOCK_META_SIZE)
        first = next(entries, None)
        if first is None or first.header.log_type != LogType.ARCHIVE_KICKOFF:
            return None
        return parse_kickoff(first, base_offset=self.offset + BLOCK_META_SIZE)


@dataclass(frozen=True, slots=True)
class TornTail:
    """Where the good blocks of a file end and why.

    ``followed_by`` is the offset of a valid block behind the bad bytes: then they are damage, not a torn tail.
    """

    offset: int
    reason: str
    bytes_left: int
    followed_by: int | None = None


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file, scanned."""

    blocks: tuple[ArchiveBlock, ...]
    end: int  # offset behind the last good block
    torn: TornTail | None  # None: the file ends there


def parse_block(data: Buffer, *, offset: int, base_offset: int = 0) -> ArchiveBlock:
    """The block at file offset ``offset`` of ``data``, which begins at file offset ``base_offset``.

    Raises FormatError when meta, payload or tail are incomplete or do not hold.
    """
    view = memoryview(data)[offset - base_offset :]
    meta = parse_block_meta(view[:BLOCK_META_SIZE], offset=offset)

    def bad(where: int, expected: str) -> FormatError:
        return FormatError(f"bad archive block at offset {where}: expected {expected}", offset=where)

    if len(view) < meta.total_length + TAIL_SIZE:
        raise bad(offset, f"{meta.total_length + TAIL_SIZE} bytes, found {len(view)}")
    payload = view[BLOCK_META_SIZE : meta.total_length]
    if ob_crc64(payload) != meta.data_checksum:
        raise bad(offset + BLOCK_META_SIZE, f"payload checksum {meta.data_checksum:#x}")
    (tail,) = _TAIL.unpack(view[meta.total_length : meta.total_length + TAIL_SIZE])
    if tail != offset:
        raise bad(offset + meta.total_length, f"the start offset {offset}, found {tail}")
    return ArchiveBlock(offset, meta, payload)


def scan_data_file(data: Buffer, *, start: int = 0) -> DataFile:
    """Every good block from ``start`` on, and what follows them. Never raises for bad bytes.

    Args:
        data: the whole file.
        start: offset of a block.
    """
    blocks: list[ArchiveBlock] = []
    position = start
    while position < len(data):
        try:
            block = parse_block(data, offset=position)
        except FormatError as error:
            following = _resync(data, position + 1)
            return DataFile(tuple(blocks), position, TornTail(position, error.message, len(data) - position, following))
        blocks.append(block)
        position = block.end
    return DataFile(tuple(blocks), position, None)


def iter_blocks(data: Buffer) -> Iterator[ArchiveBlock]:
    """Every block of a file that must be whole. Raises FormatError at the first bad byte."""
    position = 0
    while position < len(data):
        block = parse_block(data, offset=position)
        yield block
        position = block.end


def last_block(data: Buffer) -> ArchiveBlock | None:
    """The last good block: through the 4-byte tail, or by iterating from 0 when that does not lead to one."""
    if len(data) >= BLOCK_META_SIZE + TAIL_SIZE:
        (offset,) = _TAIL.unpack_from(data, len(data) - TAIL_SIZE)
        if 0 <= offset <= len(data) - BLOCK_META_SIZE - TAIL_SIZE:
            try:
                block = parse_block(data, offset=offset)
            except FormatError:
                pass
            else:
                if block.end == len(data):
                    return block
    blocks = scan_data_file(data).blocks
    return blocks[-1] if blocks else None


def tail_offset(tail: Buffer, file_size: int) -> int | None:
    """Where the last block begins, from the last 4 bytes of a file; None when they cannot be a tail."""
    if len(tail) != TAIL_SIZE:
        return None
    (offset,) = _TAIL.unpack(tail)
    return offset if 0 <= offset <= file_size - BLOCK_META_SIZE - TAIL_SIZE else None


def _resync(data: Buffer, start: int) -> int | None:
    """The offset of the next whole block at or after ``start``."""
    haystack = bytes(memoryview(data)[start:])
    signature = struct.pack(">hh", BLOCK_MAGIC, BLOCK_VERSION)
    found = haystack.find(signature)
    while found >= 0:
        try:
            return parse_block(data, offset=start + found).offset
        except FormatError:
            found = haystack.find(signature, found + 1)
    return None


def check_chain(blocks: tuple[ArchiveBlock, ...], accum: int, next_log_id: int) -> tuple[int, int]:
    """Follow the running checksum and the log ids through blocks, entry by entry.

    Args:
        accum: running checksum before the first entry.
        next_log_id: id the first entry must have.

    Returns:
        The same two values after the last entry. Kickoff entries do not count.

    Raises:
        IntegrityError: an id or a checksum does not continue, or a block's meta does not match its entries.
    """
    for block in blocks:
        for entry in iter_log_entries(block.raw(), base_offset=block.offset + BLOCK_META_SIZE):
            header = entry.header
            if header.log_type == LogType.ARCHIVE_KICKOFF:
                continue
            if header.log_id != next_log_id:
                raise IntegrityError(
                    f"log id {header.log_id} at offset {block.offset}: expected {next_log_id}",
                    offset=block.offset,
                    log_id=header.log_id,
                )
            next_log_id += 1
            accum = next_accum(accum, header.data_checksum)
        if block.meta.max_log_id != next_log_id - 1 or block.meta.accum_checksum != accum:
            raise IntegrityError(
                f"archive block at offset {block.offset}: expected max log id {next_log_id - 1} and running checksum"
                f" {accum:#x}, found {block.meta.max_log_id} and {block.meta.accum_checksum:#x}",
                offset=block.offset,
            )
    return accum, next_log_id
