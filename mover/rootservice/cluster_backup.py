"""BACKUP DATABASE and BACKUP INCREMENTAL DATABASE of a cluster: all tenants under one number, as OceanBase takes them.

Order: minors of all PGs, then metas, then majors, as in OceanBase. Nothing is held at the servers: the snapshot of the
set is the latest moment that anything copied can hold, and it is restorable from there once the archive has passed.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mover.datapath.compression import Compression
from mover.datapath.pg_set_writer import MINOR_TASK_ID, Known, PGCounters, PGSetWriter, table_id
from mover.errors import (
    OB_BACKUP_CAN_NOT_START,
    Cancelled,
    MoverError,
    PreconditionError,
    SourceError,
    UnreachableError,
)
from mover.events import Notice, Phase, Progress
from mover.media.archive_index import parse_archive_key
from mover.media.backup_info import last_success
from mover.media.meta import MetaType, MetaWriter
from mover.media.pg_meta import encode_pg_meta
from mover.repository.pg_sets import META_TASK_ID, load_known, load_pg_facts
from mover.repository.sets import load_infos
from mover.repository.tenants import of_tenant
from mover.rootservice.cluster_set import TenantSet, announce, decide, fail, finish, write_lists
from mover.rootservice.cluster_task import ClusterTask
from mover.rootservice.lease import Lease
from mover.rootservice.session import Session
from mover.rootservice.side_by_side import side_by_side
from mover.store.cluster import Cluster, ClusterTable, PGCapture, PGContent

_MINOR_ATTEMPTS = 5  # at minors that are merged while they are copied


@dataclass(slots=True)
class _PG:
    """One PG under way."""

    tenant: TenantSet
    capture: PGCapture
    content: PGContent
    known: Known = field(default_factory=dict)
    counters: PGCounters = field(default_factory=PGCounters)
    minor_task: int | None = None


class ClusterBackup:
    """One backup of a cluster. Make it, then :meth:`run`."""

    def __init__(self, session: Session, cluster: Cluster, lease: Lease, round_id: int, stop: asyncio.Event) -> None:
        self._session = session
        self._cluster = cluster
        self._lease = lease
        self._round_id = round_id
        self._stop = stop
        self._cancelled = asyncio.Event()
        self._compression = Compression.parse(session.settings.compression)
        self._pgs: list[_PG] = []
        self._done: dict[int, PGCounters] = {}

    async def prepare(self, *, incremental: bool, wanted: frozenset[int]) -> list[TenantSet]:
        """List every PG and decide number and type of each tenant's set. Nothing is written.

        Args:
            wanted: tenants; empty for all.

        Raises:
            PreconditionError: -9040 when a PG's log in the round begins too late for its sstables.
        """
        prefer = await self._replicas_before() if incremental else {}
        places = [p for p in await self._cluster.places(prefer) if not wanted or p.tenant_id in wanted]
        if not places:
            raise PreconditionError("there is no PG to back up", hint="the sys tenant is not backed up")
        captures = [await self._cluster.capture(place) for place in places]
        contents: dict[int, PGContent] = {}

        async def look(number: int) -> None:
            contents[number] = await captures[number].content()

        await side_by_side([look(number) for number in range(len(captures))])
        version = min((c.data_version for c in contents.values() if c.data_version), default=0)
        freezes = [freeze for freeze in await self._cluster.frozen() if freeze[0] <= version]
        if not freezes:
            raise SourceError(
                f"the cluster has no major freeze of version {version} or before",
                hint="every partition needs a major: ALTER SYSTEM MAJOR FREEZE, and wait until it is merged",
            )
        tenants = {t.tenant_id: t for t in await self._cluster.tenants()}
        sets = await decide(
            self._session,
            await self._cluster.identity(),
            [tenants[number] for number in sorted({place.tenant_id for place in places})],
            freezes[-1],
            data_version=version,
            snapshot=_snapshot(contents.values()),
            incremental=incremental,
        )
        by_tenant = {found.tenant.tenant_id: found for found in sets}
        self._pgs = [
            _PG(by_tenant[place.tenant_id], capture, contents[number])
            for number, (place, capture) in enumerate(zip(places, captures, strict=True))
        ]
        await side_by_side([self._require_log(pg) for pg in self._pgs])
        return sets

    async def run(self, sets: list[TenantSet]) -> list[TenantSet]:
        """Copy everything and publish the sets as SUCCESS, or clear away what was written and raise."""
        if self._stop.is_set():
            raise Cancelled("the backup was cancelled before it began")
        self._lease.check()
        await announce(self._session, sets)
        task = self._task(sets)
        watching: asyncio.Task[None] | None = None
        try:
            await task.begin()
            watching = asyncio.create_task(task.watch(self._whole, self._cancelled))
            for tenant in sets:
                if tenant.previous is not None:
                    await self._load_known(tenant)
            self._session.emit(Phase("backup", "minors"))
            await side_by_side([self._minors(pg) for pg in self._pgs])
            self._session.emit(Phase("backup", "meta"))
            snapshot = _snapshot(pg.content for pg in self._pgs)
            for tenant in sets:
                tenant.info = dataclasses.replace(tenant.info, backup_snapshot_version=snapshot)
                await self._meta(tenant)
            self._session.emit(Phase("backup", "majors"))
            await side_by_side([self._majors(pg) for pg in self._pgs])
            self._lease.check()
            for tenant in sets:
                mine = [pg.counters for pg in self._pgs if pg.tenant is tenant]
                tenant.counters = PGCounters(
                    blocks=sum(c.blocks for c in mine),
                    reused=sum(c.reused for c in mine),
                    input_bytes=sum(c.input_bytes for c in mine),
                    output_bytes=sum(c.output_bytes for c in mine) + tenant.counters.output_bytes,
                )
                tenant.pg_count = len(mine)
            self._session.emit(Phase("backup", "publish", f"set {sets[0].info.inc_backup_set_id}"))
            await finish(self._session, self._lease, sets)
        except BaseException as exc:
            await asyncio.shield(self._fail(sets, task, exc))
            raise
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        try:
            await task.finish(0, "")
        except UnreachableError as exc:
            text = f"backup set {sets[0].info.inc_backup_set_id} is complete, but {exc.message}"
            self._session.emit(Notice("backup", text))
        return sets

    def _task(self, sets: list[TenantSet]) -> ClusterTask:
        counts = {s.tenant.tenant_id: sum(pg.tenant is s for pg in self._pgs) for s in sets}
        return ClusterTask(self._session, self._lease, sets, counts)

    def _whole(self) -> PGCounters:
        total = PGCounters()
        for done in self._done.values():
            _count(total, done)
        return total

    async def aclose(self) -> None:
        """Close what is open of the servers' files. Idempotent."""
        for pg in self._pgs:
            await pg.capture.aclose()

    # -- one PG -----------------------------------------------------------------------------------------------------

    async def _replicas_before(self) -> dict[tuple[int, int], str]:
        """The servers that the sets which incrementals would build on were taken from."""
        found: dict[tuple[int, int], str] = {}
        for tenant in await self._cluster.tenants():
            repository = of_tenant(self._session.repository, tenant.tenant_id)
            base = last_success(await load_infos(repository))
            if base is not None:
                facts = await load_pg_facts(repository, base)
                found |= {pg: str(row.get("server", "")) for pg, row in facts.items()}
        return found

    async def _require_log(self, pg: _PG) -> None:
        """The round must have every log that is not in the PG's sstables."""
        repository, place = pg.tenant.repository, pg.content.place
        path = repository.layout.archive_key(repository.tenant_id, self._round_id, place.pg)
        key = await repository.read(path, parse_archive_key)
        begins = key.index.round_log_submit_ts if key is not None else None
        if begins is None or begins > pg.content.replay_from_ts:
            raise PreconditionError(
                f"backup can not start, because round {self._round_id} does not have the log that PG {place.pg} needs:"
                f" from {pg.content.replay_from_ts} on, "
                + ("nothing of it is archived yet" if begins is None else f"its log begins behind {begins}"),
                code=OB_BACKUP_CAN_NOT_START,
                hint="keep `mover archivelog run` going; if it persists, ALTER SYSTEM MINOR FREEZE and repeat",
                pg=str(place.pg),
            )

    async def _load_known(self, tenant: TenantSet) -> None:
        assert tenant.previous is not None
        facts = await load_pg_facts(tenant.repository, tenant.previous)

        async def one(pg: _PG) -> None:
            place = pg.content.place.pg
            mine = facts.get((place.table_id, place.partition_id))
            if mine is not None and tenant.previous is not None:
                pg.known, lost = await load_known(tenant.repository, tenant.previous, place, mine)
                if lost:
                    text = (
                        f"PG {place}: {lost} blocks of older sets are gone from the destination, they are copied again"
                    )
                    self._session.emit(Notice("backup", text, "the older sets are damaged: see `mover validate`"))

        await side_by_side([one(pg) for pg in self._pgs if pg.tenant is tenant])

    def _writer(self, pg: _PG) -> PGSetWriter:
        info = pg.tenant.info
        return PGSetWriter(
            pg.tenant.repository,
            pg.content.place.pg,
            pg.capture,
            self._compression,
            full_set=info.full_backup_set_id,
            set_id=info.inc_backup_set_id,
            known=pg.known,
            known_version=info.prev_backup_data_version,
            stopped=self._require_running,
            progress=lambda done: self._show(pg.tenant, done),
        )

    async def _minors(self, pg: _PG) -> None:
        """Copy the minors until the server still lists them at the end; an attempt that failed leaves nothing."""
        for attempt in range(_MINOR_ATTEMPTS):
            minors = [table for table in pg.content.tables if not table.is_major]
            if not minors:
                return
            writer, task = self._writer(pg), MINOR_TASK_ID + attempt
            try:
                await writer.write(minors, minor_task=task)
                now = await pg.capture.content()
                if [table for table in now.tables if not table.is_major] == minors:
                    pg.minor_task = task
                    _count(pg.counters, writer.counters)
                    return
            except SourceError:
                if attempt + 1 == _MINOR_ATTEMPTS:
                    raise
                now = await pg.capture.content()
            await self._drop_minors(pg, task)
            pg.content = dataclasses.replace(now, tables=(*_majors(pg.content), *_minors(now)))
        raise SourceError(
            f"PG {pg.content.place.pg}: its minors were merged each of {_MINOR_ATTEMPTS} times they were copied",
            hint="take the backup when less is written, or after ALTER SYSTEM MINOR FREEZE",
            pg=str(pg.content.place.pg),
        )

    async def _drop_minors(self, pg: _PG, task: int) -> None:
        info, repository = pg.tenant.info, pg.tenant.repository
        full = info.full_backup_set_id
        directory = repository.layout.pg_data_dir(repository.tenant_id, full, pg.content.place.pg)
        async for file in repository.files(f"{directory}/minor_data/{task}"):
            parsed = repository.layout.parse(file.path)
            if parsed is not None and parsed.inc_set == info.inc_backup_set_id:
                await repository.target.delete(file.path)

    async def _majors(self, pg: _PG) -> None:
        writer, majors = self._writer(pg), list(_majors(pg.content))
        now = await pg.capture.content()
        if _majors(now) != tuple(majors):
            raise self._merged(pg)
        await writer.write(majors, minor_task=None)
        now = await pg.capture.content()
        if _majors(now) != tuple(majors):
            raise self._merged(pg)
        _count(pg.counters, writer.counters)

    def _merged(self, pg: _PG) -> SourceError:
        return SourceError(
            f"PG {pg.content.place.pg}: a major merge replaced its sstables while they were copied",
            hint="take the backup again when the merge is over",
            pg=str(pg.content.place.pg),
        )

    async def _meta(self, tenant: TenantSet) -> None:
        """The records of all PGs of a tenant, in one meta file; then the small files of the set."""
        mine = [pg for pg in self._pgs if pg.tenant is tenant]
        writer = MetaWriter(mine[0].content.place.pg, META_TASK_ID)
        for pg in mine:
            writer.pg = pg.content.place.pg
            writer.add(MetaType.PARTITION_GROUP_META_INFO, encode_pg_meta(_facts(pg)))
        meta, index = writer.finish()
        repository, info = tenant.repository, tenant.info
        full, own = info.full_backup_set_id, info.inc_backup_set_id
        layout, number = repository.layout, repository.tenant_id
        await repository.target.put(layout.meta_file(number, full, own, META_TASK_ID), meta, if_absent=True)
        await repository.target.put(layout.meta_index_file(number, full, own, META_TASK_ID), index, if_absent=True)
        tenant.counters.output_bytes += len(meta) + len(index)
        await write_lists(tenant, [pg.content.place.pg for pg in mine])

    # -- the whole --------------------------------------------------------------------------------------------------

    def _require_running(self) -> None:
        self._lease.check()
        if self._stop.is_set() or self._cancelled.is_set():
            raise Cancelled("the backup was cancelled", hint="what it had written was removed")

    def _show(self, tenant: TenantSet, done: PGCounters) -> None:
        number = tenant.tenant.tenant_id
        total = self._done.setdefault(number, PGCounters())
        _count(total, done)
        self._session.emit(
            Progress(
                "backup",
                number,
                blocks_done=total.blocks,
                blocks_total=sum(len(t.blocks) for pg in self._pgs if pg.tenant is tenant for t in pg.content.tables),
                blocks_reused=total.reused,
                bytes_in=total.input_bytes,
                bytes_out=total.output_bytes,
            )
        )

    async def _fail(self, sets: list[TenantSet], task: ClusterTask, exc: BaseException) -> None:
        """Say FAILED and clear away what can be. Bounded, and silent about a destination that is the reason itself."""
        try:
            async with asyncio.timeout(30):
                self._lease.check()
                await fail(self._session, sets)
                code = exc.code or -1 if isinstance(exc, MoverError) else -1
                await task.finish(code, exc.message if isinstance(exc, MoverError) else type(exc).__name__)
        except (MoverError, TimeoutError) as error:
            text = f"backup set {sets[0].info.inc_backup_set_id} could not be cleared away: {error}"
            self._session.emit(Notice("backup", text, "the next backup does it"))


