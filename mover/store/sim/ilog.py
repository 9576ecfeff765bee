"""Writes files of the commit log's index, format V2.

Source: observer notes 4.1. The member list's items are not described there: the block here has a length and zeros, so
a reader can only go by the trailer, as it should.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import NamedTuple

from mover.store.sim.identity import PgKey
from mover.store.sim.packing import crc, up

CURSOR_BYTES = 32
BATCH_COMMITTED = -(1 << 63)


class Cursor(NamedTuple):
    """Where a confirmed log is in the clog, and the running checksum at it."""

    log_id: int
    file_id: int
    offset: int
    size: int
    accum_checksum: int
    submit_ts: int


def pack_cursor(cursor: Cursor) -> bytes:
    """32 bytes, big-endian. The cursor itself has neither PG nor log id."""
    return struct.pack(
        ">iiiiqq", cursor.file_id, cursor.offset, cursor.size, 0, cursor.accum_checksum, cursor.submit_ts
    )


def ilog_file(cursors: dict[PgKey, list[Cursor]]) -> bytes:
    """A whole file of the PGs' cursors, each PG's contiguous in log id."""
    keys = sorted((key for key in cursors if cursors[key]), key=lambda key: key.order)
    array = bytearray()
    slots: list[bytes | None] = [None] * max(4, 2 * len(keys))
    for key in keys:
        run = cursors[key]
        if any(b.log_id != a.log_id + 1 for a, b in pairwise(run)):
            raise ValueError(f"the logs of {key} have a gap")
        item = struct.pack(
            "<B7x24sQQqqi4x",
            1,
            key.memory,
            run[0].log_id,
            run[-1].log_id,
            run[0].submit_ts,
            run[-1].submit_ts,
            len(array),
        )
        slot = key.hash % len(slots)
        while slots[slot] is not None:
            slot = (slot + 1) % len(slots)
        slots[slot] = item
        for cursor in run:
            array += pack_cursor(cursor)
    items = b"".join(item or bytes(72) for item in slots)
    info = struct.pack(">q", len(items)) + items
    members = struct.pack(">q", 64 * len(slots)) + bytes(64 * len(slots))
    body = bytes(array).ljust(up(len(array)), b"\0")
    info_start = len(body)
    body += info + members
    checksum = crc(body)
    body = body.ljust(info_start + up(max(len(info) + len(members), 1 << 16)), b"\0")
    places = (info_start, len(info), info_start + len(info), len(members))
    memory = struct.pack("<hhiiiiiq", 0x4C43, 0, 0, *places, checksum)
    trailer = struct.pack(">hhiiiiiqq", 0x4C43, 0, 0, *places, checksum, crc(memory))
    return body + bytes(4096 - 512) + trailer.ljust(512, b"\0")
