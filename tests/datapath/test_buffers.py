"""The memory of the data path: a ceiling, back-pressure, and no buffer lost to a cancelled waiter."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.datapath.buffers import FRAME_ROOM, BufferPool, blocks_per_part, plan_memory
from mover.errors import ConfigError
from mover.store.base import MACRO_BLOCK_SIZE

SIZE = 4096
MIB = 1 << 20


async def test_the_pool_never_lends_more_than_its_capacity() -> None:
    pool = BufferPool(4, SIZE)
    buffers = [await pool.acquire() for _ in range(4)]
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    buffers.pop().release()
    buffers.append(await waiting)
    assert pool.lent == 4
    for buffer in buffers:
        buffer.release()
    assert pool.lent == 0


async def test_buffers_are_apart_and_aligned() -> None:
    pool = BufferPool(3, 3 * SIZE)
    buffers = await pool.take(9)
    assert len(buffers) == 3
    for number, buffer in enumerate(buffers):
        assert ctypes.addressof(ctypes.c_char.from_buffer(buffer.buffer)) % 4096 == 0
        buffer.buffer[:] = bytes([number]) * (3 * SIZE)
        buffer.filled = number
    assert [bytes(set(buffer.buffer)) for buffer in buffers] == [b"\0", b"\1", b"\2"]
    assert [len(buffer.data) for buffer in buffers] == [0, 1, 2]
    for buffer in buffers:
        buffer.release()
    assert [len(buffer.data) for buffer in await pool.take(3)] == [0, 0, 0], "a new part begins empty"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_memory_of_a_closed_pool_is_the_systems_again_at_once() -> None:
    gc.disable()
    try:
        pool = BufferPool(4, 16 * MIB)
        buffers = await pool.take(4)
        for buffer in buffers:
            buffer.buffer[::4096] = b"x" * (len(buffer.buffer) // 4096)
            buffer.release()
        del buffer, buffers
        full = _resident()
        pool.close()
        assert full - _resident() > 48 * MIB
    finally:
        gc.enable()


async def test_everybody_who_waits_gets_some_in_the_end() -> None:
    pool = BufferPool(4, SIZE)
    buffers = await pool.take(4)

    async def use() -> int:
        got = await pool.take(4)
        for buffer in got:
            buffer.release()
        return len(got)

    users = [asyncio.create_task(use()) for _ in range(5)]
    await asyncio.sleep(0)
    for buffer in buffers:
        buffer.release()
    async with asyncio.timeout(5):
        assert all(await asyncio.gather(*users))
    assert pool.lent == 0


async def test_a_cancelled_waiter_passes_its_wake_up_on() -> None:
    pool = BufferPool(4, SIZE)
    buffers = [await pool.acquire() for _ in range(4)]
    first, second = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    buffers.pop().release()  # wakes the first waiter ...
    first.cancel()  # ... which is cancelled before it runs
    async with asyncio.timeout(5):
        buffers.append(await second)
    for buffer in buffers:
        buffer.release()


async def test_releasing_twice_is_a_defect_that_shows() -> None:
    pool = BufferPool(4, SIZE)
    buffer = await pool.acquire()
    buffer.release()
    with pytest.raises(RuntimeError):
        buffer.release()


@given(
    st.integers(1, 4096),
    st.integers(1, 64),
    st.sampled_from([0, MIB, 5 * MIB, 100 * MIB]),
    st.integers(1, 256),
    st.integers(1, 64),
)
def test_a_plan_stays_below_the_ceiling_and_can_work(
    memory: int, part_size: int, min_part: int, concurrency: int, workers: int
) -> None:
    try:
        plan = plan_memory(
            memory * MIB, part_size=part_size * MIB, min_part=min_part, concurrency=concurrency, workers=workers
        )
    except ConfigError as error:
        assert memory * MIB < 3 * (min_part + 2 * FRAME_ROOM + 4096) + 4 * MACRO_BLOCK_SIZE
        assert "--memory" in str(error.hint)
        return
    assert plan.total <= memory * MIB
    assert plan.slabs >= 4 and plan.lanes >= 1 and blocks_per_part(plan.part_size) >= 1
    # Each lane may hold one while a file's last and its writer's first are kept back.
    assert plan.parts >= plan.lanes + 2
    # What a part has at least when one more block may not fit.
    assert (blocks_per_part(plan.part_size) - 1) * FRAME_ROOM >= min_part or not min_part


def test_the_default_has_room_for_everything() -> None:
    plan = plan_memory(256 * MIB, part_size=8 * MIB, min_part=5 * MIB, concurrency=8, workers=2)
    assert (blocks_per_part(plan.part_size), plan.parts, plan.lanes) == (4, 12, 2)
    assert plan.slabs == 24, "no more than the reader and the lanes can have at a time"
