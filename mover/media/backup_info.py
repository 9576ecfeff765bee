"""``tenant_data_backup_info`` and ``cluster_data_backup_info``: the list of backups, and how it may change.

One element per backup, oldest first. A backup is appended as DOING and its element, the last one, is later replaced by
the same with SUCCESS or FAILED. The transitions are pure: they return the new list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from mover.errors import StateError
from mover.media.header import HEADER_SIZE, DataType
from mover.media.info_file import decode_info, encode_info
from mover.media.serial import BOOL, FIXED_STRING, I32, I64, Buffer, Unis, array

COMPATIBLE_310 = 2  # `compatible` of OceanBase 3.1.0, in data backups and log archives alike


class BackupType(IntEnum):
    """How OceanBase numbers them on media; ``letter`` is the view's D or I."""

    FULL = 1
    INCREMENTAL = 2

    @property
    def letter(self) -> str:
        return "D" if self is BackupType.FULL else "I"


class BackupStatus(IntEnum):
    """Status of an element."""

    SUCCESS = 0
    DOING = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """ObExternBackupInfo: one backup. Versions are µs timestamps in OceanBase, SCN // 1000 in ours."""

    full_backup_set_id: int
    inc_backup_set_id: int  # the backup's own number; equal to full_backup_set_id for a full
    backup_data_version: int
    backup_snapshot_version: int
    backup_schema_version: int
    frozen_snapshot_version: int
    frozen_schema_version: int
    prev_full_backup_set_id: int
    prev_inc_backup_set_id: int
    prev_backup_data_version: int
    compatible: int
    cluster_version: int
    backup_type: int
    status: int
    encryption_mode: int = 0
    passwd: str = ""
    is_mark_deleted: bool = False
    date: int = 0  # yyyymmdd, in the name of the set's directory; later 3.x only

    def same_but_status(self, other: BackupInfo) -> bool:
        """True when nothing but the status differs."""
        return replace(self, status=other.status) == other


_INFO: Unis[BackupInfo] = Unis(
    BackupInfo,
    [
        ("full_backup_set_id", I64),
        ("inc_backup_set_id", I64),
        ("backup_data_version", I64),
        ("backup_snapshot_version", I64),
        ("backup_schema_version", I64),
        ("frozen_snapshot_version", I64),
        ("frozen_schema_version", I64),
        ("prev_full_backup_set_id", I64),
        ("prev_inc_backup_set_id", I64),
        ("prev_backup_data_version", I64),
        ("compatible", I64),
        ("cluster_version", I64),
        ("backup_type", I32),
        ("status", I32),
        ("encryption_mode", I32),
        ("passwd", FIXED_STRING),
        ("is_mark_deleted", BOOL),
    ],
)


@dataclass(frozen=True, slots=True)
class _Infos:
    items: tuple[BackupInfo, ...]


_INFOS: Unis[_Infos] = Unis(_Infos, [("items", array(_INFO))])
# What later 3.x appended is read, never written.
_LATER_INFOS: Unis[_Infos] = Unis(_Infos, [("items", array(Unis(BackupInfo, [*_INFO.members, ("date", I64)])))])


def encode_backup_infos(infos: Sequence[BackupInfo]) -> bytes:
    """The whole file."""
    return encode_info(DataType.BACKUP_INFO, _INFOS.encode(_Infos(tuple(infos))))


def decode_backup_infos(data: Buffer, *, strict: bool = True) -> tuple[BackupInfo, ...]:
    """The elements of a file. ``strict=False`` also reads what later 3.x appended to an element. Raises FormatError."""
    body = decode_info(data, DataType.BACKUP_INFO, strict=strict)
    return (_INFOS if strict else _LATER_INFOS).decode(body, base_offset=HEADER_SIZE, strict=strict).items


