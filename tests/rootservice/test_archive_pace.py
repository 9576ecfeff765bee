"""When an archiver writes out what it gathered: never later than promised, and not in more objects than needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.rootservice.archive_pace import Pace

MIB = 1 << 20
INTERVAL = 0.5


def follow(pace, arrivals, until):
    """An archiver in a time of its own; ``arrivals`` are (time, bytes). Yields (time, bytes, oldest age) per flush."""
    now, pending, waiting, left = 0.0, 0, [], sorted(arrivals)
    while now < until:
        new = [item for item in left if item[0] <= now]
        left = left[len(new) :]
        waiting += new
        found = sum(size for _, size in new)
        pending += found
        if pace.looked(now, found, pending) or pending >= 16 * MIB:
            if pending:
                yield now, pending, now - min(at for at, _ in waiting)
                pace.flushed(pending)
            pending, waiting = 0, []
        now += max(pace.pause(now), 0.001)


def trickle(seconds, size, every=0.05):
    return [(n * every, size) for n in range(int(seconds / every))]


@pytest.mark.parametrize("size", [1000, 60_000])
def test_little_log_makes_few_objects_and_waits_three_intervals_at_most(size):
    flushes = list(follow(Pace(INTERVAL, appends=False, buffer_size=16 * MIB), trickle(60, size), 60))
    assert 38 <= len(flushes) <= 44  # one every 1.5 s instead of every 0.5 s
    assert max(age for _, _, age in flushes) <= 3 * INTERVAL + 0.01


def test_much_log_is_written_every_interval():
    flushes = list(follow(Pace(INTERVAL, appends=False, buffer_size=16 * MIB), trickle(20, MIB // 2), 20))
    assert len(flushes) >= 38
    assert max(age for _, _, age in flushes[2:]) <= INTERVAL + 0.01


def test_the_first_log_after_a_quiet_time_does_not_wait():
    pace = Pace(INTERVAL, appends=False, buffer_size=16 * MIB)
    flushes = list(follow(pace, [*trickle(10, 1000), (20.2, 1000), (40.2, 1000)], 60))
    assert [(round(at, 3), size) for at, size, _ in flushes[-2:]] == [(20.5, 1000), (40.5, 1000)]


def test_files_that_grow_take_all_at_every_look():
    flushes = list(follow(Pace(INTERVAL, appends=True, buffer_size=16 * MIB), trickle(10, 1000), 10))
    assert len(flushes) == 20


def test_fast_log_is_looked_at_before_the_buffer_is_full():
    pace = Pace(INTERVAL, appends=True, buffer_size=16 * MIB)
    flushes = list(follow(pace, trickle(10, 64 * MIB // 20), 10))[3:]
    assert all(size <= 17 * MIB for _, size, _ in flushes)
    assert max(age for _, _, age in flushes) <= 0.3


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 8 * MIB)), max_size=60), st.booleans())
def test_no_log_waits_longer_than_promised_whenever_it_comes(arrivals, appends):
    flushes = list(follow(Pace(INTERVAL, appends=appends, buffer_size=16 * MIB), arrivals, 40))
    assert sum(size for _, size, _ in flushes) == sum(size for _, size in arrivals)
    assert all(age <= (1 if appends else 3) * INTERVAL + 0.01 for _, _, age in flushes)
