"""Macro blocks at the destination: the payload of a macro frame, and the index that says where each block is.

``macro_block_<I>.<sub>`` holds one frame per block; ``macro_block_index_<I>`` holds groups of one TableKeyInfo and its
MacroIndex entries. The containers are OceanBase 3.1.0's; BlockMeta (the meta entry of a seekdb block) is mover's own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mover.errors import FormatError
from mover.kernel import encode_vi64
from mover.media.frames import INDEX_BUFFER, Frame, FrameWriter, frame
from mover.media.header import DataType
from mover.media.pg import PGKey
from mover.media.sealed import Sealing
from mover.media.serial import I32, I64, PG, U64, Buffer, Reader, Unis, unis_prefix, varint_size, vstr, vstr_size

MAX_BLOCKS_PER_FILE = 512
MACRO_SUFFIX = b"\x00"  # what follows the block bytes in a payload
BLOCK_META_VERSION = 100  # header_version of our meta entry; OceanBase's MetaV2 has 2 there
_BLOCK_META = struct.Struct("<iiHHIQQQqQQ")
BLOCK_META_SIZE = _BLOCK_META.size

TABLE_TYPE_MAJOR = 1
# Blocks of the other kinds belong to no one tablet; each kind is a group of its own under this bit and its number.
# A tablet id never has the bit (small numbers alone would collide with the tablets of inner tables).
RESERVED_TABLE_ID = 1 << 39
_KIND_SSTABLE_DATA = 1


@dataclass(frozen=True, slots=True)
class BlockMeta:
    """The meta entry of a seekdb macroblock: 64 bytes, little-endian.

    It stands where OceanBase puts ObFullMacroBlockMetaEntry and begins like it, with size and header_version.
    """

    block_index: int  # byte offset in block_file / 2 MiB
    kind: int  # the engine's block type (attr)
    used_length: int  # bytes stored; the rest of the block is zeros
    tablet_id: int = 0
    logical_version: int = 0
    data_seq: int = 0
    payload_checksum: int = 0  # the engine's, from the block header
    data_checksum: int = 0  # the engine's, from the sstable header (kind 1)

    def pack(self) -> bytes:
        """The 64 bytes. Raises ValueError when a field does not fit."""
        try:
            return _BLOCK_META.pack(
                BLOCK_META_SIZE,
                BLOCK_META_VERSION,
                self.kind,
                0,
                self.used_length,
                self.block_index,
                self.tablet_id,
                self.logical_version,
                self.data_seq,
                self.payload_checksum,
                self.data_checksum,
            )
        except struct.error as error:
            raise ValueError(f"block meta of block {self.block_index}: {error}") from error

    @classmethod
    def unpack(cls, data: Buffer, *, offset: int = 0) -> BlockMeta:
        """Raises FormatError when these are not the 64 bytes of our entry."""
        if len(data) != BLOCK_META_SIZE:
            raise FormatError(
                f"bad block meta at offset {offset}: expected {BLOCK_META_SIZE} bytes, found {len(data)}", offset=offset
            )
        size, version, kind, reserved, used, index, tablet, logical, seq, payload_sum, data_sum = _BLOCK_META.unpack(
            data
        )
        if size != BLOCK_META_SIZE or version != BLOCK_META_VERSION or reserved:
            raise FormatError(
                f"bad block meta at offset {offset}: expected size {BLOCK_META_SIZE} and version {BLOCK_META_VERSION},"
                f" found {size} and {version}, reserved {reserved}",
                offset=offset,
            )
        return cls(index, kind, used, tablet, logical, seq, payload_sum, data_sum)


def is_block_meta(entry: Buffer) -> bool:
    """True for mover's meta entry, False for OceanBase's own."""
    return len(entry) == BLOCK_META_SIZE and entry[4:8] == BLOCK_META_VERSION.to_bytes(4, "little")


def macro_prefix(entry: Buffer, block_length: int) -> bytes:
    """What precedes the block bytes in a macro payload; the payload is ``prefix + block + MACRO_SUFFIX``.

    Args:
        entry: the packed meta entry.
        block_length: bytes of the block that follow.
    """
    meta = vstr(entry)
    length = len(meta) + vstr_size(block_length)
    return unis_prefix(length) + meta + encode_vi64(block_length)


# Bytes of a prefix that only the engine's own numbers decide: the meta entry behind its block index. All others follow
# from which block it is.
_ENTRY_AT = len(unis_prefix(0)) + varint_size(BLOCK_META_SIZE)
PREFIX_OPEN = (_ENTRY_AT + struct.calcsize("<iiHHIQ"), _ENTRY_AT + BLOCK_META_SIZE)


@dataclass(frozen=True, slots=True)
class MacroData:
    """A decoded macro payload: views into it."""

    entry: memoryview  # the meta entry, ours or OceanBase's
    block: memoryview  # the stored bytes of the block

    def block_meta(self) -> BlockMeta:
        """The entry as ours; its used_length must be the block's. Raises FormatError."""
        meta = BlockMeta.unpack(self.entry)
        if meta.used_length != len(self.block):
            raise FormatError(
                f"block {meta.block_index}: expected {meta.used_length} bytes of it, found {len(self.block)}"
            )
        return meta


