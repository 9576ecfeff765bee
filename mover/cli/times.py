"""Moments that people type."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from mover.errors import ConfigError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[ T](?P<clock>\d\d:\d\d(?::\d\d(?:\.(?P<fraction>\d+))?)?)"
    r"\s?(?P<zone>Z|UTC|[+-]\d\d(?::?\d\d)?)?",
    re.IGNORECASE,
)
_SPELLING = "Write 'YYYY-MM-DD HH:MM:SS[.ffffff]', with a zone such as +08:00 when it is not this process's own."


def parse_moment(text: str) -> int:
    """Microseconds since the epoch of ``YYYY-MM-DD HH:MM[:SS[.ffffff]]`` with an optional zone.

    Without a zone the moment is in the local zone of this process (``TZ``, else /etc/localtime).

    Raises:
        ConfigError: it does not parse, names no moment, or names two (clocks were set back) without a zone.
    """
    match = _MOMENT.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"not a time: {text!r}", hint=_SPELLING)
    if len(match["fraction"] or "") > 6:
        raise ConfigError(
            f"the time {text!r} is finer than a microsecond",
            hint="Name the moment by its SCN (nanoseconds): --until-scn.",
        )
    zone = (match["zone"] or "").upper().replace("UTC", "Z")
    try:
        moment = datetime.fromisoformat(f"{match['date']}T{match['clock']}{zone}")
        if moment.tzinfo is None:
            moment = _in_local_zone(moment, text)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"not a time: {text!r} ({error})", hint=_SPELLING) from None


def _in_local_zone(naive: datetime, text: str) -> datetime:
    # fold tells the two readings of a repeated hour apart; elsewhere both readings are the same moment.
    first, second = naive.replace(fold=0).astimezone(), naive.replace(fold=1).astimezone()
    if first.utcoffset() == second.utcoffset():
        return first
    if first.replace(tzinfo=None) != naive:  # a moment taken back to the wall clock shows another time
        raise ConfigError(
            f"the local time {text!r} does not exist: clocks were set forward over it",
            hint="Name the moment with its zone, such as +00:00.",
        )
    readings = " or ".join(repr(reading.isoformat(sep=" ")) for reading in (first, second))
    raise ConfigError(f"the local time {text!r} is two moments: clocks were set back", hint=f"Say which: {readings}.")
