"""Damages one logical macro block of a synthetic cluster on every replica that has it.

With ``resealed`` kinds the payload's checksum is made right again, so that only what the block says of itself, or the
checksums of its micro blocks, can tell.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from sim_reader import crc

from mover.store.sim.packing import dice

MACRO = 2 << 20
# Places in the block: offset and width.
COMMON = {
    "header_size": (0, 4),
    "version": (4, 4),
    "magic": (8, 4),
    "payload_size": (24, 4),
    "payload_checksum": (28, 4),
}
HEADER = {
    "header_size": (32, 4),
    "magic": (40, 4),
    "table_id": (48, 8),
    "data_version": (56, 8),
    "occupy_size": (84, 4),
    "data_checksum": (120, 8),
    "data_seq": (256, 8),
    "partition_id": (264, 8),
}
KINDS = (
    *(f"common.{name}" for name in COMMON),
    *(f"resealed.{name}" for name in HEADER),
    "payload",
    "torn",
    "foreign",
    "freed",
    "other_server",
)

DEEP = "resealed.micro_block"
"""A micro block that its own record's checksum tells from what was written, while the block's holds."""


def damage(site: Path, kind: str, seed: int) -> dict[str, Any]:
    """Damage a block of a major: {"pg": as in the ledger, "at": which sstable of a replica, "ordinal": which block}."""
    choose = dice("sim block damage", kind, seed)
    ledger = json.loads((site / "ledger.json").read_text())
    pg = choose.choice(ledger["pgs"])
    tables = [
        (at, table)
        for at, table in enumerate(pg["replicas"][0]["sstables"])
        if table["table_type"] == 1 and len(table["blocks"]) > 1
    ]
    at, table = choose.choice(tables)
    ordinal = choose.randrange(len(table["blocks"]))
    for replica in pg["replicas"]:
        blocks = replica["sstables"][at]["blocks"]
        other = blocks[ordinal - 1][0]
        state = choose.getstate()
        with (site / f"observer_{replica['server']}/store/sstable/block_file").open("r+b") as file:
            file.seek(blocks[ordinal][0] * MACRO)
            data = file.read(MACRO)
            file.seek(other * MACRO)
            changed = _changed(data, file.read(MACRO), blocks[ordinal][3], kind, choose)
            file.seek(blocks[ordinal][0] * MACRO)
            file.write(changed)
        choose.setstate(state)
    return {"pg": pg, "at": at, "ordinal": ordinal}


def _changed(data: bytes, other: bytes, used: int, kind: str, choose) -> bytes:
    out = bytearray(data)
    noun, _, what = kind.partition(".")
    if noun == "foreign":
        return other
    if noun == "freed":
        return bytes(MACRO)
    if noun == "torn":
        half = used // 2 // 4096 * 4096
        return data[:half] + other[half:]
    if noun == "other_server":
        out[32 + 24 : 32 + 32] = struct.pack("<q", 77)
    elif noun == "common":
        low, width = COMMON[what]
        out[choose.randrange(low, low + width)] ^= 1 << choose.randrange(8)
        return bytes(out)
    elif noun == "payload":
        out[choose.randrange(32, used)] ^= 1 << choose.randrange(8)
        return bytes(out)
    elif what == "micro_block":
        start, size = struct.unpack_from("<ii", data, 32 + 64)
        out[choose.randrange(start + 32, start + min(size, 2000))] ^= 1 << choose.randrange(8)
    else:
        low, width = HEADER[what]
        out[choose.randrange(low, low + width)] ^= 1 << choose.randrange(8)
    (payload,) = struct.unpack_from("<i", out, 24)
    struct.pack_into("<I", out, 28, crc(bytes(out[32 : 32 + payload])))
    return bytes(out)
