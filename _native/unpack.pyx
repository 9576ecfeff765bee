"""Frames back to macroblocks. The contract is that of the twin, ``mover/kernel/_unpack_py.py``."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from crc32c cimport mover_crc32c, mover_crc_join, mover_crc_setup
from liblz4 cimport LZ4_decompress_safe
from libzstd cimport (
    ZSTD_CONTENTSIZE_UNKNOWN,
    ZSTD_DCtx,
    ZSTD_decompressDCtx,
    ZSTD_findFrameCompressedSize,
    ZSTD_getFrameContentSize,
    ZSTD_isError,
    mover_zstd_decompressor,
    mover_zstd_setup,
)
from macro_check cimport COMMON_HEADER, UNSUMMED, UNUSED, VALID, Macro, MacroVerdict, check_headers
from wire cimport content_end, load_le16, load_le32, load_le64
from xxhash3 cimport XXH128_canonical_t, XXH128_canonicalFromHash, mover_xxh3, mover_xxh3_setup

from mover.kernel import unpack
from mover.kernel.macroblock import MACROBLOCK_BYTES
from mover.kernel.pack import FRAME_ALIGN

mover_crc_setup()
mover_xxh3_setup()
if mover_zstd_setup() != 0:
    raise MemoryError("no thread-specific key left for zstd contexts")

cdef enum:
    ALIGN = 4096
    HEADER = 48
    MACRO_DATA = 1
    NONE = 1
    LZ4 = 2
    ZSTD_PLAIN = 5
    ZSTD = 8
    LZ4_191 = 10
    BLOCK = 2 << 20
    FRAME = 4 << 20
    HEAD = 4096
    SLAB = HEAD + BLOCK + 4096
    PREFIX_BYTES = 80
    DIGEST_BYTES = 16

cdef enum Verdict:
    GOOD
    PLACE
    BAD_HEADER
    CHECKSUM
    PADDING
    CODEC
    PREFIX
    DIGEST
    ENGINE

assert (ALIGN, HEADER, MACRO_DATA) == (FRAME_ALIGN, unpack.FRAME_HEADER.size, unpack.FRAME_TYPE)
assert (NONE, (LZ4, LZ4_191)) == (unpack.COMPRESSOR_NONE, unpack.COMPRESSORS_LZ4)
assert (ZSTD_PLAIN, ZSTD) == unpack.COMPRESSORS_ZSTD
assert (BLOCK, HEAD, SLAB) == (MACROBLOCK_BYTES, unpack.UNPACK_HEAD, unpack.UNPACK_SLAB)
assert (FRAME, PREFIX_BYTES) == (unpack.MAX_FRAME, unpack.PREFIX_ROOM)
assert ENGINE == max(unpack.Verdict)

cdef struct Row:
    int64_t offset, length, used
    bint engine_check
    size_t prefix_size
    uint8_t digest[DIGEST_BYTES]
    uint8_t prefix[PREFIX_BYTES]

cdef struct Common:
    const uint8_t *data
    int64_t size
    const uint8_t *suffix
    size_t suffix_size, open_from, open_until
    ZSTD_DCtx *zstd
    bint keep

cdef struct Header:
    int compressor
    size_t stored, align
    uint32_t crc


cdef inline uint64_t fold(uint64_t value) noexcept nogil:
    return value ^ value >> 16 ^ value >> 32 ^ value >> 48


cdef bint read_header(const uint8_t *p, const Row *row, size_t raw_length, Header *out) noexcept nogil:
    """Whether these 48 bytes are the header of such a frame; out then fits its length."""
    cdef uint64_t raw = load_le64(p + 16), stored = load_le64(p + 24)
    cdef uint64_t crc = load_le64(p + 32), align = load_le64(p + 40)
    cdef uint64_t compressor = load_le16(p + 6)
    cdef uint64_t room = <uint64_t>row.length - HEADER
    cdef uint64_t folded = MACRO_DATA ^ 1 ^ HEADER
    if load_le16(p) != MACRO_DATA or load_le16(p + 2) != 1 or load_le16(p + 4) != 1 or load_le16(p + 8) != HEADER:
        return False
    folded ^= compressor ^ fold(raw) ^ fold(stored) ^ fold(crc) ^ fold(align)
    if load_le16(p + 10) != (folded & 0xFFFF):
        return False
    if load_le32(p + 12) != 0 or raw != raw_length or crc >> 32 != 0:
        return False
    if compressor == NONE:
        if stored != raw:
            return False
    elif compressor != LZ4 and compressor != LZ4_191 and compressor != ZSTD and compressor != ZSTD_PLAIN:
        return False
    if stored > room or align >= ALIGN or stored + align != room or <uint64_t>row.length % ALIGN != 0:
        return False
    out.compressor = <int>compressor
    out.stored = stored
    out.align = align
    out.crc = <uint32_t>crc
    return True


cdef bint decompress(
    const Common *common, const Header *header, const uint8_t *stored, uint8_t *out, size_t raw
) noexcept nogil:
    """Whether ``stored`` is exactly one frame or block of ``raw`` bytes, which then are in ``out``."""
    cdef unsigned long long claimed
    cdef size_t got
    if header.compressor == LZ4 or header.compressor == LZ4_191:
        return LZ4_decompress_safe(<const char *>stored, <char *>out, <int>header.stored, <int>raw) == <int>raw
    if header.stored < 4 or memcmp(stored, b"\x28\xb5\x2f\xfd", 4) != 0:
        return False
    claimed = ZSTD_getFrameContentSize(stored, header.stored)
    if claimed != raw and claimed != ZSTD_CONTENTSIZE_UNKNOWN:
        return False
    if ZSTD_findFrameCompressedSize(stored, header.stored) != header.stored:
        return False
    got = ZSTD_decompressDCtx(common.zstd, out, raw, stored, header.stored)
    return not ZSTD_isError(got) and got == raw


cdef bint surrounded(const Common *common, const Row *row, const uint8_t *payload) noexcept nogil:
    """Whether prefix and suffix are those of the block that is expected."""
    cdef size_t low = min(common.open_from, row.prefix_size)
    cdef size_t high = min(common.open_until, row.prefix_size)
    return (
        memcmp(payload, row.prefix, low) == 0
        and memcmp(payload + high, row.prefix + high, row.prefix_size - high) == 0
        and memcmp(payload + row.prefix_size + row.used, common.suffix, common.suffix_size) == 0
    )


cdef Verdict unpack_one(const Common *common, const Row *row, uint8_t *slab) noexcept nogil:
    cdef const uint8_t *frame
    cdef const uint8_t *payload
    cdef const uint8_t *block
    cdef size_t raw, used, rest
    cdef uint32_t crc, engine = 0
    cdef Header header
    cdef Macro macro
    cdef MacroVerdict checked = VALID
    cdef XXH128_canonical_t digest
    if not HEADER <= row.length <= FRAME or not 0 <= row.offset <= common.size - row.length:
        return PLACE
    if not 0 <= row.used <= BLOCK:
        return PLACE
    used = <size_t>row.used
    raw = row.prefix_size + used + common.suffix_size
    frame = common.data + row.offset
    if not read_header(frame, row, raw, &header):
        return BAD_HEADER
    payload = frame + HEADER
    if header.compressor == NONE and row.engine_check:
        # The engine's checksum is over a part of what ours is over: each byte is summed once, and the sums are joined.
        block = payload + row.prefix_size
        checked = check_headers(block, used, &macro)
        if checked == UNSUMMED:
            engine = mover_crc32c(0, block + COMMON_HEADER, <size_t>macro.payload_size)
            rest = row.prefix_size + COMMON_HEADER
            crc = mover_crc_join(mover_crc32c(0, payload, rest), engine, <size_t>macro.payload_size)
            rest += <size_t>macro.payload_size
            crc = mover_crc32c(crc, payload + rest, raw - rest)
        else:
            crc = mover_crc32c(0, payload, raw)
    else:
        crc = mover_crc32c(0, payload, header.stored)
    if crc != header.crc:
        return CHECKSUM
    if content_end(payload + header.stored, header.align) != 0:
        return PADDING
    if header.compressor != NONE:
        if not decompress(common, &header, payload, slab + HEAD - row.prefix_size, raw):
            return CODEC
        payload = slab + HEAD - row.prefix_size
        if row.engine_check:
            checked = check_headers(slab + HEAD, used, &macro)
            if checked == UNSUMMED:
                engine = mover_crc32c(0, slab + HEAD + COMMON_HEADER, <size_t>macro.payload_size)
    if not surrounded(common, row, payload):
        return PREFIX
    block = payload + row.prefix_size
    XXH128_canonicalFromHash(&digest, mover_xxh3(block, used))
    if memcmp(digest.digest, row.digest, DIGEST_BYTES) != 0:
        return DIGEST
    if checked == UNSUMMED:
        if engine != macro.payload_checksum:
            return ENGINE
    elif checked != VALID and checked != UNUSED:
        return ENGINE
    if common.keep:
        if header.compressor == NONE:
            memcpy(slab + HEAD, block, used)
        memset(slab + HEAD + used, 0, -used % ALIGN)
    return GOOD


def unpack_frames(data, frames, slabs, suffix, *, open_from, open_until, keep):
    cdef Py_buffer source, out
    cdef Common common
    cdef Row *rows
    cdef bytes tail = suffix, prefix, digest
    cdef Py_ssize_t count, i
    cdef uint8_t *verdicts
    cdef uint8_t *slab
    frames = list(frames)
    count = len(frames)
    PyObject_GetBuffer(slabs, &out, PyBUF_WRITABLE)
    try:
        unpack.check_sizes(frames, out.len, tail, open_from, open_until, keep)
        common.suffix, common.suffix_size = <const uint8_t *>PyBytes_AS_STRING(tail), <size_t>len(tail)
        common.open_from, common.open_until, common.keep = open_from, open_until, keep
        common.zstd = mover_zstd_decompressor()
        rows = <Row *>PyMem_Malloc(max(count, 1) * sizeof(Row))
        if rows == NULL or common.zstd == NULL:
            PyMem_Free(rows)
            raise MemoryError
        try:
            for i in range(count):
                rows[i].offset, rows[i].length, prefix, rows[i].used, digest, rows[i].engine_check = frames[i]
                rows[i].prefix_size = <size_t>len(prefix)
                memcpy(rows[i].prefix, PyBytes_AS_STRING(prefix), rows[i].prefix_size)
                memcpy(rows[i].digest, PyBytes_AS_STRING(digest), DIGEST_BYTES)
            found = PyBytes_FromStringAndSize(NULL, count)
            verdicts = <uint8_t *>PyBytes_AS_STRING(found)
            PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
            try:
                common.data, common.size = <const uint8_t *>source.buf, source.len
                with nogil:
                    for i in range(count):
                        slab = <uint8_t *>out.buf + (i * SLAB if common.keep else 0)
                        verdicts[i] = <uint8_t>unpack_one(&common, &rows[i], slab)
            finally:
                PyBuffer_Release(&source)
            return found
        finally:
            PyMem_Free(rows)
    finally:
        PyBuffer_Release(&out)


def _crc_join(first, second, length):
    """The checksum of two runs of bytes behind each other, from that of each; here for the tests."""
    return mover_crc_join(first, second, length)
