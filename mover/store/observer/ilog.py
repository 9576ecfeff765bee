"""ilog, the index of the clog: which logs of which PG are confirmed, and where in the clog each lies.

A file ``ilog/<n>`` is written whole and renamed; the newest is replaced every few seconds, all others never change::

    cursors  n x 32 bytes, padded to 4096: clog file, offset, size, 0, accum_checksum, submit_ts (bit 63: batch commit)
    info     i64 length, then 72 bytes per PG as they were in memory: valid, key, hash, min and max log id and ts, start
    members  the same scheme; skipped
    tail     4096 bytes; the 40-byte trailer is at its last 512

Cursors are ordered by PG, then by log id: that of log L is at ``start + 32 * (L - min_log_id)``.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from mover.errors import FormatError, IntegrityError, SourceError
from mover.kernel import ob_crc64
from mover.media.pg import PGKey

CURSOR = struct.Struct(">iiiiqQ")
ITEM = struct.Struct("<?7xQiiQQQqqi4x")
TRAILER = struct.Struct(">hhiiiiiqQ")
TRAILER_IMAGE = struct.Struct("<hhiiiiiq")
TRAILER_MAGIC = 0x4C43
TAIL_SIZE = 512
_PAGE = 4096
_LENGTH = struct.Struct(">q")
BATCH_COMMITTED = 1 << 63
_OUT_OF_PLACE = 10_000  # logs that may be behind one which lies in a later file
_KEPT = 4  # files whose bytes are kept for the next look


class IlogCursor(NamedTuple):
    """Where a confirmed log is."""

    file_id: int
    offset: int
    size: int  # of the item in the clog, compressed if it is
    accum: int
    submit_ts: int  # us
    batch_committed: bool


@dataclass(frozen=True, slots=True)
class IlogRange:
    """Confirmed logs of one PG that one file knows."""

    min_log_id: int
    max_log_id: int
    min_log_ts: int
    max_log_ts: int
    start: int  # of its first cursor in the file

    def __contains__(self, log_id: int) -> bool:
        return self.min_log_id <= log_id <= self.max_log_id


@dataclass(frozen=True, slots=True)
class IlogFile:
    """An ilog file that was read and whose checksums hold."""

    ranges: dict[PGKey, IlogRange]
    data: bytes = field(repr=False)

    def cursor(self, found: IlogRange, log_id: int) -> IlogCursor:
        """Of a log that is in the range."""
        place = found.start + CURSOR.size * (log_id - found.min_log_id)
        file_id, offset, size, _, accum, submit = CURSOR.unpack_from(self.data, place)
        return IlogCursor(file_id, offset, size, accum, submit & ~BATCH_COMMITTED, bool(submit & BATCH_COMMITTED))


def parse_ilog(data: bytes, path: str = "ilog") -> IlogFile:
    """Decode and check a whole ilog file. Raises FormatError, IntegrityError."""

    def bad(what: str, offset: int) -> FormatError:
        return FormatError(f"{path}: {what}", path=path, offset=offset)

    at = len(data) - TAIL_SIZE
    if at < 0:
        raise bad(f"{len(data)} bytes are no ilog file", 0)
    magic, pad, pad2, info_at, info_size, members_at, members_size, content, check = TRAILER.unpack_from(data, at)
    if magic != TRAILER_MAGIC:
        hint = "an ilog file from before 2.1 is not read" if magic & 0xFFFF else "it may be in the middle of a write"
        raise FormatError(f"{path}: trailer magic {magic & 0xFFFF:#06x}", hint=hint, path=path, offset=at)
    image = TRAILER_IMAGE.pack(magic, pad, pad2, info_at, info_size, members_at, members_size, content)
    if ob_crc64(image) != check:
        raise bad("the trailer's checksum does not hold", at)
    end = members_at + members_size
    if not 0 <= info_at <= info_at + info_size <= members_at <= end <= at or info_at % _PAGE:
        raise bad(f"info at {info_at} + {info_size} and members at {members_at} + {members_size}", at)
    if ob_crc64(memoryview(data)[:end]) != content & 0xFFFFFFFF:
        raise IntegrityError(f"{path}: the content's checksum does not hold", path=path, offset=0)
    (length,) = _LENGTH.unpack_from(data, info_at)
    if not 0 <= length <= info_size - _LENGTH.size or length % ITEM.size:
        raise bad(f"an info block of {length} bytes is not {ITEM.size} bytes per PG", info_at)
    ranges: dict[PGKey, IlogRange] = {}
    taken: list[tuple[int, int]] = []
    for start in range(info_at + _LENGTH.size, info_at + _LENGTH.size + length, ITEM.size):
        valid, table, part, assist, _, low, high, low_ts, high_ts, first = ITEM.unpack_from(data, start)
        if not valid:
            continue
        size = CURSOR.size * (high - low + 1)
        if high < low or first < 0 or first % CURSOR.size or first + size > info_at:
            raise bad(f"cursors of logs {low} to {high} at {first} are outside of the file's {info_at}", start)
        ranges[PGKey(table, part, assist)] = IlogRange(low, high, low_ts, high_ts, first)
        taken.append((first, first + size))
    taken.sort()
    if any(before[1] > after[0] for before, after in pairwise(taken)):
        raise bad("cursors of two PGs overlap", info_at)
    return IlogFile(ranges, data)


class Ilog:
    """The ilog directory of one server. Calls block.

    Args:
        directory: ``<data>/ilog``.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ranges: dict[int, dict[PGKey, IlogRange]] = {}
        self._seen: dict[int, tuple[int, int, int]] = {}
        self._files: dict[int, IlogFile] = {}  # the last few that were looked into
        self._by_pg: dict[PGKey, list[tuple[int, IlogRange]]] = {}

    def refresh(self) -> None:
        """See what was written since. Raises IntegrityError when a file is damaged, SourceError when unreadable."""
        try:
            names = [entry.name for entry in os.scandir(self._directory)]
        except OSError as error:
            raise SourceError(f"cannot read {self._directory}: {error.strerror}", path=str(self._directory)) from None
        ids = sorted(int(name) for name in names if name.isascii() and name.isdecimal())
        changed = False
        for gone in self._seen.keys() - set(ids):
            del self._seen[gone], self._ranges[gone]
            self._files.pop(gone, None)
            changed = True
        for number in ids:
            for attempt in (1, 2, 3):
                try:
                    changed |= self._look(number)
                    break
                except FileNotFoundError:
                    break  # removed since it was listed
                except IntegrityError:
                    if attempt == 3:
                        raise
        if changed:
            self._by_pg = {}
            for number in sorted(self._ranges):
                for pg, found in self._ranges[number].items():
                    self._by_pg.setdefault(pg, []).append((number, found))

    def _look(self, number: int) -> bool:
        status = os.stat(self._directory / str(number))
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._seen.get(number) == stamp:
            return False
        file, stamp = self._read(number)
        self._ranges[number], self._seen[number] = file.ranges, stamp
        self._keep(number, file)
        return True

    def _read(self, number: int) -> tuple[IlogFile, tuple[int, int, int]]:
        path = self._directory / str(number)
        with path.open("rb") as opened:
            # One open file is one version: the next one comes by a rename.
            data, status = opened.read(), os.fstat(opened.fileno())
        return parse_ilog(data, str(path)), (status.st_ino, status.st_size, status.st_mtime_ns)

    def _keep(self, number: int, file: IlogFile) -> None:
        self._files.pop(number, None)
        self._files[number] = file
        while len(self._files) > _KEPT:
            del self._files[next(iter(self._files))]

    def ranges(self, pg: PGKey) -> list[IlogRange]:
        """What is known of a PG, oldest file first."""
        return [found for _, found in self._by_pg.get(pg, ())]

    def pgs(self) -> set[PGKey]:
        """The PGs that have confirmed logs."""
        return set(self._by_pg)

    def last(self, pg: PGKey) -> int:
        """The greatest log id of a PG that is confirmed here, 0 when there is none."""
        return max((found.max_log_id for _, found in self._by_pg.get(pg, ())), default=0)

    def cursor(self, pg: PGKey, log_id: int) -> IlogCursor | None:
        """Where a log is; None when no file knows it. The newest file that does is believed."""
        for number, found in reversed(self._by_pg.get(pg, ())):
            if log_id in found:
                return self._file(number).cursor(found, log_id)
        return None

    def oldest_in(self, pg: PGKey, first_file: int) -> tuple[int, IlogCursor | None]:
        """(log id, cursor of the log before it) of the oldest log from which on all lie in ``first_file`` or later.

        The cursor is None where no file knows it. Logs lie in the clog nearly in the order of their ids: a log that was
        proposed again lies a little behind its place.
        """
        before: tuple[int, IlogCursor] | None = None
        for number, found in self._by_pg.get(pg, ()):
            file = self._file(number)

            def gone(log_id: int, file: IlogFile = file, found: IlogRange = found) -> bool:
                return file.cursor(found, log_id).file_id < first_file

            if gone(found.max_log_id):
                before = found.max_log_id, file.cursor(found, found.max_log_id)
                continue
            ids = range(found.min_log_id, found.max_log_id + 1)
            start = ids[bisect_left(ids, True, key=lambda log_id: not gone(log_id))]
            for log_id in range(start, min(found.max_log_id, start + _OUT_OF_PLACE) + 1):
                if gone(log_id):
                    start = log_id + 1
            if start > found.min_log_id:
                before = start - 1, file.cursor(found, start - 1)
            known = before is not None and before[0] == start - 1
            return start, before[1] if known and before is not None else None
        assert before is not None, "asked for a PG that the index does not know"
        return before[0] + 1, before[1]

    def _file(self, number: int) -> IlogFile:
        file = self._files.get(number)
        if file is None:
            file, _ = self._read(number)
            self._keep(number, file)
        return file
