"""The verbs of log archiving: ARCHIVELOG, NOARCHIVELOG, following the log, and saying how far it is."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from mover.datapath.log_packer import RoundStart
from mover.errors import (
    OB_ARCHIVE_ALREADY_STOPPED,
    OB_BACKUP_IN_PROGRESS,
    OB_LOG_ARCHIVE_NOT_RUNNING,
    OB_START_LOG_ARCHIVE_FAILED,
    Cancelled,
    EncryptionKeyError,
    PreconditionError,
    SourceError,
    StateError,
)
from mover.events import Phase
from mover.kernel.palf import GROUP_COLUMNS
from mover.media.archive import build_kickoff_block
from mover.media.archive_index import ArchiveKey, ArchiveStart
from mover.media.archive_info import ArchiveRound, ArchiveStatus, begin_round, current_round, encode_mount_file
from mover.media.log_entry import Kickoff
from mover.media.round_record import RoundRecord
from mover.repository.archive_state import (
    load_record,
    load_rounds,
    load_shown_record,
    publish_record,
    publish_round,
    publish_rounds,
    request_stop,
    require_doing,
)
from mover.repository.tenants import known_tenants, of_tenant
from mover.rootservice import cluster_archive
from mover.rootservice.archiver import READ_SIZE, Archiver
from mover.rootservice.catalog_tables import archive_round
from mover.rootservice.key_settings import writing_key
from mover.rootservice.lease import Lease, holder_is_dead
from mover.rootservice.round_views import ArchiveView, RoundView
from mover.rootservice.same_destination import require_known_rounds, require_mount_file
from mover.rootservice.session import Session
from mover.store.base import LogCursor, LogSource, StoreIdentity
from mover.store.cluster import Cluster

STOP_WAIT_SECONDS = 60.0
STOP_GRACE_SECONDS = 5.0  # for the last of the log, after which a destination that does not answer is left alone
FIRST_REAL_SCN = 10**18  # ns: September 2001, before there was any OceanBase


async def start(session: Session) -> RoundView | ArchiveView:
    """ARCHIVELOG: begin a new round at the oldest log the store still has, and bring it to DOING.

    Raises PreconditionError when a round is not stopped yet, or another archiver works; MountError when the catalog
    knows rounds of this directory and there are none.
    """
    if session.maybe_cluster is not None:
        async with _archive_lease(session) as lease:
            views = await cluster_archive.start(session, session.maybe_cluster, lease)
            await _note_all(session, lease, views)
            return views
    repository, layout = session.repository, session.repository.layout
    tenant = repository.tenant_id
    identity = await session.store.identity()
    await writing_key(session)  # a round that could not be archived is not begun
    async with _archive_lease(session) as lease, _held_log(session) as log:
        rounds = await load_rounds(repository)
        await require_known_rounds(session, rounds)
        current = current_round(rounds)
        if current is not None and current.status == ArchiveStatus.BEGINNING:
            # A start that died half way: nothing was archived in that round.
            rounds = (*rounds[:-1], dataclasses.replace(current, status=ArchiveStatus.STOP))
            await publish_rounds(repository, rounds)
            current = rounds[-1]
        if current is not None and current.status != ArchiveStatus.STOP:
            name = ArchiveStatus(current.status).name
            raise PreconditionError(
                f"archive round {current.round_id} is {name}: start log archive backup when not STOP is not supported",
                code=OB_START_LOG_ARCHIVE_FAILED,
                hint="`mover archivelog run` goes on with a round that is DOING; `stop` ends it",
            )
        begin_lsn = await log.begin_lsn()
        await log.hold(begin_lsn)
        first = await _first_log(log, begin_lsn, session.clock.now_us())
        start_ts = first[1] // 1000
        round_id = current.round_id + 1 if current else 1
        session.emit(Phase("archive", "begin", f"round {round_id} from LSN {begin_lsn}"))
        lease.check()
        rounds = begin_round(rounds, tenant, start_ts, round_id=round_id)
        await publish_rounds(repository, rounds)
        now_us = session.clock.now_us()
        server = layout.clog_info(1, identity.server_ip, identity.server_port)
        await repository.write(server, ArchiveStart(round_id, start_ts).pack())
        if repository.target.capabilities.device_type == "FILE":
            await repository.write(layout.mount_file(round_id), encode_mount_file(round_id))
        begin = RoundStart(start_ts, first[0], snapshot_version=start_ts, log_submit_ts=start_ts)
        key = ArchiveKey(is_first_piece=True, max_index_file_id=0, index=begin.record(0, None, None))
        await repository.write(layout.archive_key(tenant, round_id, identity.pg), key.pack())
        kickoff = build_kickoff_block(
            identity.pg,
            first[0],
            Kickoff(start_ts, start_ts, start_ts),
            timestamp=now_us,
            accum_checksum=0,
            start_submit_ts=start_ts,
        )
        await repository.target.put(
            layout.archive_data(tenant, round_id, identity.pg, 1), kickoff, if_absent=True, write_once=True
        )
        record = RoundRecord(
            round_id=round_id,
            holder="",
            epoch=lease.epoch,
            heartbeat_us=now_us,
            start_lsn=begin_lsn,
            start_scn=first[1],
            checkpoint_lsn=begin_lsn,
            checkpoint_scn=0,
        )
        await publish_record(repository, record)
        # DOING only now: the kickoff and everything that a later archiver needs to go on is durable.
        lease.check()
        doing = dataclasses.replace(
            rounds[-1],
            status=ArchiveStatus.DOING,
            checkpoint_ts=start_ts,
            is_mount_file_created=repository.target.capabilities.device_type == "FILE",
        )
        await publish_round(repository, doing)
        await _note(session, lease, doing)
    return RoundView(tenant, doing, record, 0.0)


async def run(session: Session, *, until_caught_up: bool, stop: asyncio.Event) -> RoundView | ArchiveView:
    """Archive the current round in the foreground; see :meth:`Archiver.run`.

    Raises PreconditionError when no round is DOING or another archiver works; MountError when it is not the directory
    that it was; Cancelled when the destination did not
    let it end within ``STOP_GRACE_SECONDS`` of ``stop``. The next run goes on where the log at the destination ends.
    """
    archiving = asyncio.ensure_future(_run(session, until_caught_up=until_caught_up, stop=stop))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({archiving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not archiving.done():
            # By the system's clock: it is for a person or a service manager who waits.
            await asyncio.wait({archiving}, timeout=STOP_GRACE_SECONDS)
        if archiving.done():
            return archiving.result()
        raise Cancelled(
            f"stopped while the destination did not answer for {STOP_GRACE_SECONDS:g} s",
            hint="what is durable there stays; the next `mover archivelog run` archives the rest",
        )
    finally:
        stopped.cancel()
        archiving.cancel()
        await asyncio.gather(stopped, archiving, return_exceptions=True)


async def _run(session: Session, *, until_caught_up: bool, stop: asyncio.Event) -> RoundView | ArchiveView:
    repository = session.repository
    if session.maybe_cluster is not None:
        await require_doing(repository)
        async with _archive_lease(session) as lease:
            cluster = session.maybe_cluster
            views = await cluster_archive.run(session, cluster, lease, until_caught_up=until_caught_up, stop=stop)
            await _note_all(session, lease, views)
            return views
    identity = await session.store.identity()
    await require_known_rounds(session, await load_rounds(repository))
    await require_doing(repository)
    async with _archive_lease(session) as lease, _held_log(session) as log:
        # Again: until we had the lease, somebody else could move the round on.
        current = await require_doing(repository)
        await require_mount_file(repository, current)
        await _note(session, lease, current)
        archiver = await Archiver.resume(session, lease, current, identity.pg, log)
        ended = await archiver.run(until_caught_up=until_caught_up, stop=stop)
        await _note(session, lease, ended)
    record = await load_record(repository, ended.round_id)
    return RoundView(repository.tenant_id, ended, record, None)


async def stop(session: Session) -> RoundView | ArchiveView:
    """NOARCHIVELOG: end the current round.

    A running archiver is asked to archive what is committed and finish the round; without one the round ends where
    its log ends. Idempotent while the round is stopping. Raises PreconditionError (-9034) when there is none.
    """
    repository = session.repository
    current = current_round(await load_rounds(repository))
    if current is None or current.status == ArchiveStatus.STOP:
        raise PreconditionError(
            "log archive is stopped already",
            code=OB_ARCHIVE_ALREADY_STOPPED,
            hint="`mover archivelog start` begins one",
        )
    of_cluster = len(await known_tenants(repository)) > 1
    await request_stop(repository, current.round_id, session.clock.now_us())
    deadline = session.clock.monotonic() + STOP_WAIT_SECONDS
    while True:
        try:
            async with _archive_lease(session) as lease:
                if of_cluster:
                    views = await cluster_archive.end(session, lease)
                    await _note_all(session, lease, views)
                    return views
                current = current_round(await load_rounds(repository)) or current
                for state in (ArchiveStatus.STOPPING, ArchiveStatus.STOP):
                    if current.status != ArchiveStatus.STOP:
                        lease.check()
                        current = dataclasses.replace(current, status=state)
                        await publish_round(repository, current)
                await _note(session, lease, current)
                # Under the lease: what is dropped is never the hold of a round that somebody begins meanwhile.
                if session.maybe_store is not None:
                    log = await session.store.log("archive")
                    await log.aclose(keep_hold=False)
        except PreconditionError:
            session.emit(Phase("archive", "stopping", "the running archiver finishes the round"))
            await session.clock.sleep(0.2)
            if session.clock.monotonic() > deadline:
                latest = current_round(await load_rounds(repository))
                if latest is not None and latest.status == ArchiveStatus.STOP:
                    current = latest
                    break
                raise StateError(
                    f"the archiver did not finish round {current.round_id} within {STOP_WAIT_SECONDS:g} s",
                    hint="it goes on trying; look with `mover archivelog status`",
                ) from None
        else:
            break
    if of_cluster:
        return await cluster_archive.round_views(session)
    record = await load_record(repository, current.round_id)
    return RoundView(repository.tenant_id, current, record, None)


async def catch_up_until(
    session: Session, identity: StoreIdentity, lsn: int, give_up: Callable[[], Awaitable[bool]]
) -> bool:
    """Archive up to ``lsn`` if nobody else does, or until ``give_up`` says so.

    Returns False when another archiver is at work.
    """
    try:
        async with _archive_lease(session) as lease, _held_log(session) as log:
            current = await require_doing(session.repository)
            archiver = await Archiver.resume(session, lease, current, identity.pg, log)
            await archiver.catch_up(lsn, give_up)
            await archiver.close()
    except PreconditionError as exc:
        if exc.code == OB_LOG_ARCHIVE_NOT_RUNNING or isinstance(exc, EncryptionKeyError):
            raise
        return False  # of the lease, or of the hold on the log while the other one comes or goes
    return True


async def catch_up_cluster(session: Session, cluster: Cluster) -> bool:
    """Archive everything of a cluster that is confirmed now. Returns False when another archiver is at work."""
    try:
        async with _archive_lease(session) as lease:
            await cluster_archive.catch_up(session, cluster, lease)
    except PreconditionError as exc:
        if exc.code == OB_LOG_ARCHIVE_NOT_RUNNING:
            raise
        return False
    return True


@asynccontextmanager
async def _archive_lease(session: Session) -> AsyncIterator[Lease]:
    """The archive lease; refused also when the destination shows an archiver that uses another catalog."""
    seen = await _current_record(session)
    async with session.lease("archive", floor=seen.epoch if seen else 0) as lease:
        record = await _current_record(session)
        if record is not None and record.holder not in {"", lease.holder} and not holder_is_dead(record.holder):
            age = (session.clock.now_us() - record.heartbeat_us) / 1e6
            if age < session.settings.lease_ttl:
                raise PreconditionError(
                    f"round {record.round_id} is being archived by {record.holder}",
                    code=OB_BACKUP_IN_PROGRESS,
                    hint=f"one archiver per round; it signed {age:.1f} s ago",
                )
        yield lease


async def _current_record(session: Session) -> RoundRecord | None:
    current = current_round(await load_rounds(session.repository))
    return await load_shown_record(session.repository, current.round_id) if current else None


@asynccontextmanager
async def _held_log(session: Session) -> AsyncIterator[LogSource]:
    """The log with the archive's hold, which stays for the next archiver."""
    log = await session.store.log("archive")
    try:
        yield log
    finally:
        await log.aclose(keep_hold=True)


