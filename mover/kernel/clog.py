"""clog, the commit log of an OceanBase 3.1 observer: record layouts and the types that both kernel twins return.

A file ``clog/<n>`` is 64 MiB, allocated in advance, sometimes an older file under a new name. It is a sequence of
blocks; everything on disk is big-endian, checksums are taken over the little-endian image the struct has in memory::

    block meta "LB"  48  magic, version 1, type, total_len, padding_len, timestamp, data_checksum, meta_checksum
    log entry  "ER" 105  header (its checksum covers a 120-byte image with the hash of the PG key), then the body
    padding    "PD"  12  magic, version 1, entry_size; skipped
    compressed "C1-3" 10 magic, original length, compressed length; decompresses to one whole log entry
    mark       "NL"      a file that was taken for reuse and has no log yet

The next block begins at ``start + total_len - padding_len``: what pads a block is not there physically. The last page
of the log is filled with a padding entry that the next write replaces, or that stands before the info block of a file
that is complete. So a walk ends at the last whole block, never behind padding.

Read in the open source of OceanBase 3.1; the field order of header and images is in ``mover.media.log_entry``.
"""

from __future__ import annotations

import struct
from array import array
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOG_FILE_BYTES = 64 << 20
CLOG_TRAILER_AT = CLOG_FILE_BYTES - 512
BLOCK_META = struct.Struct(">Hhiqqqqq")
BLOCK_IMAGE = struct.Struct("<Hhiqqqq")
BLOCK_MAGIC = 0x4C42
BLOCK_VERSION = 1
BLOCK_DATA = 1
BLOCK_INFO = 2
BLOCK_TRAILER = 3
ENTRY_HEADER = struct.Struct(">HhIQiiQqqqbqqQqqq")
ENTRY_IMAGE = struct.Struct("<HhIQiiQQqqqiI12xiqQqq")
ENTRY_MAGIC = 0x4552
ENTRY_VERSION = 1
SUBMIT_AT = 73
"""Where submit_timestamp is in a header; the archive marks batch commits in its top bit."""
PADDING = struct.Struct(">Hhq")
PADDING_MAGIC = 0x5044
PACKED = struct.Struct(">Hii")
PACKED_ZSTD, PACKED_LZ4, PACKED_ZSTD_138 = 0x4301, 0x4302, 0x4303
NEW_FILE_MAGIC = 0x4E4C
STALE_US = 2_000_000
"""A block that is older than the one before it by more than this was there before the file was reused."""
MAX_ENTRY = 64 << 20
CLOG_COLUMNS = 11
"""Numbers per entry in ``ClogWalk.table``."""


class ClogStop(IntEnum):
    """Why a walk ended."""

    END = 0
    """The buffer ends inside the next block or behind the last one."""
    INFO = 1
    """The info block that closes a file is at ``end``."""
    UNUSED = 2
    """Zeros, or the mark of a file taken for reuse: nothing was written here yet."""
    STALE = 3
    """The block at ``end`` is whole but older: it was there before the file was reused."""
    BAD = 4
    """What is at ``end`` is no valid block: torn by a write in progress, left over, or damaged; ``reason`` says why."""
    PADDING = 5
    """Padding up to the next page is at ``end``: the next block takes its place, or the info block follows it."""


class ClogEntry(NamedTuple):
    """One row of ``ClogWalk.table``."""

    offset: int
    """Of the item in the buffer: the entry's header, or the header of the compressed entry."""
    size: int
    """Of the item in the buffer, bytes."""
    image_offset: int
    """Of the whole entry in ``unpacked`` when it was compressed, else all ones."""
    image_size: int
    """Header and body of the entry, bytes."""
    pg: int
    """Index into ``ClogWalk.pgs``."""
    log_id: int
    proposal_ts: int
    """Of its proposal id, us: of entries with one log id the greatest counts."""
    submit_ts: int
    """Microseconds."""
    data_checksum: int
    log_type: int
    """Its top bit marks transaction logs."""
    epoch_id: int


class ClogWalk(NamedTuple):
    """What a walk found."""

    end: int
    """Offset behind the last whole block: where the next walk begins."""
    stop: ClogStop
    reason: str
    """For BAD what is wrong and where, else empty."""
    timestamp: int
    """Of the last block, us; the caller's when there is none."""
    blocks: int
    pgs: tuple[bytes, ...]
    """The PG keys that occur, 16 bytes big-endian each, in the order they were met."""
    table: array[int]
    """``CLOG_COLUMNS`` unsigned 64-bit numbers per entry, in the order of ``ClogEntry``."""
    unpacked: bytes
    """The entries that were compressed, whole."""

    def rows(self) -> Iterator[ClogEntry]:
        """The entries as named rows."""
        for at in range(0, len(self.table), CLOG_COLUMNS):
            yield ClogEntry._make(self.table[at : at + CLOG_COLUMNS])


NOT_PACKED = (1 << 64) - 1


class ClogFault(IntEnum):
    """A check that failed."""

    BLOCK_SHORT = 1
    BLOCK_MAGIC = 2
    BLOCK_CHECK = 3
    BLOCK_TYPE = 4
    BLOCK_SIZE = 5
    ITEM_MAGIC = 6
    ITEM_FIT = 7
    ENTRY_MAGIC = 8
    ENTRY_ADDRESS = 9
    ENTRY_FIT = 10
    ENTRY_CHECK = 11
    ENTRY_DATA = 12
    PACKED_SIZE = 13
    PACKED_DATA = 14


_WORDS = {
    ClogFault.BLOCK_SHORT: "{a} bytes left for a block",
    ClogFault.BLOCK_MAGIC: "block magic {a:#06x}, version {b}",
    ClogFault.BLOCK_CHECK: "block meta checksum {a:#x}, computed {b:#x}",
    ClogFault.BLOCK_TYPE: "block type {a}",
    ClogFault.BLOCK_SIZE: "block of {a} bytes with {b} of padding",
    ClogFault.ITEM_MAGIC: "item magic {a:#06x}",
    ClogFault.ITEM_FIT: "item of {a} bytes where {b} are left of its block",
    ClogFault.ENTRY_MAGIC: "entry magic {a:#06x}, version {b}",
    ClogFault.ENTRY_ADDRESS: "proposal id with an address of IP version {a}, only IPv4 is read",
    ClogFault.ENTRY_FIT: "entry body of {a} bytes where {b} are left",
    ClogFault.ENTRY_CHECK: "entry header checksum {a:#x}, computed {b:#x}",
    ClogFault.ENTRY_DATA: "entry body checksum {a:#x}, computed {b:#x}",
    ClogFault.PACKED_SIZE: "compressed entry of {b} bytes that claims {a}",
    ClogFault.PACKED_DATA: "compressed entry does not decompress to {a} bytes",
}


def describe_clog(fault: int, at: int, a: int, b: int) -> str:
    """The sentence for a fault at offset ``at`` of the buffer; all numbers unsigned."""
    return f"{_WORDS[ClogFault(fault)].format(a=a, b=b)} at offset {at}"
