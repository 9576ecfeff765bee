"""What doctor tries at the source: that the engine answers, its files can be read, and how much log it keeps."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from mover.config import Settings
from mover.errors import MoverError
from mover.media.archive_info import ArchiveStatus, current_round
from mover.media.layout import Layout
from mover.repository.archive_state import load_record, load_rounds
from mover.repository.tree import Repository
from mover.rootservice.doctor_checks import LITTLE_ROOM, Check, State, failed, no_round, size_text
from mover.store.base import LogSource, Store
from mover.target.base import Target


class SourceExam:
    """The checks of one store. It remembers where the log ended, so that its growth can be told later."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._end: tuple[int, float] | None = None

    async def checks(self) -> AsyncIterator[Check]:
        """In order; the first that fails is the last."""
        try:
            identity = await self._store.identity()
        except MoverError as error:
            yield failed("source", "reach", error)
            return
        yield Check("source", "reach", State.OK, f"{identity.kind} {identity.version}, tenant {identity.tenant_name!r}")
        files = await asyncio.to_thread(_files, self._store)
        if files is not None:
            yield files
        try:
            log = await self._store.log("doctor")
        except MoverError as error:
            yield failed("source", "log", error)
            return
        try:
            begin, (end, _) = await log.begin_lsn(), await log.end()
            self._end = end, time.monotonic()
            found = f"readable from LSN {begin} to {end}, {size_text(end - begin)} kept"
            yield Check("source", "log", State.OK, found)
        except MoverError as error:
            yield failed("source", "log", error)
        finally:
            await log.aclose(keep_hold=False)
        yield await asyncio.to_thread(_scratch, self._settings.scratch_dir or Path(tempfile.gettempdir()))

    async def against(self, target: Target, settings: Settings) -> AsyncIterator[Check]:
        """Is there a round to back up into, and is its archiver fast enough for what the engine keeps?"""
        try:
            identity = await self._store.identity()
            repository = Repository(target, Layout(settings.cluster_name, settings.cluster_id), identity.tenant_id)
            current = current_round(await load_rounds(repository))
            record = await load_record(repository, current.round_id) if current else None
            if current is None or current.status != ArchiveStatus.DOING or record is None:
                yield no_round()
                return
            log = await self._store.log("doctor")
            try:
                yield await self.retention(log, record.checkpoint_lsn)
            finally:
                await log.aclose(keep_hold=False)
        except MoverError as error:
            yield failed("destination", "archive", error)

    async def retention(self, log: LogSource, checkpoint: int) -> Check:
        """Is the archive, which has come to LSN ``checkpoint``, fast enough for what the engine keeps?"""
        begin, (end, _) = await log.begin_lsn(), await log.end()
        behind, kept = end - checkpoint, end - begin
        detail = f"{size_text(behind)} behind, of {size_text(kept)} that the engine keeps{self._lasting(end, kept)}"
        if checkpoint < begin:
            advice = (
                "log was recycled before it was archived: begin a new round, take a full, and archive without a pause"
            )
            gone = f"log from LSN {checkpoint} to {begin} is gone"
            return Check("destination", "archive", State.FAIL, gone, advice)
        if behind > kept // 2:
            advice = "run `mover archivelog run` without a pause, or give the engine a larger log_disk_size"
            return Check("destination", "archive", State.WARN, detail, advice)
        return Check("destination", "archive", State.OK, detail)

    def _lasting(self, end: int, kept: int) -> str:
        if self._end is None:
            return ""
        seconds = time.monotonic() - self._end[1]
        rate = (end - self._end[0]) / seconds if seconds > 0 else 0.0
        if rate < 1:
            return ""
        return f", which is {kept / rate / 60:.0f} min at the present {rate / 1e6:.1f} MB/s"


def _files(store: Store) -> Check | None:
    """Whether this user may read what a backup reads."""
    from mover.store.seekdb.store import SeekdbStore

    if not isinstance(store, SeekdbStore):
        return None
    paths = store.paths
    needed = (paths.block_file, paths.slog_sys, paths.palf_meta, paths.palf_log)
    closed = [str(path) for path in needed if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))]
    if closed:
        advice = "run mover as the engine's user, or give this one the right to read"
        return Check("source", "files", State.FAIL, f"no right to read {', '.join(closed)}", advice)
    size = size_text(paths.block_file.stat().st_blocks * 512)
    return Check("source", "files", State.OK, f"blocks ({size} in use) and log may be read")


def _scratch(directory: Path) -> Check:
    """Room for blocks that are copied in a hurry."""
    try:
        room = os.statvfs(directory)
        writable = os.access(directory, os.W_OK | os.X_OK)
    except OSError as error:
        reason = (error.strerror or "can not be used").lower()
        return Check("source", "scratch", State.FAIL, f"{directory}: {reason}", "set --scratch-dir")
    free = room.f_bavail * room.f_frsize
    if not writable:
        return Check("source", "scratch", State.FAIL, f"{directory} can not be written to", "set --scratch-dir")
    if free < LITTLE_ROOM:
        advice = "name a directory with more room as --scratch-dir: blocks that change during a backup go there"
        return Check("source", "scratch", State.WARN, f"{size_text(free)} free in {directory}", advice)
    return Check("source", "scratch", State.OK, f"{size_text(free)} free in {directory}")
