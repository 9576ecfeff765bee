"""Builds macro blocks: common header, header by kind, micro blocks, index, end keys.

Sources: observer notes 2.3 (common header), 2.4 (sstable data block), 2.5 (LOB, bloom filter). Not described there, and
so only plausible here: rows inside a micro block, the micro index (pairs of offsets with a last pair as end), and the
coding of end keys. In a record header, length and version count as two words of 16 bits in the header's checksum.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import lz4.block

from mover.store.sim.packing import content, crc, fold

MACRO_BYTES = 2 << 20
SSTABLE_DATA, LOB_DATA, BLOOM_FILTER = 1, 9, 13
_COMMON_BYTES = 32
_MICRO_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """What a block is made from. ``key`` and the seed give the rows; ``size`` is about what it occupies."""

    key: str
    table_id: int
    partition_id: int
    data_version: int
    data_seq: int
    size: int
    columns: int
    rowkey_columns: int
    lob: bool
    multi_version: bool


@dataclass(frozen=True, slots=True)
class Block:
    """A built block: ``bytes`` are the occupied part, the rest of the 2 MiB is zero."""

    bytes: bytes
    row_count: int
    micro_block_count: int
    data_checksum: int
    end_key: int
    row_count_delta: int
    compressor: str


def common_header(attr: int, data_version: int, payload: bytes) -> bytes:
    """The 32 bytes at the start of every used block."""
    checksum = struct.pack("<I", crc(payload) & 0xFFFFFFFF)
    return struct.pack("<iiiiqi", 32, 1, 1001, attr, data_version, len(payload)) + checksum


def data_seq(sequence: int, *, parallel: int, lob: bool, minor: bool) -> int:
    """The bit field that numbers a block inside its table and version."""
    return sequence | parallel << 32 | lob << 44 | minor << 46


def micro_record(data: bytes, *, magic: int, compress: bool) -> tuple[bytes, int]:
    """(record header V2 and the data as stored, the data's checksum)."""
    stored = lz4.block.compress(data, store_size=False) if compress else data
    if len(stored) >= len(data):
        stored = data
    checksum = crc(stored)
    lengths = struct.pack("<qqq", len(data), len(stored), checksum)
    folded = fold(struct.pack("<hhhh", magic, 32, 2, 0) + lengths)
    return struct.pack("<hbbhh", magic, 32, 2, folded, 0) + lengths + stored, checksum


def build_block(plan: BlockPlan, seed: int) -> Block:
    """The block that ``plan`` describes; the same plan and seed give the same bytes."""
    compress = plan.multi_version or plan.table_id % 2 == 0
    compressor = "lz4_1.0" if compress else "none"
    header_size = (248 if plan.lob else 240) + 18 * plan.columns
    room = min(max(plan.size, 4096), MACRO_BYTES) - _COMMON_BYTES - header_size
    magic = 1010 if plan.lob else 1005
    micros: list[bytes] = []
    checksum, rows, used = 0, 0, 0
    end_keys = bytearray()
    index = bytearray()
    while True:
        # What is behind the micro blocks grows with their number.
        size = min(_MICRO_BYTES, room - used - len(end_keys) - len(index) - 9 * len(micros) - 256)
        if size < 512 and micros:
            break
        data = content(f"{seed}/{plan.key}/{len(micros)}", max(size, 512), repeats=4 if compress else 1)
        record, one = micro_record(data, magic=magic, compress=compress)
        index += struct.pack("<ii", used, len(end_keys))
        rows += max(len(data) // 128, 1)
        end_keys += struct.pack("<qq", rows, len(micros))
        micros.append(record)
        used += len(record)
        checksum = crc(struct.pack("<q", one), checksum)
        if len(micros) == 4096:
            break
    index += struct.pack("<ii", used, len(end_keys))
    trailing = (
        b"".join((bytes(len(micros)), struct.pack(f"<{len(micros)}i", *range(len(micros)))))
        if (plan.multi_version)
        else b""
    )
    data_offset = _COMMON_BYTES + header_size
    index_offset = data_offset + used
    endkey_offset = index_offset + len(index)
    sizes = struct.pack(f"<{len(micros)}i", *map(len, micros)) if plan.lob else b""
    sizes_offset = endkey_offset + len(end_keys)
    occupy = sizes_offset + len(sizes) + len(trailing)
    if occupy > MACRO_BYTES:
        raise ValueError(f"block {plan.key} does not fit: {occupy} bytes")
    header = struct.pack(
        "<iiiiQqiiiiiiiiiiiiiiq96sqq16sqq",
        header_size,
        1 if plan.lob else 3,
        1009 if plan.lob else 1007,
        0,
        plan.table_id,
        plan.data_version,
        plan.columns,
        plan.rowkey_columns,
        1,
        0,
        rows,
        occupy,
        len(micros),
        _MICRO_BYTES,
        data_offset,
        used,
        index_offset,
        len(index),
        endkey_offset,
        len(end_keys),
        checksum,
        compressor.encode(),
        0,
        0,
        b"",
        plan.data_seq,
        plan.partition_id,
    )
    if plan.lob:
        header += struct.pack("<ii", sizes_offset, len(sizes))
    payload = b"".join((header, column_arrays(plan, seed), *micros, index, end_keys, sizes, trailing))
    whole = common_header(LOB_DATA if plan.lob else SSTABLE_DATA, plan.data_version, payload) + payload
    delta = len(micros) if plan.multi_version else 0
    return Block(whole, rows, len(micros), checksum, rows, delta, compressor)


def column_arrays(plan: BlockPlan, seed: int) -> bytes:
    """Column ids, types, orders and checksums, an array each. Integers first, then strings."""
    count = plan.columns
    ids = struct.pack(f"<{count}H", *(16 + at for at in range(count)))
    types = b"".join(bytes((5, 5, 63, 0) if at < plan.rowkey_columns else (22, 2, 45, 0)) for at in range(count))
    orders = struct.pack(f"<{count}i", *(0 for _ in range(count)))
    checksums = struct.pack(f"<{count}q", *(crc(f"{seed}/{plan.key}/c{at}".encode()) for at in range(count)))
    return ids + types + orders + checksums


def bloom_block(table_id: int, partition_id: int, data_version: int, rows: int, key: str) -> bytes:
    """A bloom filter block, occupied part. Backups leave it out."""
    bits = content(key, 4096)
    record, one = micro_record(bits, magic=1005, compress=False)
    checksum = crc(struct.pack("<q", one))
    header_size = 200
    offset = _COMMON_BYTES + header_size
    header = struct.pack(
        "<iiiiQqqiiiiiiq128s",
        header_size,
        1,
        1014,
        0,
        table_id,
        partition_id,
        data_version,
        1,
        rows,
        offset + len(record),
        1,
        offset,
        len(record),
        checksum,
        b"none",
    )
    payload = header + record
    return common_header(BLOOM_FILTER, data_version, payload) + payload
