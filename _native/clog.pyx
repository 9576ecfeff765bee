"""Walking the commit log of an OceanBase 3.1 observer. The contracts are those of the twin,
``mover/kernel/_clog_py.py``; record layouts and the numbers of faults are in ``mover/kernel/clog.py``.

Rules for the nogil functions here: they get a pointer and a length, and compare every length that comes from the bytes
with what is left before they use it.
"""

from cpython cimport array
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy

from crc32c cimport mover_crc32c, mover_crc_setup
from liblz4 cimport LZ4_decompress_safe
from libzstd cimport ZSTD_DCtx, ZSTD_decompressDCtx, ZSTD_isError, mover_zstd_decompressor, mover_zstd_setup
from log_entry cimport LOG_ENTRY_HEADER, LOG_ENTRY_MAGIC, LOG_ENTRY_VERSION, log_header_checksum, log_key_hash
from wire cimport content_end, load_be16, load_be32, load_be64, store_le16, store_le32, store_le64

import array

from mover.kernel.clog import ClogStop, ClogWalk, describe_clog

mover_crc_setup()
if mover_zstd_setup() != 0:
    raise MemoryError

cdef array.array UNSIGNED = array.array("Q")

cdef enum:
    BLOCK_META = 48
    BLOCK_MAGIC = 0x4C42
    BLOCK_VERSION = 1
    BLOCK_DATA = 1
    BLOCK_INFO = 2
    BLOCK_TRAILER = 3
    PADDING = 12
    PADDING_MAGIC = 0x5044
    PACKED = 10
    PACKED_ZSTD = 0x4301
    PACKED_LZ4 = 0x4302
    PACKED_ZSTD_138 = 0x4303
    NEW_FILE_MAGIC = 0x4E4C
    STALE_US = 2000000
    MAX_ENTRY = 64 << 20
    COLUMNS = 11
    KEY = 16

# ClogStop
cdef enum:
    STOP_END = 0
    STOP_INFO = 1
    STOP_UNUSED = 2
    STOP_STALE = 3
    STOP_BAD = 4
    STOP_PADDING = 5
    NO_MEMORY = -1

# ClogFault
cdef enum:
    NO_FAULT = 0
    BLOCK_BAD_MAGIC = 2
    BLOCK_CHECK = 3
    BLOCK_TYPE = 4
    BLOCK_SIZE = 5
    ITEM_BAD_MAGIC = 6
    ITEM_FIT = 7
    ENTRY_BAD_MAGIC = 8
    ENTRY_ADDRESS = 9
    ENTRY_FIT = 10
    ENTRY_CHECK = 11
    ENTRY_DATA = 12
    PACKED_SIZE = 13
    PACKED_DATA = 14

cdef uint64_t ALL_ONES = <uint64_t>0xFFFFFFFFFFFFFFFF


cdef struct Keys:
    # PG keys in the order they were met, and an open-addressed table of their numbers + 1
    uint8_t *cells
    size_t count
    size_t room
    uint32_t *slots
    size_t slot_count


cdef struct Walk:
    const uint8_t *data
    size_t total
    uint64_t *table
    size_t used, room
    uint8_t *unpacked
    size_t unpacked_used, unpacked_room
    Keys keys
    int fault
    size_t at
    uint64_t a, b


cdef inline int found(Walk *walk, int fault, size_t at, uint64_t a, uint64_t b) noexcept nogil:
    walk.fault = fault
    walk.at = at
    walk.a = a
    walk.b = b
    return STOP_BAD


cdef int grow_slots(Keys *keys) noexcept nogil:
    """Twice the slots, filled anew. 0, or NO_MEMORY."""
    cdef size_t count = 2 * keys.slot_count if keys.slot_count else 64
    cdef size_t i, at
    cdef uint64_t h
    cdef const uint8_t *key
    cdef uint32_t *slots = <uint32_t *>calloc(count, sizeof(uint32_t))
    if slots == NULL:
        return NO_MEMORY
    for i in range(keys.count):
        key = keys.cells + i * KEY
        h = log_key_hash(key)
        at = h & (count - 1)
        while slots[at]:
            at = (at + 1) & (count - 1)
        slots[at] = <uint32_t>(i + 1)
    free(keys.slots)
    keys.slots = slots
    keys.slot_count = count
    return 0


