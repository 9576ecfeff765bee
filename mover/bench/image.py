"""A stopped store to measure with: a base directory as a seekdb leaves it, with blocks and log of a stated kind."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from mover.bench.data import blocks
from mover.bench.log_data import write_log_files
from mover.kernel import ob_crc64
from mover.kernel.macroblock import MACROBLOCK_BYTES
from mover.store.seekdb.files import PAGE, SUPERBLOCK, SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSETS
from mover.store.seekdb.paths import StorePaths

_FIRST = 2  # data blocks begin behind the superblocks
_LOG_BYTES = 1 << 20


class StoreImage:
    """A base directory that ``--source seekdb:///base --offline`` backs up.

    It is enough of a store for every byte to be read, verified and restored; no engine would boot on it.

    Args:
        base: a directory that does not exist yet.
        kind: of the blocks, see :mod:`mover.bench.data`.
        count: how many.
        log_bytes: of log, at least.
        rows: whether the log's entries hold rows, which compress, or random bytes.
        log_rate: bytes per second that the log's SCNs tell of.
    """

    def __init__(
        self,
        base: Path,
        kind: str,
        count: int,
        *,
        log_bytes: int = _LOG_BYTES,
        rows: bool = True,
        log_rate: float = 1e9,
    ) -> None:
        self.paths = StorePaths.of_base(base)
        self.kind = kind
        self.count = count
        self._changes = 0
        for path in (self.paths.block_file.parent, self.paths.slog_sys, self.paths.palf_log, self.paths.palf_meta):
            path.mkdir(parents=True)
        with self.paths.block_file.open("xb") as file:
            for offset in SUPERBLOCK_OFFSETS:
                file.seek(offset)
                file.write(_superblock())
            file.seek(_FIRST * MACROBLOCK_BYTES)
            for block in blocks(kind, count):
                file.write(block)
        (self.paths.slog_sys / "1").write_bytes(b"")
        (self.paths.palf_meta / "0").write_bytes(struct.pack("<Q", 1).ljust(PAGE, b"\0"))
        self.log_end = write_log_files(self.paths.palf_log, log_bytes, compressible=rows, rate=log_rate)

    @property
    def url(self) -> str:
        return f"seekdb://{self.paths.base}"

    @property
    def size(self) -> int:
        """Bytes of all blocks."""
        return self.count * MACROBLOCK_BYTES

    def change(self, every: int) -> int:
        """Write a new block, of a newer version, over every so manieth one; how many that were."""
        self._changes += 1
        places = range(0, self.count, every)
        fd = os.open(self.paths.block_file, os.O_WRONLY)
        try:
            for number, block in zip(places, blocks(self.kind, len(places), seed=1 + self._changes), strict=True):
                os.pwrite(fd, block, (_FIRST + number) * MACROBLOCK_BYTES)
        finally:
            os.close(fd)
        return len(places)


def _superblock() -> bytes:
    body = b"mover bench"
    checksum = ob_crc64(body) & 0xFFFFFFFF
    return (SUPERBLOCK.pack(1, SUPERBLOCK_MAGIC, len(body), checksum) + body).ljust(PAGE, b"\0")
