"""A hot backup of a running seekdb: the order of steps that makes its blocks, files and log one consistent image.

1. Hold the log and copy the PALF meta, first of all: its base_lsn may only be older than the log we keep. (Copied last,
   it can point behind the first log file we have; such an image does not boot.)
2. Bulk: every block in use, at leisure, however long the destination takes.
3. Catch up: one pass over what changed during the bulk copy (:mod:`mover.store.seekdb.window`), so that the window has
   little left to do, and to learn how long a pass takes. Left out when the bulk copy itself took so little that a pass
   of its length fits before the next sweep, as that of an incremental does.
4. Window: right after a mark-and-sweep of the engine, which frees blocks every 30 s, one more pass that copies
   superblocks and slog and what changed. Blocks that the slog copy names cannot be reused before the next sweep.
5. Proof: the times of the last sweep are what they were before the window. Otherwise what the pass read counts as
   one more catching up and the window is tried again.
6. The log end is read after the window: with the log up to there the image is consistent, before it is not.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mover.clock import Clock, SystemClock
from mover.errors import IntegrityError, LogGapError, SourceError
from mover.kernel.palf import PALF_FILE_BYTES
from mover.store.base import (
    BlockIdentity,
    CapturedBlock,
    CaptureResult,
    SlabSource,
    StoreFile,
    UnchangedBlock,
)
from mover.store.seekdb.blocks import BlockHeader, BlockReader
from mover.store.seekdb.catalog import Catalog, Marker
from mover.store.seekdb.files import read_palf_meta
from mover.store.seekdb.log import SeekdbLog
from mover.store.seekdb.paths import StorePaths
from mover.store.seekdb.readahead import read_ahead
from mover.store.seekdb.spool import Spool
from mover.store.seekdb.window import ChangeTracker, Inconsistent, Pass

_SWEEP_SECONDS = 30.0
_SWEEP_DEADLINE = 150.0
_SWEEP_POLL = 0.2
_MARGIN_SECONDS = 0.5
_SHORT_BULK_SECONDS = 5.0
_ATTEMPTS = 5
_TURN = 512  # blocks that need not be read, between two turns of the event loop
_HOLD_ATTEMPTS = 5
DEFAULT_SPOOL_MEMORY = 32 << 20


class SeekdbCapture:
    """One hot backup as a :class:`mover.store.base.Capture`.

    Args:
        slabs: where the blocks that are yielded live. Nothing else is read into them.
        scratch: directory for the spool of the window, when it does not fit into ``spool_memory`` bytes.
        attempts: windows to try before giving up.
    """

    def __init__(
        self,
        paths: StorePaths,
        catalog: Catalog,
        slabs: SlabSource,
        *,
        scratch: Path | None = None,
        spool_memory: int = DEFAULT_SPOOL_MEMORY,
        attempts: int = _ATTEMPTS,
        clock: Clock | None = None,
    ) -> None:
        self._paths = paths
        self._catalog = catalog
        self._slabs = slabs
        self._attempts = attempts
        self._clock = clock or SystemClock()
        self._spool = Spool(scratch or Path(tempfile.gettempdir()), spool_memory)
        self._running: AsyncGenerator[CapturedBlock | UnchangedBlock, None] | None = None
        self._reader: BlockReader | None = None
        self._log: SeekdbLog | None = None
        self._meta: list[StoreFile] = []
        self._start_lsn = 0
        self._result: CaptureResult | None = None
        self.blocks_total = 0
        """Blocks the bulk copy will yield; 0 until known. Later passes add to what is yielded."""
        self.phase = "hold"
        """"hold", "bulk", "catch-up", "wait-sweep", "window" or "done"."""

    @property
    def result(self) -> CaptureResult:
        """See :class:`mover.store.base.Capture`; SourceError while ``blocks`` has not come to its end."""
        if self._result is None:
            raise SourceError("the capture is not complete: its blocks were not read to the end")
        return self._result

    def blocks(
        self, known: Mapping[int, BlockIdentity], digests: Mapping[int, bytes] | None = None
    ) -> AsyncIterator[CapturedBlock | UnchangedBlock]:
        """See :class:`mover.store.base.Capture`. Once only.

        Raises:
            UnreachableError, SourceError, IntegrityError, PreconditionError (another backup of this store runs).
        """
        if self._running is not None:
            raise SourceError("the blocks of a capture can be read only once")
        self._running = self._run(known, digests or {})
        return self._running

    async def _run(
        self, known: Mapping[int, BlockIdentity], digests: Mapping[int, bytes]
    ) -> AsyncGenerator[CapturedBlock | UnchangedBlock, None]:
        self._reader = reader = BlockReader(self._paths.block_file)
        await self._hold_log()
        tracker = ChangeTracker(self._paths, self._catalog, reader, known, digests)
        self.phase = "bulk"
        started = self._clock.monotonic()
        headers = await tracker.begin()
        self.blocks_total = len(headers)
        async with aclosing(self._bulk(tracker, headers)) as bulk:
            async for block in bulk:
                yield block

        proof: dict[str, Any] | None = None
        found: Pass | None = None
        last_problem = "the engine swept in every window"
        # No pass has more to do than the bulk copy had, and after a short one there is little to catch up with.
        estimate = self._clock.monotonic() - started
        short = estimate < _SHORT_BULK_SECONDS and _fits(await self._catalog.marker(), estimate)
        for attempt in range(1 if short else 0, self._attempts + 1):
            # Attempt 0 is the catching up: the same pass, without a window and without a proof.
            before = await (self._after_sweep(estimate) if attempt else self._catalog.marker())
            self.phase = "window" if attempt else "catch-up"
            started = self._clock.monotonic()
            try:
                found = await tracker.run(self._spool)
                after = await self._catalog.marker()
                if attempt and before.key == after.key:
                    proof = _proof(found, before, after, self._clock.monotonic() - started, attempt)
            except (Inconsistent, IntegrityError) as problem:
                # A sweep in the middle explains it: a block was freed, and reused before it was read.
                found, last_problem = None, problem.message
                if isinstance(problem, IntegrityError) and before.key == (await self._catalog.marker()).key:
                    raise
            estimate = self._clock.monotonic() - started
            # Whether it proved anything or not: what was read is good, and the next pass has less to read.
            while tracker.proven:
                yield tracker.proven.pop()
            async with aclosing(self._drain()) as changed:
                async for block in changed:
                    yield block
            if proof is not None:
                break
        if proof is None or found is None:
            raise SourceError(
                f"no consistent window in {self._attempts} attempts, the last took {estimate:.1f} s: {last_problem}",
                hint="back up at a quieter time: the pass over changed blocks must fit between two sweeps (30 s)",
            )
        await self._finish(found, proof, reader.read_bytes + tracker.slog_bytes)

    async def aclose(self) -> None:
        """Release the log hold, the spool and the block file. Idempotent."""
        if self._running is not None:
            await self._running.aclose()  # gives back the slabs it reads ahead into
        log, self._log = self._log, None
        try:
            if log is not None:
                await log.aclose(keep_hold=False)
        finally:
            self._spool.close()
            if self._reader is not None:
                await self._reader.aclose()

    async def _hold_log(self) -> None:
        log = self._log = await SeekdbLog.open(self._paths, "backup", self._catalog)
        if log.held_from is not None:
            # Left by a backup that was killed.
            await log.aclose(keep_hold=False)
            log = self._log = await SeekdbLog.open(self._paths, "backup", self._catalog)
        for attempt in range(_HOLD_ATTEMPTS):
            base_lsn = (await self._catalog.log_stat()).base_lsn
            # The engine keeps one file before the one that holds its base; it looks at that file when it boots.
            first = max(base_lsn // PALF_FILE_BYTES - 1, 0) * PALF_FILE_BYTES
            start = max(first, await log.begin_lsn())
            try:
                await log.hold(start)
                break
            except LogGapError:
                # Recycled between the look and the link: the base has moved on, too.
                if attempt == _HOLD_ATTEMPTS - 1:
                    raise
        self._start_lsn = start
        self._meta = await asyncio.to_thread(read_palf_meta, self._paths)

    async def _bulk(
        self, tracker: ChangeTracker, headers: Iterable[BlockHeader]
    ) -> AsyncGenerator[CapturedBlock | UnchangedBlock, None]:
        """Every block of ``headers``: first those that need not be read, then the others."""
        assert self._reader is not None
        to_read = []
        for number, header in enumerate(headers):
            unchanged = tracker.unchanged(header)
            if unchanged is None:
                to_read.append(header)
            else:
                yield unchanged
            if number % _TURN == 0:
                await asyncio.sleep(0)
        async with aclosing(read_ahead(self._reader, to_read, self._slabs)) as found:
            async for image, block in found:
                # None: freed and being rewritten while we read. Whoever owns it has changed, the next pass sees that.
                if block is not None:
                    tracker.captured(image)
                    yield block

    async def _drain(self) -> AsyncGenerator[CapturedBlock, None]:
        """Yield what the last pass spooled, and empty the spool."""
        for position in range(len(self._spool)):
            slab = await self._slabs.acquire()
            try:
                identity, digest = await asyncio.to_thread(self._spool.read_into, position, slab.buffer)
            except BaseException:
                slab.release()
                raise
            yield CapturedBlock(identity, slab, digest)
        self._spool.close()

    async def _after_sweep(self, estimate: float) -> Marker:
        """The marker at a moment when a pass of ``estimate`` seconds fits before the next sweep, with a margin."""
        self.phase = "wait-sweep"
        first: Marker | None = None
        deadline = self._clock.monotonic() + _SWEEP_DEADLINE
        while True:
            marker = await self._catalog.marker()
            fresh = first is not None and marker.key != first.key
            if _fits(marker, estimate) or (fresh and _ended(marker)):
                return marker
            first = first or marker
            if self._clock.monotonic() > deadline:
                raise SourceError(
                    f"the engine has not finished a mark-and-sweep in {_SWEEP_DEADLINE:.0f} s",
                    hint="see __all_virtual_macro_block_marker_status; the sweep should run every 30 s",
                )
            await self._clock.sleep(_SWEEP_POLL)

    async def _finish(self, found: Pass, proof: dict[str, Any], read_bytes: int) -> None:
        assert self._log is not None
        end_lsn, end_scn = await self._log.end()
        if await self._log.begin_lsn() > self._start_lsn:
            raise SourceError(f"log from lsn {self._start_lsn} on was to be held but is gone", lsn=self._start_lsn)
        self._result = CaptureResult(
            live=frozenset(found.live),
            files=(found.superblocks, *found.slog, *self._meta),
            block_file_size=found.superblocks.size,
            start_lsn=self._start_lsn,
            end_lsn=end_lsn,
            end_scn=end_scn,
            proof=proof,
            tables=await self._catalog.tables(),
            read_bytes=read_bytes,
        )
        self.phase = "done"


def _ended(marker: Marker) -> bool:
    """Did a sweep end, and none begin since? start_time is later than last_end_time while one runs."""
    return marker.ran and marker.last_end_time >= marker.start_time and marker.age_seconds >= 0


def _fits(marker: Marker, estimate: float) -> bool:
    """Is a pass of ``estimate`` seconds over before the next sweep? Being wrong costs one more pass, so the margin is
    of the size of the pass: what has little to do need not wait for a sweep to begin after."""
    return _ended(marker) and marker.age_seconds + 2 * estimate + _MARGIN_SECONDS < _SWEEP_SECONDS


def _proof(found: Pass, before: Marker, after: Marker, seconds: float, attempts: int) -> dict[str, Any]:
    """What is recorded in the set: the sweep times on both sides of the window, and what was done in it."""
    return {
        "method": "hot",
        "marker_before": {"start_time": before.start_time, "last_end_time": before.last_end_time},
        "marker_after": {"start_time": after.start_time, "last_end_time": after.last_end_time},
        "window_seconds": round(seconds, 3),
        "sweep_age_seconds": round(before.age_seconds, 3),
        "attempts": attempts,
        "damaged_blocks": sorted(found.damaged),
        **{f"{name}_in_window": value for name, value in asdict(found.stats).items()},
    }
