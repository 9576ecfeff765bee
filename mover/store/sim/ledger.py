"""The truth about a synthetic cluster, for comparing a backup or a restore with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mover.store.sim.identity import RPC_PORT, SQL_PORT, server_ip
from mover.store.sim.sstables import SSTable

if TYPE_CHECKING:
    from mover.store.sim.cluster import Cluster
    from mover.store.sim.pg import Pg


def read_ledger(directory: Path) -> dict[str, Any]:
    """The ledger of the cluster in ``directory``; its form is in the documentation of this package."""
    document: dict[str, Any] = json.loads((directory / "ledger.json").read_bytes())
    return document


def ledger(cluster: Cluster, previous: dict[str, Any] | None) -> dict[str, Any]:
    """The ledger of this generation; logs of earlier ones are in ``previous``."""
    earlier = (*previous["pgs"], *previous["sys_pgs"]) if previous else ()
    before = {(pg["table_id"], pg["partition_id"]): pg for pg in earlier}
    pgs = [_pg(cluster, pg, before.get((pg.key.table_id, pg.key.part_id))) for pg in cluster.pgs]
    return {
        "generation": cluster.generation,
        "seed": cluster.plan.seed,
        "now": cluster.now,
        "freezes": cluster.freezes,
        "servers": [
            {
                "server": server,
                "ip": server_ip(server),
                "port": RPC_PORT,
                "sql_port": SQL_PORT,
                "zone": f"zone_{server}",
                "directory": f"observer_{server}",
            }
            for server in cluster.logs
        ],
        "tenants": [{"tenant_id": tenant, "name": f"tenant_{tenant}"} for tenant in cluster.tenants],
        "pgs": [pg for pg in pgs if pg["tenant_id"] != 1],
        "sys_pgs": [pg for pg in pgs if pg["tenant_id"] == 1],
    }


def _pg(cluster: Cluster, pg: Pg, before: dict[str, Any] | None) -> dict[str, Any]:
    start = max(replica.first_log_id for replica in pg.replicas)
    logs = [*(before["logs"] if before else []), *pg.logs]
    accum = before["start_accum_checksum"] if before else 0
    # The logs that some replica no longer has go; the checksum before the first one stays.
    gone = [row for row in logs if row[0] < start]
    return {
        "tenant_id": pg.key.tenant_id,
        "table_id": pg.key.table_id,
        "partition_id": pg.key.part_id,
        "partition_cnt": pg.key.part_cnt,
        "leader": pg.leader,
        "start_log_id": start,
        "start_accum_checksum": gone[-1][2] if gone else accum,
        "confirmed_log_id": pg.confirmed,
        "logs": [row for row in logs if row[0] >= start],
        "replicas": [_replica(cluster, pg, server) for server in (replica.server for replica in pg.replicas)],
    }


def _replica(cluster: Cluster, pg: Pg, server: int) -> dict[str, Any]:
    replica = pg.on(server)
    indexed = cluster.logs[server].indexed.get(pg.key)
    return {
        "server": server,
        "role": 1 if server == pg.leader else 2,
        "first_log_id": replica.first_log_id,
        "last_log_id": replica.last_log_id,
        "max_confirmed_log_id": replica.known_confirmed,
        "ilog_log_id": indexed[-1].log_id if indexed else 0,
        "sstables": [_sstable(table) for table in cluster.held(pg.key.order, server).tables],
    }


def _sstable(table: SSTable) -> dict[str, Any]:
    return {
        "table_type": table.table_type,
        "table_id": table.table_id,
        "index_id": table.index_id,
        "partition_id": table.partition_id,
        "version": table.version,
        "base_version": table.base_version,
        "multi_version_start": table.multi_version_start,
        "snapshot_version": table.snapshot_version,
        "blocks": [
            [
                block.index,
                block.data_version,
                block.data_seq,
                block.occupy_size,
                block.row_count,
                block.data_checksum,
                "lob_block" if block.lob else "data_block",
                block.sha256,
            ]
            for block in table.blocks
        ],
    }
