"""The slab pool: a ceiling, back-pressure, and no slab lost to a cancelled waiter."""

from __future__ import annotations

import asyncio

import pytest

from mover.datapath.slabs import SlabPool
from mover.errors import ConfigError

SIZE = 4096


async def test_the_pool_never_lends_more_than_its_capacity() -> None:
    pool = SlabPool(4 * SIZE, SIZE)
    slabs = [await pool.acquire() for _ in range(4)]
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    slabs.pop().release()
    slabs.append(await waiting)
    assert pool.lent == 4
    for slab in slabs:
        slab.release()
    assert pool.lent == 0


async def test_a_cancelled_waiter_passes_its_wake_up_on() -> None:
    pool = SlabPool(4 * SIZE, SIZE)
    slabs = [await pool.acquire() for _ in range(4)]
    first, second = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    slabs.pop().release()  # wakes the first waiter ...
    first.cancel()  # ... which is cancelled before it runs
    async with asyncio.timeout(5):
        slabs.append(await second)
    for slab in slabs:
        slab.release()


async def test_releasing_twice_is_a_defect_that_shows() -> None:
    pool = SlabPool(4 * SIZE, SIZE)
    slab = await pool.acquire()
    slab.release()
    with pytest.raises(RuntimeError):
        slab.release()


def test_a_ceiling_below_four_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="--memory"):
        SlabPool(4 << 20)