def parse_macro(payload: Buffer, *, offset: int = 0, strict: bool = True) -> MacroData:
    """Decode ObBackupMacroData. ``offset``: of the payload in its file. Raises FormatError."""
    reader = Reader(payload, base_offset=offset, strict=strict)
    outer = reader.enter(1, "macro data")
    entry = reader.vstr("macro meta entry")
    block = reader.vstr("macro block")
    reader.leave(outer, "macro data")
    reader.finish("macro data")
    return MacroData(entry, block)


def macro_frame(meta: BlockMeta, block: Buffer) -> bytes:
    """One uncompressed frame of a macro file, whole. The datapath builds the same bytes in place."""
    return frame(DataType.MACRO_DATA, b"".join((macro_prefix(meta.pack(), len(block)), block, MACRO_SUFFIX)))


@dataclass(frozen=True, slots=True)
class VersionRange:
    """ObVersionRange: SCNs or timestamps, -1 when unset."""

    multi_version_start: int = 0
    base_version: int = 0
    snapshot_version: int = 0


@dataclass(frozen=True, slots=True)
class LogTsRange:
    """ObLogTsRange."""

    start_log_ts: int = 0
    end_log_ts: int = 0
    max_log_ts: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """ObVersion as one packed number."""

    version: int = 0


@dataclass(frozen=True, slots=True)
class TableKey:
    """ObITable::TableKey: which sstable a group belongs to."""

    table_type: int
    pkey: PGKey
    table_id: int
    trans_version_range: VersionRange = field(default_factory=VersionRange)
    version: Version = field(default_factory=Version)
    log_ts_range: LogTsRange = field(default_factory=LogTsRange)


@dataclass(frozen=True, slots=True)
class TableKeyInfo:
    """ObBackupTableKeyInfo: the head of a group."""

    table_key: TableKey
    total_macro_block_count: int


@dataclass(frozen=True, slots=True)
class MacroIndex:
    """ObBackupTableMacroIndex: one block of a group. ``data_length`` is the whole frame, padding included."""

    sstable_macro_index: int
    data_version: int
    data_seq: int
    backup_set_id: int
    sub_task_id: int
    offset: int
    data_length: int


VERSION_RANGE: Unis[VersionRange] = Unis(
    VersionRange, [("multi_version_start", I64), ("base_version", I64), ("snapshot_version", I64)]
)
LOG_TS_RANGE: Unis[LogTsRange] = Unis(LogTsRange, [("start_log_ts", I64), ("end_log_ts", I64), ("max_log_ts", I64)])
VERSION: Unis[Version] = Unis(Version, [("version", I64)])
TABLE_KEY: Unis[TableKey] = Unis(
    TableKey,
    [
        ("table_type", I32),
        ("pkey", PG),
        ("table_id", U64),
        ("trans_version_range", VERSION_RANGE),
        ("version", VERSION),
        ("log_ts_range", LOG_TS_RANGE),
    ],
)
TABLE_KEY_INFO: Unis[TableKeyInfo] = Unis(TableKeyInfo, [("table_key", TABLE_KEY), ("total_macro_block_count", I64)])
MACRO_INDEX: Unis[MacroIndex] = Unis(
    MacroIndex,
    [
        ("sstable_macro_index", I64),
        ("data_version", I64),
        ("data_seq", I64),
        ("backup_set_id", I64),
        ("sub_task_id", I64),
        ("offset", I64),
        ("data_length", I64),
    ],
)
_MACRO_INDEX_MEMBERS = len(MACRO_INDEX.members)


def group_key(pg: PGKey, *, kind: int, tablet_id: int = 0, snapshot_version: int = 0) -> TableKey:
    """The table key of a seekdb group: one per tablet for kind 1, one per other kind.

    The group of another kind has table id ``RESERVED_TABLE_ID | kind``, which no tablet has.
    """
    table_id = tablet_id if kind == _KIND_SSTABLE_DATA else RESERVED_TABLE_ID | kind
    return TableKey(TABLE_TYPE_MAJOR, pg, table_id, VersionRange(0, 0, snapshot_version))


