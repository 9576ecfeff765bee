"""Slabs: fixed, page-aligned memory for macroblocks, allocated once. The pool is the memory ceiling.

A slab goes reader -> kernel -> packer and back to the pool; a reader that finds the pool empty waits, which is how
a slow destination slows the reader down.
"""

from __future__ import annotations

import asyncio
import mmap
from collections import deque

from mover.errors import ConfigError
from mover.store.base import MACRO_BLOCK_SIZE

MINIMUM_SLABS = 4


class PooledSlab:
    """One slab of a :class:`SlabPool`."""

    __slots__ = ("_pool", "_view")

    def __init__(self, pool: SlabPool, view: memoryview) -> None:
        self._pool = pool
        self._view = view

    @property
    def buffer(self) -> memoryview:
        return self._view

    def release(self) -> None:
        self._pool._give_back(self)


class SlabPool:
    """``memory`` bytes of slabs of 2 MiB each, page aligned (O_DIRECT), for one event loop.

    Args:
        memory: the ceiling in bytes; rounded down to whole slabs, at least four.
    """

    def __init__(self, memory: int, slab_size: int = MACRO_BLOCK_SIZE) -> None:
        count = memory // slab_size
        if count < MINIMUM_SLABS:
            raise ConfigError(
                f"--memory {memory} is less than {MINIMUM_SLABS} macroblocks ({MINIMUM_SLABS * slab_size} bytes)",
                hint="raise --memory; the default is 256MiB",
            )
        self.slab_size = slab_size
        self.capacity = count
        self._created = 0
        self._free: deque[PooledSlab] = deque()
        self._lent: set[int] = set()
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def lent(self) -> int:
        """How many slabs are out now."""
        return len(self._lent)

    async def acquire(self) -> PooledSlab:
        """A slab; waits until there is one. Its content is undefined."""
        while not self._free and self._created >= self.capacity:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # The slab that woke us must wake the next one, or it would wait for ever.
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
        if self._free:
            slab = self._free.popleft()
        else:
            # Anonymous mmap: page aligned, and memory that is never touched costs nothing.
            slab = PooledSlab(self, memoryview(mmap.mmap(-1, self.slab_size)))
            self._created += 1
        self._lent.add(id(slab))
        return slab

    def _give_back(self, slab: PooledSlab) -> None:
        if id(slab) not in self._lent:
            raise RuntimeError("slab released twice")
        self._lent.remove(id(slab))
        self._free.append(slab)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
