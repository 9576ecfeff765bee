"""Walking PALF log and wrapping it for the archive. The contracts are those of the twin, ``mover/kernel/_palf_py.py``;
record layouts are in ``mover/kernel/palf.py``, the numbers of faults in ``mover/kernel/faults.py``.

Rules for the nogil functions here: they get a pointer and a length, and compare every length that comes from the bytes
with what is left before they use it.
"""

from cpython cimport array
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from crc32c cimport mover_crc32c, mover_crc_setup
from wire cimport (
    content_end,
    load_be16,
    load_be32,
    load_be64,
    store_be16,
    store_be32,
    store_be64,
    store_le16,
    store_le32,
    store_le64,
)
from xxhash3 cimport XXH64

import array

from mover.errors import FormatError
from mover.kernel.faults import describe
from mover.kernel.limits import check_unsigned
from mover.kernel.palf import MAX_PAYLOAD, PalfFrames, PalfStop, PalfWalk, check_frames

mover_crc_setup()

cdef array.array UNSIGNED = array.array("Q")

cdef enum:
    SECTOR = 512
    PALF_FILE_BYTES = (64 << 20) - 4096
    GROUP_HEADER = 48
    GROUP_MAGIC = 0x4752
    GROUP_VERSION = 3
    GROUP_COLUMNS = 7
    ENTRY_HEADER = 32
    ENTRY_MAGIC = 0x4C48
    ENTRY_VERSION = 2
    PADDING_CHECKED_BYTES = 16
    BLOCK_HEADER = 48
    LOG_ENTRY_HEADER = 105
    LOG_ENTRY_IMAGE = 120
    LOG_ENTRY_MAGIC = 0x4552
    LOG_ENTRY_VERSION = 1
    LOG_TYPE_PALF_GROUP = 401
    GROUP_BODY = 16
    GROUP_BODY_VERSION = 1
    GROUP_BODY_HAS_BLOCK_HEADER = 1
    FRAME_COLUMNS = 8

cdef uint64_t FLAG_PADDING = <uint64_t>1 << 62
cdef uint64_t FLAG_CHECK = 0xFFFF
cdef uint64_t I64_MAX = 0x7FFFFFFFFFFFFFFF

# PalfStop
cdef enum:
    STOP_END = 0
    STOP_TORN = 1
    STOP_ZERO = 2
    STOP_CORRUPT = 3
    STOP_UNTIL = 4
    NO_MEMORY = -1

# Fault
cdef enum:
    NO_FAULT = 0
    GROUP_SHORT = 1
    GROUP_BAD_MAGIC = 2
    GROUP_CHECK = 3
    GROUP_CROSSES = 4
    GROUP_LOG_ID = 5
    GROUP_SCN_BACK = 6
    GROUP_TORN = 7
    ENTRY_SHORT = 8
    ENTRY_BAD_MAGIC = 9
    ENTRY_CHECK = 10
    ENTRY_FIT = 11
    ENTRY_DATA = 12
    GROUP_SCN_LAST = 13
    GROUP_ACCUM = 14
    FRAME_SHORT = 20
    FRAME_MAGIC = 21
    FRAME_CHECK = 22
    FRAME_TYPE = 23
    FRAME_FIELDS = 24
    FRAME_FIT = 25
    FRAME_DATA = 26
    FRAME_BODY = 27
    FRAME_NO_GROUP = 28
    FRAME_KEY = 29


cdef struct Bad:
    int fault
    size_t at
    uint64_t a
    uint64_t b


cdef inline int found(Bad *bad, int fault, size_t at, uint64_t a, uint64_t b) noexcept nogil:
    bad.fault = fault
    bad.at = at
    bad.a = a
    bad.b = b
    return fault


cdef struct Table:
    uint64_t *cells
    size_t used
    size_t room


cdef int table_add(Table *table, const uint64_t *row, size_t columns) noexcept nogil:
    """0, or NO_MEMORY."""
    cdef size_t room
    cdef uint64_t *cells
    if table.used + columns > table.room:
        room = 2 * table.room + 64 * columns
        cells = <uint64_t *>realloc(table.cells, room * sizeof(uint64_t))
        if cells == NULL:
            return NO_MEMORY
        table.cells = cells
        table.room = room
    memcpy(table.cells + table.used, row, columns * sizeof(uint64_t))
    table.used += columns
    return 0


