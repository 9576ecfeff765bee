"""What a 3.1 cluster says about itself: servers, tenants, PGs, sstables and their macroblocks, log positions.

Table and column names are those of the 3.1 schema; only the sys tenant sees all tenants. ``last_index_log_id`` of
``__all_virtual_clog_stat`` is never set there, so the confirmed end of a log comes from
``__all_virtual_partition_replay_status``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mover.errors import SourceError
from mover.media.pg import PGKey
from mover.store.cluster import ClusterIdentity, ClusterServer, ClusterTenant
from mover.store.observer.tables import Row, Tables

SUPPORTED_VERSION = "3.1"
LOG_ONLY_REPLICA = 5
TABLE_MEMTABLE = 0
TABLE_MAJOR = 1


class Replica(NamedTuple):
    """One replica of a PG, as its server tells."""

    pg: PGKey
    server: tuple[str, int]
    leader: bool
    usable: bool  # has sstables, is in sync and online


class LogState(NamedTuple):
    """How far the log of a replica is."""

    confirmed: int
    last_replayed: int


class Freeze(NamedTuple):
    """A major freeze."""

    version: int
    timestamp: int  # us
    schema_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SSTable:
    """One row of ``__all_virtual_table_mgr``."""

    table_type: int
    table_id: int  # of the partition
    partition_id: int
    index_id: int
    base_version: int
    multi_version_start: int
    snapshot_version: int
    start_log_ts: int
    end_log_ts: int
    max_log_ts: int
    version: int
    row: Row

    @property
    def is_major(self) -> bool:
        return self.table_type == TABLE_MAJOR


@dataclass(frozen=True, slots=True)
class MacroRow:
    """One row of ``__all_virtual_partition_sstable_macro_info``: a macroblock of an sstable."""

    index_id: int
    partition_id: int
    data_version: int  # of the sstable
    base_version: int
    multi_version_start: int
    snapshot_version: int
    index_in_sstable: int
    macro_data_version: int
    block_index: int
    data_seq: int
    row_count: int
    occupy_size: int
    micro_block_count: int
    data_checksum: int
    schema_version: int
    row_count_delta: int
    block_type: str
    compressor: str


_MACRO_COLUMNS = {
    "table_id": "index_id",
    "partition_id": "partition_id",
    "data_version": "data_version",
    "base_version": "base_version",
    "multi_version_start": "multi_version_start",
    "snapshot_version": "snapshot_version",
    "macro_idx_in_sstable": "index_in_sstable",
    "macro_data_version": "macro_data_version",
    "macro_idx_in_data_file": "block_index",
    "data_seq": "data_seq",
    "row_count": "row_count",
    "occupy_size": "occupy_size",
    "micro_block_count": "micro_block_count",
    "data_checksum": "data_checksum",
    "schema_version": "schema_version",
    "row_count_delta": "row_count_delta",
    "macro_block_type": "block_type",
    "compressor_name": "compressor",
}
_SSTABLE_COLUMNS = (
    "table_type", "table_id", "partition_id", "index_id", "base_version", "multi_version_start", "snapshot_version",
    "start_log_ts", "end_log_ts", "max_log_ts", "version",
)  # fmt: skip
_SSTABLE_MORE = ("max_merged_version", "upper_trans_version", "logical_data_version", "size", "contain_uncommitted_row")


class Catalog:
    """Typed answers of a cluster's tables."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    async def servers(self) -> list[tuple[ClusterServer, int]]:
        """Active servers with their SQL ports. Raises SourceError for a server that is not a 3.1."""
        columns = ("svr_ip", "svr_port", "inner_port", "id", "status", "build_version")
        found = []
        for row in await self.tables.rows("__all_server", columns):
            if not str(row["build_version"]).startswith(SUPPORTED_VERSION):
                raise SourceError(
                    f"server {row['svr_ip']}:{row['svr_port']} is version {row['build_version']}",
                    hint=f"mover reads the files of OceanBase {SUPPORTED_VERSION} only",
                )
            if str(row["status"]).lower() == "active":
                server = ClusterServer(int(row["id"]), str(row["svr_ip"]), int(row["svr_port"]))
                found.append((server, int(row["inner_port"])))
        if not found:
            raise SourceError(f"{self.tables.name} knows no active server")
        return found

    async def identity(self) -> ClusterIdentity:
        """Name, id and version of the cluster."""
        rows = await self.tables.rows("__all_virtual_cluster", ("cluster_id", "cluster_name"))
        versions = await self.tables.rows("__all_server", ("build_version",))
        if len(rows) != 1 or not versions:
            raise SourceError(f"{self.tables.name} names {len(rows)} clusters, not 1")
        version = str(versions[0]["build_version"])
        return ClusterIdentity("oceanbase", version, str(rows[0]["cluster_name"]), int(rows[0]["cluster_id"]))

    async def tenants(self) -> list[ClusterTenant]:
        """Every tenant, tenant 1 too."""
        columns = ("tenant_id", "tenant_name", "compatibility_mode", "locality", "primary_zone")
        return [
            ClusterTenant(
                int(row["tenant_id"]),
                str(row["tenant_name"]),
                int(row["compatibility_mode"]),
                str(row["locality"] or ""),
                str(row["primary_zone"] or ""),
            )
            for row in await self.tables.rows("__all_tenant", columns)
        ]

    async def data_dirs(self) -> dict[tuple[str, int], str]:
        """Parameter ``data_dir`` of every server."""
        columns = ("svr_ip", "svr_port", "value")
        rows = await self.tables.rows("__all_virtual_sys_parameter_stat", columns, {"name": "data_dir"})
        return {_server(row): str(row["value"]) for row in rows}

    async def replicas(self) -> list[Replica]:
        """Every replica of every PG, as the servers tell it now."""
        columns = (
            "svr_ip", "svr_port", "table_id", "partition_idx", "partition_cnt", "role", "replica_type", "is_offline",
            "is_in_sync", "is_need_rebuild",
        )  # fmt: skip
        return [
            Replica(
                PGKey.of_partition(int(row["table_id"]), int(row["partition_idx"]), int(row["partition_cnt"])),
                _server(row),
                str(row["role"]).upper() == "LEADER",
                bool(row["is_in_sync"])
                and not row["is_offline"]
                and not row["is_need_rebuild"]
                and int(row["replica_type"]) != LOG_ONLY_REPLICA,
            )
            for row in await self.tables.rows("__all_virtual_clog_stat", columns)
        ]

    async def partitions(self, server: tuple[str, int]) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """(table id, partition id) of what is in each PG of a server, by the PG's (table id, partition id)."""
        columns = ("table_id", "partition_idx", "tg_id", "pg_idx")
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row in await self.tables.rows("__all_virtual_pg_partition_info", columns, _where(server)):
            key = int(row["tg_id"]), int(row["pg_idx"])
            found.setdefault(key, []).append((int(row["table_id"]), int(row["partition_idx"])))
        return found

    async def log_states(self, server: tuple[str, int]) -> dict[tuple[int, int], LogState]:
        """Confirmed and replayed log ids of the PGs of a server, by (table id, partition id)."""
        columns = ("table_id", "partition_idx", "max_confirmed_log_id", "last_replay_log_id")
        rows = await self.tables.rows("__all_virtual_partition_replay_status", columns, _where(server))
        return {
            (int(row["table_id"]), int(row["partition_idx"])): LogState(
                int(row["max_confirmed_log_id"]), int(row["last_replay_log_id"])
            )
            for row in rows
        }

    async def service_times(self, server: tuple[str, int]) -> dict[tuple[int, int], int]:
        """``min_log_service_ts`` of the PGs of a server, us: every log with a smaller submit time is there."""
        columns = ("tg_id", "pg_idx", "min_log_service_ts")
        found: dict[tuple[int, int], int] = {}
        for row in await self.tables.rows("__all_virtual_pg_partition_info", columns, _where(server)):
            key, time = (int(row["tg_id"]), int(row["pg_idx"])), max(0, int(row["min_log_service_ts"] or 0))
            found[key] = min(found.get(key, time), time)
        return found

    async def freezes(self) -> list[Freeze]:
        """Every major freeze, oldest first."""
        columns = ("frozen_version", "frozen_timestamp", "schema_version")
        rows = await self.tables.rows("__all_freeze_info", columns)
        return sorted(
            Freeze(int(r["frozen_version"]), int(r["frozen_timestamp"]), int(r["schema_version"])) for r in rows
        )

    async def sstables(self, server: tuple[str, int], table_id: int, partition_id: int) -> list[SSTable]:
        """The sstables of a partition on a server, memtables left out, in the order of the server."""
        where = _where(server) | {"tenant_id": table_id >> 40, "table_id": table_id, "partition_id": partition_id}
        rows = await self.tables.rows("__all_virtual_table_mgr", (*_SSTABLE_COLUMNS, *_SSTABLE_MORE), where)
        return [
            SSTable(row=row, **{name: int(row[name] or 0) for name in _SSTABLE_COLUMNS})
            for row in rows
            if int(row["table_type"]) != TABLE_MEMTABLE
        ]

    async def macros(self, server: tuple[str, int], index_id: int, partition_id: int) -> list[MacroRow]:
        """The macroblocks of one index of a partition, of all its current sstables."""
        where = _where(server) | {"tenant_id": index_id >> 40, "table_id": index_id, "partition_id": partition_id}
        rows = await self.tables.rows("__all_virtual_partition_sstable_macro_info", tuple(_MACRO_COLUMNS), where)
        texts = {"block_type", "compressor"}
        return [
            MacroRow(
                **{  # type: ignore[arg-type]
                    name: str(row[column]) if name in texts else int(row[column])
                    for column, name in _MACRO_COLUMNS.items()
                }
            )
            for row in rows
        ]

    async def aclose(self) -> None:
        await self.tables.aclose()


def _server(row: Row) -> tuple[str, int]:
    return str(row["svr_ip"]), int(row["svr_port"])


def _where(server: Sequence[Any]) -> dict[str, Any]:
    return {"svr_ip": server[0], "svr_port": server[1]}
