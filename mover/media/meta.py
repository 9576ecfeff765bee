"""``meta_file_<task>`` and ``meta_index_file_<task>``: records of what a set has besides macroblocks.

A record is ``vstr(ObBackupMetaHeader | body)``; the index names each by file offset and vstr length. Containers and
meta types below 100 are OceanBase 3.1.0's; types from 100 on are mover's and their bodies are described here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from mover.errors import FormatError
from mover.kernel import ob_crc64
from mover.media.frames import DATA_BUFFER, INDEX_BUFFER, Frame, FrameWriter
from mover.media.header import HEADER_SIZE, DataType, header_checksum
from mover.media.pg import PGKey
from mover.media.sealed import Sealing
from mover.media.serial import BYTES, I64, TEXT, U16, U64, Buffer, Kind, Reader, Unis, array, vstr, vstr_size

META_HEADER_SIZE = 24
_META_HEADER = struct.Struct("<HHh6siq")
_META_HEADER_VERSION = 1
# Body bytes of one extent record: the record with its path (at most 4 KiB) still fits a 4 MiB frame.
EXTENT_CHUNK = DATA_BUFFER - (64 << 10)
_MAX_PATH = 4096
_CATALOG_CHUNK = 1 << 20


class MetaType(IntEnum):
    """ObBackupMetaType; from 100 on mover's own, for what a 4.x store has."""

    PARTITION_GROUP_META = 0
    PARTITION_META = 1
    SSTABLE_METAS = 2
    TABLE_KEYS = 3
    PARTITION_GROUP_META_INFO = 4
    SUPERBLOCKS = 100  # extents of block_file that hold the superblock pair
    STORE_FILE = 101  # extents of a small file of the store: slog, PALF meta
    SET_DESCRIPTION = 102
    TABLE_CATALOG = 103


@dataclass(frozen=True, slots=True)
class MetaRecord:
    """A record that was read: its type, its body, where its vstr began and how long that is."""

    meta_type: int
    body: bytes
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class MetaIndex:
    """ObBackupMetaIndex: where a record is. ``data_length`` is the length of the whole vstr."""

    meta_type: int
    table_id: int
    partition_id: int
    offset: int
    data_length: int
    task_id: int


META_INDEX: Unis[MetaIndex] = Unis(
    MetaIndex,
    [
        ("meta_type", U16),
        ("table_id", U64),
        ("partition_id", I64),
        ("offset", I64),
        ("data_length", I64),
        ("task_id", I64),
    ],
)


def meta_record(meta_type: int, body: Buffer) -> bytes:
    """One record: the vstr of header and body."""
    crc = ob_crc64(body)
    checksum = header_checksum(_META_HEADER_VERSION, meta_type, len(body), crc)
    header = _META_HEADER.pack(_META_HEADER_VERSION, meta_type, checksum, bytes(6), len(body), crc)
    return vstr(header + bytes(body))


def parse_meta_record(record: Buffer, *, offset: int = 0) -> tuple[int, bytes]:
    """(meta type, body) of the inside of a record's vstr. Raises FormatError."""

    def bad(expected: str) -> FormatError:
        return FormatError(f"bad meta record at offset {offset}: expected {expected}", offset=offset)

    if len(record) < META_HEADER_SIZE:
        raise bad(f"{META_HEADER_SIZE} header bytes, found {len(record)}")
    version, meta_type, checksum, reserved, length, crc = _META_HEADER.unpack_from(record)
    if version != _META_HEADER_VERSION:
        raise bad(f"version {_META_HEADER_VERSION}, found {version}")
    if checksum != header_checksum(version, meta_type, length, crc):
        raise bad("a valid header checksum")
    if reserved != bytes(6):
        raise bad("6 zero bytes in the header")
    body = bytes(memoryview(record)[META_HEADER_SIZE:])
    if length != len(body):
        raise bad(f"a body of {length} bytes, found {len(body)}")
    if ob_crc64(body) != crc:
        raise bad(f"body checksum {crc:#x}")
    return meta_type, body


