"""What a cluster of servers is to the rest of mover: many PGs, each with blocks to copy and a log of its own.

A :class:`mover.store.base.Store` is one PG; a cluster has thousands, of several tenants, whose logs lie mixed in one
log per server. So a cluster is read per server and handed out per PG: :class:`ClusterLog` splits what it reads,
:class:`Cluster` says which PGs there are and opens one for a data backup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mover.media.macro import TABLE_TYPE_MAJOR, TableKey
from mover.media.pg import PGKey


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """Facts about the cluster that is backed up, as it tells them."""

    kind: str  # "oceanbase"
    version: str  # the servers' build version
    cluster_name: str
    cluster_id: int


@dataclass(frozen=True, slots=True)
class ClusterServer:
    """A server whose files can be read here."""

    server_id: int
    ip: str
    port: int  # RPC port: with the address it names the server in the catalog

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClusterTenant:
    """A tenant; tenant 1 is the cluster's own and is not backed up."""

    tenant_id: int
    name: str
    compatibility_mode: int = 0
    locality: str = ""
    primary_zone: str = ""


@dataclass(frozen=True, slots=True)
class PGPlace:
    """A PG and the one replica of it that is read: blocks and log of two replicas are never mixed."""

    pg: PGKey
    server: ClusterServer
    leader: bool
    partitions: tuple[tuple[int, int], ...]  # (table id, partition id) of what is in the PG

    @property
    def tenant_id(self) -> int:
        return self.pg.tenant_id


@dataclass(frozen=True, slots=True)
class LogStart:
    """Where archiving of a PG can begin: its oldest log that can still be read, and what the log before it was."""

    log_id: int
    accum: int = 0  # running checksum at log_id - 1
    submit_ts: int = 0  # of log_id - 1, us; 0 when there is none
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class LogRun:
    """Consecutive confirmed logs of one PG: whole entries, verified, back to back as an archive has them."""

    pg: PGKey
    payload: bytes
    first_log_id: int
    last_log_id: int
    first_submit_ts: int  # us
    last_submit_ts: int
    accum: int  # running checksum at last_log_id
    epoch: int  # of last_log_id


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far the log of a PG is, by the catalog and by what was read."""

    confirmed: int  # the last log that is known to be confirmed
    next_log_id: int  # the first one that was not handed out
    service_ts: int  # no log with a submit time at or below this will still come; us, 0 = not known


class ClusterLog(Protocol):
    """The logs of all PGs that are followed, read from the servers' files."""

    async def start_of(self, place: PGPlace) -> LogStart:
        """The oldest log of a PG from which on every log can still be read.

        Raises LogGapError when there is none.
        """
        ...

    async def oldest_us(self) -> int:
        """When the oldest log that the servers still have was written, us; 0 when there is none."""
        ...

    def follow(self, place: PGPlace, next_log_id: int, accum: int) -> None:
        """Hand out the log of this PG from ``next_log_id`` on; ``accum`` is the running checksum before it."""
        ...

    def forget(self, pg: PGKey) -> None:
        """Hand out nothing more of it. Idempotent."""
        ...

    async def poll(self, limit: int) -> Sequence[LogRun]:
        """What is confirmed and was not handed out yet, at most about ``limit`` bytes of a server's log at a time.

        Runs of one PG come in order. Empty when nothing new is confirmed.

        Raises:
            LogGapError: log that was not handed out is gone; ``pg`` says whose when it is one PG's.
            IntegrityError: damaged log, or a running checksum that does not hold.
        """
        ...

    @property
    def caught_up(self) -> bool:
        """Did the last poll reach the end of every server's log?"""
        ...

    def position(self, pg: PGKey) -> LogPosition:
        """Of a PG that is followed."""
        ...

    async def aclose(self) -> None:
        """Close the files. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class ClusterBlock:
    """A macroblock that was read and verified against the catalog."""

    entry: bytes  # ObFullMacroBlockMetaEntry, as far as it is known
    data: bytes  # the occupied bytes


@dataclass(frozen=True, slots=True)
class BlockKey:
    """Which macroblock of a table this is: its logical id, and what proves that two are the same."""

    data_version: int
    data_seq: int
    data_checksum: int
    occupy_size: int


@dataclass(frozen=True, slots=True)
class ClusterTable:
    """One sstable of a PG and the blocks it is made of, in their order."""

    key: TableKey
    blocks: tuple[BlockKey, ...]
    end_ts: int  # what was committed up to here is in it, us

    @property
    def is_major(self) -> bool:
        return self.key.table_type == TABLE_TYPE_MAJOR


@dataclass(frozen=True, slots=True)
class PGContent:
    """What a PG consists of at the moment it was listed."""

    place: PGPlace
    tables: tuple[ClusterTable, ...]
    data_version: int  # of its majors, the least of its partitions'
    replay_from_ts: int  # log with a later submit time is needed to bring the sstables up to date, us


class PGCapture(Protocol):
    """The data backup of one PG in progress."""

    async def content(self) -> PGContent:
        """List the PG as it is now. What :meth:`read` is asked for is of the latest list."""
        ...

    async def read(self, table: ClusterTable, numbers: Sequence[int]) -> Sequence[ClusterBlock]:
        """Blocks of a table by their numbers in it.

        Raises:
            SourceError: the table was replaced while it was read: list the PG again.
            IntegrityError: a block is damaged, and still listed.
        """
        ...

    async def aclose(self) -> None:
        """Close the files. Idempotent."""
        ...


class Cluster(Protocol):
    """A cluster to back up."""

    async def identity(self) -> ClusterIdentity: ...

    async def tenants(self) -> Sequence[ClusterTenant]:
        """Every tenant but tenant 1."""
        ...

    async def servers(self) -> Sequence[ClusterServer]:
        """The servers whose files can be read here."""
        ...

    async def places(self, prefer: Mapping[tuple[int, int], str] | None = None) -> Sequence[PGPlace]:
        """Every PG of every tenant but tenant 1, with the replica that is read.

        Args:
            prefer: by (table id, partition id) the server to read, as ``str(ClusterServer)``, where it can be.

        Raises SourceError naming PGs without a replica on a server whose files can be read.
        """
        ...

    async def frozen(self) -> Sequence[tuple[int, int, int]]:
        """(version, timestamp us, schema version) of every major freeze, oldest first."""
        ...

    async def capture(self, place: PGPlace) -> PGCapture: ...

    async def log(self) -> ClusterLog: ...

    async def aclose(self) -> None: ...
