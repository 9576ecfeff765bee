"""Creates a synthetic cluster and lets it grow."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mover.errors import PreconditionError
from mover.store.sim.blockfile import RESERVED, BlockFile
from mover.store.sim.catalog import SYS_TENANT, catalog
from mover.store.sim.clog import ClogWriter
from mover.store.sim.history import Clock, History
from mover.store.sim.identity import TABLEGROUP, PgKey
from mover.store.sim.ledger import ledger, read_ledger
from mover.store.sim.packing import dice
from mover.store.sim.pg import Pg, Replica
from mover.store.sim.plan import Plan
from mover.store.sim.serverlog import ServerLog
from mover.store.sim.slog import slog_file
from mover.store.sim.sstables import Holdings, Merger, Partition

FIRST_TENANT = 1001
EPOCH_US = 1_640_995_200_000_000
"""The clusters' time begins at 2022-01-01 00:00:00 UTC."""


@dataclass
class Cluster:
    """Everything that ``state.json`` remembers between generations."""

    directory: Path
    plan: Plan
    now: int
    created: int
    generation: int = 0
    schema_version: int = EPOCH_US
    tenants: list[int] = field(default_factory=list)
    freezes: list[list[int]] = field(default_factory=list)
    pgs: list[Pg] = field(default_factory=list)
    logs: dict[int, ServerLog] = field(default_factory=dict)
    files: dict[int, BlockFile] = field(default_factory=dict)
    holdings: list[Holdings] = field(default_factory=list)
    blooms: dict[int, int] = field(default_factory=dict)
    _places: dict[tuple[tuple[int, int, int], int], Holdings] = field(default_factory=dict)

    def store(self, server: int) -> Path:
        return self.directory / f"observer_{server}" / "store"

    def held(self, order: tuple[int, int, int], server: int) -> Holdings:
        if len(self._places) != len(self.holdings):
            self._places = {(one.key.order, one.server): one for one in self.holdings}
        return self._places[order, server]

    def merger(self, server: int) -> Merger:
        return Merger(self.plan.seed, self.files[server], self.plan.block_size, self.schema_version)

    def save(self, *, previous: dict[str, Any] | None) -> None:
        """Write ledger, catalog and, last, the state."""
        _write_json(self.directory / "ledger.json", ledger(self, previous))
        _write_json(self.directory / "catalog.json", catalog(self))
        _write_json(self.directory / "state.json", self._record())

    def _record(self) -> dict[str, Any]:
        return {
            "plan": self.plan.record(),
            "now": self.now,
            "created": self.created,
            "generation": self.generation,
            "schema_version": self.schema_version,
            "tenants": self.tenants,
            "freezes": self.freezes,
            "pgs": [pg.record() for pg in self.pgs],
            "logs": [[server, log.record()] for server, log in self.logs.items()],
            "files": [[server, file.total, file.free] for server, file in self.files.items()],
            "holdings": [one.record() for one in self.holdings],
            "blooms": list(self.blooms.items()),
        }

    @classmethod
    def load(cls, directory: Path) -> Cluster:
        """The cluster in ``directory``.

        Raises:
            PreconditionError: there is none.
        """
        try:
            record = json.loads((directory / "state.json").read_bytes())
        except FileNotFoundError as error:
            raise PreconditionError(
                "no synthetic cluster here", path=str(directory), hint="make one with `mover sim create`"
            ) from error
        plan = Plan(**record["plan"])
        names = ("now", "created", "generation", "schema_version", "tenants", "freezes")
        cluster = cls(directory, plan, **{name: record[name] for name in names})
        cluster.pgs = [Pg.of(pg) for pg in record["pgs"]]
        for server, log in record["logs"]:
            cluster.logs[server] = ServerLog.of(log, cluster.store(server), plan.clog_fill)
        for server, total, free in record["files"]:
            path = cluster.store(server) / "sstable" / "block_file"
            cluster.files[server] = BlockFile(path, total, cluster.created, free, plan.spare)
        cluster.holdings = [Holdings.of(one) for one in record["holdings"]]
        cluster.blooms = dict(record["blooms"])
        return cluster


