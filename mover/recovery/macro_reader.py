"""Macro files from a destination, in ranges: some being fetched, some in kernel threads, all under one ceiling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mover.datapath.buffers import BufferPool
from mover.errors import ConfigError, IntegrityError, TargetNotFound
from mover.kernel import UNPACK_SLAB
from mover.recovery.first_error import first_error
from mover.recovery.macro_files import MacroCheck, MacroFile, WriteBlock
from mover.recovery.ranges import Range, RangePlan
from mover.repository.tree import read_again
from mover.settled import settled
from mover.target.base import Target
from mover.target.slots import Slots, most_of

Advance = Callable[[int, int], None]
_MOST_SLABS = 4  # in a buffer: 8 MiB


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How a ceiling is shared out between ranges on their way and lanes, each a kernel thread with its slabs."""

    buffer_size: int  # bytes of a range at most, and of a lane's slabs
    lanes: int
    ranges: int  # buffers for them


def plan_reading(memory: int, *, concurrency: int, lanes: int) -> ReadPlan:
    """Share ``memory`` bytes out. Pure. Raises ConfigError when it is too little for one range and one lane."""
    for slabs in range(_MOST_SLABS, 0, -1):
        size = slabs * UNPACK_SLAB
        buffers = memory // size
        if buffers > lanes + concurrency:
            return ReadPlan(size, lanes, min(buffers - lanes, 2 * concurrency + lanes))
    if buffers < 2:
        least = -(-2 * UNPACK_SLAB >> 20)
        raise ConfigError(
            f"--memory {memory} is less than reading macro files needs ({least}MiB)",
            hint=f"give --memory {least}MiB or more; the default is 256MiB",
        )
    lanes = min(lanes, buffers // 2)
    return ReadPlan(size, lanes, buffers - lanes)


class MacroReader:
    """Reads macro files; :meth:`read` may run for several at a time.

    Args:
        target: where they are.
        memory: ceiling of all buffers, bytes.
        concurrency: requests under way, over all files together; None for as many as pay.
        lanes: threads that verify, decompress and write.

    A context manager, for planning not needed: inside it has memory and threads, behind it neither is left.

    Raises ConfigError when ``memory`` is too little.
    """

    def __init__(self, target: Target, *, memory: int, concurrency: int | None, lanes: int) -> None:
        self._target = target
        self._shares = plan_reading(memory, concurrency=most_of(concurrency), lanes=lanes)
        self._slots = Slots(concurrency)

    @property
    def lent(self) -> int:
        """Buffers that are in use now."""
        return self._buffers.lent + self._slabs.lent

    def plan(self, file: MacroFile, *, everything: bool = False) -> RangePlan:
        """What :meth:`read` will read. Raises IntegrityError as :meth:`MacroFile.plan`."""
        return file.plan(self._shares.buffer_size, everything=everything)

    async def read(
        self, file: MacroFile, advance: Advance, *, write: WriteBlock | None = None, everything: bool = False
    ) -> None:
        """Read and verify a file.

        Args:
            advance: told on the event loop how many blocks and bytes a range had, after it was verified.
            write: see :meth:`MacroCheck.blocks`; called in kernel threads.
            everything: the whole file, not only what its blocks need.

        Raises:
            IntegrityError: the first damage that was met; no block that is not whole was given to ``write``.
            TargetNotFound: the file is missing.
        """
        found = await self._target.stat(file.path)
        if found is None:
            raise TargetNotFound(f"{file.path}: missing at the destination", path=file.path)
        if found.size != file.row.size:
            raise IntegrityError(
                f"{file.path}: {found.size} bytes, the manifest says {file.row.size}",
                path=file.path,
                offset=min(found.size, file.row.size),
            )
        plan, careful = self.plan(file, everything=everything), False

        async def once() -> None:
            nonlocal careful
            reading = _Reading(self, file, plan, advance, write, careful=careful)
            careful = True
            await reading.run()

        await read_again(once)

    async def __aenter__(self) -> Self:
        shares = self._shares
        self._buffers = BufferPool(shares.ranges, shares.buffer_size)
        self._slabs = BufferPool(shares.lanes, shares.buffer_size)
        self._threads = ThreadPoolExecutor(shares.lanes, thread_name_prefix="mover-unpack")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # This does not block: whoever read has settled what it had begun.
        self._threads.shutdown(wait=True)
        # What comes next needs memory, too.
        self._buffers.close()
        self._slabs.close()


class _Reading:
    """One file being read.

    Args:
        careful: some range did not hold before. Then each is verified, and read again when it does not hold, before it
            is in the digest, which can not be taken back.
    """

    def __init__(
        self,
        reader: MacroReader,
        file: MacroFile,
        plan: RangePlan,
        advance: Advance,
        write: WriteBlock | None,
        *,
        careful: bool,
    ) -> None:
        self._reader = reader
        self._file = file
        self._plan = plan
        self._advance = advance
        self._write = write
        self._careful = careful
        self._check = MacroCheck(file, whole=plan.whole)
        self._blocks = self._bytes = 0  # that hold
        self._remaining = iter(plan.ranges)
        # Done when all ranges before the next one are in the digest.
        self._turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turn.set_result(None)

    async def run(self) -> None:
        reader = self._reader
        side_by_side = min(len(self._plan.ranges), reader._buffers.capacity)
        try:
            await first_error(*(self._ranges() for _ in range(side_by_side)))
            await settled(reader._threads, self._check.finish)
        except IntegrityError:
            self._advance(-self._blocks, -self._bytes)  # nothing of it counts
            raise

    async def _ranges(self) -> None:
        while True:
            # The buffer first, then the range: whoever waits for its turn waits for one that has a buffer already.
            buffer = await self._reader._buffers.acquire()
            try:
                part = next(self._remaining, None)
                if part is None:
                    return
                await self._one(part, buffer.buffer[: part.length])
            finally:
                buffer.release()

    async def _one(self, part: Range, data: memoryview) -> None:
        mine = self._turn
        self._turn = done = asyncio.get_running_loop().create_future()
        await self._fetch(part, data)
        # Blocks do not wait for a range that is late, digests do; but decrypting changes what the digest is of.
        encrypted = self._file.opening is not None
        if self._plan.whole and encrypted:
            await asyncio.shield(mine)
        early = self._plan.whole and mine.done() and (encrypted or not self._careful)
        if early:
            await self._in_order(part, data, done)
            blocks = await self._blocks_of(part, data)
        else:

            async def once() -> int:
                try:
                    return await self._blocks_of(part, data)
                except IntegrityError:
                    await self._fetch(part, data)
                    raise

            blocks = await read_again(once)
            if self._plan.whole:
                await asyncio.shield(mine)
                await self._in_order(part, data, done)
        self._blocks += blocks
        self._bytes += part.length
        self._advance(blocks, part.length)

    async def _fetch(self, part: Range, data: memoryview) -> None:
        slots, read = self._reader._slots, 0
        await slots.acquire()
        try:
            await self._reader._target.read_into(self._file.path, part.start, data)
            read = len(data)
        finally:
            slots.release(read)

    async def _blocks_of(self, part: Range, data: memoryview) -> int:
        if not part.frames:
            return 0
        slabs = await self._reader._slabs.acquire()
        try:
            return await settled(self._reader._threads, self._check.blocks, part, data, slabs.buffer, self._write)
        finally:
            slabs.release()

    async def _in_order(self, part: Range, data: memoryview, done: asyncio.Future[None]) -> None:
        await settled(self._reader._threads, self._check.in_order, part, data)
        done.set_result(None)
