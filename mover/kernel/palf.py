"""PALF, the log of a 4.x log stream: constants, record layouts and the types that both kernel twins return.

A log file ``store/redo/sys/log_stream/log/N`` is 64 MiB: a 4096-byte page whose first 48 bytes are the block header,
then log bytes. File ``N`` holds the LSNs ``[N * PALF_FILE_BYTES, (N + 1) * PALF_FILE_BYTES)``; no group crosses from
one file into the next. Everything on disk is big-endian; the checks of headers are taken over the same fields packed
little-endian::

    block "IB"  48  magic, version 1, flag, min_lsn, min_scn, max_scn, block_id, checksum
    group "GR"  48  magic, version 3, group_size, committed_end_lsn, max_scn, accumulated checksum, log_id, flag
    entry "LH"  32  magic, version 2, log_size, scn, data_checksum, flag

The low 16 bits of a flag are XXH64 over the header with those bits zero. The data checksum of a group is the chain
``ob_crc64(le64(entry.data_checksum), previous)`` over its entries, 0 for a padding group; the accumulated checksum is
the chain of those over all groups of the log stream, across files.

Found by experiment on pylibseekdb 1.4.0 (OceanBase 4.3.5.3 seekdb).
"""

from __future__ import annotations

import struct
from array import array
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from mover.errors import FormatError
from mover.kernel._checksum_py import ob_crc64
from mover.kernel.limits import check_unsigned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

PALF_FILE_HEADER = 4096
PALF_FILE_BYTES = (64 << 20) - PALF_FILE_HEADER
"""Log bytes in one file: LSN distance between the starts of two neighbouring files."""

PALF_START_ACCUM = (1 << 64) - 1
"""What the accumulated checksum of the very first group (LSN 0, log id 1) continues."""

GROUP_HEADER = struct.Struct(">HhiQQQQQ")
GROUP_IMAGE = struct.Struct("<HhiQQQQQ")
GROUP_MAGIC = 0x4752
GROUP_VERSION = 3
ENTRY_HEADER = struct.Struct(">HhiQQQ")
ENTRY_IMAGE = struct.Struct("<HhiQQQ")
ENTRY_MAGIC = 0x4C48
ENTRY_VERSION = 2
BLOCK_HEADER = struct.Struct(">HhiQQQQQ")
BLOCK_IMAGE = struct.Struct("<HhiQQQQ")
BLOCK_MAGIC = 0x4942
BLOCK_VERSION = 1

FLAG_PADDING = 1 << 62
FLAG_RAW_WRITE = 1 << 61
FLAG_CHECK_MASK = 0xFFFF
PADDING_CHECKED_BYTES = 16
"""Of the body of a padding entry only this much is covered by its data checksum."""

GROUP_COLUMNS = 7
"""Numbers per group in ``PalfWalk.groups``."""

# The archive's wrapper: one OceanBase 3.1 ObLogEntry of our own log type per group.
LOG_ENTRY_HEADER = struct.Struct(">hhiQiiQqqqbqqqqqq")
LOG_ENTRY_IMAGE = struct.Struct("<hhiQiiQQqqqi16siqqqq")
LOG_ENTRY_MAGIC = 0x4552
LOG_ENTRY_VERSION = 1
LOG_TYPE_PALF_GROUP = 401
PG_KEY_SIZE = 16
GROUP_BODY = struct.Struct(">hhiq")
GROUP_BODY_VERSION = 1
GROUP_BODY_HAS_BLOCK_HEADER = 1
MAX_PAYLOAD = 1_966_080
"""Raw bytes in one archive block (OB_MAX_LOG_BUFFER_SIZE), unless a single group is larger."""

FRAME_COLUMNS = 8
"""Numbers per entry in ``PalfFrames.table``."""


class PalfStop(IntEnum):
    """Why a walk ended."""

    END = 0
    """Every byte of the buffer belongs to a valid group."""
    TORN = 1
    """The last group is incomplete: the buffer ends inside it, or its tail was never written."""
    ZERO = 2
    """Zeros follow the last group: the unused rest of the active file."""
    CORRUPT = 3
    """A header, a checksum, the chain or a log id is not what it must be; ``reason`` says which."""
    UNTIL = 4
    """The next group would end behind ``until_lsn``."""


class PalfGroup(NamedTuple):
    """One row of ``PalfWalk.groups``."""

    offset: int
    """Of its header in the buffer."""
    size: int
    """Header and body, bytes."""
    log_id: int
    min_scn: int
    """SCN of its first entry, ns."""
    max_scn: int
    """SCN of its last entry, ns."""
    accum: int
    """Accumulated checksum after this group."""
    flags: int
    """The flag word of its header; ``FLAG_PADDING`` marks a group that only fills a file."""


