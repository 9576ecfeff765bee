"""The memory of the data path: page-aligned buffers, mapped once, lent and given back. Together they are the ceiling.

A slab holds one macroblock from the store to the kernel; a part holds the frames that the kernel made until the
destination has them. Whoever finds a pool empty waits, which is how a slow destination slows the reader down.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections import deque
from dataclasses import dataclass

from mover.encryption.cipher import TRAILER_SIZE
from mover.errors import ConfigError
from mover.kernel import frame_room
from mover.store.base import MACRO_BLOCK_SIZE

# Prefix and suffix of a block's payload take less than 128 bytes.
FRAME_ROOM = frame_room(MACRO_BLOCK_SIZE + 128 + TRAILER_SIZE)
END_MARK_ROOM = 4096
_FEWEST_SLABS = 4
_FEWEST_PARTS = 3  # one being filled, one that may be the last of its file, one kept back by a writer
_SLABS_AHEAD = 8  # being read


class PooledBuffer:
    """A buffer of a :class:`BufferPool`, as a slab or as a part; ``filled`` says how much of it is a part's data."""

    __slots__ = ("_pool", "buffer", "filled", "lent", "offset")

    def __init__(self, pool: BufferPool, buffer: memoryview, offset: int) -> None:
        self._pool = pool
        self.buffer = buffer
        self.offset = offset  # in the memory of the pool
        self.filled = 0
        self.lent = False

    @property
    def data(self) -> memoryview:
        return self.buffer[: self.filled]

    def release(self) -> None:
        self._pool._give_back(self)


class BufferPool:
    """``count`` buffers of ``size`` bytes (a multiple of 4096), page aligned for O_DIRECT, for one event loop.

    Memory that was never lent costs nothing; what came back last is lent first, while it is in the cache.

    Args:
        shared: the memory is a file without a name, ``fd``, that other processes can map.
    """

    def __init__(self, count: int, size: int, *, shared: bool = False) -> None:
        self.size = size
        self.capacity = count
        self.lent = 0
        """How many buffers are out now."""
        self.fd = -1
        if shared:
            self.fd = os.memfd_create("mover-slabs", os.MFD_CLOEXEC)
            os.ftruncate(self.fd, count * size)
            arena = mmap.mmap(self.fd, count * size)
        else:
            # Private: shared memory, mmap's default, gets no huge pages, and O_DIRECT then pins small ones one by one.
            arena = mmap.mmap(-1, count * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            arena.madvise(mmap.MADV_HUGEPAGE)
        except (OSError, AttributeError):  # not every kernel has huge pages; they only save page faults
            pass
        view = memoryview(arena)
        self._free = [PooledBuffer(self, view[at : at + size], at) for at in reversed(range(0, count * size, size))]
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> PooledBuffer:
        """A buffer; waits until there is one. Its content is undefined."""
        return (await self.take(1))[0]

    async def take(self, most: int) -> list[PooledBuffer]:
        """From one to ``most`` buffers: what there is, after waiting for the first."""
        while not self._free:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # The buffer that woke us must wake the next one, or it would wait for ever.
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
        taken = [self._free.pop() for _ in range(min(most, len(self._free)))]
        for buffer in taken:
            buffer.lent, buffer.filled = True, 0
        self.lent += len(taken)
        return taken

    def close(self) -> None:
        """Lend nothing any more, and let go of ``fd``. The memory goes with the last buffer that is out."""
        self._free.clear()  # they know their pool: else only the collector would end them
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _give_back(self, buffer: PooledBuffer) -> None:
        if not buffer.lent:
            raise RuntimeError("buffer released twice")
        buffer.lent = False
        self.lent -= 1
        self._free.append(buffer)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


def blocks_per_part(size: int) -> int:
    """Blocks that fit into a part of ``size`` bytes however little they compress."""
    return (size - END_MARK_ROOM) // FRAME_ROOM


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a ceiling is shared out."""

    slabs: int
    parts: int
    part_size: int  # bytes of a part's buffer
    lanes: int  # parts that are filled at the same time

    @property
    def total(self) -> int:
        """Bytes."""
        return self.slabs * MACRO_BLOCK_SIZE + self.parts * self.part_size


def plan_memory(memory: int, *, part_size: int, min_part: int, concurrency: int, workers: int) -> MemoryPlan:
    """Share ``memory`` bytes out between slabs and parts. Pure.

    Args:
        part_size: what a part should hold, bytes; whole blocks are made of it.
        min_part: what the destination wants every part but the last to have. A part is sent when one more block may
            not fit, so it is sized to have that much then.
        concurrency: parts under way at the destination.
        workers: threads of the kernel; each fills a part of its own while there is memory for that.

    Raises ConfigError when it is too little for the smallest pipeline.
    """
    fewest = 1 + -(-min_part // FRAME_ROOM)
    if not min_part:
        fewest = 1
    blocks = max(fewest, part_size // MACRO_BLOCK_SIZE)
    while True:
        size = blocks * FRAME_ROOM + END_MARK_ROOM
        parts = workers + concurrency + _FEWEST_PARTS - 1
        slabs = (memory - parts * size) // MACRO_BLOCK_SIZE
        # For each lane what it packs, and as much that waits. More would only be memory that went cold.
        enough = _SLABS_AHEAD + 2 * workers * blocks
        if slabs >= enough or blocks == fewest:
            break
        blocks -= 1
    slabs = min(slabs, enough)
    if slabs < _FEWEST_SLABS + blocks:
        parts = max(_FEWEST_PARTS, (memory - (_FEWEST_SLABS + blocks) * MACRO_BLOCK_SIZE) // size)
        slabs = (memory - parts * size) // MACRO_BLOCK_SIZE
    if slabs < _FEWEST_SLABS:
        least = _FEWEST_PARTS * size + _FEWEST_SLABS * MACRO_BLOCK_SIZE
        raise ConfigError(
            f"--memory {memory} is less than a backup to this destination needs ({least} bytes)",
            hint=f"give --memory {-(-least >> 20) + 1}MiB or more; the default is 256MiB",
        )
    return MemoryPlan(slabs, parts, size, max(1, min(workers, parts - _FEWEST_PARTS + 1)))
