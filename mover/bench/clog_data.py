"""clog of an OceanBase 3.1 observer to measure with: valid blocks of entries of several PGs."""

from __future__ import annotations

import random
from pathlib import Path

from mover.bench.data import row_stock
from mover.kernel import ob_crc64
from mover.kernel.clog import BLOCK_DATA, BLOCK_IMAGE, BLOCK_MAGIC, BLOCK_META, BLOCK_VERSION
from mover.media.log_entry import LogEntryHeader, LogType
from mover.media.pg import PGKey

_PGS = 8
_ENTRY_BYTES = 2000  # of a body: a few rows
_BLOCK_ENTRIES = 32  # a group commit
_TS = 1_700_000_000_000_000


def clog(size: int) -> bytes:
    """At least ``size`` bytes of whole blocks, as they are between the start of a file and its info block."""
    rng = random.Random(1)
    stock = b"".join(row_stock(rng))
    out, written = bytearray(), 0
    while len(out) < size:
        entries = bytearray()
        for _ in range(_BLOCK_ENTRIES):
            at = rng.randrange(len(stock) - _ENTRY_BYTES)
            body = stock[at : at + _ENTRY_BYTES]
            pg = PGKey(1001 << 40 | 50001 + written % _PGS, 0, 1)
            now = _TS + written
            header = LogEntryHeader(LogType.SUBMIT, pg, 1 + written // _PGS, len(body), ob_crc64(body), now, now)
            entries += header.pack() + body
            written += 1
        total = BLOCK_META.size + len(entries)
        fields = (BLOCK_MAGIC, BLOCK_VERSION, BLOCK_DATA, total, 0, _TS + written, 0)
        out += BLOCK_META.pack(*fields, ob_crc64(BLOCK_IMAGE.pack(*fields))) + entries
    return bytes(out)


def write_clog(path: Path, size: int) -> int:
    """A file of it; returns its size."""
    data = clog(size)
    path.write_bytes(data)
    return len(data)
