"""How far each archive round is, as it is shown. Everything here is known from the destination alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mover.clock import iso_from_us
from mover.media.archive_info import ArchiveRound, ArchiveStatus
from mover.media.round_record import RoundRecord
from mover.repository.archive_state import load_rounds, load_shown_record
from mover.repository.tenants import known_tenants, of_tenant
from mover.rootservice.session import Session


@dataclass(frozen=True, slots=True)
class RoundView:
    """One round as it is shown. Lag is how long ago the archive had everything that was committed then."""

    tenant_id: int
    info: ArchiveRound
    record: RoundRecord | None
    lag_seconds: float | None

    @property
    def status(self) -> str:
        return ArchiveStatus(self.info.status).name

    def as_json(self) -> dict[str, object]:
        record = self.record
        return {
            "round": self.info.round_id,
            "tenant_id": self.tenant_id,
            "status": self.status,
            "min_first_time": iso_from_us(self.info.start_ts),
            # The info files follow the record.
            "max_next_time": iso_from_us(max(self.info.checkpoint_ts, record.checkpoint_scn // 1000 if record else 0)),
            "checkpoint_scn": record.checkpoint_scn if record else self.info.checkpoint_ts * 1000,
            "checkpoint_lsn": record.checkpoint_lsn if record else 0,
            "lag_seconds": self.lag_seconds,
            "start_scn": record.start_scn if record else self.info.start_ts * 1000,
            "start_lsn": record.start_lsn if record else 0,
            "input_bytes": record.input_bytes if record else 0,
            "output_bytes": record.output_bytes if record else 0,
            "archiver": record.holder if record else "",
            "gap": dataclasses.asdict(record.gap) if record and record.gap else None,
        }


@dataclass(frozen=True, slots=True)
class ArchiveView:
    """Rounds of one tenant, or of several, oldest first."""

    rounds: tuple[RoundView, ...]

    def as_json(self) -> dict[str, object]:
        return {"rounds": [view.as_json() for view in self.rounds]}


async def archive_view(session: Session) -> ArchiveView:
    """What the destination says about every round. Needs no source, no catalog and no lease."""
    now_us = session.clock.now_us()
    views = []
    for tenant_id in await known_tenants(session.repository):
        repository = of_tenant(session.repository, tenant_id)
        for info in await load_rounds(repository):
            record = await load_shown_record(repository, info.round_id)
            running = info.status in {ArchiveStatus.BEGINNING, ArchiveStatus.DOING, ArchiveStatus.STOPPING}
            since = (record.caught_up_us if record else 0) or info.checkpoint_ts
            lag = max(0, now_us - since) / 1e6 if running else None
            views.append(RoundView(tenant_id, info, record, lag))
    return ArchiveView(tuple(views))
