"""The headers of one macroblock: what ``macroblock_check`` says, and what ``unpack_frames`` asks of a block."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from wire cimport content_end, load_le16, load_le32, load_le64

cdef enum:
    COMMON_HEADER = 24
    COMMON_MAGIC = 1001
    COMMON_VERSION = 1
    SSTABLE_HEADER = 88
    SSTABLE_MAGIC = 1007
    SSTABLE_VERSION = 2
    COMPRESSOR_AT = 88  # in the sstable header, where that is long enough
    COMPRESSOR_END = 92
    COMPRESSOR_NONE = 1
    KIND_SSTABLE_DATA = 1
    KIND_LINKED = 2

cdef enum MacroVerdict:
    VALID
    UNUSED
    TOO_SHORT
    BAD_MAGIC
    BAD_HEADER
    BAD_SIZE
    SMALL_SSTABLE
    BAD_SSTABLE
    BAD_CHECKSUM
    UNSUMMED  # valid if the CRC of the payload is payload_checksum

cdef struct Macro:
    int32_t header_size, version, magic, kind, payload_size
    uint32_t payload_checksum, actual
    uint32_t sstable_magic, sstable_version
    size_t used
    uint64_t tablet_id
    int64_t logical_version, data_seq, data_checksum
    int32_t compressor  # 0 = not stated


cdef inline MacroVerdict check_headers(const uint8_t *block, size_t size, Macro *out) noexcept nogil:
    """Everything but the checksum, whose payload begins at COMMON_HEADER and lies inside the block."""
    cdef const uint8_t *payload = block + COMMON_HEADER
    cdef bint exact
    cdef uint32_t header_size
    out.compressor = 0
    if size < COMMON_HEADER:
        return TOO_SHORT
    if content_end(block, COMMON_HEADER) == 0:
        return UNUSED
    out.header_size = <int32_t>load_le32(block)
    out.version = <int32_t>load_le32(block + 4)
    out.magic = <int32_t>load_le32(block + 8)
    out.kind = <int32_t>load_le32(block + 12)
    out.payload_size = <int32_t>load_le32(block + 16)
    out.payload_checksum = load_le32(block + 20)
    if out.magic != COMMON_MAGIC:
        return BAD_MAGIC
    if out.header_size != COMMON_HEADER or out.version != COMMON_VERSION or not 0 < out.kind < 256:
        return BAD_HEADER
    exact = out.kind == KIND_SSTABLE_DATA or out.kind == KIND_LINKED
    if not exact:
        out.used = content_end(block, size)
        if out.payload_size == 0:
            return VALID
    if out.payload_size <= 0 or <size_t>out.payload_size > size - COMMON_HEADER:
        out.used = 0
        return BAD_SIZE
    if exact:
        out.used = COMMON_HEADER + <size_t>out.payload_size
    if out.kind == KIND_SSTABLE_DATA:
        if out.payload_size < SSTABLE_HEADER:
            return SMALL_SSTABLE
        out.sstable_version = load_le16(payload + 4)
        out.sstable_magic = load_le16(payload + 6)
        out.tablet_id = load_le64(payload + 8)
        out.logical_version = <int64_t>load_le64(payload + 16)
        out.data_seq = <int64_t>load_le64(payload + 24)
        out.data_checksum = <int64_t>load_le64(payload + 80)
        if out.sstable_magic != SSTABLE_MAGIC or out.sstable_version != SSTABLE_VERSION:
            return BAD_SSTABLE
        header_size = load_le32(payload)
        if COMPRESSOR_END <= header_size <= <uint32_t>out.payload_size:
            out.compressor = <int32_t>load_le32(payload + COMPRESSOR_AT)
    return UNSUMMED
