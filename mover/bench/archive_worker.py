"""The archiver beside a log that grows at a steady rate, in one process: the archiver's own objects on real files.

The log lies in its files already, as in the page cache of an engine that has just written it; what grows is the end up
to which it is committed. So nothing but the archiver takes CPU, and when each byte was written is known exactly.
"""

from __future__ import annotations

import asyncio
import dataclasses
import resource
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mover.bench.log_data import ENDS
from mover.config import Settings
from mover.events import ArchiveProgress, Event
from mover.rootservice import archive
from mover.rootservice.round_views import RoundView
from mover.rootservice.session import open_session
from mover.store.seekdb.catalog import Catalog, LogStat
from mover.store.seekdb.paths import StorePaths
from mover.store.seekdb.store import SeekdbStore


class PacedLog(Catalog):
    """In the place of an engine's catalog: a log that is committed at ``rate`` bytes per second once it is begun."""

    def __init__(self, ends: Path, rate: float) -> None:
        super().__init__()
        pairs = array("Q", ends.read_bytes())
        self.ends, self._scns, self._rate = pairs[0::2], pairs[1::2], rate
        self.began: float | None = None

    async def log_stat(self) -> LogStat:
        reached = 0.0 if self.began is None else (time.monotonic() - self.began) * self._rate
        at = max(1, bisect_right(self.ends, reached)) - 1
        lsn, scn = self.ends[at], self._scns[at]
        return LogStat(0, 0, self._scns[0], lsn, scn, lsn, scn)

    def written_at(self, lsn: int) -> float:
        """When the log up to ``lsn`` was there, on the monotonic clock."""
        assert self.began is not None
        return self.began + lsn / self._rate

    async def version(self) -> str:
        return "OceanBase seekdb (bench)"

    async def parameters(self, *names: str) -> dict[str, str]:
        return dict.fromkeys(names, "2G")

    async def server(self) -> tuple[str, int, int]:
        return "127.0.0.1", 2881, 2 << 30

    async def aclose(self) -> None:
        """Nothing is open."""


def follow(job: dict[str, Any], dest: str, ready: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Archive the log of ``job`` while it is written, until all of it is durable.

    Returns:
        The report: lags in seconds (every group of the log counts once: from its commit until a checkpoint that covers
        it was published), CPU seconds and the time they were spent in.
    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_follow(job, dest, ready))


async def _follow(job: dict[str, Any], dest: str, ready: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    paths = StorePaths.of_base(job["base"])
    paced = PacedLog(paths.palf_log.parent / ENDS, job["rate"])
    published: list[tuple[float, int]] = []
    stop, last = asyncio.Event(), paced.ends[-1]

    def heard(event: Event) -> None:
        if isinstance(event, ArchiveProgress):
            published.append((time.monotonic(), event.checkpoint_lsn))
            if event.checkpoint_lsn >= last:
                stop.set()

    settings = Settings(dest=dest, state_dir=Path(job["state"]), **job["settings"])
    async with open_session(settings, need_source=False, emit=heard) as session:
        session.maybe_store = SeekdbStore(paths, paced)
        await archive.start(session)
        facts, used = ready(), _cpu()
        paced.began = time.monotonic()
        view = await archive.run(session, until_caught_up=False, stop=stop)
        assert isinstance(view, RoundView)
        took, cost = time.monotonic() - paced.began, _cpu() - used
    lags = _lags(paced, published)
    return {
        "bytes_in": last,
        "bytes_out": dataclasses.asdict(view.record)["output_bytes"] if view.record else 0,
        "seconds": took,
        "cpu_seconds": cost,
        "lag_p50": lags[len(lags) // 2],
        "lag_p99": lags[len(lags) * 99 // 100],
        "lag_max": lags[-1],
        "checkpoints": len(published),
        **facts,
    }


def _lags(paced: PacedLog, published: Sequence[tuple[float, int]]) -> list[float]:
    """Ascending, one per group."""
    lags, at = [], 0
    for moment, lsn in published:
        while at < len(paced.ends) and paced.ends[at] <= lsn:
            lags.append(max(0.0, moment - paced.written_at(paced.ends[at])))
            at += 1
    return sorted(lags)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
