"""Following the clog of one server, file after file, up to its live tail. Calls block; one thread at a time.

The tail moves while it is read, and files are not what their names say for long: an old one is renamed to be the next.
So what counts as log is what the walk of the kernel verifies, the position is always behind the last whole block, and
every read is checked to be of the file that still has that name. An observer's files cannot be held: a hard link would
show the new content of a file that is taken for reuse.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mover.errors import IntegrityError, LogGapError, SourceError
from mover.kernel import ClogStop, ClogWalk, clog_walk, ob_crc64
from mover.kernel.clog import (
    BLOCK_IMAGE,
    BLOCK_MAGIC,
    BLOCK_META,
    BLOCK_VERSION,
    CLOG_FILE_BYTES,
    CLOG_TRAILER_AT,
    STALE_US,
)
from mover.media.pg import PGKey
from mover.store.direct_read import DirectReadFile
from mover.store.observer.clog_end import read_end

_PAGE = 4096
_WINDOW = 8 << 20  # read at a time: several of the largest blocks
_TAIL_WINDOW = 256 << 10  # at the live tail little is new
_SIGNATURE = BLOCK_MAGIC.to_bytes(2, "big") + BLOCK_VERSION.to_bytes(2, "big")


class ClogReader:
    """See the module.

    Args:
        directory: ``<data>/clog``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file_id = 0  # 0: not begun
        self.offset = 0
        self._timestamp = 0  # of the last block
        self._file: DirectReadFile | None = None
        self._room: mmap.mmap | None = None
        self._window = _TAIL_WINDOW
        self.at_end = False
        self.read_bytes = 0

    def file_ids(self) -> list[int]:
        """The files there are, ascending. Raises SourceError."""
        try:
            names = [entry.name for entry in os.scandir(self.directory)]
        except OSError as error:
            raise SourceError(f"cannot read {self.directory}: {error.strerror}", path=str(self.directory)) from None
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def oldest_us(self) -> int:
        """When the first block of the oldest file was written, us; 0 when there is none."""
        for number in self.file_ids()[:1]:
            with (self.directory / str(number)).open("rb") as file:
                head = file.read(BLOCK_META.size)
            if len(head) == BLOCK_META.size:
                *fields, check = BLOCK_META.unpack(head)
                if fields[0] == BLOCK_MAGIC and ob_crc64(BLOCK_IMAGE.pack(*fields)) == check:
                    return int(fields[5])
        return 0

    def begin(self, needed: Callable[[dict[PGKey, int]], bool]) -> None:
        """Go to the first file that has log somebody needs.

        Args:
            needed: told the last log id of each PG in a complete file; is there log in it that is wanted?
        """
        ids = self.file_ids()
        if not ids:
            raise SourceError(f"{self.directory} has no clog file", path=str(self.directory))
        for number in ids:
            try:
                end = read_end(self.directory / str(number))
            except FileNotFoundError:
                continue
            if end is None or needed(end.max_log_ids):
                break
        self._go(number)
        self._timestamp = 0

    def _go(self, file_id: int) -> None:
        self._close_file()
        self.file_id, self.offset = file_id, 0

    def walk(self, limit: int) -> Iterator[tuple[int, int, memoryview, ClogWalk]]:
        """Everything from the position on, until about ``limit`` bytes were read or the log ends.

        Yields (file id, file offset of the bytes, the bytes, what was found in them); the bytes are valid until the
        next one is asked for. After the last one :attr:`at_end` says whether the log ended.

        Raises:
            LogGapError: the file at the position is gone.
            IntegrityError: a file that is followed by another one is not complete.
        """
        self.at_end = False
        done = 0
        while done < limit:
            found = self._step()
            if found is None:
                self.at_end = True
                return
            base, data, walk = found
            if walk.blocks:
                done += walk.end
                yield self.file_id, base, data, walk
            if walk.stop is ClogStop.END and walk.blocks:
                continue
            if self._closed(walk):
                self._go(self.file_id + 1)
                if self.file_id not in self.file_ids():
                    self.at_end = True
                    return
                continue
            self._require_live(walk)
            self.at_end = True
            return

    def _step(self) -> tuple[int, memoryview, ClogWalk] | None:
        """One window: walked from the position on, and the position moved. None when there is no such file yet."""
        path = self.directory / str(self.file_id)
        while True:
            base = self.offset - self.offset % _PAGE
            length = min(self._window, CLOG_FILE_BYTES - base)
            view = self._memory(length)
            try:
                if self._file is None:
                    self._file = DirectReadFile(path)
                self._file.fill(view, base)
                same = self._file.is_at(path)
            except FileNotFoundError:
                same = False
            except OSError as error:
                raise SourceError(f"cannot read {path}: {error.strerror}", path=str(path)) from None
            if not same:
                self._close_file()
                ids = self.file_ids()
                if self.file_id in ids:
                    continue  # it was replaced under its name: read what it is now
                if not ids or self.file_id > ids[-1]:
                    return None  # it is still to come
                raise LogGapError(
                    f"clog file {path} was recycled before it was read; the oldest there is now is {ids[0]}",
                    hint="the archive has a hole there: begin a new round, then take a new full backup",
                    path=str(path),
                )
            self.read_bytes += length
            walk = clog_walk(view, self.offset - base, self._timestamp)
            whole = base + length >= CLOG_FILE_BYTES
            if walk.stop is ClogStop.END and not walk.blocks and not whole:
                if self._window >= CLOG_FILE_BYTES:
                    break
                self._window *= 4  # the next block does not fit
                continue
            break
        self.offset, self._timestamp = base + walk.end, walk.timestamp
        # More behind it? Then the next window may be a large one.
        self._window = _WINDOW if walk.stop is ClogStop.END and walk.blocks else _TAIL_WINDOW
        return base, view, walk

    def _closed(self, walk: ClogWalk) -> bool:
        """Is the file at the position complete, its info block and trailer on disk?"""
        if walk.stop not in (ClogStop.INFO, ClogStop.PADDING):
            return False
        try:
            end = read_end(self.directory / str(self.file_id))
        except FileNotFoundError:
            return False
        # Padding fills up the page; a trailer and info block that were there before a reuse are somewhere else.
        there = end is not None and 0 <= end.start - self.offset <= 2 * _PAGE
        return there and end is not None and end.timestamp >= self._timestamp - STALE_US

    def _require_live(self, walk: ClogWalk) -> None:
        """The log ends here without an info block: then this must be the newest file."""
        ids = self.file_ids()
        if self.file_id + 1 not in ids:
            return
        # It may have been written to and closed since it was read.
        position, written = self.offset, self._timestamp
        self._close_file()
        again = self._step()
        self.offset, self._timestamp = position, written
        if again is None or again[2].blocks or self._closed(again[2]):
            return
        raise IntegrityError(
            f"clog file {self.directory / str(self.file_id)} ends at offset {self.offset} without an info block, but"
            f" file {self.file_id + 1} is there: {walk.reason or walk.stop.name.lower()}",
            hint="if the server was restored or its disk is damaged, archive from another replica",
            path=str(self.directory / str(self.file_id)),
            offset=self.offset,
        )

    def newer_block(self) -> int | None:
        """The offset of a valid block behind the position that is newer than the last one: what lies between is
        damaged. None when the log ends at the position."""
        path = self.directory / str(self.file_id)
        try:
            with path.open("rb") as file:
                file.seek(self.offset)
                rest = file.read()
        except OSError:
            return None
        at = rest.find(_SIGNATURE, 1)
        while at >= 0:
            if at + BLOCK_META.size <= min(len(rest), CLOG_TRAILER_AT - self.offset):
                *fields, check = BLOCK_META.unpack_from(rest, at)
                if ob_crc64(BLOCK_IMAGE.pack(*fields)) == check and fields[5] > self._timestamp:
                    return self.offset + at
            at = rest.find(_SIGNATURE, at + 1)
        return None

    def _memory(self, length: int) -> memoryview:
        if self._room is None or len(self._room) < length:
            self._room = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return memoryview(self._room)[:length]

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._close_file()