cdef int64_t key_number(Keys *keys, const uint8_t *key, uint64_t h) noexcept nogil:
    """The number of a PG key, a new one if it was not met before; or NO_MEMORY."""
    cdef size_t at, room
    cdef uint8_t *cells
    if 2 * keys.count >= keys.slot_count and grow_slots(keys) != 0:
        return NO_MEMORY
    at = h & (keys.slot_count - 1)
    while keys.slots[at]:
        if memcmp(keys.cells + (keys.slots[at] - 1) * <size_t>KEY, key, KEY) == 0:
            return keys.slots[at] - 1
        at = (at + 1) & (keys.slot_count - 1)
    if keys.count == keys.room:
        room = 2 * keys.room + 64
        cells = <uint8_t *>realloc(keys.cells, room * KEY)
        if cells == NULL:
            return NO_MEMORY
        keys.cells = cells
        keys.room = room
    memcpy(keys.cells + keys.count * KEY, key, KEY)
    keys.count += 1
    keys.slots[at] = <uint32_t>keys.count
    return keys.count - 1


cdef int add_row(Walk *walk, const uint64_t *row) noexcept nogil:
    cdef size_t room
    cdef uint64_t *cells
    if walk.used + COLUMNS > walk.room:
        room = 2 * walk.room + 64 * COLUMNS
        cells = <uint64_t *>realloc(walk.table, room * sizeof(uint64_t))
        if cells == NULL:
            return NO_MEMORY
        walk.table = cells
        walk.room = room
    memcpy(walk.table + walk.used, row, COLUMNS * sizeof(uint64_t))
    walk.used += COLUMNS
    return 0


cdef int walk_entry(Walk *walk, const uint8_t *head, size_t left, size_t at, uint64_t *row, size_t *size) noexcept nogil:
    """Verify the entry at ``head``; fills the row from ``image_size`` on. 0, STOP_BAD or NO_MEMORY."""
    cdef uint64_t h, length, check
    cdef uint32_t actual
    cdef int64_t pg
    if left < LOG_ENTRY_HEADER:
        return found(walk, ITEM_FIT, at, LOG_ENTRY_HEADER, left)
    if load_be16(head) != LOG_ENTRY_MAGIC or load_be16(head + 2) != LOG_ENTRY_VERSION:
        return found(walk, ENTRY_BAD_MAGIC, at, load_be16(head), load_be16(head + 2))
    if head[56] != 4:
        return found(walk, ENTRY_ADDRESS, at, head[56], 0)
    length = load_be64(head + 32)
    left -= LOG_ENTRY_HEADER
    if length > left:
        return found(walk, ENTRY_FIT, at, length, left)
    h = log_key_hash(head + 8)
    check = load_be64(head + 97)
    actual = log_header_checksum(head, h, load_be64(head + 73))
    if actual != check:
        return found(walk, ENTRY_CHECK, at, check, actual)
    actual = mover_crc32c(0, head + LOG_ENTRY_HEADER, length)
    if actual != load_be64(head + 81):
        return found(walk, ENTRY_DATA, at, load_be64(head + 81), actual)
    pg = key_number(&walk.keys, head + 8, h)
    if pg < 0:
        return NO_MEMORY
    size[0] = LOG_ENTRY_HEADER + length
    row[3] = size[0]
    row[4] = pg
    row[5] = load_be64(head + 24)
    row[6] = load_be64(head + 65)
    row[7] = load_be64(head + 73)
    row[8] = load_be64(head + 81)
    row[9] = load_be32(head + 4)
    row[10] = load_be64(head + 48)
    return 0


cdef int walk_packed(Walk *walk, uint16_t magic, size_t at, size_t end, uint64_t *row, size_t *size) noexcept nogil:
    cdef int32_t raw, stored
    cdef size_t room, got
    cdef uint8_t *cells
    cdef const uint8_t *source
    cdef int result
    cdef ZSTD_DCtx *context
    if end - at < PACKED:
        return found(walk, ITEM_FIT, at, PACKED, end - at)
    raw = <int32_t>load_be32(walk.data + at + 2)
    stored = <int32_t>load_be32(walk.data + at + 6)
    if stored < 0 or <size_t>stored > end - at - PACKED:
        return found(walk, ITEM_FIT, at, <uint64_t><int64_t>stored, end - at - PACKED)
    if raw < LOG_ENTRY_HEADER or raw > MAX_ENTRY:
        return found(walk, PACKED_SIZE, at, <uint64_t><int64_t>raw, <uint64_t>stored)
    if walk.unpacked_used + <size_t>raw > walk.unpacked_room:
        room = 2 * walk.unpacked_room + <size_t>raw
        cells = <uint8_t *>realloc(walk.unpacked, room)
        if cells == NULL:
            return NO_MEMORY
        walk.unpacked = cells
        walk.unpacked_room = room
    source = walk.data + at + PACKED
    cells = walk.unpacked + walk.unpacked_used
    if magic == PACKED_LZ4:
        result = LZ4_decompress_safe(<const char *>source, <char *>cells, stored, raw)
        if result != raw:
            return found(walk, PACKED_DATA, at, <uint64_t>raw, 0)
    else:
        context = mover_zstd_decompressor()
        if context == NULL:
            return NO_MEMORY
        got = ZSTD_decompressDCtx(context, cells, <size_t>raw, source, <size_t>stored)
        if ZSTD_isError(got) or got != <size_t>raw:
            return found(walk, PACKED_DATA, at, <uint64_t>raw, 0)
    result = walk_entry(walk, cells, <size_t>raw, at, row, size)
    if result != 0:
        return result
    if size[0] != <size_t>raw:
        return found(walk, PACKED_SIZE, at, <uint64_t>raw, <uint64_t>stored)
    row[2] = walk.unpacked_used
    walk.unpacked_used += <size_t>raw
    size[0] = PACKED + <size_t>stored
    return 0


