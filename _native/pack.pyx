"""Framing of macroblocks. The contract is that of the twin, ``mover/kernel/_pack_py.py``."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from crc32c cimport mover_crc32c, mover_crc_setup
from liblz4 cimport LZ4_compress_default
from libzstd cimport (
    ZSTD_CCtx,
    ZSTD_compressCCtx,
    ZSTD_isError,
    mover_zstd_compressor,
    mover_zstd_scratch,
    mover_zstd_setup,
)
from wire cimport store_le16, store_le32, store_le64

from mover.kernel.limits import check_level
from mover.kernel.pack import FRAME_ALIGN, HEADER_SIZE, SAMPLE_BYTES, SAMPLE_PERMILLE, Order, PackedFrame

mover_crc_setup()
if mover_zstd_setup() != 0:
    raise MemoryError("no thread-specific key left for zstd contexts")

cdef enum:
    ALIGN = 4096
    HEADER = 48
    MACRO_DATA = 1
    VERSION = 1
    NONE = 1
    LZ4 = 2
    ZSTD = 8
    KEEP = 0
    COMPRESS = 1
    TILE = 128 << 10  # copied and summed while it is in the second-level cache

assert (ALIGN, HEADER) == (FRAME_ALIGN, HEADER_SIZE)
assert (KEEP, COMPRESS) == (Order.KEEP, Order.COMPRESS)

cdef size_t SAMPLE = SAMPLE_BYTES
cdef size_t SAMPLE_LIMIT = SAMPLE_BYTES * SAMPLE_PERMILLE // 1000

cdef struct Block:
    Py_buffer prefix
    Py_buffer data
    int order

cdef struct Frame:
    size_t length
    size_t stored
    int compressor

cdef struct Choice:
    int compressor
    int level
    size_t keep_permille
    const uint8_t *suffix
    size_t suffix_size


cdef inline uint64_t fold(uint64_t value) noexcept nogil:
    return value ^ value >> 16 ^ value >> 32 ^ value >> 48


cdef void write_header(uint8_t *out, int kind, size_t raw, size_t stored, uint32_t crc, size_t align) noexcept nogil:
    cdef uint64_t folded = VERSION ^ kind ^ MACRO_DATA ^ HEADER
    folded ^= fold(raw) ^ fold(stored) ^ fold(crc) ^ fold(align)
    out = store_le16(out, MACRO_DATA)
    out = store_le16(out, VERSION)
    out = store_le16(out, 1)
    out = store_le16(out, <uint16_t>kind)
    out = store_le16(out, HEADER)
    out = store_le16(out, <uint16_t>folded)
    out = store_le32(out, 0)
    out = store_le64(out, raw)
    out = store_le64(out, stored)
    out = store_le64(out, crc)
    store_le64(out, align)


cdef bint promising(ZSTD_CCtx *context, uint8_t *out, const Block *block) noexcept nogil:
    """Judged with ``out`` as scratch: a frame of the whole block fits there."""
    cdef size_t size = <size_t>block.data.len
    cdef size_t got
    if size <= 4 * SAMPLE:
        return True
    got = ZSTD_compressCCtx(context, out, SAMPLE_LIMIT, <const uint8_t *>block.data.buf + size // 2, SAMPLE, 1)
    return not ZSTD_isError(got)


cdef size_t compressed(
    ZSTD_CCtx *context, uint8_t *scratch, uint8_t *out, const Block *block, const Choice *choice, size_t raw
) noexcept nogil:
    """Compress the payload to ``out``; its size, or 0 when that does not pay."""
    # Less than the share that pays, so that neither library writes what is thrown away.
    cdef size_t room = raw * choice.keep_permille // 1000
    cdef size_t at = <size_t>block.prefix.len
    cdef size_t got
    if room < 2:
        return 0
    room -= 1
    memcpy(scratch, block.prefix.buf, at)
    memcpy(scratch + at, block.data.buf, <size_t>block.data.len)
    memcpy(scratch + at + block.data.len, choice.suffix, choice.suffix_size)
    if choice.compressor == ZSTD:
        got = ZSTD_compressCCtx(context, out, room, scratch, raw, choice.level)
        return 0 if ZSTD_isError(got) else got
    return <size_t>LZ4_compress_default(<const char *>scratch, <char *>out, <int>raw, <int>room)


cdef uint32_t kept(uint8_t *out, const Block *block, const Choice *choice) noexcept nogil:
    """Copy the payload to ``out``; its checksum."""
    cdef const uint8_t *data = <const uint8_t *>block.data.buf
    cdef size_t left = <size_t>block.data.len
    cdef size_t step
    cdef uint32_t crc
    memcpy(out, block.prefix.buf, <size_t>block.prefix.len)
    crc = mover_crc32c(0, out, <size_t>block.prefix.len)
    out += block.prefix.len
    while left:
        step = left if left < TILE else <size_t>TILE
        memcpy(out, data, step)
        crc = mover_crc32c(crc, data, step)
        out += step
        data += step
        left -= step
    memcpy(out, choice.suffix, choice.suffix_size)
    return mover_crc32c(crc, choice.suffix, choice.suffix_size)


cdef Py_ssize_t pack(
    uint8_t *out, size_t room, const Block *blocks, Py_ssize_t count, const Choice *choice, Frame *frames
) noexcept nogil:
    """How many blocks were framed; -1 without memory."""
    cdef ZSTD_CCtx *context = NULL
    cdef uint8_t *scratch = NULL
    cdef const Block *block
    cdef Frame *frame
    cdef uint32_t crc
    cdef size_t raw, end, needed
    cdef Py_ssize_t i
    for i in range(count):
        block = &blocks[i]
        frame = &frames[i]
        raw = <size_t>(block.prefix.len + block.data.len) + choice.suffix_size
        needed = (HEADER + raw + ALIGN - 1) // ALIGN * ALIGN
        if needed > room:
            return i
        frame.stored = 0
        if choice.compressor != NONE and block.order != KEEP:
            if context == NULL:
                context = mover_zstd_compressor()
                if context == NULL:
                    return -1
            if block.order == COMPRESS or promising(context, out, block):
                scratch = <uint8_t *>mover_zstd_scratch(raw)
                if scratch == NULL:
                    return -1
                frame.stored = compressed(context, scratch, out + HEADER, block, choice, raw)
        if frame.stored:
            frame.compressor = choice.compressor
            crc = mover_crc32c(0, out + HEADER, frame.stored)
        else:
            frame.compressor = NONE
            frame.stored = raw
            crc = kept(out + HEADER, block, choice)
        end = HEADER + frame.stored
        frame.length = (end + ALIGN - 1) // ALIGN * ALIGN
        memset(out + end, 0, frame.length - end)
        write_header(out, frame.compressor, raw, frame.stored, crc, frame.length - end)
        out += frame.length
        room -= frame.length
    return count


def pack_frames(out, start, blocks, suffix, *, compressor, level, keep_permille):
    check_level(level)
    cdef Py_buffer target
    cdef Py_buffer ending
    cdef Choice choice
    cdef Py_ssize_t count = len(blocks)
    cdef Py_ssize_t held = 0
    cdef Py_ssize_t done, i
    cdef Py_ssize_t begin = start
    cdef Block *work = NULL
    cdef Frame *frames = NULL
    if compressor not in (NONE, LZ4, ZSTD):
        raise ValueError(f"compressor {compressor} is not 1, 2 or 8")
    PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
    try:
        if begin % ALIGN or not 0 <= begin <= target.len:
            raise ValueError(f"offset {start} is not a place for a frame in {target.len} bytes")
        PyObject_GetBuffer(suffix, &ending, PyBUF_SIMPLE)
        try:
            work = <Block *>malloc((count + 1) * sizeof(Block))
            frames = <Frame *>malloc((count + 1) * sizeof(Frame))
            if work == NULL or frames == NULL:
                raise MemoryError
            for prefix, data, order in blocks:
                PyObject_GetBuffer(prefix, &work[held].prefix, PyBUF_SIMPLE)
                try:
                    PyObject_GetBuffer(data, &work[held].data, PyBUF_SIMPLE)
                except BaseException:
                    PyBuffer_Release(&work[held].prefix)
                    raise
                work[held].order = order
                held += 1
            choice.compressor = compressor
            choice.level = level
            choice.keep_permille = keep_permille
            choice.suffix = <const uint8_t *>ending.buf
            choice.suffix_size = <size_t>ending.len
            with nogil:
                done = pack(<uint8_t *>target.buf + begin, <size_t>(target.len - begin), work, held, &choice, frames)
            if done < 0:
                raise MemoryError("no memory to compress in")
            return [PackedFrame(frames[i].length, frames[i].stored, frames[i].compressor) for i in range(done)]
        finally:
            for i in range(held):
                PyBuffer_Release(&work[i].prefix)
                PyBuffer_Release(&work[i].data)
            free(work)
            free(frames)
            PyBuffer_Release(&ending)
    finally:
        PyBuffer_Release(&target)
