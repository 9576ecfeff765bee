"""Decoders given buffers that end at a page nobody may read: one byte too far is a crash."""

import ctypes
import mmap
import random
import struct

import pytest
import xxhash
from palf_log import LogWriter
from twins import NATIVE, PURE

from mover.errors import MoverError
from mover.kernel import UNPACK_SLAB, Expected, Verdict
from mover.media.frames import frame, padding
from mover.media.header import Compressor, DataType

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Guarded:
    """``view(data)``: a buffer that holds ``data`` and ends where memory does."""

    def __init__(self, room: int) -> None:
        self.room = -(-room // PAGE) * PAGE
        private_anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.base = _libc.mmap(None, self.room + PAGE, mmap.PROT_READ | mmap.PROT_WRITE, private_anonymous, -1, 0)
        assert self.base not in (None, ctypes.c_void_p(-1).value)
        assert _libc.mprotect(self.base + self.room, PAGE, 0) == 0

    def view(self, data: bytes | bytearray) -> memoryview:
        start = self.base + self.room - len(data)
        ctypes.memmove(start, bytes(data), len(data))
        return memoryview((ctypes.c_ubyte * len(data)).from_address(start)).cast("B")

    def close(self) -> None:
        _libc.munmap(self.base, self.room + PAGE)


@pytest.fixture(scope="module")
def guarded():
    memory = Guarded(1 << 16)
    yield memory
    memory.close()


def _samples() -> dict[str, bytes]:
    log = LogWriter()
    for n in range(4):
        log.group([(n + 1, bytes([n + 1]) * 90), (n + 1, b"z" * 600)])
    walk = PURE.palf_walk(bytes(log.data), 0)
    payload = PURE.framed(bytes(log.data), 0, walk.groups, bytes(16), 1, 0, bytes(48))[0]
    macro = struct.pack("<IHHQqq12iq", 100, 2, 1007, 1, 2, 3, *range(12), 4) + b"rows" * 100
    macro = struct.pack("<iiiiiI", 24, 1, 1001, 1, len(macro), PURE.ob_crc64(macro)) + macro
    text = b"mover " * 300
    return {
        "palf_walk": bytes(log.data),
        "palf_unframe": payload,
        "macroblock_check": macro,
        "zstd_decompress": PURE.zstd_compress(text, 1),
        "lz4_decompress": PURE.lz4_compress(text),
        "decode_vi64": b"\xff" * 9 + b"\x01",
    }


ARGUMENTS = {
    "palf_walk": (0,),
    "palf_unframe": (),
    "macroblock_check": (),
    "zstd_decompress": (1800,),
    "lz4_decompress": (1800,),
    "decode_vi64": (0,),
}


@pytest.mark.skipif(NATIVE is None, reason="the extension is not built")
@pytest.mark.parametrize("name", ARGUMENTS)
def test_no_decoder_reads_behind_its_buffer(name, guarded):
    sample = _samples()[name]
    call = getattr(NATIVE, name)
    rng = random.Random(name)

    def attempt(data: bytes) -> None:
        try:
            call(guarded.view(data), *ARGUMENTS[name])
        except MoverError:
            pass

    attempt(sample)
    for cut in range(0, len(sample), max(1, len(sample) // 400)):
        attempt(sample[:cut])
    for _ in range(1500):
        data = bytearray(sample)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(min(len(data), 160) if rng.random() < 0.7 else len(data))] = rng.choice(
                [0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)]
            )
        attempt(bytes(data[: rng.randrange(len(data)) + 1] if rng.random() < 0.5 else data))


@pytest.mark.skipif(NATIVE is None, reason="the extension is not built")
def test_lengths_that_pass_the_header_checks_are_still_bounded(guarded):
    """Sizes that reach for the end of the buffer and beyond, under header checks that match."""
    group = LogWriter().group([(1, b"a" * 90), (2, b"z" * 60)])
    for at, layout, image in ((0, ">HhiQQQQQ", "<HhiQQQQQ"), (48, ">HhiQQQ", "<HhiQQQ")):
        fields = list(struct.unpack_from(layout, group, at))
        for size in [*range(-2, 300), 1 << 16, 1 << 26, 2**31 - 1, -(2**31)]:
            fields[2] = size
            fields[-1] &= ~0xFFFF
            check = xxhash.xxh64_intdigest(struct.pack(image, *fields)) & 0xFFFF
            data = bytearray(group)
            struct.pack_into(layout, data, at, *fields[:-1], fields[-1] | check)
            assert NATIVE.palf_walk(guarded.view(data), 0) == PURE.palf_walk(data, 0)


@pytest.mark.skipif(NATIVE is None, reason="the extension is not built")
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 767, 768, 769, 24_576, 24_577])
def test_checksums_stay_inside(size, guarded):
    data = random.Random(size).randbytes(size)
    assert NATIVE.ob_crc64(guarded.view(data)) == PURE.ob_crc64(data)
    assert NATIVE.xxh3_128(guarded.view(data)) == PURE.xxh3_128(data)