cdef object table_take(Table *table):
    """The cells as ``array('Q')``."""
    cdef array.array out = array.clone(UNSIGNED, <Py_ssize_t>table.used, False)
    if table.used:
        memcpy(out.data.as_voidptr, table.cells, table.used * sizeof(uint64_t))
    return out


cdef inline uint32_t chain(uint64_t value, uint64_t previous) noexcept nogil:
    """One step of OceanBase's running checksums."""
    cdef uint8_t image[8]
    store_le64(image, value)
    return mover_crc32c(<uint32_t>previous, image, 8)


cdef inline uint16_t group_check(const uint8_t *head) noexcept nogil:
    """Header check of the group header at ``head``: over its little-endian image with the check itself zero."""
    cdef uint8_t image[GROUP_HEADER]
    cdef int i
    store_le16(image, load_be16(head))
    store_le16(image + 2, load_be16(head + 2))
    store_le32(image + 4, load_be32(head + 4))
    for i in range(8, 40, 8):
        store_le64(image + i, load_be64(head + i))
    store_le64(image + 40, load_be64(head + 40) & ~FLAG_CHECK)
    return <uint16_t>XXH64(image, GROUP_HEADER, 0)


cdef inline uint16_t entry_check(const uint8_t *head) noexcept nogil:
    cdef uint8_t image[ENTRY_HEADER]
    store_le16(image, load_be16(head))
    store_le16(image + 2, load_be16(head + 2))
    store_le32(image + 4, load_be32(head + 4))
    store_le64(image + 8, load_be64(head + 8))
    store_le64(image + 16, load_be64(head + 16))
    store_le64(image + 24, load_be64(head + 24) & ~FLAG_CHECK)
    return <uint16_t>XXH64(image, ENTRY_HEADER, 0)


cdef struct Walk:
    # in
    uint64_t lsn
    uint64_t until
    bint has_until
    # in and out
    uint64_t chain
    bint has_chain
    uint64_t next_id
    bint has_next_id
    # out
    size_t end
    uint64_t first_id, last_id, first_scn, last_scn


cdef struct Entries:
    uint32_t checksum
    uint64_t first_scn
    uint64_t last_scn


cdef int walk_entries(
    const uint8_t *data, size_t start, size_t end, bint padding, Entries *out, Bad *bad
) noexcept nogil:
    cdef size_t at = start, left
    cdef const uint8_t *head
    cdef uint32_t size, covered, actual
    cdef uint64_t flag, stored
    cdef uint16_t check
    out.checksum = 0
    out.first_scn = out.last_scn = 0
    while at < end:
        if end - at < ENTRY_HEADER:
            return found(bad, ENTRY_SHORT, at, end - at, 0)
        head = data + at
        if load_be16(head) != ENTRY_MAGIC or load_be16(head + 2) != ENTRY_VERSION:
            return found(bad, ENTRY_BAD_MAGIC, at, load_be16(head), load_be16(head + 2))
        flag = load_be64(head + 24)
        check = entry_check(head)
        if check != (flag & FLAG_CHECK):
            return found(bad, ENTRY_CHECK, at, flag & FLAG_CHECK, check)
        size = load_be32(head + 4)
        left = end - at - ENTRY_HEADER
        if size == 0 or size > 0x7FFFFFFF or size > left:
            return found(bad, ENTRY_FIT, at, size, left)
        covered = PADDING_CHECKED_BYTES if padding and size > PADDING_CHECKED_BYTES else size
        actual = mover_crc32c(0, head + ENTRY_HEADER, covered)
        stored = load_be64(head + 16)
        if actual != stored:
            return found(bad, ENTRY_DATA, at, stored, actual)
        out.last_scn = load_be64(head + 8)
        if at == start:
            out.first_scn = out.last_scn
        if not padding:
            out.checksum = chain(stored, out.checksum)
        at += ENTRY_HEADER + size
    return NO_FAULT


