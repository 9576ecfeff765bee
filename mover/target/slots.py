"""How many requests are under way at a destination: a limit that finds its own value, or one that was given.

Climbing (:func:`climb`) is on the rate of confirmed bytes: more requests while that pays, one step back when it stops
paying. A store that says "slow down" halves the limit at once, and what was climbed to before is approached again only
after a while: additive increase, multiplicative decrease.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

FIRST = 4
MOST = 16  # where nobody said how many: what more could bring is less than the memory it takes
INTERVAL = 1.0  # seconds that a rate is measured over, at least
_PAYS = 1.04  # less than four per cent more is noise
_REST = 10  # intervals without another try, after one that did not pay
_FORGIVE = 5.0  # seconds after a "slow down" before the limit may rise again


@dataclass(frozen=True, slots=True)
class Climb:
    """Where the search is: the limit, what was measured with the one before, and how long to rest."""

    limit: int
    before: float = 0.0  # bytes per second with the limit before the last step; 0 when there was no step
    step: int = 0  # the last step
    rest: int = 0


def climb(state: Climb, rate: float, full: bool, most: int) -> Climb:
    """The next state after an interval in which ``rate`` bytes a second were confirmed. Pure.

    Args:
        full: somebody waited for a slot; without that more slots can not matter.
        most: the limit's own limit.
    """
    if state.step:
        if rate >= state.before * _PAYS:
            step = min(max(1, state.limit // 2), most - state.limit)
            return Climb(state.limit + step, rate, step, 0) if step and full else Climb(state.limit, rest=_REST)
        return Climb(state.limit - state.step, rest=_REST)
    if state.rest:
        return replace(state, rest=state.rest - 1)
    if not full or state.limit >= most:
        return state
    step = min(max(1, state.limit // 2), most - state.limit)
    return Climb(state.limit + step, rate, step, 0)


def most_of(concurrency: int | None) -> int:
    """How many may be under way at most; None is for a limit that is found by trying."""
    return MOST if concurrency is None else concurrency


class Slots:
    """Slots for requests, for one event loop.

    Args:
        concurrency: so many, until the store asks for less; None begins with a few and finds what pays, up to ``MOST``.
        now: a monotonic clock, seconds.
    """

    def __init__(self, concurrency: int | None, *, now: Callable[[], float] = time.monotonic) -> None:
        self.most = most = most_of(concurrency)
        self._adaptive = adaptive = concurrency is None
        self._now = now
        self._state = Climb(min(FIRST, most) if adaptive else most)
        self._used = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._bytes = 0
        self._waited = False
        self._since = now()
        self._calm_from = 0.0

    @property
    def limit(self) -> int:
        """How many may be under way now."""
        return self._state.limit

    @property
    def used(self) -> int:
        """How many are."""
        return self._used

    async def acquire(self) -> None:
        """Wait for a slot."""
        while self._used >= self._state.limit:
            self._waited = True
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # the slot that woke us is the next one's
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
        self._used += 1

    def release(self, confirmed: int = 0) -> None:
        """Give a slot back; ``confirmed`` bytes went through it."""
        self._used -= 1
        self._bytes += confirmed
        now = self._now()
        if now - self._since >= INTERVAL:
            rate = self._bytes / (now - self._since)
            if now >= self._calm_from:
                if self._adaptive:
                    self._state = climb(self._state, rate, self._waited, self.most)
                else:
                    self._state = Climb(min(self._state.limit + 1, self.most))
            self._bytes, self._waited, self._since = 0, False, now
        self._wake()

    def throttled(self) -> None:
        """The store asked for less: half as many from now on. Several who hear it at the same time count once."""
        now = self._now()
        if now >= self._calm_from:
            self._state = Climb(max(1, self._state.limit // 2))
            self._calm_from = now + _FORGIVE
            self._bytes, self._waited, self._since = 0, False, now

    def _wake(self) -> None:
        free = self._state.limit - self._used
        while self._waiters and free > 0:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1
