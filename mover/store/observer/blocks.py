"""block_file of a 3.1 observer: super blocks, the headers of a macroblock, and reading blocks beside the server.

Nothing keeps a block from being freed and written anew while it is read, so each is believed only when its own checksum
holds and its header says what the catalog's row says: a foreign block cannot pass that.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from mover.errors import FormatError, SourceError
from mover.kernel import ob_crc64, xxh3_128
from mover.media.macro_meta import MacroMeta
from mover.media.serial import Reader
from mover.store.direct_read import DirectReadFile
from mover.store.observer.catalog import MacroRow

MACRO_BLOCK_SIZE = 2 << 20
_PAGE = 4096
_SUPER_HEAD = struct.Struct("<ii")
_SUPER_VERSION, _SUPER_MAGIC = 3, 1018
_SUPER_ROOM = 64 << 10
_COMMON = struct.Struct("<iiiiqiI")
_COMMON_MAGIC = 1001
_DATA = struct.Struct("<iiiiQqiiiiiiiiiiiiiiq96sqq16sqq")
_DATA_FIXED = 240
_DATA_MAGIC, _LOB_MAGIC = 1007, 1009
_LOB_MORE = 8  # offset and size of the array of micro block sizes
_PER_COLUMN = 18  # u16 id, ObObjMeta, ObOrderType, i64 checksum
assert _DATA.size == _DATA_FIXED


@dataclass(frozen=True, slots=True)
class SuperBlock:
    """What mover needs of a super block. It has no checksum of its own."""

    create_timestamp: int
    modify_timestamp: int  # us
    macro_block_size: int
    total_macro_block_count: int
    total_file_size: int


def parse_super_block(data: bytes | memoryview, *, offset: int = 0) -> SuperBlock:
    """One copy. Raises FormatError; for older versions, which a 3.1 server rewrites when it starts, too."""
    version, magic = _SUPER_HEAD.unpack_from(data)
    if magic != _SUPER_MAGIC or version != _SUPER_VERSION:
        raise FormatError(
            f"super block at offset {offset}: expected version {_SUPER_VERSION} and magic {_SUPER_MAGIC},"
            f" found {version} and {magic}",
            offset=offset,
        )
    reader = Reader(memoryview(data)[_SUPER_HEAD.size :], base_offset=offset + _SUPER_HEAD.size, strict=False)
    outer = reader.enter(1, "super block")
    numbers = reader.i64s(5, "super block")
    reader.leave(outer, "super block")
    return SuperBlock(*numbers)


def read_super_block(path: Path) -> SuperBlock:
    """The valid copy with the greater modify timestamp. Raises FormatError when neither is, SourceError. Blocks."""
    found: list[SuperBlock] = []
    problem: FormatError | None = None
    try:
        with path.open("rb", buffering=0) as file:
            for at in (0, MACRO_BLOCK_SIZE):
                file.seek(at)
                try:
                    found.append(parse_super_block(file.read(_SUPER_ROOM), offset=at))
                except (FormatError, struct.error) as error:
                    problem = error if isinstance(error, FormatError) else FormatError(f"super block: {error}")
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", path=str(path)) from None
    if not found:
        assert problem is not None
        raise FormatError(f"{path}: {problem.message}", path=str(path), offset=problem.where.get("offset"))
    newest = max(found, key=lambda copy: copy.modify_timestamp)
    if newest.macro_block_size != MACRO_BLOCK_SIZE:
        raise FormatError(f"{path}: macroblocks of {newest.macro_block_size} bytes", path=str(path), offset=0)
    return newest


@dataclass(frozen=True, slots=True)
class BlockImage:
    """A block that was read: why it is not the one of its row, or its meta and digest."""

    reason: str
    meta: MacroMeta | None = None
    digest: bytes = b""  # XXH3-128 of the occupied bytes


def check_block(block: memoryview, row: MacroRow) -> BlockImage:
    """Verify the occupied bytes of a block against themselves and against the catalog's row."""
    if len(block) < _COMMON.size + _DATA_FIXED:
        return BlockImage(f"{len(block)} bytes are no data block")
    size, version, magic, attr, _, payload, checksum = _COMMON.unpack_from(block)
    if (size, version, magic) != (_COMMON.size, 1, _COMMON_MAGIC):
        return BlockImage(f"header of {size} bytes, version {version}, magic {magic}")
    if not _DATA_FIXED <= payload <= MACRO_BLOCK_SIZE - _COMMON.size:
        return BlockImage(f"payload of {payload} bytes")
    if _COMMON.size + payload > len(block):
        return BlockImage(f"payload of {payload} bytes, the catalog says {row.occupy_size} are occupied")
    if ob_crc64(block[_COMMON.size : _COMMON.size + payload]) & 0xFFFFFFFF != checksum:
        return BlockImage("payload checksum does not hold")
    fields = _DATA.unpack_from(block, _COMMON.size)
    (header_size, data_version_of_header, kind, _, table_id, data_version, columns, rowkeys, scale, store_type, rows,
     occupied, micros, _, data_at, _, index_at, _, endkey_at, _, data_checksum, compressor, encrypt_id, master_key,
     key, data_seq, partition_id) = fields  # fmt: skip
    if kind not in (_DATA_MAGIC, _LOB_MAGIC):
        return BlockImage(f"sstable magic {kind}, version {data_version_of_header}")
    lead = _DATA_FIXED + (_LOB_MORE if kind == _LOB_MAGIC else 0)
    if columns < 0 or header_size != lead + _PER_COLUMN * columns or header_size > payload:
        return BlockImage(f"sstable header of {header_size} bytes with {columns} columns")
    told = (table_id, partition_id, data_version, data_seq, rows, occupied, data_checksum & _M64)
    wanted = (
        row.index_id, row.partition_id, row.macro_data_version, row.data_seq, row.row_count, row.occupy_size,
        row.data_checksum & _M64,
    )  # fmt: skip
    if told != wanted:
        names = ("table", "partition", "data version", "data seq", "rows", "occupied size", "data checksum")
        differ = [f"{n} {a} for {b}" for n, a, b in zip(names, told, wanted, strict=True) if a != b]
        return BlockImage(f"another block is there: {', '.join(differ)}")
    at = _COMMON.size + lead
    ids, types = struct.unpack_from(f"<{columns}H", block, at), at + 2 * columns
    orders, sums = types + 4 * columns, types + 8 * columns
    meta = MacroMeta(
        attr=attr,
        data_version=data_version,
        rowkey_column_count=rowkeys,
        column_index_scale=scale,
        row_store_type=store_type,
        row_count=rows,
        occupy_size=occupied,
        data_checksum=data_checksum,
        micro_block_count=micros,
        micro_block_data_offset=data_at,
        micro_block_index_offset=index_at,
        micro_block_endkey_offset=endkey_at,
        table_id=table_id,
        partition_id=partition_id,
        data_seq=data_seq,
        schema_version=row.schema_version,
        snapshot_version=row.snapshot_version,
        row_count_delta=row.row_count_delta,
        encrypt_id=encrypt_id,
        master_key_id=master_key,
        encrypt_key=key,
        compressor=compressor.split(b"\0", 1)[0].decode("ascii", "replace"),
        column_ids=ids,
        column_types=bytes(block[types:orders]),
        column_orders=bytes(block[orders:sums]),
        column_checksums=struct.unpack_from(f"<{columns}q", block, sums),
    )
    return BlockImage("", meta, xxh3_128(block))


_M64 = (1 << 64) - 1


class BlockFile:
    """The open block_file of a server. Calls block; one at a time.

    Raises SourceError when it cannot be read, FormatError when it is none of a 3.1 server.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.super_block = read_super_block(path)
        self._file = DirectReadFile(path)
        self._room = memoryview(mmap.mmap(-1, MACRO_BLOCK_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def read(self, row: MacroRow) -> tuple[memoryview, BlockImage]:
        """The occupied bytes of the block of a row, and what they are; the bytes until the next read."""
        length = min(MACRO_BLOCK_SIZE, max(_PAGE, -(-row.occupy_size // _PAGE) * _PAGE))
        try:
            self._file.fill(self._room[:length], row.block_index * MACRO_BLOCK_SIZE)
        except OSError as error:
            raise SourceError(
                f"cannot read block {row.block_index} of {self.path}: {error.strerror}", path=str(self.path)
            ) from None
        block = self._room[: min(row.occupy_size, MACRO_BLOCK_SIZE)]
        return block, check_block(block, row)

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
