"""Time, as a value that is passed in: wall clock in microseconds, a monotonic clock, and sleeping.

Code that waits takes a :class:`Clock`, so that tests drive it without waiting.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the rest of mover may know about time."""

    def now_us(self) -> int:
        """Microseconds since the epoch, wall clock."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellable."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        # Goes on while the machine sleeps: a lease ends for others meanwhile, so it must end for its holder.
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def iso_from_us(us: int) -> str:
    """ISO 8601 in the process's local zone, with the zone, from microseconds since the epoch."""
    return datetime.fromtimestamp(us / 1_000_000, UTC).astimezone().isoformat(timespec="microseconds")


def iso_from_scn(scn: int) -> str:
    """ISO 8601 with the zone, from an SCN (nanoseconds since the epoch); the last three digits are dropped."""
    seconds, nanos = divmod(scn, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanos // 1000)
    return moment.astimezone().isoformat(timespec="microseconds")
