"""The shape of a backup tree, from the names of its files alone: clusters, tenants, sets, rounds, pieces, PGs.

Pure. Knows the three layouts that OceanBase has written: 2.2.6x (macro files directly below a PG), 3.1.0
(``major_data`` and ``minor_data``), and 2.2.77 / later 3.1.x (each backup in a directory of its own, called
``backup_set_<id>_<full|inc>_<date>``, and rounds split into ``<round>_<piece>_<date>``). The number in ``compatible``
does not tell them apart; the directories do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mover.media.layout import FileKind, MediaPath, parse_path
from mover.target.base import ObjectInfo

_MOVERS = {FileKind.MANIFEST, FileKind.ROUND_RECORD}
_SET_FILES = {
    FileKind.META_FILE,
    FileKind.META_INDEX_FILE,
    FileKind.SYS_PG_LIST,
    FileKind.NORMAL_PG_LIST,
    FileKind.TENANT_LOCALITY_INFO,
    FileKind.TENANT_DIAGNOSE_INFO,
    FileKind.MANIFEST,
    FileKind.SET_FILE_INFO,
}
_LOG_FILES = {FileKind.ARCHIVE_DATA: "data", FileKind.ARCHIVE_INDEX: "index"}

PG = tuple[int, int]
"""Table or tablegroup id, and partition id, as directory names have them."""


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of the tree."""

    path: str
    size: int
    place: MediaPath
    modified_us: int = 0


@dataclass(slots=True)
class MacroDir:
    """A directory of macro files and their indexes: of one PG, one kind, one set directory."""

    path: str
    pg: PG
    files: dict[tuple[int, int], TreeFile] = field(default_factory=dict)  # by (backup, sub)
    indexes: dict[int, dict[int, TreeFile]] = field(default_factory=dict)  # by backup, then retry


@dataclass(slots=True)
class SetDir:
    """``backup_set_...``: in the older layouts a full backup with its incrementals, later one backup."""

    path: str
    number: int  # of the name
    set_type: str | None = None  # later layout: "full" or "inc"
    date: int | None = None
    backups: dict[int, dict[str, TreeFile]] = field(default_factory=dict)  # by backup number, then file name
    macro: dict[str, MacroDir] = field(default_factory=dict)  # by path
    info: TreeFile | None = None  # backup_set_info
    bytes: int = 0

    @property
    def independent(self) -> bool:
        """Each backup has a directory of its own, and incrementals point into other directories."""
        return self.set_type is not None


@dataclass(slots=True)
class PgLog:
    """The archived log of a PG in a round or piece, as files."""

    pg: PG
    directory: str  # of its data files
    index_directory: str
    data: dict[int, TreeFile] = field(default_factory=dict)  # by file id
    index: dict[int, TreeFile] = field(default_factory=dict)
    key: TreeFile | None = None

    @property
    def pg_name(self) -> str:
        return f"{self.pg[0]}/{self.pg[1]}"


@dataclass(slots=True)
class PieceDir:
    """The directory of a round, or of one piece of it (``piece_id`` 0: pieces are not switched)."""

    path: str
    round_id: int
    piece_id: int = 0
    date: int | None = None
    pgs: dict[PG, PgLog] = field(default_factory=dict)
    info: TreeFile | None = None  # single_piece_info
    others: dict[str, TreeFile] = field(default_factory=dict)  # mount_file, mover's own; by name
    bytes: int = 0


@dataclass(slots=True)
class TenantTree:
    """What is there of one tenant."""

    incarnation_dir: str
    cluster_name: str
    cluster_id: int
    tenant_id: int
    by_mover: bool = False  # a manifest or a round record says so
    sets: dict[str, SetDir] = field(default_factory=dict)  # by path
    pieces: dict[str, PieceDir] = field(default_factory=dict)  # by path
    infos: dict[str, TreeFile] = field(default_factory=dict)  # files directly in data/ and clog/, by name

    def rounds(self) -> dict[int, list[PieceDir]]:
        """The directories of each round, by piece number."""
        found: dict[int, list[PieceDir]] = {}
        for piece in sorted(self.pieces.values(), key=lambda p: (p.round_id, p.piece_id)):
            found.setdefault(piece.round_id, []).append(piece)
        return found

    def find_backup(self, full_set: int, inc_set: int) -> SetDir | None:
        """The directory that holds a backup: ``backup_set_<full>``, or in the later layout its own."""
        for found in self.sets.values():
            if found.number == (inc_set if found.independent else full_set) and inc_set in found.backups:
                return found
        return None

    def pg_keys(self) -> list[PG]:
        """Every PG that has macro files or log."""
        found = {macro.pg for s in self.sets.values() for macro in s.macro.values()}
        return sorted(found.union(*(piece.pgs for piece in self.pieces.values())))


@dataclass(slots=True)
class BackupTree:
    """A whole destination. ``others`` are files that no rule of the tree names."""

    tenants: dict[tuple[str, int], TenantTree] = field(default_factory=dict)  # by (incarnation directory, tenant)
    cluster_files: dict[str, TreeFile] = field(default_factory=dict)  # by path
    others: list[ObjectInfo] = field(default_factory=list)


def scan_tree(files: Iterable[ObjectInfo]) -> BackupTree:
    """The tree that these files make. Memory grows with the number of files, not with their size."""
    tree = BackupTree()
    for info in files:
        place = parse_path(info.path)
        if place is None:
            tree.others.append(info)
        elif place.kind is not FileKind.TEMPORARY:
            _add(tree, TreeFile(info.path, info.size, place, info.modified_us))
    return tree


