"""What is due next, as a pure function of the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.rootservice.schedule import Due, Schedule

CLASSIC = Schedule("0 1 * * SAT", "0 1 * * TUE,THU")


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000)


def told(due: Due) -> str:
    return f"{datetime.fromtimestamp(due.at_us / 1e6, UTC).astimezone():%a %F %H:%M %z} {due.work}"


def test_the_documented_example() -> None:
    week = [told(due) for due in islice(CLASSIC.after(us("2026-11-27T12:00")), 4)]
    assert week == [
        "Sat 2026-11-28 01:00 +0100 full",
        "Tue 2026-12-01 01:00 +0100 incremental",
        "Thu 2026-12-03 01:00 +0100 incremental",
        "Sat 2026-12-05 01:00 +0100 full",
    ]


def test_the_full_goes_first_where_both_are_due() -> None:
    both = Schedule("0 1 * * SAT", "0 1 * * *")
    assert [due.work for due in islice(both.after(us("2026-11-27T00:00")), 3)] == ["incremental", "full", "incremental"]


def test_an_hour_that_is_skipped_or_comes_twice_has_its_backup_once() -> None:
    nightly = Schedule(None, "30 2 * * *")
    spring = [told(due) for due in islice(nightly.after(us("2026-03-28T12:00")), 2)]
    assert spring == ["Sun 2026-03-29 03:30 +0200 incremental", "Mon 2026-03-30 02:30 +0200 incremental"]
    autumn = [told(due) for due in islice(nightly.after(us("2026-10-24T12:00")), 2)]
    assert autumn == ["Sun 2026-10-25 02:30 +0200 incremental", "Mon 2026-10-26 02:30 +0100 incremental"]
    often = [due.at_us for due in islice(Schedule(None, "*/10 * * * *").after(us("2026-03-29T01:30")), 200)]
    assert often == sorted(set(often))


def test_nothing_is_ever_due() -> None:
    assert Schedule().next_after(0) is None


@given(st.integers(us("2026-01-01T00:00"), us("2028-01-01T00:00")), st.integers(0, 40 * 86400 * 1_000_000))
def test_due_times_grow_and_none_is_left_out(begin: int, span: int) -> None:
    found = CLASSIC.between(begin, begin + span)
    assert all(begin < due.at_us <= begin + span for due in found)
    assert [due.at_us for due in found] == sorted({due.at_us for due in found})
    follow, expected = CLASSIC.next_after(begin), []
    while follow is not None and follow.at_us <= begin + span:
        expected.append(follow)
        follow = CLASSIC.next_after(follow.at_us)
    assert found == expected
