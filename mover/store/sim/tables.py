"""The virtual tables of the sys tenant that a backup asks: names, columns in order, types, keys.

Source: observer notes 3. Tables whose columns the notes do not list in full have those they name, in that order.
"""

from __future__ import annotations

from dataclasses import dataclass

INT, UINT, TEXT, BOOL, TIME = "BIGINT", "BIGINT UNSIGNED", "VARCHAR(512)", "BOOLEAN", "TIMESTAMP(6)"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: columns as (name, SQL type), and the names of its key's columns."""

    name: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...] = ()


def _table(name: str, columns: str, key: str = "", *, times: bool = False) -> Table:
    """``columns``: names; ``:t`` text, ``:u`` unsigned, ``:b`` bool, ``:d`` time; no mark means a 64-bit integer."""
    kinds = {"t": TEXT, "u": UINT, "b": BOOL, "d": TIME, "": INT}
    parsed = [("gmt_create", TIME), ("gmt_modified", TIME)] if times else []
    for word in columns.split():
        column, _, kind = word.partition(":")
        parsed.append((column, kinds[kind]))
    return Table(name, tuple(parsed), tuple(key.split()))


_META = """tenant_id table_id partition_id svr_ip:t svr_port sql_port unit_id partition_cnt zone:t role member_list:t
row_count data_size data_version data_checksum row_checksum column_checksum:t is_original_leader is_previous_leader
create_time rebuild replica_type required_size status:t is_restore partition_checksum quorum fail_list:t
recovery_timestamp memstore_percent data_file_id"""

_PARTITION_KEY = "tenant_id table_id partition_id svr_ip svr_port"

