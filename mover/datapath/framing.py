"""One macroblock becomes one frame: digest, compress or keep, header. Pure, thread safe, the GIL mostly released."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mover.datapath.compression import Compression
from mover.kernel import ob_crc64, xxh3_128
from mover.media.frames import frame_header
from mover.media.header import Compressor, DataType
from mover.media.macro import MACRO_SUFFIX, BlockMeta, macro_prefix
from mover.store.base import BlockIdentity

Buffer = bytes | bytearray | memoryview
_ZEROS = bytes(4096)


@dataclass(frozen=True, slots=True)
class FramedBlock:
    """A frame ready to be written, as pieces that follow each other; some may be views of the slab."""

    identity: BlockIdentity
    digest: bytes  # XXH3-128 of the used bytes
    pieces: tuple[Buffer, ...]
    length: int  # header, payload and padding, bytes


def block_meta(identity: BlockIdentity) -> BlockMeta:
    """The meta entry that travels with a block."""
    return BlockMeta(
        identity.block_index,
        identity.kind,
        identity.used_length,
        identity.tablet_id,
        identity.logical_version,
        identity.data_seq,
        identity.payload_checksum,
        identity.data_checksum,
    )


def frame_block(
    identity: BlockIdentity, data: memoryview, compression: Compression, unchanged: Callable[[bytes], bool]
) -> FramedBlock | bytes:
    """Frame one block.

    Args:
        identity: of the block; ``data`` holds its ``used_length`` bytes, checked by whoever read them.
        compression: see :class:`Compression`.
        unchanged: told the digest, says whether an earlier set already holds these very bytes.

    Returns:
        The frame, or only the digest when ``unchanged`` said yes.
    """
    digest = xxh3_128(data)
    if unchanged(digest):
        return digest
    prefix = macro_prefix(block_meta(identity).pack(), len(data))
    raw_length = len(prefix) + len(data) + len(MACRO_SUFFIX)
    payload: tuple[Buffer, ...] = (prefix, data, MACRO_SUFFIX)
    compressor = Compressor.NONE
    if compression.mode != "none" and compression.promising(data):
        whole = b"".join(payload)
        compressor, stored = compression.apply(whole)
        payload = (stored,)
    checksum = 0
    for piece in payload:
        checksum = ob_crc64(piece, checksum)
    header = frame_header(
        DataType.MACRO_DATA,
        sum(len(piece) for piece in payload),
        checksum,
        raw_length=raw_length,
        compressor=compressor,
    )
    pieces = (header.pack(), *payload, _ZEROS[: header.align_length])
    return FramedBlock(identity, digest, pieces, sum(len(piece) for piece in pieces))
