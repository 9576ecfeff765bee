"""A server's block_file: super blocks, the ring of free blocks, and writing a block at its index.

Sources: observer notes 2.1 (addressing, MacroBlockId), 2.2 (super block), 5.1 (the order of reuse). The objects inside
the super block are versioned objects of their own; the notes have that unconfirmed.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from mover.store.sim.macroblock import MACRO_BYTES
from mover.store.sim.packing import content, dice, unis, vint

RESERVED = 2
_SUPER_BYTES = 64 << 10


def macro_block_id(index: int) -> bytes:
    """A local macro block's id: version 1 in the highest nibble of word 0, the index in word 1."""
    return vint(1 << 60) + vint(index) + vint(0) + vint(0)


def super_block(created: int, modified: int, blocks: int, replay_start: tuple[int, int, int]) -> bytes:
    """Header and content of a super block, format V3, in a buffer of 64 KiB. There is no checksum in it."""
    body = unis(
        vint(created),
        vint(modified),
        vint(MACRO_BYTES),
        vint(blocks),
        vint(blocks * MACRO_BYTES),
        unis(*map(vint, replay_start)),
        unis(macro_block_id(-1)),
        unis(macro_block_id(-1)),
    )
    return (struct.pack("<ii", 3, 1018) + body).ljust(_SUPER_BYTES, b"\0")


def _next_data(descriptor: int, start: int) -> int:
    """Where the next bytes are that are no hole; the largest offset if there are none."""
    try:
        return os.lseek(descriptor, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return 1 << 62


@dataclass
class BlockFile:
    """Which blocks are free, oldest first, and the file they are in. It grows by ``step`` blocks, or by a quarter."""

    path: Path
    total: int
    created: int
    free: list[int] = field(default_factory=list)
    step: int = 0

    def create(self, seed: int, server: int) -> None:
        """An empty file of ``total`` blocks; the ring begins at a place of its own."""
        with self.path.open("xb") as file:
            file.truncate(self.total * MACRO_BYTES)
        start = dice(seed, "ring", server).randrange(self.total - RESERVED)
        order = list(range(RESERVED, self.total))
        self.free = order[start:] + order[:start]
        self.write_super(self.created)

    def write_super(self, modified: int) -> None:
        """Both copies; the backup first, as the server does."""
        block = super_block(self.created, modified, self.total, (1, 0, 0))
        with self.path.open("r+b") as file:
            for offset in (MACRO_BYTES, 0):
                file.seek(offset)
                file.write(block)

    def grow_to(self, total: int) -> None:
        """A larger file, with the new blocks at the end of the ring."""
        os.truncate(self.path, total * MACRO_BYTES)
        self.free += range(self.total, total)
        self.total = total

    def write(self, block: bytes) -> int:
        """``block`` and zeros behind it, in the oldest free block; its index."""
        if not self.free:
            self.grow_to(self.total + (self.step or max(16, self.total // 4)))
        index = self.free.pop(0)
        with self.path.open("r+b") as file:
            start = index * MACRO_BYTES
            # A hole reads as zeros; only what an earlier block left has to be overwritten.
            used = 0
            if _next_data(file.fileno(), start) < start + MACRO_BYTES:
                used = len(os.pread(file.fileno(), MACRO_BYTES, start).rstrip(b"\0"))
            file.seek(start)
            file.write(block.ljust(used, b"\0"))
        return index

    def release(self, indexes: list[int]) -> None:
        """The blocks are free: their bytes stay until it is their turn."""
        self.free += indexes

    def litter(self, seed: int, server: int, count: int) -> None:
        """Bytes of no meaning in ``count`` free blocks at the end of the ring."""
        with self.path.open("r+b") as file:
            for index in self.free[-count:] if count else []:
                file.seek(index * MACRO_BYTES)
                file.write(content(f"{seed}/litter/{server}/{index}", 8192))
