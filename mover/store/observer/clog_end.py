"""What closes a clog file: the info block, which knows the last log of each PG in it, and the trailer."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from mover.errors import FormatError
from mover.kernel import ob_crc64
from mover.kernel.clog import (
    BLOCK_IMAGE,
    BLOCK_INFO,
    BLOCK_MAGIC,
    BLOCK_META,
    BLOCK_TRAILER,
    BLOCK_VERSION,
    CLOG_FILE_BYTES,
    CLOG_TRAILER_AT,
)
from mover.media.pg import PGKey

TRAILER = struct.Struct(">hii")
_TRAILER_IMAGE = struct.Struct("<ii")
_INFO_HEAD = struct.Struct(">hqQq")
_INFO_ROW = struct.Struct(">Qiiq")
_INFO_TAIL = struct.Struct(">Qq")
_ROWS_MAGIC = 0x13BD710F4B907562
_SUBMIT_MAGIC = 0xFA06D5F2B8A1CCE1
MAX_INFO = 4 << 20


@dataclass(frozen=True, slots=True)
class ClogInfo:
    """The info block of a whole file."""

    start: int  # where it is, and so where the log ends
    max_log_ids: dict[PGKey, int]
    max_submit_ts: int  # us
    timestamp: int  # when it was written, us


def parse_trailer(data: bytes | memoryview) -> tuple[int, int]:
    """(offset of the info block, next file id) of the last 512 bytes of a file. Raises FormatError."""
    size, _ = _block(data, BLOCK_TRAILER, CLOG_TRAILER_AT)
    if size < BLOCK_META.size + TRAILER.size or len(data) < BLOCK_META.size + TRAILER.size:
        raise FormatError(f"clog trailer of {size} bytes", offset=CLOG_TRAILER_AT)
    _, start, following = TRAILER.unpack_from(data, BLOCK_META.size)
    checksum = BLOCK_META.unpack_from(data)[6]
    if ob_crc64(_TRAILER_IMAGE.pack(start, following)) != checksum:
        raise FormatError("clog trailer: its checksum does not hold", offset=CLOG_TRAILER_AT)
    if not 0 <= start < CLOG_TRAILER_AT:
        raise FormatError(f"clog trailer: info block at {start}", offset=CLOG_TRAILER_AT)
    return start, following


def parse_info(data: bytes | memoryview, start: int) -> ClogInfo:
    """The info block in ``data``, which begins at file offset ``start``. Raises FormatError."""
    size, checksum = _block(data, BLOCK_INFO, start)
    body = memoryview(data)[BLOCK_META.size : size]
    if len(body) != size - BLOCK_META.size:
        raise FormatError(f"clog info block of {size} bytes, {len(data)} are there", offset=start)
    if ob_crc64(body) != checksum:
        raise FormatError("clog info block: its checksum does not hold", offset=start)
    if len(body) < _INFO_HEAD.size:
        raise FormatError(f"clog info block of {size} bytes", offset=start)
    _, _, magic, count = _INFO_HEAD.unpack_from(body)
    room = len(body) - _INFO_HEAD.size - _INFO_TAIL.size
    if magic != _ROWS_MAGIC or not 0 <= count * _INFO_ROW.size <= room:
        raise FormatError(f"clog info block: magic {magic:#x}, {count} PGs in {size} bytes", offset=start)
    ids: dict[PGKey, int] = {}
    at = _INFO_HEAD.size
    for _ in range(count):
        table, part, assist, last = _INFO_ROW.unpack_from(body, at)
        ids[PGKey(table, part, assist)] = last
        at += _INFO_ROW.size
    magic, submit = _INFO_TAIL.unpack_from(body, at)
    if magic != _SUBMIT_MAGIC:
        raise FormatError(f"clog info block: magic {magic:#x} before the submit time", offset=start)
    return ClogInfo(start, ids, submit, BLOCK_META.unpack_from(data)[5])


def read_end(path: Path) -> ClogInfo | None:
    """The end of a file, None when it is not complete: it is the active one. Blocks.

    Raises FileNotFoundError.
    """
    with path.open("rb", buffering=0) as file:
        file.seek(CLOG_TRAILER_AT)
        tail = file.read(CLOG_FILE_BYTES - CLOG_TRAILER_AT)
        try:
            start, _ = parse_trailer(tail)
            file.seek(start)
            return parse_info(file.read(min(MAX_INFO, CLOG_TRAILER_AT - start)), start)
        except FormatError:
            return None  # no trailer, or that of the file this one was before


def _block(data: bytes | memoryview, kind: int, offset: int) -> tuple[int, int]:
    """(physical size, data checksum) of the block meta at the start of ``data``, which must be of this kind."""
    if len(data) < BLOCK_META.size:
        raise FormatError(f"{len(data)} bytes are no clog block", offset=offset)
    *fields, check = BLOCK_META.unpack_from(data)
    magic, version, found, total, pad = fields[:5]
    if magic != BLOCK_MAGIC or version != BLOCK_VERSION or found != kind:
        raise FormatError(f"clog block of magic {magic:#06x}, version {version}, type {found}", offset=offset)
    if ob_crc64(BLOCK_IMAGE.pack(*fields)) != check & 0xFFFFFFFFFFFFFFFF:
        raise FormatError("clog block: its meta checksum does not hold", offset=offset)
    if not BLOCK_META.size <= total - pad <= MAX_INFO + BLOCK_META.size:
        raise FormatError(f"clog block of {total} bytes with {pad} of padding", offset=offset)
    return total - pad, fields[6]
