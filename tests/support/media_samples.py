"""One small file of every kind of the backup tree, made by mover.media."""

from __future__ import annotations

import struct

from mover.kernel import lz4_compress, ob_crc64, xxh3_128, zstd_compress
from mover.media import info
from mover.media.archive import ArchiveBlockMeta, build_block, build_kickoff_block, chunk
from mover.media.archive_index import ArchiveIndexRecord, ArchiveKey, ArchiveStart
from mover.media.frames import end_mark, frame
from mover.media.header import Compressor, DataType
from mover.media.layout import Layout
from mover.media.log_entry import Kickoff, LogType, PalfGroupBody, log_entry, next_accum
from mover.media.macro import (
    MACRO_SUFFIX,
    BlockMeta,
    MacroIndex,
    MacroIndexWriter,
    group_key,
    macro_frame,
    macro_prefix,
)
from mover.media.manifest import ManifestBlock, ManifestWriter, SetFacts
from mover.media.meta import MetaType, MetaWriter, StoreExtents, catalog_bodies, encode_description, extent_bodies
from mover.media.pg import PGKey

LAYOUT = Layout("seekdb", 1)
TENANT = 1
ROUND = 7
T0 = 1_795_352_786_899_235  # a moment, us
PG = PGKey.of_log_stream(TENANT, 1)


def backup(number: int, **changes: object) -> info.BackupInfo:
    """A full backup that succeeded."""
    values = {
        "full_backup_set_id": number,
        "inc_backup_set_id": number,
        "backup_data_version": T0,
        "backup_snapshot_version": T0 + number,
        "backup_schema_version": 3,
        "frozen_snapshot_version": T0 - 5,
        "frozen_schema_version": 2,
        "prev_full_backup_set_id": 0,
        "prev_inc_backup_set_id": 0,
        "prev_backup_data_version": 0,
        "compatible": info.COMPATIBLE_310,
        "cluster_version": 0x4_0003_0005,
        "backup_type": info.BackupType.FULL,
        "status": info.BackupStatus.SUCCESS,
    }
    return info.BackupInfo(**(values | changes))  # type: ignore[arg-type]


def round_of(number: int = ROUND, **changes: object) -> info.ArchiveRound:
    """A round that is DOING."""
    values = {
        "tenant_id": TENANT,
        "start_ts": T0,
        "checkpoint_ts": T0 + 10,
        "round_id": number,
        "status": info.ArchiveStatus.DOING,
    }
    return info.ArchiveRound(**(values | changes))  # type: ignore[arg-type]


