"""A PG's part of a backup set: macro files, macro index, meta files, and last the manifest that vouches for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mover.datapath.compression import Compression
from mover.datapath.intake import PackCounters
from mover.datapath.packing import Packing
from mover.datapath.processes import MacroSpace
from mover.encryption.cipher import CIPHER, DataKey, Sealer
from mover.errors import IntegrityError
from mover.kernel import xxh3_128
from mover.media.macro import MacroIndex, MacroIndexWriter, group_key
from mover.media.manifest import ManifestRoot, ManifestWriter, SetFacts
from mover.media.meta import (
    MetaType,
    MetaWriter,
    StoreExtents,
    catalog_bodies,
    encode_description,
    extent_bodies,
)
from mover.media.pg import PGKey
from mover.media.sealed import Sealing, place_of
from mover.repository.placement import Placement, WrittenFile
from mover.repository.sets import LoadedSet, manifest_block
from mover.repository.tree import Repository
from mover.repository.unfinished import Unfinished
from mover.store.base import Capture, CaptureResult, StoreIdentity

BLOCK_FILE = "sstable/block_file"


@dataclass(frozen=True, slots=True)
class SetJob:
    """What is decided about a set before a byte is read. ``task_id`` is the number in meta file names."""

    full_set: int
    backup_set_id: int
    prev_set: int  # 0 for a full
    backup_type: int
    task_id: int
    log_round: int
    started_us: int
    compression: Compression
    key: DataKey | None = None  # encrypts the set


@dataclass(frozen=True, slots=True)
class SetReceipt:
    """What was written."""

    facts: SetFacts
    counters: PackCounters
    macro_block_count: int
    reused_macro_block_count: int
    meta_bytes: int
    output_bytes: int
    root: ManifestRoot


class SetWriter:
    """Writes one PG of one set. Nothing it writes has a name that an earlier attempt used."""

    def __init__(self, repository: Repository, identity: StoreIdentity, job: SetJob, packing: Packing) -> None:
        self._repository = repository
        self._identity = identity
        self._job = job
        self._packing = packing
        self._files: list[WrittenFile] = []
        self._sealer = None if job.key is None else Sealer(job.key)

    def _sealing(self, path: str) -> Sealing | None:
        return None if self._sealer is None else Sealing(self._sealer, place_of(path))

    async def write(
        self,
        capture: Capture,
        previous: LoadedSet | None,
        resumed: Unfinished | None = None,
        *,
        now_us: Callable[[], int],
        progress: Callable[[PackCounters], None],
        phase: Callable[[str], None],
    ) -> SetReceipt:
        """Copy the PG. On return everything is durable, the manifest included.

        Args:
            previous: the set an incremental builds on.
            resumed: what an earlier attempt at this set has at the destination already.
            now_us: the clock, for the set's end.
            progress, phase: told how far it is.
        """
        job, layout, tenant, pg = self._job, self._repository.layout, self._repository.tenant_id, self._identity.pg
        before = previous.by_index() if previous else {}
        if resumed is not None:
            before |= resumed.placements
            self._files.extend(resumed.files)
        counters = PackCounters()

        def count(now: PackCounters) -> None:
            nonlocal counters
            counters = now
            progress(now)

        phase("blocks")
        packed, files = await self._packing.pack(
            capture.blocks(
                {index: placement.identity for index, placement in before.items()},
                {index: placement.digest for index, placement in before.items()},
            ),
            MacroSpace(
                layout, tenant, job.full_set, job.backup_set_id, pg, job.key, resumed.next_sub if resumed else 0
            ),
            job.compression,
            previous=before,
            progress=count,
        )
        result = capture.result
        missing = sorted(result.live - packed.keys())
        if missing:
            raise IntegrityError(f"PG {pg}: {len(missing)} live blocks were never captured, the first is {missing[0]}")
        placements = _ordered([packed[index] for index in result.live])
        self._files.extend(files)
        phase("meta")
        await self._write_index(placements, result)
        meta_bytes = await self._write_meta(result)
        reused = sum(placement.backup_set_id != job.backup_set_id for placement in placements)
        facts = self._facts(result, now_us(), reused, counters)
        root = await self._write_manifest(facts, placements, await self._reused_files(placements, previous))
        return SetReceipt(
            facts=facts,
            counters=counters,
            macro_block_count=len(placements),
            reused_macro_block_count=reused,
            meta_bytes=meta_bytes,
            output_bytes=sum(file.size for file in self._files),
            root=root,
        )

    async def _put(self, path: str, data: bytes) -> None:
        info = await self._repository.target.put(path, data, if_absent=True, write_once=True)
        digest = await asyncio.to_thread(xxh3_128, data)
        self._files.append(WrittenFile(path, info.size, digest))

    async def _write_index(self, placements: list[Placement], result: CaptureResult) -> None:
        job, pg = self._job, self._identity.pg
        path = self._repository.layout.macro_block_index(
            self._repository.tenant_id, job.full_set, pg, job.backup_set_id
        )
        data = await asyncio.to_thread(_index_bytes, placements, pg, result.end_scn, self._sealing(path))
        await self._put(path, data)

    async def _write_meta(self, result: CaptureResult) -> int:
        """Meta is always backed up in full. Returns the bytes of store files in it."""
        job, layout, tenant = self._job, self._repository.layout, self._repository.tenant_id
        meta_path = layout.meta_file(tenant, job.full_set, job.backup_set_id, job.task_id)
        index_path = layout.meta_index_file(tenant, job.full_set, job.backup_set_id, job.task_id)
        meta_sealing, index_sealing = self._sealing(meta_path), self._sealing(index_path)
        both = (meta_sealing, index_sealing) if meta_sealing and index_sealing else None
        writer = MetaWriter(self._identity.pg, job.task_id, both)
        description = {
            "engine": self._identity.kind,
            "engine_version": self._identity.version,
            "block_file_size": result.block_file_size,
            "start_lsn": result.start_lsn,
            "end_lsn": result.end_lsn,
            "end_scn": result.end_scn,
            "parameters": dict(self._identity.parameters),
        }
        writer.add(MetaType.SET_DESCRIPTION, encode_description(description))
        read = 0
        for file in result.files:
            kind = MetaType.SUPERBLOCKS if file.path == BLOCK_FILE else MetaType.STORE_FILE
            read += sum(len(data) for _, data in file.extents)
            for body in extent_bodies(StoreExtents(file.path, file.size, file.extents)):
                if both is None:
                    writer.add(kind, body)
                else:  # now and then it encrypts 4 MiB
                    await asyncio.to_thread(writer.add, kind, body)
        for body in catalog_bodies(result.tables):
            writer.add(MetaType.TABLE_CATALOG, body)
        meta, index = await asyncio.to_thread(writer.finish)
        await self._put(meta_path, meta)
        await self._put(index_path, index)
        return read

    async def _reused_files(
        self, placements: list[Placement], previous: LoadedSet | None
    ) -> list[tuple[str, int, bytes]]:
        """Rows of the older sets' macro files that this set points into; they are there, with the size they must have.

        Raises IntegrityError for one that is not: a set that points at nothing would be called complete.
        """
        if previous is None:
            return []
        layout, tenant, job = self._repository.layout, self._repository.tenant_id, self._job
        used = {(p.backup_set_id, p.sub_task_id) for p in placements if p.backup_set_id != job.backup_set_id}
        wanted = {
            layout.relative(layout.macro_block(tenant, job.full_set, self._identity.pg, set_id, sub))
            for set_id, sub in used
        }
        rows = [(file.path, file.size, file.digest) for file in previous.files if file.path in wanted]
        if len(rows) != len(wanted):
            raise IntegrityError(
                f"{previous.manifest_path}: set {previous.facts.backup_set_id} points into files its manifest lacks",
                path=previous.manifest_path,
            )
        directory = layout.pg_data_dir(tenant, job.full_set, self._identity.pg)
        sizes = {layout.relative(info.path): info.size async for info in self._repository.files(directory)}
        for path, size, _ in rows:
            if sizes.get(path) != size:
                found = f"of {sizes[path]} bytes" if path in sizes else "missing"
                raise IntegrityError(
                    f"{layout.absolute(path)}: {found} at the destination, an older set has it with {size} bytes",
                    hint="the older sets are damaged: take a full backup, and see `mover validate`",
                    path=layout.absolute(path),
                )
        return rows

    async def _write_manifest(
        self, facts: SetFacts, placements: list[Placement], reused: list[tuple[str, int, bytes]]
    ) -> ManifestRoot:
        job, layout = self._job, self._repository.layout
        path = layout.manifest(self._repository.tenant_id, job.full_set, job.backup_set_id)

        def build() -> tuple[bytes, ManifestRoot]:
            writer = ManifestWriter(facts, self._sealing(path))
            writer.add_blocks(manifest_block(placement) for placement in placements)
            for file in self._files:
                writer.add_file(layout.relative(file.path), file.size, file.digest)
            for name, size, digest in reused:
                writer.add_file(name, size, digest)
            data = writer.finish()
            assert writer.root is not None
            return data, writer.root

        data, root = await asyncio.to_thread(build)
        await self._repository.target.put(path, data, if_absent=True, write_once=True)
        self._files.append(WrittenFile(path, len(data), b""))
        return root

    def _facts(self, result: CaptureResult, finished_us: int, reused: int, counters: PackCounters) -> SetFacts:
        job, identity = self._job, self._identity
        return SetFacts(
            cluster_name=identity.cluster_name,
            cluster_id=identity.cluster_id,
            tenant_id=identity.tenant_id,
            tenant_name=identity.tenant_name,
            pg=identity.pg,
            full_backup_set_id=job.full_set,
            backup_set_id=job.backup_set_id,
            prev_backup_set_id=job.prev_set,
            backup_type=job.backup_type,
            engine=identity.kind,
            engine_version=identity.version,
            start_lsn=result.start_lsn,
            end_lsn=result.end_lsn,
            end_scn=result.end_scn,
            block_file_size=result.block_file_size,
            log_round=job.log_round,
            started_us=job.started_us,
            finished_us=finished_us,
            compression=job.compression.label,
            parameters=dict(identity.parameters),
            proof=dict(result.proof),
            extra={
                "reused_macro_block_count": reused,
                "read_bytes": result.read_bytes or counters.read_bytes,
                "tuning": dict(self._packing.chosen),
                **({} if job.key is None else {"encryption": {"cipher": CIPHER, "key_id": job.key.name}}),
            },
        )

    async def write_lists(self, extra: Mapping[str, bytes]) -> None:
        """Write the small files that stand beside the meta files; they enter the manifest like all others."""
        for path, data in extra.items():
            await self._put(path, data)


def _ordered(placements: list[Placement]) -> list[Placement]:
    """The order of index and manifest: tablets ascending, then the other kinds; within each by block index."""
    return sorted(
        placements, key=lambda p: (p.identity.kind, p.identity.tablet_id if p.identity.kind == 1 else 0,
                                   p.identity.block_index)
    )  # fmt: skip


def _index_bytes(placements: list[Placement], pg: PGKey, snapshot: int, sealing: Sealing | None) -> bytes:
    """The macro index: one group per tablet for sstable blocks, one per other kind."""
    groups: dict[tuple[int, int], list[Placement]] = {}
    for placement in placements:
        identity = placement.identity
        groups.setdefault((identity.kind, identity.tablet_id if identity.kind == 1 else 0), []).append(placement)
    writer = MacroIndexWriter(sealing)
    for (kind, tablet_id), members in groups.items():
        key = group_key(pg, kind=kind, tablet_id=tablet_id, snapshot_version=snapshot)
        writer.group(key, (_entry(number, member) for number, member in enumerate(members)), len(members))
    return writer.finish()


def _entry(number: int, placement: Placement) -> MacroIndex:
    identity = placement.identity
    data_block = identity.kind == 1
    return MacroIndex(
        sstable_macro_index=number,
        data_version=identity.logical_version if data_block else placement.backup_set_id,
        data_seq=identity.data_seq if data_block else identity.block_index,
        backup_set_id=placement.backup_set_id,
        sub_task_id=placement.sub_task_id,
        offset=placement.offset,
        data_length=placement.length,
    )
