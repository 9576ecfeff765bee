"""What can be restored, read from the destination alone."""

from __future__ import annotations

from mover.errors import IntegrityError
from mover.media.archive_info import ArchiveRound, ArchiveStatus
from mover.recovery.plan import Hole, Recoverable, RoundSpan, SetSpan, recoverable
from mover.repository.archive_state import load_record, load_rounds
from mover.repository.sets import complete, load_facts, load_infos
from mover.repository.tree import Repository


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


async def _span(repository: Repository, info: ArchiveRound) -> RoundSpan:
    record = await load_record(repository, info.round_id)
    if record is None:
        # Not mover's: the info file has time but no position, so nothing can be promised.
        return RoundSpan(
            info.round_id, ArchiveStatus(info.status).name, 0, info.start_ts * 1000, 0, info.start_ts * 1000
        )
    return RoundSpan(
        round_id=info.round_id,
        status=ArchiveStatus(info.status).name,
        start_lsn=record.start_lsn,
        start_scn=record.start_scn,
        checkpoint_lsn=record.checkpoint_lsn,
        checkpoint_scn=record.checkpoint_scn or record.start_scn,
        gap=record.gap.reason if record.gap else "",
    )
