"""The vectors of OceanBase's structures: as written by hand, and as the generators of clusters and trees write them."""

import struct

import pytest
import vectors31
from tree31 import archives, datasets, forms, infos
from tree31.spec import TreeSpec

from mover.store.sim import blockfile, clog, entry, ilog, macroblock, packing, slog
from mover.store.sim.identity import PgKey

DOCUMENTS = vectors31.documents()
US = vectors31.US


def vectors(stem, struct_name):
    return [(one["fields"], bytes.fromhex(one["hex"])) for one in DOCUMENTS[stem][struct_name]["vectors"]]


def log(name):
    return vectors("log_archive", name)


def store(name):
    return vectors("observer_store", name)


def backup(name):
    return vectors("data_backup", name)


@pytest.mark.parametrize("stem", DOCUMENTS)
def test_the_files_are_what_the_packers_make(stem):
    """After a change: ``python tests/support/vectors31.py``."""
    assert (vectors31.DATA / f"{stem}.json").read_text() == vectors31.text(DOCUMENTS[stem])


def test_known_values():
    assert vectors31.crc(b"123456789") == 0x58E3FA20
    widths = {"ObArchiveBlockMeta": 104, "ObArchiveIndexFileInfo": 144, "ObArchiveKeyContent": 168, "ilog cursor": 32}
    widths |= {
        "ilog info item": 72,
        "ilog trailer": 40,
        "ObArchiveStartTimestamp": 24,
        "ObLinkedMacroBlockHeaderV2": 56,
    }
    widths |= {"ObBloomFilterMacroBlockHeader": 200, "ObRecordHeaderV3 version 2": 32, "ObPaddingEntry": 12}
    structs = {name: one for document in DOCUMENTS.values() for name, one in document.items()}
    for name, width in widths.items():
        for one in structs[name]["vectors"]:
            assert len(bytes.fromhex(one["hex"])) == width, name


# --- log archive ---------------------------------------------------------------------------------------------------


def test_archive_blocks():
    names = {
        "timestamp": "timestamp",
        "epoch": "clog_epoch_id",
        "accum": "accum_checksum",
        "min_id": "min_log_id_in_file",
    }
    names |= {"min_ts": "min_log_ts_in_file", "max_id": "max_log_id", "checkpoint": "max_checkpoint_ts"}
    names |= {"max_ts": "max_log_submit_ts", "input": "input_bytes"}
    for fields, data in log("ObArchiveBlockMeta"):
        payload = bytes(fields["total_len"] - 104)
        written = archives.block({ours: fields[theirs] for ours, theirs in names.items()}, payload, 0)
        # The vectors' data checksum is a made-up one: put it in, and both sums must meet.
        values = list(struct.unpack(">hhi11qq", written[:104]))
        assert values[13] == packing.crc(payload)
        values[13] = fields["data_checksum"]
        total = packing.crc(struct.pack("<hhi11q", *values[:14]))
        assert struct.pack(">hhi11qq", *values[:14], total) == data


def test_archive_index_and_key():
    names = list(log("ObArchiveIndexFileInfo")[0][0])[4:-1]
    for fields, data in log("ObArchiveIndexFileInfo"):
        assert archives.index_record(tuple(fields[name] for name in names), valid=bool(fields["is_valid"])) == data
    for fields, data in log("ObArchiveKeyContent"):
        inner = archives.index_record(tuple(fields["index_info"][name] for name in names))
        number = fields["max_index_file_id"]
        assert archives.archive_key(inner, first_piece=bool(fields["is_first_piece"]), max_index_file=number) == data


def test_archive_small_things():
    ((fields, data),) = log("ObArchiveStartTimestamp")
    assert infos.start_timestamp(fields["round"], fields["timestamp"]) == data
    ((fields, data),) = log("ObArchiveCompressedChunkHeader")
    written = archives.chunk(b"x" * 4000, fields["compressor_type"])
    assert written[:8] == data[:8] and len(written) == 16 + struct.unpack_from(">i", written, 12)[0]
    ((fields, data),) = log("ObLogArchiveInnerLog")
    assert packing.unis(*(packing.vint(value) for value in fields.values())) == data


@pytest.mark.parametrize("later", [False, True])
def test_rounds(later):
    fields, data = log("ObTenantLogArchiveStatus")[later]
    spec = TreeSpec(layout="3.1.5" if later else "3.1.0")
    row = infos.RoundEntry(2, fields["start_ts"], fields["checkpoint_ts"], fields["status"], 4, 3)
    written = infos.rounds(spec, fields["tenant_id"], [row])
    assert written[48 + 7 :] == data