cdef int walk_items(Walk *walk, size_t at, size_t end) noexcept nogil:
    """0, STOP_BAD or NO_MEMORY."""
    cdef uint64_t row[COLUMNS]
    cdef uint16_t magic
    cdef size_t size = 0
    cdef int64_t skip
    cdef int result
    while at < end:
        if end - at < 2:
            return found(walk, ITEM_FIT, at, 2, end - at)
        magic = load_be16(walk.data + at)
        if magic == PADDING_MAGIC:
            if end - at < PADDING:
                return found(walk, ITEM_FIT, at, PADDING, end - at)
            skip = <int64_t>load_be64(walk.data + at + 4)
            if skip < PADDING or <uint64_t>skip > end - at:
                return found(walk, ITEM_FIT, at, <uint64_t>skip, end - at)
            at += <size_t>skip
            continue
        row[2] = ALL_ONES
        if magic == LOG_ENTRY_MAGIC:
            result = walk_entry(walk, walk.data + at, end - at, at, row, &size)
        elif magic == PACKED_ZSTD or magic == PACKED_LZ4 or magic == PACKED_ZSTD_138:
            result = walk_packed(walk, magic, at, end, row, &size)
        else:
            return found(walk, ITEM_BAD_MAGIC, at, magic, 0)
        if result != 0:
            return result
        row[0] = at
        row[1] = size
        if add_row(walk, row) != 0:
            return NO_MEMORY
        at += size
    return 0


cdef int check_meta(Walk *walk, size_t at, int32_t *kind, size_t *size, int64_t *written) noexcept nogil:
    cdef const uint8_t *head = walk.data + at
    cdef uint8_t image[40]
    cdef uint32_t actual
    cdef int64_t total, pad
    cdef int i
    if load_be16(head) != BLOCK_MAGIC or load_be16(head + 2) != BLOCK_VERSION:
        return found(walk, BLOCK_BAD_MAGIC, at, load_be16(head), load_be16(head + 2))
    store_le16(image, load_be16(head))
    store_le16(image + 2, load_be16(head + 2))
    store_le32(image + 4, load_be32(head + 4))
    for i in range(8, 40, 8):
        store_le64(image + i, load_be64(head + i))
    actual = mover_crc32c(0, image, 40)
    if actual != load_be64(head + 40):
        return found(walk, BLOCK_CHECK, at, load_be64(head + 40), actual)
    kind[0] = <int32_t>load_be32(head + 4)
    if not BLOCK_DATA <= kind[0] <= BLOCK_TRAILER:
        return found(walk, BLOCK_TYPE, at, <uint64_t><int64_t>kind[0], 0)
    total = <int64_t>load_be64(head + 8)
    pad = <int64_t>load_be64(head + 16)
    if pad < 0 or total > MAX_ENTRY or total < pad or total - pad < BLOCK_META:
        return found(walk, BLOCK_SIZE, at, <uint64_t>total, <uint64_t>pad)
    size[0] = <size_t>(total - pad)
    written[0] = <int64_t>load_be64(head + 24)
    return 0