@pytest.mark.skipif(NATIVE is None, reason="the extension is not built")
@pytest.mark.parametrize("kind", [7, 8])
@pytest.mark.parametrize("size", [24, 25, 39, 40, 41, 4096, 4097, 65_536])
def test_content_end_stays_inside(kind, size, guarded):
    block = struct.pack("<iiiiii", 24, 1, 1001, kind, 0, 0).ljust(size, b"\0")
    assert NATIVE.macroblock_check(guarded.view(block)) == PURE.macroblock_check(block)


@pytest.mark.skipif(NATIVE is None, reason="the extension is not built")
@pytest.mark.parametrize("kind", [Compressor.NONE, Compressor.LZ4, Compressor.ZSTD_1_3_8])
def test_unpacking_stays_inside(kind, guarded):
    """Frames without padding behind them, damaged under checksums that hold."""
    rng = random.Random(kind)

    def payload_of(size: int) -> bytes:
        head = struct.pack("<IHHQqq12iq", 100, 2, 1007, 1, 2, 3, *range(12), 4)
        body = head + rng.randbytes(size - len(head))
        return struct.pack("<iiiiiI", 24, 1, 1001, 1, len(body), PURE.ob_crc64(body)) + body

    def stored_of(raw: bytes) -> bytes:
        if kind == Compressor.NONE:
            return raw
        return PURE.lz4_compress(raw) if kind == Compressor.LZ4 else PURE.zstd_compress(raw, 1)

    blocks = (payload_of(size) for size in range(12_000, 17_000))
    block = next(block for block in blocks if padding(48 + len(stored_of(block + b"\0"))) == 0)
    stored, slab = bytearray(stored_of(block + b"\0")), bytearray(UNPACK_SLAB)

    def verdict(payload: bytes) -> int:
        data = frame(DataType.MACRO_DATA, payload, compressor=kind, raw_length=len(block) + 1)
        row = Expected(0, len(data), b"", len(block), PURE.xxh3_128(block), True)
        options = {"open_from": 0, "open_until": 0, "keep": True}
        given = guarded.view(data)
        found = NATIVE.unpack_frames(given, [row], slab, b"\0", **options)
        assert found == PURE.unpack_frames(data, [row], slab, b"\0", **options)
        return found[0]

    assert verdict(bytes(stored)) == Verdict.GOOD
    for _ in range(300):
        damaged = bytearray(stored)
        for _ in range(rng.randrange(1, 4)):
            where = rng.choice([rng.randrange(40), rng.randrange(len(damaged)), rng.randrange(-40, 0)])
            damaged[where] = rng.choice([0, 0xFF, rng.randrange(256)])
        assert (verdict(bytes(damaged)) == Verdict.GOOD) == (damaged == stored)
