from hypothesis import given
from hypothesis import strategies as st

from mover.rootservice.flush_plan import LARGE, Waiting, flush_plan

waiting = st.lists(st.tuples(st.integers(1, 2 * LARGE), st.floats(0, 100)), max_size=30).map(
    lambda rows: [Waiting(number, size, since) for number, (size, since) in enumerate(rows)]
)


@given(waiting, st.floats(0.01, 10), st.integers(1, 8 * LARGE))
def test_who_waits_longest_goes_first_and_nobody_waits_too_long(items, interval, limit):
    plan = flush_plan(items, 100.0, interval=interval, limit=limit)
    assert [item.since for item in plan] == sorted(item.since for item in plan)
    assert len(set(plan)) == len(plan)
    left = [item for item in items if item not in plan]
    assert all(100.0 - item.since < interval and item.size < LARGE for item in left)
    assert sum(item.size for item in left) <= limit


def test_small_and_young_log_waits():
    assert flush_plan([Waiting(1, 100, 99.9)], 100.0, interval=1.0, limit=1000) == []
    assert flush_plan([Waiting(1, 100, 99.9), Waiting(2, LARGE, 99.9)], 100.0, interval=1.0, limit=4 * LARGE) == [
        Waiting(2, LARGE, 99.9)
    ]
