"""Encrypted payloads of archive blocks: ``i16 0x4345 "CE" | i16 1 | i32 0 | sealed piece``.

The piece is the running checksum (u64, big-endian) and the payload as it would be stored otherwise. The block's meta
has 0 where that checksum stands, because it tells something of the log; the piece is bound to all else in the meta, to
the data file and to the offset of the block.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from mover.encryption.cipher import TRAILER_SIZE, key_id_of, missing_key
from mover.errors import FormatError, IntegrityError
from mover.media.archive import BLOCK_META_SIZE, ArchiveBlock, ArchiveBlockMeta
from mover.media.sealed import Opening, Sealing

SEALED_MAGIC = 0x4345  # "CE"
SEALED_VERSION = 1
_HEAD = struct.Struct(">hhi")
_ACCUM = struct.Struct(">Q")
LEAD = _HEAD.size + _ACCUM.size
"""Bytes in front of the payload."""
OVERHEAD = LEAD + TRAILER_SIZE
_MAGIC = SEALED_MAGIC.to_bytes(2, "big")


def is_sealed(block: ArchiveBlock) -> bool:
    """Is the payload encrypted?"""
    return bytes(block.payload[:2]) == _MAGIC


def key_id(block: ArchiveBlock) -> str:
    """The data key of an encrypted block, 16 hexadecimal digits. Raises IntegrityError."""
    return key_id_of(block.payload).hex()


def public(meta: ArchiveBlockMeta) -> ArchiveBlockMeta:
    """The meta of an encrypted block as it is stored."""
    return replace(meta, accum_checksum=0)


def seal_payload(room: memoryview, length: int, meta: ArchiveBlockMeta, sealing: Sealing, *, offset: int) -> int:
    """Encrypt a payload where it is.

    Args:
        room: where the payload of the block begins in its buffer; the plain payload is LEAD bytes behind that, and
            there are OVERHEAD bytes more than it takes.
        length: of the plain payload.
        meta: of the block, with the running checksum.
        offset: where the block will begin in its data file.

    Returns the length of the payload as stored.
    """
    _HEAD.pack_into(room, 0, SEALED_MAGIC, SEALED_VERSION, 0)
    _ACCUM.pack_into(room, _HEAD.size, meta.accum_checksum)
    aad = sealing.place.aad(offset, SEALED_MAGIC, 0, length, _bound(meta))
    return _HEAD.size + sealing.sealer.seal_in_place(room[_HEAD.size :], _ACCUM.size + length, aad)


def opened(block: ArchiveBlock, opening: Opening | None) -> ArchiveBlock:
    """The block as it would be without encryption; one that is not encrypted is returned as it is.

    Raises EncryptionKeyError, IntegrityError when it was changed or is not of this place, FormatError.
    """
    if not is_sealed(block):
        return block
    where = block.offset + BLOCK_META_SIZE
    if len(block.payload) < OVERHEAD:
        raise FormatError(f"bad encrypted payload at offset {where}: {len(block.payload)} bytes", offset=where)
    _, version, reserved = _HEAD.unpack_from(block.payload)
    if version != SEALED_VERSION or reserved or block.meta.accum_checksum:
        raise FormatError(
            f"bad encrypted payload at offset {where}: expected version {SEALED_VERSION} and zeros,"
            f" found {version}, {reserved} and running checksum {block.meta.accum_checksum:#x}",
            offset=where,
        )
    if opening is None:
        raise missing_key(key_id(block))
    length = len(block.payload) - OVERHEAD
    aad = opening.place.aad(block.offset, SEALED_MAGIC, 0, length, _bound(block.meta))
    try:
        plain = opening.keys.open(block.payload[_HEAD.size :], aad)
    except IntegrityError as exc:
        raise IntegrityError(f"archive block at offset {block.offset}: {exc.message}", offset=block.offset) from None
    (accum,) = _ACCUM.unpack_from(plain)
    return ArchiveBlock(block.offset, replace(block.meta, accum_checksum=accum), memoryview(plain)[_ACCUM.size :])


def _bound(meta: ArchiveBlockMeta) -> bytes:
    """What of the meta the payload is bound to: all that does not follow from the payload."""
    return replace(meta, accum_checksum=0, output_bytes=0, total_length=0, data_checksum=0).pack()
