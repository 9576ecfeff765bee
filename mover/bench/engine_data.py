"""Macroblocks of a real seekdb: an engine is started, loaded and compacted, and its valid blocks are copied out."""

from __future__ import annotations

import asyncio
import mmap
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from mover.demo.workload import Workload
from mover.errors import SourceError
from mover.kernel.macroblock import MACROBLOCK_BYTES
from mover.store.seekdb.blocks import BlockFile, block_image
from mover.store.seekdb.paths import StorePaths
from mover.store.seekdb.server import SeekdbServer


def write_engine_blocks(path: Path, count: int) -> int:
    """Write ``count`` blocks to ``path``, beginning again with the first when the engine made fewer; how many it made.

    The tables are those of the demo: compressed with zstd, with zlib and not at all, partitioned, with large values.

    Raises:
        PreconditionError: no engine is installed.
    """
    # On the disk, not in memory: the engine insists on its log disk. Its socket wants a short path.
    base = Path(tempfile.mkdtemp(prefix="mover-bench-"))
    try:
        with warnings.catch_warnings(action="ignore"):  # the engine's answer to a compaction when one runs already
            asyncio.run(_load(base))
        made = 0
        with path.open("xb") as file:
            while made < count:
                before = made
                for block in _valid_blocks(StorePaths.of_base(base).block_file):
                    if made == count:
                        break
                    file.write(block)
                    made += 1
                if made == before:
                    raise SourceError(f"the engine in {base} has written no blocks")
        return len(list(_valid_blocks(StorePaths.of_base(base).block_file)))
    finally:
        shutil.rmtree(base, ignore_errors=True)


async def _load(base: Path) -> None:
    async with SeekdbServer(base) as server:
        work = Workload(server)
        await work.create()
        await work.load()
        await work.minor_freeze()
        await work.major_freeze()


def _valid_blocks(path: Path) -> Iterator[memoryview]:
    """Every block whose own checksum holds; the memory is used again for the next one."""
    file, slab = BlockFile(path), memoryview(mmap.mmap(-1, MACROBLOCK_BYTES))
    try:
        for header in file.headers([index for written in file.written() for index in written]):
            file.read_into(header.block_index, slab)
            if block_image(header.block_index, slab).ok:
                yield slab
    finally:
        file.close()
