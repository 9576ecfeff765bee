"""When backups are taken: cron expressions, and what they say comes next. Pure: the time is given.

OceanBase's documentation has a full on Saturday and incrementals on Tuesday and Thursday as its example:
``0 1 * * SAT`` and ``0 1 * * TUE,THU``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Literal

from cronsim import CronSim

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
