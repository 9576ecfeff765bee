"""Writes PALF log the way the engine does, from the format description alone: nothing of mover is used."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import google_crc32c
import xxhash

ONES = 0xFFFFFFFF


def crc(data: bytes, seed: int = 0) -> int:
    return google_crc32c.extend((seed & ONES) ^ ONES, bytes(data)) ^ ONES


def chained(value: int, previous: int) -> int:
    return crc(struct.pack("<Q", value), previous)


def _checked(fields: tuple[int, ...], flag: int, layout: str) -> bytes:
    check = xxhash.xxh64_intdigest(struct.pack("<" + layout, *fields, flag)) & 0xFFFF
    return struct.pack(">" + layout, *fields, flag | check)


def entry(scn: int, data: bytes, *, padding: bool = False) -> bytes:
    covered = data[:16] if padding else data
    return _checked((0x4C48, 2, len(data), scn, crc(covered)), (1 << 62) if padding else 0, "HhiQQQ") + data


@dataclass
class LogWriter:
    """Appends groups to ``data``, which starts at ``lsn``."""

    lsn: int = 0
    log_id: int = 1
    accum: int = ONES
    data: bytearray = field(default_factory=bytearray)
    accums: list[int] = field(default_factory=list)

    def group(self, entries: list[tuple[int, bytes]], *, padding: bool = False) -> bytes:
        checksum, body = 0, b""
        for scn, payload in entries:
            body += entry(scn, payload, padding=padding)
            if not padding:
                checksum = chained(crc(payload), checksum)
        self.accum = chained(checksum, self.accum)
        self.accums.append(self.accum)
        here = self.lsn + len(self.data)
        flag = (1 << 62) if padding else 0
        fields = (0x4752, 3, len(body), here, entries[-1][0], self.accum, self.log_id)
        group = _checked(fields, flag, "HhiQQQQQ") + body
        self.log_id += 1
        self.data += group
        return group
