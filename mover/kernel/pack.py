"""What both twins of the packing kernel share: the orders it takes, and what it says of a frame."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

SAMPLE_BYTES = 64 << 10
"""A sample is so many bytes from the middle of a block: its head is headers, which compress better than the rest."""
SAMPLE_PERMILLE = 920
"""A sample at zstd 1 that comes out above this says that the block is not worth more."""
FRAME_ALIGN = 4096
HEADER_SIZE = 48


class Order(IntEnum):
    """What to do with a block."""

    KEEP = 0
    """Store the bytes as they are."""
    COMPRESS = 1
    """Compress; keep the bytes all the same when that does not pay."""
    SAMPLE = 2
    """Compress a sample; go on as COMPRESS or as KEEP by what that gives. A block of four samples or less has none."""


class PackedFrame(NamedTuple):
    """A frame that was written."""

    length: int
    """Header, payload and padding, bytes; a multiple of 4096."""
    stored: int
    """Payload bytes."""
    compressor: int
    """As OceanBase 3.1 numbers them: 1 none, 2 LZ4, 8 zstd."""


def frame_room(raw: int) -> int:
    """The bytes a frame of ``raw`` payload bytes needs at most, which is what it takes uncompressed."""
    return -(-(HEADER_SIZE + raw) // FRAME_ALIGN) * FRAME_ALIGN
