"""How many requests are under way: never more than the limit, and the limit goes where it pays."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.target.slots import FIRST, INTERVAL, Climb, Slots, climb


def settle(best, most, intervals=400):
    """Climb at a destination whose rate grows up to ``best`` requests and no further; the limits on the way."""
    state, seen = Climb(min(FIRST, most)), []
    for _ in range(intervals):
        state = climb(state, 100.0 * min(state.limit, best), True, most)
        seen.append(state.limit)
    return seen


@given(st.integers(1, 200), st.integers(1, 200))
def test_the_limit_goes_to_where_it_pays_and_stays_near(best, most):
    seen = settle(best, most)
    assert max(seen) <= most and min(seen) >= 1
    usual = sorted(seen[-200:])[100]
    # A step that brings less than a few per cent is taken back, so it stands close to the best or below the next step.
    assert 0.95 * min(best, most) <= usual <= max(FIRST, 2 * best)


def test_without_anybody_waiting_it_does_not_grow():
    state = Climb(FIRST)
    for _ in range(50):
        state = climb(state, 100.0, False, 64)
    assert state.limit == FIRST


async def test_never_more_than_the_limit():
    slots, running, most = Slots(3), 0, 0

    async def use():
        nonlocal running, most
        await slots.acquire()
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        slots.release(1)

    async with asyncio.timeout(10):
        await asyncio.gather(*(use() for _ in range(100)))
    assert (most, slots.used) == (3, 0)


async def test_a_cancelled_waiter_passes_its_slot_on():
    slots = Slots(1)
    await slots.acquire()
    first, second = asyncio.create_task(slots.acquire()), asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    slots.release()
    first.cancel()
    async with asyncio.timeout(5):
        await second
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_store_that_asks_for_less_gets_less_and_more_again_later():
    now = 0.0
    slots = Slots(16, now=lambda: now)
    for _ in range(16):
        await slots.acquire()
    slots.throttled()
    slots.throttled()
    assert slots.limit == 8, "all that were under way hear the same complaint"
    waiting = asyncio.create_task(slots.acquire())
    for _ in range(8):
        slots.release(100)
        await asyncio.sleep(0)
    assert not waiting.done()
    slots.release(100)
    async with asyncio.timeout(5):
        await waiting
    for _ in range(200):
        now += INTERVAL
        blocked = asyncio.create_task(slots.acquire())
        await asyncio.sleep(0)
        while not blocked.done():
            slots.release(100 * slots.limit)
            await asyncio.sleep(0)
    assert slots.limit == 16
