"""Sweep: remove what runs that were killed left at the destination, and nothing that was published.

Two things are left behind. Unfinished writes: temporary files, and uploads of several parts that nobody completed; no
record names them and no restore reads them. And backups that will never be complete: files under names of their own,
which the next backup would remove too. Both are told from what is being written now by their age, and backups also by
the lease: while this has it no backup runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from mover.clock import iso_from_us
from mover.errors import ConfigError, TargetLocked
from mover.events import Phase
from mover.media.backup_info import BackupInfo, BackupStatus, last_success
from mover.media.layout import Layout
from mover.repository.remains import remains_of
from mover.repository.sets import load_infos, publish_infos
from mover.repository.unfinished import written_lists
from mover.rootservice.session import Session
from mover.target.base import Leftover, ObjectInfo

LEAST_AGE_SECONDS = 60.0
_AT_ONCE = 1000  # files that are removed between two looks at the lease


@dataclass(frozen=True, slots=True)
class Removal:
    """Something to remove, and why."""

    path: str
    what: str
    why: str
    begun_us: int
    size: int
    leftover: Leftover | None = None  # an unfinished write; else a whole file

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "what": self.what,
            "why": self.why,
            "since": iso_from_us(self.begun_us),
            "bytes": self.size,
        }


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What was removed, or would be."""

    removals: tuple[Removal, ...]
    kept: int  # younger ones, which somebody may still be writing
    foreign: int  # unfinished writes of paths that are no backup's
    plan: bool
    locked: Mapping[str, datetime] = field(default_factory=dict)  # what the destination keeps, and until when

    def as_json(self) -> dict[str, Any]:
        return {
            "plan": self.plan,
            "removals": [removal.as_json() for removal in self.removals],
            "kept": self.kept,
            "foreign": self.foreign,
            "locked": [{"path": path, "until": until.isoformat()} for path, until in sorted(self.locked.items())],
        }


def plan_sweep(
    layout: Layout,
    leftovers: Iterable[Leftover],
    dead: Mapping[int, tuple[BackupInfo, Sequence[tuple[str, int]]]],
    before_us: int,
    lists: Sequence[ObjectInfo] = (),
) -> SweepReport:
    """What to remove. Pure.

    Args:
        leftovers: every unfinished write at the destination.
        dead: by set id, backups that nobody will complete with their files (path, size).
        before_us: what began at or after this moment stays.
        lists: of written blocks, of the newest backup that is complete.
    """
    removals: list[Removal] = []
    kept = foreign = 0
    for leftover in leftovers:
        if layout.parse(leftover.path) is None:
            foreign += 1
        elif leftover.begun_us >= before_us:
            kept += 1
        else:
            why = "a write that was never finished"
            removals.append(Removal(leftover.path, leftover.kind, why, leftover.begun_us, leftover.size, leftover))
    for set_id, (info, files) in sorted(dead.items()):
        if info.backup_snapshot_version >= before_us:
            kept += len(files)
            continue
        why = f"backup set {set_id} was never completed"
        removals += [Removal(path, "file", why, info.backup_snapshot_version, size) for path, size in files]
    why = "of use only until its backup was complete"
    removals += [Removal(each.path, "file", why, before_us, each.size) for each in lists]
    return SweepReport(tuple(removals), kept, foreign, plan=True)


async def sweep(session: Session, *, older_than: float, plan: bool) -> SweepReport:
    """Remove what crashed runs left behind, or only say what that is.

    Args:
        older_than: seconds; what is younger stays.
        plan: remove nothing.

    Idempotent. What the destination has locked is told and stays.
    Raises PreconditionError (-9036) while a backup runs, ConfigError for an age below a minute.
    """
    if older_than < LEAST_AGE_SECONDS:
        raise ConfigError(
            f"--older-than {older_than:g}s is less than {LEAST_AGE_SECONDS:g} s",
            hint="what began just now may be somebody's who still writes it; give 1h or 1d",
        )
    repository = session.repository
    async with session.lease("backup") as lease:
        session.emit(Phase("sweep", "look"))
        infos = await load_infos(repository)
        dead = {}
        for info in infos:
            # Where objects are locked a set may outlive the backup that would have cleared it away.
            gone = _superseded(infos, info) and not (repository.target.capabilities.locks and _alone(infos, info))
            if info.status != BackupStatus.SUCCESS and not gone:
                found = await remains_of(repository, info)
                dead[info.inc_backup_set_id] = (info, [(file.path, file.size) for file in found])
        leftovers = [found async for found in repository.target.leftovers("")]
        before_us = session.clock.now_us() - round(older_than * 1_000_000)
        last = last_success(infos)
        lists = await written_lists(repository, last) if last else []
        report = plan_sweep(repository.layout, leftovers, dead, before_us, lists)
        if plan:
            return report
        session.emit(Phase("sweep", "remove", f"{len(report.removals)} items"))
        # They say FAILED first: whoever wrote them, and only seemed dead, can not publish them any more.
        ended = tuple(
            replace(info, status=BackupStatus.FAILED)
            if info.status == BackupStatus.DOING and info.inc_backup_set_id in dead and _is_removed(report, dead, info)
            else info
            for info in infos
        )
        if ended != infos:
            lease.check()
            await publish_infos(repository, ended)
        for removal in report.removals:
            lease.check()
            if removal.leftover is not None:
                await repository.target.discard(removal.leftover)
        files = [removal.path for removal in report.removals if removal.leftover is None]
        locked: dict[str, datetime] = {}
        for at in range(0, len(files), _AT_ONCE):
            lease.check()
            try:
                await repository.target.delete_many(files[at : at + _AT_ONCE])
            except TargetLocked as error:
                locked |= error.locked
        removals = tuple(each for each in report.removals if each.leftover is not None or each.path not in locked)
        return replace(report, removals=removals, locked=locked, plan=False)


def _superseded(infos: Sequence[BackupInfo], info: BackupInfo) -> bool:
    """A later backup succeeded, and cleared this one away; what has its number now is not its own."""
    return any(
        later.status == BackupStatus.SUCCESS and later.inc_backup_set_id > info.inc_backup_set_id for later in infos
    )


def _alone(infos: Sequence[BackupInfo], info: BackupInfo) -> bool:
    """Nobody else has its number."""
    return sum(other.inc_backup_set_id == info.inc_backup_set_id for other in infos) == 1


def _is_removed(
    report: SweepReport, dead: Mapping[int, tuple[BackupInfo, Sequence[tuple[str, int]]]], info: BackupInfo
) -> bool:
    paths = {path for path, _ in dead[info.inc_backup_set_id][1]}
    return any(removal.path in paths for removal in report.removals if removal.leftover is None)
