"""mover's side of a comparison, as a process: ``python -m mover.bench.worker REPORT JOB`` with a JSON job.

The destination is in the environment (``MOVER_BENCH_DEST``), because a URL may hold a key and a command line can be
read by others. The report says when the work itself began: what went before is the start of Python.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mover.datapath.buffers import BufferPool, plan_memory
from mover.datapath.compression import Chooser, Compression
from mover.datapath.intake import PackCounters
from mover.datapath.packer import MacroFiles
from mover.datapath.pipeline import pack_blocks
from mover.errors import IntegrityError, MoverError
from mover.store.base import MACRO_BLOCK_SIZE, CapturedBlock, Slab
from mover.store.seekdb.blocks import BlockImage, BlockReader
from mover.target.base import Target
from mover.target.url import open_target

DEST = "MOVER_BENCH_DEST"
_READ_AHEAD = 4  # as a capture


class Ready:
    """The moment when the work begins, and what the process had cost until then."""

    def __init__(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.facts = {"ready_at": time.monotonic(), "ready_cpu_seconds": used.ru_utime + used.ru_stime}


def repeat(job: dict[str, Any]) -> dict[str, Any]:
    """A loop of the kernel for about ``seconds``."""
    from mover.bench.kernel_loops import make_loop

    loop = make_loop(job["loop"], Path(job["source"]))
    loop.call()
    ready, calls = Ready(), 0
    ends = time.monotonic() + job["seconds"]
    while calls == 0 or time.monotonic() < ends:
        loop.call()
        calls += 1
    return {"bytes_in": calls * loop.size, **ready.facts}


def command(job: dict[str, Any]) -> dict[str, Any]:
    """A command of mover, as a user runs it; its standard output goes to the file ``output``.

    What it imports on its way is imported before: that is start-up.
    """
    import aiosqlite.core  # noqa: F401
    import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401
    import uvloop  # noqa: F401

    from mover.cli import app, runner  # noqa: F401
    from mover.recovery import restore, validate  # noqa: F401
    from mover.rootservice import archive, backup  # noqa: F401
    from mover.store.seekdb import store  # noqa: F401

    ready, before = Ready(), _bytes_read()
    os.environ["MOVER_DEST"] = os.environ[DEST]
    with Path(job["output"]).open("w") as output, redirect_stdout(output):
        status = app.run(job["arguments"])
    if status:
        raise MoverError(f"mover {' '.join(job['arguments'])} ended with status {status}")
    return {"bytes_in": job["bytes_in"], "bytes_read": _bytes_read() - before, **ready.facts}


def _bytes_read() -> int:
    """What this process has read so far: through calls, or straight from a device where that was more."""
    numbers = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return max(int(numbers["rchar"]), int(numbers["read_bytes"]))


async def upload(job: dict[str, Any], target: Target) -> dict[str, Any]:
    """One large file through the destination's writer, as it is; the next parts are read while some are written."""
    ready = Ready()
    pool = BufferPool(job["concurrency"] + 2, -(-job["part_size"] // 4096) * 4096)
    fd = os.open(job["source"], os.O_RDONLY)
    size, at = os.fstat(fd).st_size, 0
    try:
        writer = await target.create("file")
        while at < size:
            part = await pool.acquire()
            part.filled = await asyncio.to_thread(os.preadv, fd, [part.buffer], at)
            if not part.filled:
                raise MoverError(f"{job['source']} shrank while it was read")
            at += part.filled
            await writer.write(part)
        info = await writer.commit()
    finally:
        os.close(fd)
    return {"bytes_in": size, "bytes_out": info.size, **ready.facts}


async def pack(job: dict[str, Any], target: Target) -> dict[str, Any]:
    """A block file through the pipeline of a backup: read, verify, digest, compress or keep, frame, write, publish."""
    ready = Ready()
    memory = plan_memory(
        job["memory"],
        part_size=job["part_size"],
        min_part=target.capabilities.min_part,
        concurrency=job["concurrency"],
        workers=job["workers"],
    )
    pool = BufferPool(memory.slabs, MACRO_BLOCK_SIZE)
    counters = PackCounters()

    def count(now: PackCounters) -> None:
        counters.read_bytes, counters.output_bytes = now.read_bytes, now.output_bytes

    reader = BlockReader(Path(job["source"]))
    try:
        with ThreadPoolExecutor(job["workers"], thread_name_prefix="mover-kernel") as threads:
            await pack_blocks(
                _blocks(reader, pool),
                MacroFiles(target, lambda sub: f"macro_block_1.{sub}", 1, threads=threads),
                parts=BufferPool(memory.parts, memory.part_size),
                lanes=memory.lanes,
                chooser=Chooser(Compression.parse(job["compression"])),
                previous={},
                threads=threads,
                progress=count,
            )
        size = reader.file.size()  # what peers carry, whatever is used of it
    finally:
        await reader.aclose()
    return {"bytes_in": size, "bytes_read": counters.read_bytes, "bytes_out": counters.output_bytes, **ready.facts}


async def _blocks(reader: BlockReader, pool: BufferPool) -> AsyncGenerator[CapturedBlock, None]:
    """Every block of the file, a few being read ahead; the slabs of a consumer that gave up die with this process."""
    pending: deque[tuple[Slab, asyncio.Task[BlockImage]]] = deque()
    for index in range(reader.file.block_count()):
        if len(pending) == min(_READ_AHEAD, pool.capacity // 2):
            yield await _next(pending)
        slab = await pool.acquire()
        pending.append((slab, asyncio.create_task(reader.read(index, slab.buffer))))
    while pending:
        yield await _next(pending)


async def _next(pending: deque[tuple[Slab, asyncio.Task[BlockImage]]]) -> CapturedBlock:
    slab, reading = pending.popleft()
    image = await reading
    if not image.ok:
        raise IntegrityError(f"block {image.identity.block_index} made for this benchmark is damaged: {image.reason}")
    return CapturedBlock(image.identity, slab, image.digest)


async def clean(_job: dict[str, Any], target: Target) -> dict[str, Any]:
    """Remove what is below the destination."""
    paths = [info.path async for info in target.list("")]
    for path in paths:
        await target.delete(path)
    return {}


def follow(job: dict[str, Any]) -> dict[str, Any]:
    """The archiver on a log that grows at a given rate."""
    from mover.bench.archive_worker import follow as run

    return run(job, os.environ[DEST], lambda: Ready().facts)


_ON_A_TARGET = {"upload": upload, "pack": pack, "clean": clean}
_ALONE = {"repeat": repeat, "command": command, "follow": follow}


async def _run(job: dict[str, Any]) -> dict[str, Any]:
    target = await open_target(os.environ[DEST], concurrency=job["concurrency"])
    gc.freeze()  # as a command does
    try:
        return await _ON_A_TARGET[job["do"]](job, target)
    finally:
        await target.aclose()


def main(report: str, text: str) -> int:
    """The exit status. What went wrong is said on stderr, without secrets."""
    job = json.loads(text)
    try:
        if job["do"] in _ALONE:
            facts = _ALONE[job["do"]](job)
        else:
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                facts = runner.run(_run(job))
    except MoverError as error:
        os.write(2, f"{error}\n".encode())
        return error.exit_code
    Path(report).write_text(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