def _snapshot(contents: Any) -> int:
    """The latest moment of which anything can be in these sstables, us."""
    return max((table.end_ts for content in contents for table in content.tables), default=0)


def _majors(content: PGContent) -> tuple[ClusterTable, ...]:
    return tuple(table for table in content.tables if table.is_major)


def _minors(content: PGContent) -> tuple[ClusterTable, ...]:
    return tuple(table for table in content.tables if not table.is_major)


def _count(total: PGCounters, done: PGCounters) -> None:
    total.blocks += done.blocks
    total.reused += done.reused
    total.input_bytes += done.input_bytes
    total.output_bytes += done.output_bytes


def _facts(pg: _PG) -> dict[str, Any]:
    """What a restore must know of a PG besides its blocks."""
    content, place = pg.content, pg.content.place

    def rows(tables: Sequence[ClusterTable]) -> list[dict[str, Any]]:
        return [
            {
                "table": list(table_id(table)),
                "table_type": table.key.table_type,
                "end_ts": table.end_ts,
                "blocks": [[block.data_checksum, block.occupy_size] for block in table.blocks],
            }
            for table in tables
        ]

    return {
        "table_id": place.pg.table_id,
        "partition_id": place.pg.partition_id,
        "partition_count": place.pg.assist_id,
        "server": str(place.server),
        "data_version": content.data_version,
        "replay_from_ts": content.replay_from_ts,
        "partitions": [list(partition) for partition in place.partitions],
        "minor_task": pg.minor_task,
        "majors": rows(_majors(content)),
        "minors": rows(_minors(content)),
    }
