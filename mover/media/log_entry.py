"""ObLogEntry of OceanBase 3.1: the 105-byte header, the kickoff entry, and mover's own entry around a PALF group.

Integers are big-endian on disk; the header checksum is ob_crc64 over the 120-byte little-endian image the header had in
OceanBase's memory, which also holds a hash of the PG key. Framing many groups at once is the kernel's work
(``mover.kernel.palf_frame_groups``); this module is the readable form of the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from mover.errors import FormatError
from mover.kernel import ob_crc64
from mover.media.pg import PGKey
from mover.media.serial import I16, I64, Buffer, Unis

ENTRY_HEADER_SIZE = 105
ENTRY_MAGIC = 0x4552  # "ER"
ENTRY_VERSION = 1
BATCH_COMMITTED = 1 << 63  # in submit_timestamp as archived; not part of the header checksum
LOG_BLOCK_HEADER_SIZE = 48
_HEADER = struct.Struct(">hhiQiiQqqqbqqQqqq")
_IMAGE = struct.Struct("<hhIQiiQQqqqi4s12siqQqq")
_BODY = struct.Struct(">hhiq")
_BODY_VERSION = 1
_FLAG_BLOCK_HEADER = 1
_M64 = (1 << 64) - 1


class LogType(IntEnum):
    """Types of log entries; the top bit of the field marks transaction logs and is masked. 401 is mover's own."""

    MEMBERSHIP = 101
    PREPARED = 102
    NOP = 103
    START_MEMBERSHIP = 104
    NOT_EXIST = 105
    RENEW_MS = 106
    STANDBY_PREPARED = 107
    TRUNCATE = 108
    SUBMIT = 201
    AGGRE = 202
    ARCHIVE_CHECKPOINT = 301
    ARCHIVE_KICKOFF = 302
    PALF_GROUP = 401


def murmurhash64a(data: bytes, seed: int = 0) -> int:
    """MurmurHash64A, as OceanBase hashes PG keys."""
    m = 0xC6A4A7935BD1E995
    h = (seed ^ len(data) * m) & _M64
    whole = len(data) & ~7
    for (k,) in struct.iter_unpack("<Q", data[:whole]):
        mixed = k * m & _M64
        mixed = (mixed ^ mixed >> 47) * m & _M64
        h = (h ^ mixed) * m & _M64
    if whole != len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & _M64
    h = (h ^ h >> 47) * m & _M64
    return h ^ h >> 47


@lru_cache(maxsize=1024)
def pg_hash(pg: PGKey) -> int:
    """The hash of a PG key that the header image holds."""
    h = murmurhash64a(struct.pack("<Q", pg.table_id))
    h = murmurhash64a(struct.pack("<i", pg.part_id), h)
    return murmurhash64a(struct.pack("<i", pg.assist_id), h)


@dataclass(frozen=True, slots=True)
class LogEntryHeader:
    """The fields of an entry header; times in microseconds."""

    log_type: int  # without the transaction bit
    pg: PGKey
    log_id: int
    data_length: int
    data_checksum: int  # ob_crc64 of the body
    generation_timestamp: int
    submit_timestamp: int  # without the batch bit
    epoch_id: int = 0
    freeze_version: int = 0
    proposal_server: int = 0  # ipv4 << 32 | port
    proposal_timestamp: int = 0
    batch_committed: bool = False
    transaction: bool = False  # the top bit of log_type

    def _checksum(self) -> int:
        flagged = self.log_type | (1 << 31 if self.transaction else 0)
        return ob_crc64(
            _IMAGE.pack(
                ENTRY_MAGIC,
                ENTRY_VERSION,
                flagged,
                self.pg.table_id,
                self.pg.part_id,
                self.pg.assist_id,
                pg_hash(self.pg),
                self.log_id,
                self.data_length,
                self.generation_timestamp,
                self.epoch_id,
                4,
                (self.proposal_server >> 32 & 0xFFFF_FFFF).to_bytes(4, "little"),
                bytes(12),
                self.proposal_server & 0x7FFF_FFFF,
                self.proposal_timestamp,
                self.submit_timestamp,
                self.data_checksum,
                self.freeze_version,
            )
        )

    def pack(self) -> bytes:
        """The 105 bytes. Raises ValueError when a field does not fit."""
        flagged = self.log_type - (1 << 31 if self.transaction else 0)
        try:
            return _HEADER.pack(
                ENTRY_MAGIC,
                ENTRY_VERSION,
                flagged,
                self.pg.table_id,
                self.pg.part_id,
                self.pg.assist_id,
                self.log_id,
                self.data_length,
                self.generation_timestamp,
                self.epoch_id,
                4,
                self.proposal_server,
                self.proposal_timestamp,
                self.submit_timestamp | (BATCH_COMMITTED if self.batch_committed else 0),
                self.data_checksum,
                self.freeze_version,
                self._checksum(),
            )
        except struct.error as error:
            raise ValueError(f"log entry {self.log_id}: {error}") from error