class PalfWalk(NamedTuple):
    """What a walk found. The first and last fields are 0 when there is no group."""

    end: int
    """Offset in the buffer behind the last valid group."""
    end_lsn: int
    stop: PalfStop
    reason: str
    """For CORRUPT and TORN: what is wrong and at which LSN; else empty."""
    group_count: int
    first_log_id: int
    last_log_id: int
    min_scn: int
    """SCN of the first entry of the first group, ns."""
    max_scn: int
    """max_scn of the last group, ns."""
    accum: int | None
    """Accumulated checksum after the last group; the caller's ``accum`` when there is none."""
    groups: array[int]
    """``GROUP_COLUMNS`` unsigned 64-bit numbers per group, in the order of ``PalfGroup``."""

    def rows(self) -> Iterator[PalfGroup]:
        """The groups as named rows."""
        for at in range(0, len(self.groups), GROUP_COLUMNS):
            yield PalfGroup._make(self.groups[at : at + GROUP_COLUMNS])

    def row(self, index: int) -> PalfGroup:
        """Group ``index``, negative from the end."""
        at = range(self.group_count)[index] * GROUP_COLUMNS
        return PalfGroup._make(self.groups[at : at + GROUP_COLUMNS])


class PalfFrame(NamedTuple):
    """One row of ``PalfFrames.table``: where one group lies in an archive payload."""

    body_offset: int
    """Of the entry's body in the payload: the 16-byte prefix."""
    group_offset: int
    """Of the raw group in the payload; the log block header, if any, is the 48 bytes before it."""
    group_size: int
    lsn: int
    log_id: int
    submit_ts: int
    """Microseconds: max_scn // 1000."""
    epoch_id: int
    data_checksum: int

    @property
    def has_block_header(self) -> bool:
        """Is this group the first of its log file, with the file's header stored before it?"""
        return self.group_offset - self.body_offset > GROUP_BODY.size


class PalfFrames(NamedTuple):
    """The verified entries of one archive payload."""

    pg_key: bytes
    """16 bytes, big-endian; empty when there is no entry."""
    entry_count: int
    accum: int
    """The archive's running checksum (OceanBase 3.1's rule) after the last entry."""
    table: array[int]
    """``FRAME_COLUMNS`` unsigned 64-bit numbers per entry, in the order of ``PalfFrame``."""

    def rows(self) -> Iterator[PalfFrame]:
        """The entries as named rows."""
        for at in range(0, len(self.table), FRAME_COLUMNS):
            yield PalfFrame._make(self.table[at : at + FRAME_COLUMNS])


class PalfBlockHeader(NamedTuple):
    """The header of a log file (LogBlockHeader, 48 bytes)."""

    flag: int
    min_lsn: int
    min_scn: int
    max_scn: int
    block_id: int


def check_frames(
    lsn: int,
    groups: array[int],
    pg_key: bytes,
    epoch: int,
    accum: int,
    with_header: bool,
    header_size: int,
    start: int,
) -> None:
    """Refuse arguments of ``palf_frame_groups`` that do not fit each other, with ValueError."""
    check_unsigned("lsn", lsn)
    check_unsigned("accum", accum)
    if not 0 <= epoch < 1 << 63:
        raise ValueError(f"epoch {epoch} does not fit an i64")
    if len(pg_key) != PG_KEY_SIZE:
        raise ValueError(f"pg_key must be {PG_KEY_SIZE} bytes, got {len(pg_key)}")
    if with_header and header_size != BLOCK_HEADER.size:
        raise ValueError(f"block_header must be {BLOCK_HEADER.size} bytes, got {header_size}")
    if groups.typecode != "Q" or len(groups) % GROUP_COLUMNS:
        raise ValueError("groups must be the array of a walk")
    if not 0 <= start <= len(groups) // GROUP_COLUMNS:
        raise ValueError(f"start {start} is not an index into {len(groups) // GROUP_COLUMNS} groups")


def palf_block_header_parse(data: Buffer) -> PalfBlockHeader:
    """Decode and verify the first 48 bytes of a log file.

    Raises:
        FormatError: too short, wrong magic or version, or the checksum does not match.
    """
    view = memoryview(data).cast("B")
    if len(view) < BLOCK_HEADER.size:
        raise FormatError(f"log block header needs {BLOCK_HEADER.size} bytes, got {len(view)}")
    magic, version, flag, min_lsn, min_scn, max_scn, block_id, checksum = BLOCK_HEADER.unpack_from(view)
    if magic != BLOCK_MAGIC or version != BLOCK_VERSION:
        raise FormatError(f"not a log block header: magic {magic:#06x}, version {version}")
    if ob_crc64(BLOCK_IMAGE.pack(magic, version, flag, min_lsn, min_scn, max_scn, block_id)) != checksum:
        raise FormatError(f"log block header of block {block_id}: checksum {checksum:#x} does not match")
    return PalfBlockHeader(flag, min_lsn, min_scn, max_scn, block_id)


def palf_block_header_build(header: PalfBlockHeader) -> bytes:
    """The 48 bytes of ``header`` with its checksum. The rest of the 4096-byte page is zero."""
    fields = (BLOCK_MAGIC, BLOCK_VERSION, *header)
    return BLOCK_HEADER.pack(*fields, ob_crc64(BLOCK_IMAGE.pack(*fields)))
