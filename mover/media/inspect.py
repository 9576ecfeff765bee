"""Any media file as JSON-able dictionaries, for ``mover inspect``: by its path, or by its first bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any

from mover.errors import FormatError, IntegrityError
from mover.media import info
from mover.media.archive import BLOCK_MAGIC, BLOCK_META_SIZE, DataFile, scan_data_file
from mover.media.archive_index import (
    INDEX_MAGIC,
    INDEX_RECORD_SIZE,
    KEY_MAGIC,
    START_TIMESTAMP_SIZE,
    parse_archive_key,
    read_archive_key,
    scan_index_file,
)
from mover.media.copy_record import decode_copies
from mover.media.frames import FRAME_ALIGN, Frame, FrameReader
from mover.media.header import HEADER_SIZE, Compressor, DataType, parse_header
from mover.media.layout import FileKind, parse_path
from mover.media.log_entry import LogType, iter_log_entries, parse_kickoff, parse_palf_group
from mover.media.macro import MacroIndexDecoder, TableKeyInfo, is_block_meta, parse_macro
from mover.media.manifest import ManifestReader
from mover.media.meta import ExtentAssembler, MetaType, decode_catalog, decode_description, iter_meta_index
from mover.media.meta import iter_meta_records as iter_meta
from mover.media.opaque import describe_opaque
from mover.media.piece_info import FileStatus, PieceInfo, PieceStatus, decode_piece_infos, decode_single_piece_info
from mover.media.round_record import RoundRecord
from mover.media.serial import Buffer

Records = Iterator[dict[str, Any]]
Pieces = Iterable[Buffer]
_HEAD = 32  # bytes of raw content shown
# A record about another file: ``path`` is the file that is being decoded.
_FILE_KEY = {"path": "file"}

_BY_DATA_TYPE = {
    DataType.META: FileKind.META_FILE,
    DataType.META_INDEX: FileKind.META_INDEX_FILE,
    DataType.MACRO_DATA: FileKind.MACRO_BLOCK,
    DataType.MACRO_DATA_INDEX: FileKind.MACRO_BLOCK_INDEX,
    DataType.LOG_ARCHIVE_BACKUP_INFO: FileKind.TENANT_CLOG_BACKUP_INFO,
    DataType.BACKUP_INFO: FileKind.TENANT_DATA_BACKUP_INFO,
    DataType.BACKUP_SET_INFO: FileKind.BACKUP_SET_INFO,
    DataType.PG_LIST: FileKind.NORMAL_PG_LIST,
    DataType.TENANT_INFO: FileKind.TENANT_INFO,
    DataType.TENANT_LOCALITY_INFO: FileKind.TENANT_LOCALITY_INFO,
    DataType.TENANT_DIAGNOSE_INFO: FileKind.TENANT_DIAGNOSE_INFO,
    DataType.TENANT_NAME_INFO: FileKind.TENANT_NAME_INFO,
    DataType.PIECE_INFO: FileKind.TENANT_PIECE_INFO,
    DataType.SINGLE_PIECE_INFO: FileKind.SINGLE_PIECE_INFO,
    DataType.SET_FILE_INFO: FileKind.SET_FILE_INFO,
    DataType.MANIFEST_FACTS: FileKind.MANIFEST,
    DataType.ROUND_RECORD: FileKind.ROUND_RECORD,
    DataType.COPY_RECORD: FileKind.COPY_RECORD,
}


def jsonable(value: Any) -> Any:
    """``value`` with bytes as hex, enums by name, dataclasses and named tuples as objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: jsonable(item) for name, item in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(name): jsonable(item) for name, item in value.items()}
    return value


def _named(kind: type[Enum], value: int) -> Any:
    try:
        return kind(value).name
    except ValueError:
        return value


def sniff(head: Buffer, *, size: int | None = None) -> FileKind:
    """What a file is by its first 48 bytes and its size. Raises FormatError when nothing fits."""
    view = bytes(head[:HEADER_SIZE])
    magic = int.from_bytes(view[:2], "big")
    by_magic = {
        BLOCK_MAGIC: FileKind.ARCHIVE_DATA,
        INDEX_MAGIC: FileKind.ARCHIVE_INDEX,
        KEY_MAGIC: FileKind.ARCHIVE_KEY,
    }
    if len(view) > 2 and magic in by_magic:
        return by_magic[magic]
    if len(view) == HEADER_SIZE:
        try:
            header = parse_header(view, strict=False)
        except FormatError:
            pass
        else:
            if header.data_type in _BY_DATA_TYPE:
                return _BY_DATA_TYPE[DataType(header.data_type)]
    if view.isdigit() and len(view) < START_TIMESTAMP_SIZE:
        return FileKind.MOUNT_FILE
    if size == START_TIMESTAMP_SIZE or (size is None and len(view) == START_TIMESTAMP_SIZE):
        return FileKind.CLOG_INFO
    raise FormatError(
        f"unknown file: it begins with {view[:16].hex() or 'nothing'}",
        hint="Give the path inside the backup tree, or check that this is a backup file.",
        offset=0,
    )


