"""Macroblocks to measure with, the same on every machine: valid headers and checksums, and a payload of a stated kind.

* ``incompressible``: random bytes.
* ``engine``: what an engine that compresses leaves behind. Blocks of random bytes with a structured head each; zstd
  level 1 makes 0.95 of them.
* ``rows``: rows of an engine that does not compress, keys, words and numbers; zstd level 1 makes about 0.4 of them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

from mover.errors import ConfigError
from mover.kernel import ob_crc64
from mover.kernel.macroblock import (
    COMMON_HEADER,
    COMMON_MAGIC,
    COMMON_VERSION,
    KIND_SSTABLE_DATA,
    MACROBLOCK_BYTES,
    SSTABLE_HEADER,
    SSTABLE_MAGIC,
    SSTABLE_VERSION,
)

KINDS = ("incompressible", "engine", "rows")
SEEKDB = "seekdb"
_HEADERS = COMMON_HEADER.size + SSTABLE_HEADER.size
_BODY = MACROBLOCK_BYTES - _HEADERS
_MICRO = 16 << 10
_MICRO_STRUCTURE = 850  # bytes of a micro block of 16 KiB that compress away
_ROWS = 80_000
_WORDS = [b"archive", b"block", b"commit", b"epoch", b"frame", b"group", b"index", b"macro", b"round", b"tenant"]


def blocks(kind: str, count: int, *, seed: int = 1) -> Iterator[bytes]:
    """``count`` macroblocks of 2 MiB, no two alike. Raises ConfigError for a kind that is not in ``KINDS``."""
    rng = random.Random(f"{kind} {seed}")
    if kind == "incompressible":
        bodies: Iterator[bytes] = (rng.randbytes(_BODY) for _ in range(count))
    elif kind == "engine":
        bodies = (_engine_body(rng) for _ in range(count))
    elif kind == "rows":
        bodies = _row_bodies(rng, count)
    else:
        raise ConfigError(f"no blocks of kind {kind!r}", hint=f"use {', '.join(KINDS)}")
    for number, body in enumerate(bodies):
        yield macroblock(body, number)


def macroblock(body: bytes, sequence: int) -> bytes:
    """A block of type 1 around ``body``, as the engine would have written it: headers, and a checksum that holds."""
    sstable = SSTABLE_HEADER.pack(
        SSTABLE_HEADER.size, SSTABLE_VERSION, SSTABLE_MAGIC, 200_001, 1_700_000_000_000_000_000, sequence, *[0] * 13
    )
    payload = sstable + body
    head = COMMON_HEADER.pack(
        COMMON_HEADER.size, COMMON_VERSION, COMMON_MAGIC, KIND_SSTABLE_DATA, len(payload), ob_crc64(payload)
    )
    return head + payload


def write_block_file(path: Path, kind: str, count: int) -> int:
    """Write ``count`` blocks one after the other, so that the page cache has them; the file's size in bytes.

    Kind ``seekdb``: blocks of a real engine, see :mod:`mover.bench.engine_data`.
    """
    if kind == SEEKDB:
        from mover.bench.engine_data import write_engine_blocks

        write_engine_blocks(path, count)
        return path.stat().st_size
    with path.open("xb") as file:
        for block in blocks(kind, count):
            file.write(block)
    return path.stat().st_size


def _engine_body(rng: random.Random) -> bytes:
    pieces = []
    for number in range(-(-_BODY // _MICRO)):
        pieces.append(struct.pack("<II", 1005, number) * (_MICRO_STRUCTURE // 8))
        pieces.append(rng.randbytes(_MICRO - _MICRO_STRUCTURE // 8 * 8))
    return b"".join(pieces)[:_BODY]


def row_stock(rng: random.Random) -> list[bytes]:
    """About 13 MB of rows: keys, words and numbers."""
    return [
        rng.getrandbits(32).to_bytes(8, "big")
        + rng.randbytes(18)
        + b" ".join(rng.choices(_WORDS, k=14))
        + str(rng.random()).encode()
        for _ in range(_ROWS)
    ]


def _row_bodies(rng: random.Random, count: int) -> Iterator[bytes]:
    """Rows out of a stock of about 13 MB, shuffled again and again: further apart than the windows of the codecs."""
    stock = row_stock(rng)
    rest = b""
    for _ in range(count):
        while len(rest) < _BODY:
            rng.shuffle(stock)
            rest += b"".join(stock)
        yield rest[:_BODY]
        rest = rest[_BODY:]
