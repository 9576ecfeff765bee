"""The catalog: the coordinator's tables, one schema for SQLite and the MySQL protocol.

It is an index for people and the place of the lease. The destination is the truth: a catalog that was deleted is
created anew and nothing that can be restored is lost.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Table, event, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mover.clock import Clock, SystemClock
from mover.errors import ConfigError, UnreachableError
from mover.rootservice.catalog_clock import SQLITE_FUNCTION
from mover.rootservice.catalog_schema import prepare

# What a database that went away looks like. IntegrityError is not among them: it says that somebody was first.
_GONE = (OperationalError, InterfaceError, PoolTimeout, OSError, TimeoutError)
# A server that accepts and does not answer. Longer than a busy one needs, shorter than anybody waits.
_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 20


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

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock  # of a catalog without a server

    @classmethod
    async def open(cls, url: str, clock: Clock | None = None) -> Catalog:
        """Connect, create what is missing and bring an older catalog up to date.

        Args:
            url: ``sqlite+aiosqlite:///PATH``, or ``mysql+asyncmy://USER:PASSWORD@HOST:PORT/DATABASE``.
            clock: of a catalog in a file; a server has its own.

        Raises ConfigError for a bad URL and a catalog of a newer mover, UnreachableError when nobody answers.
        """
        parsed, engine = _engine(url)
        catalog = cls(engine, clock or SystemClock())
        if parsed.get_backend_name() == "sqlite":
            catalog._prepare_sqlite()
            if parsed.database:
                os.makedirs(os.path.dirname(parsed.database) or ".", mode=0o700, exist_ok=True)
        try:
            try:
                await catalog._create()
            except DatabaseError:
                # Another coordinator was creating the same at the same moment: now it is there.
                await catalog._create()
        except (SQLAlchemyError, OSError, TimeoutError) as exc:
            await engine.dispose()
            raise UnreachableError(
                f"the catalog {parsed.render_as_string(hide_password=True)} cannot be opened: {_reason(exc)}",
                hint="check the path or address and its permissions, or name another one with --catalog",
            ) from None
        except ConfigError:
            await engine.dispose()
            raise
        return catalog

    async def _create(self) -> None:
        async with self.engine.begin() as connection:
            await connection.run_sync(prepare)

    def _prepare_sqlite(self) -> None:
        def give_clock(connection: Any, _record: Any) -> None:
            connection.create_function(SQLITE_FUNCTION, 0, self._now_us)

        engine = self.engine.sync_engine
        event.listen(engine, "connect", _set_sqlite_pragmas)
        event.listen(engine, "connect", _no_implicit_begin)
        event.listen(engine, "connect", give_clock)
        event.listen(engine, "begin", _begin_immediate)

    def _now_us(self) -> int:
        return self.clock.now_us()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end of the block, rolled back by an exception.

        Raises UnreachableError when the database is gone or does not answer: whether the transaction was committed is
        not known then.
        """
        try:
            async with self.engine.begin() as connection:
                yield connection
        except _GONE as exc:
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


def _engine(url: str) -> tuple[URL, AsyncEngine]:
    hint = "use sqlite+aiosqlite:///PATH or mysql+asyncmy://USER:PASSWORD@HOST/DATABASE"
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend not in {"sqlite", "mysql", "mariadb"}:
            raise ConfigError(f"the catalog URL names {backend}, which mover does not know", hint=hint)
        options: dict[str, Any] = {}
        if backend != "sqlite":
            if not parsed.database:
                raise ConfigError("the catalog URL names no database", hint=hint)
            # Times in the views are in the zone of whoever asks; mover itself asks for UTC.
            options = {"init_command": "SET time_zone = '+00:00'"}
            options |= {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _ANSWER_SECONDS}
        return parsed, create_async_engine(parsed, pool_pre_ping=True, connect_args=options)
    except (ArgumentError, ImportError, SQLAlchemyError) as exc:
        raise ConfigError(f"the catalog URL cannot be used: {type(exc).__name__}", hint=hint) from None


def _reason(exc: BaseException) -> str:
    original = getattr(exc, "orig", None) or exc
    return str(original).splitlines()[0] if str(original) else type(original).__name__
