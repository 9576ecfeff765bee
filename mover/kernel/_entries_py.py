"""Log entries in pure Python, as ``_native/entries.pyx`` walks them."""

from __future__ import annotations

import struct

from mover.kernel._checksum_py import ob_crc64
from mover.kernel.clog import ENTRY_HEADER, ENTRY_IMAGE, ENTRY_MAGIC, ENTRY_VERSION
from mover.kernel.entries import EntryRun

_KICKOFF = 302
_BATCH = 1 << 63
_M64 = (1 << 64) - 1
_MIX = 0xC6A4A7935BD1E995


def _mix(data: bytes, seed: int) -> int:
    h = (seed ^ len(data) * _MIX) & _M64
    value = int.from_bytes(data, "little")
    if len(data) == 8:
        value = value * _MIX & _M64
        value = (value ^ value >> 47) * _MIX & _M64
    h = (h ^ value) * _MIX & _M64
    h = (h ^ h >> 47) * _MIX & _M64
    return h ^ h >> 47


def walk_entries(
    payload: bytes | bytearray | memoryview, table_id: int, next_log_id: int, accum: int
) -> EntryRun | None:
    """Verify the back-to-back log entries of a raw archive payload.

    Args:
        payload: the entries (header of 105 bytes, body), nothing else.
        table_id: the PG's; entries of another are refused.
        next_log_id: what the first entry must have, below 0 when that is not known.
        accum: the running checksum before it, 32 bits.

    Returns None when there is nothing, or anything in it does not hold or is no ordinary log (a kickoff):
    ``mover.media`` says why. The mark of a batch commit in the submit timestamp is not part of the header's checksum.

    Raises ValueError for an ``accum`` of more than 32 bits. Source of the format: OceanBase 3.1, see mover.kernel.clog.
    """
    if accum >> 32:
        raise ValueError("a running checksum has 32 bits")
    view = memoryview(payload)
    at, count, first, last, due = 0, 0, -1, -1, next_log_id
    while at < len(view):
        if len(view) - at < ENTRY_HEADER.size:
            return None
        fields = ENTRY_HEADER.unpack_from(view, at)
        magic, version, log_type, table, part, assist, log_id, length, generated, epoch, address = fields[:11]
        server, proposed, submit, checksum, freeze, check = fields[11:]
        if magic != ENTRY_MAGIC or version != ENTRY_VERSION or address != 4:
            return None
        if table != table_id or log_type & 0x7FFF_FFFF == _KICKOFF or server < 0 or server & 0x8000_0000:
            return None
        start = at + ENTRY_HEADER.size
        if not 0 <= length <= len(view) - start or log_id >> 63 or (due >= 0 and log_id != due):
            return None
        hashed = _mix(struct.pack("<i", assist), _mix(struct.pack("<i", part), _mix(struct.pack("<Q", table), 0)))
        host, port = (server >> 32) & 0xFFFF_FFFF, server & 0x7FFF_FFFF
        numbers = (log_id, length, generated, epoch, 4, host, port, proposed, submit & (_BATCH - 1), checksum, freeze)
        image = ENTRY_IMAGE.pack(magic, version, log_type, table, part, assist, hashed, *numbers)
        body = ob_crc64(view[start : start + length])
        if ob_crc64(image) != check or body != checksum:
            return None
        accum = ob_crc64(body.to_bytes(8, "little"), accum)
        first = log_id if first < 0 else first
        last, due, count, at = log_id, log_id + 1, count + 1, start + length
    return EntryRun(first, last, count, accum) if count else None
