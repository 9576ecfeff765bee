"""Backup sets at the destination: which there are, what they hold, and where each block of them is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from mover.errors import FormatError, IntegrityError, TargetNotFound
from mover.kernel import xxh3_128
from mover.media.backup_info import (
    BackupInfo,
    BackupStatus,
    decode_backup_infos,
    encode_backup_infos,
)
from mover.media.frames import iter_frames
from mover.media.header import DataType
from mover.media.layout import SYS_TENANT_ID
from mover.media.macro import iter_macro_index
from mover.media.manifest import Manifest, ManifestBlock, ManifestFile, ManifestReader, SetFacts, read_manifest
from mover.media.sealed import Opening
from mover.media.set_info import BackupSetInfo, decode_set_infos
from mover.repository.placement import Placement
from mover.repository.tree import Repository, decode_named, name_file, read_again
from mover.store.base import BlockIdentity

_FACTS_READ = 64 << 10


@dataclass(frozen=True, slots=True)
class LoadedSet:
    """A complete set: its facts, its files, and the placement of each block, in manifest order."""

    info: BackupInfo
    facts: SetFacts
    files: tuple[ManifestFile, ...]
    placements: tuple[Placement, ...]
    manifest_path: str

    def by_index(self) -> dict[int, Placement]:
        """Placements by block index."""
        return {placement.identity.block_index: placement for placement in self.placements}


async def load_infos(repository: Repository) -> tuple[BackupInfo, ...]:
    """Every backup of the tenant, oldest first, failed and running ones too."""
    path = repository.layout.tenant_data_backup_info(repository.tenant_id)
    return await repository.read(path, partial(decode_backup_infos, strict=repository.strict)) or ()


async def load_cluster_infos(repository: Repository) -> tuple[BackupInfo, ...]:
    """The cluster-level list, which numbers backups together with the tenants' lists."""
    return await repository.read(repository.layout.cluster_data_backup_info(), decode_backup_infos) or ()


async def publish_infos(repository: Repository, infos: tuple[BackupInfo, ...]) -> None:
    """Rewrite the tenant's list, and the cluster's (which repeats tenant 1's) when this is tenant 1."""
    data = encode_backup_infos(infos)
    paths = [repository.layout.tenant_data_backup_info(repository.tenant_id)]
    if repository.tenant_id == SYS_TENANT_ID:
        paths.append(repository.layout.cluster_data_backup_info())
    await repository.write_all(paths, data)


async def publish_cluster_infos(repository: Repository, infos: tuple[BackupInfo, ...]) -> None:
    """Rewrite the cluster's list alone: in a cluster of several tenants the sys tenant has no sets of its own."""
    await repository.write(repository.layout.cluster_data_backup_info(), encode_backup_infos(infos))


def complete(infos: tuple[BackupInfo, ...]) -> list[BackupInfo]:
    """The backups that ended well and are not being deleted."""
    return [info for info in infos if info.status == BackupStatus.SUCCESS and not info.is_mark_deleted]


async def load_set_infos(repository: Repository, full_set: int) -> tuple[BackupSetInfo, ...]:
    """``backup_set_info`` of a full set: one record per finished backup in it."""
    return (
        await repository.read(repository.layout.backup_set_info(repository.tenant_id, full_set), decode_set_infos) or ()
    )


def manifest_path(repository: Repository, info: BackupInfo) -> str:
    """Where the manifest of a backup is."""
    return repository.layout.manifest(repository.tenant_id, info.full_backup_set_id, info.inc_backup_set_id)


async def load_facts(repository: Repository, info: BackupInfo) -> SetFacts | None:
    """The facts of a set, None when it has no manifest (OceanBase wrote it, or it never got that far)."""
    path = manifest_path(repository, info)
    found = await repository.target.stat(path)
    if found is None:
        return None
    length = min(found.size, _FACTS_READ)

    async def once() -> SetFacts:
        data = await repository.target.get(path, 0, length)
        try:
            reader = ManifestReader(locked=True)
            reader.feed(data)
            try:
                return reader.facts
            except FormatError:
                # Facts larger than the first read: parameters and proofs are open-ended.
                return read_manifest(await repository.target.get(path), locked=True).facts
        except IntegrityError as exc:
            raise name_file(exc, path) from None

    return await read_again(once)