class MacroIndexWriter:
    """Makes the bytes of a ``macro_block_index`` file, group by group, encrypted with ``sealing``."""

    __slots__ = ("_expected", "_frames", "_next")

    def __init__(self, sealing: Sealing | None = None) -> None:
        self._frames = FrameWriter(DataType.MACRO_DATA_INDEX, INDEX_BUFFER, sealing=sealing)
        self._expected = 0
        self._next = 0

    def begin(self, key: TableKey, count: int) -> None:
        """Open a group of ``count`` blocks. Raises ValueError when the one before is short."""
        self._close()
        self._frames.add(TABLE_KEY_INFO.encode(TableKeyInfo(key, count)))
        self._expected, self._next = count, 0

    def add(self, entry: MacroIndex) -> None:
        """The next block of the open group; entries count from 0. Raises ValueError out of order or past the count."""
        if entry.sstable_macro_index != self._next or self._next >= self._expected:
            raise ValueError(f"entry {entry.sstable_macro_index} where {self._next} of {self._expected} is due")
        self._frames.add(MACRO_INDEX.encode(entry))
        self._next += 1

    def group(self, key: TableKey, entries: Iterable[MacroIndex], count: int) -> None:
        """A whole group at once."""
        self.begin(key, count)
        for entry in entries:
            self.add(entry)
        self._close()

    def take(self) -> bytes:
        """Bytes finished since the last take."""
        return self._frames.take()

    def finish(self) -> bytes:
        """Everything not taken, with the end mark. Once only."""
        self._close()
        return self._frames.finish()

    def _close(self) -> None:
        if self._next != self._expected:
            raise ValueError(f"group ended at {self._next} of {self._expected} blocks")


class MacroIndexDecoder:
    """Reads groups from the frames of one index file, or of its retry files one after the other.

    ``feed`` returns (head of the group, entry) pairs in file order; the head of an empty group comes with None.
    """

    __slots__ = ("_head", "_next", "strict")

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict
        self._head: TableKeyInfo | None = None
        self._next = 0

    def feed(self, source: Frame) -> list[tuple[TableKeyInfo, MacroIndex | None]]:
        """The records of one frame. Raises FormatError."""
        reader = Reader(source.data(), base_offset=source.payload_offset, strict=self.strict)
        records: list[tuple[TableKeyInfo, MacroIndex | None]] = []
        while reader.remaining:
            start = reader.offset
            if self._head is None:
                head = TABLE_KEY_INFO.get(reader, "table key info")
                if head.total_macro_block_count < 0:
                    raise reader.fail(f"a block count, found {head.total_macro_block_count}", at=start)
                if head.total_macro_block_count == 0:
                    records.append((head, None))
                    continue
                self._head, self._next = head, 0
                continue
            entry = self._entry(reader)
            if entry.sstable_macro_index != self._next:
                raise reader.fail(f"block {self._next} of its group, found {entry.sstable_macro_index}", at=start)
            if min(entry.backup_set_id, entry.sub_task_id, entry.offset, entry.data_length) < 0:
                raise reader.fail("a set, a file, an offset and a length of at least 0", at=start)
            records.append((self._head, entry))
            self._next += 1
            if self._next == self._head.total_macro_block_count:
                self._head = None
        return records

    def _entry(self, reader: Reader) -> MacroIndex:
        """What MACRO_INDEX reads, without a call per member."""
        if not self.strict:
            return MACRO_INDEX.get(reader, "macro index")
        outer = reader.enter(1, "macro index")
        values = reader.i64s(_MACRO_INDEX_MEMBERS, "macro index")
        reader.leave(outer, "macro index")
        return MacroIndex(*values)

    def finish(self) -> None:
        """The last file is over. Raises FormatError when the last group is short."""
        if self._head is not None:
            raise FormatError(
                f"macro index ends at block {self._next} of {self._head.total_macro_block_count}"
                f" of table {self._head.table_key.table_id}"
            )


def iter_macro_index(
    frames: Iterable[Frame], *, strict: bool = True
) -> Iterator[tuple[TableKeyInfo, MacroIndex | None]]:
    """Every record of an index in file order, with the head of its group. Raises FormatError."""
    decoder = MacroIndexDecoder(strict=strict)
    for source in frames:
        yield from decoder.feed(source)
    decoder.finish()
