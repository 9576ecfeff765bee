"""Windows and the choice of a set agree: what a window promises can be chosen, and nothing else can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import PreconditionError
from mover.recovery.plan import RoundSpan, SetSpan, choose, recoverable


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[SetSpan], list[RoundSpan]]:
    """Rounds one after the other, possibly overlapping in log; sets anywhere. SCN = 10 * LSN + noise."""
    rounds = []
    begin = 0
    for number in range(1, draw(st.integers(1, 4)) + 1):
        start = begin + draw(st.integers(-5, 10)) if number > 1 else 0
        start = max(start, 0)
        end = start + draw(st.integers(0, 60))
        status = "DOING" if draw(st.booleans()) else "STOP"
        gap = "log was recycled" if draw(st.integers(0, 5)) == 0 else ""
        rounds.append(RoundSpan(number, status, start, 10 * start + 1, end, 10 * end + draw(st.integers(0, 9)), gap))
        begin = end
    sets = []
    for number in range(1, draw(st.integers(0, 6)) + 1):
        start = draw(st.integers(0, 150))
        end = start + draw(st.integers(0, 30))
        sets.append(SetSpan(number, start, end, 10 * end + draw(st.integers(0, 9))))
    return sets, rounds


@given(histories(), st.integers(-1, 2500))
def test_a_moment_can_be_restored_exactly_when_it_is_in_a_window(
    history: tuple[list[SetSpan], list[RoundSpan]], scn: int
) -> None:
    sets, rounds = history
    windows = recoverable(1, sets, rounds).windows
    moments = {scn, *(w.from_scn for w in windows), *(w.until_scn for w in windows)}
    moments |= {moment + step for moment in moments for step in (-1, 1)}
    for moment in moments:
        inside = [w for w in windows if w.from_scn <= moment <= w.until_scn]
        try:
            point = choose(1, sets, rounds, set_id=None, until_scn=moment)
        except PreconditionError:
            assert not inside, f"{moment} is promised by {inside}"
            continue
        assert inside, f"{moment} was chosen, but no window has it"
        assert point.until_scn == moment
        assert point.set.end_scn <= moment
        assert point.round.start_lsn <= point.set.start_lsn and point.set.end_lsn <= point.round.checkpoint_lsn
        assert point.set.set_id in {number for w in inside for number in w.sets}


@given(histories())
def test_every_set_of_a_window_restores_to_its_own_end_and_to_the_windows(
    history: tuple[list[SetSpan], list[RoundSpan]],
) -> None:
    sets, rounds = history
    for window in recoverable(1, sets, rounds).windows:
        for number in window.sets:
            end = next(s.end_scn for s in sets if s.set_id == number)
            for moment in (end, window.until_scn):
                assert choose(1, sets, rounds, set_id=number, until_scn=moment).set.set_id == number
            with pytest.raises(PreconditionError):
                choose(1, sets, [r for r in rounds if r.round_id == window.round_id], set_id=number, until_scn=end - 1)


@given(histories())
def test_without_a_moment_the_newest_log_and_the_newest_set_for_it(
    history: tuple[list[SetSpan], list[RoundSpan]],
) -> None:
    sets, rounds = history
    windows = recoverable(1, sets, rounds).windows
    if not windows:
        with pytest.raises(PreconditionError, match="the newest moment"):
            choose(1, sets, rounds, set_id=None, until_scn=None)
        return
    point = choose(1, sets, rounds, set_id=None, until_scn=None)
    assert point.until_scn == max(window.until_scn for window in windows)
    assert choose(1, sets, rounds, set_id=None, until_scn=point.until_scn).set.end_scn == point.set.end_scn


@given(histories())
def test_every_set_is_in_a_window_or_in_a_hole(history: tuple[list[SetSpan], list[RoundSpan]]) -> None:
    sets, rounds = history
    report = recoverable(1, sets, rounds)
    shown = {number for window in report.windows for number in window.sets}
    for backup in sets:
        explained = any(f"set {backup.set_id} is complete, but" in hole.reason for hole in report.holes)
        assert (backup.set_id in shown) != explained
    for found in rounds:
        if found.gap:
            assert any(found.gap in hole.reason for hole in report.holes)


def test_a_refusal_names_the_windows() -> None:
    sets, rounds = [SetSpan(3, 0, 10, 100)], [RoundSpan(1, "DOING", 0, 1, 20, 200)]
    with pytest.raises(PreconditionError, match="SCN 201") as refused:
        choose(1, sets, rounds, set_id=None, until_scn=201)
    assert "SCN 100 to 200" in (refused.value.hint or "")
    with pytest.raises(PreconditionError, match="backup set 4 is not a complete set"):
        choose(1, sets, rounds, set_id=4, until_scn=None)