async def load_set(repository: Repository, info: BackupInfo) -> LoadedSet:
    """Read and cross-check manifest and macro index of a complete set.

    Raises:
        IntegrityError: either does not decode, does not match its digest, or they do not describe the same blocks.
        EncryptionKeyError: the set is encrypted, and its key is not at hand.
    """
    path, manifest = await _manifest(repository, info, locked=False)
    facts = manifest.facts
    index = repository.layout.macro_block_index(
        repository.tenant_id, facts.full_backup_set_id, facts.pg, facts.backup_set_id
    )
    index_data = await read_checked(repository, manifest.files, index)
    opening = Opening.of(index, repository.keys) if facts.key_id else None
    try:
        placements = await asyncio.to_thread(_join, manifest, index_data, opening)
    except IntegrityError as exc:
        raise name_file(exc, index) from None
    return LoadedSet(info, facts, manifest.files, placements, path)


async def load_locked_set(repository: Repository, info: BackupInfo) -> LoadedSet:
    """What of an encrypted set is there without its key: facts and files, no placements. Raises IntegrityError."""
    path, manifest = await _manifest(repository, info, locked=True)
    return LoadedSet(info, manifest.facts, manifest.files, (), path)


async def _manifest(repository: Repository, info: BackupInfo, *, locked: bool) -> tuple[str, Manifest]:
    path = manifest_path(repository, info)
    decode = partial(read_manifest, opening=Opening.of(path, repository.keys), locked=locked)

    async def once() -> Manifest | None:
        try:
            data = await repository.target.get(path)
        except TargetNotFound:
            return None
        return await asyncio.to_thread(decode_named, path, data, decode)

    manifest = await read_again(once)
    if manifest is None:
        raise IntegrityError(
            f"{path}: backup set {info.inc_backup_set_id} is complete, but its manifest is missing",
            path=path,
            hint="only sets that mover wrote can be restored by mover",
        )
    facts = manifest.facts
    if (facts.backup_set_id, facts.full_backup_set_id, facts.tenant_id) != (
        info.inc_backup_set_id,
        info.full_backup_set_id,
        repository.tenant_id,
    ):
        raise IntegrityError(f"{path}: the manifest is of backup set {facts.backup_set_id}", path=path)
    return path, manifest


async def read_checked(repository: Repository, files: tuple[ManifestFile, ...], path: str) -> bytes:
    """A whole file of a set, equal to what the manifest says. Raises IntegrityError naming it."""
    relative = repository.layout.relative(path)
    row = next((file for file in files if file.path == relative), None)
    if row is None:
        raise IntegrityError(f"{path}: not in the manifest of its set", path=path)

    def checked(data: bytes) -> bytes:
        check_digest(row, path, len(data), xxh3_128(data))
        return data

    found = await repository.read(path, checked)
    if found is None:
        raise IntegrityError(f"{path}: missing at the destination", path=path)
    return found


def check_digest(row: ManifestFile, path: str, size: int, digest: bytes) -> None:
    """Raises IntegrityError unless size and digest are the manifest's."""
    if size != row.size:
        raise IntegrityError(
            f"{path}: {size} bytes, the manifest says {row.size}", path=path, offset=min(size, row.size)
        )
    if digest != row.digest:
        raise IntegrityError(f"{path}: digest {digest.hex()}, the manifest says {row.digest.hex()}", path=path)


def manifest_block(placement: Placement) -> ManifestBlock:
    """The manifest's row of a placement."""
    identity = placement.identity
    return ManifestBlock(
        identity.block_index,
        identity.kind,
        identity.used_length,
        identity.tablet_id,
        identity.logical_version,
        identity.data_seq,
        identity.payload_checksum,
        placement.digest,
    )


def _join(manifest: Manifest, index_data: bytes, opening: Opening | None) -> tuple[Placement, ...]:
    """Index entries and manifest rows, by position; the identity in both must agree."""
    placements: list[Placement] = []
    rows = iter(manifest.blocks)
    frames = iter_frames(index_data, data_type=DataType.MACRO_DATA_INDEX, opening=opening)
    for head, entry in iter_macro_index(frames):
        if entry is None:
            continue
        row = next(rows, None)
        if row is None:
            raise IntegrityError(f"the index has more blocks than the manifest's {len(manifest.blocks)}")
        if row.kind == 1 and (head.table_key.table_id, entry.data_version, entry.data_seq) != (
            row.tablet_id,
            row.logical_version,
            row.data_seq,
        ):
            raise IntegrityError(
                f"entry {entry.sstable_macro_index} of tablet {head.table_key.table_id} is block {row.block_index}"
                f" of tablet {row.tablet_id} in the manifest"
            )
        identity = BlockIdentity(*row[:7])
        placements.append(
            Placement(identity, row.digest, entry.backup_set_id, entry.sub_task_id, entry.offset, entry.data_length)
        )
    if next(rows, None) is not None:
        raise IntegrityError(f"the index has {len(placements)} blocks, the manifest {len(manifest.blocks)}")
    return tuple(placements)
