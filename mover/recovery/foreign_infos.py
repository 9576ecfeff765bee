"""The info files of a tenant of a foreign tree, and what they make of its directories: sets, and runs of log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from mover.errors import IntegrityError, TargetNotFound
from mover.media.archive_info import ArchiveRound, ArchiveStatus, decode_archive_rounds
from mover.media.backup_info import BackupInfo, BackupStatus, decode_backup_infos
from mover.media.layout import FileKind
from mover.media.piece_info import FileStatus, PieceInfo, decode_piece_infos, decode_single_piece_info
from mover.recovery.findings import Damage, Findings, Read
from mover.recovery.foreign_plan import Stretch
from mover.recovery.foreign_tree import PieceDir, TenantTree, in_order
from mover.target.base import Target

T = TypeVar("T")
_LISTS = ("sys_pg_list", "normal_pg_list")


@dataclass(slots=True)
class TenantInfos:
    """What the info files say. ``findings``: those that are missing or damaged."""

    backups: tuple[BackupInfo, ...] = ()
    rounds: tuple[ArchiveRound, ...] = ()
    pieces: dict[tuple[int, int], PieceInfo] = field(default_factory=dict)  # by round and piece
    findings: Findings = field(default_factory=Findings)


@dataclass(slots=True)
class Run:
    """Directories of one round whose pieces follow each other, and the time they cover (us)."""

    round_id: int
    status: str
    pieces: list[PieceDir]
    start_ts: int
    until_ts: int
    whole: bool
    ended_by: str = ""

    def stretch(self, logs: Sequence[object]) -> Stretch:
        """With how far the log of each PG holds."""
        found = tuple(logs)
        return Stretch(
            self.round_id,
            self.status,
            self.start_ts,
            self.until_ts,
            found,  # type: ignore[arg-type]
            self.ended_by,
            self.whole,
        )

    def covers(self, info: BackupInfo) -> bool:
        """Whether the snapshot of a backup lies in it."""
        return self.start_ts <= info.backup_snapshot_version <= self.until_ts

    def pgs(self) -> list[tuple[int, int]]:
        """Every PG that has files in it."""
        return sorted({pg for piece in self.pieces for pg in piece.pgs})


async def load_tenant(target: Target, tenant: TenantTree, read: Read) -> TenantInfos:
    """Read the tenant's lists. What is missing or damaged is a finding, never raised."""
    infos = TenantInfos()
    where = {"tenant_id": tenant.tenant_id}

    async def take(path: str, decode: Callable[[bytes], T]) -> T | None:
        try:
            data = await target.get(path)
            read(path, len(data))
            return decode(data)
        except (IntegrityError, TargetNotFound) as exc:
            infos.findings.damages.append(Damage.of(exc, path, **where))
            return None

    base = f"{tenant.incarnation_dir}/{tenant.tenant_id}"
    if tenant.sets or "tenant_data_backup_info" in tenant.infos:
        found = await take(f"{base}/data/tenant_data_backup_info", partial(decode_backup_infos, strict=False))
        infos.backups = found or ()
    archived = any(piece.pgs for piece in tenant.pieces.values())
    if archived or "tenant_clog_backup_info" in tenant.infos:
        rounds = await take(f"{base}/clog/tenant_clog_backup_info", partial(decode_archive_rounds, strict=False))
        infos.rounds = rounds or ()
    for file in tenant.infos.values():
        if file.place.kind is FileKind.TENANT_PIECE_INFO:
            for piece in await take(file.path, partial(decode_piece_infos, strict=False)) or ():
                infos.pieces[piece.round_id, piece.backup_piece_id] = piece
    for directory in tenant.pieces.values():
        if directory.info is not None:
            single = await take(directory.info.path, partial(decode_single_piece_info, strict=False))
            if single is not None:
                infos.pieces.setdefault((single.round_id, single.backup_piece_id), single)
    return infos


def set_problem(tenant: TenantTree, infos: Sequence[BackupInfo], info: BackupInfo) -> str:
    """Why a backup cannot be restored, as far as names tell; "" when they do not."""
    if info.status == BackupStatus.DOING:
        return "it is running, or its end was never recorded"
    if info.status == BackupStatus.FAILED:
        return "it failed"
    if info.is_mark_deleted:
        return "it is being deleted"
    found = tenant.find_backup(info.full_backup_set_id, info.inc_backup_set_id)
    if found is None:
        return "its directory is missing"
    missing = [name for name in _LISTS if name not in found.backups[info.inc_backup_set_id]]
    if missing:
        return f"its {missing[0]} is missing"
    by_id = {other.inc_backup_set_id: other for other in infos}
    link = info
    for _ in range(len(infos)):
        if not link.prev_inc_backup_set_id:
            return ""
        before = by_id.get(link.prev_inc_backup_set_id)
        if tenant.find_backup(link.prev_full_backup_set_id, link.prev_inc_backup_set_id) is None:
            return f"set {link.prev_inc_backup_set_id}, which it builds on, is missing"
        if before is None:
            return ""
        link = before
    return "the sets it builds on form a circle"


def runs_of(tenant: TenantTree, infos: TenantInfos) -> list[Run]:
    """The rounds as runs of consecutive pieces, oldest first. Pure."""
    found: list[Run] = []
    directories = tenant.rounds()
    for info in infos.rounds:
        if info.is_mark_deleted:
            continue
        found += _runs_of_round(info, directories.get(info.round_id, []), infos.pieces)
    return found


def _runs_of_round(
    info: ArchiveRound, directories: list[PieceDir], pieces: dict[tuple[int, int], PieceInfo]
) -> list[Run]:
    try:
        status = ArchiveStatus(info.status).name
    except ValueError:
        status = str(info.status)
    ended = "archiving was interrupted" if status == "INTERRUPTED" else ""
    until = max(info.start_ts, info.checkpoint_ts)
    if not any(directory.pgs for directory in directories):
        if info.checkpoint_ts == 0:
            return []  # it never came to DOING
        text = "no file of its log is there"
        return [Run(info.round_id, status, [], info.start_ts, info.start_ts, True, ended or text)]
    switched = [directory for directory in directories if directory.piece_id]
    if not switched:
        return [Run(info.round_id, status, directories, info.start_ts, until, True, ended)]
    known = {piece for round_id, piece in pieces if round_id == info.round_id}
    present = {directory.piece_id: directory for directory in switched}
    first = info.start_piece_id or min(known | present.keys())
    last = info.backup_piece_id or max(known | present.keys())
    runs: list[Run] = []
    for number, _, _ in in_order({*present, last}, first):
        directory = present.get(number)
        piece = pieces.get((info.round_id, number))
        if directory is None:
            if runs and not runs[-1].ended_by:
                runs[-1].ended_by = _missing_piece(number, piece)
            continue
        if not runs or runs[-1].ended_by:
            start = info.start_ts if number == first else (piece.start_ts if piece is not None else until)
            runs.append(Run(info.round_id, status, [], start, start, number == first))
        run = runs[-1]
        run.pieces.append(directory)
        if number == last:
            run.until_ts = until
        elif piece is not None:
            run.until_ts = max(run.start_ts, piece.checkpoint_ts or piece.max_ts)
    if runs and not runs[-1].ended_by:
        runs[-1].ended_by = ended
    return runs


def _missing_piece(number: int, piece: PieceInfo | None) -> str:
    if piece is None or piece.file_status == FileStatus.AVAILABLE:
        return f"piece {number} is missing"
    try:
        return f"piece {number} is gone ({FileStatus(piece.file_status).name})"
    except ValueError:
        return f"piece {number} is gone (file status {piece.file_status})"
