"""Structures of OceanBase 2.2.6x and 3.1, packed by hand: every field of every vector is read as it was written."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mover.media import archive_index, info
from mover.media.archive import parse_block_meta, unpack_payload
from mover.media.archive_info import decode_archive_rounds
from mover.media.frames import frame, read_frame
from mover.media.header import DataType, parse_header
from mover.media.info_file import encode_info
from mover.media.log_entry import iter_log_entries, murmurhash64a, next_accum, pg_hash
from mover.media.macro import MacroIndexDecoder, parse_macro
from mover.media.macro_v1 import AnyMacroIndexDecoder
from mover.media.meta import iter_meta_index, parse_meta_record
from mover.media.pg import PGKey
from mover.media.piece_info import decode_piece_infos
from mover.media.serial import FIXED_STRING, PG, U64, Reader, unis, vstr

DATA = Path(__file__).parents[1] / "data" / "oceanbase31"
FILES = {name: json.loads((DATA / f"{name}.json").read_text()) for name in ("data_backup", "log_archive")}


def vectors(name: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    (found,) = (part[name] for part in FILES.values() if name in part)
    for vector in found["vectors"]:
        yield vector["fields"], bytes.fromhex(vector["hex"])


def a_frame(data_type: int, payload: bytes) -> Any:
    made = frame(data_type, payload)
    return read_frame(made, offset=0, data_type=data_type)


def a_list(data_type: int, element: bytes) -> bytes:
    return encode_info(data_type, unis(b"\x01" + element))


def same(found: Any, fields: dict[str, Any], **renamed: str) -> None:
    """Every field of the vector that the record has, under its name there."""
    compared = 0
    for name, value in fields.items():
        attribute = renamed.get(name, name)
        if hasattr(found, attribute):
            there = getattr(found, attribute)
            assert (there() if callable(there) else there) == value, name
            compared += 1
    assert compared >= min(3, len(fields))


def test_common_header() -> None:
    for fields, data in vectors("ObBackupCommonHeader"):
        header = parse_header(data, strict=False)
        same(header, fields, compressor_type="compressor")
        header.check_payload(bytes.fromhex(fields["payload"]))


def test_metas() -> None:
    for fields, data in vectors("ObBackupMetaHeader"):
        found = parse_meta_record(Reader(data).vstr())
        assert found == (fields["meta_type"], bytes.fromhex(fields["body"]))
    for fields, data in vectors("ObBackupMetaIndex"):
        (entry,) = iter_meta_index([a_frame(DataType.META_INDEX, data)])
        same(entry, fields)


def test_macro_blocks_and_their_indexes() -> None:
    for fields, data in vectors("ObBackupMacroData"):
        macro = parse_macro(data)
        assert (bytes(macro.entry).hex(), bytes(macro.block).hex()) == (fields["meta"], fields["data"])
    for fields, data in vectors("ObBackupTableKeyInfo"):
        decoder = MacroIndexDecoder()
        decoder.feed(a_frame(DataType.MACRO_DATA_INDEX, data))
        assert decoder._head is not None
        key = decoder._head.table_key
        assert decoder._head.total_macro_block_count == fields["total_macro_block_count"]
        assert [key.pkey.table_id, key.pkey.part_id, key.pkey.assist_id] == fields["pkey"]
        same(key.trans_version_range, fields)
        same(key.log_ts_range, fields)
        assert (key.table_type, key.table_id, key.version.version) == (
            fields["table_type"],
            fields["table_id"],
            fields["version"],
        )
    (_, head) = next(vectors("ObBackupTableKeyInfo"))
    for fields, data in vectors("ObBackupTableMacroIndex"):
        # An entry counts from 0 in its group: those before it are the same but for the number.
        rest = data[6 + len(U64.put(fields["sstable_macro_index"])) :]
        run = b"".join(unis(U64.put(n) + rest) for n in range(fields["sstable_macro_index"])) + data
        rows = MacroIndexDecoder().feed(a_frame(DataType.MACRO_DATA_INDEX, head + run))
        same(rows[-1][1], fields)
    for fields, data in vectors("ObBackupMacroIndex"):
        before = len(b"".join(U64.put(fields[n]) for n in ("table_id", "partition_id", "index_table_id")))
        number = fields["sstable_macro_index"]
        tail = data[6 + before + len(U64.put(number)) :]
        run = b"".join(unis(data[6 : 6 + before] + U64.put(n) + tail) for n in range(number)) + data
        rows = AnyMacroIndexDecoder().feed(a_frame(DataType.MACRO_DATA_INDEX, run))
        same(rows[-1][1], fields)
        assert rows[-1][0].table_key.table_id == fields["index_table_id"]
        assert rows[-1][0].table_key.pkey == PGKey(fields["table_id"], fields["partition_id"])


@pytest.mark.parametrize(
    ("name", "data_type", "decode"),
    [
        ("ObExternBackupInfo", DataType.BACKUP_INFO, info.decode_backup_infos),
        ("ObExternBackupSetInfo", DataType.BACKUP_SET_INFO, info.decode_set_infos),
        ("ObExternTenantInfo", DataType.TENANT_INFO, info.decode_tenant_infos),
        ("ObTenantLogArchiveStatus", DataType.LOG_ARCHIVE_BACKUP_INFO, decode_archive_rounds),
        ("ObBackupPieceInfo", DataType.PIECE_INFO, decode_piece_infos),
    ],
)
def test_elements_of_lists(name: str, data_type: int, decode: Callable[..., Any]) -> None:
    for fields, data in vectors(name):
        (found,) = decode(a_list(data_type, data), strict=False)
        same(found, fields, round="round_id")
        later = {"date", "backup_piece_id", "start_piece_id"} & fields.keys()
        assert all(getattr(found, member) == fields[member] for member in later)


def test_locality_and_names() -> None:
    for fields, data in vectors("ObExternTenantLocalityInfo"):
        same(info.decode_tenant_locality(encode_info(DataType.TENANT_LOCALITY_INFO, data)), fields)
    for fields, data in vectors("tenant_name_info"):
        found = info.decode_tenant_names(encode_info(DataType.TENANT_NAME_INFO, data))
        assert found.schema_version == fields["schema_version"]
        names = [[n.tenant_name, n.is_complete, [[i.tenant_id, i.timestamp] for i in n.id_list]] for n in found.names]
        assert names == fields["tenants"]


def test_primitives() -> None:
    for fields, data in vectors("ObPartitionKey"):
        same(PG.get(Reader(data), "a key"), fields)
    for fields, data in vectors("ObFixedLengthString"):
        assert FIXED_STRING.get(Reader(data), "a string") == fields["text"]
    for fields, data in vectors("varint"):
        assert Reader(data).varint() == fields["value"] & (1 << 64) - 1
    for fields, data in vectors("vstr"):
        assert (bytes(Reader(data).vstr()), vstr(bytes.fromhex(fields["data"]))) == (
            bytes.fromhex(fields["data"]),
            data,
        )


def test_archive_blocks() -> None:
    for fields, data in vectors("ObArchiveBlockMeta"):
        same(parse_block_meta(data), fields, total_len="total_length")
    for fields, data in vectors("ObArchiveCompressedChunkHeader"):
        assert data[:2] == b"CC"
        stored = len(unpack_payload(b"")) + fields["compressed_len"]
        assert struct.unpack_from(">i", data, 12)[0] == stored


def test_index_records_keys_and_starts() -> None:
    for fields, data in vectors("ObArchiveIndexFileInfo"):
        same(archive_index.parse_index_record(data), fields)
    for fields, data in vectors("ObArchiveKeyContent"):
        found = archive_index.parse_archive_key(data)
        assert (found.is_first_piece, found.max_index_file_id) == (
            bool(fields["is_first_piece"]),
            fields["max_index_file_id"],
        )
        same(found.index, fields["index_info"])
    for fields, data in vectors("ObArchiveStartTimestamp"):
        started = archive_index.parse_archive_start(data)
        assert (started.round_id, started.timestamp) == (fields["round"], fields["timestamp"])


def test_log_entries_and_their_chain() -> None:
    for fields, data in vectors("ObLogEntryHeader"):
        (entry,) = iter_log_entries(data)
        header = entry.header
        assert header.pg == PGKey(fields["table_id"], fields["part_id"], fields["assist_id"])
        assert pg_hash(header.pg) == fields["partition_key_hash"]
        assert header.log_type == fields["log_type"] & 0x7FFF_FFFF
        assert header.transaction == bool(fields["log_type"] >> 31)
        same(
            header,
            {name: value for name, value in fields.items() if name not in ("log_type", "submit_timestamp")},
            data_len="data_length",
            server="proposal_server",
            proposal_ts="proposal_timestamp",
        )
        assert header.submit_timestamp == fields["submit_timestamp"] & (1 << 63) - 1
    for fields, _ in vectors("accum_checksum"):
        accum = 0
        for checksum, expected in zip(fields["data_checksums"], fields["accum_checksums"], strict=True):
            accum = next_accum(accum, checksum)
            assert accum == expected
    for fields, data in vectors("partition_key_hash"):
        key = PGKey(fields["table_id"], fields["part_id"], fields["assist_id"])
        assert pg_hash(key) in (int.from_bytes(data, "little"), int.from_bytes(data, "big"))
    assert murmurhash64a(b"") == 0
