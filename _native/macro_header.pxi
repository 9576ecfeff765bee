# The whole check, and its verdict as the Python object: included by the modules that hand one out.

from crc32c cimport mover_crc32c
from libc.stdint cimport uint8_t
from macro_check cimport (
    BAD_CHECKSUM,
    BAD_HEADER,
    BAD_MAGIC,
    BAD_SIZE,
    BAD_SSTABLE,
    COMMON_HEADER,
    COMMON_MAGIC,
    COMPRESSOR_NONE,
    SMALL_SSTABLE,
    TOO_SHORT,
    UNSUMMED,
    UNUSED,
    VALID,
    Macro,
    MacroVerdict,
    check_headers,
)

from mover.kernel.macroblock import MacroHeader


cdef MacroVerdict check_macro(const uint8_t *block, size_t size, Macro *out) noexcept nogil:
    cdef MacroVerdict verdict = check_headers(block, size, out)
    if verdict != UNSUMMED:
        return verdict
    out.actual = mover_crc32c(0, block + COMMON_HEADER, <size_t>out.payload_size)
    return VALID if out.actual == out.payload_checksum else BAD_CHECKSUM


cdef object macro_header(MacroVerdict verdict, const Macro *found, Py_ssize_t size):
    """``size`` is that of the block. ``found`` was zero before the check."""
    cdef Macro m = found[0]
    if verdict == UNUSED:
        return MacroHeader(0, 0, 0, 0, 0, 0, 0, 0, True, "")
    if verdict == TOO_SHORT:
        reason = f"{size} bytes are too short for a macroblock header"
        return MacroHeader(0, 0, 0, 0, 0, 0, 0, 0, False, reason)
    if verdict == BAD_MAGIC:
        return MacroHeader(0, 0, 0, 0, 0, 0, 0, 0, False, f"header magic is {m.magic}, not {COMMON_MAGIC}")
    if verdict == BAD_HEADER:
        reason = f"header size {m.header_size}, version {m.version}, type {m.kind}"
        return MacroHeader(0, 0, 0, 0, 0, 0, 0, 0, False, reason)
    reason = ""
    if verdict == BAD_SIZE:
        reason = f"payload size {m.payload_size} does not fit the block"
    elif verdict == SMALL_SSTABLE:
        reason = f"payload size {m.payload_size} is too small for an sstable header"
    elif verdict == BAD_SSTABLE:
        reason = f"sstable header magic {m.sstable_magic}, version {m.sstable_version}"
    elif verdict == BAD_CHECKSUM:
        reason = f"payload checksum is {m.actual:#010x}, header says {m.payload_checksum:#010x}"
    return MacroHeader(
        m.kind,
        m.used,
        m.payload_size,
        m.payload_checksum,
        m.tablet_id,
        m.logical_version,
        m.data_seq,
        m.data_checksum,
        verdict == VALID,
        reason,
        None if m.compressor <= 0 else m.compressor != COMPRESSOR_NONE,
    )
