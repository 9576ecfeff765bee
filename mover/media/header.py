"""ObBackupCommonHeader: the 48 little-endian bytes in front of everything in a data backup and in the info files."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from mover.encryption.cipher import TRAILER_SIZE
from mover.errors import FormatError
from mover.kernel import ob_crc64
from mover.media.serial import Buffer

HEADER_SIZE = 48
HEADER_VERSION = 1
SEALED = 0x100
"""In the compressor field: the payload is encrypted, after it was compressed as the rest of the field says."""
_STRUCT = struct.Struct("<HHHHhhIqqqq")


class DataType(IntEnum):
    """What a common header stands in front of. 200 and above are mover's own (a raw header's type is at most 255)."""

    META = 0
    MACRO_DATA = 1
    META_INDEX = 2
    MACRO_DATA_INDEX = 3
    SSTABLE_MACRO_INDEX = 4
    LOG_ARCHIVE_BACKUP_INFO = 5
    BACKUP_INFO = 6
    BACKUP_SET_INFO = 7
    PG_LIST = 8
    TENANT_INFO = 9
    FILE_END_MARK = 10
    FILE_SWITCH_MARK = 11
    TENANT_LOCALITY_INFO = 12
    TENANT_DIAGNOSE_INFO = 13
    TENANT_NAME_INFO = 14
    PIECE_INFO = 15
    SINGLE_PIECE_INFO = 16
    SET_FILE_INFO = 17
    MANIFEST_FACTS = 200
    MANIFEST_BLOCKS = 201
    MANIFEST_FILES = 202
    MANIFEST_ROOT = 203
    ROUND_RECORD = 204
    KEY_RING = 205
    CLUSTER_RECORD = 206
    WRITTEN = 207
    COPY_RECORD = 210


class Compressor(IntEnum):
    """ObCompressorType as 3.1 numbers it (4.x renumbered)."""

    INVALID = 0
    NONE = 1
    LZ4 = 2
    SNAPPY = 3
    ZLIB = 4
    ZSTD = 5
    STREAM_LZ4 = 6
    STREAM_ZSTD = 7
    ZSTD_1_3_8 = 8
    STREAM_ZSTD_1_3_8 = 9
    LZ4_191 = 10


# The info files leave data_version 0, but for the two that set it; everything else writes 1. The header checksum does
# not cover the field, so strict parsing compares it with this table.
_UNVERSIONED = frozenset(
    {
        DataType.BACKUP_INFO,
        DataType.BACKUP_SET_INFO,
        DataType.PG_LIST,
        DataType.TENANT_INFO,
        DataType.TENANT_LOCALITY_INFO,
        DataType.TENANT_DIAGNOSE_INFO,
    }
)


def data_version_of(data_type: int) -> int:
    """The data_version that goes with a data type."""
    return 0 if data_type in _UNVERSIONED else 1


@dataclass(frozen=True, slots=True)
class CommonHeader:
    """The fields of a header; lengths in bytes."""

    data_type: int
    data_length: int  # payload before compression
    data_zlength: int  # payload as stored
    data_checksum: int  # ob_crc64 of the payload as stored
    align_length: int = 0  # zero bytes behind the payload
    compressor: int = Compressor.NONE
    data_version: int = -1  # -1: the one that goes with data_type

    def pack(self) -> bytes:
        """The 48 bytes with their checksum."""
        version = data_version_of(self.data_type) if self.data_version < 0 else self.data_version
        lengths = (self.data_length, self.data_zlength, self.data_checksum, self.align_length)
        checksum = header_checksum(HEADER_VERSION, self.compressor, self.data_type, HEADER_SIZE, *lengths)
        return _STRUCT.pack(
            self.data_type, HEADER_VERSION, version, self.compressor, HEADER_SIZE, checksum, 0, *lengths
        )

    @property
    def sealed(self) -> bool:
        """The payload is encrypted."""
        return bool(self.compressor & SEALED)

    @property
    def codec(self) -> int:
        """The compressor, encrypted or not."""
        return self.compressor & ~SEALED

    @property
    def total(self) -> int:
        """Bytes of header, payload and padding."""
        return HEADER_SIZE + self.data_zlength + self.align_length

    def check_payload(self, payload: Buffer, *, offset: int = 0) -> None:
        """Raises FormatError when ``payload`` (as stored) is not what the header says. ``offset``: the header's own."""
        if len(payload) != self.data_zlength:
            raise _bad(offset + HEADER_SIZE, f"a payload of {self.data_zlength} bytes, found {len(payload)}")
        found = ob_crc64(payload)
        if found != self.data_checksum:
            raise _bad(offset + HEADER_SIZE, f"payload checksum {self.data_checksum:#x}, found {found:#x}")


