"""Which PGs of a cluster have their log written out now. Pure.

Thousands of PGs with little log each must not make a request each whenever somebody commits, and none may wait behind
a busy one: what counts is how long the oldest log of a PG waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

LARGE = 1 << 20  # bytes of one PG that are worth a write of their own


class Waiting(NamedTuple):
    """The log of one PG that waits."""

    number: int  # whatever the caller knows the PG by
    size: int  # bytes, above 0
    since: float  # when the oldest of it came, monotonic seconds


def flush_plan(waiting: Iterable[Waiting], now: float, *, interval: float, limit: int) -> list[Waiting]:
    """What is to be written, the longest waiting first.

    Args:
        now: monotonic seconds.
        interval: seconds that log may wait.
        limit: bytes that may wait altogether; above it the largest go too, until half of it is left.
    """
    every = sorted(waiting, key=lambda item: (item.since, item.number))
    due = [item for item in every if item.size >= LARGE or now - item.since >= interval]
    left = sum(item.size for item in every)
    if left > limit:
        chosen = {item.number for item in due}
        left -= sum(item.size for item in due)
        for item in sorted(every, key=lambda item: (-item.size, item.since)):
            if left <= limit // 2:
                break
            if item.number not in chosen:
                chosen.add(item.number)
                left -= item.size
        due = [item for item in every if item.number in chosen]
    return due