cdef int walk_all(Walk *walk, size_t *position, int64_t *timestamp, size_t *blocks) noexcept nogil:
    cdef size_t at = position[0], left, size = 0, used, unpacked, known
    cdef int32_t kind = 0
    cdef int64_t written = 0
    cdef int result
    while at < walk.total:
        position[0] = at
        left = walk.total - at
        if left >= 2 and load_be16(walk.data + at) == NEW_FILE_MAGIC:
            return STOP_UNUSED
        if content_end(walk.data + at, left if left < BLOCK_META else BLOCK_META) == 0:
            return STOP_UNUSED
        if left >= 2 and load_be16(walk.data + at) == PADDING_MAGIC:
            return STOP_PADDING
        if left < BLOCK_META:
            return STOP_END
        result = check_meta(walk, at, &kind, &size, &written)
        if result != 0:
            return result
        if written < timestamp[0] - STALE_US:
            return STOP_STALE
        if kind == BLOCK_INFO:
            return STOP_INFO
        if kind != BLOCK_DATA:
            return found(walk, BLOCK_TYPE, at, <uint64_t>kind, 0)
        if size > left:
            return STOP_END
        used = walk.used
        unpacked = walk.unpacked_used
        known = walk.keys.count
        result = walk_items(walk, at + BLOCK_META, at + size)
        if result != 0:
            walk.used = used
            walk.unpacked_used = unpacked
            walk.keys.count = known
            return result
        timestamp[0] = written
        blocks[0] += 1
        at += size
    position[0] = at
    return STOP_END


def clog_walk(data, size_t start=0, int64_t timestamp=0):
    """See the twin."""
    cdef Py_buffer view
    cdef Walk walk
    cdef size_t end = start, blocks = 0
    cdef int stop
    cdef array.array table
    walk.table = NULL
    walk.unpacked = NULL
    walk.used = walk.room = walk.unpacked_used = walk.unpacked_room = 0
    walk.keys.cells = NULL
    walk.keys.slots = NULL
    walk.keys.count = walk.keys.room = walk.keys.slot_count = 0
    walk.fault = NO_FAULT
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        walk.data = <const uint8_t *>view.buf
        walk.total = <size_t>view.len
        if start > walk.total:
            raise ValueError(f"start {start} is outside of {walk.total} bytes")
        with nogil:
            stop = walk_all(&walk, &end, &timestamp, &blocks)
        if stop == NO_MEMORY:
            raise MemoryError
        reason = describe_clog(walk.fault, walk.at, walk.a, walk.b) if stop == STOP_BAD else ""
        table = array.clone(UNSIGNED, <Py_ssize_t>walk.used, False)
        if walk.used:
            memcpy(table.data.as_voidptr, walk.table, walk.used * sizeof(uint64_t))
        pgs = tuple([walk.keys.cells[i * KEY : i * KEY + KEY] for i in range(walk.keys.count)])
        unpacked = walk.unpacked[: walk.unpacked_used] if walk.unpacked != NULL else b""
        return ClogWalk(end, ClogStop(stop), reason, timestamp, blocks, pgs, table, unpacked)
    finally:
        free(walk.table)
        free(walk.unpacked)
        free(walk.keys.cells)
        free(walk.keys.slots)
        PyBuffer_Release(&view)


def clog_gather(data, walk, rows):
    """See the twin."""
    cdef Py_buffer view, extra
    cdef array.array table = walk.table
    cdef array.array chosen = array.array("q", rows)
    cdef Py_ssize_t count = len(chosen), i
    cdef int64_t entries = len(table) // COLUMNS, number
    cdef const uint64_t *row
    cdef size_t length = 0, at, size, room
    cdef char *out
    if table.typecode != "Q":
        raise ValueError("not the table of a walk")
    unpacked = walk.unpacked
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(unpacked, &extra, PyBUF_SIMPLE)
        try:
            for i in range(count):
                number = chosen.data.as_longlongs[i]
                if not 0 <= number < entries:
                    raise ValueError(f"row {number} of {entries}")
                row = <const uint64_t *>table.data.as_ulonglongs + number * COLUMNS
                if row[2] == ALL_ONES:
                    at = row[0]
                    room = <size_t>view.len
                else:
                    at = row[2]
                    room = <size_t>extra.len
                size = row[3]
                if size > room or at > room - size:
                    raise ValueError(f"row {number} ends at {at + size} of {room} bytes")
                length += size
            result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
            out = PyBytes_AS_STRING(result)
            with nogil:
                for i in range(count):
                    row = <const uint64_t *>table.data.as_ulonglongs + chosen.data.as_longlongs[i] * COLUMNS
                    size = row[3]
                    if row[2] == ALL_ONES:
                        memcpy(out, <const char *>view.buf + row[0], size)
                    else:
                        memcpy(out, <const char *>extra.buf + row[2], size)
                    out += size
            return result
        finally:
            PyBuffer_Release(&extra)
    finally:
        PyBuffer_Release(&view)