def block_bytes(index: int, length: int = 300) -> bytes:
    """Content of a block that compresses."""
    return (b"%08d|row of block|" % index * (length // 16 + 1))[:length]


def block_meta(index: int, length: int = 300, kind: int = 1) -> BlockMeta:
    return BlockMeta(index, kind, length, 200_001, T0 * 1000, index, 0x11223344, 0x55667788)


def macro_file(*indexes: int) -> bytes:
    return b"".join([macro_frame(block_meta(i), block_bytes(i)) for i in indexes]) + end_mark()


def macro_file_compressed(compressor: int) -> bytes:
    block = block_bytes(9, 3000)
    payload = macro_prefix(block_meta(9, 3000).pack(), len(block)) + block + MACRO_SUFFIX
    stored = zstd_compress(payload, 3) if compressor == Compressor.ZSTD_1_3_8 else lz4_compress(payload)
    return frame(DataType.MACRO_DATA, stored, compressor=compressor, raw_length=len(payload)) + end_mark()


def macro_index_file() -> bytes:
    writer = MacroIndexWriter()
    entries = [MacroIndex(i, T0 * 1000, i, 1, 0, 4096 * i, 4096) for i in range(3)]
    writer.group(group_key(PG, kind=1, tablet_id=200_001, snapshot_version=T0 * 1000), entries, 3)
    writer.group(group_key(PG, kind=1, tablet_id=200_002), [], 0)
    writer.group(group_key(PG, kind=8), [MacroIndex(0, 1, 12, 1, 0, 12288, 4096)], 1)
    return writer.finish()


def meta_files() -> tuple[bytes, bytes]:
    writer = MetaWriter(PG, 0)
    for body in extent_bodies(
        StoreExtents("sstable/block_file", 4 << 20, ((0, b"super" * 9), (2 << 20, b"super" * 9)))
    ):
        writer.add(MetaType.SUPERBLOCKS, body)
    for body in extent_bodies(StoreExtents("slog/sys/1", 64 << 20, ((0, b"log" * 50),))):
        writer.add(MetaType.STORE_FILE, body)
    for body in extent_bodies(StoreExtents("slog/sys/2", 0, ())):
        writer.add(MetaType.STORE_FILE, body)
    writer.add(MetaType.SET_DESCRIPTION, encode_description({"engine": "seekdb", "name": "größe"}))
    for body in catalog_bodies([{"table_id": 500_001, "name": "t", "tablet_id": 200_001}]):
        writer.add(MetaType.TABLE_CATALOG, body)
    return writer.finish()


def facts(**changes: object) -> SetFacts:
    values = {
        "cluster_name": "seekdb",
        "cluster_id": 1,
        "tenant_id": TENANT,
        "tenant_name": "sys",
        "pg": PG,
        "full_backup_set_id": 1,
        "backup_set_id": 1,
        "prev_backup_set_id": 0,
        "backup_type": info.BackupType.FULL,
        "engine": "seekdb",
        "engine_version": "4.3.5.3 seekdb r1.4.0.0",
        "start_lsn": 0,
        "end_lsn": 4096,
        "end_scn": T0 * 1000,
        "block_file_size": 64 << 20,
        "log_round": ROUND,
        "started_us": T0,
        "finished_us": T0 + 5,
        "compression": "auto",
        "parameters": {"log_disk_size": "2G"},
        "proof": {"sweep": [1, 2], "windows": 1},
    }
    return SetFacts(**(values | changes))  # type: ignore[arg-type]


def manifest_blocks() -> list[ManifestBlock]:
    return [ManifestBlock(i, 1, 300, 200_001, T0 * 1000, i, 0x11223344, xxh3_128(block_bytes(i))) for i in (5, 2)]


def manifest_file() -> bytes:
    writer = ManifestWriter(facts())
    writer.add_blocks(manifest_blocks())
    writer.add_file("1/data/backup_set_1/backup_1/meta_file_0", 8192, xxh3_128(b"meta"))
    writer.add_file("1/data/backup_set_1/data/1649267441665/0/major_data/macro_block_1.0", 12288, xxh3_128(b"macro"))
    return writer.finish()


def palf_entries(first_id: int, count: int, accum: int, *, body: int = 24) -> tuple[bytes, int]:
    """Raw payload of PALF_GROUP entries (group bytes are not valid PALF here) and the running checksum after them."""
    out = b""
    for number in range(first_id, first_id + count):
        header = struct.pack(">h46x", 0x4942) if number == first_id else None
        group = PalfGroupBody(1000 * number, header, memoryview(b"GR" + b"%06d" % number * (body // 6)))
        data = group.pack()
        out += log_entry(LogType.PALF_GROUP, PG, number, data, timestamp=T0 + number, epoch_id=3)
        accum = next_accum(accum, ob_crc64(data))
    return out, accum


def archive_file(compressor: int = Compressor.NONE) -> bytes:
    """A kickoff block and two blocks of groups 11..13 and 14..15."""
    kickoff = Kickoff(T0, T0 - 1, T0 - 2)
    data = build_kickoff_block(PG, 11, kickoff, timestamp=T0, accum_checksum=0, start_submit_ts=T0 - 1)
    accum = 0
    for first, count in ((11, 3), (14, 2)):
        raw, accum = palf_entries(first, count, accum)
        last = first + count - 1
        meta = ArchiveBlockMeta(T0, 3, accum, 11, T0 + 11, last, T0 + last, T0 + last, len(raw))
        data += build_block(meta, chunk(raw, compressor) or raw, offset=len(data))
    return data


def index_record(data_file_id: int = 1) -> ArchiveIndexRecord:
    return ArchiveIndexRecord(
        data_file_id, 900, 700, 3, 0xAABBCCDD, 11, T0 + 11, 15, T0 + 15, T0 + 15, T0, 11, T0 - 2, T0 - 1, 0, 0
    )


def samples() -> dict[str, tuple[str, bytes]]:
    """name -> (path in the tree, content)."""
    meta, meta_index = meta_files()
    names = info.TenantNames(0, ()).add("sys", 1, T0, 1).add("app", 1001, T0, 2)
    locality = info.TenantLocality(TENANT, 1, T0, 0, "sys", "", "")
    out: dict[str, tuple[str, bytes]] = {
        "macro": (LAYOUT.macro_block(TENANT, 1, PG, 1, 0), macro_file(5, 2)),
        "macro zstd": (LAYOUT.macro_block(TENANT, 1, PG, 1, 1), macro_file_compressed(Compressor.ZSTD_1_3_8)),
        "macro lz4": (LAYOUT.macro_block(TENANT, 1, PG, 1, 2), macro_file_compressed(Compressor.LZ4)),
        "macro index": (LAYOUT.macro_block_index(TENANT, 1, PG, 1), macro_index_file()),
        "meta": (LAYOUT.meta_file(TENANT, 1, 1, 0), meta),
        "meta index": (LAYOUT.meta_index_file(TENANT, 1, 1, 0), meta_index),
        "manifest": (LAYOUT.manifest(TENANT, 1, 1), manifest_file()),
        "archive": (LAYOUT.archive_data(TENANT, ROUND, PG, 1), archive_file()),
        "archive zstd": (LAYOUT.archive_data(TENANT, ROUND, PG, 1), archive_file(Compressor.ZSTD_1_3_8)),
        "archive lz4": (LAYOUT.archive_data(TENANT, ROUND, PG, 1), archive_file(Compressor.LZ4)),
        "archive index": (
            LAYOUT.archive_index(TENANT, ROUND, PG, 1),
            index_record(1).pack() + index_record(2).pack(),
        ),
        "archive key": (LAYOUT.archive_key(TENANT, ROUND, PG), ArchiveKey(True, 0, index_record(0)).pack()),
        "clog_info": (LAYOUT.clog_info(1, "127.0.0.1", 2882), ArchiveStart(ROUND, T0).pack()),
        "mount_file": (LAYOUT.mount_file(ROUND), info.encode_mount_file(ROUND)),
        "rounds": (
            LAYOUT.tenant_clog_backup_info(TENANT),
            info.encode_archive_rounds([round_of(6, status=info.ArchiveStatus.STOP), round_of(7)]),
        ),
        "backups": (LAYOUT.tenant_data_backup_info(TENANT), info.encode_backup_infos([backup(1), backup(2)])),
        "set info": (
            LAYOUT.backup_set_info(TENANT, 1),
            info.encode_set_infos([info.BackupSetInfo(1, T0, 2, 1, 10, 20 << 20, 9 << 20, 7, 8)]),
        ),
        "tenant_info": (LAYOUT.tenant_info(), info.encode_tenant_infos([info.TenantInfo(1, 0, 0, 0, "sys", T0)])),
        "tenant_name_info": (LAYOUT.tenant_name_info(), info.encode_tenant_names(names)),
        "locality": (LAYOUT.tenant_locality_info(TENANT, 1, 1), info.encode_tenant_locality(locality)),
        "diagnose": (
            LAYOUT.tenant_diagnose_info(TENANT, 1, 1),
            info.encode_tenant_diagnose(TENANT, ["backup 1", "set 1"]),
        ),
        "sys pgs": (LAYOUT.sys_pg_list(TENANT, 1, 1), info.encode_pg_list([])),
        "normal pgs": (LAYOUT.normal_pg_list(TENANT, 1, 1), info.encode_pg_list([PG])),
    }
    return out
