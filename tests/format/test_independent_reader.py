"""mover's bytes, read by a reader that was written from the documented format only."""

from __future__ import annotations

import dataclasses
import struct

import independent_reader as reader
import lz4.block
import media_samples as made
import pytest
import zstandard

SAMPLES = {name: content for name, (_, content) in made.samples().items()}
PG = (1 << 40 | 1 << 39 | 1, 0, 0)


def test_macro_blocks() -> None:
    found = reader.macro_file(SAMPLES["macro"])
    assert [one["offset"] for one in found] == [0, 4096]
    assert [one["block"] for one in found] == [made.block_bytes(5), made.block_bytes(2)]
    size, version, kind, _, used, index, tablet = struct.unpack_from("<iiHHIQQ", found[0]["meta"])
    assert (size, version, kind, used, index, tablet) == (64, 100, 1, 300, 5, 200_001)


def test_macro_index() -> None:
    groups = reader.macro_index(SAMPLES["macro index"])
    assert [(g["table_type"], g["pg"], g["table_id"], g["count"]) for g in groups] == [
        (1, PG, 200_001, 3),
        (1, PG, 200_002, 0),
        (1, PG, 1 << 39 | 8, 1),
    ]
    assert groups[0]["versions"] == (0, 0, made.T0 * 1000)
    assert groups[0]["blocks"] == [(i, made.T0 * 1000, i, 1, 0, 4096 * i, 4096) for i in range(3)]
    assert groups[2]["blocks"] == [(0, 1, 12, 1, 0, 12288, 4096)]


def test_meta_and_its_index() -> None:
    records = reader.meta_file(SAMPLES["meta"])
    assert [kind for _, _, kind, _ in records] == [100, 100, 101, 101, 102, 103]
    index = reader.meta_index(SAMPLES["meta index"])
    assert index == [(kind, PG[0], 0, offset, length, 0) for offset, length, kind, _ in records]


def test_info_files() -> None:
    (first, second) = reader.backup_infos(SAMPLES["backups"])
    assert first == tuple(int(v) if isinstance(v, bool) else v for v in dataclasses.astuple(made.backup(1))[:-1])
    assert second[:2] == (2, 2)
    assert reader.set_infos(SAMPLES["set info"]) == [(1, made.T0, 2, 1, 10, 20 << 20, 9 << 20, 7, 8)]
    assert reader.pg_list(SAMPLES["normal pgs"]) == [PG]
    assert reader.pg_list(SAMPLES["sys pgs"]) == []
    assert reader.tenant_infos(SAMPLES["tenant_info"]) == [(1, 0, 0, 0, "sys", made.T0)]
    assert reader.tenant_names(SAMPLES["tenant_name_info"]) == (
        2,
        [("app", 1, [(1001, made.T0)]), ("sys", 1, [(1, made.T0)])],
    )
    rounds = reader.archive_rounds(SAMPLES["rounds"])
    assert rounds == [(1, made.T0, made.T0 + 10, 1, 6, 1, 0, 0, 2), (1, made.T0, made.T0 + 10, 1, 7, 3, 0, 0, 2)]


@pytest.mark.parametrize(("name", "compressor"), [("archive", None), ("archive zstd", 8), ("archive lz4", 2)])
def test_archive_blocks(name: str, compressor: int | None) -> None:
    kickoff, *blocks = reader.archive_blocks(SAMPLES[name])
    (entry,) = reader.log_entries(kickoff["payload"])
    assert (entry["type"], entry["log_id"], entry["epoch"], entry["freeze"]) == (302, 11, 0, 1)
    body = reader.Cursor(entry["body"]).object()
    assert (body.vint(), body.i64(), body.i64(), body.i64()) == (1, made.T0, made.T0 - 1, made.T0 - 2)
    assert (kickoff["min_log_id"], kickoff["max_log_id"]) == (10, 10)
    accum, log_id = 0, 11
    for block in blocks:
        raw = block["payload"]
        chunk = reader.chunk(raw)
        assert (chunk and chunk[0]) == compressor
        if chunk:
            kind, original, packed = chunk
            if kind == 8:
                raw = zstandard.ZstdDecompressor().decompress(packed)
            else:
                raw = lz4.block.decompress(packed, uncompressed_size=original)
            assert len(raw) == original == block["input"]
        for entry in reader.log_entries(raw):
            assert (entry["type"], entry["log_id"], entry["table"]) == (401, log_id, PG[0])
            version, flags, zero, lsn = struct.unpack_from(">hhiq", entry["body"])
            assert (version, zero, lsn) == (1, 0, 1000 * log_id)
            assert flags == (1 if log_id in (11, 14) else 0)
            accum = reader.crc(struct.pack("<q", entry["crc"]), accum)
            log_id += 1
        assert (block["accum"], block["max_log_id"]) == (accum, log_id - 1)
    assert log_id == 16


def test_archive_index_and_key() -> None:
    first, second = reader.archive_index(SAMPLES["archive index"])
    assert (first["file_id"], second["file_id"], first["valid"], first["min_log_id"]) == (1, 2, 1, 11)
    key = reader.archive_key(SAMPLES["archive key"])
    assert (key["first"], key["file_id"], key["index"]["round_start_log_id"]) == (1, 0, 11)
    assert reader.archive_start(SAMPLES["clog_info"]) == (7, made.T0)
    assert SAMPLES["mount_file"] == b"7"


def test_the_reader_is_not_asleep() -> None:
    """It refuses damage by itself, else agreement would mean nothing."""
    for name, read in (
        ("macro", reader.macro_file),
        ("macro index", reader.macro_index),
        ("meta", reader.meta_file),
        ("backups", reader.backup_infos),
        ("archive", reader.archive_blocks),
        ("archive index", reader.archive_index),
    ):
        data = bytearray(SAMPLES[name])
        data[60] ^= 4
        with pytest.raises(reader.Bad):
            read(bytes(data))