class MetaWriter:
    """Makes a meta file and its index file side by side.

    Args:
        pg: whose records these are.
        task_id: the number in the file names.
        sealing: encrypts (meta file, index file).
    """

    __slots__ = ("_index", "_meta", "pg", "task_id")

    def __init__(self, pg: PGKey, task_id: int, sealing: tuple[Sealing, Sealing] | None = None) -> None:
        self.pg = pg
        self.task_id = task_id
        meta, index = sealing or (None, None)
        self._meta = FrameWriter(DataType.META, DATA_BUFFER, sealing=meta)
        self._index = FrameWriter(DataType.META_INDEX, INDEX_BUFFER, sealing=index)

    def add(self, meta_type: int, body: Buffer) -> MetaIndex:
        """Append one record. Raises ValueError when it does not fit a 4 MiB frame."""
        record = meta_record(meta_type, body)
        where = self._meta.add(record)
        entry = MetaIndex(meta_type, self.pg.table_id, self.pg.partition_id, where, len(record), self.task_id)
        self._index.add(META_INDEX.encode(entry))
        return entry

    def take(self) -> bytes:
        """Bytes of the meta file finished since the last take."""
        return self._meta.take()

    def finish(self) -> tuple[bytes, bytes]:
        """(rest of the meta file, whole index file), both with their end marks. Once only."""
        return self._meta.finish(), self._index.finish()


def iter_meta_records(frames: Iterable[Frame], *, strict: bool = True) -> Iterator[MetaRecord]:
    """Every record of a meta file. Raises FormatError."""
    for source in frames:
        reader = Reader(source.data(), base_offset=source.payload_offset, strict=strict)
        while reader.remaining:
            start = reader.offset
            content = reader.vstr("meta record")
            where = source.payload_offset + start
            meta_type, body = parse_meta_record(content, offset=where)
            yield MetaRecord(meta_type, body, where, reader.offset - start)


def iter_meta_index(frames: Iterable[Frame], *, strict: bool = True) -> Iterator[MetaIndex]:
    """Every entry of a meta index file. Raises FormatError."""
    for source in frames:
        reader = Reader(source.data(), base_offset=source.payload_offset, strict=strict)
        while reader.remaining:
            start = reader.offset
            entry = META_INDEX.get(reader, "meta index")
            if entry.offset < HEADER_SIZE or entry.data_length < META_HEADER_SIZE:
                raise reader.fail("the offset and length of a meta record", at=start)
            yield entry


# --- mover's own bodies -------------------------------------------------------------------------------------------


