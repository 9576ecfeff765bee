"""The logs of many PGs, read from the clogs of the servers that hold the chosen replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mover.clock import Clock, SystemClock
from mover.errors import IntegrityError, LogGapError
from mover.kernel import ClogWalk, clog_gather
from mover.kernel.clog import CLOG_COLUMNS
from mover.media.layout import SYS_TENANT_ID
from mover.media.pg import PGKey
from mover.store.cluster import ClusterServer, LogPosition, LogRun, LogStart, PGPlace
from mover.store.observer.catalog import Catalog
from mover.store.observer.clog_reader import ClogReader
from mover.store.observer.ilog import Ilog
from mover.store.observer.pg_queue import PGQueue, Proposal

MISSING_SECONDS = 30.0  # how long a confirmed log may be absent from its server's clog
UNCLAIMED_BYTES = 64 << 20  # log of PGs that the catalog does not know yet


@dataclass(slots=True)
class _Server:
    """What is read of one server."""

    server: ClusterServer
    clog: ClogReader
    ilog: Ilog
    queues: dict[PGKey, PGQueue] = field(default_factory=dict)
    unclaimed: dict[PGKey, PGQueue] = field(default_factory=dict)  # PGs that are followed later, or never
    elsewhere: set[PGKey] = field(default_factory=set)  # read from another server
    begun: bool = False
    missing_since: float | None = None


class ObserverLog:
    """See :class:`mover.store.cluster.ClusterLog`.

    Args:
        catalog: asked for what is confirmed.
        directories: the data directory of each server whose files can be read.
    """

    def __init__(
        self,
        catalog: Catalog,
        directories: Mapping[ClusterServer, Path],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._catalog = catalog
        self._clock = clock or SystemClock()
        self._places: dict[PGKey, PGPlace] = {}
        self._caught_up = False
        self._servers = {
            server: _Server(server, ClogReader(directory / "clog"), Ilog(directory / "ilog"))
            for server, directory in directories.items()
        }

    @property
    def caught_up(self) -> bool:
        """See :class:`mover.store.cluster.ClusterLog`."""
        return self._caught_up

    async def start_of(self, place: PGPlace) -> LogStart:
        """See :class:`mover.store.cluster.ClusterLog`."""
        return await asyncio.to_thread(self._start_of, self._servers[place.server], place.pg)

    def _start_of(self, source: _Server, pg: PGKey) -> LogStart:
        source.ilog.refresh()
        ids = source.clog.file_ids()
        first_file = ids[0] if ids else 0
        ranges = source.ilog.ranges(pg)
        if not ranges:
            return LogStart(1)  # too young for the index: its first log is in the clog, or a gap is found there
        log_id, before = source.ilog.oldest_in(pg, first_file)
        if before is not None:
            return LogStart(log_id, before.accum, before.submit_ts)
        if log_id == 1:
            return LogStart(1)
        # The running checksum before the oldest log is not known: begin one later.
        cursor = source.ilog.cursor(pg, log_id)
        assert cursor is not None
        return LogStart(log_id + 1, cursor.accum, cursor.submit_ts)

    async def oldest_us(self) -> int:
        """See :class:`mover.store.cluster.ClusterLog`."""
        found = [await asyncio.to_thread(source.clog.oldest_us) for source in self._servers.values()]
        return min((when for when in found if when), default=0)

    def follow(self, place: PGPlace, next_log_id: int, accum: int) -> None:
        """See :class:`mover.store.cluster.ClusterLog`."""
        source = self._servers[place.server]
        queue = PGQueue(place.pg, next_log_id, accum)
        early = source.unclaimed.pop(place.pg, None)
        for log_id, proposals in ((early.waiting if early else None) or {}).items():
            for proposal in proposals:
                queue.add(log_id, proposal)
        source.queues[place.pg] = queue
        if next_log_id not in (queue.waiting or {}):
            source.begun = False  # its log may lie before the position
        self._places[place.pg] = place
        for other in self._servers.values():
            if other is not source:
                other.elsewhere.add(place.pg)
                other.unclaimed.pop(place.pg, None)

    def forget(self, pg: PGKey) -> None:
        """See :class:`mover.store.cluster.ClusterLog`."""
        place = self._places.pop(pg, None)
        if place is not None:
            source = self._servers[place.server]
            source.queues.pop(pg, None)
            source.elsewhere.add(pg)

    def position(self, pg: PGKey) -> LogPosition:
        """See :class:`mover.store.cluster.ClusterLog`."""
        source = self._servers[self._places[pg].server]
        queue = source.queues[pg]
        return LogPosition(queue.last_confirmed(source.ilog), queue.next_log_id, queue.service_ts)

    async def poll(self, limit: int) -> Sequence[LogRun]:
        """See :class:`mover.store.cluster.ClusterLog`."""
        sources = [source for source in self._servers.values() if source.queues]
        for source in sources:
            # Before the clog is read: whatever is confirmed now is in the clog up to its end then.
            address = source.server.ip, source.server.port
            states = await self._catalog.log_states(address)
            services = await self._catalog.service_times(address)
            for pg, queue in source.queues.items():
                key = pg.table_id, pg.partition_id
                if key in states:
                    queue.confirmed = max(queue.confirmed, states[key].confirmed)
                queue.service_ts = services.get(key, 0)
        parts = await asyncio.gather(*(asyncio.to_thread(self._read, source, limit) for source in sources))
        self._caught_up = all(source.clog.at_end for source in sources)
        return [run for part in parts for run in part]

    def _read(self, source: _Server, limit: int) -> list[LogRun]:
        source.ilog.refresh()
        clog = source.clog
        if not source.begun:
            clog.begin(lambda last: any(last.get(pg, 0) >= queue.next_log_id for pg, queue in source.queues.items()))
            source.begun = True
        ids = clog.file_ids()
        first_file = ids[0] if ids else 0
        runs: list[LogRun] = []
        for file_id, base, data, walk in clog.walk(limit):
            self._sort(source, file_id, base, data, walk)
        for queue in source.queues.values():
            runs += queue.take(source.ilog, at_end=clog.at_end, first_file=first_file)
        self._require_progress(source)
        return runs

    def _sort(self, source: _Server, file_id: int, base: int, data: memoryview, walk: ClogWalk) -> None:
        """Give each PG its entries."""
        targets: list[PGQueue | None] = []
        for key in walk.pgs:
            pg = PGKey.unpack(key)
            if pg.tenant_id == SYS_TENANT_ID or pg in source.elsewhere:
                targets.append(None)
            elif (queue := source.queues.get(pg)) is not None:
                targets.append(queue)
            else:
                targets.append(source.unclaimed.setdefault(pg, PGQueue(pg, 1, 0)))
        chosen: list[list[int]] = [[] for _ in targets]
        table, wanted = walk.table, [None if queue is None else queue.next_log_id for queue in targets]
        for number, at in enumerate(range(0, len(table), CLOG_COLUMNS)):
            low = wanted[table[at + 4]]
            if low is not None and table[at + 5] >= low:
                chosen[table[at + 4]].append(number)
        for queue, rows in zip(targets, chosen, strict=True):
            if queue is None or not rows:
                continue
            buffer, start = clog_gather(data, walk, rows), 0
            for number in rows:
                at = number * CLOG_COLUMNS
                size = table[at + 3]
                proposal = Proposal(
                    table[at + 6], file_id, base + table[at], table[at + 7], table[at + 8], table[at + 10], buffer,
                    start, size,
                )  # fmt: skip
                queue.add(table[at + 5], proposal)
                start += size
        if sum(queue.held for queue in source.unclaimed.values()) > UNCLAIMED_BYTES:
            source.unclaimed.clear()

    def _require_progress(self, source: _Server) -> None:
        """A log that the server says is confirmed must be in its clog, at the latest a moment later."""
        late = [
            queue
            for queue in source.queues.values()
            if source.clog.at_end and queue.next_log_id <= queue.last_confirmed(source.ilog)
        ]
        if not late:
            source.missing_since = None
            return
        now = self._clock.monotonic()
        if source.missing_since is None:
            source.missing_since = now
        newer = source.clog.newer_block()
        if newer is not None and now - source.missing_since > 1:
            raise IntegrityError(
                f"clog file {source.clog.directory / str(source.clog.file_id)} is damaged at offset"
                f" {source.clog.offset}: newer log follows at {newer}",
                hint="archive from another replica, or stop the round and begin a new one",
                path=str(source.clog.directory / str(source.clog.file_id)),
                offset=source.clog.offset,
            )
        if now - source.missing_since > MISSING_SECONDS:
            queue = late[0]
            raise LogGapError(
                f"log {queue.next_log_id} of PG {queue.pg} is confirmed but was not found in the clog of"
                f" {source.server} within {MISSING_SECONDS:g} s",
                hint="begin a new round, then take a new full backup",
                pg=str(queue.pg),
                log_id=queue.next_log_id,
            )

    async def aclose(self) -> None:
        """See :class:`mover.store.cluster.ClusterLog`."""
        for source in self._servers.values():
            source.clog.close()
