"""The PALF log of a seekdb, read from its files while the engine writes them.

File ``N`` holds the log bytes [N * 67104768, (N + 1) * 67104768) behind a 4096-byte page. The engine preallocates it,
fills it in place and some time later unlinks it; :mod:`mover.store.seekdb.hold` keeps what it unlinks. Only bytes below
the committed end are ever returned: the engine's own END_LSN while it runs, the end of the last valid group when not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mover.errors import IntegrityError, SourceError
from mover.kernel import PalfStop, PalfWalk, palf_walk
from mover.kernel.palf import BLOCK_HEADER, PALF_FILE_BYTES, PALF_FILE_HEADER
from mover.store.base import LogChunk, LogCursor
from mover.store.seekdb.catalog import Catalog
from mover.store.seekdb.hold import LogHold
from mover.store.seekdb.log_reader import LentLog, LogReader
from mover.store.seekdb.paths import StorePaths

# A group that the engine calls committed may be invisible for a moment to a reader beside its direct I/O.
_TORN_ATTEMPTS = 8
_TORN_SECONDS = 0.05
# Log of one group is at most a few MiB; a walk that finds none in this much has met damage, not a large group.
_GROUP_CEILING = 32 << 20


class LogEnd(NamedTuple):
    """The end of valid log found by walking files, and the chain state there."""

    lsn: int
    scn: int
    log_id: int | None
    accum: int | None


class SeekdbLog:
    """The log stream as a :class:`mover.store.base.LogSource`, with a hold of its own.

    Args:
        paths: the store's directories.
        holder: name of the hold, "archive" or "backup".
        catalog: the running engine; None for a stopped store, whose log ends where the walk ends.
    """

    def __init__(self, paths: StorePaths, holder: str, catalog: Catalog | None) -> None:
        self._paths = paths
        self._catalog = catalog
        self._hold = LogHold(paths.palf_log, hold_roots(paths), holder)
        self._reader = LogReader(self._hold, paths.palf_log)
        self._end: tuple[int, int] | None = None

    @classmethod
    async def open(cls, paths: StorePaths, holder: str, catalog: Catalog | None) -> SeekdbLog:
        """The log; a hold that an earlier process of ``holder`` left behind goes on.

        Raises:
            PreconditionError: another living process is this holder.
        """
        log = cls(paths, holder, catalog)
        await asyncio.to_thread(log._hold.open)
        return log

    @property
    def held_from(self) -> int | None:
        """LSN from which log is held; None = nothing is."""
        return self._hold.from_lsn

    async def held_bytes(self) -> int:
        """Disk space that only this hold keeps: log the engine has recycled already."""
        return await asyncio.to_thread(self._hold.held_bytes)

    async def begin_lsn(self) -> int:
        """See :class:`mover.store.base.LogSource`. Files behind a hole do not count."""
        ids = list(await asyncio.to_thread(self._hold.files))
        if not ids:
            raise SourceError(f"{self._paths.palf_log} has no log files", path=str(self._paths.palf_log))
        begin = len(ids) - 1
        while begin > 0 and ids[begin - 1] == ids[begin] - 1:
            begin -= 1
        return ids[begin] * PALF_FILE_BYTES

    async def end(self) -> tuple[int, int]:
        """(LSN, SCN) up to which the log is committed now."""
        if self._catalog is not None:
            stat = await self._catalog.log_stat()
            self._end = (stat.end_lsn, stat.end_scn)
        else:
            found = await asyncio.to_thread(lambda: walk_to_end(self._hold.files()))
            self._end = (found.lsn, found.scn)
        return self._end

    async def hold(self, lsn: int) -> None:
        """See :class:`mover.store.base.LogSource`; LogGapError when ``lsn`` is gone already. Idempotent."""
        await asyncio.to_thread(self._hold.hold, lsn)

    async def release(self, lsn: int) -> None:
        """See :class:`mover.store.base.LogSource`. Idempotent; whole files count."""
        held = self._hold.from_lsn
        if held is not None and lsn // PALF_FILE_BYTES > held // PALF_FILE_BYTES:
            await asyncio.to_thread(self._hold.release, lsn)

    async def read(self, cursor: LogCursor, limit: int) -> LogChunk | None:
        """See :class:`mover.store.base.LogSource`. A chunk never reaches into the next file.

        Raises:
            LogGapError: ``from_lsn`` and ``until_lsn`` name what is missing.
            IntegrityError: committed log that stays invalid when it is read again.
            SourceError: the log ends before the cursor: this is not the store the cursor came from.
        """
        end = self._end[0] if self._end else 0
        if cursor.lsn >= end:
            end, _ = await self.end()
        if cursor.lsn > end:
            raise SourceError(
                f"the log ends at lsn {end}, before lsn {cursor.lsn} where reading was to go on",
                hint="the store was replaced or restored to an earlier moment; start a new archive round",
                lsn=cursor.lsn,
            )
        if cursor.lsn == end:
            return None
        file_id = cursor.lsn // PALF_FILE_BYTES
        stop_lsn = min(end, (file_id + 1) * PALF_FILE_BYTES)
        length = limit
        attempt = 0
        while True:
            until = min(stop_lsn, cursor.lsn + length)
            lent, header, walk = await asyncio.to_thread(self._read_and_walk, cursor, until, end, attempt > 0)
            if walk.group_count:
                break
            lent.release()
            if until < stop_lsn and length < _GROUP_CEILING and walk.stop is PalfStop.TORN:
                length = min(length * 2, _GROUP_CEILING)
                continue
            attempt += 1
            if attempt == _TORN_ATTEMPTS:
                path = self._reader.where(file_id)
                raise IntegrityError(
                    f"log below the committed end {end} is not valid at lsn {cursor.lsn} in {path}:"
                    f" {walk.reason or walk.stop.name.lower()}",
                    hint="the log file is damaged, or belongs to another history than what was read before",
                    lsn=cursor.lsn,
                    offset=PALF_FILE_HEADER + cursor.lsn % PALF_FILE_BYTES,
                    path=str(path),
                )
            await asyncio.sleep(_TORN_SECONDS * attempt)
        return LogChunk(
            start_lsn=cursor.lsn,
            end_lsn=walk.end_lsn,
            data=lent.data[: walk.end],
            block_header=header,
            groups=walk.group_count,
            first_log_id=walk.first_log_id,
            last_log_id=walk.last_log_id,
            min_scn=walk.min_scn,
            max_scn=walk.max_scn,
            table=walk.groups,
            next=LogCursor(walk.end_lsn, walk.last_log_id, walk.accum, walk.max_scn),
            release=lent.release,
        )

    async def aclose(self, *, keep_hold: bool) -> None:
        """Stop holding, or with ``keep_hold`` leave the links for the next run. Idempotent."""

        def close() -> None:
            self._reader.close()
            self._hold.close(keep=keep_hold)

        await asyncio.shield(asyncio.to_thread(close))

    def _read_and_walk(
        self, cursor: LogCursor, until: int, end: int, again: bool
    ) -> tuple[LentLog, bytes | None, PalfWalk]:
        """In a thread: the kernel releases the GIL, the pure twin at least lets the loop breathe."""
        lent, header = self._reader.read(cursor.lsn, until, again=again)
        next_id = None if cursor.log_id is None else cursor.log_id + 1
        return lent, header, palf_walk(lent.data, cursor.lsn, accum=cursor.accum, log_id=next_id, until_lsn=end)


def hold_roots(paths: StorePaths) -> Sequence[Path]:
    """Where links may go: the base directory, else beside the log for a redo disk of its own."""
    return (paths.base, paths.redo.parent, paths.redo)


def read_exactly(fd: int, offset: int, length: int) -> bytearray:
    """``length`` bytes at ``offset``; what lies behind the end of the file reads as zeros."""
    buffer = bytearray(length)
    view = memoryview(buffer)
    done = 0
    while done < length:
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return buffer


def walk_to_end(files: dict[int, Path]) -> LogEnd:
    """The end of valid log over whole files, the newest that has any log deciding. For stopped engines.

    Raises:
        SourceError: no file has a valid group.
        IntegrityError: an older file is not valid to its end although a newer one has log.
    """
    newer: int | None = None
    for file_id in sorted(files, reverse=True):
        path = files[file_id]
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            image = read_exactly(fd, 0, PALF_FILE_HEADER + PALF_FILE_BYTES)
        finally:
            os.close(fd)
        # A file the engine made ahead of its first group is all zeros, header included.
        walk = palf_walk(memoryview(image)[PALF_FILE_HEADER:], file_id * PALF_FILE_BYTES)
        if walk.group_count:
            if newer is not None and walk.end_lsn != newer:
                raise IntegrityError(
                    f"log file {path} is valid only up to lsn {walk.end_lsn}, but the next goes on at lsn {newer}",
                    path=str(path),
                    lsn=walk.end_lsn,
                )
            return LogEnd(walk.end_lsn, walk.max_scn, walk.last_log_id, walk.accum)
        newer = file_id * PALF_FILE_BYTES if any(image[: BLOCK_HEADER.size]) else None
    raise SourceError("no log file has a valid group", hint="the log directory is empty or damaged")
