"""What can be restored, read from the destination alone."""

from __future__ import annotations

from mover.errors import FormatError, IntegrityError, LogGapError
from mover.media.archive_info import ArchiveRound, ArchiveStatus
from mover.media.layout import SYS_TENANT_ID
from mover.recovery.foreign import ForeignCheck
from mover.recovery.foreign_tree import scan_tree
from mover.recovery.plan import Hole, Recoverable, RoundSpan, SetSpan, recoverable
from mover.repository.archive_state import load_record, load_rounds
from mover.repository.rounds import RoundReader, archived_pgs
from mover.repository.sets import complete, load_facts, load_infos
from mover.repository.tree import Repository
from mover.target.slots import most_of


async def load_spans(
    repository: Repository, *, damaged: dict[int, IntegrityError] | None = None
) -> tuple[list[SetSpan], list[RoundSpan]]:
    """Complete sets and archive rounds of the tenant, as the plan needs them.

    Args:
        damaged: takes the sets whose manifest does not decode, by number; without it the first such set is raised.
    """
    sets = []
    for info in complete(await load_infos(repository)):
        try:
            facts = await load_facts(repository, info)
        except IntegrityError as exc:
            if damaged is None:
                raise
            damaged[info.inc_backup_set_id] = exc
            continue
        if facts is not None:
            sets.append(SetSpan(info.inc_backup_set_id, facts.start_lsn, facts.end_lsn, facts.end_scn))
    rounds = [await _span(repository, info) for info in await load_rounds(repository)]
    return sets, rounds


async def windows(repository: Repository) -> Recoverable:
    """Every recoverable interval of the tenant and the reason for each hole."""
    damaged: dict[int, IntegrityError] = {}
    sets, rounds = await load_spans(repository, damaged=damaged)
    found = recoverable(repository.tenant_id, sets, rounds)
    holes = [Hole(repository.tenant_id, 0, 0, f"set {number}: {exc.message}") for number, exc in damaged.items()]
    return Recoverable(found.windows, (*holes, *found.holes))


async def all_windows(repository: Repository, *, concurrency: int | None = None) -> Recoverable:
    """Windows and holes of the repository's tenant, and of every tenant of a tree that OceanBase wrote.

    Args:
        concurrency: requests under way; None for as many as pay.
    """
    tree = scan_tree([info async for info in repository.target.list("")])
    found = [await windows(repository)]
    for tenant in sorted(tree.tenants.values(), key=lambda t: (t.incarnation_dir, t.tenant_id)):
        # Of the sys tenant there is only the cluster's list of rounds: neither its log nor its data is backed up.
        nothing = tenant.tenant_id == SYS_TENANT_ID and not tenant.pg_keys()
        if not tenant.by_mover and not nothing and (tenant.sets or tenant.pieces or tenant.infos):
            check = ForeignCheck(repository.target, tenant, concurrency=most_of(concurrency))
            report = await check.windows()
            damages = report.findings.damages
            holes = [Hole(tenant.tenant_id, 0, 0, f"{damage.path}: {damage.message}") for damage in damages]
            found += [report.recoverable, Recoverable((), tuple(holes))]
    return Recoverable(
        tuple(window for part in found for window in part.windows), tuple(hole for part in found for hole in part.holes)
    )


async def _span(repository: Repository, info: ArchiveRound) -> RoundSpan:
    record = await load_record(repository, info.round_id)
    if record is None:
        return await _span_of_log(repository, info)
    return RoundSpan(
        round_id=info.round_id,
        status=ArchiveStatus(info.status).name,
        start_lsn=record.start_lsn,
        start_scn=record.start_scn,
        checkpoint_lsn=record.checkpoint_lsn,
        checkpoint_scn=record.checkpoint_scn or record.start_scn,
        gap=record.gap.reason if record.gap else "",
    )


async def _span_of_log(repository: Repository, info: ArchiveRound) -> RoundSpan:
    """A round that lost mover's record: its log says itself how far it reaches. Nothing for log that is not PALF."""
    status, start_scn = ArchiveStatus(info.status).name, info.start_ts * 1000
    for pg in await archived_pgs(repository, info.round_id):
        reader = RoundReader(repository, info.round_id, pg)
        try:
            tail = await reader.tail()
            files = [number for number, _ in await reader.data_files()]
            first = None
            for number in files:
                first = await reader.first_lsn(number)
                if first is not None:
                    break
        except (FormatError, LogGapError):
            continue
        if tail.cursor is not None and first is not None:
            return RoundSpan(
                info.round_id, status, first, start_scn, tail.cursor.lsn, max(start_scn, tail.cursor.scn or 0)
            )
    # The info file has time but no position, so nothing can be promised.
    return RoundSpan(info.round_id, status, 0, start_scn, 0, start_scn)
