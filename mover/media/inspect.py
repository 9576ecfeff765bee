"""Any media file as JSON-able dictionaries, for ``mover inspect``: by its path, or by its first bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mover.encryption.cipher import NO_KEYS, Keys
from mover.errors import FormatError, IntegrityError
from mover.media.archive import BLOCK_MAGIC, BLOCK_META_SIZE, DataFile, scan_data_file
from mover.media.archive_index import (
    INDEX_MAGIC,
    KEY_MAGIC,
    START_TIMESTAMP_SIZE,
)
from mover.media.frames import FRAME_ALIGN, Frame, FrameReader
from mover.media.header import HEADER_SIZE, Compressor, DataType, parse_header
from mover.media.inspect_info import WHOLE
from mover.media.inspect_sealed import locked_rows, opening_for
from mover.media.jsonable import FILE_KEY, jsonable, named
from mover.media.layout import FileKind, parse_path
from mover.media.log_entry import LogType, iter_log_entries, parse_kickoff, parse_palf_group
from mover.media.macro import MacroIndexDecoder, TableKeyInfo, is_block_meta, parse_macro
from mover.media.macro_v1 import AnyMacroIndexDecoder
from mover.media.manifest import ManifestReader
from mover.media.meta import ExtentAssembler, MetaType, decode_catalog, decode_description, iter_meta_index
from mover.media.meta import iter_meta_records as iter_meta
from mover.media.sealed import Opening
from mover.media.sealed_log import is_sealed, key_id, opened
from mover.media.serial import Buffer
from mover.media.written import Written

Records = Iterator[dict[str, Any]]
Pieces = Iterable[Buffer]
_HEAD = 32  # bytes of raw content shown
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
    DataType.WRITTEN: FileKind.WRITTEN,
    DataType.ROUND_RECORD: FileKind.ROUND_RECORD,
    DataType.CLUSTER_RECORD: FileKind.CLUSTER_RECORD,
    DataType.COPY_RECORD: FileKind.COPY_RECORD,
    DataType.KEY_RING: FileKind.KEY_RING,
}


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


def records(path: str | None, data: Buffer | Pieces, *, strict: bool = False, keys: Keys = NO_KEYS) -> Records:
    """Every record of a media file, in file order, as JSON-able dictionaries with a ``record`` key.

    Args:
        path: in the backup tree, whatever precedes it; None or any other name: the first bytes decide.
        data: the file, whole or in pieces; macro, meta and manifest files are never held whole.
        strict: accept only what mover itself would write.
        keys: decrypt with; without any, what is encrypted is told by its headers.

    Raises:
        FormatError, IntegrityError: at the first bad byte, after the records before it.
        EncryptionKeyError: ``keys`` are those of another destination.
    """
    kind, place, stream = _open(path, data)
    yield from _decode(kind, place, stream, strict, opening_for(path, keys))


def describe(path: str | None, data: Buffer | Pieces, *, strict: bool = False, keys: Keys = NO_KEYS) -> dict[str, Any]:
    """What a media file is and how much is in it.

    Returns ``kind``, ``path``, ``size``, what the path says (``place``), ``records`` (counts by record type) and
    ``ok``; when the file is damaged ``ok`` is False and ``error`` says where. Small info files come with ``content``.
    An encrypted file comes with ``encrypted_with``, the data keys that it needs and ``keys`` lacks.

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
    needed: set[str] = set()
    try:
        for record in _decode(kind, place, source, strict, opening_for(path, keys)):
            if "encrypted_with" in record:
                needed.add(record["encrypted_with"])
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
    if needed:
        result["encrypted_with"] = ",".join(sorted(needed))
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


def _decode(
    kind: FileKind, place: dict[str, Any], stream: Iterator[Buffer], strict: bool, opening: Opening | None
) -> Records:
    framed = _FRAMED.get(kind)
    if framed is not None:
        data_type, decode = framed
        head, stream = _split(stream)
        # All frames of a file are encrypted, or none is.
        if opening is None and len(head) >= HEADER_SIZE and parse_header(head, strict=strict).sealed:
            yield from locked_rows(_frames(stream, data_type, strict, None))
        else:
            yield from decode(_frames(stream, data_type, strict, opening), strict)
        return
    if kind is FileKind.MANIFEST:
        yield from _manifest(stream, opening)
        return
    if kind is FileKind.ARCHIVE_DATA:
        yield from _archive_data(stream, opening)
        return
    data = b"".join(bytes(piece) for piece in stream)
    for name, value in WHOLE[kind](data, strict):
        item = jsonable(value)
        # The one file without a checksum: its content only repeats its path.
        if kind is FileKind.MOUNT_FILE and place and item["round_id"] != place["round_id"]:
            raise FormatError(f"mount_file of round {place['round_id']} names round {item['round_id']}", offset=0)
        yield {"record": name, **(item if isinstance(item, dict) else {"value": item})}


def _frames(stream: Pieces, data_type: int, strict: bool, opening: Opening | None) -> Iterator[Frame]:
    reader = FrameReader(data_type, strict=strict, opening=opening)
    for piece in _small(stream):
        yield from reader.feed(piece)
    reader.finish()


