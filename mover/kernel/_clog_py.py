"""Walking the commit log of an OceanBase 3.1 observer in pure Python. Twin of ``_native/clog.pyx``."""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

from mover.errors import IntegrityError
from mover.kernel._checksum_py import ob_crc64
from mover.kernel._codec_py import lz4_decompress, zstd_decompress
from mover.kernel.clog import (
    BLOCK_DATA,
    BLOCK_IMAGE,
    BLOCK_INFO,
    BLOCK_MAGIC,
    BLOCK_META,
    BLOCK_TRAILER,
    BLOCK_VERSION,
    CLOG_COLUMNS,
    ENTRY_HEADER,
    ENTRY_IMAGE,
    ENTRY_MAGIC,
    ENTRY_VERSION,
    MAX_ENTRY,
    NEW_FILE_MAGIC,
    NOT_PACKED,
    PACKED,
    PACKED_LZ4,
    PACKED_ZSTD,
    PACKED_ZSTD_138,
    PADDING,
    PADDING_MAGIC,
    STALE_US,
    ClogFault,
    ClogStop,
    ClogWalk,
    describe_clog,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

_M64 = (1 << 64) - 1
_NEW_FILE = NEW_FILE_MAGIC.to_bytes(2, "big")
_PADDING = PADDING_MAGIC.to_bytes(2, "big")


class _Bad(Exception):
    def __init__(self, fault: ClogFault, at: int, a: int = 0, b: int = 0) -> None:
        super().__init__(describe_clog(fault, at, a & _M64, b & _M64))


def _murmur(data: bytes, seed: int) -> int:
    """MurmurHash64A of up to 8 bytes."""
    m = 0xC6A4A7935BD1E995
    h = (seed ^ len(data) * m) & _M64
    k = int.from_bytes(data, "little")
    if len(data) == 8:
        k = k * m & _M64
        k = (k ^ k >> 47) * m & _M64
    h = (h ^ k) * m & _M64
    h = (h ^ h >> 47) * m & _M64
    return h ^ h >> 47


def _hash(table_id: int, part_id: int, assist_id: int) -> int:
    h = _murmur(table_id.to_bytes(8, "little"), 0)
    h = _murmur(struct.pack("<i", part_id), h)
    return _murmur(struct.pack("<i", assist_id), h)


class _Walker:
    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.pgs: dict[bytes, int] = {}
        self.table = array("Q")
        self.unpacked = bytearray()

    def entry(self, data: memoryview, base: int) -> tuple[int, list[int]]:
        """Verify the entry at the start of ``data``: its size, and the columns from ``pg`` on."""
        if len(data) < ENTRY_HEADER.size:
            raise _Bad(ClogFault.ITEM_FIT, base, ENTRY_HEADER.size, len(data))
        (magic, version, log_type, table_id, part_id, assist, log_id, length, generated, epoch, ip, server, proposed,
         submit, data_sum, freeze, check) = ENTRY_HEADER.unpack_from(data)  # fmt: skip
        if magic != ENTRY_MAGIC or version != ENTRY_VERSION:
            raise _Bad(ClogFault.ENTRY_MAGIC, base, magic, version & 0xFFFF)
        if ip != 4:
            raise _Bad(ClogFault.ENTRY_ADDRESS, base, ip & 0xFF)
        left = len(data) - ENTRY_HEADER.size
        if not 0 <= length <= left:
            raise _Bad(ClogFault.ENTRY_FIT, base, length, left)
        server &= _M64
        port = server & 0xFFFFFFFF
        image = ENTRY_IMAGE.pack(
            magic, version, log_type, table_id, part_id, assist, _hash(table_id, part_id, assist), log_id, length,
            generated, epoch, 4, server >> 32, port - (port >> 31 << 32), proposed, submit, data_sum, freeze,
        )  # fmt: skip
        actual = ob_crc64(image)
        if actual != check:
            raise _Bad(ClogFault.ENTRY_CHECK, base, check, actual)
        actual = ob_crc64(data[ENTRY_HEADER.size : ENTRY_HEADER.size + length])
        if actual != data_sum:
            raise _Bad(ClogFault.ENTRY_DATA, base, data_sum, actual)
        key = bytes(data[8:24])
        pg = self.pgs.setdefault(key, len(self.pgs))
        size = ENTRY_HEADER.size + length
        numbers = (pg, log_id, proposed, submit, data_sum, log_type, epoch)
        return size, [number & _M64 for number in numbers]

    def packed(self, magic: int, at: int, end: int) -> int:
        """The compressed entry at ``at``; returns its size in the block."""
        if end - at < PACKED.size:
            raise _Bad(ClogFault.ITEM_FIT, at, PACKED.size, end - at)
        _, raw_size, stored = PACKED.unpack_from(self.view, at)
        if not 0 <= stored <= end - at - PACKED.size:
            raise _Bad(ClogFault.ITEM_FIT, at, stored, end - at - PACKED.size)
        if not ENTRY_HEADER.size <= raw_size <= MAX_ENTRY:
            raise _Bad(ClogFault.PACKED_SIZE, at, raw_size, stored)
        start = at + PACKED.size
        unpack = lz4_decompress if magic == PACKED_LZ4 else zstd_decompress
        try:
            raw = unpack(self.view[start : start + stored], raw_size)
        except IntegrityError:
            raise _Bad(ClogFault.PACKED_DATA, at, raw_size) from None
        size, columns = self.entry(memoryview(raw), at)
        if size != raw_size:
            raise _Bad(ClogFault.PACKED_SIZE, at, raw_size, stored)
        self.table.extend([at, PACKED.size + stored, len(self.unpacked), size, *columns])
        self.unpacked += raw
        return PACKED.size + int(stored)

    def items(self, at: int, end: int) -> None:
        """Everything in the block [at, end) behind its meta."""
        while at < end:
            if end - at < 2:
                raise _Bad(ClogFault.ITEM_FIT, at, 2, end - at)
            magic = int.from_bytes(self.view[at : at + 2], "big")
            if magic == ENTRY_MAGIC:
                size, columns = self.entry(self.view[at:end], at)
                self.table.extend([at, size, NOT_PACKED, size, *columns])
            elif magic == PADDING_MAGIC:
                if end - at < PADDING.size:
                    raise _Bad(ClogFault.ITEM_FIT, at, PADDING.size, end - at)
                _, _, size = PADDING.unpack_from(self.view, at)
                if not PADDING.size <= size <= end - at:
                    raise _Bad(ClogFault.ITEM_FIT, at, size, end - at)
            elif magic in (PACKED_ZSTD, PACKED_LZ4, PACKED_ZSTD_138):
                size = self.packed(magic, at, end)
            else:
                raise _Bad(ClogFault.ITEM_MAGIC, at, magic)
            at += size


def _meta(view: memoryview, at: int) -> tuple[int, int, int]:
    """(type, physical length, timestamp) of the block meta at ``at``."""
    magic, version, kind, total, pad, timestamp, data_sum, check = BLOCK_META.unpack_from(view, at)
    if magic != BLOCK_MAGIC or version != BLOCK_VERSION:
        raise _Bad(ClogFault.BLOCK_MAGIC, at, magic, version & 0xFFFF)
    actual = ob_crc64(BLOCK_IMAGE.pack(magic, version, kind, total, pad, timestamp, data_sum))
    if actual != check:
        raise _Bad(ClogFault.BLOCK_CHECK, at, check, actual)
    if kind not in (BLOCK_DATA, BLOCK_INFO, BLOCK_TRAILER):
        raise _Bad(ClogFault.BLOCK_TYPE, at, kind)
    size = total - pad
    if pad < 0 or not BLOCK_META.size <= size <= MAX_ENTRY or total > MAX_ENTRY:
        raise _Bad(ClogFault.BLOCK_SIZE, at, total, pad)
    return kind, size, timestamp


def clog_walk(data: Buffer, start: int = 0, timestamp: int = 0) -> ClogWalk:
    """Walk the blocks of a clog file and verify them: block metas, entry headers, entry bodies, compressed entries.

    Args:
        data: the file, or its bytes from the start of a block on.
        start: offset of a block in ``data``.
        timestamp: of the block before it, us; a block more than ``STALE_US`` older ends the walk.

    Returns:
        Every entry of every whole and valid block. Bad bytes are never an exception: the file may be written to while
        it is read, so only the caller knows whether they are damage.

    Raises:
        ValueError: ``start`` is outside of ``data``.
    """
    view = memoryview(data).cast("B")
    if not 0 <= start <= len(view):
        raise ValueError(f"start {start} is outside of {len(view)} bytes")
    walker = _Walker(view)
    at, blocks = start, 0
    stop, reason = ClogStop.END, ""
    while at < len(view):
        head = view[at : at + BLOCK_META.size]
        if bytes(head[:2]) == _NEW_FILE or not any(head):
            stop = ClogStop.UNUSED
            break
        if bytes(head[:2]) == _PADDING:
            stop = ClogStop.PADDING
            break
        if len(head) < BLOCK_META.size:
            break
        used, unpacked, known = len(walker.table), len(walker.unpacked), len(walker.pgs)
        try:
            kind, size, written = _meta(view, at)
            if written < timestamp - STALE_US:
                stop = ClogStop.STALE
                break
            if kind != BLOCK_DATA:
                if kind == BLOCK_INFO:
                    stop = ClogStop.INFO
                    break
                raise _Bad(ClogFault.BLOCK_TYPE, at, kind)
            if size > len(view) - at:
                break
            walker.items(at + BLOCK_META.size, at + size)
        except _Bad as bad:
            stop, reason = ClogStop.BAD, str(bad)
            del walker.table[used:], walker.unpacked[unpacked:]
            for key in list(walker.pgs)[known:]:
                del walker.pgs[key]
            break
        timestamp = written
        blocks += 1
        at += size
    return ClogWalk(
        at, stop, reason, timestamp, blocks, tuple(walker.pgs), walker.table, bytes(walker.unpacked)
    )  # fmt: skip


def clog_gather(data: Buffer, walk: ClogWalk, rows: Sequence[int]) -> bytes:
    """The whole entries of some rows of a walk, back to back, as an archive's payload has them.

    Args:
        data: the bytes that were walked.
        rows: numbers of entries.

    Raises:
        ValueError: a row that the walk has not, or bytes that are not those of the walk.
    """
    view, unpacked = memoryview(data).cast("B"), memoryview(walk.unpacked)
    out = bytearray()
    for row in rows:
        if not 0 <= row < len(walk.table) // CLOG_COLUMNS:
            raise ValueError(f"row {row} of {len(walk.table) // CLOG_COLUMNS}")
        offset, _, image, size = walk.table[row * CLOG_COLUMNS : row * CLOG_COLUMNS + 4]
        source, at = (view, offset) if image == NOT_PACKED else (unpacked, image)
        if at + size > len(source):
            raise ValueError(f"row {row} ends at {at + size} of {len(source)} bytes")
        out += source[at : at + size]
    return bytes(out)
