"""The macroblock header of a 4.x block_file: constants and the type that both kernel twins return.

Every 2 MiB block but the two superblocks begins with ObMacroBlockCommonHeader, six little-endian i32: header size 24,
version 1, magic 1001, type, payload_size, payload_checksum. Type 1 continues with an SSTable header.

Found by experiment on pylibseekdb 1.4.0 (OceanBase 4.3.5.3 seekdb).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MACROBLOCK_BYTES = 2 << 20
COMMON_HEADER = struct.Struct("<iiiiiI")
COMMON_MAGIC = 1001
COMMON_VERSION = 1
SSTABLE_HEADER = struct.Struct("<IHHQqqiiiiiiiiiiiiq")
"""header_size, version, magic, tablet_id, logical_version, data_seq, 12 counts and offsets, data_checksum."""
SSTABLE_COMPRESSOR = struct.Struct("<i")
"""Follows where header_size has room for it. Further fields of the header are per column."""
SSTABLE_COMPRESSOR_NONE = 1
SSTABLE_MAGIC = 1007
SSTABLE_VERSION = 2

KIND_NONE = 0
"""Not a macroblock: never used, or not decodable."""
KIND_SSTABLE_DATA = 1
KIND_LINKED = 2
KIND_SHARED_META = 7
KIND_SHARED_DATA = 8


class MacroHeader(NamedTuple):
    """What the headers of one macroblock say, and whether its bytes agree."""

    kind: int
    """The engine's block type, or KIND_NONE."""
    used_length: int
    """Bytes from the start of the block that mean something; behind them is stale content or zeros."""
    payload_size: int
    payload_checksum: int
    tablet_id: int
    """This and the next three: of kind 1 only, else 0."""
    logical_version: int
    data_seq: int
    data_checksum: int
    ok: bool
    """False: the headers are not valid or the checksum does not match, see ``reason``."""
    reason: str
    engine_compressed: bool | None = None
    """Whether the engine compressed the rows of a block of kind 1; None when its header does not say."""


def sstable_compressed(payload: memoryview | bytes, header_size: int) -> bool | None:
    """What an sstable header at the start of ``payload`` says of compression; None when it has no such field."""
    end = SSTABLE_HEADER.size + SSTABLE_COMPRESSOR.size
    if not end <= header_size <= len(payload):
        return None
    compressor: int = SSTABLE_COMPRESSOR.unpack_from(payload, SSTABLE_HEADER.size)[0]
    return None if compressor <= 0 else compressor != SSTABLE_COMPRESSOR_NONE
