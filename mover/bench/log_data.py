"""PALF log to measure with: valid groups, as the engine writes them."""

from __future__ import annotations

import random
import struct

import xxhash

from mover.kernel import ob_crc64
from mover.kernel.palf import (
    ENTRY_IMAGE,
    ENTRY_MAGIC,
    ENTRY_VERSION,
    GROUP_IMAGE,
    GROUP_MAGIC,
    GROUP_VERSION,
    PALF_START_ACCUM,
)

_ENTRIES = 8
_ENTRY_BYTES = 8000


def palf_log(size: int) -> bytes:
    """At least ``size`` bytes of whole groups of 64 KB from LSN 0 on. Below 64 MB: a group must not cross files."""
    rng = random.Random(1)
    stock = rng.randbytes(1 << 20)
    log, accum, log_id, scn = bytearray(), PALF_START_ACCUM, 1, 1_700_000_000_000_000_000
    while len(log) < size:
        body, checksum = bytearray(), 0
        for _ in range(_ENTRIES):
            at = rng.randrange(len(stock) - _ENTRY_BYTES)
            data, scn = stock[at : at + _ENTRY_BYTES], scn + 1000
            crc = ob_crc64(data)
            body += _checked((ENTRY_MAGIC, ENTRY_VERSION, len(data), scn, crc), ENTRY_IMAGE.format) + data
            checksum = ob_crc64(struct.pack("<Q", crc), checksum)
        accum = ob_crc64(struct.pack("<Q", checksum), accum & 0xFFFFFFFF)
        fields = (GROUP_MAGIC, GROUP_VERSION, len(body), len(log), scn, accum, log_id)
        log += _checked(fields, GROUP_IMAGE.format) + body
        log_id += 1
    return bytes(log)


def _checked(fields: tuple[int, ...], layout: str) -> bytes:
    """A header with its check in the low 16 bits of the flag: taken of little-endian fields, stored big-endian."""
    check = xxhash.xxh64_intdigest(struct.pack(layout, *fields, 0)) & 0xFFFF
    return struct.pack(">" + layout.removeprefix("<"), *fields, check)
