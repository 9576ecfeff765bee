"""What can be restored of a foreign tree, as a pure function."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mover.recovery.findings import LogReach, Span
from mover.recovery.foreign_plan import ForeignSet, Stretch, recoverable

A, B = (1 << 40 | 1, 0), (1 << 40 | 2, 0)


def whole(pg: tuple[int, int]) -> LogReach:
    return LogReach(*pg, (Span(1, 9, 0, 50, begins_round=True),))


def cut(pg: tuple[int, int], at: int, why: str = "torn") -> LogReach:
    return LogReach(
        *pg, (Span(1, 5, 0, at, begins_round=True, ended_by=why), Span(8, 9, at + 5, 99, begins_round=False))
    )


def test_from_the_oldest_set_to_the_checkpoint() -> None:
    found = recoverable(
        7, [ForeignSet(1, 20, (A,)), ForeignSet(2, 40, (A,))], [Stretch(1, "DOING", 10, 60, (whole(A),))]
    )
    (window,) = found.windows
    assert (window.from_scn, window.until_scn, window.sets) == (20_000, 60_000, (1, 2))
    (hole,) = found.holes
    assert (hole.from_scn, hole.until_scn) == (10_000, 20_000)
    assert "no backup set is that old" in hole.reason


def test_the_first_pg_whose_log_breaks_ends_the_window_and_is_named() -> None:
    logs = (whole(A), cut(B, 45, "data file 3 is missing"))
    found = recoverable(7, [ForeignSet(1, 20, (A, B)), ForeignSet(2, 48, (A, B))], [Stretch(1, "STOP", 10, 60, logs)])
    assert [(w.from_scn, w.until_scn, w.sets) for w in found.windows] == [(20_000, 45_000, (1,))]
    reasons = {hole.reason for hole in found.holes}
    assert any("data file 3 is missing" in reason and f"PG {B[0]}/0" in reason for reason in reasons)
    assert any(reason.startswith("set 2 is complete, but log") for reason in reasons)


def test_reasons_of_sets_that_do_not_count() -> None:
    rounds = [Stretch(1, "INTERRUPTED", 10, 20, (whole(A),), "interrupted"), Stretch(2, "DOING", 40, 50, (whole(A),))]
    sets = [
        ForeignSet(1, 30, (A,)),
        ForeignSet(2, 45, (A, B)),
        ForeignSet(3, 60, (A,)),
        ForeignSet(4, 46, (A,), "it failed"),
    ]
    found = recoverable(7, sets, rounds)
    assert found.windows == ()
    reasons = [hole.reason for hole in found.holes]
    for text in (
        "set 1 is isolated: its snapshot lies between rounds 1 and 2",
        f"set 2: round 2 has no log of PG {B[0]}/0",
        "set 3 is complete, but the archive has not reached its snapshot yet",
        "set 4: it failed",
        "round 1: interrupted",
    ):
        assert text in reasons
    (gap,) = [hole for hole in found.holes if hole.reason == "round 1: interrupted"]
    assert (gap.from_scn, gap.until_scn) == (20_000, 40_000)


times = st.integers(1, 60)
reaches = st.builds(lambda pg, at: whole(pg) if at is None else cut(pg, at), st.sampled_from([A, B]), st.none() | times)
stretches = st.builds(
    lambda number, start, length, logs, why: Stretch(number, "STOP", start, start + length, tuple(logs), why),
    st.integers(1, 4),
    times,
    times,
    st.lists(reaches, max_size=2, unique_by=lambda log: log.table_id),
    st.sampled_from(["", "interrupted"]),
)
backups = st.builds(
    ForeignSet, st.integers(1, 9), times, st.sampled_from([(A,), (B,), (A, B)]), st.sampled_from(["", "it failed"])
)


@given(
    st.lists(backups, max_size=5, unique_by=lambda s: s.set_id),
    st.lists(stretches, max_size=4, unique_by=lambda s: s.round_id),
)
def test_every_window_holds_and_every_set_is_accounted_for(sets: list[ForeignSet], rounds: list[Stretch]) -> None:
    found = recoverable(7, sets, rounds)
    by_id = {backup.set_id: backup for backup in sets}
    by_round = {stretch.round_id: stretch for stretch in rounds}
    for window in found.windows:
        stretch = by_round[window.round_id]
        assert stretch.start_ts * 1000 <= window.from_scn <= window.until_scn <= stretch.until_ts * 1000
        assert window.from_scn == min(by_id[number].snapshot_ts for number in window.sets) * 1000
        for number in window.sets:
            backup = by_id[number]
            assert not backup.problem
            assert set(backup.pgs) <= {(log.table_id, log.partition_id) for log in stretch.logs}
        for log in stretch.logs:
            if log.spans[0].ended_by:
                assert window.until_scn <= max(log.spans[0].until_ts, stretch.start_ts) * 1000
    used = {number for window in found.windows for number in window.sets}
    told = " ".join(hole.reason for hole in found.holes)
    for backup in sets:
        assert backup.set_id in used or f"set {backup.set_id}" in told
