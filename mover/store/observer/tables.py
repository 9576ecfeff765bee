"""The rows of a cluster's inner and virtual tables, by their names and columns: over SQL, or from a file."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mover.errors import SourceError, UnreachableError
from mover.store.sql import SqlConnection

Row = dict[str, Any]
CATALOG_NAME = "catalog.json"


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
        self.name = f"OceanBase at {host}:{port}"
        self._shown = f"SqlTables({user}@{host}:{port})"
        self._connection = SqlConnection(
            self.name,
            lambda: {"host": host, "port": port},
            user=user,
            password=password,
            denied="check the user in the source URL (user@sys) and the password in MOVER_SOURCE_PASSWORD",
            silent="check host and port in the source URL, and that the server is running",
            refused="mover reads the tables of OceanBase 3.1, as the sys tenant",
        )

    def __repr__(self) -> str:
        return self._shown

    async def rows(self, table: str, columns: Sequence[str], where: Mapping[str, Any] | None = None) -> list[Row]:
        """See :class:`Tables`."""
        names = ", ".join(f"`{column}`" for column in columns)
        sql, args = f"SELECT {names} FROM oceanbase.`{table}`", []
        if where:
            sql += " WHERE " + " AND ".join(f"`{column}` = %s" for column in where)
            args = list(where.values())
        return [dict(zip(columns, row, strict=True)) for row in await self._connection.fetch(sql, args)]

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        await self._connection.aclose()


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
