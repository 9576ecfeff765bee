"""The meta record of a PG of a 3.1 store in a backup: where 3.1.0 has ObBackupPGMetaInfo, mover has facts of its own.

The members of ObPartitionGroupMeta are not known, and inventing them would make a set that a server restores wrongly.
So the record has OceanBase's type (4) and place, and a body that a 3.1.0 server refuses by its version: a UNIS struct
of version 100 with one JSON object as vstr.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mover.errors import FormatError
from mover.media.frames import iter_frames
from mover.media.header import DataType
from mover.media.meta import JSON, MetaType, iter_meta_records
from mover.media.serial import Buffer, Reader, unis

BODY_VERSION = 100


def encode_pg_meta(facts: Mapping[str, Any]) -> bytes:
    """The body of a record."""
    return unis(JSON.put(dict(facts)), BODY_VERSION)


def decode_pg_meta(body: Buffer, *, offset: int = 0) -> dict[str, Any]:
    """Raises FormatError for anything but a body of mover's."""
    reader = Reader(body, base_offset=offset)
    outer = reader.enter(BODY_VERSION, "PG meta of mover's")
    value = JSON.get(reader, "PG meta")
    reader.leave(outer, "PG meta")
    reader.finish("PG meta")
    if not isinstance(value, dict):
        raise FormatError(f"bad PG meta at offset {offset}: no JSON object", offset=offset)
    return value


def iter_pg_metas(data: Buffer) -> Iterator[dict[str, Any]]:
    """The facts of every PG in a meta file that mover wrote. Raises FormatError."""
    for record in iter_meta_records(iter_frames(data, data_type=DataType.META)):
        if record.meta_type == MetaType.PARTITION_GROUP_META_INFO:
            yield decode_pg_meta(record.body, offset=record.offset)
