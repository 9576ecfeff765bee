"""The catalog: the coordinator's tables, one schema for SQLite and the MySQL protocol.

It is an index for people and the place of the lease. The destination is the truth: a catalog that was deleted is
created anew and nothing that can be restored is lost.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table, Text, event, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mover.errors import ConfigError, UnreachableError

metadata = MetaData()

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


def _set_sqlite_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # FULL: a lease or a state change that was acknowledged survives a power cut.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _begin_immediate(connection: Any) -> None:
    # A deferred SQLite transaction that reads first can fail to upgrade; ours always write.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _no_implicit_begin(connection: Any, _record: Any) -> None:
    # The driver's own BEGIN is deferred; _begin_immediate sends ours.
    connection.isolation_level = None


class Catalog:
    """The open catalog. Use :meth:`open`, then transactions from :meth:`begin`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    @classmethod
    async def open(cls, url: str) -> Catalog:
        """Connect and create what is missing.

        Raises ConfigError for a bad URL, UnreachableError when nobody answers.
        """
        try:
            parsed = make_url(url)
            engine = create_async_engine(parsed, pool_pre_ping=True)
        except (ArgumentError, ImportError, SQLAlchemyError) as exc:
            raise ConfigError(
                f"the catalog URL cannot be used: {type(exc).__name__}",
                hint="use sqlite+aiosqlite:///PATH or mysql+asyncmy://USER:PASSWORD@HOST/DATABASE",
            ) from None
        if parsed.get_backend_name() == "sqlite":
            event.listen(engine.sync_engine, "connect", _set_sqlite_pragmas)
            event.listen(engine.sync_engine, "connect", _no_implicit_begin)
            event.listen(engine.sync_engine, "begin", _begin_immediate)
            if parsed.database:
                os.makedirs(os.path.dirname(parsed.database) or ".", mode=0o700, exist_ok=True)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(metadata.create_all)
        except (SQLAlchemyError, OSError) as exc:
            await engine.dispose()
            raise UnreachableError(
                f"the catalog {parsed.render_as_string(hide_password=True)} cannot be opened: {_reason(exc)}",
                hint="check the path and its permissions, or name another one with --catalog",
            ) from None
        return cls(engine)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end of the block, rolled back by an exception."""
        try:
            async with self.engine.begin() as connection:
                yield connection
        except OperationalError as exc:
            raise UnreachableError(f"the catalog does not answer: {_reason(exc)}") from None

    async def rows(self, table: Table, **equals: Any) -> list[Mapping[str, Any]]:
        """All rows of ``table`` where the named columns have these values."""
        query = select(table)
        for name, value in equals.items():
            query = query.where(table.c[name] == value)
        async with self.begin() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def upsert(self, connection: AsyncConnection, table: Table, values: Mapping[str, Any]) -> None:
        """Insert a row, or update the one with its primary key. The caller's transaction holds the lease row."""
        keys = {column.name: values[column.name] for column in table.primary_key.columns}
        rest = {name: value for name, value in values.items() if name not in keys}
        statement = update(table).values(rest)
        exists = select(*table.primary_key.columns)
        for name, value in keys.items():
            statement = statement.where(table.c[name] == value)
            exists = exists.where(table.c[name] == value)
        if (await connection.execute(exists)).first() is not None:
            await connection.execute(statement)
        else:
            await connection.execute(table.insert().values(**values))

    async def aclose(self) -> None:
        await self.engine.dispose()


def _reason(exc: BaseException) -> str:
    original = getattr(exc, "orig", None) or exc
    return str(original).splitlines()[0] if str(original) else type(original).__name__
