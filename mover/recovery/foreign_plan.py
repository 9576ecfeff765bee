"""Which moments of a foreign tree can be restored: pure functions over sets, rounds and how far each PG's log holds.

OceanBase's rule: a set and its log lie in one round, and a set restores to any moment from its snapshot to the
checkpoint of that round. Where log is missing, less: the moment ends before the first log that is lost of any PG. Which
log a set needs first is inside its PG metas, which are not decoded; so after a loss a set counts again only in a later
round, or when nothing of the PG was lost before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mover.recovery.findings import LogReach
from mover.recovery.plan import Hole, Recoverable, Window

_US = 1000  # ns: SCNs are nanoseconds, OceanBase 3.x has microseconds


@dataclass(frozen=True, slots=True)
class ForeignSet:
    """A backup of one tenant. ``problem``: why it cannot be restored, "" when it can."""

    set_id: int
    snapshot_ts: int  # us
    pgs: tuple[tuple[int, int], ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A round, or consecutive pieces of one: log without a piece missing. Times in us.

    ``ended_by``: why it ends before the round does, or why the round ended, "" when it goes on.
    """

    round_id: int
    status: str
    start_ts: int
    until_ts: int  # the checkpoint
    logs: tuple[LogReach, ...]
    ended_by: str = ""
    whole: bool = True  # from the beginning of the round: every PG has begun its log in it


def recoverable(tenant_id: int, sets: Sequence[ForeignSet], stretches: Sequence[Stretch]) -> Recoverable:
    """Every window and hole of a tenant, oldest first."""
    windows: list[Window] = []
    holes: list[Hole] = []
    unusable: list[tuple[int, Hole]] = []
    ordered = sorted(stretches, key=lambda s: (s.start_ts, s.round_id))
    for number, found in enumerate(ordered):
        of_round, around, refused = _of_stretch(tenant_id, sets, found)
        windows += of_round
        holes += around
        unusable += refused
        later = ordered[number + 1 :]
        resumed = min((s.start_ts for s in later if s.start_ts > found.until_ts), default=0)
        if found.ended_by:
            holes.append(_hole(tenant_id, found.until_ts, resumed, f"round {found.round_id}: {found.ended_by}"))
        elif later and later[0].start_ts > found.until_ts:
            text = f"nothing was archived between round {found.round_id} and round {later[0].round_id}"
            holes.append(_hole(tenant_id, found.until_ts, later[0].start_ts, text))
    for backup in sets:
        if backup.problem:
            holes.append(
                _hole(tenant_id, backup.snapshot_ts, backup.snapshot_ts, f"set {backup.set_id}: {backup.problem}")
            )
        elif not any(s.start_ts <= backup.snapshot_ts <= s.until_ts for s in ordered):
            holes.append(_hole(tenant_id, backup.snapshot_ts, backup.snapshot_ts, _isolated(backup, ordered)))
    windows.sort(key=lambda w: (w.from_scn, w.round_id))
    # A snapshot on the border of two rounds: what one of them lacks does not matter when the other restores the set.
    used = {number for window in windows for number in window.sets}
    holes += [hole for number, hole in unusable if number not in used]
    holes = sorted(dict.fromkeys(holes), key=lambda h: (h.from_scn, h.until_scn, h.reason))
    return Recoverable(tuple(windows), tuple(holes))


def _of_stretch(
    tenant_id: int, sets: Sequence[ForeignSet], found: Stretch
) -> tuple[list[Window], list[Hole], list[tuple[int, Hole]]]:
    """Its window, the holes around that, and the holes of sets it cannot restore, by set."""
    inside = [s for s in sets if not s.problem and found.start_ts <= s.snapshot_ts <= found.until_ts]
    reaches = {log.pg: _reach(log, found) for log in found.logs}
    known = {(log.table_id, log.partition_id) for log in found.logs}
    ends = [end for end, reason in reaches.values() if reason]
    until = min([found.until_ts, *ends])
    holes: list[Hole] = []
    refused: list[tuple[int, Hole]] = []
    usable: list[ForeignSet] = []
    for backup in sorted(inside, key=lambda s: s.snapshot_ts):
        silent = [pg for pg in backup.pgs if pg not in known] if found.whole else []
        if silent:
            text = f"set {backup.set_id}: round {found.round_id} has no log of PG {silent[0][0]}/{silent[0][1]}"
            more = f" and {len(silent) - 1} others" if len(silent) > 1 else ""
            refused.append((backup.set_id, _hole(tenant_id, backup.snapshot_ts, found.until_ts, text + more)))
        elif backup.snapshot_ts > until:
            text = f"set {backup.set_id} is complete, but log of round {found.round_id} before it is lost"
            refused.append((backup.set_id, _hole(tenant_id, backup.snapshot_ts, backup.snapshot_ts, text)))
        else:
            usable.append(backup)
    windows = []
    if usable:
        first = usable[0].snapshot_ts
        ids = tuple(sorted(s.set_id for s in usable))
        windows.append(Window(tenant_id, found.round_id, first * _US, until * _US, ids))
    first_ts = usable[0].snapshot_ts if usable else until
    if found.start_ts < first_ts:
        text = "no backup set is that old" if usable else "no complete backup set lies in this round"
        holes.append(_hole(tenant_id, found.start_ts, first_ts, f"round {found.round_id}: log is archived, but {text}"))
    if until < found.until_ts:
        holes.append(_hole(tenant_id, until, found.until_ts, _why(found, reaches)))
    return windows, holes, refused


def _reach(log: LogReach, found: Stretch) -> tuple[int, str]:
    """The last moment (us) that the PG's log restores to, and why not further ("" when to the checkpoint)."""
    first = next((span for span in log.spans if span.begins_round), None)
    if first is None or not first.ended_by:
        return found.until_ts, ""
    end = max(found.start_ts, min(first.until_ts, found.until_ts))
    return end, first.ended_by if end < found.until_ts else ""


def _why(found: Stretch, reaches: dict[str, tuple[int, str]]) -> str:
    broken = sorted((end, pg, reason) for pg, (end, reason) in reaches.items() if reason)
    _, pg, reason = broken[0]
    more = f"; {len(broken) - 1} other PGs lack log too" if len(broken) > 1 else ""
    return f"round {found.round_id}: log of PG {pg} is not whole: {reason}{more}"


def _isolated(backup: ForeignSet, ordered: Sequence[Stretch]) -> str:
    waiting = [s for s in ordered if s.status in {"BEGINNING", "DOING"} and s.start_ts <= backup.snapshot_ts]
    if waiting:
        return f"set {backup.set_id} is complete, but the archive has not reached its snapshot yet"
    before = [s.round_id for s in ordered if s.until_ts < backup.snapshot_ts]
    after = [s.round_id for s in ordered if s.start_ts > backup.snapshot_ts]
    if before and after:
        return f"set {backup.set_id} is isolated: its snapshot lies between rounds {before[-1]} and {after[0]}"
    return f"set {backup.set_id} is complete, but no round holds the log of its snapshot"


def _hole(tenant_id: int, from_ts: int, until_ts: int, reason: str) -> Hole:
    return Hole(tenant_id, from_ts * _US, until_ts * _US, reason)