def create(directory: Path, plan: Plan) -> Cluster:
    """Make generation 0 of a cluster in ``directory``, which must be empty or missing.

    Raises:
        PreconditionError: there is something in ``directory``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise PreconditionError(
            "a synthetic cluster needs an empty directory", path=str(directory), hint="name another directory"
        )
    cluster = Cluster(directory, plan, EPOCH_US, EPOCH_US)
    cluster.tenants = [FIRST_TENANT + at for at in range(plan.tenants)]
    for server in range(1, plan.observers + 1):
        _make_server(cluster, server)
    for at in range(plan.pgs):
        _make_pg(cluster, at)
    for at in range(plan.sys_pgs):
        table = SYS_TENANT << 40 | 3 + at
        _place_pg(cluster, at, PgKey(table, 0, 0), (Partition(table, 0, (table,)),))
    clock = Clock(cluster.now)
    accums: dict[PgKey, dict[int, int]] = {pg.key: {} for pg in cluster.pgs}
    if plan.recycled and plan.log_size:
        _old_life(cluster, clock)
    cluster.freezes = [[1, EPOCH_US], [2, clock.tick(1_000_000)]]
    for holdings in cluster.holdings:
        cluster.merger(holdings.server).major(holdings, cluster.freezes[-1][0], cluster.freezes[-1][1], plan.blocks)
    _play(cluster, clock, accums)
    for holdings in cluster.holdings:
        merger = cluster.merger(holdings.server)
        merger.minor(holdings, cluster.freezes[-1][0], cluster.freezes[-1][1], clock.now)
        if not cluster.blooms.get(holdings.server):
            merger.bloom(holdings, cluster.freezes[-1][0])
            cluster.blooms[holdings.server] = 1
    for server, file in cluster.files.items():
        file.litter(plan.seed, server, min(3, len(file.free)))
    cluster.now = clock.now
    cluster.save(previous=None)
    return cluster


def grow(directory: Path, *, log_size: int | None = None, recycle: int = 0, major: bool | None = None) -> Cluster:
    """Make the next generation: more log, and compactions.

    Args:
        log_size: bytes of log on the busiest server; what the plan says if not given.
        recycle: this many of each server's oldest finished clog files are given up and used again when needed.
        major: a major merge, or only minor ones; every third generation has one if not given.
    """
    cluster = Cluster.load(directory)
    previous = read_ledger(directory)
    accums = {
        PgKey(pg["table_id"], pg["partition_id"], pg["partition_cnt"]): {row[0]: row[2] for row in pg["logs"]}
        for pg in (*previous["pgs"], *previous["sys_pgs"])
    }
    cluster.generation += 1
    clock = Clock(cluster.now + 1_000_000)
    # Seconds have passed: what was confirmed is in the ilogs, and only then may a clog file go.
    for pg in cluster.pgs:
        for replica in pg.replicas:
            replica.ilog_bound = replica.known_confirmed
    _index(cluster, accums)
    for server, log in cluster.logs.items():
        first = log.recycle(recycle)
        for pg in cluster.pgs:
            for replica in pg.replicas:
                if replica.server == server and pg.key in first:
                    replica.first_log_id = max(replica.first_log_id, first[pg.key])
    merges = cluster.generation % 3 == 0 if major is None else major
    if merges:
        version = cluster.freezes[-1][0] + 1
        cluster.freezes.append([version, clock.tick(1_000_000)])
        clock.tick(1_000_000)
    _play(cluster, clock, accums, log_size)
    version, snapshot = cluster.freezes[-1]
    for holdings in cluster.holdings:
        merger = cluster.merger(holdings.server)
        if merges:
            merger.major(holdings, version, snapshot, cluster.plan.blocks)
        merger.minor(holdings, version, snapshot, clock.now)
    for file in cluster.files.values():
        file.write_super(clock.now)
    cluster.now = clock.now
    cluster.save(previous=previous)
    return cluster


def _make_server(cluster: Cluster, server: int) -> None:
    store = cluster.store(server)
    for name in ("sstable", "clog", "ilog", "slog"):
        (store / name).mkdir(parents=True)
    (store / "slog" / "1").write_bytes(slog_file(cluster.created))
    plan = cluster.plan
    held = plan.pgs * min(3, plan.observers) // plan.observers + 1
    total = RESERVED + (plan.spare or 8 + held * (plan.blocks + 8) * 2)
    file = BlockFile(store / "sstable" / "block_file", total, cluster.created, step=plan.spare)
    file.create(plan.seed, server)
    cluster.files[server] = file
    cluster.logs[server] = ServerLog(ClogWriter(store / "clog", fill=plan.clog_fill), store / "ilog")


def _make_pg(cluster: Cluster, at: int) -> None:
    """PG number ``at``: every fifth is a tablegroup with two tables, the others are one of a table's two partitions."""
    plan = cluster.plan
    tenant = cluster.tenants[at % plan.tenants]
    base = tenant << 40
    number = at // plan.tenants
    if number % 5 == 4:
        key = PgKey(base | TABLEGROUP | 1000 + number, 0, 0)
        tables = [base | 50_001 + 2 * number + one for one in (20_000, 20_001)]
        partitions = tuple(Partition(table, 0, (table,)) for table in tables)
    else:
        table = base | 50_001 + number // 2
        key = PgKey(table, number % 2, 2)
        indexes = (table, table + 100_000) if (number // 2) % 2 else (table,)
        partitions = (Partition(table, key.part_id, indexes),)
    _place_pg(cluster, at, key, partitions)


def _place_pg(cluster: Cluster, at: int, key: PgKey, partitions: tuple[Partition, ...]) -> None:
    plan = cluster.plan
    first = at % plan.observers
    servers = [(first + step) % plan.observers + 1 for step in range(min(3, plan.observers))]
    choose = dice(plan.seed, "pg", key.order)
    cluster.pgs.append(
        Pg(key, choose.choice(servers), EPOCH_US + at, EPOCH_US + at, [Replica(server) for server in servers])
    )
    cluster.holdings += [Holdings(key, server, partitions) for server in servers]


def _old_life(cluster: Cluster, clock: Clock) -> None:
    """Log whose file is recycled later: its blocks and trailer are the stale bytes behind the live log."""
    plan = cluster.plan
    # As many files as the live log will have, and one: each of those is an old one under a new name.
    volume = min(plan.log_size + plan.log_size // 4 + min(plan.clog_fill, 4 << 20), 256 << 20)
    history = History(plan.seed, "old", clock, cluster.pgs, cluster.logs, max(plan.entry_size, 4096))
    history.play(volume, settled=True)
    # The index outlives the files it points into by days: it is how one knows where a PG's log begins.
    _index(cluster, history.accums)
    for log in cluster.logs.values():
        log.finish_file(clock.now)
        log.writer.pool = list(range(1, log.writer.file_id + 1))
        log.first_file = log.writer.file_id + 1
        log.file_last.clear()
        log.placed.clear()
    for pg in cluster.pgs:
        for replica in pg.replicas:
            replica.first_log_id = pg.confirmed + 1
    clock.tick(60_000_000)


def _play(cluster: Cluster, clock: Clock, accums: dict[PgKey, dict[int, int]], log_size: int | None = None) -> None:
    plan = cluster.plan
    tag = f"generation {cluster.generation}"
    history = History(plan.seed, tag, clock, cluster.pgs, cluster.logs, plan.entry_size)
    volume = plan.log_size if log_size is None else log_size
    history.play(volume, settled=False)
    for log in cluster.logs.values():
        if not log.writer.live:  # a server without PGs has a log file all the same
            log.writer.open_next(recycle=True)
    _index(cluster, {pg.key: {**accums.get(pg.key, {}), **history.accums[pg.key]} for pg in cluster.pgs})


def _index(cluster: Cluster, accums: dict[PgKey, dict[int, int]]) -> None:
    """Every server's ilog, up to where its replicas have marked."""
    for server, log in cluster.logs.items():
        bounds = {}
        for pg in cluster.pgs:
            for replica in pg.replicas:
                if replica.server == server:
                    bounds[pg.key] = (replica.ilog_bound, accums[pg.key])
        log.index(bounds, cluster.plan.ilog_cursors)


def _write_json(path: Path, document: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    temporary.replace(path)
