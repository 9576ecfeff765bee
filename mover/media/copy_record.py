"""``mover_copy/<run>.<n>``: which files a copy has brought here, with their digests. mover's own.

One common header and a canonical JSON list of rows, written once and never changed. All of them together are the
journal of a copy: what they name and what still has the size they say is not copied again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mover.errors import FormatError
from mover.kernel import ob_crc64
from mover.media.header import HEADER_SIZE, CommonHeader, DataType, parse_header
from mover.media.layout import is_safe_relative
from mover.media.meta import canonical_json, parse_json
from mover.media.serial import Buffer

_DIGEST_HEX = 32


@dataclass(frozen=True, slots=True)
class Copied:
    """A file that was copied and proven equal."""

    path: str  # relative to the destination's root
    size: int  # bytes at the copy
    digest: str  # XXH3-128 of them, hex
    source_size: int  # more than ``size`` for a log file that was growing
    source_modified_us: int


def encode_copies(rows: Sequence[Copied]) -> bytes:
    """One whole record file."""
    table = [[row.path, row.size, row.digest, row.source_size, row.source_modified_us] for row in rows]
    payload = canonical_json(table).encode()
    return CommonHeader(DataType.COPY_RECORD, len(payload), len(payload), ob_crc64(payload)).pack() + payload


def decode_copies(data: Buffer) -> tuple[Copied, ...]:
    """The rows of one record file. Raises FormatError."""
    header = parse_header(data, data_type=DataType.COPY_RECORD)
    payload = bytes(data[HEADER_SIZE:])
    header.check_payload(payload)
    try:
        text = payload.decode()
    except UnicodeDecodeError as exc:
        raise FormatError(f"bad copy record: not UTF-8 at offset {HEADER_SIZE + exc.start}") from None
    table = parse_json(text, "copy record")
    if not isinstance(table, list):
        raise FormatError("bad copy record: expected a list", offset=HEADER_SIZE)
    return tuple(map(_row, table))


def _row(value: Any) -> Copied:
    fits = (
        isinstance(value, list)
        and [type(item) for item in value] == [str, int, str, int, int]
        and is_safe_relative(value[0])
        and min(value[1], value[3]) >= 0
        and len(value[2]) == _DIGEST_HEX
    )
    if not fits:
        raise FormatError("bad copy record: expected path, size, digest, source size and time", offset=HEADER_SIZE)
    return Copied(*value)
