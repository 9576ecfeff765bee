"""What the events of a job add up to: each tenant's counters, how fast they move, and when they will be done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mover.cli.units import bytes_text, rate_text, ratio_text, span_text
from mover.clock import iso_from_scn
from mover.events import ArchiveProgress, Phase, Progress

_WINDOW_SECONDS = 15.0


@dataclass(slots=True)
class Rate:
    """Units per second over the last few seconds of a counter that only grows."""

    samples: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, now: float, count: float) -> None:
        if self.samples and count < self.samples[-1][1]:
            self.samples.clear()  # another job began: what came before says nothing about it
        self.samples.append((now, count))
        while len(self.samples) > 2 and now - self.samples[1][0] > _WINDOW_SECONDS:
            self.samples.popleft()

    def per_second(self, now: float) -> float:
        """Falls towards zero while nothing is added: a stall shows."""
        if not self.samples:
            return 0.0
        (began, first), (_, last) = self.samples[0], self.samples[-1]
        return (last - first) / (now - began) if now > began else 0.0


@dataclass(slots=True)
class Gauge:
    """One row of the display: a job and a tenant."""

    job: str
    tenant_id: int
    phase: str = ""
    progress: Progress | None = None
    archive: ArchiveProgress | None = None
    bytes_rate: Rate = field(default_factory=Rate)
    work_rate: Rate = field(default_factory=Rate)

    @property
    def title(self) -> str:
        # An archive has one phase for most of its life; its round says more.
        shown = self.phase if self.archive is None else ""
        whose = f" tenant {self.tenant_id}" if self.tenant_id else ""  # a copy is of all of them
        return f"{self.job}{whose}" + (f" ({shown})" if shown else "")

    def work(self) -> tuple[int, int]:
        """Done and total in the unit that has a total: bytes, else blocks, else partitions; total 0 is unknown."""
        state = self.progress
        if state is None:
            return 0, 0
        if state.bytes_in_total:
            return state.bytes_in, state.bytes_in_total
        if state.blocks_total:
            return state.blocks_done, state.blocks_total
        return state.partitions_done, state.partitions_total

    def eta(self, now: float) -> float | None:
        """Seconds to go at the present speed; None when nobody can tell."""
        done, total = self.work()
        speed = self.work_rate.per_second(now)
        return (total - done) / speed if total > done and speed > 0 else None

    def text(self, now: float) -> str:
        """The counters, without the title."""
        parts = self._archive_parts() if self.archive is not None else self._progress_parts()
        if self.bytes_rate.samples:
            parts.append(rate_text(self.bytes_rate.per_second(now)))
        eta = self.eta(now)
        if eta is not None:
            parts.append(f"eta {span_text(eta)}")
        if self.archive is not None:
            # Last: it is long, and a narrow terminal cuts the end off.
            scn = self.archive.checkpoint_scn
            parts.append(f"checkpoint {iso_from_scn(scn) if scn else 'none yet'} (lsn {self.archive.checkpoint_lsn})")
        return ", ".join(parts)

    def _archive_parts(self) -> list[str]:
        state = self.archive
        if state is None:
            return []
        return [
            f"round {state.round_id}",
            f"lag {span_text(state.lag_seconds)}",
            f"{bytes_text(state.pending_bytes)} pending",
            f"{bytes_text(state.bytes_in)} in",
            f"{bytes_text(state.bytes_out)} out",
        ]

    def _progress_parts(self) -> list[str]:
        state = self.progress
        if state is None:
            return []
        parts = []
        if state.partitions_total > 1:
            parts.append(f"{state.partitions_done}/{state.partitions_total} partitions")
        if state.blocks_done or state.blocks_total:
            total = f"/{state.blocks_total}" if state.blocks_total else ""
            parts.append(f"{state.blocks_done}{total} blocks")
        if state.blocks_reused:
            parts.append(f"{state.blocks_reused} reused")
        if state.bytes_in:
            total = f" of {bytes_text(state.bytes_in_total)}" if state.bytes_in_total else ""
            parts.append(f"{bytes_text(state.bytes_in)}{total} in")
        if state.bytes_out:
            parts.append(f"{bytes_text(state.bytes_out)} out ({ratio_text(state.bytes_in, state.bytes_out)})")
        return parts


class Meter:
    """Gauges by job and tenant, fed with events."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self.gauges: dict[tuple[str, int], Gauge] = {}
        self._phases: dict[str, str] = {}

    def update(self, event: Progress | ArchiveProgress | Phase) -> Gauge | None:
        """Take an event in; the gauge it moved, if it moved one."""
        now = self.monotonic()
        if isinstance(event, Phase):
            self._phases[event.job] = event.name
            for gauge in self.gauges.values():
                if gauge.job == event.job:
                    gauge.phase = event.name
            return None
        job = "archive" if isinstance(event, ArchiveProgress) else event.job
        gauge = self.gauges.setdefault((job, event.tenant_id), Gauge(job, event.tenant_id, self._phases.get(job, "")))
        gauge.bytes_rate.add(now, event.bytes_in)
        if isinstance(event, ArchiveProgress):
            gauge.archive = event
        else:
            gauge.progress = event
            gauge.work_rate.add(now, gauge.work()[0])
        return gauge
