"""Checksums, codecs and decoders over raw bytes: the native extensions, or their pure-Python twins.

The twins are used when the extensions are not built or ``MOVER_PURE=1`` is in the environment. An extension that is
there but does not load (a missing libzstd, say) is an error: silently running at a tenth of the speed would be worse.
"""

from __future__ import annotations

import os

from mover.kernel._palf_py import palf_cut
from mover.kernel.clog import ClogEntry, ClogStop, ClogWalk
from mover.kernel.entries import EntryRun
from mover.kernel.macroblock import MacroHeader
from mover.kernel.pack import Order, PackedFrame, frame_room
from mover.kernel.palf import (
    PALF_FILE_BYTES,
    PALF_FILE_HEADER,
    PALF_START_ACCUM,
    PalfBlockHeader,
    PalfFrame,
    PalfFrames,
    PalfGroup,
    PalfStop,
    PalfWalk,
    palf_block_header_build,
    palf_block_header_parse,
)
from mover.kernel.read import BlockRead, Read
from mover.kernel.unpack import PREFIX_ROOM, UNPACK_HEAD, UNPACK_SLAB, Expected, Verdict

try:
    if os.environ.get("MOVER_PURE", "") not in ("", "0"):
        raise ModuleNotFoundError("MOVER_PURE is set")
    from mover._native.checksum import Xxh3_128, crc64_xz, crc64_xz_combine, ob_crc64, xxh3_128
    from mover._native.clog import clog_gather, clog_walk
    from mover._native.codec import (
        decode_vi64,
        encode_vi64,
        lz4_compress,
        lz4_decompress,
        zstd_compress,
        zstd_decompress,
    )
    from mover._native.entries import walk_entries
    from mover._native.macroblock import macroblock_check
    from mover._native.pack import pack_frames
    from mover._native.palf import palf_frame_groups, palf_unframe, palf_walk
    from mover._native.read import read_blocks
    from mover._native.unpack import unpack_frames
except ModuleNotFoundError:
    from mover.kernel._checksum_py import (  # type: ignore[assignment]
        Xxh3_128,
        crc64_xz,
        crc64_xz_combine,
        ob_crc64,
        xxh3_128,
    )
    from mover.kernel._clog_py import clog_gather, clog_walk
    from mover.kernel._codec_py import (
        decode_vi64,
        encode_vi64,
        lz4_compress,
        lz4_decompress,
        zstd_compress,
        zstd_decompress,
    )
    from mover.kernel._entries_py import walk_entries
    from mover.kernel._macroblock_py import macroblock_check
    from mover.kernel._pack_py import pack_frames
    from mover.kernel._palf_py import palf_frame_groups, palf_unframe, palf_walk
    from mover.kernel._read_py import read_blocks
    from mover.kernel._unpack_py import unpack_frames

NATIVE = Xxh3_128.__module__.startswith("mover._native.")
"""Are the native extensions in use?"""

__all__ = [
    "NATIVE",
    "PALF_FILE_BYTES",
    "PALF_FILE_HEADER",
    "PALF_START_ACCUM",
    "PREFIX_ROOM",
    "UNPACK_HEAD",
    "UNPACK_SLAB",
    "BlockRead",
    "ClogEntry",
    "ClogStop",
    "ClogWalk",
    "EntryRun",
    "Expected",
    "MacroHeader",
    "Order",
    "PackedFrame",
    "PalfBlockHeader",
    "PalfFrame",
    "PalfFrames",
    "PalfGroup",
    "PalfStop",
    "PalfWalk",
    "Read",
    "Verdict",
    "Xxh3_128",
    "clog_gather",
    "clog_walk",
    "crc64_xz",
    "crc64_xz_combine",
    "decode_vi64",
    "encode_vi64",
    "frame_room",
    "lz4_compress",
    "lz4_decompress",
    "macroblock_check",
    "ob_crc64",
    "pack_frames",
    "palf_block_header_build",
    "palf_block_header_parse",
    "palf_cut",
    "palf_frame_groups",
    "palf_unframe",
    "palf_walk",
    "read_blocks",
    "unpack_frames",
    "walk_entries",
    "xxh3_128",
    "zstd_compress",
    "zstd_decompress",
]
