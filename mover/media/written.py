"""``backup_<I>/mover_written.<table>.<partition>.<sub>``: what a macro file of an unfinished backup holds.

Written behind each full macro file, so that a backup that was interrupted goes on where it was: what is listed here and
still the same in the store is not copied again. Removed when the backup is complete; no restore needs it. One frame
with a canonical JSON object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mover.errors import FormatError
from mover.media.frames import Frame, end_mark, frame, iter_frames, sealed_frame
from mover.media.header import DataType
from mover.media.manifest import DIGEST_SIZE
from mover.media.meta import canonical_json, parse_json
from mover.media.sealed import Opening, Sealing
from mover.media.serial import Buffer

_NUMBERS = 7  # of a block's row, before its digest


@dataclass(frozen=True, slots=True)
class WrittenBlock:
    """A block and where it is in the macro file: the first seven are the manifest's, offset and length are bytes."""

    block_index: int
    kind: int
    used_length: int
    tablet_id: int
    logical_version: int
    data_seq: int
    payload_checksum: int
    digest: bytes
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Written:
    """A macro file that is published: ``size`` and ``digest`` of all of it, and the blocks in it."""

    sub: int
    size: int
    digest: bytes
    compression: str  # the setting it was written with
    key_id: str  # of the data key, "" for none
    blocks: tuple[WrittenBlock, ...]

    def encode(self, sealing: Sealing | None = None) -> bytes:
        """The whole file, encrypted by ``sealing``."""
        rows = [
            [
                *(block.block_index, block.kind, block.used_length, block.tablet_id, block.logical_version),
                *(block.data_seq, block.payload_checksum, block.digest.hex(), block.offset, block.length),
            ]
            for block in self.blocks
        ]
        facts = {"sub": self.sub, "size": self.size, "digest": self.digest.hex(), "compression": self.compression}
        payload = canonical_json({**facts, "key_id": self.key_id, "blocks": rows}).encode()
        if sealing is not None:
            return sealed_frame(DataType.WRITTEN, payload, sealing, offset=0) + end_mark()
        return frame(DataType.WRITTEN, payload) + end_mark()

    @classmethod
    def decode(cls, data: Buffer, opening: Opening | None = None) -> Written:
        """Raises FormatError; IntegrityError and EncryptionKeyError for what ``opening`` does not decrypt."""
        frames = list(iter_frames(data, data_type=DataType.WRITTEN, opening=opening))
        if len(frames) != 1:
            raise FormatError(f"bad list of written blocks: expected one record, found {len(frames)}", offset=0)
        return cls.of_frame(frames[0])

    @classmethod
    def of_frame(cls, source: Frame) -> Written:
        """From the one frame of a file. Raises FormatError."""
        found = parse_json(source.data().decode("utf-8", "replace"), "list of written blocks")
        try:
            return cls(
                sub=_number(found["sub"]),
                size=_number(found["size"]),
                digest=_digest(found["digest"]),
                compression=str(found["compression"]),
                key_id=str(found["key_id"]),
                blocks=tuple(_block(row) for row in found["blocks"]),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise FormatError(f"bad list of written blocks: {type(exc).__name__}: {exc}", offset=0) from None


def _block(row: Sequence[Any]) -> WrittenBlock:
    *numbers, digest, offset, length = row
    if len(numbers) != _NUMBERS:
        raise ValueError(f"a row of {len(row)} columns")
    index, kind, used, tablet, version, seq, checksum = map(_number, numbers)
    place = _number(offset), _number(length)
    return WrittenBlock(index, kind, used, tablet, version, seq, checksum, _digest(digest), *place)


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"{value!r} is no 64-bit number")
    return value


def _digest(text: Any) -> bytes:
    digest = bytes.fromhex(text)
    if len(digest) != DIGEST_SIZE:
        raise ValueError(f"a digest of {len(digest)} bytes")
    return digest
