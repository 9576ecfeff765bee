"""Writes the files of a server's commit log.

Sources: log-archive notes 3.1 (files), 3.2 (blocks), 3.3 (padding), 3.5 (end of a file); observer notes 1 (recycling).
Where the notes leave a choice: the trailer block's length is 512 with what is not used as its padding, the INFO block's
version is 1, and a recycled file begins with a page of "NL".
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from mover.store.sim.identity import PgKey
from mover.store.sim.packing import crc, up

FILE_BYTES = 1 << 26
TRAILER_BYTES = 512
MAX_BATCH = 1_966_080
DATA, INFO, TRAILER = 1, 2, 3
_LIMIT = FILE_BYTES - TRAILER_BYTES - MAX_BATCH
_PADDING_HEADER = 12


def block_meta(kind: int, size: int, timestamp: int, data_checksum: int = 0, total: int | None = None) -> bytes:
    """The 48 bytes before a block of ``size`` bytes altogether; ``total`` is its nominal length."""
    total = up(size) if total is None else total
    fields = (0x4C42, 1, kind, total, total - size, timestamp, data_checksum)
    return struct.pack(">hhiqqqq", *fields) + struct.pack(">q", crc(struct.pack("<hhiqqqq", *fields)))


def padding_at(position: int) -> bytes:
    """The padding entry that fills the page at ``position``, or nothing on a page's boundary."""
    if position % 4096 == 0:
        return b""
    size = up(position + _PADDING_HEADER) - position
    return struct.pack(">hhq", 0x5044, 1, size) + bytes(size - _PADDING_HEADER)


def info_block(last: dict[PgKey, int], max_submit_ts: int, freeze_version: int, timestamp: int) -> bytes:
    """The block that tells each PG's last log id in the file."""
    body = struct.pack(">hqQq", 1, freeze_version, 0x13BD710F4B907562, len(last))
    for key in sorted(last, key=lambda key: key.order):
        body += key.disk + struct.pack(">Q", last[key])
    body += struct.pack(">Qq", 0xFA06D5F2B8A1CCE1, max_submit_ts)
    return block_meta(INFO, 48 + len(body), timestamp, crc(body)) + body


def trailer_block(info_offset: int, next_file_id: int, timestamp: int) -> bytes:
    """58 bytes for the last 512 of a finished file."""
    checksum = crc(struct.pack("<ii", info_offset, next_file_id))
    body = struct.pack(">hii", 1, info_offset, next_file_id)
    return block_meta(TRAILER, 48 + len(body), timestamp, checksum, TRAILER_BYTES) + body


@dataclass
class ClogWriter:
    """Where a server's log ends, and how it goes on.

    ``fill`` is the position at which a file is finished at the latest; ``live``: the file is not finished yet.
    """

    directory: Path
    file_id: int = 0
    position: int = 0
    fill: int = _LIMIT
    pool: list[int] = field(default_factory=list)
    last: dict[PgKey, int] = field(default_factory=dict)
    max_submit_ts: int = 0
    freeze_version: int = 1 << 32
    live: bool = False

    def open_next(self, *, recycle: bool) -> None:
        """The next file: a new one, or with ``recycle`` the oldest of the pool under a new name."""
        self.file_id += 1
        self.position = 0
        self.live = True
        self.last.clear()
        self.max_submit_ts = 0
        path = self.directory / str(self.file_id)
        if recycle and self.pool:
            os.rename(self.directory / str(self.pool.pop(0)), path)
            with path.open("r+b") as file:
                file.write(b"NL" * 2048)
        else:
            with path.open("xb") as file:
                file.truncate(FILE_BYTES)

    def full(self, payload: int) -> bool:
        """Would a block of ``payload`` bytes begin where no block begins?"""
        return self.position > min(_LIMIT, self.fill) or self.position + 48 + payload > FILE_BYTES - (1 << 17)

    def finish(self, timestamp: int) -> None:
        """INFO block and trailer: the file is complete."""
        self.live = False
        at = up(self.position + _PADDING_HEADER) if self.position % 4096 else self.position
        block = info_block(self.last, self.max_submit_ts, self.freeze_version, timestamp)
        with (self.directory / str(self.file_id)).open("r+b") as file:
            file.seek(self.position)
            file.write(padding_at(self.position))
            file.write(block + bytes(-len(block) % 4096))
            file.seek(FILE_BYTES - TRAILER_BYTES)
            file.write(trailer_block(at, self.file_id + 1, timestamp).ljust(TRAILER_BYTES, b"\0"))

    def write_block(self, items: list[bytes], timestamp: int, *, inner_padding: bool = False) -> list[int]:
        """One DATA block of ``items``, and the provisional padding behind it; the items' offsets in the file.

        With ``inner_padding`` the block ends with a padding entry of its own instead of one behind it.
        """
        offsets = []
        at = self.position + 48
        for item in items:
            offsets.append(at)
            at += len(item)
        payload = b"".join(items)
        if inner_padding:
            payload += padding_at(self.position + 48 + len(payload))
        block = block_meta(DATA, 48 + len(payload), timestamp) + payload
        with (self.directory / str(self.file_id)).open("r+b") as file:
            file.seek(self.position)
            file.write(block + padding_at(self.position + len(block)))
        self.position += len(block)
        return offsets
