"""zstd, LZ4 and varints in pure Python, on zstandard and lz4. Twin of ``_native/codec.pyx``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import lz4.block
import zstandard

from mover.errors import FormatError, IntegrityError
from mover.kernel.limits import LZ4_MAX_INPUT, LZ4_MAX_RATIO, ZSTD_MAX_RATIO, check_claim, check_level

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MASK64 = (1 << 64) - 1
# zstandard's contexts must not be shared between threads, and cost more than a small frame to make.
_contexts = threading.local()


def _compressor(level: int) -> zstandard.ZstdCompressor:
    cached: dict[int, zstandard.ZstdCompressor] | None = getattr(_contexts, "compressors", None)
    if cached is None:
        cached = _contexts.compressors = {}
    if level not in cached:
        cached[level] = zstandard.ZstdCompressor(level=level)
    return cached[level]


def _decompressor() -> zstandard.ZstdDecompressor:
    cached: zstandard.ZstdDecompressor | None = getattr(_contexts, "decompressor", None)
    if cached is None:
        cached = _contexts.decompressor = zstandard.ZstdDecompressor()
    return cached


def zstd_compress(data: Buffer, level: int) -> bytes:
    """One zstd frame that states its content size, without a checksum.

    Args:
        data: contiguous bytes.
        level: -7 to 22; more costs time and memory.

    Contexts are kept per thread.

    Raises:
        ValueError: no such level.
    """
    check_level(level)
    return bytes(_compressor(level).compress(memoryview(data).cast("B")))


def zstd_decompress(data: Buffer, size: int) -> bytes:
    """The content of the one zstd frame that ``data`` is.

    Args:
        data: exactly one frame, nothing behind it.
        size: bytes it must decompress to.

    Raises:
        IntegrityError: not exactly one valid frame, or its content is not ``size`` bytes long.
    """
    view = memoryview(data).cast("B")
    check_claim("zstd", len(view), size, ZSTD_MAX_RATIO)
    try:
        if bytes(view[:4]) != zstandard.FRAME_HEADER:
            raise IntegrityError("zstd: not a frame")
        claimed = zstandard.get_frame_parameters(view).content_size
        if claimed not in (size, zstandard.CONTENTSIZE_UNKNOWN):
            raise IntegrityError(f"zstd: the frame says {claimed} bytes, {size} expected")
        if claimed == 0:
            # The one-shot call answers b"" to such a frame without looking behind its header.
            stream = _decompressor().decompressobj()
            content: bytes = stream.decompress(view)
            if not stream.eof or stream.unused_data:
                raise IntegrityError("zstd: not exactly one whole frame")
        else:
            content = _decompressor().decompress(view, max_output_size=max(size, 1), allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"zstd: {error}") from None
    if len(content) != size:
        raise IntegrityError(f"zstd: {len(content)} bytes decompressed, {size} expected")
    return content


def lz4_compress(data: Buffer) -> bytes:
    """A bare LZ4 block (no frame, no size).

    Raises:
        ValueError: more than LZ4_MAX_INPUT bytes.
    """
    view = memoryview(data).cast("B")
    if len(view) > LZ4_MAX_INPUT:
        raise ValueError(f"lz4 takes at most {LZ4_MAX_INPUT} bytes, got {len(view)}")
    return bytes(lz4.block.compress(view, store_size=False))


def lz4_decompress(data: Buffer, size: int) -> bytes:
    """The content of a bare LZ4 block.

    Args:
        data: the whole block.
        size: bytes it must decompress to.

    Raises:
        IntegrityError: not a valid block, or its content is not ``size`` bytes long.
    """
    view = memoryview(data).cast("B")
    check_claim("lz4", len(view), size, LZ4_MAX_RATIO)
    if max(len(view), size) > LZ4_MAX_INPUT:
        raise IntegrityError(f"lz4: a block holds at most {LZ4_MAX_INPUT} bytes")
    if size == 0:
        # python-lz4 does not take a buffer of 0; liblz4 accepts one block for it.
        if bytes(view) != b"\0":
            raise IntegrityError("lz4: not a block of 0 bytes")
        return b""
    try:
        content: bytes = lz4.block.decompress(view, uncompressed_size=size)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise IntegrityError(f"lz4: {error}") from None
    if len(content) != size:
        raise IntegrityError(f"lz4: {len(content)} bytes decompressed, {size} expected")
    return content


def encode_vi64(value: int) -> bytes:
    """``value`` as OceanBase's vi64: 7 bits per byte, low bits first, high bit = more follow.

    A negative value is encoded as its 64-bit two's complement, 10 bytes.

    Raises:
        ValueError: neither an i64 nor a u64.
    """
    if not -(1 << 63) <= value <= _MASK64:
        raise ValueError(f"{value} does not fit 64 bits")
    value &= _MASK64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_vi64(buf: Buffer, offset: int = 0) -> tuple[int, int]:
    """Decode the vi64 at ``offset``: (value as u64, offset behind it). Padded encodings are accepted.

    Raises:
        FormatError: the buffer ends inside it, it is longer than 10 bytes, or it does not fit 64 bits.
    """
    view = memoryview(buf).cast("B")
    if offset < 0:
        raise FormatError(f"varint at a negative offset {offset}", offset=offset)
    value = shift = 0
    for at in range(offset, min(len(view), offset + 10)):
        byte = view[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > _MASK64:
                raise FormatError(f"varint at offset {offset} does not fit 64 bits", offset=offset)
            return value, at + 1
        shift += 7
    if len(view) - offset >= 10:
        raise FormatError(f"varint at offset {offset} is longer than 10 bytes", offset=offset)
    raise FormatError(f"varint at offset {offset} is cut off by the end of the buffer", offset=offset)
