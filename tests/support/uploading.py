"""A coordinator as a process that uploads to an object store, for whoever kills it: ``uploading.py ROOT RUN``.

The store is in memory and the same in every run, but for what it was written since: RUN says how much. The destination
and the rest are in the environment.
"""

import asyncio
import os
import sys
from pathlib import Path

from coordinator import session_on
from memory_store import MemoryStore, sstable_block
from worlds import archive_to_the_end, back_up

from mover.errors import PreconditionError
from mover.rootservice import archive

BLOCKS = 12
BLOCK = 1_900_000  # bytes that do not compress: a full set is of several parts


def store_after(run: int) -> MemoryStore:
    """The store as it is when run number ``run`` looks at it."""
    store = MemoryStore(seed=9)
    store.change()
    for number in range(run + 1):
        for index in range(2 + number % 2, 2 + BLOCKS, 2):
            content = store.random.randbytes(BLOCK)
            store.blocks[index] = sstable_block(200_000 + index, 1000 + number, index, content)
        store.write_log(3)
    return store


def options() -> dict[str, object]:
    return {
        "dest": os.environ["UPLOADING_DEST"],
        "faulty": {"append": False},
        "memory": 96 << 20,
        "part_size": 6 << 20,
        "compression": "none",
        "retry_for": 30.0,
    }


async def main(root: Path, run: int) -> None:
    async with session_on(root, store_after(run), **options()) as session:
        session.clock.us += run * 10**9
        try:
            await archive.start(session)
        except PreconditionError:
            pass  # it is under way
        await archive_to_the_end(session)
        await back_up(session, incremental=run % 3 > 0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