def next_set_id(*lists: Sequence[BackupInfo]) -> int:
    """The number of the next backup: one above the largest in any tenant's list. Failed backups keep theirs."""
    return max((info.inc_backup_set_id for infos in lists for info in infos), default=0) + 1


def last_success(infos: Sequence[BackupInfo], *, until: int | None = None) -> BackupInfo | None:
    """The newest successful backup that is not marked deleted, at or before snapshot version ``until`` (us)."""
    for info in reversed(infos):
        if info.status != BackupStatus.SUCCESS or info.is_mark_deleted:
            continue
        if until is None or info.backup_snapshot_version <= until:
            return info
    return None


def begin_backup(infos: Sequence[BackupInfo], info: BackupInfo) -> tuple[BackupInfo, ...]:
    """Append a backup as DOING; one before it that is still DOING (its coordinator died) becomes FAILED.

    Idempotent for an equal last element. Raises StateError when the number does not grow or ``info`` is not DOING.
    """
    if info.status != BackupStatus.DOING:
        raise StateError(f"backup {info.inc_backup_set_id} must begin as DOING, not {info.status}")
    if infos and infos[-1] == info:
        return tuple(infos)
    if infos and max(i.inc_backup_set_id for i in infos) >= info.inc_backup_set_id:
        raise StateError(
            f"backup {info.inc_backup_set_id} does not come after backup {infos[-1].inc_backup_set_id}",
            hint="Another coordinator took the number; run the command again.",
        )
    failed = tuple(replace(i, status=BackupStatus.FAILED) if i.status == BackupStatus.DOING else i for i in infos)
    return (*failed, info)


def resume_backup(infos: Sequence[BackupInfo], info: BackupInfo) -> tuple[BackupInfo, ...]:
    """Put ``info`` in the place of the last backup, which was interrupted (DOING) and has the same number.

    They differ, so that whoever began the earlier attempt, should it only seem dead, cannot finish it any more.
    Raises StateError when there is no such backup.
    """
    last = infos[-1] if infos else None
    if info.status != BackupStatus.DOING or last is None or last.status != BackupStatus.DOING or last == info:
        raise StateError(f"backup {info.inc_backup_set_id} cannot be gone on with: the last one is not unfinished")
    if (last.full_backup_set_id, last.inc_backup_set_id) != (info.full_backup_set_id, info.inc_backup_set_id):
        raise StateError(
            f"backup {info.inc_backup_set_id} cannot be gone on with: the last one is {last.inc_backup_set_id}",
            hint="Another coordinator began one; run the command again.",
        )
    return (*infos[:-1], info)


def finish_backup(infos: Sequence[BackupInfo], info: BackupInfo) -> tuple[BackupInfo, ...]:
    """Replace the last element by ``info``, which differs from it in status only, SUCCESS or FAILED.

    Idempotent. Raises StateError when the last element is another backup, or was already finished otherwise.
    """
    if info.status not in (BackupStatus.SUCCESS, BackupStatus.FAILED):
        raise StateError(f"backup {info.inc_backup_set_id} cannot finish with status {info.status}")
    if not infos or not infos[-1].same_but_status(info):
        raise StateError(f"backup {info.inc_backup_set_id} is not the last one in the list")
    if infos[-1].status not in (BackupStatus.DOING, info.status):
        raise StateError(f"backup {info.inc_backup_set_id} was already finished with status {infos[-1].status}")
    return (*infos[:-1], info)


def mark_deleted(infos: Sequence[BackupInfo], set_ids: frozenset[int] | set[int]) -> tuple[BackupInfo, ...]:
    """First phase of a delete: mark the backups with these numbers."""
    return tuple(replace(i, is_mark_deleted=True) if i.inc_backup_set_id in set_ids else i for i in infos)


def drop_deleted(infos: Sequence[BackupInfo]) -> tuple[BackupInfo, ...]:
    """Second phase, after the files are gone: drop the marked ones."""
    return tuple(i for i in infos if not i.is_mark_deleted)
