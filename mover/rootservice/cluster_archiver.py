"""The archiver of a cluster: follows the logs of all PGs of all tenants to the destination until it is told to stop.

Every turn: read what is confirmed, make durable what has waited long enough, then publish. The checkpoint of a tenant
is the least of its PGs', that of the cluster the least of its tenants'. A PG without new log does not hold it back as
long as its server says from when on no older log can come.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from mover.clock import Clock
from mover.datapath.compression import Compression
from mover.datapath.index_writer import IndexWriter
from mover.datapath.log_compression import LogCompression
from mover.datapath.pg_log_writer import PGLogWriter
from mover.errors import OB_LOG_ARCHIVE_INTERRUPTED, IntegrityError, LogGapError, StateError, TargetExists
from mover.events import ArchiveProgress, Notice
from mover.media.archive_info import ArchiveRound, ArchiveStatus, current_round
from mover.media.cluster_record import ClusterRecord, TenantShare
from mover.media.pg import PGKey
from mover.repository.archive_state import (
    load_cluster_record,
    load_rounds,
    publish_cluster_record,
    publish_round,
    stop_requested,
)
from mover.repository.pg_round import pg_round_tail
from mover.repository.tenants import of_tenant
from mover.repository.tree import Repository
from mover.rootservice.archiver import buffer_size, round_start_of
from mover.rootservice.cluster_round import begin_pg, begin_tenant
from mover.rootservice.flush_plan import Waiting, flush_plan
from mover.rootservice.lease import Lease
from mover.rootservice.same_destination import require_mount_file
from mover.rootservice.session import Session
from mover.rootservice.side_by_side import side_by_side
from mover.store.cluster import Cluster, ClusterLog, PGPlace

POLL_BYTES = 64 << 20  # of a server's log per turn
PUBLISH_SECONDS = 1.0  # each checkpoint is a file per tenant
REFRESH_SECONDS = 10.0  # how often new tenants and PGs are looked for


@dataclass(slots=True)
class _TenantRound:
    """One tenant's part of the round."""

    repository: Repository
    round: ArchiveRound
    share: TenantShare
    writers: dict[PGKey, PGLogWriter] = field(default_factory=dict)
    checkpoint_us: int = 0


