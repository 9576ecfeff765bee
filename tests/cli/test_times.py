"""Moments that people type."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.cli.times import parse_moment
from mover.errors import ConfigError


@pytest.fixture
def zone(monkeypatch):
    def use(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield use
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22 10:30:00Z", 1795343400_000000),
        ("2026-11-22T10:30:00.000001Z", 1795343400_000001),
        ("2026-11-22 10:30:00.5 UTC", 1795343400_500000),
        ("2026-11-22 18:30:00+08:00", 1795343400_000000),
        ("2026-11-22 18:30:00+0800", 1795343400_000000),
        ("2026-11-22 10:30+00", 1795343400_000000),
        (" 1970-01-01 00:00:00Z ", 0),
    ],
)
def test_with_zone(text, expected):
    assert expected == parse_moment(text)


def test_without_zone_is_local(zone):
    zone("Asia/Shanghai")
    assert parse_moment("2026-11-22 18:30:00+08:00") == parse_moment("2026-11-22 18:30:00")


def test_repeated_hour_is_ambiguous(zone):
    """When clocks go back, one wall time is two moments; guessing would lose up to an hour of data."""
    zone("Europe/Berlin")
    with pytest.raises(ConfigError, match="two moments") as caught:
        parse_moment("2026-10-25 02:30:00")
    assert "+02:00" in caught.value.hint
    assert "+01:00" in caught.value.hint
    assert parse_moment("2026-10-25 02:30:00+01:00") - parse_moment("2026-10-25 02:30:00+02:00") == 3600_000000
    assert parse_moment("2026-10-25 00:59:59Z") + 1_000000 == parse_moment("2026-10-25 02:00:00+01:00")


def test_skipped_hour_does_not_exist(zone):
    zone("Europe/Berlin")
    with pytest.raises(ConfigError, match="does not exist"):
        parse_moment("2026-03-29 02:30:00")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-22",
        "2026-13-01 00:00:00",
        "2026-02-30 00:00:00Z",
        "2026-11-22 25:00:00",
        "22.11.2026 10:00:00",
        "2026-11-22 10:00:00.1234567",
        "2026-11-22 10:00:00+99:00",
        "0000-01-01 00:00:00",
        "9999-12-31 23:59:59-23:59",
    ],
)
def test_not_a_time(text):
    if text.startswith("9999"):
        assert parse_moment(text) > 0
        return
    with pytest.raises(ConfigError) as caught:
        parse_moment(text)
    assert caught.value.hint


@given(st.datetimes(timezones=st.timezones()))
def test_what_python_prints_is_read_back(moment):
    offset = moment.utcoffset()
    if offset is None or offset.total_seconds() % 60:
        return  # local mean time of the 19th century has seconds, which nobody types
    text = moment.isoformat(sep=" ")
    assert round(moment.timestamp() * 1e6) == pytest.approx(parse_moment(text), abs=200)
