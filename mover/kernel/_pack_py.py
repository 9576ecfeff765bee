"""Framing of macroblocks in pure Python. Twin of ``_native/pack.pyx``."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mover.kernel._checksum_py import ob_crc64
from mover.kernel._codec_py import lz4_compress, zstd_compress
from mover.kernel.limits import check_level
from mover.kernel.pack import SAMPLE_BYTES, SAMPLE_PERMILLE, Order, PackedFrame, frame_room

if TYPE_CHECKING:
    from typing_extensions import Buffer

_HEADER = struct.Struct("<HHHHhhIqqqq")
_MACRO_DATA = 1
_VERSION = 1
_NONE = 1
_LZ4 = 2
_ZSTD = 8


def pack_frames(
    out: Buffer,
    start: int,
    blocks: Sequence[tuple[Buffer, Buffer, int]],
    suffix: bytes,
    *,
    compressor: int,
    level: int,
    keep_permille: int,
) -> list[PackedFrame]:
    """Frame macroblocks one behind the other into ``out``, compressed or as they are.

    A frame is an ObBackupCommonHeader of type MACRO_DATA, a payload and zeros up to 4096; the payload is
    ``prefix + data + suffix`` or that compressed (FORMAT.md, macro_block files).

    Args:
        out: where the frames go, writable.
        start: the first frame's offset in it, a multiple of 4096.
        blocks: for each a (prefix, data, :class:`Order`).
        suffix: ends every payload.
        compressor: 8 for zstd, 2 for LZ4; 1 keeps everything, whatever the orders say.
        level: of zstd.
        keep_permille: compressing pays when it leaves less than so many thousandths of the payload.

    Returns:
        A frame for each block, in order, as far as they fit; the rest were not looked at.

    One call releases the GIL once. Thread safe; contexts are kept per thread.

    Raises:
        ValueError: no such compressor or level, or ``start`` is not a place in ``out``.
    """
    check_level(level)
    view = memoryview(out).cast("B")
    if compressor not in (_NONE, _LZ4, _ZSTD):
        raise ValueError(f"compressor {compressor} is not 1, 2 or 8")
    if start % 4096 or not 0 <= start <= len(view):
        raise ValueError(f"offset {start} is not a place for a frame in {len(view)} bytes")
    done = []
    for prefix, data, order in blocks:
        payload = b"".join((prefix, data, suffix))
        if start + frame_room(len(payload)) > len(view):
            break
        kind = _NONE
        stored = payload
        if compressor != _NONE and order != Order.KEEP and (order == Order.COMPRESS or _promising(memoryview(data))):
            packed = zstd_compress(payload, level) if compressor == _ZSTD else lz4_compress(payload)
            if len(packed) < len(payload) * keep_permille // 1000:
                kind, stored = compressor, packed
        length = frame_room(len(stored))
        _HEADER.pack_into(view, start, *_header(kind, len(payload), len(stored), ob_crc64(stored), length))
        body = start + _HEADER.size
        view[body : body + len(stored)] = stored
        view[body + len(stored) : start + length] = bytes(length - _HEADER.size - len(stored))
        done.append(PackedFrame(length, len(stored), kind))
        start += length
    return done


def _promising(data: memoryview) -> bool:
    if len(data) <= 4 * SAMPLE_BYTES:
        return True
    middle = len(data) // 2
    sample = data[middle : middle + SAMPLE_BYTES]
    return len(zstd_compress(sample, 1)) * 1000 <= SAMPLE_BYTES * SAMPLE_PERMILLE


def _header(kind: int, raw: int, stored: int, crc: int, length: int) -> tuple[int, ...]:
    lengths = (raw, stored, crc, length - _HEADER.size - stored)
    folded = _VERSION ^ kind ^ _MACRO_DATA ^ _HEADER.size
    for value in lengths:
        folded ^= value ^ value >> 16 ^ value >> 32 ^ value >> 48
    folded &= 0xFFFF
    checksum = folded - 0x10000 if folded & 0x8000 else folded
    return (_MACRO_DATA, _VERSION, 1, kind, _HEADER.size, checksum, 0, *lengths)
