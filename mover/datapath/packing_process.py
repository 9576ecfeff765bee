"""A process that packs and sends what another one reads; see :mod:`mover.datapath.processes`.

``python -m mover.datapath.packing_process PARENT SOCKET MEMORY BYTES``: its parent's pid, and the descriptors of its
end of the socket and of the slabs. It ends with its parent, whatever becomes of that.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

from mover.datapath.buffers import BufferPool
from mover.datapath.channel import Channel
from mover.datapath.compression import Chooser
from mover.datapath.intake import PackCounters
from mover.datapath.journal import Journal
from mover.datapath.packer import MacroFiles
from mover.datapath.pipeline import pack_blocks
from mover.datapath.processes import PackingJob
from mover.errors import OB_MOUNT_FILE_NOT_VALID, Cancelled, MountError, MoverError
from mover.store.base import MACRO_BLOCK_SIZE, CapturedBlock
from mover.target.pacing import PacedTarget, SharedPace
from mover.target.url import open_target

_PR_SET_PDEATHSIG = 1


class _RemoteSlab:
    """A slab of the reading process."""

    __slots__ = ("_channel", "_offset", "buffer")

    def __init__(self, channel: Channel, memory: memoryview, offset: int) -> None:
        self._channel = channel
        self._offset = offset
        self.buffer = memory[offset : offset + MACRO_BLOCK_SIZE]

    def release(self) -> None:
        self._channel.send("free", self._offset)


async def run(channel: Channel, memory: memoryview) -> None:
    """Do the one job that comes through the channel, and say how it ended."""
    message = await channel.receive()
    if message is None:
        return
    job: PackingJob = message[1]
    numbers: dict[int, int] = {}

    async def blocks() -> AsyncGenerator[CapturedBlock, None]:
        while (message := await channel.receive()) is not None:
            if message[0] == "end":
                return
            _, number, identity, digest, offset = message
            numbers[identity.block_index] = number
            yield CapturedBlock(identity, _RemoteSlab(channel, memory, offset), digest)
        raise Cancelled("the process that reads is gone")

    def progress(counters: PackCounters) -> None:
        channel.send("progress", counters)

    try:
        pace = SharedPace(job.pace)
        inner = await open_target(
            job.dest,
            create=False,
            concurrency=job.concurrency,
            objects=job.objects,
            retry_for=job.retry_for,
            file_timeout=job.file_timeout,
        )
        target = PacedTarget(inner, pace, first=False)
        try:
            if job.proof is not None and await target.stat(job.proof) is None:
                raise MountError(
                    f"{inner.url} is not the destination of this backup any more: {job.proof} is missing",
                    hint="look at what is mounted there; nothing was written",
                    code=OB_MOUNT_FILE_NOT_VALID,
                    path=job.proof,
                )
            with ThreadPoolExecutor(job.memory.lanes, thread_name_prefix="mover-kernel") as threads:
                files = MacroFiles(
                    target,
                    job.space.path_of,
                    job.space.backup_set_id,
                    threads=threads,
                    first_sub=job.first_sub,
                    stride=job.stride,
                    note=Journal(target, job.space, job.compression.label).note,
                )
                placements = await pack_blocks(
                    blocks(),
                    files,
                    parts=BufferPool(job.memory.parts, job.memory.part_size),
                    lanes=job.memory.lanes,
                    chooser=Chooser(job.compression),
                    previous={},
                    threads=threads,
                    progress=progress,
                    sealing=job.space.sealing(),
                )
        finally:
            await target.aclose()
            pace.close()
    except MoverError as error:
        channel.send("failed", error)
    else:
        channel.send("done", [(numbers[index], placement) for index, placement in placements.items()], files.files)
    # A socket that is closed with something unread in it takes what it said back: read until the other end has closed.
    while await channel.receive() is not None:
        pass
    await channel.aclose()


def main(parent: int, end: int, memory: int, size: int) -> None:
    """See the module."""
    # A terminal's ctrl-C reaches every process of the group; when this one has to stop is its parent's decision.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    slabs = memoryview(mmap.mmap(memory, size))
    os.close(memory)

    async def serve() -> None:
        await run(await Channel.open(socket.socket(fileno=end)), slabs)

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