cdef int walk_group(
    const uint8_t *data, size_t total, size_t at, Walk *walk, uint64_t *row, size_t *end, Bad *bad
) noexcept nogil:
    """Verify the group at ``at``, of which the header is inside the buffer. A stop, or -2 when the group is valid.

    ``end`` is the end of the group as soon as it is known to be inside the buffer.
    """
    cdef const uint8_t *head = data + at
    cdef uint32_t size, expected
    cdef uint64_t here = walk.lsn + at, max_scn, accumulated, log_id, flag
    cdef size_t body = at + GROUP_HEADER
    cdef uint16_t check
    cdef Entries entries
    if load_be16(head) != GROUP_MAGIC or load_be16(head + 2) != GROUP_VERSION:
        found(bad, GROUP_BAD_MAGIC, at, load_be16(head), load_be16(head + 2))
        return STOP_CORRUPT
    flag = load_be64(head + 40)
    check = group_check(head)
    if check != (flag & FLAG_CHECK):
        found(bad, GROUP_CHECK, at, flag & FLAG_CHECK, check)
        return STOP_CORRUPT
    size = load_be32(head + 4)
    if size == 0 or size > 0x7FFFFFFF or here % PALF_FILE_BYTES + GROUP_HEADER + size > PALF_FILE_BYTES:
        found(bad, GROUP_CROSSES, at, size, 0)
        return STOP_CORRUPT
    if walk.has_until and here + GROUP_HEADER + size > walk.until:
        return STOP_UNTIL
    log_id = load_be64(head + 32)
    if walk.has_next_id and log_id != walk.next_id:
        found(bad, GROUP_LOG_ID, at, log_id, walk.next_id)
        return STOP_CORRUPT
    max_scn = load_be64(head + 16)
    if max_scn < walk.last_scn:
        found(bad, GROUP_SCN_BACK, at, max_scn, walk.last_scn)
        return STOP_CORRUPT
    if size > total - body:
        found(bad, GROUP_TORN, at, size, total - body)
        return STOP_TORN
    end[0] = body + size
    if walk_entries(data, body, end[0], (flag & FLAG_PADDING) != 0, &entries, bad) != NO_FAULT:
        return STOP_CORRUPT
    if entries.last_scn != max_scn:
        found(bad, GROUP_SCN_LAST, at, entries.last_scn, max_scn)
        return STOP_CORRUPT
    accumulated = load_be64(head + 24)
    if walk.has_chain:
        expected = chain(entries.checksum, walk.chain)
        if expected != accumulated:
            found(bad, GROUP_ACCUM, at, accumulated, expected)
            return STOP_CORRUPT
    row[0] = at
    row[1] = end[0] - at
    row[2] = log_id
    row[3] = entries.first_scn
    row[4] = max_scn
    row[5] = accumulated
    row[6] = flag
    return -2


cdef int walk_all(const uint8_t *data, size_t total, Walk *walk, Table *table, Bad *bad) noexcept nogil:
    cdef size_t at = 0, end, left
    cdef uint64_t row[GROUP_COLUMNS]
    cdef uint64_t written
    cdef uint8_t start[4]
    cdef int stop
    bad.fault = NO_FAULT
    while at < total:
        walk.end = at
        left = total - at
        if walk.has_until and walk.lsn + at >= walk.until:
            return STOP_UNTIL
        if content_end(data + at, left if left < GROUP_HEADER else GROUP_HEADER) == 0:
            return STOP_ZERO
        if left < GROUP_HEADER:
            found(bad, GROUP_SHORT, at, left, 0)
            store_be16(store_be16(start, GROUP_MAGIC), GROUP_VERSION)
            return STOP_TORN if memcmp(start, data + at, left if left < 4 else 4) == 0 else STOP_CORRUPT
        end = total
        stop = walk_group(data, total, at, walk, row, &end, bad)
        if stop == STOP_CORRUPT and end < total:
            # A write in flight: the first sectors are there, the rest of the group and all behind it are not.
            written = walk.lsn + at + content_end(data + at, left)
            if (written + SECTOR - 1) // SECTOR * SECTOR < walk.lsn + end:
                stop = STOP_TORN
        if stop != -2:
            return stop
        if table_add(table, row, GROUP_COLUMNS) != 0:
            return NO_MEMORY
        if table.used == GROUP_COLUMNS:
            walk.first_id = row[2]
            walk.first_scn = row[3]
        walk.last_id = row[2]
        walk.last_scn = row[4]
        walk.chain = row[5]
        walk.next_id = row[2] + 1
        walk.has_chain = walk.has_next_id = True
        at = end
    walk.end = at
    return STOP_END


