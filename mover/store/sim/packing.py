"""Primitives of OceanBase 3.1's encodings, for writing only: varints, versioned objects, folded checksums, content.

Sources: log-archive notes 0, data-backup notes 2.3.
"""

from __future__ import annotations

import hashlib
import random

from mover.kernel import ob_crc64

_M64 = (1 << 64) - 1


def vint(value: int) -> bytes:
    """The unsigned 64-bit pattern of ``value`` in groups of 7 bits, low first, the high bit meaning "more"."""
    value &= _M64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def unis(*members: bytes, version: int = 1) -> bytes:
    """A versioned object: version, length as a varint padded to five bytes, members."""
    body = b"".join(members)
    length = bytes((len(body) >> 7 * i) & 0x7F | (0x80 if i < 4 else 0) for i in range(5))
    return vint(version) + length + body


def crc(data: bytes, seed: int = 0) -> int:
    """OceanBase's ob_crc64: CRC-32C with start value ``seed`` and no final exclusive or."""
    return ob_crc64(data, seed)


def fold(raw: bytes) -> int:
    """Exclusive or of the little-endian 16-bit words of ``raw``, as a signed 16-bit value."""
    if len(raw) % 2:
        raise ValueError("words of 16 bits need an even number of bytes")
    folded = 0
    for word in memoryview(raw).cast("H"):
        folded ^= word
    return folded - 0x10000 if folded & 0x8000 else folded


def up(value: int, step: int = 4096) -> int:
    """``value`` rounded up to a multiple of ``step``."""
    return -(-value // step) * step


def murmur64a(data: bytes, seed: int) -> int:
    """MurmurHash64A."""
    factor = 0xC6A4A7935BD1E995
    value = seed ^ (len(data) * factor & _M64)
    whole = len(data) & ~7
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little") * factor & _M64
        word = (word ^ word >> 47) * factor & _M64
        value = (value ^ word) * factor & _M64
    if whole < len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * factor & _M64
    value = (value ^ value >> 47) * factor & _M64
    return value ^ value >> 47


def dice(*parts: object) -> random.Random:
    """A source of choices that depends on ``parts`` only."""
    return random.Random("/".join(map(str, parts)))


def content(key: str, size: int, *, repeats: int = 1) -> bytes:
    """``size`` bytes that depend on ``key``; with ``repeats`` > 1 a part is repeated, so they compress."""
    if repeats == 1:
        return hashlib.shake_128(key.encode()).digest(size)
    once = hashlib.shake_128(key.encode()).digest(-(-size // repeats))
    return (once * repeats)[:size]
