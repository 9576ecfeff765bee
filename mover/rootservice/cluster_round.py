"""Beginning an archive round of a cluster: for its tenants, and for each PG."""

from __future__ import annotations

import dataclasses

from mover.datapath.log_packer import RoundStart
from mover.media.archive import build_kickoff_block
from mover.media.archive_index import ArchiveKey
from mover.media.archive_info import ArchiveStatus, begin_round
from mover.media.log_entry import Kickoff
from mover.repository.archive_state import load_rounds, publish_round, publish_rounds
from mover.repository.tenants import note_names, of_tenant
from mover.repository.tree import Repository
from mover.rootservice.lease import Lease
from mover.rootservice.session import Session
from mover.store.cluster import ClusterLog, ClusterTenant, LogStart, PGPlace

# What an observer writes as the start of a PG that was created after the round began.
BORN_IN_ROUND_TS = 1


async def begin_pg(
    repository: Repository, log: ClusterLog, place: PGPlace, round_id: int, now_us: int, start: LogStart | None = None
) -> None:
    """Write archive key and kickoff of a PG: what a later archiver needs to go on. Idempotent until log follows.

    Args:
        repository: of the PG's tenant.
        start: its oldest log; None asks the log for it.
    """
    start = start or await log.start_of(place)
    layout, tenant, pg = repository.layout, repository.tenant_id, place.pg
    start_ts = start.submit_ts or BORN_IN_ROUND_TS
    begin = RoundStart(
        start_ts,
        start.log_id,
        snapshot_version=start_ts,
        log_submit_ts=start.submit_ts,
        clog_epoch_id=start.epoch,
        accum_checksum=start.accum,
    )
    kickoff = build_kickoff_block(
        pg,
        start.log_id,
        Kickoff(start_ts, start_ts, start_ts),
        timestamp=now_us,
        accum_checksum=start.accum,
        start_submit_ts=start.submit_ts,
    )
    data = layout.archive_data(tenant, round_id, pg, 1)
    if await repository.target.stat(data) is None:
        await repository.target.put(data, kickoff, if_absent=True)
    key = ArchiveKey(is_first_piece=True, max_index_file_id=0, index=begin.record(0, None, None))
    # The key last: whoever finds it finds the kickoff.
    await repository.write(layout.archive_key(tenant, round_id, pg), key.pack())


async def begin_tenant(session: Session, lease: Lease, tenant: ClusterTenant, round_id: int, now_us: int) -> None:
    """Enter a tenant that was created while the round is DOING. Idempotent."""
    repository = of_tenant(session.repository, tenant.tenant_id)
    await note_names(session.repository, {tenant.name: tenant.tenant_id}, now_us)
    await enter_round(repository, round_id, now_us)
    lease.check()
    await set_doing(repository, now_us)


async def enter_round(repository: Repository, round_id: int, start_ts: int) -> None:
    """Append the round to a tenant's list, as BEGINNING. A beginning that died half way is begun again."""
    rounds = await load_rounds(repository)
    if rounds and rounds[-1].round_id == round_id and rounds[-1].status == ArchiveStatus.BEGINNING:
        rounds = (*rounds[:-1], dataclasses.replace(rounds[-1], start_ts=start_ts))
    else:
        rounds = begin_round(rounds, repository.tenant_id, start_ts, round_id=round_id)
    await publish_rounds(repository, rounds)


async def set_doing(repository: Repository, start_ts: int) -> None:
    """BEGINNING becomes DOING. Everything that a later archiver needs is durable."""
    last = (await load_rounds(repository))[-1]
    doing = dataclasses.replace(
        last,
        status=ArchiveStatus.DOING,
        start_ts=start_ts,
        checkpoint_ts=start_ts,
        is_mount_file_created=repository.target.capabilities.device_type == "FILE",
    )
    await publish_round(repository, doing)
