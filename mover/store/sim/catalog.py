"""Fills the virtual tables from the state of the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mover.store.sim.identity import RPC_PORT, SQL_PORT, TABLEGROUP, server_ip
from mover.store.sim.sstables import MAJOR, SSTable
from mover.store.sim.tables import TABLES

if TYPE_CHECKING:
    from mover.store.sim.cluster import Cluster
    from mover.store.sim.pg import Pg

SYS_TENANT = 1
BUILD_VERSION = "3.1.5_100000252023041721-synthetic"
_NEVER = 2**63 - 1
_UNSET = 2**64 - 1


class _Rows:
    """Collects rows as dictionaries and gives them in the tables' column order, sorted by key."""

    def __init__(self, now: int) -> None:
        self._time = datetime.fromtimestamp(now / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        self._rows: dict[str, list[list[Any]]] = {name: [] for name in TABLES}

    def add(self, table: str, **values: Any) -> None:
        columns = TABLES[table].columns
        unknown = values.keys() - {name for name, _ in columns}
        if unknown:
            raise KeyError(f"{table} has no {unknown}")
        row = []
        for name, kind in columns:
            if name in values:
                row.append(values[name])
            elif kind.startswith("TIMESTAMP"):
                row.append(self._time)
            else:
                row.append("" if kind.startswith("VARCHAR") else False if kind == "BOOLEAN" else 0)
        self._rows[table].append(row)

    def tables(self) -> dict[str, Any]:
        out = {}
        for name, table in TABLES.items():
            out[name] = {
                "columns": [list(column) for column in table.columns],
                "key": list(table.key),
                "rows": self._rows[name],
            }
        return out


def catalog(cluster: Cluster) -> dict[str, Any]:
    """The document that ``catalog.json`` holds."""
    rows = _Rows(cluster.now)
    _servers(cluster, rows)
    _tenants(cluster, rows)
    for pg in cluster.pgs:
        _pg_schema(cluster, pg, rows)
        _pg_log(cluster, pg, rows)
    for holdings in cluster.holdings:
        for table in holdings.tables:
            _sstable(holdings.server, table, rows)
    return {"generation": cluster.generation, "now": cluster.now, "tables": rows.tables()}


def _at(server: int) -> dict[str, Any]:
    return {"svr_ip": server_ip(server), "svr_port": RPC_PORT}


def _servers(cluster: Cluster, rows: _Rows) -> None:
    for server, log in cluster.logs.items():
        zone = f"zone_{server}"
        rows.add(
            "__all_server",
            **_at(server),
            id=server,
            zone=zone,
            inner_port=SQL_PORT,
            with_rootserver=int(server == 1),
            status="active",
            build_version=BUILD_VERSION,
            start_service_time=cluster.created,
            with_partition=1,
        )
        rows.add("__all_zone", zone=zone, name="status", value=2, info="ACTIVE")
        rows.add("__all_zone", zone=zone, name="last_merged_version", value=cluster.freezes[-1][0])
        for name, value in (
            ("data_dir", "store"),
            ("datafile_size", str(cluster.files[server].total * (2 << 20))),
            ("datafile_disk_percentage", "90"),
            ("cluster", "synthetic"),
            ("cluster_id", "1"),
        ):
            rows.add(
                "__all_virtual_sys_parameter_stat",
                zone=zone,
                svr_type="observer",
                **_at(server),
                name=name,
                data_type="STRING",
                value=value,
                value_strict=value,
                section="OBSERVER",
                scope="CLUSTER",
                source="DEFAULT",
            )
        rows.add(
            "__all_virtual_server_clog_stat",
            **_at(server),
            system_clog_min_using_file_id=log.first_file,
            user_clog_min_using_file_id=log.first_file,
            system_ilog_min_using_file_id=1,
            user_ilog_min_using_file_id=1,
            zone=zone,
            region="default_region",
            zone_type="ReadWrite",
            merge_status="IDLE",
            zone_status="ACTIVE",
        )
        file = cluster.files[server]
        held = [
            block
            for holdings in cluster.holdings
            if holdings.server == server
            for table in holdings.tables
            for block in table.blocks
        ]
        lobs = len({block.index for block in held if block.lob})
        rows.add(
            "__all_virtual_macro_block_marker_status",
            **_at(server),
            total_count=file.total,
            reserved_count=2,
            data_count=len({block.index for block in held}) - lobs,
            lob_data_count=lobs,
            bloomfilter_count=cluster.blooms.get(server, 0),
            free_count=len(file.free),
            mark_cost_time=1000,
            sweep_cost_time=1000,
        )
    for version, timestamp in cluster.freezes:
        rows.add(
            "__all_freeze_info",
            frozen_version=version,
            frozen_timestamp=timestamp,
            schema_version=cluster.schema_version,
        )
        for tenant in (SYS_TENANT, *cluster.tenants):
            rows.add(
                "__all_freeze_schema_version",
                frozen_version=version,
                tenant_id=tenant,
                schema_version=cluster.schema_version,
            )
    rows.add("__all_zone", zone="", name="frozen_version", value=cluster.freezes[-1][0])
    rows.add("__all_zone", zone="", name="last_merged_version", value=cluster.freezes[-1][0])
    rows.add(
        "__all_virtual_cluster",
        cluster_id=1,
        cluster_name="synthetic",
        created=cluster.created,
        cluster_role="PRIMARY",
        cluster_status="VALID",
        current_scn=cluster.now,
        protection_mode="MAXIMUM PERFORMANCE",
        protection_level="MAXIMUM PERFORMANCE",
        **{"switchover#": 0},
    )


def _tenants(cluster: Cluster, rows: _Rows) -> None:
    zones = ";".join(f"zone_{server}" for server in cluster.logs)
    for tenant, name in ((SYS_TENANT, "sys"), *((tenant, f"tenant_{tenant}") for tenant in cluster.tenants)):
        rows.add(
            "__all_tenant",
            tenant_id=tenant,
            tenant_name=name,
            replica_num=-1,
            zone_list=zones,
            primary_zone="RANDOM",
            collation_type=45,
            rewrite_merge_version=0,
            locality=", ".join(f"FULL{{1}}@zone_{server}" for server in cluster.logs),
            logonly_replica_num=0,
            default_tablegroup_id=-1,
            drop_tenant_time=-1,
            status="TENANT_STATUS_NORMAL",
        )


def _pg_schema(cluster: Cluster, pg: Pg, rows: _Rows) -> None:
    table_id, _, part_cnt = order = pg.key.order
    tenant = table_id >> 40
    group = bool(table_id & TABLEGROUP)
    if group:
        rows.add(
            "__all_virtual_tablegroup",
            tenant_id=tenant,
            tablegroup_id=table_id,
            tablegroup_name=f"tg_{table_id & (TABLEGROUP - 1)}",
            part_num=1,
            binding=True,
            drop_schema_version=-1,
        )
    for part in cluster.held(order, pg.leader).partitions:
        if part.partition_id:
            continue
        for index in part.indexes:
            rows.add(
                "__all_virtual_table",
                tenant_id=tenant,
                table_id=index,
                table_name=f"t_{index & 0xFFFFFFFFFF}" if index == part.table_id else f"__idx_{part.table_id}_i1",
                database_id=tenant << 40 | 1001,
                table_type=3 if index == part.table_id else 5,
                data_table_id=0 if index == part.table_id else part.table_id,
                index_status=1 if index == part.table_id else 2,
                tablegroup_id=table_id if group else -1,
                index_type=0 if index == part.table_id else 1,
                part_level=int(part_cnt > 0),
                part_num=max(part_cnt, 1),
                schema_version=cluster.schema_version,
                binding=group,
                drop_schema_version=-1,
            )


def _pg_log(cluster: Cluster, pg: Pg, rows: _Rows) -> None:
    table_id, part_id, part_cnt = order = pg.key.order
    tenant = table_id >> 40
    version = cluster.freezes[-1][0]
    members = ",".join(f'"{server_ip(replica.server)}:{RPC_PORT}"' for replica in pg.replicas)
    for replica in pg.replicas:
        leader = replica.server == pg.leader
        holdings = cluster.held(order, replica.server)
        majors = [table for table in holdings.tables if table.table_type == MAJOR]
        size = sum(block.occupy_size for table in holdings.tables for block in table.blocks)
        count = sum(block.row_count for table in majors for block in table.blocks)
        rows.add(
            "__all_root_table" if tenant == SYS_TENANT else "__all_virtual_meta_table",
            tenant_id=tenant,
            table_id=table_id,
            partition_id=part_id,
            **_at(replica.server),
            sql_port=SQL_PORT,
            unit_id=1000 + replica.server,
            partition_cnt=part_cnt,
            zone=f"zone_{replica.server}",
            role=1 if leader else 2,
            member_list=members,
            row_count=count,
            data_size=size,
            data_version=version,
            data_checksum=_checksum(majors),
            is_original_leader=int(leader),
            replica_type=0,
            required_size=size,
            status="REPLICA_STATUS_NORMAL",
            quorum=len(pg.replicas),
            memstore_percent=100,
        )
        rows.add(
            "__all_virtual_clog_stat",
            **_at(replica.server),
            table_id=table_id,
            partition_idx=part_id,
            partition_cnt=part_cnt,
            role="LEADER" if leader else "FOLLOWER",
            status="ACTIVE",
            leader=f"{server_ip(pg.leader)}:{RPC_PORT}",
            last_index_log_id=_UNSET,
            last_index_log_timestamp=-1,
            last_log_id=replica.last_log_id,
            active_freeze_version="1-0",
            curr_member_list=members,
            is_in_sync=int(replica.last_log_id >= pg.confirmed),
            start_id=replica.known_confirmed + 1,
            replica_type=0,
            allow_gc=0,
            quorum=len(pg.replicas),
        )
        rows.add(
            "__all_virtual_partition_replay_status",
            **_at(replica.server),
            tenant_id=tenant,
            table_id=table_id,
            partition_idx=part_id,
            partition_cnt=part_cnt,
            is_enabled=1,
            max_confirmed_log_id=replica.known_confirmed,
            last_replay_log_id=replica.known_confirmed,
            next_submit_log_id=replica.known_confirmed + 1,
            last_slide_out_log_id=replica.known_confirmed,
        )
        for part in holdings.partitions:
            mine = [
                table for table in majors if (table.table_id, table.partition_id) == (part.table_id, part.partition_id)
            ]
            rows.add(
                "__all_virtual_pg_partition_info",
                **_at(replica.server),
                tenant_id=tenant,
                table_id=part.table_id,
                partition_idx=part.partition_id,
                tg_id=table_id,
                pg_idx=part_id,
                partition_state="L_WORKING" if leader else "F_WORKING",
                is_pg=bool(table_id & TABLEGROUP),
                weak_read_timestamp=cluster.now,
            )
            rows.add(
                "__all_tenant_partition_meta_table",
                tenant_id=tenant,
                table_id=part.table_id,
                partition_id=part.partition_id,
                **_at(replica.server),
                role=1 if leader else 2,
                row_count=sum(block.row_count for table in mine for block in table.blocks),
                data_size=sum(block.occupy_size for table in mine for block in table.blocks),
                data_version=version,
                status="REPLICA_STATUS_NORMAL",
                data_checksum=_checksum(mine),
            )


def _checksum(tables: Iterable[SSTable]) -> int:
    return sum(block.data_checksum for table in tables for block in table.blocks) & (1 << 63) - 1


def _sstable(server: int, table: SSTable, rows: _Rows) -> None:
    tenant = table.index_id >> 40
    rows.add(
        "__all_virtual_table_mgr",
        **_at(server),
        tenant_id=tenant,
        table_type=table.table_type,
        table_id=table.table_id,
        partition_id=table.partition_id,
        index_id=table.index_id,
        base_version=table.base_version,
        multi_version_start=table.multi_version_start,
        snapshot_version=table.snapshot_version,
        max_merged_version=table.snapshot_version,
        upper_trans_version=_NEVER if table.table_type != MAJOR else table.snapshot_version,
        start_log_ts=table.start_log_ts,
        end_log_ts=table.end_log_ts,
        max_log_ts=table.end_log_ts,
        version=table.version,
        logical_data_version=table.version,
        size=sum(block.occupy_size for block in table.blocks),
        ref=1,
    )
    for ordinal, block in enumerate(table.blocks):
        rows.add(
            "__all_virtual_partition_sstable_macro_info",
            **_at(server),
            tenant_id=tenant,
            table_id=table.index_id,
            partition_id=table.partition_id,
            data_version=table.version,
            base_version=table.base_version,
            multi_version_start=table.multi_version_start,
            snapshot_version=table.snapshot_version,
            macro_idx_in_sstable=ordinal,
            major_table_id=table.table_id,
            macro_data_version=block.data_version,
            macro_idx_in_data_file=block.index,
            data_seq=block.data_seq,
            row_count=block.row_count,
            occupy_size=block.occupy_size,
            micro_block_count=block.micro_blocks,
            data_checksum=block.data_checksum,
            schema_version=table.schema_version,
            macro_range="(MIN,MIN)",
            row_count_delta=block.row_count_delta,
            macro_block_type="lob_block" if block.lob else "data_block",
            compressor_name=block.compressor,
        )
