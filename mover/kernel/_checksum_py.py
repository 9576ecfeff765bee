"""Checksums in pure Python, on google-crc32c and xxhash. Twin of ``_native/checksum.pyx``."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import google_crc32c
import xxhash

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MASK32 = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF
_CRC64_POLY = 0xC96C5795D7870F42
_PIECE = 1 << 20


def ob_crc64(data: Buffer, seed: int = 0) -> int:
    """OceanBase's ob_crc64: raw CRC-32C (Castagnoli), no inversion, zero-extended to 64 bits.

    Args:
        data: contiguous bytes.
        seed: the result over the bytes before ``data``; only its low 32 bits count.

    Incremental: ``ob_crc64(b, ob_crc64(a)) == ob_crc64(a + b)``.
    """
    crc = (seed & _MASK32) ^ _MASK32
    if isinstance(data, bytes):
        return int(google_crc32c.extend(crc, data)) ^ _MASK32
    # google-crc32c takes nothing but bytes: copy in pieces, so that the copy stays small.
    view = memoryview(data).cast("B")
    for at in range(0, len(view), _PIECE):
        crc = google_crc32c.extend(crc, bytes(view[at : at + _PIECE]))
    return crc ^ _MASK32


def crc64_xz(data: Buffer, seed: int = 0) -> int:
    """CRC-64/XZ (ECMA-182, reflected, inverted before and after): what OSS and COS say of an object.

    Args:
        data: contiguous bytes.
        seed: the result over the bytes before ``data``.
    """
    crc = seed & _MASK64 ^ _MASK64
    table = _crc64_table()
    for byte in memoryview(data).cast("B"):
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ _MASK64


def crc64_xz_combine(first: int, second: int, length: int) -> int:
    """``crc64_xz(a + b)`` from ``crc64_xz(a)``, ``crc64_xz(b)`` and ``len(b)``."""
    power, square = 1 << 63, 1 << 62  # reflected: bit 63 is x^0
    bits = length * 8
    while bits:
        if bits & 1:
            power = _crc64_multiply(power, square)
        square = _crc64_multiply(square, square)
        bits >>= 1
    return _crc64_multiply(first, power) ^ second


def _crc64_multiply(a: int, b: int) -> int:
    product = 0
    for bit in range(63, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_CRC64_POLY if b & 1 else 0)
    return product


@cache
def _crc64_table() -> list[int]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC64_POLY if crc & 1 else 0)  # noqa: PLW2901 - the register
        table.append(crc)
    return table


def xxh3_128(data: Buffer) -> bytes:
    """XXH3-128 with seed 0: 16 bytes in the canonical, big-endian form."""
    return xxhash.xxh3_128_digest(memoryview(data).cast("B"))


class Xxh3_128:  # noqa: N801 - the algorithm's own name
    """Incremental XXH3-128."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = xxhash.xxh3_128()

    def update(self, data: Buffer) -> None:
        """Add ``data``, contiguous bytes."""
        self._state.update(memoryview(data).cast("B"))

    def digest(self) -> bytes:
        """The digest so far, 16 bytes, canonical; more may be added afterwards."""
        return self._state.digest()
