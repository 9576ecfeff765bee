"""Archive index files, the archive key of a PG, and the round start of a server: fixed big-endian records.

The checksum of each is ob_crc64 over the same fields packed little-endian, up to the checksum itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from mover.errors import FormatError
from mover.kernel import ob_crc64
from mover.media.serial import Buffer

INDEX_RECORD_SIZE = 144
INDEX_MAGIC = 0x4149  # "AI"
KEY_SIZE = 168
KEY_MAGIC = 0x414B  # "AK"
START_TIMESTAMP_SIZE = 24
INDEX_FILE_LIMIT = 64 << 10  # an index file is closed before it grows beyond this
_VERSION = 1
_INDEX = struct.Struct(">hhhhQqqqqQqQqqqQqqqqq")
_INDEX_IMAGE = struct.Struct("<hhhhQqqqqQqQqqqQqqqq")
_KEY_HEAD = struct.Struct(">hhhhQ")
_KEY_IMAGE_HEAD = struct.Struct("<hhhhQ")
_INDEX_WHOLE_IMAGE = struct.Struct("<hhhhQqqqqQqQqqqQqqqqq")
_CHECKSUM = struct.Struct(">q")
_START = struct.Struct(">qqq")
_START_IMAGE = struct.Struct("<qq")


@dataclass(frozen=True, slots=True)
class ArchiveIndexRecord:
    """ObArchiveIndexFileInfo: one closed data file; times in microseconds.

    The ``round_*`` fields repeat the start of the round, so that any one record suffices to know it.
    """

    data_file_id: int
    input_bytes: int
    output_bytes: int
    clog_epoch_id: int
    accum_checksum: int  # running checksum at max_log_id
    min_log_id: int
    min_log_ts: int
    max_log_id: int
    max_checkpoint_ts: int
    max_log_submit_ts: int
    round_start_ts: int
    round_start_log_id: int
    round_snapshot_version: int
    round_log_submit_ts: int  # this and the two below: of log round_start_log_id - 1
    round_clog_epoch_id: int
    round_accum_checksum: int
    is_valid: bool = True  # False: the data file holds nothing usable

    def _fields(self) -> tuple[int, ...]:
        return (
            INDEX_MAGIC,
            INDEX_RECORD_SIZE,
            _VERSION,
            int(self.is_valid),
            self.data_file_id,
            self.input_bytes,
            self.output_bytes,
            self.clog_epoch_id,
            self.accum_checksum,
            self.min_log_id,
            self.min_log_ts,
            self.max_log_id,
            self.max_checkpoint_ts,
            self.max_log_submit_ts,
            self.round_start_ts,
            self.round_start_log_id,
            self.round_snapshot_version,
            self.round_log_submit_ts,
            self.round_clog_epoch_id,
            self.round_accum_checksum,
        )

    def checksum(self) -> int:
        """ob_crc64 over the first 136 bytes of the little-endian image."""
        return ob_crc64(_INDEX_IMAGE.pack(*self._fields()))

    def pack(self) -> bytes:
        """The 144 bytes. Raises ValueError when a field does not fit."""
        try:
            return _INDEX.pack(*self._fields(), self.checksum())
        except struct.error as error:
            raise ValueError(f"archive index record of data file {self.data_file_id}: {error}") from error


def parse_index_record(data: Buffer, *, offset: int = 0) -> ArchiveIndexRecord:
    """Decode and check 144 bytes. Raises FormatError."""

    def bad(expected: str) -> FormatError:
        return FormatError(f"bad archive index record at offset {offset}: expected {expected}", offset=offset)

    if len(data) != INDEX_RECORD_SIZE:
        raise bad(f"{INDEX_RECORD_SIZE} bytes, found {len(data)}")
    *fields, checksum = _INDEX.unpack(data)
    magic, length, version, valid = fields[:4]
    if magic != INDEX_MAGIC or length != INDEX_RECORD_SIZE or version != _VERSION:
        raise bad(
            f"magic {INDEX_MAGIC:#06x}, length {INDEX_RECORD_SIZE} and version {_VERSION},"
            f" found {magic & 0xFFFF:#06x}, {length} and {version}"
        )
    if ob_crc64(_INDEX_IMAGE.pack(*fields)) != checksum:
        raise bad("a valid checksum")
    if valid not in (0, 1):
        raise bad(f"is_valid of 0 or 1, found {valid}")
    return replace(ArchiveIndexRecord(*fields[4:]), is_valid=bool(valid))


@dataclass(frozen=True, slots=True)
class IndexFile:
    """An index file, scanned: its good records, and the offset and reason of the first bad bytes, if any."""

    records: tuple[ArchiveIndexRecord, ...]
    bad_offset: int | None = None
    reason: str | None = None


def scan_index_file(data: Buffer) -> IndexFile:
    """Every record up to the first bad one; data file ids ascend.

    Never raises for bad bytes: a writer may have died in the last record.
    """
    view = memoryview(data)
    records: list[ArchiveIndexRecord] = []
    for offset in range(0, len(view), INDEX_RECORD_SIZE):
        try:
            record = parse_index_record(view[offset : offset + INDEX_RECORD_SIZE], offset=offset)
        except FormatError as error:
            return IndexFile(tuple(records), offset, error.message)
        if records and record.data_file_id <= records[-1].data_file_id:
            reason = f"data file {record.data_file_id} at offset {offset} comes after {records[-1].data_file_id}"
            return IndexFile(tuple(records), offset, reason)
        records.append(record)
    return IndexFile(tuple(records))


@dataclass(frozen=True, slots=True)
class ArchiveKey:
    """ObArchiveKeyContent: written once per PG before its first data in a round (later-3.x form).

    ``index`` is the state at the end of the previous piece; in a first piece it is the start of the round with
    data_file_id 0.
    """

    is_first_piece: bool
    max_index_file_id: int  # of the previous piece
    index: ArchiveIndexRecord

    def pack(self) -> bytes:
        """The 168 bytes. Raises ValueError when a field does not fit."""
        head = (KEY_MAGIC, _VERSION, int(self.is_first_piece), 0, self.max_index_file_id)
        try:
            disk = _KEY_HEAD.pack(*head) + self.index.pack()
            return disk + _CHECKSUM.pack(_key_checksum(head, self.index))
        except struct.error as error:
            raise ValueError(f"archive key: {error}") from error


def _key_checksum(head: tuple[int, ...], index: ArchiveIndexRecord) -> int:
    image = _INDEX_WHOLE_IMAGE.pack(*index._fields(), index.checksum())
    return ob_crc64(_KEY_IMAGE_HEAD.pack(*head) + image)


def parse_archive_key(data: Buffer, *, offset: int = 0) -> ArchiveKey:
    """Decode and check 168 bytes. Raises FormatError."""

    def bad(expected: str) -> FormatError:
        return FormatError(f"bad archive key at offset {offset}: expected {expected}", offset=offset)

    if len(data) != KEY_SIZE:
        raise bad(f"{KEY_SIZE} bytes, found {len(data)}")
    view = memoryview(data)
    head = _KEY_HEAD.unpack_from(view)
    magic, version, first, reserved, file_id = head
    if magic != KEY_MAGIC or version != _VERSION or first not in (0, 1) or reserved:
        raise bad(f"magic {KEY_MAGIC:#06x} and version {_VERSION}, found {magic & 0xFFFF:#06x} and {version}")
    index = parse_index_record(view[_KEY_HEAD.size : KEY_SIZE - _CHECKSUM.size], offset=offset + _KEY_HEAD.size)
    (checksum,) = _CHECKSUM.unpack(view[KEY_SIZE - _CHECKSUM.size :])
    if _key_checksum(head, index) != checksum:
        raise bad("a valid checksum")
    return ArchiveKey(bool(first), file_id, index)


@dataclass(frozen=True, slots=True)
class KeyMarker:
    """An ``archive_key`` of 2.2.6x and 3.1.0, whose content is not confirmed: that it is there is what counts."""

    content: bytes


def read_archive_key(data: Buffer, *, offset: int = 0) -> ArchiveKey | KeyMarker:
    """An ``archive_key`` of any generation. Raises FormatError for one of later 3.x that does not hold."""
    head = bytes(data[:2])
    if len(data) == KEY_SIZE or (head and KEY_MAGIC.to_bytes(2, "big").startswith(head)):
        return parse_archive_key(data, offset=offset)
    return KeyMarker(bytes(data))


@dataclass(frozen=True, slots=True)
class ArchiveStart:
    """ObArchiveStartTimestamp, the content of ``clog_info/<server>``: when a server began the round (us)."""

    round_id: int
    timestamp: int

    def pack(self) -> bytes:
        """The 24 bytes."""
        return _START.pack(ob_crc64(_START_IMAGE.pack(self.round_id, self.timestamp)), self.round_id, self.timestamp)


def parse_archive_start(data: Buffer, *, offset: int = 0) -> ArchiveStart:
    """Decode and check 24 bytes. Raises FormatError."""
    if len(data) != START_TIMESTAMP_SIZE:
        raise FormatError(
            f"bad round start at offset {offset}: expected {START_TIMESTAMP_SIZE} bytes, found {len(data)}",
            offset=offset,
        )
    checksum, round_id, timestamp = _START.unpack(data)
    if ob_crc64(_START_IMAGE.pack(round_id, timestamp)) != checksum:
        raise FormatError(f"bad round start at offset {offset}: expected a valid checksum", offset=offset)
    return ArchiveStart(round_id, timestamp)