def palf_walk(buf, lsn, *, accum=None, log_id=None, until_lsn=None):
    cdef Py_buffer view
    cdef Walk walk
    cdef Table table
    cdef Bad bad
    cdef int stop
    check_unsigned("lsn", lsn)
    check_unsigned("accum", accum)
    check_unsigned("log_id", log_id)
    check_unsigned("until_lsn", until_lsn)
    memset(&walk, 0, sizeof(walk))
    memset(&table, 0, sizeof(table))
    walk.lsn = lsn
    walk.has_chain = accum is not None
    walk.chain = accum or 0
    walk.has_next_id = log_id is not None
    walk.next_id = log_id or 0
    walk.has_until = until_lsn is not None
    walk.until = until_lsn or 0
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            stop = walk_all(<const uint8_t *>view.buf, <size_t>view.len, &walk, &table, &bad)
        if stop == NO_MEMORY:
            raise MemoryError
        reason = f"{describe(bad.fault, bad.a, bad.b)} at lsn {walk.lsn + bad.at}" if bad.fault else ""
        groups = table_take(&table)
    finally:
        free(table.cells)
        PyBuffer_Release(&view)
    return PalfWalk(
        walk.end,
        walk.lsn + walk.end,
        PalfStop(stop),
        reason,
        len(groups) // GROUP_COLUMNS,
        walk.first_id,
        walk.last_id,
        walk.first_scn,
        walk.last_scn,
        walk.chain if walk.has_chain else None,
        groups,
    )


cdef uint64_t MURMUR = 0xC6A4A7935BD1E995


cdef inline uint64_t murmur_end(uint64_t h) noexcept nogil:
    h = (h ^ (h >> 47)) * MURMUR
    return h ^ (h >> 47)


cdef inline uint64_t murmur_of_8(uint64_t value, uint64_t seed) noexcept nogil:
    """MurmurHash64A of 8 little-endian bytes."""
    cdef uint64_t k = value * MURMUR
    k = (k ^ (k >> 47)) * MURMUR
    return murmur_end(((seed ^ (8 * MURMUR)) ^ k) * MURMUR)


cdef inline uint64_t murmur_of_4(uint32_t value, uint64_t seed) noexcept nogil:
    return murmur_end(((seed ^ (4 * MURMUR)) ^ value) * MURMUR)


cdef uint32_t log_entry_checksum(const uint8_t *head) noexcept nogil:
    """Header checksum of the ObLogEntryHeader at ``head``: over its little-endian image in OceanBase's memory."""
    cdef uint8_t image[LOG_ENTRY_IMAGE]
    cdef uint8_t *to = image
    cdef uint64_t table_id = load_be64(head + 8), server = load_be64(head + 57)
    cdef uint32_t part_id = load_be32(head + 16), assist_id = load_be32(head + 20)
    cdef int i
    to = store_le16(to, load_be16(head))
    to = store_le16(to, load_be16(head + 2))
    to = store_le32(to, load_be32(head + 4))
    to = store_le64(to, table_id)
    to = store_le32(to, part_id)
    to = store_le32(to, assist_id)
    to = store_le64(to, murmur_of_4(assist_id, murmur_of_4(part_id, murmur_of_8(table_id, 0))))
    for i in range(24, 56, 8):  # log_id, data_len, generation_timestamp, epoch_id
        to = store_le64(to, load_be64(head + i))
    to = store_le32(to, <uint32_t><int32_t><signed char>head[56])
    to = store_le32(to, <uint32_t>(server >> 32))  # the IPv4 address, in a union of 16 bytes
    memset(to, 0, 12)
    to = store_le32(to + 12, <uint32_t>server)
    for i in range(65, 97, 8):  # proposal time, submit_timestamp, data_checksum, freeze_version
        to = store_le64(to, load_be64(head + i))
    return mover_crc32c(0, image, LOG_ENTRY_IMAGE)


