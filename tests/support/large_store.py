"""A stopped store of any size that costs a page or two per block, and a process that captures it.

``python large_store.py BASE MEMORY [KNOWN]``: prints how much was captured and the largest resident size before and
after, as JSON. With KNOWN the blocks of even index are those of an earlier set.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import struct
import sys
from pathlib import Path

from palf_log import LogWriter

from mover.datapath.buffers import BufferPool
from mover.kernel import ob_crc64
from mover.kernel.palf import PALF_FILE_BYTES, PALF_FILE_HEADER
from mover.store.base import MACRO_BLOCK_SIZE, BlockIdentity, CapturedBlock
from mover.store.seekdb.offline import OfflineCapture
from mover.store.seekdb.paths import StorePaths

PAYLOAD = 6000
FIRST = 2


def header(index: int) -> bytes:
    """Headers of kind 1 whose payload is all zeros behind them."""
    sstable = struct.pack("<IHHQqq12iq", 96, 2, 1007, 200_001 + index % 50, 1_700_000_000_000_000_000, index, *[0] * 13)
    payload = (sstable + struct.pack("<ii", 1, 0)).ljust(PAYLOAD, b"\0")
    return struct.pack("<iiiiiI", 24, 1, 1001, 1, PAYLOAD, ob_crc64(payload)) + payload[: len(sstable) + 8]


def make(base: Path, blocks: int) -> StorePaths:
    """Write the store; ``blocks`` macroblocks behind the superblocks."""
    paths = StorePaths.of_base(base)
    for directory in (paths.slog_sys, paths.palf_meta, paths.palf_log, paths.block_file.parent):
        directory.mkdir(parents=True)
    superblock = (struct.pack("<iiiI", 1, 1018, 8, ob_crc64(b"8 bytes.")) + b"8 bytes.").ljust(4096, b"\0")
    fd = os.open(paths.block_file, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, (blocks + FIRST) * MACRO_BLOCK_SIZE)
    for index in (0, 1):
        os.pwrite(fd, superblock, index * MACRO_BLOCK_SIZE)
    for index in range(FIRST, blocks + FIRST):
        os.pwrite(fd, header(index), index * MACRO_BLOCK_SIZE)
    os.close(fd)
    log = LogWriter()
    log.group([(1_700_000_000_000_000_000, b"x" * 100)])
    for directory, content in ((paths.palf_log, bytes(PALF_FILE_HEADER) + log.data), (paths.palf_meta, b"LM")):
        (directory / "0").write_bytes(content)
        os.truncate(directory / "0", PALF_FILE_HEADER + PALF_FILE_BYTES)
    return paths


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


async def capture(base: Path, memory: int, *, known: bool) -> dict[str, int]:
    """Capture the store with ``memory`` bytes of slabs, and what it took."""
    pool = BufferPool(memory // MACRO_BLOCK_SIZE, MACRO_BLOCK_SIZE)
    for slab in await pool.take(pool.capacity):
        slab.buffer[::4096] = bytes(MACRO_BLOCK_SIZE // 4096)  # all of it is resident before we look
        slab.release()
    paths = StorePaths.of_base(base)
    earlier: dict[int, BlockIdentity] = {}
    if known:
        count = paths.block_file.stat().st_size // MACRO_BLOCK_SIZE
        for index in range(FIRST, count, 2):
            _, _, _, kind, size, checksum = struct.unpack("<iiiiiI", header(index)[:24])
            owner = 200_001 + index % 50
            earlier[index] = BlockIdentity(index, kind, 24 + size, owner, 1_700_000_000_000_000_000, index, checksum)
    before, used = peak(), os.times()
    captured = unchanged = 0
    found = OfflineCapture(paths, pool)
    try:
        async for block in found.blocks(earlier):
            if isinstance(block, CapturedBlock):
                captured += 1
                block.slab.release()
            else:
                unchanged += 1
        read = found.result.read_bytes
    finally:
        await found.aclose()
    now = os.times()
    microseconds = round((now.user - used.user + now.system - used.system) * 1_000_000)
    facts = {"captured": captured, "unchanged": unchanged, "read": read, "microseconds": microseconds}
    return facts | {"before": before, "after": peak(), "pool": pool.capacity * MACRO_BLOCK_SIZE}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(capture(Path(sys.argv[1]), int(sys.argv[2]), known="known" in sys.argv))))
