"""What the functions accept, shared by both twins."""

from __future__ import annotations

from mover.errors import IntegrityError

ZSTD_MIN_LEVEL = -7
ZSTD_MAX_LEVEL = 22
ZSTD_MAX_RATIO = 65536
"""Above what a zstd frame can reach: its densest block makes 128 KiB of 4 bytes."""
LZ4_MAX_RATIO = 255
LZ4_MAX_INPUT = 0x7E000000


def check_level(level: int) -> None:
    """Raise ValueError unless zstd has this level."""
    if not ZSTD_MIN_LEVEL <= level <= ZSTD_MAX_LEVEL:
        raise ValueError(f"zstd level {level} is not between {ZSTD_MIN_LEVEL} and {ZSTD_MAX_LEVEL}")


def check_claim(name: str, stored: int, size: int, ratio: int) -> None:
    """Refuse a decompressed size that ``stored`` bytes cannot reach, so that no hostile header makes us allocate it.

    Raises:
        IntegrityError: ``size`` is negative or more than ``ratio`` times ``stored``.
    """
    if not 0 <= size <= stored * ratio:
        raise IntegrityError(f"{name}: {stored} bytes cannot decompress to {size}")


def check_unsigned(name: str, value: int | None) -> None:
    """Raise ValueError unless ``value`` is None or an unsigned 64-bit number (for an LSN: 63 bits, it is added to)."""
    if value is not None and not 0 <= value < 1 << (63 if name == "lsn" else 64):
        raise ValueError(f"{name} {value} is out of range")
