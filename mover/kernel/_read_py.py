"""Reading macroblocks in pure Python. Twin of ``_native/read.pyx``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mover.kernel._checksum_py import xxh3_128
from mover.kernel._macroblock_py import macroblock_check
from mover.kernel.read import BlockRead, Read, check_read


def read_blocks(fd: int, reads: Sequence[Read]) -> list[BlockRead]:
    """Read macroblocks, verify them by the engine's own checksum and digest them, in one call that does not hold the
    GIL. What a read reports as an error can be asked for again.

    Args:
        fd: open for reading; with O_DIRECT when offsets, lengths and addresses are page aligned.
        reads: each into a buffer of its own.

    Returns:
        What came of each read, in their order.

    Raises:
        ValueError: a read does not fit its buffer or is larger than READ_LIMIT.
    """
    views = [memoryview(buffer).cast("B") for _, _, buffer in reads]
    for (offset, length, _), view in zip(reads, views, strict=True):
        check_read(offset, length, len(view))
    return [_read(fd, read.offset, view[: read.length]) for read, view in zip(reads, views, strict=True)]


def _read(fd: int, offset: int, view: memoryview) -> BlockRead:
    filled = 0
    while filled < len(view):
        try:
            count = os.preadv(fd, [view[filled:]], offset + filled)
        except OSError as error:
            return BlockRead(error.errno or 0, filled, None, b"")
        if count == 0:
            return BlockRead(0, filled, None, b"")
        filled += count
    header = macroblock_check(view)
    return BlockRead(0, filled, header, xxh3_128(view[: header.used_length]) if header.ok else b"")
