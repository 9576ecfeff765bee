"""The log of one PG of a cluster on its way to the destination: runs of entries in, archive blocks in data files out.

The entries are OceanBase's own and go out as they are, so the files are those of its archive. A cluster has thousands
of these at once: nothing is held but the runs that wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mover.datapath.index_writer import IndexWriter
from mover.datapath.log_compression import LogCompression
from mover.datapath.log_packer import RAW_FILE_LIMIT, LogFile, RoundStart
from mover.media.archive import DATA_FILE_LIMIT, MAX_RAW_PAYLOAD, ArchiveBlockMeta, block_size, build_block
from mover.media.pg import PGKey
from mover.repository.tree import Repository
from mover.store.cluster import LogRun


class PGLogWriter:
    """Appends the log of one PG to a round.

    Args:
        start: how the round began for the PG; index records repeat it.
        next_file_id: the first data file id that no archiver used. Another one's files are never touched.
        index: see :class:`IndexWriter`, which this one writes to.
        compression: shared by all PGs of an archiver.
        fence: called before everything that is published; raises when we may not write any more.
        checkpoint_ts: the largest checkpoint that is in the files already, us: it never goes back.
    """

    def __init__(
        self,
        repository: Repository,
        round_id: int,
        pg: PGKey,
        *,
        start: RoundStart,
        next_file_id: int,
        index: IndexWriter,
        compression: LogCompression,
        fence: Callable[[], None],
        checkpoint_ts: int,
        last_log_id: int,
        last_submit_ts: int,
    ) -> None:
        self._repository = repository
        self._target = repository.target
        self._round = round_id
        self._pg = pg
        self._start = start
        self._next_file_id = next_file_id
        self._index = index
        self._compression = compression
        self._fence = fence
        self._file: LogFile | None = None
        self._runs: list[LogRun] = []
        self.pending = 0  # bytes that wait
        self.oldest = 0.0  # since when the oldest of them waits, monotonic seconds
        self.checkpoint_ts = checkpoint_ts
        self.last_log_id = last_log_id  # durable
        self.last_submit_ts = last_submit_ts
        self.input_bytes = 0
        self.output_bytes = 0

    def add(self, run: LogRun, now: float) -> None:
        """Take a run that continues what was taken before; it waits for :meth:`flush`. ``now`` is monotonic."""
        if not self._runs:
            self.oldest = now
        self._runs.append(run)
        self.pending += len(run.payload)

    async def flush(self, now_us: int) -> None:
        """Make everything that waits durable. A data file is closed before it would grow beyond its limit.

        Raises TargetExists when another archiver writes to the same files.
        """
        waiting, first = self._runs, 0
        while first < len(waiting):
            last, size = first, 0
            while last < len(waiting) and (size + len(waiting[last].payload) <= MAX_RAW_PAYLOAD or last == first):
                size += len(waiting[last].payload)
                last += 1
            await self._write(waiting[first:last], size, now_us)
            first = last
        del waiting[:first]
        self.pending = sum(len(run.payload) for run in waiting)

    async def _write(self, runs: list[LogRun], raw_size: int, now_us: int) -> None:
        """One block: appended to the data file, or a file of its own where files cannot grow."""
        raw = b"".join(run.payload for run in runs)
        end = runs[-1]
        packed = await asyncio.to_thread(self._compression.apply, memoryview(raw), end.last_submit_ts * 1000)
        payload = raw if packed is None else packed
        size = block_size(len(payload))
        file = self._file
        if file is not None and (file.size + size > DATA_FILE_LIMIT or file.input_bytes + raw_size > RAW_FILE_LIMIT):
            await self.close_file()
            file = None
        self._fence()
        if file is None:
            file = LogFile(self._next_file_id, end.epoch)
            file.min_log_id, file.min_log_ts = runs[0].first_log_id, runs[0].first_submit_ts
        submit = max(self.last_submit_ts, *(run.last_submit_ts for run in runs))
        checkpoint = max(self.checkpoint_ts, submit)
        meta = ArchiveBlockMeta(
            timestamp=now_us,
            clog_epoch_id=end.epoch,
            accum_checksum=end.accum,
            min_log_id_in_file=file.min_log_id,
            min_log_ts_in_file=file.min_log_ts,
            max_log_id=end.last_log_id,
            max_checkpoint_ts=checkpoint,
            max_log_submit_ts=submit,
            input_bytes=raw_size,
        )
        block = build_block(meta, payload, offset=file.size)
        layout = self._repository.layout
        path = layout.archive_data(self._repository.tenant_id, self._round, self._pg, file.file_id)
        appends = self._target.capabilities.append
        if self._file is None:
            # A new file is created, never taken over: should another archiver race for the id, one of us fails.
            self._next_file_id = file.file_id + 1
            await self._target.put(path, b"" if appends else block, if_absent=True)
            self._file = file
        if appends:
            await self._target.append(path, file.size, block)
        file.size += size
        file.durable = file.size
        file.blocks += 1
        file.input_bytes += raw_size
        file.epoch, file.accum = end.epoch, end.accum
        file.max_log_id, file.max_log_ts = end.last_log_id, checkpoint
        self.last_log_id, self.last_submit_ts, self.checkpoint_ts = end.last_log_id, submit, checkpoint
        self.input_bytes += raw_size
        self.output_bytes += size
        if not appends:
            await self.close_file()

    async def close_file(self) -> None:
        """Write the index record of the open data file; the next block begins a new one. Idempotent."""
        file = self._file
        if file is None:
            return
        await self._index.write(self._start.record(file.file_id, file, self._index.last_record))
        self._file = None
