"""Packing in several processes: real ones, to a real directory."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from memory_store import PG, identify, linked_block, sstable_block
from polling import until

from mover.datapath.compression import Compression
from mover.datapath.intake import PackCounters
from mover.datapath.packing import Limits, ManyProcesses, processes_for
from mover.datapath.processes import MacroSpace
from mover.errors import IntegrityError, MountError, MoverError, UnreachableError
from mover.kernel import xxh3_128
from mover.media.frames import iter_frames
from mover.media.header import DataType
from mover.media.layout import Layout
from mover.media.macro import parse_macro
from mover.repository.placement import Placement, WrittenFile
from mover.store.base import CapturedBlock, UnchangedBlock

SPACE = MacroSpace(Layout("seekdb", 1), 1, 1, 1, PG)
LIMITS = Limits(memory=64 << 20, part_size=2 << 20, concurrency=2, workers=2)
Step = tuple[int, bytes] | UnchangedBlock | Callable[[], None]


class Work:
    def __init__(self, root: Path, count: int = 2, proof: str | None = None) -> None:
        self.root = root
        root.mkdir(exist_ok=True)  # the processes do not: a directory that is not there is not mounted
        self.packing = ManyProcesses(root.as_uri(), {}, root.parent / "pace", 0, LIMITS, count, proof=proof)
        self.counters = PackCounters()
        self.yielded = 0

    async def blocks(self, steps: list[Step]) -> AsyncIterator[CapturedBlock | UnchangedBlock]:
        for step in steps:
            if isinstance(step, UnchangedBlock):
                yield step
            elif isinstance(step, tuple):
                index, block = step
                slab = await self.packing.slabs.acquire()
                slab.buffer[: len(block)] = block
                self.yielded += 1
                yield CapturedBlock(identify(index, block), slab, xxh3_128(block))
            else:
                step()

    async def run(
        self, steps: list[Step], previous: dict[int, Placement] | None = None
    ) -> tuple[dict[int, Placement], list[WrittenFile]]:
        def note(counters: PackCounters) -> None:
            self.counters = counters

        try:
            return await self.packing.pack(
                self.blocks(steps), SPACE, Compression.parse("auto"), previous=previous or {}, progress=note
            )
        finally:
            assert self.packing.slabs.lent == 0
            self.packing.close()


def read_back(root: Path, path: str) -> dict[int, bytes]:
    data = (root / path).read_bytes()
    return {
        frame.offset: bytes(parse_macro(frame.data()).block)
        for frame in iter_frames(data, data_type=DataType.MACRO_DATA)
    }


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("count", [1, 3])
async def test_every_placement_names_the_bytes_of_its_block(tmp_path: Path, count: int) -> None:
    rng = random.Random(count)
    blocks = {index: linked_block(rng.randbytes(9) * rng.randint(1, 400)) for index in range(50)}
    work = Work(tmp_path, count)
    placements, files = await work.run(list(blocks.items()))
    assert placements.keys() == blocks.keys()
    assert files_below(tmp_path) == sorted(file.path for file in files)
    for file in files:
        data = (tmp_path / file.path).read_bytes()
        assert (len(data), xxh3_128(data)) == (file.size, file.digest)
    for index, placement in placements.items():
        found = read_back(tmp_path, SPACE.path_of(placement.sub_task_id))
        assert found[placement.offset] == blocks[index]
        assert placement.sub_task_id % count == index % count
    assert (work.counters.blocks, work.counters.output_bytes) == (50, sum(file.size for file in files))
    assert work.packing.chosen["processes"] == count


async def test_of_a_block_that_comes_twice_the_later_counts(tmp_path: Path) -> None:
    old, new = sstable_block(5, 1, 1, b"old" * 999), sstable_block(5, 2, 1, b"new" * 999)
    first, _ = await Work(tmp_path / "a").run([(7, old), (7, new), (8, old)])
    assert read_back(tmp_path / "a", SPACE.path_of(first[7].sub_task_id))[first[7].offset] == new
    unchanged = UnchangedBlock(identify(7, new))
    second, files = await Work(tmp_path / "b").run([(7, old), unchanged, (8, old)], previous=first)
    assert second[7] == first[7] and second[8] == first[8]
    assert len(files) == 1, "the old bytes of block 7 were stored, and nothing points at them"


async def test_what_goes_wrong_there_is_raised_here(tmp_path: Path) -> None:
    taken = tmp_path / SPACE.path_of(1)
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"somebody's")
    with pytest.raises(MoverError, match=r"macro_block_1\.1"):
        await Work(tmp_path).run([(index, linked_block(b"x")) for index in range(400)])
    assert taken.read_bytes() == b"somebody's"
    assert files_below(tmp_path) == [SPACE.path_of(1)]


@pytest.mark.parametrize("there", [True, False], ids=["another one", "not there"])
async def test_processes_write_nothing_into_a_directory_that_is_not_the_one_of_the_backup(
    tmp_path: Path, there: bool
) -> None:
    work = Work(tmp_path / "dest", proof="the/list")
    if not there:
        work.root.rmdir()
    with pytest.raises(MountError if there else UnreachableError) as refused:
        await work.run([(index, linked_block(b"x")) for index in range(40)])
    assert refused.value.exit_code == 7 and refused.value.hint
    assert files_below(tmp_path) == ["pace"]
    assert work.root.exists() == there


async def test_the_readers_own_error_is_the_one_that_is_raised(tmp_path: Path) -> None:
    def fail() -> None:
        raise IntegrityError("block 3 is damaged")

    with pytest.raises(IntegrityError, match="block 3"):
        await Work(tmp_path).run([(1, linked_block(b"x")), (2, linked_block(b"y")), fail])
    assert files_below(tmp_path) == []


def children() -> list[int]:
    """The packing processes that run now."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = Path("/proc", pid, "stat").read_text()
            command = Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue
        if int(status.rpartition(")")[2].split()[1]) == os.getpid() and b"packing_process" in command:
            found.append(int(pid))
    return found


async def test_a_process_that_is_killed_ends_the_work(tmp_path: Path) -> None:
    def kill() -> None:
        os.kill(children()[0], signal.SIGKILL)

    blocks: list[Step] = [(index, linked_block(bytes([index % 250 + 1]) * 4000)) for index in range(300)]
    with pytest.raises(MoverError, match="packing process ended with status -9"):
        await Work(tmp_path).run([*blocks[:20], kill, *blocks[20:]])
    assert children() == []


async def test_a_cancelled_one_leaves_no_process_and_no_torn_file(tmp_path: Path) -> None:
    work = Work(tmp_path)
    blocks: list[Step] = [(index, linked_block(bytes([index % 250 + 1]) * 4000)) for index in range(5000)]
    running = asyncio.create_task(work.run(blocks))
    await until(lambda: work.yielded > 30, "no blocks came", every=0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert children() == []
    assert not [path for path in files_below(tmp_path) if ".tmp." in path]


@pytest.mark.parametrize(("processors", "processes"), [(1, 1), (2, 1), (15, 1), (16, 2), (64, 8)])
def test_automatic(processors: int, processes: int) -> None:
    assert processes_for(processors) == processes
