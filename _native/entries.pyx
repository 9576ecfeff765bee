"""Walking the log entries of an archive block. The contract is that of the twin, ``mover/kernel/_entries_py.py``.

Rules for the nogil function here: every length that comes from the bytes is compared with what is left before it is used.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from crc32c cimport mover_crc32c, mover_crc_setup
from log_entry cimport LOG_ENTRY_HEADER, LOG_ENTRY_MAGIC, LOG_ENTRY_VERSION, log_header_checksum, log_key_hash
from wire cimport load_be16, load_be32, load_be64, store_le64

from mover.kernel.entries import EntryRun

mover_crc_setup()

cdef enum:
    KICKOFF = 302
    KEY = 16

cdef uint64_t BATCH = <uint64_t>1 << 63
cdef uint64_t NO_SERVER = <uint64_t>1 << 63 | <uint64_t>1 << 31


cdef bint walk(
    const uint8_t *data, size_t size, uint64_t table_id, int64_t due, uint64_t *accum, int64_t *first, int64_t *last,
    size_t *count
) noexcept nogil:
    """Whether all of it is entries that hold and follow each other."""
    cdef size_t at = 0, left
    cdef const uint8_t *head
    cdef const uint8_t *known = NULL
    cdef uint64_t length, submit, checksum, hashed = 0
    cdef uint8_t image[8]
    cdef int64_t log_id
    first[0] = last[0] = -1
    count[0] = 0
    while at < size:
        head = data + at
        left = size - at
        if left < LOG_ENTRY_HEADER:
            return False
        if load_be16(head) != LOG_ENTRY_MAGIC or load_be16(head + 2) != LOG_ENTRY_VERSION or head[56] != 4:
            return False
        if load_be64(head + 8) != table_id or (load_be32(head + 4) & 0x7FFFFFFF) == KICKOFF:
            return False
        if load_be64(head + 57) & NO_SERVER:
            return False
        length = load_be64(head + 32)
        if length > left - LOG_ENTRY_HEADER:
            return False
        log_id = <int64_t>load_be64(head + 24)
        if log_id < 0 or (due >= 0 and log_id != due):
            return False
        if known == NULL or memcmp(known, head + 8, KEY) != 0:
            known = head + 8
            hashed = log_key_hash(known)
        submit = load_be64(head + 73) & ~BATCH
        if log_header_checksum(head, hashed, submit) != load_be64(head + 97):
            return False
        checksum = mover_crc32c(0, head + LOG_ENTRY_HEADER, length)
        if checksum != load_be64(head + 81):
            return False
        store_le64(image, checksum)
        accum[0] = mover_crc32c(<uint32_t>accum[0], image, 8)
        if first[0] < 0:
            first[0] = log_id
        last[0] = log_id
        due = log_id + 1
        count[0] += 1
        at += LOG_ENTRY_HEADER + length
    return True


def walk_entries(payload, uint64_t table_id, int64_t next_log_id, uint64_t accum):
    """See the twin."""
    cdef Py_buffer view
    cdef int64_t first = -1, last = -1
    cdef size_t count = 0
    cdef bint good
    if accum >> 32:
        raise ValueError("a running checksum has 32 bits")
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            good = walk(<const uint8_t *>view.buf, view.len, table_id, next_log_id, &accum, &first, &last, &count)
    finally:
        PyBuffer_Release(&view)
    return EntryRun(first, last, count, accum) if good and count else None