cdef uint32_t frame_one(
    uint8_t *out,
    const uint8_t *key,
    uint64_t epoch,
    uint64_t lsn,
    const uint64_t *row,
    const uint8_t *group,
    const uint8_t *block_header,
) noexcept nogil:
    """Write one entry, LOG_ENTRY_HEADER and its body, to ``out``: the data checksum."""
    cdef uint8_t *body = out + LOG_ENTRY_HEADER
    cdef uint8_t *to = body
    cdef uint64_t size, at_us = row[4] // 1000
    cdef uint32_t checksum
    to = store_be16(to, GROUP_BODY_VERSION)
    to = store_be16(to, GROUP_BODY_HAS_BLOCK_HEADER if block_header != NULL else 0)
    to = store_be32(to, 0)
    to = store_be64(to, lsn)
    if block_header != NULL:
        memcpy(to, block_header, BLOCK_HEADER)
        to += BLOCK_HEADER
    memcpy(to, group, row[1])
    to += row[1]
    size = <uint64_t>(to - body)
    checksum = mover_crc32c(0, body, size)
    to = out
    to = store_be16(to, LOG_ENTRY_MAGIC)
    to = store_be16(to, LOG_ENTRY_VERSION)
    to = store_be32(to, LOG_TYPE_PALF_GROUP)
    memcpy(to, key, 16)
    to = store_be64(to + 16, row[2])
    to = store_be64(to, size)
    to = store_be64(to, at_us)
    to = store_be64(to, epoch)
    to[0] = 4  # proposal: IPv4, no server, no time
    memset(to + 1, 0, 16)
    to = store_be64(to + 17, at_us)
    to = store_be64(to, checksum)
    to = store_be64(to, 0)
    store_be64(to, log_entry_checksum(out))
    return checksum


