"""Frames back to macroblocks in pure Python. Twin of ``_native/unpack.pyx``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mover.errors import IntegrityError
from mover.kernel._checksum_py import ob_crc64, xxh3_128
from mover.kernel._codec_py import lz4_decompress, zstd_decompress
from mover.kernel._macroblock_py import macroblock_check
from mover.kernel.macroblock import MACROBLOCK_BYTES
from mover.kernel.pack import FRAME_ALIGN
from mover.kernel.unpack import (
    COMPRESSOR_NONE,
    COMPRESSORS_LZ4,
    COMPRESSORS_ZSTD,
    FRAME_HEADER,
    FRAME_TYPE,
    MAX_FRAME,
    UNPACK_HEAD,
    UNPACK_SLAB,
    Expected,
    Verdict,
    check_sizes,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer


def unpack_frames(
    data: Buffer,
    frames: Sequence[Expected],
    slabs: Buffer,
    suffix: bytes,
    *,
    open_from: int,
    open_until: int,
    keep: bool,
) -> bytes:
    """Verify whole frames and take the macroblocks out of them, in one call that does not hold the GIL.

    Args:
        data: holds the frames.
        frames: where they are and what they must hold.
        slabs: writable, UNPACK_SLAB bytes for each frame; one slab is enough without ``keep``.
        suffix: what follows the block in each payload, at most SUFFIX_ROOM bytes.
        open_from, open_until: bytes of the prefixes that may be anything.
        keep: put block number i at ``i * UNPACK_SLAB + UNPACK_HEAD`` of ``slabs``, with zeros up to a whole page. Else
            blocks are only verified, and slabs are scratch.

    Returns:
        One byte for each frame, its Verdict. The slab of a frame that is not GOOD is undefined. Whatever the bytes
        are, nothing is read outside ``data`` or written outside ``slabs``.

    Raises:
        ValueError: slabs, suffix or a prefix are not of the sizes stated above, or a digest is not 16 bytes.
    """
    view, out = memoryview(data).cast("B"), memoryview(slabs).cast("B")
    check_sizes(frames, len(out), suffix, open_from, open_until, keep)
    verdicts = bytearray(len(frames))
    for number, frame in enumerate(frames):
        start = number * UNPACK_SLAB if keep else 0
        slab = out[start : start + UNPACK_SLAB] if keep else None
        verdicts[number] = _unpack(view, frame, suffix, slice(open_from, open_until), slab)
    return bytes(verdicts)


def _unpack(view: memoryview, expected: Expected, suffix: bytes, opened: slice, slab: memoryview | None) -> Verdict:
    offset, length, prefix, used, digest, engine_check = expected
    if not FRAME_HEADER.size <= length <= MAX_FRAME or not 0 <= offset <= len(view) - length:
        return Verdict.PLACE
    if not 0 <= used <= MACROBLOCK_BYTES:
        return Verdict.PLACE
    frame = view[offset : offset + length]
    raw_length = len(prefix) + used + len(suffix)
    kind, version, data_version, compressor, size, checksum, zero, *lengths = FRAME_HEADER.unpack_from(frame)
    raw, stored, crc, align = lengths
    folded = version ^ compressor ^ kind ^ size
    for value in lengths:
        folded ^= value ^ value >> 16 ^ value >> 32 ^ value >> 48
    if (
        (kind, version, data_version, size, zero) != (FRAME_TYPE, 1, 1, FRAME_HEADER.size, 0)
        or (folded ^ checksum) & 0xFFFF
        or compressor not in (COMPRESSOR_NONE, *COMPRESSORS_LZ4, *COMPRESSORS_ZSTD)
        or raw != raw_length
        or (compressor == COMPRESSOR_NONE and stored != raw)
        or not 0 <= stored <= length - FRAME_HEADER.size
        or align != -(FRAME_HEADER.size + stored) % FRAME_ALIGN
        or FRAME_HEADER.size + stored + align != length
        or not 0 <= crc < 1 << 32
    ):
        return Verdict.HEADER
    payload = frame[FRAME_HEADER.size : FRAME_HEADER.size + stored]
    if ob_crc64(payload) != crc:
        return Verdict.CHECKSUM
    if any(frame[FRAME_HEADER.size + stored :]):
        return Verdict.PADDING
    if compressor != COMPRESSOR_NONE:
        decompress = lz4_decompress if compressor in COMPRESSORS_LZ4 else zstd_decompress
        try:
            payload = memoryview(decompress(payload, raw))
        except IntegrityError:
            return Verdict.CODEC
    before, block = bytearray(payload[: len(prefix)]), payload[len(prefix) : len(prefix) + used]
    before[opened] = prefix[opened]
    if before != prefix or payload[len(prefix) + used :] != suffix:
        return Verdict.PREFIX
    if xxh3_128(block) != digest:
        return Verdict.DIGEST
    if engine_check and not macroblock_check(block).ok:
        return Verdict.ENGINE
    if slab is not None:
        end = UNPACK_HEAD + used
        slab[UNPACK_HEAD:end] = block
        slab[end : end + -used % FRAME_ALIGN] = bytes(-used % FRAME_ALIGN)
    return Verdict.GOOD
