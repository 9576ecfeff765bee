"""Macroblock verification in pure Python. Twin of ``_native/macroblock.pyx``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mover.kernel._checksum_py import ob_crc64
from mover.kernel.macroblock import (
    COMMON_HEADER,
    COMMON_MAGIC,
    COMMON_VERSION,
    KIND_LINKED,
    KIND_NONE,
    KIND_SSTABLE_DATA,
    SSTABLE_HEADER,
    SSTABLE_MAGIC,
    SSTABLE_VERSION,
    MacroHeader,
    sstable_compressed,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

_STRIDE = 4096


def _content_end(view: memoryview) -> int:
    """Length without trailing zeros. Whole pages are compared first: most blocks end in many of them."""
    end = len(view)
    zeros = bytes(_STRIDE)
    while end >= _STRIDE and view[end - _STRIDE : end] == zeros:
        end -= _STRIDE
    start = max(0, end - _STRIDE)
    return start + len(bytes(view[start:end]).rstrip(b"\0"))


def macroblock_check(block: Buffer) -> MacroHeader:
    """Decode and verify the headers of one macroblock.

    Args:
        block: the block, normally 2 MiB; shorter is allowed when it holds the used bytes.

    Returns:
        The header. A block that begins with 24 zeros is KIND_NONE and ok (never used); one whose common header is not
        valid is KIND_NONE and not ok. Never raises, whatever the bytes are.

    ``used_length`` is 24 + payload_size for types 1 and 2, whose tail is stale; every other type ends with its last
    byte that is not zero. The shared types 7 and 8 state payload_size 0 and have no checksum over the block.
    """
    view = memoryview(block).cast("B")

    def none(ok: bool, reason: str) -> MacroHeader:
        return MacroHeader(KIND_NONE, 0, 0, 0, 0, 0, 0, 0, ok, reason)

    if len(view) < COMMON_HEADER.size:
        return none(False, f"{len(view)} bytes are too short for a macroblock header")
    if not any(view[: COMMON_HEADER.size]):
        return none(True, "")
    header_size, version, magic, kind, payload_size, checksum = COMMON_HEADER.unpack_from(view)
    if magic != COMMON_MAGIC:
        return none(False, f"header magic is {magic}, not {COMMON_MAGIC}")
    if header_size != COMMON_HEADER.size or version != COMMON_VERSION or not 0 < kind < 256:
        return none(False, f"header size {header_size}, version {version}, type {kind}")

    tablet_id = logical_version = data_seq = data_checksum = 0
    compressed: bool | None = None
    ok, reason = True, ""
    exact = kind in (KIND_SSTABLE_DATA, KIND_LINKED)
    used = COMMON_HEADER.size + payload_size if exact else _content_end(view)
    if payload_size == 0 and not exact:
        pass
    elif payload_size <= 0 or payload_size > len(view) - COMMON_HEADER.size:
        return MacroHeader(
            kind, 0, payload_size, checksum, 0, 0, 0, 0, False, f"payload size {payload_size} does not fit the block"
        )
    else:
        payload = view[COMMON_HEADER.size : COMMON_HEADER.size + payload_size]
        if kind == KIND_SSTABLE_DATA:
            if payload_size < SSTABLE_HEADER.size:
                ok, reason = False, f"payload size {payload_size} is too small for an sstable header"
            else:
                fields = SSTABLE_HEADER.unpack_from(payload)
                size, sstable_version, sstable_magic, tablet_id, logical_version, data_seq, *_, data_checksum = fields
                if sstable_magic != SSTABLE_MAGIC or sstable_version != SSTABLE_VERSION:
                    ok, reason = False, f"sstable header magic {sstable_magic}, version {sstable_version}"
                else:
                    compressed = sstable_compressed(payload, size)
        if ok:
            actual = ob_crc64(payload)
            if actual != checksum:
                ok, reason = False, f"payload checksum is {actual:#010x}, header says {checksum:#010x}"
    return MacroHeader(
        kind, used, payload_size, checksum, tablet_id, logical_version, data_seq, data_checksum, ok, reason, compressed
    )
