"""Backup of a stopped seekdb: every valid block, the small files, and the log to where it ends.

Without the engine nobody says which sstable blocks are in use, so superseded ones that still lie in the block file are
taken, too. The engine must stay stopped: its own lock file is locked for the duration where there is one, and at the
end the files must be what they were.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from mover.errors import PreconditionError, SourceError
from mover.kernel.palf import PALF_FILE_BYTES
from mover.store.base import BlockIdentity, CapturedBlock, CaptureResult, SlabSource, UnchangedBlock
from mover.store.seekdb.blocks import BlockReader
from mover.store.seekdb.files import SlogReader, read_palf_meta, read_superblocks
from mover.store.seekdb.log import walk_to_end
from mover.store.seekdb.paths import StorePaths, numbered_files
from mover.store.seekdb.readahead import read_ahead

_Fingerprint = tuple[tuple[str, int, int], ...]


class StoppedEngine:
    """Proof that no engine serves the directory, for as long as this is held.

    Raises:
        PreconditionError: an engine runs there.
    """

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._fd: int | None = None
        try:
            self._fd = os.open(paths.pid_file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # never booted here: a copy of a store
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            self._fd = None
            raise PreconditionError(
                f"an engine is running on {paths.base}",
                hint="stop it, or leave out --offline to back it up while it runs",
                path=str(paths.pid_file),
            ) from None

    def release(self) -> None:
        """Let engines start again. Idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class OfflineCapture:
    """A :class:`mover.store.base.Capture` of a stopped store."""

    def __init__(self, paths: StorePaths, slabs: SlabSource) -> None:
        self._paths = paths
        self._slabs = slabs
        self._reader: BlockReader | None = None
        self._stopped: StoppedEngine | None = None
        self._result: CaptureResult | None = None
        self.blocks_total = 0
        self.phase = "hold"

    @property
    def result(self) -> CaptureResult:
        """See :class:`mover.store.base.Capture`."""
        if self._result is None:
            raise SourceError("the capture is not complete: its blocks were not read to the end")
        return self._result

    async def blocks(
        self,
        known: Mapping[int, BlockIdentity],
        digests: Mapping[int, bytes] | None = None,  # noqa: ARG002 - one pass: what is read is yielded
    ) -> AsyncIterator[CapturedBlock | UnchangedBlock]:
        """See :class:`mover.store.base.Capture`. Once only.

        Raises:
            PreconditionError: an engine runs on the directory.
            SourceError: the store changed while it was read.
        """
        if self._reader is not None:
            raise SourceError("the blocks of a capture can be read only once")
        self._stopped = StoppedEngine(self._paths)
        before = await asyncio.to_thread(self._fingerprint)
        self._reader = reader = BlockReader(self._paths.block_file)
        self.phase = "bulk"
        headers = await reader.headers(i for part in await reader.written() for i in part)
        self.blocks_total = len(headers)
        live, damaged = set(), []
        to_read = []
        for header in headers:
            if header.identity.immutable and known.get(header.block_index) == header.identity:
                live.add(header.block_index)
                yield UnchangedBlock(header.identity)
                continue
            to_read.append(header)
        async with aclosing(read_ahead(reader, to_read, self._slabs)) as found:
            async for image, block in found:
                if block is None:
                    # In use or a torn left-over of a crash: without the engine nobody can tell, so it is reported.
                    damaged.append(image.identity.block_index)
                    continue
                live.add(image.identity.block_index)
                yield block
        await asyncio.to_thread(self._finish, live, damaged, before, reader.read_bytes)

    async def aclose(self) -> None:
        """See :class:`mover.store.base.Capture`."""
        if self._stopped is not None:
            self._stopped.release()
        if self._reader is not None:
            await self._reader.aclose()

    def _finish(self, live: set[int], damaged: list[int], before: _Fingerprint, read_bytes: int) -> None:
        ids = numbered_files(self._paths.palf_log)
        end = walk_to_end({file_id: self._paths.palf_log / str(file_id) for file_id in ids})
        start = len(ids) - 1
        while start > 0 and ids[start - 1] == ids[start] - 1:
            start -= 1
        slog = SlogReader(self._paths)
        read_bytes += slog.refresh()
        superblocks = read_superblocks(self._paths)
        files = (superblocks, *slog.files(), *read_palf_meta(self._paths))
        if self._fingerprint() != before:
            raise SourceError(
                f"the store in {self._paths.base} changed while it was read",
                hint="an engine was started in the meantime; back it up without --offline",
                path=str(self._paths.base),
            )
        proof: dict[str, Any] = {"method": "offline", "damaged_blocks": damaged, "attempts": 1}
        self._result = CaptureResult(
            live=frozenset(live),
            files=files,
            block_file_size=superblocks.size,
            start_lsn=ids[start] * PALF_FILE_BYTES,
            end_lsn=end.lsn,
            end_scn=end.scn,
            proof=proof,
            read_bytes=read_bytes,
        )
        self.phase = "done"

    def _fingerprint(self) -> _Fingerprint:
        """Name, size and mtime of everything that is captured."""
        found = []
        directories = (self._paths.slog_sys, self._paths.palf_log, self._paths.palf_meta)
        files = [directory / str(number) for directory in directories for number in numbered_files(directory)]
        for path in (self._paths.block_file, *files):
            status = path.stat()
            found.append((str(path), status.st_size, status.st_mtime_ns))
        return tuple(found)
