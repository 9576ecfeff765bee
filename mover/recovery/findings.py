"""What a check of a foreign tree says: damage with its place, notes, and how far each PG's log holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mover.errors import MoverError

Read = Callable[[str, int], None]
"""Told the path and the size of each file that was read whole."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not what it must be. ``where``: tenant_id, pg, from_log_id, until_log_id, set ..."""

    path: str
    offset: int
    kind: str
    message: str
    where: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, exc: MoverError, path: str, **where: Any) -> Damage:
        """From an error, with the place it names itself."""
        known = {key: value for key, value in exc.where.items() if key not in {"path", "offset", "expected"}}
        named = str(exc.where.get("path") or path)
        return cls(named, int(exc.where.get("offset") or 0), exc.kind, exc.message, {**known, **where})


@dataclass(frozen=True, slots=True)
class Span:
    """A run of log without a gap: ids inclusive, times in us. ``until_log_id`` is below ``from_log_id`` for none."""

    from_log_id: int
    until_log_id: int
    from_ts: int  # submit time at its beginning
    until_ts: int  # the checkpoint of its last block: everything up to here is in it
    begins_round: bool  # nothing of the round (or of what is kept of it) is missing before it
    ended_by: str = ""  # why it ends; "" for the one that goes on to the checkpoint of the round


@dataclass(frozen=True, slots=True)
class LogReach:
    """How far the log of one PG holds. No span: it has written no log since the round began."""

    table_id: int
    partition_id: int
    spans: tuple[Span, ...]

    @property
    def pg(self) -> str:
        return f"{self.table_id}/{self.partition_id}"


@dataclass(slots=True)
class Findings:
    """All of one tenant, or of one part of it."""

    damages: list[Damage] = field(default_factory=list)
    notes: list[Damage] = field(default_factory=list)  # not damage, but a person should know

    def add(self, other: Findings) -> None:
        self.damages += other.damages
        self.notes += other.notes