TABLES = {
    table.name: table
    for table in (
        _table(
            "__all_server",
            """svr_ip:t svr_port id zone:t inner_port with_rootserver status:t block_migrate_in_time build_version:t
            stop_time start_service_time first_sessid with_partition last_offline_time""",
            "svr_ip svr_port",
            times=True,
        ),
        _table("__all_zone", "zone:t name:t value info:t", "zone name", times=True),
        _table(
            "__all_tenant",
            """tenant_id tenant_name:t replica_num zone_list:t primary_zone:t locked collation_type info:t read_only
            rewrite_merge_version locality:t logonly_replica_num previous_locality:t storage_format_version
            storage_format_work_version default_tablegroup_id compatibility_mode drop_tenant_time status:t
            in_recyclebin""",
            "tenant_id",
            times=True,
        ),
        _table(
            "__all_virtual_cluster",
            """cluster_id cluster_name:t created cluster_role:t cluster_status:t switchover#  switchover_status:t
            switchover_info:t current_scn standby_became_primary_scn primary_cluster_id protection_mode:t
            protection_level:t redo_transport_options:t""",
        ),
        _table(
            "__all_virtual_sys_parameter_stat",
            """zone:t svr_type:t svr_ip:t svr_port name:t data_type:t value:t value_strict:t info:t need_reboot
            section:t visible_level:t scope:t source:t edit_level:t""",
        ),
        _table(
            "__all_virtual_table",
            """tenant_id table_id table_name:t database_id table_type data_table_id index_status tablegroup_id
            index_type part_level part_num schema_version partition_status partition_schema_version binding:b
            drop_schema_version""",
            "tenant_id table_id",
        ),
        _table(
            "__all_virtual_tablegroup",
            """tenant_id tablegroup_id tablegroup_name:t comment:t primary_zone:t locality:t part_level part_func_type
            part_func_expr_num part_num sub_part_func_type sub_part_func_expr_num sub_part_num max_used_part_id
            binding:b drop_schema_version""",
            "tenant_id tablegroup_id",
        ),
        _table(
            "__all_virtual_pg_partition_info",
            """svr_ip:t svr_port tenant_id table_id partition_idx tg_id pg_idx max_decided_trans_version
            max_passed_trans_ts freeze_ts allow_gc partition_state:t min_log_service_ts min_trans_service_ts
            min_replay_engine_ts is_pg:b weak_read_timestamp replica_type""",
        ),
        _table("__all_virtual_meta_table", _META, _PARTITION_KEY, times=True),
        _table("__all_root_table", _META, _PARTITION_KEY, times=True),
        _table(
            "__all_tenant_partition_meta_table",
            """tenant_id table_id partition_id svr_ip:t svr_port role row_count data_size data_version required_size
            replica_type status:t data_checksum""",
            _PARTITION_KEY,
            times=True,
        ),
        _table(
            "__all_virtual_partition_replay_status",
            """svr_ip:t svr_port tenant_id table_id partition_idx partition_cnt pending_task_count retried_task_count
            post_barrier_status:t is_enabled max_confirmed_log_id:u last_replay_log_id:u last_replay_log_type:t
            total_submmited_task_count total_replayed_task_count next_submit_log_id:u next_submit_log_ts
            last_slide_out_log_id:u last_slide_out_log_ts""",
        ),
        _table(
            "__all_virtual_clog_stat",
            """svr_ip:t svr_port table_id partition_idx partition_cnt role:t status:t leader:t last_index_log_id:u
            last_index_log_timestamp last_log_id:u active_freeze_version:t curr_member_list:t member_ship_log_id
            is_offline is_in_sync start_id:u parent:t children_list:t accu_log_count accu_log_delay replica_type
            allow_gc quorum is_need_rebuild next_replay_ts_delta:u""",
        ),
        _table(
            "__all_virtual_server_clog_stat",
            """svr_ip:t svr_port system_clog_min_using_file_id user_clog_min_using_file_id system_ilog_min_using_file_id
            user_ilog_min_using_file_id zone:t region:t idc:t zone_type:t merge_status:t zone_status:t""",
        ),
        _table(
            "__all_virtual_partition_sstable_macro_info",
            """svr_ip:t svr_port tenant_id table_id partition_id data_version base_version multi_version_start
            snapshot_version macro_idx_in_sstable major_table_id macro_data_version macro_idx_in_data_file data_seq
            row_count occupy_size micro_block_count data_checksum schema_version macro_range:t row_count_delta
            macro_block_type:t compressor_name:t""",
            """svr_ip svr_port tenant_id table_id partition_id data_version base_version multi_version_start
            snapshot_version macro_idx_in_sstable""",
        ),
        _table(
            "__all_virtual_table_mgr",
            """svr_ip:t svr_port tenant_id table_type table_id partition_id index_id base_version multi_version_start
            snapshot_version max_merged_version upper_trans_version start_log_ts:u end_log_ts:u max_log_ts:u version
            logical_data_version size compact_row is_active timestamp ref write_ref trx_count
            pending_log_persisting_row_cnt contain_uncommitted_row:b""",
        ),
        _table(
            "__all_virtual_reserved_table_mgr",
            """svr_ip:t svr_port tenant_id table_id table_type partition_id index_id base_version multi_version_start
            snapshot_version version size ref reserve_type:t reserve_point_version""",
        ),
        _table(
            "__all_virtual_macro_block_marker_status",
            """svr_ip:t svr_port total_count reserved_count macro_meta_count partition_meta_count data_count
            second_index_count lob_data_count lob_second_index_count bloomfilter_count hold_count pending_free_count
            free_count mark_cost_time sweep_cost_time comment:t""",
        ),
        _table("__all_freeze_info", "frozen_version frozen_timestamp schema_version", "frozen_version", times=True),
        _table(
            "__all_freeze_schema_version",
            "frozen_version tenant_id schema_version",
            "frozen_version tenant_id",
            times=True,
        ),
        _table(
            "__all_acquired_snapshot",
            "gmt_create:d snapshot_type snapshot_ts schema_version tenant_id table_id extra_info:t",
            "gmt_create",
        ),
    )
}