def test_clog_blocks():
    ((fields, data), (info_fields, info)) = log("ObLogBlockMetaV2")
    size = fields["total_len"] - fields["padding_len"]
    assert clog.block_meta(fields["type"], size, fields["timestamp"]) == data
    size = info_fields["total_len"] - info_fields["padding_len"]
    assert clog.block_meta(2, size, info_fields["timestamp"], info_fields["data_checksum"]) == info
    ((fields, data),) = log("ObPaddingEntry")
    assert clog.padding_at(4096 - fields["entry_size"]) == data + bytes(fields["entry_size"] - 12)
    ((fields, data),) = log("ObLogInfoBlock")
    last = {PgKey(*key): log_id for key, log_id in fields["last"]}
    assert clog.info_block(last, fields["max_submit_ts"], fields["freeze_version"], US)[48:] == data
    ((fields, data),) = log("ObLogFileTrailer")
    assert clog.trailer_block(fields["start_pos"], fields["file_id"], fields["timestamp"]) == data


def test_log_entries():
    for fields, data in log("ObLogEntryHeader"):
        key = PgKey(fields["table_id"], fields["part_id"], fields["assist_id"])
        body = bytes.fromhex(fields["body"])
        one = entry.Entry(
            fields["log_id"],
            fields["log_type"],
            fields["generation_timestamp"],
            fields["epoch_id"],
            fields["server"] >> 32 & 0xFF,
            fields["proposal_ts"],
            fields["submit_timestamp"],
            fields["freeze_version"],
            "",
            len(body),
            False,
        )
        header = entry.pack_header(key, one, len(body), packing.crc(body))
        if fields["batch_committed"]:
            header = header[:73] + bytes([header[73] | 0x80]) + header[74:]
        assert header + body == data
        assert key.hash == fields["partition_key_hash"]
    for fields, data in log("partition_key_hash"):
        assert PgKey(fields["table_id"], fields["part_id"], fields["assist_id"]).memory[16:] == data


def test_compressed_entries():
    ((_, data),) = log("ObCompressedLogEntryHeader")
    written = entry.compressed_item(bytes(900), zstd=False)
    assert written[:6] == data[:6] and len(written) == 10 + struct.unpack_from(">i", written, 6)[0]


# --- observer store ------------------------------------------------------------------------------------------------


def test_super_block_and_ids():
    ((fields, data),) = store("ObSuperBlockHeaderV3 and content")
    written = blockfile.super_block(
        fields["create_timestamp"], fields["modify_timestamp"], fields["total_macro_block_count"], (1, 0, 0)
    )
    assert written[: len(data)] == data and not written[len(data) :].strip(b"\0")
    ((fields, data),) = store("MacroBlockId")
    assert blockfile.macro_block_id(fields["block_index"]) == data
    ((fields, data),) = store("data_seq")
    without_split = macroblock.data_seq(fields["sequence"], parallel=fields["parallel_idx"], lob=True, minor=True)
    assert without_split == fields["data_seq"] & ~(1 << 43)


def test_macro_block_headers():
    ((fields, data),) = store("ObMacroBlockCommonHeader")
    payload = bytes.fromhex(fields["payload"])
    assert macroblock.common_header(fields["attr"], fields["data_version"], payload) + payload == data
    for lob, name in ((False, "ObSSTableMacroBlockHeader"), (True, "ObLobMacroBlockHeader")):
        ((fields, data),) = store(name)
        plan = macroblock.BlockPlan("k", fields["table_id"], 3, 5, fields["data_seq"], 9000, 3, 1, lob, False)
        head = macroblock.build_block(plan, 1).bytes[32:]
        # What is the same for every block of this table stands where the vector has it.
        for start, end in ((0, 40), (192, 240)):
            assert head[start:end] == data[start:end]
        arrays = data[-54:]
        assert head[len(data) - 54 :][:18] == arrays[:18]
    ((fields, data),) = store("ObBloomFilterMacroBlockHeader")
    head = macroblock.bloom_block(fields["table_id"], 3, 5, 99, "k")[32:]
    assert head[:48] == data[:48] and head[72:200] == data[72:200]


def test_records_and_slog():
    written, checksum = macroblock.micro_record(b"x" * 100, magic=1010, compress=False)
    fields, data = store("ObRecordHeaderV3 version 2")[1]
    assert fields["data_length"] == 100
    # Only the data checksum is another one, and it is in the header's sum.
    assert written[:4] == data[:4] and written[8:24] == data[8:24]
    words = struct.unpack("<4H", struct.pack("<q", checksum ^ fields["data_checksum"]))
    folded = struct.unpack_from("<H", data, 4)[0]
    for word in words:
        folded ^= word
    assert struct.unpack_from("<H", written, 4) == (folded,)
    for fields, data in store("slog record"):
        body = bytes.fromhex(fields["body"])
        assert slog.slog_record(fields["seq"], fields["cmd"], fields["timestamp"], body) == data


