"""What ``mover inspect`` says of encrypted files without their key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from mover.encryption.cipher import Keys, key_id_of
from mover.media.frames import Frame
from mover.media.header import Compressor, DataType
from mover.media.layout import FileKind, parse_path
from mover.media.round_record import RoundRecord
from mover.media.sealed import Opening


def opening_for(path: str | None, keys: Keys) -> Opening | None:
    """What decrypts the file; None without a key, and outside of a tree, where nothing can be decrypted."""
    parsed = parse_path(path) if path and keys else None
    return None if path is None or parsed is None or parsed.kind is FileKind.TEMPORARY else Opening.of(path, keys)


def locked_rows(frames: Iterator[Frame]) -> Iterator[dict[str, Any]]:
    """What encrypted frames say of themselves. Raises IntegrityError for one without a trailer."""
    for source in frames:
        header = source.header
        yield {
            "record": "encrypted_frame",
            "offset": source.offset,
            "length": source.size,
            "data_type": DataType(header.data_type).name,
            "compressor": Compressor(header.codec).name,
            "stored_bytes": header.data_zlength,
            "raw_bytes": header.data_length,
            "encrypted_with": key_id_of(source.payload).hex(),
        }


def record_fields(record: RoundRecord) -> dict[str, Any]:
    """The members of a round record as they are in its file: ``keys`` only where there are any."""
    fields = dataclasses.asdict(record)
    if record.keys:
        return {**fields, "keys": list(record.keys)}
    del fields["keys"]
    return fields
