"""What a copy of a backup tree does, decided from names, sizes and lists: pure functions.

Files are copied in ranks, what is named before what names it: bytes, then indexes, then the lists and the manifest of a
set. The info files that make a set or a round visible are no part of this: they are published when all ranks are done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mover.media.archive_info import ArchiveStatus
from mover.media.backup_info import BackupInfo, BackupStatus
from mover.media.copy_record import Copied
from mover.media.layout import FileKind
from mover.recovery.foreign_infos import TenantInfos
from mover.recovery.foreign_tree import BackupTree, PieceDir, SetDir, TenantTree, TreeFile
from mover.target.base import ObjectInfo

BYTES, INDEXES, LISTS = range(3)
_RANKS = {
    FileKind.MACRO_BLOCK_INDEX: INDEXES,
    FileKind.META_INDEX_FILE: INDEXES,
    FileKind.ARCHIVE_INDEX: INDEXES,
    FileKind.SYS_PG_LIST: LISTS,
    FileKind.NORMAL_PG_LIST: LISTS,
    FileKind.TENANT_LOCALITY_INFO: LISTS,
    FileKind.TENANT_DIAGNOSE_INFO: LISTS,
    FileKind.MANIFEST: LISTS,
    FileKind.SET_FILE_INFO: LISTS,
}
# Written anew by their owner; and log files that grow in place.
_MUTABLE = {FileKind.CLOG_INFO, FileKind.MOUNT_FILE, FileKind.KEY_RING}
_GROWING = {FileKind.ARCHIVE_DATA, FileKind.ARCHIVE_INDEX}
_UNDER_WAY = {ArchiveStatus.BEGINNING, ArchiveStatus.DOING, ArchiveStatus.STOPPING}
# Published from what was read before the files were listed, or not part of a copy at all.
_PUBLISHED = {
    FileKind.ROUND_RECORD,
    FileKind.CLUSTER_RECORD,
    FileKind.SINGLE_PIECE_INFO,
    FileKind.STOP_REQUEST,
    FileKind.BACKUP_SET_INFO,
    FileKind.WRITTEN,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of a tree. Nothing said: all of it."""

    sets: frozenset[int] = frozenset()
    archive: bool = False

    @property
    def everything(self) -> bool:
        return not self.sets and not self.archive

    def has_set(self, number: int) -> bool:
        return self.everything or number in self.sets

    @property
    def has_log(self) -> bool:
        return self.everything or self.archive


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that belongs to the copy."""

    file: TreeFile
    tenant_id: int
    by_mover: bool
    backup: int | None = None  # the backup that wrote it
    round_id: int | None = None
    growing: bool = False  # somebody may be appending to it: only what is whole of it is copied

    @property
    def path(self) -> str:
        return self.file.path

    @property
    def rank(self) -> int:
        return _RANKS.get(self.file.place.kind, BYTES)

    @property
    def mutable(self) -> bool:
        """Its owner writes it anew now and then."""
        return self.file.place.kind in _MUTABLE


@dataclass(slots=True)
class CopyPlan:
    """The decision about each file."""

    copy: list[Wanted] = field(default_factory=list)
    replace: list[Wanted] = field(default_factory=list)  # there from an earlier copy, and grown since
    prove: list[Wanted] = field(default_factory=list)  # there, but no record says that it is equal
    kept: list[Wanted] = field(default_factory=list)  # there and proven
    conflicts: list[Wanted] = field(default_factory=list)  # another file is there under this name

    @property
    def bytes_to_copy(self) -> int:
        return sum(item.file.size for item in (*self.copy, *self.replace))

    def as_json(self) -> dict[str, Any]:
        return {
            "files": len(self.copy) + len(self.replace),
            "bytes": self.bytes_to_copy,
            "files_to_compare": len(self.prove),
            "files_there": len(self.kept),
            "conflicts": [item.path for item in self.conflicts],
        }


def closure(infos: Sequence[BackupInfo], numbers: Iterable[int]) -> set[int]:
    """These backups and all that they build on."""
    by_id = {info.inc_backup_set_id: info for info in infos}
    found: set[int] = set()
    waiting = list(numbers)
    while waiting:
        number = waiting.pop()
        if number in found or number not in by_id:
            continue
        found.add(number)
        link = by_id[number]
        waiting += [link.prev_inc_backup_set_id, link.full_backup_set_id]
    return found


def complete_sets(infos: Sequence[BackupInfo], selection: Selection) -> set[int]:
    """The backups that a copy publishes: finished, not being deleted, selected. With --set, what they build on too."""
    finished = {i.inc_backup_set_id for i in infos if i.status == BackupStatus.SUCCESS and not i.is_mark_deleted}
    chosen = {number for number in finished if selection.has_set(number)}
    return closure(infos, chosen) & finished


def spoiled(infos: Sequence[BackupInfo], damaged: Iterable[int]) -> set[int]:
    """The backups that cannot be whole when files of ``damaged`` ones are not."""
    bad = set(damaged)
    return {info.inc_backup_set_id for info in infos if closure(infos, [info.inc_backup_set_id]) & bad}


def select(tree: BackupTree, infos: Mapping[tuple[str, int], TenantInfos], selection: Selection) -> Iterator[Wanted]:
    """Every file of the copy, in no order.

    Args:
        tree: listed after ``infos`` were read: then all log that they promise is in it.
        infos: of each tenant.
    """
    for key, tenant in tree.tenants.items():
        known = infos.get(key)
        if known is None:
            continue
        published = complete_sets(known.backups, selection)
        numbers = closure(known.backups, published)
        for found in tenant.sets.values():
            yield from _of_set(tenant, found, numbers)
        if selection.has_log:
            status = {info.round_id: info.status for info in known.rounds if not info.is_mark_deleted}
            # The sys tenant of OceanBase has no log and no list of its own, only a mount_file per round.
            own = bool(known.rounds)
            for round_id, pieces in tenant.rounds().items():
                if round_id in status or not own:
                    yield from _of_round(tenant, pieces, status.get(round_id, ArchiveStatus.STOP))
    for file in tree.cluster_files.values():
        # Without the key ring nothing that is encrypted can be read.
        if file.place.kind is FileKind.KEY_RING or (file.place.kind is FileKind.CLOG_INFO and selection.has_log):
            yield Wanted(file, 0, by_mover=file.place.kind is FileKind.KEY_RING)


def _of_set(tenant: TenantTree, found: SetDir, numbers: set[int]) -> Iterator[Wanted]:
    for number, files in found.backups.items():
        if number in numbers:
            yield from (Wanted(f, tenant.tenant_id, tenant.by_mover, number) for f in files.values())
    for macro in found.macro.values():
        for (number, _), file in macro.files.items():
            if number in numbers:
                yield Wanted(file, tenant.tenant_id, tenant.by_mover, number)
        for number, indexes in macro.indexes.items():
            if number in numbers:
                yield from (Wanted(f, tenant.tenant_id, tenant.by_mover, number) for f in indexes.values())


def _of_round(tenant: TenantTree, pieces: list[PieceDir], status: int) -> Iterator[Wanted]:
    for piece in pieces:
        last = piece is pieces[-1] and status in _UNDER_WAY
        for file in piece.others.values():
            if file.place.kind not in _PUBLISHED:
                yield Wanted(file, tenant.tenant_id, tenant.by_mover, round_id=piece.round_id)
        for log in piece.pgs.values():
            if log.key is not None:
                yield Wanted(log.key, tenant.tenant_id, tenant.by_mover, round_id=piece.round_id)
            for files in (log.data, log.index):
                newest = max(files, default=0)
                for number, file in files.items():
                    yield Wanted(
                        file,
                        tenant.tenant_id,
                        tenant.by_mover,
                        round_id=piece.round_id,
                        growing=last and number == newest,
                    )


def decide(wanted: Iterable[Wanted], there: Mapping[str, ObjectInfo], journal: Mapping[str, Copied]) -> CopyPlan:
    """What is to be done about each file.

    Args:
        there: the files at the copy. journal: what earlier copies proved about them.
    """
    plan = CopyPlan()
    for item in wanted:
        found, known = there.get(item.path), journal.get(item.path)
        kind, file = item.file.place.kind, item.file
        if found is None:
            plan.copy.append(item)
        elif known is not None and known.size == found.size:
            same = (known.source_size, known.source_modified_us) == (file.size, file.modified_us)
            if same:
                plan.kept.append(item)
            elif kind in _MUTABLE or (kind in _GROWING and file.size >= known.size):
                plan.replace.append(item)
            else:
                plan.prove.append(item)
        elif kind in _MUTABLE:
            plan.replace.append(item)
        elif found.size == file.size or (kind in _GROWING and found.size < file.size):
            plan.prove.append(item)
        else:
            plan.conflicts.append(item)
    for items in (plan.copy, plan.replace, plan.prove):
        items.sort(key=lambda item: (item.rank, item.path))
    return plan


__all__ = [
    "BYTES",
    "INDEXES",
    "LISTS",
    "CopyPlan",
    "Selection",
    "Wanted",
    "closure",
    "complete_sets",
    "decide",
    "select",
    "spoiled",
]
