"""A PG of the synthetic cluster: its leader, its replicas, and the log they agree on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mover.store.sim.entry import Entry
from mover.store.sim.identity import PgKey


@dataclass
class Replica:
    """One server's copy. ``queue`` holds what the leader has sent and the server has not written."""

    server: int
    first_log_id: int = 1
    last_log_id: int = 0
    known_confirmed: int = 0
    ilog_bound: int = 0
    stalled: int = 0
    queue: list[Entry] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        return {**self.__dict__, "queue": [entry.record() for entry in self.queue]}

    @classmethod
    def of(cls, record: dict[str, Any]) -> Replica:
        return cls(**{**record, "queue": [Entry(**entry) for entry in record["queue"]]})


@dataclass
class Pg:
    """A PG. ``pending`` are proposed and not confirmed; ``logs`` confirmed in this generation (ledger rows)."""

    key: PgKey
    leader: int
    epoch: int
    proposal_ts: int
    replicas: list[Replica]
    next_log_id: int = 1
    submit_ts: int = 0
    confirmed: int = 0
    accum: int = 0
    pending: list[Entry] = field(default_factory=list)
    logs: list[list[Any]] = field(default_factory=list)

    @property
    def majority(self) -> int:
        return len(self.replicas) // 2 + 1

    def on(self, server: int) -> Replica:
        return next(replica for replica in self.replicas if replica.server == server)

    def propose(self, entry: Entry) -> None:
        """The leader writes ``entry`` and sends it to everybody."""
        self.pending.append(entry)
        self.next_log_id = entry.log_id + 1
        self.submit_ts = max(self.submit_ts, entry.submit_ts)
        for replica in self.replicas:
            replica.queue.append(entry)

    def record(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in self.__dict__.items() if name not in ("key", "logs")},
            "key": self.key.order,
            "replicas": [replica.record() for replica in self.replicas],
            "pending": [entry.record() for entry in self.pending],
        }

    @classmethod
    def of(cls, record: dict[str, Any]) -> Pg:
        return cls(
            **{
                **record,
                "key": PgKey(*record["key"]),
                "replicas": [Replica.of(one) for one in record["replicas"]],
                "pending": [Entry(**entry) for entry in record["pending"]],
            }
        )
