"""Packing in several processes, for links that one event loop can not fill (``--processes``).

This process reads the store and decides what has to be stored; the slabs are memory that the others have mapped, so a
block is not copied on its way to them. Each of them (:mod:`mover.datapath.packing_process`) runs lanes of its own with
a destination of its own, writes macro files with every so many-th sub number, and says at the end where its blocks are.
A block always goes to the same process, so that of two captures of it the later one counts there too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mover.datapath.buffers import BufferPool, MemoryPlan, PooledBuffer
from mover.datapath.channel import Channel
from mover.datapath.compression import Compression
from mover.datapath.intake import Intake, PackCounters
from mover.datapath.packer import by_sub
from mover.encryption.cipher import DataKey, Sealer
from mover.errors import MoverError
from mover.media.layout import Layout
from mover.media.pg import PGKey
from mover.media.sealed import Sealing, place_of
from mover.repository.placement import Placement, WrittenFile
from mover.store.base import CapturedBlock, UnchangedBlock

_GRACE = 20.0  # seconds that a process gets to remove what it began


@dataclass(frozen=True, slots=True)
class MacroSpace:
    """Where the macro files of a PG in a set go."""

    layout: Layout
    tenant_id: int
    full_set: int
    backup_set_id: int
    pg: PGKey
    key: DataKey | None = None  # encrypts what is in them
    first_sub: int = 0  # earlier attempts had those before

    def path_of(self, sub: int) -> str:
        """The path of a macro file by its sub number."""
        return self.layout.macro_block(self.tenant_id, self.full_set, self.pg, self.backup_set_id, sub)

    def sealing(self) -> Sealing | None:
        """What encrypts the blocks. Each process calls it once: a sealer counts, and no two may count the same."""
        return None if self.key is None else Sealing(Sealer(self.key), place_of(self.path_of(0)))


@dataclass(frozen=True, slots=True)
class PackingJob:
    """What a packing process needs to know. It holds secrets, so it goes through the socket, in no command line."""

    dest: str
    objects: Mapping[str, str]  # see mover.target.url.parse_url
    pace: Path
    space: MacroSpace
    compression: Compression
    concurrency: int | None
    memory: MemoryPlan  # of this process; its slabs are the reading one's
    first_sub: int
    stride: int
    retry_for: float | None = None  # see mover.target.url.open_target
    file_timeout: float | None = None  # likewise
    proof: str | None = None  # a file that whoever gives the job has written at the destination


async def pack_in_processes(
    blocks: AsyncIterator[CapturedBlock | UnchangedBlock],
    jobs: list[PackingJob],
    *,
    slabs: BufferPool,
    previous: Mapping[int, Placement],
    progress: Callable[[PackCounters], None],
) -> tuple[dict[int, Placement], list[WrittenFile]]:
    """:func:`mover.datapath.pipeline.pack_blocks` with a process for each job.

    Args:
        blocks: what a capture yields, in buffers of ``slabs``, which must be shared.
        jobs: one per process.

    Returns the placement of each block and the files that were published, in the order of sub numbers.

    Raises what reader, kernel or destination raise, and MoverError when a process ended in the middle. Slabs that a
    process still had are back in their pool then, and it is gone.
    """
    workers = [_Worker(slabs) for _ in jobs]
    intake = Intake(previous, progress)

    def count() -> None:
        intake.counters.input_bytes = sum(worker.counters.input_bytes for worker in workers)
        intake.stored(0, sum(worker.counters.output_bytes for worker in workers))

    async def read() -> None:
        async for block in blocks:
            arrival = intake.take(block)
            if arrival is not None:
                workers[block.identity.block_index % len(workers)].store(arrival.number, arrival.block)
        for worker in workers:
            worker.finish()

    try:
        await asyncio.gather(*(worker.start(job) for worker, job in zip(workers, jobs, strict=True)))
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            listening = [group.create_task(worker.listen(count)) for worker in workers]
    except BaseException as error:
        close = getattr(blocks, "aclose", None)
        if close is not None:
            await close()
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0] from None
        raise
    finally:
        await asyncio.shield(asyncio.gather(*(worker.aclose() for worker in workers)))
    files: list[WrittenFile] = []
    for task in listening:
        placements, written = task.result()
        files.extend(written)
        for number, placement in placements:
            intake.placed(number, placement)
    return intake.placements, by_sub(files)


class _Worker:
    """A packing process, seen from the one that reads."""

    def __init__(self, slabs: BufferPool) -> None:
        self.counters = PackCounters()
        self._slabs = slabs
        self._lent: dict[int, PooledBuffer] = {}  # by offset
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, job: PackingJob) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mover.datapath.packing_process",
                *map(str, (os.getpid(), theirs.fileno(), self._slabs.fd, self._slabs.capacity * self._slabs.size)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._slabs.fd),
            )
        self._channel = await Channel.open(ours)
        self._channel.send("job", job)

    def store(self, number: int, block: CapturedBlock) -> None:
        slab = block.slab
        assert isinstance(slab, PooledBuffer) and self._channel is not None
        self._lent[slab.offset] = slab
        self._channel.send("block", number, block.identity, block.digest, slab.offset)

    def finish(self) -> None:
        assert self._channel is not None
        self._channel.send("end")

    async def listen(self, count: Callable[[], None]) -> tuple[list[tuple[int, Placement]], list[WrittenFile]]:
        """Until it has published everything."""
        assert self._channel is not None
        while (message := await self._channel.receive()) is not None:
            kind, *values = message
            if kind == "free":
                self._lent.pop(values[0]).release()
            elif kind == "progress":
                self.counters = values[0]
                count()
            elif kind == "failed":
                raise values[0]
            elif kind == "done":
                return values[0], values[1]
        assert self._process is not None
        status = await self._process.wait()
        raise MoverError(
            f"a packing process ended with status {status} in the middle of its work",
            hint="what it said is on stderr; the system may have ended it for its memory",
        )

    async def aclose(self) -> None:
        """End the process, and take the slabs back that it had."""
        if self._channel is not None:
            await self._channel.aclose()
        if self._process is not None:
            try:
                async with asyncio.timeout(_GRACE):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        for slab in self._lent.values():
            slab.release()
        self._lent.clear()