def header_checksum(*values: int) -> int:
    """XOR of the 16-bit words of every value, as a signed 16-bit integer. i64 values count as four words."""
    folded = 0
    for value in values:
        word = value & 0xFFFF_FFFF_FFFF_FFFF
        folded ^= word ^ word >> 16 ^ word >> 32 ^ word >> 48
    folded &= 0xFFFF
    return folded - 0x10000 if folded & 0x8000 else folded


def _bad(offset: int, expected: str) -> FormatError:
    return FormatError(f"bad header at offset {offset}: expected {expected}", offset=offset, expected=expected)


def parse_header(data: Buffer, *, offset: int = 0, strict: bool = True, data_type: int | None = None) -> CommonHeader:
    """Decode and check the first 48 bytes of ``data``.

    Args:
        data: at least 48 bytes; more are ignored.
        offset: where they are in their file, for messages.
        strict: also check what the checksum does not cover (data_version, padding). Trees that a later OceanBase wrote
            may need False.
        data_type: refuse any other type.

    Raises:
        FormatError: truncated, wrong checksum or version, impossible lengths, or an unexpected type.
    """
    if len(data) < HEADER_SIZE:
        raise _bad(offset, f"{HEADER_SIZE} bytes, found {len(data)}")
    kind, version, data_version, compressor, length, checksum, pad, *lengths = _STRUCT.unpack_from(data)
    if version != HEADER_VERSION:
        raise _bad(offset + 2, f"header version {HEADER_VERSION}, found {version}")
    if length != HEADER_SIZE:
        raise _bad(offset + 8, f"header length {HEADER_SIZE}, found {length}")
    expected = header_checksum(version, compressor, kind, length, *lengths)
    if checksum != expected:
        raise _bad(offset + 10, f"header checksum {expected & 0xFFFF:#06x}, found {checksum & 0xFFFF:#06x}")
    if data_type is not None and kind != data_type:
        raise _bad(offset, f"data type {data_type}, found {kind}")
    codec, trailer = compressor & ~SEALED, TRAILER_SIZE if compressor & SEALED else 0
    if codec == Compressor.INVALID or codec > Compressor.LZ4_191:
        raise _bad(offset + 6, f"a compressor type, found {compressor}")
    raw, stored, data_checksum, align = lengths
    if min(raw, stored, align) < 0 or not 0 <= data_checksum < 1 << 32:
        raise _bad(offset + 16, "lengths of at least 0 and a 32-bit checksum")
    if codec == Compressor.NONE and raw != stored - trailer:
        raise _bad(offset + 24, f"equal lengths without compression, found {raw} and {stored - trailer}")
    if stored < trailer:
        raise _bad(offset + 24, f"an encrypted payload of at least {trailer} bytes, found {stored}")
    if strict:
        if data_version != data_version_of(kind):
            raise _bad(offset + 4, f"data version {data_version_of(kind)} of type {kind}, found {data_version}")
        if pad:
            raise _bad(offset + 12, "4 zero bytes")
    return CommonHeader(kind, raw, stored, data_checksum, align, compressor, data_version)
