"""What happens, as typed values: the only source of the live display, JSON lines and metrics.

Whoever embeds mover passes a callable; it is called on the event loop, must not block, and its exceptions end the job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """A job entered a phase ("bulk", "window", "meta", "publish", "wait-archive", "download", ...)."""

    job: str  # "backup", "archive", "restore", "validate", "demo"
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Counters of a job, totals so far. A total of 0 means not known yet."""

    job: str
    tenant_id: int
    partitions_done: int = 0
    partitions_total: int = 0
    blocks_done: int = 0
    blocks_total: int = 0
    blocks_reused: int = 0
    bytes_in: int = 0
    bytes_in_total: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class ArchiveProgress:
    """How far the archive is. ``lag_seconds`` is how old the oldest committed log is that is not durable yet."""

    tenant_id: int
    round_id: int
    checkpoint_scn: int
    checkpoint_lsn: int
    bytes_in: int
    bytes_out: int
    pending_bytes: int
    lag_seconds: float


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know that does not stop the job."""

    job: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Scheduled:
    """What will be done next, and when: microseconds since the epoch."""

    job: str  # "serve"
    work: str  # "full", "incremental"
    at_us: int


Event = Phase | Progress | ArchiveProgress | Notice | Scheduled
Emit = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The listener of whoever does not listen."""
