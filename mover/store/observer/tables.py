"""The rows of a cluster's inner and virtual tables, by their names and columns: over SQL, or from a file."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import asyncmy
import asyncmy.errors

from mover.errors import SourceError, UnreachableError

Row = dict[str, Any]
CATALOG_NAME = "catalog.json"
_CONNECT_SECONDS = 10
_READ_SECONDS = 120
_LOST = frozenset({2002, 2003, 2006, 2013, 2055, 0})
_DENIED = frozenset({1044, 1045, 1698})


class Tables(Protocol):
    """Tables of schema ``oceanbase`` as the sys tenant sees them."""

    @property
    def name(self) -> str:
        """What is asked, for messages."""
        ...

    async def rows(self, table: str, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows with these columns.

        Args:
            where: columns that must equal a value; distributed tables are routed by ``svr_ip`` and ``svr_port``.

        Raises:
            UnreachableError: nobody answers, or the sign-in was refused.
            SourceError: there is no such table or column.
        """
        ...

    async def aclose(self) -> None: ...


class SqlTables:
    """Over the MySQL protocol; connects when first asked, and again when the connection breaks.

    Args:
        user, password: of the sys tenant. The password is in no error and no repr.
        host, port: SQL address of any server of the cluster.
    """

    def __init__(self, *, user: str, password: str, host: str, port: int) -> None:
        self._user = user
        self._password = password
        self._host = host
        self._port = port
        self._connection: Any = None
        self._lock = asyncio.Lock()

    @property
    def name(self) -> str:
        return f"OceanBase at {self._host}:{self._port}"

    def __repr__(self) -> str:
        return f"SqlTables({self._user}@{self._host}:{self._port})"

    async def rows(self, table: str, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> list[Row]:
        """See :class:`Tables`."""
        names = ", ".join(f"`{column}`" for column in columns)
        sql, args = f"SELECT {names} FROM oceanbase.`{table}`", []
        if where:
            sql += " WHERE " + " AND ".join(f"`{column}` = %s" for column in where)
            args = list(where.values())
        return [dict(zip(columns, row, strict=True)) for row in await self._fetch(sql, args)]

    async def _fetch(self, sql: str, args: Sequence[Any]) -> list[tuple[Any, ...]]:
        async with self._lock:
            for attempt in (1, 2):
                connection = self._connection or await self._connect()
                try:
                    async with connection.cursor() as cursor:
                        await cursor.execute(sql, args or None)
                        return list(await cursor.fetchall())
                except (asyncmy.errors.Error, OSError, TimeoutError) as error:
                    number = _number(error)
                    if number not in _LOST:
                        raise SourceError(
                            f"{self.name} refused a catalog query: {_text(error)}",
                            hint="mover reads the tables of OceanBase 3.1, as the sys tenant",
                            sql_error=number,
                        ) from None
                    await self._disconnect()
                    if attempt == 2:
                        raise self._unreachable(error) from None
                except BaseException:
                    # Cancelled between request and answer: the next query would read this one's rows.
                    await self._disconnect()
                    raise
        raise AssertionError("unreachable")

    async def _connect(self) -> Any:
        try:
            self._connection = await asyncmy.connect(
                host=self._host,
                port=self._port,
                user=self._user,
                password=self._password,
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                autocommit=True,
                program_name="mover",
            )
        except (asyncmy.errors.Error, OSError, TimeoutError) as error:
            raise self._unreachable(error) from None
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _unreachable(self, error: BaseException) -> UnreachableError:
        hint = "check host and port in the source URL, and that the server is running"
        if _number(error) in _DENIED:
            hint = "check the user in the source URL (user@sys) and the password in MOVER_SOURCE_PASSWORD"
        return UnreachableError(
            f"{self.name} does not answer: {_text(error)}", hint=hint, sql_error=_number(error) or None
        )

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        async with self._lock:
            await self._disconnect()


class FileTables:
    """From a ``catalog.json``: ``{"tables": {name: {"columns": [[column, type], ...], "rows": [[value, ...], ...]}}}``.

    It is replaced by a rename whenever it changes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._tables: dict[str, tuple[dict[str, int], list[list[Any]]]] = {}

    @property
    def name(self) -> str:
        return f"catalog {self._path}"

    async def rows(self, table: str, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> list[Row]:
        """See :class:`Tables`."""
        tables = await asyncio.to_thread(self._load)
        if table not in tables:
            raise SourceError(f"{self.name} has no table {table}", path=str(self._path))
        places, rows = tables[table]
        missing = [column for column in (*columns, *(where or ())) if column not in places]
        if missing:
            raise SourceError(f"{self.name}: table {table} has no column {missing[0]}", path=str(self._path))
        tests = [(places[column], value) for column, value in (where or {}).items()]
        wanted = [(column, places[column]) for column in columns]
        return [
            {column: row[place] for column, place in wanted}
            for row in rows
            if all(row[place] == value for place, value in tests)
        ]

    def _load(self) -> dict[str, tuple[dict[str, int], list[list[Any]]]]:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
                if stamp != self._seen:
                    self._tables = {
                        name: ({column[0]: at for at, column in enumerate(table["columns"])}, table["rows"])
                        for name, table in json.load(file)["tables"].items()
                    }
                    self._seen = stamp
        except OSError as error:
            raise UnreachableError(f"cannot read {self._path}: {error.strerror}", path=str(self._path)) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise SourceError(f"{self._path} is not a catalog of tables", path=str(self._path)) from None
        return self._tables

    async def aclose(self) -> None:
        """Nothing is open."""


def _number(error: BaseException) -> int:
    """The MySQL error number; 0 for what has none, which is a broken connection."""
    first = error.args[0] if error.args else 0
    return first if isinstance(error, asyncmy.errors.Error) and isinstance(first, int) else 0


def _text(error: BaseException) -> str:
    texts = [str(argument) for argument in error.args if isinstance(argument, str)]
    return texts[-1] if texts else type(error).__name__
