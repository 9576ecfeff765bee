"""The blocking half of reading a seekdb's log: byte ranges of log files, past the page cache, into memory that is lent.

The engine writes its log with O_DIRECT, so the cache has none of it: reading through it would fill it with pages that
nobody needs again, at the price of a copy. Where the file system has no O_DIRECT, the pages are dropped after the read.
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

from mover.errors import FormatError, LogGapError
from mover.kernel import palf_block_header_parse
from mover.kernel.palf import BLOCK_HEADER, PALF_FILE_BYTES, PALF_FILE_HEADER
from mover.store.direct_read import DirectReadFile
from mover.store.seekdb.hold import LogHold

_PAGE = 4096
_ROOM = 2 << 20  # of one buffer: what an archiver asks for at a time, with what alignment adds
_SPARE = 2  # buffers kept for the next reads


class LentLog:
    """Log bytes in memory of the reader's. Whoever is done with them gives it back; nothing else frees it."""

    def __init__(self, reader: LogReader, room: mmap.mmap, start: int, length: int) -> None:
        self._reader = reader
        self._room: mmap.mmap | None = room
        self.data = memoryview(room)[start : start + length]

    def release(self) -> None:
        """Give the memory back; ``data`` is not to be used any more. Idempotent."""
        room, self._room = self._room, None
        if room is not None:
            self._reader.take_back(room)


class LogReader:
    """Reads ranges of the files that a hold can see. Calls block; one at a time does its work."""

    def __init__(self, hold: LogHold, log_dir: Path) -> None:
        self._hold = hold
        self._log_dir = log_dir
        self._lock = threading.Lock()
        self._file: DirectReadFile | None = None
        self._spare: list[mmap.mmap] = []

    def read(self, lsn: int, until: int, *, again: bool = False) -> tuple[LentLog, bytes | None]:
        """Bytes [lsn, until) of one file, and its block header when ``lsn`` is the file's first.

        What lies behind the end of the file reads as zeros.

        Args:
            again: what was read before may be an old state of the file.

        Raises:
            LogGapError: the file is gone.
            FormatError: it is another file than its name says.
        """
        file_id, inside = divmod(lsn, PALF_FILE_BYTES)
        with self._lock:
            file = self._open(file_id, lsn)
            if again and not file.direct:
                os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)
            first = 0 if inside == 0 else PALF_FILE_HEADER + inside
            end = PALF_FILE_HEADER + inside + until - lsn
            begin = first - first % _PAGE
            room = self._borrow(end - begin + _PAGE)
            lent = LentLog(self, room, PALF_FILE_HEADER + inside - begin, until - lsn)
            try:
                file.fill(memoryview(room)[: -(-end // _PAGE) * _PAGE - begin], begin)
                if inside:
                    return lent, None
                header = room[: BLOCK_HEADER.size]
                self._check_header(header, file_id)
                return lent, header
            except BaseException:
                lent.release()
                raise

    def where(self, file_id: int) -> Path:
        """The file as an error names it."""
        return self._hold.path_of(file_id) or self._log_dir / str(file_id)

    def take_back(self, room: mmap.mmap) -> None:
        """A buffer that was lent."""
        if len(self._spare) < _SPARE and len(room) == _ROOM:
            self._spare.append(room)

    def close(self) -> None:
        """Close the file. Idempotent; waits for a read that is under way."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file.fd)
            self._file = None

    def _borrow(self, size: int) -> mmap.mmap:
        if size <= _ROOM and self._spare:
            return self._spare.pop()
        # Private: what mmap gives by default is shared, and gets no huge pages.
        length = max(_ROOM, -(-size // _PAGE) * _PAGE)
        return mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def _open(self, file_id: int, lsn: int) -> DirectReadFile:
        for _ in range(3):
            path = self._hold.path_of(file_id)
            if path is None:
                break
            try:
                # The same number may be another file by now: that of a store that was replaced under us.
                if self._file is not None and self._file.is_at(path):
                    return self._file
                self._close()
                self._file = DirectReadFile(path)
                return self._file
            except FileNotFoundError:
                continue  # recycled between the look and the open; the hold may have it
        later = [number for number in self._hold.files() if number > file_id]
        until = later[0] * PALF_FILE_BYTES if later else (file_id + 1) * PALF_FILE_BYTES
        raise LogGapError(
            f"log [{lsn}, {until}) was recycled by the engine before it was read",
            hint="the archive has a hole there: begin a new round, then take a new full backup",
            from_lsn=lsn,
            until_lsn=until,
            path=str(self._log_dir / str(file_id)),
        )

    def _check_header(self, header: bytes, file_id: int) -> None:
        try:
            found = palf_block_header_parse(header)
        except FormatError as error:
            raise FormatError(f"{self.where(file_id)}: {error.message}", path=str(self.where(file_id))) from None
        if found.block_id != file_id or found.min_lsn != file_id * PALF_FILE_BYTES:
            raise FormatError(
                f"log file {self.where(file_id)} says it is block {found.block_id} from lsn {found.min_lsn}",
                path=str(self.where(file_id)),
            )
