"""Puts a synthetic cluster's virtual tables into a server that speaks the MySQL protocol, for asking them by SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DATABASE = "oceanbase"
_BATCH = 1000


def statements(document: dict[str, Any]) -> Iterator[tuple[str, list[list[Any]]]]:
    """SQL that makes the database ``oceanbase`` with the tables of ``document`` (the content of ``catalog.json``).

    Each item is a statement and the rows of parameters to run it with; without rows it is run once. A database of that
    name is replaced, so loading again is loading anew.
    """
    yield f"DROP DATABASE IF EXISTS {DATABASE}", []
    yield f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4", []
    for name, table in document["tables"].items():
        columns = ", ".join(f"`{column}` {kind} NULL" for column, kind in table["columns"])
        yield f"CREATE TABLE {DATABASE}.`{name}` ({columns})", []
        marks = ", ".join(["%s"] * len(table["columns"]))
        rows = table["rows"]
        for at in range(0, len(rows), _BATCH):
            yield f"INSERT INTO {DATABASE}.`{name}` VALUES ({marks})", rows[at : at + _BATCH]


async def load(document: dict[str, Any], connection: Any) -> None:
    """Run ``statements`` on an asyncmy connection and commit.

    Raises:
        asyncmy.errors.MySQLError: as the server says.
    """
    async with connection.cursor() as cursor:
        for sql, rows in statements(document):
            if rows:
                await cursor.executemany(sql, rows)
            else:
                await cursor.execute(sql)
    await connection.commit()
