"""Which schema a catalog has, and how it gets the one that this mover needs.

The version is one row, read when the catalog is opened and written last. A step may be run twice: two coordinators can
open an old catalog at the same moment, and the MySQL protocol has no transaction around DDL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Column, Connection, Table, inspect, select, update

from mover.errors import ConfigError
from mover.rootservice.catalog_tables import backup_task, metadata, schema_table

if TYPE_CHECKING:
    from alembic.operations import Operations

SCHEMA_VERSION = 2


def prepare(connection: Connection) -> None:
    """Create what is missing and bring an older schema up to date. Idempotent.

    Raises ConfigError when a newer mover wrote the catalog.
    """
    tables = set(inspect(connection).get_table_names())
    if schema_table.name in tables:
        version = connection.execute(select(schema_table.c.version)).scalar() or SCHEMA_VERSION
        if version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"the catalog has schema {version}, this mover knows {SCHEMA_VERSION}",
                hint="use the newer mover that wrote it, or name another catalog with --catalog",
            )
    else:
        # Catalogs before there was a version have the schema 1; an empty database has nothing to bring up to date.
        version = 1 if backup_task.name in tables else SCHEMA_VERSION
    if version < SCHEMA_VERSION:
        _upgrade(connection, version)
    metadata.create_all(connection)
    _create_views(connection)
    changed = connection.execute(update(schema_table).values(version=SCHEMA_VERSION))
    if not changed.rowcount:
        connection.execute(schema_table.insert().values(id=1, version=SCHEMA_VERSION))


def _upgrade(connection: Connection, version: int) -> None:
    # Only an old catalog needs alembic, and every command would wait for its import.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    operations = Operations(MigrationContext.configure(connection))
    for number in range(version + 1, SCHEMA_VERSION + 1):
        _STEPS[number](operations)


def _mark_deleted(operations: Operations) -> None:
    _add_column(operations, backup_task, "is_mark_deleted")


_STEPS: dict[int, Callable[[Operations], None]] = {2: _mark_deleted}


def _add_column(operations: Operations, table: Table, name: str) -> None:
    known = {column["name"] for column in inspect(operations.get_bind()).get_columns(table.name)}
    if name not in known:
        column = table.c[name]
        new: Column[int] = Column(name, column.type, nullable=column.nullable, server_default=column.server_default)
        operations.add_column(table.name, new)


def _create_views(connection: Connection) -> None:
    from mover.rootservice.catalog_views import VIEWS, create_view

    there = {name.upper() for name in inspect(connection).get_view_names()}
    for name in VIEWS:
        if name in there:
            connection.exec_driver_sql(f"DROP VIEW {name}")
        connection.exec_driver_sql(create_view(name, connection.dialect))
