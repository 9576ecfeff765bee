"""PALF log to measure with: valid groups and files, as the engine writes them, of entries that hold rows."""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import xxhash

from mover.bench.data import row_stock
from mover.kernel import ob_crc64
from mover.kernel.palf import (
    BLOCK_HEADER,
    ENTRY_HEADER,
    ENTRY_IMAGE,
    ENTRY_MAGIC,
    ENTRY_VERSION,
    FLAG_PADDING,
    GROUP_HEADER,
    GROUP_IMAGE,
    GROUP_MAGIC,
    GROUP_VERSION,
    PADDING_CHECKED_BYTES,
    PALF_FILE_BYTES,
    PALF_FILE_HEADER,
    PALF_START_ACCUM,
    PalfBlockHeader,
    palf_block_header_build,
)

_ENTRIES = 8
_ENTRY_BYTES = 8000
_HEADERS = GROUP_HEADER.size + ENTRY_HEADER.size
_GROUP_BYTES = GROUP_HEADER.size + _ENTRIES * (ENTRY_HEADER.size + _ENTRY_BYTES)
_FIRST_SCN = 1_700_000_000_000_000_000
ENDS = "ends"  # what write_log_files leaves beside the log: pairs (LSN behind a group, its SCN)


class Group(NamedTuple):
    """One group as it lies in a log file."""

    data: bytes
    lsn: int
    scn: int


def groups(*, compressible: bool = True, rate: float = 1e9) -> Iterator[Group]:
    """Groups of 64 KB from LSN 0 on, without end; what is left of a file is filled with padding, as the engine does.

    Args:
        compressible: entries hold rows, of which zstd level 1 makes about 0.4; else random bytes.
        rate: bytes per second that the SCNs tell of.
    """
    rng, step = random.Random(1), round(_ENTRY_BYTES / rate * 1e9)
    stock = b"".join(row_stock(rng)) if compressible else rng.randbytes(8 << 20)
    accum, log_id, lsn, scn = PALF_START_ACCUM, 1, 0, _FIRST_SCN
    while True:
        left = PALF_FILE_BYTES - lsn % PALF_FILE_BYTES
        body, checksum, flag = bytearray(), 0, 0
        # What is left must take the group and still a padding group, or be filled exactly.
        if left < _GROUP_BYTES + _HEADERS + PADDING_CHECKED_BYTES and left != _GROUP_BYTES:
            flag, filler = FLAG_PADDING, bytes(left - _HEADERS)
            crc = ob_crc64(filler[:PADDING_CHECKED_BYTES])
            body += _checked((ENTRY_MAGIC, ENTRY_VERSION, len(filler), scn, crc), flag, ENTRY_IMAGE.format) + filler
        else:
            for _ in range(_ENTRIES):
                at = rng.randrange(len(stock) - _ENTRY_BYTES)
                data, scn = stock[at : at + _ENTRY_BYTES], scn + step
                crc = ob_crc64(data)
                body += _checked((ENTRY_MAGIC, ENTRY_VERSION, len(data), scn, crc), 0, ENTRY_IMAGE.format) + data
                checksum = ob_crc64(struct.pack("<Q", crc), checksum)
        accum = ob_crc64(struct.pack("<Q", checksum), accum & 0xFFFFFFFF)
        fields = (GROUP_MAGIC, GROUP_VERSION, len(body), lsn, scn, accum, log_id)
        whole = _checked(fields, flag, GROUP_IMAGE.format) + body
        yield Group(whole, lsn, scn)
        lsn += len(whole)
        log_id += 1


def palf_log(size: int) -> bytes:
    """At least ``size`` bytes of whole groups from LSN 0 on."""
    log = bytearray()
    for group in groups():
        log += group.data
        if len(log) >= size:
            return bytes(log)
    raise AssertionError("unreachable")


def write_log_files(directory: Path, size: int, *, compressible: bool = True, rate: float = 1e9) -> int:
    """Write log files ``0``, ``1``, ... with at least ``size`` bytes of log, and ``ENDS`` beside ``directory``.

    Arguments as of :func:`groups`.

    Returns:
        The LSN where the log ends.
    """
    ends, end, file = array("Q"), 0, None
    try:
        for group in groups(compressible=compressible, rate=rate):
            number, inside = divmod(group.lsn, PALF_FILE_BYTES)
            if inside == 0:
                if file is not None:
                    file.close()
                file = (directory / str(number)).open("xb")
                header = palf_block_header_build(PalfBlockHeader(0, group.lsn, group.scn, 0, number))
                file.write(header.ljust(PALF_FILE_HEADER, b"\0"))
                assert len(header) == BLOCK_HEADER.size
            assert file is not None
            file.write(group.data)
            end = group.lsn + len(group.data)
            ends.extend((end, group.scn))
            if end >= size:
                break
    finally:
        if file is not None:
            file.close()
    (directory.parent / ENDS).write_bytes(ends.tobytes())
    return end


def _checked(fields: tuple[int, ...], flag: int, layout: str) -> bytes:
    """A header with its check in the low 16 bits of the flag: taken of little-endian fields, stored big-endian."""
    check = xxhash.xxh64_intdigest(struct.pack(layout, *fields, flag)) & 0xFFFF
    return struct.pack(">" + layout.removeprefix("<"), *fields, flag | check)