def _small(stream: Pieces) -> Iterator[memoryview]:
    """Pieces that complete at most one frame each, so that what precedes a bad frame is told before the error."""
    for piece in stream:
        view = memoryview(piece)
        for start in range(0, len(view), FRAME_ALIGN):
            yield view[start : start + FRAME_ALIGN]


def _macro_blocks(frames: Iterator[Frame], strict: bool) -> Records:
    for source in frames:
        macro = parse_macro(source.data(), offset=source.payload_offset, strict=strict)
        row: dict[str, Any] = {
            "record": "macro_block",
            "offset": source.offset,
            "length": source.size,
            "compressor": named(Compressor, source.header.codec),
            "stored_bytes": source.header.data_zlength,
            "raw_bytes": source.header.data_length,
            "block_bytes": len(macro.block),
        }
        if is_block_meta(macro.entry):
            row["meta"] = jsonable(macro.block_meta())
        else:
            row["oceanbase_meta"] = {"length": len(macro.entry), "head": bytes(macro.entry[:_HEAD]).hex()}
        yield row


def _macro_index(frames: Iterator[Frame], strict: bool) -> Records:
    # 2.2.6x wrote no group heads: only what mover writes is read by mover's own rules alone.
    decoder = MacroIndexDecoder(strict=strict) if strict else AnyMacroIndexDecoder(strict=False)
    last: TableKeyInfo | None = None
    for source in frames:
        for head, entry in decoder.feed(source):
            if head is not last:
                yield {"record": "group", **jsonable(head)}
                last = head
            if entry is not None:
                yield {"record": "block", "table_id": head.table_key.table_id, **jsonable(entry)}
    decoder.finish()


def _metas(frames: Iterator[Frame], strict: bool) -> Records:
    files = ExtentAssembler()
    for record in iter_meta(frames, strict=strict):
        row: dict[str, Any] = {
            "record": "meta",
            "offset": record.offset,
            "length": record.length,
            "meta_type": named(MetaType, record.meta_type),
        }
        if record.meta_type in (MetaType.SUPERBLOCKS, MetaType.STORE_FILE):
            extent = files.add(record)
            row |= {FILE_KEY.get(name, name): value for name, value in jsonable(extent).items() if name != "data"}
            row |= {"bytes": len(extent.data), "head": extent.data[:_HEAD].hex()}
        elif record.meta_type == MetaType.SET_DESCRIPTION:
            row["facts"] = decode_description(record.body, offset=record.offset)
        elif record.meta_type == MetaType.TABLE_CATALOG:
            row["tables"] = list(decode_catalog(record.body, offset=record.offset))
        else:
            row |= {"bytes": len(record.body), "head": record.body[:_HEAD].hex()}
        yield row
    files.finish()


def _meta_index(frames: Iterator[Frame], strict: bool) -> Records:
    for entry in iter_meta_index(frames, strict=strict):
        yield {"record": "meta_index", **jsonable(entry), "meta_type": named(MetaType, entry.meta_type)}


def _manifest(stream: Pieces, opening: Opening | None) -> Records:
    reader = ManifestReader(opening, locked=opening is None)
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
        yield {"record": "file", **{FILE_KEY.get(name, name): value for name, value in jsonable(file).items()}}
    if opening is None and reader.facts.key_id:
        yield {"record": "encrypted", "encrypted_with": reader.facts.key_id}
    else:
        yield {"record": "root", **jsonable(root)}


def _archive_data(stream: Pieces, opening: Opening | None) -> Records:
    found: DataFile = scan_data_file(b"".join(bytes(piece) for piece in stream))
    for stored in found.blocks:
        row = {
            "record": "archive_block",
            "offset": stored.offset,
            "length": stored.size,
            "stored_bytes": len(stored.payload),
        }
        if opening is None and is_sealed(stored):
            yield {**row, **jsonable(stored.meta), "encrypted_with": key_id(stored)}
            continue
        block = opened(stored, opening)
        yield {**row, **jsonable(block.meta)}
        for entry in iter_log_entries(block.raw(), base_offset=block.offset + BLOCK_META_SIZE):
            row = {
                "record": "log_entry",
                "block_offset": block.offset,
                "offset": entry.offset,
                **jsonable(entry.header),
                "log_type": named(LogType, entry.header.log_type),
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


def _written(frames: Iterator[Frame], _strict: bool) -> Records:
    for source in frames:
        record = Written.of_frame(source)
        facts = {"compression": record.compression, "key_id": record.key_id, "blocks": len(record.blocks)}
        yield {"record": "written", "sub": record.sub, "bytes": record.size, "digest": record.digest.hex(), **facts}
        for block in record.blocks:
            yield {"record": "written_block", **jsonable(block)}


_FRAMED: dict[FileKind, tuple[DataType, Callable[[Iterator[Frame], bool], Records]]] = {
    FileKind.MACRO_BLOCK: (DataType.MACRO_DATA, _macro_blocks),
    FileKind.MACRO_BLOCK_INDEX: (DataType.MACRO_DATA_INDEX, _macro_index),
    FileKind.META_FILE: (DataType.META, _metas),
    FileKind.META_INDEX_FILE: (DataType.META_INDEX, _meta_index),
    FileKind.WRITTEN: (DataType.WRITTEN, _written),
}
_LARGE = {*_FRAMED, FileKind.MANIFEST, FileKind.ARCHIVE_DATA}
