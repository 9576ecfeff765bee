"""The archiver: follows the log of one PG to the destination until it is told to stop.

Order of every turn: read committed log, make it durable, then publish the checkpoint. It starts from what the
destination holds; a file another archiver left open is closed with its index record and never appended to.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from mover.datapath.compression import Compression
from mover.datapath.log_packer import LogPacker, RoundStart
from mover.errors import OB_LOG_ARCHIVE_INTERRUPTED, IntegrityError, LogGapError, SourceError, StateError, TargetExists
from mover.events import ArchiveProgress, Notice
from mover.media.archive_index import ArchiveIndexRecord, parse_archive_key
from mover.media.archive_info import ArchiveRound, ArchiveStatus
from mover.media.pg import PGKey
from mover.media.round_record import LogGap, RoundRecord
from mover.repository.archive_state import (
    load_record,
    publish_record,
    publish_round,
    stop_requested,
)
from mover.repository.rounds import RoundReader
from mover.rootservice.archive_pace import HEARTBEAT_SECONDS, LISTING_SECONDS, Pace
from mover.rootservice.key_settings import require_same, writing_key
from mover.rootservice.lease import Lease
from mover.rootservice.same_destination import require_mount_file
from mover.rootservice.session import Session
from mover.store.base import LogCursor, LogSource

READ_SIZE = 1_900_000  # with its entry headers a chunk still fits one block
FLUSH_SIZE = 16 << 20  # log that may wait in memory before it is written
PUBLISH_GAP = 0.1  # seconds between two checkpoints where publishing one costs an fsync and no request


class Archiver:
    """Archives one round. Make it with :meth:`resume`, then :meth:`run`."""

    def __init__(
        self, session: Session, lease: Lease, round_info: ArchiveRound, pg: PGKey, log: LogSource, packer: LogPacker,
        record: RoundRecord, cursor: LogCursor,
    ) -> None:  # fmt: skip
        self._session = session
        self._lease = lease
        self._round = round_info
        self._pg = pg
        self._log = log
        self._packer = packer
        self._record = record
        self._cursor = cursor
        self._end_lsn = cursor.lsn  # of the log, when it was looked at last
        self._published_at = self._listed_at = float("-inf")

    @classmethod
    async def resume(
        cls, session: Session, lease: Lease, round_info: ArchiveRound, pg: PGKey, log: LogSource
    ) -> Archiver:
        """Find the end of what is archived and go on there.

        Raises:
            IntegrityError: the round's files contradict each other.
            LogGapError: the store has recycled log that was not archived; the round is INTERRUPTED then.
        """
        repository = session.repository
        record = await load_record(repository, round_info.round_id)
        key = await writing_key(session)
        if record is not None and record.keys and key is None:
            require_same(f"archive round {round_info.round_id}", record.keys[-1], None)
        repository = session.repository  # with its keys
        reader = RoundReader(repository, round_info.round_id, pg)
        tail = await reader.tail()
        newest = tail.newest_record
        key_path = repository.layout.archive_key(repository.tenant_id, round_info.round_id, pg)
        archive_key = await repository.read(key_path, parse_archive_key)
        if archive_key is None or record is None:
            missing = key_path if archive_key is None else "mover_round"
            raise IntegrityError(
                f"round {round_info.round_id} of PG {pg} has no {missing}",
                hint="stop the round with `mover archivelog stop` and begin a new one",
                path=key_path,
            )
        start = round_start_of(archive_key.index)
        packer = LogPacker(
            repository,
            round_info.round_id,
            pg,
            epoch=lease.epoch,
            start=start,
            accum=tail.accum,
            next_file_id=tail.last_file_id + 1,
            index=(tail.index_file_id, tail.index_size, tail.index_bytes),
            last_record=newest,
            compression=Compression.parse(session.settings.compression),
            fence=lease.check,
            buffer_size=buffer_size(session),
            key=key,
        )
        if tail.unrecorded is not None:
            found = tail.unrecorded
            closed = start.record(found.file_id, None, newest)
            if found.usable:
                closed = dataclasses.replace(
                    closed,
                    input_bytes=found.input_bytes,
                    output_bytes=found.output_bytes,
                    clog_epoch_id=found.epoch,
                    accum_checksum=0 if found.key_id else found.accum or 0,
                    min_log_id=found.first_log_id,
                    min_log_ts=found.min_log_ts,
                    max_log_id=found.last_log_id,
                    max_checkpoint_ts=found.max_checkpoint_ts,
                    max_log_submit_ts=found.max_log_ts,
                    is_valid=True,
                )
            await packer.write_record(closed)
        cursor = tail.cursor or LogCursor(record.start_lsn)
        record = dataclasses.replace(record, holder=lease.holder, epoch=lease.epoch)
        if key is not None and key.name not in record.keys:
            # Announced before the first block that needs it is written.
            record = dataclasses.replace(record, keys=(*record.keys, key.name))
        if cursor.lsn < record.checkpoint_lsn:
            # A checkpoint covers what a fresh read returns: it goes back to where that ends before we go on.
            text = f"log [{cursor.lsn}, {record.checkpoint_lsn}) of round {round_info.round_id} is gone from the"
            session.emit(Notice("archive", f"{text} destination and is archived again", "see `mover validate`"))
            record = dataclasses.replace(record, checkpoint_lsn=cursor.lsn, checkpoint_scn=cursor.scn or 0)
        archiver = cls(session, lease, round_info, pg, log, packer, record, cursor)
        try:
            await log.hold(cursor.lsn)
        except LogGapError as exc:
            await archiver.interrupt(exc)
            raise
        await archiver._publish(caught_up_us=None)
        return archiver

    async def run(self, *, until_caught_up: bool, stop: asyncio.Event) -> ArchiveRound:
        """Archive until ``stop`` is set, somebody requested a stop of the round, or the end was reached.

        Returns the round as it is published then. Raises LogGapError after it marked the round INTERRUPTED,
        StateError when another archiver took over.
        """
        clock = self._session.clock
        appends = self._session.repository.target.capabilities.append
        interval = self._session.settings.flush_interval
        pace = Pace(interval, appends=appends, buffer_size=buffer_size(self._session))
        publish_gap = PUBLISH_GAP if appends else interval
        asked_at, stopping = float("-inf"), False
        async with self._ended_by_gaps():
            while True:
                leaving = stop.is_set()
                if clock.monotonic() - asked_at >= HEARTBEAT_SECONDS:
                    asked_at = clock.monotonic()
                    stopping = await stop_requested(self._session.repository, self._round.round_id)
                caught_up_us = await self._turn(None if leaving or stopping or until_caught_up else pace)
                caught_up = caught_up_us is not None
                done = leaving or (caught_up and (until_caught_up or stopping))
                since = clock.monotonic() - self._published_at
                if done or since >= (publish_gap if self._ahead else HEARTBEAT_SECONDS):
                    await self._publish(caught_up_us, listed=done)
                if stopping and caught_up:
                    await self._finish_round()
                if done:
                    break
                if self._cursor.lsn >= self._end_lsn:
                    await self._pause(stop, pace.pause(clock.monotonic()))
        await self.close()
        return self._round

    @property
    def _ahead(self) -> bool:
        """Is more durable than the checkpoint says?"""
        return self._packer.cursor is not None and self._packer.cursor.lsn > self._record.checkpoint_lsn

    @asynccontextmanager
    async def _ended_by_gaps(self) -> AsyncIterator[None]:
        """What ends an archiver whatever it does: log that is gone, and another archiver of the round."""
        try:
            yield
        except LogGapError as exc:
            await self.interrupt(exc)
            raise
        except TargetExists as exc:
            raise StateError(
                f"another archiver writes to round {self._round.round_id}: {exc.message}",
                hint="one archiver per round: stop the other one",
            ) from exc

    async def close(self) -> None:
        """Close the open data file and sign off, so that the next archiver need not wait for our lease."""
        async with self._ended_by_gaps():
            await self._packer.flush()
            await self._packer.close_file()
        self._lease.check()
        self._record = dataclasses.replace(self._record, holder="")
        await publish_record(self._session.repository, self._record)

    async def catch_up(self, lsn: int, give_up: Callable[[], Awaitable[bool]]) -> None:
        """Archive and publish until the checkpoint has passed ``lsn``, or ``give_up`` says so between two turns."""
        clock = self._session.clock
        async with self._ended_by_gaps():
            while self._cursor.lsn < lsn and not await give_up():
                before = self._cursor.lsn
                await self._turn()
                if clock.monotonic() - self._published_at >= HEARTBEAT_SECONDS:
                    await self._publish(None)
                if self._cursor.lsn == before:
                    await clock.sleep(0.05)
            await self._publish(None, listed=True)

    async def interrupt(self, exc: LogGapError) -> None:
        """Mark the round INTERRUPTED and record which log is missing."""
        # What was read before the gap counts: the missing range begins where the archive ends.
        await self._packer.flush()
        await self._packer.close_file()
        from_lsn, until_lsn = exc.where.get("from_lsn", self._cursor.lsn), exc.where.get("until_lsn", 0)
        reason = f"log [{from_lsn}, {until_lsn}) was recycled by the engine before it was archived"
        gap = LogGap(from_lsn, until_lsn, self._record.checkpoint_scn, self._session.clock.now_us(), reason)
        await self._publish(None, listed=True)
        gap = dataclasses.replace(gap, from_scn=self._record.checkpoint_scn)
        self._record = dataclasses.replace(self._record, gap=gap, holder="")
        await publish_record(self._session.repository, self._record)
        self._round = dataclasses.replace(self._round, status=ArchiveStatus.INTERRUPTED)
        await publish_round(self._session.repository, self._round)
        exc.code = OB_LOG_ARCHIVE_INTERRUPTED
        exc.hint = "`mover archivelog stop`, then `start` begins a new round; take a new backup in it"

    async def _turn(self, pace: Pace | None = None) -> int | None:
        """Read what is committed and, when ``pace`` says so, make it durable; without one always.

        Returns the moment it began when everything committed then is durable, else None.
        """
        now_us = self._session.clock.now_us()
        end_lsn, _ = await self._log.end()
        looked = self._session.clock.monotonic()
        if end_lsn < self._cursor.lsn:
            raise SourceError(
                f"the log of the store ends at LSN {end_lsn}, but round {self._round.round_id} has it up to"
                f" {self._cursor.lsn}",
                hint="the store was replaced or restored: `mover archivelog stop`, `start`, then take a new backup",
                lsn=end_lsn,
            )
        found, self._end_lsn = end_lsn - self._cursor.lsn, end_lsn
        while self._cursor.lsn < end_lsn and not self._packer.full:
            chunk = await self._log.read(self._cursor, READ_SIZE)
            if chunk is None:
                break
            await self._packer.add(chunk, now_us)
            self._cursor = chunk.next
        waiting = self._packer.pending
        due = pace is None or pace.looked(looked, found, waiting)
        if due or self._packer.full:
            self._lease.check()
            await self._packer.flush()
            await self._log.release(self._cursor.lsn)
            if pace is not None and waiting:
                pace.flushed(waiting)
        return now_us if self._cursor.lsn >= end_lsn and not self._packer.pending else None

    async def _publish(self, caught_up_us: int | None, *, listed: bool = False) -> None:
        """Publish the checkpoint of what is durable, after proving that we are still the archiver.

        The info files follow it when they have not for a while, or with ``listed``.
        """
        session, cursor = self._session, self._packer.cursor or self._cursor
        current = await load_record(session.repository, self._round.round_id)
        ours = current is None or current.epoch < self._lease.epoch or current.holder in {"", self._lease.holder}
        if current is not None and (current.epoch > self._lease.epoch or not ours):
            raise StateError(
                f"round {self._round.round_id} is archived by {current.holder} (epoch {current.epoch}) now",
                hint="nothing more was published; one archiver per round",
            )
        self._lease.check()
        now_us = session.clock.now_us()
        self._record = dataclasses.replace(
            self._record,
            heartbeat_us=now_us,
            checkpoint_lsn=cursor.lsn if cursor.scn is not None else self._record.checkpoint_lsn,
            checkpoint_scn=cursor.scn if cursor.scn is not None else self._record.checkpoint_scn,
            caught_up_us=caught_up_us or self._record.caught_up_us,
            input_bytes=self._record.input_bytes + self._packer.input_bytes,
            output_bytes=self._record.output_bytes + self._packer.output_bytes,
        )
        self._packer.input_bytes = self._packer.output_bytes = 0
        await publish_record(session.repository, self._record)
        now = session.clock.monotonic()
        checkpoint = max(self._round.checkpoint_ts, self._record.checkpoint_scn // 1000)
        if checkpoint != self._round.checkpoint_ts and (listed or now - self._listed_at >= LISTING_SECONDS):
            await require_mount_file(session.repository, self._round)
            self._round = dataclasses.replace(self._round, checkpoint_ts=checkpoint)
            await publish_round(session.repository, self._round)
            self._listed_at = now
        self._published_at = now
        end_lsn = self._end_lsn
        lag = 0.0 if end_lsn <= cursor.lsn else (now_us - self._record.caught_up_us) / 1e6
        session.emit(
            ArchiveProgress(
                tenant_id=session.repository.tenant_id,
                round_id=self._round.round_id,
                checkpoint_scn=self._record.checkpoint_scn,
                checkpoint_lsn=self._record.checkpoint_lsn,
                bytes_in=self._record.input_bytes,
                bytes_out=self._record.output_bytes,
                pending_bytes=max(0, end_lsn - cursor.lsn),
                lag_seconds=max(0.0, lag) if self._record.caught_up_us else 0.0,
            )
        )

    async def _finish_round(self) -> None:
        self._lease.check()
        await self._packer.flush()
        await self._packer.close_file()
        for status in (ArchiveStatus.STOPPING, ArchiveStatus.STOP):
            self._round = dataclasses.replace(self._round, status=status)
            await publish_round(self._session.repository, self._round)
        self._session.emit(Notice("archive", f"round {self._round.round_id} is stopped"))

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        sleeping = asyncio.ensure_future(self._session.clock.sleep(max(0.0, seconds)))
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({sleeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            stopped.cancel()
            await asyncio.gather(sleeping, stopped, return_exceptions=True)


def buffer_size(session: Session) -> int:
    """Bytes of log that an archiver gathers: with what it reads into, well inside of ``--memory``."""
    return min(FLUSH_SIZE, session.settings.memory // 4)


def round_start_of(record: ArchiveIndexRecord) -> RoundStart:
    """The start of the round that any index record, and the archive key, repeats."""
    return RoundStart(
        start_ts=record.round_start_ts,
        start_log_id=record.round_start_log_id,
        snapshot_version=record.round_snapshot_version,
        log_submit_ts=record.round_log_submit_ts,
        clog_epoch_id=record.round_clog_epoch_id,
        accum_checksum=record.round_accum_checksum,
    )