class ClusterArchiver:
    """Archives one round of a cluster. Make it with :meth:`resume`, then :meth:`run`."""

    def __init__(self, session: Session, lease: Lease, cluster: Cluster, log: ClusterLog, round_id: int) -> None:
        self._session = session
        self._lease = lease
        self._cluster = cluster
        self._log = log
        self._round_id = round_id
        self._tenants: dict[int, _TenantRound] = {}
        self._places: dict[PGKey, PGPlace] = {}
        self._compression = LogCompression(Compression.parse(session.settings.compression))
        self._buffer = buffer_size(session)
        self._published_at = self._refreshed_at = float("-inf")
        self._refreshed_us = 0
        self._record = ClusterRecord(round_id, lease.holder, lease.epoch, 0)

    @classmethod
    async def resume(
        cls, session: Session, lease: Lease, cluster: Cluster, log: ClusterLog, round_id: int
    ) -> ClusterArchiver:
        """Find the end of what is archived of every PG and go on there.

        Raises IntegrityError when the round's files contradict each other.
        """
        archiver = cls(session, lease, cluster, log, round_id)
        record = await load_cluster_record(session.repository, round_id)
        if record is None:
            path = session.repository.layout.cluster_record(round_id)
            raise IntegrityError(
                f"{path}: missing, so this is no round of a cluster",
                hint="stop the round with `mover archivelog stop` and begin a new one",
                path=path,
            )
        archiver._record = dataclasses.replace(record, holder=lease.holder, epoch=lease.epoch)
        await archiver._refresh()
        return archiver

    async def run(self, *, until_caught_up: bool, stop: asyncio.Event) -> None:
        """Archive until ``stop`` is set, somebody requested a stop of the round, or the end was reached.

        Raises LogGapError after it marked the round INTERRUPTED, StateError when another archiver took over.
        """
        clock, interval = self._session.clock, self._session.settings.flush_interval
        async with _Fenced(self):
            while True:
                began = clock.monotonic()
                leaving = stop.is_set()
                stopping = await stop_requested(self._session.repository, self._round_id)
                if clock.monotonic() - self._refreshed_at >= REFRESH_SECONDS:
                    await self._refresh()
                caught_up = await self._turn(everything=leaving or stopping or until_caught_up)
                done = leaving or (caught_up and (until_caught_up or stopping))
                if done or clock.monotonic() - self._published_at >= PUBLISH_SECONDS:
                    await self._publish()
                if done:
                    break
                if self._log.caught_up:
                    await _pause(clock, stop, max(0.0, interval - (clock.monotonic() - began)))
            await self._close_files()
            if stopping and caught_up:
                await self._finish()
            await self._sign_off()

    async def catch_up(self) -> None:
        """Archive and publish everything that is confirmed now."""
        async with _Fenced(self):
            while not await self._turn(everything=True):
                await self._session.clock.sleep(0.05)
            await self._publish()
            await self._close_files()
            await self._sign_off()

    # -- reading and writing ----------------------------------------------------------------------------------------

    async def _turn(self, *, everything: bool) -> bool:
        """Read what is confirmed, write what is due. True when all that was confirmed at its begin is durable."""
        clock = self._session.clock
        now_us = clock.now_us()
        for run in await self._log.poll(POLL_BYTES):
            self._writer(run.pg).add(run, clock.monotonic())
        writers = list(self._writers())
        if everything:
            chosen = [writer for writer in writers if writer.pending]
        else:
            waiting = [Waiting(at, w.pending, w.oldest) for at, w in enumerate(writers) if w.pending]
            plan = flush_plan(
                waiting, clock.monotonic(), interval=self._session.settings.flush_interval, limit=self._buffer
            )
            chosen = [writers[item.number] for item in plan]
        if chosen:
            self._lease.check()
            await side_by_side([writer.flush(now_us) for writer in chosen])
        self._note_checkpoints()
        behind = any(
            writer.pending or self._log.position(pg).next_log_id <= self._log.position(pg).confirmed
            for tenant in self._tenants.values()
            for pg, writer in tenant.writers.items()
        )
        if self._log.caught_up and not behind:
            self._record = dataclasses.replace(self._record, caught_up_us=now_us)
            return True
        return False

    def _note_checkpoints(self) -> None:
        for tenant in self._tenants.values():
            points = []
            for pg, writer in tenant.writers.items():
                position = self._log.position(pg)
                point = writer.checkpoint_ts
                if not writer.pending and position.next_log_id > position.confirmed and self._log.caught_up:
                    point = max(point, position.service_ts)
                writer.checkpoint_ts = point
                points.append(point)
            # Without a PG nothing can be missing from before the tenant list was looked at.
            least = min(points, default=self._refreshed_us)
            tenant.checkpoint_us = max(tenant.checkpoint_us, least)

    def _writers(self) -> Iterable[PGLogWriter]:
        for tenant in self._tenants.values():
            yield from tenant.writers.values()

    def _writer(self, pg: PGKey) -> PGLogWriter:
        return self._tenants[pg.tenant_id].writers[pg]

    # -- tenants and PGs come and go --------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        now_us = self._session.clock.now_us()
        tenants = {tenant.tenant_id: tenant for tenant in await self._cluster.tenants()}
        places = {place.pg: place for place in await self._cluster.places()}
        for tenant_id in sorted(tenants.keys() - self._tenants.keys()):
            repository = of_tenant(self._session.repository, tenant_id)
            current = current_round(await load_rounds(repository))
            if current is None or current.round_id != self._round_id:
                self._lease.check()
                # A tenant that was created since the round began.
                await begin_tenant(self._session, self._lease, tenants[tenant_id], self._round_id, now_us)
                current = current_round(await load_rounds(repository))
            assert current is not None
            share = self._record.tenants.get(tenant_id) or TenantShare(current.start_ts, current.checkpoint_ts)
            self._tenants[tenant_id] = _TenantRound(repository, current, share, checkpoint_us=current.checkpoint_ts)
        new = [place for pg, place in sorted(places.items()) if pg not in self._places]
        await side_by_side([self._open(place) for place in new])
        for pg in self._places.keys() - places.keys():
            # Dropped, with its table or tenant: what is archived of it stays.
            self._log.forget(pg)
            writer = self._tenants[pg.tenant_id].writers.pop(pg)
            await writer.flush(now_us)
            await writer.close_file()
        self._places = places
        self._refreshed_at, self._refreshed_us = self._session.clock.monotonic(), now_us

    async def _open(self, place: PGPlace) -> None:
        tenant = self._tenants.get(place.tenant_id)
        if tenant is None:
            raise StateError(f"PG {place.pg} is of tenant {place.tenant_id}, which the cluster does not have")
        tail = await pg_round_tail(tenant.repository, self._round_id, place.pg)
        if tail is None:
            self._lease.check()
            await begin_pg(tenant.repository, self._log, place, self._round_id, self._session.clock.now_us())
            tail = await pg_round_tail(tenant.repository, self._round_id, place.pg)
            assert tail is not None
        start = round_start_of(tail.start)
        index = IndexWriter(
            tenant.repository,
            self._round_id,
            place.pg,
            index=tail.index,
            last_record=tail.newest_record,
            fence=self._lease.check,
        )
        if tail.unrecorded is not None:
            await index.write(tail.unrecorded)
        tenant.writers[place.pg] = PGLogWriter(
            tenant.repository,
            self._round_id,
            place.pg,
            start=start,
            next_file_id=tail.last_file_id + 1,
            index=index,
            compression=self._compression,
            fence=self._lease.check,
            checkpoint_ts=tail.checkpoint_ts,
            last_log_id=tail.last_log_id,
            last_submit_ts=tail.last_submit_ts,
        )
        self._log.follow(place, tail.last_log_id + 1, tail.accum)

    # -- publishing -------------------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        """Publish what is durable, after proving that we are still the archiver."""
        repository = self._session.repository
        current = await load_cluster_record(repository, self._round_id)
        ours = current is None or current.epoch < self._lease.epoch or current.holder in {"", self._lease.holder}
        if current is None or current.epoch > self._lease.epoch or not ours:
            who = f"{current.holder} (epoch {current.epoch})" if current else "nobody: its record is gone"
            raise StateError(
                f"round {self._round_id} is archived by {who} now",
                hint="nothing more was published; one archiver per round",
            )
        self._lease.check()
        for tenant in self._tenants.values():
            share = tenant.share
            tenant.share = dataclasses.replace(
                share,
                checkpoint_us=max(share.checkpoint_us, tenant.checkpoint_us),
                input_bytes=share.input_bytes + sum(writer.input_bytes for writer in tenant.writers.values()),
                output_bytes=share.output_bytes + sum(writer.output_bytes for writer in tenant.writers.values()),
            )
            for writer in tenant.writers.values():
                writer.input_bytes = writer.output_bytes = 0
        shares = {tenant_id: tenant.share for tenant_id, tenant in self._tenants.items()}
        self._record = dataclasses.replace(
            self._record, heartbeat_us=self._session.clock.now_us(), tenants={**self._record.tenants, **shares}
        )
        await publish_cluster_record(repository, self._record)
        await side_by_side([self._publish_tenant(tenant) for tenant in self._tenants.values()])
        least = min((share.checkpoint_us for share in shares.values()), default=self._refreshed_us)
        info = current_round(await load_rounds(repository))
        if info is not None and info.round_id == self._round_id and least > info.checkpoint_ts:
            await require_mount_file(repository, info)
            await publish_round(repository, dataclasses.replace(info, checkpoint_ts=least))
        self._published_at = self._session.clock.monotonic()
        self._tell()

    async def _publish_tenant(self, tenant: _TenantRound) -> None:
        if tenant.checkpoint_us > tenant.round.checkpoint_ts:
            tenant.round = dataclasses.replace(tenant.round, checkpoint_ts=tenant.checkpoint_us)
            await publish_round(tenant.repository, tenant.round)

    def _tell(self) -> None:
        caught_up = self._record.caught_up_us
        lag = (self._record.heartbeat_us - caught_up) / 1e6 if caught_up else 0.0
        for tenant_id, tenant in self._tenants.items():
            self._session.emit(
                ArchiveProgress(
                    tenant_id=tenant_id,
                    round_id=self._round_id,
                    checkpoint_scn=tenant.share.checkpoint_us * 1000,
                    checkpoint_lsn=0,
                    bytes_in=tenant.share.input_bytes,
                    bytes_out=tenant.share.output_bytes,
                    pending_bytes=sum(writer.pending for writer in tenant.writers.values()),
                    lag_seconds=max(0.0, lag),
                )
            )

    async def _close_files(self) -> None:
        await side_by_side([writer.close_file() for writer in self._writers()])

    async def _sign_off(self) -> None:
        """The next archiver need not wait for our lease."""
        self._lease.check()
        self._record = dataclasses.replace(self._record, holder="")
        await publish_cluster_record(self._session.repository, self._record)

    async def _finish(self) -> None:
        """The round is over, for every tenant and last for the cluster."""
        for repository in (*(t.repository for t in self._tenants.values()), self._session.repository):
            for status in (ArchiveStatus.STOPPING, ArchiveStatus.STOP):
                current = current_round(await load_rounds(repository))
                if current is not None and current.round_id == self._round_id:
                    self._lease.check()
                    await publish_round(repository, dataclasses.replace(current, status=status))
        self._session.emit(Notice("archive", f"round {self._round_id} is stopped"))

    async def interrupt(self, exc: LogGapError) -> None:
        """Mark the round INTERRUPTED for all tenants, as OceanBase does, and record whose log is missing."""
        now_us = self._session.clock.now_us()
        await side_by_side([writer.flush(now_us) for writer in self._writers()])
        await self._close_files()
        self._note_checkpoints()
        pg = str(exc.where.get("pg", ""))
        self._record = dataclasses.replace(self._record, interrupted_us=now_us)
        for tenant in self._tenants.values():
            if not pg or any(str(key) == pg for key in tenant.writers):
                tenant.share = dataclasses.replace(tenant.share, lost=exc.message)
        await self._publish()
        for repository in (self._session.repository, *(t.repository for t in self._tenants.values())):
            current = current_round(await load_rounds(repository))
            if current is not None and current.round_id == self._round_id:
                await publish_round(repository, dataclasses.replace(current, status=ArchiveStatus.INTERRUPTED))
        await self._sign_off()
        exc.code = OB_LOG_ARCHIVE_INTERRUPTED
        exc.hint = "`mover archivelog stop`, then `start` begins a new round; take a new backup in it"


class _Fenced:
    """What ends an archiver whatever it does: log that is gone, and another archiver of the round."""

    def __init__(self, archiver: ClusterArchiver) -> None:
        self._archiver = archiver

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        if isinstance(exc, LogGapError):
            await self._archiver.interrupt(exc)
        elif isinstance(exc, TargetExists):
            raise StateError(
                f"another archiver writes to the round: {exc.message}",
                hint="one archiver per round: stop the other one",
            ) from exc


async def _pause(clock: Clock, stop: asyncio.Event, seconds: float) -> None:
    sleeping = asyncio.ensure_future(clock.sleep(seconds))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({sleeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        stopped.cancel()
        await asyncio.gather(sleeping, stopped, return_exceptions=True)
