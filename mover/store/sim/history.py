"""What happens to the log: leaders propose, followers write later or not yet, majorities confirm, leaders change.

A pure game of choices from the seed: steps of a few milliseconds, in each of which some PGs propose and every server
writes a batch of what has reached it. Sources: log-archive notes 3.6 (proposals and confirmation), 3.7 (running
checksum); observer notes 4.3.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from random import Random

from mover.store.sim.entry import (
    AGGREGATE,
    NOP,
    START_MEMBERSHIP,
    SUBMIT,
    TRANSACTION,
    Entry,
    compressed_item,
    pack_entry,
)
from mover.store.sim.identity import PgKey
from mover.store.sim.packing import crc, dice
from mover.store.sim.pg import Pg, Replica
from mover.store.sim.serverlog import ServerLog

_STEP_US = 20_000
_STEP_BYTES = 64 << 10


@dataclass
class Clock:
    """The cluster's time, µs since the epoch."""

    now: int

    def tick(self, by: int = 1) -> int:
        self.now += by
        return self.now


class History:
    """Plays the log of one generation. ``tag`` keeps its choices apart from those of others."""

    def __init__(
        self, seed: int, tag: str, clock: Clock, pgs: list[Pg], servers: dict[int, ServerLog], entry_size: int
    ) -> None:
        self._seed = seed
        self._choose = dice(seed, "history", tag)
        self._tag = tag
        self._clock = clock
        self._pgs = pgs
        self._servers = servers
        self._entry_size = entry_size
        self._packed: dict[tuple[PgKey, Entry], tuple[bytes, int]] = {}
        self.accums: dict[PgKey, dict[int, int]] = {pg.key: {} for pg in pgs}

    def play(self, volume: int, *, settled: bool) -> None:
        """Steps until the busiest server has written ``volume`` bytes of log.

        With ``settled`` everybody has everything in the end; otherwise some followers lag and each PG's last logs are
        unconfirmed.
        """
        written = dict.fromkeys(self._servers, 0)
        # What the last generation left undecided comes first: the leader confirms it, or another one proposes it anew.
        for pg in self._pgs:
            for replica in pg.replicas:
                replica.stalled = 0
            if pg.pending and self._choose.random() < 0.5:
                self._change_leader(pg)
        self._deliver(written, everybody=False)
        while max(written.values()) < volume:
            self._step(written)
        self._catch_up(written, but_stalled=not settled)
        if not settled:
            self._mark_ilog()
            self._last_words(written)
        else:
            self._mark_ilog()

    # --- steps -------------------------------------------------------------------------------------------------------

    def _step(self, written: dict[int, int]) -> None:
        choose = self._choose
        active = choose.sample(self._pgs, max(1, len(self._pgs) * choose.randint(30, 100) // 100))
        for pg in active:
            if len(pg.replicas) > 1 and choose.random() < 0.02:
                self._change_leader(pg)
            for _ in range(choose.randint(1, max(2, _STEP_BYTES // self._entry_size // len(active)))):
                pg.propose(self._entry(pg, choose))
        for pg in choose.sample(self._pgs, 1):
            followers = [replica for replica in pg.replicas if replica.server != pg.leader]
            if len(pg.replicas) > 2 and not any(replica.stalled for replica in followers):
                choose.choice(followers).stalled = choose.randint(1, 20)
        self._deliver(written, everybody=False)

    def _deliver(self, written: dict[int, int], *, everybody: bool) -> None:
        """Servers write what has reached them; then majorities confirm."""
        self._clock.tick(_STEP_US)
        for pg in self._pgs:
            for replica in pg.replicas:
                if replica.stalled and not everybody and replica.server != pg.leader:
                    replica.stalled -= 1
                    continue
                replica.stalled = 0
                replica.known_confirmed = min(max(replica.known_confirmed, pg.confirmed), replica.last_log_id)
                self._write(pg, replica)
        for server, log in self._servers.items():
            # Batches of several PGs are one block each; now and then a block is padded inside.
            padded = self._choose.random() < 0.05
            written[server] += log.flush(self._clock.now, inner_padding=padded)
        for pg in self._pgs:
            self._confirm(pg)

    def _write(self, pg: Pg, replica: Replica) -> None:
        entries, replica.queue = replica.queue, []
        if replica.server != pg.leader and len(entries) > 1 and self._choose.random() < 0.05:
            at = self._choose.randrange(len(entries) - 1)
            if entries[at].log_id != entries[at + 1].log_id:
                entries[at : at + 2] = entries[at + 1], entries[at]
        for entry in entries:
            self._servers[replica.server].add(pg.key, entry.log_id, entry.submit_ts, self._item(pg, entry, replica))
            replica.last_log_id = max(replica.last_log_id, entry.log_id)

    def _confirm(self, pg: Pg) -> None:
        while pg.pending:
            entry = pg.pending[0]
            if sum(replica.last_log_id >= entry.log_id for replica in pg.replicas) < pg.majority:
                break
            del pg.pending[0]
            raw, checksum = self._pack(pg, entry)
            pg.accum = crc(struct.pack("<q", checksum), pg.accum)
            pg.confirmed = entry.log_id
            self.accums[pg.key][entry.log_id] = pg.accum
            digest = hashlib.sha256(raw).hexdigest()
            pg.logs.append([entry.log_id, entry.submit_ts, pg.accum, digest, len(raw), entry.log_type & ~TRANSACTION])
        pg.on(pg.leader).known_confirmed = pg.confirmed

    # --- leaders -----------------------------------------------------------------------------------------------------

    def _change_leader(self, pg: Pg) -> None:
        """The leader has written a little that reaches nobody, or not all of them; a follower takes over.

        What the new leader has of the unconfirmed log it proposes again, the same logs with a higher proposal id; the
        ids behind get other logs, and the old leader's clog keeps what it wrote under them.
        """
        choose = self._choose
        ready = [
            replica
            for replica in pg.replicas
            if replica.server != pg.leader and replica.last_log_id >= pg.confirmed and not replica.stalled
        ]
        if not ready:
            return
        chosen = choose.choice(ready)
        old = pg.on(pg.leader)
        self._write(pg, old)
        for reached in choose.choices((False, True), k=choose.randint(1, 3)):
            stale = self._entry(pg, choose)
            pg.next_log_id = stale.log_id + 1
            pg.pending.append(stale)
            old.queue.append(stale)
            if reached and chosen.last_log_id == stale.log_id - 1 and not chosen.queue:
                chosen.queue.append(stale)
                self._write(pg, chosen)
        self._write(pg, old)
        for replica in pg.replicas:
            replica.queue = [entry for entry in replica.queue if entry.log_id <= pg.confirmed]
        self._clock.tick(1000)
        again = [entry for entry in pg.pending if entry.log_id <= chosen.last_log_id]
        pg.leader = chosen.server
        pg.epoch = pg.proposal_ts = self._clock.now
        pg.pending = []
        pg.next_log_id = pg.confirmed + 1
        for replica in pg.replicas:
            replica.last_log_id = min(replica.last_log_id, pg.confirmed)
        for entry in again:
            pg.propose(replace(entry, proposal_server=pg.leader, proposal_ts=pg.proposal_ts))
        pg.propose(self._entry(pg, choose, START_MEMBERSHIP))
        if choose.random() < 0.5:
            pg.propose(self._entry(pg, choose, NOP))

    # --- entries -----------------------------------------------------------------------------------------------------

    def _entry(self, pg: Pg, choose: Random, log_type: int | None = None) -> Entry:
        if log_type is None:
            kind = choose.random()
            log_type = SUBMIT | TRANSACTION if kind < 0.9 else AGGREGATE | TRANSACTION if kind < 0.97 else NOP
        size = 16
        if log_type & ~TRANSACTION in (SUBMIT, AGGREGATE):
            size = 16 + int(choose.expovariate(1 / self._entry_size))
            if choose.random() < 0.002:
                size += 200_000
        now = self._clock.tick()
        submit = max(now, pg.submit_ts + 1)
        return Entry(
            log_id=pg.next_log_id,
            log_type=log_type,
            generation_ts=now,
            epoch_id=pg.epoch,
            proposal_server=pg.leader,
            proposal_ts=pg.proposal_ts,
            submit_ts=submit,
            freeze_version=1 << 32,
            body_key=f"{pg.key.table_id}/{pg.key.part_id}/{pg.next_log_id}/{now}",
            body_bytes=min(size, 1_500_000),
            compressible=choose.random() < 0.4,
        )

    def _pack(self, pg: Pg, entry: Entry) -> tuple[bytes, int]:
        known = self._packed.get((pg.key, entry))
        if known is None:
            known = self._packed[pg.key, entry] = pack_entry(pg.key, entry, self._seed)
            if len(self._packed) > 4096:
                del self._packed[next(iter(self._packed))]
        return known

    def _item(self, pg: Pg, entry: Entry, replica: Replica) -> bytes:
        """The entry as this server stores it: those with even numbers compress what is worth it."""
        raw, _ = self._pack(pg, entry)
        if replica.server % 2 == 0 and entry.compressible and len(raw) > 512:
            item = compressed_item(raw, zstd=entry.in_runs)
            if len(item) < len(raw):
                return item
        return raw

    # --- the end of a generation -------------------------------------------------------------------------------------

    def _catch_up(self, written: dict[int, int], *, but_stalled: bool) -> None:
        """Everything proposed is confirmed; at most one follower of some PGs is left behind."""
        if not but_stalled:
            for _ in range(2):
                self._deliver(written, everybody=True)
            return
        for pg in self._pgs:
            followers = [replica for replica in pg.replicas if replica.server != pg.leader]
            for replica in followers:
                replica.stalled = 0
            if len(pg.replicas) > 2 and self._choose.random() < 0.5:
                self._choose.choice(followers).stalled = 1000
        for _ in range(2):
            self._deliver(written, everybody=False)

    def _mark_ilog(self) -> None:
        for pg in self._pgs:
            for replica in pg.replicas:
                replica.ilog_bound = replica.known_confirmed

    def _last_words(self, written: dict[int, int]) -> None:
        """A few more logs are confirmed that no ilog has; then some reach the leader alone."""
        for pg in self._pgs:
            for _ in range(self._choose.randint(0, 5)):
                pg.propose(self._entry(pg, self._choose))
        for _ in range(2):
            self._deliver(written, everybody=False)
        for pg in self._pgs:
            if len(pg.replicas) > 1:
                for _ in range(self._choose.randint(0, 4)):
                    pg.propose(self._entry(pg, self._choose))
                for replica in pg.replicas:
                    if replica.server != pg.leader:
                        replica.stalled = max(replica.stalled, 1)
        self._deliver(written, everybody=False)
