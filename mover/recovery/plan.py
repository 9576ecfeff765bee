"""Which moments can be restored, and from what: pure functions over what the destination holds.

A backup set restores to any moment from its own end (it is consistent only with log up to there) to the checkpoint of
the archive round whose log it needs. A set and its log must lie in one round, as in OceanBase.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from mover.clock import iso_from_scn
from mover.errors import PreconditionError


@dataclass(frozen=True, slots=True)
class SetSpan:
    """A complete backup set: the log it needs, and the first moment it restores to."""

    set_id: int
    start_lsn: int
    end_lsn: int
    end_scn: int


@dataclass(frozen=True, slots=True)
class RoundSpan:
    """An archive round: the log it holds, from start to checkpoint."""

    round_id: int
    status: str
    start_lsn: int
    start_scn: int
    checkpoint_lsn: int
    checkpoint_scn: int
    gap: str = ""  # why the round ended, for an interrupted one

    def covers(self, backup: SetSpan) -> bool:
        """True when every log byte the set needs is durable in this round."""
        return self.start_lsn <= backup.start_lsn and backup.end_lsn <= self.checkpoint_lsn

    def reach(self, sets: Sequence[SetSpan]) -> int:
        """The last SCN its log restores to: the checkpoint's, or that of a set which ends by the checkpoint."""
        return max([self.checkpoint_scn, *(s.end_scn for s in sets if self.covers(s))])


@dataclass(frozen=True, slots=True)
class Window:
    """Every SCN in [from_scn, until_scn] can be restored."""

    tenant_id: int
    round_id: int
    from_scn: int
    until_scn: int
    sets: tuple[int, ...]

    def as_json(self) -> dict[str, object]:
        return {
            "tenant_id": self.tenant_id,
            "from": iso_from_scn(self.from_scn),
            "until": iso_from_scn(self.until_scn),
            "from_scn": self.from_scn,
            "until_scn": self.until_scn,
            "sets": list(self.sets),
            "round": self.round_id,
        }


@dataclass(frozen=True, slots=True)
class Hole:
    """Time that cannot be restored, and why. Open ends are 0."""

    tenant_id: int
    from_scn: int
    until_scn: int
    reason: str

    def as_json(self) -> dict[str, object]:
        return {
            "tenant_id": self.tenant_id,
            "from": iso_from_scn(self.from_scn) if self.from_scn else None,
            "until": iso_from_scn(self.until_scn) if self.until_scn else None,
            "from_scn": self.from_scn,
            "until_scn": self.until_scn,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Recoverable:
    """All windows and holes of a tenant, oldest first."""

    windows: tuple[Window, ...]
    holes: tuple[Hole, ...]

    def as_json(self) -> dict[str, object]:
        return {
            "windows": [window.as_json() for window in self.windows],
            "holes": [hole.as_json() for hole in self.holes],
        }


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """The decision: this set, log of this round, up to this SCN (inclusive)."""

    set: SetSpan
    round: RoundSpan
    until_scn: int


def recoverable(tenant_id: int, sets: Sequence[SetSpan], rounds: Sequence[RoundSpan]) -> Recoverable:
    """Windows and holes from complete sets and all rounds."""
    windows: list[Window] = []
    holes: list[Hole] = []
    for found in sorted(rounds, key=lambda r: r.round_id):
        usable = sorted((s for s in sets if found.covers(s)), key=lambda s: s.end_scn)
        if usable:
            first = usable[0].end_scn
            until = found.reach(usable)
            ids = tuple(sorted(s.set_id for s in usable))
            windows.append(Window(tenant_id, found.round_id, first, until, ids))
            if found.start_scn < first:
                reason = f"round {found.round_id}: log is archived, but no backup set is that old"
                holes.append(Hole(tenant_id, found.start_scn, first, reason))
        elif found.checkpoint_scn > found.start_scn:
            reason = f"round {found.round_id}: log is archived, but no complete backup set lies in this round"
            holes.append(Hole(tenant_id, found.start_scn, found.checkpoint_scn, reason))
        if found.gap:
            resumed = min((r.start_scn for r in rounds if r.round_id > found.round_id), default=0)
            holes.append(Hole(tenant_id, found.checkpoint_scn, resumed, f"round {found.round_id}: {found.gap}"))
    ordered = sorted(rounds, key=lambda r: r.round_id)
    for before, after in itertools.pairwise(ordered):
        if not before.gap and before.checkpoint_scn < after.start_scn:
            reason = f"nothing was archived between round {before.round_id} and round {after.round_id}"
            holes.append(Hole(tenant_id, before.checkpoint_scn, after.start_scn, reason))
    holes.extend(_isolated(tenant_id, sets, rounds))
    windows.sort(key=lambda w: (w.from_scn, w.round_id))
    holes.sort(key=lambda h: (h.from_scn, h.until_scn))
    return Recoverable(tuple(windows), tuple(holes))


def _isolated(tenant_id: int, sets: Sequence[SetSpan], rounds: Sequence[RoundSpan]) -> list[Hole]:
    """A hole for each complete set that no round covers."""
    holes = []
    for backup in sets:
        if any(r.covers(backup) for r in rounds):
            continue
        waiting = [r for r in rounds if r.start_lsn <= backup.start_lsn and r.status in {"BEGINNING", "DOING"}]
        if waiting:
            need = backup.end_lsn - waiting[-1].checkpoint_lsn
            reason = f"set {backup.set_id} is complete, but the archive has {need} bytes of log to go until its end"
        else:
            reason = f"set {backup.set_id} is complete, but no round holds its log from LSN {backup.start_lsn}"
        holes.append(Hole(tenant_id, backup.end_scn, backup.end_scn, reason))
    return holes


def describe(windows: Sequence[Window]) -> str:
    """The windows in one line, for error texts."""
    if not windows:
        return "nothing can be restored yet"
    return "; ".join(
        f"{iso_from_scn(w.from_scn)} to {iso_from_scn(w.until_scn)} (SCN {w.from_scn} to {w.until_scn},"
        f" sets {', '.join(map(str, w.sets))})"
        for w in windows
    )


def choose(
    tenant_id: int,
    sets: Sequence[SetSpan],
    rounds: Sequence[RoundSpan],
    *,
    set_id: int | None,
    until_scn: int | None,
) -> RestorePoint:
    """The set and the round that restore to a moment.

    Args:
        set_id: use this set; None takes the newest one that ends by the moment.
        until_scn: the moment, inclusive; None takes the end of the newest log.

    Raises PreconditionError naming the recoverable windows when the moment is in none of them.
    """
    report = recoverable(tenant_id, sets, rounds)
    hint = f"recoverable: {describe(report.windows)}"
    if set_id is not None and all(s.set_id != set_id for s in sets):
        raise PreconditionError(f"backup set {set_id} is not a complete set of tenant {tenant_id}", hint=hint)
    fitting = []
    for found in rounds:
        reach = found.reach(sets)
        until = reach if until_scn is None else until_scn
        fitting += [
            RestorePoint(backup, found, until)
            for backup in sets
            if (set_id is None or backup.set_id == set_id) and found.covers(backup) and backup.end_scn <= until <= reach
        ]
    if not fitting:
        what = "the newest moment" if until_scn is None else f"SCN {until_scn} ({iso_from_scn(until_scn)})"
        which = "any backup set" if set_id is None else f"backup set {set_id}"
        raise PreconditionError(f"{what} cannot be restored from {which} of tenant {tenant_id}", hint=hint)
    # The newest set replays least log; of two rounds that both cover it, the later one reaches further.
    return max(fitting, key=lambda point: (point.until_scn, point.set.end_scn, point.round.round_id))
