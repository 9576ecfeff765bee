"""Pieces of a round (later 3.x): ``backup_piece_info``, ``cluster_backup_piece_info`` and ``single_piece_info``.

A round whose piece switching is on is a row of directories ``<round>_<piece>_<yyyymmdd>``; each of these files lists
ObBackupPieceInfo. ``single_piece_info`` inside a piece holds the one of that piece: as a list of one, or bare (which of
the two is not confirmed, so both are read). The numbers of the two status enums are not confirmed either; they follow
the order in which OceanBase's documentation lists the names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from mover.errors import FormatError
from mover.media.header import HEADER_SIZE, DataType
from mover.media.info_file import decode_info, encode_info
from mover.media.layout import INCARNATION
from mover.media.serial import FIXED_STRING, I32, I64, U64, Buffer, Unis, array


class PieceStatus(IntEnum):
    """What a piece is at: log goes into it, no more, none."""

    ACTIVE = 0
    FREEZING = 1
    FROZEN = 2
    INACTIVE = 3


class FileStatus(IntEnum):
    """What became of the files of a piece or of a set."""

    AVAILABLE = 0
    COPYING = 1
    INCOMPLETE = 2
    DELETING = 3
    EXPIRED = 4
    BROKEN = 5
    DELETED = 6


@dataclass(frozen=True, slots=True)
class PieceInfo:
    """ObBackupPieceInfo: one piece of a round of a tenant; times in microseconds, ``create_date`` as yyyymmdd."""

    incarnation: int
    tenant_id: int
    round_id: int
    backup_piece_id: int
    copy_id: int
    create_date: int
    start_ts: int
    checkpoint_ts: int
    max_ts: int
    status: int
    file_status: int
    backup_dest: str = ""
    compatible: int = 0
    start_piece_id: int = 0


_PIECE: Unis[PieceInfo] = Unis(
    PieceInfo,
    [
        ("incarnation", I64),
        ("tenant_id", U64),
        ("round_id", I64),
        ("backup_piece_id", I64),
        ("copy_id", I64),
        ("create_date", I64),
        ("start_ts", I64),
        ("checkpoint_ts", I64),
        ("max_ts", I64),
        ("status", I32),
        ("file_status", I32),
        ("backup_dest", FIXED_STRING),
        ("compatible", I32),
        ("start_piece_id", I64),
    ],
)


@dataclass(frozen=True, slots=True)
class _Pieces:
    items: tuple[PieceInfo, ...]


_PIECES: Unis[_Pieces] = Unis(_Pieces, [("items", array(_PIECE))])


def encode_piece_infos(pieces: Sequence[PieceInfo]) -> bytes:
    """A whole list file."""
    return encode_info(DataType.PIECE_INFO, _PIECES.encode(_Pieces(tuple(pieces))))


def decode_piece_infos(data: Buffer, *, strict: bool = True) -> tuple[PieceInfo, ...]:
    """The pieces of a list file. Raises FormatError."""
    body = decode_info(data, DataType.PIECE_INFO, strict=strict)
    return _checked(_PIECES.decode(body, base_offset=HEADER_SIZE, strict=strict).items)


def decode_single_piece_info(data: Buffer, *, strict: bool = True) -> PieceInfo:
    """The piece that a ``single_piece_info`` is about. Raises FormatError; also for a list of none or several."""
    body = decode_info(data, DataType.SINGLE_PIECE_INFO, strict=strict)
    try:
        items = _PIECES.decode(body, base_offset=HEADER_SIZE, strict=strict).items
    except FormatError:
        items = (_PIECE.decode(body, base_offset=HEADER_SIZE, strict=strict),)
    if len(items) != 1:
        raise FormatError(f"single_piece_info holds {len(items)} pieces", offset=HEADER_SIZE)
    return _checked(items)[0]


def _checked(items: tuple[PieceInfo, ...]) -> tuple[PieceInfo, ...]:
    for item in items:
        if item.incarnation != INCARNATION:
            raise FormatError(
                f"piece {item.backup_piece_id} has incarnation {item.incarnation}, not {INCARNATION}",
                offset=HEADER_SIZE,
            )
    return items