def parse_log_entry_header(data: Buffer, *, offset: int = 0, checked: bool = True) -> LogEntryHeader:
    """Decode and check the first 105 bytes of an entry. Raises FormatError.

    Args:
        checked: False leaves out the header checksum, for whoever wants to know what else is wrong.
    """

    def bad(expected: str) -> FormatError:
        return FormatError(f"bad log entry at offset {offset}: expected {expected}", offset=offset)

    if len(data) < ENTRY_HEADER_SIZE:
        raise bad(f"{ENTRY_HEADER_SIZE} header bytes, found {len(data)}")
    (
        magic,
        version,
        log_type,
        table_id,
        part_id,
        assist_id,
        log_id,
        length,
        generation,
        epoch,
        ip_version,
        server,
        proposal_ts,
        submit,
        data_checksum,
        freeze,
        checksum,
    ) = _HEADER.unpack_from(data)
    if magic != ENTRY_MAGIC or version != ENTRY_VERSION:
        raise bad(f"magic {ENTRY_MAGIC:#06x} and version {ENTRY_VERSION}, found {magic & 0xFFFF:#06x} and {version}")
    if ip_version != 4:
        raise bad(f"an IPv4 proposal id, found version {ip_version}")
    if length < 0 or server < 0:
        raise bad(f"a body length and a server of at least 0, found {length} and {server}")
    if server & 0x8000_0000:
        raise bad("a port below 2**31")
    header = LogEntryHeader(
        log_type & 0x7FFF_FFFF,
        PGKey(table_id, part_id, assist_id),
        log_id,
        length,
        data_checksum,
        generation,
        submit & ~BATCH_COMMITTED,
        epoch,
        freeze,
        server,
        proposal_ts,
        bool(submit & BATCH_COMMITTED),
        log_type < 0,
    )
    if checked and header._checksum() != checksum:
        raise bad("a valid header checksum")
    return header


def log_entry(
    log_type: int, pg: PGKey, log_id: int, body: Buffer, *, timestamp: int, epoch_id: int = 0, freeze_version: int = 0
) -> bytes:
    """One whole entry: header and body. ``timestamp`` (us) becomes generation and submit timestamp."""
    header = LogEntryHeader(
        log_type,
        pg,
        log_id,
        len(body),
        ob_crc64(body),
        timestamp,
        timestamp,
        epoch_id=epoch_id,
        freeze_version=freeze_version,
    )
    return header.pack() + bytes(body)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry that was read and verified; ``body`` is a view into the payload."""

    offset: int  # of its header in the payload
    header: LogEntryHeader
    body: memoryview


def iter_log_entries(payload: Buffer, *, base_offset: int = 0) -> Iterator[LogEntry]:
    """The back-to-back entries of a raw payload. Raises FormatError for anything that is not one."""
    view = memoryview(payload)
    position = 0
    while position < len(view):
        where = base_offset + position
        header = parse_log_entry_header(view[position : position + ENTRY_HEADER_SIZE], offset=where)
        start = position + ENTRY_HEADER_SIZE
        if header.data_length > len(view) - start:
            raise FormatError(
                f"bad log entry at offset {where}: expected a body of {header.data_length} bytes,"
                f" {len(view) - start} are left",
                offset=where,
                log_id=header.log_id,
            )
        body = view[start : start + header.data_length]
        if ob_crc64(body) != header.data_checksum:
            raise FormatError(
                f"bad log entry at offset {where}: expected body checksum {header.data_checksum:#x}"
                f" of log {header.log_id}",
                offset=where,
                log_id=header.log_id,
            )
        yield LogEntry(position, header, body)
        position = start + header.data_length


def next_accum(accum: int, data_checksum: int) -> int:
    """OceanBase's running checksum of a PG after one more entry; 0 before the first of a round."""
    return ob_crc64((data_checksum & _M64).to_bytes(8, "little"), accum)


