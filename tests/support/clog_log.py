"""Writes the clog of a 3.1 observer from the format description alone: nothing of mover is used."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import google_crc32c
import lz4.block
import zstandard

ONES = 0xFFFFFFFF
M64 = (1 << 64) - 1
FILE = 64 << 20


def crc(data: bytes, seed: int = 0) -> int:
    return google_crc32c.extend((seed & ONES) ^ ONES, bytes(data)) ^ ONES


def chained(value: int, previous: int) -> int:
    return crc(struct.pack("<Q", value), previous)


def murmur(data: bytes, seed: int) -> int:
    m = 0xC6A4A7935BD1E995
    h = (seed ^ len(data) * m) & M64
    if len(data) == 8:
        k = int.from_bytes(data, "little") * m & M64
        k = (k ^ k >> 47) * m & M64
        h = (h ^ k) * m & M64
    else:
        h = (h ^ int.from_bytes(data, "little")) * m & M64
    h = (h ^ h >> 47) * m & M64
    return h ^ h >> 47


def key_hash(key: tuple[int, int, int]) -> int:
    h = murmur(struct.pack("<Q", key[0]), 0)
    h = murmur(struct.pack("<i", key[1]), h)
    return murmur(struct.pack("<i", key[2]), h)


def entry(
    key: tuple[int, int, int],
    log_id: int,
    body: bytes,
    *,
    submit: int,
    proposal: int = 1,
    epoch: int = 1,
    log_type: int = 201,
    server: int = 0x7F000001 << 32 | 2882,
) -> bytes:
    """One log entry, 105 bytes and its body."""
    front = (0x4552, 1, log_type)
    middle = (log_id, len(body), submit, epoch)
    rest = (proposal, submit, crc(body), 0)
    image = struct.pack("<HhIQii", *front, *key) + struct.pack("<Q", key_hash(key)) + struct.pack("<Qqqq", *middle)
    image += struct.pack("<iI12xi", 4, server >> 32, server & 0x7FFFFFFF) + struct.pack("<qqQq", *rest)
    assert len(image) == 120
    disk = struct.pack(">HhIQii", *front, *key) + struct.pack(">Qqqq", *middle)
    return disk + struct.pack(">bqqqQqQ", 4, server, *rest, crc(image)) + body


def packed(raw: bytes, kind: int) -> bytes:
    """A compressed entry: kind 1 zstd, 2 lz4, 3 zstd 1.3.8."""
    data = lz4.block.compress(raw, store_size=False) if kind == 2 else zstandard.ZstdCompressor().compress(raw)
    return struct.pack(">Hii", 0x4300 + kind, len(raw), len(data)) + data


def padding(size: int) -> bytes:
    return struct.pack(">Hhq", 0x5044, 1, size).ljust(size, b"\0")


def block(content: bytes, timestamp: int, kind: int = 1, *, pad: int | None = None, checksum: int = 0) -> bytes:
    size = 48 + len(content)
    pad = -size % 4096 if pad is None else pad
    fields = (0x4C42, 1, kind, size + pad, pad, timestamp, checksum)
    return struct.pack(">Hhiqqqq", *fields) + struct.pack(">Q", crc(struct.pack("<Hhiqqqq", *fields))) + content


def trailer(start: int, next_id: int, timestamp: int) -> bytes:
    check = crc(struct.pack("<ii", start, next_id))
    return block(struct.pack(">hii", 1, start, next_id), timestamp, 3, pad=0, checksum=check).ljust(512, b"\0")


def info(maxima: dict[tuple[int, int, int], int], submit: int, timestamp: int) -> bytes:
    body = struct.pack(">hqQq", 1, 0, 0x13BD710F4B907562, len(maxima))
    for key, last in maxima.items():
        body += struct.pack(">Qii", *key) + struct.pack(">q", last)
    body += struct.pack(">Qq", 0xFA06D5F2B8A1CCE1, submit)
    return block(body, timestamp, 2, checksum=crc(body))


@dataclass
class ClogFile:
    """The bytes of one file, block after block."""

    data: bytearray = field(default_factory=bytearray)
    places: list[tuple[int, int]] = field(default_factory=list)  # (offset, size) of each item
    maxima: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def add(self, items: list[bytes], timestamp: int) -> None:
        at = len(self.data) + 48
        for item in items:
            self.places.append((at, len(item)))
            at += len(item)
        self.data += block(b"".join(items), timestamp)

    def closed(self, next_id: int, timestamp: int, stale: bytes = b"") -> bytes:
        """The whole file, with info block and trailer."""
        start = -(-len(self.data) // 4096) * 4096
        gap = start - len(self.data)
        if 0 < gap < 12:
            start, gap = start + 4096, gap + 4096
        out = bytearray(self.data + (padding(gap) if gap else b"") + info(self.maxima, timestamp, timestamp))
        out += stale[len(out) :]
        out = out.ljust(FILE - 512, b"\0")[: FILE - 512]
        return bytes(out + trailer(start, next_id, timestamp))

    def open(self, stale: bytes = b"") -> bytes:
        """The file while it is written to: what was in it before follows the last block."""
        out = self.data + padding(-len(self.data) % 4096 + 4096)
        return bytes(out + stale[len(out) :])