def test_ilog():
    for fields, data in store("ilog cursor"):
        one = ilog.Cursor(
            1, fields["file_id"], fields["offset"], fields["size"], fields["accum_checksum"], fields["submit_timestamp"]
        )
        assert ilog.pack_cursor(one) == data
    ((fields, data),) = store("ilog info item")
    key = PgKey(fields["table_id"], fields["part_id"], fields["assist_id"])
    before = PgKey(key.table_id - 1, 0, 0)
    run = [ilog.Cursor(at, 1, 0, 0, 0, fields["min_log_ts"] + at - 11) for at in range(11, 20)]
    first = [ilog.Cursor(at, 1, 0, 0, 0, US) for at in range(1, 11)]
    written = ilog.ilog_file({key: run, before: first})
    assert data in written
    ((fields, data),) = store("ilog trailer")
    trailer = written[-512:][:40]
    values = list(struct.unpack(">hhiiiiiqq", trailer))
    assert values[-1] == packing.crc(struct.pack("<hhiiiiiq", *values[:-1]))
    assert struct.unpack(">hhiiiiiqq", data)[-1] == packing.crc(
        struct.pack("<hhiiiiiq", *struct.unpack(">hhiiiiiqq", data)[:-1])
    )


def test_macro_metas():
    """Parts that do not depend on a block's bytes, and the length that both begin with."""
    plan = macroblock.BlockPlan("k", 1001 << 40 | 50_001, 3, 5, 9, 9000, 2, 1, False, False)
    block = macroblock.build_block(plan, 1)
    ((_, meta),) = store("ObMacroBlockMetaV2")
    written = datasets.macro_meta(plan, block)
    assert struct.unpack_from("<i", written) == (len(written),) and struct.unpack_from("<i", meta) == (len(meta),)
    assert written[4:26] == meta[4:26]
    assert len(written) - len(packing.vint(block.end_key)) == len(meta) - 2
    ((_, schema),) = store("ObMacroBlockSchemaInfo")
    info = datasets.schema_info(plan)
    assert info[:12] == schema[:12] and info[20:35] == schema[20:35] and len(info) == len(schema)


# --- data backup ---------------------------------------------------------------------------------------------------


def test_headers_and_frames():
    for fields, data in backup("ObBackupCommonHeader"):
        payload = bytes.fromhex(fields["payload"])
        head = forms.common_header(
            fields["data_type"], payload, align=fields["align_length"], data_version=fields["data_version"]
        )
        assert head + payload == data
    assert forms.frame(forms.END, b"")[:48] == backup("ObBackupCommonHeader")[0][1]


def test_strings_numbers_keys():
    for fields, data in backup("varint"):
        assert packing.vint(fields["value"]) == data
    for fields, data in backup("ObFixedLengthString"):
        assert forms.fixed(fields["text"]) == data
    for fields, data in backup("vstr"):
        assert forms.vstr(bytes.fromhex(fields["data"])) == data
    for fields, data in backup("ObPartitionKey"):
        assert PgKey(fields["table_id"], fields["part_id"], fields["assist_id"]).disk == data


def test_table_keys():
    ((fields, data),) = backup("ObBackupTableKeyInfo")
    key = PgKey(*fields["pkey"])
    # The writer derives its ranges from the snapshot: 30 gives 20, 0, 30 and 21, 30, 30.
    written = packing.unis(datasets.table_key(7, key, key.table_id, 5, 30), packing.vint(300))
    place = data.index(packing.unis(packing.vint(20), packing.vint(10), packing.vint(30)))
    expected = data.replace(
        packing.vint(20) + packing.vint(10) + packing.vint(30), packing.vint(20) + b"\0" + packing.vint(30)
    )
    expected = expected.replace(packing.vint(31), packing.vint(30))
    assert place and written == expected


def test_info_files():
    spec = TreeSpec(layout="3.1.0")
    one = infos.BackupEntry(6, 4, 9, US, (4, 5, 8), False, 0, 20220415)
    for later, (fields, data) in zip((False, True), backup("ObExternBackupInfo"), strict=True):
        found = infos.backup_infos(TreeSpec(layout="3.1.5" if later else "3.1.0"), [one])[48 + 7 :]
        # The vector has a password, another value of ``compatible`` and schema versions of its own.
        assert fields["inc_backup_set_id"] == 6
        assert found[6:10] == data[6:10] and found[-1:] == data[-1:]
    ((fields, data),) = backup("ObExternTenantInfo")
    assert infos.tenant_infos([(1001, "app")], US)[48 + 7 :] == data
    ((fields, data),) = backup("ObExternBackupSetInfo")
    assert infos.set_infos(spec, [(6, US, 122, 18)])[48 + 7 :][6:17] == data[6:17]