def _split(data: Buffer | Pieces) -> tuple[bytes, Iterator[Buffer]]:
    """The first bytes (at least a header when there are as many) and everything, as pieces."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data[:HEADER_SIZE]), iter([data])
    pieces = iter(data)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= HEADER_SIZE:
            break

    def everything() -> Iterator[Buffer]:
        yield head
        yield from pieces

    return head, everything()


def records(path: str | None, data: Buffer | Pieces, *, strict: bool = False) -> Records:
    """Every record of a media file, in file order, as JSON-able dictionaries with a ``record`` key.

    Args:
        path: in the backup tree, whatever precedes it; None or any other name: the first bytes decide.
        data: the file, whole or in pieces; macro, meta and manifest files are never held whole.
        strict: accept only what mover itself would write.

    Raises:
        FormatError, IntegrityError: at the first bad byte, after the records before it.
    """
    kind, place, stream = _open(path, data)
    yield from _decode(kind, place, stream, strict)


def describe(path: str | None, data: Buffer | Pieces, *, strict: bool = False) -> dict[str, Any]:
    """What a media file is and how much is in it.

    Returns ``kind``, ``path``, ``size``, what the path says (``place``), ``records`` (counts by record type) and
    ``ok``; when the file is damaged ``ok`` is False and ``error`` says where. Small info files come with ``content``.

    Raises FormatError only when it cannot be told what the file is.
    """
    kind, place, stream = _open(path, data)
    size = 0

    def counted() -> Iterator[Buffer]:
        nonlocal size
        for piece in stream:
            size += len(piece)
            yield piece

    counts: dict[str, int] = {}
    content: list[dict[str, Any]] = []
    result: dict[str, Any] = {"kind": kind.value, "path": path, "size": 0, "place": place, "ok": True}
    source = counted()
    try:
        for record in _decode(kind, place, source, strict):
            counts[record["record"]] = counts.get(record["record"], 0) + 1
            if record["record"] == "damage":
                result["ok"] = False
            if kind not in _LARGE:
                content.append(record)
    except IntegrityError as error:
        result["ok"] = False
        result["error"] = error.as_json()
        for _ in source:
            pass  # the size is that of the whole file
    result["size"] = size
    result["records"] = counts
    if kind not in _LARGE:
        result["content"] = content
    return result


def _open(path: str | None, data: Buffer | Pieces) -> tuple[FileKind, dict[str, Any], Iterator[Buffer]]:
    parsed = parse_path(path) if path else None
    head, stream = _split(data)
    if parsed is None or parsed.kind is FileKind.TEMPORARY:
        size = len(data) if isinstance(data, bytes | bytearray | memoryview) else None
        return sniff(head, size=size), {}, stream
    fields = {name: value for name, value in jsonable(parsed).items() if value not in (None, "", False)}
    del fields["kind"], fields["path"]
    return parsed.kind, fields, stream


def _decode(kind: FileKind, place: dict[str, Any], stream: Iterator[Buffer], strict: bool) -> Records:
    streaming = _LARGE.get(kind)
    if streaming is not None:
        yield from streaming(stream, strict)
        return
    data = b"".join(bytes(piece) for piece in stream)
    for name, value in _WHOLE[kind](data, strict):
        item = jsonable(value)
        # The one file without a checksum: its content only repeats its path.
        if kind is FileKind.MOUNT_FILE and place and item["round_id"] != place["round_id"]:
            raise FormatError(f"mount_file of round {place['round_id']} names round {item['round_id']}", offset=0)
        yield {"record": name, **(item if isinstance(item, dict) else {"value": item})}


def _frames(stream: Pieces, data_type: int, strict: bool) -> Iterator[Frame]:
    reader = FrameReader(data_type, strict=strict)
    for piece in _small(stream):
        yield from reader.feed(piece)
    reader.finish()


def _small(stream: Pieces) -> Iterator[memoryview]:
    """Pieces that complete at most one frame each, so that what precedes a bad frame is told before the error."""
    for piece in stream:
        view = memoryview(piece)
        for start in range(0, len(view), FRAME_ALIGN):
            yield view[start : start + FRAME_ALIGN]


def _macro_blocks(stream: Pieces, strict: bool) -> Records:
    for source in _frames(stream, DataType.MACRO_DATA, strict):
        macro = parse_macro(source.data(), offset=source.payload_offset, strict=strict)
        row: dict[str, Any] = {
            "record": "macro_block",
            "offset": source.offset,
            "length": source.size,
            "compressor": _named(Compressor, source.header.compressor),
            "stored_bytes": source.header.data_zlength,
            "raw_bytes": source.header.data_length,
            "block_bytes": len(macro.block),
        }
        if is_block_meta(macro.entry):
            row["meta"] = jsonable(macro.block_meta())
        else:
            row["oceanbase_meta"] = {"length": len(macro.entry), "head": bytes(macro.entry[:_HEAD]).hex()}
        yield row


def _macro_index(stream: Pieces, strict: bool) -> Records:
    decoder = MacroIndexDecoder(strict=strict)
    last: TableKeyInfo | None = None
    for source in _frames(stream, DataType.MACRO_DATA_INDEX, strict):
        for head, entry in decoder.feed(source):
            if head is not last:
                yield {"record": "group", **jsonable(head)}
                last = head
            if entry is not None:
                yield {"record": "block", "table_id": head.table_key.table_id, **jsonable(entry)}
    decoder.finish()


def _metas(stream: Pieces, strict: bool) -> Records:
    files = ExtentAssembler()
    for record in iter_meta(_frames(stream, DataType.META, strict), strict=strict):
        row: dict[str, Any] = {
            "record": "meta",
            "offset": record.offset,
            "length": record.length,
            "meta_type": _named(MetaType, record.meta_type),
        }
        if record.meta_type in (MetaType.SUPERBLOCKS, MetaType.STORE_FILE):
            extent = files.add(record)
            row |= {_FILE_KEY.get(name, name): value for name, value in jsonable(extent).items() if name != "data"}
            row |= {"bytes": len(extent.data), "head": extent.data[:_HEAD].hex()}
        elif record.meta_type == MetaType.SET_DESCRIPTION:
            row["facts"] = decode_description(record.body, offset=record.offset)
        elif record.meta_type == MetaType.TABLE_CATALOG:
            row["tables"] = list(decode_catalog(record.body, offset=record.offset))
        else:
            row |= {"bytes": len(record.body), "head": record.body[:_HEAD].hex()}
        yield row
    files.finish()


def _meta_index(stream: Pieces, strict: bool) -> Records:
    for entry in iter_meta_index(_frames(stream, DataType.META_INDEX, strict), strict=strict):
        yield {"record": "meta_index", **jsonable(entry), "meta_type": _named(MetaType, entry.meta_type)}


def _manifest(stream: Pieces, strict: bool) -> Records:  # noqa: ARG001 (our own file: always strict)
    reader = ManifestReader()
    told = False
    for piece in _small(stream):
        rows = reader.feed(piece)
        if not told and reader.has_facts:
            yield {"record": "facts", **jsonable(reader.facts)}
            told = True
        for row in rows:
            yield {"record": "block", **jsonable(row)}
    root = reader.finish()
    for file in reader.files:
        yield {"record": "file", **{_FILE_KEY.get(name, name): value for name, value in jsonable(file).items()}}
    yield {"record": "root", **jsonable(root)}


def _archive_data(stream: Pieces, strict: bool) -> Records:  # noqa: ARG001 (fixed-width, checksummed: one reading)
    found: DataFile = scan_data_file(b"".join(bytes(piece) for piece in stream))
    for block in found.blocks:
        yield {
            "record": "archive_block",
            "offset": block.offset,
            "length": block.size,
            "stored_bytes": len(block.payload),
            **jsonable(block.meta),
        }
        for entry in iter_log_entries(block.raw(), base_offset=block.offset + BLOCK_META_SIZE):
            row: dict[str, Any] = {
                "record": "log_entry",
                "block_offset": block.offset,
                "offset": entry.offset,
                **jsonable(entry.header),
                "log_type": _named(LogType, entry.header.log_type),
            }
            where = block.offset + BLOCK_META_SIZE + entry.offset
            if entry.header.log_type == LogType.PALF_GROUP:
                group = parse_palf_group(entry.body, offset=where)
                row |= {
                    "lsn": group.lsn,
                    "group_bytes": len(group.group),
                    "file_begins": group.block_header is not None,
                }
            elif entry.header.log_type == LogType.ARCHIVE_KICKOFF:
                row["kickoff"] = jsonable(parse_kickoff(entry, base_offset=block.offset + BLOCK_META_SIZE))
            yield row
    if found.torn is not None:
        damaged = found.torn.followed_by is not None
        yield {"record": "damage" if damaged else "torn_tail", **jsonable(found.torn)}


_LARGE: dict[FileKind, Callable[[Iterator[Buffer], bool], Records]] = {
    FileKind.MACRO_BLOCK: _macro_blocks,
    FileKind.MACRO_BLOCK_INDEX: _macro_index,
    FileKind.META_FILE: _metas,
    FileKind.META_INDEX_FILE: _meta_index,
    FileKind.MANIFEST: _manifest,
    FileKind.ARCHIVE_DATA: _archive_data,
}

Whole = Iterator[tuple[str, Any]]


def _listed(name: str, decode: Callable[..., Iterable[Any]]) -> Callable[[bytes, bool], Whole]:
    def rows(data: bytes, strict: bool) -> Whole:
        for item in decode(data, strict=strict):
            yield name, item

    return rows


def _index_records(data: bytes, strict: bool) -> Whole:  # noqa: ARG001
    found = scan_index_file(data)
    for number, record in enumerate(found.records):
        yield "index", {"offset": number * INDEX_RECORD_SIZE, **jsonable(record)}
    if found.bad_offset is not None:
        yield "damage", {"offset": found.bad_offset, "reason": found.reason}


def _one(name: str, decode: Callable[[bytes], Any]) -> Callable[[bytes, bool], Whole]:
    def rows(data: bytes, strict: bool) -> Whole:  # noqa: ARG001
        yield name, decode(data)

    return rows


def _names(data: bytes, strict: bool) -> Whole:
    names = info.decode_tenant_names(data, strict=strict)
    for name in names.names:
        yield "tenant_name", {"schema_version": names.schema_version, **jsonable(name)}


def _locality(data: bytes, strict: bool) -> Whole:
    yield "locality", info.decode_tenant_locality(data, strict=strict)


def _key(data: bytes, strict: bool) -> Whole:
    yield "archive_key", parse_archive_key(data) if strict else read_archive_key(data)


def _piece(found: PieceInfo) -> dict[str, Any]:
    names = {"status": _named(PieceStatus, found.status), "file_status": _named(FileStatus, found.file_status)}
    return {**jsonable(found), **names}


def _pieces(data: bytes, strict: bool) -> Whole:
    for found in decode_piece_infos(data, strict=strict):
        yield "piece", _piece(found)


def _single_piece(data: bytes, strict: bool) -> Whole:
    yield "piece", _piece(decode_single_piece_info(data, strict=strict))


def _set_files(data: bytes, strict: bool) -> Whole:  # noqa: ARG001 (its members are not confirmed)
    for row in describe_opaque(data, DataType.SET_FILE_INFO):
        yield "set_file", row


def _copied(data: bytes, strict: bool) -> Whole:  # noqa: ARG001 (our own file: always strict)
    for record in decode_copies(data):
        yield "copied", {_FILE_KEY.get(name, name): value for name, value in jsonable(record).items()}


# Members that later 3.x appended: where they are not, nothing is shown.
_LATER = {"date", "backup_piece_id", "start_piece_id"}


def _grown(name: str, decode: Callable[..., Iterable[Any]]) -> Callable[[bytes, bool], Whole]:
    def rows(data: bytes, strict: bool) -> Whole:
        for item in decode(data, strict=strict):
            yield name, {key: value for key, value in jsonable(item).items() if value or key not in _LATER}

    return rows


_ROUNDS = _grown("round", info.decode_archive_rounds)
_BACKUPS = _grown("backup", info.decode_backup_infos)
_PGS = _listed("pg", info.decode_pg_list)
_WHOLE: dict[FileKind, Callable[[bytes, bool], Whole]] = {
    FileKind.CLUSTER_CLOG_BACKUP_INFO: _ROUNDS,
    FileKind.TENANT_CLOG_BACKUP_INFO: _ROUNDS,
    FileKind.CLUSTER_DATA_BACKUP_INFO: _BACKUPS,
    FileKind.TENANT_DATA_BACKUP_INFO: _BACKUPS,
    FileKind.BACKUP_SET_INFO: _listed("set", info.decode_set_infos),
    FileKind.TENANT_INFO: _listed("tenant", info.decode_tenant_infos),
    FileKind.TENANT_NAME_INFO: _names,
    FileKind.SYS_PG_LIST: _PGS,
    FileKind.NORMAL_PG_LIST: _PGS,
    FileKind.TENANT_LOCALITY_INFO: _locality,
    FileKind.TENANT_DIAGNOSE_INFO: _listed("line", info.decode_tenant_diagnose),
    FileKind.CLOG_INFO: _one("round_start", info.parse_archive_start),
    FileKind.MOUNT_FILE: _one("mount_file", lambda data: {"round_id": info.decode_mount_file(data)}),
    FileKind.ARCHIVE_INDEX: _index_records,
    FileKind.ARCHIVE_KEY: _key,
    FileKind.CLUSTER_PIECE_INFO: _pieces,
    FileKind.TENANT_PIECE_INFO: _pieces,
    FileKind.SINGLE_PIECE_INFO: _single_piece,
    FileKind.SET_FILE_INFO: _set_files,
    FileKind.COPY_RECORD: _copied,
    FileKind.ROUND_RECORD: _one("round_record", RoundRecord.decode),
    FileKind.STOP_REQUEST: _one("stop_request", lambda data: {"bytes": len(data)}),
}
