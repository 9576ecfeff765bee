"""Who packs a PG's blocks: the lanes of this process, or those of several."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from mover.datapath.buffers import BufferPool, MemoryPlan, plan_memory
from mover.datapath.compression import Chooser, Compression
from mover.datapath.intake import PackCounters
from mover.datapath.journal import Journal
from mover.datapath.packer import MacroFiles
from mover.datapath.pipeline import pack_blocks
from mover.datapath.processes import MacroSpace, PackingJob, pack_in_processes
from mover.repository.placement import Placement, WrittenFile
from mover.store.base import MACRO_BLOCK_SIZE, CapturedBlock, SlabSource, UnchangedBlock
from mover.target.base import Target
from mover.target.slots import most_of

_PROCESSORS_PER_PROCESS = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be used.

    Args:
        memory: ceiling of all buffers together, bytes.
        part_size: bytes that a part should hold.
        concurrency: parts under way; None for as many as pay.
        workers: threads of the kernel.
        retry_for, file_timeout: see :func:`mover.target.url.open_target`.
    """

    memory: int
    part_size: int
    concurrency: int | None
    workers: int
    retry_for: float | None = None
    file_timeout: float | None = None

    def plan(self, min_part: int) -> MemoryPlan:
        """See :func:`mover.datapath.buffers.plan_memory`."""
        return plan_memory(
            self.memory,
            part_size=self.part_size,
            min_part=min_part,
            concurrency=most_of(self.concurrency),
            workers=self.workers,
        )

    def share(self, count: int) -> Limits:
        """One of ``count`` equal shares, at least one of each."""
        concurrency = None if self.concurrency is None else max(1, self.concurrency // count)
        workers = max(1, self.workers // count)
        return replace(self, memory=self.memory // count, concurrency=concurrency, workers=workers)


class Packing(Protocol):
    """Packs what one capture yields. Once only; close it whatever happened."""

    @property
    def slabs(self) -> SlabSource:
        """Where the capture's blocks have to be."""
        ...

    async def pack(
        self,
        blocks: AsyncIterator[CapturedBlock | UnchangedBlock],
        space: MacroSpace,
        compression: Compression,
        *,
        previous: Mapping[int, Placement],
        progress: Callable[[PackCounters], None],
    ) -> tuple[dict[int, Placement], list[WrittenFile]]:
        """Store every block that ``previous`` does not hold already, in macro files of ``space``.

        Returns the placement of each block index that came, the last one each, and the files that were published.
        Raises what store, kernel or destination raise; nothing that was lent is out then.
        """
        ...

    @property
    def chosen(self) -> Mapping[str, int]:
        """What was chosen inside the limits, for people and reports."""
        ...

    def close(self) -> None:
        """Give memory and threads back. Idempotent."""
        ...


class OneProcess:
    """A :class:`Packing` in this process, to an open destination."""

    def __init__(self, target: Target, limits: Limits) -> None:
        self._target = target
        self._plan = plan = limits.plan(target.capabilities.min_part)
        self._workers = limits.workers
        self._parts = BufferPool(plan.parts, plan.part_size)
        self.slabs = BufferPool(plan.slabs, MACRO_BLOCK_SIZE)
        self._threads = ThreadPoolExecutor(plan.lanes, thread_name_prefix="mover-kernel")

    async def pack(
        self,
        blocks: AsyncIterator[CapturedBlock | UnchangedBlock],
        space: MacroSpace,
        compression: Compression,
        *,
        previous: Mapping[int, Placement],
        progress: Callable[[PackCounters], None],
    ) -> tuple[dict[int, Placement], list[WrittenFile]]:
        files = MacroFiles(
            self._target,
            space.path_of,
            space.backup_set_id,
            threads=self._threads,
            first_sub=space.first_sub,
            note=Journal(self._target, space, compression.label).note,
        )
        placements = await pack_blocks(
            blocks,
            files,
            parts=self._parts,
            lanes=self._plan.lanes,
            chooser=Chooser(compression),
            previous=previous,
            threads=self._threads,
            progress=progress,
            sealing=space.sealing(),
        )
        return placements, files.files

    @property
    def chosen(self) -> Mapping[str, int]:
        plan = self._plan
        return {
            "processes": 1,
            "lanes": plan.lanes,
            "concurrency": self._target.parts_under_way,
            "part_size": plan.part_size,
            "parts": plan.parts,
            "slabs": plan.slabs,
        }

    def close(self) -> None:
        self._threads.shutdown()


class ManyProcesses:
    """A :class:`Packing` in ``count`` processes, each with a destination of its own.

    Args:
        dest: URL of the destination, as the user gave it.
        objects: see :func:`mover.target.url.parse_url`.
        pace: the file of the limits that it is used within.
        min_part: of that destination.
        limits: of all processes together.
        proof: a file at the destination that each of them must find there before it writes.
    """

    def __init__(
        self,
        dest: str,
        objects: Mapping[str, str],
        pace: Path,
        min_part: int,
        limits: Limits,
        count: int,
        *,
        proof: str | None = None,
    ) -> None:
        self._proof = proof
        self._dest = dest
        self._objects = objects
        self._pace = pace
        self._limits = limits.share(count)
        self._count = count
        self._plan = plan = self._limits.plan(min_part)
        self.slabs = BufferPool(plan.slabs * count, MACRO_BLOCK_SIZE, shared=True)

    async def pack(
        self,
        blocks: AsyncIterator[CapturedBlock | UnchangedBlock],
        space: MacroSpace,
        compression: Compression,
        *,
        previous: Mapping[int, Placement],
        progress: Callable[[PackCounters], None],
    ) -> tuple[dict[int, Placement], list[WrittenFile]]:
        jobs = [
            PackingJob(
                dest=self._dest,
                objects=self._objects,
                pace=self._pace,
                space=space,
                compression=compression,
                concurrency=self._limits.concurrency,
                retry_for=self._limits.retry_for,
                file_timeout=self._limits.file_timeout,
                memory=self._plan,
                first_sub=space.first_sub + number,
                stride=self._count,
                proof=self._proof,
            )
            for number in range(self._count)
        ]
        return await pack_in_processes(blocks, jobs, slabs=self.slabs, previous=previous, progress=progress)

    @property
    def chosen(self) -> Mapping[str, int]:
        plan = self._plan
        return {
            "processes": self._count,
            "lanes": plan.lanes * self._count,
            "concurrency": most_of(self._limits.concurrency) * self._count,
            "part_size": plan.part_size,
            "parts": plan.parts * self._count,
            "slabs": plan.slabs * self._count,
        }

    def close(self) -> None:
        self.slabs.close()


def processes_for(processors: int) -> int:
    """How many processes ``--processes auto`` means. Pure.

    The kernel, the sockets and the files are worked on in threads without the interpreter's lock, so one process uses
    eight processors before the little that needs the lock is what they wait for.
    """
    return max(1, processors // _PROCESSORS_PER_PROCESS)
