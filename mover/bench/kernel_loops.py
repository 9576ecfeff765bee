"""The loops of ``mover bench kernel``: each makes a call that is repeated over the same bytes, on one thread."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import xxhash

from mover import kernel
from mover.bench.clog_data import write_clog
from mover.bench.data import blocks
from mover.bench.log_data import palf_log
from mover.datapath.buffers import FRAME_ROOM
from mover.datapath.compression import Compression
from mover.datapath.parts import block_meta
from mover.encryption.cipher import DataKey, Keys, Sealer
from mover.kernel import Order
from mover.kernel.macroblock import MACROBLOCK_BYTES
from mover.media.macro import MACRO_SUFFIX, PREFIX_OPEN, macro_prefix
from mover.media.sealed import Opening, Place, Sealing
from mover.store.seekdb.blocks import BlockFile, block_image

_LOG_BYTES = 4 << 20
_CLOG_BYTES = 8 << 20


class Loop(NamedTuple):
    """``call`` handles ``size`` bytes."""

    size: int
    call: Callable[[], object]


def make_loop(name: str, source: Path) -> Loop:
    """The loop of a name in ``LOOPS`` or ``PEER_LOOPS``; ``source`` is a block file of at least 8 blocks."""
    return (LOOPS | PEER_LOOPS)[name](source)


def _block(kind: str) -> memoryview:
    return memoryview(bytearray(next(blocks(kind, 1))))


def _over_block(function: Callable[[memoryview], object]) -> Callable[[Path], Loop]:
    def make(_source: Path) -> Loop:
        data = _block("incompressible")
        return Loop(len(data), lambda: function(data))

    return make


def _codec(kind: str, compress: Callable[[bytes], bytes]) -> Callable[[Path], Loop]:
    def make(_source: Path) -> Loop:
        data = bytes(_block(kind))
        return Loop(len(data), lambda: compress(data))

    return make


def _zstd_decompress(_source: Path) -> Loop:
    stored = kernel.zstd_compress(bytes(_block("rows")), 1)
    return Loop(MACROBLOCK_BYTES, lambda: kernel.zstd_decompress(stored, MACROBLOCK_BYTES))


def _palf_walk(_source: Path) -> Loop:
    log = palf_log(_LOG_BYTES)
    if kernel.palf_walk(log, 0).end_lsn != len(log):
        raise ValueError("the log made for this benchmark does not verify")
    return Loop(len(log), lambda: kernel.palf_walk(log, 0))


def _frame(kind: str, compression: str) -> Callable[[Path], Loop]:
    def make(_source: Path) -> Loop:
        block, policy = _block(kind), Compression.parse(compression)
        prefix = macro_prefix(block_meta(block_image(0, block).identity).pack(), len(block))
        order = Order.SAMPLE if policy.mode == "auto" else Order.COMPRESS
        part = bytearray(FRAME_ROOM)

        def call() -> None:
            kernel.pack_frames(
                part,
                0,
                [(prefix, block, order)],
                MACRO_SUFFIX,
                compressor=policy.compressor,
                level=policy.level,
                keep_permille=policy.keep_permille,
            )

        return Loop(len(block), call)

    return make


def _unframe(kind: str, compression: str) -> Callable[[Path], Loop]:
    """The way back, as a restore goes it: verified, decompressed or copied, digested."""

    def make(_source: Path) -> Loop:
        block, policy = _block(kind), Compression.parse(compression)
        prefix, part = (
            macro_prefix(block_meta(block_image(0, block).identity).pack(), len(block)),
            bytearray(FRAME_ROOM),
        )
        choice = {"compressor": policy.compressor, "level": policy.level, "keep_permille": policy.keep_permille}
        (frame,) = kernel.pack_frames(part, 0, [(prefix, block, Order.COMPRESS)], MACRO_SUFFIX, **choice)
        row = kernel.Expected(0, frame.length, prefix, len(block), kernel.xxh3_128(block), engine_check=True)
        slab = memoryview(bytearray(kernel.UNPACK_SLAB))

        def call() -> None:
            opened = {"open_from": PREFIX_OPEN[0], "open_until": PREFIX_OPEN[1]}
            if any(kernel.unpack_frames(part, [row], slab, MACRO_SUFFIX, keep=True, **opened)):
                raise ValueError("the frame made for this benchmark does not verify")

        return Loop(len(block), call)

    return make


def _sealing() -> tuple[Sealing, Opening]:
    key, place = DataKey.random(), Place("seekdb/1/incarnation_1/bench/macro_block_1", anywhere=True)
    return Sealing(Sealer(key), place), Opening(Keys({key.id: key}), place)


def _encrypted_frame(_source: Path) -> Loop:
    """As a lane packs it: framed, and encrypted where it is."""
    block = _block("engine")
    prefix = macro_prefix(block_meta(block_image(0, block).identity).pack(), len(block))
    part, (sealing, _) = memoryview(bytearray(FRAME_ROOM)), _sealing()

    def call() -> None:
        work = [(prefix, block, Order.KEEP)]
        (frame,) = kernel.pack_frames(part, 0, work, MACRO_SUFFIX, compressor=1, level=1, keep_permille=1000)
        sealing.in_place(part, 0, frame)

    return Loop(len(block), call)


def _decrypted(_source: Path) -> Loop:
    """A sealed piece of the size of a block, decrypted to another place so that it can be again."""
    block, (sealing, opening) = _block("engine"), _sealing()
    sealed, out = memoryview(sealing.sealer.seal(block, b"")), memoryview(bytearray(len(block)))
    return Loop(len(block), lambda: opening.keys.open_into(sealed, out, b""))


def _clog_file(source: Path) -> tuple[int, memoryview, int]:
    """An open file of clog beside the blocks, memory of a window, and the file's size."""
    path = source.with_name("clog")
    if not path.exists():
        write_clog(path, _CLOG_BYTES)
    fd = os.open(path, os.O_RDONLY)
    return fd, memoryview(mmap.mmap(-1, _CLOG_BYTES + MACROBLOCK_BYTES)), os.fstat(fd).st_size


