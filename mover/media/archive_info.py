"""``tenant_clog_backup_info`` and ``cluster_clog_backup_info``: the rounds of log archiving, and how they may change.

One element per round, oldest first; only the last one changes. Also ``mount_file``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from mover.errors import FormatError, StateError
from mover.media.backup_info import COMPATIBLE_310
from mover.media.header import HEADER_SIZE, DataType
from mover.media.info_file import decode_info, encode_info
from mover.media.layout import INCARNATION
from mover.media.serial import BOOL, I32, I64, U64, Buffer, Unis, array

MAX_ROUNDS = 100_000


class ArchiveStatus(IntEnum):
    """ObLogArchiveStatus."""

    INVALID = 0
    STOP = 1
    BEGINNING = 2
    DOING = 3
    STOPPING = 4
    INTERRUPTED = 5
    MIXED = 6  # only shown
    PAUSED = 7  # later 3.x


_ALLOWED: dict[int, frozenset[int]] = {
    ArchiveStatus.STOP: frozenset({ArchiveStatus.STOP}),
    ArchiveStatus.BEGINNING: frozenset(
        {
            ArchiveStatus.BEGINNING,
            ArchiveStatus.DOING,
            ArchiveStatus.STOPPING,
            ArchiveStatus.STOP,
            ArchiveStatus.INTERRUPTED,
        }
    ),
    ArchiveStatus.DOING: frozenset(
        {ArchiveStatus.DOING, ArchiveStatus.STOPPING, ArchiveStatus.STOP, ArchiveStatus.INTERRUPTED}
    ),
    ArchiveStatus.STOPPING: frozenset({ArchiveStatus.STOPPING, ArchiveStatus.STOP}),
    ArchiveStatus.INTERRUPTED: frozenset({ArchiveStatus.INTERRUPTED, ArchiveStatus.STOPPING, ArchiveStatus.STOP}),
}


def transition_allowed(before: int, after: int) -> bool:
    """May a round go from one status to the other?"""
    return after in _ALLOWED.get(before, frozenset())


@dataclass(frozen=True, slots=True)
class ArchiveRound:
    """ObTenantLogArchiveStatus: one round of a tenant; times in microseconds.

    ``start_ts`` and ``checkpoint_ts`` are the MIN_FIRST_TIME and MAX_NEXT_TIME of the views.
    """

    tenant_id: int
    start_ts: int
    checkpoint_ts: int
    round_id: int
    status: int
    incarnation: int = INCARNATION
    is_mark_deleted: bool = False
    is_mount_file_created: bool = False
    compatible: int = COMPATIBLE_310
    backup_piece_id: int = 0  # later 3.x; 0: pieces are not switched
    start_piece_id: int = 0


_ROUND: Unis[ArchiveRound] = Unis(
    ArchiveRound,
    [
        ("tenant_id", U64),
        ("start_ts", I64),
        ("checkpoint_ts", I64),
        ("incarnation", I64),
        ("round_id", I64),
        ("status", I32),
        ("is_mark_deleted", BOOL),
        ("is_mount_file_created", BOOL),
        ("compatible", I32),
    ],
)


@dataclass(frozen=True, slots=True)
class _Rounds:
    items: tuple[ArchiveRound, ...]


_ROUNDS: Unis[_Rounds] = Unis(_Rounds, [("items", array(_ROUND))])
# What later 3.x appended is read, never written.
_LATER_ROUND: Unis[ArchiveRound] = Unis(
    ArchiveRound, [*_ROUND.members, ("backup_piece_id", I64), ("start_piece_id", I64)]
)
_LATER_ROUNDS: Unis[_Rounds] = Unis(_Rounds, [("items", array(_LATER_ROUND))])


def encode_archive_rounds(rounds: Sequence[ArchiveRound]) -> bytes:
    """The whole file."""
    if len(rounds) > MAX_ROUNDS:
        raise ValueError(f"{len(rounds)} rounds, at most {MAX_ROUNDS} are kept")
    return encode_info(DataType.LOG_ARCHIVE_BACKUP_INFO, _ROUNDS.encode(_Rounds(tuple(rounds))))


def decode_archive_rounds(data: Buffer, *, strict: bool = True) -> tuple[ArchiveRound, ...]:
    """The rounds. ``strict=False`` also reads the piece ids that later 3.x appended. Raises FormatError."""
    body = decode_info(data, DataType.LOG_ARCHIVE_BACKUP_INFO, strict=strict)
    rounds = (_ROUNDS if strict else _LATER_ROUNDS).decode(body, base_offset=HEADER_SIZE, strict=strict).items
    for item in rounds:
        if item.incarnation != INCARNATION:
            raise FormatError(
                f"round {item.round_id} has incarnation {item.incarnation}, not {INCARNATION}", offset=HEADER_SIZE
            )
    return rounds


def current_round(rounds: Sequence[ArchiveRound]) -> ArchiveRound | None:
    """The last round, or None."""
    return rounds[-1] if rounds else None


def begin_round(
    rounds: Sequence[ArchiveRound], tenant_id: int, start_ts: int, *, round_id: int | None = None
) -> tuple[ArchiveRound, ...]:
    """Append a round that is BEGINNING; its number is one above the last.

    A BEGINNING left behind is forced to STOP. ``round_id`` names the number when another tenant's list knows a larger.

    Raises StateError when the last round is DOING, STOPPING or INTERRUPTED, or the number does not grow.
    """
    last = current_round(rounds)
    number = (last.round_id if last else 0) + 1 if round_id is None else round_id
    if last is not None:
        if last.status not in (ArchiveStatus.STOP, ArchiveStatus.BEGINNING):
            raise StateError(
                f"round {last.round_id} of tenant {last.tenant_id} is {ArchiveStatus(last.status).name}",
                hint="Stop archiving first.",
            )
        if number <= last.round_id:
            raise StateError(f"round {number} does not come after round {last.round_id}")
        rounds = (*rounds[:-1], replace(last, status=ArchiveStatus.STOP))
    if len(rounds) >= MAX_ROUNDS:
        raise StateError(f"{MAX_ROUNDS} rounds are recorded already", hint="Delete obsolete rounds.")
    return (*rounds, ArchiveRound(tenant_id, start_ts, 0, number, ArchiveStatus.BEGINNING))


def update_round(rounds: Sequence[ArchiveRound], new: ArchiveRound) -> tuple[ArchiveRound, ...]:
    """Replace the last round by its next state. Idempotent.

    Raises:
        StateError: not the same tenant, round and incarnation; a transition that is not allowed; a checkpoint that
            goes back; a start that moves forward once the round left BEGINNING.
    """
    last = current_round(rounds)
    if last is None or (last.tenant_id, last.round_id, last.incarnation) != (
        new.tenant_id,
        new.round_id,
        new.incarnation,
    ):
        found = "none" if last is None else f"round {last.round_id} of tenant {last.tenant_id}"
        raise StateError(f"round {new.round_id} of tenant {new.tenant_id} is not the last one, which is {found}")
    where = f"round {new.round_id} of tenant {new.tenant_id}"
    if not transition_allowed(last.status, new.status):
        raise StateError(f"{where} cannot go from status {last.status} to {new.status}")
    if new.checkpoint_ts < last.checkpoint_ts:
        raise StateError(f"checkpoint of {where} would go back from {last.checkpoint_ts} to {new.checkpoint_ts}")
    if last.status != ArchiveStatus.BEGINNING and new.start_ts > last.start_ts:
        raise StateError(f"start of {where} would move from {last.start_ts} to {new.start_ts}")
    return (*rounds[:-1], new)


def encode_mount_file(round_id: int) -> bytes:
    """The content of ``mount_file``: the round number as decimal text."""
    return str(round_id).encode()


def decode_mount_file(data: Buffer) -> int:
    """The round number. Raises FormatError for anything but plain decimal text."""
    text = bytes(data)
    if not text.isdigit() or len(text) > 19 or (text[0] == 0x30 and len(text) > 1):
        raise FormatError(f"mount_file holds {text[:32]!r}, expected a round number", offset=0)
    return int(text)
