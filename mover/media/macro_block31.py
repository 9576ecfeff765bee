"""The macroblock of a 2.x/3.1 store, as far as a backup needs it: its own checksum, and which block it says it is.

The common header (32 bytes, little-endian) and, behind it, the header of an sstable data block (magic 1007) or of a LOB
block (1009). Of the latter the members up to the partition id are the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mover.errors import IntegrityError
from mover.kernel import ob_crc64
from mover.media.serial import Buffer

COMMON_SIZE = 32
_COMMON = struct.Struct("<iiiiqiI")  # header_size, version, magic, attr, data_version, payload_size, payload_checksum
_COMMON_MAGIC = 1001
_DATA_MAGICS = {1007, 1009}
_DATA = struct.Struct("<iiiiQq")  # header_size, version, magic, attr, table_id, data_version
_SEQ = struct.Struct("<qq")  # data_seq, partition_id
_SEQ_AT = COMMON_SIZE + 224


@dataclass(frozen=True, slots=True)
class BlockId:
    """The logical id of a data block, which is what a backup's index knows it by."""

    table_id: int
    partition_id: int
    data_version: int
    data_seq: int


def check_block(block: Buffer, *, offset: int = 0) -> BlockId | None:
    """Verify a block against its own checksum; what it says it is, None for what is no data block.

    Args:
        block: the occupied bytes. offset: of them in their file, for the error.

    Raises IntegrityError when the checksum does not hold. Bytes without a block header give None.
    """
    view = memoryview(block)
    if len(view) < COMMON_SIZE:
        return None
    header_size, version, magic, _, _, payload, checksum = _COMMON.unpack_from(view)
    if header_size != COMMON_SIZE or version != 1 or magic != _COMMON_MAGIC:
        return None
    if payload < 0 or payload > len(view) - COMMON_SIZE:
        raise IntegrityError(
            f"macroblock at offset {offset}: its header says {payload} bytes, {len(view) - COMMON_SIZE} are there",
            offset=offset,
        )
    if payload and ob_crc64(view[COMMON_SIZE : COMMON_SIZE + payload]) & 0xFFFF_FFFF != checksum:
        raise IntegrityError(f"macroblock at offset {offset}: its payload checksum does not hold", offset=offset)
    if payload < _SEQ_AT - COMMON_SIZE + _SEQ.size:
        return None
    _, _, kind, _, table_id, data_version = _DATA.unpack_from(view, COMMON_SIZE)
    if kind not in _DATA_MAGICS:
        return None
    data_seq, partition_id = _SEQ.unpack_from(view, _SEQ_AT)
    return BlockId(table_id, partition_id, data_version, data_seq)
