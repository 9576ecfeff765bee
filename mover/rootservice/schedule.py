"""When backups are taken: cron expressions and what they say comes next, and the window they have to keep to. Pure.

OceanBase's documentation has a full on Saturday and incrementals on Tuesday and Thursday as its example:
``0 1 * * SAT`` and ``0 1 * * TUE,THU``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Literal

from cronsim import CronSim

from mover.config_values import window

Work = Literal["full", "incremental"]


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """A backup and when it is to begin, in microseconds since the epoch."""

    at_us: int
    work: Work


@dataclass(frozen=True, slots=True)
class Schedule:
    """Cron expressions (five fields, or six with seconds first), in the local zone; None for never."""

    full: str | None = None
    incremental: str | None = None

    def after(self, us: int) -> Iterator[Due]:
        """What is due after a moment, in order of time, without end.

        Where both are due at the same moment the full is made: it is what the incremental would build on.
        """
        given: dict[Work, str | None] = {"full": self.full, "incremental": self.incremental}
        coming = {work: _times(expression, us) for work, expression in given.items() if expression is not None}
        heads = {work: next(times, None) for work, times in coming.items()}
        while moments := [moment for moment in heads.values() if moment is not None]:
            soonest = min(moments)
            yield Due(soonest, "full" if heads.get("full") == soonest else "incremental")
            for work, times in coming.items():
                if heads[work] == soonest:
                    heads[work] = next(times, None)

    def next_after(self, us: int) -> Due | None:
        """The first of :meth:`after`; None when nothing ever is."""
        return next(self.after(us), None)

    def between(self, begin_us: int, end_us: int) -> list[Due]:
        """What came due after ``begin_us`` and not after ``end_us``, at most the first hundred."""
        found = []
        for due in islice(self.after(begin_us), 100):
            if due.at_us > end_us:
                break
            found.append(due)
        return found


@dataclass(frozen=True, slots=True)
class Window:
    """A time of each day, in the local zone: ``01:00-05:00``, or over midnight ``22:00-04:00``; minutes of the day."""

    begin: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """From ``HH:MM-HH:MM``. Raises ValueError."""
        hours = (each.split(":") for each in window(text).split("-"))
        return cls(*(int(hour) * 60 + int(minute) for hour, minute in hours))

    def __str__(self) -> str:
        return "-".join(f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (self.begin, self.end))

    def end_after(self, us: int) -> int | None:
        """When the window ends that is open at a moment, both in us since the epoch; None when none is."""
        wall = datetime.fromtimestamp(us / 1_000_000)
        day = wall.replace(hour=0, minute=0, second=0, microsecond=0)
        minute = (wall - day).total_seconds() / 60
        if self.begin < self.end:
            open_now, days = self.begin <= minute < self.end, 0
        else:
            open_now, days = minute >= self.begin or minute < self.end, int(minute >= self.begin)
        if not open_now:
            return None
        return int((day + timedelta(days=days, minutes=self.end)).timestamp() * 1_000_000)


def _times(expression: str, us: int) -> Iterator[int]:
    """The moments that an expression names after ``us``, ascending.

    It names times on the wall: one that is skipped when summer begins comes an hour later, one that comes twice when
    summer ends counts the first time.
    """
    last = us
    for wall in CronSim(expression, datetime.fromtimestamp(us / 1_000_000)):
        moment = int(wall.timestamp() * 1_000_000)
        if moment > last:
            yield moment
            last = moment