async def _first_log(log: LogSource, lsn: int, now_us: int) -> tuple[int, int]:
    """(log id, SCN) of the first group of the log.

    A new store numbers its first groups 1, 2, ... instead of giving them a time; the first real time counts.
    """
    found = await log.read(LogCursor(lsn), READ_SIZE)
    if found is None:
        raise SourceError(f"the store has no committed log at LSN {lsn}", hint="write something to it first")
    scns = [found.table[row + 3] for row in range(0, len(found.table), GROUP_COLUMNS)]
    return found.first_log_id, next((scn for scn in scns if scn > FIRST_REAL_SCN), now_us * 1000)


async def _note_all(session: Session, lease: Lease, views: ArchiveView) -> None:
    for view in views.rounds:
        own = dataclasses.replace(session, repository=of_tenant(session.repository, view.tenant_id))
        await _note(own, lease, view.info)


async def _note(session: Session, lease: Lease, info: ArchiveRound) -> None:
    """Remember the round in the catalog, for the views."""
    record = await load_shown_record(session.repository, info.round_id)
    async with session.catalog.begin() as connection:
        await lease.guard(connection)
        await session.catalog.upsert(
            connection,
            archive_round,
            {
                "tenant_id": session.repository.tenant_id,
                "round_id": info.round_id,
                "status": ArchiveStatus(info.status).name,
                "start_us": info.start_ts,
                "checkpoint_scn": record.checkpoint_scn if record else 0,
                "checkpoint_lsn": record.checkpoint_lsn if record else 0,
                "input_bytes": record.input_bytes if record else 0,
                "output_bytes": record.output_bytes if record else 0,
                "lag_us": 0,
                "updated_us": session.clock.now_us(),
            },
        )
