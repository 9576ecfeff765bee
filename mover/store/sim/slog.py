"""A storage log file of a server that has nothing to replay: a checkpoint record and padding.

Source: observer notes 2.7 (record header, its checksums, commands, alignment).
"""

from __future__ import annotations

import struct

from mover.store.sim.packing import crc, fold

CHECKPOINT, PADDING = 102, 103
_HEADER = 44


def slog_record(sequence: int, command: int, timestamp: int, body: bytes) -> bytes:
    """One record: 44 bytes of header, big-endian, and its body."""
    length = 12 + len(body)
    checksum = crc(struct.pack("<Qi", sequence, command) + body) if body else 0
    # The magic is sign-extended before it is folded, and only the low word of the timestamp takes part.
    words = struct.pack("<HhhHiiq", 0xAAAA ^ 0xFFFF, 32, 1, timestamp & 0xFFFF, length, length, checksum)
    folded = fold(words)
    header = struct.pack(">Hhhhqiiq", 0xAAAA, 32, 1, folded, timestamp, length, length, checksum)
    return header + struct.pack(">Qi", sequence, command) + body


def slog_file(timestamp: int) -> bytes:
    """A checkpoint, padded to 4 KiB."""
    first = slog_record(1, CHECKPOINT, timestamp, b"")
    return first + slog_record(2, PADDING, timestamp, bytes(4096 - len(first) - _HEADER))
