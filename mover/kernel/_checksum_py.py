"""Checksums in pure Python, on google-crc32c and xxhash. Twin of ``_native/checksum.pyx``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import google_crc32c
import xxhash

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MASK32 = 0xFFFFFFFF
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
