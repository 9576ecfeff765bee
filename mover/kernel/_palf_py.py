"""Walking PALF log and wrapping it for the archive, in pure Python. Twin of ``_native/palf.pyx``."""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

import xxhash

from mover.errors import FormatError
from mover.kernel._checksum_py import ob_crc64
from mover.kernel.faults import Fault, describe
from mover.kernel.limits import check_unsigned
from mover.kernel.palf import (
    BLOCK_HEADER,
    ENTRY_HEADER,
    ENTRY_IMAGE,
    ENTRY_MAGIC,
    ENTRY_VERSION,
    FLAG_CHECK_MASK,
    FLAG_PADDING,
    FRAME_COLUMNS,
    GROUP_BODY,
    GROUP_BODY_HAS_BLOCK_HEADER,
    GROUP_BODY_VERSION,
    GROUP_COLUMNS,
    GROUP_HEADER,
    GROUP_IMAGE,
    GROUP_MAGIC,
    GROUP_VERSION,
    LOG_ENTRY_HEADER,
    LOG_ENTRY_IMAGE,
    LOG_ENTRY_MAGIC,
    LOG_ENTRY_VERSION,
    LOG_TYPE_PALF_GROUP,
    MAX_PAYLOAD,
    PADDING_CHECKED_BYTES,
    PALF_FILE_BYTES,
    PalfFrames,
    PalfStop,
    PalfWalk,
    check_frames,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MASK32 = 0xFFFFFFFF
_MASK64 = (1 << 64) - 1
_SECTOR = 512
_GROUP_START = struct.pack(">HH", GROUP_MAGIC, GROUP_VERSION)
_LE64 = struct.Struct("<Q")
_PG_KEY = struct.Struct(">Qii")


class _Bad(Exception):
    """A check failed at ``at`` of the buffer: found ``a``, compared with ``b``."""

    def __init__(self, fault: Fault, at: int, a: int = 0, b: int = 0) -> None:
        super().__init__(fault, at, a, b)
        self.at = at
        self.words = describe(fault, a, b)


def _check16(image: bytes) -> int:
    return xxhash.xxh64_intdigest(image) & FLAG_CHECK_MASK


def _chain(value: int, previous: int) -> int:
    return ob_crc64(_LE64.pack(value & _MASK64), previous)


def _walk_entries(view: memoryview, start: int, end: int, padding: bool) -> tuple[int, int, int]:
    """Verify the entries in ``view[start:end]``: (the group's data checksum, scn of the first and the last entry)."""
    checksum = first_scn = scn = 0
    at = start
    while at < end:
        if end - at < ENTRY_HEADER.size:
            raise _Bad(Fault.ENTRY_SHORT, at, end - at)
        magic, version, size, scn, data_checksum, flag = ENTRY_HEADER.unpack_from(view, at)
        if magic != ENTRY_MAGIC or version != ENTRY_VERSION:
            raise _Bad(Fault.ENTRY_MAGIC, at, magic, version)
        check = _check16(ENTRY_IMAGE.pack(magic, version, size, scn, data_checksum, flag & ~FLAG_CHECK_MASK))
        if check != flag & FLAG_CHECK_MASK:
            raise _Bad(Fault.ENTRY_CHECK, at, flag & FLAG_CHECK_MASK, check)
        body = at + ENTRY_HEADER.size
        if not 0 < size <= end - body:
            raise _Bad(Fault.ENTRY_FIT, at, size & _MASK32, end - body)
        actual = ob_crc64(view[body : body + (min(size, PADDING_CHECKED_BYTES) if padding else size)])
        if actual != data_checksum:
            raise _Bad(Fault.ENTRY_DATA, at, data_checksum, actual)
        if at == start:
            first_scn = scn
        if not padding:
            checksum = _chain(data_checksum, checksum)
        at = body + size
    return checksum, first_scn, scn


def _content_end(view: memoryview, start: int) -> int:
    """Offset behind the last byte of ``view[start:]`` that is not zero; ``start`` when there is none."""
    zeros = bytes(1 << 16)
    end = len(view)
    while end - start >= len(zeros) and view[end - len(zeros) : end] == zeros:
        end -= len(zeros)
    low = max(start, end - len(zeros))
    return low + len(bytes(view[low:end]).rstrip(b"\0"))


def palf_walk(
    buf: Buffer,
    lsn: int,
    *,
    accum: int | None = None,
    log_id: int | None = None,
    until_lsn: int | None = None,
) -> PalfWalk:
    """Verify the group entries at the start of ``buf``.

    Args:
        buf: log bytes; the first byte is the start of a group and has LSN ``lsn``. Never read beyond its end.
        lsn: byte position in the log; decides where a file ends, which no group may cross.
        accum: accumulated checksum of the group before (PALF_START_ACCUM at LSN 0); None trusts the first group's own.
        log_id: the id the first group must have; None accepts any.
        until_lsn: take only groups that end at or before it.

    Returns:
        What is valid, and why the walk ended there. Bad bytes are an answer, not an exception. A group that fails a
        check counts as TORN when its last sectors and all behind it are zeros, as a write in flight leaves them.

    Raises:
        ValueError: a number that is not unsigned 64-bit (``lsn``: 63-bit).
    """
    for name, value in (("lsn", lsn), ("accum", accum), ("log_id", log_id), ("until_lsn", until_lsn)):
        check_unsigned(name, value)
    view = memoryview(buf).cast("B")
    total = len(view)
    groups = array("Q")
    at = first_id = last_id = first_scn = last_scn = 0
    chain, expected_id = accum, log_id
    stop, reason = PalfStop.END, ""
    while at < total:
        end = total
        try:
            if until_lsn is not None and lsn + at >= until_lsn:
                stop = PalfStop.UNTIL
                break
            head = bytes(view[at : at + GROUP_HEADER.size])
            if not any(head):
                stop = PalfStop.ZERO
                break
            if len(head) < GROUP_HEADER.size:
                stop = PalfStop.TORN if _GROUP_START.startswith(head[:4]) else PalfStop.CORRUPT
                reason = f"{describe(Fault.GROUP_SHORT, len(head), 0)} at lsn {lsn + at}"
                break
            magic, version, size, committed, max_scn, accumulated, group_id, flag = GROUP_HEADER.unpack(head)
            if magic != GROUP_MAGIC or version != GROUP_VERSION:
                raise _Bad(Fault.GROUP_MAGIC, at, magic, version)
            fields = (magic, version, size, committed, max_scn, accumulated, group_id)
            check = _check16(GROUP_IMAGE.pack(*fields, flag & ~FLAG_CHECK_MASK))
            if check != flag & FLAG_CHECK_MASK:
                raise _Bad(Fault.GROUP_CHECK, at, flag & FLAG_CHECK_MASK, check)
            body = at + GROUP_HEADER.size
            if size <= 0 or (lsn + at) % PALF_FILE_BYTES + GROUP_HEADER.size + size > PALF_FILE_BYTES:
                raise _Bad(Fault.GROUP_CROSSES, at, size & _MASK32)
            if until_lsn is not None and lsn + body + size > until_lsn:
                stop = PalfStop.UNTIL
                break
            if expected_id is not None and group_id != expected_id:
                raise _Bad(Fault.GROUP_LOG_ID, at, group_id, expected_id)
            if max_scn < last_scn:
                raise _Bad(Fault.GROUP_SCN_BACK, at, max_scn, last_scn)
            if size > total - body:
                stop = PalfStop.TORN
                reason = f"{describe(Fault.GROUP_TORN, size, total - body)} at lsn {lsn + at}"
                break
            end = body + size
            checksum, min_scn, entry_scn = _walk_entries(view, body, end, bool(flag & FLAG_PADDING))
            if entry_scn != max_scn:
                raise _Bad(Fault.GROUP_SCN_LAST, at, entry_scn, max_scn)
            if chain is not None and _chain(checksum, chain) != accumulated:
                raise _Bad(Fault.GROUP_ACCUM, at, accumulated, _chain(checksum, chain))
        except _Bad as bad:
            written = lsn + _content_end(view, at)
            torn = end < total and -(-written // _SECTOR) * _SECTOR < lsn + end
            stop, reason = PalfStop.TORN if torn else PalfStop.CORRUPT, f"{bad.words} at lsn {lsn + bad.at}"
            break
        if not groups:
            first_id, first_scn = group_id, min_scn
        groups.extend((at, end - at, group_id, min_scn, max_scn, accumulated, flag))
        chain, last_id, last_scn = accumulated, group_id, max_scn
        expected_id = (group_id + 1) & _MASK64
        at = end
    count = len(groups) // GROUP_COLUMNS
    return PalfWalk(at, lsn + at, stop, reason, count, first_id, last_id, first_scn, last_scn, chain, groups)


def palf_cut(group: Buffer, until_scn: int, accum: int) -> bytes | None:
    """Keep the entries of one group up to ``until_scn`` (inclusive).

    Args:
        group: one whole valid group, header and body.
        until_scn: ns.
        accum: accumulated checksum of the group before it.

    Returns:
        The group itself when it ends by then; a shorter group with a new header (size, max_scn, accumulated checksum,
        header check); None when no entry is that old. A padding group is kept whole or dropped.

    Raises:
        FormatError: not one whole valid group that continues ``accum``.
    """
    view = memoryview(group).cast("B")
    walk = palf_walk(view, 0, accum=accum)
    if walk.group_count != 1 or walk.stop != PalfStop.END:
        raise FormatError(f"not one whole log group: {walk.stop.name.lower()} {walk.reason}".rstrip())
    if walk.max_scn <= until_scn:
        return bytes(view)
    magic, version, _, committed, _, _, group_id, flag = GROUP_HEADER.unpack_from(view)
    if walk.min_scn > until_scn or flag & FLAG_PADDING:
        return None
    at, checksum, max_scn = GROUP_HEADER.size, 0, 0
    while at < len(view):
        _, _, size, scn, data_checksum, _ = ENTRY_HEADER.unpack_from(view, at)
        if scn > until_scn:
            break
        checksum, max_scn = _chain(data_checksum, checksum), scn
        at += ENTRY_HEADER.size + size
    flag &= ~FLAG_CHECK_MASK
    fields = (magic, version, at - GROUP_HEADER.size, committed, max_scn, _chain(checksum, accum), group_id)
    flag |= _check16(GROUP_IMAGE.pack(*fields, flag))
    return GROUP_HEADER.pack(*fields, flag) + bytes(view[GROUP_HEADER.size : at])


def _murmur64a(data: bytes, seed: int) -> int:
    """MurmurHash64A of 4 or 8 bytes, which is all that a partition key needs."""
    m = 0xC6A4A7935BD1E995
    h = (seed ^ len(data) * m) & _MASK64
    if len(data) == 8:
        k = int.from_bytes(data, "little") * m & _MASK64
        k = (k ^ k >> 47) * m & _MASK64
        h = (h ^ k) * m & _MASK64
    else:
        h = (h ^ int.from_bytes(data, "little")) * m & _MASK64
    h = (h ^ h >> 47) * m & _MASK64
    return h ^ h >> 47


def pg_key_hash(table_id: int, part_id: int, assist_id: int) -> int:
    """The hash that OceanBase 3.1 keeps beside a partition key in memory, and so in a log entry's header checksum."""
    h = _murmur64a(table_id.to_bytes(8, "little"), 0)
    h = _murmur64a(part_id.to_bytes(4, "little", signed=True), h)
    return _murmur64a(assist_id.to_bytes(4, "little", signed=True), h)


def log_entry_checksum(fields: tuple[int, ...]) -> int:
    """Checksum of an ObLogEntryHeader, from the first 15 of its fields in disk order (LOG_ENTRY_HEADER)."""
    magic, version, log_type, table_id, part_id, assist_id, log_id, size, generated, epoch, ip_version = fields[:11]
    server, proposed, submitted, data_checksum, freeze = fields[11:16]
    return ob_crc64(
        LOG_ENTRY_IMAGE.pack(
            magic,
            version,
            log_type,
            table_id,
            part_id,
            assist_id,
            pg_key_hash(table_id, part_id, assist_id),
            log_id,
            size,
            generated,
            epoch,
            ip_version,
            (server >> 32 & _MASK32).to_bytes(4, "little"),  # struct pads it to the 16 bytes of the address union
            (server & _MASK32) - (server << 1 & 1 << 32),
            proposed,
            submitted,
            data_checksum,
            freeze,
        )
    )


def palf_frame_groups(
    into: Buffer,
    buf: Buffer,
    lsn: int,
    groups: array[int],
    pg_key: bytes,
    epoch: int,
    accum: int,
    block_header: Buffer | None = None,
    *,
    start: int = 0,
    max_bytes: int = MAX_PAYLOAD,
) -> tuple[int, int, int]:
    """Wrap groups into an archive payload: back-to-back ObLogEntries of type 401, one per group.

    Args:
        into: where the payload goes, not overlapping ``buf``. What is behind the payload is left as it was.
        buf, lsn: the buffer that was walked and the LSN of its first byte.
        groups: ``PalfWalk.groups`` of that walk.
        pg_key: ``PGKey.pack()``, 16 bytes.
        epoch: of the archiver; becomes epoch_id.
        accum: the archive's running checksum before the first entry, 0 at the start of a round.
        block_header: 48 bytes of the source log file's header, stored with the first entry.
        start: index of the first group to take.
        max_bytes: stop before the payload would grow beyond it; a single larger group is taken alone.

    Returns:
        The payload's length, the running checksum after it, and how many groups it holds (0 when ``start`` is the end).

    Raises:
        ValueError: arguments that do not fit each other, or a payload that does not fit ``into``. The groups are not
            verified again.
    """
    view = memoryview(buf).cast("B")
    header = b"" if block_header is None else bytes(memoryview(block_header).cast("B"))
    check_frames(lsn, groups, pg_key, epoch, accum, block_header is not None, len(header), start)
    key = _PG_KEY.unpack(pg_key)
    out = bytearray()
    count = 0
    for row in range(start * GROUP_COLUMNS, len(groups), GROUP_COLUMNS):
        offset, size, log_id, _, max_scn = groups[row : row + 5]
        if offset + size > len(view):
            raise ValueError(f"group at offset {offset} of {size} bytes is outside the buffer")
        extra = header if count == 0 else b""
        body_size = GROUP_BODY.size + len(extra) + size
        if out and len(out) + LOG_ENTRY_HEADER.size + body_size > max_bytes:
            break
        flags = GROUP_BODY_HAS_BLOCK_HEADER if extra else 0
        body = GROUP_BODY.pack(GROUP_BODY_VERSION, flags, 0, lsn + offset) + extra + view[offset : offset + size]
        checksum = ob_crc64(body)
        at_us = max_scn // 1000
        fields = (
            *(LOG_ENTRY_MAGIC, LOG_ENTRY_VERSION, LOG_TYPE_PALF_GROUP),
            *key,
            *(log_id, body_size, at_us, epoch),
            *(4, 0, 0),  # proposal: IPv4, no server, no time
            *(at_us, checksum, 0),
        )
        out += LOG_ENTRY_HEADER.pack(*fields, log_entry_checksum(fields))
        out += body
        accum = _chain(checksum, accum)
        count += 1
    room = memoryview(into).cast("B")
    if len(out) > len(room):
        raise ValueError(f"{len(out)} bytes of entries do not fit into {len(room)}")
    room[: len(out)] = out
    return len(out), accum, count


def palf_unframe(payload: Buffer, accum: int = 0) -> PalfFrames:
    """Verify an archive payload made of type 401 entries, and say where its groups are.

    Args:
        payload: the whole (decompressed) payload of one archive block.
        accum: the archive's running checksum before it.

    Returns:
        Key, count, running checksum after the last entry, and the table. The caller compares the running checksum
        with the block's, and walks the groups for their own checksums.

    Raises:
        FormatError: an entry is cut off, has a wrong magic, version or type, does not match its header or data
            checksum, is of another PG than the first, or has a body that is not a wrapped group.
    """
    check_unsigned("accum", accum)
    view = memoryview(payload).cast("B")
    table = array("Q")
    key = b""
    at = 0
    try:
        while at < len(view):
            row = _unframe_one(view, at)
            if key and key != view[at + 8 : at + 24]:
                raise _Bad(Fault.FRAME_KEY, at)
            key = bytes(view[at + 8 : at + 24])
            table.extend(row)
            accum = _chain(row[7], accum)
            at = row[1] + row[2]
    except _Bad as bad:
        message = f"archived log entry at offset {bad.at} of the payload: {bad.words}"
        raise FormatError(message, offset=bad.at) from None
    return PalfFrames(key, len(table) // FRAME_COLUMNS, accum, table)


def _unframe_one(view: memoryview, at: int) -> tuple[int, ...]:
    """Verify the entry at ``at``: its row of the table."""
    if len(view) - at < LOG_ENTRY_HEADER.size:
        raise _Bad(Fault.FRAME_SHORT, at, len(view) - at)
    fields = LOG_ENTRY_HEADER.unpack_from(view, at)
    if fields[0] != LOG_ENTRY_MAGIC or fields[1] != LOG_ENTRY_VERSION:
        raise _Bad(Fault.FRAME_MAGIC, at, fields[0] & 0xFFFF, fields[1] & 0xFFFF)
    check = log_entry_checksum(fields)
    if check != fields[16] & _MASK64:
        raise _Bad(Fault.FRAME_CHECK, at, fields[16] & _MASK64, check)
    log_type, log_id, size, epoch, ip_version = fields[2], fields[6], fields[7], fields[9], fields[10]
    submitted, data_checksum = fields[13], fields[14] & _MASK64
    if log_type != LOG_TYPE_PALF_GROUP:
        raise _Bad(Fault.FRAME_TYPE, at, log_type & _MASK32, LOG_TYPE_PALF_GROUP)
    if ip_version != 4 or submitted < 0 or epoch < 0:
        raise _Bad(Fault.FRAME_FIELDS, at, ip_version & 0xFF, (submitted | epoch) & _MASK64)
    body = at + LOG_ENTRY_HEADER.size
    if not GROUP_BODY.size <= size <= len(view) - body:
        raise _Bad(Fault.FRAME_FIT, at, size & _MASK64, len(view) - body)
    actual = ob_crc64(view[body : body + size])
    if actual != data_checksum:
        raise _Bad(Fault.FRAME_DATA, at, data_checksum, actual)
    version, flags, reserved, lsn = GROUP_BODY.unpack_from(view, body)
    if version != GROUP_BODY_VERSION or flags not in (0, GROUP_BODY_HAS_BLOCK_HEADER) or reserved or lsn < 0:
        raise _Bad(Fault.FRAME_BODY, at, (version & 0xFFFF) << 16 | flags & 0xFFFF, reserved & _MASK32)
    prefix = GROUP_BODY.size + (BLOCK_HEADER.size if flags else 0)
    if size < prefix + GROUP_HEADER.size:
        raise _Bad(Fault.FRAME_NO_GROUP, at, size)
    return body, body + prefix, size - prefix, lsn, log_id, submitted, epoch, data_checksum
