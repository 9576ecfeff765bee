"""The info files of a copy: read before its files are listed, published when those are all there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mover.errors import IntegrityError, TargetError, TargetNotFound
from mover.media.header import DataType
from mover.media.inspect import describe
from mover.media.layout import CLUSTER_RECORD_NAME, ROUND_RECORD_NAME, FileKind, Layout, parse_path
from mover.media.manifest import ManifestFile, read_manifest
from mover.recovery.copy_lists import merge_list
from mover.recovery.copy_plan import Selection, closure, complete_sets
from mover.recovery.findings import Damage
from mover.recovery.foreign_infos import TenantInfos, load_tenant
from mover.recovery.foreign_tree import BackupTree, TenantTree, TreeFile, scan_tree
from mover.target.base import Target

# The order of publication: what is inside a set or round, then names, then the lists of a tenant, then the cluster's.
_ORDER = (
    FileKind.BACKUP_SET_INFO,
    FileKind.ROUND_RECORD,
    FileKind.CLUSTER_RECORD,
    FileKind.SINGLE_PIECE_INFO,
    FileKind.TENANT_NAME_INFO,
    FileKind.TENANT_INFO,
    FileKind.TENANT_PIECE_INFO,
    FileKind.TENANT_CLOG_BACKUP_INFO,
    FileKind.SET_FILE_INFO,
    FileKind.TENANT_DATA_BACKUP_INFO,
    FileKind.CLUSTER_PIECE_INFO,
    FileKind.CLUSTER_CLOG_BACKUP_INFO,
    FileKind.CLUSTER_DATA_BACKUP_INFO,
)
_LISTS = {
    FileKind.BACKUP_SET_INFO: DataType.BACKUP_SET_INFO,
    FileKind.TENANT_PIECE_INFO: DataType.PIECE_INFO,
    FileKind.CLUSTER_PIECE_INFO: DataType.PIECE_INFO,
    FileKind.TENANT_CLOG_BACKUP_INFO: DataType.LOG_ARCHIVE_BACKUP_INFO,
    FileKind.CLUSTER_CLOG_BACKUP_INFO: DataType.LOG_ARCHIVE_BACKUP_INFO,
    FileKind.TENANT_DATA_BACKUP_INFO: DataType.BACKUP_INFO,
    FileKind.CLUSTER_DATA_BACKUP_INFO: DataType.BACKUP_INFO,
}
_RECORDS = {FileKind.ROUND_RECORD, FileKind.CLUSTER_RECORD}
_LOG_KINDS = {
    *_RECORDS,
    FileKind.SINGLE_PIECE_INFO,
    FileKind.TENANT_PIECE_INFO,
    FileKind.CLUSTER_PIECE_INFO,
    FileKind.TENANT_CLOG_BACKUP_INFO,
    FileKind.CLUSTER_CLOG_BACKUP_INFO,
}
_SET_KINDS = {
    FileKind.BACKUP_SET_INFO,
    FileKind.SET_FILE_INFO,
    FileKind.TENANT_DATA_BACKUP_INFO,
    FileKind.CLUSTER_DATA_BACKUP_INFO,
}


@dataclass(slots=True)
class Snapshot:
    """The info files of the source at one time, whole, and what those of the tenants say."""

    files: dict[str, bytes] = field(default_factory=dict)  # by path
    tenants: dict[tuple[str, int], TenantTree] = field(default_factory=dict)
    infos: dict[tuple[str, int], TenantInfos] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)


async def take_snapshot(source: Target) -> Snapshot:
    """Read the info files of a tree. The tenants' are read before the cluster's: those promise the least."""
    snapshot = Snapshot()
    tree = scan_tree([info async for info in source.list("")])
    snapshot.tenants = tree.tenants
    paths = [
        file.path
        for tenant in tree.tenants.values()
        for file in (
            *tenant.infos.values(),
            *(s.info for s in tenant.sets.values() if s.info is not None),
            *(p.info for p in tenant.pieces.values() if p.info is not None),
            *(f for p in tenant.pieces.values() for f in p.others.values() if f.place.kind in _RECORDS),
        )
    ]
    paths += [file.path for file in tree.cluster_files.values() if file.place.kind in _ORDER]
    # The round records last of a tenant's: its list has a checkpoint that the record's is not behind.
    for path in sorted(paths, key=lambda path: path.rpartition("/")[2] in (ROUND_RECORD_NAME, CLUSTER_RECORD_NAME)):
        try:
            snapshot.files[path] = await source.get(path)
        except TargetNotFound:
            continue  # it went between the two calls, as the record of a deleted round may
    held = _Held(snapshot.files)
    for path, data in snapshot.files.items():
        place = parse_path(path)
        own = place is not None and place.kind not in {
            FileKind.TENANT_DATA_BACKUP_INFO,
            FileKind.TENANT_CLOG_BACKUP_INFO,
            FileKind.TENANT_PIECE_INFO,
            FileKind.SINGLE_PIECE_INFO,
        }
        if place is not None and own and not (found := describe(path, data))["ok"]:
            error = found.get("error") or {"message": "it does not decode"}
            where = {"sets": [place.full_set]} if place.kind is FileKind.BACKUP_SET_INFO else {}
            text = f"{path}: {error['message']}"
            snapshot.damages.append(Damage(path, int(error.get("offset") or 0), "FormatError", text, where))
    for key, tenant in tree.tenants.items():
        infos = await load_tenant(held, tenant, lambda _path, _size: None)  # type: ignore[arg-type]
        snapshot.damages += infos.findings.damages
        snapshot.infos[key] = infos
    return snapshot


class _Held:
    """The files of a snapshot, where a destination is read from."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    async def get(self, path: str) -> bytes:
        if path not in self._files:
            raise TargetNotFound(f"{path}: missing at the source", path=path)
        return self._files[path]


