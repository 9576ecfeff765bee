"""The verbs of log archiving for a cluster of many tenants and PGs; see :mod:`mover.rootservice.archive`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import defaultdict

from mover.errors import OB_START_LOG_ARCHIVE_FAILED, PreconditionError, SourceError
from mover.events import Phase
from mover.media.archive_index import ArchiveStart
from mover.media.archive_info import ArchiveStatus, current_round, encode_mount_file
from mover.media.cluster_record import ClusterRecord, TenantShare
from mover.media.layout import SYS_TENANT_ID
from mover.repository.archive_state import (
    load_rounds,
    load_shown_record,
    publish_cluster_record,
    publish_round,
    require_doing,
)
from mover.repository.tenants import known_tenants, note_names, of_tenant
from mover.rootservice.cluster_archiver import ClusterArchiver
from mover.rootservice.cluster_round import begin_pg, enter_round, set_doing
from mover.rootservice.lease import Lease
from mover.rootservice.round_views import ArchiveView, RoundView
from mover.rootservice.same_destination import require_known_rounds, require_mount_file
from mover.rootservice.session import Session
from mover.rootservice.side_by_side import side_by_side
from mover.store.cluster import Cluster, LogStart, PGPlace


async def start(session: Session, cluster: Cluster, lease: Lease) -> ArchiveView:
    """ARCHIVELOG: begin a new round of every tenant at the oldest log that each PG still has, and bring it to DOING.

    Raises PreconditionError when a round is not stopped yet.
    """
    repository = of_tenant(session.repository, SYS_TENANT_ID)
    tenants = {tenant.tenant_id: tenant for tenant in await cluster.tenants()}
    places = await cluster.places()
    if not places:
        raise SourceError("the cluster has no PG of a tenant other than sys", hint="there is nothing to archive")
    number = 0
    for tenant_id in (SYS_TENANT_ID, *tenants):
        own = of_tenant(repository, tenant_id)
        current = current_round(await load_rounds(own))
        if tenant_id != SYS_TENANT_ID and current is not None and current.status != ArchiveStatus.STOP:
            # The cluster's round begins and ends last, and is none that runs: the start or stop of it died half way.
            current = dataclasses.replace(current, status=ArchiveStatus.STOP)
            lease.check()
            await publish_round(own, current)
        if current is not None and current.status not in (ArchiveStatus.STOP, ArchiveStatus.BEGINNING):
            name = ArchiveStatus(current.status).name
            raise PreconditionError(
                f"archive round {current.round_id} of tenant {tenant_id} is {name}:"
                " start log archive backup when not STOP is not supported",
                code=OB_START_LOG_ARCHIVE_FAILED,
                hint="`mover archivelog run` goes on with a round that is DOING; `stop` ends it",
            )
        number = max(number, current.round_id if current else 0)
    await require_known_rounds(session, await load_rounds(repository))
    round_id, now_us, layout = number + 1, session.clock.now_us(), repository.layout
    session.emit(Phase("archive", "begin", f"round {round_id} of {len(tenants)} tenants, {len(places)} PGs"))
    log = await cluster.log()
    try:
        starts = {place: await log.start_of(place) for place in places}
        start_us = _start_of(starts, min(await log.oldest_us() or now_us, now_us))
        lease.check()
        for tenant_id in (SYS_TENANT_ID, *tenants):
            await enter_round(of_tenant(repository, tenant_id), round_id, start_us)
        await note_names(repository, {tenant.name: tenant.tenant_id for tenant in tenants.values()}, now_us)
        for server in await cluster.servers():
            path = layout.clog_info(server.server_id, server.ip, server.port)
            await repository.write(path, ArchiveStart(round_id, start_us).pack())
        if repository.target.capabilities.device_type == "FILE":
            await repository.write(layout.mount_file(round_id), encode_mount_file(round_id))
        lease.check()
        await side_by_side(
            [
                begin_pg(of_tenant(repository, place.tenant_id), log, place, round_id, now_us, found)
                for place, found in starts.items()
            ]
        )
    finally:
        await log.aclose()
    shares = {tenant_id: TenantShare(start_us, start_us) for tenant_id in tenants}
    record = ClusterRecord(round_id, "", lease.epoch, now_us, tenants=shares)
    await publish_cluster_record(repository, record)
    for tenant_id in (*tenants, SYS_TENANT_ID):
        # DOING only now, and the cluster last: the kickoffs of all PGs are durable.
        lease.check()
        await set_doing(of_tenant(repository, tenant_id), start_us)
    return await round_views(session)


def _start_of(starts: dict[PGPlace, LogStart], oldest_us: int) -> int:
    """From when on the log of every PG is in the round, us: a PG whose first log is there has all of it."""
    return max((found.submit_ts for found in starts.values() if found.log_id > 1), default=oldest_us)


async def run(
    session: Session, cluster: Cluster, lease: Lease, *, until_caught_up: bool, stop: asyncio.Event
) -> ArchiveView:
    """Archive the current round in the foreground; see :meth:`ClusterArchiver.run`."""
    await require_known_rounds(session, await load_rounds(session.repository))
    current = await require_doing(of_tenant(session.repository, SYS_TENANT_ID))
    await require_mount_file(session.repository, current)
    log = await cluster.log()
    try:
        archiver = await ClusterArchiver.resume(session, lease, cluster, log, current.round_id)
        await archiver.run(until_caught_up=until_caught_up, stop=stop)
    finally:
        await log.aclose()
    return await round_views(session)


async def catch_up(session: Session, cluster: Cluster, lease: Lease) -> None:
    """Archive everything that is confirmed now."""
    current = await require_doing(of_tenant(session.repository, SYS_TENANT_ID))
    log = await cluster.log()
    try:
        archiver = await ClusterArchiver.resume(session, lease, cluster, log, current.round_id)
        await archiver.catch_up()
    finally:
        await log.aclose()


async def end(session: Session, lease: Lease) -> ArchiveView:
    """End the current round of every tenant, without an archiver at work: it ends where its log ends. Idempotent."""
    repository = of_tenant(session.repository, SYS_TENANT_ID)
    current = current_round(await load_rounds(repository))
    if current is None:
        return await round_views(session)
    tenants = [tenant for tenant in await known_tenants(repository) if tenant != SYS_TENANT_ID]
    for tenant_id in (*tenants, SYS_TENANT_ID):
        own = of_tenant(repository, tenant_id)
        for status in (ArchiveStatus.STOPPING, ArchiveStatus.STOP):
            found = current_round(await load_rounds(own))
            if found is not None and found.round_id == current.round_id and found.status != ArchiveStatus.STOP:
                lease.check()
                await publish_round(own, dataclasses.replace(found, status=status))
    return await round_views(session)


async def round_views(session: Session) -> ArchiveView:
    """The newest round of every tenant that has one, the cluster's row (tenant 1) last."""
    views: dict[int, list[RoundView]] = defaultdict(list)
    for tenant_id in await known_tenants(session.repository):
        repository = of_tenant(session.repository, tenant_id)
        current = current_round(await load_rounds(repository))
        if current is not None:
            record = await load_shown_record(repository, current.round_id)
            views[tenant_id].append(RoundView(tenant_id, current, record, None))
    ordered = sorted(views, key=lambda tenant: (tenant == SYS_TENANT_ID, tenant))
    return ArchiveView(tuple(view for tenant in ordered for view in views[tenant]))
