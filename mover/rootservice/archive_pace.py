"""When an archiver looks for log, writes out what it gathered, and publishes how far it is. Pure.

Where files can grow, everything that a look finds is written at once, every ``interval``, and sooner when the log comes
so fast that the buffer would be full before that. Where each flush makes an object of its own, small amounts are
gathered: while little keeps coming, the time that log may wait doubles up to ``_GATHERING`` intervals; a quiet look
ends that, so that a single commit after a pause is archived as fast as anywhere.
"""

from __future__ import annotations

_GATHERING = 3  # intervals that log may wait at most
_LITTLE = 4 << 20  # bytes of a flush: an object of more is no waste
HEARTBEAT_SECONDS = 1.0
"""How often the checkpoint is published when nothing new is durable, and a stop request looked for."""
LISTING_SECONDS = 1.0
"""How often OceanBase's info files follow the checkpoint: each is a file to be made durable."""


class Pace:
    """The rhythm of one archiver. All times are of one monotonic clock, in seconds.

    Args:
        interval: ``--flush-interval``.
        appends: the destination's files can grow.
        buffer_size: bytes that may wait.
    """

    def __init__(self, interval: float, *, appends: bool, buffer_size: int) -> None:
        self._interval = interval
        self._appends = appends
        self._buffer_size = buffer_size
        self._patience = interval  # how long log may wait now
        self._since: float | None = None  # since when the oldest of what waits may be there
        self._looked = float("-inf")
        self._rate = 0.0  # bytes of log per second between the last two looks

    def looked(self, now: float, found: int, pending: int) -> bool:
        """Note a look at ``now`` that found ``found`` new bytes of log, and say if what waits is to be written.

        Args:
            pending: bytes that wait, those of this look included.
        """
        before, self._looked = self._looked, now
        self._rate = found / max(now - before, 1e-3)
        if not found and not pending:
            self._patience, self._since = self._interval, None
            return False
        if self._since is None:
            # It may have come right after the look before.
            self._since = before if now - before <= self._interval * _GATHERING else now - self._interval
        # A look comes every interval: half of one early is nearer than half of one late.
        return self._appends or now - self._since >= self._patience - self._interval / 2

    def flushed(self, size: int) -> None:
        """Note that ``size`` bytes were written and nothing waits any more."""
        self._since = None
        if size < _LITTLE:
            self._patience = min(self._patience * 2, self._interval * _GATHERING)
        else:
            self._patience = max(self._patience / 2, self._interval)

    def pause(self, now: float) -> float:
        """Seconds until the next look."""
        due = self._interval
        if self._rate > 0:
            due = min(due, self._buffer_size / self._rate)
        return max(0.0, self._looked + due - now)