class FileExtents(Protocol):
    """What a small file of a store looks like to this module: ``mover.store.base.StoreFile`` fits as it is."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def extents(self) -> tuple[tuple[int, bytes], ...]: ...


@dataclass(frozen=True, slots=True)
class StoreExtents:
    """A small file of the store as its non-zero extents."""

    path: str  # relative to the store directory
    size: int  # logical size, bytes
    extents: tuple[tuple[int, bytes], ...]  # (offset, data), ascending, not overlapping


@dataclass(frozen=True, slots=True)
class Extent:
    """The body of a SUPERBLOCKS or STORE_FILE record: a piece of one file."""

    path: str  # relative to the store directory
    size: int  # logical size of the file, bytes
    chunk: int  # number of this record among those of the file
    chunks: int  # how many there are; one without data for a file that is all zeros
    offset: int
    data: bytes


_EXTENT: Unis[Extent] = Unis(
    Extent, [("path", TEXT), ("size", I64), ("chunk", I64), ("chunks", I64), ("offset", I64), ("data", BYTES)]
)


def extent_bodies(source: FileExtents) -> Iterator[bytes]:
    """The bodies of the SUPERBLOCKS or STORE_FILE records of one file, in order; at least one.

    Raises ValueError when extents overlap, are out of order or lie outside the file.
    """
    if not source.path or len(source.path.encode()) > _MAX_PATH:
        raise ValueError(f"path of {len(source.path)} characters")
    pieces: list[tuple[int, memoryview]] = []
    end = 0
    for offset, data in source.extents:
        if offset < end or offset + len(data) > source.size:
            raise ValueError(f"extent {offset}+{len(data)} of {source.path} (size {source.size})")
        end = offset + len(data)
        view = memoryview(data)
        pieces += [(offset + i, view[i : i + EXTENT_CHUNK]) for i in range(0, len(view), EXTENT_CHUNK)]
    pieces = pieces or [(0, memoryview(b""))]
    for number, (offset, piece) in enumerate(pieces):
        yield _EXTENT.encode(Extent(source.path, source.size, number, len(pieces), offset, bytes(piece)))


class ExtentAssembler:
    """Puts the extent records of a meta file together again.

    ``add`` takes the bodies in file order; ``finish`` returns the files. Both raise FormatError: a file whose records
    are incomplete, out of order, overlapping or contradict each other never comes out. Chunks that follow each other
    are joined, so a round trip gives the same extents unless the original ones touched.
    """

    __slots__ = ("_files", "_open", "_pieces")

    def __init__(self) -> None:
        self._files: list[StoreExtents] = []
        self._open: Extent | None = None
        self._pieces: list[tuple[int, bytearray]] = []

    def add(self, record: MetaRecord) -> Extent:
        """One SUPERBLOCKS or STORE_FILE record. Returns what it says."""
        extent = _EXTENT.decode(record.body, base_offset=record.offset)
        before = self._open

        def bad(expected: str) -> FormatError:
            return FormatError(
                f"bad extent of {extent.path!r} at offset {record.offset}: expected {expected}", offset=record.offset
            )

        due = 0 if before is None else before.chunk + 1
        if extent.chunk != due or extent.chunks <= extent.chunk:
            raise bad(f"chunk {due}, found {extent.chunk} of {extent.chunks}")
        if before is not None and (before.path, before.size, before.chunks) != (
            extent.path,
            extent.size,
            extent.chunks,
        ):
            raise bad(f"the next chunk of {before.path!r}")
        end = self._pieces[-1][0] + len(self._pieces[-1][1]) if self._pieces else 0
        if extent.size < 0 or extent.offset < end or extent.offset + len(extent.data) > extent.size:
            raise bad(f"an extent between {end} and {extent.size}, found {extent.offset}+{len(extent.data)}")
        if not extent.data and (extent.chunks != 1 or extent.offset):
            raise bad("data")
        if self._pieces and extent.offset == end:
            self._pieces[-1][1].extend(extent.data)
        elif extent.data:
            self._pieces.append((extent.offset, bytearray(extent.data)))
        self._open = extent
        if extent.chunk + 1 == extent.chunks:
            pieces = tuple((offset, bytes(data)) for offset, data in self._pieces)
            self._files.append(StoreExtents(extent.path, extent.size, pieces))
            self._open, self._pieces = None, []
        return extent

    def finish(self) -> tuple[StoreExtents, ...]:
        """Every file, in order."""
        if self._open is not None:
            raise FormatError(f"extents of {self._open.path!r} end at chunk {self._open.chunk} of {self._open.chunks}")
        paths = [file.path for file in self._files]
        if len(set(paths)) != len(paths):
            raise FormatError("a store file is there twice")
        return tuple(self._files)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces. Raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def parse_json(text: str, what: str) -> Any:
    """The value of a canonical JSON text. Raises FormatError when it is not JSON, or not in canonical form."""
    try:
        value = json.loads(text)
        same = canonical_json(value) == text
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON: {type(error).__name__}") from error
    if not same:
        raise FormatError(f"{what} is not canonical JSON")
    return value


def _get_json(reader: Reader, what: str) -> Any:
    start = reader.offset
    try:
        return parse_json(reader.text(what), what)
    except FormatError as error:
        raise reader.fail(f"{what} as canonical JSON", at=start) from error


JSON: Kind[Any] = Kind(lambda value: vstr(canonical_json(value).encode()), _get_json, 2)


@dataclass(frozen=True, slots=True)
class _Description:
    facts: Any


@dataclass(frozen=True, slots=True)
class _Catalog:
    rows: tuple[Any, ...]


_DESCRIPTION: Unis[_Description] = Unis(_Description, [("facts", JSON)])
_CATALOG: Unis[_Catalog] = Unis(_Catalog, [("rows", array(JSON))])


def encode_description(facts: Mapping[str, Any]) -> bytes:
    """The body of a SET_DESCRIPTION record."""
    return _DESCRIPTION.encode(_Description(dict(facts)))


def decode_description(body: Buffer, *, offset: int = 0) -> dict[str, Any]:
    """Raises FormatError."""
    facts = _DESCRIPTION.decode(body, base_offset=offset).facts
    if not isinstance(facts, dict):
        raise FormatError(f"bad set description at offset {offset}: expected a JSON object", offset=offset)
    return facts


def catalog_bodies(rows: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    """The bodies of TABLE_CATALOG records, each of at most about 1 MiB; at least one."""
    chunk: list[Any] = []
    size = 0
    for row in rows:
        length = vstr_size(len(canonical_json(row).encode()))
        if chunk and size + length > _CATALOG_CHUNK:
            yield _CATALOG.encode(_Catalog(tuple(chunk)))
            chunk, size = [], 0
        chunk.append(row)
        size += length
    yield _CATALOG.encode(_Catalog(tuple(chunk)))


def decode_catalog(body: Buffer, *, offset: int = 0) -> tuple[dict[str, Any], ...]:
    """The rows of one TABLE_CATALOG record. Raises FormatError."""
    rows = _CATALOG.decode(body, base_offset=offset).rows
    if not all(isinstance(row, dict) for row in rows):
        raise FormatError(f"bad table catalog at offset {offset}: expected JSON objects", offset=offset)
    return rows
