"""What the lanes of a pipeline spend their time on, and so what there is too little of: blocks, processors or link."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERVAL = 1.0
_MOSTLY = 0.6
_HARDLY = 0.1


class Balance:
    """Seconds of all lanes since the last verdict, by what they were spent on.

    Args:
        now: a monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since = now()
        self._waiting = 0.0
        self._working = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in which a lane has nothing to do: no block has come yet, or the destination has no room."""
        begin = self._now()
        try:
            yield
        finally:
            self._waiting += self._now() - begin

    @contextmanager
    def working(self) -> Iterator[None]:
        """Time in which the kernel works for a lane, or is waited for."""
        begin = self._now()
        try:
            yield
        finally:
            self._working += self._now() - begin

    def direction(self) -> int:
        """1 when compressing harder would cost nothing, -1 when it holds everything up, else 0. About once a second."""
        if self._now() - self._since < INTERVAL:
            return 0
        verdict = direction(self._waiting, self._working)
        self._since, self._waiting, self._working = self._now(), 0.0, 0.0
        return verdict


def direction(waiting: float, working: float) -> int:
    """The verdict on seconds spent waiting and working. Pure."""
    share = waiting / ((waiting + working) or 1.0)
    return 1 if share > _MOSTLY else -1 if share < _HARDLY else 0
