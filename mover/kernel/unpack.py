"""What ``unpack_frames`` is told about each frame and what it answers: shared by both twins.

The bytes of a frame are defined in ``mover.media``; the caller derives what it expects from there, and on any verdict
but GOOD asks ``mover.media`` for the reason.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from mover.kernel.macroblock import MACROBLOCK_BYTES

FRAME_HEADER = struct.Struct("<HHHHhhIqqqq")
"""The common header: type, version, data version, compressor, length, checksum, 4 zeros, raw, stored, crc, padding."""
FRAME_TYPE = 1
"""Of a macro frame; its version and data version are 1, too."""
COMPRESSOR_NONE = 1
COMPRESSORS_LZ4 = (2, 10)
COMPRESSORS_ZSTD = (5, 8)

MAX_FRAME = 4 << 20
"""Bytes of the largest frame there is: the writer's buffer."""

UNPACK_HEAD = 4096
"""Where the block begins in a slab: what precedes it in the payload is decompressed in front of it."""
UNPACK_SLAB = UNPACK_HEAD + MACROBLOCK_BYTES + 4096
"""Bytes of a slab; what is behind the block takes the end of the payload."""

PREFIX_ROOM = 80
SUFFIX_ROOM = 16


class Expected(NamedTuple):
    """A frame, and what it must hold: its payload is ``prefix``, the block, and the suffix all frames share."""

    offset: int
    """Of the frame in the buffer."""
    length: int
    """Header, payload and padding, bytes."""
    prefix: bytes
    """At most PREFIX_ROOM bytes."""
    used: int
    """Bytes of the block, at most 2 MiB."""
    digest: bytes
    """XXH3-128 of them."""
    engine_check: bool
    """The block carries the engine's own checksum over itself."""


class Verdict(IntEnum):
    """What is wrong with a frame, in the order in which it is looked at."""

    GOOD = 0
    PLACE = 1
    """The buffer has no such place, or no frame or block is so large."""
    HEADER = 2
    """Not the header of such a frame."""
    CHECKSUM = 3
    """The payload does not match its checksum."""
    PADDING = 4
    """Bytes behind the payload that are not zero."""
    CODEC = 5
    """The payload does not decompress to what the header says."""
    PREFIX = 6
    """What surrounds the block is of another block."""
    DIGEST = 7
    """The block does not match its digest."""
    ENGINE = 8
    """The block does not match the engine's own checksum."""


def check_sizes(
    frames: Sequence[Expected], slabs: int, suffix: bytes, open_from: int, open_until: int, keep: bool
) -> None:
    """Raise ValueError as ``unpack_frames`` says."""
    if slabs < UNPACK_SLAB * (len(frames) if keep else min(len(frames), 1)):
        raise ValueError(f"slabs of {slabs} bytes are too small for {len(frames)} frames")
    if len(suffix) > SUFFIX_ROOM or any(len(frame.prefix) > PREFIX_ROOM for frame in frames):
        raise ValueError(f"a prefix may have {PREFIX_ROOM} bytes, a suffix {SUFFIX_ROOM}")
    if not 0 <= open_from <= open_until <= PREFIX_ROOM:
        raise ValueError(f"a prefix can not be open from {open_from} to {open_until}")
    if any(len(frame.digest) != 16 for frame in frames):
        raise ValueError("a digest has 16 bytes")
