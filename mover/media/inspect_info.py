"""The small files of a tree as rows for ``mover inspect``: those that are read whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mover.media import info
from mover.media.archive_index import INDEX_RECORD_SIZE, parse_archive_key, read_archive_key, scan_index_file
from mover.media.cluster_record import ClusterRecord
from mover.media.copy_record import decode_copies
from mover.media.header import DataType
from mover.media.inspect_sealed import record_fields
from mover.media.jsonable import FILE_KEY, jsonable, named
from mover.media.key_file import decode_key_ring
from mover.media.layout import FileKind
from mover.media.opaque import describe_opaque
from mover.media.piece_info import FileStatus, PieceInfo, PieceStatus, decode_piece_infos, decode_single_piece_info
from mover.media.round_record import RoundRecord

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
    names = {"status": named(PieceStatus, found.status), "file_status": named(FileStatus, found.file_status)}
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
        yield "copied", {FILE_KEY.get(name, name): value for name, value in jsonable(record).items()}


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
WHOLE: dict[FileKind, Callable[[bytes, bool], Whole]] = {
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
    FileKind.ROUND_RECORD: _one("round_record", lambda data: record_fields(RoundRecord.decode(data))),
    FileKind.KEY_RING: _one("key_ring", lambda data: decode_key_ring(data).as_json()),
    FileKind.CLUSTER_RECORD: _one("cluster_record", ClusterRecord.decode),
    FileKind.STOP_REQUEST: _one("stop_request", lambda data: {"bytes": len(data)}),
}