def _clog_read_and_walk(source: Path) -> Loop:
    """What every byte of an observer's log goes through before it is split by PG."""
    fd, window, size = _clog_file(source)

    def call() -> None:
        os.preadv(fd, [window[:size]], 0)
        if kernel.clog_walk(window[:size]).end != size:
            raise ValueError("the log made for this benchmark does not verify")

    return Loop(size, call)


def _clog_read_and_crc(source: Path) -> Loop:
    """The least that anybody who looks at the log does: a plain read and a CRC-32C of another library."""
    fd, _, size = _clog_file(source)

    def call() -> None:
        google_crc32c.value(os.pread(fd, size, 0))  # it takes nothing but bytes

    return Loop(size, call)


def _verify_and_digest(source: Path) -> Loop:
    """What every block goes through: read, the engine's checksum, our digest."""
    file, slab = BlockFile(source), memoryview(mmap.mmap(-1, MACROBLOCK_BYTES))
    count = file.block_count()

    def call() -> None:
        for index in range(count):
            file.read_into(index, slab)
            if not kernel.macroblock_check(slab).ok:
                raise ValueError(f"block {index} made for this benchmark does not verify")
            kernel.xxh3_128(slab)

    return Loop(count * MACROBLOCK_BYTES, call)


def _read_and_xxh3(source: Path) -> Loop:
    """The least that anybody who looks at the bytes does: a plain read and one fast digest of another library."""
    fd, slab = os.open(source, os.O_RDONLY), memoryview(mmap.mmap(-1, MACROBLOCK_BYTES))
    count = os.fstat(fd).st_size // MACROBLOCK_BYTES

    def call() -> None:
        for index in range(count):
            os.preadv(fd, [slab], index * MACROBLOCK_BYTES)
            xxhash.xxh3_128_digest(slab)

    return Loop(count * MACROBLOCK_BYTES, call)


LOOPS: dict[str, Callable[[Path], Loop]] = {
    "ob_crc64": _over_block(kernel.ob_crc64),
    "xxh3_128": _over_block(kernel.xxh3_128),
    "macroblock_check": _over_block(kernel.macroblock_check),
    "palf_walk": _palf_walk,
    "clog, read and walk": _clog_read_and_walk,
    "zstd -1, rows": _codec("rows", lambda data: kernel.zstd_compress(data, -1)),
    "zstd 1, rows": _codec("rows", lambda data: kernel.zstd_compress(data, 1)),
    "zstd 3, rows": _codec("rows", lambda data: kernel.zstd_compress(data, 3)),
    "zstd decompress, rows": _zstd_decompress,
    "lz4, rows": _codec("rows", kernel.lz4_compress),
    "frame, engine, auto": _frame("engine", "auto"),
    "frame, rows, zstd:1": _frame("rows", "zstd:1"),
    "unframe, engine, none": _unframe("engine", "none"),
    "unframe, rows, zstd:1": _unframe("rows", "zstd:1"),
    "encrypt, frame, engine": _encrypted_frame,
    "decrypt": _decrypted,
    "read, verify, digest": _verify_and_digest,
}
PEER_LOOPS: dict[str, Callable[[Path], Loop]] = {
    "read, xxh3_128 of the xxhash package": _read_and_xxh3,
    "read, CRC-32C of google-crc32c": _clog_read_and_crc,
}
SOURCE_BLOCKS = 8
