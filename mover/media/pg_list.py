"""``sys_pg_list`` and ``normal_pg_list``: which PGs a backup holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mover.errors import FormatError
from mover.media.header import HEADER_SIZE, DataType
from mover.media.info_file import decode_info, encode_info
from mover.media.pg import PGKey
from mover.media.serial import PG, Buffer, Unis, array


@dataclass(frozen=True, slots=True)
class _PGs:
    items: tuple[PGKey, ...]


_PGS: Unis[_PGs] = Unis(_PGs, [("items", array(PG))])


def encode_pg_list(pgs: Sequence[PGKey]) -> bytes:
    """The whole file; an empty list is a file too."""
    return encode_info(DataType.PG_LIST, _PGS.encode(_PGs(tuple(pgs))))


def decode_pg_list(data: Buffer, *, strict: bool = True) -> tuple[PGKey, ...]:
    """The keys, in file order. Raises FormatError; strict also for a key that is there twice."""
    items = _PGS.decode(
        decode_info(data, DataType.PG_LIST, strict=strict), base_offset=HEADER_SIZE, strict=strict
    ).items
    if strict and len(set(items)) != len(items):
        raise FormatError("a PG is listed twice", offset=HEADER_SIZE)
    return items