def _add(tree: BackupTree, file: TreeFile) -> None:
    place = file.place
    if place.tenant_id is None:
        tree.cluster_files[file.path] = file
        return
    base = place.incarnation_dir
    tenant = tree.tenants.get((base, place.tenant_id))
    if tenant is None:
        tenant = TenantTree(base, place.cluster_name or "", place.cluster_id or 0, place.tenant_id)
        tree.tenants[base, place.tenant_id] = tenant
    tenant.by_mover |= place.kind in _MOVERS
    unit = place.unit_dir
    if unit is None:
        tenant.infos[file.path.rpartition("/")[2]] = file
    elif place.round_id is not None:
        _add_log(tenant, unit, file)
    else:
        _add_set(tenant, unit, file)


def _add_log(tenant: TenantTree, unit: str, file: TreeFile) -> None:
    place = file.place
    piece = tenant.pieces.get(unit)
    if piece is None:
        piece = PieceDir(unit, place.round_id or 0, place.piece_id or 0, place.piece_date)
        tenant.pieces[unit] = piece
    piece.bytes += file.size
    if place.kind is FileKind.SINGLE_PIECE_INFO:
        piece.info = file
    elif place.table_id is None:
        piece.others[file.path.rpartition("/")[2]] = file
    if place.table_id is None or place.partition_id is None:
        return
    pg = (place.table_id, place.partition_id)
    log = piece.pgs.get(pg)
    if log is None:
        log = piece.pgs[pg] = PgLog(pg, f"{unit}/data/{pg[0]}/{pg[1]}", f"{unit}/index/{pg[0]}/{pg[1]}")
    if place.kind in _LOG_FILES:
        getattr(log, _LOG_FILES[place.kind])[place.file_id or 0] = file
    else:
        log.key = file


def _add_set(tenant: TenantTree, unit: str, file: TreeFile) -> None:
    place = file.place
    found = tenant.sets.get(unit)
    if found is None:
        found = SetDir(unit, place.full_set or 0, place.set_type, place.set_date)
        tenant.sets[unit] = found
    found.bytes += file.size
    directory, _, name = file.path.rpartition("/")
    if place.kind is FileKind.BACKUP_SET_INFO:
        found.info = file
    elif place.kind in _SET_FILES:
        number = found.number if place.inc_set is None else place.inc_set
        found.backups.setdefault(number, {})[name] = file
    elif place.kind in (FileKind.MACRO_BLOCK, FileKind.MACRO_BLOCK_INDEX):
        macro = found.macro.get(directory)
        if macro is None:
            macro = found.macro[directory] = MacroDir(directory, (place.table_id or 0, place.partition_id or 0))
        if place.kind is FileKind.MACRO_BLOCK:
            macro.files[place.inc_set or 0, place.sub or 0] = file
        else:
            macro.indexes.setdefault(place.inc_set or 0, {})[place.retry or 0] = file


def in_order(numbers: Iterable[int], first: int) -> Iterator[tuple[int, int, bool]]:
    """The numbers from ``first`` up, and the gaps between them: (first, last, there)."""
    due = first
    for number in sorted(numbers):
        if number > due:
            yield due, number - 1, False
        yield number, number, True
        due = number + 1


def layout_name(found: SetDir) -> str:
    """Which generation wrote a set directory, by its shape."""
    if found.independent:
        return "2.2.77/3.1.x"
    split = any("/major_data" in path or "/minor_data/" in path for path in found.macro)
    return "3.1.0" if split or not found.macro else "2.2.6x"


def summarize(tree: BackupTree) -> dict[str, Any]:
    """The tree as `mover inspect` shows it."""
    clusters: dict[str, dict[str, Any]] = {}
    for tenant in sorted(tree.tenants.values(), key=lambda t: (t.incarnation_dir, t.tenant_id)):
        cluster = clusters.setdefault(
            tenant.incarnation_dir,
            {"cluster_name": tenant.cluster_name, "cluster_id": tenant.cluster_id, "tenants": []},
        )
        cluster["tenants"].append(
            {
                "tenant_id": tenant.tenant_id,
                "by_mover": tenant.by_mover,
                "sets": list(_sets(tenant)),
                "rounds": [_round(number, pieces) for number, pieces in tenant.rounds().items()],
                "pgs": [{"table_id": table, "partition_id": partition} for table, partition in tenant.pg_keys()],
            }
        )
    return {"clusters": list(clusters.values()), "other_files": len(tree.others)}


def _sets(tenant: TenantTree) -> Iterator[dict[str, Any]]:
    for found in sorted(tenant.sets.values(), key=lambda s: (s.number, s.path)):
        yield {
            "path": found.path,
            "backup_set_id": found.number,
            "layout": layout_name(found),
            "type": found.set_type,
            "date": found.date,
            "backups": sorted(found.backups),
            "pg_count": len({macro.pg for macro in found.macro.values()}),
            "bytes": found.bytes,
        }


def _round(number: int, pieces: list[PieceDir]) -> dict[str, Any]:
    return {
        "round": number,
        "pieces": [
            {
                "path": piece.path,
                "piece": piece.piece_id,
                "date": piece.date,
                "pg_count": len(piece.pgs),
                "bytes": piece.bytes,
            }
            for piece in pieces
        ],
    }
