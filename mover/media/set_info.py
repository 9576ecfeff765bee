"""``backup_set_info``: the statistics of the finished backups in one ``backup_set_<F>``, and how a set is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mover.media.backup_info import BackupInfo, BackupStatus, BackupType
from mover.media.header import HEADER_SIZE, Compressor, DataType
from mover.media.info_file import decode_info, encode_info
from mover.media.serial import I32, I64, U64, Buffer, Unis, array


@dataclass(frozen=True, slots=True)
class BackupSetInfo:
    """ObExternBackupSetInfo: what one finished backup moved; sizes in bytes."""

    backup_set_id: int
    backup_snapshot_version: int
    compatible: int
    pg_count: int
    macro_block_count: int
    input_bytes: int  # OceanBase counts 2 MiB per copied block, whatever it stores
    output_bytes: int
    cluster_version: int
    compress_type: int = Compressor.NONE


_INFO: Unis[BackupSetInfo] = Unis(
    BackupSetInfo,
    [
        ("backup_set_id", I64),
        ("backup_snapshot_version", I64),
        ("compatible", I64),
        ("pg_count", I64),
        ("macro_block_count", I64),
        ("input_bytes", I64),
        ("output_bytes", I64),
        ("cluster_version", U64),
        ("compress_type", I32),
    ],
)


@dataclass(frozen=True, slots=True)
class _Infos:
    items: tuple[BackupSetInfo, ...]


_INFOS: Unis[_Infos] = Unis(_Infos, [("items", array(_INFO))])


def encode_set_infos(infos: Sequence[BackupSetInfo]) -> bytes:
    """The whole file."""
    return encode_info(DataType.BACKUP_SET_INFO, _INFOS.encode(_Infos(tuple(infos))))


def decode_set_infos(data: Buffer, *, strict: bool = True) -> tuple[BackupSetInfo, ...]:
    """The elements of a file. Raises FormatError."""
    body = decode_info(data, DataType.BACKUP_SET_INFO, strict=strict)
    return _INFOS.decode(body, base_offset=HEADER_SIZE, strict=strict).items


def append_set_info(infos: Sequence[BackupSetInfo], info: BackupSetInfo) -> tuple[BackupSetInfo, ...]:
    """Add the record of a finished backup; one of the same number is replaced, so that a retry is idempotent."""
    return (*(i for i in infos if i.backup_set_id != info.backup_set_id), info)


def set_status(info: BackupInfo) -> str:
    """The status word of the views: COMPLETED, RUNNING, FAILED or DELETING."""
    if info.is_mark_deleted:
        return "DELETING"
    names: dict[int, str] = {BackupStatus.SUCCESS: "COMPLETED", BackupStatus.DOING: "RUNNING"}
    return names.get(info.status, "FAILED")


def set_view(
    tenant_id: int,
    info: BackupInfo,
    stats: BackupSetInfo | None = None,
    *,
    min_restore_scn: int = 0,
    reused_macro_block_count: int = 0,
    elapsed_seconds: float = 0.0,
) -> dict[str, Any]:
    """The JSON object of a backup in ``show sets`` and ``backup full``; what only the manifest knows is passed in."""
    incremental = info.backup_type == BackupType.INCREMENTAL
    return {
        "backup_set_id": info.inc_backup_set_id,
        "full_backup_set_id": info.full_backup_set_id,
        "prev_backup_set_id": info.prev_inc_backup_set_id,
        "backup_type": "I" if incremental else "D",
        "status": set_status(info),
        "tenant_id": tenant_id,
        "snapshot_us": info.backup_snapshot_version,
        "min_restore_scn": min_restore_scn,
        "macro_block_count": stats.macro_block_count if stats else 0,
        "reused_macro_block_count": reused_macro_block_count,
        "input_bytes": stats.input_bytes if stats else 0,
        "output_bytes": stats.output_bytes if stats else 0,
        "elapsed_seconds": elapsed_seconds,
    }