async def expected_files(
    source: Target, snapshot: Snapshot, selection: Selection, tree: BackupTree
) -> tuple[dict[str, ManifestFile], list[Damage]]:
    """What the manifests of mover's sets say about files, by path; and which of those are missing.

    A manifest that does not decode is left to the copy of the file itself.
    """
    there = {f.path for t in tree.tenants.values() for f in _files(t)}
    rows: dict[str, ManifestFile] = {}
    damages: list[Damage] = []
    for key, infos in snapshot.infos.items():
        tenant = snapshot.tenants[key]
        if not tenant.by_mover:
            continue
        layout = Layout(tenant.cluster_name, tenant.cluster_id)
        for info in infos.backups:
            if info.inc_backup_set_id not in closure(infos.backups, complete_sets(infos.backups, selection)):
                continue
            path = layout.manifest(tenant.tenant_id, info.full_backup_set_id, info.inc_backup_set_id)
            found = tenant.find_backup(info.full_backup_set_id, info.inc_backup_set_id)
            if found is None or "mover_manifest" not in found.backups[info.inc_backup_set_id]:
                where = {"tenant_id": tenant.tenant_id, "sets": [info.inc_backup_set_id]}
                damages.append(Damage(path, 0, "TargetNotFound", f"{path} is missing at the source", where))
                continue
            try:
                manifest = read_manifest(await source.get(path), locked=True)
            except IntegrityError:
                continue  # the copy of the file says so, with its place
            for row in manifest.files:
                name = layout.absolute(row.path)
                rows[name] = row
                if name not in there:
                    where = {"tenant_id": tenant.tenant_id, "sets": [info.inc_backup_set_id]}
                    damages.append(Damage(name, 0, "TargetNotFound", f"{name} is missing at the source", where))
    return rows, damages


def _files(tenant: TenantTree) -> Iterator[TreeFile]:
    for found in tenant.sets.values():
        if found.info is not None:
            yield found.info
        for files in found.backups.values():
            yield from files.values()
        for macro in found.macro.values():
            yield from macro.files.values()
            for indexes in macro.indexes.values():
                yield from indexes.values()


async def publish(
    destination: Target,
    snapshot: Snapshot,
    selection: Selection,
    bad: Mapping[tuple[str, int], set[int]],
    notes: list[str],
) -> None:
    """Publish the info files, each confirmed. Idempotent.

    Args:
        bad: the backups of each tenant that are not published.
        notes: takes what was left out and why.

    Raises PreconditionError when the destination lists another thing under the same number.
    """
    chosen = {
        key: complete_sets(infos.backups, selection) - bad.get(key, set()) for key, infos in snapshot.infos.items()
    }
    spoilt = {(key[0], number) for key, numbers in bad.items() for number in numbers}
    placed = []
    for path, data in snapshot.files.items():
        place = parse_path(path)
        if place is not None and place.kind in _ORDER:
            placed.append((_ORDER.index(place.kind), path, place, data))
    for _, path, place, content in sorted(placed, key=lambda item: item[:2]):
        if place.kind in _LOG_KINDS and not selection.has_log:
            continue
        if place.kind in _SET_KINDS and not (selection.everything or selection.sets):
            continue
        key = (place.incarnation_dir, place.tenant_id or 0)
        keys: Iterable[object] | None = None
        if place.kind is FileKind.SET_FILE_INFO:
            if not selection.everything or spoilt:
                notes.append(f"{path}: not published, its members are not known and not all sets are in the copy")
                continue
        elif place.kind in {FileKind.BACKUP_SET_INFO, FileKind.TENANT_DATA_BACKUP_INFO}:
            keys = chosen.get(key, set())
        elif place.kind is FileKind.CLUSTER_DATA_BACKUP_INFO:
            of_cluster = [numbers for other, numbers in chosen.items() if other[0] == key[0]]
            keys = set().union(*of_cluster) - {number for base, number in spoilt if base == key[0]}
        elif place.kind in {FileKind.TENANT_CLOG_BACKUP_INFO, FileKind.CLUSTER_CLOG_BACKUP_INFO}:
            keys = None  # all of them: a round says of itself what it is at
        there = await _there(destination, path)
        if place.kind in _LISTS:
            try:
                merged = merge_list(path, content, there, _LISTS[place.kind], keys)
            except IntegrityError as exc:
                notes.append(f"{path}: not published: {exc.message}")
                continue
            if merged is None:
                continue
            data = merged
        else:
            data = content
        if there == data or any(damage.path == path for damage in snapshot.damages):
            continue
        await destination.put(path, data)
        if await destination.get(path) != data:
            raise TargetError(f"{path}: {destination.url} does not have what was just written", path=path)


async def _there(destination: Target, path: str) -> bytes | None:
    try:
        return await destination.get(path)
    except TargetNotFound:
        return None