# --- kickoff ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kickoff:
    """ObLogArchiveInnerLog: the start of a round for one PG; times in microseconds."""

    checkpoint_ts: int
    round_start_ts: int
    round_snapshot_version: int
    version: int = 1


_KICKOFF: Unis[Kickoff] = Unis(
    Kickoff, [("version", I16), ("checkpoint_ts", I64), ("round_start_ts", I64), ("round_snapshot_version", I64)]
)
# Kickoff entries carry freeze version (1, 0): the major version is the low half of the packed number.
_KICKOFF_FREEZE_VERSION = 1


def kickoff_entry(pg: PGKey, start_log_id: int, kickoff: Kickoff) -> bytes:
    """The inner entry of a kickoff block."""
    return log_entry(
        LogType.ARCHIVE_KICKOFF,
        pg,
        start_log_id,
        _KICKOFF.encode(kickoff),
        timestamp=kickoff.round_start_ts,
        freeze_version=_KICKOFF_FREEZE_VERSION,
    )


def parse_kickoff(entry: LogEntry, *, base_offset: int = 0) -> Kickoff:
    """The body of a kickoff entry. Raises FormatError."""
    where = base_offset + entry.offset
    if entry.header.log_type != LogType.ARCHIVE_KICKOFF:
        raise FormatError(f"bad kickoff at offset {where}: found log type {entry.header.log_type}", offset=where)
    kickoff = _KICKOFF.decode(entry.body, base_offset=where + ENTRY_HEADER_SIZE)
    if kickoff.version != 1:
        raise FormatError(f"bad kickoff at offset {where}: expected version 1, found {kickoff.version}", offset=where)
    return kickoff


# --- PALF groups, mover's own ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PalfGroupBody:
    """The body of a PALF_GROUP entry: where the group was, and its bytes."""

    lsn: int
    block_header: bytes | None  # of the source log file, when the group is the first in it
    group: memoryview  # header and all

    def pack(self) -> bytes:
        """``i16 1 | i16 flags | i32 0 | i64 lsn`` big-endian, the 48-byte block header if any, the group."""
        flags = 0 if self.block_header is None else _FLAG_BLOCK_HEADER
        return _BODY.pack(_BODY_VERSION, flags, 0, self.lsn) + (self.block_header or b"") + bytes(self.group)


def parse_palf_group(body: Buffer, *, offset: int = 0) -> PalfGroupBody:
    """Decode the body of a PALF_GROUP entry. Raises FormatError. The group itself is not walked."""

    def bad(expected: str) -> FormatError:
        return FormatError(f"bad palf group entry at offset {offset}: expected {expected}", offset=offset)

    view = memoryview(body)
    if len(view) < _BODY.size:
        raise bad(f"{_BODY.size} bytes before the group, found {len(view)}")
    version, flags, reserved, lsn = _BODY.unpack_from(view)
    if version != _BODY_VERSION or flags & ~_FLAG_BLOCK_HEADER or reserved or lsn < 0:
        raise bad(f"version {_BODY_VERSION}, known flags and an LSN; found {version}, {flags:#x}, {reserved}, {lsn}")
    start = _BODY.size
    header: bytes | None = None
    if flags & _FLAG_BLOCK_HEADER:
        header = bytes(view[start : start + LOG_BLOCK_HEADER_SIZE])
        if len(header) != LOG_BLOCK_HEADER_SIZE:
            raise bad(f"a log block header of {LOG_BLOCK_HEADER_SIZE} bytes")
        start += LOG_BLOCK_HEADER_SIZE
    return PalfGroupBody(lsn, header, view[start:])
