"""The tables of the catalog: one schema for SQLite and for what speaks the MySQL protocol.

Who changes a table here adds the step to ``catalog_schema.py``, which older catalogs go through.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table, Text

metadata = MetaData()

# Which schema the catalog has: one row. It is read first, and written last.
schema_table = Table(
    "mv_schema",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)

# A lease is one row. Every transaction of its holder begins by touching that row with its epoch, so that a
# coordinator that lost the lease writes nothing, however late it wakes up.
lease_table = Table(
    "mv_lease",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("holder", String(256), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)

# One row per data backup and tenant: __all_tenant_backup_task and its history in one.
backup_task = Table(
    "mv_backup_task",
    metadata,
    Column("tenant_id", BigInteger, primary_key=True, autoincrement=False),
    Column("backup_set_id", BigInteger, primary_key=True, autoincrement=False),
    Column("backup_type", String(1), nullable=False),  # D full, I incremental
    Column("status", String(16), nullable=False),  # GENERATE DOING FINISH CANCEL
    Column("result", BigInteger, nullable=False, default=0),
    Column("comment", Text, nullable=False, default=""),
    Column("owner_epoch", BigInteger, nullable=False),
    Column("start_time", BigInteger, nullable=False),  # us
    Column("end_time", BigInteger, nullable=False, default=0),
    Column("pg_count", BigInteger, nullable=False, default=0),
    Column("finish_pg_count", BigInteger, nullable=False, default=0),
    Column("partition_count", BigInteger, nullable=False, default=0),
    Column("finish_partition_count", BigInteger, nullable=False, default=0),
    Column("macro_block_count", BigInteger, nullable=False, default=0),
    Column("finish_macro_block_count", BigInteger, nullable=False, default=0),
    Column("reused_macro_block_count", BigInteger, nullable=False, default=0),
    Column("input_bytes", BigInteger, nullable=False, default=0),
    Column("output_bytes", BigInteger, nullable=False, default=0),
    # Since schema 2.
    Column("is_mark_deleted", BigInteger, nullable=False, default=0, server_default="0"),
)

# One row per PG and backup: __all_tenant_pg_backup_task.
pg_task = Table(
    "mv_pg_task",
    metadata,
    Column("tenant_id", BigInteger, primary_key=True, autoincrement=False),
    Column("backup_set_id", BigInteger, primary_key=True, autoincrement=False),
    Column("table_id", BigInteger, primary_key=True, autoincrement=False),
    Column("partition_id", BigInteger, primary_key=True, autoincrement=False),
    Column("status", String(16), nullable=False),  # PENDING DOING FINISH
    Column("result", BigInteger, nullable=False, default=0),
    Column("task_id", BigInteger, nullable=False, default=0),
    Column("retry_count", BigInteger, nullable=False, default=0),
    Column("server", String(64), nullable=False, default=""),
    Column("macro_block_count", BigInteger, nullable=False, default=0),
    Column("finish_macro_block_count", BigInteger, nullable=False, default=0),
    Column("input_bytes", BigInteger, nullable=False, default=0),
    Column("output_bytes", BigInteger, nullable=False, default=0),
    Index("mv_pg_task_status", "status"),
)

# One row per archive round and tenant: __all_tenant_backup_log_archive_status and its history in one.
archive_round = Table(
    "mv_archive_round",
    metadata,
    Column("tenant_id", BigInteger, primary_key=True, autoincrement=False),
    Column("round_id", BigInteger, primary_key=True, autoincrement=False),
    Column("status", String(16), nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("checkpoint_scn", BigInteger, nullable=False, default=0),
    Column("checkpoint_lsn", BigInteger, nullable=False, default=0),
    Column("input_bytes", BigInteger, nullable=False, default=0),
    Column("output_bytes", BigInteger, nullable=False, default=0),
    Column("lag_us", BigInteger, nullable=False, default=0),
    Column("updated_us", BigInteger, nullable=False, default=0),
)