def palf_frame_groups(
    into, buf, lsn, groups, pg_key, epoch, accum, block_header=None, *, start=0, max_bytes=MAX_PAYLOAD
):
    cdef bytes header = b"" if block_header is None else bytes(block_header)
    cdef bytes key_bytes = bytes(pg_key)
    check_frames(lsn, groups, key_bytes, epoch, accum, block_header is not None, len(header), start)
    cdef Py_buffer view, room
    cdef array.array table = groups
    cdef const uint64_t *first = <const uint64_t *>table.data.as_voidptr + <size_t>start * GROUP_COLUMNS
    cdef const uint64_t *row = first
    cdef size_t rows = <size_t>(len(groups) // GROUP_COLUMNS) - <size_t>start
    cdef size_t n = 0, i
    cdef uint64_t limit = min(max(max_bytes, 0), 1 << 62), total = 0, one, from_lsn = lsn, c_epoch = epoch
    cdef uint64_t running = accum
    cdef const uint8_t *data
    cdef const uint8_t *key = <const uint8_t *>PyBytes_AS_STRING(key_bytes)
    cdef const uint8_t *extra = <const uint8_t *>PyBytes_AS_STRING(header) if header else NULL
    cdef uint8_t *to
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(into, &room, PyBUF_WRITABLE)
    except BaseException:
        PyBuffer_Release(&view)
        raise
    try:
        data = <const uint8_t *>view.buf
        for i in range(rows):
            row = first + i * GROUP_COLUMNS
            if row[0] > <uint64_t>view.len or row[1] > <uint64_t>view.len - row[0]:
                raise ValueError(f"group at offset {row[0]} of {row[1]} bytes is outside the buffer")
            one = LOG_ENTRY_HEADER + GROUP_BODY + row[1]
            if i == 0 and extra != NULL:
                one += BLOCK_HEADER
            if i > 0 and total + one > limit:
                break
            total += one
            n = i + 1
        if total > <uint64_t>room.len:
            raise ValueError(f"{total} bytes of entries do not fit into {room.len}")
        to = <uint8_t *>room.buf
        with nogil:
            for i in range(n):
                row = first + i * GROUP_COLUMNS
                running = chain(
                    frame_one(to, key, c_epoch, from_lsn + row[0], row, data + row[0], extra), running
                )
                to += LOG_ENTRY_HEADER + GROUP_BODY + row[1]
                if extra != NULL:
                    to += BLOCK_HEADER
                    extra = NULL
    finally:
        PyBuffer_Release(&view)
        PyBuffer_Release(&room)
    return total, running, n


cdef int unframe_one(const uint8_t *data, size_t total, size_t at, uint64_t *row, Bad *bad) noexcept nogil:
    cdef const uint8_t *head = data + at
    cdef const uint8_t *body = head + LOG_ENTRY_HEADER
    cdef size_t left = total - at, prefix
    cdef uint64_t size, stored, lsn, mixed
    cdef uint32_t check
    cdef uint16_t flags
    if left < LOG_ENTRY_HEADER:
        return found(bad, FRAME_SHORT, at, left, 0)
    if load_be16(head) != LOG_ENTRY_MAGIC or load_be16(head + 2) != LOG_ENTRY_VERSION:
        return found(bad, FRAME_MAGIC, at, load_be16(head), load_be16(head + 2))
    check = log_entry_checksum(head)
    stored = load_be64(head + 97)
    if check != stored:
        return found(bad, FRAME_CHECK, at, stored, check)
    if load_be32(head + 4) != LOG_TYPE_PALF_GROUP:
        return found(bad, FRAME_TYPE, at, load_be32(head + 4), LOG_TYPE_PALF_GROUP)
    mixed = load_be64(head + 73) | load_be64(head + 48)
    if head[56] != 4 or mixed > I64_MAX:
        return found(bad, FRAME_FIELDS, at, head[56], mixed)
    size = load_be64(head + 32)
    left -= LOG_ENTRY_HEADER
    if size < GROUP_BODY or size > left:
        return found(bad, FRAME_FIT, at, size, left)
    check = mover_crc32c(0, body, size)
    stored = load_be64(head + 81)
    if check != stored:
        return found(bad, FRAME_DATA, at, stored, check)
    flags = load_be16(body + 2)
    lsn = load_be64(body + 8)
    if (
        load_be16(body) != GROUP_BODY_VERSION
        or flags > GROUP_BODY_HAS_BLOCK_HEADER
        or load_be32(body + 4) != 0
        or lsn > I64_MAX
    ):
        return found(bad, FRAME_BODY, at, load_be32(body), load_be32(body + 4))
    prefix = GROUP_BODY + BLOCK_HEADER if flags else GROUP_BODY
    if size < prefix + GROUP_HEADER:
        return found(bad, FRAME_NO_GROUP, at, size, 0)
    row[0] = at + LOG_ENTRY_HEADER
    row[1] = row[0] + prefix
    row[2] = size - prefix
    row[3] = lsn
    row[4] = load_be64(head + 24)
    row[5] = load_be64(head + 73)
    row[6] = load_be64(head + 48)
    row[7] = stored
    return NO_FAULT


cdef int unframe_all(const uint8_t *data, size_t total, uint64_t *accum, Table *table, Bad *bad) noexcept nogil:
    """NO_FAULT, NO_MEMORY or the fault."""
    cdef size_t at = 0
    cdef uint64_t row[FRAME_COLUMNS]
    bad.fault = NO_FAULT
    while at < total:
        if unframe_one(data, total, at, row, bad) != NO_FAULT:
            return bad.fault
        if memcmp(data + at + 8, data + 8, 16) != 0:
            return found(bad, FRAME_KEY, at, 0, 0)
        if table_add(table, row, FRAME_COLUMNS) != 0:
            return NO_MEMORY
        accum[0] = chain(row[7], accum[0])
        at = row[1] + row[2]
    return NO_FAULT


def palf_unframe(payload, accum=0):
    cdef Py_buffer view
    cdef Table table
    cdef Bad bad
    cdef int fault
    cdef uint64_t running
    check_unsigned("accum", accum)
    running = accum
    memset(&table, 0, sizeof(table))
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            fault = unframe_all(<const uint8_t *>view.buf, <size_t>view.len, &running, &table, &bad)
        if fault == NO_MEMORY:
            raise MemoryError
        if fault != NO_FAULT:
            message = f"archived log entry at offset {bad.at} of the payload: {describe(bad.fault, bad.a, bad.b)}"
            raise FormatError(message, offset=bad.at)
        key = PyBytes_FromStringAndSize(<const char *>view.buf + 8, 16) if table.used else b""
        rows = table_take(&table)
    finally:
        free(table.cells)
        PyBuffer_Release(&view)
    return PalfFrames(key, len(rows) // FRAME_COLUMNS, running, rows)
